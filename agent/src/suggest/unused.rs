//! Requirements, and single services of them, that nothing used for so many days: candidates for removal, or for a firewall
//! rule that can go. Silence is told only of what was watched all the time: a loss, a gap or a daemon that was down within
//! the days means that nobody can tell yet. What can't be seen from here is never a candidate.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Serialize;

use crate::export::times;
use crate::ledger::{ServiceId, ServiceRecord};
use crate::matrix::compiled::Compiled;
use crate::matrix::{Requirement, ServiceKey};
use crate::verdict::requirement::State;
use crate::verdict::window::{Gap, GapKind, KeptWatch};

/// Nanoseconds of a day.
const DAY: u64 = 86_400_000_000_000;

/// A requirement, or some of its services, that nothing used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// `system/requirement`
    pub id: String,
    /// Its system.
    pub system: String,
    /// Its id in the system.
    pub requirement: String,
    /// The services that nothing used.
    pub services: Vec<String>,
    /// Whether these are all it has, so that the whole requirement could go.
    pub whole: bool,
    /// `required`, `optional` or `conditional`. What is not required may be silent for good reason.
    pub necessity: &'static str,
    /// When a flow was seen last, RFC 3339; null if none ever was.
    pub last_seen: Option<String>,
    /// Whole days that were watched without a gap and without a flow.
    pub unused_days: u64,
}

/// Services that nobody can tell of yet, by the reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Untold {
    /// Whole days that were watched without a gap.
    pub watched_days: u64,
    /// Why it is not more.
    pub reason: String,
    /// How many services.
    pub services: usize,
}

/// What nothing used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Unused {
    /// Days that were asked for.
    pub days: u64,
    /// Candidates for removal, in the order of the files.
    pub removals: Vec<Removal>,
    /// Why there may be more, the shortest watched first.
    pub untold: Vec<Untold>,
}

/// What is known of one service.
enum Fate {
    Used,
    Unobservable,
    Untold { watched: u64, reason: String },
    Idle { watched: u64, last: Option<u64> },
}

/// Looks for what nothing used in the `days` before the ledger's last word, by what a ledger knows.
#[must_use]
pub fn unused(
    compiled: &Compiled,
    services: &[ServiceRecord],
    watch: Option<KeptWatch>,
    gaps: &[Gap],
    days: u64,
) -> Unused {
    let mut unused = Unused {
        days,
        ..Unused::default()
    };
    let Some(watch) = watch else {
        unused.untold.push(Untold {
            watched_days: 0,
            reason: "the ledger has not watched yet".to_owned(),
            services: compiled.matrix.services().count(),
        });
        return unused;
    };
    let by_id: HashMap<&ServiceId, &ServiceRecord> =
        services.iter().map(|record| (&record.id, record)).collect();
    let look = Look {
        watch,
        gaps,
        since: watch.until.saturating_sub(days.saturating_mul(DAY)),
    };
    let mut untold: HashMap<(u64, String), usize> = HashMap::new();
    for system in compiled.deployed() {
        for (requirement, row) in compiled.matrix.system(system).indexed_requirements() {
            let mut idle: Vec<(String, u64, Option<u64>)> = Vec::new();
            for (service, value) in row.indexed_services() {
                let key = ServiceKey {
                    system,
                    requirement,
                    service,
                };
                match look.fate(by_id.get(&id_of(compiled, key)).copied()) {
                    Fate::Used | Fate::Unobservable => {}
                    Fate::Untold { watched, reason } => {
                        *untold.entry((watched / DAY, reason)).or_default() += 1;
                    }
                    Fate::Idle { watched, last } => idle.push((value.to_string(), watched, last)),
                }
            }
            if !idle.is_empty() {
                let id = compiled.matrix.requirement_id(system, requirement);
                let system = compiled.matrix.system(system).id.to_string();
                unused.removals.push(removal(id, system, row, &idle));
            }
        }
    }
    unused.untold = untold
        .into_iter()
        .map(|((watched_days, reason), services)| Untold {
            watched_days,
            reason,
            services,
        })
        .collect();
    unused.untold.sort();
    unused
}

fn id_of(compiled: &Compiled, key: ServiceKey) -> ServiceId {
    ServiceId {
        system: compiled.matrix.system(key.system).id.to_string(),
        requirement: compiled.matrix.requirement(key).id.to_string(),
        service: compiled.matrix.service(key).to_string(),
    }
}

fn removal(
    id: String,
    system: String,
    row: &Requirement,
    idle: &[(String, u64, Option<u64>)],
) -> Removal {
    Removal {
        id,
        system,
        requirement: row.id.to_string(),
        services: idle.iter().map(|(service, ..)| service.clone()).collect(),
        whole: idle.len() == row.services.len(),
        necessity: row.necessity.as_str(),
        last_seen: idle
            .iter()
            .filter_map(|(_, _, last)| *last)
            .max()
            .map(times::second),
        unused_days: idle
            .iter()
            .map(|(_, watched, _)| *watched)
            .min()
            .unwrap_or_default()
            / DAY,
    }
}

struct Look<'a> {
    watch: KeptWatch,
    gaps: &'a [Gap],
    /// Nanoseconds since the Unix epoch.
    since: u64,
}

impl Look<'_> {
    fn fate(&self, record: Option<&ServiceRecord>) -> Fate {
        let Some(record) = record else {
            return Fate::Untold {
                watched: 0,
                reason: "not in the ledger: the daemon has not watched for it yet".to_owned(),
            };
        };
        let last = record.seen.map(|[_, last]| last);
        if last >= Some(self.since) {
            return Fate::Used;
        }
        let unobservable = record
            .window
            .standing
            .is_none_or(|(state, _)| state == State::Unobservable);
        let Some(begins) = record.window.begins.filter(|_| !unobservable) else {
            return Fate::Unobservable;
        };
        // Of each kind of gap the last time is enough, and is known for longer than the list of gaps.
        let names = self
            .watch
            .last_names_lost
            .filter(|_| record.window.needs_names);
        let lost = |kind: GapKind| Cow::from(format!("{} then", kind.words()));
        let doubts = [
            (self.watch.last_blind, "not watched until then".into()),
            (
                record.window.last_blind,
                "could not be seen until then".into(),
            ),
            (self.watch.last_packets_lost, lost(GapKind::PacketsLost)),
            (record.window.last_lossy, lost(GapKind::PacketsLost)),
            (names, lost(GapKind::NamesLost)),
        ];
        let doubt = doubts
            .into_iter()
            .filter_map(|(time, reason)| time.map(|time| (time, reason)))
            .max_by_key(|(time, _)| *time)
            .filter(|(time, _)| *time > begins);
        let (from, reason) = doubt.unwrap_or((begins, "watched only since then".into()));
        let watched = self.watch.until.saturating_sub(from);
        if from > self.since {
            return Fate::Untold {
                watched,
                reason: format!("{}, {}", times::second(from), self.named(from, reason)),
            };
        }
        // Before a gap it may have been used, but the ledger would know: what counts is the time since it was seen last.
        let idle = last.map_or(watched, |last| {
            self.watch.until.saturating_sub(last).min(watched)
        });
        Fate::Idle {
            watched: idle,
            last,
        }
    }

    /// The gap that ended then says more.
    fn named(&self, at: u64, reason: Cow<'static, str>) -> Cow<'static, str> {
        match self
            .gaps
            .iter()
            .find(|gap| gap.to == at)
            .map(|gap| gap.kind)
        {
            Some(kind @ (GapKind::Down | GapKind::Blind | GapKind::ClockJump)) => {
                format!("{} until then", kind.words()).into()
            }
            Some(GapKind::PacketsLost | GapKind::NamesLost) | None => reason,
        }
    }
}

#[cfg(test)]
mod tests;
