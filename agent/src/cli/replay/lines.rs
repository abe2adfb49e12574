//! The last of the JSON Lines of `flowproof replay`: the summary. Those of flows and of requirements are shared with the
//! daemon's API, see `export`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::capture::Snapshot;
use crate::export::flow_line::PENDING;
use crate::flow::Span;
use crate::verdict::requirement::State;
use flowproof_common::classify::Verdict;
use flowproof_common::state::Outcome;

use super::tally::Tally;

/// Counts by name, every name included, in the order of the documentation.
type Counts = serde_json::Map<String, serde_json::Value>;

fn counts(names: impl IntoIterator<Item = &'static str>, seen: &BTreeMap<&str, u64>) -> Counts {
    names
        .into_iter()
        .map(|name| {
            let count = seen.get(name).copied().unwrap_or_default();
            (name.to_owned(), count.into())
        })
        .collect()
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "summary")]
pub(super) struct SummaryLine {
    pub(super) packets: u64,
    pub(super) packets_unparsed: u64,
    pub(super) bytes: u64,
    pub(super) flows: u64,
    pub(super) by_verdict: Counts,
    pub(super) by_outcome: Counts,
    pub(super) by_state: Counts,
    pub(super) lost: Counts,
    pub(super) seconds: f64,
}

impl SummaryLine {
    pub(super) fn new(
        totals: &Snapshot,
        span: Option<Span>,
        tally: &Tally,
        states: &[State],
    ) -> Self {
        let verdicts = tally.by_verdict();
        let mut by_state = BTreeMap::new();
        for state in states {
            *by_state.entry(state.name()).or_default() += 1;
        }
        let sum = |of: fn(&flowproof_common::record::InterfaceCounters) -> u64| {
            totals
                .interfaces
                .iter()
                .map(|(_, counters)| of(counters))
                .sum()
        };
        let seconds = span.map_or(0.0, |span| {
            Duration::from_nanos(span.last.saturating_sub(span.first)).as_secs_f64()
        });
        Self {
            packets: sum(|counters| counters.packets),
            packets_unparsed: sum(|counters| counters.unparsed),
            bytes: sum(|counters| counters.bytes),
            flows: tally.flows,
            by_verdict: counts(
                Verdict::ALL
                    .map(Verdict::name)
                    .into_iter()
                    .chain(verdicts.contains_key(PENDING).then_some(PENDING)),
                &verdicts,
            ),
            by_outcome: counts(Outcome::ALL.map(Outcome::name), &tally.by_outcome()),
            by_state: counts(State::ALL.map(State::name), &by_state),
            lost: totals
                .lost
                .iter()
                .map(|(stage, count)| ((*stage).to_owned(), (*count).into()))
                .collect(),
            seconds,
        }
    }
}
