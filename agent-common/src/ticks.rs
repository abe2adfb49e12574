//! Coarse time for flow records: 32 bits where nanoseconds would take 64, since the record's size decides
//! how many flows fit into a megabyte of kernel memory.

/// Nanoseconds in a tick as a power of two: 2^23 ns, about 8.39 ms.
pub const TICK_SHIFT: u32 = 23;

/// A point on the monotonic clock in units of 2^23 ns, wrapping after about 417 days of uptime; only
/// differences mean anything.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Ticks(pub u32);

impl Ticks {
    /// From nanoseconds of the same clock.
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "wrapping is the point of a tick"
    )]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self((nanos >> TICK_SHIFT) as u32)
    }

    /// Nanoseconds from `earlier` to `self`, to the tick; 0 if `earlier` is later by less than 208 days,
    /// which happens when two CPUs read the clock in another order than they write the record.
    #[inline(always)]
    #[must_use]
    pub const fn nanos_since(self, earlier: Self) -> u64 {
        let ticks = self.0.wrapping_sub(earlier.0);
        if ticks > u32::MAX / 2 {
            0
        } else {
            (ticks as u64) << TICK_SHIFT
        }
    }

    /// The nanosecond time of this tick on the clock that now reads `now`.
    #[inline(always)]
    #[must_use]
    pub const fn to_nanos(self, now: u64) -> u64 {
        now.saturating_sub(Self::from_nanos(now).nanos_since(self))
    }
}
