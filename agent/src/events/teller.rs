//! From rounds to destinations: what `derive` finds in a round is put into a feed. The engine holds one of these and calls
//! it once a round.

use std::collections::HashMap;
use std::time::Duration;

use super::derive::Deriver;
use super::feed::{Feed, SinkStatus};
use crate::engine::chronicle::Standing;
use crate::engine::unexpected::UnexpectedService;
use crate::ledger::{Remembered, Status, UnexpectedSeen};

/// Tells what is new.
#[derive(Debug)]
pub struct Teller {
    feed: Feed,
    deriver: Deriver,
}

impl Teller {
    /// Goes on from what a ledger remembers, at `now`, nanoseconds since the Unix epoch. Unexpected flows of known kinds
    /// are summed up over `interval`.
    #[must_use]
    pub fn new(feed: Feed, interval: Duration, remembered: &Remembered, now: u64) -> Self {
        Self {
            feed,
            deriver: Deriver::new(remembered, interval, now),
        }
    }

    /// Takes what was unexpected since the round before.
    pub fn unexpected(&mut self, seen: &HashMap<UnexpectedService, UnexpectedSeen>) {
        self.deriver.unexpected(seen);
    }

    /// Tells what is new in a round.
    pub fn round(&mut self, standing: &Standing, ledger: Option<&Status>) {
        for body in self.deriver.round(standing, ledger) {
            self.feed.send(standing.at, body);
        }
    }

    /// Tells that nobody could say anything, if that is new.
    pub fn no_answer(&mut self, now: u64, reason: &str) {
        for body in self.deriver.no_answer(now, reason) {
            self.feed.send(now, body);
        }
    }

    /// Tells at the end what was to be summed up for longer.
    pub fn finish(&mut self, now: u64) {
        for body in self.deriver.rest() {
            self.feed.send(now, body);
        }
    }

    /// How the destinations do.
    #[must_use]
    pub fn sinks(&self) -> Vec<SinkStatus> {
        self.feed.sinks()
    }
}
