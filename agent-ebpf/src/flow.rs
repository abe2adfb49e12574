//! Flow records under concurrency: counting, moving the state word, promotion and removal. What a change
//! *means* is decided in `flowproof_common::state`; here it is only carried out atomically.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use flowproof_common::classify::{FIRST_RULE_SLOT, Verdict};
use flowproof_common::key::FlowKey;
use flowproof_common::record::{Counter, EventKind, FlowRecord};
use flowproof_common::state::{Outcome, State};

use crate::atomic;
use crate::event::{self, Cause};
use crate::maps::{SLOT_FLOWS, UNVERIFIED, VERIFIED, count};

/// Tries of a compare-and-swap. Each failure means that another CPU succeeded, and a flow has a handful of
/// state changes in its life.
const TRIES: u32 = 4;

/// A record in one of the two tables.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// Into the map; valid until the program ends.
    pub(crate) record: *mut FlowRecord,
    /// Which table.
    pub(crate) verified: bool,
}

/// Looks in the verified table first: that is where the traffic is.
#[inline(always)]
pub(crate) fn find(key: &FlowKey) -> Option<Found> {
    if let Some(record) = VERIFIED.get_ptr_mut(key) {
        return Some(Found {
            record,
            verified: true,
        });
    }
    UNVERIFIED.get_ptr_mut(key).map(|record| Found {
        record,
        verified: false,
    })
}

/// The state word before and after a change, in one register: a function of the kernel takes five.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Change(u64);

impl Change {
    #[inline(always)]
    fn new(before: State, after: State) -> Self {
        Self(u64::from(before.0) << 32 | u64::from(after.0))
    }

    /// The word before.
    #[inline(always)]
    pub(crate) fn before(self) -> State {
        State((self.0 >> 32) as u32)
    }

    /// The word after.
    #[inline(always)]
    pub(crate) fn after(self) -> State {
        State(self.0 as u32)
    }

    /// Whether there was any.
    #[inline(always)]
    pub(crate) fn happened(self) -> bool {
        self.before() != self.after()
    }
}

/// Changes the state word by `change` until no other CPU interferes.
#[inline(always)]
pub(crate) fn move_state(record: *mut FlowRecord, change: impl Fn(State) -> State) -> Change {
    // SAFETY: `record` points into a map and the field is aligned.
    let word = unsafe { &raw mut (*record).state }.cast::<u32>();
    let mut tries = 0;
    while tries < TRIES {
        // SAFETY: as above; volatile, because another CPU may write it.
        let before = State(unsafe { word.read_volatile() });
        let after = change(before);
        if after == before {
            return Change::new(before, before);
        }
        // SAFETY: as above.
        if unsafe { atomic::replace(word, before.0, after.0) } {
            return Change::new(before, after);
        }
        tries += 1;
    }
    count(Counter::StateContended);
    // SAFETY: as above.
    let now = State(unsafe { word.read_volatile() });
    Change::new(now, now)
}

/// Counts a flow as begun.
#[inline(always)]
pub(crate) fn count_begun(slot: u32) {
    if let Some(flows) = SLOT_FLOWS.get_ptr_mut(slot) {
        // SAFETY: the pointer is into the map; the time stamp may be overwritten by another CPU's of the
        // same moment.
        unsafe {
            atomic::add(&raw mut (*flows).begun, 1);
            (*flows).last_attempt = bpf_ktime_get_ns();
        }
    }
}

/// Counts a decided outcome.
#[inline(always)]
pub(crate) fn count_decided(slot: u32, outcome: Outcome) {
    if let Some(flows) = SLOT_FLOWS.get_ptr_mut(slot) {
        // SAFETY: the pointer is into the map, and an outcome's number is below the array's length.
        unsafe {
            let counters = (&raw mut (*flows).decided).cast::<u64>();
            atomic::add(counters.add(outcome as usize), 1);
            if matches!(outcome, Outcome::Answered) {
                (*flows).last_answered = bpf_ktime_get_ns();
            } else if outcome.is_failure() {
                (*flows).last_failed = bpf_ktime_get_ns();
            }
        }
    }
}

/// Counts and reports what a state change decided, and promotes a flow that has become verified.
#[inline(never)]
pub(crate) fn settle(key: &FlowKey, found: Found, change: Change, cause: &Cause) {
    let (before, after) = (change.before(), change.after());
    // SAFETY: the record is in a map.
    let record = unsafe { &*found.record };
    if let Some(outcome) = after.decided_since(before) {
        count_decided(record.slot, outcome);
        event::send(EventKind::Decided, key, record, cause);
        if !found.verified && matches!(outcome, Outcome::Answered) {
            promote(key, record);
        }
    } else if matches!(after.outcome(), Outcome::ClosedAfterAnswer)
        && !matches!(before.outcome(), Outcome::ClosedAfterAnswer)
    {
        event::send(EventKind::Ended, key, record, cause);
    }
}

/// Moves an answered, expected flow where a flood can't reach it.
#[inline(always)]
fn promote(key: &FlowKey, record: &FlowRecord) {
    if !matches!(record.state.verdict(), Verdict::Expected) || record.slot < FIRST_RULE_SLOT {
        return;
    }
    if VERIFIED.insert(key, record, u64::from(BPF_NOEXIST)).is_ok() {
        count(Counter::VerifiedInserted);
        if UNVERIFIED.remove(key).is_ok() {
            count(Counter::UnverifiedDeleted);
        }
    } else {
        count(Counter::PromotionFailed);
    }
}

/// Takes a record out of its table. False if another CPU was faster.
#[inline(always)]
fn remove(key: &FlowKey, verified: bool) -> bool {
    let (removed, counter) = if verified {
        (VERIFIED.remove(key), Counter::VerifiedDeleted)
    } else {
        (UNVERIFIED.remove(key), Counter::UnverifiedDeleted)
    };
    if removed.is_ok() {
        count(counter);
    }
    removed.is_ok()
}

/// Ends a record: removes it, counts a flow that was never decided, and tells the daemon its last word.
/// `last` is room for a copy, because a removed element may be given to another flow at once.
#[inline(never)]
pub(crate) fn end(key: &FlowKey, found: Found, last: &mut FlowRecord) {
    // SAFETY: the record is in a map.
    *last = unsafe { *found.record };
    if remove(key, found.verified) {
        if matches!(last.state.outcome(), Outcome::Pending) {
            count_decided(last.slot, Outcome::Pending);
        }
        if !matches!(last.state.outcome(), Outcome::ClosedAfterAnswer) {
            event::send(EventKind::Ended, key, last, &Cause::default());
        }
    }
}
