//! What the kernel's flow tables hold of a flow. It is what [`FlowRecord`] says, in 40 bytes in place of 56: with the key (40)
//! and the kernel's own part of an element (48) a flow is two cache lines, and a packet is counted by one atomic addition.
//!
//! A [`Tally`] has room for 16 million packets. What is more is carried over to a table of its own ([`Carried`]), which only
//! few flows need; a bit of the state says so ([`State::has_carried`]).

use crate::key::Side;
use crate::record::{FlowRecord, owns, times};
use crate::state::{State, Times};
use crate::ticks::Ticks;

/// Packets and frame bytes of one direction in one word: packets in the upper 24 bits, bytes in the lower 40 (a terabyte).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally(pub u64);

impl Tally {
    const PACKETS: u32 = 40;

    /// One packet of so many bytes, below 2^39; what to add to the word for it.
    #[inline(always)]
    #[must_use]
    pub const fn packet(bytes: u64) -> Self {
        Self(1 << Self::PACKETS | bytes)
    }

    /// Packets.
    #[inline(always)]
    #[must_use]
    pub const fn packets(self) -> u64 {
        self.0 >> Self::PACKETS
    }

    /// Frame bytes.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 & ((1 << Self::PACKETS) - 1)
    }

    /// Whether it is time to carry over: one of the two numbers has its highest bit. As much again fits before either is
    /// wrong: eight million packets, half a terabyte.
    #[inline(always)]
    #[must_use]
    pub const fn is_half_full(self) -> bool {
        self.0 & (1 << 63 | 1 << (Self::PACKETS - 1)) != 0
    }
}

/// Packets and frame bytes of a flow, by side A and side B.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Packets.
    pub packets: [u64; 2],
    /// Frame bytes.
    pub bytes: [u64; 2],
}

/// What is kept of a flow in the kernel, 40 bytes. Each field is the one of its name in [`FlowRecord`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowEntry {
    /// Packets and frame bytes sent by side A and by side B, as far as they are not carried over.
    pub tallies: [Tally; 2],
    /// When the first packet was seen.
    pub first_seen: Ticks,
    /// When the last packet of side A and of side B was seen.
    pub last_seen: [Ticks; 2],
    /// Outcome, phase, verdict and the rest.
    pub state: State,
    /// Counter slot of the requirements that cover the flow.
    pub slot: u32,
    /// Which capture point counts the packets of side A and of side B.
    pub points: [u16; 2],
}
const _: () = assert!(size_of::<FlowEntry>() == 40 && align_of::<FlowEntry>() == 8);

impl FlowEntry {
    /// See [`FlowRecord::times`].
    #[inline(always)]
    #[must_use]
    pub fn times(&self, now: Ticks) -> Times {
        times(self.first_seen, self.last_seen, now)
    }

    /// See [`FlowRecord::owns`].
    #[inline(always)]
    pub fn owns(&mut self, side: Side, point: u16, now: Ticks) -> bool {
        // Written without indexing by a variable, which the verifier would have to bound.
        let (owner, last) = match side {
            Side::A => (&mut self.points[0], self.last_seen[0]),
            Side::B => (&mut self.points[1], self.last_seen[1]),
        };
        owns(owner, last, point, now)
    }

    /// What is counted in the entry itself.
    #[inline(always)]
    #[must_use]
    pub const fn totals(&self) -> Totals {
        let [a, b] = self.tallies;
        Totals {
            packets: [a.packets(), b.packets()],
            bytes: [a.bytes(), b.bytes()],
        }
    }

    /// All of it, with these totals.
    #[inline(always)]
    #[must_use]
    pub const fn record(&self, totals: &Totals) -> FlowRecord {
        FlowRecord {
            packets: totals.packets,
            bytes: totals.bytes,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            state: self.state,
            slot: self.slot,
            points: self.points,
        }
    }
}

/// What was carried over of a flow's tallies, 40 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Carried {
    /// Packets sent by side A and by side B.
    pub packets: [u64; 2],
    /// Frame bytes sent by side A and by side B.
    pub bytes: [u64; 2],
    /// When the flow began: what an earlier one between the same ends left behind is not this one's.
    pub first_seen: Ticks,
    /// Always zero.
    pub zero: u32,
}
const _: () = assert!(size_of::<Carried>() == 40);

impl Carried {
    /// Of `side` of a flow that began then.
    #[inline(always)]
    #[must_use]
    pub const fn new(side: Side, tally: Tally, first_seen: Ticks) -> Self {
        let (packets, bytes) = (tally.packets(), tally.bytes());
        let (packets, bytes) = match side {
            Side::A => ([packets, 0], [bytes, 0]),
            Side::B => ([0, packets], [0, bytes]),
        };
        Self {
            packets,
            bytes,
            first_seen,
            zero: 0,
        }
    }

    /// Adds it to what is in the entry of a flow, if it is of that flow.
    #[inline(always)]
    #[must_use]
    pub const fn totals(&self, entry: &FlowEntry) -> Totals {
        let mut totals = entry.totals();
        if self.first_seen.0 == entry.first_seen.0 {
            totals.packets[0] += self.packets[0];
            totals.packets[1] += self.packets[1];
            totals.bytes[0] += self.bytes[0];
            totals.bytes[1] += self.bytes[1];
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_both() {
        let mut tally = Tally::default();
        for bytes in [60, 1514, 65_549, 524_303] {
            tally.0 += Tally::packet(bytes).0;
        }
        assert_eq!((tally.packets(), tally.bytes()), (4, 591_426));
        assert!(!tally.is_half_full());
    }

    #[test]
    fn it_is_time_to_carry_over_long_before_either_number_is_wrong() {
        let of = |packets: u64, bytes: u64| Tally(packets << 40 | bytes);
        assert!(!of((1 << 23) - 1, (1 << 39) - 1).is_half_full());
        for (packets, bytes) in [(1 << 23, 0), (0, 1 << 39), ((1 << 24) - 1, (1 << 40) - 1)] {
            let tally = of(packets, bytes);
            assert!(tally.is_half_full());
            assert_eq!((tally.packets(), tally.bytes()), (packets, bytes));
        }
    }

    #[test]
    fn what_was_carried_over_belongs_to_one_flow() {
        let entry = FlowEntry {
            tallies: [Tally::packet(100), Tally::default()],
            first_seen: Ticks(7),
            ..FlowEntry::default()
        };
        let tally = Tally(5 << 40 | 1_000);
        let own = Carried::new(Side::A, tally, Ticks(7)).totals(&entry);
        assert_eq!((own.packets, own.bytes), ([6, 0], [1_100, 0]));
        let others = Carried::new(Side::B, tally, Ticks(7)).totals(&entry);
        assert_eq!((others.packets, others.bytes), ([1, 5], [100, 1_000]));
        let earlier = Carried::new(Side::A, tally, Ticks(6)).totals(&entry);
        assert_eq!(earlier, entry.totals());
    }

    #[test]
    fn a_record_is_what_the_entry_says() {
        let entry = FlowEntry {
            tallies: [Tally::packet(100), Tally::packet(40)],
            first_seen: Ticks(7),
            last_seen: [Ticks(8), Ticks(9)],
            state: State(3),
            slot: 5,
            points: [2, 3],
        };
        let expect = FlowRecord {
            packets: [1, 1],
            bytes: [100, 40],
            first_seen: Ticks(7),
            last_seen: [Ticks(8), Ticks(9)],
            state: State(3),
            slot: 5,
            points: [2, 3],
        };
        assert_eq!(entry.record(&entry.totals()), expect);
        let (own, expect) = (entry.times(Ticks(20)), expect.times(Ticks(20)));
        assert_eq!(own.since_first, expect.since_first);
        assert_eq!(own.since_last, expect.since_last);
    }
}
