//! The state of a requirement and of each of its services, from the flows that were seen for it.
//!
//! How a service's state comes about, first match first:
//!
//! 1. It was answered, and its last answer is no older than its last failure: `verified`.
//! 2. It was answered, and failed since: `degraded`.
//! 3. It failed and was never answered: `blocked`.
//! 4. It was attempted and nothing was decided: `unknown`. It is not silent, for something was sent; it is not blocked,
//!    for an answer was not due yet, or none is owed (`one_way`: syslog over UDP says nothing, whether it arrives or not).
//! 5. Nothing was sent: `unobservable` if this vantage can't see it, `unknown` if packets were lost, else `silent`.
//!
//! What is sent to a group or by VRRP is never answered by nature, so that sending without an error counts as an answer.
//!
//! A requirement takes the worst state of its attempted services: `blocked`, `degraded`, `unknown`, `verified`. Services
//! that were not attempted don't count as long as another was: who uses a product over 443 need not use 80. If none was,
//! it is `unknown` if any is, then `silent`, then `unobservable`.

use std::fmt;
use std::net::IpAddr;

use flowproof_common::address::Address;
use flowproof_common::state::Outcome;

/// What is known of a requirement or of one of its services.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// Answered, and no failure since.
    Verified,
    /// Answered, and failed since.
    Degraded,
    /// Attempted, never answered.
    Blocked,
    /// Could be seen from here, and was never attempted.
    Silent,
    /// Can't be seen from here.
    Unobservable,
    /// Could be seen, but packets were lost; or attempted without a decision.
    Unknown,
}

impl State {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 6] = [
        Self::Verified,
        Self::Degraded,
        Self::Blocked,
        Self::Silent,
        Self::Unobservable,
        Self::Unknown,
    ];

    /// The state of a name that [`Self::name`] gave.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The name in JSON and in labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Degraded => "degraded",
            Self::Blocked => "blocked",
            Self::Silent => "silent",
            Self::Unobservable => "unobservable",
            Self::Unknown => "unknown",
        }
    }
}

/// Where a flow was stopped, as far as can be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The kernel of the host that captures.
    ThisHost,
    /// Whoever sent the ICMP error and is not the peer.
    Hop(Address),
    /// The peer, or somebody who answers in its name.
    Peer,
    /// Silence between here and the peer; it proves no middlebox.
    Path,
}

impl Place {
    /// Where a flow to `responder` failed with `outcome`; `hop` sent the ICMP error, if one came. Nothing for outcomes
    /// that are no failure.
    #[must_use]
    pub fn of(outcome: Outcome, responder: &Address, hop: Option<&Address>) -> Option<Self> {
        if !outcome.is_failure() {
            return None;
        }
        Some(match (outcome, hop) {
            (Outcome::DroppedHere, _) => Self::ThisHost,
            (Outcome::NoAnswer, _) => Self::Path,
            (_, Some(hop)) if hop != responder => Self::Hop(*hop),
            // A RST, or an ICMP error from the peer itself.
            (_, _) => Self::Peer,
        })
    }

    /// The place of a text that its `Display` gave.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        match text {
            "this_host" => Some(Self::ThisHost),
            "peer" => Some(Self::Peer),
            "path" => Some(Self::Path),
            hop => {
                let address: IpAddr = hop.strip_prefix("hop ")?.parse().ok()?;
                Some(Self::Hop(address.into()))
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThisHost => f.write_str("this_host"),
            Self::Hop(address) => write!(f, "hop {address}"),
            Self::Peer => f.write_str("peer"),
            Self::Path => f.write_str("path"),
        }
    }
}

/// How far a conclusion may be trusted: cause and place of a failure, or the name of a flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Confidence {
    /// A single silence: the peer may just be down. Of a name: other clients were told it, several are possible, or the
    /// ClientHello was encrypted.
    Low,
    /// Silence more than once, or a RST, which firewalls send in the peer's name too. Of a name: one source says so and
    /// nothing speaks against it.
    Medium,
    /// Somebody said so: an ICMP error, or the kernel of this host. Of a name: the initiator wrote it itself and DNS
    /// agrees.
    High,
}

impl Confidence {
    /// The name in JSON and in evidence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// One flow of a service.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// What became of it.
    pub outcome: Outcome,
    /// When that was decided, nanoseconds of any clock; unused while it is pending.
    pub decided: u64,
    /// Times of its first and last packet.
    pub first_seen: u64,
    /// See `first_seen`.
    pub last_seen: u64,
    /// Where it failed, if it did.
    pub place: Option<Place>,
    /// Whether an ICMP error decided it.
    pub told: bool,
    /// Whether an answer can come at all: not from a group, nor to VRRP.
    pub answerable: bool,
}

/// A flow that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// When that was decided, nanoseconds of the clock that answers are timed by.
    pub at: u64,
    /// How.
    pub outcome: Outcome,
    /// Where, if it can be told.
    pub place: Option<Place>,
    /// Whether an ICMP error decided it.
    pub told: bool,
}

/// All that was seen of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Observation {
    /// Flows begun.
    pub flows: u64,
    /// Flows answered, or sent without error where no answer can come.
    pub answered: u64,
    /// Flows that failed.
    pub failed: u64,
    /// Flows sent without an error and without an answer.
    pub one_way: u64,
    /// First packet of any flow.
    pub first_seen: Option<u64>,
    /// Last packet of any flow.
    pub last_seen: Option<u64>,
    last_answer: Option<u64>,
    last_failure: Option<Failure>,
}

impl Observation {
    /// From totals that were counted elsewhere: flows begun, answered, failed, and sent one way without an error; when
    /// the last answer came, and the last failure.
    #[must_use]
    pub const fn of_totals(
        [flows, answered, failed, one_way]: [u64; 4],
        last_answer: Option<u64>,
        last_failure: Option<Failure>,
    ) -> Self {
        Self {
            flows,
            answered,
            failed,
            one_way,
            first_seen: None,
            last_seen: None,
            last_answer,
            last_failure,
        }
    }

    /// Adds a flow, in any order.
    pub fn add(&mut self, attempt: &Attempt) {
        self.flows += 1;
        self.first_seen = Some(
            self.first_seen
                .map_or(attempt.first_seen, |first| first.min(attempt.first_seen)),
        );
        self.last_seen = self.last_seen.max(Some(attempt.last_seen));
        let worked = match attempt.outcome {
            Outcome::Answered | Outcome::ClosedAfterAnswer => true,
            // Some services that owe an answer are also called by directed broadcast, where none comes.
            Outcome::OneWay | Outcome::NoAnswer => !attempt.answerable,
            Outcome::Pending
            | Outcome::Refused
            | Outcome::Prohibited
            | Outcome::Unreachable
            | Outcome::DroppedHere => false,
        };
        if worked {
            self.answered += 1;
            self.last_answer = self.last_answer.max(Some(attempt.decided));
        } else if attempt.outcome.is_failure() {
            self.failed += 1;
            if self
                .last_failure
                .is_none_or(|failure| failure.at <= attempt.decided)
            {
                self.last_failure = Some(Failure {
                    at: attempt.decided,
                    outcome: attempt.outcome,
                    place: attempt.place,
                    told: attempt.told,
                });
            }
        } else if attempt.outcome == Outcome::OneWay {
            self.one_way += 1;
        }
    }

    /// Adds what was seen of other flows.
    pub fn merge(&mut self, other: &Self) {
        self.flows += other.flows;
        self.answered += other.answered;
        self.failed += other.failed;
        self.one_way += other.one_way;
        self.first_seen = match (self.first_seen, other.first_seen) {
            (Some(own), Some(others)) => Some(own.min(others)),
            (own, others) => own.or(others),
        };
        self.last_seen = self.last_seen.max(other.last_seen);
        self.last_answer = self.last_answer.max(other.last_answer);
        if let Some(others) = other.last_failure
            && self.last_failure.is_none_or(|own| own.at <= others.at)
        {
            self.last_failure = Some(others);
        }
    }

    /// The state of the service, seen from `vantage`.
    #[must_use]
    pub fn finding(&self, vantage: Vantage) -> Finding {
        let plain = |state, cause| Finding {
            state,
            cause,
            place: None,
            confidence: None,
            attempted: self.flows > 0,
        };
        match (self.last_answer, self.last_failure) {
            (Some(answer), Some(failure)) if failure.at > answer => {
                self.failure(State::Degraded, &failure)
            }
            (Some(_), _) => plain(State::Verified, None),
            (None, Some(failure)) => self.failure(State::Blocked, &failure),
            (None, None) if self.one_way > 0 => {
                plain(State::Unknown, Some(Cause::Flow(Outcome::OneWay)))
            }
            (None, None) if self.flows > 0 => {
                plain(State::Unknown, Some(Cause::Flow(Outcome::Pending)))
            }
            (None, None) => match vantage {
                Vantage::Clear | Vantage::Unresolved(Resolution::Resolved) => {
                    plain(State::Silent, None)
                }
                Vantage::Unresolved(why) => plain(State::Silent, Some(Cause::Name(why))),
                Vantage::Lossy => plain(State::Unknown, Some(Cause::Loss)),
                Vantage::Blind(why) => plain(State::Unobservable, Some(Cause::Blind(why))),
            },
        }
    }

    fn failure(&self, state: State, failure: &Failure) -> Finding {
        let confidence = if failure.told || failure.outcome == Outcome::DroppedHere {
            Confidence::High
        } else if failure.outcome == Outcome::Refused || self.failed > 1 {
            Confidence::Medium
        } else {
            Confidence::Low
        };
        Finding {
            state,
            cause: Some(Cause::Flow(failure.outcome)),
            place: failure.place,
            confidence: Some(confidence),
            attempted: true,
        }
    }
}

/// What this vantage could have seen of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vantage {
    /// All of it.
    Clear,
    /// Some of it may have been missed.
    Lossy,
    /// All of it, but nobody can know where to go.
    Unresolved(Resolution),
    /// Nothing.
    Blind(Blind),
}

impl Vantage {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Clear,
        Self::Lossy,
        Self::Unresolved(Resolution::Never),
        Self::Unresolved(Resolution::Failing),
        Self::Unresolved(Resolution::Resolved),
        Self::Blind(Blind::NotBound),
        Self::Blind(Blind::UnknownRole),
        Self::Blind(Blind::NoServices),
        Self::Blind(Blind::OtherHost),
        Self::Blind(Blind::Elsewhere),
        Self::Blind(Blind::LinkUpkeep),
    ];

    /// The name in the ledger; of what hides flows, the name of the [`Cause`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Lossy => "lossy",
            Self::Unresolved(Resolution::Resolved) => "name_resolved",
            Self::Unresolved(resolution @ (Resolution::Never | Resolution::Failing)) => {
                Cause::Name(resolution).name()
            }
            Self::Blind(why) => Cause::Blind(why).name(),
        }
    }

    /// The vantage of a name that [`Self::name`] gave.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|vantage| vantage.name() == name)
    }
}

/// What resolvers said of the names that a role is bound to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Resolution {
    /// None was asked for, as far as was seen.
    Never,
    /// Whoever asked was told that it does not exist, or that the resolver could not say.
    Failing,
    /// One of them has addresses.
    Resolved,
}

/// Why a service can't be seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blind {
    /// A role is bound to no address.
    NotBound,
    /// The document does not name an end.
    UnknownRole,
    /// The document names no port.
    NoServices,
    /// It stays on one host, and the capture is not that host's.
    OtherHost,
    /// Both ends are outside of what the site file says is seen here.
    Elsewhere,
    /// It keeps up the link itself (IGMP, neighbour and listener discovery), which is never judged.
    LinkUpkeep,
    /// Of a probe: another end initiates it.
    NotFromHere,
    /// Of a probe: the responder's role is bound to no single address or name.
    NoExactAddress,
    /// Of a probe: nothing can be asked by this protocol.
    NoQuestion,
}

/// Why a state is as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// What became of the flows.
    Flow(Outcome),
    /// Packets were lost.
    Loss,
    /// For a part of the time nobody watched: the daemon was down, its capture failed, or the clock jumped.
    Gap,
    /// Its name was never resolved, or does not resolve.
    Name(Resolution),
    /// This vantage can't see it.
    Blind(Blind),
}

impl Cause {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flow(outcome) => outcome.name(),
            Self::Loss => "loss",
            Self::Gap => "not_watched",
            Self::Name(Resolution::Failing) => "name_does_not_resolve",
            Self::Name(Resolution::Never | Resolution::Resolved) => "name_never_resolved",
            Self::Blind(Blind::NotBound) => "role_not_bound",
            Self::Blind(Blind::UnknownRole) => "role_unknown",
            Self::Blind(Blind::NoServices) => "no_services",
            Self::Blind(Blind::OtherHost) => "other_host",
            Self::Blind(Blind::Elsewhere) => "not_captured_here",
            Self::Blind(Blind::LinkUpkeep) => "link_upkeep",
            Self::Blind(Blind::NotFromHere) => "not_from_here",
            Self::Blind(Blind::NoExactAddress) => "no_exact_address",
            Self::Blind(Blind::NoQuestion) => "no_question",
        }
    }
}

/// The state of a requirement or service, and what is known of the reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The state.
    pub state: State,
    /// Why, unless the state says it all.
    pub cause: Option<Cause>,
    /// Where the failure was, if there was one.
    pub place: Option<Place>,
    /// How far cause and place may be trusted, if they are given.
    pub confidence: Option<Confidence>,
    /// Whether any flow was seen.
    pub attempted: bool,
}

impl Finding {
    /// Smaller is worse; see the head of this file.
    const fn rank(&self) -> u8 {
        match (self.state, self.attempted) {
            (State::Blocked, _) => 0,
            (State::Degraded, _) => 1,
            (State::Unknown, true) => 2,
            (State::Verified, _) => 3,
            (State::Unknown, false) => 4,
            (State::Silent, _) => 5,
            (State::Unobservable, _) => 6,
        }
    }
}

/// The state of a requirement from those of its services; unobservable without any.
#[must_use]
pub fn of_services(services: impl IntoIterator<Item = Finding>) -> Finding {
    services
        .into_iter()
        .min_by_key(Finding::rank)
        .unwrap_or(Finding {
            state: State::Unobservable,
            cause: Some(Cause::Blind(Blind::NoServices)),
            place: None,
            confidence: None,
            attempted: false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{
        Answered, ClosedAfterAnswer, DroppedHere, NoAnswer, OneWay, Pending, Prohibited, Refused,
    };

    const PEER: Address = Address::from_v4([10, 0, 0, 2]);
    const HOP: Address = Address::from_v4([10, 0, 0, 254]);

    fn attempt(at: u64, outcome: Outcome, hop: Option<Address>) -> Attempt {
        Attempt {
            outcome,
            decided: at,
            first_seen: at,
            last_seen: at,
            place: Place::of(outcome, &PEER, hop.as_ref()),
            told: hop.is_some(),
            answerable: true,
        }
    }

    fn seen(attempts: &[Attempt]) -> Finding {
        let mut observation = Observation::default();
        for attempt in attempts {
            observation.add(attempt);
        }
        observation.finding(Vantage::Clear)
    }

    #[track_caller]
    fn check(outcomes: &[Outcome], state: State, cause: Option<&str>) -> Finding {
        let attempts: Vec<_> = (1..)
            .zip(outcomes)
            .map(|(at, outcome)| attempt(at, *outcome, None))
            .collect();
        let finding = seen(&attempts);
        assert_eq!(
            (finding.state, finding.cause.map(Cause::name)),
            (state, cause)
        );
        // The order in which flows are reported must not matter, only that in which they were decided.
        let backwards: Vec<_> = attempts.into_iter().rev().collect();
        assert_eq!(seen(&backwards), finding);
        finding
    }

    #[test]
    fn states_of_a_service() {
        check(&[Answered], State::Verified, None);
        check(&[ClosedAfterAnswer, Pending], State::Verified, None);
        check(&[NoAnswer, Answered], State::Verified, None);
        check(&[Answered, Refused, Answered], State::Verified, None);
        check(&[Answered, Refused], State::Degraded, Some("refused"));
        check(
            &[Refused, Answered, NoAnswer],
            State::Degraded,
            Some("no_answer"),
        );
        check(&[NoAnswer], State::Blocked, Some("no_answer"));
        check(
            &[NoAnswer, NoAnswer, Refused],
            State::Blocked,
            Some("refused"),
        );
        check(&[Pending], State::Unknown, Some("pending"));
        check(&[OneWay, Pending], State::Unknown, Some("one_way"));
        check(&[], State::Silent, None);
    }

    #[test]
    fn places_and_confidence() {
        let cases = [
            (attempt(1, NoAnswer, None), "path", Confidence::Low),
            (attempt(1, Refused, None), "peer", Confidence::Medium),
            (attempt(1, Refused, Some(PEER)), "peer", Confidence::High),
            (
                attempt(1, Prohibited, Some(HOP)),
                "hop 10.0.0.254",
                Confidence::High,
            ),
            (attempt(1, DroppedHere, None), "this_host", Confidence::High),
        ];
        for (attempt, place, confidence) in cases {
            let finding = seen(&[attempt]);
            assert_eq!(finding.state, State::Blocked);
            assert_eq!(
                finding.place.map(|place| place.to_string()).as_deref(),
                Some(place)
            );
            assert_eq!(finding.confidence, Some(confidence));
        }
        let twice = seen(&[attempt(1, NoAnswer, None), attempt(2, NoAnswer, None)]);
        assert_eq!(twice.confidence, Some(Confidence::Medium));
        assert_eq!(Place::of(Answered, &PEER, None), None);
    }

    #[test]
    fn states_and_places_are_read_as_they_are_written() {
        for state in State::ALL {
            assert_eq!(State::of_name(state.name()), Some(state));
        }
        for vantage in Vantage::ALL {
            assert_eq!(Vantage::of_name(vantage.name()), Some(vantage));
        }
        assert_eq!(Vantage::of_name(""), None);
        for place in [Place::ThisHost, Place::Hop(HOP), Place::Peer, Place::Path] {
            assert_eq!(Place::of_text(&place.to_string()), Some(place));
        }
        for text in ["", "hop", "hop x", "10.0.0.1"] {
            assert_eq!(Place::of_text(text), None, "{text}");
        }
    }

    #[test]
    fn groups_never_answer() {
        for outcome in [OneWay, NoAnswer] {
            let to_group = Attempt {
                answerable: false,
                ..attempt(1, outcome, None)
            };
            assert_eq!(seen(&[to_group]).state, State::Verified);
        }
    }

    #[test]
    fn silence_is_told_from_blindness() {
        let state = |vantage| Observation::default().finding(vantage).state;
        assert_eq!(state(Vantage::Clear), State::Silent);
        assert_eq!(state(Vantage::Lossy), State::Unknown);
        assert_eq!(state(Vantage::Blind(Blind::NotBound)), State::Unobservable);
        // What was seen was seen.
        let mut observation = Observation::default();
        observation.add(&attempt(1, Answered, None));
        assert_eq!(observation.finding(Vantage::Lossy).state, State::Verified);
    }

    #[test]
    fn a_requirement_is_as_good_as_its_attempted_services() {
        let finding = |outcomes: &[Outcome]| {
            let attempts: Vec<_> = outcomes
                .iter()
                .map(|outcome| attempt(1, *outcome, None))
                .collect();
            seen(&attempts)
        };
        let verified = finding(&[Answered]);
        let silent = finding(&[]);
        let lost = Observation::default().finding(Vantage::Lossy);
        let blind = Observation::default().finding(Vantage::Blind(Blind::NotBound));
        let cases: [(&[Finding], State); 9] = [
            (&[silent, verified], State::Verified),
            (&[lost, verified], State::Verified),
            (&[verified, finding(&[NoAnswer])], State::Blocked),
            (&[verified, finding(&[OneWay])], State::Unknown),
            (&[silent, finding(&[Pending])], State::Unknown),
            (&[silent, lost], State::Unknown),
            (&[silent, silent], State::Silent),
            (&[blind, silent], State::Silent),
            (&[], State::Unobservable),
        ];
        for (services, state) in cases {
            assert_eq!(
                of_services(services.iter().copied()).state,
                state,
                "{services:?}"
            );
        }
    }
}
