//! The .deb, and what is in it beside the binary.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::tools::{self, Tool};
use crate::shell::{cargo, run, target};

/// How the binary in the package was built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What is shipped.
    Release,
    /// What the tests have anyway.
    Dev,
}

impl Profile {
    /// Cargo's name.
    const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }

    /// Its folder below the target folder.
    const fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "debug",
        }
    }
}

/// Writes man pages and completions beside the binary, where the packagers look for them.
pub(crate) fn manual(profile: Profile) -> Result<()> {
    // With the whole workspace, as the tests are built: another selection has other features, and everything is built anew.
    let selection = match profile {
        Profile::Release => ["--package", "flowproof"].as_slice(),
        Profile::Dev => &["--workspace"],
    };
    run(cargo()
        .args(["build", "--quiet", "--locked", "--example", "manual"])
        .args(["--profile", profile.name()])
        .args(selection))
    .context("building what writes the man pages")?;
    let built = target().join(profile.folder());
    run(Command::new(built.join("examples/manual")).arg(built.join("manual")))
        .context("writing the man pages")
}

/// Packs what is built. `version`: another than that of the program.
pub(crate) fn deb(profile: Profile, version: Option<&str>, out: &Path) -> Result<()> {
    tools::ensure(Tool::Deb)?;
    let mut command = cargo();
    command
        .env("PATH", tools::path()?)
        .args([
            "deb",
            "--quiet",
            "--no-build",
            "--package",
            "flowproof",
            "--profile",
            profile.name(),
            "--output",
        ])
        .arg(out);
    if let Some(version) = version {
        command.args(["--deb-version", version]);
    }
    if profile == Profile::Dev {
        command.arg("--fast");
    }
    run(&mut command).context("making the .deb")
}
