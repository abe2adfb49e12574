//! One request to a collector and its answer, over a connection of its own: events are few, and so a collector that was
//! restarted, or moved to another address, is found again at once.

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, TE, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::answer::Answer;
use crate::config::{Header, OtlpConfig, OtlpProtocol};
use crate::events::sink::tls;

/// Bytes of an answer that are read.
const MOST_BYTES: usize = 64 * 1024;

/// A message with gRPC's header: that it is not compressed, and its length.
pub(super) fn framed(message: &impl Message) -> Result<Vec<u8>, String> {
    let length = u32::try_from(message.encoded_len()).map_err(|error| error.to_string())?;
    let mut frame = vec![0];
    frame.extend(length.to_be_bytes());
    message
        .encode(&mut frame)
        .map_err(|error| error.to_string())?;
    Ok(frame)
}

/// An error and what it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        // Some repeat what they come from.
        if text.ends_with(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

fn request(config: &OtlpConfig, body: Vec<u8>) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    let authority = config.authority();
    let grpc = config.protocol == OtlpProtocol::Grpc;
    let target = if grpc {
        // HTTP/2 has scheme and host in fields of its own.
        format!("{}{}", config.url(), config.path())
    } else {
        config.path().to_owned()
    };
    *request.uri_mut() = target.parse::<Uri>().map_err(|error| error.to_string())?;
    let kind = match config.protocol {
        OtlpProtocol::HttpProtobuf => "application/x-protobuf",
        OtlpProtocol::HttpJson => "application/json",
        OtlpProtocol::Grpc => "application/grpc",
    };
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(USER_AGENT, HeaderValue::from_static("flowproof"));
    if grpc {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        let limit = format!("{}m", config.timeout.as_millis());
        let limit = HeaderValue::from_str(&limit).map_err(|error| error.to_string())?;
        headers.insert(HeaderName::from_static("grpc-timeout"), limit);
    } else {
        let host = HeaderValue::from_str(&authority).map_err(|error| error.to_string())?;
        headers.insert(HOST, host);
    }
    for Header { name, value } in &config.headers {
        headers.insert(name.clone(), value.clone());
    }
    Ok(request)
}

/// Brings `body` to the collector.
pub(super) async fn call(config: &OtlpConfig, body: Vec<u8>) -> Result<Answer, String> {
    let request = request(config, body)?;
    let grpc = config.protocol == OtlpProtocol::Grpc;
    let to = (config.endpoint.host.as_str(), config.port());
    let stream = TcpStream::connect(to)
        .await
        .map_err(|error| chain(&error))?;
    if !config.endpoint.tls {
        return exchange(stream, request, grpc).await;
    }
    let inside: &[u8] = if grpc { b"h2" } else { b"http/1.1" };
    let client = tls::client(&config.tls, &[inside]).map_err(|error| chain(&error))?;
    let name = tls::name(&config.endpoint.host).map_err(|error| chain(&error))?;
    let stream = TlsConnector::from(client)
        .connect(name, stream)
        .await
        .map_err(|error| format!("TLS: {}", chain(&error)))?;
    exchange(stream, request, grpc).await
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, grpc: bool) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream);
    if grpc {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .map_err(|error| chain(&error))?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        let answer = read(answer).await;
        connection.abort();
        answer
    } else {
        let (mut sender, connection) = http1::handshake(stream)
            .await
            .map_err(|error| chain(&error))?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        let answer = read(answer).await;
        connection.abort();
        answer
    }
}

async fn read(response: hyper::Result<Response<Incoming>>) -> Result<Answer, String> {
    let (parts, body) = response.map_err(|error| chain(&error))?.into_parts();
    let body = Limited::new(body, MOST_BYTES).collect().await;
    let body = body.map_err(|error| chain(&*error))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.to_bytes(),
        trailers,
    })
}
