//! From a matrix and what its roles are bound to, to the look-up tables of [`Compiled`]: so that judging a flow
//! costs the same whether the matrix has ten requirements or a hundred thousand.
//!
//! Everything that the documents leave to interpretation is decided here, once:
//!
//! - A system whose roles do not occur among the bindings is not deployed and has no rules.
//! - Within a system the most specific prefix wins; across systems roles accumulate.
//! - IPv6 prefixes never cover IPv4 addresses. A prefix wider than 127.0.0.0/8 or ::1 never covers loopback
//!   addresses, which never leave their host.
//! - `broadcast`, the VRRP groups and `localhost` come on top of the roles that an address has anyway.
//! - X to `localhost` covers flows between addresses of one host that has role X: its loopback addresses and its
//!   own. Where this host's addresses are not known (a capture file), these are loopback to loopback, and an address
//!   that is bound to X singly to itself.
//! - `icmp` without a type covers echo requests, of ICMP and ICMPv6 alike because vendors' tables write ICMP and mean
//!   ping, and the errors about them, which travel against the direction of the request as well as along it.
//! - VRRP also covers the groups that it is sent to.
//! - `unknown` roles and requirements without services have no rules.

mod classes;
mod ports;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use flowproof_common::address::{Address, MAPPED_PREFIX_BITS};
use ipnet::IpNet;

use super::compiled::{BoundName, BoundRole, Compiled};
use super::{Binding, BuiltInRole, Matrix, NamePattern, Protocol, RoleRef, SystemIndex};
use classes::{Classes, Part, Placed, Tag};

/// Rules that a matrix may have at most, before rules for the same kind of flow are joined: about 400 MB in the kernel.
pub const MAX_RULES: usize = 8_000_000;

/// Where VRRP packets go: RFC 9568, section 8.1 (IPv4) and 8.2 (IPv6).
pub(crate) const VRRP_GROUPS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18)),
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12)),
];
/// The bits of a whole address.
const FULL: u8 = 128;
/// The length of 127.0.0.0/8 as a mapped prefix.
const LOOPBACK_V4_BITS: u8 = 104;

/// The addresses of the host that captures, which tell what `localhost` is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum HostAddresses {
    /// The packets come from a file, so the host is not known.
    #[default]
    Unknown,
    /// All addresses of this host's interfaces; loopback addresses may be missing.
    Known(Vec<IpAddr>),
}

/// Why a matrix can't become tables.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The rules need more memory than a kernel table should take.
    #[error(
        "the matrix and the site make more than {limit} rules; `{service}` is part of {rules}: narrow its port range, \
         bind its roles to fewer combinations of addresses, or use the role `any`"
    )]
    TooManyRules {
        /// The requirement's service with the most rules, `system/requirement#service`.
        service: String,
        /// How many rules it is part of.
        rules: usize,
        /// [`MAX_RULES`].
        limit: usize,
    },
    /// Every one of the 65,536 numbers is told apart by some service, which leaves none for "in no service".
    #[error(
        "the services of the matrix tell apart all 65,536 ports: write ranges instead of single ports"
    )]
    TooManyPortClasses,
    /// More combinations of roles than there are class numbers.
    #[error("the site makes more than {limit} combinations of roles: bind roles to fewer prefixes")]
    TooManyClasses {
        /// How many there may be.
        limit: u32,
    },
}

impl Compiled {
    /// Makes the tables. `bindings` has every role of every deployed system, those bound to nothing included. Names get
    /// classes of their own, for the addresses that will be learned to stand for them; service tags are prefixes by now.
    ///
    /// # Errors
    /// [`CompileError`] if the tables would grow beyond their limits. It names the requirement and the remedy.
    pub fn compile(
        matrix: Arc<Matrix>,
        bindings: Vec<(BoundRole, Vec<Binding>)>,
        host: &HostAddresses,
    ) -> Result<Self, CompileError> {
        let specials = Specials::of(&matrix, &bindings);
        let mut classes = Classes::build(placements(&bindings, host, &specials))?;
        let first_named_class = classes.number_of_next()?;
        let mut names: BTreeMap<&NamePattern, BTreeSet<BoundRole>> = BTreeMap::new();
        for (role, bound) in &bindings {
            for binding in bound {
                if let Binding::Name(pattern) = binding {
                    names.entry(pattern).or_default().insert(*role);
                }
            }
        }
        let mut names: Vec<BoundName> = names
            .into_iter()
            .map(|(pattern, roles)| {
                let roles: Vec<BoundRole> = roles.into_iter().collect();
                Ok(BoundName {
                    pattern: pattern.clone(),
                    class: classes.named(&roles, first_named_class)?,
                    roles,
                })
            })
            .collect::<Result<_, CompileError>>()?;
        names.sort_by(|a, b| a.pattern.cmp(&b.pattern));
        let rules = rules::build(
            &matrix,
            &specials.deployed,
            &classes,
            first_named_class,
            host,
        )?;
        Ok(Self {
            prefixes: classes.prefixes,
            classes: classes
                .tags
                .iter()
                .map(|tags| tags.iter().filter_map(|tag| tag.role()))
                .collect(),
            port_classes: rules.port_classes,
            rules: rules.rules,
            sets: rules.sets,
            names,
            first_named_class,
            bindings,
            matrix,
        })
    }
}

/// What the deployed requirements need beyond the bound prefixes.
#[derive(Default)]
struct Specials {
    deployed: BTreeSet<SystemIndex>,
    /// Systems with a requirement from or to `broadcast`.
    broadcast: BTreeSet<SystemIndex>,
    /// Systems with a requirement from or to `localhost`.
    localhost: BTreeSet<SystemIndex>,
    /// Roles at the other end of `localhost`.
    local: BTreeSet<BoundRole>,
    vrrp: bool,
}

impl Specials {
    fn of(matrix: &Matrix, bindings: &[(BoundRole, Vec<Binding>)]) -> Self {
        let mut specials = Self {
            deployed: bindings.iter().map(|(role, _)| role.system).collect(),
            ..Self::default()
        };
        for &system in &specials.deployed {
            for requirement in &matrix.system(system).requirements {
                for (role, other) in [
                    (requirement.from, requirement.to),
                    (requirement.to, requirement.from),
                ] {
                    match role {
                        RoleRef::BuiltIn(BuiltInRole::Broadcast) => {
                            specials.broadcast.insert(system);
                        }
                        RoleRef::BuiltIn(BuiltInRole::Localhost) => {
                            specials.localhost.insert(system);
                            specials.local.insert(BoundRole {
                                system,
                                role: other,
                            });
                        }
                        RoleRef::BuiltIn(BuiltInRole::Any | BuiltInRole::Unknown)
                        | RoleRef::Declared(_) => {}
                    }
                }
                specials.vrrp |= requirement
                    .services
                    .iter()
                    .any(|service| service.protocol() == Protocol::Vrrp);
            }
        }
        specials
    }
}

/// Which prefix has which role or mark.
fn placements(
    bindings: &[(BoundRole, Vec<Binding>)],
    host: &HostAddresses,
    specials: &Specials,
) -> Vec<Placed> {
    let mut placed = Vec::with_capacity(bindings.len() + 8);
    let whole = |address: IpAddr, part| Placed {
        address: number(address),
        bits: FULL,
        part,
    };
    let built_in = |system: SystemIndex, role| {
        Part::Tag(Tag::Role(BoundRole {
            system,
            role: RoleRef::BuiltIn(role),
        }))
    };

    // What stops wider prefixes: the whole of IPv4 within IPv6, and loopback.
    placed.push(Placed {
        address: number(Ipv4Addr::UNSPECIFIED.into()),
        bits: mapped_bits(0),
        part: Part::Cut,
    });
    let loopback = [
        (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), LOOPBACK_V4_BITS),
        (IpAddr::V6(Ipv6Addr::LOCALHOST), FULL),
    ];
    for (address, bits) in loopback {
        let mut place = |part| {
            placed.push(Placed {
                address: number(address),
                bits,
                part,
            });
        };
        place(Part::Cut);
        for system in &specials.localhost {
            place(built_in(*system, BuiltInRole::Localhost));
        }
        if !specials.localhost.is_empty() {
            place(Part::Tag(Tag::Own));
        }
    }

    if !specials.localhost.is_empty()
        && let HostAddresses::Known(addresses) = host
    {
        placed.extend(
            addresses
                .iter()
                .map(|address| whole(*address, Part::Tag(Tag::Own))),
        );
    }
    if specials.vrrp {
        placed.extend(
            VRRP_GROUPS
                .into_iter()
                .map(|group| whole(group, Part::Tag(Tag::VrrpGroup))),
        );
    }
    for system in &specials.broadcast {
        placed.push(whole(
            Ipv4Addr::BROADCAST.into(),
            built_in(*system, BuiltInRole::Broadcast),
        ));
    }

    // Addresses that stand for a host of their own where nobody knows which host captured.
    let mut single: BTreeMap<IpAddr, BTreeSet<BoundRole>> = BTreeMap::new();
    for (role, bound) in bindings {
        let mut by_tag = false;
        for binding in bound {
            let prefix = match binding {
                Binding::Prefix(prefix) => prefix,
                Binding::Name(_) => continue,
                Binding::Tag(_) => {
                    by_tag = true;
                    continue;
                }
            };
            let bits = match prefix {
                IpNet::V4(prefix) => mapped_bits(prefix.prefix_len()),
                IpNet::V6(prefix) => prefix.prefix_len(),
            };
            placed.push(Placed {
                address: number(prefix.network()),
                bits,
                part: Part::Tag(Tag::Role(*role)),
            });
            // A cloud's prefixes are no networks: their last addresses are hosts like any other.
            if let IpNet::V4(prefix) = prefix
                && (1..=30).contains(&prefix.prefix_len())
                && !by_tag
            {
                placed.push(whole(
                    prefix.broadcast().into(),
                    Part::Tag(Tag::DirectedBroadcast),
                ));
                placed.extend(specials.broadcast.iter().map(|system| {
                    whole(
                        prefix.broadcast().into(),
                        built_in(*system, BuiltInRole::Broadcast),
                    )
                }));
            }
            if *host == HostAddresses::Unknown
                && bits == FULL
                && specials.local.contains(role)
                && !prefix.addr().is_loopback()
            {
                single.entry(prefix.addr()).or_default().insert(*role);
            }
        }
    }
    placed.extend((0..).zip(single).flat_map(|(number, (address, roles))| {
        roles
            .into_iter()
            .map(move |role| whole(address, Part::Tag(Tag::Single(role, number))))
    }));
    placed
}

/// The bits of an IPv4 prefix of this length in its mapped form.
fn mapped_bits(length: u8) -> u8 {
    u8::try_from(MAPPED_PREFIX_BITS).map_or(length, |mapped| mapped + length)
}

/// An address as a number whose order is that of the bits.
fn number(address: IpAddr) -> u128 {
    u128::from_be_bytes(Address::from(address.to_canonical()).bytes())
}

#[cfg(test)]
pub(crate) mod tests;
