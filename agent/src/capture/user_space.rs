//! What the back ends that judge in user space have in common: a frame becomes a packet, the packet finds its
//! flow, and what could not be read is counted beside what could.

use std::sync::Arc;

use flowproof_common::key::FlowKey;
use flowproof_common::packet::{Fragment, Packet};
use flowproof_common::parse::Outcome;
use flowproof_common::payload::{DNS_PORT, Wanted, segment};
use flowproof_common::plain::Plain;
use flowproof_common::record::{Event, FlowRecord, InterfaceCounters, Settings, point};

use super::decode::{self, LinkType};
use super::{SlotTotals, Snapshot, TableFill};
use crate::flow::{FlowTable, Limits, Moments, PlainSight, Prepared, Sight, Treatment};
use crate::matrix::installed::Installed;
use crate::names::{self, Namer, Payload, Ruling};

/// Frames that are looked up together: as many as the machine can wait for at once, or somewhat more. A frame taken by
/// itself waits for memory about four times, and for nothing else as long.
pub const AHEAD: usize = 32;

/// What was read of a frame.
#[derive(Clone, Copy)]
enum Read {
    /// A plain packet.
    Plain(Plain),
    /// Another, as far as it could be read.
    Other(Outcome, Packet),
}

/// What is known of a frame before its turn comes.
#[derive(Clone, Copy)]
struct Ahead {
    read: Read,
    /// Nothing that would help if it is not of one flow.
    prepared: Option<Prepared>,
}

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
    namer: Namer,
    generation: u32,
    /// Added to what the namer wants.
    flags: u32,
    interfaces: Vec<(String, InterfaceCounters)>,
}

/// State changes that the namer is to hear of once the table is done with them.
#[derive(Default)]
struct Changes(Vec<Event>);

impl Changes {
    /// Only what is about a name costs anything.
    #[inline]
    fn note(&mut self, event: &Event) {
        if event.record.state.is_held()
            || event.record.state.is_named()
            || event.key.service(event.record.state.initiator().other()) == DNS_PORT
        {
            self.0.push(*event);
        }
    }

    #[inline]
    fn tell(self, namer: &mut Namer) {
        for event in &self.0 {
            namer.on_event(event);
        }
    }
}

impl UserSpace {
    /// Without a matrix: every flow is unscoped.
    #[must_use]
    pub fn new(limits: Limits, names: names::Settings) -> Self {
        Self {
            table: FlowTable::new(limits),
            namer: Namer::new(names),
            generation: 0,
            flags: 0,
            interfaces: Vec::new(),
        }
    }

    /// Judges by `matrix` from the next packet on; `now` is the time of the capture's clock, 0 if it has not begun.
    pub fn install(&mut self, matrix: &Arc<Installed>, now: u64) {
        self.generation = self.generation.wrapping_add(1);
        self.table.begin_generation(self.generation);
        // Nothing can refuse it, so that it is not to be taken back.
        drop(self.namer.install(matrix, now));
        self.table.want(self.namer.probe_flags() | self.flags);
    }

    /// Says that frames of several interfaces come out of order: each interface's in turn.
    #[must_use]
    pub fn unordered(mut self) -> Self {
        self.flags |= Settings::UNORDERED;
        self
    }

    /// What is known of names.
    #[must_use]
    pub const fn namer(&self) -> &Namer {
        &self.namer
    }

    /// See [`super::Capture::namer_mut`].
    pub const fn namer_mut(&mut self) -> &mut Namer {
        &mut self.namer
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

    /// Judges so many frames in their order; flows whose time came before one are decided first. It is the same as judging one
    /// after the other, and a good deal faster: what each needs is fetched for [`AHEAD`] of them together.
    pub fn on_frames<'a>(
        &mut self,
        frames: usize,
        frame: impl Fn(usize) -> Option<Captured<'a>>,
        sink: &mut impl FnMut(&Event, Moments),
    ) {
        let mut room = [Ahead {
            read: Read::Other(Outcome::Unparsed, Packet::default()),
            prepared: None,
        }; AHEAD];
        let mut first = 0;
        while first < frames {
            let count = AHEAD.min(frames - first);
            let ahead = &mut room[..count];
            for (at, ahead) in (first..).zip(&mut *ahead) {
                if let Some(captured) = frame(at) {
                    *ahead = self.prepare(&captured);
                }
            }
            self.table
                .fetch_index(ahead.iter().filter_map(|ahead| ahead.prepared));
            for prepared in ahead.iter_mut().filter_map(|ahead| ahead.prepared.as_mut()) {
                self.table.locate(prepared);
            }
            self.table
                .fetch(ahead.iter().filter_map(|ahead| ahead.prepared));
            for (at, ahead) in (first..).zip(&*ahead) {
                if let Some(captured) = frame(at) {
                    self.take(&captured, ahead, sink);
                }
            }
            first += count;
        }
    }

    #[inline(always)]
    fn prepare(&self, captured: &Captured<'_>) -> Ahead {
        if let Some(plain) = decode::plain(captured.link, captured.data) {
            return Ahead {
                prepared: Some(self.table.prepare(&plain.key)),
                read: Read::Plain(plain),
            };
        }
        let mut packet = Packet::default();
        let outcome = decode::frame(captured.link, captured.data, &mut packet);
        let has_flow = outcome == Outcome::Ip && packet.fragment == Fragment::None;
        Ahead {
            prepared: has_flow.then(|| self.table.prepare(&FlowKey::of(&packet).0)),
            read: Read::Other(outcome, packet),
        }
    }

    /// Judges a frame of which this is known ahead.
    #[inline]
    fn take(
        &mut self,
        captured: &Captured<'_>,
        ahead: &Ahead,
        sink: &mut impl FnMut(&Event, Moments),
    ) {
        if self.is_due(captured.time) {
            self.advance_time(captured.time, sink);
        }
        let counters = &mut self.interfaces[captured.interface].1;
        counters.packets += 1;
        counters.bytes += u64::from(captured.wire_length);
        match (&ahead.read, ahead.prepared) {
            (Read::Plain(plain), prepared) => {
                let sight = PlainSight {
                    packet: plain,
                    bytes: captured.wire_length,
                    // Links with a header that says more are not plain.
                    point: point(captured.number, false),
                    time: captured.time,
                };
                if prepared.is_none_or(|prepared| !self.table.pass(prepared, &sight)) {
                    let packet = decode::unfold(plain, captured.link, captured.data);
                    self.take_packet(captured, &packet, prepared, sink);
                }
            }
            (Read::Other(Outcome::Ip, packet), prepared) => {
                self.take_packet(captured, packet, prepared, sink);
            }
            (Read::Other(Outcome::NotIp, _), _) => counters.not_ip += 1,
            (Read::Other(Outcome::Unparsed, _), _) => counters.unparsed += 1,
        }
    }

    /// Whether [`Self::advance_time`] may have something to do at `now`.
    #[inline]
    fn is_due(&self, now: u64) -> bool {
        self.table.is_due(now) || self.namer.is_due(now)
    }

    /// Judges a packet that is not a plain one of a flow at rest.
    fn take_packet(
        &mut self,
        captured: &Captured<'_>,
        packet: &Packet,
        prepared: Option<Prepared>,
        sink: &mut impl FnMut(&Event, Moments),
    ) {
        let quoted = if packet.is_icmp_error() {
            decode::quoted(captured.data, packet)
        } else {
            None
        };
        let (behind, egress) = decode::point(captured.link, captured.data).unwrap_or((None, false));
        let number = captured.number.wrapping_add(behind.unwrap_or(0));
        let sight = Sight {
            packet,
            quoted: quoted.as_ref(),
            bytes: captured.wire_length,
            point: point(number, egress),
            time: captured.time,
        };
        let mut changes = Changes::default();
        let treatment = self.table.on_prepared(
            &self.namer.tables(),
            &sight,
            prepared,
            &mut |event, moments| {
                changes.note(event);
                sink(event, moments);
            },
        );
        changes.tell(&mut self.namer);
        match treatment {
            Treatment::LinkUpkeep => self.interfaces[captured.interface].1.link_upkeep += 1,
            Treatment::Counted(Wanted::Nothing)
            | Treatment::Duplicate
            | Treatment::AboutAnother
            | Treatment::Orphan => {}
            Treatment::Counted(wanted) => self.hand_over(captured, packet, wanted),
        }
        self.carry_out(sink);
    }

    /// Gives the namer a payload that it wants.
    fn hand_over(&mut self, captured: &Captured<'_>, packet: &Packet, wanted: Wanted) {
        let Some(found) = segment(&captured.data, packet, captured.wire_length) else {
            return;
        };
        let (key, sender) = FlowKey::of(packet);
        let end = found.offset.saturating_add(found.length) as usize;
        let bytes = captured
            .data
            .get(found.offset as usize..end.min(captured.data.len()))
            .unwrap_or(&[]);
        self.namer.on_payload(&Payload {
            key,
            sender,
            wanted,
            time: captured.time,
            sequence: found.sequence,
            offset: 0,
            total: found.length,
            cut: captured.data.len() < end,
            bytes,
        });
    }

    /// Does what the namer has decided.
    fn carry_out(&mut self, sink: &mut impl FnMut(&Event, Moments)) {
        while self.namer.has_rulings() {
            let mut changes = Changes::default();
            for (key, ruling) in self.namer.take().flows {
                let sink = &mut |event: &Event, moments: Moments| {
                    changes.note(event);
                    sink(event, moments);
                };
                match ruling {
                    Ruling::Slot(slot) => self.table.name(&key, slot, sink),
                    Ruling::GiveUp => self.table.give_up(&key, sink),
                }
            }
            changes.tell(&mut self.namer);
        }
    }

    /// Decides flows whose time has come by `now`.
    pub fn advance_time(&mut self, now: u64, sink: &mut impl FnMut(&Event, Moments)) {
        let mut changes = Changes::default();
        self.table.advance_time(now, &mut |event, moments| {
            changes.note(event);
            sink(event, moments);
        });
        changes.tell(&mut self.namer);
        self.namer.advance_time(now);
        self.carry_out(sink);
    }

    /// Rules on flows that wait for their name: nothing more will come.
    pub fn finish(&mut self, sink: &mut impl FnMut(&Event, Moments)) {
        self.namer.finish();
        self.carry_out(sink);
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
            ("name", self.table.names_unknown()),
        ];
        stages.extend(self.namer.losses());
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
