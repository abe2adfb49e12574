//! Writes the man pages and the shell completions of `flowproof` into a folder: `cargo run --example manual -- FOLDER`.
//! `cargo xtask dist` packs them. An example and no verb, so that the daemon carries neither.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::{Shell, generate_to};

/// The shells whose completions are shipped, each under the name that it looks for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

#[expect(clippy::print_stderr, reason = "this is a program")]
fn main() -> std::process::ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: manual FOLDER");
        return std::process::ExitCode::from(2);
    };
    match write(&flowproof::cli::command(), Path::new(&folder)) {
        Ok(_) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manual: {}: {error}", Path::new(&folder).display());
            std::process::ExitCode::FAILURE
        }
    }
}

/// Writes a page for the program and each of its verbs below `man/`, and the completions below `completions/`. Returns all
/// files.
///
/// # Errors
/// A file can't be written.
pub(crate) fn write(command: &Command, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut command = command.clone();
    command.build();
    let man = folder.join("man");
    fs::create_dir_all(&man)?;
    let mut files = vec![page(&command, &man.join("flowproof.1"))?];
    let verbs: Vec<Command> = command
        .get_subcommands()
        .filter(|verb| verb.get_name() != "help" && !verb.is_hide_set())
        .cloned()
        .collect();
    for verb in verbs {
        let name = format!("flowproof-{}", verb.get_name());
        let path = man.join(format!("{name}.1"));
        // Its usage line has the two words; the page's name has one.
        files.push(page(&verb.display_name(&name), &path)?);
    }
    let completions = folder.join("completions");
    fs::create_dir_all(&completions)?;
    for shell in SHELLS {
        files.push(generate_to(shell, &mut command, "flowproof", &completions)?);
    }
    Ok(files)
}

fn page(command: &Command, path: &Path) -> io::Result<PathBuf> {
    clap_mangen::Man::new(command.clone())
        .manual("flowproof")
        .source(concat!("flowproof ", env!("CARGO_PKG_VERSION")))
        .render(&mut File::create(path)?)?;
    Ok(path.to_path_buf())
}
