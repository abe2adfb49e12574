//! The state of every row over the window, from round to round: takes what the capture thread gathered, keeps a window for
//! each service of the matrix in force, and says what of it the ledger is to keep. Pure: time is passed in, and nothing is
//! read or written here.
//!
//! Windows are known by the texts of the matrix files, so that they outlive matrices and restarts. One whose row is taken
//! out of the matrix stays here, in case the row comes back; what happened meanwhile was not watched for, so that its
//! window then begins anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use flowproof_common::record::Event;
use flowproof_common::state::Phase;
use ipnet::IpNet;

use super::actor::{Gathered, View};
use super::recorder::Record;
use super::states::{self, SlotNotes};
use super::whereabouts::Whereabouts;
use crate::capture::SlotTotals;
use crate::export::flow_line::{Facts, KnownNames};
use crate::flow::Span;
use crate::flow::notes::IcmpError;
use crate::ledger::{Batch, Remembered, ServiceId, ServiceSeen, UnexpectedId};
use crate::matrix::ServiceKey;
use crate::matrix::compiled::Compiled;
use crate::matrix::installed::MemberId;
use crate::names::wall_time::shifted;
use crate::verdict::near_miss::service_text;
use crate::verdict::requirement::{Failure, Vantage};
use crate::verdict::vantage::{LossTotals, Losses, Sightline};
use crate::verdict::window::{
    Absence, Change, Evidence, Gap, KeptService, KeptWatch, Look, Sample, ServiceWindow, Watch,
    WindowFinding,
};

/// Index of the loopback interface in every network namespace (`linux/if.h`, `LOOPBACK_IFINDEX` in `net/flow.h`).
const LOOPBACK: u32 = 1;
/// Services that are remembered though no row of the matrix in force has them.
const MOST_DEPARTED: usize = 100_000;
/// How far the back end's clock may drift against the Unix epoch until times are told by the new offset, nanoseconds.
/// Below that the same moment keeps the same name.
const DRIFT: i128 = 500_000_000;

/// How far the event that told of a failure may be from the time that its counter keeps, nanoseconds.
const SAME_FAILURE: u64 = 1_000_000_000;

/// What is known of one service of the matrix in force.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which.
    pub key: ServiceKey,
    /// Its state over the window.
    pub window: WindowFinding,
    /// Totals since the counters began.
    pub totals: SlotTotals,
    /// When a packet was seen first and last, over all restarts; nanoseconds since the Unix epoch.
    pub seen: Option<[u64; 2]>,
    /// The last failure, over all restarts.
    pub last_failure: Option<Failure>,
    /// What that rests on, in words; may be empty.
    pub failed: Arc<str>,
    /// Whether the responder had answered the flow that failed last, to no avail: a SYN-ACK that nobody acknowledged. Nothing if
    /// no event told.
    pub replied: Option<bool>,
}

/// What is known of all rows at one moment.
#[derive(Debug)]
pub struct Standing {
    /// What it comes from.
    pub view: View,
    /// By [`ServiceKey`].
    pub rows: Vec<Row>,
    /// When, nanoseconds since the Unix epoch.
    pub at: u64,
    /// How far back states look.
    pub window: Duration,
    /// How well was watched.
    pub watch: KeptWatch,
    /// Where this host is.
    pub place: Whereabouts,
}

impl Standing {
    /// What is known of a service of the matrix in force.
    #[must_use]
    pub fn row(&self, key: ServiceKey) -> Option<&Row> {
        let place = self.rows.binary_search_by_key(&key, |row| row.key).ok()?;
        self.rows.get(place)
    }

    /// What is known of some of them.
    pub fn of(&self, keys: impl Iterator<Item = ServiceKey>) -> impl Iterator<Item = &Row> {
        keys.filter_map(|key| self.row(key))
    }
}

/// A service of the matrix in force.
#[derive(Debug)]
struct Tracked {
    key: ServiceKey,
    id: ServiceId,
    member: MemberId,
    window: ServiceWindow,
    /// First and last packet.
    seen: Option<[u64; 2]>,
    /// What the last failure's text was made from.
    failure: Option<Event>,
    failed: Arc<str>,
}

/// A service that no row of the matrix in force has.
#[derive(Debug)]
struct Departed {
    kept: KeptService,
    seen: Option<[u64; 2]>,
    failed: Arc<str>,
}

/// Windows of all services.
#[derive(Debug)]
pub struct Chronicle {
    watch: Watch,
    /// What became of the counters before the first round.
    absence: Absence,
    /// A gap that the start left, for the first batch.
    gap: Option<Gap>,
    offset: Option<i128>,
    compiled: Option<Arc<Compiled>>,
    rows: Vec<Tracked>,
    departed: HashMap<ServiceId, Departed>,
}

impl Chronicle {
    /// Goes on from what a ledger remembers, at `now`. `absence` says whether the counters went on meanwhile.
    #[must_use]
    pub fn new(window: Duration, remembered: Remembered, now: u64, absence: Absence) -> Self {
        let (watch, gap) = match remembered.watch {
            Some(kept) => Watch::resume(window, kept, now, absence),
            None => (Watch::begin(window, now), None),
        };
        let departed = remembered.services.into_iter().map(|service| {
            let departed = Departed {
                kept: service.window,
                seen: service.seen,
                failed: service
                    .failure
                    .map_or_else(|| Arc::from(""), |failure| Arc::from(failure.evidence)),
            };
            (service.id, departed)
        });
        Self {
            watch,
            absence,
            gap,
            offset: None,
            compiled: None,
            rows: Vec::new(),
            departed: departed.collect(),
        }
    }

    /// Takes what was gathered at `now`, `elapsed` after the round before by a clock that can't be set. `observe` is what
    /// is seen from here; nothing: all. Gives what is known, and what the ledger is to keep of it.
    pub fn round(
        &mut self,
        now: u64,
        elapsed: Duration,
        gathered: Gathered,
        observe: &[IpNet],
    ) -> (Standing, Batch) {
        let Gathered { view, record } = gathered;
        let mut batch = Batch {
            until: now,
            ..Batch::default()
        };
        let look = Look {
            elapsed,
            losses: losses(&view),
            blind: view.failure.is_some() || view.attached.is_empty(),
        };
        batch.gaps.extend(self.gap.take());
        batch.gaps.extend(self.watch.look(now, &look));
        batch.watch = Some(self.watch.kept());
        let offset = self.offset(view.epoch_offset);
        let loopback = view
            .attached
            .iter()
            .any(|interface| interface.index == LOOPBACK);
        let compiled = Arc::clone(&view.matrix.compiled);
        let sightline =
            Sightline::new(&compiled, &view.names, observe, loopback, Losses::default());
        self.follow(&compiled, &sightline, &mut batch);
        let matrix = &compiled.matrix;
        let mut rows = Vec::with_capacity(self.rows.len());
        let mut slots = Vec::new();
        for tracked in &mut self.rows {
            let key = tracked.key;
            let requirement = matrix.requirement(key);
            let vantage = sightline.of(key.system, requirement, matrix.service(key));
            let unanswerable =
                sightline.is_unanswerable(key.system, requirement, matrix.service(key));
            slots.clear();
            slots.extend(view.matrix.directory.slots_of(tracked.member));
            let totals = view.totals_of(slots.iter().copied());
            let notes = slots
                .iter()
                .filter_map(|slot| view.notes.get(slot).copied());
            let (sample, failed) = sample(
                &totals,
                notes,
                (unanswerable, vantage),
                sightline.needs_names(key.system, requirement),
                offset,
            );
            tracked.tell(failed, &view, offset);
            let change = tracked.window.observe(now, &sample, &self.watch);
            tracked.see(&sample.evidence, epoch(totals.traffic.last_seen, offset));
            if let Some(seen) = ServiceSeen::of(&change, &tracked.window, &tracked.failed) {
                batch.services.insert(tracked.id.clone(), seen);
            }
            rows.push(Row {
                key,
                window: tracked.window.finding(now, &self.watch),
                totals,
                seen: tracked.seen,
                last_failure: tracked.window.last_failure(),
                failed: Arc::clone(&tracked.failed),
                replied: tracked.replied(offset),
            });
        }
        take_record(record, &mut batch);
        let standing = Standing {
            view,
            rows,
            at: now,
            window: Duration::from_nanos(self.watch.window()),
            watch: self.watch.kept(),
            place: Whereabouts::default(),
        };
        (standing, batch)
    }

    /// Notes at `now` that nobody could say anything.
    pub fn blind(&mut self, now: u64, elapsed: Duration) -> Batch {
        let look = Look {
            elapsed,
            losses: self.watch.kept().counted,
            blind: true,
        };
        Batch {
            until: now,
            gaps: self.watch.look(now, &look),
            watch: Some(self.watch.kept()),
            ..Batch::default()
        }
    }

    /// All that is known of the windows, for a ledger that had to begin anew.
    #[must_use]
    pub fn whole(&self, now: u64) -> Batch {
        let all = Change {
            changed: true,
            rewritten: true,
            ..Change::default()
        };
        let services = self.rows.iter().filter_map(|tracked| {
            let seen = ServiceSeen::of(&all, &tracked.window, &tracked.failed)?;
            Some((tracked.id.clone(), seen))
        });
        Batch {
            until: now,
            watch: Some(self.watch.kept()),
            services: services.collect(),
            ..Batch::default()
        }
    }

    /// Back-end times are told by one offset as long as the clocks go alike.
    fn offset(&mut self, now: i128) -> i128 {
        match self.offset {
            Some(offset) if (offset - now).abs() <= DRIFT => offset,
            Some(_) | None => {
                self.offset = Some(now);
                now
            }
        }
    }

    /// Takes up the matrix in force.
    fn follow(&mut self, compiled: &Arc<Compiled>, sightline: &Sightline, batch: &mut Batch) {
        let before = self.compiled.replace(Arc::clone(compiled));
        if before
            .as_ref()
            .is_some_and(|before| Arc::ptr_eq(before, compiled))
        {
            return;
        }
        // At the start nothing has departed: it was only not here yet.
        let starts = before.is_none();
        let mut at_hand: HashMap<ServiceId, Tracked> = std::mem::take(&mut self.rows)
            .into_iter()
            .map(|tracked| (tracked.id.clone(), tracked))
            .collect();
        let matrix = &compiled.matrix;
        for (key, requirement, service) in matrix.services() {
            let id = ServiceId {
                system: matrix.system(key.system).id.to_string(),
                requirement: requirement.id.to_string(),
                service: service.to_string(),
            };
            let vantage = sightline.of(key.system, requirement, service);
            let tracked = match (at_hand.remove(&id), self.departed.remove(&id)) {
                (Some(tracked), _) => Tracked { key, ..tracked },
                (None, departed) => Tracked {
                    key,
                    member: MemberId::of(&matrix.service_id(key)),
                    failure: None,
                    seen: departed.as_ref().and_then(|departed| departed.seen),
                    failed: departed
                        .as_ref()
                        .map_or_else(|| Arc::from(""), |departed| Arc::clone(&departed.failed)),
                    window: match departed {
                        None => ServiceWindow::new(vantage),
                        Some(departed) if starts => {
                            ServiceWindow::resume(departed.kept, vantage, self.absence)
                        }
                        Some(departed) => {
                            ServiceWindow::resume(departed.kept, vantage, Absence::Counted)
                        }
                    },
                    id,
                },
            };
            self.rows.push(tracked);
        }
        self.rows.sort_unstable_by_key(|tracked| tracked.key);
        let leaving = at_hand.into_values().map(|tracked| {
            let departed = Departed {
                kept: tracked.window.kept(),
                seen: tracked.seen,
                failed: tracked.failed,
            };
            (tracked.id, departed)
        });
        let leaving: Vec<_> = if starts {
            self.departed.drain().collect()
        } else {
            leaving.collect()
        };
        for (id, mut departed) in leaving {
            // Nobody watches for it from here on.
            if departed.kept.begins.take().is_some() {
                let window =
                    ServiceWindow::resume(departed.kept.clone(), Vantage::Clear, Absence::Counted);
                let change = Change {
                    changed: true,
                    ..Change::default()
                };
                if let Some(seen) = ServiceSeen::of(&change, &window, &departed.failed) {
                    batch.services.insert(id.clone(), seen);
                }
            }
            if self.departed.len() < MOST_DEPARTED {
                self.departed.insert(id, departed);
            }
        }
    }
}

impl Tracked {
    /// Notes when a flow began last and a packet passed last.
    fn see(&mut self, evidence: &Evidence, packet: Option<u64>) {
        let Some(begun) = evidence.last_attempt.or(packet) else {
            return;
        };
        let last = packet.unwrap_or(begun).max(begun);
        self.seen = Some(match self.seen {
            Some([first, before]) => [first.min(begun), before.max(last)],
            None => [begun, last],
        });
    }

    /// Whether the responder had answered the flow that failed last.
    fn replied(&self, offset: i128) -> Option<bool> {
        let (failure, event) = (self.window.last_failure()?, self.failure?);
        let same = shifted(event.time, offset).abs_diff(failure.at) <= SAME_FAILURE
            && event.record.state.outcome() == failure.outcome;
        same.then(|| event.record.state.phase() == Phase::SynAck)
    }

    /// Puts the last failure into words, if it is another one.
    fn tell(&mut self, failed: Option<Event>, view: &View, offset: i128) {
        if let Some(event) = failed
            && self.failure != failed
        {
            self.failed = Arc::from(in_words(&event, &view.drop_reasons, offset));
            self.failure = failed;
        }
    }
}

/// A time of the back end since the Unix epoch; nothing for 0, which means never.
fn epoch(time: u64, offset: i128) -> Option<u64> {
    (time != 0).then(|| shifted(time, offset))
}

/// What may have been missed so far, by what it costs.
fn losses(view: &View) -> LossTotals {
    let mut losses = LossTotals::of(&view.snapshot.lost);
    let unparsed = view
        .snapshot
        .interfaces
        .iter()
        .map(|(_, counters)| counters.unparsed);
    losses.packets = losses.packets.saturating_add(unparsed.sum());
    losses
}

/// What is known of a service, in times of the Unix epoch, and the flow that failed last.
fn sample(
    totals: &SlotTotals,
    notes: impl Iterator<Item = SlotNotes>,
    (unanswerable, vantage): (bool, Vantage),
    needs_names: bool,
    offset: i128,
) -> (Sample, Option<Event>) {
    let known = states::known(totals, notes, unanswerable);
    let of_epoch = |time: Option<u64>| time.and_then(|time| epoch(time, offset));
    let mut last_failure = known.evidence.last_failure;
    if let Some(failure) = &mut last_failure {
        failure.at = shifted(failure.at, offset);
    }
    let sample = Sample {
        totals: known.totals,
        evidence: Evidence {
            last_attempt: of_epoch(known.evidence.last_attempt),
            last_answer: of_epoch(known.evidence.last_answer),
            last_failure,
        },
        vantage,
        needs_names,
    };
    (sample, known.failed)
}

/// `10.0.0.1 -> 10.0.0.2:443/tcp: 3 SYNs, no answer`
fn in_words(event: &Event, drop_reasons: &BTreeMap<u32, String>, offset: i128) -> String {
    let errors: Vec<IcmpError> = (event.has_icmp != 0)
        .then_some(IcmpError {
            hop: event.hop,
            icmp_type: event.icmp_type,
            icmp_code: event.icmp_code,
        })
        .into_iter()
        .collect();
    let time = shifted(event.time, offset);
    let facts = Facts {
        key: &event.key,
        record: &event.record,
        span: Span {
            first: time,
            last: time,
        },
        errors: &errors,
        overturned: &[],
        drop_reason: drop_reasons.get(&event.drop_reason).map(String::as_str),
        names: &KnownNames::default(),
    };
    let side = event.record.state.initiator();
    let (initiator, responder) = (event.key.end(side).0, event.key.end(side.other()).0);
    format!(
        "{initiator} to {responder} {}: {}",
        service_text(event.key.protocol, event.key.service(side.other())),
        facts.evidence().join("; ")
    )
}

/// Hands on what the capture thread gathered.
fn take_record(record: Record, batch: &mut Batch) {
    batch.hours = record.hours;
    batch.unexpected = record
        .unexpected
        .into_iter()
        .map(|(service, seen)| {
            let id = UnexpectedId {
                from: service.from.to_string(),
                to: service.to.to_string(),
                protocol: service.protocol,
                port: service.port,
            };
            (id, seen)
        })
        .collect();
}

/// What a view comes to when it is the first, at `now`.
#[cfg(test)]
pub(crate) fn standing(view: View, now: u64) -> Standing {
    let window = Duration::from_secs(86_400);
    let remembered = Remembered::default();
    let mut chronicle = Chronicle::new(window, remembered, now, Absence::Counted);
    let gathered = Gathered {
        view,
        record: Record::default(),
    };
    chronicle.round(now, Duration::ZERO, gathered, &[]).0
}

#[cfg(test)]
mod tests;
