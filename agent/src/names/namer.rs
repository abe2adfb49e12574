//! Watches over flows whose verdict depends on a name. It hears of every held flow, of payloads and of time, keeps the
//! [book](super::book) of names, and says which addresses stand for which classes and which flow counts for which slot.
//! It does nothing itself: a back end carries its [`Decisions`] out.
//!
//! Bounded everywhere: held flows, bytes of heads, DNS connections, answers a second, names. What does not fit is counted
//! ([`NamerCounts`]), and a flow whose evidence was lost is never called unexpected.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use flowproof_common::address::Address;
use flowproof_common::classify::{FIRST_RULE_SLOT, Tables};
use flowproof_common::key::{FlowKey, Side};
use flowproof_common::payload::Wanted;
use flowproof_common::record::{Event, EventKind, FlowRecord, Settings as ProbeSettings};
use flowproof_common::ticks::Ticks;

use super::answer::{Answer, Kind, Name};
use super::book::{NameBook, Remembered};
use super::decide::{Case, PublicNames, Sources, decide};
use super::flow_name::{FlowName, NameSource};
use super::heads::Gathering;
use super::patterns::PatternIndex;
use super::wire::dns;
use super::wire::framing::DnsStream;
use super::wire::hello::{Hello, Reading};
use super::wire::stream::InOrder;
use super::{Payload, Settings};
use crate::matrix::compiled::{BoundRole, Compiled, Rule};
use crate::matrix::installed::mixed::NamedEnd;
use crate::matrix::installed::{Installed, SlotDirectory};
use crate::verdict::requirement::Resolution;

/// Held flows that are watched, at most. Others are found when their time is over.
const MAX_HELD: usize = 65_536;
/// Heads that are gathered at a time, at most: 64 MiB if all were full.
const MAX_HEADS: usize = 4096;
/// How often a flow that waits is looked at because of an answer about its address, at most; a flood of answers must
/// not cost a look each.
const MAX_LOOKS: u32 = 64;
/// Names of flows that are kept for whoever asks, at most.
const MAX_NAMED: usize = 131_072;
/// DNS connections over TCP that are followed, at most.
const MAX_STREAMS: usize = 1024;
/// DNS answers that are read in a second, at most; as many may come at once.
const ANSWERS_PER_SECOND: u64 = 50_000;
/// Addresses that have a class by name at a time, at most. Flows to further ones are judged one by one.
pub const MAX_PLACED: usize = 32_768;
/// Names whose configuration for encrypted ClientHellos is remembered, at most.
const MAX_PUBLIC_NAMES: usize = 8192;
/// Nanoseconds between two looks for what is too old.
const UPKEEP: u64 = 100_000_000;
const SECOND: u64 = 1_000_000_000;
/// Nanoseconds beyond the time that flows wait, after which one that no sweep of the tables tells of is gone.
const GONE: u64 = 5 * SECOND;
/// Names of flows that live on which are passed over when a name is to make room.
const PASSED_OVER: usize = 16;

/// What becomes of a held flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ruling {
    /// It counts for this slot.
    Slot(u32),
    /// What its name is read from was lost.
    GiveUp,
}

/// What a back end is to do.
#[derive(Clone, Default, Debug)]
pub struct Decisions {
    /// Counter slots or classes were added: the matrix to show to others.
    pub matrix: Option<Arc<Installed>>,
    /// Rules for classes that are new, of the matrix in force.
    pub rules: Vec<(Rule, u32)>,
    /// Addresses with their class by name, or none any more.
    pub addresses: Vec<(Address, Option<u32>)>,
    /// Flows to release.
    pub flows: Vec<(FlowKey, Ruling)>,
}

impl Decisions {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.matrix.is_none()
            && self.rules.is_empty()
            && self.addresses.is_empty()
            && self.flows.is_empty()
    }
}

/// What the namer has done and left undone.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NamerCounts {
    /// DNS answers that were read.
    pub answers: u64,
    /// Payloads from DNS servers that are no answers that could be read.
    pub answers_unread: u64,
    /// DNS answers beyond [`ANSWERS_PER_SECOND`], and connections that could not be followed.
    pub answers_lost: u64,
    /// Flows by where their name was read, see [`NameSource::ALL`].
    pub named: [u64; 5],
    /// Flows whose name and address disagree.
    pub mismatches: u64,
    /// Heads that were let go half-read because too many were gathered, or not captured as a whole.
    pub heads_lost: u64,
    /// Flows that wait for their name now.
    pub waiting: u64,
    /// Addresses with a class by name now.
    pub placed: u64,
}

struct Held {
    initiator: Side,
    first_seen: Ticks,
    begun: u64,
    /// The head went by before the capture began.
    midway: bool,
    /// The number of the initiator's first byte, if its SYN was seen.
    start: Option<u32>,
    head: Option<Gathering>,
    hello: Option<Hello>,
    may_come: bool,
    /// How often DNS made it worth another look.
    looks: u32,
    /// Tells its deadline from those of earlier flows between the same ends.
    ticket: u64,
    /// When it was last known to be there.
    alive: u64,
}

/// What [`Namer::undo`] needs to take a matrix back.
pub struct Before {
    matrix: Installed,
    published: Arc<Installed>,
    placed: HashMap<Address, u32, foldhash::fast::RandomState>,
    out: Decisions,
}

/// Answers over one DNS connection.
#[derive(Default)]
struct Stream {
    order: InOrder,
    framing: DnsStream,
    last: u64,
}

/// See the module.
pub struct Namer {
    settings: Settings,
    book: NameBook,
    matrix: Installed,
    published: Arc<Installed>,
    placed: HashMap<Address, u32, foldhash::fast::RandomState>,
    held: HashMap<FlowKey, Held, foldhash::quality::RandomState>,
    deadlines: VecDeque<(u64, FlowKey, u64)>,
    ticket: u64,
    /// Whether the back end tells of flows that are overdue, so that those it does not tell of are gone.
    sweeps: bool,
    by_server: HashMap<Address, HashSet<FlowKey>, foldhash::quality::RandomState>,
    heads: usize,
    /// By name: what its encrypted ClientHellos show in its place.
    public_names: PublicNames,
    named: HashMap<(FlowKey, Ticks), Arc<FlowName>, foldhash::quality::RandomState>,
    named_order: VecDeque<(FlowKey, Ticks)>,
    live: HashMap<FlowKey, (Ticks, Side), foldhash::quality::RandomState>,
    streams: HashMap<(FlowKey, bool), Stream, foldhash::quality::RandomState>,
    budget: u64,
    budget_at: u64,
    upkeep_at: u64,
    /// When evidence was last lost.
    lost_at: Option<u64>,
    /// Payloads that the back end has lost so far, once it has said so.
    payloads_lost: Option<u64>,
    /// What flows were judged by before the last reload changed it.
    renamed: Vec<((FlowKey, Ticks), Arc<FlowName>)>,
    now: u64,
    counts: NamerCounts,
    out: Decisions,
}

impl Namer {
    /// Without a matrix, so that no flow is held.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let none = Installed::new(Arc::new(Compiled::empty()), SlotDirectory::default());
        let book = NameBook::new(settings.limits, settings.lifetimes);
        Self {
            settings,
            book,
            published: Arc::new(none.clone()),
            matrix: none,
            placed: HashMap::default(),
            held: HashMap::default(),
            deadlines: VecDeque::new(),
            ticket: 0,
            sweeps: false,
            by_server: HashMap::default(),
            heads: 0,
            public_names: PublicNames::default(),
            named: HashMap::default(),
            named_order: VecDeque::new(),
            live: HashMap::default(),
            streams: HashMap::default(),
            budget: ANSWERS_PER_SECOND,
            budget_at: 0,
            upkeep_at: 0,
            lost_at: None,
            payloads_lost: None,
            renamed: Vec::new(),
            now: 0,
            counts: NamerCounts::default(),
            out: Decisions::default(),
        }
    }

    /// Judges by another matrix. Names that were learned stay, and what they mean is looked up anew; the slots that names
    /// made stay too. What is returned takes it back.
    pub fn install(&mut self, matrix: &Arc<Installed>, now: u64) -> Before {
        self.now = self.now.max(now);
        let before = Before {
            matrix: self.matrix.clone(),
            published: Arc::clone(&self.published),
            placed: self.placed.clone(),
            out: self.out.clone(),
        };
        self.matrix = if matrix.directory.holds(&self.matrix.directory) {
            self.published = Arc::clone(matrix);
            self.out.matrix = Some(Arc::clone(matrix));
            Installed::clone(matrix)
        } else {
            // Names made slots that whoever compiled the matrix did not know of.
            Installed::new(
                Arc::clone(&matrix.compiled),
                self.matrix.directory.as_ref().clone(),
            )
        };
        self.set_patterns();
        self.placed.clear();
        self.out.rules.clear();
        self.out.addresses.clear();
        let needed: Vec<Address> = self.book.needed_addresses().collect();
        for address in needed {
            self.place(address);
        }
        self.out.rules.clear();
        self.out.addresses.clear();
        self.publish();
        self.judge_anew();
        before
    }

    /// Takes back the matrix that was installed last, because the back end can't judge by it. Everything is as it was:
    /// classes have the numbers that the back end knows, and no flow changes its slot.
    pub fn undo(&mut self, before: Before) {
        self.matrix = before.matrix;
        self.published = before.published;
        self.placed = before.placed;
        self.out = before.out;
        for (id, name) in std::mem::take(&mut self.renamed) {
            self.named.insert(id, name);
        }
        self.set_patterns();
        // What the book forgot meanwhile for want of room has to be told.
        for address in self.known_addresses() {
            self.place(address);
        }
    }

    /// Addresses that have patterns, and those that have a class by name.
    fn known_addresses(&self) -> Vec<Address> {
        let placed = self.placed.keys().copied();
        self.book.needed_addresses().chain(placed).collect()
    }

    fn set_patterns(&mut self) {
        let patterns = self
            .matrix
            .compiled
            .names
            .iter()
            .map(|name| name.pattern.clone());
        let index = Arc::new(PatternIndex::new(patterns));
        self.book.set_patterns(self.now, index);
        drop(self.book.take_changed());
    }

    /// Flows that were judged by name keep their name, which may mean something else now.
    fn judge_anew(&mut self) {
        self.renamed.clear();
        let live: Vec<(FlowKey, (Ticks, Side))> =
            self.live.iter().map(|(key, flow)| (*key, *flow)).collect();
        for (key, (first_seen, initiator)) in live {
            let Some(known) = self.named.get(&(key, first_seen)) else {
                continue;
            };
            let known = Arc::clone(known);
            // A name that DNS contradicted is no better under another matrix: what counts is the address.
            let contradicted = known
                .mismatch
                .as_ref()
                .is_some_and(|mismatch| mismatch.contradicted);
            let patterns = match &known.name {
                Some(name) if !contradicted => self.book.patterns_of_name(name),
                None if known.source == NameSource::Dns => {
                    let (server, _) = key.end(initiator.other());
                    self.book.patterns_of(&server, self.now)
                }
                Some(_) | None => Vec::new(),
            };
            let slot = self.slot_with(&key, initiator, &patterns);
            if slot != known.slot {
                let mut changed = FlowName::clone(&known);
                changed.slot = slot;
                if !contradicted || slot >= FIRST_RULE_SLOT {
                    changed.mismatch = None;
                }
                self.renamed.push(((key, first_seen), known));
                self.named.insert((key, first_seen), Arc::new(changed));
                self.out.flows.push((key, Ruling::Slot(slot)));
            }
        }
        self.publish();
    }

    fn slot_with(&mut self, key: &FlowKey, initiator: Side, patterns: &[u32]) -> u32 {
        let (client, _) = key.end(initiator);
        let client_patterns = self.book.patterns_of(&client, self.now);
        self.matrix
            .slot_of_named_flow(key, initiator, &client_patterns, patterns)
    }

    /// The matrix in force with all classes and slots that names made.
    #[must_use]
    pub fn matrix(&self) -> &Arc<Installed> {
        &self.published
    }

    /// Flags for the probe: what it is to hand over.
    #[must_use]
    pub fn probe_flags(&self) -> u32 {
        // Names are worth knowing even where nothing is judged by them.
        let mut flags = if self.settings.passive_dns {
            ProbeSettings::WANTS_DNS
        } else {
            0
        };
        if !self.matrix.compiled.names.is_empty() {
            flags |= ProbeSettings::HAS_NAMES;
            if self.settings.hello {
                flags |= ProbeSettings::WANTS_HELLO;
            }
        }
        flags
    }

    /// Classes of addresses by name, to be asked before those of prefixes.
    #[must_use]
    pub fn tables(&self) -> NamedTables<'_> {
        NamedTables {
            matrix: &self.matrix,
            placed: &self.placed,
        }
    }

    /// Every address with a class by name.
    pub fn placed(&self) -> impl Iterator<Item = (Address, u32)> {
        self.placed
            .iter()
            .map(|(address, class)| (*address, *class))
    }

    /// The class of an address by name and prefix.
    #[must_use]
    pub fn class_of(&self, address: &Address) -> u32 {
        self.tables().address_class(address)
    }

    /// Takes what is to be done since the last call.
    #[must_use]
    pub fn take(&mut self) -> Decisions {
        self.publish();
        std::mem::take(&mut self.out)
    }

    /// Whether flows are to be released.
    #[must_use]
    pub fn has_rulings(&self) -> bool {
        !self.out.flows.is_empty()
    }

    /// What was lost, by stage.
    #[must_use]
    pub fn losses(&self) -> [(&'static str, u64); 2] {
        [
            ("name_head", self.counts.heads_lost),
            ("dns", self.counts.answers_lost),
        ]
    }

    fn publish(&mut self) {
        let grown = self.matrix.directory.len() != self.published.directory.len()
            || self.matrix.class_count() != self.published.class_count()
            || !Arc::ptr_eq(&self.matrix.compiled, &self.published.compiled);
        if grown {
            self.published = Arc::new(self.matrix.clone());
            self.out.matrix = Some(Arc::clone(&self.published));
        }
    }

    /// Hears of a flow's state.
    pub fn on_event(&mut self, event: &Event) {
        self.now = self.now.max(event.time);
        let held = event.record.state.is_held();
        if !held {
            // The tables have judged it, or it is over, or another has taken its ends.
            self.forget(&event.key);
        }
        if event.kind == EventKind::Begun as u8 {
            self.live.remove(&event.key);
            if held {
                let midway = event.record.state.joined_midway();
                self.hold(&event.key, &event.record, event.time, midway);
            }
        } else if event.kind == EventKind::Rejudged as u8 {
            if held {
                // A reload made it wait; its head went by long ago.
                let begun = event.record.first_seen.to_nanos(self.now);
                self.live.remove(&event.key);
                self.hold(&event.key, &event.record, begun, true);
            }
        } else if event.kind == EventKind::Decided as u8 {
            if held && event.record.state.outcome().is_failure() {
                self.no_head_will_come(&event.key);
            }
        } else if event.kind == EventKind::Ended as u8 {
            self.forget(&event.key);
            self.live.remove(&event.key);
            for from_b in [false, true] {
                self.streams.remove(&(event.key, from_b));
            }
        }
    }

    /// Hears of a held flow that is older than [`Settings::hold`]: nobody may have told of its beginning, because the
    /// event was lost or came to an earlier daemon.
    pub fn on_overdue(&mut self, key: &FlowKey, record: &FlowRecord) {
        self.sweeps = true;
        if !record.state.is_held() {
            return;
        }
        if let Some(held) = self.held.get_mut(key) {
            held.alive = self.now;
            return;
        }
        // Its head went by unread.
        self.hold(key, record, record.first_seen.to_nanos(self.now), true);
        self.consider(key, true);
    }

    /// Watches a flow; `midway` if its head went by.
    fn hold(&mut self, key: &FlowKey, record: &FlowRecord, begun: u64, midway: bool) {
        if self.held.len() >= MAX_HELD && !self.held.contains_key(key) {
            return;
        }
        self.forget(key);
        let initiator = record.state.initiator();
        self.ticket += 1;
        let held = Held {
            initiator,
            first_seen: record.first_seen,
            begun,
            midway,
            may_come: self.settings.hello && !midway && Gathering::is_for(key.protocol),
            start: None,
            head: None,
            hello: None,
            looks: 0,
            ticket: self.ticket,
            alive: self.now,
        };
        let (server, _) = key.end(initiator.other());
        self.by_server.entry(server).or_default().insert(*key);
        self.held.insert(*key, held);
        self.set_deadline(key, self.ticket, self.settings.hold);
        self.consider(key, false);
    }

    fn set_deadline(&mut self, key: &FlowKey, ticket: u64, wait: u64) {
        if self.deadlines.len() >= 4 * MAX_HELD {
            let held = &self.held;
            self.deadlines.retain(|(_, key, ticket)| {
                held.get(key).is_some_and(|held| held.ticket == *ticket)
            });
        }
        let deadline = self.now.saturating_add(wait);
        self.deadlines.push_back((deadline, *key, ticket));
    }

    /// Takes a flow off the list of those that wait.
    fn forget(&mut self, key: &FlowKey) -> Option<Held> {
        let held = self.held.remove(key)?;
        self.heads -= usize::from(held.head.is_some());
        let (server, _) = key.end(held.initiator.other());
        if let Some(keys) = self.by_server.get_mut(&server) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_server.remove(&server);
            }
        }
        Some(held)
    }

    fn no_head_will_come(&mut self, key: &FlowKey) {
        if let Some(held) = self.held.get_mut(key) {
            held.may_come = false;
            self.heads -= usize::from(held.head.take().is_some());
            self.consider(key, false);
        }
    }

    /// Counts what could not be read because it was lost or left out.
    fn lose_head(&mut self) {
        self.counts.heads_lost += 1;
        self.lose();
    }

    fn lose(&mut self) {
        self.lost_at = Some(self.now);
    }

    /// Whether something was lost that may have told the name of a flow that began at `begun`: since then, or shortly
    /// before, when its client asked for the address.
    fn may_have_lost(&self, begun: u64) -> bool {
        self.lost_at
            .is_some_and(|at| at.saturating_add(self.settings.hold) >= begun)
    }

    /// Reads a payload.
    pub fn on_payload(&mut self, payload: &Payload<'_>) {
        self.now = self.now.max(payload.time);
        match payload.wanted {
            Wanted::Nothing => {}
            Wanted::Dns => self.on_dns(payload),
            Wanted::Head => self.on_head(payload),
        }
    }

    fn on_head(&mut self, payload: &Payload<'_>) {
        let Some(held) = self.held.get_mut(&payload.key) else {
            return;
        };
        if !held.may_come || held.hello.is_some() {
            return;
        }
        if payload.total == 0 {
            held.start = Some(payload.sequence);
            return;
        }
        if held.head.is_none() {
            if self.heads >= MAX_HEADS {
                self.lose_head();
                return;
            }
            held.head = Gathering::of(payload.key.protocol, held.start);
            self.heads += 1;
        }
        let Some(head) = &mut held.head else {
            return;
        };
        match head.push(payload) {
            Reading::More => {
                if payload.cut {
                    self.lose_head();
                }
                return;
            }
            Reading::Hello(hello) => held.hello = Some(hello),
            Reading::Other => {}
        }
        held.may_come = false;
        held.head = None;
        self.heads -= 1;
        self.consider(&payload.key, false);
    }

    /// Counts an answer that could not be read because it was lost or left out.
    fn lose_answer(&mut self) {
        self.counts.answers_lost += 1;
        self.lose();
    }

    fn on_dns(&mut self, payload: &Payload<'_>) {
        if !self.settings.passive_dns {
            return;
        }
        let (client, _) = payload.key.end(payload.sender.other());
        if payload.key.protocol == flowproof_common::protocol::UDP {
            // Later pieces of a datagram longer than any that a client asks for (4,096 bytes, RFC 6891, section 6.2.5)
            // are not put together.
            if payload.offset == 0 {
                self.on_message(client, payload.bytes, payload.cut);
            }
            return;
        }
        let id = (payload.key, payload.sender == Side::B);
        if !self.streams.contains_key(&id) && self.streams.len() >= MAX_STREAMS {
            // Connections end, and their ends may have been missed: the one that was silent longest makes room.
            let idle = self.streams.iter().min_by_key(|(_, stream)| stream.last);
            if let Some(idle) = idle.map(|(id, _)| *id) {
                self.streams.remove(&idle);
                self.lose_answer();
            }
        }
        let stream = self.streams.entry(id).or_default();
        stream.last = payload.time;
        let Stream { order, framing, .. } = stream;
        if payload.total == 0 {
            order.start_at(payload.sequence);
            return;
        }
        let mut messages: Vec<Vec<u8>> = Vec::new();
        order.push(
            payload.sequence.wrapping_add(payload.offset),
            payload.bytes,
            &mut |bytes| framing.push(bytes, &mut |message| messages.push(message.to_vec())),
        );
        if order.is_stuck() || framing.is_broken() {
            self.streams.remove(&id);
            self.lose_answer();
        }
        for message in messages {
            self.on_message(client, &message, false);
        }
    }

    fn on_message(&mut self, client: Address, message: &[u8], cut: bool) {
        let since = self.now.saturating_sub(self.budget_at);
        let earned = since.saturating_mul(ANSWERS_PER_SECOND) / SECOND;
        if earned > 0 {
            self.budget = (self.budget.saturating_add(earned)).min(ANSWERS_PER_SECOND);
            self.budget_at = self.now;
        }
        if self.budget == 0 {
            self.lose_answer();
            return;
        }
        self.budget -= 1;
        match dns::read(message) {
            Ok(answer) => {
                self.counts.answers += 1;
                self.learn(Some(client), &answer);
            }
            Err(_) if cut => self.lose_answer(),
            Err(_) => self.counts.answers_unread += 1,
        }
    }

    /// Learns an answer. `client` is who asked; none for the daemon itself.
    pub fn learn(&mut self, client: Option<Address>, answer: &Answer) {
        if matches!(answer.kind, Kind::Other(_)) {
            // Whatever it says, it is not about addresses.
            return;
        }
        if let Some(public) = &answer.ech_public_name {
            if self.public_names.len() >= MAX_PUBLIC_NAMES {
                self.public_names.clear();
            }
            self.public_names
                .insert(answer.question.clone(), public.clone());
        }
        self.book.learn(self.now, client, answer);
        self.place_changed();
        for (address, _) in &answer.addresses {
            self.consider_server(Address::from(address.to_canonical()));
        }
    }

    /// Looks again at flows to an address that somebody said something about.
    fn consider_server(&mut self, server: Address) {
        let Some(keys) = self.by_server.get(&server) else {
            return;
        };
        let keys: Vec<FlowKey> = keys.iter().copied().collect();
        for key in keys {
            let worth = self.held.get_mut(&key).is_some_and(|held| {
                held.looks += 1;
                !held.may_come && held.looks <= MAX_LOOKS
            });
            if worth {
                self.consider(&key, false);
            }
        }
    }

    fn place_changed(&mut self) {
        let changed = self.book.take_changed();
        let addresses = if changed.overflowed {
            self.known_addresses()
        } else {
            changed.addresses
        };
        for address in addresses {
            self.place(address);
        }
    }

    fn place(&mut self, address: Address) {
        let patterns = self.book.patterns_of(&address, self.now);
        let class = if patterns.is_empty() {
            None
        } else {
            let end = NamedEnd {
                class: self.matrix.address_class(&address),
                patterns: &patterns,
            };
            self.matrix.class_for(end, &mut self.out.rules)
        };
        let full = self.placed.len() >= MAX_PLACED && !self.placed.contains_key(&address);
        let before = self.placed.get(&address).copied();
        let class = class.filter(|_| !full);
        if class == before {
            return;
        }
        match class {
            Some(class) => self.placed.insert(address, class),
            None => self.placed.remove(&address),
        };
        self.out.addresses.push((address, class));
    }

    /// Whether [`Self::advance_time`] may have something to do at `now`, or [`Self::take`] something to tell.
    #[inline]
    #[must_use]
    pub fn is_due(&self, now: u64) -> bool {
        self.now.max(now) >= self.upkeep_at
            || self.has_rulings()
            || self
                .deadlines
                .front()
                .is_some_and(|(deadline, _, _)| *deadline <= self.now.max(now))
    }

    /// Lets time pass: forgets what is too old, and rules on flows that have waited long enough.
    pub fn advance_time(&mut self, now: u64) {
        self.now = self.now.max(now);
        if self.now >= self.upkeep_at {
            self.upkeep_at = self.now.saturating_add(UPKEEP);
            self.book.expire(self.now);
            self.place_changed();
        }
        // Those that wait on get a new deadline, and not at once if flows are to wait no time at all.
        let mut wait_on = Vec::new();
        while let Some((deadline, key, ticket)) = self.deadlines.front().copied() {
            if deadline > self.now {
                break;
            }
            self.deadlines.pop_front();
            let is_due = |held: &Held| held.ticket == ticket;
            if !self.held.get(&key).is_some_and(is_due) {
                continue;
            }
            self.consider(&key, true);
            if let Some(held) = self.held.get(&key) {
                let silence = self.settings.hold.saturating_add(GONE);
                if self.sweeps && self.now.saturating_sub(held.alive) > silence {
                    // Pushed out of the kernel's table, which nobody told.
                    self.forget(&key);
                } else {
                    wait_on.push((key, ticket));
                }
            }
        }
        for (key, ticket) in wait_on {
            self.set_deadline(&key, ticket, self.settings.hold.max(UPKEEP));
        }
    }

    /// Rules on every flow that waits, since nothing more will come.
    pub fn finish(&mut self) {
        let waiting: Vec<FlowKey> = self.held.keys().copied().collect();
        for key in waiting {
            self.consider(&key, true);
        }
    }

    /// When [`Self::advance_time`] has something to do next, nanoseconds.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.front().map(|(deadline, ..)| *deadline)
    }

    /// Says how many payloads the back end has lost so far; the first time what was lost before anybody read them.
    pub fn set_losses(&mut self, losses: u64) {
        let before = self.payloads_lost.replace(losses);
        if before.is_some_and(|before| losses > before) {
            self.lose();
        }
    }

    fn consider(&mut self, key: &FlowKey, last: bool) {
        let Some(held) = self.held.get(key) else {
            return;
        };
        let case = Case {
            key,
            initiator: held.initiator,
            begun: held.begun,
            hello: held.hello.as_ref(),
            may_come: held.may_come,
            last,
        };
        let mut sources = Sources {
            book: &mut self.book,
            matrix: &mut self.matrix,
            public_names: &self.public_names,
            now: self.now,
        };
        let Some(found) = decide(&case, &mut sources) else {
            return;
        };
        // A name that the initiator wrote is what it is. What DNS says, or that it says nothing, is worth less where
        // the head or an answer was missed.
        let contradicted = found
            .mismatch
            .as_ref()
            .is_some_and(|mismatch| mismatch.contradicted);
        let written = !matches!(found.source, NameSource::Dns | NameSource::None);
        if found.slot < FIRST_RULE_SLOT && (!written || contradicted) {
            if held.midway {
                // It waits on for DNS; that it is unexpected nobody can say.
                return;
            }
            if self.may_have_lost(held.begun) {
                self.forget(key);
                self.out.flows.push((*key, Ruling::GiveUp));
                return;
            }
        }
        self.rule(key, found);
    }

    fn rule(&mut self, key: &FlowKey, found: FlowName) {
        let Some(held) = self.forget(key) else {
            return;
        };
        let source = NameSource::ALL
            .iter()
            .position(|source| *source == found.source);
        if let Some(count) = source.and_then(|index| self.counts.named.get_mut(index)) {
            *count += 1;
        }
        self.counts.mismatches += u64::from(found.mismatch.is_some());
        self.out.flows.push((*key, Ruling::Slot(found.slot)));
        let mut passed_over = 0;
        while self.named_order.len() >= MAX_NAMED {
            let Some((old, first_seen)) = self.named_order.pop_front() else {
                break;
            };
            let live = self.live.get(&old);
            if live.is_some_and(|(live, _)| *live == first_seen) {
                if passed_over < PASSED_OVER {
                    // It is to be judged anew when the matrix changes.
                    passed_over += 1;
                    self.named_order.push_back((old, first_seen));
                    continue;
                }
                self.live.remove(&old);
            }
            self.named.remove(&(old, first_seen));
        }
        let id = (*key, held.first_seen);
        if self.named.insert(id, Arc::new(found)).is_none() {
            self.named_order.push_back(id);
        }
        self.live.insert(*key, (held.first_seen, held.initiator));
    }

    /// What a flow was judged by, if it waited for its name; kept for a while after its end.
    #[must_use]
    pub fn flow_name(&self, key: &FlowKey, record: &FlowRecord) -> Option<&Arc<FlowName>> {
        self.named.get(&(*key, record.first_seen))
    }

    /// The roles of an address under one of its names: those of its prefix, and those that the name has.
    #[must_use]
    pub fn roles_under(&self, address: &Address, name: &str) -> Vec<BoundRole> {
        let patterns = self.book.patterns_of_name(name);
        self.matrix.roles_by_names(NamedEnd {
            class: self.matrix.address_class(address),
            patterns: &patterns,
        })
    }

    /// The names that an address stands for by DNS, newest first, at most `limit`.
    #[must_use]
    pub fn names_of(&self, address: &Address, limit: usize) -> Vec<Name> {
        let mut names: Vec<Name> = Vec::new();
        for told in self.book.names_of(address, self.now) {
            if names.len() >= limit {
                break;
            }
            if !names.contains(&told.name) {
                names.push(told.name);
            }
        }
        names
    }

    /// What resolvers said of each name and pattern of the matrix, by its number. A wildcard resolves if any name that it
    /// matches did; of a name the last word counts.
    #[must_use]
    pub fn resolutions(&self) -> Vec<Resolution> {
        (0..)
            .zip(&self.matrix.compiled.names)
            .map(|(number, name)| {
                let status = self.book.status(number);
                let failed = status.failed.map(|negative| negative.when);
                match (status.resolved, failed) {
                    (None, None) => Resolution::Never,
                    (None, Some(_)) => Resolution::Failing,
                    (Some(resolved), Some(failed))
                        if failed > resolved && !name.pattern.is_wildcard() =>
                    {
                        Resolution::Failing
                    }
                    (Some(_), _) => Resolution::Resolved,
                }
            })
            .collect()
    }

    /// The book of names.
    #[must_use]
    pub const fn book(&self) -> &NameBook {
        &self.book
    }

    /// What has been done and left undone.
    #[must_use]
    pub fn counts(&self) -> NamerCounts {
        NamerCounts {
            waiting: self.held.len() as u64,
            placed: self.placed.len() as u64,
            ..self.counts
        }
    }

    /// What is worth keeping over a restart.
    #[must_use]
    pub fn export(&self) -> Vec<Remembered> {
        self.book.export(self.now)
    }

    /// Takes up what was kept over a restart; `now` is the time of the back end's clock.
    pub fn restore(&mut self, now: u64, remembered: Vec<Remembered>) {
        self.now = self.now.max(now);
        self.book.restore(self.now, remembered);
        self.place_changed();
    }
}

/// The matrix in force with what names add to it.
#[derive(Clone, Copy, Debug)]
pub struct NamedTables<'a> {
    matrix: &'a Installed,
    placed: &'a HashMap<Address, u32, foldhash::fast::RandomState>,
}

impl Tables for NamedTables<'_> {
    fn address_class(&self, address: &Address) -> u32 {
        if !self.placed.is_empty()
            && let Some(class) = self.placed.get(address)
        {
            return *class;
        }
        self.matrix.address_class(address)
    }

    fn port_class(&self, port: u16) -> u16 {
        self.matrix.port_class(port)
    }

    fn rule(&self, from: u32, to: u32, protocol: u8, port_class: u16) -> Option<u32> {
        self.matrix.rule(from, to, protocol, port_class)
    }

    fn has_names(&self) -> bool {
        self.matrix.has_names()
    }
}

#[cfg(test)]
mod tests;
