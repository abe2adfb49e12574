//! Reads the Prometheus text format (version 0.0.4) so that tests can ask for single series.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};

/// One line: a series and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// One scrape.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    /// In the order of the text.
    pub samples: Vec<Sample>,
}

impl Metrics {
    /// Reads a whole scrape.
    ///
    /// # Errors
    /// A line that the format doesn't allow, or the same series twice.
    pub fn parse(text: &str) -> Result<Self> {
        let mut samples: Vec<Sample> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let sample = parse_line(line).with_context(|| format!("no sample: {line}"))?;
            if !seen.insert((sample.name.clone(), sample.labels.clone())) {
                bail!("the series is given twice: {line}");
            }
            samples.push(sample);
        }
        Ok(Self { samples })
    }

    /// The samples of `name` that carry all of `labels`.
    pub fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|is| is == value))
        })
    }

    /// The sum over the series of `name` that carry all of `labels`; 0 if there are none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// [`Metrics::sum`] as a count.
    ///
    /// # Panics
    /// When the sum is no whole number, or negative.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked just before"
    )]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum = self.sum(name, labels);
        assert!(
            sum >= 0.0 && sum.fract() == 0.0 && sum < 9e15,
            "{name}{labels:?} is no count: {sum}"
        );
        sum as u64
    }

    /// Whether a series of `name` that carries all of `labels` exists.
    #[must_use]
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// Lines that a failed assertion shows: every series of `name` that carries all of `labels` and isn't 0.
    #[must_use]
    pub fn show(&self, name: &str, labels: &[(&str, &str)]) -> String {
        self.matching(name, labels)
            .filter(|sample| sample.value != 0.0)
            .map(|sample| format!("{}{:?} {}\n", sample.name, sample.labels, sample.value))
            .collect()
    }
}

fn parse_line(line: &str) -> Option<Sample> {
    let name_end = line.find(['{', ' '])?;
    let name = line.get(..name_end)?;
    let mut rest = line.get(name_end..)?;
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if labels.insert(key.to_owned(), value).is_some() {
                return None;
            }
            rest = after.strip_prefix(',').unwrap_or(after);
        }
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// The text up to the closing quote with its escapes resolved, and what follows the quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    const SCRAPE: &str = "# HELP a_total What it counts\n# TYPE a_total counter\n\
        a_total{x=\"1\",y=\"say \\\"hi\\\", {a}\\\\\"} 3\na_total{x=\"2\",y=\"\"} 4e0 1700000000\nb 0.5\n";

    #[test]
    fn series_are_found_by_labels() {
        let metrics = Metrics::parse(SCRAPE).expect("a good scrape");
        assert_eq!(metrics.count("a_total", &[]), 7);
        assert_eq!(metrics.count("a_total", &[("x", "2")]), 4);
        assert_eq!(metrics.count("a_total", &[("y", "say \"hi\", {a}\\")]), 3);
        assert!(metrics.has("b", &[]) && !metrics.has("b", &[("x", "1")]));
        assert_eq!(metrics.count("c", &[]), 0);
    }

    #[test]
    fn bad_scrapes_are_refused() {
        for text in [
            "a{x=\"1\" 3",
            "a",
            "a{x=\"1\"} b",
            "a 1\na 2",
            "a{x=\"1\",x=\"2\"} 1",
        ] {
            assert!(Metrics::parse(text).is_err(), "{text}");
        }
    }
}
