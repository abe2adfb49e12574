//! A new matrix comes into force without a packet between the two, and a bad one never does.

use std::time::Duration;

use anyhow::Result;
use flowproof_tests::daemon::{Backend, Daemon};
use flowproof_tests::judge::PacketJudge;
use flowproof_tests::lab::{self, Routed};
use flowproof_tests::metrics::Metrics;

use super::counts::{Background, serve, setup, with_background};
use super::{assert_soon, attempts, traffic};

#[test]
fn reload_leaves_no_packet_unjudged_ebpf() -> Result<()> {
    reload("reload_leaves_no_packet_unjudged_ebpf", Backend::Ebpf)
}

#[test]
fn reload_leaves_no_packet_unjudged_pcap() -> Result<()> {
    reload("reload_leaves_no_packet_unjudged_pcap", Backend::Pcap)
}

fn successes(metrics: &Metrics) -> (u64, u64) {
    (
        metrics.count("flowproof_matrix_last_reload_successful", &[]),
        metrics
            .matching("flowproof_requirement_info", &[])
            .count()
            .try_into()
            .unwrap_or(0),
    )
}

fn reload(test: &str, backend: Backend) -> Result<()> {
    if lab::skipped(test) {
        return Ok(());
    }
    let lab = Routed::new()?;
    let _servers = serve(&lab)?;
    let judge = PacketJudge::forwarded(
        &lab.router,
        &[
            ("asks_there", "ip daddr 10.1.0.10 udp dport 7000-7999"),
            ("asks_back", "ip saddr 10.1.0.10 udp sport 7000-7999"),
            ("calls_there", "ip daddr 10.1.0.10 tcp dport 8000"),
            ("calls_back", "ip saddr 10.1.0.10 tcp sport 8000"),
        ],
    )?;
    let daemon = Daemon::start(&lab.router, &setup(backend))?;
    let full = include_str!("traffic.yaml");
    // The row `calls` goes and comes; `asks` stays.
    let without_calls: String = full
        .lines()
        .filter(|line| !line.contains("id: calls"))
        .map(|line| format!("{line}\n"))
        .collect();

    let background = Background::new(&lab);
    with_background(&background, || {
        for _ in 0..3 {
            daemon.reload("matrix.yaml", &without_calls)?;
            assert_soon(&daemon, "the smaller matrix", &(1, 2), successes);
            std::thread::sleep(Duration::from_millis(200));
            daemon.reload("matrix.yaml", full)?;
            assert_soon(&daemon, "the full matrix", &(1, 3), successes);
            std::thread::sleep(Duration::from_millis(200));
        }
        daemon.reload("matrix.yaml", "system: lab\ntitle: [broken\n")?;
        assert_soon(&daemon, "the old matrix goes on", &(0, 3), successes);
        let before = attempts(&daemon.metrics()?, "calls", "tcp/8000");
        let (_, goes_on) = daemon.wait_metrics(Duration::from_secs(3), |metrics| {
            attempts(metrics, "calls", "tcp/8000") > before
        })?;
        assert!(goes_on, "the old matrix no longer judges");
        let said = daemon.stderr();
        assert!(
            said.contains("matrix.yaml"),
            "the bad file isn't named:\n{said}"
        );
        daemon.reload("matrix.yaml", full)?;
        assert_soon(&daemon, "the mended matrix", &(1, 3), successes);
        Ok(())
    })?;
    std::thread::sleep(Duration::from_millis(200));

    let judged = judge.counts()?;
    let asks = judged["asks_there"].packets;
    assert_soon(
        &daemon,
        "packets of the row that stayed",
        &asks,
        |metrics| traffic(metrics, "asks", "udp/7000-7999", "to_responder").0,
    );
    // Each packet of the row that came and went was judged by one matrix or the other.
    let calls = judged["calls_there"].packets + judged["calls_back"].packets;
    assert_soon(&daemon, "packets of the row that went", &calls, |metrics| {
        let row = traffic(metrics, "calls", "tcp/8000", "to_responder").0
            + traffic(metrics, "calls", "tcp/8000", "to_initiator").0;
        row + metrics.count("flowproof_packets_total", &[("verdict", "unexpected")])
    });
    let all: u64 = judged.values().map(|count| count.packets).sum();
    assert_soon(&daemon, "packets of any verdict", &all, |metrics| {
        metrics.count("flowproof_packets_total", &[])
    });
    let metrics = daemon.metrics()?;
    let of_verdict = |verdict| metrics.count("flowproof_packets_total", &[("verdict", verdict)]);
    assert_eq!(of_verdict("unscoped"), 0, "judged by no matrix");
    assert!(
        of_verdict("unexpected") > 0,
        "the smaller matrix never judged"
    );
    Ok(())
}
