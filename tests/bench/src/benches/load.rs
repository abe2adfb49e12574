//! New flows without end, at rising rates, with the daemon at work: how many a second it takes in without losing an
//! event, and whether beyond that every loss is counted.

use std::time::Duration;

use anyhow::{Result, ensure};
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::frame::flags;
use flowproof_tests::metrics::Metrics;

use crate::context::Context;
use crate::flows::{FRAME, frame, fresh, fresh_service};
use crate::measure::{Samples, pinned};
use crate::report::{Section, Target};
use crate::wire::{INTERFACE, Wire};
use crate::world::World;

/// Frames of a burst that is sent at once.
const BURST: usize = 64;

/// Raises the rate until events are lost.
pub(crate) fn bench(context: &Context, section: &mut Section) -> Result<()> {
    let world = World::of(1_000);
    let (matrix, site) = (world.matrix(), world.site());
    let setup = Setup {
        backend: Backend::Ebpf,
        matrix: &matrix,
        site: &site,
        // Every attempt of a run has room, so that what is lost is lost by the ring.
        config: "capture: {ebpf: {flows: {unverified: 2097152}}}",
        interfaces: &[INTERFACE],
    };
    section.how(
        "SYNs over veth, each a flow of its own that the matrix allows, for a second at each rate, from one CPU; the daemon on \
         the other drains the ring; a program behind its own takes every packet. A flow is sustained if its event was not lost; all are counted by their requirement",
    );
    let span = Duration::from_millis(if context.quick { 300 } else { 1_000 });
    let (mut sustained, mut fastest, mut kept) =
        (Samples::default(), Samples::default(), Samples::default());
    let mut number = 0;
    for _ in 0..context.runs.min(3) {
        let wire = Wire::new()?;
        let sender = wire.frames()?;
        let mut burst = frame(&fresh(world), flags::SYN).repeat(BURST);
        let daemon = Daemon::start(&wire.watched, &setup)?;
        let _taken = wire.take_all()?;
        let mut best = 0.0;
        for rate in [
            50e3,
            100e3,
            200e3,
            300e3,
            400e3,
            600e3,
            800e3,
            1e6,
            f64::INFINITY,
        ] {
            let before = counts(&daemon.metrics()?, world);
            let sent = pinned(0, || {
                sender.paced(
                    rate.is_finite().then_some(rate),
                    span,
                    &mut burst,
                    |_, burst| {
                        number = renumber(burst, number);
                    },
                )
            })?;
            let expect = before.0 + sent;
            daemon.wait_metrics(Duration::from_secs(10), |metrics| {
                counts(metrics, world).0 >= expect
            })?;
            let after = counts(&daemon.metrics()?, world);
            ensure!(
                after.0 == expect,
                "{} flows counted of {sent}",
                after.0 - before.0
            );
            let lost = after.1 - before.1;
            let reached = sent as f64 / span.as_secs_f64();
            if lost == 0 {
                best = f64::max(best, reached);
            }
            if rate.is_infinite() {
                fastest.push(reached);
                kept.push(100.0 * (sent - lost.min(sent)) as f64 / sent as f64);
            }
        }
        sustained.push(best);
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
        "new flows a second judged and counted, as fast as one CPU sends",
        fastest,
        "flows/s",
        None,
    );
    section.row(
        "load/kept",
        "events kept at that rate; all lost ones are counted",
        kept,
        "%",
        None,
    );
    Ok(())
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
