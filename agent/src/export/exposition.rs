//! The Prometheus text format, version 0.0.4, written straight away.
//!
//! The library's encoder wants every sample as a message of its own with all labels as strings of their own: about ten
//! allocations a series, and a matrix of 100,000 rows has more than two million. Here a series is a few copies into one text. A
//! test holds it to the library's encoder, byte by byte.

use std::fmt::Write as _;

/// What a family's samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Summary,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
        }
    }
}

/// Families one behind the other.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Adds a family, unless it is without series (no requirement, no interface): the format has no way to write that.
    pub(super) fn push(&mut self, family: Family) {
        if !family.samples.is_empty() {
            self.head(family.name, family.help, family.kind);
            self.text.push_str(&family.samples);
        }
    }

    /// Writes a family in place, for those with a great many series; the same for those without.
    pub(super) fn write(
        &mut self,
        (name, help, kind): (&'static str, &str, Kind),
        samples: impl FnOnce(&mut Samples<'_>),
    ) {
        let before = self.text.len();
        self.head(name, help, kind);
        let start = self.text.len();
        let text = &mut self.text;
        samples(&mut Samples { name, text });
        if self.text.len() == start {
            self.text.truncate(before);
        }
    }

    fn head(&mut self, name: &str, help: &str, kind: Kind) {
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        escaped(&mut self.text, help, false);
        self.text.push_str("\n# TYPE ");
        self.text.push_str(name);
        self.text.push(' ');
        self.text.push_str(kind.name());
        self.text.push('\n');
    }

    /// What was written.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// A family while its series are added.
#[derive(Debug)]
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: String,
}

impl Family {
    pub(super) fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Counter)
    }

    pub(super) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Gauge)
    }

    pub(super) fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self {
            name,
            help,
            kind,
            samples: String::new(),
        }
    }

    pub(super) fn push(&mut self, labels: &[(&str, &str)], value: f64) {
        let text = &mut self.samples;
        text.push_str(self.name);
        if !labels.is_empty() {
            text.push('{');
            write_labels(text, labels);
            text.push('}');
        }
        write_value(text, value);
    }

    /// Adds a summary without quantiles.
    pub(super) fn push_summary(&mut self, sum: f64, count: f64) {
        for (part, value) in [("_sum", sum), ("_count", count)] {
            self.samples.push_str(self.name);
            self.samples.push_str(part);
            write_value(&mut self.samples, value);
        }
    }
}

/// Where the series of a family are written.
#[derive(Debug)]
pub(super) struct Samples<'a> {
    name: &'static str,
    text: &'a mut String,
}

impl Samples<'_> {
    /// Adds a series with labels as [`write_labels`] writes them, and more behind.
    pub(super) fn push(&mut self, written: &str, more: &[(&str, &str)], value: f64) {
        self.text.push_str(self.name);
        self.text.push('{');
        self.text.push_str(written);
        if !more.is_empty() {
            self.text.push(',');
            write_labels(self.text, more);
        }
        self.text.push('}');
        write_value(self.text, value);
    }
}

/// Writes labels as they stand between the braces.
pub(super) fn write_labels(text: &mut String, labels: &[(&str, &str)]) {
    for (position, (name, value)) in labels.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        escaped(text, value, true);
        text.push('"');
    }
}

fn write_value(text: &mut String, value: f64) {
    // Nearly all series of a large matrix are one of these.
    if value.to_bits() == 0 {
        text.push_str(" 0\n");
    } else if value.to_bits() == 1_f64.to_bits() {
        text.push_str(" 1\n");
    } else {
        // Writing to a string can't fail.
        let _ = writeln!(text, " {value}");
    }
}

fn escaped(text: &mut String, value: &str, quotes: bool) {
    let special = |byte: &u8| matches!(byte, b'\\' | b'\n') || (quotes && *byte == b'"');
    if !value.as_bytes().iter().any(special) {
        text.push_str(value);
        return;
    }
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;
    use prometheus::proto;
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "flowproof_x_total";
    const HELP: &str = "A \"help\"\\ of\nthis.";

    fn by_library(kind: Kind, samples: &[(Vec<(String, String)>, f64)]) -> String {
        let mut family = proto::MetricFamily::default();
        family.set_name(NAME.to_owned());
        family.set_help(HELP.to_owned());
        family.set_field_type(match kind {
            Kind::Counter => proto::MetricType::COUNTER,
            Kind::Gauge => proto::MetricType::GAUGE,
            Kind::Summary => proto::MetricType::SUMMARY,
        });
        let metrics = samples.iter().map(|(labels, value)| {
            let labels = labels.iter().map(|(name, value)| {
                let mut pair = proto::LabelPair::default();
                pair.set_name(name.clone());
                pair.set_value(value.clone());
                pair
            });
            let mut metric = proto::Metric::from_label(labels.collect());
            match kind {
                Kind::Counter => {
                    let mut counter = proto::Counter::default();
                    counter.set_value(*value);
                    metric.set_counter(counter);
                }
                Kind::Gauge => {
                    let mut gauge = proto::Gauge::default();
                    gauge.set_value(*value);
                    metric.set_gauge(gauge);
                }
                Kind::Summary => {
                    let mut summary = proto::Summary::default();
                    summary.set_sample_sum(*value);
                    summary.set_sample_count(7);
                    metric.set_summary(summary);
                }
            }
            metric
        });
        family.set_metric(metrics.collect());
        TextEncoder::new().encode_to_string(&[family]).unwrap()
    }

    #[test]
    fn a_summary_is_what_the_library_writes() {
        let mut family = Family::new(NAME, HELP, Kind::Summary);
        family.push_summary(0.25, 7.0);
        let mut all = Exposition::default();
        all.push(family);
        assert_eq!(all.finish(), by_library(Kind::Summary, &[(vec![], 0.25)]));
    }

    #[test]
    fn a_family_without_series_is_left_out() {
        let mut all = Exposition::default();
        all.push(Family::gauge(NAME, HELP));
        all.write((NAME, HELP, Kind::Gauge), |_| {});
        assert_eq!(all.finish(), "");
    }

    mod properties {
        use super::*;

        proptest! {
            #[test]
            fn it_is_what_the_library_writes(
                samples in prop::collection::vec(
                    (
                        prop::collection::vec(("[a-z_]{1,8}", "[a-z\"\\\\\n\u{e9}/ ]{0,8}"), 0..4),
                        prop_oneof![
                            Just(0.0),
                            Just(-0.0),
                            Just(1.0),
                            any::<f64>(),
                            (0_u64..1 << 60).prop_map(|number| number as f64),
                            (0_u64..1 << 53).prop_map(|number| number as f64 / 1_000.0),
                        ],
                    ),
                    1..8,
                ),
                gauge: bool,
            ) {
                let kind = if gauge { Kind::Gauge } else { Kind::Counter };
                let mut family = Family::new(NAME, HELP, kind);
                for (labels, value) in &samples {
                    let labels: Vec<_> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
                    family.push(&labels, *value);
                }
                let mut all = Exposition::default();
                all.push(family);
                prop_assert_eq!(all.finish(), by_library(kind, &samples));

                // In place, the first label written beforehand.
                let some: Vec<_> = samples.into_iter().filter(|(labels, _)| !labels.is_empty()).collect();
                if !some.is_empty() {
                    let mut all = Exposition::default();
                    all.write((NAME, HELP, kind), |out| {
                        for (labels, value) in &some {
                            let labels: Vec<_> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
                            let mut first = String::new();
                            write_labels(&mut first, &labels[..1]);
                            out.push(&first, &labels[1..], *value);
                        }
                    });
                    prop_assert_eq!(all.finish(), by_library(kind, &some));
                }
            }
        }
    }
}
