//! The records that live in the flow tables and cross from the kernel to the daemon. Every byte is
//! spelled out: implicit padding would leak kernel stack bytes and split equal keys.

use crate::address::Address;
use crate::key::{FlowKey, Side};
use crate::state::{Outcome, State, Times};
use crate::ticks::Ticks;

/// What is known of a flow, 56 bytes. The kernel's tables hold the same in less ([`crate::entry::FlowEntry`]).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowRecord {
    /// Packets sent by side A and by side B.
    pub packets: [u64; 2],
    /// Frame bytes sent by side A and by side B, link header included.
    pub bytes: [u64; 2],
    /// When the first packet was seen.
    pub first_seen: Ticks,
    /// When the last packet of side A and of side B was seen.
    pub last_seen: [Ticks; 2],
    /// Outcome, phase, verdict and the rest.
    pub state: State,
    /// Counter slot of the requirements that cover the flow.
    pub slot: u32,
    /// Which capture point counts the packets of side A and of side B (0: none yet), see [`point`].
    pub points: [u16; 2],
}
const _: () = assert!(size_of::<FlowRecord>() == 56 && align_of::<FlowRecord>() == 8);

/// A packet that crosses a router passes two or more capture points and must count once. The first point
/// that sees a direction of a flow owns it; others only take over after this many nanoseconds without a
/// packet at the owner (its interface is gone, or the route changed).
pub const TAKEOVER_AFTER: u64 = 2_000_000_000;

/// The number of a capture point: interface index and direction of the hook. Indices beyond 32,767 wrap;
/// a wrong match needs two captured interfaces that are 32,768 apart.
#[inline(always)]
#[must_use]
pub const fn point(interface: u32, egress: bool) -> u16 {
    let number = ((interface & 0x7fff) as u16) << 1 | egress as u16;
    if number == 0 { 0xfffe } else { number }
}

/// The capture point of packets that the kernel dropped before any hook saw them.
pub const DROP_POINT: u16 = 0xffff;

/// Index of a side in the two-element arrays.
#[inline(always)]
#[must_use]
pub const fn index(side: Side) -> usize {
    match side {
        Side::A => 0,
        Side::B => 1,
    }
}

impl FlowRecord {
    /// A fresh record without packets.
    #[inline(always)]
    #[must_use]
    pub fn new(state: State, slot: u32, now: Ticks) -> Self {
        Self {
            packets: [0; 2],
            bytes: [0; 2],
            first_seen: now,
            last_seen: [now; 2],
            state,
            slot,
            points: [0; 2],
        }
    }

    /// How long the flow has lived and been silent.
    #[inline(always)]
    #[must_use]
    pub fn times(&self, now: Ticks) -> Times {
        times(self.first_seen, self.last_seen, now)
    }

    /// Whether `point` is the one that counts the packets of `side`; the first to ask becomes it.
    #[inline(always)]
    pub fn owns(&mut self, side: Side, point: u16, now: Ticks) -> bool {
        let index = index(side);
        owns(&mut self.points[index], self.last_seen[index], point, now)
    }
}

/// How long a flow has lived and been silent.
#[inline(always)]
pub(crate) fn times(first_seen: Ticks, last_seen: [Ticks; 2], now: Ticks) -> Times {
    let a = now.nanos_since(last_seen[0]);
    let b = now.nanos_since(last_seen[1]);
    Times {
        since_first: now.nanos_since(first_seen),
        since_last: if a < b { a } else { b },
    }
}

/// Whether `point` counts the packets of a side that `owner` counts, if anybody, and that was seen `last`; it may become it.
#[inline(always)]
pub(crate) fn owns(owner: &mut u16, last: Ticks, point: u16, now: Ticks) -> bool {
    if *owner == point {
        return true;
    }
    // A hook that sees the packets after all takes over from the drop probe at once; the other way
    // round, a packet dropped behind a hook has been counted there.
    let free = *owner == 0 || *owner == DROP_POINT;
    let stale = point != DROP_POINT && now.nanos_since(last) >= TAKEOVER_AFTER;
    if free || stale {
        *owner = point;
    }
    free || stale
}

/// Traffic of a counter slot on one CPU; 40 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SlotTraffic {
    /// Packets to the responder, packets to the initiator.
    pub packets: [u64; 2],
    /// Frame bytes to the responder, to the initiator.
    pub bytes: [u64; 2],
    /// Nanoseconds of the monotonic clock at the last packet; 0 if there was none.
    pub last_seen: u64,
}
const _: () = assert!(size_of::<SlotTraffic>() == 40);

/// Flows of a counter slot, shared by all CPUs; 104 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SlotFlows {
    /// Flows begun.
    pub begun: u64,
    /// Flows by decided outcome, indexed by [`Outcome`]. `pending`: ended without a decision.
    pub decided: [u64; Outcome::COUNT],
    /// Monotonic nanoseconds of the last flow begun; 0 if there was none.
    pub last_attempt: u64,
    /// Monotonic nanoseconds of the last flow answered; 0 if there was none.
    pub last_answered: u64,
    /// Monotonic nanoseconds of the last flow that failed; 0 if there was none. Kept here so that a failure
    /// while no daemon listened is not taken for older than the last answer.
    pub last_failed: u64,
}
const _: () = assert!(size_of::<SlotFlows>() == 104);

/// What one interface has handed to the probe on one CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InterfaceCounters {
    /// Frames seen at both hooks.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that carry no IP (ARP, LLDP, ...).
    pub not_ip: u64,
    /// Frames that claim to be IP and could not be read.
    pub unparsed: u64,
    /// Upkeep of the link, see [`crate::protocol::is_link_upkeep`].
    pub link_upkeep: u64,
    /// Always zero.
    pub zero: u64,
}
const _: () = assert!(size_of::<InterfaceCounters>() == 48);

/// Entries in the table of [`InterfaceCounters`]: the index is the interface's, modulo this.
pub const INTERFACE_COUNTERS: u32 = 1024;

/// Indices of the probe's own counters, kept for each CPU.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counter {
    /// Events that the ring buffer had no room for.
    RingLost = 0,
    /// New flows that neither table took; their packets are counted for their slot all the same.
    FlowTableFull = 1,
    /// Flows put into the table of unverified flows.
    UnverifiedInserted = 2,
    /// Flows deleted from it by the probe (promoted, restarted, expired).
    UnverifiedDeleted = 3,
    /// Flows put into the table of verified flows.
    VerifiedInserted = 4,
    /// Flows deleted from it by the probe.
    VerifiedDeleted = 5,
    /// Verified flows that had to stay with the unverified, the table being full.
    PromotionFailed = 6,
    /// Later fragments whose first was not seen: counted for no flow.
    FragmentOrphan = 7,
    /// State changes given up because other CPUs kept changing the word.
    StateContended = 8,
    /// Payloads that names are read from, for which the ring buffer had no room.
    PayloadLost = 9,
    /// Flows whose name nobody could tell, though it matters: neither expected nor unexpected.
    NameUnknown = 10,
    /// Packets that the program behind those at the hooks was not there for.
    NotPassedOn = 11,
    /// Times that what a flow's tally had counted found no place when it was full, and is missing from the flow's own numbers.
    CarryFailed = 12,
}

impl Counter {
    /// How many there are.
    pub const COUNT: u32 = 13;
}

/// What the daemon tells the probe; one element, replaced as a whole.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// Matrix generation in force; never 0 once a matrix is loaded.
    pub generation: u32,
    /// [`Settings::HAS_NAMES`] and the like.
    pub flags: u32,
    /// Monotonic nanoseconds when the capture began, for [`ATTACH_GRACE`].
    pub attached_at: u64,
    /// Changes after every change of what the prefixes of the generation in force say, see [`AddressClass`].
    pub epoch: u32,
    /// Always zero.
    pub zero: u32,
}
const _: () = assert!(size_of::<Settings>() == 24);

/// The class of an address as it was looked up last: few addresses have most of the flows, and finding the longest prefix
/// costs twenty times what this does. 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AddressClass {
    /// The generation and the epoch in which it was looked up; it holds in no other.
    pub stamp: u64,
    /// The address.
    pub address: Address,
    /// Its class.
    pub class: u32,
    /// Always zero.
    pub zero: u32,
}
const _: () = assert!(size_of::<AddressClass>() == 32);

impl AddressClass {
    /// Entries in a table of them, a power of two.
    pub const ENTRIES: u32 = 1024;

    /// The stamp of what is looked up now.
    #[inline(always)]
    #[must_use]
    pub const fn stamp(generation: u32, epoch: u32) -> u64 {
        (generation as u64) << 32 | epoch as u64
    }

    /// Where an address has its entry.
    #[inline(always)]
    #[must_use]
    pub const fn place(address: &Address) -> u32 {
        // The upper bits: only they depend on all of the address.
        address.mixed() >> (u32::BITS - Self::ENTRIES.ilog2())
    }

    /// The class of `address`, if this entry tells it.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, stamp: u64, address: &Address) -> Option<u32> {
        (self.stamp == stamp && self.address == *address).then_some(self.class)
    }
}

impl Settings {
    /// The matrix in force has rules that depend on names.
    pub const HAS_NAMES: u32 = 1;
    /// DNS answers are wanted.
    pub const WANTS_DNS: u32 = 2;
    /// The heads of held flows are wanted.
    pub const WANTS_HELLO: u32 = 4;
    /// Packets of the two directions may be read out of order (libpcap on several interfaces; never set in the kernel).
    pub const UNORDERED: u32 = 8;
}

/// How long after the capture began the initiator of a UDP flow is inferred, nanoseconds: twice the
/// slowest common request timers (DNS 5 s, NTP 64 s is periodic and starts anew).
pub const ATTACH_GRACE: u64 = 10_000_000_000;

/// What an [`Event`] reports.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// A flow began and was judged.
    Begun = 1,
    /// Its outcome was decided, see [`State::decided_since`].
    Decided = 2,
    /// It ended: closed, expired, or replaced by a new conversation on its 5-tuple.
    Ended = 3,
    /// Another matrix gave it another slot.
    Rejudged = 4,
    /// An ICMP error about it that decided nothing.
    IcmpError = 5,
    /// It was held until its name was known, and counts from now on, with all that went before.
    Named = 6,
}

/// A state change, as the ring buffer carries it; 128 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Event {
    /// The flow.
    pub key: FlowKey,
    /// The record after the change.
    pub record: FlowRecord,
    /// Monotonic nanoseconds.
    pub time: u64,
    /// Who sent the ICMP error, if one did; else zeros.
    pub hop: Address,
    /// An [`EventKind`] by number.
    pub kind: u8,
    /// Type of that ICMP error.
    pub icmp_type: u8,
    /// Code of that ICMP error.
    pub icmp_code: u8,
    /// Whether an ICMP error is given in `hop`, `icmp_type` and `icmp_code` (1) or not (0).
    pub has_icmp: u8,
    /// `enum skb_drop_reason` of the running kernel, if the kernel dropped the packet; else 0.
    pub drop_reason: u32,
}
const _: () = assert!(size_of::<Event>() == 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_of_one_address_at_one_time() {
        let (own, other) = (
            Address::from_v4([10, 0, 0, 1]),
            Address::from_v4([10, 0, 0, 2]),
        );
        let stamp = AddressClass::stamp(7, 3);
        let entry = AddressClass {
            stamp,
            address: own,
            class: 5,
            zero: 0,
        };
        assert_eq!(entry.get(stamp, &own), Some(5));
        assert_eq!(entry.get(stamp, &other), None);
        assert_eq!(entry.get(AddressClass::stamp(8, 3), &own), None);
        assert_eq!(entry.get(AddressClass::stamp(7, 4), &own), None);
    }

    #[test]
    fn neighbours_have_places_of_their_own() {
        let mut places = std::collections::HashSet::new();
        for host in 0..=255 {
            places.insert(AddressClass::place(&Address::from_v4([10, 0, 0, host])));
        }
        assert!(places.len() > 200, "{} places", places.len());
        assert!(places.iter().all(|place| *place < AddressClass::ENTRIES));
    }
}
