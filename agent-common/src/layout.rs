//! What names the shape of everything that is pinned, so that a daemon never adopts maps of another shape.

use crate::key::FlowKey;

/// Raised whenever a record, a key, a map or the meaning of one of their bits changes.
pub const LAYOUT_VERSION: u32 = 7;

/// Bytes before the orders in the input of the kernel's `decide` program: a test run wants at least an
/// Ethernet header.
pub const DECIDE_HEADER: u32 = 14;
/// Most orders in one input of the `decide` program; bounded because its loop is unrolled by the verifier.
pub const DECIDE_ORDERS: u32 = 8;

/// What the `decide` program is to do about one flow; 48 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Order {
    /// The flow.
    pub key: FlowKey,
    /// Its counter slot by its name, for [`Order::NAME`].
    pub slot: u32,
    /// One of the constants.
    pub action: u32,
}
const _: () = assert!(size_of::<Order>() == 48);

impl Order {
    /// Decide what its silence means, and whether it is over.
    pub const DECIDE: u32 = 0;
    /// It is judged by its name: it counts for `slot`.
    pub const NAME: u32 = 1;
    /// What its name is read from was lost: it counts as unscoped, and as lost.
    pub const GIVE_UP: u32 = 2;
}
