//! What a service manager hears of the real daemon, by a socket that stands in for the manager's.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flowproof_tests::skip::skip;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(60);
/// The watchdog's limit; words of life come three times as often.
const WATCHDOG: Duration = Duration::from_millis(900);
const MATRIX: &str = "system: app\ntitle: App\nroles: {web: {}, db: {}}\nrequirements:\n- {id: web-to-db, from: web, to: db, services: [tcp/9]}\n";
const SITE: &str =
    "site: here\nsystems: [app]\nroles: {app/web: [127.0.0.1], app/db: [127.0.0.1]}\n";

/// The daemon, and what it says to its manager.
struct Managed {
    child: Child,
    socket: UnixDatagram,
    log: PathBuf,
}

impl Managed {
    fn start(folder: &Path) -> Self {
        let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
        let log = folder.join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_flowproof"))
            .args([
                "run",
                "--capture",
                "pcap",
                "--interface",
                "lo",
                "--matrix",
                "m.yaml",
                "--site",
                "s.yaml",
            ])
            .args(["--state-dir", "state", "--listen", "127.0.0.1:0"])
            .current_dir(folder)
            .env("NOTIFY_SOCKET", folder.join("notify"))
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .env_remove("WATCHDOG_PID")
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, socket, log }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The next message, as variables, if one comes in time.
    fn message(&self, limit: Duration) -> Option<Vec<(String, String)>> {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).ok()?;
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        let pairs = text.lines().map(|line| {
            let (name, value) = line.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        });
        Some(pairs.collect())
    }

    /// The next message that has a variable.
    fn await_variable(&self, name: &str) -> Vec<(String, String)> {
        let begin = Instant::now();
        loop {
            let message = self.message(LIMIT);
            let Some(message) = message.filter(|_| begin.elapsed() < LIMIT) else {
                panic!("no {name}: {}", self.said());
            };
            if value(&message, name).is_some() {
                return message;
            }
        }
    }

    fn tell(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn value<'message>(message: &'message [(String, String)], name: &str) -> Option<&'message str> {
    message
        .iter()
        .find(|(it, _)| it == name)
        .map(|(_, value)| value.as_str())
}

fn monotonic_microseconds() -> i128 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    i128::from(now.tv_sec()) * 1_000_000 + i128::from(now.tv_nsec()) / 1_000
}

#[test]
fn a_manager_hears_of_the_whole_life() {
    if !nix::unistd::geteuid().is_root() {
        skip("a_manager_hears_of_the_whole_life", "capturing needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("m.yaml"), MATRIX).unwrap();
    fs::write(folder.path().join("s.yaml"), SITE).unwrap();
    let mut daemon = Managed::start(folder.path());
    let first = daemon
        .message(LIMIT)
        .unwrap_or_else(|| panic!("{}", daemon.said()));
    assert_eq!(value(&first, "READY"), Some("1"), "{first:?}");
    assert!(
        value(&first, "STATUS")
            .unwrap()
            .starts_with("watching lo by pcap"),
        "{first:?}"
    );

    // It lives, and says how it is doing once, not every time.
    let mut statuses = Vec::new();
    for _ in 0..6 {
        let message = daemon.await_variable("WATCHDOG");
        statuses.extend(value(&message, "STATUS").map(str::to_owned));
    }
    assert!(
        statuses
            .first()
            .unwrap()
            .starts_with("watching 1 interface; 1 service: 1 "),
        "{statuses:?}"
    );
    assert!(statuses.len() < 6, "{statuses:?}");

    // Who is stopped is silent. What was said before is still to be read.
    daemon.tell(Signal::SIGSTOP);
    while daemon.message(Duration::from_millis(200)).is_some() {}
    assert_eq!(daemon.message(WATCHDOG * 2), None);
    daemon.tell(Signal::SIGCONT);
    daemon.await_variable("WATCHDOG");

    let asked = monotonic_microseconds();
    daemon.tell(Signal::SIGHUP);
    let reloading = daemon.await_variable("RELOADING");
    let time: i128 = value(&reloading, "MONOTONIC_USEC")
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        (asked..=monotonic_microseconds()).contains(&time),
        "{reloading:?}"
    );
    let ready = daemon.await_variable("READY");
    assert!(
        value(&ready, "STATUS")
            .unwrap()
            .starts_with("reloaded: judging by 1 requirement"),
        "{ready:?}"
    );

    // A refused reload is over too, and is told.
    fs::write(folder.path().join("m.yaml"), "system: [\n").unwrap();
    daemon.tell(Signal::SIGHUP);
    daemon.await_variable("RELOADING");
    let ready = daemon.await_variable("READY");
    assert!(
        value(&ready, "STATUS")
            .unwrap()
            .starts_with("not reloaded, the matrix before stays in force"),
        "{ready:?}"
    );
    let next = daemon.await_variable("STATUS");
    assert!(
        value(&next, "STATUS")
            .unwrap()
            .ends_with("the last reload was refused, the matrix before stays in force"),
        "{next:?}"
    );
    assert_eq!(value(&next, "WATCHDOG"), Some("1"), "{next:?}");

    daemon.tell(Signal::SIGTERM);
    daemon.await_variable("STOPPING");
    assert_eq!(
        daemon.child.wait().unwrap().code(),
        Some(0),
        "{}",
        daemon.said()
    );
    while let Some(message) = daemon.message(Duration::from_millis(100)) {
        assert_eq!(value(&message, "WATCHDOG"), None, "{message:?}");
    }
}
