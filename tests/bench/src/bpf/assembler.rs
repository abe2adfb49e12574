//! Puts BPF instructions together. The floors are a few dozen instructions, written down one by one, so that nobody has
//! to wonder what a compiler made of them, and the bench needs no BPF tool chain.
//!
//! Numbers are those of `linux/bpf.h` and `linux/bpf_common.h`; the encoding is RFC 9669's.

use std::collections::HashMap;

/// A register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Register(u8);

/// Return values, and scratch.
pub(crate) const R0: Register = Register(0);
/// The context at the start; first argument.
pub(crate) const R1: Register = Register(1);
/// Second argument.
pub(crate) const R2: Register = Register(2);
/// Third argument.
pub(crate) const R3: Register = Register(3);
/// Fourth argument.
pub(crate) const R4: Register = Register(4);
/// Kept over calls.
pub(crate) const R6: Register = Register(6);
/// Kept over calls.
pub(crate) const R7: Register = Register(7);
/// Kept over calls.
pub(crate) const R8: Register = Register(8);
/// Kept over calls.
pub(crate) const R9: Register = Register(9);
/// The frame; only read.
pub(crate) const R10: Register = Register(10);

/// How much is loaded or stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Half,
    /// 4 bytes.
    Word,
    /// 8 bytes.
    Double,
}

impl Size {
    const fn bits(self) -> u8 {
        match self {
            Self::Word => 0x00,
            Self::Half => 0x08,
            Self::Byte => 0x10,
            Self::Double => 0x18,
        }
    }
}

/// A helper of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Helper {
    /// `bpf_map_lookup_elem`.
    MapLookup = 1,
    /// `bpf_map_update_elem`.
    MapUpdate = 2,
    /// `bpf_ktime_get_ns`.
    ExactTime = 5,
    /// `bpf_tail_call`.
    TailCall = 12,
    /// `bpf_ringbuf_output`.
    RingOutput = 130,
    /// `bpf_ktime_get_coarse_ns`.
    CoarseTime = 160,
}

/// A place to jump to.
pub(crate) type Label = &'static str;

/// A program that is being written.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    code: Vec<u64>,
    labels: HashMap<Label, usize>,
    jumps: Vec<(usize, Label)>,
}

const fn encode(code: u8, to: Register, from: Register, offset: i16, value: i32) -> u64 {
    code as u64
        | ((to.0 | from.0 << 4) as u64) << 8
        | (offset as u16 as u64) << 16
        | (value as u32 as u64) << 32
}

impl Assembler {
    /// `to = from`.
    pub(crate) fn copy(&mut self, to: Register, from: Register) -> &mut Self {
        self.put(encode(0xbf, to, from, 0, 0))
    }

    /// `to = value`.
    pub(crate) fn set(&mut self, to: Register, value: i32) -> &mut Self {
        self.put(encode(0xb7, to, R0, 0, value))
    }

    /// `to += value`.
    pub(crate) fn add(&mut self, to: Register, value: i32) -> &mut Self {
        self.put(encode(0x07, to, R0, 0, value))
    }

    /// `to >>= bits`, filled with zeros.
    pub(crate) fn shift_right(&mut self, to: Register, bits: i32) -> &mut Self {
        self.put(encode(0x77, to, R0, 0, bits))
    }

    /// `to = *(from + offset)`.
    pub(crate) fn load(
        &mut self,
        size: Size,
        to: Register,
        from: Register,
        offset: i16,
    ) -> &mut Self {
        self.put(encode(0x61 | size.bits(), to, from, offset, 0))
    }

    /// `*(to + offset) = from`.
    pub(crate) fn store(
        &mut self,
        size: Size,
        to: Register,
        offset: i16,
        from: Register,
    ) -> &mut Self {
        self.put(encode(0x63 | size.bits(), to, from, offset, 0))
    }

    /// `*(to + offset) += from` of 8 bytes, atomically.
    pub(crate) fn atomic_add(&mut self, to: Register, offset: i16, from: Register) -> &mut Self {
        self.put(encode(0xdb, to, from, offset, 0))
    }

    /// `to` is the address of a map.
    pub(crate) fn map(&mut self, to: Register, descriptor: i32) -> &mut Self {
        // The source says that the value is a descriptor; the second half is empty.
        self.put(encode(0x18, to, R1, 0, descriptor)).put(0)
    }

    /// Calls a helper.
    pub(crate) fn call(&mut self, helper: Helper) -> &mut Self {
        self.put(encode(0x85, R0, R0, 0, helper as i32))
    }

    /// Ends with `value`.
    pub(crate) fn end(&mut self, value: i32) -> &mut Self {
        self.set(R0, value).put(encode(0x95, R0, R0, 0, 0))
    }

    /// Goes to `label` if `one == value`.
    pub(crate) fn if_equal(&mut self, one: Register, value: i32, label: Label) -> &mut Self {
        self.jump(encode(0x15, one, R0, 0, value), label)
    }

    /// Goes to `label` if `one != value`.
    pub(crate) fn if_other(&mut self, one: Register, value: i32, label: Label) -> &mut Self {
        self.jump(encode(0x55, one, R0, 0, value), label)
    }

    /// Goes to `label` if `one < value`, without signs.
    pub(crate) fn if_below(&mut self, one: Register, value: i32, label: Label) -> &mut Self {
        self.jump(encode(0xa5, one, R0, 0, value), label)
    }

    /// Goes to `label` if `one > other`, without signs.
    pub(crate) fn if_above(&mut self, one: Register, other: Register, label: Label) -> &mut Self {
        self.jump(encode(0x2d, one, other, 0, 0), label)
    }

    /// What follows is `label`.
    pub(crate) fn label(&mut self, label: Label) -> &mut Self {
        let before = self.labels.insert(label, self.code.len());
        assert!(before.is_none(), "the label {label} is set twice");
        self
    }

    fn put(&mut self, instruction: u64) -> &mut Self {
        self.code.push(instruction);
        self
    }

    fn jump(&mut self, instruction: u64, label: Label) -> &mut Self {
        self.jumps.push((self.code.len(), label));
        self.put(instruction)
    }

    /// The instructions, 8 bytes each.
    ///
    /// # Panics
    /// A label is not set, or further away than a jump goes: the program is written wrongly.
    pub(crate) fn finish(&mut self) -> Vec<u64> {
        for (at, label) in std::mem::take(&mut self.jumps) {
            let Some(to) = self.labels.get(label) else {
                panic!("the label {label} is not set");
            };
            let Ok(distance) = i16::try_from(to - at - 1) else {
                panic!("{label} is too far away");
            };
            self.code[at] |= (distance as u16 as u64) << 16;
        }
        std::mem::take(&mut self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against what `llvm-mc -triple bpfel` makes of the same.
    #[test]
    fn the_encoding_is_llvms() {
        let mut asm = Assembler::default();
        let code = asm
            .copy(R6, R1)
            .load(Size::Word, R9, R1, 76)
            .store(Size::Half, R10, -2, R3)
            .set(R0, -1)
            .add(R2, -4)
            .atomic_add(R7, 8, R3)
            .map(R1, 5)
            .finish();
        let expect: [[u8; 8]; 8] = [
            [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
            [0x61, 0x19, 76, 0, 0, 0, 0, 0],
            [0x6b, 0x3a, 0xfe, 0xff, 0, 0, 0, 0],
            [0xb7, 0x00, 0, 0, 0xff, 0xff, 0xff, 0xff],
            [0x07, 0x02, 0, 0, 0xfc, 0xff, 0xff, 0xff],
            [0xdb, 0x37, 8, 0, 0, 0, 0, 0],
            [0x18, 0x11, 0, 0, 5, 0, 0, 0],
            [0; 8],
        ];
        assert_eq!(code, expect.map(u64::from_le_bytes));
    }

    #[test]
    fn jumps_count_from_the_next_instruction() {
        let mut asm = Assembler::default();
        let code = asm
            .if_equal(R0, 0, "out")
            .set(R1, 1)
            .set(R1, 2)
            .label("out")
            .end(0)
            .finish();
        assert_eq!(code[0], u64::from_le_bytes([0x15, 0, 2, 0, 0, 0, 0, 0]));
    }
}
