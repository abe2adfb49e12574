//! Live capture by libpcap: where kernel programs can't be had, and where a packet filter is wanted.
//!
//! One handle an interface, none of which blocks. Time is the monotonic clock, as in the kernel's back end: packets carry
//! the time of day, which may be set back, and a table whose clock stands still would decide nothing.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use flowproof_common::key::FlowKey;
use flowproof_common::record::{Event, FlowRecord};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use pcap::{Active, Linktype, Precision};

use super::decode::LinkType;
use super::user_space::{AHEAD, Captured, UserSpace};
use super::{Backend, Bell, Capture, CaptureError, Interface, Progress, Snapshot, clock};
use crate::flow::{Limits, Moments};
use crate::matrix::installed::Installed;
use crate::names::{self, Namer};

/// How the kernel is asked for packets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// A filter expression as `pcap-filter(7)` describes it; none takes every packet.
    pub filter: Option<String>,
    /// Bytes kept of each packet, 64 to 262,144.
    pub snap_length: u32,
    /// Bytes of the kernel's buffer for each interface.
    pub buffer_size: u32,
    /// Whether the interface takes packets for other hosts too.
    pub promiscuous: bool,
}

/// How long the kernel may keep a block of packets before it hands them over.
const RETIRE: Duration = Duration::from_millis(50);
/// Packets read from one interface before the next has its turn.
const BATCH: usize = 4096;
/// After a failure an interface is opened again no sooner than this.
const REOPEN_AFTER: u64 = 1_000_000_000;

struct Handle {
    interface: Interface,
    capture: pcap::Capture<Active>,
    link: LinkType,
    counters: usize,
    /// libpcap's own drop counts at the last look, which wrap at 2^32.
    dropped: u32,
    interface_dropped: u32,
}

/// Frames of one interface that are judged together. libpcap lends them one at a time, so they are copied; what is gained by
/// looking ahead is more.
#[derive(Default)]
struct Pile {
    bytes: Vec<u8>,
    frames: Vec<Piled>,
}

/// A frame in a [`Pile`].
struct Piled {
    /// Where its bytes end; they start where those of the one before end.
    end: usize,
    wire_length: u32,
    time: u64,
}

impl Pile {
    fn is_full(&self) -> bool {
        self.frames.len() >= AHEAD
    }

    fn add(&mut self, data: &[u8], wire_length: u32, time: u64) {
        self.bytes.extend_from_slice(data);
        self.frames.push(Piled {
            end: self.bytes.len(),
            wire_length,
            time,
        });
    }

    /// Judges them and begins anew. They came from an interface with this link type, these counters and this number.
    fn judge(
        &mut self,
        judge: &mut UserSpace,
        (link, interface, number): (LinkType, usize, u32),
        sink: &mut impl FnMut(&Event, Moments),
    ) {
        let captured = |at: usize| {
            let frame = self.frames.get(at)?;
            let start = match at.checked_sub(1) {
                Some(before) => self.frames.get(before)?.end,
                None => 0,
            };
            Some(Captured {
                link,
                data: self.bytes.get(start..frame.end)?,
                wire_length: frame.wire_length,
                time: frame.time,
                interface,
                number,
            })
        };
        judge.on_frames(self.frames.len(), captured, sink);
        self.bytes.clear();
        self.frames.clear();
    }
}

/// libpcap as a [`Capture`].
pub struct LivePcap {
    options: Options,
    judge: UserSpace,
    pile: Pile,
    handles: HashMap<u32, Handle>,
    bell: Option<Arc<Bell>>,
    /// Interfaces that failed, and when (monotonic) they may be tried again.
    failed: HashMap<u32, (Interface, u64)>,
    kernel_dropped: u64,
    interface_dropped: u64,
    begun: bool,
}

/// Opens the back end, attached to no interface.
///
/// # Errors
/// [`CaptureError::Permission`] without `CAP_NET_RAW`; [`CaptureError::Failed`] if the filter is no valid expression.
pub fn open(
    options: Options,
    limits: Limits,
    names: names::Settings,
) -> Result<LivePcap, CaptureError> {
    match socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    ) {
        Ok(_) => {}
        Err(Errno::EPERM | Errno::EACCES) => return Err(permission("opening a packet socket")),
        Err(error) => {
            return Err(CaptureError::Failed {
                action: "opening a packet socket".to_owned(),
                reason: error.desc().to_owned(),
            });
        }
    }
    if let Some(filter) = &options.filter {
        // Told here and not at each interface. Link types differ in what they can filter, Ethernet can most.
        pcap::Capture::dead(Linktype::ETHERNET)
            .and_then(|dead| dead.compile(filter, true).map(|_| ()))
            .map_err(|error| bad_filter(filter, &error))?;
    }
    Ok(LivePcap {
        options,
        judge: UserSpace::new(limits, names).unordered(),
        pile: Pile::default(),
        handles: HashMap::new(),
        bell: None,
        failed: HashMap::new(),
        kernel_dropped: 0,
        interface_dropped: 0,
        begun: false,
    })
}

fn permission(action: &str) -> CaptureError {
    CaptureError::missing(action, Backend::Pcap)
}

fn bad_filter(filter: &str, error: &pcap::Error) -> CaptureError {
    CaptureError::Failed {
        action: format!("reading the packet filter `{filter}`"),
        reason: format!("{error}; see pcap-filter(7)"),
    }
}

impl LivePcap {
    fn open_handle(&mut self, interface: &Interface) -> Result<Handle, CaptureError> {
        let failed = |error: pcap::Error| {
            let reason = error.to_string();
            // libpcap has a code for this, which the pcap crate drops.
            if reason.contains("permission") || reason.contains("not permitted") {
                return permission(&format!("capturing on {}", interface.name));
            }
            CaptureError::Failed {
                action: format!("capturing on {}", interface.name),
                reason,
            }
        };
        let limit = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let mut capture = pcap::Capture::from_device(interface.name.as_str())
            .map_err(failed)?
            .snaplen(limit(self.options.snap_length))
            .buffer_size(limit(self.options.buffer_size))
            .promisc(self.options.promiscuous)
            .precision(Precision::Nano)
            .timeout(i32::try_from(RETIRE.as_millis()).unwrap_or(i32::MAX))
            .open()
            .and_then(pcap::Capture::setnonblock)
            .map_err(failed)?;
        let number = capture.get_datalink().0;
        let Some(link) = LinkType::from_number(number) else {
            return Err(CaptureError::Failed {
                action: format!("capturing on {}", interface.name),
                reason: format!(
                    "its link type {number} is not supported, only {}",
                    LinkType::SUPPORTED
                ),
            });
        };
        if let Some(filter) = &self.options.filter {
            capture
                .filter(filter, true)
                .map_err(|error| bad_filter(filter, &error))?;
        }
        Ok(Handle {
            interface: interface.clone(),
            capture,
            link,
            counters: self.judge.add_interface(&interface.name),
            dropped: 0,
            interface_dropped: 0,
        })
    }

    /// Adds what the kernel dropped since the last look.
    fn note_drops(&mut self, index: u32) {
        if let Some(handle) = self.handles.get_mut(&index)
            && let Ok(stats) = handle.capture.stats()
        {
            self.kernel_dropped += u64::from(stats.dropped.wrapping_sub(handle.dropped));
            self.interface_dropped +=
                u64::from(stats.if_dropped.wrapping_sub(handle.interface_dropped));
            handle.dropped = stats.dropped;
            handle.interface_dropped = stats.if_dropped;
        }
    }

    fn reopen_failed(&mut self) {
        let now = clock::monotonic();
        let due: Vec<Interface> = self
            .failed
            .values()
            .filter(|(_, at)| *at <= now)
            .map(|(interface, _)| interface.clone())
            .collect();
        for interface in due {
            match self.open_handle(&interface) {
                Ok(handle) => {
                    self.failed.remove(&interface.index);
                    self.handles.insert(interface.index, handle);
                }
                Err(error) => {
                    tracing::debug!(interface = interface.name, %error, "still can't capture");
                    self.failed
                        .insert(interface.index, (interface, now + REOPEN_AFTER));
                }
            }
        }
    }

    /// Waits until a handle has packets or the bell rings.
    fn wait(&self, timeout: Duration) -> Result<(), CaptureError> {
        let mut ready: Vec<PollFd<'_>> = self
            .handles
            .values()
            .map(|handle| handle.capture.as_fd())
            .chain(self.bell.iter().map(|bell| bell.as_fd()))
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut ready, timeout) {
            Ok(_) | Err(Errno::EINTR) => {
                if let Some(bell) = &self.bell
                    && ready.last().and_then(PollFd::any) == Some(true)
                {
                    bell.answer();
                }
                Ok(())
            }
            Err(error) => Err(CaptureError::Failed {
                action: "waiting for packets".to_owned(),
                reason: error.desc().to_owned(),
            }),
        }
    }

    /// Reads what there is, up to a batch an interface; whether nothing is left.
    fn drain(&mut self, to_monotonic: i128, sink: &mut impl FnMut(&Event, Moments)) -> bool {
        let mut all_read = true;
        let mut broken = Vec::new();
        for (index, handle) in &mut self.handles {
            let mut left = BATCH;
            loop {
                if left == 0 {
                    all_read = false;
                    break;
                }
                match handle.capture.next_packet() {
                    Ok(packet) => {
                        left -= 1;
                        let seconds = i128::from(packet.header.ts.tv_sec);
                        // The precision asked for makes this field nanoseconds.
                        let nanos = i128::from(packet.header.ts.tv_usec);
                        let time = seconds * 1_000_000_000 + nanos + to_monotonic;
                        self.pile.add(
                            packet.data,
                            packet.header.len,
                            u64::try_from(time).unwrap_or(0),
                        );
                        if self.pile.is_full() {
                            let source = (handle.link, handle.counters, *index);
                            self.pile.judge(&mut self.judge, source, sink);
                        }
                    }
                    Err(pcap::Error::TimeoutExpired | pcap::Error::NoMorePackets) => break,
                    Err(error) => {
                        let name = &handle.interface.name;
                        tracing::warn!(interface = name, %error, "the capture was interrupted");
                        broken.push(*index);
                        break;
                    }
                }
            }
            let source = (handle.link, handle.counters, *index);
            self.pile.judge(&mut self.judge, source, sink);
        }
        for index in broken {
            self.note_drops(index);
            if let Some(handle) = self.handles.remove(&index) {
                let at = clock::monotonic() + REOPEN_AFTER;
                self.failed.insert(index, (handle.interface, at));
            }
        }
        all_read
    }
}

impl Capture for LivePcap {
    fn backend(&self) -> Backend {
        Backend::Pcap
    }

    fn attach(&mut self, interface: &Interface) -> Result<(), CaptureError> {
        if self.handles.contains_key(&interface.index) {
            return Ok(());
        }
        let handle = self.open_handle(interface)?;
        if !std::mem::replace(&mut self.begun, true) {
            self.judge.attached(clock::monotonic());
        }
        self.failed.remove(&interface.index);
        self.handles.insert(interface.index, handle);
        Ok(())
    }

    fn listen(&mut self, bell: &Arc<Bell>) {
        self.bell = Some(Arc::clone(bell));
    }

    fn detach(&mut self, interface: &Interface) {
        self.note_drops(interface.index);
        self.handles.remove(&interface.index);
        self.failed.remove(&interface.index);
    }

    fn install(&mut self, matrix: &Arc<Installed>) -> Result<(), CaptureError> {
        self.judge.install(matrix, clock::monotonic());
        Ok(())
    }

    fn poll(
        &mut self,
        timeout: Duration,
        sink: &mut dyn FnMut(&Event),
    ) -> Result<Progress, CaptureError> {
        self.reopen_failed();
        self.wait(timeout)?;
        let now = clock::monotonic();
        let to_monotonic = -clock::epoch_offset();
        let sink = &mut |event: &Event, _: Moments| sink(event);
        if self.drain(to_monotonic, sink) {
            // Packets of the last moments may still be in a block that the kernel holds back.
            let settled = now.saturating_sub(u64::try_from(2 * RETIRE.as_nanos()).unwrap_or(0));
            self.judge.advance_time(settled, sink);
        }
        Ok(Progress::Live)
    }

    fn snapshot(&mut self) -> Result<Snapshot, CaptureError> {
        let indices: Vec<u32> = self.handles.keys().copied().collect();
        for index in indices {
            self.note_drops(index);
        }
        Ok(self.judge.snapshot(&[
            ("kernel_capture", self.kernel_dropped),
            ("interface", self.interface_dropped),
        ]))
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

    fn epoch_offset(&self) -> i128 {
        clock::epoch_offset()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_named() {
        let options = Options {
            filter: Some("tcp prot 80".to_owned()),
            snap_length: 512,
            buffer_size: 1 << 20,
            promiscuous: false,
        };
        match open(options, Limits::default(), names::Settings::default()) {
            Err(CaptureError::Failed { action, reason }) => {
                assert!(action.contains("`tcp prot 80`"), "{action}");
                assert!(reason.contains("syntax error"), "{reason}");
            }
            // Without privileges the capture is refused before the filter is read.
            Err(CaptureError::Permission { needs, .. }) => {
                assert_eq!(needs, "needs CAP_NET_RAW");
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("no error"),
        }
    }
}
