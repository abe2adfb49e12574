//! Verdicts with names in play: which look-ups hold a flow, and which way it is judged.

use super::*;
use crate::packet::Packet;

const CLIENT: Address = Address::from_v4([10, 0, 0, 1]);
const SERVER: Address = Address::from_v4([192, 0, 2, 1]);
const FROM: u32 = BOUND | 1;
const NAMED_CLASS: u32 = BOUND | 2;

/// One rule from the client's class, and whether names are in play at all.
struct One {
    server: u32,
    rule: (u32, u32, u32),
    has_names: bool,
}

impl Tables for One {
    fn address_class(&self, address: &Address) -> u32 {
        match *address {
            CLIENT => FROM,
            SERVER => self.server,
            _ => UNBOUND_CLASS,
        }
    }
    fn port_class(&self, port: u16) -> u16 {
        u16::from(port == 443)
    }
    fn rule(&self, from: u32, to: u32, protocol: u8, port_class: u16) -> Option<u32> {
        ((from, to) == (self.rule.0, self.rule.1) && protocol == 6 && port_class == 1)
            .then_some(self.rule.2)
    }
    fn has_names(&self) -> bool {
        self.has_names
    }
}

fn packet(flags: u8, back: bool, port: u16) -> Packet {
    let ends = [(CLIENT, 40_000), (SERVER, port)];
    let [from, to] = if back { [ends[1], ends[0]] } else { ends };
    Packet {
        source: from.0,
        source_port: from.1,
        destination: to.0,
        destination_port: to.1,
        protocol: protocol::TCP,
        tcp_flags: flags,
        ..Packet::default()
    }
}

fn judged(tables: &One, packet: &Packet) -> (u32, bool, Side) {
    let (key, sender) = FlowKey::of(packet);
    let judgement = judge(tables, packet, &key, sender, true);
    (judgement.slot, judgement.held, judgement.initiator)
}

#[test]
fn names_hold_a_verdict_only_where_they_could_change_it() {
    let syn = packet(tcp::SYN, false, 443);
    let check = |server, rule, has_names, expect| {
        let tables = One {
            server,
            rule,
            has_names,
        };
        let (slot, held, _) = judged(&tables, &syn);
        assert_eq!((slot, held), expect, "{server:x} {rule:x?} {has_names}");
    };
    let nameless = (FROM, NAMELESS_CLASS, UNEXPECTED_SLOT | DEPENDS_ON_NAME);
    check(UNBOUND_CLASS, nameless, true, (UNEXPECTED_SLOT, true));
    check(NAMED_CLASS, nameless, true, (UNEXPECTED_SLOT, true));
    check(UNBOUND_CLASS, nameless, false, (UNEXPECTED_SLOT, false));
    let anybody = (ANY_CLASS, NAMELESS_CLASS, UNEXPECTED_SLOT | DEPENDS_ON_NAME);
    check(UNBOUND_CLASS, anybody, true, (UNEXPECTED_SLOT, true));
    let named_client = (NAMELESS_CLASS, NAMED_CLASS, UNEXPECTED_SLOT);
    check(NAMED_CLASS, named_client, true, (UNEXPECTED_SLOT, true));
    check(UNBOUND_CLASS, named_client, true, (UNEXPECTED_SLOT, false));
    check(
        NAMED_CLASS,
        (FROM, NAMED_CLASS, 7 | DEPENDS_ON_NAME),
        true,
        (7, true),
    );
    check(NAMED_CLASS, (FROM, NAMED_CLASS, 7), true, (7, false));
    check(NAMED_CLASS, (FROM, ANY_CLASS, 7), true, (7, false));
    // No service of the matrix has the port: no name changes that.
    let tables = One {
        server: UNBOUND_CLASS,
        rule: nameless,
        has_names: true,
    };
    assert!(!judged(&tables, &packet(tcp::SYN, false, 444)).1);
}

#[test]
fn the_direction_that_a_name_may_allow_is_the_likely_one() {
    let tables = One {
        server: UNBOUND_CLASS,
        rule: (FROM, NAMELESS_CLASS, UNEXPECTED_SLOT | DEPENDS_ON_NAME),
        has_names: true,
    };
    // Joined midway, by a packet of the server.
    let back = packet(tcp::ACK, true, 443);
    let (key, sender) = FlowKey::of(&back);
    let judgement = judge(&tables, &back, &key, sender, true);
    assert_eq!(judgement.initiator, sender.other());
    assert!(judgement.held && judgement.joined_midway);
}
