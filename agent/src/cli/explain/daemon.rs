//! Asks a running daemon over its API, by TLS where it speaks it; whoever answers, what it costs here is bounded in time and
//! bytes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::question::Question;
use super::seen::{Seen, Source};
use crate::cli::daemon_access::{Access, DaemonAccess};
use crate::cli::snippet::visible;
use crate::engine::flows::{Encoded, Query};
use crate::export::flow_line::PENDING;
use crate::export::requirement_line::RequirementLine;

/// Where `flowproof run` listens if nobody says otherwise.
pub(in crate::cli) const DEFAULT_URL: &str = "http://127.0.0.1:9871";
/// The port of [`DEFAULT_URL`].
const DEFAULT_PORT: u16 = 9871;

/// How long one request may take in all; the daemon itself gives up after 10 s.
const LIMIT: Duration = Duration::from_secs(15);
/// Bytes of an answer. What is asked for here has some thousands.
const MOST_BYTES: usize = 16 << 20;
/// Flows whose evidence is asked for.
const FLOWS: usize = 50;
/// Flows that are looked through for a name.
const NAMED_FLOWS: usize = 5_000;

/// Why a daemon could not be asked, with the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The text is no address of a daemon.
    #[error("`{url}` is no address of a daemon: {reason}; write `--daemon={DEFAULT_URL}`")]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Nobody listens, or what listens hung up.
    #[error(
        "no daemon answers at {url}: {reason}; start one with `flowproof run`, or say where it listens: `--daemon=http://ADDRESS:PORT`, or https"
    )]
    Nobody {
        /// Where.
        url: String,
        /// What the system said.
        reason: String,
    },
    /// Files to ask with can't be used.
    #[error("{path}: {reason}")]
    Access {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no agreement on TLS.
    #[error(
        "no agreement on TLS with the daemon at {url}: {reason}; name its authority by --daemon-ca, and, if it asks for a \
         certificate, yours by --daemon-cert and --daemon-key"
    )]
    Tls {
        /// Where.
        url: String,
        /// What rustls said.
        reason: String,
    },
    /// It wants to know who asks.
    #[error(
        "the daemon at {url} asks for a user and a password that it knows: name a file with `USER:PASSWORD` by --daemon-user-file"
    )]
    Unknown {
        /// Where.
        url: String,
    },
    /// It listens and does not answer.
    #[error("the daemon at {url} did not answer within {} s; try again", LIMIT.as_secs())]
    Slow {
        /// Where.
        url: String,
    },
    /// It answered, but not with what was asked for.
    #[error("the daemon at {url} answered {status}: {text}")]
    Refused {
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        text: String,
    },
    /// The answer makes no sense.
    #[error(
        "what answers at {url} is no flowproof of this version: {reason}; name the right port with `--daemon=http://ADDRESS:PORT`"
    )]
    Foreign {
        /// Where.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

/// An element of `/api/v1/flows`, as far as it is of interest here.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Element {
    Flow {
        verdict: String,
        outcome: String,
        evidence: Vec<String>,
        initiator: End,
        responder: End,
        first_seen: String,
        last_seen: String,
    },
    Listing {
        flows: u64,
        listed: u64,
        by_outcome: BTreeMap<String, u64>,
        first_seen: Option<String>,
        last_seen: Option<String>,
    },
}

/// An end of a flow.
#[derive(Deserialize)]
struct End {
    names: Vec<String>,
}

/// What the daemon at `url` has seen of a flow, and of the requirements that are to cover it. `verdict` is the one of the
/// files given here, unless it depends on a name that is not given.
pub(super) fn ask(
    (url, access): (&str, &DaemonAccess),
    question: &Question,
    verdict: Option<&str>,
    requirements: &[String],
) -> Result<Seen, AskError> {
    let daemon = Remote::parse(url)?.with(access)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| daemon.nobody(&error))?;
    runtime.block_on(async {
        // The daemon does not look for names, so that is done here.
        let named = question.has_a_name();
        let query = Query {
            limit: if named { NAMED_FLOWS } else { FLOWS },
            ..question.query()
        };
        let elements: Vec<Element> = daemon.get_json(&format!("/api/v1/flows?{query}")).await?;
        let mut seen = Seen::new(Source::Daemon(daemon.url()));
        let mut counted = false;
        for element in elements {
            match element {
                Element::Flow {
                    verdict: judged,
                    outcome,
                    evidence,
                    initiator,
                    responder,
                    first_seen,
                    last_seen,
                } => {
                    if named {
                        if !question.has_names(&initiator.names, &responder.names) {
                            continue;
                        }
                        seen.flows += 1;
                        *seen.by_outcome.entry(outcome.clone()).or_default() += 1;
                        // Times of one length and zone compare as texts.
                        seen.first_seen = Some(match seen.first_seen.take() {
                            Some(first) => first.min(first_seen),
                            None => first_seen,
                        });
                        seen.last_seen = seen.last_seen.max(Some(last_seen));
                    }
                    seen.add_evidence(&outcome, &evidence);
                    let differs = verdict.is_some_and(|verdict| judged != verdict);
                    if differs && judged != PENDING {
                        seen.note(format!(
                            "the daemon judged it {}: another matrix or site was in force there{}",
                            visible(&judged),
                            if named {
                                ", or DNS says that its address is another's"
                            } else {
                                ""
                            }
                        ));
                    }
                }
                Element::Listing { flows, listed, .. } if named => {
                    counted = true;
                    if flows > listed {
                        seen.note(format!(
                            "only the newest {listed} of {flows} flows of this service were looked through for the name"
                        ));
                    }
                }
                Element::Listing {
                    flows,
                    by_outcome,
                    first_seen,
                    last_seen,
                    ..
                } => {
                    counted = true;
                    seen.flows = flows;
                    seen.by_outcome = by_outcome;
                    seen.by_outcome.retain(|_, count| *count > 0);
                    seen.first_seen = first_seen;
                    seen.last_seen = last_seen;
                }
            }
        }
        if !counted {
            return Err(daemon.foreign("its list of flows has no end"));
        }
        for id in requirements {
            let path = format!("/api/v1/requirements?requirement={}", Encoded(id));
            match daemon.get_json::<Vec<RequirementLine>>(&path).await {
                Ok(lines) => seen.requirements.extend(lines),
                // The rest of the answer is as good without it.
                Err(AskError::Refused { status: 400, .. }) => {
                    seen.note(format!("the daemon's matrix has no requirement {id}"))
                }
                Err(error) => return Err(error),
            }
        }
        Ok(seen)
    })
}

/// Where a daemon listens.
#[derive(Debug)]
pub(in crate::cli) struct Remote {
    host: String,
    port: u16,
    tls: bool,
    access: Access,
}

impl Remote {
    pub(in crate::cli) fn parse(url: &str) -> Result<Self, AskError> {
        let wrong = |reason: &str| AskError::Url {
            url: visible(url),
            reason: reason.to_owned(),
        };
        let text = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let uri: Uri = text.parse().map_err(|_| wrong("it is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("only http and https are spoken")),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it has a path"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(wrong("it has no host"));
        }
        Ok(Self {
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(DEFAULT_PORT),
            tls,
            access: Access::default(),
        })
    }

    /// With what proves who asks.
    pub(in crate::cli) fn with(mut self, access: &DaemonAccess) -> Result<Self, AskError> {
        self.access = access.read(&self.host, self.tls)?;
        Ok(self)
    }

    pub(in crate::cli) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    pub(in crate::cli) fn nobody(&self, error: &dyn std::error::Error) -> AskError {
        AskError::Nobody {
            url: self.url(),
            reason: crate::cli::chain(error),
        }
    }

    fn no_tls(&self, error: &dyn std::error::Error) -> AskError {
        AskError::Tls {
            url: self.url(),
            reason: crate::cli::chain(error),
        }
    }

    pub(in crate::cli) fn foreign(&self, reason: &str) -> AskError {
        AskError::Foreign {
            url: self.url(),
            reason: reason.to_owned(),
        }
    }

    pub(in crate::cli) async fn get_json<T: for<'a> Deserialize<'a>>(
        &self,
        path: &str,
    ) -> Result<T, AskError> {
        let body = self.get_bytes(path).await?;
        serde_json::from_slice(&body).map_err(|error| self.foreign(&error.to_string()))
    }

    /// The body of a good answer.
    pub(in crate::cli) async fn get_bytes(&self, path: &str) -> Result<Vec<u8>, AskError> {
        let Ok(answer) = tokio::time::timeout(LIMIT, self.get(path)).await else {
            return Err(AskError::Slow { url: self.url() });
        };
        let (status, body) = answer?;
        if status == StatusCode::UNAUTHORIZED {
            return Err(AskError::Unknown { url: self.url() });
        }
        if !status.is_success() {
            const SHOWN: usize = 300;
            let text: String = String::from_utf8_lossy(&body).chars().take(SHOWN).collect();
            return Err(AskError::Refused {
                url: self.url(),
                status: status.as_u16(),
                text: visible(text.trim()),
            });
        }
        Ok(body)
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Vec<u8>), AskError> {
        // Brackets belong to the URL of an IPv6 address, not to the address.
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.port))
            .await
            .map_err(|error| self.nobody(&error))?;
        let Some(tls) = &self.access.tls else {
            return self.exchange(stream, path).await;
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| self.no_tls(&error))?;
        let stream = TlsConnector::from(Arc::clone(tls))
            .connect(name, stream)
            .await
            .map_err(|error| self.no_tls(&error))?;
        self.exchange(stream, path).await
    }

    async fn exchange<S>(&self, stream: S, path: &str) -> Result<(StatusCode, Vec<u8>), AskError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.nobody(&error))?;
        let connection = tokio::spawn(connection);
        let host = HeaderValue::from_str(&format!("{}:{}", self.host, self.port))
            .map_err(|error| self.nobody(&error))?;
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path
            .parse()
            .map_err(|error: hyper::http::uri::InvalidUri| self.nobody(&error))?;
        request.headers_mut().insert(HOST, host);
        if let Some(authorization) = &self.access.authorization {
            let headers = request.headers_mut();
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let response = sender.send_request(request).await.map_err(|error| {
            // A server that wants a certificate says so after the client's part of the handshake.
            if self.tls && is_of_tls(&error) {
                self.no_tls(&error)
            } else {
                self.foreign(&crate::cli::chain(&error))
            }
        })?;
        let (parts, body) = response.into_parts();
        let body = to_bytes(Body::new(body), MOST_BYTES)
            .await
            .map_err(|error| self.nobody(&io::Error::other(error)))?;
        connection.abort();
        Ok((parts.status, body.to_vec()))
    }
}

/// Whether rustls is among the causes.
fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_where_a_daemon_listens() {
        let check = |url: &str, expect: Result<&str, &str>| match (Remote::parse(url), expect) {
            (Ok(daemon), Ok(expect)) => assert_eq!(daemon.url(), expect),
            (Err(error), Err(part)) => {
                let text = error.to_string();
                assert!(text.contains(part) && text.contains(DEFAULT_URL), "{text}");
            }
            (got, expect) => panic!("{url}: got {got:?}, expected {expect:?}"),
        };
        check(DEFAULT_URL, Ok(DEFAULT_URL));
        check("localhost", Ok("http://localhost:9871"));
        check("127.0.0.1:99/", Ok("http://127.0.0.1:99"));
        check("http://[::1]:80", Ok("http://[::1]:80"));
        check("https://localhost", Ok("https://localhost:9871"));
        check("ftp://localhost", Err("only http"));
        check("http://localhost/metrics", Err("path"));
        check("http://", Err("no URL"));
        check("http://me@localhost", Err("no host"));
    }
}
