//! The kernel object: which one, how large its maps are and how they are allocated, and loading it onto maps that are
//! already there.

use std::borrow::Cow;

use aya::maps::{Map, MapData};
use aya::{Ebpf, EbpfError, EbpfLoader};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::super::{Backend, CaptureError};
use super::drops::DropFacts;
use super::pins::Pins;
use super::tables::Sizes;
use super::{failed, missing};

/// Names an object to load instead of the embedded one: the tests run on the one that was just rebuilt.
pub(crate) const OBJECT_VARIABLE: &str = "FLOWPROOF_BPF_OBJECT";

/// The object as committed; `include_bytes_aligned` because its headers are read in place.
static EMBEDDED: &[u8] =
    aya::include_bytes_aligned!("../../../../agent-ebpf/object/flowproof.bpf.o");

/// Maps that outlive the daemon.
pub(super) const PINNED_MAPS: [&str; 17] = [
    "VERIFIED",
    "UNVERIFIED",
    "PRESENCE",
    "CARRIED",
    "FRAGMENTS",
    "PREFIXES",
    "PORT_CLASSES",
    "RULES",
    "SETTINGS",
    "SLOT_TRAFFIC",
    "SLOT_FLOWS",
    "SLOT_MEMBERS",
    "INTERFACES",
    "COUNTERS",
    "EVENTS",
    // By these two the programs at the hooks go on to another, which may be a successor's.
    "PROGRAMS",
    "SCRATCH",
];

/// The map that a reload writes most of. An element that is allocated as it comes costs some 900 ns to insert on the machine
/// that this was measured on, one that is there already 370. The kernel gives an element that was deleted to the next key at
/// once; rules are deleted when no program can be reading them.
const PREALLOCATED: &str = "RULES";
/// Entries that are allocated beforehand, at most: 72 bytes each. The room that larger tables have for more costs nothing
/// before it is used.
const MOST_PREALLOCATED: u32 = 1 << 20;

fn bytes() -> Result<Cow<'static, [u8]>, CaptureError> {
    match std::env::var_os(OBJECT_VARIABLE) {
        None => Ok(Cow::Borrowed(EMBEDDED)),
        Some(path) => std::fs::read(&path).map(Cow::Owned).map_err(|error| {
            failed(
                &format!(
                    "reading the kernel object {} ({OBJECT_VARIABLE})",
                    path.display()
                ),
                &error,
            )
        }),
    }
}

/// Loads the object, on pinned maps if there are any that are large enough. Maps that are too small are
/// given up with their counters: the caller is told by the sizes that come back.
pub(super) fn load(
    needed: Sizes,
    pins: Option<Pins>,
    drops: Option<&DropFacts>,
) -> Result<(Ebpf, Sizes, Option<Pins>), CaptureError> {
    let mut bytes = bytes()?;
    if needed.rules() <= MOST_PREALLOCATED {
        preallocate(bytes.to_mut(), PREALLOCATED)?;
    }
    let mut sizes = needed;
    if let Some(pins) = &pins {
        match pins.sizes()? {
            Some(pinned) if pinned.hold(&needed) => sizes = pinned,
            Some(_) => {
                tracing::warn!(
                    directory = %pins.directory().display(),
                    "the pinned tables are too small for this matrix: starting anew, counters begin at 0"
                );
                pins.clear()?;
            }
            None => {}
        }
    }
    let mut loader = EbpfLoader::new();
    for (name, entries) in sizes.by_map() {
        loader.map_max_entries(name, entries);
    }
    if let Some(pins) = &pins {
        for name in PINNED_MAPS {
            loader.map_pin_path(name, pins.directory().join(name));
        }
    }
    if let Some(drops) = drops {
        loader.override_global("DROP_LAYOUT", &drops.layout, true);
        loader.override_global("DROP_IGNORED", &drops.ignored, true);
    }
    let ebpf = loader.load(&bytes).map_err(|error| explain(&error))?;
    Ok((ebpf, sizes, pins))
}

/// Clears `BPF_F_NO_PREALLOC` in the object's definition of a map, since aya takes no flags from whoever loads.
fn preallocate(object: &mut [u8], map: &str) -> Result<(), CaptureError> {
    const NO_PREALLOC: u8 = 1;
    /// Type, key and value size and entries stand before the flags (`struct bpf_map_def`).
    const FLAGS: u64 = 16;
    let place = || -> Option<usize> {
        let file = object::File::parse(&*object).ok()?;
        let section = file.section_by_name("maps")?;
        let symbol = file.symbols().find(|symbol| {
            symbol.section_index() == Some(section.index()) && symbol.name() == Ok(map)
        })?;
        let (start, _) = section.file_range()?;
        usize::try_from(start + symbol.address() + FLAGS).ok()
    };
    let flags = place().and_then(|place| object.get_mut(place));
    *flags.ok_or_else(|| missing(map))? &= !NO_PREALLOC;
    Ok(())
}

/// What aya says, or the capability that is missing.
fn explain(error: &EbpfError) -> CaptureError {
    permission(error).unwrap_or_else(|| failed("loading the kernel programs", error))
}

/// [`CaptureError::Permission`] if `error` comes down to EPERM or EACCES. The verifier says EACCES too,
/// but then with a log, so only errors without one count.
pub(super) fn permission(error: &(dyn std::error::Error + 'static)) -> Option<CaptureError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && matches!(io.raw_os_error(), Some(libc::EPERM))
        {
            return Some(CaptureError::missing(
                "loading the kernel programs",
                Backend::Ebpf,
            ));
        }
        next = error.source();
    }
    None
}

/// The raw map of that name.
pub(super) fn map_data<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a MapData, CaptureError> {
    if let Map::Array(data)
    | Map::PerCpuArray(data)
    | Map::HashMap(data)
    | Map::LruHashMap(data)
    | Map::LpmTrie(data)
    | Map::ProgramArray(data)
    | Map::RingBuf(data) = ebpf.map(name).ok_or_else(|| missing(name))?
    {
        Ok(data)
    } else {
        Err(missing(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only that one byte, and not of another map.
    #[test]
    fn a_map_of_the_object_is_preallocated() {
        let mut object = EMBEDDED.to_vec();
        preallocate(&mut object, "SLOT_MEMBERS").unwrap();
        let changed: Vec<_> = EMBEDDED
            .iter()
            .zip(&object)
            .filter(|(before, after)| before != after)
            .collect();
        assert_eq!(changed, [(&1, &0)]);
        assert!(preallocate(&mut object, "NONE").is_err());
    }
}
