//! What a ledger shows of a matrix: the states of its rows over the window that was watched, as the daemon told them at its
//! last look, what became of the flows behind them, and what was unexpected. For reports, and for whoever explains one row.
//!
//! A ledger is of the past. States are of the daemon's last look, or of now: then the time since that look counts as not
//! watched, so that nothing is called silent that nobody could have seen. Rows that the ledger never heard of are unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use flowproof_common::classify::Verdict;
use flowproof_common::state::Outcome;

use super::model::{Evidence, Unwatched};
use super::ticket::{Failures, Path};
use super::unexpected::{Groups, MOST_EACH, NO_ROLE, Unexpected};
use crate::export::flow_line::{NearMiss, time};
use crate::export::requirement_line::RequirementLine;
use crate::ledger::{HourCounts, HourKey, ServiceId, ServiceRecord, UnexpectedRecord, View};
use crate::matrix::{Requirement, ServiceKey, System, SystemIndex};
use crate::names::answer::Name;
use crate::verdict::near_miss::service_text;
use crate::verdict::requirement::{Cause, Finding, State};
use crate::verdict::window::{Absence, Counts, Gap, GapKind, ServiceWindow, Watch, WindowFinding};
use crate::verdict::{Asked, Explainer, role_name};

/// A heartbeat that is older is no heartbeat, nanoseconds: the ledger is written every 2 s, and 5 s is the most that is ever
/// in memory alone.
const STALE: u64 = 10_000_000_000;
/// Different failed flows that are looked at.
const MOST_FAILED: usize = 10_000;
/// Flows that are judged by name; each costs as much as a small matrix.
const MOST_BY_NAME: usize = 200;
/// Gaps that are told one by one in words, and in all.
const MOST_TOLD: usize = 8;
const MOST_GAPS: usize = 1_000;
/// Names of services that are told.
const MOST_NAMES: usize = 5;

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
                (service, known.found, seen)
            })
            .collect();
        let id = format!("{}/{}", system.id, requirement.id);
        RequirementLine::over_window(id, &services)
    }

    /// What the reader has to know beside the states: of which time they are, and when nobody watched.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let Some(looked) = self.looked else {
            return vec!["nothing was ever written to the ledger: nobody has watched".to_owned()];
        };
        let mut notes = vec![format!(
            "states are over a window of {} that ends at {}",
            duration(self.watch.window()),
            time(self.at)
        )];
        if let Some(age) = self.unwatched {
            let what = if self.at == looked {
                "what happened since then is not told here"
            } else {
                "silence since then proves nothing"
            };
            notes.push(format!(
                "nobody has watched since {} (for {}): {what}",
                time(looked),
                duration(age)
            ));
        } else if self.blind {
            notes.push(format!("at {} nothing was captured", time(looked)));
        }
        self.gap_notes(&mut notes);
        notes
    }

    fn gap_notes(&self, notes: &mut Vec<String>) {
        let mut unwatched = Vec::new();
        for gap in &self.gaps {
            let why = match gap.kind {
                GapKind::Down => "the daemon was down",
                GapKind::Blind => "nothing was captured",
                GapKind::ClockJump => "the clock was set forward, or the host slept",
                GapKind::PacketsLost | GapKind::NamesLost => continue,
            };
            unwatched.push(format!(
                "not watched from {} to {}: {why}",
                time(gap.from),
                time(gap.to)
            ));
        }
        let earlier = unwatched.len().saturating_sub(MOST_TOLD);
        if earlier > 0 {
            notes.push(format!(
                "not watched {earlier} more time(s) before these, too"
            ));
        }
        notes.extend(unwatched.drain(earlier..));
        for (kind, what) in [
            (GapKind::PacketsLost, "packets or events"),
            (GapKind::NamesLost, "names of flows"),
        ] {
            let times = || self.gaps.iter().filter(|gap| gap.kind == kind);
            if let Some(last) = times().map(|gap| gap.to).max() {
                notes.push(format!(
                    "{what} were lost {} time(s) in the window, last at {}",
                    times().count(),
                    time(last)
                ));
            }
        }
    }

    /// What a report is made from: `deployed` are the systems whose rows it has, in this order.
    #[must_use]
    pub fn evidence(&self, explainer: &Explainer, deployed: &[SystemIndex]) -> Evidence {
        let matrix = &explainer.installed().compiled.matrix;
        let mut evidence = Evidence {
            until: self.looked.map(|_| time(self.at)),
            unwatched_since: self.unwatched_since().map(time),
            notes: self.notes(),
            ..Evidence::default()
        };
        let mut since = None;
        let mut failing = BTreeSet::new();
        let mut reported = BTreeSet::new();
        let mut unheard = 0_usize;
        for system in deployed.iter().map(|index| matrix.system(*index)) {
            for (_, requirement) in system.indexed_requirements() {
                let line = self.requirement(system, requirement);
                let fails = [State::Blocked, State::Degraded]
                    .iter()
                    .any(|state| state.name() == line.state);
                for (service, id) in ids(system, requirement) {
                    let known = self.service(&id);
                    if known.record.is_none() {
                        unheard += 1;
                    } else {
                        since =
                            Some(since.map_or(known.found.from, |since: u64| {
                                since.min(known.found.from)
                            }));
                    }
                    if fails && known.found.finding.state.name() == line.state {
                        failing.insert(format!("{}#{service}", line.id));
                    }
                    reported.insert(id);
                }
                evidence.requirements.push(line);
            }
        }
        evidence.since = since.filter(|_| self.looked.is_some()).map(time);
        evidence.failures = self.failures(explainer, &failing);
        if self.not_looked_at > 0 {
            evidence.notes.push(format!(
                "{} failed flow(s) between too many addresses are not told one by one",
                self.not_looked_at
            ));
        }
        if unheard > 0 && self.looked.is_some() {
            evidence.notes.push(format!(
                "{unheard} service(s) of the matrix and site given here are not in the ledger: nobody has watched them"
            ));
        }
        self.missing(&reported, &mut evidence);
        self.lost(&mut evidence);
        self.unexpected(explainer, &mut evidence);
        evidence
    }

    /// Services of the ledger that have no row in the report.
    fn missing(&self, reported: &BTreeSet<ServiceId>, evidence: &mut Evidence) {
        let missing: Vec<String> = self
            .services
            .keys()
            .filter(|id| !reported.contains(id))
            .map(|id| format!("{}/{}#{}", id.system, id.requirement, id.service))
            .collect();
        if missing.is_empty() {
            return;
        }
        let more = if missing.len() > MOST_NAMES {
            ", ..."
        } else {
            ""
        };
        let some = &missing[..missing.len().min(MOST_NAMES)];
        evidence.notes.push(format!(
            "{} service(s) that the ledger knows are not in the matrix and site given here, and not reported: {}{more}",
            missing.len(),
            some.join(", ")
        ));
    }

    fn lost(&self, evidence: &mut Evidence) {
        for (kind, stage) in [
            (GapKind::PacketsLost, "packets"),
            (GapKind::NamesLost, "names"),
        ] {
            let lost = self.gaps.iter().filter(|gap| gap.kind == kind);
            let sum = lost.fold(0_u64, |sum, gap| sum.saturating_add(gap.lost));
            evidence.lost.push((stage.to_owned(), sum));
        }
        let skipped = self.gaps.len().saturating_sub(MOST_GAPS);
        evidence.gaps = self
            .gaps
            .iter()
            .skip(skipped)
            .map(|gap| Unwatched {
                kind: gap.kind.name(),
                from: time(gap.from),
                to: time(gap.to),
                lost: gap.lost,
            })
            .collect();
    }

    /// What is known of failed flows in the window of these services (`system/requirement#service`), by the ids of their
    /// requirements.
    #[must_use]
    pub fn failures(
        &self,
        explainer: &Explainer,
        failing: &BTreeSet<String>,
    ) -> BTreeMap<String, Failures> {
        let installed = explainer.installed();
        let matrix = &installed.compiled.matrix;
        let mut by_requirement: BTreeMap<String, Failures> = BTreeMap::new();
        for id in failing {
            let (requirement, service) = id.split_once('#').unwrap_or((id, ""));
            let failures = by_requirement.entry(requirement.to_owned()).or_default();
            let (system, row) = requirement.split_once('/').unwrap_or_default();
            let id = ServiceId {
                system: system.to_owned(),
                requirement: row.to_owned(),
                service: service.to_owned(),
            };
            let seen = self.services.get(&id).and_then(|record| {
                let seen = record.failure.as_ref()?;
                Some((time(seen.failure.at), &seen.evidence))
            });
            if let Some((at, text)) = seen {
                failures.last = failures.last.take().max(Some(at));
                if !text.is_empty() && !failures.evidence.contains(text) {
                    failures.evidence.push(text.clone());
                }
            }
        }
        let mut by_name = 0;
        let mut paths: Vec<(&Pair, u64, Path, Vec<ServiceKey>)> = Vec::new();
        for (pair, counts) in &self.failed {
            let covered = covering(explainer, pair, &mut by_name);
            for (outcome, flows) in failures(counts) {
                let path = Path {
                    initiator: pair.initiator.to_string(),
                    responder: match pair.names.split(' ').next() {
                        Some(name) if !name.is_empty() => format!("{} ({name})", pair.responder),
                        Some(_) | None => pair.responder.to_string(),
                    },
                    service: service_text(pair.protocol, pair.port),
                    outcome: outcome.name().to_owned(),
                    flows,
                };
                paths.push((pair, flows, path, covered.clone()));
            }
        }
        // Equal ones stay in the order of their addresses.
        paths.sort_by_key(|(_, flows, _, _)| std::cmp::Reverse(*flows));
        for (pair, _, path, covered) in paths {
            let mut told = BTreeSet::new();
            let failing = |key: &ServiceKey| failing.contains(&matrix.service_id(*key));
            for key in covered.into_iter().filter(failing) {
                let id = matrix.requirement_id(key.system, key.requirement);
                let Some(failures) = by_requirement.get_mut(&id).filter(|_| told.insert(id)) else {
                    continue;
                };
                if failures.paths.is_empty() {
                    failures.initiator = installed
                        .roles_of(&pair.initiator.into())
                        .iter()
                        .map(|role| role_name(&installed.compiled, *role))
                        .collect();
                }
                if failures.paths.len() < Failures::MOST {
                    failures.paths.push(path.clone());
                }
            }
        }
        by_requirement
    }

    fn unexpected(&self, explainer: &Explainer, evidence: &mut Evidence) {
        let start = self.at.saturating_sub(self.watch.window());
        let mut groups = Groups::default();
        let (mut older, mut covered) = (0_usize, 0_usize);
        for record in &self.unexpected {
            if record.seen[1] < start {
                older += 1;
                continue;
            }
            let (group, expected) = unexpected(explainer, record);
            covered += usize::from(expected);
            groups.put(group);
        }
        evidence.unexpected = groups;
        if older > 0 {
            evidence.notes.push(format!(
                "{older} kind(s) of unexpected flows were last seen before the window, and are not reported"
            ));
        }
        if covered > 0 {
            evidence.notes.push(format!(
                "the matrix given here covers flows of {covered} kind(s) that were unexpected when they were seen"
            ));
        }
    }

    /// The unexpected flows that were counted together with those between ends of these roles (`system/role`), also those
    /// before the window.
    #[must_use]
    pub fn unexpected_between(
        &self,
        explainer: &Explainer,
        [from, to]: [&BTreeSet<String>; 2],
        protocol: u8,
        port: u16,
    ) -> Option<Unexpected> {
        let has = |text: &str, roles: &BTreeSet<String>| {
            let known: BTreeSet<&str> = text.split(',').filter(|role| *role != NO_ROLE).collect();
            known.into_iter().eq(roles.iter().map(String::as_str))
        };
        let record = self.unexpected.iter().find(|record| {
            let id = &record.id;
            (id.protocol, id.port) == (protocol, port) && has(&id.from, from) && has(&id.to, to)
        })?;
        Some(unexpected(explainer, record).0)
    }
}

/// The services of a requirement with their ids in the ledger.
fn ids<'a>(
    system: &'a System,
    requirement: &'a Requirement,
) -> impl Iterator<Item = (crate::matrix::Service, ServiceId)> + 'a {
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

/// What covers the flows of a pair by the matrix given. `by_name` counts those that were judged by a name.
fn covering(explainer: &Explainer, pair: &Pair, by_name: &mut usize) -> Vec<ServiceKey> {
    let asked = pair.asked();
    for name in pair.names.split(' ').filter(|name| !name.is_empty()) {
        if *by_name >= MOST_BY_NAME {
            break;
        }
        *by_name += 1;
        let explained = explainer.explain(&asked, &[None, Some(Name::from(name))]);
        if !explained.requirements.is_empty() {
            return explained.requirements;
        }
    }
    explainer.covering(&asked).1.to_vec()
}

/// A group of unexpected flows, and whether the matrix given covers all that is known of it.
fn unexpected(explainer: &Explainer, record: &UnexpectedRecord) -> (Unexpected, bool) {
    let id = &record.id;
    let matrix = &explainer.installed().compiled.matrix;
    let key = (
        id.from.clone(),
        id.to.clone(),
        service_text(id.protocol, id.port),
    );
    let outcomes = [
        ("answered", record.answered),
        ("other", record.flows.saturating_sub(record.answered)),
    ];
    let mut group = Unexpected {
        flows: record.flows,
        outcomes: outcomes
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(outcome, count)| (outcome.to_owned(), count))
            .collect(),
        first_seen: Some(time(record.seen[0])),
        last_seen: Some(time(record.seen[1])),
        ..Unexpected::empty(key)
    };
    fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
        if list.len() < MOST_EACH && !list.contains(&item) {
            list.push(item);
        }
    }
    let mut covered = !record.samples.is_empty();
    // The newest is the likeliest to be still of interest.
    for [initiator, responder] in record.samples.iter().rev() {
        add(&mut group.initiators, initiator.to_string());
        add(&mut group.responders, responder.to_string());
        let asked = Asked {
            initiator: *initiator,
            initiator_port: None,
            responder: *responder,
            protocol: id.protocol,
            service: id.port,
        };
        if explainer.covering(&asked).0 == Verdict::Expected {
            continue;
        }
        covered = false;
        for miss in explainer.near_misses(&asked) {
            let miss = NearMiss {
                kind: miss.kind.name().into(),
                requirement: matrix.service_id(miss.service),
                detail: miss.detail,
            };
            add(&mut group.near_misses, miss);
        }
    }
    (group, covered)
}

/// A duration in words, to the second.
fn duration(nanos: u64) -> String {
    humantime::format_duration(Duration::from_secs(nanos / 1_000_000_000)).to_string()
}
