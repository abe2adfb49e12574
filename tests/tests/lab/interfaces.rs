//! Interfaces come and go while the daemon runs, as they do with containers, virtual machines and VPNs.

use std::time::Duration;

use anyhow::Result;
use flowproof_tests::daemon::{Backend, Daemon, Setup};
use flowproof_tests::host::{Host, wire};
use flowproof_tests::lab;
use flowproof_tests::traffic::{Manner, ask, serve_udp};

use super::{assert_soon, traffic};

const MATRIX: &str = "
system: lab
title: Lab
roles: {guest: {title: Guest}, host: {title: Host}}
requirements:
  - {id: asks, from: guest, to: host, services: [udp/7000]}
";
const SITE: &str = "
site: lab
systems: [lab]
roles: {lab/guest: [10.60.0.2], lab/host: [10.60.0.1]}
";

#[test]
fn interfaces_come_and_go_ebpf() -> Result<()> {
    interfaces_come_and_go("interfaces_come_and_go_ebpf", Backend::Ebpf)
}

#[test]
fn interfaces_come_and_go_pcap() -> Result<()> {
    interfaces_come_and_go("interfaces_come_and_go_pcap", Backend::Pcap)
}

fn interfaces_come_and_go(test: &str, backend: Backend) -> Result<()> {
    if lab::skipped(test) {
        return Ok(());
    }
    let host = Host::new("host")?;
    // A daemon that watches nothing isn't ready, so there is one interface from the start.
    let first = Host::new("guest")?;
    wire(&first, "uplink", &host, "guest0")?;
    let mut daemon = Daemon::start(
        &host,
        &Setup {
            backend,
            matrix: MATRIX,
            site: SITE,
            config: "",
            interfaces: &["guest*"],
        },
    )?;
    let mut asked = 0;
    for name in ["guest1", "guest1", "guest2"] {
        let guest = Host::new("guest")?;
        wire(&guest, "uplink", &host, name)?;
        guest.ip("addr add 10.60.0.2/24 dev uplink")?;
        host.ip(&format!("addr add 10.60.0.1/24 dev {name}"))?;
        let before = daemon.metrics()?;
        let labels = [("interface", name)];
        let seen = |metrics: &flowproof_tests::metrics::Metrics| {
            metrics.count("flowproof_capture_packets_total", &labels)
        };
        let _server = serve_udp(host.udp(([10, 60, 0, 1], 7000))?, Manner::Echo)?;
        let socket = guest.udp(([10, 60, 0, 2], 0))?;
        socket.connect("10.60.0.1:7000")?;
        // Questions for an address, which are no packets of the row, show that the interface is watched.
        let knock = guest.udp(([10, 60, 0, 2], 0))?;
        let (_, picked_up) = daemon.wait_metrics(Duration::from_secs(5), |metrics| {
            // Nobody has that address, which a later call may report.
            let _ = knock.send_to(b"?", "10.60.0.9:9");
            seen(metrics) > seen(&before)
        })?;
        assert!(picked_up, "{name} isn't watched within 5 s");
        for _ in 0..10 {
            assert!(ask(&socket, b"question", Duration::from_secs(1))?);
            asked += 1;
        }
        assert_soon(&daemon, name, &(asked, asked), |metrics| {
            let packets = |direction| traffic(metrics, "asks", "udp/7000", direction).0;
            (packets("to_responder"), packets("to_initiator"))
        });
        host.ip(&format!("link delete {name}"))?;
        assert!(!host.has_interface(name));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(daemon.is_running()?, "{}", daemon.stderr());
    assert_eq!(daemon.get("/-/healthy")?.status, 200);
    Ok(())
}
