//! The second reading: what is neither a scan nor in doubt, added up by pair of roles and service.

use std::net::IpAddr;

use flowproof_common::protocol;

use super::Options;
use super::evidence::Tally;
use super::judge::{EndKey, Judge, Judged, Pair};
use super::least::LeastMap;
use super::propose::{self, Suggestions, Totals};
use super::survey::{Fan, Suspect, SuspectKey, is_empty, is_ephemeral};
use crate::ledger::HourRecord;

/// Pairs of roles and services that are kept.
const MOST_ENTRIES: usize = 50_000;

/// The second reading.
#[derive(Debug)]
pub struct Gathering {
    pub(super) judge: Judge,
    pub(super) options: Options,
    pub(super) fans: LeastMap<IpAddr, Fan>,
    pub(super) suspects: LeastMap<SuspectKey, Suspect>,
    /// By pair, protocol and port.
    pub(super) entries: LeastMap<(Pair, u8, u16), Tally>,
    pub(super) totals: Totals,
}

impl Gathering {
    pub(super) const fn new(
        judge: Judge,
        options: Options,
        fans: LeastMap<IpAddr, Fan>,
        suspects: LeastMap<SuspectKey, Suspect>,
        totals: Totals,
    ) -> Self {
        Self {
            judge,
            options,
            fans,
            suspects,
            entries: LeastMap::new(MOST_ENTRIES),
            totals,
        }
    }

    /// Takes a record; their order does not matter.
    pub fn add(&mut self, record: &HourRecord) {
        if is_ephemeral(&record.key) || is_empty(record) {
            return;
        }
        self.mark_reversed(record);
        let Judged::Unexpected(pair) = self.judge.judge(&record.key) else {
            return;
        };
        let initiator = record.key.initiator.into();
        match self.fans.entries().get(&initiator) {
            Some(fan) if fan.is_scan() => return,
            Some(_) => {}
            // Nobody looked whether it scans.
            None => {
                self.totals.folded_flows += record.counts.begun;
                return;
            }
        }
        let key = (pair, record.key.protocol, record.key.port);
        let folded = &mut self.totals.folded_flows;
        match self
            .entries
            .entry(&key, Tally::default, |gone| *folded += gone.flows())
        {
            Some(tally) => tally.add(record),
            None => self.totals.folded_flows += record.counts.begun,
        }
    }

    /// A service between two hosts explains conversations the other way round over a client's port.
    fn mark_reversed(&mut self, record: &HourRecord) {
        if !protocol::has_ports(record.key.protocol) || record.key.port == 0 {
            return;
        }
        let (server, client) = (record.key.responder.into(), record.key.initiator.into());
        let protocol = record.key.protocol;
        let least = (client, server, protocol, (EndKey::Nobody, EndKey::Nobody));
        for ((to, from, number, _), suspect) in self.suspects.entries_mut().range_mut(least..) {
            if (*to, *from, *number) != (client, server, protocol) {
                break;
            }
            let port = suspect
                .reversed
                .map_or(record.key.port, |port| port.min(record.key.port));
            suspect.reversed = Some(port);
        }
    }

    /// What follows.
    #[must_use]
    pub fn finish(self) -> Suggestions {
        propose::propose(self)
    }
}
