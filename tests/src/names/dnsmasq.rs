//! Debian's dnsmasq as the resolver of a lab. Addresses change while it runs, as those of clouds do; aliases and
//! wildcards stay as it was started.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

use crate::host::{Host, wait_for};
use crate::judge::pid;

/// How long a start or a change may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What dnsmasq answers.
#[derive(Debug, Clone, Default)]
pub struct Zone<'a> {
    /// TTL of every answer in seconds.
    pub ttl: u32,
    /// Names and their addresses; a name may come more than once.
    pub hosts: &'a [(&'a str, IpAddr)],
    /// Chains of aliases: each name stands for the next, and the last must be one of `hosts`.
    pub chains: &'a [&'a [&'a str]],
    /// Domains with one address for every name in them; `#` is every name that nothing else answers.
    pub wildcards: &'a [(&'a str, IpAddr)],
    /// Domains whose other names don't exist (NXDOMAIN). What is in none of them is refused (REFUSED).
    pub domains: &'a [&'a str],
}

/// A running dnsmasq; it ends when dropped.
#[derive(Debug)]
pub struct Dnsmasq {
    child: Child,
    folder: TempDir,
}

impl Dnsmasq {
    /// Starts it on `host`, on UDP and TCP, and waits until it listens.
    ///
    /// # Errors
    /// It is missing, ends, or doesn't listen after 10 s; the error carries what it said.
    pub fn start(host: &Arc<Host>, listen: SocketAddr, zone: &Zone<'_>) -> Result<Self> {
        let folder = TempDir::with_prefix("flowproof-dnsmasq-")?;
        let file = |name: &str| folder.path().join(name).display().to_string();
        fs::write(folder.path().join("hosts"), hosts(zone.hosts))?;
        let mut config = format!(
            "no-resolv\nno-hosts\nno-poll\nbind-interfaces\nuser=root\ngroup=root\npid-file={}\nlog-facility={}\n\
             addn-hosts={}\nlocal-ttl={}\nlisten-address={}\nport={}\n",
            file("pid"),
            file("log"),
            file("hosts"),
            zone.ttl,
            listen.ip(),
            listen.port(),
        );
        for chain in zone.chains {
            for pair in chain.windows(2) {
                config.push_str(&format!("cname={},{}\n", pair[0], pair[1]));
            }
        }
        for (domain, address) in zone.wildcards {
            config.push_str(&format!("address=/{domain}/{address}\n"));
        }
        for domain in zone.domains {
            config.push_str(&format!("local=/{domain}/\n"));
        }
        fs::write(folder.path().join("config"), config)?;
        let stderr = File::create(folder.path().join("stderr"))?;
        let child = host.start(
            Command::new("dnsmasq")
                .arg("--keep-in-foreground")
                .arg(format!("--conf-file={}", file("config")))
                .stdin(Stdio::null())
                .stdout(stderr.try_clone()?)
                .stderr(stderr),
        )?;
        let mut dnsmasq = Self { child, folder };
        // It reads the hosts after it has bound its sockets.
        dnsmasq.wait_reads(1)?;
        Ok(dnsmasq)
    }

    /// Replaces all of `hosts`; its answers are the new ones when this returns.
    ///
    /// # Errors
    /// It has ended, or doesn't read them within 10 s.
    pub fn set_hosts(&mut self, entries: &[(&str, IpAddr)]) -> Result<()> {
        let reads = self.reads() + 1;
        // Renamed into place, so that it never reads half a file.
        let (new, path) = (self.path("hosts.new"), self.path("hosts"));
        fs::write(&new, hosts(entries))?;
        fs::rename(&new, &path)?;
        kill(pid(&self.child)?, Signal::SIGHUP).context("dnsmasq has ended")?;
        self.wait_reads(reads)
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.path(name)).unwrap_or_default();
        read("stderr") + &read("log")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How often it has read the hosts. It logs each time, after the names have come into force.
    fn reads(&self) -> usize {
        let read = format!("read {}", self.path("hosts").display());
        self.log()
            .lines()
            .filter(|line| line.contains(&read))
            .count()
    }

    fn wait_reads(&mut self, reads: usize) -> Result<()> {
        let mut ended = None;
        let read = wait_for(LIMIT, || {
            ended = self.child.try_wait().ok().flatten();
            (ended.is_some() || self.reads() >= reads).then_some(())
        });
        if ended.is_some() || read.is_none() {
            bail!(
                "dnsmasq {}:\n{}",
                ended.map_or_else(
                    || "doesn't read its hosts".to_owned(),
                    |status| format!("ended: {status}")
                ),
                self.log()
            );
        }
        Ok(())
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        // It may have ended already, and then a test has failed for that.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the format of `/etc/hosts`.
fn hosts(entries: &[(&str, IpAddr)]) -> String {
    entries
        .iter()
        .map(|(name, address)| format!("{address} {name}\n"))
        .collect()
}
