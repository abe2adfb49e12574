//! `tls_server_config` to what rustls serves by.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};

use super::super::certificates::{self, PemError};
use super::super::client_certificates::{AnyCertificate, Named};
use super::go::{self, Name, Version};
use super::read::Reader;
use super::{Expiry, Tls};
use crate::yaml::{self, Fields, Keys, Node, Span};

pub(super) const TLS: Keys = Keys::new(
    &[],
    &[
        "cert_file",
        "key_file",
        "cert",
        "key",
        "client_auth_type",
        "client_ca_file",
        "client_ca",
        "client_allowed_sans",
        "min_version",
        "max_version",
        "cipher_suites",
        "prefer_server_cipher_suites",
        "curve_preferences",
    ],
);

/// Bytes of a file in PEM: a bundle of all public authorities has a quarter of it.
const MOST_BYTES: u64 = 1 << 20;

/// What certificate a client has to show: Go's `ClientAuthType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientAuth {
    No,
    Request,
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

pub(super) const CLIENT_AUTH: [(&str, ClientAuth); 5] = [
    ("NoClientCert", ClientAuth::No),
    ("RequestClientCert", ClientAuth::Request),
    ("RequireAnyClientCert", ClientAuth::RequireAny),
    ("VerifyClientCertIfGiven", ClientAuth::VerifyIfGiven),
    ("RequireAndVerifyClientCert", ClientAuth::RequireAndVerify),
];
/// A name that exporter-toolkit once had for `RequireAnyClientCert`, and still takes.
const OLD_REQUIRE_ANY: &str = "RequireClientCert";

impl ClientAuth {
    const fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

/// Takes the section apart. Without any TLS in it, it must not be there: somebody believes that there is some.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node<'_>, http2: bool) -> Option<Tls> {
    let fields = Fields::open(node, "`tls_server_config`", TLS, reader.reporter)?;
    let chain = pem(
        reader,
        &fields,
        "cert",
        node.span,
        certificates::certificates,
    );
    let key = pem(reader, &fields, "key", node.span, certificates::private_key);
    let clients = clients(reader, &fields);
    let versions = versions(reader, &fields);
    let provider = provider(reader, &fields, versions);
    let mut prefer_server = true;
    reader.switch(&fields, "prefer_server_cipher_suites", &mut prefer_server);
    let (chain, key, clients, provider) = (chain?, key?, clients?, provider?);

    let provider = Arc::new(provider);
    let ca_expiry = clients.expiry();
    let proves_clients = clients.auth == ClientAuth::RequireAndVerify;
    let expiries = [soonest("server", &chain.value), ca_expiry];
    let verifies = clients.auth.verifies();
    let verifier = clients.verifier(reader, &provider)?;
    let built = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&protocol_versions(versions))
        .map(|builder| match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        })
        .and_then(|builder| builder.with_single_cert(chain.value, key.value));
    let mut server = match built {
        Ok(server) => server,
        Err(error) => {
            let message = if matches!(error, rustls::Error::InconsistentKeys(_)) {
                "the key is not that of the certificate: name the two that belong together"
                    .to_owned()
            } else {
                format!("the certificate and its key can't be used: {error}")
            };
            reader.reporter.error("bad-certificate", key.span, message);
            return None;
        }
    };
    server.ignore_client_order = prefer_server;
    if verifies {
        // A session that goes on would not be asked for its certificate again.
        server.session_storage = Arc::new(NoServerSessionStorage {});
    }
    server.alpn_protocols = if http2 {
        vec![b"h2".to_vec(), b"http/1.1".to_vec()]
    } else {
        vec![b"http/1.1".to_vec()]
    };
    Some(Tls {
        server: Arc::new(server),
        proves_clients,
        expiries: expiries.into_iter().flatten().collect(),
    })
}

/// Something of the file, with its place.
struct Placed<T> {
    value: T,
    span: Span,
}

/// What `NAME` holds inline, or the file of `NAME_file`; one of them has to be there.
fn pem<T>(
    reader: &mut Reader<'_>,
    fields: &Fields<'_, '_>,
    name: &'static str,
    section: Span,
    parse: fn(&[u8]) -> Result<T, PemError>,
) -> Option<Placed<T>> {
    let (inline, file) = both(name);
    if fields.get(inline).is_none() && fields.get(file).is_none() {
        let message = format!("`tls_server_config` needs `{file}`, or `{inline}` with its content");
        reader.reporter.error("missing-key", section, message);
        return None;
    }
    optional_pem(reader, fields, name, parse)
}

/// The keys for a content and for the file that has it.
fn both(name: &'static str) -> (&'static str, &'static str) {
    match name {
        "cert" => ("cert", "cert_file"),
        "key" => ("key", "key_file"),
        _ => ("client_ca", "client_ca_file"),
    }
}

fn optional_pem<T>(
    reader: &mut Reader<'_>,
    fields: &Fields<'_, '_>,
    name: &'static str,
    parse: fn(&[u8]) -> Result<T, PemError>,
) -> Option<Placed<T>> {
    let (inline, file) = both(name);
    let (content, path) = (fields.get(inline), fields.get(file));
    if let (Some(node), Some(_)) = (content, path) {
        let message = format!("`{inline}` and `{file}` are both given: keep one of them");
        reader.reporter.error("conflict", node.span, message);
        return None;
    }
    let (read, span, what) = if let Some(node) = content {
        let text = yaml::text(node, inline, reader.reporter)?;
        (
            Ok(text.as_bytes().to_vec()),
            node.span,
            format!("`{inline}`"),
        )
    } else {
        let node = path?;
        let text = yaml::text(node, file, reader.reporter)?;
        let path = reader.folder.join(text);
        let what = format!("`{file}` ({})", path.display());
        reader.files.add(&path);
        (bytes(&path), node.span, what)
    };
    let refuse = |reader: &mut Reader<'_>, error: &dyn Display| {
        let message = format!("{what} can't be used: {error}");
        reader.reporter.error("bad-certificate", span, message);
    };
    match read.map(|bytes| parse(&bytes)) {
        Ok(Ok(value)) => Some(Placed { value, span }),
        Ok(Err(error)) => {
            refuse(reader, &error);
            None
        }
        Err(error) => {
            refuse(reader, &error);
            None
        }
    }
}

fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(std::io::Error::other("it has more than 1 MiB"));
    }
    Ok(bytes)
}

/// What is asked of clients.
struct Clients {
    auth: ClientAuth,
    authorities: Option<Placed<Vec<CertificateDer<'static>>>>,
    allowed: Vec<String>,
}

fn clients(reader: &mut Reader<'_>, fields: &Fields<'_, '_>) -> Option<Clients> {
    let auth_node = fields.get("client_auth_type");
    let auth = match auth_node {
        None => Some(ClientAuth::No),
        Some(node) => match yaml::text(node, "client_auth_type", reader.reporter)? {
            OLD_REQUIRE_ANY => Some(ClientAuth::RequireAny),
            _ => yaml::choice(
                node,
                "client_auth_type",
                "unknown-value",
                &CLIENT_AUTH,
                reader.reporter,
            ),
        },
    };
    let given = fields.get("client_ca").or(fields.get("client_ca_file"));
    let authorities = optional_pem(reader, fields, "client_ca", certificates::certificates);
    let sans = fields.get("client_allowed_sans");
    let allowed: Vec<String> = fields
        .list("client_allowed_sans", reader.reporter)
        .iter()
        .filter_map(|node| yaml::text(node, "client_allowed_sans", reader.reporter))
        .map(str::to_owned)
        .collect();
    let auth = auth?;
    match (given, auth_node) {
        (Some(node), _) if !auth.verifies() => reader.reporter.error(
            "conflict",
            node.span,
            "an authority for clients is given and nobody is verified by it: set `client_auth_type: RequireAndVerifyClientCert`",
        ),
        (None, Some(node)) if auth.verifies() => reader.reporter.error(
            "missing-key",
            node.span,
            "clients can't be verified without an authority: name it by `client_ca_file`; those of the system are not taken, \
             since anybody can have a certificate of theirs",
        ),
        _ => {}
    }
    if let Some(node) = sans {
        if !auth.verifies() {
            let message = "`client_allowed_sans` says nothing of certificates that nobody verified: set \
                           `client_auth_type: RequireAndVerifyClientCert`";
            reader.reporter.error("conflict", node.span, message);
        } else if allowed.is_empty() {
            let message = "`client_allowed_sans` is empty, so that no certificate would do: name some, or leave it out";
            reader.reporter.error("empty-list", node.span, message);
        }
    }
    if reader.reporter.has_errors() {
        return None;
    }
    Some(Clients {
        auth,
        authorities,
        allowed,
    })
}

impl Clients {
    fn expiry(&self) -> Option<Expiry> {
        soonest("client_ca", &self.authorities.as_ref()?.value)
    }

    /// What verifies them; nothing inside if no certificate is asked for.
    fn verifier(
        self,
        reader: &mut Reader<'_>,
        provider: &Arc<CryptoProvider>,
    ) -> Option<Option<Arc<dyn ClientCertVerifier>>> {
        let any = |required| -> Arc<dyn ClientCertVerifier> {
            Arc::new(AnyCertificate {
                provider: Arc::clone(provider),
                required,
            })
        };
        match self.auth {
            ClientAuth::No => return Some(None),
            ClientAuth::Request => return Some(Some(any(false))),
            ClientAuth::RequireAny => return Some(Some(any(true))),
            ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify => {}
        }
        let authorities = self.authorities?;
        let mut roots = RootCertStore::empty();
        let mut added = Ok(());
        for certificate in authorities.value {
            added = added.and(roots.add(certificate));
        }
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let builder = if self.auth == ClientAuth::VerifyIfGiven {
            builder.allow_unauthenticated()
        } else {
            builder
        };
        let built = match (added, builder.build()) {
            (Ok(()), Ok(verifier)) => Ok(verifier),
            (Err(error), _) => Err(error.to_string()),
            (_, Err(error)) => Err(error.to_string()),
        };
        match built {
            Ok(verifier) if self.allowed.is_empty() => Some(Some(verifier)),
            Ok(inner) => Some(Some(Arc::new(Named {
                inner,
                allowed: self.allowed,
            }))),
            Err(error) => {
                let message = format!("the authority for clients can't be used: {error}");
                reader
                    .reporter
                    .error("bad-certificate", authorities.span, message);
                None
            }
        }
    }
}

/// When the certificate that runs out first does so. They were read before, so each has a time.
fn soonest(certificate: &'static str, all: &[CertificateDer<'_>]) -> Option<Expiry> {
    let times = all.iter().filter_map(|it| certificates::not_after(it).ok());
    times.min().map(|not_after| Expiry {
        certificate,
        not_after,
    })
}

/// The least and the greatest version.
fn versions(reader: &mut Reader<'_>, fields: &Fields<'_, '_>) -> (Version, Version) {
    let mut read = |key| {
        let node = fields.get(key)?;
        let text = yaml::text(node, key, reader.reporter)?;
        known(reader, key, text, node.span, &go::VERSIONS)
    };
    let least = read("min_version").unwrap_or(Version::Tls12);
    let most = read("max_version").unwrap_or(Version::Tls13);
    if let Some(node) = fields.get("max_version")
        && least > most
    {
        let message = "`max_version` is below `min_version`, so that no version is left";
        reader.reporter.error("conflict", node.span, message);
    }
    (least, most)
}

fn protocol_versions((least, most): (Version, Version)) -> Vec<&'static SupportedProtocolVersion> {
    [
        (Version::Tls13, &version::TLS13),
        (Version::Tls12, &version::TLS12),
    ]
    .into_iter()
    .filter(|(version, _)| (least..=most).contains(version))
    .map(|(_, version)| version)
    .collect()
}

/// One of Go's names; what can't be had is refused with the reason.
fn known<T: Copy>(
    reader: &mut Reader<'_>,
    key: &str,
    text: &str,
    span: Span,
    names: &[Name<T>],
) -> Option<T> {
    match names.iter().find(|(name, _)| *name == text) {
        Some((_, Ok(value))) => Some(*value),
        Some((_, Err(reason))) => {
            let message = format!("`{key}`: `{text}` can't be had: {reason}");
            reader.reporter.error("unsupported-value", span, message);
            None
        }
        None => {
            let can = names.iter().filter(|(_, value)| value.is_ok());
            let can: Vec<&str> = can.map(|(name, _)| *name).collect();
            let proposal = reader.reporter.proposal(text, can.iter().copied());
            let message = format!("`{key}` has no `{text}`: use {}{proposal}", can.join(", "));
            reader.reporter.error("unknown-value", span, message);
            None
        }
    }
}

fn list<T: Copy>(
    reader: &mut Reader<'_>,
    fields: &Fields<'_, '_>,
    key: &str,
    names: &[Name<T>],
) -> Vec<T> {
    let mut values = Vec::new();
    for node in fields.list(key, reader.reporter) {
        if let Some(text) = yaml::text(node, key, reader.reporter) {
            values.extend(known(reader, key, text, node.span, names));
        }
    }
    values
}

/// Cipher suites and curves, in the order of the file.
fn provider(
    reader: &mut Reader<'_>,
    fields: &Fields<'_, '_>,
    (least, most): (Version, Version),
) -> Option<CryptoProvider> {
    let mut provider = ring::default_provider();
    let suites = list(reader, fields, "cipher_suites", &go::SUITES);
    let curves = list(reader, fields, "curve_preferences", &go::curves());
    if reader.reporter.has_errors() {
        return None;
    }
    if !curves.is_empty() {
        provider.kx_groups = curves;
    }
    let Some(node) = fields.get("cipher_suites").filter(|_| !suites.is_empty()) else {
        return Some(provider);
    };
    let of = |version: &'static SupportedProtocolVersion| {
        move |suite: &rustls::SupportedCipherSuite| suite.version() == version
    };
    // Those of TLS 1.3 are not subject to the list in Go. Here they are if it names any.
    let mut chosen = suites.clone();
    if !suites.iter().any(of(&version::TLS13)) {
        chosen.extend(
            provider
                .cipher_suites
                .iter()
                .copied()
                .filter(of(&version::TLS13)),
        );
    }
    if (least..=most).contains(&Version::Tls12) && !suites.iter().any(of(&version::TLS12)) {
        let message = "`cipher_suites` has none of TLS 1.2, which is allowed: add some, or set `min_version: TLS13`";
        reader.reporter.error("conflict", node.span, message);
        return None;
    }
    provider.cipher_suites = chosen;
    Some(provider)
}
