//! The key of a flow: its 5-tuple in canonical order, so that both directions find one record.

use crate::address::Address;
use crate::packet::Packet;
use crate::protocol::icmp_request_type;

/// A canonical 5-tuple; 40 bytes without implicit padding, because the kernel hashes every byte.
///
/// For ICMP and ICMPv6 echo both ports hold the identifier (RFC 792), so that each `ping` is a flow of
/// its own; for other messages and protocols without ports both are 0.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FlowKey {
    /// The side that sorts first (see [`Address::sorts_before`]).
    pub a: Address,
    /// The other side.
    pub b: Address,
    /// Port of `a`, host order.
    pub port_a: u16,
    /// Port of `b`, host order.
    pub port_b: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// For ICMP and ICMPv6 the type, a reply's being that of its request (see
    /// [`crate::protocol::icmp_request_type`]), so that unlike messages between two hosts are unlike flows;
    /// else 0.
    pub icmp_type: u8,
    /// Always zero.
    pub zero: [u8; 2],
}

const _: () = assert!(size_of::<FlowKey>() == 40 && align_of::<FlowKey>() == 8);

/// One of the two ends of a [`FlowKey`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// [`FlowKey::a`].
    A,
    /// [`FlowKey::b`].
    B,
}

impl Side {
    /// The other end.
    #[inline(always)]
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl FlowKey {
    /// The key of `packet` and the side that sent it.
    #[inline(always)]
    #[must_use]
    pub fn of(packet: &Packet) -> (Self, Side) {
        let icmp_type = if packet.is_icmp() {
            icmp_request_type(packet.protocol, packet.icmp_type)
        } else {
            0
        };
        // Between an address and itself the two ports of an echo are one identifier: only the type tells a
        // reply from its request.
        let is_reply = icmp_type != packet.icmp_type && packet.is_icmp();
        let source_first = packet.source.sorts_before(&packet.destination)
            || (packet.source == packet.destination
                && packet.source_port <= packet.destination_port
                && !is_reply);
        if source_first {
            (
                Self {
                    a: packet.source,
                    b: packet.destination,
                    port_a: packet.source_port,
                    port_b: packet.destination_port,
                    protocol: packet.protocol,
                    icmp_type,
                    zero: [0; 2],
                },
                Side::A,
            )
        } else {
            (
                Self {
                    a: packet.destination,
                    b: packet.source,
                    port_a: packet.destination_port,
                    port_b: packet.source_port,
                    protocol: packet.protocol,
                    icmp_type,
                    zero: [0; 2],
                },
                Side::B,
            )
        }
    }

    /// The key of a packet with ports, and the side that sent it: the same as [`Self::of`] says of it.
    #[inline(always)]
    #[must_use]
    pub fn between(
        source: (Address, u16),
        destination: (Address, u16),
        protocol: u8,
    ) -> (Self, Side) {
        let source_first = source.0.sorts_before(&destination.0)
            || (source.0 == destination.0 && source.1 <= destination.1);
        let (a, b, sender) = if source_first {
            (source, destination, Side::A)
        } else {
            (destination, source, Side::B)
        };
        let key = Self {
            a: a.0,
            b: b.0,
            port_a: a.1,
            port_b: b.1,
            protocol,
            icmp_type: 0,
            zero: [0; 2],
        };
        (key, sender)
    }

    /// The service number of the flow if `responder` is the responding side: its port, the ICMP type, or
    /// 0 for protocols that have neither.
    #[inline(always)]
    #[must_use]
    pub const fn service(&self, responder: Side) -> u16 {
        match self.protocol {
            crate::protocol::ICMP | crate::protocol::ICMPV6 => self.icmp_type as u16,
            _ => self.end(responder).1,
        }
    }

    /// Address and port of one side.
    #[inline(always)]
    #[must_use]
    pub const fn end(&self, side: Side) -> (Address, u16) {
        match side {
            Side::A => (self.a, self.port_a),
            Side::B => (self.b, self.port_b),
        }
    }
}

/// The key under which a first fragment leaves its ports for the fragments that follow (RFC 791,
/// section 3.2; RFC 8200, section 4.5).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FragmentKey {
    /// Sender of the fragments.
    pub source: Address,
    /// Receiver of the fragments.
    pub destination: Address,
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub identification: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub zero: [u8; 3],
}

const _: () = assert!(size_of::<FragmentKey>() == 40);

/// What a first fragment leaves behind; 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FragmentPorts {
    /// Source port or ICMP identifier.
    pub source_port: u16,
    /// Destination port or ICMP identifier.
    pub destination_port: u16,
    /// ICMP type, else 0.
    pub icmp_type: u8,
    /// Always zero.
    pub zero: [u8; 3],
}
const _: () = assert!(size_of::<FragmentPorts>() == 8);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol;

    #[test]
    fn a_host_that_pings_itself_has_two_sides() {
        let own = Address::from_v4([127, 0, 0, 1]);
        for (protocol, request, reply) in [(protocol::ICMP, 8, 0), (protocol::ICMPV6, 128, 129)] {
            let message = |icmp_type| {
                FlowKey::of(&Packet {
                    source: own,
                    destination: own,
                    source_port: 7,
                    destination_port: 7,
                    protocol,
                    icmp_type,
                    ..Packet::default()
                })
            };
            let (asked, asker) = message(request);
            let (answered, answerer) = message(reply);
            assert_eq!(asked, answered);
            assert_eq!((asker, answerer), (Side::A, Side::B));
        }
    }
}
