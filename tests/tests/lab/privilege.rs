//! The daemon gives up what it does not need, works without being root, and names what is missing.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use flowproof_tests::daemon::{Backend, Daemon, Setup, USER, as_user, binary, run_to_end};
use flowproof_tests::host::{Host, wire};
use flowproof_tests::lab;
use flowproof_tests::metrics::Metrics;
use flowproof_tests::traffic::{Manner, ask, serve_udp};

use super::{assert_soon, traffic};

const MATRIX: &str = "
system: lab
title: Lab
roles: {guest: {title: Guest}, host: {title: Host}}
requirements:
  - {id: asks, from: guest, to: host, services: [udp/7000]}
";
const MORE: &str = "  - {id: calls, from: guest, to: host, services: [tcp/7001]}\n";
const SITE: &str = "
site: lab
systems: [lab]
roles: {lab/guest: [10.60.0.2], lab/host: [10.60.0.1]}
";

/// Numbers of capabilities (`linux/capability.h`); not every `setpriv` knows the newer ones by name.
const NET_ADMIN: (&str, u32) = ("net_admin", 12);
const NET_RAW: (&str, u32) = ("net_raw", 13);
const PERFMON: (&str, u32) = ("cap_38", 38);
const BPF: (&str, u32) = ("cap_39", 39);

/// What a back end needs.
fn needed(backend: Backend) -> Vec<(&'static str, u32)> {
    match backend {
        Backend::Ebpf | Backend::Auto => vec![BPF, NET_ADMIN, PERFMON],
        Backend::Pcap => vec![NET_RAW],
    }
}

fn names(capabilities: &[(&'static str, u32)]) -> Vec<&'static str> {
    capabilities.iter().map(|(name, _)| *name).collect()
}

fn setup(backend: Backend) -> Setup<'static> {
    Setup {
        backend,
        matrix: MATRIX,
        site: SITE,
        config: "",
        interfaces: &["guest*"],
    }
}

/// A host with one guest.
fn scene() -> Result<(Arc<Host>, Arc<Host>)> {
    let host = Host::new("host")?;
    let guest = guest(&host, "guest0")?;
    Ok((host, guest))
}

/// The same with a folder for pins that belongs to the daemon's user.
fn scene_for_user() -> Result<(Arc<Host>, Arc<Host>)> {
    let (host, guest) = scene()?;
    host.run(|| -> Result<()> {
        // As service managers mount it, but that others may pass.
        fs::set_permissions("/sys/fs/bpf", fs::Permissions::from_mode(0o711))?;
        fs::create_dir("/sys/fs/bpf/flowproof")?;
        chown("/sys/fs/bpf/flowproof", Some(USER), Some(USER))?;
        Ok(())
    })?;
    Ok((host, guest))
}

/// A guest at the other end of the host's interface `name`.
fn guest(host: &Arc<Host>, name: &str) -> Result<Arc<Host>> {
    let guest = Host::new("guest")?;
    wire(&guest, "uplink", host, name)?;
    guest.ip("addr add 10.60.0.2/24 dev uplink")?;
    Ok(guest)
}

/// Ten questions and answers over one interface of the host.
fn talk(host: &Host, guest: &Host, name: &str) -> Result<()> {
    host.ip(&format!("addr add 10.60.0.1/24 dev {name}"))?;
    let _server = serve_udp(host.udp(([10, 60, 0, 1], 7000))?, Manner::Echo)?;
    let socket = guest.udp(([10, 60, 0, 2], 0))?;
    socket.connect("10.60.0.1:7000")?;
    for _ in 0..10 {
        assert!(ask(&socket, b"question", Duration::from_secs(1))?);
    }
    host.ip(&format!("addr del 10.60.0.1/24 dev {name}"))?;
    Ok(())
}

fn packets(metrics: &Metrics) -> (u64, u64) {
    let packets = |direction| traffic(metrics, "asks", "udp/7000", direction).0;
    (packets("to_responder"), packets("to_initiator"))
}

fn requirements(metrics: &Metrics) -> (u64, usize) {
    (
        metrics.count("flowproof_matrix_last_reload_successful", &[]),
        metrics.matching("flowproof_requirement_info", &[]).count(),
    )
}

fn layers(metrics: &Metrics) -> [u64; 4] {
    ["capabilities", "no_new_privs", "landlock", "seccomp"]
        .map(|layer| metrics.count("flowproof_sandbox", &[("layer", layer)]))
}

/// Holds every thread of the daemon to what is needed, by the kernel's own account.
#[track_caller]
fn assert_confined(daemon: &Daemon, backend: Backend, root: bool) -> Result<()> {
    let mask = |capabilities: &[(&str, u32)]| {
        capabilities
            .iter()
            .fold(0_u64, |bits, (_, number)| bits | 1 << number)
    };
    let allowed = mask(&needed(backend));
    let mut captures = 0;
    for task in fs::read_dir(format!("/proc/{}/task", daemon.process()))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let value = |key: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
                .map(str::trim)
                .with_context(|| format!("no {key} in {status}"))
        };
        let set = |key: &str| Ok::<_, anyhow::Error>(u64::from_str_radix(value(key)?, 16)?);
        let name = value("Name")?;
        let capture = name == "capture";
        captures += usize::from(capture);
        let expect = if capture { allowed } else { 0 };
        assert_eq!(set("CapPrm")?, expect, "{name}: permitted");
        assert_eq!(set("CapEff")?, expect, "{name}: effective");
        assert_eq!(set("CapInh")?, 0, "{name}: inheritable");
        assert_eq!(set("CapAmb")?, 0, "{name}: ambient");
        // Who may not change the set keeps the one that it was started with.
        let bounding = if root { 0 } else { allowed };
        assert_eq!(set("CapBnd")?, bounding, "{name}: bounding");
        assert_eq!(value("NoNewPrivs")?, "1", "{name}");
        assert_eq!(value("Seccomp")?, "2", "{name}");
    }
    assert_eq!(captures, 1, "capture threads");
    Ok(())
}

#[test]
fn root_gives_up_what_is_not_needed_ebpf() -> Result<()> {
    works("root_gives_up_what_is_not_needed_ebpf", Backend::Ebpf, true)
}

#[test]
fn root_gives_up_what_is_not_needed_pcap() -> Result<()> {
    works("root_gives_up_what_is_not_needed_pcap", Backend::Pcap, true)
}

#[test]
fn it_works_without_being_root_ebpf() -> Result<()> {
    works("it_works_without_being_root_ebpf", Backend::Ebpf, false)
}

#[test]
fn it_works_without_being_root_pcap() -> Result<()> {
    works("it_works_without_being_root_pcap", Backend::Pcap, false)
}

/// Verdicts, a reload, an interface that appears, a restart, and the end, all of it confined.
fn works(test: &str, backend: Backend, root: bool) -> Result<()> {
    if lab::skipped(test) {
        return Ok(());
    }
    let (host, first) = if root { scene()? } else { scene_for_user()? };
    let mut daemon = if root {
        Daemon::start(&host, &setup(backend))?
    } else {
        Daemon::start_as_user(&host, &setup(backend), &names(&needed(backend)))?
    };
    assert_eq!(layers(&daemon.metrics()?), [1; 4], "{}", daemon.stderr());
    assert_confined(&daemon, backend, root)?;
    talk(&host, &first, "guest0")?;
    assert_soon(&daemon, "the first guest", &(10, 10), packets);

    daemon.reload("matrix.yaml", &format!("{MATRIX}{MORE}"))?;
    assert_soon(&daemon, "a row more", &(1, 2), requirements);
    let second = guest(&host, "guest1")?;
    assert_soon(&daemon, "another interface", &1, |metrics| {
        metrics.count(
            "flowproof_capture_interface_attached",
            &[("interface", "guest1")],
        )
    });
    talk(&host, &second, "guest1")?;
    assert_soon(&daemon, "the second guest", &(20, 20), packets);
    assert_soon(&daemon, "the ledger", &1, |metrics| {
        metrics.count("flowproof_ledger_up", &[])
    });
    assert_confined(&daemon, backend, root)?;

    daemon.kill()?;
    talk(&host, &first, "guest0")?;
    daemon.start_again()?;
    // Programs that are pinned go on counting; libpcap begins anew.
    let expect = if backend == Backend::Pcap { 0 } else { 30 };
    assert_soon(&daemon, "after a restart", &(expect, expect), packets);
    assert_confined(&daemon, backend, root)?;
    let (status, _) = daemon.terminate()?;
    assert!(status.success(), "{status}");
    let left = host.run(|| fs::read_dir("/sys/fs/bpf/flowproof").map(Iterator::count));
    assert_eq!(left.unwrap_or(0), 0, "pins are left");
    let said = daemon.stderr();
    for word in ["not permitted", "denied", "not implemented", "WARN"] {
        assert!(!said.contains(word), "{word}:\n{said}");
    }
    Ok(())
}

#[test]
fn a_missing_capability_is_named_alone() -> Result<()> {
    if lab::skipped("a_missing_capability_is_named_alone") {
        return Ok(());
    }
    let (host, _guest) = scene_for_user()?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("flowproof");
    fs::copy(binary(), &program)?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    fs::write(folder.path().join("matrix.yaml"), MATRIX)?;
    fs::write(folder.path().join("site.yaml"), SITE)?;
    let all = ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_NET_RAW"];
    for (backend, missing, name) in [
        (Backend::Ebpf, BPF, "CAP_BPF"),
        (Backend::Ebpf, NET_ADMIN, "CAP_NET_ADMIN"),
        (Backend::Ebpf, PERFMON, "CAP_PERFMON"),
        (Backend::Pcap, NET_RAW, "CAP_NET_RAW"),
    ] {
        let mut left = needed(backend);
        left.retain(|one| *one != missing);
        let prefix = as_user(&names(&left));
        let mut command = Command::new(&prefix[0]);
        command
            .args(&prefix[1..])
            .arg(&program)
            .args(["run", "--matrix", "matrix.yaml", "--site", "site.yaml"])
            .args(["--capture", backend.name(), "--interface", "guest0"])
            .args(["--state-dir", "state"])
            .current_dir(folder.path());
        let output = host.run(|| run_to_end(&mut command, Duration::from_secs(20)))?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains(&format!("needs {name};")), "{name}: {said}");
        for other in all.into_iter().filter(|other| *other != name) {
            assert!(!said.contains(other), "{name}: {said}");
        }
    }
    Ok(())
}

#[test]
fn without_a_capability_libpcap_is_taken_with_the_reason() -> Result<()> {
    if lab::skipped("without_a_capability_libpcap_is_taken_with_the_reason") {
        return Ok(());
    }
    let (host, guest) = scene_for_user()?;
    let have = names(&[BPF, NET_ADMIN, NET_RAW]);
    let daemon = Daemon::start_as_user(&host, &setup(Backend::Auto), &have)?;
    assert_confined_by_auto(&daemon)?;
    talk(&host, &guest, "guest0")?;
    assert_soon(&daemon, "by libpcap", &(10, 10), packets);
    let said = daemon.stderr();
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("CAP_PERFMON"))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains("watching guest0 by pcap"), "{said}");
    Ok(())
}

/// The capture thread has what libpcap needs, although there was more.
fn assert_confined_by_auto(daemon: &Daemon) -> Result<()> {
    for task in fs::read_dir(format!("/proc/{}/task", daemon.process()))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        if status.starts_with("Name:\tcapture\n") {
            let expect = format!("CapPrm:\t{:016x}\n", 1_u64 << NET_RAW.1);
            assert!(status.contains(&expect), "{status}");
            return Ok(());
        }
    }
    anyhow::bail!("there is no capture thread")
}

#[test]
fn root_keeps_what_files_of_others_need() -> Result<()> {
    if lab::skipped("root_keeps_what_files_of_others_need") {
        return Ok(());
    }
    let (host, guest) = scene_for_user()?;
    let daemon = Daemon::start(&host, &setup(Backend::Ebpf))?;
    assert_eq!(layers(&daemon.metrics()?), [1; 4], "{}", daemon.stderr());
    let said = daemon.stderr();
    assert!(
        said.contains("CAP_DAC_OVERRIDE (to use /sys/fs/bpf/flowproof as this user)"),
        "{said}"
    );
    assert!(!said.contains("CAP_DAC_READ_SEARCH"), "{said}");
    talk(&host, &guest, "guest0")?;
    assert_soon(&daemon, "it is pinned and counts", &(10, 10), packets);
    assert!(said.contains("(the kernel takes the programs)"), "{said}");
    Ok(())
}

#[test]
fn what_a_reload_can_not_reach_is_named_with_the_remedy() -> Result<()> {
    let test = "what_a_reload_can_not_reach_is_named_with_the_remedy";
    if lab::skipped(test) {
        return Ok(());
    }
    let (host, guest) = scene()?;
    let elsewhere = tempfile::tempdir()?;
    let other = elsewhere.path().join("other.yaml");
    fs::write(&other, format!("{MATRIX}{MORE}"))?;
    let setup = Setup {
        config: "draft: []\n",
        ..setup(Backend::Ebpf)
    };
    let mut daemon = Daemon::start(&host, &setup)?;
    // The matrix is given by a flag, which overrides the file; a draft is not.
    daemon.reload("config.yaml", &format!("draft: [{}]\n", other.display()))?;
    assert_soon(&daemon, "the matrix before", &(0, 1), requirements);
    let said = daemon.stderr();
    let path = other.display().to_string();
    assert!(
        said.contains(&path) && said.contains("restart flowproof"),
        "{said}"
    );
    talk(&host, &guest, "guest0")?;
    assert_soon(&daemon, "still judged", &(10, 10), packets);
    // Files of folders that were there may be replaced, as editors do.
    let matrix = daemon.folder().join("matrix.yaml");
    fs::write(daemon.folder().join("new"), format!("{MATRIX}{MORE}"))?;
    fs::rename(daemon.folder().join("new"), matrix)?;
    daemon.reload("config.yaml", "draft: []\n")?;
    assert_soon(
        &daemon,
        "the file that was put there",
        &(1, 2),
        requirements,
    );
    // The remedy works.
    fs::write(
        daemon.folder().join("config.yaml"),
        format!("draft: [{}]\n", other.display()),
    )?;
    daemon.terminate()?;
    daemon.start_again()?;
    assert_eq!(requirements(&daemon.metrics()?), (1, 2));
    Ok(())
}

#[test]
fn it_can_be_left_out() -> Result<()> {
    if lab::skipped("it_can_be_left_out") {
        return Ok(());
    }
    let (host, _guest) = scene()?;
    let setup = Setup {
        config: "security: {sandbox: false}\n",
        ..setup(Backend::Pcap)
    };
    let daemon = Daemon::start(&host, &setup)?;
    assert_eq!(layers(&daemon.metrics()?), [0; 4]);
    assert!(
        daemon.stderr().contains("not confined"),
        "{}",
        daemon.stderr()
    );
    Ok(())
}
