//! A report in the Test Anything Protocol, version 14: a point a requirement, and one that says whether all traffic was
//! expected.

use std::fmt::Write as _;

use super::one_line;
use crate::report::cases::{Ending, of_row, of_unexpected};
use crate::report::model::{FailOn, Report};

/// The report as TAP.
#[must_use]
pub fn render(report: &Report, fail_on: &[FailOn]) -> String {
    let since = report.unwatched_since.as_deref();
    let rows = report
        .requirements
        .iter()
        .map(|row| (row.id.as_str(), of_row(row, since, fail_on)));
    let last = ("unexpected traffic", of_unexpected(report, fail_on));
    let mut out = format!("TAP version 14\n1..{}\n", report.requirements.len() + 1);
    if let Some(losses) = report.losses() {
        let _ = writeln!(out, "# lost: {}", one_line(&losses));
    }
    for note in &report.notes {
        let _ = writeln!(out, "# {}", one_line(note));
    }
    for (number, (name, ending)) in rows.chain([last]).enumerate() {
        let (number, name) = (number + 1, description(name));
        match ending {
            Ending::Passed => {
                let _ = writeln!(out, "ok {number} - {name}");
            }
            Ending::Skipped(why) => {
                let _ = writeln!(out, "ok {number} - {name} # SKIP {}", description(&why));
            }
            Ending::Failed {
                kind,
                message,
                details,
            } => {
                let _ = writeln!(out, "not ok {number} - {name}\n  ---");
                let _ = writeln!(out, "  severity: {kind}\n  message: {}", quoted(&message));
                out.push_str("  details:\n");
                for line in details.lines() {
                    let _ = writeln!(out, "    - {}", quoted(line));
                }
                out.push_str("  ...\n");
            }
        }
    }
    out
}

/// Text after the number: `#` begins a directive and `\` escapes it.
fn description(text: &str) -> String {
    one_line(text).replace('\\', "\\\\").replace('#', "\\#")
}

/// A double-quoted YAML scalar, which is a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::String(one_line(text)).to_string()
}
