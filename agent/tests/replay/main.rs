//! Capture files, `flowproof replay` and `flowproof report`, on files that the tests write themselves.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod captures;
mod contract;
mod draft;
mod explained;
mod files;
mod ledger;
mod report;
mod tags;
