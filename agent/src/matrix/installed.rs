//! A compiled matrix whose rule sets have counter slots: what a capture back end judges by.
//!
//! A *rule set* is the set of requirement services that cover one kind of flow; it has one counter slot,
//! so that a flow covered by three requirements costs one count. Slots outlive a reload and, with pinned
//! maps, the daemon: a slot is known by its members (hashes of `system/requirement#service`), and a
//! requirement's total is the sum over every slot that it was ever a member of.

pub mod mixed;

use std::sync::{Arc, OnceLock};

use flowproof_common::address::{Address, MAPPED_PREFIX_BITS};
use flowproof_common::classify::{
    ANY_CLASS, CLASS_INDEX, DEPENDS_ON_NAME, FIRST_RULE_SLOT, NAMELESS_CLASS, Tables,
    UNBOUND_CLASS, UNEXPECTED_SLOT,
};
use hashbrown::HashSet;

use super::compiled::{BoundRole, ClassPrefix, Compiled, Rule, RuleSetIndex};
pub use super::directory::SlotDirectory;
use mixed::Mixed;

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

/// A compiled matrix and the slots of its rule sets. A copy is cheap: the tables are shared.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The tables.
    pub compiled: Arc<Compiled>,
    /// All slots, those of earlier matrices included.
    pub directory: Arc<SlotDirectory>,
    fixed: Arc<Fixed>,
    mixed: Arc<Mixed>,
}

/// What follows from the compiled matrix alone.
#[derive(Debug)]
struct Fixed {
    slots: Slots,
    ipv4: PrefixTable<u32>,
    ipv6: PrefixTable<u128>,
    /// A bit for each rule, by its position: whether it depends on a name. Empty in a matrix without names.
    dependent: Box<[u64]>,
    /// Rules for addresses whose name is not known yet.
    nameless: Box<[Rule]>,
    /// The same, to be found.
    is_nameless: HashSet<u128, foldhash::fast::RandomState>,
    has_names: bool,
    /// The compiled rules one by one, once classes are mixed: each mixed class goes through all of them, and the table that
    /// they are kept in has to work each out.
    listed: OnceLock<Box<[Rule]>>,
}

/// Slots of rule sets, and the other way round.
#[derive(Debug)]
enum Slots {
    /// In the order of sets, as they are unless slots of another matrix were there before.
    InOrder,
    /// The slot of each set, and sets in the order of their slots.
    Listed {
        of_set: Box<[u32]>,
        sets: Box<[RuleSetIndex]>,
    },
}

impl Slots {
    fn of(slots: Vec<u32>) -> Self {
        if slots
            .iter()
            .copied()
            .eq((FIRST_RULE_SLOT..).take(slots.len()))
        {
            return Self::InOrder;
        }
        let mut sets: Box<[RuleSetIndex]> = (0..).map(RuleSetIndex).take(slots.len()).collect();
        sets.sort_by_key(|set| slots[set.0 as usize]);
        Self::Listed {
            of_set: slots.into(),
            sets,
        }
    }

    #[inline]
    fn slot(&self, set: RuleSetIndex) -> u32 {
        match self {
            Self::InOrder => set.0 + FIRST_RULE_SLOT,
            Self::Listed { of_set, .. } => of_set[set.0 as usize],
        }
    }

    /// The set of a slot; with [`Self::InOrder`] one beyond the last if it has none.
    fn set(&self, slot: u32) -> Option<RuleSetIndex> {
        match self {
            Self::InOrder => slot.checked_sub(FIRST_RULE_SLOT).map(RuleSetIndex),
            Self::Listed { of_set, sets } => {
                let slot_of = |set: &RuleSetIndex| of_set[set.0 as usize];
                let beyond = sets.partition_point(|set| slot_of(set) <= slot);
                let last = sets.get(beyond.checked_sub(1)?)?;
                (slot_of(last) == slot).then_some(*last)
            }
        }
    }
}

impl Installed {
    /// Gives every rule set of `compiled` a slot, keeping those that `directory` knows.
    #[must_use]
    pub fn new(compiled: Arc<Compiled>, mut directory: SlotDirectory) -> Self {
        let has_names = !compiled.names.is_empty();
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
        directory.settle();
        let slots = Slots::of(slots);
        let (ipv4, ipv6) = prefix_tables(&compiled.prefixes);
        let mut dependent = Vec::new();
        let mut nameless = Vec::new();
        if has_names {
            dependent = vec![0_u64; compiled.rules.positions().div_ceil(64)];
            let mut rules = Vec::new();
            for (position, rule, _) in compiled.rules.iter() {
                if depends_on_name(&compiled, &slots, &rule) {
                    dependent[position / 64] |= 1 << (position % 64);
                    rules.push(rule);
                }
            }
            nameless = self::nameless(&compiled, &rules);
        }
        Self {
            directory: Arc::new(directory),
            fixed: Arc::new(Fixed {
                slots,
                ipv4,
                ipv6,
                dependent: dependent.into(),
                is_nameless: nameless.iter().map(packed).collect(),
                nameless: nameless.into(),
                has_names,
                listed: OnceLock::new(),
            }),
            mixed: Arc::default(),
            compiled,
        }
    }

    /// Slot of a rule set.
    #[must_use]
    pub fn slot(&self, set: RuleSetIndex) -> u32 {
        self.fixed.slots.slot(set)
    }

    /// The requirement services that a slot counts for in the matrix in force; empty for the reserved
    /// slots and for sets of earlier matrices.
    #[must_use]
    pub fn members(&self, slot: u32) -> &[super::ServiceKey] {
        let set = self.fixed.slots.set(slot);
        match set.and_then(|set| self.compiled.sets.get(set.0 as usize)) {
            Some(members) => members,
            None => self.mixed.members(slot),
        }
    }

    /// Every rule with its slot and `DEPENDS_ON_NAME`, those for learned addresses included: what the kernel's table
    /// holds. Classes that share the rules of others ([`RuleTable::like`]) are left out.
    ///
    /// [`RuleTable::like`]: crate::matrix::rule_table::RuleTable::like
    pub fn rules(&self) -> impl Iterator<Item = (Rule, u32)> {
        self.compiled
            .rules
            .kept()
            .map(|(position, rule, set)| (rule, self.fixed.value(position, set)))
            .chain(self.kept_nameless().map(|rule| (*rule, NAMELESS)))
            .chain(
                self.mixed
                    .rules()
                    .filter(|(rule, _)| self.compiled.rules.is_kept(rule)),
            )
    }

    fn kept_nameless(&self) -> impl Iterator<Item = &Rule> {
        self.fixed
            .nameless
            .iter()
            .filter(|rule| self.compiled.rules.is_kept(rule))
    }

    /// How many of [`Self::rules`] follow from the matrix alone; they come first.
    #[must_use]
    pub fn fixed_rules(&self) -> usize {
        self.compiled.rules.positions() + self.kept_nameless().count()
    }

    /// The roles of an address by its prefix, built-in ones included; none if it is not bound.
    #[must_use]
    pub fn roles_of(&self, address: &Address) -> &[BoundRole] {
        self.roles_of_class(self.address_class(address))
    }

    /// The roles of a class of addresses.
    #[must_use]
    pub fn roles_of_class(&self, class: u32) -> &[BoundRole] {
        let index = (class & CLASS_INDEX) as usize;
        match self.compiled.classes.get(index) {
            Some(roles) => roles,
            None => self.mixed.roles(index - self.compiled.classes.len()),
        }
    }

    /// How many classes of addresses there are, those of learned addresses included.
    #[must_use]
    pub fn class_count(&self) -> usize {
        self.compiled.classes.len() + self.mixed.len()
    }

    /// The slot that the first of four look-ups gives, without `DEPENDS_ON_NAME`.
    fn fixed_slot(&self, from: u32, to: u32, protocol: u8, port_class: u16) -> Option<u32> {
        first_hit(
            &self.compiled,
            &self.fixed.slots,
            &Rule {
                from,
                to,
                port_class,
                protocol,
            },
        )
    }
}

impl Fixed {
    fn listed(&self, compiled: &Compiled) -> &[Rule] {
        self.listed
            .get_or_init(|| compiled.rules.iter().map(|(_, rule, _)| rule).collect())
    }

    /// What the rule at a position leads to.
    #[inline]
    fn value(&self, position: usize, set: RuleSetIndex) -> u32 {
        let word = self.dependent.get(position / 64).copied().unwrap_or(0);
        let depends = match word >> (position % 64) & 1 {
            0 => 0,
            _ => DEPENDS_ON_NAME,
        };
        self.slots.slot(set) | depends
    }
}

/// What rules for addresses whose name is not known lead to.
const NAMELESS: u32 = UNEXPECTED_SLOT | DEPENDS_ON_NAME;

/// The slot of the first of the four look-ups that hits, see `flowproof_common::classify`.
fn first_hit(compiled: &Compiled, slots: &Slots, rule: &Rule) -> Option<u32> {
    [
        (rule.from, rule.to),
        (rule.from, ANY_CLASS),
        (ANY_CLASS, rule.to),
        (ANY_CLASS, ANY_CLASS),
    ]
    .into_iter()
    .find_map(|(from, to)| compiled.rules.find(&Rule { from, to, ..*rule }))
    .map(|position| slots.slot(compiled.rules.set(position)))
}

fn is_named(compiled: &Compiled, class: u32) -> bool {
    let index = class & CLASS_INDEX;
    class != ANY_CLASS && index >= compiled.first_named_class
}

/// Whether a rule holds only because of a name: without it, the same flow would be covered by others or by none.
fn depends_on_name(compiled: &Compiled, slots: &Slots, rule: &Rule) -> bool {
    let named = (is_named(compiled, rule.from), is_named(compiled, rule.to));
    if named == (false, false) {
        return false;
    }
    let without = |named, class| if named { UNBOUND_CLASS } else { class };
    let unnamed = Rule {
        from: without(named.0, rule.from),
        to: without(named.1, rule.to),
        ..*rule
    };
    let own = compiled.rules.find(rule);
    first_hit(compiled, slots, &unnamed)
        != own.map(|position| slots.slot(compiled.rules.set(position)))
}

/// The rules that an address may turn out to be covered by, once its name is known.
fn nameless(compiled: &Compiled, dependent: &[Rule]) -> Vec<Rule> {
    let mut nameless = std::collections::BTreeSet::new();
    for rule in dependent {
        if is_named(compiled, rule.to) {
            nameless.insert((rule.from, NAMELESS_CLASS, rule.port_class, rule.protocol));
        }
        if is_named(compiled, rule.from) {
            nameless.insert((NAMELESS_CLASS, rule.to, rule.port_class, rule.protocol));
        }
        if is_named(compiled, rule.from) && is_named(compiled, rule.to) {
            // Neither end may be known yet.
            nameless.insert((ANY_CLASS, NAMELESS_CLASS, rule.port_class, rule.protocol));
        }
    }
    nameless
        .into_iter()
        .map(|(from, to, port_class, protocol)| Rule {
            from,
            to,
            port_class,
            protocol,
        })
        .collect()
}

impl Tables for Installed {
    fn address_class(&self, address: &Address) -> u32 {
        let number = u128::from_be_bytes(address.bytes());
        if address.is_v4() {
            self.fixed.ipv4.longest(ipv4_part(number))
        } else {
            self.fixed.ipv6.longest(number)
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
        if let Some(position) = self.compiled.rules.find(&rule) {
            return Some(
                self.fixed
                    .value(position, self.compiled.rules.set(position)),
            );
        }
        if !self.fixed.has_names {
            return None;
        }
        let packed = packed(&rule);
        if self.fixed.is_nameless.contains(&packed) {
            return Some(NAMELESS);
        }
        self.mixed.rule(packed)
    }

    fn has_names(&self) -> bool {
        self.fixed.has_names
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
