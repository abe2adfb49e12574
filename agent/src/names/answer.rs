//! What a resolver said of a name, whoever heard it: read from the wire ([`super::wire`]) or asked for by the daemon.

use std::net::IpAddr;
use std::sync::Arc;

/// Longest DNS name in text form without the final dot (RFC 1035, section 2.3.4).
pub const MAX_NAME_BYTES: usize = 253;

/// A name as all tables keep it: ASCII lower case, without the final dot, at most [`MAX_NAME_BYTES`].
pub type Name = Arc<str>;

/// Folds a name from the wire to the form that all tables keep. `None` if it is no host name: empty, too long, with an
/// empty label, or with bytes other than letters, digits, `-` and `_`.
#[must_use]
pub fn fold(text: &str) -> Option<Name> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let fits = !name.is_empty() && name.len() <= MAX_NAME_BYTES;
    let host = name.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    });
    (fits && host).then(|| Name::from(name.to_ascii_lowercase()))
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// IPv4 addresses (RFC 1035).
    A,
    /// IPv6 addresses (RFC 3596).
    Aaaa,
    /// Service binding (RFC 9460), HTTPS (65) or SVCB (64).
    Https,
    /// Any other type by number; it says nothing about addresses.
    Other(u16),
}

/// Whether the name resolves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Result {
    /// There are addresses.
    Found,
    /// The name exists without records of this kind (RFC 2308, section 2.2), or the answer was cut (TC) or a mere alias.
    NoData,
    /// The name does not exist: NXDOMAIN.
    NoName,
    /// The resolver failed: SERVFAIL.
    ServerFailure,
    /// The resolver refused: REFUSED.
    Refused,
    /// Another response code by number.
    Other(u16),
}

/// One answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The name that was asked for.
    pub question: Name,
    /// The kind of record that was asked for.
    pub kind: Kind,
    /// What came of it.
    pub result: Result,
    /// Where the question leads, in order: CNAMEs, and targets of HTTPS and SVCB records. Without the question itself.
    /// Only records that the chain from the question reaches are here; others in the message are nobody's answer.
    pub aliases: Vec<Name>,
    /// Addresses at the end of the chain, address hints of HTTPS records included, each with the seconds that the
    /// whole chain to it may be kept: the least TTL along it.
    pub addresses: Vec<(IpAddr, u32)>,
    /// The public name of the encrypted ClientHello configuration that an HTTPS record publishes
    /// (draft-ietf-tls-esni, section 4): what the ClientHello shows in place of the name.
    pub ech_public_name: Option<Name>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(fold(text).as_deref(), expect);
        check("WWW.Example.ORG.", Some("www.example.org"));
        check("_dns.resolver.arpa", Some("_dns.resolver.arpa"));
        check("", None);
        check(".", None);
        check("a..b", None);
        check("a b", None);
        check(&"a".repeat(64), None);
        check(
            &format!("{}a", "a.".repeat(126)),
            Some(&format!("{}a", "a.".repeat(126))),
        );
        check(&"a.".repeat(127), Some(&"a.".repeat(127)[..253]));
        check(&format!("{}aa", "a.".repeat(126)), None);
    }
}
