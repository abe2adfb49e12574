//! Names as real peers speak them: Debian's dnsmasq and nginx, TLS by rustls, HTTP/3 by quinn and h3, each on a host of
//! the lab. What no well-behaved program sends (a resolver that dawdles, an encrypted ClientHello, QUIC version 2) is
//! made by hand beside them.
//!
//! Names belong to `lab.example` and its neighbours (RFC 2606), and no packet leaves the lab.

pub mod dnsmasq;
pub mod h3;
pub mod hello;
pub mod identity;
pub mod initial;
pub mod internet;
pub mod nginx;
pub mod query;
pub mod responder;
pub mod stretch;

use std::process::{Command, Stdio};

/// Why the name servers and web servers can't be run here, if they can't; what [`crate::lab::obstacle`] says comes
/// first.
#[must_use]
pub fn obstacle() -> Option<String> {
    crate::lab::obstacle().or_else(|| {
        [
            ("dnsmasq", "--version", "dnsmasq-base"),
            ("nginx", "-v", "nginx-light"),
            ("tcpdump", "--version", "tcpdump"),
        ]
        .into_iter()
        .find(|(program, argument, _)| {
            Command::new(program)
                .arg(argument)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_err()
        })
        .map(|(program, _, package)| format!("the program {program} is missing; install {package}"))
    })
}

/// Whether the servers can't be run here; then it is noted that `test` is skipped, and the caller returns.
#[must_use]
pub fn skipped(test: &str) -> bool {
    obstacle().is_some_and(|reason| {
        crate::skip::skip(test, &reason);
        true
    })
}
