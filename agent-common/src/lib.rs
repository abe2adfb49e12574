//! The part of flowproof that has two homes: compiled for `bpfel-unknown-none` it judges packets in the
//! kernel, compiled for the host it judges packets that libpcap or a capture file hands over. One
//! definition of every key, record and rule, so that the two back ends cannot disagree.
//!
//! Nothing here allocates, does I/O, reads a clock or knows a requirement's text: time and tables come
//! from outside ([`classify::Tables`], [`parse::Bytes`]), policy is numbers that the daemon compiled.

#![no_std]

#[cfg(feature = "std")]
extern crate std;

pub mod address;
pub mod classify;
pub mod drops;
pub mod entry;
pub mod key;
pub mod layout;
pub mod packet;
pub mod parse;
pub mod payload;
pub mod plain;
pub mod presence;
pub mod protocol;
pub mod record;
pub mod state;
pub mod ticks;

#[cfg(feature = "aya")]
mod pod;
