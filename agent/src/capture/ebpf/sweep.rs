//! Finds flows whose time has come and has the kernel decide about them. The flow tables are read in
//! batches; what is due is judged there only by the same pure functions that the kernel will use, so a
//! wrong guess here changes nothing.

use aya::Ebpf;
use aya::programs::{TestRun, TestRunOptions};
use flowproof_common::entry::FlowEntry;
use flowproof_common::key::FlowKey;
use flowproof_common::layout::{DECIDE_HEADER, DECIDE_ORDERS, Order};
use flowproof_common::record::{Counter, FlowRecord};
use flowproof_common::state::Outcome;
use flowproof_common::ticks::Ticks;

use super::super::{CaptureError, clock};
use super::batch::{self, Walk};
use super::program::{DECIDE, loaded};
use super::{carried, failed, object};

/// Nanoseconds between looks at the unverified flows: with the 3.2 s after which silence is decided, this
/// says `no_answer` within 4 s.
const UNVERIFIED_INTERVAL: u64 = 200_000_000;
/// The same while none of them waits for a decision, so that they only expire.
const DECIDED_INTERVAL: u64 = 1_000_000_000;
/// Nanoseconds between looks at the verified flows, which only ever expire.
const VERIFIED_INTERVAL: u64 = 5_000_000_000;

/// Nanoseconds beyond the time that flows wait for their name, after which nobody seems to know of them.
const OVERDUE: u64 = 1_000_000_000;

/// Batches of flows that are looked at before the rings are looked at again: a large table takes longer than a ring takes
/// to fill.
const BATCHES_A_TURN: u32 = 4;

/// One of the flow tables.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Unverified,
    Verified,
}

/// A look at a table that is under way.
struct Look {
    table: Table,
    /// When it began, monotonic nanoseconds.
    since: u64,
    /// Flows so far.
    entries: u64,
    /// Whether silence or a repeated packet may yet decide about one of them, or somebody look for its name.
    undecided: bool,
    /// The probe's counters when it began.
    before: Vec<u64>,
}

/// When the tables were last looked at.
pub(super) struct Sweep {
    look: Option<Look>,
    walk: Walk<FlowKey, FlowEntry>,
    /// When each is to be looked at next, monotonic nanoseconds.
    unverified_due: u64,
    verified_due: u64,
    unverified_entries: u64,
    /// When the unverified flows were looked at last, if they are all decided, and how many had been put there by then.
    decided: Option<(u64, u64)>,
    evictions: u64,
    orders: Vec<Order>,
    /// Held flows that are older than anybody waits for a name.
    overdue: Vec<(FlowKey, FlowRecord)>,
    hold: u64,
    counters: Vec<u64>,
}

impl Sweep {
    /// `hold` is how long flows wait for their name, nanoseconds.
    pub(super) fn new(hold: u64) -> Self {
        Self {
            look: None,
            walk: Walk::default(),
            unverified_due: 0,
            verified_due: 0,
            unverified_entries: 0,
            decided: None,
            evictions: 0,
            orders: Vec::new(),
            overdue: Vec::new(),
            hold,
            counters: Vec::new(),
        }
    }

    /// Flows in the unverified table at the last look.
    pub(super) const fn unverified_entries(&self) -> u64 {
        self.unverified_entries
    }

    /// Flows that the unverified table pushed out, as far as the looks at it prove. Never falls.
    pub(super) const fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Looks on at the table whose turn it is; `now` in monotonic nanoseconds. Says whether there is more to look at by now.
    pub(super) fn run_if_due(&mut self, ebpf: &mut Ebpf, now: u64) -> Result<bool, CaptureError> {
        let look = match self.look.take() {
            Some(look) => Some(look),
            None => self.begin(ebpf, now)?,
        };
        if let Some(mut look) = look {
            if self.collect(ebpf, &mut look, now)? {
                self.look = Some(look);
            } else {
                self.end(ebpf, &look)?;
            }
        }
        self.decide(ebpf)?;
        Ok(self.look.is_some())
    }

    fn begin(&mut self, ebpf: &Ebpf, now: u64) -> Result<Option<Look>, CaptureError> {
        if now >= self.unverified_due && self.may_rest(ebpf, now)? {
            self.unverified_due = now + UNVERIFIED_INTERVAL;
        }
        let table = if now >= self.unverified_due {
            Table::Unverified
        } else if now >= self.verified_due {
            Table::Verified
        } else {
            return Ok(None);
        };
        Ok(Some(Look {
            table,
            since: now,
            entries: 0,
            undecided: false,
            before: counters(ebpf)?,
        }))
    }

    /// Whether the unverified flows are as they were found last, with nothing to decide. An idle daemon would spend most of its
    /// time on a table in which nothing happens.
    fn may_rest(&mut self, ebpf: &Ebpf, now: u64) -> Result<bool, CaptureError> {
        let Some((since, inserted)) = self.decided else {
            return Ok(false);
        };
        if now >= since + DECIDED_INTERVAL {
            return Ok(false);
        }
        self.counters = counters(ebpf)?;
        Ok(self.counter(Counter::UnverifiedInserted) == Some(inserted))
    }

    /// A table so large that looking at it takes longer than the time between two looks is looked at half of the time.
    fn end(&mut self, ebpf: &mut Ebpf, look: &Look) -> Result<(), CaptureError> {
        let taken = clock::monotonic().saturating_sub(look.since);
        let next = |interval: u64| look.since + interval.max(2 * taken);
        match look.table {
            Table::Unverified => {
                self.unverified_due = next(UNVERIFIED_INTERVAL);
                self.unverified_entries = look.entries;
                self.decided = (!look.undecided).then(|| {
                    let inserted = look.before[Counter::UnverifiedInserted as usize];
                    (look.since, inserted)
                });
                let after = counters(ebpf)?;
                // What was put in before the look, not deleted by its end and not seen by it was evicted. The
                // kernel does not say so itself.
                let evicted = look.before[Counter::UnverifiedInserted as usize]
                    .saturating_sub(after[Counter::UnverifiedDeleted as usize])
                    .saturating_sub(look.entries);
                self.evictions = self.evictions.max(evicted);
                self.counters = after;
            }
            Table::Verified => {
                self.verified_due = next(VERIFIED_INTERVAL);
                carried::clear(ebpf)?;
            }
        }
        Ok(())
    }

    /// Looks at some flows; whether there are more.
    fn collect(&mut self, ebpf: &Ebpf, look: &mut Look, now: u64) -> Result<bool, CaptureError> {
        let ticks = Ticks::from_nanos(now);
        let (orders, overdue) = (&mut self.orders, &mut self.overdue);
        let patience = self.hold.saturating_add(OVERDUE);
        let name = match look.table {
            Table::Unverified => "UNVERIFIED",
            Table::Verified => "VERIFIED",
        };
        let map = object::map_data(ebpf, name)?;
        for _ in 0..BATCHES_A_TURN {
            let more = self.walk.step(map, |key, entry| {
                look.entries += 1;
                let times = entry.times(ticks);
                look.undecided |=
                    entry.state.is_held() || matches!(entry.state.outcome(), Outcome::Pending);
                if entry.state.after_silence(key.protocol, &times, true) != entry.state
                    || entry.state.is_expired(key.protocol, &times)
                {
                    orders.push(Order {
                        key: *key,
                        ..Order::default()
                    });
                }
                if entry.state.is_held() && times.since_first >= patience {
                    overdue.push((*key, entry.record(&entry.totals())));
                }
            });
            if !more.map_err(|error| failed("reading the flow tables", &error))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Has the kernel do these at the next chance, see [`Self::decide`].
    pub(super) fn order(&mut self, orders: impl Iterator<Item = Order>) {
        self.orders.extend(orders);
    }

    /// Takes the held flows that nobody has ruled on in time.
    pub(super) fn take_overdue(&mut self) -> Vec<(FlowKey, FlowRecord)> {
        std::mem::take(&mut self.overdue)
    }

    /// A counter of the probe at the last look; none before the first.
    pub(super) fn counter(&self, which: Counter) -> Option<u64> {
        self.counters.get(which as usize).copied()
    }

    /// Has the kernel do what is ordered.
    pub(super) fn decide(&mut self, ebpf: &mut Ebpf) -> Result<(), CaptureError> {
        if self.orders.is_empty() {
            return Ok(());
        }
        let program = loaded(ebpf, DECIDE)?;
        for orders in self.orders.chunks(DECIDE_ORDERS as usize) {
            let mut input = vec![0; DECIDE_HEADER as usize];
            for order in orders {
                input.extend_from_slice(batch::bytes_of(order));
            }
            let mut options = TestRunOptions::new();
            options.data_in = Some(&input);
            program
                .test_run(options)
                .map_err(|error| failed("having the kernel decide about flows", &error))?;
        }
        self.orders.clear();
        Ok(())
    }
}

/// The probe's own counters, summed over CPUs, by [`Counter`].
pub(super) fn counters(ebpf: &Ebpf) -> Result<Vec<u64>, CaptureError> {
    let counters = object::map_data(ebpf, "COUNTERS")?;
    batch::per_cpu_sums::<u64>(counters, Counter::COUNT, |sum, cpu| sum + cpu)
        .map_err(|error| failed("reading the probe's counters", &error))
}
