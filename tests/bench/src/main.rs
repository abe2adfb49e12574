//! What flowproof costs, beside what its peers cost and beside the floor: the least that anything in its place would.
//!
//! One run on one machine measures all of them in turns, because only ratios mean something elsewhere. `cargo xtask bench`
//! builds this in release and runs it; it is no part of the tests, and no figure here passes or fails one.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to the developer at a terminal"
)]

mod benches;
mod bpf;
mod context;
mod flows;
mod machine;
mod measure;
mod peers;
mod probe;
mod random;
mod report;
mod system;
mod traffic;
mod wire;
mod world;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use benches::ALL;
use context::Context;
use report::{Notes, Section};

/// Options, besides names of benches.
#[derive(Debug, Default, PartialEq)]
struct Options {
    quick: bool,
    names: Vec<String>,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--quick" => options.quick = true,
                name if ALL.iter().any(|bench| bench.name == name) => options.names.push(argument),
                other => {
                    let known: Vec<_> = ALL.iter().map(|bench| bench.name).collect();
                    bail!(
                        "no such bench: {other}; there are {} (and --quick)",
                        known.join(", ")
                    )
                }
            }
        }
        Ok(options)
    }

    /// Whether everything was measured, as often as the document says.
    fn is_full(&self) -> bool {
        !self.quick && self.names.is_empty()
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // This program is also the floor of replays, as a process of its own like the others.
    let done = match arguments.as_slice() {
        [verb, file] if verb == benches::replay::LOOP => benches::replay::floor(Path::new(file)),
        [verb, result, program, rest @ ..] if verb == measure::TIMED => {
            measure::timed(Path::new(result), program, rest)
        }
        _ => Options::parse(arguments.into_iter()).and_then(|options| bench(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    let context = Context::new(options.quick)?;
    let machine = machine::describe();
    for line in &machine {
        println!("{line}");
    }
    let mut sections: Vec<Section> = Vec::new();
    for bench in ALL {
        if !options.names.is_empty() && !options.names.iter().any(|name| name == bench.name) {
            continue;
        }
        eprintln!("bench: {}", bench.name);
        let mut section = Section::new(bench.title);
        // What can't be measured here must not keep the rest from being.
        if let Err(error) = (bench.run)(&context, &mut section) {
            section.lack(format!("{error:#}"));
        }
        print!("{}", report::terminal(&section));
        sections.push(section);
    }
    if !options.is_full() {
        println!("\ndocs/performance.md is written by a full run only");
        return Ok(());
    }
    let notes = context.root.join("tests/bench/notes.md");
    let notes = std::fs::read_to_string(&notes)
        .with_context(|| format!("can't read {}", notes.display()))?;
    let path = context.root.join("docs/performance.md");
    let text = report::document(&machine, &sections, &Notes::parse(&notes));
    std::fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    println!("\nwritten: docs/performance.md");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options> {
        Options::parse(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    #[test]
    fn only_a_run_of_everything_is_full() {
        assert!(parse(&[]).unwrap().is_full());
        assert!(!parse(&["--quick"]).unwrap().is_full());
        assert!(!parse(&["replay"]).unwrap().is_full());
    }

    #[test]
    fn a_wrong_name_is_told_with_those_there_are() {
        let error = parse(&["replya"]).unwrap_err().to_string();
        assert!(
            error.contains("replya") && error.contains("replay"),
            "{error}"
        );
    }
}
