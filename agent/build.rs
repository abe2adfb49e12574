//! Puts the revision of the sources into the daemon. A build outside of a repository, or without git, says `unknown`.
use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

fn main() {
    println!("cargo::rerun-if-env-changed=FLOWPROOF_REVISION");
    println!("cargo::rerun-if-changed=build.rs");
    // Packagers who build from an archive set the variable themselves.
    if std::env::var_os("FLOWPROOF_REVISION").is_some() {
        return;
    }
    if let Some(log) = git(&[
        "rev-parse",
        "--path-format=absolute",
        "--git-path",
        "logs/HEAD",
    ]) && std::path::Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    if let Some(revision) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo::rustc-env=FLOWPROOF_REVISION={revision}");
    }
}
