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
use crate::flow::{FlowTable, Limits, Moments, Span};
use crate::matrix::installed::Installed;
use crate::names::{self, Namer};

/// Frames judged in one go, so that a caller can look after other things in between.
const BATCH: usize = 4096;

/// Capture points of one interface of a file: itself, and those behind it if it is "any". Their numbers share 15 bits with
/// those of all others, so that more than a hundred interfaces may be taken for each other.
const NUMBERS_AN_INTERFACE: u32 = 317;

struct Source {
    file: CaptureFile,
    /// Index of the counters of each interface of the file, and the number of its first capture point.
    points: Vec<(usize, u32)>,
    /// Taken at its first frame.
    lane: Option<usize>,
}

/// Capture points that are one. A capture in pieces goes on where its last piece ended: if the pieces were points of
/// their own, the second would be taken for a duplicate of the first.
struct Lane {
    /// Numbers of the interfaces, in the order of their appearance in a file.
    numbers: Vec<u32>,
    /// The file that used it last, if that is at its end.
    free_after: Option<String>,
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
    lanes: Vec<Lane>,
    /// Interfaces of all lanes.
    interfaces: u32,
}

impl Replay {
    /// Will judge `files`.
    #[must_use]
    pub fn new(files: Vec<CaptureFile>, limits: Limits, names: names::Settings) -> Self {
        Self {
            judge: UserSpace::new(limits, names),
            sources: files
                .into_iter()
                .map(|file| Source {
                    file,
                    points: Vec::new(),
                    lane: None,
                })
                .collect(),
            next: BinaryHeap::new(),
            started: false,
            complaints: Vec::new(),
            first: None,
            last: 0,
            lanes: Vec::new(),
            interfaces: 0,
        }
    }

    /// Judges by `matrix` from the next packet on.
    pub fn judge_by(&mut self, matrix: &Arc<Installed>) {
        self.judge.install(matrix, self.last);
    }

    /// Judges some frames. `sink` gets every state change with the flow's exact times.
    pub fn step(&mut self, sink: &mut impl FnMut(&Event, Moments)) -> Progress {
        if !self.started {
            self.started = true;
            for index in 0..self.sources.len() {
                self.advance(index);
            }
        }
        let mut left = BATCH;
        while left > 0 {
            let Some(Reverse((_, index))) = self.next.pop() else {
                self.judge.advance_time(self.last, sink);
                self.judge.finish(sink);
                return Progress::End;
            };
            left -= self.judge_frames(index, left, sink);
            self.advance(index);
        }
        Progress::Live
    }

    /// Judges the file's next frame, and those behind it whose turn it is before any other file's, if they are at hand and
    /// no more than `most`; how many.
    fn judge_frames(
        &mut self,
        index: usize,
        most: usize,
        sink: &mut impl FnMut(&Event, Moments),
    ) -> usize {
        let begins = self.sources[index].lane.is_none();
        let lane = match self.sources[index].lane {
            Some(lane) => lane,
            None => self.take_lane(index),
        };
        let source = &mut self.sources[index];
        let Some(first) = source.file.frame() else {
            return 1;
        };
        // A capture begins with the first file, and anew with one that does not follow closely.
        if begins && (self.first.is_none() || first.time.saturating_sub(self.last) > ATTACH_GRACE) {
            self.judge.attached(first.time);
        }
        self.first.get_or_insert(first.time);
        let other = self.next.peek().map(|Reverse(other)| *other);
        let (mut count, mut interfaces) = (0, 0);
        while count < most
            && let Some(frame) = source.file.ahead(count)
            && (count == 0 || other.is_none_or(|other| (frame.time, index) < other))
        {
            self.last = self.last.max(frame.time);
            interfaces = interfaces.max(frame.interface + 1);
            count += 1;
        }
        while source.points.len() < interfaces {
            let name = &source.file.interfaces()[source.points.len()];
            let numbers = &mut self.lanes[lane].numbers;
            if numbers.len() == source.points.len() {
                self.interfaces += 1;
                numbers.push(self.interfaces.wrapping_mul(NUMBERS_AN_INTERFACE));
            }
            let number = numbers[source.points.len()];
            source.points.push((self.judge.add_interface(name), number));
        }
        let source = &*source;
        let captured = |at: usize| {
            let frame = source.file.ahead(at)?;
            let (interface, number) = source.points[frame.interface];
            Some(Captured {
                link: frame.link,
                data: frame.data,
                wire_length: frame.wire_length,
                time: frame.time,
                interface,
                number,
            })
        };
        self.judge.on_frames(count, captured, sink);
        self.sources[index].file.skip(count - 1);
        count
    }

    /// The lane of a file that begins: that of a file at its end, most likely one named alike, or a new one.
    fn take_lane(&mut self, index: usize) -> usize {
        let name = self.sources[index].file.name();
        let alike = |other: &str| {
            name.bytes()
                .zip(other.bytes())
                .take_while(|(a, b)| a == b)
                .count()
        };
        let free = self
            .lanes
            .iter()
            .enumerate()
            .filter_map(|(lane, content)| Some((lane, alike(content.free_after.as_deref()?))))
            .max_by_key(|(_, alike)| *alike)
            .map(|(lane, _)| lane);
        let lane = free.unwrap_or_else(|| {
            self.lanes.push(Lane {
                numbers: Vec::new(),
                free_after: None,
            });
            self.lanes.len() - 1
        });
        self.lanes[lane].free_after = None;
        self.sources[index].lane = Some(lane);
        lane
    }

    fn advance(&mut self, index: usize) {
        let source = &mut self.sources[index];
        match source.file.advance() {
            Ok(true) => {
                if let Some(frame) = source.file.frame() {
                    self.next.push(Reverse((frame.time, index)));
                }
                return;
            }
            Ok(false) => self.complaints.extend(source.file.complaint()),
            Err(error) => {
                self.complaints.extend(source.file.complaint());
                self.complaints.push(error);
            }
        }
        if let Some(lane) = source.lane {
            self.lanes[lane].free_after = Some(source.file.name().to_owned());
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

    fn each_flow(
        &mut self,
        each: &mut dyn FnMut(&FlowKey, &FlowRecord),
    ) -> Result<(), CaptureError> {
        self.judge.each_flow(each);
        Ok(())
    }

    fn namer(&self) -> &Namer {
        self.judge.namer()
    }

    fn namer_mut(&mut self) -> &mut Namer {
        self.judge.namer_mut()
    }

    /// The times of capture files are those of the Unix epoch.
    fn epoch_offset(&self) -> i128 {
        0
    }
}
