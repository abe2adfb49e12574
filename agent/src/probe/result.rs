//! What all probes of a run say of its rows, by the same rules as traffic that was seen.
//!
//! A run is one look: its probes came one after the other only to keep the rate. So an answer never makes up for another
//! end's failure, whichever came first: failures are dated to the end of the run and answers to its beginning, which
//! makes a row `degraded` that one end answered and another did not.

use super::judge::Judged;
use super::plan::{Plan, PlannedService, Why, port_count, ports};
use super::{Probe, tried};
use crate::export::probe_line::{NotProbed, ProbeLine, ProbedLine, RangeLine};
use crate::export::requirement_line::{RequirementLine, ServiceLine};
use crate::verdict::requirement::{
    Attempt, Cause, Finding, Observation, State, Vantage, of_services,
};
use flowproof_common::state::Outcome;

/// A probe that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Which.
    pub probe: Probe,
    /// What became of it.
    pub judged: Judged,
    /// When it began and ended, nanoseconds since the Unix epoch.
    pub span: [u64; 2],
}

/// A row with what was found.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its state.
    pub state: State,
    /// Whether the product works without it.
    pub required: bool,
    /// Its line.
    pub line: ProbedLine,
}

/// The rows of a plan after these probes; `span` is when the run began and ended, nanoseconds since the Unix epoch.
#[must_use]
pub fn rows(plan: &Plan, ended: &[Ended], span: [u64; 2]) -> Vec<Row> {
    plan.rows
        .iter()
        .enumerate()
        .map(|(number, row)| {
            let mut probes = Vec::new();
            let mut not_probed = Vec::new();
            let mut ranges = Vec::new();
            let mut services = Vec::new();
            let mut findings: Vec<Finding> = Vec::new();
            for (position, planned) in row.services.iter().enumerate() {
                let mut observation = Observation::default();
                let of_service = ended
                    .iter()
                    .filter(|ended| (ended.probe.row, ended.probe.service) == (number, position));
                for ended in of_service {
                    observation.add(&attempt(ended, span));
                    probes.push(probe_line(planned, ended));
                }
                let finding = observation.finding(vantage(planned));
                services.push(ServiceLine::new(planned.service, &finding, &observation));
                findings.push(finding);
                not_probed.extend(not_probed_lines(planned));
                ranges.extend(range(planned, observation.flows > 0));
            }
            let finding = of_services(findings);
            Row {
                state: finding.state,
                required: row.required,
                line: ProbedLine {
                    requirement: RequirementLine::new(row.id.clone(), &finding, services),
                    probed: true,
                    probes,
                    not_probed,
                    ranges,
                },
            }
        })
        .collect()
}

fn attempt(ended: &Ended, [begun, over]: [u64; 2]) -> Attempt {
    let judged = &ended.judged;
    Attempt {
        outcome: judged.counts_as,
        decided: if judged.counts_as == Outcome::Answered {
            begun
        } else {
            over.max(begun + 1)
        },
        first_seen: ended.span[0],
        last_seen: ended.span[1],
        place: judged.place,
        told: judged.told,
        answerable: true,
    }
}

/// What could be found out about a service of which nothing was.
fn vantage(planned: &PlannedService) -> Vantage {
    let by_name = planned
        .skipped
        .iter()
        .find_map(|skipped| match skipped.why {
            Why::Name(resolution) => Some(Vantage::Unresolved(resolution)),
            Why::Blind(_) => None,
        });
    let blind = || {
        planned
            .skipped
            .iter()
            .find_map(|skipped| match skipped.why {
                Why::Blind(blind) => Some(Vantage::Blind(blind)),
                Why::Name(_) => None,
            })
    };
    // Nothing in its way, and yet not tried: the run was interrupted.
    by_name.or_else(blind).unwrap_or(Vantage::Clear)
}

fn probe_line(planned: &PlannedService, ended: &Ended) -> ProbeLine {
    let probe = &ended.probe;
    let [begun, over] = ended.span;
    ProbeLine {
        service: tried(planned.service, probe.port),
        initiator: probe.source.to_string(),
        target: probe.target.to_string(),
        name: probe.name.as_ref().map(ToString::to_string),
        question: probe.question.name().to_owned(),
        outcome: ended.judged.outcome.name().to_owned(),
        milliseconds: milliseconds(over.saturating_sub(begun)),
        evidence: ended.judged.evidence.clone(),
    }
}

/// To the microsecond: what is below it is this program's own.
fn milliseconds(nanos: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a probe takes far less than 2^53 microseconds"
    )]
    let micros = (nanos / 1_000) as f64;
    micros / 1_000.0
}

/// What of a service is not tried, as lines.
pub fn not_probed_lines(planned: &PlannedService) -> impl Iterator<Item = NotProbed> + '_ {
    planned.skipped.iter().map(|skipped| NotProbed {
        service: planned.service.to_string(),
        target: skipped.target.clone(),
        cause: match skipped.why {
            Why::Blind(blind) => Cause::Blind(blind).name(),
            Why::Name(resolution) => Cause::Name(resolution).name(),
        }
        .to_owned(),
        detail: skipped.detail.clone(),
    })
}

/// How much of a range was tried, if it was and not all of it.
#[must_use]
pub fn range(planned: &PlannedService, tried: bool) -> Option<RangeLine> {
    let (few, all) = (ports(planned.service).len(), port_count(planned.service));
    (tried && few < all).then(|| RangeLine {
        service: planned.service.to_string(),
        tried: few,
        of: all,
    })
}

#[cfg(test)]
mod tests;
