//! The packagers, built by cargo into the target folder at fixed versions: what they write is part of what is shipped.

use std::{env, ffi::OsString, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::shell::{cargo, run, say, target};

/// A program of crates.io.
#[derive(Clone, Copy)]
pub(super) enum Tool {
    Deb,
    GenerateRpm,
}

impl Tool {
    const fn name(self) -> &'static str {
        match self {
            Self::Deb => "cargo-deb",
            Self::GenerateRpm => "cargo-generate-rpm",
        }
    }

    const fn version(self) -> &'static str {
        match self {
            Self::Deb => "3.8.0",
            Self::GenerateRpm => "0.21.1",
        }
    }
}

fn folder() -> PathBuf {
    target().join("tools")
}

/// The program, which is built unless it is there.
pub(super) fn ensure(tool: Tool) -> Result<PathBuf> {
    let (name, version) = (tool.name(), tool.version());
    let program = folder().join("bin").join(name);
    // A file of ours beside it, since not every one of them tells its version.
    let stamp = folder().join(format!("{name}.version"));
    if program.is_file() && fs::read_to_string(&stamp).is_ok_and(|text| text == version) {
        return Ok(program);
    }
    say(format!("building {name} {version}"));
    // Without optimisation: it packs one file in a second, and is built in half the time.
    run(cargo()
        .args([
            "install",
            "--quiet",
            "--locked",
            "--debug",
            "--force",
            "--version",
            version,
            "--root",
        ])
        .arg(folder())
        .arg("--target-dir")
        .arg(folder().join("build"))
        .arg(name)
        .env("CARGO_PROFILE_DEV_DEBUG", "false"))?;
    fs::write(&stamp, version).with_context(|| format!("can't write {}", stamp.display()))?;
    Ok(program)
}

/// `PATH` with the tools before everything else, so that cargo finds them as commands of its own.
pub(super) fn path() -> Result<OsString> {
    let old = env::var_os("PATH").unwrap_or_default();
    env::join_paths(std::iter::once(folder().join("bin")).chain(env::split_paths(&old)))
        .context("PATH has a folder with a colon in its name")
}
