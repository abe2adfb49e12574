//! The draft as a matrix file. Written by hand, because what was not taken must stand as comments between the
//! requirements; every text is quoted, so that nothing in a document is taken for YAML.

use std::fmt::Write as _;

use super::draft::{Draft, NoteKind};
use crate::matrix::{Requirement, System};

/// A text as a double-quoted scalar. JSON's strings are YAML's, but for characters that YAML does not print.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            character
                if character.is_control()
                    || matches!(
                        character,
                        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
                    ) =>
            {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// A system without comments.
pub(super) fn system(system: &System) -> String {
    let mut out = head(system);
    for requirement in &system.requirements {
        write(&mut out, system, requirement);
    }
    out
}

/// A draft with the documents' text as comments.
pub(super) fn draft(draft: &Draft) -> String {
    let mut out = String::from(
        "# A draft made by `flowproof import`: compare it with the document, row by row. `line N` is the row as printed;\n# `line N, not taken` is text that no requirement was made of.\n",
    );
    out.push_str(&head(&draft.system));
    let mut notes = draft.notes.iter().peekable();
    let mut written = 0;
    let several = draft
        .notes
        .iter()
        .any(|note| note.file != draft.notes[0].file);
    let mut comments = |out: &mut String, end: usize| {
        while written < end {
            let Some(note) = notes.next() else {
                return;
            };
            let file = if several {
                format!("{} ", note.file)
            } else {
                String::new()
            };
            let kind = match note.kind {
                NoteKind::Taken => "",
                NoteKind::Left => ", not taken",
            };
            let _ = writeln!(out, "  # {file}line {}{kind}: {}", note.line, note.text);
            written += 1;
        }
    };
    for (requirement, before) in draft.system.requirements.iter().zip(&draft.before) {
        comments(&mut out, *before);
        write(&mut out, &draft.system, requirement);
    }
    comments(&mut out, draft.notes.len());
    out
}

fn head(system: &System) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "system: {}", system.id);
    let _ = writeln!(out, "title: {}", quoted(&system.title));
    if let Some(version) = &system.version {
        let _ = writeln!(out, "version: {}", quoted(version));
    }
    if let Some(document) = &system.document {
        let file = document
            .file
            .as_deref()
            .map(|file| format!(", file: {}", quoted(file)))
            .unwrap_or_default();
        let _ = writeln!(
            out,
            "document: {{title: {}{file}}}",
            quoted(&document.title)
        );
    }
    if !system.roles.is_empty() {
        out.push_str("roles:\n");
    }
    for role in &system.roles {
        let mut parts = Vec::new();
        if let Some(title) = &role.title {
            parts.push(format!("title: {}", quoted(title)));
        }
        if !role.names.is_empty() {
            parts.push(format!(
                "names: {}",
                list(role.names.iter().map(ToString::to_string))
            ));
        }
        let _ = writeln!(
            out,
            "  {}: {{{}}}",
            quoted(role.id.as_str()),
            parts.join(", ")
        );
    }
    out.push_str(if system.requirements.is_empty() {
        "requirements: []\n"
    } else {
        "requirements:\n"
    });
    out
}

fn list(texts: impl Iterator<Item = String>) -> String {
    let quoted: Vec<String> = texts.map(|text| quoted(&text)).collect();
    format!("[{}]", quoted.join(", "))
}

fn write(out: &mut String, system: &System, requirement: &Requirement) {
    let _ = writeln!(out, "  - id: {}", quoted(requirement.id.as_str()));
    let _ = writeln!(
        out,
        "    from: {}",
        quoted(system.role_id(requirement.from))
    );
    let _ = writeln!(out, "    to: {}", quoted(system.role_id(requirement.to)));
    let services: Vec<String> = requirement
        .services
        .iter()
        .map(ToString::to_string)
        .collect();
    let _ = writeln!(out, "    services: [{}]", services.join(", "));
    let _ = writeln!(out, "    direction: {}", requirement.direction.as_str());
    let _ = writeln!(out, "    necessity: {}", requirement.necessity.as_str());
    let texts = [
        ("condition", requirement.necessity.condition()),
        ("application", requirement.application.as_deref()),
        ("purpose", requirement.purpose.as_deref()),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            let _ = writeln!(out, "    {key}: {}", quoted(text));
        }
    }
    if let Some(provenance) = &requirement.provenance {
        let _ = writeln!(
            out,
            "    provenance: {{section: {}, row: {}}}",
            quoted(&provenance.section),
            provenance.row
        );
    }
    if !requirement.doubts.is_empty() {
        out.push_str("    doubts:\n");
        for doubt in &requirement.doubts {
            let _ = writeln!(out, "      - {}", quoted(doubt));
        }
    }
}
