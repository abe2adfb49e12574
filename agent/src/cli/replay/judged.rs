//! The matrix and the site of a replay, and what they say of addresses, slots and requirements.

use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use crate::cli::{Error, print_error, snippet};
use crate::export::requirement_line::{RequirementLine, ServiceLine};
use crate::matrix::compile::HostAddresses;
use crate::matrix::compiled::Compiled;
use crate::matrix::installed::{Installed, SlotDirectory};
use crate::matrix::{Matrix, Necessity, Requirement, Service, ServiceKey, SystemIndex};
use crate::names::Namer;
use crate::site::Site;
use crate::site::tags::{self, TagBook, TagOptions, TagReading};
use crate::verdict::Explainer;
use crate::verdict::requirement::{Finding, Observation, Resolution, Vantage, of_services};
use crate::verdict::vantage::{Losses, Sightline};

use super::tally::Tally;

/// What flows are judged by; empty without a matrix.
pub(in crate::cli) struct Judged {
    explainer: Explainer,
    installed: Arc<Installed>,
    deployed: Vec<SystemIndex>,
    /// The site's name; empty without a site.
    site: String,
    observe: Vec<IpNet>,
    tags: Arc<TagBook>,
    /// What resolvers said of the matrix' names.
    names: Vec<Resolution>,
}

/// A requirement, its state and its line.
pub(in crate::cli) struct Row {
    pub(in crate::cli) finding: Finding,
    /// Whether silence is a problem.
    pub(in crate::cli) required: bool,
    pub(in crate::cli) line: RequirementLine,
}

impl Judged {
    /// Reads the files; nothing if they have errors, which are printed.
    pub(in crate::cli) fn read(
        matrix: &[PathBuf],
        site: Option<&PathBuf>,
        tags: &TagOptions,
    ) -> Result<Option<Self>, Error> {
        let reading = Matrix::read(matrix)?;
        let site = site.map(|path| Site::read(path, &reading)).transpose()?;
        let uses = tags::uses(&reading, site.as_ref());
        let tags = TagReading::read(tags, &uses)?;
        let mut findings = reading.findings;
        let mut deployed = None;
        if let Some(site) = site {
            findings.append(site.findings);
            deployed = site.site;
        }
        findings.append(tags.findings);
        if findings.has_errors() {
            print_error(|out| snippet::write(&findings, out))?;
            return Ok(None);
        }
        // Without a site every system is looked at, and no role has an address beyond those of its pack.
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
        let bindings = site.role_bindings(&reading.matrix, &tags.book);
        let compiled =
            Compiled::compile(Arc::new(reading.matrix), bindings, &HostAddresses::Unknown)?;
        let installed = Arc::new(Installed::new(Arc::new(compiled), SlotDirectory::default()));
        Ok(Some(Self {
            explainer: Explainer::new(Arc::clone(&installed)),
            installed,
            deployed: site.systems,
            site: site.name,
            observe: site.observe,
            names: Vec::new(),
            tags: tags.book,
        }))
    }

    /// Takes up what was learned of names while packets were judged.
    pub(in crate::cli) fn follow(&mut self, namer: &Namer) {
        let matrix = namer.matrix();
        self.names = namer.resolutions();
        if !Arc::ptr_eq(matrix, &self.installed) {
            self.installed = Arc::clone(matrix);
            self.explainer = Explainer::new(Arc::clone(matrix));
        }
    }

    /// What a capture judges by.
    pub(in crate::cli) fn installed(&self) -> &Arc<Installed> {
        &self.installed
    }

    /// The name of the site; empty without one.
    pub(in crate::cli) fn site(&self) -> &str {
        &self.site
    }

    /// What the service tags of the site stand for.
    pub(in crate::cli) fn tags(&self) -> &TagBook {
        &self.tags
    }

    pub(in crate::cli) fn matrix(&self) -> &Matrix {
        &self.installed.compiled.matrix
    }

    /// The deployed systems, in the order of the site file.
    pub(in crate::cli) fn deployed(&self) -> &[SystemIndex] {
        &self.deployed
    }

    /// What tells the roles, the requirements and the near misses of a flow.
    pub(in crate::cli) fn explainer(&self) -> &Explainer {
        &self.explainer
    }

    /// What could be seen of a requirement's service, if all of the traffic that the site observes is captured.
    pub(in crate::cli) fn vantage(
        &self,
        system: SystemIndex,
        requirement: &Requirement,
        service: Service,
    ) -> Vantage {
        self.sightline(Losses::default())
            .of(system, requirement, service)
    }

    /// Whether nobody owes an answer to the flows of a requirement's service.
    pub(in crate::cli) fn is_unanswerable(
        &self,
        system: SystemIndex,
        requirement: &Requirement,
        service: Service,
    ) -> bool {
        self.sightline(Losses::default())
            .is_unanswerable(system, requirement, service)
    }

    fn sightline(&self, lossy: Losses) -> Sightline {
        Sightline::new(
            &self.installed.compiled,
            &self.names,
            &self.observe,
            false,
            lossy,
        )
    }

    /// The requirements of the deployed systems with their states, in the order of the files.
    pub(in crate::cli) fn rows(&self, tally: &Tally, lossy: Losses) -> Vec<Row> {
        let observations = tally.observations(&self.installed);
        let sightline = self.sightline(lossy);
        let mut rows = Vec::new();
        for &system in &self.deployed {
            for (index, requirement) in self.matrix().system(system).indexed_requirements() {
                let mut findings = Vec::with_capacity(requirement.services.len());
                let mut services = Vec::with_capacity(requirement.services.len());
                for (service, value) in requirement.indexed_services() {
                    let key = ServiceKey {
                        system,
                        requirement: index,
                        service,
                    };
                    let observation: Observation =
                        observations.get(&key).copied().unwrap_or_default();
                    let vantage = sightline.of(system, requirement, value);
                    let finding = observation.finding(vantage);
                    services.push(ServiceLine::new(value, &finding, &observation));
                    findings.push(finding);
                }
                let finding = of_services(findings);
                let id = self.matrix().requirement_id(system, index);
                rows.push(Row {
                    finding,
                    required: requirement.necessity == Necessity::Required,
                    line: RequirementLine::new(id, &finding, services),
                });
            }
        }
        rows
    }
}
