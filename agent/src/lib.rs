//! flowproof proves from live traffic that a deployment follows its connectivity matrix.
//!
//! What strangers send is read without `unsafe`: only `capture` may have any, for system calls, and not where it decodes.

pub mod capture;
#[forbid(unsafe_code)]
pub mod cli;
#[forbid(unsafe_code)]
pub mod config;
#[forbid(unsafe_code)]
pub mod draft;
#[forbid(unsafe_code)]
pub mod engine;
#[forbid(unsafe_code)]
pub mod events;
#[forbid(unsafe_code)]
pub mod export;
#[forbid(unsafe_code)]
pub mod finding;
#[forbid(unsafe_code)]
pub mod flow;
#[forbid(unsafe_code)]
pub mod import;
#[forbid(unsafe_code)]
pub mod ledger;
#[forbid(unsafe_code)]
pub mod matrix;
#[forbid(unsafe_code)]
pub mod names;
#[forbid(unsafe_code)]
mod plural;
#[forbid(unsafe_code)]
pub mod privilege;
#[forbid(unsafe_code)]
pub mod probe;
#[forbid(unsafe_code)]
pub mod report;
#[forbid(unsafe_code)]
pub mod service;
#[forbid(unsafe_code)]
pub mod site;
#[forbid(unsafe_code)]
pub mod suggest;
#[forbid(unsafe_code)]
pub mod verdict;
#[forbid(unsafe_code)]
pub mod web;
#[forbid(unsafe_code)]
pub mod yaml;
