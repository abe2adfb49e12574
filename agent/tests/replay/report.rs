//! `flowproof report --capture` and `flowproof diff`, as their users run them: every form of a report against a golden file, what
//! decides the exit code, and that nothing of the network or of a pack becomes markup.
//!
//! The golden files are written anew with `FLOWPROOF_UPDATE_GOLDEN=1`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flowproof_tests::skip::skip;
use serde_json::Value;
use tempfile::TempDir;

use crate::captures::{MS, Pcap, START, ethernet, icmp_error, tcp, udp};

pub(crate) const MATRIX: &str = r#"
system: shop
title: Shop & <i>Sons</i>
version: "3"
roles:
  client: {title: Client <b>}
  web: {title: Web server}
  db: {title: Database}
  cloud: {title: Cloud}
requirements:
  - {id: browse, from: client, to: web, services: [tcp/80, tcp/443], provenance: {section: Clients, row: 1}, purpose: "<script>alert('x')</script> & more"}
  - {id: query, from: web, to: db, services: [tcp/5432], provenance: {section: "Servers \"A\"", row: 2}, purpose: "=cmd|' /C calc'!A0"}
  - {id: ship, from: db, to: web, services: [tcp/22], direction: both}
  - {id: logs, from: client, to: web, services: [udp/514], necessity: optional}
  - {id: call, from: client, to: web, services: [udp/514]}
  - {id: upload, from: web, to: cloud, services: [tcp/443]}
  - {id: backup, from: db, to: web, services: [tcp/873]}
  - {id: extra, from: web, to: db, services: [tcp/6379], necessity: conditional, condition: "with # cache"}
"#;

pub(crate) const SITE: &str = "
site: test & lab
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
const HOP: u8 = 254;

/// Verified, blocked, degraded, unknown, silent, unobservable and unexpected.
fn capture() -> Vec<u8> {
    let query = tcp((WEB, 50000), (DB, 5432), "S");
    let ship = ((DB, 40100), (WEB, 22));
    let again = ((DB, 40101), (WEB, 22));
    let packets = [
        (0, tcp((CLIENT, 40000), (WEB, 443), "S")),
        (1, tcp((WEB, 443), (CLIENT, 40000), "SA")),
        (2, tcp((CLIENT, 40000), (WEB, 443), "A")),
        (10, query.clone()),
        (11, icmp_error(HOP, 3, 13, &query)),
        (20, tcp(ship.0, ship.1, "S")),
        (21, tcp(ship.1, ship.0, "SA")),
        (22, tcp(ship.0, ship.1, "A")),
        (30, udp((CLIENT, 40002), (WEB, 514))),
        (40, tcp(again.0, again.1, "S")),
        (41, tcp(again.1, again.0, "RA")),
        (50, tcp((STRANGER, 1234), (WEB, 443), "S")),
        (51, tcp((WEB, 443), (STRANGER, 1234), "RA")),
        (60, tcp((CLIENT, 1235), (WEB, 8443), "S")),
        (61, tcp((WEB, 8443), (CLIENT, 1235), "RA")),
        (70, tcp((CLIENT, 1236), (WEB, 8443), "S")),
        (71, tcp((WEB, 8443), (CLIENT, 1236), "RA")),
        (9_000, udp((STRANGER, 40000), (STRANGER + 1, 41000))),
    ];
    let mut file = Pcap::ethernet();
    for (at, packet) in &packets {
        file.add(START + at * MS, &ethernet(packet));
    }
    file.bytes
}

struct Lab(TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Self(TempDir::new().unwrap());
        lab.write("shop.yaml", MATRIX.as_bytes());
        lab.write("site.yaml", SITE.as_bytes());
        lab.write("x.pcap", &capture());
        lab
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_flowproof"))
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    /// Exit code and bytes of a report of the capture.
    fn report(&self, arguments: &[&str]) -> (i32, Vec<u8>) {
        let mut all = vec![
            "report",
            "--matrix",
            "shop.yaml",
            "--site",
            "site.yaml",
            "--capture",
            "x.pcap",
        ];
        all.extend(arguments);
        let output = self.run(&all);
        let code = output.status.code().unwrap();
        assert!(code < 2 && output.stderr.is_empty(), "{output:?}");
        (code, output.stdout)
    }

    fn text(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.report(arguments).1).unwrap()
    }
}

#[track_caller]
pub(crate) fn golden(name: &str, got: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/replay/golden")
        .join(name);
    if std::env::var_os("FLOWPROOF_UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, got).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        got == expected,
        "{name} differs; if that is meant, write it anew with FLOWPROOF_UPDATE_GOLDEN=1:\n{got}"
    );
}

#[test]
fn every_form_is_as_it_was() {
    let lab = Lab::new();
    for (format, file) in [
        ("text", "report.txt"),
        ("json", "report.json"),
        ("csv", "report.csv"),
        ("html", "report.html"),
        ("junit", "report.xml"),
        ("tap", "report.tap"),
    ] {
        golden(file, &lab.text(&["--format", format]));
    }
    golden(
        "report-strict.tap",
        &lab.text(&["--format", "tap", "--fail-on", "unexpected,silent,unknown"]),
    );
}

/// What the golden files may hide in their length: the state of each row, by hand.
#[test]
fn states_are_those_that_the_traffic_shows() {
    let lab = Lab::new();
    let report: Value = serde_json::from_str(&lab.text(&["--format", "json"])).unwrap();
    let states: Vec<_> = report["requirements"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |field: &str| row[field].as_str().unwrap_or("-").to_owned();
            (text("requirement"), text("state"), !row["ticket"].is_null())
        })
        .collect();
    let expected = [
        ("browse", "verified", false),
        ("query", "blocked", true),
        ("ship", "degraded", true),
        ("logs", "unknown", false),
        ("call", "unknown", false),
        ("upload", "unobservable", false),
        ("backup", "silent", false),
        ("extra", "silent", false),
    ];
    let expected = expected.map(|(id, state, ticket)| (id.to_owned(), state.to_owned(), ticket));
    assert_eq!(states, expected);
    assert_eq!(report["unexpected_flows"], 3);
    let groups: Vec<_> = report["unexpected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| {
            (
                group["from"].as_str().unwrap(),
                group["service"].as_str().unwrap(),
                group["flows"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        groups,
        [("shop/client", "tcp/8443", 2), ("~unbound", "tcp/443", 1)]
    );
    let ticket = &report["requirements"][1]["ticket"];
    assert_eq!(ticket["since"], "2025-10-09T08:53:20.010000000Z");
    assert_eq!(ticket["paths"][0]["initiator"], "10.0.0.2");
    assert!(
        ticket["ask"].as_str().unwrap().contains("10.0.0.254"),
        "{ticket}"
    );
    // It worked first: the failure began later.
    assert_eq!(
        report["requirements"][2]["ticket"]["since"],
        "2025-10-09T08:53:20.040000000Z"
    );
}

#[test]
fn fail_on_decides_the_exit_code() {
    let lab = Lab::new();
    let code = |arguments: &[&str]| lab.report(arguments).0;
    assert_eq!(code(&[]), 0);
    for what in ["unexpected", "blocked", "degraded", "silent", "unknown"] {
        assert_eq!(code(&["--fail-on", what]), 1, "{what}");
    }
    // Neither silence nor doubt about what is optional is a problem.
    let optional = MATRIX
        .replace(
            "services: [udp/514]}",
            "services: [udp/514], necessity: optional}",
        )
        .replace(
            "services: [tcp/873]}",
            "services: [tcp/873], necessity: optional}",
        );
    lab.write("shop.yaml", optional.as_bytes());
    assert_eq!(code(&["--fail-on", "silent,unknown"]), 0);
    assert_eq!(code(&["--fail-on", "silent,unknown,degraded"]), 1);
}

/// A file that ends in the middle hides what came after: nothing may be called silent then, and it is an error.
#[test]
fn a_capture_that_is_cut_is_told() {
    let lab = Lab::new();
    let whole = capture();
    lab.write("x.pcap", &whole[..whole.len() - 5]);
    let output = lab.run(&[
        "report",
        "--matrix",
        "shop.yaml",
        "--site",
        "site.yaml",
        "--capture",
        "x.pcap",
        "--format",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(2));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["by_state"]["silent"], 0, "{report}");
    assert_eq!(report["by_state"]["unknown"], 4);
    assert!(
        report["notes"][0].as_str().unwrap().contains("x.pcap"),
        "{report}"
    );
    assert_eq!(report["lost"]["file"], 1);
}

#[test]
fn what_makes_no_sense_is_refused_with_a_remedy() {
    let lab = Lab::new();
    let refused = |arguments: &[&str], part: &str| {
        let output = lab.run(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(part), "{error}");
    };
    refused(&["report", "--matrix", "shop.yaml"], "--capture");
    refused(
        &[
            "report",
            "--matrix",
            "shop.yaml",
            "--format",
            "csv",
            "--fail-on",
            "silent",
        ],
        "--daemon",
    );
    refused(
        &[
            "report",
            "--matrix",
            "shop.yaml",
            "--format",
            "md",
            "--capture",
            "x.pcap",
        ],
        "html",
    );
    refused(
        &["report", "--matrix", "shop.yaml", "--daemon=127.0.0.1:1"],
        "no daemon answers",
    );
    refused(
        &["report", "--matrix", "shop.yaml", "--capture", "none.pcap"],
        "none.pcap",
    );
}

/// The workbook holds what the CSV holds, and all texts are texts.
#[test]
fn the_workbook_says_what_the_csv_says() {
    use calamine::{Data, Reader as _, Xlsx};

    let lab = Lab::new();
    let bytes = lab.report(&["--format", "xlsx"]).1;
    let mut book: Xlsx<_> = Xlsx::new(std::io::Cursor::new(bytes)).unwrap();
    assert_eq!(
        book.sheet_names(),
        ["overview", "requirements", "unexpected", "tickets"]
    );
    let mut lines = Vec::new();
    for (number, sheet) in ["requirements", "unexpected"].into_iter().enumerate() {
        assert!(book.worksheet_formula(sheet).unwrap().is_empty());
        let range = book.worksheet_range(sheet).unwrap();
        for row in range.rows().skip(number) {
            let mut cells: Vec<String> = row.iter().map(Data::to_string).collect();
            cells.resize(23, String::new());
            lines.push(cells);
        }
    }
    let csv = lab.text(&["--format", "csv"]);
    let expected: Vec<Vec<String>> = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(csv.as_bytes())
        .records()
        .map(|record| {
            let cells = record.unwrap();
            cells
                .iter()
                .map(|cell| cell.strip_prefix('\'').unwrap_or(cell).to_owned())
                .collect()
        })
        .collect();
    assert_eq!(lines, expected);
    let tickets = book.worksheet_range("tickets").unwrap();
    let text = tickets.get_value((1, 2)).unwrap().to_string();
    assert!(text.contains("10.0.0.254"), "{text}");
}

/// What CI systems read of JUnit: elements, attributes, and counts that are right.
#[test]
fn junit_has_the_common_structure() {
    use quick_xml::Reader;
    use quick_xml::events::{BytesStart, Event};

    fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
        element
            .attributes()
            .map(Result::unwrap)
            .find(|attribute| attribute.key.as_ref() == name)
            .map(|attribute| attribute.value.into_owned())
    }
    fn count(element: &BytesStart<'_>, name: &str) -> usize {
        attribute(element, name).unwrap().parse().unwrap()
    }

    let lab = Lab::new();
    let (code, bytes) = lab.report(&["--format", "junit", "--fail-on", "silent,unexpected"]);
    assert_eq!(code, 1);
    let mut reader = Reader::from_reader(bytes.as_slice());
    reader.config_mut().check_end_names = true;
    let mut path: Vec<String> = Vec::new();
    let mut totals = [0; 3];
    let mut told = [0; 3];
    let mut cases: Vec<(String, &str)> = Vec::new();
    loop {
        let event = reader.read_event().unwrap();
        let empty = matches!(event, Event::Empty(_));
        let element = match event {
            Event::Eof => break,
            Event::End(_) => {
                path.pop();
                continue;
            }
            Event::Start(element) | Event::Empty(element) => element.into_owned(),
            Event::Text(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::DocType(_)
            | Event::GeneralRef(_) => continue,
        };
        let name = element.name().as_ref().to_owned();
        let parent = path.last().map_or("", String::as_str);
        let expected_parent = match name.as_str() {
            "testsuites" => "",
            "testsuite" => "testsuites",
            "properties" | "testcase" => "testsuite",
            "property" => "properties",
            "failure" | "skipped" => "testcase",
            other => panic!("<{other}> is not in the schema"),
        };
        assert_eq!(parent, expected_parent, "of {name}");
        match name.as_str() {
            "testsuites" => {
                totals = ["tests", "failures", "skipped"].map(|name| count(&element, name));
            }
            "testsuite" => {
                for (sum, name) in told.iter_mut().zip(["tests", "failures", "skipped"]) {
                    *sum += count(&element, name);
                }
                assert_eq!(
                    attribute(&element, "timestamp").unwrap(),
                    "2025-10-09T08:53:29"
                );
            }
            "testcase" => {
                assert!(
                    attribute(&element, "classname")
                        .unwrap()
                        .starts_with("flowproof.")
                );
                cases.push((attribute(&element, "name").unwrap(), "passed"));
            }
            "failure" => {
                assert!(attribute(&element, "type").is_some());
                cases.last_mut().unwrap().1 = "failed";
            }
            "skipped" => {
                assert!(!attribute(&element, "message").unwrap().is_empty());
                cases.last_mut().unwrap().1 = "skipped";
            }
            _ => {}
        }
        if !empty {
            path.push(name);
        }
    }
    assert!(path.is_empty());
    assert_eq!(totals, told);
    let ended = |how| cases.iter().filter(|case| case.1 == how).count();
    assert_eq!(totals, [cases.len(), ended("failed"), ended("skipped")]);
    let cases: Vec<_> = cases
        .iter()
        .map(|(name, how)| (name.as_str(), *how))
        .collect();
    assert_eq!(
        cases,
        [
            ("browse", "passed"),
            ("query", "failed"),
            ("ship", "failed"),
            ("logs", "skipped"),
            ("call", "skipped"),
            ("upload", "skipped"),
            ("backup", "failed"),
            ("extra", "skipped"),
            ("all traffic is expected", "failed"),
        ]
    );
}

/// A browser's view of the page: it parses as meant, and nothing of a pack became an element.
#[test]
fn the_page_opens_in_a_browser() {
    let test = "the_page_opens_in_a_browser";
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let Some(browser) = names.into_iter().find(|name| {
        Command::new(name)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    }) else {
        return skip(test, "no chromium here");
    };
    let lab = Lab::new();
    lab.write("report.html", &lab.report(&["--format", "html"]).1);
    let page = lab.0.path().join("report.html");
    let profile = lab.0.path().join("profile");
    let headless = |mode: &[&str]| {
        Command::new(browser)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                // It asks nobody but this test.
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .args(mode)
            .arg(format!("file://{}", page.display()))
            .output()
            .unwrap()
    };
    let output = headless(&["--dump-dom"]);
    let dom = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && dom.contains("flowproof report"),
        "{output:?}"
    );
    assert!(
        !dom.contains("<script") && !dom.contains("<i>") && !dom.contains("<b>"),
        "{dom}"
    );
    let count = |part: &str| dom.matches(part).count();
    // A cell a pair of roles, one of them the other way round, and a link from each to its rows.
    assert_eq!(count("<a href=\"#pair-0-"), 4, "{dom}");
    assert_eq!(count(" id=\"pair-0-"), 4);
    assert_eq!(count("class=\"ticket\""), 2);
    // Every link inside the page leads somewhere.
    for link in dom.split("href=\"#").skip(1) {
        let anchor = link.split('"').next().unwrap();
        assert_eq!(count(&format!(" id=\"{anchor}\"")), 1, "{anchor}");
    }
    let pdf = lab.0.path().join("report.pdf");
    let output = headless(&[&format!("--print-to-pdf={}", pdf.display())]);
    let printed = std::fs::read(&pdf).unwrap_or_default();
    assert!(
        printed.starts_with(b"%PDF-") && printed.len() > 10_000,
        "{output:?}"
    );
}

#[test]
fn diff_tells_what_changes_judgement() {
    let lab = Lab::new();
    let diff = |new: &str, arguments: &[&str]| {
        lab.write("new.yaml", new.as_bytes());
        let output = lab.run(&[&["diff", "shop.yaml", "new.yaml"], arguments].concat());
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    assert_eq!(diff(MATRIX, &[]), (0, "nothing differs\n".to_owned()));
    let words = MATRIX
        .replace("row: 2", "row: 3")
        .replace("id: upload", "id: send");
    golden("diff-words.txt", &diff(&words, &[]).1);
    assert_eq!(diff(&words, &[]).0, 0);
    let other = words
        .replace("tcp/5432", "tcp/5433")
        .replace("necessity: optional", "necessity: required")
        .replace(
            "  - {id: backup, from: db, to: web, services: [tcp/873]}\n",
            "",
        );
    let (code, text) = diff(&other, &[]);
    assert_eq!(code, 1);
    golden("diff.txt", &text);
    let (code, json) = diff(&other, &["--format", "json"]);
    assert_eq!(code, 1);
    golden("diff.json", &json);
    assert_eq!(diff("system: [", &[]).0, 2);
    assert_eq!(
        lab.run(&["diff", "shop.yaml", "none.yaml"]).status.code(),
        Some(2)
    );
}
