//! Roles of the site-local matrix, for ends that no single pack has both of.
//!
//! A role of a pack is bound here to what was seen of it: a few addresses by themselves, more by the prefix that the site
//! binds. Addresses without a role get one for exactly those that were seen together. All of a system's prefixes live
//! together, and the most specific wins, so that addresses without a role are never joined into a prefix: it would lose
//! to, or win over, some other role that nobody looks at.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::evidence::{Addresses, MOST_ADDRESSES};
use super::judge::{EndKey, Judge};
use super::propose::NewRole;
use crate::matrix::compiled::BoundRole;
use crate::matrix::{Binding, BuiltInRole, RoleRef, SystemIndex};

/// Addresses of a role that are listed; of more, the prefix that the site binds.
const MOST_LISTED: usize = 8;

/// Which end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Client,
    Server,
}

/// What a new role stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Role(BoundRole),
    Names(Arc<str>),
    Addresses(Vec<IpAddr>, Side),
}

#[derive(Debug, Default)]
struct Draft {
    /// Of all proposals that name it.
    addresses: Addresses,
    /// What it talks about, for its id; the least.
    service: String,
    /// The role at the other end, for its id.
    other: String,
}

/// New roles while proposals are collected.
#[derive(Debug)]
pub(super) struct RoleBook {
    local: Option<SystemIndex>,
    drafts: BTreeMap<Key, Draft>,
}

/// New roles with their ids.
#[derive(Debug)]
pub(super) struct Named {
    local: Option<SystemIndex>,
    ids: BTreeMap<Key, String>,
    pub(super) roles: Vec<NewRole>,
}

/// Whether the end needs a new role, and what for.
fn key(local: Option<SystemIndex>, end: &EndKey, seen: &Addresses, side: Side) -> Option<Key> {
    match end {
        EndKey::Role(role) if Some(role.system) == local => None,
        EndKey::Role(role) => Some(Key::Role(*role)),
        EndKey::Named(names) => Some(Key::Names(Arc::clone(names))),
        EndKey::Broadcast => None,
        EndKey::Nobody if seen.more() => None,
        EndKey::Nobody => Some(Key::Addresses(seen.items().to_vec(), side)),
    }
}

impl RoleBook {
    pub(super) const fn new(local: Option<SystemIndex>) -> Self {
        Self {
            local,
            drafts: BTreeMap::new(),
        }
    }

    /// Notes that a proposal names this end.
    pub(super) fn want(
        &mut self,
        end: &EndKey,
        seen: &Addresses,
        side: Side,
        other: &str,
        service: &str,
    ) {
        if let Some(key) = key(self.local, end, seen, side) {
            let draft = self.drafts.entry(key).or_insert_with(|| Draft {
                service: service.to_owned(),
                other: other.to_owned(),
                ..Draft::default()
            });
            draft.addresses.merge(seen);
        }
    }

    /// Gives them ids that the system does not have yet.
    pub(super) fn named(self, judge: &Judge, system: &str) -> Named {
        let matrix = &judge.explainer().installed().compiled.matrix;
        let mut taken: BTreeSet<String> = BuiltInRole::ALL
            .into_iter()
            .map(|role| role.id().to_owned())
            .collect();
        if let Some(local) = self.local {
            let roles = &matrix.system(local).roles;
            taken.extend(roles.iter().map(|role| role.id.to_string()));
        }
        let mut ids = BTreeMap::new();
        let mut roles = Vec::new();
        for (key, draft) in self.drafts {
            let (base, title, names) = match &key {
                Key::Role(role) => copied(judge, *role, &draft.addresses),
                Key::Names(names) => {
                    let list: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
                    let first = list.first().map(String::as_str).unwrap_or_default();
                    (first.to_owned(), first.to_owned(), list)
                }
                Key::Addresses(addresses, side) => {
                    let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                    let id = match (names.as_slice(), side) {
                        ([only], _) => format!("host-{only}"),
                        (_, Side::Client) => {
                            format!("clients-of-{}-{}", draft.other, draft.service)
                        }
                        (_, Side::Server) => {
                            format!("servers-of-{}-{}", draft.other, draft.service)
                        }
                    };
                    let title = match side {
                        Side::Client => "Clients that no role of the site has",
                        Side::Server => "Servers that no role of the site has",
                    };
                    (id, title.to_owned(), names)
                }
            };
            let id = unique(&base, &mut taken);
            roles.push(NewRole {
                system: system.to_owned(),
                id: id.clone(),
                title,
                names,
            });
            ids.insert(key, id);
        }
        Named {
            local: self.local,
            ids,
            roles,
        }
    }
}

impl Named {
    /// The role id of an end in the site-local matrix.
    pub(super) fn id(&self, judge: &Judge, end: &EndKey, seen: &Addresses, side: Side) -> String {
        match key(self.local, end, seen, side).and_then(|key| self.ids.get(&key)) {
            Some(id) => id.clone(),
            None => match end {
                EndKey::Role(role) => {
                    let matrix = &judge.explainer().installed().compiled.matrix;
                    matrix.system(role.system).role_id(role.role).to_owned()
                }
                EndKey::Broadcast => BuiltInRole::Broadcast.id().to_owned(),
                EndKey::Nobody | EndKey::Named(_) => BuiltInRole::Any.id().to_owned(),
            },
        }
    }
}

/// A role of a pack, as it is bound at the site and as far as it was seen.
fn copied(judge: &Judge, role: BoundRole, seen: &Addresses) -> (String, String, Vec<String>) {
    let compiled = &judge.explainer().installed().compiled;
    let system = compiled.matrix.system(role.system);
    let id = system.role_id(role.role);
    let bound = compiled
        .bindings
        .iter()
        .find(|(other, _)| *other == role)
        .map(|(_, bound)| bound.as_slice())
        .unwrap_or_default();
    // What a tag stands for comes behind the last tag.
    let last_tag = bound
        .iter()
        .rposition(|binding| matches!(binding, Binding::Tag(_)));
    let written = last_tag.map_or(bound, |last| &bound[..=last]);
    let mut names: Vec<String> = Vec::new();
    if seen.more() {
        names.extend(
            written
                .iter()
                .filter(|binding| match binding {
                    // A narrower role of an earlier system may have it.
                    Binding::Prefix(prefix) => {
                        judge.end_of(prefix.network().into()) == EndKey::Role(role)
                    }
                    Binding::Tag(_) | Binding::Name(_) => true,
                })
                .map(ToString::to_string),
        );
    } else {
        let mut by_binding: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for address in seen.items() {
            let prefix = written
                .iter()
                .filter_map(|binding| match binding {
                    Binding::Prefix(prefix) if prefix.contains(address) => Some(prefix),
                    Binding::Prefix(_) | Binding::Name(_) | Binding::Tag(_) => None,
                })
                .max_by_key(|prefix| prefix.prefix_len());
            match prefix {
                Some(prefix) => by_binding
                    .entry(prefix.to_string())
                    .or_default()
                    .push(*address),
                // By its name, or by a tag.
                None if judge.end_of((*address).into()) == EndKey::Role(role) => {
                    by_binding
                        .entry(address.to_string())
                        .or_default()
                        .push(*address);
                }
                None => names.extend(
                    written
                        .iter()
                        .filter(|binding| matches!(binding, Binding::Name(_)))
                        .map(ToString::to_string),
                ),
            }
        }
        for (prefix, addresses) in by_binding {
            if addresses.len() > MOST_LISTED {
                names.push(prefix);
            } else {
                names.extend(addresses.iter().map(ToString::to_string));
            }
        }
    }
    let mut seen_names = BTreeSet::new();
    names.retain(|name| seen_names.insert(name.clone()));
    let title = match role.role {
        RoleRef::Declared(index) => system.role(index).title.clone(),
        RoleRef::BuiltIn(_) => None,
    };
    let title = format!("{} of {}", title.as_deref().unwrap_or(id), system.id);
    (format!("{}-{id}", system.id), title, names)
}

/// The longest id that is made: short of what an id may have, so that a number fits behind it.
const MOST_ID_BYTES: usize = 100;

/// An id of what is left of a text, not taken yet.
pub(super) fn unique(text: &str, taken: &mut BTreeSet<String>) -> String {
    let mut base = String::with_capacity(text.len());
    for character in text.chars() {
        let character = character.to_ascii_lowercase();
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            base.push(character);
        } else if !base.ends_with('-') && !base.is_empty() {
            base.push('-');
        }
    }
    base.truncate(MOST_ID_BYTES);
    let base = match base.trim_end_matches('-') {
        "" => "end",
        base => base,
    };
    let mut id = base.to_owned();
    let mut number = 2;
    while !taken.insert(id.clone()) {
        id = format!("{base}-{number}");
        number += 1;
    }
    id
}

const _: () = assert!(MOST_LISTED < MOST_ADDRESSES);
