//! Collects the findings of one file while it is read.

use std::sync::Arc;

use super::nearest::nearest;
use super::source::{Source, Span};
use crate::finding::{Finding, Findings, Severity};

/// Findings of each severity that one file may have; what goes beyond is counted, so that a hostile file costs no
/// more memory than a large one.
const MOST: usize = 10_000;
/// Proposals that are looked for in one file.
const PROPOSALS: u32 = 200;

/// Collects the findings of one file.
#[derive(Debug)]
pub struct Reporter {
    source: Arc<Source>,
    found: Vec<Finding>,
    counts: [usize; 3],
    proposals_left: u32,
    /// The last place that was worked out.
    last: (u32, (u32, u32)),
}

impl Reporter {
    /// Starts with no findings.
    #[must_use]
    pub fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            found: Vec::new(),
            counts: [0; 3],
            proposals_left: PROPOSALS,
            last: (0, (1, 1)),
        }
    }

    /// The file that is read.
    #[must_use]
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Whether an error was reported.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.counts[slot(Severity::Error)] > 0
    }

    /// Line of a place, from 1, for messages that refer to another one.
    #[must_use]
    pub fn line(&self, span: Span) -> u32 {
        self.source.line_of(span.offset)
    }

    /// Reports that the file can't be used.
    pub fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>) {
        self.report(Severity::Error, code, span, message.into());
    }

    /// Reports something that the author hardly meant.
    pub fn warning(&mut self, code: &'static str, span: Span, message: impl Into<String>) {
        self.report(Severity::Warning, code, span, message.into());
    }

    /// Reports something that the file leaves open.
    pub fn note(&mut self, code: &'static str, span: Span, message: impl Into<String>) {
        self.report(Severity::Note, code, span, message.into());
    }

    /// `", did you mean `x`?"`, or an empty text where nothing known is near.
    pub fn proposal<'a>(&mut self, text: &str, known: impl IntoIterator<Item = &'a str>) -> String {
        let Some(left) = self.proposals_left.checked_sub(1) else {
            return String::new();
        };
        self.proposals_left = left;
        nearest(text, known).map_or_else(String::new, |near| format!(", did you mean `{near}`?"))
    }

    /// Ends the file: its findings in the order of their places.
    #[must_use]
    pub fn finish(mut self) -> Findings {
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            let more = self.counts[slot(severity)].saturating_sub(MOST);
            if more > 0 {
                let end = Span {
                    offset: u32::try_from(self.source.text().len()).unwrap_or(u32::MAX),
                    length: 0,
                };
                let message =
                    format!("{more} further findings of severity {severity} are not listed");
                self.push(severity, "too-many-findings", end, message);
            }
        }
        let mut findings = Findings::default();
        findings.extend_from(&self.source, self.found);
        findings
    }

    fn report(&mut self, severity: Severity, code: &'static str, span: Span, message: String) {
        let count = &mut self.counts[slot(severity)];
        *count += 1;
        if *count <= MOST {
            self.push(severity, code, span, message);
        }
    }

    fn push(&mut self, severity: Severity, code: &'static str, span: Span, message: String) {
        let (line, column) = self.source.position_from(self.last, span.offset);
        self.last = (span.offset, (line, column));
        self.found.push(Finding {
            severity,
            code,
            file: self.source.name().to_owned(),
            line,
            column,
            message,
            offset: span.offset,
            length: span.length,
        });
    }
}

const fn slot(severity: Severity) -> usize {
    match severity {
        Severity::Error => 0,
        Severity::Warning => 1,
        Severity::Note => 2,
    }
}
