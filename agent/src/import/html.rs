//! HTML to blocks. A tokenizer is enough: nothing but tables, headings and list entries matters, and those close each
//! other by simple rules, so that tag soup is read without building a tree.

use std::collections::BTreeMap;

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{HtmlString, Spanned, Token, Tokenizer};

use super::block::{Block, Document, Line, Row, Table};
use super::fold::{squeeze, visible};
use super::{ImportError, MAX_CELLS};

/// Most columns that one cell may span, as in the HTML standard.
const MAX_COLSPAN: usize = 1000;
/// Tables within tables that are told apart; deeper ones are read as text.
const MAX_DEPTH: usize = 16;

/// A cell with its spans.
struct Cell {
    line: u32,
    text: String,
    columns: usize,
    /// 0: to the end of the table.
    rows: usize,
}

#[derive(Default)]
struct Builder {
    rows: Vec<Vec<Cell>>,
    in_cell: bool,
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    /// Where counting lines has got to: byte and line.
    counted: (usize, u32),
    document: Document,
    tables: Vec<Builder>,
    /// Text outside cells, with the line on which it began.
    open: Line,
    kind: Kind,
    /// Depth within elements whose text is not the document's.
    skipped: usize,
    cells: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Heading,
    Item,
    Title,
}

/// Reads HTML.
pub(super) fn read(name: &str, text: &str) -> Result<Document, ImportError> {
    let mut emitter = DefaultEmitter::<usize>::new_with_span();
    emitter.naively_switch_states(true);
    let mut reader = Reader {
        name,
        text,
        counted: (0, 1),
        document: Document::default(),
        tables: Vec::new(),
        open: Line::default(),
        kind: Kind::Text,
        skipped: 0,
        cells: 0,
    };
    for token in Tokenizer::new_with_emitter(text, emitter) {
        let Ok(token) = token;
        match token {
            Token::StartTag(tag) => {
                let line = reader.line(tag.span.start);
                reader.start(
                    &String::from_utf8_lossy(&tag.name),
                    &tag.attributes,
                    line,
                    tag.self_closing,
                );
            }
            Token::EndTag(tag) => reader.end(&String::from_utf8_lossy(&tag.name))?,
            Token::String(string) => {
                let line = reader.line(string.span.start);
                reader.string(&String::from_utf8_lossy(&string.value), line);
            }
            Token::Comment(_) | Token::Doctype(_) | Token::Error(_) => {}
        }
    }
    while !reader.tables.is_empty() {
        reader.close_table()?;
    }
    reader.flush();
    Ok(reader.document)
}

impl Reader<'_> {
    /// The line of a byte; bytes come in rising order.
    fn line(&mut self, byte: usize) -> u32 {
        let (counted, line) = self.counted;
        let byte = byte.min(self.text.len());
        if byte > counted {
            let more = self.text.as_bytes()[counted..byte]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            self.counted = (
                byte,
                line.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)),
            );
        }
        self.counted.1
    }

    fn start(
        &mut self,
        name: &str,
        attributes: &BTreeMap<HtmlString, Spanned<HtmlString, usize>>,
        line: u32,
        self_closing: bool,
    ) {
        match name {
            "script" | "style" | "template" if !self_closing => self.skipped += 1,
            "table" if self.tables.len() < MAX_DEPTH => {
                self.flush();
                self.tables.push(Builder::default());
            }
            "tr" => {
                if let Some(table) = self.tables.last_mut() {
                    table.in_cell = false;
                    table.rows.push(Vec::new());
                }
            }
            "td" | "th" => {
                let span = |name: &str| {
                    attributes
                        .iter()
                        .find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
                        .and_then(|(_, value)| {
                            std::str::from_utf8(value)
                                .ok()?
                                .trim()
                                .parse::<usize>()
                                .ok()
                        })
                };
                if let Some(table) = self.tables.last_mut() {
                    table.in_cell = true;
                    if table.rows.is_empty() {
                        table.rows.push(Vec::new());
                    }
                    if let Some(row) = table.rows.last_mut() {
                        row.push(Cell {
                            line,
                            text: String::new(),
                            columns: span("colspan").unwrap_or(1).clamp(1, MAX_COLSPAN),
                            rows: span("rowspan").unwrap_or(1),
                        });
                    }
                }
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "caption" | "summary" => {
                self.begin(Kind::Heading)
            }
            "title" => self.begin(Kind::Title),
            "li" | "dt" | "dd" => self.begin(Kind::Item),
            // Mostly a footnote; later stages know it by this form.
            "sup" => self.string("^{", line),
            "br" => self.string("\n", line),
            "p" | "div" | "ul" | "ol" | "section" | "article" | "header" | "footer"
            | "blockquote" | "pre" | "dl" | "hr" | "tbody" | "thead" | "tfoot" => {
                self.separate();
            }
            _ => {}
        }
    }

    fn end(&mut self, name: &str) -> Result<(), ImportError> {
        match name {
            "script" | "style" | "template" => self.skipped = self.skipped.saturating_sub(1),
            "sup" => {
                let line = self.counted.1;
                self.string("}", line);
            }
            "table" => self.close_table()?,
            "tr" | "td" | "th" => {
                if let Some(table) = self.tables.last_mut() {
                    table.in_cell = false;
                }
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "caption" | "summary" | "title" | "li"
            | "dt" | "dd" | "p" | "div" | "ul" | "ol" | "dl" | "section" => self.separate(),
            _ => {}
        }
        Ok(())
    }

    fn cell(&mut self) -> Option<&mut Cell> {
        let table = self.tables.last_mut()?;
        if !table.in_cell {
            return None;
        }
        table.rows.last_mut()?.last_mut()
    }

    fn string(&mut self, text: &str, line: u32) {
        if self.skipped > 0 {
            return;
        }
        let text = visible(text);
        if let Some(cell) = self.cell() {
            cell.text.push_str(&text);
            return;
        }
        if self.open.text.trim().is_empty() {
            self.open.number = line;
            self.open.text.clear();
        }
        self.open.text.push_str(&text);
    }

    /// A new paragraph: in a cell a line end, elsewhere a new block.
    fn separate(&mut self) {
        if let Some(cell) = self.cell() {
            if !cell.text.is_empty() && !cell.text.ends_with('\n') {
                cell.text.push('\n');
            }
        } else {
            self.flush();
        }
    }

    fn begin(&mut self, kind: Kind) {
        self.separate();
        if self.cell().is_none() {
            self.kind = kind;
        }
    }

    /// Ends the text outside cells.
    fn flush(&mut self) {
        let text = squeeze(&self.open.text);
        let kind = std::mem::replace(&mut self.kind, Kind::Text);
        self.open.text.clear();
        if text.is_empty() {
            return;
        }
        let line = Line::plain(self.open.number, text);
        match kind {
            Kind::Title => {
                self.document.title.get_or_insert_with(|| line.text.clone());
                self.document.blocks.push(Block::Heading(line));
            }
            Kind::Heading => self.document.blocks.push(Block::Heading(line)),
            Kind::Item => self.document.blocks.push(Block::Item(line)),
            Kind::Text => self.document.blocks.push(Block::Text(line)),
        }
    }

    fn close_table(&mut self) -> Result<(), ImportError> {
        if let Some(table) = self.tables.pop() {
            if self.tables.is_empty() {
                self.flush();
            }
            let rows = self.resolve(table)?;
            if !rows.is_empty() {
                self.document.blocks.push(Block::Table(Table {
                    strict: true,
                    rows,
                    remarks: Vec::new(),
                }));
            }
        }
        Ok(())
    }

    /// Puts a cell's text into every place that the cell spans.
    fn resolve(&mut self, table: Builder) -> Result<Vec<Row>, ImportError> {
        let height = table.rows.len();
        let mut rows: Vec<Row> = Vec::with_capacity(height);
        // Cells that reach down: column to (rows left, text).
        let mut reaching: BTreeMap<usize, (usize, String)> = BTreeMap::new();
        for (index, cells) in table.rows.into_iter().enumerate() {
            let mut row = Row::new(cells.first().map_or(0, |cell| cell.line), Vec::new());
            let inherit = |row: &mut Row, reaching: &mut BTreeMap<usize, (usize, String)>| {
                while let Some((left, text)) = reaching.get_mut(&row.cells.len()) {
                    let column = row.cells.len();
                    row.cells.push(text.clone());
                    *left -= 1;
                    if *left == 0 {
                        reaching.remove(&column);
                    }
                }
            };
            let own = !cells.is_empty();
            let only = match cells.as_slice() {
                [cell] => Some(cell.columns),
                _ => None,
            };
            for cell in cells {
                inherit(&mut row, &mut reaching);
                let below = height - index - 1;
                let down = if cell.rows == 0 {
                    below
                } else {
                    cell.rows.saturating_sub(1).min(below)
                };
                let text = lines_of(&cell.text);
                for _ in 0..cell.columns {
                    self.cells += 1;
                    if self.cells > MAX_CELLS {
                        return Err(ImportError::Cells {
                            name: self.name.to_owned(),
                        });
                    }
                    if down > 0 {
                        self.cells += down;
                        reaching.insert(row.cells.len(), (down, text.clone()));
                    }
                    row.cells.push(text.clone());
                }
            }
            inherit(&mut row, &mut reaching);
            row.merged = only == Some(row.cells.len());
            // What reaches down beyond a gap stays for the next row, but its count goes on.
            let width = row.cells.len();
            reaching.retain(|column, (left, _)| {
                if *column > width {
                    *left -= 1;
                }
                *left > 0
            });
            if own && !row.is_blank() {
                rows.push(row);
            }
        }
        Ok(rows)
    }
}

/// Lines of a cell, each squeezed, without blank ones.
fn lines_of(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(squeeze)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(text: &str) -> Vec<Vec<Vec<String>>> {
        read("a", text)
            .unwrap()
            .blocks
            .into_iter()
            .filter_map(|block| match block {
                Block::Table(table) => Some(table.rows.into_iter().map(|row| row.cells).collect()),
                Block::Heading(_) | Block::Text(_) | Block::Item(_) => None,
            })
            .collect()
    }

    #[test]
    fn resolves_spans() {
        assert_eq!(
            tables("<table><tr><td rowspan=2>a<td>b</tr><tr><td>c</table>"),
            [[["a", "b"], ["a", "c"]]]
        );
        assert_eq!(
            tables("<table><tr><th colspan=2>x</th><th>y</th></tr><tr><td>1<td>2<td>3</table>"),
            [[["x", "x", "y"], ["1", "2", "3"]]]
        );
        assert_eq!(
            tables("<table><tr><td>1<td rowspan=0>z</tr><tr><td>2</tr><tr><td>3</table>"),
            [[["1", "z"], ["2", "z"], ["3", "z"]]]
        );
    }

    #[test]
    fn reads_soup() {
        assert_eq!(
            tables("<p>x<table><tr><td>a<br>b<td><script>no</script>c &amp; d"),
            [[["a\nb", "c & d"]]]
        );
        assert_eq!(
            tables("<table><tr><td>outer<table><tr><td>in<td>ner</table></table>"),
            [
                vec![vec!["in".to_owned(), "ner".to_owned()]],
                vec![vec!["outer".to_owned()]]
            ]
        );
    }

    #[test]
    fn knows_lines_and_headings() {
        let document = read(
            "a",
            "<title>T</title>\n<h2>\nSecure <b>Gateway</b></h2>\n<ul><li>one\n<li>two</ul>text",
        )
        .unwrap();
        let blocks: Vec<String> = document
            .blocks
            .iter()
            .map(|block| format!("{block:?}"))
            .collect();
        assert_eq!(document.title.as_deref(), Some("T"));
        assert!(
            blocks[1].contains("Heading") && blocks[1].contains("Secure Gateway"),
            "{blocks:?}"
        );
        assert!(
            blocks[2].contains("Item") && blocks[2].contains("number: 4"),
            "{blocks:?}"
        );
        assert!(
            blocks[3].contains("two") && blocks[4].contains("Text"),
            "{blocks:?}"
        );
    }

    #[test]
    fn bounds_spans() {
        let wide = "<td rowspan=65534 colspan=1000>x".repeat(100);
        let tall = "<tr><td>y".repeat(1000);
        assert!(matches!(
            read("a", &format!("<table><tr>{wide}{tall}</table>")),
            Err(ImportError::Cells { .. })
        ));
    }
}
