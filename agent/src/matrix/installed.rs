//! A compiled matrix whose rule sets have counter slots: what a capture back end judges by.
//!
//! A *rule set* is the set of requirement services that cover one kind of flow; it has one counter slot,
//! so that a flow covered by three requirements costs one count. Slots outlive a reload and, with pinned
//! maps, the daemon: a slot is known by its members (hashes of `system/requirement#service`), and a
//! requirement's total is the sum over every slot that it was ever a member of.

use std::collections::HashMap;
use std::sync::Arc;

use flowproof_common::address::{Address, MAPPED_PREFIX_BITS};
use flowproof_common::classify::{CLASS_INDEX, FIRST_RULE_SLOT, Tables, UNBOUND_CLASS};

use super::compiled::{BoundRole, ClassPrefix, Compiled, Rule, RuleSetIndex};

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
    ipv4: PrefixTable<u32>,
    ipv6: PrefixTable<u128>,
    rules: FastMap<u128, u32>,
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
        let (ipv4, ipv6) = prefix_tables(&compiled.prefixes);
        let rules = compiled
            .rules
            .iter()
            .map(|(rule, set)| (packed(rule), slots[set.0 as usize]))
            .collect();
        Self {
            compiled,
            directory,
            slots,
            set_of_slot,
            ipv4,
            ipv6,
            rules,
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

impl Installed {
    /// The roles of an address, built-in ones included; none if it is not bound.
    #[must_use]
    pub fn roles_of(&self, address: &Address) -> &[BoundRole] {
        let class = self.address_class(address) & CLASS_INDEX;
        self.compiled
            .classes
            .get(class as usize)
            .map_or(&[], Vec::as_slice)
    }
}

impl Tables for Installed {
    fn address_class(&self, address: &Address) -> u32 {
        let number = u128::from_be_bytes(address.bytes());
        if address.is_v4() {
            self.ipv4.longest(ipv4_part(number))
        } else {
            self.ipv6.longest(number)
        }
    }

    fn port_class(&self, port: u16) -> u16 {
        self.compiled.port_classes[usize::from(port)]
    }

    fn rule(&self, from: u32, to: u32, protocol: u8, port_class: u16) -> Option<u32> {
        let rule = Rule {
            from,
            to,
            port_class,
            protocol,
        };
        self.rules.get(&packed(&rule)).copied()
    }
}

/// Keys come from files that the operator chose and look-ups insert nothing, so the faster of foldhash's two will do.
type FastMap<K, V> = hashbrown::HashMap<K, V, foldhash::fast::RandomState>;

/// Longest-prefix match by one hash look-up for each length in use: sites use a handful of lengths, and a hash table
/// of whole prefixes takes less memory than a trie of their bits.
#[derive(Clone, Debug)]
struct PrefixTable<N> {
    /// Mask of a length and its prefixes, the longest first.
    lengths: Vec<(N, FastMap<N, u32>)>,
}

impl<N: Copy + Eq + std::hash::Hash + std::ops::BitAnd<Output = N>> PrefixTable<N> {
    const fn new() -> Self {
        Self {
            lengths: Vec::new(),
        }
    }

    /// Lengths must come in descending order.
    fn insert(&mut self, mask: N, prefix: N, class: u32) {
        match self.lengths.last_mut() {
            Some((last, prefixes)) if *last == mask => {
                prefixes.insert(prefix, class);
            }
            _ => self
                .lengths
                .push((mask, std::iter::once((prefix, class)).collect())),
        }
    }

    #[inline]
    fn longest(&self, address: N) -> u32 {
        self.lengths
            .iter()
            .find_map(|(mask, prefixes)| prefixes.get(&(address & *mask)))
            .copied()
            .unwrap_or(UNBOUND_CLASS)
    }
}

/// `prefixes` sorted by length, the longest first.
fn prefix_tables(prefixes: &[ClassPrefix]) -> (PrefixTable<u32>, PrefixTable<u128>) {
    let mut ipv4 = PrefixTable::new();
    let mut ipv6 = PrefixTable::new();
    for prefix in prefixes {
        let number = u128::from_be_bytes(prefix.address.bytes());
        // A shift by all the bits would overflow: that mask is empty.
        let mask = u128::MAX
            .checked_shl(128 - u32::from(prefix.bits))
            .unwrap_or(0);
        if prefix.address.is_v4() && u32::from(prefix.bits) >= MAPPED_PREFIX_BITS {
            ipv4.insert(ipv4_part(mask), ipv4_part(number), prefix.class);
        } else {
            ipv6.insert(mask, number, prefix.class);
        }
    }
    // What covers the whole of IPv4 may be written as a wider IPv6 prefix; the tables are to say what one trie over
    // all prefixes says.
    let rest = ipv6.longest(u128::from_be_bytes(Address::from_v4([0; 4]).bytes()));
    if rest != UNBOUND_CLASS && ipv4.lengths.last().is_none_or(|(mask, _)| *mask != 0) {
        ipv4.insert(0, 0, rest);
    }
    (ipv4, ipv6)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low 32 bits of a mapped address are the IPv4 address"
)]
const fn ipv4_part(number: u128) -> u32 {
    number as u32
}

/// A rule as one number, which hashes faster than four.
fn packed(rule: &Rule) -> u128 {
    u128::from(rule.from) << 64
        | u128::from(rule.to) << 32
        | u128::from(rule.port_class) << 8
        | u128::from(rule.protocol)
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
