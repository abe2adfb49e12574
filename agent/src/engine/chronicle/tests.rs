use flowproof_common::address::Address;
use flowproof_common::classify::Judgement;
use flowproof_common::key::{FlowKey, Side};
use flowproof_common::protocol;
use flowproof_common::record::{EventKind, FlowRecord};
use flowproof_common::state::{Outcome, State as FlowState};
use flowproof_common::ticks::Ticks;

use super::*;
use crate::capture::{Interface, Snapshot};
use crate::engine::fake::{self, EPOCH};
use crate::ledger::ServiceRecord;
use crate::matrix::Matrix;
use crate::matrix::compile::HostAddresses;
use crate::matrix::installed::{Installed, SlotDirectory};
use crate::site::Site;
use crate::site::tags::TagBook;
use crate::verdict::requirement::{Place, State};
use crate::verdict::window::Counts;

const HOUR: u64 = 3_600_000_000_000;
const SECOND: u64 = 1_000_000_000;
const WINDOW: Duration = Duration::from_secs(86_400);
const WEB: &str = "{id: web, from: a, to: b, services: [tcp/443]}";
const DB: &str = "{id: db, from: a, to: b, services: [tcp/5432]}";

fn installed(rows: &[&str], directory: SlotDirectory) -> Arc<Installed> {
    let rows = rows.join(", ");
    let text =
        format!("system: app\ntitle: App\nroles: {{a: {{}}, b: {{}}}}\nrequirements: [{rows}]\n");
    let reading = Matrix::read_text("m.yaml", &text);
    let site = "site: s\nsystems: [app]\nroles: {app/a: [192.0.2.1], app/b: [192.0.2.2]}\n";
    let site = Site::read_text("s.yaml", site, &reading).site.unwrap();
    let bindings = site.role_bindings(&reading.matrix, &TagBook::default());
    let compiled =
        Compiled::compile(Arc::new(reading.matrix), bindings, &HostAddresses::Unknown).unwrap();
    Arc::new(Installed::new(Arc::new(compiled), directory))
}

/// A daemon without threads: what the capture thread would say, and the chronicle that hears it.
struct Scene {
    view: View,
    chronicle: Chronicle,
    now: u64,
}

impl Scene {
    fn new() -> Self {
        Self::resumed(Remembered::default(), EPOCH + HOUR, Absence::Unwatched)
    }

    fn resumed(remembered: Remembered, now: u64, absence: Absence) -> Self {
        let mut view = fake::view(installed(&[WEB, DB], SlotDirectory::default()));
        view.attached = vec![Interface {
            index: 2,
            name: "eth0".to_owned(),
        }];
        Self {
            view,
            chronicle: Chronicle::new(WINDOW, remembered, now, absence),
            now,
        }
    }

    /// Counts flows of a row, all at this moment.
    fn count(&mut self, row: &str, outcome: Outcome, flows: u64) {
        let service = if row == "web" { "tcp/443" } else { "tcp/5432" };
        let member = MemberId::of(&format!("app/{row}#{service}"));
        let slot = self.view.matrix.directory.slots_of(member).next().unwrap() as usize;
        let mut snapshot = Snapshot::clone(&self.view.snapshot);
        if snapshot.slots.len() <= slot {
            snapshot.slots.resize(slot + 1, SlotTotals::default());
        }
        let time = self.now - EPOCH;
        let totals = &mut snapshot.slots[slot].flows;
        totals.begun += flows;
        totals.decided[outcome as usize] += flows;
        totals.last_attempt = time;
        if outcome.is_failure() {
            totals.last_failed = time;
        } else {
            totals.last_answered = time;
        }
        self.view.snapshot = Arc::new(snapshot);
    }

    fn lose(&mut self, packets: u64) {
        let mut snapshot = Snapshot::clone(&self.view.snapshot);
        snapshot.lost = vec![("ring", packets)];
        self.view.snapshot = Arc::new(snapshot);
    }

    /// A round after `pause`.
    fn round(&mut self, pause: u64) -> (Standing, Batch) {
        self.now += pause;
        let gathered = Gathered {
            view: self.view.clone(),
            record: Record::default(),
        };
        self.chronicle
            .round(self.now, Duration::from_nanos(pause), gathered, &[])
    }

    #[track_caller]
    fn check(&mut self, pause: u64, expected: &[&str]) -> Standing {
        let (standing, _) = self.round(pause);
        assert_eq!(states(&standing), expected);
        standing
    }

    /// What a ledger would remember of it.
    fn remembered(&self) -> Remembered {
        let service = |tracked: &Tracked| ServiceRecord {
            id: tracked.id.clone(),
            seen: tracked.seen,
            flows: Counts::default(),
            last_answer: None,
            failure: None,
            window: tracked.window.kept(),
        };
        Remembered {
            unexpected: Vec::new(),
            watch: Some(self.chronicle.watch.kept()),
            services: self.chronicle.rows.iter().map(service).collect(),
        }
    }
}

fn states(standing: &Standing) -> Vec<String> {
    let matrix = &standing.view.matrix.compiled.matrix;
    let state = |row: &Row| {
        let finding = &row.window.finding;
        let mut text = format!(
            "{} {}",
            matrix.requirement(row.key).id,
            finding.state.name()
        );
        if let Some(cause) = finding.cause {
            text.push_str(&format!(" {}", cause.name()));
        }
        text
    };
    standing.rows.iter().map(state).collect()
}

#[test]
fn a_deployment_over_days() {
    let mut scene = Scene::new();
    scene.check(0, &["web silent", "db silent"]);
    scene.count("web", Outcome::Answered, 3);
    scene.count("db", Outcome::NoAnswer, 2);
    let standing = scene.check(SECOND, &["web verified", "db blocked no_answer"]);
    assert_eq!(standing.rows[0].window.flows.answered, 3);
    scene.check(HOUR, &["web verified", "db blocked no_answer"]);
    // Mended.
    scene.count("db", Outcome::Answered, 1);
    scene.check(SECOND, &["web verified", "db verified"]);
    // Only one of them goes on.
    for _ in 0..22 {
        scene.count("db", Outcome::Answered, 1);
        scene.check(HOUR, &["web verified", "db verified"]);
    }
    // To the moment: the answer was 24 hours ago, and then it was before that.
    let left = HOUR - 2 * SECOND;
    scene.check(left, &["web verified", "db verified"]);
    let standing = scene.check(1, &["web silent", "db verified"]);
    assert_eq!(standing.rows[0].seen.unwrap()[0], EPOCH + HOUR);
    // Failing lately, after it had worked.
    scene.count("db", Outcome::NoAnswer, 1);
    let standing = scene.check(SECOND, &["web silent", "db degraded no_answer"]);
    let ratio = standing.rows[1].window.answered_ratio().unwrap();
    assert!(ratio > 0.9 && ratio < 1.0, "{ratio}");
}

#[test]
fn a_loss_spoils_silence_for_a_window_and_nothing_else() {
    let mut scene = Scene::new();
    scene.count("web", Outcome::Answered, 1);
    scene.check(0, &["web verified", "db silent"]);
    scene.lose(1);
    scene.check(HOUR, &["web verified", "db unknown loss"]);
    for _ in 0..24 {
        scene.count("web", Outcome::Answered, 1);
        scene.check(HOUR, &["web verified", "db unknown loss"]);
    }
    scene.check(SECOND, &["web verified", "db silent"]);
}

#[test]
fn a_capture_that_fails_makes_silence_unknown() {
    let mut scene = Scene::new();
    scene.check(0, &["web silent", "db silent"]);
    scene.view.failure = Some("gone".to_owned());
    let both = ["web unknown not_watched", "db unknown not_watched"];
    scene.check(SECOND, &both);
    scene.view.failure = None;
    scene.check(SECOND, &both);
    scene.check(23 * HOUR, &both);
    scene.check(HOUR + 2 * SECOND, &["web silent", "db silent"]);
    // The thread does not even answer.
    let batch = scene
        .chronicle
        .blind(scene.now + SECOND, Duration::from_secs(1));
    assert_eq!((batch.gaps.len(), batch.watch.unwrap().blind), (1, true));
    scene.check(2 * SECOND, &both);
}

#[test]
fn a_restart_remembers_and_says_whether_it_watched() {
    let mut before = Scene::new();
    before.count("web", Outcome::Answered, 5);
    before.check(0, &["web verified", "db silent"]);
    let later = before.now + HOUR;

    // Nothing counted in between: what was never seen may have been missed.
    let mut after = Scene::resumed(before.remembered(), later, Absence::Unwatched);
    let standing = after.check(0, &["web verified", "db unknown not_watched"]);
    assert_eq!(standing.rows[0].window.flows.answered, 5);
    assert_eq!(standing.rows[0].seen.unwrap()[0], EPOCH + HOUR);
    after.check(22 * HOUR, &["web verified", "db unknown not_watched"]);
    after.check(3 * HOUR, &["web silent", "db silent"]);

    // The kernel went on counting, two flows of a row that had been silent among them.
    let mut after = Scene::resumed(before.remembered(), later, Absence::Counted);
    after.view = before.view.clone();
    after.check(0, &["web verified", "db silent"]);
    after.count("db", Outcome::Answered, 2);
    let standing = after.check(SECOND, &["web verified", "db verified"]);
    let answered = standing.rows.iter().map(|row| row.window.flows.answered);
    assert_eq!(answered.collect::<Vec<_>>(), [5, 2]);
}

#[test]
fn nothing_new_is_nothing_to_write() {
    let mut scene = Scene::new();
    scene.count("web", Outcome::Answered, 1);
    let (_, batch) = scene.round(0);
    assert_eq!(batch.services.len(), 2);
    // Two clocks are never read at the same time.
    scene.view.epoch_offset += 40_000;
    let (_, batch) = scene.round(SECOND);
    assert!(
        batch.services.is_empty() && batch.gaps.is_empty(),
        "{batch:?}"
    );
    assert!(batch.watch.is_some(), "the heartbeat");
    scene.count("db", Outcome::Refused, 1);
    let (_, batch) = scene.round(SECOND);
    let ids: Vec<&str> = batch.services.keys().map(|id| &*id.requirement).collect();
    assert_eq!(ids, ["db"]);
    // A ledger that began anew gets everything.
    assert_eq!(scene.chronicle.whole(scene.now).services.len(), 2);
}

#[test]
fn a_row_that_comes_back_was_not_watched_meanwhile() {
    let mut scene = Scene::new();
    scene.count("db", Outcome::Answered, 1);
    scene.check(0, &["web silent", "db verified"]);
    let all = Arc::clone(&scene.view.matrix);
    let directory = SlotDirectory::clone(&all.directory);
    scene.view.matrix = installed(&[DB], directory);
    let (standing, batch) = scene.round(HOUR);
    assert_eq!(states(&standing), ["db verified"]);
    let left = &batch.services.values().next().unwrap().window;
    assert_eq!(left.as_ref().unwrap().head.begins, None);
    // Nothing is written of it again and again.
    assert!(scene.round(SECOND).1.services.is_empty());

    scene.view.matrix = all;
    let standing = scene.check(HOUR, &["web silent", "db verified"]);
    assert_eq!(standing.rows[0].window.from, scene.now);
    // The other's window went on.
    assert!(standing.rows[1].window.from < scene.now - HOUR);
}

#[test]
fn a_row_of_a_former_matrix_is_not_watched_by_a_restart() {
    let mut before = Scene::new();
    before.check(0, &["web silent", "db silent"]);
    let mut after = Scene::resumed(before.remembered(), before.now + HOUR, Absence::Counted);
    let all = Arc::clone(&after.view.matrix);
    after.view.matrix = installed(&[DB], SlotDirectory::clone(&all.directory));
    let (_, batch) = after.round(0);
    let web = batch
        .services
        .iter()
        .find(|(id, _)| id.requirement == "web");
    let head = &web.unwrap().1.window.as_ref().unwrap().head;
    assert_eq!(head.begins, None);
    after.view.matrix = all;
    let standing = after.check(HOUR, &["web silent", "db silent"]);
    assert_eq!(standing.rows[0].window.from, after.now);
    assert_eq!(standing.rows[1].window.from, EPOCH + HOUR);
}

#[test]
fn a_failure_is_told_in_words() {
    let mut scene = Scene::new();
    scene.count("db", Outcome::Prohibited, 1);
    let [client, server, hop] = [1, 2, 254].map(|last| Address::from_v4([192, 0, 2, last]));
    let key = FlowKey {
        a: client,
        b: server,
        port_a: 50_000,
        port_b: 5_432,
        protocol: protocol::TCP,
        icmp_type: 0,
        zero: [0; 2],
    };
    let slot = scene
        .view
        .matrix
        .directory
        .slots_of(MemberId::of("app/db#tcp/5432"))
        .next()
        .unwrap();
    let judgement = Judgement {
        slot,
        initiator: Side::A,
        joined_midway: false,
        to_group: false,
        held: false,
    };
    let state = FlowState::new(&judgement, 2).failed(Outcome::Prohibited, Side::A);
    let event = Event {
        key,
        record: FlowRecord::new(state, slot, Ticks(0)),
        kind: EventKind::Decided as u8,
        time: HOUR,
        hop,
        has_icmp: 1,
        icmp_type: 3,
        icmp_code: 13,
        ..Event::default()
    };
    states::note(&mut scene.view.notes, &event);
    let (standing, batch) = scene.round(SECOND);
    let row = &standing.rows[1];
    assert_eq!(row.window.finding.state, State::Blocked);
    assert_eq!(row.window.finding.place, Some(Place::Hop(hop)));
    let text = "192.0.2.1 to 192.0.2.2 tcp/5432: ";
    assert!(row.failed.starts_with(text), "{}", row.failed);
    assert!(row.failed.contains("ICMP 3/13 from 192.0.2.254"));
    let seen = batch
        .services
        .values()
        .find_map(|seen| seen.failure.clone())
        .unwrap();
    assert_eq!(seen.evidence, &*row.failed);
}
