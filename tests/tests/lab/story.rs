//! A deployment as operators live through it, with one daemon that watches: day 0, a deployment of which two rows are blocked, a
//! daemon that is killed, the firewall mended, traffic that nobody expected, and a row that falls silent for its window. The
//! report at each step is a golden file beside this one, in `story/`.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use flowproof_tests::daemon::{Backend, Daemon, LISTEN, Setup, binary, run_to_end};
use flowproof_tests::lab::{self, Routed, TO_CLIENT, TO_SERVER, client4, server4};
use flowproof_tests::metrics::Metrics;
use flowproof_tests::traffic::{Manner, Server, echo_tcp, exchange, serve_udp};
use serde_json::Value;

const MATRIX: &str = "
system: shop
title: Shop
version: '7'
roles: {client: {title: Client}, web: {title: Web server}, db: {title: Database}}
requirements:
  - {id: browse, from: client, to: web, services: [tcp/8000], purpose: pages, provenance: {section: Clients, row: 1}}
  - {id: call, from: client, to: web, services: [tcp/8001], purpose: calls of the application, provenance: {section: Clients, row: 2}}
  - {id: resolve, from: client, to: web, services: [udp/53], provenance: {section: Clients, row: 3}}
  - {id: query, from: client, to: db, services: [tcp/5432], purpose: reports, provenance: {section: Database, row: 1}}
  - {id: backup, from: db, to: client, services: [tcp/9000], necessity: optional, provenance: {section: Database, row: 2}}
";
const SITE: &str = "
site: hq
systems: [shop]
roles: {shop/client: [10.20.0.2], shop/web: [10.1.0.10], shop/db: [10.1.0.11]}
";
/// How far back states look. A row that has fallen silent is one this long after its last answer.
const WINDOW: Duration = Duration::from_secs(15);
/// How long a step may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the deployment's programs do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Browse,
    Call,
    Resolve,
    Query,
}

/// The deployment: uses what it is told to, again and again, as programs do that are left alone.
struct Deployment {
    uses: Arc<Mutex<Vec<Use>>>,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _servers: Vec<Server>,
}

impl Deployment {
    fn start(lab: &Routed) -> Result<Self> {
        let mut servers = Vec::new();
        for address in [
            (server4(10), 8000),
            (server4(10), 8001),
            (server4(11), 5432),
            (server4(10), 2222),
        ] {
            servers.push(echo_tcp(lab.server.listen(address)?)?);
        }
        servers.push(serve_udp(lab.server.udp((server4(10), 53))?, Manner::Echo)?);
        let uses = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::new(AtomicBool::new(false));
        // One each: who waits for an answer does not keep the others.
        let threads = [Use::Browse, Use::Call, Use::Resolve, Use::Query]
            .map(|of| {
                let (uses, ends) = (Arc::clone(&uses), Arc::clone(&ends));
                let client = Arc::clone(&lab.client);
                thread::spawn(move || {
                    while !ends.load(Ordering::Relaxed) {
                        let wanted: Vec<Use> =
                            uses.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        if wanted.contains(&of) {
                            // What fails is what the daemon is to find out.
                            let _ = perform(&client, of);
                        }
                        thread::sleep(Duration::from_millis(700));
                    }
                })
            })
            .into();
        Ok(Self {
            uses,
            ends,
            threads,
            _servers: servers,
        })
    }

    fn set(&self, uses: &[Use]) {
        *self.uses.lock().unwrap_or_else(PoisonError::into_inner) = uses.to_vec();
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn perform(client: &flowproof_tests::host::Host, of: Use) -> Result<()> {
    let (to, port) = match of {
        Use::Browse => (server4(10), 8000),
        Use::Call => (server4(10), 8001),
        Use::Query => (server4(11), 5432),
        Use::Resolve => {
            let socket = client.udp((client4(2), 0))?;
            socket.connect((server4(10), 53))?;
            flowproof_tests::traffic::ask(&socket, b"a question", Duration::from_secs(1))?;
            return Ok(());
        }
    };
    // Long enough for a SYN to be sent again, without which silence proves nothing.
    let from = Some((client4(2), 0).into());
    let mut stream = client.connect(from, (to, port), Duration::from_millis(4_500))?;
    Ok(exchange(&mut stream, b"hello")?)
}

#[test]
fn a_deployment_and_its_reports_ebpf() -> Result<()> {
    story("a_deployment_and_its_reports_ebpf", Backend::Ebpf)
}

#[test]
fn a_deployment_and_its_reports_pcap() -> Result<()> {
    story("a_deployment_and_its_reports_pcap", Backend::Pcap)
}

fn story(test: &str, backend: Backend) -> Result<()> {
    if lab::skipped(test) {
        return Ok(());
    }
    let lab = Routed::new()?;
    let config = format!("ledger: {{window: {}s}}\n", WINDOW.as_secs());
    let mut daemon = Daemon::start(
        &lab.router,
        &Setup {
            backend,
            matrix: MATRIX,
            site: SITE,
            config: &config,
            interfaces: &[TO_CLIENT, TO_SERVER],
        },
    )?;
    let deployment = Deployment::start(&lab)?;
    let source = format!("--daemon=http://{LISTEN}");
    let tell = |daemon: &Daemon, step: &str| hold(&lab, daemon, backend, step, &source);

    let nothing = "browse silent, call silent, resolve silent, query silent, backup silent";
    wait(&daemon, nothing)?;
    tell(&daemon, "1-day-0")?;

    // The server's own firewall swallows the calls, the router's says that it prohibits the queries.
    lab.server.filter("input", &["tcp dport 8001 drop"])?;
    lab.router.filter(
        "forward",
        &["tcp dport 5432 reject with icmp type admin-prohibited"],
    )?;
    deployment.set(&[Use::Browse, Use::Call, Use::Resolve, Use::Query]);
    wait(
        &daemon,
        "browse verified, call blocked no_answer at path, resolve verified, query blocked prohibited at hop 10.20.0.1, backup silent",
    )?;
    // One failure may be chance; a report says so by its confidence.
    let failed = fail_again(&daemon, [0.0; 2], 2.0)?;
    tell(&daemon, "2-deployed")?;

    // What is older than that is on the disk.
    thread::sleep(Duration::from_secs(5));
    daemon.kill()?;
    daemon.start_again()?;
    // Counters in the kernel went on; libpcap's did not, so that what was never seen may have been missed. What was seen
    // before is remembered in both cases.
    let backup = match backend {
        Backend::Pcap => "backup unknown not_watched",
        Backend::Ebpf | Backend::Auto => "backup silent",
    };
    let seen = states(&daemon)?;
    let expected = format!(
        "browse verified, call blocked no_answer at path, resolve verified, query blocked prohibited at hop 10.20.0.1, {backup}"
    );
    assert_eq!(seen, expected, "right after the restart");
    // What happened to single flows is told by events, of which the killed daemon's are gone.
    let before = match backend {
        Backend::Pcap => [0.0; 2],
        Backend::Ebpf | Backend::Auto => failed,
    };
    fail_again(&daemon, before, 2.0)?;
    tell(&daemon, "3-killed-and-restarted")?;

    lab.server.nft("flush ruleset")?;
    lab.router.nft("flush ruleset")?;
    wait(
        &daemon,
        "browse verified, call verified, resolve verified, query verified, backup silent",
    )?;
    tell(&daemon, "4-mended")?;

    let mut strange = Vec::new();
    for _ in 0..3 {
        let from = Some((client4(2), 0).into());
        let mut stream = lab
            .client
            .connect(from, (server4(10), 2222), Duration::from_secs(2))?;
        exchange(&mut stream, b"hello")?;
        strange.push(stream);
    }
    let drift = |daemon: &Daemon| -> Result<bool> {
        let (_, seen) = daemon.wait_metrics(Duration::from_secs(10), |metrics| {
            metrics.sum(
                "flowproof_unexpected_flows_total",
                &[("service", "tcp/2222")],
            ) >= 3.0
        })?;
        Ok(seen)
    };
    assert!(drift(&daemon)?, "three flows that nobody expected");
    tell(&daemon, "5-drift")?;
    drop(strange);

    deployment.set(&[Use::Call, Use::Resolve, Use::Query]);
    let stopped = Instant::now();
    wait(
        &daemon,
        "browse silent, call verified, resolve verified, query verified, backup silent",
    )?;
    // Not before its window was over: the last flow may have been up to a second before.
    assert!(
        stopped.elapsed() > WINDOW - Duration::from_secs(2),
        "silent after {:?}",
        stopped.elapsed()
    );
    tell(&daemon, "6-silent")?;

    // What the ledger tells when nobody is left to ask.
    thread::sleep(Duration::from_secs(5));
    daemon.kill()?;
    hold(&lab, &daemon, backend, "7-ledger", "--ledger=state")
}

/// Waits until each of the two blocked rows has failed so many times more; how often that was in all.
fn fail_again(daemon: &Daemon, before: [f64; 2], more: f64) -> Result<[f64; 2]> {
    let failures = |metrics: &Metrics| {
        [
            ("call", "tcp/8001", "no_answer"),
            ("query", "tcp/5432", "prohibited"),
        ]
        .map(|(row, service, outcome)| {
            metrics.sum(
                "flowproof_requirement_flows_total",
                &[
                    ("requirement", row),
                    ("service", service),
                    ("outcome", outcome),
                ],
            )
        })
    };
    let enough = |metrics: &Metrics| {
        let now = failures(metrics);
        now[0] >= before[0] + more && now[1] >= before[1] + more
    };
    let (metrics, done) = daemon.wait_metrics(PATIENCE, enough)?;
    if !done {
        bail!("no {more} failures more than {before:?}");
    }
    Ok(failures(&metrics))
}

/// The rows as the API tells them: `browse verified, call blocked no_answer at path`.
fn states(daemon: &Daemon) -> Result<String> {
    let got = daemon.get("/api/v1/requirements")?;
    let rows: Vec<Value> = serde_json::from_str(&got.body)
        .with_context(|| format!("/api/v1/requirements: {} {}", got.status, got.body))?;
    let row = |row: &Value| {
        let mut text = row["id"].as_str()?.strip_prefix("shop/")?.to_owned();
        text.push(' ');
        text.push_str(row["state"].as_str()?);
        if let Some(cause) = row["cause"].as_str() {
            text.push(' ');
            text.push_str(cause);
        }
        if let Some(place) = row["place"].as_str() {
            text.push_str(" at ");
            text.push_str(place);
        }
        Some(text)
    };
    let rows: Option<Vec<String>> = rows.iter().map(row).collect();
    Ok(rows.context("a row without id or state")?.join(", "))
}

fn wait(daemon: &Daemon, expected: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let seen = states(daemon)?;
        if seen == expected {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!(
                "after {PATIENCE:?}\n  expected {expected}\n  got      {seen}\n{}",
                daemon.stderr()
            );
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Holds a report from `source` to its golden file.
fn hold(lab: &Routed, daemon: &Daemon, backend: Backend, step: &str, source: &str) -> Result<()> {
    let mut command = Command::new(binary());
    command
        .current_dir(daemon.folder())
        .args(["report", "--matrix", "matrix.yaml", "--site", "site.yaml"])
        .arg(source);
    let output = lab
        .router
        .run(|| run_to_end(&mut command, Duration::from_secs(20)))?;
    assert!(output.status.success(), "{output:?}");
    let got = without_chance(&String::from_utf8(output.stdout)?);
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/lab/story")
        .join(format!("{step}-{}.txt", backend.name()));
    if std::env::var_os("FLOWPROOF_UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().context("a path")?)?;
        std::fs::write(&path, &got)?;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if got != expected {
        bail!(
            "the report differs from {}; if that is meant, run the test with FLOWPROOF_UPDATE_GOLDEN=1:\n{got}",
            path.display()
        );
    }
    Ok(())
}

/// A report without what differs from run to run: times, and how often the deployment had tried by then.
fn without_chance(report: &str) -> String {
    let is_time = |word: &str| word.len() >= 20 && word.starts_with("20") && word.ends_with('Z');
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let mut text = String::new();
    for line in report.lines() {
        // How many rows are in which state is no chance.
        let counts = !line.contains(" requirements: ");
        let words = line.split(' ').map(|word| {
            let start = word.trim_start_matches('(');
            let bare = start.trim_end_matches([',', ';', ')']);
            if is_time(bare) {
                word.replace(bare, "TIME")
            } else if counts && is_number(bare) {
                word.replace(bare, "N")
            } else {
                word.to_owned()
            }
        });
        let line = words
            .collect::<Vec<_>>()
            .join(" ")
            .replace("N SYN,", "N SYNs,");
        // Flows that follow each other closely may have the same time.
        let line = match &*line {
            "    at TIME" => "    first TIME, last TIME".to_owned(),
            _ => line,
        };
        // How often it was sent again differs, and with it how many lines say so.
        let ticket = text.rsplit("\n\n").next().unwrap_or_default();
        if !line.starts_with("    Evidence:") || !ticket.lines().any(|said| said == line) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}
