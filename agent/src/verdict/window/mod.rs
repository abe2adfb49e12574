//! The state of a requirement's service over a window of time: a state machine over samples of cumulative totals.
//!
//! What [`requirement`](super::requirement) says of everything that was ever seen, this says of the last 24 hours (or
//! another window). Three rules make the difference:
//!
//! 1. Only what happened in the window counts. `verified` needs a flow that was answered in it, or one that was answered
//!    before and still carries answers (a pooled connection is proof, though it began last week), and no failure since.
//! 2. Nothing seen means `silent` only if the whole window was watched without a loss, as far as the service could be
//!    seen at all: a loss, a gap, or a clock that jumped makes it `unknown`.
//! 3. The window of a service begins when it could first be seen. Time before that is nobody's blindness.
//!
//! Counts are kept in coarse buckets, so that memory is bounded; whether something happened in the window is decided by
//! exact times. No clock, no I/O: times are nanoseconds since the Unix epoch, and are passed in.

mod watch;

use std::collections::VecDeque;

pub use watch::{Absence, Gap, GapKind, KeptWatch, Look, Watch};

use super::requirement::{Cause, Failure, Finding, Observation, State, Vantage};
use crate::matrix::Necessity;

/// Buckets that a window is divided into: 5 minutes of 24 hours.
const BUCKETS: u64 = 288;
/// Buckets that are kept at most; more than a window has only after a restart with another window.
const MOST_BUCKETS: usize = 2 * 288;
/// The same failure is timed by two runs of the daemon at most this far apart, nanoseconds: each run adds its own offset
/// between the monotonic clock and the epoch.
const SAME_FAILURE: u64 = 5_000_000_000;

/// Flows of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Begun.
    pub begun: u64,
    /// Answered.
    pub answered: u64,
    /// Failed.
    pub failed: u64,
    /// Sent without an error and without an answer.
    pub one_way: u64,
}

impl Counts {
    fn each<'a>(&'a mut self, by: &'a Self) -> [(&'a mut u64, u64); 4] {
        [
            (&mut self.begun, by.begun),
            (&mut self.answered, by.answered),
            (&mut self.failed, by.failed),
            (&mut self.one_way, by.one_way),
        ]
    }

    /// Adds other flows.
    pub fn add(&mut self, other: &Self) {
        for (count, by) in self.each(other) {
            *count = count.saturating_add(by);
        }
    }

    /// The part of decided flows that were answered, 0 to 1; nothing if none was decided.
    #[must_use]
    pub fn answered_ratio(&self) -> Option<f64> {
        let decided = self.answered.saturating_add(self.failed);
        #[expect(clippy::cast_precision_loss, reason = "a ratio needs no 53 bits")]
        (decided > 0).then(|| self.answered as f64 / decided as f64)
    }

    fn less(mut self, other: &Self) -> Self {
        for (count, by) in self.each(other) {
            *count = count.saturating_sub(by);
        }
        self
    }
}

/// Totals since the counters began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Flows.
    pub flows: Counts,
    /// Packets towards initiators.
    pub replies: u64,
}

/// When something happened last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Evidence {
    /// A flow was begun.
    pub last_attempt: Option<u64>,
    /// A flow was answered.
    pub last_answer: Option<u64>,
    /// A flow failed. Goes with totals that say so: without it, failures have no outcome and are not judged.
    pub last_failure: Option<Failure>,
}

impl Evidence {
    fn rewind(&mut self, now: u64) {
        self.last_attempt = self.last_attempt.map(|time| time.min(now));
        self.last_answer = self.last_answer.map(|time| time.min(now));
        if let Some(failure) = &mut self.last_failure {
            failure.at = failure.at.min(now);
        }
    }

    /// The later of each.
    fn and(self, other: Self) -> Self {
        let at = |failure: Option<Failure>| failure.map(|failure| failure.at);
        let (older, newer) = if at(self.last_failure) <= at(other.last_failure) {
            (self.last_failure, other.last_failure)
        } else {
            (other.last_failure, self.last_failure)
        };
        // Where a failure was is told by an event, which only one of the two runs may have seen.
        let told = |failure: Failure| {
            older
                .filter(|older| {
                    failure.place.is_none()
                        && older.outcome == failure.outcome
                        && failure.at - older.at <= SAME_FAILURE
                })
                .map_or(failure, |older| Failure {
                    at: failure.at,
                    ..older
                })
        };
        Self {
            last_attempt: self.last_attempt.max(other.last_attempt),
            last_answer: self.last_answer.max(other.last_answer),
            last_failure: newer.map(told),
        }
    }
}

/// What is known of a service at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Totals since the counters began.
    pub totals: Totals,
    /// When something happened last, since the counters began.
    pub evidence: Evidence,
    /// What could be seen just now. Losses of the past belong to the [`Watch`], so this should be of a sightline without
    /// any: `Lossy` says that something is being lost now.
    pub vantage: Vantage,
    /// Whether names are evidence for the service, so that losing names can hide its flows.
    pub needs_names: bool,
}

/// Flows of a part of the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// First sample that had any of them.
    pub starts: u64,
    /// Last sample that had any.
    pub ends: u64,
    /// How many.
    pub counts: Counts,
}

/// What is kept of a service over a restart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeptService {
    /// Since when the service can be seen; nothing before that.
    pub begins: Option<u64>,
    /// When it could not be seen last, after it could.
    pub last_blind: Option<u64>,
    /// When something was being lost last.
    pub last_lossy: Option<u64>,
    /// Totals that were counted.
    pub counted: Totals,
    /// When something happened last.
    pub evidence: Evidence,
    /// Whether names are evidence for the service.
    pub needs_names: bool,
    /// What could be seen at the last sample, for who tells the state without a capture; nothing before the first.
    pub vantage: Option<Vantage>,
    /// The state, and since when.
    pub standing: Option<(State, u64)>,
    /// The buckets of the window, oldest first.
    pub buckets: VecDeque<Bucket>,
}

/// What a sample added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// Flows since the sample before.
    pub flows: Counts,
    /// The bucket that they were added to, if there were any; it replaces one that starts at the same time.
    pub bucket: Option<Bucket>,
    /// Whether anything that is kept changed.
    pub changed: bool,
    /// Whether buckets changed beyond the one: a clock that was set back moved them, or flows were taken back.
    pub rewritten: bool,
}

/// A state over the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowFinding {
    /// State, cause, place and confidence.
    pub finding: Finding,
    /// Since when it is in this state.
    pub since: Option<u64>,
    /// Begin of the window, or since when the service can be seen if that is later.
    pub from: u64,
    /// Flows in the window, to the accuracy of a bucket.
    pub flows: Counts,
}

impl WindowFinding {
    /// The part of decided flows that were answered, 0 to 1; nothing if none was decided.
    #[must_use]
    pub fn answered_ratio(&self) -> Option<f64> {
        self.flows.answered_ratio()
    }
}

/// Whether somebody should be told. What the product works without never alarms; a condition that nobody checked is no
/// reason to expect traffic, but who attempts and fails needs it. What is unknown or can't be seen is no proof of a
/// problem, and reports say so in their own column.
#[must_use]
pub const fn is_problem(state: State, necessity: &Necessity) -> bool {
    match (state, necessity) {
        (_, Necessity::Optional)
        | (State::Silent, Necessity::Conditional { .. })
        | (State::Verified | State::Unobservable | State::Unknown, _) => false,
        (State::Blocked | State::Degraded, Necessity::Required | Necessity::Conditional { .. })
        | (State::Silent, Necessity::Required) => true,
    }
}

/// The state machine of one service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceWindow {
    /// Its evidence is of earlier counters, and of what was seen beside them.
    kept: KeptService,
    /// Of the counters that run.
    current: Evidence,
    vantage: Vantage,
    /// The last sample.
    until: u64,
}

impl ServiceWindow {
    /// Of a service that nothing was seen of; `vantage` is what could be seen.
    #[must_use]
    pub fn new(vantage: Vantage) -> Self {
        Self::resume(KeptService::default(), vantage, Absence::Counted)
    }

    /// Goes on after a restart of the daemon. Counters that stopped meanwhile began anew.
    #[must_use]
    pub fn resume(mut kept: KeptService, vantage: Vantage, absence: Absence) -> Self {
        if absence == Absence::Unwatched {
            kept.counted = Totals::default();
        }
        Self {
            kept,
            current: Evidence::default(),
            vantage,
            until: 0,
        }
    }

    /// What to keep over a restart.
    #[must_use]
    pub fn kept(&self) -> KeptService {
        KeptService {
            evidence: self.evidence(),
            ..self.kept.clone()
        }
    }

    fn evidence(&self) -> Evidence {
        self.kept.evidence.and(self.current)
    }

    /// The last failure, in the window or before.
    #[must_use]
    pub fn last_failure(&self) -> Option<Failure> {
        self.evidence().last_failure
    }

    /// Takes a sample at `now`, after [`Watch::look`] at the same time.
    pub fn observe(&mut self, now: u64, sample: &Sample, watch: &Watch) -> Change {
        let before = (self.kept.standing, self.evidence(), self.kept.counted);
        let marks = |kept: &KeptService| {
            (
                kept.begins,
                kept.last_blind,
                kept.last_lossy,
                kept.needs_names,
                kept.vantage,
            )
        };
        let marked = marks(&self.kept);
        let mut rewritten = now < self.until;
        if rewritten {
            self.rewind(now);
        }
        let previous = std::mem::replace(&mut self.until, now);
        self.see(now, sample, watch);
        let (flows, taken_back) = self.count(now, previous, sample);
        rewritten |= taken_back;
        let bucket = self.put(now, &flows, watch.window());
        let finding = self.finding(now, watch);
        if self
            .kept
            .standing
            .is_none_or(|(state, _)| state != finding.finding.state)
        {
            self.kept.standing = Some((finding.finding.state, now));
        }
        Change {
            flows,
            bucket,
            rewritten,
            changed: rewritten
                || before != (self.kept.standing, self.evidence(), self.kept.counted)
                || marked != marks(&self.kept),
        }
    }

    /// Notes what could be seen.
    fn see(&mut self, now: u64, sample: &Sample, watch: &Watch) {
        let is_blind = |vantage| matches!(vantage, Vantage::Blind(_));
        if self.kept.begins.is_some() {
            // Nobody knows when in between it could be seen again.
            if is_blind(sample.vantage) || is_blind(self.vantage) {
                self.kept.last_blind = Some(now);
            }
        } else if !is_blind(sample.vantage) && watch.is_sighted() {
            self.kept.begins = Some(now);
        }
        if sample.vantage == Vantage::Lossy {
            self.kept.last_lossy = Some(now);
        }
        self.vantage = sample.vantage;
        self.kept.needs_names = sample.needs_names;
        self.kept.vantage = Some(sample.vantage);
    }

    /// Flows since the sample before, and whether some were taken back.
    fn count(&mut self, now: u64, previous: u64, sample: &Sample) -> (Counts, bool) {
        let totals = sample.totals;
        if totals.flows.begun < self.kept.counted.flows.begun {
            // The counters began anew; what was seen before stays seen.
            self.kept.evidence = self.evidence();
            self.kept.counted = Totals::default();
        }
        let counted = self.kept.counted;
        let flows = totals.flows.less(&counted.flows);
        let excess = counted.flows.less(&totals.flows);
        self.take_back(&excess);
        self.kept.counted = totals;
        self.current = sample.evidence;
        if flows.begun > 0 {
            self.current.last_attempt = self.current.last_attempt.or(Some(now));
        }
        if flows.answered > 0 {
            self.current.last_answer = self.current.last_answer.or(Some(now));
        }
        let evidence = self.evidence();
        let failed_since = evidence
            .last_failure
            .is_some_and(|failure| evidence.last_answer < Some(failure.at));
        let replies = totals.replies > counted.replies;
        // Packets of a refusal go the same way as those of an answer, so that they never make good what failed.
        if replies && evidence.last_answer.is_some() && flows.failed == 0 && !failed_since {
            // They came after the sample before. A failure that is being counted just now must stay the later one.
            let carried = previous.min(now);
            self.kept.evidence.last_answer = self.kept.evidence.last_answer.max(Some(carried));
        }
        (flows, excess != Counts::default())
    }

    /// A flow that seemed to have failed may turn out to have gone to a group, where no answer can come. Its counters
    /// did not begin anew; the newest of what was counted too much goes.
    fn take_back(&mut self, excess: &Counts) {
        let mut left = *excess;
        for bucket in self.kept.buckets.iter_mut().rev() {
            if left == Counts::default() {
                return;
            }
            let had = bucket.counts;
            bucket.counts = had.less(&left);
            left = left.less(&had);
        }
    }

    fn put(&mut self, now: u64, flows: &Counts, window: u64) -> Option<Bucket> {
        let start = now.saturating_sub(window);
        while self
            .kept
            .buckets
            .front()
            .is_some_and(|bucket| bucket.ends < start)
        {
            self.kept.buckets.pop_front();
        }
        if *flows == Counts::default() {
            return None;
        }
        let length = (window / BUCKETS).max(1);
        match self.kept.buckets.back_mut() {
            Some(last) if now.saturating_sub(last.starts) < length => {
                last.ends = now;
                last.counts.add(flows);
            }
            Some(_) | None => self.kept.buckets.push_back(Bucket {
                starts: now,
                ends: now,
                counts: *flows,
            }),
        }
        if self.kept.buckets.len() > MOST_BUCKETS
            && let Some(oldest) = self.kept.buckets.pop_front()
            && let Some(next) = self.kept.buckets.front_mut()
        {
            next.starts = oldest.starts;
            next.counts.add(&oldest.counts);
        }
        self.kept.buckets.back().copied()
    }

    /// After this, nothing lies in the future.
    fn rewind(&mut self, now: u64) {
        for time in [
            &mut self.kept.begins,
            &mut self.kept.last_blind,
            &mut self.kept.last_lossy,
        ] {
            *time = time.map(|time| time.min(now));
        }
        if let Some((_, since)) = &mut self.kept.standing {
            *since = now.min(*since);
        }
        self.kept.evidence.rewind(now);
        let mut future = Counts::default();
        while let Some(bucket) = self.kept.buckets.pop_back_if(|bucket| bucket.ends > now) {
            future.add(&bucket.counts);
        }
        if future == Counts::default() {
            return;
        }
        match self.kept.buckets.back_mut() {
            // A bucket is known by its start.
            Some(last) if last.starts == now => last.counts.add(&future),
            Some(_) | None => self.kept.buckets.push_back(Bucket {
                starts: now,
                ends: now,
                counts: future,
            }),
        }
    }

    /// The state at `now`.
    #[must_use]
    pub fn finding(&self, now: u64, watch: &Watch) -> WindowFinding {
        let start = now.saturating_sub(watch.window());
        let from = self.kept.begins.map_or(start, |begins| begins.max(start));
        let evidence = self.evidence();
        let recent = |time: Option<u64>| time.filter(|time| *time >= start);
        let answer = recent(evidence.last_answer);
        let failure = evidence.last_failure.filter(|failure| failure.at >= start);
        let attempted =
            answer.is_some() || failure.is_some() || recent(evidence.last_attempt).is_some();
        let mut sum = Counts::default();
        for bucket in &self.kept.buckets {
            if bucket.ends >= start {
                sum.add(&bucket.counts);
            }
        }
        // Times are exact and buckets are not: they must not contradict them.
        let agreed = |count: u64, happened: bool| if happened { count.max(1) } else { 0 };
        let flows = Counts {
            begun: agreed(sum.begun, attempted),
            answered: agreed(sum.answered, answer.is_some()),
            failed: agreed(sum.failed, failure.is_some()),
            one_way: if attempted { sum.one_way } else { 0 },
        };
        let (vantage, gap) = self.vantage_since(from, watch);
        let observation = Observation::of_totals(
            [flows.begun, flows.answered, flows.failed, flows.one_way],
            answer,
            failure,
        );
        let mut finding = observation.finding(vantage);
        if gap && finding.cause == Some(Cause::Loss) {
            finding.cause = Some(Cause::Gap);
        }
        WindowFinding {
            finding,
            since: self
                .kept
                .standing
                .filter(|(state, _)| *state == finding.state)
                .map(|(_, since)| since),
            from,
            flows,
        }
    }

    /// What could have been seen since `from`, and whether that is so because nobody watched.
    fn vantage_since(&self, from: u64, watch: &Watch) -> (Vantage, bool) {
        if matches!(self.vantage, Vantage::Blind(_)) {
            return (self.vantage, false);
        }
        let gap = self.kept.begins.is_none()
            || watch.blind_since(from)
            || self.kept.last_blind >= Some(from);
        let lost =
            watch.lost_since(from, self.kept.needs_names) || self.kept.last_lossy >= Some(from);
        if gap || lost {
            (Vantage::Lossy, gap)
        } else {
            (self.vantage, false)
        }
    }
}

#[cfg(test)]
mod tests;
