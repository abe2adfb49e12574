//! Opening a ledger that somebody names, for the verbs that read one: all take its file or the state directory that it is in.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::ValueEnum;

use crate::ledger::{self, ReadError, Reader, View};
use crate::names::wall_time;
use crate::report::recalled::{AsOf, Recalled};

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

/// What the ledger says, what `more` reads of it at the same moment, and its file.
pub(super) fn recall<T>(
    named: &Path,
    at: At,
    more: impl FnOnce(&View<'_>) -> rusqlite::Result<T>,
) -> Result<(Recalled, T, PathBuf), ReadError> {
    let now = wall_time::nanos(SystemTime::now());
    let ((recalled, more), path) = read(named, |view| {
        Ok((Recalled::read(view, at.into(), now)?, more(view)?))
    })?;
    Ok((recalled, more, path))
}

/// What `look` reads of the ledger, all of one moment, and its file.
pub(super) fn read<T>(
    named: &Path,
    look: impl FnOnce(&View<'_>) -> rusqlite::Result<T>,
) -> Result<(T, PathBuf), ReadError> {
    let path = ledger::locate(named);
    let found = Reader::open_read_only(&path)?.read(look)?;
    Ok((found, path))
}
