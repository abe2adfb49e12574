//! Where packets come from. Three back ends (kernel programs, libpcap, capture files) stand behind one
//! trait and report the same observations, so that nothing above knows which of them is at work.
//!
//! A back end judges by itself, with the classifier and the state machine of `flowproof-common`; what
//! leaves it are state changes ([`Event`]), totals ([`Snapshot`]) and, on demand, the flow tables. It is
//! owned by one thread, which calls it with the commands that others send; nothing in it is shared.
//!
//! This is the only module of the daemon with packet I/O or unsafe code.

#[forbid(unsafe_code)]
mod bell;
mod clock;
#[forbid(unsafe_code)]
pub mod decode;
pub mod ebpf;
#[forbid(unsafe_code)]
pub mod file;
#[forbid(unsafe_code)]
pub mod interfaces;
#[forbid(unsafe_code)]
pub mod live_pcap;
#[forbid(unsafe_code)]
pub mod open;
#[forbid(unsafe_code)]
pub mod replay;
#[forbid(unsafe_code)]
pub mod user_space;
#[forbid(unsafe_code)]
mod window;

use std::sync::Arc;
use std::time::Duration;

use flowproof_common::key::FlowKey;
use flowproof_common::record::{Event, FlowRecord, InterfaceCounters, SlotFlows, SlotTraffic};

pub use self::bell::Bell;
use crate::matrix::installed::Installed;
use crate::names::Namer;
use crate::verdict::vantage::Losses;

/// Which back end is at work; its name is a metric label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// Kernel programs.
    Ebpf,
    /// Live capture by libpcap.
    Pcap,
    /// Capture files.
    Replay,
}

impl Backend {
    /// The label's value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Pcap => "pcap",
            Self::Replay => "replay",
        }
    }
}

/// A network interface of this host.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Interface {
    /// Index, at least 1 (`linux/if.h`).
    pub index: u32,
    /// Name, at most 15 bytes.
    pub name: String,
}

/// A source of judged flows.
pub trait Capture: Send {
    /// Which one it is.
    fn backend(&self) -> Backend;

    /// Begins to watch `interface`. Watching it already is no error.
    ///
    /// # Errors
    /// The interface can't be watched: it is gone, or a capability is missing. Other interfaces are not
    /// affected.
    fn attach(&mut self, interface: &Interface) -> Result<(), CaptureError>;

    /// Lets go of an interface, which may be gone already. Flows seen on it stay.
    fn detach(&mut self, interface: &Interface);

    /// Judges by `matrix` from the next packet on; no packet in between is judged by neither matrix.
    /// Counters of requirements that both have go on.
    ///
    /// # Errors
    /// The tables don't fit; the matrix in force stays in force.
    fn install(&mut self, matrix: &Arc<Installed>) -> Result<(), CaptureError>;

    /// Has `bell` end a wait in [`Self::poll`], if this back end can.
    fn listen(&mut self, _bell: &Arc<Bell>) {}

    /// Waits up to `timeout` for packets or events, hands every state change to `sink`, and decides flows
    /// whose time has come.
    ///
    /// # Errors
    /// The source failed and can give no more.
    fn poll(
        &mut self,
        timeout: Duration,
        sink: &mut dyn FnMut(&Event),
    ) -> Result<Progress, CaptureError>;

    /// All totals since the counters began.
    ///
    /// # Errors
    /// A table could not be read.
    fn snapshot(&mut self) -> Result<Snapshot, CaptureError>;

    /// Hands every flow in the tables now to `each`, in no order. A flow that changes tables meanwhile may be missed.
    ///
    /// # Errors
    /// A table could not be read.
    fn each_flow(
        &mut self,
        each: &mut dyn FnMut(&FlowKey, &FlowRecord),
    ) -> Result<(), CaptureError>;

    /// The flows in the tables now: as many as there are.
    ///
    /// # Errors
    /// A table could not be read.
    fn flows(&mut self) -> Result<Vec<(FlowKey, FlowRecord)>, CaptureError> {
        let mut flows = Vec::new();
        self.each_flow(&mut |key, record| flows.push((*key, *record)))?;
        Ok(flows)
    }

    /// What is known of names, and the matrix in force with what they added to it.
    fn namer(&self) -> &Namer;

    /// The same, to tell it what others learned; what follows from that is done with the next poll.
    fn namer_mut(&mut self) -> &mut Namer;

    /// The running kernel's name of a drop reason in an [`Event`], if the back end sees drops.
    fn drop_reason(&self, _number: u32) -> Option<&str> {
        None
    }

    /// Nanoseconds to add to this back end's times (the monotonic clock, or a capture file's own) to get
    /// nanoseconds since the Unix epoch.
    fn epoch_offset(&self) -> i128;
}

/// What a call of [`Capture::poll`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// More may come.
    Live,
    /// The capture file is at its end.
    End,
}

/// Totals of one counter slot, summed over CPUs.
#[derive(Clone, Copy, Default, Debug)]
pub struct SlotTotals {
    /// Packets and bytes.
    pub traffic: SlotTraffic,
    /// Flows.
    pub flows: SlotFlows,
}

/// Fill of one flow table.
#[derive(Clone, Copy, Debug)]
pub struct TableFill {
    /// `verified` or `unverified`.
    pub table: &'static str,
    /// Flows in it.
    pub entries: u64,
    /// Flows it has room for.
    pub capacity: u64,
    /// Flows that were pushed out to make room, since the counters began.
    pub evictions: u64,
}

/// All totals of a back end.
#[derive(Clone, Default, Debug)]
pub struct Snapshot {
    /// Indexed by counter slot; slots beyond the end are empty.
    pub slots: Vec<SlotTotals>,
    /// Interfaces by name, those let go included.
    pub interfaces: Vec<(String, InterfaceCounters)>,
    /// What was lost, by stage. Every stage that the back end has is listed, also at 0.
    pub lost: Vec<(&'static str, u64)>,
    /// The flow tables.
    pub tables: Vec<TableFill>,
}

impl Snapshot {
    /// What may have been missed.
    #[must_use]
    pub fn losses(&self) -> Losses {
        let losses = Losses::of(&self.lost);
        let unparsed = self
            .interfaces
            .iter()
            .any(|(_, counters)| counters.unparsed > 0);
        Losses {
            packets: losses.packets || unparsed,
            ..losses
        }
    }
}

/// Why a back end can't do what was asked, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A capability or root is missing.
    #[error(
        "permission denied {action}: {needs}; run as root, or grant them with setcap or the service's AmbientCapabilities"
    )]
    Permission {
        /// What was being done, e.g. "loading the kernel programs".
        action: String,
        /// What is needed: the capabilities by name, or that they count for nothing here.
        needs: String,
    },
    /// No such interface.
    #[error("no interface named '{name}'; this host has: {known}")]
    NoInterface {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A file can't be opened or is no capture.
    #[error("{file}: {reason}; {remedy}")]
    File {
        /// The file as given.
        file: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The kernel or libpcap refused.
    #[error("{action}: {reason}")]
    Failed {
        /// What was being done, with its object.
        action: String,
        /// What came back.
        reason: String,
    },
    /// With `auto`, no back end can be opened.
    #[error("no back end can be opened; ebpf: {ebpf}; pcap: {pcap}")]
    Neither {
        /// Why not the kernel programs.
        ebpf: String,
        /// Why not libpcap.
        pcap: String,
    },
    /// The compiled matrix needs more room than the tables have.
    #[error(
        "the matrix needs {needed} {what}, the tables have room for {room}; restart the daemon to size them anew"
    )]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How many are needed.
        needed: usize,
        /// How many there is room for.
        room: usize,
    },
}

impl CaptureError {
    /// The system refused `action`: names what `backend` needs and this thread does not have.
    fn missing(action: &str, backend: Backend) -> Self {
        let missing = crate::privilege::missing(backend);
        Self::Permission {
            action: action.to_owned(),
            needs: if missing.is_empty() {
                "all capabilities are there, but not of the host (a user namespace, as in a rootless container), or the kernel is \
                 locked down"
                    .to_owned()
            } else {
                format!("needs {}", missing.join(" and "))
            },
        }
    }
}
