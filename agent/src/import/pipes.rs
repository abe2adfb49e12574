//! Tables whose cells stand between pipes: Markdown's, grids of `+---+`, and rows that were broken over lines when the
//! document was turned into text, each cell on a line of its own.

use super::block::{Row, line_number};
use super::ports::Ports;

/// `---|---`, `|:--|`, `+---+`, `+===+`: says where the header ends, and nothing else.
pub(super) fn is_rule(line: &str) -> bool {
    let line = line.trim();
    line.contains(['-', '='])
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
            '|' => {
                // The sign before it only says that it ends no cell.
                if let Some(cell) = cells.last_mut() {
                    cell.pop();
                    cell.push('|');
                }
            }
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
    // Rows between two rules.
    let mut groups: Vec<Vec<Row>> = vec![Vec::new()];
    let mut index = start;
    while index < lines.len() && (pipes(index) >= 1 || rule(index)) {
        if rule(index) {
            groups.push(Vec::new());
        } else {
            let row = Row::new(line_number(index), cells(lines[index]));
            if let Some(group) = groups.last_mut()
                && !row.is_blank()
            {
                group.push(row);
            }
        }
        index += 1;
    }
    groups.retain(|group| !group.is_empty());
    // A rule below the header only says where it ends; more of them, of crosses, are the lines of a grid.
    let crossed = lines[start..index]
        .iter()
        .filter(|line| is_rule(line) && line.trim().starts_with('+'))
        .count();
    let grid = crossed >= 3 && groups.len() >= 3;
    // In Markdown a line is a row.
    let markdown = crossed == 0 && (start..index).any(rule);
    let rows = groups.into_iter().flat_map(|mut group| {
        for row in &mut group {
            row.whole = markdown;
        }
        if grid && is_one_row(&group) {
            vec![joined(group)]
        } else {
            group
        }
    });
    Some((rows.collect(), index))
}

/// Whether the lines between two rules of a grid are one row, whose cells are broken over lines. Where several lines name
/// ports of their own, the rules only tell groups of rows apart.
fn is_one_row(lines: &[Row]) -> bool {
    let ports = |row: &Row| {
        row.cells
            .iter()
            .find(|cell| {
                let ports = Ports::parse(cell);
                ports.is_clean() && ports.has_ranges()
            })
            .cloned()
    };
    let named: Vec<String> = lines.iter().filter_map(ports).collect();
    named
        .iter()
        .take(named.len().saturating_sub(1))
        .all(|cell| cell.ends_with([',', ';', '/', '-', '–', '&']))
}

/// One row of its lines.
fn joined(lines: Vec<Row>) -> Row {
    let mut lines = lines.into_iter();
    let mut row = lines.next().unwrap_or_else(|| Row::new(0, Vec::new()));
    for line in lines {
        for (column, more) in line.cells.into_iter().enumerate() {
            match row.cells.get_mut(column) {
                Some(cell) => {
                    if !cell.is_empty() && !more.is_empty() {
                        cell.push('\n');
                    }
                    cell.push_str(&more);
                }
                None => row.cells.push(more),
            }
        }
    }
    row
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
