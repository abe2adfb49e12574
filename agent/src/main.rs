//! Arguments, exit codes and signals: nothing else.

use std::process::ExitCode;

use clap::Parser;
use flowproof::cli::Cli;
use nix::sys::signal::{SigSet, Signal};

fn main() -> ExitCode {
    // A parent that blocked signals for itself hands the block down, and a daemon that can't be asked to
    // end has to be killed.
    let ours = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    // It only fails for a mask that is no mask.
    let _ = ours.thread_unblock();
    Cli::parse().run()
}
