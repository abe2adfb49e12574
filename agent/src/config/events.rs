//! Where events go: the part of the configuration that only `events/` needs, with the texts that it is read from.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};

/// Port of syslog over UDP (RFC 5426, section 3.3).
const SYSLOG_UDP_PORT: u16 = 514;
/// Port of syslog over TCP (RFC 6587 leaves it open; IANA's `syslog-conn` is what servers with octet counting use).
const SYSLOG_TCP_PORT: u16 = 601;
/// Port of OTLP over HTTP.
const OTLP_PORT: u16 = 4318;
/// Path of logs below an OTLP endpoint.
const OTLP_PATH: &str = "/v1/logs";

/// Where events go; nowhere by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsConfig {
    /// How long unexpected flows of a known kind are summed up, 1 second to 1 hour.
    pub interval: Duration,
    /// JSON Lines.
    pub json: Option<JsonConfig>,
    /// Syslog.
    pub syslog: Option<SyslogConfig>,
    /// An OpenTelemetry collector.
    pub otlp: Option<OtlpConfig>,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            json: None,
            syslog: None,
            otlp: None,
        }
    }
}

/// JSON Lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonConfig {
    /// Where to.
    pub target: EventTarget,
    /// Bytes that a file may have until it is renamed, 64 KiB to 3 GiB.
    pub max_size: u32,
    /// Renamed files that are kept, 1 to 100.
    pub keep: u32,
}

impl JsonConfig {
    /// With default limits.
    #[must_use]
    pub const fn to(target: EventTarget) -> Self {
        Self {
            target,
            max_size: 64 << 20,
            keep: 5,
        }
    }
}

/// Where JSON Lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventTarget {
    /// Standard output.
    StandardOutput,
    /// A file.
    File(PathBuf),
}

impl EventTarget {
    /// Of a text: `-` is standard output.
    #[must_use]
    pub fn of(text: &str) -> Self {
        if text == "-" {
            Self::StandardOutput
        } else {
            Self::File(PathBuf::from(text))
        }
    }
}

/// A syslog server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogConfig {
    /// Where it is.
    pub address: SyslogAddress,
    /// What messages are filed under.
    pub facility: Facility,
    /// The operator's private enterprise number, under which the fields are structured data too.
    pub enterprise: Option<u32>,
}

impl Default for SyslogConfig {
    fn default() -> Self {
        Self {
            address: SyslogAddress::Unix(PathBuf::from("/dev/log")),
            facility: Facility::Daemon,
            enterprise: None,
        }
    }
}

/// Where a syslog server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogAddress {
    /// A local datagram socket.
    Unix(PathBuf),
    /// Host and port, over UDP.
    Udp(String, u16),
    /// Host and port, over TCP with octet counting.
    Tcp(String, u16),
}

/// The text is no address of a syslog server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the address of a syslog server: write `unix:///dev/log`, `udp://HOST:PORT` or `tcp://HOST:PORT`"
)]
pub struct SyslogAddressError(String);

/// Host and port; brackets belong to the text of an IPv6 address, not to the address.
fn host_and_port(text: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        Some(_) | None => (text, default),
    };
    let inner = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let fits = |character: char| character.is_ascii_alphanumeric() || ".-_:%".contains(character);
    let good = !inner.is_empty() && inner.chars().all(fits) && port != 0;
    good.then(|| (inner.to_owned(), port))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

impl FromStr for SyslogAddress {
    type Err = SyslogAddressError;

    fn from_str(text: &str) -> Result<Self, SyslogAddressError> {
        let address = if let Some(path) = text.strip_prefix("unix://") {
            path.starts_with('/').then(|| Self::Unix(path.into()))
        } else if let Some(rest) = text.strip_prefix("udp://") {
            host_and_port(rest, SYSLOG_UDP_PORT).map(|(host, port)| Self::Udp(host, port))
        } else if let Some(rest) = text.strip_prefix("tcp://") {
            host_and_port(rest, SYSLOG_TCP_PORT).map(|(host, port)| Self::Tcp(host, port))
        } else {
            None
        };
        address.ok_or_else(|| SyslogAddressError(text.to_owned()))
    }
}

impl fmt::Display for SyslogAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Udp(host, port) => write!(formatter, "udp://{}:{port}", bracketed(host)),
            Self::Tcp(host, port) => write!(formatter, "tcp://{}:{port}", bracketed(host)),
        }
    }
}

/// Facility of syslog messages (RFC 5424, section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facility {
    /// 3
    Daemon,
    /// 4
    Auth,
    /// 16
    Local0,
    /// 17
    Local1,
    /// 18
    Local2,
    /// 19
    Local3,
    /// 20
    Local4,
    /// 21
    Local5,
    /// 22
    Local6,
    /// 23
    Local7,
}

impl Facility {
    /// The texts of the configuration.
    pub const NAMES: [(&'static str, Self); 10] = [
        ("daemon", Self::Daemon),
        ("auth", Self::Auth),
        ("local0", Self::Local0),
        ("local1", Self::Local1),
        ("local2", Self::Local2),
        ("local3", Self::Local3),
        ("local4", Self::Local4),
        ("local5", Self::Local5),
        ("local6", Self::Local6),
        ("local7", Self::Local7),
    ];

    /// Its number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Daemon => 3,
            Self::Auth => 4,
            Self::Local0 => 16,
            Self::Local1 => 17,
            Self::Local2 => 18,
            Self::Local3 => 19,
            Self::Local4 => 20,
            Self::Local5 => 21,
            Self::Local6 => 22,
            Self::Local7 => 23,
        }
    }
}

/// An OpenTelemetry collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpConfig {
    /// Where it is.
    pub endpoint: OtlpEndpoint,
    /// Headers that every request has.
    pub headers: Vec<Header>,
    /// How long a request may take, 1 second to 1 minute.
    pub timeout: Duration,
}

impl OtlpConfig {
    /// Without headers, and the default time.
    #[must_use]
    pub const fn to(endpoint: OtlpEndpoint) -> Self {
        Self {
            endpoint,
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
        }
    }
}

/// Where a collector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpEndpoint {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path of logs.
    pub path: String,
}

impl OtlpEndpoint {
    /// Host and port as a URL has them.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}{}", self.authority(), self.path)
    }
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OtlpEndpointError {
    /// It wants TLS.
    #[error(
        "`{0}` asks for TLS, which events do not have yet: send them to a collector on this host by `http://127.0.0.1:4318`, and have it forward them"
    )]
    Tls(String),
    /// It is no URL.
    #[error(
        "`{0}` is not the endpoint of a collector: write `http://HOST:PORT`, with a path if it is not `/v1/logs`"
    )]
    Form(String),
}

impl FromStr for OtlpEndpoint {
    type Err = OtlpEndpointError;

    fn from_str(text: &str) -> Result<Self, OtlpEndpointError> {
        if text.starts_with("https://") {
            return Err(OtlpEndpointError::Tls(text.to_owned()));
        }
        let form = || OtlpEndpointError::Form(text.to_owned());
        let rest = text.strip_prefix("http://").ok_or_else(form)?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (host, port) = host_and_port(authority, OTLP_PORT).ok_or_else(form)?;
        let path = if path.is_empty() || path == "/" {
            OTLP_PATH
        } else {
            path
        };
        if path.parse::<hyper::Uri>().is_err() {
            return Err(form());
        }
        Ok(Self {
            host,
            port,
            path: path.to_owned(),
        })
    }
}

/// A header of a request; its value may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// Name.
    pub name: HeaderName,
    /// Value.
    pub value: HeaderValue,
}

impl fmt::Debug for Header {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: ...", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_of_syslog_servers() {
        let check = |text: &str, expect: Option<&str>| match (text.parse::<SyslogAddress>(), expect)
        {
            (Ok(address), Some(expect)) => assert_eq!(address.to_string(), expect),
            (Err(error), None) => assert!(error.to_string().contains("udp://"), "{error}"),
            (got, expect) => panic!("{text}: got {got:?}, expected {expect:?}"),
        };
        check("unix:///dev/log", Some("unix:///dev/log"));
        check("udp://192.0.2.1", Some("udp://192.0.2.1:514"));
        check("tcp://log.example:6514", Some("tcp://log.example:6514"));
        check("tcp://[2001:db8::1]", Some("tcp://[2001:db8::1]:601"));
        check("udp://[2001:db8::1]:99", Some("udp://[2001:db8::1]:99"));
        check("unix://dev/log", None);
        check("udp://2001:db8::1", None);
        check("udp://", None);
        check("udp://a:0", None);
        check("udp://a:b", None);
        check("udp://a b", None);
        check("192.0.2.1:514", None);
    }

    #[test]
    fn reads_endpoints() {
        let check =
            |text: &str, expect: Result<&str, &str>| match (text.parse::<OtlpEndpoint>(), expect) {
                (Ok(endpoint), Ok(expect)) => assert_eq!(endpoint.to_string(), expect),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, expect) => panic!("{text}: got {got:?}, expected {expect:?}"),
            };
        check("http://localhost", Ok("http://localhost:4318/v1/logs"));
        check("http://[::1]:99/", Ok("http://[::1]:99/v1/logs"));
        check("http://a/otlp/logs", Ok("http://a:4318/otlp/logs"));
        check("https://a", Err("TLS"));
        check("a:4318", Err("http://HOST"));
        check("http://", Err("http://HOST"));
        check("http://me@a", Err("http://HOST"));
        check("http://a/b c", Err("http://HOST"));
    }

    #[test]
    fn values_of_headers_are_not_shown() {
        let header = Header {
            name: HeaderName::from_static("authorization"),
            value: HeaderValue::from_static("secret"),
        };
        assert_eq!(format!("{header:?}"), "authorization: ...");
    }
}
