//! What a fleet needs to join the two ends of a requirement: where this agent stands to it, and how its flows failed last. Not
//! counters but moments, so that a recording rule compares two numbers of two agents and reads no ranges.

use flowproof_common::state::Outcome;

use super::{Exposition, Family, of_epoch};
use crate::engine::chronicle::{Row, Standing};
use crate::matrix::ServiceKey;
use crate::verdict::requirement::{Failure, Place};
use crate::verdict::stance::Stance;

pub(super) fn families(standing: &Standing, families: &mut Exposition) {
    let mut vantage = Family::gauge(
        "flowproof_requirement_vantage",
        "Where this agent stands to a requirement, always 1: at its initiator, at its responder, at both (either end may initiate, or the host has both roles), on the path of what comes by, or none of these. site is the name that the site file gives; agents of one site see the same rows.",
    );
    let mut share = Family::gauge(
        "flowproof_requirement_share",
        "This host's part of the addresses of the end of a requirement that this agent is at, 0 to 1; 0 if prefixes, names or service tags are among them, no series where it is at neither end or at both. Where the agents of an end come to 1 in sum, nothing is sent or arrives there unseen.",
    );
    let mut failed = Family::gauge(
        "flowproof_requirement_last_failed_timestamp_seconds",
        "When the last failure of a requirement's service was decided, in seconds since the Unix epoch; no series if there never was one. How: outcome; where: place (this_host, hop, peer, path, unknown); whether the responder had answered to no avail: reply (seen, none, unknown).",
    );
    let matrix = &standing.view.matrix.compiled.matrix;
    for (index, system) in matrix.indexed_systems() {
        for (position, requirement) in system.indexed_requirements() {
            let names = [
                ("system", system.id.as_str()),
                ("requirement", requirement.id.as_str()),
            ];
            let mut in_force = false;
            for (service, value) in requirement.indexed_services() {
                let key = ServiceKey {
                    system: index,
                    requirement: position,
                    service,
                };
                let Some(row) = standing.row(key) else {
                    continue;
                };
                in_force = true;
                if let Some(failure) = row.last_failure {
                    let service = value.to_string();
                    let labels = [
                        names[0],
                        names[1],
                        ("service", service.as_str()),
                        ("outcome", Outcome::name(failure.outcome)),
                        ("place", place(failure)),
                        ("reply", reply(row)),
                    ];
                    failed.push(&labels, of_epoch(failure.at));
                }
            }
            if !in_force {
                continue;
            }
            let stand = standing.place.stances.of(index, position);
            let labels = [
                ("site", &*standing.place.site),
                names[0],
                names[1],
                ("vantage", stand.stance.name()),
            ];
            vantage.push(&labels, 1.0);
            if matches!(stand.stance, Stance::Initiator | Stance::Responder) {
                share.push(&names, stand.share);
            }
        }
    }
    for family in [vantage, share, failed] {
        families.push(family);
    }
}

/// Without the address that it may have.
const fn place(failure: Failure) -> &'static str {
    match failure.place {
        Some(Place::ThisHost) => "this_host",
        Some(Place::Hop(_)) => "hop",
        Some(Place::Peer) => "peer",
        Some(Place::Path) => "path",
        None => "unknown",
    }
}

const fn reply(row: &Row) -> &'static str {
    match row.replied {
        Some(true) => "seen",
        Some(false) => "none",
        None => "unknown",
    }
}
