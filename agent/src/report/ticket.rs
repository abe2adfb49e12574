//! What to tell whom when a requirement is blocked or fails: a text that can be sent as it is. It says no more than was seen:
//! silence proves no firewall, and a RST may come from one in the peer's name.

use std::collections::BTreeMap;

use serde::Serialize;

use super::model::{RoleName, Row, Says};
use super::unexpected::{service, shown};
use crate::export::flow_line::FlowLine;
use crate::verdict::requirement::State;

/// Flows and evidence that are told.
const MOST: usize = 8;
/// Addresses a role that are told.
const MOST_ADDRESSES: usize = 12;
/// Outcomes of flows that worked, or of which nothing is known.
const NO_FAILURE: [&str; 4] = ["answered", "closed_after_answer", "pending", "one_way"];

/// An end of what is blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Party {
    /// Its role.
    pub role: RoleName,
    /// What the site binds it to, some of it.
    pub bound: Vec<String>,
}

/// Failed flows between two addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Path {
    /// Who opened them.
    pub initiator: String,
    /// Whom they were for.
    pub responder: String,
    /// `tcp/443`
    pub service: String,
    /// What became of them.
    pub outcome: String,
    /// How many.
    pub flows: u64,
}

/// What to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ticket {
    /// One line.
    pub subject: String,
    /// Who opens; nothing if the matrix given has no such row.
    pub from: Option<Party>,
    /// Who is to answer.
    pub to: Option<Party>,
    /// Whether the other may open as well.
    pub either_way: bool,
    /// The services that fail.
    pub services: Vec<String>,
    /// What happened, in words.
    pub cause: String,
    /// Where, in words.
    pub place: String,
    /// How far both may be trusted.
    pub confidence: Option<String>,
    /// Since when the row is in its state, or the first failure that is known still, RFC 3339.
    pub since: Option<String>,
    /// Its last packet, or that of a later failure.
    pub last: Option<String>,
    /// Flows that failed.
    pub failed: u64,
    /// Failed flows that are known still, some of them.
    pub paths: Vec<Path>,
    /// What the cause rests on.
    pub evidence: Vec<String>,
    /// Whom to ask for what.
    pub ask: String,
    /// What the vendor's document says of the row.
    pub document: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
}

/// What is known of the failed flows of a requirement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failures {
    /// Roles of whoever opened the first of them, as `system/role`.
    pub initiator: Vec<String>,
    /// Between which addresses, some of them.
    pub paths: Vec<Path>,
    /// What the outcomes rest on.
    pub evidence: Vec<String>,
    /// The first failure that is known still, RFC 3339.
    pub first: Option<String>,
    /// The last packet of any, or the last failure, RFC 3339.
    pub last: Option<String>,
}

impl Failures {
    /// Pairs of addresses that a ticket tells of.
    pub const MOST: usize = MOST;

    /// From flows of the requirement, failed ones or not.
    #[must_use]
    pub fn of(flows: &[&FlowLine]) -> Self {
        let failed: Vec<&&FlowLine> = flows
            .iter()
            .filter(|flow| !NO_FAILURE.contains(&&*flow.outcome))
            .collect();
        Self {
            initiator: failed
                .first()
                .map(|flow| flow.initiator.roles.clone())
                .unwrap_or_default(),
            paths: paths(&failed),
            evidence: evidence(&failed),
            first: failed.iter().map(|flow| &flow.first_seen).min().cloned(),
            last: failed.iter().map(|flow| &flow.last_seen).max().cloned(),
        }
    }
}

impl Ticket {
    /// For a row that is blocked or degraded; `failures` are those of the row that are known still.
    #[must_use]
    pub fn new(row: &Row, failures: Failures, bindings: &BTreeMap<String, Vec<String>>) -> Self {
        let failing: Vec<&crate::export::requirement_line::ServiceLine> = row
            .services
            .iter()
            .filter(|service| service.state == row.state.name())
            .collect();
        let says = row.says.as_ref();
        // Where either may open, the way that fails is what the text is about.
        let opened = |initiator: &RoleName| {
            let role = format!("{}/{}", row.system, initiator.id);
            failures.initiator.contains(&role)
        };
        let ends = says.and_then(|says| {
            let ways = &says.initiations;
            let failing = ways.iter().find(|(initiator, _)| opened(initiator));
            failing.or(ways.first()).cloned()
        });
        let party = |role: RoleName| Party {
            bound: bindings
                .get(&format!("{}/{}", row.system, role.id))
                .into_iter()
                .flatten()
                .take(MOST_ADDRESSES)
                .cloned()
                .collect(),
            role,
        };
        let (from, to) = ends.map_or((None, None), |(from, to)| {
            (Some(party(from)), Some(party(to)))
        });
        let services: Vec<String> = failing.iter().map(|line| line.service.clone()).collect();
        let mut failures = failures;
        // No flow is known any more, and what the last one rested on was kept.
        let kept = failing.iter().filter_map(|line| line.last_failure.as_ref());
        if failures.evidence.is_empty() {
            failures.evidence = kept
                .clone()
                .map(|failure| failure.evidence.clone())
                .filter(|text| !text.is_empty())
                .take(MOST)
                .collect();
        }
        let last = kept.map(|failure| &failure.at).max();
        failures.last = failures.last.max(last.cloned());
        // Of a row that was never answered the first attempt failed; of others only the flows tell.
        let since = row.since.clone().or_else(|| match row.state {
            State::Blocked => failing
                .iter()
                .filter_map(|line| line.first_seen.clone())
                .min(),
            State::Verified
            | State::Degraded
            | State::Silent
            | State::Unobservable
            | State::Unknown => None,
        });
        let since = since.or(failures.first);
        // A state is told once a second, and what brought it about was before.
        let since = match (since, &failures.last) {
            (Some(since), Some(last)) => Some(since.min(last.clone())),
            (since, _) => since,
        };
        let ends = from.as_ref().zip(to.as_ref());
        let between = ends.map_or_else(
            || row.id.clone(),
            |(from, to)| format!("{} to {}", from.role.shown(), to.role.shown()),
        );
        let verb = if row.state == State::Blocked {
            "is blocked"
        } else {
            "fails after it had worked"
        };
        Self {
            subject: format!("{between}, {}: {verb}", services.join(", ")),
            from,
            to,
            either_way: says.is_some_and(|says| says.initiations.len() > 1),
            services,
            cause: row
                .cause
                .as_deref()
                .map_or("not known", in_words)
                .to_owned(),
            place: place_in_words(row.place.as_deref()),
            confidence: row.confidence.clone(),
            since,
            last: failures.last,
            failed: failing.iter().map(|line| line.failed).sum(),
            paths: failures.paths,
            evidence: failures.evidence,
            ask: ask(row.cause.as_deref(), row.place.as_deref()),
            document: says.and_then(document),
            purpose: says.and_then(|says| says.purpose.clone()),
        }
    }

    /// The lines of the text, each a title and what is to be said.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let party = |party: &Party| {
            let bound = if party.bound.is_empty() {
                String::new()
            } else {
                format!(": {}", party.bound.join(", "))
            };
            format!("{} [{}]{bound}", party.role.shown(), party.role.id)
        };
        let mut lines = Vec::new();
        lines.extend(self.from.as_ref().map(|from| ("From", party(from))));
        lines.extend(self.to.as_ref().map(|to| {
            let either = if self.either_way {
                " (either may open)"
            } else {
                ""
            };
            ("To", party(to) + either)
        }));
        lines.push(("Service", self.services.join(", ")));
        lines.push(("Cause", self.cause.clone()));
        lines.push(("Place", self.place.clone()));
        lines.extend(self.confidence.clone().map(|text| ("Confidence", text)));
        lines.push((
            "Since",
            match (&self.since, &self.last) {
                (Some(since), Some(last)) if since != last => format!("{since}, last {last}"),
                (Some(since), _) => since.clone(),
                (None, _) => "not known: none of these flows is remembered".to_owned(),
            },
        ));
        lines.push(("Failed", format!("{} flow(s)", self.failed)));
        for path in &self.paths {
            lines.push((
                "Flow",
                format!(
                    "{} -> {} {}: {} {}",
                    path.initiator, path.responder, path.service, path.flows, path.outcome
                ),
            ));
        }
        lines.extend(self.evidence.iter().map(|text| ("Evidence", text.clone())));
        lines.push(("Ask", self.ask.clone()));
        lines.extend(self.purpose.clone().map(|text| ("Purpose", text)));
        lines.extend(self.document.clone().map(|text| ("Required by", text)));
        lines
    }

    /// The text of the ticket.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.subject);
        for (title, line) in self.lines() {
            text.push_str(&format!("{:<13}{line}\n", format!("{title}:")));
        }
        text
    }
}

fn paths(failed: &[&&FlowLine]) -> Vec<Path> {
    let mut paths: Vec<Path> = Vec::new();
    for flow in failed {
        let path = Path {
            initiator: shown(&flow.initiator),
            responder: shown(&flow.responder),
            service: service(flow),
            outcome: flow.outcome.to_string(),
            flows: 1,
        };
        let same = |other: &&mut Path| {
            Path {
                flows: 1,
                ..(**other).clone()
            } == path
        };
        if let Some(known) = paths.iter_mut().find(same) {
            known.flows += 1;
        } else if paths.len() < MOST {
            paths.push(path);
        }
    }
    paths
}

fn evidence(failed: &[&&FlowLine]) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for text in failed.iter().flat_map(|flow| &flow.evidence) {
        if texts.len() < MOST && !texts.contains(text) {
            texts.push(text.clone());
        }
    }
    texts
}

fn document(says: &Says) -> Option<String> {
    let section = says.section.as_ref()?;
    Some(match says.row {
        Some(row) => format!("the vendor's document, section {section}, row {row}"),
        None => format!("the vendor's document, section {section}"),
    })
}

/// What a cause means; the cause as it is if nobody here knows it.
#[must_use]
pub fn in_words(cause: &str) -> &str {
    match cause {
        "refused" => "refused: the answer was a TCP RST, or ICMP port unreachable",
        "prohibited" => "prohibited: an ICMP error said that it is administratively prohibited",
        "unreachable" => "unreachable: an ICMP error said that there is no way",
        "no_answer" => "no_answer: nothing came back",
        "dropped_here" => "dropped_here: by the kernel of the host that captures",
        "one_way" => "one_way: sent without an error, and no answer is owed",
        "pending" => "pending: attempted, and not decided yet",
        "loss" => "loss: packets or events were lost",
        "not_watched" => "not_watched: for a part of the time nobody watched",
        "name_does_not_resolve" => "name_does_not_resolve: who asked was told no address",
        "name_never_resolved" => "name_never_resolved: nobody asked for the name",
        "lost_on_path" => "lost_on_path: it is sent and does not arrive",
        "refused_by_peer" => {
            "refused_by_peer: it arrives, and is refused, dropped or left without an answer there"
        }
        "answer_lost" => {
            "answer_lost: it arrives and is answered, and the answer does not come back"
        }
        "dropped_at_source" => "dropped_at_source: the sender's own kernel stops it",
        "unlocated" => "unlocated: it fails, and no agent can tell where",
        "never_sent" => "never_sent: no agent's host has tried",
        "agent_unknown" => "agent_unknown: an agent that should know is down or blind",
        "no_agent" => "no_agent: no agent that answers can see it",
        "role_not_bound" => "role_not_bound: the site binds a role to no address",
        "role_unknown" => "role_unknown: the document does not name an end",
        "no_services" => "no_services: the document names no port",
        "other_host" => "other_host: it stays on a host that is not this one",
        "not_captured_here" => "not_captured_here: both ends are outside of what is seen here",
        "link_upkeep" => "link_upkeep: it keeps up the link, which is never judged",
        other => other,
    }
}

fn place_in_words(place: Option<&str>) -> String {
    match place {
        Some("this_host") => "this host, on which flowproof captures".to_owned(),
        Some("peer") => "the responder, or somebody who answers in its name".to_owned(),
        Some("path") => {
            "somewhere between the capture and the responder, or the responder itself; silence does not say where".to_owned()
        }
        Some(place) => match place.strip_prefix("hop ") {
            Some(address) => format!("the device {address}, which sent the error"),
            None => place.to_owned(),
        },
        None => "not known".to_owned(),
    }
}

/// Whom to ask for what, by the cause and the place of a failure.
#[must_use]
pub fn ask(cause: Option<&str>, place: Option<&str>) -> String {
    let hop = place.and_then(|place| place.strip_prefix("hop "));
    match (cause, place, hop) {
        (Some("prohibited"), _, Some(hop)) => format!(
            "whoever runs {hop}: which rule prohibits it, and to allow it as required"
        ),
        (Some("unreachable"), _, Some(hop)) => {
            format!("whoever runs the router {hop}: why it knows no way to the responder")
        }
        (_, _, Some(hop)) => format!("whoever runs {hop}: why it answered with an error"),
        (_, Some("this_host"), _) => {
            "the administrator of this host: its own firewall rules, and the drop reason above".to_owned()
        }
        (Some("refused"), _, _) => {
            "the owner of the responder: does the service listen on this port? If it does: the firewall team, since firewalls \
             refuse in a server's name too"
                .to_owned()
        }
        (Some("prohibited"), _, _) => {
            "the owner of the responder: its host firewall prohibits it".to_owned()
        }
        (Some("lost_on_path"), _, _) => {
            "the firewall or network team: it leaves the sender and does not arrive; which rule or route in between stops it?"
                .to_owned()
        }
        (Some("refused_by_peer"), _, _) => {
            "the owner of the responder: it arrives there; does the service listen, and does the host's own firewall take it?"
                .to_owned()
        }
        (Some("answer_lost"), _, _) => {
            "the firewall or network team: it arrives and is answered; which rule or route stops the answer on its way back?"
                .to_owned()
        }
        (Some("dropped_at_source"), _, _) => {
            "the administrator of the sender: its own firewall rules".to_owned()
        }
        (Some("unlocated"), _, _) => {
            "whoever runs flowproof: an agent at every host of the responder tells whether it arrives there".to_owned()
        }
        (_, Some("path"), _) => {
            "first the owner of the responder: is it up, and does its own firewall take this? Then the firewall team: does a \
             rule on the way drop it, in either direction?"
                .to_owned()
        }
        (_, _, _) => "the owner of the responder".to_owned(),
    }
}
