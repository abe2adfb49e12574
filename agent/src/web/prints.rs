//! How files looked when they were read, so that a change is noticed. Each is looked at just before it is read: what changes
//! while it is read has changed since, and is read once more.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// When it was changed, its size, and which file it is, since a name can be given to another one.
type Print = Option<(SystemTime, u64, u64)>;

/// Files, and how each looked; none of one that can't be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prints(Vec<(PathBuf, Print)>);

impl Prints {
    /// Looks at a file that is about to be read.
    pub fn add(&mut self, path: &Path) {
        self.0.push((path.to_owned(), print(path)));
    }

    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }

    /// How the same files look now.
    #[must_use]
    pub fn again(&self) -> Self {
        let again = |(path, _): &(PathBuf, Print)| (path.clone(), print(path));
        Self(self.0.iter().map(again).collect())
    }
}

fn print(path: &Path) -> Print {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_comes_changes_or_goes_looks_different() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut prints = Prints::default();
        prints.add(&path);
        assert_eq!(prints, prints.again());
        std::fs::write(&path, "1").unwrap();
        let there = prints.again();
        assert_ne!(prints, there);
        assert_eq!(there, there.again());
        // Of the same size, by a name that is given to another file.
        std::fs::write(folder.path().join("b"), "2").unwrap();
        std::fs::rename(folder.path().join("b"), &path).unwrap();
        assert_ne!(there, there.again());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(prints, there.again());
    }
}
