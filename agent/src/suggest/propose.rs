//! From what was gathered to proposals, and to what is told instead of proposed, each with its reason.
//!
//! Proposals are `optional`: traffic shows that somebody does something, not that the product fails without it, and silence on
//! a row that nobody asked for should alarm nobody. Whoever knows better writes `required`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use flowproof_common::protocol;
use serde::Serialize;

use super::evidence::{Evidence, MOST_ADDRESSES, Tally};
use super::gather::Gathering;
use super::judge::{EndKey, Judge, Pair};
use super::roles::{RoleBook, Side, unique};
use super::survey::{Fan, Suspect, is_scan};
use super::{FIRST_DYNAMIC, FIRST_EPHEMERAL, LAST_LINUX, Local, Options};
use crate::ledger::HourRecord;
use crate::matrix::compiled::BoundRole;
use crate::matrix::{Protocol, Service};
use crate::verdict::near_miss::service_text;
use crate::verdict::{Asked, role_name};

/// Ports of those that clients use from which on they are one range.
const FOLD: usize = 3;
/// Ports between the same roles from which on nobody wants a row each.
const MOST_SERVICES: usize = 100;
/// Near misses of a proposal that are told.
const MOST_NEAR: usize = 2;
/// Entries of each list that is only told.
const MOST_TOLD: usize = 200;

/// What follows from the records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Suggestions {
    /// Requirements to add, the most used first.
    pub proposals: Vec<Proposal>,
    /// Roles of the site-local matrix that they need.
    pub roles: Vec<NewRole>,
    /// What recurs and was answered never, or too rarely: perhaps wanted, perhaps blocked, perhaps a mistake.
    pub unanswered: Vec<Recurring>,
    /// Initiators that look like a scan.
    pub scans: Vec<Scan>,
    /// Answers that were taken for requests.
    pub mistaken: Vec<Mistaken>,
    /// What recurs and can't be proposed, and why.
    pub left: Vec<Left>,
    /// How much was looked at.
    pub totals: Totals,
}

/// A requirement to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proposal {
    /// `system/requirement`
    pub id: String,
    /// The system that is to have it.
    pub system: String,
    /// Its id in the system.
    pub requirement: String,
    /// Role of the initiator, in the system.
    pub from: String,
    /// Role of the responder, in the system.
    pub to: String,
    /// Its services.
    pub services: Vec<String>,
    /// `outbound`
    pub direction: &'static str,
    /// `optional`
    pub necessity: &'static str,
    /// The reason.
    pub purpose: String,
    /// What a person has to decide.
    pub doubts: Vec<String>,
    /// What was seen.
    #[serde(flatten)]
    pub evidence: Evidence,
    /// Requirements that it nearly met, best first.
    pub near_misses: Vec<Nearly>,
}

/// A requirement that was nearly met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nearly {
    /// In what they differ, as `explain` says it.
    pub kind: &'static str,
    /// `system/requirement#service`
    pub requirement: String,
    /// The same in words.
    pub detail: String,
}

/// A role to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewRole {
    /// The system that is to have it.
    pub system: String,
    /// Its id in the system.
    pub id: String,
    /// Its title.
    pub title: String,
    /// What it stands for.
    pub names: Vec<String>,
}

/// Traffic that recurs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recurring {
    /// Initiator: `system/role`, a name, or `~unbound`.
    pub from: String,
    /// Responder.
    pub to: String,
    /// Service.
    pub service: String,
    /// What to make of it.
    pub reason: String,
    /// What was seen.
    #[serde(flatten)]
    pub evidence: Evidence,
}

/// An initiator that looks like a scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scan {
    /// Who.
    pub initiator: String,
    /// Its role, or `~unbound`.
    pub from: String,
    /// Different hosts and ports that it tried, at least.
    pub targets: usize,
    /// Whether there are more than could be counted.
    pub more: bool,
    /// Those that answered, of `targets`.
    pub answered_targets: usize,
    /// Unexpected flows.
    pub flows: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Why it is taken for one.
    pub reason: String,
}

/// Conversations whose initiator was mistaken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mistaken {
    /// Who was taken for the initiator.
    pub from: String,
    /// Who was taken for the responder.
    pub to: String,
    /// The service that `to` uses of `from`.
    pub service: String,
    /// Why.
    pub reason: String,
    /// What was seen.
    #[serde(flatten)]
    pub evidence: Evidence,
}

/// What recurs and can't be proposed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Initiator.
    pub from: String,
    /// Responder.
    pub to: String,
    /// Service.
    pub service: String,
    /// Why, and what to do.
    pub reason: String,
    /// What was seen.
    #[serde(flatten)]
    pub evidence: Evidence,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Hourly records.
    pub records: u64,
    /// Flows in them.
    pub flows: u64,
    /// Flows that no requirement of now covers.
    pub unexpected_flows: u64,
    /// Those of them that recur too little to be told.
    pub rare_flows: u64,
    /// Flows that nobody can judge, because their name was not recorded.
    pub undecided_flows: u64,
    /// Flows that found no room.
    pub folded_flows: u64,
    /// Entries that the lists of what is only told left out.
    pub untold: usize,
}

impl Totals {
    pub(super) fn seen(&mut self, record: &HourRecord) {
        self.records += 1;
        self.flows = self.flows.saturating_add(record.counts.begun);
    }
}

/// What might be proposed.
#[derive(Debug, Default)]
struct Candidate {
    tally: Tally,
    doubts: Vec<String>,
    /// A port that was seen, where the service is a range.
    port: Option<u16>,
}

type Candidates = BTreeMap<(Pair, Service), Candidate>;

pub(super) fn propose(gathering: Gathering) -> Suggestions {
    let Gathering {
        judge,
        options,
        fans,
        suspects,
        entries,
        totals,
    } = gathering;
    let mut out = Suggestions {
        totals,
        ..Suggestions::default()
    };
    for (initiator, fan) in fans.entries().iter().filter(|(_, fan)| fan.is_scan()) {
        let [hosts, services] = fan.breadth();
        out.scans.push(Scan {
            initiator: initiator.to_string(),
            from: end_name(&judge, &judge.end_of((*initiator).into())),
            targets: fan.targets(),
            more: fan.more(),
            answered_targets: fan.answered_targets(),
            flows: fan.flows,
            answered: fan.answered,
            reason: format!(
                "one initiator, {}{} targets ({hosts} hosts, {services} services), of which {} answered",
                if fan.more() { "more than " } else { "" },
                fan.targets(),
                fan.answered_targets(),
            ),
        });
    }
    let mut candidates = Candidates::new();
    for ((pair, protocol, port), tally) in entries.into_entries() {
        match service_of(protocol, port) {
            Some(service) => candidates
                .entry((pair, service))
                .or_default()
                .tally
                .merge(&tally),
            None => out.totals.rare_flows += tally.flows(),
        }
    }
    let scans = |initiator: &IpAddr| fans.entries().get(initiator).is_some_and(Fan::is_scan);
    let suspects = suspects
        .into_entries()
        .into_iter()
        .filter(|((_, initiator, ..), _)| !scans(initiator))
        .map(|((_, _, protocol, pair), suspect)| ((pair, protocol), suspect));
    ephemeral(suspects, &judge, &options, &mut candidates, &mut out);
    let chosen = choose(candidates, &judge, &options, &mut out);
    build(chosen, &judge, &options, &mut out);
    out.order();
    out
}

impl Suggestions {
    fn order(&mut self) {
        let most = |evidence: &Evidence| std::cmp::Reverse((evidence.answered, evidence.flows));
        self.proposals
            .sort_by_key(|proposal| most(&proposal.evidence));
        self.unanswered
            .sort_by_key(|recurring| most(&recurring.evidence));
        self.mistaken
            .sort_by_key(|mistaken| most(&mistaken.evidence));
        self.left.sort_by_key(|left| most(&left.evidence));
        self.scans.sort_by_key(|scan| std::cmp::Reverse(scan.flows));
        self.totals.untold += cut(&mut self.unanswered)
            + cut(&mut self.mistaken)
            + cut(&mut self.left)
            + cut(&mut self.scans);
    }

    /// Whether a change of the matrix is suggested.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.proposals.is_empty()
    }
}

fn cut<T>(list: &mut Vec<T>) -> usize {
    let over = list.len().saturating_sub(MOST_TOLD);
    list.truncate(MOST_TOLD);
    over
}

/// The service that a requirement would have; none for what is no service, such as port 0.
fn service_of(protocol: u8, port: u16) -> Option<Service> {
    let echo = match protocol {
        protocol::ICMP => port == u16::from(protocol::ICMP_ECHO_REQUEST),
        protocol::ICMPV6 => port == u16::from(protocol::ICMPV6_ECHO_REQUEST),
        _ => false,
    };
    let text = if echo {
        // Ping, in both IP versions, as packs mean it.
        Protocol::Icmp.to_string()
    } else {
        service_text(protocol, port)
    };
    text.parse().ok()
}

/// `system/role`, a name, or `~unbound`.
fn end_name(judge: &Judge, end: &EndKey) -> String {
    match end {
        EndKey::Role(role) => role_name(&judge.explainer().installed().compiled, *role),
        EndKey::Named(names) => names.to_string(),
        EndKey::Broadcast => "broadcast".to_owned(),
        EndKey::Nobody => "~unbound".to_owned(),
    }
}

/// A requirement that recurs, by what is asked for.
fn recurs(options: &Options, flows: u64, hours: u64) -> bool {
    flows >= options.min_flows && hours >= options.min_hours
}

fn recurs_answered(options: &Options, tally: &Tally) -> bool {
    recurs(options, tally.answered_flows(), tally.answered.hours.len())
}

fn recurs_at_all(options: &Options, tally: &Tally) -> bool {
    recurs(options, tally.flows(), tally.all.hours.len())
}

/// Conversations between the same roles over clients' ports.
#[derive(Default)]
struct High {
    ports: BTreeMap<u16, Tally>,
    all: Tally,
    /// Whether some ports are not told apart.
    more: bool,
    span: Option<[u16; 2]>,
    targets: usize,
    answered: usize,
}

fn ephemeral(
    suspects: impl Iterator<Item = ((Pair, u8), Suspect)>,
    judge: &Judge,
    options: &Options,
    candidates: &mut Candidates,
    out: &mut Suggestions,
) {
    let mut groups: BTreeMap<(Pair, u8), High> = BTreeMap::new();
    let mut mistaken: BTreeMap<(Pair, u8, u16), Tally> = BTreeMap::new();
    for ((pair, number), suspect) in suspects {
        let mut all = suspect.other.clone();
        for tally in suspect.ports.entries().values() {
            all.merge(tally);
        }
        // A datagram has no handshake that tells who asked. A connection has one, unless it was open before the capture
        // began: then a port or two are in doubt, and more are not.
        let few = suspect.ports.entries().len() < FOLD && !suspect.ports.more();
        if let Some(service) = suspect.reversed.filter(|_| number == protocol::UDP || few) {
            mistaken
                .entry((pair, number, service))
                .or_default()
                .merge(&all);
            continue;
        }
        let group = groups.entry((pair, number)).or_default();
        group.all.merge(&all);
        group.more |= suspect.ports.more();
        let [low, high] = suspect.span;
        group.span = Some(
            group
                .span
                .map_or([low, high], |[a, b]| [a.min(low), b.max(high)]),
        );
        for (port, tally) in suspect.ports.into_entries() {
            group.targets += 1;
            group.answered += usize::from(tally.answered_flows() > 0);
            group.ports.entry(port).or_default().merge(&tally);
        }
    }
    for ((pair, number, port), tally) in mistaken {
        if !recurs_at_all(options, &tally) {
            out.totals.rare_flows += tally.flows();
            continue;
        }
        let service = service_text(number, port);
        out.mistaken.push(Mistaken {
            from: end_name(judge, &pair.0),
            to: end_name(judge, &pair.1),
            reason: format!(
                "the same hosts use {service} the other way round, and the port is one that clients are given: looks like \
                 answers whose request was not seen"
            ),
            service,
            evidence: tally.told(false),
        });
    }
    for ((pair, number), group) in groups {
        high(pair, number, group, judge, options, candidates, out);
    }
}

fn high(
    pair: Pair,
    number: u8,
    group: High,
    judge: &Judge,
    options: &Options,
    candidates: &mut Candidates,
    out: &mut Suggestions,
) {
    let left = |service: String, reason: &str, tally: &Tally| Left {
        from: end_name(judge, &pair.0),
        to: end_name(judge, &pair.1),
        service,
        reason: reason.to_owned(),
        evidence: tally.told(false),
    };
    let protocol = Protocol::from_number(number);
    if group.ports.len() >= FOLD || group.more {
        let [low, high] = range_of(group.span.unwrap_or([FIRST_EPHEMERAL, u16::MAX]));
        let text = format!("{protocol}/{low}-{high}");
        if is_scan(group.targets, group.answered) {
            let reason = "many ports of those that clients are given, of which few answered: looks like a scan";
            out.left.push(left(text, reason, &group.all));
            return;
        }
        let Ok(service) = text.parse() else {
            return;
        };
        let candidate = candidates.entry((pair, service)).or_default();
        candidate.tally.merge(&group.all);
        candidate.port = group.span.map(|[low, _]| low);
        candidate.doubts.push(format!(
            "{}{} ports between {} and {} are taken for one range: narrow it if the product can be told its ports",
            if group.more { "more than " } else { "" },
            group.ports.len(),
            group.span.map_or(low, |[low, _]| low),
            group.span.map_or(high, |[_, high]| high),
        ));
        return;
    }
    for (port, tally) in &group.ports {
        let text = format!("{protocol}/{port}");
        let clients = &tally.answered.clients;
        if clients.items().len() > 1 || clients.more() {
            if let Ok(service) = text.parse() {
                let candidate = candidates.entry((pair.clone(), service)).or_default();
                candidate.tally.merge(tally);
                candidate.doubts.push(
                    "several clients use this port, but it is one of those that systems give out by themselves: it may be \
                     another one after a restart"
                        .to_owned(),
                );
            }
        } else if recurs_at_all(options, tally) {
            let reason = "a single port of those that clients are given, and a single client: no service by what is known";
            out.left.push(left(text, reason, tally));
        } else {
            out.totals.rare_flows += tally.flows();
        }
    }
}

/// The range that ports were given out of.
const fn range_of([low, high]: [u16; 2]) -> [u16; 2] {
    if low >= FIRST_DYNAMIC {
        [FIRST_DYNAMIC, u16::MAX]
    } else if high <= LAST_LINUX {
        [FIRST_EPHEMERAL, LAST_LINUX]
    } else {
        [FIRST_EPHEMERAL, u16::MAX]
    }
}

/// What is to be proposed.
struct Chosen {
    pair: Pair,
    service: Service,
    candidate: Candidate,
    by_answers: bool,
}

fn choose(
    candidates: Candidates,
    judge: &Judge,
    options: &Options,
    out: &mut Suggestions,
) -> Vec<Chosen> {
    let mut chosen: Vec<Chosen> = Vec::new();
    for ((pair, service), candidate) in candidates {
        let tally = &candidate.tally;
        let by_answers = recurs_answered(options, tally);
        if !by_answers {
            if !recurs_at_all(options, tally) {
                out.totals.rare_flows += tally.flows();
                continue;
            }
            if !options.include_unanswered {
                out.unanswered.push(Recurring {
                    from: end_name(judge, &pair.0),
                    to: end_name(judge, &pair.1),
                    service: service.to_string(),
                    reason: unanswered(tally),
                    evidence: tally.told(false),
                });
                continue;
            }
        }
        let part = if by_answers {
            &tally.answered
        } else {
            &tally.all
        };
        if pair.1 == EndKey::Nobody && part.servers.more() {
            out.left.push(Left {
                from: end_name(judge, &pair.0),
                to: end_name(judge, &pair.1),
                service: service.to_string(),
                reason: format!(
                    "more than {MOST_ADDRESSES} servers that have neither a role nor a name: bind a role to their prefix or names"
                ),
                evidence: tally.told(by_answers),
            });
            continue;
        }
        chosen.push(Chosen {
            pair,
            service,
            candidate,
            by_answers,
        });
    }
    let mut counts: BTreeMap<Pair, (usize, Tally)> = BTreeMap::new();
    for chosen in &chosen {
        let (count, tally) = counts.entry(chosen.pair.clone()).or_default();
        *count += 1;
        tally.merge(&chosen.candidate.tally);
    }
    for (pair, (count, tally)) in &counts {
        if *count > MOST_SERVICES {
            out.left.push(Left {
                from: end_name(judge, &pair.0),
                to: end_name(judge, &pair.1),
                service: "many".to_owned(),
                reason: format!("{count} different services between the same ends: write down what is meant by hand"),
                evidence: tally.told(false),
            });
        }
    }
    chosen.retain(|chosen| {
        counts
            .get(&chosen.pair)
            .is_none_or(|(count, _)| *count <= MOST_SERVICES)
    });
    chosen
}

fn unanswered(tally: &Tally) -> String {
    if tally.is_one_way() {
        "sent without an error, and nobody owes an answer: whether it is received can't be seen; wanted?".to_owned()
    } else if tally.answered_flows() == 0 {
        "attempted, never answered: wanted?".to_owned()
    } else {
        format!(
            "attempted, and answered too rarely ({} times): wanted?",
            tally.answered_flows()
        )
    }
}

/// The system that has both ends, if one has.
fn pack(pair: &Pair) -> Option<(BoundRole, BoundRole)> {
    match pair {
        (EndKey::Role(from), EndKey::Role(to)) if from.system == to.system => Some((*from, *to)),
        _ => None,
    }
}

fn build(chosen: Vec<Chosen>, judge: &Judge, options: &Options, out: &mut Suggestions) {
    let matrix = &judge.explainer().installed().compiled.matrix;
    let Local {
        system: local,
        index,
    } = &options.local;
    let short = |end: &EndKey| match end {
        EndKey::Role(role) => matrix.system(role.system).role_id(role.role).to_owned(),
        EndKey::Named(names) => names
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned(),
        EndKey::Broadcast => "broadcast".to_owned(),
        EndKey::Nobody => "unbound".to_owned(),
    };
    let mut book = RoleBook::new(*index);
    for Chosen {
        pair,
        service,
        candidate,
        by_answers,
    } in &chosen
    {
        if pack(pair).is_none() {
            let part = if *by_answers {
                &candidate.tally.answered
            } else {
                &candidate.tally.all
            };
            let service = service.to_string();
            book.want(
                &pair.0,
                &part.clients,
                Side::Client,
                &short(&pair.1),
                &service,
            );
            book.want(
                &pair.1,
                &part.servers,
                Side::Server,
                &short(&pair.0),
                &service,
            );
        }
    }
    let mut named = book.named(judge, local);
    let mut taken: BTreeMap<String, BTreeSet<String>> = matrix
        .systems
        .iter()
        .map(|system| {
            let ids = system.requirements.iter().map(|row| row.id.to_string());
            (system.id.to_string(), ids.collect())
        })
        .collect();
    for Chosen {
        pair,
        service,
        candidate:
            Candidate {
                tally,
                doubts: of_ports,
                port,
            },
        by_answers,
    } in chosen
    {
        let part = if by_answers {
            &tally.answered
        } else {
            &tally.all
        };
        let (system, from, to) = match pack(&pair) {
            Some((from, to)) => {
                let system = matrix.system(from.system);
                (
                    system.id.to_string(),
                    system.role_id(from.role).to_owned(),
                    system.role_id(to.role).to_owned(),
                )
            }
            None => (
                local.clone(),
                named.id(judge, &pair.0, &part.clients, Side::Client),
                named.id(judge, &pair.1, &part.servers, Side::Server),
            ),
        };
        let requirement = unique(
            &format!("{from}-to-{to}-{service}"),
            taken.entry(system.clone()).or_default(),
        );
        let evidence = tally.told(by_answers);
        let near_misses = near_misses(judge, &pair, service, port, &tally);
        let mut doubts = vec![
            "proposed from traffic, and not by the vendor's document: who needs it, and what for?"
                .to_owned(),
        ];
        if !by_answers {
            doubts.push(unanswered(&tally));
        }
        doubts.extend(of_ports);
        if pair.0 == EndKey::Nobody && part.clients.more() {
            doubts.push(format!(
                "more than {MOST_ADDRESSES} clients that no role has, so that anybody may: bind a role to their prefix if that is too wide"
            ));
        }
        doubts.extend(near_misses.iter().map(|near| {
            format!(
                "near {} ({}): {}",
                near.requirement,
                near.kind.replace('_', " "),
                near.detail
            )
        }));
        out.proposals.push(Proposal {
            id: format!("{system}/{requirement}"),
            system,
            requirement,
            from,
            to,
            services: vec![service.to_string()],
            direction: "outbound",
            necessity: "optional",
            purpose: format!("Seen in traffic: {}", evidence.words()),
            doubts,
            evidence,
            near_misses,
        });
    }
    out.roles = std::mem::take(&mut named.roles);
}

/// What the first of the flows nearly met.
fn near_misses(
    judge: &Judge,
    pair: &Pair,
    service: Service,
    port: Option<u16>,
    tally: &Tally,
) -> Vec<Nearly> {
    let ends = (
        tally.all.clients.items().first(),
        tally.all.servers.items().first(),
    );
    let (Some(client), Some(server)) = ends else {
        return Vec::new();
    };
    let number = match (service.protocol(), client.is_ipv6()) {
        (Protocol::Icmp, true) => protocol::ICMPV6,
        (protocol, _) => protocol.number(),
    };
    let echo = match number {
        protocol::ICMP => u16::from(protocol::ICMP_ECHO_REQUEST),
        protocol::ICMPV6 => u16::from(protocol::ICMPV6_ECHO_REQUEST),
        _ => 0,
    };
    let asked = Asked {
        initiator: (*client).into(),
        initiator_port: None,
        responder: (*server).into(),
        protocol: number,
        service: port.or(service.first()).unwrap_or(echo),
    };
    let roles = |end: &EndKey| match end {
        EndKey::Role(role) => vec![*role],
        EndKey::Named(_) | EndKey::Broadcast | EndKey::Nobody => Vec::new(),
    };
    let explainer = judge.explainer();
    let matrix = &explainer.installed().compiled.matrix;
    explainer
        .near_misses_between(&asked, &roles(&pair.0), &roles(&pair.1))
        .into_iter()
        .take(MOST_NEAR)
        .map(|miss| Nearly {
            kind: miss.kind.name(),
            requirement: matrix.service_id(miss.service),
            detail: miss.detail,
        })
        .collect()
}
