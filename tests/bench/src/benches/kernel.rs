//! What the programs in the kernel cost, by `BPF_PROG_TEST_RUN`: the kernel itself repeats a program on a packet and takes
//! the time, on one CPU and without leaving the program's side.
//!
//! A packet of another flow each time comes from a small program that rewrites it and goes on by a tail call
//! ([`Feed`]). It is part of every figure, those of the empty program and of the floor too, so that all are what a packet
//! costs in all; the floor's is what any program that counts flows exactly has to pay.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use flowproof::capture::Capture as _;
use flowproof_common::protocol::TCP;
use flowproof_tests::frame::flags;

use crate::bpf::programs::{Feed, Floor, Inserter, Source, Tuple, empty};
use crate::context::Context;
use crate::flows::{Ask, HANDSHAKE, frame, fresh, reversed, tuples};
use crate::measure::{Samples, pinned};
use crate::probe::Probe;
use crate::report::{Section, Target};
use crate::world::World;

/// Requirements of the matrix.
const REQUIREMENTS: u32 = 1_000;
/// Flows whose events the ring holds for sure: 4 MiB, 136 bytes an event.
const RINGFUL: u32 = 20_000;
/// Room in the tables, the daemon's own defaults.
const VERIFIED: u32 = 131_072;
const UNVERIFIED: u32 = 65_536;

/// Measures everything.
pub(crate) fn bench(context: &Context, section: &mut Section) -> Result<()> {
    let statistics = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled")?;
    ensure!(
        statistics.trim() == "0",
        "kernel.bpf_stats_enabled is on, which makes every program slower: set it to 0"
    );
    section.how("BPF_PROG_TEST_RUN on one CPU, `kernel.bpf_stats_enabled=0`; frames of 100 bytes, TCP over IPv4");
    section.how(
        "every figure includes the program that gives the packet another flow each time and the tail call behind it; flows \
         come in random order",
    );
    section.how(format!(
        "tables of {VERIFIED} verified and {UNVERIFIED} unverified flows, {REQUIREMENTS} requirements"
    ));
    pinned(context.cpu, || {
        known(context, section)?;
        new(context, section)
    })
}

/// Packets of flows that are known.
fn known(context: &Context, section: &mut Section) -> Result<()> {
    let world = World::of(REQUIREMENTS);
    let empty = empty()?;
    let repeat = if context.quick { 200_000 } else { 1_000_000 };
    let mut probe = Probe::open(world, VERIFIED, UNVERIFIED)?;
    let all = tuples(world, Ask::Allowed, 64_000);
    let floor = Floor::new(VERIFIED)?;
    for tuple in &all {
        floor.know(tuple, TCP)?;
    }
    establish(&mut probe, &all)?;
    let mut counted = 0;
    for count in [1, 1_000, 64_000] {
        let feed = Feed::new(Source::Known(&all[..count]))?;
        let packet = frame(&all[0], flags::ACK);
        let before = probe.judged()?;
        let (mut none, mut least, mut own) = Default::default();
        for _ in 0..context.runs {
            for (program, samples) in [
                (&empty, &mut none),
                (&floor.program, &mut least),
                (&probe.ingress, &mut own),
            ] {
                Samples::push(samples, feed.run(program, &packet, repeat)?);
            }
        }
        // Both count exactly, or the comparison is none.
        let judged = probe.judged()? - before;
        let sent = u64::from(repeat) * context.runs as u64;
        ensure!(judged == sent, "{judged} packets counted of {sent}");
        counted += sent;
        let floors: u64 = all
            .iter()
            .map(|tuple| floor.packets(tuple, TCP))
            .sum::<Result<u64>>()?;
        ensure!(floors == counted, "the floor counted {floors} of {counted}");
        let flows = if count == 1 {
            "1 flow".to_owned()
        } else {
            format!("{count} flows")
        };
        let ratio = own.over(&least);
        for (name, samples) in [
            ("empty program", none),
            ("floor (one hash look-up)", least),
            ("flowproof", own),
        ] {
            section.row(
                format!("kernel/{count}/{name}"),
                format!("{name}, a packet of one among {flows}"),
                samples,
                "ns",
                None,
            );
        }
        section.row(
            format!("kernel/{count}/to-floor"),
            format!("flowproof in units of the floor, {flows}"),
            ratio,
            "times",
            Some(Target::AtMost(1.5)),
        );
    }
    unexpected(context, section, &mut probe, repeat)?;
    drain_table(context, section, &mut probe)?;
    section.row(
        "kernel/code",
        "machine code of fp_ingress",
        [f64::from(probe.ingress.machine_code()?)]
            .into_iter()
            .collect(),
        "bytes",
        None,
    );
    flood(context, section, &mut probe)
}

/// Opens a connection for each tuple.
fn establish(probe: &mut Probe, tuples: &[Tuple]) -> Result<()> {
    for chunk in tuples.chunks(RINGFUL as usize / 3) {
        let back: Vec<Tuple> = chunk.iter().map(reversed).collect();
        for (flags, from_responder) in HANDSHAKE {
            let way = if from_responder { &back[..] } else { chunk };
            let feed = Feed::new(Source::Known(way))?;
            feed.run(
                &probe.ingress,
                &frame(&way[0], flags),
                u32::try_from(way.len())?,
            )?;
        }
        probe.drain()?;
    }
    probe.expect_verified(tuples.len() as u64)
}

/// Flows that the matrix forbids are in the other table, which is looked into second.
fn unexpected(
    context: &Context,
    section: &mut Section,
    probe: &mut Probe,
    repeat: u32,
) -> Result<()> {
    let tuples = tuples(World::of(REQUIREMENTS), Ask::Forbidden, 1_000);
    let feed = Feed::new(Source::Known(&tuples))?;
    let packet = frame(&tuples[0], flags::ACK);
    feed.run(&probe.ingress, &packet, 1_000)?;
    probe.drain()?;
    let mut samples = Samples::default();
    for _ in 0..context.runs {
        samples.push(feed.run(&probe.ingress, &packet, repeat)?);
    }
    section.row(
        "kernel/unexpected",
        "flowproof, a packet of one among 1000 unexpected flows",
        samples,
        "ns",
        None,
    );
    Ok(())
}

/// Reads the whole table of verified flows.
fn drain_table(context: &Context, section: &mut Section, probe: &mut Probe) -> Result<()> {
    let mut samples = Samples::default();
    for _ in 0..context.runs {
        let (mut flows, mut packets) = (0_u32, 0_u64);
        let start = Instant::now();
        probe.capture.each_flow(&mut |_, record| {
            flows += 1;
            packets += record.packets[0];
        })?;
        samples.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(flows));
        ensure!(packets > 0, "the table was empty");
    }
    section.row(
        "kernel/drain",
        "draining the flow tables to user space, a flow of 65000",
        samples,
        "ns",
        Some(Target::AtMost(300.0)),
    );
    Ok(())
}

/// Attempts without end into a table that is full: each pushes out another.
fn flood(context: &Context, section: &mut Section, probe: &mut Probe) -> Result<()> {
    let world = World::of(REQUIREMENTS);
    let feed = Feed::new(Source::Fresh)?;
    let packet = frame(&fresh(world), flags::SYN);
    for _ in 0..2 * UNVERIFIED / RINGFUL {
        feed.run(&probe.ingress, &packet, RINGFUL)?;
        probe.drain()?;
    }
    let (mut told, mut untold) = (Samples::default(), Samples::default());
    for _ in 0..context.runs {
        let lost = probe.lost("ring")?;
        told.push(feed.run(&probe.ingress, &packet, RINGFUL)?);
        ensure!(probe.lost("ring")? == lost, "the ring was not drained");
        // Nobody reads the ring now; what finds no room is counted.
        feed.run(&probe.ingress, &packet, RINGFUL)?;
        let (lost, begun) = (probe.lost("ring")?, probe.begun()?);
        untold.push(feed.run(&probe.ingress, &packet, RINGFUL)?);
        ensure!(
            probe.lost("ring")? - lost == u64::from(RINGFUL)
                && probe.begun()? - begun == u64::from(RINGFUL),
            "the loss was not counted exactly"
        );
        probe.drain()?;
    }
    section.row(
        "kernel/flood",
        "flowproof, flood through a full table: judged, event sent, another flow pushed out",
        told,
        "ns",
        None,
    );
    section.row(
        "kernel/flood/ring-full",
        "the same while nobody reads the ring: judged, the lost event counted",
        untold,
        "ns",
        None,
    );
    Ok(())
}

/// First packets of flows, into tables with room.
fn new(context: &Context, section: &mut Section) -> Result<()> {
    let world = World::of(REQUIREMENTS);
    let packet = frame(&fresh(world), flags::SYN);
    let feed = Feed::new(Source::Fresh)?;
    let empty = empty()?;
    let (mut none, mut least, mut telling) =
        (Samples::default(), Samples::default(), Samples::default());
    let (mut own, mut large, mut draining) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..context.runs {
        none.push(feed.run(&empty, &packet, 2 * RINGFUL)?);
        let inserter = Inserter::new(UNVERIFIED)?;
        feed.run(&inserter.program, &packet, RINGFUL)?;
        least.push(feed.run(&inserter.program, &packet, 2 * RINGFUL)?);
        let inserter = Inserter::telling(UNVERIFIED, 3 * RINGFUL)?;
        feed.run(&inserter.program, &packet, RINGFUL)?;
        telling.push(feed.run(&inserter.program, &packet, 2 * RINGFUL)?);
        let (spent, drained) = begin(world, UNVERIFIED, &feed, &packet)?;
        own.push(spent);
        draining.push(drained);
        large.push(begin(world, 1 << 20, &feed, &packet)?.0);
    }
    section.row(
        "kernel/new/empty",
        "empty program, another new flow each time",
        none,
        "ns",
        None,
    );
    section.row(
        "kernel/new/floor",
        format!("floor (one insertion into an LRU table of {UNVERIFIED})"),
        least.clone(),
        "ns",
        None,
    );
    section.row(
        "kernel/new/telling",
        "floor (the same with a key for IPv6, and the exact time sent to user space)",
        telling.clone(),
        "ns",
        None,
    );
    section.row(
        "kernel/new",
        "flowproof, a new flow: judged, inserted, counted, event sent",
        own.clone(),
        "ns",
        Some(Target::AtMost(390.0)),
    );
    section.row(
        "kernel/new/to-floor",
        "a new flow in units of the floor that inserts",
        own.over(&least),
        "times",
        None,
    );
    section.row(
        "kernel/new/to-telling",
        "a new flow in units of the floor that inserts and tells",
        own.over(&telling),
        "times",
        None,
    );
    section.row(
        "kernel/new/large",
        "the same with room for a million unverified flows",
        large,
        "ns",
        None,
    );
    section.row(
        "kernel/events",
        "taking events out of the ring, an event, with what the poll does besides",
        draining,
        "ns",
        None,
    );
    Ok(())
}

/// New flows into fresh tables: nanoseconds of one, and of taking its event out of the ring.
fn begin(world: World, room: u32, feed: &Feed, packet: &[u8]) -> Result<(f64, f64)> {
    const CHUNKS: u32 = 2;
    let mut probe = Probe::open(world, VERIFIED, room)?;
    // The tables' first pages are touched by then.
    feed.run(&probe.ingress, packet, RINGFUL)?;
    probe.drain()?;
    let (mut sum, mut spent, mut events) = (0.0, Duration::ZERO, 0_u64);
    for _ in 0..CHUNKS {
        let before = probe.begun()?;
        sum += feed.run(&probe.ingress, packet, RINGFUL)?;
        ensure!(
            probe.begun()? - before == u64::from(RINGFUL),
            "not every flow was new"
        );
        let start = Instant::now();
        probe.capture.poll(Duration::ZERO, &mut |_| events += 1)?;
        spent += start.elapsed();
        probe.drain()?;
    }
    ensure!(probe.lost("ring")? == 0, "events were lost");
    Ok((
        sum / f64::from(CHUNKS),
        spent.as_secs_f64() * 1e9 / events as f64,
    ))
}
