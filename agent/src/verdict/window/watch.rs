//! Since when, and how well, this agent has watched. One for all services: what is lost or not watched could have been
//! anybody's. Only the last time of each kind of loss is kept, since that alone says whether a window has one.
//!
//! Times are nanoseconds since the Unix epoch, because windows outlive the daemon and the host's uptime. That clock can
//! be set, so that every look also says how much time really went by. A jump forward means that the window holds less
//! time than it claims: it counts as time not watched. After a jump back nothing lies in the future: what was noted for
//! later is taken to be of now, which keeps it in the window for longer and never for shorter.

use std::time::Duration;

use crate::verdict::vantage::LossTotals;

/// How far the clock may run ahead of the time that went by, in sum, until that counts as a jump: 30 s. Clocks that are
/// slewed stay far below, and a window that is this much shorter than it claims misleads nobody.
const JUMP: u64 = 30_000_000_000;

/// What one look at the capture says of the time since the look before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Look {
    /// How much time went by, by a clock that can't be set.
    pub elapsed: Duration,
    /// What was lost since the counters began.
    pub losses: LossTotals,
    /// Whether nothing is captured: the capture failed, or no interface is attached.
    pub blind: bool,
}

/// Why a stretch of time proves nothing about what was not seen in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum GapKind {
    /// The daemon did not run, and nothing counted in its place.
    Down,
    /// The daemon ran and captured nothing.
    Blind,
    /// The clock was set forward, or the host slept.
    ClockJump,
    /// Packets or events were lost.
    PacketsLost,
    /// Names of flows were lost.
    NamesLost,
}

impl GapKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Down,
        Self::Blind,
        Self::ClockJump,
        Self::PacketsLost,
        Self::NamesLost,
    ];

    /// What happened, as a clause without an end, for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Down => "the daemon was down",
            Self::Blind => "nothing was captured",
            Self::ClockJump => "the clock was set forward or the host slept",
            Self::PacketsLost => "packets or events were lost",
            Self::NamesLost => "names of flows were lost",
        }
    }

    /// The name in JSON and in the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Blind => "blind",
            Self::ClockJump => "clock_jump",
            Self::PacketsLost => "packets_lost",
            Self::NamesLost => "names_lost",
        }
    }

    /// The kind of a name that [`Self::name`] gave.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A stretch of time in which silence proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// Why.
    pub kind: GapKind,
    /// Its begin.
    pub from: u64,
    /// Its end, at least its begin.
    pub to: u64,
    /// What was lost in it; 0 for gaps that are no losses.
    pub lost: u64,
}

/// What became of the counters while no daemon ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absence {
    /// The kernel went on counting.
    Counted,
    /// Nothing was counted.
    Unwatched,
}

/// What is kept of a watch over a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeptWatch {
    /// The last look.
    pub until: u64,
    /// Length of the window that states were told over, nanoseconds; not what the next run will look back.
    pub window: u64,
    /// When packets were lost last.
    pub last_packets_lost: Option<u64>,
    /// When names were lost last.
    pub last_names_lost: Option<u64>,
    /// When nobody watched last.
    pub last_blind: Option<u64>,
    /// Losses that were counted until then.
    pub counted: LossTotals,
    /// Whether nothing was captured at the last look.
    pub blind: bool,
}

/// Since when and how well this agent has watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watch {
    kept: KeptWatch,
    /// How far the clock ran ahead of the time that went by.
    ahead: u64,
    /// Whether the last look saw a capture, and the one before.
    sighted: [bool; 2],
}

/// A duration in nanoseconds, at most 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Watch {
    /// Begins at `now`; states are over the last `window`.
    #[must_use]
    pub fn begin(window: Duration, now: u64) -> Self {
        let kept = KeptWatch {
            until: now,
            window: nanos(window),
            ..KeptWatch::default()
        };
        Self {
            kept,
            ahead: 0,
            sighted: [true; 2],
        }
    }

    /// Goes on after a restart, at `now`. Gives the gap that the restart left.
    #[must_use]
    pub fn resume(
        window: Duration,
        kept: KeptWatch,
        now: u64,
        absence: Absence,
    ) -> (Self, Option<Gap>) {
        let mut watch = Self {
            kept: KeptWatch {
                window: nanos(window),
                ..kept
            },
            sighted: [!kept.blind, true],
            ..Self::begin(window, now)
        };
        let from = kept.until.min(now);
        watch.rewind(now);
        watch.kept.until = now;
        let gap = match absence {
            Absence::Counted => None,
            Absence::Unwatched => {
                watch.kept.counted = LossTotals::default();
                watch.kept.last_blind = Some(now);
                Some(Gap {
                    kind: GapKind::Down,
                    from,
                    to: now,
                    lost: 0,
                })
            }
        };
        (watch, gap)
    }

    /// As it was at its last look, for who tells states of then without watching.
    #[must_use]
    pub fn as_of(kept: KeptWatch) -> Self {
        let window = Duration::from_nanos(kept.window);
        Self::resume(window, kept, kept.until, Absence::Counted).0
    }

    /// Takes a look at `now`. Gives the gaps since the look before.
    pub fn look(&mut self, now: u64, look: &Look) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let from = self.kept.until.min(now);
        let mut gap = |kind, from, lost| {
            gaps.push(Gap {
                kind,
                from,
                to: now,
                lost,
            });
            Some(now)
        };
        let went = now.saturating_sub(from);
        let elapsed = nanos(look.elapsed);
        if now < self.kept.until {
            self.rewind(now);
        }
        self.ahead = (self.ahead + went.saturating_sub(elapsed))
            .saturating_sub(elapsed.saturating_sub(went));
        if self.ahead > JUMP {
            self.ahead = 0;
            let from = from.saturating_add(elapsed).min(now);
            self.kept.last_blind = gap(GapKind::ClockJump, from, 0);
        }
        // Nobody knows when a capture that failed came back, so that all the time since the last look is lost.
        if look.blind || !self.sighted[0] {
            self.kept.last_blind = gap(GapKind::Blind, from, 0);
        }
        self.sighted = [!look.blind, self.sighted[0]];
        self.kept.blind = look.blind;
        // Totals that fell began anew.
        let since = |total: u64, counted: u64| total.checked_sub(counted).unwrap_or(total);
        let packets = since(look.losses.packets, self.kept.counted.packets);
        if packets > 0 {
            self.kept.last_packets_lost = gap(GapKind::PacketsLost, from, packets);
        }
        let names = since(look.losses.names, self.kept.counted.names);
        if names > 0 {
            self.kept.last_names_lost = gap(GapKind::NamesLost, from, names);
        }
        self.kept.counted = look.losses;
        self.kept.until = now;
        gaps
    }

    /// After this, nothing lies in the future.
    fn rewind(&mut self, now: u64) {
        for time in [
            &mut self.kept.last_packets_lost,
            &mut self.kept.last_names_lost,
            &mut self.kept.last_blind,
        ] {
            *time = time.map(|time| time.min(now));
        }
    }

    /// Length of the window, nanoseconds.
    #[must_use]
    pub const fn window(&self) -> u64 {
        self.kept.window
    }

    /// What to keep over a restart.
    #[must_use]
    pub const fn kept(&self) -> KeptWatch {
        self.kept
    }

    /// Whether the time from the look before the last one up to now was watched, by what is known.
    pub(super) const fn is_sighted(&self) -> bool {
        self.sighted[0] && self.sighted[1]
    }

    /// Whether packets were lost since `since`, or names if these are needed.
    pub(super) fn lost_since(&self, since: u64, needs_names: bool) -> bool {
        self.kept.last_packets_lost >= Some(since)
            || (needs_names && self.kept.last_names_lost >= Some(since))
    }

    /// Whether a part of the time since `since` was not watched.
    pub(super) fn blind_since(&self, since: u64) -> bool {
        self.kept.last_blind >= Some(since)
    }
}
