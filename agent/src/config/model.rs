//! The valid configuration, and the default of every value, each in one place.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use globset::{Glob, GlobMatcher};

use super::events::EventsConfig;
use super::units::Written;
use crate::ledger::Limits;
use crate::site::tags::TagOptions;

/// Longest interface name in bytes (`IFNAMSIZ` in `linux/if.h`, without the final zero).
const MAX_INTERFACE_NAME: usize = 15;

/// Where a daemon keeps what is to outlive it unless it is told otherwise.
pub const STATE_DIRECTORY: &str = "/var/lib/flowproof";

/// Everything that `flowproof run` can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Matrix files and folders. Empty: the built-in matrix of a Linux host.
    pub matrix: Vec<PathBuf>,
    /// The site file.
    pub site: Option<PathBuf>,
    /// Files and folders of a draft of the matrix, by which flows are judged too. Empty: there is none.
    pub draft: Vec<PathBuf>,
    /// The site file of the draft, if it is not the one in force.
    pub draft_site: Option<PathBuf>,
    /// The service tags.
    pub tags: TagsConfig,
    /// Folder for what is to outlive the daemon; made when it is needed.
    pub state_directory: PathBuf,
    /// Where packets come from.
    pub capture: CaptureConfig,
    /// Where names of addresses come from.
    pub names: NamesConfig,
    /// The evidence that is kept.
    pub ledger: LedgerConfig,
    /// Where events go.
    pub events: EventsConfig,
    /// The web server.
    pub web: WebConfig,
    /// What the daemon takes from itself.
    pub security: SecurityConfig,
    /// What is logged to standard error.
    pub log: LogConfig,
}

/// What `tag:NAME` stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagsConfig {
    /// Files of providers, and folders of them.
    pub paths: Vec<PathBuf>,
    /// Whether files are taken that shrank by more than half.
    pub accept_shrunk: bool,
}

/// Where packets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureConfig {
    /// Which back end.
    pub backend: BackendChoice,
    /// On which interfaces; never empty.
    pub interfaces: Vec<InterfacePattern>,
    /// What only libpcap needs to know.
    pub pcap: PcapOptions,
    /// What only the kernel programs need to know.
    pub ebpf: EbpfOptions,
}

/// Which back end is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// Kernel programs where they load, else libpcap.
    Auto,
    /// Kernel programs.
    Ebpf,
    /// libpcap.
    Pcap,
}

impl BackendChoice {
    /// The texts of configuration and flags.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("auto", Self::Auto),
        ("ebpf", Self::Ebpf),
        ("pcap", Self::Pcap),
    ];
}

/// Options of the libpcap back end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcapOptions {
    /// A filter expression as `pcap-filter(7)` describes it; none takes every packet.
    pub filter: Option<String>,
    /// Bytes kept of each packet, 64 to 262,144. Verdicts by name read the heads of conversations too.
    pub snap_length: u32,
    /// Bytes of the kernel's buffer for each interface, 64 KiB to 1 GiB.
    pub buffer_size: u32,
    /// Whether the interface takes packets for other hosts too; needed on a mirror port.
    pub promiscuous: bool,
    /// Room in the flow tables.
    pub flows: FlowCapacity,
}

/// Options of the kernel programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EbpfOptions {
    /// How the programs are attached.
    pub attach: Attach,
    /// Folder on a bpffs where programs, links and maps are pinned.
    pub pin_directory: PathBuf,
    /// Room in the flow tables.
    pub flows: FlowCapacity,
    /// What becomes of the programs when the daemon is told to end.
    pub on_exit: OnExit,
}

/// Flows that the two tables have room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowCapacity {
    /// Expected flows that were answered, at least 1,024.
    pub verified: u32,
    /// All others, which a flood can fill, at least 1,024.
    pub unverified: u32,
}

/// How kernel programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// TCX where the kernel has it (6.6 and later), else clsact.
    Auto,
    /// TCX.
    Tcx,
    /// A clsact queueing discipline.
    Clsact,
}

impl Attach {
    /// The texts of configuration and flags.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("auto", Self::Auto),
        ("tcx", Self::Tcx),
        ("clsact", Self::Clsact),
    ];
}

/// What becomes of kernel programs when the daemon is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// They go with it.
    Detach,
    /// They stay, go on counting, and the next daemon adopts them: for upgrades.
    Keep,
}

impl OnExit {
    /// The texts of the configuration.
    pub const NAMES: [(&'static str, Self); 2] = [("detach", Self::Detach), ("keep", Self::Keep)];
}

/// Where names of addresses come from, and how long they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamesConfig {
    /// Whether answers of DNS servers are read from the captured traffic.
    pub passive_dns: bool,
    /// Whether names are read from the heads of TLS, QUIC and HTTP/1 conversations.
    pub hello: bool,
    /// How long a flow whose verdict depends on a name waits for it, 0 s to 60 s.
    pub hold: Duration,
    /// A shorter time to live counts as this one, 0 s to 7 days.
    pub ttl_min: Duration,
    /// A longer time to live counts as this one, 0 s to 7 days.
    pub ttl_max: Duration,
    /// How long an address stands for a name after its time to live, 0 s to 1 day: clients keep using it.
    pub grace: Duration,
    /// Whether the exact names that the matrix needs are asked for.
    pub resolve: bool,
    /// Whom to ask; empty: the resolvers of this host.
    pub resolvers: Vec<SocketAddr>,
}

/// The evidence that is kept in the state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerConfig {
    /// Whether any is kept.
    pub enabled: bool,
    /// How long hourly flow records are kept, 1 hour to 10 years.
    pub retention: Duration,
    /// Bytes of the file and its log, 8 MiB to 3 GiB.
    pub max_size: u32,
    /// How far back the state of a requirement looks, 10 seconds to 31 days.
    pub window: Duration,
}

/// The text is no resolver's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the address of a resolver: write an IP address such as `192.0.2.53`, with a port other than 53 as `192.0.2.53:5353` or `[2001:db8::53]:5353`"
)]
pub struct ResolverAddressError(pub String);

/// Port of DNS servers (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

/// Reads an IP address, with port 53, or an address with a port.
///
/// # Errors
/// [`ResolverAddressError`] names the text and what to write. Nobody can be asked at an unspecified address or port 0.
pub fn parse_resolver(text: &str) -> Result<SocketAddr, ResolverAddressError> {
    text.parse::<IpAddr>()
        .map(|address| SocketAddr::new(address, DNS_PORT))
        .or_else(|_| text.parse())
        .ok()
        .filter(|address| !address.ip().is_unspecified() && address.port() != 0)
        .ok_or_else(|| ResolverAddressError(text.to_owned()))
}

/// The web server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebConfig {
    /// Addresses to listen on; empty switches the server off.
    pub listen: Vec<SocketAddr>,
    /// Who may ask, and by what TLS: a file with the keys of Prometheus' exporter-toolkit.
    pub config: Option<PathBuf>,
    /// Whether flows are served beyond loopback to anybody.
    pub expose_flows: bool,
}

/// What the daemon takes from itself once it watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecurityConfig {
    /// Whether it confines itself: capabilities, files, system calls.
    pub sandbox: bool,
}

/// What is logged to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// The least severe level that is logged.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Something does not work.
    Error,
    /// Something should be mended.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The texts of configuration and flags.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and journald.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The texts of configuration and flags.
    pub const NAMES: [(&'static str, Self); 2] = [("text", Self::Text), ("json", Self::Json)];
}

macro_rules! name_of {
    ($($type:ty),+) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let name = Self::NAMES.iter().find(|(_, value)| value == self).map_or("?", |(name, _)| name);
                formatter.pad(name)
            }
        }
    )+};
}

name_of!(BackendChoice, Attach, OnExit, LogLevel, LogFormat);

/// Which interfaces are watched: one entry of `interfaces`.
#[derive(Debug, Clone)]
pub enum InterfacePattern {
    /// Every interface that is up; loopback only if a requirement needs it.
    Auto,
    /// One interface. It must exist at the start; later it may vanish and come back.
    Name(String),
    /// Every interface whose name the glob matches, loopback included; none need exist.
    Glob(GlobMatcher),
}

impl PartialEq for InterfacePattern {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for InterfacePattern {}

/// Why a text names no interfaces.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The text can't be an interface's name.
    #[error(
        "`{0}` is not the name of an interface: it has 1 to {MAX_INTERFACE_NAME} characters without `/`, `:` and blanks; write a name, a glob such as `eth*`, or `auto`"
    )]
    Name(String),
    /// The text is no valid glob.
    #[error("`{text}` is not a glob: {reason}; `*`, `?` and `[a-z]` are known")]
    Glob {
        /// The text as it was written.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl FromStr for InterfacePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let bad = |character: char| {
            character == '/'
                || character == ':'
                || character.is_whitespace()
                || character.is_control()
        };
        if text.is_empty() || text.chars().any(bad) {
            return Err(PatternError::Name(text.to_owned()));
        }
        if text.contains(['*', '?', '[', '{']) {
            return Glob::new(text)
                .map(|glob| Self::Glob(glob.compile_matcher()))
                .map_err(|error| PatternError::Glob {
                    text: text.to_owned(),
                    reason: error.kind().to_string(),
                });
        }
        if text.len() > MAX_INTERFACE_NAME {
            return Err(PatternError::Name(text.to_owned()));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.pad("auto"),
            Self::Name(name) => formatter.pad(name),
            Self::Glob(glob) => formatter.pad(glob.glob().glob()),
        }
    }
}

/// Why values that are valid on their own can't go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// A site without a matrix.
    #[error("a site binds the roles of a matrix: give the matrix too (`matrix:` or --matrix)")]
    SiteWithoutMatrix,
    /// A packet filter for the kernel programs.
    #[error(
        "a packet filter needs the back end `pcap`, the kernel programs see every packet: use --capture pcap, or remove the filter"
    )]
    FilterWithoutPcap,
    /// The bounds of the time to live cross.
    #[error(
        "`names: {{ttl_min: {}}}` is longer than `ttl_max: {}`: lower the one or raise the other",
        Written(*.ttl_min),
        Written(*.ttl_max)
    )]
    CrossedTtl {
        /// The lower bound.
        ttl_min: Duration,
        /// The upper bound.
        ttl_max: Duration,
    },
}

impl Config {
    /// Checks what can only be checked once flags have overridden the file.
    ///
    /// # Errors
    /// [`Conflict`] names the two values.
    pub fn check(&self) -> Result<(), Conflict> {
        if self.site.is_some() && self.matrix.is_empty() {
            return Err(Conflict::SiteWithoutMatrix);
        }
        if self.capture.pcap.filter.is_some() && self.capture.backend == BackendChoice::Ebpf {
            return Err(Conflict::FilterWithoutPcap);
        }
        let NamesConfig {
            ttl_min, ttl_max, ..
        } = self.names;
        if ttl_min > ttl_max {
            return Err(Conflict::CrossedTtl { ttl_min, ttl_max });
        }
        Ok(())
    }
}

impl Config {
    /// How much the ledger may hold.
    #[must_use]
    pub fn ledger_limits(&self) -> Limits {
        Limits {
            retention: self.ledger.retention,
            max_size: self.ledger.max_size.into(),
            window: self.ledger.window,
            ..Limits::default()
        }
    }

    /// The service tags, as they are read.
    #[must_use]
    pub fn tag_options(&self) -> TagOptions {
        TagOptions {
            paths: self.tags.paths.clone(),
            state_directory: Some(self.state_directory.clone()),
            accept_shrunk: self.tags.accept_shrunk,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            matrix: Vec::new(),
            site: None,
            draft: Vec::new(),
            draft_site: None,
            tags: TagsConfig::default(),
            state_directory: PathBuf::from(STATE_DIRECTORY),
            capture: CaptureConfig {
                backend: BackendChoice::Auto,
                interfaces: vec![InterfacePattern::Auto],
                pcap: PcapOptions::default(),
                ebpf: EbpfOptions::default(),
            },
            names: NamesConfig::default(),
            ledger: LedgerConfig::default(),
            events: EventsConfig::default(),
            web: WebConfig {
                listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 9871))],
                config: None,
                expose_flows: false,
            },
            security: SecurityConfig { sandbox: true },
            log: LogConfig {
                level: LogLevel::Info,
                format: LogFormat::Text,
            },
        }
    }
}

impl Default for PcapOptions {
    fn default() -> Self {
        Self {
            filter: None,
            // A whole packet of an Ethernet inside a tunnel: names stand in DNS answers and ClientHellos.
            snap_length: 2048,
            buffer_size: 16 * 1024 * 1024,
            promiscuous: true,
            flows: FlowCapacity::default(),
        }
    }
}

impl Default for NamesConfig {
    fn default() -> Self {
        Self {
            passive_dns: true,
            hello: true,
            hold: Duration::from_secs(10),
            ttl_min: Duration::ZERO,
            ttl_max: Duration::from_secs(3_600),
            grace: Duration::from_secs(300),
            // Whoever only observes asks nobody unless told to.
            resolve: false,
            resolvers: Vec::new(),
        }
    }
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            retention: Duration::from_secs(14 * 86_400),
            max_size: 512 << 20,
            window: Duration::from_secs(86_400),
        }
    }
}

impl Default for EbpfOptions {
    fn default() -> Self {
        Self {
            attach: Attach::Auto,
            pin_directory: PathBuf::from("/sys/fs/bpf/flowproof"),
            flows: FlowCapacity::default(),
            on_exit: OnExit::Detach,
        }
    }
}

impl Default for FlowCapacity {
    /// About 28 MiB of kernel memory.
    fn default() -> Self {
        Self {
            verified: 131_072,
            unverified: 65_536,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_does_not_go_together() {
        let mut config = Config::default();
        assert_eq!(config.check(), Ok(()));
        config.capture.pcap.filter = Some("tcp".to_owned());
        assert_eq!(config.check(), Ok(()));
        config.capture.backend = BackendChoice::Ebpf;
        assert_eq!(config.check(), Err(Conflict::FilterWithoutPcap));
        config.site = Some(PathBuf::from("site.yaml"));
        assert_eq!(config.check(), Err(Conflict::SiteWithoutMatrix));
    }

    #[test]
    fn refuses_a_least_time_to_live_above_the_greatest() {
        let mut config = Config::default();
        config.names.ttl_min = config.names.ttl_max;
        assert_eq!(config.check(), Ok(()));
        config.names.ttl_min += Duration::from_millis(1);
        let error = config.check().unwrap_err().to_string();
        assert!(
            error.contains("`names: {ttl_min: 3600001ms}` is longer than `ttl_max: 1h`"),
            "{error}"
        );
    }

    #[test]
    fn reads_addresses_of_resolvers() {
        let check = |text: &str, expect: Option<&str>| match (parse_resolver(text), expect) {
            (Ok(address), Some(expect)) => assert_eq!(address.to_string(), expect),
            (Err(error), None) => {
                assert!(error.to_string().starts_with(&format!("`{text}` is not")));
            }
            (got, expect) => panic!("{text}: got {got:?}, expected {expect:?}"),
        };
        check("192.0.2.53", Some("192.0.2.53:53"));
        check("192.0.2.53:5353", Some("192.0.2.53:5353"));
        check("2001:db8::53", Some("[2001:db8::53]:53"));
        check("[2001:db8::53]:5353", Some("[2001:db8::53]:5353"));
        check("dns.example.org", None);
        check("192.0.2.53:0", None);
        check("192.0.2.53:99999", None);
        check("0.0.0.0", None);
        check("::", None);
        check("", None);
    }

    #[test]
    fn reads_interface_patterns() {
        let check =
            |text: &str, expect: Result<(), &str>| match (text.parse::<InterfacePattern>(), expect)
            {
                (Ok(pattern), Ok(())) => assert_eq!(pattern.to_string(), text),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, expect) => panic!("{text}: got {got:?}, expected {expect:?}"),
            };
        check("auto", Ok(()));
        check("eth0", Ok(()));
        check("eth0.100", Ok(()));
        check("br-*", Ok(()));
        check("en[op]*", Ok(()));
        check("", Err("is not the name"));
        check("eth0:1", Err("is not the name"));
        check("a b", Err("is not the name"));
        check("sixteen-letters-", Err("1 to 15"));
        check("eth[0", Err("is not a glob"));
    }
}
