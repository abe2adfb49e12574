//! A conversation of the name labs, and what is to be said of it.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// What an initiator says first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Say {
    /// Nothing that tells a name.
    Words,
    /// A ClientHello that shows a name.
    Hello(String),
    /// An HTTP/1 request to a name.
    Host(String),
}

/// When a conversation takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Before any name server was asked.
    Dark,
    /// After the initiators have asked for everything.
    Told,
}

/// What is to be said of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Expected {
    /// Expected by these services of rows, and no others.
    Rows(BTreeSet<String>),
    /// Expected by some of these: of several names of an address nobody can tell which is meant.
    Some(BTreeSet<String>),
    /// Unexpected; its first near miss is of this kind and one of these. No kind: there is none.
    Unexpected(Option<&'static str>, BTreeSet<String>),
    /// Nobody's.
    Unscoped,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case {
    pub(crate) stage: Stage,
    /// Whether it begins outside.
    pub(crate) inbound: bool,
    pub(crate) initiator: IpAddr,
    pub(crate) responder: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) say: Say,
    pub(crate) expected: Expected,
    /// Roles of the initiator and of the responder, if one name alone says them.
    pub(crate) roles: Option<[Vec<String>; 2]>,
}

/// How often a name is exercised.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Conversations that are expected because of it.
    pub(crate) fitting: usize,
    /// Unexpected ones under a name, or with an address, that nearly fits.
    pub(crate) near: usize,
    /// Unexpected ones under another name at its address, or under it at another's.
    pub(crate) mismatched: usize,
    /// Whether initiators tell it at the head of a conversation.
    pub(crate) shown: bool,
}

impl Tally {
    /// Whether all was done that can be.
    pub(crate) const fn is_whole(self) -> bool {
        self.fitting > 0 && self.near > 0 && (self.mismatched > 0 || !self.shown)
    }
}
