//! TLS clients by what their ClientHello shows: a name, none, one that arrives in pieces, one that is encrypted; and
//! HTTP/1 without TLS, whose name is in the Host field.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::identity::Identity;
use crate::host::Host;

/// How long one step of a conversation may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Between two segments of a ClientHello that comes in pieces; the next one leaves alone.
const PAUSE: Duration = Duration::from_millis(30);

/// The extension `encrypted_client_hello` (RFC 9849, section 11.1), and the version of its configurations.
pub(crate) const ECH_EXTENSION: u16 = 0xfe0d;

/// The configuration that [`Client::encrypted`] claims to use.
pub(crate) const ECH_CONFIGURATION: u8 = 0x17;

/// How a ClientHello is laid out on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// In one segment.
    Whole,
    /// In three segments, cut within the record header and in the middle of the name (of the hello, if that shows none).
    Three,
    /// Larger than a segment, by a long list of application protocols: the kernel cuts it.
    Large,
}

/// What a ClientHello shows.
#[derive(Debug, Clone, Copy)]
pub struct Hello<'a> {
    /// The name that the client wants, and checks the certificate for.
    pub name: &'a str,
    /// Whether it shows the name (SNI).
    pub shown: bool,
    /// Application protocols (ALPN), wished for most first.
    pub alpn: &'a [&'a [u8]],
    /// How it travels.
    pub layout: Layout,
}

impl<'a> Hello<'a> {
    /// A browser's: with the name and HTTP/1.1.
    #[must_use]
    pub const fn of(name: &'a str) -> Self {
        Self {
            name,
            shown: true,
            alpn: &[b"http/1.1"],
            layout: Layout::Whole,
        }
    }

    /// The same without the name.
    #[must_use]
    pub const fn nameless(self) -> Self {
        Self {
            shown: false,
            ..self
        }
    }

    /// The same, laid out otherwise.
    #[must_use]
    pub const fn laid_out(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }
}

/// A host's address from which connections begin.
#[derive(Debug, Clone)]
pub struct Client {
    host: Arc<Host>,
    source: IpAddr,
    identity: Arc<Identity>,
}

/// An open connection after its handshake, as the kernel of the client sees it.
#[derive(Debug)]
pub struct Conversation {
    stream: StreamOwned<ClientConnection, Paced>,
}

impl Client {
    /// Connects from the address `source` of `host` to servers that have `identity`.
    #[must_use]
    pub fn new(host: &Arc<Host>, source: IpAddr, identity: &Arc<Identity>) -> Self {
        Self {
            host: host.clone(),
            source,
            identity: identity.clone(),
        }
    }

    /// A TCP connection on which nothing was said yet.
    ///
    /// # Errors
    /// It isn't answered within 5 s.
    pub fn connect(&self, target: SocketAddr) -> Result<TcpStream> {
        let source = SocketAddr::new(self.source, 0);
        let stream = self
            .host
            .connect(Some(source), target, LIMIT)
            .with_context(|| format!("can't connect to {target}"))?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(stream)
    }

    /// A TLS connection, its handshake completed and the certificate checked.
    ///
    /// # Errors
    /// The handshake fails.
    pub fn tls(&self, target: SocketAddr, hello: &Hello<'_>) -> Result<Conversation> {
        let padding: Vec<String> = match hello.layout {
            Layout::Large => (0..150)
                .map(|number| format!("application-protocol-{number:03}"))
                .collect(),
            Layout::Whole | Layout::Three => Vec::new(),
        };
        let mut alpn = hello.alpn.to_vec();
        alpn.extend(padding.iter().map(String::as_bytes));
        let mut config = self.identity.client(&alpn)?;
        config.enable_sni = hello.shown;
        let name = ServerName::try_from(hello.name.to_owned())?;
        let connection = ClientConnection::new(Arc::new(config), name)?;
        let paced = Paced {
            stream: self.connect(target)?,
            cut_at: (hello.layout == Layout::Three).then(|| hello.name.as_bytes().to_vec()),
        };
        let mut stream = StreamOwned::new(connection, paced);
        while stream.conn.is_handshaking() {
            stream
                .conn
                .complete_io(&mut stream.sock)
                .with_context(|| format!("no TLS with {target} as {}", hello.name))?;
        }
        Ok(Conversation { stream })
    }

    /// A ClientHello that shows `public_name` and hides another in its `encrypted_client_hello` extension. What is
    /// encrypted is encrypted for nobody; a server that doesn't know the extension answers by its ServerHello, and that
    /// is waited for.
    ///
    /// # Errors
    /// The server answers otherwise.
    pub fn encrypted(&self, target: SocketAddr, public_name: &str) -> Result<TcpStream> {
        let mut stream = self.connect(target)?;
        stream.write_all(&hello(public_name, true)?)?;
        let mut answer = [0; 6];
        stream
            .read_exact(&mut answer)
            .with_context(|| format!("{target} says nothing to the encrypted ClientHello"))?;
        ensure!(
            answer[0] == 0x16 && answer[5] == 0x02,
            "{target} answered {answer:02x?} instead of a ServerHello"
        );
        Ok(stream)
    }

    /// An HTTP/1.1 request without TLS; the connection stays open.
    ///
    /// # Errors
    /// The server doesn't answer by status 200.
    pub fn http(&self, target: SocketAddr, host: &str) -> Result<TcpStream> {
        let mut stream = self.connect(target)?;
        get(&mut stream, host, "/").with_context(|| format!("no HTTP with {target} as {host}"))?;
        Ok(stream)
    }
}

impl Conversation {
    /// Asks for `path` of `host` and returns the body; the connection stays open.
    ///
    /// # Errors
    /// The server doesn't answer by status 200.
    pub fn get(&mut self, host: &str, path: &str) -> Result<String> {
        get(&mut self.stream, host, path)
    }

    /// The application protocol that both agreed on.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.stream.conn.alpn_protocol()
    }

    /// The client's end.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.sock.stream.local_addr()
    }
}

/// One request on a connection that stays open; nginx gives the length of what it returns.
fn get(stream: &mut (impl io::Read + io::Write), host: &str, path: &str) -> Result<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
    stream.flush()?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 65536, "the head has no end");
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head)?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .context("no length")?;
    let mut body = vec![0; length.trim_end().parse()?];
    stream.read_exact(&mut body)?;
    Ok(String::from_utf8(body)?)
}

/// A socket that may send the first thing it is given in pieces.
#[derive(Debug)]
struct Paced {
    stream: TcpStream,
    /// Still to be cut, and in the middle of what.
    cut_at: Option<Vec<u8>>,
}

impl io::Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl io::Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(name) = self.cut_at.take() else {
            return self.stream.write(bytes);
        };
        // 3 bytes are a content type and a version: not even the record's length is known.
        let (first, rest) = bytes.split_at(bytes.len().min(3));
        let middle = rest
            .windows(name.len())
            .position(|window| window == name)
            .map_or(rest.len() / 2, |at| at + name.len() / 2);
        let (second, third) = rest.split_at(middle);
        for piece in [first, second, third] {
            self.stream.write_all(piece)?;
            thread::sleep(PAUSE);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A ClientHello of TLS 1.3 that shows `name`, in one record; for labs whose servers need not understand it.
///
/// # Errors
/// `name` is too long.
pub fn client_hello(name: &str) -> Result<Vec<u8>> {
    hello(name, false)
}

/// A ClientHello of TLS 1.3 (RFC 8446, section 4.1.2), with an outer `encrypted_client_hello` extension (RFC 9849,
/// section 5) if it is `encrypted`, in one record.
fn hello(shown: &str, encrypted: bool) -> Result<Vec<u8>> {
    let name = shown.as_bytes();
    // `server_name` holds a list of one entry of type host_name (RFC 6066, section 3).
    let mut entry = vec![0];
    entry.extend(with_length(name)?);
    let mut ech = vec![0x00, 0x00, 0x01, 0x00, 0x01, ECH_CONFIGURATION];
    ech.extend(with_length(&[0x6b; 32])?);
    ech.extend(with_length(&[0xa7; 239])?);
    let mut share = vec![0x00, 0x1d];
    share.extend(with_length(&[0x42; 32])?);

    let ech = encrypted.then_some((ECH_EXTENSION, ech));
    let mut extensions = Vec::new();
    for (number, content) in ech.into_iter().chain([
        (0, with_length(&entry)?),
        (10, vec![0x00, 0x02, 0x00, 0x1d]),
        (
            13,
            vec![0x00, 0x08, 0x04, 0x03, 0x08, 0x04, 0x04, 0x01, 0x08, 0x05],
        ),
        (16, b"\x00\x09\x08http/1.1".to_vec()),
        (43, vec![0x02, 0x03, 0x04]),
        (51, with_length(&share)?),
    ]) {
        extensions.extend(u16::to_be_bytes(number));
        extensions.extend(with_length(&content)?);
    }

    let mut hello = vec![0x03, 0x03];
    hello.extend([0x33; 32]);
    hello.push(32);
    hello.extend([0x44; 32]);
    hello.extend([0x00, 0x04, 0x13, 0x01, 0x13, 0x02]);
    hello.extend([0x01, 0x00]);
    hello.extend(with_length(&extensions)?);
    let mut message = vec![0x01, 0x00];
    message.extend(with_length(&hello)?);
    let mut record = vec![0x16, 0x03, 0x01];
    record.extend(with_length(&message)?);
    Ok(record)
}

/// Bytes after their length in two bytes.
fn with_length(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut all = u16::try_from(bytes.len())?.to_be_bytes().to_vec();
    all.extend(bytes);
    Ok(all)
}
