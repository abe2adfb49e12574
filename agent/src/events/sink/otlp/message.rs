//! Messages of OTLP logs, as opentelemetry-proto 1.x numbers their fields
//! (`opentelemetry/proto/{common,resource,logs,collector/logs}/v1/*.proto`), and events as such messages. Only fields that
//! are written or read here are there; protobuf passes over the others.

use std::sync::Arc;

use prost::{Message, Oneof};
use serde_json::Value;

use crate::events::model::{Event, Severity};
use crate::export::metrics::VERSION;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(super) log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Scope {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LogRecord {
    #[prost(fixed64, tag = "1")]
    pub(super) time_unix_nano: u64,
    #[prost(int32, tag = "2")]
    pub(super) severity_number: i32,
    #[prost(string, tag = "3")]
    pub(super) severity_text: String,
    #[prost(message, optional, tag = "5")]
    pub(super) body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    pub(super) attributes: Vec<KeyValue>,
    #[prost(fixed64, tag = "11")]
    pub(super) observed_time_unix_nano: u64,
    #[prost(string, tag = "12")]
    pub(super) event_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 2, 3, 4, 5, 6")]
    pub(super) value: Option<Any>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Any {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Truth(bool),
    #[prost(int64, tag = "3")]
    Whole(i64),
    #[prost(double, tag = "4")]
    Real(f64),
    #[prost(message, tag = "5")]
    List(List),
    #[prost(message, tag = "6")]
    Fields(Fields),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct List {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Fields {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Response {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_log_records: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

/// `google.rpc.Status`, which says what went wrong.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Detail {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Delay {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

/// Numbers of the log data model: INFO, WARN, ERROR.
const fn severity(severity: Severity) -> (i32, &'static str) {
    match severity {
        Severity::Info => (9, "INFO"),
        Severity::Warning => (13, "WARN"),
        Severity::Error => (17, "ERROR"),
    }
}

fn text(text: &str) -> AnyValue {
    AnyValue {
        value: Some(Any::Text(text.to_owned())),
    }
}

fn any(value: &Value) -> AnyValue {
    let value = match value {
        Value::Null => None,
        Value::Bool(value) => Some(Any::Truth(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Some(Any::Whole(number)),
            (None, number) => number.map(Any::Real),
        },
        Value::String(text) => Some(Any::Text(text.clone())),
        Value::Array(values) => Some(Any::List(List {
            values: values.iter().map(any).collect(),
        })),
        Value::Object(fields) => Some(Any::Fields(Fields {
            values: attributes(fields, |_| true),
        })),
    };
    AnyValue { value }
}

fn attributes(
    fields: &serde_json::Map<String, Value>,
    wanted: impl Fn(&str) -> bool,
) -> Vec<KeyValue> {
    fields
        .iter()
        .filter(|(name, value)| wanted(name) && !value.is_null())
        .map(|(name, value)| KeyValue {
            key: name.clone(),
            value: Some(any(value)),
        })
        .collect()
}

fn record(event: &Event) -> serde_json::Result<LogRecord> {
    let value = serde_json::to_value(event)?;
    // These have fields of their own.
    let own = ["time", "severity", "message", "agent", "site", "type"];
    let attributes = value
        .as_object()
        .map(|fields| attributes(fields, |name| !own.contains(&name)))
        .unwrap_or_default();
    let (severity_number, severity_text) = severity(event.severity);
    Ok(LogRecord {
        time_unix_nano: event.time,
        observed_time_unix_nano: event.time,
        severity_number,
        severity_text: severity_text.to_owned(),
        event_name: format!("flowproof.{}", event.body.name()),
        body: Some(text(&event.message)),
        attributes,
    })
}

/// Events of one batch may be of different sites, if the matrix was read anew.
pub(super) fn request(events: &[Arc<Event>]) -> serde_json::Result<Request> {
    let mut resource_logs = Vec::new();
    for events in events.chunk_by(|one, other| one.site == other.site && one.agent == other.agent) {
        let Some(first) = events.first() else {
            continue;
        };
        let site = first.site.as_deref().map(|site| ("flowproof.site", site));
        let attributes = [
            ("service.name", "flowproof"),
            ("service.version", VERSION),
            ("host.name", first.agent.as_str()),
        ]
        .into_iter()
        .chain(site)
        .map(|(key, value)| KeyValue {
            key: key.to_owned(),
            value: Some(text(value)),
        })
        .collect();
        resource_logs.push(ResourceLogs {
            resource: Some(Resource { attributes }),
            scope_logs: vec![ScopeLogs {
                scope: Some(Scope {
                    name: "flowproof".to_owned(),
                    version: VERSION.to_owned(),
                }),
                log_records: events
                    .iter()
                    .map(|event| record(event))
                    .collect::<serde_json::Result<_>>()?,
            }],
        });
    }
    Ok(Request { resource_logs })
}
