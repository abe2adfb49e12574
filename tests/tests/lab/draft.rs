//! `flowproof run --draft`: live traffic judged by the matrix in force and by the next one, before it is in force; and the
//! same from the ledger, after the daemon is gone.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use flowproof_tests::daemon::{Backend, Daemon, Setup, binary, run_to_end};
use flowproof_tests::host::wait_for;
use flowproof_tests::lab::{self, Routed, TO_CLIENT, TO_SERVER, client4, server4};
use flowproof_tests::traffic::{echo_tcp, exchange};
use serde_json::Value;

const MATRIX: &str = "
system: lab
title: Lab
roles: {client: {}, server: {}}
requirements:
  - {id: open, from: client, to: server, services: [tcp/8000]}
  - {id: old, from: client, to: server, services: [tcp/8001]}
";
/// One row is gone, one is new, and one that nobody uses.
const DRAFT: &str = "
system: lab
title: Lab
roles: {client: {}, server: {}}
requirements:
  - {id: open, from: client, to: server, services: [tcp/8000]}
  - {id: new, from: client, to: server, services: [tcp/8002]}
  - {id: idle, from: client, to: server, services: [tcp/9100]}
";
const SITE: &str = "
site: lab
systems: [lab]
roles: {lab/client: [10.20.0.2], lab/server: [10.1.0.10]}
";

#[test]
fn a_draft_judges_live_traffic_ebpf() -> Result<()> {
    live("a_draft_judges_live_traffic_ebpf", Backend::Ebpf)
}

#[test]
fn a_draft_judges_live_traffic_pcap() -> Result<()> {
    live("a_draft_judges_live_traffic_pcap", Backend::Pcap)
}

fn live(test: &str, backend: Backend) -> Result<()> {
    if lab::skipped(test) {
        return Ok(());
    }
    let lab = Routed::new()?;
    let mut servers = Vec::new();
    for port in 8000..=8002 {
        servers.push(echo_tcp(lab.server.listen((server4(10), port))?)?);
    }
    let mut daemon = Daemon::start(
        &lab.router,
        &Setup {
            backend,
            matrix: MATRIX,
            site: SITE,
            config: "",
            interfaces: &[TO_CLIENT, TO_SERVER],
        },
    )?;
    assert_eq!(daemon.get("/api/v1/draft")?.status, 404);
    fs::write(daemon.folder().join("draft.yaml"), DRAFT)?;
    daemon.terminate()?;
    daemon.argue(&["--draft", "draft.yaml"]);
    daemon.start_again()?;

    for (port, times) in [(8000, 3), (8001, 2), (8002, 1)] {
        for _ in 0..times {
            let from = Some((client4(2), 0).into());
            let mut stream =
                lab.client
                    .connect(from, (server4(10), port), Duration::from_secs(5))?;
            exchange(&mut stream, b"hello")?;
        }
    }
    let report = judged(&daemon, 6)?;
    let counts = &report["counts"];
    let flows = |change: &str| counts[change]["flows"].as_u64();
    assert_eq!(
        [
            flows("still_expected"),
            flows("newly_unexpected"),
            flows("newly_covered")
        ],
        [Some(3), Some(2), Some(1)],
        "{report}"
    );
    let group = &report["newly_unexpected"]["groups"][0];
    assert_eq!(group["service"], "tcp/8001", "{group}");
    assert_eq!(group["covered_in_force"][0], "lab/old#tcp/8001");
    assert_eq!(group["samples"][0]["initiator"], "10.20.0.2");
    let unused: Vec<&str> = report["unused"]
        .as_array()
        .context("unused")?
        .iter()
        .filter_map(|row| row["id"].as_str())
        .collect();
    assert_eq!(unused, ["lab/idle"]);
    let metrics = daemon.metrics()?;
    let labels = [("change", "newly_unexpected")];
    assert_eq!(metrics.count("flowproof_draft_flows_total", &labels), 2);
    let words = daemon.get("/draft")?.body;
    assert!(words.contains("tcp/8001"), "{words}");
    assert!(daemon.get("/")?.body.contains("<h2>Draft</h2>"));

    // A draft with errors is refused as a whole, like any other file.
    daemon.reload("draft.yaml", "system: [\n")?;
    let refused = wait_for(Duration::from_secs(10), || {
        daemon.stderr().contains("not reloaded").then_some(())
    });
    assert!(refused.is_some(), "{}", daemon.stderr());
    assert_eq!(judged(&daemon, 6)?["counts"], *counts);

    // The ledger has the same flows when nobody runs any more.
    fs::write(daemon.folder().join("draft.yaml"), DRAFT)?;
    daemon.terminate()?;
    let mut command = Command::new(binary());
    command.current_dir(daemon.folder()).args([
        "replay",
        "--quiet",
        "--format",
        "json",
        "--matrix",
        "matrix.yaml",
        "--site",
        "site.yaml",
        "--draft",
        "draft.yaml",
        "--ledger",
        "state",
        "--fail-on",
        "newly-unexpected",
    ]);
    let output = run_to_end(&mut command, Duration::from_secs(20))?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    let last: Value = serde_json::from_str(text.lines().last().context("a line")?)?;
    assert_eq!(last["counts"], *counts, "{last}");
    Ok(())
}

/// The report as soon as so many flows are judged.
fn judged(daemon: &Daemon, flows: u64) -> Result<Value> {
    let read = || -> Result<Value> {
        let got = daemon.get("/api/v1/draft")?;
        serde_json::from_str(&got.body).with_context(|| format!("{} {}", got.status, got.body))
    };
    let report = wait_for(Duration::from_secs(20), || {
        let report = read().ok()?;
        (report["judged"]["flows"] == flows).then_some(report)
    });
    match report {
        Some(report) => Ok(report),
        None => anyhow::bail!("not {flows} flows: {}", read()?),
    }
}
