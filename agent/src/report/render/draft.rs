//! What a draft would change, for a terminal: what would raise alarms first, then what would fall silent, then its rows.

use std::fmt::Write as _;

use super::one_line;
use crate::draft::report::{
    DraftReport, GroupLine, GroupList, Roles, SampleLine, Tally, Unused, Used,
};
use crate::plural::counted;

/// Groups and rows of a kind that are told; the JSON form has all.
const TOLD: usize = 30;

/// The report as text, without control characters but line feeds.
#[must_use]
pub fn render(report: &DraftReport) -> String {
    let mut out = String::new();
    let systems: Vec<String> = report
        .systems
        .iter()
        .map(|system| {
            let ending = if system.deployed {
                ""
            } else {
                ", not deployed"
            };
            format!("{} ({}{ending})", one_line(&system.id), system.change)
        })
        .collect();
    let _ = writeln!(
        out,
        "draft: {}",
        if systems.is_empty() {
            "another site".to_owned()
        } else {
            systems.join(", ")
        }
    );
    match (&report.from, &report.until) {
        (Some(from), Some(until)) => {
            let _ = writeln!(out, "{} from {from} to {until}", flows(report.judged));
        }
        _ => out.push_str("no flows to judge\n"),
    }
    for note in &report.notes {
        let _ = writeln!(out, "note: {}", one_line(note));
    }
    counts(report, &mut out);
    groups("newly unexpected", &report.newly_unexpected, &mut out);
    groups("newly covered", &report.newly_covered, &mut out);
    groups("newly unscoped", &report.newly_unscoped, &mut out);
    undecided(report, &mut out);
    rows(report, &mut out);
    out
}

fn flows(tally: Tally) -> String {
    counted(tally.flows, "flow")
}

fn counts(report: &DraftReport, out: &mut String) {
    let counts = &report.counts;
    for (title, tally) in [
        ("newly unexpected", counts.newly_unexpected),
        ("newly covered", counts.newly_covered),
        ("newly unscoped", counts.newly_unscoped),
        ("no longer unscoped", counts.no_longer_unscoped),
        ("by other rows", counts.by_other_rows),
        ("still expected", counts.still_expected),
        ("still unexpected", counts.still_unexpected),
        ("still unscoped", counts.still_unscoped),
        ("still open", counts.still_open),
        ("undecided", counts.undecided),
    ] {
        if !tally.is_empty() {
            let _ = writeln!(out, "  {title:<20}{}", told(tally));
        }
    }
    let then = report.judged_otherwise_then;
    if !then.is_empty() {
        let _ = writeln!(
            out,
            "{} had another verdict at the time than the matrix in force gives now: it, or the site, changed since",
            flows(then)
        );
    }
}

fn told(tally: Tally) -> String {
    format!("{}, {} answered", flows(tally), tally.answered)
}

fn groups(title: &str, list: &GroupList, out: &mut String) {
    if list.groups.is_empty() && list.left_out.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title}");
    for group in list.groups.iter().take(TOLD) {
        one(group, out);
    }
    let rest = list.groups.get(TOLD..).unwrap_or_default();
    let mut more = list.left_out;
    for group in rest {
        more.add(group.tally);
    }
    if !more.is_empty() {
        let _ = writeln!(out, "  and {} of other kinds", told(more));
    }
}

fn one(group: &GroupLine, out: &mut String) {
    let _ = writeln!(
        out,
        "  {} -> {} {}: {}, {}",
        roles(&group.from),
        roles(&group.to),
        one_line(&group.service),
        told(group.tally),
        if group.first_hour == group.last_hour {
            format!("in the hour from {}", group.first_hour)
        } else {
            format!("hours from {} to {}", group.first_hour, group.last_hour)
        },
    );
    for (words, rows) in [
        ("covered in force by", &group.covered_in_force),
        ("covered in the draft by", &group.covered_by_draft),
    ] {
        if !rows.is_empty() {
            let _ = writeln!(out, "      {words} {}", one_line(&rows.join(", ")));
        }
    }
    if group.was == "unscoped" {
        out.push_str("      nobody's business in force\n");
    }
    if let Some(miss) = group.near_misses.first() {
        let _ = writeln!(
            out,
            "      nearly {}: {}",
            one_line(&miss.requirement),
            one_line(&miss.detail)
        );
    }
    let samples: Vec<String> = group.samples.iter().map(sample).collect();
    if !samples.is_empty() {
        let _ = writeln!(out, "      such as {}", one_line(&samples.join(", ")));
    }
}

fn sample(sample: &SampleLine) -> String {
    let names = if sample.names.is_empty() {
        String::new()
    } else {
        format!(" ({})", sample.names.join(" "))
    };
    format!("{} -> {}{names}", sample.initiator, sample.responder)
}

fn roles(roles: &Roles) -> String {
    let words = |roles: &[String]| {
        if roles.is_empty() {
            "nobody".to_owned()
        } else {
            one_line(&roles.join(","))
        }
    };
    let (in_force, draft) = (words(&roles.in_force), words(&roles.draft));
    if in_force == draft {
        in_force
    } else {
        format!("{in_force} (draft: {draft})")
    }
}

fn undecided(report: &DraftReport, out: &mut String) {
    if report.undecided.is_empty() {
        return;
    }
    out.push_str("\nundecided\n");
    for undecided in &report.undecided {
        let _ = write!(out, "  {}: {}", told(undecided.tally), undecided.detail);
        if undecided.also_in_force.is_empty() {
            out.push('\n');
        } else {
            let _ = writeln!(
                out,
                " ({} of them are as open by the matrix in force)",
                undecided.also_in_force.flows
            );
        }
    }
}

fn rows(report: &DraftReport, out: &mut String) {
    // Of a row that nobody can use its silence says nothing.
    let (usable, others): (Vec<&Unused>, Vec<&Unused>) = report
        .unused
        .iter()
        .partition(|row| row.reason == "no_flow" || row.reason == "undecided");
    if !report.unused.is_empty() {
        out.push_str("\nrows of the draft without a flow\n");
        list(&usable, out, |row, out| {
            let _ = writeln!(
                out,
                "  {} ({}{}): {}",
                one_line(&row.id),
                row.necessity,
                if row.new { ", new" } else { "" },
                one_line(&row.detail)
            );
        });
        if !others.is_empty() {
            let _ = writeln!(
                out,
                "  and {} that no flow can use: a role is not bound, or no service named",
                others.len()
            );
        }
    }
    if !report.used.is_empty() {
        out.push_str("\nrows of the draft with flows\n");
        let used: Vec<&Used> = report.used.iter().collect();
        list(&used, out, |row, out| {
            let _ = writeln!(
                out,
                "  {}{}: {}",
                one_line(&row.id),
                if row.new { " (new)" } else { "" },
                told(row.tally)
            );
        });
    }
}

/// The first of them, and how many more there are.
fn list<T>(all: &[&T], out: &mut String, write: impl Fn(&T, &mut String)) {
    for one in all.iter().take(TOLD) {
        write(one, out);
    }
    if let Some(more) = all.len().checked_sub(TOLD).filter(|more| *more > 0) {
        let _ = writeln!(out, "  and {more} more");
    }
}
