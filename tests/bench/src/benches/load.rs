//! New flows without end, at rising rates, with the daemon at work: how many a second it takes in without losing an
//! event, and whether beyond that every loss is counted.
//!
//! A packet socket sends a third of what the daemon takes in, so the rates are driven by test runs of the daemon's own
//! program: each packet does what one at the hook does, and the daemon drains the ring meanwhile. What a wire can carry is
//! told beside it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::frame::flags;
use flowproof_tests::metrics::Metrics;

use crate::bpf::Program;
use crate::bpf::programs::{Feed, Source};
use crate::context::Context;
use crate::flows::{FRAME, frame, fresh, fresh_service};
use crate::measure::{Samples, pinned};
use crate::report::{Section, Target};
use crate::wire::{INTERFACE, Wire};
use crate::world::World;

/// Frames of a burst that is sent at once.
const BURST: usize = 64;
/// Packets of a test run.
const RUN: u32 = 500;
/// Rates that are tried one after the other, flows a second; then as fast as it goes.
const RATES: [f64; 9] = [
    100e3,
    200e3,
    400e3,
    600e3,
    800e3,
    1e6,
    1.25e6,
    1.5e6,
    f64::INFINITY,
];

/// Raises the rate until events are lost.
pub(crate) fn bench(context: &Context, section: &mut Section) -> Result<()> {
    let world = World::of(1_000);
    let (matrix, site) = (world.matrix(), world.site());
    let setup = Setup {
        backend: Backend::Ebpf,
        matrix: &matrix,
        site: &site,
        // Every attempt of a run has room, so that what is lost is lost by the ring.
        config: "capture: {ebpf: {flows: {unverified: 4194304}}}",
        interfaces: &[INTERFACE],
    };
    section.how(
        "SYNs, each a flow of its own that the matrix allows, for a second at each rate; the daemon on the other CPU drains \
         the ring. A flow is sustained if its event was not lost; all are counted by their requirement",
    );
    section.how(
        "by test runs: one CPU runs the daemon's own program at its hook on so many packets a second, 500 at a time, since a \
         packet socket can't send as many as are to be taken in; a new daemon for each rate",
    );
    section.how(
        "over veth: as fast as one CPU sends; a program behind the daemon's takes every packet",
    );
    let span = Duration::from_millis(if context.quick { 300 } else { 1_000 });
    let (mut sustained, mut fastest) = (Samples::default(), Samples::default());
    let (mut offered, mut kept) = (Samples::default(), Samples::default());
    for _ in 0..context.runs.min(3) {
        let wire = Wire::new()?;
        let mut best = 0.0;
        for rate in RATES {
            let mut daemon = Daemon::start(&wire.watched, &setup)?;
            let told = told(&daemon, world, || run(&daemon, world, rate, span))?;
            // Else the next one would adopt its tables, in which the same flows are known.
            daemon.terminate()?;
            let reached = told.flows as f64 / span.as_secs_f64();
            if told.lost == 0 {
                best = f64::max(best, reached);
            }
            if rate.is_infinite() {
                fastest.push(reached);
            }
        }
        sustained.push(best);
        let daemon = Daemon::start(&wire.watched, &setup)?;
        let _taken = wire.take_all()?;
        let sender = wire.frames()?;
        let mut burst = frame(&fresh(world), flags::SYN).repeat(BURST);
        let mut number = 0;
        let told = told(&daemon, world, || {
            pinned(0, || {
                sender.paced(None, span, &mut burst, |_, burst| {
                    number = renumber(burst, number);
                })
            })
        })?;
        offered.push(told.flows as f64 / span.as_secs_f64());
        kept.push(100.0 * (told.flows - told.lost) as f64 / told.flows as f64);
    }
    section.row(
        "load/sustained",
        "new flows a second sustained without loss",
        sustained,
        "flows/s",
        Some(Target::AtLeast(1e6)),
    );
    section.row(
        "load/fastest",
        "new flows a second judged and counted, as fast as one CPU runs the program",
        fastest,
        "flows/s",
        None,
    );
    section.row(
        "load/veth",
        "new flows a second over veth, as fast as one CPU sends",
        offered,
        "flows/s",
        None,
    );
    section.row(
        "load/kept",
        "events of these kept; all lost ones are counted",
        kept,
        "%",
        None,
    );
    Ok(())
}

/// What became of flows that were offered.
struct Told {
    flows: u64,
    lost: u64,
}

/// Has flows offered, and waits until the daemon has told of all.
fn told(daemon: &Daemon, world: World, offer: impl FnOnce() -> Result<u64>) -> Result<Told> {
    let before = counts(&daemon.metrics()?, world);
    let flows = offer()?;
    let expect = before.0 + flows;
    daemon.wait_metrics(Duration::from_secs(10), |metrics| {
        counts(metrics, world).0 >= expect
    })?;
    let after = counts(&daemon.metrics()?, world);
    ensure!(
        after.0 == expect,
        "{} flows counted of {flows}",
        after.0 - before.0
    );
    Ok(Told {
        flows,
        lost: after.1 - before.1,
    })
}

/// Runs the daemon's program on new flows for `span` at `rate`; how many.
fn run(daemon: &Daemon, world: World, rate: f64, span: Duration) -> Result<u64> {
    let program = Program::of(&daemon.process().to_string(), "fp_ingress")?;
    let feed = Feed::new(Source::Fresh)?;
    let packet = frame(&fresh(world), flags::SYN);
    pinned(0, || {
        let start = Instant::now();
        let mut sent = 0;
        loop {
            let spent = start.elapsed();
            if spent >= span {
                return Ok(sent);
            }
            if sent as f64 > rate * spent.as_secs_f64() {
                std::hint::spin_loop();
                continue;
            }
            feed.run(&program, &packet, RUN)?;
            sent += u64::from(RUN);
        }
    })
}

/// Gives every frame of a burst another source; the next number.
pub(crate) fn renumber(burst: &mut [u8], mut number: u32) -> u32 {
    for frame in burst.chunks_exact_mut(FRAME) {
        let [a, b, c, d] = number.to_be_bytes();
        // The lower half of the source address, and the source port.
        frame[28..30].copy_from_slice(&[a, b]);
        frame[34..36].copy_from_slice(&[c, d]);
        number = number.wrapping_add(1);
    }
    number
}

/// Attempts of the requirement that the flows fall under, and events lost.
fn counts(metrics: &Metrics, world: World) -> (u64, u64) {
    let (requirement, port) = fresh_service(world);
    let requirement = format!("r{requirement}");
    let service = format!("tcp/{port}");
    (
        metrics.count(
            "flowproof_requirement_attempts_total",
            &[("requirement", &requirement), ("service", &service)],
        ),
        metrics.count("flowproof_lost_total", &[("stage", "ring")]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_another_flow() {
        let mut burst = frame(&fresh(World::of(1_000)), flags::SYN).repeat(2);
        assert_eq!(renumber(&mut burst, 0x0001_ffff), 0x0002_0001);
        assert_eq!(burst[26..30], [10, 128, 0, 1]);
        assert_eq!(burst[34..36], [0xff, 0xff]);
        assert_eq!(burst[FRAME + 26..FRAME + 30], [10, 128, 0, 2]);
    }
}
