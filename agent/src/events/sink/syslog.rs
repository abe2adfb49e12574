//! Syslog (RFC 5424) over UDP (RFC 5426), TCP with octet counting (RFC 6587, section 3.4.1), or TLS (RFC 5425). The
//! message is the event in JSON, in ASCII, so that nobody needs to know an encoding; an operator with a private enterprise
//! number gets its fields as structured data too.
//!
//! What listens on the local socket expects the form that syslog(3) writes: rsyslog as Debian sets it up takes the header
//! of RFC 5424 for a message of a program named `1`. So there it is that form.
//!
//! UDP and the local socket promise nothing. TCP and TLS may lose what was on its way when the connection broke, since
//! syslog has no acknowledgements.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use super::{Delivery, Sink, tls};
use crate::config::{SyslogAddress, SyslogConfig, TlsFiles};
use crate::events::model::{Event, Severity};
use crate::export::metrics::VERSION;

/// How long connecting, and one write, may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The greatest `sequenceId` (RFC 5424, section 7.3.1); then it begins anew at 1.
const LAST_SEQUENCE: u32 = 2_147_483_647;
/// Characters that HOSTNAME and MSGID may have (RFC 5424, section 6).
const HOST_LENGTH: usize = 255;
const MESSAGE_ID_LENGTH: usize = 32;

/// What is the same in all messages.
#[derive(Debug)]
struct Origin {
    facility: u8,
    enterprise: Option<u32>,
    process: u32,
}

/// A field of a header: printable ASCII, cut; `-` if there is nothing (NILVALUE).
fn header(text: &str, most: usize) -> String {
    let printable: String = text
        .chars()
        .filter(char::is_ascii_graphic)
        .take(most)
        .collect();
    if printable.is_empty() {
        "-".to_owned()
    } else {
        printable
    }
}

/// A PARAM-VALUE: `"`, `\` and `]` are escaped (RFC 5424, section 6.3.3). Control characters are none of its business, but
/// no line of a log should have them.
fn parameter(into: &mut String, name: &str, value: &str) {
    into.push(' ');
    into.push_str(name);
    into.push_str("=\"");
    for character in value.chars() {
        if matches!(character, '"' | '\\' | ']') {
            into.push('\\');
        }
        into.push(if character.is_control() {
            ' '
        } else {
            character
        });
    }
    into.push('"');
}

/// JSON in ASCII: what is not stands in strings, where `\u` is the same.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut units = [0; 2];
    for character in json.chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut units) {
                // Writing to a string does not fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// The code of a severity (RFC 5424, section 6.2.1).
const fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Error => 3,
        Severity::Warning => 4,
        Severity::Info => 6,
    }
}

impl Origin {
    fn priority(&self, event: &Event) -> u8 {
        self.facility * 8 + severity(event.severity)
    }

    /// For the local socket: without a time, since whoever reads it takes his own.
    fn local(&self, event: &Event) -> serde_json::Result<String> {
        let json = ascii(&serde_json::to_string(event)?);
        let priority = self.priority(event);
        Ok(format!("<{priority}>flowproof[{}]: {json}", self.process))
    }

    fn message(&self, event: &Event, sequence: u32) -> serde_json::Result<String> {
        let value = serde_json::to_value(event)?;
        let time = value["time"].as_str().unwrap_or("-");
        // Six digits of a second at most.
        let time = time
            .get(..26)
            .map_or_else(|| "-".to_owned(), |micros| format!("{micros}Z"));
        let mut text = format!(
            "<{}>1 {time} {} flowproof {} {} ",
            self.priority(event),
            header(&event.agent, HOST_LENGTH),
            self.process,
            header(event.body.name(), MESSAGE_ID_LENGTH)
        );
        text.push_str("[meta");
        parameter(&mut text, "sequenceId", &sequence.to_string());
        text.push_str("][origin");
        parameter(&mut text, "software", "flowproof");
        parameter(&mut text, "swVersion", VERSION);
        text.push(']');
        if let (Some(number), Some(fields)) = (self.enterprise, value.as_object()) {
            let _ = write!(text, "[event@{number}");
            for (name, value) in fields {
                match value {
                    Value::String(value) => parameter(&mut text, name, value),
                    Value::Bool(_) | Value::Number(_) => {
                        parameter(&mut text, name, &value.to_string());
                    }
                    // Lists are in the message.
                    Value::Null | Value::Array(_) | Value::Object(_) => {}
                }
            }
            text.push(']');
        }
        text.push(' ');
        text.push_str(&ascii(&serde_json::to_string(event)?));
        Ok(text)
    }
}

#[derive(Debug)]
enum Connection {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A connection with limits of time for whatever is done on it.
fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Speaks TLS up to the end of the handshake, so that a certificate that is not trusted shows before anything is sent.
fn secured(
    stream: TcpStream,
    host: &str,
    files: &TlsFiles,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let config = tls::client(files, &[])?;
    let session = ClientConnection::new(config, tls::name(host)?).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, stream);
    while stream.conn.is_handshaking() {
        stream
            .conn
            .complete_io(&mut stream.sock)
            .map_err(|error| io::Error::new(error.kind(), format!("TLS: {error}")))?;
    }
    Ok(stream)
}

/// Whether the other side has gone: it would take one more message, and nobody would know. With TLS it may have sent
/// something, such as tickets, which is read on the way.
fn gone(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> io::Result<bool> {
    stream.sock.set_nonblocking(true)?;
    let gone = loop {
        match stream.conn.read_tls(&mut stream.sock) {
            Ok(0) => break true,
            Ok(_) => match stream.conn.process_new_packets() {
                Ok(state) if state.peer_has_closed() => break true,
                Ok(_) => {}
                Err(_) => break true,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
            Err(_) => break true,
        }
    };
    stream.sock.set_nonblocking(false)?;
    Ok(gone)
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Self::Tls(stream) = self {
            // RFC 5425, section 4.4. Who has gone need not hear it.
            stream.conn.send_close_notify();
            let _ = stream.conn.write_tls(&mut stream.sock);
        }
    }
}

impl Connection {
    fn open(address: &SyslogAddress, files: &TlsFiles) -> io::Result<Self> {
        match address {
            SyslogAddress::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(LIMIT))?;
                socket.connect(path)?;
                Ok(Self::Unix(socket))
            }
            SyslogAddress::Udp(host, port) => each((host, *port), |address| {
                let own: SocketAddr = if address.is_ipv4() {
                    (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
                } else {
                    (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
                };
                let socket = UdpSocket::bind(own)?;
                socket.connect(address)?;
                Ok(Self::Udp(socket))
            }),
            SyslogAddress::Tcp(host, port) => {
                each((host, *port), |address| Ok(Self::Tcp(connect(address)?)))
            }
            SyslogAddress::Tls(host, port) => each((host, *port), |address| {
                let stream = secured(connect(address)?, host, files)?;
                Ok(Self::Tls(Box::new(stream)))
            }),
        }
    }

    fn send(&mut self, message: &str) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.send(message.as_bytes()).map(|_| ()),
            Self::Udp(socket) => socket.send(message.as_bytes()).map(|_| ()),
            Self::Tcp(stream) => {
                // A server that has gone would take one more message, and nobody would know.
                stream.set_nonblocking(true)?;
                let gone = matches!(stream.peek(&mut [0]), Ok(0));
                stream.set_nonblocking(false)?;
                if gone {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                stream.write_all(framed(message).as_bytes())
            }
            Self::Tls(stream) => {
                if gone(stream)? {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                stream.write_all(framed(message).as_bytes())?;
                stream.flush()
            }
        }
    }
}

/// With its length before it.
fn framed(message: &str) -> String {
    format!("{} {message}", message.len())
}

/// The first address of a host that can be used.
fn each<T>((host, port): (&str, u16), open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match open(address) {
            Ok(opened) => return Ok(opened),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A syslog server.
pub(super) struct Syslog {
    address: SyslogAddress,
    files: TlsFiles,
    origin: Origin,
    sequence: u32,
    connection: Option<Connection>,
}

impl Syslog {
    pub(super) fn new(config: &SyslogConfig) -> Self {
        Self {
            address: config.address.clone(),
            files: config.tls.clone(),
            origin: Origin {
                facility: config.facility.code(),
                enterprise: config.enterprise,
                process: std::process::id(),
            },
            sequence: 0,
            connection: None,
        }
    }

    fn send(&mut self, event: &Event) -> io::Result<()> {
        let next = self.sequence % LAST_SEQUENCE + 1;
        let message = match &self.address {
            SyslogAddress::Unix(_) => self.origin.local(event)?,
            SyslogAddress::Udp(..) | SyslogAddress::Tcp(..) | SyslogAddress::Tls(..) => {
                self.origin.message(event, next)?
            }
        };
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.address, &self.files)?,
        };
        if let Err(error) = connection.send(&message) {
            // One that was open for long may just have been closed by the other side.
            tracing::debug!("syslog: {error}");
            connection = Connection::open(&self.address, &self.files)?;
            connection.send(&message)?;
        }
        self.connection = Some(connection);
        self.sequence = next;
        Ok(())
    }
}

impl Sink for Syslog {
    fn kind(&self) -> &'static str {
        "syslog"
    }

    fn name(&self) -> String {
        format!("syslog at {}", self.address)
    }

    fn deliver(&mut self, events: &[Arc<Event>]) -> Delivery {
        for (done, event) in events.iter().enumerate() {
            if let Err(error) = self.send(event) {
                return Delivery::up_to(
                    done,
                    format!("{error}; start it, or mend `events: {{syslog: {{address: ...}}}}`"),
                );
            }
        }
        Delivery::all(events)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::config::Facility;
    use crate::events::model::Body;
    use crate::events::model::tests::{bodies, event};

    fn origin(enterprise: Option<u32>) -> Origin {
        Origin {
            facility: 3,
            enterprise,
            process: 42,
        }
    }

    #[test]
    fn a_message_is_as_the_rfc_wants_it() {
        let event = event(Body::CaptureFailed {
            reason: "the device \"eth0\" [gone]\nfor ü and 😀".to_owned(),
        });
        let text = origin(None).message(&event, 7).unwrap();
        let start = format!(
            "<27>1 2023-11-14T22:13:20.123456Z router-1 flowproof 42 capture_failed [meta sequenceId=\"7\"][origin \
             software=\"flowproof\" swVersion=\"{VERSION}\"] {{\"time\":\"2023-11-14T22:13:20.123456789Z\""
        );
        assert!(text.starts_with(&start), "{text}");
        assert!(text.is_ascii() && !text.contains('\n'));
        let json = &text[text.find("] {").unwrap() + 2..];
        assert_eq!(serde_json::from_str::<Event>(json).unwrap(), event);
    }

    #[test]
    fn structured_data_is_escaped() {
        let event = event(Body::CaptureFailed {
            reason: "a \"b\" \\ [c]\n".to_owned(),
        });
        let text = origin(Some(32_473)).message(&event, 1).unwrap();
        assert!(text.contains("][event@32473 time=\"2023-11-14T22:13:20.123456789Z\" id=\"1-1\""));
        assert!(text.contains(r#" reason="a \"b\" \\ [c\] "] {"#), "{text}");
    }

    #[test]
    fn headers_are_printable_and_short() {
        assert_eq!(header("", 5), "-");
        assert_eq!(header("a b\u{fc}\u{7}c", 5), "abc");
        assert_eq!(header(&"x".repeat(300), HOST_LENGTH).len(), 255);
        for body in bodies() {
            assert!(body.name().len() <= MESSAGE_ID_LENGTH);
        }
    }

    #[test]
    fn no_event_is_too_long_for_a_datagram() {
        let long = "ü".repeat(100_000);
        for mut body in bodies() {
            match &mut body {
                Body::ServiceState(state) => {
                    state.system = "s".repeat(128);
                    state.requirement = "r".repeat(128);
                    state.evidence = Some(crate::events::model::short(&long));
                }
                Body::UnexpectedFlows(flows) => {
                    flows.from = crate::events::model::short(&long);
                    flows.to = crate::events::model::short(&long);
                }
                Body::CaptureFailed { reason } => *reason = crate::events::model::short(&long),
                Body::DaemonStarted { .. }
                | Body::DaemonStopping
                | Body::MatrixReloaded { .. }
                | Body::MatrixReloadFailed { .. }
                | Body::CaptureRecovered { .. }
                | Body::LossBegan { .. }
                | Body::LossEnded { .. }
                | Body::LedgerDegraded { .. }
                | Body::LedgerRecovered { .. } => {}
            }
            let text = origin(Some(1)).message(&event(body), 1).unwrap();
            // What IPv4 can carry over UDP.
            assert!(text.len() < 65_507, "{}", text.len());
        }
    }

    fn sink(address: SyslogAddress) -> Syslog {
        Syslog::new(&SyslogConfig {
            address,
            facility: Facility::Local0,
            enterprise: None,
            tls: TlsFiles::default(),
        })
    }

    #[test]
    fn counts_octets_over_tcp_and_comes_back() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut sink = sink(SyslogAddress::Tcp("127.0.0.1".to_owned(), address.port()));
        let events: Vec<Arc<Event>> = bodies()
            .into_iter()
            .map(|body| Arc::new(event(body)))
            .collect();
        assert_eq!(sink.deliver(&events), Delivery::all(&events));
        let (mut peer, _) = listener.accept().unwrap();
        let frames = |peer: &mut TcpStream, count: usize| {
            for _ in 0..count {
                let mut length = String::new();
                let mut byte = [0];
                loop {
                    peer.read_exact(&mut byte).unwrap();
                    if byte == *b" " {
                        break;
                    }
                    length.push(char::from(byte[0]));
                }
                let mut message = vec![0; length.parse().unwrap()];
                peer.read_exact(&mut message).unwrap();
                assert!(message.starts_with(b"<13") && message.ends_with(b"}"));
            }
        };
        frames(&mut peer, events.len());
        // The server goes and comes back: nothing is lost, since nothing was on its way.
        drop(peer);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(sink.deliver(&events[..1]), Delivery::all(&events[..1]));
        let (mut peer, _) = listener.accept().unwrap();
        frames(&mut peer, 1);
        drop((peer, listener));
        std::thread::sleep(Duration::from_millis(50));
        let delivery = sink.deliver(&events);
        assert_eq!((delivery.delivered, delivery.refused), (0, 0));
        assert!(delivery.trouble.unwrap().contains("address"));
    }

    #[test]
    fn writes_to_the_local_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut sink = sink(SyslogAddress::Unix(path.clone()));
        let events = [Arc::new(event(Body::DaemonStopping))];
        assert!(sink.deliver(&events).trouble.is_some());
        let server = UnixDatagram::bind(&path).unwrap();
        assert_eq!(sink.deliver(&events), Delivery::all(&events));
        let mut buffer = [0; 2_048];
        let length = server.recv(&mut buffer).unwrap();
        // local0, info.
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        let (head, json) = text.split_once(": ").unwrap();
        assert_eq!(head, format!("<134>flowproof[{}]", std::process::id()));
        assert_eq!(serde_json::from_str::<Event>(json).unwrap(), *events[0]);
    }
}
