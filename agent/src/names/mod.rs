//! Which names stand behind addresses and flows. Half of the vendors' external rows are names, many of them
//! wildcards on clouds whose addresses change by the minute, so a row is proven by name: by what a resolver told the
//! client, and by the name that the client itself writes at the head of its connection.
//!
//! Everything here is pure: bytes and times come in, decisions go out. The back ends hand over the payloads.

pub mod answer;
pub mod book;
mod decide;
pub mod flow_name;
mod heads;
pub mod moves;
pub mod namer;
pub mod patterns;
pub mod schedule;
pub mod wall_time;
pub mod wire;

use std::time::Duration;

use flowproof_common::key::{FlowKey, Side};
use flowproof_common::payload::Wanted;

use crate::config::NamesConfig;

pub use flow_name::{FlowName, Mismatch, NameSource};
pub use namer::{Decisions, Namer, NamerCounts, Ruling};

/// What names are learned from, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether answers of DNS servers are read.
    pub passive_dns: bool,
    /// Whether the heads of TLS, QUIC and HTTP/1 conversations are read.
    pub hello: bool,
    /// How long a flow waits for its name, nanoseconds; at most [`flowproof_common::payload::HOLD_MAX`].
    pub hold: u64,
    /// How long an address stands for a name.
    pub lifetimes: book::Lifetimes,
    /// How much is remembered.
    pub limits: book::Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            passive_dns: true,
            hello: true,
            hold: 10_000_000_000,
            lifetimes: book::Lifetimes::default(),
            limits: book::Limits::default(),
        }
    }
}

impl From<&NamesConfig> for Settings {
    fn from(config: &NamesConfig) -> Self {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            passive_dns: config.passive_dns,
            hello: config.hello,
            hold: nanos(config.hold),
            lifetimes: book::Lifetimes {
                ttl_min: nanos(config.ttl_min),
                ttl_max: nanos(config.ttl_max),
                grace: nanos(config.grace),
                ..book::Lifetimes::default()
            },
            limits: book::Limits::default(),
        }
    }
}

/// A piece of payload, as a back end hands it over.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// The flow.
    pub key: FlowKey,
    /// Who sent it.
    pub sender: Side,
    /// What it is wanted for.
    pub wanted: Wanted,
    /// When, nanoseconds of the back end's clock.
    pub time: u64,
    /// TCP: the sequence number of the first byte of the packet's payload.
    pub sequence: u32,
    /// How far into the packet's payload this piece begins.
    pub offset: u32,
    /// Bytes of the packet's payload, of which some may not have been captured.
    pub total: u32,
    /// Whether the rest of the packet's payload was not captured.
    pub cut: bool,
    /// The piece.
    pub bytes: &'a [u8],
}
