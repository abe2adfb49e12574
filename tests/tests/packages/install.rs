//! The .deb on a clean system with systemd: installed, started, scraped, reloaded, hung, upgraded under traffic, removed, purged.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flowproof_tests::daemon::LISTEN;
use flowproof_tests::host::{Host, wait_for};
use flowproof_tests::machine::{self, Machine};
use flowproof_tests::metrics::Metrics;
use flowproof_tests::{http, lab, skip, traffic};

use super::prepared;

const PORT: u16 = 7443;
const LIMIT: Duration = Duration::from_secs(30);
const SERVICE: &str = "flowproof.service";
const PINS: &str = "/sys/fs/bpf/flowproof";
/// CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_PERFMON 38, CAP_BPF 39 (linux/capability.h).
const CAPABILITIES: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
const CONFIG: &str =
    "matrix: [app.yaml]\nsite: site.yaml\ncapture: {interfaces: [lo], ebpf: {on_exit: keep}}\n";
const SITE: &str =
    "site: here\nsystems: [app]\nroles: {app/web: [127.0.0.1], app/db: [127.0.0.2]}\n";

fn matrix() -> String {
    format!(
        "system: app\ntitle: App\nroles: {{web: {{}}, db: {{}}}}\nrequirements:\n- {{id: web-to-db, from: web, to: db, services: [tcp/{PORT}]}}\n"
    )
}

fn package(folder: &Path) -> Result<PathBuf> {
    let found = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = found.filter(|path| path.extension().is_some_and(|it| it == "deb"));
    found
        .next()
        .with_context(|| format!("no package in {}", folder.display()))
}

fn scrape(host: &Host) -> Result<Metrics> {
    Metrics::parse(&http::get(host, LISTEN, "/metrics")?.body)
}

/// Answered flows of the one row.
fn answered(metrics: &Metrics) -> u64 {
    metrics.count(
        "flowproof_requirement_flows_total",
        &[("requirement", "web-to-db"), ("outcome", "answered")],
    )
}

fn await_answered(host: &Host, expect: u64) -> Result<()> {
    let mut last = 0;
    let done = wait_for(LIMIT, || {
        last = answered(&scrape(host).ok()?);
        (last == expect).then_some(())
    });
    ensure!(done.is_some(), "{last} answered flows, not {expect}");
    Ok(())
}

/// Connections from 127.0.0.1 to 127.0.0.2, one after another, until told to stop.
struct Traffic {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<Result<()>>>,
}

impl Traffic {
    fn start(host: &Arc<Host>, pause: Duration) -> Self {
        let (stop, made) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (host, stopped, count) = (Arc::clone(host), Arc::clone(&stop), Arc::clone(&made));
        let thread = thread::spawn(move || {
            // Bounded, whatever the test does.
            for _ in 0..20_000 {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                talk(&host)?;
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(pause);
            }
            Ok(())
        });
        Self {
            stop,
            made,
            thread: Some(thread),
        }
    }

    fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok().context("the traffic broke off")??;
        }
        Ok(self.made())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn talk(host: &Host) -> Result<()> {
    let server = SocketAddr::from(([127, 0, 0, 2], PORT));
    let source = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut stream = host.connect(source, server, Duration::from_secs(5))?;
    Ok(traffic::exchange(&mut stream, b"hello")?)
}

#[test]
fn installs_runs_upgrades_and_goes() -> Result<()> {
    const TEST: &str = "installs_runs_upgrades_and_goes";
    let (Some(packages), Some(archive)) = (
        prepared(TEST, "FLOWPROOF_PACKAGES"),
        prepared(TEST, "FLOWPROOF_ROOT"),
    ) else {
        return Ok(());
    };
    if lab::skipped(TEST) {
        return Ok(());
    }
    if let Some(reason) = machine::obstacle() {
        skip::skip(TEST, &reason);
        return Ok(());
    }
    let machine = Machine::boot(&archive)?;
    let host = Arc::clone(machine.host());
    let before = files(&machine)?;
    machine.copy(&package(&packages.join("first"))?, "/tmp/first.deb")?;
    machine.copy(&package(&packages.join("second"))?, "/tmp/second.deb")?;

    installed(&machine)?;
    confined(&machine)?;
    let server = traffic::echo_tcp(host.listen(([127, 0, 0, 2], PORT))?)?;
    reloaded(&machine, &host)?;
    for _ in 0..3 {
        talk(&host)?;
    }
    await_answered(&host, 3)?;
    let flowing = Traffic::start(&host, Duration::from_millis(5));
    hung(&machine)?;
    upgraded(&machine, &flowing)?;
    let made = flowing.stop()?;
    // Whatever was said while no daemon ran was counted by the programs.
    await_answered(&host, made + 3)?;
    assert_eq!(server.served(), made + 3);
    gone(&machine, &before)
}

/// It starts by being installed, and says how it does.
fn installed(machine: &Machine) -> Result<()> {
    machine.run("dpkg --install /tmp/first.deb")?;
    let state = |name: &str| machine.property(SERVICE, name);
    assert_eq!(
        state("ActiveState")?,
        "active",
        "{}",
        machine.run("journalctl -u flowproof")?
    );
    let release: u32 = machine
        .run("systemctl --version | sed -n '1s/^systemd \\([0-9]*\\).*/\\1/p'")?
        .trim()
        .parse()?;
    let kind = if release < 253 {
        "notify"
    } else {
        "notify-reload"
    };
    assert_eq!(state("Type")?, kind);
    assert_eq!(state("UnitFileState")?, "enabled");
    let status = state("StatusText")?;
    ensure!(status.starts_with("watching "), "{status}");
    let metrics = scrape(machine.host())?;
    ensure!(
        metrics.has("flowproof_build_info", &[("backend", "ebpf")]),
        "{}",
        metrics.show("flowproof_build_info", &[])
    );
    for program in ["flowproof --version", "flowproof check --help"] {
        machine.run(program)?;
    }
    machine.run("flowproof check /usr/share/flowproof/rules/rimo3.yaml")?;
    Ok(())
}

/// It runs as its own user with four capabilities, and no more than the unit says.
fn confined(machine: &Machine) -> Result<()> {
    let id = machine.property(SERVICE, "MainPID")?;
    let status = machine.run(&format!("cat /proc/{id}/status"))?;
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
            .with_context(|| format!("no {name} in {status}"))
    };
    let user = machine.run("id -u flowproof")?.trim().to_owned();
    ensure!(
        user != "0" && field("Uid")?.split_whitespace().all(|it| it == user),
        "{status}"
    );
    for set in ["CapBnd", "CapPrm"] {
        let held = u64::from_str_radix(field(set)?, 16)?;
        ensure!(
            held & !CAPABILITIES == 0,
            "{set} {held:x} is more than {CAPABILITIES:x}"
        );
    }
    assert_eq!(field("NoNewPrivs")?, "1");
    assert_eq!(field("Seccomp")?, "2");
    assert_eq!(
        machine.run(&format!("stat -c %U:%a {PINS}"))?.trim(),
        "flowproof:700"
    );
    assert_eq!(
        machine.run("stat -c %U:%a /var/lib/flowproof")?.trim(),
        "flowproof:750"
    );
    ensure!(
        !machine.run(&format!("find {PINS} -type f"))?.is_empty(),
        "nothing is pinned"
    );
    machine.run("test -s /var/lib/flowproof/ledger.sqlite")?;
    Ok(())
}

/// `systemctl reload` comes back when the new matrix is in force, or has been refused.
fn reloaded(machine: &Machine, host: &Host) -> Result<()> {
    machine.write("/etc/flowproof/flowproof.yaml", CONFIG)?;
    machine.write("/etc/flowproof/app.yaml", &matrix())?;
    machine.write("/etc/flowproof/site.yaml", SITE)?;
    machine.run("systemctl reload flowproof")?;
    let in_force = |metrics: &Metrics| {
        metrics.has(
            "flowproof_requirement_info",
            &[("requirement", "web-to-db")],
        )
    };
    // Before 253 nobody waits for the reload's end.
    let loaded = wait_for(LIMIT, || scrape(host).ok().filter(in_force));
    ensure!(
        loaded.is_some(),
        "{}",
        machine.run("journalctl -u flowproof")?
    );

    machine.write("/etc/flowproof/app.yaml", "system: [\n")?;
    machine.run("systemctl reload flowproof")?;
    let refused = wait_for(LIMIT, || {
        let status = machine.property(SERVICE, "StatusText").ok()?;
        status
            .contains("the matrix before stays in force")
            .then_some(())
    });
    ensure!(
        refused.is_some(),
        "{}",
        machine.property(SERVICE, "StatusText")?
    );
    ensure!(in_force(&scrape(host)?));
    machine.write("/etc/flowproof/app.yaml", &matrix())?;
    machine.run("systemctl reload flowproof")?;
    Ok(())
}

/// A daemon that is stuck is replaced by the watchdog, and the next one adopts what is pinned.
fn hung(machine: &Machine) -> Result<()> {
    machine.write(
        "/run/systemd/system/flowproof.service.d/lab.conf",
        "[Service]\nWatchdogSec=6s\n",
    )?;
    machine.run("systemctl daemon-reload && systemctl restart flowproof")?;
    let before = machine.property(SERVICE, "MainPID")?;
    // It lives through several limits as long as it does its work.
    thread::sleep(Duration::from_secs(9));
    assert_eq!(
        machine.property(SERVICE, "MainPID")?,
        before,
        "{}",
        machine.run("journalctl -u flowproof")?
    );
    machine.run(&format!("kill -STOP {before}"))?;
    let replaced = wait_for(LIMIT, || {
        let now = machine.property(SERVICE, "MainPID").ok()?;
        let active = machine.property(SERVICE, "ActiveState").ok()? == "active";
        (active && now != before && now != "0").then_some(())
    });
    let said = machine.run("journalctl -u flowproof")?;
    ensure!(
        replaced.is_some() && said.contains("Watchdog timeout"),
        "{said}"
    );
    assert_eq!(machine.property(SERVICE, "NRestarts")?, "1");
    Ok(())
}

/// An upgrade keeps the operator's files, and counts go on.
fn upgraded(machine: &Machine, flowing: &Traffic) -> Result<()> {
    let (before, made) = (machine.property(SERVICE, "MainPID")?, flowing.made());
    machine.run("dpkg --install /tmp/second.deb")?;
    let version = machine.run("dpkg-query --show --showformat '${Version}' flowproof")?;
    ensure!(version.ends_with("-2"), "{version}");
    assert_eq!(machine.property(SERVICE, "ActiveState")?, "active");
    ensure!(
        machine.property(SERVICE, "MainPID")? != before,
        "the old program goes on"
    );
    assert_eq!(machine.run("cat /etc/flowproof/flowproof.yaml")?, CONFIG);
    ensure!(flowing.made() > made, "no traffic while it was upgraded");
    Ok(())
}

/// Removed, it leaves configuration and ledger; purged, nothing.
fn gone(machine: &Machine, before: &[String]) -> Result<()> {
    machine.run("dpkg --remove flowproof")?;
    ensure!(
        machine
            .try_run(&format!("test -e {PINS}"), &[])?
            .status
            .code()
            == Some(1),
        "pins are left"
    );
    ensure!(
        machine
            .try_run("pgrep -x flowproof || ps -C flowproof", &[])?
            .stdout
            .is_empty()
    );
    machine
        .run("test -s /etc/flowproof/flowproof.yaml && test -s /var/lib/flowproof/ledger.sqlite")?;
    // Debian masks a unit whose package was removed.
    let state = machine.property(SERVICE, "LoadState")?;
    ensure!(["not-found", "masked"].contains(&state.as_str()), "{state}");

    machine.run("dpkg --purge flowproof")?;
    let left: Vec<String> = files(machine)?
        .into_iter()
        .filter(|path| !before.contains(path))
        .collect();
    ensure!(left.is_empty(), "left behind: {left:#?}");
    for database in ["passwd", "group"] {
        let found = machine.try_run(&format!("getent {database} flowproof"), &[])?;
        ensure!(found.stdout.is_empty(), "the {database} has it still");
    }
    Ok(())
}

/// All files of the system but those that every program and every day adds to.
fn files(machine: &Machine) -> Result<Vec<String>> {
    let found = machine.run(
        "find / -xdev -path /tmp -prune -o -path /var/log -prune -o -path /var/cache -prune -o -path /var/tmp -prune -o \
         -path '/etc/*-' -prune -o -path '/var/lib/dpkg/*-old' -prune -o -path /var/lib/systemd -prune -o -print",
    )?;
    Ok(found.lines().map(str::to_owned).collect())
}
