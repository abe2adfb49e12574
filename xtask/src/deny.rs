//! `cargo xtask deny`: may we ship what we link? cargo-deny answers that in full, but building it takes longer than
//! building flowproof; so the licence list of `deny.toml` is also checked here, with cargo alone, on every test run.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::shell::{cargo, read, root, run, say, succeeds};

/// Checks the licences; with cargo-deny installed, everything that `deny.toml` asks for.
pub(crate) fn deny() -> Result<()> {
    say(licences()?);
    if !succeeds(cargo().args(["deny", "--version"])) {
        say(
            "cargo-deny isn't installed, so advisories, bans and sources are unchecked: `cargo install --locked cargo-deny`",
        );
        return Ok(());
    }
    for manifest in ["Cargo.toml", "agent-ebpf/Cargo.toml"] {
        run(cargo()
            .args(["deny", "--manifest-path", manifest, "check", "--config"])
            .arg(root().join("deny.toml")))?;
    }
    Ok(())
}

/// Checks the licence of every dependency, the kernel programs' included, against the list in `deny.toml`.
///
/// # Errors
/// Names each package whose licence isn't allowed.
pub(crate) fn licences() -> Result<String> {
    let file = root().join("deny.toml");
    let text =
        fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
    let allowed =
        allowed(&text).context("deny.toml has no list `allow = [...]` below [licenses]")?;
    let mut packages = Vec::new();
    for manifest in ["Cargo.toml", "agent-ebpf/Cargo.toml"] {
        let tree = read(cargo().args([
            "tree",
            "--locked",
            "--workspace",
            "--edges=normal,build,dev",
            "--prefix=none",
            "--no-dedupe",
            "--format={p}|{l}",
            "--manifest-path",
            manifest,
        ]))?;
        packages.extend(
            tree.lines()
                .filter(|line| !line.is_empty())
                .map(str::to_owned),
        );
    }
    packages.sort();
    packages.dedup();
    let refused: Vec<&str> = packages
        .iter()
        .filter(|line| {
            !line
                .rsplit_once('|')
                .is_some_and(|(_, licence)| permits(licence, &allowed))
        })
        .map(String::as_str)
        .collect();
    if !refused.is_empty() {
        bail!(
            "licences that deny.toml doesn't allow (package|licence): {}; replace the package, or allow its licence with a reason",
            refused.join(", ")
        );
    }
    Ok(format!(
        "licences of {} packages are on deny.toml's list",
        packages.len()
    ))
}

/// The strings of the first `allow = [...]` after `[licenses]`.
fn allowed(deny: &str) -> Option<Vec<String>> {
    let section = deny.split_once("\n[licenses]\n")?.1;
    let list = section.split_once("\nallow = [")?.1.split_once(']')?.0;
    // Between quotes is every second piece.
    Some(
        list.split('"')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect(),
    )
}

/// Whether an SPDX expression can be met with the allowed licences alone. `/` is the old way to write `OR`.
fn permits(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    // Whatever can't be understood isn't permitted.
    any_of(&mut rest, allowed) == Some(true) && rest.is_empty()
}

fn any_of(words: &mut &[&str], allowed: &[String]) -> Option<bool> {
    let mut permitted = all_of(words, allowed)?;
    while let [first, rest @ ..] = *words
        && *first == "OR"
    {
        *words = rest;
        permitted |= all_of(words, allowed)?;
    }
    Some(permitted)
}

fn all_of(words: &mut &[&str], allowed: &[String]) -> Option<bool> {
    let mut permitted = one(words, allowed)?;
    while let [first, rest @ ..] = *words
        && *first == "AND"
    {
        *words = rest;
        permitted &= one(words, allowed)?;
    }
    Some(permitted)
}

fn one(words: &mut &[&str], allowed: &[String]) -> Option<bool> {
    let is_allowed = |licence: &str| allowed.iter().any(|entry| entry == licence);
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let permitted = any_of(words, allowed)?;
            let [")", rest @ ..] = *words else {
                return None;
            };
            *words = rest;
            Some(permitted)
        }
        // An exception makes a licence of its own, as in deny.toml.
        [licence, "WITH", exception, rest @ ..] => {
            *words = rest;
            Some(is_allowed(&format!("{licence} WITH {exception}")))
        }
        [licence, rest @ ..] => {
            *words = rest;
            Some(is_allowed(licence))
        }
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{allowed, permits};

    fn check(expression: &str, expected: bool) {
        let list = [
            "MIT",
            "Apache-2.0",
            "Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ]
        .map(str::to_owned);
        assert_eq!(permits(expression, &list), expected, "{expression}");
    }

    #[test]
    fn an_expression_is_met_or_not() {
        check("MIT", true);
        check("GPL-3.0-only", false);
        check("GPL-3.0-only OR MIT", true);
        check("MIT/Apache-2.0", true);
        check("MIT AND GPL-3.0-only", false);
        check("(MIT OR Apache-2.0) AND Unicode-3.0", true);
        check("MIT OR GPL-3.0-only AND Zlib", true);
        check("(MIT OR GPL-3.0-only) AND Zlib", false);
        check("Apache-2.0 WITH LLVM-exception", true);
        check("MIT WITH LLVM-exception", false);
    }

    #[test]
    fn what_is_no_expression_is_not_permitted() {
        check("", false);
        check("(MIT", false);
        check("MIT MIT", false);
        check("MIT OR", false);
    }

    #[test]
    fn the_list_is_read_from_deny_toml() {
        let text = "[graph]\n\n[licenses]\n# x\nallow = [\n    \"MIT\",\n    \"0BSD\",\n]\n[bans]\nallow = [\"no\"]\n";
        assert_eq!(
            allowed(text),
            Some(vec!["MIT".to_owned(), "0BSD".to_owned()])
        );
        assert_eq!(allowed("[bans]\nallow = []\n"), None);
    }
}
