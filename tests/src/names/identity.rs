//! One self-signed certificate for all names of a server. Clients trust exactly it and check names as they would
//! anywhere, so a server that answers for another name fails the handshake.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate and its key.
#[derive(Debug)]
pub struct Identity {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key: PrivatePkcs8KeyDer<'static>,
    key_pem: String,
}

impl Identity {
    /// Makes one for `names`; wildcards are allowed.
    ///
    /// # Errors
    /// A name is none.
    pub fn new(names: &[&str]) -> Result<Self> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).context("can't make a certificate")?;
        Ok(Self::of(&made.cert, &made.signing_key))
    }

    /// Makes one for `names` that was good for the year 2020.
    ///
    /// # Errors
    /// A name is none.
    pub fn expired(names: &[&str]) -> Result<Self> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = rcgen::KeyPair::generate()?;
        let mut parameters = rcgen::CertificateParams::new(names)?;
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
        Ok(Self::of(&parameters.self_signed(&key)?, &key))
    }

    fn of(certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> Self {
        Self {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            key_pem: key.serialize_pem(),
        }
    }

    /// Writes `certificate.pem` and `key.pem` into `folder`.
    ///
    /// # Errors
    /// The folder can't be written to.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::write(folder.join("certificate.pem"), &self.certificate_pem)?;
        fs::write(folder.join("key.pem"), &self.key_pem)?;
        Ok(())
    }

    /// TLS of a server, 1.2 and 1.3.
    ///
    /// # Errors
    /// rustls refuses the key.
    pub fn server(&self, alpn: &[&[u8]]) -> Result<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![self.certificate.clone()],
                PrivateKeyDer::Pkcs8(self.key.clone_key()),
            )?;
        config.alpn_protocols = owned(alpn);
        Ok(config)
    }

    /// TLS of a client that trusts this certificate alone. Each has a session cache of its own: a resumed session would
    /// make the next ClientHello another.
    ///
    /// # Errors
    /// rustls refuses the certificate.
    pub fn client(&self, alpn: &[&[u8]]) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = owned(alpn);
        Ok(config)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}
