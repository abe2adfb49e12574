//! `cargo xtask dist`: everything that is shipped, in `target/dist`, with checksums. The same steps make the package that the
//! tests install, from a build without optimisation.

pub(crate) mod kubernetes;
pub(crate) mod packages;
mod tools;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use self::{packages::Profile, tools::Tool};
use crate::{
    apt::{self, Need},
    shell::{cargo, read, root, run, say, target},
};

/// libpcap to link, dpkg-shlibdeps to find out what the binary needs.
const TO_PACK: [Need; 2] = [
    Need::library("pcap", "libpcap-dev"),
    Need::program("dpkg-shlibdeps", "dpkg-dev"),
];

/// Makes all of it.
///
/// # Errors
/// Names the step that failed.
pub(crate) fn dist() -> Result<()> {
    apt::ensure(&TO_PACK)?;
    let out = target().join("dist");
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("can't empty {}", out.display()))?;
    }
    fs::create_dir_all(&out)?;
    let revision = revision();
    say(format!("building revision {revision}"));
    run(cargo().env("FLOWPROOF_REVISION", &revision).args([
        "build",
        "--locked",
        "--release",
        "--package",
        "flowproof",
        "--bin",
        "flowproof",
    ]))?;
    packages::manual(Profile::Release)?;
    packages::deb(Profile::Release, None, &out)?;
    tools::ensure(Tool::GenerateRpm)?;
    run(cargo()
        .env("PATH", tools::path()?)
        .arg("generate-rpm")
        .args(["--package", "agent", "--profile", "release", "--target-dir"])
        .arg(target())
        .arg("--output")
        .arg(&out))
    .context("making the .rpm")?;
    archive(&out)?;
    chart(&out)?;
    fs::copy(
        root().join("deploy/kubernetes/flowproof.yaml"),
        out.join("flowproof-kubernetes.yaml"),
    )?;
    fs::copy(
        root().join("deploy/container/Containerfile"),
        out.join("Containerfile"),
    )?;
    sums(&out)?;
    Ok(())
}

/// The commit that is built, marked if the work tree differs from it.
fn revision() -> String {
    if let Ok(given) = std::env::var("FLOWPROOF_REVISION") {
        return given;
    }
    let git = |arguments: &[&str]| read(Command::new("git").args(arguments).current_dir(root()));
    let Ok(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"])
        .is_ok_and(|changes| !changes.is_empty());
    format!("{}{}", commit.trim(), if dirty { "-dirty" } else { "" })
}

/// For machines with another packaging: the files, as they lie in the file system.
fn archive(out: &Path) -> Result<()> {
    let name = format!(
        "flowproof-{}-{}-linux",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH
    );
    let folder = target().join("dist-tree").join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let top = root();
    for (from, to) in [
        (target().join("release/flowproof"), "flowproof"),
        (target().join("release/manual"), "manual"),
        (top.join("rules"), "rules"),
        (top.join("deploy/systemd"), "systemd"),
        (top.join("deploy/prometheus"), "prometheus"),
        (
            top.join("deploy/package/sysusers.d/flowproof.conf"),
            "sysusers.d-flowproof.conf",
        ),
        (top.join("deploy/flowproof.yaml"), "flowproof.yaml"),
        (top.join("docs"), "docs"),
        (top.join("README.md"), "README.md"),
        (top.join("CHANGELOG.md"), "CHANGELOG.md"),
        (top.join("LICENSE-APACHE"), "LICENSE-APACHE"),
        (top.join("LICENSE-MIT"), "LICENSE-MIT"),
    ] {
        run(Command::new("cp").arg("-rL").arg(from).arg(folder.join(to)))?;
    }
    tar(&folder, &out.join(format!("{name}.tar.gz")))
}

/// What `helm package` makes: the chart's folder, links followed.
fn chart(out: &Path) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let folder = target().join("dist-tree/flowproof");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    run(Command::new("cp")
        .arg("-rL")
        .arg(root().join("deploy/kubernetes/flowproof"))
        .arg(&folder))?;
    tar(&folder, &out.join(format!("flowproof-chart-{version}.tgz")))
}

/// Packs a folder so that the same files make the same archive.
fn tar(folder: &Path, file: &Path) -> Result<()> {
    let (parent, name) = (folder.parent(), folder.file_name());
    let (parent, name) = parent.zip(name).context("a folder without a name")?;
    run(Command::new("tar")
        .args([
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "-czf",
        ])
        .arg(file)
        .arg("-C")
        .arg(parent)
        .arg(name))
}

/// Writes `SHA256SUMS`, and says what was made.
fn sums(out: &Path) -> Result<()> {
    let mut names: Vec<PathBuf> = fs::read_dir(out)?
        .map(|entry| entry.map(|entry| entry.file_name().into()))
        .collect::<std::io::Result<_>>()?;
    names.sort();
    let text = read(
        Command::new("sha256sum")
            .arg("--")
            .args(&names)
            .current_dir(out),
    )?;
    fs::write(out.join("SHA256SUMS"), text)?;
    say(format!("made in {}:", out.display()));
    for name in names {
        let size = fs::metadata(out.join(&name))?.len();
        say(format!(
            "  {} ({} KiB)",
            name.display(),
            size.div_ceil(1024)
        ));
    }
    say("  SHA256SUMS");
    Ok(())
}
