//! What `flowproof probe` shows to people: rows by state with what was tried for them, or the plan, and a summary.

use std::io::{self, Write};

use super::{Found, plan_line};
use crate::cli::snippet::visible;
use crate::export::probe_line::{NotProbed, PlanLine, ProbeLine, RangeLine};
use crate::plural::counted;

pub(super) fn write(found: &Found, out: &mut dyn Write) -> io::Result<()> {
    if found.summary.dry_run {
        plan(found, out)?;
    } else {
        rows(found, out)?;
    }
    summary(found, out)
}

fn plan(found: &Found, out: &mut dyn Write) -> io::Result<()> {
    for row in &found.plan.rows {
        let PlanLine {
            id,
            probes,
            not_probed,
            ranges,
        } = plan_line(row);
        writeln!(out, "{id}")?;
        for probe in probes {
            let target = match (&probe.target, &probe.name) {
                (Some(address), _) => address.clone(),
                (None, Some(name)) => format!("{name} (to be resolved)"),
                (None, None) => continue,
            };
            writeln!(
                out,
                "    {:<12} {} -> {target}: {}",
                probe.service,
                probe.initiators.join(" or "),
                probe.question,
            )?;
        }
        remainder(&not_probed, &ranges, out)?;
    }
    if !found.plan.rows.is_empty() {
        writeln!(out)?;
    }
    Ok(())
}

fn rows(found: &Found, out: &mut dyn Write) -> io::Result<()> {
    for row in &found.rows {
        let line = &row.line.requirement;
        let mut reason = line.reason();
        if !reason.is_empty() {
            reason.insert_str(0, ": ");
        }
        writeln!(out, "{:<13}{}{reason}", line.state, line.id)?;
        for service in line.services.iter().filter(|service| service.flows > 0) {
            writeln!(
                out,
                "    {:<13}{}: {}, {} answered, {} failed",
                service.state,
                service.service,
                counted(
                    usize::try_from(service.flows).unwrap_or(usize::MAX),
                    "probe"
                ),
                service.answered,
                service.failed,
            )?;
        }
        for probe in &row.line.probes {
            one(probe, out)?;
        }
        remainder(&row.line.not_probed, &row.line.ranges, out)?;
    }
    if !found.rows.is_empty() {
        writeln!(out)?;
    }
    Ok(())
}

fn one(probe: &ProbeLine, out: &mut dyn Write) -> io::Result<()> {
    let name = probe
        .name
        .as_ref()
        .map(|name| format!(" ({name})"))
        .unwrap_or_default();
    writeln!(
        out,
        "        {} -> {}{name} {}, {}: {} after {:.1} ms; {}",
        probe.initiator,
        probe.target,
        probe.service,
        probe.question,
        probe.outcome,
        probe.milliseconds,
        visible(&probe.evidence.join("; ")),
    )
}

/// What was left out. The same reason for several services is said once.
fn remainder(
    not_probed: &[NotProbed],
    ranges: &[RangeLine],
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut said: Vec<(&Option<String>, &str)> = Vec::new();
    for left_out in not_probed {
        let what = (&left_out.target, left_out.detail.as_str());
        if said.contains(&what) {
            continue;
        }
        said.push(what);
        let services: Vec<&str> = not_probed
            .iter()
            .filter(|other| (&other.target, other.detail.as_str()) == what)
            .map(|other| other.service.as_str())
            .collect();
        let target = left_out
            .target
            .as_ref()
            .map(|target| format!(" at {target}"))
            .unwrap_or_default();
        writeln!(
            out,
            "    not probed: {}{target}: {} ({})",
            services.join(", "),
            visible(&left_out.detail),
            left_out.cause,
        )?;
    }
    for range in ranges {
        writeln!(
            out,
            "    {} of the {} ports of {}",
            range.tried, range.of, range.service
        )?;
    }
    Ok(())
}

fn summary(found: &Found, out: &mut dyn Write) -> io::Result<()> {
    let summary = &found.summary;
    let probes = counted(summary.probes, "probe");
    let names = counted(summary.names, "name");
    if summary.dry_run {
        writeln!(
            out,
            "{probes} to make, {names} to resolve, nothing was sent"
        )?;
    } else {
        writeln!(
            out,
            "{probes}, {names} resolved in {:.3} s{}",
            summary.seconds,
            if summary.interrupted {
                ", interrupted"
            } else {
                ""
            }
        )?;
    }
    if summary.verified_before > 0 {
        writeln!(
            out,
            "{} verified already and left out",
            counted(summary.verified_before, "requirement")
        )?;
    }
    for (title, counts) in [
        ("outcomes", &summary.by_outcome),
        ("requirements", &summary.by_state),
    ] {
        let seen: Vec<_> = counts
            .iter()
            .filter(|(_, count)| count.as_u64() != Some(0))
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        if !seen.is_empty() {
            writeln!(out, "{title}: {}", seen.join(", "))?;
        }
    }
    Ok(())
}
