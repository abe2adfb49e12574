//! What the daemon has to say of each row after a round of traffic, to the last flow.

use std::collections::{BTreeMap, HashMap};

use flowproof_tests::metrics::Metrics;
use serde_json::Value;

use super::hosts::Fate;
use super::pack::protocol;
use super::plan::{Plan, Row, Way};

/// Ports whose protocols have each request answered, whatever list the daemon keeps: DNS, Kerberos, NTP, LDAP, RADIUS,
/// STUN. Elsewhere silence over UDP only means something once the service has answered.
const SURELY_ANSWERS: [u16; 6] = [53, 88, 123, 389, 1812, 3478];

/// A round of traffic under one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Round<'a> {
    /// What became of each group of rows.
    pub(crate) fates: &'a BTreeMap<usize, Fate>,
    /// Whether every conversation was answered once before, under the same daemon.
    pub(crate) second: bool,
    /// Whether the back end sees what the agent's own kernel drops.
    pub(crate) sees_drops: bool,
}

impl Round<'_> {
    /// What became of a row's conversations.
    pub(crate) fn fate(&self, row: &Row<'_>) -> Fate {
        self.fates.get(&row.group).copied().unwrap_or(Fate::Open)
    }

    /// What the daemon is to say of it. A call goes to many and is owed no answer: that one of them drops it is nobody's
    /// failure, and must not be told as one.
    fn told_fate(&self, plan: &Plan<'_>, row: &Row<'_>) -> Fate {
        let called = |spec: &usize| plan.specs[*spec].way == Way::Called;
        if row.specs.iter().all(called) {
            Fate::Open
        } else {
            self.fate(row)
        }
    }
}

#[derive(Debug, Default)]
struct Counted {
    begun: u64,
    outcomes: BTreeMap<String, u64>,
    state: String,
}

/// What differs from the expectation, a line each; nothing is unexpected.
pub(crate) fn differences(plan: &Plan<'_>, round: &Round<'_>, metrics: &Metrics) -> Vec<String> {
    let counted = by_row(metrics);
    let nothing = Counted::default();
    let mut wrong = Vec::new();
    for row in &plan.rows {
        let id = &row.requirement;
        let name = (&*id.system, &*id.id, &*row.service.name);
        let got = counted.get(&name).unwrap_or(&nothing);
        if let Some(difference) = difference(plan, round, row, got) {
            wrong.push(format!("{}/{}#{}: {difference}", name.0, name.1, name.2));
        }
    }
    let begun = metrics.count("flowproof_flows_begun_total", &[("verdict", "unexpected")]);
    let told = metrics.count("flowproof_unexpected_flows_total", &[]);
    if (begun, told) != (0, 0) {
        wrong.push(format!(
            "{begun} flows are unexpected, {told} of them told\n{}",
            metrics.show("flowproof_unexpected_flows_total", &[])
        ));
    }
    for name in ["flowproof_lost_total", "flowproof_capture_unparsed_total"] {
        if metrics.count(name, &[]) != 0 {
            wrong.push(metrics.show(name, &[]));
        }
    }
    wrong
}

fn difference(plan: &Plan<'_>, round: &Round<'_>, row: &Row<'_>, got: &Counted) -> Option<String> {
    if row.specs.is_empty() {
        let blind = got.state == "unobservable" && got.begun == 0;
        return (!blind).then(|| format!("{got:?}; nobody can see it"));
    }
    let mut begun = 0;
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    let fate = round.told_fate(plan, row);
    for spec in row.specs.iter().map(|spec| &plan.specs[*spec]) {
        let works = if spec.way == Way::Called {
            "one_way"
        } else {
            "answered"
        };
        begun += 1;
        // Nothing but addresses tells one VRRP flow from another, so a second one is the first, going on.
        if round.second && spec.protocol != protocol::VRRP {
            *expected.entry(works).or_default() += 1;
            begun += 1;
        }
        let outcome = match (fate, spec.way) {
            (Fate::Open, _) | (_, Way::Called) => works,
            // A host that turns its own packet away drops it before it hears of it.
            (Fate::Dropped | Fate::Rejected, Way::Within) if round.sees_drops => "dropped_here",
            (Fate::Dropped, Way::Across(_) | Way::Within) => {
                let known = round.second || SURELY_ANSWERS.contains(&spec.port);
                let one_way = got.outcomes.contains_key("one_way");
                if spec.protocol == protocol::UDP && !known && one_way {
                    "one_way"
                } else {
                    "no_answer"
                }
            }
            (Fate::Rejected, Way::Across(_) | Way::Within) => "refused",
        };
        *expected.entry(outcome).or_default() += 1;
    }
    let state = match fate {
        Fate::Open => "verified",
        Fate::Dropped | Fate::Rejected if round.second => "degraded",
        // Whether a datagram that nobody has to answer arrives, can't be told.
        Fate::Dropped if expected.contains_key("one_way") => "unknown",
        Fate::Dropped | Fate::Rejected => "blocked",
    };
    let flows: BTreeMap<&str, u64> = got
        .outcomes
        .iter()
        .map(|(outcome, flows)| (outcome.as_str(), *flows))
        .collect();
    let right = if row.noisy {
        // The daemon's own scrapes are flows of this row too.
        got.state == state && got.begun >= begun
    } else {
        got.state == state && got.begun == begun && flows == expected
    };
    (!right).then(|| format!("{got:?}; expected {state}, {begun} begun, {expected:?} ({fate:?})"))
}

/// What differs in cause and place, as the daemon tells them of each requirement.
pub(crate) fn causes(plan: &Plan<'_>, round: &Round<'_>, told: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut lines: HashMap<(String, String), (String, String)> = HashMap::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for requirement in list(told) {
        for service in list(&requirement["services"]) {
            let row = (text(&requirement["id"]), text(&service["service"]));
            // Only the requirement has a place: that of its worst service.
            let place = if service["state"] == requirement["state"] {
                text(&requirement["place"])
            } else {
                String::new()
            };
            lines.insert(row, (text(&service["cause"]), place));
        }
    }
    let mut wrong = Vec::new();
    for row in plan.rows.iter().filter(|row| !row.specs.is_empty()) {
        let id = format!("{}/{}", row.requirement.system, row.requirement.id);
        let key = (id, row.service.name.clone());
        let got = lines.get(&key).cloned().unwrap_or_default();
        let within = row
            .specs
            .iter()
            .all(|spec| plan.specs[*spec].way == Way::Within);
        let all: &[(&str, &str)] = match round.told_fate(plan, row) {
            Fate::Open => &[("", "")],
            _ if within && round.sees_drops => &[("dropped_here", "this_host")],
            // The place of a requirement may be that of another of its services, blocked as well.
            Fate::Dropped => &[("no_answer", "path"), ("one_way", "")],
            Fate::Rejected => &[("refused", "peer")],
        };
        let cause_right = all.iter().any(|(cause, _)| *cause == got.0);
        let places = ["", "path", "peer", "this_host"];
        let alone = row.requirement.services.len() == 1;
        let place_right = if alone {
            all.contains(&(got.0.as_str(), got.1.as_str()))
        } else {
            places.contains(&got.1.as_str())
        };
        if !cause_right || !place_right {
            wrong.push(format!("{key:?} is told as {got:?} instead of {all:?}"));
        }
    }
    wrong
}

/// The row's series in one pass; a matrix has thousands of them.
fn by_row(metrics: &Metrics) -> HashMap<(&str, &str, &str), Counted> {
    let mut rows: HashMap<(&str, &str, &str), Counted> = HashMap::new();
    for sample in metrics.samples.iter().filter(|sample| sample.value != 0.0) {
        let label = |name: &str| sample.labels.get(name).map_or("", String::as_str);
        let flows = || format!("{}", sample.value).parse().unwrap_or(u64::MAX);
        let row = (label("system"), label("requirement"), label("service"));
        match sample.name.as_str() {
            "flowproof_requirement_attempts_total" => rows.entry(row).or_default().begun = flows(),
            "flowproof_requirement_flows_total" => {
                let outcome = label("outcome").to_owned();
                rows.entry(row)
                    .or_default()
                    .outcomes
                    .insert(outcome, flows());
            }
            "flowproof_requirement_state" => {
                let state = &mut rows.entry(row).or_default().state;
                state.push_str(label("state"));
            }
            _ => {}
        }
    }
    rows
}
