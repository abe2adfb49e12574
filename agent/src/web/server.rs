//! Accepts connections within limits: their number, the time for a handshake and for a request's head, and the life of a
//! connection, so that a peer that is slow or many costs no more than that. Speaks TLS and HTTP/2 where the web configuration
//! has it, and asks the gate before a request is answered.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::connections::{Place, Refusal};
use super::door::{Asker, Door};
use super::source::Source;

/// How long a peer may take for a TLS handshake, for the head of a request, and stay silent between two.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long it may be idle after its first request: over HTTP/2, or slow to read an answer.
const IDLE_LIMIT: Duration = Duration::from_secs(120);
/// How long a connection may live, so that a reader that takes nothing does not hold it for ever. A scraper that keeps
/// its connection opens a new one.
const CONNECTION_LIMIT: Duration = Duration::from_secs(600);
/// Pause after the system refused a connection, for lack of file descriptors for example.
const PAUSE: Duration = Duration::from_millis(200);
/// How long answers under way may take when the daemon ends.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// Bytes that are buffered of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// The same over HTTP/2, unpacked.
const HEAD_LIST_BYTES: u32 = 16 * 1024;
/// Requests that a connection may have under way over HTTP/2.
const STREAMS: u32 = 32;
/// Streams that a peer may have reset before they were looked at (CVE-2023-44487), and that may be reset here for its errors.
const RESETS: usize = 20;
/// Bytes of answers that wait for a stream's reader.
const SEND_BYTES: usize = 256 * 1024;

/// What a client hears that speaks HTTP where TLS is spoken.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
    This port speaks TLS: ask by https://\n";

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
    door: Door,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener.listener)?;
    let door = Arc::new(door);
    let mut all = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = all.join_next() => continue,
            () = stopped(&mut stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let connections = &door.gate().connections;
        let Some(place) = connections.enter(Source::of(peer.ip()), Instant::now()) else {
            continue;
        };
        let connection = Connection {
            place: Arc::new(place),
            door: Arc::clone(&door),
            peer: peer.ip(),
            stop: stop.clone(),
        };
        all.spawn(async move {
            // Peers that go away or talk nonsense are their own problem.
            let life = connection.live(stream);
            let _ = tokio::time::timeout(CONNECTION_LIMIT, life).await;
        });
    }
    drop(listener);
    let drained = async { while all.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN_LIMIT, drained).await;
    Ok(())
}

/// Waits for the word to stop; a sender that is gone has said it too.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// One connection.
struct Connection {
    place: Arc<Place>,
    door: Arc<Door>,
    peer: IpAddr,
    stop: watch::Receiver<bool>,
}

impl Connection {
    async fn live(self, stream: TcpStream) {
        let gate = self.door.gate();
        gate.refresh().await;
        // Before the settings are read, so that no change is missed.
        let changes = gate.changes();
        let in_force = gate.in_force();
        let Some(tls) = &in_force.settings.tls else {
            return self.http1(stream, false, changes).await;
        };
        let server = Arc::clone(&tls.server);
        let proven = tls.proves_clients;
        // Those who serve by other settings meanwhile shall not keep these.
        drop(in_force);
        let mut stop = self.stop.clone();
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(HEAD_LIMIT, handshake(stream, server)) => shaken,
            () = self.place.must_go() => return,
            () = stopped(&mut stop) => return,
        };
        let refusal = match shaken {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                return self.http2(stream, proven, changes).await;
            }
            Ok(Ok(stream)) => return self.http1(stream, proven, changes).await,
            // Who looks if somebody listens, and says nothing.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return,
            Ok(Err(error)) => {
                tracing::debug!(%error, peer = %self.peer, "no agreement on TLS");
                Refusal::Tls
            }
            Err(_) => Refusal::Slow,
        };
        gate.connections.refuse(refusal);
    }

    async fn http1<S>(&self, stream: S, proven: bool, changes: watch::Receiver<u64>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (place, door, peer) = (Arc::clone(&self.place), Arc::clone(&self.door), self.peer);
        let answer = service_fn(move |request| {
            answer(Arc::clone(&place), Arc::clone(&door), peer, proven, request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), answer);
        self.drive(connection, changes).await;
    }

    async fn http2<S>(&self, stream: S, proven: bool, changes: watch::Receiver<u64>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Streams are tasks of their own, which outlive a connection that breaks off.
        let (place, door, peer) = (Arc::clone(&self.place), Arc::clone(&self.door), self.peer);
        let answer = service_fn(move |request| {
            answer(Arc::clone(&place), Arc::clone(&door), peer, proven, request)
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_pending_accept_reset_streams(RESETS)
            .max_local_error_reset_streams(RESETS)
            .max_header_list_size(HEAD_LIST_BYTES)
            .max_send_buf_size(SEND_BYTES)
            .keep_alive_interval(HEAD_LIMIT)
            .keep_alive_timeout(HEAD_LIMIT)
            .serve_connection(TokioIo::new(stream), answer);
        self.drive(connection, changes).await;
    }

    /// Until the peer is done, has to go, or other settings came into force: then what is under way is finished, and the peer
    /// comes again.
    async fn drive<C>(&self, connection: C, mut changes: watch::Receiver<u64>)
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let mut connection = pin!(connection);
        let mut idle = pin!(self.place.idle(HEAD_LIMIT, IDLE_LIMIT));
        let mut stop = self.stop.clone();
        let mut ending = false;
        let slow = loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    // Between two requests it is no fault to be silent.
                    break ended.is_err_and(|error| error.is_timeout()) && !self.place.served();
                }
                never = idle.as_mut() => break never,
                () = self.place.must_go() => break false,
                () = stopped(&mut stop), if !ending => {}
                _ = changes.changed(), if !ending => {}
            }
            ending = true;
            connection.as_mut().graceful_shutdown();
        };
        if slow {
            self.door.gate().connections.refuse(Refusal::Slow);
        }
    }
}

async fn answer(
    place: Arc<Place>,
    door: Arc<Door>,
    peer: IpAddr,
    proven: bool,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let _busy = place.begin();
    let asker = Asker { peer, proven };
    Ok(door.answer(asker, request.map(Body::new)).await)
}

async fn handshake(
    mut stream: TcpStream,
    server: Arc<ServerConfig>,
) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // A handshake begins with 22, a method of HTTP with a letter.
    if first[0].is_ascii_alphabetic() {
        stream.write_all(PLAIN_HTTP).await?;
        // Else what was not read of the request resets the connection before the client has read why.
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await? > 0 {}
        return Err(io::Error::other("plain HTTP"));
    }
    TlsAcceptor::from(server).accept(stream).await
}
