//! The only part of a probe with sockets and clocks. What it sends goes to an [`Allowed`](super::bounds::Allowed)
//! address, which nobody but [`bounds`](super::bounds) can make, and to the resolvers.
//!
//! Everything of a run happens in one thread, on one event loop: a network namespace is a thread's own.

mod error_queue;
mod names;
pub mod namespace;
mod ping;
mod socket;
mod tcp;
mod tls;
mod udp;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::Probe;
use super::judge::{Heard, judge};
use super::pace::{Next, Pace};
use super::plan::{MOST_PROBES, Plan};
use super::question::{Question, Seed};
use super::result::Ended;
use crate::names::wall_time;

/// Questions of one probe over UDP or ICMP; packets get lost, and one that did is no news.
const QUESTIONS: u32 = 3;

/// How a run is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Probes a second, at least 1.
    pub rate: u32,
    /// How long each may take.
    pub timeout: Duration,
    /// Whom to ask for names; none: this host's own resolvers.
    pub resolvers: Vec<SocketAddr>,
    /// The `resolv.conf` that says who these are, where it is not `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
}

/// What a run found.
#[derive(Clone, Debug)]
pub struct Run {
    /// The probes, in the order in which they ended. Those that an interruption cut short are pending.
    pub ended: Vec<Ended>,
    /// When it began and ended, nanoseconds since the Unix epoch.
    pub span: [u64; 2],
    /// How many names were resolved, or were tried to.
    pub names: usize,
    /// Whether a signal ended it before all was tried.
    pub interrupted: bool,
}

/// Why a run can't be made, with the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// There is no such namespace, or it can't be opened.
    #[error(
        "{}: no network namespace can be opened there (`ip netns list` shows those with a name, /proc/PID/ns/net is a process's)", path.display()
    )]
    NoNamespace {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The namespace can't be entered.
    #[error(
        "{}: the network namespace can't be entered (that needs CAP_SYS_ADMIN: run as root)", path.display()
    )]
    Namespace {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: Errno,
    },
    /// More than anybody wants.
    #[error(
        "that would be {0} probes, and {MOST_PROBES} are the most: name rows by --requirement, or a role by --role"
    )]
    TooMany(usize),
    /// Something that the system always has.
    #[error("{action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> ProbeError {
    move |source| ProbeError::System { action, source }
}

/// Resolves the names of a plan and makes its probes, in this thread. `own` are the addresses of this host.
///
/// # Errors
/// [`ProbeError`]; what a probe meets is no error but its result.
pub fn run(plan: &mut Plan, settings: &Settings, own: &[IpAddr]) -> Result<Run, ProbeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(system("starting an event loop"))?;
    let run = runtime.block_on(all(plan, settings, own));
    // A look-up that is still waited for is of no use any more.
    runtime.shutdown_background();
    run
}

async fn all(plan: &mut Plan, settings: &Settings, own: &[IpAddr]) -> Result<Run, ProbeError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("waiting for signals"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system("waiting for signals"))?;
    let mut interrupted = Box::pin(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    let begun = epoch();
    let names = plan.names();
    let mut resolved = HashMap::new();
    let mut is_interrupted = tokio::select! {
        () = &mut interrupted => true,
        () = names::resolve(&names, settings, &mut resolved) => false,
    };
    let probes = plan.settle(&resolved);
    if probes.len() > MOST_PROBES {
        return Err(ProbeError::TooMany(probes.len()));
    }
    let mut run = Run {
        ended: Vec::new(),
        span: [begun, begun],
        names: resolved.len(),
        interrupted: false,
    };
    if !is_interrupted {
        let work = Work {
            plan,
            settings,
            own,
            tls: tls::configuration().map_err(|error| ProbeError::System {
                action: "setting up TLS",
                source: io::Error::other(error),
            })?,
        };
        let mut begun = HashMap::new();
        is_interrupted = tokio::select! {
            () = &mut interrupted => true,
            done = work.make(&probes, &mut begun, &mut run.ended) => {
                done?;
                false
            }
        };
        // What was sent was sent, even if nobody waited for the answer.
        let now = epoch();
        for (number, since) in begun {
            let probe = &probes[number];
            let heard = Heard::NotTried("interrupted before it was decided".to_owned());
            run.ended.push(work.judged(probe, &heard, [since, now]));
        }
    }
    run.interrupted = is_interrupted;
    run.span[1] = epoch();
    Ok(run)
}

struct Work<'a> {
    plan: &'a Plan,
    settings: &'a Settings,
    own: &'a [IpAddr],
    tls: Arc<rustls::ClientConfig>,
}

impl Work<'_> {
    async fn make(
        &self,
        probes: &[Probe],
        begun: &mut HashMap<usize, u64>,
        ended: &mut Vec<Ended>,
    ) -> Result<(), ProbeError> {
        let random = SystemRandom::new();
        let start = Instant::now();
        let targets = probes.iter().map(|probe| probe.target.address());
        let mut pace = Pace::new(targets, self.settings.rate);
        let mut running = JoinSet::new();
        loop {
            let now = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let wait = match pace.next(now) {
                Next::Begin(number) => {
                    let mut seed: Seed = [0; 32];
                    random.fill(&mut seed).map_err(|_| ProbeError::System {
                        action: "reading random numbers",
                        source: io::Error::other("the system gives none"),
                    })?;
                    begun.insert(number, epoch());
                    let probe = probes[number].clone();
                    let (timeout, tls) = (self.settings.timeout, Arc::clone(&self.tls));
                    running.spawn(async move {
                        let heard = one(&probe, timeout, &seed, tls).await;
                        (number, heard, epoch())
                    });
                    continue;
                }
                Next::WaitUntil(time) => Some(Duration::from_nanos(time - now)),
                Next::WaitForEnd => None,
                Next::Done if running.is_empty() => return Ok(()),
                Next::Done => None,
            };
            let pause = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(done) = running.join_next() => {
                    let (number, heard, over) = done.map_err(|error| ProbeError::System {
                        action: "waiting for a probe",
                        source: io::Error::other(error),
                    })?;
                    let since = begun.remove(&number).unwrap_or(over);
                    pace.ended(probes[number].target.address());
                    ended.push(self.judged(&probes[number], &heard, [since, over]));
                }
                () = pause => {}
            }
        }
    }

    fn judged(&self, probe: &Probe, heard: &Heard, span: [u64; 2]) -> Ended {
        let service = self.plan.rows[probe.row].services[probe.service].service;
        Ended {
            probe: probe.clone(),
            judged: judge(probe, service, self.own, heard),
            span,
        }
    }
}

async fn one(
    probe: &Probe,
    timeout: Duration,
    seed: &Seed,
    tls: Arc<rustls::ClientConfig>,
) -> Heard {
    let tried = match probe.question {
        Question::TcpConnect => tcp::connect(probe, timeout).await.map(|connected| {
            // Closed in the usual way when it is dropped.
            connected.map_or_else(|heard| heard, |_stream| Heard::Connected)
        }),
        Question::TlsHandshake => tls::handshake(probe, timeout, tls).await,
        Question::Echo => ping::ask(probe, timeout, seed).await,
        Question::Udp(question) => udp::ask(probe, question, timeout, seed).await,
    };
    tried.unwrap_or_else(|error| match error.raw_os_error() {
        Some(number) => Heard::Here(Errno::from_raw(number)),
        None => Heard::NotTried(error.to_string()),
    })
}

/// When to repeat a question: quickly at first, and early enough that the last one still has half of the time.
fn repetitions(timeout: Duration) -> [Duration; QUESTIONS as usize] {
    [0, 1, 2].map(|number| timeout * number / 4)
}

/// Nanoseconds since the Unix epoch.
fn epoch() -> u64 {
    wall_time::nanos(SystemTime::now())
}
