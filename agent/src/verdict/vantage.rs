//! What a vantage could have seen of a requirement, so that silence is only told where it means something.

use std::collections::{HashMap, HashSet};

use flowproof_common::protocol;
use ipnet::IpNet;

use super::requirement::{Blind, Resolution, Vantage};
use crate::matrix::compiled::{BoundRole, Compiled};
use crate::matrix::{Binding, BuiltInRole, Protocol, Requirement, RoleRef, Service, SystemIndex};

/// Which roles have addresses, and which of these are where packets are captured.
#[derive(Clone, Debug)]
pub struct Sightline {
    bound: HashSet<BoundRole>,
    /// Roles that are bound by names alone.
    named: HashMap<BoundRole, Resolution>,
    /// Nothing if the site does not say what is seen.
    seen: Option<HashSet<BoundRole>>,
    /// Roles that are nothing but multicast groups.
    groups: HashSet<BoundRole>,
    own_host: bool,
    lossy: Losses,
    /// Roles that a name or pattern is bound to.
    has_names: HashSet<BoundRole>,
}

/// What may have been missed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Losses {
    /// Packets or events.
    pub packets: bool,
    /// Names of flows, which are evidence for rows that need names and for no others.
    pub names: bool,
}

/// How much was missed since the counters began.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LossTotals {
    /// Packets or events.
    pub packets: u64,
    /// Names of flows.
    pub names: u64,
}

impl LossTotals {
    /// Stages of loss that cost names and nothing else.
    const OF_NAMES: [&'static str; 4] = ["name", "name_head", "dns", "payload_ring"];
    /// Stages of loss that cost no evidence: a flow that found no room among the verified is still known, and so is one whose
    /// own numbers are too low.
    const OF_NO_EVIDENCE: [&'static str; 2] = ["promotion", "flow_counters"];

    /// From what was lost, by stage.
    #[must_use]
    pub fn of(stages: &[(&'static str, u64)]) -> Self {
        let mut totals = Self::default();
        for (stage, count) in stages {
            let total = if Self::OF_NAMES.contains(stage) {
                &mut totals.names
            } else if Self::OF_NO_EVIDENCE.contains(stage) {
                continue;
            } else {
                &mut totals.packets
            };
            *total = total.saturating_add(*count);
        }
        totals
    }
}

impl Losses {
    /// From what was lost, by stage; see [`LossTotals::of`].
    #[must_use]
    pub fn of(stages: &[(&'static str, u64)]) -> Self {
        let totals = LossTotals::of(stages);
        Self {
            packets: totals.packets > 0,
            names: totals.names > 0,
        }
    }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

impl Sightline {
    /// From the bindings of `compiled`, what resolvers said of its names, by their numbers, and what the site observes.
    /// `own_host` says that the host's own loopback
    /// interface is captured, `lossy` that packets may have been missed.
    #[must_use]
    pub fn new(
        compiled: &Compiled,
        names: &[Resolution],
        observe: &[IpNet],
        own_host: bool,
        lossy: Losses,
    ) -> Self {
        let roles_with = |wanted: &dyn Fn(&IpNet) -> bool| {
            compiled
                .bindings
                .iter()
                .filter(|(_, bindings)| {
                    bindings.iter().any(|binding| match binding {
                        Binding::Prefix(prefix) => wanted(prefix),
                        Binding::Name(_) | Binding::Tag(_) => false,
                    })
                })
                .map(|(role, _)| *role)
                .collect()
        };
        let groups = compiled
            .bindings
            .iter()
            .filter(|(_, bindings)| !bindings.is_empty() && bindings.iter().all(is_group))
            .map(|(role, _)| *role)
            .collect();
        let bound: HashSet<BoundRole> = roles_with(&|_| true);
        let mut named: HashMap<BoundRole, Resolution> = HashMap::new();
        for (number, name) in compiled.names.iter().enumerate() {
            let resolution = names.get(number).copied().unwrap_or(Resolution::Never);
            for role in name.roles.iter().filter(|role| !bound.contains(role)) {
                let best = named.entry(*role).or_insert(resolution);
                *best = resolution.max(*best);
            }
        }
        let has_names = compiled
            .names
            .iter()
            .flat_map(|name| name.roles.iter().copied())
            .collect();
        Self {
            has_names,
            groups,
            bound,
            named,
            seen: (!observe.is_empty())
                .then(|| roles_with(&|prefix| observe.iter().any(|seen| overlap(seen, prefix)))),
            own_host,
            lossy,
        }
    }

    /// What could have been seen of the flows of a requirement's service.
    #[must_use]
    pub fn of(&self, system: SystemIndex, requirement: &Requirement, service: Service) -> Vantage {
        match self.of_requirement(system, requirement) {
            Vantage::Clear | Vantage::Lossy | Vantage::Unresolved(_) if is_link_upkeep(service) => {
                Vantage::Blind(Blind::LinkUpkeep)
            }
            vantage @ (Vantage::Clear
            | Vantage::Lossy
            | Vantage::Unresolved(_)
            | Vantage::Blind(_)) => vantage,
        }
    }

    /// Whether no flow of a requirement's service can be answered, so that sending it without an error is all that can
    /// be asked: VRRP, and what only goes to broadcast addresses or groups.
    #[must_use]
    pub fn is_unanswerable(
        &self,
        system: SystemIndex,
        requirement: &Requirement,
        service: Service,
    ) -> bool {
        let to_many = |role| {
            role == RoleRef::BuiltIn(BuiltInRole::Broadcast)
                || self.groups.contains(&BoundRole { system, role })
        };
        service.protocol() == Protocol::Vrrp || requirement.initiations().all(|(_, to)| to_many(to))
    }

    /// Whether names are evidence for a requirement, so that losing names can hide its flows.
    #[must_use]
    pub fn needs_names(&self, system: SystemIndex, requirement: &Requirement) -> bool {
        [requirement.from, requirement.to]
            .into_iter()
            .any(|role| self.has_names.contains(&BoundRole { system, role }))
    }

    /// What could have been seen of the flows of a requirement, whatever its services.
    pub(super) fn of_requirement(&self, system: SystemIndex, requirement: &Requirement) -> Vantage {
        let ends = [requirement.from, requirement.to];
        let mut elsewhere = self.seen.is_some();
        let by_name = self.needs_names(system, requirement);
        let mut unresolved = Resolution::Resolved;
        let mut problem = requirement.services.is_empty().then_some(Blind::NoServices);
        for role in ends {
            let bound = BoundRole { system, role };
            let here = match role {
                RoleRef::BuiltIn(BuiltInRole::Unknown) => {
                    problem.get_or_insert(Blind::UnknownRole);
                    false
                }
                RoleRef::BuiltIn(BuiltInRole::Localhost) => {
                    if !self.own_host {
                        problem.get_or_insert(Blind::OtherHost);
                    }
                    true
                }
                RoleRef::BuiltIn(BuiltInRole::Any | BuiltInRole::Broadcast) => false,
                RoleRef::Declared(_) => {
                    if let Some(resolution) = self.named.get(&bound) {
                        unresolved = unresolved.min(*resolution);
                    } else if !self.bound.contains(&bound) {
                        problem.get_or_insert(Blind::NotBound);
                    }
                    self.seen.as_ref().is_some_and(|seen| seen.contains(&bound))
                }
            };
            elsewhere &= !here;
        }
        // Between "any" and "broadcast" no address says where it is.
        if elsewhere && ends.iter().any(|end| matches!(end, RoleRef::Declared(_))) {
            problem.get_or_insert(Blind::Elsewhere);
        }
        match problem {
            Some(why) => Vantage::Blind(why),
            None if self.lossy.packets || (self.lossy.names && by_name) => Vantage::Lossy,
            None if unresolved != Resolution::Resolved => Vantage::Unresolved(unresolved),
            None => Vantage::Clear,
        }
    }
}

fn is_group(binding: &Binding) -> bool {
    match binding {
        // 224.0.0.0/4 (RFC 5771) and ff00::/8 (RFC 4291, section 2.7), or parts of them.
        Binding::Prefix(IpNet::V4(net)) => net.addr().is_multicast() && net.prefix_len() >= 4,
        Binding::Prefix(IpNet::V6(net)) => net.addr().is_multicast() && net.prefix_len() >= 8,
        Binding::Name(_) | Binding::Tag(_) => false,
    }
}

/// Whether the service is nothing but upkeep of the link, which is never judged.
fn is_link_upkeep(service: Service) -> bool {
    let number = service.protocol().number();
    match (service.protocol(), service.first().zip(service.last())) {
        (Protocol::Icmp | Protocol::Icmpv6, Some((first, last))) => (first..=last).all(|kind| {
            u8::try_from(kind).is_ok_and(|kind| protocol::is_link_upkeep(number, kind))
        }),
        // Without a type the two cover echo, and no port makes anything upkeep.
        (Protocol::Icmp | Protocol::Icmpv6, None) => false,
        (Protocol::Tcp | Protocol::Udp | Protocol::Vrrp | Protocol::Other(_), _) => {
            protocol::is_link_upkeep(number, 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::matrix::Matrix;
    use crate::matrix::compile::HostAddresses;
    use crate::site::Site;
    use crate::site::tags::TagBook;

    const MATRIX: &str = "
system: s
title: S
roles:
  web:
  db:
  cloud: {names: ['*.example.org']}
requirements:
  - {id: bound, from: web, to: db, services: [tcp/1]}
  - {id: named, from: web, to: cloud, services: [tcp/1]}
  - {id: local, from: web, to: localhost, services: [tcp/1]}
  - {id: nobody, from: web, to: unknown, services: [tcp/1]}
  - {id: portless, from: web, to: db, services: []}
  - {id: call, from: web, to: broadcast, services: [udp/1]}
  - {id: member, from: web, to: any, services: [igmp]}
  - {id: neighbour, from: web, to: any, services: [icmpv6/130-137]}
  - {id: more, from: web, to: any, services: [icmpv6/128-137]}
";

    fn vantages(site: &str, lossy: bool) -> Vec<Vantage> {
        let reading = Matrix::read_text("m.yaml", MATRIX);
        let site = Site::read_text("s.yaml", site, &reading);
        let site = site.site.expect("a valid site");
        let bindings = site.role_bindings(&reading.matrix, &TagBook::default());
        let matrix = Arc::new(reading.matrix);
        let compiled =
            Compiled::compile(Arc::clone(&matrix), bindings, &HostAddresses::Unknown).unwrap();
        let losses = Losses {
            packets: lossy,
            names: false,
        };
        let sightline = Sightline::new(&compiled, &[], &site.observe, false, losses);
        let (system, content) = matrix.indexed_systems().next().unwrap();
        content
            .requirements
            .iter()
            .map(|requirement| {
                let service = requirement.services.first().copied();
                // A requirement without services has none to ask about; its state takes no service either.
                service.map_or_else(
                    || sightline.of_requirement(system, requirement),
                    |service| sightline.of(system, requirement, service),
                )
            })
            .collect()
    }

    const SITE: &str = "site: s\nsystems: [s]\nroles: {s/web: [10.0.0.0/24], s/db: [10.0.1.5]}\n";

    #[test]
    fn what_cannot_be_seen_is_said() {
        use Vantage::{Blind as B, Clear, Lossy, Unresolved};
        let blind = [
            B(Blind::OtherHost),
            B(Blind::UnknownRole),
            B(Blind::NoServices),
        ];
        let never = Unresolved(Resolution::Never);
        for (lossy, open, named) in [(false, Clear, never), (true, Lossy, Lossy)] {
            let mut expected = vec![open, named];
            expected.extend(blind);
            expected.push(open);
            expected.extend([B(Blind::LinkUpkeep), B(Blind::LinkUpkeep), open]);
            assert_eq!(vantages(SITE, lossy), expected);
        }
    }

    #[test]
    fn a_site_may_say_what_is_captured() {
        let first = |observe: &str| vantages(&format!("{SITE}observe: [{observe}]\n"), false)[0];
        assert_eq!(first("10.0.1.0/24"), Vantage::Clear);
        assert_eq!(first("10.0.0.7"), Vantage::Clear);
        assert_eq!(first("192.168.0.0/16"), Vantage::Blind(Blind::Elsewhere));
    }

    #[test]
    fn what_goes_to_many_is_unanswerable() {
        let text = "
system: s
title: S
roles:
  web: {names: [10.0.0.1]}
  group: {names: [224.0.0.251, 'ff02::fb', 'ff02::/16']}
  mixed: {names: [224.0.0.251, 10.0.0.2]}
  named: {names: [example.org]}
  none:
requirements:
  - {id: host, from: group, to: web, services: [udp/1]}
  - {id: group, from: web, to: group, services: [udp/1]}
  - {id: both, from: web, to: group, services: [udp/1], direction: both}
  - {id: mixed, from: web, to: mixed, services: [udp/1]}
  - {id: named, from: web, to: named, services: [udp/1]}
  - {id: none, from: web, to: none, services: [udp/1]}
  - {id: call, from: web, to: broadcast, services: [udp/1]}
  - {id: vrrp, from: web, to: web, services: [vrrp]}
";
        let reading = Matrix::read_text("m.yaml", text);
        let site = Site::read_text("s.yaml", "site: s\nsystems: [s]\n", &reading);
        let bindings = site
            .site
            .expect("valid")
            .role_bindings(&reading.matrix, &TagBook::default());
        let matrix = Arc::new(reading.matrix);
        let host = HostAddresses::Unknown;
        let compiled = Compiled::compile(Arc::clone(&matrix), bindings, &host).unwrap();
        let sightline = Sightline::new(&compiled, &[], &[], false, Losses::default());
        let (system, content) = matrix.indexed_systems().next().unwrap();
        let unanswerable: Vec<&str> = content
            .requirements
            .iter()
            .filter(|row| sightline.is_unanswerable(system, row, row.services[0]))
            .map(|row| row.id.as_str())
            .collect();
        assert_eq!(unanswerable, ["group", "call", "vrrp"]);
    }
}
