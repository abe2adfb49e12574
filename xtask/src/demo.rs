//! `cargo xtask demo`: builds the daemon and the demo program of the tests package, and becomes it, with root's rights.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Need},
    shell::{self, Privilege, cargo, say, target},
};

/// Runs the demo; `arguments` are the demo's own.
///
/// # Errors
/// Root's rights are not to be had, something doesn't build, or the demo failed.
pub(crate) fn demo(arguments: &[String]) -> Result<()> {
    let privilege = Privilege::of_this_user();
    if privilege == Privilege::None {
        bail!(
            "the demo makes network namespaces, which needs root: neither root nor sudo is to be had here"
        );
    }
    apt::ensure(&[
        Need::library("pcap", "libpcap-dev"),
        Need::program("ip", "iproute2"),
        Need::program("nft", "nftables"),
    ])?;
    say("building the daemon and the demo");
    shell::run(cargo().args([
        "build",
        "--package=flowproof",
        "--package=flowproof-tests",
        "--bin=flowproof",
        "--bin=demo",
    ]))?;
    let folder = target().join("debug");
    let daemon = folder.join("flowproof");
    let mut command = match privilege {
        Privilege::Sudo => {
            let mut command = Command::new("sudo");
            command.arg(format!("FLOWPROOF_BIN={}", daemon.display()));
            command.arg(folder.join("demo"));
            command
        }
        Privilege::Root | Privilege::None => Command::new(folder.join("demo")),
    };
    command.env("FLOWPROOF_BIN", &daemon).args(arguments);
    // The demo takes this program's place, so that Ctrl-C and the exit code are its own.
    Err(command.exec()).with_context(|| format!("can't start {}", shell::describe(&command)))
}
