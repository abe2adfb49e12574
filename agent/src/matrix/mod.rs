//! The connectivity matrix: what a vendor's "firewall requirements" table says, as valid types.
//!
//! `model`, `id`, `service` and `binding` hold the types; they know nothing of files. Nothing here knows of packets,
//! clocks or the network.

pub mod binding;
pub mod id;
pub mod model;
pub mod service;

pub use binding::{Binding, BindingError, NamePattern};
pub use id::{IdError, RequirementId, RoleId, SystemId};
pub use model::{
    BuiltInRole, Direction, Document, Matrix, Necessity, Provenance, Requirement, RequirementIndex,
    Role, RoleIndex, RoleRef, ServiceIndex, ServiceKey, System, SystemIndex,
};
pub use service::{Protocol, Service, ServiceError};
