//! The flow that is asked about, as people write it: two ends, a port and a protocol, with DNS names in place of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowproof_common::protocol;

use crate::engine::flows::Query;
use crate::matrix::{NamePattern, Protocol};
use crate::names::answer::Name;
use crate::verdict::Asked;
use crate::verdict::explain::Host;

/// Why a text is no flow, with the remedy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FlowError {
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
pub(super) struct Question {
    /// The flow; the address of an end that has a name is the unspecified one.
    pub(super) asked: Asked,
    /// Names of the ends, the initiator's first.
    pub(super) names: [Option<Name>; 2],
}

impl Question {
    /// What finds its flows, and by the ends' addresses no others; those of named ends are not known.
    pub(super) fn query(&self) -> Query {
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
    pub(super) fn has_names<N: AsRef<str>>(&self, initiator: &[N], responder: &[N]) -> bool {
        let has = |wanted: &Option<Name>, known: &[N]| {
            wanted
                .as_ref()
                .is_none_or(|wanted| known.iter().any(|name| name.as_ref() == &**wanted))
        };
        has(&self.names[0], initiator) && has(&self.names[1], responder)
    }

    pub(super) fn has_a_name(&self) -> bool {
        self.names.iter().any(Option::is_some)
    }
}

pub(super) fn parse(words: &[String]) -> Result<Question, FlowError> {
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use flowproof_common::address::Address;

    use super::*;
    use crate::cli::Cli;

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
}
