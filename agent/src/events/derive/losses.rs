//! Losses as episodes: when a stage begins to lose and when it has lost nothing for a while, whatever happens in between.

use std::collections::BTreeMap;

use super::super::model::Body;
use crate::engine::actor::View;
use crate::export::times::time;

/// An episode is over when nothing was lost for so long, nanoseconds.
pub(super) const QUIET: u64 = 30_000_000_000;
/// Not a loss: a flow that found no room among the verified is still known.
const NO_LOSS: &str = "promotion";

#[derive(Debug, Default)]
struct Stage {
    /// Counted at the last round.
    total: u64,
    losing: Option<Episode>,
}

#[derive(Debug)]
struct Episode {
    since: u64,
    /// Counted before it.
    before: u64,
    /// When it grew last.
    grew: u64,
}

/// What each stage lost.
#[derive(Debug, Default)]
pub(super) struct Losses {
    stages: BTreeMap<&'static str, Stage>,
}

impl Losses {
    pub(super) fn round(&mut self, now: u64, view: &View, events: &mut Vec<Body>) {
        let interfaces = view.snapshot.interfaces.iter();
        let unparsed = interfaces.map(|(_, counters)| counters.unparsed).sum();
        let own = [("queue", view.queue_lost), ("unparsed", unparsed)];
        let lost = view.snapshot.lost.iter().copied().chain(own);
        for (name, total) in lost.filter(|(name, _)| *name != NO_LOSS) {
            self.stage(now, name, total, events);
        }
    }

    fn stage(&mut self, now: u64, name: &'static str, total: u64, events: &mut Vec<Body>) {
        // What was lost before the first round is of nobody knows when.
        let stage = self.stages.entry(name).or_insert(Stage {
            total,
            losing: None,
        });
        let grown = total.checked_sub(stage.total);
        let before = std::mem::replace(&mut stage.total, total);
        match (&mut stage.losing, grown) {
            // Counters that began anew.
            (losing, None) => *losing = None,
            (losing @ None, Some(lost @ 1..)) => {
                *losing = Some(Episode {
                    since: now,
                    before,
                    grew: now,
                });
                events.push(Body::LossBegan {
                    stage: name.to_owned(),
                    lost,
                });
            }
            (Some(episode), Some(1..)) => episode.grew = now,
            (Some(episode), Some(0)) if now.saturating_sub(episode.grew) >= QUIET => {
                events.push(Body::LossEnded {
                    stage: name.to_owned(),
                    lost: total - episode.before,
                    since: time(episode.since),
                });
                stage.losing = None;
            }
            (None | Some(_), Some(0)) => {}
        }
    }
}
