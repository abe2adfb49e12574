//! The classifier's tables as maps. A generation number in the keys makes a reload atomic: the daemon
//! fills the next generation beside the one in force and then flips the number in the settings.

use aya_ebpf::maps::lpm_trie::Key;
use flowproof_common::address::Address;
use flowproof_common::classify::{
    self, Cover, PREFIX_GENERATION_BITS, PrefixKey, RuleKey, Tables, UNBOUND_CLASS, rule_end,
};

use flowproof_common::record::{AddressClass, Settings};

use crate::maps::{CLASSES, PORT_CLASSES, PREFIXES, RULES};
use crate::traffic::ROOM;

/// The tables of one matrix generation.
#[derive(Clone, Copy)]
pub(crate) struct Generation {
    number: u32,
    flags: u32,
    /// What classes of addresses that are remembered were looked up under; none if none may be.
    stamp: Option<u64>,
}

impl Generation {
    /// The one in force, for a program with this room in the scratch table.
    #[inline(always)]
    pub(crate) fn of(settings: &Settings, room: u32) -> Self {
        // Read before any prefix is and not again: the daemon changes the number after the prefixes, so what is remembered
        // under it is never older than it.
        // SAFETY: the reference is to the map.
        let epoch = unsafe { (&raw const settings.epoch).read_volatile() };
        let number = settings.generation;
        Self {
            number,
            flags: settings.flags,
            stamp: (room == ROOM).then_some(AddressClass::stamp(number, epoch)),
        }
    }

    /// The class of the longest prefix.
    #[inline(always)]
    fn look_up(&self, address: &Address) -> u32 {
        let key = Key::new(
            PREFIX_GENERATION_BITS + 128,
            PrefixKey::new(self.number, address),
        );
        PREFIXES.get(&key).copied().unwrap_or(UNBOUND_CLASS)
    }
}

impl Tables for Generation {
    #[inline(always)]
    fn address_class(&self, address: &Address) -> u32 {
        let (Some(stamp), Some(entry)) = (
            self.stamp,
            CLASSES.get_ptr_mut(AddressClass::place(address)),
        ) else {
            return self.look_up(address);
        };
        // SAFETY: the element is this CPU's own, and only programs in the traffic path come here.
        let entry = unsafe { &mut *entry };
        if let Some(class) = entry.get(stamp, address) {
            return class;
        }
        let class = self.look_up(address);
        *entry = AddressClass {
            stamp,
            address: *address,
            class,
            zero: 0,
        };
        class
    }

    #[inline(always)]
    fn port_class(&self, port: u16) -> u16 {
        let index = (self.number & 1) << 16 | u32::from(port);
        PORT_CLASSES.get(index).map_or(0, |class| *class as u16)
    }

    #[inline(always)]
    fn rule(&self, from: u32, to: u32, protocol: u8, port_class: u16) -> Option<u32> {
        let key = RuleKey {
            generation: self.number,
            from: rule_end(from),
            to: rule_end(to),
            port_class,
            protocol,
            zero: 0,
        };
        // SAFETY: the value is one aligned word, which is read at once; the daemon never reuses an element
        // of a generation in force.
        unsafe { RULES.get(&key) }.copied()
    }

    #[inline(always)]
    fn has_names(&self) -> bool {
        self.flags & Settings::HAS_NAMES != 0
    }

    #[inline(always)]
    fn cover(&self, from: u32, to: u32, protocol: u8, service: u16) -> Cover {
        let protocol_and_service = u32::from(protocol) << 16 | u32::from(service);
        Cover::from_bits(fp_cover(
            self.number,
            self.flags,
            from,
            to,
            protocol_and_service,
        ))
    }
}

/// [`classify::cover`] of the tables with this number and these flags, as a global function (see
/// [`crate::traffic::fp_account`]): a flow of which nobody knows who began is looked up both ways.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fp_cover(
    number: u32,
    flags: u32,
    from: u32,
    to: u32,
    protocol_and_service: u32,
) -> u32 {
    let tables = Generation {
        number,
        flags,
        stamp: None,
    };
    let protocol = (protocol_and_service >> 16) as u8;
    classify::cover(&tables, from, to, protocol, protocol_and_service as u16).bits()
}
