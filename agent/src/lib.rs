//! flowproof proves from live traffic that a deployment follows its connectivity matrix.

pub mod matrix;
