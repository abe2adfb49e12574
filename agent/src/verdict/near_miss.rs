//! Near misses: which requirements an unexpected flow nearly met, so that an operator sees at once whether a port is
//! mistyped, a rule is turned round or a host is missing from a role.
//!
//! Best first, by what would have to change for the flow to be expected:
//!
//! 1. `other_protocol`: the same roles and port over another protocol.
//! 2. `reversed`: the same roles and service, but the matrix has the other side initiate; also where the initiator
//!    speaks from the port of such a service, as an answer without its request does.
//! 3. `other_port`: the same roles and protocol, the nearest port first.
//! 4. `other_source`: the same service to the same role, from another one.
//! 5. `other_destination`: the same service from the same role, to another one.
//! 6. `other_protocol`: the same roles, but neither protocol nor port.
//!
//! Answers come from sorted indexes, so the cost of one does not grow with the number of requirements.

use std::collections::HashSet;

use flowproof_common::protocol;

use super::Asked;
use crate::matrix::compiled::{BoundRole, Compiled};
use crate::matrix::{BuiltInRole, Matrix, Protocol, RoleRef, Service, ServiceKey, SystemIndex};

/// Near misses of one flow at most.
pub const MOST: usize = 5;
/// Near misses of one rank at most, so that a role pair with many ports does not hide the other kinds.
const MOST_OF_A_RANK: usize = 2;
/// Entries that one look-up reads at most.
const STEPS: usize = 64;
/// The first port that Linux gives to clients by default (`net.ipv4.ip_local_port_range`): from there on the
/// initiator's port says nothing.
const FIRST_EPHEMERAL: u16 = 32_768;

/// In what an unexpected flow differs from a requirement.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The port, or the ICMP type.
    OtherPort,
    /// The protocol.
    OtherProtocol,
    /// Who initiates.
    Reversed,
    /// The initiator's role.
    OtherSource,
    /// The responder's role.
    OtherDestination,
    /// The name: the address would be allowed under another one.
    NameMismatch,
}

impl Kind {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OtherPort => "other_port",
            Self::OtherProtocol => "other_protocol",
            Self::Reversed => "reversed",
            Self::OtherSource => "other_source",
            Self::OtherDestination => "other_destination",
            Self::NameMismatch => "name_mismatch",
        }
    }
}

/// A requirement's service that a flow nearly met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NearMiss {
    /// In what they differ.
    pub kind: Kind,
    /// What was nearly met; its text is `Matrix::service_id`.
    pub service: ServiceKey,
    /// The same in words.
    pub detail: String,
}

/// One allowed initiation.
#[derive(Clone, Copy, Debug)]
struct Entry {
    protocol: u8,
    first: u16,
    last: u16,
    /// Greatest `last` of the entries up to here with the same key and protocol: where it is below a port, no
    /// earlier entry reaches that port.
    reach: u16,
    key: ServiceKey,
    from: RoleRef,
    to: RoleRef,
}

impl Entry {
    fn covers(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    fn distance(&self, port: u16) -> u16 {
        self.first
            .saturating_sub(port)
            .max(port.saturating_sub(self.last))
    }
}

type Map<K> = hashbrown::HashMap<K, Entries, foldhash::fast::RandomState>;

/// Entries under one key, sorted by protocol, first and last port.
#[derive(Clone, Debug, Default)]
struct Entries(Vec<Entry>);

impl Entries {
    fn finish(&mut self) {
        self.0
            .sort_by_key(|entry| (entry.protocol, entry.first, entry.last, entry.key));
        let mut before: Option<(u8, u16)> = None;
        for entry in &mut self.0 {
            entry.reach = match before {
                Some((protocol, reach)) if protocol == entry.protocol => reach.max(entry.last),
                _ => entry.last,
            };
            before = Some((entry.protocol, entry.reach));
        }
        self.0.shrink_to_fit();
    }

    fn of_protocol(&self, protocol: u8) -> &[Entry] {
        let start = self.0.partition_point(|entry| entry.protocol < protocol);
        let end = self.0.partition_point(|entry| entry.protocol <= protocol);
        &self.0[start..end]
    }

    /// Entries that contain the port.
    fn covering(&self, protocol: u8, port: u16) -> impl Iterator<Item = &Entry> {
        let entries = self.of_protocol(protocol);
        let end = entries.partition_point(|entry| entry.first <= port);
        entries[..end]
            .iter()
            .rev()
            .take(STEPS)
            .take_while(move |entry| entry.reach >= port)
            .filter(move |entry| entry.covers(port))
    }

    /// Entries that don't contain the port, some of the nearest on either side.
    fn around(&self, protocol: u8, port: u16) -> Vec<&Entry> {
        let entries = self.of_protocol(protocol);
        let middle = entries.partition_point(|entry| entry.first <= port);
        let below = entries[..middle].iter().rev().take(STEPS);
        let above = entries[middle..].iter().take(STEPS);
        let mut around: Vec<&Entry> = below
            .chain(above)
            .filter(|entry| !entry.covers(port))
            .collect();
        around.sort_by_key(|entry| (entry.distance(port), entry.key));
        around
    }

    /// The protocols that occur.
    fn protocols(&self) -> impl Iterator<Item = u8> {
        let mut next = Some(0_u8);
        std::iter::from_fn(move || {
            let start = self.0.partition_point(|entry| Some(entry.protocol) < next);
            let found = self.0.get(start).filter(|_| next.is_some())?.protocol;
            next = found.checked_add(1);
            Some(found)
        })
    }
}

/// All allowed initiations of the deployed systems, indexed by what a near miss keeps.
#[derive(Clone, Debug, Default)]
pub struct NearMisses {
    by_pair: Map<(BoundRole, RoleRef)>,
    by_responder: Map<BoundRole>,
    by_initiator: Map<BoundRole>,
    /// Of VRRP: its groups have no role of their own, they are the responder of all of these.
    vrrp: Entries,
    deployed: Vec<SystemIndex>,
}

impl NearMisses {
    /// Indexes the requirements; linear in their number, but for sorting.
    #[must_use]
    pub fn index(compiled: &Compiled) -> Self {
        let mut index = Self {
            deployed: compiled.deployed().into_iter().collect(),
            ..Self::default()
        };
        for (key, row, service) in compiled.matrix.services() {
            if index.deployed.binary_search(&key.system).is_err() {
                continue;
            }
            for (from, to) in row.initiations() {
                let unknown = RoleRef::BuiltIn(BuiltInRole::Unknown);
                if from == unknown || to == unknown {
                    continue;
                }
                for (protocol, first, last) in ranges(service) {
                    index.add(Entry {
                        protocol,
                        first,
                        last,
                        reach: last,
                        key,
                        from,
                        to,
                    });
                }
            }
        }
        let all = index
            .by_pair
            .values_mut()
            .chain(index.by_responder.values_mut())
            .chain(index.by_initiator.values_mut())
            .chain([&mut index.vrrp]);
        for entries in all {
            entries.finish();
        }
        index
    }

    fn add(&mut self, entry: Entry) {
        let system = entry.key.system;
        let bound = |role| BoundRole { system, role };
        let (from, to) = (bound(entry.from), bound(entry.to));
        self.by_pair
            .entry((from, entry.to))
            .or_default()
            .0
            .push(entry);
        self.by_responder.entry(to).or_default().0.push(entry);
        self.by_initiator.entry(from).or_default().0.push(entry);
        if entry.protocol == protocol::VRRP {
            self.vrrp.0.push(entry);
        }
    }

    /// What a flow between addresses with these roles nearly met. Only of use for a flow that nothing covers.
    #[must_use]
    pub fn of(
        &self,
        matrix: &Matrix,
        initiator: &[BoundRole],
        responder: &[BoundRole],
        asked: &Asked,
    ) -> Vec<NearMiss> {
        let mut search = Search {
            matrix,
            asked,
            ranks: Default::default(),
        };
        for &system in &self.deployed {
            let from = ends(system, initiator);
            let to = ends(system, responder);
            for &from in &from {
                for &to in &to {
                    if is_any(from) && is_any(to) {
                        continue;
                    }
                    if let Some(entries) = self.by_pair.get(&(from, to.role)) {
                        search.same_pair(entries);
                    }
                    if let Some(entries) = self.by_pair.get(&(to, from.role)) {
                        search.reversed_pair(entries);
                    }
                }
            }
            for role in to.iter().filter(|role| !is_any(**role)) {
                if let Some(entries) = self.by_responder.get(role) {
                    search.same_service(entries, Kind::OtherSource);
                }
            }
            for role in from.iter().filter(|role| !is_any(**role)) {
                if let Some(entries) = self.by_initiator.get(role) {
                    search.same_service(entries, Kind::OtherDestination);
                }
            }
        }
        if asked.protocol == protocol::VRRP && asked.responder.is_group() {
            search.same_service(&self.vrrp, Kind::OtherSource);
        }
        search.finish()
    }
}

/// Protocols and ranges that a near miss compares with.
fn ranges(service: Service) -> impl Iterator<Item = (u8, u16, u16)> {
    let number = service.protocol().number();
    let range = service.first().zip(service.last());
    let (first, second) = match (service.protocol(), range) {
        (_, Some((first, last))) => ((number, first, last), None),
        (Protocol::Icmp, None) => (echo(protocol::ICMP), Some(echo(protocol::ICMPV6))),
        (Protocol::Icmpv6, None) => (echo(protocol::ICMPV6), None),
        (Protocol::Tcp | Protocol::Udp | Protocol::Vrrp | Protocol::Other(_), None) => {
            ((number, 0, u16::MAX), None)
        }
    };
    std::iter::once(first).chain(second)
}

/// The range of the echo request alone, which `icmp` without a type is about.
fn echo(family: u8) -> (u8, u16, u16) {
    let kind = if family == protocol::ICMP {
        protocol::ICMP_ECHO_REQUEST
    } else {
        protocol::ICMPV6_ECHO_REQUEST
    };
    (family, u16::from(kind), u16::from(kind))
}

fn is_any(role: BoundRole) -> bool {
    role.role == RoleRef::BuiltIn(BuiltInRole::Any)
}

/// The roles of a system among `roles`, and `any`.
fn ends(system: SystemIndex, roles: &[BoundRole]) -> Vec<BoundRole> {
    let any = BoundRole {
        system,
        role: RoleRef::BuiltIn(BuiltInRole::Any),
    };
    roles
        .iter()
        .copied()
        .filter(|role| role.system == system)
        .chain([any])
        .collect()
}

/// Position in the order of the module's documentation.
const OTHER_PROTOCOL_SAME_PORT: usize = 0;
const REVERSED: usize = 1;
const OTHER_PORT: usize = 2;
const OTHER_SOURCE: usize = 3;
const OTHER_DESTINATION: usize = 4;
const OTHER_PROTOCOL: usize = 5;

struct Search<'a> {
    matrix: &'a Matrix,
    asked: &'a Asked,
    /// By rank: distance, and what was found.
    ranks: [Vec<(u16, NearMiss)>; 6],
}

impl Search<'_> {
    fn add(&mut self, rank: usize, distance: u16, kind: Kind, entry: &Entry, detail: String) {
        self.ranks[rank].push((
            distance,
            NearMiss {
                kind,
                service: entry.key,
                detail,
            },
        ));
    }

    /// Initiations between the same roles.
    fn same_pair(&mut self, entries: &Entries) {
        let Asked {
            protocol: asked,
            service: port,
            ..
        } = *self.asked;
        for entry in entries.around(asked, port).into_iter().take(MOST_OF_A_RANK) {
            let detail = format!(
                "{} is allowed {}, {} is not",
                self.service(entry),
                self.way(entry),
                self.flow_service()
            );
            let distance = entry.distance(port);
            self.add(OTHER_PORT, distance, Kind::OtherPort, entry, detail);
        }
        for other in entries.protocols().filter(|other| *other != asked) {
            let comparable = protocol::has_ports(asked) && protocol::has_ports(other);
            let same = entries
                .covering(other, port)
                .filter(|_| comparable)
                .take(MOST_OF_A_RANK);
            let mut found: Vec<(usize, &Entry)> = same
                .map(|entry| (OTHER_PROTOCOL_SAME_PORT, entry))
                .collect();
            if found.is_empty() {
                found.extend(
                    entries
                        .around(other, port)
                        .into_iter()
                        .chain(entries.covering(other, port))
                        .take(1)
                        .map(|entry| (OTHER_PROTOCOL, entry)),
                );
            }
            for (rank, entry) in found {
                let detail = format!(
                    "{} is allowed {}, {} is not",
                    self.service(entry),
                    self.way(entry),
                    self.flow_service()
                );
                let distance = if comparable { entry.distance(port) } else { 0 };
                self.add(rank, distance, Kind::OtherProtocol, entry, detail);
            }
        }
    }

    /// Initiations between the same roles, the other way round.
    fn reversed_pair(&mut self, entries: &Entries) {
        let Asked {
            protocol: asked,
            service: port,
            initiator_port,
            ..
        } = *self.asked;
        for entry in entries.covering(asked, port).take(MOST_OF_A_RANK) {
            let detail = format!(
                "{} is allowed {} only: the other side has to initiate",
                self.service(entry),
                self.way(entry)
            );
            self.add(REVERSED, 0, Kind::Reversed, entry, detail);
        }
        let Some(source) =
            initiator_port.filter(|source| protocol::has_ports(asked) && *source < FIRST_EPHEMERAL)
        else {
            return;
        };
        for entry in entries.covering(asked, source).take(MOST_OF_A_RANK) {
            let detail = format!(
                "{} is allowed {}: the flow comes from that service's port, so it looks like an answer without its request",
                self.service(entry),
                self.way(entry)
            );
            self.add(REVERSED, 1, Kind::Reversed, entry, detail);
        }
    }

    /// Initiations with the same service that share one end.
    fn same_service(&mut self, entries: &Entries, kind: Kind) {
        let covering = entries.covering(self.asked.protocol, self.asked.service);
        for entry in covering.take(MOST_OF_A_RANK) {
            let (rank, other) = if kind == Kind::OtherSource {
                (OTHER_SOURCE, "initiator")
            } else {
                (OTHER_DESTINATION, "responder")
            };
            let role = if kind == Kind::OtherSource {
                entry.from
            } else {
                entry.to
            };
            let system = self.matrix.system(entry.key.system);
            let detail = format!(
                "{} is allowed {}: the {other} is no `{}`",
                self.service(entry),
                self.way(entry),
                system.role_id(role)
            );
            self.add(rank, 0, kind, entry, detail);
        }
    }

    fn service(&self, entry: &Entry) -> String {
        self.matrix.service(entry.key).to_string()
    }

    fn way(&self, entry: &Entry) -> String {
        let system = self.matrix.system(entry.key.system);
        format!(
            "from `{}` to `{}`",
            system.role_id(entry.from),
            system.role_id(entry.to)
        )
    }

    fn flow_service(&self) -> String {
        service_text(self.asked.protocol, self.asked.service)
    }

    fn finish(self) -> Vec<NearMiss> {
        let mut seen = HashSet::new();
        let mut best = Vec::new();
        for mut rank in self.ranks {
            rank.sort_by_key(|(distance, miss)| (*distance, miss.service));
            let new = rank
                .into_iter()
                .filter(|(_, miss)| seen.insert(miss.service))
                .map(|(_, miss)| miss);
            best.extend(new.take(MOST_OF_A_RANK));
        }
        best.truncate(MOST);
        best
    }
}

/// A flow's service in the words of the matrix: `tcp/443`, `icmp/8`, `vrrp`.
#[must_use]
pub fn service_text(number: u8, service: u16) -> String {
    let protocol = Protocol::from_number(number);
    if protocol.has_ports() || matches!(protocol, Protocol::Icmp | Protocol::Icmpv6) {
        format!("{protocol}/{service}")
    } else {
        protocol.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::matrix::compile::HostAddresses;
    use crate::matrix::installed::{Installed, SlotDirectory};
    use crate::site::Site;
    use crate::site::tags::TagBook;
    use crate::verdict::Explainer;

    fn explainer(requirements: &str) -> Explainer {
        let text = format!(
            "system: s\ntitle: S\nroles:\n  client: {{names: [10.0.1.0/24]}}\n  server: {{names: [10.0.2.0/24]}}\n  \
             admin: {{names: [10.0.3.0/24]}}\nrequirements:\n{requirements}"
        );
        let reading = Matrix::read_text("s.yaml", &text);
        assert!(!reading.findings.has_errors(), "{:?}", reading.findings);
        let site = Site::read_text("site.yaml", "site: x\nsystems: [s]\n", &reading)
            .site
            .unwrap();
        let bindings = site.role_bindings(&reading.matrix, &TagBook::default());
        let compiled =
            Compiled::compile(Arc::new(reading.matrix), bindings, &HostAddresses::Unknown).unwrap();
        Explainer::new(Arc::new(Installed::new(
            Arc::new(compiled),
            SlotDirectory::default(),
        )))
    }

    /// `rows` are `id from to services`; `flow` is `initiator[:port] responder service`; the answer lists
    /// `kind id#service`.
    #[track_caller]
    fn check(rows: &[&str], flow: &str, expect: &[&str]) {
        let rows: String = rows
            .iter()
            .map(|row| {
                let words: Vec<_> = row.split(' ').collect();
                format!(
                    "  - {{id: {}, from: {}, to: {}, services: [{}]}}\n",
                    words[0],
                    words[1],
                    words[2],
                    words[3..].join(", ")
                )
            })
            .collect();
        let explainer = explainer(&rows);
        let words: Vec<_> = flow.split(' ').collect();
        let (initiator, port) = words[0]
            .split_once(':')
            .map_or((words[0], None), |(a, p)| (a, Some(p.parse().unwrap())));
        let service: Service = words[2].parse().unwrap();
        let asked = Asked {
            initiator: initiator.parse::<std::net::IpAddr>().unwrap().into(),
            initiator_port: port,
            responder: words[1].parse::<std::net::IpAddr>().unwrap().into(),
            protocol: service.protocol().number(),
            service: service.first().unwrap_or(0),
        };
        let matrix = &explainer.installed().compiled.matrix;
        let got: Vec<String> = explainer
            .near_misses(&asked)
            .iter()
            .map(|miss| {
                let id = matrix.service_id(miss.service);
                format!("{} {}", miss.kind.name(), id.trim_start_matches("s/"))
            })
            .collect();
        assert_eq!(got, expect, "{flow}");
    }

    const CLIENT: &str = "10.0.1.1";
    const SERVER: &str = "10.0.2.1";

    #[test]
    fn the_nearest_port_comes_first() {
        check(
            &["a client server tcp/80 tcp/443 tcp/8400-8442 udp/8443"],
            &format!("{CLIENT} {SERVER} tcp/8443"),
            &[
                "other_protocol a#udp/8443",
                "other_port a#tcp/8400-8442",
                "other_port a#tcp/443",
            ],
        );
    }

    #[test]
    fn a_turned_round_rule_is_reversed() {
        check(
            &["a client server tcp/5000", "b server client tcp/5001"],
            &format!("{SERVER} {CLIENT} tcp/5000"),
            &["reversed a#tcp/5000", "other_port b#tcp/5001"],
        );
        check(
            &["a client server tcp/443"],
            &format!("{SERVER}:443 {CLIENT} tcp/50000"),
            &["reversed a#tcp/443"],
        );
        // A port that any client may have tells nothing.
        check(
            &["a client server tcp/40000"],
            &format!("{SERVER}:40000 {CLIENT} tcp/50000"),
            &[],
        );
    }

    #[test]
    fn another_role_at_one_end() {
        check(
            &["a admin server tcp/22", "b client admin tcp/22"],
            &format!("{CLIENT} {SERVER} tcp/22"),
            &["other_source a#tcp/22", "other_destination b#tcp/22"],
        );
        check(
            &["a admin server tcp/22"],
            &format!("192.0.2.1 {SERVER} tcp/22"),
            &["other_source a#tcp/22"],
        );
        check(
            &["a client server tcp/22", "b client any tcp/80"],
            &format!("{CLIENT} 192.0.2.1 tcp/22"),
            &["other_port b#tcp/80", "other_destination a#tcp/22"],
        );
    }

    #[test]
    fn protocols_without_ports() {
        check(
            &[
                "a client server icmp/13",
                "b client server gre",
                "c admin server icmp",
            ],
            &format!("{CLIENT} {SERVER} icmp/8"),
            &[
                "other_port a#icmp/13",
                "other_source c#icmp",
                "other_protocol b#gre",
            ],
        );
        check(
            &["a client server vrrp"],
            &format!("{SERVER} {CLIENT} vrrp"),
            &["reversed a#vrrp"],
        );
        check(
            &["a client server vrrp"],
            &format!("{SERVER} 224.0.0.18 vrrp"),
            &["other_source a#vrrp"],
        );
    }

    #[test]
    fn details_are_words() {
        let explainer = explainer("  - {id: a, from: client, to: server, services: [tcp/5000]}\n");
        let asked = |initiator: [u8; 4], responder: [u8; 4], service| Asked {
            initiator: flowproof_common::address::Address::from_v4(initiator),
            initiator_port: None,
            responder: flowproof_common::address::Address::from_v4(responder),
            protocol: 6,
            service,
        };
        for (flow, words) in [
            (
                asked([10, 0, 1, 1], [10, 0, 2, 1], 5001),
                "tcp/5000 is allowed from `client` to `server`, tcp/5001 is not",
            ),
            (
                asked([10, 0, 2, 1], [10, 0, 1, 1], 5000),
                "tcp/5000 is allowed from `client` to `server` only: the other side has to initiate",
            ),
            (
                asked([10, 0, 3, 1], [10, 0, 2, 1], 5000),
                "tcp/5000 is allowed from `client` to `server`: the initiator is no `client`",
            ),
            (
                asked([10, 0, 1, 1], [10, 0, 3, 1], 5000),
                "tcp/5000 is allowed from `client` to `server`: the responder is no `server`",
            ),
        ] {
            let details: Vec<_> = explainer
                .near_misses(&flow)
                .into_iter()
                .map(|miss| miss.detail)
                .collect();
            assert_eq!(details, [words]);
        }
    }

    #[test]
    fn many_requirements_give_few_near_misses() {
        use std::fmt::Write;
        let mut rows = String::new();
        for port in 1..2000 {
            writeln!(
                rows,
                "  - {{id: r{port}, from: client, to: server, services: [tcp/{port}, udp/{port}]}}"
            )
            .unwrap();
        }
        let misses = explainer(&rows).near_misses(&Asked {
            initiator: flowproof_common::address::Address::from_v4([10, 0, 1, 1]),
            initiator_port: None,
            responder: flowproof_common::address::Address::from_v4([10, 0, 2, 1]),
            protocol: 6,
            service: 2005,
        });
        assert!(misses.len() <= MOST);
        assert_eq!(
            misses[0].detail,
            "tcp/1999 is allowed from `client` to `server`, tcp/2005 is not"
        );
    }
}
