use std::sync::Arc;

use flowproof_common::classify::{Judgement, UNEXPECTED_SLOT, Verdict};
use flowproof_common::key::{FlowKey, Side};
use flowproof_common::protocol;
use flowproof_common::record::FlowRecord;
use flowproof_common::state::State;
use flowproof_common::ticks::Ticks;

use super::*;
use crate::names::Settings;

const HOUR: u64 = 3_600_000_000_000;

/// An event of an unexpected flow from 10.0.0.`client` to port 22.
fn event(client: u8, kind: EventKind, outcome: Outcome, held: bool) -> Event {
    let key = FlowKey {
        a: Address::from_v4([10, 0, 0, client]),
        b: Address::from_v4([10, 0, 1, 1]),
        port_a: 50_000,
        port_b: 22,
        protocol: protocol::TCP,
        icmp_type: 0,
        zero: [0; 2],
    };
    let judgement = Judgement {
        slot: UNEXPECTED_SLOT,
        initiator: Side::A,
        joined_midway: false,
        to_group: false,
        held,
    };
    let state = State::new(&judgement, 1);
    let state = if outcome == Outcome::Pending {
        state
    } else {
        state.failed(outcome, Side::A)
    };
    Event {
        key,
        record: FlowRecord::new(state, UNEXPECTED_SLOT, Ticks(0)),
        kind: kind as u8,
        time: HOUR + u64::from(client),
        ..Event::default()
    }
}

fn begun(client: u8) -> Event {
    event(client, EventKind::Begun, Outcome::Pending, false)
}

fn refused(client: u8) -> Event {
    event(client, EventKind::Decided, Outcome::Refused, false)
}

/// Notes those of the events that are wanted, as the capture thread does.
fn noted(record: &mut Record, events: &[Event]) {
    let namer = Namer::new(Settings::default());
    for event in events.iter().filter(|event| Record::wants(event)) {
        let service = UnexpectedService {
            from: Arc::from("s/a"),
            to: Arc::from("s/b"),
            protocol: event.key.protocol,
            port: 22,
        };
        record.note(event, &namer, i128::from(HOUR), Some(service));
    }
}

#[test]
fn a_flow_is_one_record_from_its_begin_to_its_outcome() {
    let mut record = Record::default();
    noted(
        &mut record,
        &[
            begun(1),
            // Told of, and nothing new.
            event(1, EventKind::IcmpError, Outcome::Pending, false),
            refused(1),
            event(1, EventKind::Rejudged, Outcome::Refused, false),
            event(1, EventKind::Ended, Outcome::Refused, false),
            begun(1),
            begun(2),
        ],
    );
    let key = |client| HourKey {
        hour: 2,
        initiator: Address::from_v4([10, 0, 0, client]),
        responder: Address::from_v4([10, 0, 1, 1]),
        protocol: protocol::TCP,
        port: 22,
        verdict: Verdict::Unexpected,
        names: String::new(),
    };
    assert_eq!(record.hours.len(), 2);
    let counts = record.hours[&key(1)];
    assert_eq!(counts.begun, 2);
    assert_eq!(counts.decided.iter().sum::<u64>(), 1);
    assert_eq!(counts.decided[Outcome::Refused as usize], 1);
    let seen = record.unexpected.values().next().unwrap();
    assert_eq!((seen.flows, seen.answered, seen.samples.len()), (3, 0, 2));
    assert_eq!(seen.seen, [2 * HOUR + 1, 2 * HOUR + 2]);
}

#[test]
fn a_flow_that_waits_for_its_name_counts_once_it_has_one() {
    let mut record = Record::default();
    noted(
        &mut record,
        &[event(1, EventKind::Begun, Outcome::Pending, true)],
    );
    assert!(record.hours.is_empty() && record.unexpected.is_empty());
    noted(
        &mut record,
        &[event(1, EventKind::Named, Outcome::Pending, false)],
    );
    assert_eq!(record.hours.values().next().unwrap().begun, 1);
}

#[test]
fn what_nobody_took_is_not_lost() {
    let mut taken = Record::default();
    noted(&mut taken, &[begun(1), refused(1)]);
    taken.dropped = 3;
    let mut record = Record::default();
    noted(&mut record, &[begun(1), begun(2)]);
    record.put_back(taken);
    assert_eq!((record.hours.len(), record.dropped), (2, 3));
    let begun: u64 = record.hours.values().map(|counts| counts.begun).sum();
    assert_eq!(begun, 3);
    assert_eq!(record.unexpected.values().next().unwrap().flows, 3);
}

#[test]
fn a_flood_finds_no_room_and_is_counted() {
    let mut record = Record::default();
    let mut event = begun(1);
    let namer = Namer::new(Settings::default());
    let more = 7;
    for number in 0..MOST_HOURS + more {
        let [_, high, middle, low] = u32::try_from(number).unwrap().to_be_bytes();
        event.key.a = Address::from_v4([10, high, middle, low]);
        record.note(&event, &namer, 0, None);
    }
    assert_eq!(record.hours.len(), MOST_HOURS);
    assert_eq!(record.dropped, more as u64);
    // What is known goes on being counted.
    event.key.a = Address::from_v4([10, 0, 0, 1]);
    record.note(&event, &namer, 0, None);
    assert_eq!(record.dropped, more as u64);
}
