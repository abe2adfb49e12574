//! Protocol numbers and the two questions that the judgement asks of them: has it ports, and does it owe
//! an answer. IANA "Assigned Internet Protocol Numbers" and "ICMP Type Numbers".

/// ICMP for IPv4, RFC 792.
pub const ICMP: u8 = 1;
/// IGMP, RFC 9776.
pub const IGMP: u8 = 2;
/// IPv4 in IP, RFC 2003.
pub const TCP: u8 = 6;
/// UDP, RFC 768.
pub const UDP: u8 = 17;
/// DCCP, RFC 4340.
pub const DCCP: u8 = 33;
/// ICMP for IPv6, RFC 4443.
pub const ICMPV6: u8 = 58;
/// VRRP, RFC 9568.
pub const VRRP: u8 = 112;
/// SCTP, RFC 9260.
pub const SCTP: u8 = 132;
/// UDP-Lite, RFC 3828.
pub const UDP_LITE: u8 = 136;

/// ICMP echo reply and request, RFC 792.
pub const ICMP_ECHO_REPLY: u8 = 0;
/// See [`ICMP_ECHO_REPLY`].
pub const ICMP_ECHO_REQUEST: u8 = 8;
/// ICMPv6 echo request and reply, RFC 4443, section 4.
pub const ICMPV6_ECHO_REQUEST: u8 = 128;
/// See [`ICMPV6_ECHO_REQUEST`].
pub const ICMPV6_ECHO_REPLY: u8 = 129;

/// Whether the first four bytes of the transport header are source and destination port.
#[inline(always)]
#[must_use]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE)
}

/// Upkeep of the link itself, which no connectivity matrix lists and no firewall between two hosts
/// carries: IGMP, ICMPv6 multicast listener discovery (RFC 9777: 130 to 132, 143) and neighbour
/// discovery (RFC 4861: 133 to 137). The counterpart of ARP, so it is never judged.
#[inline(always)]
#[must_use]
pub const fn is_link_upkeep(protocol: u8, icmp_type: u8) -> bool {
    match protocol {
        IGMP => true,
        ICMPV6 => matches!(icmp_type, 130..=137 | 143),
        _ => false,
    }
}

/// UDP services whose protocol has the responder answer each request, so that silence is a failure:
/// DNS 53, DHCP server 67, Kerberos 88, NTP 123, SNMP 161, CLDAP 389, kpasswd 464, IKE 500 and 4500,
/// DHCPv6 server 547, SQL browser 1434, RADIUS 1812 and 1813, STUN 3478 and 5349, SIP 5060,
/// NetBIOS name 137, L2TP 1701, QUIC 443 (IANA service names registry).
#[inline(always)]
#[must_use]
pub const fn udp_service_answers(port: u16) -> bool {
    matches!(
        port,
        53 | 67
            | 88
            | 123
            | 137
            | 161
            | 389
            | 443
            | 464
            | 500
            | 547
            | 1434
            | 1701
            | 1812
            | 1813
            | 3478
            | 4500
            | 5060
            | 5349
    )
}

/// The type of the request that an ICMP or ICMPv6 message belongs to: an echo reply counts as its
/// request, every other message as itself.
#[inline(always)]
#[must_use]
pub const fn icmp_request_type(protocol: u8, icmp_type: u8) -> u8 {
    match (protocol, icmp_type) {
        (ICMP, ICMP_ECHO_REPLY) => ICMP_ECHO_REQUEST,
        (ICMPV6, ICMPV6_ECHO_REPLY) => ICMPV6_ECHO_REQUEST,
        (_, other) => other,
    }
}

/// Whether the message is an echo request or reply, whose identifier tells one `ping` from another.
#[inline(always)]
#[must_use]
pub const fn is_echo(protocol: u8, icmp_type: u8) -> bool {
    matches!(
        (protocol, icmp_request_type(protocol, icmp_type)),
        (ICMP, ICMP_ECHO_REQUEST) | (ICMPV6, ICMPV6_ECHO_REQUEST)
    )
}
