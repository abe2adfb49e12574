//! The published shape of a configuration file, for the JSON Schema that editors use.
#![expect(dead_code, reason = "the types are never built, only described")]

use std::collections::BTreeMap;

use schemars::JsonSchema;

/// How `flowproof run` watches, judges and reports. Flags override the file; paths are relative to the file's folder.
#[derive(JsonSchema)]
#[schemars(title = "flowproof configuration", deny_unknown_fields)]
pub(super) struct ConfigFile {
    /// Matrix files, or folders of them. Without any, the built-in matrix of a Linux host is used.
    matrix: Option<Vec<String>>,
    /// The site file, which binds the roles of the matrix to addresses.
    site: Option<String>,
    /// A draft of the matrix, files or folders of them: live traffic is judged by it too, and told what it would change. A
    /// system in it takes the place of the one with its id.
    draft: Option<Vec<String>>,
    /// The site file of the draft, if it is not the one in force.
    draft_site: Option<String>,
    /// What the service tags stand for that the site and the matrix name.
    tags: Option<TagsSection>,
    /// Folder for what is to outlive the daemon.
    state_directory: Option<String>,
    /// Where packets come from.
    capture: Option<CaptureSection>,
    /// Where names of addresses come from.
    names: Option<NamesSection>,
    /// The evidence that is kept in the state directory.
    ledger: Option<LedgerSection>,
    /// What happens, as a stream.
    events: Option<EventsSection>,
    /// The web server.
    web: Option<WebSection>,
    /// What the daemon takes from itself once it watches.
    security: Option<SecuritySection>,
    /// What is logged to standard error.
    log: Option<LogSection>,
}

/// What the service tags stand for.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TagsSection {
    /// Files of Azure, AWS or Microsoft 365, lists of prefixes as text, or folders of such files (*.json, *.txt).
    paths: Option<Vec<String>>,
    /// Whether files are taken that shrank by more than half since they were last read.
    accept_shrunk: Option<bool>,
}

/// Where packets come from.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct CaptureSection {
    /// `auto` takes the kernel programs where they load, else libpcap.
    backend: Option<BackendText>,
    /// Names, globs, or `auto`: everything up, loopback only if a requirement needs it.
    #[schemars(length(min = 1))]
    interfaces: Option<Vec<String>>,
    /// What only libpcap needs to know.
    pcap: Option<PcapSection>,
    /// What only the kernel programs need to know.
    ebpf: Option<EbpfSection>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", inline)]
enum BackendText {
    Auto,
    Ebpf,
    Pcap,
}

/// Options of the libpcap back end.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct PcapSection {
    /// A filter expression as pcap-filter(7) describes it.
    filter: Option<String>,
    /// Bytes kept of each packet, 64 to 262144.
    snap_length: Option<Size>,
    /// Bytes of the kernel's buffer for each interface, 64KiB to 1GiB.
    buffer_size: Option<Size>,
    /// Whether packets for other hosts are taken too; needed on a mirror port.
    promiscuous: Option<bool>,
    /// Room in the flow tables.
    flows: Option<FlowsSection>,
}

/// Options of the kernel programs.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct EbpfSection {
    /// `auto` takes TCX where the kernel has it (6.6 and later), else clsact.
    attach: Option<AttachText>,
    /// Folder on a bpffs where programs, links and maps are pinned.
    pin_directory: Option<String>,
    /// Room in the flow tables.
    flows: Option<FlowsSection>,
    /// Whether the programs go with the daemon, or stay for the next one to adopt.
    on_exit: Option<OnExitText>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", inline)]
enum AttachText {
    Auto,
    Tcx,
    Clsact,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", inline)]
enum OnExitText {
    Detach,
    Keep,
}

/// Flows that the two tables have room for.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FlowsSection {
    /// Expected flows that were answered.
    #[schemars(range(min = 1024, max = 16_777_216))]
    verified: Option<u32>,
    /// All others.
    #[schemars(range(min = 1024, max = 16_777_216))]
    unverified: Option<u32>,
}

/// Where names of addresses come from, and how long they hold.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct NamesSection {
    /// Whether answers of DNS servers are read from the captured traffic.
    passive_dns: Option<bool>,
    /// Whether names are read from the heads of TLS, QUIC and HTTP/1 conversations.
    hello: Option<bool>,
    /// How long a flow whose verdict depends on a name waits for it, 0s to 1m.
    hold: Option<DurationText>,
    /// A shorter time to live of an answer counts as this one, at most 7d.
    ttl_min: Option<DurationText>,
    /// A longer time to live of an answer counts as this one, at most 7d.
    ttl_max: Option<DurationText>,
    /// How long an address stands for a name after its time to live, at most 1d.
    grace: Option<DurationText>,
    /// Whether the exact names that the matrix needs are asked for.
    resolve: Option<bool>,
    /// Whom to ask: IP addresses, with a port other than 53 as `192.0.2.53:5353`. Empty: this host's own resolvers.
    resolvers: Option<Vec<String>>,
}

/// A whole number with ms, s, m, h or d.
#[derive(JsonSchema)]
#[schemars(transparent)]
struct DurationText(#[schemars(regex(pattern = r"^[0-9]+ *([Mm]?[Ss]|[MmHhDd])$"))] String);

/// The evidence that is kept in the state directory.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct LedgerSection {
    /// Whether any is kept.
    enabled: Option<bool>,
    /// How long flow records by the hour are kept, 1h to 3650d.
    retention: Option<DurationText>,
    /// Bytes of the file and its log, 8MiB to 3GiB. The oldest flow records go first.
    max_size: Option<Size>,
    /// How far back the state of a requirement looks, 10s to 31d.
    window: Option<DurationText>,
}

/// Where events go; `flowproof schema event` has their shape.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct EventsSection {
    /// How long unexpected flows of a known kind are summed up, 1s to 1h.
    interval: Option<DurationText>,
    /// JSON Lines, to a file or to standard output.
    json: Option<JsonSection>,
    /// Syslog (RFC 5424).
    syslog: Option<SyslogSection>,
    /// OpenTelemetry logs, over HTTP or gRPC.
    otlp: Option<OtlpSection>,
}

/// JSON Lines.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct JsonSection {
    /// The file, or `-` for standard output.
    path: String,
    /// Bytes that the file may have until it is renamed to `FILE.1`, 64KiB to 3GiB.
    max_size: Option<Size>,
    /// Renamed files that are kept.
    #[schemars(range(min = 1, max = 100))]
    keep: Option<u32>,
}

/// A syslog server.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct SyslogSection {
    /// `unix:///dev/log`, `udp://HOST:PORT`, `tcp://HOST:PORT` with octet counting, or `tls://HOST:PORT`.
    #[schemars(regex(pattern = r"^(unix|udp|tcp|tls)://"))]
    address: Option<String>,
    /// What messages are filed under.
    facility: Option<FacilityText>,
    /// Your private enterprise number: the fields are structured data under it too.
    #[schemars(range(min = 1))]
    enterprise: Option<u32>,
    /// Files for TLS.
    tls: Option<TlsFilesSection>,
}

/// Files for TLS, PEM; they are read for each connection.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TlsFilesSection {
    /// Certificates of the authorities that the peer's may come from; without, those of the system.
    ca: Option<String>,
    /// The daemon's own certificate with those that lead to its authority, if the peer wants one.
    certificate: Option<String>,
    /// The private key of that.
    key: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", inline)]
enum FacilityText {
    Daemon,
    Auth,
    Local0,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

/// An OpenTelemetry collector.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct OtlpSection {
    /// `http://HOST:PORT` or `https://HOST:PORT`, with a path if it is HTTP and not `/v1/logs`.
    #[schemars(regex(pattern = r"^https?://"))]
    endpoint: String,
    /// How it is spoken to.
    protocol: Option<OtlpProtocolText>,
    /// Headers that every request has, such as `authorization`.
    headers: Option<BTreeMap<String, String>>,
    /// How long a request may take, 1s to 1m.
    timeout: Option<DurationText>,
    /// Files for TLS.
    tls: Option<TlsFilesSection>,
}

#[derive(JsonSchema)]
#[schemars(inline)]
enum OtlpProtocolText {
    #[schemars(rename = "http/protobuf")]
    HttpProtobuf,
    #[schemars(rename = "http/json")]
    HttpJson,
    #[schemars(rename = "grpc")]
    Grpc,
}

/// The web server.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct WebSection {
    /// Addresses with ports; an empty list switches the server off. Beyond loopback only metrics and health are served to
    /// those who did not prove who they are.
    listen: Option<Vec<String>>,
    /// Who may ask, and by what TLS: a web configuration file of Prometheus' exporter-toolkit.
    config: Option<String>,
    /// Whether flows are served beyond loopback to anybody.
    expose_flows: Option<bool>,
}

/// What the daemon takes from itself once it watches.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct SecuritySection {
    /// Whether it confines itself, to the capabilities, files and system calls that it still needs. The default is true.
    sandbox: Option<bool>,
}

/// What is logged to standard error.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct LogSection {
    /// The least severe level that is logged.
    level: Option<LevelText>,
    /// `text` for people and journald, `json` for one object a line.
    format: Option<FormatText>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", inline)]
enum LevelText {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", inline)]
enum FormatText {
    Text,
    Json,
}

/// Bytes, or a whole number with KiB, MiB, GiB, KB, MB or GB.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Size {
    Bytes(u32),
    WithUnit(#[schemars(regex(pattern = r"^[0-9]+ *([KkMmGg][Ii]?[Bb]|[Bb])?$"))] String),
}

/// The JSON Schema of configuration files.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(ConfigFile)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::read::{
        CAPTURE, CONFIG, EBPF, EVENTS, FLOWS, JSON, LEDGER, LOG, NAMES, OTLP, PCAP, SECURITY,
        SYSLOG, TAGS, TLS_FILES, WEB,
    };
    use super::super::{
        Attach, BackendChoice, Facility, LogFormat, LogLevel, OnExit, OtlpProtocol,
    };
    use super::*;
    use crate::yaml::Keys;

    fn check(schema: &serde_json::Value, keys: Keys) {
        let properties: BTreeSet<&str> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(properties, keys.all().collect());
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn schema_and_reader_know_the_same_keys() {
        check(schemars::schema_for!(ConfigFile).as_value(), CONFIG);
        check(schemars::schema_for!(TagsSection).as_value(), TAGS);
        check(schemars::schema_for!(CaptureSection).as_value(), CAPTURE);
        check(schemars::schema_for!(PcapSection).as_value(), PCAP);
        check(schemars::schema_for!(EbpfSection).as_value(), EBPF);
        check(schemars::schema_for!(FlowsSection).as_value(), FLOWS);
        check(schemars::schema_for!(NamesSection).as_value(), NAMES);
        check(schemars::schema_for!(LedgerSection).as_value(), LEDGER);
        check(schemars::schema_for!(EventsSection).as_value(), EVENTS);
        check(schemars::schema_for!(JsonSection).as_value(), JSON);
        check(schemars::schema_for!(SyslogSection).as_value(), SYSLOG);
        check(schemars::schema_for!(OtlpSection).as_value(), OTLP);
        check(schemars::schema_for!(TlsFilesSection).as_value(), TLS_FILES);
        check(schemars::schema_for!(WebSection).as_value(), WEB);
        check(schemars::schema_for!(SecuritySection).as_value(), SECURITY);
        check(schemars::schema_for!(LogSection).as_value(), LOG);
    }

    #[test]
    fn schema_and_reader_know_the_same_texts() {
        fn check<T: JsonSchema, V>(names: &[(&str, V)]) {
            let schema = schemars::schema_for!(T);
            let texts: Vec<&str> = schema.as_value()["enum"]
                .as_array()
                .unwrap()
                .iter()
                .map(|text| text.as_str().unwrap())
                .collect();
            assert_eq!(
                texts,
                names.iter().map(|(name, _)| *name).collect::<Vec<_>>()
            );
        }
        check::<BackendText, _>(&BackendChoice::NAMES);
        check::<AttachText, _>(&Attach::NAMES);
        check::<OnExitText, _>(&OnExit::NAMES);
        check::<FacilityText, _>(&Facility::NAMES);
        check::<OtlpProtocolText, _>(&OtlpProtocol::NAMES);
        check::<LevelText, _>(&LogLevel::NAMES);
        check::<FormatText, _>(&LogFormat::NAMES);
    }
}
