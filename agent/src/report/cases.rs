//! A report as test cases, one a requirement, for CI. Only what was seen to work passes. What nobody can tell, what can't be
//! seen from here and what nobody tried is skipped with its cause: a skipped test is no green one. So is what worked when
//! somebody watched last, if nobody does now.

use super::model::{FailOn, Report, Row, meaning};
use crate::verdict::requirement::State;

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It was seen to work.
    Passed,
    /// It falls short: kind, one line, and what there is to say beside.
    Failed {
        /// The state, or `unexpected`.
        kind: &'static str,
        /// One line.
        message: String,
        /// The text of the ticket, or what there is.
        details: String,
    },
    /// Nobody can tell, or nobody asks: why.
    Skipped(String),
}

/// How a requirement's case ended; `unwatched_since` is since when nobody watches. Blocked and degraded ones fail always, silent and unknown ones if they are required and
/// `fail_on` names them.
#[must_use]
pub fn of_row(row: &Row, unwatched_since: Option<&str>, fail_on: &[FailOn]) -> Ending {
    let reason = row.reason();
    let reason = if reason.is_empty() {
        meaning(row.state).to_owned()
    } else {
        reason
    };
    let as_of = unwatched_since
        .map(|time| format!(" (as of {time}: nobody has watched since)"))
        .unwrap_or_default();
    let text = format!("{}: {reason}{as_of}", row.state.name());
    let fails = match row.state {
        State::Verified if unwatched_since.is_some() => false,
        State::Verified => return Ending::Passed,
        State::Blocked | State::Degraded => true,
        State::Silent => row.is_required() && fail_on.contains(&FailOn::Silent),
        State::Unknown => row.is_required() && fail_on.contains(&FailOn::Unknown),
        State::Unobservable => false,
    };
    if fails {
        Ending::Failed {
            kind: row.state.name(),
            message: text,
            details: row.ticket.as_ref().map_or_else(
                || meaning(row.state).to_owned(),
                super::ticket::Ticket::text,
            ),
        }
    } else if row.state == State::Silent && !row.is_required() {
        let necessity = row.says.as_ref().map_or("optional", |says| says.necessity);
        Ending::Skipped(format!("{text} ({necessity})"))
    } else {
        Ending::Skipped(text)
    }
}

/// Whether all traffic was expected. Unexpected traffic fails if `fail_on` names it; where packets were lost, none seen is not
/// none.
#[must_use]
pub fn of_unexpected(report: &Report, fail_on: &[FailOn]) -> Ending {
    if report.unexpected_flows == 0 {
        return match report.losses() {
            Some(losses) => {
                Ending::Skipped(format!("none was seen, but there were losses: {losses}"))
            }
            None if report.was_unwatched() => Ending::Skipped(
                "none was seen, but for a part of the time nobody watched".to_owned(),
            ),
            None => Ending::Passed,
        };
    }
    let message = format!("{} unexpected flow(s)", report.unexpected_flows);
    if !fail_on.contains(&FailOn::Unexpected) {
        return Ending::Skipped(message);
    }
    let details: Vec<String> = report
        .unexpected
        .iter()
        .map(|group| {
            let miss = group.near_misses.first();
            let miss = miss.map(|miss| format!("; nearly {}: {}", miss.requirement, miss.detail));
            format!(
                "{} -> {} {}: {} flow(s){}\n",
                group.from,
                group.to,
                group.service,
                group.flows,
                miss.unwrap_or_default()
            )
        })
        .collect();
    Ending::Failed {
        kind: "unexpected",
        message,
        details: details.concat(),
    }
}
