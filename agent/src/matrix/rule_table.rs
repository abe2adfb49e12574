//! The rules of a matrix in as few bytes as they can be looked up in: daemons live on routers, and a matrix of 100,000 rows
//! has some 200,000 rules.
//!
//! A rule is written as one number, whose digits are its protocol, its port class and the classes of its ends. The numbers
//! are shuffled by a function that can be undone; the upper bits of what comes of it say in which bucket a rule is, so that
//! only the lower bits have to be kept. Buckets lie one behind the other, so nothing is wasted, and have two to four rules
//! on average. There is no list of rules besides: undoing the shuffle gives them back.
//!
//! Classes with the same rules share them. That is what the directed broadcast of a bound prefix and the prefix itself have in
//! common, and since that is true of both ends, a site of prefixes has four times as many rules as are kept.

use flowproof_common::classify::{ANY_CLASS, CLASS_INDEX};

use super::compiled::{Rule, RuleSetIndex};
use super::lists::Lists;

/// No protocol's number among those in use.
const NONE: u16 = u16::MAX;

/// What rules are looked up in.
#[derive(Clone, Debug)]
pub struct RuleTable {
    digits: Digits,
    shuffle: Shuffle,
    /// Bits of a shuffled number that do not say in which bucket it is.
    rest_bits: u32,
    /// Where each bucket starts, and where the last one ends.
    starts: Box<[u32]>,
    rests: Rests,
    sets: Box<[RuleSetIndex]>,
    /// How many rules there are, those of classes that share them included.
    rules: usize,
}

/// The rules differ in more ways than fit into a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooWide {
    /// Classes of addresses that would still fit.
    pub classes: u32,
}

impl RuleTable {
    /// A table of rules, each of which is there once. `classes` are all classes of addresses, by their index; `alike` says
    /// for each the index of one with the same rules, which may be its own. There are so many classes of ports.
    ///
    /// # Errors
    /// More than 2^63 rules could be written with so many classes.
    pub fn new(
        rules: &[(Rule, RuleSetIndex)],
        classes: &[u32],
        alike: &[u32],
        port_classes: u32,
    ) -> Result<Self, TooWide> {
        let table = Self::sharing(rules, classes, alike, port_classes)?;
        let mut own = rules.iter();
        if table.rules == rules.len() && own.all(|(rule, set)| table.says(rule, *set)) {
            return Ok(table);
        }
        // They have not the same rules after all.
        let alike: Vec<u32> = (0..).take(classes.len()).collect();
        Self::sharing(rules, classes, &alike, port_classes)
    }

    fn says(&self, rule: &Rule, set: RuleSetIndex) -> bool {
        self.find(rule)
            .is_some_and(|position| self.set(position) == set)
    }

    fn sharing(
        rules: &[(Rule, RuleSetIndex)],
        classes: &[u32],
        alike: &[u32],
        port_classes: u32,
    ) -> Result<Self, TooWide> {
        let digits = Digits::of(rules, classes, alike, port_classes)?;
        // Of those that share a rule, the one of the classes that the others are like.
        let rules: Vec<(Rule, RuleSetIndex)> = rules
            .iter()
            .filter(|(rule, _)| digits.keeps(rule.from) && digits.keeps(rule.to))
            .copied()
            .collect();
        let count = rules
            .iter()
            .map(|(rule, _)| digits.sharers(rule.from).count() * digits.sharers(rule.to).count())
            .sum();
        let shuffle = Shuffle::of(digits.bits());
        let bucket_bits = (rules.len() / 2).max(1).ilog2().min(shuffle.bits - 1);
        let rest_bits = shuffle.bits - bucket_bits;
        let rest_mask = mask(rest_bits);
        let numbers: Vec<(u64, RuleSetIndex)> = rules
            .iter()
            .filter_map(|(rule, set)| Some((shuffle.forth(digits.number(rule)?), *set)))
            .collect();
        let mut starts = vec![0_u32; (1 << bucket_bits) + 1];
        for (number, _) in &numbers {
            starts[bucket(*number, rest_bits) + 1] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut next = starts.clone();
        let mut rests = Rests::new(numbers.len(), rest_bits);
        let mut sets = vec![RuleSetIndex(0); numbers.len()];
        for (number, set) in &numbers {
            let next = &mut next[bucket(*number, rest_bits)];
            rests.set(*next as usize, number & rest_mask);
            sets[*next as usize] = *set;
            *next += 1;
        }
        Ok(Self {
            digits,
            shuffle,
            rest_bits,
            starts: starts.into(),
            rests,
            sets: sets.into(),
            rules: count,
        })
    }

    /// Where a rule is in the table. Rules that are shared are at one place.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, rule: &Rule) -> Option<usize> {
        let number = self.shuffle.forth(self.digits.number(rule)?);
        let bucket = bucket(number, self.rest_bits);
        let start = *self.starts.get(bucket)? as usize;
        let end = *self.starts.get(bucket + 1)? as usize;
        let at = self
            .rests
            .position(start, end, number & mask(self.rest_bits))?;
        Some(start + at)
    }

    /// The set of the rule at a position that [`Self::find`] gave.
    #[inline(always)]
    #[must_use]
    pub fn set(&self, position: usize) -> RuleSetIndex {
        self.sets[position]
    }

    /// All rules with their positions and sets, in the order of positions.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Rule, RuleSetIndex)> {
        self.kept().flat_map(move |(position, rule, set)| {
            let ends = self
                .digits
                .sharers(rule.from)
                .flat_map(move |from| self.digits.sharers(rule.to).map(move |to| (from, to)));
            ends.map(move |(from, to)| (position, Rule { from, to, ..rule }, set))
        })
    }

    /// The rules that are kept, without those of classes that only [share](Self::like) them: as many as positions.
    pub fn kept(&self) -> impl Iterator<Item = (usize, Rule, RuleSetIndex)> {
        let buckets = (0_u64..).zip(self.starts.windows(2));
        let numbers = buckets.flat_map(move |(bucket, range)| {
            let [start, end] = [range[0], range[1]].map(|at| at as usize);
            (start..end).map(move |at| bucket << self.rest_bits | self.rests.get(at))
        });
        numbers
            .map(|number| self.digits.rule(self.shuffle.back(number)))
            .zip(self.sets.iter().copied())
            .enumerate()
            .map(|(position, (rule, set))| (position, rule, set))
    }

    /// The class with the index of the one whose rules it shares, which is its own for most; its flags stay. Classes that are
    /// not the table's are left as they are.
    #[must_use]
    pub fn like(&self, class: u32) -> u32 {
        match self.digits.alike.get((class & CLASS_INDEX) as usize) {
            Some(like) => class & !CLASS_INDEX | like,
            None => class,
        }
    }

    /// Whether neither end of a rule only shares the rules of another class.
    #[must_use]
    pub fn is_kept(&self, rule: &Rule) -> bool {
        self.like(rule.from) == rule.from && self.like(rule.to) == rule.to
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules
    }

    /// Positions are less than this.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.sets.len()
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }
}

impl Default for RuleTable {
    fn default() -> Self {
        let digits = Digits {
            protocols: Box::new([NONE; 256]),
            known: Box::new([]),
            port_classes: 1,
            classes: Box::new([]),
            alike: Box::new([]),
            sharers: Lists::default(),
            any: [false; 2],
        };
        Self {
            shuffle: Shuffle::of(2),
            digits,
            rest_bits: 2,
            starts: Box::new([0, 0]),
            rests: Rests::new(0, 2),
            sets: Box::new([]),
            rules: 0,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "there are fewer buckets than rules"
)]
#[inline]
const fn bucket(number: u64, rest_bits: u32) -> usize {
    (number >> rest_bits) as usize
}

/// So many ones; less than 64.
#[inline]
const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// Rules as numbers, and back.
#[derive(Clone, Debug)]
struct Digits {
    /// The number of each protocol among those in use, or [`NONE`].
    protocols: Box<[u16; 256]>,
    /// Protocols in use by that number.
    known: Box<[u8]>,
    port_classes: u32,
    /// All classes of addresses by their index. What comes after the last stands for [`ANY_CLASS`].
    classes: Box<[u32]>,
    /// The index of the class whose rules each has.
    alike: Box<[u32]>,
    /// The classes that have the rules of each.
    sharers: Lists<u32>,
    /// Whether any rule is from any address, and to any.
    any: [bool; 2],
}

impl Digits {
    fn of(
        rules: &[(Rule, RuleSetIndex)],
        classes: &[u32],
        alike: &[u32],
        port_classes: u32,
    ) -> Result<Self, TooWide> {
        let mut protocols = Box::new([NONE; 256]);
        let mut known = Vec::new();
        let mut any = [false; 2];
        for (rule, _) in rules {
            any[0] |= rule.from == ANY_CLASS;
            any[1] |= rule.to == ANY_CLASS;
            let number = &mut protocols[usize::from(rule.protocol)];
            if *number == NONE {
                *number = u16::try_from(known.len()).unwrap_or(NONE);
                known.push(rule.protocol);
            }
        }
        let mut sharers = vec![Vec::new(); classes.len()];
        for (class, like) in classes.iter().zip(alike) {
            if let Some(sharers) = sharers.get_mut(*like as usize) {
                sharers.push(*class);
            }
        }
        let digits = Self {
            protocols,
            known: known.into(),
            port_classes: port_classes.max(1),
            classes: classes.into(),
            alike: alike.into(),
            sharers: sharers.into_iter().collect(),
            any,
        };
        let kinds = u64::from(digits.port_classes) * digits.known.len().max(1) as u64;
        let ends = digits.ends();
        if u128::from(kinds) * u128::from(ends) * u128::from(ends) > 1 << 63 {
            let most = ((1_u64 << 63) / kinds).isqrt().saturating_sub(1);
            return Err(TooWide {
                classes: u32::try_from(most).unwrap_or(u32::MAX),
            });
        }
        Ok(digits)
    }

    /// How many different ends there may be.
    fn ends(&self) -> u64 {
        self.classes.len() as u64 + 1
    }

    /// The bits of the greatest number, two at least.
    fn bits(&self) -> u32 {
        let kinds = u64::from(self.port_classes) * self.known.len().max(1) as u64;
        (kinds * self.ends() * self.ends() - 1)
            .max(2)
            .ilog2()
            .saturating_add(1)
    }

    #[inline(always)]
    fn end(&self, class: u32, any: bool) -> Option<u64> {
        if class == ANY_CLASS {
            return any.then_some(self.classes.len() as u64);
        }
        let index = (class & CLASS_INDEX) as usize;
        let like = *self.alike.get(index)?;
        (*self.classes.get(index)? == class).then_some(u64::from(like))
    }

    /// Whether rules of this class are kept, and not only those of one that it is like.
    fn keeps(&self, class: u32) -> bool {
        let index = class & CLASS_INDEX;
        class == ANY_CLASS || self.alike.get(index as usize) == Some(&index)
    }

    /// The classes that have the rules of one that [keeps](Self::keeps) its own.
    fn sharers(&self, class: u32) -> impl Iterator<Item = u32> + use<'_> {
        let any = (class == ANY_CLASS).then_some(class);
        let index = if any.is_some() {
            usize::MAX
        } else {
            (class & CLASS_INDEX) as usize
        };
        let classes = self.sharers.get(index).unwrap_or_default();
        any.into_iter().chain(classes.iter().copied())
    }

    /// Nothing for what can't be a rule of the table.
    #[inline(always)]
    fn number(&self, rule: &Rule) -> Option<u64> {
        let from = self.end(rule.from, self.any[0])?;
        let to = self.end(rule.to, self.any[1])?;
        let protocol = self.protocols[usize::from(rule.protocol)];
        let port_class = u32::from(rule.port_class);
        if protocol == NONE || port_class >= self.port_classes {
            return None;
        }
        let kind = u64::from(protocol) * u64::from(self.port_classes) + u64::from(port_class);
        Some((kind * self.ends() + from) * self.ends() + to)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "each digit is less than its base"
    )]
    fn rule(&self, number: u64) -> Rule {
        let class = |index: u64| {
            self.classes
                .get(index as usize)
                .copied()
                .unwrap_or(ANY_CLASS)
        };
        let (ends, kind) = (number % self.ends().pow(2), number / self.ends().pow(2));
        let bases = u64::from(self.port_classes);
        let protocol = self.known.get((kind / bases) as usize);
        Rule {
            from: class(ends / self.ends()),
            to: class(ends % self.ends()),
            port_class: (kind % bases) as u16,
            protocol: protocol.copied().unwrap_or_default(),
        }
    }
}

/// A bijection of the numbers of so many bits, 2 to 63: multiplications by odd numbers and exclusive ors of the upper half
/// into the lower one, of which each is one. Its upper bits hang on all bits, as buckets need it.
#[derive(Clone, Copy, Debug)]
struct Shuffle {
    bits: u32,
}

impl Shuffle {
    /// Odd; from SplitMix64 (Steele, Lea, Flood 2014).
    const FACTORS: [u64; 2] = [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];
    /// Their inverses modulo 2^64, and so modulo every power of two below.
    const INVERSES: [u64; 2] = [inverse(Self::FACTORS[0]), inverse(Self::FACTORS[1])];

    const fn of(bits: u32) -> Self {
        Self { bits }
    }

    /// At least half of the bits, so that doing it twice undoes it.
    #[inline]
    const fn fold(self, number: u64) -> u64 {
        number ^ number >> self.bits.div_ceil(2)
    }

    #[inline]
    const fn multiply(self, number: u64, factor: u64) -> u64 {
        number.wrapping_mul(factor) & mask(self.bits)
    }

    #[inline(always)]
    const fn forth(self, number: u64) -> u64 {
        let number = self.multiply(number, Self::FACTORS[0]);
        self.multiply(self.fold(number), Self::FACTORS[1])
    }

    const fn back(self, number: u64) -> u64 {
        let number = self.fold(self.multiply(number, Self::INVERSES[1]));
        self.multiply(number, Self::INVERSES[0])
    }
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration: each step doubles the bits that are right, and an odd
/// number is its own inverse modulo 8.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut bits = 3;
    while bits < 64 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
        bits *= 2;
    }
    inverse
}

/// The lower bits of shuffled numbers, in the narrowest type that they fit into.
#[derive(Clone, Debug)]
enum Rests {
    Two(Box<[u16]>),
    Four(Box<[u32]>),
    Eight(Box<[u64]>),
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the type was chosen so that all fit"
)]
impl Rests {
    fn new(count: usize, bits: u32) -> Self {
        match bits {
            0..=16 => Self::Two(vec![0; count].into()),
            17..=32 => Self::Four(vec![0; count].into()),
            33.. => Self::Eight(vec![0; count].into()),
        }
    }

    fn set(&mut self, at: usize, rest: u64) {
        match self {
            Self::Two(rests) => rests[at] = rest as u16,
            Self::Four(rests) => rests[at] = rest as u32,
            Self::Eight(rests) => rests[at] = rest,
        }
    }

    fn get(&self, at: usize) -> u64 {
        match self {
            Self::Two(rests) => u64::from(rests[at]),
            Self::Four(rests) => u64::from(rests[at]),
            Self::Eight(rests) => rests[at],
        }
    }

    /// The first place of `rest` from `start` on, counted from there.
    #[inline(always)]
    fn position(&self, start: usize, end: usize, rest: u64) -> Option<usize> {
        fn of<T: PartialEq>(rests: &[T], start: usize, end: usize, rest: &T) -> Option<usize> {
            rests.get(start..end)?.iter().position(|own| own == rest)
        }
        match self {
            Self::Two(rests) => of(rests, start, end, &(rest as u16)),
            Self::Four(rests) => of(rests, start, end, &(rest as u32)),
            Self::Eight(rests) => of(rests, start, end, &rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flowproof_common::classify::{BOUND, NAMELESS_CLASS};
    use proptest::prelude::*;

    use super::*;

    fn rule(from: u32, to: u32, protocol: u8, port_class: u16) -> Rule {
        Rule {
            from,
            to,
            port_class,
            protocol,
        }
    }

    #[test]
    fn an_empty_table_has_no_rule() {
        for table in [
            RuleTable::default(),
            RuleTable::new(&[], &[0], &[0], 1).unwrap(),
        ] {
            assert!(table.is_empty());
            assert_eq!(table.iter().count(), 0);
            assert_eq!(table.find(&rule(0, 0, 6, 0)), None);
            assert_eq!(table.find(&rule(ANY_CLASS, ANY_CLASS, 6, 0)), None);
        }
    }

    #[test]
    fn what_is_no_class_has_no_rule() {
        let only = rule(1 | BOUND, ANY_CLASS, 6, 3);
        let table =
            RuleTable::new(&[(only, RuleSetIndex(7))], &[0, 1 | BOUND], &[0, 1], 4).unwrap();
        assert_eq!(table.find(&only).map(|at| table.set(at).0), Some(7));
        for other in [
            rule(1, ANY_CLASS, 6, 3),
            rule(2 | BOUND, ANY_CLASS, 6, 3),
            rule(NAMELESS_CLASS, ANY_CLASS, 6, 3),
            rule(1 | BOUND, 0, 6, 3),
            rule(ANY_CLASS, ANY_CLASS, 6, 3),
            rule(1 | BOUND, ANY_CLASS, 17, 3),
            rule(1 | BOUND, ANY_CLASS, 6, 4),
            rule(1 | BOUND, ANY_CLASS, 6, 0),
        ] {
            assert_eq!(table.find(&other), None, "{other:?}");
        }
    }

    #[test]
    fn more_classes_than_numbers_are_refused() {
        let rules: Vec<_> = (0..=255)
            .map(|protocol| (rule(0, 0, protocol, 0), RuleSetIndex(0)))
            .collect();
        let table = |count: u32| {
            let classes: Vec<u32> = (0..count).collect();
            RuleTable::new(&rules, &classes, &classes, 65_536)
        };
        let refused = table(800_000).unwrap_err();
        assert_eq!(refused.classes, 741_454);
        assert!(table(refused.classes).is_ok());
    }

    mod properties {
        use super::*;

        proptest! {
            #[test]
            fn a_shuffle_can_be_undone(bits in 2_u32..64, number: u64) {
                let shuffle = Shuffle::of(bits);
                let number = number & mask(bits);
                let there = shuffle.forth(number);
                prop_assert!(there <= mask(bits));
                prop_assert_eq!(shuffle.back(there), number);
            }

            /// Whatever the width of what is kept.
            #[test]
            fn it_says_what_a_map_says(
                classes in prop_oneof![Just(3_u32), Just(300), Just(1 << 17)],
                port_classes in prop_oneof![Just(3_u16), Just(u16::MAX)],
                seeds in prop::collection::vec((0_u32..400, 0_u32..400, 0_u8..9, 0_u16..400), 0..300),
                shared: bool,
            ) {
                let number = |index: u32| if index.is_multiple_of(2) { index | BOUND } else { index };
                let end = |seed: u32| match seed % 40 {
                    0 => ANY_CLASS,
                    1 => number(classes - 1),
                    _ => number(seed % classes),
                };
                let all = |(from, to, protocol, port_class): &(u32, u32, u8, u16)| {
                    rule(end(*from), end(*to), *protocol, *port_class % port_classes)
                };
                let (inside, outside) = seeds.split_at(seeds.len() / 2);
                let mut map: BTreeMap<_, _> = inside
                    .iter()
                    .map(all)
                    .map(|rule| (rule.from, rule.to, rule.protocol, rule.port_class))
                    .zip((0..).map(RuleSetIndex))
                    .collect();
                // The second class is like the third, or is said to be and is not.
                let alike: Vec<u32> = (0..classes).map(|index| if index == 1 { 2 } else { index }).collect();
                if shared {
                    let (second, third) = (number(1), number(2));
                    map.retain(|(from, to, ..), _| *from != second && *to != second);
                    for ((from, to, protocol, port_class), set) in map.clone() {
                        let or_second = |end| if end == third { vec![end, second] } else { vec![end] };
                        for from in or_second(from) {
                            for to in or_second(to) {
                                map.insert((from, to, protocol, port_class), set);
                            }
                        }
                    }
                }
                let rules: Vec<_> = map
                    .iter()
                    .map(|((from, to, protocol, port_class), set)| (rule(*from, *to, *protocol, *port_class), *set))
                    .collect();
                let numbers: Vec<u32> = (0..classes).map(number).collect();
                let table = RuleTable::new(&rules, &numbers, &alike, port_classes.into()).unwrap();
                for rule in outside.iter().map(all).chain(rules.iter().map(|(rule, _)| *rule)) {
                    let expect = map.get(&(rule.from, rule.to, rule.protocol, rule.port_class));
                    prop_assert_eq!(table.find(&rule).map(|at| table.set(at)), expect.copied());
                }
                let back: BTreeMap<_, _> = table
                    .iter()
                    .map(|(_, rule, set)| ((rule.from, rule.to, rule.protocol, rule.port_class), set))
                    .collect();
                prop_assert_eq!(table.len(), map.len());
                prop_assert_eq!(table.iter().count(), map.len());
                prop_assert_eq!(back, map);
                for (position, rule, _) in table.iter() {
                    prop_assert_eq!(table.find(&rule), Some(position));
                    prop_assert!(position < table.positions());
                }
            }
        }
    }
}
