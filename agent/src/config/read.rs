//! Configuration files to the model. A file is read to its end whatever is wrong with it, so that all its errors are
//! reported at once. Relative paths in it start at the file's own folder, so that it means the same wherever the
//! daemon is started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::events::{
    EventTarget, EventsConfig, Facility, Header, Identity, JsonConfig, OtlpConfig, OtlpEndpoint,
    OtlpProtocol, SyslogAddress, SyslogConfig, TlsFiles,
};
use super::model::{
    Attach, BackendChoice, CaptureConfig, Config, EbpfOptions, FlowCapacity, InterfacePattern,
    LedgerConfig, LogConfig, LogFormat, LogLevel, NamesConfig, OnExit, PcapOptions, TagsConfig,
    WebConfig, parse_resolver,
};
use super::units::{parse_duration, parse_size};
use crate::finding::Findings;
use crate::yaml::{self, Fields, Keys, LoadError, Node, Reporter, Source, Span, Value};

pub(super) const CONFIG: Keys = Keys::new(
    &[],
    &[
        "matrix",
        "site",
        "draft",
        "draft_site",
        "tags",
        "state_directory",
        "capture",
        "names",
        "ledger",
        "events",
        "web",
        "security",
        "log",
    ],
);
pub(super) const TAGS: Keys = Keys::new(&[], &["paths", "accept_shrunk"]);
pub(super) const CAPTURE: Keys = Keys::new(&[], &["backend", "interfaces", "pcap", "ebpf"]);
pub(super) const PCAP: Keys = Keys::new(
    &[],
    &[
        "filter",
        "snap_length",
        "buffer_size",
        "promiscuous",
        "flows",
    ],
);
pub(super) const EBPF: Keys = Keys::new(&[], &["attach", "pin_directory", "flows", "on_exit"]);
pub(super) const FLOWS: Keys = Keys::new(&[], &["verified", "unverified"]);
pub(super) const NAMES: Keys = Keys::new(
    &[],
    &[
        "passive_dns",
        "hello",
        "hold",
        "ttl_min",
        "ttl_max",
        "grace",
        "resolve",
        "resolvers",
    ],
);
pub(super) const LEDGER: Keys = Keys::new(&[], &["enabled", "retention", "max_size", "window"]);
pub(super) const EVENTS: Keys = Keys::new(&[], &["interval", "json", "syslog", "otlp"]);
pub(super) const JSON: Keys = Keys::new(&["path"], &["max_size", "keep"]);
pub(super) const SECURITY: Keys = Keys::new(&[], &["sandbox"]);
pub(super) const WEB: Keys = Keys::new(&[], &["listen", "config", "expose_flows"]);
pub(super) const SYSLOG: Keys = Keys::new(&[], &["address", "facility", "enterprise", "tls"]);
pub(super) const OTLP: Keys = Keys::new(&["endpoint"], &["protocol", "headers", "timeout", "tls"]);
pub(super) const TLS_FILES: Keys = Keys::new(&[], &["ca", "certificate", "key"]);
pub(super) const LOG: Keys = Keys::new(&[], &["level", "format"]);

/// Bytes that may be kept of a packet: an Ethernet, IPv4 and TCP header at the least, libpcap's own limit at the most.
pub(crate) const SNAP_LENGTH: std::ops::RangeInclusive<u32> = 64..=262_144;
/// Bytes that the kernel's buffer for libpcap may have.
pub(crate) const BUFFER_SIZE: std::ops::RangeInclusive<u32> = 65_536..=1 << 30;
/// Flows that a table may have room for; 16 million need more than 2 GiB.
const FLOW_CAPACITY: std::ops::RangeInclusive<u32> = 1_024..=16_777_216;
/// How long a flow may wait for its name; later, nobody waits for the verdict any more.
pub(crate) const HOLD: std::ops::RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(60);
/// Bounds that a time to live may be given; RFC 8767, section 4, names 7 days as the most that makes sense.
const TTL: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(7 * 86_400);
/// How long an address may stand for a name beyond its time to live.
const GRACE: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);
/// How long flow records may be kept: less than an hour is no record by the hour.
const RETENTION: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(3_600)..=Duration::from_secs(3_650 * 86_400);
/// Bytes that the ledger may have: room for a few batches at the least.
const LEDGER_SIZE: std::ops::RangeInclusive<u32> = 8 << 20..=3 << 30;
/// How far back states may look. The shortest is for trying things out, where nobody waits a day for silence.
const WINDOW: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(31 * 86_400);
/// How long unexpected flows of a known kind may be summed up.
const INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3_600);
/// Bytes that a file of events may have.
const EVENT_FILE: std::ops::RangeInclusive<u32> = 64 << 10..=3 << 30;
/// Files of events that may be kept.
const EVENT_FILES: std::ops::RangeInclusive<u32> = 1..=100;
/// Private enterprise numbers that may be somebody's.
const ENTERPRISE: std::ops::RangeInclusive<u32> = 1..=u32::MAX;
/// How long a request to a collector may take.
const OTLP_TIMEOUT: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(60);
/// What a switch may say.
const TRUTH: [(&str, bool); 2] = [("true", true), ("false", false)];

/// What reading a configuration file gave.
#[derive(Debug, Clone)]
pub struct ConfigReading {
    /// The configuration, if the file has no errors.
    pub config: Option<Config>,
    /// What was found in the file.
    pub findings: Findings,
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`LoadError`] if the file does not exist or can't be read. What is wrong inside is a finding.
    pub fn read(path: &Path) -> Result<ConfigReading, LoadError> {
        let (source, problem) = yaml::load(path)?;
        let mut reporter = Reporter::new(Arc::new(source));
        if let Some((offset, problem)) = problem {
            reporter.error(problem.code, Span { offset, length: 0 }, problem.message);
            return Ok(ConfigReading {
                config: None,
                findings: reporter.finish(),
            });
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(read_source(reporter, folder))
    }

    /// Reads a configuration from a text; `name` stands for the file in findings, and relative paths start at
    /// `folder`.
    #[must_use]
    pub fn read_text(name: &str, text: &str, folder: &Path) -> ConfigReading {
        read_source(Reporter::new(Arc::new(Source::new(name, text))), folder)
    }
}

fn read_source(mut reporter: Reporter, folder: &Path) -> ConfigReading {
    let source = Arc::clone(reporter.source());
    let config = yaml::parse(source.text(), &mut reporter).map(|node| {
        Reader {
            reporter: &mut reporter,
            folder,
        }
        .config(&node)
    });
    ConfigReading {
        config: config.filter(|_| !reporter.has_errors()),
        findings: reporter.finish(),
    }
}

/// Every method gives the default where its node is missing or wrong; what is wrong is in the reporter, and a file with
/// errors gives no configuration.
struct Reader<'a> {
    reporter: &'a mut Reporter,
    folder: &'a Path,
}

impl Reader<'_> {
    fn config(&mut self, node: &Node<'_>) -> Config {
        let mut config = Config::default();
        let Some(fields) = Fields::open(node, "a configuration file", CONFIG, self.reporter) else {
            return config;
        };
        config.matrix = self.paths(&fields, "matrix");
        config.site = fields.get("site").and_then(|node| self.path(node, "site"));
        config.draft = self.paths(&fields, "draft");
        config.draft_site = fields
            .get("draft_site")
            .and_then(|node| self.path(node, "draft_site"));
        if let Some(node) = fields.get("tags") {
            self.tags(node, &mut config.tags);
        }
        if let Some(path) = fields
            .get("state_directory")
            .and_then(|node| self.path(node, "state_directory"))
        {
            config.state_directory = path;
        }
        if let Some(node) = fields.get("capture") {
            self.capture(node, &mut config.capture);
        }
        if let Some(node) = fields.get("names") {
            self.names(node, &mut config.names);
        }
        if let Some(node) = fields.get("ledger") {
            self.ledger(node, &mut config.ledger);
        }
        if let Some(node) = fields.get("events") {
            self.events(node, &mut config.events);
        }
        if let Some(node) = fields.get("web") {
            self.web(node, &mut config.web);
        }
        if let Some(node) = fields.get("security")
            && let Some(fields) = Fields::open(node, "`security`", SECURITY, self.reporter)
        {
            self.switch(&fields, "sandbox", &mut config.security.sandbox);
        }
        if let Some(node) = fields.get("log") {
            self.log(node, &mut config.log);
        }
        config
    }

    fn tags(&mut self, node: &Node<'_>, into: &mut TagsConfig) {
        let Some(fields) = Fields::open(node, "`tags`", TAGS, self.reporter) else {
            return;
        };
        into.paths = self.paths(&fields, "paths");
        self.switch(&fields, "accept_shrunk", &mut into.accept_shrunk);
    }

    fn capture(&mut self, node: &Node<'_>, into: &mut CaptureConfig) {
        let Some(fields) = Fields::open(node, "`capture`", CAPTURE, self.reporter) else {
            return;
        };
        self.choose(
            &fields,
            "backend",
            "back end",
            &BackendChoice::NAMES,
            &mut into.backend,
        );
        if let Some(node) = fields.get("interfaces") {
            let nodes = yaml::list(node, "interfaces", self.reporter);
            if nodes.is_empty() && !self.reporter.has_errors() {
                self.reporter.error(
                    "no-interfaces",
                    node.span,
                    "`interfaces` names nothing to watch: write names, globs, or `[auto]`",
                );
            }
            into.interfaces = nodes
                .iter()
                .filter_map(|node| self.interface(node))
                .collect();
        }
        if let Some(node) = fields.get("pcap") {
            self.pcap(node, &mut into.pcap);
        }
        if let Some(node) = fields.get("ebpf") {
            self.ebpf(node, &mut into.ebpf);
        }
    }

    fn interface(&mut self, node: &Node<'_>) -> Option<InterfacePattern> {
        let text = yaml::text(node, "interfaces", self.reporter)?;
        match text.parse() {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                self.reporter
                    .error("bad-interface", node.span, format!("{error}"));
                None
            }
        }
    }

    fn pcap(&mut self, node: &Node<'_>, into: &mut PcapOptions) {
        let Some(fields) = Fields::open(node, "`pcap`", PCAP, self.reporter) else {
            return;
        };
        into.filter = fields.string("filter", self.reporter);
        self.size(&fields, "snap_length", SNAP_LENGTH, &mut into.snap_length);
        self.size(&fields, "buffer_size", BUFFER_SIZE, &mut into.buffer_size);
        self.switch(&fields, "promiscuous", &mut into.promiscuous);
        if let Some(node) = fields.get("flows") {
            self.flows(node, &mut into.flows);
        }
    }

    fn ebpf(&mut self, node: &Node<'_>, into: &mut EbpfOptions) {
        let Some(fields) = Fields::open(node, "`ebpf`", EBPF, self.reporter) else {
            return;
        };
        self.choose(
            &fields,
            "attach",
            "way to attach",
            &Attach::NAMES,
            &mut into.attach,
        );
        if let Some(path) = fields
            .get("pin_directory")
            .and_then(|node| self.path(node, "pin_directory"))
        {
            into.pin_directory = path;
        }
        if let Some(node) = fields.get("flows") {
            self.flows(node, &mut into.flows);
        }
        self.choose(
            &fields,
            "on_exit",
            "behaviour at exit",
            &OnExit::NAMES,
            &mut into.on_exit,
        );
    }

    fn flows(&mut self, node: &Node<'_>, into: &mut FlowCapacity) {
        let Some(fields) = Fields::open(node, "`flows`", FLOWS, self.reporter) else {
            return;
        };
        for (key, into) in [
            ("verified", &mut into.verified),
            ("unverified", &mut into.unverified),
        ] {
            if let Some(number) = fields
                .get(key)
                .and_then(|node| yaml::whole_number(node, key, FLOW_CAPACITY, self.reporter))
            {
                *into = number;
            }
        }
    }

    fn names(&mut self, node: &Node<'_>, into: &mut NamesConfig) {
        let Some(fields) = Fields::open(node, "`names`", NAMES, self.reporter) else {
            return;
        };
        self.switch(&fields, "passive_dns", &mut into.passive_dns);
        self.switch(&fields, "hello", &mut into.hello);
        self.duration(&fields, "hold", HOLD, &mut into.hold);
        self.duration(&fields, "ttl_min", TTL, &mut into.ttl_min);
        self.duration(&fields, "ttl_max", TTL, &mut into.ttl_max);
        self.duration(&fields, "grace", GRACE, &mut into.grace);
        self.switch(&fields, "resolve", &mut into.resolve);
        for node in fields.list("resolvers", self.reporter) {
            let Some(text) = yaml::text(node, "resolvers", self.reporter) else {
                continue;
            };
            match parse_resolver(text) {
                Ok(address) => into.resolvers.push(address),
                Err(error) => self
                    .reporter
                    .error("bad-address", node.span, format!("{error}")),
            }
        }
    }

    fn ledger(&mut self, node: &Node<'_>, into: &mut LedgerConfig) {
        let Some(fields) = Fields::open(node, "`ledger`", LEDGER, self.reporter) else {
            return;
        };
        self.switch(&fields, "enabled", &mut into.enabled);
        self.duration(&fields, "retention", RETENTION, &mut into.retention);
        self.size(&fields, "max_size", LEDGER_SIZE, &mut into.max_size);
        self.duration(&fields, "window", WINDOW, &mut into.window);
    }

    fn events(&mut self, node: &Node<'_>, into: &mut EventsConfig) {
        let Some(fields) = Fields::open(node, "`events`", EVENTS, self.reporter) else {
            return;
        };
        self.duration(&fields, "interval", INTERVAL, &mut into.interval);
        into.json = fields.get("json").and_then(|node| self.json(node));
        into.syslog = fields.get("syslog").and_then(|node| self.syslog(node));
        into.otlp = fields.get("otlp").and_then(|node| self.otlp(node));
    }

    fn json(&mut self, node: &Node<'_>) -> Option<JsonConfig> {
        let fields = Fields::open(node, "`json`", JSON, self.reporter)?;
        let target = match EventTarget::of(fields.text("path", self.reporter)?) {
            EventTarget::File(path) => EventTarget::File(self.folder.join(path)),
            EventTarget::StandardOutput => EventTarget::StandardOutput,
        };
        let mut json = JsonConfig::to(target);
        self.size(&fields, "max_size", EVENT_FILE, &mut json.max_size);
        if let Some(keep) = fields
            .get("keep")
            .and_then(|node| yaml::whole_number(node, "keep", EVENT_FILES, self.reporter))
        {
            json.keep = keep;
        }
        Some(json)
    }

    fn syslog(&mut self, node: &Node<'_>) -> Option<SyslogConfig> {
        let fields = Fields::open(node, "`syslog`", SYSLOG, self.reporter)?;
        let mut syslog = SyslogConfig::default();
        if let Some(address) = self.parsed(&fields, "address") {
            syslog.address = address;
        }
        self.choose(
            &fields,
            "facility",
            "facility",
            &Facility::NAMES,
            &mut syslog.facility,
        );
        syslog.enterprise = fields
            .get("enterprise")
            .and_then(|node| yaml::whole_number(node, "enterprise", ENTERPRISE, self.reporter));
        let tls = matches!(syslog.address, SyslogAddress::Tls(..));
        syslog.tls = self.tls_files(&fields, tls, "tls://")?;
        Some(syslog)
    }

    fn otlp(&mut self, node: &Node<'_>) -> Option<OtlpConfig> {
        let fields = Fields::open(node, "`otlp`", OTLP, self.reporter)?;
        let endpoint: Option<OtlpEndpoint> = self.parsed(&fields, "endpoint");
        let mut protocol = OtlpProtocol::HttpProtobuf;
        let names = &OtlpProtocol::NAMES;
        self.choose(&fields, "protocol", "protocol", names, &mut protocol);
        let headers = fields
            .get("headers")
            .map_or_else(Vec::new, |node| self.headers(node));
        let mut otlp = OtlpConfig::to(endpoint?, protocol);
        otlp.headers = headers;
        self.duration(&fields, "timeout", OTLP_TIMEOUT, &mut otlp.timeout);
        otlp.tls = self.tls_files(&fields, otlp.endpoint.tls, "https://")?;
        if let (OtlpProtocol::Grpc, Some(path), Some(node)) =
            (protocol, &otlp.endpoint.path, fields.get("endpoint"))
        {
            self.reporter.error(
                "bad-address",
                node.span,
                format!(
                    "gRPC knows no path: leave `{path}` out, or write `protocol: http/protobuf`"
                ),
            );
        }
        Some(otlp)
    }

    /// Files for TLS, which only an address that begins with `scheme` has a use for.
    fn tls_files(&mut self, fields: &Fields<'_, '_>, used: bool, scheme: &str) -> Option<TlsFiles> {
        let Some(node) = fields.get("tls") else {
            return Some(TlsFiles::default());
        };
        if !used {
            self.reporter.error(
                "unused-tls",
                node.span,
                format!("TLS is spoken only where the address begins with `{scheme}`: write that, or leave `tls` out"),
            );
        }
        let fields = Fields::open(node, "`tls`", TLS_FILES, self.reporter)?;
        let mut file = |key| {
            let text = yaml::text(fields.get(key)?, key, self.reporter)?;
            Some(self.folder.join(text))
        };
        let (ca, certificate, key) = (file("ca"), file("certificate"), file("key"));
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                self.reporter.error(
                    "missing-key",
                    node.span,
                    "`certificate` and `key` belong together: write both or none".to_owned(),
                );
                None
            }
        };
        Some(TlsFiles { ca, identity })
    }

    fn headers(&mut self, node: &Node<'_>) -> Vec<Header> {
        let Value::Mapping(entries) = &node.value else {
            self.reporter.error(
                "wrong-type",
                node.span,
                format!(
                    "`headers` must be a mapping of names to values, not {}",
                    node.kind()
                ),
            );
            return Vec::new();
        };
        entries
            .iter()
            .filter_map(|(key, value)| self.header(key, value))
            .collect()
    }

    fn header(&mut self, key: &Node<'_>, value: &Node<'_>) -> Option<Header> {
        let name = yaml::text(key, "headers", self.reporter)?;
        let text = yaml::text(value, name, self.reporter)?;
        match (name.parse(), text.parse()) {
            (Ok(name), Ok(value)) => Some(Header { name, value }),
            (_, _) => {
                // The value may be a secret.
                self.reporter.error(
                    "bad-header",
                    key.span,
                    format!(
                        "`{name}` and its value are no header of HTTP: write one in printable ASCII"
                    ),
                );
                None
            }
        }
    }

    fn parsed<T>(&mut self, fields: &Fields<'_, '_>, key: &str) -> Option<T>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        let node = fields.get(key)?;
        match yaml::text(node, key, self.reporter)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.reporter
                    .error("bad-address", node.span, format!("{error}"));
                None
            }
        }
    }

    fn web(&mut self, node: &Node<'_>, into: &mut WebConfig) {
        let Some(fields) = Fields::open(node, "`web`", WEB, self.reporter) else {
            return;
        };
        if let Some(node) = fields.get("listen") {
            let nodes = yaml::list(node, "listen", self.reporter);
            into.listen = nodes.iter().filter_map(|node| self.listen(node)).collect();
        }
        into.config = fields
            .get("config")
            .and_then(|node| self.path(node, "config"));
        self.switch(&fields, "expose_flows", &mut into.expose_flows);
    }

    fn listen(&mut self, node: &Node<'_>) -> Option<SocketAddr> {
        let text = yaml::text(node, "listen", self.reporter)?;
        let address = text.parse().ok();
        if address.is_none() {
            self.reporter.error(
                "bad-address",
                node.span,
                format!(
                    "`{text}` is not an address to listen on: write `127.0.0.1:9871` or `\"[::1]:9871\"`"
                ),
            );
        }
        address
    }

    fn log(&mut self, node: &Node<'_>, into: &mut LogConfig) {
        let Some(fields) = Fields::open(node, "`log`", LOG, self.reporter) else {
            return;
        };
        self.choose(
            &fields,
            "level",
            "log level",
            &LogLevel::NAMES,
            &mut into.level,
        );
        self.choose(
            &fields,
            "format",
            "log format",
            &LogFormat::NAMES,
            &mut into.format,
        );
    }

    fn choose<T: Copy>(
        &mut self,
        fields: &Fields<'_, '_>,
        key: &str,
        what: &str,
        choices: &[(&str, T)],
        into: &mut T,
    ) {
        if let Some(value) = fields
            .get(key)
            .and_then(|node| yaml::choice(node, what, "unknown-value", choices, self.reporter))
        {
            *into = value;
        }
    }

    fn switch(&mut self, fields: &Fields<'_, '_>, key: &str, into: &mut bool) {
        self.choose(fields, key, "truth value", &TRUTH, into);
    }

    fn duration(
        &mut self,
        fields: &Fields<'_, '_>,
        key: &str,
        range: std::ops::RangeInclusive<Duration>,
        into: &mut Duration,
    ) {
        let Some(node) = fields.get(key) else {
            return;
        };
        let Some(text) = yaml::text(node, key, self.reporter) else {
            return;
        };
        match parse_duration(text, range) {
            Ok(duration) => *into = duration,
            Err(error) => {
                self.reporter
                    .error("bad-duration", node.span, format!("`{key}`: {error}"));
            }
        }
    }

    fn size(
        &mut self,
        fields: &Fields<'_, '_>,
        key: &str,
        range: std::ops::RangeInclusive<u32>,
        into: &mut u32,
    ) {
        let Some(node) = fields.get(key) else {
            return;
        };
        let Some(text) = yaml::text(node, key, self.reporter) else {
            return;
        };
        match parse_size(text, range) {
            Ok(size) => *into = size,
            Err(error) => self
                .reporter
                .error("bad-size", node.span, format!("`{key}`: {error}")),
        }
    }

    fn paths(&mut self, fields: &Fields<'_, '_>, key: &str) -> Vec<PathBuf> {
        fields
            .list(key, self.reporter)
            .iter()
            .filter_map(|node| yaml::text(node, key, self.reporter))
            .map(|text| self.folder.join(text))
            .collect()
    }

    fn path(&mut self, node: &Node<'_>, key: &str) -> Option<PathBuf> {
        yaml::text(node, key, self.reporter).map(|text| self.folder.join(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::tags::TagOptions;

    fn read(text: &str) -> ConfigReading {
        Config::read_text("flowproof.yaml", text, Path::new("/etc/flowproof"))
    }

    #[test]
    fn reads_every_key() {
        let reading = read(
            "matrix: [rules, /opt/more.yaml]\n\
             site: site.yaml\n\
             draft: [next, /opt/new.yaml]\n\
             draft_site: next-site.yaml\n\
             tags: {paths: [tags, /opt/own.txt], accept_shrunk: true}\n\
             state_directory: state\n\
             capture:\n  backend: pcap\n  interfaces: [eth0, 'br-*', auto]\n\
             \x20 pcap: {filter: not port 22, snap_length: 256, buffer_size: 4MiB, promiscuous: false, flows: {verified: 2048}}\n\
             \x20 ebpf: {attach: clsact, pin_directory: /sys/fs/bpf/x, on_exit: keep, flows: {verified: 1024, unverified: 4096}}\n\
             names: {passive_dns: false, hello: false, hold: 500ms, ttl_min: 30s, ttl_max: 2h, grace: 1d, resolve: true, resolvers: [192.0.2.53, '[2001:db8::53]:5353']}\n\
             ledger: {enabled: false, retention: 90d, max_size: 1GiB, window: 1h}\n\
             events:\n  interval: 10s\n  json: {path: events.json, max_size: 1MiB, keep: 3}\n\
             \x20 syslog: {address: 'tls://log.example', facility: local3, enterprise: 32473, tls: {ca: ca.pem}}\n\
             \x20 otlp: {endpoint: 'https://collector.example', protocol: grpc, headers: {authorization: Bearer x}, timeout: 2s, tls: {certificate: c.pem, key: /k.pem}}\n\
             web: {listen: ['127.0.0.1:1', '[::1]:2'], config: web.yaml, expose_flows: true}\n\
             log: {level: debug, format: json}\n",
        );
        assert_eq!(reading.findings.as_slice(), []);
        let config = reading.config.unwrap();
        assert_eq!(
            config.matrix,
            [
                Path::new("/etc/flowproof/rules"),
                Path::new("/opt/more.yaml")
            ]
        );
        assert_eq!(
            config.site.as_deref(),
            Some(Path::new("/etc/flowproof/site.yaml"))
        );
        assert_eq!(
            config.draft,
            [Path::new("/etc/flowproof/next"), Path::new("/opt/new.yaml")]
        );
        assert_eq!(
            config.draft_site.as_deref(),
            Some(Path::new("/etc/flowproof/next-site.yaml"))
        );
        assert_eq!(
            config.tag_options(),
            TagOptions {
                paths: vec![
                    PathBuf::from("/etc/flowproof/tags"),
                    PathBuf::from("/opt/own.txt")
                ],
                state_directory: Some(PathBuf::from("/etc/flowproof/state")),
                accept_shrunk: true,
            }
        );
        assert_eq!(config.capture.backend, BackendChoice::Pcap);
        let interfaces: Vec<_> = config
            .capture
            .interfaces
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(interfaces, ["eth0", "br-*", "auto"]);
        let pcap = &config.capture.pcap;
        assert_eq!(pcap.filter.as_deref(), Some("not port 22"));
        assert_eq!((pcap.snap_length, pcap.buffer_size), (256, 4 << 20));
        assert!(!pcap.promiscuous);
        assert_eq!(pcap.flows.verified, 2048);
        assert_eq!(pcap.flows.unverified, FlowCapacity::default().unverified);
        let ebpf = &config.capture.ebpf;
        assert_eq!((ebpf.attach, ebpf.on_exit), (Attach::Clsact, OnExit::Keep));
        assert_eq!(ebpf.pin_directory, Path::new("/sys/fs/bpf/x"));
        assert_eq!(ebpf.flows.unverified, 4096);
        assert_eq!(
            config.names,
            NamesConfig {
                passive_dns: false,
                hello: false,
                hold: Duration::from_millis(500),
                ttl_min: Duration::from_secs(30),
                ttl_max: Duration::from_secs(7_200),
                grace: Duration::from_secs(86_400),
                resolve: true,
                resolvers: vec![
                    "192.0.2.53:53".parse().unwrap(),
                    "[2001:db8::53]:5353".parse().unwrap(),
                ],
            }
        );
        assert_eq!(
            config.ledger,
            LedgerConfig {
                enabled: false,
                retention: Duration::from_secs(90 * 86_400),
                max_size: 1 << 30,
                window: Duration::from_secs(3_600),
            }
        );
        assert_eq!(
            config.events,
            EventsConfig {
                interval: Duration::from_secs(10),
                json: Some(JsonConfig {
                    target: EventTarget::File(PathBuf::from("/etc/flowproof/events.json")),
                    max_size: 1 << 20,
                    keep: 3,
                }),
                syslog: Some(SyslogConfig {
                    address: "tls://log.example:6514".parse().unwrap(),
                    facility: Facility::Local3,
                    enterprise: Some(32_473),
                    tls: TlsFiles {
                        ca: Some(PathBuf::from("/etc/flowproof/ca.pem")),
                        identity: None,
                    },
                }),
                otlp: Some(OtlpConfig {
                    endpoint: "https://collector.example".parse().unwrap(),
                    protocol: OtlpProtocol::Grpc,
                    headers: vec![Header {
                        name: "authorization".parse().unwrap(),
                        value: "Bearer x".parse().unwrap(),
                    }],
                    timeout: Duration::from_secs(2),
                    tls: TlsFiles {
                        ca: None,
                        identity: Some(Identity {
                            certificate: PathBuf::from("/etc/flowproof/c.pem"),
                            key: PathBuf::from("/k.pem"),
                        }),
                    },
                }),
            }
        );
        let listen: Vec<_> = config.web.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["127.0.0.1:1", "[::1]:2"]);
        assert_eq!(
            config.web.config.as_deref(),
            Some(Path::new("/etc/flowproof/web.yaml"))
        );
        assert!(config.web.expose_flows);
        assert_eq!(
            (config.log.level, config.log.format),
            (LogLevel::Debug, LogFormat::Json)
        );
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let reading = read("log: {level: info}\n");
        assert_eq!(reading.config, Some(Config::default()));
    }

    #[test]
    fn the_example_says_what_the_defaults_are() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/flowproof.yaml");
        let reading = Config::read(Path::new(path)).unwrap();
        assert_eq!(reading.findings.as_slice(), []);
        assert_eq!(reading.config, Some(Config::default()));
    }

    #[test]
    fn events_may_go_to_standard_output() {
        let reading = read("events: {json: {path: '-'}, syslog: {}}\n");
        let events = reading.config.unwrap().events;
        assert_eq!(
            events.json,
            Some(JsonConfig::to(EventTarget::StandardOutput))
        );
        assert_eq!(events.syslog, Some(SyslogConfig::default()));
    }

    #[test]
    fn a_window_may_be_short_and_not_shorter() {
        let window = |text: &str| {
            let reading = read(&format!("matrix: [a]\nledger: {{window: {text}}}\n"));
            reading.config.map(|config| config.ledger.window)
        };
        assert_eq!(window("10s"), Some(Duration::from_secs(10)));
        assert_eq!(window("9s"), None);
    }

    #[test]
    fn all_errors_come_at_once_with_their_places() {
        let reading = read(
            "matrixx: [a]\n\
             site: s.yaml\n\
             capture:\n  backend: xdp\n  interfaces: [\"a b\"]\n  pcap: {snap_length: 1TB, promiscuous: maybe}\n  ebpf: {flows: {verified: 3}}\n\
             names: {hold: 61s, grace: 5, resolve: maybe, resolvers: [dns.example.org]}\n\
             web: {listen: [localhost], expose_flows: yes}\n\
             log: {levle: info}\n\
             ledger: {enabled: 1, retention: 1m, max_size: 1MiB, window: 32d}\n\
             events:\n  json: {keep: 0}\n  syslog: {address: x, facility: mail}\n  otlp: {endpoint: 'grpc://c', headers: {'a b': c}}\n",
        );
        assert_eq!(reading.config, None);
        let got: Vec<_> = reading
            .findings
            .as_slice()
            .iter()
            .map(|finding| format!("{} {}:{}", finding.code, finding.line, finding.column))
            .collect();
        assert_eq!(
            got,
            [
                "unknown-key 1:1",
                "unknown-value 4:12",
                "bad-interface 5:16",
                "bad-size 6:23",
                "unknown-value 6:41",
                "wrong-type 7:28",
                "bad-duration 8:15",
                "bad-duration 8:27",
                "unknown-value 8:39",
                "bad-address 8:58",
                "bad-address 9:16",
                "unknown-value 9:42",
                "unknown-key 10:7",
                "unknown-value 11:19",
                "bad-duration 11:33",
                "bad-size 11:47",
                "bad-duration 11:61",
                "missing-key 13:9",
                "bad-address 14:21",
                "unknown-value 14:34",
                "bad-address 15:20",
                "bad-header 15:42",
            ]
        );
    }

    #[test]
    fn what_does_not_go_together_at_a_destination_is_an_error() {
        let check = |events: &str, expect: &[&str]| {
            let reading = read(&format!("matrix: [a]\nevents: {{{events}}}\n"));
            let findings = reading.findings.as_slice().iter();
            let codes: Vec<_> = findings.map(|finding| finding.code).collect();
            assert_eq!(codes, expect, "{events}");
        };
        check(
            "otlp: {endpoint: 'http://c/x', protocol: grpc}",
            &["bad-address"],
        );
        check(
            "otlp: {endpoint: 'http://c', protocol: http}",
            &["unknown-value"],
        );
        check(
            "otlp: {endpoint: 'http://c', tls: {ca: a}}",
            &["unused-tls"],
        );
        check(
            "otlp: {endpoint: 'https://c', tls: {key: a}}",
            &["missing-key"],
        );
        check("syslog: {address: 'tcp://c', tls: {}}", &["unused-tls"]);
        check(
            "syslog: {address: 'tls://c', tls: {cert: a}}",
            &["unknown-key"],
        );
    }
}
