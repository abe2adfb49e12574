//! `flowproof explain` of a requirement: which one is meant, and what is known of it from a capture, a daemon or a ledger.

use std::collections::{BTreeMap, BTreeSet};

use super::Arguments;
use super::daemon::{AskError, Remote};
use super::question::FlowError;
use super::row_page::RowPage;
use super::seen::{Look, Source};
use crate::capture::CaptureError;
use crate::capture::file::{CaptureFile, open_all};
use crate::cli::daemon_access::DaemonAccess;
use crate::cli::ledger::recall;
use crate::cli::replay::Judged;
use crate::cli::report::{capture, daemon};
use crate::cli::{Error, Format, Outcome, print};
use crate::engine::flows::Encoded;
use crate::export::flow_line::FlowLine;
use crate::export::requirement_line::RequirementLine;
use crate::export::times::time;
use crate::ledger::ServiceId;
use crate::matrix::{Matrix, Necessity, Requirement, Service, System, SystemIndex};
use crate::report::ticket::Failures;
use crate::verdict::requirement::{State, Vantage};
use crate::verdict::window::is_problem;
use crate::yaml::nearest;

/// Flows of the requirement that a daemon is asked for.
const FLOWS: usize = 200;

/// A requirement, or one of its services, by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowId {
    /// `system/requirement`
    pub(super) requirement: String,
    /// `tcp/443`
    pub(super) service: Option<String>,
}

impl RowId {
    /// `shop/query` or `shop/query#tcp/5432`; nothing if the text is neither.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (requirement, service) = match text.split_once('#') {
            Some((requirement, service)) => (requirement, Some(service)),
            None => (text, None),
        };
        let (system, row) = requirement.split_once('/')?;
        let is_id = |part: &str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        (is_id(system) && is_id(row) && service != Some("")).then(|| Self {
            requirement: requirement.to_owned(),
            service: service.map(ToOwned::to_owned),
        })
    }
}

/// A requirement of the matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) index: SystemIndex,
    pub(super) system: &'a System,
    pub(super) requirement: &'a Requirement,
    /// The one service that is asked about, if it is one.
    pub(super) only: Option<Service>,
}

impl<'a> Row<'a> {
    fn find(matrix: &'a Matrix, id: &RowId) -> Result<Self, Error> {
        let mut rows = matrix.indexed_systems().flat_map(|(index, system)| {
            system
                .indexed_requirements()
                .map(move |(row, requirement)| (index, system, row, requirement))
        });
        let found =
            rows.find(|(index, _, row, _)| matrix.requirement_id(*index, *row) == id.requirement);
        let Some((index, system, _, requirement)) = found else {
            return Err(Error::Usage(unknown(matrix, &id.requirement)));
        };
        let only = match &id.service {
            None => None,
            Some(text) => Some(service(requirement, text).ok_or_else(|| {
                let known: Vec<String> = requirement
                    .services
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                Error::Usage(format!(
                    "{} has no service `{text}`; it has: {}",
                    id.requirement,
                    if known.is_empty() {
                        "none".to_owned()
                    } else {
                        known.join(", ")
                    }
                ))
            })?),
        };
        Ok(Self {
            index,
            system,
            requirement,
            only,
        })
    }

    /// `system/requirement`
    pub(super) fn id(&self) -> String {
        format!("{}/{}", self.system.id, self.requirement.id)
    }

    /// The services that are asked about.
    pub(super) fn services(&self) -> impl Iterator<Item = Service> + '_ {
        self.requirement
            .services
            .iter()
            .copied()
            .filter(|service| self.only.is_none_or(|only| only == *service))
    }
}

fn service(requirement: &Requirement, text: &str) -> Option<Service> {
    let wanted: Service = text.parse().ok()?;
    requirement
        .services
        .iter()
        .copied()
        .find(|service| *service == wanted)
}

fn unknown(matrix: &Matrix, id: &str) -> String {
    let ids: Vec<String> = matrix
        .indexed_systems()
        .flat_map(|(index, system)| {
            system
                .indexed_requirements()
                .map(move |(row, _)| matrix.requirement_id(index, row))
        })
        .collect();
    let near = nearest(id, ids.iter().map(String::as_str));
    let meant = near.map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
    format!(
        "the matrix has no requirement `{id}`{meant} Write `system/requirement`; `flowproof check --matrix` lists them"
    )
}

/// What a ledger knows of a service beyond its line.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// What the daemon could see of it.
    pub(super) vantage: Option<Vantage>,
    pub(super) place: Option<String>,
    pub(super) confidence: Option<&'static str>,
    /// Since when the window has it, RFC 3339.
    pub(super) from: String,
    pub(super) ratio: Option<f64>,
    pub(super) last_answer: Option<String>,
}

/// What is known of a requirement.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Who knows it; nothing if nobody was asked.
    pub(super) source: Option<Source>,
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
    /// Length of the window, nanoseconds, if states are over one.
    pub(super) window: Option<u64>,
    /// Its states; nothing if whoever was asked does not know it.
    pub(super) line: Option<RequirementLine>,
    /// By service.
    pub(super) kept: BTreeMap<String, Kept>,
    pub(super) failures: Failures,
    pub(super) notes: Vec<String>,
}

/// Explains a requirement. One that somebody should look after is [`Outcome::FallsShort`].
pub(super) fn run(arguments: &Arguments, id: &RowId) -> Result<Outcome, Error> {
    let files = open_all(&arguments.look.capture)?;
    let tags = arguments.tags.options();
    let Some(mut judged) = Judged::read(&arguments.matrix, Some(&arguments.site), &tags)? else {
        return Ok(Outcome::FallsShort);
    };
    // A wrong id is told before anybody is asked.
    Row::find(judged.matrix(), id)?;
    let (mut facts, complaints) = if files.is_empty() {
        let row = Row::find(judged.matrix(), id)?;
        (ask(&arguments.look, &judged, &row)?, Vec::new())
    } else {
        in_files(files, &mut judged, id)
    };
    let compiled = std::sync::Arc::clone(&judged.installed().compiled);
    let row = Row::find(&compiled.matrix, id)?;
    if !judged.deployed().contains(&row.index) {
        facts.notes.push(format!(
            "the site does not deploy the system `{}`",
            row.system.id
        ));
    }
    let page = RowPage {
        compiled: &compiled,
        site: &arguments.site,
        judged: &judged,
        row,
        facts: &facts,
    };
    print(|out| match arguments.format {
        Format::Text => page.text(out),
        Format::Json => page.json(out),
    })?;
    if !complaints.is_empty() {
        return Err(Error::Partly(complaints));
    }
    let necessity: &Necessity = &row.requirement.necessity;
    let problem = facts.line.as_ref().is_some_and(|line| {
        let states: Vec<&str> = match row.only {
            None => vec![&line.state],
            Some(only) => line
                .services
                .iter()
                .filter(|service| service.service == only.to_string())
                .map(|service| service.state.as_str())
                .collect(),
        };
        states
            .into_iter()
            .filter_map(State::of_name)
            .any(|state| is_problem(state, necessity))
    });
    Ok(if problem {
        Outcome::FallsShort
    } else {
        Outcome::Fine
    })
}

/// A requirement in place of a flow, if the words are one.
pub(super) fn in_place_of_flow(words: &[String], error: FlowError) -> Result<RowId, FlowError> {
    match words {
        [word] => RowId::parse(word).ok_or(error),
        _ => Err(error),
    }
}

fn in_files(
    files: Vec<CaptureFile>,
    judged: &mut Judged,
    id: &RowId,
) -> (Facts, Vec<CaptureError>) {
    let (evidence, complaints) = capture::evidence(files, judged);
    let mut notes = evidence.notes;
    for (stage, count) in evidence.lost.iter().filter(|(_, count)| *count > 0) {
        notes.push(format!("lost: {count} {stage}"));
    }
    let facts = Facts {
        source: Some(Source::Capture),
        since: evidence.since,
        until: evidence.until,
        line: evidence
            .requirements
            .into_iter()
            .find(|line| line.id == id.requirement),
        failures: failures(&evidence.flows, id),
        notes,
        ..Facts::default()
    };
    (facts, complaints)
}

/// The failed flows of a requirement, or of its one service.
fn failures(flows: &[FlowLine], id: &RowId) -> Failures {
    let is_of = |text: &String| {
        let (requirement, service) = text.split_once('#').unwrap_or((text, ""));
        requirement == id.requirement && id.service.as_ref().is_none_or(|wanted| wanted == service)
    };
    let flows: Vec<&FlowLine> = flows
        .iter()
        .filter(|flow| flow.requirements.iter().any(is_of))
        .collect();
    Failures::of(&flows)
}

fn ask(look: &Look, judged: &Judged, row: &Row<'_>) -> Result<Facts, Error> {
    if let Some(url) = &look.daemon {
        return Ok(ask_daemon(url, &look.access, row)?);
    }
    let Some(named) = &look.ledger else {
        return Ok(Facts::default());
    };
    let (recalled, (), path) = recall(named, look.at, |_| Ok(()))?;
    let line = recalled.requirement(row.system, row.requirement);
    let mut kept = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for service in row.services() {
        let id = ServiceId {
            system: row.system.id.to_string(),
            requirement: row.requirement.id.to_string(),
            service: service.to_string(),
        };
        let known = recalled.service(&id);
        ids.insert(format!("{}#{service}", line.id));
        let Some(record) = known.record else {
            continue;
        };
        let finding = known.found.finding;
        kept.insert(
            id.service,
            Kept {
                vantage: record.window.vantage,
                place: finding.place.map(|place| place.to_string()),
                confidence: finding.confidence.map(|confidence| confidence.name()),
                from: time(known.found.from),
                ratio: known
                    .found
                    .answered_ratio()
                    .filter(|_| finding.state == State::Degraded),
                last_answer: record.last_answer.map(time),
            },
        );
    }
    let mut notes = recalled.notes();
    if kept.is_empty() && !row.requirement.services.is_empty() {
        notes.push(format!(
            "the ledger has never heard of {}: another matrix or site was in force when it was written",
            line.id
        ));
    }
    let failures = recalled.failures(judged.explainer(), &ids).remove(&line.id);
    let at = recalled.at();
    Ok(Facts {
        source: Some(Source::Ledger(path.display().to_string())),
        since: at.map(|at| time(at.saturating_sub(recalled.window()))),
        until: at.map(time),
        window: at.map(|_| recalled.window()),
        line: Some(line),
        kept,
        failures: failures.unwrap_or_default(),
        notes,
    })
}

fn ask_daemon(url: &str, access: &DaemonAccess, row: &Row<'_>) -> Result<Facts, AskError> {
    let remote = Remote::parse(url)?.with(access)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| remote.nobody(&error))?;
    let id = RowId {
        requirement: row.id(),
        service: row.only.map(|service| service.to_string()),
    };
    let mut facts = Facts {
        source: Some(Source::Daemon(remote.url())),
        ..Facts::default()
    };
    runtime.block_on(async {
        let wanted = Encoded(&id.requirement);
        let lines: Result<Vec<RequirementLine>, AskError> = remote
            .get_json(&format!("/api/v1/requirements?requirement={wanted}"))
            .await;
        match lines {
            Ok(lines) => facts.line = lines.into_iter().next(),
            Err(AskError::Refused { status: 400, .. }) => {
                facts.notes.push(format!(
                    "the daemon's matrix has no requirement {}",
                    id.requirement
                ));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let path = format!("/api/v1/flows?requirement={wanted}&limit={FLOWS}");
        let (flows, (all, listed, _)) = daemon::listing(&remote, &path, &mut facts.until).await?;
        facts.failures = failures(&flows, &id);
        if all > listed {
            facts.notes.push(format!(
                "only the newest {listed} of its {all} flows in the daemon's tables were looked at"
            ));
        }
        Ok(())
    })?;
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ids_and_takes_no_flow_for_one() {
        let id = |requirement: &str, service: Option<&str>| {
            Some(RowId {
                requirement: requirement.to_owned(),
                service: service.map(ToOwned::to_owned),
            })
        };
        assert_eq!(RowId::parse("shop/query"), id("shop/query", None));
        assert_eq!(
            RowId::parse("shop/query#tcp/5432"),
            id("shop/query", Some("tcp/5432"))
        );
        for text in [
            "",
            "shop",
            "/",
            "shop/",
            "shop/query#",
            "10.0.0.1:443/tcp",
            "a b/c",
            "Shop/query",
            "10.0.0.1->10.0.0.2:1/tcp",
        ] {
            assert_eq!(RowId::parse(text), None, "{text}");
        }
    }
}
