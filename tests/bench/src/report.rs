//! What was found, as a table at the terminal and as `docs/performance.md`.
//!
//! What bounds a figure is no measurement and can't come from one: those words stand in `notes.md` beside this crate,
//! under the row's name, and are put where the row is shown, so that a rerun keeps them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::measure::Samples;

/// A figure that is the least or the most that is to be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// It shall be at most so much.
    AtMost(f64),
    /// It shall be at least so much.
    AtLeast(f64),
}

impl Target {
    /// Whether a figure reaches it.
    pub(crate) fn is_reached(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// What was measured, e.g. `replay/cut/flowproof`; unique.
    pub(crate) name: String,
    /// In words.
    pub(crate) what: String,
    /// Run by run.
    pub(crate) samples: Samples,
    /// Of the samples: `ns`, `packets/s`, `times`, ...
    pub(crate) unit: &'static str,
    /// What is asked of the median.
    pub(crate) target: Option<Target>,
}

/// All rows of a bench.
#[derive(Debug, Clone, Default)]
pub(crate) struct Section {
    /// Heading.
    pub(crate) title: &'static str,
    /// How it was measured: commands and conditions.
    pub(crate) how: Vec<String>,
    /// In the order of the table.
    pub(crate) rows: Vec<Row>,
    /// What could not be measured, and why.
    pub(crate) missing: Vec<String>,
}

impl Section {
    /// Without rows.
    pub(crate) fn new(title: &'static str) -> Self {
        Self {
            title,
            ..Self::default()
        }
    }

    /// Says how something was measured.
    pub(crate) fn how(&mut self, text: impl Into<String>) {
        self.how.push(text.into());
    }

    /// Says what could not be measured.
    pub(crate) fn lack(&mut self, text: impl Into<String>) {
        self.missing.push(text.into());
    }

    /// Adds a row; without samples it is left out.
    pub(crate) fn row(
        &mut self,
        name: impl Into<String>,
        what: impl Into<String>,
        samples: Samples,
        unit: &'static str,
        target: Option<Target>,
    ) {
        if samples.is_empty() {
            return;
        }
        self.rows.push(Row {
            name: name.into(),
            what: what.into(),
            samples,
            unit,
            target,
        });
    }
}

/// Words under the names of rows.
#[derive(Debug, Default)]
pub(crate) struct Notes(BTreeMap<String, String>);

impl Notes {
    /// Reads Markdown: `## NAME`, then the words. What comes before the first name is for those who write it.
    pub(crate) fn parse(text: &str) -> Self {
        let mut notes = BTreeMap::<String, String>::new();
        let mut name = None;
        for line in text.lines() {
            if let Some(next) = line.strip_prefix("## ") {
                name = Some(next.trim().to_owned());
            } else if let Some(name) = &name {
                let words = notes.entry(name.clone()).or_default();
                words.push_str(line);
                words.push('\n');
            }
        }
        Self(
            notes
                .into_iter()
                .map(|(name, words)| (name, words.trim().to_owned()))
                .filter(|(_, words)| !words.is_empty())
                .collect(),
        )
    }

    /// The words of a row.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// A figure with as many digits as mean something.
pub(crate) fn figure(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        "-".to_owned()
    } else if size >= 10_000.0 {
        grouped(value)
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// Digits in groups of three.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits.as_str()),
    };
    let mut text = String::from(sign);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn asked(target: Option<Target>) -> String {
    match target {
        None => String::new(),
        Some(Target::AtMost(most)) => format!("at most {}", figure(most)),
        Some(Target::AtLeast(least)) => format!("at least {}", figure(least)),
    }
}

fn reached(row: &Row) -> &'static str {
    match row.target {
        None => "",
        Some(target) if target.is_reached(row.samples.median()) => "yes",
        Some(_) => "**no**",
    }
}

/// A section for the terminal.
pub(crate) fn terminal(section: &Section) -> String {
    let mut text = format!("\n{}\n", section.title);
    let wide = section
        .rows
        .iter()
        .map(|row| row.what.chars().count())
        .max()
        .unwrap_or(0);
    for row in &section.rows {
        let (least, greatest) = row.samples.spread();
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "  {:wide$}  {:>12} {:<10} ({} to {}){}",
            row.what,
            figure(row.samples.median()),
            row.unit,
            figure(least),
            figure(greatest),
            match row.target {
                None => String::new(),
                Some(_) => format!(
                    "  {}: {}",
                    asked(row.target),
                    reached(row).trim_matches('*')
                ),
            },
        );
    }
    for lack in &section.missing {
        let _ = writeln!(text, "  not measured: {lack}");
    }
    text
}

/// The document: the targets first, then everything.
pub(crate) fn document(machine: &[String], sections: &[Section], notes: &Notes) -> String {
    let mut text = "# Performance\n\n\
        Written by `cargo xtask bench`; do not edit. Ratios are between runs that took turns on one machine; absolute times\n\
        are noise elsewhere. Figures are medians, with the least and the greatest run. What bounds a figure that misses its\n\
        target stands in `tests/bench/notes.md` and is repeated here.\n\n"
        .to_owned();
    for line in machine {
        let _ = writeln!(text, "- {line}");
    }
    text.push_str("\n## Targets\n\n| what | target | median | reached |\n|---|---|---|---|\n");
    let with_target = || {
        sections
            .iter()
            .flat_map(|section| &section.rows)
            .filter(|row| row.target.is_some())
    };
    for row in with_target() {
        let _ = writeln!(
            text,
            "| {} | {} {} | {} | {} |",
            row.what,
            asked(row.target),
            row.unit,
            figure(row.samples.median()),
            reached(row)
        );
    }
    let missed: Vec<_> = with_target()
        .filter(|row| {
            row.target
                .is_some_and(|target| !target.is_reached(row.samples.median()))
        })
        .collect();
    if !missed.is_empty() {
        text.push_str("\n### What bounds those that are missed\n\n");
        for row in missed {
            let words = notes
                .get(&row.name)
                .unwrap_or("not looked into yet")
                .replace('\n', " ");
            let _ = writeln!(text, "- {}: {words}", row.what);
        }
    }
    for section in sections {
        let _ = writeln!(text, "\n## {}\n", section.title);
        for line in &section.how {
            let _ = writeln!(text, "- {line}");
        }
        if !section.how.is_empty() {
            text.push('\n');
        }
        if !section.rows.is_empty() {
            text.push_str(
                "| what | median | unit | least | greatest | runs |\n|---|---|---|---|---|---|\n",
            );
        }
        for row in &section.rows {
            let (least, greatest) = row.samples.spread();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                row.what,
                figure(row.samples.median()),
                row.unit,
                figure(least),
                figure(greatest),
                row.samples.runs()
            );
        }
        for lack in &section.missing {
            let _ = writeln!(text, "\nNot measured: {lack}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_or_all() {
        for (value, expect) in [
            (0.123_4, "0.12"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1234.5, "1234"),
            (1_234_567.0, "1,234,567"),
            (-10_000.0, "-10,000"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(figure(value), expect);
        }
    }

    #[test]
    fn notes_stand_under_names() {
        let notes =
            Notes::parse("# For you\nwords\n## a/b\nfirst\nsecond\n\n## empty\n## c\nthird\n");
        assert_eq!(notes.get("a/b"), Some("first\nsecond"));
        assert_eq!(notes.get("c"), Some("third"));
        assert_eq!(notes.get("empty"), None);
    }

    fn section() -> Section {
        let mut section = Section::new("Things");
        section.how("by hand");
        let samples = |values: &[f64]| values.iter().copied().collect::<Samples>();
        section.row(
            "a",
            "good",
            samples(&[1.0, 2.0, 3.0]),
            "ns",
            Some(Target::AtMost(2.0)),
        );
        section.row(
            "b",
            "bad",
            samples(&[1.0]),
            "times",
            Some(Target::AtLeast(5.0)),
        );
        section.row("c", "plain", samples(&[7.0]), "ns", None);
        section.row("d", "nothing", Samples::default(), "ns", None);
        section.lack("argus: not installed");
        section
    }

    #[test]
    fn the_document_says_what_is_missed_and_why() {
        let text = document(
            &["one machine".to_owned()],
            &[section()],
            &Notes::parse("## b\nthe moon\nis full\n"),
        );
        assert!(
            text.contains("| good | at most 2.00 ns | 2.00 | yes |"),
            "{text}"
        );
        assert!(
            text.contains("| bad | at least 5.00 times | 1.00 | **no** |"),
            "{text}"
        );
        assert!(text.contains("- bad: the moon is full\n"), "{text}");
        assert!(!text.contains("- good:"), "{text}");
        assert!(
            text.contains("| plain | 7.00 | ns | 7.00 | 7.00 | 1 |"),
            "{text}"
        );
        assert!(
            text.contains("Not measured: argus: not installed"),
            "{text}"
        );
        assert!(!text.contains("nothing"), "{text}");
    }
}
