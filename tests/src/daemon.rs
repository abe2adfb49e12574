//! The daemon as an operator runs it: a program with files, signals, and an HTTP port.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

use crate::host::{Host, wait_for};
use crate::http;
use crate::judge::pid;
use crate::metrics::Metrics;

/// How long a start may take. Loading the kernel programs takes a moment where all tests start at once.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Where every daemon of the labs listens: each has its host for itself.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9871);

/// The binary under test: `FLOWPROOF_BIN`, else the one beside this test's own.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FLOWPROOF_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().unwrap_or_default();
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("flowproof"))
        .find(|file| file.is_file());
    let Some(found) = found else {
        panic!(
            "no flowproof binary near {}: `cargo build -p flowproof` first, or name it in FLOWPROOF_BIN",
            own.display()
        );
    };
    found
}

/// Which capture back end is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Kernel programs.
    Ebpf,
    /// libpcap.
    Pcap,
    /// Kernel programs where they load, else libpcap.
    Auto,
}

impl Backend {
    /// The value of `--capture` and of metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Pcap => "pcap",
            Self::Auto => "auto",
        }
    }
}

/// What the daemon is started with.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    /// The back end.
    pub backend: Backend,
    /// Text of the matrix file.
    pub matrix: &'a str,
    /// Text of the site file.
    pub site: &'a str,
    /// Text of the config file; empty: none is given.
    pub config: &'a str,
    /// Interface names and globs.
    pub interfaces: &'a [&'a str],
}

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    host: Arc<Host>,
    folder: TempDir,
    /// The program, and what is put before it.
    program: Vec<String>,
    arguments: Vec<String>,
    child: Child,
}

/// The user that a daemon is who is not root (`nobody`).
pub const USER: u32 = 65_534;

/// What makes a program be [`USER`], with the capabilities of these names and no way to others.
#[must_use]
pub fn as_user(capabilities: &[&str]) -> Vec<String> {
    let only = capabilities
        .iter()
        .fold("-all".to_owned(), |list, name| format!("{list},+{name}"));
    let mut command = vec![
        "setpriv".to_owned(),
        format!("--reuid={USER}"),
        format!("--regid={USER}"),
        "--clear-groups".to_owned(),
    ];
    for set in ["inh-caps", "ambient-caps", "bounding-set"] {
        command.push(format!("--{set}={only}"));
    }
    command
}

impl Daemon {
    /// Starts it on `host` and waits until it says that it is ready.
    ///
    /// # Errors
    /// It ends, or isn't ready after a minute; the error carries what it said.
    pub fn start(host: &Arc<Host>, setup: &Setup<'_>) -> Result<Self> {
        Self::start_with(host, setup, &[])
    }

    /// As [`Daemon::start`], with further matrix files: (name, text).
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_with(
        host: &Arc<Host>,
        setup: &Setup<'_>,
        more: &[(String, &str)],
    ) -> Result<Self> {
        Self::start_by(host, setup, more, |_| {
            Ok(vec![binary().display().to_string()])
        })
    }

    /// As [`Daemon::start`], by [`USER`] with these capabilities only.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_as_user(
        host: &Arc<Host>,
        setup: &Setup<'_>,
        capabilities: &[&str],
    ) -> Result<Self> {
        Self::start_by(host, setup, &[], |folder| {
            // The one that was built may be where only root looks.
            let program = folder.join("flowproof");
            fs::copy(binary(), &program)?;
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
            for path in fs::read_dir(folder)? {
                chown(path?.path(), Some(USER), Some(USER))?;
            }
            chown(folder, Some(USER), Some(USER))?;
            let mut command = as_user(capabilities);
            command.push(program.display().to_string());
            Ok(command)
        })
    }

    fn start_by(
        host: &Arc<Host>,
        setup: &Setup<'_>,
        more: &[(String, &str)],
        program: impl FnOnce(&Path) -> Result<Vec<String>>,
    ) -> Result<Self> {
        let folder = TempDir::with_prefix("flowproof-lab-")?;
        let file = |name: &str, text: &str| -> Result<String> {
            let path = folder.path().join(name);
            fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let mut arguments: Vec<String> = ["run", "--capture", setup.backend.name()]
            .map(str::to_owned)
            .to_vec();
        arguments.extend(["--matrix".to_owned(), file("matrix.yaml", setup.matrix)?]);
        for (name, text) in more {
            arguments.extend(["--matrix".to_owned(), file(name, text)?]);
        }
        arguments.extend(["--site".to_owned(), file("site.yaml", setup.site)?]);
        arguments.extend(["--listen".to_owned(), LISTEN.to_string()]);
        // Hosts of a lab share the machine's files, and one daemon's names are not another's.
        let state = folder.path().join("state").display().to_string();
        arguments.extend(["--state-dir".to_owned(), state]);
        if !setup.config.is_empty() {
            arguments.extend(["--config".to_owned(), file("config.yaml", setup.config)?]);
        }
        for interface in setup.interfaces {
            arguments.extend(["--interface".to_owned(), (*interface).to_owned()]);
        }
        let program = program(folder.path())?;
        let child = spawn(host, folder.path(), &program, &arguments)?;
        let mut daemon = Self {
            host: host.clone(),
            folder,
            program,
            arguments,
            child,
        };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Starts it once more with the same arguments, after it has ended.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_again(&mut self) -> Result<()> {
        self.child = spawn(
            &self.host,
            self.folder.path(),
            &self.program,
            &self.arguments,
        )?;
        self.wait_until_ready()
    }

    /// Adds arguments for the next start.
    pub fn argue(&mut self, more: &[&str]) {
        self.arguments
            .extend(more.iter().map(|argument| (*argument).to_owned()));
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended: {status}\n{}", self.stderr());
            }
            if http::get(&self.host, LISTEN, "/-/ready").is_ok_and(|got| got.status == 200) {
                return Ok(());
            }
            if start.elapsed() > START_LIMIT {
                bail!(
                    "the daemon isn't ready after {START_LIMIT:?}\n{}",
                    self.stderr()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// The folder of its files: `matrix.yaml`, `site.yaml`, `config.yaml`, and what it keeps itself in `state/`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Asks its HTTP port from the host that it runs on.
    ///
    /// # Errors
    /// It doesn't answer.
    pub fn get(&self, path: &str) -> Result<http::Response> {
        http::get(&self.host, LISTEN, path)
            .with_context(|| format!("GET {path}; the daemon said:\n{}", self.stderr()))
    }

    /// Scrapes it.
    ///
    /// # Errors
    /// It doesn't answer, or the scrape breaks the format.
    pub fn metrics(&self) -> Result<Metrics> {
        let got = self.get("/metrics")?;
        if got.status != 200 {
            bail!("GET /metrics: {}", got.head);
        }
        Metrics::parse(&got.body)
    }

    /// Scrapes it every 50 ms until `done` says so, for at most `limit`; the last scrape, and whether it was done.
    ///
    /// # Errors
    /// As [`Daemon::metrics`].
    pub fn wait_metrics(
        &self,
        limit: Duration,
        mut done: impl FnMut(&Metrics) -> bool,
    ) -> Result<(Metrics, bool)> {
        let start = Instant::now();
        loop {
            let metrics = self.metrics()?;
            if done(&metrics) {
                return Ok((metrics, true));
            }
            if start.elapsed() > limit {
                return Ok((metrics, false));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Replaces a file of its folder and has it read again (SIGHUP).
    ///
    /// # Errors
    /// The file can't be written, or the daemon is gone.
    pub fn reload(&self, file: &str, text: &str) -> Result<()> {
        fs::write(self.folder.path().join(file), text)?;
        self.signal(Signal::SIGHUP)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(pid(&self.child)?, signal).with_context(|| format!("can't send {signal}"))
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// It had ended before, by itself.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        let status = self.child.wait()?;
        if status.signal() != Some(Signal::SIGKILL as i32) {
            bail!(
                "the daemon had ended by itself: {status}\n{}",
                self.stderr()
            );
        }
        Ok(())
    }

    /// SIGTERM; its exit status and how long the end took.
    ///
    /// # Errors
    /// It doesn't end within 10 s.
    pub fn terminate(&mut self) -> Result<(ExitStatus, Duration)> {
        let start = Instant::now();
        self.signal(Signal::SIGTERM)?;
        let child = &mut self.child;
        let Some(status) = wait_for(Duration::from_secs(10), || child.try_wait().ok().flatten())
        else {
            bail!("no end 10 s after SIGTERM\n{}", self.stderr());
        };
        Ok((status, start.elapsed()))
    }

    /// Whether it is still running.
    ///
    /// # Errors
    /// The system can't tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Daemon {
    #[expect(clippy::print_stderr, reason = "this is a failed test's output")]
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon said:\n{}---", self.stderr());
        }
    }
}

fn spawn(host: &Host, folder: &Path, program: &[String], arguments: &[String]) -> Result<Child> {
    let stderr = File::options()
        .create(true)
        .append(true)
        .open(folder.join("stderr"))?;
    host.start(
        Command::new(&program[0])
            .args(&program[1..])
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(stderr.try_clone()?)
            .stderr(stderr),
    )
}

/// Runs `command` to its end, for at most `limit`. To run it on a host of the lab, call this inside [`Host::run`].
///
/// # Errors
/// It can't be started, or doesn't end in time (then it is killed, and the error carries what it said).
pub fn run_to_end(command: &mut Command, limit: Duration) -> Result<Output> {
    // Files, since nobody reads while it runs and a pipe would fill up.
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .with_context(|| format!("can't start {command:?}"))?;
    let ended = wait_for(limit, || child.try_wait().ok().flatten());
    let mut output = Output {
        status: ended.unwrap_or_default(),
        stdout: Vec::new(),
        stderr: Vec::new(),
    };
    if ended.is_none() {
        child.kill()?;
        child.wait()?;
    }
    for (file, bytes) in [
        (&mut stdout, &mut output.stdout),
        (&mut stderr, &mut output.stderr),
    ] {
        file.rewind()?;
        file.read_to_end(bytes)?;
    }
    if ended.is_none() {
        bail!(
            "{command:?} didn't end within {limit:?}; it said: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}
