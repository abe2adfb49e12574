//! A matrix on trial: the flows that were seen, judged by the matrix in force and by a draft of the next one, so that
//! what the draft would newly call unexpected, newly cover or not need is known before it is in force.
//!
//! `overlay` and `load` make the draft's tables from files, `verdict/recorded` is what one matrix says of a flow, `judge` adds
//! up where two of them differ, `groups` keeps that bounded, `report` is the result. Both matrices judge anew, by the same
//! code, so that what differs is the matrices and never the moment; and a verdict that hangs on a name which nobody wrote
//! down is left open instead of guessed.
//!
//! Pure but for `load`: no clock, no packets, no ledger. It is fed with [`HourRecord`](crate::ledger::HourRecord)s, which a
//! ledger, a capture and a daemon all have.

mod groups;
mod judge;
mod load;
mod overlay;
pub mod report;
#[cfg(test)]
mod tests;

pub use judge::Judge;
pub use load::{DraftError, DraftFiles, Loaded};
pub use overlay::{Change, DraftSystem, overlay};
pub use report::DraftReport;
