//! Evidence that lasts: what was seen of every service, what was unexpected, who talked to whom by the hour, and the
//! windows that states are told from, in an SQLite file below the state directory.
//!
//! A [`Batch`] holds what happened since the batch before. It is handed over without waiting for any disk: a thread of
//! the ledger's own merges batches in memory and writes them in one transaction, so that what belongs together is on the
//! disk together or not at all. A disk that can't be written (full, read-only, gone) costs nothing but time, as long as
//! memory lasts: the same merging goes on, and all is written when the disk is back.
//!
//! What holds after `kill -9`, or a loss of power, at any moment: the file is whole, and what was recorded up to
//! [`WRITE_EVERY`] before is in it.

mod batch;
mod migrate;
mod reader;
mod rows;
mod store;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use batch::MOST_HOURS;
pub use batch::{
    Batch, FailureSeen, HourCounts, HourKey, ServiceId, ServiceSeen, UnexpectedId, UnexpectedSeen,
    WindowUpdate,
};
pub use reader::{HourRecord, ReadError, Reader, ServiceRecord, UnexpectedRecord, View};
pub use store::Remembered;
pub use writer::{Ledger, Opened, Status};

/// Its name in the state directory.
pub const FILE: &str = "ledger.sqlite";

/// How often the ledger's thread writes. With the second that the engine takes to hand over what it saw, and the time
/// of a write, at most 5 s of evidence are in memory alone.
pub const WRITE_EVERY: Duration = Duration::from_secs(2);

/// Where the ledger of a state directory is.
#[must_use]
pub fn path(state_directory: &Path) -> PathBuf {
    state_directory.join(FILE)
}

/// Where the ledger is that is named by its file or by its state directory.
#[must_use]
pub fn locate(named: &Path) -> PathBuf {
    if named.is_dir() {
        path(named)
    } else {
        named.to_owned()
    }
}

/// How much a ledger may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long hourly flow records and gaps are kept.
    pub retention: Duration,
    /// Bytes of the file and its log together, at least 8 MiB. A batch more may be on the disk for a moment.
    pub max_size: u64,
    /// The window that states are told over; older buckets go.
    pub window: Duration,
    /// How often is written.
    pub write_every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(14 * 86_400),
            max_size: 512 << 20,
            window: Duration::from_secs(86_400),
            write_every: WRITE_EVERY,
        }
    }
}

impl Limits {
    /// Bytes that the write-ahead log may have before it is folded into the file.
    fn log(&self) -> u64 {
        (self.max_size / 8).clamp(1 << 20, 16 << 20)
    }

    /// Bytes that the file may have.
    fn file(&self) -> u64 {
        self.max_size.saturating_sub(2 * self.log())
    }
}

/// Why a ledger can't be used, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It was written by a newer version.
    #[error(
        "{}: written by a newer flowproof (schema {found}, this one knows {known}); run that version, or move the file away to begin a new one",
        path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// It is some other program's database.
    #[error(
        "{}: a database of another program; move it away, or name another folder by `state_directory` or --state-dir",
        path.display()
    )]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// The thread that writes can't be started.
    #[error("the thread that writes {} can't be started: {source}", path.display())]
    Thread {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests;
