//! The harness is held to its own judges before it judges the daemon: a lab whose traffic never flows would make every
//! "nothing was seen" test pass.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use flowproof_tests::frame::{self, FrameSender, RawSender, ethertype};
use flowproof_tests::judge::{PacketJudge, Recording};
use flowproof_tests::lab::{self, Routed, TO_CLIENT, UPLINK, client4, client6, server4, server6};
use flowproof_tests::traffic::{Manner, ask, echo_tcp, exchange, serve_udp};

const SOON: Duration = Duration::from_millis(500);

#[test]
fn traffic_crosses_the_router_and_is_counted() -> Result<()> {
    if lab::skipped("traffic_crosses_the_router_and_is_counted") {
        return Ok(());
    }
    let lab = Routed::new()?;
    let judge = PacketJudge::forwarded(
        &lab.router,
        &[
            ("tcp_there", "tcp dport 80"),
            ("udp_there", "udp dport 53"),
            ("udp_back", "udp sport 53"),
            ("echo4", "icmp type echo-reply"),
            ("echo6", "icmpv6 type echo-reply"),
            ("options", "udp dport 54"),
        ],
    )?;
    for (client, server) in [(client4(2), server4(10)), (client6(2), server6(0x10))] {
        let tcp = echo_tcp(lab.server.listen((server, 80))?)?;
        let udp = serve_udp(lab.server.udp((server, 53))?, Manner::Echo)?;

        let source = SocketAddr::new(client, 40000);
        let mut stream = lab.client.connect(Some(source), (server, 80), SOON)?;
        assert_eq!(stream.local_addr()?, source);
        exchange(&mut stream, b"hello")?;
        assert_eq!(tcp.served(), 1);

        let socket = lab.client.udp((client, 0))?;
        socket.connect((server, 53))?;
        assert!(ask(&socket, b"hello", SOON)?);
        assert_eq!(udp.served(), 1);

        let refused = lab.client.connect(None, (server, 81), SOON);
        assert_eq!(
            refused.err().map(|error| error.kind()),
            Some(std::io::ErrorKind::ConnectionRefused)
        );
    }
    let raw = RawSender::new(&lab.client)?;
    for (client, server) in [(client4(2), server4(10)), (client6(2), server6(0x10))] {
        let echo = frame::echo_request(client, server, 7, 1);
        let protocol = if client.is_ipv4() { 1 } else { 58 };
        raw.send(&frame::ip(client, server, protocol, &echo), server)?;
    }
    let (std::net::IpAddr::V6(client), std::net::IpAddr::V6(server)) = (client6(2), server6(0x10))
    else {
        unreachable!("both are IPv6");
    };
    let datagram = frame::udp((client, 1000).into(), (server, 54).into(), b"x");
    raw.send(
        &frame::ipv6_with_options(client, server, 17, &datagram),
        server.into(),
    )?;
    std::thread::sleep(Duration::from_millis(100));

    let counts = judge.counts()?;
    assert!(counts["tcp_there"].packets >= 6, "{counts:?}");
    for name in ["udp_there", "udp_back"] {
        assert_eq!(counts[name].packets, 2, "{name}: {counts:?}");
    }
    // Two frames: 14 + 20 + 8 + 5 bytes, and 14 + 40 + 8 + 5.
    assert_eq!(counts["udp_there"].bytes, 47 + 67);
    for name in ["echo4", "echo6", "options"] {
        assert_eq!(counts[name].packets, 1, "{name}: {counts:?}");
    }
    Ok(())
}

#[test]
fn filters_drop_and_reject() -> Result<()> {
    if lab::skipped("filters_drop_and_reject") {
        return Ok(());
    }
    let lab = Routed::new()?;
    lab.server.filter(
        "input",
        &[
            "tcp dport 84 drop",
            "tcp dport 82 reject",
            "tcp dport 83 reject with icmpx admin-prohibited",
        ],
    )?;
    for client in [client4(2), client6(2)] {
        let server = if client.is_ipv4() {
            server4(10)
        } else {
            server6(0x10)
        };
        let start = Instant::now();
        assert!(lab.client.connect(None, (server, 84), SOON).is_err());
        assert!(start.elapsed() >= SOON);
        for port in [82, 83] {
            let start = Instant::now();
            // While its own call goes on, a TCP socket over IPv6 misses the error about its first SYN.
            let limit = SOON * 5;
            assert!(lab.client.connect(None, (server, port), limit).is_err());
            assert!(start.elapsed() < limit, "port {port} was silent");
        }
    }
    Ok(())
}

#[test]
fn frames_are_sent_as_they_are() -> Result<()> {
    if lab::skipped("frames_are_sent_as_they_are") {
        return Ok(());
    }
    let lab = Routed::new()?;
    let folder = tempfile::TempDir::new()?;
    let file = folder.path().join("frames.pcap");
    let recording = Recording::tcpdump(&lab.router, TO_CLIENT, &file)?;
    let sender = FrameSender::new(&lab.client, UPLINK)?;
    let (source, destination) = (Ipv4Addr::new(10, 50, 0, 2), Ipv4Addr::new(10, 50, 0, 3));
    let datagram = frame::udp((source, 1000).into(), (destination, 53).into(), b"tagged");
    let packet = frame::ip(source.into(), destination.into(), 17, &datagram);
    let sent = frame::ethernet(
        sender.address,
        [0x02, 0, 0, 0, 0, 1],
        &[(ethertype::SERVICE_VLAN, 7), (ethertype::VLAN, 8)],
        &packet,
    );
    sender.send(&sent)?;
    recording.finish()?;
    let recorded = std::fs::read(&file)?;
    assert!(
        recorded
            .windows(sent.len())
            .any(|window| window == sent.as_slice()),
        "the frame is not in the recording"
    );
    Ok(())
}
