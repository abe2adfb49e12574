//! Opens all conversations of a plan at once, and says how each went for its initiator.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use flowproof_tests::frame::{self, FrameSender};
use flowproof_tests::host::Host;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, socket,
};

use super::hosts::{Hosts, UPLINK, at};
use super::pack::protocol;
use super::plan::{Spec, Way};

/// What may well be silent is held open for so long: two SYNs fit in it (RFC 6298: the second comes after a second).
const PATIENCE: Duration = Duration::from_millis(2200);
/// What has to be answered gets so long, however busy the machine is.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// Conversations that are open at once.
const AT_ONCE: usize = 512;
const ASKED: &[u8] = b"flowproof lab";

/// How a conversation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The same bytes came back; or the frame was sent.
    Came,
    /// A RST or an ICMP error.
    Refused,
    /// Nothing in time.
    Silence,
}

/// Drives all conversations; the answers are in the same order. `may_be_silent` tells by position for which ones it is
/// not worth to wait long.
pub(crate) fn drive(
    hosts: &Hosts,
    specs: &[Spec],
    may_be_silent: impl Fn(usize) -> bool + Sync,
) -> Result<Vec<Answer>> {
    let mut answers = vec![Answer::Silence; specs.len()];
    let of = |way: Way| {
        specs
            .iter()
            .enumerate()
            .filter(move |(_, spec)| spec.way == way)
            .collect::<Vec<_>>()
    };
    let initiators: [(&Host, Vec<(usize, &Spec)>); 3] = [
        (&hosts.ends[0], of(Way::Across(0))),
        (&hosts.ends[1], of(Way::Across(1))),
        (&hosts.agent, of(Way::Within)),
    ];
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = initiators
            .into_iter()
            .map(|(host, mine)| {
                let may_be_silent = &may_be_silent;
                scope.spawn(move || host.run(|| ask_all(&mine, may_be_silent)))
            })
            .collect();
        let results: Vec<_> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect();
        results.into_iter().collect::<Result<Vec<_>>>()
    })?;
    for (place, answer) in results.concat() {
        answers[place] = answer;
    }
    let called = of(Way::Called);
    if !called.is_empty() {
        let sender = FrameSender::new(&hosts.ends[0], UPLINK)?;
        for (place, spec) in called {
            sender.send(&call(&sender, spec, hosts.ports.range().0)?)?;
            answers[place] = Answer::Came;
        }
    }
    Ok(answers)
}

/// The frame of something that is only called, from port `caller`.
fn call(sender: &FrameSender, spec: &Spec, caller: u16) -> Result<Vec<u8>> {
    let (from, to) = (spec.initiator, spec.responder);
    let payload = match spec.protocol {
        protocol::UDP => frame::udp(at(from, caller), at(to, spec.port), ASKED),
        protocol::ICMP | protocol::ICMPV6 => frame::echo_request(from, to, caller, 1),
        // The checksum is none of a probe's business, so IPv6 gets the same bytes.
        protocol::VRRP => frame::vrrp(Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 6)),
        other => bail!("nothing calls {to} by protocol {other}"),
    };
    // RFC 1112, section 6.4, and RFC 2464, section 7.
    let hardware = match to {
        IpAddr::V4(group) if group.is_multicast() => {
            let [_, b, c, d] = group.octets();
            [0x01, 0, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V4(_) => [0xff; 6],
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            [0x33, 0x33, a, b, c, d]
        }
    };
    let packet = frame::ip(from, to, spec.protocol, &payload);
    Ok(frame::ethernet(sender.address, hardware, &[], &packet))
}

/// A conversation that is under way.
enum Open {
    Connecting(TcpStream),
    Asking(TcpStream),
    Asked(UdpSocket),
}

impl Open {
    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Connecting(stream) | Self::Asking(stream) => stream.as_fd(),
            Self::Asked(socket) => socket.as_fd(),
        }
    }

    fn awaited(&self) -> PollFlags {
        match self {
            Self::Connecting(_) => PollFlags::POLLOUT,
            Self::Asking(_) | Self::Asked(_) => PollFlags::POLLIN,
        }
    }

    /// Goes on after the socket woke up: with the next step, or with an end.
    fn step(self) -> io::Result<Result<Self, Answer>> {
        let mut buffer = [0; 64];
        let answer = match self {
            Self::Connecting(mut stream) => {
                if let Some(error) = stream.take_error()? {
                    Err(error)
                } else {
                    match stream.write_all(ASKED) {
                        Ok(()) => return Ok(Ok(Self::Asking(stream))),
                        Err(error) => Err(error),
                    }
                }
            }
            Self::Asking(mut stream) => match stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Ok(Self::Asking(stream)));
                }
                other => other,
            },
            Self::Asked(socket) => match socket.recv(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Ok(Self::Asked(socket)));
                }
                other => other,
            },
        };
        match answer {
            Ok(_) => Ok(Err(Answer::Came)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Ok(Err(Answer::Refused))
            }
            Err(error) => Err(error),
        }
    }
}

/// Asks on the host that the thread is on.
fn ask_all(
    specs: &[(usize, &Spec)],
    may_be_silent: &impl Fn(usize) -> bool,
) -> Result<Vec<(usize, Answer)>> {
    let mut answers = Vec::with_capacity(specs.len());
    for specs in specs.chunks(AT_ONCE) {
        let mut open: Vec<(usize, &Spec, Open)> = Vec::with_capacity(specs.len());
        for (place, spec) in specs {
            match begin(spec).with_context(|| format!("{spec:?}"))? {
                Some(begun) => open.push((*place, spec, begun)),
                None => answers.push((*place, Answer::Refused)),
            }
        }
        let start = Instant::now();
        let waits = |open: &[(usize, &Spec, Open)]| {
            start.elapsed() < PATIENCE && !open.is_empty()
                || start.elapsed() < ANSWERED_WITHIN
                    && open.iter().any(|(place, ..)| !may_be_silent(*place))
        };
        while waits(&open) {
            let awake: Vec<bool> = {
                let mut watched: Vec<PollFd<'_>> = open
                    .iter()
                    .map(|(_, _, open)| PollFd::new(open.descriptor(), open.awaited()))
                    .collect();
                poll(&mut watched, PollTimeout::from(50_u8))?;
                watched
                    .iter()
                    .map(|socket| socket.any().unwrap_or(false))
                    .collect()
            };
            let mut still = Vec::with_capacity(open.len());
            for ((place, spec, conversation), awake) in open.into_iter().zip(awake) {
                if !awake {
                    still.push((place, spec, conversation));
                    continue;
                }
                match conversation.step().with_context(|| format!("{spec:?}"))? {
                    Ok(next) => still.push((place, spec, next)),
                    Err(answer) => answers.push((place, answer)),
                }
            }
            open = still;
        }
        answers.extend(open.into_iter().map(|(place, ..)| (place, Answer::Silence)));
    }
    Ok(answers)
}

/// Sends the first packet; nothing if it is refused on the spot.
fn begin(spec: &Spec) -> Result<Option<Open>> {
    let family = if spec.initiator.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let (kind, number) = match spec.protocol {
        protocol::TCP => (SockType::Stream, None),
        protocol::UDP => (SockType::Datagram, None),
        protocol::ICMP => (SockType::Datagram, Some(SockProtocol::Icmp)),
        protocol::ICMPV6 => (SockType::Datagram, Some(SockProtocol::IcmpV6)),
        other => bail!("no socket speaks protocol {other}"),
    };
    let made: OwnedFd = socket(
        family,
        kind,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        number,
    )?;
    bind(
        made.as_raw_fd(),
        &SockaddrStorage::from(at(spec.initiator, 0)),
    )?;
    let echo = matches!(spec.protocol, protocol::ICMP | protocol::ICMPV6);
    let port = if echo { 0 } else { spec.port };
    match connect(
        made.as_raw_fd(),
        &SockaddrStorage::from(at(spec.responder, port)),
    ) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(Errno::ECONNREFUSED) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    if spec.protocol == protocol::TCP {
        return Ok(Some(Open::Connecting(made.into())));
    }
    let socket = UdpSocket::from(made);
    let sent = if echo {
        // The kernel puts its own identifier and checksum in.
        socket.send(&frame::echo_request(spec.initiator, spec.responder, 0, 1))
    } else {
        socket.send(ASKED)
    };
    match sent {
        Ok(_) => Ok(Some(Open::Asked(socket))),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error.into()),
    }
}
