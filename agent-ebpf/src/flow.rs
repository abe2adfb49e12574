//! Flow records under concurrency: counting, moving the state word, promotion and removal. What a change
//! *means* is decided in `flowproof_common::state`; here it is only carried out atomically.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use flowproof_common::classify::{FIRST_RULE_SLOT, Verdict};
use flowproof_common::entry::{Carried, FlowEntry, Tally, Totals};
use flowproof_common::key::{FlowKey, Side};
use flowproof_common::presence::{self, Place};
use flowproof_common::record::{Counter, EventKind};
use flowproof_common::state::{Outcome, State};
use flowproof_common::ticks::Ticks;

use crate::atomic;
use crate::event::{self, Cause};
use crate::maps::{
    CARRIED, LATELY, PRESENCE, SCRATCH, SLOT_FLOWS, SLOT_TRAFFIC, UNVERIFIED, VERIFIED, count,
};

/// Tries of a compare-and-swap. Each failure means that another CPU succeeded, and a flow has a handful of
/// state changes in its life.
const TRIES: u32 = 4;

/// A record in one of the two tables.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// Into the map; valid until the program ends.
    pub(crate) record: *mut FlowEntry,
    /// Which table.
    pub(crate) verified: bool,
}

/// Looks in the one table or the other.
#[inline(always)]
pub(crate) fn find_in(verified: bool, key: &FlowKey) -> Option<Found> {
    let record = if verified {
        VERIFIED.get_ptr_mut(key)
    } else {
        UNVERIFIED.get_ptr_mut(key)
    };
    record.map(|record| Found { record, verified })
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

/// Whether a flow that seems to begin may be in one of the tables all the same. If not, it is not among the verified, and
/// whoever puts it among the others is told if it is there.
/// Not inline, since every packet's way leads through what is.
#[inline(never)]
pub(crate) fn may_be_known(key: &FlowKey) -> bool {
    let mixed = key.mixed();
    let place = Place::of(mixed);
    // SAFETY: the word is read at once.
    let present = PRESENCE
        .get_ptr(place.word)
        .is_none_or(|word| !place.is_empty(unsafe { word.read_volatile() }));
    if present {
        return true;
    }
    let Some(lately) = LATELY.get_ptr_mut(0) else {
        return true;
    };
    let index = (mixed >> 32) as usize & (presence::LATELY - 1);
    // SAFETY: the element is this CPU's own, and programs in the traffic path do not interrupt each other.
    unsafe {
        let entry = lately.cast::<u32>().add(index);
        let tag = mixed as u32;
        let repeated = *entry == tag;
        *entry = tag;
        repeated
    }
}

/// Changes how many flows of this key's hash are among the verified. False if other CPUs kept changing the word.
#[inline(always)]
fn move_presence(key: &FlowKey, change: impl Fn(Place, u32) -> u32) -> bool {
    let place = Place::of(key.mixed());
    let Some(word) = PRESENCE.get_ptr_mut(place.word) else {
        return false;
    };
    let mut tries = 0;
    while tries < TRIES {
        // SAFETY: the pointer is into the map; volatile, because another CPU may write it.
        let before = unsafe { word.read_volatile() };
        let after = change(place, before);
        // SAFETY: as above.
        if after == before || unsafe { atomic::replace(word, before, after) } {
            return true;
        }
        tries += 1;
    }
    false
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
pub(crate) fn move_state(record: *mut FlowEntry, change: impl Fn(State) -> State) -> Change {
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

/// The exact time, monotonic nanoseconds.
#[inline(always)]
pub(crate) fn exact_time() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// Counts a flow that began at `time`, which may be some time ago.
#[inline(always)]
pub(crate) fn count_begun(slot: u32, time: u64) {
    if let Some(flows) = SLOT_FLOWS.get_ptr_mut(slot) {
        // SAFETY: the pointer is into the map; the time stamp may be overwritten by another CPU's of the
        // same moment.
        unsafe {
            atomic::add(&raw mut (*flows).begun, 1);
            latest(&raw mut (*flows).last_attempt, time);
        }
    }
}

/// Counts an outcome that was decided at `time`.
#[inline(always)]
pub(crate) fn count_decided(slot: u32, outcome: Outcome, time: u64) {
    if let Some(flows) = SLOT_FLOWS.get_ptr_mut(slot) {
        // SAFETY: the pointer is into the map, and an outcome's number is below the array's length.
        unsafe {
            let counters = (&raw mut (*flows).decided).cast::<u64>();
            atomic::add(counters.add(outcome as usize), 1);
            if matches!(outcome, Outcome::Answered) {
                latest(&raw mut (*flows).last_answered, time);
            } else if outcome.is_failure() {
                latest(&raw mut (*flows).last_failed, time);
            }
        }
    }
}

/// Moves a time stamp on, never back.
///
/// # Safety
/// `stamp` points into a map and is aligned.
#[inline(always)]
unsafe fn latest(stamp: *mut u64, time: u64) {
    // SAFETY: the caller's word.
    unsafe {
        if *stamp < time {
            *stamp = time;
        }
    }
}

/// Counts and reports what a [`Change`] of the flow in this room of the scratch table decided, with the cause that is
/// there, and promotes a flow that has become verified.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fp_settle(room: u32, verified: u32, change: u64) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(room) else {
        return 0;
    };
    // SAFETY: the element is this CPU's own.
    let scratch = unsafe { &*scratch };
    if let Some(found) = find_in(verified != 0, &scratch.key) {
        settle(&scratch.key, found, Change(change), &scratch.cause);
    }
    0
}

/// See [`fp_settle`].
#[inline(always)]
pub(crate) fn settle_in(room: u32, verified: bool, change: Change) {
    fp_settle(room, u32::from(verified), change.0);
}

#[inline(always)]
fn settle(key: &FlowKey, found: Found, change: Change, cause: &Cause) {
    let (before, after) = (change.before(), change.after());
    // SAFETY: the record is in a map.
    let record = unsafe { &*found.record };
    if let Some(outcome) = after.decided_since(before) {
        let now = exact_time();
        if after.is_held() {
            event::send(EventKind::Decided, key, record, cause, now);
            return;
        }
        count_decided(record.slot, outcome, now);
        event::send(EventKind::Decided, key, record, cause, now);
        if !found.verified && matches!(outcome, Outcome::Answered) {
            promote(key, record);
        }
    } else if matches!(after.outcome(), Outcome::ClosedAfterAnswer)
        && !matches!(before.outcome(), Outcome::ClosedAfterAnswer)
        && !after.is_held()
    {
        event::send(EventKind::Ended, key, record, cause, exact_time());
    }
}

/// Counts a flow that was held for `slot`, with everything that went before, and lets it go on as any other; `by_name`
/// if its name tells the slot and not the tables. A flow that is not held any more is moved to the slot.
#[inline(never)]
pub(crate) fn release(key: &FlowKey, found: Found, slot: u32, by_name: bool) {
    // SAFETY: the record is in a map.
    let record = unsafe { &mut *found.record };
    let old = record.slot;
    // Before the state says that packets count for it.
    record.slot = slot;
    let verdict = Verdict::of_slot(slot);
    let change = move_state(found.record, |state| {
        if by_name {
            state.named(verdict)
        } else {
            state.released(verdict)
        }
    });
    // At once: what comes after the change counts for the slot by itself.
    let totals = totals(key, record);
    let (before, after) = (change.before(), change.after());
    if after.is_held() {
        // Given up for other CPUs; it is found again when its time is over.
        record.slot = old;
        return;
    }
    let now = exact_time();
    if before.is_held() {
        if before.is_uncounted() {
            count_all(record, &totals, now);
        }
        count_held(record, before, now);
        event::send(EventKind::Named, key, record, &Cause::default(), now);
    } else if slot != old {
        count_begun(slot, now);
        event::send(EventKind::Rejudged, key, record, &Cause::default(), now);
    } else {
        return;
    }
    let Some(outcome) = after.decided() else {
        return;
    };
    if before.is_held() {
        event::send(EventKind::Decided, key, record, &Cause::default(), now);
        if matches!(after.outcome(), Outcome::ClosedAfterAnswer) {
            event::send(EventKind::Ended, key, record, &Cause::default(), now);
        }
    } else {
        count_decided(slot, outcome, now);
    }
    if !found.verified && matches!(outcome, Outcome::Answered) {
        promote(key, record);
    }
}

/// Counts a flow that was held, in state `before`, for its slot, as of when it began and was decided.
#[inline(never)]
fn count_held(record: &FlowEntry, before: State, now: u64) {
    let times = record.times(Ticks::from_nanos(now));
    let last = now - times.since_last;
    count_begun(record.slot, now - times.since_first);
    if let Some(outcome) = before.decided() {
        count_decided(record.slot, outcome, last);
    }
}

/// Puts these packets of a flow down to its slot. A packet that another CPU counts at the very moment at which they were
/// read may be counted twice or not at all for the slot; the flow's own counters are exact.
#[inline(always)]
fn count_all(record: &FlowEntry, totals: &Totals, now: u64) {
    let Some(traffic) = SLOT_TRAFFIC.get_ptr_mut(record.slot) else {
        return;
    };
    let last = now - record.times(Ticks::from_nanos(now)).since_last;
    // Where the packets of side A and of side B go.
    let (a, b) = match record.state.initiator() {
        Side::A => (0, 1),
        Side::B => (1, 0),
    };
    // SAFETY: the pointer is into the map. Atomic, because a program in the traffic path may interrupt this one.
    unsafe {
        let packets = (&raw mut (*traffic).packets).cast::<u64>();
        let bytes = (&raw mut (*traffic).bytes).cast::<u64>();
        atomic::add(packets.add(a), totals.packets[0]);
        atomic::add(packets.add(b), totals.packets[1]);
        atomic::add(bytes.add(a), totals.bytes[0]);
        atomic::add(bytes.add(b), totals.bytes[1]);
        latest(&raw mut (*traffic).last_seen, last);
    }
}

/// All that a flow has counted.
#[inline(always)]
pub(crate) fn totals(key: &FlowKey, entry: &FlowEntry) -> Totals {
    if entry.state.has_carried()
        // SAFETY: its words are only added to, and each is read at once.
        && let Some(carried) = unsafe { CARRIED.get(key) }
    {
        carried.totals(entry)
    } else {
        entry.totals()
    }
}

/// Carries over what the tally of one side of the flow in this room of the scratch table has counted.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fp_carry(room: u32, verified: u32, from_a: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(room) else {
        return 0;
    };
    // SAFETY: the element is this CPU's own.
    let scratch = unsafe { &mut *scratch };
    let Some(found) = find_in(verified != 0, &scratch.key) else {
        return 0;
    };
    let record = found.record;
    let (side, index) = if from_a != 0 {
        (Side::A, 0)
    } else {
        (Side::B, 1)
    };
    // SAFETY: the record is in a map. What other CPUs count from here on, they count into an empty tally.
    let (tally, first_seen) = unsafe {
        let tallies = (&raw mut (*record).tallies).cast::<u64>();
        (
            Tally(atomic::take(tallies.add(index))),
            (*record).first_seen,
        )
    };
    scratch.carried = Carried::new(side, tally, first_seen);
    let mut tries = 0;
    while tries < TRIES {
        tries += 1;
        if let Some(carried) = CARRIED.get_ptr_mut(&scratch.key) {
            // SAFETY: the pointer is into the map.
            unsafe {
                if (*carried).first_seen == first_seen {
                    let packets = (&raw mut (*carried).packets).cast::<u64>();
                    let bytes = (&raw mut (*carried).bytes).cast::<u64>();
                    atomic::add(packets.add(index), tally.packets());
                    atomic::add(bytes.add(index), tally.bytes());
                    return 0;
                }
            }
            // An earlier flow's, which was pushed out of its table.
            let _ = CARRIED.remove(&scratch.key);
        }
        // Not in place of what another CPU has put there.
        let flags = u64::from(BPF_NOEXIST);
        if CARRIED
            .insert(&scratch.key, &scratch.carried, flags)
            .is_ok()
        {
            move_state(record, State::carried);
            return 0;
        }
    }
    count(Counter::CarryFailed);
    0
}

/// Moves an answered, expected flow where a flood can't reach it.
#[inline(always)]
fn promote(key: &FlowKey, record: &FlowEntry) {
    if !matches!(record.state.verdict(), Verdict::Expected) || record.slot < FIRST_RULE_SLOT {
        return;
    }
    // Before the flow is there, so that nobody takes it for new.
    if !move_presence(key, Place::one_more) {
        count(Counter::PromotionFailed);
    } else if VERIFIED.insert(key, record, u64::from(BPF_NOEXIST)).is_ok() {
        count(Counter::VerifiedInserted);
        if UNVERIFIED.remove(key).is_ok() {
            count(Counter::UnverifiedDeleted);
        }
    } else {
        move_presence(key, Place::one_less);
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
        if verified {
            // If it fails, one look-up more from now on.
            move_presence(key, Place::one_less);
        }
    }
    removed.is_ok()
}

/// Ends the flow in this room of the scratch table.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fp_end(room: u32, verified: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(room) else {
        return 0;
    };
    // SAFETY: the element is this CPU's own.
    let scratch = unsafe { &mut *scratch };
    if let Some(found) = find_in(verified != 0, &scratch.key) {
        end(&scratch.key, found, &mut scratch.entry);
        // Last, since what was told of the flow counts it.
        if scratch.entry.state.has_carried() {
            let _ = CARRIED.remove(&scratch.key);
        }
    }
    0
}

/// See [`fp_end`].
#[inline(always)]
pub(crate) fn end_in(room: u32, verified: bool) {
    fp_end(room, u32::from(verified));
}

/// Ends a record: removes it, counts a flow that was never decided, and tells the daemon its last word.
/// `last` is room for a copy, because a removed element may be given to another flow at once.
#[inline(always)]
fn end(key: &FlowKey, found: Found, last: &mut FlowEntry) {
    // SAFETY: the record is in a map.
    *last = unsafe { *found.record };
    if remove(key, found.verified) {
        let now = exact_time();
        let held = last.state.is_held();
        if held {
            if last.slot < FIRST_RULE_SLOT {
                // Whether it was unexpected nobody can tell.
                count(Counter::NameUnknown);
                event::send(EventKind::Ended, key, last, &Cause::default(), now);
                return;
            }
            // The guess is that it is expected: a resolver said so.
            let before = last.state;
            last.state = before.released(Verdict::of_slot(last.slot));
            if before.is_uncounted() {
                count_all(last, &totals(key, last), now);
            }
            count_held(last, before, now);
            event::send(EventKind::Named, key, last, &Cause::default(), now);
            if before.decided().is_some() {
                event::send(EventKind::Decided, key, last, &Cause::default(), now);
            }
        }
        if matches!(last.state.outcome(), Outcome::Pending) {
            count_decided(last.slot, Outcome::Pending, now);
        }
        if held || !matches!(last.state.outcome(), Outcome::ClosedAfterAnswer) {
            event::send(EventKind::Ended, key, last, &Cause::default(), now);
        }
    }
}
