//! The matrix and the site of a replay, and what they say of addresses, slots and requirements.

use std::path::PathBuf;
use std::sync::Arc;

use flowproof_common::address::Address;
use flowproof_common::classify::Verdict;
use flowproof_common::protocol;
use ipnet::IpNet;

use crate::capture::Snapshot;
use crate::cli::{Error, print_error, snippet};
use crate::matrix::compile::HostAddresses;
use crate::matrix::compiled::Compiled;
use crate::matrix::installed::{Installed, SlotDirectory};
use crate::matrix::{Matrix, Necessity, ServiceKey, SystemIndex};
use crate::site::Site;
use crate::verdict::requirement::{Finding, Observation, of_services};
use crate::verdict::vantage::Sightline;
use crate::verdict::{Asked, Explainer, role_name};

use super::gather::{Flow, observe};
use super::lines::{self, RequirementLine, ServiceLine};

/// What flows are judged by; empty without a matrix.
pub(super) struct Judged {
    explainer: Explainer,
    installed: Arc<Installed>,
    deployed: Vec<SystemIndex>,
    observe: Vec<IpNet>,
}

/// A requirement, its state and its line.
pub(super) struct Row {
    pub(super) finding: Finding,
    /// Whether silence is a problem.
    pub(super) required: bool,
    pub(super) line: RequirementLine,
}

impl Judged {
    /// Reads the files; nothing if they have errors, which are printed.
    pub(super) fn read(matrix: &[PathBuf], site: Option<&PathBuf>) -> Result<Option<Self>, Error> {
        let reading = Matrix::read(matrix)?;
        let site = site.map(|path| Site::read(path, &reading)).transpose()?;
        let mut findings = reading.findings;
        let mut deployed = None;
        if let Some(site) = site {
            findings.append(site.findings);
            deployed = site.site;
        }
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
        let bindings = site.role_bindings(&reading.matrix);
        let compiled =
            Compiled::compile(Arc::new(reading.matrix), bindings, &HostAddresses::Unknown)?;
        let installed = Arc::new(Installed::new(Arc::new(compiled), SlotDirectory::default()));
        Ok(Some(Self {
            explainer: Explainer::new(Arc::clone(&installed)),
            installed,
            deployed: site.systems,
            observe: site.observe,
        }))
    }

    /// What a capture judges by.
    pub(super) fn installed(&self) -> &Arc<Installed> {
        &self.installed
    }

    fn matrix(&self) -> &Matrix {
        &self.installed.compiled.matrix
    }

    /// `system/role` of every role of an address.
    pub(super) fn roles(&self, address: &Address) -> Vec<String> {
        self.installed
            .roles_of(address)
            .iter()
            .map(|role| role_name(&self.installed.compiled, *role))
            .collect()
    }

    /// What an unexpected flow nearly met, best first; nothing for others.
    pub(super) fn near_misses(&self, flow: &Flow) -> Vec<lines::NearMiss> {
        match flow.record.state.verdict() {
            Verdict::Unexpected => {}
            Verdict::Expected | Verdict::Unscoped => return Vec::new(),
        }
        let (initiator, port) = flow.key.end(flow.initiator());
        let asked = Asked {
            initiator,
            initiator_port: protocol::has_ports(flow.key.protocol).then_some(port),
            responder: flow.key.end(flow.responder()).0,
            protocol: flow.key.protocol,
            service: flow.key.service(flow.responder()),
        };
        self.explainer
            .near_misses(&asked)
            .into_iter()
            .map(|miss| lines::NearMiss {
                kind: miss.kind.name(),
                requirement: self.matrix().service_id(miss.service),
                detail: miss.detail,
            })
            .collect()
    }

    /// The requirement services that a counter slot stands for.
    pub(super) fn services_of(&self, slot: u32) -> Vec<String> {
        self.installed
            .members(slot)
            .iter()
            .map(|member| self.matrix().service_id(*member))
            .collect()
    }

    /// The requirements of the deployed systems with their states, in the order of the files.
    pub(super) fn rows(&self, flows: &[Flow], lossy: bool) -> Vec<Row> {
        let observations = observe(flows, &self.installed);
        let sightline = Sightline::new(&self.installed.compiled, &self.observe, false, lossy);
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

/// Whether packets may have been missed: then silence proves nothing. A flow that found no room among the verified is
/// still known.
pub(super) fn is_lossy(totals: &Snapshot) -> bool {
    totals
        .lost
        .iter()
        .any(|(stage, count)| *stage != "promotion" && *count > 0)
        || totals
            .interfaces
            .iter()
            .any(|(_, counters)| counters.unparsed > 0)
}
