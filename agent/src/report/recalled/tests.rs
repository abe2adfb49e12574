use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flowproof_common::address::Address;

use super::words::MOST_TOLD;
use super::*;
use crate::export::times::time;
use crate::ledger::{
    self, Batch, FailureSeen, Ledger, Limits, Reader, ServiceSeen, UnexpectedId, UnexpectedSeen,
    WindowUpdate,
};
use crate::matrix::compile::HostAddresses;
use crate::matrix::compiled::Compiled;
use crate::matrix::installed::{Installed, SlotDirectory};
use crate::matrix::{Matrix, SystemIndex};
use crate::report::model::Evidence;
use crate::site::Site;
use crate::site::tags::TagBook;
use crate::verdict::Explainer;
use crate::verdict::requirement::{Failure, Place, Vantage};
use crate::verdict::window::{Evidence as Times, GapKind, KeptService, KeptWatch};

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3_600 * SECOND;
const WINDOW: u64 = 24 * HOUR;
const NOW: u64 = 1_760_000_000 * SECOND;

const MATRIX: &str = "system: s\ntitle: S\nroles:\n  client: {names: [10.0.1.0/24]}\n  server: {names: [10.0.2.0/24]}\n  \
                      cloud: {names: ['*.example.com']}\nrequirements:\n\
                      - {id: web, from: client, to: server, services: [tcp/80, tcp/443]}\n\
                      - {id: up, from: client, to: cloud, services: [tcp/443]}\n";

fn explainer() -> Explainer {
    let reading = Matrix::read_text("s.yaml", MATRIX);
    assert!(!reading.findings.has_errors());
    let site = Site::read_text("site.yaml", "site: x\nsystems: [s]\n", &reading);
    let bindings = site
        .site
        .unwrap()
        .role_bindings(&reading.matrix, &TagBook::default());
    let compiled =
        Compiled::compile(Arc::new(reading.matrix), bindings, &HostAddresses::Unknown).unwrap();
    let installed = Installed::new(Arc::new(compiled), SlotDirectory::default());
    Explainer::new(Arc::new(installed))
}

/// What is made of a ledger with this in it, `age` after its last look.
fn recalled(batch: Batch, as_of: AsOf, age: u64) -> Recalled {
    let folder = tempfile::tempdir().unwrap();
    let path = ledger::path(folder.path());
    let ledger = Ledger::open(&path, Limits::default()).unwrap().ledger;
    ledger.record(batch);
    drop(ledger);
    Reader::open_read_only(&path)
        .unwrap()
        .read(|view| Recalled::read(view, as_of, NOW + age))
        .unwrap()
}

fn watched() -> Batch {
    Batch {
        until: NOW,
        watch: Some(KeptWatch {
            until: NOW,
            window: WINDOW,
            ..KeptWatch::default()
        }),
        ..Batch::default()
    }
}

/// A service that was blocked for a second.
fn blocked(requirement: &str, service: &str) -> (ServiceId, ServiceSeen) {
    let failure = Failure {
        at: NOW - SECOND,
        outcome: Outcome::NoAnswer,
        place: Some(Place::Path),
        told: false,
    };
    let id = ServiceId {
        system: "s".to_owned(),
        requirement: requirement.to_owned(),
        service: service.to_owned(),
    };
    let head = KeptService {
        begins: Some(NOW - HOUR),
        evidence: Times {
            last_attempt: Some(NOW - SECOND),
            last_answer: None,
            last_failure: Some(failure),
        },
        vantage: Some(Vantage::Clear),
        standing: Some((State::Blocked, NOW - SECOND)),
        ..KeptService::default()
    };
    let seen = ServiceSeen {
        failure: Some(FailureSeen {
            failure,
            evidence: "2 SYNs, no answer".to_owned(),
        }),
        window: Some(WindowUpdate {
            head,
            buckets: BTreeMap::new(),
            rewritten: true,
        }),
        ..ServiceSeen::default()
    };
    (id, seen)
}

/// Failed flows of the last hour.
fn failed(batch: &mut Batch, responder: [u8; 4], port: u16, names: &str, flows: u64, ago: u64) {
    let key = HourKey {
        hour: HourKey::hour_of(NOW - ago),
        initiator: Address::from_v4([10, 0, 1, 1]),
        responder: Address::from_v4(responder),
        protocol: 6,
        port,
        verdict: Verdict::Expected,
        names: names.to_owned(),
    };
    let mut counts = HourCounts {
        begun: flows,
        ..HourCounts::default()
    };
    counts.decided[Outcome::NoAnswer as usize] = flows;
    batch.hours.insert(key, counts);
}

fn evidence(recalled: &Recalled, explainer: &Explainer) -> Evidence {
    let matrix = &explainer.installed().compiled.matrix;
    let deployed: Vec<SystemIndex> = matrix.indexed_systems().map(|(index, _)| index).collect();
    recalled.evidence(explainer, &deployed)
}

fn noted(evidence: &Evidence, part: &str) -> bool {
    evidence.notes.iter().any(|note| note.contains(part))
}

#[test]
fn failures_are_those_of_the_failing_services_by_name_or_address() {
    let explainer = explainer();
    let mut batch = watched();
    batch
        .services
        .extend([blocked("web", "tcp/443"), blocked("up", "tcp/443")]);
    failed(&mut batch, [10, 0, 2, 1], 443, "", 2, SECOND);
    failed(&mut batch, [10, 0, 2, 2], 443, "", 7, SECOND);
    // Of another service of the same row, which is not blocked; of no row; and from before the window.
    failed(&mut batch, [10, 0, 2, 1], 80, "", 9, SECOND);
    failed(&mut batch, [192, 0, 2, 1], 443, "", 9, SECOND);
    failed(&mut batch, [10, 0, 2, 3], 443, "", 9, WINDOW + 2 * HOUR);
    failed(
        &mut batch,
        [192, 0, 2, 9],
        443,
        "a.example.com b.example.net",
        3,
        SECOND,
    );
    let evidence = evidence(&recalled(batch, AsOf::LastLook, 0), &explainer);
    let paths = |id: &str| -> Vec<(String, u64)> {
        evidence.failures[id]
            .paths
            .iter()
            .map(|path| (path.responder.clone(), path.flows))
            .collect()
    };
    assert_eq!(
        paths("s/web"),
        [("10.0.2.2".to_owned(), 7), ("10.0.2.1".to_owned(), 2)]
    );
    assert_eq!(paths("s/up"), [("192.0.2.9 (a.example.com)".to_owned(), 3)]);
    let failures = &evidence.failures["s/web"];
    assert_eq!(failures.initiator, ["s/client"]);
    assert_eq!(failures.evidence, ["2 SYNs, no answer"]);
    assert_eq!(failures.last, Some(time(NOW - SECOND)));
    assert!(noted(
        &evidence,
        "1 service(s) of the matrix and site given here"
    ));
    assert_eq!(evidence.since, Some(time(NOW - HOUR)));
    assert_eq!(evidence.requirements[0].since, Some(time(NOW - SECOND)));
}

#[test]
fn unexpected_traffic_is_that_of_the_window() {
    let explainer = explainer();
    let mut batch = watched();
    let mut unexpected = |port: u16, at: u64, responder: [u8; 4]| {
        let id = UnexpectedId {
            from: "s/client".to_owned(),
            to: "s/server".to_owned(),
            protocol: 6,
            port,
        };
        let seen = UnexpectedSeen {
            flows: 3,
            answered: 1,
            seen: [at - SECOND, at],
            samples: vec![[Address::from_v4([10, 0, 1, 1]), Address::from_v4(responder)]],
        };
        batch.unexpected.insert(id, seen);
    };
    unexpected(8443, NOW, [10, 0, 2, 1]);
    // The matrix has learned of this one since.
    unexpected(443, NOW - WINDOW, [10, 0, 2, 1]);
    unexpected(22, NOW - WINDOW - 1, [10, 0, 2, 1]);
    let recalled = recalled(batch, AsOf::LastLook, 0);
    let evidence = evidence(&recalled, &explainer);
    assert!(noted(
        &evidence,
        "1 kind(s) of unexpected flows were last seen before"
    ));
    assert!(noted(&evidence, "covers flows of 1 kind(s)"));
    let groups = evidence.unexpected.finish(None);
    let got: Vec<(&str, u64, String)> = groups
        .iter()
        .map(|group| (group.service.as_str(), group.flows, group.outcomes()))
        .collect();
    let outcomes = "1 answered, 2 other".to_owned();
    assert_eq!(
        got,
        [("tcp/443", 3, outcomes.clone()), ("tcp/8443", 3, outcomes)]
    );
    assert!(groups[0].near_misses.is_empty());
    assert_eq!(groups[1].near_misses[0].requirement, "s/web#tcp/443");
    let roles = |text: &str| BTreeSet::from([text.to_owned()]);
    let between = |from: &str, port| {
        recalled
            .unexpected_between(&explainer, [&roles(from), &roles("s/server")], 6, port)
            .map(|group| group.flows)
    };
    assert_eq!(between("s/client", 22), Some(3));
    assert_eq!(between("s/server", 22), None);
    assert_eq!(between("s/client", 23), None);
}

#[test]
fn a_ledger_says_as_of_when_it_speaks() {
    let explainer = explainer();
    let batch = || {
        let mut batch = watched();
        batch.services.extend([blocked("web", "tcp/443")]);
        batch
    };
    let told = |age, as_of| evidence(&recalled(batch(), as_of, age), &explainer);
    let fresh = told(STALE, AsOf::Now);
    assert_eq!(
        (&fresh.until, &fresh.unwatched_since),
        (&Some(time(NOW)), &None)
    );
    assert!(fresh.gaps.is_empty() && !noted(&fresh, "nobody has watched since"));
    let stale = told(STALE + 1, AsOf::LastLook);
    assert_eq!(stale.unwatched_since, Some(time(NOW)));
    assert_eq!(stale.until, Some(time(NOW)));
    assert!(noted(
        &stale,
        "(for 10s): what happened since then is not told"
    ));
    let now = told(2 * HOUR, AsOf::Now);
    assert_eq!(
        (&now.until, &now.unwatched_since),
        (&Some(time(NOW + 2 * HOUR)), &None)
    );
    assert!(noted(&now, "(for 2h): silence since then proves nothing"));
    assert_eq!((now.gaps.len(), now.gaps[0].kind), (1, "down"));
    // It was blocked in the window, whoever watches now.
    assert_eq!(now.requirements[0].state, "blocked");
    let later = told(2 * WINDOW, AsOf::Now);
    assert_eq!(later.requirements[0].state, "unknown");
    let never = evidence(&recalled(Batch::default(), AsOf::LastLook, 0), &explainer);
    assert!(noted(&never, "nothing was ever written"));
    assert_eq!((&never.since, &never.until), (&None, &None));
    assert_eq!(never.requirements[1].cause.as_deref(), Some("not_watched"));
}

#[test]
fn many_gaps_are_summed_up() {
    let explainer = explainer();
    let mut batch = watched();
    for number in 0..12 {
        let kind = if number % 2 == 0 {
            GapKind::PacketsLost
        } else {
            GapKind::Down
        };
        let from = NOW - HOUR + number * 10 * SECOND;
        for (kind, to) in [(kind, from + SECOND), (GapKind::Blind, from + 1)] {
            batch.gaps.push(Gap {
                kind,
                from,
                to,
                lost: u64::from(kind == GapKind::PacketsLost) * 3,
            });
        }
    }
    let evidence = evidence(&recalled(batch, AsOf::LastLook, 0), &explainer);
    assert_eq!(evidence.gaps.len(), 24);
    assert_eq!(evidence.lost[0], ("packets".to_owned(), 18));
    assert!(noted(&evidence, "not watched 10 more time(s) before these"));
    let told = evidence
        .notes
        .iter()
        .filter(|note| note.starts_with("not watched from"));
    assert_eq!(told.count(), MOST_TOLD);
    assert!(noted(&evidence, "packets or events were lost 6 time(s)"));
}
