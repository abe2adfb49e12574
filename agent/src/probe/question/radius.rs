//! RADIUS (RFC 2865): Status-Server (RFC 5997), which changes nothing and is answered on both the authentication and the
//! accounting port. It has to be signed with the secret that client and server share; nobody gave us one, so a server
//! that follows the RFC drops it. An answer proves a lot, an ICMP error too, silence nothing.

use super::{Seed, part};

/// Bytes before the attributes (RFC 2865, section 3).
const HEADER: usize = 20;
/// Status-Server (RFC 5997, section 2).
const STATUS_SERVER: u8 = 12;
/// Message-Authenticator (RFC 3579, section 3.2): 18 bytes in all.
const MESSAGE_AUTHENTICATOR: [u8; 2] = [80, 18];
/// Whole length of the question: the header and the one attribute.
const LENGTH: u8 = 38;

/// A Status-Server request whose signature is made up.
pub(super) fn question(seed: &Seed) -> Vec<u8> {
    let [identifier]: [u8; 1] = part(seed, 0);
    let authenticator: [u8; 16] = part(seed, 1);
    let signature: [u8; 16] = part(seed, 9);
    let mut bytes = vec![STATUS_SERVER, identifier, 0, LENGTH];
    bytes.extend(authenticator);
    bytes.extend(MESSAGE_AUTHENTICATOR);
    bytes.extend(signature);
    bytes
}

/// A response with our identifier. Its own signature can't be checked without the secret.
pub(super) fn answer(asked: &[u8], heard: &[u8]) -> Option<String> {
    let header = heard.get(..HEADER)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // What goes beyond the length is padding (RFC 2865, section 3).
    if header[1] != asked[1] || !(HEADER..=heard.len()).contains(&length) {
        return None;
    }
    let name = match header[0] {
        2 => "Access-Accept",
        3 => "Access-Reject",
        5 => "Accounting-Response",
        11 => "Access-Challenge",
        _ => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::seed;
    use super::*;

    #[test]
    fn the_question_has_the_fields_of_rfc_5997() {
        let bytes = question(&seed());
        assert_eq!(bytes[0], 12);
        assert_eq!(bytes[1], seed()[0]);
        assert_eq!(
            usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
            bytes.len()
        );
        // One attribute, of type 80, whose length is its own.
        assert_eq!(bytes[20], 80);
        assert_eq!(usize::from(bytes[21]), bytes.len() - 20);
    }

    #[test]
    fn only_the_answer_to_this_question_counts() {
        let asked = question(&seed());
        let response = |code: u8, identifier: u8| {
            let mut bytes = vec![code, identifier, 0, 20];
            bytes.extend([7; 16]);
            bytes
        };
        let check = |heard: &[u8], expect: Option<&str>| {
            assert_eq!(answer(&asked, heard).as_deref(), expect, "{heard:02x?}");
        };
        let ours = seed()[0];
        check(&response(2, ours), Some("Access-Accept"));
        check(&response(5, ours), Some("Accounting-Response"));
        check(&response(2, ours ^ 1), None);
        check(&response(1, ours), None);
        check(&response(2, ours)[..19], None);
        let mut longer_than_it_is = response(2, ours);
        longer_than_it_is[3] = 21;
        check(&longer_than_it_is, None);
    }
}
