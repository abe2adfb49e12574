//! Each case is a conversation as a capture point sees it, and what the table makes of it.

use super::*;
use flowproof_common::classify::{BOUND, UNBOUND_CLASS, UNEXPECTED_SLOT, UNSCOPED_SLOT};
use flowproof_common::packet::tcp::{ACK, FIN, RST, SYN};
use flowproof_common::record::point;

const CLIENT: Address = Address::from_v4([10, 0, 0, 1]);
const SERVER: Address = Address::from_v4([10, 0, 0, 2]);
const STRANGER: Address = Address::from_v4([10, 9, 9, 9]);
const GROUP: Address = Address::from_v4([224, 0, 0, 18]);
const HOP: Address = Address::from_v4([10, 0, 0, 254]);
const MS: u64 = 1_000_000;
/// Where scripts begin: far from zero, as in real captures.
const START: u64 = 1_760_000_000_000_000_000;

/// The client may reach the server's TCP 443 and UDP 53, 9000, echo; anybody may send VRRP to its group.
struct Rules {
    https: u32,
}

const RULES: Rules = Rules { https: 2 };

impl Tables for Rules {
    fn address_class(&self, address: &Address) -> u32 {
        match *address {
            CLIENT => BOUND | 1,
            SERVER => BOUND | 2,
            GROUP => 3,
            _ => UNBOUND_CLASS,
        }
    }
    fn port_class(&self, port: u16) -> u16 {
        match port {
            443 => 1,
            53 => 2,
            9000 => 3,
            8 => 4,
            _ => 0,
        }
    }
    fn rule(&self, from: u32, to: u32, protocol: u8, port_class: u16) -> Option<u32> {
        match (from, to, protocol, port_class) {
            (f, t, 6, 1) if f == BOUND | 1 && t == BOUND | 2 => Some(self.https),
            (f, t, 17, 2) if f == BOUND | 1 && t == BOUND | 2 => Some(3),
            (f, t, 17, 3) if f == BOUND | 1 && t == BOUND | 2 => Some(4),
            (f, t, 1, 4) if f == BOUND | 1 && t == BOUND | 2 => Some(5),
            (_, 3, protocol::VRRP, 0) => Some(6),
            _ => None,
        }
    }
    fn has_names(&self) -> bool {
        false
    }
}

#[derive(Clone, Copy)]
enum Step {
    /// At (ms), packet.
    Packet(u64, Packet),
    /// At (ms), error, what it quotes.
    Error(u64, Packet, Packet),
    /// Nothing until (ms).
    Until(u64),
}
use Step::{Error as Icmp, Packet as At, Until};

fn tcp_between(from: Address, from_port: u16, to: Address, to_port: u16, flags: u8) -> Packet {
    Packet {
        source: from,
        destination: to,
        source_port: from_port,
        destination_port: to_port,
        protocol: protocol::TCP,
        tcp_flags: flags,
        ..Packet::default()
    }
}

fn c(flags: u8) -> Packet {
    tcp_between(CLIENT, 40000, SERVER, 443, flags)
}

fn s(flags: u8) -> Packet {
    tcp_between(SERVER, 443, CLIENT, 40000, flags)
}

fn udp(from: Address, from_port: u16, to: Address, to_port: u16) -> Packet {
    Packet {
        protocol: protocol::UDP,
        tcp_flags: 0,
        ..tcp_between(from, from_port, to, to_port, 0)
    }
}

fn ask(port: u16) -> Packet {
    udp(CLIENT, 40000, SERVER, port)
}

fn tell(port: u16) -> Packet {
    udp(SERVER, port, CLIENT, 40000)
}

fn icmp(from: Address, to: Address, kind: u8, code: u8) -> Packet {
    Packet {
        source: from,
        destination: to,
        protocol: protocol::ICMP,
        icmp_type: kind,
        icmp_code: code,
        ..Packet::default()
    }
}

fn error(from: Address, kind: u8, code: u8) -> Packet {
    icmp(from, CLIENT, kind, code)
}

/// All that came out of a script.
struct Run {
    table: FlowTable,
    events: Vec<(Event, Moments)>,
}

impl Run {
    fn new(limits: Limits) -> Self {
        Self {
            table: FlowTable::new(limits),
            events: Vec::new(),
        }
    }

    fn see(
        &mut self,
        rules: &Rules,
        at: u64,
        at_point: u16,
        packet: &Packet,
        quoted: Option<&Packet>,
    ) -> Treatment {
        let time = START + at * MS;
        let events = &mut self.events;
        let mut sink = |event: &Event, moments: Moments| events.push((*event, moments));
        self.table.advance_time(time, &mut sink);
        let sight = Sight {
            packet,
            quoted,
            bytes: 100,
            point: at_point,
            time,
        };
        self.table.on_packet(rules, &sight, &mut sink)
    }

    fn wait(&mut self, at: u64) {
        let events = &mut self.events;
        self.table
            .advance_time(START + at * MS, &mut |event: &Event, moments| {
                events.push((*event, moments));
            });
    }

    fn play(steps: &[Step]) -> Self {
        let mut run = Self::new(Limits::default());
        run.table.attached(START);
        for step in steps {
            match step {
                At(at, packet) => {
                    run.see(&RULES, *at, point(1, false), packet, None);
                }
                Icmp(at, packet, quoted) => {
                    run.see(&RULES, *at, point(1, false), packet, Some(quoted));
                }
                Until(at) => run.wait(*at),
            }
        }
        run
    }

    /// Outcomes in the order of their decision.
    fn decisions(&self) -> Vec<&'static str> {
        self.of_kind(EventKind::Decided)
            .map(|event| event.record.state.outcome().name())
            .collect()
    }

    fn of_kind(&self, kind: EventKind) -> impl Iterator<Item = &Event> {
        self.events
            .iter()
            .map(|(event, _)| event)
            .filter(move |event| event.kind == kind as u8)
    }

    /// The only flow of the script, ended or not.
    fn record(&self) -> FlowRecord {
        let ended = self.of_kind(EventKind::Ended).map(|event| event.record);
        let mut all: Vec<_> = ended
            .chain(self.table.flows().map(|flow| *flow.record))
            .collect();
        assert_eq!(all.len(), 1, "one flow");
        all.remove(0)
    }

    fn slot(&self, slot: u32) -> SlotFlows {
        self.table
            .slot_flows()
            .get(slot as usize)
            .copied()
            .unwrap_or_default()
    }
}

/// Plays `steps`, which make one flow, and compares its decisions and its final outcome; every decision must
/// also be in the counters.
#[track_caller]
fn check(steps: &[Step], decisions: &[&str], outcome: Outcome) -> Run {
    let run = Run::play(steps);
    assert_eq!(run.decisions(), decisions);
    let record = run.record();
    assert_eq!(record.state.outcome(), outcome);
    let flows = run.slot(record.slot);
    assert_eq!(flows.begun, 1);
    let decided: u64 = flows.decided[1..].iter().sum();
    assert_eq!(decided, decisions.len() as u64);
    run
}

const MIDWAY: u8 = ACK;
const SYN_ACK: u8 = SYN | ACK;

#[test]
fn tcp_outcomes() {
    use Outcome::{
        Answered, ClosedAfterAnswer, NoAnswer, Pending, Prohibited, Refused, Unreachable,
    };
    let hello = [At(0, c(SYN)), At(1, s(SYN_ACK)), At(2, c(ACK))];
    let with = |rest: &[Step]| [&hello[..], rest].concat();
    check(&hello, &["answered"], Answered);
    check(&[At(0, c(SYN)), At(1, s(SYN_ACK))], &[], Pending);
    check(&[At(0, c(SYN)), At(1, s(RST | ACK))], &["refused"], Refused);
    // Closed in both ways: no second decision.
    let closed = with(&[At(9, c(FIN | ACK)), At(10, s(FIN | ACK)), At(11, c(ACK))]);
    check(&closed, &["answered"], ClosedAfterAnswer);
    // False alarms: a RST closes an answered connection, from either side, idle for hours or not.
    check(&with(&[At(9, s(RST))]), &["answered"], ClosedAfterAnswer);
    check(
        &with(&[At(9, c(RST | ACK))]),
        &["answered"],
        ClosedAfterAnswer,
    );
    let idle = with(&[Until(3_600_000), At(7_200_000, s(RST | ACK))]);
    check(&idle, &["answered"], ClosedAfterAnswer);
    // The loser of a happy-eyeballs race gives up after the SYN-ACK, or before it with a lone SYN.
    let loser = [At(0, c(SYN)), At(1, s(SYN_ACK)), At(2, c(RST))];
    let run = check(&loser, &["closed_after_answer"], ClosedAfterAnswer);
    assert_eq!(run.slot(2).decided[Answered as usize], 1);
    check(&[At(0, c(SYN)), Until(20_000)], &[], Pending);
    // Silence where a SYN is repeated.
    let silence = [At(0, c(SYN)), At(1_000, c(SYN)), At(3_000, c(SYN))];
    check(&[&silence[..], &[Until(3_150)]].concat(), &[], Pending);
    check(
        &[&silence[..], &[Until(3_450)]].concat(),
        &["no_answer"],
        NoAnswer,
    );
    // ... and where it is repeated late.
    check(
        &[At(0, c(SYN)), Until(4_500), At(5_000, c(SYN)), Until(5_250)],
        &["no_answer"],
        NoAnswer,
    );
    // A SYN-ACK that is never acknowledged did not reach the client.
    check(
        &[At(0, c(SYN)), At(1, s(SYN_ACK)), Until(4_000)],
        &["no_answer"],
        NoAnswer,
    );
    // A late answer overturns silence.
    let late = [
        &silence[..],
        &[At(7_000, c(SYN)), At(7_001, s(SYN_ACK)), At(7_002, c(ACK))],
    ]
    .concat();
    check(&late, &["no_answer", "answered"], Answered);
    // ICMP errors.
    check(
        &[At(0, c(SYN)), Icmp(1, error(HOP, 3, 13), c(0))],
        &["prohibited"],
        Prohibited,
    );
    check(
        &[At(0, c(SYN)), Icmp(1, error(HOP, 3, 1), c(0))],
        &["unreachable"],
        Unreachable,
    );
    check(
        &[At(0, c(SYN)), Icmp(1, error(SERVER, 3, 3), c(0))],
        &["refused"],
        Refused,
    );
    check(
        &[At(0, c(SYN)), Icmp(1, error(HOP, 3, 4), c(0))],
        &[],
        Pending,
    );
    let after = with(&[Icmp(9, error(HOP, 11, 0), c(0))]);
    check(&after, &["answered"], Answered);
    let overturned = [
        &[At(0, c(SYN)), Icmp(1, error(HOP, 3, 1), c(0))],
        &hello[1..],
    ]
    .concat();
    check(&overturned, &["unreachable", "answered"], Answered);
}

#[test]
fn a_connection_open_before_the_capture_is_answered() {
    for (first, second) in [(c(MIDWAY), s(MIDWAY)), (s(MIDWAY), c(MIDWAY))] {
        let run = check(
            &[At(0, first), At(1, second)],
            &["answered"],
            Outcome::Answered,
        );
        let record = run.record();
        assert!(record.state.joined_midway());
        // The matrix tells who initiated, whichever side is seen first.
        assert_eq!(record.slot, 2);
        let key = run.table.flows().next().unwrap().key.to_owned();
        assert_eq!(key.end(record.state.initiator()).0, CLIENT);
    }
    // Without a rule the well-known port tells.
    let stray = tcp_between(STRANGER, 22, HOP, 50000, ACK);
    let run = Run::play(&[At(0, stray)]);
    let key = *run.table.flows().next().unwrap().key;
    assert_eq!(key.end(run.record().state.initiator()).0, HOP);
    // One direction alone, and a close of what was never seen open, decide nothing.
    check(
        &[At(0, c(MIDWAY)), At(5, c(MIDWAY)), Until(50_000)],
        &[],
        Outcome::Pending,
    );
    check(&[At(0, s(RST))], &[], Outcome::Pending);
}

#[test]
fn udp_and_other_outcomes() {
    use Outcome::{Answered, NoAnswer, OneWay, Pending, Prohibited, Refused};
    check(&[At(0, ask(53)), At(5, tell(53))], &["answered"], Answered);
    check(&[At(0, ask(53)), Until(3_000)], &[], Pending);
    check(&[At(0, ask(53)), Until(3_750)], &["no_answer"], NoAnswer);
    check(
        &[At(0, ask(53)), At(6_000, tell(53))],
        &["no_answer", "answered"],
        Answered,
    );
    check(&[At(0, ask(9000)), Until(3_750)], &["one_way"], OneWay);
    check(
        &[At(0, ask(53)), Icmp(1, error(SERVER, 3, 3), ask(53))],
        &["refused"],
        Refused,
    );
    check(
        &[
            At(0, ask(9000)),
            Until(4_000),
            Icmp(4_100, error(HOP, 3, 10), ask(9000)),
        ],
        &["one_way", "prohibited"],
        Prohibited,
    );
    // An error about the answer, not about the question: the client closed its port.
    let answer = [
        At(0, ask(53)),
        At(5, tell(53)),
        Icmp(6, icmp(CLIENT, SERVER, 3, 3), tell(53)),
    ];
    check(&answer, &["answered"], Answered);
    let vrrp = Packet {
        source: SERVER,
        destination: GROUP,
        protocol: protocol::VRRP,
        ..Packet::default()
    };
    let run = check(&[At(0, vrrp)], &["one_way"], OneWay);
    assert_eq!(run.record().slot, 6);
    let ping = |from, to, kind| Packet {
        source_port: 7,
        destination_port: 7,
        ..icmp(from, to, kind, 0)
    };
    check(
        &[
            At(0, ping(CLIENT, SERVER, 8)),
            At(1, ping(SERVER, CLIENT, 0)),
        ],
        &["answered"],
        Answered,
    );
    check(
        &[At(0, ping(CLIENT, SERVER, 8)), Until(3_750)],
        &["no_answer"],
        NoAnswer,
    );
}

#[test]
fn silence_of_a_service_that_has_answered_is_a_failure() {
    let other = udp(CLIENT, 40001, SERVER, 9000);
    let run = Run::play(&[
        At(0, ask(9000)),
        At(1, tell(9000)),
        At(2, other),
        Until(4_000),
    ]);
    assert_eq!(run.decisions(), ["answered", "no_answer"]);
}

#[test]
fn an_answer_before_the_question_is_inferred_only_right_after_the_attach() {
    let verdict = |at| {
        let run = Run::play(&[At(at, tell(53))]);
        run.record().state.verdict()
    };
    assert_eq!(verdict(5_000), Verdict::Expected);
    assert_eq!(verdict(15_000), Verdict::Unexpected);
}

#[test]
fn verdicts() {
    let slot = |packet| Run::play(&[At(0, packet)]).record().slot;
    assert_eq!(slot(c(SYN)), 2);
    assert_eq!(
        slot(tcp_between(CLIENT, 40000, SERVER, 8443, SYN)),
        UNEXPECTED_SLOT
    );
    assert_eq!(
        slot(tcp_between(SERVER, 40000, CLIENT, 443, SYN)),
        UNEXPECTED_SLOT
    );
    assert_eq!(
        slot(tcp_between(STRANGER, 40000, SERVER, 443, SYN)),
        UNEXPECTED_SLOT
    );
    assert_eq!(
        slot(tcp_between(STRANGER, 40000, HOP, 443, SYN)),
        UNSCOPED_SLOT
    );
}

#[test]
fn packets_and_bytes_are_counted_by_direction() {
    let run = Run::play(&[
        At(0, c(SYN)),
        At(1, s(SYN_ACK)),
        At(2, c(ACK)),
        At(3, c(ACK)),
    ]);
    let traffic = run.table.slot_traffic()[2];
    assert_eq!((traffic.packets, traffic.bytes), ([3, 1], [300, 100]));
    assert_eq!(traffic.last_seen, START + 3 * MS);
    let flow = run.table.flows().next().unwrap();
    assert_eq!(
        flow.moments.span(),
        Span {
            first: START,
            last: START + 3 * MS
        }
    );
}

#[test]
fn events_hold_the_record_after_the_packet() {
    let run = Run::play(&[At(0, ask(9000)), At(1, tell(9000))]);
    let told: Vec<_> = run
        .events
        .iter()
        .map(|(event, _)| (event.kind, event.record.packets.iter().sum::<u64>()))
        .collect();
    assert_eq!(
        told,
        [(EventKind::Begun as u8, 1), (EventKind::Decided as u8, 2)]
    );
}

#[test]
fn a_packet_seen_at_two_points_counts_once() {
    let mut run = Run::new(Limits::default());
    for (at, packet) in [(0, c(SYN)), (1, s(SYN_ACK)), (2, c(ACK))] {
        let (near, far) = if packet.source == CLIENT {
            (1, 2)
        } else {
            (2, 1)
        };
        assert_eq!(
            run.see(&RULES, at, point(near, false), &packet, None),
            Treatment::Counted(Wanted::Nothing)
        );
        assert_eq!(
            run.see(&RULES, at, point(far, true), &packet, None),
            Treatment::Duplicate
        );
    }
    assert_eq!(run.table.slot_traffic()[2].packets, [2, 1]);
    assert_eq!(run.record().state.syns(), 1);
    // The owner is gone: after two seconds the other takes over.
    assert_eq!(
        run.see(&RULES, 3_000, point(2, true), &c(ACK), None),
        Treatment::Counted(Wanted::Nothing)
    );
}

#[test]
fn a_5_tuple_used_again_is_a_new_flow() {
    let first = [At(0, c(SYN)), At(1, s(RST | ACK))];
    let run = Run::play(
        &[
            &first[..],
            &[At(500, c(SYN)), At(501, s(SYN_ACK)), At(502, c(ACK))],
        ]
        .concat(),
    );
    assert_eq!(run.decisions(), ["refused", "answered"]);
    let ended: Vec<_> = run.of_kind(EventKind::Ended).collect();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].record.packets.iter().sum::<u64>(), 2);
    assert_eq!(run.slot(2).begun, 2);
}

#[test]
fn icmp_errors_about_unknown_flows_are_flows_of_their_own() {
    let run = Run::play(&[Icmp(0, error(HOP, 3, 13), c(0))]);
    let flow = run.table.flows().next().unwrap();
    assert_eq!(flow.key.protocol, protocol::ICMP);
    assert_eq!(run.decisions(), ["one_way"]);
}

#[test]
fn icmp_errors_name_the_hop_and_count_for_no_flow() {
    let refused = error(HOP, 3, 13);
    let run = Run::play(&[
        At(0, c(SYN)),
        Icmp(1, refused, c(0)),
        Icmp(2, refused, c(0)),
        Icmp(3, error(HOP, 3, 4), c(0)),
    ]);
    let decided = run.of_kind(EventKind::Decided).next().unwrap();
    assert_eq!(
        (decided.hop, decided.icmp_type, decided.icmp_code),
        (HOP, 3, 13)
    );
    assert_eq!(run.record().packets.iter().sum::<u64>(), 1);
    // The repeated error is no news, the other one is.
    assert_eq!(run.of_kind(EventKind::IcmpError).count(), 1);
}

#[test]
fn fragments_belong_to_the_flow_of_the_first() {
    let first = Packet {
        fragment: Fragment::First,
        fragment_id: 9,
        ..ask(9000)
    };
    let later = Packet {
        fragment: Fragment::Later,
        source_port: 0,
        destination_port: 0,
        ..first
    };
    let mut run = Run::new(Limits::default());
    assert_eq!(run.see(&RULES, 0, 3, &later, None), Treatment::Orphan);
    assert_eq!(
        run.see(&RULES, 1, 3, &first, None),
        Treatment::Counted(Wanted::Nothing)
    );
    assert_eq!(
        run.see(&RULES, 2, 3, &later, None),
        Treatment::Counted(Wanted::Nothing)
    );
    assert_eq!(
        run.see(
            &RULES,
            3,
            3,
            &Packet {
                fragment_id: 8,
                ..later
            },
            None
        ),
        Treatment::Orphan
    );
    assert_eq!(run.see(&RULES, 40_000, 3, &later, None), Treatment::Orphan);
    assert_eq!(
        (
            run.record().packets.iter().sum::<u64>(),
            run.table.orphans()
        ),
        (2, 3)
    );
}

#[test]
fn first_fragments_are_bounded() {
    let mut run = Run::new(Limits {
        fragments: 4,
        ..Limits::default()
    });
    for id in 0..10 {
        let first = Packet {
            fragment: Fragment::First,
            fragment_id: id,
            ..ask(9000)
        };
        run.see(&RULES, 0, 3, &first, None);
    }
    let later = |id| Packet {
        fragment: Fragment::Later,
        fragment_id: id,
        ..ask(9000)
    };
    assert_eq!(
        run.see(&RULES, 1, 3, &later(9), None),
        Treatment::Counted(Wanted::Nothing)
    );
    assert_eq!(run.see(&RULES, 1, 3, &later(5), None), Treatment::Orphan);
}

#[test]
fn link_upkeep_is_not_judged() {
    let mut run = Run::new(Limits::default());
    let solicitation = Packet {
        protocol: protocol::ICMPV6,
        icmp_type: 135,
        ..icmp(CLIENT, SERVER, 0, 0)
    };
    assert_eq!(
        run.see(&RULES, 0, 3, &solicitation, None),
        Treatment::LinkUpkeep
    );
    assert_eq!(run.table.flows().count(), 0);
}

#[test]
fn a_flood_does_not_push_out_verified_flows() {
    let mut run = Run::new(Limits {
        verified: 4,
        unverified: 100,
        fragments: 1,
    });
    for (at, packet) in [(0, c(SYN)), (1, s(SYN_ACK)), (2, c(ACK))] {
        run.see(&RULES, at, 3, &packet, None);
    }
    for number in 0..1000_u16 {
        let syn = tcp_between(STRANGER, 1024 + number, SERVER, 443, SYN);
        run.see(&RULES, 10 + u64::from(number), 3, &syn, None);
    }
    assert_eq!(run.table.verified().0, 1);
    assert_eq!(run.table.unverified().0, 100);
    assert_eq!(run.table.evictions(), 900);
    assert_eq!(
        run.see(&RULES, 2_000, 3, &c(ACK), None),
        Treatment::Counted(Wanted::Nothing)
    );
    assert_eq!(run.slot(2).begun, 1);
    // Their totals are kept.
    assert_eq!(run.slot(UNEXPECTED_SLOT).begun, 1000);
    assert_eq!(
        run.slot(UNEXPECTED_SLOT).decided[Outcome::Pending as usize],
        900
    );
}

#[test]
fn the_longest_idle_is_pushed_out_first() {
    let mut run = Run::new(Limits {
        verified: 1,
        unverified: 3,
        fragments: 1,
    });
    let syn = |port| tcp_between(STRANGER, port, SERVER, 443, SYN);
    for (at, port) in [(0, 1), (200, 2), (400, 3), (600, 1), (800, 4)] {
        run.see(&RULES, at, 3, &syn(port), None);
    }
    let ended: Vec<_> = run
        .of_kind(EventKind::Ended)
        .map(|event| event.key.port_a.max(event.key.port_b))
        .collect();
    assert_eq!(ended, [443]);
    let mut left: Vec<_> = run
        .table
        .flows()
        .map(|flow| flow.key.port_a.min(flow.key.port_b))
        .collect();
    left.sort_unstable();
    assert_eq!(left, [1, 3, 4]);
}

#[test]
fn a_full_table_of_verified_flows_is_said() {
    let mut run = Run::new(Limits {
        verified: 1,
        unverified: 10,
        fragments: 1,
    });
    for port in [40_000, 40_001] {
        run.see(
            &RULES,
            0,
            3,
            &tcp_between(CLIENT, port, SERVER, 443, SYN),
            None,
        );
        run.see(
            &RULES,
            1,
            3,
            &tcp_between(SERVER, 443, CLIENT, port, SYN_ACK),
            None,
        );
        run.see(
            &RULES,
            2,
            3,
            &tcp_between(CLIENT, port, SERVER, 443, ACK),
            None,
        );
    }
    assert_eq!((run.table.verified().0, run.table.unverified().0), (1, 1));
    assert_eq!(run.table.promotions_failed(), 1);
}

#[test]
fn another_matrix_judges_known_flows_anew() {
    let mut run = Run::new(Limits::default());
    for (at, packet) in [(0, c(SYN)), (1, s(SYN_ACK)), (2, c(ACK))] {
        run.see(&RULES, at, 3, &packet, None);
    }
    run.table.begin_generation(1);
    run.see(&RULES, 3, 3, &c(ACK), None);
    assert_eq!(run.of_kind(EventKind::Rejudged).count(), 0);
    run.table.begin_generation(2);
    let moved = Rules { https: 9 };
    run.see(&moved, 4, 3, &c(ACK), None);
    assert_eq!(run.of_kind(EventKind::Rejudged).count(), 1);
    let flows = run.slot(9);
    assert_eq!(
        (flows.begun, flows.decided[Outcome::Answered as usize]),
        (1, 1)
    );
    assert_eq!(run.table.slot_traffic()[9].packets, [1, 0]);
    assert_eq!(run.table.verified().0, 1);
    // No longer expected: back among the unverified.
    run.table.begin_generation(3);
    let gone = Rules {
        https: UNEXPECTED_SLOT,
    };
    run.see(&gone, 5, 3, &c(ACK), None);
    assert_eq!((run.table.verified().0, run.table.unverified().0), (0, 1));
}

#[test]
fn flows_end_after_their_idle_limit() {
    let run = Run::play(&[At(0, ask(53)), At(5, tell(53)), Until(119_000)]);
    assert_eq!(run.table.flows().count(), 1);
    let run = Run::play(&[At(0, ask(53)), At(5, tell(53)), Until(120_300)]);
    assert_eq!(run.table.flows().count(), 0);
    // Undecided: counted as such.
    let run = Run::play(&[At(0, c(SYN)), Until(31_000)]);
    assert_eq!(run.slot(2).decided[Outcome::Pending as usize], 1);
    // Traffic keeps a flow alive, however long its timers run.
    let steps: Vec<_> = (0..100)
        .map(|n| At(n * 100_000, if n == 0 { ask(53) } else { tell(53) }))
        .collect();
    let run = Run::play(&steps);
    assert_eq!(run.of_kind(EventKind::Begun).count(), 1);
    assert_eq!(run.record().packets.iter().sum::<u64>(), 100);
    // A connection lives for a day of silence.
    let run = Run::play(&[
        At(0, c(SYN)),
        At(1, s(SYN_ACK)),
        At(2, c(ACK)),
        Until(86_390_000),
    ]);
    assert_eq!(run.table.flows().count(), 1);
    let run = Run::play(&[
        At(0, c(SYN)),
        At(1, s(SYN_ACK)),
        At(2, c(ACK)),
        Until(86_401_000),
    ]);
    assert_eq!(run.table.flows().count(), 0);
}

#[test]
fn decisions_come_within_a_quarter_of_a_second() {
    let mut run = Run::new(Limits::default());
    for port in 0..200_u16 {
        let at = u64::from(port) * 37;
        run.see(&RULES, at, 3, &udp(CLIENT, 20_000 + port, SERVER, 53), None);
    }
    for at in (200 * 37..15_000).step_by(50) {
        run.wait(at);
    }
    let mut late = 0;
    for (event, moments) in run
        .events
        .iter()
        .filter(|(event, _)| event.kind == EventKind::Decided as u8)
    {
        late = late.max(event.time - moments.first - DECIDE_AFTER);
    }
    assert_eq!(run.decisions().len(), 200);
    assert!(late <= 250 * MS, "{late}");
}

#[test]
fn packets_from_the_past_keep_their_times() {
    let mut run = Run::new(Limits::default());
    run.see(&RULES, 100, 3, &c(SYN), None);
    run.see(&RULES, 50, 3, &c(SYN), None);
    let flow = run.table.flows().next().unwrap();
    assert_eq!(
        flow.moments.span(),
        Span {
            first: START + 50 * MS,
            last: START + 100 * MS
        }
    );
}

mod held;

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn any_packet() -> impl Strategy<Value = Packet> {
        let flags = prop::sample::select(vec![SYN, SYN_ACK, ACK, FIN | ACK, RST, RST | ACK]);
        (0..6_u16, any::<bool>(), any::<bool>(), flags).prop_map(|(port, back, is_tcp, flags)| {
            let client = (CLIENT, 40_000 + port);
            let server = (SERVER, if is_tcp { 443 } else { 53 });
            let (from, to) = if back {
                (server, client)
            } else {
                (client, server)
            };
            if is_tcp {
                tcp_between(from.0, from.1, to.0, to.1, flags)
            } else {
                udp(from.0, from.1, to.0, to.1)
            }
        })
    }

    /// Milliseconds that pass: mostly moments, sometimes hours.
    fn any_pause() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..20_u64,
            100..5_000_u64,
            20_000..200_000_u64,
            Just(90_000_000)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Whatever comes: limits hold, every flow begins and ends once, and the counters tell the same as the events.
        #[test]
        fn tables_and_counters_agree(
            steps in prop::collection::vec((any_pause(), any_packet(), 1..3_u16, 1..3_u32), 1..120)
        ) {
            let mut run = Run::new(Limits { verified: 2, unverified: 3, fragments: 1 });
            let mut at = 0;
            let mut counted = 0;
            for (pause, packet, at_point, generation) in steps {
                at += pause;
                run.table.begin_generation(generation);
                if run.see(&RULES, at, at_point, &packet, None) == Treatment::Counted(Wanted::Nothing) {
                    counted += 1;
                }
                let (verified, unverified) = (run.table.verified(), run.table.unverified());
                prop_assert!(verified.0 <= 2 && unverified.0 <= 3);
                prop_assert_eq!(verified.0 + unverified.0, run.table.flows().count());
                let begun = run.of_kind(EventKind::Begun).count();
                let ended = run.of_kind(EventKind::Ended).count();
                prop_assert_eq!(begun - ended, run.table.flows().count());
            }
            let flows: SlotFlows = run.table.slot_flows().iter().fold(SlotFlows::default(), |mut sum, slot| {
                sum.begun += slot.begun;
                for (total, count) in sum.decided.iter_mut().zip(slot.decided) {
                    *total += count;
                }
                sum
            });
            prop_assert_eq!(flows.begun, run.of_kind(EventKind::Begun).count() as u64);
            let undecided = run
                .of_kind(EventKind::Ended)
                .filter(|event| event.record.state.outcome() == Outcome::Pending)
                .count();
            prop_assert_eq!(flows.decided[0], undecided as u64);
            prop_assert_eq!(flows.decided[1..].iter().sum::<u64>(), run.decisions().len() as u64);
            let packets: u64 = run.table.slot_traffic().iter().flat_map(|slot| slot.packets).sum();
            prop_assert_eq!(packets, counted);
            // Two days of silence end everything.
            run.wait(at + 172_800_000);
            prop_assert_eq!(run.table.flows().count(), 0);
        }

        /// Looking ahead at any number of packets, and passing those that can be passed, comes to the same as judging one
        /// after the other.
        #[test]
        fn looking_ahead_changes_nothing(
            steps in prop::collection::vec((any_pause(), any_packet(), 1..3_u16, 1..3_u32), 1..120),
            stride in 1..40_usize,
            flags in prop::sample::select(vec![0, Settings::WANTS_DNS]),
        ) {
            let limits = Limits { verified: 3, unverified: 4, fragments: 1 };
            let (mut plainly, mut ahead) = (Run::new(limits), Run::new(limits));
            plainly.table.want(flags);
            ahead.table.want(flags);
            let mut at = 0;
            for batch in steps.chunks(stride) {
                let plain: Vec<Plain> = batch.iter().map(|(_, packet, _, _)| {
                    let (key, sender) = FlowKey::of(packet);
                    Plain { key, sender, tcp_flags: packet.tcp_flags }
                }).collect();
                let mut prepared: Vec<Prepared> = plain.iter().map(|plain| ahead.table.prepare(&plain.key)).collect();
                for prepared in &mut prepared {
                    ahead.table.locate(prepared);
                }
                for (((pause, packet, at_point, generation), plain), prepared) in batch.iter().zip(&plain).zip(prepared) {
                    at += pause;
                    plainly.table.begin_generation(*generation);
                    ahead.table.begin_generation(*generation);
                    plainly.see(&RULES, at, *at_point, packet, None);
                    ahead.wait(at);
                    let sight = PlainSight { packet: plain, bytes: 100, point: *at_point, time: START + at * MS };
                    if !ahead.table.pass(prepared, &sight) {
                        ahead.see(&RULES, at, *at_point, packet, None);
                    }
                }
            }
            prop_assert_eq!(&plainly.events, &ahead.events);
            prop_assert_eq!(plainly.table.slot_traffic(), ahead.table.slot_traffic());
            prop_assert_eq!(plainly.table.slot_flows(), ahead.table.slot_flows());
            let flows = |run: &Run| -> Vec<_> {
                run.table.flows().map(|flow| (*flow.key, *flow.record, flow.moments)).collect()
            };
            prop_assert_eq!(flows(&plainly), flows(&ahead));
        }
    }

    /// Else the test above would hold of a table that passes nothing.
    #[test]
    fn packets_of_flows_at_rest_are_passed() {
        let hello = [At(0, c(SYN)), At(1, s(SYN_ACK)), At(2, c(ACK))];
        let mut run = Run::play(&hello);
        let mut pass = |packet: &Packet| {
            let (key, sender) = FlowKey::of(packet);
            let plain = Plain {
                key,
                sender,
                tcp_flags: packet.tcp_flags,
            };
            let mut prepared = run.table.prepare(&key);
            run.table.locate(&mut prepared);
            let sight = PlainSight {
                packet: &plain,
                bytes: 100,
                point: point(1, false),
                time: START + 3 * MS,
            };
            run.table.pass(prepared, &sight)
        };
        assert_eq!(
            [c(ACK), s(ACK), c(SYN), s(RST)].map(|packet| pass(&packet)),
            [true, true, false, false]
        );
        assert!(!pass(&udp(CLIENT, 40_000, SERVER, 443)));
    }
}
