//! What a role stands for: addresses, DNS names and service tags. Shared by the `names` of a rule pack and the
//! bindings of a site file, so that both accept the same texts and refuse them with the same words.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// Longest DNS name in text form, without the final dot (RFC 1035 section 2.3.4 allows 255 octets on the wire).
const MAX_NAME_BYTES: usize = 253;
/// Longest DNS label (RFC 1035 section 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// A DNS name in lower case, possibly with wildcards: `www.example.org`, `*.example.org`, `*xt.blob.example.org`.
/// A `*` stands for a part of a label; as the whole first label it stands for one label or more. International names
/// are kept as they go over the wire: `xn--bcher-kva.example`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamePattern(Arc<str>);

impl NamePattern {
    /// Reads a name or a pattern. Case and a final dot do not matter, and an international name is the same as its
    /// ASCII form (UTS #46, non-transitional).
    ///
    /// # Errors
    /// [`BindingError`] says which part is no DNS name and what to write.
    pub fn new(text: &str) -> Result<Self, BindingError> {
        let error = |reason| BindingError::Name {
            text: shorten(text),
            reason,
        };
        if text.contains("://") || text.contains('/') {
            return Err(error("write only the host name, without scheme and path"));
        }
        if text.contains(':') {
            return Err(error(
                "write only the host name, without a port; ports belong to `services` of the requirement",
            ));
        }
        let name = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            to_ascii(text).map_err(error)?
        };
        let name = name.strip_suffix('.').unwrap_or(&name);
        if name.len() > MAX_NAME_BYTES {
            return Err(error("a DNS name has at most 253 characters"));
        }
        let mut literal_labels = 0;
        for label in name.split('.') {
            if label.is_empty() {
                return Err(error("a label between the dots is empty"));
            }
            if label.len() > MAX_LABEL_BYTES {
                return Err(error("a label between the dots has at most 63 characters"));
            }
            if !label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'*'))
            {
                return Err(error(
                    "a DNS name has letters, digits, `-`, `_`, `.` and the wildcard `*`",
                ));
            }
            if label.contains("**") {
                return Err(error("write a single `*`"));
            }
            if !label.contains('*') {
                literal_labels += 1;
            }
        }
        if literal_labels == 0 && name.contains('*') {
            return Err(error(
                "a wildcard needs a domain after it; for every address use the built-in role `any`",
            ));
        }
        // No top-level domain is a number (RFC 3696 section 2), so this is a mistyped address.
        if name
            .rsplit('.')
            .next()
            .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Err(error("it looks like an address but is none"));
        }
        Ok(Self(Arc::from(name)))
    }

    /// The pattern in lower case, without a final dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern has a `*`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.contains('*')
    }

    /// The labels after the last one with a `*`; none for a name without wildcards.
    #[must_use]
    pub fn below_wildcard(&self) -> Option<&str> {
        let (_, after) = self.0.rsplit_once('*')?;
        after.split_once('.').map(|(_, labels)| labels)
    }
}

/// An international name in the form that goes over the wire, label by label, since a `*` is no part of a name.
fn to_ascii(text: &str) -> Result<String, &'static str> {
    // The full stops that UTS #46 takes for dots.
    let text = text.replace(['\u{3002}', '\u{ff0e}', '\u{ff61}'], ".");
    // Far more than any name needs: what is mapped may shrink, and nobody waits for a hostile text.
    if text.len() > 4 * MAX_NAME_BYTES {
        return Err("a DNS name has at most 253 characters");
    }
    let mut name = String::with_capacity(text.len());
    for (position, label) in text.split('.').enumerate() {
        if position > 0 {
            name.push('.');
        }
        if label.is_ascii() {
            name.push_str(&label.to_ascii_lowercase());
            continue;
        }
        // The full-width asterisk would be mapped to the plain one.
        if label.contains(['*', '\u{ff0a}']) {
            return Err(
                "a `*` can't be a part of an international label: make it a label of its own, as in `*.b\u{fc}cher.example`, or list the names",
            );
        }
        let label = idna::domain_to_ascii_cow(label.as_bytes(), idna::AsciiDenyList::EMPTY)
            .map_err(|_| {
                "a label between the dots is no international name (UTS #46): write its ASCII form, `xn--...`"
            })?;
        name.push_str(&label);
    }
    Ok(name)
}

impl fmt::Display for NamePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// One thing that a role is bound to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// Addresses; a single one is a prefix of full length. Host bits are always zero.
    Prefix(IpNet),
    /// A DNS name or pattern.
    Name(NamePattern),
    /// A service tag of a cloud provider, without `tag:`.
    Tag(String),
}

/// Why a text is no binding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// The text is empty.
    #[error("an empty text binds nothing: write an address, a prefix, a DNS name, or `tag:Name`")]
    Empty,
    /// The text has blanks in it.
    #[error("`{0}` has blanks in it: write one address, prefix, DNS name or `tag:Name` an entry")]
    Blank(String),
    /// The text has a `/` but is no prefix.
    #[error(
        "`{text}` is not a prefix: write `10.1.0.0/16` with a length of at most {max}, or `2001:db8::/32` for IPv6"
    )]
    Prefix {
        /// The text as it was written.
        text: String,
        /// The greatest length for the address family.
        max: u8,
    },
    /// The text is a range of addresses.
    #[error("`{0}` is a range of addresses: write it as prefixes, such as `10.1.0.0/28`")]
    Range(String),
    /// The text names an interface.
    #[error("`{0}` has a zone: write the address without `%` and the interface")]
    Zone(String),
    /// The text after `tag:` is no tag name.
    #[error(
        "`{0}` is not a service tag: write `tag:` and the provider's name, such as `tag:AzureCloud.WestEurope`"
    )]
    Tag(String),
    /// The text is no DNS name.
    #[error("`{text}` is neither an address nor a DNS name: {reason}")]
    Name {
        /// The text as it was written.
        text: String,
        /// What is wrong, and what to write.
        reason: &'static str,
    },
}

/// A binding, and whether the text had bits set beyond the length of its prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedBinding {
    /// The binding, with host bits cleared.
    pub binding: Binding,
    /// Whether host bits were cleared: `10.1.0.10/24` became `10.1.0.0/24`.
    pub host_bits_cleared: bool,
}

impl Binding {
    /// Reads an address, a prefix, a DNS name (or pattern), or `tag:Name`. IPv4-mapped IPv6 addresses become IPv4,
    /// as they are on the wire.
    ///
    /// # Errors
    /// [`BindingError`] names the text and the remedy.
    pub fn parse(text: &str) -> Result<ParsedBinding, BindingError> {
        if text.trim().is_empty() {
            return Err(BindingError::Empty);
        }
        if let Some(tag) = text.strip_prefix("tag:") {
            return if is_tag_name(tag) {
                Ok(exact(Self::Tag(tag.to_owned())))
            } else {
                Err(BindingError::Tag(shorten(text)))
            };
        }
        if text.chars().any(char::is_whitespace) {
            return Err(BindingError::Blank(shorten(text)));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(exact(Self::Prefix(IpNet::from(address.to_canonical()))));
        }
        if let Some((address, length)) = text.split_once('/')
            && let Ok(address) = address.parse::<IpAddr>()
        {
            return prefix(text, address, length);
        }
        if let Some((address, _)) = text.split_once('%')
            && address.parse::<IpAddr>().is_ok()
        {
            return Err(BindingError::Zone(shorten(text)));
        }
        if let Some((first, last)) = text.split_once('-')
            && first.parse::<IpAddr>().is_ok()
            && (last.parse::<IpAddr>().is_ok() || last.parse::<u8>().is_ok())
        {
            return Err(BindingError::Range(shorten(text)));
        }
        NamePattern::new(text).map(|name| exact(Self::Name(name)))
    }
}

/// Whether `tag:` can be followed by this name.
pub(crate) fn is_tag_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

fn exact(binding: Binding) -> ParsedBinding {
    ParsedBinding {
        binding,
        host_bits_cleared: false,
    }
}

fn prefix(text: &str, address: IpAddr, length: &str) -> Result<ParsedBinding, BindingError> {
    let max = if address.is_ipv4() { 32 } else { 128 };
    let error = || BindingError::Prefix {
        text: shorten(text),
        max,
    };
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(error());
    }
    let length: u8 = length.parse().map_err(|_| error())?;
    let (address, length) = match address.to_canonical() {
        IpAddr::V4(mapped) if address.is_ipv6() && length >= 96 => {
            (IpAddr::V4(mapped), length - 96)
        }
        IpAddr::V4(_) | IpAddr::V6(_) => (address, length),
    };
    let written = IpNet::new(address, length).map_err(|_| error())?;
    let masked = written.trunc();
    Ok(ParsedBinding {
        host_bits_cleared: masked != written,
        binding: Binding::Prefix(masked),
    })
}

/// Keeps messages short when a file is hostile.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
                write!(formatter, "{}", prefix.addr())
            }
            Self::Prefix(prefix) => write!(formatter, "{prefix}"),
            Self::Name(name) => write!(formatter, "{name}"),
            Self::Tag(tag) => write!(formatter, "tag:{tag}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expect: Result<(&str, bool), &str>) {
        match (Binding::parse(text), expect) {
            (Ok(parsed), Ok((printed, cleared))) => {
                assert_eq!(
                    (
                        parsed.binding.to_string().as_str(),
                        parsed.host_bits_cleared
                    ),
                    (printed, cleared)
                );
            }
            (Err(error), Err(part)) => {
                let message = error.to_string();
                assert!(message.contains(part), "{text}: {message}");
            }
            (got, expect) => panic!("{text}: got {got:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn reads_bindings() {
        check("10.1.0.10", Ok(("10.1.0.10", false)));
        check("2001:DB8::10", Ok(("2001:db8::10", false)));
        check("::ffff:10.1.0.10", Ok(("10.1.0.10", false)));
        check("::ffff:10.1.0.0/112", Ok(("10.1.0.0/16", false)));
        check("10.1.7.0/24", Ok(("10.1.7.0/24", false)));
        check("10.1.7.9/24", Ok(("10.1.7.0/24", true)));
        check("2001:db8::1/64", Ok(("2001:db8::/64", true)));
        check("0.0.0.0/0", Ok(("0.0.0.0/0", false)));
        check("::/0", Ok(("::/0", false)));
        check("halb.Example.org.", Ok(("halb.example.org", false)));
        check("*.microsoft.com", Ok(("*.microsoft.com", false)));
        check(
            "*xt.blob.core.windows.net",
            Ok(("*xt.blob.core.windows.net", false)),
        );
        check(
            "gcs.*.monitoring.core.windows.net",
            Ok(("gcs.*.monitoring.core.windows.net", false)),
        );
        check(
            "_ldap._tcp.example.org",
            Ok(("_ldap._tcp.example.org", false)),
        );
        check("fileserver", Ok(("fileserver", false)));
        check("bücher.example", Ok(("xn--bcher-kva.example", false)));
        check("BÜCHER.Example.", Ok(("xn--bcher-kva.example", false)));
        check(
            "XN--BCHER-KVA.example",
            Ok(("xn--bcher-kva.example", false)),
        );
        check("*.bücher.example", Ok(("*.xn--bcher-kva.example", false)));
        check(
            "a.*.bücher.example",
            Ok(("a.*.xn--bcher-kva.example", false)),
        );
        check(
            "*xt.bücher.example",
            Ok(("*xt.xn--bcher-kva.example", false)),
        );
        check("straße.example", Ok(("xn--strae-oqa.example", false)));
        check("例え。テスト", Ok(("xn--r8jz45g.xn--zckzah", false)));
        check(
            "tag:AzureCloud.WestEurope",
            Ok(("tag:AzureCloud.WestEurope", false)),
        );
    }

    #[test]
    fn refuses_what_is_no_binding() {
        check("", Err("binds nothing"));
        check("   ", Err("binds nothing"));
        check("10.1.0.10 10.1.0.11", Err("has blanks"));
        check("10.1.0.0/33", Err("at most 32"));
        check("2001:db8::/129", Err("at most 128"));
        check("10.1.0.0/", Err("is not a prefix"));
        check("10.1.0.0/255.255.0.0", Err("is not a prefix"));
        check("10.1.0.300", Err("looks like an address"));
        check("10.1.0", Err("looks like an address"));
        check("10.1.0.1-10.1.0.9", Err("range of addresses"));
        check("10.1.0.1-9", Err("range of addresses"));
        check("fe80::1%eth0", Err("has a zone"));
        check("https://example.org/", Err("without scheme"));
        check("example.org:443", Err("without a port"));
        check("bü\u{0}cher.example", Err("letters, digits"));
        check("a\u{2488}com.example", Err("no international name"));
        check("*bücher.example", Err("label of its own"));
        check("＊ü.example", Err("label of its own"));
        check("＊.example", Err("label of its own"));
        check(&"ü.".repeat(150), Err("at most 253"));
        check(&"ü".repeat(60), Err("at most 63"));
        check(&"ü".repeat(100_000), Err("at most 253"));
        check("*", Err("role `any`"));
        check("**.example.org", Err("single `*`"));
        check("a..b", Err("is empty"));
        check(".", Err("is empty"));
        check("tag:", Err("is not a service tag"));
        check("tag:Azure Cloud", Err("is not a service tag"));
        check(&"a".repeat(64), Err("at most 63"));
        check(&"a.".repeat(150), Err("at most 253"));
    }

    #[test]
    fn knows_what_is_below_the_wildcard() {
        let check = |text: &str, expect| {
            assert_eq!(
                NamePattern::new(text).unwrap().below_wildcard(),
                expect,
                "{text}"
            );
        };
        check("*.example.org", Some("example.org"));
        check("*xt.example.org", Some("example.org"));
        check("gcs.*.example.org", Some("example.org"));
        check("*.*.com", Some("com"));
        check("www.*", None);
        check("www.example.org", None);
    }

    mod properties {
        use super::*;

        proptest! {
            #[test]
            fn printing_and_reading_are_inverse(text in "[a-z0-9.:/*-]{1,20}") {
                if let Ok(parsed) = Binding::parse(&text) {
                    let printed = parsed.binding.to_string();
                    prop_assert_eq!(Binding::parse(&printed).map(|again| again.binding), Ok(parsed.binding));
                }
            }

            #[test]
            fn reading_never_panics(text in ".{0,40}") {
                let _ = Binding::parse(&text);
            }

            #[test]
            fn international_names_are_folded_to_what_is_read_as_itself(text in "[a-zA-ZäöüßÄéя例え。.*-]{1,20}") {
                if let Ok(parsed) = Binding::parse(&text) {
                    let printed = parsed.binding.to_string();
                    prop_assert!(printed.is_ascii());
                    prop_assert_eq!(Binding::parse(&printed).map(|again| again.binding), Ok(parsed.binding));
                }
            }
        }
    }
}
