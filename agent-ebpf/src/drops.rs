//! Sees packets that this host's kernel drops, with the reason (`kfree_skb`, `trace/events/skb.h`; reasons
//! since Linux 5.17). A flow that was stopped here is told from one that got no answer; a flow that
//! netfilter stops on its way out, which no hook on an interface ever sees, begins here.

use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_probe_read_kernel};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use flowproof_common::drops::{CONSUMED, DropLayout, IgnoredReasons, PACKET_TYPE_MASK};
use flowproof_common::key::FlowKey;
use flowproof_common::packet::Fragment;
use flowproof_common::parse::{self, Bytes, Outcome, ether_type};
use flowproof_common::protocol::is_link_upkeep;
use flowproof_common::record::DROP_POINT;

use crate::event::Cause;
use crate::flow;
use crate::maps::SCRATCH;
use crate::traffic::{Sight, fp_account};

/// Filled in by the loader.
#[unsafe(no_mangle)]
static DROP_LAYOUT: DropLayout = DropLayout {
    skb_head: 0,
    skb_end: 0,
    skb_network_header: 0,
    skb_protocol: 0,
    skb_len: 0,
    skb_dev: 0,
    skb_sk: 0,
    skb_packet_type: 0,
    skb_arrived_by: 0,
    dev_net: 0,
    sock_net: 0,
    net_inode: 0,
    watched_inode: 0,
};

/// Filled in by the loader.
#[unsafe(no_mangle)]
static DROP_IGNORED: IgnoredReasons = IgnoredReasons([0; 4]);

/// The room in the scratch table.
const ROOM: u32 = 2;

/// A structure of the kernel.
#[derive(Clone, Copy)]
struct Kernel(usize);

impl Kernel {
    /// A member at an offset; zero if it can't be read.
    #[inline(always)]
    fn read<T: Copy + Default>(self, offset: u32) -> T {
        // SAFETY: the helper checks the address itself.
        unsafe { bpf_probe_read_kernel((self.0 + offset as usize) as *const T) }.unwrap_or_default()
    }

    #[inline(always)]
    fn follow(self, offset: u32) -> Option<Self> {
        let pointer = self.read::<usize>(offset);
        (pointer != 0).then_some(Self(pointer))
    }
}

/// The headers of a dropped packet, from the network header on. Where they end is checked once everything is read: headers
/// lie behind each other, and a check at each step is one more way for the verifier to follow.
struct Headers {
    start: usize,
}

impl Bytes for Headers {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // SAFETY: the helper checks the address itself.
        unsafe { bpf_probe_read_kernel((self.start + offset as usize) as *const [u8; N]) }.ok()
    }
}

/// Called for every packet that the kernel drops, in any network namespace.
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn fp_drop(ctx: BtfTracePointContext) -> i32 {
    let reason: u32 = ctx.arg(2);
    // SAFETY: both are constants that the loader wrote before the program was loaded; volatile, since the
    // compiler only knows the zeros above.
    let (layout, ignored) = unsafe {
        (
            core::ptr::read_volatile(&raw const DROP_LAYOUT),
            core::ptr::read_volatile(&raw const DROP_IGNORED),
        )
    };
    if reason == CONSUMED || ignored.contains(reason) {
        return 0;
    }
    let skb = Kernel(ctx.arg::<usize>(0));
    let socket = skb.follow(layout.skb_sk);
    let for_others = matches!(
        skb.read::<u8>(layout.skb_packet_type) & PACKET_TYPE_MASK,
        1..=3
    );
    if for_others || !is_watched(skb, socket, &layout) {
        return 0;
    }
    let network_header = u32::from(skb.read::<u16>(layout.skb_network_header));
    let Some(head) = skb.follow(layout.skb_head) else {
        return 0;
    };
    let readable = fp_drop_read(
        head.0 as u64 + u64::from(network_header),
        skb.read::<u32>(layout.skb_end)
            .saturating_sub(network_header),
        u32::from(u16::from_be(skb.read::<u16>(layout.skb_protocol))),
        skb.read::<u32>(layout.skb_len),
    );
    if readable != 0 {
        // A packet that came in may have been given its socket early.
        let sent_here = socket.is_some() && skb.read::<u32>(layout.skb_arrived_by) == 0;
        fp_blame_drop(u32::from(sent_here), reason);
    }
    0
}

/// Whether the packet belongs to the network namespace that the daemon watches. The socket is asked first:
/// a packet that has not been routed yet has no device, and while TCP queues it the device's place holds
/// something else.
#[inline(always)]
fn is_watched(skb: Kernel, socket: Option<Kernel>, layout: &DropLayout) -> bool {
    let namespace = match socket {
        Some(socket) => socket.follow(layout.sock_net),
        None => skb
            .follow(layout.skb_dev)
            .and_then(|device| device.follow(layout.dev_net)),
    };
    namespace.is_some_and(|net| net.read::<u32>(layout.net_inode) == layout.watched_inode)
}

/// Parses a packet of `length` bytes whose network header, of this EtherType, is at `start` with so much `room` behind it,
/// into the scratch room; 1 if it is one to be told of.
///
/// A global function (see [`fp_account`]): of the many ways here, and of what is known on each, parsing depends on none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fp_drop_read(start: u64, room: u32, kind: u32, length: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(ROOM) else {
        return 0;
    };
    // SAFETY: the element is this CPU's own, and the kernel does not run this program inside itself.
    let scratch = unsafe { &mut *scratch };
    let headers = Headers {
        start: start as usize,
    };
    let kind = kind as u16;
    if !matches!(kind, ether_type::IPV4 | ether_type::IPV6) {
        return 0;
    }
    scratch.sight = Sight::new(
        u64::from(length),
        // SAFETY: the helper has no precondition. Tracing programs may not use the coarse clock.
        unsafe { bpf_ktime_get_ns() },
        DROP_POINT,
        false,
    );
    let told = matches!(
        parse::network(&headers, 0, kind, &mut scratch.packet),
        Outcome::Ip
    ) && parse::end(&scratch.packet) <= room
        && !matches!(scratch.packet.fragment, Fragment::Later)
        && !is_link_upkeep(scratch.packet.protocol, scratch.packet.icmp_type)
        // Nobody in particular owes a group an answer, so nobody in particular missed the packet.
        && !scratch.packet.destination.is_group();
    u32::from(told)
}

/// Puts the drop down to its flow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fp_blame_drop(sent_here: u32, reason: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(ROOM) else {
        return 0;
    };
    // SAFETY: the element is this CPU's own, and the kernel does not run this program inside itself.
    let scratch = unsafe { &mut *scratch };
    if sent_here != 0 && !scratch.packet.is_icmp_error() {
        // On its way out: no hook has seen it, so it is counted here.
        fp_account(ROOM);
    }
    let (key, sender) = FlowKey::of(&scratch.packet);
    scratch.key = key;
    let Some(found) = flow::find(&scratch.key) else {
        return 0;
    };
    let change = flow::move_state(found.record, |state| state.after_drop(sender));
    if change.happened() {
        scratch.cause = Cause {
            drop_reason: reason,
            ..Cause::default()
        };
        flow::settle_in(ROOM, found.verified, change);
    }
    0
}
