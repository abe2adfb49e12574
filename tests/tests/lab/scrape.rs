//! Metrics as Prometheus takes them: the real one scrapes a running daemon, in gzip as it asks for, and promtool reads the
//! scrape. Series of a requirement are there at 0 before anything happens, and go with it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::host::wait_for;
use flowproof_tests::http;
use flowproof_tests::lab::{self, Routed, TO_CLIENT, TO_SERVER};
use flowproof_tests::skip;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

const SITE: &str = "
site: hq
systems: [lab]
roles: {lab/client: [10.20.0.2], lab/server: [10.1.0.10]}
";
const PROMETHEUS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9_090);
const SOON: Duration = Duration::from_secs(30);

fn matrix(rows: &[&str]) -> String {
    let rows: String = rows
        .iter()
        .map(|row| {
            format!("  - {{id: {row}, from: client, to: server, services: [tcp/8000, icmp]}}\n")
        })
        .collect();
    format!("system: lab\ntitle: Lab\nroles: {{client: {{}}, server: {{}}}}\nrequirements:\n{rows}")
}

/// The one number that Prometheus answers a query with; nothing if there is no series.
fn query(lab: &Routed, text: &str) -> Option<f64> {
    let path = format!("/api/v1/query?query={text}");
    let got = http::get(&lab.router, PROMETHEUS, &path).ok()?;
    let answer: Value = serde_json::from_str(&got.body).ok()?;
    answer["data"]["result"][0]["value"][1]
        .as_str()?
        .parse()
        .ok()
}

struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let ended = wait_for(SOON, || self.0.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

#[test]
fn prometheus_takes_every_series_and_sees_rows_come_and_go() -> Result<()> {
    const TEST: &str = "prometheus_takes_every_series_and_sees_rows_come_and_go";
    if lab::skipped(TEST) {
        return Ok(());
    }
    let found = Command::new("prometheus")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        skip::skip(TEST, "prometheus is missing: `apt-get install prometheus`");
        return Ok(());
    }
    let lab = Routed::new()?;
    let rows = ["first", "second"];
    let matrix_text = matrix(&rows);
    let setup = Setup {
        backend: Backend::Auto,
        matrix: &matrix_text,
        site: SITE,
        config: "events: {json: {path: events.json}}\n",
        interfaces: &[TO_CLIENT, TO_SERVER],
    };
    let daemon = Daemon::start(&lab.router, &setup)?;

    // All is there before anything happened.
    let scrape = daemon.get("/metrics")?;
    for row in rows {
        for service in ["tcp/8000", "icmp"] {
            let labels = [("requirement", row), ("service", service)];
            let metrics = daemon.metrics()?;
            for (name, series) in [
                ("flowproof_requirement_attempts_total", 1),
                ("flowproof_requirement_flows_total", 8),
                ("flowproof_requirement_packets_total", 2),
                ("flowproof_requirement_bytes_total", 2),
                ("flowproof_requirement_last_answered_timestamp_seconds", 1),
                ("flowproof_requirement_last_attempt_timestamp_seconds", 1),
            ] {
                let samples: Vec<_> = metrics.matching(name, &labels).collect();
                assert_eq!(samples.len(), series, "{name} {row} {service}");
                assert!(
                    samples.iter().all(|sample| sample.value == 0.0),
                    "{samples:?}"
                );
            }
        }
    }
    promtool(&scrape.body)?;

    let folder = TempDir::with_prefix("flowproof-prometheus-")?;
    let config = folder.path().join("prometheus.yml");
    fs::write(
        &config,
        "global: {scrape_interval: 1s}\nscrape_configs:\n- {job_name: flowproof, static_configs: [{targets: ['127.0.0.1:9871']}]}\n",
    )?;
    let log = fs::File::create(folder.path().join("log"))?;
    let _prometheus = Running(
        lab.router.start(
            Command::new("prometheus")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    folder.path().join("data").display()
                ))
                .arg(format!("--web.listen-address={PROMETHEUS}"))
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log),
        )?,
    );
    let said = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    let up = wait_for(SOON, || query(&lab, "up").filter(|up| *up == 1.0));
    up.with_context(|| format!("Prometheus can't scrape the daemon:\n{}", said()))?;

    // As many samples as lines of the text. A summary counts as two, as there; a scrape may bring what is new.
    let lines = scrape
        .body
        .lines()
        .filter(|line| !line.starts_with('#'))
        .count();
    let taken = query(&lab, "scrape_samples_scraped").context("no samples")?;
    ensure!(
        (taken - lines as f64).abs() <= 2.0,
        "{taken} samples of {lines} lines"
    );
    let named =
        query(&lab, "count({__name__=~%22flowproof_.%2b|process_.%2b%22})").context("no series")?;
    ensure!(
        (named - lines as f64).abs() <= 2.0,
        "{named} series of {lines} lines"
    );
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "flowproof_round_duration_seconds_count",
    ] {
        ensure!(query(&lab, name).is_some_and(|value| value > 0.0), "{name}");
    }

    // A row goes, and another comes: so do their series, at once.
    daemon.reload("matrix.yaml", &matrix(&["second", "third"]))?;
    let row = |name: &str| query(&lab, &format!("count({{requirement=%22{name}%22}})"));
    let gone = wait_for(SOON, || row("first").is_none().then_some(()));
    ensure!(
        gone.is_some(),
        "the series of a row that is gone are still there: {:?}",
        row("first")
    );
    let came = wait_for(SOON, || row("third"));
    assert_eq!(came, row("second"));
    let zero = query(
        &lab,
        "sum(flowproof_requirement_flows_total{requirement=%22third%22})",
    );
    assert_eq!(zero, Some(0.0));
    promtool(&daemon.get("/metrics")?.body)
}

fn promtool(scrape: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), scrape)?;
    let output = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(fs::File::open(file.path())?)
        .output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(
        output.status.success() && said.is_empty(),
        "promtool: {said}"
    );
    Ok(())
}
