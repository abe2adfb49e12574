//! Suggestions as changes of matrix files: unified diffs that add to a file's lists, or take away from them, and leave
//! every other byte as it was. A change is read back before it is given out: if the file would say anything else than
//! what it said before and what was suggested, there is a note instead.

mod layout;
mod lines;

use std::fmt::Write as _;

use super::{NewRole, Proposal, Removal};
use crate::import::quoted;
use crate::matrix::{Matrix, System};
pub use layout::LayoutError;
use layout::{Item, Layout, Roles};
use lines::{Edits, new_file};

/// A change of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The unified diff; empty if nothing changes.
    pub diff: String,
    /// The whole file afterwards.
    pub text: String,
}

/// Why a change is not made, with what to do by hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The file is not written line by line.
    #[error("{path}: {source}, so it is not patched: write it so, or add the rows by hand")]
    Layout {
        /// The file.
        path: String,
        /// What is in the way.
        source: LayoutError,
    },
    /// What came of it is not what was meant.
    #[error(
        "{0}: a change by lines would say something else, so it is not patched: change the rows by hand"
    )]
    Misread(String),
    /// A requirement is not where it can be taken away.
    #[error("{path}: `{requirement}` is not taken away: {reason}; do it by hand")]
    Removal {
        /// The file.
        path: String,
        /// The requirement.
        requirement: String,
        /// What is in the way.
        reason: &'static str,
    },
}

/// What is to change in a system.
#[derive(Debug, Default, Clone)]
pub struct Wanted<'a> {
    /// Roles to add.
    pub roles: Vec<&'a NewRole>,
    /// Requirements to add.
    pub proposals: Vec<&'a Proposal>,
    /// Requirements, or services of them, to take away.
    pub removals: Vec<&'a Removal>,
}

/// Changes a file. What can't be taken away is noted, and the rest is done.
///
/// # Errors
/// [`PatchError`] if nothing can be done.
pub fn change(
    path: &str,
    text: &str,
    wanted: &Wanted<'_>,
) -> Result<(Change, Vec<PatchError>), PatchError> {
    let layout = Layout::of(text).map_err(|source| PatchError::Layout {
        path: path.to_owned(),
        source,
    })?;
    let mut notes = Vec::new();
    let mut edits = Edits::default();
    let mut removed: Vec<&Removal> = Vec::new();
    for removal in &wanted.removals {
        match take_away(&layout, text, removal, &mut edits) {
            Ok(()) => removed.push(removal),
            Err(reason) => notes.push(PatchError::Removal {
                path: path.to_owned(),
                requirement: removal.requirement.clone(),
                reason,
            }),
        }
    }
    if !wanted.roles.is_empty() {
        let roles = layout.roles.clone().map_err(|source| PatchError::Layout {
            path: path.to_owned(),
            source,
        })?;
        add_roles(
            roles.as_ref(),
            layout.requirements,
            &wanted.roles,
            &mut edits,
        );
    }
    add_requirements(&layout, &wanted.proposals, &mut edits);
    let (after, diff) = edits.apply(path, text);
    if !says(text, &after, wanted, &removed) {
        return Err(PatchError::Misread(path.to_owned()));
    }
    let diff = if after == text { String::new() } else { diff };
    Ok((Change { diff, text: after }, notes))
}

/// Makes the site-local matrix.
#[must_use]
pub fn create(path: &str, system: &str, wanted: &Wanted<'_>) -> Change {
    let mut text = format!(
        "# What this site needs beyond its vendors' documents, begun by `flowproof suggest` from traffic. Every row is a\n\
         # proposal until somebody has answered its doubt.\n\
         system: {}\ntitle: {}\n",
        id(system),
        quoted("What this site needs beyond its vendors' documents"),
    );
    if !wanted.roles.is_empty() {
        text.push_str("roles:\n");
    }
    for role in &wanted.roles {
        let _ = writeln!(text, "  {}", role_text(role));
    }
    text.push_str("requirements:\n");
    for proposal in &wanted.proposals {
        for line in block(proposal, 2, 1) {
            let _ = writeln!(text, "{line}");
        }
    }
    Change {
        diff: new_file(path, &text),
        text,
    }
}

/// The rows of a file as text, for whoever adds them by hand.
#[must_use]
pub fn rows(wanted: &Wanted<'_>) -> String {
    let mut text = String::new();
    for role in &wanted.roles {
        let _ = writeln!(text, "  {}", role_text(role));
    }
    for line in wanted
        .proposals
        .iter()
        .flat_map(|proposal| block(proposal, 2, 1))
    {
        let _ = writeln!(text, "{line}");
    }
    text
}

fn add_roles(known: Option<&Roles>, requirements: usize, roles: &[&NewRole], edits: &mut Edits) {
    let (at, indent) = match known {
        Some(known) => (known.last + 1, known.indent),
        None => {
            edits.insert(requirements, ["roles:".to_owned()]);
            (requirements, 2)
        }
    };
    edits.insert(
        at,
        roles
            .iter()
            .map(|role| format!("{:indent$}{}", "", role_text(role))),
    );
}

/// As the last one is written.
fn add_requirements(layout: &Layout, proposals: &[&Proposal], edits: &mut Edits) {
    let Some(last) = layout.items.last() else {
        return;
    };
    let lines = proposals.iter().flat_map(|proposal| {
        if last.flow {
            vec![flow(proposal, last.indent, last.pad)]
        } else {
            block(proposal, last.indent, last.pad)
        }
    });
    edits.insert(last.lines[1] + 1, lines);
}

fn take_away(
    layout: &Layout,
    text: &str,
    removal: &Removal,
    edits: &mut Edits,
) -> Result<(), &'static str> {
    let item: &Item = layout
        .items
        .iter()
        .find(|item| item.id == removal.requirement)
        .ok_or("the file does not have it")?;
    if removal.whole {
        edits.delete(item.lines[0]..=item.lines[1]);
        return Ok(());
    }
    let services = item
        .services
        .as_ref()
        .ok_or("its services do not stand in one line between brackets")?;
    let is_unused = |written: &String| {
        let bare = written.trim_matches(['"', '\'']);
        bare.parse::<crate::matrix::Service>()
            .is_ok_and(|service| removal.services.contains(&service.to_string()))
    };
    let kept: Vec<&str> = services
        .written
        .iter()
        .filter(|written| !is_unused(written))
        .map(String::as_str)
        .collect();
    if kept.is_empty() || kept.len() + removal.services.len() != services.written.len() {
        return Err("its services are not written as expected");
    }
    let line = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .split_inclusive('\n')
        .nth(services.line)
        .unwrap_or_default()
        .trim_end_matches(['\n', '\r']);
    let [first, last] = services.columns;
    let (Some(before), Some(after)) = (line.get(..first), line.get(last..)) else {
        return Err("its services are not written as expected");
    };
    edits.replace(services.line, format!("{before}{}{after}", kept.join(", ")));
    Ok(())
}

/// Whether a file says what it said, and what is wanted, and nothing else.
fn says(before: &str, after: &str, wanted: &Wanted<'_>, removed: &[&Removal]) -> bool {
    let read = |text: &str| -> Option<System> {
        let reading = Matrix::read_text("matrix", text);
        (!reading.findings.has_errors()).then(|| reading.matrix.systems.into_iter().next())?
    };
    let (Some(mut before), Some(after)) = (read(before), read(after)) else {
        return false;
    };
    for removal in removed {
        before.requirements.retain_mut(|row| {
            if row.id.as_str() == removal.requirement {
                row.services
                    .retain(|service| !removal.services.contains(&service.to_string()));
                !removal.whole
            } else {
                true
            }
        });
    }
    let (roles, rows) = (before.roles.len(), before.requirements.len());
    let old = System {
        roles: after.roles.iter().take(roles).cloned().collect(),
        requirements: after.requirements.iter().take(rows).cloned().collect(),
        ..after.clone()
    };
    let added: Vec<&str> = after
        .roles
        .iter()
        .skip(roles)
        .map(|role| role.id.as_str())
        .collect();
    old == before
        && added
            == wanted
                .roles
                .iter()
                .map(|role| role.id.as_str())
                .collect::<Vec<_>>()
        && after.requirements.len() == rows + wanted.proposals.len()
        && after
            .requirements
            .iter()
            .skip(rows)
            .zip(&wanted.proposals)
            .all(|(row, proposal)| {
                let services: Vec<String> = row.services.iter().map(ToString::to_string).collect();
                row.id.as_str() == proposal.requirement
                    && after.role_id(row.from) == proposal.from
                    && after.role_id(row.to) == proposal.to
                    && services == proposal.services
                    && row.doubts == proposal.doubts
            })
}

/// An id needs no quotes, unless YAML takes it for something else.
fn id(text: &str) -> String {
    let plain = text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text != "null";
    if plain { text.to_owned() } else { quoted(text) }
}

fn role_text(role: &NewRole) -> String {
    let names: Vec<String> = role.names.iter().map(|name| quoted(name)).collect();
    format!(
        "{}: {{title: {}, names: [{}]}}",
        id(&role.id),
        quoted(&role.title),
        names.join(", ")
    )
}

/// Keys and values of a requirement but for its doubts.
fn fields(proposal: &Proposal) -> Vec<(&'static str, String)> {
    vec![
        ("id", id(&proposal.requirement)),
        ("from", id(&proposal.from)),
        ("to", id(&proposal.to)),
        ("services", format!("[{}]", proposal.services.join(", "))),
        ("direction", proposal.direction.to_owned()),
        ("necessity", proposal.necessity.to_owned()),
        ("purpose", quoted(&proposal.purpose)),
    ]
}

fn block(proposal: &Proposal, indent: usize, pad: usize) -> Vec<String> {
    let inner = indent + 1 + pad;
    let mut lines = Vec::new();
    for (at, (key, value)) in fields(proposal).into_iter().enumerate() {
        lines.push(if at == 0 {
            format!("{:indent$}-{:pad$}{key}: {value}", "", "")
        } else {
            format!("{:inner$}{key}: {value}", "")
        });
    }
    lines.push(format!("{:inner$}doubts:", ""));
    lines.extend(
        proposal
            .doubts
            .iter()
            .map(|doubt| format!("{:inner$}  - {}", "", quoted(doubt))),
    );
    lines
}

fn flow(proposal: &Proposal, indent: usize, pad: usize) -> String {
    let fields: Vec<String> = fields(proposal)
        .into_iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    let doubts: Vec<String> = proposal.doubts.iter().map(|doubt| quoted(doubt)).collect();
    format!(
        "{:indent$}-{:pad$}{{{}, doubts: [{}]}}",
        "",
        "",
        fields.join(", "),
        doubts.join(", ")
    )
}

#[cfg(test)]
mod tests;
