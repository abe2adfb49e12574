//! The sum of flows: how many there were of each kind, and what was seen of each requirement. It takes flows one by one, so
//! that whoever only asks for it keeps none.

use std::collections::{BTreeMap, HashMap};

use flowproof_common::state::Outcome;

use super::gather::Flow;
use crate::export::flow_line::verdict_name;
use crate::matrix::installed::Installed;
use crate::matrix::{BuiltInRole, Direction, Requirement, RoleRef, ServiceKey};
use crate::verdict::requirement::Observation;

/// The sum of flows.
#[derive(Debug, Default)]
pub(in crate::cli) struct Tally {
    pub(super) flows: u64,
    /// By the names of verdicts, those that there were.
    by_verdict: Vec<(&'static str, u64)>,
    by_outcome: [u64; Outcome::COUNT],
    /// In order, so that the same capture always gives the same answer.
    by_slot: BTreeMap<u32, Seen>,
}

/// What was seen of all that a counter slot counts for.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// By requirements whose flows are owed an answer if their kind is.
    owed: Observation,
    /// By requirements whose flows are never owed one.
    never_owed: Observation,
}

impl Tally {
    /// Adds a flow, in any order; of failures of the same moment the last that was added is told.
    pub(super) fn add(&mut self, flow: &Flow) {
        self.flows += 1;
        let verdict = verdict_name(flow.record.state);
        match self
            .by_verdict
            .iter_mut()
            .find(|(name, _)| *name == verdict)
        {
            Some((_, count)) => *count += 1,
            None => self.by_verdict.push((verdict, 1)),
        }
        self.by_outcome[flow.outcome() as usize] += 1;
        // Of a flow whose name nobody could tell nobody knows what it was for.
        if !flow.record.state.is_held() {
            let seen = self.by_slot.entry(flow.record.slot).or_default();
            seen.owed.add(&flow.attempt(flow.is_answerable()));
            seen.never_owed.add(&flow.attempt(false));
        }
    }

    /// Flows by verdict, those verdicts that there were.
    pub(super) fn by_verdict(&self) -> BTreeMap<&'static str, u64> {
        self.by_verdict.iter().copied().collect()
    }

    /// Flows by outcome.
    pub(super) fn by_outcome(&self) -> BTreeMap<&'static str, u64> {
        Outcome::ALL
            .map(Outcome::name)
            .into_iter()
            .zip(self.by_outcome)
            .collect()
    }

    /// What was seen of each service of each requirement.
    pub(super) fn observations(&self, installed: &Installed) -> HashMap<ServiceKey, Observation> {
        let mut observations: HashMap<ServiceKey, Observation> = HashMap::new();
        for (slot, seen) in &self.by_slot {
            for &member in installed.members(*slot) {
                let requirement = installed.compiled.matrix.requirement(member);
                let part = if goes_to_broadcast(requirement) {
                    &seen.never_owed
                } else {
                    &seen.owed
                };
                observations.entry(member).or_default().merge(part);
            }
        }
        observations
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
