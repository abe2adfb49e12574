//! `flowproof replay --draft`, as its users run it: golden files of both forms, a ledger that the library wrote, what decides
//! the exit code, and what is said of drafts that can't be judged by.
//!
//! The golden files are written anew with `FLOWPROOF_UPDATE_GOLDEN=1`.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use flowproof::ledger::{self, Batch, HourCounts, HourKey, Ledger, Limits};
use flowproof_common::address::Address;
use flowproof_common::classify::Verdict;
use flowproof_common::state::Outcome;
use serde_json::Value;
use tempfile::TempDir;

use crate::captures::{MS, Pcap, START, ethernet, tcp, udp};
use crate::report::golden;

const MATRIX: &str = r#"
system: shop
title: Shop
roles: {client: , web: , db: , cloud: {names: ["*.cloud.example"]}}
requirements:
  - {id: browse, from: client, to: web, services: [tcp/80, tcp/443]}
  - {id: query, from: web, to: db, services: [tcp/5432-5440]}
  - {id: logs, from: client, to: web, services: [udp/514], necessity: optional}
  - {id: backup, from: db, to: web, services: [tcp/873]}
"#;

/// The new edition has port 8443 in place of 443, renames a row, and knows a cloud.
fn draft() -> String {
    MATRIX
        .replace("[tcp/80, tcp/443]", "[tcp/80, tcp/8443]")
        .replace("id: query", "id: ask")
        + "  - {id: upload, from: web, to: cloud, services: [tcp/443]}\n"
}

const SITE: &str = "
site: test
systems: [shop]
roles:
  shop/client: [10.0.0.1]
  shop/web: [10.0.0.2]
  shop/db: [10.0.0.3]
";

const CLIENT: u8 = 1;
const WEB: u8 = 2;
const DB: u8 = 3;
const STRANGER: u8 = 9;

fn capture() -> Vec<u8> {
    let mut file = Pcap::ethernet();
    let mut at = START;
    let mut add = |packet: Vec<u8>| {
        file.add(at, &ethernet(&packet));
        at += MS;
    };
    for (own, client, server, port) in [
        (40_001_u16, CLIENT, WEB, 443_u16),
        (40_002_u16, CLIENT, WEB, 443_u16),
        (40_003_u16, CLIENT, WEB, 8443_u16),
        (40_004_u16, CLIENT, WEB, 80_u16),
        (40_005_u16, WEB, DB, 5432_u16),
        (40_006_u16, WEB, STRANGER, 443_u16),
        (40_007_u16, STRANGER, WEB, 22_u16),
        (40_008_u16, STRANGER, STRANGER + 1, 22_u16),
    ] {
        for (from, to, flags) in [
            ((client, own), (server, port), "S"),
            ((server, port), (client, own), "SA"),
            ((client, own), (server, port), "A"),
        ] {
            add(tcp(from, to, flags));
        }
    }
    add(udp((CLIENT, 514), (WEB, 514)));
    file.bytes
}

struct Lab(TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Self(TempDir::new().unwrap());
        lab.write("shop.yaml", MATRIX);
        lab.write("site.yaml", SITE);
        lab.write("new.yaml", &draft());
        std::fs::write(lab.0.path().join("x.pcap"), capture()).unwrap();
        lab
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    /// `replay` with the matrix and the site in force, and more.
    fn replay(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_flowproof"))
            .args(["replay", "--matrix", "shop.yaml", "--site", "site.yaml"])
            .args(arguments.split_whitespace())
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    /// The last line, which is the comparison.
    fn compared(&self, arguments: &str) -> Value {
        let output = self.replay(&format!("--format json --quiet {arguments}"));
        let text = String::from_utf8(output.stdout).unwrap();
        let last = text.lines().last();
        serde_json::from_str(last.unwrap_or_else(|| panic!("{:?}", output.stderr))).unwrap()
    }

    fn code(&self, arguments: &str) -> i32 {
        self.replay(arguments).status.code().unwrap()
    }

    #[track_caller]
    fn refused(&self, arguments: &str, code: i32, part: &str) {
        let output = self.replay(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(part), "{arguments}: {error}");
        assert_eq!(output.status.code(), Some(code), "{arguments}: {error}");
        assert!(output.stdout.is_empty(), "{arguments}");
    }
}

#[test]
fn a_capture_by_a_draft_is_as_it_was() {
    let lab = Lab::new();
    let text = lab.replay("--draft new.yaml x.pcap --quiet");
    golden("draft.txt", &String::from_utf8(text.stdout).unwrap());
    let json = lab.compared("--draft new.yaml x.pcap");
    golden(
        "draft.json",
        &(serde_json::to_string_pretty(&json).unwrap() + "\n"),
    );
    // Everything else is as it is without a draft.
    let without = lab.replay("--format json x.pcap").stdout;
    let with = lab
        .replay("--format json --draft new.yaml -- x.pcap")
        .stdout;
    let added = with.strip_prefix(without.as_slice()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(added).unwrap(), json);
}

#[test]
fn the_draft_of_what_is_in_force_changes_nothing() {
    let lab = Lab::new();
    let report = lab.compared("--draft shop.yaml x.pcap");
    for kind in ["newly_unexpected", "newly_covered", "newly_unscoped"] {
        assert_eq!(report["counts"][kind]["flows"], 0, "{kind}");
        assert_eq!(report[kind]["groups"], serde_json::json!([]), "{kind}");
    }
    assert_eq!(report["counts"]["by_other_rows"]["flows"], 0);
    assert_eq!(report["judged_otherwise_then"]["flows"], 0);
    assert_eq!(
        lab.code("--draft shop.yaml x.pcap --fail-on newly-unexpected"),
        0
    );
    assert_eq!(
        lab.code("--draft new.yaml x.pcap --fail-on newly-unexpected"),
        1
    );
}

/// A ledger with what the capture holds, two hours later a flow that is known by name, and one that was judged by an
/// older matrix.
fn write_ledger(folder: &Path) {
    let limits = Limits {
        write_every: Duration::from_millis(10),
        ..Limits::default()
    };
    let opened = Ledger::open(&ledger::path(folder), limits).unwrap();
    let hour = HourKey::hour_of(START);
    let mut batch = Batch {
        until: START,
        ..Batch::default()
    };
    let address = |last| Address::from_v4([10, 0, 0, last]);
    for (later, from, to, port, verdict, names, flows) in [
        (0, CLIENT, WEB, 443, Verdict::Expected, "", 2),
        (0, CLIENT, WEB, 8443, Verdict::Unexpected, "", 1),
        (0, WEB, DB, 5433, Verdict::Unexpected, "", 5),
        (0, WEB, STRANGER, 443, Verdict::Unexpected, "", 3),
        (
            2,
            WEB,
            STRANGER,
            443,
            Verdict::Unexpected,
            "a.cloud.example b.example",
            4,
        ),
    ] {
        let mut decided = [0; Outcome::COUNT];
        decided[Outcome::Answered as usize] = 1;
        let key = HourKey {
            hour: hour + later,
            initiator: address(from),
            responder: address(to),
            protocol: 6,
            port,
            verdict,
            names: names.to_owned(),
        };
        let counts = HourCounts {
            begun: flows,
            decided,
        };
        assert!(batch.hours.insert(key, counts).is_none());
    }
    opened.ledger.record(batch);
    assert!(opened.ledger.flush(Duration::from_secs(30)));
}

#[test]
fn a_ledger_is_judged_by_a_draft() {
    let lab = Lab::new();
    write_ledger(lab.0.path());
    let flows = |report: &Value, kind: &str| report["counts"][kind]["flows"].as_u64().unwrap();
    let report = lab.compared("--draft new.yaml --ledger .");
    let told = [
        "newly_unexpected",
        "newly_covered",
        "by_other_rows",
        "still_unexpected",
        "undecided",
    ]
    .map(|kind| flows(&report, kind));
    assert_eq!(told, [2, 5, 5, 0, 3], "{report:#}");
    assert_eq!(report["judged"]["flows"], 15);
    assert_eq!(report["judged_otherwise_then"]["flows"], 5);
    let named = report["newly_covered"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|group| group["to"]["draft"] == serde_json::json!(["shop/cloud"]))
        .unwrap();
    assert_eq!(
        named["samples"][0]["names"],
        serde_json::json!(["a.cloud.example", "b.example"])
    );
    assert_eq!(report["undecided"][0]["reason"], "no_name");
    // The hour in which it was, the file itself, and times around it.
    let part = lab.compared("--draft new.yaml --ledger ledger.sqlite --until 2025-10-09T09:00:00Z");
    assert_eq!(part["judged"]["flows"], 11);
    assert_eq!(part["from"], "2025-10-09T08:00:00Z");
    assert_eq!(part["until"], "2025-10-09T09:00:00Z");
    let later = lab.compared("--draft new.yaml --ledger . --since 2025-10-09T09:00:00Z");
    assert_eq!(later["judged"]["flows"], 4);
    let none = lab.compared("--draft new.yaml --ledger . --since 1h");
    assert_eq!(none["judged"]["flows"], 0);
    assert_eq!(none["from"], Value::Null);
    assert_eq!(
        lab.code("--draft new.yaml --ledger . --fail-on newly-unexpected"),
        1
    );
    assert_eq!(
        lab.code("--draft new.yaml --ledger . --since 1h --fail-on newly-unexpected"),
        0
    );
    let text = String::from_utf8(lab.replay("--draft new.yaml --ledger .").stdout).unwrap();
    assert!(
        text.starts_with("draft: shop (replaced)\n15 flows from"),
        "{text}"
    );
}

#[test]
fn a_system_may_be_new_and_a_site_too() {
    let lab = Lab::new();
    lab.write(
        "ssh.yaml",
        "system: ssh\ntitle: SSH\nroles: {admin: , server: }\nrequirements:\n  - {id: login, from: admin, to: server, services: [tcp/22]}\n",
    );
    lab.write(
        "site-new.yaml",
        &(SITE.replace("[shop]", "[shop, ssh]")
            + "  ssh/admin: [10.0.0.9]\n  ssh/server: [10.0.0.2, 10.0.0.10]\n"),
    );
    let report = lab.compared("--draft ssh.yaml --draft-site site-new.yaml x.pcap");
    assert_eq!(
        report["systems"],
        serde_json::json!([{"id": "ssh", "change": "added", "deployed": true}])
    );
    let was: Vec<&str> = report["newly_covered"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["was"].as_str().unwrap())
        .collect();
    assert_eq!(was, ["unscoped", "unexpected"]);
    assert_eq!(report["counts"]["no_longer_unscoped"]["flows"], 1);
    // Beside a system that is deployed, one that is not is told; alone it is refused.
    let both = lab.compared("--draft new.yaml ssh.yaml x.pcap");
    assert_eq!(both["systems"][1]["deployed"], false);
    let note = both["notes"][0].as_str().unwrap();
    assert!(
        note.contains("`ssh`") && note.contains("`systems`"),
        "{note}"
    );
    lab.refused("--draft ssh.yaml x.pcap", 2, "--draft-site");
    // A site alone may be on trial.
    let site = lab.compared("--draft-site site.yaml x.pcap");
    assert_eq!(site["systems"], serde_json::json!([]));
}

#[test]
fn what_can_not_be_judged_by_is_told_with_its_place() {
    let lab = Lab::new();
    lab.write(
        "bad.yaml",
        &draft().replace(
            "to: web, services: [tcp/873]",
            "to: wob, services: [tcp/873]",
        ),
    );
    lab.refused("--draft bad.yaml x.pcap", 1, "bad.yaml:9");
    // The site in force binds a role that the draft has no more.
    lab.write(
        "smaller.yaml",
        "system: shop\ntitle: Shop\nroles: {client: , web: }\nrequirements:\n  - {id: browse, from: client, to: web, services: [tcp/80]}\n",
    );
    lab.refused("--draft smaller.yaml x.pcap", 1, "site.yaml:7");
    lab.refused("--draft smaller.yaml x.pcap", 1, "--draft-site");
    lab.refused("--draft none.yaml x.pcap", 2, "none.yaml: no such file");
    lab.refused("--draft new.yaml --ledger none", 2, "no ledger");
    lab.refused("--draft new.yaml --ledger x.pcap", 2, "x.pcap");
    lab.refused("--ledger .", 2, "--draft");
    lab.refused(
        "--draft new.yaml --ledger . x.pcap",
        2,
        "cannot be used with",
    );
    lab.refused(
        "--draft new.yaml --ledger . --since tomorrow",
        2,
        "such as 7d",
    );
    lab.refused(
        "--draft new.yaml --ledger . --since 1h --until 2h",
        2,
        "not before",
    );
    lab.refused("--fail-on newly-unexpected x.pcap", 2, "--draft");
    lab.refused(
        "--draft new.yaml --ledger . --fail-on blocked",
        2,
        "newly-unexpected",
    );
}
