//! The records of one section, of which only the types that lead to addresses are decoded.

use std::net::IpAddr;

use hickory_proto::rr::rdata::{HTTPS as HttpsData, SVCB as Service};
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder, Restrict};

/// IPv4 address (RFC 1035, section 3.4.1).
pub(super) const A: u16 = 1;
/// Alias (RFC 1035, section 3.3.1).
const CNAME: u16 = 5;
/// IPv6 address (RFC 3596, section 2.1).
pub(super) const AAAA: u16 = 28;
/// Extensions, with the high bits of the response code (RFC 6891, section 6.1.3).
const OPT: u16 = 41;
/// Service binding (RFC 9460, section 14.1).
pub(super) const SVCB: u16 = 64;
/// Service binding of HTTPS (RFC 9460, section 14.1).
pub(super) const HTTPS: u16 = 65;
/// Question for records of all types (RFC 1035, section 3.2.3).
pub(super) const ANY: u16 = 255;

/// Most records that are decoded of one section: twice the addresses that are kept. Skipped ones don't count.
const MAX_RECORDS: usize = 512;

/// Most labels that a name of 255 bytes can have. A compressed name needs no more pointers than labels either.
const MAX_LABELS: usize = 127;

/// What a record says.
#[derive(Debug)]
pub(super) enum Data {
    /// Its owner has this address.
    Address(IpAddr),
    /// Its owner is another name for this.
    Alias(Name),
    /// Where the service of its owner is, by record type. `None`: malformed.
    Service(u16, Option<Box<Service>>),
}

/// A record that may be part of the answer.
#[derive(Debug)]
pub(super) struct Record {
    /// The name that it belongs to.
    pub(super) owner: Name,
    /// Seconds that it may be kept.
    pub(super) ttl: u32,
    /// What it says.
    pub(super) data: Data,
}

/// What a section holds.
#[derive(Default, Debug)]
pub(super) struct Records {
    /// The records of interest, in order.
    pub(super) list: Vec<Record>,
    /// Bits 4 to 11 of the response code, if the section has an OPT record.
    pub(super) high_code: u8,
    /// Whether the section could be read to its end.
    pub(super) whole: bool,
}

/// Which section is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Section {
    /// The answer proper.
    Answer,
    /// Addresses of service targets, and the extensions. Services are no answer there.
    Additional,
}

/// Reads the next `count` records. A record of the Internet that leads nowhere is passed by.
pub(super) fn read(
    message: &[u8],
    decoder: &mut BinDecoder<'_>,
    count: u16,
    section: Section,
) -> Records {
    let mut records = Records::default();
    for _ in 0..count {
        let Some(head) = Head::read(message, decoder) else {
            return records;
        };
        if head.kind == OPT && section == Section::Additional {
            [records.high_code, ..] = head.ttl.to_be_bytes();
        }
        let service = matches!(head.kind, HTTPS | SVCB) && section == Section::Answer;
        let wanted = service || matches!(head.kind, A | AAAA | CNAME);
        if wanted
            && head.class == super::INTERNET
            && records.list.len() < MAX_RECORDS
            && let Some(record) = head.decode(message)
        {
            records.list.push(record);
        }
    }
    records.whole = true;
    records
}

/// Passes by the next `count` records. Whether there are so many.
pub(super) fn skip(message: &[u8], decoder: &mut BinDecoder<'_>, count: u16) -> bool {
    (0..count).all(|_| Head::read(message, decoder).is_some())
}

/// A record before its data is looked at. Names are not chased yet: most records are passed by.
struct Head {
    owner_at: usize,
    kind: u16,
    class: u16,
    ttl: u32,
    data_at: usize,
    data_bytes: u16,
}

impl Head {
    /// Reads one and leaves the decoder behind its data. `None` at the end of the message or of its sense.
    fn read(message: &[u8], decoder: &mut BinDecoder<'_>) -> Option<Self> {
        let owner_at = decoder.index();
        let owner_bytes = name_bytes(message.get(owner_at..)?)?;
        decoder.read_slice(owner_bytes).ok()?;
        let kind = decoder.read_u16().ok()?.unverified();
        let class = decoder.read_u16().ok()?.unverified();
        let ttl = decoder.read_u32().ok()?.unverified();
        let data_bytes = decoder.read_u16().ok()?.unverified();
        let data_at = decoder.index();
        decoder.read_slice(usize::from(data_bytes)).ok()?;
        Some(Self {
            owner_at,
            kind,
            class,
            // RFC 2181, section 8: a TTL with the top bit set is zero.
            ttl: if ttl >> 31 == 0 { ttl } else { 0 },
            data_at,
            data_bytes,
        })
    }

    /// Chases its names. `None` if they or the data are malformed; a service record then stays as malformed.
    fn decode(&self, message: &[u8]) -> Option<Record> {
        let owner = name_at(message, self.owner_at)?;
        let data = match self.kind {
            SVCB | HTTPS => Data::Service(self.kind, self.service(message)),
            _ => self.leading(message)?,
        };
        Some(Record {
            owner,
            ttl: self.ttl,
            data,
        })
    }

    /// An address or an alias.
    fn leading(&self, message: &[u8]) -> Option<Data> {
        let data = self.data(message)?;
        if let RData::A(address) = data {
            Some(Data::Address(IpAddr::V4(address.0)))
        } else if let RData::AAAA(address) = data {
            Some(Data::Address(IpAddr::V6(address.0)))
        } else if let RData::CNAME(name) = data {
            Some(Data::Alias(name.0))
        } else {
            None
        }
    }

    fn service(&self, message: &[u8]) -> Option<Box<Service>> {
        if let RData::SVCB(service) | RData::HTTPS(HttpsData(service)) = self.data(message)? {
            Some(Box::new(service))
        } else {
            None
        }
    }

    fn data(&self, message: &[u8]) -> Option<RData> {
        let name_at = match self.kind {
            CNAME => Some(self.data_at),
            // After the priority.
            SVCB | HTTPS => Some(self.data_at + 2),
            _ => None,
        };
        if name_at.is_some_and(|at| !is_chaseable(message, at)) {
            return None;
        }
        // The record ends the view, so that nothing in it can be read beyond it; names point backwards only.
        let view = message.get(..self.data_at + usize::from(self.data_bytes))?;
        let mut decoder = BinDecoder::new(view).clone(u16::try_from(self.data_at).ok()?);
        let length = Restrict::new(self.data_bytes);
        RData::read(&mut decoder, RecordType::from(self.kind), length).ok()
    }
}

/// Reads the name at a place.
fn name_at(message: &[u8], at: usize) -> Option<Name> {
    if !is_chaseable(message, at) {
        return None;
    }
    Name::read(&mut BinDecoder::new(message).clone(u16::try_from(at).ok()?)).ok()
}

/// How many bytes a name takes in place, up to its first pointer (RFC 1035, section 4.1.4).
fn name_bytes(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for _ in 0..=MAX_LABELS {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
    None
}

/// Whether reading the name at a place takes few steps. hickory-proto ends pointer loops, but pointers to pointers can
/// make it take 8,192 steps a name; an honest compressor needs no more pointers than the name has labels.
fn is_chaseable(message: &[u8], mut at: usize) -> bool {
    for _ in 0..2 * MAX_LABELS {
        match (message.get(at), message.get(at + 1)) {
            (Some(0), _) => return true,
            (Some(length @ 1..=63), _) => at += 1 + usize::from(*length),
            (Some(high @ 0xc0..), Some(low)) => {
                at = (usize::from(high & 0x3f) << 8) | usize::from(*low);
            }
            _ => return false,
        }
    }
    false
}
