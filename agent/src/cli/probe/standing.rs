//! Which rows are verified already, by a running daemon or by a ledger.

use std::collections::BTreeSet;
use std::path::Path;

use crate::cli::Error;
use crate::cli::daemon_access::DaemonAccess;
use crate::cli::explain::AskError;
use crate::cli::explain::daemon::Remote;
use crate::cli::ledger::{At, recall};
use crate::export::requirement_line::RequirementLine;
use crate::matrix::Matrix;
use crate::verdict::requirement::State;

/// By what the daemon at `url` says now.
pub(super) fn of_daemon(url: &str, access: &DaemonAccess) -> Result<BTreeSet<String>, AskError> {
    let daemon = Remote::parse(url)?.with(access)?;
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

/// By what a ledger comes to now: what was answered in its window is verified, however long nobody has watched.
pub(super) fn of_ledger(path: &Path, matrix: &Matrix) -> Result<BTreeSet<String>, Error> {
    let (recalled, (), _) = recall(path, At::Now, |_| Ok(()))?;
    let lines = matrix.systems.iter().flat_map(|system| {
        let row = |requirement| recalled.requirement(system, requirement);
        system.requirements.iter().map(row)
    });
    Ok(lines
        .filter(|line| line.state == State::Verified.name())
        .map(|line| line.id)
        .collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::ledger::{Batch, Ledger, Limits, ServiceId, ServiceSeen, WindowUpdate};
    use crate::names::wall_time;
    use crate::verdict::requirement::Vantage;
    use crate::verdict::window::{Evidence, KeptService, KeptWatch};

    #[test]
    fn a_row_is_verified_if_it_was_answered_in_the_window() {
        let day = 86_400_000_000_000;
        let now = wall_time::nanos(SystemTime::now());
        let folder = tempfile::tempdir().unwrap();
        let opened = Ledger::open(&crate::ledger::path(folder.path()), Limits::default()).unwrap();
        let mut batch = Batch {
            until: now,
            watch: Some(KeptWatch {
                until: now,
                window: day,
                ..KeptWatch::default()
            }),
            ..Batch::default()
        };
        for (requirement, answer) in [
            ("used", Some(now - 1)),
            ("stale", Some(now - day - 1)),
            ("idle", None),
        ] {
            let id = ServiceId {
                system: "s".to_owned(),
                requirement: requirement.to_owned(),
                service: "tcp/443".to_owned(),
            };
            let head = KeptService {
                begins: Some(1),
                vantage: Some(Vantage::Clear),
                evidence: Evidence {
                    last_attempt: answer,
                    last_answer: answer,
                    last_failure: None,
                },
                ..KeptService::default()
            };
            let window = WindowUpdate {
                head,
                buckets: BTreeMap::new(),
                rewritten: false,
            };
            let seen = ServiceSeen {
                window: Some(window),
                ..ServiceSeen::default()
            };
            batch.services.insert(id, seen);
        }
        opened.ledger.record(batch);
        assert!(opened.ledger.flush(Duration::from_secs(30)));
        let rows = ["used", "stale", "idle", "unheard-of"]
            .map(|id| format!("{{id: {id}, from: any, to: any, services: [tcp/443]}}"));
        let text = format!("system: s\ntitle: S\nrequirements: [{}]\n", rows.join(", "));
        let matrix = Matrix::read_text("m.yaml", &text).matrix;
        let verified = of_ledger(folder.path(), &matrix).unwrap();
        assert_eq!(verified, ["s/used".to_owned()].into());
    }

    #[test]
    fn who_is_no_daemon_is_named() {
        let error = of_daemon("ftp://localhost", &DaemonAccess::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("only http and https"), "{error}");
    }
}
