//! A TCP handshake. The kernel repeats SYNs after 1 s and 3 s (RFC 6298), so that one that got lost is no news.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::SockType;
use tokio::net::TcpStream;

use super::{error_queue, socket};
use crate::probe::Probe;
use crate::probe::judge::{Heard, icmp_outcome};

/// Connects; what came of it if that fails.
pub(super) async fn connect(
    probe: &Probe,
    timeout: Duration,
) -> io::Result<Result<TcpStream, Heard>> {
    let socket = match socket::open(probe, SockType::Stream, None) {
        Ok(socket) => TcpStream::from_std(socket.into())?,
        // Connecting to this very host is decided at once.
        Err(error) if error.raw_os_error() == Some(Errno::ECONNREFUSED as i32) => {
            return Ok(Err(Heard::Reset));
        }
        Err(error) => return Err(error),
    };
    // A socket is ready for writing when connecting is over, well or not (connect(2), EINPROGRESS).
    let Ok(ready) = tokio::time::timeout(timeout, socket.writable()).await else {
        return Ok(Err(failure(&socket, Errno::ETIMEDOUT)));
    };
    ready?;
    let error = socket.take_error()?.and_then(|error| error.raw_os_error());
    match error.map(Errno::from_raw) {
        None => Ok(Ok(socket)),
        Some(errno) => Ok(Err(failure(&socket, errno))),
    }
}

/// What an error of a socket means, with what its error queue says.
fn failure(socket: &TcpStream, errno: Errno) -> Heard {
    let queued = error_queue::drain(socket.as_fd());
    let told = queued
        .into_iter()
        .find(|queued| icmp_outcome(&queued.error).is_some());
    match (told, errno) {
        (Some(queued), _) => Heard::Icmp(queued.error),
        (None, Errno::ECONNREFUSED | Errno::ECONNRESET) => Heard::Reset,
        (None, Errno::ETIMEDOUT) => Heard::Silence {
            sent: 0,
            strange: 0,
        },
        (None, errno) => Heard::Here(errno),
    }
}
