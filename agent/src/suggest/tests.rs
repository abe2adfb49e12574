//! What becomes a proposal and what does not, each rule by an example; and what holds whatever the records are.

use std::sync::{Arc, LazyLock};

use flowproof_common::classify::Verdict;
use flowproof_common::state::Outcome;

use super::patch::{Wanted, change, create};
use super::*;
use crate::ledger::{HourCounts, HourKey, HourRecord};
use crate::matrix::compile::HostAddresses;
use crate::matrix::compiled::Compiled;
use crate::matrix::installed::{Installed, SlotDirectory};
use crate::matrix::{Matrix, MatrixReading, Protocol};
use crate::site::Site;
use crate::site::tags::TagBook;
use crate::verdict::Explainer;

const SHOP: &str = "\
system: shop
title: Shop
roles:
  client: {title: Client}
  web: {title: Web}
  db: {title: Database}
  agent: {title: Agent, names: [agent.example]}
requirements:
  - id: browse
    from: client
    to: web
    services: [tcp/443]
  - {id: query, from: web, to: db, services: [tcp/5432]}
  - {id: resolve, from: web, to: agent, services: [udp/53]}
";
const PRINT: &str = "\
system: print
title: Print
roles: {user: , printer: }
requirements:
  - id: print
    from: user
    to: printer
    services: [tcp/9100]
";
const SITE: &str = "
roles:
  shop/client: [10.1.0.0/16]
  shop/web: [10.2.0.0/24]
  shop/db: [10.2.1.5]
  print/user: [10.1.5.0/24, 10.7.0.0/16]
  print/printer: [10.9.0.0/16]
";

/// Matrix files and what judges by them.
struct World {
    files: Vec<(String, String)>,
    explainer: Explainer,
    local: Local,
}

impl World {
    fn new(files: &[(&str, &str)]) -> Self {
        let mut reading = MatrixReading::default();
        let mut ids = Vec::new();
        for (name, text) in files {
            let read = Matrix::read_text(name, text);
            assert!(!read.findings.has_errors(), "{text}\n{:?}", read.findings);
            ids.extend(
                read.matrix
                    .systems
                    .iter()
                    .map(|system| system.id.to_string()),
            );
            reading.matrix.systems.extend(read.matrix.systems);
        }
        let text = format!("site: s\nsystems: [{}]\n{SITE}", ids.join(", "));
        let site = Site::read_text("site.yaml", &text, &reading).site.unwrap();
        let bindings = site.role_bindings(&reading.matrix, &TagBook::default());
        let index = reading.matrix.find_system("local");
        let compiled =
            Compiled::compile(Arc::new(reading.matrix), bindings, &HostAddresses::Unknown).unwrap();
        let installed = Installed::new(Arc::new(compiled), SlotDirectory::default());
        Self {
            files: files
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
            explainer: Explainer::new(Arc::new(installed)),
            local: Local {
                system: "local".to_owned(),
                index,
            },
        }
    }

    /// Made once: compiling is most of what a test costs.
    fn shop() -> &'static Self {
        static WORLD: LazyLock<World> =
            LazyLock::new(|| World::new(&[("shop", SHOP), ("print", PRINT)]));
        &WORLD
    }

    fn suggest(&self, records: &[HourRecord]) -> Suggestions {
        self.suggest_by(records, |_| ())
    }

    fn suggest_by(&self, records: &[HourRecord], set: impl FnOnce(&mut Options)) -> Suggestions {
        let mut options = Options {
            min_flows: 3,
            min_hours: 2,
            include_unanswered: false,
            local: self.local.clone(),
        };
        set(&mut options);
        let mut survey = Survey::new(self.explainer.clone(), options);
        records.iter().for_each(|record| survey.add(record));
        let mut gathering = survey.finish();
        records.iter().for_each(|record| gathering.add(record));
        gathering.finish()
    }

    /// As if the patch had been applied.
    fn patched(&self, found: &Suggestions) -> Self {
        let mut files = self.files.clone();
        let mut systems: Vec<&str> = found
            .proposals
            .iter()
            .map(|proposal| proposal.system.as_str())
            .collect();
        systems.sort_unstable();
        systems.dedup();
        for system in systems {
            let wanted = Wanted {
                roles: found
                    .roles
                    .iter()
                    .filter(|role| role.system == system)
                    .collect(),
                proposals: found
                    .proposals
                    .iter()
                    .filter(|it| it.system == system)
                    .collect(),
                removals: Vec::new(),
            };
            match files.iter_mut().find(|(name, _)| name == system) {
                Some((name, text)) => {
                    let (change, notes) = change(name, text, &wanted).unwrap();
                    assert_eq!(notes, []);
                    *text = change.text;
                }
                None => files.push((system.to_owned(), create(system, system, &wanted).text)),
            }
        }
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        Self::new(&files)
    }

    fn verdict(&self, record: &HourRecord) -> Verdict {
        let mut judge = judge::Judge::new(self.explainer.clone(), self.local.index);
        match judge.judge(&record.key) {
            judge::Judged::Unexpected(_) => Verdict::Unexpected,
            judge::Judged::Settled | judge::Judged::Undecided => {
                let bound = |address| judge.end_of(address) != judge::EndKey::Nobody;
                if bound(record.key.initiator) || bound(record.key.responder) {
                    Verdict::Expected
                } else {
                    Verdict::Unscoped
                }
            }
        }
    }
}

fn address(text: &str) -> flowproof_common::address::Address {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

/// Flows of an hour, of which so many were answered and the others were not.
fn record(hour: u64, from: &str, to: &str, service: &str, flows: u64, answered: u64) -> HourRecord {
    let (protocol, port) = service.split_once('/').unwrap_or((service, "0"));
    let mut decided = [0; Outcome::COUNT];
    decided[Outcome::Answered as usize] = answered;
    decided[Outcome::NoAnswer as usize] = flows - answered;
    HourRecord {
        key: HourKey {
            hour: 480_000 + hour,
            initiator: address(from),
            responder: address(to),
            protocol: protocol.parse::<Protocol>().unwrap().number(),
            port: port.parse().unwrap(),
            verdict: Verdict::Unexpected,
            names: String::new(),
        },
        counts: HourCounts {
            begun: flows,
            decided,
        },
    }
}

fn named(mut record: HourRecord, names: &str) -> HourRecord {
    record.key.names = names.to_owned();
    record
}

/// Answered in two hours.
fn recurring(from: &str, to: &str, service: &str) -> Vec<HourRecord> {
    vec![
        record(1, from, to, service, 2, 2),
        record(30, from, to, service, 2, 2),
    ]
}

/// `id: from -> to services`
fn lines(found: &Suggestions) -> Vec<String> {
    found
        .proposals
        .iter()
        .map(|it| {
            format!(
                "{}: {} -> {} {}",
                it.id,
                it.from,
                it.to,
                it.services.join(" ")
            )
        })
        .collect()
}

#[track_caller]
fn check(records: &[HourRecord], expect: &[&str]) -> Suggestions {
    let world = World::shop();
    let found = world.suggest(records);
    assert_eq!(lines(&found), expect, "{found:#?}");
    let anew = world.patched(&found).suggest(records);
    assert_eq!(lines(&anew), [""; 0]);
    found
}

#[test]
fn what_recurs_between_roles_of_a_pack_belongs_to_it() {
    let found = check(
        &recurring("10.1.0.9", "10.2.0.1", "tcp/8443"),
        &["shop/client-to-web-tcp-8443: client -> web tcp/8443"],
    );
    let proposal = &found.proposals[0];
    assert_eq!(
        (proposal.direction, proposal.necessity),
        ("outbound", "optional")
    );
    assert_eq!(
        proposal.purpose,
        "Seen in traffic: 4 flows (4 answered), 1 client to 1 server, in 2 hours of 2 days, 2024-10-04T01:00Z to \
         2024-10-05T06:00Z"
    );
    assert_eq!(
        proposal.doubts[1],
        "near shop/browse#tcp/443 (other port): tcp/443 is allowed from `client` to `web`, tcp/8443 is not"
    );
    assert_eq!(found.roles, []);
}

#[test]
fn what_a_row_covers_by_now_is_not_proposed() {
    let found = check(&recurring("10.1.0.9", "10.2.0.1", "tcp/443"), &[]);
    assert_eq!(found.totals.unexpected_flows, 0);
    assert_eq!(found.totals.flows, 4);
    // Neither is what the matrix has nothing to do with.
    check(&recurring("192.0.2.1", "192.0.2.2", "tcp/443"), &[]);
}

#[test]
fn what_is_rare_is_only_counted() {
    for records in [
        vec![record(1, "10.1.0.9", "10.2.0.1", "tcp/8443", 9, 9)],
        vec![
            record(1, "10.1.0.9", "10.2.0.1", "tcp/8443", 1, 1),
            record(2, "10.1.0.9", "10.2.0.1", "tcp/8443", 1, 1),
        ],
    ] {
        let found = check(&records, &[]);
        assert_eq!(found.totals.rare_flows, found.totals.unexpected_flows);
    }
    let hourly = record(1, "10.1.0.9", "10.2.0.1", "tcp/8443", 9, 9);
    let found = World::shop().suggest_by(&[hourly], |options| options.min_hours = 1);
    assert_eq!(found.proposals.len(), 1);
}

#[test]
fn what_is_never_answered_is_only_told() {
    let records = [1, 2, 3].map(|hour| record(hour, "10.1.0.9", "10.2.0.1", "tcp/8443", 5, 0));
    let found = check(&records, &[]);
    let told = &found.unanswered[0];
    assert_eq!(
        (told.from.as_str(), told.to.as_str(), told.service.as_str()),
        ("shop/client", "shop/web", "tcp/8443")
    );
    assert_eq!(told.reason, "attempted, never answered: wanted?");
    assert_eq!(
        (told.evidence.flows, told.evidence.outcomes["no_answer"]),
        (15, 15)
    );
    let world = World::shop();
    let found = world.suggest_by(&records, |options| options.include_unanswered = true);
    assert_eq!(
        lines(&found),
        ["shop/client-to-web-tcp-8443: client -> web tcp/8443"]
    );
    assert_eq!(found.proposals[0].doubts[1], told.reason);
    // Answered, but not often enough.
    let mut rarely = records.to_vec();
    rarely.push(record(1, "10.1.0.8", "10.2.0.1", "tcp/8443", 2, 2));
    let found = check(&rarely, &[]);
    assert!(found.unanswered[0].reason.contains("too rarely (2 times)"));
    // Nobody answers syslog.
    let mut logs = record(1, "10.1.0.9", "10.2.0.1", "udp/514", 9, 0);
    logs.counts
        .decided
        .swap(Outcome::NoAnswer as usize, Outcome::OneWay as usize);
    let mut later = logs.clone();
    later.key.hour += 1;
    let found = check(&[logs, later], &[]);
    assert!(found.unanswered[0].reason.contains("nobody owes an answer"));
}

#[test]
fn strangers_get_a_role_of_the_site_local_matrix() {
    let mut records = recurring("192.0.2.1", "10.2.0.1", "tcp/22");
    records.extend(recurring("192.0.2.2", "10.2.0.1", "tcp/22"));
    records.extend(recurring("10.1.0.9", "192.0.2.9", "udp/123"));
    let found = check(
        &records,
        &[
            "local/clients-of-web-tcp-22-to-shop-web-tcp-22: clients-of-web-tcp-22 -> shop-web tcp/22",
            "local/shop-client-to-host-192-0-2-9-udp-123: shop-client -> host-192-0-2-9 udp/123",
        ],
    );
    let roles: Vec<String> = found
        .roles
        .iter()
        .map(|role| format!("{} {}", role.id, role.names.join(" ")))
        .collect();
    assert_eq!(
        roles,
        [
            "shop-client 10.1.0.9",
            "shop-web 10.2.0.1",
            "clients-of-web-tcp-22 192.0.2.1 192.0.2.2",
            "host-192-0-2-9 192.0.2.9"
        ]
    );
    // A client that was never answered shows no need.
    records.push(record(1, "192.0.2.3", "10.2.0.1", "tcp/22", 1, 0));
    let found = World::shop().suggest(&records);
    assert!(
        found
            .roles
            .iter()
            .all(|role| !role.names.contains(&"192.0.2.3".to_owned()))
    );
}

#[test]
fn many_clients_are_anybody_and_many_servers_are_left() {
    let clients: Vec<HourRecord> = (1..=40)
        .flat_map(|last| recurring(&format!("192.0.2.{last}"), "10.2.0.1", "tcp/80"))
        .collect();
    let found = check(
        &clients,
        &["local/any-to-shop-web-tcp-80: any -> shop-web tcp/80"],
    );
    assert!(
        found.proposals[0]
            .doubts
            .iter()
            .any(|doubt| doubt.contains("anybody may"))
    );
    assert_eq!(
        found.proposals[0].evidence.clients.words("client"),
        "more than 32 clients"
    );
    let servers: Vec<HourRecord> = (1..=40)
        .flat_map(|last| recurring("10.2.0.1", &format!("192.0.2.{last}"), "tcp/443"))
        .collect();
    let found = check(&servers, &[]);
    assert!(
        found.left[0].reason.contains("more than 32 servers"),
        "{:?}",
        found.left
    );
    // With a name they are one.
    let servers: Vec<HourRecord> = servers
        .into_iter()
        .map(|record| named(record, "cdn.example"))
        .collect();
    let found = check(
        &servers,
        &["local/shop-web-to-cdn-example-tcp-443: shop-web -> cdn-example tcp/443"],
    );
    assert_eq!(found.roles[1].names, ["cdn.example"]);
}

#[test]
fn roles_of_two_packs_meet_in_the_site_local_matrix() {
    // An address of two systems takes part as the first of its roles.
    let mut records = recurring("10.1.5.7", "10.9.0.3", "udp/161");
    // The pack of `print` can say that itself.
    let print = "print/user-to-printer-udp-161: user -> printer udp/161";
    check(&records, &[print]);
    records = recurring("10.2.0.3", "10.9.0.3", "tcp/9100");
    let found = check(
        &records,
        &["local/shop-web-to-print-printer-tcp-9100: shop-web -> print-printer tcp/9100"],
    );
    assert_eq!(found.proposals[0].near_misses[0].kind, "other_source");
    // More addresses of a bound prefix are the prefix.
    let records: Vec<HourRecord> = (1..=20)
        .flat_map(|last| recurring("10.2.0.3", &format!("10.9.0.{last}"), "tcp/9100"))
        .collect();
    let found = World::shop().suggest(&records);
    assert_eq!(found.roles[1].names, ["10.9.0.0/16"]);
    let records: Vec<HourRecord> = (1..=40)
        .flat_map(|last| recurring("10.2.0.3", &format!("10.9.0.{last}"), "tcp/9100"))
        .collect();
    let found = check(
        &records,
        &["local/shop-web-to-print-printer-tcp-9100: shop-web -> print-printer tcp/9100"],
    );
    assert_eq!(found.roles[1].names, ["10.9.0.0/16"]);
}

#[test]
fn a_second_run_adds_to_the_site_local_matrix() {
    let records = recurring("192.0.2.1", "10.2.0.1", "tcp/22");
    let world = World::shop();
    let world = world.patched(&world.suggest(&records));
    let more = recurring("192.0.2.1", "10.2.0.1", "tcp/2222");
    let found = world.suggest(&more);
    assert_eq!(
        lines(&found),
        ["local/host-192-0-2-1-to-shop-web-tcp-2222: host-192-0-2-1 -> shop-web tcp/2222"]
    );
    assert_eq!(found.roles, []);
    // Another server of the same role.
    let more = recurring("192.0.2.1", "10.2.0.4", "tcp/22");
    let found = world.suggest(&more);
    assert_eq!(
        lines(&found),
        ["local/host-192-0-2-1-to-shop-web-2-tcp-22: host-192-0-2-1 -> shop-web-2 tcp/22"]
    );
    assert_eq!(
        lines(&world.patched(&found).suggest(&[records, more].concat())),
        [""; 0]
    );
}

#[test]
fn many_ports_of_those_that_clients_use_are_one_range() {
    let ports = |ports: &[u16]| -> Vec<HourRecord> {
        ports
            .iter()
            .flat_map(|port| recurring("10.1.0.9", "10.2.0.1", &format!("tcp/{port}")))
            .collect()
    };
    let id = "shop/client-to-web-tcp-";
    check(
        &ports(&[49_664, 49_700, 50_123]),
        &[&format!("{id}49152-65535: client -> web tcp/49152-65535")],
    );
    check(
        &ports(&[33_000, 49_700, 50_123]),
        &[&format!("{id}32768-60999: client -> web tcp/32768-60999")],
    );
    let found = check(
        &ports(&[
            33_000, 49_700, 65_000, 60_001, 60_002, 60_003, 60_004, 60_005, 60_006, 60_007,
        ]),
        &[&format!("{id}32768-65535: client -> web tcp/32768-65535")],
    );
    assert!(found.proposals[0].doubts[1].contains("more than 8 ports between 33000 and 65000"));
    // A single one needs several clients.
    let found = check(&ports(&[49_664]), &[]);
    assert!(
        found.left[0].reason.contains("a single client"),
        "{:?}",
        found.left
    );
    let mut records = ports(&[49_664]);
    records.extend(recurring("10.1.0.10", "10.2.0.2", "tcp/49664"));
    check(&records, &[&format!("{id}49664: client -> web tcp/49664")]);
    // Below that range each port stands for itself.
    let found = World::shop().suggest(&ports(&[8_000, 8_001, 8_002, 8_003]));
    assert_eq!(found.proposals.len(), 4);
}

#[test]
fn an_answer_that_was_taken_for_a_request_is_no_service() {
    // The web server answers over what the matrix allows its clients.
    let mut records = vec![record(1, "10.1.0.9", "10.2.0.1", "tcp/443", 1, 1)];
    records.extend(recurring("10.2.0.1", "10.1.0.9", "tcp/51234"));
    let found = check(&records, &[]);
    assert_eq!(found.mistaken[0].service, "tcp/443");
    // A resolver's late answers, to many ports, in whatever role.
    let mut records = vec![record(1, "10.1.0.9", "10.2.0.1", "udp/53", 1, 0)];
    for port in 50_000..50_030 {
        records.extend(recurring("10.2.0.1", "10.1.0.9", &format!("udp/{port}")));
    }
    let found = check(&records, &[]);
    assert_eq!(
        (
            found.mistaken[0].service.as_str(),
            found.mistaken[0].evidence.flows
        ),
        ("udp/53", 120)
    );
    // Connections to many ports were opened by whoever opened them, such as active FTP.
    let mut records = vec![record(1, "10.1.0.9", "10.2.0.1", "tcp/21", 1, 1)];
    for port in 50_000..50_003 {
        records.extend(recurring("10.2.0.1", "10.1.0.9", &format!("tcp/{port}")));
    }
    check(
        &records,
        &["shop/web-to-client-tcp-49152-65535: web -> client tcp/49152-65535"],
    );
}

/// Many ports of a host, of which the first few answer, often.
fn scan(from: &str, to: &str) -> Vec<HourRecord> {
    let mut records: Vec<HourRecord> = (1..=40)
        .map(|port| record(1, from, to, &format!("tcp/{port}"), 1, 0))
        .collect();
    for port in 1..=3 {
        records.extend(recurring(from, to, &format!("tcp/{port}")));
    }
    records
}

#[test]
fn a_scan_is_told_and_never_proposed() {
    for from in ["10.1.0.9", "192.0.2.1"] {
        let found = check(&scan(from, "10.2.0.1"), &[]);
        let told = &found.scans[0];
        assert_eq!(
            (told.initiator.as_str(), told.targets, told.answered_targets),
            (from, 40, 3)
        );
        assert_eq!(
            told.reason,
            "one initiator, 40 targets (1 hosts, 40 services), of which 3 answered"
        );
        assert_eq!(found.unanswered, []);
    }
    // One port of many hosts.
    let sweep: Vec<HourRecord> = (1..=100)
        .flat_map(|last| {
            let answered = u64::from(last % 10 == 0) * 4;
            [1, 2].map(|hour| {
                record(
                    hour,
                    "10.1.0.9",
                    &format!("10.9.0.{last}"),
                    "tcp/445",
                    4,
                    answered,
                )
            })
        })
        .collect();
    let found = check(&sweep, &[]);
    assert!(found.scans[0].more);
    // Ports that clients use.
    let high: Vec<HourRecord> = (40_000..40_030)
        .flat_map(|port| {
            let to = format!("10.2.0.{}", port % 10);
            let answered = u64::from(port == 40_000) * 3;
            [1, 2].map(|hour| record(hour, "10.1.0.9", &to, &format!("tcp/{port}"), 3, answered))
        })
        .collect();
    let found = check(&high, &[]);
    assert!(
        found.left[0].reason.contains("looks like a scan"),
        "{found:#?}"
    );
}

#[test]
fn ping_is_one_service_in_both_versions() {
    let records = recurring("10.1.0.9", "10.2.0.1", "icmp/8");
    check(&records, &["shop/client-to-web-icmp: client -> web icmp"]);
    check(
        &recurring("10.1.0.9", "10.2.0.1", "icmp/13"),
        &["shop/client-to-web-icmp-13: client -> web icmp/13"],
    );
    check(
        &recurring("10.1.0.9", "10.2.0.1", "gre"),
        &["shop/client-to-web-gre: client -> web gre"],
    );
    let found = check(&recurring("10.1.0.9", "10.2.0.1", "tcp/0"), &[]);
    assert_eq!(found.totals.rare_flows, 4);
}

#[test]
fn broadcasts_and_groups_are_said_as_packs_say_them() {
    for to in ["10.1.255.255", "255.255.255.255"] {
        let records = recurring("10.1.0.9", to, "udp/137");
        check(
            &records,
            &["shop/client-to-broadcast-udp-137: client -> broadcast udp/137"],
        );
    }
    let vrrp = recurring("10.2.0.1", "224.0.0.18", "vrrp");
    check(&vrrp, &["shop/web-to-web-vrrp: web -> web vrrp"]);
    let found = check(
        &recurring("10.2.0.1", "239.1.2.3", "udp/5000"),
        &["local/shop-web-to-host-239-1-2-3-udp-5000: shop-web -> host-239-1-2-3 udp/5000"],
    );
    assert_eq!(found.roles[1].names, ["239.1.2.3"]);
}

#[test]
fn a_name_that_was_not_recorded_decides_nothing() {
    let records: Vec<HourRecord> = recurring("10.2.0.1", "192.0.2.53", "udp/53")
        .into_iter()
        .map(|mut record| {
            record.key.verdict = Verdict::Expected;
            record
        })
        .collect();
    let found = check(&records, &[]);
    assert_eq!(
        (found.totals.undecided_flows, found.totals.unexpected_flows),
        (4, 0)
    );
    // With the name the row covers it.
    let records: Vec<HourRecord> = records
        .into_iter()
        .map(|record| named(record, "agent.example x.example"))
        .collect();
    let found = check(&records, &[]);
    assert_eq!(
        (found.totals.undecided_flows, found.totals.unexpected_flows),
        (0, 0)
    );
}

/// What is recorded are names of the flow or of its responder, which say nothing of who opened it.
#[test]
fn a_name_of_the_responder_does_not_stand_for_the_initiators() {
    let shop = format!("{SHOP}  - {{id: push, from: agent, to: web, services: [tcp/8443]}}\n");
    let world = World::new(&[("shop", &shop), ("print", PRINT)]);
    let totals = |verdict| {
        let records: Vec<HourRecord> = recurring("192.0.2.53", "10.2.0.1", "tcp/8443")
            .into_iter()
            .map(|record| {
                let mut record = named(record, "shop.example");
                record.key.verdict = verdict;
                record
            })
            .collect();
        let totals = world.suggest(&records).totals;
        (totals.undecided_flows, totals.unexpected_flows)
    };
    assert_eq!(totals(Verdict::Expected), (4, 0));
    // Who judged it then knew the initiator's names, or had waited for them long enough.
    assert_eq!(totals(Verdict::Unexpected), (0, 4));
}

#[test]
fn names_of_the_network_make_valid_ids() {
    let long = format!("{0}.{0}.{0}.example", "a".repeat(60));
    let records: Vec<HourRecord> = ["_x.1-2.example", "9.9.9.9", &long, "null", "x..y"]
        .into_iter()
        .flat_map(|name| {
            recurring("10.2.0.1", "192.0.2.53", "tcp/853")
                .into_iter()
                .map(move |record| named(record, name))
        })
        .collect();
    let world = World::shop();
    let found = world.suggest(&records);
    // What is no name leaves the address.
    assert_eq!(found.proposals.len(), 4, "{:#?}", found.proposals);
    assert_eq!(lines(&world.patched(&found).suggest(&records)), [""; 0]);
}

mod properties {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// Ends inside and outside of the site's roles, in one of them or several.
    const POOL: [&str; 12] = [
        "10.1.0.9",
        "10.1.0.10",
        "10.1.5.7",
        "10.1.255.255",
        "10.2.0.1",
        "10.2.0.2",
        "10.2.1.5",
        "10.7.0.1",
        "10.9.0.3",
        "192.0.2.1",
        "192.0.2.2",
        "239.1.2.3",
    ];
    const SERVICES: [&str; 14] = [
        "tcp/443",
        "tcp/8443",
        "tcp/22",
        "udp/53",
        "icmp/8",
        "icmp/3",
        "gre",
        "vrrp",
        "tcp/0",
        "tcp/50000",
        "tcp/50001",
        "tcp/33000",
        "udp/50000",
        "tcp/5432",
    ];

    fn records() -> impl Strategy<Value = Vec<HourRecord>> {
        let one = (
            0_u64..50,
            select(&POOL[..]),
            select(&POOL[..]),
            select(&SERVICES[..]),
            0_u64..4,
            0_u64..4,
            select(&["", "", "agent.example", "cdn.example x.example"][..]),
        )
            .prop_map(|(hour, from, to, service, answered, other, names)| {
                named(
                    record(hour, from, to, service, answered + other, answered),
                    names,
                )
            });
        proptest::collection::vec(one, 0..120)
    }

    /// Whether a record is one that a proposal was made for: its ends, its service, and answered if that was the reason.
    fn is_for(proposal: &Proposal, found: &Suggestions, record: &HourRecord) -> bool {
        let told = |few: &Few, address| {
            few.some
                .contains(&std::net::IpAddr::from(address).to_string())
        };
        let service: crate::matrix::Service = proposal.services[0].parse().unwrap();
        let by_name = found
            .roles
            .iter()
            .filter(|role| role.id == proposal.to && role.system == proposal.system)
            .flat_map(|role| role.names.iter().cloned())
            .filter(|name| {
                name.parse::<ipnet::IpNet>().is_err() && name.parse::<std::net::IpAddr>().is_err()
            })
            .collect::<Vec<String>>()
            .join(" ");
        told(&proposal.evidence.clients, record.key.initiator)
            && told(&proposal.evidence.servers, record.key.responder)
            && service.covers(Protocol::from_number(record.key.protocol), record.key.port)
            && (by_name.is_empty() || by_name == record.key.names)
            && (!proposal.to.ends_with("agent") || record.key.names == "agent.example")
            && (evidence::answered(record) > 0 || proposal.evidence.answered < 3)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn proposals_are_unique_and_cover_what_they_are_for(records in records(), unanswered: bool) {
            let world = World::shop();
            let set = |options: &mut Options| options.include_unanswered = unanswered;
            let found = world.suggest_by(&records, set);
            let mut ids: Vec<&str> = found.proposals.iter().map(|it| it.id.as_str()).collect();
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(ids.len(), found.proposals.len());
            let patched = world.patched(&found);
            for proposal in &found.proposals {
                for record in records.iter().filter(|record| is_for(proposal, &found, record)) {
                    if world.verdict(record) == Verdict::Unexpected {
                        prop_assert_eq!(patched.verdict(record), Verdict::Expected, "{:?} {:#?}", record, proposal);
                    }
                }
            }
        }

        #[test]
        fn the_order_of_records_does_not_matter(
            (records, shuffled) in records().prop_flat_map(|records| (Just(records.clone()), Just(records).prop_shuffle()))
        ) {
            let world = World::shop();
            prop_assert_eq!(world.suggest(&records), world.suggest(&shuffled));
        }

        #[test]
        fn a_scan_never_becomes_a_proposal(records in records(), from in select(&["10.1.77.7", "192.0.2.77"][..]), to in select(&POOL[..])) {
            let world = World::shop();
            let scanned: Vec<HourRecord> = records.iter().cloned().chain(scan(from, to)).collect();
            prop_assert_eq!(world.suggest(&scanned).proposals, world.suggest(&records).proposals);
        }
    }
}
