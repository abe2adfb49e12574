//! A name with a TTL of 30 s wanders over 50 addresses for ten minutes, as those of clouds do. Live, 30 s are one; the
//! same packets, recorded and stretched to ten minutes, are replayed with the lifetimes that users have.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use flowproof_tests::daemon::Backend;
use flowproof_tests::judge::{PacketJudge, Recording};
use flowproof_tests::lab::TO_CLIENT;
use flowproof_tests::names::dnsmasq::Zone;
use flowproof_tests::names::hello::Hello;
use flowproof_tests::names::internet::site4;
use flowproof_tests::names::stretch::stretch;

use super::{GRACE, HURRIED, Scene, TTL, on_both, replay};
use crate::{assert_soon, attempts, decided};

const NAME: &str = "cloud.lab.example";
const ADDRESSES: usize = 50;
/// A name has this many addresses at a time.
const AT_ONCE: usize = 3;
/// Ten minutes of TTLs, and the question after them.
const TURNS: usize = 21;
/// Ten minutes but for what a turn's beginning may vary.
const SECONDS: u64 = 590;

on_both!(rotation: a_wandering_name_is_expected_ebpf, a_wandering_name_is_expected_pcap);

/// The addresses of one turn.
fn hosts(turn: usize) -> Vec<(&'static str, IpAddr)> {
    (0..AT_ONCE)
        .map(|index| (turn * AT_ONCE + index) % ADDRESSES)
        .map(|index| (NAME, site4(u8::try_from(index + 1).unwrap_or(u8::MAX))))
        .collect()
}

fn rotation(backend: Backend) -> Result<()> {
    let mut scene = Scene::new(
        backend,
        HURRIED,
        &Zone {
            ttl: 30,
            hosts: &hosts(0),
            domains: &["lab.example"],
            ..Zone::default()
        },
    )?;
    let judge = PacketJudge::forwarded(
        &scene.lab.router,
        &[
            ("tls_there", "tcp dport 443"),
            ("tls_back", "tcp sport 443"),
            ("queue_there", "tcp dport 5671"),
            ("queue_back", "tcp sport 5671"),
        ],
    )?;
    let short = scene.daemon.folder().join("short.pcap");
    let recording = Recording::tcpdump(&scene.lab.router, TO_CLIENT, &short)?;

    let (mut tls, mut queue) = (0, 0);
    let mut seen = BTreeSet::new();
    let mut former: Option<(Instant, IpAddr)> = None;
    for turn in 0..TURNS {
        let begin = Instant::now();
        scene.dnsmasq.set_hosts(&hosts(turn))?;
        let addresses = scene.asker.resolve(NAME)?;
        let answered = Instant::now();
        assert_eq!(addresses.len(), AT_ONCE);
        for address in &addresses {
            scene.tls(*address, &Hello::of(NAME))?;
            scene.queue(*address)?;
            (tls, queue) = (tls + 1, queue + 1);
        }
        // Clients go on for a while with what they know. What is younger than TTL and grace by a margin may be used.
        if let Some((since, address)) = former
            && since.elapsed() + Duration::from_millis(500) < TTL + GRACE
        {
            scene.queue(address)?;
            queue += 1;
        }
        former = Some((answered, addresses[0]));
        seen.extend(addresses);
        thread::sleep(TTL.saturating_sub(begin.elapsed()));
    }
    assert_eq!(seen.len(), ADDRESSES);
    assert!(
        queue > TURNS * AT_ONCE + TURNS / 2,
        "too slow a machine: no former address was used in time"
    );
    recording.finish()?;

    for (service, flows, name) in [("tcp/443", tls, "tls"), ("tcp/5671", queue, "queue")] {
        scene.assert_counts("cloud", service, || {
            let counts = judge.counts()?;
            let packets = |way: &str| counts[&format!("{name}_{way}")].packets;
            Ok((flows as u64, packets("there"), packets("back")))
        });
        assert_soon(&scene.daemon, service, &(flows as u64), |metrics| {
            decided(metrics, "cloud", service, "answered")
        });
    }
    assert_eq!(scene.counted("unexpected")?, 0);
    assert_eq!(scene.counted("pending")?, 0);
    // The questions, each from a port of its own.
    let dns = attempts(&scene.daemon.metrics()?, "dns", "udp/53");
    assert_eq!(dns, TURNS as u64);
    scene.assert_nothing_lost();

    let seconds = stretch(&short, &scene.daemon.folder().join("long.pcap"), 30)?;
    assert!(seconds >= SECONDS, "only {seconds} s");
    replayed(&scene, &[("tcp/443", tls), ("tcp/5671", queue)])
}

/// The recording stretched to ten minutes tells the same, with the lifetimes that users have.
fn replayed(scene: &Scene, expected: &[(&str, usize)]) -> Result<()> {
    let lines = replay(scene, "long.pcap")?;
    let of_type = |kind: &'static str| lines.iter().filter(move |line| line["type"] == kind);
    for flow in of_type("flow") {
        assert_ne!(flow["verdict"], "unexpected", "{flow}");
        assert_ne!(flow["verdict"], "pending", "{flow}");
    }
    let row = of_type("requirement")
        .find(|line| line["id"] == "lab/cloud")
        .context("the row is missing")?;
    assert_eq!(row["state"], "verified", "{row}");
    for (service, flows) in expected {
        let line = row["services"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|line| line["service"] == *service)
            .context("the service is missing")?;
        assert_eq!(line["flows"], *flows, "{row}");
        assert_eq!(line["failed"], 0, "{row}");
    }
    Ok(())
}
