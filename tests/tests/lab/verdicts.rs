//! Every verdict and outcome, from real packets, with the same expectations of both back ends.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::frame::{self, FrameSender, RawSender, ethertype, flags};
use flowproof_tests::lab::{
    self, ROUTER_CLIENT_SIDE, Routed, STRANGER, TO_CLIENT, UPLINK, client4, client6, server4,
    server6,
};
use flowproof_tests::metrics::Metrics;
use flowproof_tests::traffic::{Manner, Server, ask, echo_tcp, exchange, serve_udp};

use super::{attempts, decided, traffic};

const SOON: Duration = Duration::from_secs(1);

/// The promise: silence is called `no_answer` within 4 s of the first SYN.
const BLOCKED_WITHIN: Duration = Duration::from_secs(4);

/// (requirement, service, outcome, flows). Every other outcome of the row must be 0.
const EXPECTED: &[(&str, &str, &str, u64)] = &[
    ("web-open", "tcp/80", "answered", 1),
    ("web-open", "tcp/443", "answered", 1),
    ("web-never", "tcp/9999", "answered", 0),
    ("web-refused", "tcp/81", "refused", 1),
    ("web-rejected", "tcp/82", "refused", 1),
    ("web-prohibited", "tcp/83", "prohibited", 1),
    ("web-prohibited", "tcp/84", "prohibited", 1),
    ("web-echo", "icmp", "answered", 1),
    ("dns", "udp/53", "answered", 1),
    ("silent", "tcp/443", "no_answer", 1),
    ("silent", "udp/53", "no_answer", 1),
    ("silent", "icmp", "no_answer", 1),
    ("syslog", "udp/514", "one_way", 1),
    ("log-refused", "udp/5000", "refused", 1),
    ("log-large", "udp/9000-9999", "one_way", 1),
    ("db-early", "tcp/5432", "answered", 2),
    ("db-both", "tcp/5672", "answered", 2),
    ("monitoring", "tcp/9100", "answered", 1),
    ("vrrp", "vrrp", "one_way", 1),
    ("discovery", "udp/20000", "one_way", 2),
    ("local-agent", "tcp/6010", "answered", 1),
    ("web6-open", "tcp/443", "answered", 1),
    ("web6-open", "udp/53", "answered", 1),
    ("web6-open", "icmpv6", "answered", 1),
    ("web6-refused", "tcp/81", "refused", 1),
    ("web6-prohibited", "tcp/83", "prohibited", 1),
    ("web6-options", "udp/514", "one_way", 1),
    ("silent6", "tcp/443", "no_answer", 1),
    ("tagged", "tcp/8443", "answered", 1),
    ("tagged", "udp/53", "answered", 1),
];

/// (from, to, service) of flows that no row covers, one each.
const UNEXPECTED: &[(&str, &str, &str)] = &[
    // Another port.
    ("lab/client", "lab/web", "tcp/8080"),
    // The wrong side initiates.
    ("lab/web", "lab/client", "tcp/80"),
    // Open before the capture began, and the server spoke first.
    ("lab/client", "lab/web", "tcp/22"),
];

#[test]
fn every_outcome_ebpf() -> Result<()> {
    every_outcome("every_outcome_ebpf", Backend::Ebpf)
}

#[test]
fn every_outcome_pcap() -> Result<()> {
    every_outcome("every_outcome_pcap", Backend::Pcap)
}

fn every_outcome(test: &str, backend: Backend) -> Result<()> {
    if lab::skipped(test) {
        return Ok(());
    }
    let lab = Routed::new()?;
    lab.server.filter(
        "input",
        &[
            "ip daddr 10.1.0.12 drop",
            "ip6 daddr fd00:10::12 drop",
            "tcp dport 82 reject",
            "tcp dport 83 reject with icmpx admin-prohibited",
        ],
    )?;
    lab.router.filter(
        "forward",
        &["tcp dport 84 reject with icmpx admin-prohibited"],
    )?;
    let _servers = serve(&lab)?;

    // Three connections that are older than the capture.
    let db = lab.server.listen((server4(14), 5432))?;
    let ssh = lab.server.listen((server4(10), 22))?;
    let open = |to: (IpAddr, u16)| lab.client.connect(Some((client4(2), 0).into()), to, SOON);
    let mut early_asks = open((server4(14), 5432))?;
    let (mut early_asked, _) = db.accept()?;
    let mut early_listens = open((server4(14), 5432))?;
    let (mut early_greets, _) = db.accept()?;
    let _early_ssh = open((server4(10), 22))?;
    let (mut early_ssh_greets, _) = ssh.accept()?;

    let daemon = Daemon::start(
        &lab.router,
        &Setup {
            backend,
            matrix: include_str!("verdicts.yaml"),
            site: include_str!("verdicts-site.yaml"),
            config: "",
            interfaces: &[],
        },
    )?;

    std::thread::scope(|scope| -> Result<()> {
        // Silence needs its time, so it comes first.
        let silent6 = scope.spawn(|| {
            lab.client.connect(
                Some((client6(2), 0).into()),
                (server6(0x12), 443),
                BLOCKED_WITHIN,
            )
        });
        let silent4 = scope.spawn(|| {
            lab.client.connect(
                Some((client4(2), 0).into()),
                (server4(12), 443),
                BLOCKED_WITHIN,
            )
        });
        let first_syn = Instant::now();

        // The server greets first, the client answers; and the other way round.
        early_greets.write_all(b"hello")?;
        early_listens.write_all(b"hello yourself")?;
        early_asks.write_all(b"select 1")?;
        early_asked.write_all(b"1")?;
        early_ssh_greets.write_all(b"SSH-2.0-lab\r\n")?;

        send_everything(&lab)?;
        send_tagged(&lab)?;

        // What counts is the last scrape that did not know it yet; a busy machine may hold back the next.
        let mut unknown_at = Duration::ZERO;
        let (_, blocked) = daemon.wait_metrics(BLOCKED_WITHIN * 2, |metrics| {
            let known = decided(metrics, "silent", "tcp/443", "no_answer") == 1;
            if !known {
                unknown_at = first_syn.elapsed();
            }
            known
        })?;
        assert!(blocked, "the dropped connection isn't called no_answer");
        assert!(
            unknown_at <= BLOCKED_WITHIN,
            "no_answer wasn't said {unknown_at:?} after the first SYN"
        );
        for silent in [silent4, silent6] {
            let result = silent.join().expect("the connecting thread");
            assert!(result.is_err(), "the filter should have dropped it");
        }
        Ok(())
    })?;

    let complete = |metrics: &Metrics| {
        EXPECTED
            .iter()
            .all(|row| decided(metrics, row.0, row.1, row.2) == row.3)
    };
    let (metrics, _) = daemon.wait_metrics(Duration::from_secs(6), complete)?;
    check(&metrics);
    // The flows themselves say who prohibited them.
    let prohibited = daemon
        .get("/api/v1/flows?outcome=prohibited&protocol=tcp")?
        .body;
    for part in ["ICMP 3/13 from ", "ICMPv6 1/1 from ", "\"flows\":3,"] {
        assert!(prohibited.contains(part), "{part}: {prohibited}");
    }
    Ok(())
}

fn check(metrics: &Metrics) {
    let mut wrong = String::new();
    let mut note = |text: String| {
        wrong.push_str(&text);
        wrong.push('\n');
    };
    for (requirement, service, outcome, flows) in EXPECTED {
        let all = metrics.count(
            "flowproof_requirement_flows_total",
            &[("requirement", requirement), ("service", service)],
        );
        let right = decided(metrics, requirement, service, outcome);
        let begun = attempts(metrics, requirement, service);
        if (right, all, begun) != (*flows, *flows, *flows) {
            note(format!(
                "{requirement} {service}: {right} {outcome}, {all} decided, {begun} begun; expected {flows}"
            ));
        }
    }
    for (from, to, service) in UNEXPECTED {
        let labels = [("from", *from), ("to", *to), ("service", *service)];
        let got = metrics.count("flowproof_unexpected_flows_total", &labels);
        if got != 1 {
            note(format!(
                "unexpected {from} to {to} {service}: {got} instead of 1"
            ));
        }
    }
    let all_unexpected = metrics.count("flowproof_unexpected_flows_total", &[]);
    if all_unexpected != UNEXPECTED.len() as u64 {
        note(format!(
            "{all_unexpected} unexpected flows in all:\n{}",
            metrics.show("flowproof_unexpected_flows_total", &[])
        ));
    }
    // One datagram of 4,000 bytes in three fragments, each with 14 + 20 bytes of headers before it.
    let large = traffic(metrics, "log-large", "udp/9000-9999", "to_responder");
    if large != (3, 3 * 34 + 4008) {
        note(format!("the fragmented datagram counts as {large:?}"));
    }
    // SYN and ACK there, SYN-ACK back, each 14 + 4 + 20 + 20 bytes; a service tag is 4 bytes more.
    for (service, direction, expected) in [
        ("tcp/8443", "to_responder", (2, 2 * 58)),
        ("tcp/8443", "to_initiator", (1, 58)),
        ("udp/53", "to_responder", (1, 14 + 8 + 20 + 8 + 3)),
        ("udp/53", "to_initiator", (1, 14 + 8 + 20 + 8 + 6)),
    ] {
        let got = traffic(metrics, "tagged", service, direction);
        if got != expected {
            note(format!(
                "tagged {service} {direction}: {got:?} packets and bytes instead of {expected:?}"
            ));
        }
    }
    let unscoped = metrics.count("flowproof_flows_total", &[("verdict", "unscoped")]);
    if unscoped == 0 {
        note("the strangers' flow is not counted as unscoped".to_owned());
    }
    let lost = metrics.count("flowproof_lost_total", &[]);
    if lost != 0 {
        note(format!(
            "lost:\n{}",
            metrics.show("flowproof_lost_total", &[])
        ));
    }
    assert!(
        wrong.is_empty(),
        "{wrong}\n{}",
        metrics.show("flowproof_requirement_flows_total", &[])
    );
}

fn serve(lab: &Routed) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    let listeners = [
        (server4(10), 80),
        (server4(10), 443),
        (server4(10), 8080),
        (server4(14), 5672),
        (server6(0x10), 443),
    ];
    for address in listeners {
        servers.push(echo_tcp(lab.server.listen(address)?)?);
    }
    for port in [80, 5672, 9100] {
        servers.push(echo_tcp(lab.client.listen((client4(2), port))?)?);
    }
    servers.push(echo_tcp(lab.router.listen((Ipv4Addr::LOCALHOST, 6010))?)?);
    let sockets = [
        ((server4(11), 53), Manner::Echo),
        ((server4(12), 53), Manner::Echo),
        ((server4(13), 514), Manner::Silent),
        ((server4(13), 9999), Manner::Silent),
        ((server4(99), 4000), Manner::Silent),
        ((server6(0x10), 53), Manner::Echo),
        ((server6(0x10), 514), Manner::Silent),
    ];
    for (address, manner) in sockets {
        servers.push(serve_udp(lab.server.udp(address)?, manner)?);
    }
    Ok(servers)
}

fn send_everything(lab: &Routed) -> Result<()> {
    // TCP that is answered, on the rows and beside them.
    let client = SocketAddr::new(client4(2), 0);
    let connections = [
        (&lab.client, client, (server4(10), 80)),
        (&lab.client, client, (server4(10), 443)),
        (&lab.client, client, (server4(10), 8080)),
        (&lab.client, client, (server4(14), 5672)),
        (&lab.client, (client6(2), 0).into(), (server6(0x10), 443)),
        (&lab.server, (server4(14), 0).into(), (client4(2), 5672)),
        (&lab.server, (server4(15), 0).into(), (client4(2), 9100)),
        (&lab.server, (server4(10), 0).into(), (client4(2), 80)),
        (
            &lab.router,
            (Ipv4Addr::LOCALHOST, 0).into(),
            (Ipv4Addr::LOCALHOST.into(), 6010),
        ),
    ];
    for (host, source, target) in connections {
        let mut stream = host.connect(Some(source), target, SOON)?;
        exchange(&mut stream, b"hello")?;
    }
    // TCP that is turned away. Side by side: a socket may miss the error about its first SYN while its call goes on,
    // and then waits for the second.
    std::thread::scope(|scope| {
        for (source, target) in [
            (client4(2), (server4(10), 81)),
            (client4(2), (server4(10), 82)),
            (client4(2), (server4(10), 83)),
            (client4(2), (server4(10), 84)),
            (client6(2), (server6(0x10), 81)),
            (client6(2), (server6(0x10), 83)),
        ] {
            scope.spawn(move || {
                let source = Some((source, 0).into());
                let result = lab.client.connect(source, target, SOON);
                assert!(result.is_err(), "{target:?} should have turned it away");
            });
        }
    });
    // UDP.
    for (source, target, payload, answered) in [
        (client4(2), (server4(11), 53), 3, true),
        (client4(2), (server4(12), 53), 3, false),
        (client4(2), (server4(13), 514), 3, false),
        (client4(2), (server4(13), 5000), 3, false),
        (client4(2), (server4(13), 9999), 4000, false),
        (STRANGER, (server4(99), 4000), 3, false),
        (client6(2), (server6(0x10), 53), 3, true),
    ] {
        let socket = lab.client.udp((source, 0))?;
        socket.connect(target)?;
        let limit = if answered {
            SOON
        } else {
            Duration::from_millis(10)
        };
        let payload = vec![b'x'; payload];
        assert_eq!(ask(&socket, &payload, limit)?, answered, "{target:?}");
    }
    for target in ["255.255.255.255:20000", "10.20.0.255:20000"] {
        lab.client.udp(client)?.send_to(b"anyone?", target)?;
    }
    // What no socket sends.
    let raw = RawSender::new(&lab.client)?;
    for (identifier, client, server) in [
        (1, client4(2), server4(10)),
        (2, client4(2), server4(12)),
        (3, client6(2), server6(0x10)),
    ] {
        let protocol = if client.is_ipv4() { 1 } else { 58 };
        let echo = frame::echo_request(client, server, identifier, 1);
        raw.send(&frame::ip(client, server, protocol, &echo), server)?;
    }
    let (balancer, group) = (Ipv4Addr::new(10, 20, 0, 3), Ipv4Addr::new(224, 0, 0, 18));
    let advertisement = frame::vrrp(balancer, ROUTER_CLIENT_SIDE);
    raw.send(
        &frame::ip(balancer.into(), group.into(), 112, &advertisement),
        group.into(),
    )?;
    if let (IpAddr::V6(client), IpAddr::V6(server)) = (client6(2), server6(0x10)) {
        let datagram = frame::udp((client, 1000).into(), (server, 514).into(), b"logged");
        raw.send(
            &frame::ipv6_with_options(client, server, 17, &datagram),
            server.into(),
        )?;
    }
    Ok(())
}

/// A conversation in a VLAN and one in a VLAN within a VLAN, by hand: requests come in from the wire, answers go out of
/// the router's own interface, so both hooks see tags.
fn send_tagged(lab: &Routed) -> Result<()> {
    let wire = FrameSender::new(&lab.client, UPLINK)?;
    let router = FrameSender::new(&lab.router, TO_CLIENT)?;
    let (a, b) = (Ipv4Addr::new(10, 50, 0, 2), Ipv4Addr::new(10, 50, 0, 3));
    let one_tag = [(ethertype::VLAN, 12)];
    let two_tags = [(ethertype::SERVICE_VLAN, 7), (ethertype::VLAN, 12)];

    let (from, to) = ((a, 40000).into(), (b, 8443).into());
    let tcp = |source: SocketAddr, target: SocketAddr, bits, sequence, acknowledgement| {
        let segment = frame::tcp(source, target, bits, sequence, acknowledgement);
        frame::ip(source.ip(), target.ip(), 6, &segment)
    };
    let there = |tags: &[(u16, u16)], packet: &[u8]| {
        wire.send(&frame::ethernet(wire.address, router.address, tags, packet))
    };
    let back = |tags: &[(u16, u16)], packet: &[u8]| {
        router.send(&frame::ethernet(router.address, wire.address, tags, packet))
    };
    there(&one_tag, &tcp(from, to, flags::SYN, 100, 0))?;
    back(&one_tag, &tcp(to, from, flags::SYN_ACK, 500, 101))?;
    there(&one_tag, &tcp(from, to, flags::ACK, 101, 501))?;

    let (from, to) = ((a, 40001).into(), (b, 53).into());
    let udp = |source: SocketAddr, target: SocketAddr, payload: &[u8]| {
        frame::ip(
            source.ip(),
            target.ip(),
            17,
            &frame::udp(source, target, payload),
        )
    };
    there(&two_tags, &udp(from, to, b"who"))?;
    back(&two_tags, &udp(to, from, b"nobody"))
}
