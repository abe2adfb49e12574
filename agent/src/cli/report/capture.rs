//! What capture files show. Flows are put into words one by one, and only those that the report tells of, so that a capture of
//! millions costs no more than its flows.

use std::collections::HashMap;

use super::Found;
use crate::capture::file::CaptureFile;
use crate::cli::replay::{Judged, Replayed, Wanted, replay};
use crate::export::flow_line::{FlowLine, PENDING, verdict_name};
use crate::export::times::time;
use crate::report::model::Evidence;
use crate::report::unexpected::Groups;
use flowproof_common::classify::Verdict;

/// Failed flows a requirement that are told.
const MOST_FAILED: usize = 1_000;

/// Judges the files as far as they can be read.
pub(in crate::cli) fn evidence(files: Vec<CaptureFile>, judged: &mut Judged) -> Found {
    let Replayed {
        flows,
        tally,
        totals,
        lossy,
        span,
        complaints,
    } = replay(files, judged, Wanted::Flows);
    let mut unexpected = Groups::default();
    let mut failed = Vec::new();
    let mut told: HashMap<u32, usize> = HashMap::new();
    for flow in &flows {
        let verdict = verdict_name(flow.record.state);
        let line = || FlowLine::new(&flow.facts(), judged.explainer());
        if verdict == Verdict::Unexpected.name() || verdict == PENDING {
            unexpected.add(&line());
        } else if verdict == Verdict::Expected.name() && flow.outcome().is_failure() {
            let count = told.entry(flow.record.slot).or_default();
            *count += 1;
            if *count <= MOST_FAILED {
                failed.push(line());
            }
        }
    }
    let rows = judged.rows(&tally, lossy);
    let mut lost: Vec<(String, u64)> = totals
        .lost
        .iter()
        .map(|(stage, count)| ((*stage).to_owned(), *count))
        .collect();
    let unparsed = totals
        .interfaces
        .iter()
        .map(|(_, counters)| counters.unparsed);
    lost.push(("unparsed".to_owned(), unparsed.sum()));
    let notes = complaints
        .iter()
        .map(|complaint| format!("not read to its end: {complaint}"))
        .collect();
    let evidence = Evidence {
        since: span.map(|span| time(span.first)),
        until: span.map(|span| time(span.last)),
        requirements: rows.into_iter().map(|row| row.line).collect(),
        flows: failed,
        unexpected,
        lost,
        notes,
        ..Evidence::default()
    };
    (evidence, complaints)
}
