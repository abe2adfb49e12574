//! What several agents show of a matrix, as recording rules in Prometheus joined it: every place that a service is sent from with
//! what becomes of it, and what each agent at an end or between them says. Pure; whoever asks Prometheus hands the samples in.
//!
//! The rules decide; this only puts their findings into the model of all reports. A row is `verified` if every sender that is known
//! says that it works, and `unknown` if one of them can't be asked: an agent that is down is no proof.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::model::Evidence;
use super::ticket::Failures;
use crate::export::requirement_line::{LastFailure, RequirementLine, ServiceLine};
use crate::export::times::time;
use crate::matrix::{Matrix, System};
use crate::verdict::requirement::State;

/// Labels of a series.
pub type Labels = BTreeMap<String, String>;
/// A series and its value.
pub type Sample = (Labels, f64);

/// What Prometheus said, each from one query.
#[derive(Debug, Default)]
pub struct Samples {
    /// `flowproof:requirement_finding:current`
    pub findings: Vec<Sample>,
    /// `flowproof:requirement_vantage:known`
    pub known: Vec<Sample>,
    /// `flowproof:requirement_vantage:trusted`
    pub trusted: Vec<Sample>,
    /// `flowproof:requirement_failed:timestamp_seconds`
    pub failed: Vec<Sample>,
    /// When a flow began last, at each of them.
    pub attempts: Vec<Sample>,
    /// When a flow was answered last, at each of them.
    pub answers: Vec<Sample>,
    /// Flows begun, answered and failed, by service.
    pub flows: [Vec<Sample>; 3],
}

/// What one agent says of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Sighting {
    /// `tcp/443`
    pub service: String,
    /// The agent, as Prometheus calls it.
    pub instance: String,
    /// Where it stands: `initiator`, `responder`, `both` or `path`.
    pub vantage: String,
    /// The state there; null if the agent is down or its capture failed.
    pub state: Option<String>,
    /// What becomes of the service as seen from there, if it sends or nobody does.
    pub finding: Option<String>,
    /// How it failed last there: outcome.
    pub outcome: Option<String>,
    /// And where: `this_host`, `hop`, `peer`, `path`.
    pub place: Option<String>,
    /// And when, RFC 3339.
    pub last_failure: Option<String>,
    /// When a flow began last, RFC 3339.
    pub last_attempt: Option<String>,
    /// When one was answered last, RFC 3339.
    pub last_answered: Option<String>,
}

impl Sighting {
    /// In words: `pc1:9871 (initiator) says blocked, no_answer at path, last tried TIME`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut text = format!("{} ({})", self.instance, self.vantage);
        match &self.state {
            Some(state) => text.push_str(&format!(" says {state}")),
            None => text.push_str(" is down or blind"),
        }
        let fails = [State::Blocked, State::Degraded].map(State::name);
        if let (Some(state), Some(outcome)) = (&self.state, &self.outcome)
            && fails.contains(&state.as_str())
        {
            text.push_str(&format!(", {outcome}"));
            if let Some(place) = self.place.as_ref().filter(|place| *place != "unknown") {
                text.push_str(&format!(" at {place}"));
            }
        }
        match (&self.last_attempt, &self.last_answered) {
            (None, _) if self.state.is_some() => text.push_str(", never tried"),
            (Some(attempt), Some(answered)) => {
                text.push_str(&format!(", last tried {attempt}, answered {answered}"));
            }
            (Some(attempt), None) => {
                text.push_str(&format!(", last tried {attempt}, never answered"))
            }
            (None, _) => {}
        }
        text
    }
}

/// Findings that are failures, the best located first.
const FAILURES: [&str; 5] = [
    "refused_by_peer",
    "answer_lost",
    "lost_on_path",
    "dropped_at_source",
    "unlocated",
];

/// Where a finding places the failure, as reports say it.
fn place(finding: &str) -> Option<&'static str> {
    match finding {
        "refused_by_peer" => Some("the responder"),
        "answer_lost" => Some("the way back"),
        "lost_on_path" => Some("between the ends"),
        "dropped_at_source" => Some("the sender"),
        _ => None,
    }
}

/// How sure a finding is: what rests on one agent's word only is less.
fn confidence(finding: &str) -> Option<&'static str> {
    match finding {
        "refused_by_peer" | "answer_lost" | "lost_on_path" | "dropped_at_source" => Some("high"),
        "unlocated" => Some("low"),
        _ => None,
    }
}

/// A service of a row.
type Of = (String, String, String);
/// A service of a row at an agent.
type At = (Of, String);

fn label(labels: &Labels, name: &str) -> String {
    labels.get(name).cloned().unwrap_or_default()
}

fn of(labels: &Labels) -> Of {
    (
        label(labels, "system"),
        label(labels, "requirement"),
        label(labels, "service"),
    )
}

fn at(labels: &Labels) -> At {
    (of(labels), label(labels, "instance"))
}

/// A moment in seconds since the Unix epoch; nothing for 0, which means never.
fn moment(seconds: f64) -> Option<String> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked in the same expression"
    )]
    (seconds > 0.0 && seconds < 1e10).then(|| time((seconds * 1e3) as u64 * 1_000_000))
}

/// A count; 0 for what is none.
#[must_use]
pub fn count(value: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked in the same expression"
    )]
    if (0.0..1e16).contains(&value) {
        value as u64
    } else {
        0
    }
}

/// Names of the sites that the samples are of, without the empty one.
#[must_use]
pub fn sites(samples: &Samples) -> BTreeSet<String> {
    let known = samples.known.iter().chain(&samples.findings);
    let mut sites: BTreeSet<String> = known.map(|(labels, _)| label(labels, "site")).collect();
    sites.remove("");
    sites
}

/// The evidence of all rows of `matrix`, and of those that only Prometheus has. Of `deployed` systems, rows that no agent can see
/// are told as well; of others only what was seen.
#[must_use]
pub fn evidence(
    samples: &Samples,
    matrix: &Matrix,
    deployed: &dyn Fn(&System) -> bool,
) -> Evidence {
    let mut sightings = sightings(samples);
    let mut rows: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for (system, requirement, service) in sightings.keys() {
        rows.entry((system.clone(), requirement.clone()))
            .or_default()
            .insert(service.clone());
    }
    let [begun, answered, failed] = [0, 1, 2].map(|kind| -> BTreeMap<Of, u64> {
        let samples = samples.flows[kind].iter();
        samples
            .map(|(labels, value)| (of(labels), count(*value)))
            .collect()
    });
    let flows = |key: &Of| {
        [&begun, &answered, &failed].map(|counts| counts.get(key).copied().unwrap_or_default())
    };
    let mut evidence = Evidence::default();
    let mut add = |system: &str, requirement: &str, services: Vec<String>| {
        let id = format!("{system}/{requirement}");
        let mut lines = Vec::new();
        let mut seen = Vec::new();
        for service in services {
            let key = (system.to_owned(), requirement.to_owned(), service);
            let here = sightings.remove(&key).unwrap_or_default();
            lines.push(line(&key.2, &here, flows(&key)));
            seen.extend(here);
        }
        let line = of_services(id.clone(), lines);
        let failing = seen.iter().filter(|sighting| {
            let of_failing = |service: &&ServiceLine| {
                service.service == sighting.service && service.state == line.state
            };
            line.services.iter().any(|service| of_failing(&service))
        });
        let failures = Failures {
            evidence: failing
                .clone()
                .map(|sighting| format!("{}: {}", sighting.service, sighting.in_words()))
                .take(Failures::MOST)
                .collect(),
            last: failing
                .filter_map(|sighting| sighting.last_failure.clone())
                .max(),
            ..Failures::default()
        };
        evidence.failures.insert(id.clone(), failures);
        if !seen.is_empty() {
            evidence.seen.insert(id, seen);
        }
        evidence.requirements.push(line);
    };
    for (_, system) in matrix.indexed_systems() {
        let wanted = deployed(system);
        for (_, requirement) in system.indexed_requirements() {
            let key = (system.id.to_string(), requirement.id.to_string());
            let mut others = rows.remove(&key).unwrap_or_default();
            if !wanted && others.is_empty() {
                continue;
            }
            let mut services: Vec<String> = requirement
                .indexed_services()
                .map(|(_, service)| service.to_string())
                .collect();
            services.iter().for_each(|service| {
                others.remove(service);
            });
            services.extend(others);
            add(&key.0, &key.1, services);
        }
    }
    for ((system, requirement), services) in rows {
        add(&system, &requirement, services.into_iter().collect());
    }
    evidence
}

/// What every agent says of every service, in the order of the way: senders, between, responders.
fn sightings(samples: &Samples) -> BTreeMap<Of, Vec<Sighting>> {
    let mut all: BTreeMap<At, Sighting> = BTreeMap::new();
    for (labels, _) in samples
        .known
        .iter()
        .chain(&samples.trusted)
        .chain(&samples.findings)
    {
        let sighting = all.entry(at(labels)).or_insert_with(|| Sighting {
            service: label(labels, "service"),
            instance: label(labels, "instance"),
            ..Sighting::default()
        });
        for (name, value) in [
            ("state", &mut sighting.state),
            ("finding", &mut sighting.finding),
        ] {
            if let Some(told) = labels.get(name) {
                *value = Some(told.clone());
            }
        }
        if let Some(vantage) = labels.get("vantage") {
            sighting.vantage.clone_from(vantage);
        }
    }
    for (labels, value) in &samples.failed {
        if let Some(sighting) = all.get_mut(&at(labels)) {
            sighting.outcome = labels.get("outcome").cloned();
            sighting.place = labels.get("place").cloned();
            sighting.last_failure = moment(*value);
        }
    }
    for (labels, value) in &samples.attempts {
        if let Some(sighting) = all.get_mut(&at(labels)) {
            sighting.last_attempt = moment(*value);
        }
    }
    for (labels, value) in &samples.answers {
        if let Some(sighting) = all.get_mut(&at(labels)) {
            sighting.last_answered = moment(*value);
        }
    }
    let mut by_service: BTreeMap<Of, Vec<Sighting>> = BTreeMap::new();
    for ((of, _), sighting) in all {
        by_service.entry(of).or_default().push(sighting);
    }
    let order = |vantage: &str| {
        ["initiator", "both", "path"]
            .iter()
            .position(|known| *known == vantage)
            .unwrap_or(3)
    };
    for sightings in by_service.values_mut() {
        sightings.sort_by_key(|sighting| order(&sighting.vantage));
    }
    by_service
}

fn line(service: &str, seen: &[Sighting], [flows, answered, failed]: [u64; 3]) -> ServiceLine {
    let found = |finding: &str| {
        seen.iter()
            .any(|sighting| sighting.finding.as_deref() == Some(finding))
    };
    let failure = FAILURES.into_iter().find(|finding| found(finding));
    let (state, cause) = if let Some(failure) = failure {
        let state = if found("working") {
            State::Degraded
        } else {
            State::Blocked
        };
        (state, Some(failure))
    } else if found("unknown") {
        (State::Unknown, Some("agent_unknown"))
    } else if found("working") {
        (State::Verified, None)
    } else if found("never_sent") {
        (State::Silent, Some("never_sent"))
    } else if seen.is_empty() {
        (State::Unobservable, Some("no_agent"))
    } else {
        (State::Unknown, None)
    };
    let last = seen
        .iter()
        .filter(|sighting| sighting.finding.is_some())
        .max_by(|one, other| one.last_failure.cmp(&other.last_failure));
    let last_failure = last.and_then(|sighting| {
        Some(LastFailure {
            at: sighting.last_failure.clone()?,
            outcome: sighting.outcome.clone()?,
            place: sighting.place.clone(),
            evidence: sighting.in_words(),
        })
    });
    ServiceLine {
        service: service.to_owned(),
        state: state.name().to_owned(),
        cause: cause.map(ToOwned::to_owned),
        since: None,
        flows,
        answered,
        failed,
        first_seen: None,
        last_seen: None,
        last_failure,
    }
}

/// The line of a row: the state of the worst of its services. As in every report one that was not tried is no worse than one that
/// works.
fn of_services(id: String, services: Vec<ServiceLine>) -> RequirementLine {
    const WORST: [State; 6] = [
        State::Blocked,
        State::Degraded,
        State::Unknown,
        State::Verified,
        State::Silent,
        State::Unobservable,
    ];
    let has = |state: State| {
        services
            .iter()
            .find(move |service| service.state == state.name())
    };
    let worst = WORST
        .into_iter()
        .find_map(|state| Some((state, has(state)?)));
    let (state, cause) = match worst {
        Some((state, service)) => (state, service.cause.clone()),
        None => (State::Unobservable, Some("no_services".to_owned())),
    };
    let finding = cause.clone().unwrap_or_default();
    RequirementLine {
        id,
        state: state.name().to_owned(),
        cause,
        place: place(&finding).map(ToOwned::to_owned),
        confidence: confidence(&finding).map(ToOwned::to_owned),
        since: None,
        ratio: None,
        services,
    }
}

#[cfg(test)]
mod tests;
