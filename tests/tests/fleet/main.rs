//! Three agents in three namespaces, a real Prometheus that scrapes them, and a firewall that stops one thing after the other: what the
//! recording rules say of it, what `flowproof report --prometheus` prints, and whether every panel of the dashboards has something to
//! show.

mod cost;
mod grafana;
mod prometheus;

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use flowproof_tests::daemon::{Backend, Daemon, LISTEN, Setup, binary, run_to_end};
use flowproof_tests::host::Host;
use flowproof_tests::lab::{self, Routed, TO_CLIENT, TO_SERVER, UPLINK, client4, server4};
use flowproof_tests::skip;
use flowproof_tests::traffic::{Manner, Server, ask, echo_tcp, exchange, serve_udp};
use prometheus::Prometheus;
use serde_json::Value;

const MATRIX: &str = "
system: shop
title: Shop
version: '7'
roles: {client: {title: Client}, web: {title: Web server}, db: {title: Database}, vendor: {names: [updates.example.org]}}
requirements:
  - {id: browse, from: client, to: web, services: [tcp/8000], purpose: pages, provenance: {section: Clients, row: 1}}
  - {id: call, from: client, to: web, services: [tcp/8001], provenance: {section: Clients, row: 2}}
  - {id: resolve, from: client, to: web, services: [udp/53], provenance: {section: Clients, row: 3}}
  - {id: query, from: client, to: db, services: [tcp/5432], purpose: reports, provenance: {section: Database, row: 1}}
  - {id: idle, from: client, to: web, services: [tcp/9000], provenance: {section: Clients, row: 4}}
  - {id: backup, from: db, to: client, services: [tcp/9001], necessity: optional, provenance: {section: Database, row: 2}}
  - {id: update, from: web, to: vendor, services: [tcp/443], necessity: conditional, condition: with updates, provenance: {section: Web, row: 1}}
";
const SITE: &str = "
site: hq
systems: [shop]
roles: {shop/client: [10.20.0.2], shop/web: [10.1.0.10], shop/db: [10.1.0.11]}
";
/// How long a step may take on a busy machine. Over UDP nothing is said for half a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// A thing that the client does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Browse,
    Call,
    Query,
    Resolve,
}

/// What the hosts' programs do.
struct Deployment {
    uses: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    servers: Mutex<BTreeMap<Use, Server>>,
    server: Arc<Host>,
}

impl Deployment {
    fn start(lab: &Routed) -> Result<Self> {
        let mut deployment = Self {
            uses: Arc::default(),
            ends: Arc::default(),
            threads: Vec::new(),
            servers: Mutex::default(),
            server: Arc::clone(&lab.server),
        };
        let all = [Use::Browse, Use::Call, Use::Query, Use::Resolve];
        for of in all {
            deployment.serve(of)?;
        }
        deployment.threads = all
            .map(|of| {
                let (uses, ends) = (Arc::clone(&deployment.uses), Arc::clone(&deployment.ends));
                let client = Arc::clone(&lab.client);
                thread::spawn(move || {
                    while !ends.load(Ordering::Relaxed) {
                        if uses.load(Ordering::Relaxed) {
                            // What fails is what the agents are to find out.
                            let _ = perform(&client, of);
                        }
                        thread::sleep(Duration::from_millis(500));
                    }
                })
            })
            .into();
        Ok(deployment)
    }

    fn servers(&self) -> std::sync::MutexGuard<'_, BTreeMap<Use, Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the server of a use.
    fn serve(&self, of: Use) -> Result<()> {
        let server = match port(of) {
            (address, 53) => serve_udp(self.server.udp((address, 53))?, Manner::Echo)?,
            listen => echo_tcp(self.server.listen(listen)?)?,
        };
        self.servers().insert(of, server);
        Ok(())
    }

    /// Ends the server of a use.
    fn close(&self, of: Use) {
        let server = self.servers().remove(&of);
        drop(server);
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

const fn port(of: Use) -> (std::net::IpAddr, u16) {
    match of {
        Use::Browse => (server4(10), 8000),
        Use::Call => (server4(10), 8001),
        Use::Query => (server4(11), 5432),
        Use::Resolve => (server4(10), 53),
    }
}

fn perform(client: &Host, of: Use) -> Result<()> {
    let from = (client4(2), 0).into();
    if of == Use::Resolve {
        let socket = client.udp(from)?;
        socket.connect(port(of))?;
        ask(&socket, b"a question", Duration::from_secs(1))?;
        return Ok(());
    }
    // Long enough for a SYN to be sent again, without which silence proves nothing.
    let mut stream = client.connect(Some(from), port(of), Duration::from_millis(4_500))?;
    Ok(exchange(&mut stream, b"hello")?)
}

/// Starts an agent that Prometheus can reach.
fn agent(host: &Arc<Host>, interfaces: &[&str], reachable: Option<String>) -> Result<Daemon> {
    let setup = Setup {
        backend: Backend::Ebpf,
        matrix: MATRIX,
        site: SITE,
        config: "",
        interfaces,
    };
    let mut daemon = Daemon::start(host, &setup)?;
    if let Some(address) = reachable {
        // Killed, since the kernel programs go on counting then, and nothing is missed.
        daemon.kill()?;
        daemon.argue(&["--listen", &address]);
        daemon.start_again()?;
    }
    Ok(daemon)
}

/// The findings, as `browse client lost_on_path`, in the order of their names.
fn findings(prometheus: &Prometheus) -> Result<Vec<String>> {
    let mut all: Vec<String> = prometheus
        .query("flowproof:requirement_finding:current == 1")?
        .iter()
        .map(|sample| {
            let [row, instance, finding] =
                ["requirement", "instance", "finding"].map(|name| sample.label(name));
            format!("{row} {instance} {finding}")
        })
        .collect();
    all.sort();
    Ok(all)
}

/// Waits until these are the findings, and stay so for two evaluations.
#[track_caller]
fn wait(prometheus: &Prometheus, step: &str, expected: &[&str]) -> Result<()> {
    let start = Instant::now();
    let mut times = 0;
    loop {
        let seen = findings(prometheus)?;
        times = if seen == expected { times + 1 } else { 0 };
        if times == 3 {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            let states = prometheus.query("flowproof:requirement_vantage:trusted")?;
            let failed =
                prometheus.query("flowproof:requirement_failed:timestamp_seconds - time()")?;
            bail!(
                "{step}: after {PATIENCE:?}\n  expected {expected:#?}\n  got {seen:#?}\n{states:#?}\n{failed:#?}"
            );
        }
        thread::sleep(Duration::from_millis(700));
    }
}

/// `flowproof report --prometheus` on the router.
fn report(lab: &Routed, daemon: &Daemon, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary());
    command
        .current_dir(daemon.folder())
        .args([
            "report",
            "--matrix",
            "matrix.yaml",
            "--site",
            "site.yaml",
            "--prometheus",
        ])
        .arg(format!("http://{}", prometheus::LISTEN))
        .args(arguments);
    lab.router
        .run(|| run_to_end(&mut command, Duration::from_secs(20)))
}

/// The rows of a report, as `browse blocked lost_on_path at between the ends`.
fn rows(lab: &Routed, daemon: &Daemon) -> Result<Vec<String>> {
    let output = report(lab, daemon, &["--format", "json"])?;
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let rows = report["requirements"].as_array().into_iter().flatten();
    Ok(rows
        .map(|row| {
            let [id, state] =
                ["requirement", "state"].map(|field| row[field].as_str().unwrap_or("?"));
            let cause = row["cause"].as_str().map(|cause| format!(" {cause}"));
            let place = row["place"].as_str().map(|place| format!(" at {place}"));
            format!(
                "{id} {state}{}{}",
                cause.unwrap_or_default(),
                place.unwrap_or_default()
            )
        })
        .collect())
}

#[test]
fn what_becomes_of_a_flow_between_its_ends() -> Result<()> {
    let test = "what_becomes_of_a_flow_between_its_ends";
    if lab::skipped(test) {
        return Ok(());
    }
    if !prometheus::is_installed() {
        skip::skip(test, "prometheus is missing: `apt-get install prometheus`");
        return Ok(());
    }
    let lab = Routed::new()?;
    let [at_client, at_server] = [client4(2), server4(10)].map(|address| format!("{address}:9871"));
    let mut client = agent(&lab.client, &[UPLINK], Some(at_client.clone()))?;
    let router = agent(&lab.router, &[TO_CLIENT, TO_SERVER], None)?;
    let mut server = agent(&lab.server, &[UPLINK], Some(at_server.clone()))?;
    let targets = [
        ("client", at_client),
        ("router", LISTEN.to_string()),
        ("server", at_server),
    ];
    let prometheus = Prometheus::start(&lab.router, &targets)?;
    let deployment = Deployment::start(&lab)?;

    wait(
        &prometheus,
        "nothing is sent",
        &[
            "backup server never_sent",
            "browse client never_sent",
            "call client never_sent",
            "idle client never_sent",
            "query client never_sent",
            "resolve client never_sent",
            "update server never_sent",
        ],
    )?;

    deployment.uses.store(true, Ordering::Relaxed);
    wait(
        &prometheus,
        "all is well",
        &[
            "backup server never_sent",
            "browse client working",
            "call client working",
            "idle client never_sent",
            "query client working",
            "resolve client working",
            "update server never_sent",
        ],
    )?;

    // Lost on the way, refused at the peer, answers lost on the way back.
    lab.router.filter(
        "forward",
        &[
            "tcp dport 8000 drop",
            "tcp sport 5432 drop",
            "udp sport 53 drop",
        ],
    )?;
    deployment.close(Use::Call);
    wait(
        &prometheus,
        "each in its way",
        &[
            "backup server never_sent",
            "browse client lost_on_path",
            "call client refused_by_peer",
            "idle client never_sent",
            "query client answer_lost",
            "resolve client answer_lost",
            "update server never_sent",
        ],
    )?;
    assert_eq!(
        rows(&lab, &router)?,
        [
            "browse blocked lost_on_path at between the ends",
            "call blocked refused_by_peer at the responder",
            "resolve blocked answer_lost at the way back",
            "query blocked answer_lost at the way back",
            "idle silent never_sent",
            "backup silent never_sent",
            "update silent never_sent",
        ]
    );
    let text = report(&lab, &router, &[])?;
    let text = String::from_utf8(text.stdout)?;
    for part in [
        "3 agent(s), of which 0 can't be scraped",
        "lost_on_path: it is sent and does not arrive",
        "client (initiator) says degraded, no_answer at path",
        "server (responder) says",
        "router (path) says",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let failing = report(
        &lab,
        &router,
        &["--format", "junit", "--fail-on", "blocked"],
    )?;
    assert_eq!(failing.status.code(), Some(1), "{failing:?}");
    let pending = |samples: &[prometheus::Sample]| {
        [
            "FlowproofLostOnPath",
            "FlowproofRefusedByPeer",
            "FlowproofAnswerLost",
        ]
        .iter()
        .all(|name| {
            samples
                .iter()
                .any(|sample| sample.label("alertname") == *name)
        })
    };
    prometheus.wait("ALERTS", PATIENCE, pending)?;
    // Here everything that a dashboard shows is there.
    grafana::every_panel_has_data(&prometheus)?;

    // Others in turn: dropped by the peer's host, by the own host, and a hop that says so.
    lab.router.nft("flush ruleset")?;
    deployment.serve(Use::Call)?;
    wait(
        &prometheus,
        "mended",
        &[
            "backup server never_sent",
            "browse client working",
            "call client working",
            "idle client never_sent",
            "query client working",
            "resolve client working",
            "update server never_sent",
        ],
    )?;
    lab.router.filter(
        "forward",
        &[
            "tcp dport 5432 reject with icmp type admin-prohibited",
            "udp dport 53 drop",
        ],
    )?;
    lab.server.filter("input", &["tcp dport 8000 drop"])?;
    lab.client.filter("output", &["tcp dport 8001 drop"])?;
    wait(
        &prometheus,
        "each in another way",
        &[
            "backup server never_sent",
            "browse client refused_by_peer",
            "call client dropped_at_source",
            "idle client never_sent",
            "query client lost_on_path",
            "resolve client lost_on_path",
            "update server never_sent",
        ],
    )?;

    // Without the agent at the peer, what only it could say is open. What a hop and the router say is not.
    server.kill()?;
    wait(
        &prometheus,
        "the server's agent is dead",
        &[
            "backup server unknown",
            "browse client unlocated",
            "call client dropped_at_source",
            "idle client never_sent",
            "query client lost_on_path",
            "resolve client lost_on_path",
            "update server unknown",
        ],
    )?;
    assert_eq!(rows(&lab, &router)?[5], "backup unknown agent_unknown");
    server.start_again()?;
    client.kill()?;
    let unknown = [
        "backup server never_sent",
        "browse client unknown",
        "call client unknown",
        "idle client unknown",
        "query client unknown",
        "resolve client unknown",
        "update server never_sent",
    ];
    wait(&prometheus, "the client's agent is dead", &unknown)?;
    let text = String::from_utf8(report(&lab, &router, &[])?.stdout)?;
    assert!(
        text.contains("3 agent(s), of which 1 can't be scraped: client"),
        "{text}"
    );

    for host in [&lab.client, &lab.router, &lab.server] {
        host.nft("flush ruleset")?;
    }
    client.start_again()?;
    wait(
        &prometheus,
        "all is well again",
        &[
            "backup server never_sent",
            "browse client working",
            "call client working",
            "idle client never_sent",
            "query client working",
            "resolve client working",
            "update server never_sent",
        ],
    )?;
    cost::tell(&prometheus)?;

    // Whom it can't ask, it says.
    let other = |arguments: &[&str]| -> Result<String> {
        let output = report(&lab, &router, arguments)?;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        Ok(String::from_utf8(output.stderr)?)
    };
    assert!(other(&["--select", "job=\"nobody\""])?.contains("has no series of flowproof"));
    assert!(other(&["--select", "job=\"nob"])?.contains("are the labels of --select written"));
    Ok(())
}
