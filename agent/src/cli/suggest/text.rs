//! Suggestions for people: what is proposed first, then what is only told, each with its reason. Empty parts are left out.

use std::io::{self, Write};

use super::Page;
use crate::cli::snippet::visible;
use crate::plural::counted;
use crate::suggest::{Evidence, Proposal, Removal, Unused};

pub(super) fn write(page: &Page, out: &mut dyn Write) -> io::Result<()> {
    let found = &page.suggestions;
    let totals = &found.totals;
    writeln!(
        out,
        "{}: {} flows in {} hourly records, {} of them unexpected by the matrix as it is now",
        visible(&page.source),
        totals.flows,
        totals.records,
        totals.unexpected_flows
    )?;
    for (count, what) in [
        (
            totals.rare_flows,
            "unexpected flows recur too little to be told",
        ),
        (
            totals.undecided_flows,
            "flows can't be judged, because a name would decide and none was recorded",
        ),
        (
            totals.folded_flows,
            "unexpected flows found no room and were not looked at",
        ),
    ] {
        if count > 0 {
            writeln!(out, "{count} {what}")?;
        }
    }
    if found.is_empty() {
        writeln!(out, "no requirement to propose")?;
    } else {
        heading("Proposed requirements", out)?;
        for proposal in &found.proposals {
            proposed(page, proposal, out)?;
        }
    }
    if !found.roles.is_empty() {
        heading("New roles that they need", out)?;
        for role in &found.roles {
            let names = some(&role.names, role.names.len(), false);
            writeln!(out, "{}/{}: {}", role.system, role.id, visible(&names))?;
        }
    }
    told(
        "Attempted and not answered: not proposed without --include-unanswered",
        found
            .unanswered
            .iter()
            .map(|it| (&it.from, &it.to, &it.service, &it.reason, &it.evidence)),
        out,
    )?;
    if !found.scans.is_empty() {
        heading("Looks like a scan: never proposed", out)?;
        for scan in &found.scans {
            writeln!(
                out,
                "{} ({}): {}",
                scan.initiator,
                visible(&scan.from),
                scan.reason
            )?;
            writeln!(out, "    {} flows ({} answered)", scan.flows, scan.answered)?;
        }
    }
    told(
        "Answers that were taken for requests: not proposed",
        found
            .mistaken
            .iter()
            .map(|it| (&it.from, &it.to, &it.service, &it.reason, &it.evidence)),
        out,
    )?;
    told(
        "Recurs and is not proposed",
        found
            .left
            .iter()
            .map(|it| (&it.from, &it.to, &it.service, &it.reason, &it.evidence)),
        out,
    )?;
    if totals.untold > 0 {
        writeln!(out, "and {} more of these lists", totals.untold)?;
    }
    if let Some(unused) = &page.unused {
        not_used(unused, out)?;
    }
    for hint in &page.hints {
        writeln!(out, "\n{}", visible(hint))?;
    }
    Ok(())
}

fn heading(text: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{text}\n")
}

fn proposed(page: &Page, proposal: &Proposal, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{}: {} -> {} {} ({}), in {}",
        proposal.id,
        proposal.from,
        proposal.to,
        proposal.services.join(", "),
        proposal.necessity,
        visible(&page.files.of(&proposal.system).display().to_string())
    )?;
    evidence(&proposal.evidence, out)?;
    // The first doubt is that of every proposal.
    for doubt in proposal.doubts.iter().skip(1) {
        writeln!(out, "    {}", visible(doubt))?;
    }
    Ok(())
}

fn evidence(evidence: &Evidence, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "    {}", evidence.words())?;
    let outcomes = evidence.outcome_words();
    if evidence.answered < evidence.flows && !outcomes.is_empty() {
        writeln!(out, "    outcomes: {outcomes}")?;
    }
    let clients = &evidence.clients;
    let servers = &evidence.servers;
    writeln!(
        out,
        "    from {} to {}",
        some(&clients.some, clients.count, clients.more),
        some(&servers.some, servers.count, servers.more)
    )
}

type Told<'a> = (&'a String, &'a String, &'a String, &'a String, &'a Evidence);

fn told<'a>(
    title: &str,
    list: impl Iterator<Item = Told<'a>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (at, (from, to, service, reason, seen)) in list.enumerate() {
        if at == 0 {
            heading(title, out)?;
        }
        writeln!(
            out,
            "{} -> {} {service}: {}",
            visible(from),
            visible(to),
            visible(reason)
        )?;
        evidence(seen, out)?;
    }
    Ok(())
}

/// Addresses that are told, and that there are others.
fn some(list: &[String], count: usize, more: bool) -> String {
    let shown = list.join(", ");
    if more || count > list.len() {
        format!("{shown}, ...")
    } else {
        shown
    }
}

fn not_used(unused: &Unused, out: &mut dyn Write) -> io::Result<()> {
    let days = unused.days;
    if !unused.removals.is_empty() {
        heading(
            &format!("Not used for {days} days: candidates for removal"),
            out,
        )?;
        for removal in &unused.removals {
            writeln!(out, "{}", removal_text(removal))?;
        }
    }
    if !unused.untold.is_empty() {
        heading(
            &format!("Not seen, but nobody can tell yet whether for {days} days"),
            out,
        )?;
        for untold in &unused.untold {
            writeln!(
                out,
                "{}: watched for {} of {days} days ({})",
                counted(untold.services, "service"),
                untold.watched_days,
                untold.reason
            )?;
        }
    }
    if unused.removals.is_empty() && unused.untold.is_empty() {
        writeln!(
            out,
            "\nevery requirement that can be seen was used within {days} days"
        )?;
    }
    Ok(())
}

fn removal_text(removal: &Removal) -> String {
    let what = if removal.whole {
        "all services"
    } else {
        "only these services"
    };
    let last = match &removal.last_seen {
        Some(time) => format!("last seen {time}"),
        None => "never seen".to_owned(),
    };
    let careful = match removal.necessity {
        "required" => "",
        _ => "; silence is no surprise",
    };
    format!(
        "{} ({}{careful}): {} ({what}): {last}, unused for {} days",
        removal.id,
        removal.necessity,
        removal.services.join(", "),
        removal.unused_days
    )
}
