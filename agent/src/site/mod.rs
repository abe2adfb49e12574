//! The site: which systems are deployed here, and which addresses, names and service tags their roles stand for.
//!
//! `model` holds the valid site, `read` makes it from YAML against the matrix that was read before.

mod model;
mod read;

pub use model::{RoleBinding, Site};
pub(crate) use read::SITE;
pub use read::SiteReading;
