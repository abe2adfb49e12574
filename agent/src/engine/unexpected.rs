//! Unexpected traffic by (initiator's roles, responder's roles, service), bounded whatever the network sends.
//!
//! A port scan has 65,535 services, and a label must not. Two bounds hold at once. *Memory*: at most [`TRACKED`]
//! services are counted, by the space-saving algorithm (Metwally, Agrawal, El Abbadi, "Efficient computation of frequent
//! and top-k elements in data streams", 2005). *Series*: [`EXPORTED`] of them are exported; one of these gives way
//! only to a service seen more than twice as often, so that in the life of the daemon the number of series grows with
//! the logarithm of the flows. What is not exported is counted in `~other`.
//!
//! A flow is counted in one series, the one that its service had when it began: what a displaced service had counted is
//! not added to `~other` again, since that would look like new traffic, and no series goes back. A displaced service that
//! is exported again goes on from its last value, as long as it was tracked meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use flowproof_common::address::Address;

/// Services that are counted at most.
pub const TRACKED: usize = 1_024;
/// Services that are exported as series at most.
pub const EXPORTED: usize = 100;
/// A service displaces an exported one when it was seen more than this many times as often.
const DISPLACES: u64 = 2;

/// What an unexpected flow is counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnexpectedService {
    /// Roles of the initiator.
    pub from: Arc<str>,
    /// Roles of the responder.
    pub to: Arc<str>,
    /// IP protocol number.
    pub protocol: u8,
    /// Port of the responder, type of ICMP, or 0.
    pub port: u16,
}

/// One unexpected flow.
#[derive(Debug, Clone, Copy)]
pub struct Sighting {
    /// Nanoseconds of the back end's clock.
    pub time: u64,
    /// Who opened it.
    pub initiator: Address,
    /// Whom it was meant for.
    pub responder: Address,
}

/// A counted service.
#[derive(Debug, Clone)]
pub struct UnexpectedEntry {
    /// What it is.
    pub service: UnexpectedService,
    /// Flows seen since it is counted; flows of a time when it was pushed out are missing.
    pub flows: u64,
    /// The last of them.
    pub last: Sighting,
    /// Whether it has a series now.
    exported: bool,
    /// Flows that began while it had one.
    in_series: u64,
    /// The count of the space-saving algorithm: at least the flows seen, at most those of the entry it replaced more.
    weight: u64,
}

/// Counts unexpected flows.
#[derive(Debug, Default)]
pub struct Unexpected {
    entries: Vec<UnexpectedEntry>,
    index: HashMap<UnexpectedService, usize>,
    /// (weight, entry) of those that are not exported.
    candidates: BTreeSet<(u64, usize)>,
    /// (flows, entry) of those that are.
    exported: BTreeSet<(u64, usize)>,
    /// Flows that began while their service had a series.
    in_series: u64,
    other: u64,
    recorded: u64,
}

impl Unexpected {
    /// How often [`Unexpected::record`] was called.
    #[must_use]
    pub const fn recorded(&self) -> u64 {
        self.recorded
    }

    /// Counts a flow.
    pub fn record(&mut self, service: UnexpectedService, sighting: Sighting) {
        self.recorded += 1;
        let position = match self.index.get(&service) {
            Some(position) => *position,
            None => self.admit(service, sighting),
        };
        let entry = &mut self.entries[position];
        let before = (entry.weight, entry.flows);
        entry.weight += 1;
        entry.flows += 1;
        entry.last = sighting;
        let after = (entry.weight, entry.flows);
        if entry.exported {
            entry.in_series += 1;
            self.in_series += 1;
            self.exported.remove(&(before.1, position));
            self.exported.insert((after.1, position));
            return;
        }
        self.candidates.remove(&(before.0, position));
        self.candidates.insert((after.0, position));
        if self.exported.len() < EXPORTED {
            self.export(position);
        } else if let Some((least, loser)) = self.exported.first().copied()
            && after.1 > least.saturating_mul(DISPLACES)
        {
            self.exported.remove(&(least, loser));
            let loser_entry = &mut self.entries[loser];
            loser_entry.exported = false;
            self.candidates.insert((loser_entry.weight, loser));
            self.export(position);
        }
    }

    /// A place for a service that is not counted yet.
    fn admit(&mut self, service: UnexpectedService, sighting: Sighting) -> usize {
        let entry = UnexpectedEntry {
            service: service.clone(),
            flows: 0,
            last: sighting,
            exported: false,
            in_series: 0,
            weight: 0,
        };
        let position = if self.entries.len() < TRACKED {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            // Fewer are exported than counted, so there is always one to replace.
            let (weight, position) = self.candidates.pop_first().unwrap_or_default();
            let replaced = std::mem::replace(&mut self.entries[position], entry);
            self.index.remove(&replaced.service);
            self.entries[position].weight = weight;
            position
        };
        self.candidates
            .insert((self.entries[position].weight, position));
        self.index.insert(service, position);
        position
    }

    /// Gives a series to a service, with the flow at hand. Its earlier flows were counted in `~other` and stay there.
    fn export(&mut self, position: usize) {
        let entry = &mut self.entries[position];
        self.candidates.remove(&(entry.weight, position));
        entry.exported = true;
        entry.in_series += 1;
        self.in_series += 1;
        self.exported.insert((entry.flows, position));
    }

    /// The exported services with their flows, in a stable order.
    #[must_use]
    pub fn series(&self) -> Vec<(UnexpectedService, u64)> {
        let mut series: Vec<_> = self
            .entries
            .iter()
            .filter(|entry| entry.exported)
            .map(|entry| (entry.service.clone(), entry.in_series))
            .collect();
        series.sort_by(|(a, _), (b, _)| {
            (&a.from, &a.to, a.protocol, a.port).cmp(&(&b.from, &b.to, b.protocol, b.port))
        });
        series
    }

    /// Flows that no series counted when they began, given the exact number of all unexpected flows. Never goes back:
    /// `total` may have been read a moment before the last flows were recorded.
    pub fn other(&mut self, total: u64) -> u64 {
        self.other = self.other.max(total.saturating_sub(self.in_series));
        self.other
    }

    /// Services that are told apart now and have no series. If they and those that have one are [`TRACKED`], there may
    /// be more.
    #[must_use]
    pub fn folded(&self) -> usize {
        self.candidates.len()
    }

    /// The services with the most flows, most first.
    #[must_use]
    pub fn top(&self, most: usize) -> Vec<UnexpectedEntry> {
        let mut entries: Vec<&UnexpectedEntry> = self.entries.iter().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.flows));
        entries.into_iter().take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn service(port: u16) -> UnexpectedService {
        UnexpectedService {
            from: Arc::from("s/client"),
            to: Arc::from("s/server"),
            protocol: 6,
            port,
        }
    }

    fn sighting(time: u64) -> Sighting {
        Sighting {
            time,
            initiator: Address::from_v4([10, 0, 0, 1]),
            responder: Address::from_v4([10, 0, 0, 2]),
        }
    }

    #[test]
    fn counts_exactly_while_there_is_room() {
        let mut unexpected = Unexpected::default();
        for time in 0..5 {
            unexpected.record(service(22), sighting(time));
        }
        unexpected.record(service(23), sighting(9));
        assert_eq!(unexpected.series(), [(service(22), 5), (service(23), 1)]);
        assert_eq!(unexpected.other(6), 0);
        let top = unexpected.top(1);
        assert_eq!(
            (top[0].service.port, top[0].flows, top[0].last.time),
            (22, 5, 4)
        );
    }

    #[test]
    fn a_port_scan_does_not_hide_what_comes_often() {
        let mut unexpected = Unexpected::default();
        let mut total = 0;
        for port in 1..=u16::MAX {
            unexpected.record(service(port), sighting(0));
            total += 1;
            if port % 64 == 0 {
                unexpected.record(service(0), sighting(0));
                total += 1;
            }
        }
        let series = unexpected.series();
        assert_eq!(series.len(), EXPORTED);
        assert!(unexpected.entries.len() <= TRACKED);
        assert_eq!(unexpected.top(1)[0].service.port, 0);
        let often = series
            .iter()
            .find(|(service, _)| service.port == 0)
            .unwrap()
            .1;
        assert!(often > 900, "{often}");
        let sum: u64 = series.iter().map(|(_, flows)| flows).sum();
        assert_eq!(sum + unexpected.other(total), total);
        assert_eq!(unexpected.folded(), TRACKED - EXPORTED);
    }

    #[test]
    fn a_displaced_service_is_counted_on_and_counts_nothing_twice() {
        let mut unexpected = Unexpected::default();
        let exported = u16::try_from(EXPORTED).unwrap();
        let mut total = 0;
        let mut record = |unexpected: &mut Unexpected, port, times| {
            for _ in 0..times {
                unexpected.record(service(port), sighting(0));
                total += 1;
            }
            total
        };
        let of = |unexpected: &Unexpected, port| {
            let series = unexpected.series().into_iter();
            series
                .filter(|(service, _)| service.port == port)
                .map(|(_, flows)| flows)
                .next()
        };
        // The first is the weakest.
        record(&mut unexpected, 0, 10);
        for port in 1..exported {
            record(&mut unexpected, port, 100);
        }
        assert_eq!(record(&mut unexpected, 1_000, 20), 9_930);
        assert_eq!(
            (of(&unexpected, 0), unexpected.other(9_930)),
            (Some(10), 20)
        );
        // More than twice as often: it gets the series, and its past stays in `~other`, which does not jump.
        record(&mut unexpected, 1_000, 1);
        assert_eq!(
            (of(&unexpected, 0), of(&unexpected, 1_000)),
            (None, Some(1))
        );
        assert_eq!((unexpected.other(9_931), unexpected.folded()), (20, 1));
        // What the displaced one does now is counted in `~other`, until it is exported again: then it goes on from 10.
        record(&mut unexpected, 0, 32);
        assert_eq!((of(&unexpected, 0), unexpected.other(9_963)), (None, 52));
        let all = record(&mut unexpected, 0, 1);
        assert_eq!((of(&unexpected, 0), unexpected.other(all)), (Some(11), 52));
    }

    mod properties {
        use super::*;

        proptest! {
            // Each looks at all series after every flow.
            #![proptest_config(ProptestConfig::with_cases(32))]

            #[test]
            fn increases_add_up_and_nothing_goes_back(ports in proptest::collection::vec(0_u16..400, 0..2_000)) {
                let mut unexpected = Unexpected::default();
                let mut total = 0;
                let mut last_other = 0;
                let mut last: HashMap<UnexpectedService, u64> = HashMap::new();
                // What Prometheus would add up over all series, from scrape to scrape.
                let mut increases = 0;
                for (time, port) in (0..).zip(ports) {
                    // Half of the flows are of few services.
                    let port = if port % 2 == 0 { port % 7 } else { port };
                    unexpected.record(service(port), sighting(time));
                    total += 1;
                    // Scraped after every flow, so that no increase of a series that is displaced later is missed.
                    let series = unexpected.series();
                    prop_assert!(series.len() <= EXPORTED);
                    let other = unexpected.other(total);
                    prop_assert!(other >= last_other);
                    increases += other - last_other;
                    last_other = other;
                    for (service, flows) in series {
                        let before = last.insert(service, flows).unwrap_or(0);
                        prop_assert!(flows >= before);
                        increases += flows - before;
                    }
                    prop_assert_eq!(increases, total);
                }
                prop_assert_eq!(unexpected.exported.len() + unexpected.candidates.len(), unexpected.entries.len());
                prop_assert_eq!(unexpected.index.len(), unexpected.entries.len());
            }
        }
    }
}
