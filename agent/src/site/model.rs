//! The valid site. It refers to the systems and roles of one matrix by their indices, so it is only of use together
//! with the matrix that it was read against.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::tags::{ServiceTag, TagBook};
use crate::matrix::compiled::BoundRole;
use crate::matrix::{Binding, BuiltInRole, Matrix, RoleIndex, RoleRef, SystemIndex};

/// What a site binds one role to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleBinding {
    /// The system of the role.
    pub system: SystemIndex,
    /// The role in the system.
    pub role: RoleIndex,
    /// Addresses, names and tags in file order, without repetitions.
    pub bindings: Vec<Binding>,
}

/// One site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The name of the site.
    pub name: String,
    /// The systems that are deployed, in file order, without repetitions.
    pub systems: Vec<SystemIndex>,
    /// The bindings of roles, in file order, at most one a role; only of systems that are deployed.
    pub roles: Vec<RoleBinding>,
    /// What this vantage can see, if the site says so; empty otherwise. Host bits are zero.
    pub observe: Vec<IpNet>,
}

impl Site {
    /// Whether the system is deployed here.
    #[must_use]
    pub fn deploys(&self, system: SystemIndex) -> bool {
        self.systems.contains(&system)
    }

    /// Everything that a role stands for: the names of its pack, then the bindings of the site.
    pub fn bindings<'a>(
        &'a self,
        matrix: &'a Matrix,
        system: SystemIndex,
        role: RoleIndex,
    ) -> impl Iterator<Item = &'a Binding> + 'a {
        let pack = &matrix.system(system).role(role).names;
        let site = self
            .roles
            .iter()
            .filter(move |binding| binding.system == system && binding.role == role)
            .flat_map(|binding| &binding.bindings);
        pack.iter().chain(site)
    }

    /// Every role of the deployed systems with everything that it stands for, as `Compiled::compile` takes it. What
    /// service tags stand for comes beside them.
    #[must_use]
    pub fn role_bindings(&self, matrix: &Matrix, tags: &TagBook) -> Vec<(BoundRole, Vec<Binding>)> {
        let site: HashMap<(SystemIndex, RoleIndex), &[Binding]> = self
            .roles
            .iter()
            .map(|bound| ((bound.system, bound.role), bound.bindings.as_slice()))
            .collect();
        let mut roles = Vec::new();
        for &system in &self.systems {
            let content = matrix.system(system);
            if content.roles.is_empty() {
                // Its requirements name built-in roles only; the entry says that they are in force.
                let role = RoleRef::BuiltIn(BuiltInRole::Any);
                roles.push((BoundRole { system, role }, Vec::new()));
            }
            for (index, role) in content.indexed_roles() {
                let mut bound = role.names.clone();
                bound.extend_from_slice(site.get(&(system, index)).copied().unwrap_or_default());
                resolve_tags(&mut bound, tags);
                let role = RoleRef::Declared(index);
                roles.push((BoundRole { system, role }, bound));
            }
        }
        roles
    }
}

/// Adds what the tags among the bindings stand for, without repetitions. Tags go behind everything that the site and the
/// pack write, and what they stand for behind them, so that one can be told from the other.
fn resolve_tags(bound: &mut Vec<Binding>, tags: &TagBook) {
    bound.sort_by_key(|binding| matches!(binding, Binding::Tag(_)));
    let known: Vec<&ServiceTag> = bound
        .iter()
        .filter_map(|binding| match binding {
            Binding::Tag(tag) => tags.get(tag),
            Binding::Prefix(_) | Binding::Name(_) => None,
        })
        .collect();
    if known.is_empty() {
        return;
    }
    let mut seen: HashSet<Binding> = bound.iter().cloned().collect();
    let added = known.into_iter().flat_map(ServiceTag::bindings);
    bound.extend(added.filter(|binding| seen.insert(binding.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_of_a_deployed_system_is_listed_with_its_names_and_bindings() {
        let mut reading = Matrix::read_text(
            "a.yaml",
            "system: a\ntitle: A\nroles: {x: {names: [10.0.0.1]}, y: }\nrequirements: []\n",
        );
        for id in ["b", "c"] {
            let text = format!("system: {id}\ntitle: T\nrequirements: []\n");
            reading
                .matrix
                .systems
                .extend(Matrix::read_text("other.yaml", &text).matrix.systems);
        }
        let text = "site: s\nsystems: [b, a]\nroles: {a/x: [10.0.0.2]}\n";
        let site = crate::site::Site::read_text("site.yaml", text, &reading)
            .site
            .unwrap();
        let shown: Vec<String> = site
            .role_bindings(&reading.matrix, &TagBook::default())
            .iter()
            .map(|(role, bound)| {
                let system = reading.matrix.system(role.system);
                let bound: Vec<_> = bound.iter().map(ToString::to_string).collect();
                format!(
                    "{}/{} {}",
                    system.id,
                    system.role_id(role.role),
                    bound.join(" ")
                )
            })
            .collect();
        assert_eq!(shown, ["b/any ", "a/x 10.0.0.1 10.0.0.2", "a/y "]);
    }
}
