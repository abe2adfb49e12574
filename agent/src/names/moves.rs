//! Tells a name that has moved from one that merely rotates. Addresses behind names change all the time, mostly within a
//! set; what an operator must hear of is that none of the known ones is left, because firewalls keep the old ones.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::answer::Name;

/// An address counts as known for this many times its time to live after it was last seen.
const WINDOWS: u32 = 3;
/// A shorter time to live counts as this one, since nobody looks more often.
const SHORTEST: Duration = Duration::from_secs(30);
/// Most addresses known of a name; the oldest go first.
const MOST_KNOWN: usize = 256;
/// Moves without as many quiet answers between them that make a name a rotating one.
const RESTLESS: u8 = 3;

/// What is new about a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// None of the known addresses is left (of IPv4, or of IPv6).
    Moved {
        /// The addresses of the answer before.
        from: Vec<IpAddr>,
        /// The addresses now.
        to: Vec<IpAddr>,
    },
    /// Other addresses than before, some of them known; or the next move of a name that moves all the time.
    Rotated {
        /// The addresses now.
        to: Vec<IpAddr>,
    },
    /// The name has moved so often that it must be behind a large pool; from now on its moves are rotation.
    Restless,
    /// It has not resolved since it is asked for.
    Missing,
    /// It resolved before and does not any more.
    Stopped {
        /// The addresses that it had.
        from: Vec<IpAddr>,
    },
    /// It did not resolve and now does.
    Resolves {
        /// The addresses that it had before, if it ever had.
        from: Vec<IpAddr>,
        /// The addresses now.
        to: Vec<IpAddr>,
    },
}

/// What is known of one name.
#[derive(Debug, Default)]
struct Past {
    /// Addresses and when they are forgotten.
    known: Vec<(IpAddr, Instant)>,
    /// The addresses of the last answer that had any, sorted.
    last: Vec<IpAddr>,
    resolves: bool,
    /// Goes up with each move and down with each quiet answer.
    unrest: u8,
    restless: bool,
}

/// What is known of all names that are asked for.
#[derive(Debug, Default)]
pub struct Moves {
    names: HashMap<Name, Past>,
}

impl Moves {
    /// Takes what an answer says: the addresses of both IP versions with their seconds to live, or none for a name
    /// that does not resolve. `None` where nothing is new, and for a name's first addresses.
    pub fn observe(
        &mut self,
        name: &Name,
        addresses: &[(IpAddr, u32)],
        now: Instant,
    ) -> Option<Change> {
        let first = !self.names.contains_key(name);
        let past = self.names.entry(name.clone()).or_default();
        if addresses.is_empty() {
            let resolved = std::mem::replace(&mut past.resolves, false);
            return if first {
                Some(Change::Missing)
            } else if resolved {
                let from = past.last.clone();
                Some(Change::Stopped { from })
            } else {
                None
            };
        }
        let mut to: Vec<IpAddr> = addresses.iter().map(|(address, _)| *address).collect();
        to.sort_unstable();
        to.dedup();
        // Those of the last answer stay known however long ago it was: without them nothing could be compared.
        past.known
            .retain(|(address, until)| *until > now || past.last.binary_search(address).is_ok());
        let moved = past.has_moved(&to);
        past.learn(addresses, now);
        let from = std::mem::replace(&mut past.last, to.clone());
        let resolved = std::mem::replace(&mut past.resolves, true);
        if first {
            return None;
        }
        if !resolved {
            return Some(Change::Resolves { from, to });
        }
        if moved {
            past.unrest = (past.unrest + 1).min(RESTLESS);
        } else {
            past.unrest = past.unrest.saturating_sub(1);
        }
        if past.unrest == 0 {
            past.restless = false;
        }
        if moved && !past.restless && past.unrest == RESTLESS {
            past.restless = true;
            return Some(Change::Restless);
        }
        if moved && !past.restless {
            return Some(Change::Moved { from, to });
        }
        (from != to).then_some(Change::Rotated { to })
    }

    /// Forgets the names that are not asked for any more.
    pub fn retain(&mut self, mut keep: impl FnMut(&Name) -> bool) {
        self.names.retain(|name, _| keep(name));
    }
}

impl Past {
    /// Whether an IP version has addresses, had some, and shares none with them. A version that comes or goes does not
    /// move.
    fn has_moved(&self, to: &[IpAddr]) -> bool {
        [IpAddr::is_ipv4, IpAddr::is_ipv6]
            .into_iter()
            .any(|version| {
                let mut new = to.iter().filter(|address| version(address)).peekable();
                let mut known = self
                    .known
                    .iter()
                    .map(|(address, _)| address)
                    .filter(|address| version(address))
                    .peekable();
                new.peek().is_some()
                    && known.peek().is_some()
                    && !known.any(|address| to.binary_search(address).is_ok())
            })
    }

    fn learn(&mut self, addresses: &[(IpAddr, u32)], now: Instant) {
        for (address, ttl) in addresses {
            let window = Duration::from_secs(u64::from(*ttl)).max(SHORTEST);
            let until = now + window * WINDOWS;
            match self.known.iter_mut().find(|(known, _)| known == address) {
                Some((_, known_until)) => *known_until = until,
                None => self.known.push((*address, until)),
            }
        }
        if self.known.len() > MOST_KNOWN {
            self.known
                .sort_unstable_by_key(|(_, until)| std::cmp::Reverse(*until));
            self.known.truncate(MOST_KNOWN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Watched {
        moves: Moves,
        start: Instant,
    }

    impl Watched {
        fn new() -> Self {
            Self {
                moves: Moves::default(),
                start: Instant::now(),
            }
        }

        /// The kind of change and the addresses before and after.
        fn at(&mut self, second: u64, addresses: &[&str]) -> String {
            let addresses: Vec<_> = addresses
                .iter()
                .map(|text| (text.parse().unwrap(), 60))
                .collect();
            let now = self.start + Duration::from_secs(second);
            let list = |addresses: Vec<IpAddr>| {
                let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                texts.join(",")
            };
            match self
                .moves
                .observe(&Name::from("a.example"), &addresses, now)
            {
                None => String::new(),
                Some(Change::Moved { from, to }) => format!("moved {} > {}", list(from), list(to)),
                Some(Change::Rotated { to }) => format!("rotated > {}", list(to)),
                Some(Change::Restless) => "restless".to_owned(),
                Some(Change::Missing) => "missing".to_owned(),
                Some(Change::Stopped { from }) => format!("stopped {}", list(from)),
                Some(Change::Resolves { from, to }) => {
                    format!("resolves {} > {}", list(from), list(to))
                }
            }
        }
    }

    #[test]
    fn a_name_moves_when_no_known_address_is_left() {
        let mut name = Watched::new();
        assert_eq!(name.at(0, &["192.0.2.1", "192.0.2.2"]), "");
        assert_eq!(name.at(60, &["192.0.2.2", "192.0.2.1"]), "");
        assert_eq!(
            name.at(120, &["192.0.2.2", "192.0.2.3"]),
            "rotated > 192.0.2.2,192.0.2.3"
        );
        // 192.0.2.1 is known for three times its minute.
        assert_eq!(name.at(180, &["192.0.2.1"]), "rotated > 192.0.2.1");
        assert_eq!(
            name.at(240, &["198.51.100.1"]),
            "moved 192.0.2.1 > 198.51.100.1"
        );
        assert_eq!(name.at(300, &["198.51.100.1"]), "");
    }

    #[test]
    fn what_was_not_seen_for_long_is_a_move_back() {
        let mut name = Watched::new();
        name.at(0, &["192.0.2.1"]);
        assert_eq!(name.at(60, &["192.0.2.2"]), "moved 192.0.2.1 > 192.0.2.2");
        for second in [120, 180] {
            assert_eq!(name.at(second, &["192.0.2.2"]), "");
        }
        assert_eq!(name.at(181, &["192.0.2.1"]), "moved 192.0.2.2 > 192.0.2.1");
        // However long nobody looked, the last answer is what counts.
        assert_eq!(name.at(100_000, &["192.0.2.1"]), "");
    }

    #[test]
    fn each_ip_version_moves_on_its_own() {
        let mut name = Watched::new();
        name.at(0, &["192.0.2.1"]);
        assert_eq!(
            name.at(60, &["192.0.2.1", "2001:db8::1"]),
            "rotated > 192.0.2.1,2001:db8::1"
        );
        assert_eq!(
            name.at(120, &["192.0.2.9", "2001:db8::1"]),
            "moved 192.0.2.1,2001:db8::1 > 192.0.2.9,2001:db8::1"
        );
        assert_eq!(name.at(180, &["192.0.2.9"]), "rotated > 192.0.2.9");
    }

    #[test]
    fn a_name_that_always_moves_is_said_to_once() {
        let mut name = Watched::new();
        let mut said = Vec::new();
        for turn in 0..50_u64 {
            said.push(name.at(turn * 60, &[&format!("192.0.2.{turn}")]));
        }
        assert!(said[1].starts_with("moved") && said[2].starts_with("moved"));
        assert_eq!(said[3], "restless");
        assert!(said[4..].iter().all(|change| change.starts_with("rotated")));
        // Once it has come to rest, the next move counts again.
        for turn in 50..53 {
            assert_eq!(name.at(turn * 60, &["192.0.2.49"]), "");
        }
        assert!(name.at(3_300, &["198.51.100.1"]).starts_with("moved"));
    }

    #[test]
    fn a_name_stops_resolving_and_comes_back() {
        let mut name = Watched::new();
        assert_eq!(name.at(0, &[]), "missing");
        assert_eq!(name.at(30, &[]), "");
        assert_eq!(name.at(60, &["192.0.2.1"]), "resolves  > 192.0.2.1");
        assert_eq!(name.at(120, &[]), "stopped 192.0.2.1");
        assert_eq!(name.at(180, &[]), "");
        assert_eq!(
            name.at(240, &["192.0.2.2"]),
            "resolves 192.0.2.1 > 192.0.2.2"
        );
    }

    #[test]
    fn memory_is_bounded_and_names_are_forgotten() {
        let mut moves = Moves::default();
        let name = Name::from("a.example");
        let now = Instant::now();
        for third in 0..10_u8 {
            let addresses: Vec<_> = (0..=255)
                .map(|last| (IpAddr::from([10, 0, third, last]), 3_600))
                .collect();
            moves.observe(&name, &addresses, now);
        }
        assert_eq!(moves.names[&name].known.len(), MOST_KNOWN);
        moves.retain(|_| false);
        assert!(moves.names.is_empty());
    }
}
