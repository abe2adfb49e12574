//! Reads the name that a client itself writes at the head of its connection: in a TLS ClientHello or in an HTTP/1
//! request. It tells which of the names behind an address is meant, without trusting any resolver.

use std::net::IpAddr;

use super::super::answer::{Name, fold};
use super::{http, tls};

/// Bytes of a connection's head that are looked at. ClientHellos take 300 to 2,000 bytes, with post-quantum keys and
/// long tickets some thousands; request heads are limited to about as much by common servers.
pub const MAX_HEAD_BYTES: usize = 16_384;

/// What protocol the name was written in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// A ClientHello in TLS records over TCP.
    Tls,
    /// A ClientHello in QUIC Initial packets.
    Quic,
    /// An HTTP/1 request.
    Http,
}

/// What a client says at the head of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Where it was read.
    pub source: Source,
    /// The server that is meant: server_name (RFC 6066, section 3), or the host of the request (RFC 9112, section 3.2).
    /// `None` if it is missing, an IP address, or no host name.
    pub server_name: Option<Name>,
    /// Application protocols that are offered (RFC 7301), best first, at most 8. Bytes that aren't printable ASCII
    /// are U+FFFD. Empty for HTTP.
    pub alpn: Vec<Box<str>>,
    /// Whether there is an encrypted_client_hello (0xfe0d) or the older ESNI (0xffce) extension. The true name may then
    /// be another than [`server_name`](Self::server_name); or the same, because browsers send the extension with random
    /// content to servers without such a configuration (draft-ietf-tls-esni, section 6.2).
    pub encrypted: bool,
}

/// What bytes are, so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reading {
    /// A client's hello, whole.
    Hello(Hello),
    /// They may become one with more bytes.
    More,
    /// They are none and never will be.
    Other,
}

/// Reads the first bytes that the initiator of a TCP connection sent, from the first one on. Of more than
/// [`MAX_HEAD_BYTES`] only these are looked at; what isn't whole in them is [`Reading::Other`].
///
/// The reading of longer heads is the same once it isn't [`Reading::More`]. Protocols that turn to TLS later
/// (STARTTLS) are [`Reading::Other`].
#[must_use]
pub fn read_stream(head: &[u8]) -> Reading {
    let seen = &head[..head.len().min(MAX_HEAD_BYTES)];
    let reading = match seen.first() {
        None => Reading::More,
        Some(&tls::HANDSHAKE) => tls::read_records(seen),
        Some(_) => http::read(seen),
    };
    if reading == Reading::More && seen.len() == MAX_HEAD_BYTES {
        Reading::Other
    } else {
        reading
    }
}

/// A host as clients write it. `None` for IP addresses, which name no server.
pub(super) fn server_name(host: &[u8]) -> Option<Name> {
    let host = str::from_utf8(host).ok()?;
    let name = fold(host)?;
    name.parse::<IpAddr>().is_err().then_some(name)
}

#[cfg(test)]
mod tests;
