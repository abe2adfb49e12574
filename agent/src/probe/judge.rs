//! What the end of a probe means, in the terms of flows: outcome, place, and what it rests on.

use std::net::IpAddr;

use flowproof_common::address::Address;
use flowproof_common::packet::Packet;
use flowproof_common::protocol;
use flowproof_common::state::{Outcome, icmp_error_outcome};
use nix::errno::Errno;

use super::Probe;
use super::question::{Question, UdpQuestion};
use crate::flow::notes::IcmpError;
use crate::matrix::Service;
use crate::verdict::requirement::Place;

/// What the sockets told at the end of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The TCP handshake was completed, and no more was asked.
    Connected,
    /// The TCP handshake was completed, and then a ClientHello sent.
    Hello(AfterHello),
    /// An answer to the question, in words.
    Answer(String),
    /// An ICMP error about what was sent.
    Icmp(IcmpError),
    /// A RST to the SYN.
    Reset,
    /// The kernel of this host refused to send, or had nowhere to.
    Here(Errno),
    /// Nothing until the time was over, after so many packets with a question; of TCP, the kernel repeats SYNs itself.
    Silence {
        /// Questions sent; 0 for TCP.
        sent: u32,
        /// Datagrams from the peer that were no answer.
        strange: u32,
    },
    /// It could not be tried, and why.
    NotTried(String),
}

/// What came after a ClientHello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterHello {
    /// The peer spoke: TLS or not, in words.
    Spoke(Vec<String>),
    /// A RST before any byte.
    Reset,
    /// The end of the connection before any byte.
    Closed,
    /// Nothing.
    Silence,
    /// An ICMP error.
    Icmp(IcmpError),
}

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What became of it.
    pub outcome: Outcome,
    /// What it counts as for the row; see [`judge`].
    pub counts_as: Outcome,
    /// Where it failed, if it did.
    pub place: Option<Place>,
    /// Whether an ICMP error says so.
    pub told: bool,
    /// What it rests on.
    pub evidence: Vec<String>,
}

/// Judges the end of a probe; `own` are the addresses of this host.
///
/// A probe counts for its row as what became of it, but for one case: a port that was picked out of a range and is
/// refused there shows that packets arrive where nobody listens just now. No row promises a listener on each port of a
/// range, so that it proves nothing against the row, and counts as undecided.
#[must_use]
pub fn judge(probe: &Probe, service: Service, own: &[IpAddr], heard: &Heard) -> Judged {
    let mut judged = told(probe, heard);
    judged.place = Place::of(
        judged.outcome,
        &probe.target.address().into(),
        hop(heard).as_ref(),
    );
    if let Some(Place::Hop(hop)) = judged.place
        && own.iter().any(|own| Address::from(*own) == hop)
    {
        let (place, words) = if is_neighbour_silent(heard) {
            (
                Place::Path,
                "nobody has the address on this host's link: no answer to ARP or neighbour discovery",
            )
        } else {
            (Place::ThisHost, "this host's own filter or routes say so")
        };
        judged.place = Some(place);
        judged.evidence.push(words.to_owned());
    }
    if matches!(heard, Heard::Here(_)) && judged.place.is_some() {
        judged.place = Some(Place::ThisHost);
    }
    judged.counts_as = judged.outcome;
    if judged.outcome == Outcome::Refused
        && service.first() != service.last()
        && matches!(heard, Heard::Reset | Heard::Icmp(_))
    {
        judged.counts_as = Outcome::Pending;
        judged.evidence.push(
            "nobody listens on this port of the range just now, which no row promises".to_owned(),
        );
    }
    judged
}

const fn hop(heard: &Heard) -> Option<Address> {
    match heard {
        Heard::Icmp(error) | Heard::Hello(AfterHello::Icmp(error)) => Some(error.hop),
        Heard::Connected
        | Heard::Hello(
            AfterHello::Spoke(_) | AfterHello::Reset | AfterHello::Closed | AfterHello::Silence,
        )
        | Heard::Answer(_)
        | Heard::Reset
        | Heard::Here(_)
        | Heard::Silence { .. }
        | Heard::NotTried(_) => None,
    }
}

/// Whether this is the error that a host sends itself when a neighbour does not answer: host unreachable (RFC 1122, section
/// 3.3.2.4), address unreachable (RFC 4861, section 7.2.2).
const fn is_neighbour_silent(heard: &Heard) -> bool {
    match heard {
        Heard::Icmp(error) | Heard::Hello(AfterHello::Icmp(error)) => matches!(
            (error.hop.is_v4(), error.icmp_type, error.icmp_code),
            (true, 3, 1) | (false, 1, 3)
        ),
        Heard::Connected
        | Heard::Hello(
            AfterHello::Spoke(_) | AfterHello::Reset | AfterHello::Closed | AfterHello::Silence,
        )
        | Heard::Answer(_)
        | Heard::Reset
        | Heard::Here(_)
        | Heard::Silence { .. }
        | Heard::NotTried(_) => false,
    }
}

/// Outcome and evidence.
fn told(probe: &Probe, heard: &Heard) -> Judged {
    let plain = |outcome, evidence: Vec<String>| Judged {
        outcome,
        counts_as: outcome,
        place: None,
        told: false,
        evidence,
    };
    match heard {
        Heard::Connected => plain(Outcome::Answered, vec!["handshake completed".to_owned()]),
        Heard::Hello(after) => after_hello(probe, after),
        Heard::Answer(words) => plain(Outcome::Answered, vec![words.clone()]),
        Heard::Icmp(error) => Judged {
            told: true,
            ..plain(
                icmp_outcome(error).unwrap_or(Outcome::Pending),
                vec![icmp_words(error)],
            )
        },
        Heard::Reset => plain(Outcome::Refused, vec!["answered by RST".to_owned()]),
        Heard::Here(errno) => here(*errno),
        Heard::Silence { sent, strange } => {
            let (outcome, mut evidence) = silence(probe.question, *sent);
            if *strange > 0 {
                evidence.push(format!(
                    "{strange} datagrams came from the peer that are no answer to it"
                ));
            }
            plain(outcome, evidence)
        }
        Heard::NotTried(reason) => plain(Outcome::Pending, vec![format!("not tried: {reason}")]),
    }
}

/// What the kernel of this host says when it can't or won't send.
fn here(errno: Errno) -> Judged {
    let (outcome, evidence) = if errno == Errno::EPERM || errno == Errno::EACCES {
        (
            Outcome::DroppedHere,
            "this host's own filter does not let it out (EPERM)".to_owned(),
        )
    } else if [Errno::ENETUNREACH, Errno::EHOSTUNREACH].contains(&errno) {
        (
            Outcome::Unreachable,
            format!("this host has no route to it ({errno:?})"),
        )
    } else {
        (Outcome::Pending, format!("not tried: {errno}"))
    };
    Judged {
        outcome,
        counts_as: outcome,
        place: None,
        told: outcome == Outcome::Unreachable,
        evidence: vec![evidence],
    }
}

fn silence(question: Question, sent: u32) -> (Outcome, Vec<String>) {
    match question {
        Question::TcpConnect | Question::TlsHandshake => (
            Outcome::NoAnswer,
            vec!["SYN and its repetitions, no answer".to_owned()],
        ),
        Question::Echo => (
            Outcome::NoAnswer,
            vec![format!("{sent} echo requests, no answer")],
        ),
        Question::Udp(asked) => {
            let what = match asked {
                UdpQuestion::Datagram => "empty datagrams",
                UdpQuestion::Dns
                | UdpQuestion::Ntp
                | UdpQuestion::Kerberos
                | UdpQuestion::Stun
                | UdpQuestion::Radius
                | UdpQuestion::SqlBrowser
                | UdpQuestion::Quic => "questions",
            };
            let mut evidence = vec![format!("{sent} {what}, no answer and no error")];
            let outcome = match asked.excuse() {
                Some(excuse) => {
                    evidence.push(excuse.to_owned());
                    Outcome::OneWay
                }
                None => Outcome::NoAnswer,
            };
            (outcome, evidence)
        }
    }
}

/// A TCP handshake says that packets pass; what happens at the first bytes says whether those pass that name a peer.
fn after_hello(probe: &Probe, after: &AfterHello) -> Judged {
    let handshake = "TCP handshake completed".to_owned();
    let judged = |outcome, evidence| Judged {
        outcome,
        counts_as: outcome,
        place: None,
        told: false,
        evidence,
    };
    let (outcome, what) = match after {
        AfterHello::Spoke(words) => {
            let mut evidence = vec![handshake];
            evidence.extend(words.iter().cloned());
            return judged(Outcome::Answered, evidence);
        }
        AfterHello::Icmp(error) => {
            return Judged {
                told: true,
                ..judged(
                    icmp_outcome(error).unwrap_or(Outcome::Pending),
                    vec![
                        handshake,
                        format!("after the ClientHello: {}", icmp_words(error)),
                    ],
                )
            };
        }
        AfterHello::Reset => (Outcome::Refused, "RST"),
        AfterHello::Closed => (Outcome::Refused, "end of the connection"),
        AfterHello::Silence => (Outcome::NoAnswer, "silence"),
    };
    match &probe.name {
        Some(name) => judged(
            outcome,
            vec![
                handshake,
                format!(
                    "{what} after the ClientHello for {name}: something between here and the peer reads names, or the peer knows none like it"
                ),
            ],
        ),
        // Servers that serve by name have nothing to say to who names none.
        None => judged(
            Outcome::Answered,
            vec![
                handshake,
                format!("{what} after a ClientHello without a name, which proves nothing"),
            ],
        ),
    }
}

/// What an ICMP error says; nothing if it does not say that the packet was stopped for good.
#[must_use]
pub fn icmp_outcome(error: &IcmpError) -> Option<Outcome> {
    icmp_error_outcome(&Packet {
        protocol: if error.hop.is_v4() {
            protocol::ICMP
        } else {
            protocol::ICMPV6
        },
        icmp_type: error.icmp_type,
        icmp_code: error.icmp_code,
        ..Packet::default()
    })
}

fn icmp_words(error: &IcmpError) -> String {
    let family = if error.hop.is_v4() { "ICMP" } else { "ICMPv6" };
    format!(
        "{family} {}/{} from {}",
        error.icmp_type, error.icmp_code, error.hop
    )
}

#[cfg(test)]
mod tests {
    use super::super::bounds::{Bounds, tests::ROLE};
    use super::*;
    use crate::matrix::Binding;
    use crate::matrix::compiled::Compiled;

    const TARGET: &str = "10.1.0.10";

    fn probe(question: Question, name: Option<&str>) -> Probe {
        let bounds = Bounds::of(&Compiled {
            bindings: vec![(ROLE, vec![Binding::parse(TARGET).unwrap().binding])],
            ..Compiled::empty()
        });
        Probe {
            row: 0,
            service: 0,
            source: "10.20.0.2".parse().unwrap(),
            target: bounds.check(ROLE, TARGET.parse().unwrap(), None).unwrap(),
            name: name.map(Into::into),
            port: Some(443),
            question,
        }
    }

    fn icmp(hop: &str, icmp_type: u8, icmp_code: u8) -> Heard {
        Heard::Icmp(IcmpError {
            hop: hop.parse::<IpAddr>().unwrap().into(),
            icmp_type,
            icmp_code,
        })
    }

    const UDP: Question = Question::Udp(UdpQuestion::Datagram);
    const TCP: Question = Question::TcpConnect;

    #[track_caller]
    fn check(question: Question, heard: Heard, expect: (Outcome, Option<&str>, bool)) {
        let own = ["10.20.0.2".parse().unwrap()];
        let single = "tcp/443".parse().unwrap();
        let judged = judge(&probe(question, None), single, &own, &heard);
        let place = judged.place.map(|place| place.to_string());
        assert_eq!(
            (judged.outcome, place.as_deref(), judged.told),
            expect,
            "{heard:?}: {judged:?}"
        );
        assert_eq!(judged.counts_as, judged.outcome);
        assert!(!judged.evidence.is_empty());
    }

    #[test]
    fn ends_are_told_in_the_terms_of_flows() {
        use Outcome::{
            Answered, DroppedHere, NoAnswer, OneWay, Pending, Prohibited, Refused, Unreachable,
        };
        let silence = |sent| Heard::Silence { sent, strange: 0 };
        check(TCP, Heard::Connected, (Answered, None, false));
        check(TCP, Heard::Reset, (Refused, Some("peer"), false));
        check(TCP, silence(0), (NoAnswer, Some("path"), false));
        check(
            TCP,
            icmp("10.20.0.1", 3, 13),
            (Prohibited, Some("hop 10.20.0.1"), true),
        );
        check(
            TCP,
            icmp("10.20.0.1", 3, 1),
            (Unreachable, Some("hop 10.20.0.1"), true),
        );
        check(TCP, icmp(TARGET, 3, 13), (Prohibited, Some("peer"), true));
        check(UDP, icmp(TARGET, 3, 3), (Refused, Some("peer"), true));
        check(
            UDP,
            icmp("fd00::1", 1, 1),
            (Prohibited, Some("hop fd00::1"), true),
        );
        // A neighbour that does not answer, and this host's own filter.
        let own = |icmp_code| icmp("10.20.0.2", 3, icmp_code);
        check(TCP, own(1), (Unreachable, Some("path"), true));
        check(TCP, own(13), (Prohibited, Some("this_host"), true));
        check(
            UDP,
            Heard::Here(Errno::EPERM),
            (DroppedHere, Some("this_host"), false),
        );
        check(
            TCP,
            Heard::Here(Errno::ENETUNREACH),
            (Unreachable, Some("this_host"), true),
        );
        check(
            TCP,
            Heard::Here(Errno::EADDRNOTAVAIL),
            (Pending, None, false),
        );
        check(UDP, silence(3), (OneWay, None, false));
        check(
            Question::Udp(UdpQuestion::Radius),
            silence(3),
            (OneWay, None, false),
        );
        check(
            Question::Udp(UdpQuestion::Dns),
            silence(3),
            (NoAnswer, Some("path"), false),
        );
        check(Question::Echo, silence(3), (NoAnswer, Some("path"), false));
        check(UDP, Heard::Answer("x".to_owned()), (Answered, None, false));
    }

    #[test]
    fn a_client_hello_with_a_name_is_evidence_and_one_without_is_none() {
        let service = "tcp/443".parse().unwrap();
        for (after, named, word) in [
            (AfterHello::Reset, Outcome::Refused, "RST"),
            (
                AfterHello::Closed,
                Outcome::Refused,
                "end of the connection",
            ),
            (AfterHello::Silence, Outcome::NoAnswer, "silence"),
        ] {
            let heard = Heard::Hello(after);
            let with = probe(Question::TlsHandshake, Some("www.example.org"));
            let judged = judge(&with, service, &[], &heard);
            assert_eq!(judged.outcome, named);
            let text = judged.evidence.join("; ");
            let words = format!(
                "{word} after the ClientHello for www.example.org: something between here and the peer reads names"
            );
            assert!(text.contains(&words), "{text}");
            let without = probe(Question::TlsHandshake, None);
            assert_eq!(
                judge(&without, service, &[], &heard).outcome,
                Outcome::Answered
            );
        }
    }

    #[test]
    fn a_refused_port_of_a_range_proves_nothing_against_the_row() {
        let probe = probe(TCP, None);
        let range = "tcp/49152-65535".parse().unwrap();
        let judged = judge(&probe, range, &[], &Heard::Reset);
        assert_eq!(
            (judged.outcome, judged.counts_as),
            (Outcome::Refused, Outcome::Pending)
        );
        let silence = Heard::Silence {
            sent: 0,
            strange: 0,
        };
        assert_eq!(
            judge(&probe, range, &[], &silence).counts_as,
            Outcome::NoAnswer
        );
        let prohibited = icmp("10.20.0.1", 3, 13);
        assert_eq!(
            judge(&probe, range, &[], &prohibited).counts_as,
            Outcome::Prohibited
        );
    }
}
