//! Cuts a TCP stream into DNS messages. Over TCP each message follows its length (RFC 1035, section 4.2.2); a reader
//! that started in the middle, or on a port where something else speaks, takes any two bytes for one and must notice.

/// Bytes of a DNS header (RFC 1035, section 4.1.1).
const HEADER_BYTES: usize = 12;

/// Reads the messages of one direction of a connection. Holds at most one message: 65,537 bytes.
#[derive(Default, Debug)]
pub struct DnsStream {
    /// The length and what there is of the message.
    message: Vec<u8>,
    is_broken: bool,
}

impl DnsStream {
    /// Starts between two messages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next bytes in order and hands on each message that is whole, without its length.
    pub fn push(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(&[u8])) {
        while !self.is_broken && !bytes.is_empty() {
            let length = match *self.message {
                [high, low, ..] => Some(usize::from(u16::from_be_bytes([high, low]))),
                _ => None,
            };
            // The header is looked at as soon as it is there, so that garbage is not waited for.
            let wanted = match length {
                None => 2,
                Some(_) if self.message.len() < 2 + HEADER_BYTES => 2 + HEADER_BYTES,
                Some(length) => 2 + length,
            };
            let (next, rest) = bytes.split_at(bytes.len().min(wanted - self.message.len()));
            self.message.extend(next);
            bytes = rest;
            if self.message.len() < wanted {
                return;
            }
            if !is_plausible(&self.message) {
                self.is_broken = true;
                self.message = Vec::new();
                return;
            }
            if length.is_some_and(|length| self.message.len() == 2 + length) {
                each(&self.message[2..]);
                self.message.clear();
            }
        }
    }

    /// Whether the bytes were no DNS messages, so that nothing more will be handed on.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }
}

/// Whether a message can start so: it has at least a header, and at most one question (RFC 9619).
fn is_plausible(start: &[u8]) -> bool {
    match *start {
        [high, low] => usize::from(u16::from_be_bytes([high, low])) >= HEADER_BYTES,
        [_, _, _, _, _, _, high, low, ..] => u16::from_be_bytes([high, low]) <= 1,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::wire::testing::{Response, vector16};

    fn read(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
        let mut stream = DnsStream::new();
        let mut messages = Vec::new();
        for chunk in chunks {
            stream.push(chunk, &mut |message| messages.push(message.to_vec()));
            assert!(stream.message.len() <= 65_537);
        }
        (messages, stream.is_broken())
    }

    fn messages() -> Vec<Vec<u8>> {
        let one = Response::to("a.example", 1).a("a.example", 60, [192, 0, 2, 1]);
        let mut large = Response::to("b.example", 1);
        for _ in 0..400 {
            large = large.raw(0, &[0xc0, 12], 16, 60, b"\x0fsome text or so");
        }
        let header = Response::to("", 1).bytes()[..12].to_vec();
        vec![one.bytes(), large.bytes(), header, one.bytes()]
    }

    #[test]
    fn garbage_is_noticed() {
        assert_eq!(read(&[&[0, 0]]), (vec![], true));
        assert_eq!(read(&[&[0], &[11]]), (vec![], true));
        assert_eq!(read(&[b"GET / HTTP/1.1\r\n"]), (vec![], true));
        let good = vector16(&messages()[0]);
        let then = [&good[..], &[0, 0], &good].concat();
        assert_eq!(read(&[&then]), (vec![messages()[0].clone()], true));
        assert_eq!(read(&[&good[..good.len() - 1]]), (vec![], false));
    }

    mod properties {
        use super::*;

        proptest! {
            #[test]
            fn any_split_gives_the_same_messages(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20)) {
                let stream: Vec<u8> = messages().iter().flat_map(|message| vector16(message)).collect();
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
                cuts.extend([0, stream.len()]);
                cuts.sort_unstable();
                let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
                prop_assert_eq!(read(&chunks), (messages(), false));
            }

            #[test]
            fn any_bytes_are_bounded(chunks in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..200), 0..30)) {
                let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
                read(&chunks);
            }
        }
    }
}
