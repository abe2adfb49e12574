//! The classifier's tables as maps. A generation number in the keys makes a reload atomic: the daemon
//! fills the next generation beside the one in force and then flips the number in the settings.

use aya_ebpf::maps::lpm_trie::Key;
use flowproof_common::address::Address;
use flowproof_common::classify::{
    self, Cover, PREFIX_GENERATION_BITS, PrefixKey, RuleKey, Tables, UNBOUND_CLASS,
};

use flowproof_common::record::Settings;

use crate::maps::{PORT_CLASSES, PREFIXES, RULES};

/// The tables of one matrix generation.
#[derive(Clone, Copy)]
pub(crate) struct Generation {
    number: u32,
    flags: u32,
}

impl Generation {
    /// The one in force.
    #[inline(always)]
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            number: settings.generation,
            flags: settings.flags,
        }
    }
}

impl Tables for Generation {
    #[inline(always)]
    fn address_class(&self, address: &Address) -> u32 {
        let key = Key::new(
            PREFIX_GENERATION_BITS + 128,
            PrefixKey::new(self.number, address),
        );
        PREFIXES.get(&key).copied().unwrap_or(UNBOUND_CLASS)
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
            from,
            to,
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
    let tables = Generation { number, flags };
    let protocol = (protocol_and_service >> 16) as u8;
    classify::cover(&tables, from, to, protocol, protocol_and_service as u16).bits()
}
