//! What a daemon can see depends on where it is: an ordinary host sees its own traffic, a router that of others, and the site
//! file has the last word.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::host::wait_for;
use flowproof_tests::lab::{self, Routed, UPLINK, client4, server4};
use flowproof_tests::traffic::{echo_tcp, exchange};
use serde_json::Value;

const MATRIX: &str = "
system: lab
title: Lab
roles: {client: {}, server: {}, db: {}}
requirements:
  - {id: own, from: client, to: server, services: [tcp/8000]}
  - {id: theirs, from: server, to: db, services: [tcp/5432]}
  - {id: reach, from: any, to: client, services: [tcp/22]}
";
const SITE: &str = "
site: lab
systems: [lab]
roles: {lab/client: [10.20.0.2], lab/server: [10.1.0.10], lab/db: [10.1.0.11]}
";
/// It looks around every 10 s.
const PATIENCE: Duration = Duration::from_secs(30);

fn states(daemon: &Daemon) -> Result<String> {
    let rows: Vec<Value> = serde_json::from_str(&daemon.get("/api/v1/requirements")?.body)?;
    let row = |row: &Value| {
        let [id, state] = ["id", "state"].map(|field| row[field].as_str().unwrap_or("?"));
        let cause = row["cause"].as_str().map(|cause| format!(" {cause}"));
        format!("{id} {state}{}", cause.unwrap_or_default())
    };
    Ok(rows.iter().map(row).collect::<Vec<_>>().join(", "))
}

fn wait(daemon: &Daemon, expected: &str) -> Result<()> {
    if wait_for(PATIENCE, || {
        (states(daemon).ok()? == expected).then_some(())
    })
    .is_none()
    {
        bail!("expected {expected}\n     got {}", states(daemon)?);
    }
    Ok(())
}

#[test]
fn a_host_says_what_it_can_see() -> Result<()> {
    if lab::skipped("a_host_says_what_it_can_see") {
        return Ok(());
    }
    let lab = Routed::new()?;
    let _server = echo_tcp(lab.server.listen((server4(10), 8000))?)?;
    let daemon = Daemon::start(
        &lab.client,
        &Setup {
            backend: Backend::Ebpf,
            matrix: MATRIX,
            site: SITE,
            config: "",
            interfaces: &[UPLINK],
        },
    )?;
    assert_eq!(
        states(&daemon)?,
        "lab/own silent, lab/theirs unobservable not_captured_here, lab/reach silent"
    );
    assert!(
        daemon.stderr().contains("`observe:` in the site file"),
        "{}",
        daemon.stderr()
    );
    let from = Some((client4(2), 0).into());
    let mut stream = lab
        .client
        .connect(from, (server4(10), 8000), Duration::from_secs(5))?;
    exchange(&mut stream, b"hello")?;
    wait(
        &daemon,
        "lab/own verified, lab/theirs unobservable not_captured_here, lab/reach silent",
    )?;
    // It becomes a router: from now on the others' traffic may come by.
    lab.client.sysctl("net/ipv4/ip_forward", "1")?;
    wait(
        &daemon,
        "lab/own verified, lab/theirs silent, lab/reach silent",
    )?;
    // The site knows better: a mirror of the servers' net and nothing else.
    let site = format!("{SITE}observe: [10.1.0.11/32]\n");
    daemon.reload("site.yaml", &site).context("reload")?;
    wait(
        &daemon,
        "lab/own verified, lab/theirs silent, lab/reach unobservable not_captured_here",
    )?;
    Ok(())
}
