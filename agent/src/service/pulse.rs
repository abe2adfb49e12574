//! Whether the daemon is alive, and how it is doing, in one line. Pure: who calls has looked, and passes the time.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::chronicle::Standing;
use crate::engine::health::{CaptureState, Health};
use crate::plural::counted;
use crate::verdict::requirement::State;

/// How long a task may stay silent beyond the time between two looks. It says so twice a second; a machine that is out of
/// breath is no reason for a restart.
const GRACE: Duration = Duration::from_secs(5);

/// When a task turned last.
#[derive(Debug, Default)]
pub struct Beat(Mutex<Turning>);

#[derive(Debug, Default, Clone, Copy)]
enum Turning {
    #[default]
    NotYet,
    Since(Instant),
    Ended,
}

impl Beat {
    /// Notes that the task turns.
    pub(super) fn note(&self, now: Instant) {
        self.set(Turning::Since(now));
    }

    /// Notes that the task is over.
    pub(super) fn end(&self) {
        self.set(Turning::Ended);
    }

    fn set(&self, turning: Turning) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = turning;
    }

    /// Whether the task is over or stuck; one that has not begun is neither.
    pub(super) fn is_silent(&self, now: Instant, every: Duration) -> bool {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Turning::NotYet => false,
            Turning::Since(last) => now.saturating_duration_since(last) > every + GRACE,
            Turning::Ended => true,
        }
    }
}

/// What was found when it was looked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Look {
    /// Why nothing is judged.
    pub(super) blind: Option<String>,
    /// The last reload was refused.
    pub(super) refused: bool,
    /// Interfaces that are watched.
    pub(super) interfaces: usize,
    /// Services by state, in the order of [`State::ALL`].
    pub(super) states: [usize; State::ALL.len()],
    /// Unexpected flows since the counters began.
    pub(super) unexpected: u64,
}

impl Look {
    /// From a round, or why there was none.
    pub(super) fn new(standing: Result<&Standing, String>, health: &Health) -> Self {
        let mut look = Self {
            refused: health.reload().is_some_and(|reload| !reload.successful),
            ..Self::default()
        };
        match standing {
            Err(reason) => look.blind = Some(reason),
            Ok(standing) => {
                look.blind.clone_from(&standing.view.failure);
                look.interfaces = standing.view.attached.len();
                look.unexpected = standing
                    .view
                    .verdict_totals(flowproof_common::classify::Verdict::Unexpected)
                    .flows
                    .begun;
                for row in &standing.rows {
                    let state = row.window.finding.state;
                    let place = State::ALL.iter().position(|it| *it == state);
                    if let Some(count) = place.and_then(|place| look.states.get_mut(place)) {
                        *count += 1;
                    }
                }
            }
        }
        // The thread goes on answering after that, and a snapshot may still be read.
        if let CaptureState::Failed(reason) = health.capture() {
            look.blind = Some(reason);
        }
        look
    }
}

/// What the manager is to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Whether the daemon does its work.
    pub(super) alive: bool,
    /// How it is doing, in one line.
    pub(super) status: String,
}

/// Judges look after look.
#[derive(Debug)]
pub(super) struct Pulse {
    every: Duration,
}

impl Pulse {
    /// For looks that are `every` apart.
    pub(super) const fn new(every: Duration) -> Self {
        Self { every }
    }

    /// What the manager is to be told after a look; `silent`: a server of pages is over or stuck.
    pub(super) fn judge(&mut self, look: &Look, silent: bool) -> Word {
        let status = match &look.blind {
            Some(reason) => format!("blind: {reason}"),
            None if silent => format!(
                "judging, but no page is served: a server has been silent for more than {:?}",
                self.every + GRACE
            ),
            None => described(look),
        };
        Word {
            alive: look.blind.is_none() && !silent,
            status: super::one_line(&status),
        }
    }
}

fn described(look: &Look) -> String {
    let services: usize = look.states.iter().sum();
    let mut text = format!("watching {}", counted(look.interfaces, "interface"));
    let _ = write!(text, "; {}", counted(services, "service"));
    let some = State::ALL
        .iter()
        .zip(look.states)
        .filter(|(_, count)| *count > 0);
    for (place, (state, count)) in some.enumerate() {
        let _ = write!(
            text,
            "{}{count} {}",
            if place == 0 { ": " } else { ", " },
            state.name()
        );
    }
    let _ = write!(text, "; {}", counted(look.unexpected, "unexpected flow"));
    if look.refused {
        text.push_str("; the last reload was refused, the matrix before stays in force");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(states: [usize; 6]) -> Look {
        Look {
            interfaces: 2,
            states,
            unexpected: 1,
            ..Look::default()
        }
    }

    fn word(look: &Look, silent: bool) -> (bool, String) {
        let Word { alive, status } = Pulse::new(Duration::from_secs(1)).judge(look, silent);
        (alive, status)
    }

    #[test]
    fn who_judges_and_serves_is_alive() {
        assert_eq!(
            word(&look([2, 0, 1, 0, 0, 0]), false),
            (
                true,
                "watching 2 interfaces; 3 services: 2 verified, 1 blocked; 1 unexpected flow"
                    .to_owned()
            )
        );
        assert_eq!(
            word(&Look::default(), false).1,
            "watching 0 interfaces; 0 services; 0 unexpected flows"
        );
    }

    #[test]
    fn a_refused_reload_is_told_and_no_death() {
        let look = Look {
            refused: true,
            ..look([1, 0, 0, 0, 0, 0])
        };
        let (alive, status) = word(&look, false);
        assert!(
            alive && status.ends_with("the matrix before stays in force"),
            "{status}"
        );
    }

    #[test]
    fn who_is_blind_or_serves_nobody_is_not_alive() {
        let blind = Look {
            blind: Some("the link\nis gone".to_owned()),
            ..look([1, 0, 0, 0, 0, 0])
        };
        assert_eq!(
            word(&blind, false),
            (false, "blind: the link is gone".to_owned())
        );
        let (alive, status) = word(&look([1, 0, 0, 0, 0, 0]), true);
        assert!(!alive && status.contains("no page is served"), "{status}");
    }

    #[test]
    fn a_beat_that_is_late_is_no_death_and_one_that_stays_away_is() {
        let (now, every) = (Instant::now(), Duration::from_secs(1));
        let beat = Beat::default();
        assert!(!beat.is_silent(now, every), "not begun yet");
        beat.note(now);
        assert!(!beat.is_silent(now + every + GRACE, every));
        assert!(beat.is_silent(now + every + GRACE + Duration::from_millis(1), every));
        beat.note(now + Duration::from_secs(60));
        assert!(!beat.is_silent(now + Duration::from_secs(60), every));
        beat.end();
        assert!(beat.is_silent(now, every));
    }

    #[test]
    fn a_capture_that_failed_is_blind_whatever_the_round_says() {
        let health = Health::default();
        assert_eq!(
            Look::new(Err("no answer".to_owned()), &health)
                .blind
                .as_deref(),
            Some("no answer")
        );
        health.set_capture(CaptureState::Failed("the device is gone".to_owned()));
        let look = Look::new(Err("no answer".to_owned()), &health);
        assert_eq!(look.blind.as_deref(), Some("the device is gone"));
    }
}
