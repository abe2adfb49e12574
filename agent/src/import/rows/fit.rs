//! How well a cell fits a column: the measure by which shifted cells find their place.

use super::*;

/// How well a cell fits a column.
pub(super) fn agreement(cell: &str, kind: Kind) -> i32 {
    let cell = cell.trim();
    if cell.is_empty() {
        return 0;
    }
    let ports = Ports::parse(cell);
    let is_service = ports.is_clean() && (ports.has_ranges() || !ports.protocols().is_empty());
    match kind {
        Kind::Port => {
            if ports.is_clean() && ports.has_ranges() {
                3
            } else if cell.chars().any(char::is_alphabetic) {
                -2
            } else {
                0
            }
        }
        Kind::Protocol => {
            if ports.is_clean() && !ports.protocols().is_empty() && !ports.has_ranges() {
                3
            } else {
                -2
            }
        }
        Kind::Source | Kind::Destination | Kind::Purpose => {
            if is_service {
                -2
            } else {
                0
            }
        }
        Kind::Direction => {
            if direction::parse(cell).is_some() {
                2
            } else {
                -1
            }
        }
        Kind::Ends => {
            if direction::ends(cell).is_some() {
                2
            } else {
                -1
            }
        }
        Kind::SourcePort
        | Kind::Application
        | Kind::Necessity
        | Kind::Action
        | Kind::ServiceTag
        | Kind::Other => 0,
    }
}
