//! One provider's file to tags. Formats are told apart by what is in the file, since operators rename files.
//!
//! What can't be read of a file is reported with its place. A few such entries are left out; a file with more of them
//! than of others is not what it seems to be (an error page, a table of something else) and is refused as a whole.

mod aws;
mod azure;
mod microsoft365;
mod plain;

use std::borrow::Cow;
use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use super::MAX_ENTRIES;
use super::book::{ServiceTag, folded};
use crate::matrix::binding::is_tag_name;
use crate::matrix::{Binding, NamePattern};
use crate::yaml::{Reporter, Source, Span};

/// Unreadable entries that are listed one by one.
const LISTED: usize = 10;

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TagFile {
    /// By their folded names.
    pub(super) tags: BTreeMap<String, ServiceTag>,
    /// The provider's number of the edition, which grows; not every format has one.
    pub(super) edition: Option<u64>,
}

impl TagFile {
    /// Prefixes and names of all tags.
    pub(super) fn size(&self) -> usize {
        self.tags.values().map(ServiceTag::size).sum()
    }
}

/// Reads a file. `stem` is its name without the ending, which a list without a name of its own takes for its tag.
/// Nothing, and an error with the reporter, if it is of no use.
pub(super) fn parse(source: &Source, stem: &str, reporter: &mut Reporter) -> Option<TagFile> {
    let mut collector = Collector {
        source,
        reporter,
        tags: BTreeMap::new(),
        entries: 0,
        refused: 0,
    };
    let text = source.text();
    let edition = match text.trim_start().as_bytes().first() {
        None => {
            collector.error("empty-file", 0, "the file is empty");
            return None;
        }
        Some(b'{') => object(&mut collector)?,
        Some(b'[') => {
            microsoft365::read(collector.json(text)?, &mut collector)?;
            None
        }
        Some(b'<') => {
            collector.error(
                "unknown-tag-format",
                0,
                "this is a page, not a list of prefixes: download the file itself (Azure's and AWS's end with `.json`)",
            );
            return None;
        }
        Some(_) => {
            plain::read(stem, &mut collector)?;
            None
        }
    };
    Some(TagFile {
        tags: collector.finish()?,
        edition,
    })
}

/// A text of a JSON file; borrowed where it has no escapes, so that its place in the file is known.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The formats whose file is one object.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(rename = "changeNumber")]
    change_number: Option<u64>,
    #[serde(borrow)]
    values: Option<Vec<azure::Value<'a>>>,
    #[serde(borrow, rename = "syncToken")]
    sync_token: Option<Text<'a>>,
    #[serde(borrow)]
    prefixes: Option<Vec<aws::Ipv4<'a>>>,
    #[serde(borrow)]
    ipv6_prefixes: Option<Vec<aws::Ipv6<'a>>>,
}

/// Reads it, and gives its edition.
fn object(collector: &mut Collector<'_>) -> Option<Option<u64>> {
    let object: Object<'_> = collector.json(collector.source.text())?;
    if let Some(values) = object.values {
        azure::read(values, collector)?;
        return Some(object.change_number);
    }
    if object.prefixes.is_some() || object.ipv6_prefixes.is_some() {
        let ipv4 = object.prefixes.unwrap_or_default();
        let ipv6 = object.ipv6_prefixes.unwrap_or_default();
        aws::read(ipv4, ipv6, collector)?;
        return Some(object.sync_token.and_then(|token| token.0.parse().ok()));
    }
    collector.error(
        "unknown-tag-format",
        0,
        "the file has neither `values` (Azure service tags) nor `prefixes` (AWS ip-ranges)",
    );
    None
}

/// A tag while its file is read.
struct Draft {
    name: String,
    ipv4: Vec<Ipv4Net>,
    ipv6: Vec<Ipv6Net>,
    names: Vec<NamePattern>,
}

/// What has been read of a file.
struct Collector<'a> {
    source: &'a Source,
    reporter: &'a mut Reporter,
    tags: BTreeMap<String, Draft>,
    entries: usize,
    refused: usize,
}

impl<'a> Collector<'a> {
    fn error(&mut self, code: &'static str, offset: u32, message: impl Into<String>) {
        self.reporter
            .error(code, Span { offset, length: 0 }, message);
    }

    fn json<T: Deserialize<'a>>(&mut self, text: &'a str) -> Option<T> {
        match serde_json::from_str(text) {
            Ok(value) => Some(value),
            Err(error) => {
                let line = u32::try_from(error.line()).unwrap_or(u32::MAX);
                let start = self.source.line(line).map_or(0, |(_, start)| start);
                let column = u32::try_from(error.column().saturating_sub(1)).unwrap_or(0);
                let message = error.to_string();
                // The place comes with the finding.
                let message = message
                    .rsplit_once(" at line ")
                    .map_or(message.as_str(), |(message, _)| message);
                self.error(
                    "bad-tag-file",
                    start.saturating_add(column),
                    format!("{message}: the file is cut short, damaged, or of a format that is not known"),
                );
                None
            }
        }
    }

    /// Where a piece of the file stands; its beginning for a text that had escapes.
    fn span(&self, piece: &str) -> Span {
        let text = self.source.text();
        let offset = piece.as_ptr().addr().wrapping_sub(text.as_ptr().addr());
        if offset.saturating_add(piece.len()) > text.len() {
            return Span::default();
        }
        Span {
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            length: u32::try_from(piece.len()).unwrap_or(0),
        }
    }

    /// Begins a tag, or goes on with it. Nothing for a name that no site file could write.
    fn tag(&mut self, name: &str, place: &str) -> Option<String> {
        let key = folded(name);
        if self.tags.contains_key(&key) {
            return Some(key);
        }
        if !is_tag_name(name) {
            self.entries += 1;
            self.refuse(
                place,
                format!("`{name}` is no name that `tag:` could be followed by"),
            );
            return None;
        }
        let draft = Draft {
            name: name.to_owned(),
            ipv4: Vec::new(),
            ipv6: Vec::new(),
            names: Vec::new(),
        };
        self.tags.insert(key.clone(), draft);
        Some(key)
    }

    /// Adds an address or a prefix to tags. `within` names the object in messages. Nothing once the file is too large.
    fn prefix(&mut self, text: &str, keys: &[String], within: &str) -> Option<()> {
        self.count()?;
        let prefix = match Binding::parse(text) {
            Ok(parsed) => match parsed.binding {
                Binding::Prefix(prefix) if prefix.prefix_len() > 0 => prefix,
                Binding::Prefix(_) => {
                    self.refuse(
                        text,
                        format!("`{text}`{within} covers every address: no service has them all"),
                    );
                    return Some(());
                }
                Binding::Name(_) | Binding::Tag(_) => {
                    self.refuse(text, format!("`{text}`{within} is no address or prefix"));
                    return Some(());
                }
            },
            Err(error) => {
                self.refuse(text, format!("{error}{within}"));
                return Some(());
            }
        };
        for key in keys {
            if let Some(draft) = self.tags.get_mut(key) {
                match prefix {
                    IpNet::V4(prefix) => draft.ipv4.push(prefix),
                    IpNet::V6(prefix) => draft.ipv6.push(prefix),
                }
            }
        }
        Some(())
    }

    /// Adds a DNS name to tags, as [`Self::prefix`] does a prefix.
    fn name(&mut self, text: &str, keys: &[String], within: &str) -> Option<()> {
        self.count()?;
        match NamePattern::new(text) {
            Ok(name) => {
                for key in keys {
                    if let Some(draft) = self.tags.get_mut(key) {
                        draft.names.push(name.clone());
                    }
                }
            }
            Err(error) => self.refuse(text, format!("{error}{within}")),
        }
        Some(())
    }

    fn count(&mut self) -> Option<()> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            self.error(
                "too-many-entries",
                0,
                format!(
                    "the file has more than {MAX_ENTRIES} entries: keep the tags that the site uses"
                ),
            );
            return None;
        }
        Some(())
    }

    /// Leaves an entry out.
    fn refuse(&mut self, place: &str, message: String) {
        self.refused += 1;
        if self.refused <= LISTED {
            let span = self.span(place);
            self.reporter.warning("bad-tag-entry", span, message);
        }
    }

    /// The tags, if most of the file could be read.
    fn finish(mut self) -> Option<BTreeMap<String, ServiceTag>> {
        if self.refused > LISTED {
            let more = self.refused - LISTED;
            let span = Span::default();
            let message = format!("{more} more entries can't be read and are left out");
            self.reporter.warning("bad-tag-entry", span, message);
        }
        let read = self.entries.saturating_sub(self.refused);
        if read == 0 || read < self.refused {
            let refused = self.refused;
            self.error(
                "bad-tag-file",
                0,
                format!("{read} entries can be read and {refused} can't: the file is damaged, or no list of prefixes"),
            );
            return None;
        }
        let finish = |draft: Draft| {
            let mut names = draft.names;
            names.sort_unstable();
            names.dedup();
            let ipv4 = Ipv4Net::aggregate(&draft.ipv4).into_iter().map(IpNet::V4);
            let ipv6 = Ipv6Net::aggregate(&draft.ipv6).into_iter().map(IpNet::V6);
            ServiceTag {
                name: draft.name,
                prefixes: ipv4.chain(ipv6).collect(),
                names,
            }
        };
        let tags = std::mem::take(&mut self.tags);
        Some(
            tags.into_iter()
                .map(|(key, draft)| (key, finish(draft)))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests;
