//! Kerberos (RFC 4120): asks for a ticket for a principal that nobody has, in a realm that can't exist (RFC 2606), so that
//! no account is touched and no lock-out counted. A KDC answers with an error, which shows that it is there.
//!
//! An error repeats none of the request's numbers (its nonce comes back only in tickets), so the socket's port and the
//! form of the message tie it to the question.

use super::der::{
    BIT_STRING, GENERAL_STRING, GENERALIZED_TIME, INTEGER, SEQUENCE, application, constructed,
    context, element, integer, split,
};
use super::{Seed, part};

/// Protocol version (RFC 4120, section 5.4.1).
const VERSION: u8 = 5;
/// Message types (RFC 4120, section 7.5.7), application tags at the same time.
const AS_REQ: u8 = 10;
const AS_REP: u8 = 11;
const KRB_ERROR: u8 = 30;
/// Name types (RFC 4120, section 6.2).
const NT_PRINCIPAL: u32 = 1;
const NT_SRV_INST: u32 = 2;
/// Nobody's realm and nobody's principal.
const REALM: &str = "FLOWPROOF.INVALID";
const PRINCIPAL: &str = "flowproof-probe";
/// The time that stands for "as long as you like" (RFC 4120, section 5.4.1).
const TILL: &[u8] = b"19700101000000Z";
/// Encryption types (RFC 3962 and RFC 4757): AES-256, AES-128, RC4.
const ETYPES: [u32; 3] = [18, 17, 23];

/// An AS-REQ with a nonce from the seed.
pub(super) fn question(seed: &Seed) -> Vec<u8> {
    let text = |text: &str| element(GENERAL_STRING, text.as_bytes());
    let name = |kind: u32, parts: &[&str]| {
        let parts: Vec<_> = parts.iter().map(|part| text(part)).collect();
        constructed(
            SEQUENCE,
            &[
                element(context(0), &integer(kind)),
                element(context(1), &constructed(SEQUENCE, &parts)),
            ],
        )
    };
    // 31 bits: some KDCs take the nonce for signed.
    let nonce = u32::from_be_bytes(part(seed, 0)) & 0x7fff_ffff;
    let body = constructed(
        SEQUENCE,
        &[
            // No options: 32 bits, none unused.
            element(context(0), &element(BIT_STRING, &[0, 0, 0, 0, 0])),
            element(context(1), &name(NT_PRINCIPAL, &[PRINCIPAL])),
            element(context(2), &text(REALM)),
            element(context(3), &name(NT_SRV_INST, &["krbtgt", REALM])),
            element(context(5), &element(GENERALIZED_TIME, TILL)),
            element(context(7), &integer(nonce)),
            element(context(8), &constructed(SEQUENCE, &ETYPES.map(integer))),
        ],
    );
    let request = constructed(
        SEQUENCE,
        &[
            element(context(1), &integer(u32::from(VERSION))),
            element(context(2), &integer(u32::from(AS_REQ))),
            element(context(4), &body),
        ],
    );
    element(application(AS_REQ), &request)
}

/// A KRB-ERROR, or an AS-REP, which nobody should ever give to nobody.
pub(super) fn answer(heard: &[u8]) -> Option<String> {
    let (tag, message, &[]) = split(heard)? else {
        return None;
    };
    let kind = [KRB_ERROR, AS_REP]
        .into_iter()
        .find(|kind| application(*kind) == tag)?;
    let (SEQUENCE, mut fields, &[]) = split(message)? else {
        return None;
    };
    let mut code = None;
    let mut numbers = [None, None];
    while !fields.is_empty() {
        let (tag, content, rest) = split(fields)?;
        fields = rest;
        match tag {
            tag if tag == context(0) => numbers[0] = number(content),
            tag if tag == context(1) => numbers[1] = number(content),
            tag if tag == context(6) => code = number(content),
            _ => {}
        }
    }
    if numbers != [Some(u32::from(VERSION)), Some(u32::from(kind))] {
        return None;
    }
    Some(match code {
        Some(code) if kind == KRB_ERROR => format!("Kerberos error {code}"),
        Some(_) | None if kind == AS_REP => "AS-REP".to_owned(),
        Some(_) | None => return None,
    })
}

fn number(bytes: &[u8]) -> Option<u32> {
    let (INTEGER, content, &[]) = split(bytes)? else {
        return None;
    };
    if content.is_empty() || content.len() > 4 || content[0] & 0x80 != 0 {
        return None;
    }
    Some(
        content
            .iter()
            .fold(0, |number, byte| number << 8 | u32::from(*byte)),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::seed;
    use super::*;

    /// A reader of its own: every element as (depth, tag, content of those without elements), in order.
    fn walk(mut bytes: &[u8], depth: usize, into: &mut Vec<(usize, u8, Vec<u8>)>) {
        while let [tag, rest @ ..] = bytes {
            let (length, after) = match rest {
                [length @ 0..=127, after @ ..] => (usize::from(*length), after),
                [0x81, length, after @ ..] => (usize::from(*length), after),
                _ => panic!("a length that no question has: {rest:02x?}"),
            };
            let (content, after) = after.split_at(length);
            bytes = after;
            if tag & 0x20 == 0 {
                into.push((depth, *tag, content.to_vec()));
            } else {
                into.push((depth, *tag, Vec::new()));
                walk(content, depth + 1, into);
            }
        }
    }

    #[test]
    fn the_question_is_an_as_req_of_rfc_4120() {
        let mut elements = Vec::new();
        walk(&question(&seed()), 0, &mut elements);
        let shape: Vec<String> = elements
            .iter()
            .map(|(depth, tag, content)| {
                let text = match tag {
                    0x1b | 0x18 => String::from_utf8(content.clone()).unwrap(),
                    _ => content.iter().map(|byte| format!("{byte:02x}")).collect(),
                };
                format!("{}{tag:02x} {text}", " ".repeat(*depth))
                    .trim_end()
                    .to_owned()
            })
            .collect();
        let expect = "6a
 30
  a1
   02 05
  a2
   02 0a
  a4
   30
    a0
     03 0000000000
    a1
     30
      a0
       02 01
      a1
       30
        1b flowproof-probe
    a2
     1b FLOWPROOF.INVALID
    a3
     30
      a0
       02 02
      a1
       30
        1b krbtgt
        1b FLOWPROOF.INVALID
    a5
     18 19700101000000Z
    a7
     02 11121314
    a8
     30
      02 12
      02 11
      02 17";
        assert_eq!(shape.join("\n"), expect);
    }

    fn error(version: u32, kind: u32) -> Vec<u8> {
        let fields = constructed(
            SEQUENCE,
            &[
                element(context(0), &integer(version)),
                element(context(1), &integer(kind)),
                element(context(4), &element(GENERALIZED_TIME, TILL)),
                element(context(5), &integer(0)),
                element(context(6), &integer(68)),
            ],
        );
        element(application(30), &fields)
    }

    #[test]
    fn only_a_whole_answer_of_a_kdc_counts() {
        assert_eq!(answer(&error(5, 30)).as_deref(), Some("Kerberos error 68"));
        assert_eq!(answer(&error(4, 30)), None);
        assert_eq!(answer(&error(5, 10)), None);
        let whole = error(5, 30);
        assert_eq!(answer(&whole[..whole.len() - 1]), None);
        let mut longer = whole;
        longer.push(0);
        assert_eq!(answer(&longer), None);
        assert_eq!(answer(&[]), None);
    }
}
