//! The command line: one file a verb. Nothing below this module prints.
//!
//! Exit codes are the same for every verb: 0 fine, 1 the traffic or the matrix falls short, 2 usage or environment
//! error. clap ends with 2 on its own for usage errors.
#![expect(
    clippy::print_stderr,
    reason = "errors of the environment go to standard error, and only from here"
)]

mod check;
mod daemon_access;
mod detach;
mod diff;
mod explain;
mod import;
mod ledger;
mod probe;
mod replay;
mod report;
mod run;
mod schema;
mod snippet;
mod suggest;
mod tags;
mod when;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::capture::CaptureError;
use crate::draft::DraftError;
use crate::engine::daemon::{ConfigError, DaemonError};
use crate::import::ImportError;
use crate::ledger::ReadError;
use crate::matrix::compile::CompileError;
use crate::probe::io::ProbeError;
use crate::report::matrix_sheet::SheetError;
use crate::yaml::LoadError;

/// Proves from live traffic that a deployment follows its connectivity matrix.
#[derive(Debug, Parser)]
#[command(name = "flowproof", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// The whole command line, for who describes it: man pages, completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Watch live traffic, judge it by the matrix, and serve metrics
    Run(Box<run::Arguments>),
    /// Check matrix files and a site file, and show what they say
    Check(check::Arguments),
    /// Tell what the matrix says of one flow and why, or all of one requirement, and what was seen of it
    Explain(explain::Arguments),
    /// Read vendors' tables into a matrix draft
    Import(import::Arguments),
    /// Take off the kernel programs that a daemon left behind
    Detach(detach::Arguments),
    /// Tell what differs between two matrices, and whether it changes judgement
    Diff(diff::Arguments),
    /// Try the requirements that traffic has not verified yet, from this host
    Probe(Box<probe::Arguments>),
    /// Judge the traffic of capture files
    Replay(replay::Arguments),
    /// Report what traffic showed of a matrix, or write the matrix as a sheet or a page
    Report(report::Arguments),
    /// Print the JSON Schema of a kind of file
    Schema(schema::Arguments),
    /// Propose requirements for recurring unexpected traffic, and name those that nothing uses
    Suggest(suggest::Arguments),
}

/// How a verb prints its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs: a stable contract
    Json,
}

/// How a verb ended that could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is wrong.
    Fine,
    /// The traffic or the matrix falls short.
    FallsShort,
}

/// Why a verb could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The capture back end refused.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// An argument makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The matrix and the site are too large for the tables.
    #[error("the matrix can't be used")]
    Compile(#[from] CompileError),
    /// Some input could not be read to its end; the result is that of the rest.
    #[error("{}", listed(.0))]
    Partly(Vec<CaptureError>),
    /// Nothing can be judged by the draft of a matrix.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// The daemon has no configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The daemon could not start.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A document could not be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A sheet could not be made.
    #[error(transparent)]
    Sheet(#[from] SheetError),
    /// A file could not be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] ReadError),
    /// A running daemon could not be asked.
    #[error(transparent)]
    Ask(#[from] explain::AskError),
    /// A Prometheus could not be asked.
    #[error(transparent)]
    Prometheus(#[from] report::PrometheusError),
    /// Requirements could not be probed.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A signal ended it; what was known was printed.
    #[error("interrupted before all was tried: what is not printed is not known")]
    Interrupted,
    /// The result could not be written.
    #[error("cannot write the result")]
    Output(#[source] io::Error),
}

impl Cli {
    /// Does what the command line says, prints why if it can't be done, and gives the exit code.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match self.verb {
            Verb::Run(arguments) => run::run(&arguments),
            Verb::Check(arguments) => check::run(&arguments),
            Verb::Explain(arguments) => explain::run(&arguments),
            Verb::Import(arguments) => import::run(&arguments),
            Verb::Detach(arguments) => detach::run(&arguments),
            Verb::Diff(arguments) => diff::run(&arguments),
            Verb::Probe(arguments) => probe::run(&arguments),
            Verb::Replay(arguments) => replay::run(&arguments),
            Verb::Report(arguments) => report::run(&arguments),
            Verb::Schema(arguments) => schema::run(&arguments),
            Verb::Suggest(arguments) => suggest::run(&arguments),
        };
        match result {
            Ok(Outcome::Fine) => ExitCode::SUCCESS,
            Ok(Outcome::FallsShort) => ExitCode::from(1),
            Err(error) => {
                eprintln!("flowproof: {}", chain(&error));
                ExitCode::from(2)
            }
        }
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// One line each; the first begins as every error does.
fn listed(errors: &[CaptureError]) -> String {
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    texts.join("\nflowproof: ")
}

/// Writes JSON for programs: one line.
fn line(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Writes to standard output. A reader that went away (`| head`) is no error.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    written(&mut BufWriter::new(io::stdout().lock()), write)
}

/// Writes to standard error, as [`print`] does to standard output.
fn print_error(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    written(&mut BufWriter::new(io::stderr().lock()), write)
}

fn written(
    into: &mut dyn Write,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    match write(into).and_then(|()| into.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_takes_a_ledger_alike() {
        let command = Cli::command();
        let mut verbs = Vec::new();
        for verb in command.get_subcommands() {
            let ledger = verb.get_arguments().find(|it| it.get_id() == "ledger");
            let Some(ledger) = ledger.filter(|it| it.get_value_names().is_some()) else {
                continue;
            };
            let name = verb.get_name();
            assert_eq!(ledger.get_num_args(), Some((0..=1).into()), "{name}");
            let help = ledger.get_help().unwrap().to_string();
            assert!(help.contains(crate::config::STATE_DIRECTORY), "{help}");
            verbs.push(name);
        }
        verbs.sort_unstable();
        assert_eq!(verbs, ["explain", "probe", "replay", "report", "suggest"]);
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let mut sink = io::sink();
        let gone = |_: &mut dyn Write| Err(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(written(&mut sink, gone).is_ok());
        let full = |_: &mut dyn Write| Err(io::Error::from(io::ErrorKind::StorageFull));
        assert!(matches!(written(&mut sink, full), Err(Error::Output(_))));
    }
}
