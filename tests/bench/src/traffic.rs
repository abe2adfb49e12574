//! The packets that replays are measured with: made from a seed, so that everybody measures the same, and written as
//! capture files once.
//!
//! 50,000 conversations, their lengths spread as in real traffic (few are long), begin within 20 seconds of each other;
//! most are what the matrix of [`World`] expects. Headers are right but for transport checksums, which no program that
//! is measured here looks at.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use flowproof_common::packet::tcp;
use flowproof_common::protocol;

use crate::random::Random;
use crate::world::World;

/// What is to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipe {
    /// Of the random numbers.
    pub(crate) seed: u64,
    /// Packets in all.
    pub(crate) packets: u32,
    /// Conversations of two directions.
    pub(crate) flows: u32,
    /// Requirements of the matrix.
    pub(crate) requirements: u32,
}

impl Recipe {
    /// What every bench measures.
    pub(crate) const FULL: Self = Self {
        seed: 7,
        packets: 2_000_000,
        flows: 50_000,
        requirements: 1_000,
    };
}

/// Bytes kept of each frame in the cut file.
pub(crate) const CUT: usize = 96;
/// The mean length of frames, bytes.
const MEAN: u64 = 514;
/// The longest frame.
const LONGEST: u16 = 1514;
/// Time of the first packet, seconds since the Unix epoch: any will do, but the same each time.
const BEGIN: u32 = 1_750_000_000;
/// Within so many microseconds all conversations begin.
const BEGINNINGS: u32 = 20_000_000;

/// Files of a recipe.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// Whole frames.
    pub(crate) full: PathBuf,
    /// The first [`CUT`] bytes of each.
    pub(crate) cut: PathBuf,
    /// The matrix.
    pub(crate) matrix: PathBuf,
    /// The site.
    pub(crate) site: PathBuf,
}

/// The files of `recipe` below `folder`, made if they are not there.
pub(crate) fn files(folder: &Path, recipe: Recipe) -> Result<Files> {
    // Raised when the same recipe gives other files.
    const VERSION: u32 = 1;
    let folder = folder.join(format!(
        "traffic-{VERSION}-{}-{}-{}-{}",
        recipe.seed, recipe.packets, recipe.flows, recipe.requirements
    ));
    let files = Files {
        full: folder.join("full.pcap"),
        cut: folder.join("cut.pcap"),
        matrix: folder.join("matrix.yaml"),
        site: folder.join("site.yaml"),
    };
    if folder.is_dir() {
        return Ok(files);
    }
    // Under another name until all is written, so that what is there is whole.
    let unfinished = folder.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)
        .with_context(|| format!("can't make {}", unfinished.display()))?;
    let world = World::of(recipe.requirements);
    fs::write(unfinished.join("matrix.yaml"), world.matrix())?;
    fs::write(unfinished.join("site.yaml"), world.site())?;
    let mut full = Pcap::new(File::create(unfinished.join("full.pcap"))?, usize::MAX)?;
    let mut cut = Pcap::new(File::create(unfinished.join("cut.pcap"))?, CUT)?;
    generate(recipe, |time, frame| {
        full.write(time, frame)?;
        cut.write(time, frame)
    })?;
    full.finish()?;
    cut.finish()?;
    fs::rename(&unfinished, &folder)?;
    Ok(files)
}

/// A capture file that is written.
struct Pcap<W: Write> {
    out: BufWriter<W>,
    most: usize,
}

impl<W: Write> Pcap<W> {
    fn new(out: W, most: usize) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(1 << 20, out);
        // draft-ietf-opsawg-pcap, section 4: microseconds, version 2.4, Ethernet.
        let snap = u32::try_from(most.min(262_144)).unwrap_or(262_144);
        for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, snap, 1] {
            out.write_all(&u32::to_le_bytes(word))?;
        }
        Ok(Self { out, most })
    }

    /// `time` in microseconds since [`BEGIN`].
    fn write(&mut self, time: u32, frame: &[u8]) -> io::Result<()> {
        let kept = frame.len().min(self.most);
        let length = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        let words = [
            BEGIN + time / 1_000_000,
            time % 1_000_000,
            length(kept),
            length(frame.len()),
        ];
        for word in words {
            self.out.write_all(&word.to_le_bytes())?;
        }
        self.out.write_all(&frame[..kept])
    }

    fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A packet before it has bytes.
struct Planned {
    time: u32,
    flow: u32,
    /// Its number in the conversation.
    number: u32,
    length: u16,
}

/// Makes the packets in the order of time; `each` gets microseconds and a frame.
fn generate(recipe: Recipe, mut each: impl FnMut(u32, &[u8]) -> io::Result<()>) -> Result<()> {
    let world = World::of(recipe.requirements);
    let mut random = Random::new(recipe.seed);
    let counts = counts(&mut random, recipe);
    let mut flows: Vec<Flow> = counts
        .iter()
        .map(|count| Flow::new(&mut random, world, *count))
        .collect();
    let mut plan = plan(&mut random, recipe, &flows);
    give_lengths(&mut random, &flows, &mut plan);
    // Packets of one microsecond keep the order of their conversation.
    plan.sort_by_key(|packet| (packet.time, packet.flow, packet.number));
    let filler: Vec<u8> = (0..LONGEST)
        .map(|_| random.next().to_le_bytes()[0])
        .collect();
    let mut frame = Vec::with_capacity(LONGEST as usize);
    for packet in &plan {
        flows[packet.flow as usize].write(packet, &filler, &mut frame);
        each(packet.time, &frame)?;
    }
    Ok(())
}

/// Packets of each conversation, at least 2: Pareto-like, scaled so that the sum is right.
fn counts(random: &mut Random, recipe: Recipe) -> Vec<u32> {
    let weights: Vec<f64> = (0..recipe.flows)
        .map(|_| {
            let uniform = (f64::from(random.below(1 << 30)) + 1.0) / f64::from(1 << 30);
            uniform.powf(-0.8).min(2_000.0)
        })
        .collect();
    let sum: f64 = weights.iter().sum();
    let spare = recipe.packets - 2 * recipe.flows;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of the spare packets, rounded down"
    )]
    let mut counts: Vec<u32> = weights
        .iter()
        .map(|weight| 2 + (weight / sum * f64::from(spare)) as u32)
        .collect();
    let mut missing = recipe.packets - counts.iter().sum::<u32>();
    // Each was rounded down by less than one.
    for count in &mut counts {
        if missing == 0 {
            break;
        }
        *count += 1;
        missing -= 1;
    }
    counts
}

fn plan(random: &mut Random, recipe: Recipe, flows: &[Flow]) -> Vec<Planned> {
    let mut plan = Vec::with_capacity(recipe.packets as usize);
    for (index, flow) in (0..).zip(flows) {
        let mut time = random.below(BEGINNINGS);
        // A conversation takes up to 10 seconds, however many packets it has.
        let gap = (random.below(10_000_000) / flow.packets).max(2);
        for number in 0..flow.packets {
            plan.push(Planned {
                time,
                flow: index,
                number,
                length: flow.headers(),
            });
            time += 1 + random.below(2 * gap);
        }
    }
    plan
}

/// Most packets with data are small or as long as can be; as many are long as the mean asks for.
fn give_lengths(random: &mut Random, flows: &[Flow], plan: &mut [Planned]) {
    let carries = |packet: &Planned| flows[packet.flow as usize].carries(packet.number);
    let (mut sum, mut room) = (0, 0);
    for packet in plan.iter_mut() {
        if carries(packet) {
            packet.length += u16::try_from(random.below(120)).unwrap_or(0);
            room += u64::from(LONGEST - packet.length);
        }
        sum += u64::from(packet.length);
    }
    let wanted = (MEAN * plan.len() as u64).saturating_sub(sum);
    let part = u32::try_from((wanted << 16) / room.max(1)).unwrap_or(u32::MAX);
    for packet in plan.iter_mut() {
        if carries(packet) && random.below(1 << 16) < part {
            packet.length = LONGEST;
        }
    }
}

/// A conversation that is being made.
#[derive(Debug)]
struct Flow {
    packets: u32,
    protocol: u8,
    is_v6: bool,
    tagged: bool,
    /// Whether its end is seen, if it has one.
    closes: bool,
    /// Initiator and responder.
    addresses: [[u8; 16]; 2],
    ports: [u16; 2],
    sequence: [u32; 2],
}

const ETHERNET: u16 = 14;
const TAG: u16 = 4;

impl Flow {
    fn new(random: &mut Random, world: World, packets: u32) -> Self {
        let (client, server) = (random.below(world.clients()), random.below(world.servers()));
        let service = world.service(client, server);
        let is_v6 = random.percent(30);
        let echo = random.percent(3);
        let mut ports = [
            32_768 + u16::try_from(random.below(28_000)).unwrap_or(0),
            service.port,
        ];
        let mut addresses = if is_v6 {
            [
                world.client6(client, random.below(250)),
                world.server6(server, random.below(4)),
            ]
        } else {
            [
                padded(world.client4(client, random.below(250))),
                padded(world.server4(server, random.below(4))),
            ]
        };
        match random.below(100) {
            // To a port that nobody is allowed to ask.
            0..8 => ports[1] = 9_000 + u16::try_from(random.below(100)).unwrap_or(0),
            // Between strangers.
            8..15 => {
                addresses = addresses.map(|mut address| {
                    address[0] = if is_v6 { 0x20 } else { 172 };
                    address
                });
            }
            _ => {}
        }
        Self {
            packets,
            protocol: match (echo, is_v6) {
                (true, true) => protocol::ICMPV6,
                (true, false) => protocol::ICMP,
                (false, _) => service.protocol,
            },
            is_v6,
            tagged: random.percent(2),
            closes: random.percent(70),
            addresses,
            ports,
            sequence: [random.next(), random.next()]
                .map(|word| u32::try_from(word >> 32).unwrap_or(0)),
        }
    }

    /// Bytes of all headers.
    const fn headers(&self) -> u16 {
        let tag = if self.tagged { TAG } else { 0 };
        ETHERNET + tag + self.network() + self.transport()
    }

    const fn network(&self) -> u16 {
        if self.is_v6 { 40 } else { 20 }
    }

    const fn transport(&self) -> u16 {
        if self.protocol == protocol::TCP {
            20
        } else {
            8
        }
    }

    const fn is_tcp(&self) -> bool {
        self.protocol == protocol::TCP
    }

    /// Whether packet `number` may carry data.
    const fn carries(&self, number: u32) -> bool {
        if self.is_tcp() {
            number > 2 && !self.is_end(number)
        } else {
            true
        }
    }

    /// Whether it is one of the two packets that close the connection.
    const fn is_end(&self, number: u32) -> bool {
        self.is_tcp() && self.closes && self.packets > 5 && number + 2 >= self.packets
    }

    const fn flags(&self, number: u32) -> u8 {
        match number {
            0 => tcp::SYN,
            1 => tcp::SYN | tcp::ACK,
            _ if self.is_end(number) => tcp::FIN | tcp::ACK,
            _ => tcp::ACK,
        }
    }

    /// Who sends packet `number`: 0 the initiator, 1 the responder. They take turns, but for data, of which the
    /// responder sends two in three.
    const fn sender(&self, number: u32) -> usize {
        match number {
            0 | 2 => 0,
            1 => 1,
            _ if self.is_end(number) || !self.is_tcp() => (number % 2) as usize,
            _ => !number.is_multiple_of(3) as usize,
        }
    }

    fn write(&mut self, packet: &Planned, filler: &[u8], frame: &mut Vec<u8>) {
        let from = self.sender(packet.number);
        let to = 1 - from;
        frame.clear();
        for end in [to, from] {
            frame.extend([2, 0, 0, 0, 0, u8::from(end == 1)]);
        }
        if self.tagged {
            frame.extend([0x81, 0x00, 0, 7]);
        }
        frame.extend(if self.is_v6 {
            [0x86, 0xdd]
        } else {
            [0x08, 0x00]
        });
        let payload = packet.length - self.headers();
        let inner = self.transport() + payload;
        let network = frame.len();
        if self.is_v6 {
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(inner.to_be_bytes());
            frame.extend([self.protocol, 64]);
            frame.extend(self.addresses[from]);
            frame.extend(self.addresses[to]);
        } else {
            frame.extend([0x45, 0]);
            frame.extend((inner + 20).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, self.protocol, 0, 0]);
            frame.extend(&self.addresses[from][..4]);
            frame.extend(&self.addresses[to][..4]);
            let sum = flowproof_tests::frame::checksum(&[&frame[network..]]);
            frame[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
        }
        self.write_transport(packet.number, from, payload, frame);
        let have = frame.len();
        frame.extend(&filler[..usize::from(packet.length) - have]);
    }

    fn write_transport(&mut self, number: u32, from: usize, payload: u16, frame: &mut Vec<u8>) {
        let to = 1 - from;
        let ports = [self.ports[from], self.ports[to]].map(u16::to_be_bytes);
        match self.protocol {
            protocol::TCP => {
                let flags = self.flags(number);
                frame.extend(ports.concat());
                frame.extend(self.sequence[from].to_be_bytes());
                let acknowledged = if number == 0 { 0 } else { self.sequence[to] };
                frame.extend(acknowledged.to_be_bytes());
                frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
                let counts = flags & (tcp::SYN | tcp::FIN) != 0;
                self.sequence[from] =
                    self.sequence[from].wrapping_add(u32::from(payload) + u32::from(counts));
            }
            protocol::UDP => {
                frame.extend(ports.concat());
                frame.extend((payload + 8).to_be_bytes());
                frame.extend([0, 0]);
            }
            _ => {
                let kind = match (self.is_v6, from) {
                    (false, 0) => 8,
                    (false, _) => 0,
                    (true, 0) => 128,
                    (true, _) => 129,
                };
                frame.extend([kind, 0, 0, 0]);
                frame.extend(self.ports[0].to_be_bytes());
                frame.extend((number / 2).to_be_bytes().split_at(2).1);
            }
        }
    }
}

fn padded(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use flowproof_common::key::FlowKey;
    use flowproof_common::packet::Packet;
    use flowproof_common::parse::{self, Outcome};

    use super::*;

    const SMALL: Recipe = Recipe {
        seed: 1,
        packets: 40_000,
        flows: 1_000,
        requirements: 100,
    };

    #[test]
    fn the_traffic_is_as_ordered() {
        let (mut packets, mut bytes, mut last) = (0, 0, 0);
        let (mut v6, mut tagged) = (HashSet::new(), HashSet::new());
        let mut flows = HashSet::new();
        let mut protocols = HashSet::new();
        let mut directions = HashSet::new();
        generate(SMALL, |time, frame| {
            assert!(time >= last, "out of order");
            last = time;
            let mut packet = Packet::default();
            assert!(matches!(parse::ethernet(&frame, &mut packet), Outcome::Ip));
            assert!(frame.len() <= usize::from(LONGEST));
            packets += 1;
            bytes += frame.len();
            let (key, side) = FlowKey::of(&packet);
            if !packet.source.is_v4() {
                v6.insert(key);
            }
            if frame[12] == 0x81 {
                tagged.insert(key);
            }
            flows.insert(key);
            directions.insert((key, side as u8));
            protocols.insert(packet.protocol);
            Ok(())
        })
        .unwrap();
        assert_eq!(packets, SMALL.packets);
        // Few share their 5-tuple by chance.
        assert!(flows.len() > 990, "{}", flows.len());
        assert_eq!(
            directions.len(),
            2 * flows.len(),
            "a flow has one direction"
        );
        assert_eq!(protocols, HashSet::from([1, 6, 17, 58]));
        let mean = bytes as f64 / f64::from(packets);
        assert!((mean - 514.0).abs() < 10.0, "{mean}");
        let part = |some: &HashSet<FlowKey>| some.len() as f64 / flows.len() as f64;
        assert!((part(&v6) - 0.3).abs() < 0.05, "{}", part(&v6));
        assert!((part(&tagged) - 0.02).abs() < 0.015, "{}", part(&tagged));
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let bytes = |seed| {
            let mut all = Vec::new();
            generate(
                Recipe {
                    seed,
                    packets: 500,
                    flows: 20,
                    requirements: 10,
                },
                |time, frame| {
                    all.extend(time.to_le_bytes());
                    all.extend(frame);
                    Ok(())
                },
            )
            .unwrap();
            all
        };
        assert_eq!(bytes(3), bytes(3));
        assert_ne!(bytes(3), bytes(4));
    }

    #[test]
    fn files_are_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe {
            packets: 500,
            flows: 20,
            ..SMALL
        };
        let made = files(folder.path(), recipe).unwrap();
        let cut = fs::read(&made.cut).unwrap();
        assert!(cut.len() <= 24 + 500 * (16 + CUT));
        assert!(fs::metadata(&made.full).unwrap().len() > cut.len() as u64);
        let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let before = time(&made.full);
        files(folder.path(), recipe).unwrap();
        assert_eq!(time(&made.full), before);
    }
}
