//! Group `multicluster.x-k8s.io` (KEP-4322): clusters as other tools see them.

pub mod v1alpha1;

/// The API group of this module's kinds.
pub const GROUP: &str = "multicluster.x-k8s.io";
