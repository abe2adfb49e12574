//! A list of prefixes as text: one address or prefix a line, `#` begins a comment. The tag is named as the file is.

use super::Collector;
use crate::matrix::binding::is_tag_name;

pub(super) fn read(stem: &str, into: &mut Collector<'_>) -> Option<()> {
    if !is_tag_name(stem) {
        into.error(
            "bad-tag-name",
            0,
            format!("the tag of this list would be `{stem}`, which `tag:` can't be followed by: name the file with letters, digits, `.`, `-` and `_`"),
        );
        return None;
    }
    let key = into.tag(stem, "")?;
    for line in into.source.text().lines() {
        let entry = line.split_once('#').map_or(line, |(entry, _)| entry).trim();
        if !entry.is_empty() {
            into.prefix(entry, std::slice::from_ref(&key), "")?;
        }
    }
    Some(())
}
