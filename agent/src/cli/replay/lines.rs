//! The JSON Lines of `flowproof replay`: a contract with types of its own, so that it does not follow when the inside
//! changes. Every field is always there, null where it means nothing.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::capture::Snapshot;
use crate::flow::Span;
use crate::matrix::{Protocol, Service};
use crate::verdict::requirement::{Cause, Confidence, Finding, Observation, State};
use flowproof_common::classify::Verdict;
use flowproof_common::protocol;
use flowproof_common::record::index;
use flowproof_common::state::Outcome;

use super::gather::Flow;
use super::judged::Judged;

/// RFC 3339 in UTC with nanoseconds.
pub(super) fn time(nanos: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
    humantime::format_rfc3339_nanos(time).to_string()
}

/// The protocol as the contracts write it: a name for five, a number for the rest.
pub(super) fn protocol_text(number: u8) -> String {
    match Protocol::from_number(number) {
        Protocol::Other(number) => number.to_string(),
        named @ (Protocol::Tcp
        | Protocol::Udp
        | Protocol::Icmp
        | Protocol::Icmpv6
        | Protocol::Vrrp) => named.to_string(),
    }
}

#[derive(Serialize)]
pub(super) struct End {
    pub(super) address: String,
    pub(super) port: Option<u16>,
    pub(super) roles: Vec<String>,
    names: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct NearMiss {
    pub(super) kind: &'static str,
    pub(super) requirement: String,
    pub(super) detail: String,
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "flow")]
pub(super) struct FlowLine {
    pub(super) protocol: String,
    pub(super) initiator: End,
    pub(super) responder: End,
    pub(super) verdict: &'static str,
    pub(super) requirements: Vec<String>,
    pub(super) outcome: &'static str,
    pub(super) near_misses: Vec<NearMiss>,
    pub(super) packets: [u64; 2],
    pub(super) bytes: [u64; 2],
    pub(super) first_seen: String,
    last_seen: String,
    pub(super) joined_midway: bool,
    pub(super) evidence: Vec<String>,
}

impl FlowLine {
    pub(super) fn new(flow: &Flow, judged: &Judged) -> Self {
        let end = |side| {
            let (address, port) = flow.key.end(side);
            End {
                address: address.to_string(),
                port: protocol::has_ports(flow.key.protocol).then_some(port),
                roles: judged.roles(&address),
                names: Vec::new(),
            }
        };
        let (initiator, responder) = (index(flow.initiator()), index(flow.responder()));
        let by_direction = |counts: [u64; 2]| [counts[initiator], counts[responder]];
        Self {
            protocol: protocol_text(flow.key.protocol),
            initiator: end(flow.initiator()),
            responder: end(flow.responder()),
            verdict: flow.record.state.verdict().name(),
            requirements: judged.services_of(flow.record.slot),
            outcome: flow.outcome().name(),
            near_misses: judged.near_misses(flow),
            packets: by_direction(flow.record.packets),
            bytes: by_direction(flow.record.bytes),
            first_seen: time(flow.span.first),
            last_seen: time(flow.span.last),
            joined_midway: flow.record.state.joined_midway(),
            evidence: flow.evidence(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct ServiceLine {
    pub(super) service: String,
    pub(super) state: &'static str,
    pub(super) cause: Option<&'static str>,
    pub(super) flows: u64,
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) first_seen: Option<String>,
    pub(super) last_seen: Option<String>,
}

impl ServiceLine {
    pub(super) fn new(service: Service, finding: &Finding, observation: &Observation) -> Self {
        Self {
            service: service.to_string(),
            state: finding.state.name(),
            cause: finding.cause.map(Cause::name),
            flows: observation.flows,
            answered: observation.answered,
            failed: observation.failed,
            first_seen: observation.first_seen.map(time),
            last_seen: observation.last_seen.map(time),
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "requirement")]
pub(super) struct RequirementLine {
    pub(super) id: String,
    pub(super) state: &'static str,
    pub(super) cause: Option<&'static str>,
    pub(super) place: Option<String>,
    pub(super) confidence: Option<&'static str>,
    pub(super) services: Vec<ServiceLine>,
}

impl RequirementLine {
    pub(super) fn new(id: String, finding: &Finding, services: Vec<ServiceLine>) -> Self {
        Self {
            id,
            state: finding.state.name(),
            cause: finding.cause.map(Cause::name),
            place: finding.place.map(|place| place.to_string()),
            confidence: finding.confidence.map(Confidence::name),
            services,
        }
    }
}

/// Counts by name, every name included, in the order of the documentation.
type Counts = serde_json::Map<String, serde_json::Value>;

fn counts(names: impl IntoIterator<Item = &'static str>, seen: &BTreeMap<&str, u64>) -> Counts {
    names
        .into_iter()
        .map(|name| {
            let count = seen.get(name).copied().unwrap_or_default();
            (name.to_owned(), count.into())
        })
        .collect()
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "summary")]
pub(super) struct SummaryLine {
    pub(super) packets: u64,
    pub(super) packets_unparsed: u64,
    pub(super) bytes: u64,
    pub(super) flows: u64,
    pub(super) by_verdict: Counts,
    pub(super) by_outcome: Counts,
    pub(super) by_state: Counts,
    pub(super) lost: Counts,
    pub(super) seconds: f64,
}

impl SummaryLine {
    pub(super) fn new(
        totals: &Snapshot,
        span: Option<Span>,
        flows: &[Flow],
        states: &[State],
    ) -> Self {
        let mut verdicts = BTreeMap::new();
        let mut outcomes = BTreeMap::new();
        let mut by_state = BTreeMap::new();
        for flow in flows {
            *verdicts
                .entry(flow.record.state.verdict().name())
                .or_default() += 1;
            *outcomes.entry(flow.outcome().name()).or_default() += 1;
        }
        for state in states {
            *by_state.entry(state.name()).or_default() += 1;
        }
        let sum = |of: fn(&flowproof_common::record::InterfaceCounters) -> u64| {
            totals
                .interfaces
                .iter()
                .map(|(_, counters)| of(counters))
                .sum()
        };
        let seconds = span.map_or(0.0, |span| {
            Duration::from_nanos(span.last.saturating_sub(span.first)).as_secs_f64()
        });
        Self {
            packets: sum(|counters| counters.packets),
            packets_unparsed: sum(|counters| counters.unparsed),
            bytes: sum(|counters| counters.bytes),
            flows: flows.len() as u64,
            by_verdict: counts(Verdict::ALL.map(Verdict::name), &verdicts),
            by_outcome: counts(Outcome::ALL.map(Outcome::name), &outcomes),
            by_state: counts(State::ALL.map(State::name), &by_state),
            lost: totals
                .lost
                .iter()
                .map(|(stage, count)| ((*stage).to_owned(), (*count).into()))
                .collect(),
            seconds,
        }
    }
}
