//! The tests that need more than one crate: labs in network namespaces, golden files, the real binary.

pub mod skip;
