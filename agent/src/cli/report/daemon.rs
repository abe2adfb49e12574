//! What a running daemon has seen, by its API: the requirements in force with their states, the flows in its tables now, and, of
//! unexpected traffic, the counters, which remember it when the flow is long gone.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::cli::daemon_access::DaemonAccess;
use crate::cli::explain::AskError;
use crate::cli::explain::daemon::Remote;
use crate::engine::flows::Encoded;
use crate::export::flow_line::{FlowLine, PENDING};
use crate::export::requirement_line::RequirementLine;
use crate::report::model::Evidence;
use crate::report::unexpected::Counted;
use crate::verdict::requirement::State;

/// Unexpected flows that are told one by one.
const UNEXPECTED: usize = 2_000;
/// Flows of a requirement that are looked through for failures.
const FLOWS: usize = 200;
/// Requirements whose flows are asked for; each is a question.
const MOST_ASKED: usize = 100;

/// An element of `/api/v1/flows`.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Element {
    Flow(Box<FlowLine>),
    Listing {
        flows: u64,
        listed: u64,
        by_verdict: BTreeMap<String, u64>,
        time: String,
    },
}

/// Asks the daemon at `url`.
pub(super) fn evidence(url: &str, access: &DaemonAccess) -> Result<Evidence, AskError> {
    let daemon = Remote::parse(url)?.with(access)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| daemon.nobody(&error))?;
    runtime.block_on(ask(&daemon))
}

async fn ask(daemon: &Remote) -> Result<Evidence, AskError> {
    let requirements: Vec<RequirementLine> = daemon.get_json("/api/v1/requirements").await?;
    let mut evidence = Evidence {
        source: format!("daemon {}", daemon.url()),
        ..Evidence::default()
    };
    let path = format!("/api/v1/flows?verdict=unexpected&limit={UNEXPECTED}");
    let (flows, (all, listed, _)) = listing(daemon, &path, &mut evidence.until).await?;
    for flow in &flows {
        evidence.unexpected.add(flow);
    }
    if all > listed {
        evidence.notes.push(format!(
            "only the newest {listed} of {all} unexpected flows in the daemon's tables are told with their addresses"
        ));
    }
    let (_, (_, _, pending)) = listing(daemon, "/api/v1/flows?limit=1", &mut None).await?;
    if pending > 0 {
        evidence.notes.push(format!(
            "{pending} flow(s) wait for a name and are judged neither expected nor unexpected"
        ));
    }
    let failing = |line: &&RequirementLine| {
        [State::Blocked, State::Degraded]
            .map(State::name)
            .contains(&line.state.as_str())
    };
    for line in requirements.iter().filter(failing).take(MOST_ASKED) {
        let path = format!(
            "/api/v1/flows?requirement={}&limit={FLOWS}",
            Encoded(&line.id)
        );
        match listing(daemon, &path, &mut None).await {
            Ok((flows, _)) => evidence.flows.extend(flows),
            // It was reloaded with another matrix in between.
            Err(AskError::Refused { status: 400, .. }) => evidence.notes.push(format!(
                "the daemon's matrix changed while it was asked: {} is gone",
                line.id
            )),
            Err(error) => return Err(error),
        }
    }
    let scrape = daemon.get_bytes("/metrics").await?;
    let scrape = String::from_utf8_lossy(&scrape);
    let (counted, lost) = counters(&scrape)
        .ok_or_else(|| daemon.foreign("its /metrics has no flowproof_unexpected_flows_total"))?;
    evidence.counted = Some(counted);
    evidence.lost = lost;
    evidence.requirements = requirements;
    evidence.notes.push(
        "states and counts are those of the daemon's window; flows are those in its tables now"
            .to_owned(),
    );
    Ok(evidence)
}

/// The flows that a path lists; how many there are, how many are listed, and how many wait for a name; and when it was.
pub(in crate::cli) async fn listing(
    daemon: &Remote,
    path: &str,
    when: &mut Option<String>,
) -> Result<(Vec<FlowLine>, (u64, u64, u64)), AskError> {
    let mut lines = Vec::new();
    let mut counts = None;
    for element in daemon.get_json::<Vec<Element>>(path).await? {
        match element {
            Element::Flow(line) => lines.push(*line),
            Element::Listing {
                flows,
                listed,
                by_verdict,
                time,
            } => {
                let pending = by_verdict.get(PENDING).copied().unwrap_or_default();
                counts = Some((flows, listed, pending));
                *when = Some(time);
            }
        }
    }
    let counts = counts.ok_or_else(|| daemon.foreign("its list of flows has no end"))?;
    Ok((lines, counts))
}

/// Losses by stage.
type Lost = Vec<(String, u64)>;

/// Unexpected flows and losses in a scrape; nothing if it is none of flowproof's.
fn counters(scrape: &str) -> Option<(Vec<Counted>, Lost)> {
    let mut counted = Vec::new();
    let mut lost = Vec::new();
    for line in scrape.lines() {
        if let Some(rest) = line.strip_prefix("flowproof_unexpected_flows_total{") {
            let (labels, flows) = sample(rest)?;
            let label = |name: &str| labels.get(name).cloned();
            counted.push(Counted {
                from: label("from")?,
                to: label("to")?,
                service: label("service")?,
                flows,
            });
        } else if let Some(rest) = line.strip_prefix("flowproof_lost_total{") {
            let (labels, count) = sample(rest)?;
            lost.push((labels.get("stage")?.clone(), count));
        }
    }
    (!counted.is_empty()).then_some((counted, lost))
}

/// The labels of a series, after its opening brace, and its count (text format 0.0.4).
fn sample(mut rest: &str) -> Option<(BTreeMap<String, String>, u64)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(value) = rest.strip_prefix('}') {
            let value: f64 = value.trim().parse().ok()?;
            // Counts are whole, and exact up to 2^53.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the range is checked in the same line"
            )]
            let count = (0.0..1e16).contains(&value).then_some(value as u64)?;
            return Some((labels, count));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.trim_start_matches(',').to_owned(), value);
        rest = &after[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_counters_of_a_scrape() {
        let text = "# HELP x\nflowproof_unexpected_flows_total{from=\"s/a\",service=\"tcp/1\",to=\"a\\\"},\\\\b\"} 3\n\
                    flowproof_unexpected_flows_total{from=\"~other\",service=\"~other\",to=\"~other\"} 0\n\
                    flowproof_lost_total{stage=\"ring\"} 7\nother{a=\"b\"} x\n";
        let (counted, lost) = counters(text).unwrap();
        assert_eq!(
            counted[0],
            Counted {
                from: "s/a".to_owned(),
                to: "a\"},\\b".to_owned(),
                service: "tcp/1".to_owned(),
                flows: 3,
            }
        );
        assert_eq!(counted.len(), 2);
        assert_eq!(lost, [("ring".to_owned(), 7)]);
        for text in [
            "",
            "flowproof_lost_total{stage=\"ring\"} 7\n",
            "flowproof_unexpected_flows_total{from=\"a\",to=\"b\",service=\"c\"} -1\n",
            "flowproof_unexpected_flows_total{from=\"a\",to=\"b\",service=\"c} 1\n",
            "flowproof_unexpected_flows_total{from=\"a\"} 1\n",
        ] {
            assert_eq!(counters(text), None, "{text}");
        }
    }
}
