//! The ledger of a running daemon: what a `kill -9` costs, what a full disk and a second daemon do, and that it can be read all
//! the while.

use std::fs;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use flowproof_tests::daemon::{Backend, Daemon, Setup, binary, run_to_end};
use flowproof_tests::host::{Host, wait_for};
use flowproof_tests::lab::{self, Routed, TO_CLIENT, TO_SERVER, client4, server4};
use flowproof_tests::traffic::{echo_tcp, exchange};
use serde_json::Value;

const MATRIX: &str = "
system: lab
title: Lab
roles: {client: {title: Client}, server: {title: Server}}
requirements:
  - {id: open, from: client, to: server, services: [tcp/8000]}
";
const SITE: &str = "
site: lab
systems: [lab]
roles: {lab/client: [10.20.0.2], lab/server: [10.1.0.10]}
";
/// What may be lost of the time before a `kill -9`.
const MAY_BE_LOST: Duration = Duration::from_secs(5);

fn setup(backend: Backend) -> Setup<'static> {
    Setup {
        backend,
        matrix: MATRIX,
        site: SITE,
        config: "",
        interfaces: &[TO_CLIENT, TO_SERVER],
    }
}

#[test]
fn a_killed_daemon_loses_five_seconds_at_most_ebpf() -> Result<()> {
    killed(
        "a_killed_daemon_loses_five_seconds_at_most_ebpf",
        Backend::Ebpf,
    )
}

#[test]
fn a_killed_daemon_loses_five_seconds_at_most_pcap() -> Result<()> {
    killed(
        "a_killed_daemon_loses_five_seconds_at_most_pcap",
        Backend::Pcap,
    )
}

fn killed(test: &str, backend: Backend) -> Result<()> {
    if lab::skipped(test) {
        return Ok(());
    }
    let lab = Routed::new()?;
    let _server = echo_tcp(lab.server.listen((server4(10), 8000))?)?;
    let mut daemon = Daemon::start(&lab.router, &setup(backend))?;
    // A flow every 100 ms, each with the time at which it was over.
    let done: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let mut deaths = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let (client, list) = (&lab.client, &done);
        let traffic = scope.spawn(move || -> Result<()> {
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(16) {
                connect(client, 8000)?;
                let now = Instant::now();
                list.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(now);
                thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        });
        // At moments that have nothing to do with when it writes.
        for pause in [7_300, 2_170] {
            thread::sleep(Duration::from_millis(pause));
            let death = Instant::now();
            daemon.kill()?;
            deaths.push((death, answered(&lab.router, &daemon)?));
            daemon.start_again()?;
        }
        traffic.join().map_err(|_| anyhow::anyhow!("traffic"))?
    })?;
    let done = done.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let over = |until: Instant| done.iter().filter(|time| **time <= until).count() as u64;
    let (first, remembered) = deaths[0];
    assert!(
        (over(first - MAY_BE_LOST)..=over(first) + 1).contains(&remembered),
        "{remembered} of {}, of which {} were older than {MAY_BE_LOST:?}",
        over(first),
        over(first - MAY_BE_LOST)
    );
    assert!(over(first - MAY_BE_LOST) > 10, "too little to tell");
    // By the kernel's counters nothing is ever lost. By libpcap, what passed while no daemon ran, and twice five seconds.
    if backend == Backend::Ebpf {
        let all = done.len() as u64;
        let told = wait_for(Duration::from_secs(10), || {
            let told = answered(&lab.router, &daemon).ok()?;
            (told == all).then_some(told)
        });
        assert_eq!(told, Some(all), "{:?}", answered(&lab.router, &daemon));
    }
    let hours = explain(&lab.router, &daemon)?;
    assert!(hours.contains("10.20.0.2"), "{hours}");
    Ok(())
}

/// Runs the binary where the daemon's files are.
fn flowproof(host: &Host, daemon: &Daemon, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary());
    command.current_dir(daemon.folder()).args(arguments);
    host.run(|| run_to_end(&mut command, Duration::from_secs(20)))
}

/// Answered flows of the only row, as the ledger has them.
fn answered(host: &Host, daemon: &Daemon) -> Result<u64> {
    let output = flowproof(
        host,
        daemon,
        &[
            "report",
            "--ledger",
            "state",
            "--matrix",
            "matrix.yaml",
            "--site",
            "site.yaml",
            "--format",
            "json",
        ],
    )?;
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    report["requirements"][0]["services"][0]["answered"]
        .as_u64()
        .with_context(|| format!("no count: {report}"))
}

/// What the ledger has of the flow, in words.
fn explain(host: &Host, daemon: &Daemon) -> Result<String> {
    let output = flowproof(
        host,
        daemon,
        &[
            "explain",
            "--ledger",
            "state",
            "--matrix",
            "matrix.yaml",
            "--site",
            "site.yaml",
            "--",
            "10.20.0.2",
            "10.1.0.10:8000/tcp",
        ],
    )?;
    assert!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

fn connect(client: &Host, port: u16) -> Result<()> {
    let from = Some((client4(2), 0).into());
    let mut stream = client.connect(from, (server4(10), port), Duration::from_secs(5))?;
    Ok(exchange(&mut stream, b"hello")?)
}

#[test]
fn a_full_disk_makes_it_a_ledger_in_memory_until_there_is_room() -> Result<()> {
    let test = "a_full_disk_makes_it_a_ledger_in_memory_until_there_is_room";
    if lab::skipped(test) {
        return Ok(());
    }
    let lab = Routed::new()?;
    let _server = echo_tcp(lab.server.listen((server4(10), 8000))?)?;
    let mut daemon = Daemon::start(&lab.router, &setup(Backend::Ebpf))?;
    daemon.terminate()?;
    // The host's own mounts: gone with the host, however this ends.
    let state = daemon.folder().join("state");
    let state_text = state.display().to_string();
    lab.router.command(
        "mount",
        &["-t", "tmpfs", "-o", "size=1m", "tmpfs", &state_text],
    )?;
    daemon.start_again()?;
    let up = |daemon: &Daemon, expected: f64| -> Result<bool> {
        let (_, seen) = daemon.wait_metrics(Duration::from_secs(20), |metrics| {
            metrics.sum("flowproof_ledger_up", &[]).to_bits() == expected.to_bits()
                && (expected < 1.0
                    || metrics.sum("flowproof_ledger_written_timestamp_seconds", &[]) > 0.0)
        })?;
        Ok(seen)
    };
    assert!(up(&daemon, 1.0)?, "it is written");
    connect(&lab.client, 8000)?;

    let filler = state.join("filler");
    lab.router.run(|| {
        // As much as there is room for.
        let block = vec![0_u8; 4_096];
        let mut file = fs::File::create(&filler)?;
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        anyhow::Ok(())
    })?;
    assert!(up(&daemon, 0.0)?, "{}", daemon.stderr());
    for _ in 0..3 {
        connect(&lab.client, 8000)?;
    }
    thread::sleep(Duration::from_secs(5));
    let said = daemon.stderr().matches("can't be written").count();
    assert_eq!(said, 1, "{}", daemon.stderr());
    // The states are told as ever.
    let rows: Vec<Value> = serde_json::from_str(&daemon.get("/api/v1/requirements")?.body)?;
    assert_eq!(rows[0]["services"][0]["answered"], 4, "{rows:?}");

    lab.router.run(|| fs::remove_file(&filler))?;
    assert!(up(&daemon, 1.0)?, "{}", daemon.stderr());
    let told = wait_for(Duration::from_secs(10), || {
        (answered(&lab.router, &daemon).ok()? == 4).then_some(())
    });
    assert!(told.is_some(), "what was in memory is on the disk");
    assert!(daemon.stderr().contains("evidence is written again"));

    // Read-only from the start: it can't be written, and what is in it counts.
    daemon.terminate()?;
    lab.router
        .command("mount", &["-o", "remount,ro", &state_text])?;
    daemon.start_again()?;
    assert!(up(&daemon, 0.0)?, "{}", daemon.stderr());
    let rows: Vec<Value> = serde_json::from_str(&daemon.get("/api/v1/requirements")?.body)?;
    assert_eq!(rows[0]["services"][0]["answered"], 4, "{rows:?}");
    assert_eq!(answered(&lab.router, &daemon)?, 4);
    Ok(())
}

#[test]
fn one_daemon_writes_a_ledger() -> Result<()> {
    if lab::skipped("one_daemon_writes_a_ledger") {
        return Ok(());
    }
    let lab = Routed::new()?;
    let first = Daemon::start(&lab.router, &setup(Backend::Pcap))?;
    let state = first.folder().join("state").display().to_string();
    let mut command = Command::new(binary());
    command
        .current_dir(first.folder())
        .args([
            "run",
            "--capture",
            "pcap",
            "--matrix",
            "matrix.yaml",
            "--site",
            "site.yaml",
        ])
        .args(["--listen", "127.0.0.1:9872", "--state-dir", &state]);
    let output = lab.router.run(|| {
        let mut child = command
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()?;
        let address = "127.0.0.1:9872".parse()?;
        let scraped = wait_for(Duration::from_secs(20), || {
            let got = flowproof_tests::http::get(&lab.router, address, "/metrics").ok()?;
            (got.status == 200).then_some(got.body)
        });
        child.kill()?;
        anyhow::Ok((scraped, child.wait_with_output()?))
    })?;
    let (scraped, output) = output;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another flowproof writes it"), "{said}");
    let scraped = scraped.context("it serves")?;
    assert!(scraped.contains("\nflowproof_ledger_up 0\n"), "{scraped}");
    Ok(())
}
