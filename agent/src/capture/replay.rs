//! The back end that reads capture files. Its clock is the files' own: time is the time of the last packet, so the
//! same files always give the same answer.
//!
//! Files are merged by time, so that the captures of two interfaces of a router, or a capture in pieces given in any
//! order, are judged as what they are: one stretch of traffic.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use flowproof_common::key::FlowKey;
use flowproof_common::record::{ATTACH_GRACE, Event, FlowRecord};

use super::file::CaptureFile;
use super::user_space::{Captured, UserSpace};
use super::{Backend, Capture, CaptureError, Interface, Progress, Snapshot};
use crate::flow::{FlowTable, Limits, Span};
use crate::matrix::installed::Installed;

/// Frames judged in one go, so that a caller can look after other things in between.
const BATCH: usize = 4096;

/// Interfaces of one file, numbered in the order in which they appear; files are this far apart.
const NUMBERS_A_FILE: u32 = 256;

struct Source {
    file: CaptureFile,
    /// Index of the counters of each interface of the file.
    counters: Vec<usize>,
    /// Whether a frame of it has been judged.
    begun: bool,
}

/// Capture files as a [`Capture`].
pub struct Replay {
    judge: UserSpace,
    sources: Vec<Source>,
    /// Files that have a frame, by its time and by the order in which they were given.
    next: BinaryHeap<Reverse<(u64, usize)>>,
    started: bool,
    complaints: Vec<CaptureError>,
    first: Option<u64>,
    last: u64,
}

impl Replay {
    /// Will judge `files`.
    #[must_use]
    pub fn new(files: Vec<CaptureFile>, limits: Limits) -> Self {
        Self {
            judge: UserSpace::new(limits),
            sources: files
                .into_iter()
                .map(|file| Source {
                    file,
                    counters: Vec::new(),
                    begun: false,
                })
                .collect(),
            next: BinaryHeap::new(),
            started: false,
            complaints: Vec::new(),
            first: None,
            last: 0,
        }
    }

    /// Judges by `matrix` from the next packet on.
    pub fn judge_by(&mut self, matrix: &Arc<Installed>) {
        self.judge.install(matrix);
    }

    /// Judges some frames. `sink` gets every state change with the flow's exact times.
    pub fn step(&mut self, sink: &mut impl FnMut(&Event, Span)) -> Progress {
        if !self.started {
            self.started = true;
            for index in 0..self.sources.len() {
                self.advance(index);
            }
        }
        for _ in 0..BATCH {
            let Some(Reverse((_, index))) = self.next.pop() else {
                self.judge.advance_time(self.last, sink);
                return Progress::End;
            };
            self.judge_frame(index, sink);
            self.advance(index);
        }
        Progress::Live
    }

    fn judge_frame(&mut self, index: usize, sink: &mut impl FnMut(&Event, Span)) {
        let source = &mut self.sources[index];
        let Some(frame) = source.file.frame() else {
            return;
        };
        while source.counters.len() <= frame.interface {
            let name = &source.file.interfaces()[source.counters.len()];
            source.counters.push(self.judge.add_interface(name));
        }
        // A capture begins with the first file, and anew with one that does not follow closely.
        let begins = !std::mem::replace(&mut source.begun, true);
        if begins && (self.first.is_none() || frame.time.saturating_sub(self.last) > ATTACH_GRACE) {
            self.judge.attached(frame.time);
        }
        self.first.get_or_insert(frame.time);
        self.last = self.last.max(frame.time);
        let numbers = u32::try_from(index)
            .unwrap_or(0)
            .wrapping_mul(NUMBERS_A_FILE);
        let number = u32::try_from(frame.interface).unwrap_or(0);
        let captured = Captured {
            link: frame.link,
            data: frame.data,
            wire_length: frame.wire_length,
            time: frame.time,
            interface: source.counters[frame.interface],
            number: numbers.wrapping_add(number).wrapping_add(1),
        };
        self.judge.on_frame(&captured, sink);
    }

    fn advance(&mut self, index: usize) {
        let file = &mut self.sources[index].file;
        match file.advance() {
            Ok(true) => {
                if let Some(frame) = file.frame() {
                    self.next.push(Reverse((frame.time, index)));
                }
            }
            Ok(false) => self.complaints.extend(file.complaint()),
            Err(error) => {
                self.complaints.extend(file.complaint());
                self.complaints.push(error);
            }
        }
    }

    /// What could not be read, though the rest was judged: damaged files, unsupported link types. Complete at the end.
    #[must_use]
    pub fn complaints(&self) -> &[CaptureError] {
        &self.complaints
    }

    /// See [`Self::complaints`].
    #[must_use]
    pub fn into_complaints(self) -> Vec<CaptureError> {
        self.complaints
    }

    /// Times of the first and the last packet; nothing without packets.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        self.first.map(|first| Span {
            first,
            last: self.last,
        })
    }

    /// The flow table.
    #[must_use]
    pub fn table(&self) -> &FlowTable {
        self.judge.table()
    }

    /// All totals.
    #[must_use]
    pub fn totals(&self) -> Snapshot {
        let skipped = self
            .sources
            .iter()
            .map(|source| source.file.skipped())
            .sum();
        let broken = self
            .sources
            .iter()
            .filter(|source| source.file.is_broken())
            .count();
        self.judge
            .snapshot(&[("link_type", skipped), ("file", broken as u64)])
    }
}

impl Capture for Replay {
    fn backend(&self) -> Backend {
        Backend::Replay
    }

    /// Files have their interfaces.
    fn attach(&mut self, _: &Interface) -> Result<(), CaptureError> {
        Ok(())
    }

    fn detach(&mut self, _: &Interface) {}

    fn install(&mut self, matrix: &Arc<Installed>) -> Result<(), CaptureError> {
        self.judge_by(matrix);
        Ok(())
    }

    /// Never waits.
    fn poll(
        &mut self,
        _: Duration,
        sink: &mut dyn FnMut(&Event),
    ) -> Result<Progress, CaptureError> {
        Ok(self.step(&mut |event: &Event, _| sink(event)))
    }

    fn snapshot(&mut self) -> Result<Snapshot, CaptureError> {
        Ok(self.totals())
    }

    fn flows(&mut self) -> Result<Vec<(FlowKey, FlowRecord)>, CaptureError> {
        Ok(self.judge.flows())
    }

    /// The times of capture files are those of the Unix epoch.
    fn epoch_offset(&self) -> i128 {
        0
    }
}
