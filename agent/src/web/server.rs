//! Accepts connections within limits: their number, the time for a request's head, and the life of a connection, so
//! that a peer that is slow or many costs no more than that.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Connections to one listener at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long a peer may take for the head of a request, and stay silent between two.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may live, so that a reader that takes nothing does not hold it for ever. A scraper that keeps
/// its connection opens a new one.
const CONNECTION_LIMIT: Duration = Duration::from_secs(600);
/// Pause after the system refused a connection, for lack of file descriptors for example.
const PAUSE: Duration = Duration::from_millis(200);
/// How long answers under way may take when the daemon ends.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// Bytes that are buffered of a request's head.
const HEAD_BYTES: usize = 16 * 1024;

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", remedy(.source))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "other errors need no more than the system's words"
)]
fn remedy(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is in use, perhaps by another flowproof; choose another with --listen or `web: {listen: [...]}`".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this host does not have the address; choose one that it has with --listen or `web: {listen: [...]}`".to_owned(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one with --listen or `web: {listen: [...]}`".to_owned(),
        _ => error.to_string(),
    }
}

/// An address that is listened on.
#[derive(Debug)]
pub struct Listener {
    listener: StdListener,
    /// The address, with the port that the system chose if 0 was asked for.
    pub address: SocketAddr,
}

/// Listens on an address; connections wait until [`serve`] takes them.
///
/// # Errors
/// [`BindError`] names the address and the remedy.
pub fn bind(address: SocketAddr) -> Result<Listener, BindError> {
    let error = |source| BindError { address, source };
    let listener = StdListener::bind(address).map_err(error)?;
    listener.set_nonblocking(true).map_err(error)?;
    let address = listener.local_addr().map_err(error)?;
    Ok(Listener { listener, address })
}

/// Serves until `stop` turns true, then lets answers under way finish for a moment. Must be called within a tokio
/// runtime with I/O.
///
/// # Errors
/// The listener can't be given to the runtime.
pub async fn serve(
    listener: Listener,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener.listener)?;
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let next = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&room).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, stream) = tokio::select! {
            (permit, accepted) = next => match accepted {
                Ok((stream, _)) => (permit, stream),
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            () = stopped(&mut stop) => break,
        };
        let connection = graceful.watch(connection(stream, router.clone()));
        tokio::spawn(async move {
            // Peers that go away or talk nonsense are their own problem.
            let _ = tokio::time::timeout(CONNECTION_LIMIT, connection).await;
            drop(permit);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN_LIMIT, graceful.shutdown()).await;
    Ok(())
}

/// Waits for the word to stop; a sender that is gone has said it too.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn connection(
    stream: TcpStream,
    router: Router,
) -> http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream as StdStream};

    use axum::routing::get;

    use super::*;

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    #[test]
    fn a_port_in_use_is_named_with_the_remedy() {
        let first = bind(local(0)).unwrap();
        let error = bind(first.address).unwrap_err().to_string();
        assert!(error.contains(&first.address.to_string()), "{error}");
        assert!(
            error.contains("in use") && error.contains("--listen"),
            "{error}"
        );
        let elsewhere = bind("192.0.2.1:0".parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            elsewhere.contains("does not have the address"),
            "{elsewhere}"
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn answers_and_ends_although_a_peer_stays() {
        let listener = bind(local(0)).unwrap();
        let address = listener.address;
        let router = Router::new().route("/", get(|| async { "here" }));
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, router, stopped));
        let asked = tokio::task::spawn_blocking(move || {
            // A peer that says nothing, and one that keeps its connection.
            let silent = StdStream::connect(address).unwrap();
            let mut peer = StdStream::connect(address).unwrap();
            peer.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .unwrap();
            let mut answer = vec![0; 256];
            let length = peer.read(&mut answer).unwrap();
            let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
            (silent, peer, answer)
        });
        let (_silent, _peer, answer) = asked.await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"),
            "{answer}"
        );
        stop.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(3), server)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(StdStream::connect(address).is_err());
    }
}
