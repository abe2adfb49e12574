//! When the next probe may begin: at a steady rate over all, and never two at a time towards the same target, so that no
//! host takes a run for an attack. Pure: time is passed in.

use std::collections::HashSet;
use std::net::IpAddr;

/// What to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Begin the probe with this number.
    Begin(usize),
    /// Nothing before this time, nanoseconds of the clock that is passed in.
    WaitUntil(u64),
    /// Nothing before a probe has ended.
    WaitForEnd,
    /// All have begun.
    Done,
}

/// Keeps the pace of a run.
#[derive(Debug)]
pub struct Pace {
    waiting: Vec<(usize, IpAddr)>,
    busy: HashSet<IpAddr>,
    interval: u64,
    /// When the next may begin.
    free: u64,
}

impl Pace {
    /// For probes to these targets, in this order where nothing speaks against it; `rate` is in probes a second, at
    /// least 1.
    #[must_use]
    pub fn new(targets: impl IntoIterator<Item = IpAddr>, rate: u32) -> Self {
        Self {
            waiting: targets.into_iter().enumerate().collect(),
            busy: HashSet::new(),
            interval: 1_000_000_000 / u64::from(rate.max(1)),
            free: 0,
        }
    }

    /// What to do at `now`, nanoseconds.
    pub fn next(&mut self, now: u64) -> Next {
        if self.waiting.is_empty() {
            return Next::Done;
        }
        let idle = self
            .waiting
            .iter()
            .position(|(_, target)| !self.busy.contains(target));
        let Some(position) = idle else {
            return Next::WaitForEnd;
        };
        if now < self.free {
            return Next::WaitUntil(self.free);
        }
        // Time that went by unused is not made up for: a burst is what the rate is there to prevent.
        self.free = now + self.interval;
        let (number, target) = self.waiting.remove(position);
        self.busy.insert(target);
        Next::Begin(number)
    }

    /// A probe to this target has ended.
    pub fn ended(&mut self, target: IpAddr) {
        self.busy.remove(&target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const MS: u64 = 1_000_000;

    fn target(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    #[test]
    fn the_rate_is_kept_and_a_busy_target_lets_others_go_first() {
        let mut pace = Pace::new([target(1), target(1), target(2)], 10);
        assert_eq!(pace.next(0), Next::Begin(0));
        assert_eq!(pace.next(50 * MS), Next::WaitUntil(100 * MS));
        assert_eq!(pace.next(100 * MS), Next::Begin(2));
        assert_eq!(pace.next(900 * MS), Next::WaitForEnd);
        pace.ended(target(1));
        assert_eq!(pace.next(900 * MS), Next::Begin(1));
        assert_eq!(pace.next(2000 * MS), Next::Done);
    }

    mod properties {
        use super::*;

        proptest! {
            #[test]
            fn no_schedule_breaks_the_limits(
                targets in proptest::collection::vec(0_u8..4, 0..40),
                rate in 1_u32..50,
                lasts in proptest::collection::vec(0_u64..3000, 40),
            ) {
                let mut pace = Pace::new(targets.iter().map(|last| target(*last)), rate);
                let mut running: Vec<(u64, u8)> = Vec::new();
                let mut begun: Vec<u64> = Vec::new();
                let mut seen = HashSet::new();
                let mut now = 0;
                loop {
                    running.retain(|(end, last)| {
                        let over = *end <= now;
                        if over {
                            pace.ended(target(*last));
                        }
                        !over
                    });
                    match pace.next(now) {
                        Next::Begin(number) => {
                            let last = targets[number];
                            prop_assert!(running.iter().all(|(_, busy)| *busy != last));
                            prop_assert!(seen.insert(number));
                            running.push((now + lasts[number] * MS, last));
                            begun.push(now);
                        }
                        Next::WaitUntil(time) => {
                            prop_assert!(time > now);
                            now = time;
                        }
                        Next::WaitForEnd => {
                            let end = running.iter().map(|(end, _)| *end).min();
                            prop_assert!(end.is_some(), "nobody to wait for");
                            now = now.max(end.unwrap_or_default());
                        }
                        Next::Done => break,
                    }
                }
                prop_assert_eq!(seen.len(), targets.len());
                let interval = 1_000_000_000 / u64::from(rate);
                prop_assert!(begun.windows(2).all(|pair| pair[1] - pair[0] >= interval));
            }
        }
    }
}
