//! The running daemon: one thread owns the capture and everybody else sends it commands, so that nothing in a back
//! end is shared and nothing above can slow it down.
//!
//! `actor` is that thread, `unexpected` what it counts beside the back end's totals, `health` what it says of itself,
//! `states` what that comes to for each requirement, `flows` looks through the tables for who asks, `told` keeps what events
//! said of them, `policy` reads what it judges by, `links` follows interfaces, `sight` tells whose traffic comes by, `resolver` asks for names, `name_file` keeps
//! them over a restart. `whereabouts` knows at which end of which row this host is. `daemon` starts and ends it all in the right order.

pub mod actor;
pub mod chronicle;
pub mod daemon;
mod draft;
pub mod evidence;
#[cfg(test)]
pub(crate) mod fake;
pub mod flows;
pub mod health;
pub mod links;
mod name_file;
pub mod policy;
pub mod recorder;
pub mod resolver;
pub mod sight;
pub mod states;
mod told;
pub mod unexpected;
pub mod whereabouts;
