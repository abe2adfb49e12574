//! `flowproof explain`: what the matrix says of one flow and why, and what was seen of it, for whoever wonders about a line
//! of a firewall's log.

pub(super) mod daemon;
mod seen;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowproof_common::classify::Verdict;
use flowproof_common::protocol;
use serde::Serialize;

use super::replay::Judged;
use super::tags::TagArguments;
use super::{Error, Format, Outcome, print, snippet};
use crate::capture::file::open_all;
use crate::engine::flows::Query;
use crate::matrix::compiled::{BoundRole, Compiled};
use crate::matrix::{Binding, NamePattern, Protocol, RoleRef, ServiceKey};
use crate::names::answer::Name;
use crate::site::tags::TagBook;
use crate::verdict::explain::{Because, End, Explanation, Host};
use crate::verdict::near_miss::service_text;
use crate::verdict::{Asked, role_name};
use seen::{Look, Seen};

pub(super) use daemon::AskError;

/// Arguments of `flowproof explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Matrix files, or folders of them (*.yaml, *.yml)
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    matrix: Vec<PathBuf>,
    /// The site file that says which systems are deployed and what their roles are bound to
    #[arg(long, value_name = "FILE")]
    site: PathBuf,
    #[command(flatten)]
    tags: TagArguments,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    look: Look,
    /// The arrow between the ends, which may be left out
    #[arg(short = '>', hide = true)]
    arrow: bool,
    /// Who opens the conversation, and with whom: `10.20.3.4 10.1.0.10:8443/tcp`,
    /// `'2001:db8::4 -> [2001:db8::10]:53/udp'`, `10.20.3.4 10.1.0.10/icmp`, `10.20.3.4 login.example.com:443/tcp`.
    /// A DNS name stands for whatever address has it.
    /// Quote the arrow: the shell takes its point for a redirection. Put `--` before it after a list of files.
    /// The initiator's port only counts if it is given
    #[arg(required = true, num_args = 1..=3, value_name = "FLOW")]
    flow: Vec<String>,
}

/// Explains a flow. An unexpected one is [`Outcome::FallsShort`].
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let question = parse(&arguments.flow).map_err(|error| Error::Usage(error.to_string()))?;
    let files = open_all(&arguments.look.capture)?;
    let tags = arguments.tags.options();
    let Some(mut judged) = Judged::read(&arguments.matrix, Some(&arguments.site), &tags)? else {
        return Ok(Outcome::FallsShort);
    };
    let compiled = Arc::clone(&judged.installed().compiled);
    let explanation = judged.explainer().explain(&question.asked, &question.names);
    let mut requirements: Vec<String> = explanation
        .requirements
        .iter()
        .map(|key| compiled.matrix.requirement_id(key.system, key.requirement))
        .collect();
    // A requirement may cover it by several services.
    requirements.dedup();
    let mut complaints = Vec::new();
    let seen = if let Some(url) = &arguments.look.daemon {
        let verdict = (!explanation.depends_on_name).then_some(explanation.verdict.name());
        Some(daemon::ask(url, &question, verdict, &requirements)?)
    } else if files.is_empty() {
        None
    } else {
        let (seen, incomplete) = Seen::in_files(files, &mut judged, &question, &requirements)
            .map_err(|error| Error::Usage(error.to_string()))?;
        complaints = incomplete;
        Some(seen)
    };
    let page = Page {
        compiled: &compiled,
        site: &arguments.site,
        tags: judged.tags(),
        asked: &question.asked,
        explanation: &explanation,
        seen: seen.as_ref(),
    };
    print(|out| match arguments.format {
        Format::Text => page.text(out),
        Format::Json => page.json(out),
    })?;
    if !complaints.is_empty() {
        return Err(Error::Partly(complaints));
    }
    Ok(match explanation.verdict {
        Verdict::Unexpected => Outcome::FallsShort,
        Verdict::Expected | Verdict::Unscoped => Outcome::Fine,
    })
}

/// Why a text is no flow, with the remedy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum FlowError {
    #[error(
        "the shell took the `>` of `->` for a redirection: quote the flow, or leave the arrow out"
    )]
    Redirected,
    #[error("a flow has two ends, not {0}: write `10.20.3.4 10.1.0.10:8443/tcp`")]
    Ends(usize),
    #[error(
        "`{0}` is neither an address nor a DNS name: write one, with a port as `10.1.0.10:443`, `[2001:db8::10]:443` or `login.example.com:443`"
    )]
    Host(String),
    #[error("`{0}` is a pattern: write one of the names that it stands for")]
    Pattern(String),
    #[error("`{0}` names no protocol: end it with `/tcp`, `/udp`, `/icmp` or another protocol")]
    NoProtocol(String),
    #[error("{0}")]
    Protocol(String),
    #[error("`{0}` has no port: write `{1}:443/{2}`")]
    NoPort(String, String, Protocol),
    #[error("`{0}`: {1} has no ports, write the address without one")]
    Portless(String, Protocol),
    #[error("one end is IPv4 and the other IPv6: a flow has one version at both ends")]
    Families,
    #[error("`{0}` is IPv{1}, which does not carry {2}: write `/{3}`")]
    WrongIcmp(Host, u8, Protocol, Protocol),
}

/// What is asked about.
#[derive(Debug)]
struct Question {
    /// The flow; the address of an end that has a name is the unspecified one.
    asked: Asked,
    /// Names of the ends, the initiator's first.
    names: [Option<Name>; 2],
}

impl Question {
    /// What finds its flows, and by the ends' addresses no others; those of named ends are not known.
    fn query(&self) -> Query {
        let mut query = Query::of(&self.asked);
        if self.names[0].is_some() {
            query.initiator = None;
        }
        if self.names[1].is_some() {
            query.responder = None;
        }
        query
    }

    /// Whether the ends of a flow, known by these names, are the ones that are asked about.
    fn has_names<N: AsRef<str>>(&self, initiator: &[N], responder: &[N]) -> bool {
        let has = |wanted: &Option<Name>, known: &[N]| {
            wanted
                .as_ref()
                .is_none_or(|wanted| known.iter().any(|name| name.as_ref() == &**wanted))
        };
        has(&self.names[0], initiator) && has(&self.names[1], responder)
    }

    fn has_a_name(&self) -> bool {
        self.names.iter().any(Option::is_some)
    }
}

fn parse(words: &[String]) -> Result<Question, FlowError> {
    let text = words.join(" ");
    if text.split_whitespace().any(|word| word == "-") {
        return Err(FlowError::Redirected);
    }
    let text = text.replace("->", " ");
    let ends: Vec<&str> = text.split_whitespace().collect();
    let [from, to] = ends.as_slice() else {
        return Err(FlowError::Ends(ends.len()));
    };
    let (initiator, initiator_port) = endpoint(from)?;
    let Some((end, service)) = to.split_once('/') else {
        return Err(FlowError::NoProtocol((*to).to_owned()));
    };
    let (responder, port) = endpoint(end)?;
    let families = [&initiator, &responder].map(|host| match host {
        Host::Address(address) => Some(address.is_ipv6()),
        Host::Name(_) => None,
    });
    if let [Some(one), Some(other)] = families
        && one != other
    {
        return Err(FlowError::Families);
    }
    // Names have addresses of both versions.
    let known = families[0].or(families[1]);
    let (name, number) = match service.split_once('/') {
        Some((name, number)) => (name, Some(number)),
        None => (service, None),
    };
    let mut protocol: Protocol = name
        .parse()
        .map_err(|error: crate::matrix::ServiceError| FlowError::Protocol(error.to_string()))?;
    let number = number
        .map(|number| {
            number
                .parse::<u16>()
                .map_err(|_| FlowError::Protocol(format!("`{number}` is not a port or ICMP type")))
        })
        .transpose()?;
    let is_ipv6 = known.unwrap_or(protocol == Protocol::Icmpv6);
    let service = match protocol {
        Protocol::Icmp | Protocol::Icmpv6 => {
            // People write ICMP and mean ping, whatever the version.
            if protocol == Protocol::Icmp && is_ipv6 && number.is_none() {
                protocol = Protocol::Icmpv6;
            }
            let right = if is_ipv6 {
                Protocol::Icmpv6
            } else {
                Protocol::Icmp
            };
            if protocol != right {
                let version = if is_ipv6 { 6 } else { 4 };
                // Whoever has an address says which version it is.
                let host = if families[1].is_some() {
                    responder
                } else {
                    initiator
                };
                return Err(FlowError::WrongIcmp(host, version, protocol, right));
            }
            let echo = if right == Protocol::Icmp {
                protocol::ICMP_ECHO_REQUEST
            } else {
                protocol::ICMPV6_ECHO_REQUEST
            };
            match (port, number) {
                (Some(_), _) => return Err(FlowError::Portless((*to).to_owned(), protocol)),
                (None, Some(kind)) if kind > u16::from(u8::MAX) => {
                    return Err(FlowError::Protocol(format!(
                        "ICMP type {kind} is out of range, use 0 to 255"
                    )));
                }
                (None, kind) => kind.unwrap_or(u16::from(echo)),
            }
        }
        _ if protocol.has_ports() => match (port, number) {
            (Some(port), None) | (None, Some(port)) => port,
            (None, None) | (Some(_), Some(_)) => {
                return Err(FlowError::NoPort(
                    (*to).to_owned(),
                    bracketed(&responder),
                    protocol,
                ));
            }
        },
        Protocol::Tcp | Protocol::Udp | Protocol::Vrrp | Protocol::Other(_) => {
            if port.or(number).is_some() {
                return Err(FlowError::Portless((*to).to_owned(), protocol));
            }
            0
        }
    };
    let (initiator, own_name) = split(initiator, is_ipv6);
    let (responder, peer_name) = split(responder, is_ipv6);
    Ok(Question {
        asked: Asked {
            initiator: initiator.into(),
            initiator_port,
            responder: responder.into(),
            protocol: protocol.number(),
            service,
        },
        names: [own_name, peer_name],
    })
}

/// The address of an end, and its name.
fn split(host: Host, is_ipv6: bool) -> (IpAddr, Option<Name>) {
    match host {
        Host::Address(address) => (address, None),
        Host::Name(name) if is_ipv6 => (Ipv6Addr::UNSPECIFIED.into(), Some(name)),
        Host::Name(name) => (Ipv4Addr::UNSPECIFIED.into(), Some(name)),
    }
}

/// An address or a name, with its port if it has one.
fn endpoint(text: &str) -> Result<(Host, Option<u16>), FlowError> {
    let error = || FlowError::Host(text.to_owned());
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Ok((
            Host::Address(socket.ip().to_canonical()),
            Some(socket.port()),
        ));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok((Host::Address(address.to_canonical()), None));
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port.parse().map_err(|_| error())?)),
        None => (text, None),
    };
    // As site files write names, international ones included.
    let name = NamePattern::new(name).map_err(|_| error())?;
    if name.is_wildcard() {
        return Err(FlowError::Pattern(text.to_owned()));
    }
    Ok((Host::Name(Name::from(name.as_str())), port))
}

fn bracketed(host: &Host) -> String {
    match host {
        Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
        Host::Address(IpAddr::V4(_)) | Host::Name(_) => host.to_string(),
    }
}

/// An explanation with what is needed to put it into words.
struct Page<'a> {
    compiled: &'a Compiled,
    site: &'a Path,
    tags: &'a TagBook,
    asked: &'a Asked,
    explanation: &'a Explanation,
    seen: Option<&'a Seen>,
}

impl Page<'_> {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
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
                "what was seen of it was not asked for: --capture FILE looks into captures, --daemon asks a running daemon"
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

    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
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
        serde_json::to_writer(&mut *out, &report)?;
        writeln!(out)
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
    seen: Option<seen::SeenView<'a>>,
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

    use clap::Parser;
    use flowproof_common::address::Address;
    use serde_json::{Value, json};

    use super::seen::Source;
    use super::*;
    use crate::cli::Cli;
    use crate::export::requirement_line::{RequirementLine, ServiceLine};
    use crate::matrix::Matrix;
    use crate::matrix::compile::HostAddresses;
    use crate::matrix::installed::{Installed, SlotDirectory};
    use crate::site::Site;
    use crate::verdict::Explainer;

    /// `initiator[:port] responder protocol service`, or a part of the error.
    #[track_caller]
    fn check(words: &[&str], expect: Result<&str, &str>) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        match (parse(&words), expect) {
            (Ok(Question { asked, names }), Ok(expect)) => {
                let port = asked
                    .initiator_port
                    .map_or(String::new(), |p| format!(":{p}"));
                let host = |address: Address, name: &Option<Name>| match name {
                    Some(name) => format!("{address}={name}"),
                    None => address.to_string(),
                };
                let got = format!(
                    "{}{port} {} {} {}",
                    host(asked.initiator, &names[0]),
                    host(asked.responder, &names[1]),
                    asked.protocol,
                    asked.service
                );
                assert_eq!(got, expect);
            }
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{words:?}: {error}");
            }
            (got, expect) => panic!("{words:?}: got {got:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn reads_flows() {
        let plain = Ok("10.20.3.4 10.1.0.10 6 8443");
        check(&["10.20.3.4", "->", "10.1.0.10:8443/tcp"], plain);
        check(&["10.20.3.4 -> 10.1.0.10:8443/tcp"], plain);
        check(&["10.20.3.4->10.1.0.10:8443/tcp"], plain);
        check(&["10.20.3.4", "10.1.0.10:8443/tcp"], plain);
        check(&["10.20.3.4", "10.1.0.10/tcp/8443"], plain);
        check(&["::ffff:10.20.3.4", "10.1.0.10:8443/TCP"], plain);
        check(
            &["10.20.3.4:5000", "10.1.0.10:53/udp"],
            Ok("10.20.3.4:5000 10.1.0.10 17 53"),
        );
        check(
            &["[2001:db8::4]:1", "[2001:db8::1]:443/tcp"],
            Ok("2001:db8::4:1 2001:db8::1 6 443"),
        );
        check(&["10.0.0.1", "10.0.0.2/icmp"], Ok("10.0.0.1 10.0.0.2 1 8"));
        check(
            &["10.0.0.1", "10.0.0.2/icmp/13"],
            Ok("10.0.0.1 10.0.0.2 1 13"),
        );
        check(&["::1", "2001:db8::1/icmp"], Ok("::1 2001:db8::1 58 128"));
        check(
            &["10.0.0.1", "224.0.0.18/vrrp"],
            Ok("10.0.0.1 224.0.0.18 112 0"),
        );
        check(&["10.0.0.1", "10.0.0.2/47"], Ok("10.0.0.1 10.0.0.2 47 0"));
    }

    #[test]
    fn reads_names_at_either_end() {
        check(
            &["10.0.0.1 -> Login.Example.COM.:443/tcp"],
            Ok("10.0.0.1 0.0.0.0=login.example.com 6 443"),
        );
        check(
            &["2001:db8::1", "bücher.example/udp/53"],
            Ok("2001:db8::1 ::=xn--bcher-kva.example 17 53"),
        );
        check(
            &["host:5000", "10.0.0.1:22/tcp"],
            Ok("0.0.0.0=host:5000 10.0.0.1 6 22"),
        );
        check(
            &["a.example", "b.example/icmp"],
            Ok("0.0.0.0=a.example 0.0.0.0=b.example 1 8"),
        );
        check(
            &["a.example", "b.example/icmpv6"],
            Ok("::=a.example ::=b.example 58 128"),
        );
        check(&["::1", "b.example/icmp"], Ok("::1 ::=b.example 58 128"));
        check(&["::1", "b.example/icmp/8"], Err("`::1` is IPv6, which"));
        check(
            &["10.0.0.1", "a.example/tcp"],
            Err("write `a.example:443/tcp`"),
        );
        check(
            &["10.0.0.1", "*.example.com:443/tcp"],
            Err("`*.example.com:443` is a pattern"),
        );
        check(
            &["10.0.0.1", "a_b c.example:443/tcp"],
            Err("two ends, not 3"),
        );
        check(&["10.0.0.1", "a..b:443/tcp"], Err("nor a DNS name"));
        check(&["10.0.0.1", "a.example:x/tcp"], Err("nor a DNS name"));
    }

    #[test]
    fn refuses_what_is_no_flow() {
        check(&["10.0.0.1", "-"], Err("quote the flow"));
        check(&["10.0.0.1"], Err("two ends, not 1"));
        check(
            &["10.0.0.1 10.0.0.2 10.0.0.3:1/tcp"],
            Err("two ends, not 3"),
        );
        check(
            &["10.0.0", "10.0.0.2:1/tcp"],
            Err("`10.0.0` is neither an address nor a DNS name"),
        );
        check(
            &["10.0.0.1", "10.0.0.2:99999/tcp"],
            Err("is neither an address"),
        );
        check(&["10.0.0.1", "10.0.0.2:443"], Err("names no protocol"));
        check(
            &["10.0.0.1", "10.0.0.2:443/tpc"],
            Err("`tpc` is not a protocol"),
        );
        check(
            &["10.0.0.1", "10.0.0.2/tcp"],
            Err("write `10.0.0.2:443/tcp`"),
        );
        check(&["::1", "::2/udp"], Err("write `[::2]:443/udp`"));
        check(&["10.0.0.1", "10.0.0.2:1/vrrp"], Err("vrrp has no ports"));
        check(&["10.0.0.1", "10.0.0.2:1/icmp"], Err("icmp has no ports"));
        check(&["10.0.0.1", "10.0.0.2/icmp/256"], Err("out of range"));
        check(&["10.0.0.1", "10.0.0.2/icmpv6"], Err("write `/icmp`"));
        check(&["10.0.0.1", "[::2]:1/tcp"], Err("one version"));
    }

    #[test]
    fn the_arrow_may_stand_alone_on_the_command_line() {
        for flow in [
            &["10.0.0.1", "->", "10.0.0.2:1/tcp"][..],
            &["10.0.0.1 -> 10.0.0.2:1/tcp"],
            &["10.0.0.1", "10.0.0.2:1/tcp"],
        ] {
            let head = ["flowproof", "explain", "--matrix", "m", "--site", "s"];
            let words = head.iter().chain(flow).chain(&["--format", "json"]);
            assert!(Cli::try_parse_from(words).is_ok(), "{flow:?}");
        }
        assert!(
            Cli::try_parse_from(["flowproof", "explain", "10.0.0.1", "10.0.0.2:1/tcp"]).is_err()
        );
    }

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
                 what was seen of it was not asked for: --capture FILE looks into captures, --daemon asks a running daemon\n"
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
