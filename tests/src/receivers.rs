//! Receivers of events that know nothing of flowproof: rotel (an OpenTelemetry collector) and Debian's rsyslog. What they
//! write is what they understood. nginx stands before the collector where TLS is wanted, which it does not speak.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

use crate::daemon::binary;
use crate::host::{Host, wait_for};
use crate::judge::pid;

/// How long a start or an end may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A running program with a folder of its own; it ends when dropped.
#[derive(Debug)]
pub struct Receiver {
    name: &'static str,
    child: Child,
    folder: TempDir,
}

/// The collector that `cargo xtask test` brings, if it is there.
#[must_use]
pub fn rotel() -> Option<PathBuf> {
    let binary = binary();
    let target = binary.parent()?.parent()?;
    let program = target.join("collector/rotel/rotel-agent");
    program.is_file().then_some(program)
}

/// Whether Debian's rsyslog is there, with TLS.
#[must_use]
pub fn has_rsyslog() -> bool {
    Path::new("/usr/sbin/rsyslogd").exists() && Path::new("/usr/share/doc/rsyslog-openssl").exists()
}

impl Receiver {
    fn start(
        host: &Arc<Host>,
        name: &'static str,
        folder: TempDir,
        command: &mut Command,
        ports: &[u16],
    ) -> Result<Self> {
        let output = File::create(folder.path().join("output"))?;
        let child = host.start(
            command
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output),
        )?;
        let mut receiver = Self {
            name,
            child,
            folder,
        };
        for port in ports {
            receiver.wait_listening(host, *port)?;
        }
        Ok(receiver)
    }

    fn wait_listening(&mut self, host: &Host, port: u16) -> Result<()> {
        let mut ended = None;
        let address = (IpAddr::from(Ipv4Addr::LOCALHOST), port);
        let listening = wait_for(LIMIT, || {
            ended = self.child.try_wait().ok().flatten();
            (ended.is_some() || host.connect(None, address, LIMIT).is_ok()).then_some(())
        });
        if ended.is_some() || listening.is_none() {
            bail!("{} doesn't listen on {port}:\n{}", self.name, self.output());
        }
        Ok(())
    }

    /// rotel, listening on loopback for gRPC and HTTP. It prints every record that it takes.
    ///
    /// # Errors
    /// It ends, or doesn't listen in time.
    pub fn rotel(host: &Arc<Host>, program: &Path, grpc: u16, http: u16) -> Result<Self> {
        let folder = TempDir::with_prefix("flowproof-rotel-")?;
        let mut command = Command::new(program);
        command
            .arg("start")
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")])
            .args(["--exporter", "blackhole", "--debug-log", "logs"])
            .args(["--debug-log-verbosity", "detailed"]);
        Self::start(host, "rotel", folder, &mut command, &[grpc, http])
    }

    /// nginx with TLS on loopback, as `server` says in its configuration language. The files of certificates are in
    /// `identities`.
    ///
    /// # Errors
    /// It ends, or doesn't listen in time.
    pub fn nginx(host: &Arc<Host>, server: &str, ports: &[u16]) -> Result<Self> {
        let folder = TempDir::with_prefix("flowproof-front-")?;
        let config = format!(
            "daemon off;\nmaster_process off;\npid pid;\nerror_log stderr warn;\nevents {{}}\n\
             http {{\naccess_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\n\
             fastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\n{server}\n}}\n"
        );
        fs::write(folder.path().join("nginx.conf"), config)?;
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(folder.path())
            .args(["-c", "nginx.conf", "-e", "stderr"]);
        Self::start(host, "nginx", folder, &mut command, ports)
    }

    /// rsyslog with these inputs, written in its configuration language. Every message comes out as a line of its fields
    /// as rsyslog understood them, divided by `|`: input, facility and severity, time, host, program, process, id of
    /// the message, structured data, message.
    ///
    /// # Errors
    /// It ends, or doesn't listen in time.
    pub fn rsyslog(host: &Arc<Host>, inputs: &str, ports: &[u16]) -> Result<Self> {
        let folder = TempDir::with_prefix("flowproof-rsyslog-")?;
        let path = folder.path().display().to_string();
        let config = format!(
            "global(workDirectory=\"{path}\" maxMessageSize=\"64k\")\n{inputs}\n\
             template(name=\"fields\" type=\"string\" string=\"%inputname%|%pri-text%|%timereported:::date-rfc3339%|\
             %hostname%|%app-name%|%procid%|%msgid%|%structured-data%|%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{path}/messages\" template=\"fields\" flushInterval=\"1\" asyncWriting=\"off\")\n"
        );
        fs::write(folder.path().join("rsyslog.conf"), config)?;
        let mut command = Command::new("/usr/sbin/rsyslogd");
        command
            .args(["-n", "-f", &format!("{path}/rsyslog.conf")])
            .args(["-i", &format!("{path}/pid")]);
        Self::start(host, "rsyslog", folder, &mut command, ports)
    }

    /// What it printed.
    #[must_use]
    pub fn output(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("output") + &read("stderr")
    }

    /// The messages that rsyslog took, each with its fields.
    #[must_use]
    pub fn messages(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.folder.path().join("messages")).unwrap_or_default();
        text.lines()
            .map(|line| line.splitn(9, '|').map(str::to_owned).collect())
            .collect()
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended already, and then a test has failed for that.
        if let Ok(pid) = pid(&self.child) {
            let _ = kill(pid, Signal::SIGTERM);
        }
        let ended = wait_for(LIMIT, || self.child.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
