//! The plain packet: whole, TCP or UDP, over IPv4 without options or IPv6 without extension headers. Nearly all traffic
//! is plain, and of a flow at rest ([`crate::state::State::is_at_rest`]) nothing else has to be known; so the hot path
//! reads just this, at fixed places, word by word. What is not plain is [`crate::parse`]'s business, which says the same
//! of what is (a property test holds the two together).

use crate::address::Address;
use crate::key::{FlowKey, Side};
use crate::packet::{Fragment, Packet, tcp};
use crate::parse::ether_type;
use crate::protocol;

/// Words of a frame as they lie in memory. Offsets are in bytes from the start of the frame and need not be aligned.
pub trait Words {
    /// Whether the frame has at least so many bytes.
    fn has(&self, bytes: u32) -> bool;
    /// One byte; only to be asked for what [`Self::has`] has promised, as all that follow.
    fn byte(&self, at: u32) -> u8;
    /// Two bytes in the machine's order.
    fn half(&self, at: u32) -> u16;
    /// Four bytes in the machine's order.
    fn word(&self, at: u32) -> u32;
    /// Eight bytes in the machine's order.
    fn double(&self, at: u32) -> u64;
}

/// What is read of a plain packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plain {
    /// Its flow.
    pub key: FlowKey,
    /// Who sent it.
    pub sender: Side,
    /// See [`crate::packet::tcp`]; 0 for UDP.
    pub tcp_flags: u8,
}

impl Plain {
    /// Whether one of the two ports is this one.
    #[inline(always)]
    #[must_use]
    pub const fn has_port(&self, port: u16) -> bool {
        self.key.port_a == port || self.key.port_b == port
    }

    /// Whether it asks for a connection: its flow begins, or the packet is repeated.
    #[inline(always)]
    #[must_use]
    pub const fn begins(&self) -> bool {
        self.key.protocol == protocol::TCP && self.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    /// The packet, for those who want to know more of it than the hot path does. It was read from `frame`, where its IP
    /// header is `at`.
    #[inline(always)]
    #[must_use]
    pub fn packet(&self, frame: &impl Words, at: u32) -> Packet {
        // Asked again, since it is not to be known on the way here that it has been.
        let (transport_offset, payload_length) = if !frame.has(at + IPV4_HEADER) {
            (0, 0)
        } else if frame.byte(at) >> 4 == 4 {
            let total = u32::from(u16::from_be(frame.half(at + 2)));
            (at + IPV4_HEADER, total.saturating_sub(IPV4_HEADER))
        } else {
            let payload = u16::from_be(frame.half(at + 4));
            (at + IPV6_HEADER, u32::from(payload))
        };
        let (source, source_port) = self.key.end(self.sender);
        let (destination, destination_port) = self.key.end(self.sender.other());
        Packet {
            source,
            destination,
            source_port,
            destination_port,
            protocol: self.key.protocol,
            tcp_flags: self.tcp_flags,
            icmp_type: 0,
            icmp_code: 0,
            fragment: Fragment::None,
            zero: [0; 3],
            fragment_id: 0,
            transport_offset,
            payload_length,
        }
    }
}

/// Where the IP header is in an Ethernet frame without tags.
pub const ETHERNET_HEADER: u32 = 14;
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
/// Up to and with the flags of a TCP header; more than the ports of UDP.
const TCP_HEAD: u32 = 14;
const UDP_HEADER: u32 = 8;

/// Reads a plain packet from an Ethernet frame without tags; nothing if it is not plain.
#[inline(always)]
pub fn ethernet(frame: &impl Words) -> Option<Plain> {
    if !frame.has(ETHERNET_HEADER + IPV4_HEADER + UDP_HEADER) {
        return None;
    }
    match u16::from_be(frame.half(12)) {
        ether_type::IPV4 => ipv4(frame, ETHERNET_HEADER),
        ether_type::IPV6 => ipv6(frame, ETHERNET_HEADER),
        _ => None,
    }
}

/// Reads a plain packet that has no link header; nothing if it is not plain.
#[inline(always)]
pub fn raw_ip(frame: &impl Words) -> Option<Plain> {
    if !frame.has(IPV4_HEADER + UDP_HEADER) {
        return None;
    }
    match frame.byte(0) >> 4 {
        4 => ipv4(frame, 0),
        6 => ipv6(frame, 0),
        _ => None,
    }
}

/// RFC 791, section 3.1. The caller has made sure of the header and of eight bytes behind it.
#[inline(always)]
fn ipv4(frame: &impl Words, at: u32) -> Option<Plain> {
    // Version 4 and five words of header; neither more fragments nor an offset.
    if frame.byte(at) != 0x45 || u16::from_be(frame.half(at + 6)) & 0x3fff != 0 {
        return None;
    }
    let source = Address::from_v4_word(frame.word(at + 12));
    let destination = Address::from_v4_word(frame.word(at + 16));
    transport(
        frame,
        at + IPV4_HEADER,
        frame.byte(at + 9),
        source,
        destination,
    )
}

/// RFC 8200, section 3.
#[inline(always)]
fn ipv6(frame: &impl Words, at: u32) -> Option<Plain> {
    if !frame.has(at + IPV6_HEADER + UDP_HEADER) || frame.byte(at) >> 4 != 6 {
        return None;
    }
    let source = Address::from_words([frame.double(at + 8), frame.double(at + 16)]);
    let destination = Address::from_words([frame.double(at + 24), frame.double(at + 32)]);
    transport(
        frame,
        at + IPV6_HEADER,
        frame.byte(at + 6),
        source,
        destination,
    )
}

#[inline(always)]
fn transport(
    frame: &impl Words,
    at: u32,
    protocol: u8,
    source: Address,
    destination: Address,
) -> Option<Plain> {
    let tcp_flags = match protocol {
        protocol::TCP if frame.has(at + TCP_HEAD) => frame.byte(at + 13),
        protocol::UDP => 0,
        _ => return None,
    };
    let source_port = u16::from_be(frame.half(at));
    let destination_port = u16::from_be(frame.half(at + 2));
    let (key, sender) = FlowKey::between(
        (source, source_port),
        (destination, destination_port),
        protocol,
    );
    Some(Plain {
        key,
        sender,
        tcp_flags,
    })
}

impl Words for &[u8] {
    #[inline(always)]
    fn has(&self, bytes: u32) -> bool {
        self.len() >= bytes as usize
    }

    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        u8::from_ne_bytes(array(self, at))
    }

    #[inline(always)]
    fn half(&self, at: u32) -> u16 {
        u16::from_ne_bytes(array(self, at))
    }

    #[inline(always)]
    fn word(&self, at: u32) -> u32 {
        u32::from_ne_bytes(array(self, at))
    }

    #[inline(always)]
    fn double(&self, at: u32) -> u64 {
        u64::from_ne_bytes(array(self, at))
    }
}

/// Zeros where the slice is too short, which is never looked at.
#[inline(always)]
fn array<const N: usize>(bytes: &[u8], at: u32) -> [u8; N] {
    bytes
        .get(at as usize..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}
