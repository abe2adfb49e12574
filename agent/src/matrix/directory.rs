//! Who owns which counter slot, also of matrices that are no longer in force.

use flowproof_common::classify::FIRST_RULE_SLOT;
use hashbrown::{HashMap, HashTable};

use super::installed::MemberId;
use super::lists::Lists;

/// Who owns which counter slot.
#[derive(Clone, Debug, Default)]
pub struct SlotDirectory {
    /// Members of each slot, sorted.
    slots: Lists<MemberId>,
    /// Finds slots by a member; knows those up to a certain one.
    index: Index,
    /// The slots beyond by their members, and how many members these have.
    recent: HashMap<MemberId, Vec<u32>, foldhash::fast::RandomState>,
    recent_members: usize,
    /// Slots with more than one member, by all of them. Those with one are found by it.
    by_members: HashTable<u32>,
}

/// Members that are entered before the index is made anew, at least.
const LEAST_RECENT: usize = 1024;

impl SlotDirectory {
    /// Rebuilt from what pinned maps hold: (slot, its members).
    #[must_use]
    pub fn restore(slots: impl IntoIterator<Item = (u32, Vec<MemberId>)>) -> Self {
        let mut directory = Self::default();
        let mut slots: Vec<_> = slots.into_iter().collect();
        slots.sort_unstable();
        for (slot, mut members) in slots {
            members.sort_unstable();
            let Some(index) = slot.checked_sub(FIRST_RULE_SLOT) else {
                continue;
            };
            while directory.slots.len() < index as usize {
                directory.slots.push([]);
            }
            if directory.slots.len() == index as usize {
                directory.enter(slot, members);
            }
        }
        directory.settle();
        directory
    }

    fn enter(&mut self, slot: u32, members: Vec<MemberId>) {
        for member in &members {
            self.recent.entry(*member).or_default().push(slot);
        }
        self.recent_members += members.len();
        let several = members.len() > 1;
        let own = hash(members.iter().copied());
        self.slots.push(members);
        if several {
            let Self {
                slots, by_members, ..
            } = self;
            by_members.insert_unique(own, slot, |slot| {
                hash(members_of(slots, *slot).iter().copied())
            });
        }
        // Half as many again as the index has, so that making it anew costs each slot a few looks in all.
        if self.recent_members > LEAST_RECENT.max(self.index.slots.len() / 2) {
            self.index_all();
        }
    }

    fn index_all(&mut self) {
        self.index = Index::of(&self.slots);
        self.recent.clear();
        self.recent_members = 0;
    }

    /// Gives back what was kept for more slots, which may come all the same.
    pub(super) fn settle(&mut self) {
        if !self.recent.is_empty() {
            self.index_all();
        }
        self.recent = HashMap::default();
        self.slots.shrink_to_fit();
        let slots = &self.slots;
        self.by_members
            .shrink_to_fit(|slot| hash(members_of(slots, *slot).iter().copied()));
    }

    /// Whether every slot of `other` is here with the same members.
    #[must_use]
    pub fn holds(&self, other: &Self) -> bool {
        self.slots.starts_with(&other.slots)
    }

    /// The slot of the set with these members, or the members back, sorted, if it has none.
    pub(super) fn known(&self, mut members: Vec<MemberId>) -> Result<u32, Vec<MemberId>> {
        members.sort_unstable();
        members.dedup();
        let slot = if let [only] = *members {
            self.slots_of(only)
                .find(|slot| members_of(&self.slots, *slot).len() == 1)
        } else {
            self.by_members
                .find(hash(members.iter().copied()), |slot| {
                    members_of(&self.slots, *slot) == members
                })
                .copied()
        };
        slot.ok_or(members)
    }

    /// The slot of the set with these members, a new one if it has none.
    ///
    /// # Panics
    /// With more than 2^32 sets, which no machine holds.
    #[must_use]
    #[expect(clippy::expect_used, reason = "documented, and out of reach")]
    pub fn slot_of(&mut self, members: Vec<MemberId>) -> u32 {
        match self.known(members) {
            Ok(slot) => slot,
            Err(members) => {
                let slot = u32::try_from(self.len()).expect("fewer than 2^32 rule sets");
                self.enter(slot, members);
                slot
            }
        }
    }

    /// Every slot that ever counted for `member`.
    pub fn slots_of(&self, member: MemberId) -> impl Iterator<Item = u32> {
        let recent = self.recent.get(&member).into_iter().flatten().copied();
        // A slot of several members may be in one bucket for two of them; in order, so that they are side by side.
        self.index
            .near(member)
            .chunk_by(|a, b| a == b)
            .filter_map(|same| same.first().copied())
            .filter(move |slot| members_of(&self.slots, *slot).contains(&member))
            .chain(recent)
    }

    /// Slots and their members, in the order of slots.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[MemberId])> {
        self.starting_with(FIRST_RULE_SLOT)
    }

    /// Slots from one on and their members, in the order of slots.
    pub fn starting_with(&self, first: u32) -> impl Iterator<Item = (u32, &[MemberId])> {
        let end = u32::try_from(self.len()).unwrap_or(u32::MAX);
        (first.max(FIRST_RULE_SLOT)..end).map(|slot| (slot, members_of(&self.slots, slot)))
    }

    /// How many slots are needed, the reserved ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() + FIRST_RULE_SLOT as usize
    }

    /// Whether no rule set has a slot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many members all slots have together.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.slots.item_count()
    }
}

fn members_of(slots: &Lists<MemberId>, slot: u32) -> &[MemberId] {
    slot.checked_sub(FIRST_RULE_SLOT)
        .and_then(|index| slots.get(index as usize))
        .unwrap_or_default()
}

/// Members are hashes already; this spreads what little order they have, and joins several.
fn hash(members: impl IntoIterator<Item = MemberId>) -> u64 {
    members.into_iter().fold(0, |hash: u64, member| {
        (hash.rotate_left(5) ^ member.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// Slots in the order of buckets, which the upper bits of a member's hash say: four bytes for each member of each slot, and
/// one or two for the buckets. A hash table of lists would take some sixty.
#[derive(Clone, Debug, Default)]
struct Index {
    bits: u32,
    /// Where each bucket starts, and where the last one ends.
    starts: Box<[u32]>,
    slots: Box<[u32]>,
}

impl Index {
    fn of(lists: &Lists<MemberId>) -> Self {
        let bits = (lists.item_count() / 2).max(1).ilog2();
        let each = || {
            (FIRST_RULE_SLOT..)
                .zip(lists.iter())
                .flat_map(|(slot, members)| members.iter().map(move |member| (slot, *member)))
        };
        let mut starts = vec![0_u32; (1 << bits) + 1];
        for (_, member) in each() {
            starts[bucket(member, bits) + 1] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut next = starts.clone();
        let mut slots = vec![0; lists.item_count()];
        for (slot, member) in each() {
            let next = &mut next[bucket(member, bits)];
            slots[*next as usize] = slot;
            *next += 1;
        }
        Self {
            bits,
            starts: starts.into(),
            slots: slots.into(),
        }
    }

    /// Slots that may be the member's.
    fn near(&self, member: MemberId) -> &[u32] {
        let bucket = bucket(member, self.bits);
        let (Some(start), Some(end)) = (self.starts.get(bucket), self.starts.get(bucket + 1))
        else {
            return &[];
        };
        &self.slots[*start as usize..*end as usize]
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "there are fewer buckets than members"
)]
fn bucket(member: MemberId, bits: u32) -> usize {
    hash([member]).checked_shr(64 - bits).unwrap_or(0) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn members(seed: &[u64]) -> Vec<MemberId> {
        seed.iter()
            .map(|id| MemberId::of(&id.to_string()))
            .collect()
    }

    fn slots_of(directory: &SlotDirectory, id: u64) -> Vec<u32> {
        let mut slots: Vec<u32> = directory.slots_of(members(&[id])[0]).collect();
        slots.sort_unstable();
        slots
    }

    #[test]
    fn a_set_keeps_its_slot() {
        let mut directory = SlotDirectory::default();
        assert_eq!(directory.slot_of(members(&[1])), 2);
        assert_eq!(directory.slot_of(members(&[1, 2])), 3);
        assert_eq!(directory.slot_of(members(&[2, 1, 2])), 3);
        assert_eq!(directory.slot_of(members(&[1])), 2);
        assert_eq!(directory.slot_of(members(&[2])), 4);
        assert_eq!(slots_of(&directory, 1), [2, 3]);
        assert_eq!(slots_of(&directory, 2), [3, 4]);
        assert!(slots_of(&directory, 3).is_empty());
        assert_eq!((directory.len(), directory.member_count()), (5, 4));
        directory.settle();
        assert_eq!(slots_of(&directory, 1), [2, 3]);
        assert_eq!(directory.slot_of(members(&[2, 1])), 3);
        assert_eq!(directory.slot_of(members(&[3])), 5);
        assert_eq!(directory.known(members(&[3])), Ok(5));
    }

    #[test]
    fn a_slot_that_was_lost_is_nobodys() {
        let directory = SlotDirectory::restore([(5, members(&[1, 2])), (3, members(&[3]))]);
        assert_eq!(directory.len(), 6);
        assert_eq!(slots_of(&directory, 1), [5]);
        assert_eq!(slots_of(&directory, 3), [3]);
        assert!(directory.known(Vec::new()).is_err());
        let empty = directory.iter().filter(|(_, own)| own.is_empty()).count();
        assert_eq!(empty, 2);
    }

    #[test]
    fn many_slots_are_found_while_they_come() {
        let mut directory = SlotDirectory::default();
        for id in 0..20_000 {
            let slot = directory.slot_of(members(&[id, id / 100 + 1_000_000]));
            assert_eq!(u64::from(slot), id + 2);
        }
        for id in 0..20_000 {
            assert_eq!(
                directory.slot_of(members(&[id / 100 + 1_000_000, id])),
                u32::try_from(id + 2).unwrap()
            );
            assert_eq!(slots_of(&directory, id), [u32::try_from(id + 2).unwrap()]);
        }
        assert_eq!(slots_of(&directory, 1_000_007).len(), 100);
    }

    mod properties {
        use super::*;

        proptest! {
            #[test]
            fn it_says_what_a_map_says(
                sets in prop::collection::vec(prop::collection::btree_set(0_u64..12, 1..4), 1..60),
                settled in 0_usize..60,
            ) {
                let mut directory = SlotDirectory::default();
                let mut map: BTreeMap<Vec<u64>, u32> = BTreeMap::new();
                for (number, set) in sets.iter().enumerate() {
                    let set: Vec<u64> = set.iter().copied().collect();
                    let new = u32::try_from(map.len()).unwrap() + FIRST_RULE_SLOT;
                    let slot = *map.entry(set.clone()).or_insert(new);
                    prop_assert_eq!(directory.slot_of(members(&set)), slot);
                    if number == settled {
                        directory.settle();
                    }
                }
                let restored = SlotDirectory::restore(
                    directory.iter().map(|(slot, members)| (slot, members.to_vec())),
                );
                for known in [&directory, &restored] {
                    prop_assert_eq!(known.len(), map.len() + 2);
                    for (set, slot) in &map {
                        prop_assert_eq!(known.known(members(set)), Ok(*slot));
                    }
                    for id in 0..12 {
                        let mut expect: Vec<u32> = map
                            .iter()
                            .filter(|(set, _)| set.contains(&id))
                            .map(|(_, slot)| *slot)
                            .collect();
                        expect.sort_unstable();
                        prop_assert_eq!(slots_of(known, id), expect);
                    }
                }
                prop_assert!(restored.holds(&directory) && directory.holds(&restored));
            }
        }
    }
}
