//! Keys of Initial packets (RFC 9001, section 5; RFC 9369, section 3.3), and their use. They hide nothing from those who
//! see the packet: they keep boxes on the path from growing opinions about it.

use std::fmt;

use ring::aead::quic::{AES_128, HeaderProtectionKey};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

use super::packet::{Packet, VERSION_1, VERSION_2};

/// RFC 9001, section 5.2.
const SALT_1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
];
/// RFC 9369, section 3.3.1.
const SALT_2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb,
    0xf9, 0xbd, 0x2e, 0xd9,
];

/// Bytes of the sample that the header's mask is made from (RFC 9001, section 5.4.2).
const SAMPLE_BYTES: usize = 16;

/// The keys of a client's Initial packets.
pub(super) struct Keys {
    pub(super) version: u32,
    /// The connection ID that they follow from.
    pub(super) connection: Box<[u8]>,
    pub(super) payload: LessSafeKey,
    pub(super) iv: [u8; NONCE_LEN],
    pub(super) header: HeaderProtectionKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("version", &self.version)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys that follow from the destination connection ID of a client's first packet. `None` for versions without.
    pub(super) fn of_client(version: u32, connection: &[u8]) -> Option<Self> {
        let (salt, [key, iv, header]) = match version {
            VERSION_1 => (SALT_1, [&b"quic key"[..], b"quic iv", b"quic hp"]),
            VERSION_2 => (SALT_2, [&b"quicv2 key"[..], b"quicv2 iv", b"quicv2 hp"]),
            _ => return None,
        };
        let initial = Salt::new(HKDF_SHA256, &salt).extract(connection);
        let client = expand(&initial, b"client in", HKDF_SHA256, |secret| {
            Prk::from(secret)
        })?;
        let mut iv_bytes = [0; NONCE_LEN];
        expand(&client, iv, Iv, |iv| iv.fill(&mut iv_bytes))?.ok()?;
        Some(Self {
            version,
            connection: connection.into(),
            payload: LessSafeKey::new(expand(&client, key, &AES_128_GCM, |key| {
                UnboundKey::from(key)
            })?),
            iv: iv_bytes,
            header: expand(&client, header, &AES_128, |key| {
                HeaderProtectionKey::from(key)
            })?,
        })
    }

    /// Removes both protections: gives packet number and payload. `None` if the packet was made with other keys.
    pub(super) fn open(&self, packet: &Packet<'_>, largest: Option<u64>) -> Option<(u64, Vec<u8>)> {
        let mut bytes = packet.bytes.to_vec();
        let (header, rest) = bytes.split_at_mut_checked(packet.number_at)?;
        // The sample is taken as if the number had four bytes (RFC 9001, section 5.4.2).
        let mask = self.header.new_mask(rest.get(4..4 + SAMPLE_BYTES)?).ok()?;
        let first = header.first_mut()?;
        *first ^= mask[0] & 0x0f;
        let number_bytes = usize::from(*first & 3) + 1;
        let mut cut = 0;
        for (byte, mask) in rest.iter_mut().zip(&mask[1..]).take(number_bytes) {
            *byte ^= mask;
            cut = (cut << 8) | u64::from(*byte);
        }
        let number = full_number(largest, cut, number_bytes);
        let (header, payload) = bytes.split_at_mut_checked(packet.number_at + number_bytes)?;
        let nonce = Nonce::assume_unique_for_key(self.nonce(number));
        let open = (self.payload)
            .open_in_place(nonce, Aad::from(&*header), payload)
            .ok()?;
        Some((number, open.to_vec()))
    }

    /// The nonce of a packet (RFC 9001, section 5.3).
    pub(super) fn nonce(&self, number: u64) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }
}

/// The packet number of which the packet holds the last bytes: the one nearest to the next (RFC 9000, appendix A.3).
pub(super) fn full_number(largest: Option<u64>, cut: u64, bytes: usize) -> u64 {
    let expected = largest.map_or(0, |largest| largest.saturating_add(1));
    let window = 1_u64 << (8 * bytes);
    let candidate = (expected & !(window - 1)) | cut;
    if candidate + window / 2 <= expected && candidate < (1 << 62) - window {
        candidate + window
    } else if candidate > expected + window / 2 && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

/// Length of a packet's initialisation vector.
struct Iv;

impl KeyType for Iv {
    fn len(&self) -> usize {
        NONCE_LEN
    }
}

/// HKDF-Expand-Label without a context (RFC 8446, section 7.1).
fn expand<K: KeyType, T>(
    secret: &Prk,
    label: &[u8],
    kind: K,
    make: impl FnOnce(ring::hkdf::Okm<'_, K>) -> T,
) -> Option<T> {
    const PREFIX: &[u8] = b"tls13 ";
    let length = u16::try_from(kind.len()).ok()?.to_be_bytes();
    let label_bytes = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    let info = [&length[..], &label_bytes, PREFIX, label, &[0]];
    secret.expand(&info, kind).ok().map(make)
}
