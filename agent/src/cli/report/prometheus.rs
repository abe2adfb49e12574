//! What the agents of a fleet say, by the HTTP API of a Prometheus that scrapes them and has the recording rules of
//! `deploy/prometheus`, or of what speaks the same API (Thanos, Mimir). It is asked for what the rules found, never to decide anew:
//! a report can't say anything else than an alert. Plain HTTP; whoever answers, what it costs here is bounded.

mod client;

use std::collections::BTreeMap;

pub(in crate::cli) use client::PrometheusError;
use client::{Answer, Server};

use crate::export::times::time;
use crate::matrix::{Matrix, System};
use crate::names::wall_time;
use crate::report::fleet::{self, Sample, Samples};
use crate::report::model::Evidence;
use crate::report::unexpected::Counted;

/// Agents and warnings that are named.
const MOST_NAMED: usize = 10;

/// What to ask, and whom.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct FleetArguments {
    /// Report what the agents of a fleet say, by a Prometheus that scrapes them: `http://HOST:9090`, with the path if it has one
    #[arg(long, value_name = "URL", conflicts_with_all = ["capture", "daemon", "ledger"])]
    pub(super) prometheus: Option<String>,
    /// Only series with these labels, as in a query: `cluster="eu",job="flowproof"`
    #[arg(long, value_name = "MATCHERS", requires = "prometheus")]
    select: Option<String>,
    /// A file of header fields to send, one a line, as `Authorization: Bearer ...` or `X-Scope-OrgID: ...`
    #[arg(long, value_name = "FILE", requires = "prometheus")]
    headers: Option<std::path::PathBuf>,
}

/// Asks the Prometheus that the arguments name. `site` is the name that the site file gives; without one there must be no more than one.
pub(super) fn evidence(
    arguments: &FleetArguments,
    url: &str,
    site: Option<&str>,
    matrix: &Matrix,
    deployed: &dyn Fn(&System) -> bool,
) -> Result<Evidence, PrometheusError> {
    let server = Server::new(url, arguments.headers.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| server.nobody(&error))?;
    let questions = Questions::new(arguments.select.as_deref(), site);
    let mut answers = Vec::new();
    runtime.block_on(async {
        for question in questions.all() {
            answers.push(server.query(&question).await?);
        }
        Ok::<_, PrometheusError>(())
    })?;
    let warnings: Vec<String> = answers
        .iter()
        .flat_map(|answer| answer.warnings.clone())
        .collect();
    let told = Told::new(answers);
    if told.samples.findings.is_empty() && told.samples.known.is_empty() {
        return Err(if told.states {
            server.no_rules()
        } else {
            server.no_agents(arguments.select.is_some() || site.is_some())
        });
    }
    let sites = fleet::sites(&told.samples);
    if site.is_none() && sites.len() > 1 {
        return Err(PrometheusError::Sites {
            names: sites.into_iter().collect::<Vec<_>>().join(", "),
        });
    }
    let mut evidence = fleet::evidence(&told.samples, matrix, deployed);
    evidence.source = format!("fleet, by {}", server.url());
    evidence.until = Some(time(wall_time::nanos(std::time::SystemTime::now())));
    evidence.lost = told.lost;
    evidence.counted = Some(told.unexpected);
    evidence.notes = notes(&told.agents, &warnings);
    Ok(evidence)
}

/// What has to be known beside.
fn notes(agents: &BTreeMap<String, bool>, warnings: &[String]) -> Vec<String> {
    let listed = |names: &mut dyn Iterator<Item = &String>| {
        let names: Vec<&str> = names.map(String::as_str).collect();
        let more = names.len().saturating_sub(MOST_NAMED);
        let mut text = names[..names.len() - more].join(", ");
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
        text
    };
    let down = || agents.iter().filter(|(_, up)| !**up).map(|(name, _)| name);
    let mut notes = vec![format!(
        "{} agent(s), of which {} can't be scraped{}{}",
        agents.len(),
        down().count(),
        if down().next().is_some() { ": " } else { "" },
        listed(&mut down()),
    )];
    notes.push(
        "flows are counted since each agent's counters began; unexpected ones as the agent counts them that saw most, since several see the same"
            .to_owned(),
    );
    notes.extend(
        warnings
            .iter()
            .take(MOST_NAMED)
            .map(|warning| format!("Prometheus warns, and what it says may be a part: {warning}")),
    );
    notes
}

/// Queries, in the order of [`Told::new`].
struct Questions {
    /// Matchers for series of an agent, and for those that the rules gave a site, both with a comma before them if there are any.
    agent: String,
    joined: String,
}

impl Questions {
    fn new(select: Option<&str>, site: Option<&str>) -> Self {
        let agent = select
            .map(|select| format!(",{select}"))
            .unwrap_or_default();
        let site = site
            .filter(|site| !site.is_empty())
            .map(|site| {
                format!(
                    ",site=\"{}\"",
                    site.replace('\\', r"\\").replace('"', "\\\"")
                )
            })
            .unwrap_or_default();
        Self {
            joined: format!("{agent}{site}"),
            agent,
        }
    }

    fn all(&self) -> Vec<String> {
        let Self { agent, joined } = self;
        let trusted = format!("flowproof:requirement_vantage:trusted{{system!=\"\"{joined}}}");
        let moment = |metric: &str| {
            format!(
                "{metric}{{system!=\"\"{agent}}} and on (job, instance, system, requirement, service) {trusted}"
            )
        };
        // Senders are added up, and of witnesses, who may see the same, the one that saw most is taken.
        let flows = |metric: &str, outcome: &str| {
            let of = |vantage: &str| {
                format!(
                    "sum by (job, instance, system, requirement, service) ({metric}{{system!=\"\"{outcome}{agent}}}) and on (job, \
                     instance, system, requirement, service) {vantage}"
                )
            };
            let senders = format!(
                "flowproof:requirement_vantage:known{{vantage=~\"initiator|both\"{joined}}}"
            );
            let witnesses =
                format!("flowproof:requirement_vantage:witness{{system!=\"\"{joined}}}");
            format!(
                "sum by (system, requirement, service) ({}) or max by (system, requirement, service) ({})",
                of(&senders),
                of(&witnesses)
            )
        };
        vec![
            format!("flowproof:requirement_finding:current{{system!=\"\"{joined}}}"),
            format!("flowproof:requirement_vantage:known{{system!=\"\"{joined}}}"),
            trusted.clone(),
            format!("flowproof:requirement_failed:timestamp_seconds{{system!=\"\"{joined}}}"),
            moment("flowproof_requirement_last_attempt_timestamp_seconds"),
            moment("flowproof_requirement_last_answered_timestamp_seconds"),
            flows("flowproof_requirement_attempts_total", ""),
            flows("flowproof_requirement_flows_total", ",outcome=\"answered\""),
            flows(
                "flowproof_requirement_flows_total",
                ",outcome=~\"refused|prohibited|unreachable|no_answer|dropped_here\"",
            ),
            format!("sum by (stage) (flowproof_lost_total{{stage!=\"\"{agent}}}) > 0"),
            format!(
                "max by (from, to, service) (flowproof_unexpected_flows_total{{from!=\"\"{agent}}}) > 0"
            ),
            format!("min by (instance) (up{{job=~\".*flowproof.*\"{agent}}})"),
            format!("count(flowproof_requirement_state{{system!=\"\"{agent}}})"),
        ]
    }
}

/// What the answers say.
struct Told {
    samples: Samples,
    lost: Vec<(String, u64)>,
    unexpected: Vec<Counted>,
    /// Whether each is up.
    agents: BTreeMap<String, bool>,
    /// Whether there are states of requirements at all.
    states: bool,
}

impl Told {
    fn new(answers: Vec<Answer>) -> Self {
        let mut answers = answers.into_iter().map(|answer| answer.samples);
        let mut next = || answers.next().unwrap_or_default();
        let samples = Samples {
            findings: next(),
            known: next(),
            trusted: next(),
            failed: next(),
            attempts: next(),
            answers: next(),
            flows: [next(), next(), next()],
        };
        let label = |sample: &Sample, name: &str| sample.0.get(name).cloned().unwrap_or_default();
        Self {
            samples,
            lost: next()
                .iter()
                .map(|sample| (label(sample, "stage"), fleet::count(sample.1)))
                .collect(),
            unexpected: next()
                .iter()
                .map(|sample| Counted {
                    from: label(sample, "from"),
                    to: label(sample, "to"),
                    service: label(sample, "service"),
                    flows: fleet::count(sample.1),
                })
                .collect(),
            agents: next()
                .iter()
                .map(|sample| (label(sample, "instance"), sample.1 > 0.0))
                .collect(),
            states: !next().is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_narrowed_by_labels_and_site() {
        let all = Questions::new(Some("cluster=\"eu\""), Some("h\"q")).all();
        assert_eq!(all.len(), 13);
        assert_eq!(
            all[0],
            "flowproof:requirement_finding:current{system!=\"\",cluster=\"eu\",site=\"h\\\"q\"}"
        );
        assert!(
            all.iter().all(|query| query.contains("cluster=\"eu\"")),
            "{all:?}"
        );
        assert!(!all[11].contains("site="), "{}", all[11]);
        assert_eq!(
            Questions::new(None, None).all()[1],
            "flowproof:requirement_vantage:known{system!=\"\"}"
        );
    }

    #[test]
    fn agents_that_are_down_are_named() {
        let agents = (0..12)
            .map(|number| (format!("a{number:02}"), number == 0))
            .collect();
        let notes = notes(&agents, &["partial".to_owned()]);
        assert_eq!(
            notes[0],
            "12 agent(s), of which 11 can't be scraped: a01, a02, a03, a04, a05, a06, a07, a08, a09, a10 and 1 more"
        );
        assert!(notes[2].contains("partial"));
    }
}
