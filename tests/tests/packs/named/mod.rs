//! The names of the vendors' packs, as they are printed: nothing else tells the daemon who is meant. Every name and
//! wildcard is resolved by a name server, shown in a ClientHello or a request, and nearly met: by a name beside it, by
//! another name at its address, by its own name at an address that was said to be another's.

mod case;
mod cases;
mod check;
mod scene;
mod shape;
mod talk;
mod world;

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use flowproof_tests::daemon::Backend;
use flowproof_tests::names;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::pack::{self, Pack};
use crate::plan::Plan;
use crate::site::Site;
use case::{Expected, Stage};
use cases::Cases;
use check::settle;
use scene::Scene;
use world::World;

/// The packs of vendors. Some have no names, which is their own affair; a pack that is missing isn't.
const VENDORS: [&str; 5] = [
    "rimo3",
    "appsanywhere",
    "remotespark",
    "audiocodes-device-manager",
    "parallels-ras-19",
];
/// (role, name as printed).
type Names = BTreeSet<(String, String)>;

#[test]
fn every_name_of_every_pack_is_exercised() -> Result<()> {
    if names::skipped("every_name_of_every_pack_is_exercised") {
        return Ok(());
    }
    let packs = vendors()?;
    let all: Vec<&Pack> = packs.iter().collect();
    // Each alone, and meanwhile all together, which takes as long.
    let (together, alone) = std::thread::scope(|scope| {
        let together = scope.spawn(|| exercise(&all, Backend::Ebpf));
        let each = packs.iter().map(|pack| exercise(&[pack], Backend::Ebpf));
        let alone: Result<Vec<Names>> = each.collect();
        let together = together.join();
        (together.unwrap_or_else(|panic| resume_unwind(panic)), alone)
    });
    let alone: Names = alone?.into_iter().flatten().collect();
    assert_eq!(alone, printed(&all));
    assert_eq!(together?, alone);
    Ok(())
}

#[test]
fn every_name_of_every_pack_is_exercised_by_libpcap() -> Result<()> {
    if names::skipped("every_name_of_every_pack_is_exercised_by_libpcap") {
        return Ok(());
    }
    let packs = vendors()?;
    let all: Vec<&Pack> = packs.iter().collect();
    assert_eq!(exercise(&all, Backend::Pcap)?, printed(&all));
    Ok(())
}

fn vendors() -> Result<Vec<Pack>> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let mut packs = pack::all()?;
    packs.retain(|pack| VENDORS.contains(&pack.system.as_str()));
    ensure!(packs.len() == VENDORS.len(), "a pack is missing");
    Ok(packs)
}

/// What stands in the packs' files, read from their text.
fn printed(packs: &[&Pack]) -> Names {
    let mut names = Names::new();
    for pack in packs {
        for line in pack.text.lines() {
            let Some((role, list)) = line.split_once(": {title:") else {
                continue;
            };
            let list = list.split_once("names: [").map_or("", |(_, list)| list);
            let list = list.split_once(']').map_or("", |(list, _)| list);
            for name in list.split(',').filter(|name| !name.trim().is_empty()) {
                names.insert((
                    format!("{}/{}", pack.system, role.trim().trim_matches('"')),
                    name.trim().trim_matches('"').to_owned(),
                ));
            }
        }
    }
    names
}

/// Deploys packs together and exercises all their names, which are returned.
fn exercise(packs: &[&Pack], backend: Backend) -> Result<Names> {
    let begin = Instant::now();
    let site = Site::of(packs)?;
    let plan = Plan::of(packs, &site)?;
    let world = World::of(packs)?;
    let cases = Cases::of(&plan, &world)?;
    for ((role, name), tally) in &cases.tally {
        ensure!(tally.is_whole(), "{role}: {name} is left out: {tally:?}");
    }
    if cases.all.is_empty() {
        return Ok(Names::new());
    }
    let systems: Vec<&str> = packs.iter().map(|pack| pack.system.as_str()).collect();
    let run = || -> Result<()> {
        let scene = Scene::new(packs, &world, &cases, backend)?;
        let mut open = Vec::new();
        for case in cases.all.iter().filter(|case| case.stage == Stage::Dark) {
            open.push(scene.open(case).with_context(|| format!("{case:?}"))?);
        }
        settle(&scene.daemon, &plan, &open)?;
        scene.ask(&world, &cases)?;
        for case in cases.all.iter().filter(|case| case.stage == Stage::Told) {
            open.push(scene.open(case).with_context(|| format!("{case:?}"))?);
        }
        settle(&scene.daemon, &plan, &open)
    };
    if let Err(error) = run() {
        bail!("{}: {error:#}", systems.join(", "));
    }
    summary(&systems, &cases, begin.elapsed());
    Ok(cases.tally.into_keys().collect())
}

#[expect(clippy::print_stdout, reason = "this is a test's output")]
fn summary(systems: &[&str], cases: &Cases, took: Duration) {
    let count = |is: fn(&Expected) -> bool| {
        let all = cases.all.iter();
        all.filter(|case| is(&case.expected)).count()
    };
    println!(
        "{}: {} names, {} conversations: {} expected, {} unexpected ({} by name), {} unscoped; {took:.1?}",
        systems.join(", "),
        cases.tally.len(),
        cases.all.len(),
        count(|expected| matches!(expected, Expected::Rows(_) | Expected::Some(_))),
        count(|expected| matches!(expected, Expected::Unexpected(..))),
        count(|expected| matches!(expected, Expected::Unexpected(Some("name_mismatch"), _))),
        count(|expected| matches!(expected, Expected::Unscoped)),
    );
}
