//! Says which records may be copied byte by byte between the kernel and the daemon.

#![expect(
    unsafe_code,
    reason = "`aya::Pod` is an unsafe marker; the asserts beside each type keep its promise"
)]

use crate::classify::{PrefixKey, RuleKey};
use crate::drops::{DropLayout, IgnoredReasons};
use crate::entry::{Carried, FlowEntry};
use crate::key::{FlowKey, FragmentKey, FragmentPorts};
use crate::layout::Order;
use crate::payload::PayloadHead;
use crate::record::{Event, InterfaceCounters, Settings, SlotFlows, SlotTraffic};

// SAFETY: all are `#[repr(C)]`, hold integers and arrays of them only, and spell out their padding, so
// that every bit pattern is a valid value and every byte is initialised.
unsafe impl aya::Pod for FlowKey {}
// SAFETY: as above.
unsafe impl aya::Pod for FragmentKey {}
// SAFETY: as above.
unsafe impl aya::Pod for FragmentPorts {}
// SAFETY: as above.
unsafe impl aya::Pod for FlowEntry {}
// SAFETY: as above.
unsafe impl aya::Pod for Carried {}
// SAFETY: as above.
unsafe impl aya::Pod for SlotTraffic {}
// SAFETY: as above.
unsafe impl aya::Pod for SlotFlows {}
// SAFETY: as above.
unsafe impl aya::Pod for InterfaceCounters {}
// SAFETY: as above.
unsafe impl aya::Pod for Settings {}
// SAFETY: as above.
unsafe impl aya::Pod for RuleKey {}
// SAFETY: as above.
unsafe impl aya::Pod for PrefixKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Event {}
// SAFETY: as above.
unsafe impl aya::Pod for Order {}
// SAFETY: as above.
unsafe impl aya::Pod for PayloadHead {}
// SAFETY: as above.
unsafe impl aya::Pod for DropLayout {}
// SAFETY: as above.
unsafe impl aya::Pod for IgnoredReasons {}
