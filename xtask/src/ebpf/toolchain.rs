//! A compiler that makes BPF code. Stable Rust can't: `core` isn't shipped for that target. Two ways lead there, a
//! nightly toolchain with the library's sources, or Debian's compiler, which comes with `core` prebuilt.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::debian;
use crate::shell::{find_program, read, run, say, target};

/// bpf-linker's version; newer ones may generate other code.
pub(super) const LINKER_VERSION: &str = "0.13.0";

/// Everything that the build of the object needs to know of a toolchain.
pub(super) struct Toolchain {
    /// The start of the command: `cargo`, or `rustup run nightly cargo`.
    pub(super) cargo: Vec<OsString>,
    /// The compiler, if it isn't cargo's own.
    pub(super) rustc: Option<PathBuf>,
    pub(super) linker: PathBuf,
    pub(super) objcopy: PathBuf,
    /// For the linker and objcopy; the compiler has it by itself.
    pub(super) library_path: Option<OsString>,
    /// `core` must be compiled, from sources below this folder.
    pub(super) library_sources: Option<PathBuf>,
    /// Compiler and linker with their versions, for the object's note.
    pub(super) versions: String,
}

/// Which way to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    Automatic,
    Nightly,
    Debian,
}

/// Where xtask keeps what it gets for itself.
pub(super) fn folder() -> PathBuf {
    target().join("ebpf-toolchain")
}

/// Finds a toolchain, or makes one below the target folder.
pub(super) fn get(choice: Choice) -> Result<Toolchain> {
    match choice {
        Choice::Nightly => nightly().context("can't build with nightly"),
        Choice::Debian => debian::toolchain(),
        Choice::Automatic => match nightly() {
            Ok(toolchain) => {
                say(format!(
                    "kernel object: with {}, which is installed with the library's sources",
                    toolchain.versions
                ));
                Ok(toolchain)
            }
            Err(reason) => {
                say(format!(
                    "kernel object: with Debian's compiler, unpacked below the target folder ({reason:#})"
                ));
                debian::toolchain().with_context(|| {
                    "no compiler for BPF here: get one with `rustup toolchain install nightly --component rust-src` \
                     and a `bpf-linker` on PATH, or build on Debian 12 or later"
                })
            }
        },
    }
}

/// An installed nightly with rust-src, and a bpf-linker for it.
fn nightly() -> Result<Toolchain> {
    if find_program("rustup").is_none() {
        bail!("no rustup, hence no nightly");
    }
    let rustc = |arguments: &[&str]| {
        // Only look: rustup must not start to download a toolchain.
        read(
            Command::new("rustup")
                .env("RUSTUP_AUTO_INSTALL", "0")
                .args(["run", "nightly", "rustc"])
                .args(arguments),
        )
    };
    let Ok(sysroot) = rustc(&["--print", "sysroot"]) else {
        bail!("no nightly toolchain");
    };
    let sysroot = PathBuf::from(sysroot.trim_end());
    let library_sources = sysroot.join("lib/rustlib/src/rust/library");
    if !library_sources.is_dir() {
        bail!("nightly lacks rust-src");
    }
    let verbose = rustc(&["-vV"])?;
    let field = |name: &str| {
        verbose
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
            .trim()
    };
    let llvm = field("LLVM version:").split('.').next().unwrap_or_default();
    let objcopy = sysroot
        .join("lib/rustlib")
        .join(field("host:"))
        .join("bin/rust-objcopy");
    if !objcopy.is_file() {
        bail!("nightly lacks rust-objcopy");
    }
    let linker = match find_program("bpf-linker") {
        Some(linker) => linker,
        None => {
            let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
            if !prefix.join("bin/llvm-config").is_file() {
                bail!(
                    "no bpf-linker on PATH, and no LLVM {llvm} in {} to build one",
                    prefix.display()
                );
            }
            linker(llvm, &prefix, None)?
        }
    };
    let linker_version = read(Command::new(&linker).arg("--version"))?;
    Ok(Toolchain {
        cargo: ["rustup", "run", "nightly", "cargo"]
            .map(OsString::from)
            .to_vec(),
        rustc: None,
        versions: format!(
            "{}, {}",
            verbose.lines().next().unwrap_or_default(),
            linker_version.trim_end()
        ),
        linker,
        objcopy,
        library_path: None,
        library_sources: Some(library_sources),
    })
}

/// bpf-linker for an LLVM of that major version, built on the first call.
pub(super) fn linker(
    llvm: &str,
    prefix: &Path,
    library_path: Option<&OsString>,
) -> Result<PathBuf> {
    let own = folder().join(format!("bpf-linker-{LINKER_VERSION}-llvm-{llvm}"));
    let program = own.join("bin/bpf-linker");
    if program.is_file() {
        return Ok(program);
    }
    say(format!(
        "building bpf-linker {LINKER_VERSION} for LLVM {llvm}, once: this takes a minute or two"
    ));
    let build = folder().join("bpf-linker-build");
    let mut cargo = crate::shell::cargo();
    cargo
        .args([
            "install",
            "--quiet",
            "--locked",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
        ])
        .args(["--no-track", "--root"])
        .arg(&own)
        .arg("--target-dir")
        .arg(&build)
        .env("LLVM_PREFIX", prefix)
        // Its optimisation saves no time here, and LLVM does the work.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_LTO", "off");
    if let Some(path) = library_path {
        cargo
            .env("LD_LIBRARY_PATH", with_inherited(path))
            .env("LIBRARY_PATH", path);
    }
    run(&mut cargo)?;
    // Only the program is needed from here on.
    let _ = std::fs::remove_dir_all(&build);
    Ok(program)
}

/// A library path before the one that this process has.
pub(super) fn with_inherited(path: &OsString) -> OsString {
    let mut whole = path.clone();
    if let Some(inherited) = env::var_os("LD_LIBRARY_PATH") {
        whole.push(":");
        whole.push(inherited);
    }
    whole
}
