//! A client that asks name servers over UDP and TCP, and keeps nothing in mind.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use crate::host::Host;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Who asks, from where, whom.
#[derive(Debug, Clone)]
pub struct Asker {
    host: Arc<Host>,
    source: IpAddr,
    server: SocketAddr,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The response code.
    pub code: ResponseCode,
    /// Whether it was cut to fit a datagram.
    pub truncated: bool,
    /// The names that the question leads to, in order.
    pub aliases: Vec<String>,
    /// A and AAAA records.
    pub addresses: Vec<IpAddr>,
    /// The least TTL of all records; `None` without records.
    pub ttl: Option<u32>,
}

impl Asker {
    /// Asks `server` from the address `source` of `host`.
    #[must_use]
    pub fn new(host: &Arc<Host>, source: IpAddr, server: SocketAddr) -> Self {
        Self {
            host: host.clone(),
            source,
            server,
        }
    }

    /// Asks for the IPv4 addresses of `name` over UDP.
    ///
    /// # Errors
    /// No answer within 5 s, or one without addresses.
    pub fn resolve(&self, name: &str) -> Result<Vec<IpAddr>> {
        let reply = self.udp(name, RecordType::A)?;
        ensure!(!reply.addresses.is_empty(), "{name}: {reply:?}");
        Ok(reply.addresses)
    }

    /// Asks over UDP.
    ///
    /// # Errors
    /// `name` is none, or no answer within 5 s.
    pub fn udp(&self, name: &str, kind: RecordType) -> Result<Reply> {
        self.udp_later(name, kind)?.wait()
    }

    /// Asks over UDP without waiting: what happens before the answer is up to the caller.
    ///
    /// # Errors
    /// `name` is none.
    pub fn udp_later(&self, name: &str, kind: RecordType) -> Result<Asked> {
        let (id, question) = question(name, kind)?;
        let socket = self.host.udp((self.source, 0))?;
        socket.connect(self.server)?;
        socket.send(&question)?;
        Ok(Asked { socket, id })
    }

    /// Asks over TCP (RFC 7766), one question a connection.
    ///
    /// # Errors
    /// As [`Asker::udp`].
    pub fn tcp(&self, name: &str, kind: RecordType) -> Result<Reply> {
        let (id, question) = question(name, kind)?;
        let mut stream = self
            .host
            .connect(Some((self.source, 0).into()), self.server, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write_message(&mut stream, &question)?;
        read(&read_message(&mut stream)?, id)
    }

    /// Asks for the IPv4 and IPv6 addresses of all `names`, `window` names at a time and each question from a port of its
    /// own, as resolvers do (RFC 5452, section 9.2).
    ///
    /// # Errors
    /// A name is none, or a question isn't answered within 5 s.
    pub fn resolve_all<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
        window: usize,
    ) -> Result<Book> {
        let names: Vec<&str> = names.into_iter().collect();
        let mut told = Book::new();
        for names in names.chunks(window.max(1)) {
            let mut open = Vec::new();
            for name in names {
                for kind in [RecordType::A, RecordType::AAAA] {
                    open.push((*name, self.udp_later(name, kind)?));
                }
            }
            for (name, asked) in open {
                let reply = asked.wait().with_context(|| name.to_owned())?;
                let addresses = told.entry(name.to_owned()).or_default();
                addresses.extend(reply.addresses);
            }
        }
        Ok(told)
    }

    /// Asks for the IPv4 address of each of `names` from one socket, `window` questions at a time, and returns how many
    /// were answered. A lost question is lost.
    ///
    /// # Errors
    /// A name is none, or no answer at all for 5 s.
    pub fn flood(&self, names: impl IntoIterator<Item = String>, window: usize) -> Result<usize> {
        let socket = self.host.udp((self.source, 0))?;
        socket.connect(self.server)?;
        socket.set_read_timeout(Some(LIMIT))?;
        let mut buffer = [0; 4096];
        let (mut open, mut answered) = (BTreeSet::new(), 0);
        let mut names = names.into_iter();
        let mut id = 0_u16;
        loop {
            while open.len() < window {
                let Some(name) = names.next() else { break };
                id = id.wrapping_add(1);
                socket.send(&message(id, &name, RecordType::A)?)?;
                open.insert(id);
            }
            if open.is_empty() {
                return Ok(answered);
            }
            let length = socket
                .recv(&mut buffer)
                .with_context(|| format!("no answer; {answered} before"))?;
            let header = buffer.get(..length.min(2)).unwrap_or_default();
            if let [high, low] = *header
                && open.remove(&u16::from_be_bytes([high, low]))
            {
                answered += 1;
            }
        }
    }
}

/// The addresses that were told for each name.
pub type Book = BTreeMap<String, BTreeSet<IpAddr>>;

/// A question over UDP whose answer is still to come.
#[derive(Debug)]
pub struct Asked {
    socket: UdpSocket,
    id: u16,
}

impl Asked {
    /// Waits for the answer.
    ///
    /// # Errors
    /// It doesn't come within 5 s.
    pub fn wait(self) -> Result<Reply> {
        let start = Instant::now();
        let mut buffer = vec![0; 65536];
        self.socket.set_read_timeout(Some(LIMIT))?;
        while start.elapsed() < LIMIT {
            let length = self.socket.recv(&mut buffer).context("no answer")?;
            if buffer.starts_with(&self.id.to_be_bytes()) {
                return read(&buffer[..length], self.id);
            }
        }
        bail!("no answer after {LIMIT:?}")
    }
}

/// A message on a stream: its length comes first (RFC 1035, section 4.2.2).
pub(crate) fn write_message(stream: &mut TcpStream, message: &[u8]) -> Result<()> {
    let mut bytes = u16::try_from(message.len())?.to_be_bytes().to_vec();
    bytes.extend(message);
    stream.write_all(&bytes)?;
    Ok(())
}

/// As [`write_message`].
pub(crate) fn read_message(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn question(name: &str, kind: RecordType) -> Result<(u16, Vec<u8>)> {
    let id = Message::query().metadata.id;
    Ok((id, message(id, name, kind)?))
}

fn message(id: u16, name: &str, kind: RecordType) -> Result<Vec<u8>> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name)?, kind));
    Ok(message.to_vec()?)
}

fn read(bytes: &[u8], id: u16) -> Result<Reply> {
    let message = Message::from_vec(bytes).context("no DNS message")?;
    ensure!(message.metadata.id == id, "the answer to another question");
    let mut reply = Reply {
        code: message.metadata.response_code,
        truncated: message.metadata.truncation,
        aliases: Vec::new(),
        addresses: Vec::new(),
        ttl: message.answers.iter().map(|record| record.ttl).min(),
    };
    for record in &message.answers {
        if let RData::A(address) = &record.data {
            reply.addresses.push(address.0.into());
        } else if let RData::AAAA(address) = &record.data {
            reply.addresses.push(address.0.into());
        } else if let RData::CNAME(alias) = &record.data {
            reply
                .aliases
                .push(alias.0.to_ascii().trim_end_matches('.').to_owned());
        }
    }
    Ok(reply)
}
