//! Which payloads names are read from, and how they travel from the kernel to the daemon. The probe hands over answers
//! from DNS servers, and the first packets of an initiator whose flow waits for a name; nothing else ever leaves it.
//! Reading them is the daemon's work: a parser of ClientHellos has no place in a kernel program.

use crate::key::{FlowKey, Side};
use crate::packet::{Fragment, Packet};
use crate::parse::Bytes;
use crate::protocol;
use crate::record::{Settings, index};
use crate::state::State;

/// Bytes of payload in one piece, at most.
pub const PIECE: u32 = 2048;
/// Pieces that are handed over of one packet, at most: 16 KiB, while packets of segmentation offload have up to 64 KiB.
pub const PIECES: u32 = 8;
/// How many packets of an initiator may hold the head of its conversation: a ClientHello with post-quantum keys takes
/// two, a torn one a few more, and the handshake's own packets have no payload.
pub const HEAD_PACKETS: u64 = 24;
/// Packets of one DNS connection over TCP that are handed over, at most: a resolver's own connection may live long, a
/// zone transfer is no answer to a client.
pub const DNS_STREAM_PACKETS: u64 = 1024;
/// Where DNS servers answer from (RFC 1035, section 4.2). Multicast DNS (5353) is no evidence of what others may reach.
pub const DNS_PORT: u16 = 53;
/// Longest time that a flow may be set to wait for its name, nanoseconds.
pub const HOLD_MAX: u64 = 60_000_000_000;

/// What a payload is wanted for.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// It is not.
    Nothing = 0,
    /// It is an answer of a DNS server.
    Dns = 1,
    /// It may be the head of a conversation, with a name in it.
    Head = 2,
}

/// Whether the payload of the packet at hand is wanted. `state` and `packets` are those of its flow after it was
/// counted.
///
/// An answer without a question is not: over UDP a server may send as many packets as it was sent. That is no proof
/// against somebody who sees the question, but a flood has to guess the client's port. Where answers may be read before
/// their questions, one question has to do for a flow.
#[inline(always)]
#[must_use]
pub fn wanted(
    flags: u32,
    packet: &Packet,
    state: State,
    sender: Side,
    packets: &[u64; 2],
) -> Wanted {
    if !protocol::has_ports(packet.protocol) || !matches!(packet.fragment, Fragment::None) {
        return Wanted::Nothing;
    }
    // Written without indexing by a variable, which the verifier would have to bound.
    let (own, others) = match sender {
        Side::A => (packets[0], packets[1]),
        Side::B => (packets[1], packets[0]),
    };
    if sender == state.initiator() {
        let head = state.is_held() && own <= HEAD_PACKETS;
        return if head && flags & Settings::WANTS_HELLO != 0 {
            Wanted::Head
        } else {
            Wanted::Nothing
        };
    }
    let asked = match packet.protocol {
        protocol::UDP => own <= others || (flags & Settings::UNORDERED != 0 && others > 0),
        protocol::TCP => !state.joined_midway() && own <= DNS_STREAM_PACKETS,
        _ => false,
    };
    if flags & Settings::WANTS_DNS != 0 && packet.source_port == DNS_PORT && asked {
        Wanted::Dns
    } else {
        Wanted::Nothing
    }
}

/// Where the payload of a packet lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Bytes from the start of the frame.
    pub offset: u32,
    /// Bytes of it; 0 only for a SYN, which tells where the sender's bytes begin.
    pub length: u32,
    /// TCP: the sequence number of its first byte (RFC 9293, section 3.1); else 0.
    pub sequence: u32,
}

/// Finds the payload of a TCP or UDP packet in its frame of `frame_length` bytes; nothing if there is none. A SYN counts as
/// a payload of no bytes: without the number of the first byte, a segment that arrives before its forerunner looks like
/// the head of the conversation.
#[inline(always)]
#[must_use]
pub fn segment(bytes: &impl Bytes, packet: &Packet, frame_length: u32) -> Option<Segment> {
    let at = packet.transport_offset;
    // Packets of segmentation offload over 64 KiB don't say how long they are.
    let transport = if packet.payload_length == 0 {
        frame_length.checked_sub(at)?
    } else {
        packet.payload_length
    };
    let mut is_start = false;
    let (header, sequence) = match packet.protocol {
        protocol::TCP => {
            let header = bytes.load::<13>(at)?;
            let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            is_start = packet.tcp_flags & crate::packet::tcp::SYN != 0;
            let syn = u32::from(is_start);
            // A SYN takes a number of its own; data may come with it (RFC 7413).
            (u32::from(header[12] >> 4) * 4, sequence.wrapping_add(syn))
        }
        protocol::UDP => (8, 0),
        _ => return None,
    };
    let length = transport.checked_sub(header)?;
    (length > 0 || is_start).then_some(Segment {
        offset: at + header,
        length,
        sequence,
    })
}

/// What stands before a piece of payload in the ring buffer; 64 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PayloadHead {
    /// The flow.
    pub key: FlowKey,
    /// Monotonic nanoseconds.
    pub time: u64,
    /// See [`Segment::sequence`]; that of the packet's first byte of payload.
    pub sequence: u32,
    /// How far into the packet's payload the piece begins, bytes.
    pub offset: u32,
    /// Bytes of the packet's payload.
    pub total: u32,
    /// Bytes of the piece, up to [`PIECE`]; 0 for a SYN.
    pub length: u16,
    /// 1 if side B sent it, else 0.
    pub from_b: u8,
    /// A [`Wanted`] by number.
    pub wanted: u8,
}
const _: () = assert!(size_of::<PayloadHead>() == 64);

impl PayloadHead {
    /// Who sent it.
    #[inline(always)]
    #[must_use]
    pub const fn sender(&self) -> Side {
        if self.from_b == 0 { Side::A } else { Side::B }
    }

    /// What it is wanted for.
    #[must_use]
    pub const fn wanted(&self) -> Wanted {
        match self.wanted {
            1 => Wanted::Dns,
            2 => Wanted::Head,
            _ => Wanted::Nothing,
        }
    }

    /// The number of a side in `from_b`.
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an index of two elements fits"
    )]
    pub const fn side(sender: Side) -> u8 {
        index(sender) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::Judgement;
    use crate::packet::tcp;

    fn state(held: bool) -> State {
        let judgement = Judgement {
            slot: 1,
            initiator: Side::B,
            joined_midway: false,
            to_group: false,
            held,
        };
        State::new(&judgement, 1)
    }

    fn packet(protocol: u8, source_port: u16) -> Packet {
        Packet {
            protocol,
            source_port,
            ..Packet::default()
        }
    }

    const ALL: u32 = Settings::WANTS_DNS | Settings::WANTS_HELLO;

    #[test]
    fn only_asked_answers_are_wanted() {
        let check = |protocol, port, packets, flags, expect| {
            let wanted = wanted(
                flags,
                &packet(protocol, port),
                state(false),
                Side::A,
                &packets,
            );
            assert_eq!(wanted, expect);
        };
        check(protocol::UDP, 53, [1, 1], ALL, Wanted::Dns);
        check(protocol::UDP, 53, [2, 1], ALL, Wanted::Nothing);
        check(protocol::UDP, 53, [1, 0], ALL, Wanted::Nothing);
        check(protocol::UDP, 5353, [1, 1], ALL, Wanted::Nothing);
        let unordered = ALL | Settings::UNORDERED;
        check(protocol::UDP, 53, [9, 1], unordered, Wanted::Dns);
        check(protocol::UDP, 53, [1, 0], unordered, Wanted::Nothing);
        check(
            protocol::UDP,
            53,
            [1, 1],
            Settings::WANTS_HELLO,
            Wanted::Nothing,
        );
        check(protocol::TCP, 53, [9, 4], ALL, Wanted::Dns);
        check(protocol::TCP, 53, [1025, 999], ALL, Wanted::Nothing);
        check(protocol::ICMP, 53, [1, 1], ALL, Wanted::Nothing);
    }

    #[test]
    fn only_heads_of_held_flows_are_wanted() {
        let check = |held, packets, flags, expect| {
            let packet = packet(protocol::TCP, 50_000);
            assert_eq!(
                wanted(flags, &packet, state(held), Side::B, &packets),
                expect
            );
        };
        check(true, [1, 3], ALL, Wanted::Head);
        check(true, [1, 25], ALL, Wanted::Nothing);
        check(false, [1, 3], ALL, Wanted::Nothing);
        check(true, [1, 3], Settings::WANTS_DNS, Wanted::Nothing);
    }

    #[test]
    fn payloads_are_found() {
        let mut frame = [0_u8; 80];
        frame[4..8].copy_from_slice(&7_u32.to_be_bytes());
        frame[12] = 6 << 4;
        let mut tcp_packet = packet(protocol::TCP, 1);
        tcp_packet.payload_length = 30;
        let found = segment(&&frame[..], &tcp_packet, 80);
        let expect = |offset, length, sequence| {
            Some(Segment {
                offset,
                length,
                sequence,
            })
        };
        assert_eq!(found, expect(24, 6, 7));
        tcp_packet.tcp_flags = tcp::SYN;
        assert_eq!(segment(&&frame[..], &tcp_packet, 80), expect(24, 6, 8));
        tcp_packet.payload_length = 24;
        assert_eq!(segment(&&frame[..], &tcp_packet, 80), expect(24, 0, 8));
        tcp_packet.tcp_flags = tcp::ACK;
        assert_eq!(segment(&&frame[..], &tcp_packet, 80), None);
        tcp_packet.payload_length = 0;
        assert_eq!(segment(&&frame[..], &tcp_packet, 80), expect(24, 56, 7));
        let mut udp_packet = packet(protocol::UDP, 53);
        udp_packet.payload_length = 8;
        assert_eq!(segment(&&frame[..], &udp_packet, 80), None);
        udp_packet.payload_length = 9;
        assert_eq!(segment(&&frame[..], &udp_packet, 80), expect(8, 1, 0));
    }
}
