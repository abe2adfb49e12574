//! What an operator gets for a mistake: one clear message that names the object and the remedy, the right exit code,
//! and nothing half-started.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use flowproof_tests::daemon::{Backend, binary, run_to_end};
use flowproof_tests::frame;
use flowproof_tests::host::Host;
use flowproof_tests::lab;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);

const MATRIX: &str = "
system: lab
title: Lab
roles: {client: {title: Client}, server: {title: Server}}
requirements:
  - {id: asks, from: client, to: server, services: [udp/53]}
";
const SITE: &str = "
site: lab
systems: [lab]
roles: {lab/client: [10.0.0.1], lab/server: [10.0.0.2]}
";

/// A folder with a good matrix and site.
fn folder() -> Result<TempDir> {
    let folder = TempDir::with_prefix("flowproof-cli-")?;
    // Other users' daemons read it too.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    fs::write(folder.path().join("matrix.yaml"), MATRIX)?;
    fs::write(folder.path().join("site.yaml"), SITE)?;
    Ok(folder)
}

fn flowproof(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(binary());
    command
        .current_dir(folder)
        .args(arguments.split_whitespace());
    command
}

/// Runs `command` and holds it to `code` and to a message with all of `parts`.
#[track_caller]
fn check(mut command: Command, code: i32, parts: &[&str]) {
    let output = run_to_end(&mut command, LIMIT).expect("it ends by itself");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{command:?} said:\n{said}"
    );
    for part in parts {
        assert!(
            said.to_lowercase().contains(&part.to_lowercase()),
            "`{part}` is missing in what {command:?} said:\n{said}"
        );
    }
    assert!(!said.contains("panicked"), "{said}");
    let messages = said
        .lines()
        .filter(|line| line.starts_with("flowproof: ") || line.contains("ERROR"))
        .count();
    assert!(messages <= 1, "more than one message:\n{said}");
}

/// A classic pcap file with `frames`, little-endian, microseconds.
fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2, 0, 4, 0]);
    file.extend([0; 8]);
    file.extend(65535_u32.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap_or(0).to_le_bytes();
        file.extend(1_700_000_000_u32.to_le_bytes());
        file.extend([0; 4]);
        file.extend(length);
        file.extend(length);
        file.extend(frame);
    }
    file
}

fn two_frames() -> Vec<Vec<u8>> {
    let (a, b) = ("10.0.0.1", "10.0.0.2");
    let frame = |source: String, target: String| {
        let (source, target): (std::net::SocketAddr, std::net::SocketAddr) = (
            source.parse().expect("an address"),
            target.parse().expect("an address"),
        );
        let datagram = frame::udp(source, target, b"question");
        let packet = frame::ip(source.ip(), target.ip(), 17, &datagram);
        frame::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], &[], &packet)
    };
    vec![
        frame(format!("{a}:4000"), format!("{b}:53")),
        frame(format!("{b}:53"), format!("{a}:4000")),
    ]
}

#[test]
fn a_good_capture_file_is_no_error() -> Result<()> {
    let folder = folder()?;
    fs::write(folder.path().join("good.pcap"), pcap(&two_frames()))?;
    let replay = "replay --matrix matrix.yaml --site site.yaml --format json";
    check(
        flowproof(folder.path(), &format!("{replay} good.pcap")),
        0,
        &[],
    );
    // By standard input, and held to the matrix.
    let mut command = flowproof(
        folder.path(),
        &format!("{replay} --fail-on unexpected,blocked,silent -"),
    );
    command.stdin(fs::File::open(folder.path().join("good.pcap"))?);
    check(command, 0, &[]);
    Ok(())
}

#[test]
fn traffic_that_falls_short_is_exit_code_1() -> Result<()> {
    let folder = folder()?;
    fs::write(folder.path().join("empty.pcap"), pcap(&[]))?;
    check(
        flowproof(
            folder.path(),
            "replay --matrix matrix.yaml --site site.yaml --fail-on silent empty.pcap",
        ),
        1,
        &[],
    );
    Ok(())
}

#[test]
fn bad_capture_files_are_named() -> Result<()> {
    let folder = folder()?;
    let whole = pcap(&two_frames());
    fs::write(folder.path().join("cut.pcap"), &whole[..whole.len() - 20])?;
    fs::write(folder.path().join("header.pcap"), &whole[..10])?;
    fs::write(
        folder.path().join("foreign.pcap"),
        "PK\u{3}\u{4} this is a letter to my aunt",
    )?;
    fs::write(folder.path().join("nothing.pcap"), "")?;
    for file in [
        "cut.pcap",
        "header.pcap",
        "foreign.pcap",
        "nothing.pcap",
        "absent.pcap",
    ] {
        check(
            flowproof(folder.path(), &format!("replay {file}")),
            2,
            &[file],
        );
    }
    Ok(())
}

#[test]
fn a_bad_matrix_is_exit_code_1_with_its_place() -> Result<()> {
    let folder = folder()?;
    fs::write(
        folder.path().join("bad.yaml"),
        MATRIX.replace("udp/53", "udp/53000000"),
    )?;
    fs::write(
        folder.path().join("broken.yaml"),
        "system: lab\ntitle: [Lab\n",
    )?;
    fs::write(folder.path().join("good.pcap"), pcap(&two_frames()))?;
    for (file, place) in [("bad.yaml", "bad.yaml:6:"), ("broken.yaml", "broken.yaml:")] {
        for verb in [
            format!("run --matrix {file} --site site.yaml --listen 127.0.0.1:0"),
            format!("replay --matrix {file} --site site.yaml good.pcap"),
        ] {
            check(flowproof(folder.path(), &verb), 1, &[place]);
        }
    }
    Ok(())
}

#[test]
fn bad_usage_is_exit_code_2() -> Result<()> {
    let folder = folder()?;
    fs::write(
        folder.path().join("config.yaml"),
        "capture: {backend: magic}",
    )?;
    for (arguments, parts) in [
        ("run --no-such-flag", &["--no-such-flag"][..]),
        ("run --capture magic", &["magic", "ebpf", "pcap", "auto"]),
        ("run --listen nowhere", &["nowhere"]),
        ("run --config config.yaml", &["config.yaml:1:", "magic"]),
        ("run --config absent.yaml", &["absent.yaml"]),
        (
            "run --matrix absent.yaml --site site.yaml",
            &["absent.yaml"],
        ),
        (
            "run --matrix matrix.yaml --site absent.yaml",
            &["absent.yaml"],
        ),
        ("frobnicate", &["frobnicate"]),
    ] {
        check(flowproof(folder.path(), arguments), 2, parts);
    }
    Ok(())
}

/// A folder that another user may enter, with a copy of the binary that this user may run.
fn for_nobody(folder: &Path) -> Result<PathBuf> {
    let copy = folder.join("flowproof");
    fs::copy(binary(), &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

fn as_nobody(folder: &Path, program: &Path, arguments: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .current_dir(folder)
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program)
        .args(arguments.split_whitespace());
    command
}

#[test]
fn an_unreadable_file_is_named() -> Result<()> {
    if lab::skipped("an_unreadable_file_is_named") {
        return Ok(());
    }
    let folder = folder()?;
    let program = for_nobody(folder.path())?;
    fs::write(folder.path().join("secret.pcap"), pcap(&two_frames()))?;
    for file in ["secret.pcap", "matrix.yaml"] {
        let path = folder.path().join(file);
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    for (arguments, file) in [
        ("replay secret.pcap", "secret.pcap"),
        ("run --matrix matrix.yaml --site site.yaml", "matrix.yaml"),
    ] {
        check(
            as_nobody(folder.path(), &program, arguments),
            2,
            &[file, "permission denied"],
        );
    }
    Ok(())
}

#[test]
fn a_missing_capability_is_named() -> Result<()> {
    if lab::skipped("a_missing_capability_is_named") {
        return Ok(());
    }
    let folder = folder()?;
    let program = for_nobody(folder.path())?;
    let host = Host::new("host")?;
    for (backend, capability) in [("ebpf", "CAP_BPF"), ("pcap", "CAP_NET_RAW")] {
        let arguments = format!(
            "run --matrix matrix.yaml --site site.yaml --capture {backend} --interface lo --listen 127.0.0.1:9871"
        );
        host.run(|| {
            check(
                as_nobody(folder.path(), &program, &arguments),
                2,
                &["permission denied", capability, "root"],
            );
        });
    }
    Ok(())
}

#[track_caller]
fn nothing_is_left(host: &Host) {
    assert_eq!(host.pins().expect("its pins"), Vec::<String>::new());
}

#[test]
fn an_unknown_interface_is_named() -> Result<()> {
    if lab::skipped("an_unknown_interface_is_named") {
        return Ok(());
    }
    let folder = folder()?;
    let host = Host::new("host")?;
    for backend in [Backend::Ebpf, Backend::Pcap] {
        host.run(|| {
            check(
                flowproof(
                    folder.path(),
                    &format!(
                        "run --matrix matrix.yaml --site site.yaml --capture {} --interface nope0",
                        backend.name()
                    ),
                ),
                2,
                &["nope0", "lo"],
            );
        });
        nothing_is_left(&host);
    }
    Ok(())
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    if lab::skipped("a_port_in_use_is_named") {
        return Ok(());
    }
    let folder = folder()?;
    let host = Host::new("host")?;
    let _taken: TcpListener = host.listen(([127, 0, 0, 1], 9871))?;
    for backend in [Backend::Ebpf, Backend::Pcap] {
        host.run(|| {
            check(
                flowproof(
                    folder.path(),
                    &format!(
                        "run --matrix matrix.yaml --site site.yaml --capture {} --interface lo --listen 127.0.0.1:9871",
                        backend.name()
                    ),
                ),
                2,
                &["127.0.0.1:9871", "in use", "--listen"],
            );
        });
        nothing_is_left(&host);
    }
    Ok(())
}
