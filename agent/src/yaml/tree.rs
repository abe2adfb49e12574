//! The parser's events as a tree of nodes with places. Scalars stay text: what is a number is for the reader of the
//! key to say, so a version `1.10` stays `1.10`.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use super::report::Reporter;
use super::source::Span;

/// Nodes that a file may have, aliases expanded: several times what the largest sensible matrix needs.
pub const MAX_NODES: usize = 8_000_000;
/// Nodes that aliases may add to a file: a small file must not grow into a large tree.
pub const MAX_ALIASED_NODES: usize = 1_000_000;
/// How deep block collections, and how deep flow collections within them, may be nested.
pub const MAX_DEPTH: usize = 32;

/// A node of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node<'input> {
    /// Where it stands.
    pub span: Span,
    /// What it holds.
    pub value: Value<'input>,
}

/// The content of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'input> {
    /// An unquoted `null`, `~` or nothing at all.
    Null,
    /// Any other scalar, as text.
    Text(Cow<'input, str>),
    /// A list.
    Sequence(Vec<Node<'input>>),
    /// A mapping with its keys in file order; keys may repeat.
    Mapping(Vec<(Node<'input>, Node<'input>)>),
}

impl Node<'_> {
    /// The kind of the node, for messages.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Text(_) => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }
}

/// An unfinished collection.
enum Open<'input> {
    Sequence(Vec<Node<'input>>),
    Mapping(Vec<(Node<'input>, Node<'input>)>, Option<Node<'input>>),
}

struct Frame<'input> {
    span: Span,
    anchor: usize,
    nodes_before: usize,
    open: Open<'input>,
}

/// A node that an alias may repeat, with how many nodes that adds; none while it is still open.
type Anchors<'input> = HashMap<usize, Option<(Node<'input>, usize)>>;

/// Parses a text that holds exactly one document. Faults of the syntax are reported, and nothing is returned.
pub fn parse<'input>(text: &'input str, reporter: &mut Reporter) -> Option<Node<'input>> {
    let mut options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut anchors = Anchors::new();
    let mut stack: Vec<Frame<'input>> = Vec::new();
    let mut root: Option<Node<'input>> = None;
    let mut documents = 0_u32;
    let mut nodes = 0_usize;
    let mut aliased = 0_usize;
    while let Some(next) = parser.next_event() {
        let (event, place) = match next {
            Ok(next) => next,
            Err(error) => {
                reporter.error(
                    "syntax",
                    place_of(text, error.marker(), error.marker()),
                    fault(&error),
                );
                return None;
            }
        };
        let span = place_of(text, &place.start, &place.end);
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the parser may add presentation events"
        )]
        let complete = match event {
            Event::Scalar(value, style, anchor, tag) => {
                refuse_tag(tag.as_deref(), span, reporter);
                nodes += 1;
                let node = Node {
                    span,
                    value: scalar(value, style),
                };
                if anchor != 0 {
                    anchors.insert(anchor, Some((node.clone(), 1)));
                }
                node
            }
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(Some((node, size))) => {
                    nodes = nodes.saturating_add(*size);
                    aliased = aliased.saturating_add(*size);
                    if aliased > MAX_ALIASED_NODES {
                        reporter.error(
                            "too-many-nodes",
                            span,
                            format!("aliases add more than {MAX_ALIASED_NODES} values: write the content out"),
                        );
                        return None;
                    }
                    node.clone()
                }
                Some(None) | None => {
                    reporter.error(
                        "syntax",
                        span,
                        "the alias stands within its own anchor: write the content out",
                    );
                    return None;
                }
            },
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), span, reporter);
                open(
                    &mut stack,
                    &mut anchors,
                    span,
                    anchor,
                    nodes,
                    Open::Sequence(Vec::new()),
                );
                nodes += 1;
                continue;
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), span, reporter);
                open(
                    &mut stack,
                    &mut anchors,
                    span,
                    anchor,
                    nodes,
                    Open::Mapping(Vec::new(), None),
                );
                nodes += 1;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                // The parser balances starts and ends.
                let frame = stack.pop()?;
                let value = match frame.open {
                    Open::Sequence(items) => Value::Sequence(items),
                    Open::Mapping(entries, _) => Value::Mapping(entries),
                };
                let node = Node {
                    span: frame.span,
                    value,
                };
                if frame.anchor != 0 {
                    anchors.insert(
                        frame.anchor,
                        Some((node.clone(), nodes - frame.nodes_before)),
                    );
                }
                node
            }
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    reporter.error(
                        "several-documents",
                        span,
                        "a second YAML document begins here: put it into a file of its own",
                    );
                    return None;
                }
                continue;
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
            // Only further presentation events, which the options above switch off.
            _ => continue,
        };
        if nodes > MAX_NODES {
            too_many(span, reporter);
            return None;
        }
        match stack.last_mut().map(|frame| &mut frame.open) {
            None => root = Some(complete),
            Some(Open::Sequence(items)) => items.push(complete),
            Some(Open::Mapping(entries, key)) => match key.take() {
                None => *key = Some(complete),
                Some(key) => entries.push((key, complete)),
            },
        }
    }
    if root.is_none() {
        reporter.error("empty-file", Span::default(), "the file is empty");
    }
    root
}

fn open<'input>(
    stack: &mut Vec<Frame<'input>>,
    anchors: &mut Anchors<'input>,
    span: Span,
    anchor: usize,
    nodes_before: usize,
    open: Open<'input>,
) {
    if anchor != 0 {
        anchors.insert(anchor, None);
    }
    stack.push(Frame {
        span,
        anchor,
        nodes_before,
        open,
    });
}

fn scalar(value: Cow<'_, str>, style: ScalarStyle) -> Value<'_> {
    let plain = style == ScalarStyle::Plain;
    if plain && matches!(value.as_ref(), "" | "~" | "null" | "Null" | "NULL") {
        Value::Null
    } else {
        Value::Text(value)
    }
}

fn too_many(span: Span, reporter: &mut Reporter) {
    reporter.error(
        "too-many-nodes",
        span,
        format!("the file has more than {MAX_NODES} values with its aliases expanded: split it into several systems"),
    );
}

fn refuse_tag(tag: Option<&granit_parser::Tag>, span: Span, reporter: &mut Reporter) {
    if let Some(tag) = tag
        && !tag.is_yaml_core_schema()
    {
        let tag = tag.original();
        reporter.error(
            "yaml-tag",
            span,
            format!("the YAML tag `{tag}` means nothing here: remove it"),
        );
    }
}

/// The parser's words, and the remedy for the faults that are made most often.
fn fault(error: &ScanError) -> String {
    use granit_parser::ErrorKind;

    let said = error.info();
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most faults need no more than the parser's words"
    )]
    let remedy = match error.kind() {
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation => "indent with blanks",
        ErrorKind::UnknownAnchor => {
            "an alias needs an anchor `&name` before it; quote a text that begins with `*`"
        }
        _ => return format!("not valid YAML: {said}"),
    };
    format!("not valid YAML: {said}; {remedy}")
}

fn place_of(text: &str, start: &Marker, end: &Marker) -> Span {
    let offset = offset_of(text, start);
    let length = offset_of(text, end).saturating_sub(offset);
    Span {
        offset: u32::try_from(offset).unwrap_or(u32::MAX),
        length: u32::try_from(length).unwrap_or(u32::MAX),
    }
}

fn offset_of(text: &str, marker: &Marker) -> usize {
    marker.byte_offset().unwrap_or_else(|| {
        text.char_indices()
            .nth(marker.index())
            .map_or(text.len(), |(offset, _)| offset)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::Source;
    use super::*;

    fn print(node: &Node<'_>, into: &mut String) {
        match &node.value {
            Value::Null => into.push('-'),
            Value::Text(text) => into.push_str(text),
            Value::Sequence(items) => {
                into.push('[');
                for item in items {
                    print(item, into);
                    into.push(' ');
                }
                into.push(']');
            }
            Value::Mapping(entries) => {
                into.push('{');
                for (key, value) in entries {
                    print(key, into);
                    into.push(':');
                    print(value, into);
                    into.push(' ');
                }
                into.push('}');
            }
        }
    }

    /// Expects the tree in a short form, or `CODE LINE:COLUMN` of the only finding.
    fn check(text: &str, expect: &str) {
        let mut reporter = Reporter::new(Arc::new(Source::new("test.yaml", text)));
        let node = parse(text, &mut reporter);
        let findings = reporter.finish();
        let got = match (node, findings.as_slice()) {
            (Some(node), []) => {
                let mut printed = String::new();
                print(&node, &mut printed);
                printed
            }
            (_, [finding]) => format!("{} {}:{}", finding.code, finding.line, finding.column),
            (node, findings) => panic!("{text:?}: {node:?} {findings:?}"),
        };
        assert_eq!(got, expect, "{text:?}");
    }

    #[test]
    fn builds_the_tree() {
        check("a: 1.10\nb: [x, 'y', \"z\"]\n", "{a:1.10 b:[x y z ] }");
        check(
            "a:\nb: ~\nc: ''\nd: null\ne: 'null'\n",
            "{a:- b:- c: d:- e:null }",
        );
        check("a: &x {b: 1}\nc: *x\n", "{a:{b:1 } c:{b:1 } }");
        check("a: !!str 5\n", "{a:5 }");
        check("a: 1\na: 2\n", "{a:1 a:2 }");
        check("---\na: 1\n...\n", "{a:1 }");
        check("\u{fc}: \u{fc}\n", "{\u{fc}:\u{fc} }");
    }

    #[test]
    fn refuses_what_is_no_single_document() {
        check("", "empty-file 1:1");
        check("# only a comment\n", "empty-file 1:1");
        check("a: 1\n---\nb: 2\n", "several-documents 2:1");
        check("a: *nobody\n", "syntax 1:4");
        check("a: &x [*x]\n", "syntax 1:8");
        check("a: !custom 5\n", "yaml-tag 1:12");
        check("a:\n\t- b\n", "syntax 2:2");
    }

    #[test]
    fn caps_depth_and_alias_expansion() {
        let deep = "[".repeat(100_000);
        let mut reporter = Reporter::new(Arc::new(Source::new("deep.yaml", deep.clone())));
        assert!(parse(&deep, &mut reporter).is_none());
        assert_eq!(reporter.finish().as_slice()[0].code, "syntax");

        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let last = level - 1;
            let aliases = vec![format!("*a{last}"); 10].join(", ");
            laughs.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        let mut reporter = Reporter::new(Arc::new(Source::new("laughs.yaml", laughs.clone())));
        assert!(parse(&laughs, &mut reporter).is_none());
        assert_eq!(reporter.finish().as_slice()[0].code, "too-many-nodes");
    }

    mod properties {
        use super::*;

        proptest! {
            #[test]
            fn parsing_never_panics(text in "[a-z:\\-\\[\\]{}&*!|>'\"#, \n\u{fc}]{0,60}") {
                let mut reporter = Reporter::new(Arc::new(Source::new("any.yaml", text.clone())));
                let parsed = parse(&text, &mut reporter).is_some();
                let findings = reporter.finish();
                prop_assert!(parsed || findings.has_errors());
            }
        }
    }
}
