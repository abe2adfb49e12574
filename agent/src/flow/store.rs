//! Where flow records lie: one hash look-up finds any flow; idle order and timers are lists through the
//! entries themselves, so that neither eviction nor a deadline ever scans the table.

use std::hash::{BuildHasher, Hasher};

use flowproof_common::key::FlowKey;
use flowproof_common::record::FlowRecord;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::table::Span;

/// No entry.
const NIL: u32 = u32::MAX;
/// Nanoseconds of a timer bucket as a power of two: 2^27 ns, about 134 ms.
pub(super) const BUCKET_SHIFT: u32 = 27;
/// Buckets of the wheel, a power of two: about 137 s. Later deadlines are looked at again once a turn.
const BUCKETS: u64 = 1024;

#[derive(Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
}

const UNLINKED: Link = Link {
    previous: NIL,
    next: NIL,
};

pub(super) struct Entry {
    pub(super) key: FlowKey,
    pub(super) record: FlowRecord,
    pub(super) span: Span,
    /// Bucket of the timer that is set.
    due: u64,
    timer: Link,
    idle: Link,
    /// Bucket in which the entry was last moved to the end of the idle list.
    touched: u64,
    pub(super) verified: bool,
    live: bool,
}

/// Index of an entry; valid until the entry is removed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

pub(super) struct Store {
    index: HashTable<u32>,
    hasher: RandomState,
    entries: Vec<Entry>,
    free: Vec<u32>,
    verified: usize,
    unverified: usize,
    /// Ends of the list of unverified entries, longest idle first.
    longest_idle: u32,
    latest: u32,
    wheel: Box<[u32]>,
    /// The first bucket not yet emptied.
    current: u64,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            index: HashTable::new(),
            hasher: RandomState::default(),
            entries: Vec::new(),
            free: Vec::new(),
            verified: 0,
            unverified: 0,
            longest_idle: NIL,
            latest: NIL,
            wheel: (0..BUCKETS).map(|_| NIL).collect(),
            current: 0,
        }
    }

    fn hash(hasher: &RandomState, key: &FlowKey) -> u64 {
        // Whole words; the derived form would feed every field on its own.
        let mut state = hasher.build_hasher();
        state.write_u128(u128::from_ne_bytes(key.a.bytes()));
        state.write_u128(u128::from_ne_bytes(key.b.bytes()));
        state.write_u64(
            u64::from(key.port_a)
                | u64::from(key.port_b) << 16
                | u64::from(key.protocol) << 32
                | u64::from(key.icmp_type) << 40,
        );
        state.finish()
    }

    pub(super) fn find(&self, key: &FlowKey) -> Option<Place> {
        let hash = Self::hash(&self.hasher, key);
        self.index
            .find(hash, |place| self.entries[*place as usize].key == *key)
            .map(|place| Place(*place))
    }

    pub(super) fn get(&self, place: Place) -> &Entry {
        &self.entries[place.0 as usize]
    }

    pub(super) fn get_mut(&mut self, place: Place) -> &mut Entry {
        &mut self.entries[place.0 as usize]
    }

    pub(super) fn verified(&self) -> usize {
        self.verified
    }

    pub(super) fn unverified(&self) -> usize {
        self.unverified
    }

    /// The unverified entry that has been idle for the longest time.
    pub(super) fn longest_idle(&self) -> Option<Place> {
        (self.longest_idle != NIL).then_some(Place(self.longest_idle))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.live)
    }

    /// Adds an unverified entry, whose key must be new, without a timer.
    pub(super) fn insert(
        &mut self,
        key: FlowKey,
        record: FlowRecord,
        span: Span,
        now: u64,
    ) -> Place {
        let entry = Entry {
            key,
            record,
            span,
            due: u64::MAX,
            timer: UNLINKED,
            idle: UNLINKED,
            touched: now >> BUCKET_SHIFT,
            verified: false,
            live: true,
        };
        let at = if let Some(at) = self.free.pop() {
            self.entries[at as usize] = entry;
            at
        } else {
            // The limits of both tables are 32-bit numbers.
            let at = u32::try_from(self.entries.len()).unwrap_or(NIL - 1);
            self.entries.push(entry);
            at
        };
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index
            .insert_unique(Self::hash(hasher, &key), at, |place| {
                Self::hash(hasher, &entries[*place as usize].key)
            });
        self.unverified += 1;
        self.append_idle(at);
        Place(at)
    }

    pub(super) fn remove(&mut self, place: Place) {
        let at = place.0;
        let hash = Self::hash(&self.hasher, &self.get(place).key);
        if let Ok(found) = self.index.find_entry(hash, |other| *other == at) {
            found.remove();
        }
        self.unlink_timer(at);
        if self.get(place).verified {
            self.verified -= 1;
        } else {
            self.unlink_idle(at);
            self.unverified -= 1;
        }
        self.get_mut(place).live = false;
        self.free.push(at);
    }

    /// Moves an entry from the unverified to the verified or back.
    pub(super) fn set_verified(&mut self, place: Place, verified: bool) {
        if self.get(place).verified == verified {
            return;
        }
        self.get_mut(place).verified = verified;
        if verified {
            self.unlink_idle(place.0);
            self.unverified -= 1;
            self.verified += 1;
        } else {
            self.append_idle(place.0);
            self.verified -= 1;
            self.unverified += 1;
        }
    }

    /// Notes that an entry is in use. Order within a bucket of time is not kept: it would cost every packet
    /// three cache misses.
    pub(super) fn touch(&mut self, place: Place, now: u64) {
        let bucket = now >> BUCKET_SHIFT;
        let entry = self.get_mut(place);
        if entry.verified || entry.touched == bucket {
            return;
        }
        entry.touched = bucket;
        self.unlink_idle(place.0);
        self.append_idle(place.0);
    }

    fn append_idle(&mut self, at: u32) {
        self.entries[at as usize].idle = Link {
            previous: self.latest,
            next: NIL,
        };
        match self.latest {
            NIL => self.longest_idle = at,
            last => self.entries[last as usize].idle.next = at,
        }
        self.latest = at;
    }

    fn unlink_idle(&mut self, at: u32) {
        let Link { previous, next } =
            std::mem::replace(&mut self.entries[at as usize].idle, UNLINKED);
        match previous {
            NIL => self.longest_idle = next,
            entry => self.entries[entry as usize].idle.next = next,
        }
        match next {
            NIL => self.latest = previous,
            entry => self.entries[entry as usize].idle.previous = previous,
        }
    }

    /// Sets the timer of an entry to `deadline` (nanoseconds) unless it is set to an earlier time, which is as
    /// good: whoever takes a timer that is due decides anew.
    pub(super) fn set_timer(&mut self, place: Place, deadline: u64) {
        let at = place.0;
        let bucket = (deadline >> BUCKET_SHIFT).saturating_add(1);
        let due = bucket.clamp(self.current + 1, self.current + BUCKETS - 1);
        if self.get(place).due <= due {
            return;
        }
        self.unlink_timer(at);
        let slot = Self::slot(due);
        let next = self.wheel[slot];
        self.wheel[slot] = at;
        if next != NIL {
            self.entries[next as usize].timer.previous = at;
        }
        let entry = &mut self.entries[at as usize];
        entry.due = due;
        entry.timer = Link {
            previous: NIL,
            next,
        };
    }

    /// Takes an entry whose timer is due at `now`, which then has no timer.
    pub(super) fn take_due(&mut self, now: u64) -> Option<Place> {
        let until = now >> BUCKET_SHIFT;
        // After a leap in time one turn visits every bucket.
        self.current = self.current.max(until.saturating_sub(BUCKETS - 1));
        while self.current <= until {
            let at = self.wheel[Self::slot(self.current)];
            if at != NIL {
                self.unlink_timer(at);
                return Some(Place(at));
            }
            self.current += 1;
        }
        None
    }

    fn unlink_timer(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        let Link { previous, next } = std::mem::replace(&mut entry.timer, UNLINKED);
        let due = std::mem::replace(&mut entry.due, u64::MAX);
        if due == u64::MAX {
            return;
        }
        match previous {
            NIL => self.wheel[Self::slot(due)] = next,
            entry => self.entries[entry as usize].timer.next = next,
        }
        if next != NIL {
            self.entries[next as usize].timer.previous = previous;
        }
    }

    const fn slot(bucket: u64) -> usize {
        (bucket % BUCKETS) as usize
    }
}
