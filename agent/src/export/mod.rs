//! What leaves the daemon for other programs.

pub mod metrics;
