//! `flowproof suggest`: recurring unexpected traffic as requirements that somebody may want, and requirements that nothing
//! uses, with the reasons, as a list or as a patch of the matrix files.
//!
//! The JSON form is one object:
//!
//! ```text
//! {"source","site","since","until",
//!  "proposals":[{"id","system","file","requirement","from","to","services":[..],"direction","necessity","purpose",
//!     "doubts":[..],EVIDENCE,"near_misses":[{"kind","requirement","detail"}]}],
//!  "roles":[{"system","id","title","names":[..]}],
//!  "unanswered":[{"from","to","service","reason",EVIDENCE}],
//!  "scans":[{"initiator","from","targets","more","answered_targets","flows","answered","reason"}],
//!  "mistaken":[{"from","to","service","reason",EVIDENCE}],
//!  "left":[{"from","to","service","reason",EVIDENCE}],
//!  "totals":{"records","flows","unexpected_flows","rare_flows","undecided_flows","folded_flows","untold"},
//!  "unused":null|{"days","removals":[{"id","system","requirement","services":[..],"whole","necessity","last_seen",
//!     "unused_days"}],"untold":[{"watched_days","reason","services"}]},
//!  "hints":[..]}
//! EVIDENCE: "flows","answered","outcomes":{OUTCOME:COUNT},"clients":{"count","more","some":[..]},"servers":{..},
//!    "first_hour","last_hour","hours","days"
//! ```
//!
//! `roles` are of the site-local matrix; those of a pack are never added to. `left` is what recurs and can't be proposed.
//! Times are RFC 3339; `more` says that there are more than were counted.

mod patch;
mod text;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;

use super::replay::{Judged, Replayed, Wanted, hours, replay};
use super::tags::TagArguments;
use super::when::When;
use super::{Error, Outcome, ledger, print, print_error, snippet};
use crate::capture::CaptureError;
use crate::capture::file::open_all;
use crate::config::STATE_DIRECTORY;
use crate::export::times::time;
use crate::ledger::{HourKey, HourRecord};
use crate::matrix::{Matrix, MatrixReading};
use crate::suggest::{Local, Options, Suggestions, Survey, Unused, unused};

/// The id of the site-local system.
const LOCAL: &str = "local";

/// Arguments of `flowproof suggest`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 nothing to suggest; 1 there are proposals or candidates for removal, or the matrix is not \
                  valid; 2 usage or environment error. Nothing is changed: `--format patch` writes a diff for \
                  `patch -p1` in the same folder, or `git apply` at the top of a repository.",
    group = clap::ArgGroup::new("evidence").required(true)
)]
pub(super) struct Arguments {
    /// Matrix files, or folders of them (*.yaml, *.yml)
    #[arg(long, required = true, value_name = "PATH", num_args = 1..)]
    matrix: Vec<PathBuf>,
    /// The site file that says which systems are deployed and what their roles are bound to
    #[arg(long, value_name = "FILE")]
    site: PathBuf,
    #[command(flatten)]
    tags: TagArguments,
    /// Look at a ledger, named by its file or by the daemon's state directory [default: /var/lib/flowproof]
    #[arg(
        long,
        group = "evidence",
        value_name = "PATH",
        num_args = 0..=1,
        default_missing_value = STATE_DIRECTORY
    )]
    ledger: Option<PathBuf>,
    /// Look at capture files (pcap or pcapng), or - for standard input
    #[arg(long, group = "evidence", value_name = "FILE", num_args = 1..)]
    capture: Vec<PathBuf>,
    /// Only hours from then on: an age before the ledger's last word such as 7d, or a time such as 2026-01-31T08:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = When::parse, conflicts_with = "capture")]
    since: Option<When>,
    /// Answered flows that a proposal needs
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    min_flows: u64,
    /// Different hours in which it was answered; 2 of a ledger and 1 of captures, if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    min_hours: Option<u64>,
    /// Also propose what recurs and was never answered
    #[arg(long)]
    include_unanswered: bool,
    /// Days without a flow after which a requirement of a ledger is a candidate for removal
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    unused: u64,
    /// Take candidates for removal away in the patch
    #[arg(long, conflicts_with = "capture")]
    remove: bool,
    /// The site-local matrix, for what no single pack can say; made if there is none
    #[arg(long, value_name = "FILE", default_value = "local.yaml")]
    local: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value_t = Kind::Text)]
    format: Kind,
    /// Where to write it; without it, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The forms of suggestions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// For people: a list with the reasons
    Text,
    /// For programs: one object
    Json,
    /// A unified diff of the matrix files
    Patch,
}

/// Everything that is told.
#[derive(Debug, Serialize)]
struct Page {
    source: String,
    site: String,
    since: Option<String>,
    until: Option<String>,
    #[serde(flatten)]
    suggestions: Suggestions,
    unused: Option<Unused>,
    hints: Vec<String>,
    /// The file of each system.
    #[serde(skip)]
    files: Files,
}

/// Where systems are written.
#[derive(Debug, Default)]
struct Files {
    /// System and file.
    systems: Vec<(String, PathBuf)>,
    local: PathBuf,
    /// Whether the site-local matrix is there already.
    local_exists: bool,
}

impl Files {
    fn of(&self, system: &str) -> &Path {
        self.systems
            .iter()
            .find(|(id, _)| id == system)
            .map_or(self.local.as_path(), |(_, file)| file)
    }
}

/// Suggests. A matrix with errors falls short, and nothing is written.
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let files = open_all(&arguments.capture)?;
    let tags = arguments.tags.options();
    let Some(mut judged) = Judged::read(&arguments.matrix, Some(&arguments.site), &tags)? else {
        return Ok(Outcome::FallsShort);
    };
    let (local, places) = local(arguments, &judged)?;
    let mut options = Options {
        min_flows: arguments.min_flows,
        min_hours: arguments.min_hours.unwrap_or(1),
        include_unanswered: arguments.include_unanswered,
        local,
    };
    let mut page = Page {
        source: String::new(),
        site: judged.site().to_owned(),
        since: None,
        until: None,
        suggestions: Suggestions::default(),
        unused: None,
        hints: Vec::new(),
        files: places,
    };
    let mut complaints: Vec<CaptureError> = Vec::new();
    if let Some(path) = &arguments.ledger {
        options.min_hours = arguments.min_hours.unwrap_or(2);
        from_ledger(arguments, path, &judged, options, &mut page)?;
    } else {
        let Replayed {
            flows,
            span,
            complaints: incomplete,
            ..
        } = replay(files, &mut judged, Wanted::Flows);
        page.source = captures(&arguments.capture);
        page.since = span.map(|span| time(span.first));
        page.until = span.map(|span| time(span.last));
        let records = hours(&flows);
        page.suggestions = of_records(&records, &judged, options);
        complaints = incomplete;
    }
    hint(arguments, &mut page);
    let mut bytes = Vec::new();
    match arguments.format {
        Kind::Text => text::write(&page, &mut bytes),
        Kind::Json => json(&page, &mut bytes),
        Kind::Patch => patch::write(&page, arguments.remove, &mut bytes)?,
    }
    .map_err(Error::Output)?;
    match &arguments.output {
        Some(path) => fs::write(path, &bytes).map_err(|source| Error::Write {
            path: path.clone(),
            source,
        })?,
        None => print(|out| out.write_all(&bytes))?,
    }
    if !complaints.is_empty() {
        return Err(Error::Partly(complaints));
    }
    let removals = page
        .unused
        .as_ref()
        .is_some_and(|unused| !unused.removals.is_empty());
    Ok(if page.suggestions.is_empty() && !removals {
        Outcome::Fine
    } else {
        Outcome::FallsShort
    })
}

fn of_records(records: &[HourRecord], judged: &Judged, options: Options) -> Suggestions {
    let mut survey = Survey::new(judged.explainer().clone(), options);
    for record in records {
        survey.add(record);
    }
    let mut gathering = survey.finish();
    for record in records {
        gathering.add(record);
    }
    gathering.finish()
}

fn from_ledger(
    arguments: &Arguments,
    path: &Path,
    judged: &Judged,
    options: Options,
    page: &mut Page,
) -> Result<(), Error> {
    let ((), path) = ledger::read(path, |view| {
        let watch = view.watch()?;
        let until = watch.map(|watch| watch.until);
        let since = arguments
            .since
            .zip(until)
            .map(|(since, until)| since.nanos(until));
        page.since = since.map(time);
        page.until = until.map(time);
        let hours = since.map_or(0, HourKey::hour_of)..u64::MAX;
        let mut survey = Survey::new(judged.explainer().clone(), options);
        view.each_hour(hours.clone(), |record| survey.add(&record))?;
        let mut gathering = survey.finish();
        view.each_hour(hours, |record| gathering.add(&record))?;
        page.suggestions = gathering.finish();
        let compiled = &judged.installed().compiled;
        let gaps = view.gaps(0)?;
        let found = unused(compiled, &view.services()?, watch, &gaps, arguments.unused);
        page.unused = Some(found);
        Ok(())
    })?;
    page.source = format!("ledger {}", path.display());
    Ok(())
}

/// Which system is the site's own, and where all of them are written.
fn local(arguments: &Arguments, judged: &Judged) -> Result<(Local, Files), Error> {
    let MatrixReading {
        matrix,
        files,
        findings,
        ..
    } = Matrix::read(&arguments.matrix)?;
    if findings.has_errors() {
        // Somebody wrote them just now.
        print_error(|out| snippet::write(&findings, out))?;
        return Err(Error::Usage(
            "the matrix changed while it was read: try again".to_owned(),
        ));
    }
    let systems: Vec<(String, PathBuf)> = matrix
        .systems
        .iter()
        .zip(files)
        .map(|(system, file)| (system.id.to_string(), PathBuf::from(file)))
        .collect();
    let path = &arguments.local;
    let exists = path.exists();
    let same = |file: &Path| exists && file.canonicalize().ok() == path.canonicalize().ok();
    let index = systems.iter().position(|(_, file)| same(file));
    let local = match index {
        None if exists => {
            return Err(Error::Usage(format!(
                "{0} exists and is not among the matrix files, so that what it covers would be proposed again: add it to \
                 --matrix, or name another file by --local",
                path.display()
            )));
        }
        None => {
            let taken = |id: &str| systems.iter().any(|(system, _)| system == id);
            let id = std::iter::once(LOCAL.to_owned())
                .chain((2..).map(|number| format!("{LOCAL}-{number}")))
                .find(|id| !taken(id));
            Local {
                system: id.unwrap_or_default(),
                index: None,
            }
        }
        Some(position) => {
            let (id, _) = &systems[position];
            let index = judged
                .matrix()
                .find_system(id)
                .filter(|index| judged.installed().compiled.deployed().contains(index))
                .ok_or_else(|| {
                    Error::Usage(format!(
                        "the site does not deploy `{id}` of {}, so that what it covers would be proposed again: add it to \
                         `systems` of {}",
                        path.display(),
                        arguments.site.display()
                    ))
                })?;
            Local {
                system: id.clone(),
                index: Some(index),
            }
        }
    };
    let files = Files {
        systems,
        local: path.clone(),
        local_exists: index.is_some(),
    };
    Ok((local, files))
}

/// What has to be done beside the patch.
fn hint(arguments: &Arguments, page: &mut Page) {
    let is_new = |system: &str| page.files.systems.iter().all(|(id, _)| id != system);
    let new = page
        .suggestions
        .proposals
        .iter()
        .find(|proposal| is_new(&proposal.system));
    if let Some(proposal) = new {
        page.hints.push(format!(
            "{0} is a new matrix: give it by --matrix, and add `{1}` to `systems` of {2}",
            page.files.local.display(),
            proposal.system,
            arguments.site.display(),
        ));
    }
    if !page.suggestions.roles.is_empty() {
        page.hints.push(
            "addresses that get a role become the matrix' business: their other traffic is judged from then on".to_owned(),
        );
    }
}

fn captures(files: &[PathBuf]) -> String {
    let names: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    format!("capture {}", names.join(", "))
}

fn json(page: &Page, out: &mut dyn Write) -> io::Result<()> {
    let mut value = serde_json::to_value(page)?;
    let proposals = value
        .get_mut("proposals")
        .and_then(serde_json::Value::as_array_mut);
    for proposal in proposals.into_iter().flatten() {
        let system = proposal
            .get("system")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        let file = page.files.of(system).display().to_string();
        proposal["file"] = file.into();
    }
    serde_json::to_writer_pretty(&mut *out, &value)?;
    writeln!(out)
}
