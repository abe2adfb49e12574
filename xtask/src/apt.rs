//! Installs what a command needs and this machine lacks, and says so. Whether something is there is found by using it
//! (a program on `PATH`, a library that links), so a machine that got it in another way is left alone.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

use crate::shell::{Privilege, find_program, run, say, succeeds};

/// Something that must be on the machine, and the Debian or Ubuntu package that brings it.
pub(crate) struct Need {
    what: What,
    package: &'static str,
}

enum What {
    Program(&'static str),
    Library(&'static str),
    File(&'static str),
}

impl Need {
    pub(crate) const fn program(name: &'static str, package: &'static str) -> Self {
        Self {
            what: What::Program(name),
            package,
        }
    }

    /// A library to link against, named without `lib`.
    pub(crate) const fn library(name: &'static str, package: &'static str) -> Self {
        Self {
            what: What::Library(name),
            package,
        }
    }

    /// Something without a program, known by a file or folder.
    pub(crate) const fn file(path: &'static str, package: &'static str) -> Self {
        Self {
            what: What::File(path),
            package,
        }
    }

    fn is_there(&self) -> bool {
        match self.what {
            What::File(path) => Path::new(path).exists(),
            What::Program(name) => find_program(name).is_some(),
            What::Library(name) => links(name),
        }
    }
}

/// Whether the C compiler that cargo links with finds the library.
fn links(library: &str) -> bool {
    let mut compiler = Command::new("cc");
    compiler
        .args(["-x", "c", "-", "-o", "/dev/null"])
        .arg(format!("-l{library}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut child) = compiler.spawn() else {
        return false;
    };
    if let Some(mut input) = child.stdin.take() {
        // A compiler that has gone away fails below, by its exit status.
        let _ = std::io::Write::write_all(&mut input, b"int main(void) { return 0; }\n");
    }
    child.wait().is_ok_and(|status| status.success())
}

/// Installs the packages of what is missing.
///
/// # Errors
/// When something is missing and can't be installed: no apt-get, no root, or apt-get failed. The message says what to
/// install.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !need.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let packages_text = packages.join(" ");
    if find_program("apt-get").is_none() {
        bail!(
            "missing here: {packages_text} (Debian's names): install them by your system's package manager"
        );
    }
    let privilege = Privilege::of_this_user();
    if privilege == Privilege::None {
        bail!(
            "missing here: {packages_text}: install them with `apt-get install {packages_text}` as root"
        );
    }
    say(format!(
        "installing what is missing here: apt-get install {packages_text}"
    ));
    let install = || -> Result<()> {
        let Some(mut command) = privilege.command("env") else {
            bail!("no root");
        };
        command.args([
            "DEBIAN_FRONTEND=noninteractive",
            // Debian starts a service with its package, except in the runlevel for repairs: a test needs a program, and
            // shall not put a web server onto the machine's port 80.
            "RUNLEVEL=1",
            "apt-get",
            "-q",
            "install",
            "-y",
            "--no-install-recommends",
        ]);
        run(command
            .args(&packages)
            .stdin(Stdio::null())
            .stdout(Stdio::null()))
    };
    // Fails on a machine whose package lists are empty or old.
    if install().is_err() {
        update(privilege)?;
        install()?;
    }
    Ok(())
}

/// Brings the package lists up to date.
pub(crate) fn update(privilege: Privilege) -> Result<()> {
    let Some(mut command) = privilege.command("apt-get") else {
        bail!("the package lists are empty or old: run `apt-get update` as root");
    };
    say("bringing the package lists up to date: apt-get update");
    run(command
        .args(["-q", "update"])
        .stdin(Stdio::null())
        .stdout(Stdio::null()))
}

/// Whether the package lists know a package that can be downloaded.
pub(crate) fn knows(package: &str) -> bool {
    succeeds(Command::new("apt-cache").args(["show", "--no-all-versions", package]))
}

/// The packages that `package` depends on; with `recursively`, also theirs, and `package` itself.
pub(crate) fn dependencies(package: &str, recursively: bool) -> Result<Vec<String>> {
    let mut command = Command::new("apt-cache");
    command.arg("depends").args([
        "--no-recommends",
        "--no-suggests",
        "--no-conflicts",
        "--no-breaks",
        "--no-replaces",
        "--no-enhances",
    ]);
    if recursively {
        command.arg("--recurse");
    }
    let text = crate::shell::read(command.arg(package))?;
    Ok(if recursively {
        // The packages stand at the margin, their dependencies are indented; virtual ones are in angle brackets.
        text.lines()
            .filter(|line| !line.starts_with([' ', '|', '<']))
            .map(str::to_owned)
            .collect()
    } else {
        text.lines()
            .filter_map(|line| {
                line.trim_start_matches([' ', '|'])
                    .strip_prefix("Depends: ")
            })
            .filter(|name| !name.starts_with('<'))
            .map(str::to_owned)
            .collect()
    })
}

/// Downloads packages into `folder` without installing them. Needs no root.
pub(crate) fn download(packages: &[String], folder: &Path) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(["-q", "download"]);
    if Privilege::of_this_user() == Privilege::Root {
        // Root's apt-get drops to a user that may not write below the target folder.
        command.args(["-o", "APT::Sandbox::User=root"]);
    }
    run(command
        .args(packages)
        .current_dir(folder)
        .stdout(Stdio::null()))
}
