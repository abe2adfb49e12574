//! Requirements to rules. Each rule is complete in itself: the classifier stops at the first of four look-ups that
//! hits (see `flowproof_common::classify`), so what `any` covers is merged into every more exact rule.

use std::collections::BTreeSet;
use std::sync::Arc;

use flowproof_common::classify::ANY_CLASS;
use flowproof_common::protocol;
use hashbrown::{HashMap, HashSet};

use super::classes::{Classes, Tag};
use super::ports::{PortClasses, Range};
use super::{CompileError, HostAddresses, MAX_RULES};
use crate::matrix::compiled::{BoundRole, Rule, RuleSetIndex};
use crate::matrix::lists::Lists;
use crate::matrix::rule_table::RuleTable;
use crate::matrix::{
    BuiltInRole, Matrix, Protocol, RoleRef, Service, ServiceIndex, ServiceKey, SystemIndex,
};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

pub(super) struct Rules {
    pub(super) port_classes: Arc<[u16]>,
    pub(super) rules: RuleTable,
    pub(super) sets: Lists<ServiceKey>,
}

/// ICMP types that `icmp` covers towards the responder: echo request.
const ECHO: [(u8, u8); 2] = [
    (protocol::ICMP, protocol::ICMP_ECHO_REQUEST),
    (protocol::ICMPV6, protocol::ICMPV6_ECHO_REQUEST),
];
/// Errors that may come of it. ICMP: destination unreachable 3, source quench 4 (deprecated by RFC 6633, still sent),
/// time exceeded 11, parameter problem 12 (RFC 792). ICMPv6: 1 to 4 (RFC 4443, section 2.1).
const ECHO_ERRORS: [Range; 3] = [
    (protocol::ICMP, 3, 4),
    (protocol::ICMP, 11, 12),
    (protocol::ICMPV6, 1, 4),
];

/// A protocol, its range if it has ports or types, and whether these are errors, which either end may send.
type Covered = (u8, Option<(u16, u16)>, bool);

fn coverage(service: Service) -> Vec<Covered> {
    let number = service.protocol().number();
    match (service.protocol(), service.first().zip(service.last())) {
        (protocol @ (Protocol::Icmp | Protocol::Icmpv6), None) => {
            let both = protocol == Protocol::Icmp;
            let echo = ECHO
                .iter()
                .map(|(family, kind)| (*family, u16::from(*kind), u16::from(*kind), false));
            let errors = ECHO_ERRORS
                .iter()
                .map(|(family, first, last)| (*family, *first, *last, true));
            echo.chain(errors)
                .filter(|(family, ..)| both || *family == number)
                .map(|(family, first, last, error)| (family, Some((first, last)), error))
                .collect()
        }
        (Protocol::Vrrp, _) => vec![(number, None, false)],
        (protocol @ (Protocol::Tcp | Protocol::Udp | Protocol::Other(_)), None) => {
            let every = protocol.has_ports().then_some((0, u16::MAX));
            vec![(number, every, false)]
        }
        (
            Protocol::Tcp | Protocol::Udp | Protocol::Icmp | Protocol::Icmpv6 | Protocol::Other(_),
            range @ Some(_),
        ) => vec![(number, range, false)],
    }
}

/// Class pairs that a service covers.
enum Pairs {
    /// Each of the first with each of the second.
    Product(Arc<[u32]>, Arc<[u32]>),
    /// These.
    List(Arc<[(u32, u32)]>),
}

impl Pairs {
    fn len(&self) -> usize {
        match self {
            Self::Product(from, to) => from.len().saturating_mul(to.len()),
            Self::List(pairs) => pairs.len(),
        }
    }

    fn reversed(&self) -> Self {
        match self {
            Self::Product(from, to) => Self::Product(Arc::clone(to), Arc::clone(from)),
            Self::List(pairs) => Self::List(pairs.iter().map(|(from, to)| (*to, *from)).collect()),
        }
    }

    fn for_each(&self, mut each: impl FnMut(u32, u32)) {
        match self {
            Self::Product(from, to) => {
                for from in from.iter() {
                    for to in to.iter() {
                        each(*from, *to);
                    }
                }
            }
            Self::List(pairs) => {
                for (from, to) in pairs.iter() {
                    each(*from, *to);
                }
            }
        }
    }
}

/// Where roles are: which classes have them.
struct Places<'a> {
    of_role: Map<BoundRole, Arc<[u32]>>,
    vrrp: Vec<u32>,
    /// Pairs among the classes of the capturing host.
    own: Arc<[(u32, u32)]>,
    /// Declared roles of the capturing host.
    own_roles: HashSet<BoundRole, foldhash::fast::RandomState>,
    /// Classes of single addresses that are hosts of their own, by role.
    single: Map<BoundRole, Vec<u32>>,
    host: &'a HostAddresses,
    any: Arc<[u32]>,
    none: Arc<[u32]>,
}

impl<'a> Places<'a> {
    fn of(classes: &Classes, host: &'a HostAddresses) -> Self {
        let mut of_role: Map<BoundRole, Vec<u32>> = Map::default();
        let mut single: Map<BoundRole, Vec<u32>> = Map::default();
        let mut own = Vec::new();
        let mut own_roles = HashSet::default();
        let mut vrrp = Vec::new();
        for (class, tags) in classes.numbered() {
            let roles = || tags.iter().filter_map(|tag| tag.role());
            for role in roles() {
                of_role.entry(role).or_default().push(class);
            }
            for tag in tags {
                match *tag {
                    Tag::Role(_) | Tag::DirectedBroadcast => {}
                    Tag::VrrpGroup => vrrp.push(class),
                    Tag::Own => {
                        own.push(class);
                        own_roles.extend(roles());
                    }
                    Tag::Single(role, _) => single.entry(role).or_default().push(class),
                }
            }
        }
        Self {
            of_role: of_role
                .into_iter()
                .map(|(role, classes)| (role, classes.into()))
                .collect(),
            vrrp,
            own: own
                .iter()
                .flat_map(|from| own.iter().map(move |to| (*from, *to)))
                .collect(),
            own_roles,
            single,
            host,
            any: Arc::new([ANY_CLASS]),
            none: Arc::new([]),
        }
    }

    /// Classes of an end, none for the ends that no address has.
    fn end(&self, system: SystemIndex, role: RoleRef) -> Arc<[u32]> {
        match role {
            RoleRef::BuiltIn(BuiltInRole::Any) => Arc::clone(&self.any),
            RoleRef::BuiltIn(BuiltInRole::Unknown) => Arc::clone(&self.none),
            RoleRef::Declared(_)
            | RoleRef::BuiltIn(BuiltInRole::Localhost | BuiltInRole::Broadcast) => Arc::clone(
                self.of_role
                    .get(&BoundRole { system, role })
                    .unwrap_or(&self.none),
            ),
        }
    }

    /// Class pairs of an initiator and a responder.
    fn pairs(&self, system: SystemIndex, from: RoleRef, to: RoleRef, protocol: Protocol) -> Pairs {
        const LOCALHOST: RoleRef = RoleRef::BuiltIn(BuiltInRole::Localhost);
        const UNKNOWN: RoleRef = RoleRef::BuiltIn(BuiltInRole::Unknown);
        if from == UNKNOWN || to == UNKNOWN {
            return Pairs::List(Arc::new([]));
        }
        if from == LOCALHOST || to == LOCALHOST {
            let other = if from == LOCALHOST { to } else { from };
            return Pairs::List(self.within_a_host(BoundRole {
                system,
                role: other,
            }));
        }
        let mut to = self.end(system, to);
        if protocol == Protocol::Vrrp && !self.vrrp.is_empty() && *to != [ANY_CLASS] {
            let mut with_groups: Vec<u32> = to.iter().chain(&self.vrrp).copied().collect();
            with_groups.sort_unstable();
            with_groups.dedup();
            to = with_groups.into();
        }
        Pairs::Product(self.end(system, from), to)
    }

    /// Class pairs of `localhost` and `other`.
    fn within_a_host(&self, other: BoundRole) -> Arc<[(u32, u32)]> {
        match (other.role, self.host) {
            (RoleRef::BuiltIn(BuiltInRole::Any | BuiltInRole::Localhost), _) => {
                Arc::clone(&self.own)
            }
            (RoleRef::BuiltIn(BuiltInRole::Broadcast | BuiltInRole::Unknown), _) => Arc::new([]),
            (RoleRef::Declared(_), HostAddresses::Known(_)) => {
                if self.own_roles.contains(&other) {
                    Arc::clone(&self.own)
                } else {
                    Arc::new([])
                }
            }
            (RoleRef::Declared(_), HostAddresses::Unknown) => {
                let single = self.single.get(&other).map_or(&[][..], Vec::as_slice);
                let themselves = single.iter().map(|class| (*class, *class));
                self.own.iter().copied().chain(themselves).collect()
            }
        }
    }
}

/// What one service makes: rules for these pairs with this protocol and range.
struct Job {
    member: u32,
    protocol: u8,
    range: Option<(u16, u16)>,
    pairs: Pairs,
}

pub(super) fn build(
    matrix: &Matrix,
    deployed: &BTreeSet<SystemIndex>,
    classes: &Classes,
    first_named: u32,
    host: &HostAddresses,
) -> Result<Rules, CompileError> {
    let places = Places::of(classes, host);
    let (jobs, members) = jobs(matrix, deployed, &places);
    let ranges = jobs
        .iter()
        .filter_map(|job| job.range.map(|(first, last)| (job.protocol, first, last)))
        .collect();
    let mut ports = PortClasses::build(&ranges)?;
    let mut lines = lines(matrix, &jobs, &members, &mut ports)?;
    drop(jobs);
    lines.sort_unstable();
    lines.dedup();

    let mut merger = Merger::default();
    for kind in lines.chunk_by(|a, b| a.kind() == b.kind()) {
        merger
            .merge(kind)
            .map_err(|(member, rules)| CompileError::TooManyRules {
                service: matrix.service_id(members[member as usize]),
                rules,
                limit: MAX_RULES,
            })?;
    }
    let mut sets: Vec<(RuleSetIndex, Box<[u32]>)> = merger
        .sets
        .into_iter()
        .map(|(set, index)| (index, set))
        .collect();
    sets.sort_unstable_by_key(|(index, _)| *index);
    let alike = alike(classes, first_named);
    let classes: Vec<u32> = classes.numbered().map(|(class, _)| class).collect();
    let rules = RuleTable::new(&merger.rules, &classes, &alike, ports.count()).map_err(|wide| {
        CompileError::TooManyClasses {
            limit: wide.classes,
        }
    })?;
    Ok(Rules {
        port_classes: ports.of,
        rules,
        sets: sets
            .iter()
            .map(|(_, set)| set.iter().map(|member| members[*member as usize]))
            .collect(),
    })
}

/// For each class the one with the same rules: that with all that its addresses are but a directed broadcast, of which no
/// rule knows. From `first_named` on rules may depend on a name, so none of those is taken.
fn alike(classes: &Classes, first_named: u32) -> Vec<u32> {
    let known: Map<&[Tag], u32> = (0..first_named)
        .zip(&classes.tags)
        .map(|(class, tags)| (tags.as_slice(), class))
        .collect();
    (0..)
        .zip(&classes.tags)
        .map(|(class, tags)| {
            if !tags.contains(&Tag::DirectedBroadcast) {
                return class;
            }
            let but: Vec<Tag> = tags
                .iter()
                .copied()
                .filter(|tag| *tag != Tag::DirectedBroadcast)
                .collect();
            known.get(but.as_slice()).copied().unwrap_or(class)
        })
        .collect()
}

/// What every service of the deployed systems makes, and which service each member number is.
fn jobs(
    matrix: &Matrix,
    deployed: &BTreeSet<SystemIndex>,
    places: &Places<'_>,
) -> (Vec<Job>, Vec<ServiceKey>) {
    let mut jobs = Vec::new();
    let mut members = Vec::new();
    for &system in deployed {
        for (requirement, row) in matrix.system(system).indexed_requirements() {
            for (service, value) in row.indexed_services() {
                let member = ServiceIndex::from_position(members.len()).0;
                members.push(ServiceKey {
                    system,
                    requirement,
                    service,
                });
                let covered = coverage(value);
                for (from, to) in row.initiations() {
                    for (protocol, range, error) in &covered {
                        let pairs = places.pairs(system, from, to, value.protocol());
                        let back = error.then(|| pairs.reversed());
                        jobs.extend(std::iter::once(pairs).chain(back).filter_map(|pairs| {
                            (pairs.len() > 0).then_some(Job {
                                member,
                                protocol: *protocol,
                                range: *range,
                                pairs,
                            })
                        }));
                    }
                }
            }
        }
    }
    (jobs, members)
}

/// A rule and one of its members, packed so that sorting groups what belongs together:
/// protocol, port class, from, to, member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Line(u128);

impl Line {
    fn new(rule: Rule, member: u32) -> Self {
        Self(
            u128::from(rule.protocol) << 112
                | u128::from(rule.port_class) << 96
                | u128::from(rule.from) << 64
                | u128::from(rule.to) << 32
                | u128::from(member),
        )
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "each field is as wide as what was packed into it"
    )]
    fn rule(self) -> Rule {
        Rule {
            protocol: (self.0 >> 112) as u8,
            port_class: (self.0 >> 96) as u16,
            from: (self.0 >> 64) as u32,
            to: (self.0 >> 32) as u32,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
    fn member(self) -> u32 {
        self.0 as u32
    }

    /// Protocol and port class.
    fn kind(self) -> u128 {
        self.0 >> 96
    }

    /// Protocol, port class and both ends.
    fn key(self) -> u128 {
        self.0 >> 32
    }
}

fn lines(
    matrix: &Matrix,
    jobs: &[Job],
    members: &[ServiceKey],
    ports: &mut PortClasses,
) -> Result<Vec<Line>, CompileError> {
    let mut lines = Vec::with_capacity(jobs.len());
    let mut largest = (0_usize, 0_u32);
    for job in jobs {
        let port_classes = match job.range {
            Some((first, last)) => ports.in_range(first, last),
            None => &[0],
        };
        let count = job.pairs.len().saturating_mul(port_classes.len());
        largest = largest.max((count, job.member));
        if lines.len().saturating_add(count) > MAX_RULES {
            return Err(CompileError::TooManyRules {
                service: matrix.service_id(members[largest.1 as usize]),
                rules: largest.0,
                limit: MAX_RULES,
            });
        }
        for &port_class in port_classes {
            job.pairs.for_each(|from, to| {
                let rule = Rule {
                    from,
                    to,
                    port_class,
                    protocol: job.protocol,
                };
                lines.push(Line::new(rule, job.member));
            });
        }
    }
    Ok(lines)
}

#[derive(Default)]
struct Merger {
    rules: Vec<(Rule, RuleSetIndex)>,
    sets: Map<Box<[u32]>, RuleSetIndex>,
    scratch: Vec<u32>,
}

impl Merger {
    /// Adds the rules of one protocol and port class, given as sorted lines; in error the member to blame and its
    /// rules: what reaches any address meets what any address reaches.
    fn merge(&mut self, lines: &[Line]) -> Result<(), (u32, usize)> {
        let rules: Vec<(Rule, &[Line])> = lines
            .chunk_by(|a, b| a.key() == b.key())
            .filter_map(|lines| Some((lines.first()?.rule(), lines)))
            .collect();
        let mut to_any: Map<u32, &[Line]> = Map::default();
        let mut from_any: Map<u32, &[Line]> = Map::default();
        let mut both_any: &[Line] = &[];
        let mut any_ends: (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        for (rule, lines) in &rules {
            match (rule.from, rule.to) {
                (ANY_CLASS, ANY_CLASS) => both_any = lines,
                (ANY_CLASS, to) => {
                    from_any.insert(to, lines);
                    any_ends.1.push(to);
                }
                (from, ANY_CLASS) => {
                    to_any.insert(from, lines);
                    any_ends.0.push(from);
                }
                _ => {}
            }
        }
        if to_any.is_empty() && from_any.is_empty() && both_any.is_empty() {
            for (rule, lines) in rules {
                self.add(rule, [lines]);
            }
            return Ok(());
        }
        // Empty for ANY_CLASS itself, which is no key of these maps.
        let part = |map: &Map<u32, _>, class| map.get(&class).copied().unwrap_or(&[][..]);
        for (rule, lines) in &rules {
            self.add(
                *rule,
                [
                    lines,
                    part(&to_any, rule.from),
                    part(&from_any, rule.to),
                    both_any,
                ],
            );
        }
        // The look-up of (from, any) would hide (any, to), so where both exist an exact rule holds their sum.
        let combined = to_any.len().saturating_mul(from_any.len());
        if self.rules.len().saturating_add(combined) > MAX_RULES {
            let member = to_any
                .values()
                .find_map(|lines| lines.first())
                .map_or(0, |line| line.member());
            return Err((member, combined));
        }
        let exact: HashSet<(u32, u32), foldhash::fast::RandomState> =
            rules.iter().map(|(rule, _)| (rule.from, rule.to)).collect();
        let Some((like, _)) = rules.first() else {
            return Ok(());
        };
        for &from in &any_ends.0 {
            for &to in &any_ends.1 {
                if !exact.contains(&(from, to)) {
                    let rule = Rule { from, to, ..*like };
                    self.add(rule, [part(&to_any, from), part(&from_any, to), both_any]);
                }
            }
        }
        Ok(())
    }

    fn add<const N: usize>(&mut self, rule: Rule, parts: [&[Line]; N]) {
        self.scratch.clear();
        self.scratch
            .extend(parts.iter().copied().flatten().map(|line| line.member()));
        if N > 1 {
            self.scratch.sort_unstable();
            self.scratch.dedup();
        }
        let set = match self.sets.get(self.scratch.as_slice()) {
            Some(set) => *set,
            None => {
                // As many sets as rules at most, and these are counted.
                let set = RuleSetIndex(ServiceIndex::from_position(self.sets.len()).0);
                self.sets.insert(self.scratch.as_slice().into(), set);
                set
            }
        };
        self.rules.push((rule, set));
    }
}
