//! What is to be sent for a pack, and which of its rows each conversation stands for.
//!
//! The plan reads the matrix in its own way, row by row and without any table, so that it can't share a mistake with the
//! daemon's compiler.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};

use super::pack::{Pack, Requirement, Service, protocol, role};
use super::site::{Home, Site};

/// VRRP's groups, RFC 9568, section 5.1.1.2.
const VRRP_GROUPS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18)),
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12)),
];
/// Where the daemon's own HTTP port is asked, over loopback.
const SCRAPED: (u8, u16) = (protocol::TCP, 9871);

/// How a conversation travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Way {
    /// From the host on this side to the other, by sockets.
    Across(usize),
    /// On the agent's own host, by sockets.
    Within,
    /// One frame from the left, to a group or broadcast address.
    Called,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Spec {
    pub(crate) way: Way,
    pub(crate) initiator: IpAddr,
    pub(crate) responder: IpAddr,
    pub(crate) protocol: u8,
    /// The responder's port, the ICMP type, or 0.
    pub(crate) port: u16,
    /// Roles of the initiator.
    pub(crate) from: Vec<String>,
    /// Roles of the responder.
    pub(crate) to: Vec<String>,
}

impl Spec {
    /// Whether both its ends have roles, or it calls a group that has one.
    pub(crate) fn can_be_twisted(&self) -> bool {
        self.way != Way::Within && !self.from.is_empty() && !self.to.is_empty()
    }

    /// What tells it from others on the wire, but for the initiator's port.
    pub(crate) fn key(&self) -> (IpAddr, IpAddr, u8, u16) {
        (self.initiator, self.responder, self.protocol, self.port)
    }
}

/// One service of one requirement.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) requirement: &'a Requirement,
    pub(crate) service: &'a Service,
    /// Positions of the conversations that stand for it.
    pub(crate) specs: Vec<usize>,
    /// The number of the group of rows that share conversations.
    pub(crate) group: usize,
    /// Whether the daemon's own scrapes stand for it too, so that its counts are not the lab's alone.
    pub(crate) noisy: bool,
}

/// All of some packs that are deployed together.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) packs: &'a [&'a Pack],
    pub(crate) site: &'a Site,
    pub(crate) specs: Vec<Spec>,
    pub(crate) rows: Vec<Row<'a>>,
    /// Groups whose rows can be blocked.
    pub(crate) blockable: BTreeSet<usize>,
}

impl<'a> Plan<'a> {
    pub(crate) fn of(packs: &'a [&'a Pack], site: &'a Site) -> Result<Self> {
        let mut specs = BTreeMap::new();
        let mut turn = 0;
        let requirements = || packs.iter().flat_map(|pack| &pack.requirements);
        for requirement in requirements() {
            if requirement.has_unknown_end() {
                continue;
            }
            for service in &requirement.services {
                if service.is_link_upkeep() {
                    continue;
                }
                let before = specs.len();
                for (from, to) in requirement.initiations() {
                    for (protocol, port) in samples(service)? {
                        turn += 1;
                        for spec in conversations(site, from, to, protocol, port, turn % 2) {
                            specs.entry(spec.key()).or_insert(spec);
                        }
                    }
                }
                let known = specs.len() > before
                    || specs
                        .values()
                        .any(|spec| covers(requirement, service, spec));
                if !known {
                    bail!("the lab can't drive {} {}", requirement.id, service.name);
                }
            }
        }
        let specs: Vec<Spec> = specs.into_values().collect();
        let mut rows: Vec<Row<'a>> = requirements()
            .flat_map(|requirement| {
                requirement
                    .services
                    .iter()
                    .map(move |service| (requirement, service))
            })
            .enumerate()
            .map(|(group, (requirement, service))| {
                let stands_for = |(_, spec): &(usize, &Spec)| covers(requirement, service, spec);
                let own: Vec<(usize, &Spec)> =
                    specs.iter().enumerate().filter(stands_for).collect();
                Row {
                    requirement,
                    service,
                    noisy: is_scraped(requirement, service),
                    specs: own.into_iter().map(|(position, _)| position).collect(),
                    group,
                }
            })
            .collect();
        group(&mut rows);
        let all: BTreeSet<usize> = rows.iter().map(|row| row.group).collect();
        let not = rows
            .iter()
            .filter(|row| {
                let mut ways = row.specs.iter().map(|spec| specs[*spec].way == Way::Called);
                let first = ways.next();
                // Where calls and conversations stand for one row, what is seen of the ones hides the others.
                let mixed = ways.any(|called| Some(called) != first);
                mixed || row.noisy || first.is_none()
            })
            .map(|row| row.group)
            .collect();
        Ok(Self {
            packs,
            site,
            specs,
            rows,
            blockable: all.difference(&not).copied().collect(),
        })
    }
}

/// Joins rows that share conversations: what blocks one blocks the other.
fn group(rows: &mut [Row<'_>]) {
    let mut of_spec: BTreeMap<usize, usize> = BTreeMap::new();
    loop {
        let mut changed = false;
        for row in &mut *rows {
            let least = row
                .specs
                .iter()
                .filter_map(|spec| of_spec.get(spec))
                .chain([&row.group])
                .min()
                .copied()
                .unwrap_or(row.group);
            changed |= least != row.group;
            row.group = least;
            for spec in &row.specs {
                changed |= of_spec.insert(*spec, least) != Some(least);
            }
        }
        if !changed {
            return;
        }
    }
}

/// Both ends and the middle of each range.
fn samples(service: &Service) -> Result<Vec<(u8, u16)>> {
    let mut samples = Vec::new();
    for (protocol, first, last) in &service.ranges {
        match *protocol {
            protocol::TCP | protocol::UDP => {
                samples
                    .extend([*first, first.midpoint(*last), *last].map(|port| (*protocol, port)));
            }
            protocol::VRRP => samples.push((*protocol, 0)),
            protocol::ICMP if (first, last) == (&8, &8) => samples.push((*protocol, 8)),
            protocol::ICMPV6 if (first, last) == (&128, &128) => samples.push((*protocol, 128)),
            _ => bail!("the lab has no traffic for {}", service.name),
        }
    }
    samples.dedup();
    Ok(samples)
}

/// Every conversation between two roles on one port, in both IP versions where both have them. `side` initiates, if the
/// roles live there.
fn conversations(
    site: &Site,
    from: &str,
    to: &str,
    protocol: u8,
    port: u16,
    side: usize,
) -> Vec<Spec> {
    let spec = |way, initiator, responder| {
        let roles = |address: IpAddr| {
            let mut roles = site.roles(address);
            if address.is_loopback() {
                roles.push(role::LOCALHOST.to_owned());
            }
            if address == IpAddr::V4(Ipv4Addr::BROADCAST) || site.is_broadcast(address) {
                roles.push(role::BROADCAST.to_owned());
            }
            roles
        };
        Spec {
            way,
            initiator,
            responder,
            protocol,
            port,
            from: roles(initiator),
            to: roles(responder),
        }
    };
    let fits = |address: &IpAddr| match protocol {
        protocol::ICMP => address.is_ipv4(),
        protocol::ICMPV6 => address.is_ipv6(),
        _ => true,
    };
    if from == role::LOCALHOST || to == role::LOCALHOST {
        let other = if from == role::LOCALHOST { to } else { from };
        let loopback = [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        let own = site.home(other).map_or(&[][..], |home| &home.own);
        return loopback
            .iter()
            .chain(own)
            .filter(|address| fits(address))
            .map(|address| spec(Way::Within, *address, *address))
            .collect();
    }
    let nowhere = Home::default();
    let initiators = site.home(from).unwrap_or(&nowhere);
    let responders = site.home(to).unwrap_or(&nowhere);
    let mut specs = Vec::new();
    let mut called = Vec::new();
    if to == role::BROADCAST {
        called.push(IpAddr::V4(Ipv4Addr::BROADCAST));
        called.extend(initiators.broadcast.map(IpAddr::V4));
    }
    if protocol == protocol::VRRP {
        called.extend(VRRP_GROUPS);
    }
    called.extend(&responders.groups);
    for target in called {
        if let Some(source) = initiators.address(0, target.is_ipv6())
            && fits(&target)
        {
            specs.push(spec(Way::Called, source, target));
        }
    }
    if protocol == protocol::VRRP {
        return specs;
    }
    for version6 in [false, true] {
        let mut sides = [side, 1 - side].into_iter();
        let found = sides.find_map(|side| {
            let source = initiators.address(side, version6)?;
            let target = responders.address(1 - side, version6)?;
            let usable = fits(&source) && !source.is_unspecified() && !target.is_unspecified();
            usable.then_some((side, source, target))
        });
        if let Some((side, source, target)) = found {
            specs.push(spec(Way::Across(side), source, target));
        }
    }
    specs
}

/// The conversation between two roles on one port and in one IP version that crosses the agent, if there is one.
pub(crate) fn across(
    site: &Site,
    from: &str,
    to: &str,
    protocol: u8,
    port: u16,
    turn: usize,
) -> Option<Spec> {
    let mut found = conversations(site, from, to, protocol, port, turn % 2);
    found.retain(|spec| matches!(spec.way, Way::Across(_)));
    let version6 = turn / 2 % 2 == 1;
    let wanted = found
        .iter()
        .position(|spec| spec.initiator.is_ipv6() == version6)
        .unwrap_or(0);
    (wanted < found.len()).then(|| found.swap_remove(wanted))
}

/// The frames from a role to everybody on the wire.
pub(crate) fn calls(site: &Site, from: &str, to: &str, protocol: u8, port: u16) -> Vec<Spec> {
    let mut found = conversations(site, from, to, protocol, port, 0);
    found.retain(|spec| spec.way == Way::Called);
    found
}

/// Whether a service of a row covers a conversation.
pub(crate) fn covers(requirement: &Requirement, service: &Service, spec: &Spec) -> bool {
    let port = service.ranges.iter().any(|(protocol, first, last)| {
        *protocol == spec.protocol && (*first..=*last).contains(&spec.port)
    });
    port && requirement.initiations().into_iter().any(|(from, to)| {
        if from == role::LOCALHOST || to == role::LOCALHOST {
            // On one host nothing tells whose conversation it is, so it stands for every row that stays there.
            return spec.way == Way::Within;
        }
        has(&spec.from, from) && (has(&spec.to, to) || is_vrrp_group(spec))
    })
}

/// Whether it is VRRP's own group, which stands for every responder of VRRP.
pub(crate) fn is_vrrp_group(spec: &Spec) -> bool {
    spec.protocol == protocol::VRRP && VRRP_GROUPS.contains(&spec.responder)
}

fn has(roles: &[String], wanted: &str) -> bool {
    wanted == role::ANY || roles.iter().any(|role| role == wanted)
}

fn is_scraped(requirement: &Requirement, service: &Service) -> bool {
    let local = requirement
        .initiations()
        .into_iter()
        .any(|(from, to)| from == role::LOCALHOST || to == role::LOCALHOST);
    local
        && service.ranges.iter().any(|(protocol, first, last)| {
            *protocol == SCRAPED.0 && (*first..=*last).contains(&SCRAPED.1)
        })
}
