//! Opening a ledger that somebody names, for the verbs that read one.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::ValueEnum;

use crate::ledger::{self, ReadError, Reader};
use crate::report::recalled::{AsOf, Recalled};

/// The state directory of a daemon whose configuration names no other.
pub(super) const DEFAULT: &str = "/var/lib/flowproof";

/// The moment that states are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum At {
    /// When the daemon looked last
    #[default]
    Last,
    /// Now: time that nobody watched counts as not watched
    Now,
}

impl From<At> for AsOf {
    fn from(at: At) -> Self {
        match at {
            At::Last => Self::LastLook,
            At::Now => Self::Now,
        }
    }
}

/// A ledger that is open, and its file.
pub(super) fn open(named: &Path) -> Result<(Reader, PathBuf), ReadError> {
    let path = ledger::locate(named);
    Ok((Reader::open_read_only(&path)?, path))
}

/// What the ledger says, and what it is called in words.
pub(super) fn recall(named: &Path, at: At) -> Result<(Recalled, String), ReadError> {
    let (mut reader, path) = open(named)?;
    let recalled = reader.read(|view| Recalled::read(view, at.into(), now()))?;
    Ok((recalled, format!("ledger {}", path.display())))
}

/// Nanoseconds since the Unix epoch; 0 before it.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
