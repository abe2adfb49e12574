//! `flowproof suggest`, as its users run it: what it says of a ledger and of a capture, and that its patches apply by `patch`
//! and by `git apply`, keep the matrix valid, and leave nothing more to propose.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use flowproof::ledger::{
    Batch, HourCounts, HourKey, Ledger, Limits, ServiceId, ServiceSeen, WindowUpdate,
};
use flowproof::verdict::requirement::State;
use flowproof::verdict::window::{Gap, GapKind, KeptService, KeptWatch};
use flowproof_common::classify::Verdict;
use flowproof_common::state::Outcome;
use serde_json::Value;
use tempfile::TempDir;

use crate::captures::{MS, Pcap, START, ethernet, tcp};
use crate::report::golden;

const HOUR: u64 = 3_600_000_000_000;
const DAY: u64 = 24 * HOUR;
/// When the ledgers end: 2026-03-01T00:00:00Z.
const NOW: u64 = 1_772_323_200_000_000_000;

const SHOP: &str = "\
# The shop.
system: shop
title: Shop
roles:
  client: {title: Client}
  web: {title: Web server}
  db: {title: Database}
requirements:
  # --- Clients ---
  - id: browse
    from: client
    to: web
    services: [tcp/80, tcp/443]
  - id: query
    from: web
    to: db
    services: [tcp/5432]
  # for the old clients
  - id: old-query
    from: client
    to: db
    services: [tcp/1433]
    necessity: optional
  - {id: reports, from: db, to: web, services: [tcp/9000]}
  - id: logs
    from: web
    to: db
    services: [udp/514]
";
const SITE: &str = "\
site: hq
systems: [shop]
roles:
  shop/client: [10.20.0.0/16]
  shop/web: [10.1.0.10, 10.1.0.11]
  shop/db: [10.1.0.20]
";

struct Lab(TempDir);

impl Lab {
    fn new(pack: &str, site: &str) -> Self {
        let lab = Self(TempDir::new().unwrap());
        lab.write("shop.yaml", pack);
        lab.write("site.yaml", site);
        lab
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn run(&self, arguments: &str) -> Output {
        run_in(self.path(), arguments)
    }

    /// Exit code and output; nothing goes to standard error.
    #[track_caller]
    fn suggest(&self, arguments: &str) -> (i32, String) {
        let output = self.run(&format!("suggest --site site.yaml {arguments}"));
        assert!(output.stderr.is_empty(), "{output:?}");
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
        )
    }

    #[track_caller]
    fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.suggest(&format!("{arguments} --format json")).1).unwrap()
    }

    /// `git apply` wants no repository; with one it would look for the files there.
    #[track_caller]
    fn apply(&self, tool: &str, patch: &str) {
        let (program, arguments) = match tool {
            "git" => ("git", &["apply", "--whitespace=nowarn", "-"][..]),
            _ => (
                "patch",
                &["-p1", "--binary", "--no-backup-if-mismatch", "--fuzz=0"][..],
            ),
        };
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(self.path())
            .env("GIT_CEILING_DIRECTORIES", self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), patch.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}\n{patch}");
    }

    /// Writes a ledger that ends at [`NOW`].
    fn ledger(&self, flows: &[Flow<'_>], services: &[Service<'_>], watch: KeptWatch) {
        let mut batch = Batch {
            until: NOW,
            watch: Some(KeptWatch {
                until: NOW,
                ..watch
            }),
            ..Batch::default()
        };
        if let Some(blind) = watch.last_blind {
            batch.gaps.push(Gap {
                kind: GapKind::Down,
                from: blind - HOUR,
                to: blind,
                lost: 0,
            });
        }
        for flow in flows {
            let (key, counts) = flow.record();
            batch.hours.entry(key).or_default().add(&counts);
        }
        for service in services {
            batch.services.insert(service.id(), service.seen());
        }
        let opened = Ledger::open(&self.path().join("ledger.sqlite"), Limits::default()).unwrap();
        opened.ledger.record(batch);
        assert!(opened.ledger.flush(Duration::from_secs(60)));
    }
}

fn run_in(folder: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flowproof"))
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Flows of an hour: hours ago, ends, service, how many, and how many of them were answered.
struct Flow<'a>(u64, &'a str, &'a str, &'a str, u64, u64);

impl Flow<'_> {
    fn record(&self) -> (HourKey, HourCounts) {
        let (protocol, port) = self.3.split_once('/').unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap().into();
        let mut decided = [0; Outcome::COUNT];
        decided[Outcome::Answered as usize] = self.5;
        decided[Outcome::Refused as usize] = self.4 - self.5;
        let key = HourKey {
            hour: HourKey::hour_of(NOW) - self.0,
            initiator: address(self.1),
            responder: address(self.2),
            protocol: if protocol == "tcp" { 6 } else { 17 },
            port: port.parse().unwrap(),
            verdict: Verdict::Unexpected,
            names: String::new(),
        };
        (
            key,
            HourCounts {
                begun: self.4,
                decided,
            },
        )
    }
}

/// A service of the shop: for how many days it could be seen, and how many days ago it was.
struct Service<'a>(&'a str, &'a str, u64, Option<u64>);

impl Service<'_> {
    fn id(&self) -> ServiceId {
        ServiceId {
            system: "shop".to_owned(),
            requirement: self.0.to_owned(),
            service: self.1.to_owned(),
        }
    }

    fn seen(&self) -> ServiceSeen {
        let last = self.3.map(|days| NOW - days * DAY);
        let state = if last.is_some() {
            State::Verified
        } else {
            State::Silent
        };
        let head = KeptService {
            begins: Some(NOW - self.2 * DAY),
            standing: Some((state, NOW)),
            ..KeptService::default()
        };
        ServiceSeen {
            seen: last.map(|last| [last, last]),
            window: Some(WindowUpdate {
                head,
                buckets: std::collections::BTreeMap::new(),
                rewritten: true,
            }),
            ..ServiceSeen::default()
        }
    }
}

/// Something of everything.
fn traffic() -> Vec<Flow<'static>> {
    let mut flows = vec![
        // Covered.
        Flow(5, "10.20.0.5", "10.1.0.10", "tcp/443", 50, 50),
        // The pack's own, and near a row of it.
        Flow(5, "10.20.0.5", "10.1.0.10", "tcp/8443", 10, 9),
        Flow(30, "10.20.0.6", "10.1.0.11", "tcp/8443", 4, 4),
        // From and to strangers.
        Flow(5, "192.0.2.7", "10.1.0.20", "tcp/22", 2, 2),
        Flow(50, "192.0.2.8", "10.1.0.20", "tcp/22", 2, 2),
        Flow(9, "10.1.0.10", "198.51.100.1", "udp/123", 2, 2),
        Flow(10, "10.1.0.10", "198.51.100.1", "udp/123", 2, 2),
        // Refused, day by day.
        Flow(9, "10.20.0.5", "10.1.0.20", "tcp/3306", 5, 0),
        Flow(40, "10.20.0.5", "10.1.0.20", "tcp/3306", 5, 0),
        // An answer that was taken for a request.
        Flow(9, "10.1.0.10", "10.20.0.5", "tcp/51000", 2, 2),
        Flow(10, "10.1.0.10", "10.20.0.5", "tcp/51000", 2, 2),
        // One high port, one client.
        Flow(9, "10.20.0.9", "10.1.0.20", "tcp/51001", 2, 2),
        Flow(10, "10.20.0.9", "10.1.0.20", "tcp/51001", 2, 2),
        // Once.
        Flow(1, "10.20.0.9", "10.1.0.20", "tcp/1", 1, 1),
    ];
    for port in ["tcp/49700", "tcp/49801", "tcp/50902"] {
        flows.push(Flow(3, "10.1.0.10", "10.1.0.20", port, 3, 3));
        flows.push(Flow(4, "10.1.0.11", "10.1.0.20", port, 3, 3));
    }
    const PORTS: [&str; 24] = [
        "tcp/1", "tcp/2", "tcp/3", "tcp/4", "tcp/5", "tcp/6", "tcp/7", "tcp/8", "tcp/9", "tcp/10",
        "tcp/11", "tcp/12", "tcp/13", "tcp/14", "tcp/15", "tcp/16", "tcp/17", "tcp/18", "tcp/19",
        "tcp/20", "tcp/21", "tcp/23", "tcp/24", "tcp/25",
    ];
    for port in PORTS {
        flows.push(Flow(2, "10.20.66.6", "10.1.0.20", port, 1, 0));
    }
    flows.push(Flow(2, "10.20.66.6", "10.1.0.20", "tcp/22", 5, 5));
    flows.push(Flow(3, "10.20.66.6", "10.1.0.20", "tcp/22", 5, 5));
    flows
}

fn services() -> Vec<Service<'static>> {
    vec![
        Service("browse", "tcp/80", 40, None),
        Service("browse", "tcp/443", 40, Some(0)),
        Service("query", "tcp/5432", 40, Some(1)),
        Service("old-query", "tcp/1433", 40, Some(35)),
        Service("reports", "tcp/9000", 40, None),
        Service("logs", "udp/514", 3, None),
    ]
}

const LEDGER: &str = "--matrix shop.yaml --ledger ledger.sqlite";

#[test]
fn every_part_is_told() {
    let lab = Lab::new(SHOP, SITE);
    lab.ledger(&traffic(), &services(), KeptWatch::default());
    for (format, file) in [
        ("text", "suggest.txt"),
        ("json", "suggest.json"),
        ("patch", "suggest.patch"),
    ] {
        let (code, told) = lab.suggest(&format!("{LEDGER} --format {format}"));
        assert_eq!(code, 1);
        golden(file, &told);
    }
    let (_, removing) = lab.suggest(&format!("{LEDGER} --format patch --remove"));
    golden("suggest-remove.patch", &removing);
    // The folder stands for the ledger in it, and a file may be named for the result.
    let (_, to_file) = lab.suggest("--matrix shop.yaml --ledger . --format json -o told.json");
    assert_eq!(to_file, "");
    assert_eq!(
        lab.read("told.json").replace("./ledger", "ledger"),
        lab.suggest(&format!("{LEDGER} --format json")).1
    );
}

#[test]
fn the_patch_leaves_nothing_to_propose() {
    for (tool, remove) in [
        ("patch", false),
        ("git", false),
        ("patch", true),
        ("git", true),
    ] {
        let lab = Lab::new(SHOP, SITE);
        lab.ledger(&traffic(), &services(), KeptWatch::default());
        let remove = if remove { "--remove" } else { "" };
        let (_, patch) = lab.suggest(&format!("{LEDGER} --format patch {remove}"));
        lab.apply(tool, &patch);
        // As the hint says.
        lab.write("site.yaml", SITE.replace("[shop]", "[shop, local]"));
        let check = lab.run("check shop.yaml local.yaml --site site.yaml");
        assert_eq!(check.status.code(), Some(0), "{check:?}\n{patch}");
        let anew = lab.json("--matrix shop.yaml local.yaml --ledger ledger.sqlite");
        assert_eq!(anew["proposals"], Value::Array(Vec::new()));
        assert_eq!(anew["roles"], Value::Array(Vec::new()));
        let left: Vec<&str> = anew["unused"]["removals"]
            .as_array()
            .unwrap()
            .iter()
            .map(|removal| removal["requirement"].as_str().unwrap())
            .collect();
        let expect: &[&str] = if remove.is_empty() {
            &["browse", "old-query", "reports"]
        } else {
            &[]
        };
        assert_eq!(left, expect);
        // What it does not touch is as it was.
        let after = lab.read("shop.yaml");
        for line in SHOP
            .lines()
            .filter(|line| line.trim_start().starts_with('#'))
        {
            assert!(after.contains(line), "{line}");
        }
        if remove.is_empty() {
            assert!(after.starts_with(SHOP));
        }
    }
}

#[test]
fn what_comes_later_is_added_to_the_site_local_matrix() {
    let lab = Lab::new(SHOP, SITE);
    let mut flows = traffic();
    lab.ledger(&flows, &[], KeptWatch::default());
    let (_, patch) = lab.suggest(&format!("{LEDGER} --format patch"));
    lab.apply("git", &patch);
    lab.write("site.yaml", SITE.replace("[shop]", "[shop, local]"));
    let before = lab.read("local.yaml");
    std::fs::remove_file(lab.path().join("ledger.sqlite")).unwrap();
    for hours in [1, 2] {
        flows.push(Flow(hours, "203.0.113.5", "10.1.0.10", "tcp/8080", 2, 2));
        flows.push(Flow(hours, "192.0.2.7", "10.1.0.20", "tcp/2222", 2, 2));
    }
    lab.ledger(&flows, &[], KeptWatch::default());
    let both = "--matrix shop.yaml local.yaml --ledger ledger.sqlite";
    let (code, patch) = lab.suggest(&format!("{both} --format patch"));
    assert_eq!(code, 1);
    lab.apply("patch", &patch);
    assert_eq!(lab.json(both)["proposals"], Value::Array(Vec::new()));
    let check = lab.run("check shop.yaml local.yaml --site site.yaml");
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    let after = lab.read("local.yaml");
    for line in before.lines() {
        assert!(after.contains(line), "{line}");
    }
    assert!(after.contains("host-203-0-113-5: {title"), "{after}");
}

/// The vendors' packs, each with two of its roles bound.
#[test]
fn packs_are_patched_and_stay_what_they_were() {
    let rules = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../rules");
    let packs = [
        "rimo3",
        "appsanywhere",
        "remotespark",
        "audiocodes-device-manager",
        "parallels-ras-19",
    ];
    for (pack, tool) in packs.into_iter().zip(["patch", "git"].into_iter().cycle()) {
        let text = std::fs::read_to_string(rules.join(format!("{pack}.yaml"))).unwrap();
        let reading = flowproof::matrix::Matrix::read_text(pack, &text);
        let system = &reading.matrix.systems[0];
        let roles: Vec<&str> = system
            .roles
            .iter()
            .filter(|role| role.names.is_empty())
            .map(|role| role.id.as_str())
            .collect();
        let (one, two) = (roles[0], roles[1]);
        let site = format!(
            "site: hq\nsystems: [{0}]\nroles: {{{0}/{one}: [10.20.0.0/16], {0}/{two}: [10.1.0.10]}}\n",
            system.id
        );
        let lab = Lab::new(&text, &site);
        let mut flows = Vec::new();
        for hours in [1, 30] {
            flows.push(Flow(hours, "10.20.0.5", "10.1.0.10", "tcp/7777", 2, 2));
            flows.push(Flow(hours, "192.0.2.7", "10.1.0.10", "tcp/7778", 2, 2));
        }
        lab.ledger(&flows, &[], KeptWatch::default());
        let found = lab.json(LEDGER);
        assert_eq!(
            found["proposals"].as_array().unwrap().len(),
            2,
            "{pack}: {found:#}"
        );
        let (_, patch) = lab.suggest(&format!("{LEDGER} --format patch"));
        lab.apply(tool, &patch);
        let after = lab.read("shop.yaml");
        assert!(after.starts_with(&text), "{pack}");
        assert_eq!(
            after[text.len()..].matches("\n    doubts:\n").count(),
            1,
            "{pack}"
        );
        lab.write(
            "site.yaml",
            site.replace(
                &format!("[{}]", system.id),
                &format!("[{}, local]", system.id),
            ),
        );
        let check = lab.run("check shop.yaml local.yaml --site site.yaml");
        assert_eq!(check.status.code(), Some(0), "{pack}: {check:?}");
        let (code, told) = lab.suggest("--matrix shop.yaml local.yaml --ledger ledger.sqlite");
        assert_eq!(code, 0, "{pack}: {told}");
        assert!(told.contains("no requirement to propose"), "{pack}: {told}");
    }
}

#[test]
fn odd_files_are_patched_too() {
    let flows = [
        Flow(1, "10.20.0.5", "10.1.0.10", "tcp/8443", 2, 2),
        Flow(2, "10.20.0.5", "10.1.0.10", "tcp/8443", 2, 2),
    ];
    for tool in ["patch", "git"] {
        for text in [SHOP.replace('\n', "\r\n"), SHOP.trim_end().to_owned()] {
            let lab = Lab::new(&text, SITE);
            lab.ledger(&flows, &[], KeptWatch::default());
            let (_, patch) = lab.suggest(&format!("{LEDGER} --format patch"));
            lab.apply(tool, &patch);
            let after = lab.read("shop.yaml");
            assert!(
                after.starts_with(&text) && after.len() > text.len(),
                "{tool}\n{patch}"
            );
            assert_eq!(lab.json(LEDGER)["proposals"], Value::Array(Vec::new()));
        }
    }
    // Between brackets there are no lines to add: it is said, with the rows.
    let rows = "requirements: [{id: a, from: client, to: web, services: [tcp/443]}]\n";
    let head = &SHOP[..SHOP.find("requirements:").unwrap()];
    let lab = Lab::new(&format!("{head}{rows}"), SITE);
    lab.ledger(&flows, &[], KeptWatch::default());
    let (code, patch) = lab.suggest(&format!("{LEDGER} --format patch"));
    assert_eq!(code, 1);
    assert!(patch.lines().all(|line| line.starts_with('#')), "{patch}");
    for part in [
        "shop.yaml: `requirements` is not written as a list",
        "- id: client-to-web-tcp-8443",
        "nothing to change",
    ] {
        assert!(patch.contains(part), "{part}: {patch}");
    }
}

#[test]
fn files_elsewhere_are_patched_from_the_root() {
    let lab = Lab::new(SHOP, SITE);
    lab.ledger(&traffic(), &[], KeptWatch::default());
    let elsewhere = TempDir::new().unwrap();
    let folder = lab.path().display();
    let output = run_in(
        elsewhere.path(),
        &format!(
            "suggest --matrix {folder}/shop.yaml --site {folder}/site.yaml --ledger {folder} --format patch"
        ),
    );
    let patch = String::from_utf8(output.stdout).unwrap();
    assert!(
        patch.contains("# paths are below /: apply it there\n"),
        "{patch}"
    );
    let whole = lab.path().canonicalize().unwrap();
    assert!(
        patch.contains(&format!("--- a{}/shop.yaml\n", whole.display())),
        "{patch}"
    );
    let other = elsewhere.path().canonicalize().unwrap();
    assert!(
        patch.contains(&format!(
            "--- /dev/null\n+++ b{}/local.yaml\n",
            other.display()
        )),
        "{patch}"
    );
}

#[test]
fn a_gap_leaves_silence_untold() {
    let lab = Lab::new(SHOP, SITE);
    let watch = KeptWatch {
        last_blind: Some(NOW - 3 * DAY),
        ..KeptWatch::default()
    };
    lab.ledger(&[], &services(), watch);
    let (code, told) = lab.suggest(LEDGER);
    assert_eq!(code, 0, "{told}");
    assert!(
        told.contains("4 services: watched for 3 of 30 days (2026-02-26T00:00:00Z, the daemon was down until then)"),
        "{told}"
    );
    // Fewer days were watched well.
    let (code, told) = lab.suggest(&format!("{LEDGER} --unused 2"));
    assert_eq!(code, 1);
    assert!(
        told.contains(
            "shop/reports (required): tcp/9000 (all services): never seen, unused for 3 days"
        ),
        "{told}"
    );
}

#[test]
fn only_the_time_that_is_asked_for_counts() {
    let lab = Lab::new(SHOP, SITE);
    lab.ledger(&traffic(), &[], KeptWatch::default());
    let ids = |arguments: &str| -> Vec<String> {
        lab.json(&format!("{LEDGER} {arguments}"))["proposals"]
            .as_array()
            .unwrap()
            .iter()
            .map(|proposal| proposal["requirement"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids("").len(), 4);
    assert_eq!(
        ids("--since 10h"),
        [
            "web-to-db-tcp-49152-65535",
            "shop-web-to-host-198-51-100-1-udp-123"
        ]
    );
    assert_eq!(
        ids("--since 10h --min-hours 1")[1],
        "client-to-web-tcp-8443"
    );
    let since = lab.json(&format!("{LEDGER} --since 10h"))["since"].clone();
    let written = format!("--since {}", since.as_str().unwrap());
    assert_eq!(ids(&written), ids("--since 10h"));
    assert_eq!(ids("--min-flows 14").len(), 1);
    assert!(ids("--include-unanswered").contains(&"client-to-db-tcp-3306".to_owned()));
}

#[test]
fn a_capture_is_looked_at_too() {
    let mut file = Pcap::ethernet();
    let mut packets = Vec::new();
    for port in 40_000..40_004_u16 {
        let (client, web) = ((1, port), (2, 8443));
        packets.extend([
            tcp(client, web, "S"),
            tcp(web, client, "SA"),
            tcp(client, web, "A"),
        ]);
    }
    for (number, packet) in (0..).zip(&packets) {
        file.add(START + number * MS, &ethernet(packet));
    }
    let site =
        "site: hq\nsystems: [shop]\nroles: {shop/client: [10.0.0.1], shop/web: [10.0.0.2]}\n";
    let lab = Lab::new(SHOP, site);
    lab.write("x.pcap", &file.bytes);
    let arguments = "--matrix shop.yaml --capture x.pcap";
    let found = lab.json(arguments);
    assert_eq!(found["proposals"][0]["id"], "shop/client-to-web-tcp-8443");
    assert_eq!(found["proposals"][0]["answered"], 4);
    assert_eq!(
        (&found["source"], &found["unused"]),
        (&"capture x.pcap".into(), &Value::Null)
    );
    lab.apply(
        "patch",
        &lab.suggest(&format!("{arguments} --format patch")).1,
    );
    assert_eq!(lab.suggest(arguments).0, 0);
}

#[test]
fn what_can_not_be_done_says_what_to_do() {
    let lab = Lab::new(SHOP, SITE);
    let fails = |arguments: &str, expect: &str| {
        let output = lab.run(&format!("suggest --site site.yaml {arguments}"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expect), "{said}");
    };
    fails("--matrix shop.yaml", "--ledger [<PATH>]|--capture <FILE>");
    fails(
        LEDGER,
        "ledger.sqlite: no ledger; `flowproof run` keeps one",
    );
    fails("--matrix shop.yaml --capture no.pcap", "no.pcap");
    fails("--matrix shop.yaml --capture x --remove", "--remove");
    fails(&format!("{LEDGER} --min-flows 0"), "0 is not in 1..");
    lab.ledger(&traffic(), &[], KeptWatch::default());
    lab.write("local.yaml", "system: local\ntitle: L\nrequirements:\n  - {id: a, from: any, to: any, services: [gre]}\n");
    fails(
        LEDGER,
        "local.yaml exists and is not among the matrix files",
    );
    fails(
        "--matrix shop.yaml local.yaml --ledger ledger.sqlite",
        "the site does not deploy `local` of local.yaml",
    );
    // Another file's system has the name.
    lab.write("other.yaml", "system: local\ntitle: L\nrequirements:\n  - {id: a, from: any, to: any, services: [gre]}\n");
    let found = lab.json("--matrix shop.yaml other.yaml --local mine.yaml --ledger ledger.sqlite");
    let system = |id: &str| {
        let proposals = found["proposals"].as_array().unwrap();
        proposals
            .iter()
            .find(|it| it["system"] == id)
            .map(|it| it["file"].clone())
    };
    assert_eq!(system("local-2"), Some("mine.yaml".into()));
    assert_eq!(system("shop"), Some("shop.yaml".into()));
    // A matrix with errors falls short.
    lab.write("shop.yaml", "system: shop\n");
    assert_eq!(
        lab.run(&format!("suggest --site site.yaml {LEDGER}"))
            .status
            .code(),
        Some(1)
    );
}
