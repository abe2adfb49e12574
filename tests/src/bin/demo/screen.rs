//! What the demo shows: the rows of the matrix with what became of them, made from one scrape.

use std::fmt::Write as _;

use flowproof_tests::metrics::{Metrics, Sample};

/// Outcomes of the flows of one row that want a word.
const REMARKS: [(&str, &str); 6] = [
    ("one_way", "sent without error; nobody owes an answer"),
    ("no_answer", "no answer: silence between here and the peer"),
    ("refused", "refused by the peer"),
    ("prohibited", "prohibited by a filter on the way"),
    ("unreachable", "unreachable"),
    ("dropped_here", "dropped by this host"),
];

fn label<'a>(sample: &'a Sample, name: &str) -> &'a str {
    sample.labels.get(name).map_or("", String::as_str)
}

/// The role without its system, which is the same in every row.
fn short(role: &str) -> &str {
    role.rsplit('/').next().unwrap_or(role)
}

/// The table of the matrix' rows.
pub(crate) fn rows(metrics: &Metrics) -> String {
    let mut table = vec![
        [
            "REQUIREMENT",
            "FROM -> TO",
            "SERVICE",
            "STATE",
            "FLOWS",
            "PACKETS",
            "",
        ]
        .map(str::to_owned),
    ];
    for info in metrics.matching("flowproof_requirement_info", &[]) {
        let requirement = label(info, "requirement");
        let system = label(info, "system");
        let of_row = [("system", system), ("requirement", requirement)];
        let mut services: Vec<&str> = metrics
            .matching("flowproof_requirement_attempts_total", &of_row)
            .map(|sample| label(sample, "service"))
            .collect();
        services.sort_unstable();
        for service in services {
            let labels = [of_row[0], of_row[1], ("service", service)];
            let any = |outcome: &str| {
                let labels = [labels[0], labels[1], labels[2], ("outcome", outcome)];
                metrics.sum("flowproof_requirement_flows_total", &labels) > 0.0
            };
            let state = metrics
                .matching("flowproof_requirement_state", &labels)
                .find(|sample| sample.value > 0.0)
                .map_or("", |sample| label(sample, "state"));
            let remarks: Vec<&str> = REMARKS
                .iter()
                .filter(|(outcome, _)| any(outcome))
                .map(|(_, words)| *words)
                .collect();
            let attempts = metrics.sum("flowproof_requirement_attempts_total", &labels);
            table.push([
                requirement.to_owned(),
                format!(
                    "{} -> {}",
                    short(label(info, "from")),
                    short(label(info, "to"))
                ),
                service.to_owned(),
                state.to_owned(),
                attempts.to_string(),
                metrics
                    .sum("flowproof_requirement_packets_total", &labels)
                    .to_string(),
                remarks.join("; "),
            ]);
        }
    }
    align(&table)
}

/// The flows that no row covers.
pub(crate) fn unexpected(metrics: &Metrics) -> String {
    let mut text = String::new();
    for sample in metrics.matching("flowproof_unexpected_flows_total", &[]) {
        if sample.value > 0.0 {
            // Writing to a string can't fail.
            let _ = writeln!(
                text,
                "{} -> {} {}: {} flows",
                short(label(sample, "from")),
                short(label(sample, "to")),
                label(sample, "service"),
                sample.value
            );
        }
    }
    text
}

fn align<const N: usize>(table: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in table {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    table
        .iter()
        .map(|row| {
            let line: String = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}  "))
                .collect();
            format!("{}\n", line.trim_end())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = r#"
flowproof_requirement_info{system="s",requirement="a",from="s/x",to="s/y",necessity="required",section="",row="1"} 1
flowproof_requirement_attempts_total{system="s",requirement="a",service="tcp/1"} 3
flowproof_requirement_state{system="s",requirement="a",service="tcp/1",state="verified"} 0
flowproof_requirement_state{system="s",requirement="a",service="tcp/1",state="blocked"} 1
flowproof_requirement_packets_total{system="s",requirement="a",service="tcp/1",direction="to_responder"} 6
flowproof_requirement_packets_total{system="s",requirement="a",service="tcp/1",direction="to_initiator"} 0
flowproof_requirement_flows_total{system="s",requirement="a",service="tcp/1",outcome="refused"} 3
flowproof_requirement_flows_total{system="s",requirement="a",service="tcp/1",outcome="answered"} 0
flowproof_unexpected_flows_total{from="s/x",to="s/z",service="tcp/2"} 1
flowproof_unexpected_flows_total{from="~other",to="~other",service="~other"} 0
"#;

    #[test]
    fn a_scrape_becomes_a_screen() {
        let metrics = Metrics::parse(SCRAPE).expect("a good scrape");
        assert_eq!(
            rows(&metrics),
            "REQUIREMENT  FROM -> TO  SERVICE  STATE    FLOWS  PACKETS\n\
             a            x -> y      tcp/1    blocked  3      6        refused by the peer\n"
        );
        assert_eq!(unexpected(&metrics), "x -> z tcp/2: 1 flows\n");
    }
}
