//! `flowproof run`: the daemon. Flags override the configuration file, at the start and at every reload.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use tracing::level_filters::LevelFilter;

use super::{Error, Outcome, print_error, snippet};
use crate::capture::CaptureError;
use crate::capture::open::{self, Opened};
use crate::config::{
    Attach, BUFFER_SIZE, BackendChoice, CaptureConfig, Config, EventTarget, HOLD, InterfacePattern,
    JsonConfig, LogConfig, LogFormat, LogLevel, OnExit, SNAP_LENGTH, parse_duration,
    parse_resolver, parse_size,
};
use crate::draft::DraftError;
use crate::engine::daemon::{self, ConfigError, ConfigSource, DaemonError};
use crate::engine::policy::PolicyError;
use crate::events::Events;
use crate::matrix::installed::Installed;
use crate::web::GateError;
use crate::{names, privilege, web};

/// How long threads that are busy with files may keep the process from ending.
const LEAVE: Duration = Duration::from_millis(100);

/// Arguments of `flowproof run`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Arguments {
    /// Configuration file; flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Matrix file or folder, repeatable; without any, the built-in matrix of a Linux host
    #[arg(long, value_name = "PATH", num_args = 1..)]
    matrix: Vec<PathBuf>,
    /// Site file, which binds the roles of the matrix to addresses
    #[arg(long, value_name = "FILE")]
    site: Option<PathBuf>,
    /// Judge by this draft of the matrix too, file or folder, repeatable; a system in it takes the place of the one with
    /// its id
    #[arg(long, value_name = "PATH", num_args = 1..)]
    draft: Vec<PathBuf>,
    /// Site file of the draft [default: that of --site]
    #[arg(long, value_name = "FILE")]
    draft_site: Option<PathBuf>,
    /// Service tags, repeatable: a provider's file, or a folder of them (*.json, *.txt)
    #[arg(long, value_name = "PATH")]
    tags: Vec<PathBuf>,
    /// Take files of service tags that shrank by more than half
    #[arg(long)]
    accept_shrunk_tags: bool,
    /// Folder for what is to outlive the daemon [default: /var/lib/flowproof]
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// Back end: kernel programs, libpcap, or the first of them that works [default: auto]
    #[arg(long, value_name = "BACKEND", value_parser = named(&BackendChoice::NAMES))]
    capture: Option<BackendChoice>,
    /// Interface to watch, repeatable: a name, a glob, or `auto` for everything up [default: auto]
    #[arg(long, value_name = "NAME")]
    interface: Vec<InterfacePattern>,
    /// Packet filter as pcap-filter(7) describes it (libpcap only)
    #[arg(long, value_name = "EXPRESSION")]
    bpf_filter: Option<String>,
    /// Bytes kept of each packet (libpcap only) [default: 2048]
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| parse_size(text, SNAP_LENGTH))]
    snap_length: Option<u32>,
    /// Buffer in the kernel for each interface (libpcap only) [default: 16MiB]
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| parse_size(text, BUFFER_SIZE))]
    buffer_size: Option<u32>,
    /// Take only packets from and to this host's own hardware addresses (libpcap only)
    #[arg(long)]
    no_promiscuous: bool,
    /// How kernel programs are attached [default: auto]
    #[arg(long, value_name = "HOW", value_parser = named(&Attach::NAMES))]
    attach: Option<Attach>,
    /// Folder on a bpffs for pinned programs and maps [default: /sys/fs/bpf/flowproof]
    #[arg(long, value_name = "FOLDER")]
    pin_dir: Option<PathBuf>,
    /// Leave the kernel programs attached and counting at the end, for the next daemon to adopt
    #[arg(long)]
    keep_attached: bool,
    /// Ask for the exact names that the matrix needs, and follow where they move
    #[arg(long)]
    resolve: bool,
    /// Resolver to ask, repeatable, implies --resolve; without any, this host's own
    #[arg(long, value_name = "ADDRESS", value_parser = parse_resolver)]
    resolver: Vec<SocketAddr>,
    /// How long a flow whose verdict depends on a name waits for it [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = |text: &str| parse_duration(text, HOLD))]
    name_hold: Option<Duration>,
    /// File that gets an event a line in JSON; `-` is standard output
    #[arg(long, value_name = "FILE")]
    events: Option<String>,
    /// Keep all capabilities, files and system calls that this user has
    #[arg(long)]
    no_sandbox: bool,
    /// Address to serve on, repeatable [default: 127.0.0.1:9871]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Web configuration file as of Prometheus' exporter-toolkit: TLS, client certificates, users
    #[arg(long, value_name = "FILE")]
    web_config: Option<PathBuf>,
    /// Serve flows beyond loopback to anybody, without authentication
    #[arg(long)]
    web_expose_flows: bool,
    /// Least severe level that is logged [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = named(&LogLevel::NAMES))]
    log_level: Option<LogLevel>,
    /// How a log line looks [default: text]
    #[arg(long, value_name = "FORMAT", value_parser = named(&LogFormat::NAMES))]
    log_format: Option<LogFormat>,
}

/// A parser of the texts that the configuration file takes too.
fn named<T: Copy + Send + Sync + 'static>(
    names: &'static [(&'static str, T)],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names.iter().map(|(name, _)| *name)).try_map(move |text| {
        names
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, value)| *value)
            .ok_or("not a known value")
    })
}

impl Arguments {
    fn override_in(&self, config: &mut Config) {
        fn set<T: Clone>(from: Option<&T>, into: &mut T) {
            if let Some(value) = from {
                into.clone_from(value);
            }
        }
        if !self.matrix.is_empty() {
            config.matrix.clone_from(&self.matrix);
        }
        if self.site.is_some() {
            config.site.clone_from(&self.site);
        }
        if !self.draft.is_empty() {
            config.draft.clone_from(&self.draft);
        }
        if self.draft_site.is_some() {
            config.draft_site.clone_from(&self.draft_site);
        }
        if !self.tags.is_empty() {
            config.tags.paths.clone_from(&self.tags);
        }
        if self.accept_shrunk_tags {
            config.tags.accept_shrunk = true;
        }
        set(self.state_dir.as_ref(), &mut config.state_directory);
        let capture = &mut config.capture;
        set(self.capture.as_ref(), &mut capture.backend);
        if !self.interface.is_empty() {
            capture.interfaces.clone_from(&self.interface);
        }
        if self.bpf_filter.is_some() {
            capture.pcap.filter.clone_from(&self.bpf_filter);
        }
        set(self.snap_length.as_ref(), &mut capture.pcap.snap_length);
        set(self.buffer_size.as_ref(), &mut capture.pcap.buffer_size);
        if self.no_promiscuous {
            capture.pcap.promiscuous = false;
        }
        set(self.attach.as_ref(), &mut capture.ebpf.attach);
        set(self.pin_dir.as_ref(), &mut capture.ebpf.pin_directory);
        if self.keep_attached {
            capture.ebpf.on_exit = OnExit::Keep;
        }
        let names = &mut config.names;
        if self.resolve || !self.resolver.is_empty() {
            names.resolve = true;
        }
        if !self.resolver.is_empty() {
            names.resolvers.clone_from(&self.resolver);
        }
        set(self.name_hold.as_ref(), &mut names.hold);
        if let Some(text) = &self.events {
            let target = EventTarget::of(text);
            match &mut config.events.json {
                Some(json) => json.target = target,
                None => config.events.json = Some(JsonConfig::to(target)),
            }
        }
        if !self.listen.is_empty() {
            config.web.listen.clone_from(&self.listen);
        }
        if self.no_sandbox {
            config.security.sandbox = false;
        }
        if self.web_config.is_some() {
            config.web.config.clone_from(&self.web_config);
        }
        if self.web_expose_flows {
            config.web.expose_flows = true;
        }
        set(self.log_level.as_ref(), &mut config.log.level);
        set(self.log_format.as_ref(), &mut config.log.format);
    }
}

/// Runs the daemon until a signal ends it. A matrix or a site with errors is [`Outcome::FallsShort`].
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let flags = arguments.clone();
    let source = ConfigSource {
        path: arguments.config.clone(),
        overrides: Arc::new(move |config| flags.override_in(config)),
    };
    let config = match source.load() {
        Ok(config) => config,
        Err(error) => {
            if let ConfigError::Findings(findings) = &error {
                print_error(|out| snippet::write(findings, out))?;
            }
            return Err(Error::Config(error));
        }
    };
    log_to_stderr(config.log);
    // First of all: what a thread may do is what its maker could.
    if config.security.sandbox {
        let web_files = config.web.config.as_deref().map(web::config::files);
        let named = web_files.unwrap_or_default();
        privilege::enter(&config, arguments.config.as_deref(), &named);
    }
    let events = privilege::bare(|| Events::start(&config.events, standard_output))
        .map_err(DaemonError::Events)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("web")
        .on_thread_start(privilege::shed)
        .enable_io()
        .enable_time()
        .build()
        .map_err(|source| DaemonError::System {
            action: "starting threads",
            source,
        })?;
    let ended = runtime.block_on(daemon::run(config, source, open_and_lower, events));
    // A reload that is still reading files is of no use any more.
    runtime.shutdown_timeout(LEAVE);
    privilege::tidy();
    match ended {
        Ok(()) => Ok(Outcome::Fine),
        Err(
            DaemonError::Policy(PolicyError::Findings(findings))
            | DaemonError::Draft(DraftError::Findings { findings, .. }),
        ) => {
            print_error(|out| snippet::write(&findings, out))?;
            Ok(Outcome::FallsShort)
        }
        Err(DaemonError::Policy(PolicyError::Compile(error))) => {
            print_error(|out| writeln!(out, "flowproof: {error}"))?;
            Ok(Outcome::FallsShort)
        }
        Err(error) => {
            // The file has secrets, so its lines are not shown.
            if let DaemonError::Web(GateError::Findings(findings)) = &error {
                print_error(|out| {
                    findings
                        .errors()
                        .try_for_each(|finding| writeln!(out, "{finding}"))
                })?;
            }
            Err(Error::Daemon(error))
        }
    }
}

/// Opens the back end, and gives up what only others need.
fn open_and_lower(
    config: &CaptureConfig,
    names: &names::Settings,
    matrix: &Installed,
) -> Result<Opened, CaptureError> {
    let opened = open::open(config, names, matrix)?;
    privilege::keep_for(opened.capture.backend());
    Ok(opened)
}

/// Standard output without a buffer, for whom it is a pipe that somebody reads.
fn standard_output() -> std::io::Result<File> {
    Ok(File::from(std::io::stdout().as_fd().try_clone_to_owned()?))
}

fn log_to_stderr(config: LogConfig) {
    let level = match config.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(false)
        .with_writer(std::io::stderr);
    // It fails only where a test has set another one.
    let _ = match config.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(flags: &[&str]) -> Result<Config, clap::Error> {
        let line = Line::try_parse_from(std::iter::once("run").chain(flags.iter().copied()))?;
        let mut config = Config::default();
        line.arguments.override_in(&mut config);
        Ok(config)
    }

    #[test]
    fn without_flags_nothing_is_overridden() {
        assert_eq!(parse(&[]).unwrap(), Config::default());
    }

    #[test]
    fn every_flag_overrides_its_key() {
        let config = parse(&[
            "--matrix",
            "a.yaml",
            "b.yaml",
            "--matrix",
            "c.yaml",
            "--site",
            "s.yaml",
            "--draft",
            "d.yaml",
            "e",
            "--draft-site",
            "ds.yaml",
            "--tags",
            "t.json",
            "--tags",
            "own",
            "--accept-shrunk-tags",
            "--state-dir",
            "/s",
            "--capture",
            "pcap",
            "--interface",
            "eth0",
            "--interface",
            "br-*",
            "--bpf-filter",
            "tcp",
            "--snap-length",
            "256",
            "--buffer-size",
            "1MiB",
            "--no-promiscuous",
            "--attach",
            "clsact",
            "--pin-dir",
            "/p",
            "--keep-attached",
            "--resolve",
            "--resolver",
            "192.0.2.53",
            "--resolver",
            "[2001:db8::53]:5353",
            "--name-hold",
            "2s",
            "--events",
            "-",
            "--no-sandbox",
            "--listen",
            "[::1]:1",
            "--web-config",
            "w.yaml",
            "--web-expose-flows",
            "--log-level",
            "warn",
            "--log-format",
            "json",
        ])
        .unwrap();
        assert_eq!(config.matrix.len(), 3);
        assert_eq!(config.site, Some(PathBuf::from("s.yaml")));
        assert_eq!(config.draft, ["d.yaml", "e"].map(PathBuf::from));
        assert_eq!(config.draft_site, Some(PathBuf::from("ds.yaml")));
        assert_eq!(config.tags.paths, ["t.json", "own"].map(PathBuf::from));
        assert!(config.tags.accept_shrunk);
        assert_eq!(config.state_directory, PathBuf::from("/s"));
        let capture = &config.capture;
        assert_eq!(capture.backend, BackendChoice::Pcap);
        assert_eq!(capture.interfaces.len(), 2);
        assert_eq!(capture.pcap.filter.as_deref(), Some("tcp"));
        assert_eq!(
            (capture.pcap.snap_length, capture.pcap.buffer_size),
            (256, 1 << 20)
        );
        assert!(!capture.pcap.promiscuous);
        assert_eq!(
            (capture.ebpf.attach, capture.ebpf.on_exit),
            (Attach::Clsact, OnExit::Keep)
        );
        assert_eq!(capture.ebpf.pin_directory, PathBuf::from("/p"));
        assert!(config.names.resolve);
        assert_eq!(
            config.names.resolvers,
            [
                "192.0.2.53:53".parse().unwrap(),
                "[2001:db8::53]:5353".parse().unwrap()
            ]
        );
        assert_eq!(config.names.hold, Duration::from_secs(2));
        assert_eq!(
            config.events.json,
            Some(JsonConfig::to(EventTarget::StandardOutput))
        );
        assert!(!config.security.sandbox);
        assert_eq!(config.web.listen, ["[::1]:1".parse().unwrap()]);
        assert_eq!(config.web.config, Some(PathBuf::from("w.yaml")));
        assert!(config.web.expose_flows);
        assert_eq!(
            (config.log.level, config.log.format),
            (LogLevel::Warn, LogFormat::Json)
        );
    }

    #[test]
    fn naming_a_resolver_asks_for_resolution() {
        assert!(parse(&["--resolver", "::1"]).unwrap().names.resolve);
        assert!(!parse(&["--name-hold", "0s"]).unwrap().names.resolve);
    }

    #[test]
    fn bad_values_are_refused_with_the_remedy() {
        let check = |flags: &[&str], part: &str| {
            let error = parse(flags).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check(&["--capture", "xdp"], "ebpf");
        check(&["--interface", "a b"], "is not the name of an interface");
        check(&["--snap-length", "1"], "64 to 262144");
        check(
            &["--resolver", "localhost"],
            "is not the address of a resolver",
        );
        check(&["--name-hold", "2m"], "use 0s to 1m");
        check(&["--listen", "localhost"], "invalid socket address");
    }
}
