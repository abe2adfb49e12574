//! Names that stand for protocols and ports: what every administrator knows, from IANA's registries "Protocol Numbers"
//! and "Service Name and Transport Protocol Port Number".

use crate::matrix::Protocol;

/// An application protocol with the services it is registered for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Application {
    /// In lower case.
    pub(super) name: &'static str,
    /// Registered transports and ports; none where the name implies none.
    pub(super) services: &'static [(Protocol, u16)],
}

use Protocol::{Tcp, Udp};

macro_rules! applications {
    ($($name:literal => [$($protocol:ident $port:literal),*]),+ $(,)?) => {
        /// All that are known, by name.
        const APPLICATIONS: &[Application] = &[$(Application { name: $name, services: &[$(($protocol, $port)),*] }),+];
    };
}

applications! {
    "http" => [Tcp 80], "https" => [Tcp 443], "quic" => [Udp 443], "ws" => [Tcp 80], "wss" => [Tcp 443],
    "websocket" => [Tcp 443], "rest" => [], "tls" => [], "ssl" => [], "dtls" => [], "grpc" => [],
    "dns" => [Udp 53, Tcp 53], "mdns" => [Udp 5353], "dhcp" => [Udp 67, Udp 68], "ntp" => [Udp 123],
    "ssh" => [Tcp 22], "sftp" => [Tcp 22], "scp" => [Tcp 22], "ftp" => [Tcp 21], "ftps" => [Tcp 990], "telnet" => [Tcp 23], "tftp" => [Udp 69],
    "smtp" => [Tcp 25], "smtps" => [Tcp 465], "submission" => [Tcp 587], "imap" => [Tcp 143], "imaps" => [Tcp 993],
    "pop3" => [Tcp 110], "pop3s" => [Tcp 995],
    "ldap" => [Tcp 389, Udp 389], "ldaps" => [Tcp 636], "kerberos" => [Tcp 88, Udp 88], "kpasswd" => [Tcp 464, Udp 464],
    "smb" => [Tcp 445], "cifs" => [Tcp 445], "netbios" => [Udp 137, Udp 138, Tcp 139], "rpc" => [Tcp 135], "dcom" => [Tcp 135],
    "wmi" => [], "winrm" => [Tcp 5985, Tcp 5986], "rdp" => [Tcp 3389, Udp 3389], "kms" => [Tcp 1688],
    "radius" => [Udp 1812, Udp 1813], "tacacs" => [Tcp 49], "snmp" => [Udp 161], "snmptrap" => [Udp 162], "syslog" => [Udp 514],
    "mssql" => [Tcp 1433], "mysql" => [Tcp 3306], "postgres" => [Tcp 5432], "postgresql" => [Tcp 5432], "oracle" => [Tcp 1521],
    "mongodb" => [Tcp 27017], "redis" => [Tcp 6379], "amqp" => [Tcp 5672], "amqps" => [Tcp 5671], "mqtt" => [Tcp 1883], "mqtts" => [Tcp 8883],
    "stun" => [Udp 3478, Tcp 3478], "turn" => [Udp 3478, Tcp 3478], "stuns" => [Tcp 5349, Udp 5349], "turns" => [Tcp 5349, Udp 5349],
    "sip" => [Udp 5060, Tcp 5060], "sips" => [Tcp 5061], "rtp" => [], "srtp" => [], "rtsp" => [Tcp 554], "rtmp" => [Tcp 1935], "rtmps" => [Tcp 443],
    "nfs" => [Tcp 2049], "iscsi" => [Tcp 3260], "vnc" => [Tcp 5900], "ica" => [Tcp 1494], "bgp" => [Tcp 179], "git" => [Tcp 9418],
    "whois" => [Tcp 43], "nrpe" => [Tcp 5666], "zabbix" => [Tcp 10051], "netflow" => [Udp 2055], "ipfix" => [Udp 4739], "ike" => [Udp 500],
}

/// The application of this name, in any case.
pub(super) fn application(name: &str) -> Option<Application> {
    let name = name.to_ascii_lowercase();
    APPLICATIONS
        .iter()
        .copied()
        .find(|application| application.name == name)
}

/// Applications that are registered for a port.
pub(super) fn registered(port: u16) -> impl Iterator<Item = Application> {
    APPLICATIONS.iter().copied().filter(move |application| {
        application
            .services
            .iter()
            .any(|(_, registered)| *registered == port)
    })
}

/// Transports that a port is registered for here, without duplicates.
pub(super) fn transports(port: u16) -> Vec<Protocol> {
    let mut found: Vec<Protocol> = APPLICATIONS
        .iter()
        .flat_map(|application| application.services)
        .filter(|(_, registered)| *registered == port)
        .map(|(protocol, _)| *protocol)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// A transport or other IP protocol by its name. Numbers are not names: a number in a cell is a port.
pub(super) fn protocol(name: &str) -> Option<Protocol> {
    let name = name.to_ascii_lowercase();
    let name = match name.as_str() {
        "ipsec" | "encapsulating" => "esp",
        "tcpv4" | "tcp4" | "tcpv6" | "tcp6" => "tcp",
        "udpv4" | "udp4" | "udpv6" | "udp6" => "udp",
        "ping" => "icmp",
        // Names that mean something else in a table: IP version, version of the product.
        "ipv6" | "egp" => return None,
        name => name,
    };
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_names() {
        assert_eq!(protocol("TCP"), Some(Protocol::Tcp));
        assert_eq!(protocol("ESP"), Some(Protocol::Other(50)));
        assert_eq!(protocol("80"), None);
        assert_eq!(protocol("HTTPS"), None);
        assert_eq!(
            application("HTTPS").map(|a| a.services),
            Some([(Tcp, 443)].as_slice())
        );
        assert_eq!(transports(123), [Udp]);
        assert_eq!(transports(53), [Tcp, Udp]);
        assert_eq!(transports(20001), []);
        assert!(registered(3478).any(|application| application.name == "stun"));
    }
}
