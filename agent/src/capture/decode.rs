//! From a captured frame to a [`Packet`], with etherparse: the parser of the libpcap and file back ends.
//!
//! `flowproof_common::parse` does the same for the kernel, written for its verifier. Two parsers by two
//! hands must agree on every frame, whole, cut or malformed; the tests below hold them to each other and
//! know of no exception.
//!
//! etherparse's header slices are used one by one, not `LaxSlicedPacket`: that one reads no ports of a first
//! fragment, asks for whole transport headers where a snap length leaves only the ports, steps into MACsec and
//! IPv4 authentication headers, takes the IP version from the nibble whatever the EtherType says, and stops
//! at mobility headers. The ports themselves are read in place for the same reason.

use etherparse::{
    Ethernet2HeaderSlice, IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice,
    Ipv6HeaderSlice, Ipv6RawExtHeaderSlice, SingleVlanHeaderSlice, ip_number,
};
use flowproof_common::address::Address;
use flowproof_common::packet::{Fragment, Packet};
use flowproof_common::parse::{MAX_EXTENSION_HEADERS, MAX_VLAN_TAGS, Outcome, ether_type};
use flowproof_common::plain::{self, Plain};
use flowproof_common::protocol;

/// How frames of a capture begin (<https://www.tcpdump.org/linktypes.html>).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkType {
    /// IEEE 802.3: 1.
    Ethernet,
    /// IPv4 or IPv6 without a link header: 101, and 12 and 14 from systems that number it so.
    RawIp,
    /// IPv4 without a link header: 228.
    Ipv4,
    /// IPv6 without a link header: 229.
    Ipv6,
    /// Linux "cooked" capture: 113.
    Cooked,
    /// Linux "cooked" capture, version 2: 276.
    Cooked2,
    /// BSD loopback, address family in the byte order of the capturing host or of the network: 0 and 108.
    Loopback,
}

impl LinkType {
    /// All names and numbers, for error messages.
    pub const SUPPORTED: &'static str =
        "Ethernet (1), raw IP (12, 14, 101, 228, 229), Linux cooked (113, 276), loopback (0, 108)";

    /// The link type with this number in a capture file's header.
    #[must_use]
    pub const fn from_number(number: i32) -> Option<Self> {
        match number {
            0 | 108 => Some(Self::Loopback),
            1 => Some(Self::Ethernet),
            12 | 14 | 101 => Some(Self::RawIp),
            113 => Some(Self::Cooked),
            228 => Some(Self::Ipv4),
            229 => Some(Self::Ipv6),
            276 => Some(Self::Cooked2),
            _ => None,
        }
    }
}

/// Reads a frame into `packet`, whose fields are meaningful only after [`Outcome::Ip`].
pub fn frame(link: LinkType, frame: &[u8], packet: &mut Packet) -> Outcome {
    match link {
        LinkType::Ethernet => match Ethernet2HeaderSlice::from_slice(frame) {
            Ok(header) => network(frame, header.slice().len(), header.ether_type().0, packet),
            Err(_) => Outcome::Unparsed,
        },
        LinkType::RawIp => match frame.first().map(|first| first >> 4) {
            Some(4) => ipv4(frame, 0, Depth::Whole, packet),
            Some(6) => ipv6(frame, 0, Depth::Whole, packet),
            _ => Outcome::Unparsed,
        },
        LinkType::Ipv4 => ipv4(frame, 0, Depth::Whole, packet),
        LinkType::Ipv6 => ipv6(frame, 0, Depth::Whole, packet),
        LinkType::Cooked => cooked(frame, 2, 14, 16, packet),
        LinkType::Cooked2 => cooked(frame, 8, 0, 20, packet),
        LinkType::Loopback => loopback(frame, packet),
    }
}

/// Reads a frame if it is a plain packet behind a link header of no further interest.
#[inline(always)]
#[must_use]
pub fn plain(link: LinkType, frame: &[u8]) -> Option<Plain> {
    match link {
        LinkType::Ethernet => plain::ethernet(&frame),
        LinkType::RawIp => plain::raw_ip(&frame),
        LinkType::Ipv4
        | LinkType::Ipv6
        | LinkType::Cooked
        | LinkType::Cooked2
        | LinkType::Loopback => None,
    }
}

/// The packet that a plain one is: what [`self::frame`] reads from the same bytes, for less.
#[must_use]
pub fn unfold(plain: &Plain, link: LinkType, frame: &[u8]) -> Packet {
    let at = if link == LinkType::Ethernet {
        plain::ETHERNET_HEADER
    } else {
        0
    };
    plain.packet(&frame, at)
}

/// The packet that an ICMP error quotes (RFC 792; RFC 4443, section 2.4 c), if enough of it is there to
/// tell its flow. `error` is what [`frame`] read from the same bytes.
#[must_use]
pub fn quoted(frame: &[u8], error: &Packet) -> Option<Packet> {
    // The ICMP header is 8 bytes long.
    let at = error.transport_offset as usize + 8;
    let mut inner = Packet::default();
    let outcome = if error.protocol == protocol::ICMP {
        ipv4(frame, at, Depth::Quoted, &mut inner)
    } else {
        ipv6(frame, at, Depth::Quoted, &mut inner)
    };
    matches!(outcome, Outcome::Ip).then_some(inner)
}

/// Where a frame was seen, if its link header says so: the interface's index (version 2 only), and whether the frame
/// was leaving. A capture on "any" sees a forwarded packet twice, once at each interface.
#[must_use]
pub fn point(link: LinkType, frame: &[u8]) -> Option<(Option<u32>, bool)> {
    // `PACKET_OUTGOING` (`linux/if_packet.h`).
    const OUTGOING: u8 = 4;
    match link {
        LinkType::Cooked => bytes(frame, 0).map(|[_, kind]| (None, kind == OUTGOING)),
        LinkType::Cooked2 => {
            let index = u32::from_be_bytes(bytes(frame, 4)?);
            let [kind] = bytes(frame, 10)?;
            Some((Some(index), kind == OUTGOING))
        }
        LinkType::Ethernet
        | LinkType::RawIp
        | LinkType::Ipv4
        | LinkType::Ipv6
        | LinkType::Loopback => None,
    }
}

/// Whether a packet was captured or comes from an ICMP error, which need not quote more of TCP than ports.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Whole,
    Quoted,
}

/// `ARPHRD_NETLINK` (`linux/if_arp.h`): the protocol field is a netlink family.
const HARDWARE_NETLINK: u16 = 824;

/// Linux cooked captures. etherparse's own slice is not used, because it refuses hardware types that it does
/// not list, tunnels among them, and knows no version 2.
fn cooked(
    frame: &[u8],
    hardware_at: usize,
    kind_at: usize,
    length: usize,
    packet: &mut Packet,
) -> Outcome {
    let (Some(kind), Some(hardware)) = (bytes::<2>(frame, kind_at), bytes(frame, hardware_at))
    else {
        return Outcome::Unparsed;
    };
    if frame.len() < length {
        return Outcome::Unparsed;
    }
    if u16::from_be_bytes(hardware) == HARDWARE_NETLINK {
        return Outcome::NotIp;
    }
    network(frame, length, u16::from_be_bytes(kind), packet)
}

fn loopback(frame: &[u8], packet: &mut Packet) -> Outcome {
    let Some(family) = bytes(frame, 0) else {
        return Outcome::Unparsed;
    };
    let little = u32::from_le_bytes(family);
    // Address families are small numbers, so the byte order shows.
    let family = if little > 0xffff {
        u32::from_be_bytes(family)
    } else {
        little
    };
    match family {
        2 => ipv4(frame, 4, Depth::Whole, packet),
        // Linux, NetBSD and OpenBSD, FreeBSD, Darwin.
        10 | 24 | 28 | 30 => ipv6(frame, 4, Depth::Whole, packet),
        _ => Outcome::NotIp,
    }
}

fn network(frame: &[u8], mut at: usize, mut kind: u16, packet: &mut Packet) -> Outcome {
    for _ in 0..MAX_VLAN_TAGS {
        if !matches!(
            kind,
            ether_type::VLAN | ether_type::QINQ | ether_type::QINQ_OLD
        ) {
            break;
        }
        let Ok(tag) = SingleVlanHeaderSlice::from_slice(rest(frame, at)) else {
            return Outcome::Unparsed;
        };
        kind = tag.ether_type().0;
        at += tag.slice().len();
    }
    match kind {
        ether_type::IPV4 => ipv4(frame, at, Depth::Whole, packet),
        ether_type::IPV6 => ipv6(frame, at, Depth::Whole, packet),
        _ => Outcome::NotIp,
    }
}

fn ipv4(frame: &[u8], at: usize, depth: Depth, packet: &mut Packet) -> Outcome {
    let Ok(header) = Ipv4HeaderSlice::from_slice(rest(frame, at)) else {
        return Outcome::Unparsed;
    };
    let length = header.slice().len();
    packet.fragment = fragment(header.more_fragments(), header.fragments_offset().value());
    packet.fragment_id = match packet.fragment {
        Fragment::None => 0,
        Fragment::First | Fragment::Later => u32::from(header.identification()),
    };
    packet.protocol = header.protocol().0;
    packet.source = Address::from_v4(header.source());
    packet.destination = Address::from_v4(header.destination());
    packet.payload_length = u32::from(header.total_len()).saturating_sub(length_of(length));
    transport(frame, at + length, depth, packet)
}

fn ipv6(frame: &[u8], at: usize, depth: Depth, packet: &mut Packet) -> Outcome {
    let Ok(header) = Ipv6HeaderSlice::from_slice(rest(frame, at)) else {
        return Outcome::Unparsed;
    };
    packet.source = Address::from_v6(header.source());
    packet.destination = Address::from_v6(header.destination());
    packet.fragment = Fragment::None;
    packet.fragment_id = 0;
    let start = at + header.slice().len();
    let mut at = start;
    let mut next = header.next_header();
    let mut headers = 0;
    while let Some(extension) = Extension::of(next) {
        if headers == MAX_EXTENSION_HEADERS {
            return Outcome::Unparsed;
        }
        headers += 1;
        let here = rest(frame, at);
        let length = match extension {
            Extension::Options => match Ipv6RawExtHeaderSlice::from_slice(here) {
                Ok(slice) => {
                    next = slice.next_header();
                    slice.slice().len()
                }
                Err(_) => return Outcome::Unparsed,
            },
            Extension::Authentication => match IpAuthHeaderSlice::from_slice(here) {
                Ok(slice) => {
                    next = slice.next_header();
                    slice.slice().len()
                }
                Err(_) => return Outcome::Unparsed,
            },
            Extension::Fragment => match Ipv6FragmentHeaderSlice::from_slice(here) {
                Ok(slice) => {
                    next = slice.next_header();
                    packet.fragment =
                        fragment(slice.more_fragments(), slice.fragment_offset().value());
                    if packet.fragment != Fragment::None {
                        packet.fragment_id = slice.identification();
                    }
                    slice.slice().len()
                }
                Err(_) => return Outcome::Unparsed,
            },
        };
        at += length;
        if packet.fragment == Fragment::Later {
            // What follows is payload, whatever it looks like.
            break;
        }
    }
    packet.protocol = next.0;
    packet.payload_length =
        u32::from(header.payload_length()).saturating_sub(length_of(at - start));
    transport(frame, at, depth, packet)
}

/// The shapes of IPv6 extension headers (RFC 8200, section 4).
enum Extension {
    Options,
    Authentication,
    Fragment,
}

impl Extension {
    const fn of(next: IpNumber) -> Option<Self> {
        match next {
            ip_number::IPV6_HOP_BY_HOP
            | ip_number::IPV6_ROUTE
            | ip_number::IPV6_DEST_OPTIONS
            | ip_number::MOBILITY
            | ip_number::HIP
            | ip_number::SHIM6 => Some(Self::Options),
            ip_number::AUTH => Some(Self::Authentication),
            ip_number::IPV6_FRAG => Some(Self::Fragment),
            _ => None,
        }
    }
}

const fn fragment(more: bool, offset: u16) -> Fragment {
    match (more, offset) {
        (false, 0) => Fragment::None,
        (true, 0) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// Ports, TCP flags, ICMP type and identifier, as far as a cut frame has them.
fn transport(frame: &[u8], at: usize, depth: Depth, packet: &mut Packet) -> Outcome {
    packet.transport_offset = length_of(at);
    packet.source_port = 0;
    packet.destination_port = 0;
    packet.tcp_flags = 0;
    packet.icmp_type = 0;
    packet.icmp_code = 0;
    if packet.fragment == Fragment::Later {
        return Outcome::Ip;
    }
    match packet.protocol {
        protocol::TCP | protocol::UDP | protocol::DCCP | protocol::SCTP | protocol::UDP_LITE => {
            let Some([a, b, c, d]) = bytes(frame, at) else {
                return Outcome::Unparsed;
            };
            packet.source_port = u16::from_be_bytes([a, b]);
            packet.destination_port = u16::from_be_bytes([c, d]);
            if packet.protocol == protocol::TCP && depth == Depth::Whole {
                let Some([flags]) = bytes(frame, at + 13) else {
                    return Outcome::Unparsed;
                };
                packet.tcp_flags = flags;
            }
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let Some([kind, code]) = bytes(frame, at) else {
                return Outcome::Unparsed;
            };
            packet.icmp_type = kind;
            packet.icmp_code = code;
            if protocol::is_echo(packet.protocol, kind) {
                let Some(identifier) = bytes(frame, at + 4) else {
                    return Outcome::Unparsed;
                };
                packet.source_port = u16::from_be_bytes(identifier);
                packet.destination_port = packet.source_port;
            }
        }
        _ => {}
    }
    Outcome::Ip
}

fn rest(frame: &[u8], at: usize) -> &[u8] {
    frame.get(at..).unwrap_or_default()
}

fn bytes<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    rest(frame, at).first_chunk().copied()
}

/// Header lengths and offsets are far below 2^32: a frame is at most 256 KiB long.
fn length_of(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{
        IpHeaders, Ipv4Extensions, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, PacketBuilder,
        VlanId,
    };
    use flowproof_common::key::FlowKey;
    use flowproof_common::parse;
    use proptest::prelude::*;

    const V4: ([u8; 4], [u8; 4]) = ([10, 0, 0, 1], [10, 0, 0, 2]);

    fn kernels(link: LinkType, bytes: &[u8], packet: &mut Packet) -> Outcome {
        match link {
            LinkType::Ethernet => parse::ethernet(&bytes, packet),
            LinkType::RawIp => parse::raw_ip(&bytes, 0, packet),
            LinkType::Ipv4 => parse::ipv4(&bytes, 0, packet),
            LinkType::Ipv6 => parse::ipv6(&bytes, 0, packet),
            LinkType::Cooked | LinkType::Cooked2 => {
                let (kind, hardware, length) = if link == LinkType::Cooked {
                    (14, 2, 16)
                } else {
                    (0, 8, 20)
                };
                if bytes.len() < length {
                    return Outcome::Unparsed;
                }
                if bytes[hardware..hardware + 2] == 824_u16.to_be_bytes() {
                    return Outcome::NotIp;
                }
                let kind = u16::from_be_bytes([bytes[kind], bytes[kind + 1]]);
                parse::network(&bytes, u32::try_from(length).unwrap(), kind, packet)
            }
            LinkType::Loopback => match bytes {
                [2, 0, 0, 0, ..] | [0, 0, 0, 2, ..] => parse::ipv4(&bytes, 4, packet),
                [10 | 24 | 28 | 30, 0, 0, 0, ..] | [0, 0, 0, 10 | 24 | 28 | 30, ..] => {
                    parse::ipv6(&bytes, 4, packet)
                }
                [_, _, _, _, ..] => Outcome::NotIp,
                _ => Outcome::Unparsed,
            },
        }
    }

    /// Both parsers on the same bytes; what either quotes is compared too, and what the hot path reads of plain packets.
    fn agree(link: LinkType, bytes: &[u8]) -> Result<(), TestCaseError> {
        let (mut ours, mut kernel) = (Packet::default(), Packet::default());
        let outcome = frame(link, bytes, &mut ours);
        prop_assert_eq!(outcome, kernels(link, bytes, &mut kernel));
        if let Some(plain) = super::plain(link, bytes) {
            prop_assert_eq!(unfold(&plain, link, bytes), ours);
            prop_assert_eq!(outcome, Outcome::Ip);
            prop_assert_eq!(ours.fragment, Fragment::None);
            prop_assert_eq!((plain.key, plain.sender), FlowKey::of(&ours));
            prop_assert_eq!(plain.tcp_flags, ours.tcp_flags);
        }
        if outcome != Outcome::Ip {
            return Ok(());
        }
        prop_assert_eq!(ours, kernel);
        if ours.is_icmp_error() {
            let mut inner = Packet::default();
            let expected = parse::quoted(&bytes, &kernel, &mut inner).then_some(inner);
            prop_assert_eq!(quoted(bytes, &ours), expected);
        }
        Ok(())
    }

    /// An IP packet of one of many kinds.
    fn ip_packet(kind: u8, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let v4 = || PacketBuilder::ipv4(V4.0, V4.1, 64);
        let (s, d) = ([0x20; 16], [0xfd; 16]);
        let v6 = || PacketBuilder::ipv6(s, d, 64);
        let mut out = Vec::new();
        match kind % 14 {
            0 => v4()
                .tcp(ports.0, ports.1, 1, 1024)
                .syn()
                .write(&mut out, payload),
            1 => v4()
                .tcp(ports.0, ports.1, 1, 1024)
                .ack(2)
                .fin()
                .write(&mut out, payload),
            2 => v4().udp(ports.0, ports.1).write(&mut out, payload),
            3 => v4()
                .icmpv4_echo_request(ports.0, ports.1)
                .write(&mut out, payload),
            4 => v6()
                .tcp(ports.0, ports.1, 1, 1024)
                .rst()
                .write(&mut out, payload),
            5 => v6().udp(ports.0, ports.1).write(&mut out, payload),
            6 => v6()
                .icmpv6_echo_reply(ports.0, ports.1)
                .write(&mut out, payload),
            7 => v4().write(&mut out, IpNumber(112), payload),
            8 => v6().write(&mut out, IpNumber(132), payload),
            9 => {
                let mut inner = Vec::new();
                v4().tcp(ports.0, ports.1, 1, 1)
                    .syn()
                    .write(&mut inner, payload)
                    .unwrap();
                v4().icmpv4_raw(3, 13, [0; 4]).write(&mut out, &inner)
            }
            10 => {
                let mut inner = Vec::new();
                v6().udp(ports.0, ports.1)
                    .write(&mut inner, payload)
                    .unwrap();
                v6().icmpv6_raw(1, 4, [0; 4]).write(&mut out, &inner)
            }
            11 => {
                let mut header = Ipv4Header::new(0, 64, ip_number::UDP, V4.0, V4.1).unwrap();
                header.options = [1, 1, 1, 1, 1, 1, 1, 0].into();
                PacketBuilder::ip(IpHeaders::Ipv4(header, Ipv4Extensions::default()))
                    .udp(ports.0, ports.1)
                    .write(&mut out, payload)
            }
            12 => {
                // Hop-by-hop, routing, authentication, fragment, then UDP.
                let chain = extension_chain(ports, payload);
                let header = Ipv6Header {
                    payload_length: u16::try_from(chain.len()).unwrap(),
                    next_header: ip_number::IPV6_HOP_BY_HOP,
                    source: s,
                    destination: d,
                    ..Ipv6Header::default()
                };
                out.extend_from_slice(&header.to_bytes());
                out.extend_from_slice(&chain);
                Ok(())
            }
            _ => v4().write(&mut out, IpNumber(51), payload),
        }
        .unwrap();
        if kind >= 128 && out[0] >> 4 == 4 {
            // A first or a later fragment; the header checksum is nobody's business here.
            out[6..8].copy_from_slice(if kind & 64 == 0 {
                &[0x20, 0]
            } else {
                &[0x00, 9]
            });
        }
        out
    }

    fn extension_chain(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let mut chain = vec![43, 0, 1, 4, 0, 0, 0, 0];
        chain.extend_from_slice(&[51, 0, 1, 4, 0, 0, 0, 0]);
        chain.extend_from_slice(&[44, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9]);
        let more = payload.len().is_multiple_of(2);
        let offset = u16::try_from(payload.len() % 3).unwrap();
        let header = Ipv6FragmentHeader::new(
            ip_number::UDP,
            offset.try_into().unwrap(),
            more,
            0xdead_beef,
        );
        chain.extend_from_slice(&header.to_bytes());
        chain.extend_from_slice(&ports.0.to_be_bytes());
        chain.extend_from_slice(&ports.1.to_be_bytes());
        chain.extend_from_slice(&[0, 8, 0, 0]);
        chain.extend_from_slice(payload);
        chain
    }

    /// `packet` behind the link header of each kind.
    fn framed(link: LinkType, tags: u8, packet: &[u8]) -> Vec<u8> {
        let v6 = packet[0] >> 4 == 6;
        let kind: u16 = if v6 {
            ether_type::IPV6
        } else {
            ether_type::IPV4
        };
        let mut out = Vec::new();
        let tag = |out: &mut Vec<u8>| {
            for _ in 0..tags % 5 {
                out.extend_from_slice(&ether_type::VLAN.to_be_bytes());
                out.extend_from_slice(&VlanId::try_new(7).unwrap().value().to_be_bytes());
            }
            out.extend_from_slice(&kind.to_be_bytes());
        };
        match link {
            LinkType::Ethernet => {
                out.extend_from_slice(&[2; 12]);
                tag(&mut out);
            }
            LinkType::Cooked => {
                out.extend_from_slice(&[0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0]);
                tag(&mut out);
            }
            LinkType::Cooked2 => {
                out.extend_from_slice(&kind.to_be_bytes());
                out.extend_from_slice(&[0, 0, 0, 0, 0, 3, 0xff, 0xfe]);
                out.extend_from_slice(&[0; 10]);
            }
            LinkType::Loopback if tags.is_multiple_of(2) => {
                out.extend_from_slice(&[if v6 { 30 } else { 2 }, 0, 0, 0]);
            }
            LinkType::Loopback => out.extend_from_slice(&[0, 0, 0, if v6 { 24 } else { 2 }]),
            LinkType::RawIp | LinkType::Ipv4 | LinkType::Ipv6 => {}
        }
        out.extend_from_slice(packet);
        out
    }

    fn any_link() -> impl Strategy<Value = LinkType> {
        prop::sample::select(vec![
            LinkType::Ethernet,
            LinkType::RawIp,
            LinkType::Ipv4,
            LinkType::Ipv6,
            LinkType::Cooked,
            LinkType::Cooked2,
            LinkType::Loopback,
        ])
    }

    mod properties {
        use super::*;

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(4_000))]

            #[test]
            fn both_parsers_agree_on_whole_and_cut_frames(
                link in any_link(),
                tags: u8,
                kind: u8,
                ports: (u16, u16),
                payload in prop::collection::vec(any::<u8>(), 0..40),
            ) {
                let bytes = framed(link, tags, &ip_packet(kind, ports, &payload));
                for length in 0..=bytes.len() {
                    agree(link, &bytes[..length])?;
                }
            }

            #[test]
            fn both_parsers_agree_on_mutated_frames(
                link in any_link(),
                tags: u8,
                kind: u8,
                ports: (u16, u16),
                payload in prop::collection::vec(any::<u8>(), 0..40),
                flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            ) {
                let mut bytes = framed(link, tags, &ip_packet(kind, ports, &payload));
                for (at, value) in flips {
                    let at = at.index(bytes.len());
                    bytes[at] = value;
                    agree(link, &bytes)?;
                }
            }

            #[test]
            fn both_parsers_agree_on_noise(
                link in any_link(),
                bytes in prop::collection::vec(prop::sample::select(vec![
                    0u8, 1, 2, 4, 6, 8, 17, 43, 44, 51, 58, 59, 60, 0x45, 0x46, 0x60, 0x81, 0x86, 0xdd, 135, 255,
                ]), 0..160),
            ) {
                agree(link, &bytes)?;
            }
        }
    }

    /// Else the hot path would be missed by what it is for, and no other test would notice.
    #[test]
    fn ordinary_packets_are_plain() {
        for kind in [0, 1, 2, 4, 5] {
            let packet = ip_packet(kind, (40000, 443), b"");
            let frame = framed(LinkType::Ethernet, 0, &packet);
            for plain in [plain::ethernet(&&frame[..]), plain::raw_ip(&&packet[..])] {
                assert!(
                    plain.is_some_and(|plain| plain.has_port(443) && !plain.has_port(53)),
                    "{kind}"
                );
            }
        }
        for kind in [3, 6, 7, 11, 12] {
            let packet = ip_packet(kind, (40000, 443), b"");
            assert_eq!(plain::raw_ip(&&packet[..]), None, "{kind}");
        }
    }

    #[test]
    fn each_link_type_leads_to_the_ports() {
        let links = [
            (1, LinkType::Ethernet),
            (12, LinkType::RawIp),
            (101, LinkType::RawIp),
            (113, LinkType::Cooked),
            (276, LinkType::Cooked2),
            (0, LinkType::Loopback),
            (108, LinkType::Loopback),
        ];
        for (number, link) in links {
            assert_eq!(LinkType::from_number(number), Some(link));
            for kind in [0, 4] {
                let mut packet = Packet::default();
                let bytes = framed(link, 2, &ip_packet(kind, (40000, 443), b"x"));
                assert_eq!(frame(link, &bytes, &mut packet), Outcome::Ip, "{link:?}");
                assert_eq!((packet.source_port, packet.destination_port), (40000, 443));
            }
        }
        assert_eq!(LinkType::from_number(147), None);
    }

    #[test]
    fn cooked_frames_tell_where_they_were_seen() {
        let mut first = framed(LinkType::Cooked, 0, &ip_packet(0, (1, 2), b""));
        assert_eq!(point(LinkType::Cooked, &first), Some((None, false)));
        first[1] = 4;
        assert_eq!(point(LinkType::Cooked, &first), Some((None, true)));
        let second = framed(LinkType::Cooked2, 0, &ip_packet(0, (1, 2), b""));
        assert_eq!(point(LinkType::Cooked2, &second), Some((Some(3), false)));
    }

    #[test]
    fn what_is_no_ip_is_told_from_what_cannot_be_read() {
        let mut packet = Packet::default();
        let mut arp = vec![2; 12];
        arp.extend_from_slice(&[0x08, 0x06, 0, 1, 8, 0]);
        assert_eq!(frame(LinkType::Ethernet, &arp, &mut packet), Outcome::NotIp);
        let mut wrong = framed(LinkType::Ethernet, 0, &ip_packet(0, (1, 2), b""));
        wrong[14] = 0x65;
        assert_eq!(
            frame(LinkType::Ethernet, &wrong, &mut packet),
            Outcome::Unparsed
        );
    }
}
