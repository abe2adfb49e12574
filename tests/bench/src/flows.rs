//! Single TCP conversations for the kernel benches, as frames of 100 bytes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use flowproof_common::protocol::TCP;
use flowproof_tests::frame::{self, flags};

use crate::bpf::programs::{TUPLE, Tuple};
use crate::random::Random;
use crate::world::World;

/// Bytes of each frame.
pub(crate) const FRAME: usize = 100;
/// Where the 5-tuple's addresses and ports stand in it.
const TUPLE_AT: usize = 26;

/// What a conversation of role `client-0` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// What the matrix allows.
    Allowed,
    /// A port that nobody is allowed.
    Forbidden,
}

/// So many different 5-tuples from the initiator's side, in random order.
pub(crate) fn tuples(world: World, ask: Ask, count: u32) -> Vec<Tuple> {
    let servers: Vec<u32> = tcp_servers(world).collect();
    let mut tuples: Vec<Tuple> = (0..count)
        .map(|number| {
            let server = servers[number as usize % servers.len()];
            let port = match ask {
                Ask::Allowed => world.service(0, server).port,
                Ask::Forbidden => 9_999,
            };
            let source_port = u16::try_from(10_000 + number / 250).unwrap_or(u16::MAX);
            tuple(
                (world.client4(0, number % 250), source_port),
                (world.server4(server, number), port),
            )
        })
        .collect();
    Random::new(3).shuffle(&mut tuples);
    tuples
}

/// The servers that `client-0` may ask by TCP.
fn tcp_servers(world: World) -> impl Iterator<Item = u32> {
    (0..world.servers()).filter(move |server| world.service(0, *server).protocol == TCP)
}

/// The number of the first requirement that [`fresh`] falls under, and its service.
pub(crate) fn fresh_service(world: World) -> (u32, u16) {
    let server = tcp_servers(world).next().unwrap_or(0);
    (server, world.service(0, server).port)
}

/// A 5-tuple that is allowed; its source port and the lower half of its source address are for others to fill in.
pub(crate) fn fresh(world: World) -> Tuple {
    let (server, port) = fresh_service(world);
    tuple((world.client4(0, 0), 0), (world.server4(server, 0), port))
}

fn tuple(source: ([u8; 4], u16), destination: ([u8; 4], u16)) -> Tuple {
    let mut tuple = [0; TUPLE];
    tuple[..4].copy_from_slice(&source.0);
    tuple[4..8].copy_from_slice(&destination.0);
    tuple[8..10].copy_from_slice(&source.1.to_be_bytes());
    tuple[10..].copy_from_slice(&destination.1.to_be_bytes());
    tuple
}

/// The same conversation from the other side.
pub(crate) fn reversed(tuple: &Tuple) -> Tuple {
    let mut other = *tuple;
    other[..4].copy_from_slice(&tuple[4..8]);
    other[4..8].copy_from_slice(&tuple[..4]);
    other[8..10].copy_from_slice(&tuple[10..]);
    other[10..].copy_from_slice(&tuple[8..10]);
    other
}

/// The three packets that open a connection: flags, and whether the responder sends it.
pub(crate) const HANDSHAKE: [(u8, bool); 3] = [
    (flags::SYN, false),
    (flags::SYN_ACK, true),
    (flags::ACK, false),
];

/// A frame of that 5-tuple.
pub(crate) fn frame(tuple: &Tuple, flags: u8) -> Vec<u8> {
    let end = |at: usize, port_at: usize| {
        let address = Ipv4Addr::new(tuple[at], tuple[at + 1], tuple[at + 2], tuple[at + 3]);
        let port = u16::from_be_bytes([tuple[port_at], tuple[port_at + 1]]);
        SocketAddr::new(IpAddr::V4(address), port)
    };
    let (source, destination) = (end(0, 8), end(4, 10));
    let mut segment = frame::tcp(source, destination, flags, 1, 1);
    segment.resize(FRAME - 14 - 20, 0);
    let packet = frame::ip(source.ip(), destination.ip(), TCP, &segment);
    frame::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], &[], &packet)
}

/// Gives a frame another 5-tuple. The IP header's checksum is then wrong, which nothing here looks at.
pub(crate) fn rewrite(frame: &mut [u8], tuple: &Tuple) {
    frame[TUPLE_AT..TUPLE_AT + TUPLE].copy_from_slice(tuple);
}

/// Frames one behind the other, [`FRAME`] bytes each.
pub(crate) fn frames(tuples: &[Tuple], flags: u8) -> Vec<u8> {
    let mut all = Vec::with_capacity(tuples.len() * FRAME);
    if let Some(first) = tuples.first() {
        let mut one = frame(first, flags);
        for tuple in tuples {
            rewrite(&mut one, tuple);
            all.extend_from_slice(&one);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use flowproof_common::packet::Packet;
    use flowproof_common::parse;

    use super::*;

    #[test]
    fn tuples_are_all_different() {
        let world = World::of(1_000);
        let all: HashSet<Tuple> = tuples(world, Ask::Allowed, 64_000).into_iter().collect();
        assert_eq!(all.len(), 64_000);
        let one = *all.iter().next().unwrap();
        assert_eq!(reversed(&reversed(&one)), one);
        assert_ne!(reversed(&one), one);
    }

    #[test]
    fn a_frame_is_what_its_tuple_says() {
        let tuple = tuple(([10, 128, 0, 1], 1234), ([10, 64, 0, 2], 80));
        let bytes = frame(&tuple, flags::SYN);
        assert_eq!(bytes.len(), FRAME);
        let mut packet = Packet::default();
        assert!(matches!(
            parse::ethernet(&bytes.as_slice(), &mut packet),
            parse::Outcome::Ip
        ));
        assert_eq!((packet.source_port, packet.destination_port), (1234, 80));
        assert_eq!(packet.tcp_flags, flags::SYN);
        let mut other = frame(&reversed(&tuple), flags::SYN);
        rewrite(&mut other, &tuple);
        assert_eq!(other[TUPLE_AT..TUPLE_AT + TUPLE], tuple);
    }
}
