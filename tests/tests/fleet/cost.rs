//! What the fleet costs this Prometheus, told by itself. No limit is asserted but a generous one: the figures are for `docs/fleet.md`.

use anyhow::{Context as _, Result, ensure};

use crate::prometheus::Prometheus;

/// Prints what series, scrapes and rules cost; `cargo test -- --nocapture` shows it.
#[expect(clippy::print_stdout, reason = "this is a test's output")]
pub(crate) fn tell(prometheus: &Prometheus) -> Result<()> {
    let one = |expression: &str| -> Result<f64> {
        let samples = prometheus.query(expression)?;
        Ok(samples
            .first()
            .with_context(|| format!("{expression} gives nothing"))?
            .value)
    };
    for (what, expression) in [
        (
            "series in the head",
            "prometheus_tsdb_head_series{job=\"prometheus\"}",
        ),
        (
            "samples of an agent's scrape",
            "max(scrape_samples_scraped{job=\"flowproof\"})",
        ),
        (
            "seconds of a scrape",
            "max(max_over_time(scrape_duration_seconds{job=\"flowproof\"}[1m]))",
        ),
        (
            "seconds of the fleet's rules",
            "max(max_over_time(prometheus_rule_group_last_duration_seconds{rule_group=~\".*rules.yml;flowproof-fleet\"}[1m]))",
        ),
        (
            "bytes of memory",
            "process_resident_memory_bytes{job=\"prometheus\"}",
        ),
        (
            "evaluations that failed",
            "sum(prometheus_rule_evaluation_failures_total)",
        ),
    ] {
        println!("{what}: {}", one(expression)?);
    }
    ensure!(
        one("sum(prometheus_rule_evaluation_failures_total)")? == 0.0,
        "a rule could not be evaluated:\n{}",
        prometheus.log()
    );
    Ok(())
}
