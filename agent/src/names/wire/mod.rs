//! Readers of payload bytes: DNS responses, and the heads of TLS, HTTP and QUIC conversations. They stand apart because
//! they meet bytes that strangers chose: each one is pure, bounded in time and memory whatever it is fed, and answers
//! with a typed refusal where it can't read. None of them knows flows, clocks or requirements.

pub mod dns;
pub mod framing;
pub mod hello;
mod http;
mod pieces;
pub mod quic;
pub mod stream;
#[cfg(test)]
pub(in crate::names) mod testing;
mod tls;
