//! Reads YAML that this repository wrote itself, so that tests can look into files that other programs are to read.

use anyhow::{Context as _, Result, bail};
use granit_parser::{Event, Parser, ScalarStyle, StrInput};
use serde_json::{Map, Value};

/// What a scalar without quotes stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plain {
    /// Text, whatever it looks like.
    Text,
    /// What YAML's core schema says: null, a boolean, a number, else text.
    Typed,
}

/// A document: every scalar is text, whatever it looks like.
///
/// # Errors
/// A fault of the syntax, an anchor or alias, a key that is no scalar or is there twice, or more than one document.
pub fn read(text: &str) -> Result<Value> {
    let mut documents = all(text, Plain::Text)?.into_iter();
    let document = documents.next().context("there is no document")?;
    if documents.next().is_some() {
        bail!("there is a second document");
    }
    Ok(document)
}

/// All documents of a stream, typed as the programs do that take them for JSON. Empty documents are left out.
///
/// # Errors
/// As [`read`], but there may be any number of documents.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let mut documents = all(text, Plain::Typed)?;
    documents.retain(|document| !document.is_null());
    Ok(documents)
}

fn all(text: &str, plain: Plain) -> Result<Vec<Value>> {
    let mut options = granit_parser::options! { flow_nesting_limit: 32, block_nesting_limit: 32 };
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut documents = Vec::new();
    loop {
        let event = next(&mut parser)?;
        if matches!(event, Event::StreamEnd) {
            return Ok(documents);
        }
        let frames = matches!(
            event,
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd
        );
        if !frames {
            documents.push(node(&mut parser, event, plain)?);
        }
    }
}

fn next<'text>(parser: &mut Parser<'text, StrInput<'text>>) -> Result<Event<'text>> {
    let (event, _) = parser.next_event().context("the text ends too early")??;
    Ok(event)
}

fn node<'text>(
    parser: &mut Parser<'text, StrInput<'text>>,
    first: Event<'text>,
    plain: Plain,
) -> Result<Value> {
    if let Event::Scalar(text, style, ..) = first {
        return Ok(if plain == Plain::Typed && style == ScalarStyle::Plain {
            typed(&text)
        } else {
            Value::String(text.into_owned())
        });
    }
    if matches!(first, Event::SequenceStart(..)) {
        let mut items = Vec::new();
        loop {
            let item = next(parser)?;
            if matches!(item, Event::SequenceEnd) {
                return Ok(Value::Array(items));
            }
            items.push(node(parser, item, plain)?);
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
        let Value::String(key) = node(parser, key, Plain::Text)? else {
            bail!("a key is no scalar");
        };
        let value = next(parser)?;
        let value = node(parser, value, plain)?;
        if entries.insert(key.clone(), value).is_some() {
            bail!("{key} is there twice");
        }
    }
}

fn typed(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => {
            if let Ok(number) = text.parse::<i64>() {
                return number.into();
            }
            // Rust reads `inf` and `nan` too, which are words here.
            let numeric = text
                .starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first))
                && text.contains(|digit: char| digit.is_ascii_digit());
            match text.parse::<f64>() {
                Ok(number) if numeric => number.into(),
                Ok(_) | Err(_) => Value::String(text.to_owned()),
            }
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

    #[test]
    fn tells_numbers_and_booleans_from_text() -> Result<()> {
        let text = "---\n# nothing\n---\na: [1, \"1\", -2.5, true, ~, 10%, 1.0.0, 50m, .inf, nan]\n---\nb: {c: }\n";
        let expect = [
            json!({"a": [1, "1", -2.5, true, null, "10%", "1.0.0", "50m", ".inf", "nan"]}),
            json!({"b": {"c": null}}),
        ];
        assert_eq!(documents(text)?, expect);
        Ok(())
    }
}
