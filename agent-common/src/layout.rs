//! What names the shape of everything that is pinned, so that a daemon never adopts maps of another shape.

/// Raised whenever a record, a key, a map or the meaning of one of their bits changes.
pub const LAYOUT_VERSION: u32 = 1;
