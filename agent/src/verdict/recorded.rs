//! What one matrix says of a flow of which addresses, service and perhaps names were written down. Drafts and proposals
//! judge such flows anew, and are to say the same of them.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Names and patterns that stand for the same roles: their texts, and the number of one of them.
    alike: Vec<(String, u32)>,
}

/// What covers a flow if its ends stand for names: texts of the patterns of initiator and responder that are alike, and the
/// requirements. Two matrices for which this is the same judge the flow alike, whatever the names are.
pub(crate) type ByNames = BTreeSet<(String, String, BTreeSet<String>)>;

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
        let mut alike: BTreeMap<u32, (String, u32)> = BTreeMap::new();
        for (number, name) in (0..).zip(names) {
            let (texts, _) = alike
                .entry(name.class)
                .or_insert_with(|| (String::new(), number));
            texts.push_str(name.pattern.as_str());
            texts.push(' ');
        }
        Self {
            patterns: PatternIndex::new(names.iter().map(|name| name.pattern.clone())),
            alike: alike.into_values().collect(),
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

    /// The requirements behind services, `system/requirement`.
    pub(crate) fn rows(&self, members: impl IntoIterator<Item = ServiceKey>) -> BTreeSet<String> {
        let matrix = &self.installed().compiled.matrix;
        members
            .into_iter()
            .map(|member| matrix.requirement_id(member.system, member.requirement))
            .collect()
    }

    /// Everything that has a name or pattern.
    pub(crate) fn all_names(&self) -> impl Iterator<Item = &str> {
        let names = self.installed().compiled.names.iter();
        names.map(|name| name.pattern.as_str())
    }

    /// What would cover a flow under each pair of names of its ends; those of the responder are `names` if there are any.
    /// An address that stands for several patterns is covered by what each of them is covered by.
    pub(crate) fn by_names(
        &self,
        classes: [u32; 2],
        protocol: u8,
        service: u16,
        names: &[Vec<u32>],
    ) -> ByNames {
        let any = || {
            std::iter::once((String::new(), Vec::new())).chain(
                self.alike
                    .iter()
                    .map(|(texts, number)| (texts.clone(), vec![*number])),
            )
        };
        let responder: Vec<(String, Vec<u32>)> = if names.is_empty() {
            any().collect()
        } else {
            vec![(String::new(), names.concat())]
        };
        let mut found = ByNames::new();
        for (from, initiator) in any() {
            for (to, responder) in &responder {
                let ends = [initiator.as_slice(), responder.as_slice()];
                let [from_end, to_end] = [0, 1].map(|end| NamedEnd {
                    class: classes[end],
                    patterns: ends[end],
                });
                let covered = self
                    .installed()
                    .covered_by_names(protocol, service, from_end, to_end);
                if !covered.members.is_empty() {
                    found.insert((from.clone(), to.clone(), self.rows(covered.members)));
                }
            }
        }
        found
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
