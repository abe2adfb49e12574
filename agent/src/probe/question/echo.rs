//! ICMP echo (RFC 792) and ICMPv6 echo (RFC 4443, section 4.1). The data carries 16 random bytes, which tell an answer to
//! this question from one to another `ping`, whoever gives the identifier.

use flowproof_common::protocol::{
    ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST, ICMPV6_ECHO_REPLY, ICMPV6_ECHO_REQUEST,
};

use super::{Seed, part};

/// Bytes of an echo header.
const HEADER: usize = 8;
/// Random bytes in the data.
const NUMBER: usize = 16;
/// Bytes of data, those that `ping` sends unless told otherwise: a smaller packet is no sign that it would pass.
const DATA: usize = 56;

/// An echo request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Echo {
    is_v6: bool,
    identifier: u16,
    sequence: u16,
    number: [u8; NUMBER],
}

/// What a message says of an echo request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EchoAnswer {
    /// It answers it.
    Reply,
    /// It has nothing to do with it.
    Other,
}

impl Echo {
    /// A request with numbers from the seed.
    #[must_use]
    pub fn new(is_v6: bool, seed: &Seed) -> Self {
        Self {
            is_v6,
            identifier: u16::from_be_bytes(part(seed, NUMBER)),
            sequence: 1,
            number: part(seed, 0),
        }
    }

    /// The message. Sockets for `ping` replace the identifier; over IPv6 the kernel sets the checksum.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let kind = if self.is_v6 {
            ICMPV6_ECHO_REQUEST
        } else {
            ICMP_ECHO_REQUEST
        };
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend(self.identifier.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.number);
        bytes.resize(HEADER + DATA, 0);
        if !self.is_v6 {
            let sum = checksum(&bytes);
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// What a received ICMP message, from its type on, says of this request.
    #[must_use]
    pub fn answer(&self, heard: &[u8]) -> EchoAnswer {
        let reply = if self.is_v6 {
            ICMPV6_ECHO_REPLY
        } else {
            ICMP_ECHO_REPLY
        };
        let is_ours = heard.first() == Some(&reply)
            && heard.get(6..HEADER) == Some(&self.sequence.to_be_bytes())
            && heard.get(HEADER..HEADER + NUMBER) == Some(&self.number);
        if is_ours {
            EchoAnswer::Reply
        } else {
            EchoAnswer::Other
        }
    }

    /// Whether the head of a packet, from its ICMP type on, is this request: what an error quotes. Of a socket for
    /// `ping` the kernel knows that already, and the identifier is its own.
    #[must_use]
    pub fn is_quoted_in(&self, quoted: &[u8]) -> bool {
        let [high, low] = self.identifier.to_be_bytes();
        let [first, second] = self.sequence.to_be_bytes();
        quoted.get(4..HEADER) == Some(&[high, low, first, second])
    }
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded to 16 bits above.
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::seed;
    use super::*;

    #[test]
    fn others_read_the_question_as_it_is_meant() {
        use etherparse::{Icmpv4Slice, Icmpv4Type, Icmpv6Slice, Icmpv6Type};
        let bytes = Echo::new(false, &seed()).bytes();
        let slice = Icmpv4Slice::from_slice(&bytes).unwrap();
        let Icmpv4Type::EchoRequest(header) = slice.icmp_type() else {
            panic!("{:?}", slice.icmp_type());
        };
        assert_eq!((header.id, header.seq), (0x2122, 1));
        assert_eq!(slice.payload()[..16], seed()[..16]);
        // A right checksum makes the sum over all of it zero.
        assert_eq!(checksum(&bytes), 0);
        let bytes = Echo::new(true, &seed()).bytes();
        let slice = Icmpv6Slice::from_slice(&bytes).unwrap();
        assert!(matches!(slice.icmp_type(), Icmpv6Type::EchoRequest(_)));
    }

    #[test]
    fn only_the_answer_to_this_question_counts() {
        for (is_v6, reply) in [(false, 0), (true, 129)] {
            let echo = Echo::new(is_v6, &seed());
            let mut heard = echo.bytes();
            assert_eq!(echo.answer(&heard), EchoAnswer::Other);
            heard[0] = reply;
            assert_eq!(echo.answer(&heard), EchoAnswer::Reply);
            // The kernel may have chosen the identifier.
            heard[4] ^= 1;
            assert_eq!(echo.answer(&heard), EchoAnswer::Reply);
            heard[8] ^= 1;
            assert_eq!(echo.answer(&heard), EchoAnswer::Other);
            assert_eq!(echo.answer(&heard[..8]), EchoAnswer::Other);
        }
    }

    #[test]
    fn an_error_quotes_the_request() {
        let echo = Echo::new(false, &seed());
        let quoted = echo.bytes();
        assert!(echo.is_quoted_in(&quoted[..8]));
        assert!(!echo.is_quoted_in(&quoted[..7]));
        let mut other = quoted;
        other[5] ^= 1;
        assert!(!echo.is_quoted_in(&other));
    }
}
