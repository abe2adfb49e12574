//! Many short lists in two blocks of memory: a list costs four bytes besides its items, where a `Vec` of its own costs 24 and an
//! allocation.

/// Lists that are never changed once they are there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lists<T> {
    /// Where each list ends among the items; the next begins there.
    ends: Vec<u32>,
    items: Vec<T>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self {
            ends: Vec::new(),
            items: Vec::new(),
        }
    }
}

impl<T> Lists<T> {
    /// Adds a list.
    ///
    /// # Panics
    /// With more than 2^32 items, which no matrix has: its rules are bounded.
    #[expect(clippy::expect_used, reason = "documented, and out of reach")]
    pub fn push(&mut self, list: impl IntoIterator<Item = T>) {
        self.items.extend(list);
        let end = u32::try_from(self.items.len()).expect("fewer than 2^32 items");
        self.ends.push(end);
    }

    /// The list at a position; empty beyond the last.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[T]> {
        let end = *self.ends.get(index)? as usize;
        let start = index
            .checked_sub(1)
            .and_then(|before| self.ends.get(before))
            .map_or(0, |start| *start as usize);
        self.items.get(start..end)
    }

    /// All lists in order.
    pub fn iter(&self) -> impl Iterator<Item = &[T]> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// How many lists there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many items all lists have.
    #[must_use]
    pub fn item_count(&self) -> usize {
        self.items.len()
    }

    /// Gives back memory that was kept for more.
    pub fn shrink_to_fit(&mut self) {
        self.ends.shrink_to_fit();
        self.items.shrink_to_fit();
    }
}

impl<T: PartialEq> Lists<T> {
    /// Whether the first lists are these.
    #[must_use]
    pub fn starts_with(&self, first: &Self) -> bool {
        self.ends.starts_with(&first.ends) && self.items.starts_with(&first.items)
    }
}

impl<T, L: IntoIterator<Item = T>> FromIterator<L> for Lists<T> {
    fn from_iter<I: IntoIterator<Item = L>>(lists: I) -> Self {
        let mut all = Self::default();
        for list in lists {
            all.push(list);
        }
        all.shrink_to_fit();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_out_as_they_went_in() {
        let lists: Lists<u8> = [vec![1, 2], vec![], vec![3]].into_iter().collect();
        assert_eq!(
            lists.iter().collect::<Vec<_>>(),
            [&[1, 2][..], &[], &[3][..]]
        );
        assert_eq!(lists.get(2), Some(&[3][..]));
        assert_eq!(lists.get(3), None);
        assert_eq!((lists.len(), lists.item_count()), (3, 3));
    }

    #[test]
    fn the_first_lists_are_compared_as_lists() {
        let lists = |lists: &[&[u8]]| -> Lists<u8> {
            lists.iter().map(|list| list.iter().copied()).collect()
        };
        let all = lists(&[&[1, 2], &[3]]);
        assert!(all.starts_with(&lists(&[])));
        assert!(all.starts_with(&lists(&[&[1, 2]])));
        assert!(all.starts_with(&all));
        assert!(!all.starts_with(&lists(&[&[1], &[2]])));
        assert!(!lists(&[&[1, 2]]).starts_with(&all));
    }
}
