//! What a report is made from, out of a ledger: rows, who failed to reach whom, what was unexpected.

use std::collections::{BTreeMap, BTreeSet};

use flowproof_common::classify::Verdict;

use super::{Pair, Recalled, failures, ids};
use crate::export::flow_line::NearMiss;
use crate::export::times::time;
use crate::ledger::{ServiceId, UnexpectedRecord};
use crate::matrix::{ServiceKey, SystemIndex};
use crate::names::answer::Name;
use crate::report::model::{Evidence, Unwatched};
use crate::report::ticket::{Failures, Path};
use crate::report::unexpected::{Groups, MOST_EACH, NO_ROLE, Unexpected};
use crate::verdict::near_miss::service_text;
use crate::verdict::requirement::State;
use crate::verdict::window::GapKind;
use crate::verdict::{Asked, Explainer, role_name};

/// Flows that are judged by name; each costs as much as a small matrix.
const MOST_BY_NAME: usize = 200;
/// Gaps that are told.
const MOST_GAPS: usize = 1_000;
/// Names of services that are told.
const MOST_NAMES: usize = 5;

impl Recalled {
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
