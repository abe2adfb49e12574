//! The text of a file, and places in it. Nodes keep only byte offsets; lines and columns are worked out for the few
//! places that are reported.

use std::sync::OnceLock;

/// A stretch of a source text in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Where it begins.
    pub offset: u32,
    /// How long it is; 0 where a place is meant.
    pub length: u32,
}

/// A file's name and text.
#[derive(Debug, Clone)]
pub struct Source {
    name: String,
    text: String,
    /// Offset of the first byte of each line; worked out when the first place is asked for.
    lines: OnceLock<Vec<u32>>,
}

impl Source {
    /// Takes a text. A byte order mark at its start is dropped. The text should have no more than
    /// [`super::MAX_FILE_BYTES`] bytes: offsets beyond `u32` saturate.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
        }
        Self {
            name: name.into(),
            text,
            lines: OnceLock::new(),
        }
    }

    fn lines(&self) -> &[u32] {
        self.lines.get_or_init(|| {
            std::iter::once(0)
                .chain(
                    self.text
                        .match_indices('\n')
                        .map(|(offset, _)| saturate(offset + 1)),
                )
                .collect()
        })
    }

    /// The name that messages use: the path as the user gave it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line of a byte offset, from 1.
    #[must_use]
    pub fn line_of(&self, offset: u32) -> u32 {
        saturate(self.lines().partition_point(|start| *start <= offset)).max(1)
    }

    /// Line and column (in characters) of a byte offset, both from 1.
    #[must_use]
    pub fn position(&self, offset: u32) -> (u32, u32) {
        let line = self.line_of(offset);
        let start = self.line(line).map_or(0, |(_, start)| start);
        (line, saturate(self.characters(start, offset) + 1))
    }

    /// As [`Source::position`], where the position of another offset is known: counting from there keeps many places
    /// in one very long line cheap.
    #[must_use]
    pub fn position_from(&self, known: (u32, (u32, u32)), offset: u32) -> (u32, u32) {
        let (near, (line, column)) = known;
        if self.line_of(offset) != line {
            return self.position(offset);
        }
        let column = if near <= offset {
            column.saturating_add(saturate(self.characters(near, offset)))
        } else {
            column.saturating_sub(saturate(self.characters(offset, near)))
        };
        (line, column)
    }

    fn characters(&self, from: u32, to: u32) -> usize {
        self.text
            .get(from as usize..to as usize)
            .map_or(0, |between| between.chars().count())
    }

    /// The text of a line (from 1) without its end, and the byte offset at which it starts.
    #[must_use]
    pub fn line(&self, line: u32) -> Option<(&str, u32)> {
        let index = (line as usize).checked_sub(1)?;
        let lines = self.lines();
        let start = *lines.get(index)?;
        let end = lines
            .get(index + 1)
            .map_or(self.text.len(), |next| *next as usize);
        let text = self.text.get(start as usize..end)?;
        Some((text.trim_end_matches(['\n', '\r']), start))
    }
}

fn saturate(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters() {
        let source = Source::new("a", "\u{feff}ab\r\nüx: y\n\nlast");
        let check = |needle: &str, expect| {
            let offset = saturate(source.text().find(needle).unwrap());
            assert_eq!(source.position(offset), expect, "{needle}");
        };
        check("ab", (1, 1));
        check("b", (1, 2));
        check("x", (2, 2));
        check("y", (2, 5));
        check("last", (4, 1));
        assert_eq!(source.position(u32::MAX).0, 4);
        let places: Vec<u32> = source
            .text()
            .char_indices()
            .map(|(offset, _)| saturate(offset))
            .collect();
        for near in &places {
            for offset in &places {
                let known = (*near, source.position(*near));
                assert_eq!(
                    source.position_from(known, *offset),
                    source.position(*offset)
                );
            }
        }
        assert_eq!(source.line(2), Some(("üx: y", 4)));
        assert_eq!(source.line(3), Some(("", 11)));
        assert_eq!(source.line(0), None);
        assert_eq!(source.line(5), None);
        assert_eq!(Source::new("a", "").position(0), (1, 1));
    }
}
