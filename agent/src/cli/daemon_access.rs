//! How the verbs that ask a daemon prove who they are, and know that it is the daemon, where its web configuration has TLS or
//! users. One web configuration is for all addresses that the daemon listens on, loopback too, so they need it as a browser does.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::explain::AskError;
use crate::web::certificates;

/// Where systems keep the authorities that they trust: Debian and Alpine, Fedora, SUSE.
const SYSTEM: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// Arguments of the verbs that ask a daemon.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct DaemonAccess {
    /// Authorities in PEM that the certificate of an `https://` daemon is verified by, or that certificate itself [default:
    /// those of the system]
    #[arg(long, value_name = "FILE", requires = "daemon")]
    daemon_ca: Option<PathBuf>,
    /// File with `USER:PASSWORD` for a daemon that asks for a password
    #[arg(long, value_name = "FILE", requires = "daemon")]
    daemon_user_file: Option<PathBuf>,
    /// Certificate in PEM for a daemon that asks for one
    #[arg(long, value_name = "FILE", requires_all = ["daemon", "daemon_key"])]
    daemon_cert: Option<PathBuf>,
    /// Key of --daemon-cert, in PEM
    #[arg(long, value_name = "FILE", requires_all = ["daemon", "daemon_cert"])]
    daemon_key: Option<PathBuf>,
}

/// What is sent, and by what TLS.
#[derive(Debug, Default)]
pub(super) struct Access {
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) authorization: Option<HeaderValue>,
}

impl DaemonAccess {
    /// Reads the files. `host` is asked by TLS, or not.
    pub(super) fn read(&self, host: &str, tls: bool) -> Result<Access, AskError> {
        let authorization = match &self.daemon_user_file {
            None => None,
            Some(path) if tls || is_local(host) => Some(credentials(path)?),
            Some(path) => {
                return Err(refused(
                    path,
                    "the password would go over the network in the clear: ask by `--daemon=https://HOST:PORT`",
                ));
            }
        };
        if !tls {
            if let Some(path) = self.daemon_ca.as_ref().or(self.daemon_cert.as_ref()) {
                return Err(refused(
                    path,
                    "it is of use by TLS only: ask by `--daemon=https://HOST:PORT`",
                ));
            }
            return Ok(Access {
                tls: None,
                authorization,
            });
        }
        Ok(Access {
            tls: Some(Arc::new(self.tls()?)),
            authorization,
        })
    }

    fn tls(&self) -> Result<ClientConfig, AskError> {
        let system = || SYSTEM.iter().map(Path::new).find(|path| path.exists());
        let Some(ca) = self.daemon_ca.as_deref().or_else(system) else {
            let path = Path::new(SYSTEM[0]);
            return Err(refused(
                path,
                "it is not there: name the authority of the daemon's certificate by --daemon-ca",
            ));
        };
        let authorities = parsed(ca, certificates::certificates)?;
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| refused(ca, &error.to_string()))?;
        let verifier = Arc::new(KnownOrVerified {
            // Only what was named one by one is known; a system's authorities are no daemons.
            known: if self.daemon_ca.is_some() {
                authorities
            } else {
                Vec::new()
            },
            inner,
        });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(ca, &error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let (Some(certificate), Some(key)) = (&self.daemon_cert, &self.daemon_key) else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = parsed(certificate, certificates::certificates)?;
        let key_read = parsed(key, certificates::private_key)?;
        builder
            .with_client_auth_cert(chain, key_read)
            .map_err(|error| refused(key, &error.to_string()))
    }
}

/// Whether nothing leaves this host on the way there.
fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

fn credentials(path: &Path) -> Result<HeaderValue, AskError> {
    let text = fs::read_to_string(path).map_err(|error| refused(path, &error.to_string()))?;
    let line = text.lines().next().unwrap_or_default();
    if !line.contains(':') {
        return Err(refused(path, "its first line is not `USER:PASSWORD`"));
    }
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(line)))
        .map_err(|error| refused(path, &error.to_string()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn parsed<T>(
    path: &Path,
    parse: fn(&[u8]) -> Result<T, certificates::PemError>,
) -> Result<T, AskError> {
    let bytes = fs::read(path).map_err(|error| refused(path, &error.to_string()))?;
    parse(&bytes).map_err(|error| refused(path, &error.to_string()))
}

fn refused(path: &Path, reason: &str) -> AskError {
    AskError::Access {
        path: path.display().to_string(),
        reason: reason.to_owned(),
    }
}

/// Takes a certificate that was named itself, as long as it is for the host, and what an authority vouches for. Certificates that
/// sign themselves are what small sites have, and rustls alone takes none as a server's.
#[derive(Debug)]
struct KnownOrVerified {
    known: Vec<CertificateDer<'static>>,
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for KnownOrVerified {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.known.iter().any(|known| known == certificate) {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.inner
            .verify_server_cert(certificate, intermediates, name, stapled, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(access: &DaemonAccess, host: &str, tls: bool) -> Result<Access, String> {
        access.read(host, tls).map_err(|error| error.to_string())
    }

    #[test]
    fn a_password_stays_on_the_host_or_goes_by_tls() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("user");
        fs::write(&path, "ann:one:two\nmore\n").unwrap();
        let access = DaemonAccess {
            daemon_user_file: Some(path.clone()),
            ..DaemonAccess::default()
        };
        for host in ["127.0.0.1", "[::1]", "LocalHost"] {
            let header = read(&access, host, false).unwrap().authorization.unwrap();
            assert_eq!(header, "Basic YW5uOm9uZTp0d28=");
            assert!(header.is_sensitive());
        }
        for host in ["192.0.2.1", "localhost.example"] {
            let error = read(&access, host, false).unwrap_err();
            assert!(
                error.contains("in the clear") && error.contains("https"),
                "{error}"
            );
        }
        fs::write(&path, "ann\n").unwrap();
        let error = read(&access, "localhost", false).unwrap_err();
        assert!(error.contains("USER:PASSWORD"), "{error}");
    }

    #[test]
    fn files_that_are_of_no_use_are_named() {
        let access = DaemonAccess {
            daemon_ca: Some(PathBuf::from("none.pem")),
            ..DaemonAccess::default()
        };
        let error = read(&access, "localhost", false).unwrap_err();
        assert!(error.contains("by TLS only"), "{error}");
        let error = read(&access, "localhost", true).unwrap_err();
        assert!(
            error.contains("none.pem") && error.contains("No such file"),
            "{error}"
        );
    }
}
