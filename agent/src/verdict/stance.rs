//! Where a host stands to a requirement: is it the end that initiates, the end that responds, both, or between them. One agent
//! needs none of this. Several that watch the same requirement do: "sent here, never arrived there" can only be said by somebody
//! who knows which of the two agents is at which end, and no counter tells.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use flowproof_common::address::Address;
use ipnet::IpNet;

use super::requirement::Vantage;
use super::vantage::{Losses, Sightline};
use crate::matrix::compiled::BoundRole;
use crate::matrix::installed::Installed;
use crate::matrix::{Binding, BuiltInRole, Requirement, RequirementIndex, RoleRef, SystemIndex};

/// Where a host stands to a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stance {
    /// One of its addresses has the role that initiates.
    Initiator,
    /// One of its addresses has the role that responds.
    Responder,
    /// It has both roles, or either end may initiate and it is one: what it counts may be of either.
    Both,
    /// It has neither, and traffic between the two may come by.
    Path,
    /// Nothing of it can be seen from here.
    #[default]
    Elsewhere,
}

impl Stance {
    /// The value of the metrics' label `vantage`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
            Self::Both => "both",
            Self::Path => "path",
            Self::Elsewhere => "none",
        }
    }
}

/// Where this host stands to a requirement, and how much of its end it is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stand {
    /// Where.
    pub stance: Stance,
    /// Of an initiator or a responder: its part of the addresses that the role of that end has, 0 to 1. 0 where prefixes, names or
    /// service tags are among them, since nobody knows how many hosts these are.
    pub share: f64,
}

/// Where a host stands to all requirements.
#[derive(Debug, Default)]
pub struct Stances {
    stands: HashMap<(SystemIndex, RequirementIndex), Stand>,
}

impl Stances {
    /// Of a host with the addresses `own` that sees what `observe` says, or everything if that is empty.
    #[must_use]
    pub fn new(installed: &Installed, own: &[IpAddr], observe: &[IpNet]) -> Self {
        let compiled = &installed.compiled;
        let own: Vec<Address> = own.iter().map(|address| (*address).into()).collect();
        let here: HashSet<BoundRole> = own
            .iter()
            .flat_map(|address| installed.roles_of(address).iter().copied())
            .collect();
        let share = |role: BoundRole| {
            let bound = compiled.bindings.iter().find(|(bound, _)| *bound == role);
            let singles: Option<HashSet<Address>> = bound.and_then(|(_, bindings)| {
                bindings
                    .iter()
                    .map(|binding| match binding {
                        Binding::Prefix(prefix)
                            if prefix.prefix_len() == prefix.max_prefix_len() =>
                        {
                            Some(prefix.addr().into())
                        }
                        Binding::Prefix(_) | Binding::Name(_) | Binding::Tag(_) => None,
                    })
                    .collect()
            });
            singles
                .filter(|singles| !singles.is_empty())
                .map_or(0.0, |singles| {
                    let own = singles.iter().filter(|single| own.contains(single)).count();
                    #[expect(
                        clippy::cast_precision_loss,
                        reason = "addresses of a role are counted in tens"
                    )]
                    let share = own as f64 / singles.len() as f64;
                    share
                })
        };
        // A host that sees nothing but itself is between no others, whatever prefixes its address is in.
        let sees_others = observe.is_empty()
            || observe.iter().any(|seen| {
                let own =
                    seen.prefix_len() == seen.max_prefix_len() && own.contains(&seen.addr().into());
                !own && !seen.addr().is_loopback()
            });
        let sightline = Sightline::new(compiled, &[], observe, true, Losses::default());
        let mut stands = HashMap::new();
        for (system, content) in compiled.matrix.indexed_systems() {
            for (index, requirement) in content.indexed_requirements() {
                let is_here = |role| here.contains(&BoundRole { system, role });
                let stance = stance(requirement, &is_here, || {
                    sees_others
                        && !matches!(
                            sightline.of_requirement(system, requirement),
                            Vantage::Blind(_)
                        )
                });
                let share = match (stance, requirement.initiations().next()) {
                    (Stance::Initiator, Some((role, _))) | (Stance::Responder, Some((_, role))) => {
                        share(BoundRole { system, role })
                    }
                    (
                        Stance::Initiator
                        | Stance::Responder
                        | Stance::Both
                        | Stance::Path
                        | Stance::Elsewhere,
                        _,
                    ) => 0.0,
                };
                stands.insert((system, index), Stand { stance, share });
            }
        }
        Self { stands }
    }

    /// Where it stands to a requirement.
    #[must_use]
    pub fn of(&self, system: SystemIndex, requirement: RequirementIndex) -> Stand {
        self.stands
            .get(&(system, requirement))
            .copied()
            .unwrap_or_default()
    }
}

/// `is_here` says whether a declared role is this host's, `comes_by` whether traffic of others that the requirement covers may be seen.
fn stance(
    requirement: &Requirement,
    is_here: &dyn Fn(RoleRef) -> bool,
    comes_by: impl FnOnce() -> bool,
) -> Stance {
    let local = RoleRef::BuiltIn(BuiltInRole::Localhost);
    let end = |role: RoleRef, other: RoleRef| match role {
        RoleRef::Declared(_) => is_here(role),
        // Wherever the other end is.
        RoleRef::BuiltIn(BuiltInRole::Localhost) => is_here(other),
        // Everybody is "any"; who is nothing but that is no end that somebody asks after.
        RoleRef::BuiltIn(BuiltInRole::Any | BuiltInRole::Broadcast | BuiltInRole::Unknown) => false,
    };
    let (mut initiates, mut responds) = (false, false);
    for (from, to) in requirement.initiations() {
        initiates |= end(from, to);
        responds |= end(to, from);
    }
    match (initiates, responds) {
        (true, true) => Stance::Both,
        (true, false) => Stance::Initiator,
        (false, true) => Stance::Responder,
        // What stays within another host comes by nobody.
        (false, false) if [requirement.from, requirement.to].contains(&local) => Stance::Elsewhere,
        (false, false) if comes_by() => Stance::Path,
        (false, false) => Stance::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::matrix::Matrix;
    use crate::matrix::compile::HostAddresses;
    use crate::matrix::compiled::Compiled;
    use crate::matrix::installed::SlotDirectory;
    use crate::site::Site;
    use crate::site::tags::TagBook;

    const MATRIX: &str = "
system: s
title: S
roles:
  client:
  web:
  pool:
  cloud: {names: ['*.example.org']}
requirements:
  - {id: out, from: client, to: web, services: [tcp/1]}
  - {id: in, from: web, to: client, services: [tcp/1], direction: inbound}
  - {id: either, from: client, to: web, services: [tcp/1], direction: both}
  - {id: among, from: web, to: web, services: [tcp/1]}
  - {id: away, from: web, to: cloud, services: [tcp/1]}
  - {id: any, from: any, to: web, services: [tcp/1]}
  - {id: local, from: web, to: localhost, services: [tcp/1]}
  - {id: pooled, from: client, to: pool, services: [tcp/1]}
";
    // The client's network has the servers' addresses in it, and the longer prefix wins.
    const SITE: &str = "site: s\nsystems: [s]\nroles: {s/client: [10.0.0.0/16], s/web: [10.0.1.1, 10.0.1.2, '2001:db8::1'], s/pool: [10.2.0.0/24]}\n";

    fn stands(own: &[&str], observe: &[&str]) -> Vec<String> {
        let reading = Matrix::read_text("m.yaml", MATRIX);
        let site = Site::read_text("s.yaml", SITE, &reading)
            .site
            .expect("valid");
        let bindings = site.role_bindings(&reading.matrix, &TagBook::default());
        let compiled =
            Compiled::compile(Arc::new(reading.matrix), bindings, &HostAddresses::Unknown).unwrap();
        let installed = Installed::new(Arc::new(compiled), SlotDirectory::default());
        let own: Vec<IpAddr> = own.iter().map(|text| text.parse().unwrap()).collect();
        let observe: Vec<IpNet> = observe.iter().map(|text| text.parse().unwrap()).collect();
        let stances = Stances::new(&installed, &own, &observe);
        let (system, content) = installed.compiled.matrix.indexed_systems().next().unwrap();
        content
            .indexed_requirements()
            .map(|(index, row)| {
                let Stand { stance, share } = stances.of(system, index);
                let share = if share == 0.0 {
                    String::new()
                } else {
                    format!(" {share:.2}")
                };
                format!("{} {}{share}", row.id, stance.name())
            })
            .collect()
    }

    #[test]
    fn a_host_knows_at_which_end_it_is() {
        assert_eq!(
            stands(&["10.0.7.7"], &["10.0.7.7/32"]),
            [
                "out initiator",
                "in initiator",
                "either both",
                "among none",
                "away none",
                "any none",
                "local none",
                "pooled initiator"
            ]
        );
        assert_eq!(
            stands(
                &["10.0.1.1", "2001:db8::1"],
                &["10.0.1.1/32", "2001:db8::1/128"]
            ),
            [
                "out responder 0.67",
                "in responder 0.67",
                "either both",
                "among both",
                "away initiator 0.67",
                "any responder 0.67",
                "local both",
                "pooled none"
            ]
        );
        // A prefix is nobody knows how many hosts.
        assert_eq!(
            stands(&["10.2.0.3"], &["10.2.0.3/32"])[7],
            "pooled responder"
        );
    }

    #[test]
    fn who_has_no_role_is_on_the_path_of_what_comes_by() {
        let router = stands(&["192.0.2.1"], &[]);
        assert_eq!(
            router[..6],
            [
                "out path",
                "in path",
                "either path",
                "among path",
                "away path",
                "any path"
            ]
        );
        assert_eq!(router[6], "local none");
        let mirror = stands(&["192.0.2.1"], &["10.2.0.0/24"]);
        assert_eq!([&mirror[0], &mirror[7]], ["out none", "pooled path"]);
    }
}
