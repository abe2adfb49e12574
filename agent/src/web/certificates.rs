//! Certificates and keys in PEM, and the little of X.509 that has to be known here: when a certificate runs out, and whom it
//! names. Whether it may be trusted is rustls' business.

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Certificates that a file may have: more are a mistake, such as a whole bundle of authorities.
const MOST: usize = 1_000;

/// Why a text has no certificates or no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// There is no certificate.
    #[error("it has no certificate: it needs a block that begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// There is no private key.
    #[error(
        "it has no private key that can be used: it needs one block that begins with -----BEGIN PRIVATE KEY-----, without a \
         passphrase (`openssl pkey -in OLD -out NEW` takes it off)"
    )]
    NoKey,
    /// There are too many certificates.
    #[error("it has more than {MOST} certificates")]
    TooMany,
    /// A block can't be read.
    #[error("it is broken: {0}")]
    Broken(String),
}

/// All certificates of a text, in its order.
///
/// # Errors
/// [`PemError`] if there is none, or one can't be read.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| broken(&error))?;
        if certificates.len() == MOST {
            return Err(PemError::TooMany);
        }
        not_after(&certificate)?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err(PemError::NoCertificate);
    }
    Ok(certificates)
}

/// The first private key of a text.
///
/// # Errors
/// [`PemError`] if there is none.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(PemError::NoKey),
        Err(error) => Err(broken(&error)),
    }
}

fn broken(error: &pem::Error) -> PemError {
    PemError::Broken(error.to_string())
}

/// The end of a certificate's validity, in seconds since the Unix epoch.
///
/// # Errors
/// [`PemError`] if it is no certificate.
pub fn not_after(certificate: &CertificateDer<'_>) -> Result<i64, PemError> {
    Ok(parse(certificate)?.validity().not_after.timestamp())
}

/// Whom a certificate names: DNS names, e-mail addresses, IP addresses and URIs, as text.
///
/// # Errors
/// [`PemError`] if it is no certificate.
pub fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, PemError> {
    let certificate = parse(certificate)?;
    let extension = certificate
        .subject_alternative_name()
        .map_err(|error| PemError::Broken(error.to_string()))?;
    let names = extension.map_or(&[][..], |extension| &extension.value.general_names);
    Ok(names.iter().filter_map(name).collect())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "exporter-toolkit looks at these four kinds, and the crate may add more"
)]
fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
            Some((*text).to_owned())
        }
        GeneralName::IPAddress(bytes) => {
            if let Ok(bytes) = <[u8; 4]>::try_from(*bytes) {
                Some(std::net::IpAddr::from(bytes).to_string())
            } else {
                let bytes = <[u8; 16]>::try_from(*bytes).ok()?;
                Some(std::net::IpAddr::from(bytes).to_string())
            }
        }
        _ => None,
    }
}

fn parse<'der>(certificate: &'der CertificateDer<'_>) -> Result<X509Certificate<'der>, PemError> {
    match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(PemError::Broken(format!("no X.509 certificate: {error}"))),
    }
}
