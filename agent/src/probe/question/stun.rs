//! STUN (RFC 8489): a Binding request without attributes, which every STUN and TURN server answers without credentials.

use super::{Seed, part};

/// Bytes of a header (RFC 8489, section 5).
const HEADER: usize = 20;
/// Tells STUN from what went before it (section 5).
const MAGIC_COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();
/// Binding method, class request (section 5).
const REQUEST: [u8; 2] = [0x00, 0x01];
/// Binding method, class success response.
const SUCCESS: [u8; 2] = [0x01, 0x01];
/// Binding method, class error response.
const ERROR: [u8; 2] = [0x01, 0x11];

/// A Binding request with a transaction id from the seed.
pub(super) fn question(seed: &Seed) -> Vec<u8> {
    let id: [u8; 12] = part(seed, 0);
    let mut bytes = REQUEST.to_vec();
    // No attributes.
    bytes.extend([0, 0]);
    bytes.extend(MAGIC_COOKIE);
    bytes.extend(id);
    bytes
}

/// A Binding response, good or bad, of this transaction.
pub(super) fn answer(asked: &[u8], heard: &[u8]) -> Option<String> {
    let header = heard.get(..HEADER)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // The cookie and the transaction id are the question's.
    if header[4..] != asked[4..] || length % 4 != 0 || heard.len() != HEADER + length {
        return None;
    }
    let kind = [header[0], header[1]];
    match kind {
        SUCCESS => Some("Binding success".to_owned()),
        ERROR => Some("Binding error".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::seed;
    use super::*;

    #[test]
    fn the_question_has_the_fields_of_rfc_8489() {
        let bytes = question(&seed());
        assert_eq!(bytes.len(), 20);
        // The first two bits are zero; method 1 and class 0 (figure 3).
        let kind = u16::from_be_bytes([bytes[0], bytes[1]]);
        assert_eq!(kind & 0xc000, 0);
        let class = (kind & 0x100) >> 7 | (kind & 0x10) >> 4;
        let method = (kind & 0x3e00) >> 2 | (kind & 0xe0) >> 1 | kind & 0xf;
        assert_eq!((class, method), (0, 1));
        assert_eq!(bytes[2..4], [0, 0]);
        assert_eq!(bytes[4..8], [0x21, 0x12, 0xa4, 0x42]);
        assert_eq!(bytes[8..], seed()[..12]);
    }

    fn response(kind: [u8; 2], asked: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_vec();
        // XOR-MAPPED-ADDRESS of an IPv4 address: 12 bytes.
        bytes.extend([0, 12]);
        bytes.extend(&asked[4..]);
        bytes.extend([0x00, 0x20, 0, 8, 0, 1, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn only_the_answer_to_this_question_counts() {
        let asked = question(&seed());
        let check = |heard: &[u8], expect: Option<&str>| {
            assert_eq!(answer(&asked, heard).as_deref(), expect, "{heard:02x?}");
        };
        check(&response([1, 1], &asked), Some("Binding success"));
        check(&response([1, 0x11], &asked), Some("Binding error"));
        let mut other = seed();
        other[11] ^= 1;
        check(&response([1, 1], &question(&other)), None);
        // An indication, a cut one, one with something behind it.
        check(&response([0, 0x11], &asked), None);
        check(&response([1, 1], &asked)[..31], None);
        let mut longer = response([1, 1], &asked);
        longer.push(0);
        check(&longer, None);
    }
}
