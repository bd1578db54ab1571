//! Group `cluster.open-cluster-management.io`: clusters, sets of clusters, placement.

pub mod v1;
pub mod v1alpha1;
pub mod v1beta1;
pub mod v1beta2;

/// The API group of this module's kinds.
pub const GROUP: &str = "cluster.open-cluster-management.io";
