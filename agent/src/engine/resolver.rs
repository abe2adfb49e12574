//! Asks for the exact names that the matrix needs, so that they are known before the first client asks, and so that an
//! operator hears when one moves. When to ask is decided in [`schedule`](crate::names::schedule), what is worth a log
//! line in [`moves`](crate::names::moves); here is the task that ties them to a resolver.
//!
//! Only DNS is asked, never the hosts file: what is written there holds for this host, not for the others on the wire.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name as WireName, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::system_conf::read_system_conf;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::matrix::Binding;
use crate::matrix::compiled::Compiled;
use crate::names::answer::{Answer, Kind, Name, Result as Found, fold};
use crate::names::moves::{Change, Moves};
use crate::names::schedule::{Next, Outcome, Schedule};
use crate::names::wire::dns;

/// How long one query may take in all, over all resolvers.
const LIMIT: Duration = Duration::from_secs(15);
/// Pause before this host's own resolvers are looked up again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Names in a row that nobody answered for, before the resolvers themselves are in doubt.
const IN_DOUBT: u32 = 3;
/// Addresses that a log line lists.
const LISTED: usize = 4;

/// The names without wildcards that the roles of a matrix are bound to, sorted.
#[must_use]
pub fn exact_names(compiled: &Compiled) -> Arc<[Name]> {
    let mut names: Vec<Name> = compiled
        .bindings
        .iter()
        .flat_map(|(_, bindings)| bindings)
        .filter_map(|binding| match binding {
            Binding::Name(pattern) if !pattern.is_wildcard() => fold(pattern.as_str()),
            Binding::Name(_) | Binding::Prefix(_) | Binding::Tag(_) => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    Arc::from(names)
}

/// Asks in the background for as long as it lives.
#[derive(Debug)]
pub struct Resolution {
    names: watch::Sender<Arc<[Name]>>,
    task: AbortHandle,
}

impl Resolution {
    /// Begins to ask the resolvers, or this host's own if there are none, for names. Answers about A and AAAA records
    /// go to the channel as they come. Must be called within a tokio runtime with I/O and time.
    #[must_use]
    pub fn start(
        resolvers: Vec<SocketAddr>,
        names: Arc<[Name]>,
        answers: mpsc::Sender<Answer>,
    ) -> Self {
        let (sender, receiver) = watch::channel(names);
        let task = tokio::spawn(run(resolvers, receiver, answers)).abort_handle();
        Self {
            names: sender,
            task,
        }
    }

    /// Replaces the names.
    pub fn set_names(&self, names: Arc<[Name]>) {
        self.names.send_if_modified(|before| {
            let differs = *before != names;
            *before = names;
            differs
        });
    }
}

impl Drop for Resolution {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nobody answered, and why as far as it is known.
type Silence = String;

/// What came of asking for a name.
struct Turn {
    name: Name,
    /// For A and AAAA.
    answers: [Result<Answer, Silence>; 2],
}

/// Until the answers or the names have nobody at the other end.
async fn run(
    resolvers: Vec<SocketAddr>,
    mut names: watch::Receiver<Arc<[Name]>>,
    answers: mpsc::Sender<Answer>,
) {
    let mut asked = first_resolver(&resolvers).await;
    let mut asked_since = Instant::now();
    let mut schedule = Schedule::new(RandomState::new().hash_one(0));
    let mut moves = Moves::default();
    let mut silent = 0_u32;
    let mut turns = JoinSet::new();
    schedule.set_names(&names.borrow_and_update().clone(), Instant::now());
    loop {
        let until = loop {
            match schedule.next(Instant::now()) {
                Next::Ask(name) => {
                    turns.spawn(turn(asked.clone(), name));
                }
                Next::Wait(until) => break Some(until),
                Next::Idle => break None,
            }
        };
        let pause = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = names.changed() => {
                if changed.is_err() {
                    return;
                }
                schedule.set_names(&names.borrow_and_update().clone(), Instant::now());
                moves.retain(|name| schedule.wants(name));
            }
            Some(ended) = turns.join_next() => {
                let Ok(Turn { name, answers: heard }) = ended else {
                    tracing::error!("asking for names ended unexpectedly: restart the daemon, and report it");
                    return;
                };
                silent = count_silence(silent, &heard);
                let now = Instant::now();
                schedule.answered(&name, outcome(&heard), now);
                if schedule.wants(&name) {
                    report(&name, &heard, &mut moves, now);
                }
                for answer in heard.into_iter().flatten() {
                    if answers.send(answer).await.is_err() {
                        return;
                    }
                }
                // The host may have come to another network.
                if silent >= IN_DOUBT && resolvers.is_empty() && asked_since.elapsed() >= LOOK_AGAIN {
                    asked_since = Instant::now();
                    if let Ok(again) = resolver(&resolvers) {
                        asked = again;
                    }
                }
            }
            () = pause => {}
        }
    }
}

/// Waits until there is somebody to ask: at boot, a host may not know its resolvers yet.
async fn first_resolver(resolvers: &[SocketAddr]) -> TokioResolver {
    let mut said = false;
    loop {
        match resolver(resolvers) {
            Ok(resolver) => return resolver,
            Err(error) if !said => {
                tracing::warn!(
                    "this host names no resolver to ask (/etc/resolv.conf: {error}), so names are learned from the traffic only: \
                     give addresses with `names: {{resolvers: [...]}}` or --resolver"
                );
                said = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn resolver(resolvers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let system = read_system_conf();
    let (mut config, mut options) = if resolvers.is_empty() {
        system?
    } else {
        // Names of one label are completed as on this host.
        let config = system.map_or_else(|_| ResolverConfig::default(), |(config, _options)| config);
        (config, ResolverOpts::default())
    };
    if !resolvers.is_empty() {
        config.name_servers = resolvers.iter().copied().map(name_server).collect();
    }
    options.use_hosts_file = ResolveHosts::Never;
    // The schedule asks when an answer has run out; a second memory would only make it older.
    options.cache_size = 0;
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.preserve_intermediates = true;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build()
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
        .into_iter()
        .map(|mut connection| {
            connection.port = address.port();
            connection
        })
        .collect();
    NameServerConfig::new(address.ip(), true, connections)
}

async fn turn(resolver: TokioResolver, name: Name) -> Turn {
    let a = ask(&resolver, &name, Kind::A, RecordType::A).await;
    // Who was silent once need not be waited for again.
    let aaaa = match &a {
        Ok(_) => ask(&resolver, &name, Kind::Aaaa, RecordType::AAAA).await,
        Err(silence) => Err(silence.clone()),
    };
    Turn {
        name,
        answers: [a, aaaa],
    }
}

async fn ask(
    resolver: &TokioResolver,
    name: &Name,
    kind: Kind,
    record: RecordType,
) -> Result<Answer, Silence> {
    let mut wire = WireName::from_ascii(&**name).map_err(|error| error.to_string())?;
    let whole = name.contains('.');
    wire.set_fqdn(whole);
    let lookup = match tokio::time::timeout(LIMIT, resolver.lookup(wire.clone(), record)).await {
        Ok(Ok(lookup)) => lookup,
        Ok(Err(error)) => {
            return Ok(Answer {
                question: name.clone(),
                kind,
                result: negative(&error).ok_or_else(|| error.to_string())?,
                aliases: Vec::new(),
                addresses: Vec::new(),
                ech_public_name: None,
            });
        }
        Err(_) => return Err(format!("no answer within {} s", LIMIT.as_secs())),
    };
    // A name of one label was completed to the owner of the first record.
    if !whole && let Some(record) = lookup.answers().first() {
        wire = record.name.clone();
    }
    // After a chain that took several queries, the response in hand is about its last link. Read as one message from the
    // question on, by the reader of what others ask, the chain means the same here and there.
    let mut message = Message::response(0, OpCode::Query);
    message.add_query(Query::query(wire, record));
    message.add_answers(lookup.answers().iter().cloned());
    let bytes = message.to_vec().map_err(|error| error.to_string())?;
    let mut answer = dns::read(&bytes).map_err(|error| error.to_string())?;
    if answer.question != *name {
        let complete = std::mem::replace(&mut answer.question, name.clone());
        answer.aliases.insert(0, complete);
    }
    Ok(answer)
}

/// What an error says of the name; `None` if it says only that nobody answered.
fn negative(error: &NetError) -> Option<Found> {
    let NetError::Dns(error) = error else {
        return None;
    };
    let code = if let DnsError::ResponseCode(code) = error {
        *code
    } else if let DnsError::NoRecordsFound(none) = error {
        none.response_code
    } else {
        return None;
    };
    Some(match u16::from(code) {
        0 => Found::NoData,
        code if code == u16::from(ResponseCode::ServFail) => Found::ServerFailure,
        code if code == u16::from(ResponseCode::NXDomain) => Found::NoName,
        code if code == u16::from(ResponseCode::Refused) => Found::Refused,
        code => Found::Other(code),
    })
}

fn outcome(heard: &[Result<Answer, Silence>]) -> Outcome {
    addresses(heard)
        .map(|(_, ttl)| ttl)
        .min()
        .map_or(Outcome::Nothing, |ttl| {
            Outcome::Found(Duration::from_secs(u64::from(ttl)))
        })
}

fn addresses(heard: &[Result<Answer, Silence>]) -> impl Iterator<Item = (IpAddr, u32)> {
    heard
        .iter()
        .flatten()
        .flat_map(|answer| answer.addresses.iter().copied())
}

/// Says once that nobody answers, and once that somebody does again. One name alone may have servers that are away.
fn count_silence(before: u32, heard: &[Result<Answer, Silence>]) -> u32 {
    let errors: Vec<&Silence> = heard
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    if errors.len() < heard.len() {
        if before >= IN_DOUBT {
            tracing::info!("resolvers answer again");
        }
        return 0;
    }
    let silent = before.saturating_add(1);
    if silent == IN_DOUBT
        && let Some(error) = errors.first()
    {
        tracing::warn!(
            "no resolver answers ({error}), so names are learned from the traffic only: check `names: {{resolvers: [...]}}`, \
             or /etc/resolv.conf if there are none"
        );
    }
    silent
}

/// Logs what is new about a name.
fn report(name: &Name, heard: &[Result<Answer, Silence>; 2], moves: &mut Moves, now: Instant) {
    let addresses: Vec<(IpAddr, u32)> = addresses(heard).collect();
    // That an IP version got no answer proves nothing about the name.
    if addresses.is_empty() && heard.iter().any(Result::is_err) {
        return;
    }
    let Some(change) = moves.observe(name, &addresses, now) else {
        return;
    };
    match change {
        Change::Moved { from, to } => {
            tracing::info!("{name} moved from {} to {}", List(&from), List(&to));
        }
        Change::Rotated { to } => tracing::debug!("{name} rotated to {}", List(&to)),
        Change::Restless => {
            tracing::info!(
                "{name} moves with nearly every answer, so it has many addresses; from now on only debug lines say so"
            );
        }
        Change::Missing => tracing::warn!("{name} does not resolve: {}", Why(heard)),
        Change::Stopped { from } => {
            tracing::warn!(
                "{name} does not resolve any more: {}; it had {}",
                Why(heard),
                List(&from)
            );
        }
        Change::Resolves { from, to } if from.is_empty() => {
            tracing::info!("{name} resolves now, to {}", List(&to));
        }
        Change::Resolves { from, to } => {
            tracing::info!(
                "{name} resolves again, to {}; before, it had {}",
                List(&to),
                List(&from)
            );
        }
    }
}

/// A few addresses, and how many more.
struct List<'a>(&'a [IpAddr]);

impl fmt::Display for List<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, address) in self.0.iter().take(LISTED).enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(formatter, "{comma}{address}")?;
        }
        match self.0.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(formatter, " and {more} more"),
        }
    }
}

/// Why a name has no addresses, in the resolver's terms.
struct Why<'a>(&'a [Result<Answer, Silence>; 2]);

impl fmt::Display for Why<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Where only one IP version has a reason, that is the one to say.
        let result = self
            .0
            .iter()
            .flatten()
            .map(|answer| answer.result)
            .find(|result| *result != Found::NoData)
            .unwrap_or(Found::NoData);
        match result {
            Found::Found | Found::NoData => formatter.write_str("it has no addresses"),
            Found::NoName => formatter.write_str("there is no such name (NXDOMAIN)"),
            Found::ServerFailure => formatter.write_str("the resolver failed (SERVFAIL)"),
            Found::Refused => formatter.write_str("the resolver refused (REFUSED)"),
            Found::Other(code) => write!(formatter, "the resolver answered with code {code}"),
        }
    }
}

#[cfg(test)]
mod tests;
