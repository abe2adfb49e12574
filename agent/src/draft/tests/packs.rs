//! The rule packs of the repository: each row taken out and put back again, with a flow for each of its services.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::*;
use crate::matrix::compiled::BoundRole;
use crate::matrix::{
    Binding, BuiltInRole, Protocol, Requirement, RoleIndex, RoleRef, Service, System, SystemIndex,
};
use crate::verdict::{Asked, Explainer};

const SYSTEM: SystemIndex = SystemIndex(0);

fn packs() -> Vec<System> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules");
    Matrix::read(&[folder]).unwrap().matrix.systems
}

/// The address of a role, in no other's prefix.
fn host(role: RoleRef, from: RoleRef) -> IpAddr {
    match role {
        RoleRef::Declared(RoleIndex(number)) => {
            let [_, _, c, d] = number.to_be_bytes();
            IpAddr::from([10, 7, c, d])
        }
        RoleRef::BuiltIn(BuiltInRole::Broadcast) => IpAddr::from([255; 4]),
        // Nobody knows which addresses are this host's: one that is bound singly talks to itself.
        RoleRef::BuiltIn(BuiltInRole::Localhost) if role != from => host(from, from),
        RoleRef::BuiltIn(BuiltInRole::Localhost) => IpAddr::from([127, 0, 0, 1]),
        RoleRef::BuiltIn(BuiltInRole::Any | BuiltInRole::Unknown) => IpAddr::from([192, 0, 2, 77]),
    }
}

/// The system with each role bound to a host of its own, and nothing by name: names are another test's.
fn bound(system: &System) -> Arc<Installed> {
    let bindings = system
        .indexed_roles()
        .map(|(index, _)| {
            let role = RoleRef::Declared(index);
            let address = Binding::Prefix(IpNet::from(host(role, role)));
            let role = BoundRole {
                system: SYSTEM,
                role,
            };
            (role, vec![address])
        })
        .collect();
    let matrix = Matrix {
        systems: vec![system.clone()],
    };
    Arc::new(install(matrix, bindings, &HostAddresses::Unknown))
}

fn flow(initiator: RoleRef, responder: RoleRef, service: Service) -> HourRecord {
    let protocol = service.protocol();
    let number = match (protocol, service.first()) {
        (_, Some(first)) => first,
        (Protocol::Icmp, None) => 8,
        (Protocol::Icmpv6, None) => 128,
        (Protocol::Tcp | Protocol::Udp | Protocol::Vrrp | Protocol::Other(_), None) => 0,
    };
    let from = host(initiator, initiator).to_string();
    let to = host(responder, initiator).to_string();
    let mut flow = record(0, &from, &to, (protocol.number(), number), 2);
    flow.key.verdict = Verdict::Expected;
    flow
}

fn flows(row: &Requirement) -> Vec<HourRecord> {
    let unknown = RoleRef::BuiltIn(BuiltInRole::Unknown);
    row.initiations()
        .filter(|(from, to)| *from != unknown && *to != unknown)
        .flat_map(|(from, to)| {
            row.services
                .iter()
                .map(move |service| flow(from, to, *service))
        })
        .collect()
}

fn is_covered(by: &Explainer, flow: &HourRecord) -> bool {
    let asked = Asked {
        initiator: flow.key.initiator,
        initiator_port: None,
        responder: flow.key.responder,
        protocol: flow.key.protocol,
        service: flow.key.port,
    };
    by.explain(&asked, &[None, None]).verdict == Verdict::Expected
}

fn judge_all(
    in_force: &Arc<Installed>,
    draft: &Arc<Installed>,
    flows: &[HourRecord],
) -> DraftReport {
    let mut judge = Judge::new(Arc::clone(in_force), Arc::clone(draft));
    for flow in flows {
        judge.add(flow);
    }
    judge.report()
}

#[test]
fn a_row_of_a_pack_taken_out_is_missed_and_put_back_is_found() {
    let mut missed = 0;
    for pack in packs() {
        let whole = bound(&pack);
        let all = Explainer::new(Arc::clone(&whole));
        for (index, row) in pack.indexed_requirements() {
            let flows = flows(row);
            if flows.is_empty() {
                continue;
            }
            let id = format!("{}/{}", pack.id, row.id);
            assert!(flows.iter().all(|flow| is_covered(&all, flow)), "{id}");
            let mut without = pack.clone();
            without.requirements.remove(index.get());
            let rest = bound(&without);
            let others = Explainer::new(Arc::clone(&rest));
            let expect: u64 = flows
                .iter()
                .filter(|flow| !is_covered(&others, flow))
                .map(|flow| flow.counts.begun)
                .sum();
            let removed = judge_all(&whole, &rest, &flows);
            let lost = removed.counts.newly_unexpected.flows + removed.counts.newly_unscoped.flows;
            assert_eq!(lost, expect, "{id} {removed:#?}");
            for group in &removed.newly_unexpected.groups {
                let rows: BTreeSet<&str> = group
                    .covered_in_force
                    .iter()
                    .filter_map(|service| service.split_once('#'))
                    .map(|(row, _)| row)
                    .collect();
                assert_eq!(rows, BTreeSet::from([id.as_str()]));
            }
            let added = judge_all(&rest, &whole, &flows);
            assert_eq!(added.counts.newly_covered.flows, expect, "{id}");
            let used = added.used.iter().find(|used| used.id == id).unwrap();
            assert!(used.new);
            assert_eq!(
                used.services
                    .iter()
                    .filter(|service| service.tally.flows > 0)
                    .count(),
                row.services.len(),
                "{id}"
            );
            missed += usize::from(expect > 0);
        }
    }
    // The baselines and the vendors' packs have hundreds of rows, few of which another one repeats.
    assert!(missed > 200, "{missed}");
}
