//! Answers on hundreds of sockets with one thread.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long it may take to notice that it should end, milliseconds.
const TURN: u8 = 100;

/// Sends everything back that comes; ends when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(listeners: Vec<TcpListener>, sockets: Vec<UdpSocket>) -> io::Result<Self> {
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        for socket in &sockets {
            socket.set_nonblocking(true)?;
        }
        let ended = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let ended = ended.clone();
            move || answer(&ended, &listeners, &sockets)
        });
        Ok(Self {
            ended,
            thread: Some(thread),
        })
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

fn answer(ended: &AtomicBool, listeners: &[TcpListener], sockets: &[UdpSocket]) {
    let mut streams: Vec<TcpStream> = Vec::new();
    let mut buffer = [0; 2048];
    while !ended.load(Ordering::Relaxed) {
        let readable: Vec<bool> = {
            let listening = listeners.iter().map(|listener| listener.as_fd());
            let receiving = sockets.iter().map(|socket| socket.as_fd());
            let open = streams.iter().map(|stream| stream.as_fd());
            let mut watched: Vec<PollFd<'_>> = listening
                .chain(receiving)
                .chain(open)
                .map(|socket| PollFd::new(socket, PollFlags::POLLIN))
                .collect();
            if poll(&mut watched, PollTimeout::from(TURN)).is_err() {
                continue;
            }
            watched
                .iter()
                .map(|socket| socket.any().unwrap_or(false))
                .collect()
        };
        let (listening, rest) = readable.split_at(listeners.len());
        let (receiving, open) = rest.split_at(sockets.len());
        // An answer that can't be sent is missed by the initiator, which tells.
        let mut going = open.iter();
        streams.retain_mut(|stream| {
            if going.next() != Some(&true) {
                return true;
            }
            match stream.read(&mut buffer) {
                Ok(0) => false,
                Ok(length) => stream.write_all(&buffer[..length]).is_ok(),
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            }
        });
        for (socket, _) in sockets.iter().zip(receiving).filter(|(_, ready)| **ready) {
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], peer);
            }
        }
        for (listener, _) in listeners.iter().zip(listening).filter(|(_, ready)| **ready) {
            while let Ok((stream, _)) = listener.accept() {
                if stream.set_nonblocking(true).is_ok() {
                    streams.push(stream);
                }
            }
        }
    }
}
