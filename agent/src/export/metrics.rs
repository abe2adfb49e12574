//! Prometheus metrics, made at scrape time from one view of the daemon, so that all series of a scrape belong together
//! and nothing is counted twice in two places.
//!
//! Labels are bounded by the matrix. Every series of a requirement exists, at 0, from the start: an alert on "never
//! seen" needs something to compare.

mod fleet;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use flowproof_common::classify::Verdict;
use flowproof_common::record::{InterfaceCounters, SlotFlows, SlotTraffic};
use flowproof_common::state::Outcome;

use super::exposition::{Exposition, Family, Kind, write_labels};
use super::metrics_web;
use crate::capture::SlotTotals;
use crate::draft::report::Counts;
use crate::engine::actor::View;
use crate::engine::chronicle::{Row, Standing};
use crate::engine::health::Reload;
use crate::engine::unexpected::UnexpectedService;
use crate::events::SinkStatus;
use crate::ledger::Status;
use crate::matrix::compiled::BoundRole;
use crate::matrix::{Protocol, RoleRef, ServiceKey};
use crate::names::NameSource;
use crate::privilege::Layers;
use crate::site::tags::TagStatus;
use crate::verdict::requirement::{Resolution, State};
use crate::web;

/// The version of the daemon.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The revision that it was built from, or `unknown`.
pub const REVISION: &str = match option_env!("FLOWPROOF_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
/// What the labels of flows in no series of their own say.
pub const OTHER: &str = "~other";
/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Values of the label `direction`, in the order of the counters.
const DIRECTIONS: [&str; 2] = ["to_responder", "to_initiator"];

/// Outcomes that are counted. `closed_after_answer` is none of them: such a flow was counted when it was answered.
const COUNTED: [Outcome; 8] = [
    Outcome::Answered,
    Outcome::Refused,
    Outcome::Prohibited,
    Outcome::Unreachable,
    Outcome::NoAnswer,
    Outcome::DroppedHere,
    Outcome::OneWay,
    Outcome::Pending,
];

/// What is told beside the standing of requirements.
#[derive(Debug, Clone, Copy)]
pub struct Beside<'a> {
    /// How the ledger does, if there is one.
    pub ledger: Option<&'a Status>,
    /// What a draft of the matrix would change, if there is one.
    pub draft: Option<&'a Counts>,
    /// How the matrix was read last.
    pub reload: Option<Reload>,
    /// How the site's service tags were read.
    pub tags: &'a TagStatus,
    /// How the destinations of events do.
    pub sinks: &'a [SinkStatus],
    /// What of the sandbox is in force.
    pub layers: Layers,
    /// What the web server knows of those who ask.
    pub web: &'a web::Status,
}

/// The metrics in the Prometheus text format, version 0.0.4, in a stable order.
#[must_use]
pub fn text(standing: &Standing, beside: &Beside<'_>) -> String {
    let view = &standing.view;
    let mut families = Exposition::default();
    requirements(standing, &mut families);
    fleet::families(standing, &mut families);
    flows(view, &mut families);
    names(view, &mut families);
    capture(view, &mut families);
    service_tags(beside.tags, &mut families);
    evidence(standing, beside.ledger, &mut families);
    if let Some(draft) = beside.draft {
        families.push(drafted(draft));
    }
    events(beside.sinks, &mut families);
    metrics_web::families(beside.web, &mut families);
    own(view, beside.reload, &mut families);
    families.push(sandbox(beside.layers));
    families.finish()
}

/// What a row's series are labelled with, written once for all of them.
struct Labelled<'a> {
    labels: String,
    row: &'a Row,
}

fn requirements(standing: &Standing, families: &mut Exposition) {
    let view = &standing.view;
    let mut info = Family::gauge(
        "flowproof_requirement_info",
        "A requirement of the matrix in force, always 1. from and to are its roles, section and row its place in the vendor's document.",
    );
    let mut rows = Vec::with_capacity(standing.rows.len());
    let matrix = &view.matrix.compiled.matrix;
    for (index, system) in matrix.indexed_systems() {
        for (position, requirement) in system.indexed_requirements() {
            let (section, row) = requirement
                .provenance
                .as_ref()
                .map_or((String::new(), String::new()), |place| {
                    (place.section.clone(), place.row.to_string())
                });
            let names = [
                ("system", system.id.as_str()),
                ("requirement", requirement.id.as_str()),
            ];
            let info_labels = [
                names[0],
                names[1],
                ("from", system.role_id(requirement.from)),
                ("to", system.role_id(requirement.to)),
                ("necessity", requirement.necessity.as_str()),
                ("section", &section),
                ("row", &row),
            ];
            info.push(&info_labels, 1.0);
            for (service, value) in requirement.indexed_services() {
                let key = ServiceKey {
                    system: index,
                    requirement: position,
                    service,
                };
                let Some(row) = standing.row(key) else {
                    continue;
                };
                let service = value.to_string();
                let mut labels = String::new();
                write_labels(
                    &mut labels,
                    &[names[0], names[1], ("service", service.as_str())],
                );
                rows.push(Labelled { labels, row });
            }
        }
    }
    families.push(info);
    of_rows(view, &rows, families);
}

/// Series of services, a family at a time, so that each goes straight to its place.
fn of_rows(view: &View, rows: &[Labelled<'_>], families: &mut Exposition) {
    let state = (
        "flowproof_requirement_state",
        "1 for the state that a requirement's service is in over the window, 0 for the others: verified, degraded (failed since it was last answered), blocked (never answered), silent (never attempted), unobservable from here, unknown (attempted without a decision, or something was lost, or nobody watched). `flowproof explain --requirement SYSTEM/REQUIREMENT --daemon` tells why, and whom to ask.",
        Kind::Gauge,
    );
    families.write(state, |out| {
        for Labelled { labels, row } in rows {
            for known in State::ALL {
                let now = row.window.finding.state;
                let value = if known == now { 1.0 } else { 0.0 };
                out.push(labels, &[("state", known.name())], value);
            }
        }
    });
    let attempts = (
        "flowproof_requirement_attempts_total",
        "Flows begun that a requirement's service covers, whatever became of them. A flow that a reload gives to other requirements is begun for these as well.",
        Kind::Counter,
    );
    families.write(attempts, |out| {
        for Labelled { labels, row } in rows {
            out.push(labels, &[], number(row.totals.flows.begun));
        }
    });
    let outcomes = (
        "flowproof_requirement_flows_total",
        "Flows that a requirement's service covers, counted once, when their outcome is decided; an answer that comes late is counted as well. outcome=\"pending\" ended undecided. There is no closed_after_answer: such a flow was counted as answered.",
        Kind::Counter,
    );
    families.write(outcomes, |out| {
        for Labelled { labels, row } in rows {
            for outcome in COUNTED {
                let count = row.totals.flows.decided[outcome as usize];
                out.push(labels, &[("outcome", outcome.name())], number(count));
            }
        }
    });
    for (name, help, traffic) in [
        (
            "flowproof_requirement_packets_total",
            "Packets of the flows that a requirement's service covers.",
            (|traffic: &SlotTraffic| traffic.packets) as fn(&SlotTraffic) -> [u64; 2],
        ),
        (
            "flowproof_requirement_bytes_total",
            "Bytes of the flows that a requirement's service covers, link headers included.",
            |traffic: &SlotTraffic| traffic.bytes,
        ),
    ] {
        families.write((name, help, Kind::Counter), |out| {
            for Labelled { labels, row } in rows {
                let counts = traffic(&row.totals.traffic);
                for (direction, count) in DIRECTIONS.into_iter().zip(counts) {
                    out.push(labels, &[("direction", direction)], number(count));
                }
            }
        });
    }
    for (name, help, time) in [
        (
            "flowproof_requirement_last_attempt_timestamp_seconds",
            "When the last flow that a requirement's service covers was begun, in seconds since the Unix epoch; 0 if none was.",
            (|flows: &SlotFlows| flows.last_attempt) as fn(&SlotFlows) -> u64,
        ),
        (
            "flowproof_requirement_last_answered_timestamp_seconds",
            "When the last flow that a requirement's service covers was answered, in seconds since the Unix epoch; 0 if none was.",
            |flows: &SlotFlows| flows.last_answered,
        ),
    ] {
        families.write((name, help, Kind::Gauge), |out| {
            for Labelled { labels, row } in rows {
                out.push(labels, &[], seconds(view, time(&row.totals.flows)));
            }
        });
    }
}

fn flows(view: &View, families: &mut Exposition) {
    let mut outcomes = Family::counter(
        "flowproof_flows_total",
        "Flows by verdict, counted once, when their outcome is decided; an answer that comes late is counted as well. outcome=\"pending\" ended undecided. There is no closed_after_answer: such a flow was counted as answered.",
    );
    let mut begun = Family::counter(
        "flowproof_flows_begun_total",
        "Flows begun, by verdict, whatever became of them. A flow that a reload gives another verdict is begun for this as well.",
    );
    let mut packets = Family::counter(
        "flowproof_packets_total",
        "Packets judged, by the verdict of their flow when they passed. The sum is every packet that belongs to a flow.",
    );
    let mut bytes = Family::counter(
        "flowproof_bytes_total",
        "Bytes of the packets judged, link headers included.",
    );
    for verdict in Verdict::ALL {
        let SlotTotals { flows, traffic } = view.verdict_totals(verdict);
        begun.push(&[("verdict", verdict.name())], number(flows.begun));
        for outcome in COUNTED {
            let labels = [("verdict", verdict.name()), ("outcome", outcome.name())];
            outcomes.push(&labels, number(flows.decided[outcome as usize]));
        }
        for (side, direction) in DIRECTIONS.into_iter().enumerate() {
            let labels = [("verdict", verdict.name()), ("direction", direction)];
            packets.push(&labels, number(traffic.packets[side]));
            bytes.push(&labels, number(traffic.bytes[side]));
        }
    }
    let mut unexpected = Family::counter(
        "flowproof_unexpected_flows_total",
        "Flows begun that a bound role takes part in and no requirement covers, by the roles of initiator and responder. The most frequent have a series; from=\"~other\" counts all others, see flowproof_unexpected_services. Write the missing row, or stop the traffic: `flowproof suggest` and the page say which.",
    );
    for (service, flows) in &view.unexpected {
        let text = service_text(service);
        let labels = [
            ("from", &*service.from),
            ("to", &*service.to),
            ("service", text.as_str()),
        ];
        unexpected.push(&labels, number(*flows));
    }
    let other = [("from", OTHER), ("to", OTHER), ("service", OTHER)];
    unexpected.push(&other, number(view.unexpected_other));
    let mut services = Family::gauge(
        "flowproof_unexpected_services",
        "Kinds of unexpected flows (from, to, service) that are told apart now: with a series of their own in flowproof_unexpected_flows_total, and folded into its ~other. Of more than 1,024 kinds the most frequent are told apart.",
    );
    let size = |count: usize| number(u64::try_from(count).unwrap_or(u64::MAX));
    services.push(&[("series", "own")], size(view.unexpected.len()));
    services.push(&[("series", "other")], size(view.unexpected_folded));
    for family in [outcomes, begun, packets, bytes, unexpected, services] {
        families.push(family);
    }
}

/// The service of an unexpected flow as a matrix would write it: `tcp/8443`, `icmp/8`, `gre`.
#[must_use]
pub fn service_text(service: &UnexpectedService) -> String {
    let protocol = Protocol::from_number(service.protocol);
    let has_number = protocol.has_ports() || matches!(protocol, Protocol::Icmp | Protocol::Icmpv6);
    if has_number {
        format!("{protocol}/{}", service.port)
    } else {
        protocol.to_string()
    }
}

/// What is known of the names that a row's roles are bound to, as values of the label `resolution`.
const RESOLUTIONS: [(Resolution, &str); 3] = [
    (Resolution::Never, "never"),
    (Resolution::Failing, "failing"),
    (Resolution::Resolved, "resolved"),
];

fn names(view: &View, families: &mut Exposition) {
    row_names(view, families);
    let (book, naming) = (&view.book, &view.naming);
    let mut answers = Family::counter(
        "flowproof_dns_answers_total",
        "DNS answers that were read from the traffic or given to the daemon itself, by what they say: found (with an address that a peer can have), no_data (no record of the kind), nxdomain, servfail, refused, other response codes; unreadable is what came from a DNS server and could not be read as an answer.",
    );
    for (result, count) in [
        ("found", book.learned),
        ("no_data", book.negative.no_data),
        ("nxdomain", book.negative.no_name),
        ("servfail", book.negative.server_failure),
        ("refused", book.negative.refused),
        ("other", book.negative.other),
        ("unreadable", naming.answers_unread),
    ] {
        answers.push(&[("result", result)], number(count));
    }
    let mut awaiting = Family::gauge(
        "flowproof_flows_awaiting_name",
        "Flows whose verdict depends on a name that is not settled yet. Until it is, or their time is over, they are in no count of flows or packets; then with all that went before.",
    );
    awaiting.push(&[], number(naming.waiting));
    let mut named = Family::counter(
        "flowproof_flows_named_total",
        "Flows whose verdict depended on a name, once that was settled, by where the name was read: server name of TLS or QUIC, Host of HTTP/1, DNS, or nowhere.",
    );
    for (source, count) in NameSource::ALL.into_iter().zip(naming.named) {
        named.push(&[("source", source.name())], number(count));
    }
    let mut mismatches = Family::counter(
        "flowproof_name_mismatches_total",
        "Flows whose address is allowed under another name than their own, or whose name DNS contradicts. They are unexpected; /api/v1/flows has both names.",
    );
    mismatches.push(&[], number(naming.mismatches));
    let size = |count: usize| number(u64::try_from(count).unwrap_or(u64::MAX));
    let mut known = Family::gauge(
        "flowproof_names_known",
        "Names that DNS gave addresses or aliases to: needed by the matrix or leading to a needed one, and others.",
    );
    let mut evicted = Family::counter(
        "flowproof_names_evicted_total",
        "Names that went before their time to make room, see flowproof_names_known.",
    );
    for (kind, count, gone) in [
        ("needed", book.names_needed, book.evicted_needed),
        ("other", book.names_other, book.evicted_other),
    ] {
        known.push(&[("kind", kind)], size(count));
        evicted.push(&[("kind", kind)], number(gone));
    }
    let mut addresses = Family::gauge(
        "flowproof_name_addresses",
        "Addresses that are judged by a name of the matrix that they stand for now.",
    );
    addresses.push(&[], number(naming.placed));
    for family in [
        answers, awaiting, named, mismatches, known, evicted, addresses,
    ] {
        families.push(family);
    }
}

/// What resolvers said of the names of each row's roles: rows without names have no series.
fn row_names(view: &View, families: &mut Exposition) {
    let mut family = Family::gauge(
        "flowproof_requirement_names",
        "Names and patterns that the roles of a requirement are bound to, by what resolvers said last, to whomever: never (nobody asked), failing (it does not exist, or the resolver could not say), resolved. Of a pattern, one resolved name that it matches is enough.",
    );
    let compiled = &view.matrix.compiled;
    let mut by_role: HashMap<BoundRole, [u64; RESOLUTIONS.len()]> = HashMap::new();
    for (number, name) in compiled.names.iter().enumerate() {
        let said = view.names.get(number).copied().unwrap_or(Resolution::Never);
        for role in &name.roles {
            let counts = by_role.entry(*role).or_default();
            for (count, (resolution, _)) in counts.iter_mut().zip(RESOLUTIONS) {
                *count += u64::from(resolution == said);
            }
        }
    }
    for (index, system) in compiled.matrix.indexed_systems() {
        for requirement in &system.requirements {
            let roles: BTreeSet<RoleRef> = [requirement.from, requirement.to].into();
            let counts: Vec<_> = roles
                .into_iter()
                .filter_map(|role| {
                    by_role.get(&BoundRole {
                        system: index,
                        role,
                    })
                })
                .collect();
            if counts.is_empty() {
                continue;
            }
            for (position, (_, resolution)) in RESOLUTIONS.into_iter().enumerate() {
                let labels = [
                    ("system", system.id.as_str()),
                    ("requirement", requirement.id.as_str()),
                    ("resolution", resolution),
                ];
                let count = counts
                    .iter()
                    .filter_map(|counts| counts.get(position))
                    .sum();
                family.push(&labels, number(count));
            }
        }
    }
    families.push(family);
}

fn capture(view: &View, families: &mut Exposition) {
    let backend = view.backend.name();
    let mut up = Family::gauge(
        "flowproof_capture_up",
        "1 while the capture works and its totals are current, 0 when it failed: then every other series stands still. The log says why; mend that and restart the daemon.",
    );
    let working = if view.failure.is_none() { 1.0 } else { 0.0 };
    up.push(&[("backend", backend)], working);
    // An interface that went and came back is there twice, with another index.
    let mut counters: BTreeMap<&str, InterfaceCounters> = BTreeMap::new();
    for (name, more) in &view.snapshot.interfaces {
        let sum = counters.entry(name).or_default();
        sum.packets += more.packets;
        sum.bytes += more.bytes;
        sum.not_ip += more.not_ip;
        sum.unparsed += more.unparsed;
        sum.link_upkeep += more.link_upkeep;
    }
    let mut attached = Family::gauge(
        "flowproof_capture_interface_attached",
        "1 while the interface is watched, 0 if it was let go or can't be watched: the log says why. Bring it up, or leave it out of `capture: {interfaces: ...}`.",
    );
    for interface in &view.attached {
        counters.entry(&interface.name).or_default();
    }
    let refused = view.refused.iter().map(|(name, _)| name.as_str());
    let names: BTreeSet<&str> = counters.keys().copied().chain(refused).collect();
    for name in names {
        let watched = view.attached.iter().any(|interface| interface.name == name);
        let labels = [("backend", backend), ("interface", name)];
        attached.push(&labels, if watched { 1.0 } else { 0.0 });
    }
    let mut family = |name, help, value: fn(&InterfaceCounters) -> u64| {
        let mut family = Family::counter(name, help);
        for (name, counters) in &counters {
            let labels = [("backend", backend), ("interface", *name)];
            family.push(&labels, number(value(counters)));
        }
        families.push(family);
    };
    family(
        "flowproof_capture_packets_total",
        "Frames that the interface handed to the capture, received and sent.",
        |counters| counters.packets,
    );
    family(
        "flowproof_capture_bytes_total",
        "Bytes of the frames that the interface handed to the capture.",
        |counters| counters.bytes,
    );
    family(
        "flowproof_capture_unparsed_total",
        "Frames that claim to be IP and could not be read; they are judged by nothing. If it grows, look at some with tcpdump: a broken sender, or an encapsulation that is not read yet.",
        |counters| counters.unparsed,
    );
    family(
        "flowproof_capture_not_ip_total",
        "Frames that carry no IP, such as ARP and LLDP.",
        |counters| counters.not_ip,
    );
    family(
        "flowproof_capture_link_upkeep_total",
        "Packets that keep up the link itself (IGMP, neighbour and listener discovery), which no matrix lists.",
        |counters| counters.link_upkeep,
    );
    families.push(up);
    families.push(attached);
    let mut lost = Family::counter(
        "flowproof_lost_total",
        "What was lost, by stage. While any stage but promotion and flow_counters grows, silence of a requirement proves nothing; of those of names (payload_ring, name_head, dns, name) only where it has names: payload_ring is heads of conversations and DNS answers that the kernel's buffer had no room for, name_head is heads that the capture cut short or that were too many at once, dns is answers that were cut short or came faster than they are read, and DNS connections that could not be followed, name is flows whose name would have mattered and was not known in the end: unscoped if it was lost on the way, in no count if they ended before; flow_counters is times that flows of very many packets forgot a part of their own numbers, which those of requirements do have. If kernel_capture grows, raise `buffer_size` of libpcap; if flow_table does, raise `flows` of the back end; else give the daemon more processor time.",
    );
    for (stage, count) in &view.snapshot.lost {
        lost.push(&[("stage", *stage)], number(*count));
    }
    lost.push(&[("stage", "queue")], number(view.queue_lost));
    families.push(lost);
    let mut entries = Family::gauge("flowproof_flow_table_entries", "Flows in the table now.");
    let mut room = Family::gauge(
        "flowproof_flow_table_capacity",
        "Flows that the table has room for.",
    );
    let mut evictions = Family::counter(
        "flowproof_flow_table_evictions_total",
        "Flows that were pushed out of the table to make room; their totals are kept. If it grows for the verified table, raise `flows: {verified: ...}` of the back end; for the unverified one, look for a scan or a flood first.",
    );
    for table in &view.snapshot.tables {
        let labels = [("table", table.table)];
        entries.push(&labels, number(table.entries));
        room.push(&labels, number(table.capacity));
        evictions.push(&labels, number(table.evictions));
    }
    for family in [entries, room, evictions] {
        families.push(family);
    }
}

fn service_tags(tags: &TagStatus, families: &mut Exposition) {
    let mut prefixes = Family::gauge(
        "flowproof_service_tag_prefixes",
        "Prefixes of a service tag that the site or a deployed pack names, joined where they are adjacent. 0: it has only names.",
    );
    for (tag, count) in &tags.in_use {
        let count = u64::try_from(*count).unwrap_or(u64::MAX);
        prefixes.push(&[("tag", tag)], number(count));
    }
    let mut loaded = Family::gauge(
        "flowproof_service_tag_file_loaded",
        "1 if the content of a file of service tags is in force, 0 if its last good copy is: the file can't be read, or shrank by more than half. Mend it, or take it with `tags: {accept_shrunk: true}`.",
    );
    for file in &tags.files {
        let value = if file.fresh { 1.0 } else { 0.0 };
        loaded.push(&[("file", &file.path)], value);
    }
    families.push(prefixes);
    families.push(loaded);
}

/// What the draft would change.
fn drafted(counts: &Counts) -> Family {
    let mut flows = Family::counter(
        "flowproof_draft_flows_total",
        "Flows that began since the draft of the matrix was read, by what it would change for them. change=\"newly_unexpected\" is what nobody will expect any more once it is in force: see /draft.",
    );
    for (change, tally) in [
        ("newly_unexpected", counts.newly_unexpected),
        ("newly_covered", counts.newly_covered),
        ("newly_unscoped", counts.newly_unscoped),
        ("by_other_rows", counts.by_other_rows),
        ("still_expected", counts.still_expected),
        ("still_unexpected", counts.still_unexpected),
        ("still_unscoped", counts.still_unscoped),
        ("still_open", counts.still_open),
        ("undecided", counts.undecided),
    ] {
        flows.push(&[("change", change)], number(tally.flows));
    }
    flows
}

/// How far back is looked, how well was watched, and where evidence goes.
fn evidence(standing: &Standing, ledger: Option<&Status>, families: &mut Exposition) {
    let mut window = Family::gauge(
        "flowproof_window_seconds",
        "How far back the states of requirements look.",
    );
    window.push(&[], standing.window.as_secs_f64());
    let mut gap = Family::gauge(
        "flowproof_last_gap_timestamp_seconds",
        "When silence last proved nothing, in seconds since the Unix epoch; 0 if never. kind=\"packets\": packets or events were lost; names: names of flows were lost; blind: nothing was captured, or nobody watched.",
    );
    let watch = &standing.watch;
    for (kind, time) in [
        ("packets", watch.last_packets_lost),
        ("names", watch.last_names_lost),
        ("blind", watch.last_blind),
    ] {
        gap.push(&[("kind", kind)], time.map_or(0.0, of_epoch));
    }
    families.push(window);
    families.push(gap);
    let Some(ledger) = ledger else { return };
    let mut up = Family::gauge(
        "flowproof_ledger_up",
        "1 while evidence is written to the disk, 0 while it is in memory only: the log says why. Free or mend the disk.",
    );
    up.push(&[], if ledger.problem.is_none() { 1.0 } else { 0.0 });
    let mut until = Family::gauge(
        "flowproof_ledger_written_timestamp_seconds",
        "Up to when evidence is on the disk, in seconds since the Unix epoch; 0 before the first write.",
    );
    until.push(&[], of_epoch(ledger.written_until));
    let mut bytes = Family::gauge(
        "flowproof_ledger_size_bytes",
        "Bytes of the ledger and its log.",
    );
    bytes.push(&[], number(ledger.bytes));
    let mut writes = Family::counter("flowproof_ledger_writes_total", "Batches written.");
    writes.push(&[], number(ledger.written));
    let mut dropped = Family::counter(
        "flowproof_ledger_dropped_total",
        "Records that found no room in memory, and are lost: the disk could not be written, or more different flows began within a second than are told apart. Counts of rows are exact all the same.",
    );
    dropped.push(&[], number(ledger.dropped));
    for family in [up, until, bytes, writes, dropped] {
        families.push(family);
    }
}

fn events(sinks: &[SinkStatus], families: &mut Exposition) {
    let mut told = Family::counter("flowproof_events_total", "Events that a destination took.");
    let mut dropped = Family::counter(
        "flowproof_events_dropped_total",
        "Events that a destination refused, or that found no room while it took none: the log says why. They are lost to it; states and counts are exact all the same.",
    );
    let mut up = Family::gauge(
        "flowproof_event_sink_up",
        "1 while a destination takes events, 0 while it does not: it is tried again, and the log says why. Mend the file, the server or the collector.",
    );
    let mut waiting = Family::gauge(
        "flowproof_events_waiting",
        "Events that a destination has not taken yet. Beyond 16,384 the newest are dropped: mend the destination before.",
    );
    for status in sinks {
        let labels = [("sink", status.sink)];
        waiting.push(&labels, number(status.waiting));
        told.push(&labels, number(status.delivered));
        dropped.push(&labels, number(status.dropped));
        up.push(&labels, if status.up { 1.0 } else { 0.0 });
    }
    for family in [told, dropped, waiting, up] {
        families.push(family);
    }
}

fn sandbox(layers: Layers) -> Family {
    let mut family = Family::gauge(
        "flowproof_sandbox",
        "1 if the daemon has given up, in all its threads, what it does not need, 0 if not, by layer: it was told so, or the kernel lacks it; the log says which.",
    );
    for (layer, in_force) in layers.each() {
        family.push(&[("layer", layer)], if in_force { 1.0 } else { 0.0 });
    }
    family
}

fn own(view: &View, reload: Option<Reload>, families: &mut Exposition) {
    let mut successful = Family::gauge(
        "flowproof_matrix_last_reload_successful",
        "1 if the matrix was in force after the last attempt to read it, 0 if that failed and the one before stays: the log has the place of the error, and `flowproof check` shows it.",
    );
    let mut success = Family::gauge(
        "flowproof_matrix_last_reload_success_timestamp_seconds",
        "When the matrix in force was read, in seconds since the Unix epoch.",
    );
    if let Some(reload) = reload {
        successful.push(&[], if reload.successful { 1.0 } else { 0.0 });
        success.push(&[], since_epoch(reload.last_success));
    }
    let mut build = Family::gauge(
        "flowproof_build_info",
        "The daemon and the capture back end at work, always 1.",
    );
    let labels = [
        ("version", VERSION),
        ("revision", REVISION),
        ("backend", view.backend.name()),
    ];
    build.push(&labels, 1.0);
    for family in [successful, success, build] {
        families.push(family);
    }
}

/// Counters beyond 2^53 lose their last digit, as in every Prometheus client.
#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus samples are 64-bit floats"
)]
pub(super) const fn number(count: u64) -> f64 {
    count as f64
}

/// A time of the back end in seconds since the epoch, to the millisecond.
#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds since 1970 stay below 2^53 for 280,000 years"
)]
fn seconds(view: &View, time: u64) -> f64 {
    view.epoch_nanos(time)
        .map_or(0.0, |nanos| (nanos / 1_000_000) as f64 / 1_000.0)
}

/// A time in nanoseconds since the Unix epoch in seconds, to the millisecond.
#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds since 1970 stay below 2^53 for 280,000 years"
)]
fn of_epoch(nanos: u64) -> f64 {
    (nanos / 1_000_000) as f64 / 1_000.0
}

pub(super) fn since_epoch(time: SystemTime) -> f64 {
    let duration = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (duration.as_secs_f64() * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::capture::{Interface, Snapshot, TableFill};
    use crate::draft::report::Tally;
    use crate::engine::chronicle::standing;
    use crate::engine::fake::{EPOCH, view};
    use crate::engine::policy;
    use crate::engine::whereabouts::Whereabouts;
    use crate::export::metrics_table;
    use crate::matrix::installed::{Installed, SlotDirectory};
    use crate::site::tags::{FileStatus, TagOptions};
    use crate::verdict::stance::Stances;

    const MATRIX: &str = "system: app\ntitle: App\nroles: {web: {}, db: {}, cloud: {names: [a.example, b.example, \"*.c.example\"]}}\nrequirements:\n\
        - {id: web-to-db, from: web, to: db, services: [tcp/5432, vrrp], provenance: {section: \"A \\\"B\\\"\", row: 3}}\n\
        - {id: nothing, from: web, to: unknown, services: [], necessity: optional}\n\
        - {id: web-to-cloud, from: web, to: cloud, services: [tcp/443]}\n";
    const SITE: &str =
        "site: s\nsystems: [app]\nroles: {app/web: [192.0.2.1], app/db: [192.0.2.2]}\n";

    fn installed(matrix: &str) -> Arc<Installed> {
        let folder = tempfile::tempdir().unwrap();
        let matrix_path = folder.path().join("m.yaml");
        let site_path = folder.path().join("s.yaml");
        std::fs::write(&matrix_path, matrix).unwrap();
        std::fs::write(&site_path, SITE).unwrap();
        let policy = policy::load(
            &[matrix_path],
            Some(&site_path),
            &TagOptions::default(),
            &[],
        )
        .unwrap();
        Arc::new(Installed::new(policy.compiled, SlotDirectory::default()))
    }

    /// Three seconds after the fake back end began.
    const NOW: u64 = EPOCH + 3_000_000_000;

    fn draft() -> Counts {
        let tally = |flows| Tally { flows, answered: 1 };
        Counts {
            newly_unexpected: tally(2),
            still_expected: tally(3),
            ..Counts::default()
        }
    }

    fn ledger() -> Status {
        Status {
            problem: None,
            dropped: 1,
            written: 2,
            written_until: NOW - 1_500_000_000,
            bytes: 8_192,
            set_aside: 0,
        }
    }

    fn tags() -> TagStatus {
        let file = |path: &str, fresh| FileStatus {
            path: path.to_owned(),
            fresh,
        };
        TagStatus {
            in_use: vec![("Storage.WestEurope".to_owned(), 42)],
            files: vec![file("tags/azure.json", true), file("tags/own.txt", false)],
        }
    }

    fn sinks() -> Vec<SinkStatus> {
        vec![SinkStatus {
            sink: "json",
            delivered: 3,
            dropped: 1,
            waiting: 2,
            up: true,
        }]
    }

    fn layers() -> Layers {
        Layers {
            capabilities: true,
            no_new_privs: true,
            landlock: false,
            seccomp: true,
        }
    }

    fn reload() -> Option<Reload> {
        Some(Reload {
            successful: true,
            last_success: UNIX_EPOCH + Duration::from_millis(1_700_000_000_500),
        })
    }

    #[test]
    fn the_scrape_is_the_golden_one() {
        let matrix = installed(MATRIX);
        let tcp = matrix
            .directory
            .slots_of(crate::matrix::installed::MemberId::of(
                "app/web-to-db#tcp/5432",
            ))
            .next()
            .unwrap();
        let mut slots = vec![SlotTotals::default(); matrix.directory.len()];
        let mut decided = [0; Outcome::COUNT];
        decided[Outcome::Answered as usize] = 3;
        decided[Outcome::NoAnswer as usize] = 1;
        slots[tcp as usize] = SlotTotals {
            traffic: SlotTraffic {
                packets: [40, 30],
                bytes: [4_000, 90_000],
                last_seen: 2_000_000_000,
            },
            flows: SlotFlows {
                begun: 5,
                decided,
                last_attempt: 2_500_000_000,
                last_answered: 1_250_000_000,
                last_failed: 1_200_000_000,
            },
        };
        slots[1].flows.begun = 7;
        let mut view = view(matrix);
        let counters = InterfaceCounters {
            packets: 10,
            bytes: 1_000,
            not_ip: 2,
            unparsed: 1,
            ..InterfaceCounters::default()
        };
        view.snapshot = Arc::new(Snapshot {
            slots,
            // The same name with another index.
            interfaces: vec![("eth0".to_owned(), counters), ("eth0".to_owned(), counters)],
            lost: vec![("kernel_capture", 4), ("flow_table", 0)],
            tables: vec![TableFill {
                table: "verified",
                entries: 3,
                capacity: 1_024,
                evictions: 0,
            }],
        });
        view.attached = vec![Interface {
            index: 2,
            name: "eth0".to_owned(),
        }];
        view.refused = vec![("tun0".to_owned(), "no".to_owned())];
        view.unexpected = vec![(
            UnexpectedService {
                from: Arc::from("app/web"),
                to: Arc::from("~unbound"),
                protocol: 17,
                port: 4_789,
            },
            6,
        )];
        view.unexpected_other = 1;
        view.unexpected_folded = 2;
        view.names = vec![Resolution::Resolved, Resolution::Failing];
        view.naming = crate::names::NamerCounts {
            answers_unread: 2,
            named: [5, 4, 3, 2, 1],
            mismatches: 6,
            waiting: 7,
            placed: 8,
            ..crate::names::NamerCounts::default()
        };
        view.book.names_needed = 9;
        view.book.evicted_other = 10;
        view.book.learned = 11;
        view.book.negative.no_name = 12;
        let mut standing = standing(view, NOW);
        // At the database.
        let own = ["192.0.2.2".parse().unwrap()];
        standing.place = Whereabouts {
            site: Arc::from("s"),
            stances: Arc::new(Stances::new(&standing.view.matrix, &own, &[])),
        };
        let got = text(
            &standing,
            &Beside {
                ledger: Some(&ledger()),
                draft: Some(&draft()),
                reload: reload(),
                tags: &tags(),
                sinks: &sinks(),
                layers: layers(),
                web: &metrics_web::example(),
            },
        )
        .replace(&format!("revision=\"{REVISION}\""), "revision=\"REVISION\"")
        .replace(&format!("version=\"{VERSION}\""), "version=\"VERSION\"");
        let own = crate::export::own::text(&crate::export::own::tests::all());
        let got = got + &own;
        is_golden("src/export/metrics.golden", &got);
        is_golden("../docs/metrics.md", &metrics_table::page(&got));
    }

    /// Holds a text to the file at `path`, relative to this crate.
    fn is_golden(path: &str, got: &str) {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("FLOWPROOF_UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, got).unwrap();
        }
        let expect = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            got == expect,
            "this differs from {path}; if that is meant, run the test with FLOWPROOF_UPDATE_GOLDEN=1:\n{got}"
        );
    }

    #[test]
    fn every_series_of_a_requirement_exists_from_the_start() {
        let text = text(
            &standing(view(installed(MATRIX)), NOW),
            &Beside {
                ledger: None,
                draft: None,
                reload: None,
                tags: &TagStatus::default(),
                sinks: &[],
                layers: Layers::default(),
                web: &web::Status::default(),
            },
        );
        for series in [
            "flowproof_requirement_flows_total{system=\"app\",requirement=\"web-to-db\",service=\"vrrp\",outcome=\"no_answer\"} 0",
            "flowproof_requirement_attempts_total{system=\"app\",requirement=\"web-to-db\",service=\"tcp/5432\"} 0",
            "flowproof_requirement_last_answered_timestamp_seconds{system=\"app\",requirement=\"web-to-db\",service=\"vrrp\"} 0",
            "flowproof_unexpected_flows_total{from=\"~other\",to=\"~other\",service=\"~other\"} 0",
            "flowproof_lost_total{stage=\"queue\"} 0",
            "flowproof_capture_up{backend=\"pcap\"} 1",
        ] {
            assert!(text.contains(series), "{series}\n{text}");
        }
        assert!(!text.contains("closed_after_answer\""));
    }

    #[test]
    fn families_are_named_and_explained_as_prometheus_wants_it() {
        let mut view = view(installed(MATRIX));
        view.failure = Some("gone".to_owned());
        let text = text(
            &standing(view, NOW),
            &Beside {
                ledger: Some(&ledger()),
                draft: Some(&draft()),
                reload: reload(),
                tags: &tags(),
                sinks: &sinks(),
                layers: layers(),
                web: &metrics_web::example(),
            },
        );
        let (mut names, mut series) = (BTreeSet::new(), BTreeSet::new());
        let mut name = "";
        for line in text.lines() {
            if let Some(line) = line.strip_prefix("# HELP ") {
                let help;
                (name, help) = line.split_once(' ').unwrap();
                assert!(names.insert(name), "{name} is there twice");
                assert!(help.ends_with('.'), "{name}");
            } else if let Some(line) = line.strip_prefix("# TYPE ") {
                let kind = line.strip_prefix(name).unwrap();
                assert_eq!(kind == " counter", name.ends_with("_total"), "{name}");
            } else {
                let (sample, _) = line.rsplit_once(' ').unwrap();
                let own = sample.split_once('{').map_or(sample, |(own, _)| own);
                assert_eq!(own, name);
                assert!(series.insert(sample), "{sample} is there twice");
            }
        }
    }

    #[test]
    fn ten_thousand_series_take_well_under_a_second() {
        let rows: String = (0..500)
            .map(|row| {
                format!(
                    "- {{id: r{row}, from: web, to: db, services: [tcp/{}]}}\n",
                    row + 1
                )
            })
            .collect();
        let matrix = format!(
            "system: app\ntitle: App\nroles: {{web: {{}}, db: {{}}}}\nrequirements:\n{rows}"
        );
        let view = view(installed(&matrix));
        let begin = Instant::now();
        let text = text(
            &standing(view, NOW),
            &Beside {
                ledger: Some(&ledger()),
                draft: Some(&draft()),
                reload: reload(),
                tags: &tags(),
                sinks: &sinks(),
                layers: layers(),
                web: &metrics_web::example(),
            },
        );
        let taken = begin.elapsed();
        assert!(text.lines().count() > 10_000);
        // Generous: the machine may be busy and the build is not optimized.
        assert!(taken < Duration::from_millis(500), "{taken:?}");
    }
}
