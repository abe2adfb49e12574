//! What an intruder would do is refused by the kernel: each attempt is made in a process of its own that confines itself as the
//! daemon does. And the code that reads what strangers send has no `unsafe` in it.

use std::ffi::CString;
use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use flowproof::capture::Backend;
use flowproof::config::Config;
use flowproof::privilege;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Names the attempt, in a process that was started for it.
const ATTEMPT: &str = "FLOWPROOF_TEST_ATTEMPT";
/// Where such a process may write.
const STATE: &str = "FLOWPROOF_TEST_STATE";
/// `SIGSYS`.
const BAD_CALL: i32 = 31;

/// What comes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The process is ended by the kernel.
    Killed,
    /// The call fails, with this error.
    Refused(Errno),
    /// It works, for the daemon needs it.
    Works,
}

fn io<T>(result: nix::Result<T>) -> std::io::Result<()> {
    result.map(drop).map_err(Into::into)
}

type Attempt = (&'static str, Fate, fn() -> std::io::Result<()>);

const ATTEMPTS: &[Attempt] = &[
    ("execve", Fate::Killed, || {
        Err(Command::new("/bin/true").exec())
    }),
    ("ptrace", Fate::Killed, || io(nix::sys::ptrace::traceme())),
    ("init_module", Fate::Killed, || {
        io(nix::kmod::init_module(b"no module", &CString::default()))
    }),
    ("finit_module", Fate::Killed, || {
        let file = fs::File::open("/proc/self/status")?;
        let flags = nix::kmod::ModuleInitFlags::empty();
        io(nix::kmod::finit_module(file, &CString::default(), flags))
    }),
    ("delete_module", Fate::Killed, || {
        let flags = nix::kmod::DeleteModuleFlags::O_NONBLOCK;
        io(nix::kmod::delete_module(c"no-such-module", flags))
    }),
    ("reboot", Fate::Killed, || {
        // Does nothing where it is allowed.
        io(nix::sys::reboot::set_cad_enabled(true))
    }),
    ("mount", Fate::Killed, || {
        let none: Option<&str> = None;
        io(nix::mount::mount(
            none,
            "/",
            none,
            MsFlags::MS_PRIVATE,
            none,
        ))
    }),
    ("umount2", Fate::Killed, || {
        io(nix::mount::umount2("/nowhere", MntFlags::empty()))
    }),
    ("pivot_root", Fate::Killed, || {
        io(nix::unistd::pivot_root("/nowhere", "/nowhere"))
    }),
    ("chroot", Fate::Killed, || io(nix::unistd::chroot("/"))),
    ("unshare", Fate::Killed, || {
        io(nix::sched::unshare(CloneFlags::CLONE_NEWUTS))
    }),
    ("setns", Fate::Killed, || {
        let file = fs::File::open("/proc/self/status")?;
        io(nix::sched::setns(file.as_fd(), CloneFlags::CLONE_NEWNET))
    }),
    ("setuid", Fate::Killed, || {
        io(nix::unistd::setuid(nix::unistd::geteuid()))
    }),
    ("fork by the library", Fate::Refused(Errno::ENOSYS), || {
        Command::new("/bin/true").status().map(drop)
    }),
    ("listen", Fate::Refused(Errno::ENOSYS), || {
        TcpListener::bind("127.0.0.1:0").map(drop)
    }),
    ("a packet socket", Fate::Refused(Errno::ENOSYS), || {
        io(socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::empty(),
            None,
        ))
    }),
    (
        "a socket of another family",
        Fate::Refused(Errno::ENOSYS),
        || {
            io(socket(
                AddressFamily::Vsock,
                SockType::Stream,
                SockFlag::empty(),
                None,
            ))
        },
    ),
    ("locking memory", Fate::Refused(Errno::ENOSYS), || {
        io(nix::sys::mman::mlockall(
            nix::sys::mman::MlockAllFlags::MCL_CURRENT,
        ))
    }),
    ("a file of the system", Fate::Refused(Errno::EACCES), || {
        fs::read("/etc/passwd").map(drop)
    }),
    ("a file elsewhere", Fate::Refused(Errno::EACCES), || {
        fs::write("/tmp/flowproof-elsewhere", "")
    }),
    (
        "sending a signal elsewhere",
        Fate::Refused(Errno::ENOSYS),
        || io(nix::sys::signal::kill(nix::unistd::getppid(), None)),
    ),
    ("a thread", Fate::Works, || {
        std::thread::Builder::new()
            .name("named".to_owned())
            .spawn(|| {})?
            .join()
            .map_err(|_| std::io::Error::other("it panicked"))
    }),
    ("a connection", Fate::Works, || {
        // Nobody listens there; that it is refused by the peer is what an allowed call gets.
        match TcpStream::connect("127.0.0.1:1") {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            other => other.map(drop),
        }
    }),
    ("a datagram", Fate::Works, || {
        UdpSocket::bind("127.0.0.1:0")?
            .send_to(b"", "127.0.0.1:9")
            .map(drop)
    }),
    ("the own state", Fate::Works, || {
        let state = PathBuf::from(std::env::var_os(STATE).unwrap_or_default());
        fs::write(state.join("new"), "text")?;
        fs::rename(state.join("new"), state.join("old"))?;
        fs::remove_file(state.join("old"))
    }),
    ("facts of the kernel", Fate::Works, || {
        fs::read("/proc/sys/net/ipv4/ip_forward").map(drop)?;
        fs::read_dir("/sys/class/net").map(drop)
    }),
];

/// The other half of `what_an_intruder_would_do_is_refused`: makes one attempt, confined.
#[test]
fn attempt() {
    let Some(name) = std::env::var_os(ATTEMPT) else {
        return;
    };
    let (_, _, attempt) = ATTEMPTS.iter().find(|(one, ..)| name == *one).unwrap();
    let mut config = Config {
        state_directory: std::env::var_os(STATE).unwrap().into(),
        ..Config::default()
    };
    config.capture.backend = flowproof::config::BackendChoice::Pcap;
    // libtest runs this in a thread of its own beside the main one, which only waits: files are confined from here on.
    privilege::enter(&config, None, &[]);
    privilege::keep_for(Backend::Replay);
    privilege::seal();
    match attempt() {
        Ok(()) => println!("it works"),
        Err(error) => println!("it fails: {} {error}", error.raw_os_error().unwrap_or(0)),
    }
}

#[test]
fn what_an_intruder_would_do_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for (name, expect, _) in ATTEMPTS {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "attempt", "--nocapture", "--test-threads=1"])
            .env(ATTEMPT, name)
            .env(STATE, state.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let got = if output.status.signal() == Some(BAD_CALL) {
            Some(Fate::Killed)
        } else if let Some((_, number)) = said.split_once("it fails: ") {
            let number = number.split_whitespace().next().unwrap();
            Some(Fate::Refused(Errno::from_raw(number.parse().unwrap())))
        } else {
            said.contains("it works").then_some(Fate::Works)
        };
        if got != Some(*expect) {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            wrong.push(format!("{name}: {got:?}, not {expect:?}: {said}{errors}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!Path::new("/tmp/flowproof-elsewhere").exists());
}

/// Where `unsafe` may be: system calls of the kernel back end, and the claim that records of maps are plain bytes.
const UNSAFE: [&str; 2] = ["agent-common/src/pod.rs", "agent/src/capture/ebpf/batch.rs"];

/// The compiler refuses `unsafe` for good where it is forbidden (`lib.rs`), and elsewhere (`agent-common`, which the kernel
/// object is tied to line by line) wherever the lint is not lifted; so it is enough to know where that is done.
#[test]
fn what_strangers_send_is_read_without_unsafe() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for folder in ["agent/src", "agent-common/src"] {
        collect(&root.join(folder), &mut files);
    }
    assert!(files.len() > 100, "{}", files.len());
    let mut lifts: Vec<String> = files
        .iter()
        .filter(|file| {
            fs::read_to_string(file).unwrap().lines().any(|line| {
                // `forbid` and `deny` may stand anywhere.
                line.contains("unsafe_code") && !line.contains("forbid(") && !line.contains("deny(")
            })
        })
        .map(|file| file.strip_prefix(root).unwrap().display().to_string())
        .collect();
    lifts.sort();
    assert_eq!(lifts, UNSAFE);
    for (file, modules) in [
        (
            "agent/src/lib.rs",
            &["names", "flow", "import", "events"][..],
        ),
        ("agent/src/capture/mod.rs", &["decode", "file", "live_pcap"]),
    ] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        for module in modules {
            let forbidden = ["pub mod", "mod", "pub(crate) mod"]
                .iter()
                .any(|word| text.contains(&format!("#[forbid(unsafe_code)]\n{word} {module};")));
            assert!(forbidden, "{file}: {module}");
        }
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
