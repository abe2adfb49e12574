//! Names over a restart: a file in the state directory with the names that the matrix needs and the addresses that they
//! stood for. Who asked for them is not in it. It replaces the one before in one step, and one that is broken or of
//! another version costs what it held, never the start.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::names::book::Remembered;

/// Its name in the state directory.
const FILE: &str = "names.json";
/// What a change of the format changes.
const VERSION: u32 = 1;
/// Bytes of the file. What does not fit was not used for longest.
const MOST_BYTES: usize = 64 << 20;
/// What the file ends with.
const END: &str = "\n]}\n";

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// It can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no file, or too large.
    #[error("{}: {reason}", path.display())]
    Strange {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// It was not written by this version.
    #[error("{}: not written by this version: {source}", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Where reading failed.
        source: serde_json::Error,
    },
}

/// Why names can't be kept.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: names can't be kept over a restart ({source}); make the folder writable, or name another by `state_directory` or --state-dir",
    path.display()
)]
pub(super) struct KeepError {
    path: PathBuf,
    source: io::Error,
}

/// The file as it stands on the disk. Times are nanoseconds since the Unix epoch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    #[serde(deserialize_with = "this_version")]
    #[expect(dead_code, reason = "it is checked while it is read")]
    version: u32,
    names: Vec<Remembered>,
}

fn this_version<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let version = u32::deserialize(deserializer)?;
    if version == VERSION {
        Ok(version)
    } else {
        Err(serde::de::Error::custom(format!(
            "version {version} instead of {VERSION}"
        )))
    }
}

/// Where the file is.
pub(super) fn path(state: &Path) -> PathBuf {
    state.join(FILE)
}

/// Reads the file; without one there are no names.
pub(super) fn load(path: &Path) -> Result<Vec<Remembered>, LoadError> {
    let read = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let strange = |reason| LoadError::Strange {
        path: path.to_owned(),
        reason,
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read(error)),
        // Opening a pipe would wait for its other end.
        Ok(metadata) if !metadata.is_file() => return Err(strange("it is no file")),
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    let limit = MOST_BYTES as u64 + 1;
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(read)?;
    if bytes.len() > MOST_BYTES {
        return Err(strange("it is larger than 64 MiB"));
    }
    serde_json::from_slice(&bytes)
        .map(|Stored { names, .. }| names)
        .map_err(|source| LoadError::Foreign {
            path: path.to_owned(),
            source,
        })
}

/// The content of a file of at most `most` bytes, a name a line. `names` come the least recently used first.
fn encode(names: &[Remembered], most: usize) -> io::Result<Vec<u8>> {
    let head = format!("{{\"version\":{VERSION},\"names\":[");
    let mut room = most.saturating_sub(head.len() + END.len());
    let mut lines = Vec::new();
    for name in names.iter().rev() {
        let line = serde_json::to_vec(name)?;
        // With the comma before it, which the first has not, and the end of a line.
        let comma = usize::from(!lines.is_empty());
        let Some(left) = room.checked_sub(line.len() + 1 + comma) else {
            break;
        };
        room = left;
        lines.push(line);
    }
    let mut content = head.into_bytes();
    for (position, line) in lines.iter().rev().enumerate() {
        content.extend_from_slice(if position == 0 { b"\n" } else { b",\n" });
        content.extend_from_slice(line);
    }
    content.extend_from_slice(END.as_bytes());
    Ok(content)
}

/// Writes the file. Whoever reads meanwhile finds the old one or the new one. Without names and without a file before,
/// nothing is written.
pub(super) fn keep(path: &Path, names: &[Remembered]) -> Result<(), KeepError> {
    let write = || -> io::Result<()> {
        if names.is_empty() && !path.try_exists()? {
            return Ok(());
        }
        let content = encode(names, MOST_BYTES)?;
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(&content)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    };
    write().map_err(|source| KeepError {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::book::RememberedAddress;

    fn name(number: u8) -> Remembered {
        Remembered {
            name: format!("n{number}.example"),
            alias: (number == 1).then(|| "alias.example".to_owned()),
            service: None,
            addresses: vec![RememberedAddress {
                address: [192, 0, 2, number].into(),
                told: 1_700_000_000_000_000_000,
                expires: 1_700_000_300_000_000_000,
            }],
        }
    }

    #[test]
    fn names_come_back_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder.path().join("state"));
        assert_eq!(load(&path).unwrap(), []);
        keep(&path, &[]).unwrap();
        assert!(!path.exists() && !path.parent().unwrap().exists());
        keep(&path, &[name(1), name(2)]).unwrap();
        assert_eq!(load(&path).unwrap(), [name(1), name(2)]);
        keep(&path, &[name(3)]).unwrap();
        assert_eq!(load(&path).unwrap(), [name(3)]);
        // What was known is known no more.
        keep(&path, &[]).unwrap();
        assert_eq!(load(&path).unwrap(), []);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_does_not_fit_was_not_used_for_longest() {
        let one = encode(&[name(2)], MOST_BYTES).unwrap().len();
        let both = encode(&[name(1), name(2)], MOST_BYTES).unwrap().len();
        for (most, expect) in [
            (both, &[name(1), name(2)][..]),
            (both - 1, &[name(2)]),
            (one, &[name(2)]),
            (one - 1, &[]),
            (0, &[]),
        ] {
            let bytes = encode(&[name(1), name(2)], most).unwrap();
            let stored: Stored = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(stored.names, expect, "{most}");
            assert!(bytes.len() <= most || expect.is_empty());
        }
    }

    #[test]
    fn what_is_no_such_file_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path());
        for (content, part) in [
            ("", "not written by this version"),
            ("{\"version\":1,\"names\":[", "not written by this version"),
            ("{\"version\":2,\"names\":[]}", "version 2 instead of 1"),
            ("{\"names\":[]}", "missing field `version`"),
            ("{\"version\":1,\"names\":[],\"more\":1}", "unknown field"),
            (
                "{\"version\":1,\"names\":[{\"name\":\"a\",\"addresses\":[{\"address\":\"x\",\"told\":1,\"expires\":2}]}]}",
                "not written by this version",
            ),
        ] {
            fs::write(&path, content).unwrap();
            let text = load(&path).unwrap_err().to_string();
            assert!(text.contains(part) && text.contains(FILE), "{text}");
        }
        File::create(&path)
            .unwrap()
            .set_len(MOST_BYTES as u64 + 1)
            .unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("64 MiB"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("no file"));
    }

    #[test]
    fn where_nothing_can_be_written_the_error_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = keep(&path(&file), &[name(1)]).unwrap_err();
        assert!(error.to_string().contains("state_directory"), "{error}");
    }
}
