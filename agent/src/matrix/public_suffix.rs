//! Which names are public suffixes: domains below which anybody can register a name, so that a wildcard on one of them
//! stands for strangers. Such a wildcard is nearly always a slip.
//!
//! The Public Suffix List would know them all, but its data is MPL-2.0, which `deny.toml` does not allow, whatever the
//! crates that embed it declare; and it needs a release for each of its weekly changes. So the rule is the list's own
//! default (every top-level domain is one) and the pattern that registries of countries follow: two letters below which
//! names are given out by category (`co.uk`, `com.au`, `ac.jp`). Names below which one company serves its customers
//! (`blob.core.windows.net`) are none: vendors ask for wildcards on these.

/// Second-level labels under which registries of countries give out names.
const CATEGORIES: &[&str] = &[
    "ac", "asn", "asso", "biz", "co", "com", "ed", "edu", "gc", "go", "gob", "gouv", "gov", "govt",
    "gv", "id", "idv", "ind", "inf", "info", "int", "ltd", "me", "mil", "muni", "ne", "net", "nhs",
    "nic", "nom", "or", "org", "plc", "police", "pro", "sch", "school", "web",
];

/// Top-level domains that no registry has: RFC 6761 section 6, RFC 6762 appendix G, and ICANN's `internal`.
const PRIVATE: &[&str] = &[
    "corp",
    "example",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localhost",
    "private",
    "test",
];

/// Whether anybody can register a name directly below this one. `name` is in lower case, without a final dot.
pub(super) fn is_public_suffix(name: &str) -> bool {
    match name.split_once('.') {
        None => !name.is_empty() && !PRIVATE.contains(&name),
        Some((category, country)) => {
            country.len() == 2
                && country.bytes().all(|byte| byte.is_ascii_lowercase())
                && CATEGORIES.contains(&category)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_where_anybody_can_register() {
        for name in [
            "com", "xn--p1ai", "co.uk", "com.au", "ac.jp", "gouv.fr", "org.nz",
        ] {
            assert!(is_public_suffix(name), "{name}");
        }
        for name in [
            "",
            "corp",
            "internal",
            "example.com",
            "microsoft.com",
            "co.com",
            "example.uk",
            "example.co.uk",
            "blob.core.windows.net",
            "windows.net",
            "com.example",
        ] {
            assert!(!is_public_suffix(name), "{name}");
        }
    }

    #[test]
    fn the_lists_are_sorted() {
        assert!(CATEGORIES.is_sorted() && PRIVATE.is_sorted());
    }
}
