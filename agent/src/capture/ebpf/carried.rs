//! What flows have counted in all. A flow of many million packets has a part of them in a table of its own
//! ([`flowproof_common::entry::Carried`]); the kernel moves them there while the daemon reads, so the two are read until they
//! agree. What flows leave behind that were pushed out of their table is cleared away here, since no program sees them go.

use aya::maps::{HashMap, MapData, MapError};
use aya::{Ebpf, Pod};
use flowproof_common::entry::{Carried, FlowEntry};
use flowproof_common::key::FlowKey;
use flowproof_common::record::FlowRecord;

use super::super::CaptureError;
use super::{batch, failed, missing, object};

/// The tables that flows are in.
const FLOWS: [&str; 2] = ["VERIFIED", "UNVERIFIED"];
const CARRIED: &str = "CARRIED";

/// Tries to read both parts of a flow's numbers between two times that the kernel moves some: it does after eight million
/// packets.
const TRIES: u32 = 8;

fn table<'a, V: Pod>(
    ebpf: &'a Ebpf,
    name: &str,
) -> Result<HashMap<&'a MapData, FlowKey, V>, CaptureError> {
    let map = ebpf.map(name).ok_or_else(|| missing(name))?;
    HashMap::try_from(map).map_err(|error| failed("opening the flow tables", &error))
}

fn get<V: Pod>(
    table: &HashMap<&MapData, FlowKey, V>,
    key: &FlowKey,
) -> Result<Option<V>, CaptureError> {
    match table.get(key, 0) {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(failed("reading the flow tables", &error)),
    }
}

/// Calls `each` for every flow in the tables, with all that it has counted. Flows that come, go or change tables meanwhile may
/// be missed, or seen twice.
pub(super) fn each_flow(
    ebpf: &Ebpf,
    each: &mut dyn FnMut(&FlowKey, &FlowRecord),
) -> Result<(), CaptureError> {
    let mut of_several_parts = Vec::new();
    for name in FLOWS {
        let map = object::map_data(ebpf, name)?;
        batch::for_each::<FlowKey, FlowEntry>(map, |key, entry| {
            if entry.state.has_carried() {
                of_several_parts.push((name, *key, *entry));
            } else {
                each(key, &entry.record(&entry.totals()));
            }
        })
        .map_err(|error| failed("reading the flow tables", &error))?;
    }
    if of_several_parts.is_empty() {
        return Ok(());
    }
    let carried = table::<Carried>(ebpf, CARRIED)?;
    for (name, key, entry) in of_several_parts {
        each(&key, &sum(&carried, &table(ebpf, name)?, &key, entry)?);
    }
    Ok(())
}

/// Both parts of a flow that was `last` seen like this.
fn sum(
    carried: &HashMap<&MapData, FlowKey, Carried>,
    flows: &HashMap<&MapData, FlowKey, FlowEntry>,
    key: &FlowKey,
    mut last: FlowEntry,
) -> Result<FlowRecord, CaptureError> {
    let mut before = get(carried, key)?;
    for _ in 0..TRIES {
        // It may have ended since: then this was its last word.
        last = get(flows, key)?.unwrap_or(last);
        let after = get(carried, key)?;
        if after == before {
            break;
        }
        before = after;
    }
    let totals = before.map_or_else(|| last.totals(), |carried| carried.totals(&last));
    Ok(last.record(&totals))
}

/// Deletes what belongs to no flow. Whoever begins one between the same ends at this moment needs none for millions of packets.
pub(super) fn clear(ebpf: &mut Ebpf) -> Result<(), CaptureError> {
    let mut keys = Vec::new();
    batch::for_each::<FlowKey, Carried>(object::map_data(ebpf, CARRIED)?, |key, _| keys.push(*key))
        .map_err(|error| failed("reading the flow tables", &error))?;
    let mut left_behind = Vec::new();
    for key in keys {
        let mut known = false;
        for name in FLOWS {
            known |= get(&table::<FlowEntry>(ebpf, name)?, &key)?.is_some();
        }
        if !known {
            left_behind.push(key);
        }
    }
    if left_behind.is_empty() {
        return Ok(());
    }
    batch::delete(object::map_data(ebpf, CARRIED)?, &left_behind)
        .map_err(|error| failed("clearing the flow tables", &error))
}
