//! Changes of state. A service that comes and goes is told at once and then every ten seconds at most, with how often it
//! changed meanwhile; the state that it stays in is always told.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::model::{Body, ServiceState, short};
use crate::engine::chronicle::{Row, Standing};
use crate::export::times::time;
use crate::ledger::Remembered;
use crate::matrix::compiled::Compiled;
use crate::verdict::requirement::{Cause, Confidence, State};
use crate::verdict::window::is_problem;

/// A service is told of at most this often, nanoseconds.
pub(super) const HOLD: u64 = 10_000_000_000;
/// How long after a start, or a new matrix, it is found out what can be seen at all, nanoseconds.
pub(super) const SETTLE: u64 = 15_000_000_000;

/// What was told of a service.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// The state that whoever listens knows.
    state: Option<State>,
    /// When it was told, in this run.
    at: Option<u64>,
    /// The state in the round before.
    last: Option<State>,
    /// Changes since it was told.
    changes: u32,
}

/// What was told of each service.
#[derive(Debug)]
pub(super) struct States {
    compiled: Option<Arc<Compiled>>,
    /// By `system/requirement#service`, until the first matrix is known.
    remembered: HashMap<String, State>,
    /// As the rows of a standing.
    rows: Vec<Told>,
    /// When it began to watch these rows.
    begun: u64,
}

impl States {
    pub(super) fn new(remembered: &Remembered, now: u64) -> Self {
        let states = remembered.services.iter().filter_map(|service| {
            let (state, _) = service.window.standing?;
            let id = &service.id;
            let name = format!("{}/{}#{}", id.system, id.requirement, id.service);
            Some((name, state))
        });
        Self {
            compiled: None,
            remembered: states.collect(),
            rows: Vec::new(),
            begun: now,
        }
    }

    pub(super) fn round(&mut self, standing: &Standing, events: &mut Vec<Body>) {
        self.follow(standing);
        let now = standing.at;
        let settling = now.saturating_sub(self.begun) < SETTLE;
        for (row, told) in standing.rows.iter().zip(&mut self.rows) {
            let state = row.window.finding.state;
            if told.last != Some(state) {
                told.last = Some(state);
                told.changes = told.changes.saturating_add(1);
            }
            if told.state == Some(state) {
                continue;
            }
            // A service that was not heard of is no news as long as nothing was seen of it.
            let quiet = is_quiet(state)
                && match told.state {
                    None => true,
                    Some(before) => settling && told.at.is_none() && is_quiet(before),
                };
            if quiet {
                told.state = Some(state);
                told.changes = 0;
                continue;
            }
            // A clock that was set back holds nothing.
            if told
                .at
                .is_some_and(|at| (at..at.saturating_add(HOLD)).contains(&now))
            {
                continue;
            }
            events.push(Body::ServiceState(event(standing, row, told)));
            *told = Told {
                state: Some(state),
                at: Some(now),
                last: Some(state),
                changes: 0,
            };
        }
    }

    /// Takes up the matrix in force; what was told of rows that it still has stays told.
    fn follow(&mut self, standing: &Standing) {
        let compiled = &standing.view.matrix.compiled;
        if let Some(before) = &self.compiled
            && Arc::ptr_eq(before, compiled)
        {
            return;
        }
        let mut known: HashMap<String, Told> = std::mem::take(&mut self.remembered)
            .into_iter()
            .map(|(name, state)| {
                let told = Told {
                    state: Some(state),
                    last: Some(state),
                    ..Told::default()
                };
                (name, told)
            })
            .collect();
        if let Some(before) = &self.compiled {
            let keys = before.matrix.services().map(|(key, ..)| key);
            known.extend(
                keys.map(|key| before.matrix.service_id(key))
                    .zip(self.rows.drain(..)),
            );
            self.begun = standing.at;
        }
        self.rows = standing
            .rows
            .iter()
            .map(|row| {
                known
                    .remove(&compiled.matrix.service_id(row.key))
                    .unwrap_or_default()
            })
            .collect();
        self.compiled = Some(Arc::clone(compiled));
    }
}

/// Whether nothing was seen.
const fn is_quiet(state: State) -> bool {
    match state {
        State::Silent | State::Unobservable | State::Unknown => true,
        State::Verified | State::Degraded | State::Blocked => false,
    }
}

fn event(standing: &Standing, row: &Row, told: &Told) -> ServiceState {
    let matrix = &standing.view.matrix.compiled.matrix;
    let requirement = matrix.requirement(row.key);
    let finding = &row.window.finding;
    let failed = matches!(finding.state, State::Blocked | State::Degraded);
    ServiceState {
        system: matrix.system(row.key.system).id.to_string(),
        requirement: requirement.id.to_string(),
        service: matrix.service(row.key).to_string(),
        necessity: requirement.necessity.as_str().to_owned(),
        from: told.state.map(|state| state.name().to_owned()),
        to: finding.state.name().to_owned(),
        problem: is_problem(finding.state, &requirement.necessity),
        cause: finding.cause.map(|cause| Cause::name(cause).to_owned()),
        place: finding.place.map(|place| place.to_string()),
        confidence: finding
            .confidence
            .map(|confidence| Confidence::name(confidence).to_owned()),
        since: row.window.since.map(time),
        evidence: (failed && !row.failed.is_empty()).then(|| short(&row.failed)),
        changes: told.changes,
    }
}
