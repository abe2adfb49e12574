//! Splits a datagram into packets with long headers (RFC 9000, section 17.2), which have the parts that aren't encrypted
//! in common.

/// Version 1 (RFC 9000, section 15).
pub(super) const VERSION_1: u32 = 1;
/// Version 2 (RFC 9369, section 3.1).
pub(super) const VERSION_2: u32 = 0x6b33_43cf;

/// Longest connection ID of versions 1 and 2 (RFC 9000, section 17.2).
const MAX_CONNECTION_BYTES: usize = 20;

/// Which packet it is. Retry and Version Negotiation aren't among them: only servers send them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Carries the start of the handshake.
    Initial,
    /// Data sent before the handshake is over.
    ZeroRtt,
    /// Carries the rest of the handshake.
    Handshake,
}

/// One packet, still protected.
#[derive(Debug)]
pub(super) struct Packet<'d> {
    pub(super) kind: Kind,
    /// [`VERSION_1`] or [`VERSION_2`].
    pub(super) version: u32,
    /// Destination connection ID.
    pub(super) destination: &'d [u8],
    /// All of it, header included.
    pub(super) bytes: &'d [u8],
    /// Where in it the packet number is.
    pub(super) number_at: usize,
}

/// Splits off the first packet. `None` if it has a short header, another version, or no sense: then what follows it
/// can't be told either.
pub(super) fn split(datagram: &[u8]) -> Option<(Packet<'_>, &[u8])> {
    let mut rest = datagram;
    let first = *take(&mut rest, 1)?.first()?;
    if first & 0x80 == 0 {
        return None;
    }
    let version = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
    // The type's numbers differ by version (RFC 9369, section 3.2).
    let kind = match (version, (first >> 4) & 3) {
        (VERSION_1, 0) | (VERSION_2, 1) => Kind::Initial,
        (VERSION_1, 1) | (VERSION_2, 2) => Kind::ZeroRtt,
        (VERSION_1, 2) | (VERSION_2, 3) => Kind::Handshake,
        _ => return None,
    };
    let destination = take_connection(&mut rest)?;
    take_connection(&mut rest)?;
    if kind == Kind::Initial {
        let token = take_number(&mut rest)?;
        take(&mut rest, usize::try_from(token).ok()?)?;
    }
    let length = take_number(&mut rest)?;
    let number_at = datagram.len() - rest.len();
    take(&mut rest, usize::try_from(length).ok()?)?;
    let packet = Packet {
        kind,
        version,
        destination,
        bytes: &datagram[..datagram.len() - rest.len()],
        number_at,
    };
    Some((packet, rest))
}

/// Takes bytes off the front.
pub(super) fn take<'b>(bytes: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// Takes an integer of variable length, at most 2^62 - 1 (RFC 9000, section 16).
pub(super) fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let taken = take(bytes, 1 << (first >> 6))?;
    let rest = taken.iter().skip(1);
    Some(rest.fold(u64::from(first & 0x3f), |number, byte| {
        (number << 8) | u64::from(*byte)
    }))
}

fn take_connection<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = usize::from(*take(bytes, 1)?.first()?);
    (length <= MAX_CONNECTION_BYTES)
        .then(|| take(bytes, length))
        .flatten()
}
