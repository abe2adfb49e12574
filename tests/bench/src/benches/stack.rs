//! What the probe adds to traffic: to a packet over veth, to throughput, to the time of a request and its answer.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flowproof_common::protocol::TCP;
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::frame::flags;

use crate::bpf::Place;
use crate::bpf::programs::{Floor, Tuple, empty};
use crate::context::Context;
use crate::flows::{Ask, HANDSHAKE, frames, reversed, tuples};
use crate::measure::{Samples, pinned};
use crate::peers::{find, iperf3_bits};
use crate::probe::Probe;
use crate::report::{Section, Target};
use crate::wire::{INTERFACE, SENDER, WATCHED, Wire};
use crate::world::World;

const REQUIREMENTS: u32 = 1_000;
const FLOWS: u32 = 64_000;
/// What is at the hooks of the watched interface while others measure what it costs them.
#[derive(Clone, Copy)]
enum With {
    Nothing,
    /// Programs that do nothing: the price of any probe.
    Empty,
    Flowproof,
}
const WITH: [With; 3] = [With::Nothing, With::Empty, With::Flowproof];

/// From a daemon's start until it does only what it always does.
const SETTLED: Duration = Duration::from_secs(1);

/// Measures all of it.
pub(crate) fn bench(context: &Context, section: &mut Section) -> Result<()> {
    let wire = Wire::new()?;
    section.how(format!(
        "a veth pair between two network namespaces; {FLOWS} verified flows in random order, frames of 100 bytes from a packet \
         socket past its queue; CPU time of the sending thread, whose calls do the receiver's work too, on one CPU. A program \
         behind what is measured takes every packet, so that none is dropped"
    ));
    pinned(context.cpu, || added(context, section, &wire))?;
    section.how(
        "without anything at the hooks, with an empty program at ingress and egress, and with a running daemon, in turns and twice \
         as often as the rest: `iperf3 -c WATCHED -t 2 -P 1 -J`, the same with `-P 4`, which keeps \
         both CPUs busy, and one byte to and fro over TCP",
    );
    with_and_without(context, section, &wire)
}

/// By programs attached in turns.
fn added(context: &Context, section: &mut Section, wire: &Wire) -> Result<()> {
    let world = World::of(REQUIREMENTS);
    let index = wire.index()?;
    let watched = &wire.watched;
    let mut probe = watched.run(|| Probe::open(world, 131_072, 65_536))?;
    let all = tuples(world, Ask::Allowed, FLOWS);
    let floor = Floor::new(131_072)?;
    for tuple in &all {
        floor.know(tuple, TCP)?;
    }
    let _taken = wire.take_all()?;
    let sender = wire.frames()?;

    let attached = watched.run(|| probe.ingress.attach(index, Place::First))?;
    for chunk in all.chunks(6_000) {
        let back: Vec<Tuple> = chunk.iter().map(reversed).collect();
        for (flags, from_responder) in HANDSHAKE {
            let way = if from_responder { &back[..] } else { chunk };
            sender.send(&frames(way, flags))?;
        }
        probe.drain()?;
    }
    drop(attached);
    probe.expect_verified(u64::from(FLOWS))?;

    let packets = frames(&all, flags::ACK);
    let (mut none, mut least, mut own) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..context.runs {
        none.push(sender.cost(&packets, context.span())?);
        let link = watched.run(|| floor.program.attach(index, Place::First))?;
        least.push(sender.cost(&packets, context.span())?);
        drop(link);
        let link = watched.run(|| probe.ingress.attach(index, Place::First))?;
        let before = probe.judged()?;
        own.push(sender.cost(&packets, context.span())?);
        ensure!(probe.judged()? > before, "the probe saw nothing");
        drop(link);
    }
    section.row(
        "stack/none",
        "a packet over veth, no probe",
        none.clone(),
        "ns",
        None,
    );
    section.row(
        "stack/floor",
        "added to a packet by the floor, by TCX",
        least.less(&none),
        "ns",
        None,
    );
    section.row(
        "stack/flowproof",
        "added to a packet by flowproof, by TCX",
        own.less(&none),
        "ns",
        Some(Target::AtMost(150.0)),
    );
    Ok(())
}

/// With the daemon as it runs, and without.
fn with_and_without(context: &Context, section: &mut Section, wire: &Wire) -> Result<()> {
    let world = World::of(REQUIREMENTS);
    let (matrix, site) = (world.matrix(), world.site());
    let setup = Setup {
        backend: Backend::Ebpf,
        matrix: &matrix,
        site: &site,
        config: "",
        interfaces: &[INTERFACE],
    };
    let iperf3 = find("iperf3");
    if iperf3.is_none() {
        section.lack("throughput: iperf3 is not installed (Debian package iperf3)");
    }
    let index = wire.index()?;
    let nothing = empty()?;
    let mut bits: [Samples; 3] = Default::default();
    let mut bits_of_four: [Samples; 3] = Default::default();
    let mut trips: [Samples; 3] = Default::default();
    // Twice as often as anything else, because it varies most.
    for _ in 0..2 * context.runs {
        for (at, with) in WITH.into_iter().enumerate() {
            let mut links = Vec::new();
            let mut daemon = None;
            match with {
                With::Nothing => {}
                With::Empty => wire.watched.run(|| -> Result<()> {
                    links.push(nothing.attach(index, Place::First)?);
                    links.push(nothing.attach_to_egress(index, Place::First)?);
                    Ok(())
                })?,
                With::Flowproof => {
                    daemon = Some(Daemon::start(&wire.watched, &setup)?);
                    // One that has just begun writes its ledger anew, once.
                    std::thread::sleep(SETTLED);
                }
            }
            if iperf3.is_some() {
                bits[at].push(throughput(wire, 1, context.quick)?);
                bits_of_four[at].push(throughput(wire, 4, context.quick)?);
            }
            trips[at].push(round_trips(wire, context.span())?);
            if let Some(daemon) = &mut daemon {
                daemon.terminate()?;
            }
        }
    }
    for (name, what, unit, [without, least, with]) in [
        ("iperf3", "iperf3, TCP, one connection", "Gbit/s", bits),
        (
            "iperf3-4",
            "iperf3, TCP, four connections",
            "Gbit/s",
            bits_of_four,
        ),
        ("trips", "requests and answers over TCP", "1/s", trips),
    ] {
        for (row, how, samples) in [
            ("without", "without the probe", without.clone()),
            ("with", "with the probe", with.clone()),
        ] {
            section.row(
                format!("stack/{name}/{row}"),
                format!("{what}, {how}"),
                samples,
                unit,
                None,
            );
        }
        for (row, how, samples, target) in [
            ("/empty", "empty programs at its hooks", least, None),
            ("", "the probe", with, Some(Target::AtLeast(0.97))),
        ] {
            section.row(
                format!("stack/{name}{row}"),
                format!("{what}, with {how} in parts of without"),
                samples.over(&without),
                "times",
                target,
            );
        }
    }
    Ok(())
}

/// Gigabits a second by iperf3 over so many connections at once.
fn throughput(wire: &Wire, connections: u32, quick: bool) -> Result<f64> {
    let program = find("iperf3").context("iperf3 is missing")?;
    let mut server = wire.watched.start(
        Command::new(&program)
            .args(["-s", "-1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )?;
    // It says nothing when it listens; the client says if it does not.
    std::thread::sleep(Duration::from_millis(300));
    let output = wire.sender.command(
        &program.display().to_string(),
        &[
            "-c",
            &WATCHED.to_string(),
            "-t",
            if quick { "1" } else { "2" },
            "-P",
            &connections.to_string(),
            "-J",
        ],
    );
    if output.is_err() {
        let _ = server.kill();
    }
    server.wait()?;
    Ok(iperf3_bits(&output?)? / 1e9)
}

/// Round trips a second of one byte, one after the other.
fn round_trips(wire: &Wire, span: Duration) -> Result<f64> {
    let listener = wire.watched.listen((WATCHED, 0))?;
    let address = listener.local_addr()?;
    let echo = std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 {
            stream.write_all(&byte)?;
        }
        Ok(())
    });
    let mut stream =
        wire.sender
            .connect(Some((SENDER, 0).into()), address, Duration::from_secs(5))?;
    let start = Instant::now();
    let mut trips = 0_u32;
    let mut byte = [7];
    while start.elapsed() < span {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        trips += 1;
    }
    let spent = start.elapsed();
    drop(stream);
    match echo.join() {
        Ok(done) => done?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    Ok(f64::from(trips) / spent.as_secs_f64())
}
