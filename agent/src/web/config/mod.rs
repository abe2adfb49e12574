//! The web configuration: who may ask the web server, and by what TLS. Its keys are those of Prometheus' exporter-toolkit,
//! so that the file an operator has for other exporters works here too; what can't be honoured is refused with the reason,
//! since a key that is passed over would leave a door open that somebody believes is shut.
//!
//! `read` takes the file apart, `tls` makes what rustls needs, `go` knows Go's names for versions, cipher suites and curves,
//! `schema` publishes the shape. Certificates and keys are read with the file: settings that exist can be put to work.
//!
//! The file holds secrets, so findings never quote a value of a secret key, and nobody prints its lines.

mod go;
mod read;
pub mod schema;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use rustls::ServerConfig;

use super::prints::Prints;
use super::users::Users;
use crate::finding::Findings;

pub use read::{files, read};

/// What reading a web configuration gave.
#[derive(Debug)]
pub struct WebReading {
    /// The settings, if the file has no errors.
    pub settings: Option<Settings>,
    /// What was found in the file.
    pub findings: Findings,
    /// The file itself, and those that it names: what has to be watched for changes.
    pub files: Prints,
}

/// Who may ask, and how.
#[derive(Debug, Default)]
pub struct Settings {
    /// TLS, if it is spoken.
    pub tls: Option<Tls>,
    /// Headers that every answer gets, in place of those of the same name.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Who has a password, if anybody needs one.
    pub users: Option<Arc<Users>>,
    /// How many requests are answered.
    pub rate_limit: Option<RateLimit>,
}

impl Settings {
    /// Whether nobody is served who did not prove who he is.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        self.users.is_some() || self.tls.as_ref().is_some_and(|tls| tls.proves_clients)
    }
}

/// TLS as it is spoken.
pub struct Tls {
    /// For rustls.
    pub server: Arc<ServerConfig>,
    /// Whether every client has shown a certificate of a known authority.
    pub proves_clients: bool,
    /// When certificates run out.
    pub expiries: Vec<Expiry>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("proves_clients", &self.proves_clients)
            .field("expiries", &self.expiries)
            .finish_non_exhaustive()
    }
}

/// When a certificate runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// Whose it is: `server` or `client_ca`. Of several, the one that runs out first.
    pub certificate: &'static str,
    /// The end of its validity, in seconds since the Unix epoch.
    pub not_after: i64,
}

/// A bucket of tokens: a request takes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// How long it takes until there is another one.
    pub interval: Duration,
    /// How many there can be.
    pub burst: u32,
}
