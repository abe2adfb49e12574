//! Comma-separated values, and what is called so: also by semicolon, tab or pipe, with lines before the header.

use super::block::{Block, Document, Row, Table};
use super::fold::visible;
use super::{ImportError, MAX_CELLS};

/// Reads a text of separated values.
pub(super) fn read(name: &str, text: &str) -> Result<Document, ImportError> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter(text))
        .from_reader(text.as_bytes());
    let mut rows = Vec::new();
    let mut cells = 0;
    let mut record = csv::StringRecord::new();
    // The text is UTF-8 and lengths may differ, so that the reader has nothing to refuse.
    while reader.read_record(&mut record).unwrap_or(false) {
        cells += record.len();
        if cells > MAX_CELLS {
            return Err(ImportError::Cells {
                name: name.to_owned(),
            });
        }
        let line = record.position().map_or(0, csv::Position::line);
        let row = Row::new(
            u32::try_from(line).unwrap_or(u32::MAX),
            record.iter().map(visible).collect(),
        );
        if !row.is_blank() {
            rows.push(row);
        }
    }
    Ok(Document {
        blocks: vec![Block::Table(Table {
            strict: true,
            rows,
            remarks: Vec::new(),
        })],
        ..Document::default()
    })
}

/// The separator that the first lines have most often outside quotes.
fn delimiter(text: &str) -> u8 {
    let mut counts = [(b',', 0_usize), (b';', 0), (b'\t', 0), (b'|', 0)];
    let mut quoted = false;
    for byte in text.bytes().take(16 << 10) {
        quoted ^= byte == b'"';
        if !quoted
            && let Some((_, count)) = counts.iter_mut().find(|(delimiter, _)| *delimiter == byte)
        {
            *count += 1;
        }
    }
    // Ports lists have commas inside cells of semicolon-separated files, hardly ever the other way round.
    let commas = counts[0].1;
    counts[1..]
        .iter()
        .filter(|(_, count)| *count > 0 && *count * 2 > commas)
        .max_by_key(|(_, count)| *count)
        .map_or(b',', |(delimiter, _)| *delimiter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_delimiter() {
        assert_eq!(delimiter("a,b,c\n1,2,3\n"), b',');
        assert_eq!(delimiter("a;b;c\n1;\"2,3,4,5,6,7,8\";3\n"), b';');
        assert_eq!(delimiter("a\tb\n"), b'\t');
    }

    #[test]
    fn keeps_lines_of_quoted_cells() {
        let document = read("a", "a,b\n\"x\ny\",2\nz,3\n").unwrap();
        let Block::Table(table) = &document.blocks[0] else {
            panic!("no table");
        };
        let lines: Vec<_> = table.rows.iter().map(|row| row.line).collect();
        assert_eq!(lines, [1, 2, 4]);
        assert_eq!(table.rows[1].cells, ["x\ny", "2"]);
    }
}
