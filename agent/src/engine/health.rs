//! Whether the daemon is doing its job, in words that an operator can act on. Written by the capture thread and by
//! reloads, read by the web server.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// What is known of the daemon's own state.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    capture: CaptureState,
    reload: Option<Reload>,
}

/// How the capture is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CaptureState {
    /// Not yet attached anywhere.
    #[default]
    Starting,
    /// Attached to this many interfaces.
    Watching(usize),
    /// It gives no more, for the reason given.
    Failed(String),
    /// The daemon ends.
    Stopping,
}

/// How the last reading of the matrix went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reload {
    /// Whether it succeeded.
    pub successful: bool,
    /// When one last succeeded.
    pub last_success: SystemTime,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how the capture is doing. A failure is final: only the end of the daemon follows it.
    pub fn set_capture(&self, capture: CaptureState) {
        let mut state = self.lock();
        if matches!(state.capture, CaptureState::Failed(_)) && capture != CaptureState::Stopping {
            return;
        }
        state.capture = capture;
    }

    /// Notes that a matrix was read and is in force.
    pub fn matrix_loaded(&self, now: SystemTime) {
        self.lock().reload = Some(Reload {
            successful: true,
            last_success: now,
        });
    }

    /// Notes that a matrix could not be read; the one before stays in force.
    pub fn reload_failed(&self) {
        if let Some(reload) = &mut self.lock().reload {
            reload.successful = false;
        }
    }

    /// How the last reading of the matrix went; none before the first.
    #[must_use]
    pub fn reload(&self) -> Option<Reload> {
        self.lock().reload
    }

    /// How the capture is doing.
    #[must_use]
    pub fn capture(&self) -> CaptureState {
        self.lock().capture.clone()
    }

    /// Whether traffic is being judged.
    ///
    /// # Errors
    /// Why it is not.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.lock();
        match &state.capture {
            CaptureState::Starting => return Err("the capture is not attached yet".to_owned()),
            CaptureState::Failed(reason) => return Err(format!("the capture failed: {reason}")),
            CaptureState::Stopping => return Err("the daemon is ending".to_owned()),
            CaptureState::Watching(0) => {
                return Err(
                    "no interface is watched: none that was asked for is up and can be attached"
                        .to_owned(),
                );
            }
            CaptureState::Watching(_) => {}
        }
        if state.reload.is_none() {
            return Err("no matrix is loaded yet".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_only_when_traffic_is_judged() {
        let health = Health::default();
        let check = |expect: Result<(), &str>| match (health.ready(), expect) {
            (Ok(()), Ok(())) => {}
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
            (got, expect) => panic!("got {got:?}, expected {expect:?}"),
        };
        check(Err("not attached"));
        health.set_capture(CaptureState::Watching(0));
        check(Err("no interface"));
        health.set_capture(CaptureState::Watching(2));
        check(Err("no matrix"));
        health.matrix_loaded(SystemTime::UNIX_EPOCH);
        check(Ok(()));
        health.reload_failed();
        // The matrix before is still in force.
        check(Ok(()));
        assert_eq!(health.reload().map(|reload| reload.successful), Some(false));
        health.set_capture(CaptureState::Failed("the device is gone".to_owned()));
        health.set_capture(CaptureState::Watching(2));
        check(Err("the device is gone"));
        health.set_capture(CaptureState::Stopping);
        check(Err("ending"));
    }
}
