//! Reading a ledger, also while a daemon writes it: `report`, `suggest`, `diff`. Nothing here ever writes.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowproof_common::address::Address;
use flowproof_common::state::Outcome;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};

use super::batch::{FailureSeen, HourCounts, HourKey, ServiceId, UnexpectedId};
use super::migrate::{self, Kind, STEPS};
use super::rows::{Columns, int, read_samples};
use super::{LedgerError, store};
use crate::verdict::requirement::State;
use crate::verdict::vantage::LossTotals;
use crate::verdict::window::{Bucket, Counts, Evidence, Gap, KeptService, KeptWatch, Totals};

/// How long a reader waits for a lock; a writer holds one only for moments.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a ledger can't be read, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none.
    #[error(
        "{}: no ledger; `flowproof run` keeps one in its state directory (`state_directory` or --state-dir)",
        path.display()
    )]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// It is none of this version's.
    #[error(transparent)]
    Unusable(#[from] LedgerError),
    /// It was written by an older version, and no daemon of this one has opened it yet.
    #[error(
        "{}: written by an older flowproof (schema {found}, this one reads {known}); start `flowproof run` once, which brings it up to date",
        path.display()
    )]
    Older {
        /// Which file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The schema that is read here.
        known: i64,
    },
    /// It can't be opened.
    #[error(
        "{}: can't be opened; reading needs permission to read the file and, while a daemon writes it, the files beside it that end in -wal and -shm",
        path.display()
    )]
    Open {
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// It can't be read to its end.
    #[error("{}: can't be read; if it is damaged, the next `flowproof run` sets it aside and begins a new one", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// A ledger that is open for reading.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

/// What is known of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRecord {
    /// Which.
    pub id: ServiceId,
    /// First and last time that a flow was seen, nanoseconds since the Unix epoch.
    pub seen: Option<[u64; 2]>,
    /// Flows since it was first seen, over all restarts.
    pub flows: Counts,
    /// When one was answered last.
    pub last_answer: Option<u64>,
    /// The last failure.
    pub failure: Option<FailureSeen>,
    /// What its state over the window is told from.
    pub window: KeptService,
}

/// What is known of an unexpected service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnexpectedRecord {
    /// Which.
    pub id: UnexpectedId,
    /// First and last time, nanoseconds since the Unix epoch.
    pub seen: [u64; 2],
    /// Flows.
    pub flows: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Some initiators and responders, the newest last.
    pub samples: Vec<[Address; 2]>,
}

/// Flows of an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HourRecord {
    /// Which.
    pub key: HourKey,
    /// How many.
    pub counts: HourCounts,
}

impl Reader {
    /// Opens a ledger, whether a daemon writes it or not.
    ///
    /// # Errors
    /// [`ReadError`] says what to do.
    pub fn open_read_only(path: &Path) -> Result<Self, ReadError> {
        // What may not be looked at may be there: opening it says what is missing.
        if matches!(path.try_exists(), Ok(false)) {
            return Err(ReadError::Missing {
                path: path.to_owned(),
            });
        }
        let open = |source: rusqlite::Error| {
            let damaged = matches!(
                source.sqlite_error_code(),
                Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
            );
            let path = path.to_owned();
            if damaged {
                ReadError::Read { path, source }
            } else {
                ReadError::Open { path, source }
            }
        };
        let (connection, kind) = match Self::connect(path, false) {
            // Nobody writes it and nothing may be written beside it, such as on a disk that is mounted read-only: then
            // no lock is needed. With a log beside it, a part of the evidence would be missing.
            Err(rusqlite::Error::SqliteFailure(error, _))
                if matches!(error.code, ErrorCode::CannotOpen | ErrorCode::ReadOnly)
                    && !store::beside(path, "-wal").exists() =>
            {
                Self::connect(path, true)
            }
            connected => connected,
        }
        .map_err(open)?;
        let known = int(STEPS.len() as u64);
        let path = path.to_owned();
        match kind {
            Kind::Ledger(found) if found == known => Ok(Self { connection, path }),
            Kind::Ledger(found) if found < known => Err(ReadError::Older { path, found, known }),
            Kind::Ledger(found) => Err(LedgerError::Newer { path, found, known }.into()),
            Kind::Empty => Err(ReadError::Missing { path }),
            Kind::Foreign => Err(LedgerError::Foreign { path }.into()),
        }
    }

    fn connect(path: &Path, immutable: bool) -> rusqlite::Result<(Connection, Kind)> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = if immutable {
            let escaped = path
                .to_string_lossy()
                .replace('%', "%25")
                .replace('?', "%3f")
                .replace('#', "%23");
            Connection::open_with_flags(
                format!("file:{escaped}?immutable=1"),
                flags | OpenFlags::SQLITE_OPEN_URI,
            )?
        } else {
            Connection::open_with_flags(path, flags)?
        };
        connection.busy_timeout(PATIENCE)?;
        let kind = migrate::kind(&connection)?;
        Ok((connection, kind))
    }

    /// Hands `read` a view of one moment, whatever is written meanwhile. Short is better: as long as it lasts, the
    /// writer's log grows.
    ///
    /// # Errors
    /// Of `read`, and of opening the view.
    pub fn read<T>(
        &mut self,
        read: impl FnOnce(&View<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        let path = &self.path;
        let failed = |source| ReadError::Read {
            path: path.clone(),
            source,
        };
        let transaction = self.connection.transaction().map_err(failed)?;
        read(&View {
            connection: &transaction,
        })
        .map_err(failed)
    }
}

/// A ledger at one moment.
#[derive(Debug)]
pub struct View<'a> {
    pub(super) connection: &'a Connection,
}

impl View<'_> {
    /// Until when and how well was watched; nothing of a ledger that was never written.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn watch(&self) -> rusqlite::Result<Option<KeptWatch>> {
        self.connection
            .query_row(
                "SELECT until, window, last_packets_lost, last_names_lost, last_blind, packets_lost, names_lost, blind FROM watch",
                [],
                |row| {
                    let mut columns = Columns::of(row);
                    Ok(KeptWatch {
                        until: columns.uint()?,
                        window: columns.uint()?,
                        last_packets_lost: columns.time()?,
                        last_names_lost: columns.time()?,
                        last_blind: columns.time()?,
                        counted: LossTotals {
                            packets: columns.uint()?,
                            names: columns.uint()?,
                        },
                        blind: columns.flag()?,
                    })
                },
            )
            .optional()
    }

    /// Stretches of time that end after `since`, in which silence proves nothing, oldest first.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn gaps(&self, since: u64) -> rusqlite::Result<Vec<Gap>> {
        let mut statement = self.connection.prepare(
            "SELECT kind, starts, ends, lost FROM gaps WHERE ends >= ? ORDER BY starts, id",
        )?;
        let rows = statement.query_map([int(since)], |row| {
            let mut columns = Columns::of(row);
            Ok(Gap {
                kind: columns.gap_kind()?,
                from: columns.uint()?,
                to: columns.uint()?,
                lost: columns.uint()?,
            })
        })?;
        rows.collect()
    }

    /// All services that a matrix ever had, by their names.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn services(&self) -> rusqlite::Result<Vec<ServiceRecord>> {
        let mut buckets = self.buckets()?;
        let mut statement = self.connection.prepare(
            "SELECT id, system, requirement, s.service, first_seen, last_seen, begun, answered, failed, one_way, \
             s.last_answer, s.failure_time, s.failure_outcome, s.failure_place, s.failure_told, failure_evidence, \
             begins, last_blind, last_lossy, counted_begun, counted_answered, counted_failed, counted_one_way, \
             counted_replies, last_attempt, w.last_answer, w.failure_time, w.failure_outcome, w.failure_place, \
             w.failure_told, needs_names, vantage, state, state_since \
             FROM services s LEFT JOIN windows w ON w.service = s.id ORDER BY system, requirement, s.service",
        )?;
        let rows = statement.query_map([], |row| {
            let mut columns = Columns::of(row);
            let number = columns.uint()?;
            let id = ServiceId {
                system: columns.text()?,
                requirement: columns.text()?,
                service: columns.text()?,
            };
            let (first, last) = (columns.time()?, columns.time()?);
            let flows = counts(&mut columns)?;
            let last_answer = columns.time()?;
            let failure = columns.failure()?;
            let evidence = columns.maybe_text()?;
            let window = window(&mut columns, buckets.remove(&number).unwrap_or_default())?;
            Ok(ServiceRecord {
                id,
                seen: first.zip(last).map(|(first, last)| [first, last]),
                flows,
                last_answer,
                failure: failure.map(|failure| FailureSeen {
                    failure,
                    evidence: evidence.unwrap_or_default(),
                }),
                window,
            })
        })?;
        rows.collect()
    }

    fn buckets(&self) -> rusqlite::Result<HashMap<u64, Vec<Bucket>>> {
        let mut buckets: HashMap<u64, Vec<Bucket>> = HashMap::new();
        let mut statement = self.connection.prepare(
            "SELECT service, starts, ends, begun, answered, failed, one_way FROM window_buckets ORDER BY service, starts",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut columns = Columns::of(row);
            buckets.entry(columns.uint()?).or_default().push(Bucket {
                starts: columns.uint()?,
                ends: columns.uint()?,
                counts: counts(&mut columns)?,
            });
        }
        Ok(buckets)
    }

    /// Unexpected flows, the most frequent first.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn unexpected(&self) -> rusqlite::Result<Vec<UnexpectedRecord>> {
        let mut statement = self.connection.prepare(
            "SELECT from_roles, to_roles, protocol, port, first_seen, last_seen, flows, answered, samples \
             FROM unexpected ORDER BY flows DESC, from_roles, to_roles, protocol, port",
        )?;
        let rows = statement.query_map([], |row| {
            let mut columns = Columns::of(row);
            Ok(UnexpectedRecord {
                id: UnexpectedId {
                    from: columns.text()?,
                    to: columns.text()?,
                    protocol: columns.small()?,
                    port: columns.small()?,
                },
                seen: [columns.uint()?, columns.uint()?],
                flows: columns.uint()?,
                answered: columns.uint()?,
                samples: read_samples(&columns.text()?),
            })
        })?;
        rows.collect()
    }

    /// What was unexpected last, the newest first.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn newest_unexpected(&self, most: u32) -> rusqlite::Result<Vec<UnexpectedId>> {
        let mut statement = self.connection.prepare(
            "SELECT from_roles, to_roles, protocol, port FROM unexpected ORDER BY last_seen DESC LIMIT ?",
        )?;
        let rows = statement.query_map([most], |row| {
            let mut columns = Columns::of(row);
            Ok(UnexpectedId {
                from: columns.text()?,
                to: columns.text()?,
                protocol: columns.small()?,
                port: columns.small()?,
            })
        })?;
        rows.collect()
    }

    /// Hands the flows of these hours (since the Unix epoch) to `each`, oldest first; there can be millions.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn each_hour(
        &self,
        hours: Range<u64>,
        mut each: impl FnMut(HourRecord),
    ) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(
            "SELECT hour, initiator, responder, protocol, port, verdict, names, begun, undecided, answered, refused, \
             prohibited, unreachable, no_answer, dropped_here, one_way \
             FROM flow_hours WHERE hour >= ? AND hour < ? \
             ORDER BY hour, initiator, responder, protocol, port, verdict, names",
        )?;
        let mut rows = statement.query([int(hours.start), int(hours.end)])?;
        while let Some(row) = rows.next()? {
            let mut columns = Columns::of(row);
            let key = HourKey {
                hour: columns.uint()?,
                initiator: columns.address()?,
                responder: columns.address()?,
                protocol: columns.small()?,
                port: columns.small()?,
                verdict: columns.verdict()?,
                names: columns.text()?,
            };
            let mut counts = HourCounts {
                begun: columns.uint()?,
                ..HourCounts::default()
            };
            for outcome in DECIDED {
                counts.decided[outcome as usize] = columns.uint()?;
            }
            each(HourRecord { key, counts });
        }
        Ok(())
    }
}

/// The outcomes that flows are counted by, in the order of the columns. Closing is no decision.
pub(super) const DECIDED: [Outcome; 8] = [
    Outcome::Pending,
    Outcome::Answered,
    Outcome::Refused,
    Outcome::Prohibited,
    Outcome::Unreachable,
    Outcome::NoAnswer,
    Outcome::DroppedHere,
    Outcome::OneWay,
];

fn counts(columns: &mut Columns<'_>) -> rusqlite::Result<Counts> {
    Ok(Counts {
        begun: columns.uint()?,
        answered: columns.uint()?,
        failed: columns.uint()?,
        one_way: columns.uint()?,
    })
}

/// The window of a service, which may have none.
fn window(columns: &mut Columns<'_>, buckets: Vec<Bucket>) -> rusqlite::Result<KeptService> {
    let begins = columns.time()?;
    let last_blind = columns.time()?;
    let last_lossy = columns.time()?;
    let mut total = || columns.time().map(Option::unwrap_or_default);
    let counted = Totals {
        flows: Counts {
            begun: total()?,
            answered: total()?,
            failed: total()?,
            one_way: total()?,
        },
        replies: total()?,
    };
    let evidence = Evidence {
        last_attempt: columns.time()?,
        last_answer: columns.time()?,
        last_failure: columns.failure()?,
    };
    let needs_names = columns.time()?.is_some_and(|flag| flag != 0);
    let vantage = columns.vantage()?;
    let state: Option<State> = columns.state()?;
    let since = columns.time()?;
    Ok(KeptService {
        begins,
        last_blind,
        last_lossy,
        counted,
        evidence,
        needs_names,
        vantage,
        standing: state.zip(since),
        buckets: buckets.into(),
    })
}
