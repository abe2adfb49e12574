//! From files to the tables of a draft.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::overlay::{DraftSystem, overlay};
use crate::finding::Findings;
use crate::matrix::compile::{CompileError, HostAddresses};
use crate::matrix::compiled::Compiled;
use crate::matrix::installed::{Installed, SlotDirectory};
use crate::matrix::{Matrix, MatrixReading};
use crate::site::Site;
use crate::site::tags::{self, TagOptions, TagReading};
use crate::yaml::LoadError;

/// Where a draft comes from.
#[derive(Debug, Clone, Copy)]
pub struct DraftFiles<'a> {
    /// The matrix in force; empty if there is none, such as beside the built-in matrix of a host. Then the draft is all.
    pub matrix: &'a [PathBuf],
    /// The site in force.
    pub site: Option<&'a Path>,
    /// The draft: files, or folders of them.
    pub draft: &'a [PathBuf],
    /// The site of the draft, if it is not the one in force.
    pub draft_site: Option<&'a Path>,
    /// The service tags.
    pub tags: &'a TagOptions,
}

/// A draft that flows can be judged by.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The matrix in force with the draft laid over it.
    pub installed: Arc<Installed>,
    /// The systems of the draft.
    pub systems: Vec<DraftSystem>,
    /// What the operator should know of them, in words.
    pub notes: Vec<String>,
    /// Warnings and notes on the files of the draft.
    pub findings: Findings,
}

/// Why nothing can be judged by a draft.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DraftError {
    /// A file can't be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Files have errors.
    #[error("{}", remedy(*.own_site))]
    Findings {
        /// All of them.
        findings: Box<Findings>,
        /// Whether the draft has a site of its own, or none at all.
        own_site: bool,
    },
    /// The site deploys nothing of the draft.
    #[error(
        "the site deploys no system of the draft ({}), so that it would judge nothing otherwise: add the system to `systems` \
         in a copy of the site file, bind its roles there, and name that file by --draft-site or `draft_site`",
        .0.join(", ")
    )]
    NotDeployed(Vec<String>),
    /// The draft is too large to compile.
    #[error("the draft can't be used: {0}")]
    Compile(#[from] CompileError),
}

const fn remedy(own_site: bool) -> &'static str {
    if own_site {
        "the draft has errors: mend them"
    } else {
        "the draft, or the site in force together with it, has errors: mend them; a draft that changes roles needs a site \
         of its own, by --draft-site or `draft_site`"
    }
}

impl DraftFiles<'_> {
    /// Reads and compiles. `host` is as for the matrix in force.
    ///
    /// # Errors
    /// [`DraftError`]; all errors of all files are found in one go.
    pub fn load(&self, host: &HostAddresses) -> Result<Loaded, DraftError> {
        let in_force = if self.matrix.is_empty() {
            MatrixReading::default()
        } else {
            Matrix::read(self.matrix)?
        };
        let (mut reading, mut systems) = overlay(in_force, Matrix::read(self.draft)?);
        let mut findings = std::mem::take(&mut reading.findings);
        let site = self.draft_site.or(self.site);
        let site = site.map(|path| Site::read(path, &reading)).transpose()?;
        let uses = tags::uses(&reading, site.as_ref());
        let tags = TagReading::read(self.tags, &uses)?;
        let deployed = site.and_then(|site| {
            findings.append(site.findings);
            site.site
        });
        findings.append(tags.findings);
        if findings.has_errors() {
            return Err(DraftError::Findings {
                findings: Box::new(findings),
                own_site: self.draft_site.is_some() || self.site.is_none(),
            });
        }
        // As without a draft: no site deploys everything, and no role has an address beyond those of its pack.
        let site = deployed.unwrap_or_else(|| Site {
            name: String::new(),
            systems: reading
                .matrix
                .indexed_systems()
                .map(|(index, _)| index)
                .collect(),
            roles: Vec::new(),
            observe: Vec::new(),
        });
        for system in &mut systems {
            system.deploy(&site);
        }
        // A site of its own may be all that is on trial.
        if self.draft_site.is_none() && systems.iter().all(|system| !system.deployed) {
            let ids = systems.into_iter().map(|system| system.id).collect();
            return Err(DraftError::NotDeployed(ids));
        }
        let notes = systems
            .iter()
            .filter(|system| !system.deployed)
            .map(|system| {
                format!(
                    "nothing is judged by `{}`: the site does not deploy it; add it to `systems` of the draft's site and bind its roles",
                    system.id
                )
            })
            .collect();
        let bindings = site.role_bindings(&reading.matrix, &tags.book);
        let compiled = Compiled::compile(Arc::new(reading.matrix), bindings, host)?;
        Ok(Loaded {
            installed: Arc::new(Installed::new(Arc::new(compiled), SlotDirectory::default())),
            systems,
            notes,
            findings,
        })
    }
}
