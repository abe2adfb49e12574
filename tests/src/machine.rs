//! A whole machine in namespaces of this one: a clean root with systemd as its first process, so that packages, units and their
//! restrictions are met as an operator meets them. It has a network namespace, a BPF file system and a control group of its own,
//! sees `/sys` and `/proc/sys` read-only, and leaves nothing behind: its root lies in memory.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::daemon::run_to_end;
use crate::host::{Host, wait_for};

/// How long the machine may take to start, where all tests start at once.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
/// Units that would set parameters of this machine's kernel, or want devices.
const MASKED: [&str; 4] = [
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    "systemd-remount-fs.service",
    "systemd-binfmt.service",
];

/// Waits until it is in its control group, which can't be seen from the host's network, and goes on in namespaces.
const OUTER: &str = r#"set -e
read -r joined
exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child sh -c "$INNER"
"#;
/// Makes the root and becomes its first process.
const INNER: &str = r#"set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$ROOT"
tar -xf "$ARCHIVE" -C "$ROOT" --exclude='./dev/*'
cd "$ROOT"
mkdir -p proc sys dev run oldroot
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf -o mode=0700 bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=755 tmpfs run
for unit in $MASKED; do ln -sf /dev/null etc/systemd/system/$unit; done
: > etc/machine-id
pivot_root . oldroot
umount -l /oldroot
rmdir /oldroot
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal --show-status=0
"#;

/// A running machine; it ends when dropped.
#[derive(Debug)]
pub struct Machine {
    host: Arc<Host>,
    folder: TempDir,
    cgroup: PathBuf,
    child: Child,
    init: Pid,
}

impl Machine {
    /// Starts it from an archive of its root, and waits until its services are up.
    ///
    /// # Errors
    /// Root is missing, the kernel lacks something, or it doesn't come up in time; the error carries what it said.
    pub fn boot(archive: &Path) -> Result<Self> {
        let host = Host::new("machine")?;
        host.ip("link set lo up")?;
        let folder = TempDir::with_prefix("flowproof-machine-")?;
        let root = folder.path().join("root");
        fs::create_dir(&root)?;
        let name = folder
            .path()
            .file_name()
            .context("a folder without a name")?;
        let cgroup = cgroups()?.join(name);
        fs::create_dir(&cgroup).with_context(|| format!("can't make {}", cgroup.display()))?;
        let console = File::create(folder.path().join("console"))?;
        let child = host.start(
            Command::new("sh")
                .args(["-c", OUTER])
                .env("INNER", INNER)
                .env("ROOT", &root)
                .env("ARCHIVE", archive)
                .env("MASKED", MASKED.join(" "))
                .stdin(Stdio::piped())
                .stdout(console.try_clone()?)
                .stderr(console),
        );
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                remove_cgroups(&cgroup);
                return Err(error);
            }
        };
        let mut machine = Self {
            host,
            folder,
            cgroup,
            child,
            init: Pid::from_raw(0),
        };
        fs::write(
            machine.cgroup.join("cgroup.procs"),
            machine.child.id().to_string(),
        )
        .context("can't join a control group")?;
        let mut word = machine.child.stdin.take().context("no standard input")?;
        word.write_all(b"joined\n")?;
        drop(word);
        let up = wait_for(BOOT_LIMIT, || {
            machine.init = machine.find_init()?;
            // `degraded` is fine: what a test needs it looks at itself.
            let state = machine.try_run("systemctl is-system-running", &[]).ok()?;
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            ["running", "degraded"]
                .contains(&state.as_str())
                .then_some(())
        });
        if up.is_none() {
            bail!("the machine did not come up:\n{}", machine.console());
        }
        Ok(machine)
    }

    /// The first process of the namespaces, once it is systemd.
    fn find_init(&self) -> Option<Pid> {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        let child: i32 = children.split_whitespace().next()?.parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        (name.trim() == "systemd").then(|| Pid::from_raw(child))
    }

    /// Its network.
    #[must_use]
    pub const fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// What was said until the journal was there: why it does not start.
    #[must_use]
    pub fn console(&self) -> String {
        fs::read_to_string(self.folder.path().join("console")).unwrap_or_default()
    }

    /// A file of its root, as other programs of this machine can open it.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// Copies a file into its root.
    ///
    /// # Errors
    /// It can't be read or written.
    pub fn copy(&self, from: &Path, inside: &str) -> Result<()> {
        fs::copy(from, self.path(inside))
            .with_context(|| format!("can't copy {}", from.display()))?;
        Ok(())
    }

    /// Writes a file of its root.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, inside: &str, text: &str) -> Result<()> {
        let path = self.path(inside);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Opened anew and not replaced, so that owner and mode stay.
        let mut file = File::create(&path).with_context(|| format!("can't write {inside}"))?;
        Ok(file.write_all(text.as_bytes())?)
    }

    /// Runs a line of shell as its root, and returns what it printed.
    ///
    /// # Errors
    /// It fails; the error carries what it said.
    pub fn run(&self, line: &str) -> Result<String> {
        let output = self.try_run(line, &[])?;
        let said = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{line}: {}\n{printed}{said}",
            output.status
        );
        Ok(printed)
    }

    /// As [`Machine::run`], with variables, whatever comes of it.
    ///
    /// # Errors
    /// It can't be started, or does not end.
    pub fn try_run(&self, line: &str, variables: &[(&str, &str)]) -> Result<Output> {
        let target = self.init.to_string();
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target", &target, "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net",
                "--",
            ])
            .args(["sh", "-c", line])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(variables.iter().copied())
            .stdin(Stdio::null());
        // nsenter itself is found by this machine's path.
        command.current_dir("/");
        run_to_end(&mut command, COMMAND_LIMIT)
    }

    /// A property of a unit, as `systemctl show` tells it.
    ///
    /// # Errors
    /// systemd does not answer.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let value = self.run(&format!("systemctl show --value --property {name} {unit}"))?;
        Ok(value.trim().to_owned())
    }
}

impl Drop for Machine {
    #[expect(clippy::print_stderr, reason = "this is a failed test's output")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the machine said:\n{}---", self.console());
        }
        if self.init.as_raw() > 0 {
            let _ = kill(self.init, Signal::SIGKILL);
        }
        // With its parent the first process dies, and with that all others.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = wait_for(Duration::from_secs(5), || {
            let left = fs::read_to_string(self.cgroup.join("cgroup.events")).ok()?;
            left.contains("populated 0").then_some(())
        });
        remove_cgroups(&self.cgroup);
    }
}

/// Why no machine can be started here, if none can; what [`crate::lab::obstacle`] finds comes besides.
#[must_use]
pub fn obstacle() -> Option<String> {
    let tried = cgroups().and_then(|folder| {
        let probe = folder.join(format!("flowproof-probe-{}", std::process::id()));
        let failed = || format!("no control group can be made in {}", folder.display());
        fs::create_dir(&probe).with_context(failed)?;
        let opened = File::options().write(true).open(probe.join("cgroup.procs"));
        fs::remove_dir(&probe).with_context(failed)?;
        opened.map(drop).with_context(failed)
    });
    tried.err().map(|error| format!("{error:#}"))
}

/// Where this machine has its control groups of version 2, alone or beside those of version 1.
fn cgroups() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    mounts
        .lines()
        .find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let place = fields.next()?;
            (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
        })
        .context("no control groups of version 2 are mounted")
}

/// The kernel removes a group only after those below it.
fn remove_cgroups(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroups(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}
