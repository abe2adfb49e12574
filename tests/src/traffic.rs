//! Servers that answer, so that tests only have to say what a client does.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a server sleeps in a socket before it looks whether it should end.
const TURN: Duration = Duration::from_millis(50);

/// A server in threads of its own; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    ended: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(work: impl FnOnce(&AtomicBool, &Arc<AtomicU64>) + Send + 'static) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicU64::new(0));
        let thread = thread::spawn({
            let (ended, served) = (ended.clone(), served.clone());
            move || work(&ended, &served)
        });
        Self {
            ended,
            served,
            thread: Some(thread),
        }
    }

    /// Connections accepted, or datagrams received.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of a server shows as a missing answer in the test.
            let _ = thread.join();
        }
    }
}

/// Sends everything back, on every connection, until the peer closes.
///
/// # Errors
/// The listener is broken.
pub fn echo_tcp(listener: TcpListener) -> io::Result<Server> {
    on_connections(listener, echo)
}

/// Has `converse` talk on every connection, each in a thread of its own that ends with the peer's FIN or RST, or with
/// its namespace.
///
/// # Errors
/// The listener is broken.
pub fn on_connections(
    listener: TcpListener,
    converse: impl Fn(TcpStream) + Send + Sync + 'static,
) -> io::Result<Server> {
    listener.set_nonblocking(true)?;
    let converse = Arc::new(converse);
    Ok(Server::start(move |ended, served| {
        while !ended.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    served.fetch_add(1, Ordering::Relaxed);
                    let converse = converse.clone();
                    thread::spawn(move || {
                        if stream.set_nonblocking(false).is_ok() && stream.set_nodelay(true).is_ok()
                        {
                            converse(stream);
                        }
                    });
                }
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
        }
    }))
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 65536];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// What a UDP server does with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Sends it back.
    Echo,
    /// Takes it and says nothing.
    Silent,
}

/// Serves a UDP socket.
///
/// # Errors
/// The socket is broken.
pub fn serve_udp(socket: UdpSocket, manner: Manner) -> io::Result<Server> {
    let back = socket.try_clone()?;
    on_datagrams(socket, move |payload, peer| {
        if manner == Manner::Echo {
            // An answer that can't be sent is missed by the client, which tells.
            let _ = back.send_to(payload, peer);
        }
    })
}

/// Has `take` deal with every datagram, one after the other.
///
/// # Errors
/// The socket is broken.
pub fn on_datagrams(
    socket: UdpSocket,
    mut take: impl FnMut(&[u8], SocketAddr) + Send + 'static,
) -> io::Result<Server> {
    socket.set_read_timeout(Some(TURN))?;
    Ok(Server::start(move |ended, served| {
        let mut buffer = vec![0; 65536];
        while !ended.load(Ordering::Relaxed) {
            if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                served.fetch_add(1, Ordering::Relaxed);
                take(&buffer[..length], peer);
            }
        }
    }))
}

/// Sends `payload` and waits for as many bytes back.
///
/// # Errors
/// The peer closed, or stayed silent for 5 s.
pub fn exchange(stream: &mut TcpStream, payload: &[u8]) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(payload)?;
    let mut back = vec![0; payload.len()];
    stream.read_exact(&mut back)
}

/// Sends `payload` on a connected socket and says whether an answer came within `limit`.
///
/// # Errors
/// The datagram can't be sent.
pub fn ask(socket: &UdpSocket, payload: &[u8], limit: Duration) -> io::Result<bool> {
    socket.set_read_timeout(Some(limit))?;
    socket.send(payload)?;
    Ok(socket.recv(&mut [0; 65536]).is_ok())
}
