//! The one classifier: from a new flow's first packet to a verdict and a counter slot.
//!
//! Precedence, written down once:
//! 1. Each address falls into the class of its most specific bound prefix; the daemon has already merged
//!    into that class the roles of every system, so one look-up an address is enough.
//! 2. (initiator's class, responder's class) is asked first, then either side as [`ANY_CLASS`], then both.
//!    The daemon merges rules for "any" into every exact pair that exists, so the first hit is complete.
//! 3. No hit: `unexpected` if either class is [bound](BOUND), else `unscoped`.
//! 4. The verdict [depends on a name](DEPENDS_ON_NAME) if the rule that hit only holds because of a name that the
//!    address was learned to stand for, or if nothing hit and an address that is not known by name yet might still
//!    turn out to stand for one that is allowed ([`NAMELESS_CLASS`]). Such a flow is held: it is counted once its
//!    name is known.
//!
//! Cost: two prefix look-ups, one array read and one to four hash look-ups (eight where names are in play and
//! nothing hits), however many requirements there are; a known flow pays none of it.

use crate::address::Address;
use crate::key::{FlowKey, Side};
use crate::packet::{Packet, tcp};
use crate::protocol;

/// Set in an address class that holds at least one role that the site binds; without it the class only
/// has built-in roles (broadcast, VRRP group, localhost), which do not make a flow the matrix's business.
pub const BOUND: u32 = 0x8000_0000;
/// Set in an address class that is a directed broadcast of a bound prefix: like a group, it owes no answer,
/// and nothing in the address itself says so.
pub const BROADCAST: u32 = 0x4000_0000;
/// What remains of an address class without its flags: an index.
pub const CLASS_INDEX: u32 = !(BOUND | BROADCAST);
/// A class as an end of a rule in the kernel's table: no rule knows of directed broadcasts, so a prefix and its broadcast
/// share theirs.
#[inline(always)]
#[must_use]
pub const fn rule_end(class: u32) -> u32 {
    class & !BROADCAST
}
/// The class of an address that no prefix covers.
pub const UNBOUND_CLASS: u32 = 0;
/// Stands for every address in a rule's `from` or `to`; never the class of an address.
pub const ANY_CLASS: u32 = 0x7fff_ffff;

/// Stands for every address whose name is not known yet, in a rule's `from` or `to`; never the class of an address.
pub const NAMELESS_CLASS: u32 = 0x7fff_fffe;
/// Set in what a rule leads to if it only holds as long as the flow's name agrees; the rest is the counter slot.
pub const DEPENDS_ON_NAME: u32 = 0x8000_0000;

/// The counter slot of flows with no role at either end.
pub const UNSCOPED_SLOT: u32 = 0;
/// The counter slot of flows that no requirement covers.
pub const UNEXPECTED_SLOT: u32 = 1;
/// The first slot that stands for a set of requirements.
pub const FIRST_RULE_SLOT: u32 = 2;

/// Key of the rule table; 16 bytes without implicit padding.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct RuleKey {
    /// The matrix generation that the rule belongs to; makes a reload one flip of a number.
    pub generation: u32,
    /// [`rule_end`] of the initiator's class, or of [`ANY_CLASS`].
    pub from: u32,
    /// [`rule_end`] of the responder's class, or of [`ANY_CLASS`].
    pub to: u32,
    /// Class of the responder's port or of the ICMP type; 0 for protocols that have neither.
    pub port_class: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub zero: u8,
}
const _: () = assert!(size_of::<RuleKey>() == 16);

/// Key of the prefix table, as the kernel's longest-prefix trie wants it after its prefix length
/// (`linux/bpf.h`, `struct bpf_lpm_trie_key_u8`): generation first, then the address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PrefixKey {
    /// The matrix generation, big-endian so that it is a prefix of the key's bits.
    pub generation: [u8; 4],
    /// Address bytes in network order, IPv4 mapped.
    pub address: [u8; 16],
}
const _: () = assert!(size_of::<PrefixKey>() == 20);

/// Bits of [`PrefixKey`] that every prefix fixes.
pub const PREFIX_GENERATION_BITS: u32 = 32;

impl PrefixKey {
    /// The key of a single address.
    #[inline(always)]
    #[must_use]
    pub const fn new(generation: u32, address: &Address) -> Self {
        Self {
            generation: generation.to_be_bytes(),
            address: address.bytes(),
        }
    }
}

/// What the classifier looks things up in: BPF maps in the kernel, ordinary tables in the daemon.
pub trait Tables {
    /// Class of the longest prefix that covers `address`, or [`UNBOUND_CLASS`].
    fn address_class(&self, address: &Address) -> u32;
    /// Class of a port or ICMP type; 0 if no service of the matrix uses it.
    fn port_class(&self, port: u16) -> u16;
    /// Slot of the requirements that cover (`from`, `to`, `protocol`, `port_class`), with [`DEPENDS_ON_NAME`] set
    /// where it does.
    fn rule(&self, from: u32, to: u32, protocol: u8, port_class: u16) -> Option<u32>;
    /// Whether any rule depends on a name; without, nobody looks for [`NAMELESS_CLASS`].
    fn has_names(&self) -> bool;
    /// [`cover`], in whichever way suits the tables.
    #[inline(always)]
    fn cover(&self, from: u32, to: u32, protocol: u8, service: u16) -> Cover
    where
        Self: Sized,
    {
        cover(self, from, to, protocol, service)
    }
}

/// Does the matrix expect the flow.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// Neither endpoint has a role.
    Unscoped = 0,
    /// An endpoint has a role and no requirement covers the flow.
    Unexpected = 1,
    /// Some requirement covers the flow.
    Expected = 2,
}

impl Verdict {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Unscoped, Self::Unexpected, Self::Expected];

    /// The name in JSON and in labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unscoped => "unscoped",
            Self::Unexpected => "unexpected",
            Self::Expected => "expected",
        }
    }

    /// The verdict that a slot stands for.
    #[inline(always)]
    #[must_use]
    pub const fn of_slot(slot: u32) -> Self {
        match slot {
            UNSCOPED_SLOT => Self::Unscoped,
            UNEXPECTED_SLOT => Self::Unexpected,
            _ => Self::Expected,
        }
    }
}

/// What the classifier says of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// Counter slot, which also tells the verdict ([`Verdict::of_slot`]).
    pub slot: u32,
    /// The side that opened the conversation.
    pub initiator: Side,
    /// Whether the conversation was open before its first packet was seen.
    pub joined_midway: bool,
    /// Whether the responder is a group or a directed broadcast, which owes no answer.
    pub to_group: bool,
    /// Whether the verdict depends on a name, so that the flow counts once that is known.
    pub held: bool,
}

/// A counter slot, and in [`DEPENDS_ON_NAME`] whether a name may change it; one register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cover(u32);

impl Cover {
    /// As one number, and back.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From [`Self::bits`].
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The slot without what may change it.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.0 & !DEPENDS_ON_NAME
    }

    /// Whether the verdict depends on a name.
    #[inline(always)]
    #[must_use]
    pub const fn depends_on_name(self) -> bool {
        self.0 & DEPENDS_ON_NAME != 0
    }

    /// Whether a requirement covers the flow, or may once its name is known.
    #[inline(always)]
    const fn may_be_expected(self) -> bool {
        self.depends_on_name() || self.0 >= FIRST_RULE_SLOT
    }
}

/// The slot of a flow whose initiator is known.
#[inline(always)]
pub fn slot_of(tables: &impl Tables, key: &FlowKey, initiator: Side) -> Cover {
    let from = tables.address_class(&key.end(initiator).0);
    let to = tables.address_class(&key.end(initiator.other()).0);
    slot_between(tables, from, to, key, initiator.other())
}

/// The slot of a flow of `key`'s service between addresses of two classes.
#[inline(always)]
pub fn slot_between(
    tables: &impl Tables,
    from: u32,
    to: u32,
    key: &FlowKey,
    responder: Side,
) -> Cover {
    tables.cover(from, to, key.protocol, key.service(responder))
}

/// The slot of a flow between addresses of two classes, of this protocol and service number ([`FlowKey::service`]).
#[inline(always)]
pub fn cover(tables: &impl Tables, from: u32, to: u32, protocol: u8, service: u16) -> Cover {
    let mut depends = 0;
    let classed =
        protocol::has_ports(protocol) || matches!(protocol, protocol::ICMP | protocol::ICMPV6);
    let port_class = if classed {
        tables.port_class(service)
    } else {
        0
    };
    if !classed || port_class != 0 {
        let pairs = [
            (from, to),
            (from, ANY_CLASS),
            (ANY_CLASS, to),
            (ANY_CLASS, ANY_CLASS),
        ];
        for (from, to) in pairs {
            if let Some(value) = tables.rule(from, to, protocol, port_class) {
                return Cover(value);
            }
        }
        if tables.has_names() {
            let nameless = [
                (from, NAMELESS_CLASS),
                (ANY_CLASS, NAMELESS_CLASS),
                (NAMELESS_CLASS, to),
                (NAMELESS_CLASS, ANY_CLASS),
            ];
            for (from, to) in nameless {
                if tables.rule(from, to, protocol, port_class).is_some() {
                    depends = DEPENDS_ON_NAME;
                    break;
                }
            }
        }
    }
    if (from | to) & BOUND != 0 {
        Cover(UNEXPECTED_SLOT | depends)
    } else {
        Cover(UNSCOPED_SLOT | depends)
    }
}

/// Judges a flow by its first seen packet.
///
/// Who initiated is certain for a TCP SYN, an echo request and anything sent to a group. Else it is
/// inferred, in this order: the only direction that the matrix covers; the side with the well-known port
/// (below 1024, the other above) responds; the sender initiates. For protocols without a handshake the
/// inference is made only while `attached_lately` (the capture began moments ago, so the request may have
/// passed before it): later, a packet from a service's port without a request is what it looks like.
#[inline(always)]
pub fn judge(
    tables: &impl Tables,
    packet: &Packet,
    key: &FlowKey,
    sender: Side,
    attached_lately: bool,
) -> Judgement {
    let sender_class = tables.address_class(&packet.source);
    let receiver_class = tables.address_class(&packet.destination);
    let to_group = packet.destination.is_group() || receiver_class & BROADCAST != 0;
    let (certain, midway) = match packet.protocol {
        protocol::TCP => match packet.tcp_flags & (tcp::SYN | tcp::ACK) {
            tcp::SYN => (Some(sender), false),
            flags if flags == tcp::SYN | tcp::ACK => (Some(sender.other()), true),
            _ => (None, true),
        },
        protocol::ICMP | protocol::ICMPV6 => {
            if protocol::icmp_request_type(packet.protocol, packet.icmp_type) == packet.icmp_type {
                (Some(sender), false)
            } else {
                (Some(sender.other()), true)
            }
        }
        _ if !attached_lately || to_group => (Some(sender), false),
        _ => (None, false),
    };
    let forward = || slot_between(tables, sender_class, receiver_class, key, sender.other());
    let backward = || slot_between(tables, receiver_class, sender_class, key, sender);
    let (initiator, cover) = match certain {
        Some(initiator) if initiator == sender => (initiator, forward()),
        Some(initiator) => (initiator, backward()),
        None => {
            let (forward, backward) = (forward(), backward());
            let answers = if forward.may_be_expected() != backward.may_be_expected() {
                backward.may_be_expected()
            } else {
                packet.source_port < 1024 && packet.destination_port >= 1024
            };
            if answers {
                (sender.other(), backward)
            } else {
                (sender, forward)
            }
        }
    };
    Judgement {
        slot: cover.slot(),
        held: cover.depends_on_name(),
        initiator,
        joined_midway: midway || initiator != sender,
        to_group: to_group && initiator == sender,
    }
}

#[cfg(test)]
mod tests;
