//! What resolvers said of the names of each pattern: the difference between "nobody asks for it" and "it does not
//! resolve", which a silent requirement needs.

use std::sync::Arc;

use foldhash::HashMap;

use super::super::answer::{self, Answer, Kind, Name};
use super::super::patterns::{PatternId, PatternIndex};

/// An answer without addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negative {
    /// What the resolver said.
    pub result: answer::Result,
    /// What it was asked for.
    pub kind: Kind,
    /// The name that it was asked for.
    pub name: Name,
    /// When, nanoseconds.
    pub when: u64,
}

/// What is known of the names that match a pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatternStatus {
    /// When one of them was last given addresses, nanoseconds. `None`: never.
    pub resolved: Option<u64>,
    /// The last answer that the name does not exist or that the resolver could not say. Servers that do not know a
    /// record type often fail, so failures count for A and AAAA only, NXDOMAIN for any type (RFC 8020).
    pub failed: Option<Negative>,
    /// The last answer that the name has no A or no AAAA records. For a name of one address family that is normal.
    pub no_data: Option<Negative>,
}

/// Answers without addresses, counted by what they said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NegativeCounts {
    /// [`answer::Result::NoData`].
    pub no_data: u64,
    /// [`answer::Result::NoName`].
    pub no_name: u64,
    /// [`answer::Result::ServerFailure`].
    pub server_failure: u64,
    /// [`answer::Result::Refused`].
    pub refused: u64,
    /// [`answer::Result::Other`].
    pub other: u64,
}

#[derive(Debug, Default)]
pub(super) struct Evidence {
    statuses: Vec<PatternStatus>,
    pub(super) counts: NegativeCounts,
}

impl Evidence {
    /// Moves on to other patterns; what is known of those that stay is kept.
    pub(super) fn set_patterns(&mut self, old: &PatternIndex, new: &PatternIndex) {
        let known: HashMap<_, _> = old.patterns().iter().zip(&self.statuses).collect();
        let statuses = new
            .patterns()
            .iter()
            .map(|pattern| known.get(pattern).copied().cloned().unwrap_or_default())
            .collect();
        self.statuses = statuses;
    }

    pub(super) fn get(&self, pattern: PatternId) -> Option<&PatternStatus> {
        self.statuses.get(usize::try_from(pattern).ok()?)
    }

    pub(super) fn resolved(&mut self, patterns: &[PatternId], when: u64) {
        for status in select(&mut self.statuses, patterns) {
            status.resolved = status.resolved.max(Some(when));
        }
    }

    /// Keeps an answer that is not [`answer::Result::Found`].
    pub(super) fn negative(&mut self, patterns: &[PatternId], when: u64, answer: &Answer) {
        let addresses = matches!(answer.kind, Kind::A | Kind::Aaaa);
        let (count, tells) = match answer.result {
            answer::Result::Found => return,
            answer::Result::NoData => (&mut self.counts.no_data, addresses),
            answer::Result::NoName => (&mut self.counts.no_name, true),
            answer::Result::ServerFailure => (&mut self.counts.server_failure, addresses),
            answer::Result::Refused => (&mut self.counts.refused, addresses),
            answer::Result::Other(_) => (&mut self.counts.other, addresses),
        };
        *count += 1;
        if !tells {
            return;
        }
        for status in select(&mut self.statuses, patterns) {
            let negative = Some(Negative {
                result: answer.result,
                kind: answer.kind,
                name: Arc::clone(&answer.question),
                when,
            });
            if answer.result == answer::Result::NoData {
                status.no_data = negative;
            } else {
                status.failed = negative;
            }
        }
    }
}

/// The statuses of some patterns, sorted and without doubles.
fn select<'a>(
    statuses: &'a mut [PatternStatus],
    patterns: &'a [PatternId],
) -> impl Iterator<Item = &'a mut PatternStatus> {
    let mut rest = statuses.iter_mut();
    let mut next = 0;
    patterns.iter().filter_map(move |id| {
        let at = usize::try_from(*id).ok()?;
        let status = rest.nth(at.checked_sub(next)?);
        next = at + 1;
        status
    })
}
