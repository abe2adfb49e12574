//! What happens, as a stream for whoever does not scrape: an operator with `tail -f`, a log pipeline, a SIEM. `model` is the
//! contract, `derive` finds out what is worth an event by comparing what was known with what is known now, `queue` holds
//! what a destination has not taken yet, `sink` has the destinations, `worker` feeds one of them.
//!
//! Every destination has a thread and a bounded queue of its own, so that one that is slow, full or gone costs nothing but
//! its own events, and those are counted. Judging never waits for any of it.

mod derive;
mod feed;
pub mod model;
mod queue;
mod sink;
mod teller;
mod worker;

pub use feed::{Events, Feed, SinkStatus, StartError};
pub use model::{Body, Event, Severity, schema};
pub use teller::Teller;
