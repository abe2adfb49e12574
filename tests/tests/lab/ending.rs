//! The end is quick and leaves nothing behind.

use std::time::Duration;

use anyhow::Result;
use flowproof_tests::daemon::{Backend, Daemon};
use flowproof_tests::host::Host;
use flowproof_tests::lab::{self, Routed, TO_CLIENT};

use super::counts::{Background, serve, setup, with_background};

/// What is pinned on the host's BPF file system. A TCX link lives as long as a process or a pin holds it, so without
/// the daemon and without pins nothing can be attached.
fn pins(host: &Host) -> Vec<String> {
    let found = host.run(|| {
        std::fs::read_dir("/sys/fs/bpf").map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        })
    });
    found.expect("the lab's BPF file system")
}

#[test]
fn sigterm_ends_it_ebpf() -> Result<()> {
    sigterm_ends_it("sigterm_ends_it_ebpf", Backend::Ebpf)
}

#[test]
fn sigterm_ends_it_pcap() -> Result<()> {
    sigterm_ends_it("sigterm_ends_it_pcap", Backend::Pcap)
}

fn sigterm_ends_it(test: &str, backend: Backend) -> Result<()> {
    if lab::skipped(test) {
        return Ok(());
    }
    let lab = Routed::new()?;
    let _servers = serve(&lab)?;
    let background = Background::new(&lab);
    let mut daemon = Daemon::start(&lab.router, &setup(backend))?;
    if backend == Backend::Ebpf {
        assert!(
            !pins(&lab.router).is_empty(),
            "nothing is pinned while it runs, so this test would prove nothing"
        );
    }
    let (status, took) = with_background(&background, || {
        std::thread::sleep(Duration::from_millis(200));
        daemon.terminate()
    })?;
    assert!(status.success(), "{status}\n{}", daemon.stderr());
    assert!(took < Duration::from_secs(5), "the end took {took:?}");
    let left = pins(&lab.router);
    assert!(left.is_empty(), "still pinned: {left:?}");
    let disciplines = lab
        .router
        .command("tc", &["qdisc", "show", "dev", TO_CLIENT])?;
    assert!(!disciplines.contains("clsact"), "{disciplines}");
    Ok(())
}
