//! Feeds one destination from its queue, on a thread of its own: in batches, again and again while it does not take them,
//! and says once that it does not and once that it does again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::queue::Queue;
use super::sink::Sink;

/// Events that are handed over at once.
const BATCH: usize = 256;
/// Pause before the second attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The longest pause that a destination may ask for.
const LONGEST_WISH: Duration = Duration::from_secs(300);

/// Until the queue is closed and empty, or closed and the destination takes no more.
pub(super) fn run(queue: &Queue, sink: &mut dyn Sink) {
    let counters = &queue.counters;
    let mut pause = FIRST_PAUSE;
    let mut batch = Vec::new();
    loop {
        if batch.is_empty() {
            batch = queue.take(BATCH);
        }
        if batch.is_empty() {
            return;
        }
        let delivery = sink.deliver(&batch);
        let delivered = delivery.delivered.min(batch.len());
        let refused = delivery.refused.min(batch.len() - delivered);
        batch.drain(..delivered + refused);
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        counters.settle(number(delivered), number(refused));
        let up = delivery.trouble.is_none();
        let was_up = counters.up.swap(up, Ordering::Relaxed);
        match delivery.trouble {
            None if !was_up => tracing::info!("{} takes events again", sink.name()),
            Some(reason) if was_up => tracing::warn!("{} takes no events: {reason}", sink.name()),
            None | Some(_) => {}
        }
        if up {
            pause = FIRST_PAUSE;
        } else if !batch.is_empty() {
            if queue.give_up() {
                counters.settle(0, number(batch.len()));
                return;
            }
            queue.pause(pause.max(delivery.not_before.unwrap_or_default().min(LONGEST_WISH)));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Starts the thread.
pub(super) fn start(
    queue: Arc<Queue>,
    mut sink: Box<dyn Sink>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("events-{}", sink.kind()))
        .spawn(move || run(&queue, sink.as_mut()))
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::event;
    use super::super::model::{Body, Event};
    use super::super::sink::Delivery;
    use super::*;

    /// Takes what it is told to, one call after the other.
    struct Scripted {
        calls: Vec<(usize, usize, bool)>,
        seen: Vec<usize>,
        queue: Arc<Queue>,
    }

    impl Sink for Scripted {
        fn kind(&self) -> &'static str {
            "test"
        }

        fn name(&self) -> String {
            "the test".to_owned()
        }

        fn deliver(&mut self, events: &[Arc<Event>]) -> Delivery {
            self.seen.push(events.len());
            let (delivered, refused, fails) = self.calls.remove(0);
            if self.calls.is_empty() {
                self.queue.close();
            }
            Delivery {
                delivered,
                refused,
                trouble: fails.then(|| "no".to_owned()),
                not_before: None,
            }
        }
    }

    fn check(calls: Vec<(usize, usize, bool)>, seen: &[usize], expect: (u64, u64, bool)) {
        let queue = Arc::new(Queue::new(10));
        for _ in 0..4 {
            queue.push(Arc::new(event(Body::DaemonStopping)));
        }
        let mut sink = Scripted {
            calls,
            seen: Vec::new(),
            queue: Arc::clone(&queue),
        };
        run(&queue, &mut sink);
        assert_eq!(sink.seen, seen);
        let counters = &queue.counters;
        let got = (
            counters.delivered.load(Ordering::Relaxed),
            counters.dropped.load(Ordering::Relaxed),
            counters.up.load(Ordering::Relaxed),
        );
        assert_eq!(got, expect);
    }

    #[test]
    fn what_is_not_taken_is_offered_again_and_at_the_end_counted() {
        check(vec![(4, 0, false)], &[4], (4, 0, true));
        check(vec![(1, 0, true), (3, 0, false)], &[4, 3], (4, 0, true));
        // Refused for good is not offered again.
        check(vec![(1, 3, true)], &[4], (1, 3, false));
        check(vec![(1, 1, true), (0, 0, true)], &[4, 2], (1, 3, false));
    }
}
