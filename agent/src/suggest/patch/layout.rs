//! Where the roles and requirements of a matrix file stand, by lines, and how they are written: what has to be known to add
//! to them, or to take away, without touching anything else.

use std::sync::Arc;

use crate::yaml::{self, Node, Reporter, Source, Value};

/// One requirement.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) id: String,
    /// First and last line, from 0; without comments around it.
    pub(super) lines: [usize; 2],
    /// Columns before its dash.
    pub(super) indent: usize,
    /// Blanks behind its dash.
    pub(super) pad: usize,
    /// Whether it is written `{id: ...}`.
    pub(super) flow: bool,
    /// Its services, each with its place, if they stand in one line between brackets.
    pub(super) services: Option<Services>,
}

/// Services between brackets in one line.
#[derive(Debug)]
pub(super) struct Services {
    pub(super) line: usize,
    /// Columns, in bytes, from the first service's begin to the last one's end.
    pub(super) columns: [usize; 2],
    /// As they are written.
    pub(super) written: Vec<String>,
}

/// A matrix file.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) items: Vec<Item>,
    /// The line of `requirements:`.
    pub(super) requirements: usize,
    /// How roles are written; nothing if there are none. It only matters where some are added.
    pub(super) roles: Result<Option<Roles>, LayoutError>,
}

/// How the roles stand.
#[derive(Debug, Clone)]
pub(super) struct Roles {
    /// Their last line.
    pub(super) last: usize,
    /// Columns before each.
    pub(super) indent: usize,
}

/// Why a file can't be changed by lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// It is no matrix.
    #[error("it can't be read as a matrix")]
    NoMatrix,
    /// A list is written between brackets, or each dash in a line of its own.
    #[error("`{0}` is not written as a list with an entry a line")]
    Style(&'static str),
}

impl Layout {
    pub(super) fn of(text: &str) -> Result<Self, LayoutError> {
        let source = Arc::new(Source::new("matrix", text));
        let mut reporter = Reporter::new(Arc::clone(&source));
        let root = yaml::parse(source.text(), &mut reporter).ok_or(LayoutError::NoMatrix)?;
        let Value::Mapping(entries) = &root.value else {
            return Err(LayoutError::NoMatrix);
        };
        let reader = Reader {
            lines: source.text().split_inclusive('\n').collect(),
            source: &source,
            keys: entries.iter().map(|(key, _)| line(&source, key)).collect(),
        };
        let find = |name: &str| {
            entries
                .iter()
                .find(|(key, _)| matches!(&key.value, Value::Text(text) if text == name))
        };
        let (key, value) = find("requirements").ok_or(LayoutError::NoMatrix)?;
        let items = reader.items(key, value)?;
        let roles = find("roles")
            .map(|(key, value)| reader.roles(key, value))
            .transpose();
        Ok(Self {
            items,
            requirements: line(&source, key),
            roles,
        })
    }
}

fn line(source: &Source, node: &Node<'_>) -> usize {
    (source.line_of(node.span.offset) as usize).saturating_sub(1)
}

struct Reader<'a> {
    source: &'a Source,
    lines: Vec<&'a str>,
    /// Lines of the top-level keys.
    keys: Vec<usize>,
}

impl Reader<'_> {
    fn items(&self, key: &Node<'_>, value: &Node<'_>) -> Result<Vec<Item>, LayoutError> {
        let style = || LayoutError::Style("requirements");
        let Value::Sequence(nodes) = &value.value else {
            return Err(style());
        };
        let end = self.end_of(line(self.source, key));
        let firsts: Vec<usize> = nodes.iter().map(|node| line(self.source, node)).collect();
        if nodes.is_empty() || firsts.iter().any(|first| *first <= line(self.source, key)) {
            return Err(style());
        }
        let mut items = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            let first = firsts[at];
            let next = firsts.get(at + 1).copied().unwrap_or(end);
            if next <= first {
                return Err(style());
            }
            let text = self.lines.get(first).copied().unwrap_or_default();
            let bare = text.trim_start_matches(' ');
            let content = bare
                .strip_prefix('-')
                .map(|rest| rest.trim_start_matches(' '));
            let (Some(content), Value::Mapping(fields)) = (content, &node.value) else {
                return Err(style());
            };
            let pad = bare.len() - 1 - content.len();
            if pad == 0 || content.trim().is_empty() {
                return Err(style());
            }
            let field = |name: &str| {
                fields.iter().find_map(|(key, value)| {
                    matches!(&key.value, Value::Text(text) if text == name).then_some(value)
                })
            };
            let id = field("id").and_then(|node| match &node.value {
                Value::Text(text) => Some(text.to_string()),
                Value::Null | Value::Sequence(_) | Value::Mapping(_) => None,
            });
            items.push(Item {
                id: id.unwrap_or_default(),
                lines: [first, self.last_of(first, next)],
                indent: text.len() - bare.len(),
                pad,
                flow: content.starts_with('{'),
                services: field("services").and_then(|node| self.services(node)),
            });
        }
        Ok(items)
    }

    fn services(&self, node: &Node<'_>) -> Option<Services> {
        let Value::Sequence(nodes) = &node.value else {
            return None;
        };
        let number = line(self.source, node);
        let (_, start) = self.source.line(u32::try_from(number).ok()? + 1)?;
        let text = self.source.text();
        let offset = node.span.offset as usize;
        let in_brackets = text.get(offset..)?.starts_with('[')
            && nodes.iter().all(|node| line(self.source, node) == number);
        let span = |node: &Node<'_>| {
            let first = node.span.offset as usize;
            let written = text
                .get(first..first + node.span.length as usize)?
                .trim_end();
            Some((first, written))
        };
        let first = span(nodes.first()?)?.0;
        let (last, written) = span(nodes.last()?)?;
        let start = start as usize;
        in_brackets.then_some(Services {
            line: number,
            columns: [first - start, last + written.len() - start],
            written: nodes
                .iter()
                .map(|node| span(node).map(|(_, written)| written.to_owned()))
                .collect::<Option<_>>()?,
        })
    }

    fn roles(&self, key: &Node<'_>, value: &Node<'_>) -> Result<Roles, LayoutError> {
        let style = LayoutError::Style("roles");
        let Value::Mapping(entries) = &value.value else {
            return Err(style);
        };
        let Some((first, _)) = entries.first() else {
            return Err(style);
        };
        let first = line(self.source, first);
        let key = line(self.source, key);
        let text = self.lines.get(first).copied().unwrap_or_default();
        let indent = text.len() - text.trim_start_matches(' ').len();
        if first <= key || indent == 0 || text.trim_start().starts_with('{') {
            return Err(style);
        }
        Ok(Roles {
            last: self.last_of(first, self.end_of(key)),
            indent,
        })
    }

    /// The line after what belongs to a top-level key.
    fn end_of(&self, key: usize) -> usize {
        let next = self.keys.iter().copied().filter(|line| *line > key).min();
        let marker = self
            .lines
            .iter()
            .enumerate()
            .skip(key)
            .find(|(_, line)| line.starts_with("...") || line.starts_with("---"))
            .map(|(line, _)| line);
        [next, marker]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.lines.len())
    }

    /// The last line before `next` that is neither blank nor a comment.
    fn last_of(&self, first: usize, next: usize) -> usize {
        (first..next)
            .rev()
            .find(|line| {
                let text = self.lines.get(*line).map_or("", |line| line.trim());
                !text.is_empty() && !text.starts_with('#')
            })
            .unwrap_or(first)
    }
}
