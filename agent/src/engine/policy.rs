//! What the daemon judges by: matrix and site files, or without any the built-in matrix of a Linux host.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::finding::Findings;
use crate::matrix::compile::{CompileError, HostAddresses};
use crate::matrix::compiled::{BoundRole, Compiled};
use crate::matrix::{Binding, BuiltInRole, Matrix, MatrixReading, RoleRef};
use crate::site::Site;
use crate::site::tags::{self, TagOptions, TagReading};
use crate::yaml::LoadError;

/// The matrix of a host that was given none.
const BUILT_IN: &str = include_str!("../../../rules/baseline-linux-host.yaml");
/// The file name under which findings about it appear.
const BUILT_IN_NAME: &str = "built-in matrix";
/// The role of this machine in it.
const THIS_HOST: &str = "linux-host";

/// A compiled matrix, and what the rest of the daemon wants to know of it.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The tables.
    pub compiled: Arc<Compiled>,
    /// Whether a requirement is about the loopback interface of this host.
    pub loopback: bool,
    /// Whether it is the built-in matrix, whose site follows this host's addresses.
    pub built_in: bool,
    /// Whether no role is bound, so that every flow is unscoped.
    pub unbound: bool,
    /// What the site says is seen from here; empty if it does not say.
    pub observe: Vec<IpNet>,
    /// The name of the site; empty without one.
    pub site: String,
    /// The service tags, without what was found in their files: that is among the findings.
    pub tags: TagReading,
    /// Warnings and notes.
    pub findings: Findings,
}

/// Why there is nothing to judge by.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A file can't be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Files have errors.
    #[error("the matrix or the site has errors: mend them, `flowproof check` shows them in place")]
    Findings(Box<Findings>),
    /// The matrix is too large to compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// Reads and compiles. `own` are the addresses of this host.
///
/// # Errors
/// [`PolicyError`]; all errors of all files are found in one go.
pub fn load(
    matrix: &[PathBuf],
    site: Option<&Path>,
    tags: &TagOptions,
    own: &[IpAddr],
) -> Result<Policy, PolicyError> {
    let built_in = matrix.is_empty();
    let reading = if built_in {
        Matrix::read_text(BUILT_IN_NAME, BUILT_IN)
    } else {
        Matrix::read(matrix)?
    };
    let site = match site {
        Some(path) => Some(Site::read(path, &reading)?),
        None => None,
    };
    let uses = tags::uses(&reading, site.as_ref());
    let mut tags = TagReading::read(tags, &uses)?;
    let MatrixReading {
        matrix,
        mut findings,
        ..
    } = reading;
    // Without a site every system is deployed, and only what the packs themselves name is bound.
    let mut deployed = Site {
        name: String::new(),
        systems: matrix.indexed_systems().map(|(index, _)| index).collect(),
        roles: Vec::new(),
        observe: Vec::new(),
    };
    if let Some(site) = site {
        findings.append(site.findings);
        if let Some(site) = site.site {
            deployed = site;
        }
    }
    findings.append(std::mem::take(&mut tags.findings));
    if findings.has_errors() {
        return Err(PolicyError::Findings(Box::new(findings)));
    }
    let bindings = if built_in {
        this_host(&matrix, own)
    } else {
        deployed.role_bindings(&matrix, &tags.book)
    };
    let loopback = needs_loopback(&matrix, &bindings, own);
    let unbound = bindings.iter().all(|(_, bindings)| bindings.is_empty());
    let host = HostAddresses::Known(own.to_vec());
    let compiled = Compiled::compile(Arc::new(matrix), bindings, &host)?;
    Ok(Policy {
        compiled: Arc::new(compiled),
        loopback,
        built_in,
        unbound,
        observe: deployed.observe,
        site: deployed.name,
        tags,
        findings,
    })
}

/// The site of the built-in matrix: this host has its own addresses, and every other role may be anybody, since nobody
/// has said who is a resolver or a mirror.
fn this_host(matrix: &Matrix, own: &[IpAddr]) -> Vec<(BoundRole, Vec<Binding>)> {
    let anybody = [
        Binding::Prefix(IpNet::V4(Ipv4Net::default())),
        Binding::Prefix(IpNet::V6(Ipv6Net::default())),
    ];
    let own: Vec<Binding> = own
        .iter()
        .map(|address| Binding::Prefix(IpNet::from(*address)))
        .collect();
    matrix
        .indexed_systems()
        .flat_map(|(system, content)| {
            let own = &own;
            let anybody = &anybody;
            content.indexed_roles().map(move |(index, role)| {
                let bindings = if role.id.as_str() == THIS_HOST {
                    own.clone()
                } else if role.names.is_empty() {
                    anybody.to_vec()
                } else {
                    role.names.clone()
                };
                let role = BoundRole {
                    system,
                    role: RoleRef::Declared(index),
                };
                (role, bindings)
            })
        })
        .collect()
}

/// Whether a requirement of a deployed system is between this host and itself.
fn needs_loopback(matrix: &Matrix, bindings: &[(BoundRole, Vec<Binding>)], own: &[IpAddr]) -> bool {
    let is_here = |binding: &Binding| match binding {
        Binding::Prefix(prefix) => {
            prefix.addr().is_loopback() || own.iter().any(|address| prefix.contains(address))
        }
        Binding::Name(_) | Binding::Tag(_) => false,
    };
    matrix.indexed_systems().any(|(system, content)| {
        let deployed = bindings.iter().any(|(role, _)| role.system == system);
        deployed
            && content.requirements.iter().any(|requirement| {
                if requirement.services.is_empty() {
                    return false;
                }
                let here = |role: RoleRef| match role {
                    RoleRef::BuiltIn(BuiltInRole::Localhost | BuiltInRole::Any) => true,
                    RoleRef::BuiltIn(BuiltInRole::Broadcast | BuiltInRole::Unknown) => false,
                    RoleRef::Declared(_) => bindings.iter().any(|(bound, bindings)| {
                        *bound == BoundRole { system, role } && bindings.iter().any(is_here)
                    }),
                };
                let local = RoleRef::BuiltIn(BuiltInRole::Localhost);
                (requirement.to == local && here(requirement.from))
                    || (requirement.from == local && here(requirement.to))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7))];

    fn files(matrix: &str, site: &str) -> Result<Policy, PolicyError> {
        let folder = tempfile::tempdir().unwrap();
        let matrix_path = folder.path().join("m.yaml");
        let site_path = folder.path().join("s.yaml");
        std::fs::write(&matrix_path, matrix).unwrap();
        std::fs::write(&site_path, site).unwrap();
        load(
            &[matrix_path],
            Some(&site_path),
            &TagOptions::default(),
            &OWN,
        )
    }

    const MATRIX: &str = "system: app\ntitle: App\nroles: {web: {}, db: {}}\nrequirements:\n\
        - {id: a, from: web, to: localhost, services: [tcp/80]}\n\
        - {id: b, from: web, to: db, services: [tcp/5432]}\n";

    #[test]
    fn the_built_in_matrix_binds_this_host() {
        let policy = load(&[], None, &TagOptions::default(), &OWN).unwrap();
        assert!(policy.built_in && !policy.unbound);
        assert!(policy.findings.is_empty() || !policy.findings.has_errors());
        let (_, own) = policy
            .compiled
            .bindings
            .iter()
            .find(|(role, _)| {
                policy
                    .compiled
                    .matrix
                    .system(role.system)
                    .role_id(role.role)
                    == THIS_HOST
            })
            .unwrap();
        assert_eq!(own, &[Binding::Prefix(IpNet::from(OWN[0]))]);
    }

    #[test]
    fn loopback_is_needed_only_for_a_role_of_this_host() {
        let check = |address: &str, expect| {
            let site = format!("site: s\nsystems: [app]\nroles: {{app/web: [{address}]}}\n");
            assert_eq!(files(MATRIX, &site).unwrap().loopback, expect, "{address}");
        };
        check("192.0.2.7", true);
        check("192.0.2.0/24", true);
        check("127.0.0.1", true);
        check("192.0.2.8", false);
    }

    #[test]
    fn errors_of_both_files_come_at_once() {
        let result = files(
            "system: app\ntitle: App\nrequirements: [{id: a, from: web, to: any, services: [tcp]}]\n",
            "site: s\nsystemss: [app]\n",
        );
        let Err(PolicyError::Findings(findings)) = result else {
            panic!("{result:?}");
        };
        let files: std::collections::BTreeSet<_> =
            findings.errors().map(|finding| &finding.file).collect();
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn a_matrix_without_a_site_binds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.yaml");
        std::fs::write(&path, MATRIX).unwrap();
        assert!(
            load(&[path], None, &TagOptions::default(), &OWN)
                .unwrap()
                .unbound
        );
    }
}
