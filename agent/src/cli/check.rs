//! `flowproof check`: are the files valid, and what do they say? The JSON form is a contract that users and tests rely
//! on, so it has types of its own and does not follow the model when that changes.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::tags::TagArguments;
use super::{Error, Format, Outcome, print, print_error, snippet};
use crate::finding::{Finding, Findings};
use crate::matrix::{Matrix, Requirement, Role, Service, System};
use crate::plural::counted;
use crate::site::Site;
use crate::site::tags::{self, TagReading};

/// Arguments of `flowproof check`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Matrix files, or folders of them (*.yaml, *.yml)
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// A site file to check against the matrix
    #[arg(long, value_name = "FILE")]
    site: Option<PathBuf>,
    #[command(flatten)]
    tags: TagArguments,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Checks the files. An error in them is [`Outcome::FallsShort`].
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let reading = Matrix::read(&arguments.paths)?;
    let site = match &arguments.site {
        Some(path) => Some(Site::read(path, &reading)?),
        None => None,
    };
    let uses = tags::uses(&reading, site.as_ref());
    let tags = TagReading::read(&arguments.tags.options(), &uses)?;
    let mut findings = reading.findings;
    let mut deployed = None;
    if let Some(site) = site {
        findings.append(site.findings);
        deployed = site.site;
    }
    findings.append(tags.findings);
    match arguments.format {
        Format::Json => print(|out| json(&reading.matrix, &findings, out))?,
        Format::Text => {
            print_error(|out| snippet::write(&findings, out))?;
            print(|out| text(&reading.matrix, deployed.as_ref(), out))?;
        }
    }
    Ok(if findings.has_errors() {
        Outcome::FallsShort
    } else {
        Outcome::Fine
    })
}

fn text(matrix: &Matrix, site: Option<&Site>, out: &mut dyn Write) -> io::Result<()> {
    for system in &matrix.systems {
        let version = system
            .version
            .as_deref()
            .map(|version| format!(" {version}"))
            .unwrap_or_default();
        let services = system
            .requirements
            .iter()
            .map(|requirement| requirement.services.len())
            .sum::<usize>();
        writeln!(
            out,
            "{}: {}{}: {}, {}, {}",
            system.id,
            snippet::visible(&system.title),
            snippet::visible(&version),
            counted(system.roles.len(), "role"),
            counted(system.requirements.len(), "requirement"),
            counted(services, "service"),
        )?;
    }
    if let Some(site) = site {
        writeln!(
            out,
            "site {}: {} deployed, {} bound",
            snippet::visible(&site.name),
            counted(site.systems.len(), "system"),
            counted(site.roles.len(), "role"),
        )?;
    }
    Ok(())
}

fn json(matrix: &Matrix, findings: &Findings, out: &mut dyn Write) -> io::Result<()> {
    let report = Report {
        systems: matrix.systems.iter().map(SystemView::new).collect(),
        findings: findings.as_slice(),
    };
    super::line(&report, out)
}

#[derive(Serialize)]
struct Report<'a> {
    systems: Vec<SystemView<'a>>,
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct SystemView<'a> {
    id: &'a str,
    title: &'a str,
    version: Option<&'a str>,
    document: Option<DocumentView<'a>>,
    roles: Vec<RoleView<'a>>,
    requirements: Vec<RequirementView<'a>>,
}

#[derive(Serialize)]
struct DocumentView<'a> {
    title: &'a str,
    file: Option<&'a str>,
}

#[derive(Serialize)]
struct RoleView<'a> {
    id: &'a str,
    title: Option<&'a str>,
    names: Vec<String>,
}

#[derive(Serialize)]
struct RequirementView<'a> {
    id: &'a str,
    from: &'a str,
    to: &'a str,
    services: Vec<ServiceView>,
    direction: &'static str,
    necessity: &'static str,
    condition: Option<&'a str>,
    application: Option<&'a str>,
    purpose: Option<&'a str>,
    provenance: Option<ProvenanceView<'a>>,
    doubts: &'a [String],
}

#[derive(Serialize)]
struct ServiceView {
    protocol: String,
    first: Option<u16>,
    last: Option<u16>,
}

#[derive(Serialize)]
struct ProvenanceView<'a> {
    section: &'a str,
    row: u32,
}

impl<'a> SystemView<'a> {
    fn new(system: &'a System) -> Self {
        Self {
            id: system.id.as_str(),
            title: &system.title,
            version: system.version.as_deref(),
            document: system.document.as_ref().map(|document| DocumentView {
                title: &document.title,
                file: document.file.as_deref(),
            }),
            roles: system.roles.iter().map(RoleView::new).collect(),
            requirements: system
                .requirements
                .iter()
                .map(|requirement| RequirementView::new(system, requirement))
                .collect(),
        }
    }
}

impl<'a> RoleView<'a> {
    fn new(role: &'a Role) -> Self {
        Self {
            id: role.id.as_str(),
            title: role.title.as_deref(),
            names: role.names.iter().map(ToString::to_string).collect(),
        }
    }
}

impl<'a> RequirementView<'a> {
    fn new(system: &'a System, requirement: &'a Requirement) -> Self {
        Self {
            id: requirement.id.as_str(),
            from: system.role_id(requirement.from),
            to: system.role_id(requirement.to),
            services: requirement
                .services
                .iter()
                .copied()
                .map(ServiceView::new)
                .collect(),
            direction: requirement.direction.as_str(),
            necessity: requirement.necessity.as_str(),
            condition: requirement.necessity.condition(),
            application: requirement.application.as_deref(),
            purpose: requirement.purpose.as_deref(),
            provenance: requirement
                .provenance
                .as_ref()
                .map(|provenance| ProvenanceView {
                    section: &provenance.section,
                    row: provenance.row,
                }),
            doubts: &requirement.doubts,
        }
    }
}

impl ServiceView {
    fn new(service: Service) -> Self {
        Self {
            protocol: service.protocol().json_text(),
            first: service.first(),
            last: service.last(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &Value) {
        let reading = Matrix::read_text("test.yaml", text);
        let mut out = Vec::new();
        json(&reading.matrix, &reading.findings, &mut out).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), *expect);
    }

    #[test]
    fn json_has_every_field_of_the_contract() {
        check(
            "system: x\ntitle: X\nversion: '2'\ndocument: {title: D, file: d.txt}\n\
             roles: {a: {title: A}, b: {names: [B.example.org, 10.0.0.0/8, tag:T]}}\nrequirements:\n\
             - {id: full, from: a, to: b, services: [tcp/80, udp/5-9, sctp/7, icmp, icmp/8, gre, vrrp],\n   \
                direction: both, necessity: conditional, condition: c, application: p, purpose: q,\n   \
                provenance: {section: S, row: 3}, doubts: [d]}\n\
             - {id: bare, from: localhost, to: a, services: []}\n",
            &json!({
                "systems": [{
                    "id": "x", "title": "X", "version": "2", "document": {"title": "D", "file": "d.txt"},
                    "roles": [
                        {"id": "a", "title": "A", "names": []},
                        {"id": "b", "title": null, "names": ["b.example.org", "10.0.0.0/8", "tag:T"]},
                    ],
                    "requirements": [
                        {
                            "id": "full", "from": "a", "to": "b",
                            "services": [
                                {"protocol": "tcp", "first": 80, "last": 80},
                                {"protocol": "udp", "first": 5, "last": 9},
                                {"protocol": "132", "first": 7, "last": 7},
                                {"protocol": "icmp", "first": null, "last": null},
                                {"protocol": "icmp", "first": 8, "last": 8},
                                {"protocol": "47", "first": null, "last": null},
                                {"protocol": "vrrp", "first": null, "last": null},
                            ],
                            "direction": "both", "necessity": "conditional", "condition": "c",
                            "application": "p", "purpose": "q",
                            "provenance": {"section": "S", "row": 3}, "doubts": ["d"],
                        },
                        {
                            "id": "bare", "from": "localhost", "to": "a", "services": [],
                            "direction": "outbound", "necessity": "required", "condition": null,
                            "application": null, "purpose": null, "provenance": null, "doubts": [],
                        },
                    ],
                }],
                "findings": [
                    {
                        "severity": "note", "code": "doubt", "file": "test.yaml", "line": 7, "column": 3,
                        "message": "doubt about `full`: d",
                    },
                    {
                        "severity": "warning", "code": "overlapping-services", "file": "test.yaml",
                        "line": 7, "column": 72,
                        "message": "`icmp/8` overlaps with `icmp` of the same requirement: write services without common ports",
                    },
                    {
                        "severity": "note", "code": "no-services", "file": "test.yaml", "line": 10, "column": 3,
                        "message": "`bare` names no service: no flow can be judged by it, so it stays unobservable",
                    },
                ],
            }),
        );
    }

    #[test]
    fn a_system_with_an_error_is_not_listed() {
        check(
            "system: x\ntitle: X\nrequirements: {}\n",
            &json!({
                "systems": [],
                "findings": [{
                    "severity": "error", "code": "wrong-type", "file": "test.yaml", "line": 3, "column": 15,
                    "message": "`requirements` must be a list, not a mapping",
                }],
            }),
        );
    }
}
