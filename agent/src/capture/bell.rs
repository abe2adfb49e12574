//! Wakes the thread that waits for packets when somebody wants something else of it, who else would wait as long as that thread
//! does.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// A bell that stays rung until it is answered.
#[derive(Debug)]
pub struct Bell(EventFd);

impl Bell {
    /// A silent one.
    ///
    /// # Errors
    /// The process may open no more files.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_flags(flags)?))
    }

    /// Wakes whoever waits, now or next.
    pub fn ring(&self) {
        // It only fails after 2^64 - 2 rings without an answer, and is rung by then.
        let _ = self.0.write(1);
    }

    /// Silences it; whether it had been rung.
    pub fn answer(&self) -> bool {
        self.0.read().is_ok()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_answered_once_however_often_it_was_rung() {
        let bell = Bell::new().unwrap();
        assert!(!bell.answer());
        bell.ring();
        bell.ring();
        assert!(bell.answer());
        assert!(!bell.answer());
    }
}
