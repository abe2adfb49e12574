//! Keeps the watched interfaces in step with those that the host has. Whatever the netlink socket says, or now and then
//! without a word, the whole list is compared; the capture thread attaches and lets go what differs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::actor::Engine;
use crate::capture::interfaces::{self, LinkWatch, Selection};

/// How long changes are gathered: links come with a burst of messages.
const GATHER: Duration = Duration::from_millis(100);
/// How often the list is compared without a change: an interface that refused may be ready now.
const COMPARE: Duration = Duration::from_secs(5);

/// What is to be watched, changed by a reload.
#[derive(Debug)]
pub struct Wanted {
    selection: Mutex<Selection>,
    changed: Notify,
}

impl Wanted {
    /// Starts with a selection.
    #[must_use]
    pub fn new(selection: Selection) -> Self {
        Self {
            selection: Mutex::new(selection),
            changed: Notify::new(),
        }
    }

    /// Wants something else from now on.
    pub fn set(&self, selection: Selection) {
        *self
            .selection
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = selection;
        self.changed.notify_one();
    }

    fn get(&self) -> Selection {
        self.selection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Follows links for ever. `addresses` is told whenever links or addresses may have changed.
pub async fn follow(
    mut watch: LinkWatch,
    wanted: Arc<Wanted>,
    engine: Engine,
    addresses: Arc<Notify>,
) {
    loop {
        match interfaces::list() {
            Ok(links) => engine.watch(wanted.get().choose(&links)),
            Err(error) => tracing::warn!("{error}; the interfaces watched so far stay"),
        }
        tokio::select! {
            () = watch.changed() => {
                tokio::time::sleep(GATHER).await;
                addresses.notify_one();
            }
            () = wanted.changed.notified() => {}
            () = tokio::time::sleep(COMPARE) => {}
        }
    }
}
