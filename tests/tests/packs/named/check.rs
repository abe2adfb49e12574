//! Whether the daemon tells of each conversation what is to be said of it, and counts it where it belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use flowproof_tests::daemon::Daemon;
use flowproof_tests::metrics::Metrics;
use serde_json::Value;

use super::case::Expected;
use super::scene::Open;
use crate::near::id;
use crate::pack::protocol;
use crate::plan::Plan;

/// How long the daemon may take to know everything: what no name server tells of is held for three seconds.
const KNOWN_WITHIN: Duration = Duration::from_secs(15);

/// Waits until the daemon tells of every conversation what is expected of it, and counts each where it belongs and
/// nowhere else.
pub(crate) fn settle(daemon: &Daemon, plan: &Plan<'_>, open: &[Open<'_>]) -> Result<()> {
    let start = Instant::now();
    loop {
        let told = told(daemon, open)?;
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let mut wrong: Vec<String> = open
            .iter()
            .filter_map(|open| difference(open, &told, &mut counts))
            .collect();
        if wrong.is_empty() {
            wrong = miscounted(plan, open, &counts, &daemon.metrics()?);
        }
        if wrong.is_empty() {
            return Ok(());
        }
        if start.elapsed() > KNOWN_WITHIN {
            let number = wrong.len();
            wrong.truncate(20);
            let lost = daemon.metrics()?.show("flowproof_lost_total", &[]);
            bail!(
                "{number} are wrong, as these:\n{}\n{lost}",
                wrong.join("\n")
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Flows, as the daemon tells of them, by (initiator, its port, responder).
type Told = BTreeMap<(IpAddr, u64, IpAddr), Value>;

fn told(daemon: &Daemon, open: &[Open<'_>]) -> Result<Told> {
    let services: BTreeSet<(u8, u16)> = open
        .iter()
        .map(|open| (open.case.protocol, open.case.port))
        .collect();
    let mut told = Told::new();
    for (number, port) in services {
        let protocol = if number == protocol::TCP {
            "tcp"
        } else {
            "udp"
        };
        let got = daemon.get(&format!(
            "/api/v1/flows?protocol={protocol}&port={port}&limit=10000"
        ))?;
        ensure!(got.status == 200, "{}{}", got.head, got.body);
        let flows: Vec<Value> = serde_json::from_str(&got.body)?;
        for flow in flows.into_iter().filter(|flow| flow["type"] == "flow") {
            let address = |end: &str| flow[end]["address"].as_str().unwrap_or_default().parse();
            let port = flow["initiator"]["port"].as_u64().unwrap_or_default();
            told.insert((address("initiator")?, port, address("responder")?), flow);
        }
    }
    Ok(told)
}

/// What is wrong with what is told of a conversation. If nothing is, it is added to the counts of its rows.
fn difference(open: &Open<'_>, told: &Told, counts: &mut BTreeMap<String, u64>) -> Option<String> {
    let case = open.case;
    let Some(flow) = told.get(&(case.initiator, open.port.into(), case.responder)) else {
        return Some(format!("not told of: {case:?}"));
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows: BTreeSet<String> = flow["requirements"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    let nearest = &flow["near_misses"][0];
    let right = match &case.expected {
        Expected::Rows(expected) => flow["verdict"] == "expected" && rows == *expected,
        Expected::Some(some) => {
            flow["verdict"] == "expected" && !rows.is_empty() && rows.is_subset(some)
        }
        Expected::Unexpected(kind, of) => {
            let near = match kind {
                Some(kind) => {
                    nearest["kind"] == *kind && of.contains(&text(&nearest["requirement"]))
                }
                None => nearest.is_null(),
            };
            flow["verdict"] == "unexpected" && near
        }
        Expected::Unscoped => flow["verdict"] == "unscoped",
    };
    let roles = ["initiator", "responder"].map(|end| {
        let roles = flow[end]["roles"].as_array().into_iter().flatten();
        let roles: BTreeSet<String> = roles.map(text).collect();
        roles.into_iter().collect::<Vec<String>>()
    });
    if !right || case.roles.as_ref().is_some_and(|case| *case != roles) {
        return Some(format!("{case:?}\n    is told as {flow}"));
    }
    for row in rows {
        *counts.entry(row).or_default() += 1;
    }
    None
}

/// What is counted otherwise than it was told.
fn miscounted(
    plan: &Plan<'_>,
    open: &[Open<'_>],
    counts: &BTreeMap<String, u64>,
    metrics: &Metrics,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |what: &str, is: u64, expected: u64| {
        if is != expected {
            wrong.push(format!("{what}: {is} instead of {expected}"));
        }
    };
    for row in plan.rows.iter().filter(|row| !row.noisy) {
        let row_id = id(row);
        let labels = [
            ("system", row.requirement.system.as_str()),
            ("requirement", row.requirement.id.as_str()),
            ("service", row.service.name.as_str()),
        ];
        let expected = counts.get(&row_id).copied().unwrap_or(0);
        let begun = metrics.count("flowproof_requirement_attempts_total", &labels);
        check(&row_id, begun, expected);
        let answered = [&labels[..], &[("outcome", "answered")]].concat();
        let answered = metrics.count("flowproof_requirement_flows_total", &answered);
        check(&format!("{row_id}, answered"), answered, expected);
    }
    let unexpected = open
        .iter()
        .filter(|open| matches!(open.case.expected, Expected::Unexpected(..)))
        .count() as u64;
    for name in ["flowproof_flows_begun_total", "flowproof_flows_total"] {
        let is = metrics.count(name, &[("verdict", "unexpected")]);
        check(&format!("{name}, unexpected"), is, unexpected);
    }
    check("lost", metrics.count("flowproof_lost_total", &[]), 0);
    wrong
}
