//! flowproof proves from live traffic that a deployment follows its connectivity matrix.

pub mod capture;
pub mod matrix;
