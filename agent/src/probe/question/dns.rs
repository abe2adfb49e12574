//! DNS (RFC 1035): asks for the name servers of the root, which every resolver can tell and every other server refuses.
//! A refusal is an answer: the service is reached.

use super::{Seed, part};

/// Bytes of a header (RFC 1035, section 4.1.1).
const HEADER: usize = 12;

/// A query for `. IN NS` with recursion desired.
pub(super) fn question(seed: &Seed) -> Vec<u8> {
    let id: [u8; 2] = part(seed, 0);
    let mut bytes = id.to_vec();
    // RD; one question.
    bytes.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    // The root, type NS (2), class IN (1).
    bytes.extend([0, 0, 2, 0, 1]);
    bytes
}

/// A response to this query: its identifier and, where it repeats the question, that question.
pub(super) fn answer(asked: &[u8], heard: &[u8]) -> Option<String> {
    let header = heard.get(..HEADER)?;
    let is_response = header[2] & 0x80 != 0 && header[2] & 0x78 == 0;
    if header[..2] != asked[..2] || !is_response {
        return None;
    }
    match header[4..6] {
        // Servers that could not read the question leave it out.
        [0, 0] => {}
        [0, 1] => {
            let question = &asked[HEADER..];
            if heard.get(HEADER..HEADER + question.len())? != question {
                return None;
            }
        }
        _ => return None,
    }
    Some(match header[3] & 0xf {
        0 => "response: NOERROR".to_owned(),
        2 => "response: SERVFAIL".to_owned(),
        5 => "response: REFUSED".to_owned(),
        code => format!("response: response code {code}"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::seed;
    use super::*;
    use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::{DNSClass, Name, RecordType};

    #[test]
    fn others_read_the_question_as_it_is_meant() {
        let message = Message::from_vec(&question(&seed())).unwrap();
        assert_eq!(message.metadata.id, 0x1112);
        assert_eq!(message.metadata.message_type, MessageType::Query);
        assert_eq!(message.metadata.op_code, OpCode::Query);
        assert!(message.metadata.recursion_desired);
        let [query] = message.queries.as_slice() else {
            panic!("not one question: {message:?}");
        };
        assert_eq!(query.name, Name::root());
        assert_eq!(query.query_type, RecordType::NS);
        assert_eq!(query.query_class, DNSClass::IN);
        assert_eq!(question(&seed()).len(), 17);
    }

    fn response(id: u16, with_question: bool, code: ResponseCode) -> Vec<u8> {
        let mut message = Message::response(id, OpCode::Query);
        message.metadata.response_code = code;
        if with_question {
            message.add_query(Query::query(Name::root(), RecordType::NS));
        }
        message.to_vec().unwrap()
    }

    #[test]
    fn only_the_answer_to_this_question_counts() {
        let asked = question(&seed());
        let check = |heard: &[u8], expect: Option<&str>| {
            assert_eq!(answer(&asked, heard).as_deref(), expect, "{heard:02x?}");
        };
        check(
            &response(0x1112, true, ResponseCode::NoError),
            Some("response: NOERROR"),
        );
        check(
            &response(0x1112, true, ResponseCode::Refused),
            Some("response: REFUSED"),
        );
        check(
            &response(0x1112, false, ResponseCode::NotImp),
            Some("response: response code 4"),
        );
        // Another transaction's, another question's, cut, nothing.
        check(&response(0x1113, true, ResponseCode::NoError), None);
        let mut other = response(0x1112, true, ResponseCode::NoError);
        other[14] = 6;
        check(&other, None);
        check(&other[..15], None);
        check(&[], None);
    }
}
