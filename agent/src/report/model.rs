//! The report of what traffic showed of a matrix: every requirement with its state, what is blocked as the text of a
//! ticket, and unexpected traffic by roles and service. One model, made from the lines that a replay and a daemon's API
//! both give, so that a capture and a live daemon are reported alike; the renderers beside it only lay it out.
//!
//! The model never makes a state better than it was told: what it doesn't know is `unknown`, and no renderer has a colour
//! or a word for it that could be taken for success.
//!
//! As JSON it is one object:
//!
//! ```text
//! {"source","site","since","until","unwatched_since","by_state":{..},"unexpected_flows","lost":{..},
//!  "gaps":[{"kind","from","to","lost"}],"notes":[..],
//!  "systems":[{"id","title","version"}],
//!  "requirements":[{"id","system","requirement",
//!     "says":{"from":{"id","title"},"to":{..},"direction","necessity","condition","application","purpose","section","row"},
//!     "state","cause","place","confidence","since","ratio","services":[as in the requirement lines of `replay`],
//!     "ticket":{"subject","from":{"role":{"id","title"},"bound":[..]},"to":{..},"either_way","services":[..],
//!        "cause","place","confidence","since","last","failed",
//!        "paths":[{"initiator","responder","service","outcome","flows"}],"evidence":[..],"ask","document","purpose"}}],
//!  "unexpected":[{"from","to","service","flows","outcomes":{..},"initiators":[..],"responders":[..],
//!     "first_seen","last_seen","near_misses":[as in the flow lines of `replay`]}]}
//! ```
//!
//! `says` is null for a row that the matrix files given don't have, `ticket` for one that is neither blocked nor degraded.
//! `since`, `ratio`, `gaps` and `unwatched_since` are of a ledger, and left out where they mean nothing: since when a row is in
//! its state, how many of its decided flows were answered if it is degraded, when nobody watched, and since when nobody does.
//! A fleet's requirements have `seen` besides, what each agent says: `[{"service","instance","vantage","state","finding","outcome",
//! "place","last_failure","last_attempt","last_answered"}]`.

use std::collections::{BTreeMap, HashMap};

use serde::{Serialize, Serializer};

use super::fleet::Sighting;
use super::ticket::{self, Failures, Ticket};
use super::unexpected::{Counted, Groups, Unexpected};
use crate::export::flow_line::FlowLine;
use crate::export::requirement_line::{RequirementLine, ServiceLine};
use crate::matrix::{Direction, Matrix, Necessity, Requirement, RoleRef, System};
use crate::verdict::requirement::State;

/// What a report is made from.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Where it comes from: `capture a.pcap`, `daemon http://127.0.0.1:9871`.
    pub source: String,
    /// The name of the site.
    pub site: Option<String>,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// Until when: the end of the capture, or when the daemon was asked. RFC 3339.
    pub until: Option<String>,
    /// Every requirement of the matrix in force with its state.
    pub requirements: Vec<RequirementLine>,
    /// Flows that requirements cover and that failed, as far as they are known still.
    pub flows: Vec<FlowLine>,
    /// What is known of failed flows of requirements, where single flows are not.
    pub failures: BTreeMap<String, Failures>,
    /// What each agent of a fleet says of a requirement, by its id.
    pub seen: BTreeMap<String, Vec<Sighting>>,
    /// Unexpected flows, as far as they are known still.
    pub unexpected: Groups,
    /// Unexpected flows as a daemon counted them, longer than it remembers flows. Nothing if `unexpected` has all there
    /// were.
    pub counted: Option<Vec<Counted>>,
    /// What roles (`system/role`) are bound to.
    pub bindings: BTreeMap<String, Vec<String>>,
    /// What was lost, by stage.
    pub lost: Vec<(String, u64)>,
    /// When nobody watched between `since` and `until`.
    pub gaps: Vec<Unwatched>,
    /// Since when nobody watches, RFC 3339, if states are of the past.
    pub unwatched_since: Option<String>,
    /// What the reader has to know beside.
    pub notes: Vec<String>,
}

/// A stretch of time in which nobody watched, or something was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unwatched {
    /// `down`, `blind`, `clock_jump`, `packets_lost` or `names_lost`.
    pub kind: &'static str,
    /// Its begin, RFC 3339.
    pub from: String,
    /// Its end, RFC 3339.
    pub to: String,
    /// What was lost in it; 0 if nobody watched.
    pub lost: u64,
}

/// A role at an end of a requirement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RoleName {
    /// Its id in its system.
    pub id: String,
    /// The name that the vendor's document prints.
    pub title: Option<String>,
}

impl RoleName {
    fn new(system: &System, role: RoleRef) -> Self {
        Self {
            id: system.role_id(role).to_owned(),
            title: match role {
                RoleRef::Declared(index) => system.role(index).title.clone(),
                RoleRef::BuiltIn(_) => None,
            },
        }
    }

    /// The title if there is one, else the id.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.id)
    }
}

/// A requirement.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// `system/requirement`
    pub id: String,
    /// Its system.
    pub system: String,
    /// Its id in the system.
    pub requirement: String,
    /// What the matrix says of it; null if the matrix given has no such row.
    pub says: Option<Says>,
    /// What is known of it.
    #[serde(serialize_with = "by_name")]
    pub state: State,
    /// Why.
    pub cause: Option<String>,
    /// Where it failed, if it did.
    pub place: Option<String>,
    /// How far cause and place may be trusted.
    pub confidence: Option<String>,
    /// Since when one of its services is in this state, RFC 3339, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Of a degraded one, if it is known over a window: the part of decided flows that were answered, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Its services.
    pub services: Vec<ServiceLine>,
    /// What to write to whom, if it is blocked or degraded.
    pub ticket: Option<Ticket>,
    /// What each agent says, if it is a fleet's report.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<Sighting>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature is serde's"
)]
fn by_name<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.name())
}

/// What the matrix says of a requirement.
#[derive(Debug, Clone, Serialize)]
pub struct Says {
    /// The end that the row is about.
    pub from: RoleName,
    /// The other end.
    pub to: RoleName,
    /// `outbound`, `inbound` or `both`.
    pub direction: &'static str,
    /// `required`, `optional` or `conditional`.
    pub necessity: &'static str,
    /// Of a conditional one.
    pub condition: Option<String>,
    /// The application protocol.
    pub application: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
    /// The section of the vendor's document.
    pub section: Option<String>,
    /// The row in the section.
    pub row: Option<u32>,
    /// The pairs (initiator, responder) that are allowed.
    #[serde(skip)]
    pub initiations: Vec<(RoleName, RoleName)>,
}

impl Says {
    /// Of a row of a system.
    #[must_use]
    pub fn new(system: &System, row: &Requirement) -> Self {
        Self {
            from: RoleName::new(system, row.from),
            to: RoleName::new(system, row.to),
            direction: row.direction.as_str(),
            necessity: row.necessity.as_str(),
            condition: row.necessity.condition().map(ToOwned::to_owned),
            application: row.application.clone(),
            purpose: row.purpose.clone(),
            section: row.provenance.as_ref().map(|place| place.section.clone()),
            row: row.provenance.as_ref().map(|place| place.row),
            initiations: row
                .initiations()
                .map(|(from, to)| (RoleName::new(system, from), RoleName::new(system, to)))
                .collect(),
        }
    }

    /// Whether the product does not work without it.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.necessity == Necessity::Required.as_str()
    }

    /// Who opens towards whom: `->`, `<-` or `<->` between `from` and `to`.
    #[must_use]
    pub fn arrow(&self) -> &'static str {
        if self.direction == Direction::Inbound.as_str() {
            "<-"
        } else if self.direction == Direction::Both.as_str() {
            "<->"
        } else {
            "->"
        }
    }
}

impl Row {
    /// Whether silence is a problem; also if the matrix given does not say.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.says.as_ref().is_none_or(Says::is_required)
    }

    /// Cause, place and confidence in words.
    #[must_use]
    pub fn reason(&self) -> String {
        let place = self.place.as_deref().map(|place| format!("at {place}"));
        let confidence = self
            .confidence
            .as_deref()
            .map(|confidence| format!("{confidence} confidence"));
        let cause = self.cause.as_deref().map(ticket::in_words);
        let parts = [cause.map(ToOwned::to_owned), place, confidence];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// How often it works and since when, in words; empty if that is not known.
    #[must_use]
    pub fn standing(&self) -> String {
        let ratio = self
            .ratio
            .map(|ratio| format!("{:.0} % answered", ratio * 100.0));
        let since = self.since.as_ref().map(|since| format!("since {since}"));
        let parts = [ratio, since];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// How bad it is: greater is worse. Silence of what is needed only sometimes is no problem and comes last.
    #[must_use]
    pub fn badness(&self) -> u8 {
        match self.state {
            State::Blocked => 6,
            State::Degraded => 5,
            State::Unknown => 4,
            State::Silent if self.is_required() => 3,
            State::Unobservable => 2,
            State::Verified => 1,
            State::Silent => 0,
        }
    }
}

/// The letter of a state, for those who print in black and white.
#[must_use]
pub const fn letter(state: State) -> char {
    match state {
        State::Verified => 'V',
        State::Degraded => 'D',
        State::Blocked => 'B',
        State::Silent => 'S',
        State::Unobservable => 'N',
        State::Unknown => '?',
    }
}

/// What a state means, in words.
#[must_use]
pub const fn meaning(state: State) -> &'static str {
    match state {
        State::Verified => "answered, and no failure since",
        State::Degraded => "answered, and failed since",
        State::Blocked => "attempted, never answered",
        State::Silent => "could be seen from here, never attempted",
        State::Unobservable => "can not be seen from here",
        State::Unknown => {
            "nobody can tell: packets were lost, nobody watched, or nothing was decided"
        }
    }
}

/// What is to be taken for a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailOn {
    /// A flow that the matrix does not expect.
    Unexpected,
    /// A requirement that was attempted and never answered.
    Blocked,
    /// A requirement that was answered and failed since.
    Degraded,
    /// A required requirement that could be seen and was never attempted.
    Silent,
    /// A required requirement of which nobody can tell.
    Unknown,
}

/// A report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where it comes from.
    pub source: String,
    /// The name of the site.
    pub site: Option<String>,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// Until when, RFC 3339.
    pub until: Option<String>,
    /// Since when nobody watches, RFC 3339: states are of then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unwatched_since: Option<String>,
    /// Requirements by state, all states included.
    pub by_state: serde_json::Map<String, serde_json::Value>,
    /// Unexpected flows in all.
    pub unexpected_flows: u64,
    /// What was lost, by stage.
    pub lost: BTreeMap<String, u64>,
    /// When nobody watched, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Unwatched>,
    /// What the reader has to know beside.
    pub notes: Vec<String>,
    /// The systems of the requirements: id and title.
    pub systems: Vec<SystemName>,
    /// In the order of the matrix in force.
    pub requirements: Vec<Row>,
    /// The most frequent first.
    pub unexpected: Vec<Unexpected>,
}

/// A system.
#[derive(Debug, Serialize)]
pub struct SystemName {
    /// Its id.
    pub id: String,
    /// The product's name.
    pub title: Option<String>,
    /// The product's version.
    pub version: Option<String>,
}

impl Report {
    /// Puts together what is known.
    #[must_use]
    pub fn new(matrix: &Matrix, evidence: Evidence) -> Self {
        let mut notes = evidence.notes;
        let mut failures = evidence.failures;
        let mut seen = evidence.seen;
        // A flow may be of several requirements.
        let mut flows_of: HashMap<&str, Vec<&FlowLine>> = HashMap::new();
        for flow in &evidence.flows {
            for service in &flow.requirements {
                let id = service.split('#').next().unwrap_or(service);
                let flows = flows_of.entry(id).or_default();
                if flows.last().is_none_or(|last| !std::ptr::eq(*last, flow)) {
                    flows.push(flow);
                }
            }
        }
        let mut systems: Vec<SystemName> = Vec::new();
        let mut requirements = Vec::new();
        let mut missing = 0_usize;
        for line in evidence.requirements {
            let (system, requirement) = line.id.split_once('/').unwrap_or((&line.id, ""));
            let (system, requirement) = (system.to_owned(), requirement.to_owned());
            let known = matrix
                .find_system(&system)
                .map(|index| matrix.system(index));
            if systems.iter().all(|seen| seen.id != system) {
                systems.push(SystemName {
                    id: system.clone(),
                    title: known.map(|system| system.title.clone()),
                    version: known.and_then(|system| system.version.clone()),
                });
            }
            let says = known.and_then(|known| {
                let row = known
                    .requirements
                    .iter()
                    .find(|row| row.id.as_str() == requirement)?;
                Some(Says::new(known, row))
            });
            missing += usize::from(says.is_none());
            let state = state_of(&line.state);
            let mut row = Row {
                system,
                requirement,
                says,
                state,
                cause: line.cause,
                place: line.place,
                confidence: line.confidence,
                since: line.since,
                ratio: line.ratio,
                services: line.services,
                ticket: None,
                seen: seen.remove(&line.id).unwrap_or_default(),
                id: line.id,
            };
            if matches!(state, State::Blocked | State::Degraded) {
                let failures = failures.remove(&row.id).unwrap_or_else(|| {
                    Failures::of(flows_of.get(row.id.as_str()).map_or(&[][..], Vec::as_slice))
                });
                row.ticket = Some(Ticket::new(&row, failures, &evidence.bindings));
            }
            requirements.push(row);
        }
        if missing > 0 {
            notes.push(format!(
                "{missing} of the requirements in force are not in the matrix files given here: they are reported without roles"
            ));
        }
        let waiting = evidence.unexpected.pending();
        if waiting > 0 {
            notes.push(format!(
                "{waiting} flow(s) wait for a name and are judged neither expected nor unexpected"
            ));
        }
        let unexpected = evidence.unexpected.finish(evidence.counted.as_deref());
        let by_state = State::ALL
            .into_iter()
            .map(|state| {
                let count = requirements.iter().filter(|row| row.state == state).count();
                (state.name().to_owned(), count.into())
            })
            .collect();
        Self {
            source: evidence.source,
            site: evidence.site,
            since: evidence.since,
            until: evidence.until,
            unwatched_since: evidence.unwatched_since,
            by_state,
            unexpected_flows: unexpected.iter().map(|group| group.flows).sum(),
            lost: evidence
                .lost
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .collect(),
            gaps: evidence.gaps,
            notes,
            systems,
            requirements,
            unexpected,
        }
    }

    /// How many requirements are in a state.
    #[must_use]
    pub fn in_state(&self, state: State) -> usize {
        self.requirements
            .iter()
            .filter(|row| row.state == state)
            .count()
    }

    /// Whether there is any of `what`.
    #[must_use]
    pub fn has(&self, what: FailOn) -> bool {
        let rows = |state| {
            self.requirements
                .iter()
                .filter(move |row| row.state == state)
        };
        match what {
            FailOn::Unexpected => self.unexpected_flows > 0,
            FailOn::Blocked => rows(State::Blocked).next().is_some(),
            FailOn::Degraded => rows(State::Degraded).next().is_some(),
            FailOn::Silent => rows(State::Silent).any(Row::is_required),
            FailOn::Unknown => rows(State::Unknown).any(Row::is_required),
        }
    }

    /// The requirements that have a ticket.
    pub fn tickets(&self) -> impl Iterator<Item = (&Row, &Ticket)> {
        self.requirements
            .iter()
            .filter_map(|row| Some((row, row.ticket.as_ref()?)))
    }

    /// Whether nobody watched for a part of the time, or nobody does now: what was not seen then is unknown.
    #[must_use]
    pub fn was_unwatched(&self) -> bool {
        self.unwatched_since.is_some() || self.gaps.iter().any(|gap| gap.lost == 0)
    }

    /// What was lost, in words; nothing if nothing was.
    #[must_use]
    pub fn losses(&self) -> Option<String> {
        let texts: Vec<String> = self
            .lost
            .iter()
            .map(|(stage, count)| format!("{count} {stage}"))
            .collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

/// A state by its name. A name that nobody here knows is of a newer daemon: nothing can be told by it.
fn state_of(name: &str) -> State {
    State::ALL
        .into_iter()
        .find(|state| state.name() == name)
        .unwrap_or(State::Unknown)
}
