//! Memory of flows and of requirements, in the kernel and in the daemon.

use std::sync::Arc;

use anyhow::Result;
use flowproof::flow::{FlowTable, Limits, Sight};
use flowproof_common::packet::Packet;
use flowproof_common::parse;
use flowproof_common::record::point;

use crate::bpf::memory_of_map;
use crate::context::Context;
use crate::flows::{Ask, HANDSHAKE, frame, reversed, tuples};
use crate::measure::Samples;
use crate::probe::{Probe, installed, policy};
use crate::report::{Section, Target};
use crate::system::heap;
use crate::world::World;

/// Flows of which the memory is taken.
const FLOWS: u32 = 50_000;
const REQUIREMENTS: u32 = 100_000;

/// Takes stock; sizes don't vary from run to run.
pub(crate) fn bench(_: &Context, section: &mut Section) -> Result<()> {
    section.how("kernel: `memlock` of the maps by the kernel's own account; user space: what the allocator has handed out");
    in_kernel(section)?;
    flows(section)?;
    requirements(section)
}

fn one(value: f64) -> Samples {
    [value].into_iter().collect()
}

fn in_kernel(section: &mut Section) -> Result<()> {
    let world = World::of(REQUIREMENTS);
    let entries = 65_536;
    let tables = [
        ("VERIFIED", Some(Target::AtMost(144.0))),
        ("UNVERIFIED", None),
    ];
    // What tables of twice the size take more, since each has some kilobytes that no flow has a part in.
    let twice = {
        let _probe = Probe::open(world, 2 * entries, 2 * entries)?;
        tables
            .iter()
            .map(|(table, _)| memory_of_map(table))
            .collect::<Result<Vec<_>>>()?
    };
    let _probe = Probe::open(world, entries, entries)?;
    for ((table, target), twice) in tables.into_iter().zip(twice) {
        section.row(
            format!("memory/{table}"),
            format!("kernel memory of a flow, in a table {table} of more than {entries}"),
            one((twice - memory_of_map(table)?) as f64 / f64::from(entries)),
            "bytes",
            target,
        );
    }
    section.row(
        "memory/CARRIED",
        "room for what flows count beyond their entries, of a flow in either table",
        one(memory_of_map("CARRIED")? as f64 / f64::from(2 * entries)),
        "bytes",
        None,
    );
    let mut sum = 0;
    for table in [
        "RULES",
        "PREFIXES",
        "SLOT_TRAFFIC",
        "SLOT_FLOWS",
        "SLOT_MEMBERS",
    ] {
        sum += memory_of_map(table)?;
    }
    section.row(
        "memory/kernel-requirement",
        format!("kernel memory of a requirement, of {REQUIREMENTS}, with its counters and room for the next matrix"),
        one(sum as f64 / f64::from(REQUIREMENTS)),
        "bytes",
        None,
    );
    Ok(())
}

/// Verified flows in the table of the pcap back end and of replays.
fn flows(section: &mut Section) -> Result<()> {
    let world = World::of(1_000);
    let tables = installed(world)?;
    let tuples = tuples(world, Ask::Allowed, FLOWS);
    let before = heap();
    let mut table = FlowTable::new(Limits::default());
    for (time, (flags, from_responder)) in (1_000_000_000..).zip(HANDSHAKE) {
        for tuple in &tuples {
            let way = if from_responder {
                reversed(tuple)
            } else {
                *tuple
            };
            let mut packet = Packet::default();
            parse::ethernet(&frame(&way, flags).as_slice(), &mut packet);
            let sight = Sight {
                packet: &packet,
                quoted: None,
                bytes: 100,
                point: point(1, false),
                time,
            };
            table.on_packet(&tables, &sight, &mut |_, _| {});
        }
    }
    anyhow::ensure!(
        table.verified().0 == tuples.len(),
        "{} verified flows",
        table.verified().0
    );
    section.row(
        "memory/user-flow",
        format!("user-space memory of a flow, of {FLOWS}"),
        one((heap() - before) as f64 / f64::from(FLOWS)),
        "bytes",
        Some(Target::AtMost(200.0)),
    );
    Ok(())
}

/// The tables that flows are judged by, and what is kept to speak of requirements.
fn requirements(section: &mut Section) -> Result<()> {
    let world = World::of(REQUIREMENTS);
    // What is made once and kept for good must not count.
    drop(installed(world)?);
    let nothing = heap();
    let tables = installed(world)?;
    let all = heap() - nothing;
    let model = Arc::clone(&tables.compiled.matrix);
    drop(tables);
    let words = heap() - nothing;
    drop(model);
    let each = |bytes: usize| one(bytes as f64 / f64::from(REQUIREMENTS));
    section.row(
        "memory/requirement",
        format!("user-space tables of a requirement, of {REQUIREMENTS}"),
        each(all - words),
        "bytes",
        Some(Target::AtMost(64.0)),
    );
    section.row(
        "memory/requirement/words",
        "its ids, services and words besides",
        each(words),
        "bytes",
        None,
    );
    drop(policy(World::of(10))?);
    Ok(())
}
