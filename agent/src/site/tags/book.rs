//! What service tags stand for, whichever file said so.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::matrix::{Binding, NamePattern};
use crate::yaml::nearest;

/// How far a proposal's length may be from that of the mistyped tag.
const NEAR: usize = 4;

/// One service tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTag {
    /// As its provider writes it.
    pub name: String,
    /// Its addresses, joined where they are adjacent, sorted; host bits are zero.
    pub prefixes: Vec<IpNet>,
    /// Its DNS names, sorted.
    pub names: Vec<NamePattern>,
}

impl ServiceTag {
    /// How many prefixes and names it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.prefixes.len() + self.names.len()
    }

    /// What it stands for, as a role is bound to it.
    pub fn bindings(&self) -> impl Iterator<Item = Binding> + '_ {
        let prefixes = self.prefixes.iter().copied().map(Binding::Prefix);
        prefixes.chain(self.names.iter().cloned().map(Binding::Name))
    }
}

/// All service tags that are known. Names compare without case, as the providers' own documents mix it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagBook {
    tags: BTreeMap<String, ServiceTag>,
    /// Which file each tag is from.
    files: BTreeMap<String, Arc<str>>,
}

/// The form in which names of tags compare.
pub(super) fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}

impl TagBook {
    /// A tag by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ServiceTag> {
        self.tags.get(&folded(name))
    }

    /// All tags, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &ServiceTag> + '_ {
        self.tags.values()
    }

    /// The tag whose name is nearest to a mistyped one.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let known = self.iter().map(|tag| tag.name.as_str());
        nearest(
            name,
            known.filter(|known| known.len().abs_diff(name.len()) <= NEAR),
        )
    }

    /// Adds a tag of a file, unless another file has it already: then that one's name.
    pub(super) fn add(&mut self, tag: ServiceTag, file: &Arc<str>) -> Result<(), Arc<str>> {
        let key = folded(&tag.name);
        if let Some(owner) = self.files.get(&key) {
            return Err(Arc::clone(owner));
        }
        self.files.insert(key.clone(), Arc::clone(file));
        self.tags.insert(key, tag);
        Ok(())
    }
}
