//! Events of a running daemon, where an operator or a log pipeline would read them: a file, syslog over UDP and TCP, an
//! OpenTelemetry collector; and what a destination that is gone costs.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::host::wait_for;
use flowproof_tests::lab::{self, Routed, TO_CLIENT, TO_SERVER, client4, server4};
use flowproof_tests::metrics::Metrics;
use flowproof_tests::traffic::{Server, echo_tcp, exchange, on_connections, on_datagrams};
use serde_json::Value;

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
const SOON: Duration = Duration::from_secs(3);
const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn setup(config: &str) -> Setup<'_> {
    Setup {
        backend: Backend::Auto,
        matrix: MATRIX,
        site: SITE,
        config,
        interfaces: &[TO_CLIENT, TO_SERVER],
    }
}

/// A flow to the server; whether it was answered.
fn connect(lab: &Routed, port: u16) -> bool {
    let from = Some((client4(2), 0).into());
    lab.client
        .connect(from, (server4(10), port), Duration::from_secs(2))
        .is_ok_and(|mut stream| exchange(&mut stream, b"hello").is_ok())
}

/// The events in the daemon's file, each read as JSON.
fn events(daemon: &Daemon) -> Result<Vec<Value>> {
    let path = daemon.folder().join("events.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

/// The first event for which `wanted`, if it comes soon.
fn soon(daemon: &Daemon, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = wait_for(SOON, || {
        events(daemon).ok()?.into_iter().find(|event| wanted(event))
    });
    match found {
        Some(event) => Ok(event),
        None => bail!("no event soon: {what}\n{:#?}", events(daemon)?),
    }
}

fn becomes(event: &Value, requirement: &str, state: &str) -> bool {
    event["type"] == "service_state" && event["requirement"] == requirement && event["to"] == state
}

type Heard = Arc<Mutex<Vec<String>>>;

fn heard(list: &Heard) -> Vec<String> {
    list.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A collector: answers every request with success and keeps head and body.
fn collector(lab: &Routed, port: u16) -> Result<(Server, Heard)> {
    let list: Heard = Arc::default();
    let kept = Arc::clone(&list);
    let server = on_connections(lab.router.listen((LOCAL, port))?, move |stream| {
        if let Ok(request) = request(stream) {
            kept.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(request);
        }
    })?;
    Ok((server, list))
}

fn request(mut stream: TcpStream) -> Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            bail!("cut short");
        }
        bytes.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let announced: usize = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            })
            .context("no length")?;
        if body.len() >= announced {
            let text = text.into_owned();
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            )?;
            return Ok(text);
        }
    }
}

#[test]
fn events_reach_every_destination_once() -> Result<()> {
    if lab::skipped("events_reach_every_destination_once") {
        return Ok(());
    }
    let lab = Routed::new()?;
    let _server = echo_tcp(lab.server.listen((server4(10), 8000))?)?;
    let datagrams: Heard = Arc::default();
    let kept = Arc::clone(&datagrams);
    let _syslog = on_datagrams(lab.router.udp((LOCAL, 5_514))?, move |datagram, _| {
        let text = String::from_utf8_lossy(datagram).into_owned();
        kept.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(text);
    })?;
    let (_collector, requests) = collector(&lab, 4_318)?;
    let config = "
events:
  json: {path: events.json}
  syslog: {address: 'udp://127.0.0.1:5514'}
  otlp: {endpoint: 'http://127.0.0.1', protocol: http/json, headers: {authorization: Bearer lab}}
";
    let mut daemon = Daemon::start(&lab.router, &setup(config))?;
    soon(&daemon, "the start", |event| {
        event["type"] == "daemon_started"
    })?;

    // A scrape is a look: from here on the rows are known to be silent.
    daemon.metrics()?;
    // Nobody listens there.
    assert!(!connect(&lab, 8_001));
    let blocked = soon(&daemon, "a blocked row", |event| {
        becomes(event, "closed", "blocked")
    })?;
    for (key, expect) in [
        ("severity", "error"),
        ("site", "hq"),
        ("system", "lab"),
        ("service", "tcp/8001"),
        ("from", "silent"),
        ("cause", "refused"),
        ("place", "peer"),
    ] {
        assert_eq!(blocked[key], expect, "{key} of {blocked:#}");
    }
    let evidence = blocked["evidence"].as_str().unwrap_or_default();
    assert!(evidence.contains("10.20.0.2 to 10.1.0.10"), "{evidence}");
    let id = blocked["id"].as_str().context("an id")?.to_owned();

    let datagram = wait_for(SOON, || {
        heard(&datagrams)
            .into_iter()
            .find(|text| text.contains(&id))
    });
    let datagram = datagram.context("no datagram")?;
    // daemon, error.
    assert!(datagram.starts_with("<27>1 2"), "{datagram}");
    assert!(
        datagram.contains(" service_state [meta sequenceId="),
        "{datagram}"
    );
    let json = datagram.find("] {").map(|place| &datagram[place + 2..]);
    assert_eq!(
        serde_json::from_str::<Value>(json.context("no JSON")?)?,
        blocked
    );

    let posted = wait_for(SOON, || {
        heard(&requests).into_iter().find(|text| text.contains(&id))
    });
    let posted = posted.with_context(|| format!("no request: {:?}", heard(&requests)))?;
    let (head, body) = posted.split_once("\r\n\r\n").context("no body")?;
    assert!(head.starts_with("POST /v1/logs HTTP/1.1"), "{head}");
    assert!(head.contains("authorization: Bearer lab"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    let body: Value = serde_json::from_str(body)?;
    let records = &body["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
    let record = records
        .as_array()
        .and_then(|records| {
            records
                .iter()
                .find(|record| record.to_string().contains(&id))
        })
        .context("no record")?;
    assert_eq!(record["eventName"], "flowproof.service_state");
    assert_eq!(record["severityNumber"], 17);
    assert!(
        record["timeUnixNano"]
            .as_str()
            .is_some_and(|time| time.len() == 19)
    );

    assert!(connect(&lab, 8_000));
    soon(&daemon, "a verified row", |event| {
        becomes(event, "open", "verified")
    })?;
    for _ in 0..20 {
        connect(&lab, 2_222);
    }
    soon(&daemon, "unexpected flows", |event| {
        event["type"] == "unexpected_flows"
            && event["service"] == "tcp/2222"
            && event["first"] == true
    })?;
    daemon.reload("matrix.yaml", "system: [\n")?;
    let failed = soon(&daemon, "a bad matrix", |event| {
        event["type"] == "matrix_reload_failed"
    })?;
    assert!(
        failed["problems"][0]
            .as_str()
            .is_some_and(|text| text.contains("matrix.yaml:"))
    );
    daemon.reload("matrix.yaml", MATRIX)?;
    soon(&daemon, "a good matrix", |event| {
        event["type"] == "matrix_reloaded"
    })?;

    daemon.terminate()?;
    let before = events(&daemon)?;
    assert_eq!(
        before.last().map(|event| &event["type"]),
        Some(&"daemon_stopping".into())
    );
    let unexpected: Vec<&Value> = before
        .iter()
        .filter(|event| event["type"] == "unexpected_flows")
        .collect();
    let flows = unexpected
        .iter()
        .filter_map(|event| event["flows"].as_u64());
    assert_eq!(flows.sum::<u64>(), 20, "{unexpected:#?}");
    assert!(unexpected.len() <= 2, "{unexpected:#?}");
    let states = before
        .iter()
        .filter(|event| event["type"] == "service_state");
    assert_eq!(states.count(), 2, "{before:#?}");

    // What is known is not told again.
    daemon.start_again()?;
    connect(&lab, 2_222);
    thread::sleep(SOON);
    let after = events(&daemon)?;
    let new: Vec<&Value> = after[before.len()..]
        .iter()
        .map(|event| &event["type"])
        .collect();
    assert_eq!(new, ["daemon_started"], "{:#?}", &after[before.len()..]);
    Ok(())
}

#[test]
fn syslog_over_tcp_counts_octets() -> Result<()> {
    if lab::skipped("syslog_over_tcp_counts_octets") {
        return Ok(());
    }
    let lab = Routed::new()?;
    let listener = lab.router.listen((LOCAL, 6_514))?;
    let config = "events: {syslog: {address: 'tcp://127.0.0.1:6514', facility: local0}}\n";
    let daemon = Daemon::start(&lab.router, &setup(config))?;
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    assert!(frame(&mut stream)?.contains(" daemon_started "));
    assert!(!connect(&lab, 8_001));
    let state = frame(&mut stream)?;
    assert!(
        state.starts_with("<131>1 ") && state.contains("\"to\":\"blocked\""),
        "{state}"
    );
    let told = daemon.metrics()?;
    assert_eq!(
        told.count("flowproof_events_total", &[("sink", "syslog")]),
        2
    );
    Ok(())
}

/// A frame of RFC 6587, section 3.4.1.
fn frame(stream: &mut TcpStream) -> Result<String> {
    let mut length = String::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        match byte[0] {
            b' ' => break,
            digit if digit.is_ascii_digit() => length.push(char::from(digit)),
            other => bail!("{other} in the length"),
        }
    }
    let mut message = vec![0; length.parse()?];
    stream.read_exact(&mut message)?;
    Ok(String::from_utf8(message)?)
}

#[test]
fn destinations_that_are_gone_cost_nothing_but_events() -> Result<()> {
    if lab::skipped("destinations_that_are_gone_cost_nothing_but_events") {
        return Ok(());
    }
    let lab = Routed::new()?;
    let _server = echo_tcp(lab.server.listen((server4(10), 8000))?)?;
    // A collector that takes connections and never answers; a file that nobody can write; no syslog.
    let _silent = lab.router.listen((LOCAL, 4_318))?;
    let config = "
events:
  json: {path: not-there/events.json}
  syslog: {address: 'tcp://127.0.0.1:6514'}
  otlp: {endpoint: 'http://127.0.0.1:4318', timeout: 1s}
";
    let mut daemon = Daemon::start(&lab.router, &setup(config))?;
    let sinks = ["json", "syslog", "otlp"];
    let down = |metrics: &Metrics| {
        sinks.iter().all(|sink| {
            let labels = [("sink", *sink)];
            metrics.has("flowproof_event_sink_up", &labels)
                && metrics.count("flowproof_event_sink_up", &labels) == 0
        })
    };
    let (metrics, all) = daemon.wait_metrics(Duration::from_secs(5), down)?;
    assert!(all, "{}", metrics.show("flowproof_event_sink_up", &[]));
    let begun = Instant::now();
    assert!(connect(&lab, 8_000) && !connect(&lab, 8_001));
    let judged = wait_for(SOON, || {
        let rows: Vec<Value> =
            serde_json::from_str(&daemon.get("/api/v1/requirements").ok()?.body).ok()?;
        (rows[0]["state"] == "verified" && rows[1]["state"] == "blocked").then_some(())
    });
    assert!(
        judged.is_some(),
        "it does not go on judging; {:?}",
        begun.elapsed()
    );
    assert_eq!(daemon.get("/-/ready")?.status, 200);
    thread::sleep(Duration::from_secs(3));
    for name in ["the event file", "syslog at", "the collector at"] {
        let said = daemon.stderr().matches(&format!("{name} ")).count();
        assert_eq!(said, 1, "{name}: {}", daemon.stderr());
    }

    // The folder is made: nothing is lost.
    std::fs::create_dir(daemon.folder().join("not-there"))?;
    let path = daemon.folder().join("not-there/events.json");
    let back = wait_for(Duration::from_secs(20), || {
        let text = std::fs::read_to_string(&path).ok()?;
        (text.contains("daemon_started") && text.contains("\"blocked\"")).then_some(())
    });
    assert!(back.is_some(), "{}", daemon.stderr());
    // Nor does the end wait for them.
    let (status, taken) = daemon.terminate()?;
    assert!(
        status.success() && taken < Duration::from_secs(5),
        "{status} {taken:?}"
    );
    Ok(())
}
