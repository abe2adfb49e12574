//! The programs that the kernel benches need besides flowproof's: the floors, and what feeds packets to either.
//!
//! Offsets into the context are those of `struct __sk_buff` (`linux/bpf.h`).

use anyhow::Result;

use super::assembler::{
    Assembler, Helper, R0, R1, R2, R3, R4, R6, R7, R8, R9, R10, Size::Byte, Size::Double,
    Size::Half, Size::Word,
};
use super::{Kind, Map, Program};

/// `TCX_NEXT`: go on as if the program were not there.
const NEXT: i32 = -1;
/// `TC_ACT_STOLEN`: the packet is taken, not dropped.
const STOLEN: i32 = 4;

const LENGTH: i16 = 0;
const DATA: i16 = 76;
const DATA_END: i16 = 80;

/// Bytes of a flow in [`Feed`] and [`Floor`] that go into the packet: addresses and ports of IPv4 without options.
pub(crate) const TUPLE: usize = 12;
/// Where they stand in an Ethernet frame.
const TUPLE_AT: i16 = 26;
/// Bytes that a frame has at least.
const LEAST: i32 = 38;

/// Addresses and ports as they stand in a packet.
pub(crate) type Tuple = [u8; TUPLE];

/// The program that does nothing.
pub(crate) fn empty() -> Result<Program> {
    Program::load("bench_empty", &Assembler::default().end(NEXT).finish())
}

/// The program that takes every packet, so that none is dropped behind what is measured.
pub(crate) fn thief() -> Result<Program> {
    Program::load("bench_thief", &Assembler::default().end(STOLEN).finish())
}

/// Points R9 to the frame, whose ends are at these offsets of the context in R1; goes to "out" if it is too short.
pub(super) fn take_frame(asm: &mut Assembler, data: i16, data_end: i16) {
    asm.load(Word, R9, R1, data)
        .load(Word, R8, R1, data_end)
        .copy(R2, R9)
        .add(R2, LEAST)
        .if_above(R2, R8, "out");
}

/// Puts the 5-tuple of the frame at R9 onto the last 16 bytes of the stack.
fn read_key(asm: &mut Assembler) {
    for (at, key) in [(0, -16), (4, -12), (8, -8)] {
        asm.load(Word, R3, R9, TUPLE_AT + at)
            .store(Word, R10, key, R3);
    }
    asm.load(Byte, R3, R9, 23).store(Word, R10, -4, R3);
}

/// Flows to go through, by number.
pub(super) fn table(tuples: &[Tuple]) -> Result<Map> {
    let count = u32::try_from(tuples.len())?;
    let map = Map::new(Kind::Array, 4, u32::try_from(TUPLE)?, count)?;
    for (index, tuple) in (0_u32..).zip(tuples) {
        map.write(&index.to_ne_bytes(), tuple)?;
    }
    Ok(map)
}

/// Leaves the cursor's number in R7 and moves it on, after the last of `count` to 0; goes to "out" if it can't.
pub(super) fn move_on(asm: &mut Assembler, cursor: &Map, count: Option<i32>) {
    asm.set(R3, 0)
        .store(Word, R10, -4, R3)
        .map(R1, cursor.descriptor())
        .copy(R2, R10)
        .add(R2, -4)
        .call(Helper::MapLookup)
        .if_equal(R0, 0, "out")
        .load(Word, R7, R0, 0)
        .copy(R3, R7)
        .add(R3, 1);
    if let Some(count) = count {
        asm.if_below(R3, count, "on").set(R3, 0).label("on");
    }
    asm.store(Word, R0, 0, R3);
}

/// Points R0 to the flow of the number in R7; goes to "out" if there is none.
pub(super) fn find(asm: &mut Assembler, flows: &Map) {
    asm.store(Word, R10, -8, R7)
        .map(R1, flows.descriptor())
        .copy(R2, R10)
        .add(R2, -8)
        .call(Helper::MapLookup)
        .if_equal(R0, 0, "out");
}

/// The least that counts flows exactly: it reads the 5-tuple of IPv4, looks it up in one hash table, adds packets and
/// bytes atomically, and notes the time by the coarse clock. It makes no flows and knows no IPv6.
#[derive(Debug)]
pub(crate) struct Floor {
    /// The program.
    pub(crate) program: Program,
    flows: Map,
}

impl Floor {
    /// With room for so many flows.
    pub(crate) fn new(entries: u32) -> Result<Self> {
        let flows = Map::new(Kind::Hash, 16, 24, entries)?;
        let mut asm = Assembler::default();
        asm.copy(R6, R1);
        take_frame(&mut asm, DATA, DATA_END);
        // IPv4, in network order, without options.
        asm.load(Half, R3, R9, 12)
            .if_other(R3, 0x0008, "out")
            .load(Byte, R3, R9, 14)
            .if_other(R3, 0x45, "out");
        read_key(&mut asm);
        let code = asm
            .map(R1, flows.descriptor())
            .copy(R2, R10)
            .add(R2, -16)
            .call(Helper::MapLookup)
            .if_equal(R0, 0, "out")
            .copy(R7, R0)
            .set(R3, 1)
            .atomic_add(R7, 0, R3)
            .load(Word, R3, R6, LENGTH)
            .atomic_add(R7, 8, R3)
            .call(Helper::CoarseTime)
            .store(Double, R7, 16, R0)
            .label("out")
            .end(NEXT)
            .finish();
        Ok(Self {
            program: Program::load("bench_floor", &code)?,
            flows,
        })
    }

    /// Makes a flow known.
    pub(crate) fn know(&self, tuple: &Tuple, protocol: u8) -> Result<()> {
        self.flows.write(&Self::key(tuple, protocol), &[0; 24])
    }

    /// Packets that were counted for a flow.
    pub(crate) fn packets(&self, tuple: &Tuple, protocol: u8) -> Result<u64> {
        let value = self.flows.read(&Self::key(tuple, protocol))?;
        Ok(value
            .first_chunk()
            .map_or(0, |bytes| u64::from_ne_bytes(*bytes)))
    }

    fn key(tuple: &Tuple, protocol: u8) -> [u8; 16] {
        let mut key = [0; 16];
        key[..TUPLE].copy_from_slice(tuple);
        key[12..].copy_from_slice(&u32::from(protocol).to_ne_bytes());
        key
    }
}

/// The least that notices a new flow: it reads the 5-tuple of IPv4 and puts it into a table that gives up the least recently
/// used. It judges nothing and tells nobody.
#[derive(Debug)]
pub(crate) struct Inserter {
    /// The program.
    pub(crate) program: Program,
    /// Held because the program writes into them.
    _maps: Vec<Map>,
}

impl Inserter {
    /// With room for so many flows.
    pub(crate) fn new(entries: u32) -> Result<Self> {
        let flows = Map::new(Kind::LruHash, 16, 24, entries)?;
        let mut asm = Assembler::default();
        take_frame(&mut asm, DATA, DATA_END);
        read_key(&mut asm);
        asm.set(R3, 1);
        for at in [-40, -32, -24] {
            asm.store(Double, R10, at, R3);
        }
        let code = asm
            .map(R1, flows.descriptor())
            .copy(R2, R10)
            .add(R2, -16)
            .copy(R3, R10)
            .add(R3, -40)
            .set(R4, 0)
            .call(Helper::MapUpdate)
            .label("out")
            .end(NEXT)
            .finish();
        Ok(Self {
            program: Program::load("bench_insert", &code)?,
            _maps: vec![flows],
        })
    }

    /// The same for keys that have room for IPv6, with the exact time of each flow sent to user space through a ring: what any
    /// probe pays that forgets no flow before it has told of it. Room for so many flows, and for `events` that nobody reads.
    pub(crate) fn telling(entries: u32, events: u32) -> Result<Self> {
        /// As [`flowproof_common::record::Event`] has, and what the kernel puts before each.
        const EVENT: i32 = 128;
        const HEADER: u32 = 8;
        /// `BPF_RB_NO_WAKEUP`.
        const NO_WAKEUP: i32 = 1;
        /// Where the event is on the stack; behind it come value and key, of 40 bytes each.
        const AT: i16 = -208;
        let flows = Map::new(Kind::LruHash, 40, 40, entries)?;
        let room = events * (EVENT as u32 + HEADER);
        let ring = Map::new(Kind::Ring, 0, 0, room.next_power_of_two())?;
        let mut asm = Assembler::default();
        take_frame(&mut asm, DATA, DATA_END);
        read_key(&mut asm);
        asm.set(R3, 0);
        for at in (AT..-16).step_by(8) {
            asm.store(Double, R10, at, R3);
        }
        let code = asm
            .map(R1, flows.descriptor())
            .copy(R2, R10)
            .add(R2, -40)
            .copy(R3, R10)
            .add(R3, -80)
            .set(R4, 0)
            .call(Helper::MapUpdate)
            .call(Helper::ExactTime)
            .store(Double, R10, AT, R0)
            .map(R1, ring.descriptor())
            .copy(R2, R10)
            .add(R2, i32::from(AT))
            .set(R3, EVENT)
            .set(R4, NO_WAKEUP)
            .call(Helper::RingOutput)
            .label("out")
            .end(NEXT)
            .finish();
        Ok(Self {
            program: Program::load("bench_tell", &code)?,
            _maps: vec![flows, ring],
        })
    }
}

/// Where [`Feed`] takes its flows from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// These, one after the other and over again; shuffle them beforehand.
    Known(&'a [Tuple]),
    /// A number in the source address and port, which no two packets have alike.
    Fresh,
}

/// Gives a packet another flow each time, then goes on to the program under test, by a tail call. Its own cost is part
/// of every figure, and is seen with the empty program behind it.
#[derive(Debug)]
pub(crate) struct Feed {
    program: Program,
    targets: Map,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "held for the program, and read by tests")
    )]
    cursor: Map,
    /// Held because the program reads it.
    _flows: Option<Map>,
}

impl Feed {
    /// Will give flows of `source`.
    pub(crate) fn new(source: Source<'_>) -> Result<Self> {
        let targets = Map::new(Kind::Programs, 4, 4, 1)?;
        let cursor = Map::new(Kind::Array, 4, 4, 1)?;
        let mut asm = Assembler::default();
        asm.copy(R6, R1);
        take_frame(&mut asm, DATA, DATA_END);
        let (flows, count) = match source {
            Source::Known(tuples) => (Some(table(tuples)?), Some(i32::try_from(tuples.len())?)),
            Source::Fresh => (None, None),
        };
        move_on(&mut asm, &cursor, count);
        match &flows {
            Some(flows) => {
                find(&mut asm, flows);
                for at in [0, 4, 8] {
                    asm.load(Word, R3, R0, at)
                        .store(Word, R9, TUPLE_AT + at, R3);
                }
            }
            None => {
                // The lower half of the source address, and the source port.
                asm.store(Half, R9, TUPLE_AT + 8, R7)
                    .shift_right(R7, 16)
                    .store(Half, R9, TUPLE_AT + 2, R7);
            }
        }
        let code = asm
            .copy(R1, R6)
            .map(R2, targets.descriptor())
            .set(R3, 0)
            .call(Helper::TailCall)
            .label("out")
            .end(NEXT)
            .finish();
        Ok(Self {
            program: Program::load("bench_feed", &code)?,
            targets,
            cursor,
            _flows: flows,
        })
    }

    /// Runs `program` on `frame` with so many flows; nanoseconds of one.
    pub(crate) fn run(&self, program: &Program, frame: &[u8], repeat: u32) -> Result<f64> {
        self.targets.put(program)?;
        let run = self.program.test(frame, repeat)?;
        anyhow::ensure!(
            run.returned == NEXT,
            "the program under test returned {} instead of {NEXT}",
            run.returned
        );
        Ok(f64::from(run.nanoseconds))
    }

    /// How many flows were given so far, modulo their number if they are known ones.
    #[cfg(test)]
    pub(crate) fn position(&self) -> Result<u32> {
        let value = self.cursor.read(&0_u32.to_ne_bytes())?;
        Ok(value
            .first_chunk()
            .map_or(0, |bytes| u32::from_ne_bytes(*bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45]);
        frame.resize(23, 0);
        frame.push(17);
        frame.resize(100, 0);
        frame
    }

    /// The floor counts what the feed gives, so both do what they say.
    #[test]
    fn the_floor_counts_every_packet_of_the_feed() {
        if !nix::unistd::geteuid().is_root() {
            flowproof_tests::skip::skip(
                "the_floor_counts_every_packet_of_the_feed",
                "needs root for BPF",
            );
            return;
        }
        let tuples: Vec<Tuple> = (0..10).map(|number| [number; TUPLE]).collect();
        let floor = Floor::new(16).unwrap();
        for tuple in &tuples {
            floor.know(tuple, 17).unwrap();
        }
        let feed = Feed::new(Source::Known(&tuples)).unwrap();
        feed.run(&floor.program, &frame(), 25).unwrap();
        assert_eq!(feed.position().unwrap(), 5);
        for (number, tuple) in tuples.iter().enumerate() {
            let expect = if number < 5 { 3 } else { 2 };
            assert_eq!(floor.packets(tuple, 17).unwrap(), expect, "{number}");
        }
    }

    #[test]
    fn fresh_flows_are_all_different() {
        if !nix::unistd::geteuid().is_root() {
            flowproof_tests::skip::skip("fresh_flows_are_all_different", "needs root for BPF");
            return;
        }
        let floor = Floor::new(16).unwrap();
        let mut tuple = [0; TUPLE];
        for number in 0..3_u8 {
            tuple[8] = number;
            floor.know(&tuple, 17).unwrap();
        }
        let feed = Feed::new(Source::Fresh).unwrap();
        feed.run(&floor.program, &frame(), 1000).unwrap();
        for number in 0..3_u8 {
            tuple[8] = number;
            assert_eq!(floor.packets(&tuple, 17).unwrap(), 1);
        }
        assert_eq!(feed.position().unwrap(), 1000);
    }
}
