//! Judges that count what was sent without any help of the daemon: nftables counters of the kernel, and capture files
//! of other programs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{Host, wait_for};

/// Length of an untagged Ethernet header: nftables counts from the IP header on, the daemon counts whole frames.
pub const ETHERNET_HEADER: u64 = 14;

/// Packets, and bytes of whole frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}

/// Named counters in the packet path of a host. The kernel keeps them, on every CPU, without loss.
#[derive(Debug)]
pub struct PacketJudge {
    host: Arc<Host>,
}

impl PacketJudge {
    /// Counts what a router forwards and matches each (name, nftables expression).
    ///
    /// # Errors
    /// An expression is wrong.
    pub fn forwarded(host: &Arc<Host>, what: &[(&str, &str)]) -> Result<Self> {
        Self::new(host, &["forward"], what)
    }

    /// Counts what a host itself receives and sends and matches each (name, nftables expression).
    ///
    /// # Errors
    /// An expression is wrong.
    pub fn own(host: &Arc<Host>, what: &[(&str, &str)]) -> Result<Self> {
        Self::new(host, &["input", "output"], what)
    }

    fn new(host: &Arc<Host>, hooks: &[&str], what: &[(&str, &str)]) -> Result<Self> {
        let mut ruleset = String::from("table inet judge {\n");
        for (name, _) in what {
            ruleset.push_str(&format!("counter {name} {{ }}\n"));
        }
        for hook in hooks {
            ruleset.push_str(&format!(
                "chain {hook} {{\ntype filter hook {hook} priority -300\n"
            ));
            for (name, expression) in what {
                ruleset.push_str(&format!("{expression} counter name {name}\n"));
            }
            ruleset.push_str("}\n");
        }
        ruleset.push_str("}\n");
        host.nft(&ruleset)?;
        Ok(Self { host: host.clone() })
    }

    /// What was counted so far.
    ///
    /// # Errors
    /// `nft` fails.
    pub fn counts(&self) -> Result<BTreeMap<String, Count>> {
        let text = self
            .host
            .command("nft", &["-j", "list", "counters", "table", "inet", "judge"])?;
        let list: serde_json::Value = serde_json::from_str(&text)?;
        let mut counts = BTreeMap::new();
        for counter in list["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.get("counter"))
        {
            let field = |name: &str| counter[name].as_u64().context("nft's JSON has no count");
            let packets = field("packets")?;
            counts.insert(
                counter["name"]
                    .as_str()
                    .context("nft's JSON has no name")?
                    .to_owned(),
                Count {
                    packets,
                    bytes: field("bytes")? + packets * ETHERNET_HEADER,
                },
            );
        }
        Ok(counts)
    }

    /// One counter.
    ///
    /// # Errors
    /// `nft` fails, or there is no counter of this name.
    pub fn count(&self, name: &str) -> Result<Count> {
        self.counts()?
            .get(name)
            .copied()
            .with_context(|| format!("no counter {name}"))
    }
}

/// Another capture program, writing a file.
#[derive(Debug)]
pub struct Recording {
    child: Child,
}

impl Recording {
    /// Starts tcpdump (classic pcap) on `interface`.
    ///
    /// # Errors
    /// It is missing, or doesn't come up within 10 s.
    pub fn tcpdump(host: &Host, interface: &str, file: &Path) -> Result<Self> {
        // As root, or else it gives up its rights and can't write into the test's folder.
        let mut command = Command::new("tcpdump");
        command.args([
            "-i", interface, "-n", "-U", "-Z", "root", "-B", "8192", "-w",
        ]);
        Self::start(host, command.arg(file), file)
    }

    /// Starts dumpcap (pcapng) on `interface`.
    ///
    /// # Errors
    /// As [`Recording::tcpdump`].
    pub fn dumpcap(host: &Host, interface: &str, file: &Path) -> Result<Self> {
        let mut command = Command::new("dumpcap");
        command.args(["-q", "-i", interface, "-B", "8", "-w"]);
        Self::start(host, command.arg(file), file)
    }

    fn start(host: &Host, command: &mut Command, file: &Path) -> Result<Self> {
        let child = host.start(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )?;
        let recording = Self { child };
        // Both write the file's header once the capture is open.
        let begun = wait_for(Duration::from_secs(10), || {
            std::fs::metadata(file)
                .is_ok_and(|data| data.len() >= 24)
                .then_some(())
        });
        if begun.is_none() {
            bail!("{command:?} didn't begin to write");
        }
        Ok(recording)
    }

    /// Ends it and waits until the file is whole.
    ///
    /// # Errors
    /// It failed.
    pub fn finish(mut self) -> Result<()> {
        // Packets reach a capture program in blocks.
        std::thread::sleep(Duration::from_millis(1200));
        kill(pid(&self.child)?, Signal::SIGINT)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the capture program failed: {status}");
        }
        Ok(())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Ended already in the good case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process id for signals.
pub(crate) fn pid(child: &Child) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}
