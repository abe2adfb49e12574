//! Verdicts by name without a network: scripts of answers, packets and heads, and what becomes of the flow.

use std::net::IpAddr;

use flowproof_common::classify::{UNEXPECTED_SLOT, Verdict};
use flowproof_common::packet::{Packet, tcp};
use flowproof_common::protocol;
use flowproof_common::state::State;

use super::super::answer::{Result, fold};
use super::super::wire::testing::{client_hello, extension, records, sni};
use super::*;
use crate::flow::{FlowTable, Limits, Moments, Sight, Treatment};
use crate::matrix::compile::HostAddresses;
use crate::matrix::compile::tests::{install, parse};

const MS: u64 = 1_000_000;
/// Where scripts begin, as in real captures.
const START: u64 = 1_760_000_000_000_000_000;
const MATRIX: &str = "system s
    client = 10.0.0.0/24 2001:db8:1::/64
    web = good.example.org *.cdn.example.net
    app = app.example.org
    client -> web: tcp/443 udp/443 icmp
    app -> web: tcp/8443";

fn matrix(text: &str) -> Arc<Installed> {
    let (matrix, bindings) = parse(text);
    Arc::new(install(matrix, bindings, &HostAddresses::Unknown))
}

fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().unwrap())
}

/// `name,alias,alias` stands for an address.
fn answer(names: &str, to: &str, ttl: u32) -> Answer {
    let mut names = names.split(',').map(|name| fold(name).unwrap());
    Answer {
        question: names.next().unwrap(),
        kind: Kind::A,
        result: Result::Found,
        aliases: names.collect(),
        addresses: vec![(to.parse().unwrap(), ttl)],
        ech_public_name: None,
    }
}

/// The user-space back end without frames.
struct Lab {
    table: FlowTable,
    namer: Namer,
    generation: u32,
    client: Packet,
    losses: u64,
    sequence: u32,
}

impl Lab {
    fn new(text: &str) -> Self {
        let mut settings = Settings::default();
        settings.lifetimes.grace = 0;
        let mut lab = Self {
            table: FlowTable::new(Limits::default()),
            namer: Namer::new(settings),
            generation: 0,
            client: Packet::default(),
            losses: 0,
            sequence: 1,
        };
        lab.table.attached(START);
        lab.namer.set_losses(0);
        lab.install(text);
        lab
    }

    fn install(&mut self, text: &str) {
        self.generation += 1;
        self.table.begin_generation(self.generation);
        drop(self.namer.install(&matrix(text), START));
        self.table.want(self.namer.probe_flags());
        self.carry_out();
    }

    fn tell(&mut self, events: &[Event]) {
        for event in events {
            self.namer.on_event(event);
        }
    }

    fn carry_out(&mut self) {
        while self.namer.has_rulings() {
            let mut events = Vec::new();
            for (key, ruling) in self.namer.take().flows {
                let sink = &mut |event: &Event, _: Moments| events.push(*event);
                match ruling {
                    Ruling::Slot(slot) => self.table.name(&key, slot, sink),
                    Ruling::GiveUp => self.table.give_up(&key, sink),
                }
            }
            self.tell(&events);
        }
    }

    fn until(&mut self, at: u64) {
        let mut events = Vec::new();
        let now = START + at * MS;
        self.table
            .advance_time(now, &mut |event, _| events.push(*event));
        self.tell(&events);
        self.namer.advance_time(now);
        self.carry_out();
    }

    /// A packet, from the client or back.
    fn packet(&mut self, at: u64, flags: u8, back: bool) -> Wanted {
        self.until(at);
        let mut packet = self.client;
        packet.tcp_flags = flags;
        if back {
            std::mem::swap(&mut packet.source, &mut packet.destination);
            std::mem::swap(&mut packet.source_port, &mut packet.destination_port);
        }
        let sight = Sight {
            packet: &packet,
            quoted: None,
            bytes: 100,
            point: 1,
            time: START + at * MS,
        };
        let mut events = Vec::new();
        let treatment = self
            .table
            .on_packet(&self.namer.tables(), &sight, &mut |event, _| {
                events.push(*event);
            });
        self.tell(&events);
        self.carry_out();
        let Treatment::Counted(wanted) = treatment else {
            panic!("{treatment:?}");
        };
        wanted
    }

    fn head(&mut self, at: u64, bytes: &[u8]) {
        if self.packet(at, tcp::ACK, false) != Wanted::Head {
            return;
        }
        self.piece(at, self.sequence, bytes);
        self.sequence += u32::try_from(bytes.len()).unwrap();
        self.carry_out();
    }

    /// A payload as a back end hands it over; of a SYN, without bytes.
    fn piece(&mut self, at: u64, sequence: u32, bytes: &[u8]) {
        let (key, sender) = FlowKey::of(&self.client);
        self.namer.on_payload(&Payload {
            key,
            sender,
            wanted: Wanted::Head,
            time: START + at * MS,
            sequence,
            offset: 0,
            total: u32::try_from(bytes.len()).unwrap(),
            cut: false,
            bytes,
        });
    }

    fn learn(&mut self, at: u64, client: &str, answer: &Answer) {
        self.until(at);
        let client = (client != "self").then(|| address(client));
        self.namer.learn(client, answer);
        self.carry_out();
    }

    fn ends(&mut self, words: &[&str]) {
        self.client = Packet {
            source: address(words[0]),
            destination: address(words[1]),
            source_port: 40_000,
            destination_port: words.get(2).map_or(0, |port| port.parse().unwrap()),
            protocol: protocol::TCP,
            ..Packet::default()
        };
        self.sequence = 1;
    }

    /// One line: milliseconds, what, and its words.
    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (at, what, words) = (words[0].parse().unwrap(), words[1], &words[2..]);
        let hello = |extensions: &[Vec<u8>]| records(0x301, 4096, &client_hello(extensions));
        match what {
            "dns" => {
                let ttl = words.get(3).map_or(600, |ttl| ttl.parse().unwrap());
                self.learn(at, words[0], &answer(words[1], words[2], ttl));
            }
            "https" => {
                let mut record = answer(words[1], words[3], 600);
                record.kind = Kind::Https;
                record.ech_public_name = fold(words[2]);
                self.learn(at, words[0], &record);
            }
            "open" | "refused" | "midway" | "ping" => {
                self.ends(words);
                match what {
                    "open" => {
                        if self.packet(at, tcp::SYN, false) == Wanted::Head {
                            self.piece(at, self.sequence, &[]);
                        }
                        self.packet(at, tcp::SYN | tcp::ACK, true);
                        self.packet(at, tcp::ACK, false);
                    }
                    "refused" => {
                        self.packet(at, tcp::SYN, false);
                        self.packet(at, tcp::RST | tcp::ACK, true);
                    }
                    "midway" => {
                        self.packet(at, tcp::ACK, false);
                        self.packet(at, tcp::ACK, true);
                    }
                    _ => {
                        self.client.protocol = protocol::ICMP;
                        self.client.icmp_type = 8;
                        self.client.source_port = 7;
                        self.client.destination_port = 7;
                        self.packet(at, 0, false);
                    }
                }
            }
            "sni" => self.head(at, &hello(&[sni(words[0].as_bytes())])),
            "ech" => self.head(
                at,
                &hello(&[sni(words[0].as_bytes()), extension(0xfe0d, &[0; 40])]),
            ),
            // In two segments, the second first.
            "torn" => {
                let hello = hello(&[sni(words[0].as_bytes())]);
                let (first, second) = hello.split_at(20);
                let begin = self.sequence;
                self.sequence += 20;
                self.head(at, second);
                self.sequence = begin;
                self.head(at, first);
            }
            "nosni" => self.head(at, &hello(&[extension(43, &[2, 3, 4])])),
            "data" => self.head(at, words[0].as_bytes()),
            "reset" => {
                self.packet(at, tcp::RST, false);
            }
            "lose" => {
                self.until(at);
                self.losses += 1;
                self.namer.set_losses(self.losses);
            }
            "until" => self.until(at),
            other => panic!("{other}"),
        }
    }

    /// Verdict of the last flow, where its name is from, how sure that is, and whether it disagrees.
    fn verdict(&self) -> String {
        let (key, _) = FlowKey::of(&self.client);
        let Some(flow) = self.table.flows().find(|flow| *flow.key == key) else {
            return "gone".to_owned();
        };
        if flow.record.state.is_held() {
            return "pending".to_owned();
        }
        let mut text = flow.record.state.verdict().name().to_owned();
        if let Some(name) = self.namer.flow_name(&key, flow.record) {
            text.push_str(&format!(
                " {} {}",
                name.source.name(),
                name.confidence.name()
            ));
            if name.mismatch.is_some() {
                text.push_str(" mismatch");
            }
        }
        text
    }

    fn play(text: &str, script: &[&str]) -> Self {
        let mut lab = Self::new(text);
        for line in script {
            lab.line(line);
        }
        lab
    }

    fn begun(&self, slot: u32) -> u64 {
        let flows = self.table.slot_flows().get(slot as usize);
        flows.map_or(0, |flows| flows.begun)
    }
}

#[track_caller]
fn check(script: &[&str], expect: &str) {
    let lab = Lab::play(MATRIX, script);
    assert_eq!(lab.verdict(), expect, "{script:#?}");
}

const OPEN: &str = "100 open 10.0.0.1 192.0.2.1 443";
const GOOD: &str = "0 dns 10.0.0.1 good.example.org 192.0.2.1";
const BAD: &str = "0 dns 10.0.0.1 bad.example.com 192.0.2.1";
const GOOD_TO_OTHERS: &str = "0 dns 10.0.0.2 good.example.org 192.0.2.1";
const SSH: &str = "110 data SSH-2.0-OpenSSH_9";

#[test]
fn the_name_in_the_hello() {
    let good = "110 sni good.example.org";
    let bad = "110 sni bad.example.com";
    check(&[OPEN], "pending");
    check(&[OPEN, good], "expected tls medium");
    check(&[GOOD, OPEN, good], "expected tls high");
    check(
        &[OPEN, "110 sni a.b.cdn.example.net"],
        "expected tls medium",
    );
    check(&[OPEN, bad], "unexpected tls medium");
    check(&[OPEN, "110 torn good.example.org"], "expected tls medium");
    // At a shared address.
    check(&[GOOD, BAD, OPEN, bad], "unexpected tls high mismatch");
    check(&[GOOD, BAD, OPEN, good], "expected tls high");
    // An alias that is allowed allows the name that leads to it.
    let alias = "0 dns 10.0.0.1 bad.example.com,x.cdn.example.net 192.0.2.1";
    check(&[alias, OPEN, bad], "expected tls high");
    // Names of the address are over, or were told after it began.
    let short = "0 dns 10.0.0.1 good.example.org 192.0.2.1 1";
    check(
        &[
            short,
            "9000 open 10.0.0.1 192.0.2.1 443",
            "9010 sni good.example.org",
        ],
        "expected tls medium",
    );
}

#[test]
fn a_name_that_dns_puts_elsewhere_is_a_pretence() {
    let good = "110 sni good.example.org";
    let elsewhere = "0 dns 10.0.0.1 good.example.org 192.0.2.77";
    check(
        &[elsewhere, BAD, OPEN, good],
        "unexpected tls medium mismatch",
    );
    // Others were told so, or the address is nobody's.
    check(&[elsewhere, OPEN, good], "expected tls medium");
    check(
        &[
            "0 dns 10.0.0.2 good.example.org 192.0.2.77",
            BAD,
            OPEN,
            good,
        ],
        "expected tls medium",
    );
    check(
        &[elsewhere, BAD, GOOD_TO_OTHERS, OPEN, good],
        "expected tls high",
    );
    // An answer may have been missed.
    check(&[elsewhere, BAD, "50 lose", OPEN, good], "unscoped");
}

#[test]
fn dns_alone() {
    check(&[GOOD, OPEN, SSH], "expected dns medium");
    check(&[GOOD_TO_OTHERS, OPEN, SSH], "expected dns low");
    check(
        &["0 dns self good.example.org 192.0.2.1", OPEN, SSH],
        "expected dns low",
    );
    check(&[GOOD, BAD, OPEN, SSH], "expected dns low");
    check(&[GOOD, OPEN, "110 nosni"], "expected dns medium");
    check(
        &[OPEN, SSH, "500 dns 10.0.0.1 good.example.org 192.0.2.1"],
        "expected dns medium",
    );
    check(&[BAD, OPEN, SSH, "500 until"], "pending");
    check(&[BAD, OPEN, SSH, "20000 until"], "unexpected dns medium");
    check(
        &[BAD, GOOD_TO_OTHERS, OPEN, SSH, "20000 until"],
        "unexpected dns medium mismatch",
    );
    // The address was given to somebody else.
    let short = "0 dns 10.0.0.1 good.example.org 192.0.2.1 1";
    let other = "5000 dns 10.0.0.1 bad.example.com 192.0.2.1";
    let open = "6000 open 10.0.0.1 192.0.2.1 443";
    check(
        &[short, other, open, "6010 data SSH-2.0", "30000 until"],
        "unexpected dns medium",
    );
    // Failures have no head.
    check(
        &[GOOD, "100 refused 10.0.0.1 192.0.2.1 443"],
        "expected dns medium",
    );
    check(
        &["100 refused 10.0.0.1 192.0.2.1 443", "20000 until"],
        "unexpected none low",
    );
    // No name is written in a ping.
    check(
        &[GOOD, "100 ping 10.0.0.1 192.0.2.1"],
        "expected dns medium",
    );
    check(
        &["100 ping 10.0.0.1 192.0.2.1", "20000 until"],
        "unexpected none low",
    );
    let ipv6 = "0 dns 2001:db8:1::5 good.example.org 2001:db8:2::1";
    check(
        &[ipv6, "100 open 2001:db8:1::5 2001:db8:2::1 443", SSH],
        "expected dns medium",
    );
}

#[test]
fn nobody_tells_a_name() {
    check(&[OPEN, SSH, "10000 until"], "pending");
    check(&[OPEN, SSH, "10200 until"], "unexpected none low");
    check(&[OPEN, "110 nosni", "20000 until"], "unexpected none low");
    check(
        &["100 open 10.0.0.1 192.0.2.1 22", "20000 until"],
        "unexpected",
    );
}

#[test]
fn encrypted_hellos() {
    let outer = "110 ech outer.example";
    let record = "0 https 10.0.0.1 good.example.org outer.example 192.0.2.1";
    check(&[GOOD, record, OPEN, outer], "expected dns medium");
    check(&[GOOD, OPEN, outer], "expected dns medium");
    // Somebody looked up the outer name.
    let known = "0 dns 10.0.0.2 outer.example 192.0.2.1";
    check(&[GOOD, record, known, OPEN, outer], "expected dns medium");
    // Meant for nobody: the name is the true one.
    check(
        &[GOOD, OPEN, "110 ech good.example.org"],
        "expected tls high",
    );
    check(&[OPEN, "110 ech good.example.org"], "pending");
    check(
        &[OPEN, "110 ech good.example.org", "20000 until"],
        "expected tls low",
    );
    // The record of the address' only name says that it shows another.
    check(
        &[record, OPEN, "110 ech bad.example.com"],
        "unexpected tls medium mismatch",
    );
}

#[test]
fn what_was_missed_is_not_held_against_a_flow() {
    check(&[OPEN, "110 lose", "20000 until"], "unscoped");
    // The answer came before the connection.
    check(&["0 lose", OPEN, "20000 until"], "unscoped");
    check(
        &["0 lose", "30000 open 10.0.0.1 192.0.2.1 443", "60000 until"],
        "unexpected none low",
    );
    check(&[BAD, OPEN, "110 lose", "20000 until"], "unscoped");
    check(
        &[OPEN, "110 lose", "120 sni bad.example.com"],
        "unexpected tls medium",
    );
    check(
        &[GOOD, OPEN, "110 lose", "20000 until"],
        "expected dns medium",
    );
    let lab = Lab::play(MATRIX, &[OPEN, "110 lose", "20000 until"]);
    assert_eq!(lab.table.names_unknown(), 1);
    assert_eq!(lab.begun(UNEXPECTED_SLOT), 0);
}

/// What the namer itself loses must not hide what the ring loses.
#[test]
fn losses_of_all_kinds_count() {
    let mut lab = Lab::new(MATRIX);
    for _ in 0..9 {
        lab.namer.lose_head();
    }
    lab.line("60000 open 10.0.0.1 192.0.2.1 443");
    lab.line("60010 lose");
    lab.line("90000 until");
    assert_eq!(lab.verdict(), "unscoped");
    // What an earlier daemon lost is no news.
    let mut namer = Namer::new(Settings::default());
    namer.set_losses(1000);
    assert_eq!(namer.lost_at, None);
    namer.set_losses(1001);
    assert_eq!(namer.lost_at, Some(0));
}

#[test]
fn what_was_joined_midway_is_never_called_unexpected() {
    let midway = "100 midway 10.0.0.1 192.0.2.1 443";
    check(&[midway, "50000 until"], "pending");
    check(&[BAD, midway, "50000 until"], "pending");
    check(
        &[
            midway,
            "200 dns 10.0.0.2 bad.example.com 192.0.2.1",
            "50000 until",
        ],
        "pending",
    );
    check(&[GOOD, midway], "expected dns medium");
    check(
        &[
            midway,
            "30000 until",
            "30001 dns 10.0.0.1 good.example.org 192.0.2.1",
        ],
        "expected dns medium",
    );
    let lab = Lab::play(MATRIX, &[midway, "101 reset", "300000 until"]);
    assert_eq!(lab.verdict(), "gone");
    assert_eq!(
        (lab.begun(UNEXPECTED_SLOT), lab.table.names_unknown()),
        (0, 1)
    );
    assert_eq!(lab.namer.counts().waiting, 0);
}

#[test]
fn initiators_may_be_known_by_name() {
    let app = "0 dns self app.example.org 172.16.0.9";
    let open = "100 open 172.16.0.9 192.0.2.1 8443";
    let good = "110 sni good.example.org";
    check(&[app, open, good], "expected tls medium");
    check(
        &[app, open, "110 sni bad.example.com"],
        "unexpected tls medium",
    );
    check(
        &[open, "105 dns self app.example.org 172.16.0.9", good],
        "expected tls medium",
    );
    check(&[open, "20000 until"], "unscoped none low");
    // Its name was good when it began.
    let short = "0 dns self app.example.org 172.16.0.9 1";
    check(
        &[short, open, "5000 sni good.example.org"],
        "expected tls medium",
    );
}

#[test]
fn more_names_than_are_looked_at() {
    let mut script = vec!["0 dns 10.0.0.2 good.example.org 192.0.2.1".to_owned()];
    for number in 0..16 {
        // The newest of them is over when the flow begins.
        let ttl = if number == 15 { 1 } else { 600 };
        script.push(format!(
            "{} dns 10.0.0.2 n{number}.example.com 192.0.2.1 {ttl}",
            number + 1
        ));
    }
    script.push("5000 open 10.0.0.1 192.0.2.1 443".to_owned());
    script.push("5010 data SSH-2.0".to_owned());
    script.push("30000 until".to_owned());
    let lines: Vec<&str> = script.iter().map(String::as_str).collect();
    check(&lines, "expected dns low");
}

#[test]
fn flows_between_the_same_ends_have_names_of_their_own() {
    let first = [OPEN, "110 sni bad.example.com", "120 reset"];
    let again = "200 open 10.0.0.1 192.0.2.1 443";
    check(&[&first[..], &[again]].concat(), "pending");
    check(
        &[&first[..], &[again, "210 sni good.example.org"]].concat(),
        "expected tls medium",
    );
    // The first is still waiting when the second begins.
    let waiting = [OPEN, "120 reset", again];
    check(&[&waiting[..], &["10150 until"]].concat(), "pending");
    check(
        &[&waiting[..], &["10250 until"]].concat(),
        "unexpected none low",
    );
}

#[test]
fn time_may_go_back() {
    check(
        &["5000 until", OPEN, "110 sni good.example.org"],
        "expected tls medium",
    );
    check(&["5000 until", OPEN, SSH, "14000 until"], "pending");
    check(
        &["5000 until", OPEN, SSH, "15500 until"],
        "unexpected none low",
    );
}

#[test]
fn flows_that_wait_no_time_at_all() {
    let mut lab = Lab::new(MATRIX);
    lab.namer.settings.hold = 0;
    lab.line(GOOD);
    lab.line(OPEN);
    assert_eq!(lab.verdict(), "expected dns medium");
    lab.line("200 midway 10.0.0.1 192.0.2.2 443");
    for at in 201..230 {
        lab.until(at);
    }
    assert_eq!(lab.verdict(), "pending");
    assert_eq!(lab.namer.deadlines.len(), 1);
}

const BY_ADDRESS: &str = "system s
    client = 10.0.0.0/24
    web = good.example.org
    host = 192.0.2.0/24
    client -> web: tcp/443
    client -> host: tcp/443";
const OTHER_NAME: &str = "system s
    client = 10.0.0.0/24
    web = bad.example.com
    client -> web: tcp/443";

#[test]
fn a_reload_judges_named_flows_anew() {
    let after = |script: &[&str], matrices: &[&str]| {
        let mut lab = Lab::play(MATRIX, script);
        for matrix in matrices {
            lab.install(matrix);
            lab.packet(40_000, tcp::ACK, false);
        }
        lab.verdict()
    };
    let bad = [OPEN, "110 sni bad.example.com"];
    assert_eq!(after(&bad, &[OTHER_NAME]), "expected tls medium");
    assert_eq!(after(&bad, &[OTHER_NAME, MATRIX]), "unexpected tls medium");
    assert_eq!(after(&bad, &[BY_ADDRESS]), "expected tls medium");
    let good = [OPEN, "110 sni good.example.org"];
    assert_eq!(after(&good, &[MATRIX]), "expected tls medium");
    assert_eq!(after(&good, &[OTHER_NAME]), "unexpected tls medium");
    // The operator allows an address whose name nobody knows.
    let nameless = [OPEN, "20000 until"];
    assert_eq!(after(&nameless, &[MATRIX]), "unexpected none low");
    assert_eq!(after(&nameless, &[BY_ADDRESS]), "expected none low");
    let elsewhere = "0 dns 10.0.0.1 good.example.org 192.0.2.77";
    let pretence = [elsewhere, BAD, OPEN, "110 sni good.example.org"];
    assert_eq!(
        after(&pretence, &[MATRIX]),
        "unexpected tls medium mismatch"
    );
    assert_eq!(after(&pretence, &[BY_ADDRESS]), "expected tls medium");
}

/// A flow that was covered by its address, which only a name allows now, is told to the namer.
#[test]
fn a_reload_may_make_flows_wait() {
    let mut lab = Lab::play(BY_ADDRESS, &[OPEN]);
    assert_eq!(lab.verdict(), "expected");
    lab.install(MATRIX);
    lab.packet(200, tcp::ACK, false);
    assert_eq!(lab.verdict(), "pending");
    assert_eq!(lab.namer.counts().waiting, 1);
    lab.until(60_000);
    assert_eq!(lab.verdict(), "pending");
    lab.line("60001 dns 10.0.0.1 good.example.org 192.0.2.1");
    assert_eq!(lab.verdict(), "expected dns medium");
}

/// A matrix that the kernel can't take leaves no trace.
#[test]
fn a_refused_matrix_is_taken_back() {
    let mixed = "system s
        client = 10.0.0.0/24
        host = 192.0.2.0/24
        web = good.example.org
        cdn = *.cdn.example.net
        client -> host: tcp/80 tcp/443
        client -> web: tcp/443
        client -> cdn: tcp/443";
    let mut lab = Lab::play(
        mixed,
        &[
            GOOD,
            "0 dns self a.cdn.example.net 192.0.2.1",
            "0 dns self b.cdn.example.net 192.0.2.2",
            "0 dns self good.example.org 198.51.100.3",
            "0 dns self c.cdn.example.net 198.51.100.3",
            OPEN,
            "110 sni bad.example.com",
        ],
    );
    drop(lab.namer.take());
    let told = |lab: &Lab| {
        let mut placed: Vec<(String, u32)> = lab
            .namer
            .placed()
            .map(|(address, class)| (address.to_string(), class))
            .collect();
        placed.sort();
        let mut rules: Vec<String> = lab
            .namer
            .matrix()
            .rules()
            .map(|rule| format!("{rule:?}"))
            .collect();
        rules.sort();
        (placed, rules, lab.verdict())
    };
    let before = told(&lab);
    assert_eq!(before.0.len(), 3);
    let refused = lab
        .namer
        .install(&matrix(&OTHER_NAME.replace("system s", "system t")), START);
    assert!(lab.namer.has_rulings());
    lab.namer.undo(refused);
    let decisions = lab.namer.take();
    assert!(decisions.is_empty(), "{decisions:?}");
    assert_eq!(told(&lab), before);
}

fn held_record(state: State, first_seen: u64) -> FlowRecord {
    FlowRecord::new(state, UNEXPECTED_SLOT, Ticks::from_nanos(first_seen))
}

fn held_event(number: u32, time: u64) -> Event {
    let [_, b, c, d] = number.to_be_bytes();
    let key = FlowKey {
        a: Address::from_v4([10, b, c, d]),
        b: address("192.0.2.1"),
        port_a: 40_000,
        port_b: 443,
        protocol: protocol::TCP,
        icmp_type: 0,
        zero: [0; 2],
    };
    Event {
        key,
        record: held_record(State::default().held(Verdict::Unexpected), time),
        time,
        kind: EventKind::Begun as u8,
        ..Event::default()
    }
}

/// After a restart nobody has told of flows that the kernel holds, and the kernel does not tell of those it pushes out.
#[test]
fn overdue_flows_are_named_if_they_can_be() {
    let mut namer = Namer::new(Settings::default());
    drop(namer.install(&matrix(MATRIX), START));
    let event = held_event(1, START);
    let now = START + 30_000 * MS;
    namer.advance_time(now);
    namer.on_overdue(&event.key, &event.record);
    namer.on_overdue(&event.key, &event.record);
    namer.learn(None, &answer("bad.example.com", "192.0.2.1", 600));
    namer.advance_time(now + 60_000 * MS);
    namer.on_overdue(&event.key, &event.record);
    assert!(!namer.has_rulings());
    assert_eq!(namer.counts().waiting, 1);
    let gone = held_event(2, START);
    namer.on_overdue(&gone.key, &gone.record);
    for seconds in 61..90 {
        namer.on_overdue(&event.key, &event.record);
        namer.advance_time(now + seconds * 1000 * MS);
    }
    assert_eq!(namer.counts().waiting, 1);
    namer.learn(None, &answer("good.example.org", "192.0.2.1", 600));
    let decisions = namer.take();
    assert!(
        matches!(decisions.flows[..], [(key, Ruling::Slot(slot))] if key == event.key && slot >= FIRST_RULE_SLOT)
    );
    assert_eq!(namer.counts().waiting, 0);
}

#[test]
fn floods_stay_within_bounds() {
    let mut namer = Namer::new(Settings::default());
    drop(namer.install(&matrix(MATRIX), START));
    let flood = u32::try_from(MAX_HELD).unwrap() + 500;
    for number in 0..flood {
        namer.on_event(&held_event(number, START));
    }
    assert_eq!(namer.counts().waiting, MAX_HELD as u64);
    for number in 0..u32::try_from(MAX_HEADS).unwrap() + 10 {
        let event = held_event(number, START);
        namer.on_payload(&Payload {
            key: event.key,
            sender: Side::A,
            wanted: Wanted::Head,
            time: START,
            sequence: 1,
            offset: 0,
            total: 1,
            cut: false,
            bytes: &[22],
        });
    }
    assert_eq!(namer.heads, MAX_HEADS);
    assert_eq!(namer.counts().heads_lost, 10);
    // All to one server, and all due at once.
    namer.advance_time(START + 11_000 * MS);
    assert_eq!(namer.counts().waiting, 0);
    assert_eq!((namer.heads, namer.by_server.len()), (0, 0));
    let rulings = namer.take().flows;
    assert_eq!(rulings.len(), MAX_HELD);
    // Heads were lost, so nobody is accused.
    assert!(rulings.iter().all(|(_, ruling)| *ruling == Ruling::GiveUp));
    // Again and again between the same ends.
    for _ in 0..5 * MAX_HELD {
        namer.on_event(&held_event(1, START + 12_000 * MS));
    }
    assert!(namer.deadlines.len() <= 4 * MAX_HELD);
    assert_eq!(namer.counts().waiting, 1);
}

#[test]
fn answers_and_their_connections_are_limited() {
    let mut namer = Namer::new(Settings::default());
    drop(namer.install(&matrix(MATRIX), START));
    namer.advance_time(START);
    let mut event = held_event(1, START);
    event.key.port_b = 53;
    let payload = |key: FlowKey, protocol, bytes: &'static [u8]| Payload {
        key: FlowKey { protocol, ..key },
        sender: Side::B,
        wanted: Wanted::Dns,
        time: START,
        sequence: 1,
        offset: 0,
        total: 1,
        cut: false,
        bytes,
    };
    for _ in 0..ANSWERS_PER_SECOND + 7 {
        namer.on_payload(&payload(event.key, protocol::UDP, &[0; 3]));
    }
    assert_eq!(namer.counts().answers_unread, ANSWERS_PER_SECOND);
    assert_eq!(namer.counts().answers_lost, 7);
    assert!(namer.may_have_lost(START));
    for number in 0..u32::try_from(MAX_STREAMS).unwrap() + 5 {
        let key = FlowKey {
            port_b: 53,
            ..held_event(number, START).key
        };
        namer.on_payload(&payload(key, protocol::TCP, &[0]));
    }
    assert_eq!(namer.streams.len(), MAX_STREAMS);
    assert_eq!(namer.counts().answers_lost, 12);
}

/// Long-lived flows are to be judged anew at a reload, however many others came since.
#[test]
fn names_of_flows_that_live_on_are_kept() {
    let mut lab = Lab::play(MATRIX, &[OPEN, "110 sni bad.example.com"]);
    let verdict = lab.verdict();
    for number in 0..u32::try_from(MAX_NAMED).unwrap() + 5 {
        let mut event = held_event(number, START + 200 * MS);
        event.key.port_a = 50_000;
        event.record.state = State::default().held(Verdict::Unexpected);
        lab.namer.on_event(&event);
        lab.namer.rule(&event.key, {
            FlowName {
                name: None,
                source: NameSource::None,
                confidence: crate::verdict::requirement::Confidence::Low,
                alpn: Vec::new(),
                notes: Vec::new(),
                mismatch: None,
                slot: UNEXPECTED_SLOT,
            }
        });
        event.kind = EventKind::Ended as u8;
        lab.namer.on_event(&event);
    }
    assert!(lab.namer.named.len() <= MAX_NAMED && lab.namer.named_order.len() <= MAX_NAMED);
    assert_eq!(lab.verdict(), verdict);
    assert_eq!(lab.namer.live.len(), 1);
}
