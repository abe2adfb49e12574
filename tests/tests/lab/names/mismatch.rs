//! An address that an allowed and a forbidden name share: the allowed one is expected and the forbidden one isn't, every
//! time, whatever was asked for before and however the name is told.

use std::net::SocketAddr;

use anyhow::Result;
use flowproof_tests::daemon::Backend;
use flowproof_tests::judge::Recording;
use flowproof_tests::lab::{TO_CLIENT, client4};
use flowproof_tests::names::dnsmasq::Zone;
use flowproof_tests::names::h3;
use flowproof_tests::names::hello::{Hello, Layout};
use flowproof_tests::names::internet::site4;

use super::{Open, Scene, UNHURRIED, on_both, replay};
use crate::assert_soon;

const GOOD: &str = "good.lab.example";
const BAD: &str = "bad.lab.example";

/// How often each name is used.
const ROUNDS: usize = 6;

on_both!(by_sni: a_shared_address_is_told_apart_by_sni_ebpf, a_shared_address_is_told_apart_by_sni_pcap);
on_both!(by_pieces: a_shared_address_is_told_apart_by_a_split_sni_ebpf, a_shared_address_is_told_apart_by_a_split_sni_pcap);
on_both!(elsewhere: a_shared_address_is_told_apart_on_another_port_ebpf, a_shared_address_is_told_apart_on_another_port_pcap);
on_both!(by_host: a_shared_address_is_told_apart_by_host_ebpf, a_shared_address_is_told_apart_by_host_pcap);
on_both!(by_quic: a_shared_address_is_told_apart_by_quic_ebpf, a_shared_address_is_told_apart_by_quic_pcap);

fn by_sni(backend: Backend) -> Result<()> {
    shared(backend, "tcp/443", |scene, name| {
        scene.tls(site4(5), &Hello::of(name))
    })
}

fn by_pieces(backend: Backend) -> Result<()> {
    shared(backend, "tcp/443", |scene, name| {
        scene.tls(site4(5), &Hello::of(name).laid_out(Layout::Three))
    })
}

fn elsewhere(backend: Backend) -> Result<()> {
    shared(backend, "tcp/8443", |scene, name| {
        let mut conversation = scene
            .client
            .tls((site4(5), 8443).into(), &Hello::of(name))?;
        conversation.get(name, "/")?;
        Ok(Open::new(conversation.local_addr()?, "tcp", conversation))
    })
}

fn by_host(backend: Backend) -> Result<()> {
    shared(backend, "tcp/80", |scene, name| {
        Open::tcp(scene.client.http((site4(5), 80).into(), name)?)
    })
}

fn by_quic(backend: Backend) -> Result<()> {
    let mut server = None;
    shared(backend, "udp/443", move |scene, name| {
        let address = SocketAddr::new(site4(5), 443);
        if server.is_none() {
            server = Some(h3::Server::start(
                &scene.lab.server,
                &[address],
                &scene.identity,
            )?);
        }
        let mut conversation = h3::Conversation::open(
            &scene.lab.client,
            client4(2),
            address,
            name,
            &scene.identity,
        )?;
        conversation.get("/")?;
        Ok(Open::new(conversation.local_addr()?, "udp", conversation))
    })
}

fn shared(
    backend: Backend,
    service: &str,
    mut open: impl FnMut(&Scene, &str) -> Result<Open>,
) -> Result<()> {
    let scene = Scene::new(
        backend,
        UNHURRIED,
        &Zone {
            ttl: 30,
            hosts: &[(GOOD, site4(5)), (BAD, site4(5))],
            ..Zone::default()
        },
    )?;
    let file = scene.daemon.folder().join("shared.pcap");
    let recording = match backend {
        Backend::Ebpf => Some(Recording::tcpdump(&scene.lab.router, TO_CLIENT, &file)?),
        Backend::Pcap | Backend::Auto => None,
    };
    scene.asker.resolve(GOOD)?;
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // From now on DNS says both names of the address, the forbidden one last.
        if round == ROUNDS / 2 {
            scene.asker.resolve(BAD)?;
        }
        // Each way round: what was judged last must not rub off.
        let (first, second) = if round % 2 == 0 {
            (GOOD, BAD)
        } else {
            (BAD, GOOD)
        };
        for name in [first, second] {
            let flow = open(&scene, name)?;
            if name == GOOD {
                scene.assert_expected(&flow, "good", service);
                good.push(flow);
            } else {
                scene.assert_mismatch(&flow, "good", service);
                bad.push(flow);
            }
        }
    }
    assert_soon(
        &scene.daemon,
        "forbidden flows",
        &(ROUNDS as u64),
        |metrics| metrics.count("flowproof_flows_total", &[("verdict", "unexpected")]),
    );
    // The row has the packets of the allowed flows from their first on, and no others.
    for flow in &good {
        scene.assert_expected(flow, "good", service);
    }
    scene.assert_row("good", service, &good.iter().collect::<Vec<_>>());
    scene.assert_nothing_lost();
    if let Some(recording) = recording {
        recording.finish()?;
        replayed(&scene, service)?;
    }
    Ok(())
}

/// A recording tells the same as the live capture.
fn replayed(scene: &Scene, service: &str) -> Result<()> {
    let (mut good, mut bad) = (0, 0);
    for line in replay(scene, "shared.pcap")? {
        if line["responder"]["address"] != site4(5).to_string() {
            continue;
        }
        if line["verdict"] == "expected" {
            assert_eq!(
                line["requirements"],
                serde_json::json!([format!("lab/good#{service}")]),
                "{line}"
            );
            good += 1;
        } else {
            assert_eq!(line["verdict"], "unexpected", "{line}");
            assert_eq!(line["near_misses"][0]["kind"], "name_mismatch", "{line}");
            bad += 1;
        }
    }
    assert_eq!((good, bad), (ROUNDS, ROUNDS));
    Ok(())
}
