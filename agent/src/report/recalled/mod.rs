//! What a ledger shows of a matrix: the states of its rows over the window that was watched, as the daemon told them at its
//! last look, what became of the flows behind them, and what was unexpected. For reports, and for whoever explains one row.
//!
//! A ledger is of the past. States are of the daemon's last look, or of now: then the time since that look counts as not
//! watched, so that nothing is called silent that nobody could have seen. Rows that the ledger never heard of are unknown.

mod evidence;
mod words;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use flowproof_common::classify::Verdict;
use flowproof_common::state::Outcome;

use crate::export::requirement_line::{LastFailure, RequirementLine};
use crate::ledger::{HourCounts, HourKey, ServiceId, ServiceRecord, UnexpectedRecord, View};
use crate::matrix::{Requirement, Service, System};
use crate::verdict::Asked;
use crate::verdict::requirement::{Cause, Finding, State};
use crate::verdict::window::{Absence, Counts, Gap, ServiceWindow, Watch, WindowFinding};

/// A heartbeat that is older is no heartbeat, nanoseconds: the ledger is written every 2 s, and 5 s is the most that is ever
/// in memory alone.
const STALE: u64 = 10_000_000_000;
/// Different failed flows that are looked at.
const MOST_FAILED: usize = 10_000;

/// The moment that states are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// The daemon's last look.
    LastLook,
    /// Now, with all the time since the last look not watched.
    Now,
}

/// What a ledger says, read at one moment.
#[derive(Debug)]
pub struct Recalled {
    watch: Watch,
    /// The moment that states are of, nanoseconds since the Unix epoch.
    at: u64,
    /// When the daemon looked last; nothing if it never did.
    looked: Option<u64>,
    /// For how long nobody has watched, if nobody does.
    unwatched: Option<u64>,
    /// Whether nothing was captured at the last look.
    blind: bool,
    services: BTreeMap<ServiceId, ServiceRecord>,
    unexpected: Vec<UnexpectedRecord>,
    /// Those that end in the window, oldest first.
    gaps: Vec<Gap>,
    failed: BTreeMap<Pair, HourCounts>,
    /// Hourly flows that were too many to look at.
    not_looked_at: u64,
}

/// Failed flows that are alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    initiator: IpAddr,
    responder: IpAddr,
    protocol: u8,
    port: u16,
    names: String,
}

impl Pair {
    fn asked(&self) -> Asked {
        Asked {
            initiator: self.initiator.into(),
            initiator_port: None,
            responder: self.responder.into(),
            protocol: self.protocol,
            service: self.port,
        }
    }
}

/// What is known of a service over the window.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its state.
    pub found: WindowFinding,
    /// What the ledger has of it; nothing if it never heard of it.
    pub record: Option<&'a ServiceRecord>,
}

impl Recalled {
    /// Reads all that a report needs. `now` is nanoseconds since the Unix epoch.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(view: &View<'_>, as_of: AsOf, now: u64) -> rusqlite::Result<Self> {
        let kept = view.watch()?;
        let looked = kept.map(|kept| kept.until);
        let kept = kept.unwrap_or_default();
        let unwatched = Some(now.saturating_sub(kept.until)).filter(|age| *age > STALE);
        let (watch, at, absent) = if as_of == AsOf::Now && unwatched.is_some() {
            let window = Duration::from_nanos(kept.window);
            let (watch, gap) = Watch::resume(window, kept, now, Absence::Unwatched);
            (watch, now, gap.filter(|_| looked.is_some()))
        } else {
            (Watch::as_of(kept), kept.until, None)
        };
        let start = at.saturating_sub(watch.window());
        let services = view
            .services()?
            .into_iter()
            .map(|record| (record.id.clone(), record))
            .collect();
        let mut gaps = view.gaps(start)?;
        gaps.extend(absent);
        let mut recalled = Self {
            watch,
            at,
            looked,
            unwatched,
            blind: kept.blind,
            services,
            unexpected: view.unexpected()?,
            gaps,
            failed: BTreeMap::new(),
            not_looked_at: 0,
        };
        let hours = HourKey::hour_of(start)..HourKey::hour_of(at).saturating_add(1);
        view.each_hour(hours, |record| {
            if record.key.verdict == Verdict::Expected {
                recalled.add_failed(record.key, &record.counts);
            }
        })?;
        Ok(recalled)
    }

    fn add_failed(&mut self, key: HourKey, counts: &HourCounts) {
        let failed = failures(counts).map(|(_, count)| count).sum::<u64>();
        if failed == 0 {
            return;
        }
        let room = self.failed.len() < MOST_FAILED;
        let pair = Pair {
            initiator: key.initiator.into(),
            responder: key.responder.into(),
            protocol: key.protocol,
            port: key.port,
            names: key.names,
        };
        match self.failed.get_mut(&pair) {
            Some(known) => known.add(counts),
            None if room => drop(self.failed.insert(pair, *counts)),
            None => self.not_looked_at = self.not_looked_at.saturating_add(failed),
        }
    }

    /// The moment that states are of, nanoseconds since the Unix epoch; nothing if nobody ever looked.
    #[must_use]
    pub fn at(&self) -> Option<u64> {
        self.looked.map(|_| self.at)
    }

    /// Length of the window, nanoseconds.
    #[must_use]
    pub const fn window(&self) -> u64 {
        self.watch.window()
    }

    /// Since when nobody watches, if states are of then.
    fn unwatched_since(&self) -> Option<u64> {
        self.unwatched
            .and(self.looked)
            .filter(|looked| *looked == self.at)
    }

    /// What is known of a service.
    #[must_use]
    pub fn service(&self, id: &ServiceId) -> Known<'_> {
        let record = self.services.get(id);
        let found = record.and_then(|record| {
            let vantage = record.window.vantage?;
            let window = ServiceWindow::resume(record.window.clone(), vantage, Absence::Counted);
            Some(window.finding(self.at, &self.watch))
        });
        let never = WindowFinding {
            finding: Finding {
                state: State::Unknown,
                cause: Some(Cause::Gap),
                place: None,
                confidence: None,
                attempted: false,
            },
            since: None,
            from: self.at.saturating_sub(self.watch.window()),
            flows: Counts::default(),
        };
        Known {
            found: found.unwrap_or(never),
            record,
        }
    }

    /// The line of a requirement.
    #[must_use]
    pub fn requirement(&self, system: &System, requirement: &Requirement) -> RequirementLine {
        let services: Vec<_> = ids(system, requirement)
            .map(|(service, id)| {
                let known = self.service(&id);
                let seen = known.record.and_then(|record| record.seen);
                let failure = known.record.and_then(|record| record.failure.as_ref());
                let failure = failure.map(|seen| LastFailure::new(&seen.failure, &seen.evidence));
                (service, known.found, seen, failure)
            })
            .collect();
        let id = format!("{}/{}", system.id, requirement.id);
        RequirementLine::over_window(id, &services)
    }
}

/// The services of a requirement with their ids in the ledger.
fn ids<'a>(
    system: &'a System,
    requirement: &'a Requirement,
) -> impl Iterator<Item = (Service, ServiceId)> + 'a {
    requirement.indexed_services().map(|(_, service)| {
        let id = ServiceId {
            system: system.id.to_string(),
            requirement: requirement.id.to_string(),
            service: service.to_string(),
        };
        (service, id)
    })
}

/// Outcomes that are failures, with their counts.
fn failures(counts: &HourCounts) -> impl Iterator<Item = (Outcome, u64)> {
    let decided = counts.decided;
    Outcome::ALL
        .into_iter()
        .filter(|outcome| outcome.is_failure())
        .map(move |outcome| (outcome, decided[outcome as usize]))
        .filter(|(_, count)| *count > 0)
}

#[cfg(test)]
mod tests;
