//! The servers of the probe's lab: each answers in its protocol, and one does not answer the question that was put.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use flowproof_tests::host::Host;
use flowproof_tests::lab::{server4, server6};
use flowproof_tests::names::dnsmasq::{Dnsmasq, Zone};
use flowproof_tests::names::h3;
use flowproof_tests::names::identity::Identity;
use flowproof_tests::traffic::{Manner, Server, echo_tcp, on_connections, on_datagrams, serve_udp};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::{ServerConfig, ServerConnection, Stream};

/// Where names are asked for.
pub(super) const RESOLVER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 20)), 53);
/// Where all names lead.
pub(super) const WEB: IpAddr = server4(11);
/// Answers other questions than the ones that were put.
const FORGER: IpAddr = server4(13);

/// All of them; they end when dropped.
pub(super) struct Servers {
    _simple: Vec<Server>,
    _quic: h3::Server,
    _dnsmasq: Dnsmasq,
}

impl Servers {
    pub(super) fn start(host: &Arc<Host>) -> Result<Self> {
        let identity = Identity::new(&["*.lab.example"])?;
        let tls = Arc::new(identity.server(&[])?);
        let udp = server4(12);
        let simple = vec![
            echo_tcp(host.listen((server4(10), 8000))?)?,
            echo_tcp(host.listen((server6(0x10), 8000))?)?,
            echo_tcp(host.listen((server4(14), 9000))?)?,
            on_connections(host.listen((WEB, 443))?, move |stream| web(stream, &tls))?,
            answering(host.udp((udp, 123))?, |asked| {
                ntp(asked, asked.get(40..48)?)
            })?,
            answering(host.udp((FORGER, 123))?, |asked| ntp(asked, &[7; 8]))?,
            answering(host.udp((udp, 3478))?, stun)?,
            answering(host.udp((udp, 1434))?, browser)?,
            serve_udp(host.udp((udp, 514))?, Manner::Silent)?,
        ];
        let zone = Zone {
            ttl: 60,
            hosts: &[
                ("good.lab.example", WEB),
                ("bad.lab.example", WEB),
                ("mute.lab.example", WEB),
                ("odd.shop.example", WEB),
                ("inside.lab.example", IpAddr::V4(Ipv4Addr::LOCALHOST)),
            ],
            domains: &["lab.example", "shop.example"],
            ..Zone::default()
        };
        Ok(Self {
            _simple: simple,
            _quic: h3::Server::start(host, &[(udp, 443).into()], &identity)?,
            _dnsmasq: Dnsmasq::start(host, RESOLVER, &zone)?,
        })
    }
}

/// TLS for every name but two: at one, the connection is reset as a filter would, at the other, nothing more is said.
fn web(mut stream: TcpStream, tls: &Arc<ServerConfig>) {
    let mut hello = [0; 4096];
    let Ok(length @ 1..) = stream.peek(&mut hello) else {
        return;
    };
    let names = |name: &str| {
        hello[..length]
            .windows(name.len())
            .any(|part| part == name.as_bytes())
    };
    if names("bad.lab.example") {
        let at_once = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        // What fails here is missed by the test.
        let _ = setsockopt(&stream, sockopt::Linger, &at_once);
        return;
    }
    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
    if names("mute.lab.example") {
        while let Ok(1..) = stream.read(&mut hello) {}
        return;
    }
    let Ok(mut connection) = ServerConnection::new(Arc::clone(tls)) else {
        return;
    };
    // Until the client says goodbye.
    while let Ok(1..) = Stream::new(&mut connection, &mut stream).read(&mut hello) {}
}

/// Serves a socket with what `answer` says to each datagram.
fn answering(
    socket: UdpSocket,
    answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
) -> Result<Server> {
    let back = socket.try_clone()?;
    Ok(on_datagrams(socket, move |asked, peer| {
        if let Some(answer) = answer(asked) {
            // What can't be sent is missed by the client, which tells.
            let _ = back.send_to(&answer, peer);
        }
    })?)
}

/// A server of stratum 2 (RFC 5905, figure 8), whose answer has this origin timestamp.
fn ntp(asked: &[u8], origin: &[u8]) -> Option<Vec<u8>> {
    // Version 3 or 4, mode 3: a client's.
    if asked.len() < 48 || asked[0] & 7 != 3 || !(3..=4).contains(&(asked[0] >> 3 & 7)) {
        return None;
    }
    let mut packet = vec![asked[0] & 0x38 | 4, 2, asked[2], 0xec];
    // Root delay, root dispersion, reference id, reference timestamp.
    packet.extend([0, 0, 1, 0, 0, 0, 1, 0, 10, 0, 0, 1]);
    packet.extend([0xe0, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend(origin);
    // When it came and when it goes.
    packet.extend([0xe0, 0, 0, 1, 0, 0, 0, 0]);
    packet.extend([0xe0, 0, 0, 1, 0, 0, 1, 0]);
    Some(packet)
}

/// A Binding success (RFC 8489) with XOR-MAPPED-ADDRESS 10.20.0.2:4660.
fn stun(asked: &[u8]) -> Option<Vec<u8>> {
    if asked.len() != 20 || asked[..4] != [0, 1, 0, 0] || asked[4..8] != [0x21, 0x12, 0xa4, 0x42] {
        return None;
    }
    let mut response = vec![1, 1, 0, 12];
    response.extend(&asked[4..20]);
    let port = 4660_u16 ^ 0x2112;
    let address = u32::from(Ipv4Addr::new(10, 20, 0, 2)) ^ 0x2112_a442;
    response.extend([0, 0x20, 0, 8, 0, 1]);
    response.extend(port.to_be_bytes());
    response.extend(address.to_be_bytes());
    Some(response)
}

/// One instance, in the words of MC-SQLR.
fn browser(asked: &[u8]) -> Option<Vec<u8>> {
    if asked != [3] {
        return None;
    }
    let text = b"ServerName;LAB;InstanceName;ONE;IsClustered;No;Version;16.0.1000.6;tcp;1433;;";
    let mut response = vec![5];
    response.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
    response.extend(text);
    Some(response)
}
