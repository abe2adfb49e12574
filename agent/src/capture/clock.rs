//! The clocks that live capture counts by, read in one place: records and events are in monotonic nanoseconds, as
//! `bpf_ktime_get_ns` gives them, and people want the time of day.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

fn read(id: ClockId) -> u64 {
    clock_gettime(id).map_or(0, |time| {
        u64::try_from(Duration::from(time).as_nanos()).unwrap_or(u64::MAX)
    })
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(super) fn monotonic() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Nanoseconds to add to the monotonic clock to get nanoseconds since the Unix epoch, as the time of day is set now.
pub(super) fn epoch_offset() -> i128 {
    i128::from(read(ClockId::CLOCK_REALTIME)) - i128::from(monotonic())
}
