//! Names that come after the connection, and names that have gone: a flow is held until its name is known, and an
//! address stands for a name no longer than TTL and grace.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use flowproof_tests::daemon::Backend;
use flowproof_tests::judge::PacketJudge;
use flowproof_tests::lab::client4;
use flowproof_tests::names::dnsmasq::Zone;
use flowproof_tests::names::internet::{OTHER_RESOLVER, site4};
use flowproof_tests::names::query::Asker;
use flowproof_tests::names::responder::{self, Responder, Response};
use flowproof_tests::traffic::exchange;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::{GRACE, HOLD, HURRIED, Open, QUEUE, SOON, Scene, TTL, on_both};
use crate::{assert_soon, attempts, traffic};

on_both!(held: a_flow_waits_for_its_name_ebpf, a_flow_waits_for_its_name_pcap);
on_both!(reused: an_address_is_no_longer_its_former_name_ebpf, an_address_is_no_longer_its_former_name_pcap);

/// How late the answer is, and how long a flow waits for it: with room for a busy machine.
const LATE: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENT: &str = "names: {hold: 10s}\n";

fn held(backend: Backend) -> Result<()> {
    let scene = Scene::new(backend, PATIENT, &Zone::default())?;
    let _responder = Responder::start(&scene.lab.server, OTHER_RESOLVER, |name, kind| {
        match (name, kind) {
            ("late.lab.example", RecordType::A) => {
                Response::of(vec![(name.to_owned(), 30, responder::address(site4(5)))]).after(LATE)
            }
            _ => Response::failure(ResponseCode::NXDomain),
        }
    })?;
    let judge = PacketJudge::forwarded(
        &scene.lab.router,
        &[
            ("there", "ip daddr 10.1.1.5 tcp dport 5671"),
            ("back", "ip saddr 10.1.1.5 tcp sport 5671"),
        ],
    )?;
    let row = |metrics: &_| {
        (
            attempts(metrics, "late", "tcp/5671"),
            traffic(metrics, "late", "tcp/5671", "to_responder").0,
            traffic(metrics, "late", "tcp/5671", "to_initiator").0,
        )
    };

    let asked = Asker::new(&scene.lab.client, client4(2), OTHER_RESOLVER)
        .udp_later("late.lab.example", RecordType::A)?;
    let begin = Instant::now();
    let mut stream = scene.client.connect((site4(5), QUEUE).into())?;
    exchange(&mut stream, b"hello")?;
    let flow = Open::tcp(stream.try_clone()?)?;
    scene.verdict_within(&flow, "pending", SOON);
    let metrics = scene.daemon.metrics()?;
    assert!(
        begin.elapsed() < LATE,
        "too slow a machine: the answer came before the daemon was asked"
    );
    // Held is held: counted nowhere.
    assert_eq!(row(&metrics), (0, 0, 0));
    let named = |verdict| metrics.count("flowproof_flows_total", &[("verdict", verdict)]);
    assert_eq!((named("pending"), named("unexpected")), (0, 0));
    exchange(&mut stream, b"more")?;

    assert_eq!(asked.wait()?.addresses, [site4(5)]);
    scene.assert_expected(&flow, "late", "tcp/5671");
    let judged = || {
        let counts = judge.counts()?;
        Ok((1, counts["there"].packets, counts["back"].packets))
    };
    scene.assert_counts("late", "tcp/5671", judged);
    // And it goes on being counted.
    exchange(&mut stream, b"more")?;
    scene.assert_counts("late", "tcp/5671", judged);
    assert_eq!(scene.counted("unexpected")?, 0);

    // Nobody ever says the name of this one: it is held, and then it is what it is.
    let nameless = scene.queue(site4(6))?;
    scene.verdict_within(&nameless, "pending", SOON);
    scene.verdict_within(&nameless, "unexpected", PATIENCE + SOON);
    assert_soon(&scene.daemon, "counted once", &1, |metrics| {
        metrics.count("flowproof_flows_total", &[("verdict", "unexpected")])
    });
    scene.assert_nothing_lost();
    Ok(())
}

fn reused(backend: Backend) -> Result<()> {
    const NAME: &str = "moved.lab.example";
    let mut scene = Scene::new(
        backend,
        HURRIED,
        &Zone {
            ttl: 30,
            hosts: &[(NAME, site4(6))],
            ..Zone::default()
        },
    )?;
    assert_eq!(scene.asker.resolve(NAME)?, [site4(6)]);
    let before = scene.queue(site4(6))?;
    scene.assert_expected(&before, "moved", "tcp/5671");

    scene
        .dnsmasq
        .set_hosts(&[(NAME, site4(7)), ("other.lab.example", site4(6))])?;
    thread::sleep(TTL + GRACE + Duration::from_millis(1500));
    assert_eq!(scene.asker.resolve(NAME)?, [site4(7)]);
    let moved = scene.queue(site4(7))?;
    let after = scene.queue(site4(6))?;
    scene.assert_expected(&moved, "moved", "tcp/5671");
    scene.verdict_within(&after, "unexpected", HOLD + SOON);

    // Said to be another's, it needs no waiting.
    assert_eq!(scene.asker.resolve("other.lab.example")?, [site4(6)]);
    let others = scene.queue(site4(6))?;
    scene.verdict_within(&others, "unexpected", HOLD + SOON);

    // What was rightly begun stays right.
    scene.assert_expected(&before, "moved", "tcp/5671");
    scene.assert_expected(&moved, "moved", "tcp/5671");
    scene.assert_row("moved", "tcp/5671", &[&before, &moved]);
    assert_soon(&scene.daemon, "unexpected flows", &2, |metrics| {
        metrics.count("flowproof_flows_total", &[("verdict", "unexpected")])
    });
    scene.assert_nothing_lost();
    Ok(())
}
