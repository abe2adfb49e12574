//! Judging a flow that was never seen, in user space: what the pcap back end and replays pay for each new flow, and how
//! that grows with the matrix.

use flowproof_common::classify::judge;
use flowproof_common::key::{FlowKey, Side};
use flowproof_common::packet::{Packet, tcp};
use flowproof_common::protocol;

use anyhow::Result;
use flowproof_common::address::Address;

use crate::context::Context;
use crate::measure::{Samples, nanoseconds, pinned};
use crate::probe::installed;
use crate::random::Random;
use crate::report::{Section, Target};
use crate::world::World;

/// Flows that are judged in turn: more than the caches hold the answers of.
const FLOWS: usize = 1 << 14;

/// Measures four sizes in turns.
pub(crate) fn bench(context: &Context, section: &mut Section) -> Result<()> {
    const SIZES: [u32; 4] = [10, 1_000, 10_000, 100_000];
    section.how(
        "two address classes, the port's class and the requirement, of 16,384 different flows in turn: 70 % are allowed, 15 % \
         ask for a port that is not, 15 % are between strangers; a third over IPv6",
    );
    let mut sites = Vec::new();
    for size in SIZES {
        let world = World::of(size);
        sites.push((size, installed(world)?, flows(world), Samples::default()));
    }
    pinned(context.cpu, || {
        for _ in 0..context.runs {
            for (_, tables, flows, samples) in &mut sites {
                samples.push(nanoseconds(context.span(), flows.len(), || {
                    for (packet, key, sender) in flows.iter() {
                        std::hint::black_box(judge(tables, packet, key, *sender, false));
                    }
                }));
            }
        }
        Ok(())
    })?;
    let smallest = sites[0].3.clone();
    for (size, _, _, samples) in &sites {
        let target = match size {
            1_000 => Some(Target::AtMost(60.0)),
            100_000 => Some(Target::AtMost(150.0)),
            _ => None,
        };
        section.row(
            format!("judge/{size}"),
            format!("judging an unseen flow by {size} requirements"),
            samples.clone(),
            "ns",
            target,
        );
        let ratio = match size {
            10_000 => 2.0,
            100_000 => 3.0,
            _ => continue,
        };
        section.row(
            format!("judge/{size}/to-10"),
            format!("judging by {size} requirements in units of 10"),
            samples.over(&smallest),
            "times",
            Some(Target::AtMost(ratio)),
        );
    }
    Ok(())
}

fn flows(world: World) -> Vec<(Packet, FlowKey, Side)> {
    let mut random = Random::new(11);
    (0..FLOWS)
        .map(|_| {
            let (client, server) = (random.below(world.clients()), random.below(world.servers()));
            let service = world.service(client, server);
            let (client_host, server_host) = (random.below(250), random.below(4));
            let (mut source, mut destination) = if random.percent(33) {
                (
                    Address::from_v6(world.client6(client, client_host)),
                    Address::from_v6(world.server6(server, server_host)),
                )
            } else {
                (
                    Address::from_v4(world.client4(client, client_host)),
                    Address::from_v4(world.server4(server, server_host)),
                )
            };
            let mut port = service.port;
            match random.below(100) {
                0..15 => port = 9_999,
                15..30 => {
                    source = Address::from_v4([192, 168, 0, 1]);
                    destination = Address::from_v4([172, 16, 0, 1]);
                }
                _ => {}
            }
            let packet = Packet {
                source,
                destination,
                source_port: 40_000,
                destination_port: port,
                protocol: service.protocol,
                tcp_flags: if service.protocol == protocol::TCP {
                    tcp::SYN
                } else {
                    0
                },
                ..Packet::default()
            };
            let (key, sender) = FlowKey::of(&packet);
            (packet, key, sender)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use flowproof_common::classify::Verdict;

    use super::*;

    /// What is measured must be what the words say.
    #[test]
    fn most_flows_are_allowed() {
        let world = World::of(1_000);
        let tables = installed(world).unwrap();
        let mut counts = [0_u32; 3];
        for (packet, key, sender) in flows(world) {
            let slot = judge(&tables, &packet, &key, sender, false).slot;
            counts[match Verdict::of_slot(slot) {
                Verdict::Expected => 0,
                Verdict::Unexpected => 1,
                Verdict::Unscoped => 2,
            }] += 1;
        }
        let part = counts.map(|count| f64::from(count) / FLOWS as f64);
        for (part, expect) in part.into_iter().zip([0.70, 0.15, 0.15]) {
            assert!((part - expect).abs() < 0.02, "{counts:?}");
        }
    }
}
