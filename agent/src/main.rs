//! Arguments, exit codes and signals: nothing else.

use std::process::ExitCode;

use clap::Parser;
use flowproof::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
