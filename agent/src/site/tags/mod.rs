//! Service tags: what `tag:NAME` of a site or a pack stands for, as the providers of clouds publish it in files.
//!
//! `book` holds what tags stand for, `file` makes them from one provider's file, `read` from all files of a
//! configuration, with the last good copies of `last_good` where a file is not to be trusted: one that can't be read, or
//! that shrank by more than half. An outdated tag raises alerts; an empty one would call a cloud's traffic unexpected.

mod book;
mod file;
mod last_good;
mod read;

pub use book::{ServiceTag, TagBook};
pub use last_good::KeepError;
pub use read::{FileStatus, TagOptions, TagReading, TagStatus, uses};

/// Entries that one file may have. Azure's has about a tenth of it.
pub const MAX_ENTRIES: usize = 1_000_000;
