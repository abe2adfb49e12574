//! Takes mappings, lists and scalars apart for a reader, and reports what is not as expected.

use std::fmt::Display;

use super::report::Reporter;
use super::tree::{Node, Value};

/// Most keys that a mapping can know.
const MAX_KEYS: usize = 32;

/// The keys that a mapping knows.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// Keys that must be there.
    pub required: &'static [&'static str],
    /// Keys that may be there.
    pub optional: &'static [&'static str],
}

impl Keys {
    /// Takes at most 32 keys; more do not compile where this is evaluated in a constant.
    #[must_use]
    pub const fn new(required: &'static [&'static str], optional: &'static [&'static str]) -> Self {
        assert!(required.len() + optional.len() <= MAX_KEYS);
        Self { required, optional }
    }

    /// All keys, the required ones first.
    pub fn all(self) -> impl Iterator<Item = &'static str> {
        self.required.iter().chain(self.optional).copied()
    }

    fn position(self, key: &str) -> Option<usize> {
        self.all().position(|known| known == key)
    }
}

/// A mapping with known keys.
#[derive(Debug)]
pub struct Fields<'node, 'input> {
    keys: Keys,
    slots: [Option<&'node Node<'input>>; MAX_KEYS],
}

impl<'node, 'input> Fields<'node, 'input> {
    /// Opens a mapping, and reports unknown, repeated and missing keys, all at once. `what` names the thing in
    /// messages: "a requirement".
    pub fn open(
        node: &'node Node<'input>,
        what: &str,
        keys: Keys,
        reporter: &mut Reporter,
    ) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            reporter.error(
                "wrong-type",
                node.span,
                format!(
                    "{what} must be a mapping of keys to values, not {}",
                    node.kind()
                ),
            );
            return None;
        };
        let mut slots = [None; MAX_KEYS];
        let mut seen = [None; MAX_KEYS];
        for (key, value) in entries {
            let Value::Text(name) = &key.value else {
                reporter.error(
                    "wrong-type",
                    key.span,
                    format!("a key of {what} must be text, not {}", key.kind()),
                );
                continue;
            };
            let Some(position) = keys.position(name) else {
                let proposal = reporter.proposal(name, keys.all());
                let hint = if proposal.is_empty() {
                    format!("; known are {}", listed(keys.all()))
                } else {
                    proposal
                };
                reporter.error(
                    "unknown-key",
                    key.span,
                    format!("{what} has no key `{name}`{hint}"),
                );
                continue;
            };
            if let Some(first) = seen[position] {
                let line = reporter.line(first);
                reporter.error(
                    "duplicate-key",
                    key.span,
                    format!("the key `{name}` was already given in line {line}: keep one of them"),
                );
                continue;
            }
            seen[position] = Some(key.span);
            if value.value != Value::Null {
                slots[position] = Some(value);
            } else if position < keys.required.len() {
                reporter.error(
                    "missing-value",
                    key.span,
                    format!("`{name}` of {what} has no value"),
                );
            }
        }
        for (position, name) in keys.required.iter().enumerate() {
            if seen[position].is_none() {
                reporter.error(
                    "missing-key",
                    node.span,
                    format!("{what} needs the key `{name}`"),
                );
            }
        }
        Some(Self { keys, slots })
    }

    /// The value of a key; none where the key is missing or has no value.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'node Node<'input>> {
        let position = self.keys.position(key);
        debug_assert!(
            position.is_some(),
            "`{key}` is not among the keys of the mapping"
        );
        self.slots[position?]
    }

    /// The text of a key, without blanks around it.
    pub fn text(&self, key: &str, reporter: &mut Reporter) -> Option<&'node str> {
        text(self.get(key)?, key, reporter)
    }

    /// The text of a key as an own string.
    pub fn string(&self, key: &str, reporter: &mut Reporter) -> Option<String> {
        self.text(key, reporter).map(str::to_owned)
    }

    /// The list of a key; empty where there is none.
    pub fn list(&self, key: &str, reporter: &mut Reporter) -> &'node [Node<'input>] {
        self.get(key).map_or(&[], |node| list(node, key, reporter))
    }
}

/// The text of a scalar without blanks around it. Numbers and truth values are taken as they are written.
pub fn text<'node>(
    node: &'node Node<'_>,
    what: &str,
    reporter: &mut Reporter,
) -> Option<&'node str> {
    match &node.value {
        Value::Text(text) => {
            let text = text.trim();
            if text.is_empty() {
                reporter.error(
                    "empty-text",
                    node.span,
                    format!("`{what}` must not be empty"),
                );
                return None;
            }
            Some(text)
        }
        Value::Null => {
            reporter.error("missing-value", node.span, format!("`{what}` has no value"));
            None
        }
        Value::Sequence(_) | Value::Mapping(_) => {
            reporter.error(
                "wrong-type",
                node.span,
                format!("`{what}` must be text, not {}", node.kind()),
            );
            None
        }
    }
}

/// The entries of a list.
pub fn list<'node, 'input>(
    node: &'node Node<'input>,
    what: &str,
    reporter: &mut Reporter,
) -> &'node [Node<'input>] {
    match &node.value {
        Value::Sequence(items) => items,
        Value::Text(text) => {
            reporter.error(
                "wrong-type",
                node.span,
                format!("`{what}` must be a list: write `{what}: [{text}]`"),
            );
            &[]
        }
        Value::Null | Value::Mapping(_) => {
            reporter.error(
                "wrong-type",
                node.span,
                format!("`{what}` must be a list, not {}", node.kind()),
            );
            &[]
        }
    }
}

/// A whole number within a range.
pub fn whole_number(
    node: &Node<'_>,
    what: &str,
    range: std::ops::RangeInclusive<u32>,
    reporter: &mut Reporter,
) -> Option<u32> {
    let written = text(node, what, reporter)?;
    let number = written
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| written.parse().ok())
        .flatten()
        .filter(|number| range.contains(number));
    if number.is_none() {
        let (first, last) = range.into_inner();
        reporter.error(
            "wrong-type",
            node.span,
            format!("`{what}` must be a whole number from {first} to {last}, not `{written}`"),
        );
    }
    number
}

/// One of a few texts.
pub fn choice<T: Copy>(
    node: &Node<'_>,
    what: &str,
    code: &'static str,
    choices: &[(&str, T)],
    reporter: &mut Reporter,
) -> Option<T> {
    let written = text(node, what, reporter)?;
    let found = choices.iter().find(|(name, _)| *name == written);
    if found.is_none() {
        let proposal = reporter.proposal(written, choices.iter().map(|(name, _)| *name));
        reporter.error(
            code,
            node.span,
            format!(
                "`{written}` is no {what}: use {}{proposal}",
                listed(choices.iter().map(|(name, _)| name))
            ),
        );
    }
    found.map(|(_, value)| *value)
}

/// `a`, `b`, `c`
fn listed(texts: impl Iterator<Item = impl Display>) -> String {
    texts
        .map(|text| format!("`{text}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
