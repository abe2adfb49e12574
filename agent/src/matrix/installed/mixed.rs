//! Classes and rule sets that only names make: an address inside a bound prefix that also stands for a name, an address
//! that two vendors' rows name, a flow that rows of both cover. Which of them occur is known when they do, so they are
//! made then, out of classes that the compiler made.
//!
//! Names add to the roles that an address has by its prefix, unlike a longer prefix, which replaces them: what was
//! learned can't take away what the site says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flowproof_common::classify::{
    ANY_CLASS, BOUND, CLASS_INDEX, DEPENDS_ON_NAME, NAMELESS_CLASS, Tables, UNBOUND_CLASS,
    UNEXPECTED_SLOT, UNSCOPED_SLOT,
};
use flowproof_common::key::{FlowKey, Side};
use flowproof_common::protocol;

use super::{FastMap, Installed, MemberId, is_named, packed};
use crate::matrix::ServiceKey;
use crate::matrix::compiled::{BoundRole, Rule};

/// Classes made of others, at most; an address that would need one more is judged flow by flow.
const MAX_MIXED: usize = 4096;
/// Rules for such classes, at most.
const MAX_RULES: usize = 1 << 18;

/// Classes and rule sets beyond the compiled ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Mixed {
    classes: Vec<MixedClass>,
    by_parts: BTreeMap<Vec<u32>, u32>,
    rules: FastMap<u128, u32>,
    listed: Vec<(Rule, u32)>,
    members: BTreeMap<u32, Vec<ServiceKey>>,
}

#[derive(Clone, Debug)]
struct MixedClass {
    number: u32,
    /// Compiled classes, sorted; that of the prefix is among them unless it is the unbound class.
    parts: Vec<u32>,
    /// Sorted.
    roles: Vec<BoundRole>,
}

impl Mixed {
    pub(super) fn len(&self) -> usize {
        self.classes.len()
    }

    pub(super) fn roles(&self, index: usize) -> &[BoundRole] {
        self.classes
            .get(index)
            .map_or(&[], |class| class.roles.as_slice())
    }

    pub(super) fn members(&self, slot: u32) -> &[ServiceKey] {
        self.members.get(&slot).map_or(&[], Vec::as_slice)
    }

    pub(super) fn rule(&self, packed: u128) -> Option<u32> {
        self.rules.get(&packed).copied()
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = (Rule, u32)> {
        self.listed.iter().copied()
    }
}

/// An end of a flow: the class of its prefix and the numbers of the patterns ([`super::Compiled::names`]) that it stands
/// for.
#[derive(Clone, Copy, Debug)]
pub struct NamedEnd<'a> {
    /// The class of the address by its prefix.
    pub class: u32,
    /// Pattern numbers.
    pub patterns: &'a [u32],
}

/// What covers a flow.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Covered {
    /// The requirement services; none if nothing covers it.
    pub members: BTreeSet<ServiceKey>,
    /// Whether an end has a role that the site binds: then a flow that nothing covers is unexpected, else unscoped.
    pub bound: bool,
}

impl Installed {
    /// The class of an address in prefix class `end.class` that stands for `end.patterns`. Made if it is needed for the
    /// first time; the rules for it are then appended to `new_rules`. Nothing if there are too many.
    pub fn class_for(
        &mut self,
        end: NamedEnd<'_>,
        new_rules: &mut Vec<(Rule, u32)>,
    ) -> Option<u32> {
        let parts = self.parts(end);
        match parts.as_slice() {
            [] => return Some(end.class),
            [only] => return Some(*only),
            _ => {}
        }
        if let Some(class) = self.mixed.by_parts.get(&parts) {
            return Some(*class);
        }
        if self.mixed.classes.len() >= MAX_MIXED || self.mixed.rules.len() >= MAX_RULES {
            return None;
        }
        let index = u32::try_from(self.class_count()).ok()?;
        let flags = parts
            .iter()
            .fold(0, |flags, part| flags | part & !CLASS_INDEX);
        let number = index | flags;
        let roles: BTreeSet<BoundRole> = parts
            .iter()
            .flat_map(|part| self.roles_of_class(*part).iter().copied())
            .collect();
        let mixed = Arc::make_mut(&mut self.mixed);
        mixed.by_parts.insert(parts.clone(), number);
        mixed.classes.push(MixedClass {
            number,
            parts,
            roles: roles.into_iter().collect(),
        });
        self.make_rules(number, new_rules);
        Some(number)
    }

    /// The slot of a flow whose ends stand for names, found without any class being made. Slots that are needed for the
    /// first time are added to the directory.
    pub fn slot_by_names(
        &mut self,
        key: &FlowKey,
        initiator: Side,
        from: NamedEnd<'_>,
        to: NamedEnd<'_>,
    ) -> u32 {
        let service = key.service(initiator.other());
        let covered = self.covered_by_names(key.protocol, service, from, to);
        if covered.members.is_empty() {
            return if covered.bound {
                UNEXPECTED_SLOT
            } else {
                UNSCOPED_SLOT
            };
        }
        self.slot_of_members(covered.members)
    }

    /// What covers a flow whose ends stand for names; `service` is the port of the responder, the ICMP type, or 0.
    #[must_use]
    pub fn covered_by_names(
        &self,
        protocol: u8,
        service: u16,
        from: NamedEnd<'_>,
        to: NamedEnd<'_>,
    ) -> Covered {
        let (from, to) = (self.parts_or_class(from), self.parts_or_class(to));
        Covered {
            members: self
                .class_of_service(protocol, service)
                .map(|port_class| self.members_between(&from, &to, protocol, port_class))
                .unwrap_or_default(),
            bound: from.iter().chain(&to).any(|class| class & BOUND != 0),
        }
    }

    /// Whether a flow that nothing covers might be covered if one more name of its initiator, or of its responder, were
    /// known.
    #[must_use]
    pub fn hangs_on_names(
        &self,
        protocol: u8,
        service: u16,
        from: NamedEnd<'_>,
        to: NamedEnd<'_>,
    ) -> [bool; 2] {
        let Some(port_class) = self
            .class_of_service(protocol, service)
            .filter(|_| self.has_names())
        else {
            return [false; 2];
        };
        let or_any = |end| {
            let mut parts = self.parts_or_class(end);
            parts.push(ANY_CLASS);
            parts
        };
        let hit = |from, to| self.rule(from, to, protocol, port_class).is_some();
        [
            or_any(to).into_iter().any(|to| hit(NAMELESS_CLASS, to)),
            or_any(from)
                .into_iter()
                .any(|from| hit(from, NAMELESS_CLASS)),
        ]
    }

    /// The class of a service's port or ICMP type, 0 where it has neither; nothing if no requirement names it.
    fn class_of_service(&self, protocol: u8, service: u16) -> Option<u16> {
        let classed =
            protocol::has_ports(protocol) || matches!(protocol, protocol::ICMP | protocol::ICMPV6);
        if !classed {
            return Some(0);
        }
        Some(self.port_class(service)).filter(|class| *class != 0)
    }

    fn parts_or_class(&self, end: NamedEnd<'_>) -> Vec<u32> {
        let mut parts = self.parts(end);
        if parts.is_empty() {
            parts.push(end.class);
        }
        parts
    }

    /// The same for a flow between addresses that stand for `from` and `to`.
    pub fn slot_of_named_flow(
        &mut self,
        key: &FlowKey,
        initiator: Side,
        from: &[u32],
        to: &[u32],
    ) -> u32 {
        let [from, to] =
            [(initiator, from), (initiator.other(), to)].map(|(side, patterns)| NamedEnd {
                class: self.address_class(&key.end(side).0),
                patterns,
            });
        self.slot_by_names(key, initiator, from, to)
    }

    /// The roles of an address in prefix class `end.class` that stands for `end.patterns`, sorted.
    #[must_use]
    pub fn roles_by_names(&self, end: NamedEnd<'_>) -> Vec<BoundRole> {
        let parts = self.parts(end);
        let roles = parts.iter().flat_map(|part| self.roles_of_class(*part));
        roles
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Compiled classes that an address is in at once: those of its names, and that of its prefix unless it is unbound.
    fn parts(&self, end: NamedEnd<'_>) -> Vec<u32> {
        let mut parts: Vec<u32> = end
            .patterns
            .iter()
            .filter_map(|pattern| Some(self.compiled.names.get(*pattern as usize)?.class))
            .collect();
        if end.class != UNBOUND_CLASS {
            parts.push(end.class);
        }
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// The compiled classes that a class is made of.
    fn parts_of(&self, class: u32) -> Vec<u32> {
        let index = (class & CLASS_INDEX) as usize;
        let mixed = index
            .checked_sub(self.compiled.classes.len())
            .and_then(|index| self.mixed.classes.get(index));
        match mixed {
            Some(mixed) if class != ANY_CLASS && class != NAMELESS_CLASS => mixed.parts.clone(),
            Some(_) | None => vec![class],
        }
    }

    /// What covers a flow from an address in all of `from` to one in all of `to`.
    fn members_between(
        &self,
        from: &[u32],
        to: &[u32],
        protocol: u8,
        port_class: u16,
    ) -> BTreeSet<ServiceKey> {
        from.iter()
            .flat_map(|from| to.iter().map(move |to| (*from, *to)))
            .filter_map(|(from, to)| self.fixed_slot(from, to, protocol, port_class))
            .flat_map(|slot| self.members(slot).iter().copied())
            .collect()
    }

    fn slot_of_members(&mut self, members: BTreeSet<ServiceKey>) -> u32 {
        let ids = members
            .iter()
            .map(|key| MemberId::of(&self.compiled.matrix.service_id(*key)))
            .collect();
        let slot = match self.directory.known(ids) {
            Ok(slot) => slot,
            Err(ids) => Arc::make_mut(&mut self.directory).slot_of(ids),
        };
        if self.members(slot).is_empty() {
            Arc::make_mut(&mut self.mixed)
                .members
                .insert(slot, members.into_iter().collect());
        }
        slot
    }

    /// Rules from and to a new mixed class: for every kind of flow that any of its parts has a rule for.
    fn make_rules(&mut self, class: u32, new_rules: &mut Vec<(Rule, u32)>) {
        let parts = self.parts_of(class);
        let mut wanted: BTreeSet<(u32, u32, u8, u16)> = BTreeSet::new();
        // The other end as it is, and every mixed class that it is part of.
        let others = |other: u32| {
            let mixed = self
                .mixed
                .classes
                .iter()
                .filter(move |mixed| mixed.parts.contains(&other))
                .map(|mixed| mixed.number);
            std::iter::once(other).chain(mixed)
        };
        let fixed = self.fixed.listed(&self.compiled).iter().copied();
        for rule in fixed.chain(self.fixed.nameless.iter().copied()) {
            if parts.contains(&rule.to) {
                wanted.extend(
                    others(rule.from).map(|from| (from, class, rule.protocol, rule.port_class)),
                );
            }
            if parts.contains(&rule.from) {
                wanted
                    .extend(others(rule.to).map(|to| (class, to, rule.protocol, rule.port_class)));
            }
        }
        for (from, to, protocol, port_class) in wanted {
            let rule = Rule {
                from,
                to,
                port_class,
                protocol,
            };
            let value = if from == NAMELESS_CLASS || to == NAMELESS_CLASS {
                UNEXPECTED_SLOT | DEPENDS_ON_NAME
            } else {
                let (from, to) = (self.parts_of(from), self.parts_of(to));
                let members = self.members_between(&from, &to, protocol, port_class);
                let unnamed = self.members_between(
                    &self.without_names(&from),
                    &self.without_names(&to),
                    protocol,
                    port_class,
                );
                let depends = if members == unnamed {
                    0
                } else {
                    DEPENDS_ON_NAME
                };
                self.slot_of_members(members) | depends
            };
            let mixed = Arc::make_mut(&mut self.mixed);
            if mixed.rules.insert(packed(&rule), value).is_none() {
                mixed.listed.push((rule, value));
                new_rules.push((rule, value));
            }
        }
    }

    fn without_names(&self, parts: &[u32]) -> Vec<u32> {
        let mut fixed: Vec<u32> = parts
            .iter()
            .copied()
            .filter(|part| !is_named(&self.compiled, *part))
            .collect();
        if fixed.is_empty() {
            fixed.push(UNBOUND_CLASS);
        }
        fixed
    }
}

#[cfg(test)]
mod tests;
