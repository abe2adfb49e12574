//! The hosts of the name labs, what answers on them, and how conversations are opened.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::host::{Host, wire};
use flowproof_tests::lab::{UPLINK, batch};
use flowproof_tests::names::dnsmasq::{Dnsmasq, Zone};
use flowproof_tests::names::hello::client_hello;
use flowproof_tests::names::query::Asker;
use tempfile::TempDir;

use super::case::{Case, Say};
use super::cases::Cases;
use super::world::{INSIDE, OUTSIDE, RESOLVER, World};
use crate::hosts::SIDES;
use crate::pack::{Pack, protocol};
use crate::serve::Server;

/// A matrix for what the lab itself needs: everybody may ask the name server.
const LAB: &str = "system: lab\ntitle: Lab\nroles:\n  resolver: {title: Name server}\nrequirements:\n  \
                   - {id: dns, from: any, to: resolver, services: [udp/53]}\n";
/// How long a step of a conversation may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Questions that are open at once.
const WINDOW: usize = 32;

/// The daemon and everything around it. It ends in the order of the fields.
pub(crate) struct Scene {
    pub(crate) daemon: Daemon,
    _servers: Vec<Server>,
    _dnsmasq: Dnsmasq,
    _tags: TempDir,
    inside: Arc<Host>,
    outside: Arc<Host>,
}

impl Scene {
    pub(crate) fn new(
        packs: &[&Pack],
        world: &World,
        cases: &Cases,
        backend: Backend,
    ) -> Result<Self> {
        // Addresses that a pack prints lie anywhere.
        let fixed: Vec<IpAddr> = cases.fixed.iter().copied().collect();
        let [inside, outside, agent] = hosts(&fixed)?;
        let dnsmasq = Dnsmasq::start(
            &outside,
            (RESOLVER, 53).into(),
            &Zone {
                ttl: 300,
                hosts: &world.zone(),
                ..Zone::default()
            },
        )?;
        let servers = vec![
            serve(&inside, cases.all.iter().filter(|case| case.inbound))?,
            serve(&outside, cases.all.iter().filter(|case| !case.inbound))?,
        ];
        let tags = TempDir::with_prefix("flowproof-tags-")?;
        for (name, text) in world.tag_files() {
            std::fs::write(tags.path().join(name), text)?;
        }
        // Nothing but the lab's own questions is to be learned from.
        let mut config = "names: {hold: 3s, resolve: false}\n\
             capture: {ebpf: {flows: {verified: 8192, unverified: 8192}}}\n"
            .to_owned();
        if !world.tag_files().is_empty() {
            config.push_str(&format!(
                "tags: {{paths: [\"{}\"]}}\n",
                tags.path().display()
            ));
        }
        let more: Vec<(String, &str)> = packs
            .iter()
            .map(|pack| (format!("{}.yaml", pack.system), pack.text.as_str()))
            .collect();
        let daemon = Daemon::start_with(
            &agent,
            &Setup {
                backend,
                matrix: LAB,
                site: &world.site,
                config: &config,
                interfaces: &[],
            },
            &more,
        )?;
        Ok(Self {
            daemon,
            _servers: servers,
            _dnsmasq: dnsmasq,
            _tags: tags,
            inside,
            outside,
        })
    }

    /// Asks the name server for all names that the lab's initiators want to know.
    pub(crate) fn ask(&self, world: &World, cases: &Cases) -> Result<()> {
        for (who, names) in &cases.questions {
            let asker = Asker::new(&self.inside, *who, (RESOLVER, 53).into());
            let told = asker.resolve_all(names.iter().map(String::as_str), WINDOW)?;
            for name in names {
                let place = &world.places[name];
                let shared = place.shared.into_iter().flatten();
                let right: BTreeSet<IpAddr> = place.own.into_iter().chain(shared).collect();
                let told = told.get(name);
                ensure!(
                    told == Some(&right),
                    "{name} is {told:?} instead of {right:?}"
                );
            }
        }
        Ok(())
    }

    /// Has a conversation, which lasts as long as the result.
    pub(crate) fn open<'c>(&self, case: &'c Case) -> Result<Open<'c>> {
        let host = if case.inbound {
            &self.outside
        } else {
            &self.inside
        };
        let target = SocketAddr::new(case.responder, case.port);
        let payload = match &case.say {
            Say::Words => b"flowproof lab".to_vec(),
            Say::Hello(name) => client_hello(name)?,
            Say::Host(name) => format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n").into_bytes(),
        };
        let mut back = vec![0; payload.len()];
        let source = SocketAddr::new(case.initiator, 0);
        if case.protocol == protocol::UDP {
            let socket = host.udp(source)?;
            socket.connect(target)?;
            socket.set_read_timeout(Some(LIMIT))?;
            socket.send(&payload)?;
            socket.recv(&mut back)?;
            return Ok(Open {
                case,
                port: socket.local_addr()?.port(),
                _socket: Socket::Udp(socket),
            });
        }
        let mut stream = host.connect(Some(source), target, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(&payload)?;
        stream.read_exact(&mut back)?;
        Ok(Open {
            case,
            port: stream.local_addr()?.port(),
            _socket: Socket::Tcp(stream),
        })
    }
}

/// An open conversation.
pub(crate) struct Open<'c> {
    pub(crate) case: &'c Case,
    /// The initiator's port.
    pub(crate) port: u16,
    _socket: Socket,
}

enum Socket {
    Tcp(#[expect(dead_code, reason = "open as long as it lives")] TcpStream),
    Udp(#[expect(dead_code, reason = "open as long as it lives")] UdpSocket),
}

/// Those inside, those outside, and the agent's host between them. Each end has every address of
/// its side; `fixed` are outside besides.
fn hosts(fixed: &[IpAddr]) -> Result<[Arc<Host>; 3]> {
    let (inside, outside) = (Host::new("inside")?, Host::new("outside")?);
    let agent = Host::new("agent")?;
    agent.sysctl("net/ipv4/ip_forward", "1")?;
    agent.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    for (side, host) in [&inside, &outside].into_iter().enumerate() {
        host.sysctl("net/ipv6/ip_nonlocal_bind", "1")?;
        wire(host, UPLINK, &agent, SIDES[side])?;
        let (agent4, end4) = (
            format!("203.0.113.{}", 4 * side + 1),
            format!("203.0.113.{}", 4 * side + 2),
        );
        let (agent6, end6) = (
            format!("2001:db8:ff:{side}::1"),
            format!("2001:db8:ff:{side}::2"),
        );
        let everything = ["0.0.0.0/0", "::/0"];
        let own = if side == 0 { INSIDE } else { OUTSIDE };
        let beyond = if side == 0 { INSIDE } else { everything };
        let mut end =
            format!("addr add {end4}/30 dev {UPLINK}\naddr add {end6}/64 nodad dev {UPLINK}\n");
        let back = if side == 0 { everything } else { INSIDE };
        for (prefix, agent) in back.into_iter().zip([agent4.as_str(), agent6.as_str()]) {
            end.push_str(&format!("route add {prefix} via {agent}\n"));
        }
        for prefix in own {
            end.push_str(&format!("route add local {prefix} dev lo\n"));
        }
        if side == 1 {
            for address in fixed.iter().chain([&RESOLVER]) {
                end.push_str(&format!("addr add {address} dev {UPLINK}\n"));
            }
        }
        batch(host, &end)?;
        let mut middle = format!(
            "addr add {agent4}/30 dev {0}\naddr add {agent6}/64 nodad dev {0}\n",
            SIDES[side]
        );
        for (prefix, end) in beyond.into_iter().zip([&end4, &end6]) {
            middle.push_str(&format!("route add {prefix} via {end}\n"));
        }
        batch(&agent, &middle)?;
    }
    Ok([inside, outside, agent])
}

/// Sends back what comes on any port that a case needs.
fn serve<'c>(host: &Host, cases: impl Iterator<Item = &'c Case>) -> Result<Server> {
    let (mut tcp, mut udp) = (BTreeSet::new(), BTreeSet::new());
    for case in cases {
        if case.protocol == protocol::TCP {
            tcp.insert(case.port);
        } else {
            udp.insert((case.responder, case.port));
        }
    }
    let listeners = tcp
        .into_iter()
        .map(|port| host.listen((Ipv6Addr::UNSPECIFIED, port)))
        .collect::<Result<Vec<TcpListener>>>()?;
    let sockets = udp
        .into_iter()
        .map(|address| host.udp(address).with_context(|| format!("{address:?}")))
        .collect::<Result<Vec<UdpSocket>>>()?;
    Ok(Server::start(listeners, sockets)?)
}
