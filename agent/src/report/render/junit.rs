//! A report as JUnit XML, in the form that CI systems have in common: `testsuites` of a suite a system with a case a
//! requirement, and a suite that says whether all traffic was expected.

use std::fmt::Write as _;

use super::escape;
use crate::report::cases::{Ending, of_row, of_unexpected};
use crate::report::model::{FailOn, Report};

/// The report as JUnit XML.
#[must_use]
pub fn render(report: &Report, fail_on: &[FailOn]) -> String {
    let mut suites: Vec<(String, Vec<(String, Ending)>)> = report
        .systems
        .iter()
        .map(|system| {
            let rows = report
                .requirements
                .iter()
                .filter(|row| row.system == system.id);
            let since = report.unwatched_since.as_deref();
            let cases = rows.map(|row| (row.requirement.clone(), of_row(row, since, fail_on)));
            (system.id.clone(), cases.collect())
        })
        .collect();
    suites.push((
        "traffic".to_owned(),
        vec![(
            "all traffic is expected".to_owned(),
            of_unexpected(report, fail_on),
        )],
    ));
    let all = suites.iter().flat_map(|(_, cases)| cases);
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"flowproof\"{}>\n",
        counts(all)
    );
    for (name, cases) in &suites {
        let name = escape(name);
        let timestamp = report
            .until
            .as_deref()
            .map(|until| format!(" timestamp=\"{}\"", escape(&seconds(until))))
            .unwrap_or_default();
        let _ = writeln!(
            out,
            "  <testsuite name=\"{name}\"{}{timestamp}>",
            counts(cases.iter())
        );
        properties(report, &mut out);
        for (case, ending) in cases {
            write_case(&mut out, &name, case, ending);
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// The schema's time is in seconds, without a zone: that of UTC is left out.
fn seconds(time: &str) -> String {
    time.trim_end_matches('Z')
        .split('.')
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn counts<'a>(cases: impl Iterator<Item = &'a (String, Ending)>) -> String {
    let (mut tests, mut failures, mut skipped) = (0_usize, 0_usize, 0_usize);
    for (_, ending) in cases {
        tests += 1;
        match ending {
            Ending::Passed => {}
            Ending::Failed { .. } => failures += 1,
            Ending::Skipped(_) => skipped += 1,
        }
    }
    format!(
        " tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"0\""
    )
}

fn properties(report: &Report, out: &mut String) {
    let losses = report.losses();
    let known = [
        ("source", Some(report.source.as_str())),
        ("site", report.site.as_deref()),
        ("since", report.since.as_deref()),
        ("until", report.until.as_deref()),
        ("unwatched_since", report.unwatched_since.as_deref()),
        ("lost", losses.as_deref()),
    ];
    out.push_str("    <properties>\n");
    let notes = report
        .notes
        .iter()
        .map(|note| ("note", Some(note.as_str())));
    for (name, value) in known.into_iter().chain(notes) {
        if let Some(value) = value {
            let _ = writeln!(
                out,
                "      <property name=\"{name}\" value=\"{}\"/>",
                escape(value)
            );
        }
    }
    out.push_str("    </properties>\n");
}

fn write_case(out: &mut String, suite: &str, name: &str, ending: &Ending) {
    let head = format!(
        "    <testcase classname=\"flowproof.{suite}\" name=\"{}\" time=\"0\"",
        escape(name)
    );
    let _ = match ending {
        Ending::Passed => writeln!(out, "{head}/>"),
        Ending::Skipped(why) => writeln!(
            out,
            "{head}>\n      <skipped message=\"{}\"/>\n    </testcase>",
            escape(why)
        ),
        Ending::Failed {
            kind,
            message,
            details,
        } => writeln!(
            out,
            "{head}>\n      <failure type=\"{kind}\" message=\"{}\">{}</failure>\n    </testcase>",
            escape(message),
            escape(details)
        ),
    };
}
