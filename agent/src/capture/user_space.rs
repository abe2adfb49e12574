//! What the back ends that judge in user space have in common: a frame becomes a packet, the packet finds its
//! flow, and what could not be read is counted beside what could.

use std::sync::Arc;

use flowproof_common::address::Address;
use flowproof_common::classify::{Tables, UNBOUND_CLASS};
use flowproof_common::key::FlowKey;
use flowproof_common::packet::Packet;
use flowproof_common::parse::Outcome;
use flowproof_common::record::{Event, FlowRecord, InterfaceCounters, point};

use super::decode::{self, LinkType};
use super::{SlotTotals, Snapshot, TableFill};
use crate::flow::{FlowTable, Limits, Sight, Span, Treatment};
use crate::matrix::installed::Installed;

/// A captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// How it begins.
    pub link: LinkType,
    /// What was captured of it.
    pub data: &'a [u8],
    /// Its length on the wire, bytes.
    pub wire_length: u32,
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    /// Index into the counters, see [`UserSpace::add_interface`].
    pub interface: usize,
    /// Number that tells capture points apart, at least 1: an interface's index. What a link header says of the
    /// interface behind a capture on "any" is added.
    pub number: u32,
}

/// Flow table, matrix and counters.
pub struct UserSpace {
    table: FlowTable,
    matrix: Option<Arc<Installed>>,
    generation: u32,
    interfaces: Vec<(String, InterfaceCounters)>,
}

/// Judges when there is no matrix: nobody has a role.
struct NoMatrix;

impl Tables for NoMatrix {
    fn address_class(&self, _: &Address) -> u32 {
        UNBOUND_CLASS
    }

    fn port_class(&self, _: u16) -> u16 {
        0
    }

    fn rule(&self, _: u32, _: u32, _: u8, _: u16) -> Option<u32> {
        None
    }
}

impl UserSpace {
    /// Without a matrix: every flow is unscoped.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            table: FlowTable::new(limits),
            matrix: None,
            generation: 0,
            interfaces: Vec::new(),
        }
    }

    /// Judges by `matrix` from the next packet on.
    pub fn install(&mut self, matrix: &Arc<Installed>) {
        self.generation = self.generation.wrapping_add(1);
        self.table.begin_generation(self.generation);
        self.matrix = Some(Arc::clone(matrix));
    }

    /// The index of the counters of the interface with this name, which keep their values when it comes back.
    pub fn add_interface(&mut self, name: &str) -> usize {
        match self.interfaces.iter().position(|(known, _)| known == name) {
            Some(index) => index,
            None => {
                self.interfaces
                    .push((name.to_owned(), InterfaceCounters::default()));
                self.interfaces.len() - 1
            }
        }
    }

    /// Says that a capture begins at `time`, see [`FlowTable::attached`].
    pub fn attached(&mut self, time: u64) {
        self.table.attached(time);
    }

    /// Judges a frame; flows whose time came before it are decided first.
    pub fn on_frame(&mut self, captured: &Captured<'_>, sink: &mut impl FnMut(&Event, Span)) {
        self.table.advance_time(captured.time, sink);
        let counters = &mut self.interfaces[captured.interface].1;
        counters.packets += 1;
        counters.bytes += u64::from(captured.wire_length);
        let mut packet = Packet::default();
        match decode::frame(captured.link, captured.data, &mut packet) {
            Outcome::Ip => {}
            Outcome::NotIp => {
                counters.not_ip += 1;
                return;
            }
            Outcome::Unparsed => {
                counters.unparsed += 1;
                return;
            }
        }
        let quoted = if packet.is_icmp_error() {
            decode::quoted(captured.data, &packet)
        } else {
            None
        };
        let (behind, egress) = decode::point(captured.link, captured.data).unwrap_or((None, false));
        let number = captured.number.wrapping_add(behind.unwrap_or(0));
        let sight = Sight {
            packet: &packet,
            quoted: quoted.as_ref(),
            bytes: captured.wire_length,
            point: point(number, egress),
            time: captured.time,
        };
        let treatment = match &self.matrix {
            Some(matrix) => self.table.on_packet(matrix.as_ref(), &sight, sink),
            None => self.table.on_packet(&NoMatrix, &sight, sink),
        };
        if treatment == Treatment::LinkUpkeep {
            self.interfaces[captured.interface].1.link_upkeep += 1;
        }
    }

    /// Decides flows whose time has come by `now`.
    pub fn advance_time(&mut self, now: u64, sink: &mut impl FnMut(&Event, Span)) {
        self.table.advance_time(now, sink);
    }

    /// The flow table.
    #[must_use]
    pub fn table(&self) -> &FlowTable {
        &self.table
    }

    /// Counters by interface.
    #[must_use]
    pub fn interfaces(&self) -> &[(String, InterfaceCounters)] {
        &self.interfaces
    }

    /// Hands every flow in the table to `each`.
    pub fn each_flow(&self, each: &mut dyn FnMut(&FlowKey, &FlowRecord)) {
        for flow in self.table.flows() {
            each(flow.key, flow.record);
        }
    }

    /// All totals; `lost` are the stages of the back end itself.
    #[must_use]
    pub fn snapshot(&self, lost: &[(&'static str, u64)]) -> Snapshot {
        let (traffic, flows) = (self.table.slot_traffic(), self.table.slot_flows());
        let slots = (0..traffic.len().max(flows.len()))
            .map(|slot| SlotTotals {
                traffic: traffic.get(slot).copied().unwrap_or_default(),
                flows: flows.get(slot).copied().unwrap_or_default(),
            })
            .collect();
        let mut stages = vec![
            ("flow_table", self.table.evictions()),
            ("fragment", self.table.orphans()),
            ("promotion", self.table.promotions_failed()),
        ];
        stages.extend_from_slice(lost);
        let fill = |table, (entries, capacity): (usize, u32), evictions| TableFill {
            table,
            entries: entries as u64,
            capacity: u64::from(capacity),
            evictions,
        };
        Snapshot {
            slots,
            interfaces: self.interfaces.clone(),
            lost: stages,
            tables: vec![
                fill("verified", self.table.verified(), 0),
                fill(
                    "unverified",
                    self.table.unverified(),
                    self.table.evictions(),
                ),
            ],
        }
    }
}
