//! Group `cluster.open-cluster-management.io`: clusters, sets of clusters, placement.

pub mod v1;

/// The API group of this module's kinds.
pub const GROUP: &str = "cluster.open-cluster-management.io";
