//! `cargo xtask packs`: renders the page of each rule pack, so that an operator can read a pack without reading YAML. The
//! pages are committed beside the packs; `cargo xtask test` holds them to what the packs give.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::shell::{cargo, read, root, run, say, target};

/// Renders `rules/*.md`; with `check`, only compares.
///
/// # Errors
/// A pack has errors; with `check`, a page differs, is missing, or has no pack.
pub(crate) fn packs(check: bool) -> Result<()> {
    run(cargo().args(["build", "--quiet", "--package=flowproof"]))?;
    let daemon = target().join("debug").join("flowproof");
    let folder = root().join("rules");
    let mut stale = Vec::new();
    let mut pages = Vec::new();
    let mut files: Vec<_> = fs::read_dir(&folder)
        .with_context(|| format!("can't read {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    for pack in files
        .iter()
        .filter(|file| file.extension().is_some_and(|ending| ending == "yaml"))
    {
        let page = pack.with_extension("md");
        let mut command = std::process::Command::new(&daemon);
        command
            .args(["report", "--format=md", "--matrix"])
            .arg(pack);
        let text =
            read(&mut command).with_context(|| format!("{} can't be rendered", pack.display()))?;
        if fs::read_to_string(&page).ok().as_deref() != Some(text.as_str()) {
            stale.push(page.display().to_string());
            if !check {
                fs::write(&page, text)
                    .with_context(|| format!("can't write {}", page.display()))?;
            }
        }
        pages.push(page);
    }
    let orphans = files.iter().filter(|file| {
        file.extension().is_some_and(|ending| ending == "md") && !pages.contains(file)
    });
    stale.extend(orphans.map(|page| format!("{} (no pack)", page.display())));
    if check && !stale.is_empty() {
        bail!(
            "not what the packs give: {}; run `cargo xtask packs` and commit the pages",
            stale.join(", ")
        );
    }
    say(format!("{} pages, {} changed", pages.len(), stale.len()));
    Ok(())
}
