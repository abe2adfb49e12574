//! A name server that does as it is told, for what dnsmasq can't: answers that come late, failures, HTTPS records with
//! an encrypted ClientHello configuration.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::svcb::{EchConfigList, SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HTTPS};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::query::{read_message, write_message};
use crate::host::Host;
use crate::traffic::Server;

/// What is answered to a question.
#[derive(Debug, Clone)]
pub struct Response {
    /// How long the answer takes; other questions are answered meanwhile.
    pub delay: Duration,
    /// The response code.
    pub code: ResponseCode,
    /// (owner, TTL in seconds, data) of each answer record.
    pub records: Vec<(String, u32, RData)>,
}

impl Response {
    /// An answer at once.
    #[must_use]
    pub const fn of(records: Vec<(String, u32, RData)>) -> Self {
        Self {
            delay: Duration::ZERO,
            code: ResponseCode::NoError,
            records,
        }
    }

    /// A failure at once.
    #[must_use]
    pub const fn failure(code: ResponseCode) -> Self {
        Self {
            delay: Duration::ZERO,
            code,
            records: Vec::new(),
        }
    }

    /// The same, later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

/// An A or AAAA record's data.
#[must_use]
pub const fn address(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// A CNAME record's data.
///
/// # Errors
/// `target` is no name.
pub fn alias(target: &str) -> Result<RData> {
    Ok(RData::CNAME(CNAME(Name::from_ascii(target)?)))
}

/// An HTTPS record's data (RFC 9460) for the name itself, with an encrypted ClientHello configuration that shows
/// `public_name` to the network.
///
/// # Errors
/// `public_name` is too long.
pub fn https_with_ech(public_name: &str) -> Result<RData> {
    let parameters = vec![(
        SvcParamKey::EchConfigList,
        SvcParamValue::EchConfigList(EchConfigList(ech_configurations(public_name)?)),
    )];
    Ok(RData::HTTPS(HTTPS(SVCB::new(1, Name::root(), parameters))))
}

/// An `ECHConfigList` (RFC 9849, section 4) of one configuration: X25519, HKDF-SHA256, AES-128-GCM. The key is
/// nobody's, since no server here decrypts.
fn ech_configurations(public_name: &str) -> Result<Vec<u8>> {
    let mut contents = vec![super::hello::ECH_CONFIGURATION, 0x00, 0x20, 0x00, 0x20];
    contents.extend([0x5a; 32]);
    contents.extend([0x00, 0x04, 0x00, 0x01, 0x00, 0x01]);
    contents.push(0);
    contents.push(u8::try_from(public_name.len()).context("the public name is too long")?);
    contents.extend(public_name.as_bytes());
    contents.extend([0x00, 0x00]);
    let length = u16::try_from(contents.len())?;
    let mut list = (length + 4).to_be_bytes().to_vec();
    list.extend(super::hello::ECH_EXTENSION.to_be_bytes());
    list.extend(length.to_be_bytes());
    list.extend(contents);
    Ok(list)
}

/// A running responder over UDP and TCP; it ends when dropped.
#[derive(Debug)]
pub struct Responder {
    udp: Server,
    tcp: Server,
}

impl Responder {
    /// Starts it. `answer` gets the name asked for (lower case, without the last dot) and the kind.
    ///
    /// # Errors
    /// The address isn't the host's, or the port is taken.
    pub fn start(
        host: &Host,
        listen: SocketAddr,
        answer: impl Fn(&str, RecordType) -> Response + Send + Sync + 'static,
    ) -> Result<Self> {
        let answer: Arc<Answer> = Arc::new(answer);
        let udp = serve_udp(host.udp(listen)?, answer.clone())?;
        let tcp = serve_tcp(host.listen(listen)?, answer)?;
        Ok(Self { udp, tcp })
    }

    /// Questions that came by UDP, and connections.
    #[must_use]
    pub fn served(&self) -> (u64, u64) {
        (self.udp.served(), self.tcp.served())
    }
}

type Answer = dyn Fn(&str, RecordType) -> Response + Send + Sync;

fn serve_udp(socket: UdpSocket, answer: Arc<Answer>) -> Result<Server> {
    let back = socket.try_clone()?;
    Ok(crate::traffic::on_datagrams(
        socket,
        move |question, peer| {
            let Ok((delay, message)) = respond(question, &*answer) else {
                return;
            };
            // What can't be sent is missed by the client, which tells.
            if delay.is_zero() {
                let _ = back.send_to(&message, peer);
            } else if let Ok(back) = back.try_clone() {
                thread::spawn(move || {
                    thread::sleep(delay);
                    let _ = back.send_to(&message, peer);
                });
            }
        },
    )?)
}

fn serve_tcp(listener: TcpListener, answer: Arc<Answer>) -> Result<Server> {
    Ok(crate::traffic::on_connections(listener, move |stream| {
        // The end of the conversation, orderly or not.
        let _ = converse(stream, &*answer);
    })?)
}

fn converse(mut stream: TcpStream, answer: &Answer) -> Result<()> {
    loop {
        let question = read_message(&mut stream)?;
        let (delay, message) = respond(&question, answer)?;
        thread::sleep(delay);
        write_message(&mut stream, &message)?;
    }
}

fn respond(question: &[u8], answer: &Answer) -> Result<(Duration, Vec<u8>)> {
    let question = Message::from_vec(question)?;
    let asked = question.queries.first().context("no question")?;
    let name = asked.name.to_ascii().to_ascii_lowercase();
    let response = answer(name.trim_end_matches('.'), asked.query_type);
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.metadata.recursion_desired = true;
    message.metadata.recursion_available = true;
    message.metadata.response_code = response.code;
    message.add_query(asked.clone());
    for (owner, ttl, data) in response.records {
        message.add_answer(Record::from_rdata(Name::from_ascii(owner)?, ttl, data));
    }
    Ok((response.delay, message.to_vec()?))
}
