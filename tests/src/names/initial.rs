//! First datagrams of QUIC clients made by hand, with a ClientHello and keys by rustls: version 2, which quinn doesn't
//! speak, and CRYPTO frames in an order of the maker's own, as browsers send them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustls::Side;
use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, Keys, Version};

use super::identity::Identity;

/// Least length of a client's first datagram (RFC 9000, section 14.1).
const LEAST: usize = 1200;

/// Length of a packet number as it is written here, and of the authentication tag.
const PACKET_NUMBER: usize = 4;
const TAG: usize = 16;

/// Length of the server's connection id that the client makes up.
const DESTINATION: usize = 8;

/// The client's connection id.
const SOURCE: [u8; 4] = *b"\x01\x02\x03\x04";

/// A server takes two clients with the same connection id for one.
static NEXT: AtomicU64 = AtomicU64::new(0x8394_c8f0_3e51_5708);

/// A version of QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quic {
    /// RFC 9000.
    One,
    /// RFC 9369.
    Two,
}

impl Quic {
    const fn number(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Two => 0x6b33_43cf,
        }
    }

    /// The packet type of an Initial: the versions count them differently.
    const fn initial_type(self) -> u8 {
        match self {
            Self::One => 0,
            Self::Two => 1,
        }
    }

    const fn of_rustls(self) -> Version {
        match self {
            Self::One => Version::V1,
            Self::Two => Version::V2,
        }
    }

    fn keys(self, destination: &[u8], side: Side) -> Result<Keys> {
        let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256
            .tls13()
            .and_then(rustls::Tls13CipherSuite::quic_suite)
            .context("rustls has no keys for QUIC")?;
        Ok(suite.keys(destination, side, self.of_rustls()))
    }
}

/// The first datagram of a client that wants `name`, its ClientHello in `frames` CRYPTO frames, the last part first.
///
/// # Errors
/// `name` is none, or the ClientHello doesn't fit.
pub fn datagram(quic: Quic, name: &str, frames: usize, identity: &Identity) -> Result<Vec<u8>> {
    let hello = client_hello(quic, name, identity)?;
    let destination: [u8; DESTINATION] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let mut payload = Vec::new();
    let part = hello.len().div_ceil(frames.max(1));
    for (index, bytes) in hello.chunks(part).enumerate().rev() {
        payload.push(0x06);
        payload.extend(varint(index * part)?);
        payload.extend(varint(bytes.len())?);
        payload.extend(bytes);
    }
    let mut header = vec![0xc0 | quic.initial_type() << 4 | 3];
    header.extend(quic.number().to_be_bytes());
    for id in [&destination[..], &SOURCE[..]] {
        header.push(u8::try_from(id.len())?);
        header.extend(id);
    }
    // No token; the length takes two bytes.
    header.push(0);
    let padded = LEAST - header.len() - 2 - PACKET_NUMBER - TAG;
    ensure!(payload.len() <= padded, "the ClientHello is too long");
    payload.resize(padded, 0);
    header.extend(varint(PACKET_NUMBER + padded + TAG)?);
    let number_at = header.len();
    header.extend([0; PACKET_NUMBER]);

    let keys = quic.keys(&destination, Side::Client)?.local;
    let tag = keys
        .packet
        .encrypt_in_place(0, &header, &mut payload)
        .map_err(|error| anyhow!("can't encrypt: {error}"))?;
    payload.extend(tag.as_ref());
    // The sample begins four bytes after the start of the packet number (RFC 9001, section 5.4.2).
    let sample = payload[..keys.header.sample_len()].to_vec();
    let (front, number) = header.split_at_mut(number_at);
    keys.header
        .encrypt_in_place(&sample, &mut front[0], number)
        .map_err(|error| anyhow!("can't protect the header: {error}"))?;
    header.extend(payload);
    Ok(header)
}

fn client_hello(quic: Quic, name: &str, identity: &Identity) -> Result<Vec<u8>> {
    // `initial_source_connection_id` (RFC 9000, section 18.2); servers insist on it.
    let mut parameters = vec![0x0f, u8::try_from(SOURCE.len())?];
    parameters.extend(SOURCE);
    let mut connection = ClientConnection::new(
        Arc::new(identity.client(&[b"h3"])?),
        quic.of_rustls(),
        ServerName::try_from(name.to_owned())?,
        parameters,
    )?;
    let mut hello = Vec::new();
    let _no_keys_yet = connection.write_hs(&mut hello);
    Ok(hello)
}

/// A variable-length integer (RFC 9000, section 16) in two bytes.
fn varint(value: usize) -> Result<[u8; 2]> {
    let value = u16::try_from(value)?;
    ensure!(value < 0x4000, "{value} doesn't fit");
    Ok((value | 0x4000).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_can_read_them() {
        let name = "service.lab.example";
        let identity = Identity::new(&[name]).expect("a certificate");
        for quic in [Quic::One, Quic::Two] {
            let mut bytes = datagram(quic, name, 1, &identity).expect("a datagram");
            assert_eq!(bytes.len(), LEAST);
            let keys = quic
                .keys(&bytes[6..6 + DESTINATION], Side::Server)
                .expect("keys")
                .remote;
            let number_at = 1 + 4 + 1 + DESTINATION + 1 + SOURCE.len() + 1 + 2;
            let sample = bytes[number_at + 4..number_at + 20].to_vec();
            let (front, rest) = bytes.split_at_mut(number_at);
            keys.header
                .decrypt_in_place(&sample, &mut front[0], &mut rest[..PACKET_NUMBER])
                .expect("a header");
            assert_eq!(front[0] & 0x30, quic.initial_type() << 4);
            let (header, payload) = bytes.split_at_mut(number_at + PACKET_NUMBER);
            let plain = keys
                .packet
                .decrypt_in_place(0, header, payload)
                .expect("the right keys");
            assert!(
                plain
                    .windows(name.len())
                    .any(|window| window == name.as_bytes())
            );
        }
    }
}
