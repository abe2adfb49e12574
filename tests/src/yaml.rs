//! Reads YAML that this repository wrote itself, so that tests can look into files that other programs are to read.

use anyhow::{Context as _, Result, bail};
use granit_parser::{Event, Parser, StrInput};
use serde_json::{Map, Value};

/// A document: every scalar is text, whatever it looks like.
///
/// # Errors
/// A fault of the syntax, an anchor or alias, a key that is no scalar or is there twice, or more than one document.
pub fn read(text: &str) -> Result<Value> {
    let mut options = granit_parser::options! { flow_nesting_limit: 32, block_nesting_limit: 32 };
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut document = None;
    loop {
        let event = next(&mut parser)?;
        if matches!(event, Event::StreamEnd) {
            return document.context("there is no document");
        }
        let frames = matches!(
            event,
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd
        );
        if !frames && document.replace(node(&mut parser, event)?).is_some() {
            bail!("there is a second document");
        }
    }
}

fn next<'text>(parser: &mut Parser<'text, StrInput<'text>>) -> Result<Event<'text>> {
    let (event, _) = parser.next_event().context("the text ends too early")??;
    Ok(event)
}

fn node<'text>(parser: &mut Parser<'text, StrInput<'text>>, first: Event<'text>) -> Result<Value> {
    if let Event::Scalar(text, ..) = first {
        return Ok(Value::String(text.into_owned()));
    }
    if matches!(first, Event::SequenceStart(..)) {
        let mut items = Vec::new();
        loop {
            let item = next(parser)?;
            if matches!(item, Event::SequenceEnd) {
                return Ok(Value::Array(items));
            }
            items.push(node(parser, item)?);
        }
    }
    if !matches!(first, Event::MappingStart(..)) {
        bail!("not read here: {first:?}");
    }
    let mut entries = Map::new();
    loop {
        let key = next(parser)?;
        if matches!(key, Event::MappingEnd) {
            return Ok(Value::Object(entries));
        }
        let Value::String(key) = node(parser, key)? else {
            bail!("a key is no scalar");
        };
        let value = next(parser)?;
        let value = node(parser, value)?;
        if entries.insert(key.clone(), value).is_some() {
            bail!("{key} is there twice");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_is_there() -> Result<()> {
        let text = "# why\na: [1, {b: \"c # d\"}]\ne:\n  - f: |\n      g\n      h\n    i: >-\n      j\n      k\n";
        let expect = json!({"a": ["1", {"b": "c # d"}], "e": [{"f": "g\nh\n", "i": "j k"}]});
        assert_eq!(read(text)?, expect);
        for wrong in [
            "",
            "a: [",
            "a: 1\na: 2\n",
            "a: &b 1\nc: *b\n",
            "a: 1\n---\nb: 2\n",
            "{a: 1}: 2\n",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        Ok(())
    }
}
