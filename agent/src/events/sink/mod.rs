//! Where events go. A sink takes a batch and says how far it came; when to try again is the worker's business.

mod json;
mod otlp;
mod syslog;
mod tls;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use super::feed::StartError;
use super::model::Event;
use crate::config::{EventTarget, EventsConfig};

/// What became of a batch. Its first `delivered + refused` events are done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Taken.
    pub(super) delivered: usize,
    /// Will never be taken.
    pub(super) refused: usize,
    /// Why not all were taken.
    pub(super) trouble: Option<String>,
    /// How long the destination wants to be left alone.
    pub(super) not_before: Option<Duration>,
}

impl Delivery {
    /// All were taken.
    pub(super) fn all(events: &[Arc<Event>]) -> Self {
        Self {
            delivered: events.len(),
            refused: 0,
            trouble: None,
            not_before: None,
        }
    }

    /// The first `delivered` were taken; the rest may be later.
    pub(super) fn up_to(delivered: usize, trouble: String) -> Self {
        Self {
            delivered,
            refused: 0,
            trouble: Some(trouble),
            not_before: None,
        }
    }
}

/// A destination. It may block, but not for ever.
pub(super) trait Sink: Send {
    /// The label in metrics.
    fn kind(&self) -> &'static str;

    /// What to call it in a message.
    fn name(&self) -> String;

    /// Offers events, oldest first.
    fn deliver(&mut self, events: &[Arc<Event>]) -> Delivery;
}

/// The sinks that are configured.
pub(super) fn configured(
    config: &EventsConfig,
    standard_output: impl FnOnce() -> std::io::Result<File>,
) -> Result<Vec<Box<dyn Sink>>, StartError> {
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    if let Some(config) = &config.json {
        sinks.push(match &config.target {
            EventTarget::StandardOutput => {
                let file = standard_output().map_err(|source| StartError {
                    sink: "standard output",
                    source,
                })?;
                Box::new(json::Stream::new(file))
            }
            EventTarget::File(path) => Box::new(json::Rotated::new(
                path.clone(),
                config.max_size.into(),
                config.keep,
            )),
        });
    }
    if let Some(config) = &config.syslog {
        sinks.push(Box::new(syslog::Syslog::new(config)));
    }
    if let Some(config) = &config.otlp {
        sinks.push(Box::new(otlp::Collector::new(config)));
    }
    Ok(sinks)
}

/// The name of this host; empty if the system does not tell.
pub(super) fn host_name() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| String::new(),
        |name| name.nodename().to_string_lossy().into_owned(),
    )
}
