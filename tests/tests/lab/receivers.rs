//! Events as receivers understand them that know nothing of flowproof: an OpenTelemetry collector over every protocol, in
//! the clear and over TLS, and Debian's rsyslog over every transport. And what becomes of events where the way to them is
//! barred: a certificate that has expired, a disk that is full.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::host::{Host, wait_for};
use flowproof_tests::lab::{self, Routed, TO_CLIENT, TO_SERVER, client4, server4};
use flowproof_tests::names::identity::Identity;
use flowproof_tests::receivers::{Receiver, has_rsyslog, rotel};
use flowproof_tests::skip;
use flowproof_tests::traffic::{echo_tcp, exchange};
use serde_json::Value;
use tempfile::TempDir;

const MATRIX: &str = "
system: lab
title: Lab
roles: {client: {title: Client}, server: {title: Server}}
requirements:
  - {id: open, from: client, to: server, services: [tcp/8000]}
  - {id: closed, from: client, to: server, services: [tcp/8001]}
";
const SITE: &str = "
site: hq
systems: [lab]
roles: {lab/client: [10.20.0.2], lab/server: [10.1.0.10]}
";
/// How long an event may take from the packet to the reader.
const SOON: Duration = Duration::from_secs(10);
/// How long a destination that works again may be left alone.
const RETRY: Duration = Duration::from_secs(25);

fn start(host: &Arc<Host>, config: &str) -> Result<Daemon> {
    let setup = Setup {
        backend: Backend::Auto,
        matrix: MATRIX,
        site: SITE,
        config,
        interfaces: &[TO_CLIENT, TO_SERVER],
    };
    Daemon::start(host, &setup)
}

/// A flow to the server; whether it was answered.
fn connect(lab: &Routed, port: u16) -> bool {
    let from = Some((client4(2), 0).into());
    lab.client
        .connect(from, (server4(10), port), Duration::from_secs(2))
        .is_ok_and(|mut stream| exchange(&mut stream, b"hello").is_ok())
}

/// The events in a text of JSON Lines.
fn lines(text: &str) -> Result<Vec<Value>> {
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

/// The events in the daemon's file.
fn told(daemon: &Daemon) -> Result<Vec<Value>> {
    lines(&fs::read_to_string(daemon.folder().join("events.json")).unwrap_or_default())
}

fn id(event: &Value) -> &str {
    event["id"].as_str().unwrap_or_default()
}

/// Has a row blocked, and waits until the daemon has told of it.
fn happen(lab: &Routed, daemon: &Daemon) -> Result<()> {
    assert!(!connect(lab, 8_001));
    let blocked = wait_for(SOON, || {
        let events = told(daemon).ok()?;
        let wanted = |event: &&Value| event["type"] == "service_state" && event["to"] == "blocked";
        events.iter().find(wanted).map(|_| ())
    });
    blocked.with_context(|| format!("nothing is blocked: {}", daemon.stderr()))
}

/// What a collector behind TLS says to nginx: HTTP/2 for gRPC, HTTP/1.1 for the other; who comes must have a certificate.
fn front(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "ssl_certificate {folder}/server/certificate.pem;\nssl_certificate_key {folder}/server/key.pem;\n\
         ssl_client_certificate {folder}/client/certificate.pem;\nssl_verify_client on;\n\
         server {{ listen 127.0.0.1:4443 ssl http2; location / {{ grpc_pass grpc://127.0.0.1:4317; }} }}\n\
         server {{ listen 127.0.0.1:4444 ssl; location / {{ proxy_pass http://127.0.0.1:4318; }} }}\n"
    )
}

fn write(identity: &Identity, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    identity.write(folder)
}

#[test]
fn a_collector_takes_every_event_once_over_every_protocol() -> Result<()> {
    const TEST: &str = "a_collector_takes_every_event_once_over_every_protocol";
    if lab::skipped(TEST) {
        return Ok(());
    }
    let Some(program) = rotel() else {
        skip::skip(TEST, "rotel is missing: `cargo xtask test` brings it");
        return Ok(());
    };
    let lab = Routed::new()?;
    let folder = TempDir::with_prefix("flowproof-tls-")?;
    write(
        &Identity::new(&["127.0.0.1"])?,
        &folder.path().join("server"),
    )?;
    write(&Identity::new(&["agent"])?, &folder.path().join("client"))?;
    let path = folder.path().display();
    let tls = format!(
        ", tls: {{ca: '{path}/server/certificate.pem', certificate: '{path}/client/certificate.pem', key: '{path}/client/key.pem'}}"
    );
    let collector = Receiver::rotel(&lab.router, &program, 4_317, 4_318)?;
    let _front = Receiver::nginx(&lab.router, &front(folder.path()), &[4_443, 4_444])?;
    for otlp in [
        "endpoint: 'http://127.0.0.1', protocol: grpc".to_owned(),
        "endpoint: 'http://127.0.0.1'".to_owned(),
        "endpoint: 'http://127.0.0.1', protocol: http/json".to_owned(),
        format!("endpoint: 'https://127.0.0.1:4443', protocol: grpc{tls}"),
        format!("endpoint: 'https://127.0.0.1:4444'{tls}"),
    ] {
        let config = format!("events: {{json: {{path: events.json}}, otlp: {{{otlp}}}}}\n");
        let mut daemon = start(&lab.router, &config)?;
        happen(&lab, &daemon)?;
        daemon.terminate()?;
        let events = told(&daemon)?;
        let types: BTreeSet<&str> = events
            .iter()
            .filter_map(|event| event["type"].as_str())
            .collect();
        assert!(
            types.is_superset(&["daemon_started", "service_state", "daemon_stopping"].into()),
            "{otlp}: {events:#?}"
        );
        // Records of a collector's own log, from their number to the flags at their end.
        let taken = |event: &Value| {
            let line = format!("     -> id: Str({})\n", id(event));
            let output = collector.output();
            let of: Vec<String> = output
                .split("LogRecord #")
                .filter(|record| record.contains(&line))
                .map(str::to_owned)
                .collect();
            of
        };
        for event in &events {
            let records = wait_for(SOON, || {
                Some(taken(event)).filter(|found| !found.is_empty())
            });
            let records = records.with_context(|| {
                format!(
                    "{otlp}: not taken: {event:#}\n{}\n{}",
                    daemon.stderr(),
                    collector.output()
                )
            })?;
            assert_eq!(records.len(), 1, "{otlp}: {records:#?}");
            let severity = match event["severity"].as_str() {
                Some("error") => "SEVERITY_NUMBER_ERROR(17)",
                Some("warning") => "SEVERITY_NUMBER_WARN(13)",
                _ => "SEVERITY_NUMBER_INFO(9)",
            };
            for part in [
                format!(
                    "EventName: flowproof.{}\n",
                    event["type"].as_str().unwrap_or_default()
                ),
                format!(
                    "Body: Str({})\n",
                    event["message"].as_str().unwrap_or_default()
                ),
                format!("SeverityNumber: {severity}\n"),
            ] {
                assert!(
                    records[0].contains(&part),
                    "{otlp}: {part} in {}",
                    records[0]
                );
            }
        }
        let output = collector.output();
        assert!(
            output.contains("-> service.name: Str(flowproof)"),
            "{output}"
        );
        assert!(output.contains("-> flowproof.site: Str(hq)"), "{output}");
        assert!(
            !daemon.stderr().contains("takes no events"),
            "{}",
            daemon.stderr()
        );
    }
    Ok(())
}

#[test]
fn syslog_is_understood_over_every_transport() -> Result<()> {
    const TEST: &str = "syslog_is_understood_over_every_transport";
    if lab::skipped(TEST) {
        return Ok(());
    }
    if !has_rsyslog() {
        skip::skip(
            TEST,
            "rsyslog is missing: `apt-get install rsyslog rsyslog-openssl`",
        );
        return Ok(());
    }
    let lab = Routed::new()?;
    let folder = TempDir::with_prefix("flowproof-syslog-")?;
    write(&Identity::new(&["127.0.0.1"])?, folder.path())?;
    let path = folder.path().display();
    // The local socket with rsyslog's own defaults, as it listens on /dev/log.
    let inputs = format!(
        "module(load=\"imuxsock\" SysSock.Use=\"off\")\nmodule(load=\"imudp\")\nmodule(load=\"imtcp\")\n\
         input(type=\"imuxsock\" Socket=\"{path}/log\")\n\
         input(type=\"imudp\" address=\"127.0.0.1\" port=\"514\")\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"601\")\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"6514\" name=\"tls\" streamDriver.name=\"ossl\" streamDriver.mode=\"1\" \
         streamDriver.authMode=\"anon\" streamDriver.keyFile=\"{path}/key.pem\" \
         streamDriver.certFile=\"{path}/certificate.pem\" streamDriver.caFile=\"{path}/certificate.pem\")\n"
    );
    let server = Receiver::rsyslog(&lab.router, &inputs, &[601, 6_514])?;
    let tls = format!("tls://127.0.0.1', tls: {{ca: '{path}/certificate.pem'}}, facility: 'local1");
    for (address, input) in [
        (format!("unix://{path}/log"), "imuxsock"),
        ("udp://127.0.0.1".to_owned(), "imudp"),
        ("tcp://127.0.0.1".to_owned(), "imtcp"),
        (tls, "tls"),
    ] {
        let config = format!(
            "events: {{json: {{path: events.json}}, syslog: {{enterprise: 32473, address: '{address}'}}}}\n"
        );
        let mut daemon = start(&lab.router, &config)?;
        happen(&lab, &daemon)?;
        daemon.terminate()?;
        let events = told(&daemon)?;
        assert!(events.len() >= 3, "{address}: {events:#?}");
        for event in &events {
            let found = wait_for(SOON, || {
                let messages = server.messages();
                let mine =
                    |fields: &&Vec<String>| fields.len() == 9 && fields[8].contains(id(event));
                messages.iter().find(mine).cloned()
            });
            let fields = found.with_context(|| {
                format!(
                    "{address}: no message: {event:#}\n{}\n{}",
                    daemon.stderr(),
                    server.output()
                )
            })?;
            let message: Value = serde_json::from_str(fields[8].trim_start())
                .with_context(|| format!("{address}: {fields:?}"))?;
            assert_eq!(message, *event, "{address}");
            let severity = match event["severity"].as_str() {
                Some("error") => "err",
                Some("warning") => "warning",
                _ => "info",
            };
            let facility = if input == "tls" { "local1" } else { "daemon" };
            assert_eq!(fields[1], format!("{facility}.{severity}"), "{address}");
            assert_eq!(
                (fields[0].as_str(), fields[4].as_str()),
                (input, "flowproof")
            );
            assert!(fields[5].parse::<u32>().is_ok(), "{address}: {fields:?}");
            if input == "imuxsock" {
                continue;
            }
            let time = event["time"].as_str().unwrap_or_default();
            assert_eq!(fields[2].trim_end_matches('Z'), &time[..26], "{address}");
            assert_eq!(fields[3], event["agent"].as_str().unwrap_or_default());
            assert_eq!(fields[6], event["type"].as_str().unwrap_or_default());
            let data = &fields[7];
            assert!(
                data.starts_with("[meta sequenceId=\"") && data.contains("[event@32473 time=\""),
                "{address}: {data}"
            );
        }
    }
    Ok(())
}

#[test]
fn an_expired_certificate_keeps_events_and_not_the_daemon_waiting() -> Result<()> {
    const TEST: &str = "an_expired_certificate_keeps_events_and_not_the_daemon_waiting";
    if lab::skipped(TEST) {
        return Ok(());
    }
    let Some(program) = rotel() else {
        skip::skip(TEST, "rotel is missing: `cargo xtask test` brings it");
        return Ok(());
    };
    let lab = Routed::new()?;
    let _server = echo_tcp(lab.server.listen((server4(10), 8000))?)?;
    let folder = TempDir::with_prefix("flowproof-tls-")?;
    let (server, client) = (folder.path().join("server"), folder.path().join("client"));
    write(&Identity::expired(&["127.0.0.1"])?, &server)?;
    write(&Identity::new(&["agent"])?, &client)?;
    let path = folder.path().display();
    let config = format!(
        "events: {{json: {{path: events.json}}, otlp: {{endpoint: 'https://127.0.0.1:4443', protocol: grpc, \
         tls: {{ca: '{path}/server/certificate.pem', certificate: '{path}/client/certificate.pem', key: '{path}/client/key.pem'}}}}}}\n"
    );
    let collector = Receiver::rotel(&lab.router, &program, 4_317, 4_318)?;
    let front_of = || Receiver::nginx(&lab.router, &front(folder.path()), &[4_443, 4_444]);
    let stale = front_of()?;
    let daemon = start(&lab.router, &config)?;
    let otlp = [("sink", "otlp")];
    let (metrics, down) = daemon.wait_metrics(SOON, |metrics| {
        metrics.has("flowproof_event_sink_up", &otlp)
            && metrics.count("flowproof_event_sink_up", &otlp) == 0
    })?;
    assert!(down, "{}", metrics.show("flowproof_event_sink_up", &[]));
    assert!(connect(&lab, 8_000));
    happen(&lab, &daemon)?;
    let rows: Vec<Value> = serde_json::from_str(&daemon.get("/api/v1/requirements")?.body)?;
    assert_eq!(
        (&rows[0]["state"], &rows[1]["state"]),
        (&"verified".into(), &"blocked".into())
    );
    assert_eq!(daemon.get("/-/ready")?.status, 200);
    let count = told(&daemon)?.len() as u64;
    let metrics = daemon.metrics()?;
    for (name, expect) in [
        ("flowproof_events_total", 0),
        ("flowproof_events_dropped_total", 0),
        ("flowproof_events_waiting", count),
    ] {
        assert_eq!(metrics.count(name, &otlp), expect, "{name}");
    }
    let said = |part: &str| {
        daemon
            .stderr()
            .lines()
            .filter(|line| line.contains(part))
            .count()
    };
    assert_eq!(
        said("the collector at https://127.0.0.1:4443 takes no events: TLS: "),
        1
    );
    assert_eq!(said("xpired"), 1, "{}", daemon.stderr());

    // Its certificate is renewed: the daemon finds out by itself, and nothing is lost.
    drop(stale);
    write(&Identity::new(&["127.0.0.1"])?, &server)?;
    let _fresh = front_of()?;
    let (metrics, back) = daemon.wait_metrics(RETRY, |metrics| {
        metrics.count("flowproof_events_total", &otlp) >= count
    })?;
    assert!(
        back,
        "{}\n{}",
        metrics.show("flowproof_events_total", &[]),
        daemon.stderr()
    );
    assert_eq!(metrics.count("flowproof_event_sink_up", &otlp), 1);
    assert_eq!(metrics.count("flowproof_events_dropped_total", &otlp), 0);
    assert_eq!(said("takes events again"), 1, "{}", daemon.stderr());
    let output = wait_for(SOON, || {
        let output = collector.output();
        output.contains("-> to: Str(blocked)").then_some(output)
    });
    assert!(output.is_some(), "{}", collector.output());
    Ok(())
}

#[test]
fn a_full_disk_costs_no_event_and_no_verdict() -> Result<()> {
    if lab::skipped("a_full_disk_costs_no_event_and_no_verdict") {
        return Ok(());
    }
    let lab = Routed::new()?;
    let _server = echo_tcp(lab.server.listen((server4(10), 8000))?)?;
    let folder = TempDir::with_prefix("flowproof-full-")?;
    let disk = folder.path().display().to_string();
    let on_router = |program: &str, arguments: &[&str]| lab.router.command(program, arguments);
    // Two pages: room for a few events, in the router's mounts alone.
    on_router("mount", &["-t", "tmpfs", "-o", "size=8k", "tmpfs", &disk])?;
    let config = format!("events: {{json: {{path: '{disk}/events.json'}}}}\n");
    let mut daemon = start(&lab.router, &config)?;
    for port in 2_000..2_030 {
        connect(&lab, port);
    }
    assert!(connect(&lab, 8_000) && !connect(&lab, 8_001));
    let json = [("sink", "json")];
    let (metrics, full) = daemon.wait_metrics(SOON, |metrics| {
        metrics.count("flowproof_event_sink_up", &json) == 0
            && metrics.count("flowproof_events_waiting", &json) >= 10
    })?;
    assert!(full, "{}", metrics.show("flowproof_events_waiting", &[]));
    let rows: Vec<Value> = serde_json::from_str(&daemon.get("/api/v1/requirements")?.body)?;
    assert_eq!(
        (&rows[0]["state"], &rows[1]["state"]),
        (&"verified".into(), &"blocked".into())
    );
    // What is there is whole.
    let file = format!("{disk}/events.json");
    let before = lines(&on_router("cat", &[&file])?)?;
    assert!(!before.is_empty());
    assert_eq!(
        metrics.count("flowproof_events_total", &json),
        before.len() as u64
    );
    let said = daemon.stderr().matches("takes no events: ").count();
    assert_eq!(said, 1, "{}", daemon.stderr());
    assert!(daemon.stderr().contains("No space left on device"));

    on_router("mount", &["-o", "remount,size=1m", &disk])?;
    let (metrics, back) = daemon.wait_metrics(RETRY, |metrics| {
        metrics.count("flowproof_events_waiting", &json) == 0
    })?;
    assert!(
        back,
        "{}\n{}",
        metrics.show("flowproof_events_waiting", &[]),
        daemon.stderr()
    );
    daemon.terminate()?;
    let events = lines(&on_router("cat", &[&file])?)?;
    let ids: BTreeSet<&str> = events.iter().map(id).collect();
    assert_eq!(ids.len(), events.len(), "an event is there twice");
    // Numbered from 1, and none is missing.
    let numbers: Vec<usize> = events
        .iter()
        .filter_map(|event| id(event).split_once('-')?.1.parse().ok())
        .collect();
    assert_eq!(numbers, (1..=events.len()).collect::<Vec<_>>());
    Ok(())
}
