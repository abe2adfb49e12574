//! What the tests of packages and charts need beside the build: two versions of the .deb, the root of a clean system to install
//! them in, helm and schemas. What can't be had here is said, and the tests that need it skip.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Need},
    dist::{kubernetes, packages},
    shell::{Privilege, read, run, say, target},
};

const NEEDS: [Need; 4] = [
    Need::program("dpkg-shlibdeps", "dpkg-dev"),
    Need::program("mmdebstrap", "mmdebstrap"),
    Need::program("systemd-analyze", "systemd"),
    Need::program("pip3", "python3-pip"),
];
/// What the second package calls itself.
const NEXT: &str = concat!(env!("CARGO_PKG_VERSION"), "-2");
/// What a server has at least: a service manager, and what the daemon links.
const SYSTEM: &str = "systemd,systemd-sysv,libpcap0.8";
/// Debian 13 has systemd 257; Debian 12's 252 knows no notify-reload.
const DEBIAN: &str = "trixie";

/// The variables that tell the tests where things are.
pub(super) fn prepare() -> Vec<(&'static str, PathBuf)> {
    let mut variables = Vec::new();
    if let Err(error) = apt::ensure(&NEEDS) {
        say(format!("{error:#}"));
    }
    for (name, made) in [
        ("FLOWPROOF_KUBERNETES", kubernetes::ensure()),
        ("FLOWPROOF_PACKAGES", debs()),
        ("FLOWPROOF_ROOT", clean_root()),
    ] {
        match made {
            Ok(path) => variables.push((name, path)),
            Err(error) => say(format!("{error:#}")),
        }
    }
    variables
}

/// Two packages of the binary of this build, one an upgrade of the other.
fn debs() -> Result<PathBuf> {
    let folder = target().join("test-packages");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    say("packing what was built, twice");
    packages::manual(packages::Profile::Dev)?;
    for (name, version) in [("first", None), ("second", Some(NEXT))] {
        let out = folder.join(name);
        fs::create_dir_all(&out)?;
        packages::deb(packages::Profile::Dev, version, &out)?;
    }
    Ok(folder)
}

/// A minimal system as an archive, kept over runs.
fn clean_root() -> Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release").context("which system is this?")?;
    let value = |key: &str| {
        let line = release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let own = value("VERSION_CODENAME").context("this system has no code name")?;
    let suite = if value("ID").as_deref() == Some("debian") {
        DEBIAN
    } else {
        &own
    };
    let file = target().join(format!("clean-root-{suite}.tar"));
    if file.is_file() {
        return Ok(file);
    }
    let Some(mut command) = Privilege::of_this_user().command("mmdebstrap") else {
        bail!("a clean root to install the package in is made by root alone");
    };
    let sources = sources(Path::new("/etc/apt"), &own, suite)?;
    say(format!("making a clean root of {suite}: mmdebstrap"));
    let part = file.with_extension("part.tar");
    command
        .args(["--quiet", "--variant=minbase"])
        .arg(format!("--include={SYSTEM}"))
        .args(
            ["man", "doc", "locale", "info"]
                .map(|unread| format!("--dpkgopt=path-exclude=/usr/share/{unread}/*")),
        );
    for option in apt_options()? {
        command.arg(format!("--aptopt={option}"));
    }
    run(command
        .arg(suite)
        .arg(&part)
        .args(sources)
        .stdin(Stdio::null()))?;
    fs::rename(&part, &file)?;
    Ok(file)
}

/// How this machine reaches its mirror, as far as another root needs it too.
fn apt_options() -> Result<Vec<String>> {
    let dump = read(Command::new("apt-config").arg("dump"))?;
    const KEYS: [&str; 4] = [
        "Acquire::Check-Valid-Until ",
        "Acquire::Check-Date ",
        "Acquire::http::Proxy ",
        "Acquire::https::Proxy ",
    ];
    let wanted = dump
        .lines()
        .filter(|line| KEYS.iter().any(|key| line.starts_with(key)));
    Ok(wanted
        .map(|line| line.trim_end_matches(';').to_owned())
        .collect())
}

/// The machine's own mirrors of its release, for another release of the same system.
fn sources(folder: &Path, own: &str, suite: &str) -> Result<Vec<String>> {
    let mut texts = vec![fs::read_to_string(folder.join("sources.list")).unwrap_or_default()];
    let mut files: Vec<PathBuf> = fs::read_dir(folder.join("sources.list.d"))
        .map(|entries| {
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .collect()
        })
        .unwrap_or_default();
    files.sort();
    for file in files {
        texts.push(
            fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?,
        );
    }
    let found: Vec<String> = texts
        .iter()
        .flat_map(|text| entries(text, own, suite))
        .collect();
    if found.is_empty() {
        bail!(
            "{} names no mirror of {own}, so there is none to make a clean root from",
            folder.display()
        );
    }
    Ok(found)
}

/// The entries of one file that have exactly the release `own`, as lines for `suite`. Both formats of apt's.
fn entries(text: &str, own: &str, suite: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first() == Some(&"deb") && words.contains(&own) {
            let same = words
                .iter()
                .map(|word| if *word == own { suite } else { word });
            lines.push(same.collect::<Vec<_>>().join(" "));
        }
    }
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            let line = stanza
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim)
        };
        let (Some(uris), Some(suites)) = (field("URIs"), field("Suites")) else {
            continue;
        };
        let off = field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
        if off || !suites.split_whitespace().any(|it| it == own) {
            continue;
        }
        let signed = field("Signed-By").filter(|key| key.starts_with('/'));
        let options = signed
            .map(|key| format!("[signed-by={key}] "))
            .unwrap_or_default();
        let components = field("Components").unwrap_or("main");
        if let Some(uri) = uris.split_whitespace().next() {
            lines.push(format!("deb {options}{uri} {suite} {components}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::entries;

    #[test]
    fn mirrors_of_this_release_serve_another() {
        let new = "Types: deb\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\
             Signed-By: /usr/share/keyrings/k.gpg\n\nTypes: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\n\
             Components: main\n\nEnabled: no\nTypes: deb\nURIs: http://off.example\nSuites: bookworm\n";
        assert_eq!(
            entries(new, "bookworm", "trixie"),
            ["deb [signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian trixie main"]
        );
        let old = "# deb http://x.example bookworm main\ndeb http://mirror.example/debian bookworm main contrib\n\
             deb http://mirror.example/debian bookworm-updates main\n";
        assert_eq!(
            entries(old, "bookworm", "trixie"),
            ["deb http://mirror.example/debian trixie main contrib"]
        );
    }
}
