//! What is known of every row, asked for once a second and by whoever wants to know, and handed to the ledger. One round at
//! a time: totals must not be taken in another order than they were read in.

use std::fs::{File, OpenOptions, TryLockError};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use tokio::sync::Mutex as AsyncMutex;

use super::actor::{CommandError, Engine, Gathered};
use super::chronicle::{Chronicle, Standing};
use super::whereabouts::Keeper;
use crate::draft::report::Counts as DraftCounts;
use crate::draft::{DraftReport, Judge};
use crate::events::{SinkStatus, Teller};
use crate::export::tally::{Spent, Tally};
use crate::ledger::{self, Batch, HourRecord, Ledger, LedgerError, Limits, Remembered, Status};
use crate::names::wall_time;
use crate::verdict::window::Absence;

/// How often rounds are, if they are short.
const EVERY: Duration = Duration::from_secs(1);
/// How often they are at the least: with the time that the ledger takes, less than 5 s are in memory alone.
const AT_LEAST_EVERY: Duration = Duration::from_secs(2);
/// A round may take this part of the time.
const SHARE: u32 = 10;

/// A ledger that is open, or why there is none.
#[derive(Debug, Default)]
pub struct Book {
    ledger: Option<Ledger>,
    /// Held as long as this daemon writes.
    _lock: Option<File>,
    /// Why nothing is written, if somebody wants it to be.
    problem: Option<String>,
}

impl Book {
    /// Opens the ledger of a state directory, which one daemon writes at a time.
    ///
    /// # Errors
    /// The file there is another program's or of a newer version.
    pub fn open(state: &Path, limits: Limits) -> Result<(Self, Remembered), LedgerError> {
        let path = ledger::path(state);
        let lock = match lock(&path) {
            Ok(lock) => lock,
            Err(reason) => {
                tracing::warn!("{reason}");
                let book = Self {
                    problem: Some(reason),
                    ..Self::default()
                };
                return Ok((book, Remembered::default()));
            }
        };
        let ledger::Opened { ledger, remembered } = Ledger::open(&path, limits)?;
        let book = Self {
            ledger: Some(ledger),
            _lock: lock,
            problem: None,
        };
        Ok((book, remembered))
    }

    /// How it does; nothing if no ledger is wanted.
    fn status(&self) -> Option<Status> {
        match (&self.ledger, &self.problem) {
            (Some(ledger), _) => Some(ledger.status()),
            (None, Some(problem)) => Some(Status {
                problem: Some(problem.clone()),
                ..Status::default()
            }),
            (None, None) => None,
        }
    }

    fn record(&self, batch: Batch) {
        if let Some(ledger) = &self.ledger {
            ledger.record(batch);
        }
    }
}

/// Takes the right to write the ledger at `path`; nothing if there is no place to say so, which the ledger finds out by
/// itself.
fn lock(path: &Path) -> Result<Option<File>, String> {
    let lock: PathBuf = path.with_extension("lock");
    if let Some(folder) = lock.parent() {
        // If that fails, so does the file.
        let _ = std::fs::create_dir_all(folder);
    }
    let Ok(file) = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock)
    else {
        return Ok(None);
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(format!(
            "{}: another flowproof writes it, so that this one keeps evidence in memory only; give it a folder of its \
             own by `state_directory` or --state-dir",
            path.display()
        )),
        // A file system without locks.
        Err(TryLockError::Error(_)) => Ok(Some(file)),
    }
}

#[derive(Debug)]
struct Rounds {
    chronicle: Chronicle,
    last: Instant,
    /// Damaged ledgers that were set aside so far.
    set_aside: u64,
}

/// Asks the capture thread, keeps the windows, feeds the ledger.
#[derive(Debug)]
pub struct Evidence {
    engine: Engine,
    rounds: Arc<AsyncMutex<Rounds>>,
    book: Book,
    place: Keeper,
    draft: Mutex<Option<Judge>>,
    /// Tells what is new, if somebody wants to hear it.
    teller: Mutex<Option<Teller>>,
    /// Records that found no room between two rounds.
    dropped: AtomicU64,
    /// Rounds, without waiting for the one before.
    tally: Tally,
}

impl Evidence {
    /// Of a capture thread, going on from what a ledger remembers.
    #[must_use]
    pub fn new(
        engine: Engine,
        (book, remembered): (Book, Remembered),
        window: Duration,
        absence: Absence,
    ) -> Self {
        let now = wall_time::nanos(SystemTime::now());
        Self {
            engine,
            rounds: Arc::new(AsyncMutex::new(Rounds {
                chronicle: Chronicle::new(window, remembered, now, absence),
                last: Instant::now(),
                set_aside: book.status().map_or(0, |status| status.set_aside),
            })),
            book,
            place: Keeper::default(),
            draft: Mutex::new(None),
            teller: Mutex::new(None),
            dropped: AtomicU64::new(0),
            tally: Tally::default(),
        }
    }

    /// Tells of every round from now on.
    #[must_use]
    pub fn telling(self, teller: Option<Teller>) -> Self {
        Self {
            teller: Mutex::new(teller),
            ..self
        }
    }

    fn teller(&self) -> MutexGuard<'_, Option<Teller>> {
        self.teller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the destinations of events do.
    #[must_use]
    pub fn sinks(&self) -> Vec<SinkStatus> {
        self.teller()
            .as_ref()
            .map(Teller::sinks)
            .unwrap_or_default()
    }

    /// The capture thread.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Notes what is seen from here (nothing: all), and the addresses of this host.
    pub fn set_sight(&self, observe: Vec<IpNet>, own: Vec<IpAddr>) {
        self.place.set_sight(observe, own);
    }

    /// Notes the name of the site.
    pub fn set_site(&self, site: &str) {
        self.place.set_site(site);
    }

    /// Judges what comes from now on by a draft too, or by none.
    pub fn set_draft(&self, draft: Option<Judge>) {
        *self.draft() = draft;
    }

    fn draft(&self) -> MutexGuard<'_, Option<Judge>> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of judging by the draft; nothing if there is none.
    #[must_use]
    pub fn draft_report(&self) -> Option<DraftReport> {
        self.draft().as_ref().map(Judge::report)
    }

    /// Flows by what the draft would change for them; nothing if there is none.
    #[must_use]
    pub fn draft_counts(&self) -> Option<DraftCounts> {
        self.draft().as_ref().map(Judge::counts)
    }

    /// How the ledger does; nothing if none is wanted.
    #[must_use]
    pub fn ledger(&self) -> Option<Status> {
        let mut status = self.book.status()?;
        status.dropped += self.dropped.load(Ordering::Relaxed);
        Some(status)
    }

    /// How many rounds there were, and how long they took.
    #[must_use]
    pub fn rounds(&self) -> Spent {
        self.tally.spent()
    }

    /// What is known now.
    ///
    /// # Errors
    /// The capture thread does not answer.
    pub async fn look(self: &Arc<Self>) -> Result<Standing, CommandError> {
        let rounds = Arc::clone(&self.rounds).lock_owned().await;
        let begun = Instant::now();
        let gathered = self.engine.gather().await?;
        let this = Arc::clone(self);
        // From here on nobody can break it off: what was gathered is nowhere else any more.
        tokio::task::spawn_blocking(move || {
            let mut rounds = rounds;
            let standing = this.round(&mut rounds, gathered);
            this.tally.add(begun.elapsed());
            standing
        })
        .await
        .map_err(|_| CommandError::NoAnswer)
    }

    fn round(&self, rounds: &mut Rounds, gathered: Gathered) -> Standing {
        let observe = self.place.observe();
        let now = wall_time::nanos(SystemTime::now());
        let elapsed = rounds.last.elapsed();
        rounds.last += elapsed;
        self.dropped
            .fetch_add(gathered.record.dropped, Ordering::Relaxed);
        if let Some(draft) = &mut *self.draft() {
            for (key, counts) in &gathered.record.hours {
                draft.add(&HourRecord {
                    key: key.clone(),
                    counts: *counts,
                });
            }
        }
        if let Some(teller) = &mut *self.teller() {
            teller.unexpected(&gathered.record.unexpected);
        }
        let (mut standing, batch) = rounds.chronicle.round(now, elapsed, gathered, &observe);
        standing.place = self.place.of(&standing.view.matrix);
        self.book.record(batch);
        let ledger = self.ledger();
        if let Some(teller) = &mut *self.teller() {
            teller.round(&standing, ledger.as_ref());
        }
        let set_aside = ledger.map_or(0, |status| status.set_aside);
        if set_aside != rounds.set_aside {
            rounds.set_aside = set_aside;
            self.book.record(rounds.chronicle.whole(now));
        }
        standing
    }

    /// Looks again and again, so that nothing that happens is only known while somebody asks.
    pub async fn follow(self: Arc<Self>) {
        loop {
            let begun = Instant::now();
            if let Err(error) = self.look().await {
                let mut rounds = self.rounds.lock().await;
                let now = wall_time::nanos(SystemTime::now());
                let elapsed = rounds.last.elapsed();
                rounds.last += elapsed;
                if let Some(teller) = &mut *self.teller() {
                    teller.no_answer(now, &error.to_string());
                }
                let batch = rounds.chronicle.blind(now, elapsed);
                self.book.record(batch);
            }
            let pause = (begun.elapsed() * SHARE).clamp(EVERY, AT_LEAST_EVERY);
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes a last look and writes all there is, waiting for the disk at most for `limit`.
    pub async fn finish(self: &Arc<Self>, limit: Duration) {
        let begun = Instant::now();
        // A capture thread that does not answer has nothing to say any more.
        let _ = tokio::time::timeout(limit, self.look()).await;
        // The capture thread ends next, which is no failure to tell of.
        if let Some(mut teller) = self.teller().take() {
            teller.finish(wall_time::nanos(SystemTime::now()));
        }
        let left = limit.saturating_sub(begun.elapsed());
        let this = Arc::clone(self);
        let flushed = tokio::task::spawn_blocking(move || {
            this.book
                .ledger
                .as_ref()
                .is_none_or(|ledger| ledger.flush(left) || ledger.status().problem.is_some())
        });
        if !flushed.await.unwrap_or(false) {
            tracing::warn!("the ledger was not written in time");
        }
    }
}
