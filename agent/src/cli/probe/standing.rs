//! Which rows are verified already, by a running daemon or by a ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::cli::Error;
use crate::cli::explain::AskError;
use crate::cli::explain::daemon::Remote;
use crate::export::requirement_line::RequirementLine;
use crate::ledger::Reader;
use crate::verdict::requirement::{Finding, State, of_services};

/// By what the daemon at `url` says now.
pub(super) fn of_daemon(url: &str) -> Result<BTreeSet<String>, AskError> {
    let daemon = Remote::parse(url)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| daemon.nobody(&error))?;
    let lines: Vec<RequirementLine> = runtime.block_on(daemon.get_json("/api/v1/requirements"))?;
    Ok(lines
        .into_iter()
        .filter(|line| line.state == State::Verified.name())
        .map(|line| line.id)
        .collect())
}

/// By the states that a daemon wrote down last.
pub(super) fn of_ledger(path: &Path) -> Result<BTreeSet<String>, Error> {
    let services = Reader::open_read_only(path)?.read(|view| view.services())?;
    let mut rows: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
    for service in services {
        let Some((state, _since)) = service.window.standing else {
            continue;
        };
        let id = format!("{}/{}", service.id.system, service.id.requirement);
        rows.entry(id).or_default().push(Finding {
            state,
            cause: None,
            place: None,
            confidence: None,
            // A service that was tried without a decision keeps its row from being verified; one that nobody used does not.
            attempted: match state {
                State::Verified | State::Degraded | State::Blocked => true,
                State::Unknown => service.window.evidence.last_attempt.is_some(),
                State::Silent | State::Unobservable => false,
            },
        });
    }
    Ok(rows
        .into_iter()
        .filter(|(_, findings)| of_services(findings.iter().copied()).state == State::Verified)
        .map(|(id, _)| id)
        .collect())
}
