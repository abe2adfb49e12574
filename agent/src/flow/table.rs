//! The user-space twin of the kernel program: every packet finds its flow, moves its state, is counted for
//! its counter slot, and leaves an event only if it changed what is known.
//!
//! *Verified* flows are expected and answered; all others are *unverified* and have a limit of their own, so
//! that a flood of lone SYNs pushes out other unverified flows and never a verified one. Both kinds lie in
//! one store, so that any packet costs one look-up.

use flowproof_common::address::Address;
use flowproof_common::classify::{FIRST_RULE_SLOT, Tables, UNSCOPED_SLOT, Verdict, judge, slot_of};
use flowproof_common::key::{FlowKey, Side};
use flowproof_common::packet::{Fragment, Packet};
use flowproof_common::payload::{DNS_PORT, Wanted, wanted};
use flowproof_common::plain::Plain;
use flowproof_common::protocol;
use flowproof_common::record::{
    ATTACH_GRACE, DROP_POINT, Event, EventKind, FlowRecord, Settings, SlotFlows, SlotTraffic,
    TAKEOVER_AFTER, index,
};
use flowproof_common::state::{DECIDE_AFTER, Outcome, State, icmp_error_outcome};
use flowproof_common::ticks::Ticks;

use super::fragments::Fragments;
use super::store::{Hash, Place, Store};

/// How many flows and fragmented datagrams are kept at the most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Verified flows; at least 1, at most 2^30.
    pub verified: u32,
    /// Unverified flows; at least 1, at most 2^30.
    pub unverified: u32,
    /// Datagrams whose first fragment is remembered.
    pub fragments: u32,
}

impl Default for Limits {
    /// About 160 MB when full.
    fn default() -> Self {
        Self {
            verified: 1 << 19,
            unverified: 1 << 19,
            fragments: 1 << 14,
        }
    }
}

/// The exact times of a flow's first and last packet, nanoseconds of the back end's clock; the record keeps
/// ticks only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// First packet.
    pub first: u64,
    /// Last packet.
    pub last: u64,
}

/// The exact times of a flow, nanoseconds of the back end's clock.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Moments {
    /// First packet.
    pub first: u64,
    /// Last packet.
    pub last: u64,
    /// When its outcome was decided last; 0 if it never was.
    pub decided: u64,
}

impl Moments {
    /// From the first packet to the last.
    #[must_use]
    pub const fn span(&self) -> Span {
        Span {
            first: self.first,
            last: self.last,
        }
    }
}

/// A plain packet as a capture point saw it, see [`FlowTable::pass`].
#[derive(Clone, Copy, Debug)]
pub struct PlainSight<'a> {
    /// What was read of it.
    pub packet: &'a Plain,
    /// As in [`Sight`].
    pub bytes: u32,
    /// As in [`Sight`].
    pub point: u16,
    /// As in [`Sight`].
    pub time: u64,
}

/// What was found out about a packet ahead of its turn. What other packets do until then does not make it wrong: it is
/// looked at again.
#[derive(Clone, Copy, Default)]
pub struct Prepared {
    hash: Hash,
    place: Option<Place>,
}

/// A packet as a capture point saw it.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The parsed packet.
    pub packet: &'a Packet,
    /// If it is an ICMP error: the packet that it quotes, if that could be read.
    pub quoted: Option<&'a Packet>,
    /// Length of the frame on the wire, bytes.
    pub bytes: u32,
    /// The capture point, see [`flowproof_common::record::point`]; never 0.
    pub point: u16,
    /// When, nanoseconds.
    pub time: u64,
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Treatment {
    /// Counted for a flow, and whether its payload is wanted.
    Counted(Wanted),
    /// Already counted at another capture point.
    Duplicate,
    /// An ICMP error, taken as news about the flow that it quotes.
    AboutAnother,
    /// Upkeep of the link: not judged.
    LinkUpkeep,
    /// A later fragment whose first was not seen: counted for no flow.
    Orphan,
}

/// A flow in the table.
#[derive(Clone, Copy, Debug)]
pub struct FlowView<'a> {
    /// Its key.
    pub key: &'a FlowKey,
    /// Its record.
    pub record: &'a FlowRecord,
    /// Its exact times.
    pub moments: Moments,
}

/// The table, its counters and its notion of time.
pub struct FlowTable {
    store: Store,
    fragments: Fragments,
    limits: Limits,
    generation: u32,
    flags: u32,
    attached_at: u64,
    now: u64,
    traffic: Vec<SlotTraffic>,
    flows: Vec<SlotFlows>,
    evictions: u64,
    orphans: u64,
    promotions_failed: u64,
    names_unknown: u64,
}

/// What an ICMP error adds to an event.
struct Error<'a> {
    hop: Address,
    packet: &'a Packet,
}

impl FlowTable {
    /// An empty table of matrix generation 0.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            store: Store::new(),
            fragments: Fragments::new(limits.fragments as usize),
            limits: Limits {
                verified: limits.verified.clamp(1, 1 << 30),
                unverified: limits.unverified.clamp(1, 1 << 30),
                ..limits
            },
            generation: 0,
            flags: 0,
            attached_at: 0,
            now: 0,
            traffic: Vec::new(),
            flows: Vec::new(),
            evictions: 0,
            orphans: 0,
            promotions_failed: 0,
            names_unknown: 0,
        }
    }

    /// Says that the tables passed from now on are another matrix': known flows are judged anew when their
    /// next packet comes.
    pub fn begin_generation(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// Says which payloads are wanted: flags of [`flowproof_common::record::Settings`].
    pub fn want(&mut self, flags: u32) {
        self.flags = flags;
    }

    /// Says that a capture begins at `time`: for [`ATTACH_GRACE`] a conversation may be one whose request
    /// went by unseen.
    pub fn attached(&mut self, time: u64) {
        self.attached_at = time;
    }

    /// The first step ahead of [`Self::pass`]: hashes the flow's key. All are taken for a number of packets together, so that
    /// the machine fetches what it needs for all of them at once in place of one after the other.
    #[inline]
    #[must_use]
    pub fn prepare(&self, key: &FlowKey) -> Prepared {
        Prepared {
            hash: self.store.hash(key),
            place: None,
        }
    }

    /// The second step: has what [`Self::locate`] looks at fetched.
    #[inline]
    pub fn fetch_index(&self, prepared: impl Iterator<Item = Prepared>) {
        self.store
            .fetch_index(prepared.map(|prepared| prepared.hash));
    }

    /// The third step: finds where the flow most likely is.
    #[inline]
    pub fn locate(&self, prepared: &mut Prepared) {
        prepared.place = self.store.likely(prepared.hash);
    }

    /// The last step: has the flows fetched.
    #[inline]
    pub fn fetch(&self, prepared: impl Iterator<Item = Prepared>) {
        self.store
            .fetch(prepared.filter_map(|prepared| prepared.place));
    }

    /// Counts a plain packet of a flow at rest, which is all there is to do about it: the twin of the kernel's hot path.
    /// False if it is anything else and has to go to [`Self::on_packet`]; nothing has happened then.
    #[inline]
    pub fn pass(&mut self, prepared: Prepared, sight: &PlainSight<'_>) -> bool {
        let Some(place) = prepared.place else {
            return false;
        };
        let now = self.now.max(sight.time);
        let ticks = Ticks::from_nanos(now);
        let packet = sight.packet;
        let Some(entry) = self.store.get_if(place, &packet.key) else {
            return false;
        };
        let record = &mut entry.record;
        let side = index(packet.sender);
        let owner = record.points[side];
        if owner != sight.point {
            // See `FlowRecord::owns`: counted where it was seen first, unless that point has gone silent.
            let taken = owner != 0
                && owner != DROP_POINT
                && ticks.nanos_since(record.last_seen[side]) < TAKEOVER_AFTER;
            if taken {
                self.now = now;
            }
            return taken;
        }
        let from_initiator = packet.sender == record.state.initiator();
        if !record.state.is_at_rest(
            packet.key.protocol,
            packet.tcp_flags,
            from_initiator,
            self.generation,
        ) || (self.flags & Settings::WANTS_DNS != 0 && packet.has_port(DNS_PORT))
        {
            return false;
        }
        self.now = now;
        let bytes = u64::from(sight.bytes);
        record.packets[side] += 1;
        record.bytes[side] += bytes;
        record.last_seen[side] = ticks;
        entry.moments.first = entry.moments.first.min(sight.time);
        entry.moments.last = entry.moments.last.max(sight.time);
        let direction = usize::from(!from_initiator);
        let traffic = slot(&mut self.traffic, record.slot);
        traffic.packets[direction] += 1;
        traffic.bytes[direction] += bytes;
        traffic.last_seen = now;
        self.store.touch(place, now);
        true
    }

    /// Judges a packet. `sink` gets every state change, with the flow's exact times.
    ///
    /// [`Self::advance_time`] is to be called with the packet's time before, so that flows whose time came
    /// earlier are decided earlier. Packets whose time is before the table's are taken as of now.
    pub fn on_packet(
        &mut self,
        tables: &impl Tables,
        sight: &Sight<'_>,
        sink: &mut impl FnMut(&Event, Moments),
    ) -> Treatment {
        self.on_prepared(tables, sight, None, sink)
    }

    /// The same, with what [`Self::prepare`] said of the packet's key, if it was asked.
    pub fn on_prepared(
        &mut self,
        tables: &impl Tables,
        sight: &Sight<'_>,
        prepared: Option<Prepared>,
        sink: &mut impl FnMut(&Event, Moments),
    ) -> Treatment {
        self.now = self.now.max(sight.time);
        let completed;
        let mut sight = *sight;
        match sight.packet.fragment {
            Fragment::None => {}
            Fragment::First => self.fragments.remember(sight.packet, self.now),
            Fragment::Later => {
                let Some(packet) = self.fragments.complete(sight.packet, self.now) else {
                    self.orphans += 1;
                    return Treatment::Orphan;
                };
                completed = packet;
                sight.packet = &completed;
            }
        }
        if protocol::is_link_upkeep(sight.packet.protocol, sight.packet.icmp_type) {
            return Treatment::LinkUpkeep;
        }
        if sight.packet.is_icmp_error()
            && let Some(quoted) = sight.quoted
            && self.on_icmp_error(sight.packet, quoted, sink)
        {
            return Treatment::AboutAnother;
        }
        let (key, sender) = FlowKey::of(sight.packet);
        let hash = match prepared {
            Some(prepared) if sight.packet.fragment == Fragment::None => prepared.hash,
            Some(_) | None => self.store.hash(&key),
        };
        match self.store.find_hashed(hash, &key) {
            // The rest of an error whose head was news about another flow.
            None if sight.packet.fragment == Fragment::Later && sight.packet.is_icmp_error() => {
                Treatment::AboutAnother
            }
            Some(place) => self.on_known(tables, place, &sight, sender, sink),
            None => Treatment::Counted(self.begin(tables, (hash, key), &sight, sender, sink)),
        }
    }

    #[inline]
    fn on_known(
        &mut self,
        tables: &impl Tables,
        place: Place,
        sight: &Sight<'_>,
        sender: Side,
        sink: &mut impl FnMut(&Event, Moments),
    ) -> Treatment {
        let now = self.now;
        let ticks = Ticks::from_nanos(now);
        let entry = self.store.get_mut(place);
        if !entry.record.owns(sender, sight.point, ticks) {
            return Treatment::Duplicate;
        }
        if entry.record.state.is_restarted_by(sight.packet) {
            let key = entry.key;
            self.end(place, sink);
            let hash = self.store.hash(&key);
            return Treatment::Counted(self.begin(tables, (hash, key), sight, sender, sink));
        }
        if !entry.record.state.is_of_generation(self.generation) {
            self.rejudge(tables, place, sink);
        }
        let before = self.apply(place, sight, sender);
        if self.store.get(place).record.state != before {
            self.moved(place, before, None, sink);
        }
        self.store.touch(place, now);
        Treatment::Counted(self.wanted(place, sight.packet, sender))
    }

    fn wanted(&self, place: Place, packet: &Packet, sender: Side) -> Wanted {
        let record = &self.store.get(place).record;
        wanted(self.flags, packet, record.state, sender, &record.packets)
    }

    fn begin(
        &mut self,
        tables: &impl Tables,
        (hash, key): (Hash, FlowKey),
        sight: &Sight<'_>,
        sender: Side,
        sink: &mut impl FnMut(&Event, Moments),
    ) -> Wanted {
        let now = self.now;
        let lately = now.saturating_sub(self.attached_at) < ATTACH_GRACE;
        let judgement = judge(tables, sight.packet, &key, sender, lately);
        self.make_room(sink);
        let ticks = Ticks::from_nanos(now);
        let state = State::new(&judgement, self.generation);
        let mut record = FlowRecord::new(state, judgement.slot, ticks);
        record.owns(sender, sight.point, ticks);
        let moments = Moments {
            first: sight.time,
            last: sight.time,
            decided: 0,
        };
        let place = self.store.insert(hash, key, record, moments, now);
        if !judgement.held {
            self.count_begun(judgement.slot);
        }
        let before = self.apply(place, sight, sender);
        self.emit(place, EventKind::Begun, None, sink);
        // This also sets the timer, whether the first packet moved the state or not.
        self.moved(place, before, None, sink);
        self.wanted(place, sight.packet, sender)
    }

    fn count_begun(&mut self, in_slot: u32) {
        self.count_begun_at(in_slot, self.now);
    }

    /// Counts a flow that began at `time`, which may be some time ago.
    fn count_begun_at(&mut self, in_slot: u32, time: u64) {
        let flows = slot(&mut self.flows, in_slot);
        flows.begun += 1;
        flows.last_attempt = flows.last_attempt.max(time);
    }

    /// Counts a packet and moves the state, whose former value is returned.
    #[inline]
    fn apply(&mut self, place: Place, sight: &Sight<'_>, sender: Side) -> State {
        let now = self.now;
        let entry = self.store.get_mut(place);
        let record = &mut entry.record;
        let side = index(sender);
        record.packets[side] += 1;
        record.bytes[side] += u64::from(sight.bytes);
        record.last_seen[side] = Ticks::from_nanos(now);
        entry.moments.first = entry.moments.first.min(sight.time);
        entry.moments.last = entry.moments.last.max(sight.time);
        let before = record.state;
        let after = before.after(sight.packet, sender);
        // A held flow's packets are counted when it is released.
        if !before.is_uncounted() {
            let direction = usize::from(sender != before.initiator());
            let traffic = slot(&mut self.traffic, record.slot);
            traffic.packets[direction] += 1;
            traffic.bytes[direction] += u64::from(sight.bytes);
            traffic.last_seen = now;
        }
        record.state = after;
        before
    }

    /// Counts and reports what a change of state decided.
    fn moved(
        &mut self,
        place: Place,
        before: State,
        error: Option<&Error<'_>>,
        sink: &mut impl FnMut(&Event, Moments),
    ) {
        let record = &self.store.get(place).record;
        if let Some(outcome) = record.state.decided_since(before) {
            let held = record.state.is_held();
            if !held {
                self.count_decided(record.slot, outcome);
            }
            self.emit(place, EventKind::Decided, error, sink);
            if !held {
                self.sort_in(place);
            }
        }
        let deadline = self.deadline(place);
        self.store.set_timer(place, deadline);
    }

    fn count_decided(&mut self, in_slot: u32, outcome: Outcome) {
        self.count_decided_at(in_slot, outcome, self.now);
    }

    fn count_decided_at(&mut self, in_slot: u32, outcome: Outcome, time: u64) {
        let flows = slot(&mut self.flows, in_slot);
        flows.decided[outcome as usize] += 1;
        if outcome.is_answer() {
            flows.last_answered = flows.last_answered.max(time);
        } else if outcome.is_failure() {
            flows.last_failed = flows.last_failed.max(time);
        }
    }

    /// Puts an answered and expected flow among the verified, if there is room.
    fn sort_in(&mut self, place: Place) {
        let entry = self.store.get(place);
        let state = entry.record.state;
        let verified = state.verdict() == Verdict::Expected && state.outcome().is_answer();
        if verified == entry.verified {
            return;
        }
        if verified && self.store.verified() >= self.limits.verified as usize {
            self.promotions_failed += 1;
            return;
        }
        self.store.set_verified(place, verified);
    }

    /// Judges a flow by the matrix in force. Who initiated stays: it was seen, or inferred when more was to
    /// be seen than now.
    fn rejudge(
        &mut self,
        tables: &impl Tables,
        place: Place,
        sink: &mut impl FnMut(&Event, Moments),
    ) {
        let entry = self.store.get_mut(place);
        let before = entry.record;
        if before.state.is_named() {
            // Only whoever knows its name can judge it.
            entry.record.state = before
                .state
                .rejudged(before.state.verdict(), self.generation);
            return;
        }
        let cover = slot_of(tables, &entry.key, before.state.initiator());
        let new_slot = cover.slot();
        let verdict = Verdict::of_slot(new_slot);
        entry.record.state = before.state.rejudged(verdict, self.generation);
        // A flow that no requirement covers any more may be one that a name allows.
        if cover.depends_on_name() && (before.state.is_held() || new_slot < FIRST_RULE_SLOT) {
            entry.record.state = entry.record.state.held(verdict);
            entry.record.slot = new_slot;
            if !before.state.is_held() {
                // Its name is to be looked for from now on.
                self.emit(place, EventKind::Rejudged, None, sink);
            }
            return;
        }
        if before.state.is_held() {
            self.release(place, new_slot, false, sink);
            return;
        }
        if new_slot == before.slot {
            return;
        }
        entry.record.slot = new_slot;
        self.count_begun(new_slot);
        if let Some(outcome) = before.state.decided() {
            self.count_decided(new_slot, outcome);
        }
        self.sort_in(place);
        self.emit(place, EventKind::Rejudged, None, sink);
    }

    /// Says that a flow is judged by its name, which puts it into `in_slot`. A flow that is not in the table any more has
    /// been counted already.
    pub fn name(&mut self, key: &FlowKey, in_slot: u32, sink: &mut impl FnMut(&Event, Moments)) {
        let Some(place) = self.store.find(key) else {
            return;
        };
        let state = self.store.get(place).record.state;
        // Else it is a later flow between the same ends, which the tables alone have judged.
        if state.is_held() || state.is_named() {
            self.release(place, in_slot, true, sink);
        }
    }

    /// Says that what a held flow's name is read from was lost: it is neither expected nor unexpected.
    pub fn give_up(&mut self, key: &FlowKey, sink: &mut impl FnMut(&Event, Moments)) {
        if let Some(place) = self.store.find(key)
            && self.store.get(place).record.state.is_held()
        {
            self.names_unknown += 1;
            self.release(place, UNSCOPED_SLOT, false, sink);
        }
    }

    /// Counts a flow that was held for `in_slot`, with everything that went before, and lets it go on as any other;
    /// `by_name` if its name tells the slot and not the tables. A flow that is not held any more is moved to the slot.
    fn release(
        &mut self,
        place: Place,
        in_slot: u32,
        by_name: bool,
        sink: &mut impl FnMut(&Event, Moments),
    ) {
        let record = &mut self.store.get_mut(place).record;
        let (before, old) = (record.state, record.slot);
        record.slot = in_slot;
        let verdict = Verdict::of_slot(in_slot);
        record.state = if by_name {
            before.named(verdict)
        } else {
            before.released(verdict)
        };
        let record = *record;
        if before.is_held() {
            self.count_held(&record, before);
            self.emit(place, EventKind::Named, None, sink);
            if before.decided().is_some() {
                self.emit(place, EventKind::Decided, None, sink);
            }
        } else if in_slot != old {
            self.count_begun(in_slot);
            self.emit(place, EventKind::Rejudged, None, sink);
            if let Some(outcome) = before.decided() {
                self.count_decided(in_slot, outcome);
            }
        } else {
            return;
        }
        self.sort_in(place);
        let deadline = self.deadline(place);
        self.store.set_timer(place, deadline);
    }

    /// Counts a flow that was held, in state `before`, for its slot, with everything that went before and as of then.
    fn count_held(&mut self, record: &FlowRecord, before: State) {
        let times = record.times(Ticks::from_nanos(self.now));
        let last = self.now.saturating_sub(times.since_last);
        if before.is_uncounted() {
            self.count_all(record, last);
        }
        self.count_begun_at(record.slot, self.now.saturating_sub(times.since_first));
        if let Some(outcome) = before.decided() {
            self.count_decided_at(record.slot, outcome, last);
        }
    }

    /// Puts all packets of a flow, the last of which came at `last`, down to its slot.
    fn count_all(&mut self, record: &FlowRecord, last: u64) {
        let initiator = index(record.state.initiator());
        let traffic = slot(&mut self.traffic, record.slot);
        for (direction, side) in [initiator, 1 - initiator].into_iter().enumerate() {
            traffic.packets[direction] += record.packets[side];
            traffic.bytes[direction] += record.bytes[side];
        }
        traffic.last_seen = traffic.last_seen.max(last);
    }

    /// Takes an ICMP error as news about the flow that it quotes; `false` if that flow is not known.
    fn on_icmp_error(
        &mut self,
        packet: &Packet,
        quoted: &Packet,
        sink: &mut impl FnMut(&Event, Moments),
    ) -> bool {
        let completed;
        let mut quoted = quoted;
        if quoted.fragment == Fragment::Later {
            match self.fragments.complete(quoted, self.now) {
                Some(found) => {
                    completed = found;
                    quoted = &completed;
                }
                None => return false,
            }
        }
        let (key, sender) = FlowKey::of(quoted);
        let Some(place) = self.store.find(&key) else {
            return false;
        };
        let error = Error {
            hop: packet.source,
            packet,
        };
        let entry = self.store.get_mut(place);
        let before = entry.record.state;
        let after = before.after_icmp_error(packet, sender);
        if after != before {
            entry.record.state = after;
            self.moved(place, before, Some(&error), sink);
        } else if icmp_error_outcome(packet) != Some(before.outcome()) {
            // The same news again, from a second capture point or about the next datagram, is none.
            self.emit(place, EventKind::IcmpError, Some(&error), sink);
        }
        true
    }

    /// Decides and ends flows whose time has come by `now`, nanoseconds. Costs what there is to do, not the
    /// size of the table; a decision comes at most 250 ms after its time if this is called that often.
    pub fn advance_time(&mut self, now: u64, sink: &mut impl FnMut(&Event, Moments)) {
        self.now = self.now.max(now);
        while let Some(place) = self.store.take_due(self.now) {
            self.on_timer(place, sink);
        }
    }

    /// Whether [`Self::advance_time`] may have something to do at `now`.
    #[inline]
    #[must_use]
    pub fn is_due(&self, now: u64) -> bool {
        self.store.may_be_due(self.now.max(now))
    }

    fn on_timer(&mut self, place: Place, sink: &mut impl FnMut(&Event, Moments)) {
        let entry = self.store.get(place);
        let protocol = entry.key.protocol;
        let before = entry.record.state;
        let times = entry.record.times(Ticks::from_nanos(self.now));
        let owed = self.answer_owed(&entry.key, &entry.record);
        let after = before.after_silence(protocol, &times, owed);
        if after != before {
            self.store.get_mut(place).record.state = after;
            self.moved(place, before, None, sink);
        }
        if after.is_expired(protocol, &times) {
            self.end(place, sink);
        } else {
            let deadline = self.deadline(place);
            self.store.set_timer(place, deadline);
        }
    }

    /// Whether silence is a failure: the service's protocol has the responder answer, or it has answered
    /// others before.
    fn answer_owed(&self, key: &FlowKey, record: &FlowRecord) -> bool {
        let responder = record.state.initiator().other();
        (key.protocol == protocol::UDP && protocol::udp_service_answers(key.service(responder)))
            || (record.slot >= FIRST_RULE_SLOT
                && self
                    .flows
                    .get(record.slot as usize)
                    .is_some_and(|flows| flows.decided[Outcome::Answered as usize] > 0))
    }

    /// When the flow is to be looked at again if no packet comes, nanoseconds.
    fn deadline(&self, place: Place) -> u64 {
        let entry = self.store.get(place);
        let state = entry.record.state;
        let protocol = entry.key.protocol;
        let times = entry.record.times(Ticks::from_nanos(self.now));
        // Times come from capture files, which may say anything.
        let expiry = self
            .now
            .saturating_add(state.lifetime(protocol).saturating_sub(times.since_last));
        if state.outcome() != Outcome::Pending {
            return expiry;
        }
        if times.since_first < DECIDE_AFTER {
            return expiry.min(self.now.saturating_add(DECIDE_AFTER - times.since_first));
        }
        // A SYN repeated late makes a flow decidable that was not.
        if state.after_silence(protocol, &times, true) == state {
            expiry
        } else {
            self.now
        }
    }

    fn make_room(&mut self, sink: &mut impl FnMut(&Event, Moments)) {
        while self.store.unverified() >= self.limits.unverified as usize {
            let Some(place) = self.store.longest_idle() else {
                return;
            };
            self.evictions += 1;
            self.end(place, sink);
        }
    }

    fn end(&mut self, place: Place, sink: &mut impl FnMut(&Event, Moments)) {
        let record = self.store.get(place).record;
        let mut counts = true;
        if record.state.is_held() {
            if record.slot >= FIRST_RULE_SLOT {
                // The guess is that it is expected: a resolver said so.
                self.release(place, record.slot, false, sink);
            } else {
                // Whether it was unexpected nobody can tell.
                self.names_unknown += 1;
                counts = false;
            }
        }
        if counts && record.state.outcome() == Outcome::Pending {
            self.count_decided(record.slot, Outcome::Pending);
        }
        self.emit(place, EventKind::Ended, None, sink);
        self.store.remove(place);
    }

    fn emit(
        &mut self,
        place: Place,
        kind: EventKind,
        error: Option<&Error<'_>>,
        sink: &mut impl FnMut(&Event, Moments),
    ) {
        let now = self.now;
        let entry = self.store.get_mut(place);
        if kind == EventKind::Decided {
            entry.moments.decided = now;
        }
        let mut event = Event {
            key: entry.key,
            record: entry.record,
            time: now,
            kind: kind as u8,
            ..Event::default()
        };
        if let Some(error) = error {
            event.hop = error.hop;
            event.icmp_type = error.packet.icmp_type;
            event.icmp_code = error.packet.icmp_code;
            event.has_icmp = 1;
        }
        sink(&event, entry.moments);
    }

    /// The flows in the table, in no order.
    pub fn flows(&self) -> impl Iterator<Item = FlowView<'_>> {
        self.store.iter().map(|entry| FlowView {
            key: &entry.key,
            record: &entry.record,
            moments: entry.moments,
        })
    }

    /// Traffic by counter slot; slots beyond the end had none.
    #[must_use]
    pub fn slot_traffic(&self) -> &[SlotTraffic] {
        &self.traffic
    }

    /// Flows by counter slot; slots beyond the end had none.
    #[must_use]
    pub fn slot_flows(&self) -> &[SlotFlows] {
        &self.flows
    }

    /// Verified flows in the table, and how many it has room for.
    #[must_use]
    pub fn verified(&self) -> (usize, u32) {
        (self.store.verified(), self.limits.verified)
    }

    /// Unverified flows in the table, and how many it has room for.
    #[must_use]
    pub fn unverified(&self) -> (usize, u32) {
        (self.store.unverified(), self.limits.unverified)
    }

    /// Unverified flows that were pushed out for others.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Later fragments whose first was not seen.
    #[must_use]
    pub fn orphans(&self) -> u64 {
        self.orphans
    }

    /// Flows that stayed with the unverified because there was no room among the verified.
    #[must_use]
    pub fn promotions_failed(&self) -> u64 {
        self.promotions_failed
    }

    /// Flows whose name nobody could tell, though it matters.
    #[must_use]
    pub fn names_unknown(&self) -> u64 {
        self.names_unknown
    }
}

#[inline]
fn slot<T: Default + Copy>(slots: &mut Vec<T>, number: u32) -> &mut T {
    let number = number as usize;
    if number >= slots.len() {
        extend(slots, number);
    }
    &mut slots[number]
}

#[cold]
fn extend<T: Default + Copy>(slots: &mut Vec<T>, number: usize) {
    slots.resize(number + 1, T::default());
}

#[cfg(test)]
mod tests;
