//! Ports for fragments that have none: the first fragment of a datagram leaves its ports here for those that
//! follow. Bounded, oldest out first, so that a flood of first fragments costs only other fragments.

use std::collections::{HashMap, VecDeque};

use flowproof_common::key::{FragmentKey, FragmentPorts};
use flowproof_common::packet::Packet;
use foldhash::fast::RandomState;

/// How long a first fragment is remembered, nanoseconds: Linux' reassembly limit (`ipfrag_time`, 30 s).
const KEPT_FOR: u64 = 30_000_000_000;

#[derive(Clone, Copy)]
struct Left {
    ports: FragmentPorts,
    at: u64,
}

pub(super) struct Fragments {
    left: HashMap<FragmentKey, Left, RandomState>,
    order: VecDeque<(FragmentKey, u64)>,
    capacity: usize,
}

fn key(packet: &Packet) -> FragmentKey {
    FragmentKey {
        source: packet.source,
        destination: packet.destination,
        identification: packet.fragment_id,
        protocol: packet.protocol,
        zero: [0; 3],
    }
}

impl Fragments {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            left: HashMap::default(),
            order: VecDeque::new(),
            capacity: capacity.max(1),
        }
    }

    /// Remembers what a first fragment says.
    pub(super) fn remember(&mut self, first: &Packet, now: u64) {
        let left = Left {
            ports: FragmentPorts {
                source_port: first.source_port,
                destination_port: first.destination_port,
                icmp_type: first.icmp_type,
                zero: [0; 3],
            },
            at: now,
        };
        let key = key(first);
        self.left.insert(key, left);
        self.order.push_back((key, now));
        while self.order.len() > self.capacity {
            if let Some((oldest, at)) = self.order.pop_front()
                // A later datagram with the same identification may have renewed it.
                && self.left.get(&oldest).is_some_and(|left| left.at == at)
            {
                self.left.remove(&oldest);
            }
        }
    }

    /// Gives a later fragment the ports of its first; nothing if that was not seen.
    pub(super) fn complete(&self, later: &Packet, now: u64) -> Option<Packet> {
        let left = self.left.get(&key(later))?;
        if now.saturating_sub(left.at) > KEPT_FOR {
            return None;
        }
        Some(Packet {
            source_port: left.ports.source_port,
            destination_port: left.ports.destination_port,
            icmp_type: left.ports.icmp_type,
            ..*later
        })
    }
}
