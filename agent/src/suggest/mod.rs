//! What traffic says about the matrix itself: recurring flows that no row covers become proposed requirements, and rows
//! that nothing used become candidates for removal. A person decides; this only prepares the decision, with its reasons.
//!
//! It works on hourly flow records, whoever made them, and judges each anew by the matrix and the site of now, so that
//! what a row covers meanwhile is not proposed. There can be millions of records, so they are read twice instead of kept:
//!
//! 1. [`Survey`] finds initiators that look like a scan, and conversations with a client's port as their service.
//! 2. [`Gathering`] adds up, by pair of roles and service, what is neither, and makes [`Suggestions`] of it.
//!
//! Rules of evidence, each stated where it is applied:
//!
//! - Only answered flows show that somebody needs something. What recurs and is never answered is told, not proposed.
//! - A port that clients use (from 32,768 on) is no service by itself: many of them between the same roles are one range,
//!   a single one needs several clients, and one whose ends talk the other way round over a service is an answer that was
//!   taken for a request.
//! - A scan is told and never proposed, whatever of it was answered.
//!
//! Whatever is kept has a bound. Of what goes beyond it the least by order of the keys stay, so that the result does not
//! depend on the order of the records, and what was left out is counted.
//!
//! Pure: no files, no clock. [`patch`] makes the changes of matrix files as text.

mod evidence;
mod gather;
mod judge;
mod least;
pub mod patch;
mod propose;
mod roles;
mod survey;
mod unused;

#[cfg(test)]
mod tests;

use crate::matrix::SystemIndex;

pub use evidence::{Evidence, Few};
pub use gather::Gathering;
pub use propose::{
    Left, Mistaken, Nearly, NewRole, Proposal, Recurring, Scan, Suggestions, Totals,
};
pub use survey::Survey;
pub use unused::{Removal, Untold, Unused, unused};

/// When something is proposed, and where to.
#[derive(Debug, Clone)]
pub struct Options {
    /// Answered flows that something must have.
    pub min_flows: u64,
    /// Different hours in which it was answered.
    pub min_hours: u64,
    /// Whether what was never answered is proposed too.
    pub include_unanswered: bool,
    /// The site's own system, for what no single pack can say.
    pub local: Local,
}

/// The system of the site-local matrix.
#[derive(Debug, Clone)]
pub struct Local {
    /// Its id.
    pub system: String,
    /// Which system of the matrix it is, if it is there already and deployed.
    pub index: Option<SystemIndex>,
}

/// The first port that a client's system gives to its clients by default: Linux begins here
/// (`net.ipv4.ip_local_port_range`), Windows and RFC 6335 (section 6) at 49,152.
const FIRST_EPHEMERAL: u16 = 32_768;
/// The first dynamic port of RFC 6335, section 6.
const FIRST_DYNAMIC: u16 = 49_152;
/// The last port that Linux gives to clients by default.
const LAST_LINUX: u16 = 60_999;
