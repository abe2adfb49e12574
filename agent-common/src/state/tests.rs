//! Outcomes of whole conversations, written as the packets that are seen.
//!
//! `S> SA< A>` is a handshake: flags, then who sent it (`>` the initiator). `!` before a packet says that
//! the flow was judged as joined midway. `u` is a packet of a protocol without flags, `3.13>` an ICMP error
//! about a packet of the initiator, `drop>` a drop of one of its packets, `4s` silence.

use std::vec::Vec;

use super::*;
use crate::packet::Packet;

const SECOND: u64 = 1_000_000_000;

fn flags(text: &str) -> u8 {
    text.bytes().fold(0, |flags, letter| {
        flags
            | match letter {
                b'S' => tcp::SYN,
                b'A' => tcp::ACK,
                b'F' => tcp::FIN,
                b'R' => tcp::RST,
                b'u' => 0,
                other => panic!("no flag {}", char::from(other)),
            }
    })
}

fn new(initiator: Side, joined_midway: bool, generation: u32) -> State {
    let judgement = Judgement {
        slot: crate::classify::FIRST_RULE_SLOT,
        initiator,
        joined_midway,
        to_group: false,
        held: false,
    };
    State::new(&judgement, generation)
}

struct Flow {
    protocol: u8,
    state: State,
    age: u64,
    idle: u64,
    decided: Vec<Outcome>,
}

impl Flow {
    fn step(&mut self, step: &str) {
        let before = self.state;
        if let Some(seconds) = step.strip_suffix('s') {
            let silence = seconds.parse::<u64>().unwrap() * SECOND;
            self.age += silence;
            self.idle += silence;
            let times = Times {
                since_first: self.age,
                since_last: self.idle,
            };
            self.state =
                before.after_silence(self.protocol, &times, self.protocol != protocol::UDP);
        } else {
            self.idle = 0;
            let (what, sender) = match step.strip_suffix('>') {
                Some(what) => (what, Side::A),
                None => (step.strip_suffix('<').unwrap(), Side::B),
            };
            self.state = if what == "drop" {
                before.after_drop(sender)
            } else if let Some((kind, code)) = what.split_once('.') {
                let error = Packet {
                    protocol: protocol::ICMP,
                    icmp_type: kind.parse().unwrap(),
                    icmp_code: code.parse().unwrap(),
                    ..Packet::default()
                };
                before.after_icmp_error(&error, sender)
            } else {
                let packet = Packet {
                    protocol: self.protocol,
                    tcp_flags: flags(what),
                    icmp_type: if self.protocol == protocol::ICMP {
                        8
                    } else {
                        0
                    },
                    ..Packet::default()
                };
                before.after(&packet, sender)
            };
        }
        self.decided.extend(self.state.decided_since(before));
    }
}

fn play(protocol: u8, conversation: &str) -> (Outcome, Vec<Outcome>) {
    let midway = conversation.starts_with('!');
    let mut flow = Flow {
        protocol,
        state: new(Side::A, midway, 7),
        age: 0,
        idle: 0,
        decided: Vec::new(),
    };
    for step in conversation.trim_start_matches('!').split_whitespace() {
        flow.step(step);
    }
    assert_eq!(flow.state.verdict(), Verdict::Expected);
    assert!(flow.state.is_of_generation(7));
    (flow.state.outcome(), flow.decided)
}

fn check(protocol: u8, conversation: &str, expect: Outcome, counted: &[Outcome]) {
    let (outcome, decided) = play(protocol, conversation);
    assert_eq!(outcome, expect, "{conversation}");
    assert_eq!(decided, counted, "{conversation}");
}

#[test]
fn tcp_outcomes() {
    use Outcome::{
        Answered, ClosedAfterAnswer, DroppedHere, NoAnswer, Pending, Prohibited, Refused,
        Unreachable,
    };
    for (conversation, expect, counted) in [
        ("S>", Pending, &[][..]),
        ("S> SA<", Pending, &[]),
        ("S> SA< A>", Answered, &[Answered]),
        ("S> SA< A> A< A>", Answered, &[Answered]),
        ("S> SA< A> FA> FA< A>", ClosedAfterAnswer, &[Answered]),
        ("S> SA< A> FA>", Answered, &[Answered]),
        // A RST that closes an answered connection is no refusal, from either side.
        ("S> SA< A> R<", ClosedAfterAnswer, &[Answered]),
        ("S> SA< A> RA>", ClosedAfterAnswer, &[Answered]),
        ("S> SA< A> FA> R<", ClosedAfterAnswer, &[Answered]),
        ("S> RA<", Refused, &[Refused]),
        ("S> SA< R<", Refused, &[Refused]),
        // The loser of a happy-eyeballs race is no block, wherever it is given up.
        ("S> R>", Pending, &[]),
        ("S> 4s", Pending, &[]),
        ("S> SA< R>", ClosedAfterAnswer, &[Answered]),
        // Silence is decided when the SYN was repeated, not before 3.2 s.
        ("S> 1s S> 2s", Pending, &[]),
        ("S> 1s S> 2s S> 1s", NoAnswer, &[NoAnswer]),
        // A SYN-ACK that never arrives: the return path is blocked beyond this vantage.
        ("S> SA< 1s S> SA< 3s", NoAnswer, &[NoAnswer]),
        // A late answer overturns the decision and counts as well.
        ("S> 1s S> 3s SA< A>", Answered, &[NoAnswer, Answered]),
        ("S> 3.3>", Refused, &[Refused]),
        ("S> 3.13>", Prohibited, &[Prohibited]),
        ("S> 3.1>", Unreachable, &[Unreachable]),
        ("S> 11.0>", Unreachable, &[Unreachable]),
        ("S> 3.4>", Pending, &[]),
        ("S> 3.13> 1s S> SA< A>", Answered, &[Prohibited, Answered]),
        // Errors after an answer, or about answers, are no failure.
        ("S> SA< A> 3.1>", Answered, &[Answered]),
        ("S> SA< 3.1<", Pending, &[]),
        ("drop>", DroppedHere, &[DroppedHere]),
        ("S> drop>", DroppedHere, &[DroppedHere]),
        ("S> SA< drop<", DroppedHere, &[DroppedHere]),
        ("S> SA< A> drop>", Answered, &[Answered]),
        // The refusal's own packet is dropped after the RST went out.
        ("S> RA< drop>", Refused, &[Refused]),
        // On loopback before: the same refusal, told twice.
        ("S> drop> RA<", DroppedHere, &[DroppedHere]),
        ("S> 3.13> RA<", Prohibited, &[Prohibited]),
        ("S> S> 4s RA<", Refused, &[NoAnswer, Refused]),
        // Open before the capture: answered once both sides were heard; never blocked.
        ("!A>", Pending, &[]),
        ("!A> A<", Answered, &[Answered]),
        ("!A< A>", Answered, &[Answered]),
        ("!A> 4s", Pending, &[]),
        ("!A> A< FA> FA<", ClosedAfterAnswer, &[Answered]),
        ("!SA< A>", Answered, &[Answered]),
        ("!R<", Pending, &[]),
    ] {
        check(protocol::TCP, conversation, expect, counted);
    }
}

#[test]
fn other_outcomes() {
    use Outcome::{Answered, NoAnswer, OneWay, Pending, Refused};
    for (protocol, conversation, expect, counted) in [
        (protocol::UDP, "u>", Pending, &[][..]),
        (protocol::UDP, "u> u<", Answered, &[Answered]),
        (protocol::UDP, "u> 4s", OneWay, &[OneWay]),
        (protocol::UDP, "u> 4s u<", Answered, &[OneWay, Answered]),
        (protocol::UDP, "u> 3.3>", Refused, &[Refused]),
        (protocol::UDP, "u> 4s 3.3>", Refused, &[OneWay, Refused]),
        // The client closed its socket before the answer came.
        (protocol::UDP, "u> u< 3.3<", Answered, &[Answered]),
        (protocol::ICMP, "u> u<", Answered, &[Answered]),
        (protocol::ICMP, "u> 4s", NoAnswer, &[NoAnswer]),
        (protocol::VRRP, "u>", OneWay, &[OneWay]),
        (47, "u> u<", Answered, &[Answered]),
    ] {
        check(protocol, conversation, expect, counted);
    }
}

#[test]
fn a_syn_after_the_end_begins_a_new_flow() {
    let syn = Packet {
        protocol: protocol::TCP,
        tcp_flags: tcp::SYN,
        ..Packet::default()
    };
    for (conversation, restarts) in [
        ("S>", false),
        ("S> SA< A>", false),
        ("S> SA< A> FA> FA<", true),
        ("S> RA<", true),
        ("S> R>", true),
        ("S> 1s S> 3s", false),
    ] {
        let mut flow = Flow {
            protocol: protocol::TCP,
            state: new(Side::A, false, 0),
            age: 0,
            idle: 0,
            decided: Vec::new(),
        };
        conversation
            .split_whitespace()
            .for_each(|step| flow.step(step));
        assert_eq!(flow.state.is_restarted_by(&syn), restarts, "{conversation}");
    }
}

#[test]
fn a_new_matrix_changes_the_verdict_and_nothing_else() {
    let (outcome, _) = play(protocol::TCP, "S> SA< A>");
    let state = new(Side::B, true, 7).with_outcome(outcome);
    let rejudged = state.rejudged(Verdict::Unexpected, 0x1_08);
    assert_eq!(rejudged.verdict(), Verdict::Unexpected);
    assert!(rejudged.is_of_generation(8));
    assert_eq!(rejudged.outcome(), outcome);
    assert_eq!(rejudged.initiator(), Side::B);
    assert!(rejudged.joined_midway());
}

#[test]
fn a_flow_that_was_counted_before_it_is_held_is_not_counted_again() {
    let fresh = new(Side::A, false, 1);
    assert!(!fresh.is_held() && !fresh.is_uncounted());
    let again = fresh.held(Verdict::Unexpected);
    assert!(again.is_held() && !again.is_uncounted());
    assert!(
        !again
            .rejudged(Verdict::Expected, 2)
            .held(Verdict::Expected)
            .is_uncounted()
    );
    let judgement = Judgement {
        slot: crate::classify::UNEXPECTED_SLOT,
        initiator: Side::A,
        joined_midway: false,
        to_group: false,
        held: true,
    };
    let waiting = State::new(&judgement, 1);
    assert!(waiting.is_uncounted());
    assert!(waiting.held(Verdict::Expected).is_uncounted());
    let named = waiting.named(Verdict::Expected);
    assert!(named.is_named() && !named.is_held());
    assert!(!named.held(Verdict::Unexpected).is_uncounted());
    assert!(!named.held(Verdict::Unexpected).is_named());
    let given_up = waiting.released(Verdict::Unscoped);
    assert_eq!(given_up.verdict(), Verdict::Unscoped);
    assert!(!given_up.is_held() && !given_up.is_named());
}

#[test]
fn an_answered_conversation_is_at_rest() {
    let check = |protocol, steps: &[&str], expect| {
        let mut flow = Flow {
            protocol,
            state: new(Side::A, false, 7),
            age: 0,
            idle: 0,
            decided: Vec::new(),
        };
        steps.iter().for_each(|step| flow.step(step));
        let flags = if protocol == protocol::TCP {
            tcp::ACK
        } else {
            0
        };
        assert_eq!(
            flow.state.is_at_rest(protocol, flags, true, 7),
            expect,
            "{steps:?}"
        );
    };
    check(protocol::TCP, &["S>", "SA<"], false);
    check(protocol::TCP, &["S>", "SA<", "A>"], true);
    check(protocol::TCP, &["S>", "SA<", "A>", "FA>"], true);
    check(protocol::TCP, &["S>", "SA<", "A>", "FA>", "FA<"], true);
    check(protocol::TCP, &["A>"], true);
    check(protocol::TCP, &["A<"], false);
    check(protocol::UDP, &["u>"], true);
    check(protocol::UDP, &["u<"], false);
    check(protocol::UDP, &["u>", "u<"], true);
}

mod properties {
    use super::*;

    proptest::proptest! {
        /// Whatever comes, a flow is decided at most as often as its outcome can be overturned, an answer is
        /// never taken back, and only a packet of the responder answers.
        #[test]
        fn no_sequence_takes_an_answer_back(steps in proptest::collection::vec(0_usize..14, 0..24)) {
            const STEPS: [&str; 14] = [
                "S>", "S<", "SA>", "SA<", "A>", "A<", "FA>", "FA<", "R>", "R<", "3.13>", "3.3<", "4s", "drop>",
            ];
            let mut flow = Flow {
                protocol: protocol::TCP,
                state: new(Side::A, false, 0),
                age: 0,
                idle: 0,
                decided: Vec::new(),
            };
            let mut answered = false;
            for step in steps {
                flow.step(STEPS[step]);
                proptest::prop_assert!(!answered || flow.state.outcome().is_answer());
                answered |= flow.state.outcome().is_answer();
            }
            let answers = flow.decided.iter().filter(|outcome| **outcome == Outcome::Answered).count();
            proptest::prop_assert!(answers <= 1);
        }

        /// A plain packet of a flow at rest leaves everything as it is, whatever the word says: the hot path rests on it.
        #[test]
        fn nothing_happens_to_a_flow_at_rest(bits in 0_u32.., rest in 0..4_u8, held: bool, flags: u8, udp: bool, from_a: bool, port: u16, packets: [u64; 2]) {
            // Most words are far from rest; these are near it.
            let bits = match rest {
                0 => bits,
                1 => bits & !0xff | HEARD_INITIATOR | HEARD_RESPONDER | Outcome::Answered as u32,
                2 => bits & !0xff | HEARD_INITIATOR | HEARD_RESPONDER | Outcome::Answered as u32
                    | (Phase::Established as u32) << PHASE,
                _ => bits & !(0xf << PHASE) | (Phase::Midway as u32) << PHASE,
            };
            let bits = if held { bits } else { bits & !HELD };
            let state = State(bits);
            let packet = Packet {
                protocol: if udp { protocol::UDP } else { protocol::TCP },
                tcp_flags: if udp { 0 } else { flags },
                source_port: port,
                ..Packet::default()
            };
            let generation = bits >> GENERATION;
            let sender = if from_a { Side::A } else { Side::B };
            let from_initiator = sender == state.initiator();
            let at_rest = |generation| state.is_at_rest(packet.protocol, packet.tcp_flags, from_initiator, generation);
            if at_rest(generation) {
                proptest::prop_assert_eq!(state.after(&packet, sender), state);
                proptest::prop_assert!(!state.is_restarted_by(&packet));
                proptest::prop_assert!(state.is_of_generation(generation));
                proptest::prop_assert!(!state.is_uncounted());
                let wanted = crate::payload::wanted(u32::MAX, &packet, state, sender, &packets);
                proptest::prop_assert!(
                    wanted == crate::payload::Wanted::Nothing || port == crate::payload::DNS_PORT
                );
                proptest::prop_assert!(!at_rest(generation ^ 1));
            }
        }

        /// Waiting for a name, being named and reloads change nothing of what happened to the flow.
        #[test]
        fn names_disturb_nothing_else(bits in 0_u32.., steps in proptest::collection::vec((0..4_u8, 0..3_usize, 0_u32..), 0..12)) {
            const OTHERS: u32 = !(HELD | NAMED | COUNTED | 3 << VERDICT | 0xff << GENERATION);
            let mut state = State(bits);
            for (step, verdict, generation) in steps {
                let verdict = Verdict::ALL[verdict];
                state = match step {
                    0 => state.held(verdict),
                    1 => state.named(verdict),
                    2 => state.released(verdict),
                    _ => state.rejudged(verdict, generation),
                };
                proptest::prop_assert_eq!(state.0 & OTHERS, bits & OTHERS);
                proptest::prop_assert_eq!(state.verdict(), verdict);
                proptest::prop_assert!(step != 0 || state.is_held() && !state.is_named());
                proptest::prop_assert!(step != 1 || !state.is_held() && state.is_named());
                proptest::prop_assert!(step != 2 || !state.is_held());
                proptest::prop_assert!(step != 3 || state.is_of_generation(generation));
            }
        }
    }
}
