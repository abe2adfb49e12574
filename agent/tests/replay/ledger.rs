//! `flowproof report --ledger`, as its users run it, on a ledger that the state machines of the daemon write with times of
//! the test's own: every form against a golden file, and what can't be read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use flowproof::ledger::{
    self, Batch, HourCounts, HourKey, Ledger, Limits, ServiceId, ServiceSeen, UnexpectedId,
    UnexpectedSeen,
};
use flowproof::verdict::requirement::{Blind, Failure, Place, Vantage};
use flowproof::verdict::vantage::LossTotals;
use flowproof::verdict::window::{Absence, Evidence, Look, Sample, ServiceWindow, Totals, Watch};
use flowproof_common::address::Address;
use flowproof_common::classify::Verdict;
use flowproof_common::state::Outcome;
use serde_json::Value;
use tempfile::TempDir;

use crate::captures::START;
use crate::report::{MATRIX, SITE, golden};

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const WINDOW: Duration = Duration::from_secs(6 * 3_600);

fn host(last: u8) -> Address {
    Address::from_v4([10, 0, 0, last])
}

/// A service that is watched, and what its counters say.
struct Service {
    window: ServiceWindow,
    totals: Totals,
    evidence: Evidence,
    vantage: Vantage,
}

/// What a daemon does once a second, with a clock of the test's own.
pub(crate) struct Recorder {
    ledger: Ledger,
    pub(crate) now: u64,
    watch: Watch,
    losses: LossTotals,
    services: BTreeMap<ServiceId, Service>,
    texts: BTreeMap<ServiceId, String>,
    pub(crate) batch: Batch,
}

impl Recorder {
    pub(crate) fn new(folder: &Path, now: u64, window: Duration) -> Self {
        let limits = Limits {
            write_every: Duration::from_millis(5),
            window,
            ..Limits::default()
        };
        let opened = Ledger::open(&ledger::path(folder), limits).unwrap();
        Self {
            ledger: opened.ledger,
            now,
            watch: Watch::begin(window, now),
            losses: LossTotals::default(),
            services: BTreeMap::new(),
            texts: BTreeMap::new(),
            batch: Batch::default(),
        }
    }

    /// `shop/query#tcp/5432`
    fn id(text: &str) -> ServiceId {
        let (requirement, service) = text.split_once('#').unwrap();
        let (system, requirement) = requirement.split_once('/').unwrap();
        ServiceId {
            system: system.to_owned(),
            requirement: requirement.to_owned(),
            service: service.to_owned(),
        }
    }

    pub(crate) fn add(&mut self, service: &str, vantage: Vantage) {
        let service_of = Service {
            window: ServiceWindow::new(vantage),
            totals: Totals::default(),
            evidence: Evidence::default(),
            vantage,
        };
        self.services.insert(Self::id(service), service_of);
    }

    /// A flow from one host to another, decided now.
    pub(crate) fn flow(
        &mut self,
        service: &str,
        [from, to]: [u8; 2],
        outcome: Outcome,
        place: Option<Place>,
        text: &str,
    ) {
        let id = Self::id(service);
        let state = self.services.get_mut(&id).unwrap();
        state.totals.flows.begun += 1;
        state.evidence.last_attempt = Some(self.now);
        let failure = Failure {
            at: self.now,
            outcome,
            place,
            told: matches!(place, Some(Place::Hop(_))),
        };
        if outcome.is_failure() {
            state.totals.flows.failed += 1;
            state.evidence.last_failure = Some(failure);
            self.texts.insert(id.clone(), text.to_owned());
        } else {
            state.totals.flows.answered += 1;
            state.totals.replies += 1;
            state.evidence.last_answer = Some(self.now);
        }
        let port = id.service.split('/').nth(1).unwrap().parse().unwrap();
        self.hour(Verdict::Expected, [from, to], port, outcome);
    }

    fn hour(&mut self, verdict: Verdict, [from, to]: [u8; 2], port: u16, outcome: Outcome) {
        let key = HourKey {
            hour: HourKey::hour_of(self.now),
            initiator: host(from),
            responder: host(to),
            protocol: 6,
            port,
            verdict,
            names: String::new(),
        };
        let counts = self.batch.hours.entry(key).or_default();
        let mut one = HourCounts {
            begun: 1,
            ..HourCounts::default()
        };
        one.decided[outcome as usize] = 1;
        counts.add(&one);
    }

    pub(crate) fn unexpected(
        &mut self,
        roles: [&str; 2],
        ends: [u8; 2],
        port: u16,
        answered: bool,
    ) {
        let outcome = if answered {
            Outcome::Answered
        } else {
            Outcome::Refused
        };
        self.hour(Verdict::Unexpected, ends, port, outcome);
        let id = UnexpectedId {
            from: roles[0].to_owned(),
            to: roles[1].to_owned(),
            protocol: 6,
            port,
        };
        let seen = UnexpectedSeen {
            flows: 1,
            answered: u64::from(answered),
            seen: [self.now; 2],
            samples: vec![ends.map(host)],
        };
        let mut batch = Batch::default();
        batch.unexpected.insert(id, seen);
        self.batch.merge(batch);
    }

    /// Time goes by, and the daemon looks.
    pub(crate) fn pass(&mut self, time: u64) {
        self.now += time;
        let look = Look {
            elapsed: Duration::from_nanos(time),
            losses: self.losses,
            blind: false,
        };
        let mut batch = std::mem::take(&mut self.batch);
        batch.until = self.now;
        batch.gaps.extend(self.watch.look(self.now, &look));
        batch.watch = Some(self.watch.kept());
        for (id, service) in &mut self.services {
            let sample = Sample {
                totals: service.totals,
                evidence: service.evidence,
                vantage: service.vantage,
                needs_names: false,
            };
            let change = service.window.observe(self.now, &sample, &self.watch);
            let text = self.texts.get(id).map_or("", String::as_str);
            if let Some(seen) = ServiceSeen::of(&change, &service.window, text) {
                batch.services.insert(id.clone(), seen);
            }
        }
        self.ledger.record(batch);
        assert!(self.ledger.flush(Duration::from_secs(30)));
    }

    /// The daemon was killed with all its counters, and comes back.
    fn down(&mut self, time: u64) {
        self.now += time;
        let (watch, gap) = Watch::resume(WINDOW, self.watch.kept(), self.now, Absence::Unwatched);
        self.watch = watch;
        self.batch.gaps.extend(gap);
        for service in self.services.values_mut() {
            let kept = service.window.kept();
            service.window = ServiceWindow::resume(kept, service.vantage, Absence::Unwatched);
            service.totals = Totals::default();
            service.evidence = Evidence::default();
        }
    }
}

const CLIENT: u8 = 1;
const WEB: u8 = 2;
const DB: u8 = 3;
const HOP: Place = Place::Hop(Address::from_v4([10, 0, 0, 254]));

/// Two hours of a deployment: rows verified, blocked, degraded, silent, unobservable and unknown; a daemon that was down.
pub(crate) fn day(folder: &Path) -> Recorder {
    let mut world = Recorder::new(folder, START, WINDOW);
    // Long before the window: it must not be reported.
    world.unexpected(["shop/client", "shop/db"], [CLIENT, DB], 5432, false);
    for service in [
        "shop/browse#tcp/80",
        "shop/browse#tcp/443",
        "shop/query#tcp/5432",
    ] {
        world.add(service, Vantage::Clear);
    }
    for service in ["shop/ship#tcp/22", "shop/logs#udp/514", "shop/gone#tcp/7"] {
        world.add(service, Vantage::Clear);
    }
    world.add("shop/upload#tcp/443", Vantage::Blind(Blind::NotBound));
    world.pass(SECOND);
    for _ in 0..12 {
        world.pass(HOUR);
    }
    let prohibited = "1 SYN, no answer; ICMP 3/13 from 10.0.0.254";
    world.flow(
        "shop/browse#tcp/443",
        [CLIENT, WEB],
        Outcome::Answered,
        None,
        "",
    );
    for _ in 0..3 {
        world.flow(
            "shop/query#tcp/5432",
            [WEB, DB],
            Outcome::Prohibited,
            Some(HOP),
            prohibited,
        );
    }
    world.flow("shop/ship#tcp/22", [DB, WEB], Outcome::Answered, None, "");
    world.unexpected(["shop/client", "shop/web"], [CLIENT, WEB], 8443, false);
    world.pass(SECOND);
    world.down(10 * MINUTE);
    // The matrix was changed meanwhile.
    world.add("shop/backup#tcp/873", Vantage::Clear);
    for _ in 0..3 {
        world.pass(SECOND);
    }
    world.flow(
        "shop/browse#tcp/443",
        [CLIENT, WEB],
        Outcome::Answered,
        None,
        "",
    );
    world.unexpected(["shop/client", "shop/web"], [CLIENT, WEB], 8443, true);
    world.unexpected(["~unbound", "shop/web"], [9, WEB], 443, false);
    world.pass(HOUR);
    world.flow(
        "shop/ship#tcp/22",
        [DB, WEB],
        Outcome::Refused,
        Some(Place::Peer),
        "1 SYN, answered by RST",
    );
    world.flow(
        "shop/query#tcp/5432",
        [WEB, DB],
        Outcome::Prohibited,
        Some(HOP),
        prohibited,
    );
    world.pass(SECOND);
    world
}

pub(crate) struct Lab(pub(crate) TempDir);

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self(TempDir::new().unwrap());
        fs::write(lab.0.path().join("shop.yaml"), MATRIX).unwrap();
        fs::write(lab.0.path().join("site.yaml"), SITE).unwrap();
        fs::create_dir(lab.state()).unwrap();
        lab
    }

    pub(crate) fn state(&self) -> std::path::PathBuf {
        self.0.path().join("state")
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_flowproof"))
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    fn report(&self, arguments: &[&str]) -> (i32, String) {
        let mut all = vec!["report", "--matrix", "shop.yaml", "--site", "site.yaml"];
        all.extend(["--ledger", "state"]);
        all.extend(arguments);
        let output = self.run(&all);
        let code = output.status.code().unwrap();
        assert!(code < 2 && output.stderr.is_empty(), "{output:?}");
        (
            code,
            without_age(&String::from_utf8(output.stdout).unwrap()),
        )
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--format", "json"];
        all.extend(arguments);
        serde_json::from_str(&self.report(&all).1).unwrap()
    }
}

/// How long nobody has watched is of today.
pub(crate) fn without_age(text: &str) -> String {
    let mut parts = text.split(" (for ");
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        let (_, rest) = part.split_once(')').unwrap();
        out.push_str(" (for AGE)");
        out.push_str(rest);
    }
    out
}

#[test]
fn every_form_is_as_it_was() {
    let lab = Lab::new();
    drop(day(&lab.state()));
    for (format, file) in [
        ("text", "ledger.txt"),
        ("json", "ledger.json"),
        ("csv", "ledger.csv"),
        ("html", "ledger.html"),
        ("junit", "ledger.xml"),
        ("tap", "ledger.tap"),
    ] {
        golden(file, &lab.report(&["--format", format]).1);
    }
    let output = lab.run(&[
        "report",
        "--matrix",
        "shop.yaml",
        "--ledger=state/ledger.sqlite",
        "--format",
        "xlsx",
    ]);
    assert!(
        output.status.success() && output.stdout.starts_with(b"PK"),
        "{output:?}"
    );
}

/// (requirement, state, cause) of each row.
fn states(report: &Value) -> Vec<(String, String, String)> {
    report["requirements"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |field: &str| row[field].as_str().unwrap_or("-").to_owned();
            (text("requirement"), text("state"), text("cause"))
        })
        .collect()
}

/// What the golden files may hide in their length, by hand.
#[test]
fn states_are_those_of_the_last_look() {
    let lab = Lab::new();
    let world = day(&lab.state());
    // Also while a daemon writes it.
    let report = lab.json(&[]);
    let expected = [
        ("browse", "verified", "-"),
        ("query", "blocked", "prohibited"),
        ("ship", "degraded", "refused"),
        ("logs", "unknown", "not_watched"),
        ("call", "unknown", "not_watched"),
        ("upload", "unobservable", "role_not_bound"),
        ("backup", "silent", "-"),
        ("extra", "unknown", "not_watched"),
    ];
    let expected =
        expected.map(|(id, state, cause)| (id.to_owned(), state.to_owned(), cause.to_owned()));
    assert_eq!(states(&report), expected);
    let rows = &report["requirements"];
    assert_eq!(rows[2]["ratio"], 0.5);
    assert_eq!(rows[2]["services"][0]["flows"], 2);
    // It worked before the failure, which was counted in the next second.
    let failed = (world.now - SECOND, world.now);
    let time = |nanos: u64| {
        humantime::format_rfc3339_nanos(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos))
            .to_string()
    };
    assert_eq!(rows[2]["since"], time(failed.1));
    assert_eq!(rows[2]["ticket"]["last"], time(failed.0));
    assert_eq!(rows[1]["ticket"]["failed"], 4);
    assert_eq!(
        rows[1]["ticket"]["paths"],
        serde_json::json!([{"initiator": "10.0.0.2", "responder": "10.0.0.3", "service": "tcp/5432",
            "outcome": "prohibited", "flows": 4}])
    );
    let groups: Vec<_> = report["unexpected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| {
            (
                group["service"].as_str().unwrap(),
                group["outcomes"].to_string(),
            )
        })
        .collect();
    assert_eq!(
        groups,
        [
            ("tcp/8443", r#"{"answered":1,"other":1}"#.to_owned()),
            ("tcp/443", r#"{"other":1}"#.to_owned()),
        ]
    );
    assert_eq!(
        report["unexpected"][0]["near_misses"][0]["kind"],
        "other_port"
    );
    let gaps: Vec<_> = report["gaps"].as_array().unwrap().iter().collect();
    assert_eq!((gaps.len(), &gaps[0]["kind"]), (1, &Value::from("down")));
    assert_eq!(report["unwatched_since"], report["until"]);
}

/// Of now, nobody has watched for years: nothing is silent, nothing is green.
#[test]
fn what_nobody_watched_is_unknown() {
    let lab = Lab::new();
    drop(day(&lab.state()));
    let report = lab.json(&["--at", "now"]);
    let mut unknown = 0;
    for (row, state, cause) in states(&report) {
        if row == "upload" {
            assert_eq!(state, "unobservable");
        } else {
            assert_eq!(
                (state.as_str(), cause.as_str()),
                ("unknown", "not_watched"),
                "{row}"
            );
            unknown += 1;
        }
    }
    assert_eq!(unknown, 7);
    assert_eq!(report["unwatched_since"], Value::Null);
    assert_eq!(lab.report(&["--at", "now", "--fail-on", "unknown"]).0, 1);
    // As of then, cases that passed say so, and do not pass.
    let tap = lab.report(&["--format", "tap"]).1;
    assert!(
        !tap.lines()
            .any(|line| line.starts_with("ok") && !line.contains("SKIP")),
        "{tap}"
    );
}

/// A daemon that looked a moment ago is no reason for doubt.
#[test]
fn a_ledger_that_is_written_has_no_as_of() {
    let lab = Lab::new();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let now = u64::try_from(now.as_nanos()).unwrap();
    let mut world = Recorder::new(&lab.state(), now - 3 * SECOND, Duration::from_secs(10));
    world.add("shop/browse#tcp/443", Vantage::Clear);
    world.add("shop/browse#tcp/80", Vantage::Clear);
    world.pass(SECOND);
    world.flow(
        "shop/browse#tcp/443",
        [CLIENT, WEB],
        Outcome::Answered,
        None,
        "",
    );
    world.pass(2 * SECOND);
    for at in ["last", "now"] {
        let report = lab.json(&["--at", at]);
        assert_eq!(report["unwatched_since"], Value::Null);
        assert_eq!(states(&report)[0].1, "verified");
        assert_eq!(report["requirements"][0]["services"][0]["state"], "silent");
        let notes = report["notes"].to_string();
        assert!(notes.contains("a window of 10s"), "{notes}");
        assert!(!notes.contains("nobody has watched since"), "{notes}");
    }
    let tap = lab.report(&["--format", "tap"]).1;
    assert!(tap.contains("ok 1 - shop/browse\n"), "{tap}");
    // It never heard of the others.
    assert_eq!(states(&lab.json(&[]))[1].2, "not_watched");
}

/// Every way in which a ledger can't be read, with its remedy.
#[test]
fn a_ledger_that_cannot_be_read_says_why() {
    let lab = Lab::new();
    let refused = |part: &str| {
        for verb in [
            &["report", "--matrix", "shop.yaml", "--ledger", "state"][..],
            &[
                "report",
                "--matrix",
                "shop.yaml",
                "--ledger=state/ledger.sqlite",
            ],
        ] {
            let output = lab.run(verb);
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{error}");
            assert!(
                error.contains(part) && error.contains("ledger.sqlite"),
                "{error}"
            );
            assert!(output.stdout.is_empty());
        }
    };
    let file = lab.state().join(ledger::FILE);
    refused("no ledger; `flowproof run` keeps one");
    fs::write(
        &file,
        "no database at all, but long enough to be looked at as one, which it is not",
    )
    .unwrap();
    refused("damaged");
    fs::remove_file(&file).unwrap();
    drop(day(&lab.state()));
    let whole = fs::read(&file).unwrap();
    let mut torn = whole.clone();
    torn[4_096..20_000].fill(0x5a);
    fs::write(&file, &torn).unwrap();
    refused("damaged");
    fs::write(&file, &whole).unwrap();
    let database = rusqlite::Connection::open(&file).unwrap();
    database.pragma_update(None, "user_version", 9_999).unwrap();
    drop(database);
    refused("newer flowproof");
    let output = lab.run(&[
        "report",
        "--matrix",
        "shop.yaml",
        "--ledger",
        "state",
        "--capture",
        "x",
    ]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_ledger_that_may_not_be_read_says_what_is_needed() {
    let lab = Lab::new();
    drop(day(&lab.state()));
    let file = lab.state().join(ledger::FILE);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(lab.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // A copy, since the build's own folder may be nobody else's to look into.
    let program = lab.0.path().join("flowproof");
    fs::copy(env!("CARGO_BIN_EXE_flowproof"), &program).unwrap();
    let mut command = Command::new(&program);
    command
        .args(["report", "--matrix", "shop.yaml", "--ledger", "state"])
        .current_dir(lab.0.path());
    // Root may read everything; who is none is kept out of the file altogether.
    if nix::unistd::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    } else {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    }
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("needs permission to read"), "{error}");
}
