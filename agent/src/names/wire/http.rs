//! Finds the host in the head of an HTTP/1 request.

use httparse::{EMPTY_HEADER, Error, Request};

use super::super::answer::Name;
use super::hello::{Hello, Reading, Source, server_name};

/// Most header fields; common servers refuse more than 100.
const MAX_HEADERS: usize = 128;

/// Most bytes of a method; the longest registered one has 17.
const MAX_METHOD_BYTES: usize = 32;

/// Reads the head of a request. It is whole once the host is there, so that a long cookie needn't be.
pub(super) fn read(stream: &[u8]) -> Reading {
    // Methods are upper case by convention (RFC 9110, section 9.1). Any other text that a protocol begins with would be
    // waited for to the end.
    let method = stream
        .iter()
        .take_while(|byte| byte.is_ascii_uppercase() || b"-_".contains(byte));
    if !matches!(stream.get(method.count()), None | Some(b' ')) {
        return Reading::Other;
    }
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    match request.parse(stream) {
        Ok(status) if status.is_complete() => return hello(named(&request).flatten()),
        Ok(_) if request.method.is_none() && stream.len() > MAX_METHOD_BYTES => {
            return Reading::Other;
        }
        Ok(_) | Err(Error::TooManyHeaders) => {}
        Err(_) => return Reading::Other,
    }
    // So far as lines are whole, they are read as if the head ended there.
    let Some(last) = stream.iter().rposition(|byte| *byte == b'\n') else {
        return Reading::More;
    };
    let whole = [&stream[..=last], b"\r\n"].concat();
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    match request.parse(&whole) {
        Ok(_) => named(&request).map_or(Reading::More, hello),
        Err(_) => Reading::Other,
    }
}

fn hello(server_name: Option<Name>) -> Reading {
    Reading::Hello(Hello {
        source: Source::Http,
        server_name,
        alpn: Vec::new(),
        encrypted: false,
    })
}

/// The server that a request names: in its target where that has an authority, else in the first Host field (RFC 9112,
/// section 3.2). The outer `None` says that it doesn't yet.
fn named(request: &Request<'_, '_>) -> Option<Option<Name>> {
    let target = request.path?;
    if request.method? == "CONNECT" {
        return Some(host(target.as_bytes()));
    }
    if let Some((scheme, rest)) = target.split_once("://")
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        return Some(host(authority.as_bytes()));
    }
    request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("host"))
        .map(|header| host(header.value))
}

/// The host of `user@host:port` (RFC 3986, section 3.2). An IPv6 address in brackets is no name.
fn host(authority: &[u8]) -> Option<Name> {
    let authority = authority.trim_ascii();
    let after_user = authority
        .rsplit(|byte| *byte == b'@')
        .next()
        .unwrap_or_default();
    let host = match after_user.iter().rposition(|byte| *byte == b':') {
        Some(colon) if after_user[colon + 1..].iter().all(u8::is_ascii_digit) => {
            &after_user[..colon]
        }
        _ => after_user,
    };
    server_name(host)
}
