//! What is shipped for a system with packages: the unit, the .deb, the recipe of an image.

mod install;
mod unit;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use flowproof_tests::skip;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("can't read {path}"))
}

/// What `cargo xtask test` prepared; skips if it could not.
fn prepared(test: &str, variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        skip::skip(
            test,
            &format!(
                "{variable} is not set: `cargo xtask test` prepares what this needs, and says why it could not"
            ),
        );
    }
    path
}

/// Whatever the recipe copies is in the repository, and what it promises of the running container is what the chart asks for.
#[test]
fn the_image_is_made_of_what_there_is() -> Result<()> {
    let recipe = read("deploy/container/Containerfile")?;
    let mut stages = Vec::new();
    let mut copied = 0;
    for line in recipe.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["FROM", image, rest @ ..] => {
                ensure!(
                    image.starts_with("${"),
                    "{image}: a mirror must be able to take its place"
                );
                if let ["AS", stage] = rest {
                    stages.push((*stage).to_owned());
                }
            }
            ["COPY", words @ ..] => {
                let from = words.iter().find_map(|word| word.strip_prefix("--from="));
                let paths: Vec<&&str> = words
                    .iter()
                    .filter(|word| !word.starts_with("--"))
                    .collect();
                let [sources @ .., _] = paths.as_slice() else {
                    continue;
                };
                if let Some(stage) = from {
                    ensure!(
                        stages.iter().any(|it| it == stage),
                        "{line}: no such stage before"
                    );
                    continue;
                }
                for source in sources {
                    copied += 1;
                    ensure!(
                        root().join(source).exists(),
                        "{line}: {source} does not exist"
                    );
                }
            }
            _ => {}
        }
    }
    ensure!(
        copied > 3 && stages == ["build"],
        "this test no longer reads the recipe"
    );
    for part in ["BPF", "PERFMON", "NET_ADMIN", "NET_RAW"] {
        ensure!(
            recipe.contains(&format!("--cap-add {part}")),
            "the recipe does not say that {part} is needed"
        );
    }
    ensure!(!recipe.contains("--privileged"));
    // Nothing of a build, and no secret of a work tree, gets into the context.
    let ignored = read(".containerignore")?;
    for path in ["target", ".git"] {
        ensure!(
            ignored.lines().any(|line| line == path),
            "{path} is sent to the builder"
        );
    }
    Ok(())
}
