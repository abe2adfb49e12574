//! Vendors' tables to a matrix draft. Documents are damaged in many ways and no two look alike, so nothing here is
//! certain: what was taken carries its place and its doubts, and what could not be placed stays in the draft as a comment.
//!
//! A pipeline of pure stages: bytes to text (`input`), text to blocks of headings, lines and tables (`text`, `pipes`,
//! `aligned`, `html`, `delimited`, `sheet`), columns to meanings (`header`), rows to requirements (`rows`, with `ports`,
//! `direction` and `endpoint` for the cells; `lists` for what stands outside tables), requirements to a draft (`draft`,
//! `yaml`). The vocabulary is general: no stage knows a document. `matrix_sheet` reads back what `report --matrix` wrote.

mod aligned;
mod block;
mod delimited;
mod direction;
mod draft;
mod endpoint;
mod fold;
mod header;
mod html;
mod input;
mod lists;
pub(crate) mod matrix_sheet;
mod pipes;
mod ports;
mod report;
mod rows;
mod sheet;
mod text;
mod vocabulary;
mod yaml;

use std::path::{Path, PathBuf};

pub use draft::{Draft, Note, NoteKind};
pub use input::Format;
pub use report::Report;
pub(crate) use yaml::quoted;

use crate::matrix::{Matrix, SystemId};

/// Longest document in bytes. A requirements table is some kilobytes; this is what can be read in a second or two.
pub const MAX_BYTES: u64 = 16 << 20;
/// Longest content of a packed sheet in bytes, unpacked, over all its parts.
pub const MAX_UNPACKED_BYTES: u64 = 128 << 20;
/// Most cells of a document, with those that spans and repetitions stand for.
pub const MAX_CELLS: usize = 500_000;
/// Most requirements of a draft.
pub const MAX_REQUIREMENTS: usize = 50_000;

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file could not be opened or read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than [`MAX_BYTES`].
    #[error("{name} is larger than {} MiB, which no requirements table is: cut the table out of it", MAX_BYTES >> 20)]
    TooLarge {
        /// The document.
        name: String,
    },
    /// The file has no text.
    #[error("{name} is empty: there is nothing to import")]
    Empty {
        /// The document.
        name: String,
    },
    /// The file is no text.
    #[error(
        "{name} is neither text nor a sheet ({what}): save it as text, Markdown, HTML, CSV, XLSX or ODS"
    )]
    Binary {
        /// The document.
        name: String,
        /// What it looks like.
        what: &'static str,
    },
    /// The sheet is damaged, encrypted or of another kind.
    #[error("{name} is not a readable {kind} sheet: {reason}")]
    Sheet {
        /// The document.
        name: String,
        /// `XLSX` or `ODS`.
        kind: &'static str,
        /// What the reader said.
        reason: String,
    },
    /// A sheet that unpacks to more than [`MAX_UNPACKED_BYTES`].
    #[error("{name} unpacks to more than {} MiB: it is damaged or hostile, and is not read", MAX_UNPACKED_BYTES >> 20)]
    Unpacked {
        /// The document.
        name: String,
    },
    /// More cells than [`MAX_CELLS`].
    #[error("{name} has more than {MAX_CELLS} cells: cut the requirements table out of it")]
    Cells {
        /// The document.
        name: String,
    },
    /// The document is a matrix sheet, but not a valid one.
    #[error("{name} line {line}: {reason}")]
    MatrixSheet {
        /// The document.
        name: String,
        /// Line or row.
        line: u32,
        /// What is wrong, and what to write.
        reason: String,
    },
}

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The draft's system; made from the document's title if not given.
    pub system: Option<SystemId>,
    /// What the documents are; found out from name and content if not given.
    pub format: Option<Format>,
}

/// One document.
#[derive(Debug, Clone)]
pub struct Input {
    /// Its file name, for messages and the draft's `document`.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl Input {
    /// Reads a file, but not more than [`MAX_BYTES`] of it.
    ///
    /// # Errors
    /// [`ImportError::Read`] or [`ImportError::TooLarge`].
    pub fn read(path: &Path) -> Result<Self, ImportError> {
        use std::io::Read as _;

        let error = |source| ImportError::Read {
            path: path.to_owned(),
            source,
        };
        let name = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned();
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
            .map_err(error)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ImportError::TooLarge { name });
        }
        Ok(Self { name, bytes })
    }
}

/// What importing gave.
#[derive(Debug, Clone)]
pub enum Imported {
    /// Requirements that were made out in vendors' documents.
    Draft(Box<Draft>),
    /// A matrix that `report --matrix` wrote: read back as it was.
    Matrix(Matrix),
}

/// Reads documents into one draft, in the given order.
///
/// # Errors
/// [`ImportError`] for a document that can't be read at all. A document without any recognisable table is no error:
/// its draft has no requirements, and all its text as comments.
pub fn import(inputs: &[Input], options: &Options) -> Result<Imported, ImportError> {
    let mut documents = Vec::with_capacity(inputs.len());
    for input in inputs {
        documents.push(input::read(input, options.format)?);
    }
    if let Some(matrix) = matrix_sheet::read(&documents)? {
        return Ok(Imported::Matrix(matrix));
    }
    Ok(Imported::Draft(Box::new(draft::make(
        &documents,
        options.system.clone(),
    ))))
}

/// A matrix' system as a matrix file, without comments.
#[must_use]
pub fn to_yaml(system: &crate::matrix::System) -> String {
    yaml::system(system)
}
