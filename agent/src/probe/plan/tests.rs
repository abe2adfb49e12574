use std::sync::Arc;

use super::*;
use crate::matrix::compile::HostAddresses;
use crate::matrix::compiled::Compiled;
use crate::matrix::installed::SlotDirectory;
use crate::site::Site;
use crate::site::tags::TagBook;

const MATRIX: &str = "
system: s
title: S
roles:
  client:
  web:
  db:
  cloud: {names: ['*.example.net', 'www.example.org']}
  group: {names: [224.0.0.251]}
  none:
requirements:
  - {id: session, from: client, to: web, services: [tcp/443, tcp/22]}
  - {id: reply, from: client, to: web, services: [udp/53], direction: inbound}
  - {id: peers, from: web, to: web, services: [tcp/7000], direction: both}
  - {id: range, from: client, to: db, services: [udp/49152-65535, tcp/1-2]}
  - {id: cloud, from: client, to: cloud, services: [tcp/443]}
  - {id: ping, from: client, to: db, services: [icmp, icmpv6, icmp/13, vrrp]}
  - {id: out, from: client, to: any, services: [udp/123]}
  - {id: call, from: client, to: broadcast, services: [udp/137]}
  - {id: own, from: client, to: localhost, services: [tcp/25]}
  - {id: group, from: client, to: group, services: [udp/5353]}
  - {id: nobody, from: client, to: none, services: [tcp/1]}
  - {id: unbound, from: none, to: web, services: [tcp/1]}
  - {id: snmp, from: any, to: web, services: [udp/161], necessity: optional}
  - {id: portless, from: client, to: web, services: []}
";
const SITE: &str = "
site: s
systems: [s]
roles:
  s/client: [10.20.0.0/16, 'fd00:20::/64']
  s/web: [10.1.0.10, 10.1.0.11, web.example.org]
  s/db: [10.1.0.20, 'fd00:10::20', 10.3.0.0/24]
";
const CLIENT: [&str; 3] = ["10.20.0.2", "fd00:20::2", "fe80::1"];

fn installed(site: &str) -> Installed {
    let reading = Matrix::read_text("m.yaml", MATRIX);
    let site = Site::read_text("s.yaml", site, &reading);
    let bindings = site
        .site
        .expect("a valid site")
        .role_bindings(&reading.matrix, &TagBook::default());
    let compiled = Compiled::compile(Arc::new(reading.matrix), bindings, &HostAddresses::Unknown);
    Installed::new(Arc::new(compiled.unwrap()), SlotDirectory::default())
}

fn end(addresses: &[&str]) -> End {
    End {
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ..End::default()
    }
}

/// Attempts and what is left out of a row, a line each.
fn shown(plan: &Plan, id: &str) -> Vec<String> {
    let row = plan.rows.iter().find(|row| row.id == format!("s/{id}"));
    let mut lines = Vec::new();
    for service in &row.expect("a row").services {
        for attempt in &service.attempts {
            let sources: Vec<String> = attempt.sources.iter().map(ToString::to_string).collect();
            lines.push(format!(
                "{} {} -> {} {}",
                crate::probe::tried(service.service, attempt.port),
                sources.join("|"),
                attempt.target,
                attempt.question.name()
            ));
        }
        for skipped in &service.skipped {
            let why = match skipped.why {
                Why::Blind(blind) => crate::verdict::requirement::Cause::Blind(blind).name(),
                Why::Name(_) => "name",
            };
            lines.push(format!(
                "{} not {}: {why}",
                service.service,
                skipped.target.as_deref().unwrap_or("at all")
            ));
        }
    }
    lines
}

#[track_caller]
fn check(addresses: &[&str], id: &str, expect: &[&str]) {
    let plan = plan(&installed(SITE), &end(addresses), &Wanted::default());
    assert_eq!(shown(&plan, id), expect, "{id} from {addresses:?}");
}

#[test]
fn a_row_is_probed_by_its_initiator_at_exact_ends() {
    let both = "10.20.0.2|fd00:20::2";
    check(
        &CLIENT,
        "session",
        &[
            &format!("tcp/443 {both} -> 10.1.0.10 tls handshake"),
            &format!("tcp/443 {both} -> 10.1.0.11 tls handshake"),
            &format!("tcp/443 {both} -> web.example.org tls handshake"),
            &format!("tcp/22 {both} -> 10.1.0.10 tcp connect"),
            &format!("tcp/22 {both} -> 10.1.0.11 tcp connect"),
            &format!("tcp/22 {both} -> web.example.org tcp connect"),
        ],
    );
    for id in ["reply", "peers"] {
        let plan = plan(&installed(SITE), &end(&CLIENT), &Wanted::default());
        let lines = shown(&plan, id);
        assert!(lines[0].ends_with("not at all: not_from_here"), "{lines:?}");
    }
    // The other way round, the port is the client's, and a network is no single host.
    check(
        &["10.1.0.10"],
        "reply",
        &[
            "udp/53 not 10.20.0.0/16: no_exact_address",
            "udp/53 not fd00:20::/64: no_exact_address",
        ],
    );
    // A member of a cluster asks the others.
    check(
        &["10.1.0.10"],
        "peers",
        &[
            "tcp/7000 10.1.0.10 -> 10.1.0.11 tcp connect",
            "tcp/7000 10.1.0.10 -> web.example.org tcp connect",
            "tcp/7000 not 10.1.0.10: not_from_here",
        ],
    );
}

#[test]
fn of_a_range_first_middle_and_last_are_tried() {
    check(
        &["10.20.0.2"],
        "range",
        &[
            "udp/49152 10.20.0.2 -> 10.1.0.20 udp datagram",
            "udp/57343 10.20.0.2 -> 10.1.0.20 udp datagram",
            "udp/65535 10.20.0.2 -> 10.1.0.20 udp datagram",
            "udp/49152-65535 not 10.3.0.0/24: no_exact_address",
            "udp/49152-65535 not fd00:10::20: not_from_here",
            "tcp/1 10.20.0.2 -> 10.1.0.20 tcp connect",
            "tcp/2 10.20.0.2 -> 10.1.0.20 tcp connect",
            "tcp/1-2 not 10.3.0.0/24: no_exact_address",
            "tcp/1-2 not fd00:10::20: not_from_here",
        ],
    );
    let service = |text: &str| text.parse::<Service>().unwrap();
    assert_eq!(port_count(service("udp/49152-65535")), 16_384);
    assert_eq!(port_count(service("tcp/443")), 1);
    assert_eq!(port_count(service("icmp/0-255")), 1);
    assert_eq!(ports(service("icmp/0-255")), [Some(8)]);
    assert_eq!(
        ports(service("tcp/65534-65535")),
        [Some(65_534), Some(65_535)]
    );
}

#[test]
fn what_has_no_exact_end_is_said_and_not_probed() {
    let one = ["10.20.0.2"];
    check(
        &one,
        "cloud",
        &[
            "tcp/443 10.20.0.2 -> www.example.org tls handshake",
            "tcp/443 not *.example.net: no_exact_address",
        ],
    );
    check(&one, "out", &["udp/123 not at all: no_exact_address"]);
    check(&one, "call", &["udp/137 not at all: no_exact_address"]);
    check(&one, "own", &["tcp/25 not at all: no_exact_address"]);
    check(
        &one,
        "group",
        &["udp/5353 not 224.0.0.251: no_exact_address"],
    );
    check(&one, "nobody", &["tcp/1 not at all: role_not_bound"]);
    check(&one, "unbound", &["tcp/1 not at all: role_not_bound"]);
    check(&one, "portless", &[]);
}

#[test]
fn icmp_is_asked_by_echo_in_the_version_of_the_address() {
    check(
        &CLIENT,
        "ping",
        &[
            "icmp 10.20.0.2|fd00:20::2 -> 10.1.0.20 icmp echo",
            "icmp 10.20.0.2|fd00:20::2 -> fd00:10::20 icmp echo",
            "icmp not 10.3.0.0/24: no_exact_address",
            "icmpv6 10.20.0.2|fd00:20::2 -> fd00:10::20 icmp echo",
            "icmpv6 not 10.1.0.20: no_question",
            "icmpv6 not 10.3.0.0/24: no_exact_address",
            "icmp/13 not fd00:10::20: no_question",
            "icmp/13 not 10.3.0.0/24: no_exact_address",
            "icmp/13 not 10.1.0.20: no_question",
            "vrrp not 10.3.0.0/24: no_exact_address",
            "vrrp not 10.1.0.20: no_question",
            "vrrp not fd00:10::20: no_question",
        ],
    );
}

#[test]
fn anybody_may_be_any() {
    let plan = plan(&installed(SITE), &end(&["192.0.2.9"]), &Wanted::default());
    let lines = shown(&plan, "snmp");
    assert_eq!(lines[0], "udp/161 not 10.1.0.10: no_question", "{lines:?}");
    assert!(
        !plan
            .rows
            .iter()
            .find(|row| row.id == "s/snmp")
            .unwrap()
            .required
    );
    assert_eq!(
        shown(&plan, "session")[0],
        "tcp/443 not at all: not_from_here"
    );
}

#[test]
fn the_longest_prefix_decides_what_this_host_is() {
    let site = SITE.replace("s/web: [", "s/web: [10.20.0.2, ");
    let plan = plan(&installed(&site), &end(&["10.20.0.2"]), &Wanted::default());
    // Whoever watches would take its flows for the web server's.
    assert_eq!(
        shown(&plan, "session")[0],
        "tcp/443 not at all: not_from_here"
    );
    assert!(shown(&plan, "peers")[0].starts_with("tcp/7000 10.20.0.2 -> 10.1.0.10"));
}

#[test]
fn the_operator_may_say_what_this_host_is() {
    let installed = installed(SITE);
    let mut from = end(&["10.20.0.2", "10.20.0.3"]);
    from.from = Some("10.20.0.3".parse().unwrap());
    let by_address = plan(&installed, &from, &Wanted::default());
    assert!(shown(&by_address, "session")[0].starts_with("tcp/443 10.20.0.3 ->"));
    let mut played = end(&["192.0.2.9"]);
    let matrix = &installed.compiled.matrix;
    let (system, content) = matrix.indexed_systems().next().unwrap();
    played.role = Some(BoundRole {
        system,
        role: RoleRef::Declared(content.find_role("web").unwrap()),
    });
    let by_role = plan(&installed, &played, &Wanted::default());
    assert!(shown(&by_role, "peers")[0].starts_with("tcp/7000 192.0.2.9 -> 10.1.0.10"));
    assert!(shown(&by_role, "session")[0].ends_with("not_from_here"));
    assert!(shown(&by_role, "snmp")[0].ends_with("not_from_here"));
}

#[test]
fn verified_rows_are_left_out_unless_they_are_named() {
    let mut wanted = Wanted {
        verified: ["s/session".to_owned()].into(),
        ..Wanted::default()
    };
    let plan_of = |wanted: &Wanted| plan(&installed(SITE), &end(&CLIENT), wanted);
    let all = plan_of(&wanted);
    assert_eq!((all.rows.len(), all.verified), (13, 1));
    assert!(all.rows.iter().all(|row| row.id != "s/session"));
    wanted.named = ["s/session".to_owned()].into();
    let named = plan_of(&wanted);
    assert_eq!((named.rows.len(), named.verified), (1, 0));
    assert_eq!(named.rows[0].id, "s/session");
}

fn resolved(pairs: &[(&str, Result<&[&str], &str>)]) -> HashMap<Name, Resolved> {
    pairs
        .iter()
        .map(|(name, found)| {
            let found = found
                .map(|addresses| addresses.iter().map(|text| text.parse().unwrap()).collect())
                .map_err(str::to_owned);
            (Name::from(*name), found)
        })
        .collect()
}

/// The probes of a row, a line each.
fn settled(plan: &mut Plan, id: &str, names: &HashMap<Name, Resolved>) -> Vec<String> {
    let row = plan.rows.iter().position(|row| row.id == format!("s/{id}"));
    plan.settle(names)
        .into_iter()
        .filter(|probe| Some(probe.row) == row)
        .map(|probe| {
            format!(
                "{}/{} {} -> {} {}",
                probe.service,
                probe.port.unwrap_or_default(),
                probe.source,
                probe.target,
                probe.name.as_deref().unwrap_or("-")
            )
        })
        .collect()
}

#[test]
fn names_lead_to_addresses_which_are_tried_once() {
    let mut plan = plan(&installed(SITE), &end(&["10.20.0.2"]), &Wanted::default());
    assert_eq!(
        plan.names().iter().map(|name| &**name).collect::<Vec<_>>(),
        ["web.example.org", "www.example.org"]
    );
    // One of its addresses is bound as such, too: it is tried by name.
    let names = resolved(&[(
        "web.example.org",
        Ok(&["10.1.0.11", "10.9.0.1", "10.9.0.2", "fd00::9"]),
    )]);
    assert_eq!(
        settled(&mut plan, "session", &names),
        [
            "0/443 10.20.0.2 -> 10.1.0.11 web.example.org",
            "0/443 10.20.0.2 -> 10.9.0.1 web.example.org",
            "0/443 10.20.0.2 -> 10.1.0.10 -",
            "1/22 10.20.0.2 -> 10.1.0.11 web.example.org",
            "1/22 10.20.0.2 -> 10.9.0.1 web.example.org",
            "1/22 10.20.0.2 -> 10.1.0.10 -",
        ]
    );
    let details: Vec<&str> = plan.rows[0].services[0]
        .skipped
        .iter()
        .map(|skipped| skipped.detail.as_str())
        .collect();
    assert_eq!(
        details,
        [
            "of its addresses, 2 of each IP version are tried",
            "no IPv6 address of this host has the initiator's role",
        ]
    );
}

#[test]
fn a_name_that_leads_nowhere_good_is_not_followed() {
    let mut plan = plan(&installed(SITE), &end(&CLIENT), &Wanted::default());
    let names = resolved(&[
        (
            "www.example.org",
            Ok(&["127.0.0.1", "224.0.0.1", "10.3.0.255", "fe80::2", "::1"]),
        ),
        ("web.example.org", Err("there is no such name (NXDOMAIN)")),
    ]);
    assert!(settled(&mut plan, "cloud", &names).is_empty());
    let row = plan.rows.iter().find(|row| row.id == "s/cloud").unwrap();
    let details: Vec<&str> = row.services[0]
        .skipped
        .iter()
        .map(|skipped| skipped.detail.as_str())
        .collect();
    assert_eq!(details.len(), 6, "{details:?}");
    assert!(
        details[1].starts_with("resolves to 127.0.0.1: "),
        "{details:?}"
    );
    let row = plan.rows.iter().find(|row| row.id == "s/session").unwrap();
    assert_eq!(
        row.services[0].skipped[0].why,
        Why::Name(Resolution::Failing)
    );
}

mod properties {
    use std::sync::LazyLock;

    use super::*;
    use proptest::prelude::*;

    static INSTALLED: LazyLock<Installed> = LazyLock::new(|| installed(SITE));

    proptest! {
        /// Whatever resolvers answer: every probe goes to an address that is bound as such, or that a bound name led to,
        /// and comes from an address of this host.
        #[test]
        fn no_answer_of_a_resolver_leads_outside_the_bindings(
            answers in proptest::collection::vec(any::<u32>(), 0..8),
        ) {
            let mut plan = plan(&INSTALLED, &end(&CLIENT), &Wanted::default());
            let answers: Vec<IpAddr> =
                answers.into_iter().map(|bits| IpAddr::V4(bits.into())).collect();
            let names: HashMap<Name, Resolved> = ["web.example.org", "www.example.org", "a.example.net"]
                .into_iter()
                .map(|name| (Name::from(name), Ok(answers.clone())))
                .collect();
            let exact: Vec<IpAddr> = ["10.1.0.10", "10.1.0.11", "10.1.0.20", "fd00:10::20"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
            for probe in plan.settle(&names) {
                let target = probe.target.address();
                match &probe.name {
                    None => prop_assert!(exact.contains(&target)),
                    Some(name) => {
                        prop_assert!(["web.example.org", "www.example.org"].contains(&&**name));
                        prop_assert!(answers.contains(&target));
                        prop_assert!(!target.is_loopback() && !target.is_multicast());
                    }
                }
                prop_assert!(CLIENT[..2].contains(&probe.source.to_string().as_str()));
                prop_assert_eq!(probe.source.is_ipv4(), target.is_ipv4());
            }
        }
    }
}
