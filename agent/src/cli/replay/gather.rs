//! What a replay collects while packets are judged: every flow once, with what decided it, and from these what
//! was seen of each requirement.

use std::collections::HashMap;

use flowproof_common::address::Address;
use flowproof_common::key::{FlowKey, Side};
use flowproof_common::protocol;
use flowproof_common::record::{Event, EventKind, FlowRecord};
use flowproof_common::state::{Outcome, Phase};

use crate::flow::{FlowTable, Span};
use crate::matrix::installed::Installed;
use crate::matrix::{BuiltInRole, Direction, Requirement, RoleRef, ServiceKey};
use crate::verdict::requirement::{Attempt, Observation, Place};

/// ICMP errors kept for one flow.
const ERRORS_KEPT: usize = 4;

/// An ICMP error about a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct IcmpError {
    pub(super) hop: Address,
    pub(super) icmp_type: u8,
    pub(super) icmp_code: u8,
}

/// What events said of a flow that its record does not hold.
#[derive(Clone, Default, Debug)]
pub(super) struct Notes {
    /// When its outcome was decided last.
    decided: u64,
    /// Whether the last decision was an ICMP error's, the last of `errors`.
    told: bool,
    pub(super) errors: Vec<IcmpError>,
    /// Outcomes that a later packet overturned.
    pub(super) overturned: Vec<Outcome>,
    outcome: Option<Outcome>,
}

/// A flow, over or not.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) key: FlowKey,
    pub(super) record: FlowRecord,
    pub(super) span: Span,
    pub(super) notes: Notes,
}

impl Flow {
    pub(super) fn initiator(&self) -> Side {
        self.record.state.initiator()
    }

    pub(super) fn responder(&self) -> Side {
        self.initiator().other()
    }

    pub(super) fn outcome(&self) -> Outcome {
        self.record.state.outcome()
    }

    /// Short texts that say what the outcome rests on.
    pub(super) fn evidence(&self) -> Vec<String> {
        let state = self.record.state;
        let answers = self.record.packets[flowproof_common::record::index(self.responder())];
        let mut texts = Vec::new();
        if self.key.protocol == protocol::TCP {
            let syns = match state.syns() {
                0 => None,
                1 => Some("1 SYN".to_owned()),
                15 => Some("15 or more SYNs".to_owned()),
                many => Some(format!("{many} SYNs")),
            };
            match (syns, state.phase(), state.outcome()) {
                (Some(syns), Phase::SynSent, _) => texts.push(format!("{syns}, no answer")),
                (Some(syns), Phase::SynAck, _) => {
                    texts.push(format!("{syns}, SYN-ACK not acknowledged"));
                }
                (Some(syns), _, Outcome::Refused) if self.notes.errors.is_empty() => {
                    texts.push(format!("{syns}, answered by RST"));
                }
                (Some(_), _, Outcome::Answered | Outcome::ClosedAfterAnswer) => {
                    texts.push("handshake completed".to_owned());
                }
                (None, _, Outcome::Answered | Outcome::ClosedAfterAnswer) => {
                    texts.push("joined midway, both sides heard".to_owned());
                }
                (Some(syns), _, _) => texts.push(syns),
                (None, _, _) => texts.push("joined midway".to_owned()),
            }
        } else if answers > 0 {
            texts.push(counted(answers, "answering packet"));
        } else {
            let sent = self.record.packets[flowproof_common::record::index(self.initiator())];
            texts.push(format!("{}, no answer", counted(sent, "packet")));
        }
        let family = if self.key.a.is_v4() { "ICMP" } else { "ICMPv6" };
        for error in &self.notes.errors {
            texts.push(format!(
                "{family} {}/{} from {}",
                error.icmp_type, error.icmp_code, error.hop
            ));
        }
        for outcome in &self.notes.overturned {
            texts.push(format!("{} before", outcome.name()));
        }
        texts
    }

    fn attempt(&self, answerable: bool) -> Attempt {
        let responder = self.key.end(self.responder()).0;
        let hop = self.notes.errors.last().filter(|_| self.notes.told);
        Attempt {
            outcome: self.outcome(),
            decided: self.notes.decided,
            first_seen: self.span.first,
            last_seen: self.span.last,
            place: Place::of(self.outcome(), &responder, hop.map(|error| &error.hop)),
            told: self.notes.told,
            answerable,
        }
    }

    /// Whether an answer to the initiator's packets can come at all: the question that the state machine puts to each
    /// packet (`State::after`), put to the flow.
    fn is_answerable(&self) -> bool {
        let to_group = self.record.state.to_group();
        match self.key.protocol {
            protocol::VRRP => false,
            protocol::ICMP | protocol::ICMPV6 => {
                protocol::is_echo(self.key.protocol, self.key.icmp_type) && !to_group
            }
            _ => !to_group,
        }
    }
}

fn counted(number: u64, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {what}{ending}")
}

/// Collects flows from events.
#[derive(Default)]
pub(super) struct Gatherer {
    notes: HashMap<FlowKey, Notes, foldhash::fast::RandomState>,
    ended: Vec<Flow>,
}

impl Gatherer {
    pub(super) fn on_event(&mut self, event: &Event, span: Span) {
        if event.kind == EventKind::Decided as u8 {
            let notes = self.notes.entry(event.key).or_default();
            let outcome = event.record.state.outcome();
            if let Some(before) = notes.outcome.replace(outcome)
                && notes.overturned.len() < ERRORS_KEPT
            {
                notes.overturned.push(before);
            }
            notes.decided = event.time;
            notes.told = event.has_icmp != 0;
            notes.keep(event);
        } else if event.kind == EventKind::IcmpError as u8 {
            let notes = self.notes.entry(event.key).or_default();
            // It must not come after the one that decided.
            if !notes.told {
                notes.keep(event);
            }
        } else if event.kind == EventKind::Ended as u8 {
            self.ended.push(Flow {
                key: event.key,
                record: event.record,
                span,
                notes: self.notes.remove(&event.key).unwrap_or_default(),
            });
        }
    }

    /// All flows in the order of their first packets; those still in the table included.
    pub(super) fn finish(mut self, table: &FlowTable) -> Vec<Flow> {
        let mut flows = self.ended;
        for flow in table.flows() {
            flows.push(Flow {
                key: *flow.key,
                record: *flow.record,
                span: flow.span,
                notes: self.notes.remove(flow.key).unwrap_or_default(),
            });
        }
        // The key settles the order of flows that began at the same time.
        flows.sort_by_cached_key(|flow| {
            let end = |side| {
                let (address, port) = flow.key.end(side);
                (address.bytes(), port)
            };
            (
                flow.span.first,
                flow.key.protocol,
                end(flow.initiator()),
                end(flow.responder()),
                flow.key.icmp_type,
            )
        });
        flows
    }
}

impl Notes {
    fn keep(&mut self, event: &Event) {
        if event.has_icmp == 0 {
            return;
        }
        let error = IcmpError {
            hop: event.hop,
            icmp_type: event.icmp_type,
            icmp_code: event.icmp_code,
        };
        self.errors.retain(|known| *known != error);
        if self.errors.len() == ERRORS_KEPT {
            self.errors.remove(0);
        }
        self.errors.push(error);
    }
}

/// Whether the flows of a requirement go to broadcast addresses, directed ones included, which look like any other.
fn goes_to_broadcast(requirement: &Requirement) -> bool {
    let broadcast = RoleRef::BuiltIn(BuiltInRole::Broadcast);
    match requirement.direction {
        Direction::Outbound => requirement.to == broadcast,
        Direction::Inbound => requirement.from == broadcast,
        Direction::Both => requirement.to == broadcast || requirement.from == broadcast,
    }
}

/// What was seen of each service of each requirement.
pub(super) fn observe(flows: &[Flow], installed: &Installed) -> HashMap<ServiceKey, Observation> {
    let mut observations: HashMap<ServiceKey, Observation> = HashMap::new();
    for flow in flows {
        let answerable = flow.is_answerable();
        for &member in installed.members(flow.record.slot) {
            let requirement = installed.compiled.matrix.requirement(member);
            let attempt = flow.attempt(answerable && !goes_to_broadcast(requirement));
            observations.entry(member).or_default().add(&attempt);
        }
    }
    observations
}
