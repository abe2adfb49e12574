//! Three hosts in a row, with every address of a generated site.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use flowproof_tests::host::{Host, wire};
use flowproof_tests::lab::batch;

use super::pack::protocol;
use super::plan::{Plan, Spec, Way};
use super::serve::Server;
use super::site::{SIDES4, SIDES6, STRANGERS, Site, WIRES4, WIRES6};

/// The one interface of the left and of the right host.
pub(crate) const UPLINK: &str = "uplink";
/// The agent's interfaces towards them.
pub(crate) const SIDES: [&str; 2] = ["toleft", "toright"];

/// What becomes of a conversation at its responder's packet filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Open,
    Dropped,
    Rejected,
}

/// The hosts, and the servers that answer on them.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// Left and right.
    pub(crate) ends: [Arc<Host>; 2],
    /// Where the daemon runs.
    pub(crate) agent: Arc<Host>,
    /// Which ports initiators use.
    pub(crate) ports: Ports,
    servers: Vec<Server>,
}

impl Hosts {
    pub(crate) fn of(plan: &Plan<'_>) -> Result<Self> {
        let hosts = Self {
            ends: [Host::new("left")?, Host::new("right")?],
            agent: Host::new("agent")?,
            ports: Ports(0),
            servers: Vec::new(),
        };
        hosts.agent.sysctl("net/ipv4/ip_forward", "1")?;
        hosts.agent.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        for host in hosts.all() {
            // Hundreds of refusals at once are the point here, not an attack.
            host.sysctl("net/ipv4/icmp_ratemask", "0")?;
            host.sysctl("net/ipv6/icmp/ratemask", "2")?;
            host.sysctl("net/ipv4/ping_group_range", "0 0")?;
            use_ports(host, Ports(0))?;
        }
        for (side, name) in SIDES.into_iter().enumerate() {
            wire(&hosts.ends[side], UPLINK, &hosts.agent, name)?;
            hosts.address(side, name, plan.site)?;
        }
        let own: BTreeSet<IpAddr> = plan
            .site
            .homes()
            .flat_map(|(_, home)| home.own.iter().copied())
            .collect();
        let own: String = own
            .into_iter()
            .map(|address| format!("addr add {} dev lo\n", alone(address)))
            .collect();
        batch(&hosts.agent, &own)?;
        hosts.serve(plan)
    }

    fn all(&self) -> [&Arc<Host>; 3] {
        [&self.ends[0], &self.ends[1], &self.agent]
    }

    /// Gives the hosts of one side their addresses and routes.
    fn address(&self, side: usize, name: &str, site: &Site) -> Result<()> {
        let [agent4, end4] = WIRES4[side];
        let [agent6, end6] = WIRES6[side];
        let mut agent = format!(
            "addr add {agent4}/30 dev {name}\naddr add {agent6}/64 nodad dev {name}\n\
             route add {} via {end4}\nroute add {} via {end6}\n",
            SIDES4[side], SIDES6[side]
        );
        let mut end = format!(
            "addr add {end4}/30 dev {UPLINK}\naddr add {end6}/64 nodad dev {UPLINK}\n\
             route add default via {agent4}\nroute add default via {agent6}\n"
        );
        // Roles may share addresses.
        let mut far: BTreeSet<IpAddr> = STRANGERS[side].into();
        let mut near = BTreeSet::new();
        let mut beside = BTreeSet::new();
        for (_, home) in site.homes() {
            let addresses = home.sides[side].iter().copied();
            let addresses = addresses.filter(|address| !address.is_unspecified());
            if home.bindings.is_empty() {
                far.extend(addresses);
            } else {
                near.extend(addresses);
            }
            let called = home.broadcast.filter(|broadcast| site.calls(*broadcast));
            // The agent stands on the wire where the role calls everybody, with an address of the same prefix.
            beside.extend(called.map(|broadcast| Ipv4Addr::from_bits(broadcast.to_bits() - 1)));
        }
        for address in &far {
            let via: IpAddr = if address.is_ipv4() {
                end4.into()
            } else {
                end6.into()
            };
            agent.push_str(&format!("route add {address} via {via}\n"));
        }
        for address in far.union(&near) {
            end.push_str(&format!("addr add {} dev {UPLINK}\n", alone(*address)));
        }
        for address in beside.into_iter().filter(|_| side == 0) {
            agent.push_str(&format!("addr add {address}/29 brd + dev {name}\n"));
        }
        batch(&self.agent, &agent)?;
        batch(&self.ends[side], &end)
    }

    /// Starts what answers every conversation of the plan.
    fn serve(mut self, plan: &Plan<'_>) -> Result<Self> {
        let places = self.all().map(Clone::clone);
        for (place, host) in places.iter().enumerate() {
            let here = |spec: &&Spec| match spec.way {
                Way::Across(side) => place == 1 - side,
                Way::Within => place == 2,
                Way::Called => false,
            };
            let mut tcp: Vec<u16> = Vec::new();
            let mut sockets = Vec::new();
            for spec in plan.specs.iter().filter(here) {
                if spec.protocol == protocol::TCP {
                    tcp.push(spec.port);
                } else if spec.protocol == protocol::UDP {
                    sockets.push((spec.responder, spec.port));
                }
            }
            tcp.sort_unstable();
            tcp.dedup();
            sockets.sort_unstable();
            sockets.dedup();
            let listeners = tcp
                .into_iter()
                // Dual-stack, so one socket answers on every address.
                .map(|port| host.listen((Ipv6Addr::UNSPECIFIED, port)))
                .collect::<Result<Vec<TcpListener>>>()?;
            let sockets = host.run(|| {
                sockets
                    .into_iter()
                    .map(|address| {
                        std::net::UdpSocket::bind(address)
                            .with_context(|| format!("can't bind {address:?}"))
                    })
                    .collect::<Result<Vec<_>>>()
            })?;
            let server = Server::start(listeners, sockets)?;
            self.servers.push(server);
        }
        Ok(self)
    }

    /// Has the responders treat each conversation as `fate` says.
    pub(crate) fn filter(&self, specs: &[Spec], fate: impl Fn(usize) -> Fate) -> Result<()> {
        let mut sets = [const { String::new() }; 8];
        let mut called = String::new();
        for (position, spec) in specs.iter().enumerate() {
            let kind = match fate(position) {
                Fate::Open => continue,
                Fate::Dropped => 0,
                Fate::Rejected => 1,
            };
            if spec.way == Way::Called {
                called.push_str(&dropped_call(spec));
                continue;
            }
            let echo = matches!(spec.protocol, protocol::ICMP | protocol::ICMPV6);
            let set = kind * 4 + usize::from(spec.initiator.is_ipv6()) * 2 + usize::from(echo);
            let (from, to) = (spec.initiator, spec.responder);
            sets[set].push_str(&if echo {
                format!("{from} . {to},\n")
            } else {
                format!("{from} . {to} . {} . {},\n", spec.protocol, spec.port)
            });
        }
        let mut declared = String::new();
        let mut rules = String::new();
        for (index, elements) in sets.iter().enumerate() {
            if elements.is_empty() {
                continue;
            }
            let (ip, kind) = if index / 2 % 2 == 1 {
                ("ip6", "ipv6_addr")
            } else {
                ("ip", "ipv4_addr")
            };
            let echo = index % 2 == 1;
            let service = if echo {
                ""
            } else {
                " . inet_proto . inet_service"
            };
            declared.push_str(&format!(
                "set s{index} {{\ntype {kind} . {kind}{service}\nelements = {{\n{elements}}}\n}}\n"
            ));
            let matched = if echo {
                let icmp = if ip == "ip" { "icmp" } else { "icmpv6" };
                format!("{icmp} type echo-request {ip} saddr . {ip} daddr @s{index}")
            } else {
                format!("{ip} saddr . {ip} daddr . meta l4proto . th dport @s{index}")
            };
            rules.push_str(&if index < 4 {
                format!("{matched} drop\n")
            } else if echo {
                format!("{matched} reject with icmpx port-unreachable\n")
            } else {
                format!(
                    "meta l4proto tcp {matched} reject with tcp reset\n\
                     {matched} reject with icmpx port-unreachable\n"
                )
            });
        }
        let table = format!(
            "table inet fate {{ }}\ndelete table inet fate\ntable inet fate {{\n{declared}\
             chain input {{\ntype filter hook input priority 0\n{rules}\n}}\n}}\n"
        );
        for host in self.all() {
            host.nft(&table)?;
        }
        // The agent hears the calls of its wire. Whether it belongs to a group or not, they pass here first.
        self.agent.nft(&format!(
            "table inet calls {{ }}\ndelete table inet calls\ntable inet calls {{\n\
             chain heard {{\ntype filter hook prerouting priority -300\n{called}\n}}\n}}\n"
        ))?;
        Ok(())
    }

    /// Gives every new conversation a port that none before has had.
    pub(crate) fn use_ports(&mut self, ports: Ports) -> Result<()> {
        self.ports = ports;
        self.all()
            .into_iter()
            .try_for_each(|host| use_ports(host, ports))
    }
}

/// Nobody is told of a call that was refused (RFC 1122, section 3.2.2), so that to reject one is to drop it.
fn dropped_call(spec: &Spec) -> String {
    let ip = if spec.initiator.is_ipv6() {
        "ip6"
    } else {
        "ip"
    };
    let port = match spec.protocol {
        protocol::TCP | protocol::UDP => format!(" th dport {}", spec.port),
        _ => String::new(),
    };
    format!(
        "{ip} saddr {} {ip} daddr {} meta l4proto {}{port} drop\n",
        spec.initiator, spec.responder, spec.protocol
    )
}

/// Which ports initiators use, by the number of the round, 0 to 4. Two rounds under one daemon must not share 5-tuples,
/// or the second continues the flows of the first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports(pub(crate) u16);

impl Ports {
    /// The first and the last. Above the first port that the near misses take for a client's, and below the dynamic range
    /// of RFC 6335, which Windows rows are about.
    pub(crate) const fn range(self) -> (u16, u16) {
        let first = 33_000 + 3_000 * self.0;
        (first, first + 2_999)
    }
}

fn use_ports(host: &Host, ports: Ports) -> Result<()> {
    let (first, last) = ports.range();
    host.sysctl("net/ipv4/ip_local_port_range", &format!("{first} {last}"))
}

/// An address as a prefix of its own, without duplicate address detection.
fn alone(address: IpAddr) -> String {
    if address.is_ipv4() {
        format!("{address}/32")
    } else {
        format!("{address}/128 nodad")
    }
}

/// A socket address.
pub(crate) fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}
