//! What the matrix says of a flow, in words and as JSON: the roles of its ends with the reasons, what covers it, and what it
//! nearly met.

use std::io::{self, Write};
use std::path::Path;

use flowproof_common::classify::Verdict;
use flowproof_common::protocol;
use serde::Serialize;

use super::seen::{Seen, SeenView};
use crate::cli::snippet;
use crate::matrix::compiled::{BoundRole, Compiled};
use crate::matrix::{Binding, Protocol, RoleRef, ServiceKey};
use crate::site::tags::TagBook;
use crate::verdict::explain::{Because, End, Explanation, Host};
use crate::verdict::near_miss::service_text;
use crate::verdict::{Asked, role_name};

/// An explanation with what is needed to put it into words.
pub(super) struct Page<'a> {
    pub(super) compiled: &'a Compiled,
    pub(super) site: &'a Path,
    pub(super) tags: &'a TagBook,
    pub(super) asked: &'a Asked,
    pub(super) explanation: &'a Explanation,
    pub(super) seen: Option<&'a Seen>,
}

impl Page<'_> {
    pub(super) fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let explanation = self.explanation;
        writeln!(
            out,
            "{} -> {} {}: {}",
            explanation.initiator.host,
            explanation.responder.host,
            service_text(self.asked.protocol, self.asked.service),
            explanation.verdict.name()
        )?;
        self.end("initiator", &explanation.initiator, out)?;
        self.end("responder", &explanation.responder, out)?;
        match explanation.verdict {
            Verdict::Expected => {
                for key in &explanation.requirements {
                    writeln!(
                        out,
                        "covered by {}: {}",
                        self.compiled.matrix.service_id(*key),
                        self.row(*key)
                    )?;
                }
            }
            Verdict::Unexpected => {
                writeln!(out, "no requirement covers it")?;
                if explanation.near_misses.is_empty() {
                    writeln!(out, "no requirement comes near it")?;
                }
                for miss in &explanation.near_misses {
                    writeln!(
                        out,
                        "near miss ({}): {}: {}",
                        miss.kind.name().replace('_', " "),
                        self.compiled.matrix.service_id(miss.service),
                        miss.detail
                    )?;
                }
            }
            Verdict::Unscoped => writeln!(
                out,
                "neither end has a role, so the matrix says nothing of it"
            )?,
        }
        if explanation.depends_on_name {
            writeln!(
                out,
                "the verdict depends on a name, and an address has none by itself: give the name in its place; the daemon waits \
                 until DNS or the head of the conversation tells it"
            )?;
        }
        match self.seen {
            None => writeln!(
                out,
                "what was seen of it was not asked for: --capture FILE looks into captures, --ledger into what a daemon wrote down, --daemon asks a running daemon"
            ),
            Some(seen) => seen.text(out),
        }
    }

    fn end(&self, name: &str, end: &End, out: &mut dyn Write) -> io::Result<()> {
        if end.roles.is_empty() {
            return writeln!(out, "{name} {} has no role: no binding covers it", end.host);
        }
        for (role, because) in &end.roles {
            writeln!(
                out,
                "{name} {} is {}: {}",
                end.host,
                role_name(self.compiled, *role),
                self.because(*because, *role)
            )?;
        }
        Ok(())
    }

    fn because(&self, because: Because, role: BoundRole) -> String {
        match because {
            Because::Site(prefix) => self.by_site(&Binding::Prefix(prefix), role),
            Because::Pack(prefix) => self.by_pack(&Binding::Prefix(prefix), role),
            Because::SiteName(number) => self.by_site(&self.name(number), role),
            Because::PackName(number) => self.by_pack(&self.name(number), role),
            Because::LimitedBroadcast => "the limited broadcast address".to_owned(),
            Because::DirectedBroadcast(prefix) => {
                format!("the broadcast address of {prefix}, which is bound")
            }
            Because::Loopback => "a loopback address".to_owned(),
        }
    }

    /// A name or pattern by its number.
    fn name(&self, number: u32) -> Binding {
        let name = &self.compiled.names[number as usize];
        Binding::Name(name.pattern.clone())
    }

    fn by_site(&self, binding: &Binding, role: BoundRole) -> String {
        let site = snippet::visible(&self.site.display().to_string());
        match self.tag_with(binding, role) {
            Some((tag, true)) => format!(
                "the rule pack `{}` names tag:{tag}, which has {binding}",
                self.compiled.matrix.system(role.system).id,
            ),
            Some((tag, false)) => format!("{site} binds it to tag:{tag}, which has {binding}"),
            None => format!("{site} binds it to {binding}"),
        }
    }

    fn by_pack(&self, binding: &Binding, role: BoundRole) -> String {
        format!(
            "the rule pack `{}` names {binding}",
            self.compiled.matrix.system(role.system).id
        )
    }

    /// The tag through which a role has a prefix or name that is not bound itself, and whether the pack names it.
    fn tag_with(&self, wanted: &Binding, role: BoundRole) -> Option<(&str, bool)> {
        let (_, bound) = self
            .compiled
            .bindings
            .iter()
            .find(|(other, _)| *other == role)?;
        // What is bound itself comes first, then what the tags stand for.
        let tag = bound
            .iter()
            .take_while(|binding| *binding != wanted)
            .find_map(|binding| match binding {
                Binding::Tag(tag) => self
                    .tags
                    .get(tag)
                    .filter(|known| known.bindings().any(|binding| binding == *wanted))
                    .map(|_| tag),
                Binding::Prefix(_) | Binding::Name(_) => None,
            })?;
        let pack = match role.role {
            RoleRef::Declared(index) => self
                .compiled
                .matrix
                .system(role.system)
                .role(index)
                .names
                .contains(&Binding::Tag(tag.clone())),
            RoleRef::BuiltIn(_) => false,
        };
        Some((tag, pack))
    }

    /// What a requirement says, on one line.
    fn row(&self, key: ServiceKey) -> String {
        let system = self.compiled.matrix.system(key.system);
        let row = self.compiled.matrix.requirement(key);
        let mut text = format!(
            "`{}` to `{}`, {}, {}",
            system.role_id(row.from),
            system.role_id(row.to),
            row.direction.as_str(),
            row.necessity.as_str()
        );
        if let Some(purpose) = &row.purpose {
            text.push_str(", ");
            text.push_str(&snippet::visible(purpose));
        }
        if let Some(provenance) = &row.provenance {
            let section = snippet::visible(&provenance.section);
            text.push_str(&format!(" ({section}, row {})", provenance.row));
        }
        text
    }

    pub(super) fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        let explanation = self.explanation;
        let ports = protocol::has_ports(self.asked.protocol);
        let icmp = matches!(self.asked.protocol, protocol::ICMP | protocol::ICMPV6);
        let report = Report {
            initiator: self.end_view(&explanation.initiator),
            responder: self.end_view(&explanation.responder),
            protocol: Protocol::from_number(self.asked.protocol).json_text(),
            port: (ports || icmp).then_some(self.asked.service),
            verdict: explanation.verdict.name(),
            requirements: explanation
                .requirements
                .iter()
                .map(|key| self.compiled.matrix.service_id(*key))
                .collect(),
            near_misses: explanation
                .near_misses
                .iter()
                .map(|miss| MissView {
                    kind: miss.kind.name(),
                    requirement: self.compiled.matrix.service_id(miss.service),
                    detail: &miss.detail,
                })
                .collect(),
            depends_on_name: explanation.depends_on_name,
            seen: self.seen.map(Seen::view),
        };
        crate::cli::line(&report, out)
    }

    fn end_view(&self, end: &End) -> EndView {
        let (address, names) = match &end.host {
            Host::Address(address) => (Some(address.to_string()), Vec::new()),
            Host::Name(name) => (None, vec![name.to_string()]),
        };
        EndView {
            address,
            names,
            roles: end
                .roles
                .iter()
                .map(|(role, because)| RoleView {
                    role: role_name(self.compiled, *role),
                    because: self.because(*because, *role),
                })
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    initiator: EndView,
    responder: EndView,
    protocol: String,
    port: Option<u16>,
    verdict: &'static str,
    requirements: Vec<String>,
    near_misses: Vec<MissView<'a>>,
    depends_on_name: bool,
    seen: Option<SeenView<'a>>,
}

#[derive(Serialize)]
struct EndView {
    /// None if the end is asked about by its name.
    address: Option<String>,
    names: Vec<String>,
    roles: Vec<RoleView>,
}

#[derive(Serialize)]
struct RoleView {
    role: String,
    because: String,
}

#[derive(Serialize)]
struct MissView<'a> {
    kind: &'static str,
    requirement: String,
    detail: &'a str,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::cli::explain::question::{Question, parse};
    use crate::cli::explain::seen::Source;
    use crate::export::requirement_line::{RequirementLine, ServiceLine};
    use crate::matrix::Matrix;
    use crate::matrix::compile::HostAddresses;
    use crate::matrix::installed::{Installed, SlotDirectory};
    use crate::site::Site;
    use crate::verdict::Explainer;

    fn explained(flow: &str, seen: Option<&Seen>) -> (String, Value) {
        let text = "site: x\nsystems: [s]\nroles: {s/client: [10.20.0.0/16]}\n";
        explained_by(SERVER, text, flow, seen)
    }

    const SERVER: &str = "system: s\ntitle: S\nroles: {client: , server: {names: [10.1.0.10]}}\nrequirements:\n\
        - {id: web, from: client, to: server, services: [tcp/443], purpose: pages, \
        provenance: {section: Ports, row: 2}}\n\
        - {id: find, from: client, to: broadcast, services: [udp/67]}\n";

    fn explained_by(matrix: &str, text: &str, flow: &str, seen: Option<&Seen>) -> (String, Value) {
        let reading = Matrix::read_text("s.yaml", matrix);
        let site = Site::read_text("site.yaml", text, &reading).site.unwrap();
        let bindings = site.role_bindings(&reading.matrix, &TagBook::default());
        let compiled =
            Compiled::compile(Arc::new(reading.matrix), bindings, &HostAddresses::Unknown).unwrap();
        let installed = Installed::new(Arc::new(compiled), SlotDirectory::default());
        let explainer = Explainer::new(Arc::new(installed));
        let Question { asked, names } = parse(&[flow.to_owned()]).unwrap();
        let explanation = explainer.explain(&asked, &names);
        let page = Page {
            compiled: &explainer.installed().compiled,
            site: Path::new("site.yaml"),
            tags: &TagBook::default(),
            asked: &asked,
            explanation: &explanation,
            seen,
        };
        let (mut text, mut json) = (Vec::new(), Vec::new());
        page.text(&mut text).unwrap();
        page.json(&mut json).unwrap();
        (
            String::from_utf8(text).unwrap(),
            serde_json::from_slice(&json).unwrap(),
        )
    }

    #[test]
    fn an_expected_flow_names_its_requirement() {
        let mut seen = Seen {
            flows: 3,
            by_outcome: BTreeMap::from([("answered".to_owned(), 1), ("no_answer".to_owned(), 2)]),
            first_seen: Some("1970-01-01T00:00:00.000000000Z".to_owned()),
            last_seen: Some("1970-01-01T00:00:01.500000000Z".to_owned()),
            ..Seen::new(Source::Capture)
        };
        seen.add_evidence("no_answer", &["2 SYNs, no answer".to_owned()]);
        seen.add_evidence("no_answer", &["2 SYNs, no answer".to_owned()]);
        seen.requirements.push(RequirementLine {
            id: "s/web".to_owned(),
            state: "degraded".to_owned(),
            cause: Some("no_answer".to_owned()),
            place: Some("path".to_owned()),
            confidence: Some("medium".to_owned()),
            since: None,
            ratio: None,
            services: vec![ServiceLine {
                service: "tcp/443".to_owned(),
                state: "degraded".to_owned(),
                cause: Some("no_answer".to_owned()),
                since: None,
                flows: 3,
                answered: 1,
                failed: 2,
                first_seen: None,
                last_seen: Some("1970-01-01T00:00:01.500000000Z".to_owned()),
                last_failure: None,
            }],
        });
        let (text, json) = explained("10.20.3.4 10.1.0.10:443/tcp", Some(&seen));
        assert_eq!(
            text,
            "10.20.3.4 -> 10.1.0.10 tcp/443: expected\n\
             initiator 10.20.3.4 is s/client: site.yaml binds it to 10.20.0.0/16\n\
             responder 10.1.0.10 is s/server: the rule pack `s` names 10.1.0.10\n\
             covered by s/web#tcp/443: `client` to `server`, outbound, required, pages (Ports, row 2)\n\
             seen in the capture: 3 flows (1 answered, 2 no answer), first at 1970-01-01T00:00:00.000000000Z, \
             last at 1970-01-01T00:00:01.500000000Z\n    \
                 no answer: 2 SYNs, no answer\n\
             s/web in the capture: degraded (no answer, at path, medium confidence)\n    \
                 tcp/443 degraded: 3 flows, 1 answered, 2 failed, last seen 1970-01-01T00:00:01.500000000Z\n"
        );
        assert_eq!(json["verdict"], "expected");
        assert_eq!(json["requirements"], json!(["s/web#tcp/443"]));
        let mut got = json["seen"].clone();
        let requirements = got["requirements"].take();
        assert_eq!(
            got,
            json!({
                "source": "capture",
                "flows": 3, "by_outcome": {"answered": 1, "no_answer": 2},
                "first_seen": "1970-01-01T00:00:00.000000000Z",
                "last_seen": "1970-01-01T00:00:01.500000000Z",
                "evidence": ["no answer: 2 SYNs, no answer"],
                "requirements": null, "notes": [],
            })
        );
        assert_eq!(requirements[0]["type"], "requirement");
        assert_eq!(requirements[0]["services"][0]["failed"], 2);
    }

    #[test]
    fn an_unexpected_flow_has_near_misses() {
        let (text, json) = explained("10.20.3.4 10.1.0.10:8443/tcp", None);
        assert!(
            text.ends_with(
                "no requirement covers it\n\
                 near miss (other port): s/web#tcp/443: tcp/443 is allowed from `client` to `server`, tcp/8443 is not\n\
                 what was seen of it was not asked for: --capture FILE looks into captures, --ledger into what a daemon wrote down, --daemon asks a running daemon\n"
            ),
            "{text}"
        );
        assert_eq!(
            json,
            json!({
                "initiator": {"address": "10.20.3.4", "names": [], "roles": [
                    {"role": "s/client", "because": "site.yaml binds it to 10.20.0.0/16"},
                ]},
                "responder": {"address": "10.1.0.10", "names": [], "roles": [
                    {"role": "s/server", "because": "the rule pack `s` names 10.1.0.10"},
                ]},
                "protocol": "tcp", "port": 8443, "verdict": "unexpected", "requirements": [],
                "near_misses": [{
                    "kind": "other_port", "requirement": "s/web#tcp/443",
                    "detail": "tcp/443 is allowed from `client` to `server`, tcp/8443 is not",
                }],
                "depends_on_name": false, "seen": null,
            })
        );
    }

    const CLOUD: &str = "system: s\ntitle: S\nroles: {client: , cloud: {names: [\"*.cloud.example\"]}, files: , world: }\n\
        requirements:\n\
        - {id: login, from: client, to: cloud, services: [tcp/443]}\n\
        - {id: save, from: client, to: files, services: [tcp/445]}\n\
        - {id: back, from: cloud, to: client, services: [tcp/8443]}\n";
    const CLOUD_SITE: &str = "site: x\nsystems: [s]\n\
        roles: {s/client: [10.20.0.0/16], s/files: [files.example, FILES.cloud.example]}\n";

    #[test]
    fn a_name_has_roles_by_the_patterns_that_it_fits() {
        let explain = |flow| explained_by(CLOUD, CLOUD_SITE, flow, None);
        let (text, json) = explain("10.20.3.4 login.cloud.example:443/tcp");
        assert!(
            text.starts_with(
                "10.20.3.4 -> login.cloud.example tcp/443: expected\n\
                 initiator 10.20.3.4 is s/client: site.yaml binds it to 10.20.0.0/16\n\
                 responder login.cloud.example is s/cloud: the rule pack `s` names *.cloud.example\n\
                 covered by s/login#tcp/443: `client` to `cloud`"
            ),
            "{text}"
        );
        assert_eq!(
            json["responder"],
            json!({"address": null, "names": ["login.cloud.example"], "roles": [
                {"role": "s/cloud", "because": "the rule pack `s` names *.cloud.example"},
            ]})
        );
        assert_eq!(json["requirements"], json!(["s/login#tcp/443"]));

        // One that two roles have is covered by the rows of both.
        for (port, row) in [(443, "s/login#tcp/443"), (445, "s/save#tcp/445")] {
            let flow = format!("10.20.3.4 files.cloud.example:{port}/tcp");
            let (text, json) = explained_by(CLOUD, CLOUD_SITE, &flow, None);
            assert_eq!(json["requirements"], json!([row]), "{text}");
            assert!(
                text.contains("is s/files: site.yaml binds it to files.cloud.example\n"),
                "{text}"
            );
        }
        let (_, json) = explain("login.cloud.example 10.20.3.4:8443/tcp");
        assert_eq!(json["requirements"], json!(["s/back#tcp/8443"]));
    }

    #[test]
    fn a_name_that_nothing_covers_has_near_misses() {
        let explain = |flow| explained_by(CLOUD, CLOUD_SITE, flow, None);
        let (text, json) = explain("10.20.3.4 cloud.example:443/tcp");
        assert!(
            text.contains("responder cloud.example has no role: no binding covers it\n"),
            "{text}"
        );
        assert_eq!(json["verdict"], "unexpected");
        assert_eq!(
            json["near_misses"][0]["kind"], "other_destination",
            "{text}"
        );
        assert_eq!(json["near_misses"][0]["requirement"], "s/login#tcp/443");
        let (text, json) = explain("10.20.3.4 login.cloud.example:9443/tcp");
        assert_eq!(json["near_misses"][0]["kind"], "other_port", "{text}");
        let (_, json) = explain("192.0.2.1 cloud.example:443/tcp");
        assert_eq!(json["verdict"], "unscoped");
    }

    #[test]
    fn an_address_that_may_have_a_name_says_so() {
        let explain = |flow| explained_by(CLOUD, CLOUD_SITE, flow, None);
        let (text, json) = explain("10.20.3.4 192.0.2.1:443/tcp");
        assert_eq!(json["depends_on_name"], true);
        assert!(text.contains("give the name in its place"), "{text}");
        // No row with a name is about this port.
        let (text, json) = explain("10.20.3.4 192.0.2.1:22/tcp");
        assert_eq!(json["depends_on_name"], false);
        assert!(!text.contains("give the name"), "{text}");
    }

    #[test]
    fn a_name_is_in_the_prefix_of_the_whole_world() {
        let site = CLOUD_SITE.replace("roles: {", "roles: {s/world: [0.0.0.0/0], ");
        let (text, json) =
            explained_by(CLOUD, &site, "10.20.3.4 login.cloud.example:443/tcp", None);
        assert_eq!(json["verdict"], "expected", "{text}");
        let roles: Vec<&Value> = json["responder"]["roles"]
            .as_array()
            .unwrap()
            .iter()
            .map(|role| &role["role"])
            .collect();
        assert_eq!(roles, ["s/cloud", "s/world"], "{text}");
    }

    #[test]
    fn built_in_roles_say_why_and_unbound_ends_too() {
        let (text, _) = explained("10.20.3.4 10.20.255.255:67/udp", None);
        assert!(
            text.contains("is s/broadcast: the broadcast address of 10.20.0.0/16, which is bound"),
            "{text}"
        );
        let (text, json) = explained("192.0.2.1 192.0.2.2/gre", None);
        assert!(
            text.contains("192.0.2.1 has no role: no binding covers it"),
            "{text}"
        );
        assert!(text.contains("neither end has a role"), "{text}");
        assert_eq!(
            (&json["protocol"], &json["port"]),
            (&json!("47"), &Value::Null)
        );
    }
}
