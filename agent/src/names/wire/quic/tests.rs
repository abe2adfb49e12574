use proptest::prelude::*;
use ring::aead::{Aad, Nonce};

use super::keys::full_number;
use super::packet::{VERSION_1, VERSION_2};
use super::*;
use crate::names::answer::Name;
use crate::names::wire::hello::Hello;
use crate::names::wire::testing::{browser_extensions, client_hello, extension, sni, vector8};

/// Destination connection ID of RFC 9001, appendix A, and RFC 9369, appendix A.
const CONNECTION: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

/// The CRYPTO frame of both appendices: a ClientHello for example.com.
const FRAME: &str = "\
    060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868\
    04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578\
    616d706c652e636f6dff01000100000a00080006001d00170018001000070005\
    04616c706e000500050100000000003300260024001d00209370b2c9caa47fba\
    baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400\
    0d0010000e0403050306030203080408050806002d00020101001c0002400100\
    3900320408ffffffffffffffff05048000ffff07048000ffff08011001048000\
    75300901100f088394c8f03e51570806048000ffff";

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn number(value: usize) -> Vec<u8> {
    match u16::try_from(value).unwrap() {
        value @ 0..64 => vec![value.to_be_bytes()[1]],
        value => (value | 0x4000).to_be_bytes().to_vec(),
    }
}

fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    [&[6][..], &number(offset), &number(data.len()), data].concat()
}

/// What a packet has in its header.
#[derive(Clone)]
struct Sender {
    version: u32,
    /// What the keys follow from.
    keyed: Vec<u8>,
    destination: Vec<u8>,
    token: Vec<u8>,
    number_bytes: u8,
}

impl Sender {
    fn new(version: u32) -> Self {
        Self {
            version,
            keyed: CONNECTION.to_vec(),
            destination: CONNECTION.to_vec(),
            token: Vec::new(),
            number_bytes: 4,
        }
    }

    /// An Initial packet with this payload (RFC 9001, sections 5.3 and 5.4).
    fn initial(&self, packet_number: u64, payload: &[u8]) -> Vec<u8> {
        let kind = if self.version == VERSION_2 { 0x10 } else { 0 };
        let number_bytes = usize::from(self.number_bytes);
        let mut bytes = vec![0xc0 | kind | (self.number_bytes - 1)];
        bytes.extend(self.version.to_be_bytes());
        bytes.extend(vector8(&self.destination));
        bytes.push(0);
        bytes.extend(number(self.token.len()));
        bytes.extend(&self.token);
        let length = u16::try_from(number_bytes + payload.len() + 16).unwrap();
        bytes.extend((length | 0x4000).to_be_bytes());
        let number_at = bytes.len();
        bytes.extend(&packet_number.to_be_bytes()[8 - number_bytes..]);

        let keys = Keys::of_client(self.version, &self.keyed).unwrap();
        let mut sealed = payload.to_vec();
        let nonce = Nonce::assume_unique_for_key(keys.nonce(packet_number));
        keys.payload
            .seal_in_place_append_tag(nonce, Aad::from(&bytes), &mut sealed)
            .unwrap();
        bytes.extend(sealed);
        let mask = (keys.header)
            .new_mask(&bytes[number_at + 4..number_at + 20])
            .unwrap();
        bytes[0] ^= mask[0] & 0x0f;
        for at in 0..number_bytes {
            bytes[number_at + at] ^= mask[1 + at];
        }
        bytes
    }
}

fn padded(payload: &[u8]) -> Vec<u8> {
    let mut padded = payload.to_vec();
    padded.resize(1_162.max(payload.len()), 0);
    padded
}

fn hello(name: &str, alpn: &[&str]) -> Reading {
    Reading::Hello(Hello {
        source: Source::Quic,
        server_name: Some(Name::from(name)),
        alpn: alpn.iter().map(|text| Box::from(*text)).collect(),
        encrypted: false,
    })
}

/// A ClientHello with post-quantum keys, which doesn't fit in one datagram.
fn large_hello() -> Vec<u8> {
    let mut extensions = browser_extensions("a.example");
    extensions.insert(3, extension(0x39, &[3; 600]));
    client_hello(&extensions)
}

fn large_reading() -> Reading {
    hello("a.example", &["h2", "http/1.1"])
}

/// The packets of both appendices A.2: their headers, and the tags that depend on all other bytes.
#[test]
fn published_packets_are_read() {
    for (version, header, tag) in [
        (
            VERSION_1,
            "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11",
            "e221af44860018ab0856972e194cd934",
        ),
        (
            VERSION_2,
            "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485",
            "a18b2faa745b6fe189cf772a9f84cbfc",
        ),
    ] {
        let packet = Sender::new(version).initial(2, &padded(&hex(FRAME)));
        assert_eq!(packet.len(), 1_200);
        assert_eq!(packet[..32], hex(header));
        assert_eq!(packet[1_184..], hex(tag));
        assert_eq!(
            Initials::new().push(&packet),
            hello("example.com", &["alpn"])
        );
    }
}

#[test]
fn published_keys_are_derived() {
    let check = |version, iv: &str| {
        let keys = Keys::of_client(version, &CONNECTION).unwrap();
        assert_eq!(keys.iv[..], hex(iv));
    };
    check(VERSION_1, "fa044b2f42a3fd3b46fb255c");
    check(VERSION_2, "91f73e2351d8fa91660e909f");
    assert!(Keys::of_client(0xff00_001d, &CONNECTION).is_none());
}

#[test]
fn packet_numbers_are_completed() {
    // The example of RFC 9000, appendix A.3.
    assert_eq!(full_number(Some(0xa82f_30ea), 0x9b32, 2), 0xa82f_9b32);
    assert_eq!(full_number(None, 5, 1), 5);
    assert_eq!(full_number(Some(255), 1, 1), 257);
    assert_eq!(full_number(Some(256), 0xff, 1), 255);
}

#[test]
fn frames_come_in_any_order_over_several_datagrams() {
    let whole = large_hello();
    let mut sender = Sender::new(VERSION_1);
    sender.token = vec![7; 90];
    // The second datagram first; frames shuffled, overlapping, between PING, PADDING and ACK.
    let second = [
        crypto(1_500, &whole[1_500..]),
        vec![1, 0, 0],
        crypto(1_100, &whole[1_100..1_300]),
        vec![2, 9, 0x40, 0x01, 1, 0, 0, 0],
        crypto(1_250, &whole[1_250..1_500]),
    ];
    let first = [
        vec![0, 1],
        crypto(500, &whole[500..1_100]),
        vec![3, 9, 0, 0, 0, 1, 2, 3],
        crypto(0, &whole[..520]),
    ];
    let mut initials = Initials::new();
    assert_eq!(
        initials.push(&sender.initial(1, &second.concat())),
        Reading::More
    );
    assert_eq!(
        initials.push(&sender.initial(0, &first.concat())),
        large_reading()
    );
    assert_eq!(
        initials.push(&sender.initial(0, &first.concat())),
        Reading::Other
    );
}

#[test]
fn keys_stay_those_of_the_first_packet() {
    let whole = large_hello();
    for version in [VERSION_1, VERSION_2] {
        let mut sender = Sender::new(version);
        let mut initials = Initials::new();
        let first = sender.initial(0, &padded(&crypto(0, &whole[..1_000])));
        assert_eq!(initials.push(&first), Reading::More);
        // The server's connection ID, a short packet number.
        sender.destination = vec![9; 20];
        sender.number_bytes = 1;
        let second = sender.initial(1, &crypto(1_000, &whole[1_000..]));
        assert_eq!(initials.push(&second), large_reading());
    }
}

#[test]
fn keys_change_after_a_retry_and_with_the_version() {
    let whole = large_hello();
    let mut sender = Sender::new(VERSION_1);
    let mut initials = Initials::new();
    let first = sender.initial(0, &crypto(0, &whole[..1_000]));
    assert_eq!(initials.push(&first), Reading::More);
    let mut other_version = Sender::new(VERSION_2);
    other_version.destination = vec![8; 5];
    let second = other_version.initial(1, &crypto(1_000, &whole[1_000..1_100]));
    assert_eq!(initials.push(&second), Reading::More);
    sender.keyed = vec![5; 18];
    sender.destination = sender.keyed.clone();
    let third = sender.initial(2, &crypto(1_100, &whole[1_100..]));
    assert_eq!(initials.push(&third), large_reading());
}

/// A packet of another kind with a length and nothing sensible in it.
fn long(version: u32, kind: u8) -> Vec<u8> {
    let mut bytes = vec![0xc0 | kind << 4];
    bytes.extend(version.to_be_bytes());
    bytes.extend(vector8(&CONNECTION));
    bytes.push(0);
    bytes.extend(number(30));
    bytes.extend([0x33; 30]);
    bytes
}

#[test]
fn coalesced_packets_are_passed_by() {
    let frame = padded(&crypto(0, &client_hello(&[sni(b"a.example")])));
    for (version, zero_rtt, handshake) in [(VERSION_1, 1, 2), (VERSION_2, 2, 3)] {
        let initial = Sender::new(version).initial(0, &frame);
        let reading = hello("a.example", &[]);
        for before in [zero_rtt, handshake] {
            let datagram = [&long(version, before)[..], &initial, &[0x40; 50]].concat();
            assert_eq!(Initials::new().push(&datagram), reading);
        }
        // 0-RTT data may overtake the Initial packet.
        let mut initials = Initials::new();
        assert_eq!(initials.push(&long(version, zero_rtt)), Reading::More);
        assert_eq!(initials.push(&initial), reading);
        let mut joined = Initials::new();
        assert_eq!(joined.push(&long(version, handshake)), Reading::Other);
        assert_eq!(joined.push(&initial), Reading::Other);
    }
}

#[test]
fn other_datagrams_are_told_at_once() {
    let check = |datagram: &[u8]| assert_eq!(Initials::new().push(datagram), Reading::Other);
    check(&[]);
    check(&[0x40; 60]);
    // Version negotiation, a draft, a Retry, DNS, an ID that is too long.
    check(&[0xc0, 0, 0, 0, 0, 1, 7, 1, 8, 0, 0, 0, 1]);
    check(&long(0xff00_001d, 0));
    check(&long(VERSION_1, 3));
    check(b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01");
    let mut packet = Sender::new(VERSION_1).initial(0, &padded(&hex(FRAME)));
    check(&packet[..packet.len() - 1]);
    let mut long_id = packet.clone();
    long_id[5] = 21;
    check(&long_id);
    // One bit off: the tag says so.
    packet[700] ^= 1;
    check(&packet);
    // A handshake that starts with something else.
    check(&Sender::new(VERSION_1).initial(0, &padded(&crypto(0, &[2, 0, 0, 4]))));
}

#[test]
fn flights_are_bounded() {
    let sender = Sender::new(VERSION_1);
    let mut initials = Initials::new();
    for packet_number in 0..15 {
        // Pieces that never start, and ones far off.
        let payload = [crypto(1_000, &[1; 900]), crypto(16_383, &[1; 30])].concat();
        let payload = [&payload[..], &[6, 0xc0, 0, 1, 0, 0, 0, 0, 0, 1, 1]].concat();
        let datagram = sender.initial(packet_number, &payload);
        assert_eq!(initials.push(&datagram), Reading::More);
    }
    assert_eq!(initials.push(&sender.initial(15, &[0; 20])), Reading::Other);
    assert_eq!(
        initials.push(&sender.initial(0, &padded(&hex(FRAME)))),
        Reading::Other
    );
}

mod properties {
    use super::*;

    proptest! {
        #[test]
        fn any_split_and_order_reads_alike(
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..14),
            order in proptest::collection::vec(any::<u32>(), 16),
            datagrams in 1..6_usize,
            version in prop::sample::select(vec![VERSION_1, VERSION_2]),
        ) {
            let whole = large_hello();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let mut pieces: Vec<_> = cuts.windows(2).map(|cut| cut[0]..cut[1]).zip(order).collect();
            pieces.sort_by_key(|(_, order)| *order);
            let mut initials = Initials::new();
            let mut last = Reading::More;
            for (index, chunk) in pieces.chunks(pieces.len().div_ceil(datagrams)).enumerate() {
                prop_assert_eq!(&last, &Reading::More);
                let payload: Vec<u8> = chunk
                    .iter()
                    .flat_map(|(range, _)| crypto(range.start, &whole[range.clone()]))
                    .collect();
                last = initials.push(&Sender::new(version).initial(index as u64, &padded(&payload)));
            }
            prop_assert_eq!(last, large_reading());
        }

        #[test]
        fn any_datagrams_are_read(
            datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            headed in any::<bool>(),
        ) {
            let mut initials = Initials::new();
            for datagram in datagrams {
                let start: &[u8] = if headed { &[0xc0, 0, 0, 0, 1, 4, 1, 2, 3, 4, 0, 0] } else { &[] };
                prop_assert!(!matches!(initials.push(&[start, &datagram].concat()), Reading::Hello(_)));
            }
        }

        /// Payloads that open but hold any bytes.
        #[test]
        fn any_frames_are_read(payloads in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![Just(6_u8), Just(0), Just(2), any::<u8>()], 20..300), 1..17)) {
            let sender = Sender::new(VERSION_1);
            let mut initials = Initials::new();
            for (index, payload) in payloads.iter().enumerate() {
                initials.push(&sender.initial(index as u64, payload));
                prop_assert!(initials.crypto.len() <= MAX_HEAD_BYTES);
            }
        }

        #[test]
        fn bent_packets_are_refused(at in any::<prop::sample::Index>(), with in 1..=255_u8, cut in any::<prop::sample::Index>()) {
            let mut packet = Sender::new(VERSION_1).initial(0, &padded(&hex(FRAME)));
            prop_assert_eq!(Initials::new().push(&packet[..cut.index(packet.len())]), Reading::Other);
            let at = at.index(packet.len());
            packet[at] ^= with;
            prop_assert!(!matches!(Initials::new().push(&packet), Reading::Hello(_)));
        }
    }
}
