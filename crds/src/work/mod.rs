//! Group `work.open-cluster-management.io`: what runs on a managed cluster, and what was applied there.

mod size;
pub mod v1;
pub mod v1alpha1;

pub use size::{MANIFEST_LIMIT, manifest_size};

/// The API group of this module's kinds.
pub const GROUP: &str = "work.open-cluster-management.io";
