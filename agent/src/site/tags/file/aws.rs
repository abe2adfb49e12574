//! AWS's `ip-ranges.json`: one object a prefix, with its service and region. The tags are `AWS.SERVICE` and
//! `AWS.SERVICE.REGION`. There is none for a region alone: the service `AMAZON` has all prefixes, so
//! `AWS.AMAZON.eu-west-1` is that, and nobody takes the whole of it by oversight.

use serde::Deserialize;

use super::{Collector, Text};

/// An IPv4 prefix.
#[derive(Deserialize)]
pub(super) struct Ipv4<'a> {
    #[serde(borrow)]
    ip_prefix: Text<'a>,
    #[serde(borrow)]
    region: Text<'a>,
    #[serde(borrow)]
    service: Text<'a>,
}

/// An IPv6 prefix.
#[derive(Deserialize)]
pub(super) struct Ipv6<'a> {
    #[serde(borrow)]
    ipv6_prefix: Text<'a>,
    #[serde(borrow)]
    region: Text<'a>,
    #[serde(borrow)]
    service: Text<'a>,
}

pub(super) fn read(
    ipv4: Vec<Ipv4<'_>>,
    ipv6: Vec<Ipv6<'_>>,
    into: &mut Collector<'_>,
) -> Option<()> {
    let ipv4 = ipv4
        .into_iter()
        .map(|entry| (entry.ip_prefix, entry.service, entry.region));
    let ipv6 = ipv6
        .into_iter()
        .map(|entry| (entry.ipv6_prefix, entry.service, entry.region));
    for (prefix, service, region) in ipv4.chain(ipv6) {
        let (prefix, service, region) = (prefix.0, service.0, region.0);
        let whole = into.tag(&format!("AWS.{service}"), &service);
        let regional = into.tag(&format!("AWS.{service}.{region}"), &region);
        let keys: Vec<String> = whole.into_iter().chain(regional).collect();
        into.prefix(&prefix, &keys, &format!(" (in the service `{service}`)"))?;
    }
    Some(())
}
