//! Time-based decisions. Silence sends no packet that could wake a program, so the daemon names flows whose
//! time has come and has this program decide about them (`BPF_PROG_TEST_RUN`, `linux/bpf.h`): the kernel
//! stays the only writer of flow records and counters, and a killed daemon leaves nothing half-done.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use flowproof_common::classify::{FIRST_RULE_SLOT, UNSCOPED_SLOT};
use flowproof_common::layout::{DECIDE_HEADER, DECIDE_ORDERS, Order};
use flowproof_common::protocol::{UDP, udp_service_answers};
use flowproof_common::record::Counter;
use flowproof_common::state::Outcome;
use flowproof_common::ticks::Ticks;

use crate::PASS;
use crate::event::Cause;
use crate::flow;
use crate::maps::{SCRATCH, SLOT_FLOWS, Scratch, count};

/// The room in the scratch table.
const ROOM: u32 = 1;

/// Takes up to [`DECIDE_ORDERS`] orders in place of a packet.
#[classifier]
pub(crate) fn fp_decide(ctx: TcContext) -> i32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(ROOM) else {
        return PASS;
    };
    // SAFETY: the element is this CPU's own, and only this program uses it.
    let scratch = unsafe { &mut *scratch };
    // SAFETY: the helper has no precondition.
    let now = Ticks::from_nanos(unsafe { bpf_ktime_get_ns() });
    let mut index = 0;
    while index < DECIDE_ORDERS {
        // SAFETY: the buffer has the size of an order, and every bit pattern is one.
        let missing = unsafe {
            bpf_skb_load_bytes(
                ctx.skb.skb.cast(),
                DECIDE_HEADER + index * size_of::<Order>() as u32,
                (&raw mut scratch.order).cast(),
                size_of::<Order>() as u32,
            )
        };
        if missing != 0 {
            break;
        }
        fp_obey(now.0);
        index += 1;
    }
    PASS
}

/// Does what the order in the scratch room says; `now` in ticks.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fp_obey(now: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(ROOM) else {
        return 0;
    };
    // SAFETY: as in `fp_decide`, which has no use for it in the meantime.
    let scratch = unsafe { &mut *scratch };
    scratch.key = scratch.order.key;
    match scratch.order.action {
        Order::NAME => name_one(scratch),
        Order::GIVE_UP => give_up_one(scratch),
        _ => decide_one(scratch, Ticks(now)),
    }
    0
}

/// The daemon knows the flow's name, and with it the slot.
#[inline(never)]
fn name_one(scratch: &mut Scratch) {
    let order = &scratch.order;
    if let Some(found) = flow::find(&order.key) {
        // SAFETY: the record is in a map.
        let state = unsafe { (*found.record).state };
        // Else it is a later flow between the same ends, which the tables alone have judged.
        if state.is_held() || state.is_named() {
            flow::release(&order.key, found, order.slot, true);
        }
    }
}

/// What the flow's name is read from was lost: it is neither expected nor unexpected, and the loss is counted.
#[inline(never)]
fn give_up_one(scratch: &mut Scratch) {
    let order = &scratch.order;
    if let Some(found) = flow::find(&order.key) {
        // SAFETY: the record is in a map.
        let held = unsafe { (*found.record).state.is_held() };
        if held {
            count(Counter::NameUnknown);
            flow::release(&order.key, found, UNSCOPED_SLOT, false);
        }
    }
}

#[inline(never)]
fn decide_one(scratch: &mut Scratch, now: Ticks) {
    let key = &scratch.key;
    let Some(found) = flow::find(key) else {
        return;
    };
    // SAFETY: the record is in a map.
    let record = unsafe { &*found.record };
    let times = record.times(now);
    let protocol = key.protocol;
    let port = key.service(record.state.initiator().other());
    let owed = protocol == UDP && udp_service_answers(port) || has_answered(record.slot);
    let change = flow::move_state(found.record, |state| {
        state.after_silence(protocol, &times, owed)
    });
    if change.happened() {
        scratch.cause = Cause::default();
        flow::settle_in(ROOM, found.verified, change);
    }
    if change.after().is_expired(protocol, &times) {
        flow::end_in(ROOM, found.verified);
    }
}

/// Whether a service of this slot has ever answered, so that its silence now means something.
#[inline(always)]
fn has_answered(slot: u32) -> bool {
    slot >= FIRST_RULE_SLOT
        && SLOT_FLOWS
            .get(slot)
            .is_some_and(|flows| flows.decided[Outcome::Answered as usize] > 0)
}
