//! Unexpected traffic by roles and service, for people: what it nearly met, who sent it and how often. A daemon counts longer
//! than it remembers flows, so its counts lead, and the flows that are still known tell the rest.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use flowproof_common::classify::Verdict;

use crate::export::flow_line::{End, FlowLine, NearMiss, PENDING};
use crate::matrix::Protocol;

/// Groups that are told; the rest is one group. A port scan has 65,535 of them.
const MOST_GROUPS: usize = 500;
/// Addresses of an end, and near misses, that a group is told with.
pub const MOST_EACH: usize = 8;
/// In place of roles where there are none, as in the metrics.
pub const NO_ROLE: &str = "~unbound";
/// The rest, as in the metrics.
const OTHER: &str = "~other";

/// What a daemon counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Roles of the initiator, as `flowproof_unexpected_flows_total` has them.
    pub from: String,
    /// Roles of the responder.
    pub to: String,
    /// `tcp/8443`, `icmp/8`, `gre`
    pub service: String,
    /// Flows.
    pub flows: u64,
}

/// Unexpected flows between the same roles to the same service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unexpected {
    /// Roles of the initiator.
    pub from: String,
    /// Roles of the responder.
    pub to: String,
    /// `tcp/8443`
    pub service: String,
    /// Flows.
    pub flows: u64,
    /// Outcomes of the flows that are known still.
    pub outcomes: BTreeMap<String, u64>,
    /// Addresses that opened them, some of them.
    pub initiators: Vec<String>,
    /// Addresses that they were for, some of them.
    pub responders: Vec<String>,
    /// First packet of the flows that are known still, RFC 3339.
    pub first_seen: Option<String>,
    /// Last packet of them, RFC 3339.
    pub last_seen: Option<String>,
    /// What they nearly met, best first.
    pub near_misses: Vec<NearMiss>,
}

/// Roles of the initiator, roles of the responder, and service.
pub type Key = (String, String, String);

impl Unexpected {
    /// Of which nothing is known yet.
    #[must_use]
    pub fn empty((from, to, service): Key) -> Self {
        Self {
            from,
            to,
            service,
            flows: 0,
            outcomes: BTreeMap::new(),
            initiators: Vec::new(),
            responders: Vec::new(),
            first_seen: None,
            last_seen: None,
            near_misses: Vec::new(),
        }
    }

    fn other() -> Self {
        Self::empty((OTHER.to_owned(), OTHER.to_owned(), OTHER.to_owned()))
    }

    fn key(&self) -> Key {
        (self.from.clone(), self.to.clone(), self.service.clone())
    }

    fn add(&mut self, flow: &FlowLine) {
        self.flows += 1;
        *self.outcomes.entry(flow.outcome.to_string()).or_default() += 1;
        some(&mut self.initiators, shown(&flow.initiator));
        some(&mut self.responders, shown(&flow.responder));
        for miss in &flow.near_misses {
            some(&mut self.near_misses, miss.clone());
        }
        // Times of one length and zone compare as texts.
        let first = self
            .first_seen
            .get_or_insert_with(|| flow.first_seen.clone());
        if flow.first_seen < *first {
            first.clone_from(&flow.first_seen);
        }
        self.last_seen = self.last_seen.take().max(Some(flow.last_seen.clone()));
    }

    /// When they were seen, in words; empty if that is not known.
    #[must_use]
    pub fn span(&self) -> String {
        match (&self.first_seen, &self.last_seen) {
            (Some(first), Some(last)) if first != last => format!("first {first}, last {last}"),
            (Some(time), _) | (None, Some(time)) => format!("at {time}"),
            (None, None) => String::new(),
        }
    }

    /// Outcomes in words.
    #[must_use]
    pub fn outcomes(&self) -> String {
        let texts: Vec<String> = self
            .outcomes
            .iter()
            .map(|(outcome, count)| format!("{count} {outcome}"))
            .collect();
        texts.join(", ")
    }
}

/// Groups while flows are added, bounded whatever the network sends.
#[derive(Debug, Default)]
pub struct Groups {
    groups: BTreeMap<Key, Unexpected>,
    /// Flows that found no room.
    other: u64,
    /// Flows that wait for their name.
    pending: u64,
}

impl Groups {
    /// Groups that are kept while flows are added.
    const ROOM: usize = 50_000;

    /// Adds a flow. What is expected or unscoped counts for nothing here.
    pub fn add(&mut self, flow: &FlowLine) {
        if flow.verdict == PENDING {
            self.pending += 1;
            return;
        }
        if flow.verdict != Verdict::Unexpected.name() {
            return;
        }
        let key = (
            roles(&flow.initiator),
            roles(&flow.responder),
            service(flow),
        );
        if self.groups.len() >= Self::ROOM && !self.groups.contains_key(&key) {
            self.other += 1;
            return;
        }
        self.groups
            .entry(key.clone())
            .or_insert_with(|| Unexpected::empty(key))
            .add(flow);
    }

    /// Adds flows that were counted together; there must be no others of their kind.
    pub fn put(&mut self, group: Unexpected) {
        if self.groups.len() >= Self::ROOM {
            self.other += group.flows;
        } else {
            self.groups.insert(group.key(), group);
        }
    }

    /// Flows that wait for their name, and are judged neither way.
    #[must_use]
    pub const fn pending(&self) -> u64 {
        self.pending
    }

    /// The most frequent first; what a daemon counted leads, if it did.
    #[must_use]
    pub fn finish(mut self, counted: Option<&[Counted]>) -> Vec<Unexpected> {
        if let Some(counted) = counted {
            self.groups = by_counts(self.groups, counted);
        } else if self.other > 0 {
            let mut other = Unexpected::other();
            other.flows = self.other;
            self.groups.insert(other.key(), other);
        }
        let mut list: Vec<Unexpected> = self.groups.into_values().collect();
        list.sort_by_key(|group| (group.service == OTHER, Reverse(group.flows)));
        fold(&mut list);
        list
    }
}

/// What was counted leads: a group has at least the flows that are known still, and at least those that were counted.
fn by_counts(
    mut known: BTreeMap<Key, Unexpected>,
    counted: &[Counted],
) -> BTreeMap<Key, Unexpected> {
    let mut groups = BTreeMap::new();
    for count in counted.iter().filter(|count| count.flows > 0) {
        let key = (count.from.clone(), count.to.clone(), count.service.clone());
        // Lines of ICMP flows do not tell the type.
        let plain = match count.service.split_once('/') {
            Some((protocol @ ("icmp" | "icmpv6"), _)) => protocol.to_owned(),
            Some(_) | None => count.service.clone(),
        };
        let mut group = known
            .remove(&(key.0.clone(), key.1.clone(), plain))
            .unwrap_or_else(|| Unexpected::empty(key.clone()));
        group.service.clone_from(&count.service);
        group.flows = group.flows.max(count.flows);
        groups.insert(key, group);
    }
    // These were counted in `~other`, so that the sum stays what it was.
    let unnamed: u64 = known.values().map(|group| group.flows).sum();
    for (key, group) in known {
        groups.insert(key, group);
    }
    if let Some(group) = groups.get_mut(&Unexpected::other().key()) {
        group.flows = group.flows.saturating_sub(unnamed);
    }
    groups.retain(|_, group| group.flows > 0);
    groups
}

/// Leaves the most frequent and makes one group of the rest.
fn fold(list: &mut Vec<Unexpected>) {
    if list.len() <= MOST_GROUPS {
        return;
    }
    let rest = list.split_off(MOST_GROUPS - 1);
    let mut other = Unexpected::other();
    for group in rest {
        other.flows += group.flows;
        for (outcome, count) in group.outcomes {
            *other.outcomes.entry(outcome).or_default() += count;
        }
        other.last_seen = other.last_seen.take().max(group.last_seen);
        other.first_seen = match (other.first_seen.take(), group.first_seen) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
    }
    list.push(other);
}

fn some<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if list.len() < MOST_EACH && !list.contains(&item) {
        list.push(item);
    }
}

fn roles(end: &End) -> String {
    if end.roles.is_empty() {
        NO_ROLE.to_owned()
    } else {
        end.roles.join(",")
    }
}

/// An address with its first name.
pub(super) fn shown(end: &End) -> String {
    match end.names.first() {
        Some(name) => format!("{} ({name})", end.address),
        None => end.address.clone(),
    }
}

/// The service of a flow as a matrix would write it, but for the type of ICMP.
pub(super) fn service(flow: &FlowLine) -> String {
    let protocol = flow
        .protocol
        .parse::<Protocol>()
        .map_or_else(|_| flow.protocol.clone(), |known| known.to_string());
    match flow.responder.port {
        Some(port) => format!("{protocol}/{port}"),
        None => protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(role: Option<&str>, port: Option<u16>) -> End {
        End {
            address: "10.0.0.1".to_owned(),
            port,
            roles: role.map(ToOwned::to_owned).into_iter().collect(),
            names: Vec::new(),
        }
    }

    fn flow(protocol: &str, port: Option<u16>, verdict: &'static str) -> FlowLine {
        FlowLine {
            protocol: protocol.to_owned(),
            initiator: end(Some("s/a"), port),
            responder: end(None, port),
            verdict: verdict.into(),
            requirements: Vec::new(),
            outcome: "refused".into(),
            near_misses: Vec::new(),
            packets: [1, 1],
            bytes: [60, 60],
            first_seen: "2026-01-01T00:00:00.000000000Z".to_owned(),
            last_seen: "2026-01-01T00:00:01.000000000Z".to_owned(),
            joined_midway: false,
            evidence: Vec::new(),
        }
    }

    fn counted(service: &str, flows: u64) -> Counted {
        let (from, to) = if service == OTHER {
            (OTHER, OTHER)
        } else {
            ("s/a", NO_ROLE)
        };
        Counted {
            from: from.to_owned(),
            to: to.to_owned(),
            service: service.to_owned(),
            flows,
        }
    }

    /// Adds flows, and compares (service, flows, flows that are known still).
    #[track_caller]
    fn check(flows: &[FlowLine], counts: Option<&[Counted]>, expect: &[(&str, u64, u64)]) {
        let mut groups = Groups::default();
        for flow in flows {
            groups.add(flow);
        }
        let list = groups.finish(counts);
        let got: Vec<(&str, u64, u64)> = list
            .iter()
            .map(|group| {
                let known = group.outcomes.values().sum();
                (group.service.as_str(), group.flows, known)
            })
            .collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn what_a_daemon_counted_leads() {
        let web = || flow("tcp", Some(80), "unexpected");
        let ping = || flow("icmp", None, "unexpected");
        check(&[web(), web()], None, &[("tcp/80", 2, 2)]);
        check(&[flow("tcp", Some(80), "expected")], None, &[]);
        check(&[flow("47", None, "unexpected")], None, &[("gre", 1, 1)]);
        // Gone from the tables, and not forgotten.
        check(&[], Some(&[counted("tcp/80", 7)]), &[("tcp/80", 7, 0)]);
        check(
            &[web()],
            Some(&[counted("tcp/80", 7), counted(OTHER, 0)]),
            &[("tcp/80", 7, 1)],
        );
        // Lines of pings do not tell their type.
        check(
            &[ping()],
            Some(&[counted("icmp/8", 3)]),
            &[("icmp/8", 3, 1)],
        );
        // What has no series of its own was counted among the rest: the sum stays.
        check(
            &[web()],
            Some(&[counted("tcp/22", 5), counted(OTHER, 4)]),
            &[("tcp/22", 5, 0), ("tcp/80", 1, 1), (OTHER, 3, 0)],
        );
    }

    #[test]
    fn a_port_scan_is_bounded_and_nothing_is_lost() {
        let mut groups = Groups::default();
        for port in 1..=u16::MAX {
            groups.add(&flow("tcp", Some(port), "unexpected"));
        }
        groups.add(&flow("tcp", Some(443), PENDING));
        assert_eq!(groups.pending(), 1);
        assert!(groups.groups.len() <= Groups::ROOM);
        let list = groups.finish(None);
        assert_eq!(list.len(), MOST_GROUPS);
        assert_eq!(list.iter().map(|group| group.flows).sum::<u64>(), 65_535);
        assert_eq!(list[MOST_GROUPS - 1].service, OTHER);
    }
}
