//! Which row is probed from this host, whom it asks for what, and why others are not probed. Nothing is sent and nothing
//! resolved here, so that a plan can be shown before anything happens.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::Probe;
use super::bounds::{Bounds, Refusal};
use super::question::Question;
use crate::matrix::compiled::BoundRole;
use crate::matrix::installed::Installed;
use crate::matrix::{
    Binding, BuiltInRole, Matrix, Necessity, Protocol, Requirement, RequirementIndex, RoleRef,
    Service, SystemIndex,
};
use crate::names::answer::Name;
use crate::verdict::requirement::{Blind, Resolution};

/// Most probes of one run: half an hour at the default rate, and beyond what anybody reads.
pub const MOST_PROBES: usize = 20_000;
/// Addresses of a name that are tried, of each IP version: a name of a cloud may have dozens that are all alike.
pub const MOST_ADDRESSES: usize = 2;

/// The host that probes.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The one of them that all probes come from, if the operator names it.
    pub from: Option<IpAddr>,
    /// The role that it is to play, if the operator names it.
    pub role: Option<BoundRole>,
}

/// Which rows are looked at.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// These and no others, whatever their state; all if there are none.
    pub named: BTreeSet<String>,
    /// Rows that are verified already, by `system/requirement`.
    pub verified: BTreeSet<String>,
}

/// What is going to be probed.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In the order of the files.
    pub rows: Vec<PlannedRow>,
    /// Rows that were left out because they are verified.
    pub verified: usize,
    /// What may be sent to.
    pub bounds: Bounds,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedRow {
    /// `system/requirement`
    pub id: String,
    /// Whether the product works without it.
    pub required: bool,
    /// In the order of the file.
    pub services: Vec<PlannedService>,
}

/// A service of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedService {
    /// Which.
    pub service: Service,
    /// What to try; names stand for addresses to come.
    pub attempts: Vec<Attempt>,
    /// What is not tried, and why.
    pub skipped: Vec<Skipped>,
}

/// An attempt at one port of one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The responder's role.
    pub role: BoundRole,
    /// The service that it is an attempt at.
    pub service: Service,
    /// The addresses that it may come from, at most one of each IP version.
    pub sources: Vec<IpAddr>,
    /// Where it goes.
    pub target: Target,
    /// The port; none where the protocol has none.
    pub port: Option<u16>,
    /// What is asked.
    pub question: Question,
}

/// Where an attempt goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// An address that is bound.
    Address(IpAddr),
    /// A name that is bound.
    Name(Name),
}

/// Something that is not tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// What it is, if it is not the whole service.
    pub target: Option<String>,
    /// Why, in the terms of states.
    pub why: Why,
    /// Why, in words.
    pub detail: String,
}

/// Why something is not tried, in the terms of states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It can't be probed.
    Blind(Blind),
    /// Its name has no address.
    Name(Resolution),
}

/// What resolvers said of a name.
pub type Resolved = Result<Vec<IpAddr>, String>;

/// Makes the plan.
#[must_use]
pub fn plan(installed: &Installed, end: &End, wanted: &Wanted) -> Plan {
    let compiled = &installed.compiled;
    let planner = Planner {
        matrix: &compiled.matrix,
        bounds: Bounds::of(compiled),
        sources: Sources::new(installed, end),
    };
    let mut rows = Vec::new();
    let mut verified = 0;
    for system in compiled.deployed() {
        for (index, requirement) in compiled.matrix.system(system).indexed_requirements() {
            let id = compiled.matrix.requirement_id(system, index);
            if wanted.named.is_empty() && wanted.verified.contains(&id) {
                verified += 1;
            } else if wanted.named.is_empty() || wanted.named.contains(&id) {
                rows.push(planner.row(system, index, requirement));
            }
        }
    }
    Plan {
        rows,
        verified,
        bounds: planner.bounds,
    }
}

impl Plan {
    /// The names that have to be resolved.
    #[must_use]
    pub fn names(&self) -> BTreeSet<Name> {
        self.attempts()
            .filter_map(|attempt| match &attempt.target {
                Target::Name(name) => Some(name.clone()),
                Target::Address(_) => None,
            })
            .collect()
    }

    /// All attempts.
    pub fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.rows
            .iter()
            .flat_map(|row| &row.services)
            .flat_map(|service| &service.attempts)
    }

    /// Puts addresses in the place of names: the probes to make. What a name does not lead to is added to what is
    /// skipped.
    pub fn settle(&mut self, resolved: &HashMap<Name, Resolved>) -> Vec<Probe> {
        let mut probes = Vec::new();
        for (row, planned) in self.rows.iter_mut().enumerate() {
            for (service, planned) in planned.services.iter_mut().enumerate() {
                // An address that a name leads to is tried with the name, which is more of what a client would do.
                let mut reached = BTreeSet::new();
                let (names, addresses): (Vec<_>, Vec<_>) = planned
                    .attempts
                    .iter()
                    .partition(|attempt| matches!(attempt.target, Target::Name(_)));
                for attempt in names.into_iter().chain(addresses) {
                    let found = targets(attempt, resolved, &self.bounds);
                    for skipped in found.skipped {
                        if !planned.skipped.contains(&skipped) {
                            planned.skipped.push(skipped);
                        }
                    }
                    for (source, target) in found.pairs {
                        if !reached.insert((target.address(), attempt.port)) {
                            continue;
                        }
                        probes.push(Probe {
                            row,
                            service,
                            source,
                            target,
                            name: match &attempt.target {
                                Target::Name(name) => Some(name.clone()),
                                Target::Address(_) => None,
                            },
                            port: attempt.port,
                            question: attempt.question,
                        });
                    }
                }
            }
        }
        probes
    }
}

/// Where an attempt leads.
#[derive(Default)]
struct Found {
    pairs: Vec<(IpAddr, super::bounds::Allowed)>,
    skipped: Vec<Skipped>,
}

fn targets(attempt: &Attempt, resolved: &HashMap<Name, Resolved>, bounds: &Bounds) -> Found {
    let mut found = Found::default();
    let skipped = |detail: String, why| Skipped {
        target: Some(attempt.target.to_string()),
        why,
        detail,
    };
    let (addresses, name) = match &attempt.target {
        Target::Address(address) => (std::slice::from_ref(address), None),
        Target::Name(name) => match resolved.get(name) {
            Some(Ok(addresses)) => (addresses.as_slice(), Some(&**name)),
            Some(Err(reason)) => {
                let why = Why::Name(Resolution::Failing);
                found.skipped.push(skipped(reason.clone(), why));
                return found;
            }
            // Interrupted before it was asked for: nothing was tried, and nothing stands in the way.
            None => return found,
        },
    };
    let mut taken = [0, 0];
    for address in addresses {
        let count = &mut taken[usize::from(address.is_ipv6())];
        let Some(source) = source_for(&attempt.sources, *address) else {
            found
                .skipped
                .push(skipped(no_source(*address), Why::Blind(Blind::NotFromHere)));
            continue;
        };
        if !speaks(attempt.service, *address) {
            continue;
        }
        match bounds.check(attempt.role, *address, name) {
            Ok(_) if *count == MOST_ADDRESSES && name.is_some() => found.skipped.push(skipped(
                format!("of its addresses, {MOST_ADDRESSES} of each IP version are tried"),
                Why::Blind(Blind::NoExactAddress),
            )),
            Ok(target) => {
                *count += 1;
                found.pairs.push((source, target));
            }
            Err(refusal) => found.skipped.push(skipped(
                format!("resolves to {address}: {refusal}"),
                Why::Blind(Blind::NoExactAddress),
            )),
        }
    }
    found
}

fn source_for(sources: &[IpAddr], target: IpAddr) -> Option<IpAddr> {
    sources
        .iter()
        .copied()
        .find(|source| source.is_ipv4() == target.is_ipv4())
}

fn no_source(target: IpAddr) -> String {
    let version = if target.is_ipv4() { "IPv4" } else { "IPv6" };
    format!("no {version} address of this host has the initiator's role")
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Name(name) => name.fmt(formatter),
        }
    }
}

/// The addresses of this host that a role's flows may come from.
struct Sources<'a> {
    installed: &'a Installed,
    /// Usable ones; IPv4 and IPv6.
    own: Vec<IpAddr>,
    role: Option<BoundRole>,
    bound: BTreeSet<BoundRole>,
}

impl<'a> Sources<'a> {
    fn new(installed: &'a Installed, end: &End) -> Self {
        let usable = |address: &IpAddr| !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        let own = match end.from {
            Some(from) => vec![from.to_canonical()],
            None => end.addresses.iter().copied().filter(usable).collect(),
        };
        let bound = installed
            .compiled
            .bindings
            .iter()
            .filter(|(_, bindings)| !bindings.is_empty())
            .map(|(role, _)| *role)
            .collect();
        Self {
            installed,
            own,
            role: end.role,
            bound,
        }
    }

    /// At most one of each IP version; why there is none.
    fn of(&self, role: BoundRole) -> Result<Vec<IpAddr>, Blind> {
        let plays: Box<dyn Fn(&IpAddr) -> bool + '_> = match (self.role, role.role) {
            // The operator says what this host is.
            (Some(played), _) if played == role => Box::new(|_| true),
            (Some(_), _) => return Err(Blind::NotFromHere),
            (None, RoleRef::BuiltIn(BuiltInRole::Any)) => Box::new(|_| true),
            (None, RoleRef::BuiltIn(BuiltInRole::Unknown)) => return Err(Blind::UnknownRole),
            (None, RoleRef::BuiltIn(BuiltInRole::Localhost | BuiltInRole::Broadcast)) => {
                return Err(Blind::NotFromHere);
            }
            (None, RoleRef::Declared(_)) if !self.bound.contains(&role) => {
                return Err(Blind::NotBound);
            }
            (None, RoleRef::Declared(_)) => {
                Box::new(move |address| self.installed.roles_of(&(*address).into()).contains(&role))
            }
        };
        let mut sources: Vec<IpAddr> = Vec::new();
        for address in self.own.iter().filter(|address| plays(address)) {
            if source_for(&sources, *address).is_none() {
                sources.push(*address);
            }
        }
        if sources.is_empty() {
            return Err(Blind::NotFromHere);
        }
        Ok(sources)
    }

    fn has(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }
}

struct Planner<'a> {
    matrix: &'a Matrix,
    bounds: Bounds,
    sources: Sources<'a>,
}

impl Planner<'_> {
    fn row(
        &self,
        system: SystemIndex,
        index: RequirementIndex,
        requirement: &Requirement,
    ) -> PlannedRow {
        let mut from_here = Vec::new();
        let mut blind = None;
        for (initiator, responder) in requirement.initiations() {
            let [initiator, responder] =
                [initiator, responder].map(|role| BoundRole { system, role });
            match self.sources.of(initiator) {
                Ok(sources) => from_here.push((sources, initiator, responder)),
                Err(why) => {
                    blind.get_or_insert((why, initiator));
                }
            }
        }
        let services = requirement
            .services
            .iter()
            .map(|service| {
                let mut planned = PlannedService {
                    service: *service,
                    attempts: Vec::new(),
                    skipped: Vec::new(),
                };
                for (sources, initiator, responder) in &from_here {
                    let same = initiator == responder;
                    self.attempts(&mut planned, requirement, sources, *responder, same);
                }
                if let (true, Some((why, initiator))) = (from_here.is_empty(), blind) {
                    planned.skipped.push(Skipped {
                        target: None,
                        why: Why::Blind(why),
                        detail: self.not_from_here(why, initiator),
                    });
                }
                planned
            })
            .collect();
        PlannedRow {
            id: self.matrix.requirement_id(system, index),
            required: requirement.necessity == Necessity::Required,
            services,
        }
    }

    fn role_id(&self, role: BoundRole) -> &str {
        self.matrix.system(role.system).role_id(role.role)
    }

    fn not_from_here(&self, why: Blind, initiator: BoundRole) -> String {
        let role = self.role_id(initiator);
        match why {
            Blind::NotBound => format!("`{role}` initiates it and is bound to nothing"),
            Blind::UnknownRole => "the document does not name who initiates it".to_owned(),
            Blind::NotFromHere
            | Blind::NoServices
            | Blind::OtherHost
            | Blind::Elsewhere
            | Blind::LinkUpkeep
            | Blind::NoExactAddress
            | Blind::NoQuestion => {
                format!("`{role}` initiates it, which is no role of this end")
            }
        }
    }

    fn attempts(
        &self,
        planned: &mut PlannedService,
        requirement: &Requirement,
        sources: &[IpAddr],
        responder: BoundRole,
        same_role: bool,
    ) {
        let (targets, mut skipped) = self.targets(responder, planned.service);
        planned.skipped.append(&mut skipped);
        for target in targets {
            let skip = |why, detail: String| Skipped {
                target: Some(target.to_string()),
                why: Why::Blind(why),
                detail,
            };
            if let Target::Address(address) = target {
                if same_role && self.sources.has(address) {
                    let why = Blind::NotFromHere;
                    planned
                        .skipped
                        .push(skip(why, "it is this host".to_owned()));
                    continue;
                }
                if source_for(sources, address).is_none() {
                    let detail = no_source(address);
                    planned.skipped.push(skip(Blind::NotFromHere, detail));
                    continue;
                }
            }
            for port in ports(planned.service) {
                let application = requirement.application.as_deref();
                match Question::of(planned.service.protocol(), port, application) {
                    Ok(question) => planned.attempts.push(Attempt {
                        role: responder,
                        service: planned.service,
                        sources: sources.to_vec(),
                        target: target.clone(),
                        port: planned
                            .service
                            .protocol()
                            .has_ports()
                            .then_some(port)
                            .flatten(),
                        question,
                    }),
                    Err(reason) => {
                        let skipped = skip(Blind::NoQuestion, reason.to_string());
                        if !planned.skipped.contains(&skipped) {
                            planned.skipped.push(skipped);
                        }
                    }
                }
            }
        }
    }

    /// The exact ends of a role that a service can be asked at; the others, and why they are none.
    fn targets(&self, role: BoundRole, service: Service) -> (Vec<Target>, Vec<Skipped>) {
        let no_exact = |target: Option<String>, detail: &str| Skipped {
            target,
            why: Why::Blind(Blind::NoExactAddress),
            detail: detail.to_owned(),
        };
        let built_in = |why, detail: &str| {
            let skipped = Skipped {
                target: None,
                why: Why::Blind(why),
                detail: detail.to_owned(),
            };
            (Vec::new(), vec![skipped])
        };
        match role.role {
            RoleRef::BuiltIn(BuiltInRole::Any) => {
                return built_in(Blind::NoExactAddress, "`any` is every address");
            }
            RoleRef::BuiltIn(BuiltInRole::Broadcast) => {
                return built_in(Blind::NoExactAddress, "a broadcast goes to everybody");
            }
            RoleRef::BuiltIn(BuiltInRole::Localhost) => {
                let detail = "`localhost` never leaves the host, where no network can block it";
                return built_in(Blind::NoExactAddress, detail);
            }
            RoleRef::BuiltIn(BuiltInRole::Unknown) => {
                return built_in(
                    Blind::UnknownRole,
                    "the document does not name who responds",
                );
            }
            RoleRef::Declared(_) => {}
        }
        let mut targets = Vec::new();
        let mut skipped = Vec::new();
        let written = self.bounds.written(role);
        for binding in written {
            let shown = Some(binding.to_string());
            match binding {
                Binding::Name(pattern) if pattern.is_wildcard() => {
                    skipped.push(no_exact(shown, "a wildcard names no host"));
                }
                Binding::Name(pattern) => targets.push(Target::Name(pattern.as_str().into())),
                Binding::Tag(_) => skipped.push(no_exact(shown, "a service tag names no host")),
                Binding::Prefix(net) if net.prefix_len() < net.max_prefix_len() => {
                    skipped.push(no_exact(shown, "a prefix names no host"));
                }
                Binding::Prefix(net) => match self.bounds.check(role, net.addr(), None) {
                    Ok(target) if speaks(service, target.address()) => {
                        targets.push(Target::Address(target.address()));
                    }
                    Ok(_) => skipped.push(Skipped {
                        target: shown,
                        why: Why::Blind(Blind::NoQuestion),
                        detail: "the service is one of the other IP version".to_owned(),
                    }),
                    Err(Refusal::NotBound) => {}
                    Err(refusal) => skipped.push(no_exact(shown, &refusal.to_string())),
                },
            }
        }
        if self.sources.bound.contains(&role) {
            // Tags stand behind all that is written down, and only what they stand for behind them.
            if targets.is_empty() && skipped.is_empty() {
                skipped.push(no_exact(None, "a service tag names no host"));
            }
        } else {
            return built_in(Blind::NotBound, "the responder's role is bound to nothing");
        }
        (targets, skipped)
    }
}

/// Whether a service goes with an address. `icmp` in a pack means ping in both IP versions, unless it has a type.
fn speaks(service: Service, address: IpAddr) -> bool {
    match service.protocol() {
        Protocol::Icmpv6 => address.is_ipv6(),
        Protocol::Icmp if service.first().is_some() => address.is_ipv4(),
        Protocol::Icmp | Protocol::Tcp | Protocol::Udp | Protocol::Vrrp | Protocol::Other(_) => {
            true
        }
    }
}

/// The ports (or ICMP types) of a service that are tried: the first, the middle and the last.
#[must_use]
pub fn ports(service: Service) -> Vec<Option<u16>> {
    let Some((first, last)) = service.first().zip(service.last()) else {
        return vec![None];
    };
    if !service.protocol().has_ports() {
        // Of a range of ICMP types, echo is the one that can be asked.
        let echo = match service.protocol() {
            Protocol::Icmpv6 => 128,
            Protocol::Icmp
            | Protocol::Tcp
            | Protocol::Udp
            | Protocol::Vrrp
            | Protocol::Other(_) => 8,
        };
        return vec![Some(if (first..=last).contains(&echo) {
            echo
        } else {
            first
        })];
    }
    let mut ports = vec![first, first + (last - first) / 2, last];
    ports.dedup();
    ports.into_iter().map(Some).collect()
}

/// How many ports a service has.
#[must_use]
pub fn port_count(service: Service) -> usize {
    match service.first().zip(service.last()) {
        Some((first, last)) if service.protocol().has_ports() => usize::from(last - first) + 1,
        Some(_) | None => 1,
    }
}

#[cfg(test)]
mod tests;
