//! Finds the handshake's bytes among the frames of an Initial packet.

use super::packet::{take, take_number};

/// PADDING, PING, ACK, ACK with ECN counts and CRYPTO (RFC 9000, section 19): besides CONNECTION_CLOSE, which ends
/// everything, all that an Initial packet may carry (section 12.4).
const PADDING: u64 = 0;
const PING: u64 = 1;
const ACK: u64 = 2;
const ACK_ECN: u64 = 3;
const CRYPTO: u64 = 6;

/// Hands on offset and data of each CRYPTO frame, up to the end or the first frame that makes no sense.
pub(super) fn each_crypto(mut payload: &[u8], mut each: impl FnMut(u64, &[u8])) {
    while let Some(kind) = take_number(&mut payload) {
        let passed = match kind {
            PADDING | PING => Some(()),
            ACK | ACK_ECN => skip_ack(&mut payload, kind == ACK_ECN),
            CRYPTO => take_crypto(&mut payload).map(|(offset, data)| each(offset, data)),
            _ => None,
        };
        if passed.is_none() {
            return;
        }
    }
}

/// RFC 9000, section 19.6.
fn take_crypto<'p>(payload: &mut &'p [u8]) -> Option<(u64, &'p [u8])> {
    let offset = take_number(payload)?;
    let length = take_number(payload)?;
    Some((offset, take(payload, usize::try_from(length).ok()?)?))
}

/// RFC 9000, section 19.3.
fn skip_ack(payload: &mut &[u8], has_ecn: bool) -> Option<()> {
    let (_largest, _delay) = (take_number(payload)?, take_number(payload)?);
    let ranges = take_number(payload)?;
    take_number(payload)?;
    // Each round takes bytes, so a large count ends with them.
    for _ in 0..ranges {
        let (_gap, _length) = (take_number(payload)?, take_number(payload)?);
    }
    for _ in 0..if has_ecn { 3 } else { 0 } {
        take_number(payload)?;
    }
    Some(())
}
