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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ledger::{Batch, Ledger, Limits, ServiceId, ServiceSeen, WindowUpdate};
    use crate::verdict::window::{Evidence, KeptService};

    const NOW: u64 = 1_700_000_000_000_000_000;

    #[test]
    fn a_row_is_verified_if_what_was_used_of_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.sqlite");
        let opened = Ledger::open(&path, Limits::default()).unwrap();
        let mut batch = Batch {
            until: NOW,
            ..Batch::default()
        };
        let mut add = |requirement: &str, service: &str, state: Option<State>, attempt| {
            let id = ServiceId {
                system: "s".to_owned(),
                requirement: requirement.to_owned(),
                service: service.to_owned(),
            };
            let window = WindowUpdate {
                head: KeptService {
                    standing: state.map(|state| (state, NOW)),
                    evidence: Evidence {
                        last_attempt: attempt,
                        ..Evidence::default()
                    },
                    ..KeptService::default()
                },
                buckets: BTreeMap::new(),
                rewritten: false,
            };
            let seen = ServiceSeen {
                window: Some(window),
                ..ServiceSeen::default()
            };
            batch.services.insert(id, seen);
        };
        add("used", "tcp/80", Some(State::Silent), None);
        add("used", "tcp/443", Some(State::Verified), Some(NOW));
        add("lossy", "tcp/80", Some(State::Unknown), None);
        add("lossy", "tcp/443", Some(State::Verified), Some(NOW));
        add("half", "tcp/80", Some(State::Blocked), Some(NOW));
        add("half", "tcp/443", Some(State::Verified), Some(NOW));
        add("open", "tcp/80", Some(State::Unknown), Some(NOW));
        add("open", "tcp/443", Some(State::Verified), Some(NOW));
        add("idle", "tcp/443", Some(State::Silent), None);
        add("new", "tcp/443", None, None);
        opened.ledger.record(batch);
        assert!(opened.ledger.flush(Duration::from_secs(30)));
        let verified = of_ledger(&path).unwrap();
        let expect = ["s/lossy", "s/used"].map(str::to_owned);
        assert_eq!(verified, expect.into());
    }

    #[test]
    fn who_is_no_daemon_is_named() {
        let error = of_daemon("https://localhost").unwrap_err().to_string();
        assert!(error.contains("only http"), "{error}");
    }
}
