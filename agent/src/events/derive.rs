//! What is worth an event: compares what was known with what is known now. Pure: time is passed in. Nothing is told twice,
//! neither from round to round nor over a restart, and nothing is told faster than somebody can read.

mod losses;
mod states;
mod unexpected;

use std::collections::HashMap;
use std::time::Duration;

use super::model::{Body, short};
use crate::engine::chronicle::Standing;
use crate::engine::unexpected::UnexpectedService;
use crate::export::times::time;
use crate::ledger::{Remembered, Status, UnexpectedSeen};
use losses::Losses;
use states::States;
use unexpected::Kinds;

/// Compares rounds. Times are nanoseconds since the Unix epoch.
#[derive(Debug)]
pub(super) struct Deriver {
    states: States,
    kinds: Kinds,
    losses: Losses,
    /// Since when nothing is captured.
    blind: Option<u64>,
    /// Since when evidence is in memory only.
    degraded: Option<u64>,
}

impl Deriver {
    /// Goes on from what a ledger remembers, at `now`. Unexpected flows of known kinds are summed up over `interval`.
    pub(super) fn new(remembered: &Remembered, interval: Duration, now: u64) -> Self {
        Self {
            states: States::new(remembered, now),
            kinds: Kinds::new(&remembered.unexpected, interval, now),
            losses: Losses::default(),
            blind: None,
            degraded: None,
        }
    }

    /// Takes what was unexpected since the round before.
    pub(super) fn unexpected(&mut self, seen: &HashMap<UnexpectedService, UnexpectedSeen>) {
        self.kinds.take(seen);
    }

    /// What is new in a round.
    pub(super) fn round(&mut self, standing: &Standing, ledger: Option<&Status>) -> Vec<Body> {
        let (now, view) = (standing.at, &standing.view);
        let mut events = Vec::new();
        let blind = view.failure.as_deref().or_else(|| {
            view.attached
                .is_empty()
                .then_some("no interface is watched")
        });
        self.capture(now, blind, &mut events);
        if let Some(ledger) = ledger {
            self.ledger(now, ledger, &mut events);
        }
        self.losses.round(now, view, &mut events);
        self.states.round(standing, &mut events);
        self.kinds.round(now, &mut events);
        events
    }

    /// What was not told yet because its interval was not over.
    pub(super) fn rest(&mut self) -> Vec<Body> {
        let mut events = Vec::new();
        self.kinds.tell_sums(&mut events);
        events
    }

    /// What is new where nobody could say anything.
    pub(super) fn no_answer(&mut self, now: u64, reason: &str) -> Vec<Body> {
        let mut events = Vec::new();
        self.capture(now, Some(reason), &mut events);
        events
    }

    fn capture(&mut self, now: u64, problem: Option<&str>, events: &mut Vec<Body>) {
        match (self.blind, problem) {
            (None, Some(reason)) => {
                self.blind = Some(now);
                events.push(Body::CaptureFailed {
                    reason: short(reason),
                });
            }
            (Some(since), None) => {
                self.blind = None;
                events.push(Body::CaptureRecovered { since: time(since) });
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    fn ledger(&mut self, now: u64, status: &Status, events: &mut Vec<Body>) {
        match (self.degraded, &status.problem) {
            (None, Some(reason)) => {
                self.degraded = Some(now);
                events.push(Body::LedgerDegraded {
                    reason: short(reason),
                });
            }
            (Some(since), None) => {
                self.degraded = None;
                events.push(Body::LedgerRecovered {
                    since: time(since),
                    dropped: status.dropped,
                });
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests;
