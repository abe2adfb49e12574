//! How often something was done and how long that took in all, for the daemon's metrics about itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts what takes time. Shared by whoever does it and whoever reads.
#[derive(Debug, Default)]
pub struct Tally {
    count: AtomicU64,
    nanos: AtomicU64,
}

/// What a [`Tally`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// How often.
    pub count: u64,
    /// How long in all.
    pub time: Duration,
}

impl Tally {
    /// Notes that it was done once more.
    pub fn add(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// What it came to.
    #[must_use]
    pub fn spent(&self) -> Spent {
        Spent {
            count: self.count.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        }
    }
}
