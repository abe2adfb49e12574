//! What `flowproof replay` prints: the fields of the contract, and the verdicts and states that operators act on.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::captures::{
    MS, Order, Pcap, PcapNg, START, ethernet, framed, icmp_error, ping, tcp, udp,
};

const MATRIX: &str = "
system: shop
title: Shop
roles:
  client: {title: Client}
  web: {title: Web server}
  db: {title: Database}
  cloud: {title: Cloud}
requirements:
  - {id: browse, from: client, to: web, services: [tcp/80, tcp/443]}
  - {id: query, from: web, to: db, services: [tcp/5432]}
  - {id: names, from: client, to: web, services: [udp/53]}
  - {id: logs, from: client, to: web, services: [udp/514], necessity: optional}
  - {id: upload, from: web, to: cloud, services: [tcp/443]}
  - {id: alive, from: client, to: web, services: [icmp]}
  - {id: backup, from: db, to: web, services: [tcp/22]}
  - {id: heartbeat, from: web, to: web, services: [vrrp]}
";

const SITE: &str = "
site: test
systems: [shop]
roles:
  shop/client: [10.0.0.1]
  shop/web: [10.0.0.2]
  shop/db: [10.0.0.3]
";

struct Lab {
    folder: TempDir,
}

impl Lab {
    fn new() -> Self {
        let lab = Self {
            folder: TempDir::new().unwrap(),
        };
        lab.write("shop.yaml", MATRIX.as_bytes());
        lab.write("site.yaml", SITE.as_bytes());
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// Runs `flowproof replay` in the folder.
    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.verb("replay", arguments)
    }

    fn verb(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowproof"));
        command
            .arg(verb)
            .args(arguments)
            .current_dir(self.folder.path());
        command
    }

    /// Exit code, result and error of `flowproof explain` with matrix and site.
    fn explain(&self, arguments: &[&str]) -> (i32, String, String) {
        let files = ["--matrix", "shop.yaml", "--site", "site.yaml"];
        let output = self
            .verb("explain", &[&files, arguments].concat())
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    /// The lines of the JSON result of a run with matrix and site.
    fn judged(&self, capture: &str) -> Lines {
        let output = self.run(&[
            "--format",
            "json",
            "--site",
            "site.yaml",
            "--matrix",
            "shop.yaml",
            capture,
        ]);
        assert!(output.status.success(), "{output:?}");
        Lines::of(&output)
    }
}

struct Lines(Vec<Value>);

impl Lines {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        Self(
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
        )
    }

    fn of_type(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|line| line["type"] == kind).collect()
    }

    fn summary(&self) -> &Value {
        let last = self.0.last().unwrap();
        assert_eq!(last["type"], "summary");
        last
    }

    fn requirement(&self, id: &str) -> &Value {
        self.of_type("requirement")
            .into_iter()
            .find(|line| line["id"] == id)
            .unwrap()
    }
}

/// A capture of packets (ms, packet) on Ethernet.
fn capture(packets: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = Pcap::ethernet();
    for (at, packet) in packets {
        file.add(START + at * MS, &ethernet(packet));
    }
    file.bytes
}

const CLIENT: u8 = 1;
const WEB: u8 = 2;
const DB: u8 = 3;
const STRANGER: u8 = 9;
const HOP: u8 = 254;

fn handshake(at: u64, client: (u8, u16), server: (u8, u16)) -> Vec<(u64, Vec<u8>)> {
    vec![
        (at, tcp(client, server, "S")),
        (at + 1, tcp(server, client, "SA")),
        (at + 2, tcp(client, server, "A")),
    ]
}

/// Everything at once.
fn busy() -> Vec<u8> {
    let query = tcp((WEB, 50000), (DB, 5432), "S");
    let mut packets = handshake(0, (CLIENT, 40000), (WEB, 443));
    packets.extend([
        (10, query.clone()),
        (11, icmp_error(HOP, 3, 13, &query)),
        (20, udp((CLIENT, 40001), (WEB, 53))),
        (25, udp((WEB, 53), (CLIENT, 40001))),
        (30, udp((CLIENT, 40002), (WEB, 514))),
        (40, ping(CLIENT, WEB)),
        (50, tcp((STRANGER, 1234), (WEB, 443), "S")),
        (51, tcp((WEB, 443), (STRANGER, 1234), "RA")),
        (60, tcp((STRANGER, 1234), (STRANGER + 1, 80), "S")),
        (9_000, udp((STRANGER, 40000), (STRANGER + 1, 41000))),
    ]);
    capture(&packets)
}

/// Programs read the lines, and people compare them: the order of the fields counts too.
#[test]
fn lines_are_the_same_to_the_byte() {
    let lab = Lab::new();
    lab.write("busy.pcap", &busy());
    let output = lab.run(&[
        "--format",
        "json",
        "--site",
        "site.yaml",
        "busy.pcap",
        "--matrix",
        "shop.yaml",
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        r#"{"type":"flow","protocol":"tcp","initiator":{"address":"10.0.0.2","port":50000,"roles":["shop/web"],"names":[]},"responder":{"address":"10.0.0.3","port":5432,"roles":["shop/db"],"names":[]},"verdict":"expected","requirements":["shop/query#tcp/5432"],"outcome":"prohibited","near_misses":[],"packets":[1,0],"bytes":[54,0],"first_seen":"2025-10-09T08:53:20.010000000Z","last_seen":"2025-10-09T08:53:20.010000000Z","joined_midway":false,"evidence":["1 SYN, no answer","ICMP 3/13 from 10.0.0.254"]}"#,
        r#"{"type":"flow","protocol":"tcp","initiator":{"address":"10.0.0.9","port":1234,"roles":[],"names":[]},"responder":{"address":"10.0.0.2","port":443,"roles":["shop/web"],"names":[]},"verdict":"unexpected","requirements":[],"outcome":"refused","near_misses":[{"kind":"other_source","requirement":"shop/browse#tcp/443","detail":"tcp/443 is allowed from `client` to `web`: the initiator is no `client`"}],"packets":[1,1],"bytes":[54,54],"first_seen":"2025-10-09T08:53:20.050000000Z","last_seen":"2025-10-09T08:53:20.051000000Z","joined_midway":false,"evidence":["1 SYN, answered by RST"]}"#,
        r#"{"type":"requirement","id":"shop/query","state":"blocked","cause":"prohibited","place":"hop 10.0.0.254","confidence":"high","services":[{"service":"tcp/5432","state":"blocked","cause":"prohibited","flows":1,"answered":0,"failed":1,"first_seen":"2025-10-09T08:53:20.010000000Z","last_seen":"2025-10-09T08:53:20.010000000Z"}]}"#,
    ] {
        assert!(
            text.lines().any(|got| got == line),
            "{line}\nis not in\n{text}"
        );
    }
}

#[test]
fn flow_lines_have_every_field() {
    let lab = Lab::new();
    lab.write("busy.pcap", &busy());
    let lines = lab.judged("busy.pcap");
    let flows = lines.of_type("flow");
    assert_eq!(
        *flows[0],
        json!({
            "type": "flow",
            "protocol": "tcp",
            "initiator": {"address": "10.0.0.1", "port": 40000, "roles": ["shop/client"], "names": []},
            "responder": {"address": "10.0.0.2", "port": 443, "roles": ["shop/web"], "names": []},
            "verdict": "expected",
            "requirements": ["shop/browse#tcp/443"],
            "outcome": "answered",
            "near_misses": [],
            "packets": [2, 1],
            "bytes": [108, 54],
            "first_seen": "2025-10-09T08:53:20.000000000Z",
            "last_seen": "2025-10-09T08:53:20.002000000Z",
            "joined_midway": false,
            "evidence": ["handshake completed"],
        })
    );
    let seen: Vec<_> = flows
        .iter()
        .map(|flow| {
            (
                flow["verdict"].as_str().unwrap(),
                flow["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("expected", "answered"),
            ("expected", "prohibited"),
            ("expected", "answered"),
            ("expected", "one_way"),
            ("expected", "no_answer"),
            ("unexpected", "refused"),
            ("unscoped", "pending"),
            ("unscoped", "pending"),
        ]
    );
    assert_eq!(
        flows[1]["evidence"],
        json!(["1 SYN, no answer", "ICMP 3/13 from 10.0.0.254"])
    );
    let ping = flows[4];
    assert_eq!(ping["protocol"], "icmp");
    assert_eq!(ping["initiator"]["port"], Value::Null);
    assert_eq!(flows[5]["requirements"], json!([]));
    let miss = &flows[5]["near_misses"][0];
    assert_eq!(
        (&miss["kind"], &miss["requirement"]),
        (&json!("other_source"), &json!("shop/browse#tcp/443"))
    );
    assert!(
        miss["detail"].as_str().unwrap().contains("`client`"),
        "{miss}"
    );
}

#[test]
fn requirement_lines_have_every_field() {
    let lab = Lab::new();
    lab.write("busy.pcap", &busy());
    let lines = lab.judged("busy.pcap");
    assert_eq!(
        *lines.requirement("shop/query"),
        json!({
            "type": "requirement",
            "id": "shop/query",
            "state": "blocked",
            "cause": "prohibited",
            "place": "hop 10.0.0.254",
            "confidence": "high",
            "services": [{
                "service": "tcp/5432", "state": "blocked", "cause": "prohibited",
                "flows": 1, "answered": 0, "failed": 1,
                "first_seen": "2025-10-09T08:53:20.010000000Z",
                "last_seen": "2025-10-09T08:53:20.010000000Z",
            }],
        })
    );
    let states: Vec<_> = lines
        .of_type("requirement")
        .iter()
        .map(|line| {
            let text = |field: &str| line[field].as_str().unwrap_or("-").to_owned();
            (text("id"), text("state"), text("cause"))
        })
        .collect();
    let expected = [
        ("shop/browse", "verified", "-"),
        ("shop/query", "blocked", "prohibited"),
        ("shop/names", "verified", "-"),
        ("shop/logs", "unknown", "one_way"),
        ("shop/upload", "unobservable", "role_not_bound"),
        ("shop/alive", "blocked", "no_answer"),
        ("shop/backup", "silent", "-"),
        ("shop/heartbeat", "silent", "-"),
    ];
    let expected = expected.map(|(id, state, cause)| (id.into(), state.into(), cause.into()));
    assert_eq!(states, expected);
    let browse = lines.requirement("shop/browse");
    assert_eq!(browse["services"][0]["state"], "silent");
    assert_eq!(browse["services"][0]["first_seen"], Value::Null);
}

#[test]
fn the_summary_has_every_field() {
    let lab = Lab::new();
    lab.write("busy.pcap", &busy());
    let output = lab.run(&[
        "--format=json",
        "--quiet",
        "--site=site.yaml",
        "--matrix",
        "shop.yaml",
        "busy.pcap",
    ]);
    let lines = Lines::of(&output);
    assert_eq!(lines.0.len(), 1);
    let summary = lines.summary();
    assert_eq!(
        *summary,
        json!({
            "type": "summary",
            "packets": 13, "packets_unparsed": 0, "bytes": 678, "flows": 8,
            "by_verdict": {"unscoped": 2, "unexpected": 1, "expected": 5},
            "by_outcome": {
                "pending": 2, "answered": 2, "refused": 1, "prohibited": 1, "unreachable": 0,
                "no_answer": 1, "dropped_here": 0, "one_way": 1, "closed_after_answer": 0,
            },
            "by_state": {
                "verified": 2, "degraded": 0, "blocked": 2, "silent": 2, "unobservable": 1, "unknown": 1,
            },
            "lost": {"flow_table": 0, "fragment": 0, "promotion": 0, "name": 0, "name_head": 0, "dns": 0, "link_type": 0, "file": 0},
            "seconds": 9.0,
        })
    );
}

#[test]
fn without_a_matrix_everything_is_unscoped() {
    let lab = Lab::new();
    lab.write("busy.pcap", &busy());
    let lines = Lines::of(&lab.run(&["--format", "json", "busy.pcap"]));
    assert_eq!(lines.summary()["by_verdict"]["unscoped"], 8);
    assert!(lines.of_type("requirement").is_empty());
    let lines = Lines::of(&lab.run(&["--format", "json", "busy.pcap", "--matrix", "shop.yaml"]));
    assert_eq!(lines.summary()["by_verdict"]["unscoped"], 8);
    assert_eq!(lines.summary()["by_state"]["unobservable"], 8);
}

#[test]
fn every_link_type_and_format_gives_the_same_flows() {
    let lab = Lab::new();
    for link in [0_u16, 1, 12, 14, 101, 108, 113, 228, 276] {
        let mut pcap = Pcap::new(Order::Big, true, u32::from(link));
        let mut ng = PcapNg::new(Order::Little);
        ng.interface(link, Some(9), None, "x");
        for (at, packet) in handshake(0, (CLIENT, 40000), (WEB, 443)) {
            pcap.add(START + at * MS, &framed(link, &packet));
            ng.packet(0, START + at * MS, &framed(link, &packet));
        }
        for bytes in [&pcap.bytes, &ng.bytes] {
            lab.write("x.pcap", bytes);
            let lines = lab.judged("x.pcap");
            let flows = lines.of_type("flow");
            assert_eq!(flows.len(), 1);
            assert_eq!(flows[0]["outcome"], "answered", "{link}");
            assert_eq!(flows[0]["packets"], json!([2, 1]));
            assert_eq!(flows[0]["last_seen"], "2025-10-09T08:53:20.002000000Z");
        }
    }
}

#[test]
fn files_are_merged_by_time_and_what_two_of_them_saw_counts_once() {
    let lab = Lab::new();
    let all = handshake(0, (CLIENT, 40000), (WEB, 443));
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (index, packet) in all.iter().enumerate() {
        if index % 2 == 0 {
            &mut first
        } else {
            &mut second
        }
        .push(packet.clone());
    }
    lab.write("1.pcap", &capture(&first));
    lab.write("2.pcap", &capture(&second));
    lab.write("all.pcap", &capture(&all));
    // In pieces, in any order.
    for files in [["1.pcap", "2.pcap"], ["2.pcap", "1.pcap"]] {
        let output = lab.run(&["--format", "json", files[0], files[1]]);
        let lines = Lines::of(&output);
        assert_eq!(lines.of_type("flow")[0]["outcome"], "answered");
        assert_eq!(lines.of_type("flow")[0]["joined_midway"], false);
    }
    // In pieces by time, with packets of one side in both: as tcpdump's -C and -G leave them.
    let mut long = all.clone();
    long.extend((3..10).map(|at| (at, tcp((CLIENT, 40000), (WEB, 443), "A"))));
    for (number, piece) in long.chunks(4).enumerate() {
        lab.write(&format!("piece{number}.pcap"), &capture(piece));
    }
    let pieces = ["piece2.pcap", "piece0.pcap", "piece1.pcap"];
    let lines = Lines::of(&lab.run(&[&["--format", "json"], &pieces[..]].concat()));
    assert_eq!(lines.of_type("flow")[0]["packets"], json!([9, 1]));
    // At two interfaces of a router.
    let lines = Lines::of(&lab.run(&["--format", "json", "all.pcap", "all.pcap"]));
    assert_eq!(lines.of_type("flow")[0]["packets"], json!([2, 1]));
    assert_eq!(lines.summary()["packets"], 6);
}

#[test]
fn a_port_used_again_makes_two_lines() {
    let lab = Lab::new();
    let refused = |at| {
        [
            (at, tcp((CLIENT, 40000), (WEB, 443), "S")),
            (at + 1, tcp((WEB, 443), (CLIENT, 40000), "RA")),
        ]
    };
    let mut packets = refused(0).to_vec();
    packets.extend(handshake(100, (CLIENT, 40000), (WEB, 443)));
    lab.write("x.pcap", &capture(&packets));
    let lines = lab.judged("x.pcap");
    let outcomes: Vec<_> = lines
        .of_type("flow")
        .iter()
        .map(|flow| &flow["outcome"])
        .collect();
    assert_eq!(outcomes, ["refused", "answered"]);
    assert_eq!(lines.requirement("shop/browse")["state"], "verified");
    // The other way round it is degraded.
    let mut packets = handshake(0, (CLIENT, 40000), (WEB, 443));
    packets.push((5, tcp((CLIENT, 40000), (WEB, 443), "R")));
    packets.extend(refused(100));
    lab.write("x.pcap", &capture(&packets));
    let lines = lab.judged("x.pcap");
    let browse = lines.requirement("shop/browse");
    assert_eq!(
        (&browse["state"], &browse["place"]),
        (&json!("degraded"), &json!("peer"))
    );
}

#[test]
fn no_time_passes_after_the_last_packet() {
    let lab = Lab::new();
    lab.write(
        "x.pcap",
        &capture(&[
            (0, tcp((CLIENT, 1), (WEB, 443), "S")),
            (1000, tcp((CLIENT, 1), (WEB, 443), "S")),
        ]),
    );
    let lines = lab.judged("x.pcap");
    assert_eq!(lines.of_type("flow")[0]["outcome"], "pending");
    assert_eq!(lines.requirement("shop/browse")["state"], "unknown");
    assert_eq!(lines.requirement("shop/browse")["cause"], "pending");
}

#[test]
fn lost_packets_turn_silence_into_ignorance() {
    let lab = Lab::new();
    let mut file = Pcap::ethernet();
    let frame = ethernet(&tcp((CLIENT, 1), (WEB, 443), "S"));
    file.cut(START, &frame, 30);
    lab.write("x.pcap", &file.bytes);
    let lines = lab.judged("x.pcap");
    assert_eq!(lines.summary()["packets_unparsed"], 1);
    assert_eq!(lines.requirement("shop/backup")["state"], "unknown");
    assert_eq!(lines.requirement("shop/backup")["cause"], "loss");
    assert_eq!(lines.requirement("shop/upload")["state"], "unobservable");
}

#[test]
fn exit_codes() {
    let lab = Lab::new();
    lab.write("busy.pcap", &busy());
    lab.write(
        "fine.pcap",
        &capture(&handshake(0, (CLIENT, 40000), (WEB, 443))),
    );
    lab.write("cut.pcap", &busy()[..200]);
    lab.write("text.pcap", b"hello");
    lab.write("broken.yaml", b"system: [\n");
    let code = |arguments: &[&str]| {
        let output = lab.run(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), error, output.stdout)
    };
    let with_site = |fail_on: &str, file: &str| {
        code(&[
            "--fail-on",
            fail_on,
            "--site",
            "site.yaml",
            file,
            "--matrix",
            "shop.yaml",
        ])
        .0
    };
    assert_eq!(with_site("unexpected", "busy.pcap"), 1);
    assert_eq!(with_site("blocked", "busy.pcap"), 1);
    assert_eq!(with_site("silent", "fine.pcap"), 1);
    assert_eq!(with_site("unexpected,blocked", "fine.pcap"), 0);
    // The matrix is bad: 1, and nothing is judged.
    let (status, error, out) = code(&["fine.pcap", "--matrix", "broken.yaml"]);
    assert_eq!((status, out.len()), (1, 0), "{error}");
    assert!(error.contains("broken.yaml"), "{error}");
    // The environment is: 2, one line, with the file's name.
    for (arguments, words) in [
        (&["none.pcap"][..], "none.pcap"),
        (
            &["fine.pcap", "text.pcap"][..],
            "text.pcap: it is no capture file",
        ),
        (&["fine.pcap", "--matrix", "none.yaml"][..], "none.yaml"),
        (&["--matrix", "shop.yaml"][..], "no capture file"),
    ] {
        let (status, error, out) = code(arguments);
        assert_eq!((status, out.len()), (2, 0), "{arguments:?}");
        assert!(
            error.contains(words) && error.lines().count() == 1,
            "{error}"
        );
    }
    assert_eq!(code(&["--fail-on", "nonsense", "fine.pcap"]).0, 2);
    // Cut short: what is there is judged, then 2.
    let (status, error, out) = code(&["--format", "json", "cut.pcap"]);
    assert_eq!(status, 2);
    assert!(error.contains("cut.pcap: after"), "{error}");
    let text = String::from_utf8(out).unwrap();
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&summary["packets"], &summary["lost"]["file"]),
        (&json!(2), &json!(1))
    );
}

#[test]
fn standard_input_is_read() {
    let lab = Lab::new();
    let mut child = lab
        .command(&["--format", "json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&busy()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(Lines::of(&output).summary()["flows"], 8);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let lab = Lab::new();
    let packets: Vec<_> = (0..5000_u16)
        .map(|port| (u64::from(port), udp((CLIENT, 1000 + port), (WEB, 53))))
        .collect();
    lab.write("x.pcap", &capture(&packets));
    let mut child = lab
        .command(&["x.pcap"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn text_is_for_people() {
    let lab = Lab::new();
    lab.write("busy.pcap", &busy());
    let output = lab.run(&["--site", "site.yaml", "busy.pcap", "--matrix", "shop.yaml"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [
        "10.0.0.1:40000 (shop/client) -> 10.0.0.2:443 (shop/web)",
        "blocked      shop/query: prohibited, at hop 10.0.0.254, high confidence",
        "13 packets (0 unparsed), 678 bytes, 8 flows in 9.000 s",
        "verdicts: 2 unscoped, 1 unexpected, 5 expected",
    ] {
        assert!(text.contains(words), "{words}\n---\n{text}");
    }
}

#[test]
fn more_files_than_may_be_open_are_told_with_the_remedy() {
    let lab = Lab::new();
    let mut arguments = vec!["replay".to_owned()];
    for number in 0..40 {
        let name = format!("{number}.pcap");
        lab.write(&name, &capture(&[(number, ping(CLIENT, WEB))]));
        arguments.push(name);
    }
    let run = |limit: u32| {
        Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\""))
            .arg(env!("CARGO_BIN_EXE_flowproof"))
            .args(&arguments)
            .current_dir(lab.folder.path())
            .output()
            .unwrap()
    };
    assert!(run(256).status.success());
    let output = run(20);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        error.contains(".pcap: ") && error.contains("ulimit -n"),
        "{error}"
    );
}

#[test]
fn explain_tells_what_a_capture_holds() {
    let lab = Lab::new();
    lab.write("busy.pcap", &busy());
    let blocked = "10.0.0.2 -> 10.0.0.3:5432/tcp";
    let (code, text, _) = lab.explain(&["--capture", "busy.pcap", "--", blocked]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.ends_with(
            "seen in the capture: 1 flow (1 prohibited), first at 2025-10-09T08:53:20.010000000Z, \
             last at 2025-10-09T08:53:20.010000000Z\n    \
                 prohibited: 1 SYN, no answer; ICMP 3/13 from 10.0.0.254\n\
             shop/query in the capture: blocked (prohibited, at hop 10.0.0.254, high confidence)\n    \
                 tcp/5432 blocked: 1 flow, 0 answered, 1 failed, last seen 2025-10-09T08:53:20.010000000Z\n"
        ),
        "{text}"
    );
    // The port of the initiator counts only if it is given.
    for (flow, flows) in [
        ("10.0.0.9 -> 10.0.0.2:443/tcp", 1),
        ("10.0.0.9:1234 -> 10.0.0.2:443/tcp", 1),
        ("10.0.0.9:1235 -> 10.0.0.2:443/tcp", 0),
        ("10.0.0.2 -> 10.0.0.9:443/tcp", 0),
        ("10.0.0.9 -> 10.0.0.2:443/udp", 0),
    ] {
        let (code, text, _) =
            lab.explain(&["--format", "json", "--capture", "busy.pcap", "--", flow]);
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, &json["seen"]["flows"]), (1, &json!(flows)), "{flow}");
        let expect = if flows == 1 {
            json!({"refused": 1})
        } else {
            json!({})
        };
        assert_eq!(json["seen"]["by_outcome"], expect);
        assert_eq!(json["seen"]["first_seen"].is_null(), flows == 0);
    }
    let (_, text, _) = lab.explain(&[
        "--format",
        "json",
        "--capture",
        "busy.pcap",
        "--",
        "10.0.0.1 -> 10.0.0.2/icmp",
    ]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["seen"]["source"], "capture");
    assert_eq!(json["seen"]["requirements"][0]["id"], "shop/alive");
    let (code, text, _) = lab.explain(&[blocked]);
    assert!(
        code == 0 && text.ends_with("--daemon asks a running daemon\n"),
        "{text}"
    );
    // What can be read of a capture that is cut short is told first.
    lab.write("cut.pcap", &busy()[..busy().len() - 3]);
    let (code, text, error) = lab.explain(&["--capture", "cut.pcap", "--", blocked]);
    assert!(
        code == 2 && text.contains("seen in the capture: 1 flow"),
        "{text}"
    );
    assert!(error.contains("cut.pcap"), "{error}");
}

#[test]
fn explain_says_when_it_can_not_look() {
    let lab = Lab::new();
    lab.write("text.pcap", b"hello");
    let flow = "10.0.0.1 -> 10.0.0.2:443/tcp";
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("--daemon=http://{}", listener.local_addr().unwrap())
    };
    for (arguments, words) in [
        (&["--capture", "none.pcap", "--", flow][..], "none.pcap"),
        (
            &["--capture", "text.pcap", "--", flow],
            "it is no capture file",
        ),
        (&[&nobody, flow], "start one with `flowproof run`"),
        (
            &["--daemon=ftp://localhost", flow],
            "only http and https are spoken",
        ),
        (
            &["--daemon", "--capture", "text.pcap", "--", flow],
            "cannot be used with",
        ),
    ] {
        let (code, text, error) = lab.explain(arguments);
        assert_eq!((code, text.as_str()), (2, ""), "{arguments:?}");
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
}

/// Whatever listens there, the answer is bounded and its nonsense is told.
#[test]
fn explain_is_not_taken_in_by_strangers() {
    let lab = Lab::new();
    for (answer, words) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "is no flowproof",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
            "is no flowproof",
        ),
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\n\u{1b}[2J",
            "answered 404: ?[2J",
        ),
        ("SSH-2.0-x\r\n", "is no flowproof"),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("--daemon=http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = std::io::Read::read(&mut stream, &mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let (code, _, error) = lab.explain(&[&url, "10.0.0.1 -> 10.0.0.2:443/tcp"]);
        let request = server.join().unwrap();
        assert!(
            request.starts_with(
                "GET /api/v1/flows?initiator=10.0.0.1&responder=10.0.0.2&protocol=tcp&port=443&limit=50 HTTP/1.1\r\n"
            ),
            "{request}"
        );
        assert!(code == 2 && error.contains(words), "{answer}: {error}");
    }
}
