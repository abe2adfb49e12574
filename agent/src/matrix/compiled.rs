//! The matrix as numbers: what every back end looks flows up in, whatever the matrix' size.
//!
//! Made by `compile`, never by hand; made complete or not at all.

use std::collections::BTreeSet;
use std::sync::Arc;

use flowproof_common::address::Address;

use super::lists::Lists;
use super::rule_table::RuleTable;
use super::{Binding, Matrix, NamePattern, RoleRef, ServiceKey, SystemIndex};

/// A prefix and the class of the addresses for which it is the longest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClassPrefix {
    /// Address bits beyond `bits` are zero.
    pub address: Address,
    /// 0 to 128; an IPv4 prefix of length n is 96 + n.
    pub bits: u8,
    /// With [`flowproof_common::classify::BOUND`] set if the site binds a role to it.
    pub class: u32,
}

/// A role of a system.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BoundRole {
    /// The system.
    pub system: SystemIndex,
    /// One of its roles, or a built-in.
    pub role: RoleRef,
}

/// Index of a rule set: the requirement services that cover one kind of flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RuleSetIndex(pub u32);

/// What a rule is looked up by; the generation comes from whoever installs it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rule {
    /// Class of the initiator, or [`flowproof_common::classify::ANY_CLASS`].
    pub from: u32,
    /// Class of the responder, or [`flowproof_common::classify::ANY_CLASS`].
    pub to: u32,
    /// Class of the responder's port or of the ICMP type.
    pub port_class: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// Tables made from a matrix and a site.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What they were made from.
    pub matrix: Arc<Matrix>,
    /// What the site and the packs bind to each role; without any, every flow is unscoped.
    pub bindings: Vec<(BoundRole, Vec<Binding>)>,
    /// Sorted by `bits` descending, so that the first cover is the longest.
    pub prefixes: Vec<ClassPrefix>,
    /// Roles of each class; the index is the class without its bound bit. Class 0 has none.
    pub classes: Lists<BoundRole>,
    /// Class of each port or ICMP type; always 65,536 long.
    pub port_classes: Arc<[u16]>,
    /// Rules; each names a set.
    pub rules: RuleTable,
    /// Members of each set, sorted.
    pub sets: Lists<ServiceKey>,
    /// Every name and pattern that a role is bound to, sorted; the position is the pattern's number.
    pub names: Vec<BoundName>,
    /// The first class that no prefix has: addresses get it, and those after it, when they are learned to stand for a
    /// name. Without its bound bit.
    pub first_named_class: u32,
}

impl Compiled {
    /// Tables of no matrix: nobody has a role.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            matrix: Arc::default(),
            bindings: Vec::new(),
            prefixes: Vec::new(),
            classes: Lists::from_iter([[]]),
            port_classes: vec![0; 1 << 16].into(),
            rules: RuleTable::default(),
            sets: Lists::default(),
            names: Vec::new(),
            first_named_class: 1,
        }
    }

    /// The systems that are in force: those with a role that is bound.
    #[must_use]
    pub fn deployed(&self) -> BTreeSet<SystemIndex> {
        self.bindings.iter().map(|(role, _)| role.system).collect()
    }
}

/// A name or pattern, and the roles of whatever has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BoundName {
    /// The name or pattern.
    pub pattern: NamePattern,
    /// Sorted.
    pub roles: Vec<BoundRole>,
    /// The class of an address that stands for this and is in no bound prefix.
    pub class: u32,
}
