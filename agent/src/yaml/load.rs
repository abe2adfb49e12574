//! Bytes of a file to a source text, with a cap on the size.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::source::Source;

/// Greatest file that is read, in bytes. The matrix of 100,000 requirements has about a third of it.
pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Why a file could not be read at all: an error of the environment, not of the file's author.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is nothing at the path.
    #[error("{}: no such file or folder", .0.display())]
    NotFound(PathBuf),
    /// The file or folder exists but can't be read.
    #[error("{}: cannot be read", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder holds no file that could be a matrix.
    #[error("{}: the folder has no *.yaml or *.yml file", .0.display())]
    EmptyFolder(PathBuf),
}

impl LoadError {
    pub(crate) fn from_io(path: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::NotFound {
            Self::NotFound(path.to_owned())
        } else {
            Self::Unreadable {
                path: path.to_owned(),
                source,
            }
        }
    }
}

/// A file that was read, but is no text that could be parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotText {
    /// Code of the finding.
    pub code: &'static str,
    /// Message of the finding.
    pub message: String,
}

/// Reads a file of at most [`MAX_FILE_BYTES`] bytes. A file that is too large or not UTF-8 comes back as far as it
/// can be shown, with what is wrong with it and the byte offset of that.
///
/// # Errors
/// [`LoadError`] if the file can't be opened or read.
pub fn load(path: &Path) -> Result<(Source, Option<(u32, NotText)>), LoadError> {
    let error = |source| LoadError::from_io(path, source);
    let name = path.display().to_string();
    let file = File::open(path).map_err(error)?;
    let mut bytes = Vec::new();
    // The length in the metadata may lie (pipes, /proc), so the read itself is capped.
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(error)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = format!(
            "the file has more than {} MiB: split it into several systems",
            MAX_FILE_BYTES / (1024 * 1024)
        );
        let problem = NotText {
            code: "file-too-large",
            message,
        };
        return Ok((Source::new(name, ""), Some((0, problem))));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((Source::new(name, text), None)),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let bytes = error.as_bytes();
            let offending = bytes.get(valid).copied().unwrap_or_default();
            let message = if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
                "the file is UTF-16: save it as UTF-8".to_owned()
            } else {
                format!("byte 0x{offending:02x} is not UTF-8: save the file as UTF-8")
            };
            let text = String::from_utf8_lossy(bytes).into_owned();
            let offset = u32::try_from(valid).unwrap_or(u32::MAX);
            Ok((
                Source::new(name, text),
                Some((
                    offset,
                    NotText {
                        code: "not-utf8",
                        message,
                    },
                )),
            ))
        }
    }
}
