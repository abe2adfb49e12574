//! An ICMP echo request. Linux has sockets for `ping` that need no right, where `net.ipv4.ping_group_range` lets the user
//! have them; else a raw socket, which needs CAP_NET_RAW.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{SockProtocol, SockType};

use super::socket;
use super::udp::Datagrams;
use crate::probe::Probe;
use crate::probe::judge::Heard;
use crate::probe::question::{Echo, EchoAnswer, Seed};

pub(super) async fn ask(probe: &Probe, timeout: Duration, seed: &Seed) -> io::Result<Heard> {
    let is_v6 = probe.target.address().is_ipv6();
    let protocol = if is_v6 {
        SockProtocol::IcmpV6
    } else {
        SockProtocol::Icmp
    };
    let is_denied = |error: &io::Error| {
        [Errno::EACCES, Errno::EPERM]
            .iter()
            .any(|errno| error.raw_os_error() == Some(*errno as i32))
    };
    let (opened, is_raw) = match socket::open(probe, SockType::Datagram, protocol) {
        Err(error) if is_denied(&error) => (socket::open(probe, SockType::Raw, protocol), true),
        opened => (opened, false),
    };
    let opened = match opened {
        Err(error) if is_denied(&error) => {
            return Ok(Heard::NotTried(
                "ping needs CAP_NET_RAW, or a group within net.ipv4.ping_group_range".to_owned(),
            ));
        }
        opened => opened?,
    };
    let echo = Echo::new(is_v6, seed);
    Datagrams::new(opened)?
        .ask(
            &echo.bytes(),
            timeout,
            |heard| match echo.answer(if is_raw && !is_v6 {
                behind_header(heard)?
            } else {
                heard
            }) {
                EchoAnswer::Reply => Some("answered by an echo reply".to_owned()),
                EchoAnswer::Other => None,
            },
            // A raw socket hears of every ping to the same address.
            |quoted| !is_raw || echo.is_quoted_in(quoted),
        )
        .await
}

/// What follows the IPv4 header, which raw sockets hand over too (raw(7)).
fn behind_header(packet: &[u8]) -> Option<&[u8]> {
    // Its length in 32-bit words is the low half of its first byte (RFC 791, section 3.1).
    packet.get(usize::from(packet.first()? & 0xf) * 4..)
}
