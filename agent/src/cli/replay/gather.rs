//! What a replay collects while packets are judged: every flow once, with what decided it, and from these what
//! was seen of each requirement.

use std::collections::HashMap;

use flowproof_common::key::{FlowKey, Side};
use flowproof_common::protocol;
use flowproof_common::record::{Event, EventKind, FlowRecord};
use flowproof_common::state::Outcome;

use crate::export::flow_line::{Facts, KnownNames};
use crate::flow::notes::Notes;
use crate::flow::{FlowTable, Span};
use crate::matrix::installed::Installed;
use crate::matrix::{BuiltInRole, Direction, Requirement, RoleRef, ServiceKey};
use crate::names::Namer;
use crate::verdict::requirement::{Attempt, Observation, Place};

/// A flow, over or not.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Flow {
    pub(in crate::cli) key: FlowKey,
    pub(in crate::cli) record: FlowRecord,
    pub(in crate::cli) span: Span,
    pub(in crate::cli) notes: Notes,
    pub(in crate::cli) names: KnownNames,
}

impl Flow {
    pub(in crate::cli) fn initiator(&self) -> Side {
        self.record.state.initiator()
    }

    pub(in crate::cli) fn responder(&self) -> Side {
        self.initiator().other()
    }

    pub(in crate::cli) fn outcome(&self) -> Outcome {
        self.record.state.outcome()
    }

    /// All that a line says of it.
    pub(in crate::cli) fn facts(&self) -> Facts<'_> {
        Facts {
            key: &self.key,
            record: &self.record,
            span: self.span,
            errors: &self.notes.errors,
            overturned: &self.notes.overturned,
            drop_reason: None,
            names: &self.names,
        }
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

/// Collects flows from events.
#[derive(Default)]
pub(in crate::cli) struct Gatherer {
    notes: HashMap<FlowKey, Notes, foldhash::fast::RandomState>,
    ended: Vec<Flow>,
}

impl Gatherer {
    pub(in crate::cli) fn on_event(&mut self, event: &Event, span: Span) {
        let news = [EventKind::Decided as u8, EventKind::IcmpError as u8];
        if news.contains(&event.kind) {
            self.notes.entry(event.key).or_default().note(event);
        } else if event.kind == EventKind::Ended as u8 {
            self.ended.push(Flow {
                key: event.key,
                record: event.record,
                span,
                notes: self.notes.remove(&event.key).unwrap_or_default(),
                names: KnownNames::default(),
            });
        }
    }

    /// All flows in the order of their first packets; those still in the table included.
    pub(in crate::cli) fn finish(mut self, table: &FlowTable, namer: &Namer) -> Vec<Flow> {
        let mut flows = self.ended;
        for flow in table.flows() {
            flows.push(Flow {
                key: *flow.key,
                record: *flow.record,
                span: flow.span,
                notes: self.notes.remove(flow.key).unwrap_or_default(),
                names: KnownNames::default(),
            });
        }
        for flow in &mut flows {
            flow.names = KnownNames::of(namer, &flow.key, &flow.record);
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
pub(in crate::cli) fn observe(
    flows: &[Flow],
    installed: &Installed,
) -> HashMap<ServiceKey, Observation> {
    let mut observations: HashMap<ServiceKey, Observation> = HashMap::new();
    for flow in flows {
        let answerable = flow.is_answerable();
        // Of a flow whose name nobody could tell nobody knows what it was for.
        let members = if flow.record.state.is_held() {
            &[]
        } else {
            installed.members(flow.record.slot)
        };
        for &member in members {
            let requirement = installed.compiled.matrix.requirement(member);
            let attempt = flow.attempt(answerable && !goes_to_broadcast(requirement));
            observations.entry(member).or_default().add(&attempt);
        }
    }
    observations
}
