//! What names stand for which addresses, as DNS answers told it, for each client and in time.
//!
//! A row of the matrix that names a host is proven by name, so the book has to know at any moment which patterns an
//! address stands for, and afterwards what a client could have believed. It is fed by anybody who can send a DNS
//! response past the capture: all of it is bounded, and what the matrix needs cannot be pushed out by what it does not
//! need, nor by a flood under another of its patterns.
//!
//! Rules:
//! - The name in the question and every alias on the way stand for the addresses at the end.
//! - Names are current for their TTL (within bounds) and a grace, because clients keep addresses for longer than they
//!   should. A later answer extends that and never shortens it.
//! - Answers without addresses are evidence and remove nothing: another resolver may know better.
//!
//! Times are nanoseconds of any clock that never goes back; every call takes `now`.

mod asks;
mod changed;
mod evidence;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use flowproof_common::address::Address;
use serde::{Deserialize, Serialize};

use self::asks::{Ask, Asks};
pub use self::changed::Changed;
use self::evidence::Evidence;
pub use self::evidence::{Negative, NegativeCounts, PatternStatus};
use self::table::{Hop, Table};
use super::answer::{self, Answer, Kind, Name, fold};
use super::patterns::{PatternId, PatternIndex};

/// Aliases of an answer that are looked at. Resolvers give up at chains of about this length.
const MAX_CHAIN: usize = 16;
/// Entries in an answer of [`NameBook::told`] and [`NameBook::names_of`].
const MAX_TOLD: usize = 16;
const SECOND: u64 = 1_000_000_000;

/// What the book has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Names that the matrix needs. Names that stand in the matrix letter by letter always have room; three quarters
    /// of the rest is shared evenly by its wildcards, a quarter by the names that only lead to needed ones.
    pub needed_names: usize,
    /// Upper bound of the share of one pattern.
    pub needed_per_wildcard: usize,
    /// Names that the matrix does not need.
    pub other_names: usize,
    /// Addresses of one name, those told by one answer included.
    pub addresses_per_name: usize,
    /// Addresses of the names of one pattern, or of all names not needed, per name of their share.
    pub mean_addresses_per_name: usize,
    /// Entries of who was told what: (client, name, address).
    pub asks: usize,
    /// Addresses kept for [`NameBook::take_changed`].
    pub changed: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            needed_names: 65_536,
            needed_per_wildcard: 16_384,
            other_names: 32_768,
            addresses_per_name: 512,
            mean_addresses_per_name: 8,
            asks: 262_144,
            changed: 65_536,
        }
    }
}

/// How long things are kept, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Shorter TTLs count as this.
    pub ttl_min: u64,
    /// Longer TTLs count as this.
    pub ttl_max: u64,
    /// Added to every TTL.
    pub grace: u64,
    /// How long it is remembered, after that, that a name once stood for an address.
    pub history: u64,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            ttl_min: 0,
            ttl_max: 3600 * SECOND,
            grace: 300 * SECOND,
            history: 3600 * SECOND,
        }
    }
}

/// A name that stands or stood for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The name: for a client, the one that it asked for.
    pub name: Name,
    /// When it was last told, nanoseconds.
    pub when: u64,
    /// Patterns that the name matches or leads to, sorted.
    pub patterns: Vec<PatternId>,
    /// Whether TTL and grace are not over.
    pub current: bool,
}

/// What the book holds, and what it did since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Names that match a pattern or lead to one that does.
    pub names_needed: usize,
    /// Other names.
    pub names_other: usize,
    /// Different addresses.
    pub addresses: usize,
    /// Pairs of name and address.
    pub links: usize,
    /// Entries of who was told what.
    pub asks: usize,
    /// Needed names that had to go before their time.
    pub evicted_needed: u64,
    /// Other names that had to go before their time.
    pub evicted_other: u64,
    /// Addresses that had no room at a name that stays.
    pub evicted_addresses: u64,
    /// Entries of who was told what that had to go before their time.
    pub evicted_asks: u64,
    /// Answers with addresses.
    pub learned: u64,
    /// Addresses in answers that are nobody's: 0.0.0.0, `::` (the mark of a blocking resolver) and groups.
    pub unusable_addresses: u64,
    /// Answers without addresses.
    pub negative: NegativeCounts,
}

/// A needed name to be kept over a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    /// The name.
    pub name: String,
    /// The alias that address records led to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The target of its HTTPS record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What it stands for.
    pub addresses: Vec<RememberedAddress>,
}

/// An address of a [`Remembered`] name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RememberedAddress {
    /// The address.
    pub address: IpAddr,
    /// When the name was last told to stand for it, in the caller's time.
    pub told: u64,
    /// When TTL and grace are over, in the caller's time.
    pub expires: u64,
}

/// The book. See the module.
pub struct NameBook {
    limits: Limits,
    lifetimes: Lifetimes,
    table: Table,
    asks: Asks,
    evidence: Evidence,
    learned: u64,
    unusable_addresses: u64,
}

impl NameBook {
    /// An empty book without patterns: until [`NameBook::set_patterns`] no name is needed.
    #[must_use]
    pub fn new(limits: Limits, lifetimes: Lifetimes) -> Self {
        Self {
            limits,
            lifetimes,
            table: Table::new(limits, lifetimes.history),
            asks: Asks::new(limits.asks),
            evidence: Evidence::default(),
            learned: 0,
            unusable_addresses: 0,
        }
    }

    /// The patterns that the matrix needs from now on. Known names are sorted anew, and what is known of patterns that
    /// stay is kept. Every address that has or had patterns counts as changed, since their numbers mean something
    /// else.
    pub fn set_patterns(&mut self, now: u64, index: Arc<PatternIndex>) {
        self.expire(now);
        self.evidence.set_patterns(self.table.index(), &index);
        self.table.set_patterns(index);
    }

    /// Keeps an answer. `client` is the receiver of the response; `None` is the daemon itself.
    pub fn learn(&mut self, now: u64, client: Option<Address>, answer: &Answer) {
        self.expire(now);
        let names = chain(answer);
        match answer.result {
            answer::Result::Found => {
                self.found(now, client, answer, &names);
                return;
            }
            answer::Result::NoData => self.lead(answer.kind, &names, false),
            answer::Result::NoName
            | answer::Result::ServerFailure
            | answer::Result::Refused
            | answer::Result::Other(_) => {}
        }
        let patterns = self.patterns_of_all(&names);
        self.evidence.negative(&patterns, now, answer);
    }

    fn found(&mut self, now: u64, client: Option<Address>, answer: &Answer, names: &[&Name]) {
        let usable = answer
            .addresses
            .iter()
            .filter(|(address, _)| is_a_peer(*address));
        let links: Vec<_> = usable
            .clone()
            .take(self.limits.addresses_per_name)
            .map(|(address, ttl)| table::Told {
                address: Address::from(*address),
                told: now,
                expires: self.expiry(now, *ttl),
            })
            .collect();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let usable = usable.count();
        self.unusable_addresses += count(answer.addresses.len() - usable);
        self.table.evicted_addresses += count(usable - links.len());
        if links.is_empty() {
            self.lead(answer.kind, names, true);
            return;
        }
        self.learned += 1;
        // From the end, so that each name knows what it leads to.
        let mut next = None;
        for name in names.iter().rev() {
            self.table
                .learn(now, name, (hop(answer.kind), next), &links);
            next = Some(*name);
        }
        let patterns = self.patterns_of_all(names);
        self.evidence.resolved(&patterns, now);
        let Some(client) = client else {
            return;
        };
        for link in links {
            self.asks.tell(Ask {
                client,
                name: Name::clone(&answer.question),
                address: link.address,
                when: now,
                expires: link.expires,
                needed: !patterns.is_empty(),
            });
        }
    }

    /// Keeps the chain of an answer without addresses. The last name leads nowhere only if the answer is `complete`.
    fn lead(&mut self, kind: Kind, names: &[&Name], complete: bool) {
        if complete && let Some(last) = names.last() {
            self.table.lead(last, (hop(kind), None));
        }
        for pair in names.windows(2).rev() {
            self.table.lead(pair[0], (hop(kind), Some(pair[1])));
        }
    }

    fn expiry(&self, now: u64, ttl: u32) -> u64 {
        let Lifetimes {
            ttl_min,
            ttl_max,
            grace,
            ..
        } = self.lifetimes;
        let ttl = (u64::from(ttl) * SECOND).min(ttl_max).max(ttl_min);
        now.saturating_add(ttl).saturating_add(grace)
    }

    /// Patterns that any of the names matches itself, sorted.
    fn patterns_of_all(&self, names: &[&Name]) -> Vec<PatternId> {
        let mut patterns = Vec::new();
        for name in names {
            self.table.index().matches_into(name, &mut patterns);
        }
        patterns.sort_unstable();
        patterns.dedup();
        patterns
    }

    /// Counts a name as used, so that it is evicted later: a flow was judged by it.
    pub fn touch(&mut self, name: &str) {
        self.table.touch(name);
    }

    /// Forgets what is over. The cost is that of what is due. Learning does this too.
    pub fn expire(&mut self, now: u64) {
        self.table.expire(now);
        let Lifetimes {
            ttl_max,
            grace,
            history,
            ..
        } = self.lifetimes;
        let kept = ttl_max.saturating_add(grace).saturating_add(history);
        self.asks.forget(now.saturating_sub(kept));
    }

    /// Addresses whose patterns changed since the last call, each once.
    pub fn take_changed(&mut self) -> Changed {
        self.table.changed.take()
    }

    /// All addresses that have patterns, in no order: what to look at when [`Changed::overflowed`].
    pub fn needed_addresses(&self) -> impl Iterator<Item = Address> {
        self.table.needed_addresses()
    }

    /// Patterns of all names that currently stand for an address, sorted; empty if there are none.
    #[must_use]
    pub fn patterns_of(&self, address: &Address, now: u64) -> Vec<PatternId> {
        self.table.patterns_of(address, now)
    }

    /// Patterns that a name matches itself, or through the aliases it was last seen to lead to; sorted.
    #[must_use]
    pub fn patterns_of_name(&self, name: &str) -> Vec<PatternId> {
        self.table.patterns_of_name(name)
    }

    /// What a client was told about an address, the latest first, at most 16.
    #[must_use]
    pub fn told(&self, client: &Address, address: &Address, now: u64) -> Vec<Told> {
        self.asks
            .about_address(client, address)
            .take(MAX_TOLD)
            .map(|ask| self.describe(&ask.name, ask.when, ask.expires, now))
            .collect()
    }

    /// What anybody was told about an address, the latest first, at most 16. Aliases are listed as names of their own.
    /// The cost grows with the names of the address: this is for explaining, not for every packet.
    #[must_use]
    pub fn names_of(&self, address: &Address, now: u64) -> Vec<Told> {
        let mut links: Vec<_> = self.table.links_of(address).collect();
        links.sort_unstable_by(|(name_a, told_a, _), (name_b, told_b, _)| {
            told_b.cmp(told_a).then_with(|| name_a.cmp(name_b))
        });
        links
            .into_iter()
            .take(MAX_TOLD)
            .map(|(name, told, expires)| self.describe(name, told, expires, now))
            .collect()
    }

    fn describe(&self, name: &Name, when: u64, expires: u64, now: u64) -> Told {
        Told {
            name: Name::clone(name),
            when,
            patterns: self.patterns_of_name(name),
            current: expires > now,
        }
    }

    /// Whether a name was told to stand for an address, as far as is remembered, expired or not.
    #[must_use]
    pub fn has_stood_for(&self, name: &str, address: &Address) -> bool {
        self.table.has_link(name, address)
    }

    /// Addresses that a client was told for a name it asked for, and that are not expired; the latest first.
    #[must_use]
    pub fn addresses_told(&self, client: &Address, name: &str, now: u64) -> Vec<Address> {
        let mut told: Vec<_> = self
            .asks
            .about_name(client, name)
            .filter(|(_, ask)| ask.expires > now)
            .map(|(tick, ask)| (tick, ask.address))
            .collect();
        told.sort_unstable_by_key(|(tick, _)| std::cmp::Reverse(*tick));
        told.into_iter().map(|(_, address)| address).collect()
    }

    /// What resolvers said of the names that match a pattern.
    #[must_use]
    pub fn status(&self, pattern: PatternId) -> PatternStatus {
        self.evidence.get(pattern).cloned().unwrap_or_default()
    }

    /// What the book holds and did.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (names_needed, names_other) = self.table.names();
        Counts {
            names_needed,
            names_other,
            addresses: self.table.addresses(),
            links: self.table.links(),
            asks: self.asks.len(),
            evicted_needed: self.table.evicted_needed,
            evicted_other: self.table.evicted_other,
            evicted_addresses: self.table.evicted_addresses,
            evicted_asks: self.asks.evicted(),
            learned: self.learned,
            unusable_addresses: self.unusable_addresses,
            negative: self.evidence.counts,
        }
    }

    /// Needed names and the addresses that they currently stand for, the least recently used first.
    #[must_use]
    pub fn export(&self, now: u64) -> Vec<Remembered> {
        let text = |name: &Option<Name>| name.as_deref().map(str::to_owned);
        self.table
            .kept(now)
            .into_iter()
            .map(|kept| Remembered {
                name: (**kept.name).to_owned(),
                alias: text(&kept.next[0]),
                service: text(&kept.next[1]),
                addresses: kept
                    .links
                    .iter()
                    .map(|link| RememberedAddress {
                        address: IpAddr::from(link.address),
                        told: link.told,
                        expires: link.expires,
                    })
                    .collect(),
            })
            .collect()
    }

    /// Takes back what [`NameBook::export`] gave, after [`NameBook::set_patterns`]. What comes from a file is held to
    /// the same limits as what comes from the wire: texts that are no names are left out, and nothing lasts longer
    /// than if it were told now.
    pub fn restore(&mut self, now: u64, names: Vec<Remembered>) {
        self.expire(now);
        let latest = self.expiry(now, u32::MAX);
        for remembered in names {
            let Some(name) = fold(&remembered.name) else {
                continue;
            };
            let links: Vec<_> = remembered
                .addresses
                .iter()
                .filter(|kept| kept.expires > now && is_a_peer(kept.address))
                .take(self.limits.addresses_per_name)
                .map(|kept| table::Told {
                    address: Address::from(kept.address),
                    told: kept.told.min(now),
                    expires: kept.expires.min(latest),
                })
                .collect();
            let Some(told) = links.iter().map(|link| link.told).max() else {
                continue;
            };
            let alias = remembered.alias.as_deref().and_then(fold);
            let service = remembered.service.as_deref().and_then(fold);
            self.table
                .learn(now, &name, (Hop::Alias, alias.as_ref()), &links);
            self.table.lead(&name, (Hop::Service, service.as_ref()));
            let patterns = self.patterns_of_name(&name);
            self.evidence.resolved(&patterns, told);
        }
    }
}

/// The question and its aliases in order, each once.
fn chain(answer: &Answer) -> Vec<&Name> {
    let mut names = vec![&answer.question];
    for alias in answer.aliases.iter().take(MAX_CHAIN) {
        if !names.contains(&alias) {
            names.push(alias);
        }
    }
    names
}

fn hop(kind: Kind) -> Hop {
    match kind {
        Kind::Https => Hop::Service,
        Kind::A | Kind::Aaaa | Kind::Other(_) => Hop::Alias,
    }
}

/// Whether an address can be a peer's.
fn is_a_peer(address: IpAddr) -> bool {
    !address.to_canonical().is_unspecified() && !Address::from(address).is_group()
}
