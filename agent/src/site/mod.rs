//! The site: which systems are deployed here, and which addresses, names and service tags their roles stand for.
//!
//! `model` holds the valid site, `read` makes it from YAML against the matrix that was read before.

mod model;
mod read;
pub mod schema;

pub use model::{RoleBinding, Site};
pub use read::SiteReading;
