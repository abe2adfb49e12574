//! The kernel back end: loads the programs, attaches them, feeds them the matrix and reads what they
//! counted. The programs judge alone; this side only carries numbers, and decides *when* the kernel looks
//! at a silent flow again.
//!
//! With bpffs everything is pinned, so that a restart adopts programs, maps and counters and no packet in
//! between goes unjudged ([`pins`]). The daemon never writes a flow record or a flow counter.

mod attach;
mod batch;
mod btf;
mod carried;
mod drops;
mod object;
pub mod pins;
mod program;
mod sweep;
mod tables;

use std::collections::HashMap as StdHashMap;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use flowproof_common::classify::FIRST_RULE_SLOT;
use flowproof_common::key::FlowKey;
use flowproof_common::layout::Order;
use flowproof_common::payload::PayloadHead;
use flowproof_common::record::{
    Counter, Event, FlowRecord, INTERFACE_COUNTERS, InterfaceCounters, Settings, SlotFlows,
    SlotTraffic,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub(crate) use self::object::OBJECT_VARIABLE;

use self::attach::{Attached, Hook};
use self::drops::DropProbe;
use self::pins::Pins;
use self::sweep::Sweep;
use self::tables::Loaded;
use super::{
    Backend, Bell, Capture, CaptureError, Interface, Progress, SlotTotals, Snapshot, TableFill,
    clock,
};
use crate::matrix::installed::{Installed, SlotDirectory};
use crate::names::{self, Namer, Payload, Ruling};

/// How the programs are attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AttachMode {
    /// TCX where the kernel has it (6.6), else clsact.
    #[default]
    Auto,
    /// TCX links only.
    Tcx,
    /// Filters on a clsact queueing discipline.
    Clsact,
}

/// What becomes of the programs when the daemon ends in good order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnExit {
    /// Detach and forget.
    #[default]
    Detach,
    /// Leave everything pinned and counting for the next daemon.
    Keep,
}

/// How the kernel back end is set up.
#[derive(Clone, Debug)]
pub struct EbpfOptions {
    /// How to attach.
    pub attach: AttachMode,
    /// Directory on bpffs for pins; by default `/sys/fs/bpf/flowproof`.
    pub pin_directory: PathBuf,
    /// Most verified flows, at least 1.
    pub verified_flows: u32,
    /// Most unverified flows, at least 1.
    pub unverified_flows: u32,
    /// What to do at the end.
    pub on_exit: OnExit,
}

impl Default for EbpfOptions {
    fn default() -> Self {
        Self {
            attach: AttachMode::Auto,
            pin_directory: PathBuf::from(pins::DEFAULT_DIRECTORY),
            verified_flows: 65_536,
            unverified_flows: 65_536,
            on_exit: OnExit::Detach,
        }
    }
}

/// How long a poll sleeps before it looks at the ring again. The kernel sends no wake-ups, because they
/// would be paid for in the packet path.
const RING_INTERVAL: Duration = Duration::from_millis(10);
/// So many events at once, an eighth of what the ring holds, are a sign of more to come: it is looked at again sooner.
const MANY_EVENTS: u32 = 4096;
/// After that many.
const BUSY_INTERVAL: Duration = Duration::from_millis(2);

/// How long the ring may be left alone after so many events were in it.
const fn interval_after(events: u32) -> Duration {
    if events >= MANY_EVENTS {
        BUSY_INTERVAL
    } else {
        RING_INTERVAL
    }
}

/// Payloads that are read before anything else is looked at again.
const PAYLOADS_A_TURN: usize = 512;

/// The kernel back end.
pub struct EbpfCapture {
    ebpf: Ebpf,
    events: RingBuf<MapData>,
    attached: StdHashMap<(u32, Hook), Attached>,
    names: StdHashMap<u32, String>,
    settings: Settings,
    loaded: Loaded,
    sweep: Sweep,
    namer: Namer,
    payloads: RingBuf<MapData>,
    drop_probe: Option<DropProbe>,
    drop_reasons: StdHashMap<u32, String>,
    pins: Option<Pins>,
    options: EbpfOptions,
    /// Whether an earlier daemon's counters are at stake.
    adopted: bool,
    /// Whether this daemon has watched anything yet.
    at_work: bool,
    bell: Option<Arc<Bell>>,
}

/// Loads the programs and adopts what an earlier daemon left pinned. `matrix` sizes the tables; it is not
/// installed yet.
///
/// # Errors
/// The kernel refuses the programs or a capability is missing ([`CaptureError::Permission`]); another
/// daemon is at work in this network namespace.
pub fn open(
    options: EbpfOptions,
    names: names::Settings,
    matrix: &Installed,
) -> Result<EbpfCapture, CaptureError> {
    // Asked before, since the kernel only says that something is missing, and of each capability at another place.
    if !crate::privilege::missing(Backend::Ebpf).is_empty() {
        return Err(CaptureError::missing(
            "loading the kernel programs",
            Backend::Ebpf,
        ));
    }
    let (pins, unpinned) = match Pins::open(&options.pin_directory)? {
        Ok(pins) => (Some(pins), None),
        Err(reason) => (None, Some(reason)),
    };
    let needed = tables::Sizes::for_matrix(matrix, &options);
    let facts = drops::facts();
    let (mut ebpf, sizes, pins) = object::load(needed, pins, facts.as_ref().ok())?;
    program::load_needed(&mut ebpf)?;
    if let Some(reason) = unpinned {
        tracing::warn!(
            directory = %options.pin_directory.display(),
            %reason,
            "can't pin the kernel programs: a restart of the daemon will be blind for a moment and count \
             anew; mount bpffs (mount -t bpf bpf /sys/fs/bpf) or set the pin directory"
        );
    }
    let drops = facts.and_then(|facts| Ok((drops::attach(&mut ebpf, pins.as_ref())?, facts.names)));
    let (drop_probe, drop_reasons) = match drops {
        Ok((probe, names)) => (Some(probe), names),
        Err(reason) => {
            tracing::warn!(%reason, "can't tell drops on this host from silence");
            (None, StdHashMap::new())
        }
    };
    let mut ring = |name: &'static str| {
        ebpf.take_map(name)
            .ok_or_else(|| missing(name))
            .and_then(|map| {
                RingBuf::try_from(map).map_err(|error| failed("opening a ring buffer", &error))
            })
    };
    let (events, payloads) = (ring("EVENTS")?, ring("PAYLOADS")?);
    let mut settings = tables::read_settings(&ebpf)?;
    if settings.attached_at == 0 {
        settings.attached_at = clock::monotonic();
        tables::write_settings(&ebpf, settings)?;
    }
    let adopted = settings.generation != 0;
    let loaded = Loaded::adopt(&mut ebpf, settings.generation, sizes)?;
    Ok(EbpfCapture {
        ebpf,
        events,
        attached: StdHashMap::new(),
        names: StdHashMap::new(),
        settings,
        loaded,
        sweep: Sweep::new(names.hold),
        namer: Namer::new(names),
        payloads,
        drop_probe,
        drop_reasons,
        pins,
        options,
        adopted,
        at_work: false,
        bell: None,
    })
}

impl EbpfCapture {
    /// The counter slots that pinned maps hold from an earlier daemon; a new matrix is to be installed on
    /// top of them.
    #[must_use]
    pub fn directory(&self) -> &SlotDirectory {
        self.loaded.directory()
    }

    /// The running kernel's names of drop reasons (`enum skb_drop_reason` without its prefix, in lower
    /// case); empty if drops can't be seen.
    #[must_use]
    pub const fn drop_reasons(&self) -> &StdHashMap<u32, String> {
        &self.drop_reasons
    }

    /// Whether a restart can adopt programs and counters.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pins.is_some()
    }

    /// Takes payloads out of their ring, up to a limit that keeps a flood of them from holding up everything else.
    fn take_payloads(&mut self) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        while payloads.len() < PAYLOADS_A_TURN
            && let Some(item) = self.payloads.next()
        {
            payloads.push(item.to_vec());
        }
        payloads
    }

    /// Reads names from payloads, and has the kernel do what follows from them and from time.
    fn name(&mut self, payloads: &[Vec<u8>]) -> Result<(), CaptureError> {
        if let Some(lost) = self.sweep.counter(Counter::PayloadLost) {
            self.namer.set_losses(lost);
        }
        for payload in payloads {
            if let Some((head, bytes)) = payload
                .split_at_checked(size_of::<PayloadHead>())
                .and_then(|(head, bytes)| Some((batch::read_record::<PayloadHead>(head)?, bytes)))
            {
                self.namer.on_payload(&Payload {
                    key: head.key,
                    sender: head.sender(),
                    wanted: head.wanted(),
                    time: head.time,
                    sequence: head.sequence,
                    offset: head.offset,
                    total: head.total,
                    cut: false,
                    bytes: bytes.get(..usize::from(head.length)).unwrap_or(bytes),
                });
            }
        }
        for (key, record) in self.sweep.take_overdue() {
            self.namer.on_overdue(&key, &record);
        }
        self.namer.advance_time(clock::monotonic());
        let decisions = self.namer.take();
        if decisions.is_empty() {
            return Ok(());
        }
        let learned = self.loaded.learn(&self.ebpf, &decisions);
        if !decisions.addresses.is_empty() {
            // Also if only some were written: the programs are to forget the classes that they remember.
            self.settings.epoch = self.settings.epoch.wrapping_add(1);
            tables::write_settings(&self.ebpf, self.settings)?;
        }
        learned?;
        let loaded = &self.loaded;
        self.sweep
            .order(decisions.flows.into_iter().map(|(key, ruling)| {
                let (slot, action) = match ruling {
                    Ruling::Slot(slot) if slot < FIRST_RULE_SLOT || loaded.has_slot(slot) => {
                        (slot, Order::NAME)
                    }
                    Ruling::Slot(_) | Ruling::GiveUp => (0, Order::GIVE_UP),
                };
                Order { key, slot, action }
            }));
        self.sweep.decide(&mut self.ebpf)
    }

    /// Waits until a payload comes or the bell rings, or for so long; whether the bell rang.
    fn wait(&self, most: Duration) -> bool {
        let mut ready: Vec<PollFd<'_>> = std::iter::once(self.payloads.as_fd())
            .chain(self.bell.iter().map(|bell| bell.as_fd()))
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        // Rounded up: the last part of a millisecond would be no wait at all, and whoever asks again would spin through it.
        let most = Duration::from_millis(most.as_micros().div_ceil(1_000).try_into().unwrap_or(1));
        let timeout = PollTimeout::try_from(most).unwrap_or(PollTimeout::ZERO);
        // Whatever it says, the rings are looked at next.
        if poll(&mut ready, timeout).is_err() {
            std::thread::sleep(most);
        }
        let rung = ready.last().and_then(PollFd::any) == Some(true);
        rung && self.bell.as_ref().is_some_and(|bell| bell.answer())
    }

    fn map(&self, name: &'static str) -> Result<&MapData, CaptureError> {
        object::map_data(&self.ebpf, name)
    }
}

impl Capture for EbpfCapture {
    fn backend(&self) -> Backend {
        Backend::Ebpf
    }

    fn attach(&mut self, interface: &Interface) -> Result<(), CaptureError> {
        self.names.insert(interface.index, interface.name.clone());
        for &hook in Hook::of(interface)? {
            if self.attached.contains_key(&(interface.index, hook)) {
                continue;
            }
            let attached = attach::attach(
                &mut self.ebpf,
                interface,
                hook,
                self.options.attach,
                self.pins.as_ref(),
            )?;
            self.attached.insert((interface.index, hook), attached);
        }
        if !self.at_work
            && let Some(pins) = &self.pins
        {
            pins.retire_other_layouts();
        }
        self.at_work = true;
        Ok(())
    }

    fn listen(&mut self, bell: &Arc<Bell>) {
        self.bell = Some(Arc::clone(bell));
    }

    fn detach(&mut self, interface: &Interface) {
        for hook in [Hook::Ingress, Hook::Egress] {
            if let Some(attached) = self.attached.remove(&(interface.index, hook)) {
                attached.detach();
            }
        }
    }

    fn install(&mut self, matrix: &Arc<Installed>) -> Result<(), CaptureError> {
        let before = self.namer.install(matrix, clock::monotonic());
        let filled = self.loaded.fill(&mut self.ebpf, &self.namer);
        let generation = match filled {
            Ok(generation) => generation,
            Err(error) => {
                self.namer.undo(before);
                return Err(error);
            }
        };
        let settings = Settings {
            generation,
            flags: self.namer.probe_flags(),
            epoch: self.settings.epoch.wrapping_add(1),
            ..self.settings
        };
        if let Err(error) = tables::write_settings(&self.ebpf, settings) {
            self.loaded.discard(&mut self.ebpf);
            self.namer.undo(before);
            return Err(error);
        }
        self.settings = settings;
        self.loaded.flip();
        Ok(())
    }

    fn poll(
        &mut self,
        timeout: Duration,
        sink: &mut dyn FnMut(&Event),
    ) -> Result<Progress, CaptureError> {
        let deadline = Instant::now() + timeout;
        loop {
            // Payloads first: a flow's beginning is told before its first payload, so that by then it is known.
            let payloads = self.take_payloads();
            let mut taken = 0;
            while let Some(item) = self.events.next() {
                taken += 1;
                if let Some(event) = batch::read_record::<Event>(&item) {
                    self.namer.on_event(&event);
                    sink(&event);
                }
            }
            self.name(&payloads)?;
            self.loaded.retire(&mut self.ebpf)?;
            let busy = self.sweep.run_if_due(&mut self.ebpf, clock::monotonic())?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Progress::Live);
            }
            if !busy && self.wait(left.min(interval_after(taken))) {
                return Ok(Progress::Live);
            }
        }
    }

    fn snapshot(&mut self) -> Result<Snapshot, CaptureError> {
        let reading = |what: &str, error: &std::io::Error| failed(what, error);
        let slots = u32::try_from(self.loaded.directory().len()).unwrap_or(u32::MAX);
        let traffic = batch::per_cpu_sums(self.map("SLOT_TRAFFIC")?, slots, add_traffic)
            .map_err(|error| reading("reading the traffic counters", &error))?;
        let flows = batch::values::<SlotFlows>(self.map("SLOT_FLOWS")?, slots)
            .map_err(|error| reading("reading the flow counters", &error))?;
        let slots = traffic
            .into_iter()
            .zip(flows)
            .map(|(traffic, flows)| SlotTotals { traffic, flows })
            .collect();
        let by_interface =
            batch::per_cpu_sums(self.map("INTERFACES")?, INTERFACE_COUNTERS, add_interface)
                .map_err(|error| reading("reading the interface counters", &error))?;
        let mut interfaces: Vec<_> = self
            .names
            .iter()
            .map(|(index, name)| {
                let counters = by_interface[(*index % INTERFACE_COUNTERS) as usize];
                (name.clone(), counters)
            })
            .collect();
        interfaces.sort_by(|a, b| a.0.cmp(&b.0));
        let counters = sweep::counters(&self.ebpf)?;
        let counter = |which: Counter| counters[which as usize];
        let unverified = self.sweep.unverified_entries();
        let verified =
            counter(Counter::VerifiedInserted).saturating_sub(counter(Counter::VerifiedDeleted));
        Ok(Snapshot {
            slots,
            interfaces,
            lost: vec![
                ("ring", counter(Counter::RingLost)),
                ("flow_table", counter(Counter::FlowTableFull)),
                ("promotion", counter(Counter::PromotionFailed)),
                ("fragment", counter(Counter::FragmentOrphan)),
                ("state", counter(Counter::StateContended)),
                ("payload_ring", counter(Counter::PayloadLost)),
                ("name", counter(Counter::NameUnknown)),
                ("program", counter(Counter::NotPassedOn)),
                ("flow_counters", counter(Counter::CarryFailed)),
            ]
            .into_iter()
            .chain(self.namer.losses())
            .collect(),
            tables: vec![
                TableFill {
                    table: "verified",
                    entries: verified,
                    capacity: u64::from(self.loaded.sizes().verified),
                    evictions: 0,
                },
                TableFill {
                    table: "unverified",
                    entries: unverified,
                    capacity: u64::from(self.loaded.sizes().unverified),
                    evictions: self.sweep.evictions(),
                },
            ],
        })
    }

    fn each_flow(
        &mut self,
        each: &mut dyn FnMut(&FlowKey, &FlowRecord),
    ) -> Result<(), CaptureError> {
        carried::each_flow(&self.ebpf, each)
    }

    fn namer(&self) -> &Namer {
        &self.namer
    }

    fn namer_mut(&mut self) -> &mut Namer {
        &mut self.namer
    }

    fn drop_reason(&self, number: u32) -> Option<&str> {
        self.drop_reasons.get(&number).map(String::as_str)
    }

    fn epoch_offset(&self) -> i128 {
        clock::epoch_offset()
    }
}

impl Drop for EbpfCapture {
    fn drop(&mut self) {
        // A start that failed must not cost what an earlier daemon left counting.
        let on_exit = if self.adopted && !self.at_work {
            OnExit::Keep
        } else {
            self.options.on_exit
        };
        match on_exit {
            OnExit::Keep => {
                for (_, attached) in self.attached.drain() {
                    attached.leave();
                }
            }
            OnExit::Detach => {
                for (_, attached) in self.attached.drain() {
                    attached.detach();
                }
                if let Some(probe) = self.drop_probe.take() {
                    probe.detach();
                }
                if let Some(pins) = self.pins.take() {
                    pins.remove();
                }
            }
        }
    }
}

fn add_traffic(sum: SlotTraffic, cpu: SlotTraffic) -> SlotTraffic {
    SlotTraffic {
        packets: [
            sum.packets[0] + cpu.packets[0],
            sum.packets[1] + cpu.packets[1],
        ],
        bytes: [sum.bytes[0] + cpu.bytes[0], sum.bytes[1] + cpu.bytes[1]],
        last_seen: sum.last_seen.max(cpu.last_seen),
    }
}

fn add_interface(sum: InterfaceCounters, cpu: InterfaceCounters) -> InterfaceCounters {
    InterfaceCounters {
        packets: sum.packets + cpu.packets,
        bytes: sum.bytes + cpu.bytes,
        not_ip: sum.not_ip + cpu.not_ip,
        unparsed: sum.unparsed + cpu.unparsed,
        link_upkeep: sum.link_upkeep + cpu.link_upkeep,
        zero: 0,
    }
}

fn failed(action: &str, error: &dyn std::error::Error) -> CaptureError {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        reason.push_str(": ");
        reason.push_str(&inner.to_string());
        source = inner.source();
    }
    // The verifier's log can be megabytes long; its end says what it objected to.
    const TAIL: usize = 2000;
    if reason.len() > TAIL {
        let cut = reason.len() - TAIL;
        let cut = (cut..reason.len())
            .find(|at| reason.is_char_boundary(*at))
            .unwrap_or(cut);
        reason = format!("... {}", &reason[cut..]);
    }
    CaptureError::Failed {
        action: action.to_owned(),
        reason,
    }
}

fn missing(map: &str) -> CaptureError {
    CaptureError::Failed {
        action: format!("opening the map {map}"),
        reason: "the kernel object has none; rebuild it with `cargo xtask ebpf`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use flowproof_common::state::Outcome;

    use super::*;
    use crate::matrix::compiled::Compiled;

    fn empty() -> Arc<Installed> {
        let compiled = Compiled::empty();
        Arc::new(Installed::new(Arc::new(compiled), SlotDirectory::default()))
    }

    /// Runs `body` in a network namespace of its own with loopback up.
    fn in_namespace(body: impl FnOnce() + Send + 'static) {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root for network namespaces and BPF");
            return;
        }
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let up = std::process::Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()
                .unwrap();
            assert!(up.success());
            body();
        })
        .join()
        .unwrap();
    }

    fn watch_loopback() -> EbpfCapture {
        let matrix = empty();
        let options = EbpfOptions {
            pin_directory: PathBuf::from("/nonexistent/flowproof"),
            ..EbpfOptions::default()
        };
        let mut capture = open(options, names::Settings::default(), &matrix).unwrap();
        capture.install(&matrix).unwrap();
        let loopback = Interface {
            index: 1,
            name: "lo".to_owned(),
        };
        capture.attach(&loopback).unwrap();
        capture
    }

    fn events(capture: &mut EbpfCapture) -> Vec<Event> {
        let mut events = Vec::new();
        capture
            .poll(Duration::from_millis(300), &mut |event| events.push(*event))
            .unwrap();
        events
    }

    #[test]
    fn a_connection_on_loopback_is_counted_once() {
        in_namespace(|| {
            let mut capture = watch_loopback();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(b"ping").unwrap();
            let mut buffer = [0; 4];
            server.read_exact(&mut buffer).unwrap();
            drop(client);
            drop(server);
            assert!(!events(&mut capture).is_empty());
            let snapshot = capture.snapshot().unwrap();
            let flows = snapshot.slots[0].flows;
            assert_eq!(flows.begun, 1);
            assert_eq!(flows.decided[Outcome::Answered as usize], 1);
            let packets = snapshot.slots[0].traffic.packets;
            let flow = capture.flows().unwrap();
            assert_eq!(flow.len(), 1);
            assert_eq!(
                packets[0] + packets[1],
                flow[0].1.packets.iter().sum::<u64>()
            );
            assert_eq!(snapshot.interfaces[0].1.packets, packets[0] + packets[1]);
            assert_eq!(flow[0].1.state.outcome(), Outcome::ClosedAfterAnswer);
        });
    }

    /// A TCP segment without payload between two addresses, from the client's `port` or back.
    fn segment(port: u16, flags: u8, back: bool) -> Vec<u8> {
        let mut frame = vec![0_u8; 54];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[17] = 40;
        frame[23] = 6;
        let ends = [
            ([10, 77, 0, 1], port.to_be_bytes()),
            ([10, 77, 0, 2], [0x11, 0x5b]),
        ];
        let [from, to] = if back { [ends[1], ends[0]] } else { ends };
        frame[26..30].copy_from_slice(&from.0);
        frame[30..34].copy_from_slice(&to.0);
        frame[34..36].copy_from_slice(&from.1);
        frame[36..38].copy_from_slice(&to.1);
        frame[46] = 5 << 4;
        frame[47] = flags;
        frame
    }

    /// Has the program at the ingress see a frame so many times.
    fn see(capture: &mut EbpfCapture, frame: &[u8], times: u32) {
        use aya::programs::{TestRun as _, TestRunOptions};

        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = times;
        program::loaded(&mut capture.ebpf, "fp_ingress")
            .unwrap()
            .test_run(options)
            .unwrap();
    }

    /// Numbers beyond what an entry of a flow table has room for.
    #[test]
    fn a_flow_of_very_many_packets_counts_them_all() {
        use flowproof_common::entry::Carried;
        use flowproof_common::packet::tcp::{ACK, RST, SYN};

        const MANY: u32 = (1 << 23) + 100_000;
        in_namespace(|| {
            let mut capture = watch_loopback();
            let send = |capture: &mut EbpfCapture, flags, back, times| {
                see(capture, &segment(5_000, flags, back), times);
            };
            let carried = |capture: &EbpfCapture| {
                let mut all = Vec::new();
                batch::for_each::<FlowKey, Carried>(capture.map("CARRIED").unwrap(), |key, _| {
                    all.push(*key);
                })
                .unwrap();
                all
            };
            send(&mut capture, SYN, false, 1);
            send(&mut capture, SYN | ACK, true, 1);
            send(&mut capture, ACK, false, MANY);
            assert_eq!(carried(&capture).len(), 1);
            send(&mut capture, ACK, true, MANY);
            send(&mut capture, ACK, false, MANY);
            let expect = ([1 + 2 * u64::from(MANY), 1 + u64::from(MANY)], 54);
            let flows = capture.flows().unwrap();
            assert_eq!(flows.len(), 1);
            let (key, record) = flows[0];
            assert_eq!(record.packets, expect.0);
            assert_eq!(record.bytes, expect.0.map(|packets| packets * expect.1));
            let traffic = capture.snapshot().unwrap().slots[0].traffic;
            assert_eq!(
                (traffic.packets, traffic.bytes),
                (record.packets, record.bytes)
            );
            // What a flow left behind that is known no more goes, and nothing else does.
            let gone = FlowKey { port_a: 1, ..key };
            let entry = Carried::default();
            batch::update(capture.map("CARRIED").unwrap(), &[gone], &[entry]).unwrap();
            carried::clear(&mut capture.ebpf).unwrap();
            assert_eq!(carried(&capture), [key]);
            // The end tells all of it, and nothing is left to the next one between the same ends.
            send(&mut capture, RST, false, 1);
            let last = *events(&mut capture).last().unwrap();
            assert_eq!(last.record.packets, [expect.0[0] + 1, expect.0[1]]);
            send(&mut capture, SYN, false, 1);
            assert!(carried(&capture).is_empty());
            let flows = capture.flows().unwrap();
            assert_eq!((flows.len(), flows[0].1.packets), (1, [1, 0]));
            let lost = capture.snapshot().unwrap().lost;
            assert!(lost.iter().all(|(_, count)| *count == 0), "{lost:?}");
        });
    }

    /// Whatever is known of it: that it began just now, that it began a thousand flows ago, or that it is verified.
    #[test]
    fn a_repeated_request_begins_no_other_flow() {
        use flowproof_common::packet::tcp::{ACK, SYN};

        in_namespace(|| {
            let mut capture = watch_loopback();
            let repeat = |capture: &mut EbpfCapture| {
                see(capture, &segment(5_000, SYN, false), 1);
                let flows = capture.flows().unwrap();
                let own: Vec<_> = flows
                    .iter()
                    .filter(|(key, _)| key.port_a == 5_000 || key.port_b == 5_000)
                    .map(|(_, record)| record.packets)
                    .collect();
                assert_eq!(own.len(), 1, "{own:?}");
                own[0][0]
            };
            capture.install(&matrix(BY_ADDRESS)).unwrap();
            assert_eq!(repeat(&mut capture), 1);
            assert_eq!(repeat(&mut capture), 2);
            for port in 6_000..7_000 {
                see(&mut capture, &segment(port, SYN, false), 1);
            }
            assert_eq!(repeat(&mut capture), 3);
            see(&mut capture, &segment(5_000, SYN | ACK, true), 1);
            see(&mut capture, &segment(5_000, ACK, false), 1);
            let verified = |capture: &EbpfCapture| {
                let mut verified = 0;
                batch::for_each::<FlowKey, flowproof_common::entry::FlowEntry>(
                    capture.map("VERIFIED").unwrap(),
                    |_, _| verified += 1,
                )
                .unwrap();
                verified
            };
            assert_eq!(verified(&capture), 1);
            assert_eq!(repeat(&mut capture), 5);
            for port in 6_000..7_000 {
                see(&mut capture, &segment(port, SYN | ACK, true), 1);
                see(&mut capture, &segment(port, ACK, false), 1);
            }
            assert_eq!(verified(&capture), 1_001);
            for port in 6_000..7_000 {
                see(&mut capture, &segment(port, SYN, false), 1);
            }
            assert_eq!(repeat(&mut capture), 6);
            assert_eq!(capture.flows().unwrap().len(), 1_001);
            let snapshot = capture.snapshot().unwrap();
            let begun: u64 = snapshot.slots.iter().map(|slot| slot.flows.begun).sum();
            assert_eq!(begun, 1_001);
            assert!(snapshot.lost.iter().all(|(_, count)| *count == 0));
        });
    }

    #[test]
    fn the_kernel_takes_the_programs_for_devices_without_a_link_header() {
        in_namespace(|| {
            let mut capture = watch_loopback();
            for name in ["fp_ingress_l3", "fp_egress_l3"] {
                program::loaded(&mut capture.ebpf, name).unwrap();
            }
        });
    }

    /// The kernel drops the SYN and answers it; the answer is what counts.
    #[test]
    fn a_refusal_on_loopback_is_no_drop() {
        in_namespace(|| {
            let mut capture = watch_loopback();
            let closed = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap();
            assert!(TcpStream::connect(closed).is_err());
            let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(closed).unwrap();
            client.send(b"question").unwrap();
            assert!(!events(&mut capture).is_empty());
            let flows = capture.snapshot().unwrap().slots[0].flows;
            assert_eq!(flows.begun, 2);
            assert_eq!(flows.decided[Outcome::Refused as usize], 2);
            assert_eq!(flows.decided.iter().sum::<u64>(), 2);
        });
    }

    /// What netfilter drops on its way out never reaches an interface; what it drops on its way in did.
    #[test]
    fn a_drop_by_netfilter_is_told_from_silence() {
        for hook in ["output", "input"] {
            in_namespace(move || {
                let rules = format!(
                    "add table inet t; add chain inet t c {{ type filter hook {hook} priority 0; }}; \
                     add rule inet t c tcp dport 4444 drop"
                );
                let done = std::process::Command::new("nft").arg(rules).status();
                assert!(done.is_ok_and(|status| status.success()), "nft is needed");
                let mut capture = watch_loopback();
                let address = "127.0.0.1:4444".parse().unwrap();
                let error = TcpStream::connect_timeout(&address, Duration::from_millis(300));
                assert!(error.is_err());
                let events = events(&mut capture);
                let dropped = events
                    .iter()
                    .find(|event| event.record.state.outcome() == Outcome::DroppedHere)
                    .unwrap_or_else(|| panic!("{hook}: no drop among {events:?}"));
                let reason = capture
                    .drop_reasons()
                    .get(&dropped.drop_reason)
                    .map(String::as_str);
                assert_eq!(reason, Some("netfilter_drop"));
                let flows = capture.snapshot().unwrap().slots[0].flows;
                assert_eq!(flows.begun, 1);
                assert_eq!(flows.decided[Outcome::DroppedHere as usize], 1);
            });
        }
    }

    fn matrix(text: &str) -> Arc<Installed> {
        let (matrix, bindings) = crate::matrix::compile::tests::parse(text);
        let host = crate::matrix::compile::HostAddresses::Unknown;
        Arc::new(crate::matrix::compile::tests::install(
            matrix, bindings, &host,
        ))
    }

    /// Two addresses on loopback: the client's, and one that is learned to stand for a name.
    fn in_namespace_with_addresses(body: impl FnOnce() + Send + 'static) {
        in_namespace(|| {
            for address in ["10.77.0.1/32", "10.77.0.2/32"] {
                let added = std::process::Command::new("ip")
                    .args(["address", "add", address, "dev", "lo"])
                    .status()
                    .unwrap();
                assert!(added.success());
            }
            body();
        });
    }

    /// From the one address to the other.
    fn connect(listener: &TcpListener) -> (TcpStream, TcpStream) {
        use nix::sys::socket::{
            AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket,
        };
        use std::os::fd::AsRawFd as _;
        let client = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::empty(),
            None,
        )
        .unwrap();
        bind(client.as_raw_fd(), &SockaddrIn::new(10, 77, 0, 1, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        connect(client.as_raw_fd(), &SockaddrIn::new(10, 77, 0, 2, port)).unwrap();
        (TcpStream::from(client), listener.accept().unwrap().0)
    }

    fn name_of_the_server() -> crate::names::answer::Answer {
        crate::names::answer::Answer {
            question: crate::names::answer::fold("good.example.org").unwrap(),
            kind: crate::names::answer::Kind::A,
            result: crate::names::answer::Result::Found,
            aliases: Vec::new(),
            addresses: vec![("10.77.0.2".parse().unwrap(), 600)],
            ech_public_name: None,
        }
    }

    const BY_NAME: &str = "system s
        client = 10.77.0.1/32
        web = good.example.org
        client -> web: tcp/4443";
    const BY_ADDRESS: &str = "system s
        client = 10.77.0.1/32
        web = 10.77.0.2/32
        client -> web: tcp/4443";

    fn totals(capture: &mut EbpfCapture) -> Vec<(u64, u64, u64)> {
        let slots = capture.snapshot().unwrap().slots;
        let slots = slots.iter().map(|slot| {
            (
                slot.flows.begun,
                slot.flows.decided[Outcome::Answered as usize],
                slot.traffic.packets.iter().sum(),
            )
        });
        slots.collect()
    }

    fn kinds(events: &[Event]) -> Vec<(u8, bool)> {
        events
            .iter()
            .map(|event| (event.kind, event.record.state.is_held()))
            .collect()
    }

    /// A connection that was over before its name was known counts as a whole, and says so in the order of things.
    #[test]
    fn a_closed_connection_counts_when_its_name_is_known() {
        use flowproof_common::record::EventKind::{Begun, Decided, Ended, Named};
        in_namespace_with_addresses(|| {
            let mut capture = watch_loopback();
            capture.install(&matrix(BY_NAME)).unwrap();
            let listener = TcpListener::bind("10.77.0.2:4443").unwrap();
            let (client, server) = connect(&listener);
            drop(client);
            drop(server);
            let before = events(&mut capture);
            let expect = [(Begun as u8, true), (Decided as u8, true)];
            assert_eq!(kinds(&before), expect);
            assert!(totals(&mut capture).iter().all(|slot| *slot == (0, 0, 0)));
            capture.namer_mut().learn(None, &name_of_the_server());
            // No head came: that it is closed nobody has to say.
            let deadline = Instant::now() + Duration::from_secs(15);
            let mut after = Vec::new();
            while after.is_empty() && Instant::now() < deadline {
                after = events(&mut capture);
            }
            let expect = [Named, Decided, Ended].map(|kind| (kind as u8, false));
            assert_eq!(kinds(&after), expect);
            let record = after[0].record;
            let packets = record.packets.iter().sum();
            let slot = record.slot as usize;
            assert!(record.slot >= FIRST_RULE_SLOT);
            assert_eq!(totals(&mut capture)[slot], (1, 1, packets));
        });
    }

    /// A reload that makes a flow wait, and one that releases it again, count each packet once.
    #[test]
    fn reloads_count_no_packet_twice() {
        in_namespace_with_addresses(|| {
            let mut capture = watch_loopback();
            capture.install(&matrix(BY_ADDRESS)).unwrap();
            let listener = TcpListener::bind("10.77.0.2:4443").unwrap();
            let (mut client, _server) = connect(&listener);
            client.write_all(b"one").unwrap();
            assert!(!events(&mut capture).is_empty());
            assert_eq!(
                capture.flows().unwrap()[0].1.state.verdict().name(),
                "expected"
            );
            capture.install(&matrix(BY_NAME)).unwrap();
            client.write_all(b"two").unwrap();
            let held = events(&mut capture);
            assert!(held.iter().any(|event| event.record.state.is_held()));
            assert_eq!(capture.namer().counts().waiting, 1);
            client.write_all(b"three").unwrap();
            capture.install(&matrix(BY_ADDRESS)).unwrap();
            client.write_all(b"four").unwrap();
            events(&mut capture);
            assert_eq!(capture.namer().counts().waiting, 0);
            capture.install(&matrix(BY_NAME)).unwrap();
            client.write_all(b"five").unwrap();
            events(&mut capture);
            capture.namer_mut().learn(None, &name_of_the_server());
            events(&mut capture);
            client.write_all(b"six").unwrap();
            events(&mut capture);
            let record = capture.flows().unwrap()[0].1;
            assert!(record.state.is_named() && !record.state.is_held());
            let packets: u64 = totals(&mut capture).iter().map(|slot| slot.2).sum();
            assert_eq!(packets, record.packets.iter().sum::<u64>());
        });
    }

    /// Classes that names make and whose rules find no room take nothing away from what a prefix allows.
    #[test]
    fn a_full_table_forbids_nothing() {
        in_namespace_with_addresses(|| {
            let mut capture = watch_loopback();
            let text = "system s
                client = 10.77.0.1/32
                host = 10.77.0.2/32
                web = good.example.org
                client -> host: tcp/4444
                client -> web: tcp/4443";
            capture.install(&matrix(text)).unwrap();
            capture.loaded.fill_up();
            capture.namer_mut().learn(None, &name_of_the_server());
            events(&mut capture);
            let listener = TcpListener::bind("10.77.0.2:4444").unwrap();
            let _open = connect(&listener);
            events(&mut capture);
            let record = capture.flows().unwrap()[0].1;
            assert_eq!(record.state.verdict().name(), "expected");
            assert!(!record.state.is_held());
        });
    }

    /// Only what differs is written, and what is there is the whole all the same.
    #[test]
    fn the_kernel_has_all_of_a_matrix_however_little_was_written() {
        use std::collections::BTreeMap;

        use flowproof_common::classify::{RuleKey, rule_end};

        in_namespace(|| {
            let mut capture = watch_loopback();
            let other = "system s
                client = 10.77.0.1/32
                web = 10.77.0.2/32
                client -> web: tcp/4443
                client -> web: udp/53-60
                web -> client: tcp/1-100";
            for text in [BY_ADDRESS, other, BY_ADDRESS, other, other, BY_NAME] {
                capture.install(&matrix(text)).unwrap();
                let generation = capture.settings.generation;
                let in_force = Arc::clone(capture.namer().matrix());
                let ports =
                    batch::values::<u32>(capture.map("PORT_CLASSES").unwrap(), 131_072).unwrap();
                let half = &ports[(generation as usize & 1) * 65_536..][..65_536];
                let expect = in_force.compiled.port_classes.iter();
                assert!(
                    half.iter()
                        .copied()
                        .eq(expect.map(|class| u32::from(*class)))
                );
                let mut members = Vec::new();
                batch::for_each::<u64, u64>(capture.map("SLOT_MEMBERS").unwrap(), |key, member| {
                    members.push((key >> 32, *member));
                })
                .unwrap();
                members.sort_unstable();
                let mut expect: Vec<(u64, u64)> = in_force
                    .directory
                    .iter()
                    .flat_map(|(slot, own)| own.iter().map(move |id| (slot.into(), id.0)))
                    .collect();
                expect.sort_unstable();
                assert_eq!(members, expect);
                let mut rules = BTreeMap::new();
                batch::for_each::<RuleKey, u32>(capture.map("RULES").unwrap(), |key, value| {
                    if key.generation == generation {
                        rules.insert((key.from, key.to, key.port_class, key.protocol), *value);
                    }
                })
                .unwrap();
                let expect: BTreeMap<_, _> = in_force
                    .rules()
                    .map(|(rule, value)| {
                        let (from, to) = (rule_end(rule.from), rule_end(rule.to));
                        ((from, to, rule.port_class, rule.protocol), value)
                    })
                    .collect();
                assert_eq!(rules, expect);
                events(&mut capture);
            }
        });
    }

    #[test]
    fn a_refused_matrix_changes_nothing_in_the_kernel() {
        in_namespace_with_addresses(|| {
            let mut capture = watch_loopback();
            capture.install(&matrix(BY_NAME)).unwrap();
            capture.namer_mut().learn(None, &name_of_the_server());
            events(&mut capture);
            let mut large = "system t\nweb = good.example.org\n".to_owned();
            for number in 0..9000 {
                large.push_str(&format!(
                    "r{number} = 10.{}.{}.1/32\n",
                    number / 250,
                    number % 250
                ));
                large.push_str(&format!("r{number} -> web: tcp/4443\n"));
            }
            let before = capture.namer().matrix().directory.len();
            assert!(capture.install(&matrix(&large)).is_err());
            assert_eq!(capture.namer().matrix().directory.len(), before);
            assert_eq!(capture.loaded.directory().len(), before);
            let listener = TcpListener::bind("10.77.0.2:4443").unwrap();
            let (client, server) = connect(&listener);
            drop((client, server));
            events(&mut capture);
            assert!(!capture.flows().unwrap().is_empty());
            let record = capture.flows().unwrap()[0].1;
            assert_eq!(record.state.verdict().name(), "expected");
        });
    }
}
