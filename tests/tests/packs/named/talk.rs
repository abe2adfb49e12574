//! How two ends talk with each other, before it is known what is to be said of it.

use std::net::IpAddr;

use super::case::{Say, Stage};
use super::world::STRANGER;
use crate::pack::protocol;

/// What a responder inside is called by those who open conversations from outside.
const INSIDER: &str = "device.lab.example";
/// The port on which a name is told by HTTP/1.
const HTTP: u16 = 80;

/// What a conversation is to prove of the name at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    Fits,
    Near,
    Mismatch,
    /// Nothing: it is about somebody else.
    Other,
}

/// A conversation before it is known what is to be expected of it.
pub(crate) struct Draft {
    pub(crate) stage: Stage,
    pub(crate) ends: [IpAddr; 2],
    /// The name of the end outside.
    pub(crate) name: String,
    pub(crate) say: Say,
    pub(crate) aim: Aim,
}

impl Draft {
    pub(crate) fn aimed(self, aim: Aim) -> Self {
        Self { aim, ..self }
    }

    /// The same from somebody without a role.
    pub(crate) fn by_stranger(self) -> Self {
        Self {
            ends: [STRANGER, self.ends[1]],
            aim: Aim::Other,
            ..self
        }
    }
}

/// Who inside talks with the outside, and how.
pub(crate) struct Talk {
    pub(crate) inbound: bool,
    /// The end inside.
    pub(crate) home: [IpAddr; 2],
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

impl Talk {
    pub(crate) fn ends(&self, outside: IpAddr) -> [IpAddr; 2] {
        let inside = self.home[usize::from(outside.is_ipv6())];
        if self.inbound {
            [outside, inside]
        } else {
            [inside, outside]
        }
    }

    pub(crate) fn draft(&self, stage: Stage, outside: IpAddr, name: &str, say: Say) -> Draft {
        Draft {
            stage,
            ends: self.ends(outside),
            name: name.to_owned(),
            say,
            aim: Aim::Fits,
        }
    }

    /// How a name is told on this port, if it can be.
    pub(crate) fn hello(&self, name: &str) -> Option<Say> {
        match (self.protocol, self.port) {
            (protocol::TCP, HTTP) => Some(Say::Host(name.to_owned())),
            (protocol::TCP, _) => Some(Say::Hello(name.to_owned())),
            _ => None,
        }
    }

    /// With and without telling the responder's name.
    pub(crate) fn says(&self, outside: &str) -> Vec<Say> {
        let responder = if self.inbound { INSIDER } else { outside };
        let hello = self.hello(responder);
        hello.into_iter().chain([Say::Words]).collect()
    }
}

/// As somebody might write it.
pub(crate) fn shouted(name: &str) -> String {
    name.char_indices()
        .map(|(at, letter)| {
            if at % 2 == 0 {
                letter.to_ascii_uppercase()
            } else {
                letter
            }
        })
        .collect()
}
