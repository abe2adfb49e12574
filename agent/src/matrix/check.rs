//! What a valid system still leaves open or says oddly: roles that nothing uses, rows that state the same flow, rows
//! that can't be observed, and the doubts of the pack's author. Warnings and notes only; errors are found on reading.

use std::collections::BTreeSet;

use foldhash::{HashMap, HashMapExt};

use super::model::{BuiltInRole, RequirementIndex, RoleRef, System};
use super::service::Service;
use crate::yaml::{Reporter, Span};

/// Reports warnings and notes about a system. `roles` and `requirements` are the places of its roles and
/// requirements, in the order of the model.
pub(super) fn system(
    system: &System,
    roles: &[Span],
    requirements: &[Span],
    reporter: &mut Reporter,
) {
    unused_roles(system, roles, reporter);
    for (requirement, span) in system.requirements.iter().zip(requirements) {
        let id = &requirement.id;
        if requirement.services.is_empty() {
            reporter.note(
                "no-services",
                *span,
                format!(
                    "`{id}` names no service: no flow can be judged by it, so it stays unobservable"
                ),
            );
        }
        for (key, role) in [("from", requirement.from), ("to", requirement.to)] {
            if role == RoleRef::BuiltIn(BuiltInRole::Unknown) {
                reporter.note(
                    "unknown-endpoint",
                    *span,
                    format!("`{key}` of `{id}` is `unknown`: the requirement stays unobservable"),
                );
            }
        }
        let broadcast = RoleRef::BuiltIn(BuiltInRole::Broadcast);
        if requirement
            .initiations()
            .any(|(initiator, _)| initiator == broadcast)
        {
            reporter.warning(
                "broadcast-initiates",
                *span,
                format!("`{id}` lets `broadcast` initiate, which no packet can: turn `from` and `to` or the direction"),
            );
        }
        for doubt in &requirement.doubts {
            reporter.note("doubt", *span, format!("doubt about `{id}`: {doubt}"));
        }
    }
    same_flows(system, requirements, reporter);
}

fn unused_roles(system: &System, spans: &[Span], reporter: &mut Reporter) {
    let mut used = vec![false; system.roles.len()];
    for requirement in &system.requirements {
        for role in [requirement.from, requirement.to] {
            if let RoleRef::Declared(index) = role {
                used[index.get()] = true;
            }
        }
    }
    for ((role, span), used) in system.roles.iter().zip(spans).zip(used) {
        if !used {
            reporter.warning(
                "unused-role",
                *span,
                format!("no requirement names the role `{}`: remove it, or add the rows that are missing", role.id),
            );
        }
    }
}

/// Two rows may state the same flow, but then a flow counts for both, and one of them is often a slip. Rows are
/// compared by who initiates towards whom, so that `inbound` is seen to repeat the `outbound` row of the other end.
fn same_flows(system: &System, spans: &[Span], reporter: &mut Reporter) {
    let mut stated: HashMap<(RoleRef, RoleRef, Service), RequirementIndex> =
        HashMap::with_capacity(system.requirements.len());
    for ((index, requirement), span) in system.indexed_requirements().zip(spans) {
        let mut repeated: Option<(RequirementIndex, BTreeSet<Service>)> = None;
        for (initiator, responder) in requirement.initiations() {
            for service in &requirement.services {
                let first = *stated
                    .entry((initiator, responder, *service))
                    .or_insert(index);
                if first != index {
                    repeated
                        .get_or_insert_with(|| (first, BTreeSet::new()))
                        .1
                        .insert(*service);
                }
            }
        }
        if let Some((first, services)) = repeated {
            let services: Vec<String> = services.iter().map(Service::to_string).collect();
            reporter.warning(
                "same-flow",
                *span,
                format!(
                    "`{}` states the same flow as `{}` in line {}: {}",
                    requirement.id,
                    system.requirement(first).id,
                    spans
                        .get(first.get())
                        .map_or(0, |span| reporter.line(*span)),
                    services.join(", ")
                ),
            );
        }
    }
}
