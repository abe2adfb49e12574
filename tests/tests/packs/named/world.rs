//! The site of the name labs: roles that a pack names are bound by nothing else, all others have generated addresses.
//! And the Internet that the names lead to: what each name's address is, and which addresses several names share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::shape::Shape;
use crate::pack::Pack;

/// Everything inside: bound roles, and strangers.
pub(crate) const INSIDE: [&str; 2] = ["198.18.0.0/16", "2001:db8:1::/48"];
/// The Internet.
pub(crate) const OUTSIDE: [&str; 2] = ["198.19.0.0/16", "2001:db8:2::/48"];
/// The name server.
pub(crate) const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 19, 0, 53));
/// Somebody inside without a role.
pub(crate) const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 255, 1));
/// A name that no pack knows, with an address of its own.
pub(crate) const ELSEWHERE: &str = "elsewhere.lab.example";
/// Names that share an address.
const TOGETHER: usize = 5;

/// An address of each IP version.
pub(crate) type Both = [IpAddr; 2];

/// A name's addresses.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its own.
    pub(crate) own: Both,
    /// Those that it shares, if it does, with the others.
    pub(crate) shared: Option<Both>,
    /// Its own, of which no name server says anything.
    pub(crate) dark: Both,
}

/// What stands for what in the lab.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// (system, role, as printed, shape) of everything in `names`.
    pub(crate) names: Vec<(String, String, Shape)>,
    /// What the name server says.
    pub(crate) places: BTreeMap<String, Place>,
    /// By shared address: who shares it, and the name among them that no pack knows.
    pub(crate) shared: BTreeMap<IpAddr, (BTreeSet<String>, String)>,
    /// The roles of addresses by prefix.
    bound: BTreeMap<IpAddr, Vec<String>>,
    /// By bound role.
    homes: BTreeMap<String, Both>,
    /// By tag: an address in it, and its prefixes.
    tags: BTreeMap<String, (Both, [String; 2])>,
    used: u16,
    /// The site file.
    pub(crate) site: String,
}

impl World {
    pub(crate) fn of(packs: &[&Pack]) -> Result<Self> {
        let mut world = Self::default();
        let systems: Vec<&str> = packs.iter().map(|pack| pack.system.as_str()).collect();
        world.site = format!(
            "site: lab\nsystems: [{}, lab]\nroles:\n  lab/resolver: [{RESOLVER}]\n",
            systems.join(", ")
        );
        for pack in packs {
            for (index, role) in (0_u8..).zip(&pack.roles) {
                for name in &role.names {
                    let shape = Shape::read(name)?;
                    world.names.push((role.id.clone(), name.clone(), shape));
                }
                if role.names.is_empty() {
                    world.bind(&role.id, index);
                }
            }
        }
        let names = world.names.clone();
        for (role, _, shape) in &names {
            match shape {
                Shape::Address(address) => world.bound_to(*address, role),
                Shape::Tag(tag) => {
                    for address in world.tag(tag)?.0 {
                        world.bound_to(address, role);
                    }
                }
                Shape::Exact(_) | Shape::Below(_) | Shape::Ending(..) => {
                    for name in shape.examples().into_iter().chain(shape.near()) {
                        world.place(&name);
                    }
                }
            }
        }
        world.place(ELSEWHERE);
        let examples: BTreeSet<String> = names
            .iter()
            .flat_map(|(.., shape)| shape.examples())
            .collect();
        let examples: Vec<String> = examples.into_iter().collect();
        for (number, group) in examples.chunks(TOGETHER).enumerate() {
            let shared = world.fresh();
            let forbidden = format!("forbidden{number}.lab.example");
            let everybody: BTreeSet<String> = group.iter().chain([&forbidden]).cloned().collect();
            for name in &everybody {
                world.place(name);
                let place = world.places.get_mut(name).context("just placed")?;
                place.shared = Some(shared);
            }
            for address in shared {
                let sharing = (everybody.clone(), forbidden.clone());
                world.shared.insert(address, sharing);
            }
        }
        Ok(world)
    }

    /// The first roles of several packs live at one address.
    fn bind(&mut self, role: &str, index: u8) {
        let home = [
            IpAddr::V4(Ipv4Addr::new(198, 18, index, 1)),
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, index.into(), 0, 0, 0, 1)),
        ];
        self.site.push_str(&format!(
            "  {role}: [198.18.{index}.0/29, \"2001:db8:1:{index:x}::/64\"]\n"
        ));
        for address in home {
            self.bound_to(address, role);
        }
        self.homes.insert(role.to_owned(), home);
    }

    fn bound_to(&mut self, address: IpAddr, role: &str) {
        self.bound.entry(address).or_default().push(role.to_owned());
    }

    fn place(&mut self, name: &str) {
        if self.places.contains_key(name) {
            return;
        }
        let place = Place {
            own: self.fresh(),
            shared: None,
            dark: self.fresh(),
        };
        self.places.insert(name.to_owned(), place);
    }

    /// Addresses that nothing else has.
    pub(crate) fn fresh(&mut self) -> Both {
        self.used += 1;
        let [high, low] = self.used.to_be_bytes();
        [
            IpAddr::V4(Ipv4Addr::new(198, 19, 1 + high, low)),
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, self.used)),
        ]
    }

    fn tag(&mut self, tag: &str) -> Result<(Both, [String; 2])> {
        if let Some(known) = self.tags.get(tag) {
            return Ok(known.clone());
        }
        let third = u8::try_from(self.tags.len())
            .ok()
            .and_then(|number| number.checked_add(200))
            .context("too many tags for the lab")?;
        let prefixes = [
            format!("198.19.{third}.0/25"),
            format!("2001:db8:2:{third:x}::/64"),
        ];
        let inside = [
            IpAddr::V4(Ipv4Addr::new(198, 19, third, 7)),
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, third.into(), 0, 0, 0, 7)),
        ];
        self.tags.insert(tag.to_owned(), (inside, prefixes.clone()));
        Ok((inside, prefixes))
    }

    /// Addresses in a tag.
    pub(crate) fn in_tag(&self, tag: &str) -> Option<Both> {
        Some(self.tags.get(tag)?.0)
    }

    /// An IPv4 address right behind the last one of a tag.
    pub(crate) fn beside_tag(&self, tag: &str) -> Option<IpAddr> {
        match self.in_tag(tag)?[0] {
            IpAddr::V4(inside) => {
                let [a, b, c, _] = inside.octets();
                Some(IpAddr::V4(Ipv4Addr::new(a, b, c, 128)))
            }
            IpAddr::V6(_) => None,
        }
    }

    /// Files for the tags, (name, text): one as Azure publishes them, and a plain list for each second tag.
    pub(crate) fn tag_files(&self) -> Vec<(String, String)> {
        let mut files = Vec::new();
        let mut values = Vec::new();
        for (number, (tag, (_, prefixes))) in self.tags.iter().enumerate() {
            if number % 2 == 0 {
                values.push(
                    json!({"name": tag, "id": tag, "properties": {"addressPrefixes": prefixes}}),
                );
            } else {
                files.push((format!("{tag}.txt"), prefixes.join("\n") + "\n"));
            }
        }
        if !values.is_empty() {
            let text = json!({"changeNumber": 1, "cloud": "Public", "values": values});
            files.push(("azure.json".to_owned(), text.to_string()));
        }
        files
    }

    /// Where a bound role lives.
    pub(crate) fn home(&self, role: &str) -> Option<Both> {
        self.homes.get(role).copied()
    }

    /// Everything that a pack says of a role.
    pub(crate) fn names_of(&self, role: &str) -> impl Iterator<Item = (&str, &Shape)> {
        self.names
            .iter()
            .filter(move |(of, ..)| of == role)
            .map(|(_, text, shape)| (text.as_str(), shape))
    }

    /// The roles of an address by prefix, and those that a name adds.
    pub(crate) fn roles(&self, address: IpAddr, name: &str) -> Vec<String> {
        let by_name = self
            .names
            .iter()
            .filter(|(.., shape)| shape.fits(name))
            .map(|(role, ..)| role);
        let by_prefix = self.bound.get(&address).into_iter().flatten();
        let roles: BTreeSet<String> = by_name.chain(by_prefix).cloned().collect();
        roles.into_iter().collect()
    }

    /// What the name server is to say: (name, address).
    pub(crate) fn zone(&self) -> Vec<(&str, IpAddr)> {
        self.places
            .iter()
            .flat_map(|(name, place)| {
                let shared = place.shared.into_iter().flatten();
                place
                    .own
                    .into_iter()
                    .chain(shared)
                    .map(|address| (name.as_str(), address))
            })
            .collect()
    }
}
