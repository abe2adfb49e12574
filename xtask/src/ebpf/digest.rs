//! Ties the committed kernel object to its sources: a digest over them is written into the object, so that `--check`
//! finds an object that was not rebuilt after a change, whatever the clock or git says.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// The section that carries the note. aya maps sections by the start of their name (`.data`, `.rodata`, `.bss`, `maps`,
/// `.maps`, `license`, `version`, `.text`, `.BTF`) and passes over this one.
pub(super) const SECTION: &str = ".flowproof.digest";

const SOURCES: &str = "flowproof-sources-sha256:";
const TOOLCHAIN: &str = "flowproof-toolchain:";

/// What an object says of itself.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Note {
    /// SHA-256 of the sources, in hexadecimal.
    pub(super) sources: String,
    /// Compiler and linker.
    pub(super) toolchain: String,
}

impl Note {
    pub(super) fn to_text(&self) -> String {
        format!("{SOURCES}{}\n{TOOLCHAIN}{}\n", self.sources, self.toolchain)
    }

    /// Finds the note in an object's bytes; the keys are unlike anything else in it.
    pub(super) fn find(object: &[u8]) -> Option<Self> {
        let value = |key: &str| {
            let start = object
                .windows(key.len())
                .position(|window| window == key.as_bytes())?
                + key.len();
            let rest = object.get(start..)?;
            let end = rest.iter().position(|&byte| byte == b'\n')?;
            String::from_utf8(rest.get(..end)?.to_vec()).ok()
        };
        Some(Self {
            sources: value(SOURCES)?,
            toolchain: value(TOOLCHAIN)?,
        })
    }
}

/// SHA-256 over everything the kernel object is made of: path, length and content of each source file, in the order
/// of the paths, after the compiler's flags.
pub(super) fn of_sources(root: &Path, flags: &[&str]) -> Result<String> {
    let mut files = vec![
        PathBuf::from("agent-common/Cargo.toml"),
        PathBuf::from("agent-ebpf/Cargo.toml"),
        PathBuf::from("agent-ebpf/Cargo.lock"),
    ];
    collect(root, Path::new("agent-common/src"), &mut files)?;
    collect(root, Path::new("agent-ebpf/src"), &mut files)?;
    files.sort();

    let mut all = format!("flags {}\n", flags.join(" ")).into_bytes();
    for file in files {
        let content =
            fs::read(root.join(&file)).with_context(|| format!("can't read {}", file.display()))?;
        all.extend_from_slice(format!("file {} {}\n", file.display(), content.len()).as_bytes());
        all.extend_from_slice(&content);
    }
    sha256(&all)
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(root.join(folder))
        .with_context(|| format!("can't read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("can't read {}", folder.display()))?;
        let path = folder.join(entry.file_name());
        if entry
            .file_type()
            .with_context(|| format!("can't read {}", path.display()))?
            .is_dir()
        {
            collect(root, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// By the system's `sha256sum`: one digest a build is no reason for a dependency.
fn sha256(bytes: &[u8]) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("can't start sha256sum: install coreutils")?;
    // Taken out of the child, so that it is closed and sha256sum sees the end.
    let mut input = child
        .stdin
        .take()
        .context("sha256sum has no standard input")?;
    input.write_all(bytes).context("can't write to sha256sum")?;
    drop(input);
    let output = child
        .wait_with_output()
        .context("can't read from sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.split(' ').next() {
        Some(digest) if output.status.success() && digest.len() == 64 => Ok(digest.to_owned()),
        Some(_) | None => bail!("sha256sum failed: {}", output.status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_found_again_between_other_bytes() {
        let note = Note {
            sources: "ab".repeat(32),
            toolchain: "rustc 1.96.0, LLVM 22".to_owned(),
        };
        let mut object = b"\x7fELF\0\n".to_vec();
        object.extend_from_slice(note.to_text().as_bytes());
        object.extend_from_slice(b"\0\0\n");
        assert_eq!(Note::find(&object), Some(note));
    }

    #[test]
    fn an_object_without_a_note_has_none() {
        assert_eq!(
            Note::find(b"\x7fELF flowproof-sources-sha256:unended"),
            None
        );
    }

    #[test]
    fn the_digest_is_the_standard_one() {
        assert_eq!(
            sha256(b"abc").expect("sha256sum"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn the_digest_follows_content_names_and_flags() {
        let folder = std::env::temp_dir().join(format!("flowproof-digest-{}", std::process::id()));
        let write = |name: &str, text: &str| {
            let file = folder.join(name);
            fs::create_dir_all(file.parent().expect("parent")).expect("folder");
            fs::write(file, text).expect("file");
        };
        for name in [
            "agent-common/Cargo.toml",
            "agent-ebpf/Cargo.toml",
            "agent-ebpf/Cargo.lock",
        ] {
            write(name, "");
        }
        write("agent-common/src/lib.rs", "a");
        write("agent-ebpf/src/maps/mod.rs", "b");
        let first = of_sources(&folder, &["-C x"]).expect("digest");
        assert_eq!(of_sources(&folder, &["-C x"]).expect("digest"), first);
        assert_ne!(of_sources(&folder, &["-C y"]).expect("digest"), first);
        write("agent-ebpf/src/maps/mod.rs", "c");
        let changed = of_sources(&folder, &["-C x"]).expect("digest");
        assert_ne!(changed, first);
        fs::rename(
            folder.join("agent-ebpf/src/maps/mod.rs"),
            folder.join("agent-ebpf/src/maps/m.rs"),
        )
        .expect("rename");
        assert_ne!(of_sources(&folder, &["-C x"]).expect("digest"), changed);
        fs::remove_dir_all(&folder).expect("clean up");
    }
}
