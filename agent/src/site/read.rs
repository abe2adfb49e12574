//! Site files to the model, against the matrix that was read before.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::model::{RoleBinding, Site};
use crate::finding::Findings;
use crate::matrix::{
    Binding, BuiltInRole, MatrixReading, RoleIndex, RoleRef, SystemIndex, TagUse, UsedBy, bindings,
};
use crate::yaml::{self, Fields, Keys, LoadError, Node, Reporter, Source, Span, Value};

pub(super) const SITE: Keys = Keys::new(&["site", "systems"], &["roles", "observe"]);

/// Known ids that a message lists at most.
const LISTED: usize = 20;

/// What reading a site file gave.
#[derive(Debug, Clone)]
pub struct SiteReading {
    /// The site, if neither the file nor a matrix file that it refers to has errors.
    pub site: Option<Site>,
    /// What was found in the file.
    pub findings: Findings,
    /// Where it binds roles of deployed systems to service tags, in file order.
    pub tags: Vec<TagUse>,
}

impl Site {
    /// Reads a site file against the matrix of the site.
    ///
    /// # Errors
    /// [`LoadError`] if the file does not exist or can't be read. What is wrong inside is a finding.
    pub fn read(path: &Path, matrix: &MatrixReading) -> Result<SiteReading, LoadError> {
        let (source, problem) = yaml::load(path)?;
        let mut reporter = Reporter::new(Arc::new(source));
        if let Some((offset, problem)) = problem {
            reporter.error(problem.code, Span { offset, length: 0 }, problem.message);
            return Ok(SiteReading {
                site: None,
                findings: reporter.finish(),
                tags: Vec::new(),
            });
        }
        Ok(read_source(reporter, matrix))
    }

    /// Reads a site from a text; `name` stands for the file in findings.
    #[must_use]
    pub fn read_text(name: &str, text: &str, matrix: &MatrixReading) -> SiteReading {
        read_source(Reporter::new(Arc::new(Source::new(name, text))), matrix)
    }
}

fn read_source(mut reporter: Reporter, matrix: &MatrixReading) -> SiteReading {
    let source = Arc::clone(reporter.source());
    let mut tags = Vec::new();
    let site = yaml::parse(source.text(), &mut reporter).and_then(|node| {
        let mut reader = SiteReader {
            reporter: &mut reporter,
            reading: matrix,
            faulty: false,
            tags: Vec::new(),
        };
        let site = reader.read(&node);
        tags = reader.tags;
        site
    });
    SiteReading {
        site,
        findings: reporter.finish(),
        tags,
    }
}

/// What an id in a site file turned out to be.
enum Found {
    System(SystemIndex),
    /// Its matrix file has errors, which are reported there.
    Faulty,
    Nothing,
}

struct SiteReader<'a> {
    reporter: &'a mut Reporter,
    reading: &'a MatrixReading,
    /// Whether the site refers to a system whose matrix file has errors.
    faulty: bool,
    tags: Vec<TagUse>,
}

impl SiteReader<'_> {
    fn read(&mut self, node: &Node<'_>) -> Option<Site> {
        if is_matrix(node) {
            self.reporter.error(
                "matrix-file",
                node.span,
                "this is a matrix file, not a site: give it as a path of its own, without `--site`",
            );
            return None;
        }
        let fields = Fields::open(node, "a site file", SITE, self.reporter)?;
        let name = fields.string("site", self.reporter);
        let listed = fields.list("systems", self.reporter);
        let systems = self.systems(listed);
        if let Some(node) = fields.get("systems")
            && node.value == Value::Sequence(Vec::new())
        {
            self.reporter.warning(
                "no-systems",
                node.span,
                "no system is deployed: every flow is unscoped",
            );
        }
        let mut roles = Vec::new();
        if let Some(node) = fields.get("roles") {
            self.roles(node, listed, &systems, &mut roles);
        }
        let observe = fields.list("observe", self.reporter);
        let observe = self.observe(observe);
        if self.faulty || self.reporter.has_errors() {
            return None;
        }
        let site = Site {
            name: name?,
            systems: systems.iter().map(|(system, _)| *system).collect(),
            roles,
            observe,
        };
        for (system, span) in &systems {
            self.unbound(&site, *system, *span);
        }
        Some(site)
    }

    fn find(&self, id: &str) -> Found {
        match self.reading.matrix.find_system(id) {
            Some(system) => Found::System(system),
            None if self.reading.nameless || self.reading.faulty.contains(id) => Found::Faulty,
            None => Found::Nothing,
        }
    }

    fn systems(&mut self, nodes: &[Node<'_>]) -> Vec<(SystemIndex, Span)> {
        let mut systems: Vec<(SystemIndex, Span)> = Vec::with_capacity(nodes.len());
        let mut seen = BTreeSet::new();
        for node in nodes {
            let Some(id) = yaml::text(node, "systems", self.reporter) else {
                continue;
            };
            match self.find(id) {
                Found::System(system) if seen.insert(system) => systems.push((system, node.span)),
                Found::System(_) => {
                    self.reporter.warning(
                        "duplicate-system",
                        node.span,
                        format!("`{id}` is listed twice: remove one"),
                    );
                }
                Found::Faulty => self.faulty = true,
                Found::Nothing => self.unknown_system(id, node.span),
            }
        }
        systems
    }

    fn unknown_system(&mut self, id: &str, span: Span) {
        let known: Vec<&str> = self
            .reading
            .matrix
            .systems
            .iter()
            .map(|system| system.id.as_str())
            .chain(self.reading.faulty.iter().map(String::as_str))
            .collect();
        let proposal = self.reporter.proposal(id, known.iter().copied());
        let known = listed(&known);
        self.reporter.error(
            "unknown-system",
            span,
            format!("no matrix file defines the system `{id}`{proposal}; {known}"),
        );
    }

    fn roles(
        &mut self,
        node: &Node<'_>,
        listed_systems: &[Node<'_>],
        systems: &[(SystemIndex, Span)],
        into: &mut Vec<RoleBinding>,
    ) {
        let Value::Mapping(entries) = &node.value else {
            self.reporter.error(
                "wrong-type",
                node.span,
                format!(
                    "`roles` must be a mapping of `system/role` to lists, not {}",
                    node.kind()
                ),
            );
            return;
        };
        // A mistyped system is one error, not a warning for each of its roles as well.
        let systems_are_sure = !self.reporter.has_errors();
        let mut first: HashMap<&str, Span> = HashMap::with_capacity(entries.len());
        for (key, value) in entries {
            let Some(text) = yaml::text(key, "role", self.reporter) else {
                continue;
            };
            if let Some(first) = first.get(text) {
                let line = self.reporter.line(*first);
                self.reporter.error(
                    "duplicate-key",
                    key.span,
                    format!(
                        "the role `{text}` is already bound in line {line}: join the two lists"
                    ),
                );
                continue;
            }
            first.insert(text, key.span);
            // The value is read whatever the key is, so that all errors come at once.
            let found = self.bindings(text, value);
            let Some((system, role)) = self.role(text, key.span, listed_systems) else {
                continue;
            };
            if !systems.iter().any(|(deployed, _)| *deployed == system) {
                if systems_are_sure {
                    let id = &self.reading.matrix.system(system).id;
                    self.reporter.warning(
                        "system-not-deployed",
                        key.span,
                        format!(
                            "`{text}` has no effect: add `{id}` to `systems`, or remove the binding"
                        ),
                    );
                }
                continue;
            }
            let uses = TagUse::among(&found, UsedBy::Site, system, self.reporter.source());
            self.tags.extend(uses);
            into.push(RoleBinding {
                system,
                role,
                bindings: found.into_iter().map(|(binding, _)| binding).collect(),
            });
        }
    }

    fn bindings(&mut self, key: &str, value: &Node<'_>) -> Vec<(Binding, Span)> {
        if value.value == Value::Null {
            return Vec::new();
        }
        let list = yaml::list(value, key, self.reporter);
        bindings(list, key, self.reporter)
    }

    fn role(
        &mut self,
        text: &str,
        span: Span,
        listed_systems: &[Node<'_>],
    ) -> Option<(SystemIndex, RoleIndex)> {
        let Some((system_id, role_id)) = text.split_once('/') else {
            // The likely system is the one that is deployed.
            let example = listed_systems
                .iter()
                .find_map(|node| match &node.value {
                    Value::Text(text) => Some(text.as_ref()),
                    Value::Null | Value::Sequence(_) | Value::Mapping(_) => None,
                })
                .unwrap_or("system");
            self.reporter.error(
                "bad-role-key",
                span,
                format!(
                    "`{text}` names no system: write `system/role`, such as `{example}/{text}`"
                ),
            );
            return None;
        };
        let system = match self.find(system_id) {
            Found::System(system) => system,
            Found::Faulty => {
                self.faulty = true;
                return None;
            }
            Found::Nothing => {
                self.unknown_system(system_id, span);
                return None;
            }
        };
        if BuiltInRole::from_id(role_id).is_some() {
            self.reporter.error(
                "built-in-role",
                span,
                format!("`{role_id}` is built in and can't be bound: remove the line"),
            );
            return None;
        }
        let system_content = self.reading.matrix.system(system);
        if let Some(role) = system_content.find_role(role_id) {
            return Some((system, role));
        }
        let known: Vec<&str> = system_content
            .roles
            .iter()
            .map(|role| role.id.as_str())
            .collect();
        let proposal = self.reporter.proposal(role_id, known.iter().copied());
        let known = listed(&known);
        self.reporter.error(
            "unknown-role",
            span,
            format!("the system `{system_id}` has no role `{role_id}`{proposal}; {known}"),
        );
        None
    }

    fn observe(&mut self, nodes: &[Node<'_>]) -> Vec<ipnet::IpNet> {
        let mut observe = Vec::with_capacity(nodes.len());
        for (binding, span) in bindings(nodes, "observe", self.reporter) {
            match binding {
                Binding::Prefix(prefix) => observe.push(prefix),
                Binding::Name(_) | Binding::Tag(_) => self.reporter.error(
                    "bad-prefix",
                    span,
                    format!("`{binding}` is no address or prefix, and `observe` takes only these"),
                ),
            }
        }
        observe
    }

    /// Notes which roles of a deployed system can't be recognized here. Only roles that a requirement names count.
    fn unbound(&mut self, site: &Site, system: SystemIndex, span: Span) {
        let matrix = &self.reading.matrix;
        let content = matrix.system(system);
        let mut used = vec![false; content.roles.len()];
        for requirement in &content.requirements {
            for role in [requirement.from, requirement.to] {
                if let RoleRef::Declared(role) = role {
                    used[role.get()] = true;
                }
            }
        }
        for (index, role) in content
            .indexed_roles()
            .filter(|(index, _)| used[index.get()])
        {
            if site.bindings(matrix, system, index).next().is_none() {
                self.reporter.note(
                    "role-not-bound",
                    span,
                    format!(
                        "`{}/{}` is bound to nothing: its requirements are unobservable until `roles` binds it",
                        content.id, role.id
                    ),
                );
            }
        }
    }
}

/// Whether the author gave a matrix where the site belongs.
fn is_matrix(node: &Node<'_>) -> bool {
    let Value::Mapping(entries) = &node.value else {
        return false;
    };
    let has = |name: &str| {
        entries
            .iter()
            .any(|(key, _)| matches!(&key.value, Value::Text(text) if text == name))
    };
    has("system") && has("requirements") && !has("site")
}

fn listed(known: &[&str]) -> String {
    if known.is_empty() {
        return "none is known".to_owned();
    }
    let shown: Vec<String> = known
        .iter()
        .take(LISTED)
        .map(|id| format!("`{id}`"))
        .collect();
    let more = known.len().saturating_sub(LISTED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("known are {}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests;
