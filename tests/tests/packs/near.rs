//! Flows that are nearly right, and what each nearly met.
//!
//! The expectation walks all rows for each flow, in the order of ranks that the daemon documents; the daemon itself
//! looks them up in sorted indexes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::pack::{protocol, role};
use super::plan::{Plan, Row, Spec, Way, across, calls, covers, is_vrrp_group};

/// A flow that no row covers.
#[derive(Debug)]
pub(crate) struct Near {
    pub(crate) spec: Spec,
    /// The kind of its best near miss.
    pub(crate) kind: &'static str,
    /// What the best near miss may name: these are equally near.
    pub(crate) best: BTreeSet<String>,
    /// Every (kind, id) that is true of it.
    pub(crate) truths: BTreeSet<(&'static str, String)>,
}

/// What is done to a flow that a row covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Twist {
    Port,
    Protocol,
    Initiator,
    Source,
    Destination,
}

impl Twist {
    pub(crate) const ALL: [Self; 5] = [
        Self::Port,
        Self::Protocol,
        Self::Initiator,
        Self::Source,
        Self::Destination,
    ];

    const fn kind(self) -> &'static str {
        match self {
            Self::Port => "other_port",
            Self::Protocol => "other_protocol",
            Self::Initiator => "reversed",
            Self::Source => "other_source",
            Self::Destination => "other_destination",
        }
    }
}

/// Twists every row in every way that leads to a flow which no row covers, and whose best near miss is that row.
pub(crate) fn twisted(plan: &Plan<'_>) -> Vec<Near> {
    let mut found: BTreeMap<(IpAddr, IpAddr, u8, u16), Near> = BTreeMap::new();
    for (turn, row) in plan.rows.iter().enumerate() {
        if row.specs.is_empty() {
            continue;
        }
        for (from, to) in row.requirement.initiations() {
            for twist in Twist::ALL {
                let near = candidates(plan, row, (from, to), twist, turn)
                    .find_map(|spec| near(plan, row, spec, twist));
                if let Some(near) = near {
                    found.entry(near.spec.key()).or_insert(near);
                }
            }
        }
    }
    found.into_values().collect()
}

/// Flows that differ from what a row covers in one respect, made as they are asked for.
fn candidates<'a>(
    plan: &'a Plan<'_>,
    row: &'a Row<'_>,
    (from, to): (&'a str, &'a str),
    twist: Twist,
    turn: usize,
) -> Box<dyn Iterator<Item = Spec> + 'a> {
    let Some(&(protocol, first, last)) = row.service.ranges.get(turn % row.service.ranges.len())
    else {
        return Box::new(std::iter::empty());
    };
    let port = if protocol == protocol::VRRP { 0 } else { first };
    let has_ports = matches!(protocol, protocol::TCP | protocol::UDP);
    let crossing = move |from: &str, to: &str, protocol, port| {
        across(plan.site, from, to, protocol, port, turn)
    };
    // A stranger's flow has no near miss but by the other end.
    let twistable = ![from, to].contains(&role::ANY);
    match twist {
        Twist::Port if has_ports && twistable => Box::new(
            (1..=200)
                .flat_map(move |distance| [last.checked_add(distance), first.checked_sub(distance)])
                .flatten()
                .filter(|port| *port > 0)
                .filter_map(move |port| crossing(from, to, protocol, port)),
        ),
        Twist::Protocol if has_ports && twistable => {
            let other = if protocol == protocol::TCP {
                protocol::UDP
            } else {
                protocol::TCP
            };
            Box::new(crossing(from, to, other, port).into_iter())
        }
        Twist::Initiator if twistable => Box::new(crossing(to, from, protocol, port).into_iter()),
        Twist::Port | Twist::Protocol | Twist::Initiator => Box::new(std::iter::empty()),
        Twist::Source => Box::new(others(plan, turn).flat_map(move |other| {
            let called = (other != role::ANY)
                .then(|| {
                    calls(plan.site, other, to, protocol, port)
                        .into_iter()
                        .take(1)
                })
                .into_iter()
                .flatten();
            crossing(other, to, protocol, port)
                .into_iter()
                .chain(called)
        })),
        Twist::Destination => Box::new(
            others(plan, turn).filter_map(move |other| crossing(from, other, protocol, port)),
        ),
    }
}

/// Other roles, a different one first for each row, and strangers last; for every fifth row first.
fn others<'a>(plan: &'a Plan<'_>, turn: usize) -> impl Iterator<Item = &'a str> {
    let roles: Vec<&str> = plan
        .packs
        .iter()
        .flat_map(|pack| &pack.roles)
        .map(|role| role.id.as_str())
        .collect();
    let start = turn % roles.len().max(1);
    let strangers_first = turn.is_multiple_of(5).then_some(role::ANY);
    let (before, after) = roles.split_at(start);
    let declared = [after, before].concat();
    strangers_first
        .into_iter()
        .chain(declared)
        .chain([role::ANY])
}

/// The near miss that a flow is, if no row covers it and it is nearest to this one.
fn near(plan: &Plan<'_>, row: &Row<'_>, spec: Spec, twist: Twist) -> Option<Near> {
    let covered = plan
        .rows
        .iter()
        .any(|other| covers(other.requirement, other.service, &spec));
    // Without a role at either end it is nobody's business.
    if covered || spec.from.is_empty() && spec.to.is_empty() {
        return None;
    }
    // What is only called is told from its answer by nothing but the address.
    if spec.way == Way::Called && twist != Twist::Source {
        return None;
    }
    let ranks = ranks(plan, &spec);
    let best = ranks.iter().find(|rank| !rank.is_empty())?;
    let distance = best.iter().map(|near| near.0).min()?;
    let nearest: BTreeSet<String> = best
        .iter()
        .filter(|near| near.0 == distance)
        .map(|near| near.2.clone())
        .collect();
    let kind = best.first()?.1;
    (kind == twist.kind() && nearest.contains(&id(row))).then(|| Near {
        spec,
        kind,
        best: nearest,
        truths: ranks
            .concat()
            .into_iter()
            .map(|(_, kind, id)| (kind, id))
            .collect(),
    })
}

pub(crate) fn id(row: &Row<'_>) -> String {
    format!(
        "{}/{}#{}",
        row.requirement.system, row.requirement.id, row.service.name
    )
}

/// What a flow nearly met, as (distance, kind, id), by the rank of the kind.
pub(crate) fn ranks(plan: &Plan<'_>, spec: &Spec) -> [Vec<(u16, &'static str, String)>; 6] {
    let mut ranks: [Vec<_>; 6] = Default::default();
    let is = |roles: &[String], wanted: &str| roles.iter().any(|role| role == wanted);
    let may = |roles: &[String], wanted: &str| wanted == role::ANY || is(roles, wanted);
    for row in plan
        .rows
        .iter()
        .filter(|row| !row.requirement.has_unknown_end())
    {
        for (from, to) in row.requirement.initiations() {
            let same = may(&spec.from, from) && may(&spec.to, to);
            let reversed = may(&spec.to, from) && may(&spec.from, to);
            for (protocol, first, last) in row.service.ranges.iter().copied() {
                let inside = (first..=last).contains(&spec.port);
                let distance = first
                    .saturating_sub(spec.port)
                    .max(spec.port.saturating_sub(last));
                let has_ports = |number| matches!(number, protocol::TCP | protocol::UDP);
                let comparable = has_ports(protocol) && has_ports(spec.protocol);
                let same_protocol = protocol == spec.protocol;
                let mut add = |rank: usize, distance, kind| {
                    ranks[rank].push((distance, kind, id(row)));
                };
                if same && !same_protocol && comparable && inside {
                    add(0, 0, "other_protocol");
                } else if same && !same_protocol {
                    add(5, if comparable { distance } else { 0 }, "other_protocol");
                }
                if same && same_protocol && !inside {
                    add(2, distance, "other_port");
                }
                if same_protocol && inside {
                    if reversed {
                        add(1, 0, "reversed");
                    }
                    if is(&spec.to, to) || is_vrrp_group(spec) {
                        add(3, 0, "other_source");
                    }
                    if is(&spec.from, from) {
                        add(4, 0, "other_destination");
                    }
                }
            }
        }
    }
    ranks
}
