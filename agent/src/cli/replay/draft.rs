//! `flowproof replay --draft`: the flows of capture files, or of a ledger, by the matrix in force and by a draft. The JSON form is
//! one line more, of type `draft`; its fields are those of [`crate::draft::report`].

use std::io::{self, Write};
use std::path::PathBuf;

use super::gather::Flow;
use crate::cli::when::When;
use crate::cli::{Error, Format, ledger, line, print_error, snippet};
use crate::config::STATE_DIRECTORY;
use crate::draft::{DraftError, DraftFiles, DraftReport, Judge, Loaded};
use crate::export::times;
use crate::ledger::HourKey;
use crate::matrix::compile::HostAddresses;
use crate::plural::counted;
use crate::report::render;
use crate::site::tags::TagOptions;
use crate::verdict::vantage::Losses;
use crate::verdict::window::{Gap, GapKind};

use super::{Judged, hours};

/// The flags that put a draft on trial.
#[derive(Debug, clap::Args)]
pub(super) struct DraftArguments {
    /// Judge by this matrix too, and tell what it would change: files, or folders of them. A system in it takes the place
    /// of the one with its id
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "matrix")]
    draft: Vec<PathBuf>,
    /// The site file of the draft [default: that of --site]
    #[arg(long, value_name = "FILE", requires = "matrix")]
    draft_site: Option<PathBuf>,
    /// Judge the flows of a ledger in place of capture files, named by its file or by the daemon's state directory
    /// [default: /var/lib/flowproof]
    #[arg(
        long, value_name = "PATH", num_args = 0..=1, default_missing_value = STATE_DIRECTORY, conflicts_with = "files",
        requires = "matrix"
    )]
    pub(super) ledger: Option<PathBuf>,
    /// Only flows of hours from then on: an age such as 7d, or a time such as 2026-01-31T08:00:00Z
    #[arg(long, value_name = "WHEN", requires = "ledger", value_parser = When::parse)]
    since: Option<When>,
    /// Only flows of hours before then
    #[arg(long, value_name = "WHEN", requires = "ledger", value_parser = When::parse)]
    until: Option<When>,
}

impl DraftArguments {
    /// Whether there is a draft.
    pub(super) const fn is_given(&self) -> bool {
        !self.draft.is_empty() || self.draft_site.is_some()
    }

    /// The files after `--draft`, without those that can't be a matrix: these are capture files, see `Arguments::paths`.
    pub(super) fn listed(&self) -> &[PathBuf] {
        &self.draft
    }

    /// Reads the draft; nothing if it has errors, which are printed.
    pub(super) fn judge(
        &self,
        matrix: &[PathBuf],
        site: Option<&PathBuf>,
        draft: &[PathBuf],
        tags: &TagOptions,
        judged: &Judged,
    ) -> Result<Option<Judge>, Error> {
        let files = DraftFiles {
            matrix,
            site: site.map(PathBuf::as_path),
            draft,
            draft_site: self.draft_site.as_deref(),
            tags,
        };
        match files.load(&HostAddresses::Unknown) {
            Ok(Loaded {
                installed,
                systems,
                notes,
                findings: _,
            }) => {
                let mut judge =
                    Judge::new(judged.installed().clone(), installed).with_systems(systems);
                for note in notes {
                    judge.note(note);
                }
                Ok(Some(judge))
            }
            Err(error) => {
                let DraftError::Findings { findings, .. } = &error else {
                    return Err(Error::Draft(error));
                };
                print_error(|out| {
                    snippet::write(findings, out)?;
                    writeln!(out, "flowproof: {error}")
                })?;
                Ok(None)
            }
        }
    }

    /// Adds the flows of the ledger.
    pub(super) fn read_ledger(
        &self,
        path: &std::path::Path,
        now: u64,
        judge: &mut Judge,
    ) -> Result<(), Error> {
        let since = self.since.map_or(0, |when| when.nanos(now));
        // A ledger's numbers have a sign.
        let until = self
            .until
            .map_or(i64::MAX.unsigned_abs(), |when| when.nanos(now));
        if since >= until {
            return Err(Error::Usage(
                "--since is not before --until: no hour lies between them".to_owned(),
            ));
        }
        let hours = HourKey::hour_of(since)..HourKey::hour_of(until - 1) + 1;
        let (gaps, _) = ledger::read(path, |view| {
            view.each_hour(hours, |record| judge.add(&record))?;
            view.gaps(since)
        })?;
        for note in gap_notes(&gaps, since, until) {
            judge.note(note);
        }
        Ok(())
    }
}

/// Adds the flows of a capture, and what it may have missed.
pub(super) fn add_capture(judge: &mut Judge, flows: &[Flow], lossy: Losses) {
    for record in hours(flows) {
        judge.add(&record);
    }
    let pending = flows
        .iter()
        .filter(|flow| flow.record.state.is_held())
        .count();
    if pending > 0 {
        judge.note(format!(
            "{} not judged: nobody knows the name that the verdict in force depends on",
            counted(pending, "flow")
        ));
    }
    if lossy.packets {
        judge.note("packets are missing: a row without a flow may have had one".to_owned());
    }
    if lossy.names {
        judge.note("names are missing: a row by name without a flow may have had one".to_owned());
    }
}

/// For each kind of gap how much of the time it took, since a row without flows proves nothing then.
fn gap_notes(gaps: &[Gap], since: u64, until: u64) -> Vec<String> {
    GapKind::ALL
        .into_iter()
        .filter_map(|kind| {
            let inside: Vec<u64> = gaps
                .iter()
                .filter(|gap| gap.kind == kind && gap.from < until)
                .map(|gap| gap.to.min(until).saturating_sub(gap.from.max(since)))
                .collect();
            if inside.is_empty() {
                return None;
            }
            let sum = inside
                .iter()
                .fold(0_u64, |sum, one| sum.saturating_add(*one));
            let what = kind.words();
            let long = times::duration(sum);
            Some(format!(
                "{what} for {long} in {}: a row without a flow may have had one then",
                counted(inside.len(), "stretch").replace("stretchs", "stretches")
            ))
        })
        .collect()
}

/// Writes what came of it.
pub(super) fn write(report: &DraftReport, format: Format, out: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Json => line(report, out),
        Format::Text => out.write_all(render::draft::render(report).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_summed_up_by_kind_and_cut_to_the_time_asked_for() {
        const S: u64 = 1_000_000_000;
        let gap = |kind, from: u64, to: u64| Gap {
            kind,
            from: from * S,
            to: to * S,
            lost: 1,
        };
        let gaps = [
            gap(GapKind::Down, 0, 100),
            gap(GapKind::PacketsLost, 120, 120),
            gap(GapKind::Down, 190, 300),
            gap(GapKind::Blind, 200, 300),
        ];
        assert_eq!(
            gap_notes(&gaps, 50 * S, 200 * S),
            [
                "the daemon was down for 1m in 2 stretches: a row without a flow may have had one then",
                "packets or events were lost for 0s in 1 stretch: a row without a flow may have had one then",
            ]
        );
        assert_eq!(gap_notes(&[], 0, 1), [""; 0]);
    }
}
