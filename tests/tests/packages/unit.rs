//! The unit: how exposed systemd says it is, and what it must have to work at all.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use flowproof_tests::skip;

use super::{read, root};

/// The most exposure that is allowed, as `systemd-analyze security` counts: 0 (safe) to 10.
const MOST_EXPOSED: f64 = 2.0;

#[test]
fn the_unit_is_hardened() -> Result<()> {
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--no-pager"])
        .arg(root().join("deploy/systemd/flowproof.service"))
        .output();
    let Ok(output) = output else {
        skip::skip(
            "the_unit_is_hardened",
            "systemd-analyze is missing: `apt-get install systemd`",
        );
        return Ok(());
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unrecognized option") {
        skip::skip("the_unit_is_hardened", "systemd-analyze is older than 250");
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let exposure: f64 = text
        .lines()
        .find_map(|line| {
            line.split_once("Overall exposure level for flowproof.service: ")?
                .1
                .split(' ')
                .next()?
                .parse()
                .ok()
        })
        .with_context(|| format!("no overall level in {text}{said}"))?;
    ensure!(
        exposure <= MOST_EXPOSED,
        "{exposure} is more than {MOST_EXPOSED}:\n{text}"
    );
    Ok(())
}

#[test]
fn the_unit_and_what_goes_with_it_agree() -> Result<()> {
    let unit = read("deploy/systemd/flowproof.service")?;
    let value = |key: &str| {
        unit.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    assert_eq!(value("Type"), Some("notify-reload"));
    assert_eq!(value("CapabilityBoundingSet"), value("AmbientCapabilities"));
    let watchdog: u64 = value("WatchdogSec")
        .and_then(|limit| limit.strip_suffix('s')?.parse().ok())
        .context("no watchdog")?;
    ensure!(watchdog >= 30, "a busy machine is no reason for a restart");
    let user = value("User").context("runs as root")?;
    ensure!(read("deploy/package/sysusers.d/flowproof.conf")?.contains(&format!("u {user} ")));
    // systemd before 253 gets the same by other words.
    let old = read("deploy/systemd/flowproof-reload.conf")?;
    ensure!(
        old.contains("Type=notify\n") && old.contains("ExecReload=/bin/sh -c 'kill -HUP $MAINPID'")
    );
    let pins = read("deploy/systemd/flowproof-pins.service")?;
    ensure!(pins.contains(&format!(
        "-o {user} -g {user} -m 0700 /sys/fs/bpf/flowproof\n"
    )));
    ensure!(
        unit.contains("\nWants=flowproof-pins.service\n")
            && unit.contains("\nAfter=network.target flowproof-pins.service\n")
    );
    let start = value("ExecStart").context("nothing is started")?;
    let config = start.rsplit(' ').next().context("no configuration")?;
    let packed = read("agent/Cargo.toml")?;
    ensure!(
        packed.contains(&format!("conf-files = [\"{config}\"]")),
        "{config} is no conffile"
    );
    Ok(())
}
