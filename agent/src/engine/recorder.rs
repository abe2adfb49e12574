//! What the capture thread gathers for the ledger between two rounds: who talked to whom, and what nobody expected. Counters
//! in the tables remember how much a row had and not between whom; a flow's record is gone seconds after its end; so
//! this is counted when it happens, from the same events that everything else hears of. Bounded whatever the network
//! sends: what finds no room is counted.

use std::collections::HashMap;

use flowproof_common::address::Address;
use flowproof_common::record::{Event, EventKind};
use flowproof_common::state::Outcome;

use super::unexpected::UnexpectedService;
use crate::ledger::{HourCounts, HourKey, MOST_HOURS, UnexpectedSeen};
use crate::names::{Namer, wall_time};

/// Different unexpected services between two rounds.
const MOST_UNEXPECTED: usize = 4_096;
/// Names that a flow is kept with; an address may have many.
const MOST_NAMES: usize = 4;

/// What happened since the round before.
#[derive(Debug, Default)]
pub struct Record {
    /// Flows by the hour.
    pub hours: HashMap<HourKey, HourCounts>,
    /// Unexpected flows.
    pub unexpected: HashMap<UnexpectedService, UnexpectedSeen>,
    /// Things that found no room.
    pub dropped: u64,
}

/// Whether an event says that a flow began to count.
fn begins(event: &Event) -> bool {
    // A flow that a reload judges anew is still the same conversation: it was counted when it began.
    let begun = [EventKind::Begun as u8, EventKind::Named as u8];
    begun.contains(&event.kind)
}

impl Record {
    /// Whether an event is one to note: it begins or decides a flow whose verdict is settled.
    pub(super) fn wants(event: &Event) -> bool {
        !event.record.state.is_held() && (begins(event) || event.kind == EventKind::Decided as u8)
    }

    /// Notes an event that [`Self::wants`]. `offset` leads from its time to the Unix epoch, `service` is what it is
    /// counted under if it is unexpected.
    pub(super) fn note(
        &mut self,
        event: &Event,
        namer: &Namer,
        offset: i128,
        service: Option<UnexpectedService>,
    ) {
        let side = event.record.state.initiator();
        let (initiator, responder) = (event.key.end(side).0, event.key.end(side.other()).0);
        let time = wall_time::shifted(event.time, offset);
        let counts = counts_of(event);
        let key = HourKey {
            hour: HourKey::hour_of(time),
            initiator,
            responder,
            protocol: event.key.protocol,
            port: event.key.service(side.other()),
            verdict: event.record.state.verdict(),
            names: names_of(namer, event, &responder),
        };
        let room = self.hours.len() < MOST_HOURS;
        match self.hours.get_mut(&key) {
            Some(before) => before.add(&counts),
            None if room => drop(self.hours.insert(key, counts)),
            None => self.dropped += 1,
        }
        let Some(service) = service else { return };
        let seen = UnexpectedSeen {
            flows: counts.begun,
            answered: counts.decided[Outcome::Answered as usize],
            seen: [time; 2],
            samples: vec![[initiator, responder]],
        };
        let room = self.unexpected.len() < MOST_UNEXPECTED;
        match self.unexpected.get_mut(&service) {
            Some(before) => before.merge(seen),
            None if room => drop(self.unexpected.insert(service, seen)),
            None => self.dropped += 1,
        }
    }

    /// Takes back what nobody took.
    pub(super) fn put_back(&mut self, record: Self) {
        let newer = std::mem::replace(self, record);
        self.dropped += newer.dropped;
        for (key, counts) in newer.hours {
            self.hours.entry(key).or_default().add(&counts);
        }
        for (service, seen) in newer.unexpected {
            match self.unexpected.get_mut(&service) {
                Some(before) => before.merge(seen),
                None => drop(self.unexpected.insert(service, seen)),
            }
        }
    }
}

fn counts_of(event: &Event) -> HourCounts {
    let mut counts = HourCounts::default();
    if begins(event) {
        counts.begun = 1;
    } else {
        counts.decided[event.record.state.outcome() as usize] = 1;
    }
    counts
}

/// The name that a flow was judged by, or the names of its responder, sorted, with blanks between them.
fn names_of(namer: &Namer, event: &Event, responder: &Address) -> String {
    let flow = namer.flow_name(&event.key, &event.record);
    if let Some(name) = flow.and_then(|flow| flow.name.as_ref()) {
        return name.to_string();
    }
    let mut names: Vec<String> = namer
        .names_of(responder, MOST_NAMES)
        .into_iter()
        .map(|name| name.to_string())
        .collect();
    names.sort_unstable();
    names.join(" ")
}

#[cfg(test)]
mod tests;
