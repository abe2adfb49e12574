//! Capture files of other programs tell the same story as the live capture, in the contract's JSON.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use flowproof_tests::daemon::{Backend, Daemon, binary, run_to_end};
use flowproof_tests::judge::Recording;
use flowproof_tests::lab::{self, Routed, TO_CLIENT, TO_SERVER, client4, server4};
use flowproof_tests::traffic::{ask, exchange};
use serde_json::Value;

use super::counts::{serve, setup};
use super::{attempts, decided};

#[test]
fn replay_of_tcpdump_agrees_with_the_live_capture() -> Result<()> {
    agrees(
        "replay_of_tcpdump_agrees_with_the_live_capture",
        "tcpdump",
        |lab, file| Recording::tcpdump(&lab.router, TO_CLIENT, file),
    )
}

#[test]
fn replay_of_dumpcap_agrees_with_the_live_capture() -> Result<()> {
    agrees(
        "replay_of_dumpcap_agrees_with_the_live_capture",
        "dumpcap",
        |lab, file| Recording::dumpcap(&lab.router, TO_SERVER, file),
    )
}

fn agrees(
    test: &str,
    program: &str,
    record: impl FnOnce(&Routed, &Path) -> Result<Recording>,
) -> Result<()> {
    if lab::skipped(test) {
        return Ok(());
    }
    if Command::new(program).arg("--version").output().is_err() {
        flowproof_tests::skip::skip(test, &format!("the program {program} is missing"));
        return Ok(());
    }
    let lab = Routed::new()?;
    let _servers = serve(&lab)?;
    lab.server.filter("input", &["ip daddr 10.1.0.12 drop"])?;
    let daemon = Daemon::start(&lab.router, &setup(Backend::Pcap))?;
    let file = daemon.folder().join("recorded");
    let recording = record(&lab, &file)?;
    let source = Some((client4(2), 0).into());
    let second = Duration::from_secs(1);

    // Silence comes first: a recording's clock stops with its last packet, and then more than four seconds have passed.
    assert!(
        lab.client
            .connect(source, (server4(12), 443), second * 4)
            .is_err()
    );
    for _ in 0..5 {
        let mut stream = lab.client.connect(source, (server4(10), 8000), second)?;
        exchange(&mut stream, b"hello")?;
    }
    let socket = lab.client.udp((client4(2), 0))?;
    socket.connect((server4(10), 7000))?;
    for _ in 0..10 {
        assert!(ask(&socket, b"question", second)?);
    }
    // Not in the matrix, and turned away.
    assert!(
        lab.client
            .connect(source, (server4(10), 9), second)
            .is_err()
    );
    recording.finish()?;
    let (live, _) = daemon.wait_metrics(second * 5, |metrics| {
        decided(metrics, "flooded", "tcp/443", "no_answer") == 1
    })?;

    let replay = |extra: &[&str]| -> Result<Vec<Value>> {
        let mut command = Command::new(binary());
        command
            .current_dir(daemon.folder())
            .args(["replay", "--format", "json", "--matrix", "matrix.yaml"])
            .args(["--site", "site.yaml"])
            .args(extra)
            .arg("recorded");
        let output = run_to_end(&mut command, second * 20)?;
        assert!(
            output.status.success(),
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)?
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect()
    };
    let lines = replay(&[])?;
    let of_type =
        |kind: &str| -> Vec<&Value> { lines.iter().filter(|line| line["type"] == kind).collect() };

    // (protocol, responder's port, verdict, outcome) of every flow.
    let flows: Vec<_> = of_type("flow")
        .into_iter()
        .map(|flow| {
            has_keys(
                flow,
                "type protocol initiator responder verdict requirements outcome near_misses packets bytes first_seen last_seen joined_midway evidence",
            );
            has_keys(&flow["initiator"], "address port roles names");
            assert_eq!(flow["initiator"]["address"], "10.20.0.2", "{flow}");
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (
                text(&flow["protocol"]),
                flow["responder"]["port"].as_u64().unwrap_or(0),
                text(&flow["verdict"]),
                text(&flow["outcome"]),
            )
        })
        .collect();
    assert_eq!(flows.len(), 8, "{flows:?}");
    let distinct: BTreeSet<_> = flows
        .iter()
        .map(|flow| (flow.0.as_str(), flow.1, flow.2.as_str(), flow.3.as_str()))
        .collect();
    let expected = BTreeSet::from([
        ("tcp", 8000, "expected", "closed_after_answer"),
        ("udp", 7000, "expected", "answered"),
        ("tcp", 9, "unexpected", "refused"),
        ("tcp", 443, "expected", "no_answer"),
    ]);
    assert_eq!(distinct, expected);

    for requirement in of_type("requirement") {
        has_keys(requirement, "type id state cause place confidence services");
        let id = requirement["id"].as_str().unwrap_or_default();
        let id = id.strip_prefix("lab/").context("the id lacks the system")?;
        for service in requirement["services"].as_array().into_iter().flatten() {
            has_keys(
                service,
                "service state cause flows answered failed first_seen last_seen",
            );
            let name = service["service"].as_str().unwrap_or_default();
            assert_eq!(
                service["flows"].as_u64(),
                Some(attempts(&live, id, name)),
                "{id} {name}: flows replayed and live"
            );
            assert_eq!(
                service["answered"].as_u64(),
                Some(decided(&live, id, name, "answered")),
                "{id} {name}: answered replayed and live"
            );
        }
    }
    assert_eq!(of_type("requirement").len(), 3);

    let quiet = replay(&["--quiet"])?;
    assert_eq!(quiet.len(), 1, "--quiet prints only the summary: {quiet:?}");
    has_keys(
        &quiet[0],
        "type packets packets_unparsed bytes flows by_verdict by_outcome by_state lost seconds",
    );
    assert_eq!(quiet[0]["type"], "summary");
    assert_eq!(quiet[0]["flows"], 8);
    assert_eq!(quiet[0]["by_verdict"]["unexpected"], 1);
    assert_eq!(quiet[0]["packets_unparsed"], 0);
    Ok(())
}

/// The contract's keys, all of them and no others.
#[track_caller]
fn has_keys(value: &Value, keys: &str) {
    let found: BTreeSet<_> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect();
    let expected: BTreeSet<_> = keys.split(' ').collect();
    assert_eq!(found, expected, "{value}");
}
