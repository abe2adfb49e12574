//! What the tests that need more than one crate stand on: hosts made of namespaces, traffic made to order, judges
//! that count independently of the daemon, and the daemon itself as an operator would run it.
//!
//! Nothing here links the daemon: it is started as a program, and only what it prints and serves is looked at.

pub mod daemon;
pub mod frame;
pub mod host;
pub mod http;
pub mod judge;
pub mod lab;
pub mod machine;
pub mod metrics;
pub mod names;
pub mod receivers;
pub mod skip;
pub mod traffic;
pub mod yaml;
