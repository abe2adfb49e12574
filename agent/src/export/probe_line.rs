//! The lines of `flowproof probe --format json`: a requirement as `replay` tells it, with what was tried for it; what
//! would be tried; and the summary. Every field is always there, null where it means nothing.

use serde::{Deserialize, Serialize};

use super::requirement_line::RequirementLine;

/// A requirement that was probed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbedLine {
    /// The line as of traffic.
    #[serde(flatten)]
    pub requirement: RequirementLine,
    /// That it rests on probes, not on traffic of others. Only lines of this verb have it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probed: bool,
    /// What was tried, in the order in which it ended.
    pub probes: Vec<ProbeLine>,
    /// What was not, and why.
    pub not_probed: Vec<NotProbed>,
    /// Ranges of ports of which a few were tried.
    pub ranges: Vec<RangeLine>,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeLine {
    /// The port that was tried, `tcp/443`.
    pub service: String,
    /// The address of this host that it came from.
    pub initiator: String,
    /// The address that it went to.
    pub target: String,
    /// The name that led there.
    pub name: Option<String>,
    /// What was asked.
    pub question: String,
    /// What became of it, as of a flow.
    pub outcome: String,
    /// How long it took.
    pub milliseconds: f64,
    /// What the outcome rests on.
    pub evidence: Vec<String>,
}

/// Something that was not tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotProbed {
    /// Of which service.
    pub service: String,
    /// The end; null if all of them.
    pub target: Option<String>,
    /// Why, as a cause of states.
    pub cause: String,
    /// Why, in words.
    pub detail: String,
}

/// A range of ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeLine {
    /// The range.
    pub service: String,
    /// How many of its ports were tried at each end.
    pub tried: usize,
    /// How many it has.
    pub of: usize,
}

/// A requirement in a plan (`--dry-run`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "plan")]
pub struct PlanLine {
    /// `system/requirement`
    pub id: String,
    /// What would be tried.
    pub probes: Vec<PlannedLine>,
    /// What would not be, and why.
    pub not_probed: Vec<NotProbed>,
    /// Ranges of ports of which a few would be tried.
    pub ranges: Vec<RangeLine>,
}

/// A probe to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedLine {
    /// The port to try.
    pub service: String,
    /// The addresses of this host that it may come from: one of each IP version.
    pub initiators: Vec<String>,
    /// The address that it will go to; null if that is to be asked for.
    pub target: Option<String>,
    /// The name that is to be resolved.
    pub name: Option<String>,
    /// What will be asked.
    pub question: String,
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename = "summary")]
pub struct SummaryLine {
    /// That nothing was sent.
    pub dry_run: bool,
    /// Whether it ended before all was tried.
    pub interrupted: bool,
    /// Probes made, or to make.
    pub probes: usize,
    /// Names resolved, or to resolve.
    pub names: usize,
    /// Requirements that were left out because they are verified.
    pub verified_before: usize,
    /// Probes by what became of them.
    pub by_outcome: Counts,
    /// Requirements by state.
    pub by_state: Counts,
    /// How long it took.
    pub seconds: f64,
}

/// Counts by name.
pub type Counts = serde_json::Map<String, serde_json::Value>;
