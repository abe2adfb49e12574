//! libpcap on the loopback interface: real packets, once each.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use flowproof::capture::live_pcap::{Options, open};
use flowproof::capture::{Capture, CaptureError, Interface};
use flowproof::flow::Limits;
use flowproof_common::record::{Event, EventKind};
use flowproof_common::state::DECIDE_AFTER;

/// A capture of `lo`, or nothing where this process may not capture.
fn loopback(test: &str, filter: Option<&str>) -> Option<Box<dyn Capture>> {
    let options = Options {
        filter: filter.map(str::to_owned),
        snap_length: 512,
        buffer_size: 1 << 20,
        promiscuous: false,
    };
    let mut capture = match open(
        options,
        Limits::default(),
        flowproof::names::Settings::default(),
    ) {
        Err(error @ CaptureError::Permission { .. }) => {
            flowproof_tests::skip::skip(test, &error.to_string());
            return None;
        }
        other => other.unwrap(),
    };
    let index = nix::net::if_::if_nametoindex("lo").unwrap();
    capture
        .attach(&Interface {
            index,
            name: "lo".to_owned(),
        })
        .unwrap();
    Some(Box::new(capture))
}

/// Polls until `enough` says so, or for five seconds.
fn poll_until(
    capture: &mut dyn Capture,
    mut enough: impl FnMut(&[Event], &mut dyn Capture) -> bool,
) -> Vec<Event> {
    let mut events = Vec::new();
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end && !enough(&events, capture) {
        capture
            .poll(Duration::from_millis(50), &mut |event| events.push(*event))
            .unwrap();
    }
    events
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

#[test]
fn loopback_packets_are_counted_once() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let filter = format!("udp port {}", port(&server));
    let Some(mut capture) = loopback("loopback_packets_are_counted_once", Some(&filter)) else {
        return;
    };
    for _ in 0..100 {
        client
            .send_to(b"ping", server.local_addr().unwrap())
            .unwrap();
    }
    server
        .send_to(b"pong", client.local_addr().unwrap())
        .unwrap();
    let events = poll_until(capture.as_mut(), |_, capture| {
        let flows = capture.flows().unwrap();
        flows
            .iter()
            .any(|(_, record)| record.packets.iter().sum::<u64>() >= 101)
    });
    let flows = capture.flows().unwrap();
    assert_eq!(flows.len(), 1);
    let mut packets = flows[0].1.packets;
    packets.sort_unstable();
    assert_eq!(packets, [1, 100]);
    assert_eq!(flows[0].1.state.outcome().name(), "answered");
    assert!(
        events
            .iter()
            .any(|event| event.kind == EventKind::Begun as u8)
    );
    let snapshot = capture.snapshot().unwrap();
    assert_eq!(snapshot.interfaces[0].0, "lo");
    assert_eq!(snapshot.interfaces[0].1.packets, 101);
    assert!(snapshot.lost.contains(&("kernel_capture", 0)));
}

#[test]
fn silence_is_decided_by_the_clock() {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let filter = format!("udp port {}", port(&server));
    let Some(mut capture) = loopback("silence_is_decided_by_the_clock", Some(&filter)) else {
        return;
    };
    let begun = Instant::now();
    client
        .send_to(b"ping", server.local_addr().unwrap())
        .unwrap();
    let decided = |events: &[Event], _: &mut dyn Capture| {
        events
            .iter()
            .any(|event| event.kind == EventKind::Decided as u8)
    };
    let events = poll_until(capture.as_mut(), decided);
    let waited = begun.elapsed();
    let last = events.last().unwrap();
    assert_eq!(last.record.state.outcome().name(), "one_way");
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    // Records count in ticks of 8 ms.
    assert!(
        waited + Duration::from_millis(20) >= Duration::from_nanos(DECIDE_AFTER),
        "{waited:?}"
    );
}

#[test]
fn what_is_detached_is_let_go() {
    let Some(mut capture) = loopback("what_is_detached_is_let_go", None) else {
        return;
    };
    let gone = Interface {
        index: 4_000_000,
        name: "no-such-if0".to_owned(),
    };
    let error = capture.attach(&gone).unwrap_err().to_string();
    assert!(error.contains("no-such-if0"), "{error}");
    let lo = Interface {
        index: nix::net::if_::if_nametoindex("lo").unwrap(),
        name: "lo".to_owned(),
    };
    capture.attach(&lo).unwrap();
    capture.detach(&lo);
    capture.detach(&lo);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .send_to(b"ping", socket.local_addr().unwrap())
        .unwrap();
    poll_until(capture.as_mut(), {
        let end = Instant::now() + Duration::from_millis(300);
        move |_, _| Instant::now() > end
    });
    assert!(capture.flows().unwrap().is_empty());
}
