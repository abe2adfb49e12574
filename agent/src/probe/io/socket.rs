//! Sockets of a probe: bound to the address that it comes from, connected to the one that it may go to, and told to keep
//! ICMP errors.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, setsockopt,
    socket, sockopt,
};

use crate::probe::Probe;

/// A socket that does not block, bound and connected; of TCP, connecting goes on.
pub(super) fn open(
    probe: &Probe,
    kind: SockType,
    protocol: impl Into<Option<SockProtocol>>,
) -> io::Result<OwnedFd> {
    let target = probe.target.address();
    let family = if target.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let made = socket(family, kind, flags, protocol)?;
    match target {
        IpAddr::V4(_) => setsockopt(&made, sockopt::Ipv4RecvErr, &true)?,
        IpAddr::V6(_) => setsockopt(&made, sockopt::Ipv6RecvErr, &true)?,
    }
    let at = |address, port| SockaddrStorage::from(SocketAddr::new(address, port));
    bind(made.as_raw_fd(), &at(probe.source, 0))?;
    match connect(
        made.as_raw_fd(),
        &at(target, probe.port.unwrap_or_default()),
    ) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(made),
        Err(error) => Err(error.into()),
    }
}
