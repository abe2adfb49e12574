//! What was taken, doubted and left: the short account that tells whether a draft is worth reading.

use serde::Serialize;

use super::draft::{Draft, Note, NoteKind};

/// An account of an import. Its JSON form is stable.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// The draft's system.
    pub system: &'a str,
    /// Requirements of the draft.
    pub requirements: usize,
    /// Its roles.
    pub roles: usize,
    /// Requirements with at least one doubt.
    pub doubted: Vec<Doubted<'a>>,
    /// Lines that a requirement was made of.
    pub taken: usize,
    /// Lines that are comments of the draft.
    pub left: Vec<&'a Note>,
    /// Tables whose header was not recognised.
    pub headless: Vec<Headless<'a>>,
    /// Whether there were more requirements than a draft may have.
    pub truncated: bool,
}

/// A requirement with its doubts.
#[derive(Debug, Serialize)]
pub struct Doubted<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its doubts.
    pub doubts: &'a [String],
}

/// A table that could not be read.
#[derive(Debug, Serialize)]
pub struct Headless<'a> {
    /// The document.
    pub file: &'a str,
    /// Its first line.
    pub line: u32,
}

impl<'a> Report<'a> {
    /// Gives account of a draft.
    #[must_use]
    pub fn new(draft: &'a Draft) -> Self {
        let system = &draft.system;
        Self {
            system: system.id.as_str(),
            requirements: system.requirements.len(),
            roles: system.roles.len(),
            doubted: system
                .requirements
                .iter()
                .filter(|requirement| !requirement.doubts.is_empty())
                .map(|requirement| Doubted {
                    id: requirement.id.as_str(),
                    doubts: &requirement.doubts,
                })
                .collect(),
            taken: draft
                .notes
                .iter()
                .filter(|note| note.kind == NoteKind::Taken)
                .count(),
            left: draft
                .notes
                .iter()
                .filter(|note| note.kind == NoteKind::Left)
                .collect(),
            headless: draft
                .headless
                .iter()
                .map(|(file, line)| Headless { file, line: *line })
                .collect(),
            truncated: draft.truncated,
        }
    }
}
