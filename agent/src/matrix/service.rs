//! Services: a protocol with the ports (or the ICMP type) of the responder. The text form is the one of the matrix
//! files, of the `service` label and of requirement ids, so reading and printing live side by side here and are
//! each other's inverse.

use std::fmt;
use std::num::IntErrorKind;
use std::str::FromStr;

/// A transport or other IP protocol. The protocols that flowproof treats specially have a variant of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
    /// ICMP for IPv4, protocol number 1.
    Icmp,
    /// ICMPv6, protocol number 58.
    Icmpv6,
    /// VRRP, protocol number 112.
    Vrrp,
    /// Any other protocol by its number (IANA "Protocol Numbers"). [`Protocol::from_number`] never puts a number
    /// here that has a variant of its own.
    Other(u8),
}

/// Names of further protocols that vendors' tables use, with their IANA protocol numbers.
const NAMED: [(&str, u8); 14] = [
    ("igmp", 2),
    ("ipip", 4),
    ("egp", 8),
    ("dccp", 33),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("eigrp", 88),
    ("ospf", 89),
    ("pim", 103),
    ("l2tp", 115),
    ("sctp", 132),
    ("udplite", 136),
];

/// What stands after the `/` of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Qualifier {
    Ports,
    IcmpType,
    Nothing,
}

impl Protocol {
    /// The protocol with this number in the IPv4 `protocol` or IPv6 `next header` field.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Icmp,
            6 => Self::Tcp,
            17 => Self::Udp,
            58 => Self::Icmpv6,
            112 => Self::Vrrp,
            other => Self::Other(other),
        }
    }

    /// The number in the IPv4 `protocol` or IPv6 `next header` field.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmpv6 => 58,
            Self::Vrrp => 112,
            Self::Other(number) => number,
        }
    }

    /// Whether the protocol's header starts with a source and a destination port: TCP, UDP, DCCP (RFC 4340),
    /// SCTP (RFC 9260) and UDP-Lite (RFC 3828).
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self.qualifier(), Qualifier::Ports)
    }

    /// The protocol as the JSON contracts write it: `tcp`, `udp`, `icmp`, `icmpv6`, `vrrp`, or the number as text.
    #[must_use]
    pub fn json_text(self) -> String {
        match self {
            Self::Tcp | Self::Udp | Self::Icmp | Self::Icmpv6 | Self::Vrrp => self.to_string(),
            Self::Other(number) => number.to_string(),
        }
    }

    const fn qualifier(self) -> Qualifier {
        match self {
            Self::Tcp | Self::Udp | Self::Other(33 | 132 | 136) => Qualifier::Ports,
            Self::Icmp | Self::Icmpv6 => Qualifier::IcmpType,
            Self::Vrrp | Self::Other(_) => Qualifier::Nothing,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => formatter.pad("tcp"),
            Self::Udp => formatter.pad("udp"),
            Self::Icmp => formatter.pad("icmp"),
            Self::Icmpv6 => formatter.pad("icmpv6"),
            Self::Vrrp => formatter.pad("vrrp"),
            Self::Other(number) => match NAMED.iter().find(|(_, named)| named == number) {
                Some((name, _)) => formatter.pad(name),
                None => fmt::Display::fmt(number, formatter),
            },
        }
    }
}

impl FromStr for Protocol {
    type Err = ServiceError;

    /// Reads a protocol name (any case) or a number from 0 to 255.
    fn from_str(text: &str) -> Result<Self, ServiceError> {
        let unknown = || ServiceError::UnknownProtocol {
            text: text.to_owned(),
        };
        let protocol = match text.to_ascii_lowercase().as_str() {
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "icmp" => Self::Icmp,
            "icmpv6" | "icmp6" => Self::Icmpv6,
            "vrrp" => Self::Vrrp,
            name => match NAMED.iter().find(|(named, _)| *named == name) {
                Some((_, number)) => Self::Other(*number),
                None if is_decimal(name) => Self::from_number(name.parse().map_err(|_| unknown())?),
                None => return Err(unknown()),
            },
        };
        Ok(protocol)
    }
}

/// Why a text is no service. Every message says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The text before the `/` is no protocol.
    #[error(
        "`{text}` is not a protocol: use tcp, udp, icmp, icmpv6, vrrp, sctp, gre, esp, ah, igmp, or an IP protocol number from 0 to 255"
    )]
    UnknownProtocol {
        /// The text as it was written.
        text: String,
    },
    /// TCP, UDP and their kin need ports.
    #[error(
        "`{protocol}` needs a port: write `{protocol}/443`, `{protocol}/5000-5010`, or `{protocol}/1-65535` for every port"
    )]
    PortMissing {
        /// The protocol that was given without a port.
        protocol: Protocol,
    },
    /// The protocol has neither ports nor types.
    #[error("`{text}`: {protocol} has no ports, write only `{protocol}`")]
    NoPorts {
        /// The text as it was written.
        text: String,
        /// The protocol in it.
        protocol: Protocol,
    },
    /// The text after the `/` is no number or range.
    #[error("`{text}`: `{part}` is not a {what}, write one number or a range such as `5000-5010`")]
    NotANumber {
        /// The text as it was written.
        text: String,
        /// The part that was expected to be a number.
        part: String,
        /// `port` or `ICMP type`.
        what: &'static str,
    },
    /// A number lies outside the range of the protocol.
    #[error("`{text}`: {what} {part} is out of range, use {min} to {max}")]
    OutOfRange {
        /// The text as it was written.
        text: String,
        /// The number as it was written.
        part: String,
        /// `port` or `ICMP type`.
        what: &'static str,
        /// The smallest number allowed.
        min: u16,
        /// The greatest number allowed.
        max: u16,
    },
    /// The range ends before it starts.
    #[error("`{text}`: the range is reversed, write `{protocol}/{last}-{first}`")]
    Reversed {
        /// The text as it was written.
        text: String,
        /// The protocol in it.
        protocol: Protocol,
        /// The number before the `-`.
        first: u16,
        /// The number after the `-`.
        last: u16,
    },
}

/// A protocol and, where it has them, the responder's ports (or the ICMP type), as an inclusive range.
///
/// Protocols with ports always have a range within 1 to 65,535; ICMP and ICMPv6 have a range of types within 0 to
/// 255 or none; the others have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    protocol: Protocol,
    range: Option<(u16, u16)>,
}

impl Service {
    /// The protocol.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        self.protocol
    }

    /// The lowest port or ICMP type.
    #[must_use]
    pub const fn first(self) -> Option<u16> {
        match self.range {
            Some((first, _)) => Some(first),
            None => None,
        }
    }

    /// The highest port or ICMP type; equal to [`Service::first`] for a single one.
    #[must_use]
    pub const fn last(self) -> Option<u16> {
        match self.range {
            Some((_, last)) => Some(last),
            None => None,
        }
    }

    /// Whether a flow with this protocol and responder port (or ICMP type) belongs to the service.
    #[must_use]
    pub const fn covers(self, protocol: Protocol, port: u16) -> bool {
        if self.protocol.number() != protocol.number() {
            return false;
        }
        match self.range {
            Some((first, last)) => first <= port && port <= last,
            None => true,
        }
    }

    /// Whether some flow belongs to both services.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        if self.protocol.number() != other.protocol.number() {
            return false;
        }
        match (self.range, other.range) {
            (Some((a, b)), Some((c, d))) => a <= d && c <= b,
            (None, _) | (_, None) => true,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.range {
            None => write!(formatter, "{}", self.protocol),
            Some((first, last)) if first == last => write!(formatter, "{}/{first}", self.protocol),
            Some((first, last)) => write!(formatter, "{}/{first}-{last}", self.protocol),
        }
    }
}

impl FromStr for Service {
    type Err = ServiceError;

    fn from_str(text: &str) -> Result<Self, ServiceError> {
        let (name, rest) = match text.split_once('/') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let protocol: Protocol = name.parse()?;
        let (what, min, max) = match protocol.qualifier() {
            Qualifier::Ports => ("port", 1, u16::MAX),
            Qualifier::IcmpType => ("ICMP type", 0, u16::from(u8::MAX)),
            Qualifier::Nothing => {
                return match rest {
                    None => Ok(Self {
                        protocol,
                        range: None,
                    }),
                    Some(_) => Err(ServiceError::NoPorts {
                        text: text.to_owned(),
                        protocol,
                    }),
                };
            }
        };
        let Some(rest) = rest else {
            return match protocol.qualifier() {
                Qualifier::Ports => Err(ServiceError::PortMissing { protocol }),
                Qualifier::IcmpType | Qualifier::Nothing => Ok(Self {
                    protocol,
                    range: None,
                }),
            };
        };
        let number = |part: &str| -> Result<u16, ServiceError> {
            let out_of_range = || ServiceError::OutOfRange {
                text: text.to_owned(),
                part: part.to_owned(),
                what,
                min,
                max,
            };
            let not_a_number = || ServiceError::NotANumber {
                text: text.to_owned(),
                part: part.to_owned(),
                what,
            };
            if !is_decimal(part) {
                return Err(not_a_number());
            }
            match part.parse::<u16>() {
                Ok(number) if (min..=max).contains(&number) => Ok(number),
                Ok(_) => Err(out_of_range()),
                Err(error) if *error.kind() == IntErrorKind::PosOverflow => Err(out_of_range()),
                Err(_) => Err(not_a_number()),
            }
        };
        let (first, last) = match rest.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => {
                let single = number(rest)?;
                (single, single)
            }
        };
        if first > last {
            return Err(ServiceError::Reversed {
                text: text.to_owned(),
                protocol,
                first,
                last,
            });
        }
        Ok(Self {
            protocol,
            range: Some((first, last)),
        })
    }
}

/// Rust's integer parser accepts a leading `+`; a matrix does not.
fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expect: Result<(Protocol, Option<u16>, Option<u16>), &str>) {
        match (text.parse::<Service>(), expect) {
            (Ok(service), Ok(parts)) => {
                assert_eq!(
                    (service.protocol(), service.first(), service.last()),
                    parts,
                    "{text}"
                );
            }
            (Err(error), Err(part)) => {
                let message = error.to_string();
                assert!(message.contains(part), "{text}: {message}");
            }
            (got, expect) => panic!("{text}: got {got:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn reads_services() {
        check("tcp/443", Ok((Protocol::Tcp, Some(443), Some(443))));
        check("TCP/443", Ok((Protocol::Tcp, Some(443), Some(443))));
        check(
            "udp/49152-65535",
            Ok((Protocol::Udp, Some(49152), Some(65535))),
        );
        check("tcp/1-65535", Ok((Protocol::Tcp, Some(1), Some(65535))));
        check(
            "sctp/5060",
            Ok((Protocol::Other(132), Some(5060), Some(5060))),
        );
        check("vrrp", Ok((Protocol::Vrrp, None, None)));
        check("112", Ok((Protocol::Vrrp, None, None)));
        check("icmp", Ok((Protocol::Icmp, None, None)));
        check("icmp/8", Ok((Protocol::Icmp, Some(8), Some(8))));
        check("icmp/0", Ok((Protocol::Icmp, Some(0), Some(0))));
        check("icmpv6", Ok((Protocol::Icmpv6, None, None)));
        check(
            "icmpv6/133-137",
            Ok((Protocol::Icmpv6, Some(133), Some(137))),
        );
        check("47", Ok((Protocol::Other(47), None, None)));
        check("gre", Ok((Protocol::Other(47), None, None)));
        check("6/22", Ok((Protocol::Tcp, Some(22), Some(22))));
        check("255", Ok((Protocol::Other(255), None, None)));
        check("0", Ok((Protocol::Other(0), None, None)));
    }

    #[test]
    fn refuses_what_is_no_service() {
        check("", Err("is not a protocol"));
        check("tpc/443", Err("`tpc` is not a protocol"));
        check("256", Err("`256` is not a protocol"));
        check("tcp", Err("needs a port"));
        check("sctp", Err("needs a port"));
        check("tcp/", Err("is not a port"));
        check("tcp/0", Err("port 0 is out of range"));
        check("tcp/65536", Err("port 65536 is out of range"));
        check("udp/99999999999999999999", Err("out of range"));
        check("tcp/20-10", Err("write `tcp/10-20`"));
        check("tcp/http", Err("`http` is not a port"));
        check("tcp/+80", Err("`+80` is not a port"));
        check("tcp/ 80", Err("is not a port"));
        check("tcp/80-", Err("is not a port"));
        check("tcp/80,443", Err("is not a port"));
        check("tcp/1-2-3", Err("is not a port"));
        check("icmp/256", Err("ICMP type 256 is out of range"));
        check("vrrp/1", Err("has no ports"));
        check("gre/47", Err("has no ports"));
    }

    #[test]
    fn prints_canonical_text() {
        for (text, printed) in [
            ("47", "gre"),
            ("TCP/80-80", "tcp/80"),
            ("253", "253"),
            ("icmp6", "icmpv6"),
        ] {
            assert_eq!(
                text.parse::<Service>().map(|s| s.to_string()).as_deref(),
                Ok(printed)
            );
        }
        assert_eq!(
            "gre"
                .parse::<Protocol>()
                .map(Protocol::json_text)
                .as_deref(),
            Ok("47")
        );
        assert_eq!(
            "vrrp"
                .parse::<Protocol>()
                .map(Protocol::json_text)
                .as_deref(),
            Ok("vrrp")
        );
    }

    mod properties {
        use super::*;

        proptest! {
            #[test]
            fn number_round_trips(number: u8) {
                let protocol = Protocol::from_number(number);
                prop_assert_eq!(protocol.number(), number);
                prop_assert_eq!(protocol.to_string().parse::<Protocol>(), Ok(protocol));
            }

            #[test]
            fn printing_and_reading_are_inverse(number: u8, a: u16, b: u16) {
                let protocol = Protocol::from_number(number);
                for text in [format!("{protocol}"), format!("{protocol}/{a}"), format!("{protocol}/{a}-{b}")] {
                    if let Ok(service) = text.parse::<Service>() {
                        prop_assert_eq!(service.to_string().parse::<Service>(), Ok(service));
                    }
                }
            }

            #[test]
            fn reading_never_panics(text in ".{0,24}") {
                let _ = text.parse::<Service>();
            }
        }
    }
}
