//! `flowproof explain` of requirements, and of flows by what a ledger keeps.

use std::process::Output;

use serde_json::{Value, json};

use crate::captures::{MS, Pcap, START, ethernet, icmp_error, tcp};
use crate::ledger::{Lab, day, without_age};
use crate::report::golden;

fn explain(lab: &Lab, arguments: &[&str]) -> Output {
    let mut all = vec!["explain", "--matrix", "shop.yaml", "--site", "site.yaml"];
    all.extend(arguments);
    lab.run(&all)
}

/// Exit code and text.
#[track_caller]
fn text(lab: &Lab, arguments: &[&str]) -> (i32, String) {
    let output = explain(lab, arguments);
    let code = output.status.code().unwrap();
    assert!(code < 2 && output.stderr.is_empty(), "{output:?}");
    (
        code,
        without_age(&String::from_utf8(output.stdout).unwrap()),
    )
}

#[track_caller]
fn json_of(lab: &Lab, arguments: &[&str]) -> Value {
    let mut all = vec!["--format", "json"];
    all.extend(arguments);
    serde_json::from_str(&text(lab, &all).1).unwrap()
}

#[test]
fn a_requirement_is_explained_from_a_ledger() {
    let lab = Lab::new();
    drop(day(&lab.state()));
    let mut all = String::new();
    for (id, code) in [
        ("shop/browse", 0),
        ("shop/query", 1),
        ("shop/ship#tcp/22", 1),
        ("shop/logs", 0),
        ("shop/upload", 0),
        // Silent, and required.
        ("shop/backup", 1),
        ("shop/extra", 0),
    ] {
        let (got, text) = text(&lab, &["--ledger", "state", "--requirement", id]);
        assert_eq!(got, code, "{text}");
        all.push_str(&text);
        all.push('\n');
        // The same in place of a flow.
        let (_, positional) = self::text(&lab, &["--ledger=state", id]);
        assert_eq!(positional, text);
    }
    golden("explain-rows.txt", &all);
    let (_, text) = text(
        &lab,
        &[
            "--ledger",
            "state",
            "--format",
            "json",
            "--requirement",
            "shop/query",
        ],
    );
    let pretty: Value = serde_json::from_str(&text).unwrap();
    golden(
        "explain-row.json",
        &format!("{}\n", serde_json::to_string_pretty(&pretty).unwrap()),
    );
}

/// What the golden files may hide in their length, by hand.
#[test]
fn the_json_says_what_the_ledger_has() {
    let lab = Lab::new();
    drop(day(&lab.state()));
    let of = |arguments: &[&str]| {
        let mut all = vec!["--ledger", "state", "--requirement"];
        all.extend(arguments);
        json_of(&lab, &all)
    };
    let row = of(&["shop/ship"]);
    assert_eq!(
        (&row["state"], &row["ratio"]),
        (&json!("degraded"), &json!(0.5))
    );
    assert_eq!(row["seen"]["window_seconds"], 21_600);
    let service = &row["services"][0];
    assert_eq!(service["vantage"], "clear");
    assert_eq!(service["place"], "peer");
    assert_eq!(
        service["last_failure"]["evidence"],
        "1 SYN, answered by RST"
    );
    assert!(service["last_answer"].as_str() < service["last_failure"]["at"].as_str());
    assert_eq!(row["failures"]["paths"][0]["outcome"], "refused");
    assert_eq!(
        row["roles"][0]["bound"][0],
        json!({"binding": "10.0.0.3", "by": "site"})
    );
    let row = of(&["shop/browse#tcp/80"]);
    assert_eq!(row["services"].as_array().unwrap().len(), 1);
    // The day's restart spoiled its window; the other service was answered.
    assert_eq!(row["services"][0]["state"], "unknown");
    assert_eq!(row["state"], "verified");
    // Of now, nobody can tell.
    let row = of(&["shop/backup", "--at", "now"]);
    assert_eq!(row["state"], "unknown");
    assert_eq!(row["cause"], "not_watched");
}

#[test]
fn a_flow_is_explained_from_a_ledger() {
    let lab = Lab::new();
    drop(day(&lab.state()));
    let mut all = String::new();
    for (flow, code) in [
        ("10.0.0.2 -> 10.0.0.3:5432/tcp", 0),
        ("10.0.0.1 -> 10.0.0.2:8443/tcp", 1),
        ("10.0.0.9 -> 10.0.0.2:443/tcp", 1),
        ("10.0.0.1 -> 10.0.0.2:22/tcp", 1),
    ] {
        let (got, text) = text(&lab, &["--ledger=state", "--", flow]);
        assert_eq!(got, code, "{text}");
        all.push_str(&text);
        all.push('\n');
    }
    golden("explain-flows.txt", &all);
    let flow = json_of(&lab, &["--ledger=state", "10.0.0.1 -> 10.0.0.2:8443/tcp"]);
    let seen = &flow["seen"];
    assert_eq!(seen["source"], "ledger");
    assert_eq!(
        (&seen["flows"], &seen["by_outcome"]),
        (&json!(2), &json!({"answered": 1, "refused": 1}))
    );
    assert_eq!(seen["first_seen"], "2025-10-09T20:00:00.000000000Z");
    assert_eq!(seen["last_seen"], "2025-10-09T21:00:00.000000000Z");
    assert_eq!(seen["unexpected"]["flows"], 2);
    let flow = json_of(&lab, &["--ledger=state", "10.0.0.2 -> 10.0.0.3:5432/tcp"]);
    assert_eq!(flow["seen"]["requirements"][0]["state"], "blocked");
    assert!(flow["seen"].get("unexpected").is_none());
}

#[test]
fn a_requirement_is_explained_from_a_capture_and_from_nothing() {
    let lab = Lab::new();
    let query = tcp((2, 50000), (3, 5432), "S");
    let mut file = Pcap::ethernet();
    for (at, packet) in [(0, query.clone()), (1, icmp_error(254, 3, 13, &query))] {
        file.add(START + at * MS, &ethernet(&packet));
    }
    std::fs::write(lab.0.path().join("x.pcap"), &file.bytes).unwrap();
    let (code, text) = text(
        &lab,
        &["--capture", "x.pcap", "--requirement", "shop/query"],
    );
    assert_eq!(code, 1);
    for part in [
        "shop/query: blocked (prohibited, at hop 10.0.0.254, high confidence)\n    in the capture, up to 2025",
        "`web` (Web server) is 10.0.0.2 by site.yaml\n",
        "    1 flow, 0 answered, 1 failed\n",
        "becomes verified when a flow from `web` to `db` on tcp/5432 is answered\n",
        "failed: 10.0.0.2 -> 10.0.0.3 tcp/5432: 1 prohibited\n    1 SYN, no answer\n    ICMP 3/13 from 10.0.0.254\n",
        "ask: whoever runs 10.0.0.254",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let (code, text) = self::text(&lab, &["shop/upload"]);
    assert_eq!(code, 0);
    for part in [
        "shop/upload\n",
        "`cloud` (Cloud) is bound to nothing: bind it in site.yaml\n",
        "tcp/443: can't be seen: a role is bound to nothing\n",
        "--ledger into what a daemon wrote down",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let row = json_of(&lab, &["shop/upload"]);
    assert_eq!((&row["seen"], &row["state"]), (&Value::Null, &Value::Null));
}

#[test]
fn what_cannot_be_explained_is_refused_with_a_remedy() {
    let lab = Lab::new();
    let refused = |arguments: &[&str], part: &str| {
        let output = explain(&lab, arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(part), "{error}");
        assert!(output.stdout.is_empty());
    };
    refused(
        &["--requirement", "shop/qery"],
        "did you mean `shop/query`?",
    );
    refused(&["shop/nothing-at-all-like-it"], "flowproof check --matrix");
    refused(&["--requirement", "query"], "write `system/requirement`");
    refused(&["shop/query#tcp/1"], "it has: tcp/5432");
    refused(&["shop/query#x"], "it has: tcp/5432");
    refused(
        &["--requirement", "shop/query", "--ledger", "state"],
        "no ledger",
    );
    refused(
        &["--ledger=state", "10.0.0.1 -> 10.0.0.2:1/tcp"],
        "no ledger",
    );
    refused(
        &["--requirement", "shop/query", "--daemon=127.0.0.1:1"],
        "no daemon answers",
    );
    refused(
        &["--requirement", "shop/query", "--capture", "none.pcap"],
        "none.pcap",
    );
    // Words that are neither say what a flow is.
    refused(&["10.0.0.1"], "two ends");
    std::fs::write(
        lab.state().join("ledger.sqlite"),
        "no database, though it is long enough to look like one",
    )
    .unwrap();
    refused(&["shop/query", "--ledger", "state"], "damaged");
}
