//! The requirements of a system by who opens towards whom: a cell a pair of roles, with how many of its rows are in which state
//! and the worst of them.

use std::collections::BTreeMap;

use super::model::{Report, RoleName, Row};
use crate::verdict::requirement::State;

/// The rows between two roles.
#[derive(Debug)]
pub struct Cell<'a> {
    /// In the order of the matrix.
    pub rows: Vec<&'a Row>,
}

impl Cell<'_> {
    /// The state that the cell has to show: the worst, where silence of what is needed only sometimes is no problem.
    #[must_use]
    pub fn worst(&self) -> Option<&Row> {
        // Of equally bad ones the first.
        self.rows
            .iter()
            .rev()
            .max_by_key(|row| row.badness())
            .copied()
    }

    /// Rows by state; only the states that there are, in the order of the documentation.
    #[must_use]
    pub fn counts(&self) -> Vec<(State, usize)> {
        State::ALL
            .into_iter()
            .map(|state| {
                let count = self.rows.iter().filter(|row| row.state == state).count();
                (state, count)
            })
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// The rows of a system by roles.
#[derive(Debug)]
pub struct Grid<'a> {
    /// The system.
    pub system: &'a str,
    /// Roles that open, by id.
    pub initiators: Vec<RoleName>,
    /// Roles that answer, by id.
    pub responders: Vec<RoleName>,
    /// By the positions of both. Where nothing is required there is no cell.
    pub cells: BTreeMap<(usize, usize), Cell<'a>>,
    /// Rows that the matrix given does not have.
    pub unknown: Vec<&'a Row>,
}

impl<'a> Grid<'a> {
    /// The grids of all systems of a report, in its order.
    #[must_use]
    pub fn of(report: &'a Report) -> Vec<Self> {
        report
            .systems
            .iter()
            .map(|system| Self::new(report, &system.id))
            .collect()
    }

    fn new(report: &'a Report, system: &'a str) -> Self {
        let rows = || {
            report
                .requirements
                .iter()
                .filter(|row| row.system == system)
        };
        let pairs = || {
            rows()
                .filter_map(|row| Some((row, row.says.as_ref()?)))
                .flat_map(|(row, says)| says.initiations.iter().map(move |pair| (row, pair)))
        };
        let mut initiators: Vec<RoleName> = pairs().map(|(_, pair)| pair.0.clone()).collect();
        let mut responders: Vec<RoleName> = pairs().map(|(_, pair)| pair.1.clone()).collect();
        for list in [&mut initiators, &mut responders] {
            list.sort();
            list.dedup();
        }
        let mut cells: BTreeMap<(usize, usize), Cell<'a>> = BTreeMap::new();
        for (row, (from, to)) in pairs() {
            // Both are in the lists that were made of the same pairs.
            if let (Ok(from), Ok(to)) =
                (initiators.binary_search(from), responders.binary_search(to))
            {
                cells
                    .entry((from, to))
                    .or_insert_with(|| Cell { rows: Vec::new() })
                    .rows
                    .push(row);
            }
        }
        Self {
            system,
            initiators,
            responders,
            cells,
            unknown: rows().filter(|row| row.says.is_none()).collect(),
        }
    }
}
