//! What a pack's name stands for: which names fit it, examples of them, and names that nearly fit.
//!
//! It is read in the lab's own way, by how the vendors print names and nothing more, so that it can't share a mistake
//! with the daemon. A pack that prints names otherwise fails here and needs a shape more.

use std::net::IpAddr;

use anyhow::{Result, bail};

/// What something in `names` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// This very name.
    Exact(String),
    /// `*.rest`: every name below `rest`.
    Below(String),
    /// `*end.rest`: one label that ends so, and then `rest`.
    Ending(String, String),
    /// An address.
    Address(IpAddr),
    /// `tag:name`.
    Tag(String),
}

impl Shape {
    pub(crate) fn read(text: &str) -> Result<Self> {
        if let Some(tag) = text.strip_prefix("tag:") {
            return Ok(Self::Tag(tag.to_owned()));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let whole = |text: &str| !text.is_empty() && !text.contains(['*', '/', ':']);
        if whole(text) {
            return Ok(Self::Exact(text.to_owned()));
        }
        if let Some((end, rest)) = text
            .strip_prefix('*')
            .and_then(|behind| behind.split_once('.'))
            && whole(rest)
        {
            if end.is_empty() {
                return Ok(Self::Below(rest.to_owned()));
            }
            if whole(end) {
                return Ok(Self::Ending(end.to_owned(), rest.to_owned()));
            }
        }
        bail!("the lab has no examples for the name {text}")
    }

    /// Whether a name in lower case fits.
    pub(crate) fn fits(&self, name: &str) -> bool {
        match self {
            Self::Exact(own) => own == name,
            Self::Below(rest) => {
                let above = name.strip_suffix(rest.as_str());
                above.is_some_and(|above| above.len() > 1 && above.ends_with('.'))
            }
            Self::Ending(end, rest) => name
                .split_once('.')
                .is_some_and(|(label, behind)| behind == rest && label.ends_with(end.as_str())),
            Self::Address(_) | Self::Tag(_) => false,
        }
    }

    /// Names that fit.
    pub(crate) fn examples(&self) -> Vec<String> {
        match self {
            Self::Exact(name) => vec![name.clone()],
            Self::Below(rest) => vec![format!("a1.{rest}"), format!("a1.b-2.{rest}")],
            // A star may stand for nothing.
            Self::Ending(end, rest) => vec![format!("lab1{end}.{rest}"), format!("{end}.{rest}")],
            Self::Address(_) | Self::Tag(_) => Vec::new(),
        }
    }

    /// Names that nearly fit, and don't.
    pub(crate) fn near(&self) -> Vec<String> {
        match self {
            Self::Exact(name) => {
                let parent = name.split_once('.').map(|(_, parent)| parent.to_owned());
                [
                    format!("x{name}"),
                    format!("sub.{name}"),
                    format!("{name}.example"),
                    other_top(name),
                ]
                .into_iter()
                .chain(parent)
                .collect()
            }
            Self::Below(rest) => vec![
                rest.clone(),
                format!("x{rest}"),
                format!("a1.x{rest}"),
                format!("a1.{rest}.example"),
                format!("a1.{}", other_top(rest)),
            ],
            Self::Ending(end, rest) => vec![
                rest.clone(),
                format!("lab1{end}x.{rest}"),
                format!("sub.lab1{end}.{rest}"),
                format!("lab1{end}.x{rest}"),
                format!("lab1{end}.{rest}.example"),
                format!("lab1{end}.{}", other_top(rest)),
            ],
            Self::Address(_) | Self::Tag(_) => Vec::new(),
        }
    }
}

/// The same name under another top-level domain.
fn other_top(name: &str) -> String {
    let (front, _) = name.rsplit_once('.').unwrap_or((name, ""));
    format!("{front}.test")
}

#[test]
fn examples_fit_and_near_misses_do_not() {
    for text in ["a.example.org", "*.example.org", "*xt.example.org"] {
        let shape = Shape::read(text).expect("a shape");
        assert!(shape.examples().iter().all(|name| shape.fits(name)));
        assert!(shape.near().len() > 4);
        assert!(!shape.near().iter().any(|name| shape.fits(name)), "{text}");
    }
    for text in ["a*b.example.org", "*.*.example.org", "192.0.2.0/24", "*"] {
        assert!(Shape::read(text).is_err(), "{text}");
    }
}
