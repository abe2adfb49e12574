//! Names, addresses and the links between them, in bounded room.
//!
//! A link says that a name was told to stand for an address. It is *current* until its TTL and grace are over, then it
//! is *past*: it proves nothing any more, but is kept for a while, because "this name stood for this address an hour
//! ago" explains a flow that would else look wrong.
//!
//! Room is divided into pools (see [`Pool`]), and a pool evicts only its own names, so that a flood of answers about
//! some names cannot push out others. Within a pool, names without a current link go first, then the least recently
//! used.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flowproof_common::address::Address;
use foldhash::HashMap;

use super::super::answer::Name;
use super::super::patterns::{PatternId, PatternIndex};
use super::changed::ChangedSet;
use super::{Limits, MAX_CHAIN};

/// Position of a name in the table; used again after the name is forgotten.
type NameId = usize;

/// Which room a name takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
enum Pool {
    /// Names that the matrix needs letter by letter. There are no more than it has, so they are never evicted.
    Exact,
    /// Names that match a wildcard, the most specific one if they match several: a flood of names under a wide
    /// wildcard leaves those under a narrow one alone.
    Wildcard(PatternId),
    /// Names that match nothing, but were seen to lead to a name that matches a pattern. Anybody can publish an alias
    /// to a needed name, so they do not share room with the needed names themselves.
    Leading(PatternId),
    /// All others.
    #[default]
    Other,
}

#[derive(Debug, Default)]
struct PoolState {
    /// Whether the name has a current link, and its tick: first those to go first.
    order: BTreeSet<(bool, u64, NameId)>,
    links: usize,
}

#[derive(Debug)]
struct Link {
    /// When the name was last told to stand for the address, nanoseconds.
    told: u64,
    /// TTL and grace are over, nanoseconds.
    expires: u64,
    current: bool,
    /// The time at which the link stands in [`Table::due`]: never later than it is due.
    scheduled: u64,
    /// Position of the name in [`Standing::names`].
    slot: usize,
}

#[derive(Debug, Default)]
struct Entry {
    name: Name,
    /// Patterns that the name itself matches, sorted.
    own: Arc<[PatternId]>,
    /// The next name in the chain, as last told by address records and by service records.
    next: [Option<Name>; 2],
    pool: Pool,
    /// Last use.
    tick: u64,
    /// How many links are current.
    current: usize,
    links: HashMap<Address, Link>,
}

/// What is known of an address.
#[derive(Debug, Default)]
struct Standing {
    names: Vec<NameId>,
    /// Patterns of all current links, sorted, and how many links have each. Aliases are linked themselves, so the
    /// patterns that a name leads to are here without counting them for the name.
    patterns: Vec<(PatternId, usize)>,
}

/// Which record type told of an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hop {
    /// CNAME, found with address records.
    Alias,
    /// HTTPS or SVCB, and CNAMEs found with them.
    Service,
}

/// What a name leads to, if to anything, as told by one record type.
pub(super) type Next<'a> = (Hop, Option<&'a Name>);

/// A link from outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) address: Address,
    pub(super) told: u64,
    pub(super) expires: u64,
}

/// A needed name, to be kept over a restart.
pub(super) struct Kept<'a> {
    pub(super) name: &'a Name,
    pub(super) next: &'a [Option<Name>; 2],
    pub(super) links: Vec<Told>,
}

pub(super) struct Table {
    limits: Limits,
    /// Nanoseconds that a past link is kept.
    history: u64,
    index: Arc<PatternIndex>,
    entries: Vec<Entry>,
    free: Vec<NameId>,
    by_name: HashMap<Name, NameId>,
    standings: HashMap<Address, Standing>,
    pools: HashMap<Pool, PoolState>,
    /// What happens to links, by time.
    due: BTreeSet<(u64, NameId, [u8; 16])>,
    last_tick: u64,
    pub(super) changed: ChangedSet,
    pub(super) evicted_needed: u64,
    pub(super) evicted_other: u64,
    pub(super) evicted_addresses: u64,
}

impl Table {
    pub(super) fn new(limits: Limits, history: u64) -> Self {
        Self {
            limits,
            history,
            index: Arc::default(),
            entries: Vec::new(),
            free: Vec::new(),
            by_name: HashMap::default(),
            standings: HashMap::default(),
            pools: HashMap::default(),
            due: BTreeSet::new(),
            last_tick: 0,
            changed: ChangedSet::new(limits.changed),
            evicted_needed: 0,
            evicted_other: 0,
            evicted_addresses: 0,
        }
    }

    pub(super) fn index(&self) -> &PatternIndex {
        &self.index
    }

    // --- learning ---

    /// Adds addresses to a name and says what the name leads to; the name counts as used.
    pub(super) fn learn(&mut self, now: u64, name: &Name, next: Next<'_>, links: &[Told]) {
        let id = self.find_or_add(name);
        self.detach(id);
        self.set_next(id, next);
        for link in links {
            self.link(now, id, *link);
        }
        self.trim(id);
        self.used(id);
        self.settle(id);
    }

    /// Says what a name leads to, if the name is known.
    pub(super) fn lead(&mut self, name: &str, next: Next<'_>) {
        if let Some(&id) = self.by_name.get(name) {
            self.detach(id);
            self.set_next(id, next);
            self.settle(id);
        }
    }

    fn set_next(&mut self, id: NameId, (hop, next): Next<'_>) {
        // The text of a known name is shared.
        let next = next.map(|next| {
            let known = self.by_name.get_key_value(next);
            Name::clone(known.map_or(next, |(known, _)| known))
        });
        let entry = &mut self.entries[id];
        match hop {
            Hop::Alias => entry.next[0] = next,
            Hop::Service => entry.next[1] = next,
        }
    }

    /// Counts a name as used.
    pub(super) fn touch(&mut self, name: &str) {
        if let Some(&id) = self.by_name.get(name) {
            self.detach(id);
            self.used(id);
            self.attach(id);
        }
    }

    fn find_or_add(&mut self, name: &Name) -> NameId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let entry = Entry {
            name: Name::clone(name),
            own: sorted(self.index.matches(name)).into(),
            ..Entry::default()
        };
        let id = if let Some(id) = self.free.pop() {
            self.entries[id] = entry;
            id
        } else {
            self.entries.push(entry);
            self.entries.len() - 1
        };
        self.by_name.insert(Name::clone(name), id);
        id
    }

    fn link(&mut self, now: u64, id: NameId, new: Told) {
        let entry = &mut self.entries[id];
        let standing = self.standings.entry(new.address).or_default();
        let link = entry.links.entry(new.address).or_insert_with(|| {
            standing.names.push(id);
            Link {
                told: new.told,
                expires: new.expires,
                current: false,
                scheduled: u64::MAX,
                slot: standing.names.len() - 1,
            }
        });
        link.told = link.told.max(new.told);
        link.expires = link.expires.max(new.expires);
        if link.current {
            return;
        }
        let bytes = new.address.bytes();
        self.due.remove(&(link.scheduled, id, bytes));
        link.current = link.expires > now;
        link.scheduled = if link.current {
            link.expires
        } else {
            link.expires.saturating_add(self.history)
        };
        self.due.insert((link.scheduled, id, bytes));
        if link.current {
            entry.current += 1;
            if count_up(standing, &entry.own) {
                self.changed.mark(new.address);
            }
        }
    }

    /// Keeps the addresses of a name that last longest.
    fn trim(&mut self, id: NameId) {
        let links = &self.entries[id].links;
        let excess = links.len().saturating_sub(self.limits.addresses_per_name);
        if excess == 0 {
            return;
        }
        let mut addresses: Vec<_> = links
            .iter()
            .map(|(address, link)| (link.expires, link.told, address.bytes()))
            .collect();
        addresses.sort_unstable();
        for (_, _, bytes) in addresses.into_iter().take(excess) {
            self.unlink(id, &Address::from_v6(bytes));
            self.evicted_addresses += 1;
        }
    }

    // --- forgetting ---

    /// Turns links past and forgets past ones, as they are due.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some(&(time, id, bytes)) = self.due.first()
            && time <= now
        {
            self.due.pop_first();
            self.detach(id);
            let address = Address::from_v6(bytes);
            if let Some(link) = self.entries[id].links.get_mut(&address) {
                if link.current {
                    let over = link.expires <= now;
                    link.scheduled = if over {
                        link.expires.saturating_add(self.history)
                    } else {
                        link.expires
                    };
                    self.due.insert((link.scheduled, id, bytes));
                    if over {
                        self.past(id, &address);
                    }
                } else {
                    self.unlink(id, &address);
                }
            }
            if self.entries[id].links.is_empty() {
                self.forget(id);
            } else {
                self.attach(id);
            }
        }
    }

    /// The end of a current link.
    fn past(&mut self, id: NameId, address: &Address) {
        let entry = &mut self.entries[id];
        let Some(link) = entry.links.get_mut(address) else {
            return;
        };
        if !std::mem::replace(&mut link.current, false) {
            return;
        }
        entry.current -= 1;
        if let Some(standing) = self.standings.get_mut(address)
            && count_down(standing, &entry.own)
        {
            self.changed.mark(*address);
        }
    }

    fn unlink(&mut self, id: NameId, address: &Address) {
        self.past(id, address);
        let Some(link) = self.entries[id].links.remove(address) else {
            return;
        };
        self.due.remove(&(link.scheduled, id, address.bytes()));
        let Some(standing) = self.standings.get_mut(address) else {
            return;
        };
        standing.names.swap_remove(link.slot);
        if let Some(moved) = standing.names.get(link.slot) {
            if let Some(link_of_moved) = self.entries[*moved].links.get_mut(address) {
                link_of_moved.slot = link.slot;
            }
        } else if standing.names.is_empty() {
            self.standings.remove(address);
        }
    }

    /// Removes a name and its links.
    fn forget(&mut self, id: NameId) {
        self.detach(id);
        let addresses: Vec<_> = self.entries[id].links.keys().copied().collect();
        for address in addresses {
            self.unlink(id, &address);
        }
        let entry = std::mem::take(&mut self.entries[id]);
        self.by_name.remove(&entry.name);
        self.free.push(id);
    }

    // --- pools ---

    fn used(&mut self, id: NameId) {
        self.last_tick += 1;
        self.entries[id].tick = self.last_tick;
    }

    /// Takes a name out of its pool, so that what decides its place there may change.
    fn detach(&mut self, id: NameId) {
        let entry = &self.entries[id];
        let key = (entry.current > 0, entry.tick, id);
        if let Some(state) = self.pools.get_mut(&entry.pool)
            && state.order.remove(&key)
        {
            state.links -= entry.links.len();
            if state.order.is_empty() {
                self.pools.remove(&entry.pool);
            }
        }
    }

    fn attach(&mut self, id: NameId) {
        let entry = &self.entries[id];
        let state = self.pools.entry(entry.pool).or_default();
        state.order.insert((entry.current > 0, entry.tick, id));
        state.links += entry.links.len();
    }

    /// Puts a name where it belongs, and makes room there.
    fn settle(&mut self, id: NameId) {
        let pool = self.pool_of(id);
        self.entries[id].pool = pool;
        self.attach(id);
        self.make_room(pool);
    }

    fn pool_of(&self, id: NameId) -> Pool {
        let entry = &self.entries[id];
        let wild = |id: &PatternId| self.index.get(*id).is_some_and(|found| found.is_wildcard());
        if entry.own.iter().any(|id| !wild(id)) {
            return Pool::Exact;
        }
        if let Some(pattern) = self.most_specific(&entry.own) {
            return Pool::Wildcard(pattern);
        }
        self.most_specific(&self.patterns_of_name(&entry.name))
            .map_or(Pool::Other, Pool::Leading)
    }

    /// The longest of some patterns; the same for every name that matches the same ones.
    fn most_specific(&self, patterns: &[PatternId]) -> Option<PatternId> {
        let length = |id: PatternId| self.index.get(id).map_or(0, |found| found.as_str().len());
        patterns
            .iter()
            .copied()
            .min_by_key(|id| (Reverse(length(*id)), *id))
    }

    /// Most names and most links of a pool.
    fn quota(&self, pool: Pool) -> (usize, usize) {
        let limits = &self.limits;
        let rest = limits.needed_names.saturating_sub(self.index.exact_names());
        // A quarter of the room is for names that lead to needed ones.
        let names = match pool {
            Pool::Exact => return (usize::MAX, usize::MAX),
            Pool::Wildcard(_) => (rest - rest / 4)
                .checked_div(self.index.wildcards())
                .unwrap_or(0)
                .min(limits.needed_per_wildcard),
            Pool::Leading(_) => (rest / 4)
                .checked_div(self.index.wildcards() + self.index.exact_names())
                .unwrap_or(0)
                .min(limits.needed_per_wildcard),
            Pool::Other => limits.other_names,
        };
        let links = names
            .saturating_mul(limits.mean_addresses_per_name)
            .max(limits.addresses_per_name);
        (names, links)
    }

    fn make_room(&mut self, pool: Pool) {
        let (names, links) = self.quota(pool);
        while let Some(state) = self.pools.get(&pool)
            && (state.order.len() > names || state.links > links)
            && let Some(&(_, _, first)) = state.order.first()
        {
            self.forget(first);
            if pool == Pool::Other {
                self.evicted_other += 1;
            } else {
                self.evicted_needed += 1;
            }
        }
    }

    // --- patterns ---

    /// Sorts all names anew by what the matrix needs now.
    pub(super) fn set_patterns(&mut self, index: Arc<PatternIndex>) {
        // Numbers of patterns mean something else now, so every address that had some has changed.
        for (address, standing) in &mut self.standings {
            if !standing.patterns.is_empty() {
                standing.patterns.clear();
                self.changed.mark(*address);
            }
        }
        self.index = index;
        self.pools.clear();
        let ids: Vec<NameId> = self.by_name.values().copied().collect();
        for id in &ids {
            let entry = &mut self.entries[*id];
            entry.own = sorted(self.index.matches(&entry.name)).into();
            for (address, link) in &entry.links {
                if link.current
                    && let Some(standing) = self.standings.get_mut(address)
                    && count_up(standing, &entry.own)
                {
                    self.changed.mark(*address);
                }
            }
        }
        for id in &ids {
            self.entries[*id].pool = self.pool_of(*id);
            self.attach(*id);
        }
        let pools: Vec<Pool> = self.pools.keys().copied().collect();
        for pool in pools {
            self.make_room(pool);
        }
    }

    /// Patterns that a name matches itself or through the names it leads to, sorted.
    pub(super) fn patterns_of_name(&self, name: &str) -> Vec<PatternId> {
        let mut patterns = Vec::new();
        let mut names = vec![name];
        let mut done = 0;
        while let Some(&name) = names.get(done) {
            done += 1;
            let Some(entry) = self.by_name.get(name).map(|id| &self.entries[*id]) else {
                self.index.matches_into(name, &mut patterns);
                continue;
            };
            patterns.extend_from_slice(&entry.own);
            for next in entry.next.iter().flatten() {
                if names.len() <= 2 * MAX_CHAIN && !names.contains(&&**next) {
                    names.push(next);
                }
            }
        }
        sorted(patterns)
    }

    /// Patterns of the current links of an address, sorted.
    pub(super) fn patterns_of(&self, address: &Address, now: u64) -> Vec<PatternId> {
        let Some(standing) = self.standings.get(address) else {
            return Vec::new();
        };
        if self.due.first().is_none_or(|(time, _, _)| *time > now) {
            return standing.patterns.iter().map(|(id, _)| *id).collect();
        }
        // Something is due, maybe here: look at each link.
        sorted(
            standing
                .names
                .iter()
                .map(|id| &self.entries[*id])
                .filter(|entry| {
                    entry
                        .links
                        .get(address)
                        .is_some_and(|link| link.current && link.expires > now)
                })
                .flat_map(|entry| entry.own.iter().copied()),
        )
    }

    /// Addresses with patterns.
    pub(super) fn needed_addresses(&self) -> impl Iterator<Item = Address> {
        self.standings
            .iter()
            .filter(|(_, standing)| !standing.patterns.is_empty())
            .map(|(address, _)| *address)
    }

    // --- looking ---

    /// All links of an address: the name, when told, when expired.
    pub(super) fn links_of(&self, address: &Address) -> impl Iterator<Item = (&Name, u64, u64)> {
        self.standings
            .get(address)
            .into_iter()
            .flat_map(|standing| &standing.names)
            .filter_map(|id| {
                let entry = &self.entries[*id];
                let link = entry.links.get(address)?;
                Some((&entry.name, link.told, link.expires))
            })
    }

    pub(super) fn has_link(&self, name: &str, address: &Address) -> bool {
        self.by_name
            .get(name)
            .is_some_and(|id| self.entries[*id].links.contains_key(address))
    }

    /// Needed names with links that are current, the least recently used first.
    pub(super) fn kept(&self, now: u64) -> Vec<Kept<'_>> {
        let mut order = BTreeMap::new();
        for entry in self.by_name.values().map(|id| &self.entries[*id]) {
            let links: Vec<_> = entry
                .links
                .iter()
                .filter(|(_, link)| link.current && link.expires > now)
                .map(|(address, link)| Told {
                    address: *address,
                    told: link.told,
                    expires: link.expires,
                })
                .collect();
            if entry.pool != Pool::Other && !links.is_empty() {
                order.insert(
                    entry.tick,
                    Kept {
                        name: &entry.name,
                        next: &entry.next,
                        links,
                    },
                );
            }
        }
        order.into_values().collect()
    }

    /// How many names are needed, and how many are not.
    pub(super) fn names(&self) -> (usize, usize) {
        let other = self
            .pools
            .get(&Pool::Other)
            .map_or(0, |state| state.order.len());
        (self.by_name.len() - other, other)
    }

    pub(super) fn addresses(&self) -> usize {
        self.standings.len()
    }

    pub(super) fn links(&self) -> usize {
        self.due.len()
    }
}

fn sorted(patterns: impl IntoIterator<Item = PatternId>) -> Vec<PatternId> {
    let mut patterns: Vec<_> = patterns.into_iter().collect();
    patterns.sort_unstable();
    patterns.dedup();
    patterns
}

/// Counts a link for its patterns; says whether one is new.
fn count_up(standing: &mut Standing, patterns: &[PatternId]) -> bool {
    let before = standing.patterns.len();
    for pattern in patterns {
        match standing
            .patterns
            .binary_search_by_key(pattern, |(id, _)| *id)
        {
            Ok(at) => standing.patterns[at].1 += 1,
            Err(at) => standing.patterns.insert(at, (*pattern, 1)),
        }
    }
    standing.patterns.len() != before
}

/// Takes a link off the counts of its patterns; says whether one is gone.
fn count_down(standing: &mut Standing, patterns: &[PatternId]) -> bool {
    for pattern in patterns {
        if let Ok(at) = standing
            .patterns
            .binary_search_by_key(pattern, |(id, _)| *id)
        {
            standing.patterns[at].1 -= 1;
        }
    }
    let before = standing.patterns.len();
    standing.patterns.retain(|(_, links)| *links > 0);
    standing.patterns.len() != before
}

#[cfg(test)]
impl Table {
    /// Every index says the same, and every pool is within its quota.
    pub(super) fn assert_consistent(&self) {
        let (mut links, mut by_pool) = (0, HashMap::<Pool, PoolState>::default());
        let mut standings = HashMap::<Address, Standing>::default();
        for (name, id) in &self.by_name {
            let entry = &self.entries[*id];
            assert_eq!(*name, entry.name);
            assert!(!entry.links.is_empty(), "{name} stands for nothing");
            assert!(entry.links.len() <= self.limits.addresses_per_name);
            let state = by_pool.entry(entry.pool).or_default();
            state.order.insert((entry.current > 0, entry.tick, *id));
            state.links += entry.links.len();
            links += entry.links.len();
            let current = entry.links.values().filter(|link| link.current).count();
            assert_eq!(entry.current, current, "{name}");
            for (address, link) in &entry.links {
                assert!(self.due.contains(&(link.scheduled, *id, address.bytes())));
                assert!(!link.current || link.scheduled <= link.expires);
                assert_eq!(self.standings[address].names[link.slot], *id);
                let standing = standings.entry(*address).or_default();
                standing.names.push(*id);
                if link.current {
                    count_up(standing, &entry.own);
                }
            }
        }
        assert_eq!(self.by_name.len() + self.free.len(), self.entries.len());
        assert_eq!(self.due.len(), links);
        assert_eq!(self.standings.len(), standings.len());
        for (address, standing) in standings {
            assert_eq!(self.standings[&address].names.len(), standing.names.len());
            assert_eq!(self.standings[&address].patterns, standing.patterns);
        }
        assert_eq!(self.pools.len(), by_pool.len());
        for (pool, state) in by_pool {
            let (names, links) = self.quota(pool);
            assert_eq!(self.pools[&pool].order, state.order, "{pool:?}");
            assert_eq!(self.pools[&pool].links, state.links, "{pool:?}");
            assert!(
                state.order.len() <= names && state.links <= links,
                "{pool:?}"
            );
        }
    }
}
