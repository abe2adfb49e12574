//! The few system calls that no crate here has a safe call for.

#![expect(unsafe_code, reason = "system calls; each block says why it is sound")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

use crate::measure::Usage;

/// Waits for the end of a child and says how it ended, and what it took.
pub(crate) fn wait_with_usage(child: u32) -> Result<(i32, Usage)> {
    let pid = libc::pid_t::try_from(child).context("no such process")?;
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to room of the right size, and `rusage` may be all zero.
        let ended = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        if ended == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error).context("waiting for a program");
        }
    }
    // SAFETY: wait4 has filled it, and it was all zero before.
    let usage = unsafe { usage.assume_init() };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let usage = Usage {
        wall: 0.0,
        cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        peak: usage.ru_maxrss as f64 / 1024.0,
    };
    Ok((status, usage))
}

/// Bytes that this process has on its heap now, large blocks included.
pub(crate) fn heap() -> usize {
    // SAFETY: it takes nothing and only reads the allocator's own counters.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// The BPF system call. The words are `union bpf_attr`; addresses in them are of buffers that the caller holds and that are
/// as long as the other words say.
pub(crate) fn bpf(command: i64, attributes: &mut [u32]) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes as many bytes as are said here, and by the caller's word the buffers behind it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_mut_ptr(),
            size_of_val(attributes),
        )
    };
    match i32::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The same, for commands that open something.
pub(crate) fn bpf_descriptor(command: i64, attributes: &mut [u32]) -> io::Result<OwnedFd> {
    let descriptor = bpf(command, attributes)?;
    // SAFETY: the command has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A size as system calls take it.
fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

/// Most frames that are sent by one call.
pub(crate) const BURST: usize = 256;

/// A socket that sends whole frames out of an interface, past its queue; it receives nothing.
pub(crate) fn frame_socket(interface: u32) -> io::Result<OwnedFd> {
    let on: libc::c_int = 1;
    // SAFETY: it takes only numbers; no protocol: nothing is to be received.
    let descriptor =
        unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just opened it for us.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: an address of zeros is valid, and its fields are set below.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_ifindex = interface.cast_signed();
    // SAFETY: both pointers are to live values of the sizes that are said.
    let done = unsafe {
        libc::setsockopt(
            descriptor,
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of_u32::<libc::c_int>(),
        ) == 0
            && libc::bind(
                descriptor,
                (&raw const address).cast(),
                size_of_u32::<libc::sockaddr_ll>(),
            ) == 0
    };
    if done {
        Ok(socket)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends up to [`BURST`] frames of `length` bytes each that lie one behind the other; how many were sent.
pub(crate) fn send_frames(socket: &OwnedFd, frames: &[u8], length: usize) -> io::Result<usize> {
    let mut parts: [MaybeUninit<libc::iovec>; BURST] = [const { MaybeUninit::uninit() }; BURST];
    let mut messages: [MaybeUninit<libc::mmsghdr>; BURST] =
        [const { MaybeUninit::uninit() }; BURST];
    let count = (frames.len() / length).min(BURST);
    for ((frame, part), message) in frames
        .chunks_exact(length)
        .zip(&mut parts)
        .zip(&mut messages)
    {
        let part = part.write(libc::iovec {
            iov_base: frame.as_ptr().cast_mut().cast(),
            iov_len: length,
        });
        // SAFETY: a message of zeros is valid: no address, no control data.
        let message = message.write(unsafe { std::mem::zeroed() });
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` messages are written, and they and what they point to outlive the call, which only reads
    // the frames.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr().cast(),
            u32::try_from(count).unwrap_or(0),
            0,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
