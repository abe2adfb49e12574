//! The hot path: the programs at the hooks. Each reads a packet where it lies, finds its flow and counts it, if it is a
//! plain packet of a flow at rest ([`flowproof_common::plain`]); everything else goes on to one program for all of them
//! ([`crate::traffic`]). They are as small as they can be, since every packet runs through one and the verifier reads all.
//!
//! One pair is for devices with an Ethernet header, one for devices without (tun, WireGuard, IP tunnels), since the packet
//! does not tell which it is.

use core::mem::offset_of;

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use flowproof_common::key::{FlowKey, Side};
use flowproof_common::packet::Packet;
use flowproof_common::payload::DNS_PORT;
use flowproof_common::plain::{self, Plain};
use flowproof_common::record::{
    Counter, DROP_POINT, INTERFACE_COUNTERS, Settings, TAKEOVER_AFTER, point,
};
use flowproof_common::ticks::Ticks;

use crate::maps::{INTERFACES, PROGRAMS, SCRATCH, SETTINGS, count};
use crate::skb::Linear;
use crate::traffic::{ROOM, Seen, Sight, count_packet, count_traffic};
use crate::{PASS, flow};

/// Ingress of a device with Ethernet headers.
#[classifier]
pub(crate) fn fp_ingress(ctx: TcContext) -> i32 {
    watch(&ctx, true, false)
}

/// Egress of a device with Ethernet headers.
#[classifier]
pub(crate) fn fp_egress(ctx: TcContext) -> i32 {
    watch(&ctx, true, true)
}

/// Ingress of a device without link headers.
#[classifier]
pub(crate) fn fp_ingress_l3(ctx: TcContext) -> i32 {
    watch(&ctx, false, false)
}

/// Egress of a device without link headers.
#[classifier]
pub(crate) fn fp_egress_l3(ctx: TcContext) -> i32 {
    watch(&ctx, false, true)
}

#[inline(always)]
fn watch(ctx: &TcContext, ethernet: bool, egress: bool) -> i32 {
    // SAFETY: the context is the program's own; the verifier checks each field.
    let (length, interface, tagged) = unsafe {
        let skb = ctx.skb.skb;
        ((*skb).len, (*skb).ifindex, (*skb).vlan_present)
    };
    // A tag that the device or the kernel took out of the frame was on the wire all the same.
    let length = u64::from(length) + if tagged != 0 { 4 } else { 0 };
    let Some(counters) = INTERFACES.get_ptr_mut(interface & (INTERFACE_COUNTERS - 1)) else {
        return PASS;
    };
    // SAFETY: the element is this CPU's own.
    unsafe {
        (*counters).packets += 1;
        (*counters).bytes += length;
    }
    let sight = Sight::new(
        length,
        // SAFETY: the helper has no precondition.
        unsafe { bpf_ktime_get_coarse_ns() },
        point(interface, egress),
        ethernet,
    );
    let frame = Linear::of(ctx);
    let mut plain = if ethernet {
        plain::ethernet(&frame)
    } else {
        plain::raw_ip(&frame)
    };
    let seen = match &mut plain {
        Some(plain) => {
            join(&mut plain.key);
            match pass(plain, &sight) {
                Some(seen) => seen,
                None => return PASS,
            }
        }
        None => Seen::Nothing,
    };
    if let Some(scratch) = SCRATCH.get_ptr_mut(ROOM) {
        // SAFETY: the element is this CPU's own.
        unsafe {
            (*scratch).sight = sight;
            if let Some(plain) = &plain {
                (*scratch).sight = sight.with(seen, plain.sender);
                let at = if ethernet { plain::ETHERNET_HEADER } else { 0 };
                put(&raw mut (*scratch).packet, &plain.packet(&frame, at));
                (*scratch).key = plain.key;
            }
            // It comes back only if there is no such program.
            PROGRAMS.tail_call(ctx, 0);
        }
    }
    count(Counter::NotPassedOn);
    PASS
}

/// Stores what is not an address in a key as one word. The kernel reads it by words to hash it, and a processor that is to read
/// more than one of its last stores at once waits until they have left it.
#[inline(always)]
fn join(key: &mut FlowKey) {
    const _: () = assert!(offset_of!(FlowKey, port_a) == 32 && size_of::<FlowKey>() == 40);
    let [a, b] = key.port_a.to_ne_bytes();
    let [c, d] = key.port_b.to_ne_bytes();
    let word = u64::from_ne_bytes([a, b, c, d, key.protocol, key.icmp_type, 0, 0]);
    // SAFETY: these are the last eight bytes of the key, which is aligned to as many.
    unsafe { (&raw mut *key).cast::<u64>().add(4).write_volatile(word) };
}

/// Stores a plain packet by words, since the compiler calls a function that zeroes the bytes which are always zero one by one.
///
/// # Safety
/// `to` points to a packet in a map.
#[inline(always)]
unsafe fn put(to: *mut Packet, packet: &Packet) {
    const _: () = assert!(offset_of!(Packet, source_port) == 32 && size_of::<Packet>() == 56);
    let [a, b] = packet.source_port.to_ne_bytes();
    let [c, d] = packet.destination_port.to_ne_bytes();
    let ports = u64::from_ne_bytes([a, b, c, d, packet.protocol, packet.tcp_flags, 0, 0]);
    // SAFETY: the words are those of the packet, which is aligned to as many bytes by the caller's word (all that surrounds it
    // is); every bit pattern of these is a valid one, and 0 is `Fragment::None`.
    unsafe {
        (*to).source = packet.source;
        (*to).destination = packet.destination;
        let words = to.cast::<u64>();
        words.add(4).write_volatile(ports);
        words.add(5).write_volatile(0);
        (*to).transport_offset = packet.transport_offset;
        (*to).payload_length = packet.payload_length;
    }
}

/// Counts the packet for its flow, if that is all there is to do; else what is known of the flow by then.
#[inline(always)]
fn pass(packet: &Plain, sight: &Sight) -> Option<Seen> {
    // A table in which a flow is not costs most of all that a new flow costs.
    if packet.begins() && !flow::may_be_known(&packet.key) {
        return Some(Seen::New);
    }
    let Some(found) = flow::find(&packet.key) else {
        return Some(Seen::New);
    };
    let Some(settings) = SETTINGS.get(0) else {
        return Some(Seen::Known);
    };
    let record = found.record;
    let from_a = matches!(packet.sender, Side::A);
    let now = Ticks::from_nanos(sight.now);
    // SAFETY: the record is in a map; a time stamp may be overwritten by another CPU's of the same moment.
    unsafe {
        let (owner, last, tally) = if from_a {
            (
                (*record).points[0],
                (*record).last_seen[0],
                (*record).tallies[0],
            )
        } else {
            (
                (*record).points[1],
                (*record).last_seen[1],
                (*record).tallies[1],
            )
        };
        if owner != sight.point {
            // See `FlowRecord::owns`: counted where it was seen first, unless that point has gone silent.
            let taken = owner != 0 && owner != DROP_POINT;
            let skipped = taken && now.nanos_since(last) < TAKEOVER_AFTER;
            return (!skipped).then_some(Seen::Known);
        }
        let state = (*record).state;
        let from_initiator = packet.sender == state.initiator();
        if !state.is_at_rest(
            packet.key.protocol,
            packet.tcp_flags,
            from_initiator,
            settings.generation,
        ) {
            return Some(Seen::Known);
        }
        if tally.is_half_full() {
            return Some(Seen::Known);
        }
        // The daemon may want to read what a DNS server answers.
        if settings.flags & Settings::WANTS_DNS != 0 && packet.has_port(DNS_PORT) {
            return Some(Seen::Known);
        }
        count_packet(record, packet.sender, sight);
        count_traffic((*record).slot, from_initiator, sight);
    }
    None
}
