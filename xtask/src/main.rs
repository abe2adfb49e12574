//! The project's own commands, so that a fresh machine needs nothing but `cargo`: `cargo xtask run`, `test`, `bench`,
//! `fuzz`, `demo`, `ebpf`, `packs`, `dist`, `deny`. They are Rust instead of shell scripts because they run where the daemon is built anyway,
//! and are checked by the same compiler and lints.
//!
//! # For those who write tests
//!
//! `cargo xtask test` gives every test binary these environment variables:
//!
//! - `FLOWPROOF_BIN`: the daemon's binary of this build.
//! - `FLOWPROOF_SKIP_LOG`: a file for skips. libtest knows no skip at run time, so a test that can't do its work here
//!   calls `flowproof_tests::skip::skip("name", "reason")` and returns at once. That appends `name<TAB>reason` to the
//!   file; the closing line then counts the test as skipped and not as passed, and the reason is printed. A crate that
//!   can't depend on `flowproof-tests` appends the same line itself, with one `write` on a file opened for appending.
//! - `FLOWPROOF_PACKAGES`, `FLOWPROOF_ROOT`, `FLOWPROOF_KUBERNETES`: where packages, a clean system and helm are, if they can be
//!   had here.
//! - `FLOWPROOF_BPF_OBJECT`, if the caller has set it: the kernel object to test instead of the committed one.
//!
//! `#[ignore = "reason"]` counts as skipped too, with its reason. Only the tests of the `flowproof-tests` package are
//! run as root (directly, or by sudo); a test that needs root lives there, and skips where it has none.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these commands talk to the developer at a terminal"
)]

mod apt;
mod bench;
mod collector;
mod demo;
mod deny;
mod dist;
mod ebpf;
mod fuzz;
mod packs;
mod run;
mod shell;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  run [-- ARGS...]   build, then watch this machine's traffic: `flowproof run ARGS...`
  demo [-- --stay]   build a lab of hosts on this machine, watch their traffic, show what was found
  test               install what the tests need, run every check and every test, say what was skipped
  bench [NAME...]    measure against peers and floor, write docs/performance.md (with names: those only, nothing is written;
                     --quick: fewer and shorter runs)
  fuzz [FACTOR]      run the property tests on other cases than those of `test`, FACTOR times as many (default: 20)
  ebpf               build the kernel object and put it into agent-ebpf/object
  ebpf --check       rebuild it below the target folder; fail if the committed one was built from other sources
                     (both: --toolchain nightly|debian instead of the automatic choice)
  dist               build everything that is shipped, in target/dist: packages, chart, man pages, completions
  packs              render rules/*.md, the page of each rule pack
  packs --check      fail if a page is not what its pack gives
  deny               check the dependencies' licences, and with cargo-deny also advisories and sources
";

/// What was asked for on the command line.
enum Command {
    Run(Vec<String>),
    Demo(Vec<String>),
    Bench(Vec<String>),
    Test,
    Fuzz { rounds: u32 },
    Ebpf(ebpf::Options),
    Packs { check: bool },
    Dist,
    Deny,
    Help,
}

impl Command {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let Some(verb) = arguments.next() else {
            bail!("a command is missing\n\n{USAGE}");
        };
        let mut rest: Vec<String> = arguments.collect();
        let command = match verb.as_str() {
            "run" | "demo" => {
                // Both `cargo xtask run -- --site x` and `cargo xtask run --site x` mean the same.
                if rest.first().is_some_and(|first| first == "--") {
                    rest.remove(0);
                }
                return Ok(if verb == "run" {
                    Self::Run(rest)
                } else {
                    Self::Demo(rest)
                });
            }
            "bench" => return Ok(Self::Bench(rest)),
            "packs" if rest == ["--check"] => return Ok(Self::Packs { check: true }),
            "packs" => Self::Packs { check: false },
            "ebpf" => return Ok(Self::Ebpf(ebpf::Options::parse(&rest)?)),
            "fuzz" => {
                return Ok(Self::Fuzz {
                    rounds: fuzz::parse(&rest)?,
                });
            }
            "test" => Self::Test,
            "dist" => Self::Dist,
            "deny" => Self::Deny,
            "help" | "--help" | "-h" => Self::Help,
            other => bail!("no such command: {other}\n\n{USAGE}"),
        };
        match rest.first() {
            Some(surplus) => bail!("`{verb}` takes no argument, but got: {surplus}\n\n{USAGE}"),
            None => Ok(command),
        }
    }
}

fn main() -> ExitCode {
    // Cargo calls this same program in rustc's place while the kernel object is built.
    if let Some(code) = ebpf::shim::run_if_asked() {
        return code;
    }
    let done = Command::parse(std::env::args().skip(1)).and_then(execute);
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(arguments) => run::run(&arguments)?,
        Command::Demo(arguments) => demo::demo(&arguments)?,
        Command::Bench(arguments) => bench::bench(&arguments)?,
        Command::Test => return test::test(),
        Command::Fuzz { rounds } => fuzz::fuzz(rounds)?,
        Command::Ebpf(options) => ebpf::ebpf(options)?,
        Command::Packs { check } => packs::packs(check)?,
        Command::Dist => dist::dist()?,
        Command::Deny => deny::deny()?,
        Command::Help => println!("{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}
