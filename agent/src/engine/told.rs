//! What events said of flows that are still in the tables: ICMP errors and drops on this host, which explain an outcome and
//! have no room in a record. Flows of which nothing was said cost nothing; of a flood of errors the latest are kept.

use std::collections::{BTreeMap, HashMap};

use flowproof_common::key::FlowKey;
use flowproof_common::record::{Event, EventKind};

use crate::flow::notes::Notes;

/// Flows that notes are kept of, about 2 MB.
const KEPT: usize = 8_192;

/// Notes by flow.
#[derive(Debug, Default)]
pub(super) struct Told {
    notes: HashMap<FlowKey, (u64, Notes)>,
    /// The flows in the order in which something was said of them first.
    order: BTreeMap<u64, FlowKey>,
    next: u64,
}

impl Told {
    /// Notes an event.
    pub(super) fn note(&mut self, event: &Event) {
        if event.kind == EventKind::Ended as u8 {
            if let Some((place, _)) = self.notes.remove(&event.key) {
                self.order.remove(&place);
            }
            return;
        }
        let says = event.has_icmp != 0 || event.drop_reason != 0;
        if let Some((_, notes)) = self.notes.get_mut(&event.key) {
            notes.note(event);
        } else if says {
            let mut notes = Notes::default();
            notes.note(event);
            self.notes.insert(event.key, (self.next, notes));
            self.order.insert(self.next, event.key);
            self.next += 1;
            if self.notes.len() > KEPT
                && let Some((_, oldest)) = self.order.pop_first()
            {
                self.notes.remove(&oldest);
            }
        }
    }

    /// Adds to a decision that was held back what was said when it was made.
    pub(super) fn complete(&self, event: &mut Event) {
        let held_back = event.kind == EventKind::Decided as u8
            && event.record.state.is_named()
            && event.has_icmp == 0
            && event.drop_reason == 0;
        if !held_back {
            return;
        }
        if let Some(notes) = self.of(&event.key) {
            event.drop_reason = notes.drop_reason;
            if let Some(error) = notes.errors.last() {
                event.hop = error.hop;
                event.icmp_type = error.icmp_type;
                event.icmp_code = error.icmp_code;
                event.has_icmp = 1;
            }
        }
    }

    /// What was said of a flow.
    pub(super) fn of(&self, key: &FlowKey) -> Option<&Notes> {
        self.notes.get(key).map(|(_, notes)| notes)
    }
}

#[cfg(test)]
mod tests {
    use flowproof_common::address::Address;
    use flowproof_common::protocol;

    use super::*;

    fn event(port: u32, kind: EventKind, has_icmp: u8) -> Event {
        Event {
            key: FlowKey {
                a: Address::from_v4([10, 0, 0, 1]),
                b: Address::from_v4([10, 1, u8::try_from(port >> 16).unwrap(), 2]),
                port_a: 1,
                port_b: u16::try_from(port & 0xffff).unwrap(),
                protocol: protocol::TCP,
                icmp_type: 0,
                zero: [0; 2],
            },
            kind: kind as u8,
            hop: Address::from_v4([10, 0, 0, 254]),
            icmp_type: 3,
            icmp_code: 13,
            has_icmp,
            ..Event::default()
        }
    }

    #[test]
    fn keeps_what_was_said_until_the_flow_ends() {
        let mut told = Told::default();
        let silent = event(1, EventKind::Decided, 0);
        told.note(&silent);
        assert!(told.of(&silent.key).is_none());
        let spoken = event(2, EventKind::Decided, 1);
        told.note(&spoken);
        told.note(&event(2, EventKind::IcmpError, 1));
        assert_eq!(told.of(&spoken.key).unwrap().errors.len(), 1);
        let mut dropped = event(3, EventKind::Decided, 0);
        dropped.drop_reason = 7;
        told.note(&dropped);
        assert_eq!(told.of(&dropped.key).unwrap().drop_reason, 7);
        told.note(&event(2, EventKind::Ended, 0));
        assert!(told.of(&spoken.key).is_none());
        assert_eq!((told.notes.len(), told.order.len()), (1, 1));
    }

    #[test]
    fn a_flood_pushes_out_what_is_oldest() {
        let mut told = Told::default();
        let kept = u32::try_from(KEPT).unwrap();
        for port in 0..kept + 10 {
            told.note(&event(port, EventKind::Decided, 1));
        }
        assert_eq!((told.notes.len(), told.order.len()), (KEPT, KEPT));
        assert!(told.of(&event(9, EventKind::Decided, 1).key).is_none());
        assert!(told.of(&event(10, EventKind::Decided, 1).key).is_some());
    }
}
