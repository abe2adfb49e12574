//! `cargo xtask demo`: a small farm of hosts on this machine, with one row of its matrix blocked, one refused and one
//! flow that nobody ordered; the real daemon on the router between them; and what it found, on one screen.
//!
//! Everything lives in namespaces without names and ends with this program, however it ends.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the demo talks to a person at a terminal"
)]

mod farm;
mod screen;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use flowproof_tests::daemon::{Backend, Daemon, LISTEN, Setup, binary, run_to_end};
use flowproof_tests::lab;
use flowproof_tests::metrics::Metrics;
use nix::sys::signal::{SigSet, Signal};

use farm::Farm;

/// The demo's promise is a result within a minute; building the lab takes a second.
const LIMIT: Duration = Duration::from_secs(50);

const USAGE: &str =
    "usage: cargo xtask demo [--stay]\n\n  --stay   show it again every 5 s until Ctrl-C";

/// As a shell reports an end by SIGINT.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match demo() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<ExitCode> {
    let mut stay = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--stay" => stay = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(ExitCode::SUCCESS);
            }
            other => bail!("no such argument: {other}\n{USAGE}"),
        }
    }
    if let Some(obstacle) = lab::obstacle() {
        bail!("the demo can't run here: {obstacle}");
    }
    let stop = stop_by_signal()?;

    println!(
        "building the farm: client, balancer, gateway, broker, database, and a router between them"
    );
    let farm = Arc::new(Farm::new()?);
    let folder = files();
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))
    };
    let (matrix, site) = (read("matrix.yaml")?, read("site.yaml")?);
    println!("starting the daemon on the router");
    let setup = Setup {
        backend: Backend::Auto,
        matrix: &matrix,
        site: &site,
        config: "",
        interfaces: &[],
    };
    let started = unless_stopped(
        &stop,
        || None,
        || Daemon::start(&farm.router, &setup).map(Some),
    )?;
    let Some(mut daemon) = started else {
        println!("removed the farm");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    println!("sending traffic: every row but one, and a flow that no row covers\n");
    farm.keep_busy(&stop);

    let begun = Instant::now();
    let mut missing = Vec::new();
    while begun.elapsed() < LIMIT && !stop.load(Ordering::Relaxed) {
        missing = still_missing(&unless_stopped(&stop, Metrics::default, || {
            daemon.metrics()
        })?);
        if missing.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let show = || unless_stopped(&stop, || (), || show(&farm, &daemon, begun.elapsed()));
    show()?;
    while stay && !stop.load(Ordering::Relaxed) {
        println!("(again in 5 s; Ctrl-C ends it and removes everything)\n");
        let next = Instant::now() + Duration::from_secs(5);
        while Instant::now() < next && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        show()?;
    }
    let interrupted = stop.swap(true, Ordering::Relaxed);
    // After Ctrl-C it may have ended already.
    if daemon.is_running()? {
        daemon.terminate()?;
    }
    println!("ended the daemon and removed the farm");
    if !missing.is_empty() && !interrupted {
        bail!(
            "not seen within {} s: {}",
            LIMIT.as_secs(),
            missing.join(", ")
        );
    }
    Ok(if interrupted && !stay {
        ExitCode::from(INTERRUPTED)
    } else {
        ExitCode::SUCCESS
    })
}

/// Turns SIGINT and SIGTERM into a flag, so that the daemon is ended and files are removed. Must come before any other
/// thread is made: they inherit that the signals are blocked.
fn stop_by_signal() -> Result<Arc<AtomicBool>> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let stop = stop.clone();
        move || {
            if signals.wait().is_ok() {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
    Ok(stop)
}

/// Does `work` unless the demo was told to stop. On Ctrl-C the terminal tells the daemon too, so that asking it fails;
/// then this waits a moment for our own signal and takes the failure for what it is.
fn unless_stopped<T>(
    stop: &AtomicBool,
    nothing: impl FnOnce() -> T,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if stop.load(Ordering::Relaxed) {
        return Ok(nothing());
    }
    work().or_else(|error| {
        std::thread::sleep(Duration::from_millis(200));
        if stop.load(Ordering::Relaxed) {
            Ok(nothing())
        } else {
            Err(error)
        }
    })
}

/// The folder of the demo's matrix and site.
fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .join("deploy/demo")
}

/// What the daemon should have found and hasn't yet.
fn still_missing(metrics: &Metrics) -> Vec<&'static str> {
    let decided = |requirement: &str, outcome: &str| {
        let labels = [("requirement", requirement), ("outcome", outcome)];
        metrics.sum("flowproof_requirement_flows_total", &labels) > 0.0
    };
    [
        ("sessions that work", decided("sessions", "answered")),
        ("a log message", decided("gateway-logs", "one_way")),
        ("the blocked row", decided("configuration", "no_answer")),
        ("the refused row", decided("gateway-reports", "refused")),
        (
            "the rogue flow",
            metrics.sum("flowproof_unexpected_flows_total", &[]) > 0.0,
        ),
    ]
    .into_iter()
    .filter(|(_, seen)| !seen)
    .map(|(what, _)| what)
    .collect()
}

fn show(farm: &Farm, daemon: &Daemon, after: Duration) -> Result<()> {
    let metrics = daemon.metrics()?;
    let backend = metrics
        .matching("flowproof_build_info", &[])
        .find_map(|sample| sample.labels.get("backend"))
        .map_or("?", String::as_str);
    println!(
        "What the daemon on the router (back end {backend}) found within {:.0} s:\n",
        after.as_secs_f64().ceil()
    );
    println!("{}", screen::rows(&metrics));
    println!("Unexpected: no row covers\n");
    println!("{}", screen::unexpected(&metrics));
    let mut explain = Command::new(binary());
    explain
        .current_dir(daemon.folder())
        .args(["explain", "--matrix", "matrix.yaml", "--site", "site.yaml"])
        .arg(format!("--daemon=http://{LISTEN}"))
        .args(Farm::rogue_flow());
    let explained = farm
        .router
        .run(|| run_to_end(&mut explain, Duration::from_secs(10)))?;
    // An unexpected flow is 1; more is a failure to explain.
    if !matches!(explained.status.code(), Some(0 | 1)) {
        bail!(
            "can't explain the rogue flow: {}",
            String::from_utf8_lossy(&explained.stderr).trim_end()
        );
    }
    print!("{}", String::from_utf8_lossy(&explained.stdout));
    println!();
    Ok(())
}
