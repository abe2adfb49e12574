//! The flow table of the back ends that judge in user space (libpcap and capture files): the twin of the
//! kernel program's tables. It knows packets, tables and time, all passed in; it does no I/O and has no
//! clock, so that a test drives hours of traffic in microseconds.

mod fragments;
mod index;
pub mod notes;
mod slab;
mod store;
pub mod table;

pub use table::{
    FlowTable, FlowView, Limits, Moments, PlainSight, Prepared, Sight, Span, Treatment,
};
