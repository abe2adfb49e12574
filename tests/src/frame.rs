//! Packets and frames byte by byte, for what no socket sends: VRRP, tags without a VLAN device, extension headers,
//! SYNs from addresses that no host has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{LinkAddr, MsgFlags, SockaddrStorage, sendto};

use crate::host::Host;

/// EtherTypes, IEEE 802 numbers.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// A customer VLAN tag, IEEE 802.1Q.
    pub const VLAN: u16 = 0x8100;
    /// A service VLAN tag, IEEE 802.1ad.
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// TCP flags, RFC 9293, section 3.1.
pub mod flags {
    /// Open.
    pub const SYN: u8 = 0x02;
    /// Acknowledge.
    pub const ACK: u8 = 0x10;
    /// Open, second step.
    pub const SYN_ACK: u8 = SYN | ACK;
}

/// The Internet checksum (RFC 1071) of the parts as one; all but the last have an even length.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let word = [pair[0], pair.get(1).copied().unwrap_or(0)];
            sum += u32::from(u16::from_be_bytes(word));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// The pseudo header of RFC 9293, section 3.1, and RFC 8200, section 8.1.
fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        (source, destination) => {
            bytes.extend(v6(source).octets());
            bytes.extend(v6(destination).octets());
        }
    }
    bytes.extend([0, protocol]);
    bytes.extend(length.to_be_bytes());
    bytes
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn length_of(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX)
}

/// A UDP datagram with its checksum.
#[must_use]
pub fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes.extend((8 + length_of(payload)).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    let pseudo = pseudo_header(source.ip(), destination.ip(), 17, length_of(&bytes));
    let sum = checksum(&[&pseudo, &bytes]);
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// A TCP segment without options or data, with its checksum.
#[must_use]
pub fn tcp(
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(acknowledgement.to_be_bytes());
    // Data offset of five words, flags, window, checksum, urgent pointer.
    bytes.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    let pseudo = pseudo_header(source.ip(), destination.ip(), 6, length_of(&bytes));
    let sum = checksum(&[&pseudo, &bytes]);
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// An ICMP or ICMPv6 echo request, by the destination's family.
#[must_use]
pub fn echo_request(
    source: IpAddr,
    destination: IpAddr,
    identifier: u16,
    sequence: u16,
) -> Vec<u8> {
    let mut bytes = vec![if destination.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
    bytes.extend(identifier.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(b"flowproof lab");
    let sum = match destination {
        IpAddr::V4(_) => checksum(&[&bytes]),
        IpAddr::V6(_) => {
            let pseudo = pseudo_header(source, destination, 58, length_of(&bytes));
            checksum(&[&pseudo, &bytes])
        }
    };
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// A VRRP version 3 advertisement of one address, RFC 9568, section 5.1.
#[must_use]
pub fn vrrp(source: Ipv4Addr, virtual_address: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0x31, 7, 100, 1, 0, 100, 0, 0];
    bytes.extend(virtual_address.octets());
    let pseudo = pseudo_header(
        source.into(),
        Ipv4Addr::new(224, 0, 0, 18).into(),
        112,
        length_of(&bytes),
    );
    let sum = checksum(&[&pseudo, &bytes]);
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// An IP packet around `payload`, hop limit 64 (255 for VRRP, which demands it).
#[must_use]
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let hops = if protocol == 112 { 255 } else { 64 };
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut bytes = vec![0x45, 0];
            bytes.extend((20 + length_of(payload)).to_be_bytes());
            bytes.extend([0, 0, 0x40, 0, hops, protocol, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            let sum = checksum(&[&bytes]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            bytes.extend(payload);
            bytes
        }
        (source, destination) => {
            let mut bytes = vec![0x60, 0, 0, 0];
            bytes.extend(length_of(payload).to_be_bytes());
            bytes.extend([protocol, hops]);
            bytes.extend(v6(source).octets());
            bytes.extend(v6(destination).octets());
            bytes.extend(payload);
            bytes
        }
    }
}

/// An IPv6 packet with a hop-by-hop and a destination options header (RFC 8200, sections 4.3 and 4.6) before
/// `payload`; each holds nothing but padding.
#[must_use]
pub fn ipv6_with_options(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut extended = vec![60, 0, 1, 4, 0, 0, 0, 0];
    extended.extend([protocol, 0, 1, 4, 0, 0, 0, 0]);
    extended.extend(payload);
    ip(source.into(), destination.into(), 0, &extended)
}

/// An Ethernet frame with VLAN tags, outermost first: (tag protocol, VLAN number).
#[must_use]
pub fn ethernet(
    source: [u8; 6],
    destination: [u8; 6],
    tags: &[(u16, u16)],
    packet: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(destination);
    bytes.extend(source);
    for (protocol, vlan) in tags {
        bytes.extend(protocol.to_be_bytes());
        bytes.extend(vlan.to_be_bytes());
    }
    let version = packet.first().map_or(0, |byte| byte >> 4);
    let kind = if version == 6 {
        ethertype::IPV6
    } else {
        ethertype::IPV4
    };
    bytes.extend(kind.to_be_bytes());
    bytes.extend(packet);
    bytes
}

/// Sends whole IP packets from a host by its routes.
#[derive(Debug)]
pub struct RawSender {
    socket4: OwnedFd,
    socket6: OwnedFd,
}

impl RawSender {
    /// Opens its sockets.
    ///
    /// # Errors
    /// Root is missing.
    pub fn new(host: &Host) -> Result<Self> {
        use nix::sys::socket::AddressFamily;
        Ok(Self {
            socket4: host.raw(AddressFamily::Inet)?,
            socket6: host.raw(AddressFamily::Inet6)?,
        })
    }

    /// Sends a packet made by [`ip`] to `destination`.
    ///
    /// # Errors
    /// There is no route.
    pub fn send(&self, packet: &[u8], destination: IpAddr) -> Result<()> {
        let socket = if destination.is_ipv4() {
            &self.socket4
        } else {
            &self.socket6
        };
        let to = SockaddrStorage::from(SocketAddr::new(destination, 0));
        sendto(socket.as_raw_fd(), packet, &to, MsgFlags::empty())
            .with_context(|| format!("can't send to {destination}"))?;
        Ok(())
    }
}

/// Sends whole frames out of one interface.
#[derive(Debug)]
pub struct FrameSender {
    socket: OwnedFd,
    interface: LinkAddr,
    /// Hardware address of the interface.
    pub address: [u8; 6],
}

impl FrameSender {
    /// Opens its socket on the interface `name` of `host`.
    ///
    /// # Errors
    /// The interface doesn't exist, or root is missing.
    pub fn new(host: &Host, name: &str) -> Result<Self> {
        let interface = host.run(|| -> Result<Option<LinkAddr>> {
            Ok(nix::ifaddrs::getifaddrs()?
                .filter(|entry| entry.interface_name == name)
                .find_map(|entry| entry.address?.as_link_addr().copied()))
        })?;
        let Some(interface) = interface else {
            bail!("{} has no interface {name}", host.name());
        };
        let address = interface
            .addr()
            .with_context(|| format!("{name} has no hardware address"))?;
        Ok(Self {
            socket: host.packet()?,
            interface,
            address,
        })
    }

    /// Sends one frame as it is.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        sendto(
            self.socket.as_raw_fd(),
            frame,
            &self.interface,
            MsgFlags::empty(),
        )
        .context("can't send a frame")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_come_out_as_zero() {
        let source = "192.0.2.1:1000".parse().expect("an address");
        let destination = "192.0.2.2:53".parse().expect("an address");
        let datagram = udp(source, destination, b"odd");
        let pseudo = pseudo_header(source.ip(), destination.ip(), 17, length_of(&datagram));
        assert_eq!(checksum(&[&pseudo, &datagram]), 0);
        let packet = ip(source.ip(), destination.ip(), 17, &datagram);
        assert_eq!(checksum(&[&packet[..20]]), 0);
    }
}
