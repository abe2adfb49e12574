//! Metrics about the daemon itself: what its process takes, and how long it takes to look around and to answer a scrape.
//! They stand after all others and are made apart from them, because no view of the traffic is needed for them.

use super::exposition::{Exposition, Family, Kind};
use super::metrics::number;
use super::process::Process;
use super::tally::Spent;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Own {
    /// The process.
    pub process: Process,
    /// Rounds: asking the capture thread and judging what it says.
    pub rounds: Spent,
    /// Scrapes before this one.
    pub scrapes: Spent,
}

/// The metrics in the Prometheus text format, version 0.0.4.
#[must_use]
pub fn text(own: &Own) -> String {
    let mut families = Exposition::default();
    for family in [
        summary(
            "flowproof_round_duration_seconds",
            "Time that looking around took: asking the capture thread for all totals and judging them, once a second and for each scrape. If it nears a second, the matrix is large for this host: give it more processor time.",
            own.rounds,
        ),
        summary(
            "flowproof_scrape_duration_seconds",
            "Time that scrapes of /metrics took, with the look that each takes, without sending the answer; this one is not among them. If it nears scrape_timeout, raise that.",
            own.scrapes,
        ),
    ] {
        families.push(family);
    }
    let process = &own.process;
    let counter = Kind::Counter;
    let gauge = Kind::Gauge;
    for (name, help, kind, value) in [
        (
            "process_cpu_seconds_total",
            "Processor time that the daemon used, of its own and in the system, in seconds.",
            counter,
            process.cpu_seconds,
        ),
        (
            "process_open_fds",
            "Open file descriptors.",
            gauge,
            process.open_fds,
        ),
        (
            "process_max_fds",
            "File descriptors that the daemon may have (LimitNOFILE).",
            gauge,
            process.max_fds,
        ),
        (
            "process_virtual_memory_bytes",
            "Virtual memory; mapped tables and files are part of it.",
            gauge,
            process.virtual_bytes,
        ),
        (
            "process_resident_memory_bytes",
            "Memory that is in use. Maps of the kernel programs are the kernel's, and not in it.",
            gauge,
            process.resident_bytes,
        ),
        ("process_threads", "Threads.", gauge, process.threads),
        (
            "process_start_time_seconds",
            "When the daemon began, in seconds since the Unix epoch.",
            gauge,
            process.start_seconds,
        ),
    ] {
        let Some(value) = value else { continue };
        let mut family = Family::new(name, help, kind);
        family.push(&[], value);
        families.push(family);
    }
    families.finish()
}

fn summary(name: &'static str, help: &'static str, spent: Spent) -> Family {
    let mut family = Family::new(name, help, Kind::Summary);
    family.push_summary(spent.time.as_secs_f64(), number(spent.count));
    family
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    /// With every series.
    pub(in crate::export) fn all() -> Own {
        Own {
            process: Process {
                cpu_seconds: Some(1.25),
                resident_bytes: Some(3e7),
                virtual_bytes: Some(2e8),
                open_fds: Some(30.0),
                max_fds: Some(1_024.0),
                threads: Some(8.0),
                start_seconds: Some(1_700_000_000.25),
            },
            rounds: Spent {
                count: 60,
                time: Duration::from_millis(90),
            },
            scrapes: Spent {
                count: 4,
                time: Duration::from_millis(30),
            },
        }
    }

    #[test]
    fn what_the_system_does_not_tell_has_no_series() {
        let text = text(&Own::default());
        assert!(!text.contains("process_"), "{text}");
        for series in [
            "flowproof_round_duration_seconds_sum 0\n",
            "flowproof_scrape_duration_seconds_count 0\n",
        ] {
            assert!(text.contains(series), "{text}");
        }
    }
}
