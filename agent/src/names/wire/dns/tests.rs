use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::names::wire::testing::{Response, ech_list, service, vector16, wire_name};

/// What an answer says, in one line: result, aliases, addresses with seconds.
fn summary(answer: &Answer) -> String {
    let mut words = vec![format!("{:?}", answer.result)];
    words.extend(answer.aliases.iter().map(|name| format!(">{name}")));
    words.extend((answer.addresses.iter()).map(|(address, ttl)| format!("{address}/{ttl}")));
    words.join(" ")
}

fn check(response: &Response, expect: &str) {
    let answer = read(&response.bytes()).unwrap();
    assert_eq!(summary(&answer), expect);
}

fn address(text: &str) -> Vec<u8> {
    match text.parse().unwrap() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

const ONE: [u8; 4] = [192, 0, 2, 1];
const TWO: [u8; 4] = [192, 0, 2, 2];
const EVIL: [u8; 4] = [203, 0, 113, 66];

#[test]
fn addresses_are_read() {
    let to = Response::to("WWW.Example.org", 1);
    let answer = read(&to.clone().a("www.EXAMPLE.org", 60, ONE).bytes()).unwrap();
    assert_eq!(&*answer.question, "www.example.org");
    assert_eq!(answer.kind, Kind::A);
    assert_eq!(summary(&answer), "Found 192.0.2.1/60");

    check(
        &(to.clone().a("www.example.org", 60, ONE)).a("www.example.org", 30, TWO),
        "Found 192.0.2.1/60 192.0.2.2/30",
    );
    check(
        &to.clone().a("www.example.org", 0x8000_0001, ONE),
        "Found 192.0.2.1/0",
    );
    check(
        &Response::to("a.example", 28).record("a.example", 28, 9, &address("2001:db8::1")),
        "Found 2001:db8::1/9",
    );
    // An address of the other family is no answer to this question.
    check(
        &Response::to("a.example", 1).record("a.example", 28, 9, &address("2001:db8::1")),
        "NoData",
    );
    check(
        &(Response::to("a.example", 255).a("a.example", 9, ONE)).record(
            "a.example",
            28,
            9,
            &address("2001:db8::1"),
        ),
        "Found 192.0.2.1/9 2001:db8::1/9",
    );
    // A text record between, and one whose data is malformed, are passed by.
    check(
        &(Response::to("a.example", 1).record("a.example", 16, 9, b"\x03abc"))
            .record("a.example", 1, 9, &[1, 2, 3])
            .a("a.example", 9, ONE),
        "Found 192.0.2.1/9",
    );
}

#[test]
fn chains_are_followed_in_any_order_with_the_least_ttl() {
    check(
        &Response::to("a.example", 1)
            .cname("a.example", 300, "B.example")
            .cname("b.example", 20, "c.cdn.test")
            .a("c.cdn.test", 60, ONE),
        "Found >b.example >c.cdn.test 192.0.2.1/20",
    );
    check(
        &Response::to("a.example", 1)
            .a("c.cdn.test", 60, ONE)
            .cname("b.example", 90, "c.cdn.test")
            .cname("a.example", 300, "b.example"),
        "Found >b.example >c.cdn.test 192.0.2.1/60",
    );
    // DNAME: the alias that it makes is what counts.
    check(
        &Response::to("x.old.test", 1)
            .record("old.test", 39, 300, &wire_name("new.test"))
            .cname("x.old.test", 0, "x.new.test")
            .a("x.new.test", 60, ONE),
        "Found >x.new.test 192.0.2.1/0",
    );
    check(
        &Response::to("a.example", 28).cname("a.example", 300, "b.example"),
        "NoData >b.example",
    );
}

#[test]
fn compressed_names_are_read() {
    // a.example CNAME b (+ pointer to "example" in the question); the address belongs to a pointer to that data.
    let to = Response::to("a.example", 1);
    let question_at = 12;
    let example_at = question_at + 2;
    let second_at = question_at + 11 + 4 + 12;
    let response = to
        .raw(0, &[0xc0, question_at], 5, 9, &[1, b'b', 0xc0, example_at])
        .raw(0, &[0xc0, second_at], 1, 8, &ONE);
    check(&response, "Found >b.example 192.0.2.1/8");
}

#[test]
fn strangers_are_dropped() {
    check(
        &Response::to("a.example", 1)
            .a("bank.example", 86_400, EVIL)
            .a("a.example", 60, ONE)
            .cname("bank.example", 86_400, "evil.test")
            .additional("a.example", 1, 60, &EVIL)
            .authority("a.example", 1, 60, &EVIL),
        "Found 192.0.2.1/60",
    );
    // A label with a dot inside isn't the name that it looks like.
    let dotted = b"\x09a.example\x00";
    check(
        &Response::to("a.example", 1).raw(0, dotted, 1, 60, &EVIL),
        "NoData",
    );
    // Another class.
    let mut chaos = Response::to("a.example", 1)
        .a("a.example", 60, EVIL)
        .bytes();
    let class_at = chaos.len() - 4 - 2 - 4 - 1;
    chaos[class_at] = 3;
    assert_eq!(summary(&read(&chaos).unwrap()), "NoData");
}

#[test]
fn chains_are_bounded() {
    let mut long = Response::to("n0.test", 1);
    for link in 0..40 {
        long = long.cname(&format!("n{link}.test"), 60, &format!("n{}.test", link + 1));
    }
    let answer = read(&long.clone().a("n40.test", 60, ONE).bytes()).unwrap();
    assert_eq!((answer.aliases.len(), answer.result), (16, Outcome::NoData));
    let mut allowed = Response::to("n24.test", 1);
    allowed = (24..40).fold(allowed, |all, link| {
        all.cname(&format!("n{link}.test"), 60, &format!("n{}.test", link + 1))
    });
    let answer = read(&allowed.a("n40.test", 60, ONE).bytes()).unwrap();
    assert_eq!((answer.aliases.len(), answer.result), (16, Outcome::Found));

    check(
        &(Response::to("a.test", 1).cname("a.test", 60, "b.test")).cname("b.test", 60, "a.test"),
        "NoData >b.test",
    );
    check(
        &Response::to("a.test", 1).cname("a.test", 60, "a.test"),
        "NoData",
    );

    let mut many = Response::to("a.test", 1);
    for number in 0..2_000_u16 {
        let [high, low] = number.to_be_bytes();
        many = many.raw(0, &[0xc0, 12], 1, 60, &[10, 0, high, low]);
    }
    assert_eq!(read(&many.bytes()).unwrap().addresses.len(), 256);
}

#[test]
fn response_codes_are_told_apart() {
    let with = |code: u16| Response::to("a.example", 1).flags(0x8180 | code);
    check(&with(0), "NoData");
    check(&with(2), "ServerFailure");
    check(&with(3), "NoName");
    check(&with(5), "Refused");
    check(&with(4), "Other(4)");
    check(
        &with(3).cname("a.example", 60, "gone.test"),
        "NoName >gone.test",
    );
    // A name that doesn't exist has no addresses, whatever else the message says.
    check(&with(3).a("a.example", 60, EVIL), "NoName");
    // BADVERS is 16: its low bits alone would be a success (RFC 6891, section 6.1.3).
    check(&with(0).additional("", 41, 0x0100_0000, &[]), "Other(16)");
    check(&with(0).additional("", 41, 0, &[]), "NoData");
}

#[test]
fn https_records_lead_to_hints_and_targets() {
    let hints = [&ONE[..], &TWO].concat();
    let to = Response::to("a.example", 65);
    check(
        &to.clone()
            .record("a.example", 65, 60, &service(1, "", &[(4, &hints)])),
        "Found 192.0.2.1/60 192.0.2.2/60",
    );
    check(
        &to.clone().record(
            "a.example",
            65,
            60,
            &service(
                1,
                "pool.test",
                &[(1, b"\x02h2"), (6, &address("2001:db8::9"))],
            ),
        ),
        "Found >pool.test 2001:db8::9/60",
    );
    // Addresses of targets come in the additional section; nobody else's do.
    check(
        &(to.clone()
            .record("a.example", 65, 60, &service(1, "pool.test", &[])))
        .additional("pool.test", 5, 40, &wire_name("p.pool.test"))
        .additional("p.pool.test", 1, 50, &ONE)
        .additional("other.test", 1, 50, &EVIL),
        "Found >pool.test >p.pool.test 192.0.2.1/40",
    );
    // Alias mode, over a CNAME, to a service of its own.
    check(
        &(to.clone()
            .record("a.example", 65, 70, &service(0, "svc.test", &[])))
        .cname("svc.test", 50, "svc2.test")
        .record("svc2.test", 65, 60, &service(1, "", &[(4, &ONE)]))
        .additional("svc2.test", 1, 30, &TWO),
        "Found >svc.test >svc2.test 192.0.2.2/30 192.0.2.1/50",
    );
    check(
        &to.clone().record("a.example", 65, 70, &service(0, "", &[])),
        "NoData",
    );
    // One malformed record (keys out of order) spoils the set.
    check(
        &(to.clone()
            .record("a.example", 65, 60, &service(1, "", &[(4, &ONE)])))
        .record(
            "a.example",
            65,
            60,
            &service(2, "", &[(4, &TWO), (1, b"\x02h2")]),
        ),
        "NoData",
    );
    check(
        &to.clone().cname("a.example", 60, "b.test"),
        "NoData >b.test",
    );
    // A loop of aliases.
    check(
        &(to.clone()
            .record("a.example", 65, 70, &service(0, "b.test", &[])))
        .record("b.test", 65, 70, &service(0, "a.example", &[])),
        "NoData >b.test",
    );
}

#[test]
fn the_public_name_is_read() {
    let name = |list: &[u8]| {
        let response = Response::to("a.example", 65);
        let response = response.record("a.example", 65, 60, &service(1, "", &[(5, list)]));
        let answer = read(&response.bytes()).unwrap();
        assert_eq!(answer.result, Outcome::NoData);
        answer.ech_public_name
    };
    let list = ech_list(0xfe0d, "Public.Example");
    assert_eq!(name(&list).as_deref(), Some("public.example"));
    assert_eq!(name(&ech_list(0xfe0a, "public.example")), None);
    let both = [&ech_list(0xfe0a, "old.example")[2..], &list[2..]].concat();
    assert_eq!(name(&vector16(&both)).as_deref(), Some("public.example"));
    for cut in 0..list.len() {
        assert_eq!(name(&list[..cut]), None, "cut at {cut}");
    }
}

#[test]
fn refusals_are_typed() {
    let check = |message: &[u8], expect| assert_eq!(read(message), Err(expect));
    let to = Response::to("a.example", 1);
    check(&[0; 65_536], DnsError::TooLarge(65_536));
    check(&[], DnsError::Malformed);
    check(&[0x80; 11], DnsError::Malformed);
    check(&to.clone().flags(0x0100).bytes(), DnsError::NotAResponse);
    // NOTIFY
    check(&to.clone().flags(0xa000).bytes(), DnsError::NotAResponse);
    for (count, error) in [(0, DnsError::NoQuestion(0)), (2, DnsError::NoQuestion(2))] {
        let mut bytes = to.bytes();
        bytes[5] = count;
        check(&bytes, error);
    }
    check(&Response::to("", 2).bytes(), DnsError::NotAHostName);
    check(
        &Response::to("a b.example", 1).bytes(),
        DnsError::NotAHostName,
    );
    let mut chaos = to.bytes();
    *chaos.last_mut().unwrap() = 3;
    check(&chaos, DnsError::Class(3));
    let mut looped = to.bytes();
    looped[12..14].copy_from_slice(&[0xc0, 12]);
    check(&looped, DnsError::Malformed);
}

#[test]
fn cut_answers_give_what_they_have() {
    let full = Response::to("a.example", 1)
        .a("a.example", 60, ONE)
        .a("a.example", 60, TWO)
        .bytes();
    let (first, one) = (12 + 11 + 4, 11 + 10 + 4);
    for cut in first..full.len() {
        let mut message = full[..cut].to_vec();
        let whole = if cut < first + one {
            Err(DnsError::Malformed)
        } else {
            Ok("Found 192.0.2.1/60".to_owned())
        };
        assert_eq!(
            read(&message).map(|answer| summary(&answer)),
            whole,
            "cut at {cut}"
        );
        message[2] |= 0x02;
        let truncated = whole.unwrap_or_else(|_| "NoData".to_owned());
        assert_eq!(
            summary(&read(&message).unwrap()),
            truncated,
            "cut at {cut}, TC"
        );
    }
}

/// Pointers to pointers: 8,000 hops for each of thousands of owners would take seconds.
#[test]
fn pointer_staircases_are_refused() {
    let mut stairs = vec![0];
    // The data of the first record starts here; each pointer points to the one before it.
    let base = 12 + 11 + 4 + 11 + 10;
    for step in 0..8_000_u16 {
        let before = if step == 0 {
            base
        } else {
            base + 1 + 2 * (step - 1)
        };
        stairs.extend((0xc000 | before).to_be_bytes());
    }
    let top = (0xc000 | (base + 1 + 2 * 7_999)).to_be_bytes();
    let mut response = Response::to("a.example", 1).record("a.example", 16, 60, &stairs);
    for _ in 0..2_500 {
        response = response.raw(0, &top, 1, 60, &EVIL);
    }
    let message = response.a("a.example", 60, ONE).bytes();
    assert!(message.len() <= MAX_MESSAGE_BYTES);
    assert_eq!(summary(&read(&message).unwrap()), "Found 192.0.2.1/60");
}

fn samples() -> Vec<Vec<u8>> {
    let list = ech_list(0xfe0d, "public.example");
    vec![
        Response::to("a.example", 1)
            .cname("a.example", 300, "b.example")
            .cname("b.example", 20, "c.test")
            .a("c.test", 60, ONE)
            .additional("", 41, 0, &[])
            .bytes(),
        Response::to("a.example", 65)
            .record("a.example", 65, 70, &service(0, "svc.test", &[]))
            .record(
                "svc.test",
                65,
                60,
                &service(1, "t.test", &[(1, b"\x02h2"), (4, &ONE), (5, &list)]),
            )
            .additional("t.test", 28, 30, &address("2001:db8::9"))
            .bytes(),
        Response::to("a.example", 1)
            .raw(0, &[0xc0, 12], 5, 9, &[1, b'b', 0xc0, 14])
            .raw(0, &[0xc0, 39], 1, 8, &ONE)
            .bytes(),
    ]
}

fn bounded(message: &[u8]) {
    if let Ok(answer) = read(message) {
        assert!(answer.aliases.len() <= 16);
        assert!(answer.addresses.len() <= 256);
        assert_eq!(
            answer.result == Outcome::Found,
            !answer.addresses.is_empty()
        );
        assert!(answer.addresses.iter().all(|(_, ttl)| *ttl < 1 << 31));
    }
}

mod properties {
    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            bounded(&bytes);
            let headed = [&[0, 0, 0x80, 0, 0, 1, 0, 9, 0, 0, 0, 9, 1, b'a', 0, 0, 1, 0, 1][..], &bytes].concat();
            bounded(&headed);
        }

        #[test]
        fn bent_messages_are_read(
            which in 0..3_usize,
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut message = samples()[which].clone();
            for (at, with) in flips {
                let at = at.index(message.len());
                message[at] ^= with;
            }
            bounded(&message);
            bounded(&message[..cut.index(message.len())]);
        }
    }
}
