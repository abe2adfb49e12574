//! Debian's nginx as all web servers of a lab: on every address of its host, for every name of its certificate, with
//! TLS and without. Its own log says which name each client asked for, whatever the daemon under test makes of it.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

use super::identity::Identity;
use crate::host::{Host, wait_for};
use crate::judge::pid;

/// How long a start or an end may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A request as nginx saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The address that the client connected to.
    pub address: IpAddr,
    /// The port that the client connected to.
    pub port: u16,
    /// The name in the ClientHello; `None` without one, or without TLS.
    pub server_name: Option<String>,
    /// The Host header field.
    pub host: Option<String>,
}

/// A running nginx; it ends when dropped.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    folder: TempDir,
}

impl Nginx {
    /// Starts it on all addresses of `host`, IPv4 and IPv6, and waits until it listens.
    ///
    /// # Errors
    /// It is missing, ends, or doesn't listen after 10 s; the error carries what it said.
    pub fn start(
        host: &Arc<Host>,
        identity: &Identity,
        tls_ports: &[u16],
        plain_ports: &[u16],
    ) -> Result<Self> {
        let folder = TempDir::with_prefix("flowproof-nginx-")?;
        identity.write(folder.path())?;
        let mut listen = String::new();
        for (ports, tls) in [(tls_ports, " ssl"), (plain_ports, "")] {
            for port in ports {
                listen.push_str(&format!(
                    "listen 0.0.0.0:{port}{tls};\nlisten [::]:{port}{tls} ipv6only=on;\n"
                ));
            }
        }
        // One process: it ends with its process id, and nothing is left behind.
        let config = format!(
            "daemon off;\nmaster_process off;\npid pid;\nerror_log stderr warn;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n\
             log_format seen '$server_addr $server_port $ssl_server_name $http_host';\n\
             access_log requests seen;\n\
             client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\n\
             uwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\n\
             keepalive_timeout 120s;\n\
             ssl_certificate certificate.pem;\nssl_certificate_key key.pem;\n\
             ssl_protocols TLSv1.2 TLSv1.3;\nssl_session_tickets off;\n\
             server {{\n{listen}server_name _;\n\
             location / {{ default_type text/plain; return 200 'served $host$uri\\n'; }}\n}}\n}}\n"
        );
        fs::write(folder.path().join("nginx.conf"), config)?;
        let stderr = File::create(folder.path().join("stderr"))?;
        let child = host.start(
            Command::new("nginx")
                .arg("-p")
                .arg(folder.path())
                .args(["-c", "nginx.conf", "-e", "stderr"])
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(stderr.try_clone()?)
                .stderr(stderr),
        )?;
        let mut nginx = Self { child, folder };
        for port in tls_ports.iter().chain(plain_ports) {
            nginx.wait_listening(host, *port)?;
        }
        Ok(nginx)
    }

    fn wait_listening(&mut self, host: &Host, port: u16) -> Result<()> {
        let mut ended = None;
        let address = (IpAddr::from(Ipv4Addr::LOCALHOST), port);
        let listening = wait_for(LIMIT, || {
            ended = self.child.try_wait().ok().flatten();
            (ended.is_some() || host.connect(None, address, LIMIT).is_ok()).then_some(())
        });
        if ended.is_some() || listening.is_none() {
            bail!("nginx doesn't listen on {port}:\n{}", self.log());
        }
        Ok(())
    }

    /// What it has complained of.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// The requests so far. nginx notes a request when it has answered it.
    ///
    /// # Errors
    /// Its log can't be read.
    pub fn requests(&self) -> Result<Vec<Request>> {
        let text = fs::read_to_string(self.folder.path().join("requests"))?;
        text.lines()
            .map(|line| {
                let mut words = line.split(' ');
                let mut next = || {
                    words
                        .next()
                        .with_context(|| format!("nginx noted {line:?}"))
                };
                let (address, port) = (next()?.parse()?, next()?.parse()?);
                let mut name = || next().map(|word| (word != "-").then(|| word.to_owned()));
                Ok(Request {
                    address,
                    port,
                    server_name: name()?,
                    host: name()?,
                })
            })
            .collect()
    }
}

impl Drop for Nginx {
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
