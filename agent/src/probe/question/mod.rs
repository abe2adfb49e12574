//! What a probe asks: which question fits a service, its bytes, and what counts as an answer to it.
//!
//! A question asks for as little as makes the other side answer, changes nothing there, and carries a number that the
//! answer repeats where the protocol has one, so that nothing else passes for an answer. Where it has none (Kerberos
//! errors, SQL Server Browser), the socket's own port is all there is, and the form of the answer is held to the
//! protocol.

mod der;
mod dns;
mod echo;
mod kerberos;
mod ntp;
mod quic;
mod radius;
mod sql_browser;
mod stun;

use flowproof_common::protocol::udp_service_answers;

use crate::matrix::Protocol;

pub use echo::{Echo, EchoAnswer};

/// Random bytes that a question takes its numbers from.
pub type Seed = [u8; 32];

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Question {
    /// A TCP handshake.
    TcpConnect,
    /// A TCP handshake and then a TLS handshake, with the name that led there if one did.
    TlsHandshake,
    /// ICMP or ICMPv6 echo.
    Echo,
    /// A question in the protocol of the service, over UDP.
    Udp(UdpQuestion),
}

/// A question over UDP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UdpQuestion {
    /// DNS: the name servers of the root.
    Dns,
    /// NTP: the time.
    Ntp,
    /// Kerberos: a ticket for a principal that nobody has.
    Kerberos,
    /// STUN: Binding.
    Stun,
    /// RADIUS: Status-Server, unsigned.
    Radius,
    /// SQL Server Browser: the instances.
    SqlBrowser,
    /// QUIC: a version that nobody speaks.
    Quic,
    /// An empty datagram, where no protocol is known: only an ICMP error tells anything.
    Datagram,
}

/// Why a service is not probed although its end has an exact address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoQuestion {
    /// The protocol can't be spoken here.
    #[error("only TCP, UDP, ICMP echo and ICMPv6 echo are probed")]
    Protocol,
    /// A type of ICMP that nobody answers.
    #[error("of ICMP only echo is probed")]
    IcmpType,
    /// The protocol owes answers, but not to a datagram that is none of its own: a silence that proves nothing would look
    /// like a failure to whoever watches.
    #[error(
        "no question of this protocol is known here, and it owes an answer to its own only: silence would look like a failure to whoever watches"
    )]
    OwesAnswer,
}

/// Ports of TCP whose protocol begins with a TLS handshake (IANA service names registry): HTTPS, SMTP submission, LDAPS,
/// DNS over TLS, FTPS, Telnet, IMAP, POP3, STUN, SIP, AMQP, WinRM, syslog, HTTPS alternatives, MQTT.
const TLS_PORTS: [u16; 17] = [
    443, 465, 636, 853, 989, 990, 992, 993, 995, 3269, 5061, 5349, 5671, 5986, 6514, 8443, 8883,
];

/// Ways in which documents name an application that begins with TLS.
const TLS_APPLICATIONS: [&str; 9] = [
    "https", "tls", "ssl", "wss", "ldaps", "amqps", "imaps", "ftps", "mqtts",
];
/// Applications that begin with something else, whatever port they are on.
const PLAIN_APPLICATIONS: [&str; 9] = [
    "http", "ssh", "rdp", "smb", "ldap", "rpc", "sql", "telnet", "starttls",
];

/// Applications whose question is known, by the words of documents, for ports of their own choice.
const UDP_APPLICATIONS: [(&str, UdpQuestion); 8] = [
    ("dns", UdpQuestion::Dns),
    ("ntp", UdpQuestion::Ntp),
    ("sntp", UdpQuestion::Ntp),
    ("kerberos", UdpQuestion::Kerberos),
    ("stun", UdpQuestion::Stun),
    ("turn", UdpQuestion::Stun),
    ("radius", UdpQuestion::Radius),
    ("quic", UdpQuestion::Quic),
];

impl Question {
    /// What to ask of a service at one port (or ICMP type); `application` is the word of the document.
    ///
    /// # Errors
    /// [`NoQuestion`]: the service is not probed.
    pub fn of(
        protocol: Protocol,
        port: Option<u16>,
        application: Option<&str>,
    ) -> Result<Self, NoQuestion> {
        match (protocol, port) {
            (Protocol::Tcp, Some(port)) => Ok(if begins_with_tls(port, application) {
                Self::TlsHandshake
            } else {
                Self::TcpConnect
            }),
            (Protocol::Udp, Some(port)) => UdpQuestion::of(port, application).map(Self::Udp),
            (Protocol::Icmp | Protocol::Icmpv6, None) => Ok(Self::Echo),
            (Protocol::Icmp, Some(8)) | (Protocol::Icmpv6, Some(128)) => Ok(Self::Echo),
            (Protocol::Icmp | Protocol::Icmpv6, Some(_)) => Err(NoQuestion::IcmpType),
            (Protocol::Tcp | Protocol::Udp, None) | (Protocol::Vrrp | Protocol::Other(_), _) => {
                Err(NoQuestion::Protocol)
            }
        }
    }

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpConnect => "tcp connect",
            Self::TlsHandshake => "tls handshake",
            Self::Echo => "icmp echo",
            Self::Udp(UdpQuestion::Dns) => "dns query",
            Self::Udp(UdpQuestion::Ntp) => "ntp query",
            Self::Udp(UdpQuestion::Kerberos) => "kerberos as-req",
            Self::Udp(UdpQuestion::Stun) => "stun binding",
            Self::Udp(UdpQuestion::Radius) => "radius status-server",
            Self::Udp(UdpQuestion::SqlBrowser) => "sql browser query",
            Self::Udp(UdpQuestion::Quic) => "quic version negotiation",
            Self::Udp(UdpQuestion::Datagram) => "udp datagram",
        }
    }
}

/// Whether a TCP service speaks TLS from its first byte on. A port alone is trusted unless the document says otherwise.
fn begins_with_tls(port: u16, application: Option<&str>) -> bool {
    let mut words = words(application).peekable();
    if words.peek().is_none() {
        return TLS_PORTS.contains(&port);
    }
    let mut plain = false;
    for word in words {
        if TLS_APPLICATIONS.contains(&word.as_str()) {
            return true;
        }
        plain |= PLAIN_APPLICATIONS.contains(&word.as_str());
    }
    !plain && TLS_PORTS.contains(&port)
}

fn words(application: Option<&str>) -> impl Iterator<Item = String> {
    application
        .unwrap_or_default()
        .split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
}

impl UdpQuestion {
    fn of(port: u16, application: Option<&str>) -> Result<Self, NoQuestion> {
        let by_word = words(application).find_map(|word| {
            UDP_APPLICATIONS
                .iter()
                .find(|(name, _)| *name == word)
                .map(|(_, question)| *question)
        });
        if let Some(question) = by_word {
            return Ok(question);
        }
        match port {
            53 => Ok(Self::Dns),
            88 => Ok(Self::Kerberos),
            123 => Ok(Self::Ntp),
            443 => Ok(Self::Quic),
            1434 => Ok(Self::SqlBrowser),
            // 1645 and 1646 were used before the registered ones (RFC 2865, section 3).
            1645 | 1646 | 1812 | 1813 => Ok(Self::Radius),
            // Teams and others spread media relays over four ports; Google's are on 19302.
            3478..=3481 | 19_302 => Ok(Self::Stun),
            port if udp_service_answers(port) => Err(NoQuestion::OwesAnswer),
            _ => Ok(Self::Datagram),
        }
    }

    /// The datagram to send.
    #[must_use]
    pub fn bytes(self, seed: &Seed) -> Vec<u8> {
        match self {
            Self::Dns => dns::question(seed),
            Self::Ntp => ntp::question(seed),
            Self::Kerberos => kerberos::question(seed),
            Self::Stun => stun::question(seed),
            Self::Radius => radius::question(seed),
            Self::SqlBrowser => sql_browser::question(),
            Self::Quic => quic::question(seed),
            Self::Datagram => Vec::new(),
        }
    }

    /// What a datagram from the responder says in answer to `asked`; nothing if it answers something else, or is no
    /// message of the protocol.
    #[must_use]
    pub fn answer(self, asked: &[u8], heard: &[u8]) -> Option<String> {
        match self {
            Self::Dns => dns::answer(asked, heard),
            Self::Ntp => ntp::answer(asked, heard),
            Self::Kerberos => kerberos::answer(heard),
            Self::Stun => stun::answer(asked, heard),
            Self::Radius => radius::answer(asked, heard),
            Self::SqlBrowser => sql_browser::answer(heard),
            Self::Quic => quic::answer(asked, heard),
            Self::Datagram => Some(format!("answered with {} bytes", heard.len())),
        }
    }

    /// Why silence proves nothing; none where an answer is owed.
    #[must_use]
    pub const fn excuse(self) -> Option<&'static str> {
        match self {
            Self::Dns | Self::Ntp | Self::Kerberos | Self::Stun | Self::SqlBrowser | Self::Quic => {
                None
            }
            Self::Radius => Some(
                "a RADIUS server says nothing to whom it shares no secret with (RFC 2865, section 3), so silence proves nothing",
            ),
            Self::Datagram => Some("nobody owes an answer to an empty datagram"),
        }
    }
}

/// The first `N` bytes of a seed, from `at` on; wraps around.
fn part<const N: usize>(seed: &Seed, at: usize) -> [u8; N] {
    std::array::from_fn(|index| seed[(at + index) % seed.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// No two bytes alike.
    pub(super) fn seed() -> Seed {
        std::array::from_fn(|index| 0x11 + u8::try_from(index).unwrap())
    }

    #[track_caller]
    fn check(service: &str, application: Option<&str>, expect: Result<&str, NoQuestion>) {
        let service: crate::matrix::Service = service.parse().unwrap();
        let asked = Question::of(service.protocol(), service.first(), application);
        assert_eq!(
            asked.map(Question::name),
            expect,
            "{service} {application:?}"
        );
    }

    #[test]
    fn services_have_their_questions() {
        check("tcp/22", None, Ok("tcp connect"));
        check("tcp/443", None, Ok("tls handshake"));
        check("tcp/443", Some("HTTPS"), Ok("tls handshake"));
        check("tcp/443", Some("Vendor sessions"), Ok("tls handshake"));
        check("tcp/443", Some("SSH"), Ok("tcp connect"));
        check("tcp/443", Some("HTTP/HTTPS"), Ok("tls handshake"));
        check("tcp/9000", Some("TLS 1.2"), Ok("tls handshake"));
        check("tcp/80", Some("http"), Ok("tcp connect"));
        check("udp/53", None, Ok("dns query"));
        check("udp/123", None, Ok("ntp query"));
        check("udp/88", None, Ok("kerberos as-req"));
        check("udp/3478", None, Ok("stun binding"));
        check("udp/3480", None, Ok("stun binding"));
        check("udp/40000", Some("TURN"), Ok("stun binding"));
        check("udp/1812", None, Ok("radius status-server"));
        check("udp/1434", None, Ok("sql browser query"));
        check("udp/443", None, Ok("quic version negotiation"));
        check("udp/514", Some("syslog"), Ok("udp datagram"));
        check("udp/161", None, Err(NoQuestion::OwesAnswer));
        check("icmp", None, Ok("icmp echo"));
        check("icmp/8", None, Ok("icmp echo"));
        check("icmp/13", None, Err(NoQuestion::IcmpType));
        check("icmpv6/128", None, Ok("icmp echo"));
        check("icmpv6/8", None, Err(NoQuestion::IcmpType));
        check("vrrp", None, Err(NoQuestion::Protocol));
        check("gre", None, Err(NoQuestion::Protocol));
        check("sctp/38412", None, Err(NoQuestion::Protocol));
    }

    const ALL: [UdpQuestion; 7] = [
        UdpQuestion::Dns,
        UdpQuestion::Ntp,
        UdpQuestion::Kerberos,
        UdpQuestion::Stun,
        UdpQuestion::Radius,
        UdpQuestion::SqlBrowser,
        UdpQuestion::Quic,
    ];

    #[test]
    fn no_question_answers_itself() {
        // A host that echoes what it gets, or a packet that is reflected, is no service of the protocol.
        for question in ALL {
            let asked = question.bytes(&seed());
            assert_eq!(question.answer(&asked, &asked), None, "{question:?}");
        }
    }

    mod properties {
        use super::*;

        proptest! {
            #[test]
            fn hostile_answers_never_panic(
                which in 0_usize..ALL.len(),
                heard in proptest::collection::vec(any::<u8>(), 0..80),
            ) {
                let asked = ALL[which].bytes(&seed());
                let _ = ALL[which].answer(&asked, &heard);
            }
        }
    }
}
