//! One address form for both IP versions, so that tables and keys need no second shape: IPv4 is kept as
//! IPv4-mapped IPv6 (RFC 4291, section 2.5.5.2).

/// An IPv4 or IPv6 address, its 16 bytes in network order.
///
/// Two words instead of a byte array, because comparing and copying two words is what the kernel's
/// verifier and its compiler do best.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Address {
    words: [u64; 2],
}

/// Bits before the IPv4 part of a mapped address: `::ffff:0:0/96`.
pub const MAPPED_PREFIX_BITS: u32 = 96;

impl Address {
    /// From the 16 bytes as they stand in an IPv6 header (RFC 8200, section 3).
    #[inline(always)]
    #[must_use]
    pub const fn from_v6(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            words: [
                u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
                u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
            ],
        }
    }

    /// From the 4 bytes as they stand in an IPv4 header (RFC 791, section 3.1).
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(bytes: [u8; 4]) -> Self {
        let [a, b, c, d] = bytes;
        Self {
            words: [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])],
        }
    }

    /// From the two words of the 16 bytes as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self { words }
    }

    /// From the 4 bytes of an IPv4 address as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4_word(word: u32) -> Self {
        let [a, b, c, d] = word.to_ne_bytes();
        Self::from_v4([a, b, c, d])
    }

    /// The 16 bytes in network order.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(&self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.words[0].to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.words[1].to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Whether this is an IPv4 address in its mapped form.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        let [a, b, c, d, ..] = self.words[1].to_ne_bytes();
        self.words[0] == 0 && a == 0 && b == 0 && c == 0xff && d == 0xff
    }

    /// Whether packets to this address go to a group, so that no single peer owes an answer: IPv4
    /// multicast 224.0.0.0/4 (RFC 5771), the limited broadcast 255.255.255.255, IPv6 ff00::/8 (RFC 4291,
    /// section 2.7). A directed broadcast looks like any host address and is not recognised here.
    #[inline(always)]
    #[must_use]
    pub const fn is_group(&self) -> bool {
        let tail = self.words[1].to_ne_bytes();
        if self.is_v4() {
            (tail[4] & 0xf0) == 0xe0
                || (tail[4] == 0xff && tail[5] == 0xff && tail[6] == 0xff && tail[7] == 0xff)
        } else {
            self.words[0].to_ne_bytes()[0] == 0xff
        }
    }

    /// All its bits mixed into 32, the upper ones best, for a place in a small table; no defence against addresses that are
    /// made to meet.
    #[inline(always)]
    #[must_use]
    pub const fn mixed(&self) -> u32 {
        // Multiplied by 2^64 over the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
        let mixed =
            (self.words[0].rotate_left(32) ^ self.words[1]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as u32
    }

    /// An order that is total and the same in kernel and user space; it is not the numeric order.
    #[inline(always)]
    #[must_use]
    pub const fn sorts_before(&self, other: &Self) -> bool {
        self.words[0] < other.words[0]
            || (self.words[0] == other.words[0] && self.words[1] < other.words[1])
    }
}

#[cfg(feature = "std")]
mod std_forms {
    use super::Address;
    use std::fmt;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    impl From<IpAddr> for Address {
        fn from(ip: IpAddr) -> Self {
            match ip {
                IpAddr::V4(v4) => Self::from_v4(v4.octets()),
                IpAddr::V6(v6) => Self::from_v6(v6.octets()),
            }
        }
    }

    impl From<Address> for IpAddr {
        fn from(address: Address) -> Self {
            let bytes = address.bytes();
            if address.is_v4() {
                Self::V4(Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]))
            } else {
                Self::V6(Ipv6Addr::from(bytes))
            }
        }
    }

    impl fmt::Display for Address {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            IpAddr::from(*self).fmt(f)
        }
    }

    impl fmt::Debug for Address {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            IpAddr::from(*self).fmt(f)
        }
    }
}

#[cfg(not(feature = "std"))]
impl core::fmt::Debug for Address {
    fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The kernel side has no text; the trait is only needed by derives.
        Ok(())
    }
}
