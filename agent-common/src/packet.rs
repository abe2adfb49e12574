//! What the judgement needs to know of one packet, whoever parsed it: the kernel's parser in
//! [`crate::parse`] or etherparse in the daemon. The differential test holds the two to this one type.

use crate::address::Address;

/// TCP flag bits, RFC 9293, section 3.1.
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field is significant.
    pub const ACK: u8 = 0x10;
}

/// Where a packet stands in a fragmented datagram.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fragment {
    /// The whole datagram.
    #[default]
    None = 0,
    /// The first fragment: it has the transport header.
    First = 1,
    /// A later one: ports are unknown until the first is found.
    Later = 2,
}

/// The header fields of one IP packet that the judgement uses.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Packet {
    /// Sender.
    pub source: Address,
    /// Receiver.
    pub destination: Address,
    /// Host order; the identifier for ICMP echo, 0 where there is none.
    pub source_port: u16,
    /// Host order; the identifier for ICMP echo, 0 where there is none.
    pub destination_port: u16,
    /// IP protocol number after all extension headers.
    pub protocol: u8,
    /// See [`tcp`]; 0 for other protocols.
    pub tcp_flags: u8,
    /// Type of an ICMP or ICMPv6 message, else 0.
    pub icmp_type: u8,
    /// Code of an ICMP or ICMPv6 message, else 0.
    pub icmp_code: u8,
    /// Place in a fragmented datagram.
    pub fragment: Fragment,
    /// Always zero: spells out what would be padding.
    pub zero: [u8; 3],
    /// Identification of a fragmented datagram, else 0.
    pub fragment_id: u32,
    /// Offset in bytes of the transport header from the start of the frame.
    pub transport_offset: u32,
    /// Length of the transport payload in bytes by the IP header's word; 0 where unknown.
    pub payload_length: u32,
}

impl Packet {
    /// Whether this is a message of ICMP or ICMPv6.
    #[inline(always)]
    #[must_use]
    pub const fn is_icmp(&self) -> bool {
        matches!(
            self.protocol,
            crate::protocol::ICMP | crate::protocol::ICMPV6
        )
    }

    /// Whether this is an ICMP error about another packet: destination unreachable 3, time exceeded 11,
    /// parameter problem 12 (RFC 792); ICMPv6 types 1 to 4 (RFC 4443, section 2.1).
    #[inline(always)]
    #[must_use]
    pub const fn is_icmp_error(&self) -> bool {
        match self.protocol {
            crate::protocol::ICMP => matches!(self.icmp_type, 3 | 11 | 12),
            crate::protocol::ICMPV6 => matches!(self.icmp_type, 1..=4),
            _ => false,
        }
    }
}
