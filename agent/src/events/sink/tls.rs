//! TLS towards a destination: whom to trust, and who to be if it asks. Files are read for each connection, so that a
//! renewed certificate needs no restart.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::config::TlsFiles;

fn error(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let named = |reason: &dyn std::fmt::Display| error(format!("{}: {reason}", path.display()));
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|reason| named(&reason))?;
    if found.is_empty() {
        return Err(named(&"there is no certificate in it (PEM)"));
    }
    Ok(found)
}

fn trusted(ca: Option<&Path>) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .map_err(|reason| error(format!("{}: {reason}", path.display())))?;
        }
        return Ok(roots);
    }
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        return Err(error(
            "this system trusts no authority: install ca-certificates, or name a file by `tls: {ca: ...}`".to_owned(),
        ));
    }
    Ok(roots)
}

/// What is said to begin with; `protocols` are those that are spoken inside (ALPN).
pub(super) fn client(files: &TlsFiles, protocols: &[&[u8]]) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|reason| error(reason.to_string()))?
        .with_root_certificates(trusted(files.ca.as_deref())?);
    let mut config = match &files.identity {
        Some(identity) => {
            let named = |reason: &dyn std::fmt::Display| {
                error(format!("{}: {reason}", identity.key.display()))
            };
            let key =
                PrivateKeyDer::from_pem_file(&identity.key).map_err(|reason| named(&reason))?;
            builder
                .with_client_auth_cert(certificates(&identity.certificate)?, key)
                .map_err(|reason| named(&reason))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A host as certificates name it.
pub(super) fn name(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned())
        .map_err(|reason| error(format!("no certificate can be for `{host}`: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Identity;

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.pem");
        let check = |files: &TlsFiles, part: &str| {
            let error = client(files, &[]).unwrap_err().to_string();
            assert!(
                error.contains("file.pem") && error.contains(part),
                "{error}"
            );
        };
        let ca = TlsFiles {
            ca: Some(path.clone()),
            identity: None,
        };
        check(&ca, "No such file");
        std::fs::write(&path, "no PEM\n").unwrap();
        check(&ca, "no certificate");
        std::fs::write(
            &path,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        check(&ca, "");
        let identity = TlsFiles {
            ca: None,
            identity: Some(Identity {
                certificate: path.clone(),
                key: path.clone(),
            }),
        };
        // The system's authorities may be missing where this runs; the key is looked at after them.
        let error = client(&identity, &[]).unwrap_err().to_string();
        assert!(
            error.contains("file.pem") || error.contains("ca-certificates"),
            "{error}"
        );
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for host in ["collector.example", "192.0.2.1", "2001:db8::1"] {
            assert!(name(host).is_ok(), "{host}");
        }
        assert!(name("a b").unwrap_err().to_string().contains("`a b`"));
    }
}
