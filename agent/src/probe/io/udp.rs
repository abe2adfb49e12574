//! A question over UDP, repeated.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockType, recv, send};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::{error_queue, repetitions, socket};
use crate::probe::Probe;
use crate::probe::judge::{Heard, icmp_outcome};
use crate::probe::question::{Seed, UdpQuestion};

/// More than any answer has that is read here.
const MOST_BYTES: usize = 65_535;

pub(super) async fn ask(
    probe: &Probe,
    question: UdpQuestion,
    timeout: Duration,
    seed: &Seed,
) -> io::Result<Heard> {
    let bytes = question.bytes(seed);
    let socket = Datagrams::new(socket::open(probe, SockType::Datagram, None)?)?;
    socket
        .ask(
            &bytes,
            timeout,
            |heard| question.answer(&bytes, heard),
            |_| true,
        )
        .await
}

/// A connected socket that sends a question until something comes of it.
pub(super) struct Datagrams(UdpSocket);

impl Datagrams {
    /// Of any socket for datagrams: the type is tokio's, for waiting, and no more than the file descriptor is used of it, so
    /// that it need not be UDP's.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(UdpSocket::from_std(socket.into())?))
    }

    /// Sends the question at once and twice more, and waits for what `answer` takes for one. `quotes` says whether the
    /// packet that an ICMP error quotes is this question.
    pub(super) async fn ask(
        &self,
        question: &[u8],
        timeout: Duration,
        answer: impl Fn(&[u8]) -> Option<String>,
        quotes: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Heard> {
        let start = Instant::now();
        let mut strange = 0;
        let mut ends: Vec<Instant> = repetitions(timeout)
            .into_iter()
            .skip(1)
            .map(|after| start + after)
            .collect();
        ends.push(start + timeout);
        let mut sent = 0;
        for end in ends {
            match send(self.0.as_raw_fd(), question, MsgFlags::empty()) {
                Ok(_) => sent += 1,
                Err(errno) => {
                    if let Some(heard) = self.error(errno, &quotes) {
                        return Ok(heard);
                    }
                }
            }
            // Errors are waited for like answers: they alone make no socket readable.
            let interest = Interest::READABLE | Interest::ERROR;
            while let Ok(ready) = tokio::time::timeout_at(end, self.0.ready(interest)).await {
                ready?;
                // One at a time: of both together, tokio 1.54 clears none.
                for interest in [Interest::READABLE, Interest::ERROR] {
                    let received = self.0.try_io(interest, || {
                        self.receive(&answer, &quotes, &mut strange)
                            .ok_or_else(|| io::ErrorKind::WouldBlock.into())
                    });
                    if let Ok(heard) = received {
                        return Ok(heard);
                    }
                }
            }
        }
        Ok(Heard::Silence { sent, strange })
    }

    /// Reads all that is there, until something decides.
    fn receive(
        &self,
        answer: &impl Fn(&[u8]) -> Option<String>,
        quotes: &impl Fn(&[u8]) -> bool,
        strange: &mut u32,
    ) -> Option<Heard> {
        let mut buffer = vec![0; MOST_BYTES];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => match answer(&buffer[..length]) {
                    Some(words) => return Some(Heard::Answer(words)),
                    None => *strange += 1,
                },
                Err(Errno::EAGAIN) => return self.told(quotes),
                // What another process pinged: only an error that quotes this question is about it.
                Err(Errno::EINTR | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => {
                    if let Some(heard) = self.told(quotes) {
                        return Some(heard);
                    }
                }
                Err(errno) => {
                    if let Some(heard) = self.error(errno, quotes) {
                        return Some(heard);
                    }
                }
            }
        }
    }

    /// What an error of the socket means; nothing if it is about something else.
    fn error(&self, errno: Errno, quotes: &impl Fn(&[u8]) -> bool) -> Option<Heard> {
        // An ICMP error that is about something else, or that does not stop anything for good.
        let passes = [
            Errno::ECONNREFUSED,
            Errno::EMSGSIZE,
            Errno::EPROTO,
            Errno::EAGAIN,
            Errno::EINTR,
        ];
        let here = (!passes.contains(&errno)).then_some(Heard::Here(errno));
        self.told(quotes).or(here)
    }

    fn told(&self, quotes: &impl Fn(&[u8]) -> bool) -> Option<Heard> {
        error_queue::drain(self.0.as_fd())
            .into_iter()
            .find(|queued| quotes(&queued.quoted) && icmp_outcome(&queued.error).is_some())
            .map(|queued| Heard::Icmp(queued.error))
    }
}
