//! The lab of the names: a client behind a router, and a host that stands for the Internet, with enough addresses to let
//! names wander over them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use crate::lab::{Routed, TO_SERVER, UPLINK, batch};

/// How many addresses [`site4`] and [`site6`] have, counted from 1.
pub const SITES: u8 = 60;

/// Where name servers listen.
pub const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 1, 200)), 53);

/// A second place for a name server, for one that misbehaves beside one that doesn't.
pub const OTHER_RESOLVER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 1, 201)), 53);

/// An address of the Internet; `number` is from 1 to [`SITES`].
#[must_use]
pub const fn site4(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 1, 1, number))
}

/// An IPv6 address of the Internet; `number` is from 1 to [`SITES`].
#[must_use]
pub const fn site6(number: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x11, 0, 0, 0, 0, 0, number as u16))
}

/// [`Routed`], whose server also holds the addresses of the Internet. The daemon under test runs on the router.
///
/// # Errors
/// As [`Routed::new`].
pub fn new() -> Result<Routed> {
    let lab = Routed::new()?;
    // A wire between namespaces carries what a socket sends as one large packet. A network doesn't: so that a long
    // ClientHello comes in segments, the client cuts it itself.
    lab.client
        .ip(&format!("link set dev {UPLINK} gso_max_segs 1"))?;
    batch(
        &lab.router,
        &format!(
            "addr add 10.1.1.254/24 brd + dev {TO_SERVER}\naddr add fd00:11::ffff/64 nodad dev {TO_SERVER}\n"
        ),
    )?;
    let mut server = String::new();
    for number in 1..=SITES {
        server.push_str(&format!(
            "addr add {}/24 brd + dev {UPLINK}\naddr add {}/64 nodad dev {UPLINK}\n",
            site4(number),
            site6(number)
        ));
    }
    for resolver in [RESOLVER, OTHER_RESOLVER] {
        server.push_str(&format!(
            "addr add {}/24 brd + dev {UPLINK}\n",
            resolver.ip()
        ));
    }
    batch(&lab.server, &server)?;
    Ok(lab)
}
