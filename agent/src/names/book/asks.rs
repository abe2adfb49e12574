//! Who was told what: one entry for each (client, name, address). It explains a flow by what its own client knew, which
//! what everybody was told cannot: resolvers give each client other addresses.
//!
//! Entries about names that the matrix needs and entries about others have half of the room each, so that a flood of
//! random names cannot wash out the evidence that verdicts rest on.

use std::collections::{BTreeMap, BTreeSet};

use flowproof_common::address::Address;

use super::super::answer::Name;

/// An address in a form that has an order.
type Bytes = [u8; 16];

#[derive(Debug)]
pub(super) struct Ask {
    pub(super) client: Address,
    pub(super) name: Name,
    pub(super) address: Address,
    /// When the client was last told, nanoseconds.
    pub(super) when: u64,
    /// When what it was told stops to hold, nanoseconds.
    pub(super) expires: u64,
    /// Whether the matrix needed the name when the client was told.
    pub(super) needed: bool,
}

/// All entries. An entry is known by its tick, a count of tellings, so the order of ticks is the order of time.
#[derive(Debug)]
pub(super) struct Asks {
    /// Most entries of either kind.
    room: usize,
    last_tick: u64,
    asks: BTreeMap<u64, Ask>,
    /// Ticks of entries about other names and about needed ones.
    kinds: [BTreeSet<u64>; 2],
    by_name: BTreeMap<(Bytes, Name, Bytes), u64>,
    by_address: BTreeSet<(Bytes, Bytes, u64)>,
    evicted: u64,
}

impl Asks {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            room: limit / 2,
            last_tick: 0,
            asks: BTreeMap::new(),
            kinds: [BTreeSet::new(), BTreeSet::new()],
            by_name: BTreeMap::new(),
            by_address: BTreeSet::new(),
            evicted: 0,
        }
    }

    /// Keeps what a client was told. What it was told before about the same name and address is extended.
    pub(super) fn tell(&mut self, mut ask: Ask) {
        let known = (
            ask.client.bytes(),
            Name::clone(&ask.name),
            ask.address.bytes(),
        );
        let at = self.by_name.get(&known).copied();
        if let Some(before) = at.and_then(|tick| self.remove(tick)) {
            ask.expires = ask.expires.max(before.expires);
            ask.when = ask.when.max(before.when);
        }
        self.last_tick += 1;
        let (tick, kind) = (self.last_tick, usize::from(ask.needed));
        self.by_address.insert((known.0, known.2, tick));
        self.by_name.insert(known, tick);
        self.kinds[kind].insert(tick);
        self.asks.insert(tick, ask);
        while self.kinds[kind].len() > self.room
            && let Some(oldest) = self.kinds[kind].first().copied()
        {
            self.remove(oldest);
            self.evicted += 1;
        }
    }

    fn remove(&mut self, tick: u64) -> Option<Ask> {
        let ask = self.asks.remove(&tick)?;
        let (client, address) = (ask.client.bytes(), ask.address.bytes());
        self.kinds[usize::from(ask.needed)].remove(&tick);
        self.by_name
            .remove(&(client, Name::clone(&ask.name), address));
        self.by_address.remove(&(client, address, tick));
        Some(ask)
    }

    /// Forgets what was told before `horizon`, nanoseconds.
    pub(super) fn forget(&mut self, horizon: u64) {
        while let Some((tick, oldest)) = self.asks.first_key_value()
            && oldest.when < horizon
        {
            self.remove(*tick);
        }
    }

    /// What a client was told about an address, the latest first.
    pub(super) fn about_address(
        &self,
        client: &Address,
        address: &Address,
    ) -> impl Iterator<Item = &Ask> {
        let (client, address) = (client.bytes(), address.bytes());
        self.by_address
            .range((client, address, 0)..=(client, address, u64::MAX))
            .rev()
            .filter_map(|(_, _, tick)| self.asks.get(tick))
    }

    /// What a client was told about a name, in no order, each with its tick.
    pub(super) fn about_name(
        &self,
        client: &Address,
        name: &str,
    ) -> impl Iterator<Item = (u64, &Ask)> {
        let (client, name) = (client.bytes(), Name::from(name));
        self.by_name
            .range((client, Name::clone(&name), [0; 16])..=(client, name, [u8::MAX; 16]))
            .filter_map(|(_, tick)| Some((*tick, self.asks.get(tick)?)))
    }

    pub(super) fn len(&self) -> usize {
        self.asks.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
impl Asks {
    /// Every index says the same, and either kind is within its room.
    pub(super) fn assert_consistent(&self) {
        assert_eq!(self.by_name.len(), self.asks.len());
        assert_eq!(self.by_address.len(), self.asks.len());
        assert_eq!(self.kinds[0].len() + self.kinds[1].len(), self.asks.len());
        assert!(self.kinds.iter().all(|kind| kind.len() <= self.room));
        for (tick, ask) in &self.asks {
            let (client, address) = (ask.client.bytes(), ask.address.bytes());
            let name = Name::clone(&ask.name);
            assert_eq!(self.by_name.get(&(client, name, address)), Some(tick));
            assert!(self.by_address.contains(&(client, address, *tick)));
            assert!(self.kinds[usize::from(ask.needed)].contains(tick));
        }
    }
}
