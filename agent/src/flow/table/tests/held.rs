//! Flows that wait for their name: they count for nothing, and then once, with everything that went before.

use super::*;
use flowproof_common::classify::{DEPENDS_ON_NAME, NAMELESS_CLASS};

/// By generation, what the client may do at TCP 443 to the server's address: 0 what its name allows (slot 2 by a guess),
/// 1 nothing unless a name says so, 2 anything (slot 3), 3 nothing.
struct Named(u32);

impl Tables for Named {
    fn address_class(&self, address: &Address) -> u32 {
        RULES.address_class(address)
    }
    fn port_class(&self, port: u16) -> u16 {
        u16::from(port == 443)
    }
    fn rule(&self, from: u32, to: u32, _: u8, port_class: u16) -> Option<u32> {
        let (client, server) = (BOUND | 1, BOUND | 2);
        match (self.0, from, to, port_class) {
            (0, f, t, 1) if f == client && t == server => Some(2 | DEPENDS_ON_NAME),
            (0 | 1, f, NAMELESS_CLASS, 1) if f == client => Some(UNEXPECTED_SLOT | DEPENDS_ON_NAME),
            (2, f, t, 1) if f == client && t == server => Some(3),
            _ => None,
        }
    }
    fn has_names(&self) -> bool {
        self.0 < 2
    }
}

impl Run {
    fn by(&mut self, matrix: u32, at: u64, packet: &Packet) {
        let time = START + at * MS;
        let events = &mut self.events;
        let mut sink = |event: &Event, moments: Moments| events.push((*event, moments));
        self.table.begin_generation(matrix + 1);
        self.table.advance_time(time, &mut sink);
        let sight = Sight {
            packet,
            quoted: None,
            bytes: 100,
            point: 1,
            time,
        };
        self.table.on_packet(&Named(matrix), &sight, &mut sink);
    }

    fn name(&mut self, slot: u32) {
        let events = &mut self.events;
        let key = FlowKey::of(&c(SYN)).0;
        self.table
            .name(&key, slot, &mut |event, span| events.push((*event, span)));
    }

    fn give_up(&mut self) {
        let events = &mut self.events;
        let key = FlowKey::of(&c(SYN)).0;
        self.table
            .give_up(&key, &mut |event, span| events.push((*event, span)));
    }

    /// Begun, answered and packets of a slot.
    fn counted(&self, slot: u32) -> (u64, u64, u64) {
        let flows = self.slot(slot);
        let traffic = self.table.slot_traffic().get(slot as usize);
        let packets = traffic.map_or(0, |traffic| traffic.packets.iter().sum());
        (
            flows.begun,
            flows.decided[Outcome::Answered as usize],
            packets,
        )
    }

    fn kinds(&self) -> Vec<u8> {
        self.events.iter().map(|(event, _)| event.kind).collect()
    }

    fn handshake(&mut self, matrix: u32) {
        for (at, packet) in [(0, c(SYN)), (1, s(SYN_ACK)), (2, c(ACK))] {
            self.by(matrix, at, &packet);
        }
    }
}

const NOTHING: (u64, u64, u64) = (0, 0, 0);

#[test]
fn a_held_flow_counts_once_it_is_named() {
    let mut run = Run::new(Limits::default());
    run.handshake(0);
    for slot in 0..4 {
        assert_eq!(run.counted(slot), NOTHING, "{slot}");
    }
    assert_eq!(run.table.verified().0, 0);
    run.by(0, 9_000, &c(ACK));
    run.name(3);
    assert_eq!(run.counted(3), (1, 1, 4));
    assert_eq!(run.table.verified().0, 1);
    run.by(0, 9_001, &s(ACK));
    assert_eq!(run.counted(3), (1, 1, 5));
    let kinds: Vec<u8> = [
        EventKind::Begun,
        EventKind::Decided,
        EventKind::Named,
        EventKind::Decided,
    ]
    .map(|kind| kind as u8)
    .to_vec();
    assert_eq!(run.kinds(), kinds);
    // As of when it happened, to a tick, not of when its name was known.
    let flows = run.slot(3);
    assert!(flows.last_attempt < START + 10 * MS, "{flows:?}");
    let late = START + 9_000 * MS;
    assert!(flows.last_answered.abs_diff(late) < 10 * MS, "{flows:?}");
}

#[test]
fn an_old_answer_is_not_newer_than_a_failure() {
    let mut run = Run::new(Limits::default());
    run.handshake(0);
    // Another flow of the row fails meanwhile.
    let other = tcp_between(CLIENT, 40_001, SERVER, 443, SYN);
    run.by(0, 5_000, &other);
    run.by(
        0,
        5_001,
        &tcp_between(SERVER, 443, CLIENT, 40_001, RST | ACK),
    );
    let events = &mut run.events;
    run.table
        .name(&FlowKey::of(&other).0, 2, &mut |event, span| {
            events.push((*event, span));
        });
    run.wait(9_000);
    run.name(2);
    let flows = run.slot(2);
    assert!(flows.last_failed > flows.last_answered, "{flows:?}");
}

#[test]
fn what_was_lost_is_given_up_and_counted_as_lost() {
    let mut run = Run::new(Limits::default());
    run.handshake(1);
    run.give_up();
    assert_eq!(run.counted(UNSCOPED_SLOT), (1, 1, 3));
    assert_eq!(run.counted(UNEXPECTED_SLOT), NOTHING);
    assert_eq!(run.table.names_unknown(), 1);
    let state = run.record().state;
    assert_eq!(state.verdict(), Verdict::Unscoped);
    // A ruling that comes late changes nothing, nor a second loss.
    run.give_up();
    run.name(UNEXPECTED_SLOT);
    assert_eq!(run.counted(UNEXPECTED_SLOT), NOTHING);
    assert_eq!(run.table.names_unknown(), 1);
    // What the next matrix says by addresses alone counts again.
    run.by(2, 10, &c(ACK));
    assert_eq!(run.counted(3), (1, 1, 1));
}

#[test]
fn a_guess_counts_at_the_end_and_no_unexpected_one() {
    for (matrix, expect) in [(0, (1, 1, 4)), (1, NOTHING)] {
        let mut run = Run::new(Limits::default());
        run.handshake(matrix);
        run.by(matrix, 10, &c(RST));
        run.wait(200_000);
        assert_eq!(run.table.flows().count(), 0);
        assert_eq!(run.counted(2), expect, "{matrix}");
        assert_eq!(run.counted(UNEXPECTED_SLOT), NOTHING);
        assert_eq!(run.table.names_unknown(), u64::from(matrix == 1));
        let ended = *run.of_kind(EventKind::Ended).next().unwrap();
        assert_eq!(ended.record.state.is_held(), matrix == 1);
        // What it counted for is told as of any other flow, with its outcome.
        let told: Vec<bool> = run
            .of_kind(EventKind::Decided)
            .map(|event| event.record.state.is_held())
            .collect();
        let expect: &[bool] = if matrix == 0 { &[true, false] } else { &[true] };
        assert_eq!(told, expect);
        assert!(run.slot(2).last_answered < START + 100 * MS);
    }
}

#[test]
fn a_reload_releases_what_needs_no_name_any_more() {
    let mut run = Run::new(Limits::default());
    run.handshake(0);
    run.by(2, 10, &c(ACK));
    assert_eq!(run.counted(3), (1, 1, 4));
    let mut run = Run::new(Limits::default());
    run.handshake(0);
    run.by(3, 10, &c(ACK));
    assert_eq!(run.counted(UNEXPECTED_SLOT), (1, 1, 4));
}

#[test]
fn a_reload_that_makes_a_flow_wait_says_so_and_counts_no_packet_twice() {
    let mut run = Run::new(Limits::default());
    run.handshake(2);
    assert_eq!(run.counted(3), (1, 1, 3));
    run.by(1, 10, &c(ACK));
    let (last, _) = *run.events.last().unwrap();
    assert_eq!(last.kind, EventKind::Rejudged as u8);
    assert!(last.record.state.is_held());
    run.by(1, 11, &s(ACK));
    run.name(2);
    run.by(1, 12, &c(ACK));
    let packets: u64 = (0..4).map(|slot| run.counted(slot).2).sum();
    assert_eq!(packets, 6);
    assert_eq!(run.counted(2).0, 1);
    assert_eq!(run.counted(UNEXPECTED_SLOT).0, 0);
}

#[test]
fn a_name_stays_over_reloads_until_it_is_judged_anew() {
    let mut run = Run::new(Limits::default());
    run.handshake(0);
    run.name(2);
    for matrix in [1, 3, 0] {
        run.by(matrix, 10, &c(ACK));
        let state = run.record().state;
        assert!(state.is_named() && !state.is_held(), "{matrix}");
        assert_eq!(run.record().slot, 2);
    }
    run.name(UNEXPECTED_SLOT);
    assert_eq!(run.counted(UNEXPECTED_SLOT), (1, 1, 0));
    let (last, _) = *run.events.last().unwrap();
    assert_eq!(last.kind, EventKind::Rejudged as u8);
}

#[test]
fn a_ruling_reaches_no_later_flow_between_the_same_ends() {
    let mut run = Run::new(Limits::default());
    run.handshake(0);
    run.by(0, 10, &c(RST));
    // By now the address is known, so that the tables alone judge the next one.
    run.by(2, 20, &c(SYN));
    assert_eq!(run.counted(3).0, 1);
    run.name(UNEXPECTED_SLOT);
    assert_eq!(run.counted(UNEXPECTED_SLOT), NOTHING);
    assert_eq!(run.record_of_now().slot, 3);
}

impl Run {
    fn record_of_now(&self) -> FlowRecord {
        *self.table.flows().next().unwrap().record
    }
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Whatever comes: every packet counts for exactly one slot, or waits, or went with a flow nobody could name; and
        /// every flow counts as often as events say.
        #[test]
        fn every_packet_counts_once(
            steps in prop::collection::vec((0..3_000_u64, 0..4_u32, 0..8_u8, 0..5_u32), 1..80)
        ) {
            let mut run = Run::new(Limits { verified: 2, unverified: 3, fragments: 1 });
            let (mut at, mut seen) = (0, 0);
            for (pause, matrix, what, slot) in steps {
                at += pause;
                let packet = match what {
                    0 => { run.name(slot); continue }
                    1 => { run.give_up(); continue }
                    2 | 3 => c(SYN),
                    4 => s(SYN_ACK),
                    5 => c(ACK),
                    6 => c(RST),
                    _ => s(RST | ACK),
                };
                run.by(matrix, at, &packet);
                seen += 1;
                let waiting = |record: &FlowRecord| {
                    if record.state.is_uncounted() { record.packets.iter().sum() } else { 0 }
                };
                let counted: u64 = (0..5).map(|slot| run.counted(slot).2).sum();
                let held: u64 = run.table.flows().map(|flow| waiting(flow.record)).sum();
                let gone: u64 = run.of_kind(EventKind::Ended).map(|event| waiting(&event.record)).sum();
                prop_assert_eq!(counted + held + gone, seen);
                let begun: u64 = (0..5).map(|slot| run.counted(slot).0).sum();
                let told = run.events.iter().filter(|(event, _)| {
                    let kinds = [EventKind::Begun, EventKind::Rejudged, EventKind::Named];
                    kinds.iter().any(|kind| *kind as u8 == event.kind) && !event.record.state.is_held()
                });
                prop_assert_eq!(begun, told.count() as u64);
            }
        }
    }
}
