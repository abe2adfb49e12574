//! What reading a file found: errors, warnings and notes with their place. Readers collect findings instead of
//! stopping at the first one, so that an operator mends a file in one go.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::yaml::Source;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file can't be used.
    Error,
    /// The file can be used, but says something that its author hardly meant.
    Warning,
    /// Worth knowing: what the file leaves open.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// One thing found in a file. Its serialized form is the `findings` contract of `flowproof check --format json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Stable name of the kind of finding, in kebab case.
    pub code: &'static str,
    /// The file as it was named by the caller.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The offending text and the remedy.
    pub message: String,
    /// Byte offset of the offending text in the source.
    #[serde(skip)]
    pub offset: u32,
    /// Length of the offending text in bytes; 0 where a place is meant.
    #[serde(skip)]
    pub length: u32,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}:{}:{}: {}[{}]: {}",
            self.file, self.line, self.column, self.severity, self.code, self.message
        )
    }
}

/// Findings of one or more files, in the order of the files and of the places in them, and the texts of the files
/// so that they can be quoted.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    list: Vec<Finding>,
    sources: BTreeMap<String, Arc<Source>>,
}

impl Findings {
    /// The findings in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Finding] {
        &self.list
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether any finding is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// How many findings are of this severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.list
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }

    /// The errors.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> + '_ {
        self.list
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
    }

    /// The text of the file that a finding is about.
    #[must_use]
    pub fn source(&self, finding: &Finding) -> Option<&Source> {
        self.sources.get(&finding.file).map(Arc::as_ref)
    }

    /// Appends the findings of other files.
    pub fn append(&mut self, other: Self) {
        self.list.extend(other.list);
        self.sources.extend(other.sources);
    }

    /// Makes warnings of errors, where something else takes the place of what is wrong.
    pub(crate) fn soften(&mut self) {
        for finding in &mut self.list {
            finding.severity = match finding.severity {
                Severity::Error | Severity::Warning => Severity::Warning,
                Severity::Note => Severity::Note,
            };
        }
    }

    /// Takes the findings of one file: sorts them by place, and drops repetitions (an alias repeats the errors of
    /// its anchor).
    pub(crate) fn extend_from(&mut self, source: &Arc<Source>, mut found: Vec<Finding>) {
        if found.is_empty() {
            return;
        }
        found.sort_by_key(|finding| (finding.line, finding.column, finding.severity));
        found.dedup();
        self.list.extend(found);
        self.sources
            .insert(source.name().to_owned(), Arc::clone(source));
    }
}
