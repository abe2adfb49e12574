//! Sends state changes to the daemon. A full buffer is counted, never waited for.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use flowproof_common::address::Address;
use flowproof_common::entry::FlowEntry;
use flowproof_common::key::FlowKey;
use flowproof_common::record::{Counter, Event, EventKind};

use crate::flow;
use crate::maps::{EVENTS, count};

/// The ICMP error behind a state change.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Cause {
    /// Who sent it.
    pub(crate) hop: Address,
    /// Its type.
    pub(crate) icmp_type: u8,
    /// Its code.
    pub(crate) icmp_code: u8,
    /// 1 if there was one.
    pub(crate) has_icmp: u8,
    /// Why the kernel dropped the packet, or 0.
    pub(crate) drop_reason: u32,
}

impl Cause {
    /// There is none. Word by word, since the compiler calls a function that zeroes bytes one by one.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        let words = (&raw mut *self).cast::<u64>();
        // SAFETY: the words are those of the structure, and every bit pattern of it is valid.
        unsafe {
            words.write_volatile(0);
            words.add(1).write_volatile(0);
            words.add(2).write_volatile(0);
        }
    }
}
const _: () = assert!(size_of::<Cause>() == 24);

/// Sends one event of `time` (monotonic nanoseconds, by the exact clock, which costs as much as a look-up and so is asked
/// once for all that a packet does). The daemon reads on a timer, so no wake-up is paid for in the packet path.
#[inline(never)]
pub(crate) fn send(kind: EventKind, key: &FlowKey, entry: &FlowEntry, cause: &Cause, time: u64) {
    let Some(mut room) = EVENTS.reserve::<Event>(0) else {
        count(Counter::RingLost);
        return;
    };
    let totals = flow::totals(key, entry);
    let event = room.as_mut_ptr();
    // SAFETY: the room has the size of an event, and every one of its bytes is written here. Field by
    // field, because a whole event would take a quarter of the stack.
    unsafe {
        (*event).key = *key;
        (*event).record = entry.record(&totals);
        (*event).time = time;
        (*event).hop = cause.hop;
        (*event).kind = kind as u8;
        (*event).icmp_type = cause.icmp_type;
        (*event).icmp_code = cause.icmp_code;
        (*event).has_icmp = cause.has_icmp;
        (*event).drop_reason = cause.drop_reason;
    }
    room.submit(u64::from(BPF_RB_NO_WAKEUP));
}
