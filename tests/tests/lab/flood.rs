//! A flood of attempts can't push out what is known to work.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Result;
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::frame::{self, RawSender, flags};
use flowproof_tests::lab::{self, Routed, TO_CLIENT, TO_SERVER, client4, server4};
use flowproof_tests::metrics::Metrics;
use flowproof_tests::traffic::{echo_tcp, exchange};

use super::counts::setup;
use super::{assert_soon, attempts, decided, traffic};

#[test]
fn flood_evicts_no_verified_flow_ebpf() -> Result<()> {
    flood("flood_evicts_no_verified_flow_ebpf", Backend::Ebpf)
}

#[test]
fn flood_evicts_no_verified_flow_pcap() -> Result<()> {
    flood("flood_evicts_no_verified_flow_pcap", Backend::Pcap)
}

fn flood(test: &str, backend: Backend) -> Result<()> {
    const CONNECTIONS: usize = 60;
    /// Ten times what the table for unverified flows has room for.
    const SYNS: u16 = 10_240;
    if lab::skipped(test) {
        return Ok(());
    }
    let lab = Routed::new()?;
    lab.server.filter("input", &["ip daddr 10.1.0.12 drop"])?;
    let _server = echo_tcp(lab.server.listen((server4(10), 8000))?)?;
    let tables = "flows: {verified: 1024, unverified: 1024}";
    // The kernel programs see a forwarded packet leave right after it came. libpcap hands over each interface's packets
    // in blocks: a flow that was pushed out in between would begin a second time.
    let interfaces: &[&str] = match backend {
        Backend::Pcap => &[TO_CLIENT],
        Backend::Ebpf | Backend::Auto => &[TO_CLIENT, TO_SERVER],
    };
    let daemon = Daemon::start(
        &lab.router,
        &Setup {
            config: &format!(
                "capture: {{pcap: {{buffer_size: 64MiB, {tables}}}, ebpf: {{{tables}}}}}"
            ),
            interfaces,
            ..setup(backend)
        },
    )?;

    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let source = Some((client4(2), 0).into());
        let mut stream = lab
            .client
            .connect(source, (server4(10), 8000), Duration::from_secs(2))?;
        exchange(&mut stream, b"hello")?;
        streams.push(stream);
    }

    let raw = RawSender::new(&lab.client)?;
    let target = server4(12);
    for number in 0..SYNS {
        // Every SYN is a flow of its own: another address and another port.
        let [high, low] = number.to_be_bytes();
        let source = IpAddr::V4(Ipv4Addr::new(10, 20, 128 + high, low));
        let segment = frame::tcp(
            (source, 1024 + number).into(),
            (target, 443).into(),
            flags::SYN,
            u32::from(number),
            0,
        );
        raw.send(&frame::ip(source, target, 6, &segment), target)?;
    }

    let syns = u64::from(SYNS);
    assert_soon(&daemon, "flows of the flood", &(syns, syns), |metrics| {
        (
            attempts(metrics, "flooded", "tcp/443"),
            traffic(metrics, "flooded", "tcp/443", "to_responder").0,
        )
    });
    let before = traffic(&daemon.metrics()?, "calls", "tcp/8000", "to_responder").0;
    for stream in &mut streams {
        exchange(stream, b"still there")?;
    }
    let connections = CONNECTIONS as u64;
    // An evicted connection would have been taken for a new flow now.
    assert_soon(
        &daemon,
        "connections are still known",
        &(connections, connections, true),
        |metrics| {
            (
                attempts(metrics, "calls", "tcp/8000"),
                decided(metrics, "calls", "tcp/8000", "answered"),
                traffic(metrics, "calls", "tcp/8000", "to_responder").0 >= before + connections,
            )
        },
    );
    let evicted = "flowproof_flow_table_evictions_total";
    let (entries, capacity) = (
        "flowproof_flow_table_entries",
        "flowproof_flow_table_capacity",
    );
    let table =
        |metrics: &Metrics, series: &str, table: &str| metrics.count(series, &[("table", table)]);
    assert_soon(&daemon, "evictions are counted", &true, |metrics| {
        table(metrics, evicted, "unverified") >= syns - table(metrics, capacity, "unverified")
    });
    let metrics = daemon.metrics()?;
    assert_eq!(table(&metrics, evicted, "verified"), 0);
    assert_eq!(table(&metrics, entries, "verified"), connections);
    assert!(
        table(&metrics, entries, "unverified") <= table(&metrics, capacity, "unverified"),
        "{}",
        metrics.show(entries, &[])
    );
    Ok(())
}
