//! flowproof's own kernel programs, loaded by its own loader and judging by a matrix, as the daemon has them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flowproof::capture::Capture as _;
use flowproof::capture::ebpf::{self, EbpfCapture, EbpfOptions};
use flowproof::engine::policy::{self, Policy};
use flowproof::matrix::installed::{Installed, SlotDirectory};
use flowproof::names;
use flowproof::site::tags::TagOptions;

use crate::bpf::Program;
use crate::world::World;

/// Reads and compiles a site of so many requirements, as the daemon does.
pub(crate) fn policy(world: World) -> Result<Policy> {
    policy_of(&world.matrix(), &world.site())
}

/// The same of any files.
pub(crate) fn policy_of(matrix: &str, site: &str) -> Result<Policy> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Result<PathBuf> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    };
    policy::load(
        &[file("matrix.yaml", matrix)?],
        Some(&file("site.yaml", site)?),
        &TagOptions::default(),
        &[],
    )
    .context("reading the matrix of the bench")
}

/// Tables of such a site.
pub(crate) fn installed(world: World) -> Result<Installed> {
    Ok(Installed::new(
        policy(world)?.compiled,
        SlotDirectory::default(),
    ))
}

/// Programs and maps; gone when dropped.
pub(crate) struct Probe {
    /// As the daemon holds them.
    pub(crate) capture: EbpfCapture,
    /// The program at the ingress of an interface with Ethernet headers.
    pub(crate) ingress: Program,
}

impl Probe {
    /// Loads them with room for so many flows of each kind, judging by the matrix of `world`.
    pub(crate) fn open(world: World, verified: u32, unverified: u32) -> Result<Self> {
        let installed = installed(world)?;
        let options = EbpfOptions {
            // Nothing to be left behind: the folder can't be made.
            pin_directory: PathBuf::from("/nonexistent/flowproof-bench"),
            verified_flows: verified,
            unverified_flows: unverified,
            ..EbpfOptions::default()
        };
        let mut capture = ebpf::open(options, names::Settings::default(), &installed)
            .context("loading flowproof's kernel programs")?;
        capture.install(&Arc::new(installed))?;
        let ingress = Program::own("fp_ingress")?;
        Ok(Self { capture, ingress })
    }

    /// Takes all events out of the ring; how many there were.
    pub(crate) fn drain(&mut self) -> Result<u64> {
        let mut all = 0;
        loop {
            let mut events = 0;
            self.capture.poll(Duration::ZERO, &mut |_| events += 1)?;
            all += events;
            if events == 0 {
                return Ok(all);
            }
        }
    }

    /// What was lost at a stage so far.
    pub(crate) fn lost(&mut self, stage: &str) -> Result<u64> {
        let snapshot = self.capture.snapshot()?;
        let lost = snapshot.lost.iter().find(|(name, _)| *name == stage);
        lost.map(|(_, count)| *count)
            .with_context(|| format!("no stage named {stage}"))
    }

    /// Packets that were judged so far, whatever the verdict.
    pub(crate) fn judged(&mut self) -> Result<u64> {
        let slots = self.capture.snapshot()?.slots;
        Ok(slots
            .iter()
            .map(|slot| slot.traffic.packets.iter().sum::<u64>())
            .sum())
    }

    /// Flows begun so far.
    pub(crate) fn begun(&mut self) -> Result<u64> {
        let slots = self.capture.snapshot()?.slots;
        Ok(slots.iter().map(|slot| slot.flows.begun).sum())
    }

    /// Fails unless the table of verified flows holds so many.
    pub(crate) fn expect_verified(&mut self, flows: u64) -> Result<()> {
        let tables = self.capture.snapshot()?.tables;
        let verified = tables
            .iter()
            .find(|table| table.table == "verified")
            .map_or(0, |table| table.entries);
        ensure!(
            verified == flows,
            "{verified} verified flows instead of {flows}: the handshakes went wrong"
        );
        Ok(())
    }
}
