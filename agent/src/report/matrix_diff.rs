//! What differs between two matrices: which rows and roles came, went, changed or only got another id, and whether any of
//! it changes how traffic is judged. A vendor's new edition of a table is read this way before it is put to work.
//!
//! Systems are matched by id, roles and requirements by id within their system. What is left over on both sides is a
//! rename if its content is the same and it is the only one with that content; what can't be told apart is not
//! guessed at. Who is renamed to whom does not depend on which matrix is the old one, so that the difference of two
//! matrices the other way round is its mirror image.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::matrix::{Matrix, Provenance, Requirement, Role, RoleRef, System};

/// What became of a system, a role or a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Only in the new matrix.
    Added,
    /// Only in the old matrix.
    Removed,
    /// In both, with other content.
    Changed,
    /// In both under different ids.
    Renamed,
}

impl Kind {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Renamed => "renamed",
        }
    }
}

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FieldChange {
    /// `from`, `to`, `services`, `direction`, `necessity`, `condition`, `names`, `provenance`, or `words` for what only
    /// people read: title, version, document, purpose, application, doubts.
    pub field: &'static str,
    /// In the old matrix, null if it was not given. Of services and names, only those that are gone.
    pub old: Option<String>,
    /// In the new matrix, null if it is not given. Of services and names, only those that are new.
    pub new: Option<String>,
    /// Whether traffic is judged otherwise for it, or silence weighed otherwise.
    pub judgement: bool,
}

/// What became of a role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RoleChange {
    /// Its id; the new one if it was renamed.
    pub id: String,
    /// Its id in the old matrix, if that was another.
    pub old_id: Option<String>,
    /// What became of it.
    pub change: Kind,
    /// Its title, of the new matrix unless it is gone.
    pub title: Option<String>,
    /// What differs, if it is in both.
    pub fields: Vec<FieldChange>,
    /// Whether this changes how traffic is judged. A new id does: the site file binds the old one.
    pub judgement: bool,
}

/// What became of a requirement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RequirementChange {
    /// Its id; the new one if it was renamed.
    pub id: String,
    /// Its id in the old matrix, if that was another.
    pub old_id: Option<String>,
    /// What became of it.
    pub change: Kind,
    /// Its roles, services and direction, of the new matrix unless it is gone.
    pub from: String,
    /// See `from`.
    pub to: String,
    /// See `from`.
    pub services: Vec<String>,
    /// See `from`.
    pub direction: &'static str,
    /// `required`, `optional` or `conditional`.
    pub necessity: &'static str,
    /// What differs, if it is in both.
    pub fields: Vec<FieldChange>,
    /// Whether this changes how traffic is judged. A new id alone does not.
    pub judgement: bool,
}

/// What became of a system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SystemChange {
    /// Its id.
    pub id: String,
    /// Added, removed or changed.
    pub change: Kind,
    /// What differs of the system itself.
    pub fields: Vec<FieldChange>,
    /// Its roles that differ, all of them if it was added or removed.
    pub roles: Vec<RoleChange>,
    /// Its requirements that differ, all of them if it was added or removed.
    pub requirements: Vec<RequirementChange>,
}

/// What differs between two matrices.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct MatrixDiff {
    /// Whether any difference changes how traffic is judged.
    pub judgement: bool,
    /// The systems that differ: those of the new matrix in its order, then those that are gone.
    pub systems: Vec<SystemChange>,
}

impl MatrixDiff {
    /// The differences from `old` to `new`.
    #[must_use]
    pub fn new(old: &Matrix, new: &Matrix) -> Self {
        let mut systems = Vec::new();
        for system in &new.systems {
            match old.find_system(system.id.as_str()) {
                Some(before) => systems.extend(changed_system(old.system(before), system)),
                None => systems.push(whole_system(system, Kind::Added)),
            }
        }
        for system in &old.systems {
            if new.find_system(system.id.as_str()).is_none() {
                systems.push(whole_system(system, Kind::Removed));
            }
        }
        Self {
            judgement: systems.iter().any(SystemChange::judgement),
            systems,
        }
    }
}

impl SystemChange {
    fn judgement(&self) -> bool {
        match self.change {
            Kind::Added | Kind::Removed => true,
            Kind::Changed | Kind::Renamed => {
                self.fields.iter().any(|field| field.judgement)
                    || self.roles.iter().any(|role| role.judgement)
                    || self.requirements.iter().any(|row| row.judgement)
            }
        }
    }
}

fn whole_system(system: &System, kind: Kind) -> SystemChange {
    SystemChange {
        id: system.id.to_string(),
        change: kind,
        fields: Vec::new(),
        roles: system
            .roles
            .iter()
            .map(|role| one_role(role, kind))
            .collect(),
        requirements: system
            .requirements
            .iter()
            .map(|row| one_row(system, row, kind))
            .collect(),
    }
}

fn one_role(role: &Role, kind: Kind) -> RoleChange {
    RoleChange {
        id: role.id.to_string(),
        old_id: None,
        change: kind,
        title: role.title.clone(),
        fields: Vec::new(),
        judgement: true,
    }
}

fn one_row(system: &System, row: &Requirement, kind: Kind) -> RequirementChange {
    RequirementChange {
        id: row.id.to_string(),
        old_id: None,
        change: kind,
        from: system.role_id(row.from).to_owned(),
        to: system.role_id(row.to).to_owned(),
        services: row.services.iter().map(ToString::to_string).collect(),
        direction: row.direction.as_str(),
        necessity: row.necessity.as_str(),
        fields: Vec::new(),
        judgement: true,
    }
}

/// Nothing if the two are the same.
fn changed_system(old: &System, new: &System) -> Option<SystemChange> {
    let document = |system: &System| {
        system.document.as_ref().map(|document| {
            let file = document.file.as_ref();
            let file = file.map(|file| format!(" ({file})")).unwrap_or_default();
            format!("{}{file}", document.title)
        })
    };
    let mut fields = Vec::new();
    words(
        &mut fields,
        Some(old.title.clone()),
        Some(new.title.clone()),
    );
    words(&mut fields, old.version.clone(), new.version.clone());
    words(&mut fields, document(old), document(new));

    let pairs = role_pairs(old, new);
    let roles = role_changes(old, new, &pairs);
    let requirements = row_changes(old, new, &pairs);
    if fields.is_empty() && roles.is_empty() && requirements.is_empty() {
        return None;
    }
    Some(SystemChange {
        id: new.id.to_string(),
        change: Kind::Changed,
        fields,
        roles,
        requirements,
    })
}

/// Positions (in the old list, in the new list) of what is the same thing in both.
type Pairs = Vec<(usize, usize)>;

/// Pairs what is not paired yet, if its key is the only one of its kind on both sides.
fn pair<K: Ord>(pairs: &mut Pairs, old: &[(usize, K)], new: &[(usize, K)]) {
    fn by_key<'a, K: Ord>(
        list: &'a [(usize, K)],
        taken: &BTreeSet<usize>,
    ) -> BTreeMap<&'a K, Vec<usize>> {
        let mut map: BTreeMap<&K, Vec<usize>> = BTreeMap::new();
        for (position, key) in list {
            if !taken.contains(position) {
                map.entry(key).or_default().push(*position);
            }
        }
        map
    }
    let (taken_old, taken_new) = pairs.iter().copied().unzip();
    let news = by_key(new, &taken_new);
    for (key, positions) in by_key(old, &taken_old) {
        if let ([before], Some([after])) = (positions.as_slice(), news.get(key).map(Vec::as_slice))
        {
            pairs.push((*before, *after));
        }
    }
}

fn keyed<'a, T, K>(list: &'a [T], key: impl Fn(&'a T) -> Option<K>) -> Vec<(usize, K)> {
    list.iter()
        .enumerate()
        .filter_map(|(position, item)| Some((position, key(item)?)))
        .collect()
}

fn role_pairs(old: &System, new: &System) -> Pairs {
    let mut pairs = Pairs::new();
    let id = |role| Some(Role::clone(role).id);
    pair(&mut pairs, &keyed(&old.roles, id), &keyed(&new.roles, id));
    // A role without title and names has nothing to be recognized by.
    let content = |role: &Role| {
        let names: BTreeSet<String> = role.names.iter().map(ToString::to_string).collect();
        (role.title.is_some() || !names.is_empty()).then(|| (role.title.clone(), names))
    };
    pair(
        &mut pairs,
        &keyed(&old.roles, content),
        &keyed(&new.roles, content),
    );
    pairs
}

fn role_changes(old: &System, new: &System, pairs: &Pairs) -> Vec<RoleChange> {
    let before: HashMap<usize, usize> = pairs.iter().map(|(old, new)| (*new, *old)).collect();
    let after: HashMap<usize, usize> = pairs.iter().copied().collect();
    let mut changes = Vec::new();
    for (position, role) in new.roles.iter().enumerate() {
        let Some(was) = before.get(&position).map(|old_at| &old.roles[*old_at]) else {
            changes.push(one_role(role, Kind::Added));
            continue;
        };
        let mut fields = Vec::new();
        words(&mut fields, was.title.clone(), role.title.clone());
        let names = |role: &Role| role.names.iter().map(ToString::to_string).collect();
        set(&mut fields, "names", &names(was), &names(role));
        let renamed = was.id != role.id;
        if renamed || !fields.is_empty() {
            changes.push(RoleChange {
                id: role.id.to_string(),
                old_id: renamed.then(|| was.id.to_string()),
                change: if renamed {
                    Kind::Renamed
                } else {
                    Kind::Changed
                },
                title: role.title.clone(),
                judgement: renamed || fields.iter().any(|field| field.judgement),
                fields,
            });
        }
    }
    for (position, role) in old.roles.iter().enumerate() {
        if !after.contains_key(&position) {
            changes.push(one_role(role, Kind::Removed));
        }
    }
    changes
}

/// An end of a row as both matrices would name it: by the position in the new one where the role is in both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    InBoth(usize),
    OnlyHere(String),
}

/// What a row is judged by.
type Judged = (
    End,
    End,
    BTreeSet<String>,
    &'static str,
    (&'static str, Option<String>),
);

fn row_changes(old: &System, new: &System, roles: &Pairs) -> Vec<RequirementChange> {
    let new_roles: HashMap<usize, usize> = roles.iter().copied().collect();
    let shared: BTreeSet<usize> = roles.iter().map(|(_, new)| *new).collect();
    let end = |system: &System, role: RoleRef, position: &dyn Fn(usize) -> Option<usize>| match role
    {
        RoleRef::Declared(index) => position(index.get()).map_or_else(
            || End::OnlyHere(system.role_id(role).to_owned()),
            End::InBoth,
        ),
        RoleRef::BuiltIn(role) => End::OnlyHere(role.id().to_owned()),
    };
    let old_end = |role| end(old, role, &|at| new_roles.get(&at).copied());
    let new_end = |role| end(new, role, &|at| shared.contains(&at).then_some(at));
    let judged = |row: &Requirement, end: &dyn Fn(RoleRef) -> End| -> Judged {
        (
            end(row.from),
            end(row.to),
            services(row).into_iter().collect(),
            row.direction.as_str(),
            (
                row.necessity.as_str(),
                row.necessity.condition().map(ToOwned::to_owned),
            ),
        )
    };
    let text = |row: &Requirement| {
        let provenance = row.provenance.as_ref().map(provenance);
        (
            row.purpose.clone(),
            row.application.clone(),
            row.doubts.clone(),
            provenance,
        )
    };

    let (olds, news) = (&old.requirements, &new.requirements);
    let mut pairs = Pairs::new();
    let id = |row: &Requirement| Some(row.id.clone());
    pair(&mut pairs, &keyed(olds, id), &keyed(news, id));
    let all_of =
        |row: &Requirement, end: &dyn Fn(RoleRef) -> End| Some((judged(row, end), text(row)));
    pair(
        &mut pairs,
        &keyed(olds, |row| all_of(row, &old_end)),
        &keyed(news, |row| all_of(row, &new_end)),
    );
    pair(
        &mut pairs,
        &keyed(olds, |row| Some(judged(row, &old_end))),
        &keyed(news, |row| Some(judged(row, &new_end))),
    );

    let before: HashMap<usize, usize> = pairs.iter().map(|(old, new)| (*new, *old)).collect();
    let after: HashMap<usize, usize> = pairs.iter().copied().collect();
    let mut changes = Vec::new();
    for (position, row) in news.iter().enumerate() {
        let mut change = one_row(new, row, Kind::Added);
        let Some(was) = before.get(&position).map(|old_at| &olds[*old_at]) else {
            changes.push(change);
            continue;
        };
        change.fields = row_fields(
            old,
            was,
            new,
            row,
            [
                old_end(was.from) == new_end(row.from),
                old_end(was.to) == new_end(row.to),
            ],
        );
        let renamed = was.id != row.id;
        change.change = if renamed {
            Kind::Renamed
        } else {
            Kind::Changed
        };
        change.old_id = renamed.then(|| was.id.to_string());
        change.judgement = change.fields.iter().any(|field| field.judgement);
        if renamed || !change.fields.is_empty() {
            changes.push(change);
        }
    }
    for (position, row) in olds.iter().enumerate() {
        if !after.contains_key(&position) {
            changes.push(one_row(old, row, Kind::Removed));
        }
    }
    changes
}

/// What differs between two rows; `same_ends` says whether `from` and `to` are the same roles, whatever their ids.
fn row_fields(
    old: &System,
    was: &Requirement,
    new: &System,
    row: &Requirement,
    same_ends: [bool; 2],
) -> Vec<FieldChange> {
    let mut fields = Vec::new();
    let mut judged = |field, same: bool, old: Option<&str>, new: Option<&str>| {
        if !same {
            fields.push(FieldChange {
                field,
                old: old.map(ToOwned::to_owned),
                new: new.map(ToOwned::to_owned),
                judgement: true,
            });
        }
    };
    judged(
        "from",
        same_ends[0],
        Some(old.role_id(was.from)),
        Some(new.role_id(row.from)),
    );
    judged(
        "to",
        same_ends[1],
        Some(old.role_id(was.to)),
        Some(new.role_id(row.to)),
    );
    judged(
        "direction",
        was.direction == row.direction,
        Some(was.direction.as_str()),
        Some(row.direction.as_str()),
    );
    let necessity = [&was.necessity, &row.necessity];
    judged(
        "necessity",
        necessity[0].as_str() == necessity[1].as_str(),
        Some(necessity[0].as_str()),
        Some(necessity[1].as_str()),
    );
    judged(
        "condition",
        necessity[0].condition() == necessity[1].condition(),
        necessity[0].condition(),
        necessity[1].condition(),
    );
    set(&mut fields, "services", &services(was), &services(row));
    let places = [&was.provenance, &row.provenance].map(|place| place.as_ref().map(provenance));
    let [before, after] = places;
    if before != after {
        fields.push(FieldChange {
            field: "provenance",
            old: before,
            new: after,
            judgement: false,
        });
    }
    words(&mut fields, was.purpose.clone(), row.purpose.clone());
    words(
        &mut fields,
        was.application.clone(),
        row.application.clone(),
    );
    let doubts = |row: &Requirement| (!row.doubts.is_empty()).then(|| row.doubts.join("; "));
    words(&mut fields, doubts(was), doubts(row));
    fields
}

fn services(row: &Requirement) -> Vec<String> {
    row.services.iter().map(ToString::to_string).collect()
}

fn provenance(provenance: &Provenance) -> String {
    format!("{}, row {}", provenance.section, provenance.row)
}

fn words(fields: &mut Vec<FieldChange>, old: Option<String>, new: Option<String>) {
    if old != new {
        fields.push(FieldChange {
            field: "words",
            old,
            new,
            judgement: false,
        });
    }
}

/// What left a set and what came into it; their order says nothing.
fn set(fields: &mut Vec<FieldChange>, field: &'static str, old: &Vec<String>, new: &Vec<String>) {
    let without = |list: &Vec<String>, others: &Vec<String>| {
        let rest: Vec<&str> = list
            .iter()
            .filter(|text| !others.contains(text))
            .map(String::as_str)
            .collect();
        (!rest.is_empty()).then(|| rest.join(", "))
    };
    let (gone, come) = (without(old, new), without(new, old));
    if gone.is_some() || come.is_some() {
        fields.push(FieldChange {
            field,
            old: gone,
            new: come,
            judgement: true,
        });
    }
}

#[cfg(test)]
mod tests;
