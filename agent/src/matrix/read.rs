//! Matrix files to the model. One file is one system. A file is read to its end whatever is wrong with it, so that
//! all its errors are reported at once; a system with an error never becomes part of the matrix.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

use super::binding::Binding;
use super::check;
use super::id::{IdError, RequirementId, RoleId, SystemId};
use super::model::{
    BuiltInRole, Direction, Document, Matrix, Necessity, Provenance, Requirement, Role, RoleIndex,
    RoleRef, System, SystemIndex,
};
use super::public_suffix::is_public_suffix;
use super::service::Service;
use super::tag_use::{TagUse, UsedBy};
use crate::finding::Findings;
use crate::yaml::{self, Fields, Keys, LoadError, Node, Reporter, Source, Span, Value};

pub(super) const SYSTEM: Keys = Keys::new(
    &["system", "title", "requirements"],
    &["version", "document", "roles"],
);
pub(super) const DOCUMENT: Keys = Keys::new(&["title"], &["file"]);
pub(super) const ROLE: Keys = Keys::new(&[], &["title", "names"]);
pub(super) const REQUIREMENT: Keys = Keys::new(
    &["id", "from", "to", "services"],
    &[
        "direction",
        "necessity",
        "condition",
        "application",
        "purpose",
        "provenance",
        "doubts",
    ],
);
pub(super) const PROVENANCE: Keys = Keys::new(&["section", "row"], &[]);

/// What reading matrix files gave.
#[derive(Debug, Clone, Default)]
pub struct MatrixReading {
    /// The systems of all files without errors.
    pub matrix: Matrix,
    /// The file of each system, as its path was given, by the system's index.
    pub files: Vec<String>,
    /// What was found in the files.
    pub findings: Findings,
    /// Ids of systems whose files have errors, as far as the ids could be read.
    pub faulty: BTreeSet<String>,
    /// Whether a file has errors that hide even its system's id: any system could be the missing one.
    pub nameless: bool,
    /// Where the systems name service tags, in the order of the files.
    pub tags: Vec<TagUse>,
}

impl Matrix {
    /// Reads matrix files. A folder stands for its `*.yaml` and `*.yml` files, sorted by name, without subfolders.
    /// A file that is named twice is read once.
    ///
    /// # Errors
    /// [`LoadError`] if a path does not exist or can't be read. What is wrong inside a file is a finding.
    pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<MatrixReading, LoadError> {
        let mut reading = MatrixReading::default();
        let mut owners = BTreeMap::new();
        for file in expand(paths)? {
            let (source, problem) = yaml::load(&file)?;
            let mut reporter = Reporter::new(Arc::new(source));
            if let Some((offset, problem)) = problem {
                reporter.error(problem.code, Span { offset, length: 0 }, problem.message);
                reading.findings.append(reporter.finish());
                continue;
            }
            read_source(reporter, &mut reading, &mut owners);
        }
        Ok(reading)
    }

    /// Reads one matrix from a text; `name` stands for the file in findings.
    #[must_use]
    pub fn read_text(name: &str, text: &str) -> MatrixReading {
        let mut reading = MatrixReading::default();
        let reporter = Reporter::new(Arc::new(Source::new(name, text)));
        read_source(reporter, &mut reading, &mut BTreeMap::new());
        reading
    }
}

/// The files that the paths stand for, in order.
fn expand<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<PathBuf>, LoadError> {
    let mut files = Vec::new();
    let mut seen = HashSet::new();
    for path in paths {
        let path = path.as_ref();
        let error = |source| LoadError::from_io(path, source);
        if !std::fs::metadata(path).map_err(error)?.is_dir() {
            files.push(path.to_owned());
            continue;
        }
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path).map_err(error)? {
            let file = entry.map_err(error)?.path();
            let yaml = file
                .extension()
                .is_some_and(|extension| extension == "yaml" || extension == "yml");
            let hidden = file
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if yaml && !hidden && file.is_file() {
                inside.push(file);
            }
        }
        if inside.is_empty() {
            return Err(LoadError::EmptyFolder(path.to_owned()));
        }
        inside.sort();
        files.append(&mut inside);
    }
    // The same file by two names is one system, not a duplicate.
    files.retain(|file| seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())));
    Ok(files)
}

/// Reads one system. `owners` tells which file a system came from.
fn read_source(
    mut reporter: Reporter,
    reading: &mut MatrixReading,
    owners: &mut BTreeMap<String, String>,
) {
    let source = Arc::clone(reporter.source());
    let mut id = None;
    let mut tags = Vec::new();
    let system = yaml::parse(source.text(), &mut reporter).and_then(|node| {
        let mut reader = SystemReader::new(&mut reporter);
        let system = reader.read(&node, owners, &mut id);
        tags = reader.tags;
        system
    });
    if system.is_some() {
        let index = SystemIndex::from_position(reading.matrix.systems.len());
        let uses = TagUse::among(&tags, UsedBy::Pack, index, &source);
        reading.tags.extend(uses);
    }
    if let Some(id) = id {
        owners
            .entry(id.to_string())
            .or_insert_with(|| source.name().to_owned());
        if system.is_none() {
            reading.faulty.insert(id.to_string());
        }
    } else if system.is_none() {
        reading.nameless = true;
    }
    if system.is_some() {
        reading.files.push(source.name().to_owned());
    }
    reading.matrix.systems.extend(system);
    reading.findings.append(reporter.finish());
}

/// Declared roles while a file is read.
#[derive(Default)]
struct Roles<'node> {
    list: Vec<Role>,
    spans: Vec<Span>,
    /// All ids that the file writes; none for those that are no valid role, so that they are reported only once.
    by_id: HashMap<&'node str, Option<RoleIndex>>,
}

struct SystemReader<'report> {
    reporter: &'report mut Reporter,
    /// Service tags among the names of roles.
    tags: Vec<(Binding, Span)>,
}

impl<'report> SystemReader<'report> {
    fn new(reporter: &'report mut Reporter) -> Self {
        Self {
            reporter,
            tags: Vec::new(),
        }
    }

    fn read(
        &mut self,
        node: &Node<'_>,
        owners: &BTreeMap<String, String>,
        read_id: &mut Option<SystemId>,
    ) -> Option<System> {
        if is_site(node) {
            self.reporter.error(
                "site-file",
                node.span,
                "this is a site file, not a matrix: give it with `--site`",
            );
            return None;
        }
        let fields = Fields::open(node, "a matrix file", SYSTEM, self.reporter)?;
        let id = self.id(&fields, "system", SystemId::new);
        if let (Some(id), Some(node)) = (&id, fields.get("system"))
            && let Some(owner) = owners.get(id.as_str())
        {
            self.reporter.error(
                "duplicate-system",
                node.span,
                format!("the system `{id}` is already defined in {owner}: give one of the two files another id"),
            );
        }
        read_id.clone_from(&id);
        let title = fields.string("title", self.reporter);
        let version = fields.string("version", self.reporter);
        let document = fields.get("document").and_then(|node| self.document(node));
        let mut roles = Roles::default();
        if let Some(node) = fields.get("roles") {
            self.roles(node, &mut roles);
        }
        let rows = fields.list("requirements", self.reporter);
        let mut requirements = Vec::with_capacity(rows.len());
        let mut spans = Vec::with_capacity(rows.len());
        let mut ids: HashMap<&str, Span> = HashMap::with_capacity(rows.len());
        for row in rows {
            if let Some(requirement) = self.requirement(row, &roles, &mut ids) {
                requirements.push(requirement);
                spans.push(row.span);
            }
        }
        if let Some(node) = fields.get("requirements")
            && node.value == Value::Sequence(Vec::new())
        {
            self.reporter.warning(
                "no-requirements",
                node.span,
                "the system has no requirements: nothing can be judged by it",
            );
        }
        if self.reporter.has_errors() {
            return None;
        }
        let system = System {
            id: id?,
            title: title?,
            version,
            document,
            roles: roles.list,
            requirements,
        };
        check::system(&system, &roles.spans, &spans, self.reporter);
        Some(system)
    }

    fn id<T>(
        &mut self,
        fields: &Fields<'_, '_>,
        key: &str,
        new: fn(&str) -> Result<T, IdError>,
    ) -> Option<T> {
        let node = fields.get(key)?;
        let text = yaml::text(node, key, self.reporter)?;
        self.valid_id(text, node.span, new)
    }

    fn valid_id<T>(
        &mut self,
        text: &str,
        span: Span,
        new: fn(&str) -> Result<T, IdError>,
    ) -> Option<T> {
        new(text)
            .map_err(|error| self.reporter.error("bad-id", span, error.to_string()))
            .ok()
    }

    fn document(&mut self, node: &Node<'_>) -> Option<Document> {
        let fields = Fields::open(node, "a document", DOCUMENT, self.reporter)?;
        let title = fields.string("title", self.reporter);
        let file = fields.string("file", self.reporter);
        Some(Document {
            title: title?,
            file,
        })
    }

    fn roles<'node>(&mut self, node: &'node Node<'_>, roles: &mut Roles<'node>) {
        let Value::Mapping(entries) = &node.value else {
            self.reporter.error(
                "wrong-type",
                node.span,
                format!(
                    "`roles` must be a mapping of role ids to roles, not {}",
                    node.kind()
                ),
            );
            return;
        };
        let mut first: HashMap<&str, Span> = HashMap::with_capacity(entries.len());
        for (key, value) in entries {
            let Some(text) = yaml::text(key, "role id", self.reporter) else {
                continue;
            };
            if let Some(first) = first.get(text) {
                let line = self.reporter.line(*first);
                self.reporter.error(
                    "duplicate-role",
                    key.span,
                    format!(
                        "the role `{text}` is already declared in line {line}: keep one of them"
                    ),
                );
                continue;
            }
            first.insert(text, key.span);
            if BuiltInRole::from_id(text).is_some() {
                self.reporter.error(
                    "built-in-role",
                    key.span,
                    format!("`{text}` is a role that every system has: use it without declaring it, or choose another id"),
                );
                continue;
            }
            let id = self.valid_id(text, key.span, RoleId::new);
            let (title, names) = self.role(value);
            let index = id.map(|id| {
                let index = RoleIndex::from_position(roles.list.len());
                roles.list.push(Role { id, title, names });
                roles.spans.push(key.span);
                index
            });
            roles.by_id.insert(text, index);
        }
    }

    fn role(&mut self, node: &Node<'_>) -> (Option<String>, Vec<Binding>) {
        if node.value == Value::Null {
            return (None, Vec::new());
        }
        let Some(fields) = Fields::open(node, "a role", ROLE, self.reporter) else {
            return (None, Vec::new());
        };
        let title = fields.string("title", self.reporter);
        let names = bindings(fields.list("names", self.reporter), "names", self.reporter);
        let is_tag = |(binding, _): &&(Binding, Span)| matches!(binding, Binding::Tag(_));
        self.tags.extend(names.iter().filter(is_tag).cloned());
        let names = names.into_iter().map(|(binding, _)| binding).collect();
        (title, names)
    }

    fn requirement<'node>(
        &mut self,
        node: &'node Node<'_>,
        roles: &Roles<'_>,
        ids: &mut HashMap<&'node str, Span>,
    ) -> Option<Requirement> {
        let fields = Fields::open(node, "a requirement", REQUIREMENT, self.reporter)?;
        if let Some(node) = fields.get("id")
            && let Value::Text(text) = &node.value
            && let Some(first) = ids.insert(text.trim(), node.span)
        {
            let line = self.reporter.line(first);
            self.reporter.error(
                "duplicate-requirement",
                node.span,
                format!("the requirement `{text}` is already defined in line {line}: give one of them another id"),
            );
        }
        let id = self.id(&fields, "id", RequirementId::new);
        let from = fields
            .get("from")
            .and_then(|node| self.role_ref(node, "from", roles));
        let to = fields
            .get("to")
            .and_then(|node| self.role_ref(node, "to", roles));
        let services = fields.list("services", self.reporter);
        let services = self.services(services);
        let direction = match fields.get("direction") {
            None => Some(Direction::default()),
            Some(node) => yaml::choice(
                node,
                "direction",
                "bad-direction",
                &[
                    ("outbound", Direction::Outbound),
                    ("inbound", Direction::Inbound),
                    ("both", Direction::Both),
                ],
                self.reporter,
            ),
        };
        let necessity = self.necessity(node, &fields);
        let application = fields.string("application", self.reporter);
        let purpose = fields.string("purpose", self.reporter);
        let provenance = fields
            .get("provenance")
            .and_then(|node| self.provenance(node));
        let doubts = fields
            .list("doubts", self.reporter)
            .iter()
            .filter_map(|node| yaml::text(node, "doubts", self.reporter).map(str::to_owned))
            .collect();
        Some(Requirement {
            id: id?,
            from: from?,
            to: to?,
            services,
            direction: direction?,
            necessity: necessity?,
            application,
            purpose,
            provenance,
            doubts,
        })
    }

    fn role_ref(&mut self, node: &Node<'_>, key: &str, roles: &Roles<'_>) -> Option<RoleRef> {
        let text = yaml::text(node, key, self.reporter)?;
        if let Some(role) = BuiltInRole::from_id(text) {
            return Some(RoleRef::BuiltIn(role));
        }
        if let Some(known) = roles.by_id.get(text) {
            return known.map(RoleRef::Declared);
        }
        let built_in = BuiltInRole::ALL.map(BuiltInRole::id);
        let declared = roles.list.iter().map(|role| role.id.as_str());
        let proposal = self.reporter.proposal(text, declared.chain(built_in));
        let remedy = if proposal.is_empty() {
            "; declare it under `roles`".to_owned()
        } else {
            proposal
        };
        self.reporter.error(
            "unknown-role",
            node.span,
            format!("`{key}` names the role `{text}`, which the system does not have{remedy}"),
        );
        None
    }

    fn services(&mut self, nodes: &[Node<'_>]) -> Vec<Service> {
        let mut services = Vec::with_capacity(nodes.len());
        let mut spans: Vec<(Service, Span)> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(text) = yaml::text(node, "services", self.reporter) else {
                continue;
            };
            let service: Service = match text.parse() {
                Ok(service) => service,
                Err(error) => {
                    self.reporter
                        .error("bad-service", node.span, format!("{error}"));
                    continue;
                }
            };
            if let (Some(first), Some(last)) = (service.first(), service.last())
                && first == last
                && text.contains('-')
            {
                self.reporter.note(
                    "single-port-range",
                    node.span,
                    format!("`{text}` is a range of one: write `{service}`"),
                );
            }
            services.push(service);
            spans.push((service, node.span));
        }
        self.overlaps(spans);
        services
    }

    /// Reports services of one requirement that are the same or have ports in common.
    fn overlaps(&mut self, mut spans: Vec<(Service, Span)>) {
        // In this order a service can overlap only with the one before it that reaches furthest.
        spans.sort_by_key(|(service, span)| {
            (
                service.protocol(),
                service.first(),
                service.last(),
                span.offset,
            )
        });
        let reach = |service: Service| service.last().unwrap_or(u16::MAX);
        let mut furthest: Option<Service> = None;
        for (service, span) in spans {
            match furthest {
                Some(before) if before == service => self.reporter.error(
                    "duplicate-service",
                    span,
                    format!("the service `{service}` is listed twice: remove one"),
                ),
                Some(before) if before.overlaps(service) => self.reporter.warning(
                    "overlapping-services",
                    span,
                    format!("`{service}` overlaps with `{before}` of the same requirement: write services without common ports"),
                ),
                Some(_) | None => {}
            }
            let further = furthest.is_none_or(|before| {
                before.protocol() != service.protocol() || reach(before) <= reach(service)
            });
            if further {
                furthest = Some(service);
            }
        }
    }

    fn necessity(&mut self, node: &Node<'_>, fields: &Fields<'_, '_>) -> Option<Necessity> {
        #[derive(Clone, Copy)]
        enum Kind {
            Required,
            Optional,
            Conditional,
        }
        let condition = fields.string("condition", self.reporter);
        let kind = match fields.get("necessity") {
            None => Kind::Required,
            Some(node) => yaml::choice(
                node,
                "necessity",
                "bad-necessity",
                &[
                    ("required", Kind::Required),
                    ("optional", Kind::Optional),
                    ("conditional", Kind::Conditional),
                ],
                self.reporter,
            )?,
        };
        match (kind, condition) {
            (Kind::Required, None) => Some(Necessity::Required),
            (Kind::Optional, None) => Some(Necessity::Optional),
            (Kind::Conditional, Some(condition)) => Some(Necessity::Conditional { condition }),
            (Kind::Conditional, None) => {
                // An empty condition has its own error already.
                if fields.get("condition").is_none() {
                    let span = fields.get("necessity").map_or(node.span, |node| node.span);
                    self.reporter.error(
                        "condition-missing",
                        span,
                        "`necessity: conditional` needs `condition:`, the words that say when it is required",
                    );
                }
                None
            }
            (Kind::Required | Kind::Optional, Some(_)) => {
                let span = fields.get("condition").map_or(node.span, |node| node.span);
                self.reporter.error(
                    "unexpected-condition",
                    span,
                    "`condition` stands only with `necessity: conditional`: remove it, or change `necessity`",
                );
                None
            }
        }
    }

    fn provenance(&mut self, node: &Node<'_>) -> Option<Provenance> {
        let fields = Fields::open(node, "a provenance", PROVENANCE, self.reporter)?;
        let section = fields.string("section", self.reporter);
        let row = fields
            .get("row")
            .and_then(|node| yaml::whole_number(node, "row", 0..=u32::MAX, self.reporter));
        Some(Provenance {
            section: section?,
            row: row?,
        })
    }
}

/// Whether the author gave a site file where a matrix belongs.
fn is_site(node: &Node<'_>) -> bool {
    let Value::Mapping(entries) = &node.value else {
        return false;
    };
    let has = |name: &str| {
        entries
            .iter()
            .any(|(key, _)| matches!(&key.value, Value::Text(text) if text == name))
    };
    has("site") && !has("system") && !has("requirements")
}

/// Reads a list of addresses, names and tags, each with its place.
pub(crate) fn bindings(
    nodes: &[Node<'_>],
    key: &str,
    reporter: &mut Reporter,
) -> Vec<(Binding, Span)> {
    let mut list = Vec::with_capacity(nodes.len());
    let mut seen = HashSet::with_capacity(nodes.len());
    for node in nodes {
        let Some(text) = yaml::text(node, key, reporter) else {
            continue;
        };
        let parsed = match Binding::parse(text) {
            Ok(parsed) => parsed,
            Err(error) => {
                reporter.error("bad-binding", node.span, error.to_string());
                continue;
            }
        };
        let binding = parsed.binding;
        if parsed.host_bits_cleared {
            reporter.warning(
                "host-bits-set",
                node.span,
                format!("`{text}` has bits set beyond its length and is read as {binding}: write that, or the address alone"),
            );
        }
        if let Binding::Name(name) = &binding
            && let Some(suffix) = name
                .below_wildcard()
                .filter(|suffix| is_public_suffix(suffix))
        {
            reporter.warning(
                "wildcard-on-public-suffix",
                node.span,
                format!("`{text}` covers names that anybody can register below `{suffix}`: write the vendor's own domain after the wildcard"),
            );
        }
        if seen.insert(binding.clone()) {
            list.push((binding, node.span));
        } else {
            reporter.warning(
                "duplicate-binding",
                node.span,
                format!("`{text}` is listed twice: remove one"),
            );
        }
    }
    list
}

#[cfg(test)]
mod tests;
