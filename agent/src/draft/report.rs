//! What came of judging flows by a draft, for people and programs: the object of `flowproof replay --draft --format json` and of
//! `/api/v1/draft`.
//!
//! ```text
//! {"type":"draft","systems":[{"id","change":"replaced|added","deployed":bool}],
//!  "from","until",                       begin of the first hour and end of the last, RFC 3339; null without flows
//!  "judged":TALLY,                       all flows that were judged
//!  "counts":{"newly_unexpected":TALLY,"newly_covered":TALLY,"newly_unscoped":TALLY,"no_longer_unscoped":TALLY,
//!     "by_other_rows":TALLY,"still_expected":TALLY,"still_unexpected":TALLY,"still_unscoped":TALLY,"still_open":TALLY,
//!     "undecided":TALLY},
//!  "newly_unexpected":GROUPS,"newly_covered":GROUPS,"newly_unscoped":GROUPS,
//!  "undecided":[{"reason":"no_name|initiator_name","detail",TALLY..,"also_in_force":TALLY}],
//!  "judged_otherwise_then":TALLY,        flows that the matrix of their time judged otherwise than the one in force does now
//!  "used":[{"id","necessity","new":bool,TALLY..,"first_hour","last_hour","services":[{"service",TALLY..}]}],
//!  "unused":[{"id","necessity","new":bool,"reason":"no_flow|not_bound|no_service|undecided","detail"}],
//!  "notes":[..]}
//! TALLY: {"flows","answered"}
//! GROUPS: {"groups":[GROUP..],"left_out":TALLY}        the most flows first; what found no room is counted
//! GROUP: {"from":ROLES,"to":ROLES,"service","was":"expected|unexpected|unscoped",TALLY..,"first_hour","last_hour",
//!     "covered_in_force":["system/requirement#service"],"covered_by_draft":[..],
//!     "near_misses":[{"kind","requirement","detail"}],"samples":[{"initiator","responder","port","names":[..]}]}
//! ROLES: {"in_force":["system/role"],"draft":[..]}
//! ```
//!
//! `newly_unscoped` and `no_longer_unscoped` say what leaves and what enters the matrix' scope; the latter flows are
//! also among those that are newly covered or newly unexpected. Near misses are rows of the draft.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::export::flow_line::NearMiss;

/// Flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Begun.
    pub flows: u64,
    /// Those that were answered.
    pub answered: u64,
}

impl Tally {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.flows == 0 && self.answered == 0
    }

    /// Adds others.
    pub const fn add(&mut self, other: Self) {
        self.flows = self.flows.saturating_add(other.flows);
        self.answered = self.answered.saturating_add(other.answered);
    }
}

/// The result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "draft")]
pub struct DraftReport {
    /// The systems of the draft's files.
    pub systems: Vec<SystemLine>,
    /// Begin of the first hour with flows, RFC 3339.
    pub from: Option<String>,
    /// End of the last one.
    pub until: Option<String>,
    /// All flows that were judged.
    pub judged: Tally,
    /// By what changes for them.
    pub counts: Counts,
    /// What would become unexpected.
    pub newly_unexpected: GroupList,
    /// What would become expected.
    pub newly_covered: GroupList,
    /// What would be nobody's business any more.
    pub newly_unscoped: GroupList,
    /// What nobody can tell.
    pub undecided: Vec<Undecided>,
    /// Flows that the matrix of their time judged otherwise than the one in force does now: it, or the site, changed.
    pub judged_otherwise_then: Tally,
    /// Rows of the draft that cover flows, in the order of the files.
    pub used: Vec<Used>,
    /// Rows of the draft that cover none.
    pub unused: Vec<Unused>,
    /// What else has to be known to read this.
    pub notes: Vec<String>,
}

/// A system of the draft's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemLine {
    /// Its id.
    pub id: String,
    /// `replaced` or `added`.
    pub change: Cow<'static, str>,
    /// Whether the site deploys it: if not, nothing is judged by it.
    pub deployed: bool,
}

/// Flows by what changes for them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Unexpected by the draft alone.
    pub newly_unexpected: Tally,
    /// Expected by the draft alone.
    pub newly_covered: Tally,
    /// Unscoped by the draft alone.
    pub newly_unscoped: Tally,
    /// Unscoped in force alone; they are among those above.
    pub no_longer_unscoped: Tally,
    /// Expected by both, by other requirements.
    pub by_other_rows: Tally,
    /// Expected by both, by the same requirements.
    pub still_expected: Tally,
    /// Unexpected by both.
    pub still_unexpected: Tally,
    /// Unscoped by both.
    pub still_unscoped: Tally,
    /// The verdict hangs on a name that was not written down; whatever it is, both judge alike, by the same requirements.
    pub still_open: Tally,
    /// The draft's verdict hangs on a name that was not written down, and may be another than that in force.
    pub undecided: Tally,
}

/// Groups of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GroupList {
    /// The most flows first.
    pub groups: Vec<GroupLine>,
    /// Flows that found no room in a group.
    pub left_out: Tally,
}

/// Flows between the same roles that are judged otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLine {
    /// Roles of the initiator.
    pub from: Roles,
    /// Roles of the responder.
    pub to: Roles,
    /// `tcp/443`; a range of what was seen where a row covers more than one port.
    pub service: String,
    /// The verdict in force.
    pub was: Cow<'static, str>,
    /// How many.
    #[serde(flatten)]
    pub tally: Tally,
    /// Begin of the first hour, RFC 3339.
    pub first_hour: String,
    /// Begin of the last hour.
    pub last_hour: String,
    /// Rows in force that cover them.
    pub covered_in_force: Vec<String>,
    /// Rows of the draft that cover them.
    pub covered_by_draft: Vec<String>,
    /// Rows of the draft that nearly cover them, best first.
    pub near_misses: Vec<NearMiss>,
    /// Some of who talked, the newest first.
    pub samples: Vec<SampleLine>,
}

/// Roles of an end, as `system/role`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Roles {
    /// By the matrix in force.
    pub in_force: Vec<String>,
    /// By the draft.
    pub draft: Vec<String>,
}

/// Two ends that talked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleLine {
    /// Who opened it.
    pub initiator: String,
    /// Who was to answer.
    pub responder: String,
    /// Port, ICMP type, or 0.
    pub port: u16,
    /// Names that the responder was known by.
    pub names: Vec<String>,
}

/// Flows that nobody can judge by the draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undecided {
    /// `no_name` or `initiator_name`.
    pub reason: Cow<'static, str>,
    /// The same in words.
    pub detail: Cow<'static, str>,
    /// How many.
    #[serde(flatten)]
    pub tally: Tally,
    /// Those of them that the matrix in force can't tell from their records either.
    pub also_in_force: Tally,
}

/// A row of the draft that covers flows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// `system/requirement`.
    pub id: String,
    /// `required`, `optional` or `conditional`.
    pub necessity: Cow<'static, str>,
    /// Whether the matrix in force has no row with this id.
    pub new: bool,
    /// How many.
    #[serde(flatten)]
    pub tally: Tally,
    /// Begin of the first hour, RFC 3339.
    pub first_hour: String,
    /// Begin of the last hour.
    pub last_hour: String,
    /// All its services, those without flows too.
    pub services: Vec<UsedService>,
}

/// A service of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedService {
    /// `tcp/443`
    pub service: String,
    /// How many.
    #[serde(flatten)]
    pub tally: Tally,
}

/// A row of the draft that covers no flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unused {
    /// `system/requirement`.
    pub id: String,
    /// `required`, `optional` or `conditional`.
    pub necessity: Cow<'static, str>,
    /// Whether the matrix in force has no row with this id.
    pub new: bool,
    /// `no_flow`, `not_bound`, `no_service` or `undecided`.
    pub reason: Cow<'static, str>,
    /// The same in words.
    pub detail: String,
}
