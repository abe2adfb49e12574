//! Reads the ClientHello from the first packets of a QUIC connection. Initial packets are encrypted with keys that follow
//! from a connection ID in them (RFC 9001, section 5.2), so whoever sees the first one can read it; what comes after
//! the handshake's start nobody can.

mod frames;
mod keys;
mod packet;
#[cfg(test)]
mod tests;

use self::keys::Keys;
use self::packet::{Kind, Packet};
use super::hello::{MAX_HEAD_BYTES, Reading, Source};
use super::pieces::Pieces;
use super::tls;

/// Datagrams after which a flow without a whole ClientHello is given up.
const MAX_DATAGRAMS: u32 = 16;

/// Initial packets that are opened of one datagram; clients put one in, two when they retransmit.
const MAX_INITIALS: usize = 4;

/// Most CRYPTO frames that wait for an earlier one. Browsers cut the ClientHello into a dozen and shuffle them.
const MAX_WAITING: usize = 64;

/// The first flight of the client of one UDP flow: QUIC version 1 (RFC 9000) and 2 (RFC 9369).
///
/// Holds at most 16 KiB of the ClientHello in order, and as much that waits for earlier parts.
#[derive(Debug)]
pub struct Initials {
    /// Those of the first Initial packet that could be opened; later ones may have another connection ID in their
    /// header, the server's, and the same keys.
    keys: Option<Keys>,
    /// Highest packet number seen.
    largest: Option<u64>,
    crypto: Vec<u8>,
    waiting: Pieces,
    datagrams: u32,
    is_over: bool,
}

impl Default for Initials {
    fn default() -> Self {
        Self::new()
    }
}

impl Initials {
    /// Waits for a first datagram.
    #[must_use]
    pub fn new() -> Self {
        Self {
            keys: None,
            largest: None,
            crypto: Vec::new(),
            waiting: Pieces::new(MAX_WAITING, MAX_HEAD_BYTES),
            datagrams: 0,
            is_over: false,
        }
    }

    /// Reads the next datagram that the initiator sent.
    ///
    /// The flow is [`Reading::Other`] unless its first datagram has an Initial packet, or 0-RTT packets only, which may
    /// have overtaken it; also after 16 datagrams without a whole ClientHello. Once it is a [`Reading::Hello`] or
    /// [`Reading::Other`], all further datagrams are [`Reading::Other`].
    pub fn push(&mut self, datagram: &[u8]) -> Reading {
        if self.is_over {
            return Reading::Other;
        }
        self.datagrams += 1;
        let mut reading = self.read(datagram);
        if reading == Reading::More && self.datagrams == MAX_DATAGRAMS {
            reading = Reading::Other;
        }
        if reading != Reading::More {
            *self = Self {
                is_over: true,
                ..Self::new()
            };
        }
        reading
    }

    fn read(&mut self, datagram: &[u8]) -> Reading {
        let mut initials = 0;
        let mut is_early = false;
        // Packets may be coalesced (RFC 9000, section 12.2); what can't be parsed ends the datagram.
        let mut rest = datagram;
        while let Some((packet, after)) = packet::split(rest) {
            rest = after;
            match packet.kind {
                Kind::Initial if initials < MAX_INITIALS => {
                    initials += 1;
                    if let Some(payload) = self.open(&packet) {
                        frames::each_crypto(&payload, |offset, data| self.add(offset, data));
                    }
                }
                Kind::ZeroRtt => is_early = true,
                Kind::Initial | Kind::Handshake => {}
            }
        }
        match self.keys {
            Some(_) => tls::read_message(&self.crypto, Source::Quic),
            None if is_early => Reading::More,
            None => Reading::Other,
        }
    }

    /// Decrypts an Initial packet. Its keys are those of the first one, or follow anew from its own connection ID after
    /// a Retry (RFC 9001, section 5.2), or from the first ID for the version that the server chose (RFC 9369,
    /// section 4.1). Any of them proves itself by the authentication tag.
    fn open(&mut self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        let known = self
            .keys
            .as_ref()
            .filter(|keys| keys.version == packet.version);
        if let Some((number, payload)) = known.and_then(|keys| keys.open(packet, self.largest)) {
            self.largest = self.largest.max(Some(number));
            return Some(payload);
        }
        let first = self
            .keys
            .as_ref()
            .filter(|keys| keys.version != packet.version)
            .map(|keys| keys.connection.clone());
        for connection in first.as_deref().into_iter().chain([packet.destination]) {
            let Some(keys) = Keys::of_client(packet.version, connection) else {
                continue;
            };
            if let Some((number, payload)) = keys.open(packet, self.largest) {
                self.largest = self.largest.max(Some(number));
                self.keys = Some(keys);
                return Some(payload);
            }
        }
        None
    }

    /// Adds a piece of the handshake; the bytes that came first count.
    fn add(&mut self, offset: u64, data: &[u8]) {
        let Some(start) = usize::try_from(offset)
            .ok()
            .filter(|at| *at < MAX_HEAD_BYTES)
        else {
            return;
        };
        let data = &data[..data.len().min(MAX_HEAD_BYTES - start)];
        match self.crypto.len().checked_sub(start) {
            Some(known) => self.crypto.extend(data.get(known..).unwrap_or_default()),
            None => {
                self.waiting.hold(offset, data);
            }
        }
        while let Some((piece, known)) = self.waiting.take(self.crypto.len() as u64) {
            self.crypto.extend(piece.get(known..).unwrap_or_default());
        }
    }
}
