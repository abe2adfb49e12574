//! The verdict by name. In order of weight:
//!
//! 1. The name that the initiator writes at the head of its conversation. It is the word of the one who opens the
//!    connection, so it is checked against DNS: a name that DNS told this client to find elsewhere, at an address that
//!    was told to it under forbidden names only, is a mismatch.
//! 2. What DNS told this very client about the address. Of several names the one is taken that is allowed.
//! 3. What DNS told anybody about the address.
//!
//! With an encrypted ClientHello the visible name is another's, unless DNS knows the address by it; clients also send
//! the extension to everybody so that its use can't be told from its absence (RFC 9849, section 6.2), so the visible name
//! counts where nothing better is known.

use std::cell::OnceCell;
use std::collections::HashMap;

use flowproof_common::address::Address;
use flowproof_common::classify::FIRST_RULE_SLOT;
use flowproof_common::key::{FlowKey, Side};

use super::answer::Name;
use super::book::{NameBook, Told};
use super::flow_name::{FlowName, Mismatch, NameSource};
use super::wire::hello::{Hello, Source};
use crate::matrix::installed::Installed;
use crate::verdict::requirement::Confidence;

/// Names of an address that are looked at: as many as the book tells.
const LOOKED_AT: usize = 16;
/// Names that one sentence lists.
const LISTED: usize = 3;

/// What a decision is made from.
pub(super) struct Case<'a> {
    pub(super) key: &'a FlowKey,
    pub(super) initiator: Side,
    /// When the flow began, nanoseconds.
    pub(super) begun: u64,
    /// The head, if one was read.
    pub(super) hello: Option<&'a Hello>,
    /// Whether a head may still come.
    pub(super) may_come: bool,
    /// Whether this is the last look, so that what is known now has to do.
    pub(super) last: bool,
}

/// By name: what its encrypted ClientHellos show in its place, as its HTTPS record says.
pub(super) type PublicNames = HashMap<Name, Name, foldhash::quality::RandomState>;

/// Where names and rules are looked up.
pub(super) struct Sources<'a> {
    pub(super) book: &'a mut NameBook,
    pub(super) matrix: &'a mut Installed,
    pub(super) public_names: &'a PublicNames,
    pub(super) now: u64,
}

/// The name and slot of a flow, or nothing if it is better to wait.
pub(super) fn decide(case: &Case<'_>, sources: &mut Sources<'_>) -> Option<FlowName> {
    if case.hello.is_none() && case.may_come && !case.last {
        return None;
    }
    let mut desk = Desk::new(case, sources);
    let written = case
        .hello
        .and_then(|hello| Some((hello, hello.server_name.clone()?)));
    if let Some((hello, name)) = written {
        let is_true =
            || !desk.is_outer(&name) && (desk.dns_knows(&name) || desk.is_not_outer(&name));
        if !hello.encrypted || is_true() {
            return Some(desk.by_hello(hello, name));
        }
        let outer = format!("the ClientHello is encrypted; {name} is only its outer name");
        if let Some(mut found) = desk.by_dns() {
            found.notes.push(outer);
            found.alpn.clone_from(&hello.alpn);
            found.confidence = found.confidence.min(Confidence::Medium);
            return Some(found);
        }
        if !case.last {
            return None;
        }
        let mut found = desk.by_hello(hello, name);
        found.notes.push(outer);
        found.confidence = Confidence::Low;
        return Some(found);
    }
    let mut found = match desk.by_dns() {
        Some(found) => found,
        None if case.last => desk.nameless(),
        None => return None,
    };
    if let Some(hello) = case.hello {
        found.alpn.clone_from(&hello.alpn);
        found.notes.push(format!(
            "{} gives no name",
            match hello.source {
                Source::Tls => "the TLS ClientHello",
                Source::Quic => "the QUIC ClientHello",
                Source::Http => "the HTTP request",
            }
        ));
    }
    Some(found)
}

struct Desk<'a, 'b> {
    case: &'a Case<'a>,
    sources: &'a mut Sources<'b>,
    client: Address,
    server: Address,
    /// What the client was told about the server's address, newest first.
    told: Vec<Told>,
    /// Whether it may have been told more than these.
    told_more: bool,
    /// What anybody was told, once it is asked for, since an address may have thousands of names; and whether there may be
    /// more.
    anybody: OnceCell<(Vec<Told>, bool)>,
    /// Once they are asked for: every name of the server is judged with them.
    client_patterns: OnceCell<Vec<u32>>,
}

impl<'a, 'b> Desk<'a, 'b> {
    fn new(case: &'a Case<'a>, sources: &'a mut Sources<'b>) -> Self {
        let (client, _) = case.key.end(case.initiator);
        let (server, _) = case.key.end(case.initiator.other());
        // What held when the flow began: a flow may be looked at long after.
        let (told, told_more) = current(sources.book.told(&client, &server, case.begun));
        Self {
            told_more,
            case,
            sources,
            client,
            server,
            told,
            anybody: OnceCell::new(),
            client_patterns: OnceCell::new(),
        }
    }

    fn anybody(&self) -> &[Told] {
        &self.of_anybody().0
    }

    fn of_anybody(&self) -> &(Vec<Told>, bool) {
        self.anybody
            .get_or_init(|| current(self.sources.book.names_of(&self.server, self.case.begun)))
    }

    /// Whether there may be more names than those that are looked at.
    fn are_more(&self) -> bool {
        if self.told.is_empty() {
            self.of_anybody().1
        } else {
            self.told_more
        }
    }

    fn dns_knows(&self, name: &str) -> bool {
        let is_it = |told: &Told| &*told.name == name;
        self.told.iter().any(is_it) || self.anybody().iter().any(is_it)
    }

    /// Whether another name of the address shows `name` in its place, as its HTTPS record says.
    fn is_outer(&self, name: &Name) -> bool {
        self.told
            .iter()
            .chain(self.anybody())
            .filter(|told| told.name != *name)
            .any(|told| self.sources.public_names.get(&told.name) == Some(name))
    }

    /// Whether the visible name of an encrypted ClientHello is no other's: every name of the address shows another one in
    /// its place.
    fn is_not_outer(&self, name: &Name) -> bool {
        let mut shown = self
            .told
            .iter()
            .chain(self.anybody())
            .map(|told| self.sources.public_names.get(&told.name))
            .peekable();
        shown.peek().is_some() && shown.all(|shown| shown.is_some_and(|shown| shown != name))
    }

    /// Patterns that the client stands for.
    fn client_patterns(&self) -> &[u32] {
        self.client_patterns.get_or_init(|| {
            let book = &*self.sources.book;
            let mut patterns = book.patterns_of(&self.client, self.sources.now);
            // What its own name meant when the flow began may be over by now.
            for told in book.names_of(&self.client, self.case.begun) {
                if told.current {
                    patterns.extend(told.patterns);
                }
            }
            patterns.sort_unstable();
            patterns.dedup();
            patterns
        })
    }

    /// The slot if the server stands for `patterns`.
    fn slot(&mut self, patterns: &[u32]) -> u32 {
        let from = self.client_patterns().to_vec();
        let Case { key, initiator, .. } = *self.case;
        self.sources
            .matrix
            .slot_of_named_flow(key, initiator, &from, patterns)
    }

    fn slot_of_name(&mut self, name: &str) -> u32 {
        let patterns = self.sources.book.patterns_of_name(name);
        self.slot(&patterns)
    }

    fn by_hello(&mut self, hello: &Hello, name: Name) -> FlowName {
        self.sources.book.touch(&name);
        let source = match hello.source {
            Source::Tls => NameSource::Tls,
            Source::Quic => NameSource::Quic,
            Source::Http => NameSource::Http,
        };
        let slot = self.slot_of_name(&name);
        let confirmed = self.dns_knows(&name);
        let mut found = FlowName {
            source,
            confidence: if confirmed {
                Confidence::High
            } else {
                Confidence::Medium
            },
            alpn: hello.alpn.clone(),
            notes: Vec::new(),
            mismatch: None,
            slot,
            name: Some(name.clone()),
        };
        if confirmed {
            found.notes.push("DNS agrees".to_owned());
        }
        if slot < FIRST_RULE_SLOT {
            found.mismatch = self.allowed_otherwise(&name, source);
        } else if let Some(detail) = self.contradicted(&name, source) {
            // What would have covered it is what the name claims.
            found.mismatch = Some(Mismatch {
                slot,
                contradicted: true,
                detail,
            });
            found.slot = self.slot(&[]);
        }
        found
    }

    /// If the address stands for names that would be allowed: which, and that this one is not among them.
    fn allowed_otherwise(&mut self, name: &str, source: NameSource) -> Option<Mismatch> {
        let patterns = self
            .sources
            .book
            .patterns_of(&self.server, self.sources.now);
        let slot = self.slot(&patterns);
        if slot < FIRST_RULE_SLOT {
            return None;
        }
        let allowed = self.listed(true);
        Some(Mismatch {
            slot,
            contradicted: false,
            detail: format!(
                "{} is allowed as {allowed}, but {} says {name}",
                std::net::IpAddr::from(self.server),
                source.words()
            ),
        })
    }

    /// Whether DNS told this client that `name` is elsewhere and this address is another's, whom no requirement names.
    fn contradicted(&mut self, name: &str, source: NameSource) -> Option<String> {
        let book = &*self.sources.book;
        if self.told.is_empty() || book.has_stood_for(name, &self.server) {
            return None;
        }
        let elsewhere = book.addresses_told(&self.client, name, self.sources.now);
        if elsewhere.is_empty() || elsewhere.contains(&self.server) {
            return None;
        }
        let told: Vec<Name> = self.told.iter().map(|told| told.name.clone()).collect();
        if told
            .iter()
            .any(|other| self.slot_of_name(other) >= FIRST_RULE_SLOT)
        {
            return None;
        }
        let server = std::net::IpAddr::from(self.server);
        let place = elsewhere.first().map_or_else(String::new, |place| {
            std::net::IpAddr::from(*place).to_string()
        });
        Some(format!(
            "{} says {name}, but DNS told this client that {server} is {} and that {name} is {place}",
            source.words(),
            self.listed(false)
        ))
    }

    /// What DNS alone says; nothing if it says nothing, or nothing good yet.
    fn by_dns(&mut self) -> Option<FlowName> {
        let own = !self.told.is_empty();
        let entries = if own {
            self.told.as_slice()
        } else {
            self.anybody()
        };
        let entries: Vec<(Name, u64)> = entries
            .iter()
            .map(|told| (told.name.clone(), told.when))
            .collect();
        let judged: Vec<(Name, u64, u32)> = entries
            .into_iter()
            .map(|(name, at)| {
                let slot = self.slot_of_name(&name);
                (name, at, slot)
            })
            .collect();
        // Which of several names is meant nobody can tell: what is allowed is taken for it, and the doubt is told.
        let allowed = |(_, _, slot): &&(Name, u64, u32)| *slot >= FIRST_RULE_SLOT;
        let before = |(_, at, _): &&(Name, u64, u32)| *at <= self.case.begun;
        let chosen = judged
            .iter()
            .filter(before)
            .find(allowed)
            .or_else(|| judged.iter().find(allowed))
            .or_else(|| judged.iter().find(before))
            .or(judged.first());
        let (name, _, slot) = chosen?.clone();
        if slot < FIRST_RULE_SLOT && self.are_more() {
            return self.one_of_many();
        }
        let expected = slot >= FIRST_RULE_SLOT;
        // An answer on its way may still allow it.
        if !expected && !self.case.last {
            return None;
        }
        let clear = judged
            .iter()
            .all(|(_, _, other)| (*other >= FIRST_RULE_SLOT) == expected);
        let mut notes = Vec::new();
        if !own {
            notes.push("DNS told others so; no answer to this client was seen".to_owned());
        }
        if !clear {
            notes.push(format!(
                "the address is shared: it also stands for {}",
                listed(
                    judged
                        .iter()
                        .map(|(name, ..)| name)
                        .filter(|other| **other != name)
                )
            ));
        }
        let mismatch = if expected {
            None
        } else {
            self.allowed_otherwise(&name, NameSource::Dns)
        };
        self.sources.book.touch(&name);
        Some(FlowName {
            name: Some(name),
            source: NameSource::Dns,
            confidence: if own && clear {
                Confidence::Medium
            } else {
                Confidence::Low
            },
            alpn: Vec::new(),
            notes,
            mismatch,
            slot,
        })
    }

    /// The address has more names than are looked at: it is allowed if any of them is.
    fn one_of_many(&mut self) -> Option<FlowName> {
        let patterns = self
            .sources
            .book
            .patterns_of(&self.server, self.sources.now);
        let slot = self.slot(&patterns);
        (slot >= FIRST_RULE_SLOT || self.case.last).then(|| FlowName {
            name: None,
            source: NameSource::Dns,
            confidence: Confidence::Low,
            alpn: Vec::new(),
            notes: vec![format!(
                "{} has many names by DNS, and which of them is meant is not known",
                std::net::IpAddr::from(self.server)
            )],
            mismatch: None,
            slot,
        })
    }

    /// Nobody said anything.
    fn nameless(&mut self) -> FlowName {
        let slot = self.slot(&[]);
        FlowName {
            name: None,
            source: NameSource::None,
            confidence: Confidence::Low,
            alpn: Vec::new(),
            notes: Vec::new(),
            mismatch: None,
            slot,
        }
    }

    /// Names of the address, as a list in words: those that a requirement needs, or all.
    fn listed(&self, needed: bool) -> String {
        let told = self.told.iter().chain(self.anybody());
        listed(
            told.filter(|told| !needed || !told.patterns.is_empty())
                .map(|told| &told.name),
        )
    }
}

/// Those that are not over, and whether there may be more: the book tells so many at most.
fn current(mut told: Vec<Told>) -> (Vec<Told>, bool) {
    let are_more = told.len() >= LOOKED_AT;
    told.retain(|told| told.current);
    (told, are_more)
}

fn listed<'n>(names: impl Iterator<Item = &'n Name>) -> String {
    let mut names: Vec<&str> = names.map(|name| &**name).collect();
    // Not sorted: the newest say most.
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    let mut text = names.join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    if text.is_empty() {
        "another name".clone_into(&mut text);
    }
    text
}
