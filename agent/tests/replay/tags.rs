//! Service tags as an operator meets them: files in the providers' formats, a site that binds `tag:NAME`, and the verbs
//! that read both.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::captures::{MS, Pcap, START, ethernet, tcp};

const MATRIX: &str = "
system: shop
title: Shop
roles: {client: {}, desktop: {}, storage: {names: [a.example.org, 'tag:AWS.EC2.eu-west-1']}, partner: {}}
requirements:
  - {id: work, from: client, to: desktop, services: [tcp/443]}
  - {id: keep, from: client, to: storage, services: [tcp/443]}
  - {id: order, from: client, to: partner, services: [tcp/443]}
";
const SITE: &str = "
site: test
systems: [shop]
roles:
  shop/client: [10.0.0.1]
  shop/desktop: ['tag:exampledesktop']
  shop/partner: ['tag:nearby']
";

fn lab() -> TempDir {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("shop.yaml", MATRIX);
    write("site.yaml", SITE);
    write("nearby.txt", "10.0.0.2\n10.0.0.3 # both are one\n");
    folder
}

fn flowproof(folder: &Path, arguments: &str) -> Output {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tags");
    Command::new(env!("CARGO_BIN_EXE_flowproof"))
        .current_dir(folder)
        .args(
            arguments
                .split_whitespace()
                .map(|word| word.replace("FIXTURES", fixtures.to_str().unwrap())),
        )
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_owned()).unwrap()
}

/// The whole output of `explain` for one responder.
fn explained(responder: &str) -> String {
    let folder = lab();
    let output = flowproof(
        folder.path(),
        &format!(
            "explain --matrix shop.yaml --site site.yaml --tags FIXTURES --tags nearby.txt 10.0.0.1 {responder}:443/tcp"
        ),
    );
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn a_flow_is_expected_by_the_prefix_of_a_tag() {
    let check = |responder: &str, parts: &[&str]| {
        let said = explained(responder);
        for part in parts {
            assert!(said.contains(part), "{part} is missing in\n{said}");
        }
    };
    check(
        "192.0.2.70",
        &[
            "tcp/443: expected",
            "shop/desktop: site.yaml binds it to tag:exampledesktop, which has 192.0.2.0/25",
        ],
    );
    check(
        "198.51.100.9",
        &[
            "tcp/443: expected",
            "shop/storage: the rule pack `shop` names tag:AWS.EC2.eu-west-1, which has 198.51.100.0/25",
        ],
    );
    check("192.0.2.130", &["unexpected", "192.0.2.130 has no role"]);
}

#[test]
fn replay_judges_by_tags() {
    let folder = lab();
    let mut capture = Pcap::ethernet();
    for (at, packet) in (0..).zip([
        tcp((1, 40000), (3, 443), "S"),
        tcp((3, 443), (1, 40000), "SA"),
        tcp((1, 40000), (3, 443), "A"),
        tcp((1, 40001), (4, 443), "S"),
    ]) {
        capture.add(START + at * MS, &ethernet(&packet));
    }
    std::fs::write(folder.path().join("c.pcap"), capture.bytes).unwrap();
    let output = flowproof(
        folder.path(),
        "replay --matrix shop.yaml --site site.yaml --tags nearby.txt --tags FIXTURES --format json c.pcap",
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let flow = |port: u16| {
        lines
            .iter()
            .find(|line| line["type"] == "flow" && line["initiator"]["port"] == port)
            .unwrap()
    };
    assert_eq!(flow(40_000)["verdict"], "expected");
    assert_eq!(flow(40_000)["requirements"][0], "shop/order#tcp/443");
    assert_eq!(flow(40_001)["verdict"], "unexpected");
    // Bound by nothing but a tag, and seen all the same.
    let state = |id: &str| {
        let line = lines.iter().find(|line| line["id"] == id).unwrap();
        line["state"].clone()
    };
    assert_eq!(state("shop/order"), "verified");
    assert_eq!(state("shop/work"), "silent");
}

#[test]
fn check_shows_what_is_wrong_with_tags() {
    let folder = lab();
    let folder = folder.path();
    let check = |tags: &str, code: i32, expect: &[(&str, &str, &str, u64, &str)]| {
        let output = flowproof(
            folder,
            &format!("check shop.yaml --site site.yaml --format json {tags}"),
        );
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = report["findings"].as_array().unwrap();
        assert_eq!(found.len(), expect.len(), "{found:#?}");
        for (finding, (severity, code, file, line, part)) in found.iter().zip(expect) {
            assert_eq!(finding["severity"], *severity, "{finding}");
            assert_eq!(finding["code"], *code, "{finding}");
            assert_eq!(finding["file"], *file, "{finding}");
            assert_eq!(finding["line"], *line, "{finding}");
            let message = finding["message"].as_str().unwrap();
            assert!(message.contains(part), "{message}");
        }
    };
    check("--tags FIXTURES --tags nearby.txt", 0, &[]);
    check(
        "--tags nearby.txt",
        1,
        &[
            ("note", "unknown-tag", "shop.yaml", 4, "AWS.EC2.eu-west-1"),
            ("error", "unknown-tag", "site.yaml", 6, "exampledesktop"),
        ],
    );
    std::fs::write(folder.join("bad.txt"), "10.0.0.1\n10.0.0.x\n10.0.0.3\n").unwrap();
    check(
        "--tags FIXTURES --tags nearby.txt --tags bad.txt",
        0,
        &[("warning", "bad-tag-entry", "bad.txt", 2, "10.0.0.x")],
    );
    let output = flowproof(folder, "check shop.yaml --tags nope.json");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nope.json: no such file"));
    // Held against the daemon's copies, and nothing is written there.
    std::fs::create_dir(folder.join("state")).unwrap();
    check(
        "--tags FIXTURES --tags nearby.txt --state-dir state",
        0,
        &[],
    );
    assert_eq!(std::fs::read_dir(folder.join("state")).unwrap().count(), 0);
}
