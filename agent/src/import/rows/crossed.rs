//! Tables that have the ends of a flow on two sides: sources in the first column, destinations in the first row, ports
//! where the two cross.

use super::*;

/// Where the names of such a table stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Corner {
    /// `From \\ To`
    SourcesBelow,
    /// `To \\ From`
    DestinationsBelow,
    /// Blank.
    Silent,
}

/// Words that stand in the corner for the initiators, and for the responders.
const FROM: &[&str] = &[
    "from",
    "source",
    "sources",
    "src",
    "initiator",
    "client",
    "von",
];
const TO: &[&str] = &[
    "to",
    "destination",
    "destinations",
    "dst",
    "dest",
    "target",
    "server",
    "nach",
];

fn corner(cell: &str) -> Option<Corner> {
    let words = words(cell);
    if words.is_empty() {
        return Some(Corner::Silent);
    }
    let place = |list: &[&str]| words.split(' ').position(|word| list.contains(&word));
    match (place(FROM), place(TO)) {
        (Some(from), Some(to)) if words.split(' ').count() <= 4 => Some(if from < to {
            Corner::SourcesBelow
        } else {
            Corner::DestinationsBelow
        }),
        _ => None,
    }
}

/// What stands where two ends cross.
fn is_crossing(cell: &str) -> bool {
    let ports = Ports::parse(cell);
    ports.is_clean()
        && ports.words.is_empty()
        && (ports.has_ranges() || !ports.applications.is_empty() || !ports.protocols().is_empty())
}

/// Whether rows are such a table, by the first row and all below it up to a blank one. Gives how many they are. Every row
/// of every table is asked, so that what most rows lack comes first.
fn is_crossed(rows: &[Row]) -> Option<(Corner, usize)> {
    let (head, body) = rows.split_first()?;
    let corner = corner(head.cells.first()?)?;
    let names = head.cells.get(1..)?;
    let named = |cell: &String| {
        endpoint::is_title(cell)
            && !is_crossing(cell)
            && vocabulary::protocol(cell.trim()).is_none()
            && !header::names_column(cell, corner != Corner::Silent)
    };
    if names.len() < 2 || body.is_empty() || !names.iter().all(named) {
        return None;
    }
    let mut columns = HashSet::new();
    let mut crossings = 0;
    let mut taken = 1;
    for row in body.iter().take_while(|row| !row.is_blank()) {
        taken += 1;
        let below = row.cells.first()?;
        if row.cells.len() > head.cells.len() || !endpoint::is_title(below) || is_crossing(below) {
            return None;
        }
        for (column, cell) in row.filled().filter(|(column, _)| *column > 0) {
            if is_crossing(cell) {
                columns.insert(column);
                crossings += 1;
            } else if endpoint::parse(cell) != Cell::Placeholder {
                return None;
            }
        }
    }
    (columns.len() >= 2 && crossings >= 3).then_some((corner, taken))
}

impl Reader<'_> {
    /// Reads the rows as a crossed table, if they are one. Gives how many rows it took.
    pub(super) fn crossed(&mut self, rows: &[Row], strict: bool) -> Option<usize> {
        let (corner, end) = is_crossed(rows)?;
        let (head, body) = rows[..end].split_first()?;
        self.columns.clear();
        self.column_doubts.clear();
        self.begin();
        self.leave_row(head);
        for row in body {
            let before = self.out.found.len();
            for (column, cell) in row.filled().filter(|(column, _)| *column > 0) {
                if self.out.found.len() >= MAX_REQUIREMENTS {
                    self.out.truncated = true;
                    break;
                }
                if !is_crossing(cell) {
                    continue;
                }
                let (below, beside) = (row.cells[0].clone(), head.cells[column].clone());
                let (source, destination) = if corner == Corner::DestinationsBelow {
                    (beside, below)
                } else {
                    (below, beside)
                };
                let mut doubts = Vec::new();
                if corner == Corner::Silent {
                    doubts.push(
                        "the table has names on two sides: those of its rows are taken to initiate"
                            .to_owned(),
                    );
                }
                let parts = Parts {
                    source,
                    destination,
                    ports: vec![(cell.to_owned(), Vec::new())],
                    ..Parts::default()
                };
                self.above = Above::default();
                self.requirement(&parts, None, strict, doubts);
            }
            if self.out.found.len() > before {
                self.row += 1;
                for found in &mut self.out.found[before..] {
                    found.row = self.row;
                }
                self.take_row(row);
            } else {
                self.leave_row(row);
            }
        }
        self.above = Above::default();
        Some(end)
    }
}
