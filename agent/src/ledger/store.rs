//! The file: opening, writing a batch, keeping it within its bounds.
//!
//! The journal is a write-ahead log, so that readers and the writer don't wait for each other and a transaction that was
//! cut short is as if it never began. `synchronous` is `FULL`, one `fsync` a batch: `NORMAL` would do for `kill -9`, and
//! would lose all since the last checkpoint when the power fails; every few seconds on a thread of its own it costs
//! nothing that anybody waits for.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior,
    params,
};

use super::batch::{
    Batch, HourKey, ServiceId, ServiceSeen, UnexpectedId, UnexpectedSeen, WindowUpdate, add_samples,
};
use super::migrate::{self, Kind};
use super::reader::{DECIDED, ServiceRecord, View};
use super::rows::{bytes, int, maybe, read_samples, write_samples};
use super::{LedgerError, Limits};
use crate::verdict::requirement::Vantage;
use crate::verdict::window::{Gap, KeptWatch};

/// How long the writer waits for another process's lock.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a page: SQLite's default, and the memory's.
const PAGE: u64 = 4_096;
/// Rows that go in one transaction when the file is too large.
const DELETED_AT_ONCE: i64 = 20_000;
/// Only its owner writes it, its group may read: it says who talks to whom.
const MODE: u32 = 0o640;

/// Why the file can't be used just now.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It is not ours to touch.
    Refused(LedgerError),
    /// It is damaged.
    Damaged(String),
    /// The disk, or somebody else's lock.
    Disk(String),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        // Of errors in statements only a missing table or column: a slip of ours is no reason to set anything aside.
        let missing = |message: &str| message.starts_with("no such");
        let damaged = if let rusqlite::Error::SqliteFailure(code, message) = &error {
            matches!(
                code.code,
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase
            ) || (code.code == ErrorCode::Unknown && message.as_deref().is_some_and(missing))
        } else if let rusqlite::Error::SqlInputError { msg, .. } = &error {
            missing(msg)
        } else {
            // The file is whole for SQLite, and what is in it is not what was written.
            matches!(
                error,
                rusqlite::Error::FromSqlConversionFailure(..)
                    | rusqlite::Error::InvalidColumnType(..)
            )
        };
        if damaged {
            Self::Damaged(text)
        } else {
            Self::Disk(text)
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

/// The file beside `path` whose name has `suffix` besides.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn size_of_file(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Renames a damaged file, in place of one that was set aside before, so that these don't fill the disk.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = beside(path, ".damaged");
    for suffix in ["-wal", "-shm"] {
        match fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Unexpected services that are remembered at most.
const MOST_REMEMBERED: u32 = 4_096;

/// What a ledger remembers of the time before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remembered {
    /// How well was watched, and until when; nothing if this is the first time.
    pub watch: Option<KeptWatch>,
    /// Services of any matrix there was.
    pub services: Vec<ServiceRecord>,
    /// Unexpected services, the one that was seen last first; the newest only.
    pub unexpected: Vec<UnexpectedId>,
}

impl Remembered {
    /// All that a ledger remembers.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn of(view: &View<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            watch: view.watch()?,
            services: view.services()?,
            unexpected: view.newest_unexpected(MOST_REMEMBERED)?,
        })
    }
}

/// A ledger that is open for writing.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    path: PathBuf,
    limits: Limits,
}

impl Store {
    /// Opens the file, makes it if there is none, and brings it up to date.
    pub(super) fn open(path: &Path, limits: Limits, steps: &[&str]) -> Result<Self, Trouble> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // SQLite would let everybody read it. The files beside it get the same mode.
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(path);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        // The daemon can write in its state directory only, and SQLite would look for room in /var/tmp.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        let known = int(steps.len() as u64);
        match migrate::kind(&connection)? {
            // Only works before the first table is made.
            Kind::Empty => connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?,
            Kind::Ledger(found) if found > known => {
                return Err(Trouble::Refused(LedgerError::Newer {
                    path: path.to_owned(),
                    found,
                    known,
                }));
            }
            Kind::Ledger(_) => {}
            Kind::Foreign => {
                return Err(Trouble::Refused(LedgerError::Foreign {
                    path: path.to_owned(),
                }));
            }
        }
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(Trouble::Disk(format!(
                "the file system can't share memory between processes (journal mode {mode})"
            )));
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        let checkpoint = (limits.log() / 2 / PAGE).max(1);
        connection.pragma_update(None, "wal_autocheckpoint", int(checkpoint))?;
        connection.pragma_update(None, "journal_size_limit", int(limits.log()))?;
        migrate::migrate(&mut connection, steps)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            limits,
        })
    }

    /// What is in it.
    pub(super) fn load(&self) -> Result<Remembered, Trouble> {
        let view = View {
            connection: &self.connection,
        };
        Ok(Remembered::of(&view)?)
    }

    /// Bytes of the file and its log.
    pub(super) fn size(&self) -> u64 {
        size_of_file(&self.path) + self.log_size()
    }

    fn log_size(&self) -> u64 {
        size_of_file(&beside(&self.path, "-wal"))
    }

    /// Writes a batch, all of it or nothing.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), Trouble> {
        // A reader that stays keeps the log from being folded in; then memory is the better place to grow.
        if self.log_size() > 2 * self.limits.log() {
            self.fold_in()?;
            if self.log_size() > 2 * self.limits.log() {
                return Err(Trouble::Disk(
                    "a process has been reading the ledger for too long; end it".to_owned(),
                ));
            }
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        forget(&transaction, batch.until, self.limits.retention)?;
        write_watch(&transaction, batch)?;
        let window = batch.until.saturating_sub(nanos(self.limits.window));
        write_services(&transaction, batch, window)?;
        write_unexpected(&transaction, batch)?;
        write_hours(&transaction, batch)?;
        transaction.commit()?;
        // Only what is folded in makes the file shorter.
        if self.shrink()? || self.log_size() > self.limits.log() {
            self.fold_in()?;
        }
        Ok(())
    }

    /// Folds the log into the file as far as readers allow.
    fn fold_in(&self) -> rusqlite::Result<()> {
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }

    fn number(&self, pragma: &str) -> rusqlite::Result<u64> {
        self.connection
            .query_row(pragma, [], |row| row.get::<_, i64>(0))
            .map(|number| u64::try_from(number).unwrap_or(0))
    }

    /// Deletes the oldest until the file is within its bound, and gives pages back. Gives whether there were any.
    fn shrink(&mut self) -> rusqlite::Result<bool> {
        let mut gave_back = false;
        let most = self.limits.file() / PAGE;
        loop {
            let free = self.number("PRAGMA freelist_count")?;
            let pages = self.number("PRAGMA page_count")?;
            if pages.saturating_sub(free) > most && self.delete_oldest()? > 0 {
                continue;
            }
            let excess = pages.saturating_sub(most).min(free);
            if excess == 0 {
                return Ok(gave_back);
            }
            // In parts that the log has room for.
            let part = excess.min(self.limits.log() / 2 / PAGE);
            let mut statement = self
                .connection
                .prepare(&format!("PRAGMA incremental_vacuum({part})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            drop(rows);
            drop(statement);
            if self.number("PRAGMA page_count")? >= pages {
                return Ok(gave_back);
            }
            gave_back = true;
        }
    }

    /// Deletes some of the oldest of what there is most of. Services stay: the matrix bounds them.
    fn delete_oldest(&self) -> rusqlite::Result<usize> {
        for table in [
            "DELETE FROM flow_hours WHERE (hour, initiator, responder, protocol, port, verdict, names) IN \
             (SELECT hour, initiator, responder, protocol, port, verdict, names FROM flow_hours \
             ORDER BY hour, initiator, responder, protocol, port, verdict, names LIMIT ?)",
            "DELETE FROM unexpected WHERE (from_roles, to_roles, protocol, port) IN \
             (SELECT from_roles, to_roles, protocol, port FROM unexpected ORDER BY last_seen LIMIT ?)",
            "DELETE FROM gaps WHERE id IN (SELECT id FROM gaps ORDER BY ends LIMIT ?)",
        ] {
            let deleted = self.connection.execute(table, [DELETED_AT_ONCE])?;
            if deleted > 0 {
                return Ok(deleted);
            }
        }
        Ok(0)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Deletes what is kept for long enough.
fn forget(transaction: &Transaction<'_>, until: u64, retention: Duration) -> rusqlite::Result<()> {
    let since = until.saturating_sub(nanos(retention));
    transaction.execute(
        "DELETE FROM flow_hours WHERE hour < ?",
        [int(HourKey::hour_of(since))],
    )?;
    transaction.execute("DELETE FROM gaps WHERE ends < ?", [int(since)])?;
    Ok(())
}

fn write_watch(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<()> {
    if let Some(watch) = &batch.watch {
        transaction.execute(
            "INSERT OR REPLACE INTO watch (only, until, window, last_packets_lost, last_names_lost, last_blind, packets_lost, \
             names_lost, blind) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                int(watch.until),
                int(watch.window),
                maybe(watch.last_packets_lost),
                maybe(watch.last_names_lost),
                maybe(watch.last_blind),
                int(watch.counted.packets),
                int(watch.counted.names),
                watch.blind,
            ],
        )?;
    }
    for gap in &batch.gaps {
        write_gap(transaction, gap)?;
    }
    Ok(())
}

/// One that goes on prolongs the one before.
fn write_gap(transaction: &Transaction<'_>, gap: &Gap) -> rusqlite::Result<()> {
    let before: Option<i64> = transaction
        .query_row(
            "SELECT id FROM gaps WHERE kind = ? AND ends >= ? AND starts <= ? ORDER BY id DESC LIMIT 1",
            params![gap.kind.name(), int(gap.from), int(gap.from)],
            |row| row.get(0),
        )
        .optional()?;
    match before {
        Some(id) => transaction.execute(
            "UPDATE gaps SET ends = max(ends, ?), lost = lost + ? WHERE id = ?",
            params![int(gap.to), int(gap.lost), id],
        )?,
        None => transaction.execute(
            "INSERT INTO gaps (kind, starts, ends, lost) VALUES (?, ?, ?, ?)",
            params![gap.kind.name(), int(gap.from), int(gap.to), int(gap.lost)],
        )?,
    };
    Ok(())
}

fn write_services(
    transaction: &Transaction<'_>,
    batch: &Batch,
    window: u64,
) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare(
        "INSERT INTO services (system, requirement, service, first_seen, last_seen, begun, answered, failed, one_way, \
         last_answer) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (system, requirement, service) DO UPDATE SET \
         first_seen = min(ifnull(first_seen, excluded.first_seen), ifnull(excluded.first_seen, first_seen)), \
         last_seen = max(ifnull(last_seen, excluded.last_seen), ifnull(excluded.last_seen, last_seen)), \
         begun = begun + excluded.begun, answered = answered + excluded.answered, \
         failed = failed + excluded.failed, one_way = one_way + excluded.one_way, \
         last_answer = max(ifnull(last_answer, excluded.last_answer), ifnull(excluded.last_answer, last_answer)) \
         RETURNING id",
    )?;
    // The words that a failure is known by stay if only its time is told anew.
    let mut failure = transaction.prepare(
        "UPDATE services SET failure_evidence = CASE WHEN ?5 = '' AND failure_outcome = ?2 \
         THEN failure_evidence ELSE ?5 END, failure_time = ?1, failure_outcome = ?2, failure_place = ?3, \
         failure_told = ?4 WHERE id = ?6 AND ifnull(failure_time, 0) <= ?1",
    )?;
    for (id, seen) in &batch.services {
        let ServiceId {
            system,
            requirement,
            service,
        } = id;
        let number: i64 = upsert.query_row(
            params![
                system,
                requirement,
                service,
                maybe(seen.seen.map(|[first, _]| first)),
                maybe(seen.seen.map(|[_, last]| last)),
                int(seen.flows.begun),
                int(seen.flows.answered),
                int(seen.flows.failed),
                int(seen.flows.one_way),
                maybe(seen.last_answer),
            ],
            |row| row.get(0),
        )?;
        write_failure(&mut failure, number, seen)?;
        if let Some(update) = &seen.window {
            write_window(transaction, number, update, window)?;
        }
    }
    Ok(())
}

fn write_failure(
    statement: &mut rusqlite::Statement<'_>,
    service: i64,
    seen: &ServiceSeen,
) -> rusqlite::Result<()> {
    if let Some(seen) = &seen.failure {
        statement.execute(params![
            int(seen.failure.at),
            seen.failure.outcome.name(),
            seen.failure.place.map(|place| place.to_string()),
            seen.failure.told,
            seen.evidence,
            service,
        ])?;
    }
    Ok(())
}

fn write_window(
    transaction: &Transaction<'_>,
    service: i64,
    update: &WindowUpdate,
    window: u64,
) -> rusqlite::Result<()> {
    let head = &update.head;
    let failure = head.evidence.last_failure;
    transaction.execute(
        "INSERT OR REPLACE INTO windows (service, begins, last_blind, last_lossy, counted_begun, counted_answered, \
         counted_failed, counted_one_way, counted_replies, last_attempt, last_answer, failure_time, failure_outcome, \
         failure_place, failure_told, needs_names, vantage, state, state_since) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            service,
            maybe(head.begins),
            maybe(head.last_blind),
            maybe(head.last_lossy),
            int(head.counted.flows.begun),
            int(head.counted.flows.answered),
            int(head.counted.flows.failed),
            int(head.counted.flows.one_way),
            int(head.counted.replies),
            maybe(head.evidence.last_attempt),
            maybe(head.evidence.last_answer),
            maybe(failure.map(|failure| failure.at)),
            failure.map(|failure| failure.outcome.name()),
            failure.and_then(|failure| failure.place).map(|place| place.to_string()),
            failure.map(|failure| failure.told),
            head.needs_names,
            head.vantage.map(Vantage::name),
            head.standing.map(|(state, _)| state.name()),
            maybe(head.standing.map(|(_, since)| since)),
        ],
    )?;
    if update.rewritten {
        transaction.execute("DELETE FROM window_buckets WHERE service = ?", [service])?;
    } else {
        transaction.execute(
            "DELETE FROM window_buckets WHERE service = ?1 AND starts < ?2 AND ends < ?2",
            params![service, int(window)],
        )?;
    }
    let mut insert = transaction.prepare(
        "INSERT OR REPLACE INTO window_buckets (service, starts, ends, begun, answered, failed, one_way) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    for bucket in update.buckets.values() {
        insert.execute(params![
            service,
            int(bucket.starts),
            int(bucket.ends),
            int(bucket.counts.begun),
            int(bucket.counts.answered),
            int(bucket.counts.failed),
            int(bucket.counts.one_way),
        ])?;
    }
    Ok(())
}

fn write_unexpected(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<()> {
    let mut known = transaction.prepare(
        "SELECT samples FROM unexpected WHERE from_roles = ? AND to_roles = ? AND protocol = ? AND port = ?",
    )?;
    let mut upsert = transaction.prepare(
        "INSERT INTO unexpected (from_roles, to_roles, protocol, port, first_seen, last_seen, flows, answered, samples) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (from_roles, to_roles, protocol, port) DO UPDATE SET \
         first_seen = min(first_seen, excluded.first_seen), last_seen = max(last_seen, excluded.last_seen), \
         flows = flows + excluded.flows, answered = answered + excluded.answered, samples = excluded.samples",
    )?;
    for (id, seen) in &batch.unexpected {
        let UnexpectedId {
            from,
            to,
            protocol,
            port,
        } = id;
        let UnexpectedSeen {
            flows,
            answered,
            seen: [first, last],
            samples: newer,
        } = seen;
        let stored: Option<String> = known
            .query_row(params![from, to, protocol, port], |row| row.get(0))
            .optional()?;
        let mut samples = stored.map_or_else(Vec::new, |text| read_samples(&text));
        add_samples(&mut samples, newer);
        upsert.execute(params![
            from,
            to,
            protocol,
            port,
            int(*first),
            int(*last),
            int(*flows),
            int(*answered),
            write_samples(&samples),
        ])?;
    }
    Ok(())
}

fn write_hours(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare(
        "INSERT INTO flow_hours (hour, initiator, responder, protocol, port, verdict, names, begun, undecided, answered, \
         refused, prohibited, unreachable, no_answer, dropped_here, one_way) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (hour, initiator, responder, protocol, port, verdict, names) DO UPDATE SET \
         begun = begun + excluded.begun, undecided = undecided + excluded.undecided, \
         answered = answered + excluded.answered, refused = refused + excluded.refused, \
         prohibited = prohibited + excluded.prohibited, unreachable = unreachable + excluded.unreachable, \
         no_answer = no_answer + excluded.no_answer, dropped_here = dropped_here + excluded.dropped_here, \
         one_way = one_way + excluded.one_way",
    )?;
    for (key, counts) in &batch.hours {
        let [
            undecided,
            answered,
            refused,
            prohibited,
            unreachable,
            no_answer,
            dropped_here,
            one_way,
        ] = DECIDED.map(|outcome| int(counts.decided[outcome as usize]));
        upsert.execute(params![
            int(key.hour),
            bytes(key.initiator),
            bytes(key.responder),
            key.protocol,
            key.port,
            key.verdict.name(),
            key.names,
            int(counts.begun),
            undecided,
            answered,
            refused,
            prohibited,
            unreachable,
            no_answer,
            dropped_here,
            one_way,
        ])?;
    }
    Ok(())
}
