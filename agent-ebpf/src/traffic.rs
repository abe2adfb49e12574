//! What is done about a packet that is not a plain one of a flow at rest (see [`crate::hot`]): parsed whatever its shape,
//! judged if its flow begins, its flow's state moved on. A program of its own, which the programs at the hooks go on to, so
//! that the verifier reads it once and not for each of them.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use flowproof_common::classify::{Cover, FIRST_RULE_SLOT, Verdict, judge, slot_of};
use flowproof_common::entry::{FlowEntry, Tally};
use flowproof_common::key::{FlowKey, FragmentKey, FragmentPorts, Side};
use flowproof_common::packet::{Fragment, Packet};
use flowproof_common::parse::{self, Outcome};
use flowproof_common::payload::{Wanted, wanted};
use flowproof_common::protocol::is_link_upkeep;
use flowproof_common::record::{
    ATTACH_GRACE, Counter, DROP_POINT, EventKind, INTERFACE_COUNTERS, Settings,
};
use flowproof_common::state::State;
use flowproof_common::ticks::Ticks;

use crate::event::{self, Cause};
use crate::flow::{self, Found};
use crate::maps::{
    FRAGMENTS, INTERFACES, SCRATCH, SETTINGS, SLOT_TRAFFIC, Scratch, UNVERIFIED, count,
};
use crate::skb::Frame;
use crate::tables::Generation;
use crate::{PASS, atomic, hand_over};

/// What is known of the frame besides its headers.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Sight {
    /// Frame bytes.
    pub(crate) length: u64,
    /// Coarse monotonic nanoseconds.
    pub(crate) now: u64,
    /// The capture point, see [`flowproof_common::record::point`].
    pub(crate) point: u16,
    /// Whether the frame begins with an Ethernet header (1) or an IP header (0).
    ethernet: u16,
    /// What the hot path knows of the packet, a [`Seen`] by number.
    seen: u16,
    /// Whether side A sent the packet (1), unless nothing is known of it.
    from_a: u16,
}

/// What the hot path knows of the packet that it hands over, so that nothing is read or looked up twice. It is a hint: other
/// CPUs may begin, move and end the flow meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Seen {
    /// Nothing: it is not plain.
    Nothing = 0,
    /// Packet and key are in the scratch room, as for the others that follow; the flow is in neither table.
    New = 1,
    /// The flow is in one of them.
    Known = 2,
}

impl Sight {
    /// Of a frame of `length` bytes at `point`; `now` in coarse monotonic nanoseconds.
    #[inline(always)]
    pub(crate) const fn new(length: u64, now: u64, point: u16, ethernet: bool) -> Self {
        Self {
            length,
            now,
            point,
            ethernet: ethernet as u16,
            seen: Seen::Nothing as u16,
            from_a: 0,
        }
    }

    /// The same, of a packet by `sender` of which this much is known.
    #[inline(always)]
    pub(crate) const fn with(self, seen: Seen, sender: Side) -> Self {
        Self {
            seen: seen as u16,
            from_a: matches!(sender, Side::A) as u16,
            ..self
        }
    }

    #[inline(always)]
    const fn is(&self, seen: Seen) -> bool {
        self.seen == seen as u16
    }
}

/// The room in the scratch table.
pub(crate) const ROOM: u32 = 0;

/// Goes on with a frame that one of the programs at the hooks has counted and described in the scratch room.
#[classifier]
pub(crate) fn fp_other(ctx: TcContext) -> i32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(ROOM) else {
        return PASS;
    };
    // SAFETY: the context is the program's own; the verifier checks each field.
    let interface = unsafe { (*ctx.skb.skb).ifindex };
    let Some(counters) = INTERFACES.get_ptr_mut(interface & (INTERFACE_COUNTERS - 1)) else {
        return PASS;
    };
    // SAFETY: both elements are this CPU's own.
    let (counters, scratch) = unsafe { (&mut *counters, &mut *scratch) };
    // A plain packet has been read, and is whole and no message of ICMP.
    if scratch.sight.is(Seen::Nothing) {
        match read(&ctx, scratch.sight.ethernet != 0, &mut scratch.packet) {
            Outcome::Ip => {}
            Outcome::NotIp => {
                counters.not_ip += 1;
                return PASS;
            }
            Outcome::Unparsed => {
                counters.unparsed += 1;
                return PASS;
            }
        }
        if is_link_upkeep(scratch.packet.protocol, scratch.packet.icmp_type) {
            counters.link_upkeep += 1;
            return PASS;
        }
        if !matches!(scratch.packet.fragment, Fragment::None) && !join_fragment(&mut scratch.packet)
        {
            return PASS;
        }
        if scratch.packet.is_icmp_error() && read_quoted(&ctx, scratch) && blame(scratch) {
            return PASS;
        }
    }
    let wanted = fp_account(ROOM);
    if wanted == Wanted::Dns as u32 {
        hand_over::payload(&ctx, scratch, Wanted::Dns);
    } else if wanted == Wanted::Head as u32 {
        hand_over::payload(&ctx, scratch, Wanted::Head);
    }
    PASS
}

/// Counts the packet in this room of the scratch table for its flow, which begins if it is not known, and says whether its
/// payload is wanted (a [`Wanted`] by number).
///
/// A global function, as all with a name for the linker: the verifier reads it once, whoever calls it, instead of anew for
/// each way there. It only takes numbers, and finds everything else itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn fp_account(room: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(room) else {
        return Wanted::Nothing as u32;
    };
    // SAFETY: the element is this CPU's own.
    let scratch = unsafe { &mut *scratch };
    let from_a = if scratch.sight.is(Seen::Nothing) {
        let (key, sender) = FlowKey::of(&scratch.packet);
        scratch.key = key;
        u32::from(matches!(sender, Side::A))
    } else {
        u32::from(scratch.sight.from_a)
    };
    let sender = side(from_a);
    // A flow that another CPU begins at this moment is found the second time.
    let mut tries = 0;
    while tries < 2 {
        let found = if tries > 0 || !scratch.sight.is(Seen::New) {
            flow::find(&scratch.key)
        } else {
            None
        };
        if let Some(found) = found {
            // SAFETY: the record is in a map.
            let record = unsafe { &mut *found.record };
            let now = Ticks::from_nanos(scratch.sight.now);
            if !record.owns(sender, scratch.sight.point, now) {
                return Wanted::Nothing as u32;
            }
            if !record.state.is_restarted_by(&scratch.packet) {
                return fp_pass(room, u32::from(found.verified), from_a);
            }
            flow::end_in(room, found.verified);
        }
        let wanted = fp_begin(room, from_a);
        if wanted != EXISTS {
            return wanted;
        }
        tries += 1;
    }
    Wanted::Nothing as u32
}

/// What [`fp_begin`] says in place of a [`Wanted`] if the flow is there already.
const EXISTS: u32 = 0xff;

#[inline(always)]
const fn side(from_a: u32) -> Side {
    if from_a != 0 { Side::A } else { Side::B }
}

/// Counts a packet of a known flow and moves its state on; a [`Wanted`] by number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fp_pass(room: u32, verified: u32, from_a: u32) -> u32 {
    let (Some(scratch), Some(settings)) = (SCRATCH.get_ptr_mut(room), SETTINGS.get(0)) else {
        return Wanted::Nothing as u32;
    };
    // SAFETY: the element is this CPU's own.
    let scratch = unsafe { &mut *scratch };
    let Some(found) = flow::find_in(verified != 0, &scratch.key) else {
        return Wanted::Nothing as u32;
    };
    let sender = side(from_a);
    let record = found.record;
    // SAFETY: the record is in a map.
    let mut state = unsafe { (*record).state };
    if !state.is_of_generation(settings.generation) {
        fp_rejudge(room, verified);
        // It may wait for its name now, or not any more.
        // SAFETY: as above.
        state = unsafe { (*record).state };
    }
    let sight = &scratch.sight;
    count_packet(record, sender, sight);
    // A held flow's packets are counted when it is released.
    if !state.is_uncounted() {
        // SAFETY: as above.
        count_traffic(
            unsafe { (*record).slot },
            sender == state.initiator(),
            sight,
        );
    }
    let packet = &scratch.packet;
    let change = flow::move_state(record, |state| state.after(packet, sender));
    // Before the flow is settled, which may move it to the other table. Plain reads of counters that other CPUs may
    // be raising: a payload more or less.
    // SAFETY: as above.
    let (totals, tallies) = unsafe { (flow::totals(&scratch.key, &*record), (*record).tallies) };
    let wanted = wanted(
        settings.flags,
        packet,
        change.after(),
        sender,
        &totals.packets,
    );
    if (if from_a != 0 { tallies[0] } else { tallies[1] }).is_half_full() {
        flow::fp_carry(room, u32::from(found.verified), from_a);
    }
    if change.happened() {
        scratch.cause.clear();
        flow::settle_in(room, found.verified, change);
    }
    wanted as u32
}

/// Counts a packet for its flow.
#[inline(always)]
pub(crate) fn count_packet(record: *mut FlowEntry, sender: Side, sight: &Sight) {
    let now = Ticks::from_nanos(sight.now);
    let one = Tally::packet(sight.length).0;
    // SAFETY: the record is in a map; a time stamp may be overwritten by another CPU's of the same moment.
    unsafe {
        if matches!(sender, Side::A) {
            atomic::add((&raw mut (*record).tallies[0]).cast(), one);
            (*record).last_seen[0] = now;
        } else {
            atomic::add((&raw mut (*record).tallies[1]).cast(), one);
            (*record).last_seen[1] = now;
        }
    }
}

#[inline(never)]
fn read(ctx: &TcContext, ethernet: bool, packet: &mut Packet) -> Outcome {
    if ethernet {
        parse::ethernet(&Frame(ctx), packet)
    } else {
        parse::raw_ip(&Frame(ctx), 0, packet)
    }
}

/// Leaves the ports of a first fragment, or fetches them for a later one. False if they are not known.
#[inline(never)]
fn join_fragment(packet: &mut Packet) -> bool {
    let key = FragmentKey {
        source: packet.source,
        destination: packet.destination,
        identification: packet.fragment_id,
        protocol: packet.protocol,
        zero: [0; 3],
    };
    if matches!(packet.fragment, Fragment::First) {
        let ports = FragmentPorts {
            source_port: packet.source_port,
            destination_port: packet.destination_port,
            icmp_type: packet.icmp_type,
            zero: [0; 3],
        };
        // A full table evicts the oldest; what then arrives is counted as an orphan.
        let _ = FRAGMENTS.insert(&key, &ports, 0);
        return true;
    }
    // SAFETY: the element is 8 bytes, written once; an evicted one gives ports of another datagram at
    // worst, in a table of 4,096.
    if let Some(ports) = unsafe { FRAGMENTS.get(&key) } {
        packet.source_port = ports.source_port;
        packet.destination_port = ports.destination_port;
        packet.icmp_type = ports.icmp_type;
        true
    } else {
        count(Counter::FragmentOrphan);
        false
    }
}

/// Reads the packet that an ICMP error quotes. On its own because of the stack that parsing takes.
#[inline(never)]
fn read_quoted(ctx: &TcContext, scratch: &mut Scratch) -> bool {
    parse::quoted(&Frame(ctx), &scratch.packet, &mut scratch.quoted)
}

/// Applies an ICMP error to the flow that it is about. False if that flow is not known.
#[inline(never)]
fn blame(scratch: &mut Scratch) -> bool {
    let (key, sender) = FlowKey::of(&scratch.quoted);
    scratch.key = key;
    let Some(found) = flow::find(&scratch.key) else {
        return false;
    };
    let error = &scratch.packet;
    let change = flow::move_state(found.record, |state| state.after_icmp_error(error, sender));
    if change.happened() {
        scratch.cause = Cause {
            hop: error.source,
            icmp_type: error.icmp_type,
            icmp_code: error.icmp_code,
            has_icmp: 1,
            drop_reason: 0,
        };
        flow::settle_in(ROOM, found.verified, change);
    }
    true
}

/// The matrix changed since the flow was judged: its counters go to the new slot from here on.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fp_rejudge(room: u32, verified: u32) -> u32 {
    let (Some(scratch), Some(settings)) = (SCRATCH.get_ptr_mut(room), SETTINGS.get(0)) else {
        return 0;
    };
    // SAFETY: the element is this CPU's own.
    let scratch = unsafe { &mut *scratch };
    if let Some(found) = flow::find_in(verified != 0, &scratch.key) {
        rejudge(scratch, room, found, settings);
    }
    0
}

#[inline(always)]
fn rejudge(scratch: &mut Scratch, room: u32, found: Found, settings: &Settings) {
    let (key, record, generation) = (&scratch.key, found.record, settings.generation);
    // SAFETY: the record is in a map.
    let flow = unsafe { &mut *record };
    let initiator = flow.state.initiator();
    let named = flow.state.is_named();
    let cover = slot_of(&Generation::of(settings, room), key, initiator);
    let cover = Cover::from_bits(forget(scratch, cover.bits()));
    let key = &scratch.key;
    let slot = if named { flow.slot } else { cover.slot() };
    let verdict = Verdict::of_slot(slot);
    // A flow that no requirement covers any more may be one that a name allows.
    let hold = cover.depends_on_name() && (flow.state.is_held() || slot < FIRST_RULE_SLOT);
    let change = flow::move_state(record, |state| {
        if state.is_of_generation(generation) {
            state
        } else if hold && !named {
            state.rejudged(verdict, generation).held(verdict)
        } else {
            state.rejudged(verdict, generation)
        }
    });
    // Only the CPU that changed the word moves the slot.
    if !change.happened() {
        return;
    }
    if named {
        // Only the daemon knows by which name, and what that means to the new matrix.
    } else if change.after().is_held() {
        flow.slot = slot;
        if !hold {
            flow::release(key, found, slot, false);
        } else if !change.before().is_held() {
            // The daemon is to look for its name from now on.
            event::send(
                EventKind::Rejudged,
                key,
                flow,
                &Cause::default(),
                flow::exact_time(),
            );
        }
    } else if slot != flow.slot {
        flow.slot = slot;
        let now = flow::exact_time();
        flow::count_begun(slot, now);
        if let Some(outcome) = change.after().decided() {
            flow::count_decided(slot, outcome, now);
        }
        event::send(EventKind::Rejudged, key, flow, &Cause::default(), now);
    }
}

/// The same number, with everything forgotten that the verifier knows of it: else it follows each way in which the number
/// came about to the end.
#[inline(always)]
fn forget(scratch: &mut Scratch, number: u32) -> u32 {
    let place = &raw mut scratch.forgotten;
    // SAFETY: the field is in a map, and this CPU's own.
    unsafe {
        place.write_volatile(number);
        place.read_volatile()
    }
}

/// The first packet of a flow; a [`Wanted`] by number, or [`EXISTS`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fp_begin(room: u32, from_a: u32) -> u32 {
    let (Some(scratch), Some(settings)) = (SCRATCH.get_ptr_mut(room), SETTINGS.get(0)) else {
        return Wanted::Nothing as u32;
    };
    // SAFETY: the element is this CPU's own.
    let scratch = unsafe { &mut *scratch };
    let sender = side(from_a);
    if begin(scratch, room, sender, settings) {
        wanted(
            settings.flags,
            &scratch.packet,
            scratch.entry.state,
            sender,
            &scratch.entry.totals().packets,
        ) as u32
    } else {
        EXISTS
    }
}

/// False if another CPU was first with a packet of the same flow.
#[inline(always)]
fn begin(scratch: &mut Scratch, room: u32, sender: Side, settings: &Settings) -> bool {
    let tables = Generation::of(settings, room);
    let attached_lately = scratch.sight.now.saturating_sub(settings.attached_at) < ATTACH_GRACE;
    let judgement = judge(
        &tables,
        &scratch.packet,
        &scratch.key,
        sender,
        attached_lately,
    );
    let fresh = State::new(&judgement, settings.generation);
    let fresh = State(forget(scratch, fresh.0));
    let slot = forget(scratch, judgement.slot);
    let state = fresh.after(&scratch.packet, sender);
    let state = State(forget(scratch, state.0));
    // The exact clock, since a flow's age is counted from here.
    let now = flow::exact_time();
    let one = Tally::packet(scratch.sight.length);
    let point = scratch.sight.point;
    let (tallies, points) = match sender {
        Side::A => ([one, Tally(0)], [point, 0]),
        Side::B => ([Tally(0), one], [0, point]),
    };
    let now_ticks = Ticks::from_nanos(now);
    scratch.entry = FlowEntry {
        tallies,
        first_seen: now_ticks,
        last_seen: [now_ticks; 2],
        state,
        slot,
        points,
    };
    match UNVERIFIED.insert(&scratch.key, &scratch.entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => count(Counter::UnverifiedInserted),
        Err(EEXIST) => return false,
        // Counted for its slot all the same, so that the requirement's numbers stay exact; a flow that waits for
        // its name has none yet, and is lost.
        Err(_) => count(Counter::FlowTableFull),
    }
    if !fresh.is_held() {
        count_traffic(slot, sender == fresh.initiator(), &scratch.sight);
        flow::count_begun(slot, now);
    }
    scratch.cause.clear();
    event::send(
        EventKind::Begun,
        &scratch.key,
        &scratch.entry,
        &scratch.cause,
        now,
    );
    if let Some(outcome) = state.decided_since(fresh) {
        if !fresh.is_held() {
            flow::count_decided(slot, outcome, now);
        }
        event::send(
            EventKind::Decided,
            &scratch.key,
            &scratch.entry,
            &scratch.cause,
            now,
        );
    }
    true
}

/// `EEXIST` of `asm-generic/errno-base.h`, as helpers return it.
const EEXIST: i32 = -17;

#[inline(always)]
pub(crate) fn count_traffic(slot: u32, to_responder: bool, sight: &Sight) {
    let Some(traffic) = SLOT_TRAFFIC.get_ptr_mut(slot) else {
        return;
    };
    if sight.point == DROP_POINT {
        // The drop probe may be interrupted by a program that counts here too.
        // SAFETY: the pointer is into the map.
        unsafe {
            let index = usize::from(!to_responder);
            atomic::add((&raw mut (*traffic).packets).cast::<u64>().add(index), 1);
            atomic::add(
                (&raw mut (*traffic).bytes).cast::<u64>().add(index),
                sight.length,
            );
            (*traffic).last_seen = sight.now;
        }
        return;
    }
    // SAFETY: the element is this CPU's own, and nothing interrupts the traffic path that counts here.
    let traffic = unsafe { &mut *traffic };
    if to_responder {
        traffic.packets[0] += 1;
        traffic.bytes[0] += sight.length;
    } else {
        traffic.packets[1] += 1;
        traffic.bytes[1] += sight.length;
    }
    traffic.last_seen = sight.now;
}
