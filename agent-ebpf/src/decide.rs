//! Time-based decisions. Silence sends no packet that could wake a program, so the daemon names flows whose
//! time has come and has this program decide about them (`BPF_PROG_TEST_RUN`, `linux/bpf.h`): the kernel
//! stays the only writer of flow records and counters, and a killed daemon leaves nothing half-done.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use flowproof_common::classify::FIRST_RULE_SLOT;
use flowproof_common::key::FlowKey;
use flowproof_common::layout::{DECIDE_HEADER, DECIDE_KEYS};
use flowproof_common::protocol::{UDP, udp_service_answers};
use flowproof_common::state::Outcome;
use flowproof_common::ticks::Ticks;

use crate::PASS;
use crate::event::Cause;
use crate::flow;
use crate::maps::{SCRATCH, SLOT_FLOWS, Scratch};

/// Takes up to [`DECIDE_KEYS`] flow keys in place of a packet.
#[classifier]
pub(crate) fn fp_decide(ctx: TcContext) -> i32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(1) else {
        return PASS;
    };
    // SAFETY: the element is this CPU's own, and only this program uses it.
    let scratch = unsafe { &mut *scratch };
    // SAFETY: the helper has no precondition.
    let now = Ticks::from_nanos(unsafe { bpf_ktime_get_ns() });
    let mut index = 0;
    while index < DECIDE_KEYS {
        // SAFETY: the buffer has the size of a key, and every bit pattern is a key.
        let missing = unsafe {
            bpf_skb_load_bytes(
                ctx.skb.skb.cast(),
                DECIDE_HEADER + index * size_of::<FlowKey>() as u32,
                (&raw mut scratch.key).cast(),
                size_of::<FlowKey>() as u32,
            )
        };
        if missing != 0 {
            break;
        }
        decide_one(scratch, now);
        index += 1;
    }
    PASS
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
        flow::settle(key, found, change, &scratch.cause);
    }
    if change.after().is_expired(protocol, &times) {
        flow::end(key, found, &mut scratch.record);
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
