//! The topologies that tests share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Result;

use crate::host::{Host, wire};

/// The one interface of the client, and of the server.
pub const UPLINK: &str = "uplink";
/// Interface of the router towards the client.
pub const TO_CLIENT: &str = "toclient";
/// Interface of the router towards the server.
pub const TO_SERVER: &str = "toserver";

/// Address of the router on the client's side.
pub const ROUTER_CLIENT_SIDE: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
/// Address of the router on the server's side.
pub const ROUTER_SERVER_SIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

/// A further address of the client, on no prefix that anybody knows; the router has a route to it.
pub const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 30, 0, 2));

/// The client's address ending in `last`; it holds 2 to 9.
#[must_use]
pub const fn client4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 20, 0, last))
}

/// The server's address ending in `last`; it holds 10 to 29 and 99.
#[must_use]
pub const fn server4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 1, 0, last))
}

/// The client's IPv6 address ending in `last`; it holds 2 to 4.
#[must_use]
pub const fn client6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, last))
}

/// The server's IPv6 address ending in `last`; it holds 0x10 to 0x14.
#[must_use]
pub const fn server6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, last))
}

/// A client and a server on either side of a router. The router sees everything twice, once on each interface, as a
/// firewall does; the daemon under test runs there.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The host that initiates, with several addresses.
    pub client: Arc<Host>,
    /// The host in the middle.
    pub router: Arc<Host>,
    /// The host that answers, with several addresses, so that it stands for many servers.
    pub server: Arc<Host>,
}

impl Routed {
    /// Makes the hosts, wires and addresses.
    ///
    /// # Errors
    /// Root is missing, or `ip` is.
    pub fn new() -> Result<Self> {
        let lab = Self {
            client: Host::new("client")?,
            router: Host::new("router")?,
            server: Host::new("server")?,
        };
        lab.router.sysctl("net/ipv4/ip_forward", "1")?;
        lab.router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        wire(&lab.client, UPLINK, &lab.router, TO_CLIENT)?;
        wire(&lab.server, UPLINK, &lab.router, TO_SERVER)?;

        let mut router = format!(
            "addr add {ROUTER_CLIENT_SIDE}/24 brd + dev {TO_CLIENT}\n\
             addr add {ROUTER_SERVER_SIDE}/24 brd + dev {TO_SERVER}\n"
        );
        router.push_str(&format!(
            "addr add fd00:20::1/64 nodad dev {TO_CLIENT}\naddr add fd00:10::1/64 nodad dev {TO_SERVER}\n\
             route add {STRANGER} dev {TO_CLIENT}\n"
        ));
        batch(&lab.router, &router)?;

        let mut client = String::new();
        for last in 2..=9 {
            client.push_str(&format!(
                "addr add {}/24 brd + dev {UPLINK}\n",
                client4(last)
            ));
        }
        for last in 2..=4 {
            client.push_str(&format!(
                "addr add {}/64 nodad dev {UPLINK}\n",
                client6(last)
            ));
        }
        client.push_str(&format!(
            "addr add {STRANGER}/32 dev {UPLINK}\nroute add default via {ROUTER_CLIENT_SIDE}\nroute add default via fd00:20::1\n"
        ));
        batch(&lab.client, &client)?;

        let mut server = String::new();
        for last in (10..=29).chain([99]) {
            server.push_str(&format!(
                "addr add {}/24 brd + dev {UPLINK}\n",
                server4(last)
            ));
        }
        for last in 0x10..=0x14 {
            server.push_str(&format!(
                "addr add {}/64 nodad dev {UPLINK}\n",
                server6(last)
            ));
        }
        server.push_str(&format!(
            "route add default via {ROUTER_SERVER_SIDE}\nroute add default via fd00:10::1\n"
        ));
        batch(&lab.server, &server)?;
        Ok(lab)
    }
}

/// Runs several `ip` commands at once: starting a program for each would take most of a test's time.
///
/// # Errors
/// One of them fails.
pub fn batch(host: &Host, commands: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(&file, commands)?;
    host.command("ip", &["-batch", &file.path().display().to_string()])?;
    Ok(())
}

/// Why the labs can't be built here, if they can't.
#[must_use]
pub fn obstacle() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("making network namespaces needs root".to_owned());
    }
    for (program, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        if std::process::Command::new(program)
            .arg("-V")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .is_err()
        {
            return Some(format!(
                "the program {program} is missing; install {package}"
            ));
        }
    }
    None
}

/// Whether the lab can't be built here; then it is noted that `test` is skipped, and the caller returns.
#[must_use]
pub fn skipped(test: &str) -> bool {
    obstacle().is_some_and(|reason| {
        crate::skip::skip(test, &reason);
        true
    })
}
