//! Finds server name and protocols in a ClientHello, in TLS records or bare as QUIC carries it.

use tls_parser::{
    SNIType, TlsExtension, parse_tls_extension_alpn_content, parse_tls_extension_sni_content,
    parse_tls_handshake_client_hello,
};

use super::hello::{Hello, MAX_HEAD_BYTES, Reading, Source, server_name};

/// Content type of handshake records (RFC 8446, section 5.1).
pub(super) const HANDSHAKE: u8 = 22;
/// Most bytes of a plaintext record (RFC 8446, section 5.1).
const MAX_RECORD_BYTES: usize = 1 << 14;
/// Type of a ClientHello (RFC 8446, section 4).
const CLIENT_HELLO: u8 = 1;

/// Most protocols that are kept.
const MAX_ALPN: usize = 8;

/// `server_name` (RFC 6066, section 3).
const SERVER_NAME: u16 = 0;
/// `application_layer_protocol_negotiation` (RFC 7301, section 3.1).
const ALPN: u16 = 16;
/// `encrypted_client_hello` (draft-ietf-tls-esni, section 11.1).
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// `encrypted_server_name`, as drafts of it called it at first.
const ENCRYPTED_SERVER_NAME: u16 = 0xffce;

/// Reads the records at the head of a stream. The ClientHello may be spread over several (RFC 8446, section 5.1).
pub(super) fn read_records(mut stream: &[u8]) -> Reading {
    let mut message = Vec::new();
    loop {
        // Clients write versions 3.1 to 3.4 here whatever they speak.
        match *stream {
            [] => return Reading::More,
            [HANDSHAKE] | [HANDSHAKE, 3] | [HANDSHAKE, 3, 1..=4] | [HANDSHAKE, 3, 1..=4, _] => {
                return Reading::More;
            }
            [HANDSHAKE, 3, 1..=4, high, low, ref rest @ ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                if length == 0 || length > MAX_RECORD_BYTES {
                    return Reading::Other;
                }
                let (fragment, after) = rest.split_at(length.min(rest.len()));
                message.extend(fragment);
                stream = after;
                let reading = read_message(&message, Source::Tls);
                if reading != Reading::More || fragment.len() < length {
                    return reading;
                }
            }
            _ => return Reading::Other,
        }
    }
}

/// Reads a handshake message that starts as a ClientHello does (RFC 8446, section 4).
pub(super) fn read_message(message: &[u8], source: Source) -> Reading {
    let (length, body) = match *message {
        [] | [CLIENT_HELLO] | [CLIENT_HELLO, _] | [CLIENT_HELLO, _, _] => return Reading::More,
        [CLIENT_HELLO, high, middle, low, ref body @ ..] => {
            (u32::from_be_bytes([0, high, middle, low]) as usize, body)
        }
        _ => return Reading::Other,
    };
    if length > MAX_HEAD_BYTES {
        return Reading::Other;
    }
    match body.get(..length) {
        None => Reading::More,
        Some(body) => read_hello(body, source).map_or(Reading::Other, Reading::Hello),
    }
}

/// Reads a whole ClientHello. `None` if it is malformed, in a way that every server would refuse.
fn read_hello(body: &[u8], source: Source) -> Option<Hello> {
    let (rest, hello) = parse_tls_handshake_client_hello(body).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let mut read = Hello {
        source,
        server_name: None,
        alpn: Vec::new(),
        encrypted: false,
    };
    // The list is walked here: the library's walk ends without a word at the first extension that it finds malformed,
    // and the name might come after it.
    let mut extensions = hello.ext.unwrap_or_default();
    let (mut has_name, mut has_alpn) = (false, false);
    while !extensions.is_empty() {
        let (kind, data, after) = take_extension(extensions)?;
        extensions = after;
        match kind {
            SERVER_NAME if !has_name => {
                has_name = true;
                if let Ok((_, TlsExtension::SNI(names))) = parse_tls_extension_sni_content(data) {
                    read.server_name = names
                        .iter()
                        .find(|(kind, _)| *kind == SNIType::HostName)
                        .and_then(|(_, name)| server_name(name));
                }
            }
            ALPN if !has_alpn => {
                has_alpn = true;
                if let Ok((_, TlsExtension::ALPN(list))) = parse_tls_extension_alpn_content(data) {
                    read.alpn = list.into_iter().take(MAX_ALPN).map(printable).collect();
                }
            }
            ENCRYPTED_CLIENT_HELLO | ENCRYPTED_SERVER_NAME => read.encrypted = true,
            _ => {}
        }
    }
    Some(read)
}

/// Splits off the first extension: type, data, and what follows (RFC 8446, section 4.2).
fn take_extension(list: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let [kind_high, kind_low, high, low, rest @ ..] = list else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (data, after) = rest.split_at_checked(length)?;
    Some((u16::from_be_bytes([*kind_high, *kind_low]), data, after))
}

fn printable(protocol: &[u8]) -> Box<str> {
    protocol
        .iter()
        .map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => char::REPLACEMENT_CHARACTER,
        })
        .collect()
}
