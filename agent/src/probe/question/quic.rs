//! QUIC (RFC 8999, what all versions share): offers a version that nobody speaks, and is told which ones are spoken. No
//! key is derived and no connection begun.

use super::{Seed, part};

/// Least bytes of a datagram that a server answers (RFC 9000, section 14.1).
const DATAGRAM: usize = 1200;
/// Reserved for forcing version negotiation: 0x?a?a?a?a (RFC 9000, section 15).
const NOBODYS_VERSION: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];
/// Bytes of each connection id.
const ID: usize = 8;
/// Where the destination's connection id is, after first byte, version and length.
const DESTINATION: std::ops::Range<usize> = 6..6 + ID;
/// Where the source's connection id is, after its length.
const SOURCE: std::ops::Range<usize> = 7 + ID..7 + 2 * ID;

/// A packet with a long header, padded.
pub(super) fn question(seed: &Seed) -> Vec<u8> {
    let destination: [u8; ID] = part(seed, 0);
    let source: [u8; ID] = part(seed, ID);
    let mut bytes = vec![0xc0];
    bytes.extend(NOBODYS_VERSION);
    bytes.push(8);
    bytes.extend(destination);
    bytes.push(8);
    bytes.extend(source);
    bytes.resize(DATAGRAM, 0);
    bytes
}

/// A Version Negotiation packet (RFC 8999, section 6) with our connection ids, turned round.
pub(super) fn answer(asked: &[u8], heard: &[u8]) -> Option<String> {
    let head = heard.get(..SOURCE.end)?;
    let is_negotiation = head[0] & 0x80 != 0 && head[1..5] == [0; 4];
    let are_ours = head[5] == 8
        && head[DESTINATION] == asked[SOURCE]
        && head[14] == 8
        && head[SOURCE] == asked[DESTINATION];
    let versions = &heard[SOURCE.end..];
    if !is_negotiation || !are_ours || versions.is_empty() || !versions.len().is_multiple_of(4) {
        return None;
    }
    Some(format!("{} QUIC versions", versions.len() / 4))
}

#[cfg(test)]
mod tests {
    use super::super::tests::seed;
    use super::*;

    #[test]
    fn the_question_has_the_fields_of_rfc_8999() {
        let bytes = question(&seed());
        assert!(bytes.len() >= 1200);
        assert_eq!(bytes[0] & 0x80, 0x80);
        assert!(bytes[1..5].iter().all(|byte| byte & 0x0f == 0x0a));
        assert_eq!((bytes[5], bytes[14]), (8, 8));
        assert_eq!(bytes[6..14], seed()[..8]);
        assert_eq!(bytes[15..23], seed()[8..16]);
    }

    #[test]
    fn only_the_answer_to_this_question_counts() {
        let asked = question(&seed());
        let mut heard = vec![0x80, 0, 0, 0, 0, 8];
        heard.extend(&seed()[8..16]);
        heard.push(8);
        heard.extend(&seed()[..8]);
        heard.extend([0, 0, 0, 1, 0x6b, 0x33, 0x43, 0xcf]);
        let check = |heard: &[u8], expect: Option<&str>| {
            assert_eq!(answer(&asked, heard).as_deref(), expect, "{heard:02x?}");
        };
        check(&heard, Some("2 QUIC versions"));
        check(&heard[..23], None);
        check(&heard[..26], None);
        let mut other = heard.clone();
        other[6] ^= 1;
        check(&other, None);
        let mut spoken = heard;
        spoken[4] = 1;
        check(&spoken, None);
    }
}
