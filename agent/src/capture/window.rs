//! The stretch of a source of bytes that is in memory: a parser takes what it needs from its front, in place, and asks for
//! more. Large enough for thousands of packets and small enough for a processor's second cache.

use std::io::{self, Read};

/// Bytes in memory unless more are asked for.
const SIZE: usize = 1 << 18;

pub(super) struct Window {
    source: Box<dyn Read + Send>,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    exhausted: bool,
}

impl Window {
    pub(super) fn new(source: impl Read + Send + 'static) -> Self {
        Self {
            source: Box::new(source),
            bytes: vec![0; SIZE],
            start: 0,
            end: 0,
            exhausted: false,
        }
    }

    /// What is in memory and has not been consumed.
    #[inline]
    pub(super) fn data(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether nothing follows on what is in memory.
    pub(super) const fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// Lets go of the first bytes.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
    }

    /// Makes room for as many bytes.
    pub(super) fn grow(&mut self, bytes: usize) {
        if self.bytes.len() < bytes {
            self.bytes.resize(bytes, 0);
        }
    }

    /// Whether all bytes that there is room for are data.
    pub(super) fn is_full(&self) -> bool {
        self.data().len() == self.bytes.len()
    }

    /// Reads on once, if there is room; a source such as a pipe may give less than there is room for.
    ///
    /// # Errors
    /// That of the source.
    pub(super) fn refill(&mut self) -> io::Result<()> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.is_full() {
            return Ok(());
        }
        loop {
            match self.source.read(&mut self.bytes[self.end..]) {
                Ok(read) => {
                    self.end += read;
                    self.exhausted = read == 0;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
