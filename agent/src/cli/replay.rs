//! `flowproof replay`: judges capture files and prints every flow, every requirement and a summary; and with a draft of the
//! matrix, what that would change, also for the flows of a ledger.

mod draft;
mod gather;
mod hours;
mod judged;
mod lines;
mod tally;
mod text;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::ValueEnum;

use super::tags::TagArguments;
use super::{Error, Format, Outcome, line, print};
use crate::capture::file::{CaptureFile, open_all};
use crate::capture::replay::Replay;
use crate::capture::{Capture as _, CaptureError, Progress, Snapshot};
use crate::draft::{DraftReport, Judge};
use crate::export::flow_line::FlowLine;
use crate::flow::{Limits, Span};
use crate::names::{self, wall_time};
use crate::verdict::requirement::State;
use crate::verdict::vantage::Losses;
use flowproof_common::classify::Verdict;

use draft::DraftArguments;
use gather::{Flow, Gatherer};
use judged::Row;
use lines::SummaryLine;
use tally::Tally;

pub(super) use gather::Wanted;
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
    #[command(flatten)]
    draft: DraftArguments,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Print only the summary, and what a draft would change
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
    /// A flow that the draft does not expect, though the matrix in force has nothing against it
    NewlyUnexpected,
}

/// All that a replay found.
struct Found {
    judged: Judged,
    /// None of them if only the summary is told.
    flows: Vec<Flow>,
    tally: Tally,
    rows: Vec<Row>,
    summary: SummaryLine,
    draft: Option<DraftReport>,
}

/// The paths of a command line.
struct Paths {
    matrix: Vec<PathBuf>,
    draft: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Arguments {
    /// Matrix files and capture files. The lists after `--matrix` and `--draft` have no end of their own, so that they may
    /// run into the capture files: after its first, a path is a matrix if it is a folder or is named like one.
    fn paths(&self) -> Paths {
        let mut files = self.files.clone();
        let mut listed = |paths: &[PathBuf]| {
            let mut matrix = Vec::with_capacity(paths.len());
            for (position, path) in paths.iter().enumerate() {
                if position == 0 || is_matrix(path) {
                    matrix.push(path.clone());
                } else {
                    files.push(path.clone());
                }
            }
            matrix
        };
        let matrix = listed(&self.matrix);
        let draft = listed(self.draft.listed());
        Paths {
            matrix,
            draft,
            files,
        }
    }

    fn read_draft(&self, paths: &Paths, judged: &Judged) -> Result<Option<Judge>, Error> {
        self.draft.judge(
            &paths.matrix,
            self.site.as_ref(),
            &paths.draft,
            &self.tags.options(),
            judged,
        )
    }
}

fn is_matrix(path: &Path) -> bool {
    path.is_dir()
        || path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Judges the files. What can't be read to its end is judged as far as it goes, and is an error after that.
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let paths = arguments.paths();
    if !arguments.draft.is_given() && arguments.fail_on.contains(&FailOn::NewlyUnexpected) {
        return Err(Error::Usage(
            "--fail-on newly-unexpected compares with a draft: name one by --draft".to_owned(),
        ));
    }
    if let Some(ledger) = &arguments.draft.ledger {
        return run_ledger(arguments, &paths, ledger);
    }
    if paths.files.is_empty() {
        return Err(Error::Usage(
            "no capture file: name one or more pcap or pcapng files, or `-` for standard input"
                .to_owned(),
        ));
    }
    let files = open_all(&paths.files)?;
    let Some(mut judged) = Judged::read(
        &paths.matrix,
        arguments.site.as_ref(),
        &arguments.tags.options(),
    )?
    else {
        return Ok(Outcome::FallsShort);
    };
    // Before the files, so that an error in the draft costs no wait.
    let mut judge = None;
    if arguments.draft.is_given() {
        judge = arguments.read_draft(&paths, &judged)?;
        if judge.is_none() {
            return Ok(Outcome::FallsShort);
        }
    }
    let wanted = if arguments.quiet && judge.is_none() {
        Wanted::Sum
    } else {
        Wanted::Flows
    };
    let Replayed {
        flows,
        tally,
        totals,
        lossy,
        span,
        complaints,
    } = replay(files, &mut judged, wanted);
    let rows = judged.rows(&tally, lossy);
    let states: Vec<State> = rows.iter().map(|row| row.finding.state).collect();
    let found = Found {
        summary: SummaryLine::new(&totals, span, &tally, &states),
        draft: judge.map(|mut judge| {
            draft::add_capture(&mut judge, &flows, lossy);
            judge.report()
        }),
        judged,
        flows,
        tally,
        rows,
    };
    print(|out| {
        match arguments.format {
            Format::Json => found.write_json(arguments.quiet, out)?,
            Format::Text => text::write(&found, arguments.quiet, out)?,
        }
        if let Some(report) = &found.draft {
            if arguments.format == Format::Text {
                writeln!(out)?;
            }
            draft::write(report, arguments.format, out)?;
        }
        Ok(())
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

/// Judges the flows of a ledger, which has no packets to tell of.
fn run_ledger(arguments: &Arguments, paths: &Paths, ledger: &Path) -> Result<Outcome, Error> {
    if !arguments.draft.is_given() {
        return Err(Error::Usage(
            "--ledger judges recorded flows by a draft: name one by --draft".to_owned(),
        ));
    }
    if let Some(file) = paths.files.first() {
        return Err(Error::Usage(format!(
            "{} is no matrix: judge either capture files or a ledger",
            file.display()
        )));
    }
    if arguments
        .fail_on
        .iter()
        .any(|what| *what != FailOn::NewlyUnexpected)
    {
        return Err(Error::Usage(
            "with --ledger, --fail-on takes only newly-unexpected: what else a ledger holds `flowproof report` tells"
                .to_owned(),
        ));
    }
    let Some(judged) = Judged::read(
        &paths.matrix,
        arguments.site.as_ref(),
        &arguments.tags.options(),
    )?
    else {
        return Ok(Outcome::FallsShort);
    };
    let Some(mut judge) = arguments.read_draft(paths, &judged)? else {
        return Ok(Outcome::FallsShort);
    };
    arguments
        .draft
        .read_ledger(ledger, wall_time::nanos(SystemTime::now()), &mut judge)?;
    let report = judge.report();
    print(|out| draft::write(&report, arguments.format, out))?;
    let fails = !arguments.fail_on.is_empty() && !report.counts.newly_unexpected.is_empty();
    Ok(if fails {
        Outcome::FallsShort
    } else {
        Outcome::Fine
    })
}

/// What files hold, judged.
pub(super) struct Replayed {
    /// In the order of their first packets, if they were wanted.
    pub(super) flows: Vec<Flow>,
    /// Their sum.
    pub(super) tally: Tally,
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
pub(super) fn replay(files: Vec<CaptureFile>, judged: &mut Judged, wanted: Wanted) -> Replayed {
    let mut replay = Replay::new(files, Limits::default(), names::Settings::default());
    replay.judge_by(judged.installed());
    let mut gatherer = Gatherer::new(wanted);
    while replay.step(&mut |event, moments| gatherer.on_event(event, moments)) == Progress::Live {}
    let totals = replay.totals();
    judged.follow(replay.namer());
    let (flows, tally) = gatherer.finish(replay.table(), replay.namer());
    Replayed {
        flows,
        tally,
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
                .tally
                .by_verdict()
                .contains_key(Verdict::Unexpected.name()),
            FailOn::Blocked => self.rows.iter().any(in_state(State::Blocked)),
            FailOn::Silent => self
                .rows
                .iter()
                .any(|row| row.required && in_state(State::Silent)(row)),
            FailOn::NewlyUnexpected => self
                .draft
                .as_ref()
                .is_some_and(|report| !report.counts.newly_unexpected.is_empty()),
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
