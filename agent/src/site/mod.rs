//! The site: which systems are deployed here, and which addresses, names and service tags their roles stand for.
//!
//! `model` holds the valid site, `read` makes it from YAML against the matrix that was read before. `tags` reads what
//! the service tags stand for that sites and packs name.

mod model;
mod read;
pub mod schema;
pub mod tags;

pub use model::{RoleBinding, Site};
pub use read::SiteReading;
