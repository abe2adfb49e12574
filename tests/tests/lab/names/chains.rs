//! Chains of aliases, DNS over TCP, and answers too large for a datagram.

use anyhow::Result;
use flowproof_tests::daemon::Backend;
use flowproof_tests::names::dnsmasq::Zone;
use flowproof_tests::names::hello::Hello;
use flowproof_tests::names::internet::{site4, site6};
use hickory_proto::rr::RecordType;

use super::{Scene, UNHURRIED, has_name, on_both};

/// Five aliases, and the name with the address.
const HEAD_IN_MATRIX: [&str; 6] = [
    "head.lab.example",
    "head.traffic.example",
    "head.region.example",
    "head.edge.example",
    "head.pop.example",
    "host.cdn.example",
];
const TAIL_IN_MATRIX: [&str; 6] = [
    "www.lab.example",
    "www.traffic.example",
    "www.region.example",
    "www.edge.example",
    "www.pop.example",
    "tail.cdn.example",
];

on_both!(chains: chains_of_five_are_followed_ebpf, chains_of_five_are_followed_pcap);
on_both!(over_tcp: dns_over_tcp_is_read_ebpf, dns_over_tcp_is_read_pcap);

fn chains(backend: Backend) -> Result<()> {
    let scene = Scene::new(
        backend,
        UNHURRIED,
        &Zone {
            ttl: 30,
            hosts: &[
                ("host.cdn.example", site4(1)),
                ("host.cdn.example", site6(1)),
                ("tail.cdn.example", site4(2)),
            ],
            chains: &[&HEAD_IN_MATRIX, &TAIL_IN_MATRIX],
            ..Zone::default()
        },
    )?;
    let mut open = Vec::new();
    for (head, address, row) in [
        (HEAD_IN_MATRIX[0], site4(1), "head"),
        (TAIL_IN_MATRIX[0], site4(2), "tail"),
    ] {
        let reply = scene.asker.udp(head, RecordType::A)?;
        assert_eq!(
            (reply.aliases.len(), &reply.addresses[..]),
            (5, &[address][..])
        );
        // Whoever shows a name shows the one that was asked for.
        let tls = scene.tls(address, &Hello::of(head))?;
        let nameless = scene.tls(address, &Hello::of(head).nameless())?;
        let queue = scene.queue(address)?;
        for (flow, service) in [
            (&tls, "tcp/443"),
            (&nameless, "tcp/443"),
            (&queue, "tcp/5671"),
        ] {
            let line = scene.assert_expected(flow, row, service);
            assert!(has_name(&line, head), "{head}: {line}");
        }
        scene.assert_row(row, "tcp/443", &[&tls, &nameless]);
        scene.assert_row(row, "tcp/5671", &[&queue]);
        open.extend([tls, nameless, queue]);
    }
    // The other family: asked over IPv4, used over IPv6, as hosts do that have both.
    let reply = scene.asker.udp(HEAD_IN_MATRIX[0], RecordType::AAAA)?;
    assert_eq!(reply.addresses, [site6(1)]);
    let six = scene.queue(site6(1))?;
    scene.assert_expected(&six, "head", "tcp/5671");
    assert_eq!(scene.counted("unexpected")?, 0);
    scene.assert_nothing_lost();
    Ok(())
}

fn over_tcp(backend: Backend) -> Result<()> {
    let hosts: Vec<_> = (1..=50)
        .map(|number| ("big.lab.example", site4(number)))
        .chain([("late.lab.example", site4(60))])
        .collect();
    let scene = Scene::new(
        backend,
        UNHURRIED,
        &Zone {
            ttl: 30,
            hosts: &hosts,
            ..Zone::default()
        },
    )?;
    // Never asked for over UDP.
    let reply = scene.asker.tcp("late.lab.example", RecordType::A)?;
    assert_eq!(reply.addresses, [site4(60)]);
    let flow = scene.queue(site4(60))?;
    scene.assert_expected(&flow, "late", "tcp/5671");
    // Cut over UDP, and asked for again over TCP.
    assert!(scene.asker.udp("big.lab.example", RecordType::A)?.truncated);
    let reply = scene.asker.tcp("big.lab.example", RecordType::A)?;
    assert_eq!(reply.addresses.len(), 50);
    let mut open = Vec::new();
    for address in reply.addresses {
        let flow = scene.queue(address)?;
        scene.assert_expected(&flow, "far", "tcp/5671");
        open.push(flow);
    }
    scene.assert_row("far", "tcp/5671", &open.iter().collect::<Vec<_>>());
    assert_eq!(scene.counted("unexpected")?, 0);
    scene.assert_nothing_lost();
    Ok(())
}
