//! Who has a password, and whether it is the right one.
//!
//! A check by bcrypt is meant to be slow: 73 ms at the cost 10. So what was right is remembered, by a keyed digest and never
//! the password itself; one check runs at a time, on a thread where nobody waits for it, and after one that failed there is a
//! pause as long as it took. A crowd that guesses costs at most half a processor, and a scraper that was let in before does not
//! wait behind it. Whoever guesses has few tries: a bucket of them for each address and group of user names. User names are
//! grouped by a keyed digest, known or not, so that nobody learns from it which there are.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::HashParts;
use ring::digest::SHA256_OUTPUT_LEN;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::{Semaphore, oneshot};

use super::buckets::{Buckets, Rule};
use super::source::Source;

/// Costs that are taken. A check by the greatest takes about two seconds.
const COSTS: std::ops::RangeInclusive<u32> = 4..=15;
/// What stands in for the hash of a user that there is not, behind its cost; the hash of a text that nobody knows.
const NOBODY: &str = "QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";
/// Checks whose result is remembered, of either kind.
const REMEMBERED: usize = 1_024;
/// Checks that may wait for their turn.
const WAITING: usize = 32;
/// How long one may wait; then the client is told to come again.
const WAIT_LIMIT: Duration = Duration::from_secs(5);
/// Groups of user names of an address.
const GROUPS: u8 = 16;
/// Wrong passwords that a group may have.
pub(super) const TRIES: Rule = Rule {
    burst: 5,
    interval: Duration::from_secs(10),
};

/// Users and the hashes of their passwords.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Users {
    hashes: BTreeMap<String, String>,
    /// The greatest cost of them.
    cost: u32,
}

impl fmt::Debug for Users {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.hashes.keys()).finish()
    }
}

/// Why a text is no hash that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashError {
    /// It is no bcrypt hash.
    Form,
    /// It would take too long to check, or no time at all.
    Cost {
        /// Of the hash.
        cost: u32,
        /// The least that is taken.
        least: u32,
        /// The greatest that is taken.
        most: u32,
    },
}

impl Users {
    /// Adds a user; false if there is one of this name.
    ///
    /// # Errors
    /// [`HashError`] if the hash can't be checked.
    pub fn add(&mut self, name: &str, hash: &str) -> Result<bool, HashError> {
        let parts: HashParts = hash.parse().map_err(|_| HashError::Form)?;
        // An old mistake of one implementation, which nobody makes any more.
        if hash.starts_with("$2x$") {
            return Err(HashError::Form);
        }
        let cost = parts.get_cost();
        if !COSTS.contains(&cost) {
            let (least, most) = COSTS.into_inner();
            return Err(HashError::Cost { cost, least, most });
        }
        if self.hashes.contains_key(name) {
            return Ok(false);
        }
        self.hashes.insert(name.to_owned(), hash.to_owned());
        self.cost = self.cost.max(cost);
        Ok(true)
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The hash to check by, and whether the user exists. Nobody's takes as long as anybody's.
    fn hash_of(&self, name: &str) -> (String, bool) {
        match self.hashes.get(name) {
            Some(hash) => (hash.clone(), true),
            None => (format!("$2y${:02}${NOBODY}", self.cost), false),
        }
    }
}

/// What came of looking at a request's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The password is right.
    Right,
    /// There are none, or they can't be read.
    Missing,
    /// No such user, or another password.
    Wrong,
    /// Not looked at: too many were wrong before, or too many are looked at.
    Later,
}

/// Credentials of basic authentication (RFC 7617).
struct Credentials {
    name: String,
    password: Vec<u8>,
}

impl Credentials {
    fn read(header: &HeaderValue) -> Option<Self> {
        let (scheme, text) = header.to_str().ok()?.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let bytes = STANDARD.decode(text.trim()).ok()?;
        let colon = bytes.iter().position(|byte| *byte == b':')?;
        let name = std::str::from_utf8(&bytes[..colon]).ok()?.to_owned();
        Some(Self {
            name,
            password: bytes[colon + 1..].to_vec(),
        })
    }
}

type Digest = [u8; SHA256_OUTPUT_LEN];

/// Results of checks, the oldest of each kind forgotten first.
#[derive(Default)]
struct Known {
    right: Kept,
    wrong: Kept,
}

#[derive(Default)]
struct Kept {
    all: HashSet<Digest>,
    order: VecDeque<Digest>,
}

impl Kept {
    fn add(&mut self, digest: Digest) {
        if !self.all.insert(digest) {
            return;
        }
        self.order.push_back(digest);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

impl Known {
    fn result(&self, digest: &Digest) -> Option<bool> {
        if self.right.all.contains(digest) {
            Some(true)
        } else {
            self.wrong.all.contains(digest).then_some(false)
        }
    }
}

/// Whose failures are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Group {
    source: Source,
    names: u8,
}

/// Checks passwords; what it remembers outlives a change of the users, since it is of a hash.
pub struct Checker {
    key: hmac::Key,
    known: Mutex<Known>,
    tries: Mutex<Buckets<Group>>,
    turn: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl fmt::Debug for Checker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Checker").finish_non_exhaustive()
    }
}

impl Checker {
    /// With a key of its own.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new() -> Result<Self, std::io::Error> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| std::io::Error::other("the system has no random numbers"))?;
        Ok(Self {
            key,
            known: Mutex::default(),
            tries: Mutex::new(Buckets::new(TRIES)),
            turn: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Looks at what a request from `source` brings.
    pub async fn check(
        &self,
        users: &Users,
        source: Source,
        header: Option<&HeaderValue>,
    ) -> Check {
        let Some(credentials) = header.and_then(Credentials::read) else {
            return Check::Missing;
        };
        let (hash, exists) = users.hash_of(&credentials.name);
        let digest = self.digest(&credentials, &hash);
        let known = |digest| lock(&self.known).result(digest);
        if let Some(right) = known(&digest) {
            return result(right);
        }
        let group = Group {
            source,
            names: self.group(&credentials.name),
        };
        // A try is taken before the check, so that those that wait count too, and given back if it was right.
        if !lock(&self.tries).take(group, Instant::now()) {
            return Check::Later;
        }
        let give_back = || lock(&self.tries).give_back(group);
        let Some(_place) = self.place() else {
            give_back();
            return Check::Later;
        };
        let turn = tokio::time::timeout(WAIT_LIMIT, Arc::clone(&self.turn).acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            give_back();
            return Check::Later;
        };
        // Somebody may have brought the same meanwhile.
        if let Some(right) = known(&digest) {
            give_back();
            return result(right);
        }
        let (tell, told) = oneshot::channel();
        // On its own from here on: a client that hangs up does not save the pause.
        tokio::task::spawn_blocking(move || {
            let begin = Instant::now();
            let right = bcrypt::verify(&credentials.password, &hash).unwrap_or(false) && exists;
            let _ = tell.send(right);
            if !right {
                std::thread::sleep(begin.elapsed());
            }
            drop(turn);
        });
        // The runtime is ending.
        let Ok(right) = told.await else {
            return Check::Later;
        };
        if right {
            lock(&self.known).right.add(digest);
            give_back();
        } else {
            lock(&self.known).wrong.add(digest);
        }
        result(right)
    }

    fn digest(&self, credentials: &Credentials, hash: &str) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [credentials.name.as_bytes(), hash.as_bytes()] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        context.update(&credentials.password);
        let mut digest = [0; SHA256_OUTPUT_LEN];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    fn group(&self, name: &str) -> u8 {
        let tag = hmac::sign(&self.key, name.as_bytes());
        tag.as_ref().first().copied().unwrap_or_default() % GROUPS
    }

    /// A place among those that wait, until it is dropped.
    fn place(&self) -> Option<Place<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Place(&self.waiting);
        (before < WAITING).then_some(place)
    }
}

struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

const fn result(right: bool) -> Check {
    if right { Check::Right } else { Check::Wrong }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    /// The least cost, so that tests do not take long.
    fn users(all: &[(&str, &str)]) -> Users {
        let mut users = Users::default();
        for (name, password) in all {
            users
                .add(name, &bcrypt::hash(password, 4).unwrap())
                .unwrap();
        }
        users
    }

    fn basic(text: &str) -> HeaderValue {
        HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(text))).unwrap()
    }

    fn from(text: &str) -> Source {
        Source::of(text.parse::<IpAddr>().unwrap())
    }

    #[tokio::test]
    async fn passwords_are_checked_and_what_is_no_credential_is_told_apart() {
        let checker = Checker::new().unwrap();
        let users = users(&[("ann", "one"), ("bob", "t:wo")]);
        let check = async |text: &str, expect| {
            let header = HeaderValue::from_str(text).unwrap();
            let got = checker
                .check(&users, from("192.0.2.1"), Some(&header))
                .await;
            assert_eq!(got, expect, "{text}");
        };
        for _ in 0..2 {
            check(basic("ann:one").to_str().unwrap(), Check::Right).await;
            check(basic("bob:t:wo").to_str().unwrap(), Check::Right).await;
            check(basic("ann:t:wo").to_str().unwrap(), Check::Wrong).await;
            check(basic("cat:one").to_str().unwrap(), Check::Wrong).await;
        }
        check("basic  YW5uOm9uZQ== ", Check::Right).await;
        for text in ["Basic", "Basic !", "Basic YW5u", "Bearer YW5uOm9uZQ=="] {
            check(text, Check::Missing).await;
        }
        let none = checker.check(&users, from("192.0.2.1"), None).await;
        assert_eq!(none, Check::Missing);
    }

    #[tokio::test]
    async fn another_hash_is_another_password() {
        let checker = Checker::new().unwrap();
        let (before, after) = (users(&[("ann", "one")]), users(&[("ann", "two")]));
        let source = from("2001:db8::1");
        let one = basic("ann:one");
        assert_eq!(
            checker.check(&before, source, Some(&one)).await,
            Check::Right
        );
        assert_eq!(
            checker.check(&after, source, Some(&one)).await,
            Check::Wrong
        );
        assert_eq!(
            checker.check(&before, source, Some(&one)).await,
            Check::Right
        );
    }

    #[tokio::test]
    async fn whoever_guesses_has_few_tries_and_others_are_let_in() {
        let checker = Checker::new().unwrap();
        let users = users(&[("ann", "one"), ("bob", "two")]);
        let bad = from("192.0.2.66");
        let known = basic("bob:two");
        assert_eq!(checker.check(&users, bad, Some(&known)).await, Check::Right);
        let mut wrong = 0;
        for number in 0..1_000 {
            let guess = basic(&format!("ann:guess {number}"));
            match checker.check(&users, bad, Some(&guess)).await {
                Check::Wrong => wrong += 1,
                Check::Later => {}
                other @ (Check::Right | Check::Missing) => panic!("{other:?}"),
            }
        }
        assert!((5..=7).contains(&wrong), "{wrong}");
        // From there nobody new gets in as that user, not even with the right password; those that are known do.
        let right = basic("ann:one");
        assert_eq!(checker.check(&users, bad, Some(&right)).await, Check::Later);
        assert_eq!(checker.check(&users, bad, Some(&known)).await, Check::Right);
        // From elsewhere all do.
        let good = from("192.0.2.7");
        assert_eq!(
            checker.check(&users, good, Some(&right)).await,
            Check::Right
        );
        // What is known to be wrong costs no try.
        let guess = basic("ann:guess 0");
        assert_eq!(checker.check(&users, bad, Some(&guess)).await, Check::Wrong);
    }

    #[test]
    fn a_user_that_there_is_not_takes_as_long() {
        let mut users = users(&[("ann", "one")]);
        users.add("bob", &bcrypt::hash("two", 6).unwrap()).unwrap();
        let (hash, exists) = users.hash_of("cat");
        assert!(!exists && hash.starts_with("$2y$06$"), "{hash}");
        assert!(!bcrypt::verify("fakepassword ", &hash).unwrap());
    }

    #[test]
    fn hashes_that_can_not_be_checked_are_refused() {
        let mut users = Users::default();
        let hash = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";
        let cost = |cost| HashError::Cost {
            cost,
            least: 4,
            most: 15,
        };
        for (text, expect) in [
            ("secret", HashError::Form),
            ("", HashError::Form),
            (&hash.replace("2y", "2x"), HashError::Form),
            (&hash.replace("$10$", "$16$"), cost(16)),
            (&hash.replace("$10$", "$03$"), cost(3)),
        ] {
            assert_eq!(users.add("ann", text), Err(expect), "{text}");
        }
        assert!(users.is_empty());
        assert_eq!(users.add("ann", hash), Ok(true));
        assert_eq!(users.add("ann", hash), Ok(false));
        assert!(!format!("{users:?}").contains("QOau"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut kept = Kept::default();
        for number in 0..2 * REMEMBERED {
            let mut digest = [0; SHA256_OUTPUT_LEN];
            digest[..8].copy_from_slice(&number.to_be_bytes());
            kept.add(digest);
            kept.add(digest);
        }
        assert_eq!((kept.all.len(), kept.order.len()), (REMEMBERED, REMEMBERED));
    }
}
