//! What events said of a flow that its record has no room for: who sent the ICMP errors about it, why this host dropped
//! it, and what it was taken for before.

use flowproof_common::address::Address;
use flowproof_common::record::{Event, EventKind};
use flowproof_common::state::Outcome;

/// ICMP errors, and overturned outcomes, kept for one flow.
const KEPT: usize = 4;

/// An ICMP error about a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// Who sent it.
    pub hop: Address,
    /// Its type.
    pub icmp_type: u8,
    /// Its code.
    pub icmp_code: u8,
}

/// Notes on one flow.
#[derive(Clone, Default, Debug)]
pub struct Notes {
    /// When its outcome was decided last, nanoseconds of the back end's clock.
    pub decided: u64,
    /// Whether the last decision was an ICMP error's, the last of `errors`.
    pub told: bool,
    /// ICMP errors about it, the last one last.
    pub errors: Vec<IcmpError>,
    /// Outcomes that a later packet overturned.
    pub overturned: Vec<Outcome>,
    /// `enum skb_drop_reason` of the running kernel, if that dropped a packet of it; else 0.
    pub drop_reason: u32,
    outcome: Option<Outcome>,
}

impl Notes {
    /// Of a flow of which there is nothing to tell but when it was answered; 0 if it never was decided.
    #[must_use]
    pub fn of_answer(decided: u64) -> Self {
        Self {
            decided,
            ..Self::default()
        }
    }

    /// Notes an event of the flow.
    pub fn note(&mut self, event: &Event) {
        if event.kind == EventKind::Decided as u8 {
            let outcome = event.record.state.outcome();
            if let Some(before) = self.outcome.replace(outcome)
                && self.overturned.len() < KEPT
            {
                self.overturned.push(before);
            }
            self.decided = event.time;
            self.told = event.has_icmp != 0;
            if event.drop_reason != 0 {
                self.drop_reason = event.drop_reason;
            }
            self.keep(event);
        } else if event.kind == EventKind::IcmpError as u8 && !self.told {
            // It must not come after the one that decided.
            self.keep(event);
        }
    }

    fn keep(&mut self, event: &Event) {
        if event.has_icmp == 0 {
            return;
        }
        let error = IcmpError {
            hop: event.hop,
            icmp_type: event.icmp_type,
            icmp_code: event.icmp_code,
        };
        self.errors.retain(|known| *known != error);
        if self.errors.len() == KEPT {
            self.errors.remove(0);
        }
        self.errors.push(error);
    }
}
