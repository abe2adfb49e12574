//! Debian's Rust compiler and LLVM, unpacked below the target folder and not installed: a second `rustc` in /usr/bin
//! would disturb the one that the developer works with, and unpacking needs no root.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::toolchain::{self, Toolchain};
use crate::{
    apt,
    shell::{Privilege, find_program, read, run, say},
};

/// Libraries that every Debian system with a C compiler has, in the version that everything else there uses.
const OF_THE_SYSTEM: [&str; 4] = ["libc6", "libgcc-s1", "libstdc++6", "libcrypt1"];

/// The unpacked toolchain, made on the first call.
pub(super) fn toolchain() -> Result<Toolchain> {
    let folder = toolchain::folder().join("debian");
    if !folder.join("complete").is_file() {
        unpack(&folder)?;
    }
    let llvm = fs::read_to_string(folder.join("complete"))
        .context("can't read the unpacked toolchain's mark")?;
    let llvm = llvm.trim_end();
    let prefix = folder.join("root/usr/lib").join(format!("llvm-{llvm}"));
    let library_path = env::join_paths(library_folders(&folder.join("root"), llvm)?)
        .context("the target folder's path contains a colon")?;
    let linker = toolchain::linker(llvm, &prefix, Some(&library_path))?;
    let rustc = folder.join("rustc");
    let version = read(Command::new(&rustc).arg("--version"))?;
    Ok(Toolchain {
        cargo: vec![env::var_os("CARGO").unwrap_or_else(|| "cargo".into())],
        rustc: Some(rustc),
        versions: format!(
            "{}, bpf-linker {} with LLVM {llvm}",
            version.trim_end(),
            toolchain::LINKER_VERSION
        ),
        linker,
        objcopy: prefix.join("bin/llvm-objcopy"),
        library_path: Some(library_path),
        library_sources: None,
    })
}

fn unpack(folder: &Path) -> Result<()> {
    for program in ["apt-get", "apt-cache", "dpkg-deb"] {
        if find_program(program).is_none() {
            bail!("{program} is missing: this is no Debian system");
        }
    }
    if !apt::knows("libstd-rust-web-dev-bpf") {
        apt::update(Privilege::of_this_user())?;
        if !apt::knows("libstd-rust-web-dev-bpf") {
            bail!(
                "the package sources have no libstd-rust-web-dev-bpf (Debian's security archive has it)"
            );
        }
    }
    let (packages, llvm) = packages()?;
    say(format!("unpacking, not installing: {}", packages.join(" ")));
    // What an interrupted run left is of no use.
    let _ = fs::remove_dir_all(folder);
    let archives = folder.join("archives");
    let root = folder.join("root");
    for folder in [&archives, &root] {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    }
    if apt::download(&packages, &archives).is_err() {
        // Lists that are older than the archive name files that it no longer has.
        apt::update(Privilege::of_this_user())?;
        apt::download(&packages, &archives)?;
    }
    for archive in fs::read_dir(&archives).context("can't list the downloaded packages")? {
        let archive = archive
            .context("can't list the downloaded packages")?
            .path();
        run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&root))?;
        // 200 MB that nobody reads again.
        fs::remove_file(&archive).with_context(|| format!("can't remove {}", archive.display()))?;
    }
    write_wrapper(
        &folder.join("rustc"),
        folder,
        &library_folders(&root, &llvm)?,
    )?;
    fs::write(folder.join("complete"), format!("{llvm}\n"))
        .context("can't mark the unpacked toolchain as complete")
}

/// The packages to unpack and LLVM's major version. The versions follow from each other, so that a newer Rust in the
/// archive needs no change here.
fn packages() -> Result<(Vec<String>, String)> {
    let first = |names: Vec<String>, prefix: &str| {
        names
            .into_iter()
            .find(|name| {
                name.strip_prefix(prefix)
                    .is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
            })
            .with_context(|| format!("the package sources have no {prefix}* that fits"))
    };
    let std = first(
        apt::dependencies("libstd-rust-web-dev", false)?,
        "libstd-rust-web-",
    )?;
    let libllvm = first(apt::dependencies(&std, false)?, "libllvm")?;
    let llvm = libllvm.trim_start_matches("libllvm").to_owned();

    let mut packages: Vec<String> = [
        "rustc-web",
        "libstd-rust-web-dev",
        "libstd-rust-web-dev-bpf",
    ]
    .map(str::to_owned)
    .to_vec();
    packages.push(std);
    // llvm-config, which tells bpf-linker's build where things are, wants all of LLVM's libraries to exist.
    packages.extend(
        [
            "llvm-@-dev",
            "llvm-@",
            "llvm-@-linker-tools",
            "libpolly-@-dev",
        ]
        .map(|name| name.replace('@', &llvm)),
    );
    packages.extend(
        apt::dependencies(&libllvm, true)?
            .into_iter()
            .filter(|name| !OF_THE_SYSTEM.contains(&name.as_str()) && !name.starts_with("gcc-")),
    );
    Ok((packages, llvm))
}

/// Where the dynamic loader finds the unpacked libraries.
fn library_folders(root: &Path, llvm: &str) -> Result<Vec<PathBuf>> {
    let triple = read(Command::new("cc").arg("-print-multiarch"))
        .context("can't find out this machine's library folder: install gcc")?;
    let triple = triple.trim_end();
    Ok(vec![
        root.join("usr/lib").join(triple),
        // Packages from before Debian's merge of /lib into /usr.
        root.join("lib").join(triple),
        root.join(format!("usr/lib/llvm-{llvm}/lib")),
    ])
}

/// A `rustc` that finds its libraries: build scripts of dependencies call the compiler too, without asking for any
/// environment. It goes by its own place, so that the folder can be moved or copied.
fn write_wrapper(wrapper: &Path, folder: &Path, libraries: &[PathBuf]) -> Result<()> {
    let mut path = String::new();
    for library in libraries {
        let below = library
            .strip_prefix(folder)
            .context("a library is outside of the toolchain")?;
        path.push_str(&format!("$here/{}:", below.display()));
    }
    let script = format!(
        "#!/bin/sh\nhere=$(cd -- \"$(dirname -- \"$0\")\" && pwd) || exit\n\
         LD_LIBRARY_PATH=\"{}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"\nexport LD_LIBRARY_PATH\n\
         exec \"$here/root/usr/bin/rustc\" \"$@\"\n",
        path.trim_end_matches(':')
    );
    fs::write(wrapper, script)
        .and_then(|()| fs::set_permissions(wrapper, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("can't write {}", wrapper.display()))
}
