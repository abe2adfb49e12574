//! What one matrix says of a flow of which addresses, service and perhaps names were written down. Drafts and proposals
//! judge such flows anew, and are to say the same of them.

use flowproof_common::address::Address;
use flowproof_common::classify::{Tables as _, Verdict};

use crate::matrix::ServiceKey;
use crate::matrix::compiled::BoundRole;
use crate::matrix::installed::Installed;
use crate::matrix::installed::mixed::NamedEnd;
use crate::names::patterns::PatternIndex;

use super::{Explainer, role_name};

/// The end whose missing name leaves a verdict open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Missing {
    /// The responder's: it was not learned, or not written down.
    Responder,
    /// The initiator's: evidence has no names of initiators.
    Initiator,
}

/// A matrix and what it takes to judge by it.
#[derive(Debug)]
pub(crate) struct Edition {
    explainer: Explainer,
    patterns: PatternIndex,
}

/// What a matrix says of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opinion {
    /// The verdict without the name that is missing, if one is.
    pub(crate) verdict: Verdict,
    /// What covers it, sorted.
    pub(crate) members: Vec<ServiceKey>,
    /// Whether a name that was not written down may change the verdict.
    pub(crate) missing: Option<Missing>,
    /// Roles of initiator and responder.
    pub(crate) roles: [Vec<BoundRole>; 2],
}

impl Edition {
    /// Judges by what `explainer` was made for.
    pub(crate) fn new(explainer: Explainer) -> Self {
        let names = &explainer.installed().compiled.names;
        Self {
            patterns: PatternIndex::new(names.iter().map(|name| name.pattern.clone())),
            explainer,
        }
    }

    pub(crate) const fn explainer(&self) -> &Explainer {
        &self.explainer
    }

    pub(crate) fn installed(&self) -> &Installed {
        self.explainer.installed()
    }

    /// The class of an address by its prefix.
    pub(crate) fn class(&self, address: &Address) -> u32 {
        self.installed().address_class(address)
    }

    /// The class of a port or ICMP type: flows that differ in nothing else are judged alike.
    pub(crate) fn port_class(&self, port: u16) -> u16 {
        self.installed().port_class(port)
    }

    /// The numbers of the patterns that a name fits, sorted.
    fn patterns(&self, name: &str) -> Vec<u32> {
        let mut patterns: Vec<u32> = self.patterns.matches(name).collect();
        patterns.sort_unstable();
        patterns
    }

    /// The same for each of the names of a record, which have blanks between them.
    pub(crate) fn patterns_of_each(&self, names: &str) -> Vec<Vec<u32>> {
        names
            .split_whitespace()
            .map(|name| self.patterns(name))
            .collect()
    }

    /// `system/role` of each.
    pub(crate) fn role_names(&self, roles: &[BoundRole]) -> Vec<String> {
        let compiled = &self.installed().compiled;
        roles
            .iter()
            .map(|role| role_name(compiled, *role))
            .collect()
    }

    /// Judges a flow between addresses of two prefix classes. `names` are the patterns of each name that was written
    /// down of the responder; as everywhere, of several names the one is taken that is allowed.
    pub(crate) fn opinion(
        &self,
        classes: [u32; 2],
        protocol: u8,
        service: u16,
        names: &[Vec<u32>],
    ) -> Opinion {
        let installed = self.installed();
        let from = NamedEnd {
            class: classes[0],
            patterns: &[],
        };
        let to = |patterns| NamedEnd {
            class: classes[1],
            patterns,
        };
        let roles = |patterns| [from, to(patterns)].map(|end| installed.roles_by_names(end));
        let unnamed = [Vec::new()];
        for patterns in if names.is_empty() { &unnamed } else { names } {
            let covered = installed.covered_by_names(protocol, service, from, to(patterns));
            if !covered.members.is_empty() {
                return Opinion {
                    verdict: Verdict::Expected,
                    members: covered.members.into_iter().collect(),
                    missing: None,
                    roles: roles(patterns),
                };
            }
        }
        let mut all: Vec<u32> = names.concat();
        all.sort_unstable();
        all.dedup();
        let bound = installed
            .covered_by_names(protocol, service, from, to(&all))
            .bound;
        let [initiator, responder] = installed.hangs_on_names(protocol, service, from, to(&all));
        Opinion {
            verdict: if bound {
                Verdict::Unexpected
            } else {
                Verdict::Unscoped
            },
            members: Vec::new(),
            missing: if responder && names.is_empty() {
                Some(Missing::Responder)
            } else {
                initiator.then_some(Missing::Initiator)
            },
            roles: roles(&all),
        }
    }
}
