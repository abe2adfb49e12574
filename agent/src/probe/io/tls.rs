//! A TLS handshake with the name that a row is bound to, to see whether something on the way reads names. It shows that
//! somebody answers to the name, not who: any certificate is taken, and one for another name is only noted.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{error_queue, tcp};
use crate::probe::Probe;
use crate::probe::judge::{AfterHello, Heard, icmp_outcome};

/// The client's side of every handshake: TLS 1.2 and 1.3.
pub(super) fn configuration() -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate { provider }))
        .with_no_client_auth();
    // A resumed session would make the next ClientHello another.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Takes any certificate whose key the server has.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Connects and shakes hands, each within the time.
pub(super) async fn handshake(
    probe: &Probe,
    timeout: Duration,
    config: Arc<ClientConfig>,
) -> io::Result<Heard> {
    let stream = match tcp::connect(probe, timeout).await? {
        Ok(stream) => stream,
        Err(heard) => return Ok(heard),
    };
    let name = match &probe.name {
        Some(name) => ServerName::try_from(name.to_string()).map_err(io::Error::other)?,
        // An address is never written into a ClientHello (RFC 6066, section 3).
        None => ServerName::IpAddress(probe.target.address().into()),
    };
    let connection = ClientConnection::new(config, name.clone()).map_err(io::Error::other)?;
    let mut talk = Talk {
        stream,
        connection,
        heard: 0,
    };
    let words = talk.converse(timeout).await;
    // The peer need not be told twice.
    let _ = talk.stream.shutdown().await;
    Ok(Heard::Hello(match words {
        Ok(words) => AfterHello::Spoke(talk.with_certificate(words, probe, &name)),
        Err(after) => after,
    }))
}

struct Talk {
    stream: TcpStream,
    connection: ClientConnection,
    /// Bytes from the peer.
    heard: usize,
}

impl Talk {
    /// Until the handshake is over, or nothing more is to be learned.
    async fn converse(&mut self, timeout: Duration) -> Result<Vec<String>, AfterHello> {
        let end = Instant::now() + timeout;
        loop {
            if let Err(error) = self.send().await {
                return self.broken(&error);
            }
            if !self.connection.is_handshaking() {
                return Ok(vec![self.version()]);
            }
            let mut buffer = [0; 16_384];
            let read = tokio::time::timeout_at(end, self.stream.read(&mut buffer)).await;
            let length = match read {
                Err(_) => return self.over(AfterHello::Silence, "then silence"),
                Ok(Err(error)) => return self.broken(&error),
                Ok(Ok(0)) => {
                    return self.over(AfterHello::Closed, "then the end of the connection");
                }
                Ok(Ok(length)) => length,
            };
            self.heard += length;
            if let Err(words) = self.take(&buffer[..length]) {
                // An alert says goodbye.
                let _ = self.send().await;
                return Ok(vec![words]);
            }
        }
    }

    async fn send(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut bytes)?;
        }
        self.stream.write_all(&bytes).await
    }

    /// Hands bytes to TLS; in words what is wrong with them.
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let taken = self
                .connection
                .read_tls(&mut bytes)
                .map_err(|error| error.to_string())?;
            self.connection
                .process_new_packets()
                .map_err(|error| in_words(&error))?;
            if taken == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The connection broke.
    fn broken(&self, error: &io::Error) -> Result<Vec<String>, AfterHello> {
        let told = error_queue::drain(self.stream.as_fd())
            .into_iter()
            .find(|queued| icmp_outcome(&queued.error).is_some());
        let after = match told {
            Some(queued) => AfterHello::Icmp(queued.error),
            None if error.kind() == io::ErrorKind::TimedOut => AfterHello::Silence,
            None => AfterHello::Reset,
        };
        self.over(after, "then the connection broke")
    }

    /// Whoever has spoken once has answered, whatever came then.
    fn over(&self, after: AfterHello, then: &str) -> Result<Vec<String>, AfterHello> {
        if self.heard == 0 {
            return Err(after);
        }
        Ok(vec![format!(
            "answered the ClientHello with {} bytes, {then}",
            self.heard
        )])
    }

    fn version(&self) -> String {
        use rustls::ProtocolVersion::{TLSv1_2, TLSv1_3};
        let version = match self.connection.protocol_version() {
            Some(TLSv1_3) => "TLS 1.3",
            Some(TLSv1_2) => "TLS 1.2",
            Some(_) | None => "TLS",
        };
        format!("{version} handshake completed")
    }

    /// Notes a certificate for another name.
    fn with_certificate(
        &self,
        mut words: Vec<String>,
        probe: &Probe,
        name: &ServerName<'_>,
    ) -> Vec<String> {
        let first = self.connection.peer_certificates().and_then(<[_]>::first);
        if let (Some(certificate), Some(_)) = (first, &probe.name) {
            let fits = ParsedCertificate::try_from(certificate)
                .and_then(|certificate| verify_server_name(&certificate, name));
            if fits.is_err() {
                words.push("its certificate is for another name".to_owned());
            }
        }
        words
    }
}

fn in_words(error: &Error) -> String {
    if let Error::AlertReceived(alert) = error {
        format!("answered the ClientHello with the TLS alert {alert:?}")
    } else if let Error::InvalidMessage(_) = error {
        "answered the ClientHello with something that is no TLS".to_owned()
    } else {
        format!("answered the ClientHello; the handshake failed: {error}")
    }
}
