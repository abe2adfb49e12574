use std::net::IpAddr;

use super::*;
use crate::matrix::Binding;
use crate::matrix::compiled::Compiled;
use crate::probe::bounds::{Bounds, tests::ROLE};
use crate::probe::plan::{PlannedRow, Skipped};
use crate::probe::question::Question;
use crate::verdict::requirement::{Place, Resolution};

const SPAN: [u64; 2] = [1_000_000_000, 9_000_000_000];

fn service(text: &str, skipped: Vec<Skipped>) -> PlannedService {
    PlannedService {
        service: text.parse().unwrap(),
        attempts: Vec::new(),
        skipped,
    }
}

fn plan_of(services: Vec<PlannedService>) -> Plan {
    Plan {
        rows: vec![PlannedRow {
            id: "s/row".to_owned(),
            required: true,
            services,
        }],
        ..Plan::default()
    }
}

fn ended(service: usize, outcome: Outcome, begun: u64) -> Ended {
    let target: IpAddr = "10.1.0.10".parse().unwrap();
    let bounds = Bounds::of(&Compiled {
        bindings: vec![(ROLE, vec![Binding::Prefix(target.into())])],
        ..Compiled::empty()
    });
    Ended {
        probe: Probe {
            row: 0,
            service,
            source: "10.20.0.2".parse().unwrap(),
            target: bounds.check(ROLE, target, None).unwrap(),
            name: None,
            port: Some(443),
            question: Question::TcpConnect,
        },
        judged: Judged {
            outcome,
            counts_as: outcome,
            place: outcome.is_failure().then_some(Place::Peer),
            told: false,
            evidence: vec!["because".to_owned()],
        },
        span: [SPAN[0] + begun, SPAN[0] + begun + 1_500_000],
    }
}

fn skipped(why: Why) -> Vec<Skipped> {
    vec![Skipped {
        target: None,
        why,
        detail: "for a reason".to_owned(),
    }]
}

#[track_caller]
fn check(outcomes: &[Outcome], state: &str, cause: Option<&str>) {
    let ended: Vec<Ended> = outcomes
        .iter()
        .zip(0..)
        .map(|(outcome, number)| ended(0, *outcome, number * 10))
        .collect();
    let rows = rows(&plan_of(vec![service("tcp/443", Vec::new())]), &ended, SPAN);
    let line = &rows[0].line.requirement;
    assert_eq!(
        (line.state.as_str(), line.cause.as_deref()),
        (state, cause),
        "{outcomes:?}"
    );
}

#[test]
fn states_are_those_of_traffic_whatever_came_first() {
    use Outcome::{Answered, NoAnswer, OneWay, Pending, Refused};
    check(&[Answered], "verified", None);
    check(&[Refused], "blocked", Some("refused"));
    check(&[Answered, NoAnswer], "degraded", Some("no_answer"));
    check(&[NoAnswer, Answered], "degraded", Some("no_answer"));
    check(&[OneWay], "unknown", Some("one_way"));
    check(&[Pending], "unknown", Some("pending"));
    check(&[Pending, Answered], "verified", None);
    // Interrupted before it began.
    check(&[], "silent", None);
}

#[test]
fn what_is_not_probed_has_its_cause() {
    for (why, state, cause) in [
        (
            Why::Blind(crate::verdict::requirement::Blind::NotFromHere),
            "unobservable",
            "not_from_here",
        ),
        (
            Why::Blind(crate::verdict::requirement::Blind::NoExactAddress),
            "unobservable",
            "no_exact_address",
        ),
        (
            Why::Blind(crate::verdict::requirement::Blind::NoQuestion),
            "unobservable",
            "no_question",
        ),
        (
            Why::Name(Resolution::Failing),
            "silent",
            "name_does_not_resolve",
        ),
    ] {
        let rows = rows(&plan_of(vec![service("tcp/443", skipped(why))]), &[], SPAN);
        let line = &rows[0].line;
        assert_eq!(line.requirement.state, state);
        assert_eq!(line.requirement.cause.as_deref(), Some(cause));
        assert_eq!(line.not_probed[0].cause, cause);
    }
    let rows = rows(&plan_of(Vec::new()), &[], SPAN);
    let cause = rows[0].line.requirement.cause.as_deref();
    assert_eq!(cause, Some("no_services"));
}

#[test]
fn a_line_is_that_of_a_requirement_with_what_was_tried() {
    let plan = plan_of(vec![
        service("tcp/443", Vec::new()),
        service("udp/49152-65535", skipped(Why::Name(Resolution::Failing))),
    ]);
    let ended = [
        ended(0, Outcome::Answered, 0),
        ended(1, Outcome::Refused, 5),
    ];
    let rows = rows(&plan, &ended, SPAN);
    let json = serde_json::to_value(&rows[0].line).unwrap();
    let expect = serde_json::json!({
        "type": "requirement", "id": "s/row", "state": "blocked", "cause": "refused", "place": "peer",
        "confidence": "medium",
        "services": [
            {"service": "tcp/443", "state": "verified", "cause": null, "flows": 1, "answered": 1, "failed": 0,
             "first_seen": "1970-01-01T00:00:01.000000000Z", "last_seen": "1970-01-01T00:00:01.001500000Z"},
            {"service": "udp/49152-65535", "state": "blocked", "cause": "refused", "flows": 1, "answered": 0, "failed": 1,
             "first_seen": "1970-01-01T00:00:01.000000005Z", "last_seen": "1970-01-01T00:00:01.001500005Z"},
        ],
        "probed": true,
        "probes": [
            {"service": "tcp/443", "initiator": "10.20.0.2", "target": "10.1.0.10", "name": null,
             "question": "tcp connect", "outcome": "answered", "milliseconds": 1.5, "evidence": ["because"]},
            {"service": "udp/443", "initiator": "10.20.0.2", "target": "10.1.0.10", "name": null,
             "question": "tcp connect", "outcome": "refused", "milliseconds": 1.5, "evidence": ["because"]},
        ],
        "not_probed": [
            {"service": "udp/49152-65535", "target": null, "cause": "name_does_not_resolve", "detail": "for a reason"},
        ],
        "ranges": [{"service": "udp/49152-65535", "tried": 3, "of": 16384}],
    });
    assert_eq!(json, expect);
    // Whoever reads requirements reads these.
    let read: RequirementLine = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(read, rows[0].line.requirement);
    let read: ProbedLine = serde_json::from_value(json).unwrap();
    assert_eq!(read, rows[0].line);
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A run is one look: the order of its probes changes no state.
        #[test]
        fn the_order_of_probes_does_not_matter(
            outcomes in proptest::collection::vec(0_usize..Outcome::COUNT - 1, 1..8),
            shift in 0_usize..8,
        ) {
            let state = |outcomes: &[usize]| {
                let ended: Vec<Ended> = outcomes
                    .iter()
                    .zip(0..)
                    .map(|(outcome, number)| ended(0, Outcome::ALL[*outcome], number * 1_000_000_000))
                    .collect();
                rows(&plan_of(vec![service("tcp/443", Vec::new())]), &ended, SPAN)[0].state
            };
            let mut turned = outcomes.clone();
            turned.rotate_left(shift % outcomes.len());
            prop_assert_eq!(state(&outcomes), state(&turned));
            // Green needs an answer and no failure.
            let has = |wanted: Outcome| outcomes.iter().any(|outcome| Outcome::ALL[*outcome] == wanted);
            let failed = outcomes.iter().any(|outcome| Outcome::ALL[*outcome].is_failure());
            prop_assert_eq!(state(&outcomes) == State::Verified, has(Outcome::Answered) && !failed);
        }
    }
}
