//! What names the shape of everything that is pinned, so that a daemon never adopts maps of another shape.

/// Raised whenever a record, a key, a map or the meaning of one of their bits changes.
pub const LAYOUT_VERSION: u32 = 2;

/// Bytes before the keys in the input of the kernel's `decide` program: a test run wants at least an
/// Ethernet header.
pub const DECIDE_HEADER: u32 = 14;
/// Most keys in one input of the `decide` program; bounded because its loop is unrolled by the verifier.
pub const DECIDE_KEYS: u32 = 8;
