//! Shows findings to people: the line of the file, with the offending text marked.

use std::fmt;
use std::io::{self, Write};

use miette::{
    Diagnostic, GraphicalReportHandler, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents,
};

use crate::finding::{Finding, Findings, Severity};
use crate::plural::counted;

/// Bytes of a line that are shown on either side of the offending text's beginning: a whole file may be one line.
const AROUND: usize = 100;

/// Writes all findings, and a line that counts them.
pub(super) fn write(findings: &Findings, out: &mut dyn Write) -> io::Result<()> {
    let handler = GraphicalReportHandler::new()
        .with_wrap_lines(false)
        .with_context_lines(0)
        .without_syntax_highlighting();
    for finding in findings.as_slice() {
        match finding.severity {
            Severity::Error | Severity::Warning => {
                let mut text = String::new();
                let rendered = handler.render_report(&mut text, &Snippet::new(findings, finding));
                if rendered.is_ok() {
                    writeln!(out, "{}", text.trim_matches('\n'))?;
                } else {
                    writeln!(out, "{}", visible(&finding.to_string()))?;
                }
            }
            Severity::Note => writeln!(out, "{}", visible(&finding.to_string()))?,
        }
    }
    if !findings.is_empty() {
        writeln!(
            out,
            "{}, {}, {}",
            counted(findings.count(Severity::Error), "error"),
            counted(findings.count(Severity::Warning), "warning"),
            counted(findings.count(Severity::Note), "note"),
        )?;
    }
    Ok(())
}

/// Control bytes from a file must not reach the terminal. Lengths in bytes stay the same.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            shown.extend(std::iter::repeat_n('?', character.len_utf8()));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A finding with its line of the file, as miette wants it.
#[derive(Debug)]
struct Snippet<'a> {
    finding: &'a Finding,
    message: String,
    excerpt: Excerpt,
    label: SourceSpan,
}

/// A part of one line that knows its place in the file.
#[derive(Debug)]
struct Excerpt {
    file: String,
    text: String,
    line: usize,
    column: usize,
}

impl<'a> Snippet<'a> {
    fn new(findings: &Findings, finding: &'a Finding) -> Self {
        let (line, start) = findings
            .source(finding)
            .and_then(|source| source.line(finding.line))
            .unwrap_or_default();
        let at = (finding.offset.saturating_sub(start) as usize).min(line.len());
        let first = line.floor_char_boundary(at.saturating_sub(AROUND));
        let last = line.ceil_char_boundary(at.saturating_add(AROUND).min(line.len()));
        let label = (at - first, (finding.length as usize).min(last - at));
        Self {
            finding,
            message: visible(&finding.message),
            excerpt: Excerpt {
                file: visible(&finding.file),
                text: visible(line.get(first..last).unwrap_or_default()),
                line: finding.line.saturating_sub(1) as usize,
                column: finding.column.saturating_sub(1) as usize,
            },
            label: label.into(),
        }
    }
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        _span: &SourceSpan,
        _context_lines_before: usize,
        _context_lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        Ok(Box::new(MietteSpanContents::new_named(
            self.file.clone(),
            self.text.as_bytes(),
            (0, self.text.len()).into(),
            self.line,
            self.column,
            1,
        )))
    }
}

impl fmt::Display for Snippet<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Snippet<'_> {}

impl Diagnostic for Snippet<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!(
            "{}[{}]",
            self.finding.severity, self.finding.code
        )))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.finding.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
            Severity::Note => miette::Severity::Advice,
        })
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.excerpt)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(std::iter::once(
            LabeledSpan::new_primary_with_span(None, self.label),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;

    fn shown(text: &str) -> String {
        let mut out = Vec::new();
        write(&Matrix::read_text("test.yaml", text).findings, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn quotes_the_line() {
        let shown = shown(
            "system: x\ntitle: X\nrequirements:\n  - {id: a, from: any, to: any, services: [tpc/80]}\n",
        );
        for part in [
            "error[bad-service]",
            "test.yaml:4:44",
            "tpc/80",
            "1 error, 0 warnings, 0 notes",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[test]
    fn shows_little_of_a_long_line_and_no_control_bytes() {
        let filler = "ü".repeat(100_000);
        let shown = shown(&format!(
            "{{title: {filler}, sys\u{9b}tem: \"\\e[31m\", x: {filler}}}"
        ));
        assert!(shown.len() < 5_000, "{} bytes", shown.len());
        assert!(
            !shown.chars().any(|c| c.is_control() && c != '\n'),
            "{shown:?}"
        );
    }
}
