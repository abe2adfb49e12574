use std::sync::Arc;

use flowproof_common::address::Address;

use super::losses::QUIET;
use super::states::{HOLD, SETTLE};
use super::unexpected::{FIRSTS, KINDS, SUMS};
use super::*;
use crate::capture::{Interface, Snapshot};
use crate::engine::actor::View;
use crate::engine::chronicle::standing;
use crate::engine::fake::{self, EPOCH};
use crate::ledger::{ServiceId, ServiceRecord, UnexpectedId};
use crate::matrix::Matrix;
use crate::matrix::compile::HostAddresses;
use crate::matrix::compiled::Compiled;
use crate::matrix::installed::{Installed, SlotDirectory};
use crate::site::Site;
use crate::site::tags::TagBook;
use crate::verdict::requirement::{Cause, State};
use crate::verdict::window::{Counts, KeptService};
use flowproof_common::state::Outcome;

const SECOND: u64 = 1_000_000_000;
const MINUTE: Duration = Duration::from_secs(60);
const WEB: &str = "{id: web, from: a, to: b, services: [tcp/443]}";
const DB: &str = "{id: db, from: a, to: b, services: [tcp/5432], necessity: optional}";

fn installed(rows: &[&str]) -> Arc<Installed> {
    let rows = rows.join(", ");
    let text =
        format!("system: app\ntitle: App\nroles: {{a: {{}}, b: {{}}}}\nrequirements: [{rows}]\n");
    let reading = Matrix::read_text("m.yaml", &text);
    let site = "site: s\nsystems: [app]\nroles: {app/a: [192.0.2.1], app/b: [192.0.2.2]}\n";
    let site = Site::read_text("s.yaml", site, &reading).site.unwrap();
    let bindings = site.role_bindings(&reading.matrix, &TagBook::default());
    let compiled =
        Compiled::compile(Arc::new(reading.matrix), bindings, &HostAddresses::Unknown).unwrap();
    Arc::new(Installed::new(Arc::new(compiled), SlotDirectory::default()))
}

/// Rounds of a daemon, with states as a test wants them.
struct Scene {
    deriver: Deriver,
    view: View,
    now: u64,
    states: Vec<State>,
    ledger: Status,
}

impl Scene {
    fn new(states: &[State]) -> Self {
        Self::resumed(&Remembered::default(), states)
    }

    fn resumed(remembered: &Remembered, states: &[State]) -> Self {
        let mut view = fake::view(installed(&[WEB, DB]));
        view.attached = vec![Interface {
            index: 2,
            name: "eth0".to_owned(),
        }];
        Self {
            deriver: Deriver::new(remembered, MINUTE, EPOCH),
            view,
            now: EPOCH,
            states: states.to_vec(),
            ledger: Status::default(),
        }
    }

    fn round(&mut self, pause: u64) -> Vec<Body> {
        self.now += pause;
        let mut standing = standing(self.view.clone(), self.now);
        for (row, state) in standing.rows.iter_mut().zip(&self.states) {
            row.window.finding.state = *state;
            row.window.finding.cause = Some(Cause::Flow(Outcome::Refused));
            row.failed = Arc::from("1 SYN, answered by RST");
        }
        self.deriver.round(&standing, Some(&self.ledger))
    }

    /// The changes of state that a round tells: requirement, from, to.
    #[track_caller]
    fn check(&mut self, pause: u64, states: &[State], expect: &[(&str, Option<&str>, &str)]) {
        self.states = states.to_vec();
        let events = self.round(pause);
        let got: Vec<(&str, Option<&str>, &str)> = events
            .iter()
            .map(|event| {
                let Body::ServiceState(state) = event else {
                    panic!("{event:?}");
                };
                (
                    state.requirement.as_str(),
                    state.from.as_deref(),
                    state.to.as_str(),
                )
            })
            .collect();
        assert_eq!(got, expect);
    }
}

const SILENT: [State; 2] = [State::Silent, State::Silent];

#[test]
fn a_change_is_told_once() {
    let mut scene = Scene::new(&SILENT);
    // Where nothing was seen there is nothing to tell.
    scene.check(0, &SILENT, &[]);
    scene.check(SECOND, &SILENT, &[]);
    let blocked = [State::Blocked, State::Silent];
    scene.check(SECOND, &blocked, &[("web", Some("silent"), "blocked")]);
    for _ in 0..100 {
        scene.check(SECOND, &blocked, &[]);
    }
    scene.states = vec![State::Verified, State::Degraded];
    let events = scene.round(SECOND);
    let [Body::ServiceState(web), Body::ServiceState(db)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!((web.problem, web.evidence.as_deref()), (false, None));
    // Optional: told, and no problem.
    assert_eq!((db.problem, db.to.as_str()), (false, "degraded"));
    assert_eq!(db.evidence.as_deref(), Some("1 SYN, answered by RST"));
    assert_eq!(db.cause.as_deref(), Some("refused"));
}

#[test]
fn what_is_seen_at_once_is_told_at_once() {
    let mut scene = Scene::new(&SILENT);
    scene.check(
        0,
        &[State::Blocked, State::Verified],
        &[("web", None, "blocked"), ("db", None, "verified")],
    );
}

#[test]
fn finding_out_what_can_be_seen_is_no_news() {
    let mut scene = Scene::new(&SILENT);
    scene.check(0, &[State::Unobservable, State::Unknown], &[]);
    scene.check(SECOND, &SILENT, &[]);
    // Later it is.
    scene.check(SETTLE, &SILENT, &[]);
    scene.check(
        SECOND,
        &[State::Unknown, State::Silent],
        &[("web", Some("silent"), "unknown")],
    );
}

fn remembered(states: [State; 2]) -> Remembered {
    let service = |(requirement, service, state): (&str, &str, State)| ServiceRecord {
        id: ServiceId {
            system: "app".to_owned(),
            requirement: requirement.to_owned(),
            service: service.to_owned(),
        },
        seen: None,
        flows: Counts::default(),
        last_answer: None,
        failure: None,
        window: KeptService {
            standing: Some((state, EPOCH - 1)),
            ..KeptService::default()
        },
    };
    let [web, db] = states;
    Remembered {
        services: [("web", "tcp/443", web), ("db", "tcp/5432", db)]
            .map(service)
            .into(),
        ..Remembered::default()
    }
}

#[test]
fn a_restart_repeats_nothing_and_misses_nothing() {
    let before = [State::Blocked, State::Verified];
    let mut scene = Scene::resumed(&remembered(before), &before);
    for _ in 0..30 {
        scene.check(SECOND, &before, &[]);
    }
    // Mended while no daemon ran.
    let mut scene = Scene::resumed(&remembered(before), &before);
    scene.check(
        0,
        &[State::Verified, State::Verified],
        &[("web", Some("blocked"), "verified")],
    );
}

#[test]
fn a_service_that_comes_and_goes_is_told_every_ten_seconds() {
    let mut scene = Scene::new(&SILENT);
    let (good, bad) = (
        [State::Verified, State::Silent],
        [State::Degraded, State::Silent],
    );
    scene.check(0, &good, &[("web", None, "verified")]);
    let mut told = 0;
    for second in 0..60 {
        scene.states = if second % 2 == 0 { bad } else { good }.to_vec();
        let events = scene.round(SECOND);
        assert!(events.len() <= 1);
        told += events.len();
        if let Some(Body::ServiceState(state)) = events.first()
            && told > 1
        {
            assert!(state.changes > 1, "{state:?}");
        }
    }
    assert!((5..=6).contains(&told), "{told}");
    // What it stays in is told in the end.
    scene.states = bad.to_vec();
    let last: Vec<Body> = (0..15).flat_map(|_| scene.round(SECOND)).collect();
    assert!(last.len() <= 1);
    scene.check(HOLD, &good, &[("web", Some("degraded"), "verified")]);
}

#[test]
fn a_new_matrix_repeats_nothing() {
    let mut scene = Scene::new(&SILENT);
    let both = [State::Blocked, State::Verified];
    scene.states = both.to_vec();
    assert_eq!(scene.round(0).len(), 2);
    scene.view.matrix = installed(&["{id: new, from: a, to: b, services: [tcp/1]}", WEB]);
    scene.check(SECOND, &[State::Silent, State::Blocked], &[]);
    scene.check(
        SECOND,
        &[State::Blocked, State::Blocked],
        &[("new", Some("silent"), "blocked")],
    );
}

#[test]
fn capture_and_ledger_fail_once_and_recover_once() {
    let mut scene = Scene::new(&SILENT);
    let names =
        |events: Vec<Body>| -> Vec<&'static str> { events.iter().map(Body::name).collect() };
    assert!(scene.round(0).is_empty());
    scene.view.failure = Some("the device is gone".to_owned());
    scene.ledger.problem = Some("no space left".to_owned());
    assert_eq!(
        names(scene.round(SECOND)),
        ["capture_failed", "ledger_degraded"]
    );
    assert!(scene.round(SECOND).is_empty());
    assert!(scene.deriver.no_answer(scene.now, "stuck").is_empty());
    scene.view.failure = None;
    scene.ledger.problem = None;
    let events = scene.round(SECOND);
    assert_eq!(
        events[0],
        Body::CaptureRecovered {
            since: time(EPOCH + SECOND)
        }
    );
    assert_eq!(names(events), ["capture_recovered", "ledger_recovered"]);
    assert_eq!(
        names(scene.deriver.no_answer(scene.now, "stuck")),
        ["capture_failed"]
    );
    scene.view.attached.clear();
    assert!(scene.round(SECOND).is_empty());
}

#[test]
fn losses_are_told_when_they_begin_and_when_they_end() {
    let mut scene = Scene::new(&SILENT);
    let mut lose = |pause: u64, ring: u64, promotion: u64| {
        scene.view.snapshot = Arc::new(Snapshot {
            lost: vec![("ring", ring), ("promotion", promotion)],
            ..Snapshot::default()
        });
        scene.round(pause)
    };
    // From before the start.
    assert!(lose(0, 5, 0).is_empty());
    assert_eq!(
        lose(SECOND, 7, 3),
        [Body::LossBegan {
            stage: "ring".to_owned(),
            lost: 2
        }]
    );
    assert!(lose(SECOND, 9, 4).is_empty());
    assert!(lose(QUIET - 1, 9, 4).is_empty());
    assert_eq!(
        lose(1, 9, 4),
        [Body::LossEnded {
            stage: "ring".to_owned(),
            lost: 4,
            since: time(EPOCH + SECOND)
        }]
    );
    // The counters began anew.
    assert!(lose(SECOND, 1, 0).is_empty());
    assert_eq!(lose(SECOND, 2, 0).len(), 1);
}

fn service(port: u16) -> UnexpectedService {
    UnexpectedService {
        from: Arc::from("app/a"),
        to: Arc::from("~unbound"),
        protocol: 6,
        port,
    }
}

fn seen(flows: u64, answered: u64, at: u64) -> UnexpectedSeen {
    UnexpectedSeen {
        flows,
        answered,
        seen: [at, at],
        samples: vec![[
            Address::from_v4([192, 0, 2, 1]),
            Address::from_v4([8, 8, 8, 8]),
        ]],
    }
}

impl Scene {
    /// Unexpected flows of one round, as (service, first, flows, answered, kinds).
    fn unexpected(
        &mut self,
        pause: u64,
        flows: impl IntoIterator<Item = (u16, u64, u64)>,
    ) -> Vec<(String, bool, u64, u64, u64)> {
        let at = self.now + pause;
        let flows = flows
            .into_iter()
            .map(|(port, flows, answered)| (service(port), seen(flows, answered, at)))
            .collect();
        self.deriver.unexpected(&flows);
        self.round(pause)
            .into_iter()
            .map(|event| {
                let Body::UnexpectedFlows(flows) = event else {
                    panic!("{event:?}");
                };
                assert!(!flows.samples.is_empty());
                (
                    flows.service,
                    flows.first,
                    flows.flows,
                    flows.answered,
                    flows.kinds,
                )
            })
            .collect()
    }
}

#[test]
fn the_first_of_a_kind_is_told_at_once_and_then_sums() {
    let mut scene = Scene::new(&SILENT);
    assert_eq!(
        scene.unexpected(SECOND, [(22, 1, 0)]),
        [("tcp/22".to_owned(), true, 1, 0, 1)]
    );
    for _ in 0..50 {
        assert_eq!(scene.unexpected(SECOND, [(22, 1_000, 1)]), []);
    }
    assert_eq!(
        scene.unexpected(10 * SECOND, []),
        [("tcp/22".to_owned(), false, 50_000, 50, 1)]
    );
    assert_eq!(scene.unexpected(60 * SECOND, []), []);
    // What is left at the end is told too.
    assert_eq!(scene.unexpected(SECOND, [(22, 3, 0)]), []);
    assert_eq!(scene.deriver.rest().len(), 1);
    assert!(scene.deriver.rest().is_empty());
}

#[test]
fn a_scan_is_a_bounded_number_of_events() {
    let mut scene = Scene::new(&SILENT);
    let told = scene.unexpected(SECOND, (0..=u16::MAX).map(|port| (port, 1, 0)));
    assert_eq!(told.len(), FIRSTS);
    assert!(told.iter().all(|(_, first, ..)| *first));
    let told = scene.unexpected(60 * SECOND, []);
    // All the others are told together: none is missing.
    let others = 65_536 - FIRSTS as u64;
    assert_eq!(told, [("~other".to_owned(), false, others, 0, others)]);
    // Kinds that are known are told by their sums, the greatest first.
    let mut scene = Scene::new(&SILENT);
    let mut known = 0;
    for _ in 0..3 {
        known += scene
            .unexpected(
                60 * SECOND,
                (0..120).map(|port| (port, u64::from(port) + 1, 0)),
            )
            .iter()
            .filter(|(_, first, ..)| *first)
            .count();
    }
    assert_eq!(known, 120);
    let told = scene.unexpected(
        60 * SECOND,
        (0..120).map(|port| (port, u64::from(port) + 1, 0)),
    );
    assert_eq!(told.len(), SUMS + 1);
    assert_eq!(told[0], ("tcp/119".to_owned(), false, 120, 0, 1));
    assert_eq!(told[SUMS].0, "~other");
    assert_eq!(told[SUMS].4, 70);
}

#[test]
fn known_kinds_are_no_first_after_a_restart() {
    let id = |port| UnexpectedId {
        from: "app/a".to_owned(),
        to: "~unbound".to_owned(),
        protocol: 6,
        port,
    };
    let remembered = Remembered {
        unexpected: (0..u16::MAX).map(id).collect(),
        ..Remembered::default()
    };
    let mut scene = Scene::resumed(&remembered, &SILENT);
    assert_eq!(scene.unexpected(SECOND, [(22, 1, 0)]), []);
    // The newest are remembered, and no more of them than there is room for.
    let oldest = u16::try_from(KINDS).unwrap();
    assert_eq!(
        scene.unexpected(SECOND, [(oldest, 1, 0)]),
        [(format!("tcp/{oldest}"), true, 1, 0, 1)]
    );
    assert_eq!(scene.unexpected(60 * SECOND, []).len(), 1);
}
