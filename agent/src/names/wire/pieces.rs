//! Pieces of a stream that came too early. TCP segments and QUIC CRYPTO frames are put in order alike: what can't be
//! used yet waits here, in bounded number and size.

/// Pieces by their position in a stream. What overlaps is kept twice until it is taken.
#[derive(Debug)]
pub(super) struct Pieces {
    most: usize,
    most_bytes: usize,
    bytes: usize,
    held: Vec<(u64, Box<[u8]>)>,
}

impl Pieces {
    /// Holds at most `most` pieces with `most_bytes` bytes in all.
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            most,
            most_bytes,
            bytes: 0,
            held: Vec::new(),
        }
    }

    /// Holds a piece. Whether there was room: a piece that is held already, or part of one, needs none.
    pub(super) fn hold(&mut self, position: u64, piece: &[u8]) -> bool {
        let end = position + piece.len() as u64;
        let known =
            |(at, held): &(u64, Box<[u8]>)| *at <= position && end <= *at + held.len() as u64;
        if piece.is_empty() || self.held.iter().any(known) {
            return true;
        }
        if self.held.len() == self.most || self.bytes + piece.len() > self.most_bytes {
            return false;
        }
        self.bytes += piece.len();
        self.held.push((position, piece.into()));
        true
    }

    /// Takes a piece that continues a stream which has come to `position`, and drops those that lie behind it. With it
    /// comes how many of its first bytes the stream has already.
    pub(super) fn take(&mut self, position: u64) -> Option<(Box<[u8]>, usize)> {
        self.held
            .retain(|(at, piece)| at + piece.len() as u64 > position);
        let next = self.held.iter().position(|(at, _)| *at <= position);
        let taken = next.and_then(|next| {
            let (at, piece) = self.held.swap_remove(next);
            Some((piece, usize::try_from(position - at).ok()?))
        });
        self.bytes = self.held.iter().map(|(_, piece)| piece.len()).sum();
        taken
    }

    /// Lets all pieces go.
    pub(super) fn clear(&mut self) {
        self.held = Vec::new();
        self.bytes = 0;
    }

    /// Moves all pieces on by `by` bytes, because the stream turned out to start earlier; back, if it starts later.
    pub(super) fn shift(&mut self, by: i64) {
        for (at, piece) in &mut self.held {
            match at.checked_add_signed(by) {
                Some(moved) => *at = moved,
                None => {
                    let gone = usize::try_from(by.unsigned_abs() - *at).unwrap_or(usize::MAX);
                    *piece = piece.get(gone..).unwrap_or_default().into();
                    *at = 0;
                }
            }
        }
        self.held.retain(|(_, piece)| !piece.is_empty());
        self.bytes = self.held.iter().map(|(_, piece)| piece.len()).sum();
    }
}
