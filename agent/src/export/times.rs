//! Times and durations as all contracts and all texts write them: RFC 3339 in UTC, and durations in words.

use std::time::{Duration, SystemTime};

/// The last hour that RFC 3339 can write: of 9999.
const LAST_HOUR: u64 = 253_402_300_799 / 3_600;

/// A time of the Unix epoch in nanoseconds, with nanoseconds.
#[must_use]
pub fn time(nanos: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
    humantime::format_rfc3339_nanos(time).to_string()
}

/// A time of the Unix epoch in nanoseconds, to the second.
#[must_use]
pub fn second(nanos: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The begin of an hour of the Unix epoch, to the second.
#[must_use]
pub fn hour(hour: u64) -> String {
    let since = Duration::from_secs(hour.min(LAST_HOUR) * 3_600);
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}

/// A duration in nanoseconds in words, to the second.
#[must_use]
pub fn duration(nanos: u64) -> String {
    humantime::format_duration(Duration::from_secs(nanos / 1_000_000_000)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let nanos = 86_400_000_000_000 + 1_999_999_999;
        assert_eq!(time(nanos), "1970-01-02T00:00:01.999999999Z");
        assert_eq!(second(nanos), "1970-01-02T00:00:01Z");
        assert_eq!(hour(25), "1970-01-02T01:00:00Z");
        assert_eq!(duration(nanos), "1day 1s");
    }

    #[test]
    fn no_time_is_too_late() {
        assert_eq!(second(u64::MAX), "2554-07-21T23:34:33Z");
        assert_eq!(hour(u64::MAX), "9999-12-31T23:00:00Z");
    }
}
