//! Matrices as sheets: the form that `report --matrix` writes and `import` reads back without loss. One row is a system, a
//! role or a requirement; a cell holds one text, or a list of texts a line each.
//!
//! Cells are escaped so that nothing is lost on the way through a spreadsheet: a backslash begins `\n`, `\r`, `\t`,
//! `\u{...}`, `\e` (an empty text) or `\\`; an apostrophe stands before what a spreadsheet would take for a formula.

use std::fmt::Write as _;

use super::block::{Block, Document, Row};
use super::fold::visible;
use super::{ImportError, yaml};
use crate::matrix::{
    Binding, BuiltInRole, Direction, Matrix, Necessity, Provenance, Requirement, RequirementId,
    Role, RoleId, RoleIndex, RoleRef, Service, System, SystemId,
};

/// First cell of a matrix sheet.
pub(crate) const MARK: &str = "flowproof matrix";

/// The columns, in order. `from title` and `to title` are for readers only.
pub(crate) const COLUMNS: [&str; 21] = [
    MARK,
    "system",
    "id",
    "from",
    "from title",
    "to",
    "to title",
    "services",
    "direction",
    "necessity",
    "condition",
    "application",
    "purpose",
    "section",
    "row",
    "doubts",
    "title",
    "names",
    "version",
    "document",
    "file",
];

/// The rows of a matrix, without the header, cells escaped.
#[must_use]
pub(crate) fn rows(matrix: &Matrix) -> Vec<[String; COLUMNS.len()]> {
    let mut rows = Vec::new();
    for system in &matrix.systems {
        let mut row = Cells::new("system", system);
        row.set("title", Some(&system.title));
        row.set("version", system.version.as_deref());
        row.set(
            "document",
            system
                .document
                .as_ref()
                .map(|document| document.title.as_str()),
        );
        row.set(
            "file",
            system
                .document
                .as_ref()
                .and_then(|document| document.file.as_deref()),
        );
        rows.push(row.0);
        for role in &system.roles {
            let mut row = Cells::new("role", system);
            row.set("id", Some(role.id.as_str()));
            row.set("title", role.title.as_deref());
            row.list("names", role.names.iter().map(ToString::to_string));
            rows.push(row.0);
        }
        for requirement in &system.requirements {
            rows.push(requirement_row(system, requirement).0);
        }
    }
    rows
}

fn requirement_row(system: &System, requirement: &Requirement) -> Cells {
    let mut row = Cells::new("requirement", system);
    let title = |role: RoleRef| match role {
        RoleRef::Declared(index) => system.role(index).title.as_deref(),
        RoleRef::BuiltIn(_) => None,
    };
    row.set("id", Some(requirement.id.as_str()));
    row.set("from", Some(system.role_id(requirement.from)));
    row.set("from title", title(requirement.from));
    row.set("to", Some(system.role_id(requirement.to)));
    row.set("to title", title(requirement.to));
    row.list(
        "services",
        requirement.services.iter().map(ToString::to_string),
    );
    row.set("direction", Some(requirement.direction.as_str()));
    row.set("necessity", Some(requirement.necessity.as_str()));
    row.set("condition", requirement.necessity.condition());
    row.set("application", requirement.application.as_deref());
    row.set("purpose", requirement.purpose.as_deref());
    row.set(
        "section",
        requirement
            .provenance
            .as_ref()
            .map(|provenance| provenance.section.as_str()),
    );
    let number = requirement
        .provenance
        .as_ref()
        .map(|provenance| provenance.row.to_string());
    row.set("row", number.as_deref());
    row.list("doubts", requirement.doubts.iter().cloned());
    row
}

struct Cells([String; COLUMNS.len()]);

impl Cells {
    fn new(kind: &str, system: &System) -> Self {
        let mut cells = Self(std::array::from_fn(|_| String::new()));
        cells.set(MARK, Some(kind));
        cells.set("system", Some(system.id.as_str()));
        cells
    }

    fn set(&mut self, column: &str, text: Option<&str>) {
        if let (Some(text), Some(index)) = (text, COLUMNS.iter().position(|name| *name == column)) {
            self.0[index] = guarded(escaped(text));
        }
    }

    fn list(&mut self, column: &str, texts: impl Iterator<Item = String>) {
        if let Some(index) = COLUMNS.iter().position(|name| *name == column) {
            let lines: Vec<String> = texts.map(|text| escaped(&text)).collect();
            self.0[index] = guarded(lines.join("\n"));
        }
    }
}

fn escaped(text: &str) -> String {
    if text.is_empty() {
        return "\\e".to_owned();
    }
    let mut escaped = String::with_capacity(text.len());
    let last = text.chars().count() - 1;
    for (index, character) in text.chars().enumerate() {
        let outer_blank = character == ' ' && (index == 0 || index == last);
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            // Spreadsheets take `_x0041_` for an escape of their own, and trim blanks.
            character
                if outer_blank
                    || (character == '_' && text.contains("_x"))
                    || visible(&character.to_string()) != character.to_string() =>
            {
                let _ = write!(escaped, "\\u{{{:x}}}", u32::from(character));
            }
            character => escaped.push(character),
        }
    }
    escaped
}

fn guarded(cell: String) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\'']) {
        format!("'{cell}")
    } else {
        cell
    }
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('\\') => plain.push('\\'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('t') => plain.push('\t'),
            Some('e') => {}
            Some('u') => {
                let rest = characters.as_str();
                let (digits, after) = rest
                    .strip_prefix('{')
                    .and_then(|rest| rest.split_once('}'))
                    .ok_or_else(|| bad_escape(text))?;
                let code = u32::from_str_radix(digits, 16)
                    .ok()
                    .and_then(char::from_u32)
                    .ok_or_else(|| bad_escape(text))?;
                plain.push(code);
                characters = after.chars();
            }
            Some(_) | None => return Err(bad_escape(text)),
        }
    }
    Ok(plain)
}

fn bad_escape(text: &str) -> String {
    format!("`{text}` has a backslash that begins no escape: write `\\\\` for a backslash")
}

/// Reads a matrix sheet back. `None` if the documents are none.
pub(super) fn read(documents: &[Document]) -> Result<Option<Matrix>, ImportError> {
    let tables = |document: &'_ Document| {
        let mut sheets = Vec::new();
        for block in &document.blocks {
            if let Block::Table(table) = block
                && table
                    .rows
                    .first()
                    .and_then(|row| row.cells.first())
                    .is_some_and(|cell| cell.trim() == MARK)
            {
                sheets.push(table.rows.clone());
            }
        }
        sheets
    };
    let mut matrix = Matrix::default();
    let mut found = false;
    for document in documents {
        let sheets = tables(document);
        if sheets.is_empty() {
            if found {
                return Err(error(document, 1, "it is no matrix sheet, while the document before it is one: import them one by one".to_owned()));
            }
            continue;
        }
        found = true;
        for rows in sheets {
            read_rows(document, &rows, &mut matrix)?;
        }
    }
    Ok(found.then_some(matrix))
}

fn error(document: &Document, line: u32, reason: String) -> ImportError {
    ImportError::MatrixSheet {
        name: document.name.clone(),
        line,
        reason,
    }
}

/// One row of a sheet, by column.
struct Record<'a> {
    document: &'a Document,
    row: &'a Row,
    columns: &'a [Option<usize>],
}

impl Record<'_> {
    fn error(&self, reason: String) -> ImportError {
        error(self.document, self.row.line, reason)
    }

    fn cell(&self, column: &str) -> &str {
        let index = COLUMNS
            .iter()
            .position(|name| *name == column)
            .and_then(|column| self.columns[column]);
        let cell = index
            .and_then(|index| self.row.cells.get(index))
            .map_or("", String::as_str)
            .trim();
        cell.strip_prefix('\'').unwrap_or(cell)
    }

    fn text(&self, column: &str) -> Result<Option<String>, ImportError> {
        let cell = self.cell(column);
        if cell.is_empty() {
            return Ok(None);
        }
        unescaped(cell)
            .map(Some)
            .map_err(|reason| self.error(reason))
    }

    fn needed(&self, column: &str) -> Result<String, ImportError> {
        self.text(column)?
            .ok_or_else(|| self.error(format!("the cell `{column}` is empty")))
    }

    fn list(&self, column: &str) -> Result<Vec<String>, ImportError> {
        let lines = self.cell(column).lines().filter(|line| !line.is_empty());
        lines
            .map(|line| unescaped(line).map_err(|reason| self.error(reason)))
            .collect()
    }

    fn parsed<T, E: std::fmt::Display>(
        &self,
        column: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, ImportError> {
        parse(&self.needed(column)?).map_err(|reason| self.error(format!("`{column}`: {reason}")))
    }
}

fn read_rows(document: &Document, rows: &[Row], matrix: &mut Matrix) -> Result<(), ImportError> {
    let Some((header, rows)) = rows.split_first() else {
        return Ok(());
    };
    let columns: Vec<Option<usize>> = COLUMNS
        .iter()
        .map(|name| header.cells.iter().position(|cell| cell.trim() == *name))
        .collect();
    for (name, column) in COLUMNS.iter().zip(&columns) {
        if column.is_none() && !name.ends_with(" title") {
            return Err(error(
                document,
                header.line,
                format!("the column `{name}` is missing"),
            ));
        }
    }
    let mut systems: Vec<System> = Vec::new();
    for row in rows {
        let record = Record {
            document,
            row,
            columns: &columns,
        };
        let id = record.parsed("system", SystemId::new)?;
        match record.cell(MARK) {
            "system" => systems.push(system(&record, id)?),
            kind @ ("role" | "requirement") => {
                let Some(system) = systems.iter_mut().find(|system| system.id == id) else {
                    return Err(
                        record.error(format!("the system `{id}` has no row of its own above"))
                    );
                };
                if kind == "role" {
                    let names = record.list("names")?;
                    let names = names
                        .iter()
                        .map(|name| Binding::parse(name).map(|parsed| parsed.binding))
                        .collect::<Result<_, _>>();
                    system.roles.push(Role {
                        id: record.parsed("id", RoleId::new)?,
                        title: record.text("title")?,
                        names: names.map_err(|reason| record.error(reason.to_string()))?,
                    });
                } else {
                    let requirement = requirement(&record, system)?;
                    system.requirements.push(requirement);
                }
            }
            other => {
                return Err(record.error(format!(
                    "`{other}` is no kind of row: write system, role or requirement"
                )));
            }
        }
    }
    for system in systems {
        // The same checks as for a file, with the same words.
        let reading = Matrix::read_text(&document.name, &yaml::system(&system));
        if let Some(finding) = reading
            .findings
            .as_slice()
            .iter()
            .find(|finding| finding.severity == crate::finding::Severity::Error)
        {
            return Err(error(document, header.line, finding.message.clone()));
        }
        matrix.systems.extend(reading.matrix.systems);
    }
    Ok(())
}

fn system(record: &Record<'_>, id: SystemId) -> Result<System, ImportError> {
    let file = record.text("file")?;
    let document = record
        .text("document")?
        .map(|title| crate::matrix::Document { title, file });
    Ok(System {
        id,
        title: record.needed("title")?,
        version: record.text("version")?,
        document,
        roles: Vec::new(),
        requirements: Vec::new(),
    })
}

fn requirement(record: &Record<'_>, system: &System) -> Result<Requirement, ImportError> {
    let role = |column: &str| {
        let id = record.needed(column)?;
        if let Some(role) = BuiltInRole::from_id(&id) {
            return Ok(RoleRef::BuiltIn(role));
        }
        let index: Option<RoleIndex> = system.find_role(&id);
        index.map(RoleRef::Declared).ok_or_else(|| {
            record.error(format!(
                "`{column}` names the role `{id}`, which has no row of its own above"
            ))
        })
    };
    let services = record.list("services")?;
    let services = services
        .iter()
        .map(|service| service.parse::<Service>())
        .collect::<Result<Vec<_>, _>>();
    let direction = match record.needed("direction")?.as_str() {
        "outbound" => Direction::Outbound,
        "inbound" => Direction::Inbound,
        "both" => Direction::Both,
        other => {
            return Err(record.error(format!(
                "`{other}` is no direction: write outbound, inbound or both"
            )));
        }
    };
    let necessity = match (
        record.needed("necessity")?.as_str(),
        record.text("condition")?,
    ) {
        ("required", None) => Necessity::Required,
        ("optional", None) => Necessity::Optional,
        ("conditional", Some(condition)) => Necessity::Conditional { condition },
        ("required" | "optional", Some(_)) => {
            return Err(record.error("a condition needs the necessity `conditional`".to_owned()));
        }
        ("conditional", None) => {
            return Err(record.error("the necessity `conditional` needs a condition".to_owned()));
        }
        (other, _) => {
            return Err(record.error(format!(
                "`{other}` is no necessity: write required, optional or conditional"
            )));
        }
    };
    let provenance = match (record.text("section")?, record.text("row")?) {
        (None, None) => None,
        (Some(section), Some(row)) => Some(Provenance {
            section,
            row: row
                .parse()
                .map_err(|_| record.error(format!("`{row}` is no row number")))?,
        }),
        (Some(_), None) | (None, Some(_)) => {
            return Err(record.error("section and row stand together or not at all".to_owned()));
        }
    };
    Ok(Requirement {
        id: record.parsed("id", RequirementId::new)?,
        from: role("from")?,
        to: role("to")?,
        services: services.map_err(|reason| record.error(reason.to_string()))?,
        direction,
        necessity,
        application: record.text("application")?,
        purpose: record.text("purpose")?,
        provenance,
        doubts: record.list("doubts")?,
    })
}

#[cfg(test)]
mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn escaping_is_reversible(text in any::<String>()) {
            let cell = escaped(&text);
            prop_assert!(!cell.contains(['\n', '\r', '\t']));
            prop_assert_eq!(visible(&cell), cell.clone());
            prop_assert_eq!(unescaped(&cell), Ok(text));
        }

        #[test]
        fn no_cell_begins_a_formula(text in "[=+@'-].{0,5}") {
            let cell = guarded(escaped(&text));
            prop_assert!(cell.starts_with('\''));
        }
    }
}
