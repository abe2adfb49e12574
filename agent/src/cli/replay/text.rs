//! What `flowproof replay` shows to people: flows by line, requirements by state, and a summary.

use std::io::{self, Write};

use super::Found;
use crate::cli::snippet::visible;
use crate::export::flow_line::{End, FlowLine};
use crate::plural::counted;

pub(super) fn write(found: &Found, quiet: bool, out: &mut dyn Write) -> io::Result<()> {
    if !quiet {
        flows(found, out)?;
        requirements(found, out)?;
    }
    summary(found, out)
}

fn end(end: &End) -> String {
    let address = match end.port {
        Some(port) if end.address.contains(':') => format!("[{}]:{port}", end.address),
        Some(port) => format!("{}:{port}", end.address),
        None => end.address.clone(),
    };
    if end.roles.is_empty() {
        address
    } else {
        format!("{address} ({})", end.roles.join(", "))
    }
}

fn flows(found: &Found, out: &mut dyn Write) -> io::Result<()> {
    for flow in &found.flows {
        let line = FlowLine::new(&flow.facts(), found.judged.explainer());
        writeln!(
            out,
            "{}  {:<10} {:<19} {} {} -> {}",
            line.first_seen,
            line.verdict,
            line.outcome,
            line.protocol,
            end(&line.initiator),
            end(&line.responder),
        )?;
        let mut details = vec![format!("{} + {} packets", line.packets[0], line.packets[1])];
        details.extend(line.evidence);
        if !line.requirements.is_empty() {
            details.push(format!("covered by {}", line.requirements.join(", ")));
        }
        details.extend(
            line.near_misses
                .first()
                .map(|miss| format!("nearly {}: {}", miss.requirement, miss.detail)),
        );
        writeln!(out, "    {}", visible(&details.join("; ")))?;
    }
    if !found.flows.is_empty() {
        writeln!(out)?;
    }
    Ok(())
}

fn requirements(found: &Found, out: &mut dyn Write) -> io::Result<()> {
    for row in &found.rows {
        let mut reason = row.line.reason();
        if !reason.is_empty() {
            reason.insert_str(0, ": ");
        }
        writeln!(out, "{:<13}{}{reason}", row.line.state, row.line.id)?;
        for service in &row.line.services {
            if service.flows == 0 {
                continue;
            }
            writeln!(
                out,
                "    {:<13}{}: {}, {} answered, {} failed",
                service.state,
                service.service,
                counted(service.flows, "flow"),
                service.answered,
                service.failed,
            )?;
        }
    }
    if !found.rows.is_empty() {
        writeln!(out)?;
    }
    Ok(())
}

fn summary(found: &Found, out: &mut dyn Write) -> io::Result<()> {
    let summary = &found.summary;
    writeln!(
        out,
        "{} packets ({} unparsed), {} bytes, {} in {:.3} s",
        summary.packets,
        summary.packets_unparsed,
        summary.bytes,
        counted(summary.flows, "flow"),
        summary.seconds,
    )?;
    for (title, counts) in [
        ("verdicts", &summary.by_verdict),
        ("outcomes", &summary.by_outcome),
        ("requirements", &summary.by_state),
        ("lost", &summary.lost),
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
