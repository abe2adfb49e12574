//! What a replay collects while packets are judged: every flow once, with what decided it, and the sum of them.

use std::collections::HashMap;

use flowproof_common::key::{FlowKey, Side};
use flowproof_common::protocol;
use flowproof_common::record::{Event, EventKind, FlowRecord};
use flowproof_common::state::Outcome;

use super::tally::Tally;
use crate::export::flow_line::{Facts, KnownNames};
use crate::flow::notes::Notes;
use crate::flow::{FlowTable, Moments, Span};
use crate::names::Namer;
use crate::verdict::requirement::{Attempt, Place};

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

    /// What a requirement learns of it, if an answer to it can come or not.
    pub(super) fn attempt(&self, answerable: bool) -> Attempt {
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
    pub(super) fn is_answerable(&self) -> bool {
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

/// What is wanted of a capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::cli) enum Wanted {
    /// Every flow, and their sum.
    Flows,
    /// Only their sum, for which none has to be kept.
    Sum,
}

/// Collects flows from events.
pub(in crate::cli) struct Gatherer {
    wanted: Wanted,
    /// Of the few flows that have more to tell than when they were answered.
    notes: HashMap<FlowKey, Notes, foldhash::fast::RandomState>,
    ended: Vec<Flow>,
    tally: Tally,
}

impl Gatherer {
    pub(in crate::cli) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            notes: HashMap::default(),
            ended: Vec::new(),
            tally: Tally::default(),
        }
    }

    #[inline]
    pub(in crate::cli) fn on_event(&mut self, event: &Event, moments: Moments) {
        if event.kind == EventKind::Ended as u8 {
            self.add(&event.key, &event.record, moments);
        } else if event.kind == EventKind::IcmpError as u8 {
            self.notes.entry(event.key).or_default().note(event);
        } else if event.kind == EventKind::Decided as u8 {
            // An answer is the last word, so that there will be nothing to tell but its time, which the table knows.
            let plain = event.has_icmp == 0 && event.record.state.outcome() == Outcome::Answered;
            if plain {
                if let Some(notes) = self.notes.get_mut(&event.key) {
                    notes.note(event);
                }
            } else {
                self.notes.entry(event.key).or_default().note(event);
            }
        }
    }

    fn add(&mut self, key: &FlowKey, record: &FlowRecord, moments: Moments) {
        let flow = Flow {
            key: *key,
            record: *record,
            span: moments.span(),
            notes: self
                .notes
                .remove(key)
                .unwrap_or_else(|| Notes::of_answer(moments.decided)),
            names: KnownNames::default(),
        };
        match self.wanted {
            Wanted::Flows => self.ended.push(flow),
            Wanted::Sum => self.tally.add(&flow),
        }
    }

    /// All flows in the order of their first packets, those still in the table included, if they are wanted; and their sum.
    pub(in crate::cli) fn finish(mut self, table: &FlowTable, namer: &Namer) -> (Vec<Flow>, Tally) {
        for flow in table.flows() {
            self.add(flow.key, flow.record, flow.moments);
        }
        let mut flows = self.ended;
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
        for flow in &flows {
            self.tally.add(flow);
        }
        (flows, self.tally)
    }
}
