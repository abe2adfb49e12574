//! Two hosts on a wire, each a network namespace: one sends frames, the other is watched.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use flowproof_tests::host::{Host, wire};
use nix::time::{ClockId, clock_gettime};

use crate::bpf::Place;
use crate::bpf::programs::thief;
use crate::flows::FRAME;
use crate::system::{BURST, frame_socket, send_frames};

/// The interface at either end.
pub(crate) const INTERFACE: &str = "bench0";
/// Addresses of the sender and of the watched host: of role `client-0` and `server-0` of the bench's site.
pub(crate) const SENDER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 128, 0, 1));
/// See [`SENDER`].
pub(crate) const WATCHED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 64, 0, 1));

/// The lab of all benches on real traffic.
#[derive(Debug)]
pub(crate) struct Wire {
    /// Sends.
    pub(crate) sender: Arc<Host>,
    /// Is watched.
    pub(crate) watched: Arc<Host>,
}

impl Wire {
    /// Makes both hosts and what joins them.
    pub(crate) fn new() -> Result<Self> {
        if let Some(obstacle) = flowproof_tests::lab::obstacle() {
            anyhow::bail!("no lab on this machine: {obstacle}");
        }
        let (sender, watched) = (Host::new("sender")?, Host::new("watched")?);
        wire(&sender, INTERFACE, &watched, INTERFACE)?;
        for (host, own, other) in [(&sender, SENDER, WATCHED), (&watched, WATCHED, SENDER)] {
            host.ip(&format!("addr add {own}/32 dev {INTERFACE}"))?;
            host.ip(&format!("route add {other}/32 dev {INTERFACE}"))?;
        }
        Ok(Self { sender, watched })
    }

    /// Index of the watched interface, on its host.
    pub(crate) fn index(&self) -> Result<u32> {
        self.watched
            .run(|| nix::net::if_::if_nametoindex(INTERFACE))
            .context("the watched interface")
    }

    /// Has every packet taken behind all programs that watch, so that none is answered or dropped, which would cost more
    /// than what is measured; until the link is dropped.
    pub(crate) fn take_all(&self) -> Result<OwnedFd> {
        let index = self.index()?;
        let thief = thief()?;
        self.watched.run(|| thief.attach(index, Place::Last))
    }

    /// A sender of frames.
    pub(crate) fn frames(&self) -> Result<FrameSender> {
        self.sender.run(|| {
            let index = nix::net::if_::if_nametoindex(INTERFACE)?;
            let socket = frame_socket(index).context("a socket for frames")?;
            Ok(FrameSender { socket })
        })
    }
}

/// Sends frames to the watched host. The receiving half of the kernel's work is done in the same calls, on the same CPU.
#[derive(Debug)]
pub(crate) struct FrameSender {
    socket: OwnedFd,
}

impl FrameSender {
    /// Sends all frames once, as fast as it goes.
    pub(crate) fn send(&self, frames: &[u8]) -> Result<()> {
        for burst in frames.chunks(BURST * FRAME) {
            let mut rest = burst;
            while !rest.is_empty() {
                let sent = send_frames(&self.socket, rest, FRAME).context("sending frames")?;
                rest = &rest[sent * FRAME..];
            }
        }
        Ok(())
    }

    /// Nanoseconds of CPU time that a frame takes, sent over and over for at least `least`: the sender's and, since
    /// softirqs are on its account, the receiver's.
    pub(crate) fn cost(&self, frames: &[u8], least: Duration) -> Result<f64> {
        let start = Instant::now();
        let before = thread_time()?;
        let mut sent = 0;
        while start.elapsed() < least {
            self.send(frames)?;
            sent += frames.len() / FRAME;
        }
        Ok((thread_time()? - before).as_secs_f64() * 1e9 / sent as f64)
    }

    /// Sends bursts for `span` at `rate` frames a second, or as fast as it goes; `fill` gets the number of the first
    /// frame and the burst to change. How many were sent.
    pub(crate) fn paced(
        &self,
        rate: Option<f64>,
        span: Duration,
        burst: &mut [u8],
        mut fill: impl FnMut(u64, &mut [u8]),
    ) -> Result<u64> {
        let each = (burst.len() / FRAME) as u64;
        let start = Instant::now();
        let mut sent = 0;
        loop {
            let spent = start.elapsed();
            if spent >= span {
                return Ok(sent);
            }
            if rate.is_some_and(|rate| sent as f64 > rate * spent.as_secs_f64()) {
                std::hint::spin_loop();
                continue;
            }
            fill(sent, burst);
            self.send(burst)?;
            sent += each;
        }
    }
}

fn thread_time() -> Result<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map(Duration::from)
        .context("this thread's CPU time")
}
