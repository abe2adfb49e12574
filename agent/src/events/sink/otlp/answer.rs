//! What an answer means: which events were taken, which never will be, and when the others may be offered again. By the
//! OTLP specification (sections "OTLP/gRPC Response", "OTLP/HTTP Response" and their "Throttling").

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, StatusCode};
use prost::Message as _;
use serde_json::Value;

use super::message::{PartialSuccess, Response, RetryInfo, Status};
use crate::events::sink::Delivery;

/// Characters of an answer that are shown.
const SHOWN: usize = 200;
/// The remedy for what is refused for good.
const REMEDY: &str = "those events are dropped: mend `events: {otlp: ...}` or the collector";
/// Metadata of gRPC is padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An answer of a collector.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) trailers: HeaderMap,
}

fn shown(text: &str) -> String {
    let text = text.chars().filter(|character| !character.is_control());
    text.take(SHOWN).collect()
}

fn refused(count: usize, reason: String) -> Delivery {
    Delivery {
        delivered: 0,
        refused: count,
        trouble: Some(reason),
        not_before: None,
    }
}

fn later(reason: String, not_before: Option<Duration>) -> Delivery {
    Delivery {
        not_before,
        ..Delivery::up_to(0, reason)
    }
}

/// A request that was taken, perhaps in part.
fn taken(count: usize, partial: Option<PartialSuccess>) -> Delivery {
    let partial = partial.unwrap_or_default();
    // Less than none is none, more than all is all.
    let refused = usize::try_from(partial.rejected_log_records.max(0))
        .unwrap_or(count)
        .min(count);
    let why = match partial.error_message.as_str() {
        "" => "no reason given".to_owned(),
        text => shown(text),
    };
    Delivery {
        delivered: count - refused,
        refused,
        trouble: (refused > 0).then(|| format!("it refused {refused} of {count}: {why}")),
        not_before: None,
    }
}

impl Answer {
    fn is_json(&self) -> bool {
        let kind = self.headers.get(CONTENT_TYPE);
        kind.is_none_or(|kind| kind.as_bytes().starts_with(b"application/json"))
    }

    /// The words of an error over HTTP: a status in the encoding of the request, or what a proxy says.
    fn words(&self) -> String {
        let kind = self.headers.get(CONTENT_TYPE);
        if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-protobuf"))
            && let Ok(status) = Status::decode(&*self.body)
        {
            return shown(&status.message);
        }
        shown(&String::from_utf8_lossy(&self.body))
    }

    /// What it means for `count` events that were posted.
    pub(super) fn of_http(&self, count: usize) -> Delivery {
        let status = self.status;
        if status.is_success() {
            let partial = if self.is_json() {
                partial_in_json(&self.body)
            } else {
                Response::decode(&*self.body)
                    .unwrap_or_default()
                    .partial_success
            };
            return taken(count, partial);
        }
        let again = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        if again.contains(&status) {
            // A date would need clocks that agree.
            let seconds = self.headers.get(RETRY_AFTER);
            let seconds = seconds.and_then(|text| text.to_str().ok()?.trim().parse().ok());
            let reason = format!("{status}: {}", self.words());
            return later(reason, seconds.map(Duration::from_secs));
        }
        refused(count, format!("{status}: {}; {REMEDY}", self.words()))
    }

    /// What it means for `count` events that were sent by gRPC.
    pub(super) fn of_grpc(&self, count: usize) -> Delivery {
        // An error may come without a body, and then has its trailers at the head.
        let field = |name| self.trailers.get(name).or_else(|| self.headers.get(name));
        let code = field("grpc-status").and_then(|code| code.to_str().ok()?.parse::<u8>().ok());
        let Some(code) = code else {
            return self.of_proxy(count);
        };
        if code == 0 {
            // Five bytes before it: whether it is compressed, which nobody asked for, and its length.
            let message = self.body.get(5..).unwrap_or_default();
            return taken(
                count,
                Response::decode(message)
                    .unwrap_or_default()
                    .partial_success,
            );
        }
        let words = field("grpc-message").map(|text| String::from_utf8_lossy(text.as_bytes()));
        let reason = format!(
            "gRPC status {code} ({}): {}",
            code_name(code),
            shown(&words.unwrap_or_default())
        );
        let wish = field("grpc-status-details-bin").and_then(|text| delay(text.as_bytes()));
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS; RESOURCE_EXHAUSTED only if it
        // is said when there will be some again.
        let again = matches!(code, 1 | 4 | 10 | 11 | 14 | 15) || (code == 8 && wish.is_some());
        if again {
            later(reason, wish)
        } else {
            refused(count, format!("{reason}; {REMEDY}"))
        }
    }

    /// An answer without a status of gRPC: of something in between
    /// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
    fn of_proxy(&self, count: usize) -> Delivery {
        let status = self.status;
        match status.as_u16() {
            429 | 502 | 503 | 504 => later(format!("{status}: {}", self.words()), None),
            _ => refused(
                count,
                format!("{status} without a gRPC status: is it an endpoint of gRPC? {REMEDY}"),
            ),
        }
    }
}

fn partial_in_json(body: &[u8]) -> Option<PartialSuccess> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let partial = answer.get("partialSuccess")?;
    let rejected = partial.get("rejectedLogRecords");
    // A text by the mapping; some write a number all the same.
    let rejected =
        rejected.and_then(|value| value.as_i64().or_else(|| value.as_str()?.parse().ok()));
    let message = partial.get("errorMessage").and_then(Value::as_str);
    Some(PartialSuccess {
        rejected_log_records: rejected.unwrap_or(0),
        error_message: message.unwrap_or_default().to_owned(),
    })
}

/// When to come again, in the details of a status.
fn delay(text: &[u8]) -> Option<Duration> {
    let status = Status::decode(&*BASE64.decode(text).ok()?).ok()?;
    let detail = status
        .details
        .iter()
        .find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*detail.value).ok()?.retry_delay?;
    let (seconds, nanos) = (delay.seconds.try_into().ok()?, delay.nanos.try_into().ok()?);
    Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanos))
}

/// Names of gRPC's status codes.
const fn code_name(code: u8) -> &'static str {
    match code {
        1 => "cancelled",
        2 => "unknown",
        3 => "invalid argument",
        4 => "deadline exceeded",
        5 => "not found",
        6 => "already exists",
        7 => "permission denied",
        8 => "resource exhausted",
        9 => "failed precondition",
        10 => "aborted",
        11 => "out of range",
        12 => "unimplemented",
        13 => "internal",
        14 => "unavailable",
        15 => "data loss",
        16 => "unauthenticated",
        // There are no others.
        _ => "not a code",
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Delay, Detail};
    use super::*;

    fn brief(delivery: &Delivery) -> (usize, usize, bool) {
        (
            delivery.delivered,
            delivery.refused,
            delivery.trouble.is_some(),
        )
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let fields = fields.iter();
        fields
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn an_answer_over_http_says_what_is_offered_again() {
        let check = |status: u16, body: &str, expect: (usize, usize, bool)| {
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                body: body.to_owned().into(),
                ..Answer::default()
            };
            assert_eq!(brief(&answer.of_http(5)), expect, "{status} {body}");
        };
        check(200, "{}", (5, 0, false));
        check(200, "", (5, 0, false));
        check(200, r#"{"partialSuccess":null}"#, (5, 0, false));
        let partial = r#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"old"}}"#;
        check(200, partial, (3, 2, true));
        let partial = r#"{"partialSuccess":{"rejectedLogRecords":9}}"#;
        check(200, partial, (0, 5, true));
        let partial = r#"{"partialSuccess":{"errorMessage":"a warning"}}"#;
        check(200, partial, (5, 0, false));
        for status in [429, 502, 503, 504] {
            check(status, "later", (0, 0, true));
        }
        for status in [301, 400, 401, 404, 500] {
            check(status, "no", (0, 5, true));
        }
    }

    #[test]
    fn an_answer_in_protobuf_is_read_as_such() {
        let protobuf = headers(&[("content-type", "application/x-protobuf")]);
        let response = Response {
            partial_success: Some(PartialSuccess {
                rejected_log_records: 2,
                error_message: "too old".to_owned(),
            }),
        };
        let mut answer = Answer {
            headers: protobuf,
            body: response.encode_to_vec().into(),
            ..Answer::default()
        };
        let delivery = answer.of_http(5);
        assert_eq!(brief(&delivery), (3, 2, true));
        assert!(delivery.trouble.unwrap().contains("too old"));
        let status = Status {
            code: 3,
            message: "no such tenant".to_owned(),
            details: Vec::new(),
        };
        answer.status = StatusCode::BAD_REQUEST;
        answer.body = status.encode_to_vec().into();
        let delivery = answer.of_http(5);
        assert_eq!(brief(&delivery), (0, 5, true));
        assert!(delivery.trouble.unwrap().contains("no such tenant"));
        // Of a proxy, which knows nothing of the request.
        answer.status = StatusCode::SERVICE_UNAVAILABLE;
        answer.headers = headers(&[("content-type", "text/html"), ("retry-after", "7")]);
        answer.body = "<html>busy</html>".into();
        let delivery = answer.of_http(5);
        assert_eq!(delivery.not_before, Some(Duration::from_secs(7)));
        assert!(delivery.trouble.unwrap().contains("busy"));
    }

    #[test]
    fn an_answer_of_grpc_says_what_is_offered_again() {
        let check = |code: &str, expect: (usize, usize, bool)| {
            let in_trailers = Answer {
                trailers: headers(&[("grpc-status", code), ("grpc-message", "words")]),
                ..Answer::default()
            };
            let at_the_head = Answer {
                headers: in_trailers.trailers.clone(),
                ..Answer::default()
            };
            for answer in [in_trailers, at_the_head] {
                let delivery = answer.of_grpc(5);
                assert_eq!(brief(&delivery), expect, "{code}");
                assert!(delivery.trouble.is_none_or(|text| text.contains("words")));
            }
        };
        check("0", (5, 0, false));
        for code in ["1", "4", "10", "11", "14", "15"] {
            check(code, (0, 0, true));
        }
        for code in ["2", "3", "5", "6", "7", "8", "9", "12", "13", "16", "17"] {
            check(code, (0, 5, true));
        }
    }

    #[test]
    fn who_is_exhausted_may_say_for_how_long() {
        let info = RetryInfo {
            retry_delay: Some(Delay {
                seconds: 3,
                nanos: 500_000_000,
            }),
        };
        let status = Status {
            code: 8,
            message: "quota".to_owned(),
            details: vec![Detail {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
                value: info.encode_to_vec(),
            }],
        };
        let padded = base64::prelude::BASE64_STANDARD.encode(status.encode_to_vec());
        for text in [padded.as_str(), padded.trim_end_matches('=')] {
            let answer = Answer {
                trailers: headers(&[("grpc-status", "8"), ("grpc-status-details-bin", text)]),
                ..Answer::default()
            };
            let delivery = answer.of_grpc(5);
            assert_eq!(brief(&delivery), (0, 0, true));
            assert_eq!(delivery.not_before, Some(Duration::from_millis(3_500)));
        }
        assert_eq!(delay(b"!"), None);
    }

    #[test]
    fn without_a_status_of_grpc_something_else_answered() {
        let of = |status: u16| {
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                ..Answer::default()
            };
            brief(&answer.of_grpc(5))
        };
        assert_eq!(of(503), (0, 0, true));
        assert_eq!(of(404), (0, 5, true));
        assert_eq!(of(200), (0, 5, true));
    }

    #[test]
    fn a_partial_success_of_grpc_is_counted() {
        let response = Response {
            partial_success: Some(PartialSuccess {
                rejected_log_records: 1,
                error_message: String::new(),
            }),
        };
        let message = response.encode_to_vec();
        let mut body = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        body.extend(message);
        let answer = Answer {
            trailers: headers(&[("grpc-status", "0")]),
            body: body.into(),
            ..Answer::default()
        };
        assert_eq!(brief(&answer.of_grpc(5)), (4, 1, true));
    }
}
