//! What the reader of states has to know beside them: of which time they are, and when nobody watched.

use super::Recalled;
use crate::export::times::{duration, time};
use crate::verdict::window::GapKind;

/// Gaps that are told one by one.
pub(super) const MOST_TOLD: usize = 8;

/// Gaps in which was watched, and not well: they are told in sum.
const LOSSES: [GapKind; 2] = [GapKind::PacketsLost, GapKind::NamesLost];

impl Recalled {
    /// What the reader has to know beside the states: of which time they are, and when nobody watched.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let Some(looked) = self.looked else {
            return vec!["nothing was ever written to the ledger: nobody has watched".to_owned()];
        };
        let mut notes = vec![format!(
            "states are over a window of {} that ends at {}",
            duration(self.watch.window()),
            time(self.at)
        )];
        if let Some(age) = self.unwatched {
            let what = if self.at == looked {
                "what happened since then is not told here"
            } else {
                "silence since then proves nothing"
            };
            notes.push(format!(
                "nobody has watched since {} (for {}): {what}",
                time(looked),
                duration(age)
            ));
        } else if self.blind {
            notes.push(format!("at {} nothing was captured", time(looked)));
        }
        self.gap_notes(&mut notes);
        notes
    }

    fn gap_notes(&self, notes: &mut Vec<String>) {
        let mut unwatched = Vec::new();
        for gap in &self.gaps {
            if LOSSES.contains(&gap.kind) {
                continue;
            }
            unwatched.push(format!(
                "not watched from {} to {}: {}",
                time(gap.from),
                time(gap.to),
                gap.kind.words()
            ));
        }
        let earlier = unwatched.len().saturating_sub(MOST_TOLD);
        if earlier > 0 {
            notes.push(format!(
                "not watched {earlier} more time(s) before these, too"
            ));
        }
        notes.extend(unwatched.drain(earlier..));
        for kind in LOSSES {
            let times = || self.gaps.iter().filter(|gap| gap.kind == kind);
            if let Some(last) = times().map(|gap| gap.to).max() {
                notes.push(format!(
                    "{} {} time(s) in the window, last at {}",
                    kind.words(),
                    times().count(),
                    time(last)
                ));
            }
        }
    }
}
