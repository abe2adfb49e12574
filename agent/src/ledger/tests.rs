//! The ledger on real files: killed, full, read-only, damaged, read while it is written.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use flowproof_common::address::Address;
use flowproof_common::classify::Verdict;
use flowproof_common::state::Outcome;
use rusqlite::Connection;

use super::migrate::{STEPS, migrate};
use super::store::{Store, beside};
use super::*;
use crate::verdict::requirement::{Failure, Place, State, Vantage};
use crate::verdict::window::{
    Absence, Counts, Evidence, Gap, GapKind, Look, Sample, ServiceWindow, Totals, Watch,
};

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;
const EPOCH: u64 = 1_700_000_000 * SECOND;
const LONG: Duration = Duration::from_secs(30);

fn quick() -> Limits {
    Limits {
        write_every: Duration::from_millis(10),
        ..Limits::default()
    }
}

fn open(path: &Path) -> Opened {
    Ledger::open(path, quick()).unwrap()
}

fn id(service: &str) -> ServiceId {
    ServiceId {
        system: "shop".to_owned(),
        requirement: "client-to-server".to_owned(),
        service: service.to_owned(),
    }
}

fn address(number: u32) -> Address {
    Address::from_v4(number.to_be_bytes())
}

fn hour_key(time: u64, number: u32) -> HourKey {
    HourKey {
        hour: HourKey::hour_of(time),
        initiator: address(0x0a00_0000 + number),
        responder: Address::from_v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        protocol: 6,
        port: 443,
        verdict: Verdict::Expected,
        names: "a.example b.example".to_owned(),
    }
}

/// One flow of everything.
fn batch(number: u64) -> Batch {
    let until = EPOCH + number * SECOND;
    let mut batch = Batch {
        until,
        ..Batch::default()
    };
    batch.services.insert(
        id("tcp/443"),
        ServiceSeen {
            flows: Counts {
                begun: 1,
                answered: 1,
                ..Counts::default()
            },
            seen: Some([until, until]),
            last_answer: Some(until),
            ..ServiceSeen::default()
        },
    );
    let mut decided = [0; Outcome::COUNT];
    decided[Outcome::Answered as usize] = 1;
    batch
        .hours
        .insert(hour_key(until, 1), HourCounts { begun: 1, decided });
    batch.unexpected.insert(
        UnexpectedId {
            from: "shop/client".to_owned(),
            to: "shop/server".to_owned(),
            protocol: 17,
            port: 53,
        },
        UnexpectedSeen {
            flows: 1,
            answered: 1,
            seen: [until, until],
            samples: vec![[address(1), address(2)]],
        },
    );
    batch
}

/// Flows of the service, of the hours and of the unexpected, as the file has them.
fn counted(path: &Path) -> [u64; 3] {
    let mut reader = Reader::open_read_only(path).unwrap();
    reader
        .read(|view| {
            let services = view.services()?.iter().map(|seen| seen.flows.begun).sum();
            let unexpected = view.unexpected()?.iter().map(|seen| seen.flows).sum();
            let mut hours = 0;
            view.each_hour(0..u64::MAX, |record| hours += record.counts.begun)?;
            Ok([services, hours, unexpected])
        })
        .unwrap()
}

fn integrity(path: &Path) -> String {
    Connection::open(path)
        .unwrap()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap()
}

#[test]
fn what_is_recorded_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(&folder.path().join("new"));
    assert!(matches!(
        Reader::open_read_only(&path),
        Err(ReadError::Missing { .. })
    ));
    let Opened { ledger, remembered } = open(&path);
    assert_eq!(remembered, Remembered::default());
    for number in 0..3 {
        ledger.record(batch(number));
    }
    let mut failed = batch(3);
    let failure = FailureSeen {
        failure: Failure {
            at: EPOCH + 5,
            outcome: Outcome::Prohibited,
            place: Some(Place::Hop(address(7))),
            told: true,
        },
        evidence: "ICMP 3/13".to_owned(),
    };
    failed.services.get_mut(&id("tcp/443")).unwrap().failure = Some(failure.clone());
    let gap = Gap {
        kind: GapKind::PacketsLost,
        from: EPOCH,
        to: EPOCH + SECOND,
        lost: 3,
    };
    failed.gaps.push(gap);
    ledger.record(failed);
    assert!(ledger.flush(LONG));
    let status = ledger.status();
    assert_eq!(
        (status.written_until, status.problem),
        (EPOCH + 3 * SECOND, None)
    );
    assert_eq!(
        status.bytes,
        fs::metadata(&path).unwrap().len() + log_size(&path)
    );
    // The same failure without words, and a gap that goes on.
    let mut again = batch(4);
    again.services.get_mut(&id("tcp/443")).unwrap().failure = Some(FailureSeen {
        evidence: String::new(),
        ..failure.clone()
    });
    again.gaps.push(Gap {
        from: gap.to,
        to: gap.to + SECOND,
        ..gap
    });
    ledger.record(again);
    drop(ledger);
    assert_eq!(counted(&path), [5; 3]);
    let mut reader = Reader::open_read_only(&path).unwrap();
    reader
        .read(|view| {
            let [service] = view.services()?.try_into().unwrap();
            assert_eq!(service.id, id("tcp/443"));
            assert_eq!(service.seen, Some([EPOCH, EPOCH + 4 * SECOND]));
            assert_eq!(service.last_answer, Some(EPOCH + 4 * SECOND));
            assert_eq!(service.failure, Some(failure));
            let [unexpected] = view.unexpected()?.try_into().unwrap();
            assert_eq!(unexpected.samples, [[address(1), address(2)]]);
            assert_eq!(unexpected.seen, [EPOCH, EPOCH + 4 * SECOND]);
            let mut hours = Vec::new();
            view.each_hour(0..u64::MAX, |record| hours.push(record))?;
            assert_eq!(hours.len(), 1);
            assert_eq!(hours[0].key, hour_key(EPOCH, 1));
            assert_eq!(hours[0].counts.decided[Outcome::Answered as usize], 5);
            view.each_hour(0..HourKey::hour_of(EPOCH), |record| panic!("{record:?}"))?;
            assert_eq!(
                view.gaps(0)?,
                [Gap {
                    to: gap.to + SECOND,
                    lost: 6,
                    ..gap
                }]
            );
            assert_eq!(view.gaps(EPOCH + 3 * SECOND)?, []);
            Ok(())
        })
        .unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

fn log_size(path: &Path) -> u64 {
    fs::metadata(beside(path, "-wal")).map_or(0, |metadata| metadata.len())
}

#[test]
fn windows_outlive_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let window = Duration::from_secs(86_400);
    let mut watch = Watch::begin(window, EPOCH);
    let mut service = ServiceWindow::new(Vantage::Clear);
    let mut now = EPOCH;
    let mut totals = Totals::default();
    let ledger = open(&path).ledger;
    for step in 0..50 {
        now += 600 * SECOND;
        if step == 40 {
            // Set back, which rewrites all buckets.
            now -= 3_600 * SECOND;
        }
        totals.flows.begun += 2;
        totals.flows.answered += 1;
        totals.flows.failed += 1;
        let failure = Some(Failure {
            at: now,
            outcome: Outcome::NoAnswer,
            place: Some(Place::Path),
            told: false,
        });
        let look = Look {
            elapsed: Duration::from_secs(600),
            ..Look::default()
        };
        let sample = Sample {
            totals,
            evidence: Evidence {
                last_attempt: Some(now),
                last_answer: Some(now - 1),
                last_failure: failure,
            },
            vantage: Vantage::Clear,
            needs_names: true,
        };
        let mut batch = Batch {
            until: now,
            gaps: watch.look(now, &look),
            watch: Some(watch.kept()),
            ..Batch::default()
        };
        let change = service.observe(now, &sample, &watch);
        let seen = ServiceSeen::of(&change, &service, "2 SYNs, no answer").unwrap();
        batch.services.insert(id("tcp/443"), seen);
        ledger.record(batch);
        if step % 7 == 0 {
            assert!(ledger.flush(LONG));
        }
    }
    drop(ledger);
    let remembered = open(&path).remembered;
    assert_eq!(remembered.watch, Some(watch.kept()));
    let [record] = remembered.services.try_into().unwrap();
    assert_eq!(record.window, service.kept());
    assert_eq!(record.flows, totals.flows);
    assert_eq!(record.failure.unwrap().evidence, "2 SYNs, no answer");
    let before = service.finding(now, &watch);
    assert_eq!(before.finding.state, State::Degraded);
    let (watch, gap) = Watch::resume(window, watch.kept(), now, Absence::Counted);
    let service = ServiceWindow::resume(record.window, Vantage::Clear, Absence::Counted);
    assert_eq!((service.finding(now, &watch), gap), (before, None));
}

/// Not a test by itself: what the next one kills. Writes batches, and says the number of each that is on the disk.
#[test]
fn child_that_is_killed() {
    let Some(path) = env::var_os("FLOWPROOF_TEST_LEDGER") else {
        return;
    };
    let Opened { ledger, remembered } = open(Path::new(&path));
    let mut number = remembered
        .services
        .first()
        .map_or(0, |service| service.flows.begun);
    loop {
        ledger.record(batch(number));
        number += 1;
        assert!(ledger.flush(LONG));
        println!("on disk: {number}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn killed_at_any_moment_the_last_batch_is_lost_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut before = 0;
    for round in 0..20 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "ledger::tests::child_that_is_killed",
                "--nocapture",
            ])
            .env("FLOWPROOF_TEST_LEDGER", &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = thread::spawn(move || {
            lines
                .map_while(Result::ok)
                // The test harness writes on the same line.
                .filter_map(|line| line.split("on disk: ").nth(1)?.parse::<u64>().ok())
                .last()
        });
        // Splitmix, so that the moments differ and a failure can be repeated.
        seed = seed.wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(round);
        thread::sleep(Duration::from_millis(30 + (seed >> 33) % 250));
        child.kill().unwrap();
        child.wait().unwrap();
        let told = reader.join().unwrap().unwrap_or(before);
        assert!(told >= before);
        // Reading does not need the daemon, nor a repair.
        if path.exists() && (before > 0 || told > 0) {
            let [services, hours, unexpected] = counted(&path);
            assert!(services == hours && hours == unexpected, "half a batch");
            assert!(
                services == told || services == told + 1,
                "{services} are on the disk, {told} were told"
            );
            before = services;
            assert_eq!(integrity(&path), "ok");
        }
        let Opened { ledger, .. } = open(&path);
        assert_eq!(
            ledger.status(),
            Status {
                bytes: ledger.status().bytes,
                ..Status::default()
            }
        );
    }
    assert!(before > 20, "{before}");
    assert!(!beside(&path, ".damaged").exists());
}

#[test]
fn readers_see_whole_batches_while_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let ledger = open(&path).ledger;
    ledger.record(batch(0));
    assert!(ledger.flush(LONG));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut last = 0;
                    let mut seen = 0;
                    while !done.load(Ordering::Relaxed) {
                        let [services, hours, unexpected] = counted(&path);
                        assert!(services == hours && hours == unexpected && services >= last);
                        seen += u64::from(services > last);
                        last = services;
                    }
                    seen
                })
            })
            .collect();
        for number in 1..100 {
            ledger.record(batch(number));
            assert!(ledger.flush(LONG));
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 2);
        }
    });
    assert_eq!(counted(&path), [100; 3]);
}

#[test]
fn damaged_files_are_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    for content in [
        b"no database at all, but long enough to be one if one does not look ".repeat(20),
        {
            drop(open(&path).ledger);
            let mut bytes = fs::read(&path).unwrap();
            bytes[100..4_096].fill(0x5a);
            bytes
        },
    ] {
        fs::write(&path, &content).unwrap();
        let Opened { ledger, remembered } = open(&path);
        assert_eq!(remembered, Remembered::default());
        assert_eq!(ledger.status().set_aside, 1);
        assert_eq!(fs::read(beside(&path, ".damaged")).unwrap(), content);
        ledger.record(batch(1));
        assert!(ledger.flush(LONG));
        drop(ledger);
        assert_eq!(counted(&path), [1; 3]);
        fs::remove_file(&path).unwrap();
    }
    // A text that means nothing is damage as well, and damage that is found late.
    let ledger = open(&path).ledger;
    ledger.record(batch(1));
    assert!(ledger.flush(LONG));
    let other = Connection::open(&path).unwrap();
    other.execute("DROP TABLE flow_hours", []).unwrap();
    drop(other);
    ledger.record(batch(2));
    assert!(ledger.flush(LONG), "{:?}", ledger.status());
    assert_eq!(ledger.status().set_aside, 1);
    drop(ledger);
    assert_eq!(counted(&path), [1; 3]);
    let other = Connection::open(&path).unwrap();
    let broken = "UPDATE services SET failure_time = 1, failure_outcome = 'vanished'";
    other.execute(broken, []).unwrap();
    drop(other);
    let error = Reader::open_read_only(&path)
        .unwrap()
        .read(|view| view.services())
        .unwrap_err();
    assert!(error.to_string().contains("sets it aside"), "{error}");
    assert_eq!(open(&path).ledger.status().set_aside, 1);
}

#[test]
fn what_is_not_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let connection = Connection::open(&path).unwrap();
    connection.execute("CREATE TABLE x (y)", []).unwrap();
    drop(connection);
    let error = Ledger::open(&path, quick()).unwrap_err().to_string();
    assert!(error.contains("another program"), "{error}");
    let error = Reader::open_read_only(&path).unwrap_err().to_string();
    assert!(error.contains("another program"), "{error}");
    fs::remove_file(&path).unwrap();
    drop(open(&path).ledger);
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let before = fs::read(&path).unwrap();
    let error = Ledger::open(&path, quick()).unwrap_err().to_string();
    assert!(
        error.contains("newer flowproof (schema 99, this one knows 1)"),
        "{error}"
    );
    let error = Reader::open_read_only(&path).unwrap_err().to_string();
    assert!(error.contains("run that version"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn older_files_are_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let mut store = Store::open(&path, quick(), STEPS).unwrap();
    store.write(&batch(1)).unwrap();
    drop(store);
    let mut steps = STEPS.to_vec();
    steps.push("ALTER TABLE services ADD COLUMN probed INTEGER NOT NULL DEFAULT 7");
    // Whatever is wrong in a step, nothing of it is left.
    let mut broken = steps.clone();
    broken.push("CREATE TABLE half (x); CREATE TABLE half (x);");
    let mut connection = Connection::open(&path).unwrap();
    migrate(&mut connection, &broken).unwrap_err();
    let version = |connection: &Connection| -> i64 {
        connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(version(&connection), 2);
    let half: i64 = connection
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE name = 'half'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(half, 0);
    drop(connection);
    let mut store = Store::open(&path, quick(), &steps).unwrap();
    store.write(&batch(2)).unwrap();
    let [service] = store.load().unwrap().services.try_into().unwrap();
    assert_eq!(service.flows.begun, 2);
    drop(store);
    let connection = Connection::open(&path).unwrap();
    let probed: i64 = connection
        .query_row("SELECT probed FROM services", [], |row| row.get(0))
        .unwrap();
    assert_eq!((probed, version(&connection)), (7, 2));
    // This version, which knows one step, does not touch it.
    Ledger::open(&path, quick()).unwrap_err();
    connection.pragma_update(None, "user_version", 0).unwrap();
    let error = Reader::open_read_only(&path).unwrap_err().to_string();
    assert!(error.contains("start `flowproof run` once"), "{error}");
}

/// `flows` different flows of one hour.
fn crowd(time: u64, flows: u32) -> Batch {
    let mut batch = Batch {
        until: time,
        ..Batch::default()
    };
    for number in 0..flows {
        let counts = HourCounts {
            begun: 1,
            ..HourCounts::default()
        };
        batch.hours.insert(hour_key(time, number), counts);
    }
    batch
}

fn hours(path: &Path) -> Vec<u64> {
    let mut hours = Vec::new();
    Reader::open_read_only(path)
        .unwrap()
        .read(|view| view.each_hour(0..u64::MAX, |record| hours.push(record.key.hour)))
        .unwrap();
    hours.dedup();
    hours
}

#[test]
fn what_is_old_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let limits = Limits {
        retention: Duration::from_secs(2 * 86_400),
        ..quick()
    };
    let mut store = Store::open(&path, limits, STEPS).unwrap();
    for day in 0..5 {
        let mut batch = crowd(EPOCH + day * DAY, 10);
        batch.gaps.push(Gap {
            kind: GapKind::Blind,
            from: batch.until,
            to: batch.until + 1,
            lost: 0,
        });
        batch.services = super::tests::batch(day).services;
        store.write(&batch).unwrap();
    }
    let first = HourKey::hour_of(EPOCH);
    assert_eq!(hours(&path), [first + 48, first + 72, first + 96]);
    let mut reader = Reader::open_read_only(&path).unwrap();
    assert_eq!(reader.read(|view| view.gaps(0)).unwrap().len(), 3);
    // What was ever seen of a row is no record of a flow.
    let services = reader.read(|view| view.services()).unwrap();
    assert_eq!(services[0].seen.unwrap()[0], EPOCH);
}

#[test]
fn the_size_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let limits = Limits {
        max_size: 8 << 20,
        ..quick()
    };
    let mut store = Store::open(&path, limits, STEPS).unwrap();
    let mut most = 0;
    let mut batch_size = 0;
    for hour in 0..60 {
        let before = store.size();
        let mut batch = crowd(EPOCH + hour * 3_600 * SECOND, 3_000);
        batch.services = super::tests::batch(hour).services;
        store.write(&batch).unwrap();
        if hour == 0 {
            batch_size = store.size() - before;
        }
        most = most.max(store.size());
    }
    assert!(most > 6 << 20, "the bound was never met: {most}");
    assert!(most <= (8 << 20) + batch_size, "{most} {batch_size}");
    let left = hours(&path);
    let last = HourKey::hour_of(EPOCH) + 59;
    assert_eq!(left.last(), Some(&last));
    assert!(left.len() > 5 && left.len() < 40, "{left:?}");
    assert_eq!(integrity(&path), "ok");
    // A file that is too large for a new bound is given back to the disk.
    drop(store);
    let limits = Limits {
        max_size: 4 << 20,
        ..limits
    };
    let mut store = Store::open(&path, limits, STEPS).unwrap();
    store.write(&crowd(EPOCH + 60 * 3_600 * SECOND, 1)).unwrap();
    assert!(store.size() <= 4 << 20, "{}", store.size());
    let services = store.load().unwrap().services;
    assert_eq!(services[0].flows.begun, 60);
}

#[test]
fn a_reader_that_stays_does_not_fill_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(folder.path());
    let limits = Limits {
        max_size: 8 << 20,
        ..quick()
    };
    let ledger = Ledger::open(&path, limits).unwrap().ledger;
    ledger.record(batch(0));
    assert!(ledger.flush(LONG));
    let mut reader = Reader::open_read_only(&path).unwrap();
    let mut most = 0;
    reader
        .read(|view| {
            assert_eq!(view.services()?[0].flows.begun, 1);
            for hour in 1..30 {
                ledger.record(crowd(EPOCH + hour * 3_600 * SECOND, 2_000));
                let _ = ledger.flush(LONG);
                most = most.max(fs::metadata(&path).unwrap().len() + log_size(&path));
                if ledger.status().problem.is_some() {
                    break;
                }
            }
            // Still the same moment.
            assert_eq!(view.services()?[0].flows.begun, 1);
            Ok(())
        })
        .unwrap();
    let problem = ledger.status().problem.unwrap();
    assert!(
        problem.contains("reading the ledger for too long"),
        "{problem}"
    );
    assert!(most <= 8 << 20, "{most}");
    assert!(ledger.flush(LONG));
    assert_eq!(ledger.status().problem, None);
}

/// Runs `test` on a thread that sees a file system of its own at a folder, of `size` bytes.
fn on_small_disk(name: &'static str, size: &'static str, test: fn(&Path)) {
    if !nix::unistd::geteuid().is_root() {
        flowproof_tests::skip::skip(name, "mounting a small disk needs root");
        return;
    }
    let run = move || {
        use nix::mount::{MsFlags, mount, umount};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (kind, options) = (Some("tmpfs"), format!("size={size}"));
        mount(
            kind,
            folder.path(),
            kind,
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap();
        test(folder.path());
        umount(folder.path()).unwrap();
    };
    thread::spawn(run).join().unwrap();
}

fn wait_for(what: &str, mut until: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !until() {
        assert!(begin.elapsed() < LONG, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_disk_costs_nothing_but_time() {
    on_small_disk(
        "ledger::tests::a_full_disk_costs_nothing_but_time",
        "2m",
        |disk| {
            let path = path(disk);
            let ledger = open(&path).ledger;
            ledger.record(batch(0));
            assert!(ledger.flush(LONG));
            let filler = disk.join("filler");
            let mut file = File::create(&filler).unwrap();
            while file.write_all(&[0; 4_096]).is_ok() {}
            let mut number = 1;
            wait_for("the disk is not full", || {
                ledger.record(batch(number));
                ledger.record(crowd(EPOCH, 500));
                number += 1;
                !ledger.flush(LONG)
            });
            assert!(ledger.status().problem.unwrap().contains("full"));
            // What is on the disk can still be read, and is whole.
            let [services, _, unexpected] = counted(&path);
            assert!(services == unexpected && services < number);
            for _ in 0..50 {
                ledger.record(batch(number));
                number += 1;
            }
            drop(file);
            fs::remove_file(&filler).unwrap();
            wait_for("it is never written again", || ledger.flush(LONG));
            let status = ledger.status();
            assert_eq!((status.problem, status.dropped), (None, 0));
            drop(ledger);
            let [services, _, unexpected] = counted(&path);
            assert_eq!([services, unexpected], [number; 2]);
            assert_eq!(integrity(&path), "ok");
        },
    );
}

#[test]
fn a_read_only_disk_costs_nothing_but_time() {
    on_small_disk(
        "ledger::tests::a_read_only_disk_costs_nothing_but_time",
        "8m",
        |disk| {
            use nix::mount::{MsFlags, mount};
            let remount = |flags: MsFlags| {
                let none = None::<&str>;
                mount(none, disk, none, MsFlags::MS_REMOUNT | flags, none)
            };
            let path = path(disk);
            // From the start, without a file.
            remount(MsFlags::MS_RDONLY).unwrap();
            let ledger = open(&path).ledger;
            assert!(ledger.status().problem.is_some());
            ledger.record(batch(0));
            assert!(!ledger.flush(LONG));
            remount(MsFlags::empty()).unwrap();
            wait_for("it is never written", || ledger.flush(LONG));
            drop(ledger);
            assert_eq!(counted(&path), [1; 3]);
            // From the start, with a file: it can be read, and what it holds stays.
            remount(MsFlags::MS_RDONLY).unwrap();
            assert_eq!(counted(&path), [1; 3]);
            let Opened { ledger, remembered } = open(&path);
            assert_eq!(remembered.services[0].flows.begun, 1);
            ledger.record(batch(1));
            assert!(!ledger.flush(LONG));
            remount(MsFlags::empty()).unwrap();
            wait_for("it is never written", || ledger.flush(LONG));
            drop(ledger);
            assert_eq!(counted(&path), [2; 3]);
        },
    );
}
