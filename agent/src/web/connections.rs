//! Who is connected, and who has to go when all places are taken.
//!
//! Slow peers are many and cheap, so refusing newcomers would leave the server to them. Newcomers are let in, and whoever has
//! been idle the longest (in a handshake, with half a head of a request, between requests, slow to read) makes room. A client
//! that has a question is done in milliseconds, and is never the one. A source has a share, so that one address does not cost
//! others their places.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::source::Source;

/// Connections to all listeners at a time: far below the files that a process may have open by default (1,024).
const MOST: usize = 256;
/// Connections of one source.
const SHARE: usize = 64;

/// Why a connection came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It made room, or found none, while all places were taken.
    Full,
    /// The same with the places of its source.
    Address,
    /// It took too long for a handshake or the head of a request.
    Slow,
    /// There was no agreement on TLS, or no certificate that is taken.
    Tls,
}

impl Refusal {
    /// All of them, with their names in metrics.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Full, "full"),
        (Self::Address, "address"),
        (Self::Slow, "slow"),
        (Self::Tls, "tls"),
    ];
}

#[derive(Debug)]
struct Entry {
    source: Source,
    /// Requests that are being answered.
    busy: u32,
    /// Requests that were answered.
    served: u64,
    /// Since when it is idle, if it is.
    since: Instant,
    go: Arc<Notify>,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Connections {
    entries: Mutex<HashMap<u64, Entry>>,
    next: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Connections {
    /// Gives a newcomer a place; none if everybody who could make room is being served.
    pub fn enter(self: &Arc<Self>, source: Source, now: Instant) -> Option<Place> {
        let mut entries = self.entries();
        let of_source = entries.values().filter(|it| it.source == source).count();
        let (reason, idle) = if of_source >= SHARE {
            (Refusal::Address, longest_idle(&entries, Some(source)))
        } else if entries.len() >= MOST {
            (Refusal::Full, longest_idle(&entries, None))
        } else {
            let go = Arc::new(Notify::new());
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let entry = Entry {
                source,
                busy: 0,
                served: 0,
                since: now,
                go: Arc::clone(&go),
            };
            entries.insert(number, entry);
            return Some(Place {
                connections: Arc::clone(self),
                number,
                go,
            });
        };
        self.refuse(reason);
        let gone = idle.and_then(|number| entries.remove(&number))?;
        gone.go.notify_one();
        drop(entries);
        self.enter(source, now)
    }

    /// Counts a connection that came to nothing.
    pub fn refuse(&self, reason: Refusal) {
        let place = Refusal::ALL.iter().position(|(known, _)| *known == reason);
        if let Some(count) = place.and_then(|place| self.refused.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.entries().len()
    }

    /// How many came to nothing, by reason.
    #[must_use]
    pub fn refused(&self) -> [u64; Refusal::ALL.len()] {
        self.refused
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed))
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, number: u64, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.entries().get_mut(&number).map(change)
    }
}

fn longest_idle(entries: &HashMap<u64, Entry>, source: Option<Source>) -> Option<u64> {
    entries
        .iter()
        .filter(|(_, entry)| entry.busy == 0 && source.is_none_or(|source| entry.source == source))
        .min_by_key(|(_, entry)| entry.since)
        .map(|(number, _)| *number)
}

/// The place of a connection, until it is dropped.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    number: u64,
    go: Arc<Notify>,
}

impl Place {
    /// Waits until the connection has to make room.
    pub async fn must_go(&self) {
        self.go.notified().await;
    }

    /// Waits until nothing was asked for `first` from the start on, or for `later` after that; tells whether nothing ever was.
    pub async fn idle(&self, first: Duration, later: Duration) -> bool {
        loop {
            let looked = self.connections.with(self.number, |entry| {
                let limit = if entry.served == 0 { first } else { later };
                let passed = entry.since.elapsed();
                let left = if entry.busy > 0 {
                    // It begins anew when the answer is given.
                    Some(limit)
                } else {
                    limit.checked_sub(passed).filter(|left| !left.is_zero())
                };
                (left, entry.served == 0)
            });
            match looked {
                Some((Some(left), _)) => tokio::time::sleep(left).await,
                Some((None, never)) => return never,
                None => return false,
            }
        }
    }

    /// Whether anything was answered.
    #[must_use]
    pub fn served(&self) -> bool {
        let served = self.connections.with(self.number, |entry| entry.served > 0);
        served.unwrap_or(true)
    }

    /// Notes that a request is being answered, until what is returned is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.connections.with(self.number, |entry| entry.busy += 1);
        Busy(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.entries().remove(&self.number);
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Busy(Arc<Place>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.connections.with(self.0.number, |entry| {
            entry.busy = entry.busy.saturating_sub(1);
            entry.served += 1;
            entry.since = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u8) -> Source {
        Source::of([192, 0, 2, number].into())
    }

    #[tokio::test]
    async fn who_is_idle_the_longest_makes_room_in_a_share() {
        let connections = Arc::new(Connections::default());
        let begin = Instant::now();
        let mut places: Vec<_> = (0..SHARE as u64)
            .map(|second| {
                let now = begin + Duration::from_secs(second);
                Arc::new(connections.enter(source(1), now).unwrap())
            })
            .collect();
        let _busy = places[0].begin();
        let later = begin + Duration::from_secs(1_000);
        let last = connections.enter(source(1), later).unwrap();
        assert_eq!(connections.open(), SHARE);
        assert_eq!(connections.refused(), [0, 1, 0, 0]);
        // The first is being served, so the second went.
        tokio::time::timeout(Duration::from_secs(1), places[1].must_go())
            .await
            .unwrap();
        drop(places.remove(1));
        assert_eq!(connections.open(), SHARE);
        drop(last);
        assert_eq!(connections.open(), SHARE - 1);
        // Others have their own share.
        assert!(connections.enter(source(2), later).is_some());
        assert_eq!(connections.refused(), [0, 1, 0, 0]);
    }

    #[test]
    fn all_places_are_bounded() {
        let connections = Arc::new(Connections::default());
        let now = Instant::now();
        let places: Vec<_> = (0..200_u8)
            .flat_map(|number| [number, number])
            .map(|number| Arc::new(connections.enter(source(number), now).unwrap()))
            .collect();
        assert_eq!(connections.open(), MOST);
        assert_eq!(connections.refused()[0], 400 - MOST as u64);
        // Those who went take nobody else's place with them.
        let busy: Vec<_> = places.iter().map(Place::begin).collect();
        assert!(connections.enter(source(250), now).is_none());
        drop(busy);
        drop(places);
        assert_eq!(connections.open(), 0);
    }

    #[tokio::test]
    async fn who_asks_nothing_is_told_from_who_pauses() {
        let connections = Arc::new(Connections::default());
        let short = Duration::from_millis(20);
        let long = Duration::from_millis(60);
        let place = Arc::new(connections.enter(source(1), Instant::now()).unwrap());
        assert!(place.idle(short, long).await && !place.served());
        drop(place.begin());
        let begin = Instant::now();
        assert!(!place.idle(short, long).await && place.served());
        assert!(begin.elapsed() >= Duration::from_millis(50));
    }
}
