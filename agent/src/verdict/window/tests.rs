use std::time::Duration;

use flowproof_common::address::Address;
use flowproof_common::state::Outcome;
use proptest::prelude::*;

use super::*;
use crate::verdict::requirement::{Blind, Confidence, Place, Resolution};
use crate::verdict::vantage::LossTotals;

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const WINDOW: Duration = Duration::from_secs(86_400);
const EPOCH: u64 = 1_700_000_000 * SECOND;
const PEER: Address = Address::from_v4([10, 0, 0, 2]);

/// A back end with one service, a clock that can be set, and the state machine that samples it.
struct World {
    /// Time that can't be set.
    real: u64,
    /// Added to it, the clock's time.
    offset: u64,
    totals: Totals,
    /// Real times.
    attempt: Option<u64>,
    answer: Option<u64>,
    failure: Option<(u64, Outcome)>,
    losses: LossTotals,
    blind: bool,
    vantage: Vantage,
    needs_names: bool,
    looked: u64,
    watch: Watch,
    service: ServiceWindow,
    gaps: Vec<Gap>,
    /// What a ledger has: as of the last sample that changed anything.
    stored: KeptService,
}

impl World {
    fn new() -> Self {
        let watch = Watch::begin(WINDOW, EPOCH);
        let mut world = Self {
            real: 0,
            offset: EPOCH,
            totals: Totals::default(),
            attempt: None,
            answer: None,
            failure: None,
            losses: LossTotals::default(),
            blind: false,
            vantage: Vantage::Clear,
            needs_names: false,
            looked: 0,
            watch,
            service: ServiceWindow::new(Vantage::Clear),
            gaps: Vec::new(),
            stored: KeptService::default(),
        };
        world.sample();
        world
    }

    fn now(&self) -> u64 {
        self.real + self.offset
    }

    fn sample(&mut self) -> Change {
        let now = self.now();
        let look = Look {
            elapsed: Duration::from_nanos(self.real - self.looked),
            losses: self.losses,
            blind: self.blind,
        };
        self.looked = self.real;
        self.gaps.extend(self.watch.look(now, &look));
        let at = |time: u64| time + self.offset;
        let sample = Sample {
            totals: self.totals,
            evidence: Evidence {
                last_attempt: self.attempt.map(at),
                last_answer: self.answer.map(at),
                last_failure: self.failure.map(|(time, outcome)| Failure {
                    at: at(time),
                    outcome,
                    place: Place::of(outcome, &PEER, None),
                    told: false,
                }),
            },
            vantage: self.vantage,
            needs_names: self.needs_names,
        };
        let change = self.service.observe(now, &sample, &self.watch);
        if change.changed || change.bucket.is_some() {
            self.stored = self.service.kept();
        }
        change
    }

    /// What a reader of the ledger says.
    fn read(&self) -> WindowFinding {
        let kept = self.stored.clone();
        let vantage = kept.vantage.unwrap();
        let watch = Watch::as_of(self.watch.kept());
        ServiceWindow::resume(kept, vantage, Absence::Counted)
            .finding(self.watch.kept().until, &watch)
    }

    fn pass(&mut self, time: u64) {
        self.real += time;
        self.sample();
    }

    fn begin(&mut self) {
        self.totals.flows.begun += 1;
        self.attempt = Some(self.real);
    }

    fn answer(&mut self) {
        self.begin();
        self.totals.flows.answered += 1;
        self.totals.replies += 3;
        self.answer = Some(self.real);
    }

    fn fail(&mut self, outcome: Outcome) {
        self.begin();
        self.totals.flows.failed += 1;
        self.failure = Some((self.real, outcome));
    }

    /// The counters begin anew, the daemon goes on.
    fn restart_counters(&mut self) {
        self.totals = Totals::default();
        self.losses = LossTotals::default();
        (self.attempt, self.answer, self.failure) = (None, None, None);
    }

    /// The daemon is killed and comes back after `down`.
    fn restart(&mut self, down: u64, absence: Absence) {
        let (watch, service) = (self.watch.kept(), self.service.kept());
        self.real += down;
        if absence == Absence::Unwatched {
            self.restart_counters();
        }
        let (watch, gap) = Watch::resume(WINDOW, watch, self.now(), absence);
        self.gaps.extend(gap);
        self.watch = watch;
        self.service = ServiceWindow::resume(service, self.vantage, absence);
        self.looked = self.real;
        self.sample();
    }

    fn found(&self) -> WindowFinding {
        self.service.finding(self.now(), &self.watch)
    }

    #[track_caller]
    fn expect(&self, state: State, cause: Option<&str>) -> WindowFinding {
        let found = self.found();
        assert_eq!(
            (found.finding.state, found.finding.cause.map(Cause::name)),
            (state, cause)
        );
        found
    }
}

#[test]
fn a_row_goes_silent_when_its_window_is_over() {
    let mut world = World::new();
    world.pass(5 * SECOND);
    let found = world.expect(State::Silent, None);
    assert_eq!((found.since, found.from), (Some(EPOCH), EPOCH));
    world.answer();
    world.pass(5 * SECOND);
    let found = world.expect(State::Verified, None);
    assert_eq!(found.since, Some(EPOCH + 10 * SECOND));
    for _ in 0..24 * 12 - 1 {
        world.pass(5 * MINUTE);
    }
    world.expect(State::Verified, None);
    world.pass(5 * MINUTE);
    let found = world.expect(State::Silent, None);
    assert_eq!(found.flows, Counts::default());
    assert_eq!(found.from, world.now() - 24 * HOUR);
    assert!(world.gaps.is_empty());
}

#[test]
fn failures_are_told_with_cause_place_confidence_and_ratio() {
    let mut world = World::new();
    world.fail(Outcome::NoAnswer);
    world.pass(SECOND);
    let found = world.expect(State::Blocked, Some("no_answer"));
    assert_eq!(found.finding.place, Some(Place::Path));
    assert_eq!(found.finding.confidence, Some(Confidence::Low));
    assert_eq!(found.answered_ratio(), Some(0.0));
    world.real += MINUTE;
    world.answer();
    world.pass(SECOND);
    // An answer since makes it good.
    world.expect(State::Verified, None);
    world.real += MINUTE;
    world.answer();
    world.real += MINUTE;
    world.fail(Outcome::Refused);
    world.pass(SECOND);
    let found = world.expect(State::Degraded, Some("refused"));
    assert_eq!(found.finding.place, Some(Place::Peer));
    assert_eq!(found.flows, counts(4, 2, 2, 0));
    assert_eq!(found.answered_ratio(), Some(0.5));
    // A day later only what failed in the window counts.
    for _ in 0..23 {
        world.pass(HOUR);
    }
    world.fail(Outcome::Refused);
    world.pass(2 * HOUR);
    let found = world.expect(State::Blocked, Some("refused"));
    assert_eq!(found.flows, counts(1, 0, 1, 0));
}

fn counts(begun: u64, answered: u64, failed: u64, one_way: u64) -> Counts {
    Counts {
        begun,
        answered,
        failed,
        one_way,
    }
}

#[test]
fn a_connection_that_lives_on_is_proof() {
    let mut world = World::new();
    world.answer();
    for _ in 0..30 {
        world.totals.replies += 1;
        world.pass(HOUR);
    }
    world.expect(State::Verified, None);
    // What it carries makes no failure good, and a refusal is no answer.
    world.fail(Outcome::Refused);
    world.totals.replies += 1;
    world.pass(SECOND);
    world.expect(State::Degraded, Some("refused"));
    world.totals.replies += 1;
    world.pass(SECOND);
    world.expect(State::Degraded, Some("refused"));
    // Idle for longer than the window, it proves nothing any more.
    let mut world = World::new();
    world.answer();
    world.pass(HOUR);
    world.pass(23 * HOUR + MINUTE);
    world.expect(State::Silent, None);
}

#[test]
fn what_owes_no_answer_stays_unknown() {
    let mut world = World::new();
    world.begin();
    world.pass(SECOND);
    world.expect(State::Unknown, Some("pending"));
    world.totals.flows.one_way += 1;
    world.pass(SECOND);
    world.expect(State::Unknown, Some("one_way"));
}

#[test]
fn a_loss_spoils_a_window_and_no_other() {
    let mut world = World::new();
    world.pass(HOUR);
    world.losses.packets += 7;
    world.pass(SECOND);
    world.expect(State::Unknown, Some("loss"));
    assert_eq!(
        world.gaps,
        [Gap {
            kind: GapKind::PacketsLost,
            from: world.now() - SECOND,
            to: world.now(),
            lost: 7,
        }]
    );
    world.pass(24 * HOUR);
    world.expect(State::Unknown, Some("loss"));
    world.pass(SECOND);
    world.expect(State::Silent, None);
    // Lost names hide only flows that need them.
    world.losses.names += 1;
    world.pass(SECOND);
    world.expect(State::Silent, None);
    world.needs_names = true;
    world.pass(SECOND);
    world.expect(State::Unknown, Some("loss"));
    world.answer();
    world.pass(SECOND);
    world.expect(State::Verified, None);
}

#[test]
fn blindness_spoils_a_window() {
    let mut world = World::new();
    world.blind = true;
    world.pass(SECOND);
    world.expect(State::Unknown, Some("not_watched"));
    world.blind = false;
    world.pass(HOUR);
    // It came back at any time since the last look.
    assert_eq!(world.watch.kept().last_blind, Some(world.now()));
    world.pass(24 * HOUR);
    world.expect(State::Unknown, Some("not_watched"));
    world.pass(SECOND);
    world.expect(State::Silent, None);
    // A capture that begins blind has not begun.
    let mut late = World::new();
    late.service = ServiceWindow::new(Vantage::Clear);
    late.blind = true;
    late.pass(SECOND);
    late.expect(State::Unknown, Some("not_watched"));
    late.blind = false;
    for _ in 0..3 {
        late.pass(SECOND);
    }
    let found = late.expect(State::Silent, None);
    assert_eq!(found.from, late.now() - SECOND);
}

#[test]
fn restarts_keep_states_and_leave_gaps() {
    let mut world = World::new();
    world.answer();
    world.pass(SECOND);
    // The kernel counts on: a flow of the meantime is not missed.
    world.fail(Outcome::Refused);
    world.restart(MINUTE, Absence::Counted);
    let found = world.expect(State::Degraded, Some("refused"));
    assert_eq!(found.flows, counts(2, 1, 1, 0));
    assert!(world.gaps.is_empty());
    world.restart(MINUTE, Absence::Unwatched);
    let found = world.expect(State::Degraded, Some("refused"));
    assert_eq!(found.finding.place, Some(Place::Peer));
    assert_eq!(
        world
            .gaps
            .iter()
            .map(|gap| (gap.kind, gap.to - gap.from))
            .collect::<Vec<_>>(),
        [(GapKind::Down, MINUTE)]
    );
    // The new counters begin at nothing, and so does what was counted of them.
    world.answer();
    world.answer();
    world.pass(SECOND);
    let found = world.expect(State::Verified, None);
    assert_eq!(found.flows, counts(4, 3, 1, 0));
    world.pass(24 * HOUR);
    world.pass(SECOND);
    world.expect(State::Silent, None);
    world.restart(SECOND, Absence::Unwatched);
    world.expect(State::Unknown, Some("not_watched"));
}

#[test]
fn the_place_of_a_failure_outlives_who_saw_it() {
    let failure = |at, place| Evidence {
        last_failure: Some(Failure {
            at,
            outcome: Outcome::Refused,
            place,
            told: place.is_some(),
        }),
        ..Evidence::default()
    };
    let seen = failure(100 * SECOND, Some(Place::Peer));
    let both = |later| seen.and(failure(later, None)).last_failure.unwrap();
    assert_eq!(both(101 * SECOND).place, Some(Place::Peer));
    assert_eq!(both(101 * SECOND).at, 101 * SECOND);
    assert_eq!(both(200 * SECOND).place, None);
    assert_eq!(both(99 * SECOND).place, Some(Place::Peer));
}

#[test]
fn a_row_is_unobservable_until_an_observation_proves_otherwise() {
    let mut world = World::new();
    world.vantage = Vantage::Blind(Blind::Elsewhere);
    world.service = ServiceWindow::new(world.vantage);
    world.losses.packets += 1;
    for _ in 0..30 {
        world.pass(HOUR);
        world.expect(State::Unobservable, Some("not_captured_here"));
    }
    world.answer();
    world.pass(SECOND);
    world.expect(State::Verified, None);
    // Once it can be seen, its window begins.
    let mut world = World::new();
    world.vantage = Vantage::Blind(Blind::NotBound);
    world.service = ServiceWindow::new(world.vantage);
    world.pass(HOUR);
    world.vantage = Vantage::Unresolved(Resolution::Failing);
    world.pass(HOUR);
    let found = world.expect(State::Silent, Some("name_does_not_resolve"));
    assert_eq!(found.from, world.now());
    // What can't be seen for a while is not silent for that while.
    world.vantage = Vantage::Blind(Blind::OtherHost);
    world.pass(HOUR);
    world.expect(State::Unobservable, Some("other_host"));
    world.vantage = Vantage::Clear;
    world.pass(HOUR);
    world.expect(State::Unknown, Some("not_watched"));
    world.pass(25 * HOUR);
    world.expect(State::Silent, None);
}

#[test]
fn a_clock_that_is_set_fakes_no_window() {
    let mut world = World::new();
    world.answer();
    world.pass(SECOND);
    world.offset += 48 * HOUR;
    world.pass(SECOND);
    // The flow was seconds ago, whatever the clock says now.
    world.expect(State::Verified, None);
    assert_eq!(
        world.gaps.last().map(|gap| gap.kind),
        Some(GapKind::ClockJump)
    );
    let mut world = World::new();
    world.pass(SECOND);
    world.offset += 48 * HOUR;
    world.pass(SECOND);
    world.expect(State::Unknown, Some("not_watched"));
    // Slewing is no jump, however long it goes on; many small steps are.
    let mut world = World::new();
    for _ in 0..1_000 {
        world.offset += 400_000;
        world.pass(SECOND);
    }
    world.expect(State::Silent, None);
    for _ in 0..8 {
        world.offset += 4 * SECOND;
        world.pass(SECOND);
    }
    world.expect(State::Unknown, Some("not_watched"));
    // Back: nothing is forgotten sooner, nothing lasts for ever.
    let mut world = World::new();
    world.losses.packets += 1;
    world.fail(Outcome::Refused);
    world.pass(SECOND);
    world.offset -= 1_000 * HOUR;
    world.pass(SECOND);
    let found = world.expect(State::Blocked, Some("refused"));
    assert_eq!(found.flows, counts(1, 0, 1, 0));
    world.restart_counters();
    world.pass(23 * HOUR);
    world.expect(State::Blocked, Some("refused"));
    world.pass(HOUR + MINUTE);
    world.expect(State::Silent, None);
}

#[test]
fn a_failure_that_was_none_is_taken_back() {
    let mut world = World::new();
    world.begin();
    world.totals.flows.failed += 1;
    world.failure = Some((0, Outcome::NoAnswer));
    world.pass(SECOND);
    world.expect(State::Blocked, Some("no_answer"));
    // It went to a group.
    world.totals.flows.failed -= 1;
    world.totals.flows.answered += 1;
    world.failure = None;
    world.answer = Some(0);
    world.real += SECOND;
    let change = world.sample();
    assert!(change.rewritten && change.changed);
    let found = world.expect(State::Verified, None);
    assert_eq!(found.flows, counts(1, 1, 0, 0));
}

#[test]
fn only_what_changed_needs_to_be_kept() {
    let mut world = World::new();
    world.pass(SECOND);
    world.real += SECOND;
    assert_eq!(world.sample(), Change::default());
    world.answer();
    let change = world.sample();
    assert_eq!(change.flows, counts(1, 1, 0, 0));
    assert!(change.changed && !change.rewritten);
    let bucket = change.bucket.unwrap();
    world.real += MINUTE;
    world.answer();
    let next = world.sample().bucket.unwrap();
    assert_eq!((next.starts, next.counts.begun), (bucket.starts, 2));
}

#[test]
fn memory_is_bounded() {
    let mut world = World::new();
    for _ in 0..3_000 {
        world.answer();
        world.pass(MINUTE);
    }
    let buckets = world.service.kept().buckets.len();
    assert!((280..=290).contains(&buckets), "{buckets}");
    let found = world.found();
    assert!((1_440..=1_446).contains(&found.flows.begun), "{found:?}");
    // A shorter window before the restart left more and smaller buckets.
    let mut kept = world.service.kept();
    let now = world.now();
    kept.buckets = (0..5_000)
        .map(|number| Bucket {
            starts: now - 5_000 + number,
            ends: now - 5_000 + number,
            counts: counts(1, 1, 0, 0),
        })
        .collect();
    world.service = ServiceWindow::resume(kept, Vantage::Clear, Absence::Counted);
    for _ in 0..5_000 {
        world.answer();
        world.pass(6 * MINUTE);
    }
    assert!(world.service.kept().buckets.len() <= 290);
}

#[test]
fn who_is_told_of_what() {
    let conditional = Necessity::Conditional {
        condition: "with a gateway".to_owned(),
    };
    for state in State::ALL {
        let failing = matches!(state, State::Blocked | State::Degraded);
        assert!(!is_problem(state, &Necessity::Optional), "{state:?}");
        assert_eq!(is_problem(state, &conditional), failing);
        assert_eq!(
            is_problem(state, &Necessity::Required),
            failing || state == State::Silent
        );
    }
}

#[test]
fn kinds_of_gaps_are_read_as_they_are_written() {
    for kind in GapKind::ALL {
        assert_eq!(GapKind::of_name(kind.name()), Some(kind));
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Pass(u64),
    Begin,
    Answer,
    Fail,
    OneWay,
    Reply,
    Lose,
    LoseNames,
    Blind(bool),
    Unobservable(bool),
    Resolves(bool),
    CountersRestart,
    Restart(u64, bool),
    Forward(u64),
    Back(u64),
}

fn steps(clock: bool) -> impl Strategy<Value = Vec<Step>> {
    let time = prop_oneof![
        1..10 * SECOND,
        1..HOUR,
        20 * HOUR..30 * HOUR,
        Just(24 * HOUR)
    ];
    let jump = move |time: u64| if clock { time } else { 0 };
    let step = prop_oneof![
        12 => time.clone().prop_map(Step::Pass),
        2 => Just(Step::Begin),
        3 => Just(Step::Answer),
        3 => Just(Step::Fail),
        1 => Just(Step::OneWay),
        1 => Just(Step::Reply),
        1 => Just(Step::Lose),
        1 => Just(Step::LoseNames),
        1 => any::<bool>().prop_map(Step::Blind),
        1 => any::<bool>().prop_map(Step::Unobservable),
        1 => any::<bool>().prop_map(Step::Resolves),
        1 => Just(Step::CountersRestart),
        1 => (time.clone(), any::<bool>()).prop_map(|(time, counted)| Step::Restart(time, counted)),
        2 => time.clone().prop_map(move |time| Step::Forward(jump(time))),
        2 => time.prop_map(move |time| Step::Back(jump(time))),
    ];
    proptest::collection::vec(step, 1..80)
}

/// Real times of what a window must not forget.
#[derive(Default)]
struct Truth {
    attempt: Option<u64>,
    answer: Option<u64>,
    failure: Option<u64>,
    spoiled: Option<u64>,
    names_spoiled: Option<u64>,
}

impl World {
    fn step(&mut self, step: Step, truth: &mut Truth) {
        let now = Some(self.real);
        match step {
            Step::Pass(time) => self.pass(time),
            Step::Begin => {
                self.begin();
                truth.attempt = now;
            }
            Step::Answer => {
                self.answer();
                (truth.attempt, truth.answer) = (now, now);
            }
            Step::Fail => {
                self.fail(Outcome::Refused);
                (truth.attempt, truth.failure) = (now, now);
            }
            Step::OneWay => {
                self.begin();
                self.totals.flows.one_way += 1;
                truth.attempt = now;
            }
            Step::Reply => self.totals.replies += 1,
            Step::Lose => {
                self.losses.packets += 1;
                truth.spoiled = now;
            }
            Step::LoseNames => {
                self.losses.names += 1;
                truth.names_spoiled = now;
            }
            Step::Blind(blind) => self.blind = blind,
            Step::Unobservable(blind) => {
                self.vantage = if blind {
                    Vantage::Blind(Blind::OtherHost)
                } else {
                    Vantage::Clear
                };
            }
            Step::Resolves(true) => self.vantage = Vantage::Clear,
            Step::Resolves(false) => self.vantage = Vantage::Unresolved(Resolution::Failing),
            Step::CountersRestart => self.restart_counters(),
            Step::Restart(time, counted) => {
                let absence = if counted {
                    Absence::Counted
                } else {
                    Absence::Unwatched
                };
                self.restart(time, absence);
                if !counted {
                    truth.spoiled = Some(self.real);
                }
            }
            Step::Forward(time) => self.offset += time,
            Step::Back(time) => self.offset = self.offset.saturating_sub(time),
        }
        // What is not sampled is not part of the input.
        self.sample();
        if self.blind {
            truth.spoiled = Some(self.real);
        }
    }
}

mod properties {
    use super::*;

    proptest! {
        /// Whatever the clock does: within the window, in time that really went by, a loss or blindness means that nothing
        /// seen is not silence; and silence means that nothing was attempted.
        #[test]
        fn no_loss_is_ever_silent(steps in steps(true), needs_names: bool) {
            let mut world = World::new();
            world.needs_names = needs_names;
            let mut truth = Truth::default();
            // As much as a clock may run ahead without being caught.
            let surely = 24 * HOUR - 2 * MINUTE;
            for step in steps {
                world.step(step, &mut truth);
                let found = world.found();
                let lately = |time: Option<u64>| time.is_some_and(|time| world.real - time < surely);
                if found.finding.state == State::Silent {
                    prop_assert!(!lately(truth.spoiled), "{step:?} {found:?}");
                    prop_assert!(!(needs_names && lately(truth.names_spoiled)), "{step:?} {found:?}");
                    prop_assert!(!lately(truth.attempt), "{step:?} {found:?}");
                    prop_assert!(!matches!(world.vantage, Vantage::Blind(_)));
                }
                prop_assert!(world.service.kept().buckets.len() <= MOST_BUCKETS);
            }
        }

        /// With a clock that is never set, states are exactly what they should be.
        #[test]
        fn states_follow_the_evidence(steps in steps(false)) {
            let mut world = World::new();
            let mut truth = Truth::default();
            for step in steps {
                if matches!(step, Step::Reply) {
                    continue;
                }
                world.step(step, &mut truth);
                let found = world.found();
                let recent = |time: Option<u64>| time.filter(|time| world.real - time <= 24 * HOUR);
                let expect = match (recent(truth.answer), recent(truth.failure)) {
                    (Some(answer), Some(failure)) if failure > answer => Some(State::Degraded),
                    (Some(_), _) => Some(State::Verified),
                    (None, Some(_)) => Some(State::Blocked),
                    (None, None) if recent(truth.attempt).is_some() => Some(State::Unknown),
                    (None, None) if matches!(world.vantage, Vantage::Blind(_)) => Some(State::Unobservable),
                    (None, None) if recent(truth.spoiled).is_some() => Some(State::Unknown),
                    // Whether the row could be seen all the time is the other test's.
                    (None, None) => None,
                };
                if let Some(expect) = expect {
                    prop_assert_eq!(found.finding.state, expect, "{:?} {:?}", step, found);
                } else {
                    prop_assert!(matches!(found.finding.state, State::Silent | State::Unknown));
                }
                if let Some(ratio) = found.answered_ratio() {
                    prop_assert!((0.0..=1.0).contains(&ratio));
                }
            }
        }

        /// Replies keep a service verified, and never overturn a failure or make up an answer.
        #[test]
        fn verified_needs_an_answer(steps in steps(true)) {
            let mut world = World::new();
            let mut truth = Truth::default();
            for step in steps {
                world.step(step, &mut truth);
                let found = world.found();
                if found.finding.state == State::Verified {
                    prop_assert!(truth.answer.is_some());
                    prop_assert!(found.flows.answered > 0);
                }
            }
        }

        /// Who reads what was kept whenever it changed says the same as who watched.
        #[test]
        fn a_reader_says_the_same(steps in steps(true), needs_names: bool) {
            let mut world = World::new();
            world.needs_names = needs_names;
            let mut truth = Truth::default();
            for step in steps {
                world.step(step, &mut truth);
                prop_assert_eq!(world.read(), world.found(), "{:?}", step);
            }
        }

        /// A restart at any moment that the kernel counted through changes nothing but the time.
        #[test]
        fn a_counted_restart_changes_no_state(steps in steps(false), at in 0..80_usize) {
            let mut world = World::new();
            let mut truth = Truth::default();
            for step in steps.iter().take(at) {
                world.step(*step, &mut truth);
            }
            // The look after a blind one is spoiled as well, which a restart forgets.
            world.blind = false;
            world.sample();
            world.sample();
            let before = world.found();
            world.restart(0, Absence::Counted);
            let after = world.found();
            prop_assert_eq!(before.finding, after.finding);
            prop_assert_eq!(before.flows, after.flows);
            prop_assert_eq!(before.since, after.since);
        }
    }
}
