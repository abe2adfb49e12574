//! `flowproof detach`: takes the kernel programs off that a daemon left behind, because it was told to or
//! because it was killed. Their counters go with them.

use std::path::PathBuf;

use super::{Error, Outcome, print};
use crate::capture::ebpf::pins;

/// Arguments of `flowproof detach`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Directory on bpffs below which daemons pin
    #[arg(long, value_name = "FOLDER", default_value = pins::DEFAULT_DIRECTORY)]
    pin_dir: PathBuf,
    /// For every network namespace, not only this one
    #[arg(long)]
    all: bool,
}

/// Removes pins and filters. Nothing there is fine.
pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let removed = pins::detach(&arguments.pin_dir, arguments.all)?;
    print(|out| {
        if removed.is_empty() {
            return writeln!(out, "nothing is attached");
        }
        removed
            .iter()
            .try_for_each(|what| writeln!(out, "removed {what}"))
    })?;
    Ok(Outcome::Fine)
}
