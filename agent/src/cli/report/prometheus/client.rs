//! The little of Prometheus' HTTP API that a report needs: instant queries (`/api/v1/query`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::cli::chain;
use crate::cli::snippet::visible;
use crate::engine::flows::Encoded;
use crate::report::fleet::{Labels, Sample};

/// The port that Prometheus listens on if nobody says otherwise.
const DEFAULT_PORT: u16 = 9090;
/// How long a query may take; Prometheus itself gives up after two minutes.
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes of an answer: some 250 a series.
const MOST_BYTES: usize = 256 << 20;
/// Characters of an answer that are shown.
const SHOWN: usize = 300;

/// Why a Prometheus could not be asked, with the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrometheusError {
    /// The text is no address.
    #[error(
        "`{url}` is no address of a Prometheus: {reason}; write `--prometheus http://HOST:{DEFAULT_PORT}`"
    )]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The file of header fields can't be used.
    #[error("can't use the header fields in {}: {reason}; write one a line, as `Authorization: Bearer TOKEN`", .path.display())]
    Headers {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Nobody listens, or what listens hung up.
    #[error(
        "no Prometheus answers at {url}: {reason}; say where it listens: `--prometheus http://HOST:PORT`"
    )]
    Nobody {
        /// Where.
        url: String,
        /// What the system said.
        reason: String,
    },
    /// It does not come to an end.
    #[error("the Prometheus at {url} did not answer within {} s; narrow the question by `--select`", LIMIT.as_secs())]
    Slow {
        /// Where.
        url: String,
    },
    /// It said more than is taken.
    #[error("the answer of the Prometheus at {url} has more than {} MiB; narrow the question by `--select`", MOST_BYTES >> 20)]
    TooLarge {
        /// Where.
        url: String,
    },
    /// It answered, but not with what was asked for.
    #[error("the Prometheus at {url} answered {status}: {text}{remedy}")]
    Refused {
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        text: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The answer makes no sense.
    #[error(
        "what answers at {url} is no Prometheus: {reason}; its API has to be at {url}/api/v1/query"
    )]
    Foreign {
        /// Where.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// It knows no agent.
    #[error(
        "the Prometheus at {url} has no series of flowproof{narrowed}: add a scrape job for the agents, see docs/fleet.md"
    )]
    NoAgents {
        /// Where.
        url: String,
        /// By what the question was narrowed.
        narrowed: &'static str,
    },
    /// It knows agents and has no rules.
    #[error(
        "the Prometheus at {url} has series of flowproof and none of its recording rules: add deploy/prometheus/flowproof.rules.yml to its \
         `rule_files`, or look at Status > Rules for its errors; see docs/fleet.md"
    )]
    NoRules {
        /// Where.
        url: String,
    },
    /// Rows of several sites have the same ids.
    #[error(
        "the agents are of several sites ({names}): name one by its site file with --site, or by --select 'site=\"NAME\"'"
    )]
    Sites {
        /// Their names.
        names: String,
    },
}

/// What a query came to.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) samples: Vec<Sample>,
    pub(super) warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Reply {
    status: String,
    data: Option<Data>,
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: Labels,
    value: (f64, String),
}

/// Where a Prometheus is, and what to send along.
#[derive(Debug)]
pub(super) struct Server {
    host: String,
    port: u16,
    /// Without a slash at its end.
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Server {
    pub(super) fn new(url: &str, headers: Option<&Path>) -> Result<Self, PrometheusError> {
        let wrong = |reason: &str| PrometheusError::Url {
            url: visible(url),
            reason: reason.to_owned(),
        };
        let text = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let uri: Uri = text.parse().map_err(|_| wrong("it is no URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong(
                "only http is spoken, put a proxy on this host before others",
            ));
        }
        if uri.query().is_some() {
            return Err(wrong("it has a query"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong(
                "credentials belong into the file that --headers names",
            ));
        }
        if authority.host().is_empty() {
            return Err(wrong("it has no host"));
        }
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(DEFAULT_PORT),
            path: path
                .trim_end_matches("/api/v1/query")
                .trim_end_matches("/api/v1")
                .to_owned(),
            headers: headers.map_or(Ok(Vec::new()), read_headers)?,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}:{}{}", self.host, self.port, self.path)
    }

    pub(super) fn nobody(&self, error: &dyn std::error::Error) -> PrometheusError {
        PrometheusError::Nobody {
            url: self.url(),
            reason: chain(error),
        }
    }

    pub(super) fn no_rules(&self) -> PrometheusError {
        PrometheusError::NoRules { url: self.url() }
    }

    pub(super) fn no_agents(&self, narrowed: bool) -> PrometheusError {
        PrometheusError::NoAgents {
            url: self.url(),
            narrowed: if narrowed {
                " with this site and these labels"
            } else {
                ""
            },
        }
    }

    fn foreign(&self, reason: &str) -> PrometheusError {
        PrometheusError::Foreign {
            url: self.url(),
            reason: reason.to_owned(),
        }
    }

    /// The samples of an instant query.
    pub(super) async fn query(&self, query: &str) -> Result<Answer, PrometheusError> {
        let asked = tokio::time::timeout(LIMIT, self.get(query)).await;
        let Ok(answer) = asked else {
            return Err(PrometheusError::Slow { url: self.url() });
        };
        let (status, body) = answer?;
        let reply: Result<Reply, _> = serde_json::from_slice(&body);
        if !(200..300).contains(&status) {
            let said = match &reply {
                Ok(Reply {
                    error: Some(error), ..
                }) => error.clone(),
                Ok(_) | Err(_) => String::from_utf8_lossy(&body).into_owned(),
            };
            let said: String = said.trim().chars().take(SHOWN).collect();
            return Err(PrometheusError::Refused {
                url: self.url(),
                status,
                text: visible(&said),
                remedy: match status {
                    401 | 403 => {
                        "; put credentials into the file that --headers names, as `Authorization: Bearer TOKEN`, and for Mimir the tenant, as `X-Scope-OrgID: NAME`"
                    }
                    404 => "; give the whole path, as `--prometheus http://HOST:PORT/prometheus`",
                    400 | 422 => "; are the labels of --select written as in a query?",
                    _ => "",
                },
            });
        }
        let reply = reply.map_err(|error| self.foreign(&error.to_string()))?;
        let (true, Some(data)) = (reply.status == "success", reply.data) else {
            return Err(self.foreign(&visible(&reply.error.unwrap_or(reply.status))));
        };
        if data.kind != "vector" {
            return Err(self.foreign(&format!("it gives a {}", visible(&data.kind))));
        }
        let samples = data.result.into_iter().map(|series| {
            let value =
                series.value.1.parse().map_err(|_| {
                    self.foreign(&format!("{} is no number", visible(&series.value.1)))
                })?;
            Ok((series.metric, value))
        });
        Ok(Answer {
            samples: samples.collect::<Result<_, PrometheusError>>()?,
            warnings: reply
                .warnings
                .iter()
                .map(|warning| visible(warning))
                .collect(),
        })
    }

    async fn get(&self, query: &str) -> Result<(u16, Vec<u8>), PrometheusError> {
        // Brackets belong to the URL of an IPv6 address, not to the address.
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.port))
            .await
            .map_err(|error| self.nobody(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.nobody(&error))?;
        let connection = tokio::spawn(connection);
        let host = HeaderValue::from_str(&format!("{}:{}", self.host, self.port))
            .map_err(|error| self.nobody(&error))?;
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = format!("{}/api/v1/query?query={}", self.path, Encoded(query))
            .parse()
            .map_err(|error: hyper::http::uri::InvalidUri| self.nobody(&error))?;
        request.headers_mut().insert(HOST, host);
        for (name, value) in &self.headers {
            request.headers_mut().append(name.clone(), value.clone());
        }
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.foreign(&chain(&error)))?;
        let (parts, body) = response.into_parts();
        let body = to_bytes(Body::new(body), MOST_BYTES)
            .await
            .map_err(|error| {
                if chain(&error).contains("length limit exceeded") {
                    PrometheusError::TooLarge { url: self.url() }
                } else {
                    self.nobody(&error)
                }
            })?;
        connection.abort();
        Ok((parts.status.as_u16(), body.to_vec()))
    }
}

/// Header fields of a file, one a line; lines that begin with `#` are remarks.
fn read_headers(path: &Path) -> Result<Vec<(HeaderName, HeaderValue)>, PrometheusError> {
    let wrong = |reason: String| PrometheusError::Headers {
        path: path.to_owned(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let mut headers = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // What stands there may be a secret, and is not repeated.
        let field = line.split_once(':').and_then(|(name, value)| {
            let name: HeaderName = name.trim().parse().ok()?;
            let mut value: HeaderValue = value.trim().parse().ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        headers
            .push(field.ok_or_else(|| wrong(format!("line {} is no header field", number + 1)))?);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn knows_where_a_prometheus_is() {
        let check = |url: &str, expect: Result<&str, &str>| match (Server::new(url, None), expect) {
            (Ok(server), Ok(expect)) => assert_eq!(server.url(), expect),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expect) => panic!("{url}: got {got:?}, expected {expect:?}"),
        };
        check("localhost", Ok("http://localhost:9090"));
        check(
            "http://mimir:8080/prometheus/",
            Ok("http://mimir:8080/prometheus"),
        );
        check("http://[::1]:80/api/v1/query", Ok("http://[::1]:80"));
        check("https://localhost", Err("only http"));
        check("http://a:b@localhost", Err("--headers"));
        check("http://localhost?x=y", Err("query"));
    }

    #[test]
    fn header_fields_are_read_and_never_repeated() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            file.path(),
            "# for Mimir\nX-Scope-OrgID: hq\n\nAuthorization:  Basic Zm9v\n",
        )
        .unwrap();
        let headers = read_headers(file.path()).unwrap();
        assert_eq!(headers[1].1, "Basic Zm9v");
        assert_eq!((headers.len(), headers[0].0.as_str()), (2, "x-scope-orgid"));
        fs::write(file.path(), "X: y\nsecret token\n").unwrap();
        let error = read_headers(file.path()).unwrap_err().to_string();
        assert!(
            error.contains("line 2") && !error.contains("secret"),
            "{error}"
        );
    }

    /// Asks somebody who answers so; what was said, and what it was asked.
    fn ask(answer: &str, headers: Option<&Path>) -> (Result<Answer, PrometheusError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/prom", listener.local_addr().unwrap());
        let answer = answer.to_owned();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(head).unwrap()
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let asked = Server::new(&url, headers).unwrap();
        let got = runtime.block_on(asked.query("up{a=\"b\"} == 1"));
        (got, server.join().unwrap())
    }

    fn http(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[test]
    fn an_answer_is_read_with_its_warnings() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "X-Scope-OrgID: hq\n").unwrap();
        let body = r#"{"status":"success","warnings":["a store is away"],"data":{"resultType":"vector","result":[{"metric":{"__name__":"up","a":"b"},"value":[1700000000.1,"1"]}]}}"#;
        let (got, asked) = ask(&http("200 OK", body), Some(file.path()));
        let got = got.unwrap();
        assert_eq!(got.samples[0].0["a"], "b");
        assert_eq!((got.samples[0].1, got.warnings.len()), (1.0, 1));
        assert!(
            asked.starts_with(
                "GET /prom/api/v1/query?query=up%7Ba%3D%22b%22%7D%20%3D%3D%201 HTTP/1.1\r\n"
            ),
            "{asked}"
        );
        assert!(asked.contains("x-scope-orgid: hq\r\n"), "{asked}");
    }

    #[test]
    fn whoever_is_no_prometheus_is_told_so() {
        let check = |answer: String, part: &str| {
            let error = ask(&answer, None).0.unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check(http("200 OK", "<html>hello</html>"), "is no Prometheus");
        check(
            http("401 Unauthorized", "who are you?"),
            "answered 401: who are you?; put credentials",
        );
        check(http("404 Not Found", ""), "the whole path");
        check(
            http(
                "400 Bad Request",
                r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#,
            ),
            "answered 400: parse error",
        );
        check(
            http(
                "200 OK",
                r#"{"status":"success","data":{"resultType":"scalar","result":[]}}"#,
            ),
            "gives a scalar",
        );
        check(
            http(
                "200 OK",
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}}"#,
            ),
            "x is no number",
        );
        check("SSH-2.0-OpenSSH\r\n".to_owned(), "is no Prometheus");
    }
}
