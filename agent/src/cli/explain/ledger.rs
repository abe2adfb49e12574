//! What a ledger keeps of a flow: who talked to whom by the hour, the states of the rows that cover it, and what was counted
//! beside it if it is unexpected.

use std::collections::BTreeSet;

use flowproof_common::address::Address;
use flowproof_common::classify::Verdict;
use flowproof_common::state::Outcome;

use super::question::Question;
use super::seen::{Look, Seen, Source};
use crate::cli::Error;
use crate::cli::ledger::recall;
use crate::cli::replay::Judged;
use crate::export::times::time;
use crate::ledger::{HourCounts, HourKey};
use crate::verdict::explain::{End, Explanation};
use crate::verdict::role_name;

/// What is kept of flows that are alike.
#[derive(Debug, Default)]
struct Hours {
    counts: HourCounts,
    /// The first and the last hour, since the Unix epoch.
    span: Option<[u64; 2]>,
    /// Flows that were judged otherwise when they were seen.
    otherwise: u64,
}

impl Hours {
    fn add(&mut self, key: &HourKey, counts: &HourCounts, verdict: Verdict) {
        self.counts.add(counts);
        self.span = Some(match self.span {
            Some([first, last]) => [first.min(key.hour), last.max(key.hour)],
            None => [key.hour, key.hour],
        });
        if key.verdict != verdict {
            self.otherwise = self.otherwise.saturating_add(counts.begun);
        }
    }
}

/// Whether flows of an hour are those that are asked about. The ledger keeps no names of initiators.
fn is_asked(question: &Question, key: &HourKey) -> bool {
    let asked = &question.asked;
    let is = |wanted: &Address, address: &Address, named: bool| named || wanted == address;
    (key.protocol, key.port) == (asked.protocol, asked.service)
        && is(
            &asked.initiator,
            &key.initiator,
            question.names[0].is_some(),
        )
        && is(
            &asked.responder,
            &key.responder,
            question.names[1].is_some(),
        )
        && question.names[1]
            .as_ref()
            .is_none_or(|wanted| key.names.split(' ').any(|name| name == &**wanted))
}

/// Looks for the flow, and for the requirements that cover it.
pub(super) fn look(
    look: &Look,
    judged: &Judged,
    question: &Question,
    explanation: &Explanation,
    requirements: &[String],
) -> Result<Option<Seen>, Error> {
    let Some(named) = &look.ledger else {
        return Ok(None);
    };
    let (recalled, hours, path) = recall(named, look.at, |view| {
        let mut hours = Hours::default();
        view.each_hour(0..u64::MAX, |record| {
            if is_asked(question, &record.key) {
                hours.add(&record.key, &record.counts, explanation.verdict);
            }
        })?;
        Ok(hours)
    })?;
    let mut seen = Seen::new(Source::Ledger(path.display().to_string()));
    seen.flows = hours.counts.begun;
    seen.by_outcome = Outcome::ALL
        .into_iter()
        .zip(hours.counts.decided)
        .filter(|(_, count)| *count > 0)
        .map(|(outcome, count)| (outcome.name().to_owned(), count))
        .collect();
    seen.first_seen = hours.span.map(|[first, _]| time(HourKey::begin_of(first)));
    seen.last_seen = hours.span.map(|[_, last]| time(HourKey::begin_of(last)));
    let matrix = judged.matrix();
    for &index in judged.deployed() {
        let system = matrix.system(index);
        for (row, requirement) in system.indexed_requirements() {
            if requirements.contains(&matrix.requirement_id(index, row)) {
                seen.requirements
                    .push(recalled.requirement(system, requirement));
            }
        }
    }
    let compiled = &judged.installed().compiled;
    let roles = |end: &End| -> BTreeSet<String> {
        end.roles
            .iter()
            .map(|(role, _)| role_name(compiled, *role))
            .collect()
    };
    if explanation.verdict == Verdict::Unexpected {
        seen.unexpected = recalled.unexpected_between(
            judged.explainer(),
            [
                &roles(&explanation.initiator),
                &roles(&explanation.responder),
            ],
            question.asked.protocol,
            question.asked.service,
        );
    }
    if hours.otherwise > 0 && !explanation.depends_on_name {
        seen.note(format!(
            "{} of these flows were judged otherwise when they were seen: another matrix or site was in force then",
            hours.otherwise
        ));
    }
    if question.names[0].is_some() {
        seen.note(
            "the ledger keeps no names of initiators: flows of all that opened any are counted"
                .to_owned(),
        );
    }
    for note in recalled.notes() {
        seen.note(note);
    }
    Ok(Some(seen))
}
