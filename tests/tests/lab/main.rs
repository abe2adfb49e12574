//! The daemon in a lab: real interfaces, real packets, both back ends held to the same answers.

mod counts;
mod draft;
mod drops;
mod ending;
mod events;
mod flood;
mod interfaces;
mod ledger;
mod names;
mod privilege;
mod probe;
mod receivers;
mod reload;
mod replay;
mod report;
mod scrape;
mod story;
mod vantage;
mod verdicts;

use std::time::Duration;

use flowproof_tests::daemon::Daemon;
use flowproof_tests::metrics::Metrics;

/// The system of every matrix here.
const SYSTEM: &str = "lab";

/// Flows begun for a requirement's service.
fn attempts(metrics: &Metrics, requirement: &str, service: &str) -> u64 {
    metrics.count(
        "flowproof_requirement_attempts_total",
        &[
            ("system", SYSTEM),
            ("requirement", requirement),
            ("service", service),
        ],
    )
}

/// Flows of a requirement's service that were decided so.
fn decided(metrics: &Metrics, requirement: &str, service: &str, outcome: &str) -> u64 {
    metrics.count(
        "flowproof_requirement_flows_total",
        &[
            ("system", SYSTEM),
            ("requirement", requirement),
            ("service", service),
            ("outcome", outcome),
        ],
    )
}

/// Packets and bytes of a requirement's service in one direction.
fn traffic(metrics: &Metrics, requirement: &str, service: &str, direction: &str) -> (u64, u64) {
    let labels = [
        ("system", SYSTEM),
        ("requirement", requirement),
        ("service", service),
        ("direction", direction),
    ];
    (
        metrics.count("flowproof_requirement_packets_total", &labels),
        metrics.count("flowproof_requirement_bytes_total", &labels),
    )
}

/// Waits until `read` gives `expected`, for at most 5 s (libpcap hands packets over in blocks), and asserts it.
#[track_caller]
fn assert_soon<T: PartialEq + std::fmt::Debug>(
    daemon: &Daemon,
    what: &str,
    expected: &T,
    read: impl Fn(&Metrics) -> T,
) {
    let scraped = daemon.wait_metrics(Duration::from_secs(5), |metrics| read(metrics) == *expected);
    match scraped {
        Ok((metrics, true)) => drop(metrics),
        Ok((metrics, false)) => assert_eq!(
            read(&metrics),
            *expected,
            "{what}\n{}{}",
            metrics.show("flowproof_requirement_flows_total", &[]),
            metrics.show("flowproof_lost_total", &[])
        ),
        Err(error) => panic!("{what}: {error:#}"),
    }
}
