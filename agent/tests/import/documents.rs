//! Imports vendors' documents as they are and compares the drafts with the packs that were made of the same documents by
//! hand. The documents are not part of the repository: `FLOWPROOF_SEEDS` names their folder. Packs are taken from
//! `FLOWPROOF_PACKS`, or from `rules/`; each names its document.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use flowproof::import::{self, Imported, Input, Options};
use flowproof::matrix::{Direction, Matrix, RoleRef, Service, System};

/// Least share of the packs' requirements that a draft must have, in percent, over all documents and for each.
const LEAST: usize = 90;

/// What two statements of the same requirement have in common.
#[derive(Debug)]
struct Statement {
    from: BTreeSet<String>,
    to: BTreeSet<String>,
    services: BTreeSet<Service>,
    direction: Direction,
}

impl Statement {
    fn all(system: &System) -> Vec<Self> {
        system
            .requirements
            .iter()
            .map(|requirement| Self {
                from: titles(system, requirement.from),
                to: titles(system, requirement.to),
                services: requirement.services.iter().copied().collect(),
                direction: requirement.direction,
            })
            .collect()
    }

    fn is(&self, other: &Self) -> bool {
        !self.from.is_disjoint(&other.from)
            && !self.to.is_disjoint(&other.to)
            && self.services == other.services
            && self.direction == other.direction
    }
}

/// The normalised names of a role: its title, the title without and within brackets, and its host names. Small words,
/// case and punctuation don't count.
fn titles(system: &System, role: RoleRef) -> BTreeSet<String> {
    let normal = |text: &str| {
        let lower = text.to_lowercase();
        let words: Vec<&str> = lower
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty() && !matches!(*word, "in" | "the" | "a" | "an" | "of"))
            .collect();
        words.join(" ")
    };
    let RoleRef::Declared(index) = role else {
        return BTreeSet::from([format!("={}", system.role_id(role))]);
    };
    let role = system.role(index);
    let title = role.title.clone().unwrap_or_else(|| role.id.to_string());
    let mut titles = BTreeSet::from([normal(&title)]);
    if let Some((before, rest)) = title.split_once('(') {
        titles.insert(normal(before));
        titles.insert(normal(rest));
    }
    titles.extend(
        role.names
            .iter()
            .map(ToString::to_string)
            .filter(|name| !name.starts_with("tag:"))
            .map(|name| normal(&name)),
    );
    titles.remove("");
    titles
}

fn packs() -> Vec<PathBuf> {
    let folder = std::env::var_os("FLOWPROOF_PACKS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules"),
        PathBuf::from,
    );
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    files
}

/// libtest knows no skip: it is noted where `cargo xtask test` looks for it.
fn skip(reason: &str) {
    use std::io::Write as _;

    println!("SKIPPED drafts_have_what_the_packs_have: {reason}");
    if let Some(log) = std::env::var_os("FLOWPROOF_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        log.write_all(format!("drafts_have_what_the_packs_have\t{reason}\n").as_bytes())
            .unwrap();
    }
}

#[test]
fn drafts_have_what_the_packs_have() {
    let Some(seeds) = std::env::var_os("FLOWPROOF_SEEDS").map(PathBuf::from) else {
        skip("FLOWPROOF_SEEDS does not name the folder of the vendors' documents");
        return;
    };
    let (mut recovered, mut all) = (0, 0);
    let mut short = Vec::new();
    for pack in packs() {
        let reading = Matrix::read(&[&pack]).unwrap();
        let Some(system) = reading.matrix.systems.first() else {
            panic!("{}: {:?}", pack.display(), reading.findings);
        };
        let Some(file) = system
            .document
            .as_ref()
            .and_then(|document| document.file.clone())
        else {
            continue;
        };
        let document = seeds.join(&file);
        if !document.exists() {
            println!("{file} is not in the folder");
            continue;
        }
        let Imported::Draft(draft) =
            import::import(&[Input::read(&document).unwrap()], &Options::default()).unwrap()
        else {
            panic!("{file} is no matrix sheet");
        };
        let checked = Matrix::read_text(&file, &draft.to_yaml());
        assert!(
            !checked.findings.has_errors(),
            "{file}: {:?}",
            checked.findings
        );
        let drafted = Statement::all(&checked.matrix.systems[0]);
        // Each statement of the draft counts once.
        let mut unused: Vec<Option<&Statement>> = drafted.iter().map(Some).collect();
        let mut found = 0;
        for (requirement, wanted) in system.requirements.iter().zip(Statement::all(system)) {
            match unused
                .iter_mut()
                .find(|statement| statement.is_some_and(|statement| statement.is(&wanted)))
            {
                Some(statement) => {
                    *statement = None;
                    found += 1;
                }
                None => println!(
                    "  not recovered: {}/{} {wanted:?}",
                    system.id, requirement.id
                ),
            }
        }
        let count = system.requirements.len();
        println!(
            "{}: {found} of {count} requirements recovered, {} drafted",
            system.id,
            drafted.len()
        );
        if std::env::var_os("FLOWPROOF_SHOW_EXTRA").is_some() {
            for extra in unused.into_iter().flatten() {
                println!("  extra: {extra:?}");
            }
        }
        if found * 100 < count * LEAST {
            short.push(format!("{}: {found} of {count}", system.id));
        }
        recovered += found;
        all += count;
    }
    println!("together: {recovered} of {all}");
    if all == 0 {
        skip("no pack names a document of the folder");
        return;
    }
    assert!(short.is_empty(), "recovered less than {LEAST} %: {short:?}");
}
