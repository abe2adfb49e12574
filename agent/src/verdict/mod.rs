//! What the matrix says of a flow beyond the bare verdict: for an unexpected one, which requirements it nearly met; and
//! what flows say of the matrix: the states of its requirements.
//!
//! Pure: no clock, no packets, no files.

pub mod explain;
pub mod near_miss;
pub(crate) mod recorded;
pub mod requirement;
pub mod stance;
pub mod vantage;
pub mod window;

use std::sync::Arc;

use flowproof_common::address::Address;

use crate::matrix::compiled::{BoundRole, Compiled};

pub use near_miss::{Kind, NearMiss, NearMisses};

/// A flow as the matrix sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Who opened the conversation.
    pub initiator: Address,
    /// Its port, if it has one and it is known.
    pub initiator_port: Option<u16>,
    /// Who was to answer.
    pub responder: Address,
    /// IP protocol number.
    pub protocol: u8,
    /// Port of the responder, ICMP type, or 0 where there is neither.
    pub service: u16,
}

/// `system/role`.
#[must_use]
pub fn role_name(compiled: &Compiled, role: BoundRole) -> String {
    let system = compiled.matrix.system(role.system);
    format!("{}/{}", system.id, system.role_id(role.role))
}

/// What explains unexpected flows of one matrix, built once for it.
#[derive(Clone, Debug)]
pub struct Explainer {
    installed: Arc<crate::matrix::installed::Installed>,
    near_misses: NearMisses,
}

impl Explainer {
    /// Indexes the matrix; linear in the number of requirements.
    #[must_use]
    pub fn new(installed: Arc<crate::matrix::installed::Installed>) -> Self {
        let near_misses = NearMisses::index(&installed.compiled);
        Self {
            installed,
            near_misses,
        }
    }

    /// What it explains by.
    #[must_use]
    pub fn installed(&self) -> &crate::matrix::installed::Installed {
        &self.installed
    }

    /// What an unexpected flow nearly met, best first; at most [`near_miss::MOST`].
    #[must_use]
    pub fn near_misses(&self, asked: &Asked) -> Vec<NearMiss> {
        self.near_misses_between(asked, &[], &[])
    }

    /// The same for ends that have these roles because of a name; without any, those of their prefixes.
    #[must_use]
    pub fn near_misses_between(
        &self,
        asked: &Asked,
        from: &[BoundRole],
        to: &[BoundRole],
    ) -> Vec<NearMiss> {
        let or_by_prefix = |roles: &'_ [BoundRole], address| {
            if roles.is_empty() {
                self.installed.roles_of(address).to_vec()
            } else {
                roles.to_vec()
            }
        };
        self.near_misses.of(
            &self.installed.compiled.matrix,
            &or_by_prefix(from, &asked.initiator),
            &or_by_prefix(to, &asked.responder),
            asked,
        )
    }
}
