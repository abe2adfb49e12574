//! `flowproof report`: a matrix as a sheet to work on, or as a page to read.

use std::fs;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::ValueEnum;

use super::{Error, Outcome, print, print_error, snippet};
use crate::matrix::Matrix;
use crate::report::{matrix_page, matrix_sheet};

/// Arguments of `flowproof report`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Matrix files, or folders of them (*.yaml, *.yml)
    #[arg(long, required = true, value_name = "PATH", num_args = 1..)]
    matrix: Vec<PathBuf>,
    /// What to write
    #[arg(long, value_enum)]
    format: Kind,
    /// Where to write it; without it, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The forms of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A sheet that `import` reads back
    Csv,
    /// The same as a workbook
    Xlsx,
    /// A page: roles, requirements, doubts and a worked site file
    Md,
}

/// Writes the report. A matrix with errors falls short, and nothing is written.
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let reading = Matrix::read(&arguments.matrix)?;
    if reading.findings.has_errors() {
        print_error(|out| snippet::write(&reading.findings, out))?;
        return Ok(Outcome::FallsShort);
    }
    let bytes = match arguments.format {
        Kind::Csv => matrix_sheet::csv(&reading.matrix)?,
        Kind::Xlsx => matrix_sheet::xlsx(&reading.matrix)?,
        Kind::Md => matrix_page::markdown(&reading.matrix).into_bytes(),
    };
    match &arguments.output {
        Some(path) => fs::write(path, bytes).map_err(|source| Error::Write {
            path: path.clone(),
            source,
        })?,
        None if arguments.format == Kind::Xlsx && std::io::stdout().is_terminal() => {
            return Err(Error::Usage(
                "a workbook is no text: name a file by `--output`".to_owned(),
            ));
        }
        None => print(|out| out.write_all(&bytes))?,
    }
    Ok(Outcome::Fine)
}
