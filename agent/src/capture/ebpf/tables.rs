//! The matrix in the kernel's tables. A new one is filled in beside the one in force under the next
//! generation number; the flip is one number in the settings; the old one is deleted when no program can
//! be reading it any more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::lpm_trie::Key;
use aya::{Ebpf, Pod};
use flowproof_common::address::Address;
use flowproof_common::classify::{
    ANY_CLASS, CLASS_INDEX, DEPENDS_ON_NAME, NAMELESS_CLASS, PREFIX_GENERATION_BITS, PrefixKey,
    RuleKey, rule_end,
};
use flowproof_common::record::Settings;

use super::super::CaptureError;
use super::object::map_data;
use super::{EbpfOptions, batch, failed};
use crate::matrix::compiled::{Compiled, Rule};
use crate::matrix::installed::{Installed, MemberId, SlotDirectory};
use crate::names::namer::MAX_PLACED;
use crate::names::{Decisions, Namer};

/// Longest time that a program may go on with a generation that it read before the flip. Programs run for
/// microseconds with preemption off.
const GRACE: Duration = Duration::from_millis(100);

/// Port classes of one generation; the table has room for two, and even and odd generations take turns.
const PORTS: u32 = 65_536;

/// The bits of a whole address, and of its key.
const FULL: u8 = 128;
const WHOLE: u32 = PREFIX_GENERATION_BITS + FULL as u32;

/// Entries of the maps that depend on configuration and matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sizes {
    pub(super) verified: u32,
    pub(super) unverified: u32,
    prefixes: u32,
    rules: u32,
    slots: u32,
    members: u32,
}

/// So many times what is there now.
fn roomy(count: usize, times: usize, least: u32) -> u32 {
    u32::try_from(count.saturating_mul(times))
        .unwrap_or(1 << 31)
        .clamp(least, 1 << 31)
}

/// One in so many flows may count more than its entry in a flow table has room for. Room that nobody needs costs a byte a flow.
const CARRIED_OF: u32 = 16;
const LEAST_CARRIED: u32 = 1024;

/// Of what each generation has its own: the next stands beside the one in force, and both may grow to twice their size
/// without a restart.
const BY_GENERATION: usize = 4;
/// Of counter slots, which generations share: all rows may be replaced three times without a restart. They cost most of all, a
/// slot some 200 bytes.
const SHARED: usize = 4;
/// Counter slots, and members of them, at least: a site that is being set up replaces a few hundred rows over and over.
const LEAST_SLOTS: u32 = 4096;
const LEAST_MEMBERS: u32 = 16_384;

impl Sizes {
    pub(super) fn for_matrix(matrix: &Installed, options: &EbpfOptions) -> Self {
        // Prefixes of both generations; the kernel allocates them as they come.
        let by_name = if matrix.compiled.names.is_empty() {
            0
        } else {
            2 * u32::try_from(MAX_PLACED).unwrap_or(u32::MAX / 4)
        };
        Self {
            verified: options.verified_flows.max(1),
            unverified: options.unverified_flows.max(1),
            prefixes: roomy(matrix.compiled.prefixes.len(), BY_GENERATION, 4096)
                .saturating_add(by_name),
            rules: roomy(matrix.compiled.rules.positions(), BY_GENERATION, 16_384),
            slots: roomy(matrix.directory.len(), SHARED, LEAST_SLOTS),
            members: roomy(matrix.compiled.sets.item_count(), SHARED, LEAST_MEMBERS),
        }
    }

    /// From the sizes of pinned maps.
    pub(super) fn from_maps(maps: &[(&str, u32)]) -> Self {
        let of = |name| {
            maps.iter()
                .find(|(map, _)| *map == name)
                .map_or(0, |(_, entries)| *entries)
        };
        Self {
            verified: of("VERIFIED"),
            unverified: of("UNVERIFIED"),
            prefixes: of("PREFIXES"),
            rules: of("RULES"),
            slots: of("SLOT_FLOWS").min(of("SLOT_TRAFFIC")),
            members: of("SLOT_MEMBERS"),
        }
    }

    /// Whether maps of these sizes do for `needed`. Flow tables must be as configured; the others may be
    /// larger, and half of what is roomy is enough.
    pub(super) const fn hold(&self, needed: &Self) -> bool {
        self.verified == needed.verified
            && self.unverified == needed.unverified
            && self.prefixes >= needed.prefixes / 2
            && self.rules >= needed.rules / 2
            && self.slots >= needed.slots / 2
            && self.members >= needed.members / 2
    }

    pub(super) const fn rules(&self) -> u32 {
        self.rules
    }

    /// Room for what flows count beyond their entries, see [`super::carried`].
    const fn carried(&self) -> u32 {
        let flows = self.verified.saturating_add(self.unverified);
        if flows / CARRIED_OF < LEAST_CARRIED {
            LEAST_CARRIED
        } else {
            flows / CARRIED_OF
        }
    }

    pub(super) const fn by_map(&self) -> [(&'static str, u32); 8] {
        [
            ("CARRIED", self.carried()),
            ("VERIFIED", self.verified),
            ("UNVERIFIED", self.unverified),
            ("PREFIXES", self.prefixes),
            ("RULES", self.rules),
            ("SLOT_TRAFFIC", self.slots),
            ("SLOT_FLOWS", self.slots),
            ("SLOT_MEMBERS", self.members),
        ]
    }
}

/// The keys of one generation.
#[derive(Default)]
struct Generation {
    number: u32,
    prefixes: Vec<Key<PrefixKey>>,
    rules: Vec<RuleKey>,
}

/// What is in the tables.
pub(super) struct Loaded {
    sizes: Sizes,
    directory: Arc<SlotDirectory>,
    in_force: Generation,
    next: Option<(Generation, Arc<SlotDirectory>)>,
    /// Classes of whole addresses by the site, for when they stand for no name any more.
    bound: HashMap<Address, u32>,
    /// Addresses in the table by name.
    by_name: HashSet<Address>,
    /// What the matrix was compiled to that was written last.
    compiled: Option<Arc<Compiled>>,
    /// Classes that names made and that not all rules of which found room, by their index. Judged by what rules there
    /// are, their addresses would lose what their prefixes allow.
    incomplete: HashSet<u32>,
    /// Whether it was told that something found no room.
    full: bool,
    retired: Option<(Generation, Instant)>,
    /// What even and odd generations have as port classes; nothing where that is not known.
    port_classes: [Option<Arc<[u16]>>; 2],
}

impl Loaded {
    /// Takes stock of adopted tables: the slots and the generation in force stay, every other generation
    /// is a killed daemon's half-done work and goes.
    pub(super) fn adopt(
        ebpf: &mut Ebpf,
        generation: u32,
        sizes: Sizes,
    ) -> Result<Self, CaptureError> {
        let mut slots = std::collections::BTreeMap::<u32, Vec<MemberId>>::new();
        batch::for_each::<u64, u64>(map_data(ebpf, "SLOT_MEMBERS")?, |key, member| {
            let slot = u32::try_from(key >> 32).unwrap_or(0);
            slots.entry(slot).or_default().push(MemberId(*member));
        })
        .map_err(|error| failed("reading the counter slots", &error))?;
        let mut in_force = Generation {
            number: generation,
            ..Generation::default()
        };
        let mut stale = Generation::default();
        batch::for_each::<RuleKey, u32>(map_data(ebpf, "RULES")?, |key, _| {
            if key.generation == generation {
                in_force.rules.push(*key);
            } else {
                stale.rules.push(*key);
            }
        })
        .map_err(|error| failed("reading the rules", &error))?;
        batch::for_each::<Key<PrefixKey>, u32>(map_data(ebpf, "PREFIXES")?, |key, _| {
            let data = key.data();
            if data.generation == generation.to_be_bytes() {
                in_force.prefixes.push(*key);
            } else {
                stale.prefixes.push(*key);
            }
        })
        .map_err(|error| failed("reading the prefixes", &error))?;
        let loaded = Self {
            sizes,
            directory: Arc::new(SlotDirectory::restore(slots)),
            in_force,
            next: None,
            bound: HashMap::new(),
            by_name: HashSet::new(),
            compiled: None,
            incomplete: HashSet::new(),
            full: false,
            retired: None,
            port_classes: [None, None],
        };
        delete(ebpf, &stale)?;
        Ok(loaded)
    }

    pub(super) fn directory(&self) -> &SlotDirectory {
        &self.directory
    }

    pub(super) const fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Writes `matrix` beside the one in force and returns its generation. Nothing judges by it yet.
    pub(super) fn fill(&mut self, ebpf: &mut Ebpf, namer: &Namer) -> Result<u32, CaptureError> {
        let matrix = namer.matrix().as_ref();
        // The half of the port classes that is to be written must not be in use any more.
        if let Some((retired, since)) = self.retired.take() {
            std::thread::sleep(GRACE.saturating_sub(since.elapsed()));
            delete(ebpf, &retired)?;
        }
        self.check_room(namer)?;
        let number = self.in_force.number.wrapping_add(1).max(1);
        let compiled = &matrix.compiled;
        let room = self.room_for_rules(matrix);
        let mut incomplete = HashSet::new();
        let (mut rules, mut slots) = (Vec::new(), Vec::new());
        for (position, (rule, value)) in matrix.rules().enumerate() {
            if position < room {
                rules.push(rule_key(number, &rule));
                slots.push(value);
            } else {
                incomplete.insert(newer_class(&rule));
            }
        }
        let by_name: HashMap<Address, u32> = namer
            .placed()
            .filter(|(_, class)| !incomplete.contains(&(class & CLASS_INDEX)))
            .collect();
        // A whole address that also stands for a name has its class by name, which includes the other.
        let bound = compiled
            .prefixes
            .iter()
            .filter(|prefix| prefix.bits < FULL || !by_name.contains_key(&prefix.address))
            .map(|prefix| {
                (
                    prefix_key(number, &prefix.address, prefix.bits),
                    compiled.rules.like(prefix.class),
                )
            });
        let (prefixes, classes): (Vec<_>, Vec<_>) = bound
            .chain(by_name.iter().map(|(address, class)| {
                let class = compiled.rules.like(*class);
                (prefix_key(number, address, FULL), class)
            }))
            .unzip();
        let (member_keys, members) = self.new_members(matrix);
        let next = Generation {
            number,
            prefixes,
            rules,
        };
        let filled = write(ebpf, "SLOT_MEMBERS", &member_keys, &members)
            .and_then(|()| write(ebpf, "PREFIXES", &next.prefixes, &classes))
            .and_then(|()| self.write_port_classes(ebpf, number, &compiled.port_classes))
            .and_then(|()| write(ebpf, "RULES", &next.rules, &slots));
        if let Err(error) = filled {
            delete(ebpf, &next)?;
            self.forget_members(ebpf, &member_keys)?;
            return Err(error);
        }
        self.bound = compiled
            .prefixes
            .iter()
            .filter(|prefix| prefix.bits == FULL)
            .map(|prefix| (prefix.address, prefix.class))
            .collect();
        self.compiled = Some(Arc::clone(compiled));
        self.by_name = by_name.into_keys().collect();
        self.full = !incomplete.is_empty();
        self.incomplete = incomplete;
        self.next = Some((next, Arc::clone(&matrix.directory)));
        Ok(number)
    }

    /// What slots of `matrix` count for, as far as the kernel does not know it: slots are never given to others.
    fn new_members(&self, matrix: &Installed) -> (Vec<u64>, Vec<u64>) {
        let known = if matrix.directory.holds(&self.directory) {
            self.directory.len()
        } else {
            0
        };
        matrix
            .directory
            .starting_with(u32::try_from(known).unwrap_or(u32::MAX))
            .flat_map(|(slot, own)| member_entries(slot, own))
            .unzip()
    }

    /// Slots of a matrix that was never in force would be taken for another's after a restart.
    fn forget_members(&self, ebpf: &Ebpf, keys: &[u64]) -> Result<(), CaptureError> {
        let in_force = self.directory.len() as u64;
        let keys: Vec<u64> = keys
            .iter()
            .copied()
            .filter(|key| key >> 32 >= in_force)
            .collect();
        batch::delete(map_data(ebpf, "SLOT_MEMBERS")?, &keys)
            .map_err(|error| failed("removing counter slots", &error))
    }

    /// Writes the port classes of a generation over those of the last but one, as far as they differ.
    fn write_port_classes(
        &mut self,
        ebpf: &Ebpf,
        generation: u32,
        classes: &Arc<[u16]>,
    ) -> Result<(), CaptureError> {
        let half = generation & 1;
        let known = &mut self.port_classes[half as usize];
        // Until all are written nobody knows what is there.
        let before = known.take();
        let (ports, values): (Vec<u32>, Vec<u32>) = (half * PORTS..)
            .zip(classes.iter())
            .enumerate()
            .filter(|(port, (_, class))| {
                before.as_ref().and_then(|before| before.get(*port)) != Some(class)
            })
            .map(|(_, (port, class))| (port, u32::from(*class)))
            .unzip();
        write(ebpf, "PORT_CLASSES", &ports, &values)?;
        *known = Some(Arc::clone(classes));
        Ok(())
    }

    fn check_room(&self, namer: &Namer) -> Result<(), CaptureError> {
        let matrix = namer.matrix();
        let compiled = &matrix.compiled;
        let members = matrix.directory.member_count();
        for (what, needed, room) in [
            (
                "prefixes",
                compiled.prefixes.len() + namer.placed().count() + self.in_force.prefixes.len(),
                self.sizes.prefixes,
            ),
            (
                "rules",
                matrix.fixed_rules() + self.in_force.rules.len(),
                self.sizes.rules,
            ),
            ("counter slots", matrix.directory.len(), self.sizes.slots),
            ("counter members", members, self.sizes.members),
        ] {
            if needed > room as usize {
                return Err(CaptureError::TooLarge {
                    what,
                    needed,
                    room: room as usize,
                });
            }
        }
        Ok(())
    }

    /// How many of a matrix' rules are written: all that follow from it alone, and as many as names made as leave room for
    /// the matrix after it.
    fn room_for_rules(&self, matrix: &Installed) -> usize {
        let beside = (self.sizes.rules as usize).saturating_sub(self.in_force.rules.len());
        (self.sizes.rules as usize / 2)
            .min(beside)
            .max(matrix.fixed_rules())
    }

    /// Adds what names have taught since the matrix was put in force. What finds no room is left out, which is told: flows
    /// to such addresses are judged one by one.
    pub(super) fn learn(&mut self, ebpf: &Ebpf, decisions: &Decisions) -> Result<(), CaptureError> {
        let number = self.in_force.number;
        if let Some(matrix) = &decisions.matrix {
            self.learn_slots(ebpf, matrix)?;
        }
        let room = (self.sizes.rules as usize / 2).saturating_sub(self.in_force.rules.len());
        let mut keys = Vec::new();
        let mut values = Vec::new();
        let kept = |rule: &Rule| {
            self.compiled
                .as_ref()
                .is_none_or(|compiled| compiled.rules.is_kept(rule))
        };
        let rules: Vec<_> = decisions
            .rules
            .iter()
            .filter(|(rule, _)| kept(rule))
            .collect();
        for (rule, value) in &rules {
            if self.has_slot(value & !DEPENDS_ON_NAME) && keys.len() < room {
                keys.push(rule_key(number, rule));
                values.push(*value);
            } else {
                self.incomplete.insert(newer_class(rule));
            }
        }
        if keys.len() < rules.len() && !std::mem::replace(&mut self.full, true) {
            tracing::warn!(
                "the kernel's tables have no room for more combinations of names: flows to further addresses are judged \
                 one by one; restart the daemon to size them anew"
            );
        }
        write(ebpf, "RULES", &keys, &values)?;
        self.in_force.rules.extend(keys);
        let mut known: HashMap<Address, Option<u32>> = HashMap::new();
        for (address, class) in &decisions.addresses {
            known.insert(*address, *class);
        }
        let mut gone = Vec::new();
        for (address, class) in known {
            let key = prefix_key(number, &address, FULL);
            let class = class.filter(|class| !self.incomplete.contains(&(class & CLASS_INDEX)));
            match class.or_else(|| self.bound.get(&address).copied()) {
                Some(class) => {
                    if self.by_name.contains(&address) || self.has_room_for_prefix() {
                        let class = self
                            .compiled
                            .as_ref()
                            .map_or(class, |compiled| compiled.rules.like(class));
                        write(ebpf, "PREFIXES", &[key], &[class])?;
                        if self.by_name.insert(address) && !self.bound.contains_key(&address) {
                            self.in_force.prefixes.push(key);
                        }
                    }
                }
                None => {
                    self.by_name.remove(&address);
                    gone.push(key);
                }
            }
        }
        if !gone.is_empty() {
            batch::delete(map_data(ebpf, "PREFIXES")?, &gone)
                .map_err(|error| failed("deleting addresses from the kernel's tables", &error))?;
            let gone: HashSet<[u8; 16]> = gone.iter().map(|key| key.data().address).collect();
            self.in_force
                .prefixes
                .retain(|key| key.prefix_len() < WHOLE || !gone.contains(&key.data().address));
        }
        Ok(())
    }

    /// Leaves no room for what names add.
    #[cfg(test)]
    pub(super) fn fill_up(&mut self) {
        self.sizes.rules = u32::try_from(self.in_force.rules.len()).unwrap_or(u32::MAX);
    }

    fn has_room_for_prefix(&self) -> bool {
        self.in_force.prefixes.len() < self.sizes.prefixes as usize / 2
    }

    /// Whether the kernel has counters for a slot.
    pub(super) fn has_slot(&self, slot: u32) -> bool {
        slot < self.sizes.slots && (slot as usize) < self.directory.len()
    }

    /// Tells the kernel's memory what slots that names made count for.
    fn learn_slots(&mut self, ebpf: &Ebpf, matrix: &Installed) -> Result<(), CaptureError> {
        let known = u32::try_from(self.directory.len()).unwrap_or(u32::MAX);
        let new: Vec<(u32, &[MemberId])> = matrix.directory.starting_with(known).collect();
        if new.is_empty() {
            return Ok(());
        }
        let members = matrix.directory.member_count();
        if matrix.directory.len() > self.sizes.slots as usize
            || members > self.sizes.members as usize
        {
            return Ok(());
        }
        let (keys, values): (Vec<u64>, Vec<u64>) = new
            .into_iter()
            .flat_map(|(slot, own)| member_entries(slot, own))
            .unzip();
        write(ebpf, "SLOT_MEMBERS", &keys, &values)?;
        self.directory = Arc::clone(&matrix.directory);
        Ok(())
    }

    /// The filled generation is in force; the one before waits for its end.
    pub(super) fn flip(&mut self) {
        if let Some((next, directory)) = self.next.take() {
            let old = std::mem::replace(&mut self.in_force, next);
            self.directory = directory;
            self.retired = Some((old, Instant::now()));
        }
    }

    /// The filled generation is not wanted.
    pub(super) fn discard(&mut self, ebpf: &mut Ebpf) {
        let Some((next, directory)) = self.next.take() else {
            return;
        };
        let members: Vec<u64> = directory
            .iter()
            .flat_map(|(slot, own)| member_entries(slot, own).map(|(key, _)| key))
            .collect();
        if let Err(error) = delete(ebpf, &next).and_then(|()| self.forget_members(ebpf, &members)) {
            tracing::warn!(%error, "could not remove a matrix that was not taken into force");
        }
    }

    /// Deletes the generation before the one in force, once no program can be reading it.
    pub(super) fn retire(&mut self, ebpf: &mut Ebpf) -> Result<(), CaptureError> {
        if self
            .retired
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() >= GRACE)
            && let Some((retired, _)) = self.retired.take()
        {
            delete(ebpf, &retired)?;
        }
        Ok(())
    }
}

/// The index of the later made of a rule's two classes: the one that the rule was made for, if names made it.
fn newer_class(rule: &Rule) -> u32 {
    let index = |class| match class {
        ANY_CLASS | NAMELESS_CLASS => 0,
        class => class & CLASS_INDEX,
    };
    index(rule.from).max(index(rule.to))
}

fn rule_key(generation: u32, rule: &Rule) -> RuleKey {
    RuleKey {
        generation,
        from: rule_end(rule.from),
        to: rule_end(rule.to),
        port_class: rule.port_class,
        protocol: rule.protocol,
        zero: 0,
    }
}

fn prefix_key(generation: u32, address: &Address, bits: u8) -> Key<PrefixKey> {
    Key::new(
        PREFIX_GENERATION_BITS + u32::from(bits),
        PrefixKey::new(generation, address),
    )
}

fn member_entries(slot: u32, members: &[MemberId]) -> impl Iterator<Item = (u64, u64)> {
    (0_u64..)
        .zip(members)
        .map(move |(ordinal, member)| (u64::from(slot) << 32 | ordinal, member.0))
}

/// Writes elements of one table.
fn write<K: Pod, V: Pod>(
    ebpf: &Ebpf,
    table: &str,
    keys: &[K],
    values: &[V],
) -> Result<(), CaptureError> {
    batch::update(map_data(ebpf, table)?, keys, values)
        .map_err(|error| failed(&format!("writing the kernel's table {table}"), &error))
}

/// Deletes the entries of a matrix.
fn delete(ebpf: &Ebpf, generation: &Generation) -> Result<(), CaptureError> {
    let gone =
        |error: std::io::Error| failed("deleting an old matrix from the kernel's tables", &error);
    batch::delete(map_data(ebpf, "RULES")?, &generation.rules).map_err(gone)?;
    batch::delete(map_data(ebpf, "PREFIXES")?, &generation.prefixes).map_err(gone)
}

pub(super) fn read_settings(ebpf: &Ebpf) -> Result<Settings, CaptureError> {
    batch::values::<Settings>(map_data(ebpf, "SETTINGS")?, 1)
        .map(|settings| settings.first().copied().unwrap_or_default())
        .map_err(|error| failed("reading the settings", &error))
}

pub(super) fn write_settings(ebpf: &Ebpf, settings: Settings) -> Result<(), CaptureError> {
    write(ebpf, "SETTINGS", &[0_u32], &[settings])
}
