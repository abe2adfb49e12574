//! From the hash of a key to the entry that has it. Written for this table rather than taken from a library, because the
//! search comes in two parts: what hashes alike can be asked for many packets at once, so that the machine waits for the
//! memory of all of them together, and only then are keys compared. No library's table lets its caller do that.
//!
//! Open addressing with linear probing. A slot keeps the hash, so that growing and closing gaps never touch an entry.

/// No entry.
const NIL: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Slot {
    hash: u32,
    place: u32,
}

const EMPTY: Slot = Slot {
    hash: 0,
    place: NIL,
};

/// Slots of an empty index, a power of two.
const LEAST: usize = 64;

pub(super) struct Index {
    /// A power of two; at most half are taken, so that most searches end where they begin.
    slots: Box<[Slot]>,
    taken: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![EMPTY; LEAST].into(),
            taken: 0,
        }
    }

    #[inline]
    fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    /// What stands where this hash would be put first: to have it fetched.
    #[inline]
    pub(super) fn at_home(&self, hash: u32) -> u32 {
        self.slots[hash as usize & self.mask()].place
    }

    /// The first entry whose key has this hash, which most likely is the one that is looked for.
    #[inline]
    pub(super) fn likely(&self, hash: u32) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// The entry with this hash of which `is_it` is true.
    #[inline]
    pub(super) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.mask();
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at & mask];
            if slot.place == NIL {
                return None;
            }
            if slot.hash == hash && is_it(slot.place) {
                return Some(slot.place);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds an entry, which must not be there.
    pub(super) fn insert(&mut self, hash: u32, place: u32) {
        if (self.taken + 1) * 2 > self.slots.len() {
            let larger = vec![EMPTY; self.slots.len() * 2].into();
            for slot in std::mem::replace(&mut self.slots, larger) {
                if slot.place != NIL {
                    self.put(slot);
                }
            }
        }
        self.put(Slot { hash, place });
        self.taken += 1;
    }

    fn put(&mut self, slot: Slot) {
        let mask = self.mask();
        let mut at = slot.hash as usize & mask;
        while self.slots[at].place != NIL {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    /// Takes an entry out; it must be there.
    pub(super) fn remove(&mut self, hash: u32, place: u32) {
        let mask = self.mask();
        let mut at = hash as usize & mask;
        while self.slots[at].place != place {
            if self.slots[at].place == NIL {
                return;
            }
            at = (at + 1) & mask;
        }
        self.taken -= 1;
        // What lies behind moves up as long as it is not where its hash wants it: no gap may part it from there.
        let mut next = at;
        loop {
            next = (next + 1) & mask;
            let slot = self.slots[next];
            if slot.place == NIL {
                break;
            }
            let home = slot.hash as usize & mask;
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(at) & mask {
                self.slots[at] = slot;
                at = next;
            }
        }
        self.slots[at] = EMPTY;
    }
}

#[cfg(test)]
mod tests {
    mod properties {
        use std::collections::HashMap;

        use proptest::prelude::*;

        use super::super::*;

        proptest! {
            /// Few different hashes, so that runs are long, wrap around and are torn open; a map is the oracle.
            #[test]
            fn finds_what_is_in_it_and_nothing_else(steps in prop::collection::vec((any::<bool>(), 0..300_u32), 0..2_000)) {
                let hash_of = |place: u32| (place % 23).wrapping_mul(0x0fff_fff3);
                let mut index = Index::new();
                let mut oracle = HashMap::new();
                for (add, place) in steps {
                    let hash = hash_of(place);
                    if add && oracle.insert(place, hash).is_none() {
                        index.insert(hash, place);
                    } else if !add && oracle.remove(&place).is_some() {
                        index.remove(hash, place);
                    }
                }
                prop_assert_eq!(index.taken, oracle.len());
                for place in 0..300 {
                    let found = index.find(hash_of(place), |other| other == place);
                    prop_assert_eq!(found.is_some(), oracle.contains_key(&place), "{}", place);
                }
                for hash in (0..24).map(hash_of) {
                    let likely = index.likely(hash);
                    prop_assert_eq!(likely.map(hash_of), oracle.values().any(|known| *known == hash).then_some(hash));
                }
            }
        }
    }
}
