//! The thread that writes, and what it does when it can't.
//!
//! Batches are merged under a lock and taken from there every [`Limits::write_every`], so that whoever records never waits
//! for a disk, and a slow disk makes for larger batches instead of a longer queue. What could not be written is merged
//! with what comes after it and tried again: memory is bounded by what a batch has room for, and what does not fit is
//! counted.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::migrate::STEPS;
use super::reader::Reader;
use super::store::{Remembered, Store, Trouble, set_aside};
use super::{LedgerError, Limits};

/// How a ledger does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Why evidence is in memory only; nothing as long as it is written.
    pub problem: Option<String>,
    /// Things that did not fit into memory while the disk could not be written, and are lost.
    pub dropped: u64,
    /// Batches written.
    pub written: u64,
    /// Up to when evidence is on the disk, nanoseconds since the Unix epoch; 0 before the first batch.
    pub written_until: u64,
    /// Bytes of the file and its log, as of the last batch.
    pub bytes: u64,
    /// Damaged files that were set aside. Windows that nothing changed since are missing from the new file, and should
    /// be recorded once more.
    pub set_aside: u64,
}

#[derive(Debug, Default)]
struct Inbox {
    batch: Batch,
    /// Flushes asked for, and done.
    asked: u64,
    done: u64,
    stop: bool,
}

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    /// Told of what is asked of the thread, and of what it has done.
    bell: Condvar,
    status: Mutex<Status>,
}

/// A lock that was poisoned guards data that is still whole: nothing panics between two changes of it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A ledger that is being written. Dropping it writes what is left.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A ledger, and what it remembers.
#[derive(Debug)]
pub struct Opened {
    /// The ledger.
    pub ledger: Ledger,
    /// What it remembers of the time before; nothing if it can't be read just now.
    pub remembered: Remembered,
}

impl Ledger {
    /// Opens the ledger at `path`, makes it if there is none, and starts to write. A disk that can't be written is no
    /// error: the ledger is in memory until it can. A damaged file is set aside.
    ///
    /// # Errors
    /// [`LedgerError`] if the file is a newer version's or another program's.
    pub fn open(path: &Path, limits: Limits) -> Result<Opened, LedgerError> {
        let shared = Arc::new(Shared::default());
        let mut writer = Writer {
            path: path.to_owned(),
            limits,
            shared: Arc::clone(&shared),
            store: None,
            pending: Batch::default(),
        };
        let remembered = match writer.recall() {
            Ok(remembered) => remembered,
            Err(Trouble::Refused(error)) => return Err(error),
            Err(Trouble::Damaged(reason) | Trouble::Disk(reason)) => {
                writer.degrade(reason);
                // What can't be written may still be read.
                Reader::open_read_only(path)
                    .and_then(|mut reader| reader.read(Remembered::of))
                    .unwrap_or_default()
            }
        };
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| LedgerError::Thread {
                path: path.to_owned(),
                source,
            })?;
        let ledger = Self {
            shared,
            thread: Some(thread),
        };
        Ok(Opened { ledger, remembered })
    }

    /// Takes what happened since the last call. Never waits for a disk.
    pub fn record(&self, batch: Batch) {
        let dropped = lock(&self.shared.inbox).batch.merge(batch);
        if dropped > 0 {
            lock(&self.shared.status).dropped += dropped;
        }
    }

    /// How it does.
    #[must_use]
    pub fn status(&self) -> Status {
        lock(&self.shared.status).clone()
    }

    /// Writes what was recorded so far and waits for it, at most for `timeout`. Gives whether it is on the disk.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        let mut inbox = lock(&self.shared.inbox);
        inbox.asked += 1;
        let asked = inbox.asked;
        self.shared.bell.notify_all();
        let (_inbox, waited) = self
            .shared
            .bell
            .wait_timeout_while(inbox, timeout, |inbox| inbox.done < asked)
            .unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out() && self.status().problem.is_none()
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        lock(&self.shared.inbox).stop = true;
        self.shared.bell.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the ledger panicked");
        }
    }
}

struct Writer {
    path: PathBuf,
    limits: Limits,
    shared: Arc<Shared>,
    store: Option<Store>,
    /// What is taken from the inbox and not on the disk yet.
    pending: Batch,
}

impl Writer {
    fn run(mut self) {
        loop {
            let (batch, asked, stop) = self.next();
            let dropped = self.pending.merge(batch);
            lock(&self.shared.status).dropped += dropped;
            if !self.pending.is_empty() {
                self.write();
            }
            lock(&self.shared.inbox).done = asked;
            self.shared.bell.notify_all();
            if stop {
                return;
            }
        }
    }

    /// Waits for the next time to write.
    fn next(&self) -> (Batch, u64, bool) {
        let due = Instant::now() + self.limits.write_every;
        let inbox = lock(&self.shared.inbox);
        let wait = due.saturating_duration_since(Instant::now());
        let (mut inbox, _) = self
            .shared
            .bell
            .wait_timeout_while(inbox, wait, |inbox| {
                !inbox.stop && inbox.done == inbox.asked
            })
            .unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut inbox.batch), inbox.asked, inbox.stop)
    }

    /// Opens the file and reads what it remembers.
    fn recall(&mut self) -> Result<Remembered, Trouble> {
        let open = |writer: &Self| {
            let store = Store::open(&writer.path, writer.limits, STEPS)?;
            let remembered = store.load()?;
            Ok((store, remembered))
        };
        let (store, remembered) = match open(self) {
            Err(Trouble::Damaged(reason)) => {
                self.begin_anew(&reason)?;
                open(self)?
            }
            opened => opened?,
        };
        lock(&self.shared.status).bytes = store.size();
        self.store = Some(store);
        Ok(remembered)
    }

    /// Sets a damaged file aside.
    fn begin_anew(&mut self, reason: &str) -> Result<(), Trouble> {
        self.store = None;
        let aside = set_aside(&self.path)?;
        tracing::warn!(
            "{}: damaged ({reason}); set aside as {}, a new ledger begins",
            self.path.display(),
            aside.display()
        );
        lock(&self.shared.status).set_aside += 1;
        Ok(())
    }

    fn try_write(&mut self) -> Result<(), Trouble> {
        let store = match &mut self.store {
            Some(store) => store,
            none => none.insert(Store::open(&self.path, self.limits, STEPS)?),
        };
        store.write(&self.pending)?;
        let bytes = store.size();
        let mut status = lock(&self.shared.status);
        status.written += 1;
        status.written_until = self.pending.until;
        status.bytes = bytes;
        Ok(())
    }

    fn write(&mut self) {
        let mut tried = self.try_write();
        if let Err(Trouble::Damaged(reason)) = &tried {
            tried = self
                .begin_anew(&reason.clone())
                .and_then(|()| self.try_write());
        }
        match tried {
            Ok(()) => {
                self.pending = Batch::default();
                if lock(&self.shared.status).problem.take().is_some() {
                    tracing::info!("{}: evidence is written again", self.path.display());
                }
            }
            Err(Trouble::Refused(error)) => self.degrade(error.to_string()),
            Err(Trouble::Damaged(reason) | Trouble::Disk(reason)) => self.degrade(reason),
        }
    }

    /// From here on in memory only, said once.
    fn degrade(&mut self, reason: String) {
        // What is wrong may lie with the open file, and a new one is found by opening anew.
        self.store = None;
        let mut status = lock(&self.shared.status);
        if status.problem.is_none() {
            tracing::warn!(
                "{}: can't be written ({reason}); evidence is kept in memory until it can: free or mend the disk, or \
                 name another folder by `state_directory` or --state-dir",
                self.path.display()
            );
        }
        status.problem = Some(reason);
    }
}
