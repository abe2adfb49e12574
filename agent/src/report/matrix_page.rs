//! A matrix as a Markdown page: what an operator reads before binding roles. Texts of a pack are escaped, so that nothing
//! in them is taken for markup.

use std::fmt::Write as _;

use crate::matrix::{Matrix, Necessity, Requirement, Role, RoleRef, System};

/// Prefixes for documentation (RFC 5737, RFC 3849) that the worked site file binds roles to.
const EXAMPLE: &str = "192.0.2";

/// The page of all systems.
#[must_use]
pub fn markdown(matrix: &Matrix) -> String {
    let mut out = String::new();
    for system in &matrix.systems {
        write_system(&mut out, system);
    }
    out
}

fn write_system(out: &mut String, system: &System) {
    let version = system
        .version
        .as_deref()
        .map(|version| format!(" {}", text(version)))
        .unwrap_or_default();
    let _ = writeln!(out, "# {}{version}\n", text(&system.title));
    let _ = write!(out, "System `{}`", system.id);
    if let Some(document) = &system.document {
        let _ = write!(
            out,
            ", made from the document \"{}\"",
            text(&document.title)
        );
        if let Some(file) = &document.file {
            let _ = write!(out, " (`{}`)", code(file));
        }
    }
    let _ = writeln!(
        out,
        ": {} requirements, {} roles.\n",
        system.requirements.len(),
        system.roles.len()
    );
    roles(out, system);
    requirements(out, system);
    doubts(out, system);
    site(out, system);
}

fn roles(out: &mut String, system: &System) {
    out.push_str("## Roles\n\n| role | name in the document | endpoints |\n|---|---|---|\n");
    for role in &system.roles {
        let names: Vec<String> = role
            .names
            .iter()
            .map(|name| format!("`{}`", code(&name.to_string())))
            .collect();
        let endpoints = if names.is_empty() {
            "bound by the site".to_owned()
        } else {
            names.join(", ")
        };
        let _ = writeln!(
            out,
            "| `{}` | {} | {endpoints} |",
            role.id,
            role.title.as_deref().map(text).unwrap_or_default()
        );
    }
    out.push('\n');
}

fn requirements(out: &mut String, system: &System) {
    out.push_str("## Requirements\n");
    let mut section: Option<&str> = None;
    for requirement in &system.requirements {
        let here = requirement
            .provenance
            .as_ref()
            .map_or("", |provenance| provenance.section.as_str());
        if section != Some(here) {
            section = Some(here);
            let title = if here.is_empty() {
                "Without a section".to_owned()
            } else {
                text(here)
            };
            let _ = writeln!(
                out,
                "\n### {title}\n\n| row | requirement | from | | to | services | necessity | purpose |\n|---|---|---|---|---|---|---|---|"
            );
        }
        row(out, system, requirement);
    }
    out.push('\n');
}

fn row(out: &mut String, system: &System, requirement: &Requirement) {
    let number = requirement
        .provenance
        .as_ref()
        .map(|provenance| provenance.row.to_string())
        .unwrap_or_default();
    let arrow = match requirement.direction {
        crate::matrix::Direction::Outbound => "→",
        crate::matrix::Direction::Inbound => "←",
        crate::matrix::Direction::Both => "↔",
    };
    let services: Vec<String> = requirement
        .services
        .iter()
        .map(|service| format!("`{service}`"))
        .collect();
    let services = if services.is_empty() {
        "none named".to_owned()
    } else {
        services.join(", ")
    };
    let necessity = match &requirement.necessity {
        Necessity::Required => "required".to_owned(),
        Necessity::Optional => "optional".to_owned(),
        Necessity::Conditional { condition } => format!("conditional: {}", text(condition)),
    };
    let mut purpose = requirement.purpose.as_deref().map(text).unwrap_or_default();
    if let Some(application) = &requirement.application {
        let _ = write!(
            purpose,
            "{}({})",
            if purpose.is_empty() { "" } else { " " },
            text(application)
        );
    }
    let _ = writeln!(
        out,
        "| {number} | `{}` | `{}` | {arrow} | `{}` | {services} | {necessity} | {purpose} |",
        requirement.id,
        system.role_id(requirement.from),
        system.role_id(requirement.to),
    );
}

fn doubts(out: &mut String, system: &System) {
    let doubted: Vec<&Requirement> = system
        .requirements
        .iter()
        .filter(|requirement| !requirement.doubts.is_empty())
        .collect();
    if doubted.is_empty() {
        return;
    }
    out.push_str("## Doubts\n\nWhat the document leaves open, by requirement.\n\n");
    for requirement in doubted {
        let _ = writeln!(out, "- `{}`", requirement.id);
        for doubt in &requirement.doubts {
            let _ = writeln!(out, "  - {}", text(doubt));
        }
    }
    out.push('\n');
}

/// A site file that binds every role that needs it, with addresses for documentation.
fn site(out: &mut String, system: &System) {
    let _ = writeln!(
        out,
        "## A site\n\n```yaml\nsite: example\nsystems: [{}]\nroles:",
        system.id
    );
    let used = |role: &Role| {
        system
            .requirements
            .iter()
            .flat_map(|requirement| [requirement.from, requirement.to])
            .any(|end| match end {
                RoleRef::Declared(index) => system.role(index).id == role.id,
                RoleRef::BuiltIn(_) => false,
            })
    };
    let mut unbound = system
        .roles
        .iter()
        .filter(|role| role.names.is_empty() && used(role))
        .peekable();
    if unbound.peek().is_none() {
        // A mapping must not be empty.
        out.truncate(out.len() - "roles:\n".len());
    }
    for (index, role) in unbound.enumerate() {
        // 254 addresses of 192.0.2.0/24, then a prefix a role.
        let address = if index < 254 {
            format!("{EXAMPLE}.{}", index + 1)
        } else {
            format!("2001:db8:{index:x}::/48")
        };
        let title = role
            .title
            .as_deref()
            .map(|title| format!("  # {}", one_line(title)))
            .unwrap_or_default();
        let _ = writeln!(out, "  {}/{}: [\"{address}\"]{title}", system.id, role.id);
    }
    out.push_str("```\n");
}

fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '`') {
                ' '
            } else {
                c
            }
        })
        .collect()
}

/// Text without markup: in a table, a list or a heading.
fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in one_line(text).chars() {
        if matches!(
            character,
            '\\' | '|' | '*' | '_' | '<' | '>' | '[' | ']' | '#' | '&' | '~'
        ) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// Text between backticks in a table.
fn code(text: &str) -> String {
    one_line(text).replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_markup() {
        assert_eq!(
            text("*.example.org | <b>x</b>"),
            "\\*.example.org \\| \\<b\\>x\\</b\\>"
        );
    }

    #[test]
    fn its_site_file_is_valid() {
        let reading = Matrix::read_text(
            "x.yaml",
            "system: x\ntitle: X\nroles:\n  a: {title: \"A ` b\"}\n  b: {names: [b.example.org]}\nrequirements:\n  - {id: r, from: a, to: b, services: [tcp/1], doubts: [why]}\n",
        );
        let page = markdown(&reading.matrix);
        let yaml = page
            .split("```yaml\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next())
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("site.yaml");
        std::fs::write(&file, yaml).unwrap();
        let site = crate::site::Site::read(&file, &reading).unwrap();
        assert!(!site.findings.has_errors(), "{yaml}\n{:?}", site.findings);
        assert!(
            page.contains("| 1 |") || page.contains("|  | `r` |"),
            "{page}"
        );
    }
}
