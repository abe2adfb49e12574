//! Follows the chain from a question to addresses. What it doesn't reach is nobody's answer: that is how records for
//! other names, slipped into a response, stay without effect.

use std::net::IpAddr;

use hickory_proto::rr::Name as WireName;
use hickory_proto::rr::rdata::SVCB as Service;
use hickory_proto::rr::rdata::svcb::SvcParamValue;

use super::super::super::answer::Name;
use super::records::{A, AAAA, ANY, Data, HTTPS, Record, SVCB};
use super::{ech, host_name};

/// Most names that are followed; resolvers give up at about as many.
const MAX_LINKS: usize = 16;

/// Most addresses that are kept of one answer.
const MAX_ADDRESSES: usize = 256;

/// Where the question leads.
#[derive(Default, Debug)]
pub(super) struct Chain {
    pub(super) aliases: Vec<Name>,
    pub(super) addresses: Vec<(IpAddr, u32)>,
    pub(super) ech_public_name: Option<Name>,
}

/// Follows the chain from `question` of type `kind` through both sections. Additional records only count as addresses
/// of service targets, and as aliases on the way to them (RFC 9460, section 4.1).
pub(super) fn follow(
    question: &WireName,
    kind: u16,
    answers: &[Record],
    additional: &[Record],
) -> Chain {
    let mut walk = Walk {
        sections: [answers, &[]],
        seen: vec![question.clone()],
        chain: Chain::default(),
    };
    let Some((end, ttl)) = walk.aliases(question.clone(), u32::MAX) else {
        return walk.chain;
    };
    match kind {
        A => walk.addresses(&end, ttl, IpAddr::is_ipv4),
        AAAA => walk.addresses(&end, ttl, IpAddr::is_ipv6),
        ANY => walk.addresses(&end, ttl, |_| true),
        HTTPS | SVCB => {
            walk.sections = [answers, additional];
            walk.services(end, ttl, kind);
        }
        _ => {}
    }
    walk.chain
}

struct Walk<'r> {
    sections: [&'r [Record]; 2],
    /// Names that were visited, the question first: no more than one above [`MAX_LINKS`].
    seen: Vec<WireName>,
    chain: Chain,
}

impl<'r> Walk<'r> {
    /// The data and TTLs of all records of a name.
    fn of(&self, owner: &WireName) -> impl Iterator<Item = (&'r Data, u32)> + use<'r, '_> {
        let owner = owner.clone();
        let [first, second] = self.sections;
        (first.iter().chain(second))
            .filter(move |record| record.owner == owner)
            .map(|record| (&record.data, record.ttl))
    }

    /// Notes the next link. Whether the chain may go on there: it is no loop, and there aren't too many.
    fn link(&mut self, name: &WireName) -> bool {
        if self.seen.len() > MAX_LINKS || self.seen.contains(name) {
            return false;
        }
        self.seen.push(name.clone());
        self.chain.aliases.extend(host_name(name));
        true
    }

    /// Follows CNAMEs to their end, with the least TTL on the way. `None` for a loop or an endless chain.
    fn aliases(&mut self, from: WireName, ttl: u32) -> Option<(WireName, u32)> {
        let (mut name, mut least) = (from, ttl);
        // Ends, because each round adds a link.
        loop {
            let next = self.of(&name).find_map(|(data, ttl)| match data {
                Data::Alias(target) => Some((target, ttl)),
                Data::Address(_) | Data::Service(..) => None,
            });
            let Some((target, ttl)) = next else {
                return Some((name, least));
            };
            if !self.link(target) {
                return None;
            }
            (name, least) = (target.clone(), least.min(ttl));
        }
    }

    /// Takes the addresses of a name.
    fn addresses(&mut self, owner: &WireName, least: u32, wanted: impl Fn(&IpAddr) -> bool) {
        let found: Vec<_> = self
            .of(owner)
            .filter_map(|(data, ttl)| match data {
                Data::Address(address) if wanted(address) => Some((*address, ttl)),
                Data::Address(_) | Data::Alias(_) | Data::Service(..) => None,
            })
            .collect();
        for (address, ttl) in found {
            self.keep(address, least.min(ttl));
        }
    }

    /// Keeps an address. One that several chains lead to may be kept as long as any of them.
    fn keep(&mut self, address: IpAddr, ttl: u32) {
        let addresses = &mut self.chain.addresses;
        if let Some((_, kept)) = addresses.iter_mut().find(|(known, _)| *known == address) {
            *kept = ttl.max(*kept);
        } else if addresses.len() < MAX_ADDRESSES {
            addresses.push((address, ttl));
        }
    }

    /// Follows service bindings: aliases first, then every target (RFC 9460, sections 2.4 and 3).
    fn services(&mut self, from: WireName, ttl: u32, kind: u16) {
        let (mut owner, mut least) = (from, ttl);
        // Ends, because each round adds a link.
        loop {
            let Some(set) = self.set(&owner, kind) else {
                return;
            };
            let alias = set.iter().find(|(service, _)| service.svc_priority == 0);
            let Some((alias, ttl)) = alias else {
                for (service, ttl) in set.into_iter().take(MAX_LINKS) {
                    self.service(&owner, service, least.min(ttl));
                }
                return;
            };
            // An alias to the root says that there is no service (section 2.5.1).
            if alias.target_name.is_root() || !self.link(&alias.target_name) {
                return;
            }
            let Some((end, ttl)) = self.aliases(alias.target_name.clone(), least.min(*ttl)) else {
                return;
            };
            (owner, least) = (end, ttl);
            // Without services of its own, the end of the aliases is the target.
            self.addresses(&owner, least, |_| true);
        }
    }

    /// The services of a name. `None` if one is malformed: then none counts (section 2.2).
    fn set(&self, owner: &WireName, kind: u16) -> Option<Vec<(&'r Service, u32)>> {
        let mut set = Vec::new();
        for (data, ttl) in self.of(owner) {
            match data {
                Data::Service(of, service) if *of == kind => set.push((service.as_deref()?, ttl)),
                Data::Service(..) | Data::Address(_) | Data::Alias(_) => {}
            }
        }
        Some(set)
    }

    /// One service: its hints, and the addresses of its target. The root stands for the owner (section 2.5.2).
    fn service(&mut self, owner: &WireName, service: &Service, ttl: u32) {
        for (_, value) in &service.svc_params {
            match value {
                SvcParamValue::Ipv4Hint(hint) => {
                    for address in hint.0.iter().take(MAX_ADDRESSES) {
                        self.keep(IpAddr::V4(address.0), ttl);
                    }
                }
                SvcParamValue::Ipv6Hint(hint) => {
                    for address in hint.0.iter().take(MAX_ADDRESSES) {
                        self.keep(IpAddr::V6(address.0), ttl);
                    }
                }
                SvcParamValue::EchConfigList(list) => {
                    let known = &mut self.chain.ech_public_name;
                    *known = known.take().or_else(|| ech::public_name(&list.0));
                }
                SvcParamValue::Mandatory(_)
                | SvcParamValue::Alpn(_)
                | SvcParamValue::NoDefaultAlpn
                | SvcParamValue::Port(_)
                | SvcParamValue::Unknown(_) => {}
            }
        }
        let target = &service.target_name;
        if target.is_root() || target == owner {
            self.addresses(owner, ttl, |_| true);
        } else if (self.seen.contains(target) || self.link(target))
            && let Some((end, ttl)) = self.aliases(target.clone(), ttl)
        {
            self.addresses(&end, ttl, |_| true);
        }
    }
}
