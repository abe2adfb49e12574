//! flowproof
fn main() {}
