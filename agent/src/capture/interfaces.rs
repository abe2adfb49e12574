//! Which interfaces are watched. The choice is a function of what the host has and what was asked for, made anew
//! whenever a link or an address changes, so that no event can be missed: the whole list is compared, not the change.
//!
//! Links come from netlink and addresses from getifaddrs, never from /sys: what is mounted there need not belong to
//! the network namespace that the daemon is in.

use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};

use super::{CaptureError, Interface};
use crate::config::InterfacePattern;

/// A link of this network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index and name.
    pub interface: Interface,
    /// Whether it is switched on (`IFF_UP`); a cable need not be plugged in.
    pub up: bool,
    /// Whether it is the host's loopback.
    pub loopback: bool,
    /// Whether it is a port of a bridge, so that others' frames pass.
    pub bridge_port: bool,
    /// Whether somebody switched it to take others' frames (`ip link set promisc on`). A capture that does so for itself
    /// is none: the kernel leaves it out of the flags (`dev_get_flags` in net/core/dev.c).
    pub promiscuous: bool,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The patterns; a link that any of them takes is watched.
    pub patterns: Vec<InterfacePattern>,
    /// Whether a requirement needs loopback, which `auto` leaves out otherwise.
    pub loopback: bool,
}

impl Selection {
    /// The links to watch: those that are up and that a pattern takes. A bridge and its ports, a bond and its members
    /// are all taken: records know their capture point, so nothing is counted twice.
    #[must_use]
    pub fn choose(&self, links: &[Link]) -> Vec<Interface> {
        links
            .iter()
            .filter(|link| {
                link.up
                    && self
                        .patterns
                        .iter()
                        .any(|pattern| self.takes(pattern, link))
            })
            .map(|link| link.interface.clone())
            .collect()
    }

    fn takes(&self, pattern: &InterfacePattern, link: &Link) -> bool {
        match pattern {
            InterfacePattern::Auto => !link.loopback || self.loopback,
            InterfacePattern::Name(name) => link.interface.name == *name,
            InterfacePattern::Glob(glob) => glob.is_match(&link.interface.name),
        }
    }

    /// Whether the interface was asked for by its name, so that not getting it is an error.
    #[must_use]
    pub fn names(&self, interface: &Interface) -> bool {
        self.patterns.iter().any(
            |pattern| matches!(pattern, InterfacePattern::Name(name) if *name == interface.name),
        )
    }

    /// Checks that every interface that was asked for by name exists.
    ///
    /// # Errors
    /// [`CaptureError::NoInterface`] names the first that does not, and those there are.
    pub fn check(&self, links: &[Link]) -> Result<(), CaptureError> {
        let missing = self.patterns.iter().find_map(|pattern| match pattern {
            InterfacePattern::Name(name)
                if !links.iter().any(|link| link.interface.name == *name) =>
            {
                Some(name)
            }
            InterfacePattern::Name(_) | InterfacePattern::Auto | InterfacePattern::Glob(_) => None,
        });
        match missing {
            None => Ok(()),
            Some(name) => Err(CaptureError::NoInterface {
                name: name.clone(),
                known: links
                    .iter()
                    .map(|link| link.interface.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }
}

/// The addresses of this network namespace, loopback addresses left out, sorted. An address that others know may well
/// be on the loopback interface: a router's own, or the virtual one behind a load balancer.
///
/// # Errors
/// The kernel's list can't be read.
pub fn own_addresses() -> Result<Vec<IpAddr>, CaptureError> {
    let list = nix::ifaddrs::getifaddrs()
        .map_err(|error| failed("listing this host's addresses", &error))?;
    let mut addresses: Vec<IpAddr> = list
        .filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(|address| !address.is_loopback())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Lists the links of this network namespace, in the order of their indices.
///
/// # Errors
/// Netlink can't be used.
pub fn list() -> Result<Vec<Link>, CaptureError> {
    const ATTEMPTS: u32 = 5;
    let action = "listing the network interfaces by netlink";
    let error = |error: std::io::Error| failed(action, &error);
    for _ in 0..ATTEMPTS {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(error)?;
        socket.bind_auto().map_err(error)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(error)?;
        socket.send(&message::DUMP_LINKS, 0).map_err(error)?;
        let mut links = Vec::new();
        let mut buffer = Vec::with_capacity(message::LONGEST);
        loop {
            buffer.clear();
            socket.recv(&mut buffer, 0).map_err(error)?;
            match message::read_links(&buffer, &mut links) {
                message::Part::More => {}
                message::Part::Last => {
                    links.sort_by_key(|link| link.interface.index);
                    return Ok(links);
                }
                // Links changed while they were listed, so some may be missing.
                message::Part::Interrupted => break,
                message::Part::Error(code) => {
                    return Err(error(std::io::Error::from_raw_os_error(code)));
                }
            }
        }
    }
    Err(CaptureError::Failed {
        action: action.to_owned(),
        reason: "the interfaces kept changing while they were listed".to_owned(),
    })
}

fn failed(action: &str, reason: &dyn std::fmt::Display) -> CaptureError {
    CaptureError::Failed {
        action: action.to_owned(),
        reason: reason.to_string(),
    }
}

/// Tells when links or addresses change.
pub struct LinkWatch {
    socket: TokioSocket,
}

impl LinkWatch {
    /// Subscribes. Must be called within a tokio runtime; the network namespace is that of the calling thread.
    ///
    /// # Errors
    /// Netlink can't be used.
    pub fn new() -> Result<Self, CaptureError> {
        let error = |error: std::io::Error| {
            failed("subscribing to changes of interfaces by netlink", &error)
        };
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(error)?;
        socket.socket_mut().bind_auto().map_err(error)?;
        for group in [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
        ] {
            socket.socket_mut().add_membership(group).map_err(error)?;
        }
        Ok(Self { socket })
    }

    /// Waits until something changed, and forgets what: whoever waits lists the links anew.
    pub async fn changed(&mut self) {
        let mut buffer = Vec::with_capacity(message::LONGEST);
        // An error is a change too: a full socket buffer (ENOBUFS) lost messages.
        let _ = self.socket.recv(&mut buffer).await;
        // What else has come by now is answered by the same list.
        for _ in 0..BACKLOG {
            buffer.clear();
            if self.socket.socket_ref().recv(&mut buffer, 0).is_err() {
                break;
            }
        }
    }
}

/// Notifications that are dropped in one go; what is beyond wakes the next call.
const BACKLOG: u32 = 10_000;

/// The few bytes of rtnetlink that are needed: `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h`.
mod message {
    use super::{Interface, Link};

    /// The kernel puts at most 32 KiB into one answer (`linux/netlink.h`, `NLMSG_GOODSIZE` and af_netlink.c).
    pub(super) const LONGEST: usize = 64 * 1024;

    const HEADER: usize = 16;
    const IFINFO: usize = 16;
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    const NEW_LINK: u16 = 16;
    const DUMP_INTERRUPTED: u16 = 0x10;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_LINKINFO: u16 = 18;
    /// The kind of what the link is a port of, within [`IFLA_LINKINFO`].
    const IFLA_INFO_SLAVE_KIND: u16 = 4;
    /// Flags in the upper bits of an attribute's type (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
    const ATTRIBUTE_TYPE: u16 = 0x3fff;
    const UP: u32 = 1;
    const LOOPBACK: u32 = 8;
    const PROMISCUOUS: u32 = 0x100;

    /// `RTM_GETLINK` with `NLM_F_REQUEST | NLM_F_DUMP` and an `ifinfomsg` of any family.
    pub(super) const DUMP_LINKS: [u8; HEADER + IFINFO] = {
        const GET_LINK: u16 = 18;
        const FLAGS: u16 = 0x301;
        let mut bytes = [0; HEADER + IFINFO];
        const LENGTH: u32 = 32;
        let length = LENGTH.to_ne_bytes();
        let kind = GET_LINK.to_ne_bytes();
        let flags = FLAGS.to_ne_bytes();
        let mut at = 0;
        while at < 4 {
            bytes[at] = length[at];
            at += 1;
        }
        bytes[4] = kind[0];
        bytes[5] = kind[1];
        bytes[6] = flags[0];
        bytes[7] = flags[1];
        bytes[8] = 1;
        bytes
    };

    /// What a part of the kernel's answer was.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) enum Part {
        More,
        Last,
        Interrupted,
        /// An errno.
        Error(i32),
    }

    fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
        Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
    }

    fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    }

    /// Takes the links out of one datagram; what can't be read is left out.
    pub(super) fn read_links(mut bytes: &[u8], links: &mut Vec<Link>) -> Part {
        while let (Some(length), Some(kind), Some(flags)) =
            (u32_at(bytes, 0), u16_at(bytes, 4), u16_at(bytes, 6))
        {
            let Some(body) = bytes.get(HEADER..length as usize) else {
                break;
            };
            if flags & DUMP_INTERRUPTED != 0 {
                return Part::Interrupted;
            }
            match kind {
                DONE => return Part::Last,
                ERROR => {
                    let code = u32_at(body, 0)
                        .map_or(libc::EPROTO, |code| code.cast_signed().wrapping_neg());
                    return Part::Error(code);
                }
                NEW_LINK => links.extend(read_link(body)),
                _ => {}
            }
            match bytes.get((length as usize).next_multiple_of(4)..) {
                Some(rest) => bytes = rest,
                None => break,
            }
        }
        Part::More
    }

    fn read_link(body: &[u8]) -> Option<Link> {
        let index = u32_at(body, 4)?;
        let flags = u32_at(body, 8)?;
        let attributes = body.get(IFINFO..)?;
        let name = text(attribute(attributes, IFLA_IFNAME)?);
        let port_of = attribute(attributes, IFLA_LINKINFO)
            .and_then(|info| attribute(info, IFLA_INFO_SLAVE_KIND));
        Some(Link {
            interface: Interface {
                index,
                name: String::from_utf8_lossy(name).into_owned(),
            },
            up: flags & UP != 0,
            loopback: flags & LOOPBACK != 0,
            bridge_port: port_of.is_some_and(|kind| text(kind) == b"bridge"),
            promiscuous: flags & PROMISCUOUS != 0,
        })
    }

    /// The first attribute of a kind.
    fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
        while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
            let value = attributes.get(4..length as usize)?;
            if kind & ATTRIBUTE_TYPE == wanted {
                return Some(value);
            }
            attributes = attributes.get((length as usize).next_multiple_of(4)..)?;
        }
        None
    }

    /// Up to the byte that ends a text.
    fn text(bytes: &[u8]) -> &[u8] {
        bytes.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    #[cfg(test)]
    mod tests {
        use proptest::prelude::*;

        use super::*;

        fn part(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
            let length = u32::try_from(HEADER + body.len()).unwrap();
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(flags.to_ne_bytes());
            bytes.extend([0; 8]);
            bytes.extend(body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        }

        fn padded(kind: u16, value: &[u8]) -> Vec<u8> {
            let mut bytes = u16::try_from(4 + value.len())
                .unwrap()
                .to_ne_bytes()
                .to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        }

        /// A port of a bridge, or of something else.
        fn port(name: &str, of: &str, flags: u32) -> Vec<u8> {
            let kind = padded(1, b"veth\0");
            let slave = padded(IFLA_INFO_SLAVE_KIND, &[of.as_bytes(), &[0]].concat());
            let mut body = vec![0; 4];
            body.extend(7_u32.to_ne_bytes());
            body.extend(flags.to_ne_bytes());
            body.extend([0; 4]);
            body.extend(padded(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat()));
            body.extend(padded(IFLA_LINKINFO | 0x8000, &[kind, slave].concat()));
            part(NEW_LINK, 2, &body)
        }

        #[test]
        fn knows_whose_frames_pass() {
            let mut links = Vec::new();
            for message in [
                port("a", "bridge", UP),
                port("b", "bond", PROMISCUOUS),
                link(1, UP, "c"),
            ] {
                read_links(&message, &mut links);
            }
            let got: Vec<_> = links
                .iter()
                .map(|link| (link.bridge_port, link.promiscuous))
                .collect();
            assert_eq!(got, [(true, false), (false, true), (false, false)]);
        }

        fn link(index: u32, flags: u32, name: &str) -> Vec<u8> {
            let mut body = vec![0; 4];
            body.extend(index.to_ne_bytes());
            body.extend(flags.to_ne_bytes());
            body.extend([0; 4]);
            // An attribute of another type before the name (IFLA_TXQLEN 13).
            body.extend(8_u16.to_ne_bytes());
            body.extend(13_u16.to_ne_bytes());
            body.extend([0; 4]);
            body.extend(u16::try_from(5 + name.len()).unwrap().to_ne_bytes());
            body.extend(IFLA_IFNAME.to_ne_bytes());
            body.extend(name.bytes());
            body.push(0);
            part(NEW_LINK, 2, &body)
        }

        #[test]
        fn reads_what_the_kernel_sends() {
            let mut links = Vec::new();
            let both = [link(1, UP | LOOPBACK, "lo"), link(70_000, 0, "eth0")].concat();
            assert_eq!(read_links(&both, &mut links), Part::More);
            assert_eq!(read_links(&part(DONE, 2, &[0; 4]), &mut links), Part::Last);
            let got: Vec<_> = links
                .iter()
                .map(|link| {
                    (
                        link.interface.index,
                        link.interface.name.as_str(),
                        link.up,
                        link.loopback,
                    )
                })
                .collect();
            assert_eq!(got, [(1, "lo", true, true), (70_000, "eth0", false, false)]);
            let refused = part(ERROR, 0, &(-libc::EPERM).to_ne_bytes());
            assert_eq!(read_links(&refused, &mut links), Part::Error(libc::EPERM));
            let changed = part(NEW_LINK, DUMP_INTERRUPTED, &[]);
            assert_eq!(read_links(&changed, &mut links), Part::Interrupted);
        }

        mod properties {
            use super::*;

            proptest! {
                #[test]
                fn reading_never_panics(bytes: Vec<u8>, cut in 0_usize..64) {
                    let mut links = Vec::new();
                    let _ = read_links(&bytes, &mut links);
                    for valid in [link(1, UP, "eth0"), port("eth0", "bridge", UP)] {
                        let _ = read_links(&valid[..cut.min(valid.len())], &mut links);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, up: bool) -> Link {
        Link {
            interface: Interface {
                index,
                name: name.to_owned(),
            },
            up,
            loopback: name == "lo",
            bridge_port: false,
            promiscuous: false,
        }
    }

    fn selection(patterns: &[&str], loopback: bool) -> Selection {
        Selection {
            patterns: patterns.iter().map(|text| text.parse().unwrap()).collect(),
            loopback,
        }
    }

    #[test]
    fn chooses_interfaces() {
        let links = [
            link(1, "lo", true),
            link(2, "eth0", true),
            link(3, "eth1", false),
            link(4, "br-a", true),
        ];
        let check = |patterns: &[&str], loopback, expect: &[&str]| {
            let chosen = selection(patterns, loopback).choose(&links);
            let names: Vec<_> = chosen.iter().map(|chosen| chosen.name.as_str()).collect();
            assert_eq!(names, expect, "{patterns:?}");
        };
        check(&["auto"], false, &["eth0", "br-a"]);
        check(&["auto"], true, &["lo", "eth0", "br-a"]);
        check(&["lo"], false, &["lo"]);
        check(&["eth*"], false, &["eth0"]);
        check(&["*"], false, &["lo", "eth0", "br-a"]);
        check(&["eth1"], false, &[]);
        check(&["br-?", "eth0"], false, &["eth0", "br-a"]);
        check(&["wlan0"], false, &[]);
    }

    #[test]
    fn a_name_that_does_not_exist_is_an_error_and_a_glob_is_not() {
        let links = [link(1, "lo", true), link(2, "eth0", true)];
        let error = selection(&["lo", "eth9"], false).check(&links).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no interface named 'eth9'; this host has: lo, eth0"
        );
        assert!(
            selection(&["eth0", "wlan*", "auto"], false)
                .check(&links)
                .is_ok()
        );
    }

    #[test]
    fn lists_the_loopback_of_this_host() {
        let links = list().unwrap();
        let loopback = links.iter().find(|link| link.loopback).unwrap();
        assert_eq!(
            nix::net::if_::if_nametoindex(loopback.interface.name.as_str()).unwrap(),
            loopback.interface.index
        );
        assert!(
            own_addresses()
                .unwrap()
                .iter()
                .all(|address| !address.is_loopback())
        );
    }
}
