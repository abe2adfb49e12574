//! `cargo xtask ebpf`: the kernel object. It is committed, so that everybody else needs only stable Rust; this command
//! makes it, always the same from the same sources and toolchain, and `--check` proves that the committed one is not
//! out of date.

mod debian;
mod digest;
pub(crate) mod shim;
mod toolchain;

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use self::{
    digest::Note,
    toolchain::{Choice, Toolchain},
};
use crate::shell::{root, run, say, target};

/// The compiler's name for BPF, little-endian.
const TARGET: &str = "bpfel-unknown-none";

/// The committed object, below the top folder.
const COMMITTED: &str = "agent-ebpf/object/flowproof.bpf.o";

/// The part of the compiler's flags that shapes the code and is the same everywhere.
const FLAGS: [&str; 3] = [
    // BTF names maps and programs for the loader, and source lines for the verifier's messages.
    "-Clink-arg=--btf",
    "-Cdebuginfo=2",
    // 32-bit registers and unsigned compare: kernel 5.1 and later.
    "-Ctarget-cpu=v3",
];

/// How `cargo xtask ebpf` was called.
pub(crate) struct Options {
    check: bool,
    toolchain: Choice,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            check: false,
            toolchain: Choice::Automatic,
        };
        let mut rest = arguments.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            match argument {
                "--check" => options.check = true,
                "--toolchain" => {
                    options.toolchain = match rest.next() {
                        Some("nightly") => Choice::Nightly,
                        Some("debian") => Choice::Debian,
                        Some(other) => bail!("--toolchain is nightly or debian, not {other}"),
                        None => bail!("--toolchain needs a value: nightly or debian"),
                    }
                }
                other => bail!("`ebpf` knows --check and --toolchain, not {other}"),
            }
        }
        Ok(options)
    }
}

/// Where the object that was built last lies: what `FLOWPROOF_BPF_OBJECT` is set to.
fn rebuilt() -> PathBuf {
    target().join("ebpf/flowproof.bpf.o")
}

/// Builds the object; then puts it where it is committed, or compares it with what is there.
pub(crate) fn ebpf(options: Options) -> Result<()> {
    let committed = root().join(COMMITTED);
    if options.check {
        // First, because it takes no time.
        check_sources(&committed)?;
    }
    build(&toolchain::get(options.toolchain)?, options.check)?;
    let object =
        fs::read(rebuilt()).with_context(|| format!("can't read {}", rebuilt().display()))?;
    let old = fs::read(&committed).unwrap_or_default();
    if options.check {
        compare(&old, &object);
        say(format!("the rebuilt object is {}", rebuilt().display()));
    } else if old == object {
        say(format!("{COMMITTED} is unchanged"));
    } else {
        let folder = committed.parent().unwrap_or(&committed);
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        fs::write(&committed, &object).with_context(|| format!("can't write {COMMITTED}"))?;
        say(format!(
            "{COMMITTED} is new ({} bytes): commit it with its sources",
            object.len()
        ));
    }
    Ok(())
}

/// Fails if the committed object was built from other sources than those here.
fn check_sources(committed: &Path) -> Result<()> {
    let remedy = "build it with `cargo xtask ebpf` and commit it";
    let object =
        fs::read(committed).with_context(|| format!("can't read {COMMITTED}: {remedy}"))?;
    let Some(note) = Note::find(&object) else {
        bail!("{COMMITTED} doesn't say what it was built from: {remedy}");
    };
    let here = digest::of_sources(&root(), &FLAGS)?;
    if note.sources != here {
        bail!(
            "{COMMITTED} was built from other sources (its digest {}, the sources' {here}): {remedy}",
            note.sources
        );
    }
    say(format!("{COMMITTED} was built from these sources ({here})"));
    Ok(())
}

/// Says whether the rebuilt object is the committed one. A difference is no failure: another compiler may well
/// generate other code from the same sources, and the tests run on the rebuilt object.
fn compare(committed: &[u8], rebuilt: &[u8]) {
    if committed == rebuilt {
        say("the rebuilt object is identical with the committed one, byte by byte");
        return;
    }
    match (Note::find(committed), Note::find(rebuilt)) {
        (Some(old), Some(new)) if old.toolchain != new.toolchain => say(format!(
            "the rebuilt object differs from the committed one, which another toolchain made: {} here, {} there",
            new.toolchain, old.toolchain
        )),
        (Some(_) | None, Some(_) | None) => {
            say(
                "WARNING: the rebuilt object differs from the committed one, though sources and toolchain are the same",
            );
        }
    }
}

/// Compiles, strips and signs with the digest; the result is at [`rebuilt`].
fn build(toolchain: &Toolchain, locked: bool) -> Result<()> {
    let root = root();
    let folder = target().join("ebpf");
    let [program, first_arguments @ ..] = toolchain.cargo.as_slice() else {
        bail!("the toolchain has no cargo");
    };
    let mut cargo = Command::new(program);
    cargo
        .args(first_arguments)
        .args(["build", "--release", "--target", TARGET, "--target-dir"])
        .arg(&folder)
        .current_dir(root.join("agent-ebpf"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain, locked)?)
        // One object for all machines: aya's bindings would otherwise follow the machine that builds.
        .env("AYA_BPF_TARGET_ARCH", "x86_64")
        // Else the object would differ with how much of it was built before, or with what the caller likes.
        .env("CARGO_INCREMENTAL", "0");
    for inherited in [
        "RUSTFLAGS",
        "RUSTC",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
    ] {
        cargo.env_remove(inherited);
    }
    if locked {
        cargo.arg("--locked");
    }
    if let Some(rustc) = &toolchain.rustc {
        // The target isn't known to stable compilers; Debian's has its `core` nevertheless.
        cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
    } else {
        // This process's cargo and toolchain must not leak into nightly's.
        cargo.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    }
    if toolchain.library_sources.is_some() {
        cargo.args(["-Z", "build-std=core"]);
    }
    shim::install(&mut cargo).context("can't find this program's own file")?;
    run(&mut cargo)?;

    let note = Note {
        sources: digest::of_sources(&root, &FLAGS)?,
        toolchain: toolchain.versions.clone(),
    };
    let note_file = folder.join("note");
    fs::write(&note_file, note.to_text())
        .with_context(|| format!("can't write {}", note_file.display()))?;
    let mut section = OsString::from(format!("{}=", digest::SECTION));
    section.push(&note_file);
    let mut objcopy = Command::new(&toolchain.objcopy);
    objcopy
        .args(["--strip-debug", "--add-section"])
        .arg(section)
        .arg(folder.join(TARGET).join("release/flowproof-ebpf"))
        .arg(rebuilt());
    if let Some(path) = &toolchain.library_path {
        objcopy.env("LD_LIBRARY_PATH", toolchain::with_inherited(path));
    }
    run(&mut objcopy)
}

/// The compiler's flags, with cargo's separator: [`FLAGS`], the linker, and new names for every folder of this machine
/// that could get into the object.
fn flags(toolchain: &Toolchain, locked: bool) -> Result<OsString> {
    let mut linker = OsString::from("-Clinker=");
    linker.push(&toolchain.linker);
    let mut flags = vec![linker];
    flags.extend(FLAGS.map(Into::into));

    let mut folders = vec![(root(), "flowproof".to_owned())];
    for registry in registries(locked)? {
        folders.push((registry, "registry".to_owned()));
    }
    if let Some(sources) = &toolchain.library_sources {
        folders.push((sources.clone(), "library".to_owned()));
    }
    for (folder, name) in folders {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(folder);
        flag.push("=");
        flag.push(name);
        flags.push(flag);
    }
    Ok(flags.join(OsStr::new("\u{1f}")))
}

/// The folders of unpacked dependencies: one a registry or mirror, with a hash of its address in the name.
fn registries(locked: bool) -> Result<Vec<PathBuf>> {
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let folder = home.join("registry/src");
    // Without the folder, cargo has yet to unpack what it needs, and the names below it aren't known.
    let mut fetch = crate::shell::cargo();
    fetch
        .args(["fetch", "--quiet", "--manifest-path"])
        .arg(root().join("agent-ebpf/Cargo.toml"));
    if locked {
        fetch.arg("--locked");
    }
    run(&mut fetch)?;
    let mut registries = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?
    {
        registries.push(
            entry
                .with_context(|| format!("can't read {}", folder.display()))?
                .path(),
        );
    }
    registries.sort();
    Ok(registries)
}
