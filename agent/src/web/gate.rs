//! Who is let in: the web configuration in force, read again when its files change, and what is counted of those who ask.
//!
//! A bad new file leaves the old one in force, says so once in the log, and in `flowproof_web_config_last_reload_successful`
//! until it is mended. Files are looked at when somebody connects or asks, once a second at most, so that a certificate that
//! was renewed is served to the next client and an idle daemon touches no disk.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::StatusCode;
use tokio::sync::watch;

use super::buckets::{Bucket, Rule};
use super::config::{self, Expiry, RateLimit, Settings};
use super::connections::{Connections, Refusal};
use super::prints::Prints;
use super::users::{Check, Checker};
use crate::engine::health::Reload;
use crate::finding::{Findings, Severity};
use crate::yaml::LoadError;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long somebody who connects waits for that; a disk that is stuck must not keep him.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// When it is said that a certificate will run out.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// Why there is no web configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// The file can't be read.
    #[error("the web configuration (`web: {{config: FILE}}` or --web-config): {0}")]
    Load(#[source] LoadError),
    /// The file has errors.
    #[error("the web configuration has errors")]
    Findings(Box<Findings>),
    /// The system refused something that every program gets.
    #[error("checking passwords: {0}")]
    System(#[source] std::io::Error),
}

/// The settings in force, with what lasts as long as they do.
#[derive(Debug)]
pub struct InForce {
    /// The settings.
    pub settings: Settings,
    bucket: Option<(Rule, Mutex<Bucket>)>,
}

impl InForce {
    fn new(settings: Settings) -> Arc<Self> {
        let bucket = settings.rate_limit.map(|RateLimit { interval, burst }| {
            let rule = Rule { burst, interval };
            (rule, Mutex::new(Bucket::full(rule, Instant::now())))
        });
        Arc::new(Self { settings, bucket })
    }

    /// Whether another request may be answered.
    #[must_use]
    pub fn admits(&self) -> bool {
        self.bucket.as_ref().is_none_or(|(rule, bucket)| {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(*rule, Instant::now())
        })
    }
}

/// How the files were when they were read, and how that went.
#[derive(Debug)]
struct Watched {
    prints: Prints,
    looked: Instant,
    reload: Reload,
}

/// Classes of status codes, with their names in metrics.
const CODES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Why somebody was not let in, with the names in metrics.
const FAILURES: [&str; 3] = ["missing", "wrong", "throttled"];

#[derive(Debug, Default)]
struct Counters {
    codes: [AtomicU64; CODES.len()],
    failures: [AtomicU64; FAILURES.len()],
    rate_limited: AtomicU64,
}

/// What is known of those who ask, for metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Answers by class of status code.
    pub requests: Vec<(&'static str, u64)>,
    /// Requests that were not let in for want of the right password, by reason.
    pub failures: Vec<(&'static str, u64)>,
    /// Requests that the rate limit stopped.
    pub rate_limited: u64,
    /// Connections now.
    pub connections: usize,
    /// Connections that came to nothing, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// How the web configuration was read last, if there is one.
    pub reload: Option<Reload>,
    /// When certificates run out.
    pub expiries: Vec<Expiry>,
}

/// Who is let in.
#[derive(Debug)]
pub struct Gate {
    path: Option<PathBuf>,
    in_force: Mutex<Arc<InForce>>,
    watched: Mutex<Watched>,
    /// Held while files are looked at.
    looking: tokio::sync::Mutex<()>,
    /// Changes with the settings.
    changed: watch::Sender<u64>,
    /// Checks passwords.
    pub checker: Checker,
    /// Who is connected.
    pub connections: Arc<Connections>,
    counters: Counters,
}

impl Gate {
    /// Reads the web configuration, if there is one.
    ///
    /// # Errors
    /// [`GateError`]; all errors of the file are found in one go.
    pub fn open(path: Option<&Path>) -> Result<Arc<Self>, GateError> {
        let (settings, prints) = match path {
            None => (Settings::default(), Prints::default()),
            Some(path) => match load(path) {
                (_, Err(error)) => return Err(error),
                (prints, Ok(settings)) => (settings, prints),
            },
        };
        let reload = Reload {
            successful: true,
            last_success: SystemTime::now(),
        };
        Ok(Arc::new(Self {
            path: path.map(Path::to_owned),
            in_force: Mutex::new(InForce::new(settings)),
            watched: Mutex::new(Watched {
                prints,
                looked: Instant::now(),
                reload,
            }),
            looking: tokio::sync::Mutex::default(),
            changed: watch::Sender::new(0),
            checker: Checker::new().map_err(GateError::System)?,
            connections: Arc::default(),
            counters: Counters::default(),
        }))
    }

    /// What is in force now.
    #[must_use]
    pub fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&lock(&self.in_force))
    }

    /// Changes when other settings come into force.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Looks if files changed, at most once a second, and reads them again if they did. Whoever comes while somebody else looks
    /// goes on by what is in force.
    pub async fn refresh(self: &Arc<Self>) {
        if self.path.is_none() || lock(&self.watched).looked.elapsed() < LOOK {
            return;
        }
        let gate = Arc::clone(self);
        let look = async move {
            let Ok(_turn) = gate.looking.try_lock() else {
                return;
            };
            let again = Arc::clone(&gate);
            let _ = tokio::task::spawn_blocking(move || again.look(false)).await;
        };
        // On its own, so that a client that hangs up does not break it off.
        let _ = tokio::time::timeout(LOOK_LIMIT, tokio::spawn(look)).await;
    }

    /// Reads the files again, changed or not: somebody asked for it.
    pub async fn reload(self: &Arc<Self>) {
        if self.path.is_none() {
            return;
        }
        let gate = Arc::clone(self);
        let _turn = self.looking.lock().await;
        let _ = tokio::task::spawn_blocking(move || gate.look(true)).await;
    }

    fn look(&self, always: bool) {
        let Some(path) = &self.path else { return };
        let before = lock(&self.watched).prints.clone();
        if !always && before == before.again() {
            lock(&self.watched).looked = Instant::now();
            return;
        }
        let (prints, loaded) = load(path);
        let mut watched = lock(&self.watched);
        watched.looked = Instant::now();
        watched.prints = prints;
        match loaded {
            Ok(settings) => {
                watched.reload = Reload {
                    successful: true,
                    last_success: SystemTime::now(),
                };
                drop(watched);
                *lock(&self.in_force) = InForce::new(settings);
                self.changed.send_modify(|number| *number += 1);
                tracing::info!("{}: the web configuration was read again", path.display());
            }
            Err(error) => {
                watched.reload.successful = false;
                drop(watched);
                if let GateError::Findings(findings) = &error {
                    for finding in findings.errors() {
                        tracing::error!("{finding}");
                    }
                }
                tracing::error!("{error}; the one before stays in force");
            }
        }
    }

    /// Counts an answer.
    pub fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(count) = self.counters.codes.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts somebody who was not let in.
    pub fn failed(&self, check: Check) {
        let place = match check {
            Check::Right => return,
            Check::Missing => 0,
            Check::Wrong => 1,
            Check::Later => 2,
        };
        self.counters.failures[place].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that the rate limit stopped.
    pub fn limited(&self) {
        self.counters.rate_limited.fetch_add(1, Ordering::Relaxed);
    }

    /// For metrics.
    #[must_use]
    pub fn status(&self) -> Status {
        let zip = |names: &[&'static str], counts: &[AtomicU64]| {
            let counts = counts.iter().map(|count| count.load(Ordering::Relaxed));
            names.iter().copied().zip(counts).collect()
        };
        let tls = &self.in_force().settings.tls;
        let reasons = Refusal::ALL.map(|(_, name)| name);
        Status {
            requests: zip(&CODES, &self.counters.codes),
            failures: zip(&FAILURES, &self.counters.failures),
            rate_limited: self.counters.rate_limited.load(Ordering::Relaxed),
            connections: self.connections.open(),
            refused: reasons
                .into_iter()
                .zip(self.connections.refused())
                .collect(),
            reload: self.path.as_ref().map(|_| lock(&self.watched).reload),
            expiries: tls
                .as_ref()
                .map_or_else(Vec::new, |tls| tls.expiries.clone()),
        }
    }
}

/// Reads the files, and how they looked.
fn load(path: &Path) -> (Prints, Result<Settings, GateError>) {
    let reading = match config::read(path) {
        Ok(reading) => reading,
        Err(error) => {
            let mut prints = Prints::default();
            prints.add(path);
            return (prints, Err(GateError::Load(error)));
        }
    };
    for finding in reading.findings.as_slice() {
        if finding.severity == Severity::Warning {
            tracing::warn!("{finding}");
        }
    }
    let settings = match reading.settings {
        Some(settings) => {
            warn_of_certificates(&settings, SystemTime::now());
            Ok(settings)
        }
        None => Err(GateError::Findings(Box::new(reading.findings))),
    };
    (reading.files, settings)
}

/// Says which certificates ran out or soon will. They are served all the same: an operator who can look at a page in spite of
/// the browser's warning is better off than one who can't.
fn warn_of_certificates(settings: &Settings, now: SystemTime) {
    let Some(tls) = &settings.tls else { return };
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    for expiry in &tls.expiries {
        let left = expiry.not_after.saturating_sub(now);
        let whose = match expiry.certificate {
            "server" => "the certificate of the web server",
            _ => "the authority that clients are verified by",
        };
        let days = left / 86_400;
        if left < 0 {
            tracing::warn!(
                "{whose} has run out, {} days ago: clients that check it stay away; renew it, it is read again by itself",
                -days
            );
        } else if left < i64::try_from(SOON.as_secs()).unwrap_or(i64::MAX) {
            tracing::warn!("{whose} runs out in {days} days: renew it, it is read again by itself");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
