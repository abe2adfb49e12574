//! What every bench needs to know: how often, where, and with which binary.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

/// How and where is measured.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Fewer and shorter runs: to try the harness itself.
    pub(crate) quick: bool,
    /// Runs of each.
    pub(crate) runs: usize,
    /// The top folder of the project.
    pub(crate) root: PathBuf,
    /// Folder for what is made once.
    pub(crate) cache: PathBuf,
    /// The daemon.
    pub(crate) flowproof: PathBuf,
    /// This program.
    pub(crate) own: PathBuf,
    /// Where what is measured runs: the last CPU, since interrupts like the first.
    pub(crate) cpu: usize,
}

impl Context {
    /// Finds everything out.
    pub(crate) fn new(quick: bool) -> Result<Self> {
        let own = std::env::current_exe()?;
        let Some(folder) = own.parent() else {
            bail!("{} lies in no folder", own.display());
        };
        let flowproof = std::env::var_os("FLOWPROOF_BIN")
            .map_or_else(|| folder.join("flowproof"), PathBuf::from);
        if !flowproof.is_file() {
            bail!(
                "{} is missing: run `cargo xtask bench`, which builds it",
                flowproof.display()
            );
        }
        Ok(Self {
            quick,
            runs: if quick { 2 } else { 5 },
            root: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.."),
            cache: folder.join("../bench"),
            flowproof,
            own,
            cpu: crate::measure::cpus() - 1,
        })
    }

    /// How long one run of what can be repeated goes on.
    pub(crate) const fn span(&self) -> Duration {
        Duration::from_millis(if self.quick { 100 } else { 500 })
    }
}
