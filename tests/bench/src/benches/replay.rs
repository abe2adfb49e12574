//! Capture files, read and judged, beside flow exporters that read the same files, and beside a program that only reads.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;
use crate::measure::{Samples, Usage, pinned, run, said};
use crate::peers::{find, packets};
use crate::report::{Section, Target};
use crate::traffic::{self, Files, Recipe};

/// The verb that makes this program the floor.
pub(crate) const LOOP: &str = "pcap-loop";

/// Reads a capture file by `pcap_next_ex` and does nothing with it: what any program on libpcap pays.
pub(crate) fn floor(file: &Path) -> Result<()> {
    let mut capture = pcap::Capture::from_file(file)?;
    let (mut packets, mut bytes) = (0_u64, 0_u64);
    while let Ok(packet) = capture.next_packet() {
        packets += 1;
        bytes += u64::from(packet.header.len);
    }
    println!("{packets} packets, {bytes} bytes");
    Ok(())
}

/// A program that reads a capture file.
struct Contender {
    name: &'static str,
    command: Box<dyn Fn(&Path) -> Command>,
    usage: Vec<Usage>,
}

impl Contender {
    fn of(&self, part: impl Fn(&Usage) -> f64) -> Samples {
        self.usage.iter().map(part).collect()
    }
}

/// Measures both files.
pub(crate) fn bench(context: &Context, section: &mut Section) -> Result<()> {
    let recipe = Recipe::FULL;
    let files = traffic::files(&context.cache, recipe).context("making the capture files")?;
    section.how(format!(
        "{} packets of {} conversations from seed {}: TCP, UDP and ICMP, 30 % IPv6, 2 % VLAN, mean 514 bytes; whole, and cut at \
         {} bytes; in the page cache",
        recipe.packets,
        recipe.flows,
        recipe.seed,
        traffic::CUT,
    ));
    section.how(format!(
        "each program on one CPU, in turns, {} times; user and system time of the whole process, its start and end included",
        context.runs
    ));
    section.how(format!(
        "flowproof judges by {} requirements, counts every packet for them and tells the state of each: \
         `flowproof replay --quiet --format json --matrix matrix.yaml --site site.yaml FILE`",
        recipe.requirements
    ));
    let sink = UdpSocket::bind("127.0.0.1:0").context("a socket for softflowd to send to")?;
    let collector = sink.local_addr()?.to_string();
    for (kind, file) in [("cut", &files.cut), ("full", &files.full)] {
        let mut contenders = contenders(context, &files, &collector, section, kind == "cut")?;
        // Once for the page cache, and to see that all read all of it.
        for contender in &contenders {
            let said = said(&mut (contender.command)(file))?;
            if let Some(count) = packets(contender.name, &said) {
                ensure!(
                    count == u64::from(recipe.packets),
                    "{} handled {count} packets of {}",
                    contender.name,
                    recipe.packets
                );
            }
        }
        for round in 0..context.runs {
            for contender in &mut contenders {
                let usage = pinned(context.cpu, || {
                    run(&context.own, &(contender.command)(file))
                })
                .with_context(|| format!("{}, run {round}", contender.name))?;
                contender.usage.push(usage);
            }
        }
        tell(section, kind, recipe, &contenders);
    }
    Ok(())
}

fn contenders(
    context: &Context,
    files: &Files,
    collector: &str,
    section: &mut Section,
    say: bool,
) -> Result<Vec<Contender>> {
    let own = context.own.clone();
    let flowproof = context.flowproof.clone();
    let (matrix, site) = (files.matrix.clone(), files.site.clone());
    let mut contenders = vec![
        Contender {
            name: "flowproof",
            command: Box::new(move |file| {
                let mut command = Command::new(&flowproof);
                command.args(["replay", "--quiet", "--format", "json", "--matrix"]);
                command.arg(&matrix).arg("--site").arg(&site).arg(file);
                command
            }),
            usage: Vec::new(),
        },
        Contender {
            name: "pcap_next_ex loop",
            command: Box::new(move |file| {
                let mut command = Command::new(&own);
                command.arg(LOOP).arg(file);
                command
            }),
            usage: Vec::new(),
        },
    ];
    let scratch = context.cache.join("scratch");
    std::fs::create_dir_all(&scratch)?;
    let text = |name: &str| scratch.join(name).display().to_string();
    let peers: [(&str, Vec<String>, &str); 4] = [
        (
            "softflowd",
            // Its table holds 8,192 flows unless told otherwise, and it leaves out IPv6.
            [
                "-d",
                "-6",
                "-m",
                "200000",
                "-v",
                "9",
                "-n",
                collector,
                "-p",
                &text("pid"),
                "-c",
                &text("control"),
                "-r",
            ]
            .map(str::to_owned)
            .to_vec(),
            "softflowd",
        ),
        (
            "nfpcapd",
            ["-w", &text("."), "-r"].map(str::to_owned).to_vec(),
            "nfdump",
        ),
        (
            "argus",
            ["-F", "/dev/null", "-w", "/dev/null", "-r"]
                .map(str::to_owned)
                .to_vec(),
            "argus-server",
        ),
        (
            "tcpdump",
            ["-w", "/dev/null", "-r"].map(str::to_owned).to_vec(),
            "tcpdump",
        ),
    ];
    for (name, arguments, package) in peers {
        let Some(program) = find(name) else {
            if say {
                section.lack(format!("{name}: not installed (Debian package {package})"));
            }
            continue;
        };
        if say {
            section.how(format!(
                "`{name} {} FILE`",
                shown(&arguments, collector, &scratch)
            ));
        }
        contenders.push(Contender {
            name,
            command: Box::new(move |file| {
                let mut command = Command::new(&program);
                command.args(&arguments).arg(file);
                command
            }),
            usage: Vec::new(),
        });
    }
    Ok(contenders)
}

/// Arguments without what is only so on this machine.
fn shown(arguments: &[String], collector: &str, scratch: &Path) -> String {
    arguments
        .join(" ")
        .replace(collector, "COLLECTOR")
        .replace(&scratch.display().to_string(), "FOLDER")
}

fn tell(section: &mut Section, kind: &str, recipe: Recipe, contenders: &[Contender]) {
    let cpu = |contender: &Contender| contender.of(|usage| usage.cpu);
    let words = if kind == "cut" {
        "cut at 96 bytes"
    } else {
        "whole packets"
    };
    for contender in contenders {
        let rate = cpu(contender).map(|seconds| f64::from(recipe.packets) / seconds);
        section.row(
            format!("replay/{kind}/{}", contender.name),
            format!("{}, {words}", contender.name),
            rate,
            "packets/s",
            None,
        );
    }
    let (own, others) = contenders.split_at(1);
    let own = &own[0];
    for other in others {
        let (ratio, what, target) = match (other.name, kind) {
            ("pcap_next_ex loop", _) => (
                cpu(own).over(&cpu(other)),
                format!("time of the pcap_next_ex loop, {words}"),
                Some(Target::AtMost(if kind == "cut" { 1.8 } else { 1.5 })),
            ),
            (name, _) => (
                cpu(other).over(&cpu(own)),
                format!("packets/s of {name}, {words}"),
                match (name, kind) {
                    ("softflowd" | "nfpcapd", "cut") => Some(Target::AtLeast(5.0)),
                    ("softflowd", _) => Some(Target::AtLeast(3.5)),
                    _ => None,
                },
            ),
        };
        section.row(
            format!("replay/{kind}/to-{}", other.name),
            format!("flowproof's replay in units of {what}"),
            ratio,
            "times",
            target,
        );
    }
    for contender in contenders {
        section.row(
            format!("replay/{kind}/wall/{}", contender.name),
            format!("{}, {words}: from start to end", contender.name),
            contender.of(|usage| usage.wall),
            "s",
            None,
        );
    }
    if kind == "cut" {
        for contender in contenders {
            section.row(
                format!("replay/memory/{}", contender.name),
                format!("{}, most memory at {} flows", contender.name, recipe.flows),
                contender.of(|usage| usage.peak),
                "MiB",
                (contender.name == "flowproof").then_some(Target::AtMost(25.0)),
            );
        }
    }
}
