//! ICMP errors about what a socket sent, from its error queue (`IP_RECVERR`, ip(7)): they say who stopped a packet, which
//! `errno` alone does not.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use flowproof_common::address::Address;
use nix::cmsg_space;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};

use crate::flow::notes::IcmpError;

/// Bytes of what was sent that an error hands back: enough for the numbers of a question.
const QUOTED: usize = 256;

/// An error, and the head of the packet that it is about, from the transport's data on.
pub(super) struct Queued {
    pub(super) error: IcmpError,
    pub(super) quoted: Vec<u8>,
}

/// All ICMP errors in the queue. Those that this host made of other things are left out.
pub(super) fn drain(socket: BorrowedFd<'_>) -> Vec<Queued> {
    let mut found = Vec::new();
    let mut bytes = [0; QUOTED];
    let mut control = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    loop {
        let mut into = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut into,
            Some(&mut control),
            MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
        );
        let Ok(message) = received else {
            return found;
        };
        let length = message.bytes;
        let error = message
            .cmsgs()
            .ok()
            .and_then(|messages| messages.filter_map(|message| icmp(&message)).next());
        if let Some(error) = error {
            found.push(Queued {
                error,
                quoted: bytes[..length.min(QUOTED)].to_vec(),
            });
        }
    }
}

fn icmp(message: &ControlMessageOwned) -> Option<IcmpError> {
    // The kernel's numbers: SO_EE_ORIGIN_ICMP and SO_EE_ORIGIN_ICMP6 (linux/errqueue.h).
    if let ControlMessageOwned::Ipv4RecvErr(error, Some(from)) = message
        && error.ee_origin == libc::SO_EE_ORIGIN_ICMP
    {
        return Some(IcmpError {
            hop: Address::from_v4(from.sin_addr.s_addr.to_ne_bytes()),
            icmp_type: error.ee_type,
            icmp_code: error.ee_code,
        });
    }
    if let ControlMessageOwned::Ipv6RecvErr(error, Some(from)) = message
        && error.ee_origin == libc::SO_EE_ORIGIN_ICMP6
    {
        return Some(IcmpError {
            hop: Address::from_v6(from.sin6_addr.s6_addr),
            icmp_type: error.ee_type,
            icmp_code: error.ee_code,
        });
    }
    None
}
