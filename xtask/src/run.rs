//! `cargo xtask run`: from a checkout to the daemon watching this machine's real traffic, in one command.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    apt::{self, Need},
    shell::{self, Privilege, say},
};

/// Builds the daemon and becomes it, so that signals and the exit code are its own.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    apt::ensure(&[Need::library("pcap", "libpcap-dev")])?;
    say("building the daemon");
    shell::run(shell::cargo().args(["build", "--release", "--package", "flowproof"]))?;

    let daemon = shell::target().join("release/flowproof");
    let mut command = match Privilege::of_this_user() {
        Privilege::Root => Command::new(&daemon),
        Privilege::Sudo => {
            say("capturing needs root: starting the daemon by sudo");
            let mut command = Command::new("sudo");
            command.arg(&daemon);
            command
        }
        Privilege::None => {
            say(
                "neither root nor sudo here: the daemon starts with this user's rights and says what it can't do",
            );
            Command::new(&daemon)
        }
    };
    command.arg("run").args(arguments);
    if arguments.is_empty() {
        say("watching this machine with the built-in matrix: what a Linux host needs anyway");
        say("look at http://127.0.0.1:9871/ and http://127.0.0.1:9871/metrics; Ctrl-C ends it");
    } else {
        say(format!("starting {}", shell::describe(&command)));
    }
    Err(command.exec()).with_context(|| format!("can't start {}", shell::describe(&command)))
}
