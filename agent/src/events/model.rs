//! The shape of an event: a contract that log pipelines rely on, published as `rules/event.schema.json`. Fields may be added
//! to it; none changes its meaning. Every field is always there, null where nothing is known.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};

use crate::export::{metrics, times};

/// Characters that a text of an event may have, so that an event fits into a datagram.
const MOST_CHARACTERS: usize = 500;
/// Problems of one matrix that are told.
const MOST_PROBLEMS: usize = 5;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "flowproof event")]
pub struct Event {
    /// When it was noticed, RFC 3339 in UTC with nanoseconds.
    #[serde(with = "moment")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: u64,
    /// Never given twice by an agent: its start in hexadecimal nanoseconds, and a number that counts up.
    pub id: String,
    /// Whether somebody should look.
    pub severity: Severity,
    /// Name of the host that noticed it.
    pub agent: String,
    /// Name of the site, if the site file gives one.
    pub site: Option<String>,
    /// All of it in a sentence, for people.
    pub message: String,
    /// What happened.
    #[serde(flatten)]
    pub body: Body,
}

/// Whether somebody should look.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Something should be looked at.
    Warning,
    /// Something does not work.
    Error,
}

impl Severity {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What happened; `type` says which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Body {
    /// The daemon judges traffic from now on.
    DaemonStarted {
        /// Its version.
        version: String,
        /// The revision that it was built from, or `unknown`.
        revision: String,
        /// The capture back end at work.
        backend: String,
        /// What it watches and judges by, in words.
        summary: String,
    },
    /// The daemon was told to end.
    DaemonStopping,
    /// A requirement's service changed its state.
    ServiceState(ServiceState),
    /// Flows that no requirement covers.
    UnexpectedFlows(UnexpectedFlows),
    /// The matrix was read again and is in force.
    MatrixReloaded {
        /// What is judged by, in words.
        summary: String,
    },
    /// The matrix could not be read again; the one before stays in force.
    MatrixReloadFailed {
        /// Why.
        reason: String,
        /// The first errors, with file, line and column.
        problems: Vec<String>,
    },
    /// Nothing is captured any more.
    CaptureFailed {
        /// Why.
        reason: String,
    },
    /// Packets are captured again.
    CaptureRecovered {
        /// Since when nothing was, RFC 3339.
        since: String,
    },
    /// Something is being lost, so that silence proves nothing.
    LossBegan {
        /// Where, as in `flowproof_lost_total`; `unparsed` is packets that could not be read.
        stage: String,
        /// How many so far.
        lost: u64,
    },
    /// Nothing was lost for a while.
    LossEnded {
        /// Where.
        stage: String,
        /// How many in all, since it began.
        lost: u64,
        /// When it began, RFC 3339.
        since: String,
    },
    /// Evidence is kept in memory only.
    LedgerDegraded {
        /// Why.
        reason: String,
    },
    /// Evidence is written to the disk again.
    LedgerRecovered {
        /// Since when it was not, RFC 3339.
        since: String,
        /// Records that found no room in memory, since the daemon started.
        dropped: u64,
    },
}

/// A requirement's service changed its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceState {
    /// System.
    pub system: String,
    /// Requirement, without the system.
    pub requirement: String,
    /// Service, such as `tcp/443`.
    pub service: String,
    /// `required`, `optional` or `conditional`.
    pub necessity: String,
    /// The state that was told before; null if none was.
    #[schemars(with = "Option<StateText>")]
    pub from: Option<String>,
    /// The state that it is in.
    #[schemars(with = "StateText")]
    pub to: String,
    /// Whether that is a problem: what the product works without never is.
    pub problem: bool,
    /// Why.
    pub cause: Option<String>,
    /// Where it failed, if it did.
    pub place: Option<String>,
    /// How far cause and place may be trusted.
    pub confidence: Option<String>,
    /// Since when it is in the state, RFC 3339.
    pub since: Option<String>,
    /// What a failure rests on, in words.
    pub evidence: Option<String>,
    /// How often the state changed since it was told before: more than once if it came and went.
    pub changes: u32,
}

/// A state of a service.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", inline)]
#[expect(dead_code, reason = "the type is never built, only described")]
enum StateText {
    Verified,
    Degraded,
    Blocked,
    Silent,
    Unobservable,
    Unknown,
}

/// Flows that no requirement covers, of one kind; `~other` sums up the kinds that were too many to tell one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnexpectedFlows {
    /// Roles of the initiator.
    pub from: String,
    /// Roles of the responder.
    pub to: String,
    /// Service, such as `tcp/8443`.
    pub service: String,
    /// Whether this is the first that is told of its kind.
    pub first: bool,
    /// Kinds in this event: 1, but for `~other`.
    pub kinds: u64,
    /// Flows begun since the kind was told before.
    pub flows: u64,
    /// Flows answered since then.
    pub answered: u64,
    /// When the first of them was seen, RFC 3339.
    pub since: String,
    /// When the last of them was seen, RFC 3339.
    pub until: String,
    /// Some of their addresses.
    pub samples: Vec<Sample>,
}

/// Who talked to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// Address of the initiator.
    pub initiator: String,
    /// Address of the responder.
    pub responder: String,
}

impl Body {
    /// The daemon judges traffic by `backend` from now on; `summary` says which.
    #[must_use]
    pub fn started(backend: &str, summary: &str) -> Self {
        Self::DaemonStarted {
            version: metrics::VERSION.to_owned(),
            revision: metrics::REVISION.to_owned(),
            backend: backend.to_owned(),
            summary: short(summary),
        }
    }

    /// The matrix could not be read again; of many problems the first are told.
    #[must_use]
    pub fn reload_failed(reason: &str, problems: &[String]) -> Self {
        Self::MatrixReloadFailed {
            reason: short(reason),
            problems: problems
                .iter()
                .take(MOST_PROBLEMS)
                .map(|problem| short(problem))
                .collect(),
        }
    }

    /// The value of `type`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::DaemonStarted { .. } => "daemon_started",
            Self::DaemonStopping => "daemon_stopping",
            Self::ServiceState(_) => "service_state",
            Self::UnexpectedFlows(_) => "unexpected_flows",
            Self::MatrixReloaded { .. } => "matrix_reloaded",
            Self::MatrixReloadFailed { .. } => "matrix_reload_failed",
            Self::CaptureFailed { .. } => "capture_failed",
            Self::CaptureRecovered { .. } => "capture_recovered",
            Self::LossBegan { .. } => "loss_began",
            Self::LossEnded { .. } => "loss_ended",
            Self::LedgerDegraded { .. } => "ledger_degraded",
            Self::LedgerRecovered { .. } => "ledger_recovered",
        }
    }

    /// Whether somebody should look.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::ServiceState(state) if !state.problem => Severity::Info,
            Self::ServiceState(state) if state.to == "blocked" => Severity::Error,
            Self::CaptureFailed { .. } => Severity::Error,
            Self::ServiceState(_)
            | Self::UnexpectedFlows(_)
            | Self::MatrixReloadFailed { .. }
            | Self::LossBegan { .. }
            | Self::LedgerDegraded { .. } => Severity::Warning,
            Self::DaemonStarted { .. }
            | Self::DaemonStopping
            | Self::MatrixReloaded { .. }
            | Self::CaptureRecovered { .. }
            | Self::LossEnded { .. }
            | Self::LedgerRecovered { .. } => Severity::Info,
        }
    }

    /// All of it in a sentence, for people.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::DaemonStarted { summary, .. } => format!("flowproof started: {summary}"),
            Self::DaemonStopping => "flowproof is ending".to_owned(),
            Self::ServiceState(state) => state.message(),
            Self::UnexpectedFlows(flows) => flows.message(),
            Self::MatrixReloaded { summary } => format!("the matrix was reloaded: {summary}"),
            Self::MatrixReloadFailed { reason, .. } => {
                format!("the matrix was not reloaded, the one before stays in force: {reason}")
            }
            Self::CaptureFailed { reason } => format!("nothing is captured: {reason}"),
            Self::CaptureRecovered { since } => {
                format!("packets are captured again; nothing was since {since}")
            }
            Self::LossBegan { stage, lost } => format!("{stage} is losing: {lost} so far"),
            Self::LossEnded { stage, lost, since } => {
                format!("{stage} loses nothing any more; since {since} it lost {lost}")
            }
            Self::LedgerDegraded { reason } => format!("evidence is in memory only: {reason}"),
            Self::LedgerRecovered { since, .. } => {
                format!("evidence is written again; it was not since {since}")
            }
        }
    }
}

impl ServiceState {
    fn message(&self) -> String {
        let mut text = format!(
            "{}/{}#{} is {}",
            self.system, self.requirement, self.service, self.to
        );
        if let Some(from) = &self.from {
            text.push_str(" and was ");
            text.push_str(from);
        }
        let place = self.place.as_ref().map(|place| format!("at {place}"));
        let sure = self
            .confidence
            .as_ref()
            .map(|confidence| format!("{confidence} confidence"));
        let reasons: Vec<&str> = [&self.cause, &place, &sure, &self.evidence]
            .into_iter()
            .filter_map(Option::as_deref)
            .collect();
        if !reasons.is_empty() {
            text.push_str(": ");
            text.push_str(&reasons.join(", "));
        }
        text
    }
}

impl UnexpectedFlows {
    fn message(&self) -> String {
        let (flows, from, to, service) = (self.flows, &self.from, &self.to, &self.service);
        let ending = if flows == 1 { "" } else { "s" };
        if self.kinds == 1 {
            let first = if self.first {
                ", the first of its kind"
            } else {
                ""
            };
            format!("{flows} unexpected flow{ending} from {from} to {to} {service}{first}")
        } else {
            format!(
                "{flows} unexpected flow{ending} of {} further kinds",
                self.kinds
            )
        }
    }
}

/// A text that is short enough for an event; what is cut off is marked.
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(MOST_CHARACTERS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// Nanoseconds since the Unix epoch as RFC 3339.
mod moment {
    use std::time::SystemTime;

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use super::times;
    use crate::names::wall_time;

    pub(super) fn serialize<S: Serializer>(time: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&times::time(*time))
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: SystemTime = humantime::parse_rfc3339(&text).map_err(de::Error::custom)?;
        Ok(wall_time::nanos(time))
    }
}

/// The JSON Schema of events.
#[must_use]
pub fn schema() -> schemars::Schema {
    // As they are written: every field is there.
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<Event>()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::verdict::requirement::State;

    /// One of each kind.
    pub(in crate::events) fn bodies() -> Vec<Body> {
        let text = || "x".to_owned();
        let time = || times::time(1_700_000_000_123_456_789);
        vec![
            Body::DaemonStarted {
                version: text(),
                revision: text(),
                backend: text(),
                summary: text(),
            },
            Body::DaemonStopping,
            Body::ServiceState(ServiceState {
                system: "app".to_owned(),
                requirement: "web-to-db".to_owned(),
                service: "tcp/5432".to_owned(),
                necessity: "required".to_owned(),
                from: Some("silent".to_owned()),
                to: "blocked".to_owned(),
                problem: true,
                cause: Some("refused".to_owned()),
                place: Some("peer".to_owned()),
                confidence: Some("medium".to_owned()),
                since: Some(time()),
                evidence: Some("1 SYN, answered by RST".to_owned()),
                changes: 1,
            }),
            Body::UnexpectedFlows(UnexpectedFlows {
                from: "app/web".to_owned(),
                to: "~unbound".to_owned(),
                service: "tcp/22".to_owned(),
                first: true,
                kinds: 1,
                flows: 1,
                answered: 0,
                since: time(),
                until: time(),
                samples: vec![Sample {
                    initiator: "192.0.2.1".to_owned(),
                    responder: "2001:db8::1".to_owned(),
                }],
            }),
            Body::MatrixReloaded { summary: text() },
            Body::MatrixReloadFailed {
                reason: text(),
                problems: vec![text()],
            },
            Body::CaptureFailed { reason: text() },
            Body::CaptureRecovered { since: time() },
            Body::LossBegan {
                stage: text(),
                lost: 1,
            },
            Body::LossEnded {
                stage: text(),
                lost: u64::MAX,
                since: time(),
            },
            Body::LedgerDegraded { reason: text() },
            Body::LedgerRecovered {
                since: time(),
                dropped: 0,
            },
        ]
    }

    pub(in crate::events) fn event(body: Body) -> Event {
        Event {
            time: 1_700_000_000_123_456_789,
            id: "1-1".to_owned(),
            severity: body.severity(),
            agent: "router-1".to_owned(),
            site: None,
            message: body.message(),
            body,
        }
    }

    struct Validator(boon::Schemas, boon::SchemaIndex);

    impl Validator {
        fn new() -> Self {
            let mut schemas = boon::Schemas::new();
            let mut compiler = boon::Compiler::new();
            compiler
                .add_resource("event.schema.json", schema().to_value())
                .unwrap();
            let index = compiler.compile("event.schema.json", &mut schemas).unwrap();
            Self(schemas, index)
        }

        fn accepts(&self, value: &serde_json::Value) -> bool {
            self.0.validate(value, self.1).is_ok()
        }
    }

    #[test]
    fn every_event_is_as_published_and_reads_back() {
        let validator = Validator::new();
        let mut names = std::collections::BTreeSet::new();
        for body in bodies() {
            assert!(names.insert(body.name()), "{}", body.name());
            let event = event(body);
            let value = serde_json::to_value(&event).unwrap();
            assert_eq!(value["type"], event.body.name());
            assert_eq!(value["severity"], event.severity.name());
            assert!(validator.accepts(&value), "{value}");
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
            // Whatever is missing is missed.
            for key in value.as_object().unwrap().keys() {
                let mut less = value.clone();
                less.as_object_mut().unwrap().remove(key);
                assert!(!validator.accepts(&less), "without {key}: {less}");
            }
        }
    }

    #[test]
    fn the_schema_knows_the_states() {
        let schema = schemars::schema_for!(StateText);
        let known: Vec<&str> = State::ALL.into_iter().map(State::name).collect();
        assert_eq!(schema.as_value()["enum"], serde_json::json!(known));
    }

    #[test]
    fn says_what_happened() {
        let said: Vec<String> = bodies().iter().map(Body::message).collect();
        assert_eq!(
            said[2],
            "app/web-to-db#tcp/5432 is blocked and was silent: refused, at peer, medium confidence, 1 SYN, answered by RST"
        );
        assert_eq!(
            said[3],
            "1 unexpected flow from app/web to ~unbound tcp/22, the first of its kind"
        );
        let long = "ä".repeat(MOST_CHARACTERS + 1);
        assert_eq!(short(&long).chars().count(), MOST_CHARACTERS + 3);
        assert_eq!(short("as it is"), "as it is");
    }

    mod properties {
        use proptest::prelude::*;

        use super::*;

        proptest! {
            #[test]
            fn any_text_comes_through(
                text in any::<String>(),
                other in proptest::option::of(any::<String>()),
                (time, number) in (any::<u64>(), any::<u64>()),
                which in 0..12_usize,
            ) {
                let mut body = bodies().swap_remove(which);
                match &mut body {
                    Body::ServiceState(state) => {
                        state.evidence = other.clone();
                        state.service = text.clone();
                    }
                    Body::UnexpectedFlows(flows) => {
                        flows.from = text.clone();
                        flows.flows = number;
                    }
                    Body::MatrixReloadFailed { problems, reason } => {
                        problems.push(text.clone());
                        reason.clone_from(&text);
                    }
                    Body::LossEnded { lost, .. } => *lost = number,
                    Body::DaemonStarted { .. }
                    | Body::DaemonStopping
                    | Body::MatrixReloaded { .. }
                    | Body::CaptureFailed { .. }
                    | Body::CaptureRecovered { .. }
                    | Body::LossBegan { .. }
                    | Body::LedgerDegraded { .. }
                    | Body::LedgerRecovered { .. } => {}
                }
                let event = Event { time, agent: text, site: other, ..event(body) };
                let line = serde_json::to_string(&event).unwrap();
                prop_assert!(!line.contains('\n'));
                prop_assert_eq!(&serde_json::from_str::<Event>(&line).unwrap(), &event);
                let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                prop_assert!(Validator::new().accepts(&value));
            }
        }
    }
}
