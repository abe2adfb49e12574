//! `flowproof report --daemon`: what a running daemon has seen, in the words of a report, with what only its counters remember.

use std::process::{Command, Output};
use std::time::Duration;

use anyhow::Result;
use flowproof_tests::daemon::{Backend, Daemon, LISTEN, Setup, binary, run_to_end};
use flowproof_tests::lab::{self, Routed, TO_CLIENT, TO_SERVER, client4, server4};
use flowproof_tests::traffic::{echo_tcp, exchange};
use serde_json::{Value, json};

use super::{assert_soon, decided};

const MATRIX: &str = "
system: lab
title: Lab
roles: {client: {title: Client}, server: {title: Server}}
requirements:
  - {id: open, from: client, to: server, services: [tcp/8000]}
  - {id: shut, from: client, to: server, services: [tcp/443]}
  - {id: idle, from: server, to: client, services: [tcp/9100]}
";
const SITE: &str = "
site: lab
systems: [lab]
roles: {lab/client: [10.20.0.2], lab/server: [10.1.0.10]}
";

#[test]
fn a_daemon_is_reported_ebpf() -> Result<()> {
    a_daemon_is_reported("a_daemon_is_reported_ebpf", Backend::Ebpf)
}

#[test]
fn a_daemon_is_reported_pcap() -> Result<()> {
    a_daemon_is_reported("a_daemon_is_reported_pcap", Backend::Pcap)
}

fn a_daemon_is_reported(test: &str, backend: Backend) -> Result<()> {
    if lab::skipped(test) {
        return Ok(());
    }
    let lab = Routed::new()?;
    let second = Duration::from_secs(1);
    let _server = echo_tcp(lab.server.listen((server4(10), 8000))?)?;
    let daemon = Daemon::start(
        &lab.router,
        &Setup {
            backend,
            matrix: MATRIX,
            site: SITE,
            config: "",
            interfaces: &[TO_CLIENT, TO_SERVER],
        },
    )?;
    let connect = |port| {
        lab.client
            .connect(Some((client4(2), 0).into()), (server4(10), port), second)
    };
    exchange(&mut connect(8000)?, b"hello")?;
    // Nobody listens: one of them is a row, the other is none.
    for port in [443, 22, 22] {
        assert!(connect(port).is_err());
    }
    assert_soon(&daemon, "what was decided", &[1, 1], |metrics| {
        [
            decided(metrics, "open", "tcp/8000", "answered"),
            decided(metrics, "shut", "tcp/443", "refused"),
        ]
    });

    let output = report(&lab, &daemon, &["--format", "json"])?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report_json: Value = serde_json::from_slice(&output.stdout)?;
    let rows = &report_json["requirements"];
    let states = [0, 1, 2].map(|row| rows[row]["state"].clone());
    assert_eq!(states, ["verified", "blocked", "silent"], "{report_json}");
    let ticket = &rows[1]["ticket"];
    assert_eq!(ticket["from"]["bound"], json!(["10.20.0.2"]), "{ticket}");
    assert_eq!(ticket["paths"][0]["initiator"], "10.20.0.2", "{ticket}");
    assert_eq!(ticket["paths"][0]["outcome"], "refused");
    assert_eq!(report_json["unexpected_flows"], 2);
    assert_eq!(report_json["unexpected"][0]["service"], "tcp/22");
    assert_eq!(report_json["unexpected"][0]["from"], "lab/client");
    let misses = report_json["unexpected"][0]["near_misses"].to_string();
    assert!(misses.contains("lab/open#tcp/8000"), "{misses}");

    for (what, code) in [
        ("unexpected", 1),
        ("blocked", 1),
        ("silent", 1),
        ("degraded,unknown", 0),
    ] {
        let output = report(&lab, &daemon, &["--format", "tap", "--fail-on", what])?;
        assert_eq!(output.status.code(), Some(code), "{what}: {output:?}");
    }
    // A file that is not what the daemon judges by is told, and hides nothing.
    let other = MATRIX.replace("id: shut", "id: renamed");
    std::fs::write(daemon.folder().join("matrix.yaml"), other)?;
    let output = report(&lab, &daemon, &["--format", "text"])?;
    let text = String::from_utf8(output.stdout)?;
    assert!(
        text.contains("[B] blocked      lab/shut") && text.contains("1 of the requirements"),
        "{text}"
    );
    Ok(())
}

fn report(lab: &Routed, daemon: &Daemon, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary());
    command
        .current_dir(daemon.folder())
        .args(["report", "--matrix", "matrix.yaml", "--site", "site.yaml"])
        .arg(format!("--daemon=http://{LISTEN}"))
        .args(arguments);
    lab.router
        .run(|| run_to_end(&mut command, Duration::from_secs(20)))
}
