//! Times of what is kept over a restart. A back end's clock begins anew with every boot, so a file holds nanoseconds since
//! the Unix epoch. That clock can be set: what was told in its future, or is over, is left out, so that no jump of it
//! makes a name last longer than one that is told now.

use std::time::{SystemTime, UNIX_EPOCH};

use super::book::Remembered;

/// Nanoseconds since the Unix epoch; 0 for a clock that is set before it.
#[must_use]
pub fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// A time of the clock that `offset` leads away from, at least 0 and at most the last that can be told.
#[must_use]
pub fn shifted(time: u64, offset: i128) -> u64 {
    let shifted = i128::from(time).saturating_add(offset).max(0);
    u64::try_from(shifted).unwrap_or(u64::MAX)
}

/// From the back end's clock to the Unix epoch; `offset` is added.
#[must_use]
pub fn to_epoch(mut names: Vec<Remembered>, offset: i128) -> Vec<Remembered> {
    for address in names.iter_mut().flat_map(|name| &mut name.addresses) {
        address.told = shifted(address.told, offset);
        address.expires = shifted(address.expires, offset);
    }
    names
}

/// From the Unix epoch, where it is `now`, to the back end's clock; `offset` is what [`to_epoch`] would add. Addresses
/// that were told later than now or are over, and names without any other, are left out.
#[must_use]
pub fn from_epoch(mut names: Vec<Remembered>, offset: i128, now: u64) -> Vec<Remembered> {
    for name in &mut names {
        name.addresses
            .retain(|address| address.told <= now && address.expires > now);
        for address in &mut name.addresses {
            address.told = shifted(address.told, offset.saturating_neg());
            address.expires = shifted(address.expires, offset.saturating_neg());
        }
    }
    names.retain(|name| !name.addresses.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::super::book::RememberedAddress;
    use super::*;

    const OFFSET: i128 = 1_700_000_000_000_000_000;

    fn name(times: &[(u64, u64)]) -> Vec<Remembered> {
        vec![Remembered {
            name: "a.example".to_owned(),
            alias: None,
            service: None,
            addresses: times
                .iter()
                .map(|(told, expires)| RememberedAddress {
                    address: "192.0.2.1".parse().unwrap(),
                    told: *told,
                    expires: *expires,
                })
                .collect(),
        }]
    }

    #[test]
    fn times_survive_another_boot() {
        let kept = to_epoch(name(&[(50, 90)]), OFFSET);
        assert_eq!(kept[0].addresses[0].expires, 1_700_000_000_000_000_090);
        // The same moment, 20 ns after the boot.
        let now = 1_700_000_000_000_000_060;
        assert_eq!(
            from_epoch(kept, i128::from(now) - 20, now),
            name(&[(10, 50)])
        );
    }

    #[test]
    fn what_was_told_before_the_boot_was_told_at_0() {
        assert_eq!(from_epoch(name(&[(100, 900)]), 500, 600), name(&[(0, 400)]));
    }

    #[test]
    fn what_is_over_or_of_the_future_is_left_out() {
        let times = [(10, 100), (10, 101), (101, 200), (100, 200)];
        let kept = from_epoch(name(&times), 0, 100);
        assert_eq!(kept, name(&[(10, 101), (100, 200)]));
        // The clock was set back, or forth.
        assert_eq!(from_epoch(name(&times), 0, 9), []);
        assert_eq!(from_epoch(name(&times), 0, 200), []);
    }

    #[test]
    fn no_time_overflows() {
        let end = to_epoch(name(&[(u64::MAX, u64::MAX)]), i128::MAX);
        assert_eq!(end, name(&[(u64::MAX, u64::MAX)]));
        assert_eq!(shifted(1, i128::MIN), 0);
        assert_eq!(from_epoch(name(&[(0, u64::MAX)]), i128::MIN, 5).len(), 1);
    }
}
