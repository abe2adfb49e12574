//! Everything that the matrix says of one flow, with the reasons: which roles its ends have and by which binding, what
//! covers it, and what it nearly met.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use flowproof_common::address::Address;
use flowproof_common::classify::{Tables, Verdict, slot_of};
use flowproof_common::key::{FlowKey, Side};
use flowproof_common::packet::Packet;
use flowproof_common::protocol;
use ipnet::IpNet;

use super::{Asked, Explainer, NearMiss};
use crate::matrix::compiled::{BoundRole, Compiled};
use crate::matrix::installed::mixed::NamedEnd;
use crate::matrix::{Binding, BuiltInRole, NamePattern, RoleRef, ServiceKey};
use crate::names::answer::Name;
use crate::names::patterns::PatternIndex;

/// Why an address has a role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Because {
    /// The site binds the role to this prefix.
    Site(IpNet),
    /// The rule pack names this prefix.
    Pack(IpNet),
    /// 255.255.255.255.
    LimitedBroadcast,
    /// The broadcast address of this bound prefix.
    DirectedBroadcast(IpNet),
    /// A loopback address.
    Loopback,
    /// The site binds the role to this name or pattern, by its number in [`Compiled::names`].
    SiteName(u32),
    /// The rule pack names this name or pattern, by its number in [`Compiled::names`].
    PackName(u32),
}

/// Who is at an end of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// Whatever address stands for this name.
    Name(Name),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// One end of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// Who it is.
    pub host: Host,
    /// Its roles, each with the reason.
    pub roles: Vec<(BoundRole, Because)>,
}

/// What the matrix says of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// Who opens the conversation.
    pub initiator: End,
    /// Who is to answer.
    pub responder: End,
    /// Does the matrix expect it.
    pub verdict: Verdict,
    /// What covers it.
    pub requirements: Vec<ServiceKey>,
    /// What it nearly met, if it is unexpected.
    pub near_misses: Vec<NearMiss>,
    /// Whether an address may stand for a name that changes the verdict, which is the one without any name.
    pub depends_on_name: bool,
}

impl Explainer {
    /// Explains a flow. An end with a name, the initiator's first, is judged as an address that stands for this name
    /// and is in no prefix narrower than that of the unspecified address, which is its address in `asked`.
    #[must_use]
    pub fn explain(&self, asked: &Asked, names: &[Option<Name>; 2]) -> Explanation {
        let (key, initiator) = flow_key(asked);
        let addresses = [asked.initiator, asked.responder];
        // Slots that names make are needed here only.
        let mut installed = self.installed().clone();
        let index = PatternIndex::new(
            installed
                .compiled
                .names
                .iter()
                .map(|name| name.pattern.clone()),
        );
        let patterns = names.each_ref().map(|name| {
            let mut patterns: Vec<u32> = name.iter().flat_map(|name| index.matches(name)).collect();
            patterns.sort_unstable();
            patterns
        });
        let [from, to] = [0, 1].map(|end| NamedEnd {
            class: installed.address_class(&addresses[end]),
            patterns: &patterns[end],
        });
        let slot = installed.slot_by_names(&key, initiator, from, to);
        let verdict = Verdict::of_slot(slot);
        let [from, to] =
            [0, 1].map(|end| self.end(addresses[end], names[end].as_ref(), &patterns[end]));
        let roles =
            |end: &End| -> Vec<BoundRole> { end.roles.iter().map(|(role, _)| *role).collect() };
        Explanation {
            verdict,
            requirements: installed.members(slot).to_vec(),
            near_misses: match verdict {
                Verdict::Unexpected => self.near_misses_between(asked, &roles(&from), &roles(&to)),
                Verdict::Expected | Verdict::Unscoped => Vec::new(),
            },
            depends_on_name: names.iter().all(Option::is_none)
                && slot_of(self.installed(), &key, initiator).depends_on_name(),
            initiator: from,
            responder: to,
        }
    }

    /// The verdict by addresses alone, and what covers the flow. Cheap, where [`Self::explain`] is thorough.
    #[must_use]
    pub fn covering(&self, asked: &Asked) -> (Verdict, &[ServiceKey]) {
        let (key, initiator) = flow_key(asked);
        let slot = slot_of(self.installed(), &key, initiator).slot();
        (Verdict::of_slot(slot), self.installed().members(slot))
    }

    fn end(&self, address: Address, name: Option<&Name>, patterns: &[u32]) -> End {
        let compiled = &self.installed().compiled;
        let mut roles: Vec<(BoundRole, Because)> = Vec::new();
        for number in patterns {
            let Some(bound) = compiled.names.get(*number as usize) else {
                continue;
            };
            for role in &bound.roles {
                // One reason is enough.
                if roles.iter().all(|(known, _)| known != role) {
                    roles.push((
                        *role,
                        because_of_name(compiled, *role, *number, &bound.pattern),
                    ));
                }
            }
        }
        for role in self.installed().roles_of(&address) {
            if roles.iter().all(|(known, _)| known != role)
                && let Some(because) = because(compiled, *role, address.into())
            {
                roles.push((*role, because));
            }
        }
        End {
            host: name.map_or_else(
                || Host::Address(address.into()),
                |name| Host::Name(name.clone()),
            ),
            roles,
        }
    }
}

fn because_of_name(
    compiled: &Compiled,
    role: BoundRole,
    number: u32,
    pattern: &NamePattern,
) -> Because {
    let pack = match role.role {
        RoleRef::Declared(index) => compiled
            .matrix
            .system(role.system)
            .role(index)
            .names
            .iter()
            .any(|named| matches!(named, Binding::Name(named) if named == pattern)),
        RoleRef::BuiltIn(_) => false,
    };
    if pack {
        Because::PackName(number)
    } else {
        Because::SiteName(number)
    }
}

/// The flow as the tables look it up.
pub(crate) fn flow_key(asked: &Asked) -> (FlowKey, Side) {
    let icmp = matches!(asked.protocol, protocol::ICMP | protocol::ICMPV6);
    let ports = protocol::has_ports(asked.protocol);
    FlowKey::of(&Packet {
        source: asked.initiator,
        destination: asked.responder,
        source_port: asked.initiator_port.filter(|_| ports).unwrap_or(0),
        destination_port: if ports { asked.service } else { 0 },
        protocol: asked.protocol,
        icmp_type: u8::try_from(asked.service)
            .ok()
            .filter(|_| icmp)
            .unwrap_or(0),
        ..Packet::default()
    })
}

fn because(compiled: &Compiled, role: BoundRole, address: IpAddr) -> Option<Because> {
    match role.role {
        RoleRef::Declared(index) => {
            let (_, bound) = compiled.bindings.iter().find(|(other, _)| *other == role)?;
            let prefix = prefixes(bound)
                .filter(|prefix| prefix.contains(&address))
                .max_by_key(IpNet::prefix_len)?;
            let named = &compiled.matrix.system(role.system).role(index).names;
            Some(if named.contains(&Binding::Prefix(prefix)) {
                Because::Pack(prefix)
            } else {
                Because::Site(prefix)
            })
        }
        RoleRef::BuiltIn(BuiltInRole::Localhost) => Some(Because::Loopback),
        RoleRef::BuiltIn(BuiltInRole::Broadcast) => {
            if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
                return Some(Because::LimitedBroadcast);
            }
            compiled
                .bindings
                .iter()
                .flat_map(|(_, bound)| prefixes(bound))
                .find(|prefix| prefix.prefix_len() < 31 && prefix.broadcast() == address)
                .map(Because::DirectedBroadcast)
        }
        // No class has these: they stand for every address and for none.
        RoleRef::BuiltIn(BuiltInRole::Any | BuiltInRole::Unknown) => None,
    }
}

fn prefixes(bound: &[Binding]) -> impl Iterator<Item = IpNet> + '_ {
    bound.iter().filter_map(|binding| match binding {
        Binding::Prefix(prefix) => Some(*prefix),
        Binding::Name(_) | Binding::Tag(_) => None,
    })
}
