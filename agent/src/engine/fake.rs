//! A back end without packets, for the tests of everything above it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use flowproof_common::key::FlowKey;
use flowproof_common::record::{Event, FlowRecord};

use super::actor::View;
use super::states::Notes;
use crate::capture::{Backend, Capture, CaptureError, Interface, Progress, Snapshot};
use crate::matrix::installed::Installed;
use crate::names::{self, Namer, NamerCounts, book, wall_time};

/// What a test tells the back end, and what it did.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Totals to hand out.
    pub(crate) snapshot: Snapshot,
    /// Flows in the tables.
    pub(crate) flows: Vec<(FlowKey, FlowRecord)>,
    /// Events for the next poll.
    pub(crate) events: Vec<Event>,
    /// The next poll fails with this.
    pub(crate) fail: Option<String>,
    /// Installing fails.
    pub(crate) refuse_matrix: bool,
    /// Interfaces that can't be attached.
    pub(crate) refuse: Vec<String>,
    /// Names of the interfaces that are attached.
    pub(crate) attached: Vec<String>,
    /// How many matrices were installed.
    pub(crate) installed: usize,
    /// Whether the back end was dropped.
    pub(crate) dropped: bool,
}

/// The back end; the test keeps the script.
pub(crate) struct Fake(pub(crate) Arc<Mutex<Script>>, Namer);

impl Fake {
    /// A back end and its script.
    pub(crate) fn new() -> (Box<Self>, Arc<Mutex<Script>>) {
        let script = Arc::new(Mutex::new(Script::default()));
        (
            Box::new(Self(
                Arc::clone(&script),
                Namer::new(names::Settings::default()),
            )),
            script,
        )
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.0.lock().unwrap().dropped = true;
    }
}

impl Capture for Fake {
    fn backend(&self) -> Backend {
        Backend::Pcap
    }

    fn attach(&mut self, interface: &Interface) -> Result<(), CaptureError> {
        let mut script = self.0.lock().unwrap();
        if script.refuse.contains(&interface.name) {
            return Err(CaptureError::Failed {
                action: format!("opening {}", interface.name),
                reason: "refused by the test".to_owned(),
            });
        }
        script.attached.push(interface.name.clone());
        Ok(())
    }

    fn detach(&mut self, interface: &Interface) {
        let mut script = self.0.lock().unwrap();
        script.attached.retain(|name| *name != interface.name);
    }

    fn install(&mut self, matrix: &Arc<Installed>) -> Result<(), CaptureError> {
        let mut script = self.0.lock().unwrap();
        if script.refuse_matrix {
            return Err(CaptureError::TooLarge {
                what: "rules",
                needed: 2,
                room: 1,
            });
        }
        script.installed += 1;
        self.1.install(matrix, 0);
        Ok(())
    }

    fn poll(
        &mut self,
        timeout: Duration,
        sink: &mut dyn FnMut(&Event),
    ) -> Result<Progress, CaptureError> {
        let (events, fail) = {
            let mut script = self.0.lock().unwrap();
            (std::mem::take(&mut script.events), script.fail.take())
        };
        events.iter().for_each(sink);
        let now = wall_time::nanos(SystemTime::now());
        self.1
            .advance_time(wall_time::shifted(now, -self.epoch_offset()));
        if let Some(reason) = fail {
            return Err(CaptureError::Failed {
                action: "reading packets".to_owned(),
                reason,
            });
        }
        if events.is_empty() {
            std::thread::sleep(timeout);
        }
        Ok(Progress::Live)
    }

    fn snapshot(&mut self) -> Result<Snapshot, CaptureError> {
        Ok(self.0.lock().unwrap().snapshot.clone())
    }

    fn each_flow(
        &mut self,
        each: &mut dyn FnMut(&FlowKey, &FlowRecord),
    ) -> Result<(), CaptureError> {
        for (key, record) in &self.0.lock().unwrap().flows {
            each(key, record);
        }
        Ok(())
    }

    fn namer(&self) -> &Namer {
        &self.1
    }

    fn namer_mut(&mut self) -> &mut Namer {
        &mut self.1
    }

    fn epoch_offset(&self) -> i128 {
        EPOCH.into()
    }
}

/// What a daemon knows that has seen nothing yet, by a back end whose time begins at 1,700,000,000 s of the Unix epoch.
pub(crate) fn view(matrix: Arc<Installed>) -> View {
    View {
        backend: Backend::Pcap,
        matrix,
        snapshot: Arc::default(),
        epoch_offset: EPOCH.into(),
        attached: Vec::new(),
        refused: Vec::new(),
        unexpected: Vec::new(),
        unexpected_other: 0,
        unexpected_folded: 0,
        top: Vec::new(),
        drop_reasons: BTreeMap::new(),
        notes: Notes::new(),
        names: Vec::new(),
        naming: NamerCounts::default(),
        book: book::Counts::default(),
        queue_lost: 0,
        failure: None,
    }
}

/// What [`view`] and [`Fake`] add to their times, nanoseconds.
pub(crate) const EPOCH: u64 = 1_700_000_000_000_000_000;
