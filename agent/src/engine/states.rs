//! What counters and events say of a requirement's service. Counters say what happened, exactly and since they began,
//! also while no daemon ran; events say when a failure was last, where, and what went to a group. An event that is lost
//! costs a place or a time, never a count.

use std::collections::HashMap;

use flowproof_common::classify::FIRST_RULE_SLOT;
use flowproof_common::protocol;
use flowproof_common::record::{Event, EventKind};
use flowproof_common::state::Outcome;

use crate::capture::SlotTotals;
use crate::verdict::requirement::{Failure, Place};
use crate::verdict::window::{Counts, Evidence, Totals};

/// What events said of a counter slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotNotes {
    /// The last failure.
    failure: Option<Failure>,
    /// What told it.
    failed: Option<Event>,
    /// Flows sent to a group, where no answer can come: sent without an error is all that can be asked.
    to_group: u64,
    /// Those of them that were counted as failed for want of an answer.
    to_group_failed: u64,
    /// When the last of them was decided, in the back end's time.
    last_to_group: Option<u64>,
}

impl SlotNotes {
    /// `enum skb_drop_reason` of the running kernel, if the last failure was a drop by this host.
    pub(super) fn drop_reason(&self) -> Option<u32> {
        self.failed
            .map(|event| event.drop_reason)
            .filter(|number| *number != 0)
    }
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
        notes.failed = Some(*event);
    }
}

/// What is known of a service since the counters began; times are the back end's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// How much.
    pub(super) totals: Totals,
    /// When it was last.
    pub(super) evidence: Evidence,
    /// The flow that failed last, if an event told of it.
    pub(super) failed: Option<Event>,
}

/// What the totals and the notes of one service come to. Where nothing of the service is answerable, totals say it all,
/// also of a time when nobody took notes.
pub(super) fn known(
    totals: &SlotTotals,
    notes: impl Iterator<Item = SlotNotes>,
    unanswerable: bool,
) -> Known {
    let mut sum = SlotNotes::default();
    for notes in notes {
        sum.to_group += notes.to_group;
        sum.to_group_failed += notes.to_group_failed;
        sum.last_to_group = sum.last_to_group.max(notes.last_to_group);
        let at = |failure: Option<Failure>| failure.map(|failure| failure.at);
        if at(notes.failure) > at(sum.failure) {
            sum.failure = notes.failure;
            sum.failed = notes.failed;
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
    let attempt = totals.flows.last_attempt;
    let [_, to_initiator] = totals.traffic.packets;
    Known {
        totals: Totals {
            flows: Counts {
                begun: totals.flows.begun,
                answered: answered + sum.to_group,
                failed,
                one_way: count(Outcome::OneWay)
                    .saturating_sub(sum.to_group.saturating_sub(sum.to_group_failed)),
            },
            replies: to_initiator,
        },
        evidence: Evidence {
            last_attempt: (attempt != 0).then_some(attempt),
            last_answer: last_answer.max(sum.last_to_group),
            last_failure: failure,
        },
        failed: failure.and(sum.failed),
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
    use crate::verdict::requirement::{Finding, Observation, State, Vantage};

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

    fn finding(
        totals: &SlotTotals,
        notes: impl Iterator<Item = SlotNotes>,
        unanswerable: bool,
    ) -> Finding {
        let known = known(totals, notes, unanswerable);
        let flows = known.totals.flows;
        Observation::of_totals(
            [flows.begun, flows.answered, flows.failed, flows.one_way],
            known.evidence.last_answer,
            known.evidence.last_failure,
        )
        .finding(Vantage::Clear)
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
        let finding = finding(&totals, notes.into_values(), false);
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
        let state = |totals: &SlotTotals| finding(totals, std::iter::empty(), true).state;
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
