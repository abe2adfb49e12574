//! Header parsing for the kernel programs, written over a byte source so that the same lines run in a
//! test against etherparse. Every loop is bounded and every access is a fixed-size load, because a
//! verifier reads this code too.
//!
//! It is lax on purpose: a frame cut by a snap length still gives addresses and ports when these are
//! there. What it can't read it calls [`Outcome::Unparsed`], never guesses.

use crate::address::Address;
use crate::packet::{Fragment, Packet};
use crate::protocol;

/// Where the bytes come from: a socket buffer in the kernel, a slice in a test.
pub trait Bytes {
    /// `N` bytes from `offset` (bytes from the start of the frame), or nothing if the frame is shorter.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

impl Bytes for &[u8] {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let start = offset as usize;
        self.get(start..start.checked_add(N)?)?.try_into().ok()
    }
}

/// What parsing a frame came to.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// An IP packet; the fields are filled in.
    Ip = 0,
    /// Well-formed, but no IP: ARP, LLDP, spanning tree and the like.
    NotIp = 1,
    /// Claims to be IP and can't be read: cut short or malformed.
    Unparsed = 2,
}

/// EtherTypes, IEEE 802 numbers (`linux/if_ether.h`).
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad service tag.
    pub const QINQ: u16 = 0x88a8;
    /// The tag that some switches used before 802.1ad.
    pub const QINQ_OLD: u16 = 0x9100;
}

/// Tags read before a frame is given up: 802.1ad over 802.1Q is two, one more for stacked providers.
pub const MAX_VLAN_TAGS: u32 = 3;
/// IPv6 extension headers read before a packet is given up. RFC 8200 lists six kinds, each normally once.
pub const MAX_EXTENSION_HEADERS: u32 = 8;
const ETHERNET_HEADER: u32 = 14;

/// Parses an Ethernet frame (IEEE 802.3, with 802.1Q and 802.1ad tags).
#[inline(always)]
pub fn ethernet(bytes: &impl Bytes, packet: &mut Packet) -> Outcome {
    let Some(kind) = bytes.load::<2>(12) else {
        return Outcome::Unparsed;
    };
    network(bytes, ETHERNET_HEADER, u16::from_be_bytes(kind), packet)
}

/// Parses from the EtherType on: `offset` is where the header that `kind` announces begins.
#[inline(always)]
pub fn network(bytes: &impl Bytes, mut offset: u32, mut kind: u16, packet: &mut Packet) -> Outcome {
    let mut tags = 0;
    while tags < MAX_VLAN_TAGS
        && matches!(
            kind,
            ether_type::VLAN | ether_type::QINQ | ether_type::QINQ_OLD
        )
    {
        let Some(tag) = bytes.load::<4>(offset) else {
            return Outcome::Unparsed;
        };
        kind = u16::from_be_bytes([tag[2], tag[3]]);
        offset += 4;
        tags += 1;
    }
    match kind {
        ether_type::IPV4 => ipv4(bytes, offset, packet),
        ether_type::IPV6 => ipv6(bytes, offset, packet),
        _ => Outcome::NotIp,
    }
}

/// Parses a packet without a link header; the version nibble tells which IP it is.
#[inline(always)]
pub fn raw_ip(bytes: &impl Bytes, offset: u32, packet: &mut Packet) -> Outcome {
    match bytes.load::<1>(offset) {
        Some([first]) if first >> 4 == 4 => ipv4(bytes, offset, packet),
        Some([first]) if first >> 4 == 6 => ipv6(bytes, offset, packet),
        _ => Outcome::Unparsed,
    }
}

/// RFC 791, section 3.1; the header length is read, not assumed, because options move the ports.
#[inline(always)]
pub fn ipv4(bytes: &impl Bytes, offset: u32, packet: &mut Packet) -> Outcome {
    let Some(header) = bytes.load::<20>(offset) else {
        return Outcome::Unparsed;
    };
    let header_length = u32::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_length < 20 {
        return Outcome::Unparsed;
    }
    let total = u32::from(u16::from_be_bytes([header[2], header[3]]));
    let flags_and_offset = u16::from_be_bytes([header[6], header[7]]);
    let more = flags_and_offset & 0x2000 != 0;
    let fragment_offset = flags_and_offset & 0x1fff;
    packet.fragment = fragment(more, fragment_offset);
    packet.fragment_id = if matches!(packet.fragment, Fragment::None) {
        0
    } else {
        u32::from(u16::from_be_bytes([header[4], header[5]]))
    };
    packet.protocol = header[9];
    packet.source = Address::from_v4([header[12], header[13], header[14], header[15]]);
    packet.destination = Address::from_v4([header[16], header[17], header[18], header[19]]);
    packet.transport_offset = offset + header_length;
    // A total length of 0 is what segmentation offload writes for packets over 64 KiB.
    packet.payload_length = total.saturating_sub(header_length);
    transport(bytes, packet)
}

/// RFC 8200, sections 3 and 4: the fixed header, then extension headers up to the transport.
#[inline(always)]
pub fn ipv6(bytes: &impl Bytes, offset: u32, packet: &mut Packet) -> Outcome {
    let Some(header) = bytes.load::<40>(offset) else {
        return Outcome::Unparsed;
    };
    if header[0] >> 4 != 6 {
        return Outcome::Unparsed;
    }
    let [
        _,
        _,
        _,
        _,
        length_high,
        length_low,
        next_header,
        _,
        rest @ ..,
    ] = header;
    let (source, destination) = halves(&rest);
    packet.source = Address::from_v6(source);
    packet.destination = Address::from_v6(destination);
    packet.fragment = Fragment::None;
    packet.fragment_id = 0;
    let payload = u32::from(u16::from_be_bytes([length_high, length_low]));
    let mut next = next_header;
    let mut at = offset + 40;
    let mut headers = 0;
    while headers < MAX_EXTENSION_HEADERS {
        match next {
            // Hop-by-hop, routing, destination options, mobility (RFC 6275), HIP (RFC 7401), shim6
            // (RFC 5533): length in units of 8 bytes, not counting the first.
            0 | 43 | 60 | 135 | 139 | 140 => {
                let Some(extension) = bytes.load::<2>(at) else {
                    return Outcome::Unparsed;
                };
                next = extension[0];
                at += (u32::from(extension[1]) + 1) * 8;
            }
            // Authentication header (RFC 4302): length in units of 4 bytes, not counting the first two.
            51 => {
                let Some(extension) = bytes.load::<2>(at) else {
                    return Outcome::Unparsed;
                };
                // Its fixed part alone is three such units.
                if extension[1] == 0 {
                    return Outcome::Unparsed;
                }
                next = extension[0];
                at += (u32::from(extension[1]) + 2) * 4;
            }
            // Fragment header (RFC 8200, section 4.5).
            44 => {
                let Some(extension) = bytes.load::<8>(at) else {
                    return Outcome::Unparsed;
                };
                next = extension[0];
                let offset_and_more = u16::from_be_bytes([extension[2], extension[3]]);
                packet.fragment = fragment(offset_and_more & 1 != 0, offset_and_more >> 3);
                if !matches!(packet.fragment, Fragment::None) {
                    packet.fragment_id = u32::from_be_bytes([
                        extension[4],
                        extension[5],
                        extension[6],
                        extension[7],
                    ]);
                }
                at += 8;
                if matches!(packet.fragment, Fragment::Later) {
                    // What follows is payload, whatever it looks like.
                    break;
                }
            }
            _ => break,
        }
        headers += 1;
    }
    // What comes after the last header that was read is no transport protocol.
    if headers == MAX_EXTENSION_HEADERS && is_extension(next) {
        return Outcome::Unparsed;
    }
    packet.protocol = next;
    packet.transport_offset = at;
    packet.payload_length = payload.saturating_sub(at - offset - 40);
    transport(bytes, packet)
}

/// Whether an IPv6 next header value announces an extension header that [`ipv6`] steps over.
#[inline(always)]
#[must_use]
pub const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140)
}

#[inline(always)]
const fn fragment(more: bool, offset: u16) -> Fragment {
    match (more, offset) {
        (false, 0) => Fragment::None,
        (true, 0) => Fragment::First,
        _ => Fragment::Later,
    }
}

#[inline(always)]
fn halves(both: &[u8; 32]) -> ([u8; 16], [u8; 16]) {
    let mut first = [0; 16];
    let mut second = [0; 16];
    first.copy_from_slice(&both[..16]);
    second.copy_from_slice(&both[16..]);
    (first, second)
}

/// Ports, TCP flags, ICMP type and identifier. `packet.protocol` and `transport_offset` are set.
#[inline(always)]
fn transport(bytes: &impl Bytes, packet: &mut Packet) -> Outcome {
    packet.source_port = 0;
    packet.destination_port = 0;
    packet.tcp_flags = 0;
    packet.icmp_type = 0;
    packet.icmp_code = 0;
    let at = packet.transport_offset;
    if matches!(packet.fragment, Fragment::Later) {
        return network_headers_present(bytes, at);
    }
    match packet.protocol {
        protocol::TCP => {
            let Some(header) = bytes.load::<14>(at) else {
                return Outcome::Unparsed;
            };
            packet.source_port = u16::from_be_bytes([header[0], header[1]]);
            packet.destination_port = u16::from_be_bytes([header[2], header[3]]);
            packet.tcp_flags = header[13];
        }
        protocol::UDP | protocol::DCCP | protocol::SCTP | protocol::UDP_LITE => {
            let Some(header) = bytes.load::<4>(at) else {
                return Outcome::Unparsed;
            };
            packet.source_port = u16::from_be_bytes([header[0], header[1]]);
            packet.destination_port = u16::from_be_bytes([header[2], header[3]]);
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let Some(header) = bytes.load::<2>(at) else {
                return Outcome::Unparsed;
            };
            packet.icmp_type = header[0];
            packet.icmp_code = header[1];
            if protocol::is_echo(packet.protocol, packet.icmp_type) {
                let Some(identifier) = bytes.load::<2>(at + 4) else {
                    return Outcome::Unparsed;
                };
                packet.source_port = u16::from_be_bytes(identifier);
                packet.destination_port = packet.source_port;
            }
        }
        _ => return network_headers_present(bytes, at),
    }
    Outcome::Ip
}

/// Where what was read of a packet ends, bytes from the start of the frame.
#[inline(always)]
#[must_use]
pub const fn end(packet: &Packet) -> u32 {
    let read = match (packet.fragment, packet.protocol) {
        (Fragment::Later, _) => 0,
        (_, protocol::TCP) => 14,
        (_, protocol::UDP | protocol::DCCP | protocol::SCTP | protocol::UDP_LITE) => 4,
        (_, protocol::ICMP | protocol::ICMPV6) => {
            if protocol::is_echo(packet.protocol, packet.icmp_type) {
                6
            } else {
                2
            }
        }
        _ => 0,
    };
    packet.transport_offset + read
}

/// Where nothing is read of the transport, a frame cut within IPv4 options or an extension header would
/// pass for a whole one.
#[inline(always)]
fn network_headers_present(bytes: &impl Bytes, transport_offset: u32) -> Outcome {
    if bytes.load::<1>(transport_offset - 1).is_some() {
        Outcome::Ip
    } else {
        Outcome::Unparsed
    }
}

/// The packet that an ICMP error quotes (RFC 792; RFC 4443, section 2.4 c), of which at least the IP
/// header and 8 bytes are there: enough for ports, not for TCP flags.
///
/// `error` is the parsed error message. Returns nothing if the quotation is too short or of the other IP
/// version.
#[inline(always)]
pub fn quoted(bytes: &impl Bytes, error: &Packet, inner: &mut Packet) -> bool {
    let at = error.transport_offset + 8;
    let quote = Quoted { bytes };
    if error.protocol == protocol::ICMP {
        matches!(ipv4(&quote, at, inner), Outcome::Ip)
    } else {
        matches!(ipv6(&quote, at, inner), Outcome::Ip)
    }
}

/// Pads what a quotation lacks behind the ports, so that one TCP branch serves whole and quoted headers.
struct Quoted<'a, B: Bytes> {
    bytes: &'a B,
}

impl<B: Bytes> Bytes for Quoted<'_, B> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        if N == 14 {
            // Only the TCP branch asks for 14 bytes; its ports are in the first four.
            let ports = self.bytes.load::<4>(offset)?;
            let mut padded = [0; N];
            padded[..4].copy_from_slice(&ports);
            return Some(padded);
        }
        self.bytes.load::<N>(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(frame: &[u8]) -> (Outcome, Packet) {
        let mut packet = Packet::default();
        let outcome = ethernet(&frame, &mut packet);
        (outcome, packet)
    }

    fn with_ethernet(kind: u16, payload: &[u8]) -> std::vec::Vec<u8> {
        let mut frame = std::vec![0; 12];
        frame.extend_from_slice(&kind.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    fn ipv4_tcp(options: usize) -> std::vec::Vec<u8> {
        let words = 5 + u8::try_from(options).unwrap();
        let mut bytes = std::vec![0x40 | words, 0, 0, 60, 0, 9, 0x40, 0, 64, 6, 0, 0];
        bytes.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.resize(usize::from(words) * 4, 1);
        bytes.extend_from_slice(&[0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02]);
        bytes
    }

    #[test]
    fn ipv4_options_move_the_ports() {
        for options in [0, 3, 10] {
            let (outcome, packet) = parse(&with_ethernet(ether_type::IPV4, &ipv4_tcp(options)));
            assert_eq!(outcome, Outcome::Ip);
            assert_eq!((packet.source_port, packet.destination_port), (40000, 443));
            assert_eq!(packet.tcp_flags, crate::packet::tcp::SYN);
        }
    }

    #[test]
    fn tags_are_skipped() {
        let mut tagged = std::vec![0, 7];
        tagged.extend_from_slice(&ether_type::VLAN.to_be_bytes());
        tagged.extend_from_slice(&[0, 9]);
        tagged.extend_from_slice(&ether_type::IPV4.to_be_bytes());
        tagged.extend_from_slice(&ipv4_tcp(0));
        let (outcome, packet) = parse(&with_ethernet(ether_type::QINQ, &tagged));
        assert_eq!((outcome, packet.destination_port), (Outcome::Ip, 443));
    }

    #[test]
    fn a_cut_frame_is_unparsed_at_every_length() {
        let frame = with_ethernet(ether_type::IPV4, &ipv4_tcp(0));
        for length in 0..frame.len() {
            let (outcome, _) = parse(&frame[..length]);
            assert_eq!(outcome, Outcome::Unparsed, "{length} bytes");
        }
    }

    #[test]
    fn extension_headers_lead_to_the_transport() {
        let mut bytes = std::vec![0x60, 0, 0, 0, 0, 32, 0, 64];
        bytes.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        bytes.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        bytes.extend_from_slice(&[43, 0, 1, 4, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[44, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[17, 0, 0, 1, 0, 0, 0, 5]);
        bytes.extend_from_slice(&[0, 53, 0x9c, 0x40, 0, 8, 0, 0]);
        let (outcome, packet) = parse(&with_ethernet(ether_type::IPV6, &bytes));
        assert_eq!(outcome, Outcome::Ip);
        assert_eq!(packet.protocol, protocol::UDP);
        assert_eq!(packet.source_port, 53);
        assert_eq!((packet.fragment, packet.fragment_id), (Fragment::First, 5));
    }

    #[test]
    fn headers_cut_short_are_unparsed_without_ports_too() {
        let mut gre = ipv4_tcp(2);
        gre[9] = 47;
        let frame = with_ethernet(ether_type::IPV4, &gre);
        assert_eq!(parse(&frame[..14 + 28]).0, Outcome::Ip);
        assert_eq!(parse(&frame[..14 + 27]).0, Outcome::Unparsed);
    }

    #[test]
    fn endless_extension_headers_are_given_up() {
        for (count, expected) in [(8, Outcome::Ip), (9, Outcome::Unparsed)] {
            let mut bytes = std::vec![0x60, 0, 0, 0, 1, 0, 60, 64];
            bytes.resize(40, 1);
            for left in (0..count).rev() {
                bytes.extend_from_slice(&[if left == 0 { 59 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
            }
            let (outcome, _) = parse(&with_ethernet(ether_type::IPV6, &bytes));
            assert_eq!(outcome, expected, "{count} headers");
        }
    }

    #[test]
    fn an_icmp_error_names_the_packet_it_is_about() {
        let mut icmp = std::vec![
            0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 254, 10, 0, 0, 1
        ];
        icmp.extend_from_slice(&[3, 13, 0, 0, 0, 0, 0, 0]);
        icmp.extend_from_slice(&ipv4_tcp(0)[..28]);
        let frame = with_ethernet(ether_type::IPV4, &icmp);
        let (outcome, error) = parse(&frame);
        assert_eq!((outcome, error.is_icmp_error()), (Outcome::Ip, true));
        let mut inner = Packet::default();
        assert!(quoted(&frame.as_slice(), &error, &mut inner));
        assert_eq!((inner.source_port, inner.destination_port), (40000, 443));
        assert!(!quoted(&&frame[..60], &error, &mut inner));
    }
}
