//! Active checks of requirements that traffic has not verified yet: `flowproof probe`.
//!
//! Watching proves what is used; on deployment day much is not used yet. A probe is the smallest piece of real traffic
//! that shows whether a row works: a TCP handshake, a TLS handshake with the name that the row is bound to, a question of
//! the protocol that a UDP port is known for, an echo request. What comes of it is put into the terms of flows and judged
//! by [`requirement`](crate::verdict::requirement), like traffic that was seen.
//!
//! - [`bounds`] decides to which addresses anything may be sent, and nothing is sent without asking it.
//! - [`plan`] says which row asks whom for what, and why others are not probed.
//! - [`question`] has the bytes of questions, and tells answers from anything else.
//! - [`pace`] says when the next probe may begin, [`judge`] what the end of one means, [`result`] what all of them say
//!   of the rows.
//! - [`io`] is the only part with sockets and clocks; the others are pure.

pub mod bounds;
pub mod io;
pub mod judge;
pub mod pace;
pub mod plan;
pub mod question;
pub mod result;

use std::net::IpAddr;

use self::bounds::Allowed;
use self::question::Question;
use crate::matrix::Service;
use crate::names::answer::Name;

/// One thing to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The row's place in the plan.
    pub row: usize,
    /// The service's place in the row.
    pub service: usize,
    /// The address that it comes from, one of this host's.
    pub source: IpAddr,
    /// Where it goes.
    pub target: Allowed,
    /// The name that led there.
    pub name: Option<Name>,
    /// The responder's port; none where the protocol has none.
    pub port: Option<u16>,
    /// What is asked.
    pub question: Question,
}

/// A service of a probe in the text of matrix files, narrowed to the port that is tried: `tcp/443`.
#[must_use]
pub fn tried(service: Service, port: Option<u16>) -> String {
    match port {
        Some(port) => format!("{}/{port}", service.protocol()),
        None => service.to_string(),
    }
}
