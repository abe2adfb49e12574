//! The end is quick and leaves nothing behind.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

use anyhow::Result;
use flowproof_tests::daemon::{Backend, Daemon, Setup, binary, run_to_end};
use flowproof_tests::host::Host;
use flowproof_tests::lab::{self, Routed, TO_CLIENT};

use super::counts::{Background, serve, setup, with_background};

/// Whether a filter of clsact is attached, which outlives processes. The empty queueing discipline may stay: others
/// may have come to use it.
fn has_filter(host: &Host) -> Result<bool> {
    for direction in ["ingress", "egress"] {
        let filters = host.command("tc", &["filter", "show", "dev", TO_CLIENT, direction])?;
        if !filters.trim().is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

const CLSACT: &str = "capture: {ebpf: {attach: clsact}}";

#[test]
fn sigterm_ends_it_ebpf() -> Result<()> {
    sigterm_ends_it("sigterm_ends_it_ebpf", &setup(Backend::Ebpf))
}

#[test]
fn sigterm_ends_it_clsact() -> Result<()> {
    let setup = Setup {
        config: CLSACT,
        ..setup(Backend::Ebpf)
    };
    sigterm_ends_it("sigterm_ends_it_clsact", &setup)
}

#[test]
fn sigterm_ends_it_pcap() -> Result<()> {
    sigterm_ends_it("sigterm_ends_it_pcap", &setup(Backend::Pcap))
}

fn sigterm_ends_it(test: &str, setup: &Setup<'_>) -> Result<()> {
    if lab::skipped(test) {
        return Ok(());
    }
    let lab = Routed::new()?;
    let _servers = serve(&lab)?;
    let background = Background::new(&lab);
    let mut daemon = Daemon::start(&lab.router, setup)?;
    // What must go has to be there before, or this would prove nothing.
    assert_eq!(
        !lab.router.pins()?.is_empty(),
        setup.backend == Backend::Ebpf
    );
    assert_eq!(has_filter(&lab.router)?, setup.config == CLSACT);
    let (status, took) = with_background(&background, || {
        std::thread::sleep(Duration::from_millis(200));
        daemon.terminate()
    })?;
    assert!(status.success(), "{status}\n{}", daemon.stderr());
    assert!(took < Duration::from_secs(5), "the end took {took:?}");
    let left = lab.router.pins()?;
    assert!(left.is_empty(), "still pinned: {left:?}");
    assert!(!has_filter(&lab.router)?, "a filter is still attached");
    Ok(())
}

/// Programs of another version would go on running for nobody.
#[test]
fn what_another_version_left_is_taken_off() -> Result<()> {
    if lab::skipped("what_another_version_left_is_taken_off") {
        return Ok(());
    }
    let lab = Routed::new()?;
    let mut daemon = Daemon::start(&lab.router, &setup(Backend::Ebpf))?;
    daemon.kill()?;
    // What it left, as if by a version with another layout.
    let base = Path::new("/sys/fs/bpf/flowproof");
    let layouts = || {
        lab.router.run(|| -> io::Result<Vec<_>> {
            let entries = fs::read_dir(base)?.collect::<io::Result<Vec<_>>>()?;
            Ok(entries.iter().map(fs::DirEntry::path).collect())
        })
    };
    let own = layouts()?;
    lab.router
        .run(|| fs::rename(&own[0], base.join("layout-0")))?;
    let daemon = Daemon::start(&lab.router, &setup(Backend::Ebpf))?;
    assert_eq!(layouts()?, own, "{}", daemon.stderr());
    Ok(())
}

#[test]
fn detach_removes_what_a_killed_daemon_left() -> Result<()> {
    if lab::skipped("detach_removes_what_a_killed_daemon_left") {
        return Ok(());
    }
    let lab = Routed::new()?;
    for config in ["", CLSACT] {
        let mut daemon = Daemon::start(
            &lab.router,
            &Setup {
                config,
                ..setup(Backend::Ebpf)
            },
        )?;
        daemon.kill()?;
        assert!(
            !lab.router.pins()?.is_empty(),
            "SIGKILL took the pins along"
        );
        assert_eq!(has_filter(&lab.router)?, config == CLSACT);
        let mut detach = Command::new(binary());
        detach.arg("detach");
        let output = lab
            .router
            .run(|| run_to_end(&mut detach, Duration::from_secs(10)))?;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let left = lab.router.pins()?;
        assert!(left.is_empty(), "still pinned: {left:?}");
        assert!(!has_filter(&lab.router)?, "a filter is still attached");
    }
    Ok(())
}
