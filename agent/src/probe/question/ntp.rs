//! NTP (RFC 5905): a client's packet that says nothing of this host but a random number where the time of sending would
//! be, which the server repeats (the data minimization of draft-ietf-ntp-data-minimization).

use super::{Seed, part};

/// Bytes of a packet without extensions (RFC 5905, section 7.3).
const PACKET: usize = 48;
/// Where the origin timestamp is: the answer's copy of the question's transmit timestamp.
const ORIGIN: std::ops::Range<usize> = 24..32;
/// Where the transmit timestamp is.
const TRANSMIT: std::ops::Range<usize> = 40..48;
/// Mode of a server (RFC 5905, figure 10).
const SERVER: u8 = 4;

/// Version 4, mode 3 (client), no leap warning, everything else zero.
pub(super) fn question(seed: &Seed) -> Vec<u8> {
    let mut bytes = vec![0; PACKET];
    bytes[0] = 0b00_100_011;
    let number: [u8; 8] = part(seed, 0);
    bytes[TRANSMIT].copy_from_slice(&number);
    bytes
}

/// A server's packet with our number as origin. A kiss-o'-death (stratum 0, section 7.4) is an answer, too.
pub(super) fn answer(asked: &[u8], heard: &[u8]) -> Option<String> {
    let packet = heard.get(..PACKET)?;
    if packet[0] & 0b111 != SERVER || packet[ORIGIN] != asked[TRANSMIT] {
        return None;
    }
    Some(match packet[1] {
        0 => format!(
            "kiss-o'-death {}",
            String::from_utf8_lossy(&packet[12..16])
                .chars()
                .filter(char::is_ascii_graphic)
                .collect::<String>()
        ),
        16 => "stratum 16, its clock is not set".to_owned(),
        stratum => format!("stratum {stratum}"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::seed;
    use super::*;

    #[test]
    fn the_question_has_the_fields_of_rfc_5905() {
        let bytes = question(&seed());
        assert_eq!(bytes.len(), 48);
        // Leap indicator, version, mode (figure 8).
        assert_eq!([bytes[0] >> 6, bytes[0] >> 3 & 7, bytes[0] & 7], [0, 4, 3]);
        // Nothing but the transmit timestamp says anything.
        assert!(bytes[1..40].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[40..48], seed()[..8]);
    }

    fn reply(asked: &[u8], stratum: u8) -> Vec<u8> {
        let mut bytes = vec![0; 48];
        bytes[0] = 0b00_100_100;
        bytes[1] = stratum;
        bytes[24..32].copy_from_slice(&asked[40..48]);
        bytes[12..16].copy_from_slice(b"RATE");
        bytes
    }

    #[test]
    fn only_the_answer_to_this_question_counts() {
        let asked = question(&seed());
        let check = |heard: &[u8], expect: Option<&str>| {
            assert_eq!(answer(&asked, heard).as_deref(), expect, "{heard:02x?}");
        };
        check(&reply(&asked, 2), Some("stratum 2"));
        check(&reply(&asked, 0), Some("kiss-o'-death RATE"));
        check(&reply(&asked, 16), Some("stratum 16, its clock is not set"));
        let mut with_extension = reply(&asked, 2);
        with_extension.extend([0; 20]);
        check(&with_extension, Some("stratum 2"));
        let mut others = seed();
        others[0] ^= 1;
        check(&reply(&question(&others), 2), None);
        check(&reply(&asked, 2)[..47], None);
        let mut broadcast = reply(&asked, 2);
        broadcast[0] = 0b00_100_101;
        check(&broadcast, None);
    }
}
