//! The thread that owns the capture. It polls, passes state changes on, and between two polls does what others ask:
//! install a matrix, watch other interfaces, hand out totals. A back end that fails makes the daemon blind, and the
//! thread goes on answering, so that metrics and readiness say so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use flowproof_common::address::Address;
use flowproof_common::classify::{CLASS_INDEX, UNEXPECTED_SLOT, Verdict};
use flowproof_common::record::{Event, EventKind};
use tokio::sync::{mpsc as queue, oneshot};

use super::flows::{Filter, Flows, Query, QueryError, Selection};
use super::health::{CaptureState, Health};
use super::recorder::Record;
use super::states::{self, Notes};
use super::told::Told;
use super::unexpected::{Sighting, Unexpected, UnexpectedEntry, UnexpectedService};
use crate::capture::{
    Backend, Bell, Capture, CaptureError, Interface, Progress, SlotTotals, Snapshot,
};
use crate::config::OnExit;
use crate::export::flow_line::KnownNames;
use crate::matrix::compiled::{BoundRole, Compiled};
use crate::matrix::installed::{Installed, MemberId};
use crate::matrix::{RoleRef, ServiceKey};
use crate::names::answer::Answer;
use crate::names::book::Remembered;
use crate::names::{Namer, NamerCounts, book, wall_time};
use crate::privilege;
use crate::verdict::requirement::Resolution;

/// How long one poll waits: what an idle daemon's wake-ups are paid for. A flood that begins fills the kernel's ring of events
/// within 15 ms, and nothing but this time ends the wait for it; a command rings the bell.
const POLL: Duration = Duration::from_millis(10);
/// How long a thread whose back end failed waits for commands.
const BLIND_WAIT: Duration = Duration::from_millis(100);
/// Polls that empty the ring of events after totals were read, at most.
const DRAIN: u32 = 64;
/// Unexpected services that [`View::top`] holds at most.
const TOP: usize = 50;
/// Roles that one label names at most; an address may have many.
const LABELLED_ROLES: usize = 3;
/// What the label of an address without a role says.
pub const NO_ROLE: &str = "~unbound";
/// How long a command may take before the asker gives up.
const PATIENCE: Duration = Duration::from_secs(4);

/// What the daemon knows at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// The back end at work.
    pub backend: Backend,
    /// The matrix in force, and who owns which counter.
    pub matrix: Arc<Installed>,
    /// Totals; the last that could be read if `failure` is set.
    pub snapshot: Arc<Snapshot>,
    /// Nanoseconds to add to the back end's times to get nanoseconds since the Unix epoch.
    pub epoch_offset: i128,
    /// Interfaces that are watched.
    pub attached: Vec<Interface>,
    /// Interfaces that should be watched and can't, by name, with the reason.
    pub refused: Vec<(String, String)>,
    /// Exported unexpected services with their flows.
    pub unexpected: Vec<(UnexpectedService, u64)>,
    /// Unexpected flows in no exported service.
    pub unexpected_other: u64,
    /// Unexpected services that are told apart and not exported.
    pub unexpected_folded: usize,
    /// The unexpected services with the most flows, most first.
    pub top: Vec<UnexpectedEntry>,
    /// What events said of each counter slot.
    pub notes: Notes,
    /// The running kernel's names of the drop reasons in the notes.
    pub drop_reasons: BTreeMap<u32, String>,
    /// What resolvers said of each name of the matrix, by its number.
    pub names: Vec<Resolution>,
    /// What was done about names.
    pub naming: NamerCounts,
    /// What is known of names.
    pub book: book::Counts,
    /// Events that consumers were too slow for.
    pub queue_lost: u64,
    /// Why the totals are not current.
    pub failure: Option<String>,
}

impl View {
    /// Totals of one service of one requirement: the sum over every counter slot that ever counted for it, so that a
    /// reload or a restart takes nothing away. `last_seen`, `last_attempt` and `last_answered` are the latest of them.
    #[must_use]
    pub fn totals(&self, key: ServiceKey) -> SlotTotals {
        let member = MemberId::of(&self.matrix.compiled.matrix.service_id(key));
        self.totals_of(self.matrix.directory.slots_of(member))
    }

    /// The sum of some counter slots.
    #[must_use]
    pub fn totals_of(&self, slots: impl IntoIterator<Item = u32>) -> SlotTotals {
        let mut sum = SlotTotals::default();
        for slot in slots {
            if let Some(slot) = self.snapshot.slots.get(slot as usize) {
                add(&mut sum, slot);
            }
        }
        sum
    }

    /// Totals of all flows with a verdict.
    #[must_use]
    pub fn verdict_totals(&self, verdict: Verdict) -> SlotTotals {
        let mut sum = SlotTotals::default();
        for (number, slot) in (0..).zip(&self.snapshot.slots) {
            if Verdict::of_slot(number) == verdict {
                add(&mut sum, slot);
            }
        }
        sum
    }

    /// A time of the back end as nanoseconds since the Unix epoch; none for 0, which means never.
    #[must_use]
    pub fn epoch_nanos(&self, time: u64) -> Option<i128> {
        (time != 0).then(|| i128::from(time) + self.epoch_offset)
    }
}

fn add(sum: &mut SlotTotals, slot: &SlotTotals) {
    for side in 0..2 {
        sum.traffic.packets[side] += slot.traffic.packets[side];
        sum.traffic.bytes[side] += slot.traffic.bytes[side];
    }
    sum.traffic.last_seen = sum.traffic.last_seen.max(slot.traffic.last_seen);
    sum.flows.begun += slot.flows.begun;
    for (sum, count) in sum.flows.decided.iter_mut().zip(slot.flows.decided) {
        *sum += count;
    }
    sum.flows.last_attempt = sum.flows.last_attempt.max(slot.flows.last_attempt);
    sum.flows.last_answered = sum.flows.last_answered.max(slot.flows.last_answered);
    sum.flows.last_failed = sum.flows.last_failed.max(slot.flows.last_failed);
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The back end refused.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The capture thread has ended or is stuck.
    #[error("the capture thread does not answer")]
    NoAnswer,
    /// The matrix in force does not know what is asked for.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// Names to be kept over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptNames {
    /// The book that they are from, as it was then.
    pub book: book::Counts,
    /// Needed names; times are nanoseconds since the Unix epoch.
    pub names: Vec<Remembered>,
}

/// What is known at one moment, and what happened since it was asked for last.
#[derive(Debug)]
pub struct Gathered {
    /// What is known.
    pub view: View,
    /// What happened.
    pub record: Record,
}

enum Command {
    Install(Arc<Installed>, oneshot::Sender<Result<(), CaptureError>>),
    Watch(Vec<Interface>),
    View(oneshot::Sender<View>),
    Gather(oneshot::Sender<Gathered>),
    Learn(Box<Answer>),
    Names(Option<book::Counts>, oneshot::Sender<Option<KeptNames>>),
    Flows(Query, oneshot::Sender<Result<Flows, CommandError>>),
    Stop(OnExit, oneshot::Sender<()>),
}

/// What the capture thread starts with.
pub struct Start<'a> {
    /// The back end, attached nowhere.
    pub capture: Box<dyn Capture>,
    /// The matrix to begin with.
    pub matrix: Arc<Installed>,
    /// Interfaces to watch from the start.
    pub interfaces: Vec<Interface>,
    /// Names that were kept over the restart; times are nanoseconds since the Unix epoch.
    pub names: Vec<Remembered>,
    /// Whether not getting an interface is an error.
    pub needed: &'a dyn Fn(&Interface) -> bool,
    /// Where every event goes; what a full queue does not take is counted as lost.
    pub consumers: Vec<queue::Sender<Event>>,
    /// Where the thread says how it is doing.
    pub health: Arc<Health>,
}

/// Sends commands to the capture thread.
#[derive(Debug, Clone)]
pub struct Engine {
    commands: Sender<Command>,
    bell: Arc<Bell>,
}

impl Engine {
    /// Installs the matrix, attaches, and starts the thread.
    ///
    /// # Errors
    /// The matrix does not fit, a needed interface can't be watched, a capability is missing, or none of the
    /// interfaces can be watched. Then everything is let go again.
    pub fn start(start: Start<'_>) -> Result<(Self, JoinHandle<()>), CaptureError> {
        let Start {
            mut capture,
            matrix,
            interfaces,
            names,
            needed,
            consumers,
            health,
        } = start;
        capture.install(&matrix)?;
        restore(capture.as_mut(), names);
        let (commands, inbox) = mpsc::channel();
        let bell = Bell::new().map_err(|error| CaptureError::Failed {
            action: "making a bell for the capture thread".to_owned(),
            reason: error.to_string(),
        })?;
        let bell = Arc::new(bell);
        capture.listen(&bell);
        let mut labels = Vec::new();
        let matrix = Arc::clone(capture.namer().matrix());
        grow_labels(&mut labels, &matrix);
        let mut actor = Actor {
            capture,
            matrix,
            labels,
            recent: Vec::new(),
            record: Record::default(),
            attached: BTreeMap::new(),
            refused: BTreeMap::new(),
            unexpected: Unexpected::default(),
            notes: Notes::new(),
            told: Told::default(),
            consumers,
            queue_lost: 0,
            last: Arc::default(),
            failure: None,
            health,
            inbox,
        };
        if let Err(error) = actor.attach_first(&interfaces, needed) {
            actor.detach_all();
            return Err(error);
        }
        actor.report();
        let thread = std::thread::Builder::new()
            .name(privilege::CAPTURE_THREAD.to_owned())
            .spawn(move || actor.run())
            .map_err(|error| CaptureError::Failed {
                action: "starting the capture thread".to_owned(),
                reason: error.to_string(),
            })?;
        Ok((Self { commands, bell }, thread))
    }

    /// Has the thread do something as soon as it can.
    fn send(&self, command: Command) -> Result<(), CommandError> {
        self.commands
            .send(command)
            .map_err(|_| CommandError::NoAnswer)?;
        self.bell.ring();
        Ok(())
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, CommandError> {
        let (sender, answer) = oneshot::channel();
        self.send(command(sender))?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(CommandError::NoAnswer),
        }
    }

    /// Judges by `matrix` from now on.
    ///
    /// # Errors
    /// The matrix does not fit; the one before stays in force.
    pub async fn install(&self, matrix: Arc<Installed>) -> Result<(), CommandError> {
        Ok(self.ask(|done| Command::Install(matrix, done)).await??)
    }

    /// Watches exactly these interfaces. Those that can't be watched are tried again with every call.
    pub fn watch(&self, interfaces: Vec<Interface>) {
        // A thread that has ended watches nothing, and its health says so.
        let _ = self.send(Command::Watch(interfaces));
    }

    /// Tells what the daemon's own resolver was told.
    pub fn learn(&self, answer: Answer) {
        // A thread that has ended learns nothing, and its health says so.
        let _ = self.send(Command::Learn(Box::new(answer)));
    }

    /// The names to keep over a restart; none if the book is still as `unless` says.
    ///
    /// # Errors
    /// The thread does not answer.
    pub async fn names(
        &self,
        unless: Option<book::Counts>,
    ) -> Result<Option<KeptNames>, CommandError> {
        self.ask(|done| Command::Names(unless, done)).await
    }

    /// What is known now.
    ///
    /// # Errors
    /// The thread does not answer.
    pub async fn view(&self) -> Result<View, CommandError> {
        self.ask(Command::View).await
    }

    /// What is known now, and what happened since the last call.
    ///
    /// # Errors
    /// The thread does not answer; then what happened is in the next answer.
    pub async fn gather(&self) -> Result<Gathered, CommandError> {
        self.ask(Command::Gather).await
    }

    /// Flows in the tables now. The thread reads each table once, which takes some 80 ns a flow: 80 ms for a million. The
    /// kernel's buffers are large enough for that.
    ///
    /// # Errors
    /// The query names what the matrix in force does not have, the tables can't be read, or the thread does not answer.
    pub async fn flows(&self, query: Query) -> Result<Flows, CommandError> {
        self.ask(|done| Command::Flows(query, done)).await?
    }

    /// Ends the thread, detached or not.
    ///
    /// # Errors
    /// The thread does not answer.
    pub async fn stop(&self, on_exit: OnExit) -> Result<(), CommandError> {
        self.ask(|done| Command::Stop(on_exit, done)).await
    }
}

struct Actor {
    capture: Box<dyn Capture>,
    matrix: Arc<Installed>,
    /// Label of each class of addresses.
    labels: Vec<Arc<str>>,
    attached: BTreeMap<u32, Interface>,
    refused: BTreeMap<String, String>,
    unexpected: Unexpected,
    /// Events of the poll at hand that are to be told with their names.
    recent: Vec<Event>,
    /// What happened since it was asked for.
    record: Record,
    notes: Notes,
    told: Told,
    consumers: Vec<queue::Sender<Event>>,
    queue_lost: u64,
    last: Arc<Snapshot>,
    failure: Option<String>,
    health: Arc<Health>,
    inbox: Receiver<Command>,
}

impl Actor {
    fn run(mut self) {
        loop {
            let next = if self.failure.is_some() {
                self.inbox
                    .recv_timeout(BLIND_WAIT)
                    .map_err(|error| match error {
                        RecvTimeoutError::Timeout => TryRecvError::Empty,
                        RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
                    })
            } else {
                self.inbox.try_recv()
            };
            match next {
                Ok(Command::Stop(on_exit, done)) => {
                    self.health.set_capture(CaptureState::Stopping);
                    if on_exit == OnExit::Detach {
                        self.detach_all();
                    }
                    // The back end may still have files to close.
                    drop(self);
                    let _ = done.send(());
                    return;
                }
                Ok(command) => self.obey(command),
                Err(TryRecvError::Empty) if self.failure.is_none() => self.poll(POLL),
                Err(TryRecvError::Empty) => {}
                // Nobody is left who could ask for anything.
                Err(TryRecvError::Disconnected) => {
                    self.detach_all();
                    return;
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        // Whoever asked may have given up by now, so an answer that nobody takes is no error.
        match command {
            Command::Install(matrix, done) => {
                let result = self.capture.install(&matrix);
                if result.is_ok() {
                    self.labels.clear();
                    self.follow();
                }
                let _ = done.send(result);
            }
            Command::Watch(interfaces) => self.watch(&interfaces),
            Command::Learn(answer) => self.capture.namer_mut().learn(None, &answer),
            Command::Names(unless, done) => {
                let namer = self.capture.namer();
                let book = namer.book().counts();
                let kept = (unless != Some(book)).then(|| KeptNames {
                    book,
                    names: wall_time::to_epoch(namer.export(), self.capture.epoch_offset()),
                });
                let _ = done.send(kept);
            }
            Command::View(done) => {
                let view = self.view();
                let _ = done.send(view);
            }
            Command::Gather(done) => {
                let view = self.view();
                let gathered = Gathered {
                    view,
                    record: std::mem::take(&mut self.record),
                };
                if let Err(Gathered { record, .. }) = done.send(gathered) {
                    self.record.put_back(record);
                }
            }
            Command::Flows(query, done) => {
                let flows = self.flows(&query);
                let _ = done.send(flows);
            }
            Command::Stop(..) => {}
        }
    }

    fn flows(&mut self, query: &Query) -> Result<Flows, CommandError> {
        let offset = self.capture.epoch_offset();
        let now = wall_time::shifted(wall_time::nanos(SystemTime::now()), -offset);
        let by_name = self.capture.namer().placed();
        let filter = Filter::new(query, &self.matrix, &self.labels, by_name)?;
        let mut selection = Selection::new(filter, now);
        self.capture
            .each_flow(&mut |key, record| selection.offer(key, record))?;
        let (told, capture) = (&self.told, &self.capture);
        let flows = selection.finish(Arc::clone(&self.matrix), offset, |key, record| {
            let notes = told.of(key).cloned().unwrap_or_default();
            let reason = (notes.drop_reason != 0).then(|| {
                let number = notes.drop_reason;
                capture
                    .drop_reason(number)
                    .map_or_else(|| format!("reason {number}"), str::to_owned)
            });
            (notes, reason, KnownNames::of(capture.namer(), key, record))
        });
        Ok(flows)
    }

    fn poll(&mut self, timeout: Duration) {
        let Self {
            capture,
            unexpected,
            notes,
            told,
            consumers,
            queue_lost,
            recent,
            record,
            ..
        } = self;
        let mut sink = |event: &Event| {
            let counts = !event.record.state.is_held();
            if Record::wants(event) || is_stranger(event) {
                recent.push(*event);
            }
            let mut event = *event;
            told.complete(&mut event);
            let event = &event;
            if counts {
                states::note(notes, event);
            }
            told.note(event);
            for consumer in &mut *consumers {
                if consumer.try_send(*event).is_err() {
                    *queue_lost += 1;
                }
            }
        };
        let polled = capture.poll(timeout, &mut sink);
        // Only now is known what their addresses stand for.
        let (namer, offset) = (capture.namer(), capture.epoch_offset());
        for event in recent.drain(..) {
            let known = (event.record.state.verdict() == Verdict::Unexpected)
                .then(|| unexpected_flow(namer, &mut self.labels, &event));
            if let Some((service, sighting)) = &known
                && is_stranger(&event)
            {
                unexpected.record(service.clone(), *sighting);
            }
            if Record::wants(&event) {
                let service = known.map(|(service, _)| service);
                record.note(&event, namer, offset, service);
            }
        }
        self.follow();
        match polled {
            Ok(Progress::Live) => {}
            Ok(Progress::End) => self.fail("its source has ended".to_owned()),
            Err(error) => self.fail(error.to_string()),
        }
    }

    /// Takes up what names added to the matrix.
    fn follow(&mut self) {
        let matrix = self.capture.namer().matrix();
        if !Arc::ptr_eq(matrix, &self.matrix) {
            self.matrix = Arc::clone(matrix);
            grow_labels(&mut self.labels, matrix);
        }
    }

    fn fail(&mut self, reason: String) {
        tracing::error!(
            reason,
            "the capture failed: nothing is judged any more; restart the daemon"
        );
        self.health
            .set_capture(CaptureState::Failed(reason.clone()));
        self.failure = Some(reason);
    }

    fn view(&mut self) -> View {
        let mut failure = self.failure.clone();
        if failure.is_none() {
            match self.capture.snapshot() {
                Ok(snapshot) => self.last = Arc::new(snapshot),
                Err(error) => failure = Some(error.to_string()),
            }
            // Events of flows that the totals count already.
            for _ in 0..DRAIN {
                let before = self.unexpected.recorded();
                self.poll(Duration::ZERO);
                if self.failure.is_some() || self.unexpected.recorded() == before {
                    break;
                }
            }
        }
        let total = self
            .last
            .slots
            .get(UNEXPECTED_SLOT as usize)
            .map_or(0, |slot| slot.flows.begun);
        View {
            backend: self.capture.backend(),
            matrix: Arc::clone(&self.matrix),
            snapshot: Arc::clone(&self.last),
            epoch_offset: self.capture.epoch_offset(),
            attached: self.attached.values().cloned().collect(),
            refused: self
                .refused
                .iter()
                .map(|(name, reason)| (name.clone(), reason.clone()))
                .collect(),
            unexpected: self.unexpected.series(),
            unexpected_other: self.unexpected.other(total),
            unexpected_folded: self.unexpected.folded(),
            top: self.unexpected.top(TOP),
            drop_reasons: self.drop_reasons(),
            notes: self.notes.clone(),
            names: self.capture.namer().resolutions(),
            naming: self.capture.namer().counts(),
            book: self.capture.namer().book().counts(),
            queue_lost: self.queue_lost,
            failure,
        }
    }

    fn drop_reasons(&self) -> BTreeMap<u32, String> {
        let numbers = self
            .notes
            .values()
            .filter_map(states::SlotNotes::drop_reason);
        numbers
            .map(|number| {
                let name = self.capture.drop_reason(number);
                (
                    number,
                    name.map_or_else(|| format!("reason {number}"), str::to_owned),
                )
            })
            .collect()
    }

    fn attach_first(
        &mut self,
        interfaces: &[Interface],
        needed: &dyn Fn(&Interface) -> bool,
    ) -> Result<(), CaptureError> {
        let mut refusal = None;
        for interface in interfaces {
            match self.capture.attach(interface) {
                Ok(()) => {
                    self.attached.insert(interface.index, interface.clone());
                }
                Err(error) => {
                    if needed(interface) || matches!(error, CaptureError::Permission { .. }) {
                        return Err(error);
                    }
                    self.refuse(interface, &error);
                    refusal = refusal.or(Some(error));
                }
            }
        }
        match refusal {
            Some(error) if self.attached.is_empty() => Err(error),
            Some(_) | None => Ok(()),
        }
    }

    fn refuse(&mut self, interface: &Interface, error: &CaptureError) {
        let reason = error.to_string();
        // Each attempt fails in the same way; one line is enough.
        if self.refused.get(&interface.name) != Some(&reason) {
            tracing::warn!(
                interface = interface.name,
                reason,
                "cannot watch an interface"
            );
            self.refused.insert(interface.name.clone(), reason);
        }
    }

    fn watch(&mut self, wanted: &[Interface]) {
        if self.failure.is_some() {
            return;
        }
        let gone: Vec<Interface> = self
            .attached
            .values()
            .filter(|attached| !wanted.contains(attached))
            .cloned()
            .collect();
        for interface in gone {
            self.capture.detach(&interface);
            self.attached.remove(&interface.index);
            tracing::info!(interface = interface.name, "let go of an interface");
        }
        self.refused
            .retain(|name, _| wanted.iter().any(|interface| interface.name == *name));
        for interface in wanted {
            if self.attached.contains_key(&interface.index) {
                continue;
            }
            match self.capture.attach(interface) {
                Ok(()) => {
                    self.refused.remove(&interface.name);
                    self.attached.insert(interface.index, interface.clone());
                    tracing::info!(interface = interface.name, "watching an interface");
                }
                Err(error) => self.refuse(interface, &error),
            }
        }
        self.report();
    }

    fn report(&self) {
        self.health
            .set_capture(CaptureState::Watching(self.attached.len()));
    }

    fn detach_all(&mut self) {
        for interface in std::mem::take(&mut self.attached).into_values() {
            self.capture.detach(&interface);
        }
    }
}

/// Gives a back end the names that were known before the restart, as far as they still hold.
fn restore(capture: &mut dyn Capture, names: Vec<Remembered>) {
    let offset = capture.epoch_offset();
    let now = wall_time::nanos(SystemTime::now());
    let names = wall_time::from_epoch(names, offset, now);
    if names.is_empty() {
        return;
    }
    tracing::info!("names known from before the start: {}", names.len());
    capture
        .namer_mut()
        .restore(wall_time::shifted(now, -offset), names);
}

/// Label of each class of addresses: its roles, as `system/role`.
/// Adds the labels of classes that are new.
fn grow_labels(labels: &mut Vec<Arc<str>>, matrix: &Installed) {
    for class in labels.len()..matrix.class_count() {
        let class = u32::try_from(class).unwrap_or(CLASS_INDEX);
        let roles = matrix.roles_of_class(class);
        labels.push(Arc::from(label(&matrix.compiled, roles)));
    }
}

fn label(compiled: &Compiled, roles: &[BoundRole]) -> String {
    let mut names: Vec<String> = roles
        .iter()
        .map(|role| role_name(compiled, *role))
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return NO_ROLE.to_owned();
    }
    let more = names.len().saturating_sub(LABELLED_ROLES);
    names.truncate(LABELLED_ROLES);
    let mut text = names.join(",");
    if more > 0 {
        text.push_str(&format!(",+{more}"));
    }
    text
}

fn role_name(compiled: &Compiled, role: BoundRole) -> String {
    match role.role {
        RoleRef::Declared(index) => {
            let system = compiled.matrix.system(role.system);
            format!("{}/{}", system.id, system.role(index).id)
        }
        RoleRef::BuiltIn(built_in) => built_in.id().to_owned(),
    }
}

/// Whether a flow begins to count as unexpected: one that a reload judges anew counts as begun for what it is now, one
/// that waited for its name for what that says.
fn is_stranger(event: &Event) -> bool {
    let begun = [
        EventKind::Begun as u8,
        EventKind::Rejudged as u8,
        EventKind::Named as u8,
    ];
    let state = event.record.state;
    !state.is_held() && begun.contains(&event.kind) && state.verdict() == Verdict::Unexpected
}

fn unexpected_flow(
    namer: &Namer,
    labels: &mut Vec<Arc<str>>,
    event: &Event,
) -> (UnexpectedService, Sighting) {
    grow_labels(labels, namer.matrix());
    let side = event.record.state.initiator();
    let (initiator, _) = event.key.end(side);
    let (responder, _) = event.key.end(side.other());
    let label = |address: &Address| {
        let class = namer.class_of(address) & CLASS_INDEX;
        labels
            .get(class as usize)
            .cloned()
            .unwrap_or_else(|| Arc::from(NO_ROLE))
    };
    let service = UnexpectedService {
        from: label(&initiator),
        to: label(&responder),
        protocol: event.key.protocol,
        port: event.key.service(side.other()),
    };
    let sighting = Sighting {
        time: event.time,
        initiator,
        responder,
    };
    (service, sighting)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use flowproof_common::classify::Judgement;
    use flowproof_common::key::{FlowKey, Side};
    use flowproof_common::protocol;
    use flowproof_common::record::{FlowRecord, SlotFlows};
    use flowproof_common::state::State;
    use flowproof_common::ticks::Ticks;

    use super::super::fake::{Fake, Script};
    use super::super::policy;
    use super::*;

    struct Running {
        engine: Engine,
        thread: JoinHandle<()>,
        script: Arc<Mutex<Script>>,
        health: Arc<Health>,
    }

    type Started = Result<(Engine, JoinHandle<()>), CaptureError>;

    fn interface(index: u32, name: &str) -> Interface {
        Interface {
            index,
            name: name.to_owned(),
        }
    }

    fn matrix() -> Arc<Installed> {
        let policy = policy::load(
            &[],
            None,
            &crate::site::tags::TagOptions::default(),
            &["192.0.2.7".parse().unwrap()],
        )
        .unwrap();
        Arc::new(Installed::new(
            policy.compiled,
            crate::matrix::installed::SlotDirectory::default(),
        ))
    }

    fn try_start(
        prepare: impl FnOnce(&mut Script),
        consumers: Vec<queue::Sender<Event>>,
        needed: &dyn Fn(&Interface) -> bool,
    ) -> (Started, Arc<Mutex<Script>>, Arc<Health>) {
        let (capture, script) = Fake::new();
        prepare(&mut script.lock().unwrap());
        let health = Arc::new(Health::default());
        let started = Engine::start(Start {
            capture,
            matrix: matrix(),
            interfaces: vec![interface(2, "eth0"), interface(3, "eth1")],
            names: Vec::new(),
            needed,
            consumers,
            health: Arc::clone(&health),
        });
        (started, script, health)
    }

    fn start(consumers: Vec<queue::Sender<Event>>) -> Running {
        let (started, script, health) = try_start(|_| {}, consumers, &|_| true);
        let (engine, thread) = started.unwrap();
        Running {
            engine,
            thread,
            script,
            health,
        }
    }

    fn unexpected_event(port: u16) -> Event {
        let key = FlowKey {
            a: Address::from_v4([192, 0, 2, 7]),
            b: Address::from_v4([192, 0, 2, 7]),
            port_a: 50_000,
            port_b: port,
            protocol: protocol::TCP,
            icmp_type: 0,
            zero: [0; 2],
        };
        let judgement = Judgement {
            slot: UNEXPECTED_SLOT,
            initiator: Side::A,
            joined_midway: false,
            to_group: false,
            held: false,
        };
        let state = State::new(&judgement, 1);
        Event {
            key,
            record: FlowRecord::new(state, UNEXPECTED_SLOT, Ticks(0)),
            kind: EventKind::Begun as u8,
            time: 5,
            ..Event::default()
        }
    }

    fn set_unexpected(script: &Mutex<Script>, begun: u64) {
        let flows = SlotFlows {
            begun,
            ..SlotFlows::default()
        };
        script.lock().unwrap().snapshot.slots = vec![
            SlotTotals::default(),
            SlotTotals {
                flows,
                ..SlotTotals::default()
            },
        ];
    }

    #[tokio::test]
    async fn unexpected_flows_are_counted_by_role_and_the_rest_is_other() {
        let running = start(Vec::new());
        set_unexpected(&running.script, 5);
        running.script.lock().unwrap().events = vec![unexpected_event(22), unexpected_event(22)];
        let view = running.engine.view().await.unwrap();
        let got: Vec<_> = view
            .unexpected
            .iter()
            .map(|(service, flows)| (&*service.from, service.port, *flows))
            .collect();
        assert_eq!(got, [("baseline-linux-host/linux-host", 22, 2)]);
        // Three events were lost on the way; their flows are not.
        assert_eq!(view.unexpected_other, 3);
        running.engine.stop(OnExit::Detach).await.unwrap();
        running.thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_slow_consumer_loses_events_and_the_loss_is_counted() {
        let (sender, mut receiver) = queue::channel(2);
        let running = start(vec![sender]);
        running.script.lock().unwrap().events = (0..5).map(unexpected_event).collect();
        let view = loop {
            let view = running.engine.view().await.unwrap();
            if running.script.lock().unwrap().events.is_empty() {
                break view;
            }
        };
        assert_eq!(view.queue_lost, 3);
        assert!(receiver.try_recv().is_ok());
        running.engine.stop(OnExit::Detach).await.unwrap();
    }

    #[tokio::test]
    async fn a_capture_that_fails_ends_readiness_and_not_the_answers() {
        let running = start(Vec::new());
        running.health.matrix_loaded(std::time::SystemTime::now());
        assert_eq!(running.health.ready(), Ok(()));
        set_unexpected(&running.script, 4);
        running.engine.view().await.unwrap();
        running.script.lock().unwrap().fail = Some("the link is gone".to_owned());
        let view = loop {
            let view = running.engine.view().await.unwrap();
            if view.failure.is_some() {
                break view;
            }
        };
        assert!(
            running
                .health
                .ready()
                .unwrap_err()
                .contains("the link is gone")
        );
        // The last totals are still there.
        assert_eq!(view.verdict_totals(Verdict::Unexpected).flows.begun, 4);
        running.engine.stop(OnExit::Detach).await.unwrap();
        running.thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_matrix_that_does_not_fit_leaves_the_one_before() {
        let running = start(Vec::new());
        running.script.lock().unwrap().refuse_matrix = true;
        let before = running.engine.view().await.unwrap().matrix;
        let error = running.engine.install(matrix()).await.unwrap_err();
        assert!(
            error.to_string().contains("has room for 1")
                || error.to_string().contains("have room for 1")
        );
        let after = running.engine.view().await.unwrap().matrix;
        assert!(Arc::ptr_eq(&before, &after));
        running.engine.stop(OnExit::Detach).await.unwrap();
    }

    #[tokio::test]
    async fn interfaces_come_and_go() {
        let running = start(Vec::new());
        let attached = |script: &Mutex<Script>| script.lock().unwrap().attached.clone();
        assert_eq!(attached(&running.script), ["eth0", "eth1"]);
        running.script.lock().unwrap().refuse = vec!["veth1".to_owned()];
        running.engine.watch(vec![
            interface(3, "eth1"),
            interface(7, "veth0"),
            interface(8, "veth1"),
        ]);
        let view = running.engine.view().await.unwrap();
        assert_eq!(attached(&running.script), ["eth1", "veth0"]);
        assert_eq!(view.refused[0].0, "veth1");
        // Asked again, it is there now; and an interface of the same name with another index is another one.
        running.script.lock().unwrap().refuse.clear();
        running
            .engine
            .watch(vec![interface(9, "eth1"), interface(8, "veth1")]);
        let view = running.engine.view().await.unwrap();
        assert_eq!(attached(&running.script), ["eth1", "veth1"]);
        assert!(view.refused.is_empty());
        running.engine.stop(OnExit::Keep).await.unwrap();
        running.thread.join().unwrap();
        assert_eq!(attached(&running.script), ["eth1", "veth1"]);
        assert!(running.script.lock().unwrap().dropped);
    }

    #[test]
    fn a_start_that_fails_leaves_nothing_attached() {
        let (started, script, _) = try_start(
            |script| script.refuse = vec!["eth1".to_owned()],
            Vec::new(),
            &|interface| interface.name == "eth1",
        );
        assert!(started.is_err());
        let script = script.lock().unwrap();
        assert!(script.attached.is_empty() && script.dropped);
    }

    #[test]
    fn an_interface_that_was_not_named_may_refuse() {
        let (started, script, health) = try_start(
            |script| script.refuse = vec!["eth1".to_owned()],
            Vec::new(),
            &|_| false,
        );
        assert!(started.is_ok());
        assert_eq!(script.lock().unwrap().attached, ["eth0"]);
        assert_eq!(health.capture(), CaptureState::Watching(1));
    }
}
