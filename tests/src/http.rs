//! The little HTTP that asking the daemon needs.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::host::Host;

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Status line and header fields.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Asks for `path` from the host itself.
///
/// # Errors
/// Nobody listens, the answer takes more than 5 s, or it is no HTTP.
pub fn get(host: &Host, server: SocketAddr, path: &str) -> Result<Response> {
    request(host, server, "GET", path)
}

/// Sends a request without a body.
///
/// # Errors
/// As [`get`].
pub fn request(host: &Host, server: SocketAddr, method: &str, path: &str) -> Result<Response> {
    let limit = Duration::from_secs(5);
    let mut stream = host.connect(None, server, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(
        format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")
            .as_bytes(),
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .with_context(|| format!("no HTTP response: {text:?}"))?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("no HTTP status: {head:?}"))?;
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if chunked {
        unchunk(body).with_context(|| format!("bad chunks: {body:?}"))?
    } else {
        body.to_owned()
    };
    Ok(Response {
        status,
        head: head.to_owned(),
        body,
    })
}

/// RFC 9112, section 7.1.
fn unchunk(mut text: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(rest.get(..size)?);
        text = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::unchunk;

    #[test]
    fn chunks_are_joined() {
        assert_eq!(
            unchunk("3\r\nabc\r\na;x=y\r\n0123456789\r\n0\r\n\r\n").as_deref(),
            Some("abc0123456789")
        );
        assert_eq!(unchunk("5\r\nabc"), None);
    }
}
