//! Names that only the client itself tells, in one piece, in several, or encrypted.

use std::net::SocketAddr;

use anyhow::Result;
use flowproof_tests::daemon::Backend;
use flowproof_tests::lab::client4;
use flowproof_tests::names::dnsmasq::Zone;
use flowproof_tests::names::h3;
use flowproof_tests::names::hello::{Hello, Layout};
use flowproof_tests::names::initial::{self, Quic};
use flowproof_tests::names::internet::{OTHER_RESOLVER, site4};
use flowproof_tests::names::query::Asker;
use flowproof_tests::names::responder::{self, Responder, Response};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::{HOLD, Open, SOON, Scene, UNHURRIED, has_evidence, has_name, on_both};

const SHOP: &str = "books.shop.example";

on_both!(without_dns: a_name_without_dns_is_enough_ebpf, a_name_without_dns_is_enough_pcap);
on_both!(quic_by_hand: quic_of_both_versions_is_read_ebpf, quic_of_both_versions_is_read_pcap);
on_both!(encrypted: an_encrypted_hello_falls_back_to_dns_ebpf, an_encrypted_hello_falls_back_to_dns_pcap);

/// No name server is asked, as with DNS over HTTPS.
fn without_dns(backend: Backend) -> Result<()> {
    let scene = Scene::new(backend, UNHURRIED, &Zone::default())?;
    let address = SocketAddr::new(site4(8), 443);
    let _server = h3::Server::start(&scene.lab.server, &[address], &scene.identity)?;
    let mut open = Vec::new();

    // Each to an address that nobody knows.
    for (server, layout) in [
        (site4(8), Layout::Whole),
        (site4(9), Layout::Three),
        (site4(10), Layout::Large),
    ] {
        let flow = scene.tls(server, &Hello::of(SHOP).laid_out(layout))?;
        let line = scene.assert_expected(&flow, "shop", "tcp/443");
        assert!(has_name(&line, SHOP), "{layout:?}: {line}");
        open.push(flow);
    }
    scene.assert_row("shop", "tcp/443", &open.iter().collect::<Vec<_>>());

    // As a person would write it, and deep in the domain.
    let flow = Open::tcp(
        scene
            .client
            .http((site4(8), 80).into(), "More.BOOKS.shop.example:80")?,
    )?;
    let line = scene.assert_expected(&flow, "shop", "tcp/80");
    assert!(has_name(&line, "more.books.shop.example"), "{line}");
    scene.assert_row("shop", "tcp/80", &[&flow]);
    open.push(flow);

    // On a port that the requirement names.
    let mut conversation = scene
        .client
        .tls((site4(11), 8443).into(), &Hello::of(SHOP))?;
    conversation.get(SHOP, "/")?;
    let flow = Open::new(conversation.local_addr()?, "tcp", conversation);
    scene.assert_expected(&flow, "shop", "tcp/8443");
    scene.assert_row("shop", "tcp/8443", &[&flow]);
    open.push(flow);

    let mut conversation = h3::Conversation::open(
        &scene.lab.client,
        client4(2),
        address,
        SHOP,
        &scene.identity,
    )?;
    conversation.get("/")?;
    let flow = Open::new(conversation.local_addr()?, "udp", conversation);
    let line = scene.assert_expected(&flow, "shop", "udp/443");
    assert!(has_name(&line, SHOP), "{line}");
    scene.assert_row("shop", "udp/443", &[&flow]);
    open.push(flow);
    assert_eq!(scene.counted("unexpected")?, 0);

    // A label boundary is a boundary, and the domain itself isn't in it.
    for name in ["books.lab.example", "shop.lab.example"] {
        let flow = scene.tls(site4(12), &Hello::of(name))?;
        scene.verdict_within(&flow, "unexpected", HOLD + SOON);
        open.push(flow);
    }
    let flow = Open::tcp(
        scene
            .client
            .http((site4(12), 80).into(), "workshop.example")?,
    )?;
    scene.verdict_within(&flow, "unexpected", HOLD + SOON);
    scene.assert_nothing_lost();
    Ok(())
}

/// The server needn't understand it: a name is a name.
fn quic_by_hand(backend: Backend) -> Result<()> {
    let scene = Scene::new(backend, UNHURRIED, &Zone::default())?;
    let address = SocketAddr::new(site4(8), 443);
    let _server = h3::Server::start(&scene.lab.server, &[address], &scene.identity)?;
    let mut open = Vec::new();
    for (quic, frames) in [
        (Quic::One, 1),
        (Quic::One, 5),
        (Quic::Two, 1),
        (Quic::Two, 4),
    ] {
        for (name, verdict) in [(SHOP, "expected"), ("books.lab.example", "unexpected")] {
            let socket = scene.lab.client.udp((client4(2), 0))?;
            socket.connect(address)?;
            socket.send(&initial::datagram(quic, name, frames, &scene.identity)?)?;
            let flow = Open::new(socket.local_addr()?, "udp", socket);
            let line = scene.verdict_within(&flow, verdict, SOON);
            assert!(has_name(&line, name), "{quic:?} in {frames}: {line}");
            open.push(flow);
        }
    }
    scene.assert_nothing_lost();
    Ok(())
}

fn encrypted(backend: Backend) -> Result<()> {
    const NAME: &str = "hidden.lab.example";
    const PUBLIC: &str = "public.cdn.example";
    let scene = Scene::new(
        backend,
        UNHURRIED,
        &Zone {
            ttl: 30,
            hosts: &[(NAME, site4(13))],
            ..Zone::default()
        },
    )?;
    let mut open = Vec::new();
    let encrypted = |server, shown: &str| -> Result<Open> {
        Open::tcp(scene.client.encrypted((server, 443).into(), shown)?)
    };

    // All that is known is the address.
    scene.asker.resolve(NAME)?;
    let flow = encrypted(site4(13), PUBLIC)?;
    let line = scene.assert_expected(&flow, "hidden", "tcp/443");
    assert!(has_evidence(&line, "DNS"), "it rests on DNS: {line}");
    open.push(flow);

    // The client has asked for the keys, and whoever listened knows the public name.
    let _responder = Responder::start(&scene.lab.server, OTHER_RESOLVER, |name, kind| {
        let record = |data| Response::of(vec![(name.to_owned(), 30, data)]);
        match (name, kind) {
            (NAME, RecordType::A) => record(responder::address(site4(14))),
            (NAME, RecordType::HTTPS) => {
                record(responder::https_with_ech(PUBLIC).expect("the name is short"))
            }
            _ => Response::failure(ResponseCode::NXDomain),
        }
    })?;
    let other = Asker::new(&scene.lab.client, client4(2), OTHER_RESOLVER);
    other.udp(NAME, RecordType::HTTPS)?;
    other.resolve(NAME)?;
    let flow = encrypted(site4(14), PUBLIC)?;
    let line = scene.assert_expected(&flow, "hidden", "tcp/443");
    assert!(has_evidence(&line, "DNS"), "it rests on DNS: {line}");
    open.push(flow);

    // Browsers send the extension also where there is nothing to hide, and then the name is the name.
    let flow = encrypted(site4(15), SHOP)?;
    scene.assert_expected(&flow, "shop", "tcp/443");
    open.push(flow);
    assert_eq!(scene.counted("unexpected")?, 0);

    // Neither the public name nor the address says anything that is allowed.
    let flow = encrypted(site4(16), PUBLIC)?;
    scene.verdict_within(&flow, "unexpected", HOLD + SOON);
    scene.assert_nothing_lost();
    Ok(())
}
