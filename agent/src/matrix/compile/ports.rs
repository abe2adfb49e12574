//! Ports and ICMP types to classes: numbers that the same services contain are one class, so that a range costs one
//! rule and not one for each of its ports.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;

use super::CompileError;

/// A protocol number and an inclusive range of ports or ICMP types.
pub(super) type Range = (u8, u16, u16);

const PORTS: usize = 65_536;

pub(super) struct PortClasses {
    /// Class of each number.
    pub(super) of: Arc<[u16]>,
    /// Where the class changes: the first number and its class, in order.
    steps: Vec<(u16, u16)>,
    in_range: HashMap<(u16, u16), Box<[u16]>, foldhash::fast::RandomState>,
}

impl PortClasses {
    /// Tells apart the numbers of `ranges`.
    pub(super) fn build(ranges: &BTreeSet<Range>) -> Result<Self, CompileError> {
        // A set of ranges is known by the exclusive or of 128-bit names of its members: entering and leaving a range
        // are then the same operation.
        let mut changes = vec![0_u128; PORTS + 1];
        for (index, (_, first, last)) in (1_u64..).zip(ranges) {
            let name = u128::from(mix(index)) << 64 | u128::from(mix(!index));
            changes[usize::from(*first)] ^= name;
            changes[usize::from(*last) + 1] ^= name;
        }
        let mut classes: HashMap<u128, u16, foldhash::fast::RandomState> = HashMap::default();
        classes.insert(0, 0);
        let mut of = Vec::with_capacity(PORTS);
        let mut steps: Vec<(u16, u16)> = Vec::new();
        let mut members = 0_u128;
        for (port, change) in (0..=u16::MAX).zip(changes) {
            members ^= change;
            let class = match classes.get(&members) {
                Some(class) => *class,
                None => {
                    let class = u16::try_from(classes.len())
                        .map_err(|_| CompileError::TooManyPortClasses)?;
                    classes.insert(members, class);
                    class
                }
            };
            if steps.last().is_none_or(|(_, last)| *last != class) {
                steps.push((port, class));
            }
            of.push(class);
        }
        Ok(Self {
            of: of.into(),
            steps,
            in_range: HashMap::default(),
        })
    }

    /// How many classes there are, the one of numbers in no range included.
    pub(super) fn count(&self) -> u32 {
        let greatest = self.steps.iter().map(|(_, class)| *class).max();
        u32::from(greatest.unwrap_or(0)) + 1
    }

    /// The classes that make up one of the ranges given to [`Self::build`], sorted.
    pub(super) fn in_range(&mut self, first: u16, last: u16) -> &[u16] {
        let steps = &self.steps;
        self.in_range.entry((first, last)).or_insert_with(|| {
            let start = steps.partition_point(|(port, _)| *port <= first);
            let end = steps.partition_point(|(port, _)| *port <= last);
            let mut classes: Vec<u16> = steps[start.saturating_sub(1)..end]
                .iter()
                .map(|(_, class)| *class)
                .collect();
            classes.sort_unstable();
            classes.dedup();
            classes.into()
        })
    }
}

/// The output function of SplitMix64 (Steele, Lea, Flood 2014), a bijection that spreads bits evenly.
fn mix(index: u64) -> u64 {
    let mut z = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_the_same_ranges_share_a_class() -> Result<(), CompileError> {
        let ranges = BTreeSet::from([(6, 1, 65535), (6, 80, 80), (17, 80, 81), (1, 8, 8)]);
        let mut ports = PortClasses::build(&ranges)?;
        assert_eq!(ports.of.len(), PORTS);
        assert_eq!(ports.of[0], 0);
        assert_eq!(ports.of[1], ports.of[65535]);
        assert_eq!(ports.of[79], ports.of[82]);
        let distinct: BTreeSet<u16> = [0, 1, 8, 80, 81].map(|port| ports.of[port]).into();
        assert_eq!(distinct.len(), 5);
        assert_eq!(ports.in_range(80, 80).len(), 1);
        assert_eq!(ports.in_range(80, 81).len(), 2);
        assert_eq!(ports.in_range(1, 65535).len(), 4);
        Ok(())
    }

    #[test]
    fn too_many_classes_are_refused() {
        let all = (0..=u16::MAX).map(|port| (6, port, port)).collect();
        assert_eq!(
            PortClasses::build(&all).err(),
            Some(CompileError::TooManyPortClasses)
        );
        let one_less = (1..=u16::MAX).map(|port| (6, port, port)).collect();
        assert!(PortClasses::build(&one_less).is_ok());
    }
}
