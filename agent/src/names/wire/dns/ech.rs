//! Reads the one thing of an encrypted ClientHello configuration that is seen on the wire: the public name, which such
//! a ClientHello shows in place of the true one.

use super::super::super::answer::{Name, fold};

/// Version of the configurations that clients use (draft-ietf-tls-esni, section 4).
const VERSION: u16 = 0xfe0d;

/// The public name of the first configuration of the known version in an ECHConfigList.
pub(super) fn public_name(list: &[u8]) -> Option<Name> {
    let mut list = take_vector(&mut &*list)?;
    while !list.is_empty() {
        let version = take_number(&mut list)?;
        let config = take_vector(&mut list)?;
        if version == VERSION {
            return read(config);
        }
    }
    None
}

/// `ECHConfigContents`: key identifier, KEM, public key, cipher suites, longest name, public name.
fn read(mut config: &[u8]) -> Option<Name> {
    take(&mut config, 1 + 2)?;
    take_vector(&mut config)?;
    take_vector(&mut config)?;
    take(&mut config, 1)?;
    let length = take(&mut config, 1)?;
    let name = take(&mut config, usize::from(*length.first()?))?;
    fold(str::from_utf8(name).ok()?)
}

fn take<'b>(bytes: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn take_number(bytes: &mut &[u8]) -> Option<u16> {
    take(bytes, 2).map(|two| u16::from_be_bytes([two[0], two[1]]))
}

/// A vector with a length of 16 bits (RFC 8446, section 3.4).
fn take_vector<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = take_number(bytes)?;
    take(bytes, usize::from(length))
}
