//! Which conversations prove each name of a pack, and which ones only seem to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};

use super::case::{Case, Expected, Say, Stage, Tally};
use super::shape::Shape;
use super::talk::{Aim, Draft, Talk, shouted};
use super::world::{ELSEWHERE, Place, World};
use crate::near::{id, ranks};
use crate::pack::{Requirement, Service, protocol};
use crate::plan::{Plan, Row, Spec, Way, covers};

/// Everything that is to be done under one daemon.
#[derive(Debug, Default)]
pub(crate) struct Cases {
    pub(crate) all: BTreeSet<Case>,
    /// By who asks: the names that it asks for.
    pub(crate) questions: BTreeMap<IpAddr, BTreeSet<String>>,
    /// Addresses that a pack prints, and those beside them.
    pub(crate) fixed: BTreeSet<IpAddr>,
    /// By (role, name as printed).
    pub(crate) tally: BTreeMap<(String, String), Tally>,
}

impl Cases {
    pub(crate) fn of(plan: &Plan<'_>, world: &World) -> Result<Self> {
        let mut maker = Maker {
            plan,
            world,
            cases: Self::default(),
            about: (String::new(), String::new()),
        };
        for (role, name, _) in &world.names {
            let about = (role.clone(), name.clone());
            maker.cases.tally.insert(about, Tally::default());
        }
        for row in &plan.rows {
            if !row.requirement.has_unknown_end() {
                maker.row(row.requirement, row.service)?;
            }
        }
        Ok(maker.cases)
    }
}

struct Maker<'a> {
    plan: &'a Plan<'a>,
    world: &'a World,
    cases: Cases,
    /// The (role, name) at hand.
    about: (String, String),
}

impl Maker<'_> {
    fn row(&mut self, requirement: &Requirement, service: &Service) -> Result<()> {
        for (from, to) in requirement.initiations() {
            let named = |role: &str| self.world.names_of(role).next().is_some();
            let (inbound, inside, outside) = match (named(from), named(to)) {
                (false, false) => continue,
                (false, true) => (false, from, to),
                (true, false) => (true, to, from),
                (true, true) => bail!("{}: both ends are names", requirement.id),
            };
            let Some(home) = self.world.home(inside) else {
                bail!("{}: {inside} is nowhere in the lab", requirement.id);
            };
            for (protocol, first, last) in &service.ranges {
                if !matches!(*protocol, protocol::TCP | protocol::UDP) {
                    bail!("{}: names have no {}", requirement.id, service.name);
                }
                let ports: BTreeSet<u16> = [*first, *last].into();
                for port in ports {
                    let world = self.world;
                    for (name, shape) in world.names_of(outside) {
                        self.about = (outside.to_owned(), name.to_owned());
                        let talk = Talk {
                            inbound,
                            home,
                            protocol: *protocol,
                            port,
                        };
                        self.name(&talk, shape)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn name(&mut self, talk: &Talk, shape: &Shape) -> Result<()> {
        match shape {
            Shape::Address(address) => {
                let beside = match address {
                    IpAddr::V4(address) => IpAddr::V4((address.to_bits() + 1).into()),
                    IpAddr::V6(address) => IpAddr::V6((address.to_bits() + 1).into()),
                };
                self.cases.fixed.extend([*address, beside]);
                self.fixed(talk, &[*address], beside);
            }
            Shape::Tag(tag) => {
                let inside = self.world.in_tag(tag).context("a tag of the lab")?;
                let beside = self.world.beside_tag(tag).context("a tag of the lab")?;
                self.fixed(talk, &inside, beside);
            }
            Shape::Exact(_) | Shape::Below(_) | Shape::Ending(..) => {
                for example in shape.examples() {
                    self.example(talk, &example)?;
                }
                for near in shape.near() {
                    self.nearly(talk, &near)?;
                }
            }
        }
        Ok(())
    }

    /// What the pack or a tag says by addresses.
    fn fixed(&mut self, talk: &Talk, inside: &[IpAddr], beside: IpAddr) {
        let inside = inside.iter().map(|address| (*address, Aim::Fits));
        for (address, aim) in inside.chain([(beside, Aim::Near)]) {
            for say in talk.says(ELSEWHERE) {
                let draft = talk.draft(Stage::Told, address, "", say);
                self.judge(talk, draft.aimed(aim));
            }
        }
    }

    fn example(&mut self, talk: &Talk, name: &str) -> Result<()> {
        let place = self.place(name)?;
        let shared = place.shared.context("examples share addresses")?;
        for address in talk.home {
            self.ask(address, name);
        }
        for address in place.own {
            for say in talk.says(name) {
                self.judge(talk, talk.draft(Stage::Told, address, name, say));
            }
        }
        self.shared(talk, name, shared[0]);
        if talk.inbound {
            // Before a name server says it, an address is nobody's.
            for address in place.dark {
                let draft = talk.draft(Stage::Told, address, "", Say::Words);
                self.judge(talk, draft.aimed(Aim::Mismatch));
            }
            return Ok(());
        }
        // Somebody who isn't allowed to.
        let draft = talk.draft(Stage::Told, place.own[0], name, Say::Words);
        self.judge(talk, draft.by_stranger());
        let Some(hello) = talk.hello(&shouted(name)) else {
            return Ok(());
        };
        for address in place.dark {
            self.judge(talk, talk.draft(Stage::Dark, address, name, hello.clone()));
        }
        // Every name at one and the same address.
        let everything = self.place(ELSEWHERE)?.dark[1];
        let hello = talk.hello(name).context("as above")?;
        self.judge(
            talk,
            talk.draft(Stage::Dark, everything, name, hello.clone()),
        );
        // It claims the name where the name server said to the same initiator that it is elsewhere.
        let elsewhere = self.place(ELSEWHERE)?.own[0];
        self.ask(talk.home[0], ELSEWHERE);
        let rows = self.rows(talk, elsewhere, name);
        let draft = talk.draft(Stage::Told, elsewhere, name, hello);
        self.mismatch(talk, draft, rows);
        self.forbidden(talk, ELSEWHERE, place.own[0], &[name.to_owned()].into());
        Ok(())
    }

    /// Conversations with an address that several names share.
    fn shared(&mut self, talk: &Talk, name: &str, address: IpAddr) {
        let Some((everybody, forbidden)) = self.world.shared.get(&address) else {
            return;
        };
        for other in everybody {
            self.ask(talk.home[0], other);
        }
        if talk.inbound {
            // It is all of them.
            let rows = everybody
                .iter()
                .flat_map(|name| self.rows(talk, address, name));
            let rows = rows.collect();
            for say in talk.says(name) {
                let draft = talk.draft(Stage::Told, address, name, say);
                self.add(talk, draft, Expected::Rows(BTreeSet::clone(&rows)));
            }
            return;
        }
        let rows = everybody
            .iter()
            .flat_map(|name| self.rows(talk, address, name));
        let rows = rows.collect();
        let draft = talk.draft(Stage::Told, address, name, Say::Words);
        self.add(talk, draft, Expected::Some(rows));
        if let Some(hello) = talk.hello(name) {
            self.judge(talk, talk.draft(Stage::Told, address, name, hello));
        }
        self.forbidden(talk, forbidden, address, everybody);
    }

    /// A name that no row knows, at an address that is allowed by the names `of`.
    fn forbidden(&mut self, talk: &Talk, name: &str, address: IpAddr, of: &BTreeSet<String>) {
        let rows: BTreeSet<String> = of
            .iter()
            .flat_map(|name| self.rows(talk, address, name))
            .collect();
        if let Some(hello) = talk.hello(name) {
            let draft = talk.draft(Stage::Told, address, name, hello);
            self.mismatch(talk, draft, rows);
        }
    }

    /// A name and an address that don't belong together, of which one alone would be in these rows.
    fn mismatch(&mut self, talk: &Talk, draft: Draft, rows: BTreeSet<String>) {
        if !rows.is_empty() {
            let expected = Expected::Unexpected(Some("name_mismatch"), rows);
            self.add(talk, draft.aimed(Aim::Mismatch), expected);
        }
    }

    /// A name that nearly fits, at its own address.
    fn nearly(&mut self, talk: &Talk, name: &str) -> Result<()> {
        let place = self.place(name)?;
        for address in talk.home {
            self.ask(address, name);
        }
        let own = place.own[0];
        for say in talk.says(name) {
            let draft = talk.draft(Stage::Told, own, name, say);
            self.judge(talk, draft.aimed(Aim::Near));
        }
        if !talk.inbound {
            let draft = talk.draft(Stage::Told, own, name, Say::Words);
            self.judge(talk, draft.by_stranger());
            if let Some(hello) = talk.hello(name) {
                let draft = talk.draft(Stage::Dark, place.dark[0], name, hello);
                self.judge(talk, draft.aimed(Aim::Near));
            }
        }
        Ok(())
    }

    fn place(&self, name: &str) -> Result<Place> {
        let place = self.world.places.get(name);
        place.cloned().with_context(|| format!("{name} is nowhere"))
    }

    fn ask(&mut self, who: IpAddr, name: &str) {
        // The name server has no IPv6 address, so nobody asks from one: there the words to others have to do.
        if who.is_ipv4() {
            let asked = self.cases.questions.entry(who).or_default();
            asked.insert(name.to_owned());
        }
    }

    fn spec(&self, talk: &Talk, ends: [IpAddr; 2], name: &str) -> Spec {
        let names = if talk.inbound { [name, ""] } else { ["", name] };
        Spec {
            way: Way::Across(usize::from(talk.inbound)),
            initiator: ends[0],
            responder: ends[1],
            protocol: talk.protocol,
            port: talk.port,
            from: self.world.roles(ends[0], names[0]),
            to: self.world.roles(ends[1], names[1]),
        }
    }

    /// The rows that cover a conversation with this address under this name.
    fn rows(&self, talk: &Talk, address: IpAddr, name: &str) -> BTreeSet<String> {
        let spec = self.spec(talk, talk.ends(address), name);
        self.covering(&spec).map(id).collect()
    }

    fn covering<'s>(&'s self, spec: &'s Spec) -> impl Iterator<Item = &'s Row<'s>> {
        let rows = self.plan.rows.iter();
        rows.filter(|row| covers(row.requirement, row.service, spec))
    }

    /// Adds a conversation in which the name at hand says everything.
    fn judge(&mut self, talk: &Talk, draft: Draft) {
        let spec = self.spec(talk, draft.ends, &draft.name);
        let rows: BTreeSet<String> = self.covering(&spec).map(id).collect();
        let expected = if !rows.is_empty() {
            Expected::Rows(rows)
        } else if spec.from.is_empty() && spec.to.is_empty() {
            Expected::Unscoped
        } else {
            let ranks = ranks(self.plan, &spec);
            let best = ranks.iter().find(|rank| !rank.is_empty());
            let nearest = best.into_iter().flatten().map(|near| near.0).min();
            let best = best.into_iter().flatten();
            let best: Vec<_> = best.filter(|near| Some(near.0) == nearest).collect();
            Expected::Unexpected(
                best.first().map(|near| near.1),
                best.iter().map(|near| near.2.clone()).collect(),
            )
        };
        self.put(talk, draft, expected, Some([spec.from, spec.to]));
    }

    fn add(&mut self, talk: &Talk, draft: Draft, expected: Expected) {
        self.put(talk, draft, expected, None);
    }

    fn put(
        &mut self,
        talk: &Talk,
        draft: Draft,
        expected: Expected,
        roles: Option<[Vec<String>; 2]>,
    ) {
        let tally = self.cases.tally.entry(self.about.clone()).or_default();
        match (draft.aim, &expected) {
            (Aim::Fits, Expected::Rows(_) | Expected::Some(_)) => tally.fitting += 1,
            (Aim::Near, Expected::Unexpected(..)) => tally.near += 1,
            (Aim::Mismatch, Expected::Unexpected(..)) => tally.mismatched += 1,
            // Another pack's name may fit as well.
            (Aim::Fits | Aim::Near | Aim::Mismatch | Aim::Other, _) => {}
        }
        let told = !draft.name.is_empty() && draft.say != Say::Words;
        tally.shown |= !talk.inbound && draft.aim == Aim::Fits && told;
        self.cases.all.insert(Case {
            stage: draft.stage,
            inbound: talk.inbound,
            initiator: draft.ends[0],
            responder: draft.ends[1],
            protocol: talk.protocol,
            port: talk.port,
            say: draft.say,
            expected,
            roles,
        });
    }
}
