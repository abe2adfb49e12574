//! `cargo xtask test`: every check and every test, on a machine that may lack anything but Rust. What can't be done here
//! is named at the end with its reason, never passed over.

mod packages;
mod tally;

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};

use self::tally::Tally;
use crate::{
    apt::{self, Need},
    collector, deny, packs,
    shell::{self, Privilege, cargo, describe, find_program, read, run, say, succeeds, target},
};

/// Without this nothing links.
const TO_BUILD: [Need; 1] = [Need::library("pcap", "libpcap-dev")];

/// What the labs call.
const TO_TEST: [Need; 11] = [
    Need::program("ip", "iproute2"),
    Need::program("nft", "nftables"),
    Need::program("tcpdump", "tcpdump"),
    // dumpcap: the capture program whose files are pcapng.
    Need::program("dumpcap", "wireshark-common"),
    // The name server and the web server of the name labs. The first package has no service; nginx's has.
    Need::program("dnsmasq", "dnsmasq-base"),
    Need::program("nginx", "nginx-light"),
    // The client that everybody has: TLS, HTTP/2, passwords, certificates.
    Need::program("curl", "curl"),
    // The syslog server of the event labs. Its service is not started, see `apt`; for TLS it has a package of its own,
    // found by its manual since it has no program.
    Need::program("rsyslogd", "rsyslog"),
    Need::file("/usr/share/doc/rsyslog-openssl", "rsyslog-openssl"),
    // The rules for Prometheus are checked and tested by its own tool.
    Need::program("promtool", "prometheus"),
    // The report's page is opened by a browser.
    Need::program("chromium", "chromium"),
];

/// The package whose tests need root.
const LABS: &str = "flowproof-tests";

/// The oldest Rust that the workspace states, as `major.minor`.
const OLDEST_RUST: &str = env!("CARGO_PKG_RUST_VERSION");

/// Runs everything. The sums are the last line of the output, so a failure is told by the exit code alone.
///
/// # Errors
/// When the tests can't be run at all: something is missing, or the workspace doesn't build.
pub(crate) fn test() -> Result<ExitCode> {
    let mut tally = Tally::default();
    apt::ensure(&TO_BUILD)?;
    if let Err(error) = apt::ensure(&TO_TEST) {
        // The tests that need it find out by themselves and skip.
        say(format!("{error:#}"));
    }
    if let Err(error) = collector::ensure() {
        say(format!("{error:#}"));
    }
    checks(&mut tally)?;

    say("building the workspace");
    run(cargo().args(["build", "--workspace"]))?;
    if let Some(object) = env::var_os("FLOWPROOF_BPF_OBJECT") {
        say(format!("testing the kernel object {}", object.display()));
    }
    let skip_log = target().join("skipped-tests");
    // Made here by this user, so that tests run as root by sudo leave no file that only root can remove.
    fs::write(&skip_log, "").with_context(|| format!("can't write {}", skip_log.display()))?;
    let mut variables = packages::prepare();
    variables.push(("FLOWPROOF_BIN", target().join("debug/flowproof")));
    variables.push(("FLOWPROOF_SKIP_LOG", skip_log.clone()));
    let with_variables = |mut command: Command| {
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command
    };

    match Privilege::of_this_user() {
        Privilege::Root => run_tests(&mut with_variables(cargo()), &["--workspace"], &mut tally)?,
        Privilege::None => {
            say("neither root nor sudo here: tests that need root will be skipped");
            run_tests(&mut with_variables(cargo()), &["--workspace"], &mut tally)?;
        }
        Privilege::Sudo => {
            run_tests(
                &mut with_variables(cargo()),
                &["--workspace", "--exclude", LABS],
                &mut tally,
            )?;
            say("the labs need root: running their tests by sudo");
            let runner = sudo_runner()?;
            run_tests(
                &mut with_variables(cargo()),
                &["--config", &runner, "--package", LABS],
                &mut tally,
            )?;
        }
    }

    let skips = fs::read_to_string(&skip_log)
        .with_context(|| format!("can't read {}", skip_log.display()))?;
    skips.lines().for_each(|line| tally.read_skip(line));
    println!("\n{}", tally.report());
    Ok(if tally.failed() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What isn't a test but must hold: the stated Rust version, formatting, lints, licences.
fn checks(tally: &mut Tally) -> Result<()> {
    oldest_rust(tally)?;

    if succeeds(cargo().args(["fmt", "--version"])) {
        say("checking the format: cargo fmt --check");
        check(tally, "format", cargo().args(["fmt", "--all", "--check"]));
        check(
            tally,
            "format of agent-ebpf",
            cargo().args(["fmt", "--check", "--manifest-path", "agent-ebpf/Cargo.toml"]),
        );
    } else {
        tally.skip(
            "format",
            "rustfmt is missing: `rustup component add rustfmt`",
        );
    }
    if succeeds(cargo().args(["clippy", "--version"])) {
        say("checking the lints: cargo clippy");
        check(
            tally,
            "clippy",
            cargo().args(["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"]),
        );
    } else {
        tally.skip("clippy", "clippy is missing: `rustup component add clippy`");
    }
    match deny::licences() {
        Ok(good) => say(good),
        Err(error) => tally.fail(format!("licences: {error:#}")),
    }
    if let Err(error) = packs::packs(true) {
        tally.fail(format!("pages of the rule packs: {error:#}"));
    }
    Ok(())
}

fn check(tally: &mut Tally, name: &str, command: &mut Command) {
    if let Err(error) = run(command) {
        tally.fail(format!("{name}: {error:#}"));
    }
}

/// The oldest Rust that Cargo.toml states must be enough. With a newer one, everything here would pass without it; so
/// the stated one is asked too, if it is installed.
fn oldest_rust(tally: &mut Tally) -> Result<()> {
    let version = read(
        Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version"),
    )?;
    let here = minor_version(&version)
        .with_context(|| format!("can't read rustc's version: {version}"))?;
    let oldest = minor_version(OLDEST_RUST).context("can't read rust-version in Cargo.toml")?;
    let version = version.trim_end();
    if here < oldest {
        bail!(
            "{version} is too old: Rust {OLDEST_RUST} or later is needed; get it with `rustup update`"
        );
    }
    if here == oldest {
        say(format!(
            "{version}: this is the oldest Rust that Cargo.toml states, so all that follows proves it"
        ));
        return Ok(());
    }
    say(format!(
        "{version}: at least Rust {OLDEST_RUST}, which Cargo.toml states"
    ));
    let toolchain = format!("{OLDEST_RUST}.0");
    let mut rustup = Command::new("rustup");
    rustup
        .env("RUSTUP_AUTO_INSTALL", "0")
        .args(["run", &toolchain, "cargo"]);
    if find_program("rustup").is_some() && succeeds(rustup.arg("--version")) {
        say(format!("checking with Rust {OLDEST_RUST}"));
        let mut cargo = Command::new("rustup");
        cargo
            .args([
                "run",
                &toolchain,
                "cargo",
                "check",
                "--workspace",
                "--target-dir",
            ])
            .arg(target().join("oldest-rust"))
            .current_dir(shell::root());
        for inherited in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
            cargo.env_remove(inherited);
        }
        check(tally, "oldest Rust", &mut cargo);
    } else {
        tally.skip(
            "oldest Rust",
            &format!("Rust {OLDEST_RUST} isn't installed, only a newer one"),
        );
    }
    Ok(())
}

/// Major and minor version in `rustc 1.95.0 (...)` or `1.95`.
fn minor_version(text: &str) -> Option<(u32, u32)> {
    let version = text
        .split(' ')
        .find(|word| word.starts_with(|digit: char| digit.is_ascii_digit()))?;
    let mut parts = version.trim_end().split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Runs `cargo test`, passing its output on while counting.
fn run_tests(command: &mut Command, selection: &[&str], tally: &mut Tally) -> Result<()> {
    command
        .arg("test")
        .arg("--no-fail-fast")
        .args(selection)
        .stdout(Stdio::piped());
    say(format!("running {}", describe(command)));
    let failed_before = tally.failed();
    let mut child = command
        .spawn()
        .with_context(|| format!("can't start {}", describe(command)))?;
    let output = child
        .stdout
        .take()
        .context("cargo has no standard output")?;
    for line in BufReader::new(output).split(b'\n') {
        // Bytes, since a test may print what is no UTF-8.
        let line = line.context("can't read cargo's output")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.read(&line);
    }
    let status = child.wait().context("can't wait for cargo")?;
    if !status.success() && tally.failed() == failed_before {
        // A crash or a compiler's error leaves no result line.
        tally.fail(format!("{}: {status}, see above", describe(command)));
    }
    Ok(())
}

/// Cargo's setting that has test binaries started by sudo, with the variables that tests read.
fn sudo_runner() -> Result<String> {
    let verbose = read(Command::new("rustc").arg("-vV"))?;
    let host = verbose
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc doesn't tell its host")?;
    Ok(format!(
        "target.{host}.runner = [\"sudo\", \"--preserve-env={}\"]",
        [
            "FLOWPROOF_BIN",
            "FLOWPROOF_SKIP_LOG",
            "FLOWPROOF_PACKAGES",
            "FLOWPROOF_ROOT",
            "FLOWPROOF_KUBERNETES",
            "FLOWPROOF_BPF_OBJECT",
            "FLOWPROOF_SEEDS",
            "RUST_BACKTRACE",
            "CARGO_MANIFEST_DIR"
        ]
        .join(",")
    ))
}

#[cfg(test)]
mod tests {
    use super::minor_version;

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        assert_eq!(
            minor_version("rustc 1.95.0 (59807616e 2026-04-14)\n"),
            Some((1, 95))
        );
        assert_eq!(minor_version("1.95"), Some((1, 95)));
        assert!(minor_version("rustc 1.100.0-nightly") > minor_version("1.95"));
        assert_eq!(minor_version("rustc"), None);
    }
}
