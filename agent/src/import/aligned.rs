//! Tables whose columns are aligned by blanks. The header's words tell where the columns begin; what stands below a
//! header belongs to it, and a gap below one is a blank cell.

use super::block::{Row, line_number};
use super::header;

/// Text with its first column, in characters.
type Segment = (usize, String);

/// Reads a table that begins at this line, which must be a header. Gives its rows and the line after it.
pub(super) fn read(lines: &[&str], start: usize) -> Option<(Vec<Row>, usize)> {
    let head = segments(lines[start]);
    let titles: Vec<String> = head.iter().map(|(_, text)| text.clone()).collect();
    if head.len() < 2 || !header::is_header(&titles) {
        return None;
    }
    let starts: Vec<usize> = head.iter().map(|(start, _)| *start).collect();
    let mut rows = vec![Row::new(line_number(start), titles)];
    let mut index = start + 1;
    while index < lines.len() {
        let line = lines[index];
        if line.trim().is_empty() {
            // The table goes on after a blank line if columns do.
            match lines.get(index + 1).map(|next| segments(next)) {
                Some(next) if next.len() >= 2 && fits(&next, &starts) => {}
                Some(_) | None => break,
            }
        } else if !is_rule(line) {
            let found = segments(line);
            let wrapped =
                found.len() == 1 && (found[0].0 > 0 || goes_on(lines, index, &found[0], &starts));
            if !(wrapped || found.len() >= 2) || !fits(&found, &starts) {
                break;
            }
            rows.push(Row::new(line_number(index), place(found, &starts)));
        }
        index += 1;
    }
    (rows.len() > 1).then_some((rows, index))
}

/// Dashes below the header, or below a group of rows: they say nothing.
fn is_rule(line: &str) -> bool {
    line.chars()
        .all(|character| matches!(character, '-' | '=' | '+' | '|' | ':' | ' '))
}

/// Texts between runs of two blanks or more.
fn segments(line: &str) -> Vec<Segment> {
    let mut found: Vec<Segment> = Vec::new();
    let mut gap = 2;
    for (column, character) in line.chars().enumerate() {
        if character == ' ' {
            gap += 1;
            continue;
        }
        match found.last_mut() {
            Some((_, text)) if gap < 2 => {
                if gap == 1 {
                    text.push(' ');
                }
                text.push(character);
            }
            Some(_) | None => found.push((column, character.to_string())),
        }
        gap = 0;
    }
    found
}

/// Whether most texts begin where a column does, or within the width of one (numbers are often aligned to the right).
fn fits(found: &[Segment], starts: &[usize]) -> bool {
    found.len() <= starts.len()
        && found
            .first()
            .is_some_and(|(start, _)| *start + 1 >= starts[0])
}

/// Whether a line that has only its first column is the rest of that cell, or a title between rows: it is no wider than
/// the column, and the table goes on below it. At the end a sentence could as well begin, but not with a small letter.
fn goes_on(lines: &[&str], index: usize, (start, text): &Segment, starts: &[usize]) -> bool {
    let narrow = start + text.chars().count() < starts[1];
    if !narrow {
        return false;
    }
    // Cells are seldom broken over more lines.
    for below in lines[index + 1..].iter().take(8) {
        let found = segments(below);
        match found.as_slice() {
            [] => break,
            [(at, rest)] if at + rest.chars().count() < starts[1] => {}
            [_] => return false,
            _ => return fits(&found, starts),
        }
    }
    text.chars().next().is_some_and(char::is_lowercase)
}

fn place(found: Vec<Segment>, starts: &[usize]) -> Vec<String> {
    let mut cells = vec![String::new(); starts.len()];
    for (start, text) in found {
        let column = starts
            .iter()
            .rposition(|column| *column <= start + 1)
            .unwrap_or(0);
        let cell = &mut cells[column];
        if !cell.is_empty() {
            cell.push(' ');
        }
        cell.push_str(&text);
    }
    cells
}
