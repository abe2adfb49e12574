//! What happened since the batch before, and how batches add up. Pure and bounded: whatever the network sends, and however
//! long the disk is gone, a batch has room for so many different things and counts what did not fit.

use std::collections::{BTreeMap, HashMap};

use flowproof_common::address::Address;
use flowproof_common::classify::Verdict;
use flowproof_common::state::Outcome;

use crate::verdict::requirement::Failure;
use crate::verdict::window::{Bucket, Change, Counts, Gap, KeptService, KeptWatch, ServiceWindow};

/// Different hourly flows that a batch has room for, and whoever gathers for one: about 25 MiB.
pub(crate) const MOST_HOURS: usize = 100_000;
/// Different unexpected services that a batch has room for.
const MOST_UNEXPECTED: usize = 10_000;
/// Gaps that a batch has room for; adjacent ones of a kind are one.
const MOST_GAPS: usize = 1_000;
/// Pairs of addresses that are kept of an unexpected service.
const MOST_SAMPLES: usize = 4;

/// A requirement's service, by the texts of the matrix files: it outlives the numbers of any matrix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// System.
    pub system: String,
    /// Requirement, without the system.
    pub requirement: String,
    /// Service, such as `tcp/443`.
    pub service: String,
}

/// A failure, and what it is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureSeen {
    /// When, how and where; nanoseconds since the Unix epoch.
    pub failure: Failure,
    /// What it rests on, in words; may be empty.
    pub evidence: String,
}

/// What is new of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceSeen {
    /// Flows since the batch before.
    pub flows: Counts,
    /// When the first and the last of them were seen, if there were any; nanoseconds since the Unix epoch.
    pub seen: Option<[u64; 2]>,
    /// When one was answered last.
    pub last_answer: Option<u64>,
    /// The last failure.
    pub failure: Option<FailureSeen>,
    /// What is new of its window.
    pub window: Option<WindowUpdate>,
}

/// What is new of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowUpdate {
    /// All but the buckets.
    pub head: KeptService,
    /// Buckets by their start. One that starts like one before replaces it.
    pub buckets: BTreeMap<u64, Bucket>,
    /// Whether these are all the buckets there are.
    pub rewritten: bool,
}

impl ServiceSeen {
    /// From what a sample changed in `window`; nothing if it changed nothing. `evidence` goes with the last failure.
    #[must_use]
    pub fn of(change: &Change, window: &ServiceWindow, evidence: &str) -> Option<Self> {
        if !change.changed && change.bucket.is_none() {
            return None;
        }
        let mut head = window.kept();
        let buckets = std::mem::take(&mut head.buckets);
        let buckets = if change.rewritten {
            buckets
                .into_iter()
                .map(|bucket| (bucket.starts, bucket))
                .collect()
        } else {
            change
                .bucket
                .into_iter()
                .map(|bucket| (bucket.starts, bucket))
                .collect()
        };
        let times = [
            head.evidence.last_attempt,
            head.evidence.last_answer,
            head.evidence.last_failure.map(|failure| failure.at),
        ];
        let last = times.into_iter().flatten().max();
        Some(Self {
            flows: change.flows,
            seen: last.map(|last| [head.evidence.last_attempt.unwrap_or(last), last]),
            last_answer: head.evidence.last_answer,
            failure: head.evidence.last_failure.map(|failure| FailureSeen {
                failure,
                evidence: evidence.to_owned(),
            }),
            window: Some(WindowUpdate {
                head,
                buckets,
                rewritten: change.rewritten,
            }),
        })
    }

    fn merge(&mut self, later: Self) {
        self.flows.add(&later.flows);
        self.seen = joined(self.seen, later.seen);
        self.last_answer = self.last_answer.max(later.last_answer);
        let at = |failure: &Option<FailureSeen>| failure.as_ref().map(|seen| seen.failure.at);
        if later.failure.is_some() && at(&self.failure) <= at(&later.failure) {
            self.failure = later.failure;
        }
        match (&mut self.window, later.window) {
            (Some(window), Some(later)) if !later.rewritten => {
                window.head = later.head;
                window.buckets.extend(later.buckets);
            }
            (_, None) => {}
            (window, later @ Some(_)) => *window = later,
        }
    }
}

/// The span of both.
fn joined(one: Option<[u64; 2]>, other: Option<[u64; 2]>) -> Option<[u64; 2]> {
    match (one, other) {
        (Some([first, last]), Some([also_first, also_last])) => {
            Some([first.min(also_first), last.max(also_last)])
        }
        (one, other) => one.or(other),
    }
}

/// What unexpected flows are counted under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnexpectedId {
    /// Roles of the initiator.
    pub from: String,
    /// Roles of the responder.
    pub to: String,
    /// IP protocol number.
    pub protocol: u8,
    /// Port of the responder, type of ICMP, or 0.
    pub port: u16,
}

/// What is new of an unexpected service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnexpectedSeen {
    /// Flows.
    pub flows: u64,
    /// Those of them that were answered: who answers is a server.
    pub answered: u64,
    /// When the first and the last of them were seen, nanoseconds since the Unix epoch.
    pub seen: [u64; 2],
    /// Some initiators and responders, the newest last.
    pub samples: Vec<[Address; 2]>,
}

impl UnexpectedSeen {
    /// Adds what was seen after it.
    pub(crate) fn merge(&mut self, later: Self) {
        self.flows = self.flows.saturating_add(later.flows);
        self.answered = self.answered.saturating_add(later.answered);
        self.seen = [
            self.seen[0].min(later.seen[0]),
            self.seen[1].max(later.seen[1]),
        ];
        add_samples(&mut self.samples, &later.samples);
    }
}

/// Adds samples that are new, and lets go of the oldest that are too many.
pub(super) fn add_samples(samples: &mut Vec<[Address; 2]>, more: &[[Address; 2]]) {
    for sample in more {
        if !samples.contains(sample) {
            samples.push(*sample);
        }
    }
    let excess = samples.len().saturating_sub(MOST_SAMPLES);
    samples.drain(..excess);
}

/// Flows of one hour that are alike for any matrix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HourKey {
    /// Hours since the Unix epoch.
    pub hour: u64,
    /// Who opened them.
    pub initiator: Address,
    /// Whom they were meant for.
    pub responder: Address,
    /// IP protocol number.
    pub protocol: u8,
    /// Port of the responder, type of ICMP, or 0.
    pub port: u16,
    /// What the matrix of the time said.
    pub verdict: Verdict,
    /// Names of the flow or its responder, sorted, with blanks between them.
    pub names: String,
}

/// Nanoseconds of an hour.
const HOUR: u64 = 3_600_000_000_000;

impl HourKey {
    /// The hour of a time, nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn hour_of(time: u64) -> u64 {
        time / HOUR
    }

    /// When an hour begins, nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn begin_of(hour: u64) -> u64 {
        hour.saturating_mul(HOUR)
    }
}

/// Flows of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HourCounts {
    /// Begun.
    pub begun: u64,
    /// By decided outcome, indexed by [`Outcome`].
    pub decided: [u64; Outcome::COUNT],
}

impl HourCounts {
    /// Adds other flows.
    pub fn add(&mut self, other: &Self) {
        self.begun = self.begun.saturating_add(other.begun);
        for (count, by) in self.decided.iter_mut().zip(other.decided) {
            *count = count.saturating_add(by);
        }
    }
}

/// What happened since the batch before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// Up to when it goes, nanoseconds since the Unix epoch. Retention is counted from here.
    pub until: u64,
    /// How well was watched, as of then: the heartbeat that tells how long nobody did.
    pub watch: Option<KeptWatch>,
    /// Stretches of time in which silence proves nothing.
    pub gaps: Vec<Gap>,
    /// Services of the matrix.
    pub services: BTreeMap<ServiceId, ServiceSeen>,
    /// Unexpected flows.
    pub unexpected: BTreeMap<UnexpectedId, UnexpectedSeen>,
    /// Flows by the hour.
    pub hours: HashMap<HourKey, HourCounts>,
}

impl Batch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watch.is_none()
            && self.gaps.is_empty()
            && self.services.is_empty()
            && self.unexpected.is_empty()
            && self.hours.is_empty()
    }

    /// Adds what happened after it. Gives the number of things that did not fit.
    pub fn merge(&mut self, later: Self) -> u64 {
        self.merge_within(later, MOST_HOURS, MOST_UNEXPECTED)
    }

    fn merge_within(&mut self, later: Self, most_hours: usize, most_unexpected: usize) -> u64 {
        let mut dropped = 0;
        // The clock may have been set back.
        if !later.is_empty() {
            self.until = later.until;
        }
        self.watch = later.watch.or(self.watch);
        for gap in later.gaps {
            dropped += u64::from(!self.add_gap(gap));
        }
        for (id, seen) in later.services {
            match self.services.get_mut(&id) {
                Some(before) => before.merge(seen),
                // As many as the matrix has, so that no limit is needed.
                None => drop(self.services.insert(id, seen)),
            }
        }
        for (id, seen) in later.unexpected {
            let room = self.unexpected.len() < most_unexpected;
            match self.unexpected.get_mut(&id) {
                Some(before) => before.merge(seen),
                None if room => {
                    self.unexpected.insert(id, seen);
                }
                None => dropped += 1,
            }
        }
        for (key, counts) in later.hours {
            let room = self.hours.len() < most_hours;
            match self.hours.get_mut(&key) {
                Some(before) => before.add(&counts),
                None if room => drop(self.hours.insert(key, counts)),
                None => dropped += 1,
            }
        }
        dropped
    }

    /// Adds a gap; one that goes on prolongs the one before. Gives whether there was room.
    fn add_gap(&mut self, gap: Gap) -> bool {
        let room = self.gaps.len() < MOST_GAPS;
        let before = self
            .gaps
            .iter_mut()
            .rev()
            .find(|before| before.kind == gap.kind);
        match before {
            Some(before) if before.to >= gap.from && before.from <= gap.from => {
                before.to = before.to.max(gap.to);
                before.lost = before.lost.saturating_add(gap.lost);
                true
            }
            Some(_) | None if room => {
                self.gaps.push(gap);
                true
            }
            Some(_) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::window::GapKind;

    fn unexpected(port: u16, flows: u64, at: u64, sample: u8) -> Batch {
        let address = |last| Address::from_v4([10, 0, 0, last]);
        let mut batch = Batch {
            until: at,
            ..Batch::default()
        };
        let id = UnexpectedId {
            from: "a/x".to_owned(),
            to: "a/y".to_owned(),
            protocol: 6,
            port,
        };
        let seen = UnexpectedSeen {
            flows,
            answered: 0,
            seen: [at, at],
            samples: vec![[address(1), address(sample)]],
        };
        batch.unexpected.insert(id, seen);
        batch
    }

    fn hour(port: u16) -> Batch {
        let mut batch = Batch::default();
        let key = HourKey {
            hour: 1,
            initiator: Address::default(),
            responder: Address::default(),
            protocol: 6,
            port,
            verdict: Verdict::Expected,
            names: String::new(),
        };
        let mut counts = HourCounts {
            begun: 1,
            ..HourCounts::default()
        };
        counts.decided[Outcome::Answered as usize] = 1;
        batch.hours.insert(key, counts);
        batch
    }

    #[test]
    fn batches_add_up() {
        let mut batch = unexpected(1, 2, 100, 1);
        assert_eq!(batch.merge(unexpected(1, 3, 90, 2)), 0);
        assert_eq!(batch.until, 90);
        let seen = batch.unexpected.values().next().unwrap();
        assert_eq!(
            (seen.flows, seen.seen, seen.samples.len()),
            (5, [90, 100], 2)
        );
        for sample in 2..9 {
            batch.merge(unexpected(1, 1, 110, sample));
        }
        let seen = batch.unexpected.values().next().unwrap();
        assert_eq!(seen.samples.len(), MOST_SAMPLES);
        assert_eq!(seen.samples[3][1], Address::from_v4([10, 0, 0, 8]));
        let mut batch = hour(1);
        batch.merge(hour(1));
        let counts = batch.hours.values().next().unwrap();
        assert_eq!(
            (counts.begun, counts.decided[Outcome::Answered as usize]),
            (2, 2)
        );
        // Nothing adds nothing, not even a time.
        let mut batch = unexpected(1, 1, 5, 1);
        batch.merge(Batch::default());
        assert_eq!(batch, unexpected(1, 1, 5, 1));
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut batch = Batch::default();
        let mut dropped = 0;
        for port in 0..10 {
            dropped += batch.merge_within(unexpected(port, 1, 1, 1), 5, 3);
            dropped += batch.merge_within(hour(port), 5, 3);
        }
        assert_eq!(
            (batch.unexpected.len(), batch.hours.len(), dropped),
            (3, 5, 12)
        );
        // What is known already always fits.
        assert_eq!(batch.merge_within(hour(0), 5, 3), 0);
    }

    #[test]
    fn gaps_that_go_on_are_one() {
        let gap = |kind, from, to| Gap {
            kind,
            from,
            to,
            lost: 1,
        };
        let mut batch = Batch::default();
        for (kind, from, to) in [
            (GapKind::PacketsLost, 1, 2),
            (GapKind::NamesLost, 1, 2),
            (GapKind::PacketsLost, 2, 3),
            (GapKind::PacketsLost, 5, 6),
        ] {
            assert!(batch.add_gap(gap(kind, from, to)));
        }
        let got: Vec<_> = batch
            .gaps
            .iter()
            .map(|gap| (gap.from, gap.to, gap.lost))
            .collect();
        assert_eq!(got, [(1, 3, 2), (1, 2, 1), (5, 6, 1)]);
        for at in 10..5_000 {
            batch.add_gap(gap(GapKind::Down, at * 2, at * 2));
        }
        assert_eq!(batch.gaps.len(), MOST_GAPS);
    }

    #[test]
    fn a_rewritten_window_replaces_what_was_to_be_written() {
        let bucket = |starts| Bucket {
            starts,
            ends: starts,
            counts: Counts::default(),
        };
        let seen = |starts: u64, rewritten| ServiceSeen {
            window: Some(WindowUpdate {
                head: KeptService {
                    begins: Some(starts),
                    ..KeptService::default()
                },
                buckets: [(starts, bucket(starts))].into(),
                rewritten,
            }),
            ..ServiceSeen::default()
        };
        let mut all = seen(1, true);
        all.merge(seen(2, false));
        let window = all.window.clone().unwrap();
        assert_eq!((window.buckets.len(), window.rewritten), (2, true));
        assert_eq!(window.head.begins, Some(2));
        all.merge(ServiceSeen::default());
        all.merge(seen(0, true));
        let window = all.window.unwrap();
        assert_eq!((window.buckets.len(), window.rewritten), (1, true));
    }
}
