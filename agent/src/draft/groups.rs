//! Flows that two matrices judge otherwise, by who talked to whom over what: bounded, and the same whatever the order in
//! which they come, as long as there is room.

use std::sync::Arc;

use flowproof_common::address::Address;
use flowproof_common::classify::Verdict;
use flowproof_common::state::Outcome;
use hashbrown::HashMap;

use super::report::Tally;
use crate::ledger::{HourCounts, HourRecord};
use crate::matrix::ServiceKey;
use crate::matrix::compiled::BoundRole;

/// Groups that each kind of change has room for: about 10 MiB.
pub(super) const ROOM: usize = 10_000;
/// Pairs of addresses that are kept of a group.
const SAMPLES: usize = 4;

/// What the draft makes of flows that the matrix in force judges otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Becomes {
    Unexpected,
    Covered,
    Unscoped,
}

/// By the matrix in force, and by the draft.
type Both<T> = [Arc<[T]>; 2];

/// What flows of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    pub(super) becomes: Becomes,
    pub(super) was: Verdict,
    /// Roles of the initiator.
    pub(super) from: Both<BoundRole>,
    /// Roles of the responder.
    pub(super) to: Both<BoundRole>,
    pub(super) protocol: u8,
    /// The port, or ICMP type, where no row covers it; else the rows say which are meant.
    pub(super) port: Option<u16>,
    /// What covers them.
    pub(super) covered: Both<ServiceKey>,
}

/// Adds flows.
pub(super) fn add(tally: &mut Tally, counts: &HourCounts) {
    tally.flows = tally.flows.saturating_add(counts.begun);
    let answered = counts.decided[Outcome::Answered as usize];
    tally.answered = tally.answered.saturating_add(answered);
}

/// Two ends that talked, as of the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) ends: [Address; 2],
    pub(super) hour: u64,
    pub(super) port: u16,
    pub(super) names: Box<str>,
}

impl Sample {
    fn rank(&self) -> (u64, [[u8; 16]; 2]) {
        rank(self.hour, &self.ends)
    }
}

fn rank(hour: u64, ends: &[Address; 2]) -> (u64, [[u8; 16]; 2]) {
    (hour, ends.each_ref().map(Address::bytes))
}

/// Flows of a group.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) tally: Tally,
    /// First and last.
    pub(super) hours: [u64; 2],
    /// Lowest and highest.
    pub(super) ports: [u16; 2],
    /// The newest of each pair of addresses, in no order.
    samples: Vec<Sample>,
}

impl Group {
    const fn new(record: &HourRecord) -> Self {
        let (hour, port) = (record.key.hour, record.key.port);
        Self {
            tally: Tally {
                flows: 0,
                answered: 0,
            },
            hours: [hour, hour],
            ports: [port, port],
            samples: Vec::new(),
        }
    }

    fn add(&mut self, record: &HourRecord) {
        let (hour, port) = (record.key.hour, record.key.port);
        add(&mut self.tally, &record.counts);
        self.hours = [self.hours[0].min(hour), self.hours[1].max(hour)];
        self.ports = [self.ports[0].min(port), self.ports[1].max(port)];
        self.sample(record);
    }

    /// Keeps the newest pairs. A pair that was let go of for newer ones comes back only by being newer itself, so the order
    /// does not matter.
    fn sample(&mut self, record: &HourRecord) {
        let key = &record.key;
        let ends = [key.initiator, key.responder];
        let new = || Sample {
            ends,
            hour: key.hour,
            port: key.port,
            names: key.names.as_str().into(),
        };
        if let Some(known) = self.samples.iter_mut().find(|known| known.ends == ends) {
            if (known.hour, known.port, &*known.names) < (key.hour, key.port, key.names.as_str()) {
                *known = new();
            }
        } else if self.samples.len() < SAMPLES {
            self.samples.push(new());
        } else if let Some(oldest) = self.samples.iter_mut().min_by_key(|known| known.rank())
            && oldest.rank() < rank(key.hour, &ends)
        {
            *oldest = new();
        }
    }

    /// The newest first.
    pub(super) fn samples(&self) -> Vec<&Sample> {
        let mut samples: Vec<&Sample> = self.samples.iter().collect();
        samples.sort_by_key(|sample| std::cmp::Reverse(sample.rank()));
        samples
    }
}

/// A place in [`Groups`], or that there was none.
pub(super) type Place = Option<u32>;

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    places: HashMap<GroupKey, u32, foldhash::fast::RandomState>,
    list: Vec<Group>,
    /// How many there are of each kind.
    count: [usize; 3],
    /// Flows that found no room, by kind.
    left_out: [Tally; 3],
}

impl Groups {
    /// The place of the group that a flow belongs to, made if it is the first.
    pub(super) fn place(&mut self, key: &GroupKey, record: &HourRecord) -> Place {
        if let Some(place) = self.places.get(key) {
            return Some(*place);
        }
        let count = &mut self.count[key.becomes as usize];
        if *count >= ROOM {
            return None;
        }
        *count += 1;
        let place = u32::try_from(self.list.len()).ok()?;
        self.list.push(Group::new(record));
        self.places.insert(key.clone(), place);
        Some(place)
    }

    pub(super) fn add(&mut self, becomes: Becomes, place: Place, record: &HourRecord) {
        match place.and_then(|place| self.list.get_mut(place as usize)) {
            Some(group) => group.add(record),
            None => add(&mut self.left_out[becomes as usize], &record.counts),
        }
    }

    pub(super) const fn left_out(&self, becomes: Becomes) -> Tally {
        self.left_out[becomes as usize]
    }

    /// Groups of a kind, in no order.
    pub(super) fn of(&self, becomes: Becomes) -> impl Iterator<Item = (&GroupKey, &Group)> {
        self.places
            .iter()
            .filter(move |(key, _)| key.becomes == becomes)
            .filter_map(|(key, place)| Some((key, self.list.get(*place as usize)?)))
    }
}
