//! What is known of each requirement while the daemon runs. Counters say what happened, exactly and since they began,
//! also while no daemon ran; events say when a failure was last, where, and what went to a group. An event that is lost
//! costs a place or a time, never a count.

use std::collections::HashMap;

use flowproof_common::classify::FIRST_RULE_SLOT;
use flowproof_common::protocol;
use flowproof_common::record::{Event, EventKind};
use flowproof_common::state::Outcome;
use ipnet::IpNet;

use super::actor::View;
use crate::capture::SlotTotals;
use crate::matrix::ServiceKey;
use crate::matrix::installed::MemberId;
use crate::verdict::requirement::{Failure, Finding, Observation, Place, Vantage};
use crate::verdict::vantage::{Losses, Sightline};

/// Index of the loopback interface in every network namespace (`linux/if.h`, `LOOPBACK_IFINDEX` in `net/flow.h`).
const LOOPBACK: u32 = 1;

/// What events said of a counter slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotNotes {
    /// The last failure.
    failure: Option<Failure>,
    /// Flows sent to a group, where no answer can come: sent without an error is all that can be asked.
    to_group: u64,
    /// Those of them that were counted as failed for want of an answer.
    to_group_failed: u64,
    /// When the last of them was decided, in the back end's time.
    last_to_group: Option<u64>,
}

/// Notes by slot; slots are bounded by the matrix.
pub type Notes = HashMap<u32, SlotNotes>;

/// Notes an event.
pub(super) fn note(notes: &mut Notes, event: &Event) {
    // A flow that a reload judges anew takes its outcome along.
    let told = [EventKind::Decided as u8, EventKind::Rejudged as u8];
    if !told.contains(&event.kind) || event.record.slot < FIRST_RULE_SLOT {
        return;
    }
    let responder = event.key.end(event.record.state.initiator().other()).0;
    let outcome = event.record.state.outcome();
    let answerable = !event.record.state.to_group() && event.key.protocol != protocol::VRRP;
    if !answerable && matches!(outcome, Outcome::OneWay | Outcome::NoAnswer) {
        let notes = notes.entry(event.record.slot).or_default();
        notes.to_group += 1;
        notes.to_group_failed += u64::from(outcome == Outcome::NoAnswer);
        notes.last_to_group = notes.last_to_group.max(Some(event.time));
    } else if outcome.is_failure() {
        let hop = (event.has_icmp != 0).then_some(event.hop);
        let notes = notes.entry(event.record.slot).or_default();
        notes.failure = Some(Failure {
            at: event.time,
            outcome,
            place: Place::of(outcome, &responder, hop.as_ref()),
            told: hop.is_some(),
        });
    }
}

/// What the totals and the notes of one service come to. Where nothing of the service is answerable, totals say it all,
/// also of a time when nobody took notes.
fn observation(
    totals: &SlotTotals,
    notes: impl Iterator<Item = SlotNotes>,
    unanswerable: bool,
) -> Observation {
    let mut sum = SlotNotes::default();
    for notes in notes {
        sum.to_group += notes.to_group;
        sum.to_group_failed += notes.to_group_failed;
        sum.last_to_group = sum.last_to_group.max(notes.last_to_group);
        let at = |failure: Option<Failure>| failure.map(|failure| failure.at);
        if at(notes.failure) > at(sum.failure) {
            sum.failure = notes.failure;
        }
    }
    let count = |outcome: Outcome| totals.flows.decided[outcome as usize];
    if unanswerable {
        sum.to_group_failed = count(Outcome::NoAnswer);
        sum.to_group = count(Outcome::OneWay) + sum.to_group_failed;
        let sent = (sum.to_group > 0).then_some(totals.flows.last_attempt);
        sum.last_to_group = sum.last_to_group.max(sent);
    }
    let failed: u64 = Outcome::ALL
        .into_iter()
        .filter(|outcome| outcome.is_failure())
        .map(count)
        .sum();
    let failed = failed.saturating_sub(sum.to_group_failed);
    let answered = count(Outcome::Answered);
    let last_answer = (answered > 0).then_some(totals.flows.last_answered);
    // Failures of a time when nobody took events: the most frequent one, of no known place.
    let most = || {
        Outcome::ALL
            .into_iter()
            .filter(|outcome| outcome.is_failure())
            .max_by_key(|outcome| count(*outcome))
            .map(|outcome| Failure {
                at: 0,
                outcome,
                place: None,
                told: false,
            })
    };
    let failure = if failed == 0 {
        None
    } else {
        sum.failure.or_else(most).map(|failure| Failure {
            at: failure.at.max(totals.flows.last_failed),
            ..failure
        })
    };
    Observation::of_totals(
        [
            totals.flows.begun,
            answered + sum.to_group,
            failed,
            count(Outcome::OneWay).saturating_sub(sum.to_group.saturating_sub(sum.to_group_failed)),
        ],
        last_answer.max(sum.last_to_group),
        failure,
    )
}

/// What may have been missed: then silence proves nothing.
#[must_use]
pub fn losses(view: &View) -> Losses {
    let blind = view.failure.is_some() || view.attached.is_empty();
    let losses = view.snapshot.losses();
    Losses {
        packets: losses.packets || blind,
        ..losses
    }
}

/// Judges requirements by a view. `observe` is what the site says is seen from here.
pub struct States<'a> {
    view: &'a View,
    sightline: Sightline,
}

impl<'a> States<'a> {
    /// Of the matrix in force.
    #[must_use]
    pub fn new(view: &'a View, observe: &[IpNet]) -> Self {
        let loopback = view
            .attached
            .iter()
            .any(|interface| interface.index == LOOPBACK);
        let compiled = &view.matrix.compiled;
        Self {
            view,
            sightline: Sightline::new(compiled, &view.names, observe, loopback, losses(view)),
        }
    }

    /// What is known of a service.
    #[must_use]
    pub fn of(&self, key: ServiceKey, totals: &SlotTotals) -> Finding {
        self.observed(key, totals).0
    }

    /// What is known of a service, and what was seen of it. The times of the latter are not known here.
    #[must_use]
    pub fn observed(&self, key: ServiceKey, totals: &SlotTotals) -> (Finding, Observation) {
        let matrix = &self.view.matrix.compiled.matrix;
        let (requirement, service) = (matrix.requirement(key), matrix.service(key));
        let vantage: Vantage = self.sightline.of(key.system, requirement, service);
        let unanswerable = self
            .sightline
            .is_unanswerable(key.system, requirement, service);
        let member = MemberId::of(&matrix.service_id(key));
        let notes = self
            .view
            .matrix
            .directory
            .slots_of(member)
            .iter()
            .filter_map(|slot| self.view.notes.get(slot).copied());
        let observation = observation(totals, notes, unanswerable);
        (observation.finding(vantage), observation)
    }
}

#[cfg(test)]
mod tests {
    use flowproof_common::address::Address;
    use flowproof_common::classify::Judgement;
    use flowproof_common::key::{FlowKey, Side};
    use flowproof_common::record::{FlowRecord, SlotFlows};
    use flowproof_common::state::State as FlowState;
    use flowproof_common::ticks::Ticks;

    use super::*;
    use crate::verdict::requirement::State;

    const SLOT: u32 = 2;

    fn event(outcome: Outcome, responder: Address, time: u64) -> Event {
        let key = FlowKey {
            a: Address::from_v4([10, 0, 0, 1]),
            b: responder,
            port_a: 50_000,
            port_b: 443,
            protocol: protocol::UDP,
            icmp_type: 0,
            zero: [0; 2],
        };
        let judgement = Judgement {
            slot: FIRST_RULE_SLOT,
            initiator: Side::A,
            joined_midway: false,
            to_group: responder.is_group(),
            held: false,
        };
        let state = FlowState::new(&judgement, 1).failed(outcome, Side::A);
        Event {
            key,
            record: FlowRecord::new(state, SLOT, Ticks(0)),
            kind: EventKind::Decided as u8,
            time,
            ..Event::default()
        }
    }

    fn check(
        counts: &[(Outcome, u64)],
        last_answered: u64,
        events: &[Event],
        state: State,
        place: Option<&str>,
    ) {
        let failures = events
            .iter()
            .filter(|event| event.record.state.outcome().is_failure());
        let last_failed = failures.map(|event| event.time).max().unwrap_or(0);
        check_times(counts, [last_answered, last_failed], events, state, place);
    }

    fn check_times(
        counts: &[(Outcome, u64)],
        [last_answered, last_failed]: [u64; 2],
        events: &[Event],
        state: State,
        place: Option<&str>,
    ) {
        let mut notes = Notes::new();
        for event in events {
            note(&mut notes, event);
        }
        let mut flows = SlotFlows {
            last_answered,
            last_failed,
            ..SlotFlows::default()
        };
        for (outcome, count) in counts {
            flows.decided[*outcome as usize] = *count;
            flows.begun += count;
        }
        let totals = SlotTotals {
            flows,
            ..SlotTotals::default()
        };
        let finding = observation(&totals, notes.into_values(), false).finding(Vantage::Clear);
        assert_eq!(finding.state, state, "{counts:?} {events:?}");
        let got = finding.place.map(|place| place.to_string());
        assert_eq!(got.as_deref(), place);
    }

    #[test]
    fn counters_tell_the_state_and_events_the_place() {
        use Outcome::{Answered, NoAnswer, OneWay, Refused};
        let peer = Address::from_v4([10, 0, 0, 2]);
        let group = Address::from_v4([224, 0, 0, 251]);
        check(&[], 0, &[], State::Silent, None);
        check(&[(Answered, 3)], 5, &[], State::Verified, None);
        let silence = event(NoAnswer, peer, 9);
        check(
            &[(NoAnswer, 1)],
            0,
            &[silence],
            State::Blocked,
            Some("path"),
        );
        check(
            &[(Answered, 3), (NoAnswer, 1)],
            5,
            &[silence],
            State::Degraded,
            Some("path"),
        );
        check(
            &[(Answered, 4), (NoAnswer, 1)],
            12,
            &[silence],
            State::Verified,
            None,
        );
        // Counted while no daemon ran, or the event was lost.
        check(&[(Refused, 2)], 0, &[], State::Blocked, None);
        let both = [(Answered, 1), (Refused, 2)];
        check_times(&both, [5, 4], &[], State::Verified, None);
        check_times(&both, [5, 6], &[], State::Degraded, None);
        check(&[(OneWay, 1)], 0, &[], State::Unknown, None);
        let mut told = event(Refused, peer, 9);
        told.has_icmp = 1;
        told.hop = Address::from_v4([10, 0, 0, 254]);
        check(
            &[(Refused, 1)],
            0,
            &[told],
            State::Blocked,
            Some("hop 10.0.0.254"),
        );
        // Nothing answers for a group.
        check(
            &[(NoAnswer, 1)],
            0,
            &[event(NoAnswer, group, 4)],
            State::Verified,
            None,
        );
        let mut judged_anew = event(OneWay, group, 4);
        judged_anew.kind = EventKind::Rejudged as u8;
        check(&[(OneWay, 1)], 0, &[judged_anew], State::Verified, None);
    }

    #[test]
    fn what_nobody_can_answer_needs_no_notes() {
        let mut totals = SlotTotals::default();
        let state = |totals: &SlotTotals| {
            let finding = observation(totals, std::iter::empty(), true).finding(Vantage::Clear);
            finding.state
        };
        assert_eq!(state(&totals), State::Silent);
        totals.flows.begun = 3;
        totals.flows.last_attempt = 9;
        totals.flows.decided[Outcome::OneWay as usize] = 2;
        totals.flows.decided[Outcome::NoAnswer as usize] = 1;
        assert_eq!(state(&totals), State::Verified);
        totals.flows.decided = Default::default();
        totals.flows.decided[Outcome::Prohibited as usize] = 3;
        assert_eq!(state(&totals), State::Blocked);
    }
}
