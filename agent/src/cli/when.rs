//! Moments as people write them: how long ago, or when.

use std::time::{Duration, SystemTime};

use crate::names::wall_time;

/// A moment, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// This long ago.
    Ago(Duration),
    /// Then.
    At(SystemTime),
}

impl When {
    /// Reads an age or a time.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self::Ago)
            .or_else(|_| humantime::parse_rfc3339_weak(text).map(Self::At))
            .map_err(|_| {
                "is neither an age such as 7d or 12h, nor a time such as 2026-01-31T08:00:00Z (UTC)"
                    .to_owned()
            })
    }

    /// Nanoseconds since the Unix epoch; an age is counted back from `now`, in the same unit.
    pub(super) fn nanos(self, now: u64) -> u64 {
        match self {
            Self::Ago(age) => now.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
            Self::At(at) => wall_time::nanos(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_ages_or_times() {
        let now = 1_000_000_000_000_000;
        let check = |text: &str, expect: Option<u64>| {
            let got = When::parse(text).map(|when| when.nanos(now) / 1_000_000_000);
            assert_eq!(got.ok(), expect, "{text}");
        };
        check("1d", Some(913_600));
        check("12h", Some(956_800));
        check("100d", Some(0));
        check("1970-01-02T00:00:00Z", Some(86_400));
        check("1970-01-02 00:00:00", Some(86_400));
        check("yesterday", None);
        check("7", None);
    }
}
