//! Which flows a table may hold, in four bits for each of 65,536 hashes of keys: the flows with that hash that are in it. A zero
//! saves the look-up for a flow that begins, whose bucket in a large table is in no cache, while these 32 KiB are. A count that
//! has reached 15 stays, so that it never says too few.

use crate::key::FlowKey;

/// Words of eight counts each.
pub const WORDS: u32 = 1 << WORD_BITS;
const WORD_BITS: u32 = 13;
/// Counts in a word, as a power of two, and the bits of each.
const COUNTS: u32 = 3;
const BITS: u32 = u32::BITS >> COUNTS;

/// Flows that are remembered as begun lately, a power of two.
pub const LATELY: usize = 256;

impl FlowKey {
    /// All its bits mixed into 64, the upper ones best; no defence against keys that are made to meet.
    #[inline(always)]
    #[must_use]
    pub const fn mixed(&self) -> u64 {
        // The odd number next to 2^64 over the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let ports = (self.port_a as u64) << 16 | self.port_b as u64;
        let rest = ports << 16 | (self.icmp_type as u64) << 8 | self.protocol as u64;
        let ends = self.a.mixed() as u64 | (self.b.mixed() as u64) << 32;
        (ends ^ rest.wrapping_mul(FACTOR).rotate_left(32)).wrapping_mul(FACTOR)
    }
}

/// The count of a hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which word, below [`WORDS`].
    pub word: u32,
    shift: u32,
}

impl Place {
    const MOST: u32 = (1 << BITS) - 1;

    /// Of a key by its [`FlowKey::mixed`].
    #[inline(always)]
    #[must_use]
    pub const fn of(mixed: u64) -> Self {
        Self {
            word: (mixed >> (u64::BITS - WORD_BITS)) as u32,
            shift: (mixed >> (u64::BITS - WORD_BITS - COUNTS)) as u32 % (1 << COUNTS) * BITS,
        }
    }

    #[inline(always)]
    const fn count(self, word: u32) -> u32 {
        word >> self.shift & Self::MOST
    }

    /// Whether no flow of this hash is there.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self, word: u32) -> bool {
        self.count(word) == 0
    }

    /// The word with one flow more.
    #[inline(always)]
    #[must_use]
    pub const fn one_more(self, word: u32) -> u32 {
        if self.count(word) == Self::MOST {
            word
        } else {
            word + (1 << self.shift)
        }
    }

    /// The word with one flow less.
    #[inline(always)]
    #[must_use]
    pub const fn one_less(self, word: u32) -> u32 {
        if self.count(word) == Self::MOST || self.count(word) == 0 {
            word
        } else {
            word - (1 << self.shift)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use std::collections::HashSet;
    use std::vec;

    fn key(client: u32, port: u16) -> FlowKey {
        FlowKey {
            a: Address::from_v4(client.to_be_bytes()),
            b: Address::from_v4([10, 0, 0, 1]),
            port_a: port,
            port_b: 443,
            protocol: 6,
            ..FlowKey::default()
        }
    }

    #[test]
    fn neighbours_are_spread() {
        let mut places = HashSet::new();
        for client in 0..64 {
            for port in 0..64 {
                let place = Place::of(key(0x0a01_0000 + client, 40_000 + port).mixed());
                assert!(place.word < WORDS);
                places.insert((place.word, place.shift));
            }
        }
        assert!(places.len() > 3_800, "{} places", places.len());
    }

    /// A count says zero only if nothing of its own is there, whatever comes and goes beside it, and however much.
    #[test]
    fn what_is_there_is_never_denied() {
        let places: vec::Vec<_> = (0..8).map(|count| Place::of(count << 48)).collect();
        assert!(places.iter().all(|place| place.word == 0));
        let mut word = 0;
        for count in [1, 3, 14, 15, 16, 1_000] {
            let (full, beside) = (places[1], places[2]);
            word = beside.one_more(word);
            for _ in 0..count {
                word = full.one_more(word);
            }
            for left in (0..count).rev() {
                assert!(!full.is_empty(word));
                word = full.one_less(word);
                assert!(left == 0 || !full.is_empty(word));
            }
            // What it has lost count of stays.
            assert_eq!(full.is_empty(word), count < 15);
            if count >= 15 {
                word &= !(0xf << full.shift);
            }
            assert!(!beside.is_empty(word));
            word = beside.one_less(word);
            assert_eq!(word, 0);
            assert_eq!(full.one_less(word), 0);
        }
    }
}
