//! Events that a destination has not taken yet. Whoever pushes never waits; what finds no room is counted and gone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::model::Event;

/// Events that wait for one destination at most: a large matrix may change as a whole. About 16 MiB.
pub(super) const ROOM: usize = 16_384;

/// What became of a destination's events.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) delivered: AtomicU64,
    pub(super) dropped: AtomicU64,
    /// In the queue, or offered to the destination and not taken yet.
    pub(super) waiting: AtomicU64,
    pub(super) up: AtomicBool,
}

impl Counters {
    /// Notes what became of events that waited.
    pub(super) fn settle(&self, delivered: u64, dropped: u64) {
        self.delivered.fetch_add(delivered, Ordering::Relaxed);
        self.dropped.fetch_add(dropped, Ordering::Relaxed);
        self.waiting
            .fetch_sub(delivered + dropped, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Arc<Event>>,
    closed: bool,
}

/// The queue of one destination.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    bell: Condvar,
    room: usize,
    pub(super) counters: Counters,
}

impl Queue {
    pub(super) fn new(room: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            bell: Condvar::new(),
            room,
            counters: Counters {
                delivered: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
                waiting: AtomicU64::new(0),
                // Until it is proven otherwise.
                up: AtomicBool::new(true),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event; without room, or after the end, it is counted as dropped.
    pub(super) fn push(&self, event: Arc<Event>) {
        let mut waiting = self.lock();
        if waiting.closed || waiting.events.len() >= self.room {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.events.push_back(event);
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        self.bell.notify_all();
    }

    /// The oldest events, `most` at most; waits for the first. Nothing at the end.
    pub(super) fn take(&self, most: usize) -> Vec<Arc<Event>> {
        let waiting = self.lock();
        let mut waiting = self
            .bell
            .wait_while(waiting, |waiting| {
                waiting.events.is_empty() && !waiting.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        let count = most.min(waiting.events.len());
        waiting.events.drain(..count).collect()
    }

    /// Waits before another attempt, until the end at most.
    pub(super) fn pause(&self, pause: Duration) {
        let waiting = self.lock();
        // Nothing is done with the guard.
        drop(
            self.bell
                .wait_timeout_while(waiting, pause, |waiting| !waiting.closed),
        );
    }

    /// Takes no more events; what waits may still be delivered.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.bell.notify_all();
    }

    /// Gives up what waits, if the end has come; whether it has.
    pub(super) fn give_up(&self) -> bool {
        let mut waiting = self.lock();
        if waiting.closed {
            let left = u64::try_from(waiting.events.len()).unwrap_or(u64::MAX);
            self.counters.settle(0, left);
            waiting.events.clear();
        }
        waiting.closed
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::Body;
    use super::super::model::tests::event;
    use super::*;

    fn count(queue: &Queue) -> u64 {
        queue.counters.dropped.load(Ordering::Relaxed)
    }

    #[test]
    fn a_full_queue_counts_what_it_drops_and_keeps_the_oldest() {
        let queue = Queue::new(3);
        for number in 0..5 {
            let mut event = event(Body::DaemonStopping);
            event.id = number.to_string();
            queue.push(Arc::new(event));
        }
        assert_eq!(count(&queue), 2);
        let ids: Vec<_> = queue.take(2).iter().map(|event| event.id.clone()).collect();
        assert_eq!(ids, ["0", "1"]);
        queue.push(Arc::new(event(Body::DaemonStopping)));
        assert_eq!((queue.take(9).len(), count(&queue)), (2, 2));
        // Nobody said yet what became of those that were taken.
        let waiting = || queue.counters.waiting.load(Ordering::Relaxed);
        assert_eq!(waiting(), 4);
        queue.counters.settle(3, 1);
        assert_eq!((waiting(), count(&queue)), (0, 3));
    }

    #[test]
    fn after_the_end_nothing_waits() {
        let queue = Queue::new(3);
        queue.push(Arc::new(event(Body::DaemonStopping)));
        assert!(!queue.give_up());
        queue.close();
        queue.push(Arc::new(event(Body::DaemonStopping)));
        assert_eq!(count(&queue), 1);
        queue.pause(Duration::from_secs(3_600));
        assert_eq!(queue.take(9).len(), 1);
        assert!(queue.take(9).is_empty());
        assert!(queue.give_up());
        assert_eq!(count(&queue), 1);
    }
}
