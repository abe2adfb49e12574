//! Where flow records lie: one hash look-up finds any flow; idle order and timers are lists through the
//! entries, so that neither eviction nor a deadline ever scans the table.
//!
//! What every packet needs of a flow lies in two cache lines of their own; what only a change of state needs lies beside.

use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;

use flowproof_common::key::FlowKey;
use flowproof_common::record::FlowRecord;
use foldhash::fast::RandomState;

use super::index::Index;
use super::slab::Slab;
use super::table::Moments;

/// No entry.
const NIL: u32 = u32::MAX;
/// Nanoseconds of a timer bucket as a power of two: 2^27 ns, about 134 ms.
pub(super) const BUCKET_SHIFT: u32 = 27;
/// Buckets of the wheel, a power of two: about 137 s. Later deadlines are looked at again once a turn.
const BUCKETS: u64 = 1024;
/// In place of a bucket of the wheel: no timer.
const NO_TIMER: u16 = u16::MAX;

#[derive(Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
}

const UNLINKED: Link = Link {
    previous: NIL,
    next: NIL,
};

/// A flow.
#[repr(C, align(64))]
pub(super) struct Entry {
    pub(super) key: FlowKey,
    pub(super) record: FlowRecord,
    pub(super) moments: Moments,
    /// Bucket in which the entry was last moved to the end of the idle list; its low bits will do.
    touched: u32,
    pub(super) verified: bool,
    live: bool,
}
const _: () = assert!(size_of::<Entry>() == 128);

/// The lists that an entry is in.
struct Links {
    idle: Link,
    timer: Link,
    /// Bucket of the wheel, or [`NO_TIMER`].
    due: u16,
}

/// Index of an entry; valid until the entry is removed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

/// Hash of a key.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Hash(u32);

pub(super) struct Store {
    index: Index,
    hasher: RandomState,
    entries: Slab<Entry>,
    links: Slab<Links>,
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
            index: Index::new(),
            hasher: RandomState::default(),
            entries: Slab::new(),
            links: Slab::new(),
            free: Vec::new(),
            verified: 0,
            unverified: 0,
            longest_idle: NIL,
            latest: NIL,
            wheel: (0..BUCKETS).map(|_| NIL).collect(),
            current: 0,
        }
    }

    #[inline]
    pub(super) fn hash(&self, key: &FlowKey) -> Hash {
        // Whole words; the derived form would feed every field on its own.
        let mut state = self.hasher.build_hasher();
        state.write_u128(u128::from_ne_bytes(key.a.bytes()));
        state.write_u128(u128::from_ne_bytes(key.b.bytes()));
        state.write_u64(
            u64::from(key.port_a)
                | u64::from(key.port_b) << 16
                | u64::from(key.protocol) << 32
                | u64::from(key.icmp_type) << 40,
        );
        Hash((state.finish() >> 32) as u32)
    }

    pub(super) fn find(&self, key: &FlowKey) -> Option<Place> {
        self.find_hashed(self.hash(key), key)
    }

    /// The same for whoever has the hash already.
    #[inline]
    pub(super) fn find_hashed(&self, hash: Hash, key: &FlowKey) -> Option<Place> {
        self.index
            .find(hash.0, |place| self.entries.get(place).key == *key)
            .map(Place)
    }

    /// The entry that most likely has the key with this hash. Keys are not compared, so that no entry is touched.
    #[inline]
    pub(super) fn likely(&self, hash: Hash) -> Option<Place> {
        self.index.likely(hash.0).map(Place)
    }

    /// Reads where the index has these hashes, and does nothing with it.
    #[inline]
    pub(super) fn fetch_index(&self, hashes: impl Iterator<Item = Hash>) {
        black_box(hashes.fold(0, |sum, hash| sum ^ self.index.at_home(hash.0)));
    }

    /// Reads both cache lines of entries, and does nothing with it.
    #[inline]
    pub(super) fn fetch(&self, places: impl Iterator<Item = Place>) {
        black_box(places.fold(0, |sum, place| {
            let entry = self.get(place);
            sum ^ entry.key.protocol ^ u8::from(entry.verified)
        }));
    }

    /// The entry, if it has this key.
    #[inline]
    pub(super) fn get_if(&mut self, place: Place, key: &FlowKey) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(place.0);
        (entry.live && entry.key == *key).then_some(entry)
    }

    #[inline]
    pub(super) fn get(&self, place: Place) -> &Entry {
        self.entries.get(place.0)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: Place) -> &mut Entry {
        self.entries.get_mut(place.0)
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

    /// Adds an unverified entry, whose key must be new and have this hash, without a timer.
    pub(super) fn insert(
        &mut self,
        hash: Hash,
        key: FlowKey,
        record: FlowRecord,
        moments: Moments,
        now: u64,
    ) -> Place {
        let entry = Entry {
            key,
            record,
            moments,
            touched: bucket_mark(now),
            verified: false,
            live: true,
        };
        let links = Links {
            idle: UNLINKED,
            timer: UNLINKED,
            due: NO_TIMER,
        };
        let at = if let Some(at) = self.free.pop() {
            *self.entries.get_mut(at) = entry;
            *self.links.get_mut(at) = links;
            at
        } else {
            self.links.push(links);
            self.entries.push(entry)
        };
        self.index.insert(hash.0, at);
        self.unverified += 1;
        self.append_idle(at);
        Place(at)
    }

    pub(super) fn remove(&mut self, place: Place) {
        let at = place.0;
        let hash = self.hash(&self.get(place).key);
        self.index.remove(hash.0, at);
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
    #[inline]
    pub(super) fn touch(&mut self, place: Place, now: u64) {
        let bucket = bucket_mark(now);
        let entry = self.get_mut(place);
        if entry.verified || entry.touched == bucket {
            return;
        }
        entry.touched = bucket;
        self.unlink_idle(place.0);
        self.append_idle(place.0);
    }

    fn append_idle(&mut self, at: u32) {
        self.links.get_mut(at).idle = Link {
            previous: self.latest,
            next: NIL,
        };
        match self.latest {
            NIL => self.longest_idle = at,
            last => self.links.get_mut(last).idle.next = at,
        }
        self.latest = at;
    }

    fn unlink_idle(&mut self, at: u32) {
        let Link { previous, next } = std::mem::replace(&mut self.links.get_mut(at).idle, UNLINKED);
        match previous {
            NIL => self.longest_idle = next,
            entry => self.links.get_mut(entry).idle.next = next,
        }
        match next {
            NIL => self.latest = previous,
            entry => self.links.get_mut(entry).idle.previous = previous,
        }
    }

    /// Sets the timer of an entry to `deadline` (nanoseconds) unless it is set to an earlier time, which is as
    /// good: whoever takes a timer that is due decides anew.
    pub(super) fn set_timer(&mut self, place: Place, deadline: u64) {
        let at = place.0;
        let bucket = (deadline >> BUCKET_SHIFT).saturating_add(1);
        let wait = bucket.clamp(self.current + 1, self.current + BUCKETS - 1) - self.current;
        let due = self.links.get(at).due;
        if due != NO_TIMER && u64::from(due).wrapping_sub(self.current) % BUCKETS <= wait {
            return;
        }
        self.unlink_timer(at);
        let slot = wheel_slot(self.current + wait);
        let next = std::mem::replace(&mut self.wheel[usize::from(slot)], at);
        if next != NIL {
            self.links.get_mut(next).timer.previous = at;
        }
        let links = self.links.get_mut(at);
        links.due = slot;
        links.timer = Link {
            previous: NIL,
            next,
        };
    }

    /// Whether [`Self::take_due`] may have something at `now`.
    #[inline]
    pub(super) fn may_be_due(&self, now: u64) -> bool {
        now >> BUCKET_SHIFT >= self.current
    }

    /// Takes an entry whose timer is due at `now`, which then has no timer.
    pub(super) fn take_due(&mut self, now: u64) -> Option<Place> {
        let until = now >> BUCKET_SHIFT;
        // After a leap in time one turn visits every bucket.
        self.current = self.current.max(until.saturating_sub(BUCKETS - 1));
        while self.current <= until {
            let at = self.wheel[usize::from(wheel_slot(self.current))];
            if at != NIL {
                self.unlink_timer(at);
                return Some(Place(at));
            }
            self.current += 1;
        }
        None
    }

    fn unlink_timer(&mut self, at: u32) {
        let links = self.links.get_mut(at);
        let Link { previous, next } = std::mem::replace(&mut links.timer, UNLINKED);
        let due = std::mem::replace(&mut links.due, NO_TIMER);
        if due == NO_TIMER {
            return;
        }
        match previous {
            NIL => self.wheel[usize::from(due)] = next,
            entry => self.links.get_mut(entry).timer.next = next,
        }
        if next != NIL {
            self.links.get_mut(next).timer.previous = previous;
        }
    }
}

/// The place of a bucket of time in the wheel.
const fn wheel_slot(bucket: u64) -> u16 {
    (bucket % BUCKETS) as u16
}

/// The bucket of a time, as far as it is kept.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "that it comes round after 18 years does not matter"
)]
const fn bucket_mark(now: u64) -> u32 {
    (now >> BUCKET_SHIFT) as u32
}
