//! Flows against tables: chosen cases for what DESIGN words, and random small matrices against a second, naive
//! reading of the same semantics that scans every requirement for each flow.

use std::net::IpAddr;
use std::sync::Arc;

use flowproof_common::address::Address;
use flowproof_common::classify::{Verdict, judge, slot_of};
use flowproof_common::key::FlowKey;
use flowproof_common::packet::Packet;
use flowproof_common::protocol;
use flowproof_common::state::{Outcome, State};
use proptest::prelude::*;

use super::*;
use crate::matrix::installed::{Installed, SlotDirectory};
use crate::matrix::{
    Direction, Necessity, Requirement, RequirementId, Role, RoleId, RoleIndex, ServiceKey, System,
    SystemId,
};

/// `role = prefix prefix`, or `from -> to: service service` (`<-` inbound, `<>` both), one a line; `system id` begins
/// a system.
pub(crate) fn parse(text: &str) -> (Matrix, Vec<(BoundRole, Vec<Binding>)>) {
    let mut matrix = Matrix::default();
    let mut bindings = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(id) = line.strip_prefix("system ") {
            matrix.systems.push(System {
                id: SystemId::new(id).unwrap(),
                title: id.to_owned(),
                version: None,
                document: None,
                roles: Vec::new(),
                requirements: Vec::new(),
            });
            continue;
        }
        let index = SystemIndex::from_position(matrix.systems.len() - 1);
        let system = matrix.systems.last_mut().unwrap();
        if let Some((id, prefixes)) = line.split_once('=') {
            let role = RoleIndex::from_position(system.roles.len());
            system.roles.push(Role {
                id: RoleId::new(id.trim()).unwrap(),
                title: None,
                names: Vec::new(),
            });
            let bound = prefixes
                .split_whitespace()
                .map(|text| Binding::parse(text).unwrap().binding)
                .collect();
            bindings.push((
                BoundRole {
                    system: index,
                    role: RoleRef::Declared(role),
                },
                bound,
            ));
            continue;
        }
        let (ends, services) = line.split_once(':').unwrap();
        let mut words = ends.split_whitespace();
        let role = |id: &str| match BuiltInRole::from_id(id) {
            Some(role) => RoleRef::BuiltIn(role),
            None => RoleRef::Declared(system.find_role(id).unwrap()),
        };
        let from = role(words.next().unwrap());
        let direction = match words.next().unwrap() {
            "->" => Direction::Outbound,
            "<-" => Direction::Inbound,
            "<>" => Direction::Both,
            other => panic!("no direction: {other}"),
        };
        let to = role(words.next().unwrap());
        let id = RequirementId::new(&format!("r{}", system.requirements.len())).unwrap();
        system.requirements.push(Requirement {
            id,
            from,
            to,
            services: services
                .split_whitespace()
                .map(|text| text.parse().unwrap())
                .collect(),
            direction,
            necessity: Necessity::Required,
            application: None,
            purpose: None,
            provenance: None,
            doubts: Vec::new(),
        });
    }
    (matrix, bindings)
}

pub(crate) fn install(
    matrix: Matrix,
    bindings: Vec<(BoundRole, Vec<Binding>)>,
    host: &HostAddresses,
) -> Installed {
    let compiled = Compiled::compile(Arc::new(matrix), bindings, host).unwrap();
    Installed::new(Arc::new(compiled), SlotDirectory::default())
}

/// The flow that begins with a packet from `from` to `to`; `service` is the port or ICMP type.
fn flow(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    service: u16,
) -> (FlowKey, flowproof_common::key::Side, Packet) {
    let ports = flowproof_common::protocol::has_ports(protocol);
    let packet = Packet {
        source: Address::from(from),
        destination: Address::from(to),
        source_port: if ports { 61_000 } else { 0 },
        destination_port: if ports { service } else { 0 },
        protocol,
        tcp_flags: if protocol == 6 {
            flowproof_common::packet::tcp::SYN
        } else {
            0
        },
        icmp_type: if ports {
            0
        } else {
            u8::try_from(service).unwrap()
        },
        ..Packet::default()
    };
    let (key, sender) = FlowKey::of(&packet);
    (key, sender, packet)
}

/// The verdict and the ids of the covering services, sorted.
fn ask(installed: &Installed, flow_text: &str) -> String {
    let mut words = flow_text.split_whitespace();
    let from: IpAddr = words.next().unwrap().parse().unwrap();
    let to: IpAddr = words.next().unwrap().parse().unwrap();
    let service = words.next().unwrap();
    let (name, number) = service.split_once('/').unwrap_or((service, "0"));
    let protocol: Protocol = name.parse().unwrap();
    let (key, sender, _) = flow(from, to, protocol.number(), number.parse().unwrap());
    let slot = slot_of(installed, &key, sender).slot();
    let mut answer = vec![Verdict::of_slot(slot).name().to_owned()];
    answer.extend(
        installed
            .members(slot)
            .iter()
            .map(|key| installed.compiled.matrix.service_id(*key)),
    );
    answer.join(" ")
}

/// Each line of `flows` is a flow, `=>`, and what [`ask`] says.
fn check(text: &str, host: &[&str], flows: &str) {
    let (matrix, bindings) = parse(text);
    let host = if host.is_empty() {
        HostAddresses::Unknown
    } else {
        HostAddresses::Known(host.iter().map(|text| text.parse().unwrap()).collect())
    };
    let installed = install(matrix, bindings, &host);
    for line in flows.lines().filter(|line| !line.trim().is_empty()) {
        let (flow, answer) = line.split_once("=>").unwrap();
        assert_eq!(ask(&installed, flow), answer.trim(), "{flow} ({host:?})");
    }
}

#[test]
fn the_most_specific_prefix_wins_within_a_system() {
    check(
        "system a
         net = 10.0.0.0/8 2001:db8::/32
         server = 10.1.0.10 2001:db8::10
         net -> server: tcp/443
         system b
         all = 10.0.0.0/8
         all -> all: tcp/22",
        &[],
        "10.9.9.9 10.1.0.10 tcp/443 => expected a/r0#tcp/443
         10.1.0.10 10.1.0.10 tcp/443 => unexpected
         10.9.9.9 10.8.8.8 tcp/443 => unexpected
         10.9.9.9 10.1.0.10 tcp/22 => expected b/r0#tcp/22
         2001:db8::5 2001:db8::10 tcp/443 => expected a/r0#tcp/443
         2001:db8::5 10.1.0.10 tcp/443 => expected a/r0#tcp/443
         192.0.2.1 192.0.2.2 tcp/443 => unscoped
         192.0.2.1 10.1.0.10 tcp/443 => unexpected",
    );
}

#[test]
fn direction_tells_who_initiates_and_whose_port_it_is() {
    check(
        "system a
         x = 10.0.0.1
         y = 10.0.0.2
         x -> y: tcp/1
         x <- y: tcp/2
         x <> y: tcp/3",
        &[],
        "10.0.0.1 10.0.0.2 tcp/1 => expected a/r0#tcp/1
         10.0.0.2 10.0.0.1 tcp/1 => unexpected
         10.0.0.1 10.0.0.2 tcp/2 => unexpected
         10.0.0.2 10.0.0.1 tcp/2 => expected a/r1#tcp/2
         10.0.0.1 10.0.0.2 tcp/3 => expected a/r2#tcp/3
         10.0.0.2 10.0.0.1 tcp/3 => expected a/r2#tcp/3",
    );
}

#[test]
fn any_is_merged_into_exact_rules() {
    check(
        "system a
         x = 10.0.0.1
         y = 10.0.0.2
         z = 10.0.0.3
         x -> any: tcp/443
         any -> y: tcp/443 tcp/80
         x -> y: tcp/80-90
         any -> any: udp/53",
        &[],
        "10.0.0.1 10.0.0.2 tcp/443 => expected a/r0#tcp/443 a/r1#tcp/443
         10.0.0.1 10.0.0.3 tcp/443 => expected a/r0#tcp/443
         10.0.0.1 192.0.2.1 tcp/443 => expected a/r0#tcp/443
         192.0.2.1 10.0.0.2 tcp/443 => expected a/r1#tcp/443
         10.0.0.1 10.0.0.2 tcp/80 => expected a/r1#tcp/80 a/r2#tcp/80-90
         10.0.0.1 10.0.0.2 tcp/81 => expected a/r2#tcp/80-90
         192.0.2.1 192.0.2.2 udp/53 => expected a/r3#udp/53
         192.0.2.1 192.0.2.2 udp/54 => unscoped
         192.0.2.1 10.0.0.3 tcp/443 => unexpected",
    );
}

#[test]
fn icmp_covers_echo_of_both_families_and_its_errors() {
    check(
        "system a
         x = 10.0.0.1 2001:db8::1
         y = 10.0.0.2 2001:db8::2
         z = 10.0.0.3 2001:db8::3
         x -> y: icmp
         x -> z: icmp/13 icmpv6",
        &[],
        "10.0.0.1 10.0.0.2 icmp/8 => expected a/r0#icmp
         10.0.0.2 10.0.0.1 icmp/8 => unexpected
         10.0.0.2 10.0.0.1 icmp/3 => expected a/r0#icmp
         10.0.0.1 10.0.0.2 icmp/11 => expected a/r0#icmp
         10.0.0.1 10.0.0.2 icmp/13 => unexpected
         2001:db8::1 2001:db8::2 icmpv6/128 => expected a/r0#icmp
         2001:db8::2 2001:db8::1 icmpv6/2 => expected a/r0#icmp
         10.0.0.1 10.0.0.3 icmp/8 => unexpected
         10.0.0.1 10.0.0.3 icmp/13 => expected a/r1#icmp/13
         2001:db8::1 2001:db8::3 icmpv6/128 => expected a/r1#icmpv6",
    );
}

#[test]
fn vrrp_covers_its_groups() {
    check(
        "system a
         lb = 10.0.0.1 10.0.0.2 2001:db8::1
         x = 10.0.0.9
         lb -> lb: vrrp tcp/80",
        &[],
        "10.0.0.1 224.0.0.18 vrrp => expected a/r0#vrrp
         2001:db8::1 ff02::12 vrrp => expected a/r0#vrrp
         10.0.0.1 10.0.0.2 vrrp => expected a/r0#vrrp
         10.0.0.9 224.0.0.18 vrrp => unexpected
         10.0.0.1 224.0.0.18 tcp/80 => unexpected
         10.0.0.1 224.0.0.19 vrrp => unexpected
         192.0.2.1 224.0.0.18 vrrp => unscoped",
    );
}

#[test]
fn broadcast_is_directed_too_and_keeps_the_roles_of_its_prefix() {
    check(
        "system a
         net = 10.0.1.0/24
         link = 10.0.2.0/31
         net -> broadcast: udp/67
         net -> net: udp/9",
        &[],
        "10.0.1.5 255.255.255.255 udp/67 => expected a/r0#udp/67
         10.0.1.5 10.0.1.255 udp/67 => expected a/r0#udp/67
         10.0.1.5 10.0.1.255 udp/9 => expected a/r1#udp/9
         10.0.1.5 10.0.1.254 udp/67 => unexpected
         10.0.1.5 10.0.2.1 udp/67 => unexpected
         192.0.2.1 255.255.255.255 udp/67 => unscoped",
    );
}

/// Also where no requirement names it: whoever asks a whole network is owed no answer.
#[test]
fn a_directed_broadcast_owes_no_answer() {
    let (matrix, bindings) = parse(
        "system a
         net = 10.0.1.0/24
         net -> net: udp/137",
    );
    let installed = install(matrix, bindings, &HostAddresses::Unknown);
    for (responder, to_group) in [
        ("10.0.1.255", true),
        ("10.0.1.254", false),
        ("10.0.2.255", false),
    ] {
        let packet = Packet {
            source: "10.0.1.5".parse::<IpAddr>().unwrap().into(),
            destination: responder.parse::<IpAddr>().unwrap().into(),
            source_port: 137,
            destination_port: 137,
            protocol: protocol::UDP,
            ..Packet::default()
        };
        let (key, sender) = FlowKey::of(&packet);
        let judgement = judge(&installed, &packet, &key, sender, true);
        assert_eq!(judgement.to_group, to_group, "{responder}");
        let state = State::new(&judgement, 1).after(&packet, sender);
        let expect = if to_group {
            Outcome::OneWay
        } else {
            Outcome::Pending
        };
        assert_eq!(state.outcome(), expect, "{responder}");
    }
}

#[test]
fn localhost_is_one_host_talking_to_itself() {
    let text = "system a
         x = 10.0.0.1
         y = 10.0.0.2
         x -> localhost: tcp/9000
         y -> localhost: tcp/9001";
    check(
        text,
        &[],
        "127.0.0.1 127.0.0.1 tcp/9000 => expected a/r0#tcp/9000
         127.0.0.1 127.0.0.53 tcp/9001 => expected a/r1#tcp/9001
         ::1 ::1 tcp/9000 => expected a/r0#tcp/9000
         127.0.0.1 127.0.0.1 tcp/9002 => unscoped
         10.0.0.1 10.0.0.1 tcp/9000 => expected a/r0#tcp/9000
         10.0.0.1 10.0.0.2 tcp/9000 => unexpected
         10.0.0.1 10.0.0.1 tcp/9001 => unexpected",
    );
    check(
        text,
        &["10.0.0.1", "192.0.2.7"],
        "127.0.0.1 127.0.0.1 tcp/9000 => expected a/r0#tcp/9000
         127.0.0.1 127.0.0.1 tcp/9001 => unscoped
         10.0.0.1 10.0.0.1 tcp/9000 => expected a/r0#tcp/9000
         192.0.2.7 10.0.0.1 tcp/9000 => expected a/r0#tcp/9000
         10.0.0.2 10.0.0.2 tcp/9001 => unexpected",
    );
}

#[test]
fn wide_prefixes_cover_neither_the_other_family_nor_loopback() {
    check(
        "system a
         all = ::/0
         all -> all: tcp/1
         system b
         four = 0.0.0.0/0
         four -> four: tcp/2",
        &[],
        "2001:db8::1 2001:db8::2 tcp/1 => expected a/r0#tcp/1
         192.0.2.1 192.0.2.2 tcp/1 => unexpected
         192.0.2.1 192.0.2.2 tcp/2 => expected b/r0#tcp/2
         2001:db8::1 2001:db8::2 tcp/2 => unexpected
         127.0.0.1 127.0.0.1 tcp/2 => unscoped
         ::1 ::1 tcp/1 => unscoped",
    );
    // Both prefixes have the same class, so the narrower one is left out of the tables.
    check(
        "system a
         all = ::/80 0.0.0.0/0",
        &[],
        "192.0.2.1 192.0.2.2 tcp/1 => unexpected",
    );
}

#[test]
fn what_says_nothing_makes_no_rules() {
    let (matrix, bindings) = parse(
        "system a
         x = 10.0.0.1
         y =
         x -> unknown: tcp/1
         x -> y: tcp/1-65535
         x -> x:
         system b
         any -> any: tcp/1",
    );
    let installed = install(matrix, bindings, &HostAddresses::Unknown);
    assert!(installed.compiled.rules.is_empty());
    assert!(installed.compiled.sets.is_empty());
    assert!(
        installed
            .compiled
            .port_classes
            .iter()
            .all(|class| *class == 0)
    );
    assert_eq!(installed.compiled.prefixes.len(), 1);
}

#[test]
fn the_largest_requirement_is_named_when_there_are_too_many_rules() {
    use std::fmt::Write;
    let mut text = String::from("system a\n");
    for role in 0..3000 {
        writeln!(text, "r{role} = 10.0.{}.{}", role / 250, role % 250).unwrap();
    }
    // Every address also has a role of its own, so that no two share a class.
    text.push_str("all =");
    for role in 0..3000 {
        write!(text, " 10.0.{}.{}", role / 250, role % 250).unwrap();
    }
    text.push_str("\nr0 -> all: tcp/22\nall -> all: tcp/443\n");
    let (matrix, bindings) = parse(&text);
    let error = Compiled::compile(Arc::new(matrix), bindings, &HostAddresses::Unknown)
        .map(|compiled| compiled.rules.len())
        .unwrap_err();
    assert_eq!(
        error,
        CompileError::TooManyRules {
            service: "a/r1#tcp/443".to_owned(),
            rules: 9_000_000,
            limit: MAX_RULES
        }
    );
}

/// The naive reading.
mod naive {
    use super::*;

    pub(super) struct Judge<'a> {
        pub(super) matrix: &'a Matrix,
        pub(super) bindings: &'a [(BoundRole, Vec<Binding>)],
        pub(super) host: &'a HostAddresses,
    }

    fn loopback(address: IpAddr) -> bool {
        address.is_loopback()
    }

    impl Judge<'_> {
        fn prefixes(&self) -> impl Iterator<Item = (BoundRole, IpNet)> + '_ {
            self.bindings.iter().flat_map(|(role, bound)| {
                bound.iter().filter_map(|binding| match binding {
                    Binding::Prefix(prefix) => Some((*role, *prefix)),
                    Binding::Name(_) | Binding::Tag(_) => None,
                })
            })
        }

        fn roles(&self, system: SystemIndex, address: IpAddr) -> Vec<RoleRef> {
            let covering: Vec<_> = self
                .prefixes()
                .filter(|(role, prefix)| role.system == system && prefix.contains(&address))
                .filter(|(_, prefix)| !loopback(address) || loopback(prefix.network()))
                .filter(|(_, prefix)| {
                    !loopback(address) || !address.is_ipv4() || prefix.prefix_len() >= 8
                })
                .collect();
            let longest = covering.iter().map(|(_, prefix)| prefix.prefix_len()).max();
            covering
                .iter()
                .filter(|(_, prefix)| Some(prefix.prefix_len()) == longest)
                .map(|(role, _)| role.role)
                .collect()
        }

        fn is_broadcast(&self, address: IpAddr) -> bool {
            address == IpAddr::V4(Ipv4Addr::BROADCAST)
                || self.prefixes().any(|(_, prefix)| match prefix {
                    IpNet::V4(prefix) => {
                        (1..=30).contains(&prefix.prefix_len())
                            && IpAddr::V4(prefix.broadcast()) == address
                    }
                    IpNet::V6(_) => false,
                })
        }

        fn has(&self, system: SystemIndex, role: RoleRef, address: IpAddr) -> bool {
            match role {
                RoleRef::Declared(_) => self.roles(system, address).contains(&role),
                RoleRef::BuiltIn(BuiltInRole::Any) => true,
                RoleRef::BuiltIn(BuiltInRole::Broadcast) => self.is_broadcast(address),
                RoleRef::BuiltIn(BuiltInRole::Localhost | BuiltInRole::Unknown) => false,
            }
        }

        fn on_own_host(&self, address: IpAddr) -> bool {
            loopback(address)
                || match self.host {
                    HostAddresses::Known(addresses) => addresses.contains(&address),
                    HostAddresses::Unknown => false,
                }
        }

        fn local(&self, system: SystemIndex, other: RoleRef, from: IpAddr, to: IpAddr) -> bool {
            let own = self.on_own_host(from) && self.on_own_host(to);
            match (other, self.host) {
                (RoleRef::BuiltIn(BuiltInRole::Any | BuiltInRole::Localhost), _) => own,
                (RoleRef::BuiltIn(_), _) => false,
                (RoleRef::Declared(_), HostAddresses::Known(addresses)) => {
                    own && (addresses
                        .iter()
                        .any(|address| self.roles(system, *address).contains(&other))
                        || self.prefixes().any(|(role, prefix)| {
                            role.system == system
                                && role.role == other
                                && loopback(prefix.network())
                                && (prefix.network().is_ipv6() || prefix.prefix_len() >= 8)
                        }))
                }
                (RoleRef::Declared(_), HostAddresses::Unknown) => {
                    own || (from == to
                        && self.prefixes().any(|(role, prefix)| {
                            role.system == system
                                && role.role == other
                                && prefix == IpNet::from(from)
                        }))
                }
            }
        }

        fn ends(
            &self,
            system: SystemIndex,
            (f, t): (RoleRef, RoleRef),
            from: IpAddr,
            to: IpAddr,
            vrrp: bool,
        ) -> bool {
            let localhost = RoleRef::BuiltIn(BuiltInRole::Localhost);
            let unknown = RoleRef::BuiltIn(BuiltInRole::Unknown);
            if f == unknown || t == unknown {
                return false;
            }
            if f == localhost {
                return self.local(system, t, from, to);
            }
            if t == localhost {
                return self.local(system, f, from, to);
            }
            let group = vrrp && ["224.0.0.18", "ff02::12"].contains(&to.to_string().as_str());
            self.has(system, f, from) && (self.has(system, t, to) || group)
        }

        pub(super) fn judge(
            &self,
            from: IpAddr,
            to: IpAddr,
            protocol: u8,
            service: u16,
        ) -> (Verdict, Vec<ServiceKey>) {
            let mut members = Vec::new();
            for (key, row, value) in self.matrix.services() {
                if !self
                    .bindings
                    .iter()
                    .any(|(role, _)| role.system == key.system)
                {
                    continue;
                }
                let covered = row.initiations().any(|pair| {
                    let forth = self.ends(
                        key.system,
                        pair,
                        from,
                        to,
                        value.protocol() == Protocol::Vrrp,
                    );
                    let back = self.ends(key.system, pair, to, from, false);
                    match (value.protocol(), value.first()) {
                        (Protocol::Icmp, None) => match (protocol, service) {
                            (1, 8) | (58, 128) => forth,
                            (1, 3 | 4 | 11 | 12) | (58, 1..=4) => forth || back,
                            _ => false,
                        },
                        (Protocol::Icmpv6, None) => match (protocol, service) {
                            (58, 128) => forth,
                            (58, 1..=4) => forth || back,
                            _ => false,
                        },
                        _ => forth && value.covers(Protocol::from_number(protocol), service),
                    }
                });
                if covered {
                    members.push(key);
                }
            }
            let verdict = if !members.is_empty() {
                Verdict::Expected
            } else if self.matrix.indexed_systems().any(|(system, _)| {
                [from, to]
                    .iter()
                    .any(|end| !self.roles(system, *end).is_empty())
            }) {
                Verdict::Unexpected
            } else {
                Verdict::Unscoped
            };
            (verdict, members)
        }
    }
}

const PREFIXES: [&str; 22] = [
    "10.0.0.0/8",
    "10.0.0.0/9",
    "10.1.0.0/16",
    "10.1.0.0/24",
    "10.1.0.0/30",
    "10.1.0.1",
    "10.1.0.2",
    "10.1.0.3",
    "10.2.0.1",
    "0.0.0.0/0",
    "128.0.0.0/1",
    "224.0.0.0/4",
    "224.0.0.18",
    "255.255.255.255",
    "127.0.0.1",
    "127.0.0.0/8",
    "::/0",
    "2001:db8::/32",
    "2001:db8::1",
    "::/80",
    "::1",
    "ff02::/16",
];
const ADDRESSES: [&str; 19] = [
    "10.1.0.1",
    "10.1.0.2",
    "10.1.0.3",
    "10.1.0.4",
    "10.1.0.255",
    "10.1.255.255",
    "10.2.0.1",
    "10.255.255.255",
    "192.0.2.1",
    "255.255.255.255",
    "224.0.0.18",
    "127.0.0.1",
    "127.0.0.2",
    "::1",
    "::2",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db9::1",
    "ff02::12",
];
const SERVICES: [&str; 16] = [
    "tcp/1-65535",
    "tcp/80",
    "tcp/80-90",
    "tcp/85-443",
    "tcp/443",
    "udp/53",
    "udp/1-100",
    "udp/8",
    "icmp",
    "icmp/8",
    "icmp/0-20",
    "icmpv6",
    "icmpv6/128",
    "vrrp",
    "gre",
    "sctp/80",
];
const FLOWS: [(u8, u16); 19] = [
    (6, 80),
    (6, 85),
    (6, 90),
    (6, 91),
    (6, 443),
    (6, 444),
    (17, 53),
    (17, 8),
    (17, 80),
    (1, 8),
    (1, 3),
    (1, 13),
    (58, 128),
    (58, 1),
    (58, 8),
    (112, 0),
    (47, 0),
    (50, 0),
    (132, 80),
];
const ROLES: [&str; 8] = [
    "a",
    "b",
    "c",
    "any",
    "localhost",
    "broadcast",
    "unknown",
    "a",
];

type Row = (usize, usize, usize, Vec<usize>);
type Pack = (Vec<Vec<usize>>, Vec<Row>);

/// Two systems of three roles each, as text for [`parse`].
fn matrix_text(packs: &[Pack]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for (index, (roles, rows)) in packs.iter().enumerate() {
        writeln!(text, "system s{index}").unwrap();
        for (role, prefixes) in ["a", "b", "c"].iter().zip(roles) {
            let prefixes: Vec<_> = prefixes.iter().map(|i| PREFIXES[*i]).collect();
            writeln!(text, "{role} = {}", prefixes.join(" ")).unwrap();
        }
        for (from, to, direction, services) in rows {
            let services: Vec<_> = services.iter().map(|i| SERVICES[*i]).collect();
            let direction = ["->", "<-", "<>"][*direction];
            let (from, to) = (ROLES[*from], ROLES[*to]);
            writeln!(text, "{from} {direction} {to}: {}", services.join(" ")).unwrap();
        }
    }
    text
}

fn packs() -> impl Strategy<Value = Vec<Pack>> {
    let prefixes = prop::collection::vec(0..PREFIXES.len(), 0..4);
    let roles = prop::collection::vec(prefixes, 3);
    let row = (
        0..ROLES.len(),
        0..ROLES.len(),
        0..3_usize,
        prop::collection::vec(0..SERVICES.len(), 0..4),
    );
    prop::collection::vec((roles, prop::collection::vec(row, 0..8)), 1..3)
}

mod properties {
    use super::*;

    proptest! {
        #[test]
        fn tables_judge_as_the_naive_reading_does(
            packs in packs(),
            host in prop::option::of(prop::collection::vec(0..ADDRESSES.len(), 0..4)),
            flows in prop::collection::vec((0..ADDRESSES.len(), 0..ADDRESSES.len(), 0..FLOWS.len()), 300),
        ) {
            let text = matrix_text(&packs);
            let (matrix, bindings) = parse(&text);
            let host = match host {
                None => HostAddresses::Unknown,
                Some(chosen) => HostAddresses::Known(
                    chosen.iter().map(|i| ADDRESSES[*i].parse().unwrap()).collect(),
                ),
            };
            let installed = install(matrix.clone(), bindings.clone(), &host);
            let naive = naive::Judge { matrix: &matrix, bindings: &bindings, host: &host };
            for (from, to, flow_index) in flows {
                let (protocol, service) = FLOWS[flow_index];
                let from: IpAddr = ADDRESSES[from].parse().unwrap();
                let to: IpAddr = ADDRESSES[to].parse().unwrap();
                let (key, sender, packet) = flow(from, to, protocol, service);
                let judgement = judge(&installed, &packet, &key, sender, false);
                let got = (
                    Verdict::of_slot(judgement.slot),
                    installed.members(judgement.slot).to_vec(),
                );
                let want = naive.judge(from, to, protocol, service);
                prop_assert_eq!(
                    got, want, "{} -> {} {}/{} host {:?}\n{}",
                    from, to, protocol, service, host, text
                );
            }
        }

        /// The longest match of the trie that the kernel uses, over `prefixes` as they stand, is that of the daemon.
        #[test]
        fn both_look_ups_find_the_same_class(packs in packs(), random in prop::collection::vec(any::<u128>(), 20)) {
            use flowproof_common::classify::Tables;
            let (matrix, bindings) = parse(&matrix_text(&packs));
            let installed = install(matrix, bindings, &HostAddresses::Unknown);
            let chosen = ADDRESSES.iter().map(|text| Address::from(text.parse::<IpAddr>().unwrap()));
            for address in chosen.chain(random.iter().map(|number| Address::from_v6(number.to_be_bytes()))) {
                let number = u128::from_be_bytes(address.bytes());
                let covering = installed.compiled.prefixes.iter().find(|prefix| {
                    let low = 128 - u32::from(prefix.bits);
                    let own = u128::from_be_bytes(prefix.address.bytes());
                    low == 128 || number >> low == own >> low
                });
                prop_assert_eq!(installed.address_class(&address), covering.map_or(0, |prefix| prefix.class));
            }
        }
    }
}
