//! Capture files, `flowproof replay`, `flowproof report` and `flowproof suggest`, on files that the tests write themselves.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod captures;
mod contract;
mod draft;
mod explained;
mod files;
mod ledger;
mod report;
mod suggest;
mod tags;
