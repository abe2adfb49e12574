//! When to ask for which name. A matrix may need thousands of names, and the resolver belongs to the site: so a name is
//! asked for when its answer runs out, at a bounded rate, a few at once, and less and less often where it does not resolve.
//!
//! No clock and no network here: who asks says when it is, and what came of it.

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::answer::Name;

/// A name is asked for again no sooner than this.
pub const SHORTEST: Duration = Duration::from_secs(30);
/// A name that resolves is asked for again no later than this.
pub const LONGEST: Duration = Duration::from_secs(3_600);
/// A name that does not resolve is asked for again no later than this.
pub const LONGEST_BACK_OFF: Duration = Duration::from_secs(600);
/// Most names that are being asked for at once; their two queries go one after the other.
pub const AT_ONCE: usize = 8;
/// Least time between two names: with two queries each, 20 queries a second.
pub const SPACING: Duration = Duration::from_millis(100);
/// Names are asked for up to this part of their time later, so that those that came together drift apart.
const JITTER: u32 = 10;

/// What to do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Ask for the addresses of this name; [`Schedule::answered`] must follow.
    Ask(Name),
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing before an answer comes or names are set.
    Idle,
}

/// What came of asking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// There are addresses, which live as long as this at the least.
    Found(Duration),
    /// There are none, or nobody answered.
    Nothing,
}

#[derive(Debug)]
struct Turn {
    due: Instant,
    /// Being asked for, hence not in the queue.
    asked: bool,
    /// Answers without addresses in a row.
    failures: u32,
    /// Answers so far, which the jitter differs by.
    answers: u64,
}

/// The names that are asked for, and when.
#[derive(Debug)]
pub struct Schedule {
    turns: HashMap<Name, Turn>,
    queue: BTreeSet<(Instant, Name)>,
    /// Names being asked for, whether or not they are still wanted.
    at_once: usize,
    /// When the rate allows the next.
    free: Option<Instant>,
    jitter: FixedState,
}

impl Schedule {
    /// Without names. The seed makes the jitter of one daemon differ from another's.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            turns: HashMap::new(),
            queue: BTreeSet::new(),
            at_once: 0,
            free: None,
            jitter: FixedState::with_seed(seed),
        }
    }

    /// Replaces the names. New ones are due at once, as fast as the rate allows; the others keep their time.
    pub fn set_names(&mut self, names: &[Name], now: Instant) {
        let mut before = std::mem::take(&mut self.turns);
        for name in names {
            let turn = before.remove(name).unwrap_or(Turn {
                due: now,
                asked: false,
                failures: 0,
                answers: 0,
            });
            self.turns.insert(name.clone(), turn);
        }
        self.queue = self
            .turns
            .iter()
            .filter(|(_, turn)| !turn.asked)
            .map(|(name, turn)| (turn.due, name.clone()))
            .collect();
    }

    /// Whether a name is asked for.
    #[must_use]
    pub fn wants(&self, name: &Name) -> bool {
        self.turns.contains_key(name)
    }

    /// What to do at this time.
    pub fn next(&mut self, now: Instant) -> Next {
        if self.at_once >= AT_ONCE {
            return Next::Idle;
        }
        let Some((due, _)) = self.queue.first() else {
            return Next::Idle;
        };
        let start = self.free.map_or(*due, |free| free.max(*due));
        if start > now {
            return Next::Wait(start);
        }
        let Some((_, name)) = self.queue.pop_first() else {
            return Next::Idle;
        };
        if let Some(turn) = self.turns.get_mut(&name) {
            turn.asked = true;
        }
        self.at_once += 1;
        self.free = Some(now + SPACING);
        Next::Ask(name)
    }

    /// Takes what came of asking for a name that [`Schedule::next`] gave.
    pub fn answered(&mut self, name: &Name, outcome: Outcome, now: Instant) {
        self.at_once = self.at_once.saturating_sub(1);
        // A name that went, or went and came back, is in the queue or nowhere.
        let Some(turn) = self.turns.get_mut(name).filter(|turn| turn.asked) else {
            return;
        };
        let (pause, most) = match outcome {
            Outcome::Found(ttl) => {
                turn.failures = 0;
                (ttl, LONGEST)
            }
            Outcome::Nothing => {
                let pause = SHORTEST * 2_u32.pow(turn.failures.min(10));
                turn.failures += 1;
                (pause, LONGEST_BACK_OFF)
            }
        };
        turn.answers += 1;
        // The jitter comes on top, and the sum stays within the bounds.
        let base = pause.clamp(SHORTEST, most - most / (JITTER + 1));
        let share = self.jitter.hash_one((name, turn.answers)) % 1_000;
        let part = u32::try_from(share).unwrap_or(0);
        turn.due = now + base + base / JITTER * part / 1_000;
        turn.asked = false;
        self.queue.insert((turn.due, name.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<Name> {
        (0..count)
            .map(|number| Name::from(format!("n{number}.example")))
            .collect()
    }

    /// When each name is asked for, as a resolver answers everything at once.
    fn drive(
        schedule: &mut Schedule,
        from: Instant,
        seconds: u64,
        mut answer: impl FnMut(&Name) -> Outcome,
    ) -> Vec<(Duration, Name)> {
        let end = from + Duration::from_secs(seconds);
        let mut now = from;
        let mut asked = Vec::new();
        loop {
            match schedule.next(now) {
                Next::Ask(name) => {
                    let outcome = answer(&name);
                    schedule.answered(&name, outcome, now);
                    asked.push((now - from, name));
                }
                Next::Wait(until) if until < end => now = until,
                Next::Wait(_) | Next::Idle => return asked,
            }
        }
    }

    fn gaps(asked: &[(Duration, Name)]) -> Vec<Duration> {
        asked.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
    }

    #[test]
    fn a_name_is_asked_for_when_its_answer_runs_out() {
        let check = |ttl: u64, least: u64, most: u64| {
            let mut schedule = Schedule::new(7);
            let start = Instant::now();
            schedule.set_names(&names(1), start);
            let found = Outcome::Found(Duration::from_secs(ttl));
            let asked = drive(&mut schedule, start, 100_000, |_| found);
            let gaps = gaps(&asked);
            assert!(gaps.len() > 20, "{ttl}: {gaps:?}");
            for gap in &gaps {
                let within = Duration::from_secs(least)..=Duration::from_secs(most);
                assert!(within.contains(gap), "{ttl}: {gap:?}");
            }
            // Jittered: not always the same.
            assert!(gaps.iter().any(|gap| *gap != gaps[0]));
        };
        check(0, 30, 33);
        check(30, 30, 33);
        check(300, 300, 330);
        check(3_600, 3_200, 3_600);
        check(604_800, 3_200, 3_600);
    }

    #[test]
    fn what_does_not_resolve_is_asked_for_less_and_less() {
        let mut schedule = Schedule::new(7);
        let start = Instant::now();
        schedule.set_names(&names(1), start);
        let asked = drive(&mut schedule, start, 7_200, |_| Outcome::Nothing);
        let gaps = gaps(&asked);
        for (gap, least) in gaps.iter().zip([30, 60, 120, 240, 480]) {
            let within = Duration::from_secs(least)..=Duration::from_secs(least + least / 10);
            assert!(within.contains(gap), "{gaps:?}");
        }
        assert!(
            gaps[5..]
                .iter()
                .all(|gap| (540..=600).contains(&gap.as_secs())),
            "{gaps:?}"
        );
        // An answer ends the back-off.
        let later = start + Duration::from_secs(7_200);
        let mut turns = 0;
        let asked = drive(&mut schedule, later, 1_000, |_| {
            turns += 1;
            if turns == 1 {
                Outcome::Found(Duration::from_secs(30))
            } else {
                Outcome::Nothing
            }
        });
        assert!((asked[2].0 - asked[1].0).as_secs() <= 33);
    }

    #[test]
    fn thousands_of_names_do_not_flood_a_resolver() {
        let mut schedule = Schedule::new(7);
        let start = Instant::now();
        let all = names(3_000);
        schedule.set_names(&all, start);
        let asked = drive(&mut schedule, start, 600, |_| {
            Outcome::Found(Duration::from_secs(30))
        });
        assert!(gaps(&asked).iter().all(|gap| *gap >= SPACING));
        assert_eq!(asked.len(), 6_000);
        // Whoever has waited longest comes first; only the jitter changes the order.
        for name in &all {
            let turns = asked.iter().filter(|(_, asked)| asked == name).count();
            assert!((1..=3).contains(&turns), "{name}: {turns}");
        }
    }

    #[test]
    fn only_a_few_are_asked_for_at_once() {
        let mut schedule = Schedule::new(7);
        let mut now = Instant::now();
        schedule.set_names(&names(20), now);
        let mut open = Vec::new();
        loop {
            match schedule.next(now) {
                Next::Ask(name) => open.push(name),
                Next::Wait(until) => now = until,
                Next::Idle => break,
            }
        }
        assert_eq!(open.len(), AT_ONCE);
        schedule.answered(&open[0], Outcome::Nothing, now);
        now += SPACING;
        assert!(matches!(schedule.next(now), Next::Ask(name) if !open.contains(&name)));
        assert_eq!(schedule.next(now), Next::Idle);
    }

    #[test]
    fn names_come_and_go() {
        let mut schedule = Schedule::new(7);
        let start = Instant::now();
        let all = names(3);
        schedule.set_names(&all[..2], start);
        let found = |_: &Name| Outcome::Found(Duration::from_secs(300));
        assert_eq!(drive(&mut schedule, start, 10, found).len(), 2);
        // The one that stays keeps its time, the new one is asked for at once.
        let later = start + Duration::from_secs(10);
        schedule.set_names(&all[1..], later);
        assert!(!schedule.wants(&all[0]) && schedule.wants(&all[2]));
        let asked = drive(&mut schedule, later, 200, found);
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].1, all[2]);
        // One that goes while it is asked for frees its place and is not asked for again.
        schedule.set_names(&[], later);
        let fresh = [Name::from("fresh.example")];
        schedule.set_names(&fresh, later);
        let now = later + SPACING * 2;
        assert_eq!(schedule.next(now), Next::Ask(fresh[0].clone()));
        schedule.set_names(&[], now);
        schedule.answered(&fresh[0], Outcome::Nothing, now);
        assert_eq!((schedule.next(now), schedule.at_once), (Next::Idle, 0));
    }
}
