//! OpenTelemetry logs (OTLP 1.x) to a collector, which carries them on to whatever it is configured for: Kafka, Loki,
//! ClickHouse. Over HTTP/1.1, in protobuf or in the JSON mapping, or over gRPC; in the clear or over TLS. `message` has the
//! messages, `json` their mapping, `call` brings one to the collector, `answer` says what came of it.
//!
//! gRPC is spoken by hyper alone: one method without streams is a header of five bytes and a status in the trailers, for
//! which a framework of its own would be much.

mod answer;
mod call;
mod json;
mod message;

use std::io;
use std::sync::Arc;

use prost::Message as _;

use super::{Delivery, Sink};
use crate::config::{OtlpConfig, OtlpProtocol};
use crate::events::model::Event;

/// A collector.
pub(super) struct Collector {
    config: OtlpConfig,
}

impl Collector {
    pub(super) fn new(config: &OtlpConfig) -> Self {
        Self {
            config: config.clone(),
        }
    }

    fn body(&self, events: &[Arc<Event>]) -> Result<Vec<u8>, String> {
        let request = message::request(events).map_err(|error| error.to_string())?;
        match self.config.protocol {
            OtlpProtocol::HttpProtobuf => Ok(request.encode_to_vec()),
            OtlpProtocol::HttpJson => {
                serde_json::to_vec(&json::request(&request)).map_err(|error| error.to_string())
            }
            OtlpProtocol::Grpc => call::framed(&request),
        }
    }

    fn try_to(&self, events: &[Arc<Event>]) -> Result<Delivery, String> {
        let body = self.body(events)?;
        // Of this thread's own, so that nothing here can keep another task waiting.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error: io::Error| error.to_string())?;
        let asked = runtime.block_on(async {
            tokio::time::timeout(self.config.timeout, call::call(&self.config, body)).await
        });
        // A name that is being looked up may take longer than anybody waits.
        runtime.shutdown_background();
        let answer = asked.map_err(|_| "it takes too long".to_owned())??;
        Ok(match self.config.protocol {
            OtlpProtocol::HttpProtobuf | OtlpProtocol::HttpJson => answer.of_http(events.len()),
            OtlpProtocol::Grpc => answer.of_grpc(events.len()),
        })
    }
}

impl Sink for Collector {
    fn kind(&self) -> &'static str {
        "otlp"
    }

    fn name(&self) -> String {
        format!("the collector at {}", self.config.url())
    }

    fn deliver(&mut self, events: &[Arc<Event>]) -> Delivery {
        self.try_to(events)
            .unwrap_or_else(|reason| Delivery::up_to(0, reason))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let request = json::request(&message::request(&events).unwrap());
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
    fn what_is_written_in_protobuf_is_read_as_the_same() {
        let events: Vec<Arc<Event>> = bodies()
            .into_iter()
            .map(|body| Arc::new(event(body)))
            .collect();
        let request = message::request(&events).unwrap();
        let bytes = request.encode_to_vec();
        assert_eq!(message::Request::decode(&*bytes).unwrap(), request);
        let frame = call::framed(&request).unwrap();
        assert_eq!(frame[0], 0);
        let length = u32::from_be_bytes(frame[1..5].try_into().unwrap());
        assert_eq!(length as usize, bytes.len());
        assert_eq!(&frame[5..], bytes);
    }
}
