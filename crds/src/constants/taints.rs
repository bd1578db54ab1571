//! Taints the hub puts on clusters, both with effect NoSelect.

/// The cluster's API server is not available.
pub const UNAVAILABLE: &str = "cluster.open-cluster-management.io/unavailable";
/// Nothing is heard of the cluster.
pub const UNREACHABLE: &str = "cluster.open-cluster-management.io/unreachable";
