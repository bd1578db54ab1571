//! Group `work.open-cluster-management.io`: what runs on a managed cluster, and what was applied there.

pub mod v1;
pub mod v1alpha1;

/// The API group of this module's kinds.
pub const GROUP: &str = "work.open-cluster-management.io";
