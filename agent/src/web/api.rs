//! What programs ask: `GET /api/v1/flows`, `/api/v1/requirements` and `/api/v1/draft`, on loopback listeners only.
//!
//! The first two answer with a JSON array whose elements are, one a line, the lines that `flowproof replay --format json` prints,
//! so that `jq '.[]'` makes one of the other and a browser shows it as it is.
//!
//! **flows**: the flows in the tables now, the one that began last first; near misses with the unexpected ones. Parameters
//! are those of [`Query`]: `verdict`, `outcome`, `requirement` (`system/requirement`, or a service of one), `initiator` and
//! `responder` (address, prefix or role), `initiator_port`, `protocol`, `port` (of the responder, or ICMP type), `limit`
//! (1 to 10,000; 1,000 if not given). All of them must hold. The last element counts all flows that were asked for, the
//! ones beyond the limit included:
//!
//! ```text
//! {"type":"listing","flows","listed","by_verdict":{..},"by_outcome":{..},"first_seen","last_seen","time"}
//! ```
//!
//! Times of live flows are those of their records, which keep ticks of 8.4 ms, and all times are given to the millisecond:
//! what is below it comes from comparing two clocks and differs from one answer to the next. What has ended is in the tables for some
//! seconds more (TCP 5 s, ICMP 30 s, UDP 2 min); only counters remember it longer. Evidence is what the record and the
//! events since the daemon started tell.
//!
//! **draft**: what a draft of the matrix would change for the flows that began since it was read, as `replay --draft` prints it
//! (see `draft/report.rs`); 404 if there is none. `/draft` has it in words.
//!
//! **requirements**: every requirement of the matrix in force with its state, or those named by `requirement`, which may be
//! given more than once. States and counts are those of the window (`ledger.window`), to the accuracy of a 288th of it;
//! `first_seen` and `last_seen` are over all restarts that the ledger knows of.

use std::sync::Arc;

use axum::extract::{Query as Parameters, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use flowproof_common::classify::Verdict;
use flowproof_common::state::Outcome;
use serde::Serialize;

use super::{Site, failed, look, unavailable};
use crate::draft::DraftReport;
use crate::engine::actor::CommandError;
use crate::engine::chronicle::Standing;
use crate::engine::flows::{Flows, Query, QueryError};
use crate::export::flow_line::{Facts, FlowLine, PENDING};
use crate::export::requirement_line::{LastFailure, RequirementLine};
use crate::export::times::time;
use crate::flow::Span;
use crate::matrix::ServiceKey;
use crate::report::render;
use crate::verdict::Explainer;

/// `GET /api/v1/flows`
pub(super) async fn flows(
    State(site): State<Arc<Site>>,
    Parameters(parameters): Parameters<Vec<(String, String)>>,
) -> Response {
    let pairs = parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let query = match Query::read(pairs) {
        Ok(query) => query,
        Err(error) => return bad(&error.to_string()),
    };
    let Some(engine) = site.engine().cloned() else {
        return unavailable("the capture is not attached yet");
    };
    // One at a time, until it is written: neither the capture thread nor the memory pays for a crowd.
    let Ok(turn) = Arc::clone(&site.turn).acquire_owned().await else {
        return unavailable("the daemon is ending");
    };
    let flows = match engine.flows(query).await {
        Ok(flows) => flows,
        Err(CommandError::Query(error)) => return bad(&error.to_string()),
        Err(error) => return unavailable(&error.to_string()),
    };
    let written = tokio::task::spawn_blocking(move || {
        let text = write_flows(&flows, &site.explainer(&flows));
        drop(turn);
        text
    });
    answer(written.await)
}

/// `GET /api/v1/requirements`
pub(super) async fn requirements(
    State(site): State<Arc<Site>>,
    Parameters(parameters): Parameters<Vec<(String, String)>>,
) -> Response {
    let mut wanted = Vec::new();
    for (name, value) in parameters {
        if name != "requirement" {
            return bad(&format!(
                "there is no parameter `{name}`; there is: requirement"
            ));
        }
        wanted.push(value);
    }
    let standing = match look(&site).await {
        Ok(standing) => standing,
        Err(response) => return response,
    };
    let written = tokio::task::spawn_blocking(move || write_requirements(&standing, &wanted));
    match written.await {
        Ok(Err(Failure::Query(error))) => bad(&error.to_string()),
        Ok(Err(Failure::Json(error))) => failed(&error),
        Ok(Ok(text)) => answer(Ok(Ok(text))),
        Err(error) => failed(&error),
    }
}

/// `GET /api/v1/draft`
pub(super) async fn draft(State(site): State<Arc<Site>>) -> Response {
    match draft_report(&site) {
        Ok(report) => answer(Ok(serde_json::to_string(&report).map(|text| text + "\n"))),
        Err(refused) => refused.into_response(),
    }
}

/// `GET /draft`: the same for people.
pub(super) async fn draft_text(State(site): State<Arc<Site>>) -> Response {
    match draft_report(&site) {
        Ok(report) => {
            let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            (headers, render::draft::render(&report)).into_response()
        }
        Err(refused) => refused.into_response(),
    }
}

fn draft_report(site: &Site) -> Result<DraftReport, (StatusCode, &'static str)> {
    let Some(evidence) = site.evidence.get() else {
        let reason = "the capture is not attached yet\n";
        return Err((StatusCode::SERVICE_UNAVAILABLE, reason));
    };
    evidence.draft_report().ok_or((
        StatusCode::NOT_FOUND,
        "there is no draft: name one by `draft` in the configuration, or by --draft\n",
    ))
}

fn bad(reason: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response()
}

fn answer(written: Result<serde_json::Result<String>, tokio::task::JoinError>) -> Response {
    match written {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

/// A time of the Unix epoch without what is below a millisecond.
fn live_time(nanos: u64) -> String {
    time(to_milliseconds(nanos))
}

const fn to_milliseconds(nanos: u64) -> u64 {
    nanos / 1_000_000 * 1_000_000
}

/// A JSON array with an element a line.
struct Array(String);

impl Array {
    fn new() -> Self {
        Self("[".to_owned())
    }

    fn push(&mut self, element: &impl Serialize) -> serde_json::Result<()> {
        self.0
            .push_str(if self.0.len() == 1 { "\n" } else { ",\n" });
        self.0.push_str(&serde_json::to_string(element)?);
        Ok(())
    }

    fn finish(mut self) -> String {
        self.0.push_str("\n]\n");
        self.0
    }
}

/// Counts by name.
type Counts = serde_json::Map<String, serde_json::Value>;

/// What was asked for, listed or not.
#[derive(Serialize)]
#[serde(tag = "type", rename = "listing")]
struct Listing {
    flows: u64,
    listed: usize,
    by_verdict: Counts,
    by_outcome: Counts,
    first_seen: Option<String>,
    last_seen: Option<String>,
    /// When the tables were read.
    time: String,
}

fn write_flows(flows: &Flows, explainer: &Explainer) -> serde_json::Result<String> {
    let mut array = Array::new();
    for found in &flows.listed {
        let facts = Facts {
            key: &found.key,
            record: &found.record,
            span: Span {
                first: to_milliseconds(found.span.first),
                last: to_milliseconds(found.span.last),
            },
            errors: &found.notes.errors,
            overturned: &found.notes.overturned,
            drop_reason: found.drop_reason.as_deref(),
            names: &found.names,
        };
        array.push(&FlowLine::new(&facts, explainer))?;
    }
    let count = |(name, count): (&str, u64)| (name.to_owned(), count.into());
    array.push(&Listing {
        flows: flows.tally.flows,
        listed: flows.listed.len(),
        by_verdict: Verdict::ALL
            .map(Verdict::name)
            .into_iter()
            .zip(flows.tally.by_verdict)
            .chain((flows.tally.pending > 0).then_some((PENDING, flows.tally.pending)))
            .map(count)
            .collect(),
        by_outcome: Outcome::ALL
            .map(Outcome::name)
            .into_iter()
            .zip(flows.tally.by_outcome)
            .map(count)
            .collect(),
        first_seen: flows.span.map(|span| live_time(span.first)),
        last_seen: flows.span.map(|span| live_time(span.last)),
        time: live_time(flows.time),
    })?;
    Ok(array.finish())
}

#[derive(Debug)]
enum Failure {
    Query(QueryError),
    Json(serde_json::Error),
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

fn write_requirements(standing: &Standing, wanted: &[String]) -> Result<String, Failure> {
    let matrix = &standing.view.matrix.compiled.matrix;
    let mut missing: Vec<&String> = wanted.iter().collect();
    let mut array = Array::new();
    for (system, content) in matrix.indexed_systems() {
        for (index, requirement) in content.indexed_requirements() {
            let id = matrix.requirement_id(system, index);
            if !wanted.is_empty() && !wanted.contains(&id) {
                continue;
            }
            missing.retain(|wanted| **wanted != id);
            let keys = requirement
                .indexed_services()
                .map(|(service, _)| ServiceKey {
                    system,
                    requirement: index,
                    service,
                });
            let services: Vec<_> = standing
                .of(keys)
                .map(|row| {
                    let seen = row.seen.map(|seen| seen.map(to_milliseconds));
                    let failure = row.last_failure;
                    let failure = failure.map(|failure| LastFailure::new(&failure, &row.failed));
                    (matrix.service(row.key), row.window, seen, failure)
                })
                .collect();
            array.push(&RequirementLine::over_window(id, &services))?;
        }
    }
    if let Some(id) = missing.first() {
        return Err(Failure::Query(QueryError::Value {
            parameter: "requirement",
            value: (*id).clone(),
            remedy: "the matrix in force has no such requirement; write `system/requirement`"
                .to_owned(),
        }));
    }
    Ok(array.finish())
}
