//! Buckets of tokens, which fill up again with time: what is let through takes one. Time is passed in.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Buckets that are kept at most; full ones go first, and they are as good as none.
const MOST: usize = 4_096;

/// How a bucket fills up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// What it holds.
    pub(super) burst: u32,
    /// How long it takes until there is one more.
    pub(super) interval: Duration,
}

/// One bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    tokens: f64,
    when: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub(super) fn full(rule: Rule, now: Instant) -> Self {
        Self {
            tokens: f64::from(rule.burst),
            when: now,
        }
    }

    fn fill(&mut self, rule: Rule, now: Instant) {
        let since = now.saturating_duration_since(self.when);
        self.when = now;
        let more = since.as_secs_f64() / rule.interval.as_secs_f64().max(1e-9);
        self.tokens = (self.tokens + more).min(f64::from(rule.burst));
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, rule: Rule, now: Instant) -> bool {
        self.fill(rule, now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }
}

/// A bucket for each key.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    rule: Rule,
    all: HashMap<K, Bucket>,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    /// All of them full.
    #[must_use]
    pub(super) fn new(rule: Rule) -> Self {
        Self {
            rule,
            all: HashMap::new(),
        }
    }

    /// Takes a token of a key's, if there is one.
    pub(super) fn take(&mut self, key: K, now: Instant) -> bool {
        let rule = self.rule;
        if self.all.len() >= MOST && !self.all.contains_key(&key) {
            self.all.retain(|_, bucket| {
                bucket.fill(rule, now);
                bucket.tokens < f64::from(rule.burst)
            });
            // None was full: the one that is nearest to it is the least loss.
            if self.all.len() >= MOST {
                let fullest = self
                    .all
                    .iter()
                    .max_by(|a, b| a.1.tokens.total_cmp(&b.1.tokens));
                if let Some(key) = fullest.map(|(key, _)| *key) {
                    self.all.remove(&key);
                }
            }
        }
        let bucket = self
            .all
            .entry(key)
            .or_insert_with(|| Bucket::full(rule, now));
        bucket.take(rule, now)
    }

    /// Gives a token back that was taken for nothing.
    pub(super) fn give_back(&mut self, key: K) {
        if let Some(bucket) = self.all.get_mut(&key) {
            bucket.tokens = (bucket.tokens + 1.0).min(f64::from(self.rule.burst));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        burst: 2,
        interval: Duration::from_secs(10),
    };

    #[test]
    fn a_bucket_fills_up_with_time() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut buckets = Buckets::new(RULE);
        let took: Vec<bool> = [0, 0, 0, 9, 10, 10, 1_000, 1_000, 1_000]
            .map(|second| buckets.take(1, at(second)))
            .to_vec();
        assert_eq!(
            took,
            [true, true, false, false, true, false, true, true, false]
        );
        // Another's is another's.
        assert!(buckets.take(2, at(1_000)));
        buckets.give_back(1);
        assert!(buckets.take(1, at(1_000)) && !buckets.take(1, at(1_000)));
    }

    #[test]
    fn buckets_are_bounded_and_the_emptiest_stay() {
        let now = Instant::now();
        let mut buckets = Buckets::new(RULE);
        assert!(buckets.take(usize::MAX, now) && buckets.take(usize::MAX, now));
        for key in 0..2 * MOST {
            buckets.take(key, now);
            assert!(buckets.all.len() <= MOST);
        }
        assert!(!buckets.take(usize::MAX, now));
    }
}
