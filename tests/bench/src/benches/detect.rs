//! How soon an unexpected flow is told, while ten thousand others begin every second.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::frame::flags;

use super::load::renumber;
use crate::context::Context;
use crate::flows::{frame, fresh, fresh_service, rewrite};
use crate::measure::Samples;
use crate::report::{Section, Target};
use crate::wire::{INTERFACE, Wire};
use crate::world::World;

/// Flows that begin every second besides.
const RATE: f64 = 10_000.0;
/// Of fewer a 99th percentile is the greatest.
const SAMPLES: u16 = 300;

/// Sends flows of ever new kinds and waits for each in both outputs.
pub(crate) fn bench(context: &Context, section: &mut Section) -> Result<()> {
    section.how(
        "10,000 new flows a second; among them, at random moments, one that the matrix forbids, of a kind never seen: from its \
         packet until the event stream (JSON lines into a file) and until /metrics have it. /metrics is asked over and over, so \
         that its time includes a scrape's",
    );
    let samples = if context.quick { 40 } else { SAMPLES };
    let world = World::of(100);
    let (matrix, site) = (world.matrix(), world.site());
    let wire = Wire::new()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("events.json");
    let daemon = Daemon::start(
        &wire.watched,
        &Setup {
            backend: Backend::Ebpf,
            matrix: &matrix,
            site: &site,
            // Of kinds never seen 50 are told at once in an interval.
            config: &format!(
                "events: {{interval: 2s, json: {{path: {}}}}}",
                file.display()
            ),
            interfaces: &[INTERFACE],
        },
    )?;
    let background = wire.frames()?;
    let sender = wire.frames()?;
    let stop = AtomicBool::new(false);
    let (mut streamed, mut scraped) = (Samples::default(), Samples::default());
    thread::scope(|scope| -> Result<()> {
        let others = scope.spawn(|| -> Result<()> {
            let mut burst = frame(&fresh(world), flags::SYN).repeat(10);
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                background.paced(
                    Some(RATE),
                    Duration::from_millis(100),
                    &mut burst,
                    |_, burst| number = renumber(burst, number),
                )?;
            }
            Ok(())
        });
        let measured = (0..samples).try_for_each(|number| -> Result<()> {
            // Not in step with whatever the daemon does once a second.
            thread::sleep(Duration::from_millis(37 + 17 * u64::from(number % 13)));
            let port = 20_000 + number;
            let before = unexpected(&daemon)?;
            let mut tuple = fresh(world);
            ensure!(fresh_service(world).1 != port, "the port is allowed");
            tuple[8..10].copy_from_slice(&50_000_u16.to_be_bytes());
            tuple[10..].copy_from_slice(&port.to_be_bytes());
            let mut packet = frame(&tuple, flags::SYN);
            rewrite(&mut packet, &tuple);
            let (stream, scrape) = thread::scope(|inner| -> Result<_> {
                // Before the packet: its event may be there before another thread has begun.
                let mut events = std::fs::File::open(&file)
                    .with_context(|| format!("the daemon writes no {}", file.display()))?;
                events.seek(SeekFrom::End(0))?;
                let start = Instant::now();
                let stream = inner.spawn(move || told(events, port, start));
                sender.send(&packet)?;
                let scrape = loop {
                    if unexpected(&daemon)? > before {
                        break start.elapsed();
                    }
                    ensure!(
                        start.elapsed() < Duration::from_secs(20),
                        "/metrics never had it"
                    );
                };
                match stream.join() {
                    Ok(time) => Ok((time?, scrape)),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            })?;
            streamed.push(stream.as_secs_f64() * 1e3);
            scraped.push(scrape.as_secs_f64() * 1e3);
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        match others.join() {
            Ok(done) => done?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        measured
    })?;
    for (name, what, samples) in [
        ("metrics", "in /metrics", scraped),
        ("events", "in the event stream", streamed),
    ] {
        section.row(
            format!("detect/{name}/median"),
            format!("unexpected flow {what}, all runs"),
            samples.clone(),
            "ms",
            None,
        );
        section.row(
            format!("detect/{name}"),
            format!("unexpected flow {what}, 99th percentile"),
            [samples.percentile(0.99)].into_iter().collect(),
            "ms",
            Some(Target::AtMost(50.0)),
        );
    }
    Ok(())
}

fn unexpected(daemon: &Daemon) -> Result<u64> {
    Ok(daemon
        .metrics()?
        .count("flowproof_unexpected_flows_total", &[]))
}

/// How long it took until an event about `port` was in the file, behind where it was read last.
fn told(mut events: std::fs::File, port: u16, start: Instant) -> Result<Duration> {
    let wanted = format!("tcp/{port}");
    let mut text = String::new();
    loop {
        events.read_to_string(&mut text)?;
        if text.contains(&wanted) {
            return Ok(start.elapsed());
        }
        ensure!(
            start.elapsed() < Duration::from_secs(20),
            "no event about {wanted} in 20 s"
        );
        thread::sleep(Duration::from_micros(500));
    }
}
