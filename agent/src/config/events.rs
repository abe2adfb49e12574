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
/// Port of syslog over TLS (RFC 5425, section 4.1).
const SYSLOG_TLS_PORT: u16 = 6514;
/// Port of OTLP over HTTP.
const OTLP_HTTP_PORT: u16 = 4318;
/// Port of OTLP over gRPC.
const OTLP_GRPC_PORT: u16 = 4317;
/// Path of logs below an endpoint of OTLP over HTTP.
const OTLP_HTTP_PATH: &str = "/v1/logs";
/// The method of gRPC that takes logs.
const OTLP_GRPC_PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

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
    /// Whom to trust and who to be, over TLS.
    pub tls: TlsFiles,
}

/// Files for TLS. They are read for each connection, so that a renewed certificate needs no restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Certificates of the authorities that the peer's may come from, PEM; without, those of the system.
    pub ca: Option<PathBuf>,
    /// What this daemon shows if it is asked to.
    pub identity: Option<Identity>,
}

/// A certificate of one's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate and those that lead to its authority, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

impl Default for SyslogConfig {
    fn default() -> Self {
        Self {
            address: SyslogAddress::Unix(PathBuf::from("/dev/log")),
            facility: Facility::Daemon,
            enterprise: None,
            tls: TlsFiles::default(),
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
    /// The same over TLS.
    Tls(String, u16),
}

/// The text is no address of a syslog server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the address of a syslog server: write `unix:///dev/log`, `udp://HOST:PORT`, `tcp://HOST:PORT` or `tls://HOST:PORT`"
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
        } else if let Some(rest) = text.strip_prefix("tls://") {
            host_and_port(rest, SYSLOG_TLS_PORT).map(|(host, port)| Self::Tls(host, port))
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
            Self::Tls(host, port) => write!(formatter, "tls://{}:{port}", bracketed(host)),
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
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
    /// Headers that every request has.
    pub headers: Vec<Header>,
    /// How long a request may take, 1 second to 1 minute.
    pub timeout: Duration,
    /// Whom to trust and who to be, over TLS.
    pub tls: TlsFiles,
}

impl OtlpConfig {
    /// Without headers, and the default time.
    #[must_use]
    pub const fn to(endpoint: OtlpEndpoint, protocol: OtlpProtocol) -> Self {
        Self {
            endpoint,
            protocol,
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            tls: TlsFiles {
                ca: None,
                identity: None,
            },
        }
    }

    /// Port of the collector.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.endpoint.port.unwrap_or(match self.protocol {
            OtlpProtocol::HttpProtobuf | OtlpProtocol::HttpJson => OTLP_HTTP_PORT,
            OtlpProtocol::Grpc => OTLP_GRPC_PORT,
        })
    }

    /// Path that logs are posted to.
    #[must_use]
    pub fn path(&self) -> &str {
        match (&self.endpoint.path, self.protocol) {
            (_, OtlpProtocol::Grpc) => OTLP_GRPC_PATH,
            (Some(path), _) => path,
            (None, _) => OTLP_HTTP_PATH,
        }
    }

    /// Host and port as a URL has them.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", bracketed(&self.endpoint.host), self.port())
    }

    /// The whole URL.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.endpoint.tls { "https" } else { "http" };
        let authority = self.authority();
        match self.protocol {
            // The method is no business of whoever reads it.
            OtlpProtocol::Grpc => format!("{scheme}://{authority}"),
            OtlpProtocol::HttpProtobuf | OtlpProtocol::HttpJson => {
                format!("{scheme}://{authority}{}", self.path())
            }
        }
    }
}

/// How a collector is spoken to; the texts are those of `OTEL_EXPORTER_OTLP_PROTOCOL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// Protobuf over HTTP/1.1.
    HttpProtobuf,
    /// The JSON mapping over HTTP/1.1.
    HttpJson,
    /// gRPC.
    Grpc,
}

impl OtlpProtocol {
    /// The texts of the configuration.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("http/protobuf", Self::HttpProtobuf),
        ("http/json", Self::HttpJson),
        ("grpc", Self::Grpc),
    ];
}

/// Where a collector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpEndpoint {
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port, if it is not the usual one.
    pub port: Option<u16>,
    /// Path of logs, if it is not the usual one.
    pub path: Option<String>,
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the endpoint of a collector: write `http://HOST:PORT` or `https://HOST:PORT`, with a path if it is HTTP and not `/v1/logs`"
)]
pub struct OtlpEndpointError(String);

impl FromStr for OtlpEndpoint {
    type Err = OtlpEndpointError;

    fn from_str(text: &str) -> Result<Self, OtlpEndpointError> {
        let form = || OtlpEndpointError(text.to_owned());
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            (None, None) => return Err(form()),
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        // No port is 0.
        let (host, port) = host_and_port(authority, u16::MAX).ok_or_else(form)?;
        let port = (!authority.ends_with(']') && authority.contains(':')).then_some(port);
        let path = (!path.is_empty() && path != "/").then(|| path.to_owned());
        if path
            .as_ref()
            .is_some_and(|path| path.parse::<hyper::Uri>().is_err())
        {
            return Err(form());
        }
        Ok(Self {
            tls,
            host,
            port,
            path,
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
        check("tls://log.example", Some("tls://log.example:6514"));
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
        use OtlpProtocol::{Grpc, HttpJson, HttpProtobuf};
        let check = |text: &str, protocol, expect: Option<&str>| {
            let got = text.parse::<OtlpEndpoint>();
            match (got, expect) {
                (Ok(endpoint), Some(expect)) => {
                    assert_eq!(OtlpConfig::to(endpoint, protocol).url(), expect);
                }
                (Err(error), None) => {
                    assert!(error.to_string().contains("http://HOST"), "{error}");
                }
                (got, expect) => panic!("{text}: got {got:?}, expected {expect:?}"),
            }
        };
        check(
            "http://localhost",
            HttpJson,
            Some("http://localhost:4318/v1/logs"),
        );
        check(
            "https://localhost/",
            HttpProtobuf,
            Some("https://localhost:4318/v1/logs"),
        );
        check(
            "http://[::1]:99/",
            HttpJson,
            Some("http://[::1]:99/v1/logs"),
        );
        check("https://[::1]", Grpc, Some("https://[::1]:4317"));
        check("http://a:1", Grpc, Some("http://a:1"));
        check(
            "http://a/otlp/logs",
            HttpJson,
            Some("http://a:4318/otlp/logs"),
        );
        check("a:4318", Grpc, None);
        check("grpc://a", Grpc, None);
        check("http://", Grpc, None);
        check("http://me@a", Grpc, None);
        check("http://a:0", Grpc, None);
        check("http://a/b c", HttpJson, None);
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
