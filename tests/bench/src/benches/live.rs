//! Live capture by libpcap beside programs that capture the same traffic by the same library: who keeps how much of what
//! one CPU can send.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::frame::flags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bpf::live::LiveFeed;
use crate::bpf::programs::Tuple;
use crate::context::Context;
use crate::flows::{Ask, frame, tuples};
use crate::measure::{Samples, pinned};
use crate::peers::{find, packets};
use crate::report::{Section, Target};
use crate::wire::{INTERFACE, Wire};
use crate::world::World;

/// How long is sent, at least.
const SPAN: Duration = Duration::from_secs(1);
/// Frames that are given in one go: many, since the kernel patches its own code before and after.
const BURST: u32 = 1 << 19;

/// Everybody in turns.
pub(crate) fn bench(context: &Context, section: &mut Section) -> Result<()> {
    section.how(
        "frames of 100 bytes of 50,000 conversations for a second, as fast as one CPU gives them: made and received there by test \
         runs of an XDP program with live frames. Whoever captures has the other CPU, and a buffer of 16 MiB; a program behind the \
         capture takes every packet. Kept is what was handled of what was offered",
    );
    let world = World::of(1_000);
    let (matrix, site) = (world.matrix(), world.site());
    let traffic = tuples(world, Ask::Allowed, 50_000);
    let mut offered = Samples::default();
    let mut all: Vec<(&str, Samples)> = vec![("flowproof", Samples::default())];
    for name in ["softflowd", "nfpcapd", "tcpdump"] {
        match find(name) {
            Some(_) => all.push((name, Samples::default())),
            None => section.lack(format!("{name}: not installed")),
        }
    }
    for _ in 0..context.runs {
        for (name, samples) in &mut all {
            let wire = Wire::new()?;
            let (sent, rate, kept) = if *name == "flowproof" {
                own(&wire, &matrix, &site, &traffic)?
            } else {
                peer(&wire, name, &traffic).with_context(|| format!("capturing by {name}"))?
            };
            offered.push(rate);
            samples.push(kept as f64 / sent as f64);
        }
    }
    section.row("live/offered", "offered", offered, "packets/s", None);
    let own = all[0].1.clone();
    for (name, samples) in &all {
        section.row(
            format!("live/{name}"),
            format!("kept by {name}"),
            samples.clone(),
            "of 1",
            (*name == "flowproof").then_some(Target::AtLeast(1.0)),
        );
        if *name != "flowproof" {
            section.row(
                format!("live/to-{name}"),
                format!("flowproof's kept rate in units of {name}'s"),
                own.over(samples),
                "times",
                (*name == "softflowd").then_some(Target::AtLeast(1.3)),
            );
        }
    }
    Ok(())
}

/// Has the watched interface receive for a while; how many frames, and how many a second.
fn send(wire: &Wire, traffic: &[Tuple]) -> Result<(u64, f64)> {
    let _taken = wire.take_all()?;
    let index = wire.index()?;
    let frame = frame(traffic.first().context("no flows")?, flags::ACK);
    pinned(0, || {
        wire.watched.run(|| {
            let feed = LiveFeed::new(traffic, index)?;
            let (start, mut sent) = (Instant::now(), 0_u64);
            while start.elapsed() < SPAN {
                feed.send(&frame, BURST)?;
                sent += u64::from(BURST);
            }
            Ok((sent, sent as f64 / start.elapsed().as_secs_f64()))
        })
    })
}

fn own(wire: &Wire, matrix: &str, site: &str, traffic: &[Tuple]) -> Result<(u64, f64, u64)> {
    let daemon = Daemon::start(
        &wire.watched,
        &Setup {
            backend: Backend::Pcap,
            matrix,
            site,
            config: "",
            interfaces: &[INTERFACE],
        },
    )?;
    let (sent, rate) = send(wire, traffic)?;
    let count = |metrics: &flowproof_tests::metrics::Metrics| {
        metrics.count("flowproof_capture_packets_total", &[])
    };
    // Until it has read what its buffer holds.
    let mut last = 0;
    daemon.wait_metrics(Duration::from_secs(10), |metrics| {
        let now = count(metrics);
        let done = now == last && now > 0;
        last = now;
        std::thread::sleep(Duration::from_millis(300));
        done
    })?;
    Ok((sent, rate, last.min(sent)))
}

fn peer(wire: &Wire, name: &str, traffic: &[Tuple]) -> Result<(u64, f64, u64)> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let program = find(name).context("not installed")?;
    let mut command = Command::new(program);
    match name {
        "softflowd" => command
            .args([
                "-d",
                "-6",
                "-m",
                "200000",
                "-v",
                "9",
                "-n",
                "127.0.0.1:9",
                "-B",
            ])
            .arg((16 << 20).to_string())
            .args(["-p", &path("pid"), "-c", &path("control"), "-i", INTERFACE]),
        "nfpcapd" => command.args(["-b", "16", "-w", &path("."), "-i", INTERFACE]),
        _ => command.args([
            "-n",
            "-B",
            "16384",
            "-s",
            "96",
            "-w",
            "/dev/null",
            "-i",
            INTERFACE,
        ]),
    };
    let said = folder.path().join("said");
    let file = File::create(&said)?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    let mut child = wire.watched.start(&mut command)?;
    // None of them tells when it listens.
    std::thread::sleep(Duration::from_millis(700));
    let sent = send(wire, traffic);
    // It has read what its buffer holds by then.
    std::thread::sleep(Duration::from_secs(1));
    // It says nothing at its end, but does when asked.
    let asked = (name == "softflowd").then(|| {
        let socket = path("control");
        wire.watched
            .command("softflowctl", &["-c", &socket, "statistics"])
    });
    end(&mut child)?;
    let said = match asked {
        Some(answer) => answer?,
        None => std::fs::read_to_string(&said)?,
    };
    let kept = packets(name, &said).with_context(|| format!("it doesn't say how many: {said}"))?;
    let (sent, rate) = sent?;
    Ok((sent, rate, kept.min(sent)))
}

/// Asks a peer to end, by a signal that it prints its counts on; one that does not (softflowd was seen to miss it) is ended.
fn end(child: &mut Child) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        kill(pid, signal)?;
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(5) {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    child.wait()?;
    Ok(())
}
