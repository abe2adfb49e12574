//! A new matrix of 100,000 requirements: how long each step takes, and whether a packet goes unjudged.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flowproof::capture::Capture as _;
use flowproof::matrix::installed::Installed;
use flowproof_tests::daemon::{Backend, Daemon, LISTEN, Setup};
use flowproof_tests::frame::flags;
use flowproof_tests::host::wait_for;
use flowproof_tests::metrics::Metrics;

use crate::context::Context;
use crate::flows::{Ask, FRAME, frames, tuples};
use crate::measure::Samples;
use crate::probe::{Probe, policy_of};
use crate::report::{Section, Target};
use crate::wire::{INTERFACE, Wire};
use crate::world::World;

const REQUIREMENTS: u32 = 100_000;

/// Measures the steps, then the whole.
pub(crate) fn bench(context: &Context, section: &mut Section) -> Result<()> {
    section.how(format!(
        "{} requirements, {} roles: the kernel's tables are filled beside those in force, then one number is changed. Two \
         matrices take turns; in one of them the requirements on TCP port 2007 are on 3007",
        World::of(REQUIREMENTS).requirements(),
        World::of(REQUIREMENTS).clients() + World::of(REQUIREMENTS).servers()
    ));
    section.how(
        "a running daemon under traffic: from SIGHUP until its log says that the new matrix is in force; every packet sent is \
         judged by one matrix or the other, as /metrics says at the end",
    );
    steps(context, section)?;
    whole(context, section)
}

fn steps(context: &Context, section: &mut Section) -> Result<()> {
    let world = World::of(REQUIREMENTS);
    let (matrices, site) = (matrices(world), world.site());
    let mut probe = Probe::open(world, 65_536, 65_536)?;
    let (mut reading, mut tables, mut switching) =
        (Samples::default(), Samples::default(), Samples::default());
    for matrix in matrices.iter().rev().cycle().take(context.runs) {
        let start = Instant::now();
        let compiled = policy_of(matrix, &site)?.compiled;
        reading.push(milliseconds(start));
        let start = Instant::now();
        let installed = Arc::new(Installed::new(compiled, probe.capture.directory().clone()));
        tables.push(milliseconds(start));
        let start = Instant::now();
        probe.capture.install(&installed)?;
        switching.push(milliseconds(start));
        // The matrix before is deleted when nothing can read it any more, by the polls that follow.
        let end = Instant::now() + Duration::from_millis(300);
        while Instant::now() < end {
            probe.capture.poll(Duration::from_millis(20), &mut |_| {})?;
        }
    }
    section.row(
        "reload/read",
        "reading, checking and compiling the files",
        reading,
        "ms",
        None,
    );
    section.row(
        "reload/tables",
        "tables in user space and counter slots",
        tables,
        "ms",
        None,
    );
    section.row(
        "reload/switch",
        "switching the kernel to the new matrix",
        switching,
        "ms",
        Some(Target::AtMost(150.0)),
    );
    Ok(())
}

/// Two that differ a little, as one does from the next version of it.
fn matrices(world: World) -> [String; 2] {
    let matrix = world.matrix();
    let changed = matrix.replace("[tcp/2007", "[tcp/3007");
    [matrix, changed]
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn whole(context: &Context, section: &mut Section) -> Result<()> {
    let world = World::of(REQUIREMENTS);
    let (matrices, site) = (matrices(world), world.site());
    let wire = Wire::new()?;
    let daemon = Daemon::start(
        &wire.watched,
        &Setup {
            backend: Backend::Ebpf,
            matrix: &matrices[0],
            site: &site,
            config: "",
            interfaces: &[INTERFACE],
        },
    )?;
    let sender = wire.frames()?;
    let packets = frames(&tuples(world, Ask::Allowed, 1_000), flags::ACK);
    let _taken = wire.take_all()?;
    let before = judged(&scrape(&wire)?.0);
    let (mut times, mut scrapes) = (Samples::default(), Samples::default());
    let mut sent = 0;
    for round in 1..=context.runs {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| -> Result<()> {
            let traffic = scope.spawn(|| -> Result<usize> {
                let mut all = 0;
                while !stop.load(Ordering::Relaxed) {
                    for chunk in packets.chunks(100 * FRAME) {
                        sender.send(chunk)?;
                        all += chunk.len() / FRAME;
                        thread::sleep(Duration::from_millis(2));
                    }
                }
                Ok(all)
            });
            thread::sleep(Duration::from_millis(200));
            let start = Instant::now();
            daemon.reload("matrix.yaml", &matrices[round % 2])?;
            let done = wait_for(Duration::from_secs(60), || {
                (daemon.stderr().matches("reloaded:").count() >= round).then_some(())
            });
            times.push(milliseconds(start));
            // Some traffic behind the switch too.
            thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::Relaxed);
            match traffic.join() {
                Ok(packets) => sent += packets? as u64,
                Err(panic) => std::panic::resume_unwind(panic),
            }
            ensure!(done.is_some(), "the reload did not come into force");
            Ok(())
        })?;
        scrapes.push(scrape(&wire)?.1);
    }
    let judged = judged(&scrape(&wire)?.0) - before;
    section.row(
        "reload/whole",
        "SIGHUP until the new matrix is in force",
        times,
        "ms",
        None,
    );
    section.row(
        "reload/unjudged",
        format!("packets unjudged, of {sent}"),
        [sent as f64 - judged as f64].into_iter().collect(),
        "packets",
        Some(Target::AtMost(0.0)),
    );
    section.row(
        "reload/scrape",
        format!("a scrape of /metrics at {REQUIREMENTS} requirements"),
        scrapes,
        "ms",
        None,
    );
    Ok(())
}

/// A scrape however long it takes, and its time in milliseconds.
fn scrape(wire: &Wire) -> Result<(Metrics, f64)> {
    let start = Instant::now();
    let mut stream = wire.watched.connect(None, LISTEN, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: bench\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let time = milliseconds(start);
    let (_, body) = text
        .split_once("\r\n\r\n")
        .context("/metrics gave no HTTP response")?;
    // The other series of so many requirements are of no interest here, and many megabytes.
    let packets: Vec<&str> = body
        .lines()
        .filter(|line| line.starts_with("flowproof_packets_total"))
        .collect();
    Ok((Metrics::parse(&packets.join("\n"))?, time))
}

/// Packets judged by a matrix that knows their roles; the labels leave out what else the interface carries.
fn judged(metrics: &Metrics) -> u64 {
    metrics.count("flowproof_packets_total", &[("verdict", "expected")])
        + metrics.count("flowproof_packets_total", &[("verdict", "unexpected")])
}
