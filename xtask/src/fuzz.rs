//! `cargo xtask fuzz`: the property tests on cases that nobody has seen. The gate, `cargo xtask test`, has the same cases in
//! every run, so that it judges the change and not the dice; looking for new ones is this command's job.

use std::{
    hash::{BuildHasher as _, RandomState},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};

use crate::shell::{cargo, describe, run, say};

/// Rounds if the caller doesn't say.
const ROUNDS: u32 = 20;

/// Property tests are told by the module that they are in.
const PROPERTIES: &str = "properties::";

/// Reads `[FACTOR]`: how many times the cases of `cargo xtask test` are run.
///
/// # Errors
/// If it is no number from 1, or if there is more.
pub(crate) fn parse(arguments: &[String]) -> Result<u32> {
    match arguments {
        [] => Ok(ROUNDS),
        [factor] => match factor.parse() {
            Ok(rounds) if rounds > 0 => Ok(rounds),
            Ok(_) | Err(_) => bail!("`fuzz` takes how often to run, from 1, but got: {factor}"),
        },
        [_, surplus, ..] => bail!("`fuzz` takes one number, but also got: {surplus}"),
    }
}

/// Runs the property tests so many times, each time with another seed, up to the first failure.
///
/// # Errors
/// When the tests can't be built or started, or one fails.
pub(crate) fn fuzz(rounds: u32) -> Result<()> {
    say("building the tests");
    run(cargo().args(["test", "--workspace", "--quiet", "--no-run"]))?;
    for round in 1..=rounds {
        // The standard library seeds its maps with the system's random numbers.
        let seed = RandomState::new().hash_one(round);
        say(format!("round {round} of {rounds}: seed {seed}"));
        let mut tests = cargo();
        tests
            .args(["test", "--workspace", "--quiet", "--no-fail-fast"])
            .arg(PROPERTIES)
            .env("PROPTEST_RNG_SEED", seed.to_string())
            .stdin(Stdio::null());
        let output = tests
            .output()
            .with_context(|| format!("can't start {}", describe(&tests)))?;
        if !output.status.success() {
            print!("{}", String::from_utf8_lossy(&output.stdout));
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            bail!(
                "a property doesn't hold; to see it again: PROPTEST_RNG_SEED={seed} cargo test --workspace {PROPERTIES}"
            );
        }
    }
    say(format!(
        "{rounds} rounds passed, each with as many cases as `cargo xtask test` has"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{PROPERTIES, ROUNDS, parse};
    use crate::shell::root;

    #[test]
    fn the_factor_is_a_number_from_1() {
        let check = |arguments: &[&str], expect: Option<u32>| {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            assert_eq!(parse(&arguments).ok(), expect, "{arguments:?}");
        };
        check(&[], Some(ROUNDS));
        check(&["100"], Some(100));
        check(&["0"], None);
        check(&["-1"], None);
        check(&["many"], None);
        check(&["1", "2"], None);
    }

    /// A property test elsewhere would never be run by this command, and nobody would notice.
    #[test]
    fn every_property_test_is_where_it_is_found() {
        fn visit(folder: &Path, found: &mut usize) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    visit(&path, found);
                } else if path.extension().is_some_and(|ending| ending == "rs") {
                    let text = fs::read_to_string(&path).unwrap();
                    let tests = text.matches(&format!("{}! {{", "proptest")).count();
                    let module = format!("mod {} {{", PROPERTIES.trim_end_matches(':'));
                    let modules = text.matches(&module).count();
                    assert!(
                        tests <= modules,
                        "{}: wrap it in `{module}`",
                        path.display()
                    );
                    *found += tests;
                }
            }
        }
        let mut found = 0;
        for package in ["agent", "agent-common", "tests", "xtask"] {
            visit(&root().join(package), &mut found);
        }
        assert!(found > 10, "{found}");
    }
}
