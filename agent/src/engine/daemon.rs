//! Starts and ends the daemon in the right order. Whatever can be refused is tried before anything is attached: files,
//! then ports, then interfaces, then the capture. A start that fails leaves nothing behind, a reload that fails leaves
//! what was.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};

use super::actor::{CommandError, Engine, Start};
use super::draft;
use super::evidence::{Book, Evidence};
use super::health::{CaptureState, Health};
use super::links::{self, Wanted};
use super::name_file;
use super::policy::{self, Policy, PolicyError};
use super::resolver::{Resolution, exact_names};
use super::sight;
use crate::capture::interfaces::{self, LinkWatch, Selection};
use crate::capture::open::Opened;
use crate::capture::{CaptureError, Interface};
use crate::config::{CaptureConfig, Config, Conflict, NamesConfig};
use crate::draft::DraftError;
use crate::events::{Body, Events, Feed, StartError, Teller};
use crate::finding::{Findings, Severity};
use crate::ledger::{LedgerError, Remembered as Evident};
use crate::matrix::installed::{Installed, SlotDirectory};
use crate::names;
use crate::names::answer::Answer;
use crate::names::book::{self, Remembered};
use crate::names::wall_time;
use crate::privilege::{self, OutOfReach};
use crate::service::{self, Beat, Manager};
use crate::site::tags::TagReading;
use crate::verdict::window::Absence;
use crate::web::{self, BindError, Door, Exposure, Gate, GateError, Listener};
use crate::yaml::LoadError;

/// How long the end may take in all; a service manager that waits must not be kept waiting.
const END_LIMIT: Duration = Duration::from_millis(4_500);
/// Pause before this host's new addresses are taken: they come one by one.
const ADDRESSES_SETTLE: Duration = Duration::from_secs(1);
/// How often names are kept, for a daemon that is killed.
const KEEP_NAMES: Duration = Duration::from_secs(60);
/// How often is looked whether this host forwards, bridges or listens to others.
const LOOK_AROUND: Duration = Duration::from_secs(10);
/// How long that may take at the end.
const KEEP_LIMIT: Duration = Duration::from_millis(1_500);
/// How long destinations may take for the last events.
const EVENTS_LIMIT: Duration = Duration::from_millis(1_000);
/// How long the last write of the ledger may take.
const LEDGER_LIMIT: Duration = Duration::from_millis(1_500);

/// Answers that wait until the engine takes them; then the asking waits.
const ANSWERS: usize = 64;

/// Opens the back end that a configuration asks for, with tables for a matrix.
pub type Opener = fn(&CaptureConfig, &names::Settings, &Installed) -> Result<Opened, CaptureError>;

/// Where the configuration comes from, at the start and at every reload.
#[derive(Clone)]
pub struct ConfigSource {
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    /// What the flags override.
    pub overrides: Arc<dyn Fn(&mut Config) + Send + Sync>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The file has errors.
    #[error("the configuration has errors")]
    Findings(Box<Findings>),
    /// Two values can't go together.
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

impl ConfigSource {
    /// Reads the file and applies the flags.
    ///
    /// # Errors
    /// [`ConfigError`]; all errors of the file are found in one go.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.path {
            None => Config::default(),
            Some(path) => {
                let reading = Config::read(path)?;
                reading
                    .config
                    .ok_or(ConfigError::Findings(Box::new(reading.findings)))?
            }
        };
        (self.overrides)(&mut config);
        config.check()?;
        Ok(config)
    }
}

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// There is nothing to judge by.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Nobody knows who may ask the web server.
    #[error(transparent)]
    Web(#[from] GateError),
    /// An address can't be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The capture can't begin.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// There is a draft, and it can't be judged by.
    #[error("the draft: {0}")]
    Draft(#[from] DraftError),
    /// Events can't be told.
    #[error(transparent)]
    Events(#[from] StartError),
    /// The ledger must not be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The system refused something that every program gets.
    #[error("{action}: {source}")]
    System {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A second signal came while the daemon was ending.
    #[error("ended at once, as a second signal asked")]
    Impatient,
}

/// The signals that mean something to the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, DaemonError> {
        let listen = |kind| {
            signal(kind).map_err(|source| DaemonError::System {
                action: "listening for signals",
                source,
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs until a signal ends it, and tells `events` what happens. Must be called within a tokio runtime with I/O and time.
///
/// # Errors
/// [`DaemonError`] if it can't start; then nothing is left behind.
pub async fn run(
    config: Config,
    source: ConfigSource,
    open: Opener,
    events: Option<Events>,
) -> Result<(), DaemonError> {
    // First, so that a signal during the start is not the end of a half-started daemon.
    let mut signals = Signals::new()?;
    let manager = Manager::of_environment();
    let own = interfaces::own_addresses()?;
    let policy = load_policy(&config, &own)?;
    report_policy(&policy);
    let gate = Gate::open(config.web.config.as_deref())?;
    let listeners = config
        .web
        .listen
        .iter()
        .map(|address| web::bind(*address))
        .collect::<Result<Vec<Listener>, BindError>>()?;
    let site = Arc::new(web::Site::new(Arc::new(Health::default()), gate));
    let (stop, stopped) = watch::channel(false);
    let expose_flows = config.web.expose_flows;
    let pages: Vec<String> = listeners
        .iter()
        .map(|listener| address_of(listener, &site.gate, expose_flows))
        .collect();
    let beats: Vec<Arc<Beat>> = listeners.iter().map(|_| Arc::default()).collect();
    let servers: Vec<_> = listeners
        .into_iter()
        .zip(&beats)
        .map(|(listener, beat)| {
            let exposure = Exposure::of(listener.address);
            if exposure == Exposure::Network {
                warn_exposed(&listener, &site.gate, expose_flows);
            }
            let door = Door::new(&site, exposure, expose_flows);
            let serve = web::serve(listener, door, stopped.clone());
            tokio::spawn(service::beating(Arc::clone(beat), serve))
        })
        .collect();
    let mut daemon = match start(
        config,
        source,
        (&policy, own),
        open,
        Arc::clone(&site),
        events.as_ref(),
    ) {
        Ok(daemon) => daemon,
        Err(error) => {
            for server in servers {
                server.abort();
            }
            return Err(error);
        }
    };
    privilege::seal();
    let watching = format!(
        "watching {} by {} ({}); judging by {}",
        daemon.interfaces,
        daemon.backend,
        daemon.why,
        summary(&policy)
    );
    daemon.tell(|| Body::started(daemon.backend, &watching));
    tracing::info!(
        "{watching}; {}",
        if pages.is_empty() {
            "no page: `web: {listen: [...]}` is empty".to_owned()
        } else {
            format!("look at {}", pages.join(" and "))
        }
    );
    keep_tags(&policy.tags);
    drop(policy);
    manager.ready(&watching);
    let (evidence, health) = (&daemon.evidence, &daemon.site.health);
    let told = tokio::spawn(manager.follow(Arc::clone(evidence), Arc::clone(health), beats));
    daemon.serve(&mut signals, manager).await;
    told.abort();
    manager.stopping();
    tracing::info!("ending");
    daemon.site.health.set_capture(CaptureState::Stopping);
    daemon.resolution = None;
    let _ = stop.send(true);
    let on_exit = daemon.config.capture.ebpf.on_exit;
    let end = async {
        // The programs must come off even where the disk is stuck.
        if tokio::time::timeout(KEEP_LIMIT, daemon.keep_names())
            .await
            .is_err()
        {
            tracing::warn!("names were not kept in time");
        }
        daemon.evidence.finish(LEDGER_LIMIT).await;
        if let Err(error) = daemon.engine.stop(on_exit).await {
            tracing::error!("{error}; what is attached may stay: `flowproof detach` removes it");
        }
        daemon.tell(|| Body::DaemonStopping);
        if let Some(events) = &events
            && !events.finish(EVENTS_LIMIT).await
        {
            tracing::warn!("not all events were taken in time");
        }
        for server in servers {
            let _ = server.await;
        }
    };
    tokio::select! {
        ended = tokio::time::timeout(END_LIMIT, end) => {
            if ended.is_err() {
                tracing::warn!("not everything ended in time");
            }
            Ok(())
        }
        () = signals.end() => Err(DaemonError::Impatient),
    }
}

fn address_of(listener: &Listener, gate: &Gate, expose_flows: bool) -> String {
    let settings = &gate.in_force().settings;
    let scheme = if settings.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let all = settings.authenticates() || expose_flows;
    match Exposure::of(listener.address) {
        Exposure::Network if !all => format!("{scheme}://{}/metrics", listener.address),
        Exposure::Loopback | Exposure::Network => format!("{scheme}://{}/", listener.address),
    }
}

fn warn_exposed(listener: &Listener, gate: &Gate, expose_flows: bool) {
    let settings = &gate.in_force().settings;
    let address = listener.address;
    if settings.users.is_some() && settings.tls.is_none() {
        tracing::warn!(
            "{address} can be reached from other hosts, and passwords go there in the clear: add `tls_server_config` to the web \
             configuration"
        );
    }
    if settings.authenticates() {
        return;
    }
    if expose_flows {
        tracing::warn!(
            "{address} can be reached from other hosts, and there is no authentication: anybody sees flows with their addresses \
             there, as `web: {{expose_flows: true}}` or --web-expose-flows says; name users or client certificates in a web \
             configuration (`web: {{config: FILE}}` or --web-config) instead"
        );
    } else {
        tracing::warn!(
            "{address} can be reached from other hosts, and there is no authentication: only metrics and health are served \
             there; name users or client certificates in a web configuration (`web: {{config: FILE}}` or --web-config), or listen \
             on 127.0.0.1"
        );
    }
}

fn load_policy(config: &Config, own: &[IpAddr]) -> Result<Policy, PolicyError> {
    policy::load(
        &config.matrix,
        config.site.as_deref(),
        &config.tag_options(),
        own,
    )
}

/// Keeps the tag files that are in force now, so that the next start has them.
fn keep_tags(tags: &TagReading) {
    if let Err(error) = tags.keep() {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!("{error} ({})", cause.unwrap_or_default());
    }
}

/// The names that were kept before this start. Without them, names are learned anew.
fn kept_names(state: &Path) -> Vec<Remembered> {
    name_file::load(&name_file::path(state)).unwrap_or_else(|error| {
        tracing::warn!("{error}; names are learned anew, and the file is replaced");
        Vec::new()
    })
}

/// Says what the files leave open. Errors never get here.
fn report_policy(policy: &Policy) {
    for finding in policy.findings.as_slice() {
        match finding.severity {
            Severity::Error | Severity::Warning => tracing::warn!("{finding}"),
            Severity::Note => tracing::debug!("{finding}"),
        }
    }
    if policy.unbound {
        tracing::warn!(
            "no role is bound to an address, so every flow is unscoped: give a site with --site or `site:`"
        );
    }
}

fn summary(policy: &Policy) -> String {
    let matrix = &policy.compiled.matrix;
    let requirements: usize = matrix
        .systems
        .iter()
        .map(|system| system.requirements.len())
        .sum();
    let services = matrix.services().count();
    format!(
        "{requirements} requirement{} ({} service{}) of {}{}",
        plural(requirements),
        services,
        plural(services),
        match matrix.systems.as_slice() {
            [system] => system.id.to_string(),
            systems => format!("{} systems", systems.len()),
        },
        if policy.built_in {
            ", the built-in matrix"
        } else {
            ""
        }
    )
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn selection(config: &Config, policy: &Policy) -> Selection {
    Selection {
        patterns: config.capture.interfaces.clone(),
        loopback: policy.loopback,
    }
}

/// The daemon once it judges traffic.
struct Daemon {
    config: Config,
    source: ConfigSource,
    site: Arc<web::Site>,
    /// Where events go in, if somebody wants to hear them.
    feed: Option<Feed>,
    engine: Engine,
    evidence: Arc<Evidence>,
    matrix: Arc<Installed>,
    wanted: Arc<Wanted>,
    /// Told when this host's addresses may have changed.
    addresses_changed: Arc<Notify>,
    own: Vec<IpAddr>,
    /// What the site says is seen from here.
    observe: Vec<IpNet>,
    /// What is seen from here by all that is known, when it was looked at last.
    sight: Option<Vec<IpNet>>,
    built_in: bool,
    /// Asks for names, if it is to.
    resolution: Option<Resolution>,
    /// Where its answers go.
    answers: mpsc::Sender<Answer>,
    /// Where names were kept last, and what the book was then.
    kept: Option<(PathBuf, book::Counts)>,
    /// Whether keeping them failed last time.
    keeping_failed: bool,
    /// Held while they are written: a write outlives whoever waits for it.
    keeping: Arc<Mutex<()>>,
    interfaces: String,
    backend: &'static str,
    why: String,
}

/// From the interfaces on, everything that a failure takes back by itself.
fn start(
    config: Config,
    source: ConfigSource,
    (policy, own): (&Policy, Vec<IpAddr>),
    open: Opener,
    site: Arc<web::Site>,
    events: Option<&Events>,
) -> Result<Daemon, DaemonError> {
    let watch = LinkWatch::new()?;
    let links = interfaces::list()?;
    let selection = selection(&config, policy);
    selection.check(&links)?;
    let draft = draft::load(&config, policy, &own)?;
    let book = if config.ledger.enabled {
        // Its thread handles one file, and needs no more.
        privilege::bare(|| Book::open(&config.state_directory, config.ledger_limits()))?
    } else {
        (Book::default(), Evident::default())
    };
    let chosen = selection.choose(&links);
    let fresh = Installed::new(Arc::clone(&policy.compiled), SlotDirectory::default());
    let Opened {
        capture,
        directory,
        why,
    } = open(
        &config.capture,
        &names::Settings::from(&config.names),
        &fresh,
    )?;
    // What was counted while no daemon ran counts.
    let (matrix, absence) = if directory.is_empty() {
        (fresh, Absence::Unwatched)
    } else {
        let matrix = Installed::new(Arc::clone(&policy.compiled), directory);
        (matrix, Absence::Counted)
    };
    let matrix = Arc::new(matrix);
    let backend = capture.backend().name();
    let interfaces = names(&chosen);
    let (engine, _thread) = Engine::start(Start {
        capture,
        matrix: Arc::clone(&matrix),
        interfaces: chosen,
        names: kept_names(&config.state_directory),
        needed: &|interface| selection.names(interface),
        consumers: Vec::new(),
        health: Arc::clone(&site.health),
    })?;
    site.health.matrix_loaded(SystemTime::now());
    let feed = events.map(Events::feed);
    if let Some(feed) = &feed {
        feed.set_site(&policy.site);
    }
    let teller = events.map(|events| {
        let now = wall_time::nanos(SystemTime::now());
        Teller::new(events.feed(), events.interval(), &book.1, now)
    });
    let evidence = Evidence::new(engine.clone(), book, config.ledger.window, absence);
    let evidence = Arc::new(evidence.telling(teller));
    evidence.set_draft(draft);
    evidence.set_site(&policy.site);
    site.set_tags(policy.tags.status.clone());
    // Set once: nobody else has the cell.
    let _ = site.evidence.set(Arc::clone(&evidence));
    let wanted = Arc::new(Wanted::new(selection));
    let addresses_changed = Arc::new(Notify::new());
    tokio::spawn(links::follow(
        watch,
        Arc::clone(&wanted),
        engine.clone(),
        Arc::clone(&addresses_changed),
    ));
    let (answers, heard) = mpsc::channel(ANSWERS);
    tokio::spawn(deliver(heard, engine.clone()));
    let mut daemon = Daemon {
        config,
        source,
        site,
        feed,
        engine,
        evidence,
        matrix,
        wanted,
        addresses_changed,
        own,
        observe: policy.observe.clone(),
        sight: None,
        built_in: policy.built_in,
        resolution: None,
        answers,
        kept: None,
        keeping_failed: false,
        keeping: Arc::default(),
        interfaces,
        backend,
        why,
    };
    daemon.look_around();
    daemon.ask_for_names();
    tokio::spawn(Arc::clone(&daemon.evidence).follow());
    Ok(daemon)
}

/// Hands on what resolvers answered.
async fn deliver(mut heard: mpsc::Receiver<Answer>, engine: Engine) {
    while let Some(answer) = heard.recv().await {
        tracing::debug!(
            "asked for {} ({:?}): {:?}, {} addresses",
            answer.question,
            answer.kind,
            answer.result,
            answer.addresses.len()
        );
        engine.learn(answer);
    }
}

fn names(interfaces: &[Interface]) -> String {
    if interfaces.is_empty() {
        return "no interface yet".to_owned();
    }
    interfaces
        .iter()
        .map(|interface| interface.name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Why a reload left everything as it was.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Install(#[from] CommandError),
    #[error("the draft: {0}")]
    Draft(#[from] DraftError),
    #[error(transparent)]
    OutOfReach(#[from] OutOfReach),
    #[error("reading the matrix was broken off")]
    BrokenOff,
}

impl Daemon {
    /// Until a signal to end comes.
    async fn serve(&mut self, signals: &mut Signals, manager: Manager) {
        let first = tokio::time::Instant::now() + KEEP_NAMES;
        let mut keep_names = tokio::time::interval_at(first, KEEP_NAMES);
        keep_names.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut look_around = tokio::time::interval(LOOK_AROUND);
        look_around.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let addresses_changed = Arc::clone(&self.addresses_changed);
            let Signals {
                terminate,
                interrupt,
                hang_up,
            } = signals;
            let work = async {
                tokio::select! {
                    _ = hang_up.recv() => {
                        manager.reloading();
                        self.site.gate.reload().await;
                        let said = self.reload().await;
                        manager.reloaded(&said);
                    }
                    () = addresses_changed.notified() => self.follow_addresses().await,
                    _ = keep_names.tick() => self.keep_names().await,
                    _ = look_around.tick() => self.look_around(),
                }
            };
            // A reload under way does not keep the daemon from ending.
            tokio::select! {
                () = work => {}
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
            }
        }
    }

    fn tell(&self, body: impl FnOnce() -> Body) {
        if let Some(feed) = &self.feed {
            feed.send_now(body());
        }
    }

    /// Finds out whose traffic comes by, which the host's role decides unless the site says it.
    fn look_around(&mut self) {
        let facts = sight::Facts::read().unwrap_or_default();
        let own = interfaces::own_addresses().unwrap_or_default();
        let now = sight::effective(&self.observe, &facts, &own);
        self.evidence.set_sight(now.clone(), own);
        if self.sight.as_ref() == Some(&now) {
            return;
        }
        let only_own = self.observe.is_empty() && !now.is_empty();
        let before = self.sight.replace(now.clone());
        // Addresses come and go; that alone is no news.
        if before.is_none_or(|before| before.is_empty() == only_own) {
            if only_own {
                tracing::info!(
                    "this host neither forwards nor bridges, and no interface is promiscuous: rows between other hosts are \
                     unobservable until a flow shows otherwise; `observe:` in the site file says what comes by here"
                );
            } else {
                tracing::debug!("what is seen from here: {now:?}; nothing means all");
            }
        }
    }

    /// Keeps the names that are known, unless nothing changed since they were kept last. What fails is said once.
    async fn keep_names(&mut self) {
        let path = name_file::path(&self.config.state_directory);
        let before = self.kept.as_ref().filter(|(kept, _)| *kept == path);
        let Ok(Some(now)) = self.engine.names(before.map(|(_, book)| *book)).await else {
            return;
        };
        let (file, turn) = (path.clone(), Arc::clone(&self.keeping));
        let written = tokio::task::spawn_blocking(move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            name_file::keep(&file, &now.names)
        });
        match written.await {
            Ok(Ok(())) => {
                self.kept = Some((path, now.book));
                self.keeping_failed = false;
            }
            Ok(Err(error)) => {
                if !self.keeping_failed {
                    tracing::warn!("{error}");
                }
                self.keeping_failed = true;
            }
            // The runtime is ending.
            Err(_) => {}
        }
    }

    /// Binds the built-in matrix anew when this host has other addresses. Files name addresses themselves.
    async fn follow_addresses(&mut self) {
        if !self.built_in {
            return;
        }
        tokio::time::sleep(ADDRESSES_SETTLE).await;
        if interfaces::own_addresses().is_ok_and(|own| own != self.own) {
            tracing::info!("this host's addresses changed: binding the built-in matrix anew");
            self.reload().await;
        }
    }

    /// Reads everything again; on any error what is in force stays in force. Says how it went.
    async fn reload(&mut self) -> String {
        match self.try_reload().await {
            Ok(text) => {
                self.site.health.matrix_loaded(SystemTime::now());
                self.tell(|| Body::MatrixReloaded {
                    summary: text.clone(),
                });
                let said = format!("reloaded: judging by {text}");
                tracing::info!("{said}");
                said
            }
            Err(error) => {
                self.site.health.reload_failed();
                let mut problems = Vec::new();
                if let ReloadError::Config(ConfigError::Findings(findings))
                | ReloadError::Policy(PolicyError::Findings(findings))
                | ReloadError::Draft(DraftError::Findings { findings, .. }) = &error
                {
                    for finding in findings.errors() {
                        tracing::error!("{finding}");
                        problems.push(finding.to_string());
                    }
                }
                self.tell(|| Body::reload_failed(&error.to_string(), &problems));
                let said = format!("not reloaded, the matrix before stays in force: {error}");
                tracing::error!("{said}");
                said
            }
        }
    }

    async fn try_reload(&mut self) -> Result<String, ReloadError> {
        let source = self.source.clone();
        let directory = self.matrix.directory.as_ref().clone();
        // A large matrix takes seconds, which the web server and the signals must not wait for.
        let read = move || -> Result<_, ReloadError> {
            let config = source.load()?;
            privilege::check(&config, source.path.as_deref())?;
            let own = interfaces::own_addresses()?;
            let policy = load_policy(&config, &own)?;
            let draft = draft::load(&config, &policy, &own)?;
            let matrix = Installed::new(Arc::clone(&policy.compiled), directory);
            Ok((config, own, policy, Arc::new(matrix), draft))
        };
        let (config, own, policy, matrix, draft) = tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| ReloadError::BrokenOff)??;
        self.engine.install(Arc::clone(&matrix)).await?;
        self.matrix = matrix;
        self.observe.clone_from(&policy.observe);
        if let Some(feed) = &self.feed {
            feed.set_site(&policy.site);
        }
        // What was judged by the matrix before says nothing of this one.
        self.evidence.set_draft(draft);
        self.evidence.set_site(&policy.site);
        self.site.set_tags(policy.tags.status.clone());
        let tags = policy.tags.clone();
        tokio::task::spawn_blocking(move || keep_tags(&tags));
        self.own = own;
        self.look_around();
        self.built_in = policy.built_in;
        report_policy(&policy);
        self.wanted.set(selection(&config, &policy));
        let config = self.keep_what_needs_a_restart(config);
        if config.names.resolvers != self.config.names.resolvers {
            self.resolution = None;
        }
        self.config = config;
        self.ask_for_names();
        Ok(summary(&policy))
    }

    /// Has the exact names of the matrix in force asked for, or none if the configuration does not want it.
    fn ask_for_names(&mut self) {
        let config = &self.config.names;
        if !config.resolve {
            self.resolution = None;
            return;
        }
        let names = exact_names(&self.matrix.compiled);
        if let Some(resolution) = &self.resolution {
            resolution.set_names(names);
        } else {
            let answers = self.answers.clone();
            self.resolution = Some(Resolution::start(config.resolvers.clone(), names, answers));
        }
    }

    /// Takes from a new configuration what a reload can change, and says what it can't.
    fn keep_what_needs_a_restart(&self, new: Config) -> Config {
        let old = &self.config;
        // All but whether and whom to ask.
        let names = |config: &Config| NamesConfig {
            resolve: false,
            resolvers: Vec::new(),
            ..config.names.clone()
        };
        for (what, differs) in [
            (
                "capture.backend",
                new.capture.backend != old.capture.backend,
            ),
            ("capture.pcap", new.capture.pcap != old.capture.pcap),
            ("capture.ebpf", new.capture.ebpf != old.capture.ebpf),
            ("names", names(&new) != names(old)),
            ("ledger", new.ledger != old.ledger),
            ("events", new.events != old.events),
            ("web", new.web != old.web),
            ("security", new.security != old.security),
            ("log", new.log != old.log),
        ] {
            if differs {
                tracing::warn!("`{what}` has changed and takes effect at the next start only");
            }
        }
        let mut kept = old.clone();
        kept.matrix = new.matrix;
        kept.draft = new.draft;
        kept.draft_site = new.draft_site;
        kept.site = new.site;
        kept.tags = new.tags;
        kept.state_directory = new.state_directory;
        kept.capture.interfaces = new.capture.interfaces;
        kept.names.resolve = new.names.resolve;
        kept.names.resolvers = new.names.resolvers;
        kept
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::fake::Fake;
    use super::*;

    const MATRIX: &str = "system: app\ntitle: App\nroles: {web: {names: [192.0.2.1]}, db: {names: [192.0.2.2]}}\n\
        requirements: [{id: a, from: web, to: db, services: [tcp/5432]}]\n";

    fn opened(
        _: &CaptureConfig,
        _: &names::Settings,
        _: &Installed,
    ) -> Result<Opened, CaptureError> {
        let (capture, _) = Fake::new();
        Ok(Opened {
            capture,
            directory: SlotDirectory::default(),
            why: "a test".to_owned(),
        })
    }

    fn source(folder: &Path) -> ConfigSource {
        let path = folder.join("flowproof.yaml");
        std::fs::write(
            &path,
            "matrix: [m.yaml]\nstate_directory: state\ncapture: {interfaces: [lo]}\nweb: {listen: []}\nledger: {enabled: false}\n",
        )
        .unwrap();
        std::fs::write(folder.join("m.yaml"), MATRIX).unwrap();
        ConfigSource {
            path: Some(path),
            overrides: Arc::new(|_| {}),
        }
    }

    #[tokio::test]
    async fn names_outlive_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state/names.json");
        let named = MATRIX.replace("192.0.2.1]", "web.example]");
        let answer = Answer {
            question: names::answer::Name::from("web.example"),
            kind: names::answer::Kind::A,
            result: names::answer::Result::Found,
            aliases: Vec::new(),
            addresses: vec![("192.0.2.9".parse().unwrap(), 60)],
            ech_public_name: None,
        };
        let known = async |daemon: &Daemon| daemon.engine.view().await.unwrap().book.names_needed;

        let mut first = daemon_with(folder.path(), &named);
        assert_eq!(known(&first).await, 0);
        first.keep_names().await;
        assert!(!state.exists(), "a file without any name");
        first.engine.learn(answer);
        assert_eq!(known(&first).await, 1);
        first.keep_names().await;
        let written = std::fs::read(&state).unwrap();
        std::fs::write(&state, "gone").unwrap();
        first.keep_names().await;
        assert_eq!(
            std::fs::read(&state).unwrap(),
            b"gone",
            "written although nothing changed"
        );
        drop(first);

        std::fs::write(&state, written).unwrap();
        assert_eq!(known(&daemon_with(folder.path(), &named)).await, 1);
        // No reason not to start.
        std::fs::write(&state, "{\"version\": 1").unwrap();
        let mut last = daemon_with(folder.path(), &named);
        assert_eq!(known(&last).await, 0);
        // The folder is taken by a file.
        std::fs::remove_file(&state).unwrap();
        std::fs::remove_dir(folder.path().join("state")).unwrap();
        std::fs::write(folder.path().join("state"), "").unwrap();
        last.keep_names().await;
        assert!(last.keeping_failed && last.kept.is_none());
    }

    fn daemon(folder: &Path) -> Daemon {
        daemon_with(folder, MATRIX)
    }

    fn daemon_with(folder: &Path, matrix: &str) -> Daemon {
        let source = source(folder);
        std::fs::write(folder.join("m.yaml"), matrix).unwrap();
        let config = source.load().unwrap();
        let policy = load_policy(&config, &[]).unwrap();
        let site = Arc::new(web::Site::new(
            Arc::new(Health::default()),
            Gate::open(None).unwrap(),
        ));
        start(config, source, (&policy, Vec::new()), opened, site, None).unwrap()
    }

    fn reloaded(daemon: &Daemon) -> bool {
        daemon.site.health.reload().unwrap().successful
    }

    #[tokio::test]
    async fn a_bad_file_keeps_the_matrix_and_a_good_one_replaces_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = daemon(folder.path());
        assert_eq!(daemon.site.health.ready(), Ok(()));
        let first = Arc::clone(&daemon.matrix);

        std::fs::write(folder.path().join("m.yaml"), "system: [\n").unwrap();
        daemon.reload().await;
        assert!(!reloaded(&daemon));
        assert!(Arc::ptr_eq(&first, &daemon.matrix));
        assert_eq!(daemon.site.health.ready(), Ok(()));

        std::fs::write(folder.path().join("flowproof.yaml"), "matrx: []\n").unwrap();
        std::fs::write(folder.path().join("m.yaml"), MATRIX).unwrap();
        daemon.reload().await;
        assert!(!reloaded(&daemon) && Arc::ptr_eq(&first, &daemon.matrix));

        source(folder.path());
        let more = MATRIX.replace("[tcp/5432]", "[tcp/5432, tcp/22]");
        std::fs::write(folder.path().join("m.yaml"), more).unwrap();
        daemon.reload().await;
        assert!(reloaded(&daemon));
        assert_eq!(daemon.matrix.compiled.matrix.services().count(), 2);
        // What both have keeps its counter.
        assert_eq!(
            first.directory.iter().next(),
            daemon.matrix.directory.iter().next()
        );
        let view = daemon.engine.view().await.unwrap();
        assert!(Arc::ptr_eq(&view.matrix, &daemon.matrix));
    }

    #[tokio::test]
    async fn a_reload_takes_interfaces_and_leaves_what_needs_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = daemon(folder.path());
        std::fs::write(
            folder.path().join("flowproof.yaml"),
            "matrix: [m.yaml]\ncapture: {interfaces: ['nothing*'], backend: pcap}\n\
             names: {hold: 1s, resolvers: [192.0.2.53]}\nweb: {listen: ['127.0.0.1:1']}\n",
        )
        .unwrap();
        daemon.reload().await;
        assert!(reloaded(&daemon));
        let names = &daemon.config.names;
        assert_eq!(names.hold, NamesConfig::default().hold);
        assert_eq!(names.resolvers, ["192.0.2.53:53".parse().unwrap()]);
        assert_eq!(daemon.config.capture.interfaces[0].to_string(), "nothing*");
        assert!(daemon.config.web.listen.is_empty());
        // The interface is let go soon after.
        for _ in 0..100 {
            if daemon.engine.view().await.unwrap().attached.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("still attached");
    }

    #[tokio::test]
    async fn names_are_asked_for_as_long_as_the_configuration_wants_it() {
        let folder = tempfile::tempdir().unwrap();
        let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let mut daemon = daemon(folder.path());
        assert!(daemon.resolution.is_none());

        let matrix = MATRIX.replace("192.0.2.1]", "192.0.2.1, web.example, '*.example.org']");
        std::fs::write(folder.path().join("m.yaml"), matrix).unwrap();
        let write = |names: &str| {
            let text = format!(
                "matrix: [m.yaml]\ncapture: {{interfaces: [lo]}}\nweb: {{listen: []}}\nnames: {names}\n"
            );
            std::fs::write(folder.path().join("flowproof.yaml"), text).unwrap();
        };
        write(&format!("{{resolve: true, resolvers: ['{address}']}}"));
        daemon.reload().await;
        assert!(reloaded(&daemon) && daemon.resolution.is_some());
        let mut query = [0; 512];
        let asked = tokio::time::timeout(Duration::from_secs(5), server.recv(&mut query));
        let length = asked.await.unwrap().unwrap();
        assert!(
            query[..length]
                .windows(5)
                .any(|part| part == b"\x03web\x07")
        );

        write("{resolve: false}");
        daemon.reload().await;
        assert!(reloaded(&daemon) && daemon.resolution.is_none());
    }

    #[tokio::test]
    async fn an_unknown_interface_is_refused_before_anything_is_opened() {
        fn never(
            _: &CaptureConfig,
            _: &names::Settings,
            _: &Installed,
        ) -> Result<Opened, CaptureError> {
            panic!("opened")
        }
        let folder = tempfile::tempdir().unwrap();
        let source = source(folder.path());
        let mut config = source.load().unwrap();
        config.capture.interfaces = vec!["nope0".parse().unwrap()];
        let policy = load_policy(&config, &[]).unwrap();
        let site = Arc::new(web::Site::new(
            Arc::new(Health::default()),
            Gate::open(None).unwrap(),
        ));
        let refused = start(
            config,
            source,
            (&policy, Vec::new()),
            never,
            Arc::clone(&site),
            None,
        );
        let Err(DaemonError::Capture(CaptureError::NoInterface { name, .. })) = refused else {
            panic!("started");
        };
        assert_eq!(name, "nope0");
        assert!(site.evidence.get().is_none());
    }
}
