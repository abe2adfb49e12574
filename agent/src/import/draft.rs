//! Requirements to a draft: one system whose roles are the names that the documents print. Names that differ only in
//! case, small words or punctuation are one role.

use foldhash::{HashMap, HashMapExt, HashSet};

use super::block::{Block, Document};
use super::endpoint::{self, Endpoint};
use super::fold::words;
use super::rows::{self, End, Found};
use super::{lists, yaml};
use crate::matrix::{
    Binding, BuiltInRole, Provenance, Requirement, RequirementId, Role, RoleId, RoleIndex, RoleRef,
    System, SystemId,
};

/// Longest part of an id that is made of a title, in characters.
const SLUG_CHARACTERS: usize = 40;

/// What happened to a line of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// A requirement was made of it, or it completes one.
    Taken,
    /// It is in the draft as a comment.
    Left,
}

/// A line of a document and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Note {
    /// The document.
    pub file: String,
    /// Line, or row of a sheet, from 1.
    pub line: u32,
    /// What happened.
    pub kind: NoteKind,
    /// As printed, cells joined by ` | `.
    pub text: String,
}

/// A matrix draft.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The draft as a system.
    pub system: System,
    /// All text of the documents, in the order of printing.
    pub notes: Vec<Note>,
    /// For every requirement the number of notes that stand before it in the draft.
    pub(super) before: Vec<usize>,
    /// Tables whose header was not recognised: document and line.
    pub headless: Vec<(String, u32)>,
    /// Whether there were too many requirements to take all.
    pub truncated: bool,
}

impl Draft {
    /// The draft as a matrix file, with everything that was not taken as comments.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        yaml::draft(self)
    }
}

/// Makes a draft of documents.
pub(super) fn make(documents: &[Document], system: Option<SystemId>) -> Draft {
    let title = documents
        .iter()
        .find_map(title)
        .unwrap_or_else(|| "Imported".to_owned());
    let id = system.unwrap_or_else(|| system_id(&title, documents));
    let mut builder = Builder::default();
    let mut headless = Vec::new();
    let mut truncated = false;
    for document in documents {
        let mut interpretation = rows::interpret(document);
        lists::read(document, &mut interpretation);
        headless.extend(
            interpretation
                .headless
                .iter()
                .map(|line| (document.name.clone(), *line)),
        );
        truncated |= interpretation.truncated;
        let prefix = if documents.len() > 1 {
            format!("{}: ", document.name)
        } else {
            String::new()
        };
        builder.document(document, interpretation, &prefix, &title);
    }
    let Builder {
        roles,
        requirements,
        notes,
        before,
        ..
    } = builder;
    Draft {
        system: System {
            id,
            title: title.clone(),
            version: None,
            document: documents.first().map(|document| crate::matrix::Document {
                title,
                file: (!document.name.is_empty()).then(|| document.name.clone()),
            }),
            roles,
            requirements,
        },
        notes,
        before,
        headless,
        truncated,
    }
}

/// The title of a document: its own, or its first heading, or the name of its file.
fn title(document: &Document) -> Option<String> {
    let heading = document.blocks.iter().find_map(|block| match block {
        Block::Heading(line) if line.text.split_whitespace().count() > 1 => Some(line.text.clone()),
        Block::Heading(_) | Block::Text(_) | Block::Item(_) | Block::Table(_) => None,
    });
    let stem = || {
        document
            .name
            .rsplit_once('.')
            .map_or(document.name.as_str(), |(stem, _)| stem)
            .to_owned()
    };
    let title = document.title.clone().or(heading).unwrap_or_else(stem);
    (!title.trim().is_empty()).then_some(title)
}

fn system_id(title: &str, documents: &[Document]) -> SystemId {
    let names =
        std::iter::once(title).chain(documents.iter().map(|document| document.name.as_str()));
    names
        .map(slug)
        .find_map(|slug| SystemId::new(&slug).ok())
        .unwrap_or_else(|| fallback("draft", SystemId::new))
}

/// An id that is valid by its characters.
fn fallback<T>(id: &str, new: fn(&str) -> Result<T, crate::matrix::IdError>) -> T {
    match new(id) {
        Ok(id) => id,
        Err(error) => unreachable!("{id}: {error}"),
    }
}

/// Lower-case letters and digits of a text, words joined by dashes.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for word in words(text).split(' ') {
        let word: String = word.chars().filter(char::is_ascii_alphanumeric).collect();
        if word.is_empty() {
            continue;
        }
        let longer = slug.len() + 1 + word.len();
        if longer > SLUG_CHARACTERS && !slug.is_empty() {
            break;
        }
        if !slug.is_empty() {
            slug.push('-');
        }
        slug.push_str(&word[..word.len().min(SLUG_CHARACTERS)]);
    }
    slug
}

#[derive(Default)]
struct Builder {
    roles: Vec<Role>,
    by_key: HashMap<String, usize>,
    role_ids: HashSet<String>,
    requirements: Vec<Requirement>,
    requirement_ids: HashMap<String, usize>,
    notes: Vec<Note>,
    before: Vec<usize>,
}

impl Builder {
    fn document(
        &mut self,
        document: &Document,
        interpretation: rows::Interpretation,
        prefix: &str,
        title: &str,
    ) {
        let start = self.notes.len();
        self.notes
            .extend(interpretation.printed.into_iter().map(|printed| Note {
                file: document.name.clone(),
                line: printed.line,
                kind: if printed.taken {
                    NoteKind::Taken
                } else {
                    NoteKind::Left
                },
                text: printed.text,
            }));
        let used: Vec<usize> = interpretation
            .found
            .iter()
            .flat_map(|found| [found.from, found.to])
            .filter_map(|end| match end {
                End::Named(index) => Some(index),
                End::Unknown | End::BuiltIn(_) => None,
            })
            .collect();
        let merged = merge(&interpretation.ends, &used);
        for found in interpretation.found {
            self.requirement(found, &interpretation.ends, &merged, start, prefix, title);
        }
    }

    fn requirement(
        &mut self,
        found: Found,
        ends: &[Endpoint],
        merged: &HashMap<String, String>,
        start: usize,
        prefix: &str,
        title: &str,
    ) {
        let mut doubts = found.doubts;
        let mut role = |end: End, doubts: &mut Vec<String>| match end {
            End::Unknown => RoleRef::BuiltIn(BuiltInRole::Unknown),
            End::BuiltIn(role) => RoleRef::BuiltIn(role),
            End::Named(index) => {
                let endpoint = &ends[index];
                let key = endpoint::key(&endpoint.title);
                match merged.get(&key) {
                    Some(longer) => {
                        doubts.push(format!("`{}` is taken for `{longer}`", endpoint.title));
                        self.role(longer, &endpoint.names)
                    }
                    None => self.role(&endpoint.title, &endpoint.names),
                }
            }
        };
        let from = role(found.from, &mut doubts);
        let to = role(found.to, &mut doubts);
        let section = if found.section.trim().is_empty() {
            title.to_owned()
        } else {
            found.section
        };
        let id = self.id(from, to, found.services.first().map(ToString::to_string));
        rows::dedup(&mut doubts);
        let purpose = found.purpose.trim().to_owned();
        self.before.push(start + found.at + 1);
        self.requirements.push(Requirement {
            id,
            from,
            to,
            services: found.services,
            direction: found.direction,
            necessity: found.necessity,
            application: found.application.filter(|text| !text.trim().is_empty()),
            purpose: (!purpose.is_empty()).then_some(purpose),
            provenance: Some(Provenance {
                section: format!("{prefix}{section}"),
                row: found.row.max(1),
            }),
            doubts,
        });
    }

    fn role(&mut self, title: &str, names: &[String]) -> RoleRef {
        let key = endpoint::key(title);
        let index = match self.by_key.get(&key) {
            Some(index) => *index,
            None => {
                let id = self.role_id(title);
                self.roles.push(Role {
                    id,
                    title: Some(title.to_owned()),
                    names: Vec::new(),
                });
                self.by_key.insert(key, self.roles.len() - 1);
                self.roles.len() - 1
            }
        };
        let role = &mut self.roles[index];
        for name in names {
            if let Ok(parsed) = Binding::parse(name)
                && !role.names.contains(&parsed.binding)
            {
                role.names.push(parsed.binding);
            }
        }
        RoleRef::Declared(RoleIndex::from_position(index))
    }

    fn role_id(&mut self, title: &str) -> RoleId {
        let mut base = slug(title);
        if base.is_empty() || BuiltInRole::from_id(&base).is_some() {
            base = if base.is_empty() {
                "role".to_owned()
            } else {
                format!("{base}-role")
            };
        }
        let mut id = base.clone();
        let mut number = 2;
        while !self.role_ids.insert(id.clone()) {
            id = format!("{base}-{number}");
            number += 1;
        }
        RoleId::new(&id).unwrap_or_else(|_| fallback("role", RoleId::new))
    }

    fn id(&mut self, from: RoleRef, to: RoleRef, service: Option<String>) -> RequirementId {
        let name = |role: RoleRef| match role {
            RoleRef::Declared(index) => self.roles[index.get()].id.as_str(),
            RoleRef::BuiltIn(role) => role.id(),
        };
        let mut base = format!("{}-to-{}", name(from), name(to));
        if let Some(service) = service {
            base.push('-');
            base.push_str(&service.replace('/', "-"));
        }
        let count = self.requirement_ids.entry(base.clone()).or_insert(0);
        *count += 1;
        let id = if *count == 1 {
            base
        } else {
            format!("{base}-{count}")
        };
        // `a-2` may also be somebody's own id.
        if *count > 1 && self.requirement_ids.contains_key(&id) {
            return self.id(
                from,
                to,
                Some(format!("again-{}", self.requirement_ids.len())),
            );
        }
        self.requirement_ids.entry(id.clone()).or_insert(1);
        RequirementId::new(&id).unwrap_or_else(|_| fallback("requirement", RequirementId::new))
    }
}

/// Whether a host's first label says what it serves, not which component it is.
fn is_common(label: &str) -> bool {
    super::vocabulary::application(label).is_some()
        || matches!(
            label,
            "www"
                | "api"
                | "mail"
                | "login"
                | "cdn"
                | "web"
                | "download"
                | "downloads"
                | "update"
                | "updates"
        )
}

/// Names that are the end of exactly one longer name (`Provider Agent` of `RAS Provider Agent`), or that differ from
/// another by a stray letter, and hosts that are named after a component: short key to long title.
fn merge(ends: &[Endpoint], used: &[usize]) -> HashMap<String, String> {
    let mut titles: HashMap<String, &str> = HashMap::new();
    let mut merged = HashMap::new();
    for index in used {
        let endpoint = &ends[*index];
        if endpoint.names.is_empty() {
            titles
                .entry(endpoint::key(&endpoint.title))
                .or_insert(&endpoint.title);
        }
    }
    // `analytics.example.org` is the host of `Analytics`.
    for index in used {
        let endpoint = &ends[*index];
        if let [name] = endpoint.names.as_slice()
            && *name == endpoint.title.to_lowercase()
            && let Some((label, rest)) = name.split_once('.')
            && rest.contains('.')
            && !is_common(label)
            && let Some(title) = titles.get(label)
        {
            merged.insert(endpoint::key(&endpoint.title), (*title).to_owned());
        }
    }
    // Every ending of two words or more, with the names that have it.
    let mut endings: HashMap<&str, Vec<&str>> = HashMap::new();
    for (key, title) in &titles {
        if [" - ", " and ", " or ", ","]
            .iter()
            .any(|joint| title.contains(joint))
        {
            continue;
        }
        for (at, _) in key.match_indices(' ') {
            let ending = &key[at + 1..];
            if ending.contains(' ') {
                endings.entry(ending).or_default().push(title);
            }
        }
    }
    for key in titles.keys() {
        if let Some([longer]) = endings.get(key.as_str()).map(Vec::as_slice) {
            merged.insert(key.clone(), (*longer).to_owned());
            continue;
        }
        // The heading says `X`, the cell below it `X Service`.
        if let Some(shorter) = key
            .strip_suffix(" service")
            .or_else(|| key.strip_suffix(" services"))
            && let Some(title) = titles.get(shorter)
        {
            merged.insert(key.clone(), (*title).to_owned());
            continue;
        }
        // A capital tells one from another: `Site A`, `Site B`.
        let title = titles.get(key).copied().unwrap_or_default();
        let capital = |letter: &str| {
            title
                .split_whitespace()
                .any(|word| word.len() == 1 && word == letter.to_uppercase())
        };
        let without: Vec<&str> = key
            .split(' ')
            .filter(|word| {
                word.len() > 1
                    || !word.bytes().all(|byte| byte.is_ascii_alphabetic())
                    || capital(word)
            })
            .collect();
        let without = without.join(" ");
        if without != *key
            && let Some(title) = titles.get(&without)
        {
            merged.insert(key.clone(), (*title).to_owned());
        }
    }
    // A name that is itself taken for another one is no name to be taken.
    let taken: HashSet<String> = merged.keys().cloned().collect();
    merged.retain(|_, title| !taken.contains(&endpoint::key(title)));
    merged
}
