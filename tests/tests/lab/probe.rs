//! `flowproof probe` from a client's host, through a router that filters, towards real servers: what works, what is stopped and
//! by whom, what can't be told; and that nothing is sent anywhere else, counted by the kernel.

mod servers;

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use flowproof_tests::daemon::{Backend, Daemon, LISTEN, Setup, binary, run_to_end};
use flowproof_tests::host::{Host, wait_for};
use flowproof_tests::judge::PacketJudge;
use flowproof_tests::lab::{ROUTER_CLIENT_SIDE, Routed, TO_CLIENT, TO_SERVER, UPLINK};
use flowproof_tests::names::skipped;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use servers::{RESOLVER, Servers, WEB};

const MATRIX: &str = "
system: lab
title: Lab
roles: {client: , app: , good: , odd: , bad: , mute: , nowhere: , inside: , udp: , forger: , ranged: , six: , resolver: , net: , wild: }
requirements:
  - {id: open, from: client, to: app, services: [tcp/8000]}
  - {id: closed, from: client, to: app, services: [tcp/8001]}
  - {id: dropped, from: client, to: app, services: [tcp/8002]}
  - {id: rejected, from: client, to: app, services: [tcp/8003]}
  - {id: half, from: client, to: app, services: [tcp/8000, tcp/8001]}
  - {id: ping, from: client, to: app, services: [icmp]}
  - {id: good, from: client, to: good, services: [tcp/443]}
  - {id: odd, from: client, to: odd, services: [tcp/443]}
  - {id: bad, from: client, to: bad, services: [tcp/443]}
  - {id: mute, from: client, to: mute, services: [tcp/443]}
  - {id: nowhere, from: client, to: nowhere, services: [tcp/443]}
  - {id: inside, from: client, to: inside, services: [tcp/443]}
  - {id: dns, from: client, to: resolver, services: [udp/53]}
  - {id: ntp, from: client, to: udp, services: [udp/123]}
  - {id: stun, from: client, to: udp, services: [udp/3478]}
  - {id: browser, from: client, to: udp, services: [udp/1434]}
  - {id: quic, from: client, to: udp, services: [udp/443]}
  - {id: syslog, from: client, to: udp, services: [udp/514]}
  - {id: shut, from: client, to: udp, services: [udp/9999]}
  - {id: kept, from: client, to: udp, services: [udp/7777]}
  - {id: snmp, from: client, to: udp, services: [udp/161]}
  - {id: forged, from: client, to: forger, services: [udp/123]}
  - {id: range, from: client, to: ranged, services: [tcp/9000-9004]}
  - {id: six, from: client, to: six, services: [tcp/8000, icmpv6]}
  - {id: rejected-six, from: client, to: six, services: [tcp/8003]}
  - {id: net, from: client, to: net, services: [tcp/8000]}
  - {id: wild, from: client, to: wild, services: [tcp/443]}
  - {id: back, from: app, to: client, services: [tcp/9100]}
";
const SITE: &str = "
site: lab
systems: [lab]
roles:
  lab/client: [10.20.0.2, 'fd00:20::2']
  lab/app: [10.1.0.10]
  lab/good: [good.lab.example]
  lab/odd: [odd.shop.example]
  lab/bad: [bad.lab.example]
  lab/mute: [mute.lab.example]
  lab/nowhere: [nowhere.lab.example]
  lab/inside: [inside.lab.example]
  lab/udp: [10.1.0.12]
  lab/forger: [10.1.0.13]
  lab/ranged: [10.1.0.14]
  lab/six: ['fd00:10::10']
  lab/resolver: [10.1.0.20]
  lab/net: [10.1.0.16/29]
  lab/wild: ['*.wild.example']
";
/// The bound addresses, and those of bound names: nothing may go anywhere else.
const BOUND: &str = "{ 10.1.0.10, 10.1.0.11, 10.1.0.12, 10.1.0.13, 10.1.0.14, 10.1.0.20 }";

/// What the router does not let through.
const FILTER: [&str; 2] = [
    "tcp dport 8002 drop",
    "tcp dport 8003 reject with icmpx admin-prohibited",
];

/// A lab with servers, and the files of an operator.
struct Scene {
    _servers: Servers,
    files: TempDir,
    /// Everything that the client sends, and what of it goes outside the bindings.
    sent: PacketJudge,
    lab: Routed,
}

impl Scene {
    fn new() -> Result<Self> {
        let lab = Routed::new()?;
        let servers = Servers::start(&lab.server)?;
        lab.router.filter("forward", &FILTER)?;
        lab.client.filter("output", &["udp dport 7777 drop"])?;
        let any = format!("oifname \"{UPLINK}\" meta nfproto ipv4");
        let stray = format!("{any} ip daddr != {BOUND}");
        let any_v6 = format!("oifname \"{UPLINK}\" ip6 saddr fd00:20::/64 ip6 daddr fd00:10::/64");
        let stray_v6 = format!("{any_v6} ip6 daddr != fd00:10::10");
        let sent = PacketJudge::own(
            &lab.client,
            &[
                ("any", &any),
                ("stray", &stray),
                ("any_v6", &any_v6),
                ("stray_v6", &stray_v6),
            ],
        )?;
        let files = TempDir::with_prefix("flowproof-probe-")?;
        std::fs::write(files.path().join("matrix.yaml"), MATRIX)?;
        std::fs::write(files.path().join("site.yaml"), SITE)?;
        Ok(Self {
            _servers: servers,
            files,
            sent,
            lab,
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .current_dir(self.files.path())
            .args(["probe", "--matrix", "matrix.yaml", "--site", "site.yaml"])
            .args(["--resolver", &RESOLVER.ip().to_string()])
            .args(["--rate", "50/s", "--timeout", "2s"])
            .args(arguments);
        command
    }

    fn probe_on(&self, host: &Host, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(arguments);
        host.run(|| run_to_end(&mut command, Duration::from_secs(60)))
    }

    /// Packets that the client sent: all, and those outside the bindings, over both IP versions.
    fn sent(&self) -> Result<[u64; 2]> {
        let counts = self.sent.counts()?;
        let sum = |one: &str, other: &str| counts[one].packets + counts[other].packets;
        Ok([sum("any", "any_v6"), sum("stray", "stray_v6")])
    }
}

/// The lines of an output.
fn lines(output: &Output) -> Result<Vec<Value>> {
    String::from_utf8(output.stdout.clone())?
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect()
}

/// The line of a row.
#[track_caller]
fn row<'a>(lines: &'a [Value], id: &str) -> &'a Value {
    lines
        .iter()
        .find(|line| line["id"] == format!("lab/{id}"))
        .unwrap_or_else(|| panic!("no row {id}: {lines:?}"))
}

#[track_caller]
fn assert_row(lines: &[Value], id: &str, state: &str, cause: Option<&str>, place: Option<&str>) {
    let row = row(lines, id);
    let is = (&row["state"], &row["cause"], &row["place"]);
    let expect = (
        &Value::from(state),
        &Value::from(cause),
        &Value::from(place),
    );
    assert_eq!(is, expect, "{row:#}");
    assert_eq!(row["probed"], true, "{row}");
}

/// What the evidence of all probes of a row says.
#[track_caller]
fn evidence(lines: &[Value], id: &str) -> String {
    let row = row(lines, id);
    let probes = row["probes"].as_array().expect("a list");
    probes
        .iter()
        .map(|probe| probe["evidence"].to_string())
        .collect()
}

/// Rows that the probe verifies.
const VERIFIED: [&str; 10] = [
    "open", "ping", "good", "odd", "dns", "ntp", "stun", "browser", "quic", "six",
];

#[test]
fn rows_are_probed_and_a_daemon_on_the_way_agrees_ebpf() -> Result<()> {
    if skipped("rows_are_probed_and_a_daemon_on_the_way_agrees_ebpf") {
        return Ok(());
    }
    let scene = Scene::new()?;
    let daemon = Daemon::start(
        &scene.lab.router,
        &Setup {
            backend: Backend::Ebpf,
            matrix: MATRIX,
            site: SITE,
            config: "",
            interfaces: &[TO_CLIENT, TO_SERVER],
        },
    )?;

    let output = scene.probe_on(
        &scene.lab.client,
        &["--all", "--format", "json", "--fail-on", "blocked"],
    )?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found = lines(&output)?;
    for id in VERIFIED {
        assert_row(&found, id, "verified", None, None);
    }
    what_is_stopped(&found);
    what_cannot_be_told(&found);

    let [any, stray] = scene.sent()?;
    assert!(any > 50, "hardly anything was sent: {any}");
    assert_eq!(stray, 0, "something went outside the bindings");

    // The daemon saw the same, as it sees all traffic.
    let states = wait_for(Duration::from_secs(10), || {
        let states = states(&daemon).ok()?;
        let is = |id: &str| {
            states
                .iter()
                .any(|(row, state)| row == id && state == "verified")
        };
        VERIFIED.iter().all(|id| is(id)).then_some(states)
    });
    let states = states.with_context(|| format!("{:?}", self::states(&daemon)))?;
    for id in ["closed", "dropped", "rejected"] {
        let blocked = (id.to_owned(), "blocked".to_owned());
        assert!(states.contains(&blocked), "{id}: {states:?}");
    }

    // What the daemon has verified is not tried again. It listens on the router, the probe's sockets are the client's.
    let daemon_at = format!("--daemon=http://{LISTEN}");
    let client = scene.lab.client.network_path();
    let output = scene.probe_on(
        &scene.lab.router,
        &[
            "--netns",
            &client,
            &daemon_at,
            "--format",
            "json",
            "--dry-run",
        ],
    )?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let left = lines(&output)?;
    let verified = states
        .iter()
        .filter(|(_, state)| state == "verified")
        .count();
    let summary = left.last().context("no summary")?;
    assert_eq!(summary["verified_before"], verified, "{summary}");
    for id in VERIFIED {
        assert!(left.iter().all(|line| line["id"] != format!("lab/{id}")));
    }
    row(&left, "dropped");
    let ledger = daemon.folder().join("state/ledger.sqlite");
    of_a_ledger(&scene, &ledger.display().to_string(), verified)
}

/// The ledger tells the same as the daemon that writes it, a few seconds later.
fn of_a_ledger(scene: &Scene, ledger: &str, verified: usize) -> Result<()> {
    let mut last = None;
    let same = wait_for(Duration::from_secs(15), || {
        let arguments = ["--ledger", ledger, "--format", "json", "--dry-run"];
        let output = scene.probe_on(&scene.lab.client, &arguments).ok()?;
        last = lines(&output).ok()?.last().cloned();
        (last.as_ref()?["verified_before"] == verified).then_some(())
    });
    assert!(same.is_some(), "{last:?}");
    Ok(())
}

#[track_caller]
fn what_is_stopped(found: &[Value]) {
    let hop = format!("hop {ROUTER_CLIENT_SIDE}");
    let blocked = "blocked";
    assert_row(found, "closed", blocked, Some("refused"), Some("peer"));
    assert_row(found, "dropped", blocked, Some("no_answer"), Some("path"));
    assert_row(found, "rejected", blocked, Some("prohibited"), Some(&hop));
    assert_eq!(row(found, "rejected")["confidence"], "high");
    let hop = Some("hop fd00:20::1");
    assert_row(found, "rejected-six", blocked, Some("prohibited"), hop);
    assert_row(found, "half", blocked, Some("refused"), Some("peer"));
    let half = &row(found, "half")["services"];
    assert_eq!(half[0]["state"], "verified");
    // One server, one port, and what reads names in between lets some pass.
    assert_row(found, "bad", blocked, Some("refused"), Some("peer"));
    let said = evidence(found, "bad");
    assert!(
        said.contains("after the ClientHello for bad.lab.example"),
        "{said}"
    );
    assert_row(found, "mute", blocked, Some("no_answer"), Some("path"));
    assert!(evidence(found, "mute").contains("silence after the ClientHello"));
    assert_row(found, "shut", blocked, Some("refused"), Some("peer"));
    assert!(evidence(found, "shut").contains("ICMP 3/3 from 10.1.0.12"));
    assert_row(
        found,
        "kept",
        blocked,
        Some("dropped_here"),
        Some("this_host"),
    );
    // Somebody answered, but not our question.
    assert_row(found, "forged", blocked, Some("no_answer"), Some("path"));
    assert!(evidence(found, "forged").contains("no answer to it"));
}

#[track_caller]
fn what_cannot_be_told(found: &[Value]) {
    assert_row(found, "syslog", "unknown", Some("one_way"), None);
    let unobservable = "unobservable";
    for id in ["net", "wild", "inside"] {
        assert_row(found, id, unobservable, Some("no_exact_address"), None);
        assert_eq!(row(found, id)["probes"], Value::Array(Vec::new()));
    }
    assert_row(found, "snmp", unobservable, Some("no_question"), None);
    assert_row(found, "back", unobservable, Some("not_from_here"), None);
    assert_row(
        found,
        "nowhere",
        "silent",
        Some("name_does_not_resolve"),
        None,
    );
    // Nobody listens on two of the three ports that were tried.
    assert_row(found, "range", "verified", None, None);
    assert_eq!(row(found, "range")["ranges"][0]["tried"], 3);
    assert_eq!(row(found, "range")["ranges"][0]["of"], 5);

    assert!(evidence(found, "good").contains("handshake completed"));
    assert!(evidence(found, "odd").contains("certificate is for another name"));
    assert!(evidence(found, "quic").contains("QUIC versions"));
    let probe = &row(found, "good")["probes"][0];
    assert_eq!(probe["name"], "good.lab.example");
    assert_eq!(probe["target"], WEB.to_string());
    assert_eq!(probe["initiator"], "10.20.0.2");
    let summary = found.last().expect("a summary");
    assert_eq!(summary["type"], "summary");
    assert_eq!(summary["dry_run"], false);
    assert_eq!(summary["by_state"]["verified"], VERIFIED.len() + 1);
}

fn states(daemon: &Daemon) -> Result<Vec<(String, String)>> {
    let body = daemon.get("/api/v1/requirements")?.body;
    let rows: Vec<Value> = serde_json::from_str(&body)?;
    Ok(rows
        .iter()
        .map(|row| {
            let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
            (text("id").replace("lab/", ""), text("state"))
        })
        .collect())
}

#[test]
fn a_dry_run_sends_nothing() -> Result<()> {
    if skipped("a_dry_run_sends_nothing") {
        return Ok(());
    }
    let scene = Scene::new()?;
    for format in ["json", "text"] {
        let arguments = ["--dry-run", "--format", format];
        let output = scene.probe_on(&scene.lab.client, &arguments)?;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8(output.stdout)?;
        for part in [
            "good.lab.example",
            "tls handshake",
            "ntp query",
            "10.1.0.12",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    assert_eq!(scene.sent()?, [0, 0]);
    // The counters count: the same rows, one of them probed.
    let arguments = ["--requirement", "lab/ntp"];
    let output = scene.probe_on(&scene.lab.client, &arguments)?;
    let text = String::from_utf8(output.stdout)?;
    assert!(text.starts_with("verified     lab/ntp\n"), "{text}");
    assert_eq!(scene.sent()?, [1, 0]);
    Ok(())
}

#[test]
fn the_place_of_the_probe_is_the_operators() -> Result<()> {
    if skipped("the_place_of_the_probe_is_the_operators") {
        return Ok(());
    }
    let scene = Scene::new()?;
    let open = |more: &[&str]| {
        let mut arguments = vec!["--requirement", "lab/open", "--format", "json"];
        arguments.extend(more);
        scene.probe_on(&scene.lab.client, &arguments)
    };
    let found = lines(&open(&["--role", "lab/client"])?)?;
    assert_row(&found, "open", "verified", None, None);
    // An address of this host that the site does not bind is no client.
    let found = lines(&open(&["--from", "10.20.0.3"])?)?;
    assert_row(&found, "open", "unobservable", Some("not_from_here"), None);
    assert_eq!(scene.sent()?[1], 0);
    for (more, said) in [
        (["--from", "10.1.0.10"], "not an address of this host"),
        (["--role", "lab/app"], "no address that the site binds"),
        (["--role", "lab/nobody"], "deploys no such role"),
        (["--netns", "/nowhere"], "/nowhere"),
        (["--requirement", "lab/nothing"], "no such requirement"),
    ] {
        let output = open(&more)?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{more:?}: {text}");
        assert!(text.contains(said), "{more:?}: {text}");
    }
    let output = scene.probe_on(&scene.lab.client, &["--ledger", "/nowhere"])?;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no ledger"));
    // Without the right to enter it.
    let mut command = Command::new("setpriv");
    command
        .current_dir(scene.files.path())
        .args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"])
        .arg(binary())
        .args(["probe", "--matrix", "matrix.yaml", "--site", "site.yaml"])
        .args(["--dry-run", "--netns", &scene.lab.client.network_path()]);
    let output = run_to_end(&mut command, Duration::from_secs(20))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("CAP_SYS_ADMIN"), "{text}");
    Ok(())
}

#[test]
fn an_interruption_ends_it_at_once_with_what_is_known() -> Result<()> {
    if skipped("an_interruption_ends_it_at_once_with_what_is_known") {
        return Ok(());
    }
    let scene = Scene::new()?;
    let mut command = scene.command(&["--format", "json"]);
    command.args(["--requirement", "lab/open", "--requirement", "lab/dropped"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = scene.lab.client.start(&mut command)?;
    let begun = wait_for(Duration::from_secs(10), || {
        // A handshake and the end of the connection are four packets, then comes a SYN that nobody answers.
        (scene.sent().ok()?[0] >= 5).then_some(())
    });
    begun.context("it does not begin")?;
    std::thread::sleep(Duration::from_millis(200));
    let asked = Instant::now();
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
    let output = child.wait_with_output()?;
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let found = lines(&output)?;
    assert_row(&found, "open", "verified", None, None);
    assert_row(&found, "dropped", "unknown", Some("pending"), None);
    assert_eq!(found.last().context("no summary")?["interrupted"], true);
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"));
    Ok(())
}
