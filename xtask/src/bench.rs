//! `cargo xtask bench`: installs the programs that flowproof is measured beside, builds daemon and bench in release, and
//! runs the bench with root's rights.

use anyhow::{Result, bail};

use crate::{
    apt::{self, Need},
    shell::{Privilege, cargo, run, say, target},
};

/// The peers, and what the labs call.
const PEERS: [Need; 7] = [
    Need::program("softflowd", "softflowd"),
    Need::program("nfpcapd", "nfdump"),
    Need::program("argus", "argus-server"),
    Need::program("tcpdump", "tcpdump"),
    Need::program("iperf3", "iperf3"),
    Need::program("ip", "iproute2"),
    Need::program("nft", "nftables"),
];

/// Runs the bench; `arguments` are its own.
///
/// # Errors
/// Root's rights are not to be had, something doesn't build, or the bench failed.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let privilege = Privilege::of_this_user();
    if privilege == Privilege::None {
        bail!(
            "the bench loads kernel programs and makes network namespaces, which needs root: neither root nor sudo is to be had here"
        );
    }
    apt::ensure(&[Need::library("pcap", "libpcap-dev")])?;
    for peer in PEERS {
        if let Err(error) = apt::ensure(&[peer]) {
            // The bench names what it could not measure.
            say(format!("{error:#}"));
        }
    }
    say("building daemon and bench in release");
    // One after the other: built together, the daemon would get features of its dependencies that only the bench needs.
    for package in ["flowproof", "flowproof-bench"] {
        run(cargo().args(["build", "--release", "--package", package]))?;
    }
    let folder = target().join("release");
    let bench = folder.join("flowproof-bench");
    let Some(mut command) = privilege.command("env") else {
        bail!("no root");
    };
    // Sudo keeps no environment, so it is said on the command line.
    command
        .arg(format!(
            "FLOWPROOF_BIN={}",
            folder.join("flowproof").display()
        ))
        .arg(bench)
        .args(arguments);
    run(&mut command)
}
