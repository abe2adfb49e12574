//! What the web server knows of those who ask it, as metrics: an operator sees a certificate that runs out, passwords that are
//! tried, and slow peers, in the place where he sees everything else.

use super::exposition::{Exposition, Family};
use super::metrics::{number, since_epoch};
use crate::web::Status;

pub(super) fn families(status: &Status, families: &mut Exposition) {
    let mut requests = Family::counter(
        "flowproof_web_requests_total",
        "Requests that the web server answered, by class of status code; this one is counted in the next scrape.",
    );
    let mut failures = Family::counter(
        "flowproof_web_auth_failures_total",
        "Requests that were not let in: missing (no credentials, as the first request of a browser), wrong (user or password), throttled (not checked, since too many were wrong or are being checked).",
    );
    let mut limited = Family::counter(
        "flowproof_web_rate_limited_total",
        "Requests that rate_limit of the web configuration stopped.",
    );
    let mut open = Family::gauge(
        "flowproof_web_connections",
        "Connections to the web server now; there is room for 256, and for 64 of an address.",
    );
    let mut refused = Family::counter(
        "flowproof_web_connections_refused_total",
        "Connections to the web server that came to nothing: full (idle for the longest time while all places were taken), address (the same with the places of its address), slow (no handshake or head of a request in 10 s), tls (no agreement on TLS, or no certificate that is taken).",
    );
    for (family, series, label) in [
        (&mut requests, &status.requests, "code"),
        (&mut failures, &status.failures, "reason"),
        (&mut refused, &status.refused, "reason"),
    ] {
        for (value, count) in series {
            family.push(&[(label, value)], number(*count));
        }
    }
    limited.push(&[], number(status.rate_limited));
    open.push(&[], number(status.connections as u64));
    let mut successful = Family::gauge(
        "flowproof_web_config_last_reload_successful",
        "1 if the web configuration was in force after the last attempt to read it, 0 if that failed and the one before stays: the log says why.",
    );
    let mut success = Family::gauge(
        "flowproof_web_config_last_reload_success_timestamp_seconds",
        "When the web configuration in force was read, in seconds since the Unix epoch.",
    );
    if let Some(reload) = status.reload {
        successful.push(&[], if reload.successful { 1.0 } else { 0.0 });
        success.push(&[], since_epoch(reload.last_success));
    }
    let mut expiry = Family::gauge(
        "flowproof_web_certificate_expiry_timestamp_seconds",
        "When a certificate of the web server runs out, in seconds since the Unix epoch: server (the one that it shows, or one of its chain), client_ca (an authority that clients are verified by). Of several, the one that runs out first.",
    );
    for each in &status.expiries {
        expiry.push(
            &[("certificate", each.certificate)],
            seconds(each.not_after),
        );
    }
    for family in [
        requests, failures, limited, open, refused, successful, success, expiry,
    ] {
        families.push(family);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "certificates run out before the year 10,000, far below 2^53"
)]
const fn seconds(time: i64) -> f64 {
    time as f64
}

/// For the golden scrape.
#[cfg(test)]
pub(super) fn example() -> Status {
    use std::time::{Duration, UNIX_EPOCH};

    use crate::engine::health::Reload;
    use crate::web::config::Expiry;

    let expiry = |certificate, not_after| Expiry {
        certificate,
        not_after,
    };
    Status {
        requests: [("1xx", 0), ("2xx", 9), ("3xx", 0), ("4xx", 3), ("5xx", 0)].into(),
        failures: [("missing", 1), ("wrong", 2), ("throttled", 0)].into(),
        rate_limited: 1,
        connections: 3,
        refused: [("full", 0), ("address", 0), ("slow", 2), ("tls", 1)].into(),
        reload: Some(Reload {
            successful: true,
            last_success: UNIX_EPOCH + Duration::from_millis(1_700_000_001_500),
        }),
        expiries: vec![
            expiry("server", 1_731_536_000),
            expiry("client_ca", 2_015_000_000),
        ],
    }
}
