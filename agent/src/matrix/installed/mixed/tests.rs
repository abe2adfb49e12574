//! Classes that names make, against a naive reading: the roles of an address are those of its prefix and those of its
//! names, and a flow is covered by whatever any pair of them is.

mod roles;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use flowproof_common::address::Address;
use flowproof_common::classify::{Cover, FIRST_RULE_SLOT, slot_of};
use flowproof_common::packet::{Packet, tcp};

use super::*;
use crate::matrix::compile::HostAddresses;
use crate::matrix::compile::tests::{install, parse};
use crate::matrix::{BuiltInRole, NamePattern, RoleRef};

/// The matrix with addresses that were learned to stand for patterns.
struct Learned {
    installed: Installed,
    placed: HashMap<Address, u32>,
    patterns: HashMap<Address, Vec<u32>>,
}

impl Tables for Learned {
    fn address_class(&self, address: &Address) -> u32 {
        let placed = self.placed.get(address).copied();
        placed.unwrap_or_else(|| self.installed.address_class(address))
    }
    fn port_class(&self, port: u16) -> u16 {
        self.installed.port_class(port)
    }
    fn rule(&self, from: u32, to: u32, protocol: u8, port_class: u16) -> Option<u32> {
        self.installed.rule(from, to, protocol, port_class)
    }
    fn has_names(&self) -> bool {
        self.installed.has_names()
    }
}

impl Learned {
    fn new(text: &str, names: &[(Address, Vec<u32>)]) -> Self {
        let (matrix, bindings) = parse(text);
        let installed = install(matrix, bindings, &HostAddresses::Unknown);
        let mut learned = Self {
            installed,
            placed: HashMap::new(),
            patterns: HashMap::new(),
        };
        for (address, patterns) in names {
            learned.learn(*address, patterns);
        }
        learned
    }

    fn learn(&mut self, address: Address, patterns: &[u32]) {
        let count = u32::try_from(self.installed.compiled.names.len()).unwrap();
        let mut patterns: Vec<u32> = patterns.iter().copied().filter(|id| *id < count).collect();
        patterns.sort_unstable();
        patterns.dedup();
        let end = NamedEnd {
            class: self.installed.address_class(&address),
            patterns: &patterns,
        };
        let class = self.installed.class_for(end, &mut Vec::new()).unwrap();
        self.placed.insert(address, class);
        self.patterns.insert(address, patterns);
    }

    fn patterns(&self, address: &Address) -> Vec<u32> {
        self.patterns.get(address).cloned().unwrap_or_default()
    }

    /// Roles by prefix, and with the names if they count.
    fn roles(&self, address: &Address, names: &[u32]) -> BTreeSet<BoundRole> {
        let compiled = &self.installed.compiled;
        let named = names
            .iter()
            .flat_map(|id| compiled.names[*id as usize].roles.iter().copied());
        let fixed = self.installed.roles_of(address).iter().copied();
        fixed.chain(named).collect()
    }

    /// What covers a TCP flow to `port`, read off the requirements.
    fn naive(
        &self,
        from: &BTreeSet<BoundRole>,
        to: &BTreeSet<BoundRole>,
        port: u16,
    ) -> BTreeSet<ServiceKey> {
        let matrix = &self.installed.compiled.matrix;
        let has = |roles: &BTreeSet<BoundRole>, system, role| {
            role == RoleRef::BuiltIn(BuiltInRole::Any)
                || roles.contains(&BoundRole { system, role })
        };
        matrix
            .services()
            .filter(|(key, requirement, service)| {
                service.covers(crate::matrix::Protocol::Tcp, port)
                    && requirement
                        .initiations()
                        .any(|(a, b)| has(from, key.system, a) && has(to, key.system, b))
            })
            .map(|(key, ..)| key)
            .collect()
    }

    fn slot_of_set(&self, members: &BTreeSet<ServiceKey>, bound: bool) -> Option<u32> {
        if members.is_empty() {
            return Some(if bound {
                UNEXPECTED_SLOT
            } else {
                UNSCOPED_SLOT
            });
        }
        let matrix = &self.installed.compiled.matrix;
        let ids = members
            .iter()
            .map(|key| MemberId::of(&matrix.service_id(*key)))
            .collect();
        self.installed.directory.known(ids).ok()
    }

    fn flow(&self, from: Address, to: Address, port: u16) -> (FlowKey, Side, Cover) {
        let packet = Packet {
            source: from,
            destination: to,
            source_port: 50_000,
            destination_port: port,
            protocol: protocol::TCP,
            tcp_flags: tcp::SYN,
            ..Packet::default()
        };
        let (key, sender) = FlowKey::of(&packet);
        (key, sender, slot_of(self, &key, sender))
    }

    /// Compares the classifier, the slot by names and the naive reading for one flow.
    fn compare(&mut self, from: Address, to: Address, port: u16) -> Result<(), String> {
        let (key, initiator, cover) = self.flow(from, to, port);
        let (names_from, names_to) = (self.patterns(&from), self.patterns(&to));
        let end = |address: &Address, patterns| NamedEnd {
            class: self.installed.address_class(address),
            patterns,
        };
        let (ends_from, ends_to) = (end(&from, &names_from), end(&to, &names_to));
        let by_names = self
            .installed
            .slot_by_names(&key, initiator, ends_from, ends_to);
        let roles_from = self.roles(&from, &names_from);
        let roles_to = self.roles(&to, &names_to);
        let members = self.naive(&roles_from, &roles_to, port);
        let declared = |role: &BoundRole| matches!(role.role, RoleRef::Declared(_));
        let bound = roles_from.iter().chain(&roles_to).any(declared);
        let expect = self.slot_of_set(&members, bound);
        let told = format!("{from:?} -> {to:?}:{port} {cover:?} {by_names} {expect:?} {members:?}");
        if Some(cover.slot()) != expect || Some(by_names) != expect {
            return Err(told);
        }
        let slot_members: BTreeSet<ServiceKey> = self
            .installed
            .members(cover.slot())
            .iter()
            .copied()
            .collect();
        if slot_members != members {
            return Err(format!("members of {told}"));
        }
        let nobody = (self.roles(&from, &[]), self.roles(&to, &[]));
        let depends = if members.is_empty() {
            self.may_become_expected(&roles_from, &roles_to, port)
        } else {
            self.naive(&nobody.0, &nobody.1, port) != members
        };
        if cover.depends_on_name() != depends {
            return Err(format!("depends {depends}: {told}"));
        }
        Ok(())
    }

    fn may_become_expected(
        &self,
        from: &BTreeSet<BoundRole>,
        to: &BTreeSet<BoundRole>,
        port: u16,
    ) -> bool {
        let named = |roles: &BTreeSet<BoundRole>| {
            let all = &self.installed.compiled.names;
            let more = all.iter().flat_map(|name| name.roles.iter().copied());
            roles.iter().copied().chain(more).collect::<BTreeSet<_>>()
        };
        !self.naive(&named(from), &named(to), port).is_empty()
    }
}

fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().unwrap())
}

#[test]
fn names_add_to_what_prefixes_say() {
    let text = "system a
         client = 10.0.0.0/8
         host = 192.0.2.0/24
         web = www.example.org
         client -> host: tcp/1
         client -> web: tcp/2
         client -> web: tcp/3
         client -> host: tcp/3";
    let server = address("192.0.2.1");
    let mut learned = Learned::new(text, &[(server, vec![0])]);
    let covers = |learned: &Learned, port| {
        let (.., cover) = learned.flow(address("10.0.0.1"), server, port);
        let members = learned.installed.members(cover.slot()).len();
        (members, cover.depends_on_name())
    };
    assert_eq!(covers(&learned, 1), (1, false));
    assert_eq!(covers(&learned, 2), (1, true));
    assert_eq!(covers(&learned, 3), (2, true));
    assert_eq!(covers(&learned, 4), (0, false));
    for port in 1..5 {
        learned.compare(address("10.0.0.1"), server, port).unwrap();
        learned.compare(server, address("10.0.0.1"), port).unwrap();
    }
}

/// Two hosts that the site knows by name only: while neither is known, each may turn out to be one of them.
#[test]
fn a_row_between_two_names_waits_for_both() {
    let text = "system a
         app = app.example.org
         database = db.example.org
         subnet = 10.0.0.0/8
         app -> database: tcp/1
         subnet -> subnet: tcp/2";
    let mut learned = Learned::new(text, &[]);
    let (app, database) = (address("10.0.0.1"), address("10.0.0.2"));
    assert!(learned.flow(app, database, 1).2.depends_on_name());
    assert!(!learned.flow(app, database, 2).2.depends_on_name());
    learned.learn(database, &[1]);
    learned.compare(app, database, 1).unwrap();
    learned.learn(app, &[0]);
    learned.compare(app, database, 1).unwrap();
    assert!(learned.flow(app, database, 1).2.slot() >= FIRST_RULE_SLOT);
}

#[test]
fn slots_that_names_made_stay() {
    let text = "system a
         client = 10.0.0.0/8
         host = 192.0.2.0/24
         web = www.example.org
         client -> host: tcp/1
         client -> web: tcp/1";
    let learned = Learned::new(text, &[(address("192.0.2.1"), vec![0])]);
    let before = &learned.installed;
    let after = Installed::new(
        Arc::clone(&before.compiled),
        before.directory.as_ref().clone(),
    );
    assert!(after.directory.holds(&before.directory));
    let fresh = Installed::new(Arc::clone(&before.compiled), Default::default());
    assert!(before.directory.holds(&fresh.directory));
    assert!(!fresh.directory.holds(&before.directory));
    let other = crate::matrix::installed::SlotDirectory::restore([(2, vec![MemberId(1)])]);
    assert!(!before.directory.holds(&other));
    assert!(before.directory.holds(&Default::default()));
    let pattern = &before.compiled.names[0].pattern;
    assert_eq!(*pattern, NamePattern::new("www.example.org").unwrap());
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    const BINDINGS: [&str; 7] = [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.1.1/32",
        "192.0.2.0/24",
        "one.example.org",
        "two.example.org",
        "*.example.net",
    ];
    const ADDRESSES: [&str; 6] = [
        "10.0.0.5",
        "10.1.0.5",
        "10.1.1.1",
        "192.0.2.9",
        "198.51.100.7",
        "2001:db8::1",
    ];

    type RoleBindings = Vec<Vec<usize>>;
    type Rows = Vec<(usize, usize, usize, u16)>;

    fn any_system() -> impl Strategy<Value = (RoleBindings, Rows)> {
        (
            prop::collection::vec(prop::collection::vec(0..BINDINGS.len(), 1..3), 3),
            prop::collection::vec((0..4_usize, 0..4_usize, 0..3_usize, 1..4_u16), 1..5),
        )
    }

    fn text(systems: &[(RoleBindings, Rows)]) -> String {
        let mut text = String::new();
        for (number, (roles, rows)) in systems.iter().enumerate() {
            text.push_str(&format!("system s{number}\n"));
            for (role, bindings) in roles.iter().enumerate() {
                let mut bindings = bindings.clone();
                bindings.sort_unstable();
                bindings.dedup();
                let bound: Vec<&str> = bindings.iter().map(|at| BINDINGS[*at]).collect();
                text.push_str(&format!("r{role} = {}\n", bound.join(" ")));
            }
            let name = |role: usize| ["r0", "r1", "r2", "any"][role];
            for (from, to, arrow, port) in rows {
                if *from == 3 && *to == 3 {
                    continue;
                }
                let arrow = ["->", "<-", "<>"][*arrow];
                text.push_str(&format!(
                    "{} {arrow} {}: tcp/{port}\n",
                    name(*from),
                    name(*to)
                ));
            }
        }
        text
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn classes_slots_and_a_naive_reading_agree(
            systems in prop::collection::vec(any_system(), 1..3),
            names in prop::collection::vec((0..ADDRESSES.len(), prop::collection::vec(0..3_u32, 0..3)), 0..6),
        ) {
            let names: Vec<(Address, Vec<u32>)> = names
                .into_iter()
                .map(|(at, patterns)| (address(ADDRESSES[at]), patterns))
                .collect();
            let text = text(&systems);
            let mut learned = Learned::new(&text, &names);
            for from in ADDRESSES {
                for to in ADDRESSES {
                    for port in 1..5 {
                        if from != to {
                            let done = learned.compare(address(from), address(to), port);
                            prop_assert!(done.is_ok(), "{}\n{:?}\n{:?}", text, names, done);
                        }
                    }
                }
            }
            let again = Installed::new(
                Arc::clone(&learned.installed.compiled),
                learned.installed.directory.as_ref().clone(),
            );
            prop_assert!(again.directory.holds(&learned.installed.directory));
            prop_assert_eq!(again.directory.len(), learned.installed.directory.len());
            for (rule, value) in again.rules() {
                prop_assert_eq!(
                    learned.installed.rule(rule.from, rule.to, rule.protocol, rule.port_class),
                    Some(value)
                );
            }
        }
    }
}
