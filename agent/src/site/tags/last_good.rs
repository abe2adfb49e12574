//! Copies of the tag files that were in force last, kept over restarts, so that a broken download changes nothing. A copy
//! knows its source, and replaces the one before in one step.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::yaml::MAX_FILE_BYTES;

/// The folder within the state directory.
const FOLDER: &str = "tags";
/// Longest part of a copy's name that comes from the source's.
const LONGEST_STEM: usize = 100;
/// Digits of a date at the end of a name.
const DATE_DIGITS: usize = 8;
/// A text grows when it becomes a JSON string; six bytes for one is the most.
const MAX_COPY_BYTES: u64 = 6 * MAX_FILE_BYTES + 65_536;

/// Why a copy can't be kept.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: the last good copy of {source_name} can't be kept: a broken or shrunken file will not be told from a good one; \
     make the folder writable, or name another by `state_directory` or --state-dir",
    path.display()
)]
pub struct KeepError {
    path: PathBuf,
    source_name: String,
    #[source]
    source: std::io::Error,
}

/// A copy as it stands on the disk.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// The path of the file, as it was configured.
    source: String,
    text: String,
}

/// A copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    /// The path of the file that it is of.
    pub(super) source: String,
    /// What was in the file.
    pub(super) text: String,
    /// When it was kept.
    pub(super) kept: Option<SystemTime>,
}

/// Where the copy of a tag file is kept. Azure and others put a date into the name of each edition, which does not make
/// it another file.
pub(super) fn path(state: &Path, file: &Path) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let json = file.extension().is_some_and(|ending| ending == "json");
    let stem = if json { undated(&stem) } else { &stem };
    let folder = std::path::absolute(file).ok();
    let folder = folder.as_deref().and_then(Path::parent);
    let folder = folder.map(|folder| folder.as_os_str().as_encoded_bytes());
    let whole = folder
        .unwrap_or_default()
        .iter()
        .chain(b"/")
        .chain(stem.as_bytes());
    // FNV-1a, which stays the same in every build: the name must be found again.
    let hash = whole.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let shown: String = stem
        .chars()
        .map(|character| {
            if character.is_ascii_alphanumeric() || character == '-' {
                character
            } else {
                '_'
            }
        })
        .take(LONGEST_STEM)
        .collect();
    state.join(FOLDER).join(format!("{shown}.{hash:016x}.json"))
}

/// The files in `folder` that copies are kept of, with the copies. Of the folder's names only those are known that it
/// was configured by.
pub(super) fn of_folder(state: &Path, folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let (Ok(folder), Ok(entries)) = (
        std::path::absolute(folder),
        fs::read_dir(state.join(FOLDER)),
    ) else {
        return Vec::new();
    };
    let mut found: Vec<(PathBuf, PathBuf)> = entries
        .filter_map(|entry| {
            let copy = entry.ok()?.path();
            let source = PathBuf::from(load(&copy)?.source);
            let parent = std::path::absolute(&source).ok()?;
            (parent.parent() == Some(&folder) && path(state, &source) == copy)
                .then_some((source, copy))
        })
        .collect();
    found.sort();
    found
}

/// A file's name without the date at its end.
pub(super) fn undated(stem: &str) -> &str {
    let name = stem.trim_end_matches(|character: char| character.is_ascii_digit());
    if stem.len() - name.len() == DATE_DIGITS && !name.is_empty() {
        name.trim_end_matches(['_', '-', '.'])
    } else {
        stem
    }
}

/// The copy at a path; nothing if there is none that can be read.
pub(super) fn load(path: &Path) -> Option<Copy> {
    let file = File::open(path).ok()?;
    let kept = file
        .metadata()
        .and_then(|metadata| metadata.modified())
        .ok();
    let mut bytes = Vec::new();
    file.take(MAX_COPY_BYTES).read_to_end(&mut bytes).ok()?;
    let Stored { source, text } = serde_json::from_slice(&bytes).ok()?;
    Some(Copy { source, text, kept })
}

/// Keeps a copy. Whoever reads meanwhile finds the old one or the new one.
pub(super) fn keep(path: &Path, source: &str, text: &str) -> Result<(), KeepError> {
    let write = || -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let stored = Stored {
            source: source.to_owned(),
            text: text.to_owned(),
        };
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(&serde_json::to_vec(&stored)?)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    };
    write().map_err(|error| KeepError {
        path: path.to_owned(),
        source_name: source.to_owned(),
        source: error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_makes_no_other_file() {
        assert_eq!(undated("ServiceTags_Public_20261116"), "ServiceTags_Public");
        assert_eq!(undated("ip-ranges"), "ip-ranges");
        assert_eq!(undated("list-123"), "list-123");
        assert_eq!(undated("20261116"), "20261116");
        let at = |file: &str| path(Path::new("/state"), Path::new(file));
        assert_eq!(at("/a/S_20261116.json"), at("/a/S_20261123.json"));
        assert_ne!(at("/a/S_20261116.json"), at("/b/S_20261116.json"));
        assert_ne!(at("/a/s.txt"), at("/a/t.txt"));
        // The tag of a list has the date in its name.
        assert_ne!(at("/a/s-20261116.txt"), at("/a/s-20261123.txt"));
        assert!(at("/a/x y\u{0}.json").starts_with("/state/tags"));
    }

    #[test]
    fn a_copy_comes_back_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), Path::new("/a/list.txt"));
        assert_eq!(load(&path), None);
        keep(&path, "/a/list.txt", "one\n").unwrap();
        keep(&path, "/a/list.txt", "two\n").unwrap();
        let copy = load(&path).unwrap();
        assert_eq!(
            (copy.source.as_str(), copy.text.as_str()),
            ("/a/list.txt", "two\n")
        );
        assert!(copy.kept.is_some());
        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1);
        fs::write(&path, "{\"source\": \"").unwrap();
        assert_eq!(load(&path), None);
    }

    #[test]
    fn where_nothing_can_be_written_the_error_says_what_follows() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let path = path(&file, Path::new("/a/list.txt"));
        let error = keep(&path, "/a/list.txt", "one\n").unwrap_err();
        assert!(error.to_string().contains("state_directory"), "{error}");
    }
}
