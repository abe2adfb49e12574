//! `flowproof run` as an operator meets it: the real binary on loopback, asked over HTTP, told by signals.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use flowproof_tests::skip::skip;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const START_LIMIT: Duration = Duration::from_secs(60);
const END_LIMIT: Duration = Duration::from_secs(5);

/// A matrix of one requirement, towards a port of this host.
fn write_files(folder: &Path, port: u16) {
    let matrix = format!(
        "system: app\ntitle: App\nroles: {{web: {{}}, db: {{}}}}\nrequirements:\n- {{id: web-to-db, from: web, to: db, services: [tcp/{port}]}}\n"
    );
    fs::write(folder.join("m.yaml"), matrix).unwrap();
    fs::write(
        folder.join("s.yaml"),
        "site: here\nsystems: [app]\nroles: {app/web: [127.0.0.1], app/db: [127.0.0.1]}\n",
    )
    .unwrap();
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn flowproof(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowproof"));
    command.current_dir(folder).arg("run").args(arguments);
    // Else what one daemon keeps is taken up by the next, and outlives the test.
    if !arguments.contains(&"--state-dir") {
        command.args(["--state-dir", "state"]);
    }
    command
}

/// Runs a start that must fail: exit code and what was said.
fn refused(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = flowproof(folder, arguments).output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

struct Daemon {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Daemon {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let log = folder.join("log");
        let child = flowproof(folder, arguments)
            .args(["--listen", &address.to_string()])
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut daemon = Self {
            child,
            address,
            log,
        };
        let begin = Instant::now();
        while daemon
            .get("/-/ready")
            .is_none_or(|(status, _)| status != 200)
        {
            assert!(begin.elapsed() < START_LIMIT, "{}", daemon.said());
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("{status}: {}", daemon.said());
            }
            sleep(Duration::from_millis(50));
        }
        daemon
    }

    /// Status and body of a request; none if nobody answers.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n")?.1.to_owned();
        Some((status, body))
    }

    fn metric(&self, series: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    /// Waits until a series has a value.
    fn await_metric(&self, series: &str, expect: f64) {
        let begin = Instant::now();
        loop {
            let value = self.metric(series);
            if value == Some(expect) {
                return;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(8),
                "{series} is {value:?}, not {expect}\n{}",
                self.said()
            );
            sleep(Duration::from_millis(100));
        }
    }

    fn tell(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        self.tell(signal);
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < END_LIMIT, "{}", self.said());
            sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn may_capture(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip(test, "capturing needs root");
    }
    root
}

const FILES: [&str; 4] = ["--matrix", "m.yaml", "--site", "s.yaml"];
const ON_LOOPBACK: [&str; 8] = [
    "--capture",
    "pcap",
    "--interface",
    "lo",
    "--matrix",
    "m.yaml",
    "--site",
    "s.yaml",
];

#[test]
fn judges_loopback_reloads_and_ends() {
    if !may_capture("judges_loopback_reloads_and_ends") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    write_files(folder.path(), port);
    let mut daemon = Daemon::start(folder.path(), &ON_LOOPBACK);

    let series = |name: &str, more: &str| {
        format!(
            "flowproof_requirement_{name}{{system=\"app\",requirement=\"web-to-db\",service=\"tcp/{port}\"{more}}}"
        )
    };
    let answered = series("flows_total", ",outcome=\"answered\"");
    assert_eq!(daemon.metric(&answered), Some(0.0));
    for _ in 0..3 {
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let (peer, _) = server.accept().unwrap();
        drop((client, peer));
    }
    daemon.await_metric(&answered, 3.0);
    drop(server);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    daemon.await_metric(&series("flows_total", ",outcome=\"refused\""), 1.0);
    daemon.await_metric(&series("attempts_total", ""), 4.0);
    let (status, page) = daemon.get("/").unwrap();
    assert_eq!(status, 200);
    assert!(
        page.contains("web-to-db") && page.contains("degraded"),
        "{page}"
    );

    // A bad file keeps the old matrix, and every error is named.
    let reloaded = "flowproof_matrix_last_reload_successful";
    daemon.await_metric(reloaded, 1.0);
    fs::write(folder.path().join("m.yaml"), "system: App\ntitle: 'x\n").unwrap();
    daemon.tell(Signal::SIGHUP);
    daemon.await_metric(reloaded, 0.0);
    assert_eq!(daemon.metric(&answered), Some(3.0));
    assert_eq!(daemon.get("/-/ready").unwrap().0, 200);
    let said = daemon.said();
    assert!(
        said.contains("m.yaml:") && said.contains("not reloaded"),
        "{said}"
    );

    // A good one is taken, and the counts of what both have go on.
    write_files(folder.path(), port);
    daemon.tell(Signal::SIGHUP);
    daemon.await_metric(reloaded, 1.0);
    assert_eq!(daemon.metric(&answered), Some(3.0));

    let status = daemon.end(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{}", daemon.said());
    assert!(TcpStream::connect(daemon.address).is_err());
}

/// A download that broke must not empty a role.
#[test]
fn keeps_the_last_good_service_tags() {
    if !may_capture("keeps_the_last_good_service_tags") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    write_files(folder, port);
    let site = "site: here\nsystems: [app]\nroles: {app/web: [127.0.0.1], app/db: ['tag:HERE']}\n";
    fs::write(folder.join("s.yaml"), site).unwrap();
    let list = "127.0.0.1\n192.0.2.1\n192.0.2.3\n192.0.2.5\n192.0.2.7\n";
    fs::write(folder.join("here.txt"), list).unwrap();
    let tags = ["--tags", "here.txt", "--state-dir", "state"];
    let flags = [&ON_LOOPBACK[..], &tags].concat();
    let mut daemon = Daemon::start(folder, &flags);
    let prefixes = "flowproof_service_tag_prefixes{tag=\"here\"}";
    let loaded = "flowproof_service_tag_file_loaded{file=\"here.txt\"}";
    let reloaded = "flowproof_matrix_last_reload_success_timestamp_seconds";
    daemon.await_metric(prefixes, 5.0);
    daemon.await_metric(loaded, 1.0);
    let copies = || fs::read_dir(folder.join("state/tags")).map_or(0, Iterator::count);
    let begin = Instant::now();
    while copies() == 0 {
        assert!(begin.elapsed() < START_LIMIT, "{}", daemon.said());
        sleep(Duration::from_millis(10));
    }
    let answered = format!(
        "flowproof_requirement_flows_total{{system=\"app\",requirement=\"web-to-db\",service=\"tcp/{port}\",outcome=\"answered\"}}"
    );
    let connect = || {
        drop((
            TcpStream::connect(server.local_addr().unwrap()).unwrap(),
            server.accept().unwrap(),
        ))
    };
    connect();
    daemon.await_metric(&answered, 1.0);

    for (broken, said) in [
        ("127.0.0.1\n192.0.2.1\n", "from 5 to 2"),
        ("<html>\n", "of no use"),
    ] {
        let before = daemon.metric(reloaded).unwrap();
        fs::write(folder.join("here.txt"), broken).unwrap();
        daemon.tell(Signal::SIGHUP);
        let begin = Instant::now();
        while daemon.metric(reloaded) == Some(before) {
            assert!(begin.elapsed() < START_LIMIT, "{}", daemon.said());
            sleep(Duration::from_millis(10));
        }
        daemon.await_metric(loaded, 0.0);
        assert_eq!(daemon.metric(prefixes), Some(5.0));
        assert!(daemon.said().contains(said), "{}", daemon.said());
    }
    connect();
    daemon.await_metric(&answered, 2.0);

    // The copy outlives the daemon.
    assert_eq!(daemon.end(Signal::SIGTERM).code(), Some(0));
    let daemon = Daemon::start(folder, &flags);
    daemon.await_metric(loaded, 0.0);
    assert_eq!(daemon.metric(prefixes), Some(5.0));
    fs::write(folder.join("here.txt"), list.replace(".7", ".9")).unwrap();
    daemon.tell(Signal::SIGHUP);
    daemon.await_metric(loaded, 1.0);
}

#[test]
fn tells_what_was_seen() {
    if !may_capture("tells_what_was_seen") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    write_files(folder, port);
    let daemon = Daemon::start(folder, &ON_LOOPBACK);
    // Kept open: what has ended leaves the tables after some seconds.
    let kept: Vec<_> = (0..3)
        .map(|_| {
            let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
            (client, server.accept().unwrap())
        })
        .collect();
    drop(server);
    let answered = format!(
        "flowproof_requirement_flows_total{{system=\"app\",requirement=\"web-to-db\",service=\"tcp/{port}\",outcome=\"answered\"}}"
    );
    daemon.await_metric(&answered, 3.0);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    daemon.await_metric(&answered.replace("answered", "refused"), 1.0);
    let ask = |path: &str| {
        let (status, body) = daemon.get(path).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str::<Vec<Value>>(&body).unwrap()
    };
    let flows = ask(&format!("/api/v1/flows?port={port}&protocol=tcp"));
    let listing = flows.last().unwrap();
    assert_eq!(
        (&listing["type"], &listing["flows"]),
        (&json!("listing"), &json!(4)),
        "{flows:?}"
    );
    assert_eq!(listing["by_verdict"]["expected"], 4);
    assert_eq!(listing["by_outcome"]["refused"], 1);
    assert_eq!(listing["by_outcome"]["answered"], 3);
    // Flows of one tick (8.4 ms) have no order among themselves.
    let with = |outcome: &str| {
        flows
            .iter()
            .find(|flow| flow["outcome"] == outcome)
            .unwrap()
    };
    let refused = with("refused");
    assert_eq!(refused["evidence"], json!(["1 SYN, answered by RST"]));
    assert_eq!(
        refused["requirements"],
        json!([format!("app/web-to-db#tcp/{port}")])
    );
    assert_eq!(refused["responder"]["port"], port);
    assert_eq!(with("answered")["evidence"], json!(["handshake completed"]));
    let unexpected = ask("/api/v1/flows?verdict=unexpected&limit=1");
    assert_eq!(unexpected.len(), 2);
    assert_eq!(unexpected[0]["near_misses"][0]["kind"], "other_port");
    // What the page links to.
    let (_, page) = daemon.get("/").unwrap();
    let link = page
        .split("href=\"")
        .find(|link| link.contains("verdict=unexpected"))
        .unwrap();
    let link = link.split('"').next().unwrap().replace("&amp;", "&");
    assert!(
        ask(&link).last().unwrap()["flows"].as_u64().unwrap() > 0,
        "{link}"
    );

    let requirements = ask("/api/v1/requirements");
    assert_eq!(requirements.len(), 1);
    assert_eq!(requirements[0]["id"], "app/web-to-db");
    assert_eq!(requirements[0]["state"], "degraded");
    assert_eq!(requirements[0]["services"][0]["answered"], 3);

    let explain = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_flowproof"))
            .current_dir(folder)
            .args(["explain", "--matrix", "m.yaml", "--site", "s.yaml"])
            .arg(format!("--daemon=http://{}", daemon.address))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), said)
    };
    let flow = format!("127.0.0.1 -> 127.0.0.1:{port}/tcp");
    let (code, text) = explain(&[&flow]);
    assert_eq!(code, Some(0), "{text}");
    for part in [
        " in its tables now (3 answered",
        "\n    answered: handshake completed\n",
        ": degraded (refused, at peer, medium confidence), 75 % answered, since 20",
        &format!("\n    tcp/{port} degraded: 4 flows, 3 answered, 1 failed, last seen "),
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let (code, text) = explain(&[
        "--format",
        "json",
        &format!("127.0.0.1:1 -> 127.0.0.1:{port}/tcp"),
    ]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["seen"]["source"]), (Some(0), &json!("daemon")));
    assert_eq!(json["seen"]["flows"], 0);
    assert_eq!(json["seen"]["requirements"], json!(requirements));
    let (code, text) = explain(&["--requirement", "app/web-to-db"]);
    assert_eq!(code, Some(1), "{text}");
    for part in [
        "app/web-to-db: degraded (refused, at peer, medium confidence), 75 % answered, since 20",
        "\n    by the daemon at http://",
        "    4 flows, 3 answered, 1 failed\n",
        "becomes verified again when a flow from `web` to `db`",
        &format!(
            "failed: 127.0.0.1 -> 127.0.0.1 tcp/{port}: 1 refused\n    1 SYN, answered by RST\n"
        ),
        "ask: the owner of the responder",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    // With other files than the daemon's.
    fs::write(
        folder.join("s.yaml"),
        "site: here\nsystems: [app]\nroles: {app/web: [127.0.0.1], app/db: [127.0.0.2]}\n",
    )
    .unwrap();
    let (code, text) = explain(&[&flow]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("note: the daemon judged it expected"),
        "{text}"
    );
    drop(kept);
}

/// The ledger tells the same as the daemon that writes it, and goes on to tell it when the daemon is gone.
#[test]
fn the_ledger_tells_what_was_seen() {
    if !may_capture("the_ledger_tells_what_was_seen") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    write_files(folder, port);
    let mut daemon = Daemon::start(folder, &ON_LOOPBACK);
    let _kept = (
        TcpStream::connect(server.local_addr().unwrap()).unwrap(),
        server.accept().unwrap(),
    );
    drop(server);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    let ask = |verb: &str, arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_flowproof"))
            .current_dir(folder)
            .args([verb, "--matrix", "m.yaml", "--site", "s.yaml"])
            .args(["--format", "json", "--ledger=state"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let begin = Instant::now();
    let running = loop {
        let report = ask("report", &[]);
        if report["requirements"][0]["state"] == "degraded" {
            break report;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(15),
            "{report}\n{}",
            daemon.said()
        );
        sleep(Duration::from_millis(200));
    };
    assert_eq!(running["unwatched_since"], Value::Null, "{running}");
    let (_, body) = daemon.get("/api/v1/requirements").unwrap();
    let api: Value = serde_json::from_str(&body).unwrap();
    for field in ["id", "state", "cause", "place", "confidence"] {
        assert_eq!(api[0][field], running["requirements"][0][field], "{field}");
    }
    let path = |report: &Value| report["requirements"][0]["ticket"]["paths"][0].clone();
    assert_eq!(path(&running)["initiator"], "127.0.0.1");
    assert_eq!(path(&running)["outcome"], "refused");
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.said());
    let over = ask("report", &[]);
    assert_eq!(over["requirements"][0]["state"], "degraded");
    assert_eq!(path(&over), path(&running));
    let row = ask("explain", &["--requirement", "app/web-to-db"]);
    assert_eq!(row["services"][0]["last_failure"]["outcome"], "refused");
    let evidence = row["services"][0]["last_failure"]["evidence"].as_str();
    assert!(evidence.is_some_and(|text| text.contains("RST")), "{row}");
    let flow = ask("explain", &[&format!("127.0.0.1 -> 127.0.0.1:{port}/tcp")]);
    assert_eq!(flow["seen"]["flows"], 2, "{flow}");
    assert_eq!(
        flow["seen"]["by_outcome"],
        json!({"answered": 1, "refused": 1})
    );
}

#[test]
fn ends_on_interrupt_although_a_peer_keeps_its_connection() {
    if !may_capture("ends_on_interrupt_although_a_peer_keeps_its_connection") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path(), free_port());
    let mut daemon = Daemon::start(folder.path(), &ON_LOOPBACK);
    let _idle = TcpStream::connect(daemon.address).unwrap();
    assert_eq!(
        daemon.end(Signal::SIGINT).code(),
        Some(0),
        "{}",
        daemon.said()
    );
}

#[test]
fn a_start_that_can_not_be_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_files(folder, free_port());
    let check = |arguments: &[&str], code: i32, parts: &[&str]| {
        let (got, said) = refused(folder, &[arguments, &["--capture", "pcap"]].concat());
        assert_eq!(got, Some(code), "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: {said}");
        }
    };
    check(
        &["--interface", "nope0"],
        2,
        &["no interface named 'nope0'", "lo"],
    );
    check(&["--config", "nope.yaml"], 2, &["nope.yaml: no such file"]);
    check(&["--matrix", "nope.yaml"], 2, &["nope.yaml: no such file"]);
    check(&["--site", "s.yaml"], 2, &["--matrix"]);
    check(&["--listen", "nowhere"], 2, &["--listen"]);
    fs::write(folder.join("c.yaml"), "captur: 1\nlog: {level: loud}\n").unwrap();
    check(&["--config", "c.yaml"], 2, &["c.yaml:1:1", "c.yaml:2:14"]);
    fs::write(
        folder.join("bad.yaml"),
        "system: A\nrequirements: [{id: x}]\n",
    )
    .unwrap();
    check(
        &["--matrix", "bad.yaml"],
        1,
        &["bad.yaml:1:9", "bad.yaml:2:16"],
    );
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let in_use = [&FILES[..], &["--interface", "lo", "--listen", &address]].concat();
    check(&in_use, 2, &[&address, "in use"]);
}
