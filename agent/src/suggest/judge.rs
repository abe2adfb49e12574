//! Hourly records judged by the matrix and the site of now, and the two ends that a requirement for them would name.
//!
//! What the matrix says of a record depends on the classes of its addresses, its names and its service alone, of which
//! there are few, so that it is worked out once for each.

use std::sync::Arc;

use flowproof_common::address::Address;
use flowproof_common::classify::{BROADCAST, Verdict};
use flowproof_common::protocol;
use foldhash::{HashMap, HashMapExt};

use crate::ledger::HourKey;
use crate::matrix::compile::VRRP_GROUPS;
use crate::matrix::compiled::BoundRole;
use crate::matrix::{Binding, BuiltInRole, RoleRef, SystemIndex};
use crate::verdict::Explainer;
use crate::verdict::recorded::{Edition, Opinion};

/// Answers that are remembered; beyond, all are forgotten and worked out anew.
const MOST_REMEMBERED: usize = 500_000;

/// Names that a role is ever made of.
const MOST_NAMES: usize = 8;

/// One end of a proposed requirement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum EndKey {
    /// Addresses without any role or name.
    Nobody,
    /// Every address that stands for these names, and has no role. With blanks between them, as in the records.
    Named(Arc<str>),
    /// The limited broadcast address, or the directed one of a bound prefix.
    Broadcast,
    /// A role.
    Role(BoundRole),
}

/// The ends of a proposed requirement, the initiator's first.
pub(super) type Pair = (EndKey, EndKey);

/// What the matrix says of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    /// A requirement covers it, or it is none of the matrix' business.
    Settled,
    /// A name would decide, and none was recorded.
    Undecided,
    /// No requirement covers it.
    Unexpected(Pair),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Receiver {
    One,
    Broadcast,
    VrrpGroup,
}

#[derive(PartialEq, Eq, Hash)]
struct Question {
    from: u32,
    to: u32,
    receiver: Receiver,
    protocol: u8,
    port: u16,
    unexpected: bool,
}

/// Judges records.
#[derive(Debug)]
pub(super) struct Judge {
    edition: Edition,
    local: Option<SystemIndex>,
    /// By names, so that looking one up needs no copy of them.
    remembered: HashMap<Box<str>, HashMap<Question, Judged>>,
    remembered_count: usize,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} -> {} {}/{}",
            self.from, self.to, self.protocol, self.port
        )
    }
}

impl Judge {
    pub(super) fn new(explainer: Explainer, local: Option<SystemIndex>) -> Self {
        Self {
            edition: Edition::new(explainer),
            local,
            remembered: HashMap::new(),
            remembered_count: 0,
        }
    }

    pub(super) const fn explainer(&self) -> &Explainer {
        self.edition.explainer()
    }

    /// The end that an address is by its prefix alone.
    pub(super) fn end_of(&self, address: Address) -> EndKey {
        self.single(self.edition.installed().roles_of(&address))
    }

    pub(super) fn judge(&mut self, key: &HourKey) -> Judged {
        let [from, to] =
            [&key.initiator, &key.responder].map(|address| self.edition.class(address));
        let limited = Address::from_v4([255; 4]);
        let question = Question {
            from,
            to,
            receiver: if to & BROADCAST != 0 || key.responder == limited {
                Receiver::Broadcast
            } else if VRRP_GROUPS.contains(&key.responder.into()) {
                Receiver::VrrpGroup
            } else {
                Receiver::One
            },
            protocol: key.protocol,
            port: key.port,
            unexpected: key.verdict == Verdict::Unexpected,
        };
        let known = self.remembered.get(key.names.as_str());
        if let Some(judged) = known.and_then(|known| known.get(&question)) {
            return judged.clone();
        }
        let judged = self.work_out(key, &question);
        if self.remembered_count >= MOST_REMEMBERED {
            self.remembered.clear();
            self.remembered_count = 0;
        }
        self.remembered_count += 1;
        let known = self.remembered.entry(key.names.as_str().into());
        known.or_default().insert(question, judged.clone());
        judged
    }

    fn work_out(&self, key: &HourKey, question: &Question) -> Judged {
        let names = self.edition.patterns_of_each(&key.names);
        let classes = [question.from, question.to];
        let Opinion {
            verdict,
            missing,
            roles: [from, to],
            members: _,
        } = self
            .edition
            .opinion(classes, key.protocol, key.port, &names);
        // The capture of the time knew more of names than was recorded, or gave the flow up.
        if missing.is_some() && !question.unexpected {
            return Judged::Undecided;
        }
        match verdict {
            Verdict::Expected | Verdict::Unscoped => Judged::Settled,
            Verdict::Unexpected => Judged::Unexpected(self.pair(&from, &to, question, &key.names)),
        }
    }

    /// Roles of one system if there are such: that pack can say it. A pair that talks already comes before others, and the
    /// earlier role before the later, in the order of the files.
    fn pair(&self, from: &[BoundRole], to: &[BoundRole], question: &Question, names: &str) -> Pair {
        let mut best: Option<((bool, BoundRole, BoundRole), Pair)> = None;
        for &from in from.iter().filter(|role| is_declared(**role)) {
            let built_in = |role| BoundRole {
                system: from.system,
                role: RoleRef::BuiltIn(role),
            };
            let to: Vec<BoundRole> = match question.receiver {
                Receiver::Broadcast => vec![built_in(BuiltInRole::Broadcast)],
                // A requirement of VRRP covers its groups.
                Receiver::VrrpGroup if question.protocol == protocol::VRRP => vec![from],
                Receiver::VrrpGroup | Receiver::One => to
                    .iter()
                    .copied()
                    .filter(|role| role.system == from.system && is_declared(*role))
                    .collect(),
            };
            for to in to {
                let rank = (!self.talk(from, to), from, to);
                if best.as_ref().is_none_or(|(before, _)| rank < *before) {
                    best = Some((rank, (EndKey::Role(from), EndKey::Role(to))));
                }
            }
        }
        if let Some((_, pair)) = best {
            return pair;
        }
        let to = match question.receiver {
            Receiver::Broadcast => EndKey::Broadcast,
            Receiver::VrrpGroup | Receiver::One => match self.single(to) {
                EndKey::Nobody => named(names),
                end @ (EndKey::Named(_) | EndKey::Broadcast | EndKey::Role(_)) => end,
            },
        };
        (self.single(from), to)
    }

    /// The role that stands for an end where the other is of no common system: one of the site-local system if there is
    /// one, else the first, so that an address is always the same role's.
    fn single(&self, roles: &[BoundRole]) -> EndKey {
        let declared = || roles.iter().copied().filter(|role| is_declared(*role));
        declared()
            .find(|role| Some(role.system) == self.local)
            .or_else(|| declared().min())
            .map_or(EndKey::Nobody, EndKey::Role)
    }

    fn talk(&self, from: BoundRole, to: BoundRole) -> bool {
        let system = self.edition.installed().compiled.matrix.system(from.system);
        system.requirements.iter().any(|row| {
            (row.from, row.to) == (from.role, to.role) || (row.from, row.to) == (to.role, from.role)
        })
    }
}

/// The names that a role can have; what DNS carries beyond host names is none.
fn named(names: &str) -> EndKey {
    let valid: Vec<&str> = names
        .split_whitespace()
        .filter(|name| matches!(Binding::parse(name), Ok(parsed) if matches!(parsed.binding, Binding::Name(_))))
        .take(MOST_NAMES)
        .collect();
    if valid.is_empty() {
        EndKey::Nobody
    } else {
        EndKey::Named(valid.join(" ").into())
    }
}

fn is_declared(role: BoundRole) -> bool {
    matches!(role.role, RoleRef::Declared(_))
}
