//! Reads what a resolver answered. A response may carry records that nobody asked for (poison, or mere additions), so
//! only those count that the chain from the question reaches; the rest is skipped without being decoded, which also
//! keeps a malformed stranger from spoiling the answer.
//!
//! The pieces of the format come from hickory-proto; the walk over the sections is here, because its whole-message
//! reader decodes every record and refuses the message for any one of them.

mod chain;
mod ech;
mod records;
#[cfg(test)]
mod tests;

use hickory_proto::op::{Header, MessageType, OpCode};
use hickory_proto::rr::Name as WireName;
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};
use thiserror::Error;

use self::records::Section;
use super::super::answer::{Answer, Kind, Name, Result as Outcome, fold};

/// Most bytes of a DNS message: its length has 16 bits over TCP (RFC 1035, section 4.2.2) and UDP carries less.
pub const MAX_MESSAGE_BYTES: usize = 65_535;

/// Class of the Internet (RFC 1035, section 3.2.4).
const INTERNET: u16 = 1;

/// Why bytes are not an answer about a host name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DnsError {
    /// More than [`MAX_MESSAGE_BYTES`].
    #[error("{0} bytes are more than a DNS message can have; is this DNS?")]
    TooLarge(usize),
    /// A query, or an operation other than QUERY (NOTIFY, UPDATE ...).
    #[error("the DNS message isn't the response to a query")]
    NotAResponse,
    /// There must be one question (RFC 9619); some responses to broken queries have none.
    #[error("the DNS response has {0} questions instead of one")]
    NoQuestion(u16),
    /// The question is about a name that can't be a host's: the root, or one with odd bytes.
    #[error("the DNS response is about a name that no host can have")]
    NotAHostName,
    /// The question is in another class than the Internet's, for instance CHAOS.
    #[error("the DNS response is of class {0}, not of the Internet")]
    Class(u16),
    /// It breaks the format of RFC 1035, or it ends before the answer does and no TC bit says so.
    #[error("the DNS response is malformed or cut")]
    Malformed,
}

/// Reads a DNS response (RFC 1035): follows the chain from its one question over CNAMEs (RFC 1034, section 3.6.2; those
/// that a DNAME makes are in the message too, RFC 6672) and over alias and service mode of HTTPS and SVCB records
/// (RFC 9460).
///
/// - The result is [`Found`](Outcome::Found) exactly if there are addresses. For kinds that say nothing about addresses
///   a success is [`NoData`](Outcome::NoData).
/// - NXDOMAIN at the end of a chain counts for the question (RFC 6604, section 3).
/// - At most 16 links are followed and 256 addresses kept, loops end; of a set of HTTPS records with a malformed one,
///   none counts (RFC 9460, section 2.2).
/// - Where the TC bit is set, or where the message was cut, the addresses that are there are used.
///
/// # Errors
/// [`DnsError`]; a response that was cut before any address of the question and lacks the TC bit is
/// [`DnsError::Malformed`], because it proves nothing.
pub fn read(message: &[u8]) -> Result<Answer, DnsError> {
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(DnsError::TooLarge(message.len()));
    }
    let mut decoder = BinDecoder::new(message);
    let header = Header::read(&mut decoder).map_err(|_| DnsError::Malformed)?;
    if header.message_type != MessageType::Response || header.op_code != OpCode::Query {
        return Err(DnsError::NotAResponse);
    }
    if header.counts.queries != 1 {
        return Err(DnsError::NoQuestion(header.counts.queries));
    }
    let asked = WireName::read(&mut decoder).map_err(|_| DnsError::Malformed)?;
    let kind = number(&mut decoder)?;
    let class = number(&mut decoder)?;
    if class != INTERNET {
        return Err(DnsError::Class(class));
    }
    let question = host_name(&asked).ok_or(DnsError::NotAHostName)?;

    let counts = header.counts;
    let answers = records::read(message, &mut decoder, counts.answers, Section::Answer);
    // The other sections only add to the answer; a cut there loses hints at most.
    let more = if answers.whole && records::skip(message, &mut decoder, counts.authorities) {
        let count = counts.additionals;
        records::read(message, &mut decoder, count, Section::Additional)
    } else {
        records::Records::default()
    };

    let code = u16::from(header.response_code) | (u16::from(more.high_code) << 4);
    let outcome = outcome(code);
    let chain = chain::follow(&asked, kind, &answers.list, &more.list);
    let addresses = if outcome == Outcome::NoData {
        chain.addresses
    } else {
        Vec::new()
    };
    let proves = !addresses.is_empty() || outcome != Outcome::NoData || header.truncation;
    if !answers.whole && !proves {
        return Err(DnsError::Malformed);
    }
    Ok(Answer {
        question,
        kind: kind_of(kind),
        result: if addresses.is_empty() {
            outcome
        } else {
            Outcome::Found
        },
        aliases: chain.aliases,
        addresses,
        ech_public_name: chain.ech_public_name,
    })
}

/// Reads 16 bits.
fn number(decoder: &mut BinDecoder<'_>) -> Result<u16, DnsError> {
    decoder
        .read_u16()
        .map(hickory_proto::serialize::binary::Restrict::unverified)
        .map_err(|_| DnsError::Malformed)
}

/// What a response code says (RFC 1035, section 4.1.1; RFC 6895, section 2.3), before any address is seen.
fn outcome(code: u16) -> Outcome {
    match code {
        0 => Outcome::NoData,
        2 => Outcome::ServerFailure,
        3 => Outcome::NoName,
        5 => Outcome::Refused,
        other => Outcome::Other(other),
    }
}

/// The kind behind a type number.
fn kind_of(number: u16) -> Kind {
    match number {
        records::A => Kind::A,
        records::AAAA => Kind::Aaaa,
        records::HTTPS | records::SVCB => Kind::Https,
        other => Kind::Other(other),
    }
}

/// The name as the tables keep it. A label with a dot inside is no host's, though joined up it would look like one.
fn host_name(name: &WireName) -> Option<Name> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        let label = str::from_utf8(label).ok()?;
        if label.contains('.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(label);
    }
    fold(&text)
}
