//! What was seen of a flow and of the requirements that cover it, in a capture, by a running daemon, or by one that wrote it
//! down in its ledger.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use flowproof_common::state::Outcome;
use serde::Serialize;

use super::question::Question;
use crate::capture::CaptureError;
use crate::capture::file::CaptureFile;
use crate::cli::daemon_access::DaemonAccess;
use crate::cli::ledger::At;
use crate::cli::replay::{Judged, Wanted, replay};
use crate::cli::snippet::visible;
use crate::engine::flows::{Filter, QueryError, Tally};
use crate::export::requirement_line::RequirementLine;
use crate::export::times::time;
use crate::plural::counted;
use crate::report::unexpected::Unexpected;

/// Unlike pieces of evidence that are kept.
const EVIDENCE: usize = 5;

/// Who saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Capture files.
    Capture,
    /// The daemon at this URL.
    Daemon(String),
    /// The ledger in this file.
    Ledger(String),
}

impl Source {
    /// The name in JSON.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Daemon(_) => "daemon",
            Self::Ledger(_) => "ledger",
        }
    }

    /// Where, after "seen".
    pub(super) fn place(&self) -> String {
        match self {
            Self::Capture => "in the capture".to_owned(),
            Self::Daemon(url) => format!("by the daemon at {}", visible(url)),
            Self::Ledger(path) => format!("in the ledger {}", visible(path)),
        }
    }
}

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// Who saw it.
    pub(super) source: Source,
    /// How many flows of this kind.
    pub(super) flows: u64,
    /// How many of them by outcome; none that is 0.
    pub(super) by_outcome: BTreeMap<String, u64>,
    /// The first packet of the first, RFC 3339; of a ledger, the begin of its hour.
    pub(super) first_seen: Option<String>,
    /// The last packet of the last; of a ledger, the begin of its hour.
    pub(super) last_seen: Option<String>,
    /// What their outcomes rest on.
    pub(super) evidence: Vec<String>,
    /// The requirements that cover it.
    pub(super) requirements: Vec<RequirementLine>,
    /// What a ledger counted together with it, if it is unexpected.
    pub(super) unexpected: Option<Unexpected>,
    /// What makes the rest doubtful.
    pub(super) notes: Vec<String>,
}

impl Seen {
    /// Nothing yet.
    pub(super) const fn new(source: Source) -> Self {
        Self {
            source,
            flows: 0,
            by_outcome: BTreeMap::new(),
            first_seen: None,
            last_seen: None,
            evidence: Vec::new(),
            requirements: Vec::new(),
            unexpected: None,
            notes: Vec::new(),
        }
    }

    /// Adds what a flow's outcome rests on, unless another said the same.
    pub(super) fn add_evidence(&mut self, outcome: &str, evidence: &[String]) {
        let text = format!("{}: {}", words(outcome), evidence.join("; "));
        if self.evidence.len() < EVIDENCE && !self.evidence.contains(&text) {
            self.evidence.push(text);
        }
    }

    /// Adds a doubt once.
    pub(super) fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Replays `files`. What can't be read to its end is looked through as far as it goes.
    pub(super) fn in_files(
        files: Vec<CaptureFile>,
        judged: &mut Judged,
        question: &Question,
        requirements: &[String],
    ) -> Result<(Self, Vec<CaptureError>), QueryError> {
        let replayed = replay(files, judged, Wanted::Flows);
        let query = question.query();
        let filter = Filter::new(&query, judged.installed(), &[], std::iter::empty())?;
        let mut seen = Self::new(Source::Capture);
        let mut tally = Tally::default();
        let (mut first, mut last) = (None, None);
        // They come by the time of their first packet; of the evidence the newest says most.
        for flow in replayed.flows.iter().rev() {
            let [from, to] = flow.facts().names();
            if !filter.takes(&flow.key, &flow.record) || !question.has_names(&from, &to) {
                continue;
            }
            tally.add(&flow.record);
            seen.add_evidence(flow.outcome().name(), &flow.facts().evidence());
            first = Some(flow.span.first);
            last = last.max(Some(flow.span.last));
        }
        seen.flows = tally.flows;
        seen.by_outcome = Outcome::ALL
            .into_iter()
            .zip(tally.by_outcome)
            .filter(|(_, count)| *count > 0)
            .map(|(outcome, count)| (outcome.name().to_owned(), count))
            .collect();
        seen.first_seen = first.map(time);
        seen.last_seen = last.map(time);
        seen.requirements = judged
            .rows(&replayed.tally, replayed.lossy)
            .into_iter()
            .map(|row| row.line)
            .filter(|line| requirements.contains(&line.id))
            .collect();
        Ok((seen, replayed.complaints))
    }

    /// For people.
    pub(super) fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let place = self.source.place();
        let (now, at) = match &self.source {
            Source::Capture => ("", "at"),
            Source::Daemon(_) => (" in its tables now", "at"),
            Source::Ledger(_) => ("", "in the hour from"),
        };
        match (&self.source, self.flows) {
            (Source::Capture, 0) => writeln!(out, "the capture has no such flow")?,
            (Source::Daemon(url), 0) => writeln!(
                out,
                "the daemon at {} has no such flow in its tables now; flows that end leave them after 5 s to 2 min",
                visible(url)
            )?,
            (Source::Ledger(path), 0) => {
                writeln!(out, "the ledger {} has no such flow", visible(path))?
            }
            (_, flows) => {
                let outcomes: Vec<String> = self
                    .by_outcome
                    .iter()
                    .map(|(outcome, flows)| format!("{flows} {}", words(outcome)))
                    .collect();
                let mut line = format!(
                    "seen {place}: {}{now} ({})",
                    counted(flows, "flow"),
                    outcomes.join(", ")
                );
                for (what, time) in [("first", &self.first_seen), ("last", &self.last_seen)] {
                    if let Some(time) = time {
                        // Writing to a string can't fail.
                        let _ = write!(line, ", {what} {at} {time}");
                    }
                }
                writeln!(out, "{}", visible(&line))?;
            }
        }
        for evidence in &self.evidence {
            writeln!(out, "    {}", visible(evidence))?;
        }
        for requirement in &self.requirements {
            let mut line = format!("{} {place}: {}", requirement.id, requirement.state);
            let reason = requirement.reason();
            if !reason.is_empty() {
                let _ = write!(line, " ({})", words(&reason));
            }
            if let Some(ratio) = requirement.ratio {
                let _ = write!(line, ", {:.0} % answered", ratio * 100.0);
            }
            if let Some(since) = &requirement.since {
                let _ = write!(line, ", since {since}");
            }
            writeln!(out, "{}", visible(&line))?;
            for service in &requirement.services {
                if service.flows == 0 {
                    continue;
                }
                let mut line = format!(
                    "    {} {}: {}, {} answered, {} failed",
                    service.service,
                    service.state,
                    counted(service.flows, "flow"),
                    service.answered,
                    service.failed
                );
                if let Some(time) = &service.last_seen {
                    let _ = write!(line, ", last seen {time}");
                }
                writeln!(out, "{}", visible(&line))?;
            }
        }
        if let Some(group) = &self.unexpected {
            let line = format!(
                "flows from {} to {} on {} {place}: {} in all ({}), {}",
                group.from,
                group.to,
                group.service,
                counted(group.flows, "flow"),
                group.outcomes(),
                group.span()
            );
            writeln!(out, "{}", visible(&line))?;
            let line = format!(
                "    lately {} -> {}",
                group.initiators.join(", "),
                group.responders.join(", ")
            );
            writeln!(out, "{}", visible(&line))?;
        }
        for note in &self.notes {
            writeln!(out, "note: {}", visible(note))?;
        }
        Ok(())
    }

    /// For programs.
    pub(super) fn view(&self) -> SeenView<'_> {
        SeenView {
            source: self.source.name(),
            flows: self.flows,
            by_outcome: &self.by_outcome,
            first_seen: self.first_seen.as_deref(),
            last_seen: self.last_seen.as_deref(),
            evidence: &self.evidence,
            requirements: &self.requirements,
            unexpected: self.unexpected.as_ref(),
            notes: &self.notes,
        }
    }
}

pub(super) fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// The contract.
#[derive(Serialize)]
pub(super) struct SeenView<'a> {
    source: &'static str,
    flows: u64,
    by_outcome: &'a BTreeMap<String, u64>,
    first_seen: Option<&'a str>,
    last_seen: Option<&'a str>,
    evidence: &'a [String],
    requirements: &'a [RequirementLine],
    #[serde(skip_serializing_if = "Option::is_none")]
    unexpected: Option<&'a Unexpected>,
    notes: &'a [String],
}

/// Where to look for what was seen.
#[derive(Debug, clap::Args)]
pub(super) struct Look {
    /// Capture files (pcap or pcapng) to look into, or - for standard input
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "daemon")]
    pub(super) capture: Vec<PathBuf>,
    /// Ask a running daemon what it sees
    #[arg(
        long,
        value_name = "URL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = super::daemon::DEFAULT_URL
    )]
    pub(super) daemon: Option<String>,
    #[command(flatten)]
    pub(super) access: DaemonAccess,
    /// Look into a ledger, named by its file or by the daemon's state directory [default: /var/lib/flowproof]; write
    /// `--ledger=PATH` if a flow follows
    #[arg(
        long,
        value_name = "PATH",
        num_args = 0..=1,
        default_missing_value = crate::config::STATE_DIRECTORY,
        conflicts_with_all = ["capture", "daemon"]
    )]
    pub(super) ledger: Option<PathBuf>,
    /// The moment that the states of a ledger are of
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        requires = "ledger",
        default_value_t
    )]
    pub(super) at: At,
}
