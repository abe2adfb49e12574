//! A router that runs the daemon with a web configuration, hosts on both sides of it, certificates, and curl to ask with.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use flowproof_tests::daemon::binary;
use flowproof_tests::host::Host;
use flowproof_tests::lab::{self, ROUTER_CLIENT_SIDE, Routed, TO_CLIENT, server4};
use flowproof_tests::metrics::Metrics;
use flowproof_tests::skip::skip;
use flowproof_tests::traffic::{Server, echo_tcp, exchange};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(60);
/// The port of the service that the matrix has.
const SERVICE: u16 = 5432;
const PORT: u16 = 9871;

/// `ann` with the password `correct horse`, by a hash of cost 10.
pub(crate) const ANN: &str = "ann: $2b$10$N9qo8uLOickgx2ZMRZoMye7hLCKuEIm4BcKHuoCJsBy/5Q0NErxWS";
/// What curl gives as her.
pub(crate) const AS_ANN: [&str; 2] = ["--user", "ann:correct horse"];

pub(crate) const TLS: &str =
    "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n";

/// Whether a test can't do its work here.
pub(crate) fn skipped(test: &str) -> bool {
    if lab::skipped(test) {
        return true;
    }
    let found = Command::new("curl")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if found.is_err() {
        skip(test, "curl is missing: `apt-get install curl`");
    }
    found.is_err()
}

/// An authority, and what it signs.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, name);
        params.distinguished_name = subject;
        let key = KeyPair::generate()?;
        Ok(Self(CertifiedIssuer::self_signed(params, key)?))
    }

    /// Writes `NAME.pem` and `NAME.key` for these names, valid to the end of a year.
    pub(crate) fn issue(
        &self,
        folder: &Path,
        name: &str,
        names: &[&str],
        until: i32,
    ) -> Result<()> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &*self.0)?;
        // As who renews certificates does it: the new file takes the place of the old one at once.
        for (end, text) in [("key", key.serialize_pem()), ("pem", certificate.pem())] {
            let path = folder.join(format!("{name}.{end}"));
            let new = path.with_extension("new");
            fs::write(&new, text)?;
            fs::rename(new, path)?;
        }
        Ok(())
    }

    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<()> {
        Ok(fs::write(folder.join(name), self.0.pem())?)
    }
}

/// What curl got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The version of HTTP: `1.1`, `2`.
    pub(crate) http: String,
    pub(crate) head: String,
    pub(crate) body: String,
    /// What it said if it failed.
    pub(crate) error: String,
}

/// The hosts, the files, and the daemon once it runs.
pub(crate) struct Site {
    pub(crate) lab: Routed,
    pub(crate) folder: TempDir,
    pub(crate) authority: Authority,
    _service: Server,
    child: Option<Child>,
}

/// Which address is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// The router's loopback, from the router.
    Loopback,
    /// The router's address towards the client, from the client.
    Network,
}

impl Site {
    /// Hosts, a service on the server, certificates for the router, and the web configuration.
    pub(crate) fn new(web: &str) -> Result<Self> {
        let lab = Routed::new()?;
        let folder = TempDir::with_prefix("flowproof-web-")?;
        let authority = Authority::new("the authority")?;
        let service = echo_tcp(lab.server.listen((server4(10), SERVICE))?)?;
        let site = Self {
            lab,
            folder,
            authority,
            _service: service,
            child: None,
        };
        let path = site.path();
        site.authority.write(path, "ca.pem")?;
        site.authority.issue(path, "server", &SERVER, 2040)?;
        fs::write(
            path.join("matrix.yaml"),
            format!(
                "system: app\ntitle: App\nroles: {{client: {{}}, db: {{}}}}\nrequirements:\n- {{id: query, from: client, to: db, \
                 services: [tcp/{SERVICE}]}}\n"
            ),
        )?;
        fs::write(
            path.join("site.yaml"),
            "site: lab\nsystems: [app]\nroles: {app/client: [10.20.0.0/24], app/db: [10.1.0.10]}\n",
        )?;
        site.configure(web)?;
        Ok(site)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the web configuration.
    pub(crate) fn configure(&self, web: &str) -> Result<()> {
        Ok(fs::write(self.path().join("web.yaml"), web)?)
    }

    fn spawn(&self, more: &[&str]) -> Result<Child> {
        let mut arguments: Vec<String> = ["run", "--capture", "pcap", "--interface", TO_CLIENT]
            .map(str::to_owned)
            .to_vec();
        for (option, file) in [
            ("--matrix", "matrix.yaml"),
            ("--site", "site.yaml"),
            ("--state-dir", "state"),
        ] {
            arguments.push(option.to_owned());
            arguments.push(self.path().join(file).display().to_string());
        }
        for address in [At::Loopback, At::Network] {
            arguments.extend(["--listen".to_owned(), address.address().to_string()]);
        }
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let log = File::create(self.path().join("log"))?;
        self.lab.router.start(
            Command::new(binary())
                .args(arguments)
                .current_dir(self.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log),
        )
    }

    /// Starts the daemon, and waits until it says that it judges.
    pub(crate) fn start(&mut self, more: &[&str]) -> Result<()> {
        self.child = Some(self.spawn(more)?);
        let begin = Instant::now();
        while !self.said().contains("watching ") {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("the daemon ended: {status}\n{}", self.said());
            }
            if begin.elapsed() > START_LIMIT {
                bail!("no start in {START_LIMIT:?}\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Starts the daemon with the web configuration.
    pub(crate) fn start_secured(&mut self) -> Result<()> {
        self.start(&["--web-config", "web.yaml"])
    }

    /// Runs a start that must fail: exit code and what was said.
    pub(crate) fn refused(&self, more: &[&str]) -> Result<(Option<i32>, String)> {
        let status = self.spawn(more)?.wait()?;
        Ok((status.code(), self.said()))
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("no daemon")?;
        Ok(kill(Pid::from_raw(child.id().try_into()?), signal)?)
    }

    pub(crate) fn is_running(&mut self) -> Result<bool> {
        let child = self.child.as_mut().context("no daemon")?;
        Ok(child.try_wait()?.is_none())
    }

    pub(crate) fn host(&self, at: At) -> &Arc<Host> {
        match at {
            At::Loopback => &self.lab.router,
            At::Network => &self.lab.client,
        }
    }

    /// Runs curl there.
    pub(crate) fn curl(&self, at: At, url: &str, more: &[&str]) -> Result<Answer> {
        let ca = self.path().join("ca.pem").display().to_string();
        let head = self.path().join(format!("head-{}", fresh()));
        let head_text = head.display().to_string();
        let mut command = Command::new("curl");
        command
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "10",
                "--cacert",
                &ca,
            ])
            .args(["--dump-header", &head_text])
            .args(["--write-out", "\n%{http_code} %{http_version}"])
            .args(more)
            .arg(url)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = self.host(at).start(&mut command)?.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, last) = text.rsplit_once('\n').unwrap_or_default();
        let (status, http) = last.split_once(' ').unwrap_or_default();
        Ok(Answer {
            status: status.parse().unwrap_or(0),
            http: http.to_owned(),
            head: fs::read_to_string(head).unwrap_or_default(),
            body: body.to_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Asks by HTTPS.
    pub(crate) fn ask(&self, at: At, path: &str, more: &[&str]) -> Result<Answer> {
        self.curl(at, &format!("https://{}{path}", at.address()), more)
    }

    /// Asks by HTTP.
    pub(crate) fn ask_plain(&self, at: At, path: &str, more: &[&str]) -> Result<Answer> {
        self.curl(at, &format!("http://{}{path}", at.address()), more)
    }

    /// Scrapes from loopback by HTTPS.
    pub(crate) fn scrape(&self, more: &[&str]) -> Result<Metrics> {
        let got = self.ask(At::Loopback, "/metrics", more)?;
        if got.status != 200 {
            bail!("no scrape: {got:?}\n{}", self.said());
        }
        Metrics::parse(&got.body)
    }

    /// Connections from the client to the service that the daemon judges, one after the other.
    pub(crate) fn traffic(&self, connections: u32) -> Result<()> {
        for _ in 0..connections {
            let limit = Duration::from_secs(5);
            let mut stream = self
                .lab
                .client
                .connect(None, (server4(10), SERVICE), limit)?;
            exchange(&mut stream, b"ping")?;
        }
        Ok(())
    }

    /// A connection from the client to the service that begins with these bytes.
    pub(crate) fn say(&self, bytes: &[u8]) -> Result<()> {
        let limit = Duration::from_secs(5);
        let target = (server4(10), SERVICE);
        let mut stream = self.lab.client.connect(None, target, limit)?;
        Ok(exchange(&mut stream, bytes)?)
    }

    /// A file beside the others.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for Site {
    #[expect(clippy::print_stderr, reason = "this is a failed test's output")]
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon said:\n{}---", self.said());
        }
    }
}

/// Whom the router's certificate names.
pub(crate) const SERVER: [&str; 3] = ["localhost", "127.0.0.1", "10.20.0.1"];

impl At {
    pub(crate) fn address(self) -> SocketAddr {
        match self {
            Self::Loopback => SocketAddr::from(([127, 0, 0, 1], PORT)),
            Self::Network => SocketAddr::from((ROUTER_CLIENT_SIDE, PORT)),
        }
    }
}

/// A number that nobody else has.
fn fresh() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
