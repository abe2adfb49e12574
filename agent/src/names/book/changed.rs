//! Addresses to be looked at anew, each once, however often it changed.

use flowproof_common::address::Address;
use foldhash::HashSet;

/// What [`NameBook::take_changed`](super::NameBook::take_changed) hands over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Addresses whose patterns changed.
    pub addresses: Vec<Address>,
    /// More changed than could be kept: look at every address that is known, on either side, anew.
    pub overflowed: bool,
}

#[derive(Debug)]
pub(super) struct ChangedSet {
    addresses: HashSet<Address>,
    limit: usize,
    overflowed: bool,
}

impl ChangedSet {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            addresses: HashSet::default(),
            limit,
            overflowed: false,
        }
    }

    pub(super) fn mark(&mut self, address: Address) {
        if self.addresses.len() < self.limit {
            self.addresses.insert(address);
        } else if !self.addresses.contains(&address) {
            self.overflowed = true;
        }
    }

    pub(super) fn take(&mut self) -> Changed {
        Changed {
            addresses: self.addresses.drain().collect(),
            overflowed: std::mem::take(&mut self.overflowed),
        }
    }
}
