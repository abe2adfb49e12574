//! `flowproof report`: what traffic showed of a matrix, in a capture, by a running daemon, by what a ledger keeps or by a fleet's
//! Prometheus, for a change window, an audit or CI; or the matrix itself, as a sheet to work on or a page to read.

pub(super) mod capture;
pub(super) mod daemon;
mod prometheus;

use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::ValueEnum;

use super::daemon_access::DaemonAccess;
use super::ledger::{At, recall};
use super::replay::Judged;
use super::tags::TagArguments;
use super::{Error, Outcome, print, print_error, snippet};
use crate::capture::CaptureError;
use crate::capture::file::open_all;
use crate::config::STATE_DIRECTORY;
use crate::matrix::compiled::BoundRole;
use crate::matrix::{Matrix, System};
use crate::report::model::{self, Evidence, Report};
use crate::report::{matrix_page, matrix_sheet, render};

pub(super) use prometheus::PrometheusError;

/// Arguments of `flowproof report`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 fine; 1 something that --fail-on names was found, or the matrix is not valid; 2 usage or \
                  environment error. A capture that is cut short is reported as far as it goes, and then ends with 2.\n\n\
                  Without --capture, --daemon, --ledger and --prometheus the matrix itself is written: csv, xlsx or md."
)]
pub(super) struct Arguments {
    /// Matrix files, or folders of them (*.yaml, *.yml)
    #[arg(long, required = true, value_name = "PATH", num_args = 1..)]
    matrix: Vec<PathBuf>,
    /// What binds the matrix' roles to addresses; without it every flow of a capture is unscoped
    #[arg(long, value_name = "FILE")]
    site: Option<PathBuf>,
    #[command(flatten)]
    tags: TagArguments,
    /// Report what these capture files (pcap or pcapng) show, or - for standard input
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "daemon")]
    capture: Vec<PathBuf>,
    /// Report what a running daemon has seen
    #[arg(
        long,
        value_name = "URL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = super::explain::daemon::DEFAULT_URL
    )]
    daemon: Option<String>,
    #[command(flatten)]
    access: DaemonAccess,
    /// Report what a ledger keeps, named by its file or by the daemon's state directory [default: /var/lib/flowproof];
    /// the daemon may run or not
    #[arg(
        long,
        value_name = "PATH",
        num_args = 0..=1,
        default_missing_value = STATE_DIRECTORY,
        conflicts_with_all = ["capture", "daemon"]
    )]
    ledger: Option<PathBuf>,
    /// The moment that the states of a ledger are of
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        requires = "ledger",
        default_value_t
    )]
    at: At,
    #[command(flatten)]
    fleet: prometheus::FleetArguments,
    /// What to write
    #[arg(long, value_enum, default_value_t = Kind::Text)]
    format: Kind,
    /// Where to write it; without it, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// End with exit code 1 if there is any of these; in junit and tap, silent, unknown and unexpected fail only if they
    /// are named here
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    fail_on: Vec<FailOn>,
}

/// The forms of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// For people at a terminal
    Text,
    /// For programs: one object
    Json,
    /// A line a service of a requirement; of a matrix, a sheet that `import` reads back
    Csv,
    /// The same as a workbook
    Xlsx,
    /// A self-contained page that prints well
    Html,
    /// For CI: JUnit XML, a test case a requirement
    Junit,
    /// For CI: Test Anything Protocol 14
    Tap,
    /// Of a matrix: roles, requirements, doubts and a worked site file
    Md,
}

/// What is to be taken for a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// A flow that the matrix does not expect
    Unexpected,
    /// A requirement that was attempted and never answered
    Blocked,
    /// A requirement that was answered and failed since
    Degraded,
    /// A required requirement that could be seen and was never attempted
    Silent,
    /// A required requirement of which nobody can tell
    Unknown,
}

impl From<FailOn> for model::FailOn {
    fn from(what: FailOn) -> Self {
        match what {
            FailOn::Unexpected => Self::Unexpected,
            FailOn::Blocked => Self::Blocked,
            FailOn::Degraded => Self::Degraded,
            FailOn::Silent => Self::Silent,
            FailOn::Unknown => Self::Unknown,
        }
    }
}

/// Writes the report. A matrix with errors falls short, and nothing is written.
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    if arguments.capture.is_empty()
        && arguments.daemon.is_none()
        && arguments.ledger.is_none()
        && arguments.fleet.prometheus.is_none()
    {
        return of_matrix(arguments);
    }
    if arguments.format == Kind::Md {
        return Err(Error::Usage(
            "`--format md` is of a matrix alone: write html, text, json, csv, xlsx, junit or tap, or leave out --capture, \
             --daemon, --ledger and --prometheus"
                .to_owned(),
        ));
    }
    let files = open_all(&arguments.capture)?;
    let tags = arguments.tags.options();
    let Some(mut judged) = Judged::read(&arguments.matrix, arguments.site.as_ref(), &tags)? else {
        return Ok(Outcome::FallsShort);
    };
    let (evidence, complaints) = if let Some(url) = &arguments.daemon {
        (daemon::evidence(url, &arguments.access)?, Vec::new())
    } else if let Some(url) = &arguments.fleet.prometheus {
        let systems = judged.deployed();
        let matrix = judged.matrix();
        let deployed = |system: &System| {
            matrix
                .find_system(system.id.as_str())
                .is_some_and(|index| systems.contains(&index))
        };
        let site = arguments.site.is_some().then(|| judged.site());
        let evidence = prometheus::evidence(&arguments.fleet, url, site, matrix, &deployed)?;
        (evidence, Vec::new())
    } else if let Some(named) = &arguments.ledger {
        let (recalled, (), path) = recall(named, arguments.at, |_| Ok(()))?;
        let evidence = Evidence {
            source: format!("ledger {}", path.display()),
            ..recalled.evidence(judged.explainer(), judged.deployed())
        };
        (evidence, Vec::new())
    } else {
        let (evidence, complaints) = capture::evidence(files, &mut judged);
        let evidence = Evidence {
            source: captures(&arguments.capture),
            ..evidence
        };
        (evidence, complaints)
    };
    let evidence = Evidence {
        site: arguments.site.is_some().then(|| judged.site().to_owned()),
        bindings: bindings(&judged),
        ..evidence
    };
    let report = Report::new(judged.matrix(), evidence);
    let fail_on: Vec<model::FailOn> = arguments
        .fail_on
        .iter()
        .map(|what| (*what).into())
        .collect();
    let bytes = match arguments.format {
        Kind::Text | Kind::Md => render::text::render(&report).into_bytes(),
        Kind::Json => json(&report)?,
        Kind::Csv => render::csv::render(&report)?,
        Kind::Xlsx => render::xlsx::render(&report)?,
        Kind::Html => render::html::render(&report).into_bytes(),
        Kind::Junit => render::junit::render(&report, &fail_on).into_bytes(),
        Kind::Tap => render::tap::render(&report, &fail_on).into_bytes(),
    };
    write(arguments, &bytes)?;
    if !complaints.is_empty() {
        return Err(Error::Partly(complaints));
    }
    Ok(if fail_on.iter().any(|what| report.has(*what)) {
        Outcome::FallsShort
    } else {
        Outcome::Fine
    })
}

/// What a source knows, and why it could not be read to its end.
type Found = (Evidence, Vec<CaptureError>);

fn captures(files: &[PathBuf]) -> String {
    let names: Vec<String> = files
        .iter()
        .map(|file| {
            file.file_name().map_or_else(
                || file.display().to_string(),
                |name| name.to_string_lossy().into_owned(),
            )
        })
        .collect();
    format!("capture {}", names.join(", "))
}

/// What roles are bound to, by `system/role`.
fn bindings(judged: &Judged) -> BTreeMap<String, Vec<String>> {
    let compiled = &judged.installed().compiled;
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (BoundRole { system, role }, bindings) in &compiled.bindings {
        let system = compiled.matrix.system(*system);
        texts
            .entry(format!("{}/{}", system.id, system.role_id(*role)))
            .or_default()
            .extend(bindings.iter().map(ToString::to_string));
    }
    texts
}

fn json(report: &Report) -> Result<Vec<u8>, Error> {
    let mut text =
        serde_json::to_vec_pretty(report).map_err(|error| Error::Output(error.into()))?;
    text.push(b'\n');
    Ok(text)
}

/// The matrix itself.
fn of_matrix(arguments: &Arguments) -> Result<Outcome, Error> {
    if !arguments.fail_on.is_empty() {
        return Err(Error::Usage(
            "`--fail-on` needs traffic: name captures by --capture, a daemon by --daemon, a ledger by --ledger, or a fleet by --prometheus"
                .to_owned(),
        ));
    }
    let needs_traffic = || {
        Error::Usage(
            "this form needs traffic: name captures by --capture, a daemon by --daemon, a ledger by --ledger, or a fleet by --prometheus; of a matrix \
             alone there are `--format csv`, `xlsx` and `md`"
                .to_owned(),
        )
    };
    let reading = Matrix::read(&arguments.matrix)?;
    if reading.findings.has_errors() {
        print_error(|out| snippet::write(&reading.findings, out))?;
        return Ok(Outcome::FallsShort);
    }
    let bytes = match arguments.format {
        Kind::Csv => matrix_sheet::csv(&reading.matrix)?,
        Kind::Xlsx => matrix_sheet::xlsx(&reading.matrix)?,
        Kind::Md => matrix_page::markdown(&reading.matrix).into_bytes(),
        Kind::Text | Kind::Json | Kind::Html | Kind::Junit | Kind::Tap => {
            return Err(needs_traffic());
        }
    };
    write(arguments, &bytes)?;
    Ok(Outcome::Fine)
}

fn write(arguments: &Arguments, bytes: &[u8]) -> Result<(), Error> {
    match &arguments.output {
        Some(path) => fs::write(path, bytes).map_err(|source| Error::Write {
            path: path.clone(),
            source,
        }),
        None if arguments.format == Kind::Xlsx && std::io::stdout().is_terminal() => Err(
            Error::Usage("a workbook is no text: name a file by `--output`".to_owned()),
        ),
        None => print(|out| out.write_all(bytes)),
    }
}
