//! Capture files and `flowproof replay`, on files that the tests write themselves.

mod captures;
mod contract;
mod files;
