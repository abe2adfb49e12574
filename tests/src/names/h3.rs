//! HTTP/3: a server for every name of a certificate and a client, by quinn and h3. Both speak QUIC version 1;
//! [`super::initial`] has version 2.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf as _, Bytes};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use tokio::runtime::{Builder, Runtime};

use super::identity::Identity;
use crate::host::Host;

/// How long a conversation may take.
const LIMIT: Duration = Duration::from_secs(5);

const ALPN: &[&[u8]] = &[b"h3"];

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?)
}

/// A running server; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    // Both end with the runtime's tasks.
    _endpoints: Vec<Endpoint>,
    _runtime: Runtime,
}

impl Server {
    /// Serves on each of `listen`. QUIC answers from the address of its socket, so each address gets its own.
    ///
    /// # Errors
    /// An address isn't the host's, or a port is taken.
    pub fn start(host: &Host, listen: &[SocketAddr], identity: &Identity) -> Result<Self> {
        let crypto = QuicServerConfig::try_from(identity.server(ALPN)?)?;
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let runtime = runtime()?;
        let inside = runtime.enter();
        let mut endpoints = Vec::new();
        for address in listen {
            let endpoint = Endpoint::new(
                EndpointConfig::default(),
                Some(config.clone()),
                host.udp(*address)?,
                Arc::new(TokioRuntime),
            )?;
            let accepting = endpoint.clone();
            runtime.spawn(async move {
                while let Some(incoming) = accepting.accept().await {
                    tokio::spawn(async move {
                        // A conversation that fails is missed by the client, which tells.
                        let _ = serve(incoming).await;
                    });
                }
            });
            endpoints.push(endpoint);
        }
        drop(inside);
        Ok(Self {
            _endpoints: endpoints,
            _runtime: runtime,
        })
    }
}

async fn serve(incoming: quinn::Incoming) -> Result<()> {
    let connection = incoming.await?;
    let name = connection
        .handshake_data()
        .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
        .and_then(|data| data.server_name.clone())
        .unwrap_or_default();
    let mut connection =
        h3::server::Connection::<_, Bytes>::new(h3_quinn::Connection::new(connection)).await?;
    while let Some(request) = connection.accept().await? {
        let (request, mut stream) = request.resolve_request().await?;
        // To its end: a client that is told to stop sending takes that for a failure.
        while stream.recv_data().await?.is_some() {}
        stream
            .send_response(http::Response::builder().status(200).body(())?)
            .await?;
        stream
            .send_data(Bytes::from(format!(
                "served {name}{}\n",
                request.uri().path()
            )))
            .await?;
        stream.finish().await?;
    }
    Ok(())
}

/// A client's connection after its handshake; it is closed when dropped.
pub struct Conversation {
    runtime: Runtime,
    endpoint: Endpoint,
    connection: quinn::Connection,
    requests: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    name: String,
}

impl Conversation {
    /// Connects from `source` of `host`, showing and checking `name`.
    ///
    /// # Errors
    /// The handshake fails or takes more than 5 s.
    pub fn open(
        host: &Host,
        source: IpAddr,
        target: SocketAddr,
        name: &str,
        identity: &Identity,
    ) -> Result<Self> {
        let crypto = QuicClientConfig::try_from(identity.client(ALPN)?)?;
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let socket = host.udp((source, 0))?;
        let runtime = runtime()?;
        let (endpoint, connection, requests) = runtime
            .block_on(async {
                tokio::time::timeout(LIMIT, open(socket, config, target, name)).await
            })
            .with_context(|| format!("{target} says nothing"))?
            .with_context(|| format!("no HTTP/3 with {target} as {name}"))?;
        Ok(Self {
            runtime,
            endpoint,
            connection,
            requests,
            name: name.to_owned(),
        })
    }

    /// The client's end.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Asks for `path` and returns the body.
    ///
    /// # Errors
    /// The server doesn't answer by status 200 within 5 s.
    pub fn get(&mut self, path: &str) -> Result<String> {
        let Self {
            runtime,
            requests,
            name,
            ..
        } = self;
        runtime
            .block_on(async { tokio::time::timeout(LIMIT, ask(requests, name, path)).await })
            .context("no answer")?
    }
}

async fn open(
    socket: UdpSocket,
    config: quinn::ClientConfig,
    target: SocketAddr,
    name: &str,
) -> Result<(
    Endpoint,
    quinn::Connection,
    h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
)> {
    let endpoint = Endpoint::new(
        EndpointConfig::default(),
        None,
        socket,
        Arc::new(TokioRuntime),
    )?;
    let connection = endpoint.connect_with(config, target, name)?.await?;
    let (mut driver, requests) = h3::client::builder()
        .build::<_, _, Bytes>(h3_quinn::Connection::new(connection.clone()))
        .await?;
    // It ends with the connection.
    tokio::spawn(async move { driver.wait_idle().await });
    Ok((endpoint, connection, requests))
}

async fn ask(
    requests: &mut h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    name: &str,
    path: &str,
) -> Result<String> {
    let request = http::Request::get(format!("https://{name}{path}")).body(())?;
    let mut stream = requests.send_request(request).await?;
    stream.finish().await?;
    let response = stream.recv_response().await?;
    ensure!(response.status() == 200, "{response:?}");
    let mut body = Vec::new();
    while let Some(mut data) = stream.recv_data().await? {
        body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    Ok(String::from_utf8(body)?)
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.connection.close(0_u32.into(), b"");
        let endpoint = self.endpoint.clone();
        // The last packet is on its way before the socket goes; a server that is gone can't be waited for.
        let _ = self.runtime.block_on(async {
            tokio::time::timeout(Duration::from_millis(200), endpoint.wait_idle()).await
        });
    }
}
