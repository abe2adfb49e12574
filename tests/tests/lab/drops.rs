//! What the daemon's own host drops is told from silence, and counted once.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::judge::PacketJudge;
use flowproof_tests::lab::{self, Routed, UPLINK, client4, server4};
use flowproof_tests::traffic::{echo_tcp, exchange};

use super::{assert_soon, attempts, decided, traffic};

const MATRIX: &str = "
system: lab
title: Lab
roles: {client: {title: Client}, server: {title: Server}}
requirements:
  - {id: comes-in, from: client, to: server, services: [tcp/443]}
  - {id: goes-out, from: server, to: client, services: [tcp/9100]}
  - {id: cut-off, from: client, to: server, services: [tcp/8000]}
";
const SITE: &str = "
site: lab
systems: [lab]
roles: {lab/client: [10.20.0.2], lab/server: [10.1.0.10]}
";

#[test]
fn drops_on_this_host_are_told_ebpf() -> Result<()> {
    if lab::skipped("drops_on_this_host_are_told_ebpf") {
        return Ok(());
    }
    let lab = Routed::new()?;
    let second = Duration::from_secs(1);
    let _cut_off = echo_tcp(lab.server.listen((server4(10), 8000))?)?;
    let judge = PacketJudge::own(
        &lab.server,
        &[
            ("comes_in", "tcp dport 443"),
            ("goes_out", "tcp dport 9100"),
            ("cut_off", "tcp dport 8000"),
        ],
    )?;
    let daemon = Daemon::start(
        &lab.server,
        &Setup {
            backend: Backend::Ebpf,
            matrix: MATRIX,
            site: SITE,
            config: "",
            interfaces: &[UPLINK],
        },
    )?;
    let mut open = lab
        .client
        .connect(Some((client4(2), 0).into()), (server4(10), 8000), second)?;
    exchange(&mut open, b"hello")?;

    lab.server
        .filter("input", &["tcp dport { 443, 8000 } drop"])?;
    lab.server.filter("output", &["tcp dport 9100 drop"])?;
    // Lost and repeated until the filter goes.
    open.write_all(b"anybody there?")?;
    for (host, source, target) in [
        (&lab.client, client4(2), (server4(10), 443)),
        (&lab.server, server4(10), (client4(2), 9100)),
    ] {
        let result = host.connect(Some((source, 0).into()), target, second);
        assert!(result.is_err(), "{target:?} should have been dropped");
    }

    for (row, service) in [("comes-in", "tcp/443"), ("goes-out", "tcp/9100")] {
        assert_soon(&daemon, row, &(1, 1), |metrics| {
            (
                attempts(metrics, row, service),
                decided(metrics, row, service, "dropped_here"),
            )
        });
    }
    // The tables have the flow, and the event said why.
    let path = "/api/v1/flows?requirement=lab%2Fcomes-in&outcome=dropped_here";
    let flows = daemon.get(path)?.body;
    assert!(
        flows.contains("dropped by this host's kernel: netfilter_drop"),
        "{flows}"
    );
    assert_soon(&daemon, "the open connection", &(1, 1, 0), |metrics| {
        (
            attempts(metrics, "cut-off", "tcp/8000"),
            decided(metrics, "cut-off", "tcp/8000", "answered"),
            decided(metrics, "cut-off", "tcp/8000", "dropped_here"),
        )
    });
    // The connection that is cut off repeats what it has to say, so both counts are of one moment without traffic.
    open.shutdown(std::net::Shutdown::Both)?;
    lab.client.filter("output", &["tcp dport 8000 drop"])?;
    std::thread::sleep(Duration::from_millis(200));
    let judged = judge.counts()?;
    assert!(
        judged["cut_off"].packets > 4,
        "nothing was repeated: {judged:?}"
    );
    for (name, row, service) in [
        ("comes_in", "comes-in", "tcp/443"),
        ("goes_out", "goes-out", "tcp/9100"),
        ("cut_off", "cut-off", "tcp/8000"),
    ] {
        assert_soon(&daemon, row, &judged[name].packets, |metrics| {
            traffic(metrics, row, service, "to_responder").0
        });
    }
    Ok(())
}
