//! The first bytes that an initiator sends, gathered until a name can be read from them or never will be.

use flowproof_common::protocol;

use super::Payload;
use super::wire::hello::{Reading, read_stream};
use super::wire::quic::Initials;
use super::wire::stream::Head;

/// Bytes of a TCP conversation's head that are looked at: a ClientHello is at most one handshake message, and 16 KiB is
/// far beyond any that was seen.
const HEAD_BYTES: usize = 16 * 1024;

/// The head of one conversation.
pub(super) enum Gathering {
    /// Of TCP.
    Stream(Box<Head>),
    /// Of UDP, which may be QUIC.
    Datagrams(Box<Initials>),
}

impl Gathering {
    /// Whether names are read from flows of this protocol.
    pub(super) const fn is_for(protocol: u8) -> bool {
        matches!(protocol, protocol::TCP | protocol::UDP)
    }

    /// For a flow of this protocol, whose first byte has the number `start` if that is known; none if names are not read
    /// from it.
    pub(super) fn of(protocol: u8, start: Option<u32>) -> Option<Self> {
        match protocol {
            protocol::TCP => {
                let mut head = Head::new(HEAD_BYTES);
                if let Some(start) = start {
                    head.start_at(start);
                }
                Some(Self::Stream(Box::new(head)))
            }
            protocol::UDP => Some(Self::Datagrams(Box::default())),
            _ => None,
        }
    }

    /// What can be said after one more piece.
    pub(super) fn push(&mut self, payload: &Payload<'_>) -> Reading {
        match self {
            Self::Stream(head) => {
                head.push(payload.sequence.wrapping_add(payload.offset), payload.bytes);
                match read_stream(head.bytes()) {
                    Reading::More if head.is_full() => Reading::Other,
                    reading @ (Reading::Hello(_) | Reading::More | Reading::Other) => reading,
                }
            }
            Self::Datagrams(initials) => {
                // A QUIC datagram with an Initial packet fills one packet of the path (RFC 9000, section 14.1), never
                // more than one piece.
                if payload.offset == 0 {
                    initials.push(payload.bytes)
                } else {
                    Reading::More
                }
            }
        }
    }
}
