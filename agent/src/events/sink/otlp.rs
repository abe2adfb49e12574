//! OpenTelemetry logs (OTLP 1.x) to a collector, which carries them on to whatever it is configured for: over HTTP/1.1, in
//! the JSON mapping. Whether a batch that was not taken is offered again follows the OTLP specification: 429, 502, 503
//! and 504 are, every other refusal is for good.
//!
//! Without TLS: the collector belongs on this host or on a network of its own, and forwards from there.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body as HttpBody, to_bytes};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{Delivery, Sink};
use crate::config::{Header, OtlpConfig, OtlpEndpoint};
use crate::events::model::{Event, Severity};
use crate::export::metrics::VERSION;

/// Bytes of an answer that are read.
const MOST_BYTES: usize = 64 * 1024;
/// Characters of an answer that are shown.
const SHOWN: usize = 200;

/// Numbers of the log data model: INFO, WARN, ERROR.
const fn severity(severity: Severity) -> (u8, &'static str) {
    match severity {
        Severity::Info => (9, "INFO"),
        Severity::Warning => (13, "WARN"),
        Severity::Error => (17, "ERROR"),
    }
}

/// An `AnyValue`; 64-bit integers are texts in the JSON mapping.
fn any(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(value) => json!({ "boolValue": value }),
        Value::Number(number) => match number.as_i64() {
            Some(number) => json!({ "intValue": number.to_string() }),
            None => json!({ "stringValue": number.to_string() }),
        },
        Value::String(text) => json!({ "stringValue": text }),
        Value::Array(values) => {
            json!({ "arrayValue": { "values": values.iter().map(any).collect::<Vec<_>>() } })
        }
        Value::Object(fields) => {
            json!({ "kvlistValue": { "values": attributes(fields, |_| true) } })
        }
    }
}

fn attributes(
    fields: &serde_json::Map<String, Value>,
    wanted: impl Fn(&str) -> bool,
) -> Vec<Value> {
    fields
        .iter()
        .filter(|(name, value)| wanted(name) && !value.is_null())
        .map(|(name, value)| json!({ "key": name, "value": any(value) }))
        .collect()
}

fn record(event: &Event) -> serde_json::Result<Value> {
    let value = serde_json::to_value(event)?;
    // These have fields of their own.
    let own = ["time", "severity", "message", "agent", "site", "type"];
    let attributes = value
        .as_object()
        .map(|fields| attributes(fields, |name| !own.contains(&name)));
    let (number, text) = severity(event.severity);
    let time = event.time.to_string();
    Ok(json!({
        "timeUnixNano": time,
        "observedTimeUnixNano": time,
        "severityNumber": number,
        "severityText": text,
        "eventName": format!("flowproof.{}", event.body.name()),
        "body": { "stringValue": event.message },
        "attributes": attributes,
    }))
}

/// An `ExportLogsServiceRequest`. Events of one batch may be of different sites, if the matrix was read anew.
fn request(events: &[Arc<Event>]) -> serde_json::Result<Value> {
    let mut resources = Vec::new();
    for events in events.chunk_by(|one, other| one.site == other.site && one.agent == other.agent) {
        let Some(first) = events.first() else {
            continue;
        };
        let mut resource = vec![
            ("service.name", json!("flowproof")),
            ("service.version", json!(VERSION)),
            ("host.name", json!(first.agent)),
        ];
        resource.extend(
            first
                .site
                .as_ref()
                .map(|site| ("flowproof.site", json!(site))),
        );
        let resource: Vec<Value> = resource
            .into_iter()
            .map(|(key, value)| json!({ "key": key, "value": any(&value) }))
            .collect();
        let records = events
            .iter()
            .map(|event| record(event))
            .collect::<serde_json::Result<Vec<_>>>()?;
        resources.push(json!({
            "resource": { "attributes": resource },
            "scopeLogs": [{
                "scope": { "name": "flowproof", "version": VERSION },
                "logRecords": records,
            }],
        }));
    }
    Ok(json!({ "resourceLogs": resources }))
}

/// What an answer means for `count` events.
fn judge(status: StatusCode, body: &[u8], count: usize) -> Delivery {
    let text = || -> String {
        let text = String::from_utf8_lossy(body);
        let text = text.chars().filter(|character| !character.is_control());
        text.take(SHOWN).collect()
    };
    if status.is_success() {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let partial = &answer["partialSuccess"];
        let rejected = &partial["rejectedLogRecords"];
        let rejected = rejected
            .as_u64()
            .or_else(|| rejected.as_str()?.parse().ok())
            .unwrap_or(0);
        let refused = usize::try_from(rejected).unwrap_or(count).min(count);
        let why = partial["errorMessage"]
            .as_str()
            .unwrap_or("no reason given");
        return Delivery {
            delivered: count - refused,
            refused,
            trouble: (refused > 0).then(|| format!("it refused {refused} of {count}: {why}")),
        };
    }
    let again = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    if again.contains(&status) {
        return Delivery::up_to(0, format!("{status}: {}", text()));
    }
    Delivery {
        delivered: 0,
        refused: count,
        trouble: Some(format!(
            "{status}: {}; those events are dropped: mend `events: {{otlp: ...}}` or the collector",
            text()
        )),
    }
}

/// An error and what it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A collector.
pub(super) struct Collector {
    endpoint: OtlpEndpoint,
    headers: Vec<Header>,
    timeout: Duration,
}

impl Collector {
    pub(super) fn new(config: &OtlpConfig) -> Self {
        Self {
            endpoint: config.endpoint.clone(),
            headers: config.headers.clone(),
            timeout: config.timeout,
        }
    }

    fn request(&self, body: Vec<u8>) -> Result<Request<HttpBody>, String> {
        let mut request = Request::new(HttpBody::from(body));
        *request.method_mut() = Method::POST;
        let path = self.endpoint.path.parse();
        *request.uri_mut() =
            path.map_err(|error: hyper::http::uri::InvalidUri| error.to_string())?;
        let host =
            HeaderValue::from_str(&self.endpoint.authority()).map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert(HOST, host);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("flowproof"));
        for Header { name, value } in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        Ok(request)
    }

    async fn post(&self, body: Vec<u8>) -> Result<(StatusCode, Vec<u8>), String> {
        let text = |error: &dyn std::error::Error| chain(error);
        let request = self.request(body)?;
        let to = (self.endpoint.host.as_str(), self.endpoint.port);
        let stream = TcpStream::connect(to).await.map_err(|error| text(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| text(&error))?;
        let connection = tokio::spawn(connection);
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| text(&error))?;
        let (parts, body) = response.into_parts();
        let body = to_bytes(HttpBody::new(body), MOST_BYTES)
            .await
            .map_err(|error| text(&error))?;
        connection.abort();
        Ok((parts.status, body.to_vec()))
    }

    fn try_to(&self, events: &[Arc<Event>]) -> Result<Delivery, String> {
        let body = request(events)
            .and_then(|request| serde_json::to_vec(&request))
            .map_err(|error| error.to_string())?;
        // Of this thread's own, so that nothing here can keep another task waiting.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error: io::Error| error.to_string())?;
        let asked =
            runtime.block_on(async { tokio::time::timeout(self.timeout, self.post(body)).await });
        // A name that is being looked up may take longer than anybody waits.
        runtime.shutdown_background();
        let (status, answer) = asked.map_err(|_| "it takes too long".to_owned())??;
        Ok(judge(status, &answer, events.len()))
    }
}

impl Sink for Collector {
    fn kind(&self) -> &'static str {
        "otlp"
    }

    fn name(&self) -> String {
        format!("the collector at {}", self.endpoint)
    }

    fn deliver(&mut self, events: &[Arc<Event>]) -> Delivery {
        self.try_to(events)
            .unwrap_or_else(|reason| Delivery::up_to(0, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::model::tests::{bodies, event};

    #[test]
    fn a_request_is_as_the_json_mapping_wants_it() {
        let mut events: Vec<Arc<Event>> = bodies()
            .into_iter()
            .map(|body| Arc::new(event(body)))
            .collect();
        let mut other = event(bodies().swap_remove(1));
        other.site = Some("hq".to_owned());
        events.push(Arc::new(other));
        let request = request(&events).unwrap();
        let resources = request["resourceLogs"].as_array().unwrap();
        assert_eq!(resources.len(), 2);
        let records = &resources[0]["scopeLogs"][0]["logRecords"];
        assert_eq!(records.as_array().unwrap().len(), bodies().len());
        let blocked = &records[2];
        assert_eq!(blocked["timeUnixNano"], "1700000000123456789");
        assert_eq!(blocked["severityNumber"], 17);
        assert_eq!(blocked["eventName"], "flowproof.service_state");
        assert!(
            blocked["body"]["stringValue"]
                .as_str()
                .unwrap()
                .contains("is blocked")
        );
        let attributes = blocked["attributes"].as_array().unwrap();
        for expect in [
            json!({"key": "service", "value": {"stringValue": "tcp/5432"}}),
            json!({"key": "problem", "value": {"boolValue": true}}),
            json!({"key": "changes", "value": {"intValue": "1"}}),
        ] {
            assert!(attributes.contains(&expect), "{expect} in {attributes:?}");
        }
        let samples = records[3]["attributes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["key"] == "samples");
        assert_eq!(
            samples.unwrap()["value"]["arrayValue"]["values"][0]["kvlistValue"]["values"][0],
            json!({"key": "initiator", "value": {"stringValue": "192.0.2.1"}})
        );
        assert!(
            resources[1]["resource"]["attributes"]
                .as_array()
                .unwrap()
                .contains(&json!({"key": "flowproof.site", "value": {"stringValue": "hq"}}))
        );
    }

    #[test]
    fn an_answer_says_what_is_offered_again() {
        let check = |status: u16, body: &str, expect: (usize, usize, bool)| {
            let delivery = judge(StatusCode::from_u16(status).unwrap(), body.as_bytes(), 5);
            let got = (
                delivery.delivered,
                delivery.refused,
                delivery.trouble.is_some(),
            );
            assert_eq!(got, expect, "{status} {body}");
        };
        check(200, "{}", (5, 0, false));
        check(200, "", (5, 0, false));
        check(
            200,
            r#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"old"}}"#,
            (3, 2, true),
        );
        check(
            200,
            r#"{"partialSuccess":{"rejectedLogRecords":9}}"#,
            (0, 5, true),
        );
        check(
            200,
            r#"{"partialSuccess":{"errorMessage":"a warning"}}"#,
            (5, 0, false),
        );
        for status in [429, 502, 503, 504] {
            check(status, "later", (0, 0, true));
        }
        for status in [301, 400, 401, 404, 500] {
            check(status, "no", (0, 5, true));
        }
    }
}
