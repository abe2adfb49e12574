//! A flow in JSON: the same line from `flowproof replay`, from the daemon's API and under `flowproof explain`. Every field
//! is always there, null where it means nothing.

use std::borrow::Cow;
use std::sync::Arc;

use flowproof_common::classify::Verdict;
use flowproof_common::key::{FlowKey, Side};
use flowproof_common::protocol;
use flowproof_common::record::{FlowRecord, index};
use flowproof_common::state::{Outcome, Phase, State};
use serde::{Deserialize, Serialize};

use super::times::time;
use crate::flow::Span;
use crate::flow::notes::IcmpError;
use crate::matrix::compiled::BoundRole;
use crate::matrix::installed::Installed;
use crate::matrix::{Protocol, ServiceKey};
use crate::names::answer::Name;
use crate::names::{FlowName, Namer};
use crate::plural::counted;
use crate::verdict::near_miss::Kind;
use crate::verdict::{Asked, Explainer, role_name};

/// A flow with what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its 5-tuple.
    pub key: &'a FlowKey,
    /// Counts and state.
    pub record: &'a FlowRecord,
    /// First and last packet, nanoseconds since the Unix epoch.
    pub span: Span,
    /// ICMP errors about it, the last one last.
    pub errors: &'a [IcmpError],
    /// Outcomes that a later packet overturned.
    pub overturned: &'a [Outcome],
    /// Why this host's kernel dropped a packet of it, by the kernel's name.
    pub drop_reason: Option<&'a str>,
    /// What names are known of it.
    pub names: &'a KnownNames,
}

/// Names of a flow.
#[derive(Clone, Debug, Default)]
pub struct KnownNames {
    /// What the flow was judged by, if its verdict depended on a name.
    pub flow: Option<Arc<FlowName>>,
    /// Names of the initiator's address by DNS.
    pub initiator: Vec<Name>,
    /// Names of the responder's address by DNS.
    pub responder: Vec<Name>,
    /// Roles that both ends have because of a name.
    pub roles: [Vec<BoundRole>; 2],
}

impl KnownNames {
    /// Names that one end is given.
    const MOST: usize = 8;

    /// What `namer` knows of a flow.
    #[must_use]
    pub fn of(namer: &Namer, key: &FlowKey, record: &FlowRecord) -> Self {
        let initiator = record.state.initiator();
        let [from, to] = [initiator, initiator.other()].map(|side| key.end(side).0);
        let roles = |address| {
            namer
                .matrix()
                .roles_of_class(namer.class_of(&address))
                .to_vec()
        };
        let flow = namer.flow_name(key, record).cloned();
        // The name that the flow was judged by may be unknown to DNS, or one of several that share the address. One that
        // is contradicted gives no role.
        let judged_by = flow
            .as_ref()
            .filter(|flow| flow.mismatch.is_none())
            .and_then(|flow| flow.name.as_ref());
        Self {
            initiator: namer.names_of(&from, Self::MOST),
            responder: namer.names_of(&to, Self::MOST),
            roles: [
                roles(from),
                judged_by.map_or_else(|| roles(to), |name| namer.roles_under(&to, name)),
            ],
            flow,
        }
    }
}

impl Facts<'_> {
    const fn initiator(&self) -> Side {
        self.record.state.initiator()
    }

    const fn responder(&self) -> Side {
        self.initiator().other()
    }

    /// Short texts that say what the outcome rests on.
    #[must_use]
    pub fn evidence(&self) -> Vec<String> {
        let state = self.record.state;
        let answers = self.record.packets[index(self.responder())];
        let mut texts = Vec::new();
        if self.key.protocol == protocol::TCP {
            let syns = match state.syns() {
                0 => None,
                1 => Some("1 SYN".to_owned()),
                15 => Some("15 or more SYNs".to_owned()),
                many => Some(format!("{many} SYNs")),
            };
            match (syns, state.phase(), state.outcome()) {
                (Some(syns), Phase::SynSent, _) => texts.push(format!("{syns}, no answer")),
                (Some(syns), Phase::SynAck, _) => {
                    texts.push(format!("{syns}, SYN-ACK not acknowledged"));
                }
                (Some(syns), _, Outcome::Refused) if self.errors.is_empty() => {
                    texts.push(format!("{syns}, answered by RST"));
                }
                (Some(_), _, Outcome::Answered | Outcome::ClosedAfterAnswer) => {
                    texts.push("handshake completed".to_owned());
                }
                (None, _, Outcome::Answered | Outcome::ClosedAfterAnswer) => {
                    texts.push("joined midway, both sides heard".to_owned());
                }
                (Some(syns), _, _) => texts.push(syns),
                (None, _, _) => texts.push("joined midway".to_owned()),
            }
        } else if answers > 0 {
            texts.push(counted(answers, "answering packet"));
        } else {
            let sent = self.record.packets[index(self.initiator())];
            texts.push(format!("{}, no answer", counted(sent, "packet")));
        }
        let family = if self.key.a.is_v4() { "ICMP" } else { "ICMPv6" };
        for error in self.errors {
            texts.push(format!(
                "{family} {}/{} from {}",
                error.icmp_type, error.icmp_code, error.hop
            ));
        }
        texts.extend(
            self.drop_reason
                .map(|reason| format!("dropped by this host's kernel: {reason}")),
        );
        for outcome in self.overturned {
            texts.push(format!("{} before", outcome.name()));
        }
        if state.is_held() {
            texts.push(if state.joined_midway() {
                "waits for its name, which went by before the capture began".to_owned()
            } else {
                "waits for its name".to_owned()
            });
        }
        if let Some(name) = &self.names.flow {
            texts.extend(name.evidence());
        }
        texts
    }

    /// What the flow nearly met, best first, if it is unexpected; nothing for others.
    fn near_misses(&self, explainer: &Explainer) -> Vec<NearMiss> {
        match self.record.state.verdict() {
            Verdict::Unexpected if !self.record.state.is_held() => {}
            Verdict::Unexpected | Verdict::Expected | Verdict::Unscoped => return Vec::new(),
        }
        let installed = explainer.installed();
        let matrix = &installed.compiled.matrix;
        let mismatch = self
            .names
            .flow
            .as_ref()
            .and_then(|name| name.mismatch.as_ref());
        let mismatches = mismatch.into_iter().flat_map(|mismatch| {
            let members = installed.members(mismatch.slot).iter();
            members.map(|service| NearMiss {
                kind: Kind::NameMismatch.name().into(),
                requirement: matrix.service_id(*service),
                detail: mismatch.detail.clone(),
            })
        });
        let (initiator, port) = self.key.end(self.initiator());
        let asked = Asked {
            initiator,
            initiator_port: protocol::has_ports(self.key.protocol).then_some(port),
            responder: self.key.end(self.responder()).0,
            protocol: self.key.protocol,
            service: self.key.service(self.responder()),
        };
        // An address that is allowed under another name says nothing of what this one nearly met.
        let [from, to] = if mismatch.is_some() {
            [Vec::new(), Vec::new()]
        } else {
            self.names.roles.clone()
        };
        let others = explainer
            .near_misses_between(&asked, &from, &to)
            .into_iter()
            .map(|miss| NearMiss {
                kind: miss.kind.name().into(),
                requirement: matrix.service_id(miss.service),
                detail: miss.detail,
            });
        mismatches.chain(others).collect()
    }

    fn end(&self, side: Side, explainer: &Explainer) -> End {
        let (address, port) = self.key.end(side);
        let installed = explainer.installed();
        End {
            address: address.to_string(),
            port: protocol::has_ports(self.key.protocol).then_some(port),
            roles: self
                .roles(side, installed.roles_of(&address))
                .into_iter()
                .map(|role| role_name(&installed.compiled, role))
                .collect(),
            names: self.names_of(side),
        }
    }

    /// Roles of an end by its prefix, and by its name if that is what the flow was judged by.
    fn roles(&self, side: Side, by_prefix: &[BoundRole]) -> Vec<BoundRole> {
        let by_name = &self.names.roles[usize::from(side == self.responder())];
        if by_name.is_empty() {
            by_prefix.to_vec()
        } else {
            by_name.clone()
        }
    }

    /// Names of the initiator and of the responder, as the line tells them.
    #[must_use]
    pub fn names(&self) -> [Vec<String>; 2] {
        [self.initiator(), self.responder()].map(|side| self.names_of(side))
    }

    /// Names of an end: the one that the flow was judged by alone, if there is one.
    fn names_of(&self, side: Side) -> Vec<String> {
        let (known, own) = if side == self.responder() {
            let own = self.names.flow.as_ref().and_then(|flow| flow.name.as_ref());
            (&self.names.responder, own)
        } else {
            (&self.names.initiator, None)
        };
        match own {
            Some(own) => vec![own.to_string()],
            None => known.iter().map(|name| name.to_string()).collect(),
        }
    }
}

/// In place of a verdict: the flow waits for its name.
pub const PENDING: &str = "pending";

/// The verdict, or that there is none yet because the flow waits for its name.
#[must_use]
pub const fn verdict_name(state: State) -> &'static str {
    if state.is_held() {
        PENDING
    } else {
        state.verdict().name()
    }
}

/// What covers a flow; nothing while that depends on a name to come.
fn members_of<'a>(record: &FlowRecord, installed: &'a Installed) -> &'a [ServiceKey] {
    if record.state.is_held() {
        &[]
    } else {
        installed.members(record.slot)
    }
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Its address.
    pub address: String,
    /// Its port, where the protocol has ports.
    pub port: Option<u16>,
    /// Its roles, as `system/role`.
    pub roles: Vec<String>,
    /// Names that it is known by.
    pub names: Vec<String>,
}

/// A requirement's service that an unexpected flow nearly met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearMiss {
    /// The kind of difference.
    pub kind: Cow<'static, str>,
    /// `system/requirement#service`.
    pub requirement: String,
    /// The difference in words.
    pub detail: String,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "flow")]
pub struct FlowLine {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `vrrp` or the IP protocol number.
    pub protocol: String,
    /// Who opened it.
    pub initiator: End,
    /// Who was to answer.
    pub responder: End,
    /// Does the matrix expect it.
    pub verdict: Cow<'static, str>,
    /// What covers it, as `system/requirement#service`.
    pub requirements: Vec<String>,
    /// Did it work.
    pub outcome: Cow<'static, str>,
    /// What it nearly met, if it is unexpected; best first.
    pub near_misses: Vec<NearMiss>,
    /// Packets to the responder and to the initiator.
    pub packets: [u64; 2],
    /// Their frame bytes.
    pub bytes: [u64; 2],
    /// First packet, RFC 3339.
    pub first_seen: String,
    /// Last packet, RFC 3339.
    pub last_seen: String,
    /// Whether it was open before the capture saw it.
    pub joined_midway: bool,
    /// What the outcome rests on.
    pub evidence: Vec<String>,
}

impl FlowLine {
    /// The line of a flow; roles, requirements and near misses are those of the explainer's matrix.
    #[must_use]
    pub fn new(facts: &Facts<'_>, explainer: &Explainer) -> Self {
        let (key, record) = (facts.key, facts.record);
        let (initiator, responder) = (index(facts.initiator()), index(facts.responder()));
        let by_direction = |counts: [u64; 2]| [counts[initiator], counts[responder]];
        let installed = explainer.installed();
        Self {
            protocol: Protocol::from_number(key.protocol).json_text(),
            initiator: facts.end(facts.initiator(), explainer),
            responder: facts.end(facts.responder(), explainer),
            verdict: verdict_name(record.state).into(),
            requirements: members_of(record, installed)
                .iter()
                .map(|member| installed.compiled.matrix.service_id(*member))
                .collect(),
            outcome: record.state.outcome().name().into(),
            near_misses: facts.near_misses(explainer),
            packets: by_direction(record.packets),
            bytes: by_direction(record.bytes),
            first_seen: time(facts.span.first),
            last_seen: time(facts.span.last),
            joined_midway: record.state.joined_midway(),
            evidence: facts.evidence(),
        }
    }
}
