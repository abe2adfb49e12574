//! The forms of a report, a file each. They lay out what the model says and add nothing to it.

pub mod csv;
pub mod draft;
pub mod html;
pub mod junit;
pub mod tap;
pub mod text;
pub mod xlsx;

use super::fleet::Sighting;
use super::model::{Report, Row};
use super::unexpected::Unexpected;

/// Columns of the sheets, a line a service.
pub(super) const COLUMNS: [&str; 23] = [
    "kind",
    "id",
    "state",
    "from",
    "to",
    "direction",
    "necessity",
    "condition",
    "service",
    "service_state",
    "cause",
    "place",
    "confidence",
    "flows",
    "answered",
    "failed",
    "first_seen",
    "last_seen",
    "section",
    "row",
    "application",
    "purpose",
    "detail",
];

/// A cell of a sheet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.unwrap_or_default().to_owned())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

fn number(number: Option<u64>) -> Value {
    number.map_or_else(|| Value::Text(String::new()), Value::Number)
}

/// The lines of a requirement: one a service, or one if it has none.
fn row_lines(row: &Row, unwatched_since: Option<&str>) -> Vec<Vec<Value>> {
    let services: Vec<Option<&crate::export::requirement_line::ServiceLine>> =
        if row.services.is_empty() {
            vec![None]
        } else {
            row.services.iter().map(Some).collect()
        };
    let says = row.says.as_ref();
    services
        .into_iter()
        .map(|service| {
            let of_row = service.is_none_or(|service| service.state == row.state.name());
            let cause = service.map_or(row.cause.as_deref(), |service| service.cause.as_deref());
            let ask = row.ticket.as_ref().filter(|_| of_row);
            let as_of =
                unwatched_since.map(|time| format!("as of {time}: nobody has watched since"));
            let seen = row
                .seen
                .iter()
                .filter(|seen| service.is_some_and(|service| service.service == seen.service))
                .map(Sighting::in_words);
            let detail: Vec<String> = [ask.map(|ticket| ticket.ask.clone()), as_of]
                .into_iter()
                .flatten()
                .chain(seen)
                .collect();
            vec![
                "requirement".into(),
                row.id.as_str().into(),
                row.state.name().into(),
                says.map(|says| says.from.id.as_str()).into(),
                says.map(|says| says.to.id.as_str()).into(),
                says.map(|says| says.direction).into(),
                says.map(|says| says.necessity).into(),
                says.and_then(|says| says.condition.as_deref()).into(),
                service.map(|service| service.service.as_str()).into(),
                service.map(|service| service.state.as_str()).into(),
                cause.into(),
                // They are known of the row, and are those of the services that brought it into its state.
                row.place.as_deref().filter(|_| of_row).into(),
                row.confidence.as_deref().filter(|_| of_row).into(),
                number(service.map(|service| service.flows)),
                number(service.map(|service| service.answered)),
                number(service.map(|service| service.failed)),
                service
                    .and_then(|service| service.first_seen.as_deref())
                    .into(),
                service
                    .and_then(|service| service.last_seen.as_deref())
                    .into(),
                says.and_then(|says| says.section.as_deref()).into(),
                number(says.and_then(|says| says.row).map(u64::from)),
                says.and_then(|says| says.application.as_deref()).into(),
                says.and_then(|says| says.purpose.as_deref()).into(),
                detail.join("; ").as_str().into(),
            ]
        })
        .collect()
}

fn unexpected_line(group: &Unexpected) -> Vec<Value> {
    let mut detail = vec![group.outcomes()];
    if !group.initiators.is_empty() {
        detail.push(format!(
            "{} -> {}",
            group.initiators.join(", "),
            group.responders.join(", ")
        ));
    }
    for miss in &group.near_misses {
        detail.push(format!(
            "{} {}: {}",
            miss.kind, miss.requirement, miss.detail
        ));
    }
    detail.retain(|part| !part.is_empty());
    let mut line: Vec<Value> = vec![Value::Text(String::new()); COLUMNS.len()];
    let detail = detail.join("; ");
    for (column, value) in [
        ("kind", "unexpected".into()),
        ("from", group.from.as_str().into()),
        ("to", group.to.as_str().into()),
        ("service", group.service.as_str().into()),
        ("flows", Value::Number(group.flows)),
        ("first_seen", group.first_seen.as_deref().into()),
        ("last_seen", group.last_seen.as_deref().into()),
        ("detail", detail.as_str().into()),
    ] {
        if let Some(position) = COLUMNS.iter().position(|name| *name == column) {
            line[position] = value;
        }
    }
    line
}

/// All lines of a report: requirements, then unexpected traffic.
pub(super) fn lines(report: &Report) -> Vec<Vec<Value>> {
    let since = report.unwatched_since.as_deref();
    let rows = report
        .requirements
        .iter()
        .flat_map(|row| row_lines(row, since));
    rows.chain(report.unexpected.iter().map(unexpected_line))
        .collect()
}

/// Text of the network or of a pack without what could steer a terminal, a sheet or a test runner.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
                ' '
            } else {
                character
            }
        })
        .collect()
}

/// Text in XML and HTML, between tags and in attributes. Characters that XML 1.0 does not allow become U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' => escaped.push(character),
            // XML 1.0, section 2.2; C1 controls are allowed there, and of no use to anybody.
            character if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_no_markup() {
        assert_eq!(
            escape("<a href=\"x\">&'\u{1b}\u{0}\u{fffe}é\n"),
            "&lt;a href=&quot;x&quot;&gt;&amp;&#39;\u{fffd}\u{fffd}\u{fffd}é\n"
        );
        assert_eq!(one_line("a\nb\u{1b}c"), "a b c");
    }
}
