//! A host of the lab: a network namespace, and a mount namespace with a `/sys` and a BPF file system of its own.
//!
//! Neither has a name: both live as long as something holds them open, so nothing stays behind, not even
//! after a crash. Work enters them by `setns` in a thread made for it; sockets made there go on belonging to the host
//! wherever they are used, and programs started there run in the host. `ip netns exec` would do neither, and
//! it hides BTF and pinned programs behind a fresh `/sys`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::SigSet;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

/// A host of the lab. It ends with its last holder.
#[derive(Debug)]
pub struct Host {
    name: &'static str,
    network: OwnedFd,
    mounts: OwnedFd,
}

impl Host {
    /// Makes a host with a loopback interface and nothing else. `name` only appears in messages.
    ///
    /// # Errors
    /// Root is missing, or the kernel has no namespaces.
    pub fn new(name: &'static str) -> Result<Arc<Self>> {
        let (network, mounts) = in_thread(|| -> Result<_> {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .context("can't make namespaces: root is needed")?;
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
                .context("can't make mounts private")?;
            // A host's own /sys lists its own interfaces; its own BPF file system keeps the pins of labs apart.
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)
                .context("can't mount /sys")?;
            mount(
                Some("bpf"),
                "/sys/fs/bpf",
                Some("bpf"),
                MsFlags::empty(),
                none,
            )
            .context("can't mount /sys/fs/bpf")?;
            let open = |kind| {
                let path = format!("/proc/thread-self/ns/{kind}");
                File::open(&path).with_context(|| format!("can't open {path}"))
            };
            Ok((open("net")?.into(), open("mnt")?.into()))
        })?;
        let host = Arc::new(Self {
            name,
            network,
            mounts,
        });
        // Duplicate address detection would hold back IPv6 for a second or two; rate limits would swallow ICMP
        // errors that a test waits for.
        for (key, value) in [
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/default/router_solicitations", "0"),
            ("net/ipv4/icmp_ratelimit", "0"),
            ("net/ipv6/icmp/ratelimit", "0"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
        ] {
            host.sysctl(key, value)?;
        }
        host.ip("link set lo up")?;
        Ok(host)
    }

    /// The name given to [`Host::new`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// A path to the network namespace that other programs of this user can open while the host lives.
    #[must_use]
    pub fn network_path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.network.as_raw_fd()
        )
    }

    /// Does `work` on the host, in a thread of its own, and waits for it.
    ///
    /// # Panics
    /// When `work` panics, or the host can't be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_thread(|| {
            self.enter();
            work()
        })
    }

    #[expect(
        clippy::expect_used,
        reason = "the descriptors are open, and whoever made the host is root"
    )]
    fn enter(&self) {
        // Entering a mount namespace needs a working directory that no other thread shares.
        unshare(CloneFlags::CLONE_FS).expect("a thread can have its own working directory");
        setns(self.network.as_fd(), CloneFlags::CLONE_NEWNET).expect("entering the network");
        setns(self.mounts.as_fd(), CloneFlags::CLONE_NEWNS).expect("entering the mounts");
    }

    /// Starts `command` on the host.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn start(&self, command: &mut Command) -> Result<Child> {
        self.run(|| {
            // A program inherits what its maker has blocked, and would not hear SIGTERM if that was.
            SigSet::all().thread_unblock()?;
            command.spawn()
        })
        .with_context(|| format!("can't start {command:?} on {}", self.name))
    }

    /// Runs `program` on the host to its end and returns what it printed.
    ///
    /// # Errors
    /// The program can't be started, or fails; the error carries what it said.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.command_with_input(program, arguments, "")
    }

    fn command_with_input(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = self.start(
            Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )?;
        // Inputs here are far smaller than a pipe's buffer, so this can't block on a program that writes first.
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "{program} {} on {}: {}: {}",
                arguments.join(" "),
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `ip` with blank-separated arguments.
    ///
    /// # Errors
    /// As [`Host::command`].
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.command("ip", &arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// Loads an nftables ruleset.
    ///
    /// # Errors
    /// As [`Host::command`].
    pub fn nft(&self, ruleset: &str) -> Result<String> {
        self.command_with_input("nft", &["-f", "-"], ruleset)
    }

    /// Filters packets at `hook` (`input`, `forward`, `output`) by nftables rules, one a line.
    ///
    /// # Errors
    /// As [`Host::command`].
    pub fn filter(&self, hook: &str, rules: &[&str]) -> Result<()> {
        let rules = rules.join("\n");
        self.nft(&format!(
            "table inet filter {{\nchain {hook} {{\ntype filter hook {hook} priority 0\n{rules}\n}}\n}}\n"
        ))?;
        Ok(())
    }

    /// Sets a kernel parameter, named by its path below `/proc/sys`.
    ///
    /// # Errors
    /// The parameter doesn't exist or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| fs::write(format!("/proc/sys/{key}"), value))
            .with_context(|| format!("can't set {key} to {value} on {}", self.name))
    }

    /// Whether the host has an interface of this name.
    #[must_use]
    pub fn has_interface(&self, name: &str) -> bool {
        self.run(|| nix::net::if_::if_nametoindex(name)).is_ok()
    }

    /// What is pinned on the host's BPF file system, the kernel's own entries left out. A TCX link lives as long as a
    /// process or a pin holds it, so without the daemon and without pins none can be attached.
    ///
    /// # Errors
    /// The file system can't be read.
    pub fn pins(&self) -> Result<Vec<String>> {
        let entries = self
            .run(|| fs::read_dir("/sys/fs/bpf")?.collect::<io::Result<Vec<_>>>())
            .context("can't read /sys/fs/bpf")?;
        Ok(entries
            .into_iter()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            // The kernel's own iterators (`bpf_preload`).
            .filter(|name| !name.ends_with(".debug"))
            .collect())
    }

    /// A listening TCP socket.
    ///
    /// # Errors
    /// The address isn't the host's, or the port is taken.
    pub fn listen(&self, address: impl Into<SocketAddr>) -> Result<TcpListener> {
        let address = address.into();
        self.run(|| TcpListener::bind(address))
            .with_context(|| format!("can't listen on {address} on {}", self.name))
    }

    /// A TCP connection, from `source` if one is given (port 0: any), given up after `limit`.
    ///
    /// # Errors
    /// What the kernel says: refused, timed out, unreachable.
    pub fn connect(
        &self,
        source: Option<SocketAddr>,
        target: impl Into<SocketAddr>,
        limit: Duration,
    ) -> io::Result<TcpStream> {
        let target = target.into();
        self.run(|| {
            let family = if target.is_ipv4() {
                AddressFamily::Inet
            } else {
                AddressFamily::Inet6
            };
            let made = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            setsockopt(&made, sockopt::ReuseAddr, &true)?;
            if let Some(source) = source {
                bind(made.as_raw_fd(), &SockaddrStorage::from(source))?;
            }
            let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
            let limit = TimeVal::new(seconds, i64::from(limit.subsec_micros()));
            // On Linux this also limits connect().
            setsockopt(&made, sockopt::SendTimeout, &limit)?;
            connect(made.as_raw_fd(), &SockaddrStorage::from(target))?;
            let stream = TcpStream::from(made);
            stream.set_nodelay(true)?;
            stream.set_write_timeout(None)?;
            Ok(stream)
        })
    }

    /// A UDP socket that may send to broadcast addresses.
    ///
    /// # Errors
    /// The address isn't the host's, or the port is taken.
    pub fn udp(&self, address: impl Into<SocketAddr>) -> Result<UdpSocket> {
        let address = address.into();
        let made = self
            .run(|| UdpSocket::bind(address))
            .with_context(|| format!("can't bind {address} on {}", self.name))?;
        made.set_broadcast(true)?;
        Ok(made)
    }

    /// A socket for whole IP packets, header included; the kernel routes them.
    ///
    /// # Errors
    /// Root is missing.
    pub fn raw(&self, family: AddressFamily) -> Result<OwnedFd> {
        self.run(|| {
            socket(
                family,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::Raw,
            )
        })
        .with_context(|| format!("can't make a raw socket on {}", self.name))
    }

    /// A socket for whole frames.
    ///
    /// # Errors
    /// Root is missing.
    pub fn packet(&self) -> Result<OwnedFd> {
        self.run(|| {
            socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
        })
        .with_context(|| format!("can't make a packet socket on {}", self.name))
    }
}

/// Joins two hosts by a wire with an interface at each end, both up.
///
/// # Errors
/// A name is taken or too long.
pub fn wire(one: &Host, one_name: &str, other: &Host, other_name: &str) -> Result<()> {
    one.ip(&format!(
        "link add {one_name} type veth peer name {other_name} netns {}",
        other.network_path()
    ))?;
    one.ip(&format!("link set {one_name} up"))?;
    other.ip(&format!("link set {other_name} up"))?;
    Ok(())
}

fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Asks every 20 ms until `done` gives something, for at most `limit`.
pub fn wait_for<T>(limit: Duration, mut done: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(result) = done() {
            return Some(result);
        }
        if start.elapsed() >= limit {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
