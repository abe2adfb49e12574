//! A compiled matrix whose rule sets have counter slots: what a capture back end judges by.
//!
//! A *rule set* is the set of requirement services that cover one kind of flow; it has one counter slot,
//! so that a flow covered by three requirements costs one count. Slots outlive a reload and, with pinned
//! maps, the daemon: a slot is known by its members (hashes of `system/requirement#service`), and a
//! requirement's total is the sum over every slot that it was ever a member of.

use std::collections::HashMap;
use std::sync::Arc;

use flowproof_common::classify::FIRST_RULE_SLOT;

use super::compiled::{Compiled, RuleSetIndex};

/// The name of a requirement's service for slots: FNV-1a, 64 bits, of `system/requirement#service`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MemberId(pub u64);

impl MemberId {
    /// Of the text `system/requirement#service`. Stable for ever: pinned maps hold it.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash)
    }
}

/// A compiled matrix and the slots of its rule sets.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The tables.
    pub compiled: Arc<Compiled>,
    /// All slots, those of earlier matrices included.
    pub directory: SlotDirectory,
    slots: Vec<u32>,
    set_of_slot: HashMap<u32, RuleSetIndex>,
}

impl Installed {
    /// Gives every rule set of `compiled` a slot, keeping those that `directory` knows.
    #[must_use]
    pub fn new(compiled: Arc<Compiled>, mut directory: SlotDirectory) -> Self {
        let slots: Vec<u32> = compiled
            .sets
            .iter()
            .map(|set| {
                let members = set
                    .iter()
                    .map(|key| MemberId::of(&compiled.matrix.service_id(*key)))
                    .collect();
                directory.slot_of(members)
            })
            .collect();
        let set_of_slot = (0..)
            .map(RuleSetIndex)
            .zip(&slots)
            .map(|(set, slot)| (*slot, set))
            .collect();
        Self {
            compiled,
            directory,
            slots,
            set_of_slot,
        }
    }

    /// Slot of a rule set.
    #[must_use]
    pub fn slot(&self, set: RuleSetIndex) -> u32 {
        self.slots[set.0 as usize]
    }

    /// The requirement services that a slot counts for in the matrix in force; empty for the reserved
    /// slots and for sets of earlier matrices.
    #[must_use]
    pub fn members(&self, slot: u32) -> &[super::ServiceKey] {
        self.set_of_slot
            .get(&slot)
            .map_or(&[], |set| self.compiled.sets[set.0 as usize].as_slice())
    }
}

/// Who owns which counter slot.
#[derive(Clone, Debug, Default)]
pub struct SlotDirectory {
    members: Vec<Vec<MemberId>>,
    by_members: HashMap<Vec<MemberId>, u32>,
    by_member: HashMap<MemberId, Vec<u32>>,
}

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
            while directory.members.len() < index as usize {
                directory.members.push(Vec::new());
            }
            if directory.members.len() == index as usize {
                directory.enter(slot, members);
            }
        }
        directory
    }

    fn enter(&mut self, slot: u32, members: Vec<MemberId>) {
        for member in &members {
            self.by_member.entry(*member).or_default().push(slot);
        }
        self.by_members.insert(members.clone(), slot);
        self.members.push(members);
    }

    /// The slot of the set with these members, a new one if it has none.
    ///
    /// # Panics
    /// With more than 2^32 sets, which no machine holds.
    #[must_use]
    #[expect(clippy::expect_used, reason = "documented, and out of reach")]
    pub fn slot_of(&mut self, mut members: Vec<MemberId>) -> u32 {
        members.sort_unstable();
        members.dedup();
        if let Some(slot) = self.by_members.get(&members) {
            return *slot;
        }
        let slot =
            u32::try_from(self.members.len()).expect("fewer than 2^32 rule sets") + FIRST_RULE_SLOT;
        self.enter(slot, members);
        slot
    }

    /// Every slot that ever counted for `member`.
    #[must_use]
    pub fn slots_of(&self, member: MemberId) -> &[u32] {
        self.by_member.get(&member).map_or(&[], Vec::as_slice)
    }

    /// Slots and their members, in the order of slots.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[MemberId])> {
        (FIRST_RULE_SLOT..).zip(self.members.iter().map(Vec::as_slice))
    }

    /// How many slots are needed, the reserved ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len() + FIRST_RULE_SLOT as usize
    }

    /// Whether no rule set has a slot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}
