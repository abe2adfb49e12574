//! What a service manager is told (sd_notify(3)): that the daemon judges, that it reloads, that it ends, how it is doing,
//! and that it is alive. The last is an honest word: it is withheld as soon as traffic is no longer judged or nobody
//! serves pages any more, so that the manager restarts a daemon that only looks alive. `pulse` decides that, without
//! a clock or a socket of its own; here is what asks and sends.
//!
//! Without a manager (no `NOTIFY_SOCKET`) nothing is sent and nothing is asked.

mod pulse;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

pub use self::pulse::Beat;
use self::pulse::{Look, Pulse};
use crate::engine::evidence::Evidence;
use crate::engine::health::Health;

/// How often is looked how the daemon is doing, unless the watchdog wants to know it earlier.
const EVERY: Duration = Duration::from_secs(10);
/// Words of life are said this many times within the watchdog's limit, so that one that is late is no death.
const WORDS_A_LIMIT: u32 = 3;
/// No faster than this, however short the limit is.
const AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// How long a look may take until it is told that it hangs.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// How often a task that turns says so.
const BEAT: Duration = Duration::from_millis(500);

/// The service manager, if there is one.
#[derive(Debug, Clone, Copy)]
pub struct Manager {
    listens: bool,
    watchdog: Option<Duration>,
}

impl Manager {
    /// By the environment.
    #[must_use]
    pub fn of_environment() -> Self {
        let listens = std::env::var_os("NOTIFY_SOCKET").is_some();
        Self {
            listens,
            watchdog: sd_notify::watchdog_enabled().filter(|limit| listens && !limit.is_zero()),
        }
    }

    /// Traffic is judged, and pages are served.
    pub fn ready(self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// Files are being read again. The manager waits for [`Manager::reloaded`].
    pub fn reloading(self) {
        // Without the time the manager would not know that this is the answer to its own signal.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[
                NotifyState::Reloading,
                now,
                NotifyState::Status("reading the configuration and the matrix again"),
            ]),
            Err(error) => tracing::debug!(%error, "no monotonic clock"),
        }
    }

    /// The reload is over; `status` says how it went. A reload that was refused is over too: the matrix before is in force.
    pub fn reloaded(self, status: &str) {
        self.ready(status);
    }

    /// The daemon ends.
    pub fn stopping(self) {
        self.send(&[NotifyState::Stopping, NotifyState::Status("ending")]);
    }

    /// Says how the daemon is doing, and that it is alive as long as it is, until dropped.
    pub async fn follow(
        self,
        evidence: Arc<Evidence>,
        health: Arc<Health>,
        servers: Vec<Arc<Beat>>,
    ) {
        if !self.listens {
            return;
        }
        let every = self.watchdog.map_or(EVERY, |limit| {
            (limit / WORDS_A_LIMIT).clamp(AT_MOST_EVERY, EVERY)
        });
        let mut pulse = Pulse::new(every);
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = String::new();
        loop {
            tick.tick().await;
            // A round of its own: the capture thread has to answer, and the windows have to be worked out.
            let standing = match tokio::time::timeout(LOOK_LIMIT, evidence.look()).await {
                Ok(standing) => standing.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no round ended within {LOOK_LIMIT:?}")),
            };
            let look = Look::new(standing.as_ref().map_err(Clone::clone), &health);
            let silent = servers
                .iter()
                .any(|server| server.is_silent(Instant::now(), every));
            let word = pulse.judge(&look, silent);
            let mut states = Vec::with_capacity(2);
            if word.status != said {
                states.push(NotifyState::Status(&word.status));
            }
            if word.alive && self.watchdog.is_some() {
                states.push(NotifyState::Watchdog);
            }
            self.send(&states);
            said = word.status;
        }
    }

    /// A manager that does not listen is its own problem: judging goes on.
    fn send(self, states: &[NotifyState<'_>]) {
        if !self.listens || states.is_empty() {
            return;
        }
        if let Err(error) = sd_notify::notify(states) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

/// Runs `work`, noting as long as it is being polled that it is alive. Work that ended is alive no more.
pub async fn beating<F: Future>(beat: Arc<Beat>, work: F) -> F::Output {
    let mut work = pin!(work);
    let mut tick = tokio::time::interval(BEAT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            output = &mut work => {
                beat.end();
                return output;
            }
            _ = tick.tick() => beat.note(Instant::now()),
        }
    }
}

/// A line ends a variable of the protocol.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_beats_until_it_ends() {
        let beat = Arc::new(Beat::default());
        let wait = Duration::from_secs(2);
        let work = tokio::time::sleep(Duration::from_millis(50));
        assert!(!beat.is_silent(Instant::now(), wait), "not begun yet");
        let worker = tokio::spawn(beating(Arc::clone(&beat), work));
        tokio::task::yield_now().await;
        assert!(!beat.is_silent(Instant::now(), wait));
        worker.await.unwrap();
        assert!(beat.is_silent(Instant::now(), wait));
    }

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(one_line("a\nREADY=1\r\nb"), "a READY=1  b");
    }
}
