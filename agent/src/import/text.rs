//! Plain text and Markdown to blocks. The two are not told apart: documents that were turned into text keep some marks of
//! one and lose some of the other.

use super::aligned;
use super::block::{Block, Document, Line, Row, Table, line_number};
use super::direction;
use super::fold::{squeeze, without_markup};
use super::pipes;
use super::ports::Ports;

/// Longest line in words that may be a heading without a mark.
const HEADING_WORDS: usize = 10;

/// Reads a text.
pub(super) fn read(text: &str) -> Document {
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.trim_end_matches(' '))
        .collect();
    let mut document = Document::default();
    let mut index = 0;
    while index < lines.len() {
        let line = lines[index];
        if line.trim().is_empty() {
            index += 1;
            continue;
        }
        if let Some((rows, next)) =
            pipes::read(&lines, index).or_else(|| aligned::read(&lines, index))
        {
            table(&mut document, rows);
            index = next;
            continue;
        }
        if let Some(row) = tabbed(line, index) {
            table(&mut document, vec![row]);
            index += 1;
            continue;
        }
        let here = |text: &str| Line {
            number: line_number(index),
            text: text.to_owned(),
            printed: line.trim().to_owned(),
        };
        if let Some(next) = lines.get(index + 1)
            && is_underline(next)
        {
            document
                .blocks
                .push(Block::Heading(here(&without_markup(line))));
            index += 2;
            continue;
        }
        if is_underline(line) || pipes::is_rule(line) {
            // A rule between blocks says nothing.
            index += 1;
            continue;
        }
        document
            .blocks
            .push(if let Some(heading) = marked_heading(line) {
                Block::Heading(here(&heading))
            } else if let Some(item) = item(line) {
                Block::Item(here(&item))
            } else if looks_like_heading(line) {
                Block::Heading(here(&without_markup(line)))
            } else {
                Block::Text(here(line.trim()))
            });
        index += 1;
    }
    document
}

/// Adds rows to the table before them: a blank line does not end a table of a text.
fn table(document: &mut Document, rows: Vec<Row>) {
    match document.blocks.last_mut() {
        Some(Block::Table(table)) => table.rows.extend(rows),
        Some(Block::Heading(_) | Block::Text(_) | Block::Item(_)) | None => {
            document.blocks.push(Block::Table(Table {
                strict: false,
                rows,
                remarks: Vec::new(),
            }))
        }
    }
}

/// A line with cells between tabs. A single tab before a text is an indent.
fn tabbed(line: &str, index: usize) -> Option<Row> {
    let line = line.trim_matches(' ');
    let body = line.trim_start_matches('\t');
    let indent = line.len() - body.len();
    if !line.contains('\t') || (indent == 1 && !body.contains('\t') && item(body).is_some()) {
        return None;
    }
    let cells = line.split('\t').map(|cell| cell.trim().to_owned());
    Some(Row::new(line_number(index), cells.collect()))
}

fn is_underline(line: &str) -> bool {
    let line = line.trim();
    line.len() >= 3
        && (line.bytes().all(|byte| byte == b'=') || line.bytes().all(|byte| byte == b'-'))
}

/// `## Heading`, or a line that is bold as a whole.
fn marked_heading(line: &str) -> Option<String> {
    let line = line.trim();
    let body = line.trim_start_matches('#');
    let level = line.len() - body.len();
    if (1..=6).contains(&level) && body.starts_with(' ') {
        return Some(without_markup(body.trim().trim_end_matches('#')));
    }
    let inner = line.strip_prefix("**")?.strip_suffix("**")?;
    (!inner.is_empty() && !inner.contains("**")).then(|| squeeze(inner))
}

/// The text of a list entry.
fn item(line: &str) -> Option<String> {
    let line = line.trim_start();
    let mut characters = line.chars();
    let first = characters.next()?;
    let rest = characters.as_str();
    if matches!(
        first,
        '•' | '·' | '▪' | '◦' | '‣' | '●' | '○' | '■' | '–' | '—' | '-' | '*' | '+' | 'o'
    ) && rest.starts_with([' ', '\t', '\u{a0}'])
    {
        return Some(without_markup(rest));
    }
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &line[digits..];
    let numbered = (1..=2).contains(&digits) && (rest.starts_with(". ") || rest.starts_with(") "));
    numbered.then(|| without_markup(&rest[2..]))
}

/// A short line without the marks of a sentence.
fn looks_like_heading(line: &str) -> bool {
    let line = line.trim();
    let words = line.split_whitespace().count();
    words <= HEADING_WORDS
        && line.chars().next().is_some_and(|c| c.is_alphanumeric())
        && !line.ends_with(['.', ',', ';', '!', '?', ':'])
        && !line.contains(": ")
        && !line.contains(". ")
        // A flow rather than a title.
        && (direction::arrow(line).is_none() || !Ports::parse(line).has_ranges())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Vec<String> {
        read(text)
            .blocks
            .iter()
            .map(|block| match block {
                Block::Heading(line) => format!("H{} {}", line.number, line.text),
                Block::Text(line) => format!("T{} {}", line.number, line.text),
                Block::Item(line) => format!("I{} {}", line.number, line.text),
                Block::Table(table) => table
                    .rows
                    .iter()
                    .map(|row| format!("R{} {}", row.line, row.cells.join("|")))
                    .collect::<Vec<_>>()
                    .join("; "),
            })
            .collect()
    }

    #[test]
    fn tells_blocks_apart() {
        assert_eq!(
            shape(
                "# One **bold**\n\nA sentence, of words.\n- item 1\n  • item 2\n1. third\nTwo\n---\n"
            ),
            [
                "H1 One bold",
                "T3 A sentence, of words.",
                "I4 item 1",
                "I5 item 2",
                "I6 third",
                "H7 Two"
            ]
        );
    }

    #[test]
    fn reads_tabs_across_blank_lines() {
        assert_eq!(shape("a\tb\tc\n\n\t\td\n"), ["R1 a|b|c; R3 ||d"]);
    }

    #[test]
    fn reads_pipes() {
        assert_eq!(
            shape("| a | b |\n|---|:-:|\n| c | d |\n"),
            ["R1 a|b; R3 c|d"]
        );
        assert_eq!(
            shape("a | b |\n---|---|\nc | d |\ne |\n"),
            ["R1 a|b; R3 c|d; R4 e"]
        );
        assert_eq!(
            shape("+---+---+\n| a | b |\n+---+---+\n| c | d |\n+---+---+\n"),
            ["R2 a|b; R4 c|d"]
        );
    }

    #[test]
    fn reads_rows_that_are_broken_over_lines() {
        assert_eq!(
            shape("a |\nb |\n||\n---|---|---|---|\nc\n|\nd |\n||\ne |\n|||\nf |\n"),
            ["R1 a|b||; R5 c|d||; R9 e|||; R11 f"]
        );
    }

    #[test]
    fn an_aligned_row_of_signs_is_no_rule() {
        assert_eq!(
            shape("Source    Port\n------    ----\n*         -\na         1\n"),
            ["R1 Source|Port; R3 *|-; R4 a|1"]
        );
    }

    #[test]
    fn a_header_cell_that_no_pipe_ends_is_kept() {
        assert_eq!(shape("|\nGateway\n|---|---|\n"), ["R1 |Gateway"]);
    }

    #[test]
    fn reads_aligned_columns() {
        assert_eq!(
            shape(
                "Source      Destination   Port\nclient      server        443\n            proxy         8080\nTail.\n"
            ),
            [
                "R1 Source|Destination|Port; R2 client|server|443; R3 |proxy|8080",
                "T4 Tail."
            ]
        );
    }
}
