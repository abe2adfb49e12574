//! What holds for any two matrices and any flows.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::names::answer::Name;
use crate::verdict::recorded::Edition;
use crate::verdict::{Asked, Explainer};

const BINDINGS: [&str; 7] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.1.1",
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
const NAMES: [&str; 5] = [
    "",
    "one.example.org",
    "two.example.org",
    "a.example.net",
    "stranger.example",
];
const SERVICES: [&str; 5] = ["tcp/1", "tcp/2-4", "tcp/3-9", "icmp", "gre"];
const ASKED: [(u8, u16); 7] = [(6, 1), (6, 3), (6, 4), (6, 12), (1, 8), (17, 1), (47, 0)];

fn any_matrix() -> impl Strategy<Value = String> {
    let roles = prop::collection::vec(prop::collection::vec(0..BINDINGS.len(), 0..3), 3);
    let row = (0..4_usize, 0..4_usize, 0..3_usize, 0..SERVICES.len());
    let system = (roles, prop::collection::vec(row, 0..6));
    prop::collection::vec(system, 1..3).prop_map(|systems| {
        let mut text = String::new();
        for (number, (roles, rows)) in systems.iter().enumerate() {
            text.push_str(&format!("system s{number}\n"));
            for (role, bindings) in roles.iter().enumerate() {
                let bound: Vec<&str> = bindings.iter().map(|at| BINDINGS[*at]).collect();
                text.push_str(&format!("r{role} = {}\n", bound.join(" ")));
            }
            for (from, to, arrow, service) in rows {
                let name = |role: usize| ["r0", "r1", "r2", "any"][role];
                let arrow = ["->", "<-", "<>"][*arrow];
                let (from, to) = (name(*from), name(*to));
                text.push_str(&format!("{from} {arrow} {to}: {}\n", SERVICES[*service]));
            }
        }
        text
    })
}

/// Hour, initiator, responder, service, name, verdict of the time, flows.
type Seen = (u64, usize, usize, usize, usize, usize, u64);

fn any_flows() -> impl Strategy<Value = Vec<HourRecord>> {
    let seen = (
        0..5_u64,
        0..ADDRESSES.len(),
        0..ADDRESSES.len(),
        0..ASKED.len(),
        0..NAMES.len(),
        0..3_usize,
        0..6_u64,
    );
    prop::collection::vec(seen, 0..60).prop_map(|all| {
        all.into_iter()
            .map(|(hour, from, to, asked, name, verdict, flows): Seen| {
                let mut flow = record(hour, ADDRESSES[from], ADDRESSES[to], ASKED[asked], flows);
                flow.key.names = NAMES[name].to_owned();
                flow.key.verdict = Verdict::ALL[verdict];
                flow
            })
            .collect()
    })
}

/// Every flow between some of the addresses.
fn all_asked() -> impl Iterator<Item = (&'static str, &'static str, (u8, u16))> {
    let ends = ["10.1.0.5", "192.0.2.9", "198.51.100.7"];
    ends.into_iter()
        .flat_map(move |from| ends.into_iter().map(move |to| (from, to)))
        .flat_map(|(from, to)| ASKED.into_iter().map(move |asked| (from, to, asked)))
}

/// Every pair of names, that of the responder as far as it is not known.
fn all_names(known: &str) -> impl Iterator<Item = [&'static str; 2]> + use<'_> {
    let responder = move |to: &&str| known.is_empty() || *to == known;
    NAMES.into_iter().flat_map(move |from| {
        NAMES
            .into_iter()
            .filter(responder)
            .map(move |to| [from, to])
    })
}

fn name_of(text: &str) -> Option<Name> {
    (!text.is_empty()).then(|| Name::from(text))
}

fn report<'a>(
    in_force: &Arc<Installed>,
    draft: &Arc<Installed>,
    flows: impl IntoIterator<Item = &'a HourRecord>,
) -> DraftReport {
    let mut judge = Judge::new(Arc::clone(in_force), Arc::clone(draft));
    for flow in flows {
        judge.add(flow);
    }
    judge.report()
}

mod properties {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn the_matrix_in_force_as_its_own_draft_changes_nothing(text in any_matrix(), flows in any_flows()) {
            let matrix = installed(&text);
            let report = report(&matrix, &matrix, &flows);
            let none = Tally::default();
            let counts = &report.counts;
            prop_assert_eq!(
                [counts.newly_unexpected, counts.newly_covered, counts.newly_unscoped, counts.no_longer_unscoped],
                [none; 4]
            );
            prop_assert_eq!(counts.by_other_rows, none);
            prop_assert!(report.newly_unexpected.groups.is_empty());
            prop_assert!(report.used.iter().all(|row| !row.new));
            prop_assert_eq!(counts.undecided, none);
        }

        #[test]
        fn every_flow_counts_once(old in any_matrix(), new in any_matrix(), flows in any_flows()) {
            let report = report(&installed(&old), &installed(&new), &flows);
            let counts = &report.counts;
            let mut sum = Tally::default();
            for tally in [
                counts.newly_unexpected, counts.newly_covered, counts.newly_unscoped, counts.by_other_rows,
                counts.still_expected, counts.still_unexpected, counts.still_unscoped, counts.still_open,
                counts.undecided,
            ] {
                sum.add(tally);
            }
            prop_assert_eq!(sum, report.judged);
            prop_assert_eq!(report.judged.flows, flows.iter().map(|flow| flow.counts.begun).sum::<u64>());
            for (list, whole) in [
                (&report.newly_unexpected, counts.newly_unexpected),
                (&report.newly_covered, counts.newly_covered),
                (&report.newly_unscoped, counts.newly_unscoped),
            ] {
                let mut sum = list.left_out;
                for group in &list.groups {
                    sum.add(group.tally);
                }
                prop_assert_eq!(sum, whole);
            }
        }

        /// One name at most: of several, the other code takes what it is given.
        #[test]
        fn an_opinion_is_what_explain_says(text in any_matrix(), flows in any_flows()) {
            let matrix = installed(&text);
            let edition = Edition::new(Explainer::new(Arc::clone(&matrix)));
            let explainer = Explainer::new(matrix);
            for HourRecord { key, .. } in &flows {
                let name = (!key.names.is_empty()).then(|| Name::from(key.names.as_str()));
                let patterns = edition.patterns_of_each(&key.names);
                let classes = [&key.initiator, &key.responder].map(|end| edition.class(end));
                let opinion = edition.opinion(classes, key.protocol, key.port, &patterns);
                let asked = Asked {
                    initiator: key.initiator,
                    initiator_port: None,
                    responder: key.responder,
                    protocol: key.protocol,
                    service: key.port,
                };
                let explained = explainer.explain(&asked, &[None, name.clone()]);
                prop_assert_eq!(opinion.verdict, explained.verdict, "{:?}\n{}", key, text);
                prop_assert_eq!(&opinion.members, &explained.requirements);
                if name.is_none() {
                    prop_assert_eq!(
                        opinion.missing.is_some(),
                        explained.depends_on_name && explained.verdict != Verdict::Expected
                    );
                }
            }
        }

        /// What is left open may become expected under some name, and what is not stays as it is under every name that
        /// could be missing.
        #[test]
        fn a_verdict_is_open_if_a_name_could_change_it(text in any_matrix(), flows in any_flows()) {
            let matrix = installed(&text);
            let edition = Edition::new(Explainer::new(Arc::clone(&matrix)));
            let explainer = Explainer::new(matrix);
            for HourRecord { key, .. } in flows.iter().filter(|flow| flow.key.names.is_empty()) {
                let classes = [&key.initiator, &key.responder].map(|end| edition.class(end));
                let opinion = edition.opinion(classes, key.protocol, key.port, &[]);
                if opinion.verdict == Verdict::Expected {
                    continue;
                }
                let asked = Asked {
                    initiator: key.initiator,
                    initiator_port: None,
                    responder: key.responder,
                    protocol: key.protocol,
                    service: key.port,
                };
                let could = all_names("").any(|names| {
                    explainer.explain(&asked, &names.map(name_of)).verdict == Verdict::Expected
                });
                prop_assert_eq!(opinion.missing.is_some(), could, "{:?}\n{}", key, text);
            }
        }

        /// What is said to be open alike is judged alike under every name that is tried.
        #[test]
        fn open_alike_is_alike_under_every_name(
            old in any_matrix(),
            row in (0..4_usize, 0..4_usize, 0..SERVICES.len()),
            bound in prop::option::of(0..BINDINGS.len()),
            known in prop::sample::select(vec!["", "a.example.net"]),
        ) {
            let name = |role: usize| ["r0", "r1", "r2", "any"][role];
            let bound = bound.map_or("", |at| BINDINGS[at]);
            let mut new = format!("{old}{} -> {}: {}\n", name(row.0), name(row.1), SERVICES[row.2]);
            new = new.replacen("r0 = ", &format!("r0 = {bound} "), 1);
            let (old, new) = (installed(&old), installed(&new));
            let explainers = [&old, &new].map(|matrix| Explainer::new(Arc::clone(matrix)));
            let mut judge = Judge::new(old, new);
            for (from, to, asked) in all_asked() {
                let mut flow = record(0, from, to, asked, 1);
                flow.key.names = known.to_owned();
                if !judge.is_still_open(&flow.key) {
                    continue;
                }
                let asked = Asked {
                    initiator: flow.key.initiator,
                    initiator_port: None,
                    responder: flow.key.responder,
                    protocol: flow.key.protocol,
                    service: flow.key.port,
                };
                for [from, to] in all_names(known) {
                    let [one, other] = explainers.each_ref().map(|explainer| {
                        let told = explainer.explain(&asked, &[from, to].map(name_of));
                        let matrix = &explainer.installed().compiled.matrix;
                        let rows: BTreeSet<String> = told
                            .requirements
                            .iter()
                            .map(|key| matrix.requirement_id(key.system, key.requirement))
                            .collect();
                        (told.verdict, rows)
                    });
                    prop_assert_eq!(one, other, "{:?} as {} to {}", flow.key, from, to);
                }
            }
        }

        #[test]
        fn order_and_parts_do_not_matter(
            old in any_matrix(),
            new in any_matrix(),
            flows in any_flows(),
            order in prop::collection::vec(any::<(u32, u64)>(), 60),
        ) {
            let (old, new) = (installed(&old), installed(&new));
            let whole = report(&old, &new, &flows);
            let mut parts: Vec<(u32, HourRecord)> = Vec::new();
            for (flow, (place, part)) in flows.iter().zip(&order) {
                let mut first = flow.clone();
                let mut rest = flow.clone();
                let take = |count: u64| part % (count + 1);
                first.counts.begun = take(flow.counts.begun);
                rest.counts.begun = flow.counts.begun - first.counts.begun;
                for (position, count) in flow.counts.decided.iter().enumerate() {
                    first.counts.decided[position] = take(*count);
                    rest.counts.decided[position] = count - take(*count);
                }
                parts.push((*place, first));
                parts.push((place.rotate_left(7), rest));
            }
            parts.sort_by_key(|(place, _)| *place);
            prop_assert_eq!(whole, report(&old, &new, parts.iter().map(|(_, part)| part)));
        }
    }
}
