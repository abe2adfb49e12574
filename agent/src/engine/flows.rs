//! The flows that somebody asks about, out of tables that may hold a million: what to take of them is decided while the
//! tables are read, so that the answer holds no more than its limit whatever the network sends. Nothing is put into
//! words here, since the thread that reads the tables has packets to look after.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use flowproof_common::address::Address;
use flowproof_common::classify::{CLASS_INDEX, FIRST_RULE_SLOT, Tables, Verdict};
use flowproof_common::key::FlowKey;
use flowproof_common::protocol;
use flowproof_common::record::FlowRecord;
use flowproof_common::state::{Outcome, State};
use flowproof_common::ticks::{TICK_SHIFT, Ticks};
use ipnet::IpNet;

use crate::export::flow_line::{KnownNames, PENDING};
use crate::flow::Span;
use crate::flow::notes::Notes;
use crate::matrix::Protocol;
use crate::matrix::installed::Installed;
use crate::verdict::Asked;

/// Flows listed if nobody says how many.
pub const DEFAULT_LIMIT: usize = 1_000;
/// Flows listed at most.
pub const MOST: usize = 10_000;

/// Which ends are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndQuery {
    /// Addresses in this prefix.
    Prefix(IpNet),
    /// Addresses with this role, or with these roles, as a label of the metrics names them.
    Roles(String),
}

/// Which verdict is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictQuery {
    /// This one.
    Given(Verdict),
    /// None yet: the flow waits for its name.
    Pending,
}

impl VerdictQuery {
    const ALL: [(&'static str, Self); 4] = [
        (Verdict::Unscoped.name(), Self::Given(Verdict::Unscoped)),
        (Verdict::Unexpected.name(), Self::Given(Verdict::Unexpected)),
        (Verdict::Expected.name(), Self::Given(Verdict::Expected)),
        (PENDING, Self::Pending),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Given(verdict) => verdict.name(),
            Self::Pending => PENDING,
        }
    }

    fn takes(self, state: State) -> bool {
        match self {
            Self::Given(verdict) => !state.is_held() && verdict == state.verdict(),
            Self::Pending => state.is_held(),
        }
    }
}

/// Which flows are asked for; what is not set is not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// With this verdict.
    pub verdict: Option<VerdictQuery>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// Covered by this requirement (`system/requirement`) or service of one (`system/requirement#tcp/443`).
    pub requirement: Option<String>,
    /// Opened from there.
    pub initiator: Option<EndQuery>,
    /// Meant for there.
    pub responder: Option<EndQuery>,
    /// With this port of the initiator.
    pub initiator_port: Option<u16>,
    /// Of this protocol.
    pub protocol: Option<Protocol>,
    /// To this port of the responder, or of this ICMP type.
    pub port: Option<u16>,
    /// Flows listed at most, up to [`MOST`]; all are counted.
    pub limit: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            verdict: None,
            outcome: None,
            requirement: None,
            initiator: None,
            responder: None,
            initiator_port: None,
            protocol: None,
            port: None,
            limit: DEFAULT_LIMIT,
        }
    }
}

/// Why a query can't be answered, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// No such parameter.
    #[error("there is no parameter `{0}`; there are: {names}", names = Query::PARAMETERS.join(", "))]
    Parameter(String),
    /// A value that means nothing.
    #[error("`{parameter}={value}`: {remedy}")]
    Value {
        /// The parameter.
        parameter: &'static str,
        /// Its value as given.
        value: String,
        /// What to write.
        remedy: String,
    },
}

impl Query {
    /// The names of the parameters.
    pub const PARAMETERS: [&'static str; 9] = [
        "verdict",
        "outcome",
        "requirement",
        "initiator",
        "responder",
        "initiator_port",
        "protocol",
        "port",
        "limit",
    ];

    /// From parameters and their values; the last of several wins.
    ///
    /// # Errors
    /// A parameter is unknown, or a value means nothing.
    pub fn read<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, QueryError> {
        let mut query = Self::default();
        for (parameter, value) in pairs {
            let Some(parameter) = Self::PARAMETERS.into_iter().find(|name| *name == parameter)
            else {
                return Err(QueryError::Parameter(parameter.to_owned()));
            };
            let wrong = |remedy: String| QueryError::Value {
                parameter,
                value: value.to_owned(),
                remedy,
            };
            let number = || {
                value
                    .parse::<u16>()
                    .map_err(|_| wrong("write a number up to 65535".to_owned()))
            };
            match parameter {
                "verdict" => {
                    query.verdict = Some(one_of(&VerdictQuery::ALL, value).map_err(wrong)?);
                }
                "outcome" => {
                    query.outcome = Some(
                        one_of(
                            &Outcome::ALL.map(|outcome| (outcome.name(), outcome)),
                            value,
                        )
                        .map_err(wrong)?,
                    );
                }
                "requirement" => query.requirement = Some(value.to_owned()),
                "initiator" => query.initiator = Some(EndQuery::read(value)),
                "responder" => query.responder = Some(EndQuery::read(value)),
                "initiator_port" => query.initiator_port = Some(number()?),
                "protocol" => {
                    query.protocol = Some(
                        value
                            .parse()
                            .map_err(|error: crate::matrix::ServiceError| {
                                wrong(error.to_string())
                            })?,
                    );
                }
                "port" => query.port = Some(number()?),
                _ => {
                    query.limit = value
                        .parse()
                        .ok()
                        .filter(|limit| (1..=MOST).contains(limit))
                        .ok_or_else(|| wrong(format!("write a number from 1 to {MOST}")))?;
                }
            }
        }
        Ok(query)
    }

    /// The flows of one kind: the initiator's port only counts if it is given.
    #[must_use]
    pub fn of(asked: &Asked) -> Self {
        let end = |address: Address| Some(EndQuery::Prefix(IpNet::from(IpAddr::from(address))));
        let protocol = Protocol::from_number(asked.protocol);
        let icmp = matches!(protocol, Protocol::Icmp | Protocol::Icmpv6);
        Self {
            initiator: end(asked.initiator),
            responder: end(asked.responder),
            initiator_port: asked.initiator_port.filter(|_| protocol.has_ports()),
            protocol: Some(protocol),
            port: (protocol.has_ports() || icmp).then_some(asked.service),
            ..Self::default()
        }
    }
}

fn one_of<T: Copy>(known: &[(&str, T)], value: &str) -> Result<T, String> {
    let found = known.iter().find(|(name, _)| *name == value);
    found.map(|(_, found)| *found).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        format!("write one of {}", names.join(", "))
    })
}

impl EndQuery {
    /// An address, a prefix, or else roles.
    fn read(text: &str) -> Self {
        match (text.parse::<IpAddr>(), text.parse::<IpNet>()) {
            (Ok(address), _) => Self::Prefix(IpNet::from(address.to_canonical())),
            (_, Ok(prefix)) => Self::Prefix(prefix),
            _ => Self::Roles(text.to_owned()),
        }
    }
}

impl fmt::Display for EndQuery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
                prefix.addr().fmt(formatter)
            }
            Self::Prefix(prefix) => prefix.fmt(formatter),
            Self::Roles(roles) => formatter.write_str(roles),
        }
    }
}

/// The parameters of a URL, `verdict=unexpected&port=22`, percent-encoded (RFC 3986, section 2.1). The limit is left out
/// where it is the default.
impl fmt::Display for Query {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = (self.limit != DEFAULT_LIMIT).then_some(self.limit);
        let pairs = [
            ("verdict", self.verdict.map(|it| it.name().to_owned())),
            ("outcome", self.outcome.map(|it| it.name().to_owned())),
            ("requirement", self.requirement.clone()),
            (
                "initiator",
                self.initiator.as_ref().map(ToString::to_string),
            ),
            (
                "responder",
                self.responder.as_ref().map(ToString::to_string),
            ),
            (
                "initiator_port",
                self.initiator_port.map(|it| it.to_string()),
            ),
            ("protocol", self.protocol.map(|it| it.to_string())),
            ("port", self.port.map(|it| it.to_string())),
            ("limit", limit.map(|it| it.to_string())),
        ];
        let mut separator = "";
        for (name, value) in pairs {
            if let Some(value) = value {
                write!(formatter, "{separator}{name}={}", Encoded(&value))?;
                separator = "&";
            }
        }
        Ok(())
    }
}

/// A value in a URL.
pub struct Encoded<'a>(pub &'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                write!(formatter, "{}", char::from(byte))?;
            } else {
                write!(formatter, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

enum EndFilter {
    Any,
    Prefix(IpNet),
    /// By class of addresses.
    Classes(Vec<bool>),
}

impl EndFilter {
    fn new(
        parameter: &'static str,
        query: Option<&EndQuery>,
        matrix: &Installed,
        labels: &[Arc<str>],
    ) -> Result<Self, QueryError> {
        let roles = match query {
            None => return Ok(Self::Any),
            Some(EndQuery::Prefix(prefix)) => return Ok(Self::Prefix(*prefix)),
            Some(EndQuery::Roles(roles)) => roles,
        };
        let compiled = &matrix.compiled;
        let classes: Vec<bool> = (0..matrix.class_count())
            .map(|class| {
                let number = u32::try_from(class).unwrap_or(CLASS_INDEX);
                labels.get(class).is_some_and(|label| **label == **roles)
                    || matrix
                        .roles_of_class(number)
                        .iter()
                        .any(|role| crate::verdict::role_name(compiled, *role) == *roles)
            })
            .collect();
        if classes.contains(&true) {
            Ok(Self::Classes(classes))
        } else {
            Err(QueryError::Value {
                parameter,
                value: roles.clone(),
                remedy: "no address has this role; write an address, a prefix, or a role as `system/role`"
                    .to_owned(),
            })
        }
    }

    fn takes(&self, address: Address, by_name: &Placed, matrix: &Installed) -> bool {
        match self {
            Self::Any => true,
            Self::Prefix(prefix) => prefix.contains(&IpAddr::from(address)),
            Self::Classes(classes) => {
                let class = by_name
                    .get(&address)
                    .copied()
                    .unwrap_or_else(|| matrix.address_class(&address))
                    & CLASS_INDEX;
                classes.get(class as usize).copied().unwrap_or(false)
            }
        }
    }
}

/// A query that knows the matrix in force.
pub struct Filter<'a> {
    query: &'a Query,
    matrix: &'a Installed,
    initiator: EndFilter,
    responder: EndFilter,
    slots: Option<HashSet<u32>>,
    by_name: Placed,
}

/// Classes of addresses by what they stand for.
type Placed = HashMap<Address, u32>;

impl<'a> Filter<'a> {
    /// `labels` are those of the matrix' classes of addresses.
    ///
    /// # Errors
    /// The matrix has no such role or requirement.
    pub fn new(
        query: &'a Query,
        matrix: &'a Installed,
        labels: &[Arc<str>],
        by_name: impl Iterator<Item = (Address, u32)>,
    ) -> Result<Self, QueryError> {
        let end = |parameter, query| EndFilter::new(parameter, query, matrix, labels);
        let by_roles = [&query.initiator, &query.responder]
            .into_iter()
            .any(|end| matches!(end, Some(EndQuery::Roles(_))));
        Ok(Self {
            by_name: if by_roles {
                by_name.collect()
            } else {
                Placed::new()
            },
            query,
            matrix,
            initiator: end("initiator", query.initiator.as_ref())?,
            responder: end("responder", query.responder.as_ref())?,
            slots: match &query.requirement {
                Some(id) => Some(slots_of(matrix, id)?),
                None => None,
            },
        })
    }

    /// Whether a flow is asked for. The cheapest questions come first.
    #[must_use]
    pub fn takes(&self, key: &FlowKey, record: &FlowRecord) -> bool {
        let query = self.query;
        let state = record.state;
        let (initiator, responder) = (state.initiator(), state.initiator().other());
        query
            .protocol
            .is_none_or(|protocol| protocol.number() == key.protocol)
            && query.verdict.is_none_or(|verdict| verdict.takes(state))
            && query
                .outcome
                .is_none_or(|outcome| outcome == state.outcome())
            && query.port.is_none_or(|port| port == key.service(responder))
            && query.initiator_port.is_none_or(|port| {
                protocol::has_ports(key.protocol) && port == key.end(initiator).1
            })
            && self
                .slots
                .as_ref()
                .is_none_or(|slots| !state.is_held() && slots.contains(&record.slot))
            && self
                .initiator
                .takes(key.end(initiator).0, &self.by_name, self.matrix)
            && self
                .responder
                .takes(key.end(responder).0, &self.by_name, self.matrix)
    }
}

/// The counter slots of a requirement or of a service of one, in the matrix in force.
fn slots_of(matrix: &Installed, id: &str) -> Result<HashSet<u32>, QueryError> {
    let asked: HashSet<_> = matrix
        .compiled
        .matrix
        .services()
        .filter(|(key, _, _)| {
            let service = matrix.compiled.matrix.service_id(*key);
            service == id || service.split_once('#').is_some_and(|(of, _)| of == id)
        })
        .map(|(key, _, _)| key)
        .collect();
    if asked.is_empty() {
        return Err(QueryError::Value {
            parameter: "requirement",
            value: id.to_owned(),
            remedy: "the matrix in force has no such requirement with services; write `system/requirement` or \
                     `system/requirement#tcp/443`"
                .to_owned(),
        });
    }
    let slots = u32::try_from(matrix.directory.len()).unwrap_or(u32::MAX);
    Ok((FIRST_RULE_SLOT..slots)
        .filter(|slot| matrix.members(*slot).iter().any(|key| asked.contains(key)))
        .collect())
}

/// How many flows were asked for, all of them and not only those listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// All.
    pub flows: u64,
    /// By verdict.
    pub by_verdict: [u64; Verdict::ALL.len()],
    /// Without one: they wait for their name.
    pub pending: u64,
    /// By outcome.
    pub by_outcome: [u64; Outcome::COUNT],
}

impl Tally {
    /// Counts a flow.
    pub fn add(&mut self, record: &FlowRecord) {
        self.flows += 1;
        if record.state.is_held() {
            self.pending += 1;
        } else {
            self.by_verdict[record.state.verdict() as usize] += 1;
        }
        self.by_outcome[record.state.outcome() as usize] += 1;
    }
}

/// A flow that was asked for.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its 5-tuple.
    pub key: FlowKey,
    /// Counts and state.
    pub record: FlowRecord,
    /// First and last packet, nanoseconds since the Unix epoch, to the tick of the records (8.4 ms).
    pub span: Span,
    /// What events said of it, if it is known.
    pub notes: Notes,
    /// Why this host's kernel dropped a packet of it, by the kernel's name.
    pub drop_reason: Option<String>,
    /// What names are known of it.
    pub names: KnownNames,
}

/// The flows that were asked for.
#[derive(Debug, Clone)]
pub struct Flows {
    /// What they are judged by.
    pub matrix: Arc<Installed>,
    /// When the tables were read, as [`Found::span`].
    pub time: u64,
    /// All of them.
    pub tally: Tally,
    /// First packet of the first and last packet of the last of all, as [`Found::span`].
    pub span: Option<Span>,
    /// The ones that began last, newest first, up to the limit.
    pub listed: Vec<Found>,
}

/// A flow that may be among the newest.
struct Candidate {
    age: u64,
    key: FlowKey,
    record: FlowRecord,
}

impl Candidate {
    /// By age, and by the key where ages are equal, so that the answer has one order.
    fn rank(&self) -> impl Ord + use<> {
        let key = &self.key;
        (
            self.age,
            key.protocol,
            (key.a.bytes(), key.port_a),
            (key.b.bytes(), key.port_b),
            key.icmp_type,
        )
    }
}

/// Takes from the tables what is asked for, and keeps the newest.
pub(super) struct Selection<'a> {
    filter: Filter<'a>,
    /// The beginning of the tick that is now, nanoseconds of the back end's clock.
    now: u64,
    tally: Tally,
    /// Nanoseconds between now and the first packet of the first, and the last packet of the last.
    ages: Option<(u64, u64)>,
    /// The newest, up to twice the limit: sorting out half of them now and then costs less than keeping them in order.
    newest: Vec<Candidate>,
    /// Flows older than this are not among the newest.
    oldest: u64,
    limit: usize,
}

impl<'a> Selection<'a> {
    /// `now` is of the back end's clock.
    pub(super) fn new(filter: Filter<'a>, now: u64) -> Self {
        Self {
            limit: filter.query.limit.clamp(1, MOST),
            filter,
            // Else the same record had another time whenever it is looked at.
            now: now >> TICK_SHIFT << TICK_SHIFT,
            tally: Tally::default(),
            ages: None,
            newest: Vec::new(),
            oldest: u64::MAX,
        }
    }

    pub(super) fn offer(&mut self, key: &FlowKey, record: &FlowRecord) {
        if !self.filter.takes(key, record) {
            return;
        }
        self.tally.add(record);
        let times = record.times(Ticks::from_nanos(self.now));
        let (first, last) = self.ages.unwrap_or((0, u64::MAX));
        self.ages = Some((first.max(times.since_first), last.min(times.since_last)));
        if times.since_first > self.oldest {
            return;
        }
        self.newest.push(Candidate {
            age: times.since_first,
            key: *key,
            record: *record,
        });
        if self.newest.len() == 2 * self.limit {
            let (_, oldest, _) = self
                .newest
                .select_nth_unstable_by_key(self.limit - 1, Candidate::rank);
            self.oldest = oldest.age;
            self.newest.truncate(self.limit);
        }
    }

    /// What was found. `epoch_offset` turns the back end's times into those of the Unix epoch; `told` knows what events
    /// said.
    pub(super) fn finish(
        mut self,
        matrix: Arc<Installed>,
        epoch_offset: i128,
        mut told: impl FnMut(&FlowKey, &FlowRecord) -> (Notes, Option<String>, KnownNames),
    ) -> Flows {
        let now = i128::from(self.now) + epoch_offset;
        let span = |(first, last): (u64, u64)| {
            let at = |age: u64| u64::try_from(now - i128::from(age)).unwrap_or(0);
            Span {
                first: at(first),
                last: at(last),
            }
        };
        let ticks = Ticks::from_nanos(self.now);
        self.newest.sort_unstable_by_key(Candidate::rank);
        self.newest.truncate(self.limit);
        let listed = self
            .newest
            .into_iter()
            .map(|Candidate { age, key, record }| {
                let (notes, drop_reason, names) = told(&key, &record);
                Found {
                    key,
                    record,
                    span: span((age, record.times(ticks).since_last)),
                    notes,
                    drop_reason,
                    names,
                }
            })
            .collect();
        Flows {
            matrix,
            time: u64::try_from(now).unwrap_or(0),
            tally: self.tally,
            span: self.ages.map(span),
            listed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_its_own_text() {
        let check = |pairs: &[(&str, &str)], text: &str| {
            let query = Query::read(pairs.iter().copied()).unwrap();
            assert_eq!(query.to_string(), text);
        };
        check(&[], "");
        check(&[("limit", "1000")], "");
        check(
            &[
                ("port", "22"),
                ("verdict", "unexpected"),
                ("outcome", "no_answer"),
                ("initiator", "::ffff:10.0.0.1"),
                ("responder", "2001:db8::/32"),
                ("protocol", "6"),
                ("initiator_port", "5"),
                ("requirement", "a/b#tcp/1"),
                ("limit", "7"),
            ],
            "verdict=unexpected&outcome=no_answer&requirement=a%2Fb%23tcp%2F1&initiator=10.0.0.1\
             &responder=2001%3Adb8%3A%3A%2F32&initiator_port=5&protocol=tcp&port=22&limit=7",
        );
        check(
            &[("initiator", "a/b,c/d,+2"), ("responder", "~unbound")],
            "initiator=a%2Fb%2Cc%2Fd%2C%2B2&responder=~unbound",
        );
    }

    #[test]
    fn the_initiators_port_counts_only_if_it_is_given() {
        let mut asked = Asked {
            initiator: Address::from_v4([10, 0, 0, 1]),
            initiator_port: None,
            responder: Address::from_v4([10, 0, 0, 2]),
            protocol: protocol::TCP,
            service: 443,
        };
        let text = "initiator=10.0.0.1&responder=10.0.0.2";
        assert_eq!(
            Query::of(&asked).to_string(),
            format!("{text}&protocol=tcp&port=443")
        );
        asked.initiator_port = Some(9);
        assert_eq!(
            Query::of(&asked).to_string(),
            format!("{text}&initiator_port=9&protocol=tcp&port=443")
        );
        asked.protocol = protocol::VRRP;
        assert_eq!(
            Query::of(&asked).to_string(),
            format!("{text}&protocol=vrrp")
        );
    }
}
