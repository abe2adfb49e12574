//! Tables whose cells stand between pipes: Markdown's, grids of `+---+`, and rows that were broken over lines when the
//! document was turned into text, each cell on a line of its own.

use super::block::{Row, line_number};

/// `---|---`, `|:--|`, `+---+`: says where the header ends, and nothing else.
pub(super) fn is_rule(line: &str) -> bool {
    let line = line.trim();
    line.contains('-')
        && line.len() >= 3
        && line
            .bytes()
            .all(|byte| matches!(byte, b'-' | b'|' | b':' | b'+' | b'=' | b' '))
}

/// Reads a table that begins at this line. Gives its rows and the line after it.
pub(super) fn read(lines: &[&str], start: usize) -> Option<(Vec<Row>, usize)> {
    broken(lines, start).or_else(|| whole(lines, start))
}

/// Cells of a line, without the pipes at its ends.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim();
    let line = line.strip_prefix('|').unwrap_or(line);
    let mut cells = vec![String::new()];
    let mut escaped = false;
    for character in line.chars() {
        match character {
            '|' if !escaped => cells.push(String::new()),
            character => {
                if let Some(cell) = cells.last_mut() {
                    cell.push(character);
                }
            }
        }
        escaped = character == '\\' && !escaped;
    }
    if cells.len() > 1 && cells.last().is_some_and(|cell| cell.trim().is_empty()) {
        cells.pop();
    }
    cells
        .into_iter()
        .map(|cell| with_line_ends(cell.trim()))
        .collect()
}

/// Markdown has no other way to write a line end into a cell.
fn with_line_ends(cell: &str) -> String {
    let mut cell = cell.to_owned();
    for tag in ["<br>", "<br/>", "<br />", "<BR>"] {
        if cell.contains(tag) {
            cell = cell.replace(tag, "\n");
        }
    }
    cell
}

fn whole(lines: &[&str], start: usize) -> Option<(Vec<Row>, usize)> {
    let pipes = |index: usize| lines.get(index).map_or(0, |line| line.matches('|').count());
    let rule = |index: usize| {
        lines
            .get(index)
            .is_some_and(|line| is_rule(line) && (line.contains('|') || line.contains('+')))
    };
    let begins = rule(start)
        || pipes(start) >= 2
        || (pipes(start) == 1 && (rule(start + 1) || pipes(start + 1) == 1));
    if !begins {
        return None;
    }
    let mut rows = Vec::new();
    let mut index = start;
    while index < lines.len() && (pipes(index) >= 1 || rule(index)) {
        if !rule(index) {
            let row = Row::new(line_number(index), cells(lines[index]));
            if !row.is_blank() {
                rows.push(row);
            }
        }
        index += 1;
    }
    Some((rows, index))
}

/// Rows whose cells have lines of their own: the rule tells how many cells a row has, and every pipe ends a cell.
fn broken(lines: &[&str], start: usize) -> Option<(Vec<Row>, usize)> {
    // The header's cells, one a line, up to the rule.
    let mut rule = start;
    while !is_rule(lines.get(rule)?) {
        let line = lines[rule].trim();
        if line.is_empty() || rule > start + 64 {
            return None;
        }
        let ends_cell = line.ends_with('|');
        if !ends_cell
            && !lines
                .get(rule + 1)
                .is_some_and(|next| next.trim().starts_with('|'))
        {
            return None;
        }
        rule += 1;
    }
    let columns = lines[rule]
        .split('|')
        .filter(|part| part.contains('-'))
        .count();
    // A header that stands on one line is that of an ordinary table.
    if rule < start + 2 || columns < 2 {
        return None;
    }
    let mut rows = Vec::new();
    let mut row: Option<Row> = None;
    let mut cell = String::new();
    let mut index = start;
    while index < lines.len() {
        let line = lines[index].trim();
        if index == rule {
            rows.extend(closed(&mut row, &mut cell));
            index += 1;
            continue;
        }
        if line.is_empty() && row.is_none() && cell.is_empty() {
            break;
        }
        let mut parts = line.split('|').peekable();
        while let Some(part) = parts.next() {
            let part = part.trim();
            if !part.is_empty() && !cell.is_empty() {
                cell.push(' ');
            }
            cell.push_str(part);
            if parts.peek().is_none() {
                // The cell goes on in the next line.
                if row.is_none() && !cell.is_empty() {
                    row = Some(Row::new(line_number(index), Vec::new()));
                }
                break;
            }
            let open = row.get_or_insert_with(|| Row::new(line_number(index), Vec::new()));
            open.cells.push(std::mem::take(&mut cell));
            if open.cells.len() >= columns {
                rows.extend(row.take());
            }
        }
        index += 1;
    }
    rows.extend(closed(&mut row, &mut cell));
    rows.retain(|row| !row.is_blank());
    Some((rows, index))
}

/// The row that is open, with the cell that no pipe has ended.
fn closed(row: &mut Option<Row>, cell: &mut String) -> Option<Row> {
    let mut row = row.take()?;
    if !cell.is_empty() {
        row.cells.push(std::mem::take(cell));
    }
    Some(row)
}
