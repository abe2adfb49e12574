//! What the probe adds to traffic: to a packet over veth, to throughput, to the time of a request and its answer.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use flowproof_common::protocol::TCP;
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::frame::flags;

use crate::bpf::Place;
use crate::bpf::programs::{Floor, Tuple};
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
        "with and without a running daemon in turns: `iperf3 -c WATCHED -t 2 -J`, and one byte to and fro over TCP",
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
    let (mut bits, mut trips) = (
        [Samples::default(), Samples::default()],
        [Samples::default(), Samples::default()],
    );
    for _ in 0..context.runs {
        for with in [0, 1] {
            let mut daemon = match with {
                1 => Some(Daemon::start(&wire.watched, &setup)?),
                _ => None,
            };
            if iperf3.is_some() {
                bits[with].push(throughput(wire, context.quick)?);
            }
            trips[with].push(round_trips(wire, context.span() * 2)?);
            if let Some(daemon) = &mut daemon {
                daemon.terminate()?;
            }
        }
    }
    for (name, what, unit, [without, with]) in [
        ("iperf3", "iperf3, TCP", "Gbit/s", bits),
        ("trips", "requests and answers over TCP", "1/s", trips),
    ] {
        section.row(
            format!("stack/{name}/without"),
            format!("{what}, without the probe"),
            without.clone(),
            unit,
            None,
        );
        section.row(
            format!("stack/{name}/with"),
            format!("{what}, with the probe"),
            with.clone(),
            unit,
            None,
        );
        section.row(
            format!("stack/{name}"),
            format!("{what}, with the probe in parts of without"),
            with.over(&without),
            "times",
            Some(Target::AtLeast(0.97)),
        );
    }
    Ok(())
}

/// Gigabits a second by iperf3.
fn throughput(wire: &Wire, quick: bool) -> Result<f64> {
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
