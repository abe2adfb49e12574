//! Hands payloads that names are read from to the daemon, which is woken for them: until it has read the name, the next
//! connection to the same address is held too. A full ring is counted, never waited for.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;
use flowproof_common::key::{FlowKey, Side};
use flowproof_common::payload::{PIECE, PIECES, PayloadHead, Wanted, segment};
use flowproof_common::record::Counter;

use crate::maps::{PAYLOADS, PIECES as PIECE_ROOM, Scratch, count};
use crate::skb::Frame;

/// Hands over the payload of the packet at hand, in pieces.
#[inline(never)]
pub(crate) fn payload(ctx: &TcContext, scratch: &Scratch, wanted: Wanted) {
    // SAFETY: the context is the program's own.
    let frame_length = unsafe { (*ctx.skb.skb).len };
    let Some(segment) = segment(&Frame(ctx), &scratch.packet, frame_length) else {
        return;
    };
    let Some(room) = PIECE_ROOM.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the element is this CPU's own, and nothing interrupts the traffic path that uses it.
    let room = unsafe { &mut *room };
    let (key, sender) = FlowKey::of(&scratch.packet);
    room.head = PayloadHead {
        key,
        // SAFETY: the helper has no precondition.
        time: unsafe { bpf_ktime_get_ns() },
        sequence: segment.sequence,
        offset: 0,
        total: segment.length,
        length: 0,
        from_b: matches!(sender, Side::B) as u8,
        wanted: wanted as u8,
    };
    if segment.length == 0 {
        let head = unsafe {
            // SAFETY: the head is in the map, and has no padding.
            core::slice::from_raw_parts(
                (&raw const room.head).cast::<u8>(),
                size_of::<PayloadHead>(),
            )
        };
        if PAYLOADS.output::<[u8]>(head, 0).is_err() {
            count(Counter::PayloadLost);
        }
        return;
    }
    let mut piece = 0;
    while piece < PIECES {
        let offset = piece * PIECE;
        if offset >= segment.length {
            return;
        }
        let left = segment.length - offset;
        let length = if left > PIECE { PIECE } else { left };
        room.head.offset = offset;
        room.head.length = length as u16;
        // Read back, so that the bounds are checked where the verifier sees it: the compiler knows them, and would
        // leave the checks out.
        // SAFETY: the field is in the map.
        let length = u32::from(unsafe { (&raw const room.head.length).read_volatile() });
        if length == 0 || length > PIECE {
            return;
        }
        // SAFETY: the room has PIECE bytes, and the context is the program's own.
        let missing = unsafe {
            bpf_skb_load_bytes(
                ctx.skb.skb.cast(),
                segment.offset + offset,
                room.bytes.as_mut_ptr().cast(),
                length,
            )
        };
        if missing != 0 {
            return;
        }
        // SAFETY: the head and as many of the bytes as were written, which lie behind each other.
        let sent = unsafe {
            core::slice::from_raw_parts(
                (&raw const *room).cast::<u8>(),
                size_of::<PayloadHead>() + length as usize,
            )
        };
        if PAYLOADS.output::<[u8]>(sent, 0).is_err() {
            count(Counter::PayloadLost);
            return;
        }
        piece += 1;
    }
}
