//! A web configuration file to settings. It is read to its end whatever is wrong with it, the certificates that it names
//! included, so that all errors are reported at once. Relative paths in it start at the file's own folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};

use super::super::prints::Prints;
use super::super::users::{HashError, Users};
use super::tls;
use super::{RateLimit, Settings, WebReading};
use crate::yaml::{self, Fields, Keys, LoadError, Node, Reporter, Source, Span, Value};

pub(super) const WEB_FILE: Keys = Keys::new(
    &[],
    &[
        "tls_server_config",
        "http_server_config",
        "basic_auth_users",
        "rate_limit",
    ],
);
pub(super) const HTTP: Keys = Keys::new(&[], &["http2", "headers"]);
pub(super) const RATE: Keys = Keys::new(&[], &["interval", "burst"]);
/// Headers that may be set, as exporter-toolkit has them.
pub(super) const HEADERS: Keys = Keys::new(
    &[],
    &[
        "Content-Security-Policy",
        "X-Frame-Options",
        "X-Content-Type-Options",
        "X-XSS-Protection",
        "Strict-Transport-Security",
    ],
);
/// What the values of some of them can be.
pub(super) const HEADER_VALUES: [(&str, &[&str]); 2] = [
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-Content-Type-Options", &["nosniff"]),
];

/// What a switch may say.
const TRUTH: [(&str, bool); 2] = [("true", true), ("false", false)];
/// Requests that may come at once.
const BURST: std::ops::RangeInclusive<u32> = 1..=1_000_000;
/// Longest time until there is room for another request.
const LONGEST_INTERVAL: Duration = Duration::from_secs(86_400);
/// Users that a file may have; exporter-toolkit's own advice for many is a proxy.
const MOST_USERS: usize = 1_000;

/// The file, and those that it names as far as it can be read; whoever puts it in force says what is wrong with it.
#[must_use]
pub fn files(path: &Path) -> Vec<PathBuf> {
    read(path).map_or_else(
        |_| vec![path.to_owned()],
        |reading| reading.files.paths().map(Path::to_owned).collect(),
    )
}

/// Reads a web configuration file and the certificates and keys that it names.
///
/// # Errors
/// [`LoadError`] if the file does not exist or can't be read. What is wrong inside is a finding.
pub fn read(path: &Path) -> Result<WebReading, LoadError> {
    let mut files = Prints::default();
    files.add(path);
    let (source, problem) = yaml::load(path)?;
    let mut reporter = Reporter::new(Arc::new(source));
    let source: Arc<Source> = Arc::clone(reporter.source());
    let folder = path.parent().unwrap_or(Path::new(""));
    let settings = if let Some((offset, problem)) = problem {
        reporter.error(problem.code, Span { offset, length: 0 }, problem.message);
        None
    } else if says_nothing(source.text()) {
        // An empty file asks for nothing, as in exporter-toolkit.
        Some(Settings::default())
    } else {
        yaml::parse(source.text(), &mut reporter).map(|node| {
            Reader {
                reporter: &mut reporter,
                folder,
                files: &mut files,
            }
            .settings(&node)
        })
    };
    Ok(WebReading {
        settings: settings.filter(|_| !reporter.has_errors()),
        findings: reporter.finish(),
        files,
    })
}

fn says_nothing(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#'))
}

/// Every method gives the default where its node is missing or wrong; what is wrong is in the reporter.
pub(super) struct Reader<'a> {
    pub(super) reporter: &'a mut Reporter,
    pub(super) folder: &'a Path,
    pub(super) files: &'a mut Prints,
}

impl Reader<'_> {
    fn settings(&mut self, node: &Node<'_>) -> Settings {
        let mut settings = Settings::default();
        if node.value == Value::Null {
            return settings;
        }
        let what = "a web configuration file";
        let Some(fields) = Fields::open(node, what, WEB_FILE, self.reporter) else {
            return settings;
        };
        let mut http2 = true;
        if let Some(node) = fields.get("http_server_config") {
            self.http(node, &mut http2, &mut settings);
        }
        settings.tls = fields
            .get("tls_server_config")
            .and_then(|node| tls::read(self, node, http2));
        settings.users = fields
            .get("basic_auth_users")
            .and_then(|node| self.users(node));
        settings.rate_limit = fields.get("rate_limit").and_then(|node| self.rate(node));
        settings
    }

    fn http(&mut self, node: &Node<'_>, http2: &mut bool, settings: &mut Settings) {
        let what = "`http_server_config`";
        let Some(fields) = Fields::open(node, what, HTTP, self.reporter) else {
            return;
        };
        self.switch(&fields, "http2", http2);
        let Some(node) = fields.get("headers") else {
            return;
        };
        let Some(fields) = Fields::open(node, "`headers`", HEADERS, self.reporter) else {
            return;
        };
        for name in HEADERS.all() {
            if let Some(node) = fields.get(name) {
                settings.headers.extend(self.header(name, node));
            }
        }
    }

    /// A header; none where it is blank, which means that it is not to be set.
    fn header(&mut self, name: &str, node: &Node<'_>) -> Option<(HeaderName, HeaderValue)> {
        if matches!(&node.value, Value::Text(text) if text.trim().is_empty()) {
            return None;
        }
        let text = yaml::text(node, name, self.reporter)?;
        let known = HEADER_VALUES.iter().find(|(header, _)| *header == name);
        if let Some((_, values)) = known
            && !values.contains(&text)
        {
            let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
            let values = values.join(" or ");
            let message = format!("`{name}` must be {values}, not `{text}`");
            self.reporter.error("unknown-value", node.span, message);
            return None;
        }
        let header = (name.parse(), HeaderValue::from_str(text));
        let (Ok(name), Ok(value)) = header else {
            let message =
                format!("the value of `{name}` is no header of HTTP: write it in printable ASCII");
            self.reporter.error("bad-header", node.span, message);
            return None;
        };
        Some((name, value))
    }

    fn users(&mut self, node: &Node<'_>) -> Option<Arc<Users>> {
        let Value::Mapping(entries) = &node.value else {
            let message = format!(
                "`basic_auth_users` must be a mapping of users to bcrypt hashes, not {}",
                node.kind()
            );
            self.reporter.error("wrong-type", node.span, message);
            return None;
        };
        if entries.len() > MOST_USERS {
            let message = format!(
                "{} users are more than {MOST_USERS}: use client certificates, or a proxy that authenticates",
                entries.len()
            );
            self.reporter.error("too-many-users", node.span, message);
            return None;
        }
        let mut users = Users::default();
        for (key, value) in entries {
            self.user(key, value, &mut users);
        }
        // As in exporter-toolkit, an empty mapping asks for no password.
        (!users.is_empty()).then(|| Arc::new(users))
    }

    fn user(&mut self, key: &Node<'_>, value: &Node<'_>, users: &mut Users) {
        let Some(name) = yaml::text(key, "basic_auth_users", self.reporter) else {
            return;
        };
        if name.contains(':') {
            let message =
                "a name of a user can't have a colon, which ends it in basic authentication";
            self.reporter.error("bad-user", key.span, message);
            return;
        }
        // What stands here may be a password, so it is not quoted.
        let hash = match &value.value {
            Value::Text(text) => text.trim(),
            Value::Null | Value::Sequence(_) | Value::Mapping(_) => "",
        };
        let (code, message) = match users.add(name, hash) {
            Ok(true) => return,
            Ok(false) => (
                "duplicate-key",
                format!("the user `{name}` was already given: keep one of them"),
            ),
            Err(HashError::Form) => (
                "bad-hash",
                format!(
                    "the password of `{name}` is no bcrypt hash: make one with `htpasswd -nBC 10 {name}`"
                ),
            ),
            Err(HashError::Cost { cost, least, most }) => (
                "bad-hash",
                format!(
                    "the hash of `{name}` has the cost {cost}, and {least} to {most} are taken: each step doubles the time of a check; \
                     make one with `htpasswd -nBC 10 {name}`"
                ),
            ),
        };
        let span = if code == "duplicate-key" {
            key.span
        } else {
            value.span
        };
        self.reporter.error(code, span, message);
    }

    fn rate(&mut self, node: &Node<'_>) -> Option<RateLimit> {
        let fields = Fields::open(node, "`rate_limit`", RATE, self.reporter)?;
        let interval = match fields.get("interval") {
            Some(node) => self.interval(node)?,
            None => Duration::ZERO,
        };
        let burst = match fields.get("burst") {
            // Without an interval it has no meaning, whatever it is.
            Some(node) if interval.is_zero() => {
                yaml::whole_number(node, "burst", 0..=*BURST.end(), self.reporter)
            }
            Some(node) => yaml::whole_number(node, "burst", BURST, self.reporter),
            None if interval.is_zero() => None,
            None => {
                let message = "`rate_limit` with an interval needs a burst of 1 or more, or no request would ever be answered";
                self.reporter.error("missing-key", node.span, message);
                None
            }
        };
        (!interval.is_zero()).then_some(RateLimit {
            interval,
            burst: burst?,
        })
    }

    fn interval(&mut self, node: &Node<'_>) -> Option<Duration> {
        let text = yaml::text(node, "interval", self.reporter)?;
        let read = match text {
            "0" => Some(Duration::ZERO),
            text => humantime::parse_duration(text).ok(),
        };
        let read = read.filter(|interval| *interval <= LONGEST_INTERVAL);
        if read.is_none() {
            let message = format!(
                "`{text}` is no interval: write a duration of at most 24h, such as `100ms` or `1s`; 0 switches the limit off"
            );
            self.reporter.error("bad-duration", node.span, message);
        }
        read
    }

    pub(super) fn switch(&mut self, fields: &Fields<'_, '_>, key: &str, into: &mut bool) {
        let read = |node| yaml::choice(node, "truth value", "unknown-value", &TRUTH, self.reporter);
        if let Some(value) = fields.get(key).and_then(read) {
            *into = value;
        }
    }
}

#[cfg(test)]
mod tests;
