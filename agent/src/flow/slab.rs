//! Room for entries that grows piece by piece. A vector would move everything whenever it is full, and keep room for as
//! much again: with a million flows that is a stall that drops packets, and memory that nobody uses.

/// Entries of a piece as a power of two.
const SHIFT: u32 = 10;
const PIECE: usize = 1 << SHIFT;

pub(super) struct Slab<T> {
    pieces: Vec<Vec<T>>,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { pieces: Vec::new() }
    }

    /// Adds an entry and tells where it is.
    pub(super) fn push(&mut self, entry: T) -> u32 {
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let before = self.pieces.len() - 1;
        let piece = &mut self.pieces[before];
        piece.push(entry);
        // The limits of both flow tables are 32-bit numbers.
        u32::try_from((before << SHIFT) + piece.len() - 1).unwrap_or(u32::MAX)
    }

    #[inline]
    pub(super) fn get(&self, at: u32) -> &T {
        &self.pieces[(at >> SHIFT) as usize][at as usize & (PIECE - 1)]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: u32) -> &mut T {
        &mut self.pieces[(at >> SHIFT) as usize][at as usize & (PIECE - 1)]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }
}
