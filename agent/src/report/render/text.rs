//! A report for a terminal: what needs doing first, then every requirement.

use std::fmt::Write as _;

use super::one_line;
use crate::report::model::{Report, Row, letter};
use crate::verdict::requirement::State;

/// The report as text, without control characters but line feeds.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "flowproof report of {}", one_line(&report.source));
    if let Some(site) = report.site.as_ref().filter(|site| !site.is_empty()) {
        let _ = writeln!(out, "site {}", one_line(site));
    }
    if let (Some(since), Some(until)) = (&report.since, &report.until) {
        let _ = writeln!(out, "from {since} to {until}");
    } else if let Some(until) = &report.until {
        let _ = writeln!(out, "at {until}");
    }
    if let Some(since) = &report.unwatched_since {
        let _ = writeln!(out, "nobody watches: states are of {since}");
    }
    let counts: Vec<String> = State::ALL
        .into_iter()
        .map(|state| (state, report.in_state(state)))
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{count} {}", state.name()))
        .collect();
    let _ = writeln!(
        out,
        "{} requirements: {}; {} unexpected flow(s)",
        report.requirements.len(),
        if counts.is_empty() {
            "none".to_owned()
        } else {
            counts.join(", ")
        },
        report.unexpected_flows,
    );
    if let Some(losses) = report.losses() {
        let _ = writeln!(out, "lost: {}", one_line(&losses));
    }
    for note in &report.notes {
        let _ = writeln!(out, "note: {}", one_line(note));
    }
    tickets(report, &mut out);
    unexpected(report, &mut out);
    requirements(report, &mut out);
    out
}

fn tickets(report: &Report, out: &mut String) {
    if report.tickets().next().is_none() {
        return;
    }
    out.push_str("\nBlocked and degraded\n");
    for (row, ticket) in report.tickets() {
        let _ = writeln!(out, "\n  [{}] {}", letter(row.state), row.id);
        let _ = writeln!(out, "  {}", one_line(&ticket.subject));
        for (title, line) in ticket.lines() {
            let _ = writeln!(out, "    {:<13}{}", format!("{title}:"), one_line(&line));
        }
    }
}

fn unexpected(report: &Report, out: &mut String) {
    if report.unexpected.is_empty() {
        return;
    }
    out.push_str("\nUnexpected\n");
    for group in &report.unexpected {
        let outcomes = group.outcomes();
        let _ = writeln!(
            out,
            "\n  {} -> {} {}: {} flow(s){}",
            one_line(&group.from),
            one_line(&group.to),
            one_line(&group.service),
            group.flows,
            if outcomes.is_empty() {
                outcomes
            } else {
                format!(" ({outcomes})")
            },
        );
        if !group.initiators.is_empty() {
            let ends = format!(
                "{} -> {}",
                group.initiators.join(", "),
                group.responders.join(", ")
            );
            let _ = writeln!(out, "    {}", one_line(&ends));
        }
        let span = group.span();
        if !span.is_empty() {
            let _ = writeln!(out, "    {}", one_line(&span));
        }
        for miss in &group.near_misses {
            let _ = writeln!(
                out,
                "    {}: {}: {}",
                miss.kind,
                one_line(&miss.requirement),
                one_line(&miss.detail)
            );
        }
    }
}

fn requirements(report: &Report, out: &mut String) {
    for system in &report.systems {
        let title = system.title.as_deref().unwrap_or(&system.id);
        let version = system.version.as_deref().unwrap_or_default();
        let _ = writeln!(out, "\n{}", one_line(format!("{title} {version}").trim()));
        let rows = report
            .requirements
            .iter()
            .filter(|row| row.system == system.id);
        for row in rows {
            line(row, out);
        }
    }
}

fn line(row: &Row, out: &mut String) {
    let parts = [row.reason(), row.standing()];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let reason = if parts.is_empty() {
        String::new()
    } else {
        format!(": {}", parts.join("; "))
    };
    let ends = row.says.as_ref().map_or_else(String::new, |says| {
        let necessity = if says.is_required() {
            ""
        } else {
            says.necessity
        };
        format!(
            "  {} {} {} {necessity}",
            says.from.id,
            says.arrow(),
            says.to.id
        )
    });
    let _ = writeln!(
        out,
        "  [{}] {:<13}{}{}{}",
        letter(row.state),
        row.state.name(),
        row.id,
        ends.trim_end(),
        one_line(&reason),
    );
    for service in row.services.iter().filter(|service| service.flows > 0) {
        let _ = writeln!(
            out,
            "        {:<13}{}: {} flow(s), {} answered, {} failed",
            one_line(&service.state),
            service.service,
            service.flows,
            service.answered,
            service.failed,
        );
    }
    for sighting in &row.seen {
        let finding = sighting.finding.as_deref().unwrap_or_default();
        let _ = writeln!(
            out,
            "        {finding:<18}{}: {}",
            one_line(&sighting.service),
            one_line(&sighting.in_words()),
        );
    }
}
