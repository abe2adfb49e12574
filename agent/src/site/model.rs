//! The valid site. It refers to the systems and roles of one matrix by their indices, so it is only of use together
//! with the matrix that it was read against.

use ipnet::IpNet;

use crate::matrix::{Binding, Matrix, RoleIndex, SystemIndex};

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
}
