use proptest::prelude::*;

use super::*;
use crate::names::wire::stream::Head;
use crate::names::wire::testing::{
    alpn, browser_extensions, client_hello, ech_list, extension, records, sni, vector8, vector16,
};

fn tls(name: Option<&str>, alpn: &[&str], encrypted: bool) -> Reading {
    Reading::Hello(Hello {
        source: Source::Tls,
        server_name: name.map(Name::from),
        alpn: alpn.iter().map(|text| Box::from(*text)).collect(),
        encrypted,
    })
}

fn http(name: Option<&str>) -> Reading {
    Reading::Hello(Hello {
        source: Source::Http,
        server_name: name.map(Name::from),
        alpn: Vec::new(),
        encrypted: false,
    })
}

/// Reads a ClientHello with these extensions from one record.
fn of(extensions: &[Vec<u8>]) -> Reading {
    read_stream(&records(0x0301, 16_384, &client_hello(extensions)))
}

#[test]
fn client_hellos_are_read() {
    assert_eq!(
        of(&browser_extensions("Login.Example.COM")),
        tls(Some("login.example.com"), &["h2", "http/1.1"], false)
    );
    assert_eq!(of(&[]), tls(None, &[], false));
    assert_eq!(
        of(&[sni(b"a.example.")]),
        tls(Some("a.example"), &[], false)
    );
    assert_eq!(of(&[sni(b"192.0.2.1")]), tls(None, &[], false));
    assert_eq!(of(&[sni(b"2001:db8::1")]), tls(None, &[], false));
    assert_eq!(of(&[sni(b"")]), tls(None, &[], false));
    assert_eq!(of(&[sni(b"a\0b.example")]), tls(None, &[], false));
    assert_eq!(of(&[sni(b"\xff\xfe")]), tls(None, &[], false));
    assert_eq!(of(&[sni(&[b'a'; 300])]), tls(None, &[], false));
    // Another kind of name before the host's.
    let names = [&[9][..], &vector16(b"other"), &[0], &vector16(b"a.example")].concat();
    assert_eq!(
        of(&[extension(0, &vector16(&names))]),
        tls(Some("a.example"), &[], false)
    );
    // The first one counts; a server would refuse the second.
    assert_eq!(
        of(&[sni(b"a.example"), sni(b"b.example")]),
        tls(Some("a.example"), &[], false)
    );
    // An extension whose data are malformed hides nothing.
    assert_eq!(
        of(&[
            extension(10, &[9]),
            extension(1, &[]),
            extension(22, &[1]),
            sni(b"a.example")
        ]),
        tls(Some("a.example"), &[], false)
    );
    let protocols: Vec<&[u8]> = vec![b"h2", b"\x1a\x1a", b"3", b"4", b"5", b"6", b"7", b"8", b"9"];
    assert_eq!(
        of(&[alpn(&protocols)]),
        tls(
            None,
            &["h2", "\u{fffd}\u{fffd}", "3", "4", "5", "6", "7", "8"],
            false
        )
    );
}

#[test]
fn encrypted_hellos_are_told() {
    let outer = sni(b"public.example");
    assert_eq!(
        of(&[outer.clone(), extension(0xfe0d, &[0; 40])]),
        tls(Some("public.example"), &[], true)
    );
    assert_eq!(
        of(&[extension(0xffce, &ech_list(1, "x"))]),
        tls(None, &[], true)
    );
}

#[test]
fn records_may_be_small_and_of_any_version() {
    let hello = client_hello(&browser_extensions("a.example"));
    let expect = tls(Some("a.example"), &["h2", "http/1.1"], false);
    for version in 0x0301..=0x0304 {
        assert_eq!(read_stream(&records(version, 100, &hello)), expect);
    }
    assert_eq!(read_stream(&records(0x0301, 1, &hello)), expect);
    for version in [0x0300, 0x0305, 0x0002, 0x7f12] {
        assert_eq!(
            read_stream(&records(version, 16_384, &hello)),
            Reading::Other
        );
    }
    let then_more = [&records(0x0303, 16_384, &hello)[..], &[20, 3, 3, 0, 1, 1]].concat();
    assert_eq!(read_stream(&then_more), expect);
}

#[test]
fn other_tls_is_no_hello() {
    let check = |bytes: &[u8]| assert_eq!(read_stream(bytes), Reading::Other, "{bytes:02x?}");
    // A ServerHello, an alert, an empty record, one that is too long, a ClientHello that is.
    check(&[22, 3, 3, 0, 4, 2]);
    check(&[21, 3, 3, 0, 2, 2, 40]);
    check(&[22, 3, 3, 0, 0]);
    check(&[22, 3, 3, 0x40, 1]);
    check(&[22, 3, 1, 0x40, 0, 1, 1, 0, 0]);
    // SSL 2's hello (RFC 5246, appendix E.2).
    check(&[0x80, 0x2e, 1, 3, 1, 0, 0x15]);
    // Another content type between the records.
    let hello = records(0x0301, 100, &client_hello(&[sni(b"a.example")]));
    check(&[&hello[..105], &[23, 3, 3]].concat());
    // Lengths that disagree.
    let mut bent = client_hello(&[sni(b"a.example")]);
    let last = bent.len() - 20;
    bent[last] ^= 1;
    check(&records(0x0301, 16_384, &bent));
    let mut long = client_hello(&[sni(b"a.example")]);
    long[3] += 1;
    long.push(0);
    check(&records(0x0301, 16_384, &long));
    let no_session = [&[3, 3][..], &[0; 32], &vector8(&[0; 33])].concat();
    check(&records(
        0x0301,
        16_384,
        &[&[1, 0, 0, 68][..], &no_session].concat(),
    ));
}

#[test]
fn requests_are_read() {
    let check = |text: &str, expect| assert_eq!(read_stream(text.as_bytes()), expect, "{text}");
    check(
        "GET / HTTP/1.1\r\nHost: A.example\r\n\r\n",
        http(Some("a.example")),
    );
    check(
        "GET / HTTP/1.1\r\nhOST:\t a.example:8080 \r\n\r\n",
        http(Some("a.example")),
    );
    check(
        "GET / HTTP/1.1\nHost: a.example\n\n",
        http(Some("a.example")),
    );
    check("GET / HTTP/1.1\r\nHost: 192.0.2.1:80\r\n\r\n", http(None));
    check(
        "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n",
        http(None),
    );
    check("GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n", http(None));
    check("GET / HTTP/1.1\r\nHost:\r\n\r\n", http(None));
    check("GET / HTTP/1.0\r\n\r\n", http(None));
    check(
        "BITS_POST /x HTTP/1.1\r\nHost: a.example\r\n\r\n",
        http(Some("a.example")),
    );
    // Authority in the target.
    check(
        "GET http://u:p@b.example:80/x?http://c.example HTTP/1.1\r\nHost: a.example\r\n\r\n",
        http(Some("b.example")),
    );
    check(
        "GET http://b.example HTTP/1.1\r\n\r\n",
        http(Some("b.example")),
    );
    check(
        "GET /?u=http://b.example HTTP/1.1\r\nHost: a.example\r\n\r\n",
        http(Some("a.example")),
    );
    check(
        "CONNECT b.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
        http(Some("b.example")),
    );
    check(
        "CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
        http(None),
    );
    check(
        "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n",
        http(Some("a.example")),
    );
    // The host is enough: what follows may be long.
    check(
        "GET / HTTP/1.1\r\nHost: a.example\r\nCookie: ab",
        http(Some("a.example")),
    );
    check(
        "GET / HTTP/1.1\r\nHost: a.example\r\n",
        http(Some("a.example")),
    );
    check("GET / HTTP/1.1\r\nHost: a.exam", Reading::More);
    check("GET / HTTP/1.1\r\nAccept: x\r\nHost: a.exam", Reading::More);
    check(
        "GET http://b.example/ HTTP/1.1\r\n",
        http(Some("b.example")),
    );
    check(&format!("GET /{}", "x".repeat(9_000)), Reading::More);
    check(&format!("GET /{}", "x".repeat(20_000)), Reading::Other);
    check("G", Reading::More);
    check("", Reading::More);
}

#[test]
fn other_protocols_are_told_at_once() {
    let check = |bytes: &[u8]| assert_eq!(read_stream(bytes), Reading::Other, "{bytes:02x?}");
    check(b"SSH-2.0-OpenSSH_9.2\r\n");
    check(b"EHLO mail.example.org\r\n");
    check(b"HELO a\r\n");
    check(b"* OK IMAP\r\n");
    check(b"a1 CAPABILITY\r\n");
    check(b"USER anonymous\r\n");
    check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    check(b"HTTP/1.1 200 OK\r\n\r\n");
    // RDP, SMB, LDAP, PostgreSQL, TDS, a text without spaces.
    check(&[3, 0, 0, 19, 14, 224]);
    check(&[0, 0, 0, 0x45, 0xff, b'S', b'M', b'B']);
    check(&[0x30, 0x0c, 2, 1, 1]);
    check(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]);
    check(&[0x12, 1, 0, 0x2f]);
    check(&[b'a'; 40]);
}

fn samples() -> Vec<(Vec<u8>, Reading)> {
    let hello = client_hello(&browser_extensions("a.example"));
    let read = tls(Some("a.example"), &["h2", "http/1.1"], false);
    vec![
        (records(0x0301, 16_384, &hello), read.clone()),
        (records(0x0303, 333, &hello), read),
        (
            b"POST /x HTTP/1.1\r\nAccept: */*\r\nHost: a.example:80\r\nX: y\r\n\r\nbody".to_vec(),
            http(Some("a.example")),
        ),
    ]
}

/// Every head of a hello reads as `More` up to a point, and from there on as the whole does.
#[test]
fn prefixes_read_as_more_then_as_the_hello() {
    for (bytes, expect) in samples() {
        let readings: Vec<_> = (0..=bytes.len())
            .map(|end| read_stream(&bytes[..end]))
            .collect();
        let whole = readings
            .iter()
            .position(|reading| *reading != Reading::More)
            .unwrap();
        assert!(readings[whole..].iter().all(|reading| *reading == expect));
        assert!(whole > 20);
    }
}

mod properties {
    use super::*;

    proptest! {
        #[test]
        fn any_segments_in_any_order_read_alike(
            which in 0..3_usize,
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..10),
            order in proptest::collection::vec(any::<u32>(), 12),
            start in any::<u32>(),
            known in any::<bool>(),
        ) {
            let (bytes, expect) = samples().swap_remove(which);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut segments: Vec<_> = cuts.windows(2).map(|cut| cut[0]..cut[1]).zip(order).collect();
            segments.sort_by_key(|(_, order)| *order);
            let mut head = Head::new(MAX_HEAD_BYTES);
            if known {
                head.start_at(start);
            }
            let mut last = Reading::More;
            for (range, _) in segments {
                let seq = start.wrapping_add(u32::try_from(range.start).unwrap());
                head.push(seq, &bytes[range]);
                last = read_stream(head.bytes());
                if known {
                    prop_assert!(last == Reading::More || last == expect);
                }
            }
            prop_assert_eq!(last, expect);
        }

        #[test]
        fn any_bytes_are_read(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            like in 0..4_usize,
        ) {
            let start: &[u8] = [&[][..], &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc], b"GET ", b"GET / HTTP/1.1\r\nA: b\r\n"][like];
            bounded(&[start, &bytes].concat());
        }

        #[test]
        fn bent_hellos_are_read(
            which in 0..3_usize,
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let (mut bytes, _) = samples().swap_remove(which);
            for (at, with) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= with;
            }
            bounded(&bytes);
            bounded(&bytes[..cut.index(bytes.len())]);
        }
    }
}

fn bounded(bytes: &[u8]) {
    if let Reading::Hello(hello) = read_stream(bytes) {
        assert!(hello.alpn.len() <= 8);
        assert!(hello.server_name.is_none_or(|name| name.len() <= 253));
    }
}
