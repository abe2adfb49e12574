//! What a capture holds, in the unit that the ledger keeps: flows by hour, addresses, service and names. So draft judging
//! and proposals look at a capture and at months of evidence in the same way.

use std::collections::BTreeMap;

use flowproof_common::state::Outcome;

use super::gather::Flow;
use crate::ledger::{HourCounts, HourKey, HourRecord};

/// The flows by the hour of their first packet, oldest first. A flow that still waits for its name is
/// left out: as in the ledger, it counts for nothing before that is settled.
pub(in crate::cli) fn hours(flows: &[Flow]) -> Vec<HourRecord> {
    let mut hours: BTreeMap<_, HourRecord> = BTreeMap::new();
    for flow in flows.iter().filter(|flow| !flow.record.state.is_held()) {
        let record = hour(flow);
        let HourKey {
            hour,
            initiator,
            responder,
            protocol,
            port,
            verdict,
            names,
        } = &record.key;
        let order = (
            *hour,
            initiator.bytes(),
            responder.bytes(),
            *protocol,
            *port,
            verdict.name(),
            names.clone(),
        );
        hours
            .entry(order)
            .and_modify(|known| known.counts.add(&record.counts))
            .or_insert(record);
    }
    hours.into_values().collect()
}

fn hour(flow: &Flow) -> HourRecord {
    let [_, mut names] = flow.facts().names();
    names.sort_unstable();
    names.dedup();
    let mut counts = HourCounts {
        begun: 1,
        ..HourCounts::default()
    };
    // Closing is no decision.
    let outcome = if flow.outcome() == Outcome::ClosedAfterAnswer {
        Outcome::Answered
    } else {
        flow.outcome()
    };
    counts.decided[outcome as usize] = 1;
    HourRecord {
        key: HourKey {
            hour: HourKey::hour_of(flow.span.first),
            initiator: flow.key.end(flow.initiator()).0,
            responder: flow.key.end(flow.responder()).0,
            protocol: flow.key.protocol,
            port: flow.key.service(flow.responder()),
            verdict: flow.record.state.verdict(),
            names: names.join(" "),
        },
        counts,
    }
}

#[cfg(test)]
mod tests {
    use flowproof_common::address::Address;
    use flowproof_common::classify::{Judgement, UNEXPECTED_SLOT, Verdict};
    use flowproof_common::key::{FlowKey, Side};
    use flowproof_common::protocol;
    use flowproof_common::record::FlowRecord;
    use flowproof_common::state::State;
    use flowproof_common::ticks::Ticks;

    use super::*;
    use crate::export::flow_line::KnownNames;
    use crate::flow::Span;
    use crate::flow::notes::Notes;

    const HOUR: u64 = 3_600_000_000_000;

    /// A TCP flow from 10.0.0.9 to port 443 of 10.0.0.1, which is its side A.
    fn flow(first: u64, client_port: u16, names: &[&str]) -> Flow {
        let judgement = Judgement {
            slot: UNEXPECTED_SLOT,
            initiator: Side::B,
            joined_midway: false,
            to_group: false,
            held: false,
        };
        Flow {
            key: FlowKey {
                a: Address::from_v4([10, 0, 0, 1]),
                b: Address::from_v4([10, 0, 0, 9]),
                port_a: 443,
                port_b: client_port,
                protocol: protocol::TCP,
                icmp_type: 0,
                zero: [0; 2],
            },
            record: FlowRecord::new(
                State::new(&judgement, 0),
                UNEXPECTED_SLOT,
                Ticks::from_nanos(first),
            ),
            span: Span { first, last: first },
            notes: Notes::default(),
            names: KnownNames {
                responder: names.iter().map(|name| (*name).into()).collect(),
                ..KnownNames::default()
            },
        }
    }

    #[test]
    fn flows_of_an_hour_that_are_alike_are_one_record() {
        let flows = [
            flow(3 * HOUR + 5, 40_000, &[]),
            flow(2 * HOUR, 40_001, &["b.example", "a.example", "b.example"]),
            flow(2 * HOUR + HOUR - 1, 40_002, &["a.example", "b.example"]),
            flow(2 * HOUR, 40_003, &[]),
        ];
        let told: Vec<_> = hours(&flows)
            .iter()
            .map(|record| {
                let HourKey {
                    hour,
                    initiator,
                    responder,
                    protocol,
                    port,
                    verdict,
                    names,
                } = &record.key;
                assert_eq!(*verdict, Verdict::Unexpected);
                assert_eq!(
                    record.counts.decided[Outcome::Pending as usize],
                    record.counts.begun
                );
                format!(
                    "{hour} {initiator} -> {responder}:{port}/{protocol} [{names}] {}",
                    record.counts.begun
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "2 10.0.0.9 -> 10.0.0.1:443/6 [] 1",
                "2 10.0.0.9 -> 10.0.0.1:443/6 [a.example b.example] 2",
                "3 10.0.0.9 -> 10.0.0.1:443/6 [] 1",
            ]
        );
    }

    #[test]
    fn a_flow_that_waits_for_its_name_counts_for_nothing() {
        let mut held = flow(HOUR, 40_000, &[]);
        held.record.state = held.record.state.held(Verdict::Expected);
        assert_eq!(hours(&[held]), []);
    }
}
