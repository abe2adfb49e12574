//! Judges flows by two matrices and adds up what differs. Alike flows are judged once: two look-ups of addresses a
//! matrix, and one for what became of their kind, are all that another flow costs. What is kept has bounds that the
//! network can't move.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flowproof_common::classify::Verdict;
use hashbrown::HashMap;

use super::groups::{Becomes, Group, GroupKey, Groups, Place, add};
use super::overlay::DraftSystem;
use super::report::{
    Counts, DraftReport, GroupLine, GroupList, Roles, SampleLine, SystemLine, Tally, Undecided,
    Unused, Used, UsedService,
};
use crate::export::flow_line::NearMiss;
use crate::export::times::hour;
use crate::ledger::{HourCounts, HourKey, HourRecord};
use crate::matrix::compiled::{BoundRole, Compiled};
use crate::matrix::installed::Installed;
use crate::matrix::{
    Binding, BuiltInRole, Protocol, Requirement, RequirementIndex, RoleRef, Service, ServiceKey,
    SystemIndex,
};
use crate::verdict::near_miss::service_text;
use crate::verdict::recorded::{Edition, Missing, Opinion};
use crate::verdict::{Asked, Explainer};

/// Kinds of flows, and texts of names, that are remembered; beyond, all are judged anew.
const REMEMBERED: usize = 65_536;

/// Judges flows by the matrix in force and by a draft.
#[derive(Debug)]
pub struct Judge {
    in_force: Edition,
    draft: Edition,
    systems: Vec<DraftSystem>,
    notes: Vec<String>,
    kinds: Map<KindKey, u32>,
    list: Vec<Kind>,
    names: Names,
    groups: Groups,
    rows: Rows,
    counts: Counts,
    /// By what is missing: all, and those that are open in force too.
    undecided: BTreeMap<Missing, [Tally; 2]>,
    /// Services of undecided flows, one for each class of ports.
    open: BTreeMap<(u8, u16), u16>,
    /// First and last.
    hours: Option<[u64; 2]>,
    judged: Tally,
    otherwise: Tally,
}

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Flows that both matrices judge alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct KindKey {
    /// Classes of the initiator, in force and by the draft.
    from: [u32; 2],
    /// Classes of the responder.
    to: [u32; 2],
    /// Classes of the port.
    port: [u16; 2],
    protocol: u8,
    recorded: Verdict,
    /// Position in [`Names`].
    names: u32,
}

/// What became of a kind.
#[derive(Debug)]
struct Kind {
    change: Change,
    /// Whether it is unscoped in force and not by the draft.
    enters_scope: bool,
    /// Whether the matrix of its time judged otherwise than the one in force does.
    otherwise: bool,
    /// Rows of the draft, and their services, that cover it.
    used: [Box<[u32]>; 2],
}

#[derive(Debug)]
enum Change {
    /// All of the kind are in one group, which is found with the first.
    Group(Box<GroupKey>, Option<Place>),
    /// Nothing covers them in either matrix, so that each port is a group.
    GroupByPort(Box<GroupKey>),
    ByOtherRows,
    Still(Verdict),
    /// The verdict hangs on a name, and whatever it is, both matrices judge alike.
    StillOpen,
    Undecided(Missing, bool),
}

impl Judge {
    /// Judges by these two.
    #[must_use]
    pub fn new(in_force: Arc<Installed>, draft: Arc<Installed>) -> Self {
        Self {
            rows: Rows::new(&draft.compiled, &in_force.compiled),
            in_force: Edition::new(Explainer::new(in_force)),
            draft: Edition::new(Explainer::new(draft)),
            systems: Vec::new(),
            notes: Vec::new(),
            kinds: Map::default(),
            list: Vec::new(),
            names: Names::default(),
            groups: Groups::default(),
            counts: Counts::default(),
            undecided: BTreeMap::new(),
            open: BTreeMap::new(),
            hours: None,
            judged: Tally::default(),
            otherwise: Tally::default(),
        }
    }

    /// With the systems that the report says are on trial.
    #[must_use]
    pub fn with_systems(mut self, systems: Vec<DraftSystem>) -> Self {
        self.systems = systems;
        self
    }

    /// Adds what a reader of the report has to know, such as that flows may be missing.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Judges flows and adds them. The same flows in another order, or in several parts, come to the same report.
    pub fn add(&mut self, record: &HourRecord) {
        if record.counts == HourCounts::default() {
            return;
        }
        let hour = record.key.hour;
        self.hours = Some(self.hours.map_or([hour, hour], |[first, last]| {
            [first.min(hour), last.max(hour)]
        }));
        add(&mut self.judged, &record.counts);
        let number = self.kind(&record.key);
        let Some(kind) = self.list.get_mut(number as usize) else {
            return;
        };
        if kind.otherwise {
            add(&mut self.otherwise, &record.counts);
        }
        if kind.enters_scope {
            add(&mut self.counts.no_longer_unscoped, &record.counts);
        }
        self.rows.add(&kind.used, record);
        let counts = &mut self.counts;
        let tally = match &mut kind.change {
            Change::Group(key, place) => {
                let place = *place.get_or_insert_with(|| self.groups.place(key, record));
                self.groups.add(key.becomes, place, record);
                counts.of(key.becomes)
            }
            Change::GroupByPort(key) => {
                key.port = Some(record.key.port);
                let place = self.groups.place(key, record);
                self.groups.add(key.becomes, place, record);
                counts.of(key.becomes)
            }
            Change::ByOtherRows => &mut counts.by_other_rows,
            Change::Still(Verdict::Expected) => &mut counts.still_expected,
            Change::Still(Verdict::Unexpected) => &mut counts.still_unexpected,
            Change::Still(Verdict::Unscoped) => &mut counts.still_unscoped,
            Change::StillOpen => &mut counts.still_open,
            Change::Undecided(missing, also_in_force) => {
                let [all, also] = self.undecided.entry(*missing).or_default();
                add(all, &record.counts);
                if *also_in_force {
                    add(also, &record.counts);
                }
                &mut counts.undecided
            }
        };
        add(tally, &record.counts);
    }

    /// The kind of a flow; judged if it is the first.
    fn kind(&mut self, flow: &HourKey) -> u32 {
        if self.kinds.len() >= REMEMBERED || self.names.list.len() >= REMEMBERED {
            self.kinds.clear();
            self.list.clear();
            self.names = Names::default();
        }
        let names = self
            .names
            .number(&flow.names, [&self.in_force, &self.draft]);
        let of = |edition: &Edition| {
            (
                edition.class(&flow.initiator),
                edition.class(&flow.responder),
                edition.port_class(flow.port),
            )
        };
        let (in_force, draft) = (of(&self.in_force), of(&self.draft));
        let key = KindKey {
            from: [in_force.0, draft.0],
            to: [in_force.1, draft.1],
            port: [in_force.2, draft.2],
            protocol: flow.protocol,
            recorded: flow.verdict,
            names,
        };
        if let Some(number) = self.kinds.get(&key) {
            return *number;
        }
        let kind = self.judge(&key, flow);
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(kind);
        self.kinds.insert(key, number);
        number
    }

    fn judge(&mut self, key: &KindKey, flow: &HourKey) -> Kind {
        let [names_in_force, names_by_draft] = self.names.patterns(key.names);
        let (protocol, port) = (flow.protocol, flow.port);
        let before =
            self.in_force
                .opinion([key.from[0], key.to[0]], protocol, port, names_in_force);
        let after = self
            .draft
            .opinion([key.from[1], key.to[1]], protocol, port, names_by_draft);
        // At the time more may have been known than was written down.
        let was = match before.missing {
            Some(_) => flow.verdict,
            None => before.verdict,
        };
        let otherwise = before.missing.is_none() && before.verdict != flow.verdict;
        if let Some(missing) = after.missing {
            self.open.insert((protocol, key.port[1]), port);
            let change = if self.is_open_alike(key, flow, [&before, &after]) {
                Change::StillOpen
            } else {
                Change::Undecided(missing, before.missing.is_some())
            };
            return Kind {
                change,
                enters_scope: false,
                otherwise,
                used: Default::default(),
            };
        }
        let becomes = match after.verdict {
            verdict if verdict == was => None,
            Verdict::Unexpected => Some(Becomes::Unexpected),
            Verdict::Expected => Some(Becomes::Covered),
            Verdict::Unscoped => Some(Becomes::Unscoped),
        };
        let used = self.rows.numbers(&after.members);
        let change = match becomes {
            Some(becomes) => {
                let [from_before, to_before] = before.roles.map(Arc::from);
                let [from_after, to_after] = after.roles.map(Arc::from);
                let by_port = before.members.is_empty() && after.members.is_empty();
                let key = Box::new(GroupKey {
                    becomes,
                    was,
                    from: [from_before, from_after],
                    to: [to_before, to_after],
                    protocol,
                    port: None,
                    covered: [before.members.into(), after.members.into()],
                });
                if by_port {
                    Change::GroupByPort(key)
                } else {
                    Change::Group(key, None)
                }
            }
            None if was == Verdict::Expected
                && before.missing.is_none()
                && self.in_force.rows(before.members) != self.draft.rows(after.members) =>
            {
                Change::ByOtherRows
            }
            None => Change::Still(was),
        };
        Kind {
            change,
            enters_scope: was == Verdict::Unscoped && after.verdict != Verdict::Unscoped,
            otherwise,
            used,
        }
    }

    /// All flows so far by what changes for them. Takes no time.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    #[cfg(test)]
    pub(super) fn kinds_known(&self) -> usize {
        self.kinds.len()
    }

    #[cfg(test)]
    pub(super) fn is_still_open(&mut self, flow: &HourKey) -> bool {
        let number = self.kind(flow);
        matches!(self.list[number as usize].change, Change::StillOpen)
    }

    #[cfg(test)]
    pub(super) fn names_known(&self) -> usize {
        self.names.numbers.len()
    }

    /// Whether both matrices would come to the same verdict, by the same rows, under whatever names.
    fn is_open_alike(&self, key: &KindKey, flow: &HourKey, [before, after]: [&Opinion; 2]) -> bool {
        if before.missing != after.missing || before.verdict != after.verdict {
            return false;
        }
        // A name can make an unscoped flow unexpected, by giving it a role.
        if before.verdict == Verdict::Unscoped
            && !self.in_force.all_names().eq(self.draft.all_names())
        {
            return false;
        }
        let names = self.names.patterns(key.names);
        let [in_force, draft] = [(&self.in_force, 0), (&self.draft, 1)].map(|(edition, which)| {
            let classes = [key.from[which], key.to[which]];
            edition.by_names(classes, flow.protocol, flow.port, names[which])
        });
        in_force == draft
    }

    /// What came of all flows so far. Takes some microseconds a group.
    #[must_use]
    pub fn report(&self) -> DraftReport {
        let [from, until] = match self.hours {
            Some([first, last]) => [Some(hour(first)), Some(hour(last.saturating_add(1)))],
            None => [None, None],
        };
        let (used, unused) = self.rows.told(&self.draft.installed().compiled, &self.open);
        DraftReport {
            systems: self.systems.iter().map(SystemLine::from).collect(),
            from,
            until,
            judged: self.judged,
            counts: self.counts.clone(),
            newly_unexpected: self.list_of(Becomes::Unexpected),
            newly_covered: self.list_of(Becomes::Covered),
            newly_unscoped: self.list_of(Becomes::Unscoped),
            undecided: self
                .undecided
                .iter()
                .map(|(missing, [all, also])| undecided(*missing, *all, *also))
                .collect(),
            judged_otherwise_then: self.otherwise,
            used,
            unused,
            notes: self.notes.clone(),
        }
    }

    fn list_of(&self, becomes: Becomes) -> GroupList {
        let mut groups: Vec<GroupLine> = self
            .groups
            .of(becomes)
            .map(|(key, group)| self.line(key, group))
            .collect();
        groups.sort_by(|one, other| {
            fn rest(line: &GroupLine) -> impl Ord + '_ {
                (
                    &line.from,
                    &line.to,
                    &line.service,
                    &line.was,
                    &line.covered_in_force,
                    &line.covered_by_draft,
                )
            }
            other
                .tally
                .flows
                .cmp(&one.tally.flows)
                .then_with(|| rest(one).cmp(&rest(other)))
        });
        GroupList {
            groups,
            left_out: self.groups.left_out(becomes),
        }
    }

    fn line(&self, key: &GroupKey, group: &Group) -> GroupLine {
        let roles = |of: &[Arc<[BoundRole]>; 2]| Roles {
            in_force: self.in_force.role_names(&of[0]),
            draft: self.draft.role_names(&of[1]),
        };
        let ids = |edition: &Edition, members: &[ServiceKey]| -> Vec<String> {
            let matrix = &edition.installed().compiled.matrix;
            members.iter().map(|key| matrix.service_id(*key)).collect()
        };
        let [first, last] = group.ports;
        let samples = group.samples();
        GroupLine {
            from: roles(&key.from),
            to: roles(&key.to),
            service: if first == last {
                service_text(key.protocol, first)
            } else {
                format!("{}/{first}-{last}", Protocol::from_number(key.protocol))
            },
            was: key.was.name().into(),
            tally: group.tally,
            first_hour: hour(group.hours[0]),
            last_hour: hour(group.hours[1]),
            covered_in_force: ids(&self.in_force, &key.covered[0]),
            covered_by_draft: ids(&self.draft, &key.covered[1]),
            near_misses: samples
                .first()
                .filter(|_| key.becomes == Becomes::Unexpected)
                .map(|sample| {
                    let asked = Asked {
                        initiator: sample.ends[0],
                        initiator_port: None,
                        responder: sample.ends[1],
                        protocol: key.protocol,
                        service: sample.port,
                    };
                    self.near_misses(&asked, &key.from[1], &key.to[1])
                })
                .unwrap_or_default(),
            samples: samples
                .into_iter()
                .map(|sample| SampleLine {
                    initiator: sample.ends[0].to_string(),
                    responder: sample.ends[1].to_string(),
                    port: sample.port,
                    names: sample.names.split_whitespace().map(str::to_owned).collect(),
                })
                .collect(),
        }
    }

    fn near_misses(&self, asked: &Asked, from: &[BoundRole], to: &[BoundRole]) -> Vec<NearMiss> {
        let matrix = &self.draft.installed().compiled.matrix;
        let misses = self.draft.explainer().near_misses_between(asked, from, to);
        misses
            .into_iter()
            .map(|miss| NearMiss {
                kind: miss.kind.name().into(),
                requirement: matrix.service_id(miss.service),
                detail: miss.detail,
            })
            .collect()
    }
}

impl Counts {
    const fn of(&mut self, becomes: Becomes) -> &mut Tally {
        match becomes {
            Becomes::Unexpected => &mut self.newly_unexpected,
            Becomes::Covered => &mut self.newly_covered,
            Becomes::Unscoped => &mut self.newly_unscoped,
        }
    }
}

fn undecided(missing: Missing, tally: Tally, also_in_force: Tally) -> Undecided {
    let (reason, detail) = match missing {
        Missing::Responder => (
            "no_name",
            "a row of the draft would cover them under a DNS name, and no name of the responder was recorded",
        ),
        Missing::Initiator => (
            "initiator_name",
            "a row of the draft would cover them if the initiator stood for a DNS name, and names of initiators are not recorded",
        ),
    };
    Undecided {
        reason: reason.into(),
        detail: detail.into(),
        tally,
        also_in_force,
    }
}

/// Texts of names, as the patterns of both matrices that they fit: most names fit none, and are one.
#[derive(Debug, Default)]
struct Names {
    numbers: Map<Box<str>, u32>,
    by_patterns: Map<Fitted, u32>,
    list: Vec<Fitted>,
}

/// For each matrix the patterns of each name.
type Fitted = [Vec<Vec<u32>>; 2];

impl Names {
    /// The number of no names at all.
    const NONE: u32 = 0;

    fn number(&mut self, text: &str, editions: [&Edition; 2]) -> u32 {
        if text.is_empty() {
            return Self::NONE;
        }
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let mut fitted: Fitted = editions.map(|edition| edition.patterns_of_each(text));
        for patterns in &mut fitted {
            // The first of those that are allowed counts, so that a second one like it changes nothing.
            let mut seen = BTreeSet::new();
            patterns.retain(|of_name| seen.insert(of_name.clone()));
        }
        let number = match self.by_patterns.get(&fitted) {
            Some(number) => *number,
            None => {
                self.list.push(fitted.clone());
                let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
                self.by_patterns.insert(fitted, number);
                number
            }
        };
        if self.numbers.len() >= REMEMBERED {
            self.numbers.clear();
        }
        self.numbers.insert(text.into(), number);
        number
    }

    fn patterns(&self, number: u32) -> [&[Vec<u32>]; 2] {
        let fitted = (number as usize)
            .checked_sub(1)
            .and_then(|position| self.list.get(position));
        fitted.map_or([&[]; 2], |fitted| fitted.each_ref().map(Vec::as_slice))
    }
}

/// The rows of the draft that are in force there, and the flows that they cover.
#[derive(Debug)]
struct Rows {
    list: Vec<Row>,
    services: Vec<Tally>,
    numbers: Map<ServiceKey, [u32; 2]>,
}

#[derive(Debug)]
struct Row {
    system: SystemIndex,
    requirement: RequirementIndex,
    new: bool,
    tally: Tally,
    hours: Option<[u64; 2]>,
    /// The position of its first service.
    services: usize,
}

impl Rows {
    fn new(draft: &Compiled, in_force: &Compiled) -> Self {
        let mut rows = Self {
            list: Vec::new(),
            services: Vec::new(),
            numbers: Map::default(),
        };
        let known: BTreeSet<String> = deployed(in_force)
            .map(|(system, requirement, _)| in_force.matrix.requirement_id(system, requirement))
            .collect();
        let position = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        for (system, requirement, content) in deployed(draft) {
            let row = position(rows.list.len());
            rows.list.push(Row {
                system,
                requirement,
                new: !known.contains(&draft.matrix.requirement_id(system, requirement)),
                tally: Tally::default(),
                hours: None,
                services: rows.services.len(),
            });
            for (service, _) in content.indexed_services() {
                let key = ServiceKey {
                    system,
                    requirement,
                    service,
                };
                rows.numbers
                    .insert(key, [row, position(rows.services.len())]);
                rows.services.push(Tally::default());
            }
        }
        rows
    }

    /// Rows and services, each once.
    fn numbers(&self, members: &[ServiceKey]) -> [Box<[u32]>; 2] {
        let numbers: Vec<[u32; 2]> = members
            .iter()
            .filter_map(|member| self.numbers.get(member).copied())
            .collect();
        [0, 1].map(|which| {
            let numbers: BTreeSet<u32> = numbers.iter().map(|both| both[which]).collect();
            numbers.into_iter().collect()
        })
    }

    fn add(&mut self, [rows, services]: &[Box<[u32]>; 2], record: &HourRecord) {
        let hour = record.key.hour;
        for row in rows {
            if let Some(row) = self.list.get_mut(*row as usize) {
                add(&mut row.tally, &record.counts);
                row.hours = Some(row.hours.map_or([hour, hour], |[first, last]| {
                    [first.min(hour), last.max(hour)]
                }));
            }
        }
        for service in services {
            if let Some(tally) = self.services.get_mut(*service as usize) {
                add(tally, &record.counts);
            }
        }
    }

    fn told(&self, draft: &Compiled, open: &BTreeMap<(u8, u16), u16>) -> (Vec<Used>, Vec<Unused>) {
        let (mut used, mut unused) = (Vec::new(), Vec::new());
        let bindings: BTreeMap<BoundRole, &[Binding]> = draft
            .bindings
            .iter()
            .map(|(role, bound)| (*role, bound.as_slice()))
            .collect();
        for row in &self.list {
            let content = draft.matrix.system(row.system).requirement(row.requirement);
            let id = draft.matrix.requirement_id(row.system, row.requirement);
            let necessity = content.necessity.as_str().into();
            match row.hours {
                Some([first, last]) => used.push(Used {
                    id,
                    necessity,
                    new: row.new,
                    tally: row.tally,
                    first_hour: hour(first),
                    last_hour: hour(last),
                    services: content
                        .services
                        .iter()
                        .zip(self.services.iter().skip(row.services))
                        .map(|(service, tally)| UsedService {
                            service: service.to_string(),
                            tally: *tally,
                        })
                        .collect(),
                }),
                None => {
                    let (reason, detail) = why_unused(draft, row.system, content, &bindings, open);
                    unused.push(Unused {
                        id,
                        necessity,
                        new: row.new,
                        reason: reason.into(),
                        detail,
                    });
                }
            }
        }
        (used, unused)
    }
}

/// Every requirement of every system that has roles or built-in rows in force.
fn deployed(
    compiled: &Compiled,
) -> impl Iterator<Item = (SystemIndex, RequirementIndex, &Requirement)> {
    compiled.deployed().into_iter().flat_map(|system| {
        compiled
            .matrix
            .system(system)
            .indexed_requirements()
            .map(move |(index, requirement)| (system, index, requirement))
    })
}

fn why_unused(
    draft: &Compiled,
    system: SystemIndex,
    row: &Requirement,
    bindings: &BTreeMap<BoundRole, &[Binding]>,
    open: &BTreeMap<(u8, u16), u16>,
) -> (&'static str, String) {
    if row.services.is_empty() {
        return (
            "no_service",
            "it names no service, so that no flow can be judged by it".to_owned(),
        );
    }
    let bound = |role| {
        bindings
            .get(&BoundRole { system, role })
            .copied()
            .unwrap_or_default()
    };
    let mut named = false;
    for role in [row.from, row.to] {
        let nobody = match role {
            RoleRef::Declared(_) => bound(role).is_empty(),
            RoleRef::BuiltIn(built_in) => built_in == BuiltInRole::Unknown,
        };
        if nobody {
            let detail = match role {
                RoleRef::Declared(_) => {
                    let role = draft.matrix.system(system).role_id(role);
                    format!(
                        "nobody has the role `{role}`: bind it in the site, or in that of the draft"
                    )
                }
                RoleRef::BuiltIn(_) => "it does not say who is at one of its ends".to_owned(),
            };
            return ("not_bound", detail);
        }
        named |= bound(role)
            .iter()
            .any(|binding| matches!(binding, Binding::Name(_)));
    }
    let may_be = |service: &Service| {
        open.iter().any(|((protocol, _), port)| {
            let protocol = Protocol::from_number(*protocol);
            service.covers(protocol, *port)
                || (service.first().is_none() && service.protocol() == protocol)
        })
    };
    if named && row.services.iter().any(may_be) {
        return (
            "undecided",
            "flows whose name was not recorded may be its".to_owned(),
        );
    }
    ("no_flow", "no flow".to_owned())
}
