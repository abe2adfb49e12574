//! The JSON mapping of OTLP: lowerCamelCase names, 64-bit integers as texts, enums as numbers.

use serde_json::{Value, json};

use super::message::{Any, AnyValue, KeyValue, LogRecord, Request};

fn any(value: &AnyValue) -> Value {
    match &value.value {
        None => json!({}),
        Some(Any::Text(text)) => json!({ "stringValue": text }),
        Some(Any::Truth(truth)) => json!({ "boolValue": truth }),
        Some(Any::Whole(number)) => json!({ "intValue": number.to_string() }),
        Some(Any::Real(number)) => json!({ "doubleValue": number }),
        Some(Any::List(list)) => {
            json!({ "arrayValue": { "values": list.values.iter().map(any).collect::<Vec<_>>() } })
        }
        Some(Any::Fields(fields)) => {
            json!({ "kvlistValue": { "values": attributes(&fields.values) } })
        }
    }
}

fn attributes(attributes: &[KeyValue]) -> Vec<Value> {
    let value = |one: &KeyValue| one.value.as_ref().map_or_else(|| json!({}), any);
    attributes
        .iter()
        .map(|one| json!({ "key": one.key, "value": value(one) }))
        .collect()
}

fn record(record: &LogRecord) -> Value {
    json!({
        "timeUnixNano": record.time_unix_nano.to_string(),
        "observedTimeUnixNano": record.observed_time_unix_nano.to_string(),
        "severityNumber": record.severity_number,
        "severityText": record.severity_text,
        "eventName": record.event_name,
        "body": record.body.as_ref().map(any),
        "attributes": attributes(&record.attributes),
    })
}

/// A request in JSON.
pub(super) fn request(request: &Request) -> Value {
    let resources = request.resource_logs.iter().map(|logs| {
        let resource = logs.resource.as_ref().map(|resource| &*resource.attributes);
        let scopes = logs.scope_logs.iter().map(|logs| {
            let scope = logs.scope.as_ref();
            json!({
                "scope": scope.map(|scope| json!({ "name": scope.name, "version": scope.version })),
                "logRecords": logs.log_records.iter().map(record).collect::<Vec<_>>(),
            })
        });
        json!({
            "resource": { "attributes": attributes(resource.unwrap_or_default()) },
            "scopeLogs": scopes.collect::<Vec<_>>(),
        })
    });
    json!({ "resourceLogs": resources.collect::<Vec<_>>() })
}
