//! Small matrices and few flows: what two editions differ in, what nobody can tell, and that nothing grows without bound.

mod packs;
mod random;

use std::net::IpAddr;
use std::sync::Arc;

use flowproof_common::classify::Verdict;
use flowproof_common::state::Outcome;

use super::groups::ROOM;
use super::report::Tally;
use super::*;
use crate::ledger::{HourCounts, HourKey, HourRecord};
use crate::matrix::compile::HostAddresses;
use crate::matrix::compile::tests::{install, parse};
use crate::matrix::installed::Installed;
use crate::matrix::{Matrix, MatrixReading};

fn installed(text: &str) -> Arc<Installed> {
    let (matrix, bindings) = parse(text);
    Arc::new(install(matrix, bindings, &HostAddresses::Unknown))
}

/// Flows of an hour, half of them answered.
fn record(hour: u64, from: &str, to: &str, service: (u8, u16), flows: u64) -> HourRecord {
    let address = |text: &str| text.parse::<IpAddr>().unwrap().into();
    let mut counts = HourCounts {
        begun: flows,
        ..HourCounts::default()
    };
    counts.decided[Outcome::Answered as usize] = flows / 2;
    counts.decided[Outcome::NoAnswer as usize] = flows - flows / 2;
    HourRecord {
        key: HourKey {
            hour,
            initiator: address(from),
            responder: address(to),
            protocol: service.0,
            port: service.1,
            verdict: Verdict::Unexpected,
            names: String::new(),
        },
        counts,
    }
}

/// `[hour@]initiator responder tcp-port [flows] [name..]`, in force `verdict` if it is given.
fn read(text: &str, verdict: Verdict) -> HourRecord {
    let (hour, text) = text.split_once('@').unwrap_or(("0", text));
    let words: Vec<&str> = text.split_whitespace().collect();
    let flows = words.get(3).map_or(1, |flows| flows.parse().unwrap());
    let service = (6, words[2].parse().unwrap());
    let mut record = record(hour.parse().unwrap(), words[0], words[1], service, flows);
    record.key.verdict = verdict;
    record.key.names = words.get(4..).unwrap_or_default().join(" ");
    record
}

fn judged(in_force: &str, draft: &str, flows: &[&str], verdict: Verdict) -> DraftReport {
    let mut judge = Judge::new(installed(in_force), installed(draft));
    for flow in flows {
        judge.add(&read(flow, verdict));
    }
    judge.report()
}

const HOSTS: &str = "system a\n client = 10.0.0.0/24\n server = 10.0.1.1\n db = 10.0.2.1\n";

fn with(rows: &str) -> String {
    format!("{HOSTS}{rows}")
}

/// Counts that are not zero, as `name flows/answered`.
fn counted(report: &DraftReport) -> Vec<String> {
    let counts = &report.counts;
    [
        ("unexpected", counts.newly_unexpected),
        ("covered", counts.newly_covered),
        ("unscoped", counts.newly_unscoped),
        ("enters", counts.no_longer_unscoped),
        ("other rows", counts.by_other_rows),
        ("still expected", counts.still_expected),
        ("still unexpected", counts.still_unexpected),
        ("still unscoped", counts.still_unscoped),
        ("still open", counts.still_open),
        ("undecided", counts.undecided),
        ("otherwise", report.judged_otherwise_then),
    ]
    .into_iter()
    .filter(|(_, tally)| !tally.is_empty())
    .map(|(name, tally)| format!("{name} {}/{}", tally.flows, tally.answered))
    .collect()
}

#[track_caller]
fn check(in_force: &str, draft: &str, flow: &str, expect: &[&str]) {
    let in_force = with(in_force);
    let draft = with(draft);
    let report = judged(&in_force, &draft, &[flow], Verdict::Unexpected);
    let told: Vec<String> = counted(&report)
        .into_iter()
        .filter(|count| !count.starts_with("otherwise"))
        .collect();
    assert_eq!(told, expect, "{flow}");
}

#[test]
fn every_change_of_a_verdict_has_its_count() {
    let old = "client -> server: tcp/80 tcp/443";
    let new = "client -> server: tcp/80\n client -> db: tcp/22";
    check(old, new, "10.0.0.5 10.0.1.1 80 4", &["still expected 4/2"]);
    check(old, new, "10.0.0.5 10.0.1.1 443 4", &["unexpected 4/2"]);
    check(old, new, "10.0.0.5 10.0.2.1 22 3", &["covered 3/1"]);
    check(old, new, "10.0.0.5 10.0.2.1 23", &["still unexpected 1/0"]);
    check(old, new, "192.0.2.1 192.0.2.2 80", &["still unscoped 1/0"]);
    let elsewhere = "elsewhere = 192.0.2.0/24\n client -> server: tcp/80 tcp/443\n elsewhere -> elsewhere: tcp/80";
    check(
        old,
        elsewhere,
        "192.0.2.1 192.0.2.2 80",
        &["covered 1/0", "enters 1/0"],
    );
    check(
        old,
        elsewhere,
        "192.0.2.1 192.0.2.2 81",
        &["unexpected 1/0", "enters 1/0"],
    );
    check(elsewhere, old, "192.0.2.1 192.0.2.2 80", &["unscoped 1/0"]);
    let second = "client -> db: tcp/22\n client -> server: tcp/80 tcp/443";
    check(old, second, "10.0.0.5 10.0.1.1 443", &["other rows 1/0"]);
    // Another range in the same row is the same row.
    check(
        old,
        "client -> server: tcp/80 tcp/400-500",
        "10.0.0.5 10.0.1.1 443",
        &["still expected 1/0"],
    );
}

#[test]
fn a_group_tells_who_talked_what_covers_it_and_what_it_nearly_met() {
    let old = with("client -> server: tcp/5000-5999");
    let new = with("client -> db: tcp/5000-5999\n client -> server: tcp/22");
    let flows = [
        "3@10.0.0.1 10.0.1.1 5001 2",
        "1@10.0.0.1 10.0.1.1 5000 2",
        "5@10.0.0.2 10.0.1.1 5600 4",
        "2@10.0.0.3 10.0.1.1 5002",
        "2@10.0.0.4 10.0.1.1 5002",
        "4@10.0.0.5 10.0.1.1 5002 1 a.example b.example",
        "4@10.0.0.6 10.0.2.1 5002",
        "4@10.0.0.6 10.0.1.1 22",
    ];
    let report = judged(&old, &new, &flows, Verdict::Expected);
    assert_eq!(
        report.newly_unexpected.groups.len(),
        1,
        "{:#?}",
        report.newly_unexpected
    );
    let group = &report.newly_unexpected.groups[0];
    assert_eq!(group.service, "tcp/5000-5600");
    assert_eq!(group.from.draft, ["a/client"]);
    assert_eq!(group.to.in_force, ["a/server"]);
    assert_eq!((group.tally.flows, group.tally.answered), (11, 4));
    assert_eq!(group.covered_in_force, ["a/r0#tcp/5000-5999"]);
    assert_eq!(group.covered_by_draft, [""; 0]);
    assert_eq!(
        [&group.first_hour, &group.last_hour],
        ["1970-01-01T01:00:00Z", "1970-01-01T05:00:00Z"]
    );
    let samples: Vec<(&str, u16, usize)> = group
        .samples
        .iter()
        .map(|sample| (&*sample.initiator, sample.port, sample.names.len()))
        .collect();
    assert_eq!(
        samples,
        [
            ("10.0.0.2", 5600, 0),
            ("10.0.0.5", 5002, 2),
            ("10.0.0.1", 5001, 0),
            ("10.0.0.4", 5002, 0)
        ]
    );
    let misses: Vec<String> = group
        .near_misses
        .iter()
        .map(|miss| format!("{} {}", miss.kind, miss.requirement))
        .collect();
    assert_eq!(
        misses,
        [
            "other_port a/r1#tcp/22",
            "other_destination a/r0#tcp/5000-5999"
        ]
    );
    let covered = &report.newly_covered.groups;
    assert_eq!(covered.len(), 2);
    assert_eq!(covered[0].covered_by_draft, ["a/r0#tcp/5000-5999"]);
    assert!(covered[0].near_misses.is_empty());
    assert_eq!(
        [report.from.as_deref(), report.until.as_deref()],
        [Some("1970-01-01T01:00:00Z"), Some("1970-01-01T06:00:00Z")]
    );
}

#[test]
fn a_name_that_nobody_wrote_down_is_no_verdict() {
    let old = with("client -> server: tcp/80");
    let new = with(
        "cloud = *.cloud.example 10.9.0.1\n other = other.example\n client -> cloud: tcp/443\n other -> db: tcp/22",
    );
    let check = |flow: &str, expect: &[&str]| {
        let report = judged(&old, &new, &[flow], Verdict::Unexpected);
        let reasons = report.undecided.iter().map(|open| open.reason.to_string());
        let told: Vec<String> = counted(&report).into_iter().chain(reasons).collect();
        assert_eq!(told, expect, "{flow}");
    };
    check("10.0.0.1 192.0.2.1 443", &["undecided 1/0", "no_name"]);
    check("10.0.0.1 192.0.2.1 443 1 a.cloud.example", &["covered 1/0"]);
    // As in live judging, of several names the one that is allowed is taken.
    check(
        "10.0.0.1 192.0.2.1 443 1 a.example b.cloud.example",
        &["covered 1/0"],
    );
    check(
        "10.0.0.1 192.0.2.1 443 1 a.example",
        &["still unexpected 1/0"],
    );
    // Nothing by name is on that port, and a prefix needs no name.
    check("10.0.0.1 192.0.2.1 444", &["still unexpected 1/0"]);
    check("10.0.0.1 10.9.0.1 443", &["covered 1/0"]);
    check(
        "192.0.2.1 10.0.2.1 22",
        &["undecided 1/0", "initiator_name"],
    );
    check(
        "192.0.2.1 10.0.2.1 22 1 db.example",
        &["undecided 1/0", "initiator_name"],
    );
    let both = judged(&new, &new, &["10.0.0.1 192.0.2.1 443 6"], Verdict::Expected);
    assert_eq!(counted(&both), ["still open 6/3"]);
    let others = format!("{new}\n client -> cloud: tcp/443");
    let open = judged(
        &new,
        &others,
        &["10.0.0.1 192.0.2.1 443 6"],
        Verdict::Expected,
    );
    assert_eq!(counted(&open), ["undecided 6/3"]);
    assert_eq!(open.undecided[0].also_in_force.flows, 6);
    // A row elsewhere changes nothing for it.
    let elsewhere = format!("{new}\n client -> cloud: tcp/444");
    let open = judged(
        &new,
        &elsewhere,
        &["10.0.0.1 192.0.2.1 443 6"],
        Verdict::Expected,
    );
    assert_eq!(counted(&open), ["still open 6/3"]);
    // The matrix of the time knew the name: its word counts where the record has none.
    let dropped = judged(&new, &old, &["10.0.0.1 192.0.2.1 443"], Verdict::Expected);
    assert_eq!(counted(&dropped), ["unexpected 1/0"]);
    assert_eq!(dropped.newly_unexpected.groups[0].was, "expected");
    let alarm = judged(&new, &old, &["10.0.0.1 192.0.2.1 443"], Verdict::Unexpected);
    assert_eq!(counted(&alarm), ["still unexpected 1/0"]);
}

#[test]
fn what_was_judged_otherwise_at_the_time_is_told() {
    let rows = with("client -> server: tcp/80");
    let flows = ["10.0.0.1 10.0.1.1 80 2", "10.0.0.1 10.0.1.1 81 4"];
    let report = judged(&rows, &rows, &flows, Verdict::Unexpected);
    assert_eq!(
        counted(&report),
        [
            "still expected 2/1",
            "still unexpected 4/2",
            "otherwise 2/1"
        ]
    );
}

#[test]
fn rows_without_a_flow_say_why() {
    let draft = with(
        "cloud = *.cloud.example\n nobody =\n client -> server: tcp/80 tcp/443\n client -> db: tcp/22\n \
         client -> nobody: tcp/1\n client -> cloud: tcp/9000\n client -> unknown: tcp/2\n client -> db:\n client -> cloud: tcp/9001",
    );
    let flows = ["10.0.0.1 10.0.1.1 443 2", "10.0.0.1 192.0.2.1 9000"];
    let report = judged(
        &with("client -> server: tcp/80"),
        &draft,
        &flows,
        Verdict::Expected,
    );
    let unused: Vec<String> = report
        .unused
        .iter()
        .map(|row| format!("{} {} {}", row.id, row.reason, row.new))
        .collect();
    assert_eq!(
        unused,
        [
            "a/r1 no_flow true",
            "a/r2 not_bound true",
            "a/r3 undecided true",
            "a/r4 not_bound true",
            "a/r5 no_service true",
            "a/r6 no_flow true"
        ]
    );
    assert_eq!(report.used.len(), 1);
    let row = &report.used[0];
    assert_eq!((&*row.id, row.new, row.tally.flows), ("a/r0", false, 2));
    let services: Vec<(&str, u64)> = row
        .services
        .iter()
        .map(|service| (&*service.service, service.tally.flows))
        .collect();
    assert_eq!(services, [("tcp/80", 0), ("tcp/443", 2)]);
}

#[test]
fn what_finds_no_room_is_counted() {
    let old = with("client -> server: tcp/80");
    let new = with("scanned = 192.0.2.1\n client -> server: tcp/80");
    let mut judge = Judge::new(installed(&old), installed(&new));
    let ports = u16::try_from(ROOM + 500).unwrap();
    for port in 1..=ports {
        judge.add(&record(0, "198.51.100.1", "192.0.2.1", (6, port), 2));
    }
    let report = judge.report();
    assert_eq!(report.newly_unexpected.groups.len(), ROOM);
    assert_eq!(
        report.newly_unexpected.left_out,
        Tally {
            flows: 1_000,
            answered: 500
        }
    );
    assert_eq!(report.counts.newly_unexpected.flows, u64::from(ports) * 2);
    // All these were one kind of flow, but for the port that a row names.
    assert_eq!(judge.kinds_known(), 2);
}

/// However many names an attacker makes up, what is remembered of them has a bound.
#[test]
fn names_are_remembered_within_bounds() {
    let rows = with("cloud = *.cloud.example\n client -> cloud: tcp/443");
    let mut judge = Judge::new(installed(&rows), installed(&rows));
    for number in 0..70_000_u32 {
        let mut flow = record(0, "10.0.0.1", "192.0.2.1", (6, 443), 1);
        flow.key.verdict = Verdict::Expected;
        flow.key.names = format!("n{number}.cloud.example");
        judge.add(&flow);
    }
    assert!(judge.names_known() <= 65_536, "{}", judge.names_known());
    assert_eq!(judge.report().counts.still_expected.flows, 70_000);
}

#[test]
fn flows_that_never_were_count_for_nothing() {
    let rows = with("client -> server: tcp/80");
    let report = judged(&rows, &rows, &["10.0.0.1 10.0.1.1 80 0"], Verdict::Expected);
    assert_eq!(report.from, None);
    assert!(report.used.is_empty());
}

fn reading(ids: &[(&str, &str)]) -> MatrixReading {
    let mut all = MatrixReading::default();
    for (id, title) in ids {
        let text = format!(
            "system: {id}\ntitle: {title}\nroles: {{x: {{names: [\"tag:{title}\"]}}}}\nrequirements:\n  \
             - {{id: r, from: x, to: any, services: [tcp/1]}}\n"
        );
        let mut one = Matrix::read_text(&format!("{title}.yaml"), &text);
        let index = all.matrix.systems.len();
        for used in &mut one.tags {
            used.system = crate::matrix::SystemIndex::from_position(index);
        }
        all.matrix.systems.extend(one.matrix.systems);
        all.tags.extend(one.tags);
        all.findings.append(one.findings);
    }
    all
}

#[test]
fn a_draft_replaces_what_it_defines_and_leaves_the_rest() {
    let in_force = reading(&[("a", "A1"), ("b", "B1"), ("c", "C1")]);
    let draft = reading(&[("d", "D2"), ("b", "B2")]);
    let (result, systems) = overlay(in_force, draft);
    let titles: Vec<&str> = result
        .matrix
        .systems
        .iter()
        .map(|system| &*system.title)
        .collect();
    assert_eq!(titles, ["A1", "B2", "C1", "D2"]);
    let changes: Vec<(&str, Change, u32)> = systems
        .iter()
        .map(|system| (&*system.id, system.change, system.index.0))
        .collect();
    assert_eq!(
        changes,
        [("d", Change::Added, 3), ("b", Change::Replaced, 1)]
    );
    // Tags stay with those who name them.
    for used in &result.tags {
        assert_eq!(used.tag, *result.matrix.system(used.system).title);
    }
    assert_eq!(result.tags.len(), 4);
}

#[test]
fn errors_of_both_are_kept() {
    let bad = |name: &str| Matrix::read_text(name, "system: [");
    let found = |in_force, draft| {
        let (result, _) = overlay(in_force, draft);
        let files: Vec<String> = result
            .findings
            .errors()
            .map(|finding| finding.file.clone())
            .collect();
        files
    };
    let good = || reading(&[("a", "A1")]);
    assert_eq!(found(good(), good()), [""; 0]);
    assert!(found(bad("old.yaml"), good()).contains(&"old.yaml".to_owned()));
    assert!(found(good(), bad("new.yaml")).contains(&"new.yaml".to_owned()));
}

#[test]
fn the_report_is_read_as_it_is_written() {
    let old = with("client -> server: tcp/80");
    let new = with("cloud = *.cloud.example\n client -> cloud: tcp/443\n client -> db: tcp/22");
    let flows = [
        "10.0.0.1 10.0.1.1 80",
        "10.0.0.1 192.0.2.1 443",
        "10.0.0.1 10.0.2.1 22",
    ];
    let report = judged(&old, &new, &flows, Verdict::Expected);
    let text = serde_json::to_string(&report).unwrap();
    assert!(
        text.starts_with(r#"{"type":"draft","systems":[]"#),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<DraftReport>(&text).unwrap(), report);
}
