//! Reading YAML files: bytes to a tree of nodes that know their place.
//!
//! serde stops at the first error. The files of flowproof are written by hand, so all errors of a file are reported
//! at once; that takes a tree with places, and readers that go on after an error. `source` is the text, `tree` the
//! parser's events as a tree, `fields` what a reader needs to take a mapping apart, `report` collects what it finds.

mod fields;
mod load;
mod nearest;
mod report;
mod source;
mod tree;

pub use fields::{Fields, Keys, choice, list, text, whole_number};
pub use load::{LoadError, MAX_FILE_BYTES, load};
pub use nearest::nearest;
pub use report::Reporter;
pub use source::{Source, Span};
pub use tree::{MAX_ALIASED_NODES, MAX_DEPTH, MAX_NODES, Node, Value, parse};
