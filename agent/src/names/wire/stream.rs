//! Puts the segments of one direction of a TCP connection in order (RFC 9293, section 3.4): the first bytes of it for
//! the name that a client writes there, or all of it for DNS over TCP. A capture sees segments early, late, twice and
//! overlapping. Where two segments differ, the bytes that came first count, as they do in most receivers.

use super::pieces::Pieces;

/// Most segments that wait for an earlier one.
const MAX_WAITING: usize = 16;

/// Bytes that segments may lie apart: the TCP window without scaling.
const WINDOW: u64 = 65_536;

/// How far `seq` lies behind `start`; negative if before. Sequence numbers wrap (RFC 9293, section 3.4), so numbers
/// less than 2 GiB apart are told apart.
fn distance(start: u32, seq: u32) -> i64 {
    i64::from(seq.wrapping_sub(start).cast_signed())
}

/// The first bytes of one direction of a connection.
///
/// Where they start is told by [`start_at`](Self::start_at), or else is the lowest sequence number seen so far: then
/// [`bytes`](Self::bytes) may come to start earlier with a later push.
#[derive(Debug)]
pub struct Head {
    limit: usize,
    start: Option<u32>,
    is_start_known: bool,
    bytes: Vec<u8>,
    waiting: Pieces,
}

impl Head {
    /// Keeps the first `limit` bytes; twice as many at most, overlaps included, wait for earlier ones.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            start: None,
            is_start_known: false,
            bytes: Vec::new(),
            waiting: Pieces::new(MAX_WAITING, 2 * limit),
        }
    }

    /// Tells the sequence number of the first byte: the SYN's plus one. Only the first call counts.
    pub fn start_at(&mut self, seq: u32) {
        if self.is_start_known {
            return;
        }
        self.is_start_known = true;
        if let Some(start) = self.start {
            self.move_start(distance(seq, start));
        }
        self.start = Some(seq);
        self.advance();
    }

    /// Adds a segment; `seq` is the sequence number of its first byte. Segments beyond the limit, and more than 16 that
    /// wait for an earlier one, are ignored.
    pub fn push(&mut self, seq: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let start = *self.start.get_or_insert(seq);
        let mut position = distance(start, seq);
        if position < 0 && !self.is_start_known {
            // A segment far before the others is of another connection on the same ports.
            if position.unsigned_abs() > WINDOW {
                return;
            }
            self.move_start(-position);
            self.start = Some(seq);
            position = 0;
        }
        // Bytes before the start, such as those of a keep-alive probe, aren't the stream's.
        let gone = usize::try_from(-position.min(0)).unwrap_or(usize::MAX);
        let bytes = bytes.get(gone..).unwrap_or_default();
        let position = usize::try_from(position.max(0)).unwrap_or(usize::MAX);
        let room = self.limit.saturating_sub(position).min(bytes.len());
        let bytes = &bytes[..room];
        if let Some(known) = self.bytes.len().checked_sub(position) {
            self.bytes.extend(bytes.get(known..).unwrap_or_default());
        } else {
            self.waiting.hold(position as u64, bytes);
        }
        self.advance();
    }

    /// The bytes from the start up to the first gap, at most as many as the limit.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether as many bytes as the limit are there, so that no more will come.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= self.limit
    }

    /// Moves everything on by `by` bytes; if negative, the first bytes fall off.
    fn move_start(&mut self, by: i64) {
        self.waiting.shift(by);
        let bytes = std::mem::take(&mut self.bytes);
        match usize::try_from(by) {
            Ok(0) => self.bytes = bytes,
            Ok(on) => {
                let room = self.limit.saturating_sub(on).min(bytes.len());
                self.waiting.hold(on as u64, &bytes[..room]);
            }
            Err(_) => {
                let gone = usize::try_from(by.unsigned_abs()).unwrap_or(usize::MAX);
                self.bytes = bytes.get(gone..).unwrap_or_default().to_vec();
            }
        }
    }

    fn advance(&mut self) {
        while let Some((piece, known)) = self.waiting.take(self.bytes.len() as u64) {
            let room = (self.limit + known).saturating_sub(self.bytes.len());
            let end = room.min(piece.len());
            self.bytes.extend(piece.get(known..end).unwrap_or_default());
        }
    }
}

/// All bytes of one direction of a connection, handed on as they come in order. Nothing is skipped: behind a gap that
/// doesn't fill within 64 KiB or 16 segments it is stuck for good.
#[derive(Debug)]
pub struct InOrder {
    next: Option<u32>,
    waiting: Pieces,
    is_stuck: bool,
}

impl Default for InOrder {
    fn default() -> Self {
        Self::new()
    }
}

impl InOrder {
    /// Starts with the first segment pushed, unless [`start_at`](Self::start_at) tells the start before it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            next: None,
            waiting: Pieces::new(MAX_WAITING, usize::try_from(WINDOW).unwrap_or(usize::MAX)),
            is_stuck: false,
        }
    }

    /// Tells the sequence number of the first byte: the SYN's plus one. Counts only before the first segment.
    pub fn start_at(&mut self, seq: u32) {
        self.next.get_or_insert(seq);
    }

    /// Adds a segment and hands on what is in order now; `seq` is the sequence number of its first byte.
    pub fn push(&mut self, seq: u32, bytes: &[u8], each: &mut dyn FnMut(&[u8])) {
        if self.is_stuck || bytes.is_empty() {
            return;
        }
        let mut next = *self.next.get_or_insert(seq);
        // Positions count from the next byte: the pieces are shifted as it goes on.
        let position = distance(next, seq);
        if let Ok(ahead @ 1..) = u64::try_from(position) {
            let fits = ahead + bytes.len() as u64 <= WINDOW;
            if !fits || !self.waiting.hold(ahead, bytes) {
                self.is_stuck = true;
                self.waiting.clear();
            }
            return;
        }
        let known = usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX);
        let mut fresh = bytes.get(known..).unwrap_or_default();
        let mut piece;
        while !fresh.is_empty() {
            each(fresh);
            // A segment has less than 4 GiB; the number wraps.
            next = next.wrapping_add(u32::try_from(fresh.len()).unwrap_or(u32::MAX));
            self.waiting
                .shift(-i64::try_from(fresh.len()).unwrap_or(i64::MAX));
            piece = self.waiting.take(0);
            fresh = piece
                .as_ref()
                .and_then(|(piece, known)| piece.get(*known..))
                .unwrap_or_default();
        }
        self.next = Some(next);
    }

    /// Whether a gap wasn't filled, so that nothing more will be handed on.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.is_stuck
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(length: usize) -> Vec<u8> {
        (0..length)
            .map(|at| (at * 7 + at / 256).to_le_bytes()[0])
            .collect()
    }

    fn head(limit: usize, start: Option<u32>, segments: &[(u32, &[u8])]) -> Head {
        let mut head = Head::new(limit);
        if let Some(start) = start {
            head.start_at(start);
        }
        for (seq, bytes) in segments {
            head.push(*seq, bytes);
        }
        head
    }

    #[test]
    fn heads_are_put_in_order() {
        let check = |start, segments: &[(u32, &[u8])], expect: &[u8]| {
            assert_eq!(head(8, start, segments).bytes(), expect, "{segments:?}");
        };
        check(Some(10), &[(10, b"ab"), (12, b"cd")], b"abcd");
        check(Some(10), &[(12, b"cd"), (10, b"ab")], b"abcd");
        check(Some(10), &[(12, b"cd")], b"");
        check(None, &[(12, b"cd")], b"cd");
        check(None, &[(12, b"cd"), (10, b"ab")], b"abcd");
        check(None, &[(12, b"cd"), (9, b"ab")], b"ab");
        check(None, &[(12, b"cd"), (9, b"ab"), (11, b"x")], b"abxcd");
        // Overlaps: what came first counts.
        check(Some(10), &[(10, b"abc"), (11, b"XYd")], b"abcd");
        check(Some(10), &[(10, b"abc"), (10, b"XYZ")], b"abc");
        // A keep-alive probe lies before the start.
        check(Some(10), &[(9, b"X"), (10, b"ab")], b"ab");
        check(Some(10), &[(9, b"Xab")], b"ab");
        check(Some(10), &[(10, b"abcdefghij")], b"abcdefgh");
        check(Some(10), &[(18, b"ij"), (10, b"ab")], b"ab");
        check(Some(10), &[(14, b"efghij"), (10, b"abcd")], b"abcdefgh");
        check(Some(u32::MAX), &[(1, b"cd"), (u32::MAX, b"ab")], b"abcd");
        check(None, &[(0, b"cd"), (u32::MAX - 1, b"ab")], b"abcd");
        // Another connection on the same ports.
        check(None, &[(100_000, b"ab"), (10, b"XY")], b"ab");
        check(Some(10), &[(10, b"")], b"");
    }

    #[test]
    fn the_start_may_be_told_late() {
        let mut late = head(8, None, &[(12, b"cd")]);
        late.start_at(10);
        assert_eq!(late.bytes(), b"");
        late.push(10, b"ab");
        assert_eq!(late.bytes(), b"abcd");
        late.start_at(12);
        assert_eq!(late.bytes(), b"abcd");

        let mut later = head(8, None, &[(10, b"Xab"), (14, b"d")]);
        later.start_at(11);
        assert_eq!(later.bytes(), b"ab");
        later.push(13, b"c");
        assert_eq!(later.bytes(), b"abcd");
    }

    #[test]
    fn heads_are_bounded() {
        let full = head(4, Some(0), &[(0, b"abcdef")]);
        assert!(full.is_full() && full.bytes() == b"abcd");
        assert!(!head(4, Some(0), &[(0, b"abc")]).is_full());

        let mut many = Head::new(1_000);
        many.start_at(0);
        for at in (2..100).step_by(2) {
            many.push(at, b"x");
        }
        assert!(!many.waiting.hold(500, b"x"));
        for at in (0..100).step_by(2) {
            many.push(at, b"x");
            many.push(at + 1, b"y");
        }
        assert_eq!(many.bytes(), "xy".repeat(50).as_bytes());
    }

    fn in_order(start: Option<u32>, segments: &[(u32, &[u8])]) -> (Vec<u8>, bool) {
        let mut all = InOrder::new();
        if let Some(start) = start {
            all.start_at(start);
        }
        let mut bytes = Vec::new();
        for (seq, segment) in segments {
            all.push(*seq, segment, &mut |fresh| bytes.extend(fresh));
        }
        (bytes, all.is_stuck())
    }

    #[test]
    fn all_bytes_come_in_order() {
        let check = |start, segments: &[(u32, &[u8])], expect: &[u8]| {
            assert_eq!(in_order(start, segments), (expect.to_vec(), false));
        };
        check(None, &[(12, b"cd"), (10, b"ab")], b"cd");
        check(Some(10), &[(12, b"cd"), (10, b"ab"), (14, b"e")], b"abcde");
        check(
            Some(10),
            &[(10, b"abc"), (11, b"XYd"), (10, b"ab")],
            b"abcd",
        );
        check(
            Some(10),
            &[(14, b"e"), (12, b"cd"), (10, b"abXX")],
            b"abXXe",
        );
        check(Some(u32::MAX), &[(1, b"cd"), (u32::MAX, b"ab")], b"abcd");
    }

    #[test]
    fn a_gap_that_stays_is_the_end() {
        let large = [0; 1_460];
        let mut segments: Vec<(u32, &[u8])> = (1..=17).map(|at| (at * 1_460, &large[..])).collect();
        segments.push((0, &large));
        assert_eq!(in_order(Some(0), &segments), (vec![], true));
        segments.remove(16);
        assert_eq!(in_order(Some(0), &segments), (vec![0; 17 * 1_460], false));
        assert!(in_order(Some(0), &[(65_536, b"x")]).1);
        assert!(!in_order(Some(0), &[(65_535, b"x")]).1);
    }

    mod properties {
        use super::*;

        proptest! {
            /// Any split, in any order, with overlaps and repetitions, gives the same bytes.
            #[test]
            fn order_does_not_matter(
                start in any::<u32>(),
                cuts in proptest::collection::vec(0..3_000_u32, 1..12),
                order in any::<u64>(),
                known in any::<bool>(),
            ) {
                let bytes = stream(3_000);
                let mut cuts = [&cuts[..], &[0, 3_000]].concat();
                cuts.sort_unstable();
                let mut segments: Vec<_> = cuts
                    .windows(2)
                    .map(|cut| (cut[0], &bytes[cut[0] as usize..(cut[1] as usize + 9).min(3_000)]))
                    .collect();
                segments.sort_by_key(|(at, _)| order.rotate_left(at % 64));
                let mut head = Head::new(2_500);
                let mut all = InOrder::new();
                all.start_at(start);
                if known {
                    head.start_at(start);
                }
                let mut handed: Vec<u8> = Vec::new();
                for (at, segment) in &segments {
                    let seq = start.wrapping_add(*at);
                    head.push(seq, segment);
                    all.push(seq, segment, &mut |fresh| handed.extend(fresh));
                    prop_assert!(head.bytes().len() <= 2_500);
                }
                prop_assert!(head.bytes() == &bytes[..2_500]);
                prop_assert!(head.is_full());
                prop_assert!(handed == bytes);
                prop_assert!(!all.is_stuck());
            }

            #[test]
            fn any_segments_are_bounded(
                segments in proptest::collection::vec(
                    (any::<u32>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..60),
                near in any::<bool>(),
                told in proptest::option::of((0..60_usize, any::<u32>())),
            ) {
                let mut head = Head::new(600);
                let mut all = InOrder::new();
                let pushed: usize = segments.iter().map(|(_, bytes)| bytes.len()).sum();
                let mut handed = 0;
                for (index, (seq, bytes)) in segments.iter().enumerate() {
                    let seq = if near { seq % 1_000 } else { *seq };
                    if let Some((when, start)) = told && when == index {
                        head.start_at(if near { start % 1_000 } else { start });
                    }
                    head.push(seq, bytes);
                    all.push(seq, bytes, &mut |fresh| handed += fresh.len());
                    prop_assert!(head.bytes().len() <= 600);
                }
                prop_assert!(handed <= pushed);
            }
        }
    }
}
