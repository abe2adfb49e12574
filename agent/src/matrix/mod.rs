//! The connectivity matrix: what a vendor's "firewall requirements" table says, as valid types.
//!
//! `model`, `id`, `service` and `binding` hold the types; they know nothing of files. `read` makes them from YAML, `check`
//! finds what a valid system still leaves open. `compile` makes look-up tables of matrix and site, which `compiled`
//! holds, rules in a `rule_table` and short lists in `lists`; `installed` gives their rule sets counter slots, which
//! `directory` knows. Nothing here knows of packets, clocks or the network.

pub mod binding;
mod check;
pub mod compile;
pub mod compiled;
pub mod directory;
pub mod id;
pub mod installed;
pub mod lists;
pub mod model;
mod public_suffix;
mod read;
pub mod rule_table;
pub mod schema;
pub mod service;
mod tag_use;

pub use binding::{Binding, BindingError, NamePattern};
pub use id::{IdError, RequirementId, RoleId, SystemId};
pub use model::{
    BuiltInRole, Direction, Document, Matrix, Necessity, Provenance, Requirement, RequirementIndex,
    Role, RoleIndex, RoleRef, ServiceIndex, ServiceKey, System, SystemIndex,
};
pub use read::MatrixReading;
pub(crate) use read::bindings;
pub use service::{Protocol, Service, ServiceError};
pub use tag_use::{TagUse, UsedBy};
