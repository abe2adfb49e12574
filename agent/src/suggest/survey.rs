//! The first reading: which initiators look like a scan, and which conversations have a client's port as their service, so
//! that who asked whom is in doubt.
//!
//! A scan is an initiator with many targets (host and port) of which few answered. Only unexpected flows count: whoever
//! also does what it should may scan all the same. Ports that clients use do not count here, since a server whose answers
//! were taken for requests has many such targets.

use std::net::IpAddr;

use flowproof_common::protocol;

use super::evidence::{Tally, answered};
use super::gather::Gathering;
use super::judge::{Judge, Judged, Pair};
use super::least::LeastMap;
use super::propose::Totals;
use super::{FIRST_EPHEMERAL, Options};
use crate::ledger::{HourKey, HourRecord};
use crate::verdict::Explainer;

/// Initiators that are looked at.
const MOST_INITIATORS: usize = 20_000;
/// Targets of an initiator that are looked at.
const MOST_TARGETS: usize = 64;
/// Conversations over a client's port that are looked at.
const MOST_SUSPECTS: usize = 20_000;
/// Ports of such a conversation that are told apart.
const MOST_PORTS: usize = 8;
/// Targets from which on an initiator may be scanning.
const SCAN_TARGETS: usize = 20;
/// Who is answered by at most one target in so many may be scanning.
const SCAN_ANSWERED: usize = 5;

/// Whether so many targets, of which so many answered, are a scan.
pub(super) const fn is_scan(targets: usize, answered: usize) -> bool {
    targets >= SCAN_TARGETS && answered * SCAN_ANSWERED <= targets
}

/// Whether the service of a record is a port of those that are given to clients.
pub(super) const fn is_ephemeral(key: &HourKey) -> bool {
    protocol::has_ports(key.protocol) && key.port >= FIRST_EPHEMERAL
}

/// Whether nothing was counted.
pub(super) fn is_empty(record: &HourRecord) -> bool {
    record.counts.begun == 0 && record.counts.decided.iter().all(|count| *count == 0)
}

/// What an initiator tried.
#[derive(Debug, Clone)]
pub(super) struct Fan {
    /// Whether each answered.
    targets: LeastMap<(IpAddr, u8, u16), bool>,
    pub(super) flows: u64,
    pub(super) answered: u64,
}

impl Fan {
    const fn new() -> Self {
        Self {
            targets: LeastMap::new(MOST_TARGETS),
            flows: 0,
            answered: 0,
        }
    }

    fn add(&mut self, record: &HourRecord) {
        let answers = answered(record);
        self.flows = self.flows.saturating_add(record.counts.begun);
        self.answered = self.answered.saturating_add(answers);
        let target = (
            record.key.responder.into(),
            record.key.protocol,
            record.key.port,
        );
        if let Some(answered) = self.targets.entry(&target, || false, |_| ()) {
            *answered |= answers > 0;
        }
    }

    pub(super) fn is_scan(&self) -> bool {
        is_scan(self.targets.entries().len(), self.answered_targets())
    }

    pub(super) fn answered_targets(&self) -> usize {
        self.targets
            .entries()
            .values()
            .filter(|answered| **answered)
            .count()
    }

    pub(super) fn targets(&self) -> usize {
        self.targets.entries().len()
    }

    /// Whether there were more targets than are looked at.
    pub(super) const fn more(&self) -> bool {
        self.targets.more()
    }

    /// Different hosts, and different services, among the targets.
    pub(super) fn breadth(&self) -> [usize; 2] {
        let targets = || self.targets.entries().keys();
        let hosts: std::collections::BTreeSet<_> = targets().map(|(host, ..)| host).collect();
        let services: std::collections::BTreeSet<_> = targets()
            .map(|(_, protocol, port)| (protocol, port))
            .collect();
        [hosts.len(), services.len()]
    }
}

/// Responder, initiator and protocol of a conversation over a client's port, and what a requirement would name.
pub(super) type SuspectKey = (IpAddr, IpAddr, u8, Pair);

/// A conversation over a client's port.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) ports: LeastMap<u16, Tally>,
    /// Of ports that are not told apart.
    pub(super) other: Tally,
    /// The least and the greatest port.
    pub(super) span: [u16; 2],
    /// The service that the ends use the other way round.
    pub(super) reversed: Option<u16>,
}

impl Suspect {
    const fn new_map() -> LeastMap<u16, Tally> {
        LeastMap::new(MOST_PORTS)
    }

    fn add(&mut self, record: &HourRecord) {
        let port = record.key.port;
        self.span = [self.span[0].min(port), self.span[1].max(port)];
        let other = &mut self.other;
        match self
            .ports
            .entry(&port, Tally::default, |gone| other.merge(&gone))
        {
            Some(tally) => tally.add(record),
            None => other.add(record),
        }
    }
}

/// The first reading.
#[derive(Debug)]
pub struct Survey {
    judge: Judge,
    options: Options,
    fans: LeastMap<IpAddr, Fan>,
    suspects: LeastMap<SuspectKey, Suspect>,
    totals: Totals,
}

impl Survey {
    /// Judges by what `explainer` was made for.
    #[must_use]
    pub fn new(explainer: Explainer, options: Options) -> Self {
        Self {
            judge: Judge::new(explainer, options.local.index),
            options,
            fans: LeastMap::new(MOST_INITIATORS),
            suspects: LeastMap::new(MOST_SUSPECTS),
            totals: Totals::default(),
        }
    }

    /// Takes a record; their order does not matter.
    pub fn add(&mut self, record: &HourRecord) {
        self.totals.seen(record);
        if is_empty(record) {
            return;
        }
        let pair = match self.judge.judge(&record.key) {
            Judged::Settled => return,
            Judged::Undecided => {
                self.totals.undecided_flows += record.counts.begun;
                return;
            }
            Judged::Unexpected(pair) => pair,
        };
        self.totals.unexpected_flows += record.counts.begun;
        let (initiator, responder) = (record.key.initiator.into(), record.key.responder.into());
        if is_ephemeral(&record.key) {
            let key = (responder, initiator, record.key.protocol, pair);
            let folded = &mut self.totals.folded_flows;
            let make = || Suspect {
                ports: Suspect::new_map(),
                other: Tally::default(),
                span: [u16::MAX, 0],
                reversed: None,
            };
            match self.suspects.entry(&key, make, |gone| {
                let mut all = gone.other;
                for tally in gone.ports.into_entries().values() {
                    all.merge(tally);
                }
                *folded += all.flows();
            }) {
                Some(suspect) => suspect.add(record),
                None => self.totals.folded_flows += record.counts.begun,
            }
        } else if let Some(fan) = self.fans.entry(&initiator, Fan::new, |_| ()) {
            fan.add(record);
        }
    }

    /// Goes on to the second reading, of the same records.
    #[must_use]
    pub fn finish(self) -> Gathering {
        Gathering::new(
            self.judge,
            self.options,
            self.fans,
            self.suspects,
            self.totals,
        )
    }
}
