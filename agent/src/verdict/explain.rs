//! Everything that the matrix says of one flow, with the reasons: which roles its ends have and by which binding, what
//! covers it, and what it nearly met.

use std::net::{IpAddr, Ipv4Addr};

use flowproof_common::classify::{Verdict, slot_of};
use flowproof_common::key::{FlowKey, Side};
use flowproof_common::packet::Packet;
use flowproof_common::protocol;
use ipnet::IpNet;

use super::{Asked, Explainer, NearMiss};
use crate::matrix::compiled::{BoundRole, Compiled};
use crate::matrix::{Binding, BuiltInRole, RoleRef, ServiceKey};

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
}

/// One end of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// Its address.
    pub address: IpAddr,
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
}

impl Explainer {
    /// Explains a flow.
    #[must_use]
    pub fn explain(&self, asked: &Asked) -> Explanation {
        let (key, initiator) = flow_key(asked);
        let slot = slot_of(self.installed(), &key, initiator).slot();
        let verdict = Verdict::of_slot(slot);
        Explanation {
            initiator: self.end(asked.initiator.into()),
            responder: self.end(asked.responder.into()),
            verdict,
            requirements: self.installed().members(slot).to_vec(),
            near_misses: match verdict {
                Verdict::Unexpected => self.near_misses(asked),
                Verdict::Expected | Verdict::Unscoped => Vec::new(),
            },
        }
    }

    fn end(&self, address: IpAddr) -> End {
        let compiled = &self.installed().compiled;
        let roles = self.installed().roles_of(&address.into());
        End {
            address,
            roles: roles
                .iter()
                .filter_map(|role| Some((*role, because(compiled, *role, address)?)))
                .collect(),
        }
    }
}

/// The flow as the tables look it up.
fn flow_key(asked: &Asked) -> (FlowKey, Side) {
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
