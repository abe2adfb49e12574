//! A requirement in JSON, with the states of its services: the same line from `flowproof replay`, from the daemon's API
//! and under `flowproof explain`. Every field is always there, null where it means nothing or is not known; but `since`,
//! `ratio` and `last_failure`, which are of states over a window alone.

use flowproof_common::state::Outcome;
use serde::{Deserialize, Serialize};

use super::times::time;
use crate::matrix::Service;
use crate::verdict::requirement::{
    Cause, Confidence, Failure, Finding, Observation, State, of_services,
};
use crate::verdict::window::{Counts, WindowFinding};

/// A service of a requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLine {
    /// `tcp/443`
    pub service: String,
    /// What is known of it.
    pub state: String,
    /// Why.
    pub cause: Option<String>,
    /// Since when, RFC 3339, if the state is one over a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Flows begun; in the window, if the state is over one.
    pub flows: u64,
    /// Those answered.
    pub answered: u64,
    /// Those that failed.
    pub failed: u64,
    /// First packet, RFC 3339. A daemon does not know: its counters may be older than it. Of a ledger, ever; the window may
    /// be shorter.
    pub first_seen: Option<String>,
    /// Last packet, RFC 3339; ever, too.
    pub last_seen: Option<String>,
    /// The last failure, ever, if the state is one over a window and there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
}

/// A failure of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailure {
    /// When, RFC 3339.
    pub at: String,
    /// How.
    pub outcome: String,
    /// Where, if it can be told.
    pub place: Option<String>,
    /// What it rests on, in words; may be empty.
    pub evidence: String,
}

impl LastFailure {
    /// Of a failure timed in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn new(failure: &Failure, evidence: &str) -> Self {
        Self {
            at: time(failure.at),
            outcome: Outcome::name(failure.outcome).to_owned(),
            place: failure.place.map(|place| place.to_string()),
            evidence: evidence.to_owned(),
        }
    }
}

/// A service over a window: what was found, when a flow was first and last seen, ever, in nanoseconds since the Unix
/// epoch, and its last failure, ever.
pub type OverWindow = (
    Service,
    WindowFinding,
    Option<[u64; 2]>,
    Option<LastFailure>,
);

impl ServiceLine {
    /// The line of a service. The observation's times are nanoseconds since the Unix epoch.
    #[must_use]
    pub fn new(service: Service, finding: &Finding, observation: &Observation) -> Self {
        Self {
            service: service.to_string(),
            state: finding.state.name().to_owned(),
            cause: cause(finding),
            since: None,
            flows: observation.flows,
            answered: observation.answered,
            failed: observation.failed,
            first_seen: observation.first_seen.map(time),
            last_seen: observation.last_seen.map(time),
            last_failure: None,
        }
    }

    /// The line of a service over a window.
    #[must_use]
    pub fn over_window((service, found, seen, last_failure): &OverWindow) -> Self {
        Self {
            service: service.to_string(),
            state: found.finding.state.name().to_owned(),
            cause: cause(&found.finding),
            since: found.since.map(time),
            flows: found.flows.begun,
            answered: found.flows.answered,
            failed: found.flows.failed,
            first_seen: seen.map(|[first, _]| time(first)),
            last_seen: seen.map(|[_, last]| time(last)),
            last_failure: last_failure.clone(),
        }
    }
}

/// A requirement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Since when one of its services is in this state, RFC 3339, if the state is one over a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Of a degraded one over a window: the part of decided flows of its degraded services that were answered, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
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
            since: None,
            ratio: None,
            services,
        }
    }

    /// The line of a requirement over a window, from its services.
    #[must_use]
    pub fn over_window(id: String, services: &[OverWindow]) -> Self {
        let finding = of_services(services.iter().map(|(_, found, ..)| found.finding));
        let same = || {
            services
                .iter()
                .map(|(_, found, ..)| found)
                .filter(|found| found.finding.state == finding.state)
        };
        let mut sum = Counts::default();
        for found in same() {
            sum.add(&found.flows);
        }
        let lines = services.iter().map(ServiceLine::over_window).collect();
        Self {
            since: same().filter_map(|found| found.since).min().map(time),
            ratio: sum
                .answered_ratio()
                .filter(|_| finding.state == State::Degraded),
            ..Self::new(id, &finding, lines)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::requirement::Observation;

    fn found(state: State, since: u64, [answered, failed]: [u64; 2]) -> WindowFinding {
        let finding = Finding {
            state,
            attempted: true,
            ..Observation::default().finding(crate::verdict::requirement::Vantage::Clear)
        };
        WindowFinding {
            finding,
            since: Some(since),
            from: 0,
            flows: Counts {
                begun: answered + failed,
                answered,
                failed,
                one_way: 0,
            },
        }
    }

    #[test]
    fn a_degraded_row_tells_how_often_since_when() {
        let [web, tls, ssh] = ["tcp/80", "tcp/443", "tcp/22"].map(|text| text.parse().unwrap());
        let row = RequirementLine::over_window(
            "s/r".to_owned(),
            &[
                (web, found(State::Degraded, 7, [1, 3]), Some([1, 9]), None),
                (tls, found(State::Degraded, 5, [2, 2]), None, None),
                (ssh, found(State::Verified, 2, [90, 0]), None, None),
            ],
        );
        assert_eq!((row.state.as_str(), row.ratio), ("degraded", Some(0.375)));
        assert_eq!(row.since, Some(time(5)));
        assert_eq!(row.services[0].since, Some(time(7)));
        assert_eq!(row.services[0].first_seen, Some(time(1)));
        assert_eq!(row.services[1].last_seen, None);
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<RequirementLine>(&text).unwrap(), row);
        let row = RequirementLine::over_window(
            "s/r".to_owned(),
            &[(ssh, found(State::Verified, 2, [90, 0]), None, None)],
        );
        assert_eq!((row.ratio, row.since), (None, Some(time(2))));
    }

    /// Older daemons, and states that are of no window.
    #[test]
    fn what_is_of_a_window_alone_may_be_missing() {
        let text = r#"{"type":"requirement","id":"s/r","state":"silent","cause":null,"place":null,"confidence":null,"services":[]}"#;
        let row: RequirementLine = serde_json::from_str(text).unwrap();
        assert_eq!((row.since.as_ref(), row.ratio), (None, None));
        assert_eq!(serde_json::to_string(&row).unwrap(), text);
    }
}
