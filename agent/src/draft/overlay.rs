//! A draft laid over the matrix in force: what it defines it replaces, what it does not mention stays.

use crate::finding::Findings;
use crate::matrix::{MatrixReading, SystemIndex};
use crate::site::Site;

use super::report::SystemLine;

/// What a draft does to a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It takes the place of the one with the same id.
    Replaced,
    /// There was none with this id.
    Added,
}

impl Change {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Added => "added",
        }
    }
}

/// A system of a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftSystem {
    /// Its position in the matrix that the draft makes.
    pub index: SystemIndex,
    /// Its id.
    pub id: String,
    /// What becomes of the matrix in force.
    pub change: Change,
    /// Whether the site deploys it: if not, nothing is judged by it.
    pub deployed: bool,
}

impl DraftSystem {
    /// Takes up what the site says.
    pub(super) fn deploy(&mut self, site: &Site) {
        self.deployed = site.deploys(self.index);
    }
}

impl From<&DraftSystem> for SystemLine {
    fn from(system: &DraftSystem) -> Self {
        Self {
            id: system.id.clone(),
            change: system.change.name().into(),
            deployed: system.deployed,
        }
    }
}

/// Lays `draft` over `in_force`: a system of the draft takes the place of the one with its id, or comes behind all others.
/// Also what was found: all of the draft, and of the other files only what makes them unusable.
#[must_use]
pub fn overlay(in_force: MatrixReading, draft: MatrixReading) -> (MatrixReading, Vec<DraftSystem>) {
    let mut systems = Vec::with_capacity(draft.matrix.systems.len());
    let mut result = in_force;
    for system in draft.matrix.systems {
        let id = system.id.to_string();
        let (index, change) = match result.matrix.find_system(&id) {
            Some(index) => {
                result.matrix.systems[index.get()] = system;
                (index, Change::Replaced)
            }
            None => {
                result.matrix.systems.push(system);
                let last = result.matrix.systems.len() - 1;
                (SystemIndex::from_position(last), Change::Added)
            }
        };
        systems.push(DraftSystem {
            index,
            id,
            change,
            deployed: false,
        });
    }
    result
        .tags
        .retain(|used| systems.iter().all(|system| system.index != used.system));
    result
        .tags
        .extend(draft.tags.into_iter().filter_map(|used| {
            let index = systems.get(used.system.get())?.index;
            Some(crate::matrix::TagUse {
                system: index,
                ..used
            })
        }));
    let known = std::mem::take(&mut result.findings);
    result.findings = if known.has_errors() {
        known
    } else {
        Findings::default()
    };
    result.findings.append(draft.findings);
    result.faulty.extend(draft.faulty);
    result.nameless |= draft.nameless;
    (result, systems)
}
