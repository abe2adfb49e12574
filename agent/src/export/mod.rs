//! What leaves the daemon for other programs. Each contract has types of its own, so that it does not follow when the
//! inside changes.

mod exposition;
pub mod flow_line;
pub mod metrics;
#[cfg(test)]
mod metrics_table;
mod metrics_web;
pub mod own;
pub mod probe_line;
pub mod process;
pub mod requirement_line;
pub mod tally;
pub mod times;
