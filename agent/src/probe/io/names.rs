//! Asks for the names that rows are bound to, as a client on this host would: by its own resolvers and hosts file, or by
//! the resolvers that the operator names.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
    ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;

use super::Settings;
use crate::names::answer::Name;
use crate::probe::plan::Resolved;

/// Where a host says whom it asks.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long one name may take in all, over all resolvers.
const LIMIT: Duration = Duration::from_secs(10);

/// Adds what resolvers say of each name, one after the other, at the pace of probes. What was asked for before an
/// interruption is kept.
pub(super) async fn resolve(
    names: &BTreeSet<Name>,
    settings: &Settings,
    into: &mut HashMap<Name, Resolved>,
) {
    if names.is_empty() {
        return;
    }
    let resolver = match resolver(settings) {
        Ok(resolver) => resolver,
        Err(reason) => {
            into.extend(names.iter().map(|name| (name.clone(), Err(reason.clone()))));
            return;
        }
    };
    let mut pace = tokio::time::interval(Duration::from_secs(1) / settings.rate.max(1));
    for name in names {
        pace.tick().await;
        into.insert(name.clone(), ask(&resolver, name).await);
    }
}

async fn ask(resolver: &TokioResolver, name: &Name) -> Resolved {
    // A name of several labels is whole; one label is completed as on this host.
    let wanted = if name.contains('.') {
        format!("{name}.")
    } else {
        name.to_string()
    };
    match tokio::time::timeout(LIMIT, resolver.lookup_ip(wanted)).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> =
                found.iter().map(|address| address.to_canonical()).collect();
            // Servers rotate; a run should be repeatable.
            addresses.sort_unstable();
            addresses.dedup();
            if addresses.is_empty() {
                return Err("it has no addresses".to_owned());
            }
            Ok(addresses)
        }
        Ok(Err(error)) => Err(reason(&error)),
        Err(_) => Err(format!("no resolver answers within {} s", LIMIT.as_secs())),
    }
}

fn reason(error: &NetError) -> String {
    if error.is_nx_domain() {
        "there is no such name (NXDOMAIN)".to_owned()
    } else if error.is_no_records_found() {
        "it has no addresses".to_owned()
    } else {
        error.to_string()
    }
}

/// Whom to ask; the reason and the remedy if there is nobody.
fn resolver(settings: &Settings) -> Result<TokioResolver, String> {
    let path = settings
        .resolv_conf
        .as_deref()
        .unwrap_or_else(|| std::path::Path::new(RESOLV_CONF));
    let system = fs::read(path)
        .map_err(NetError::from)
        .and_then(parse_resolv_conf);
    let (config, mut options) = if settings.resolvers.is_empty() {
        system.map_err(|error| {
            format!(
                "no resolver to ask ({}: {error}); name one by --resolver",
                path.display()
            )
        })?
    } else {
        // Names of one label are completed as on this host.
        let mut config =
            system.map_or_else(|_| ResolverConfig::default(), |(config, _options)| config);
        config.name_servers = settings
            .resolvers
            .iter()
            .copied()
            .map(name_server)
            .collect();
        (config, ResolverOpts::default())
    };
    options.use_hosts_file = if settings.resolvers.is_empty() {
        ResolveHosts::Always
    } else {
        ResolveHosts::Never
    };
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = 0;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder
        .build()
        .map_err(|error| format!("the resolver can't be used: {error}"))
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
