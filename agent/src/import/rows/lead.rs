//! What the sentence or heading before a table says of all its rows.

use super::*;

#[derive(Debug, Clone, Default)]
pub(super) struct Lead {
    pub(super) subject: Option<String>,
    pub(super) optional: bool,
}

/// Words of headings that name no component.
pub(super) const GENERIC: &[&str] = &[
    "firewall",
    "port",
    "ports",
    "requirement",
    "requirements",
    "required",
    "network",
    "networking",
    "rule",
    "rules",
    "inbound",
    "outbound",
    "traffic",
    "internal",
    "external",
    "table",
    "list",
    "url",
    "urls",
    "endpoint",
    "endpoints",
    "connectivity",
    "configuration",
    "communication",
    "communications",
    "optional",
    "and",
    "for",
    "the",
    "to",
    "be",
    "of",
    "in",
    "on",
    "from",
    "or",
    "a",
    "open",
    "overview",
    "destination",
    "destinations",
    "source",
    "sources",
    "protocol",
    "protocols",
    "access",
    "connection",
    "connections",
    "matrix",
    "services",
    "dns",
    "configure",
    "sheet",
    "sheet1",
    "data",
    "flow",
    "flows",
    "general",
    "introduction",
    "summary",
    "prerequisites",
    "notes",
    "all",
    "used",
    "ip",
    "addresses",
    "address",
    "considerations",
    "architecture",
    "allow",
    "allowlist",
    "whitelist",
    "settings",
    "system",
    "security",
    "fqdn",
    "fqdns",
    "domain",
    "domains",
    "host",
    "hosts",
    "hostnames",
    "name",
    "names",
    "needed",
    "incoming",
    "outgoing",
    "ingress",
    "egress",
    "allowed",
    "information",
    "following",
    "other",
];

/// Whether a heading can be the name of a component.
pub(super) fn is_component(text: &str) -> bool {
    let words = words(text);
    let mut words = words
        .split(' ')
        .filter(|word| !word.is_empty() && !word.bytes().all(|byte| byte.is_ascii_digit()))
        .peekable();
    words.peek().is_some() && !words.all(|word| GENERIC.contains(&word))
}

/// The ends of a heading, `Client to Server` or `A → B`, as far as it names components.
pub(super) fn pair(heading: &str) -> Option<(Option<String>, Option<String>)> {
    let (left, right) = match direction::arrow(heading) {
        Some((left, Direction::Outbound, right)) => (left, right),
        Some((left, Direction::Inbound, right)) => (right, left),
        Some((_, Direction::Both, _)) => return None,
        None => heading.split_once(" to ")?,
    };
    let named = |text: &str| {
        let text = text.trim().trim_end_matches(':');
        let text = text.strip_prefix("the ").unwrap_or(text);
        let short = text.split_whitespace().count() <= 5;
        (short && is_component(text)).then(|| text.to_owned())
    };
    // What begins so is about what is to be done.
    let first = words(left);
    let first = first.split(' ').next().unwrap_or_default();
    if matches!(
        first,
        "how"
            | "steps"
            | "ports"
            | "what"
            | "where"
            | "when"
            | "why"
            | "changes"
            | "guide"
            | "connect"
            | "connecting"
            | "need"
            | "required"
            | "introduction"
    ) {
        return None;
    }
    let (from, to) = (named(left), named(right));
    (to.is_some()).then_some((from, to))
}

/// What a sentence says of the table after it: who needs it, and whether it is optional.
pub(super) fn lead(text: &str) -> Lead {
    let text = without_markup(text);
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() > LONGEST_SENTENCE {
        return Lead::default();
    }
    let lower: Vec<String> = words
        .iter()
        .map(|word| {
            word.to_lowercase()
                .trim_matches(|c: char| !c.is_alphanumeric())
                .to_owned()
        })
        .collect();
    let optional = lower.iter().any(|word| word == "optional");
    let mut subject = None;
    for (at, word) in lower.iter().enumerate() {
        let modal = matches!(
            word.as_str(),
            "must"
                | "needs"
                | "need"
                | "requires"
                | "require"
                | "should"
                | "can"
                | "will"
                | "has"
                | "have"
        );
        let goes_on = lower[at..].iter().take(7).any(|word| {
            matches!(
                word.as_str(),
                "access" | "reach" | "connect" | "communicate" | "contact"
            )
        });
        if !modal || !goes_on || at == 0 {
            continue;
        }
        // The subject begins after the nearest article or relative word before the verb that no preposition precedes.
        let begins = (0..at).rev().find(|index| {
            let opens = matches!(
                lower[*index].as_str(),
                "the"
                    | "your"
                    | "all"
                    | "each"
                    | "every"
                    | "any"
                    | "that"
                    | "which"
                    | "these"
                    | "a"
                    | "an"
                    | "following"
            );
            let inside = *index > 0
                && matches!(
                    lower[*index - 1].as_str(),
                    "for" | "of" | "in" | "on" | "at" | "to" | "with" | "from" | "by"
                );
            opens && !inside
        });
        let start = begins.map_or(0, |begins| begins + 1);
        // A relative clause is not part of the name.
        let end = (start..at)
            .find(|index| {
                matches!(
                    lower[*index].as_str(),
                    "you" | "we" | "that" | "which" | "who" | "it" | "they"
                )
            })
            .unwrap_or(at);
        let name = words[start..end].join(" ");
        let telling = end > start
            && end - start <= 6
            && is_component(&name)
            && !lower[start..end]
                .iter()
                .any(|word| matches!(word.as_str(), "this" | "table" | "section" | "there"));
        if telling {
            subject = Some(name);
            break;
        }
    }
    Lead { subject, optional }
}
