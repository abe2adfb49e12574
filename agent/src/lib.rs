//! flowproof proves from live traffic that a deployment follows its connectivity matrix.

pub mod capture;
pub mod cli;
pub mod config;
pub mod draft;
pub mod engine;
pub mod events;
pub mod export;
pub mod finding;
pub mod flow;
pub mod import;
pub mod ledger;
pub mod matrix;
pub mod names;
mod plural;
pub mod probe;
pub mod report;
pub mod site;
pub mod suggest;
pub mod verdict;
pub mod web;
pub mod yaml;
