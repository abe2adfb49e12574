//! Suggestions as one patch of all files: paths are below the working directory, or below `/` if one of them is elsewhere.
//! What a person has to know stands before the first file, where `patch` and `git apply` read over it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Error, Page};
use crate::suggest::patch::{Wanted, change, create, rows};
use crate::yaml::LoadError;

/// Writes the patch; without any change, only remarks.
pub(super) fn write(page: &Page, remove: bool, out: &mut Vec<u8>) -> Result<io::Result<()>, Error> {
    let mut wanted: BTreeMap<&str, Wanted<'_>> = BTreeMap::new();
    for role in &page.suggestions.roles {
        wanted.entry(&role.system).or_default().roles.push(role);
    }
    for proposal in &page.suggestions.proposals {
        wanted
            .entry(&proposal.system)
            .or_default()
            .proposals
            .push(proposal);
    }
    if let Some(unused) = page.unused.as_ref().filter(|_| remove) {
        for removal in &unused.removals {
            wanted
                .entry(&removal.system)
                .or_default()
                .removals
                .push(removal);
        }
    }
    let files: Vec<(&str, &Path)> = wanted
        .keys()
        .map(|system| (*system, page.files.of(system)))
        .collect();
    let base = Base::of(files.iter().map(|(_, file)| *file));
    let mut remarks: Vec<String> = page.hints.clone();
    if base.is_root {
        remarks.push("paths are below /: apply it there".to_owned());
    }
    let mut diffs = String::new();
    for (system, file) in files {
        let Some(wanted) = wanted.get(system) else {
            continue;
        };
        let path = base.path(file);
        if file == page.files.local && !page.files.local_exists {
            diffs.push_str(&create(&path, system, wanted).diff);
            continue;
        }
        let text = fs::read_to_string(file).map_err(|source| LoadError::from_io(file, source))?;
        match change(&path, &text, wanted) {
            Ok((change, notes)) => {
                remarks.extend(notes.iter().map(ToString::to_string));
                diffs.push_str(&change.diff);
            }
            Err(error) => {
                remarks.push(error.to_string());
                remarks.extend(rows(wanted).lines().map(str::to_owned));
            }
        }
    }
    if diffs.is_empty() {
        remarks.push("nothing to change".to_owned());
    }
    Ok(finish(&remarks, &diffs, out))
}

fn finish(remarks: &[String], diffs: &str, out: &mut Vec<u8>) -> io::Result<()> {
    for remark in remarks {
        writeln!(out, "# {remark}")?;
    }
    out.write_all(diffs.as_bytes())
}

/// What the paths of a patch are below.
struct Base {
    folder: PathBuf,
    is_root: bool,
}

impl Base {
    fn of<'a>(files: impl Iterator<Item = &'a Path>) -> Self {
        let root = Self {
            folder: PathBuf::from("/"),
            is_root: true,
        };
        let Ok(folder) = std::env::current_dir().and_then(|folder| folder.canonicalize()) else {
            return root;
        };
        let inside = files.map(whole).all(|file| file.starts_with(&folder));
        if inside {
            Self {
                folder,
                is_root: false,
            }
        } else {
            root
        }
    }

    fn path(&self, file: &Path) -> String {
        let whole = whole(file);
        whole
            .strip_prefix(&self.folder)
            .unwrap_or(&whole)
            .display()
            .to_string()
    }
}

/// The path without links and dots. A file that is to be made has none; its folder has.
fn whole(file: &Path) -> PathBuf {
    if let Ok(path) = file.canonicalize() {
        return path;
    }
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    };
    match (folder.canonicalize(), file.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => file.to_owned(),
    }
}
