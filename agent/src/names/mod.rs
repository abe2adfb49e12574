//! Which names stand behind addresses and flows. Half of the vendors' external rows are names, many of them
//! wildcards on clouds whose addresses change by the minute, so a row is proven by name: by what a resolver told the
//! client, and by the name that the client itself writes at the head of its connection.
//!
//! Everything here is pure: bytes and times come in, decisions go out. The back ends hand over the payloads.

pub mod answer;
pub mod book;
pub mod patterns;

pub mod wire;
