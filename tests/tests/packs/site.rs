//! The generated site: where each role of the packs lives in the lab.
//!
//! Several packs share addresses: the first role of each is one and the same host, as a member of a Windows domain is a
//! session host besides. Nothing makes a false verdict as easily as roles that meet in one address.
//!
//! There are three hosts in a row: left, the agent's in the middle, right. A role has addresses on the left *and* on the
//! right, in both IP versions, so that whoever opens a conversation with whom, it can be made to cross the agent. What a
//! pack fixes itself (an address, a group) stays as it is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};

use super::pack::{Pack, Role, role};

/// The agent's and the left host's address on the wire between them, then the agent's and the right host's. RFC 5737 and
/// RFC 3849.
pub(crate) const WIRES4: [[Ipv4Addr; 2]; 2] = [
    [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2)],
    [Ipv4Addr::new(203, 0, 113, 5), Ipv4Addr::new(203, 0, 113, 6)],
];
/// See [`WIRES4`].
pub(crate) const WIRES6: [[Ipv6Addr; 2]; 2] = [
    [
        Ipv6Addr::new(0x2001, 0xdb8, 0xff, 1, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0xdb8, 0xff, 1, 0, 0, 0, 2),
    ],
    [
        Ipv6Addr::new(0x2001, 0xdb8, 0xff, 2, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0xdb8, 0xff, 2, 0, 0, 0, 2),
    ],
];
/// Everything on the left, and everything on the right, that is no role's own prefix. Roles' prefixes lie in them
/// (RFC 2544).
pub(crate) const SIDES4: [&str; 2] = ["198.18.0.0/16", "198.19.0.0/16"];
/// See [`SIDES4`].
pub(crate) const SIDES6: [&str; 2] = ["2001:db8:1::/48", "2001:db8:2::/48"];
/// Nobody: addresses without a role, left and right.
pub(crate) const STRANGERS: [[IpAddr; 2]; 2] = [
    [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xee, 1, 0, 0, 0, 1)),
    ],
    [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 129)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xee, 2, 0, 0, 0, 1)),
    ],
];

/// Where a role lives.
#[derive(Debug, Default, Clone)]
pub(crate) struct Home {
    /// Addresses on the left and on the right.
    pub(crate) sides: [Vec<IpAddr>; 2],
    /// Groups: packets to it are not answered.
    pub(crate) groups: Vec<IpAddr>,
    /// Addresses of the agent's own host, for rows that stay on one host.
    pub(crate) own: Vec<IpAddr>,
    /// The directed broadcast of its prefix on the left.
    pub(crate) broadcast: Option<Ipv4Addr>,
    /// Prefixes and addresses for the site file; empty if the pack says all.
    pub(crate) bindings: Vec<String>,
}

impl Home {
    /// Its address on a side and in an IP version.
    pub(crate) fn address(&self, side: usize, version6: bool) -> Option<IpAddr> {
        self.sides[side]
            .iter()
            .copied()
            .find(|address| address.is_ipv6() == version6)
    }
}

/// The lab's homes of the packs' roles, and of `any`: strangers.
#[derive(Debug)]
pub(crate) struct Site {
    homes: BTreeMap<String, Home>,
    callers: Vec<Ipv4Addr>,
    /// (system, role, prefix) of everything that is bound.
    bound: Vec<(String, String, Prefix)>,
    /// The site file.
    pub(crate) text: String,
}

impl Site {
    pub(crate) fn of(packs: &[&Pack]) -> Result<Self> {
        let mut homes = BTreeMap::new();
        let mut callers = Vec::new();
        let mut bound = Vec::new();
        let systems: Vec<&str> = packs.iter().map(|pack| pack.system.as_str()).collect();
        let mut text = format!("site: lab\nsystems: [{}]\nroles:\n", systems.join(", "));
        for pack in packs {
            for (index, declared) in (0_u16..).zip(&pack.roles) {
                let home = home(pack, declared, index)?;
                let quoted: Vec<String> = home
                    .bindings
                    .iter()
                    .map(|binding| format!("\"{binding}\""))
                    .collect();
                if !quoted.is_empty() {
                    text.push_str(&format!("  {}: [{}]\n", declared.id, quoted.join(", ")));
                }
                let prefixes = declared.names.iter().chain(&home.bindings);
                bound.extend(prefixes.filter_map(|text| {
                    let prefix = Prefix::read(text)?;
                    Some((pack.system.clone(), declared.id.clone(), prefix))
                }));
                let calls = pack
                    .requirements
                    .iter()
                    .any(|row| row.initiations().contains(&(&declared.id, role::BROADCAST)));
                callers.extend(home.broadcast.filter(|_| calls));
                homes.insert(declared.id.clone(), home);
            }
        }
        let strangers = Home {
            sides: STRANGERS.map(Vec::from),
            ..Home::default()
        };
        homes.insert(role::ANY.to_owned(), strangers);
        Ok(Self {
            homes,
            callers,
            bound,
            text,
        })
    }

    /// Where a declared role, or `any`, lives.
    pub(crate) fn home(&self, role: &str) -> Option<&Home> {
        self.homes.get(role)
    }

    /// The declared roles of an address: in each system those of the most specific prefix.
    pub(crate) fn roles(&self, address: IpAddr) -> Vec<String> {
        let mut best: BTreeMap<&str, (u8, Vec<String>)> = BTreeMap::new();
        let covering = self
            .bound
            .iter()
            .filter(|(_, _, prefix)| prefix.covers(address));
        for (system, role, prefix) in covering {
            let (bits, roles) = best.entry(system).or_default();
            if prefix.bits > *bits {
                *bits = prefix.bits;
                roles.clear();
            }
            if prefix.bits == *bits {
                roles.push(role.clone());
            }
        }
        let mut roles: Vec<String> = best.into_values().flat_map(|(_, roles)| roles).collect();
        roles.dedup();
        roles
    }

    /// Whether an address is the directed broadcast of a role's prefix.
    pub(crate) fn is_broadcast(&self, address: IpAddr) -> bool {
        self.homes
            .values()
            .any(|home| home.broadcast.map(IpAddr::V4) == Some(address))
    }

    /// Whether a role with this directed broadcast address calls everybody on its wire.
    pub(crate) fn calls(&self, broadcast: Ipv4Addr) -> bool {
        self.callers.contains(&broadcast)
    }

    /// Every home with its role.
    pub(crate) fn homes(&self) -> impl Iterator<Item = (&str, &Home)> {
        self.homes.iter().map(|(role, home)| (role.as_str(), home))
    }
}

/// Where a role lives.
fn home(pack: &Pack, declared: &Role, index: u16) -> Result<Home> {
    let fixed: Vec<Vec<IpAddr>> = declared
        .names
        .iter()
        .filter_map(|name| addresses(name))
        .collect();
    if !fixed.is_empty() {
        return Ok(fixed_home(fixed.concat()));
    }
    let mut home = generated(index)?;
    let local = pack.requirements.iter().any(|row| {
        let pairs = row.initiations();
        pairs.contains(&(&declared.id, role::LOCALHOST))
            || pairs.contains(&(role::LOCALHOST, &declared.id))
    });
    if local {
        home.own = vec![
            IpAddr::V4(Ipv4Addr::new(198, 51, 100, u8::try_from(index % 250)? + 1)),
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 3, index, 0, 0, 0, 1)),
        ];
        home.bindings
            .extend(home.own.iter().map(ToString::to_string));
    }
    Ok(home)
}

/// A prefix of eight IPv4 addresses and one of IPv6 on each side; the first address of each is a host.
fn generated(index: u16) -> Result<Home> {
    let mut home = Home::default();
    let offset = index.checked_mul(8).context("too many roles for the lab")?;
    let [third, fourth] = offset.to_be_bytes();
    for side in 0..2_u8 {
        let net4 = |last| Ipv4Addr::new(198, 18 + side, third, fourth + last);
        let net6 = |last| Ipv6Addr::new(0x2001, 0xdb8, u16::from(side) + 1, index, 0, 0, 0, last);
        home.sides[usize::from(side)] = vec![net4(1).into(), net6(1).into()];
        home.bindings.push(format!("{}/29", net4(0)));
        home.bindings.push(format!("{}/64", net6(0)));
        if side == 0 {
            home.broadcast = Some(net4(7));
        }
    }
    Ok(home)
}

/// What a pack fixes: single addresses are somebody far away, on the right; 0.0.0.0 speaks from the left.
fn fixed_home(addresses: Vec<IpAddr>) -> Home {
    let mut home = Home::default();
    for address in addresses {
        if address.is_multicast() {
            home.groups.push(address);
        } else if address.is_unspecified() {
            home.sides[0].push(address);
        } else {
            home.sides[1].push(address);
        }
    }
    home
}

/// An address that a name of the pack stands for; of a prefix one somewhere in it.
fn addresses(name: &str) -> Option<Vec<IpAddr>> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Some(vec![address]);
    }
    let (address, _) = name.split_once('/')?;
    Some(vec![match address.parse().ok()? {
        IpAddr::V4(net) => IpAddr::V4(Ipv4Addr::from_bits(net.to_bits() + 77)),
        IpAddr::V6(net) => IpAddr::V6(Ipv6Addr::from_bits(net.to_bits() + 77)),
    }])
}

/// A prefix of either IP version.
#[derive(Debug)]
struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// An address or a prefix; nothing for names and tags.
    fn read(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        Some(Self {
            address,
            bits: bits.parse().unwrap_or(whole),
        })
    }

    fn covers(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let rest = 32_u32.saturating_sub(self.bits.into());
                (own.to_bits() ^ other.to_bits()).checked_shr(rest) == Some(0) || rest == 32
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let rest = 128_u32.saturating_sub(self.bits.into());
                (own.to_bits() ^ other.to_bits()).checked_shr(rest) == Some(0) || rest == 128
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}
