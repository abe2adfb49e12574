//! Source and destination cells: a component's name, DNS names, addresses, or a placeholder for what the document lost.

use super::direction;
use super::fold::{fold, squeeze, without_marks, without_markup, words};
use super::ports::Ports;
use crate::matrix::{Binding, BuiltInRole};

/// Longest title; longer cells hold a title and a text.
const TITLE_CHARACTERS: usize = 100;
/// Most names of one role that are listed in its title.
const TITLE_NAMES: usize = 1;

/// What a cell names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Endpoint {
    /// As the document prints it, or made from the names.
    pub(super) title: String,
    /// DNS names, addresses and prefixes in the cell.
    pub(super) names: Vec<String>,
    /// A role that every system has.
    pub(super) built_in: Option<BuiltInRole>,
    /// Ports printed beside a name: `example.org:8443`.
    pub(super) ports: Vec<u16>,
    /// What is to be said of the cell.
    pub(super) doubts: Vec<String>,
}

/// What a source or destination cell is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    /// Nothing: the cell above it goes on.
    Blank,
    /// A bullet or dash: something stood there, or was left out.
    Placeholder,
    /// An end.
    Endpoint(Endpoint),
}

/// Reads a cell.
pub(super) fn parse(text: &str) -> Cell {
    let plain = without_markup(text);
    if plain.is_empty() {
        return Cell::Blank;
    }
    if !plain.chars().any(char::is_alphanumeric) && plain != "*" {
        return Cell::Placeholder;
    }
    let lower = words(&plain);
    if matches!(
        lower.as_str(),
        "n a" | "na" | "none" | "tbd" | "tba" | "unknown" | "see below"
    ) {
        return Cell::Placeholder;
    }
    let (bare, marks) = without_marks(&plain);
    let mut endpoint = Endpoint {
        built_in: built_in(bare, &lower),
        ..Endpoint::default()
    };
    if !marks.is_empty() {
        endpoint.doubts.push(format!(
            "`{bare}` has a footnote mark (`{marks}`): see the note in the document"
        ));
    }
    let listed = names(text);
    match listed {
        Some(found) if endpoint.built_in.is_none() => {
            endpoint.title = match found.names.as_slice() {
                few if few.len() <= TITLE_NAMES => few.join(", "),
                many => format!("{} and {} more", many[0], many.len() - 1),
            };
            endpoint.names = found.names;
            endpoint.ports = found.ports;
            if let Some(rest) = found.rest {
                endpoint
                    .doubts
                    .push(format!("the cell goes on after the name: {rest}"));
            }
        }
        Some(_) | None => title(&mut endpoint, bare),
    }
    Cell::Endpoint(endpoint)
}

/// A component's name, with the host names that stand in brackets after it.
fn title(endpoint: &mut Endpoint, text: &str) {
    let text = squeeze(text);
    if text.chars().count() <= TITLE_CHARACTERS {
        endpoint.title.clone_from(&text);
    } else {
        let end = text
            .char_indices()
            .take(TITLE_CHARACTERS)
            .filter(|(_, character)| character.is_whitespace())
            .last()
            .or_else(|| text.char_indices().nth(TITLE_CHARACTERS))
            .map_or(text.len(), |(at, _)| at);
        endpoint.title = text[..end].to_owned();
        endpoint.doubts.push(format!(
            "the cell is long, its first words are taken as the name: {text}"
        ));
    }
    for word in text.split(|c: char| {
        c.is_whitespace() || matches!(c, '(' | ')' | '[' | ']' | ',' | ';' | '"' | '\'')
    }) {
        if let Some((name, _)) = name(word, false) {
            endpoint.names.push(name);
        }
    }
}

fn built_in(text: &str, words: &str) -> Option<BuiltInRole> {
    match words {
        "localhost" | "loopback" | "127 0 0 1" | "local host" => Some(BuiltInRole::Localhost),
        "broadcast" | "255 255 255 255" | "subnet broadcast" | "local broadcast" => {
            Some(BuiltInRole::Broadcast)
        }
        "any" | "all" | "alle" | "anywhere" | "everywhere" | "0 0 0 0 0" | "0 0 0 0"
        | "any host" | "any address" => Some(BuiltInRole::Any),
        _ if text == "*" => Some(BuiltInRole::Any),
        _ => None,
    }
}

/// Most names that are read of one cell.
const MOST_NAMES: usize = 1000;

struct Names {
    names: Vec<String>,
    ports: Vec<u16>,
    rest: Option<String>,
}

/// The names of a cell that is a list of names, or that begins with one and goes on as a text.
fn names(text: &str) -> Option<Names> {
    // Lines are cleaned one by one, so that markup never joins two names.
    let lines: Vec<String> = text.lines().map(without_markup).collect();
    let joined = lines.join(" ").replace("*. ", "*.");
    let mut found = Names {
        names: Vec::new(),
        ports: Vec::new(),
        rest: None,
    };
    let mut words = joined.split_whitespace().peekable();
    let mut taken = 0;
    while let Some(word) = words.peek()
        && found.names.len() < MOST_NAMES
    {
        let parts: Vec<&str> = word
            .split([',', ';'])
            .filter(|part| !part.is_empty())
            .collect();
        let parsed: Option<Vec<(String, Option<u16>)>> =
            parts.iter().map(|part| name(part, true)).collect();
        match parsed {
            Some(parsed) if !parsed.is_empty() => {
                for (name, port) in parsed {
                    if !found.names.contains(&name) {
                        found.names.push(name);
                    }
                    found.ports.extend(port);
                }
                taken += 1;
            }
            _ if taken > 0 && matches!(*word, "and" | "or" | "&" | "/" | "," | "-" | "•" | "·") =>
                {}
            _ => break,
        }
        words.next();
    }
    let rest: Vec<&str> = words.collect();
    if found.names.is_empty() {
        return None;
    }
    if !rest.is_empty() {
        found.rest = Some(rest.join(" "));
    }
    found.ports.dedup();
    Some(found)
}

/// A DNS name, an address or a prefix, and the port after it. `alone` tells that the text stands where a name is
/// expected; inside a sentence only what can hardly be anything else is one.
pub(super) fn name(text: &str, alone: bool) -> Option<(String, Option<u16>)> {
    let text = text.trim_matches(['"', '\'', '<', '>', '`', '(', ')']);
    let (text, from_url) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            (rest.split('/').next().unwrap_or_default(), true)
        }
        Some(_) | None => (text.trim_end_matches(['.', '/']), false),
    };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (
            host,
            Some(port.parse::<u16>().ok().filter(|port| *port > 0)?),
        ),
        Some(_) | None => (text, None),
    };
    let (host, path) = match host.split_once('/') {
        Some((host, path)) if host.parse::<std::net::IpAddr>().is_err() && !path.is_empty() => {
            (host, true)
        }
        Some(_) | None => (host, false),
    };
    if !host.contains(['.', ':']) || host.contains('@') {
        return None;
    }
    let binding = Binding::parse(host).ok()?.binding;
    let fits = match &binding {
        Binding::Prefix(_) => true,
        Binding::Tag(_) => false,
        Binding::Name(pattern) => {
            let last = pattern.as_str().rsplit('.').next().unwrap_or_default();
            let labels = pattern.as_str().split('.').count();
            let top = last.len() >= 2
                && (last.bytes().all(|byte| byte.is_ascii_alphabetic())
                    || last.starts_with("xn--"));
            let product = matches!(
                last,
                "exe"
                    | "dll"
                    | "msi"
                    | "net"
                    | "js"
                    | "txt"
                    | "pdf"
                    | "zip"
                    | "conf"
                    | "yaml"
                    | "json"
                    | "xml"
                    | "html"
                    | "sh"
            ) && labels == 2
                && (last != "net" || host.chars().next().is_some_and(char::is_uppercase));
            let sure = alone || from_url || pattern.is_wildcard() || labels >= 3;
            (alone || !path) && !product && sure && top
        }
    };
    fits.then(|| (binding.to_string(), port))
}

/// Whether a cell is mainly names or addresses.
pub(super) fn is_names(text: &str) -> bool {
    names(text).is_some()
}

/// Whether a text can be the name of a component, rather than a sentence, a service or an arrow.
pub(super) fn is_title(text: &str) -> bool {
    let text = without_markup(text);
    let ports = Ports::parse(&text);
    let is_service = ports.is_clean() && (ports.has_ranges() || !ports.protocols().is_empty());
    text.chars().any(char::is_alphabetic)
        && text.chars().count() <= TITLE_CHARACTERS
        && direction::ends(&text).is_none()
        && !is_service
}

/// Words that do not tell one component from another.
const STOP_WORDS: &[&str] = &["in", "the", "a", "an", "of", "your", "for"];

/// What titles are compared by: case, punctuation and small words do not make another component.
pub(super) fn key(title: &str) -> String {
    let words = words(&fold(title).text);
    // `Router A` ends in a name, not in an article.
    let last = words.split(' ').count().saturating_sub(1);
    let kept: Vec<&str> = words
        .split(' ')
        .enumerate()
        .filter(|(place, word)| {
            !STOP_WORDS.contains(word) || (*place == last && matches!(*word, "a" | "an"))
        })
        .map(|(_, word)| word)
        .collect();
    if kept.is_empty() {
        words
    } else {
        kept.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        match parse(text) {
            Cell::Endpoint(endpoint) => endpoint,
            other @ (Cell::Blank | Cell::Placeholder) => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn reads_titles_and_names() {
        let check = |text: &str, title: &str, names: &[&str]| {
            let endpoint = endpoint(text);
            assert_eq!(
                (
                    endpoint.title.as_str(),
                    endpoint
                        .names
                        .iter()
                        .map(String::as_str)
                        .collect::<Vec<_>>()
                ),
                (title, names.to_vec()),
                "{text}"
            );
        };
        check("Web host", "Web host", &[]);
        check("<b>Gateway</b>**", "Gateway", &[]);
        check("cdn.example.org", "cdn.example.org", &["cdn.example.org"]);
        check(
            "https://cdn.example.org/a/b",
            "cdn.example.org",
            &["cdn.example.org"],
        );
        check("*. <u>example.org</u>", "*.example.org", &["*.example.org"]);
        check(
            "*xt.blob.example.org",
            "*xt.blob.example.org",
            &["*xt.blob.example.org"],
        );
        check(
            "a.example.org\nb.example.org",
            "a.example.org and 1 more",
            &["a.example.org", "b.example.org"],
        );
        check(
            "a.example.org, b.example.org",
            "a.example.org and 1 more",
            &["a.example.org", "b.example.org"],
        );
        check(
            "cdn.example.org This may change.",
            "cdn.example.org",
            &["cdn.example.org"],
        );
        check(
            "Analytics (analytics.example.org)",
            "Analytics (analytics.example.org)",
            &["analytics.example.org"],
        );
        check("169.254.169.254", "169.254.169.254", &["169.254.169.254"]);
        check("10.0.0.0/8", "10.0.0.0/8", &["10.0.0.0/8"]);
        check("ASP.NET service", "ASP.NET service", &[]);
        check("Server (CA)", "Server (CA)", &[]);
    }

    #[test]
    fn tells_blanks_from_placeholders() {
        assert_eq!(parse(" "), Cell::Blank);
        assert_eq!(parse("•"), Cell::Placeholder);
        assert_eq!(parse("-"), Cell::Placeholder);
        assert_eq!(parse("N/A"), Cell::Placeholder);
    }

    #[test]
    fn knows_built_in_roles() {
        assert_eq!(endpoint("Localhost").built_in, Some(BuiltInRole::Localhost));
        assert_eq!(endpoint("*").built_in, Some(BuiltInRole::Any));
        assert_eq!(endpoint("Any").built_in, Some(BuiltInRole::Any));
        assert_eq!(endpoint("127.0.0.1").built_in, Some(BuiltInRole::Localhost));
        assert_eq!(endpoint("Any client").built_in, None);
    }

    #[test]
    fn takes_ports_beside_names() {
        assert_eq!(endpoint("https://a.example.org:8443").ports, [8443]);
    }

    #[test]
    fn compares_titles() {
        assert_eq!(
            key("RAS Gateway in Normal mode"),
            key("RAS gateway Normal Mode")
        );
        assert_ne!(key("Gateway"), key("Gateway 2"));
        assert_ne!(key("Router"), key("Router A"));
        assert_eq!(key("A router"), key("Router"));
    }
}
