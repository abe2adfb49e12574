//! The book by example, against a naive model, and under floods.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::matrix::NamePattern;

const MINUTE: u64 = 60 * SECOND;

fn name(text: &str) -> Name {
    fold(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(text: &str) -> Address {
    Address::from(ip(text))
}

/// 10.0.0.0/8 by number.
fn numbered(number: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + number).to_be_bytes())
}

fn index(patterns: &[&str]) -> Arc<PatternIndex> {
    Arc::new(PatternIndex::new(
        patterns.iter().map(|text| NamePattern::new(text).unwrap()),
    ))
}

fn book_of(limits: Limits, patterns: &[&str]) -> NameBook {
    let mut book = NameBook::new(limits, Lifetimes::default());
    book.set_patterns(0, index(patterns));
    book
}

fn book(patterns: &[&str]) -> NameBook {
    book_of(Limits::default(), patterns)
}

/// An answer to a question for A records: `"question alias alias"`.
fn answer(names: &str, ttl: u32, addresses: &[IpAddr]) -> Answer {
    let mut names = names.split(' ').map(name);
    Answer {
        question: names.next().unwrap(),
        kind: Kind::A,
        result: answer::Result::Found,
        aliases: names.collect(),
        addresses: addresses.iter().map(|ip| (*ip, ttl)).collect(),
        ech_public_name: None,
    }
}

fn negative(names: &str, kind: Kind, result: answer::Result) -> Answer {
    Answer {
        kind,
        result,
        ..answer(names, 0, &[])
    }
}

fn consistent(book: &NameBook) {
    book.table.assert_consistent();
    book.asks.assert_consistent();
}

fn changed(book: &mut NameBook) -> BTreeSet<String> {
    let changed = book.take_changed();
    assert!(!changed.overflowed);
    changed.addresses.iter().map(Address::to_string).collect()
}

fn names(told: &[Told]) -> Vec<&str> {
    told.iter().map(|told| &*told.name).collect()
}

#[test]
fn an_address_stands_for_the_patterns_of_its_names() {
    let mut book = book(&["www.example.org", "*.example.net"]);
    let (v4, v6) = (address("192.0.2.1"), address("2001:db8::1"));
    book.learn(
        0,
        None,
        &answer("www.example.org", 60, &[ip("192.0.2.1"), ip("2001:db8::1")]),
    );
    book.learn(0, None, &answer("a.example.net", 60, &[ip("192.0.2.1")]));
    book.learn(0, None, &answer("b.example.net", 60, &[ip("192.0.2.1")]));
    book.learn(0, None, &answer("example.com", 60, &[ip("192.0.2.1")]));
    assert_eq!(book.patterns_of(&v4, 0), [0, 1]);
    assert_eq!(book.patterns_of(&v6, 0), [0]);
    assert!(book.patterns_of(&address("192.0.2.2"), 0).is_empty());
    assert_eq!(
        changed(&mut book),
        BTreeSet::from(["192.0.2.1".to_owned(), "2001:db8::1".to_owned()])
    );
    // Nothing new: nothing changed.
    book.learn(1, None, &answer("c.example.net", 60, &[ip("192.0.2.1")]));
    assert!(changed(&mut book).is_empty());
    consistent(&book);
}

#[test]
fn names_last_for_ttl_and_grace_and_are_remembered_for_longer() {
    let mut book = book(&["www.example.org"]);
    let at = address("192.0.2.1");
    book.learn(0, None, &answer("www.example.org", 30, &[ip("192.0.2.1")]));
    let end = 30 * SECOND + 5 * MINUTE;
    changed(&mut book);
    // With and without a call of `expire`.
    assert_eq!(book.patterns_of(&at, end - 1), [0]);
    assert!(book.patterns_of(&at, end).is_empty());
    book.expire(end - 1);
    assert_eq!(book.patterns_of(&at, end - 1), [0]);
    assert!(changed(&mut book).is_empty());
    book.expire(end);
    assert!(book.patterns_of(&at, end).is_empty());
    assert_eq!(changed(&mut book).len(), 1);
    assert!(book.has_stood_for("www.example.org", &at));
    assert!(!book.names_of(&at, end)[0].current);
    book.expire(end + 60 * MINUTE);
    assert!(!book.has_stood_for("www.example.org", &at));
    assert_eq!(
        book.counts(),
        Counts {
            learned: 1,
            ..Counts::default()
        }
    );
    consistent(&book);
}

#[test]
fn lifetimes_are_bounded_and_only_grow() {
    let at = address("192.0.2.1");
    let check = |ttls: &[(u64, u32)], end: u64| {
        let mut book = book(&["www.example.org"]);
        for (now, ttl) in ttls {
            book.learn(
                *now,
                None,
                &answer("www.example.org", *ttl, &[ip("192.0.2.1")]),
            );
        }
        assert_eq!(book.patterns_of(&at, end - 1), [0], "{ttls:?}");
        assert!(book.patterns_of(&at, end).is_empty(), "{ttls:?}");
        consistent(&book);
    };
    check(&[(0, 0)], 5 * MINUTE);
    check(&[(0, u32::MAX)], 65 * MINUTE);
    check(&[(0, 600), (MINUTE, 30)], 15 * MINUTE);
    check(&[(0, 30), (MINUTE, 600)], 16 * MINUTE);
    // Told anew after its end.
    check(&[(0, 0), (20 * MINUTE, 0)], 25 * MINUTE);
    // At the end of time.
    check(&[(0, 0), (u64::MAX - SECOND, 600)], u64::MAX);
    let mut short = NameBook::new(
        Limits::default(),
        Lifetimes {
            ttl_min: 2 * MINUTE,
            ..Lifetimes::default()
        },
    );
    short.set_patterns(0, index(&["www.example.org"]));
    short.learn(0, None, &answer("www.example.org", 0, &[ip("192.0.2.1")]));
    assert_eq!(short.patterns_of(&at, 7 * MINUTE - 1), [0]);
    assert!(short.patterns_of(&at, 7 * MINUTE).is_empty());
}

#[test]
fn a_chain_of_five_stands_for_its_patterns() {
    let chain =
        "www.example.org a.example.com b.example.com c.example.com d.cdn.example.net e.example.com";
    let mut book = book(&["www.example.org", "*.cdn.example.net"]);
    let (at, client) = (address("192.0.2.1"), address("10.0.0.1"));
    book.learn(0, Some(client), &answer(chain, 60, &[ip("192.0.2.1")]));
    assert_eq!(book.patterns_of(&at, 0), [0, 1]);
    assert_eq!(book.patterns_of_name("www.example.org"), [0, 1]);
    assert_eq!(book.patterns_of_name("b.example.com"), [1]);
    assert_eq!(book.patterns_of_name("d.cdn.example.net"), [1]);
    assert_eq!(book.patterns_of_name("unseen.cdn.example.net"), [1]);
    assert!(book.patterns_of_name("e.example.com").is_empty());
    assert!(book.has_stood_for("e.example.com", &at));
    let told = book.told(&client, &at, 0);
    assert_eq!(names(&told), ["www.example.org"]);
    assert_eq!(told[0].patterns, [0, 1]);
    let counts = book.counts();
    assert_eq!((counts.names_needed, counts.names_other), (5, 1));
    // The chain is now shorter, and the name leads elsewhere.
    book.learn(
        1,
        None,
        &answer("b.example.com f.example.com", 60, &[ip("192.0.2.2")]),
    );
    assert_eq!(book.patterns_of_name("www.example.org"), [0]);
    assert_eq!(book.patterns_of(&at, 1), [0, 1]);
    assert!(book.patterns_of(&address("192.0.2.2"), 1).is_empty());
    consistent(&book);
}

#[test]
fn loops_and_long_chains_end() {
    let mut book = book(&["*.example.net"]);
    book.learn(
        0,
        None,
        &answer("a.org b.org a.org b.org", 60, &[ip("192.0.2.1")]),
    );
    book.learn(0, None, &answer("b.org a.org", 60, &[ip("192.0.2.1")]));
    assert!(book.patterns_of_name("a.org").is_empty());
    let long: Vec<_> = (0..40).map(|step| format!("n{step}.org")).collect();
    book.learn(
        0,
        None,
        &answer(
            &format!("{} a.example.net", long.join(" ")),
            60,
            &[ip("192.0.2.1")],
        ),
    );
    assert!(book.has_stood_for("n16.org", &address("192.0.2.1")));
    assert!(!book.has_stood_for("n17.org", &address("192.0.2.1")));
    consistent(&book);
}

#[test]
fn service_records_do_not_undo_aliases() {
    let mut book = book(&["*.cdn.example.net", "*.svc.example.net"]);
    book.learn(
        0,
        None,
        &answer("www.org a.cdn.example.net", 60, &[ip("192.0.2.1")]),
    );
    let hint = Answer {
        kind: Kind::Https,
        ..answer("www.org b.svc.example.net", 60, &[ip("192.0.2.2")])
    };
    book.learn(0, None, &hint);
    assert_eq!(book.patterns_of_name("www.org"), [0, 1]);
    // Without addresses the chain still counts.
    let gone = Answer {
        kind: Kind::Https,
        ..answer("www.org", 60, &[])
    };
    book.learn(0, None, &gone);
    assert_eq!(book.patterns_of_name("www.org"), [0]);
    book.learn(
        0,
        None,
        &negative(
            "www.org c.svc.example.net",
            Kind::Aaaa,
            answer::Result::NoData,
        ),
    );
    assert_eq!(book.patterns_of_name("www.org"), [1]);
    assert_eq!(book.counts().learned, 2);
    consistent(&book);
}

/// 30 s TTL, fifty addresses, five at a time, ten minutes: each is known from its telling to its end.
#[test]
fn rotating_addresses_are_known_for_their_time() {
    let mut book = book(&["www.example.org"]);
    let client = address("10.0.0.1");
    let mut ends = BTreeMap::new();
    for round in 0..20_u64 {
        let now = round * 30 * SECOND;
        let told: Vec<_> = (0..5)
            .map(|slot| numbered(u32::try_from((round * 5 + slot) % 50).unwrap()))
            .collect();
        book.learn(now, Some(client), &answer("www.example.org", 30, &told));
        for ip in told {
            ends.insert(ip, now + 30 * SECOND + 5 * MINUTE);
        }
        for step in 0..30 {
            let now = now + step * SECOND;
            for (ip, end) in &ends {
                let known = !book.patterns_of(&Address::from(*ip), now).is_empty();
                assert_eq!(known, now < *end, "{ip} at {now}");
            }
        }
        let live: BTreeSet<_> = ends
            .iter()
            .filter(|(_, end)| now < **end)
            .map(|(ip, _)| *ip)
            .collect();
        let of_client: BTreeSet<_> = book
            .addresses_told(&client, "www.example.org", now)
            .into_iter()
            .map(IpAddr::from)
            .collect();
        assert_eq!(of_client, live);
    }
    assert_eq!(ends.len(), 50);
    assert_eq!(book.counts().links, 50);
    assert_eq!(book.counts().evicted_addresses, 0);
    consistent(&book);
}

#[test]
fn an_address_used_again_stands_for_its_new_name_only() {
    let mut book = book(&["old.example.org", "new.example.org"]);
    let (at, client) = (address("192.0.2.1"), address("10.0.0.1"));
    book.learn(
        0,
        Some(client),
        &answer("old.example.org", 30, &[ip("192.0.2.1")]),
    );
    book.learn(
        MINUTE,
        Some(client),
        &answer("old.example.org", 30, &[ip("192.0.2.9")]),
    );
    book.learn(
        5 * MINUTE,
        Some(client),
        &answer("new.example.org", 30, &[ip("192.0.2.1")]),
    );
    assert_eq!(book.patterns_of(&at, 5 * MINUTE), [0, 1]);
    let later = 5 * MINUTE + 30 * SECOND;
    assert_eq!(book.patterns_of(&at, later), [1]);
    let told = book.told(&client, &at, later);
    assert_eq!(names(&told), ["new.example.org", "old.example.org"]);
    assert_eq!(
        told.iter().map(|told| told.current).collect::<Vec<_>>(),
        [true, false]
    );
    assert!(book.has_stood_for("old.example.org", &at));
    assert_eq!(
        book.addresses_told(&client, "old.example.org", later),
        [address("192.0.2.9")]
    );
    // Another client was told nothing.
    assert!(book.told(&address("10.0.0.2"), &at, later).is_empty());
    assert!(
        book.addresses_told(&address("10.0.0.2"), "old.example.org", later)
            .is_empty()
    );
}

#[test]
fn negative_answers_are_evidence_and_remove_nothing() {
    use answer::Result::{NoData, NoName, Other, Refused, ServerFailure};
    let mut book = book(&["www.example.org", "*.example.net"]);
    assert_eq!(book.status(0), PatternStatus::default());
    book.learn(3, None, &answer("www.example.org", 30, &[ip("192.0.2.1")]));
    for (now, kind, result) in [
        (4, Kind::A, NoName),
        (5, Kind::Aaaa, NoData),
        (6, Kind::Https, NoData),
        (7, Kind::Https, ServerFailure),
        (8, Kind::Other(16), Refused),
        (9, Kind::Other(16), Other(4)),
    ] {
        book.learn(now, None, &negative("www.example.org", kind, result));
    }
    book.learn(
        9,
        None,
        &negative("a.com b.example.net", Kind::A, ServerFailure),
    );
    book.learn(
        10,
        None,
        &negative("c.example.net", Kind::Other(16), NoName),
    );
    assert_eq!(book.patterns_of(&address("192.0.2.1"), 10), [0]);
    let evidence = |result, kind, text: &str, when| {
        Some(Negative {
            result,
            kind,
            name: name(text),
            when,
        })
    };
    assert_eq!(
        book.status(0),
        PatternStatus {
            resolved: Some(3),
            failed: evidence(NoName, Kind::A, "www.example.org", 4),
            no_data: evidence(NoData, Kind::Aaaa, "www.example.org", 5),
        }
    );
    assert_eq!(
        book.status(1),
        PatternStatus {
            failed: evidence(NoName, Kind::Other(16), "c.example.net", 10),
            ..PatternStatus::default()
        }
    );
    assert_eq!(
        book.counts().negative,
        NegativeCounts {
            no_data: 2,
            no_name: 2,
            server_failure: 2,
            refused: 1,
            other: 1
        }
    );
    assert_eq!(book.status(2), PatternStatus::default());
}

#[test]
fn addresses_of_nobody_are_not_learned() {
    let mut book = book(&["www.example.org"]);
    let addresses = [
        ip("0.0.0.0"),
        ip("::"),
        ip("224.0.0.1"),
        ip("ff02::1"),
        ip("::ffff:192.0.2.1"),
    ];
    book.learn(0, None, &answer("www.example.org", 30, &addresses[..4]));
    assert_eq!(book.status(0).resolved, None);
    book.learn(0, None, &answer("www.example.org", 30, &addresses));
    let counts = book.counts();
    assert_eq!(
        (counts.links, counts.unusable_addresses, counts.learned),
        (1, 8, 1)
    );
    assert_eq!(book.patterns_of(&address("192.0.2.1"), 0), [0]);
}

#[test]
fn new_patterns_sort_known_names_anew() {
    let mut book = book(&["www.example.org", "*.example.net"]);
    for (text, at) in [
        ("www.example.org", "192.0.2.1"),
        ("www.com a.example.net", "192.0.2.2"),
        ("b.example.com", "192.0.2.3"),
    ] {
        book.learn(1, None, &answer(text, 60, &[ip(at)]));
    }
    changed(&mut book);
    book.set_patterns(2, index(&["*.com", "*.example.net"]));
    assert!(book.patterns_of(&address("192.0.2.1"), 2).is_empty());
    assert_eq!(book.patterns_of(&address("192.0.2.2"), 2), [0, 1]);
    assert_eq!(book.patterns_of(&address("192.0.2.3"), 2), [0]);
    assert_eq!(changed(&mut book).len(), 3);
    assert_eq!(book.needed_addresses().count(), 2);
    // Of a pattern that stays, it is still known that it resolved.
    assert_eq!(book.status(1).resolved, Some(1));
    assert_eq!(book.status(0).resolved, None);
    let counts = book.counts();
    assert_eq!((counts.names_needed, counts.names_other), (3, 1));
    consistent(&book);
}

#[test]
fn needed_names_come_back_after_a_restart() {
    let patterns = ["www.example.org", "*.example.net"];
    let mut before = book(&patterns);
    before.learn(
        5,
        None,
        &answer("www.example.org", 60, &[ip("192.0.2.1"), ip("2001:db8::1")]),
    );
    before.learn(
        6,
        None,
        &answer("www.com cdn.com a.example.net", 30, &[ip("192.0.2.2")]),
    );
    before.learn(7, None, &answer("other.com", 30, &[ip("192.0.2.2")]));
    let kept = before.export(MINUTE);
    let text = serde_json::to_string(&kept).unwrap();
    let kept: Vec<Remembered> = serde_json::from_str(&text).unwrap();

    let mut after = book(&patterns);
    after.restore(MINUTE, kept);
    for (at, now) in [
        ("192.0.2.1", MINUTE),
        ("2001:db8::1", MINUTE),
        ("192.0.2.2", MINUTE),
        ("192.0.2.2", 5 * MINUTE + 30 * SECOND + 5),
        ("192.0.2.2", 5 * MINUTE + 30 * SECOND + 6),
        ("192.0.2.1", 7 * MINUTE),
    ] {
        assert_eq!(
            after.patterns_of(&address(at), now),
            before.patterns_of(&address(at), now),
            "{at} {now}"
        );
    }
    assert_eq!(after.patterns_of_name("www.com"), [1]);
    assert_eq!(after.status(1).resolved, Some(6));
    assert_eq!(after.counts().names_needed, 4);
    assert_eq!(after.counts().names_other, 0);
    assert!(after.export(20 * MINUTE).is_empty());
    consistent(&after);
}

#[test]
fn what_is_restored_is_held_to_the_limits() {
    let mut book = book_of(
        Limits {
            addresses_per_name: 3,
            ..Limits::default()
        },
        &["www.example.org"],
    );
    let kept = |name: &str, address: IpAddr, expires| Remembered {
        name: name.to_owned(),
        alias: Some("not a name".to_owned()),
        service: None,
        addresses: vec![RememberedAddress {
            address,
            told: u64::MAX,
            expires,
        }],
    };
    let mut names: Vec<_> = (0..9)
        .map(|n| kept("WWW.example.org.", numbered(n), u64::MAX))
        .collect();
    names.push(kept("a b", ip("192.0.2.1"), u64::MAX));
    names.push(kept("www.example.org", ip("192.0.2.2"), MINUTE));
    names.push(kept("www.example.org", ip("0.0.0.0"), u64::MAX));
    book.restore(MINUTE, names);
    let counts = book.counts();
    assert_eq!(
        (counts.names_needed, counts.links, counts.evicted_addresses),
        (1, 3, 6)
    );
    let at = Address::from(numbered(8));
    assert_eq!(book.names_of(&at, MINUTE)[0].when, MINUTE);
    assert_eq!(book.patterns_of(&at, 66 * MINUTE - 1), [0]);
    assert!(book.patterns_of(&at, 66 * MINUTE).is_empty());
}

// --- floods ---

const SMALL: Limits = Limits {
    needed_names: 82,
    needed_per_wildcard: 20,
    other_names: 30,
    addresses_per_name: 8,
    mean_addresses_per_name: 2,
    asks: 40,
    changed: 1000,
};
/// Two exact names and two wildcards: 20 names a wildcard, 5 leading names a pattern.
const NEEDED: [&str; 4] = [
    "www.example.org",
    "api.example.org",
    "*.example.net",
    "*.example.com",
];

fn with_needed_names() -> NameBook {
    let mut book = book_of(SMALL, &NEEDED);
    let client = address("10.9.9.9");
    book.learn(
        0,
        Some(client),
        &answer("www.example.org edge.cdn.org", 3600, &[ip("192.0.2.1")]),
    );
    book.learn(
        0,
        Some(client),
        &answer("api.example.org", 3600, &[ip("192.0.2.2")]),
    );
    book.learn(
        0,
        Some(client),
        &answer("a.example.net", 3600, &[ip("192.0.2.3")]),
    );
    book
}

fn needed_names_are_there(book: &NameBook) {
    consistent(book);
    for (at, pattern) in [("192.0.2.1", 0), ("192.0.2.2", 1), ("192.0.2.3", 2)] {
        assert_eq!(book.patterns_of(&address(at), MINUTE), [pattern]);
    }
    assert!(book.has_stood_for("www.example.org", &address("192.0.2.1")));
}

#[test]
fn a_flood_of_random_names_evicts_its_like() {
    let mut book = with_needed_names();
    for n in 0..1000 {
        let text = format!("r{n}.org");
        book.learn(
            SECOND,
            Some(Address::from(numbered(n))),
            &answer(&text, 60, &[numbered(n)]),
        );
    }
    needed_names_are_there(&book);
    let counts = book.counts();
    // One of the needed names has an alias that is not needed.
    assert_eq!((counts.names_needed, counts.names_other), (3, 30));
    assert_eq!((counts.evicted_needed, counts.evicted_other), (0, 971));
    // Other names have half of the asks; the needed ones are still there.
    assert_eq!((counts.asks, counts.evicted_asks), (23, 980));
    assert_eq!(
        names(&book.told(&address("10.9.9.9"), &address("192.0.2.3"), MINUTE)),
        ["a.example.net"]
    );
}

#[test]
fn a_flood_under_a_wildcard_evicts_its_like() {
    let mut book = with_needed_names();
    book.learn(
        SECOND,
        None,
        &answer("kept.example.com", 60, &[ip("192.0.2.4")]),
    );
    book.learn(
        SECOND,
        None,
        &answer("idle.example.com", 3600, &[ip("192.0.2.5")]),
    );
    for n in 0..1000 {
        book.learn(
            2 * SECOND,
            None,
            &answer(&format!("r{n}.example.com"), 3600, &[numbered(n)]),
        );
        // Names in use stay.
        book.touch("kept.example.com");
    }
    needed_names_are_there(&book);
    assert_eq!(book.patterns_of(&address("192.0.2.4"), MINUTE), [3]);
    assert!(book.patterns_of(&address("192.0.2.5"), MINUTE).is_empty());
    let counts = book.counts();
    assert_eq!((counts.names_needed, counts.names_other), (23, 1));
    assert_eq!((counts.evicted_needed, counts.evicted_other), (982, 0));
    // A name whose time is over goes before one of which this is not so, though it was used later.
    book.learn(
        3 * SECOND,
        None,
        &answer("short.example.com", 0, &[ip("192.0.2.6")]),
    );
    book.touch("r999.example.com");
    book.touch("short.example.com");
    book.learn(
        6 * MINUTE,
        None,
        &answer("next.example.com", 60, &[ip("192.0.2.7")]),
    );
    assert!(!book.has_stood_for("short.example.com", &address("192.0.2.6")));
}

#[test]
fn a_flood_of_aliases_to_needed_names_evicts_its_like() {
    let mut book = with_needed_names();
    book.learn(
        0,
        None,
        &answer("portal.org a.example.net", 3600, &[ip("192.0.2.3")]),
    );
    for n in 0..1000 {
        let text = format!("r{n}.org www.example.org");
        book.learn(SECOND, None, &answer(&text, 3600, &[ip("192.0.2.1")]));
        let text = format!("s{n}.org b{n}.example.com");
        book.learn(SECOND, None, &answer(&text, 3600, &[numbered(n)]));
    }
    needed_names_are_there(&book);
    assert_eq!(book.patterns_of_name("portal.org"), [2]);
    assert_eq!(book.patterns_of_name("r999.org"), [0]);
    let counts = book.counts();
    // 3 exact and under `*.example.net`, `portal.org`, 5 leading to `www`, 20 under `*.example.com`, 5 leading there.
    assert_eq!(counts.names_needed, 3 + 1 + 5 + 20 + 5);
    assert_eq!(counts.evicted_needed, 995 + 980 + 995);
}

#[test]
fn a_flood_of_addresses_stays_within_the_name() {
    let mut book = with_needed_names();
    for round in 0..100 {
        let addresses: Vec<_> = (0..20).map(|n| numbered(round * 20 + n)).collect();
        book.learn(SECOND, None, &answer("www.example.org", 60, &addresses));
        book.learn(SECOND, None, &answer("z.example.net", 60, &addresses));
        consistent(&book);
    }
    // The earlier address lasts longer than the poison.
    needed_names_are_there(&book);
    let counts = book.counts();
    assert_eq!(counts.links, 8 + 1 + 1 + 1 + 8);
    assert_eq!(counts.evicted_addresses, 2 * 2000 - 7 - 8);
    assert_eq!(counts.evicted_needed, 0);
    // Links of a wildcard are bounded as a whole.
    for name in 0..20 {
        let addresses: Vec<_> = (0..8).map(|n| numbered(name * 8 + n)).collect();
        book.learn(
            SECOND,
            None,
            &answer(&format!("w{name}.example.com"), 60, &addresses),
        );
    }
    assert_eq!(book.counts().links, 19 + 40);
    assert_eq!(book.counts().evicted_needed, 15);
    needed_names_are_there(&book);
}

#[test]
fn a_flood_of_names_at_one_address_is_bounded() {
    let mut book = with_needed_names();
    for n in 0..1000 {
        let text = format!("r{n}.example.com");
        book.learn(
            n,
            Some(address("10.9.9.9")),
            &answer(&text, 60, &[ip("192.0.2.9")]),
        );
    }
    needed_names_are_there(&book);
    assert_eq!(book.patterns_of(&address("192.0.2.9"), MINUTE), [3]);
    for told in [
        book.names_of(&address("192.0.2.9"), MINUTE),
        book.told(&address("10.9.9.9"), &address("192.0.2.9"), MINUTE),
    ] {
        assert_eq!(told.len(), 16);
        assert_eq!(&*told[0].name, "r999.example.com");
        assert_eq!(&*told[15].name, "r984.example.com");
    }
}

#[test]
fn too_many_changes_are_said() {
    let mut book = book_of(
        Limits {
            changed: 3,
            ..Limits::default()
        },
        &["*.example.net"],
    );
    for n in 0..3 {
        book.learn(0, None, &answer("a.example.net", 60, &[numbered(n)]));
    }
    assert!(!book.take_changed().overflowed);
    for n in 10..20 {
        book.learn(0, None, &answer("a.example.net", 60, &[numbered(n)]));
    }
    let changed = book.take_changed();
    assert!(changed.overflowed);
    assert_eq!(changed.addresses.len(), 3);
    assert_eq!(book.needed_addresses().count(), 13);
    assert_eq!(book.take_changed(), Changed::default());
}

// --- model ---

const NAMES: [&str; 8] = [
    "www.example.org",
    "a.example.net",
    "b.example.net",
    "b.sub.example.net",
    "example.net",
    "portal.com",
    "cdn.com",
    "x.com",
];
const PATTERN_SETS: [&[&str]; 3] = [
    &["www.example.org", "*.example.net", "cdn.com"],
    &["*.sub.example.net", "*.example.net"],
    &["*.com", "portal.com", "www.example.org"],
];

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Expire,
    Learn {
        client: u32,
        names: Vec<usize>,
        ttl: u32,
        addresses: Vec<u32>,
        https: bool,
        found: bool,
    },
    Patterns(usize),
    Touch(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..400_u64).prop_map(|seconds| Step::Wait(seconds * SECOND)),
        1 => Just(Step::Wait(2 * 3600 * SECOND)),
        2 => Just(Step::Expire),
        12 => (
            0..3_u32,
            prop::collection::vec(0..NAMES.len(), 1..5),
            prop_oneof![Just(0_u32), 0..200_u32, Just(u32::MAX)],
            prop::collection::vec(0..6_u32, 0..4),
            any::<bool>(),
            prop::bool::weighted(0.9),
        ).prop_map(|(client, names, ttl, addresses, https, found)| Step::Learn { client, names, ttl, addresses, https, found }),
        1 => (0..PATTERN_SETS.len()).prop_map(Step::Patterns),
        1 => (0..NAMES.len()).prop_map(Step::Touch),
    ]
}

/// What the book should know, in the simplest way.
#[derive(Default)]
struct Model {
    now: u64,
    patterns: Vec<&'static str>,
    links: Vec<(Name, IpAddr, u64)>,
    hops: BTreeMap<(Name, bool), Name>,
    asks: Vec<(u32, Name, IpAddr, u64, u64)>,
}

impl Model {
    fn own(&self, name: &str) -> BTreeSet<u32> {
        (0..)
            .zip(&self.patterns)
            .filter(|(_, pattern)| match pattern.strip_prefix('*') {
                Some(suffix) => name.ends_with(suffix),
                None => name == **pattern,
            })
            .map(|(id, _)| id)
            .collect()
    }

    fn leads(&self, name: &Name, seen: &mut BTreeSet<Name>) -> BTreeSet<u32> {
        if !seen.insert(name.clone()) {
            return BTreeSet::new();
        }
        let mut found = self.own(name);
        for service in [false, true] {
            if let Some(next) = self.hops.get(&(name.clone(), service)) {
                found.extend(self.leads(next, seen));
            }
        }
        found
    }

    fn patterns_of(&self, ip: IpAddr, now: u64) -> Vec<u32> {
        let found: BTreeSet<u32> = self
            .links
            .iter()
            .filter(|(_, at, expires)| *at == ip && *expires > now)
            .flat_map(|(name, _, _)| self.own(name))
            .collect();
        found.into_iter().collect()
    }

    fn expire(&mut self) {
        let (now, history) = (self.now, Lifetimes::default().history);
        self.links
            .retain(|(_, _, expires)| *expires + history > now);
        let links = &self.links;
        self.hops
            .retain(|(name, _), _| links.iter().any(|(known, _, _)| known == name));
    }

    fn learn(&mut self, client: u32, answer: &Answer) {
        self.expire();
        let mut names = vec![answer.question.clone()];
        for alias in &answer.aliases {
            if !names.contains(alias) {
                names.push(alias.clone());
            }
        }
        let service = answer.kind == Kind::Https;
        for (ip, ttl) in &answer.addresses {
            let expires = self.now + u64::from((*ttl).min(3600)) * SECOND + 5 * MINUTE;
            for name in &names {
                match self
                    .links
                    .iter_mut()
                    .find(|(known, at, _)| known == name && at == ip)
                {
                    Some(link) => link.2 = link.2.max(expires),
                    None => self.links.push((name.clone(), *ip, expires)),
                }
            }
            let before = self
                .asks
                .iter()
                .position(|ask| (ask.0, &ask.1, ask.2) == (client, &answer.question, *ip));
            let expires = before.map_or(0, |at| self.asks.remove(at).4).max(expires);
            self.asks
                .push((client, answer.question.clone(), *ip, self.now, expires));
        }
        for (at, name) in names.iter().enumerate() {
            if !self.links.iter().any(|(known, _, _)| known == name) {
                continue;
            }
            match names.get(at + 1) {
                Some(next) => {
                    self.hops.insert((name.clone(), service), next.clone());
                }
                None if answer.result == answer::Result::Found => {
                    self.hops.remove(&(name.clone(), service));
                }
                None => {}
            }
        }
    }
}

fn to_answer(names: &[usize], ttl: u32, addresses: &[u32], https: bool, found: bool) -> Answer {
    let addresses: BTreeSet<_> = addresses.iter().map(|number| numbered(*number)).collect();
    let mut names = names.iter().map(|at| name(NAMES[*at]));
    Answer {
        question: names.next().unwrap(),
        kind: if https { Kind::Https } else { Kind::A },
        result: if found {
            answer::Result::Found
        } else {
            answer::Result::NoData
        },
        aliases: names.collect(),
        addresses: addresses
            .into_iter()
            .filter(|_| found)
            .map(|ip| (ip, ttl))
            .collect(),
        ech_public_name: None,
    }
}

mod properties {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn the_book_agrees_with_the_model(steps in prop::collection::vec(step(), 1..60)) {
            let mut book = NameBook::new(Limits::default(), Lifetimes::default());
            let mut model = Model::default();
            // What somebody knows who looks at changed addresses only.
            let mut mirror: BTreeMap<IpAddr, Vec<u32>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Wait(time) => model.now += time,
                    Step::Expire => {
                        book.expire(model.now);
                        model.expire();
                        for address in book.take_changed().addresses {
                            mirror.insert(IpAddr::from(address), book.patterns_of(&address, model.now));
                        }
                        for number in 0..6 {
                            let ip = numbered(number);
                            let known = mirror.get(&ip).cloned().unwrap_or_default();
                            prop_assert_eq!(known, model.patterns_of(ip, model.now));
                        }
                    }
                    Step::Learn { client, names, ttl, addresses, https, found } => {
                        let answer = to_answer(&names, ttl, &addresses, https, found);
                        book.learn(model.now, Some(Address::from(numbered(1000 + client))), &answer);
                        model.learn(client, &answer);
                    }
                    Step::Patterns(set) => {
                        book.set_patterns(model.now, index(PATTERN_SETS[set]));
                        model.expire();
                        model.patterns = PATTERN_SETS[set].to_vec();
                    }
                    Step::Touch(at) => book.touch(NAMES[at]),
                }
                consistent(&book);
                for number in 0..6 {
                    let ip = numbered(number);
                    let address = Address::from(ip);
                    for now in [model.now, model.now + 7 * MINUTE] {
                        prop_assert_eq!(book.patterns_of(&address, now), model.patterns_of(ip, now));
                    }
                    let current = model.links.iter().filter(|link| link.1 == ip && link.2 > model.now).count();
                    prop_assert_eq!(book.names_of(&address, model.now).iter().filter(|told| told.current).count(), current);
                    for client in 0..3 {
                        let told: Vec<_> = book
                            .told(&Address::from(numbered(1000 + client)), &address, model.now)
                            .into_iter()
                            .filter(|told| told.current)
                            .map(|told| (told.name, told.when))
                            .collect();
                        let expected: Vec<_> = model.asks.iter().rev()
                            .filter(|ask| ask.0 == client && ask.2 == ip && ask.4 > model.now)
                            .map(|ask| (ask.1.clone(), ask.3))
                            .collect();
                        prop_assert_eq!(told, expected);
                    }
                }
                // What is forgotten is forgotten by `expire`.
                book.expire(model.now);
                model.expire();
                for text in NAMES {
                    let name = name(text);
                    let leads: Vec<_> = model.leads(&name, &mut BTreeSet::new()).into_iter().collect();
                    prop_assert_eq!(book.patterns_of_name(text), leads, "{}", text);
                    for number in 0..6 {
                        let known = model.links.iter().any(|link| link.0 == name && link.1 == numbered(number));
                        prop_assert_eq!(book.has_stood_for(text, &Address::from(numbered(number))), known);
                    }
                    for client in 0..3 {
                        let told = book.addresses_told(&Address::from(numbered(1000 + client)), text, model.now);
                        let expected: Vec<_> = model.asks.iter().rev()
                            .filter(|ask| ask.0 == client && ask.1 == name && ask.4 > model.now)
                            .map(|ask| Address::from(ask.2))
                            .collect();
                        prop_assert_eq!(told, expected);
                    }
                }
            }
        }

        /// Whatever else is told, all of it stays within the limits, and names that are few enough are never lost.
        #[test]
        fn floods_of_any_kind_leave_needed_names_alone(
            answers in prop::collection::vec(
                (
                    prop::collection::vec(("[a-d]{1,2}", prop::sample::select(vec!["example.com", "org", "cdn.org"])), 1..4),
                    prop::collection::vec(0..200_u32, 1..12),
                    0..4000_u32,
                    0..2000_u64,
                ),
                1..120,
            ),
            asked in prop::collection::vec((0..3_usize, 0..8_u32), 1..20),
        ) {
            let mut book = book_of(SMALL, &NEEDED);
            let mut expected: Vec<(u32, IpAddr, u64)> = Vec::new();
            let mut now = 0;
            let mut asked = asked.into_iter();
            for (names, addresses, ttl, wait) in answers {
                now += wait * SECOND / 10;
                if let Some((which, number)) = asked.next() {
                    let (text, pattern) = [("www.example.org", 0), ("api.example.org", 1), ("a.example.net", 2)][which];
                    // At most eight addresses for each of them: nothing has to go.
                    let ip = numbered(1000 + number);
                    book.learn(now, None, &answer(text, 3600, &[ip]));
                    expected.push((pattern, ip, now + 65 * MINUTE));
                }
                let names: Vec<_> = names.iter().map(|(label, parent)| format!("{label}.{parent}")).collect();
                let addresses: Vec<_> = addresses.iter().map(|number| numbered(*number)).collect();
                book.learn(now, Some(Address::from(addresses[0])), &answer(&names.join(" "), ttl, &addresses));
                consistent(&book);
                let counts = book.counts();
                prop_assert!(counts.names_needed <= SMALL.needed_names);
                prop_assert!(counts.names_other <= SMALL.other_names);
                prop_assert!(counts.asks <= SMALL.asks);
                for (pattern, ip, expires) in &expected {
                    prop_assert!(*expires <= now || book.patterns_of(&Address::from(*ip), now).contains(pattern));
                }
            }
        }
    }
}
