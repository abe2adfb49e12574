//! `flowproof import`: vendors' tables to a matrix draft.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::ValueEnum;

use super::{Error, Outcome, print, print_error, snippet};
use crate::import::{self, Draft, Format, Imported, Input, Options, Report};
use crate::matrix::{Matrix, SystemId};
use crate::plural::counted;

/// Arguments of `flowproof import`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Documents with the requirements of one system: text, Markdown, HTML, CSV, XLSX or ODS
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where to write the draft; without it, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Id of the draft's system; of a matrix sheet with several systems, the one to take
    #[arg(long, value_name = "ID")]
    system: Option<SystemId>,
    /// Print what was taken, doubted and left
    #[arg(long, value_enum, value_name = "FORM", num_args = 0..=1, default_missing_value = "text", require_equals = true)]
    report: Option<super::Format>,
    /// What the documents are; found out by itself if not given
    #[arg(long, value_enum, default_value_t = Kind::Auto)]
    format: Kind,
}

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// By name and content
    Auto,
    /// Plain text
    Text,
    /// Markdown
    Markdown,
    /// HTML
    Html,
    /// Comma-separated values
    Csv,
    /// Office Open XML spreadsheet
    Xlsx,
    /// OpenDocument spreadsheet
    Ods,
}

impl Kind {
    fn format(self) -> Option<Format> {
        Some(match self {
            Self::Auto => return None,
            Self::Text => Format::Text,
            Self::Markdown => Format::Markdown,
            Self::Html => Format::Html,
            Self::Csv => Format::Csv,
            Self::Xlsx => Format::Xlsx,
            Self::Ods => Format::Ods,
        })
    }
}

/// Imports the documents. Documents without any requirement fall short; their text is in the draft all the same.
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let inputs = arguments
        .files
        .iter()
        .map(|path| Input::read(path))
        .collect::<Result<Vec<_>, _>>()?;
    let options = Options {
        system: arguments.system.clone(),
        format: arguments.format.format(),
    };
    match import::import(&inputs, &options)? {
        Imported::Draft(draft) => finish_draft(arguments, &draft),
        Imported::Matrix(matrix) => finish_matrix(arguments, &matrix),
    }
}

fn write(arguments: &Arguments, text: &str) -> Result<(), Error> {
    match &arguments.output {
        Some(path) => fs::write(path, text).map_err(|source| Error::Write {
            path: path.clone(),
            source,
        }),
        None => print(|out| out.write_all(text.as_bytes())),
    }
}

fn finish_matrix(arguments: &Arguments, matrix: &Matrix) -> Result<Outcome, Error> {
    let system = match &arguments.system {
        Some(id) => matrix
            .find_system(id.as_str())
            .map(|index| matrix.system(index))
            .ok_or_else(|| {
                Error::Usage(format!(
                    "the sheet has no system `{id}`: it has {}",
                    ids(matrix)
                ))
            })?,
        None => match matrix.systems.as_slice() {
            [system] => system,
            _ => {
                return Err(Error::Usage(format!(
                    "the sheet has several systems, and a matrix file holds one: choose it by `--system` ({})",
                    ids(matrix)
                )));
            }
        },
    };
    write(arguments, &import::to_yaml(system))?;
    if arguments.report.is_some() {
        print_error(|out| {
            writeln!(
                out,
                "read back a matrix sheet: {}",
                counted(system.requirements.len(), "requirement")
            )
        })?;
    }
    Ok(Outcome::Fine)
}

fn ids(matrix: &Matrix) -> String {
    let ids: Vec<&str> = matrix
        .systems
        .iter()
        .map(|system| system.id.as_str())
        .collect();
    ids.join(", ")
}

fn finish_draft(arguments: &Arguments, draft: &Draft) -> Result<Outcome, Error> {
    write(arguments, &draft.to_yaml())?;
    let report = Report::new(draft);
    // The draft has standard output if it has no file.
    let printed = |write: &dyn Fn(&mut dyn Write) -> io::Result<()>| match arguments.output {
        Some(_) => print(write),
        None => print_error(write),
    };
    match arguments.report {
        Some(super::Format::Text) => printed(&|out| text(&report, out))?,
        Some(super::Format::Json) => printed(&|out| super::line(&report, out))?,
        None => {}
    }
    print_error(|out| {
        for table in &report.headless {
            writeln!(
                out,
                "flowproof: {} line {}: no header of this table names a source, destination, port or protocol: its rows are comments in the draft; add a header line",
                snippet::visible(table.file),
                table.line
            )?;
        }
        if report.truncated {
            writeln!(
                out,
                "flowproof: a draft holds at most {} requirements: the rest are comments in it",
                import::MAX_REQUIREMENTS
            )?;
        }
        if report.requirements == 0 {
            writeln!(
                out,
                "flowproof: no requirement was found; the whole text is in the draft as comments"
            )?;
        }
        Ok(())
    })?;
    Ok(if report.requirements == 0 || report.truncated {
        Outcome::FallsShort
    } else {
        Outcome::Fine
    })
}

fn text(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{}: {}, {}, taken from {}; {} doubted, {} left",
        report.system,
        counted(report.requirements, "requirement"),
        counted(report.roles, "role"),
        counted(report.taken, "line"),
        report.doubted.len(),
        counted(report.left.len(), "line"),
    )?;
    if !report.doubted.is_empty() {
        writeln!(out, "doubted:")?;
    }
    for doubted in &report.doubted {
        writeln!(out, "  {}", doubted.id)?;
        for doubt in doubted.doubts {
            writeln!(out, "    {}", snippet::visible(doubt))?;
        }
    }
    if !report.left.is_empty() {
        writeln!(out, "left:")?;
    }
    for note in &report.left {
        writeln!(
            out,
            "  {} line {}: {}",
            snippet::visible(&note.file),
            note.line,
            snippet::visible(&note.text)
        )?;
    }
    Ok(())
}
