//! Reads the running kernel's type information (BTF, `Documentation/bpf/btf.rst`) as far as the drop probe
//! needs it: offsets of members and names of enumerators. Rust kernel programs have no CO-RE relocations,
//! aya does not publish its reader, and the one crate that would do is LGPL, which a static binary under
//! Apache-2.0 or MIT can't take in.

use std::collections::HashMap;
use std::fs;
use std::io;

/// Where the kernel shows its types (`CONFIG_DEBUG_INFO_BTF`).
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const ENUM64: u32 = 19;

/// Types by number, as offsets into the raw bytes.
pub(super) struct Btf {
    bytes: Vec<u8>,
    strings: usize,
    types: Vec<usize>,
    structs: HashMap<String, u32>,
}

/// The header of a type, `struct btf_type`.
struct Header {
    name: u32,
    kind: u32,
    length: usize,
    flag: bool,
}

impl Btf {
    /// The running kernel's.
    pub(super) fn of_kernel() -> io::Result<Self> {
        Self::parse(fs::read(KERNEL_BTF)?)
            .ok_or_else(|| io::Error::other(format!("{KERNEL_BTF} is not BTF of version 1")))
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC || bytes.get(2) != Some(&1)
        {
            return None;
        }
        let word = |at: usize| word_at(&bytes, at);
        let header = word(4)? as usize;
        let start = header + word(8)? as usize;
        let end = start + word(12)? as usize;
        let strings = header + word(16)? as usize;
        let mut btf = Self {
            bytes,
            strings,
            // Type 0 is `void` and has no entry.
            types: vec![usize::MAX],
            structs: HashMap::new(),
        };
        let mut at = start;
        while at < end {
            let number = u32::try_from(btf.types.len()).ok()?;
            btf.types.push(at);
            let header = btf.header(number)?;
            if header.kind == STRUCT {
                let name = btf.string(header.name)?.to_owned();
                btf.structs.entry(name).or_insert(number);
            }
            at += 12
                + match header.kind {
                    INT | VAR | DECL_TAG => 4,
                    ARRAY => 12,
                    STRUCT | UNION | DATASEC | ENUM64 => header.length * 12,
                    ENUM | FUNC_PROTO => header.length * 8,
                    _ => 0,
                };
        }
        Some(btf)
    }

    fn header(&self, number: u32) -> Option<Header> {
        let at = *self.types.get(number as usize)?;
        let info = word_at(&self.bytes, at.checked_add(4)?)?;
        Some(Header {
            name: word_at(&self.bytes, at)?,
            kind: (info >> 24) & 0x1f,
            length: (info & 0xffff) as usize,
            flag: info >> 31 == 1,
        })
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let rest = self.bytes.get(self.strings + offset as usize..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }

    /// Byte offset of `member` in `structure`, looking into unnamed members.
    pub(super) fn offset(&self, structure: &str, member: &str) -> Option<u32> {
        self.offset_in(*self.structs.get(structure)?, member, 8)
    }

    fn offset_in(&self, number: u32, member: &str, depth: u32) -> Option<u32> {
        let header = self.header(number)?;
        if depth == 0 || !matches!(header.kind, STRUCT | UNION) {
            return None;
        }
        let first = self.types.get(number as usize)? + 12;
        (0..header.length).find_map(|index| {
            let at = first + index * 12;
            let name = self.string(word_at(&self.bytes, at)?)?;
            let bits = word_at(&self.bytes, at + 8)?;
            // With the flag set, the upper byte is the size of a bit field.
            let bytes = if header.flag { bits & 0xff_ffff } else { bits } / 8;
            if name == member {
                return Some(bytes);
            }
            let inner = word_at(&self.bytes, at + 4)?;
            (name.is_empty())
                .then(|| self.offset_in(inner, member, depth - 1))
                .flatten()
                .map(|offset| offset + bytes)
        })
    }

    /// Numbers and names of an enumeration.
    pub(super) fn enumerators(&self, enumeration: &str) -> HashMap<u32, String> {
        let mut found = HashMap::new();
        for number in 1..self.types.len() {
            let Some(header) = u32::try_from(number)
                .ok()
                .and_then(|number| self.header(number))
            else {
                continue;
            };
            if header.kind != ENUM || self.string(header.name) != Some(enumeration) {
                continue;
            }
            for index in 0..header.length {
                let at = self.types[number] + 12 + index * 8;
                if let (Some(name), Some(value)) = (
                    word_at(&self.bytes, at).and_then(|name| self.string(name)),
                    word_at(&self.bytes, at + 4),
                ) {
                    found.insert(value, name.to_owned());
                }
            }
        }
        found
    }
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_the_members_that_the_drop_probe_reads() {
        let Ok(btf) = Btf::of_kernel() else {
            eprintln!("SKIPPED: this kernel shows no BTF");
            return;
        };
        for (structure, member) in [
            ("sk_buff", "head"),
            ("sk_buff", "network_header"),
            // In an unnamed union in an unnamed structure.
            ("sk_buff", "dev"),
            ("sock_common", "skc_net"),
            ("net", "ns"),
        ] {
            assert!(
                btf.offset(structure, member).is_some(),
                "{structure}.{member}"
            );
        }
        assert_eq!(btf.offset("sk_buff", "no_such_member"), None);
        let reasons = btf.enumerators("skb_drop_reason");
        assert!(
            reasons
                .values()
                .any(|name| name == "SKB_DROP_REASON_NETFILTER_DROP")
        );
    }

    #[test]
    fn damaged_type_information_is_refused_or_harmless() {
        assert!(Btf::parse(Vec::new()).is_none());
        assert!(Btf::parse(vec![0x9f, 0xeb, 1, 0]).is_none());
        let Ok(whole) = fs::read(KERNEL_BTF) else {
            return;
        };
        let cut = whole[..whole.len() / 3].to_vec();
        if let Some(btf) = Btf::parse(cut) {
            assert_eq!(btf.offset("sk_buff", "no_such_member"), None);
        }
    }
}
