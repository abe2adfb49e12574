//! The draft that a running daemon judges by too, beside the matrix in force. It is judged by in user space, from what is
//! recorded of flows for the ledger: a draft costs no packet anything.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::policy::Policy;
use crate::config::Config;
use crate::draft::{DraftError, DraftFiles, Judge};
use crate::export::times::time;
use crate::matrix::compile::HostAddresses;
use crate::matrix::installed::{Installed, SlotDirectory};
use crate::names::wall_time;

/// What judges by the draft of a configuration; nothing if it has none. `own` are this host's addresses.
///
/// # Errors
/// The draft has errors, or changes nothing.
pub(super) fn load(
    config: &Config,
    policy: &Policy,
    own: &[IpAddr],
) -> Result<Option<Judge>, DraftError> {
    if config.draft.is_empty() && config.draft_site.is_none() {
        return Ok(None);
    }
    let files = DraftFiles {
        matrix: &config.matrix,
        site: config.site.as_deref(),
        draft: &config.draft,
        draft_site: config.draft_site.as_deref(),
        tags: &config.tag_options(),
    };
    let loaded = files.load(&HostAddresses::Known(own.to_vec()))?;
    for finding in loaded.findings.as_slice() {
        tracing::debug!("{finding}");
    }
    let in_force = Installed::new(Arc::clone(&policy.compiled), SlotDirectory::default());
    let mut judge = Judge::new(Arc::new(in_force), loaded.installed).with_systems(loaded.systems);
    for note in loaded.notes {
        tracing::warn!("the draft: {note}");
        judge.note(note);
    }
    let now = wall_time::nanos(SystemTime::now());
    judge.note(format!(
        "flows that began since {}, when this daemon read the draft",
        time(now)
    ));
    Ok(Some(judge))
}
