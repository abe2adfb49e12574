//! `flowproof replay`: judges capture files and prints every flow, every requirement and a summary.

mod gather;
mod hours;
mod judged;
mod lines;
mod text;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

use super::tags::TagArguments;
use super::{Error, Format, Outcome, print};
use crate::capture::file::{CaptureFile, open_all};
use crate::capture::replay::Replay;
use crate::capture::{Capture as _, CaptureError, Progress, Snapshot};
use crate::export::flow_line::{FlowLine, verdict_name};
use crate::flow::{Limits, Span};
use crate::names;
use crate::verdict::requirement::State;
use crate::verdict::vantage::Losses;
use flowproof_common::classify::Verdict;

use gather::{Flow, Gatherer};
use judged::Row;
use lines::SummaryLine;

pub(in crate::cli) use hours::hours;
pub(super) use judged::Judged;

/// Arguments of `flowproof replay`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 fine; 1 something that --fail-on names was found, or the matrix is not valid; 2 usage or \
                  environment error. A capture that is cut short is judged as far as it goes, and then ends with 2."
)]
pub(super) struct Arguments {
    /// Capture files (pcap or pcapng), or - for standard input; several are merged by time
    #[arg(required_unless_present = "matrix", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Matrix files (*.yaml, *.yml), or folders of them
    #[arg(long, value_name = "PATH", num_args = 1..)]
    matrix: Vec<PathBuf>,
    /// What binds the matrix' roles to addresses; without it every flow is unscoped
    #[arg(long, value_name = "FILE", requires = "matrix")]
    site: Option<PathBuf>,
    #[command(flatten)]
    tags: TagArguments,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Print only the summary
    #[arg(long)]
    quiet: bool,
    /// End with exit code 1 if there is any of these
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    fail_on: Vec<FailOn>,
}

/// What is to be taken for a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// A flow that the matrix does not expect
    Unexpected,
    /// A requirement that was attempted and never answered
    Blocked,
    /// A required requirement that could be seen and was never attempted
    Silent,
}

/// All that a replay found.
struct Found {
    judged: Judged,
    flows: Vec<Flow>,
    rows: Vec<Row>,
    summary: SummaryLine,
}

impl Arguments {
    /// Matrix files and capture files. The list after `--matrix` has no end of its own, so that it may run into the
    /// capture files: after its first, a path is a matrix if it is a folder or is named like one.
    fn paths(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let is_matrix = |path: &PathBuf| {
            path.is_dir()
                || path
                    .extension()
                    .is_some_and(|extension| extension == "yaml" || extension == "yml")
        };
        let mut matrix: Vec<PathBuf> = self.matrix.iter().take(1).cloned().collect();
        let mut files = self.files.clone();
        for path in self.matrix.iter().skip(1) {
            if is_matrix(path) {
                matrix.push(path.clone());
            } else {
                files.push(path.clone());
            }
        }
        (matrix, files)
    }
}

/// Judges the files. What can't be read to its end is judged as far as it goes, and is an error after that.
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let (matrix, files) = arguments.paths();
    if files.is_empty() {
        return Err(Error::Usage(
            "no capture file: name one or more pcap or pcapng files, or `-` for standard input"
                .to_owned(),
        ));
    }
    let files = open_all(&files)?;
    let Some(mut judged) =
        Judged::read(&matrix, arguments.site.as_ref(), &arguments.tags.options())?
    else {
        return Ok(Outcome::FallsShort);
    };
    let Replayed {
        flows,
        totals,
        lossy,
        span,
        complaints,
    } = replay(files, &mut judged);
    let rows = judged.rows(&flows, lossy);
    let states: Vec<State> = rows.iter().map(|row| row.finding.state).collect();
    let found = Found {
        summary: SummaryLine::new(&totals, span, &flows, &states),
        judged,
        flows,
        rows,
    };
    print(|out| match arguments.format {
        Format::Json => found.write_json(arguments.quiet, out),
        Format::Text => text::write(&found, arguments.quiet, out),
    })?;
    if !complaints.is_empty() {
        return Err(Error::Partly(complaints));
    }
    Ok(if arguments.fail_on.iter().any(|what| found.has(*what)) {
        Outcome::FallsShort
    } else {
        Outcome::Fine
    })
}

/// What files hold, judged.
pub(super) struct Replayed {
    /// In the order of their first packets.
    pub(super) flows: Vec<Flow>,
    /// What was counted.
    pub(super) totals: Snapshot,
    /// Whether packets may have been missed.
    pub(super) lossy: Losses,
    /// First and last packet.
    pub(super) span: Option<Span>,
    /// Why a file could not be read to its end.
    pub(super) complaints: Vec<CaptureError>,
}

/// Judges the files as far as they can be read.
pub(super) fn replay(files: Vec<CaptureFile>, judged: &mut Judged) -> Replayed {
    let mut replay = Replay::new(files, Limits::default(), names::Settings::default());
    replay.judge_by(judged.installed());
    let mut gatherer = Gatherer::default();
    while replay.step(&mut |event, span| gatherer.on_event(event, span)) == Progress::Live {}
    let totals = replay.totals();
    judged.follow(replay.namer());
    Replayed {
        flows: gatherer.finish(replay.table(), replay.namer()),
        lossy: totals.losses(),
        totals,
        span: replay.span(),
        complaints: replay.into_complaints(),
    }
}

impl Found {
    fn has(&self, what: FailOn) -> bool {
        let in_state = |state| move |row: &Row| row.finding.state == state;
        match what {
            FailOn::Unexpected => self
                .flows
                .iter()
                .any(|flow| verdict_name(flow.record.state) == Verdict::Unexpected.name()),
            FailOn::Blocked => self.rows.iter().any(in_state(State::Blocked)),
            FailOn::Silent => self
                .rows
                .iter()
                .any(|row| row.required && in_state(State::Silent)(row)),
        }
    }

    fn write_json(&self, quiet: bool, out: &mut dyn Write) -> io::Result<()> {
        if !quiet {
            for flow in &self.flows {
                line(&FlowLine::new(&flow.facts(), self.judged.explainer()), out)?;
            }
            for row in &self.rows {
                line(&row.line, out)?;
            }
        }
        line(&self.summary, out)
    }
}

fn line(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
