//! `flowproof diff`: what a new edition of a matrix changes, and whether traffic will be judged otherwise for it.
//!
//! The JSON form is one object:
//!
//! ```text
//! {"judgement":bool,"systems":[{"id","change":"added|removed|changed","fields":[FIELD..],
//!    "roles":[{"id","old_id","change":"added|removed|changed|renamed","title","fields":[FIELD..],"judgement":bool}],
//!    "requirements":[{"id","old_id","change","from","to","services":[..],"direction","necessity",
//!       "fields":[FIELD..],"judgement":bool}]}]}
//! FIELD: {"field":"from|to|direction|necessity|condition|services|names|provenance|words","old","new","judgement":bool}
//! ```
//!
//! Systems, roles and rows that are the same are not in it. `old_id` is null unless the id changed.

use std::io::{self, Write};
use std::path::PathBuf;

use super::snippet::visible;
use super::{Error, Format, Outcome, print, print_error, snippet};
use crate::matrix::Matrix;
use crate::report::matrix_diff::{FieldChange, Kind, MatrixDiff, RequirementChange, SystemChange};

/// Arguments of `flowproof diff`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 nothing that changes judgement differs; 1 something does; 2 usage or environment error, or \
                  a matrix is not valid. Titles, purposes, provenance and ids of requirements do not change judgement."
)]
pub(super) struct Arguments {
    /// The matrix as it was: a file, or a folder of them (*.yaml, *.yml)
    old: PathBuf,
    /// The matrix as it is to be
    new: PathBuf,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Compares the two.
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let diff = MatrixDiff::new(&read(&arguments.old)?, &read(&arguments.new)?);
    print(|out| match arguments.format {
        Format::Json => super::line(&diff, out),
        Format::Text => text(&diff, out),
    })?;
    Ok(if diff.judgement {
        Outcome::FallsShort
    } else {
        Outcome::Fine
    })
}

/// A matrix with errors can't be compared: 1 would say that it differs.
fn read(path: &PathBuf) -> Result<Matrix, Error> {
    let reading = Matrix::read(&[path])?;
    if reading.findings.has_errors() {
        print_error(|out| snippet::write(&reading.findings, out))?;
        return Err(Error::Usage(format!(
            "the matrix {} has errors and can't be compared: correct them first",
            path.display()
        )));
    }
    Ok(reading.matrix)
}

fn text(diff: &MatrixDiff, out: &mut dyn Write) -> io::Result<()> {
    for system in &diff.systems {
        system_text(system, out)?;
    }
    let verdict = if diff.systems.is_empty() {
        "nothing differs"
    } else if diff.judgement {
        "traffic is judged otherwise: what is marked by `!`"
    } else {
        "traffic is judged as before"
    };
    writeln!(out, "{verdict}")
}

const fn mark(judgement: bool) -> char {
    if judgement { '!' } else { ' ' }
}

fn system_text(system: &SystemChange, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}: {}", system.id, system.change.name())?;
    fields(&system.fields, "", out)?;
    for role in &system.roles {
        let title = role.title.as_deref().map(visible);
        writeln!(
            out,
            "{} role {} {}{}{}",
            mark(role.judgement),
            role.change.name(),
            role.id,
            was(role.old_id.as_deref()),
            title.map(|title| format!(" ({title})")).unwrap_or_default(),
        )?;
        fields(&role.fields, "  ", out)?;
    }
    for row in &system.requirements {
        writeln!(
            out,
            "{} requirement {} {}{}{}",
            mark(row.judgement),
            row.change.name(),
            row.id,
            was(row.old_id.as_deref()),
            content(row),
        )?;
        fields(&row.fields, "  ", out)?;
    }
    writeln!(out)
}

fn was(old: Option<&str>) -> String {
    old.map(|old| format!(", was {old}")).unwrap_or_default()
}

/// What a row says, where no other row is there to compare it with.
fn content(row: &RequirementChange) -> String {
    match row.change {
        Kind::Changed | Kind::Renamed => String::new(),
        Kind::Added | Kind::Removed => {
            let arrow = match row.direction {
                "inbound" => "<-",
                "both" => "<->",
                _ => "->",
            };
            let services = if row.services.is_empty() {
                "no service named".to_owned()
            } else {
                row.services.join(", ")
            };
            format!(
                ": {} {arrow} {}: {services} ({})",
                row.from, row.to, row.necessity
            )
        }
    }
}

fn fields(fields: &[FieldChange], indent: &str, out: &mut dyn Write) -> io::Result<()> {
    for field in fields {
        let mark = mark(field.judgement);
        let of = |text: &Option<String>| text.as_deref().map(visible);
        let told = match (of(&field.old), of(&field.new)) {
            (Some(old), Some(new)) => format!("{old} -> {new}"),
            (Some(old), None) => format!("without {old}"),
            (None, Some(new)) => format!("now {new}"),
            (None, None) => continue,
        };
        writeln!(out, "{mark} {indent}  {}: {told}", field.field)?;
    }
    Ok(())
}
