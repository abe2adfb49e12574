//! The servers and clients of the name labs are held to each other and to tcpdump before they judge the daemon: a
//! ClientHello that was not split, or a name server that answers at once, would make a test pass that shows nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use flowproof_tests::host::wait_for;
use flowproof_tests::judge::Recording;
use flowproof_tests::lab::{TO_CLIENT, client4, client6};
use flowproof_tests::names::dnsmasq::{Dnsmasq, Zone};
use flowproof_tests::names::hello::{Client, Hello, Layout};
use flowproof_tests::names::identity::Identity;
use flowproof_tests::names::initial::{self, Quic};
use flowproof_tests::names::internet::{self, OTHER_RESOLVER, RESOLVER, site4, site6};
use flowproof_tests::names::nginx::{Nginx, Request};
use flowproof_tests::names::query::Asker;
use flowproof_tests::names::responder::{self, Responder, Response};
use flowproof_tests::names::{self, h3, stretch};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

#[test]
fn dnsmasq_answers_and_changes_its_mind() -> Result<()> {
    if names::skipped("dnsmasq_answers_and_changes_its_mind") {
        return Ok(());
    }
    let lab = internet::new()?;
    let chain = [
        "one.lab.example",
        "two.lab.example",
        "three.lab.example",
        "four.lab.example",
        "five.lab.example",
        "host.lab.example",
    ];
    let many: Vec<_> = (1..=50).map(|n| ("many.lab.example", site4(n))).collect();
    let mut hosts = vec![
        ("host.lab.example", site4(1)),
        ("host.lab.example", site6(1)),
    ];
    hosts.extend(&many);
    let mut dnsmasq = Dnsmasq::start(
        &lab.server,
        RESOLVER,
        &Zone {
            ttl: 30,
            hosts: &hosts,
            chains: &[&chain],
            wildcards: &[("any.lab.example", site4(9))],
            domains: &["lab.example"],
        },
    )?;
    let asker = Asker::new(&lab.client, client4(2), RESOLVER);

    for reply in [
        asker.udp("one.lab.example", RecordType::A)?,
        asker.tcp("one.lab.example", RecordType::A)?,
    ] {
        assert_eq!(reply.code, ResponseCode::NoError);
        assert_eq!(reply.aliases, chain[1..], "the chain of five");
        assert_eq!(reply.addresses, [site4(1)]);
        assert_eq!(reply.ttl, Some(30));
    }
    let reply = asker.udp("one.lab.example", RecordType::AAAA)?;
    assert_eq!(reply.addresses, [site6(1)]);
    assert_eq!(asker.resolve("x.y.any.lab.example")?, [site4(9)]);
    let nothing = asker.udp("nothing.lab.example", RecordType::A)?;
    assert_eq!(nothing.code, ResponseCode::NXDomain);
    let elsewhere = asker.udp("www.example.net", RecordType::A)?;
    assert_eq!(elsewhere.code, ResponseCode::Refused);

    // 50 addresses fit no datagram of 512 bytes.
    assert!(asker.udp("many.lab.example", RecordType::A)?.truncated);
    let whole = asker.tcp("many.lab.example", RecordType::A)?;
    assert!(!whole.truncated);
    let addresses: BTreeSet<_> = whole.addresses.into_iter().collect();
    assert_eq!(
        addresses,
        many.iter().map(|(_, address)| *address).collect()
    );

    let start = Instant::now();
    for number in 2..=11 {
        dnsmasq.set_hosts(&[("host.lab.example", site4(number))])?;
        assert_eq!(asker.resolve("one.lab.example")?, [site4(number)]);
    }
    let each = start.elapsed() / 10;
    assert!(each < Duration::from_millis(300), "a change takes {each:?}");

    let names = (0..2000).map(|number| format!("n{number}.any.lab.example"));
    assert_eq!(asker.flood(names, 32)?, 2000);
    Ok(())
}

#[test]
fn the_responder_dawdles_and_fails() -> Result<()> {
    if names::skipped("the_responder_dawdles_and_fails") {
        return Ok(());
    }
    let lab = internet::new()?;
    let late = Duration::from_millis(400);
    let responder = Responder::start(&lab.server, OTHER_RESOLVER, move |name, kind| {
        let record = |data| vec![(name.to_owned(), 30, data)];
        match (name, kind) {
            ("late.lab.example", RecordType::A) => {
                Response::of(record(responder::address(site4(3)))).after(late)
            }
            ("ech.lab.example", RecordType::HTTPS) => Response::of(record(
                responder::https_with_ech("public.lab.example").expect("a name"),
            )),
            ("quick.lab.example", _) => Response::of(record(responder::address(site6(4)))),
            ("alias.lab.example", _) => Response::of(vec![
                (
                    name.to_owned(),
                    7,
                    responder::alias("quick.lab.example").expect("a name"),
                ),
                (
                    "quick.lab.example".to_owned(),
                    30,
                    responder::address(site4(4)),
                ),
            ]),
            _ => Response::failure(ResponseCode::ServFail),
        }
    })?;
    let asker = Asker::new(&lab.client, client4(2), OTHER_RESOLVER);
    let start = Instant::now();
    let asked = asker.udp_later("late.lab.example", RecordType::A)?;
    let quick = asker.udp("quick.lab.example", RecordType::AAAA)?;
    assert_eq!(quick.addresses, [site6(4)]);
    assert!(
        start.elapsed() < late,
        "one late answer holds back the others"
    );
    assert_eq!(asked.wait()?.addresses, [site4(3)]);
    assert!(start.elapsed() >= late);
    let alias = asker.tcp("alias.lab.example", RecordType::A)?;
    assert_eq!((alias.ttl, alias.aliases.len()), (Some(7), 1));
    let failed = asker.udp("nothing.lab.example", RecordType::A)?;
    assert_eq!(failed.code, ResponseCode::ServFail);

    // tcpdump reads the HTTPS record, and what it can't read it marks.
    let folder = tempfile::TempDir::new()?;
    let file = folder.path().join("https");
    let recording = Recording::tcpdump(&lab.router, TO_CLIENT, &file)?;
    let https = asker.udp("ech.lab.example", RecordType::HTTPS)?;
    assert_eq!((https.code, https.ttl), (ResponseCode::NoError, Some(30)));
    recording.finish()?;
    let recorded = std::fs::read(&file)?;
    assert!(contains(&recorded, b"public.lab.example"));
    assert_eq!(responder.served(), (4, 1));
    Ok(())
}

#[test]
fn nginx_hears_what_clients_say() -> Result<()> {
    if names::skipped("nginx_hears_what_clients_say") {
        return Ok(());
    }
    let lab = internet::new()?;
    let (good, bad) = ("good.lab.example", "bad.lab.example");
    let identity = Arc::new(Identity::new(&[good, bad])?);
    let nginx = Nginx::start(&lab.server, &identity, &[443, 8443], &[80])?;
    let before = nginx.requests()?.len();
    let folder = tempfile::TempDir::new()?;
    let file = folder.path().join("hellos");
    let recording = Recording::tcpdump(&lab.router, TO_CLIENT, &file)?;
    let client = Client::new(&lab.client, client4(2), &identity);
    let client_v6 = Client::new(&lab.client, client6(2), &identity);

    // (client, server, what is shown, payload segments at least that the hello takes)
    let three = Hello::of(good).laid_out(Layout::Three);
    let large = Hello::of(good).laid_out(Layout::Large);
    let cases: [(&Client, IpAddr, u16, Hello<'_>, usize); 7] = [
        (&client, site4(1), 443, Hello::of(good), 1),
        (&client, site4(60), 443, Hello::of(bad), 1),
        (&client, site4(2), 8443, Hello::of(good), 1),
        (&client_v6, site6(3), 443, Hello::of(good), 1),
        (&client, site4(4), 443, Hello::of(good).nameless(), 1),
        (&client, site4(5), 443, three, 3),
        (&client, site4(6), 443, large, 2),
    ];
    let (mut open, mut ports, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for (client, address, port, hello, segments) in cases {
        let mut conversation = client.tls((address, port).into(), &hello)?;
        assert_eq!(conversation.alpn(), Some(&b"http/1.1"[..]));
        let body = conversation.get(hello.name, "/path")?;
        assert_eq!(body, format!("served {}/path\n", hello.name));
        // The connection stays open.
        conversation.get(hello.name, "/again")?;
        ports.push((conversation.local_addr()?.port(), segments));
        open.push(conversation);
        for _ in 0..2 {
            expected.push(Request {
                address,
                port,
                server_name: hello.shown.then(|| hello.name.to_owned()),
                host: Some(hello.name.to_owned()),
            });
        }
    }
    let _plain = client.http((site4(7), 80).into(), good)?;
    expected.push(Request {
        address: site4(7),
        port: 80,
        server_name: None,
        host: Some(good.to_owned()),
    });
    let _hidden = client.encrypted((site4(8), 443).into(), "public.lab.example")?;
    // A certificate for another name is no success.
    assert!(
        client
            .tls((site4(1), 443).into(), &Hello::of("other.lab.example"))
            .is_err()
    );

    let noted = wait_for(Duration::from_secs(5), || {
        nginx
            .requests()
            .ok()
            .filter(|noted| noted.len() == before + expected.len())
    });
    assert_eq!(
        noted.context("requests are missing from nginx's log")?[before..],
        expected
    );
    recording.finish()?;
    for (port, segments) in ports {
        assert!(
            hello_segments(&file, port)? >= segments,
            "the hello from port {port} should take {segments} segments"
        );
    }
    let recorded = std::fs::read(&file)?;
    assert!(contains(&recorded, b"public.lab.example"));
    drop(nginx);
    assert!(
        client.connect((site4(1), 443).into()).is_err(),
        "nginx goes on"
    );
    Ok(())
}

/// Segments with a payload that a client sent from `port` before it acknowledged any payload: those of its hello.
fn hello_segments(file: &std::path::Path, port: u16) -> Result<usize> {
    let text = tcpdump(
        file,
        &format!("tcp port {port} and (tcp[tcpflags] & tcp-push != 0 or greater 100)"),
    )?;
    let from = format!(".{port} > ");
    Ok(text.lines().take_while(|line| line.contains(&from)).count())
}

fn tcpdump(file: &std::path::Path, filter: &str) -> Result<String> {
    let output = Command::new("tcpdump")
        .args(["-n", "-q", "-r"])
        .arg(file)
        .arg(filter)
        .output()?;
    assert!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn http3_is_spoken() -> Result<()> {
    if names::skipped("http3_is_spoken") {
        return Ok(());
    }
    let lab = internet::new()?;
    let (good, bad) = ("good.lab.example", "bad.lab.example");
    let identity = Identity::new(&[good, bad])?;
    let listen: Vec<SocketAddr> = [site4(1), site4(2), site6(1)]
        .map(|address| SocketAddr::new(address, 443))
        .to_vec();
    let _server = h3::Server::start(&lab.server, &listen, &identity)?;
    let open =
        |source, target, name| h3::Conversation::open(&lab.client, source, target, name, &identity);
    for (source, target, name) in [
        (client4(2), listen[0], good),
        (client4(2), listen[1], bad),
        (client6(2), listen[2], good),
    ] {
        let mut conversation = open(source, target, name)?;
        for path in ["/path", "/again"] {
            assert_eq!(conversation.get(path)?, format!("served {name}{path}\n"));
        }
    }
    assert!(open(client4(2), listen[0], "other.lab.example").is_err());

    // By hand: the server answers version 1, cut or not, and offers other versions to version 2.
    for (quic, frames) in [(Quic::One, 1), (Quic::One, 5), (Quic::Two, 3)] {
        let socket = lab.client.udp((client4(2), 0))?;
        socket.connect(listen[0])?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.send(&initial::datagram(quic, good, frames, &identity)?)?;
        let mut answer = [0; 2048];
        let length = socket.recv(&mut answer)?;
        let version = u32::from_be_bytes(answer[1..5].try_into()?);
        let expected = if quic == Quic::One { 1 } else { 0 };
        assert_eq!((version, answer[0] & 0x80), (expected, 0x80));
        // A server that couldn't read the hello would close the connection in a short datagram.
        assert!(quic == Quic::Two || length >= 1200, "{length} bytes");
    }
    Ok(())
}

#[test]
fn recordings_are_stretched() -> Result<()> {
    if names::skipped("recordings_are_stretched") {
        return Ok(());
    }
    let lab = internet::new()?;
    let _dnsmasq = Dnsmasq::start(
        &lab.server,
        RESOLVER,
        &Zone {
            ttl: 30,
            wildcards: &[("lab.example", site4(1))],
            ..Zone::default()
        },
    )?;
    let folder = tempfile::TempDir::new()?;
    let (file, long) = (folder.path().join("short"), folder.path().join("long"));
    let recording = Recording::tcpdump(&lab.router, TO_CLIENT, &file)?;
    let asker = Asker::new(&lab.client, client4(2), RESOLVER);
    asker.resolve("first.lab.example")?;
    thread::sleep(Duration::from_secs(1));
    asker.resolve("second.lab.example")?;
    recording.finish()?;
    let seconds = stretch::stretch(&file, &long, 30)?;
    assert!((30..60).contains(&seconds), "{seconds} s");
    let count =
        |file: &std::path::Path| tcpdump(file, "udp port 53").map(|text| text.lines().count());
    assert_eq!((count(&file)?, count(&long)?), (4, 4));
    Ok(())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
