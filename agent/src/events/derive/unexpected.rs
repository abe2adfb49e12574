//! Unexpected flows by kind: the first of a kind at once, then its sum over every interval. What the network can send is
//! endless and a log is not: so many firsts and so many sums an interval are told one by one, the kinds beyond them
//! together, and only so many kinds are remembered.

use std::collections::HashMap;
use std::time::Duration;

use super::super::model::{Body, Sample, UnexpectedFlows, short};
use crate::engine::unexpected::UnexpectedService;
use crate::export::metrics::{OTHER, service_text};
use crate::export::times::time;
use crate::ledger::{UnexpectedId, UnexpectedSeen};

/// Kinds that are remembered at most.
pub(super) const KINDS: usize = 4_096;
/// Firsts of their kind that are told in an interval.
pub(super) const FIRSTS: usize = 50;
/// Sums that are told one by one in an interval.
pub(super) const SUMS: usize = 50;

#[derive(Debug, Default)]
struct Kind {
    /// Whether whoever listens has heard of it.
    told: bool,
    /// When it was seen last.
    last: u64,
    /// Seen since it was told of.
    pending: Option<UnexpectedSeen>,
}

/// The kinds of unexpected flows.
#[derive(Debug)]
pub(super) struct Kinds {
    interval: u64,
    /// When the interval began.
    begun: u64,
    /// Firsts told in it.
    firsts: usize,
    kinds: HashMap<UnexpectedService, Kind>,
    /// Of kinds that are not remembered.
    beyond: Option<UnexpectedSeen>,
    /// How often there was no room for one.
    beyond_kinds: u64,
}

impl Kinds {
    /// `known` were told before, the newest first.
    pub(super) fn new(known: &[UnexpectedId], interval: Duration, now: u64) -> Self {
        let known = known.iter().take(KINDS / 2).map(|id| {
            let service = UnexpectedService {
                from: id.from.as_str().into(),
                to: id.to.as_str().into(),
                protocol: id.protocol,
                port: id.port,
            };
            let kind = Kind {
                told: true,
                ..Kind::default()
            };
            (service, kind)
        });
        Self {
            interval: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX),
            begun: now,
            firsts: 0,
            kinds: known.collect(),
            beyond: None,
            beyond_kinds: 0,
        }
    }

    pub(super) fn take(&mut self, seen: &HashMap<UnexpectedService, UnexpectedSeen>) {
        for (service, seen) in seen {
            let room = self.kinds.len() < KINDS;
            let pending = match self.kinds.get_mut(service) {
                Some(kind) => {
                    kind.last = kind.last.max(seen.seen[1]);
                    &mut kind.pending
                }
                None if room => {
                    let kind = self.kinds.entry(service.clone()).or_default();
                    kind.last = seen.seen[1];
                    &mut kind.pending
                }
                None => {
                    self.beyond_kinds += 1;
                    &mut self.beyond
                }
            };
            add(pending, seen.clone());
        }
    }

    pub(super) fn round(&mut self, now: u64, events: &mut Vec<Body>) {
        self.tell_firsts(events);
        // A clock that was set back begins a new interval too.
        if (self.begun..self.begun.saturating_add(self.interval)).contains(&now) {
            return;
        }
        self.begun = now;
        self.firsts = 0;
        self.tell_sums(events);
        self.forget();
    }

    fn tell_firsts(&mut self, events: &mut Vec<Body>) {
        let mut new: Vec<(&UnexpectedService, &mut Kind)> = self
            .kinds
            .iter_mut()
            .filter(|(_, kind)| !kind.told && flows(kind) > 0)
            .collect();
        new.sort_by(|one, other| order(one).cmp(&order(other)));
        for (service, kind) in new.into_iter().take(FIRSTS - self.firsts.min(FIRSTS)) {
            if let Some(seen) = kind.pending.take() {
                kind.told = true;
                self.firsts += 1;
                events.push(event(service, true, &seen));
            }
        }
    }

    /// Tells what is new of the kinds that were told before, and of all others together.
    pub(super) fn tell_sums(&mut self, events: &mut Vec<Body>) {
        let mut due: Vec<(&UnexpectedService, &mut Kind)> = self
            .kinds
            .iter_mut()
            .filter(|(_, kind)| kind.pending.is_some())
            .collect();
        due.sort_by(|one, other| order(one).cmp(&order(other)));
        let (mut other, mut kinds, mut told) = (
            self.beyond.take(),
            std::mem::take(&mut self.beyond_kinds),
            0,
        );
        for (service, kind) in due {
            let Some(seen) = kind.pending.take() else {
                continue;
            };
            if kind.told && told < SUMS {
                told += 1;
                events.push(event(service, false, &seen));
            } else {
                kinds += 1;
                add(&mut other, seen);
            }
        }
        if let Some(seen) = other {
            events.push(Body::UnexpectedFlows(UnexpectedFlows {
                from: OTHER.to_owned(),
                to: OTHER.to_owned(),
                service: OTHER.to_owned(),
                first: false,
                kinds,
                ..sums(&seen)
            }));
        }
    }

    /// Makes room: kinds that nobody heard of are none that a first could be told from, of the others the oldest go.
    fn forget(&mut self) {
        self.kinds.retain(|_, kind| kind.told);
        if self.kinds.len() <= KINDS / 2 {
            return;
        }
        let mut last: Vec<u64> = self.kinds.values().map(|kind| kind.last).collect();
        last.sort_unstable_by(|one, other| other.cmp(one));
        let oldest = last[KINDS / 2];
        self.kinds.retain(|_, kind| kind.last > oldest);
    }
}

fn flows(kind: &Kind) -> u64 {
    kind.pending.as_ref().map_or(0, |seen| seen.flows)
}

/// The most flows first, else as they are called.
fn order<'a>(
    (service, kind): &'a (&UnexpectedService, &mut Kind),
) -> (std::cmp::Reverse<u64>, &'a str, &'a str, u8, u16) {
    (
        std::cmp::Reverse(flows(kind)),
        &service.from,
        &service.to,
        service.protocol,
        service.port,
    )
}

fn add(sum: &mut Option<UnexpectedSeen>, seen: UnexpectedSeen) {
    match sum {
        Some(sum) => sum.merge(seen),
        None => *sum = Some(seen),
    }
}

fn sums(seen: &UnexpectedSeen) -> UnexpectedFlows {
    let samples = seen.samples.iter().map(|[initiator, responder]| Sample {
        initiator: initiator.to_string(),
        responder: responder.to_string(),
    });
    UnexpectedFlows {
        from: String::new(),
        to: String::new(),
        service: String::new(),
        first: false,
        kinds: 1,
        flows: seen.flows,
        answered: seen.answered,
        since: time(seen.seen[0]),
        until: time(seen.seen[1]),
        samples: samples.collect(),
    }
}

fn event(service: &UnexpectedService, first: bool, seen: &UnexpectedSeen) -> Body {
    Body::UnexpectedFlows(UnexpectedFlows {
        from: short(&service.from),
        to: short(&service.to),
        service: service_text(service),
        first,
        ..sums(seen)
    })
}
