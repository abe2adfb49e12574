//! What is told of silence, and when nobody can tell.

use std::sync::Arc;

use super::*;
use crate::matrix::Matrix;
use crate::matrix::compile::HostAddresses;
use crate::site::Site;
use crate::site::tags::TagBook;
use crate::verdict::window::{GapKind, KeptService};

const NOW: u64 = 20_000 * DAY;

fn compiled() -> Compiled {
    let text = "system: s\ntitle: S\nroles: {a: {names: [10.0.0.1]}, b: {names: [10.0.0.2]}}\nrequirements:\n\
        - {id: one, from: a, to: b, services: [tcp/1, tcp/2]}\n\
        - {id: two, from: a, to: b, services: [tcp/3], necessity: optional}\n";
    let reading = Matrix::read_text("s", text);
    let site = Site::read_text("site", "site: x\nsystems: [s]\n", &reading)
        .site
        .unwrap();
    let bindings = site.role_bindings(&reading.matrix, &TagBook::default());
    Compiled::compile(Arc::new(reading.matrix), bindings, &HostAddresses::Unknown).unwrap()
}

fn watch() -> KeptWatch {
    KeptWatch {
        until: NOW,
        ..KeptWatch::default()
    }
}

/// A service that could be seen for `since` days, and was seen `last` days ago.
fn service(requirement: &str, service: &str, since: u64, last: Option<u64>) -> ServiceRecord {
    ServiceRecord {
        id: ServiceId {
            system: "s".to_owned(),
            requirement: requirement.to_owned(),
            service: service.to_owned(),
        },
        seen: last.map(|days| [NOW - since * DAY, NOW - days * DAY]),
        flows: crate::verdict::window::Counts::default(),
        last_answer: None,
        failure: None,
        window: KeptService {
            begins: Some(NOW - since * DAY),
            standing: Some((State::Silent, 0)),
            ..KeptService::default()
        },
    }
}

/// `requirement services whole last_seen days` of candidates, then `days count reason` of what nobody can tell.
#[track_caller]
fn check(services: &[ServiceRecord], watch: KeptWatch, gaps: &[Gap], expect: &[&str]) {
    let found = unused(&compiled(), services, Some(watch), gaps, 30);
    let removals = found.removals.iter().map(|it| {
        let last = it.last_seen.as_deref().unwrap_or("never");
        format!(
            "{} {} {} {last} {}",
            it.id,
            it.services.join(","),
            it.whole,
            it.unused_days
        )
    });
    let untold = found
        .untold
        .iter()
        .map(|it| format!("{} {} {}", it.watched_days, it.services, it.reason));
    assert_eq!(removals.chain(untold).collect::<Vec<_>>(), expect);
}

fn all(since: u64, last: [Option<u64>; 3]) -> Vec<ServiceRecord> {
    vec![
        service("one", "tcp/1", since, last[0]),
        service("one", "tcp/2", since, last[1]),
        service("two", "tcp/3", since, last[2]),
    ]
}

#[test]
fn what_was_watched_and_not_seen_is_a_candidate() {
    check(
        &all(40, [None, None, Some(31)]),
        watch(),
        &[],
        &[
            "s/one tcp/1,tcp/2 true never 40",
            "s/two tcp/3 true 2024-09-03T00:00:00Z 31",
        ],
    );
    check(
        &all(40, [Some(29), None, Some(0)]),
        watch(),
        &[],
        &["s/one tcp/2 false never 40"],
    );
    check(&all(40, [Some(30), Some(1), Some(0)]), watch(), &[], &[]);
}

#[test]
fn what_was_not_watched_long_enough_is_not_told() {
    check(
        &all(3, [None, None, Some(1)]),
        watch(),
        &[],
        &["3 2 2024-10-01T00:00:00Z, watched only since then"],
    );
    // Not known to the ledger at all.
    check(
        &all(40, [Some(1), Some(1), None])[..2],
        watch(),
        &[],
        &["0 1 not in the ledger: the daemon has not watched for it yet"],
    );
    let none = unused(&compiled(), &[], None, &[], 30);
    assert_eq!((none.removals.len(), none.untold[0].services), (0, 3));
}

#[test]
fn gaps_and_losses_within_the_days_leave_nothing_to_tell() {
    let services = all(90, [None, Some(1), Some(1)]);
    let at = |days: u64| Some(NOW - days * DAY);
    let blind = |days| KeptWatch {
        last_blind: at(days),
        ..watch()
    };
    let down = Gap {
        kind: GapKind::Down,
        from: 0,
        to: NOW - 3 * DAY,
        lost: 0,
    };
    let silent = ["s/one tcp/1 false never 31"];
    check(
        &services,
        blind(3),
        &[down],
        &["3 1 2024-10-01T00:00:00Z, the daemon was down until then"],
    );
    check(
        &services,
        blind(3),
        &[],
        &["3 1 2024-10-01T00:00:00Z, not watched until then"],
    );
    check(&services, blind(31), &[], &silent);
    let lost = |days| KeptWatch {
        last_packets_lost: at(days),
        ..watch()
    };
    check(
        &services,
        lost(29),
        &[],
        &["29 1 2024-09-05T00:00:00Z, packets or events were lost then"],
    );
    check(&services, lost(31), &[], &silent);
    // Names only matter where names are evidence.
    let names = KeptWatch {
        last_names_lost: at(2),
        ..watch()
    };
    check(&services, names, &[], &["s/one tcp/1 false never 90"]);
    let mut named = services.clone();
    named[0].window.needs_names = true;
    check(
        &named,
        names,
        &[],
        &["2 1 2024-10-02T00:00:00Z, names of flows were lost then"],
    );
    let mut hidden = services.clone();
    hidden[0].window.last_blind = at(5);
    check(
        &hidden,
        watch(),
        &[],
        &["5 1 2024-09-29T00:00:00Z, could not be seen until then"],
    );
}

#[test]
fn what_cannot_be_seen_from_here_is_no_candidate() {
    let mut services = all(90, [None, None, Some(1)]);
    services[0].window.begins = None;
    services[1].window.standing = Some((State::Unobservable, 0));
    check(&services, watch(), &[], &[]);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_gap_or_a_flow_within_the_days_is_never_silence(
            since in 0_u64..60, last in proptest::option::of(0_u64..60), gap in proptest::option::of(0_u64..60), kind in 0..3
        ) {
            let time = gap.map(|days| NOW - days * DAY);
            let watch = KeptWatch {
                last_blind: time.filter(|_| kind == 0),
                last_packets_lost: time.filter(|_| kind == 1),
                ..watch()
            };
            let mut record = service("two", "tcp/3", since, last.map(|last| last.min(since)));
            if kind == 2 {
                record.window.last_lossy = time;
            }
            let seen = record.seen.is_some_and(|[_, last]| last >= NOW - 30 * DAY);
            let doubted = since < 30 || gap.is_some_and(|days| days < 30);
            let found = unused(&compiled(), &[record], Some(watch), &[], 30);
            prop_assert_eq!(found.removals.is_empty(), seen || doubted);
        }
    }
}
