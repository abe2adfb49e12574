//! Where events go in: stamped once, and put into the queue of every destination.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use super::model::{Body, Event};
use super::queue::{Queue, ROOM};
use super::sink::{self, Sink};
use super::worker;
use crate::config::EventsConfig;
use crate::names::wall_time;

/// How often is looked whether a destination has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Why events can't be told.
#[derive(Debug, thiserror::Error)]
#[error("events can't be given to {sink}: {source}")]
pub struct StartError {
    /// Which destination.
    pub sink: &'static str,
    /// What the system said.
    pub source: std::io::Error,
}

/// How a destination does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkStatus {
    /// `json`, `syslog` or `otlp`.
    pub sink: &'static str,
    /// Events that it took.
    pub delivered: u64,
    /// Events that found no room in its queue, or that it refused.
    pub dropped: u64,
    /// Events that wait for it, those that it is offered included.
    pub waiting: u64,
    /// Whether it took the last that it was offered.
    pub up: bool,
}

#[derive(Debug)]
struct Shared {
    agent: String,
    site: Mutex<Option<String>>,
    /// What every id begins with.
    run: String,
    next: AtomicU64,
    queues: Vec<(&'static str, Arc<Queue>)>,
}

/// Takes events; a handle that can be cloned.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Shared>);

impl Feed {
    fn new(agent: String, begun: u64, queues: Vec<(&'static str, Arc<Queue>)>) -> Self {
        Self(Arc::new(Shared {
            agent,
            site: Mutex::default(),
            run: format!("{begun:016x}"),
            next: AtomicU64::new(1),
            queues,
        }))
    }

    /// Notes the name of the site, as of now.
    pub fn set_site(&self, site: &str) {
        let name = (!site.is_empty()).then(|| site.to_owned());
        *self.0.site.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }

    /// Tells what was noticed at `time`, nanoseconds since the Unix epoch. Never waits.
    pub fn send(&self, time: u64, body: Body) {
        let shared = &self.0;
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let site = shared.site.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Arc::new(Event {
            time,
            id: format!("{}-{number}", shared.run),
            severity: body.severity(),
            agent: shared.agent.clone(),
            site: site.clone(),
            message: body.message(),
            body,
        });
        drop(site);
        for (_, queue) in &shared.queues {
            queue.push(Arc::clone(&event));
        }
    }

    /// Tells what is noticed now.
    pub fn send_now(&self, body: Body) {
        self.send(wall_time::nanos(SystemTime::now()), body);
    }

    /// How the destinations do.
    #[must_use]
    pub fn sinks(&self) -> Vec<SinkStatus> {
        self.0
            .queues
            .iter()
            .map(|(sink, queue)| SinkStatus {
                sink,
                delivered: queue.counters.delivered.load(Ordering::Relaxed),
                dropped: queue.counters.dropped.load(Ordering::Relaxed),
                waiting: queue.counters.waiting.load(Ordering::Relaxed),
                up: queue.counters.up.load(Ordering::Relaxed),
            })
            .collect()
    }
}

/// The destinations of a daemon's events.
#[derive(Debug)]
pub struct Events {
    feed: Feed,
    threads: Vec<JoinHandle<()>>,
    interval: Duration,
}

impl Events {
    /// Starts a thread for each destination that is configured; nothing if none is. `standard_output` is where events go
    /// that are meant for it. Nothing is opened or connected before the first event.
    ///
    /// # Errors
    /// A thread can't be started.
    pub fn start(
        config: &EventsConfig,
        standard_output: impl FnOnce() -> std::io::Result<File>,
    ) -> Result<Option<Self>, StartError> {
        let sinks = sink::configured(config, standard_output)?;
        if sinks.is_empty() {
            return Ok(None);
        }
        Self::of(sinks, config.interval).map(Some)
    }

    fn of(sinks: Vec<Box<dyn Sink>>, interval: Duration) -> Result<Self, StartError> {
        let mut queues: Vec<(&'static str, Arc<Queue>)> = Vec::new();
        let mut threads = Vec::new();
        for sink in sinks {
            let (kind, queue) = (sink.kind(), Arc::new(Queue::new(ROOM)));
            match worker::start(Arc::clone(&queue), sink) {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    queues.iter().for_each(|(_, queue)| queue.close());
                    return Err(StartError { sink: kind, source });
                }
            }
            queues.push((kind, queue));
        }
        let begun = wall_time::nanos(SystemTime::now());
        Ok(Self {
            feed: Feed::new(sink::host_name(), begun, queues),
            threads,
            interval,
        })
    }

    /// Where events go in.
    #[must_use]
    pub fn feed(&self) -> Feed {
        self.feed.clone()
    }

    /// How long unexpected flows of a known kind are summed up.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// Lets the destinations take what waits, for `limit` at most; whether they did.
    pub async fn finish(&self, limit: Duration) -> bool {
        self.close();
        let ended = || self.threads.iter().all(JoinHandle::is_finished);
        let wait = async {
            while !ended() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }

    fn close(&self) {
        for (_, queue) in &self.feed.0.queues {
            queue.close();
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // A daemon that did not start has nothing to tell, and its threads go.
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::super::sink::Delivery;
    use super::*;

    /// Never comes back from the first delivery until it is let go.
    struct Stuck(std::sync::mpsc::Receiver<()>);

    impl Sink for Stuck {
        fn kind(&self) -> &'static str {
            "stuck"
        }

        fn name(&self) -> String {
            "a stuck sink".to_owned()
        }

        fn deliver(&mut self, events: &[Arc<Event>]) -> Delivery {
            let _ = self.0.recv();
            Delivery::all(events)
        }
    }

    struct Collects(Arc<Mutex<Vec<Arc<Event>>>>);

    impl Sink for Collects {
        fn kind(&self) -> &'static str {
            "collects"
        }

        fn name(&self) -> String {
            "a list".to_owned()
        }

        fn deliver(&mut self, events: &[Arc<Event>]) -> Delivery {
            self.0.lock().unwrap().extend_from_slice(events);
            Delivery::all(events)
        }
    }

    #[tokio::test]
    async fn a_stuck_destination_costs_only_its_own_events() {
        let (let_go, stuck) = std::sync::mpsc::channel();
        let got = Arc::default();
        let sinks: Vec<Box<dyn Sink>> =
            vec![Box::new(Stuck(stuck)), Box::new(Collects(Arc::clone(&got)))];
        let events = Events::of(sinks, Duration::from_secs(60)).unwrap();
        let feed = events.feed();
        feed.set_site("hq");
        // More than the stuck one has room for, at a pace that the other keeps up with.
        let most = ROOM + 1_000;
        for number in 0..most {
            feed.send(u64::try_from(number).unwrap(), Body::DaemonStopping);
            while number > got.lock().unwrap().len() + ROOM / 2 {
                std::thread::yield_now();
            }
        }
        assert!(!events.finish(Duration::from_millis(300)).await);
        let got = got.lock().unwrap();
        assert_eq!(got.len(), most);
        let ids: std::collections::HashSet<_> = got.iter().map(|event| &event.id).collect();
        assert_eq!(ids.len(), most);
        assert_eq!(got[0].site.as_deref(), Some("hq"));
        assert!(!got[0].agent.is_empty());
        let [stuck, collects] = feed.sinks().try_into().unwrap();
        // One batch was on its way.
        assert!((700..=1_000).contains(&stuck.dropped), "{stuck:?}");
        assert_eq!((collects.delivered, collects.dropped), (most as u64, 0));
        drop(let_go);
    }
}
