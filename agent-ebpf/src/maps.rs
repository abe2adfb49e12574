//! Every map in one place. The loader pins what has to outlive the daemon by name below its directory on bpffs, which
//! carries the layout version: a daemon only ever adopts maps of its own layout. Sizes given here are defaults; the loader
//! sets them from the configuration and the matrix.

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use flowproof_common::classify::{PrefixKey, RuleKey};
use flowproof_common::entry::{Carried, FlowEntry};
use flowproof_common::key::{FlowKey, FragmentKey, FragmentPorts};
use flowproof_common::layout::Order;
use flowproof_common::packet::Packet;
use flowproof_common::payload::{PIECE, PayloadHead};
use flowproof_common::presence;
use flowproof_common::record::{
    AddressClass, Counter, INTERFACE_COUNTERS, InterfaceCounters, Settings, SlotFlows, SlotTraffic,
};

use crate::atomic;
use crate::event::Cause;
use crate::traffic::Sight;

/// Flows that were answered and are expected. Never evicts: a full table is counted, and the flow stays
/// with the unverified.
#[map]
pub(crate) static VERIFIED: HashMap<FlowKey, FlowEntry> = HashMap::with_max_entries(65_536, 0);

/// All other flows. Evicts the least recently used, so that a flood costs only others of its kind.
#[map]
pub(crate) static UNVERIFIED: LruHashMap<FlowKey, FlowEntry> =
    LruHashMap::with_max_entries(65_536, 0);

/// Which flows the former may hold, see [`flowproof_common::presence`]. The programs alone write it, along with the table.
#[map]
pub(crate) static PRESENCE: Array<u32> = Array::with_max_entries(presence::WORDS, 0);

/// Flows that this CPU took for new lately, by a part of their hash. One packet may pass two or more hooks one after the other,
/// and is to be looked up at all but the first. A hint: only the programs in the traffic path use it, each set has its own.
#[map]
pub(crate) static LATELY: PerCpuArray<[u32; presence::LATELY]> =
    PerCpuArray::with_max_entries(1, 0);

/// What the tallies of flows in either table had no room for. Elements are allocated as they come, since few flows ever have
/// one.
#[map]
pub(crate) static CARRIED: HashMap<FlowKey, Carried> = HashMap::with_max_entries(8192, 1);

/// Ports of first fragments.
#[map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> =
    LruHashMap::with_max_entries(4096, 0);

/// Address classes by longest prefix, for the generations in [`PrefixKey`].
#[map]
pub(crate) static PREFIXES: LpmTrie<PrefixKey, u32> = LpmTrie::with_max_entries(65_536, 0);

/// Classes of addresses that were looked up lately, by [`AddressClass::place`]. Each program set has its own; only the
/// programs in the traffic path use it, which never interrupt each other.
#[map]
pub(crate) static CLASSES: PerCpuArray<AddressClass> =
    PerCpuArray::with_max_entries(AddressClass::ENTRIES, 0);

/// Class of each port: 65,536 for even and 65,536 for odd generations.
#[map]
pub(crate) static PORT_CLASSES: Array<u32> = Array::with_max_entries(131_072, 0);

/// Counter slot of each rule.
#[map]
pub(crate) static RULES: HashMap<RuleKey, u32> = HashMap::with_max_entries(65_536, 1);

/// The program that takes what is not a plain packet of a flow at rest, as its one element.
#[map]
pub(crate) static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// What the daemon tells the programs.
#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// Packets and bytes of each counter slot.
#[map]
pub(crate) static SLOT_TRAFFIC: PerCpuArray<SlotTraffic> = PerCpuArray::with_max_entries(4096, 0);

/// Flows of each counter slot.
#[map]
pub(crate) static SLOT_FLOWS: Array<SlotFlows> = Array::with_max_entries(4096, 0);

/// What each slot counts for: (slot << 32 | ordinal) to a member's hash. Only the daemon uses it; it is
/// here because it has to outlive the daemon with the counters.
#[map]
pub(crate) static SLOT_MEMBERS: HashMap<u64, u64> = HashMap::with_max_entries(65_536, 1);

/// Frames by interface.
#[map]
pub(crate) static INTERFACES: PerCpuArray<InterfaceCounters> =
    PerCpuArray::with_max_entries(INTERFACE_COUNTERS, 0);

/// The probe's own counters, see [`Counter`].
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// State changes on their way to the daemon.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

/// Payloads that names are read from, on their way to the daemon; a ring of their own, so that they can't push out
/// state changes.
#[map]
pub(crate) static PAYLOADS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

/// A payload as it goes into that ring.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Piece {
    /// What it is.
    pub(crate) head: PayloadHead,
    /// The bytes; only as many as the head says go into the ring.
    pub(crate) bytes: [u8; PIECE as usize],
}

/// Where a payload is put together; only the programs in the traffic path do that.
#[map]
pub(crate) static PIECES: PerCpuArray<Piece> = PerCpuArray::with_max_entries(1, 0);

/// Room for what would not fit onto the 512 bytes of stack that a program has.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Scratch {
    /// The packet at hand.
    pub(crate) packet: Packet,
    /// The packet that an ICMP error quotes.
    pub(crate) quoted: Packet,
    /// Key of the flow at hand.
    pub(crate) key: FlowKey,
    /// An entry on its way into or out of a table.
    pub(crate) entry: FlowEntry,
    /// What is carried over, on its way into its table.
    pub(crate) carried: Carried,
    /// Why a state changed.
    pub(crate) cause: Cause,
    /// The frame at hand.
    pub(crate) sight: Sight,
    /// What the daemon wants done.
    pub(crate) order: Order,
    /// A number on its way past the verifier.
    pub(crate) forgotten: u32,
}

/// Pinned, and so part of the layout: programs hand packets over in it. One element for those in the traffic path, which run
/// with softirqs off, one for `decide`, which
/// older kernels may interrupt by one of the former, and one for the drop probe, which runs anywhere.
#[map]
pub(crate) static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(3, 0);

/// Adds one to a counter of this CPU. Atomic, because a program in process context may be interrupted by
/// one in the traffic path.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the pointer is into the map.
        unsafe { atomic::add(value, 1) };
    }
}
