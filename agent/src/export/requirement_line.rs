//! A requirement in JSON, with the states of its services: the same line from `flowproof replay`, from the daemon's API
//! and under `flowproof explain`. Every field is always there, null where it means nothing or is not known.

use serde::{Deserialize, Serialize};

use super::flow_line::time;
use crate::matrix::Service;
use crate::verdict::requirement::{Cause, Confidence, Finding, Observation};

/// A service of a requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLine {
    /// `tcp/443`
    pub service: String,
    /// What is known of it.
    pub state: String,
    /// Why.
    pub cause: Option<String>,
    /// Flows begun.
    pub flows: u64,
    /// Those answered.
    pub answered: u64,
    /// Those that failed.
    pub failed: u64,
    /// First packet, RFC 3339. A daemon does not know: its counters may be older than it.
    pub first_seen: Option<String>,
    /// Last packet, RFC 3339.
    pub last_seen: Option<String>,
}

impl ServiceLine {
    /// The line of a service. The observation's times are nanoseconds since the Unix epoch.
    #[must_use]
    pub fn new(service: Service, finding: &Finding, observation: &Observation) -> Self {
        Self {
            service: service.to_string(),
            state: finding.state.name().to_owned(),
            cause: cause(finding),
            flows: observation.flows,
            answered: observation.answered,
            failed: observation.failed,
            first_seen: observation.first_seen.map(time),
            last_seen: observation.last_seen.map(time),
        }
    }
}

/// A requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "requirement")]
pub struct RequirementLine {
    /// `system/requirement`
    pub id: String,
    /// What is known of it.
    pub state: String,
    /// Why.
    pub cause: Option<String>,
    /// Where it failed, if it did.
    pub place: Option<String>,
    /// How far cause and place may be trusted.
    pub confidence: Option<String>,
    /// Its services, in the order of the file.
    pub services: Vec<ServiceLine>,
}

impl RequirementLine {
    /// The line of a requirement.
    #[must_use]
    pub fn new(id: String, finding: &Finding, services: Vec<ServiceLine>) -> Self {
        Self {
            id,
            state: finding.state.name().to_owned(),
            cause: cause(finding),
            place: finding.place.map(|place| place.to_string()),
            confidence: finding
                .confidence
                .map(|confidence| Confidence::name(confidence).to_owned()),
            services,
        }
    }

    /// Cause, place and confidence in words; empty if there is nothing to say.
    #[must_use]
    pub fn reason(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.cause.clone());
        parts.extend(self.place.as_ref().map(|place| format!("at {place}")));
        parts.extend(
            self.confidence
                .as_ref()
                .map(|confidence| format!("{confidence} confidence")),
        );
        parts.join(", ")
    }
}

fn cause(finding: &Finding) -> Option<String> {
    finding.cause.map(|cause| Cause::name(cause).to_owned())
}
