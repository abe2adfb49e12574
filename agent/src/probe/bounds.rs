//! Where a probe may be sent. One function decides it, [`Bounds::check`], and the sockets take nothing but what it
//! gave: an [`Allowed`] can't be made in any other way.
//!
//! A probe goes to a single address that the site or the pack writes down for the responder's role, or to an address
//! that a resolver gives for a name that they write down for it. Nothing else: no part of a prefix, no wildcard, no
//! service tag. What a resolver says is not the site's word: it may not lead to this host, to its link or to a group
//! (DNS rebinding), unless the role is bound to a prefix that has the address.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::matrix::Binding;
use crate::matrix::compiled::{BoundRole, Compiled};

/// An address that a probe may be sent to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Allowed(IpAddr);

impl Allowed {
    /// The address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.0
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Why nothing is sent to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The role is not bound to just this address, nor to the name that led to it.
    #[error("it is not among the addresses and names that the role is bound to")]
    NotBound,
    /// Packets to it go to many, or to nobody.
    #[error("it is no single host's address")]
    NoHost,
    /// An IPv6 address that means something else on every link.
    #[error("it is a link-local address, which needs an interface")]
    LinkLocal,
    /// A resolver leads to this host, its link, or a network's broadcast address.
    #[error("a resolver may not lead there unless the role is bound to a prefix that has it")]
    Rebinding,
}

/// What every role may be probed at.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// What the site and the packs write down, tags and what they stand for left out.
    written: HashMap<BoundRole, Vec<Binding>>,
    /// Directed broadcast addresses of all bound prefixes.
    broadcasts: Vec<Ipv4Addr>,
}

impl Bounds {
    /// The bounds of a site.
    #[must_use]
    pub fn of(compiled: &Compiled) -> Self {
        let mut written: HashMap<BoundRole, Vec<Binding>> = HashMap::new();
        let mut broadcasts = Vec::new();
        for (role, bindings) in &compiled.bindings {
            broadcasts.extend(bindings.iter().filter_map(directed_broadcast));
            let of_role = written.entry(*role).or_default();
            of_role.extend(as_written(bindings).iter().cloned());
        }
        Self {
            written,
            broadcasts,
        }
    }

    /// What a role is bound to, tags and what they stand for left out.
    #[must_use]
    pub fn written(&self, role: BoundRole) -> &[Binding] {
        self.written.get(&role).map_or(&[], Vec::as_slice)
    }

    /// Whether a probe of `role` may be sent to `target`; `name` led there, or the address itself is bound.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub fn check(
        &self,
        role: BoundRole,
        target: IpAddr,
        name: Option<&str>,
    ) -> Result<Allowed, Refusal> {
        let bindings = self.written(role);
        let target = target.to_canonical();
        let bound = match name {
            None => bindings
                .iter()
                .any(|binding| *binding == Binding::Prefix(IpNet::from(target))),
            Some(name) => bindings.iter().any(|binding| match binding {
                Binding::Name(pattern) => !pattern.is_wildcard() && pattern.as_str() == name,
                Binding::Prefix(_) | Binding::Tag(_) => false,
            }),
        };
        if !bound {
            return Err(Refusal::NotBound);
        }
        if is_no_host(target) {
            return Err(Refusal::NoHost);
        }
        // Without the interface nobody can tell which link is meant.
        if matches!(target, IpAddr::V6(address) if address.is_unicast_link_local()) {
            return Err(Refusal::LinkLocal);
        }
        let near = target.is_loopback()
            || matches!(target, IpAddr::V4(address)
                if address.is_link_local() || self.broadcasts.contains(&address));
        if near && name.is_some() && !in_a_prefix(bindings, target) {
            return Err(Refusal::Rebinding);
        }
        Ok(Allowed(target))
    }
}

/// The bindings before the first service tag: what stands behind it, the tag stands for.
fn as_written(bindings: &[Binding]) -> &[Binding] {
    let end = bindings
        .iter()
        .position(|binding| matches!(binding, Binding::Tag(_)));
    &bindings[..end.unwrap_or(bindings.len())]
}

/// Groups, 255.255.255.255, and "this host on this network" (RFC 1122, section 3.2.1.3; RFC 4291, section 2.5.2).
fn is_no_host(address: IpAddr) -> bool {
    address.is_multicast()
        || address.is_unspecified()
        || match address {
            // 0.0.0.0/8 is no destination, 240.0.0.0/4 is reserved (RFC 6890).
            IpAddr::V4(address) => address.octets()[0] == 0 || address.octets()[0] >= 240,
            IpAddr::V6(_) => false,
        }
}

/// The broadcast address of a prefix with room for one.
fn directed_broadcast(binding: &Binding) -> Option<Ipv4Addr> {
    match binding {
        Binding::Prefix(IpNet::V4(net)) => (net.prefix_len() < 31).then(|| net.broadcast()),
        Binding::Prefix(IpNet::V6(_)) | Binding::Name(_) | Binding::Tag(_) => None,
    }
}

fn in_a_prefix(bindings: &[Binding], address: IpAddr) -> bool {
    bindings.iter().any(|binding| match binding {
        // The whole address space names no address.
        Binding::Prefix(net) => net.prefix_len() > 0 && net.contains(&address),
        Binding::Name(_) | Binding::Tag(_) => false,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::matrix::{Matrix, RoleIndex, RoleRef, SystemIndex};
    use proptest::prelude::*;

    pub(crate) const ROLE: BoundRole = BoundRole {
        system: SystemIndex(0),
        role: RoleRef::Declared(RoleIndex(0)),
    };
    const OTHER: BoundRole = BoundRole {
        system: SystemIndex(0),
        role: RoleRef::Declared(RoleIndex(1)),
    };

    fn bounds(bindings: &[&str]) -> Bounds {
        let bindings = bindings
            .iter()
            .map(|text| Binding::parse(text).unwrap().binding)
            .collect();
        Bounds::of(&Compiled {
            matrix: Arc::new(Matrix::default()),
            bindings: vec![(ROLE, bindings)],
            ..Compiled::empty()
        })
    }

    #[track_caller]
    fn check(bindings: &[&str], target: &str, name: Option<&str>, expect: Result<(), Refusal>) {
        let target: IpAddr = target.parse().unwrap();
        let checked = bounds(bindings).check(ROLE, target, name);
        assert_eq!(
            checked.map(|_| ()),
            expect,
            "{bindings:?} {target} {name:?}"
        );
        assert_eq!(
            bounds(bindings).check(OTHER, target, name),
            Err(Refusal::NotBound)
        );
    }

    #[test]
    fn only_what_is_written_down_is_allowed() {
        use Refusal::{LinkLocal, NoHost, NotBound, Rebinding};
        let site = &[
            "10.1.0.10",
            "2001:db8::1",
            "10.2.0.0/16",
            "www.example.org",
            "*.example.net",
        ];
        check(site, "10.1.0.10", None, Ok(()));
        check(site, "2001:db8::1", None, Ok(()));
        // An IPv4-mapped address is the IPv4 address, on the wire as here.
        check(site, "::ffff:10.1.0.10", None, Ok(()));
        check(site, "10.1.0.11", None, Err(NotBound));
        check(site, "10.2.0.1", None, Err(NotBound));
        check(site, "192.0.2.1", Some("www.example.org"), Ok(()));
        check(site, "192.0.2.1", Some("example.org"), Err(NotBound));
        check(site, "192.0.2.1", Some("a.example.net"), Err(NotBound));
        check(site, "192.0.2.1", Some("*.example.net"), Err(NotBound));
        for near in [
            "127.0.0.1",
            "::1",
            "169.254.0.5",
            "10.2.255.255",
            "::ffff:127.0.0.1",
        ] {
            let expect = if near == "10.2.255.255" {
                Ok(())
            } else {
                Err(Rebinding)
            };
            check(site, near, Some("www.example.org"), expect);
        }
        for nobody in [
            "224.0.0.1",
            "255.255.255.255",
            "0.0.0.0",
            "::",
            "ff02::1",
            "240.0.0.1",
        ] {
            check(site, nobody, Some("www.example.org"), Err(NoHost));
            check(&[nobody], nobody, None, Err(NoHost));
        }
        check(&["fe80::1"], "fe80::1", None, Err(LinkLocal));
        check(site, "fe80::1", Some("www.example.org"), Err(LinkLocal));
    }

    #[test]
    fn a_resolver_leads_to_this_host_only_where_the_site_says_so_itself() {
        check(&["127.0.0.1"], "127.0.0.1", None, Ok(()));
        let name = Some("www.example.org");
        check(
            &["www.example.org", "127.0.0.0/8"],
            "127.0.0.2",
            name,
            Ok(()),
        );
        check(
            &["www.example.org", "0.0.0.0/0"],
            "127.0.0.2",
            name,
            Err(Refusal::Rebinding),
        );
        check(
            &["www.example.org", "10.0.0.0/8"],
            "127.0.0.2",
            name,
            Err(Refusal::Rebinding),
        );
    }

    #[test]
    fn a_broadcast_address_of_anybodys_prefix_is_no_answer() {
        let compiled = Compiled {
            bindings: [(ROLE, "www.example.org"), (OTHER, "10.3.0.0/24")]
                .map(|(role, text)| (role, vec![Binding::parse(text).unwrap().binding]))
                .into(),
            ..Compiled::empty()
        };
        let bounds = Bounds::of(&compiled);
        let check = |target: &str| {
            bounds
                .check(ROLE, target.parse().unwrap(), Some("www.example.org"))
                .map(|_| ())
        };
        assert_eq!(check("10.3.0.255"), Err(Refusal::Rebinding));
        assert_eq!(check("10.3.0.254"), Ok(()));
    }

    #[test]
    fn what_a_tag_stands_for_is_not_written_down() {
        check(
            &["10.0.0.1", "tag:Cloud", "10.0.0.2", "www.example.org"],
            "10.0.0.2",
            None,
            Err(Refusal::NotBound),
        );
        check(
            &["10.0.0.1", "tag:Cloud", "www.example.org"],
            "192.0.2.1",
            Some("www.example.org"),
            Err(Refusal::NotBound),
        );
        check(&["10.0.0.1", "tag:Cloud"], "10.0.0.1", None, Ok(()));
    }

    mod properties {
        use super::*;

        fn address() -> impl Strategy<Value = IpAddr> {
            prop_oneof![
                any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
                any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
                // Few enough to meet what is bound.
                (0_u8..8).prop_map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))),
                Just(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                (0_u8..=255).prop_map(|last| IpAddr::V4(Ipv4Addr::new(224, 0, 0, last))),
            ]
        }

        fn binding() -> impl Strategy<Value = Binding> {
            prop_oneof![
                (address(), 0_u8..=128).prop_map(|(address, bits)| {
                    let most = if address.is_ipv4() { 32 } else { 128 };
                    Binding::Prefix(IpNet::new(address, bits.min(most)).unwrap().trunc())
                }),
                address().prop_map(|address| Binding::Prefix(address.into())),
                name().prop_map(|name| Binding::parse(&name).unwrap().binding),
                Just(Binding::Tag("Cloud".to_owned())),
            ]
        }

        fn name() -> impl Strategy<Value = String> {
            prop_oneof![
                Just("a.example.org".to_owned()),
                Just("b.example.org".to_owned()),
                Just("*.example.org".to_owned()),
            ]
        }

        proptest! {
            /// Written against the rule in words, not against the code: without a tag before it, an allowed target is
            /// itself bound, or its very name is; and it is a host's.
            #[test]
            fn nothing_outside_the_bindings_is_ever_allowed(
                bindings in proptest::collection::vec(binding(), 0..6),
                target in address(),
                name in proptest::option::of(name()),
            ) {
                let compiled = Compiled {
                    bindings: vec![(ROLE, bindings.clone())],
                    ..Compiled::empty()
                };
                let Ok(allowed) = Bounds::of(&compiled).check(ROLE, target, name.as_deref()) else {
                    return Ok(());
                };
                prop_assert_eq!(allowed.address(), target.to_canonical());
                let written: Vec<String> = bindings
                    .iter()
                    .take_while(|binding| !matches!(binding, Binding::Tag(_)))
                    .map(ToString::to_string)
                    .collect();
                let wanted = name.clone().unwrap_or_else(|| target.to_canonical().to_string());
                prop_assert!(written.contains(&wanted), "{:?} for {}", written, wanted);
                prop_assert!(!wanted.contains('*'));
                prop_assert!(!target.is_multicast() && !target.is_unspecified());
                if name.is_some() && target.to_canonical().is_loopback() {
                    let bound = bindings.iter().any(|binding| matches!(
                        binding, Binding::Prefix(net) if net.contains(&target.to_canonical())
                    ));
                    prop_assert!(bound);
                }
            }
        }
    }
}
