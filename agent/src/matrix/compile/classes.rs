//! Addresses to classes. Prefixes are walked in address order with a stack of those that cover the current one, so
//! that each prefix is merged once with what it inherits, however many prefixes there are.

use flowproof_common::address::Address;
use flowproof_common::classify::{BOUND, BROADCAST, CLASS_INDEX, UNBOUND_CLASS};
use hashbrown::HashMap;

use super::CompileError;
use crate::matrix::RoleRef;
use crate::matrix::compiled::{BoundRole, ClassPrefix};

/// What an address can be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Tag {
    /// It has a role.
    Role(BoundRole),
    /// VRRP is sent to it.
    VrrpGroup,
    /// It is the directed broadcast of a bound prefix, so no one in particular owes an answer.
    DirectedBroadcast,
    /// It is an address of the capturing host.
    Own,
    /// It is bound to this role by itself, and is the address with this number, so that no other shares its class.
    Single(BoundRole, u32),
}

impl Tag {
    pub(super) fn role(self) -> Option<BoundRole> {
        match self {
            Self::Role(role) => Some(role),
            Self::VrrpGroup | Self::DirectedBroadcast | Self::Own | Self::Single(..) => None,
        }
    }

    fn declared(self) -> Option<BoundRole> {
        self.role()
            .filter(|role| matches!(role.role, RoleRef::Declared(_)))
    }
}

/// What is said of a prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Part {
    /// Nothing is inherited from wider prefixes.
    Cut,
    /// Its addresses are this. A declared role replaces the inherited declared roles of its system; everything else
    /// is added to what is inherited.
    Tag(Tag),
}

/// One statement on one prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Placed {
    /// Host bits are zero.
    pub(super) address: u128,
    /// 0 to 128.
    pub(super) bits: u8,
    pub(super) part: Part,
}

pub(super) struct Classes {
    /// Sorted by `bits` descending.
    pub(super) prefixes: Vec<ClassPrefix>,
    /// By class without its bound bit, each sorted.
    pub(super) tags: Vec<Vec<Tag>>,
}

/// A prefix that may cover the ones that follow.
struct Open {
    address: u128,
    bits: u8,
    class: u32,
}

impl Open {
    fn covers(&self, address: u128) -> bool {
        // A shift by 128 would overflow, so 0 bits are a case of their own.
        self.bits == 0 || (self.address ^ address) >> (128 - u32::from(self.bits)) == 0
    }
}

impl Classes {
    pub(super) fn build(mut placed: Vec<Placed>) -> Result<Self, CompileError> {
        placed.sort_unstable();
        placed.dedup();
        let mut tags: Vec<Vec<Tag>> = vec![Vec::new()];
        let mut known: HashMap<Vec<Tag>, u32, foldhash::fast::RandomState> = HashMap::default();
        known.insert(Vec::new(), UNBOUND_CLASS);
        let mut prefixes = Vec::with_capacity(placed.len());
        let mut open: Vec<Open> = Vec::new();
        for parts in placed.chunk_by(|a, b| (a.address, a.bits) == (b.address, b.bits)) {
            let Some(&Placed { address, bits, .. }) = parts.first() else {
                continue;
            };
            while open.last().is_some_and(|prefix| !prefix.covers(address)) {
                open.pop();
            }
            let inherited = open.last().map_or(UNBOUND_CLASS, |prefix| prefix.class);
            let merged = merge(&tags[inherited as usize], parts);
            let class = match known.get(&merged) {
                Some(class) => *class,
                None => {
                    let class = u32::try_from(tags.len())
                        .ok()
                        .filter(|class| *class <= CLASS_INDEX)
                        .ok_or(CompileError::TooManyClasses { limit: CLASS_INDEX })?;
                    tags.push(merged.clone());
                    known.insert(merged, class);
                    class
                }
            };
            // A prefix that says nothing new would only cost memory.
            if class != inherited {
                prefixes.push(ClassPrefix {
                    address: Address::from_v6(address.to_be_bytes()),
                    bits,
                    class: numbered(&tags, class),
                });
                open.push(Open {
                    address,
                    bits,
                    class,
                });
            }
        }
        // Stable, so that the order within a length stays that of the addresses.
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.bits));
        Ok(Self { prefixes, tags })
    }

    /// The class that comes next, without its bound bit.
    pub(super) fn number_of_next(&self) -> Result<u32, CompileError> {
        u32::try_from(self.tags.len())
            .ok()
            .filter(|class| *class < CLASS_INDEX)
            .ok_or(CompileError::TooManyClasses { limit: CLASS_INDEX })
    }

    /// The class of addresses that have `roles` because of a name; one with the same roles if there is one from `first`
    /// on. Classes of prefixes are never taken, because what is learned may be wrong.
    pub(super) fn named(&mut self, roles: &[BoundRole], first: u32) -> Result<u32, CompileError> {
        let wanted: Vec<Tag> = roles.iter().map(|role| Tag::Role(*role)).collect();
        let known = (first..)
            .zip(&self.tags[first as usize..])
            .find_map(|(class, tags)| (*tags == wanted).then_some(class));
        let class = match known {
            Some(class) => class,
            None => {
                let class = self.number_of_next()?;
                self.tags.push(wanted);
                class
            }
        };
        Ok(numbered(&self.tags, class))
    }

    /// The classes as rules name them, with what their addresses are.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (u32, &[Tag])> {
        (0..)
            .zip(&self.tags)
            .map(|(class, tags)| (numbered(&self.tags, class), tags.as_slice()))
    }
}

fn numbered(tags: &[Vec<Tag>], class: u32) -> u32 {
    let bound = tags[class as usize]
        .iter()
        .any(|tag| tag.declared().is_some());
    let broadcast = tags[class as usize].contains(&Tag::DirectedBroadcast);
    let mut numbered = class;
    if bound {
        numbered |= BOUND;
    }
    if broadcast {
        numbered |= BROADCAST;
    }
    numbered
}

/// What the addresses of a prefix are, sorted. `parts` are sorted, so its roles are in the order of systems.
fn merge(inherited: &[Tag], parts: &[Placed]) -> Vec<Tag> {
    let own = || {
        parts.iter().filter_map(|placed| match placed.part {
            Part::Tag(tag) => Some(tag),
            Part::Cut => None,
        })
    };
    let mut merged: Vec<Tag> = Vec::with_capacity(inherited.len() + parts.len());
    if !parts.iter().any(|placed| placed.part == Part::Cut) {
        let mut replaced: Vec<_> = own()
            .filter_map(|tag| Some(tag.declared()?.system))
            .collect();
        replaced.dedup();
        merged.extend(inherited.iter().copied().filter(|tag| {
            tag.declared()
                .is_none_or(|role| replaced.binary_search(&role.system).is_err())
        }));
    }
    merged.extend(own());
    merged.sort_unstable();
    merged.dedup();
    merged
}
