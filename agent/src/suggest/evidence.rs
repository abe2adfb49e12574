//! What was seen of something: added up with a bound, and told.

use std::collections::BTreeMap;
use std::net::IpAddr;

use flowproof_common::state::Outcome;
use serde::Serialize;

use super::least::{Hours, Least};
use crate::export::times;
use crate::ledger::{HourKey, HourRecord};
use crate::plural::counted;

/// Addresses of an end that are kept, and that a role is ever made of.
pub(super) const MOST_ADDRESSES: usize = 32;
/// Addresses of an end that are told.
const MOST_TOLD: usize = 8;

/// Addresses of an end.
pub(super) type Addresses = Least<IpAddr, MOST_ADDRESSES>;

/// Who, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) clients: Addresses,
    pub(super) servers: Addresses,
    pub(super) hours: Hours,
}

impl Part {
    fn add(&mut self, key: &HourKey) {
        self.clients.add(key.initiator.into());
        self.servers.add(key.responder.into());
        self.hours.add(key.hour);
    }

    fn merge(&mut self, other: &Self) {
        self.clients.merge(&other.clients);
        self.servers.merge(&other.servers);
        self.hours.merge(&other.hours);
    }
}

/// Flows that are added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    begun: u64,
    decided: [u64; Outcome::COUNT],
    /// Of all.
    pub(super) all: Part,
    /// Of records with an answered flow.
    pub(super) answered: Part,
}

impl Tally {
    pub(super) fn add(&mut self, record: &HourRecord) {
        self.begun = self.begun.saturating_add(record.counts.begun);
        for (count, by) in self.decided.iter_mut().zip(record.counts.decided) {
            *count = count.saturating_add(by);
        }
        self.all.add(&record.key);
        if answered(record) > 0 {
            self.answered.add(&record.key);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.begun = self.begun.saturating_add(other.begun);
        for (count, by) in self.decided.iter_mut().zip(other.decided) {
            *count = count.saturating_add(by);
        }
        self.all.merge(&other.all);
        self.answered.merge(&other.answered);
    }

    pub(super) fn answered_flows(&self) -> u64 {
        self.decided[Outcome::Answered as usize]
    }

    /// A flow may have begun before the first record, and an answer that came late counts as a second decision.
    pub(super) fn flows(&self) -> u64 {
        self.begun.max(self.answered_flows())
    }

    /// Whether everything that was sent owes no answer, such as syslog.
    pub(super) fn is_one_way(&self) -> bool {
        let of = |outcome: Outcome| self.decided[outcome as usize];
        of(Outcome::OneWay) > 0 && self.decided.iter().sum::<u64>() == of(Outcome::OneWay)
    }

    /// What is told of it; of the answered flows' ends if there are enough of them to be the reason.
    pub(super) fn told(&self, by_answers: bool) -> Evidence {
        let part = if by_answers {
            &self.answered
        } else {
            &self.all
        };
        let [first, last] = part.hours.first_and_last().unwrap_or_default();
        Evidence {
            flows: self.flows(),
            answered: self.answered_flows(),
            outcomes: Outcome::ALL
                .into_iter()
                .filter(|outcome| self.decided[*outcome as usize] > 0)
                .map(|outcome| (outcome.name(), self.decided[outcome as usize]))
                .collect(),
            clients: Few::of(&part.clients),
            servers: Few::of(&part.servers),
            first_hour: times::hour(first),
            last_hour: times::hour(last),
            hours: part.hours.len(),
            days: part.hours.days(),
        }
    }
}

pub(super) fn answered(record: &HourRecord) -> u64 {
    record.counts.decided[Outcome::Answered as usize]
}

/// The begin of an hour for people: the rest of it is noughts.
fn short(hour: &str) -> String {
    hour.strip_suffix(":00Z")
        .map_or_else(|| hour.to_owned(), |text| format!("{text}Z"))
}

/// Some of the addresses of an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Few {
    /// How many there are, at least.
    pub count: usize,
    /// Whether there are more than could be counted.
    pub more: bool,
    /// Some of them.
    pub some: Vec<String>,
}

impl Few {
    pub(super) fn of(addresses: &Addresses) -> Self {
        let items = addresses.items();
        Self {
            count: items.len(),
            more: addresses.more(),
            some: items
                .iter()
                .take(MOST_TOLD)
                .map(ToString::to_string)
                .collect(),
        }
    }

    /// `3 clients`, `more than 32 clients`
    pub(super) fn words(&self, what: &str) -> String {
        let more = if self.more { "more than " } else { "" };
        let ending = if self.count == 1 && !self.more {
            ""
        } else {
            "s"
        };
        format!("{more}{} {what}{ending}", self.count)
    }
}

/// The reason for a proposal: how much was seen, of whom, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Flows.
    pub flows: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Flows by decided outcome.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Who opened them.
    pub clients: Few,
    /// Whom they were for.
    pub servers: Few,
    /// Begin of the first hour with any, RFC 3339.
    pub first_hour: String,
    /// Begin of the last hour with any, RFC 3339.
    pub last_hour: String,
    /// Different hours with any.
    pub hours: u64,
    /// Different days with any, UTC.
    pub days: u64,
}

impl Evidence {
    /// The same in words.
    #[must_use]
    pub fn words(&self) -> String {
        let span = if self.first_hour == self.last_hour {
            format!("in the hour of {}", short(&self.first_hour))
        } else {
            format!(
                "in {} of {}, {} to {}",
                counted(self.hours, "hour"),
                counted(self.days, "day"),
                short(&self.first_hour),
                short(&self.last_hour)
            )
        };
        format!(
            "{} ({} answered), {} to {}, {span}",
            counted(self.flows, "flow"),
            self.answered,
            self.clients.words("client"),
            self.servers.words("server"),
        )
    }

    /// Outcomes in words.
    #[must_use]
    pub fn outcome_words(&self) -> String {
        let texts: Vec<String> = self
            .outcomes
            .iter()
            .map(|(outcome, count)| format!("{count} {}", outcome.replace('_', " ")))
            .collect();
        texts.join(", ")
    }
}
