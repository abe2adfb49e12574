//! Bounded sets and maps that keep what is least. Which elements stay depends on the elements alone and not on the order in
//! which they came, and one that stayed was never away, so that what is added up for it is complete.

use std::collections::BTreeMap;

/// The least `MOST` different elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Least<T, const MOST: usize> {
    items: Vec<T>,
    more: bool,
}

impl<T, const MOST: usize> Default for Least<T, MOST> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            more: false,
        }
    }
}

impl<T: Ord + Copy, const MOST: usize> Least<T, MOST> {
    pub(super) fn add(&mut self, item: T) {
        let Err(at) = self.items.binary_search(&item) else {
            return;
        };
        if self.items.len() >= MOST {
            self.more = true;
            if at >= MOST {
                return;
            }
            self.items.pop();
        }
        self.items.insert(at, item);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for item in &other.items {
            self.add(*item);
        }
        self.more |= other.more;
    }

    /// Sorted.
    pub(super) fn items(&self) -> &[T] {
        &self.items
    }

    /// Whether there were others.
    pub(super) const fn more(&self) -> bool {
        self.more
    }
}

/// A map of at most `most` entries: those with the least keys.
#[derive(Debug, Clone)]
pub(super) struct LeastMap<K, V> {
    entries: BTreeMap<K, V>,
    most: usize,
    more: bool,
}

impl<K: Ord + Clone, V> LeastMap<K, V> {
    pub(super) const fn new(most: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            most,
            more: false,
        }
    }

    /// The entry of a key, made if there is room for it. What goes for it is handed to `gone`.
    pub(super) fn entry(
        &mut self,
        key: &K,
        make: impl FnOnce() -> V,
        mut gone: impl FnMut(V),
    ) -> Option<&mut V> {
        if !self.entries.contains_key(key) {
            if self.entries.len() >= self.most {
                self.more = true;
                if self
                    .entries
                    .last_key_value()
                    .is_none_or(|(last, _)| last < key)
                {
                    return None;
                }
                if let Some((_, value)) = self.entries.pop_last() {
                    gone(value);
                }
            }
            self.entries.insert(key.clone(), make());
        }
        self.entries.get_mut(key)
    }

    pub(super) const fn entries(&self) -> &BTreeMap<K, V> {
        &self.entries
    }

    pub(super) const fn entries_mut(&mut self) -> &mut BTreeMap<K, V> {
        &mut self.entries
    }

    pub(super) fn into_entries(self) -> BTreeMap<K, V> {
        self.entries
    }

    /// Whether there were others.
    pub(super) const fn more(&self) -> bool {
        self.more
    }
}

/// A set of hours since the Unix epoch: 64 of them a word, so that weeks are a handful of words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hours(BTreeMap<u64, u64>);

impl Hours {
    pub(super) fn add(&mut self, hour: u64) {
        *self.0.entry(hour / 64).or_default() |= 1 << (hour % 64);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (word, bits) in &other.0 {
            *self.0.entry(*word).or_default() |= bits;
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.0
            .values()
            .map(|bits| u64::from(bits.count_ones()))
            .sum()
    }

    /// Different days of the Unix epoch, in UTC.
    pub(super) fn days(&self) -> u64 {
        let mut days = 0;
        let mut last = None;
        for hour in self.iter() {
            if last != Some(hour / 24) {
                days += 1;
                last = Some(hour / 24);
            }
        }
        days
    }

    pub(super) fn first_and_last(&self) -> Option<[u64; 2]> {
        let (first, bits) = self.0.first_key_value()?;
        let (last, last_bits) = self.0.last_key_value()?;
        Some([
            first * 64 + u64::from(bits.trailing_zeros()),
            last * 64 + 63 - u64::from(last_bits.leading_zeros()),
        ])
    }

    fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().flat_map(|(word, bits)| {
            (0..64)
                .filter(move |bit| bits & (1 << bit) != 0)
                .map(move |bit| word * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_told() {
        let mut hours = Hours::default();
        assert_eq!(
            (hours.len(), hours.days(), hours.first_and_last()),
            (0, 0, None)
        );
        for hour in [100, 63, 64, 100, 24] {
            hours.add(hour);
        }
        assert_eq!((hours.len(), hours.days()), (4, 3));
        assert_eq!(hours.first_and_last(), Some([24, 100]));
    }

    mod properties {
        use std::collections::BTreeSet;

        use proptest::prelude::*;

        use super::*;

        proptest! {
            #[test]
            fn the_least_stay_whatever_the_order(items: Vec<u8>) {
                let mut least = Least::<u8, 8>::default();
                let mut map = LeastMap::new(8);
                for item in &items {
                    least.add(*item);
                    if let Some(count) = map.entry(item, || 0, |_| ()) {
                        *count += 1;
                    }
                }
                let all: BTreeSet<u8> = items.iter().copied().collect();
                let expect: Vec<u8> = all.iter().copied().take(8).collect();
                prop_assert_eq!(least.items(), expect.as_slice());
                prop_assert_eq!(least.more(), all.len() > 8);
                prop_assert_eq!(map.more(), all.len() > 8);
                let counts: Vec<(u8, usize)> = map.into_entries().into_iter().collect();
                let count = |of: u8| items.iter().filter(|item| **item == of).count();
                prop_assert_eq!(counts, expect.into_iter().map(|item| (item, count(item))).collect::<Vec<_>>());
            }
        }
    }
}
