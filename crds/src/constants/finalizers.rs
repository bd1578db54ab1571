//! Finalizers.

/// ManagedCluster: its RBAC goes first.
pub const MANAGED_CLUSTER: &str = "cluster.open-cluster-management.io/api-resource-cleanup";
/// ManagedCluster: its add-ons and works go first.
pub const MANAGED_CLUSTER_RESOURCES: &str = "cluster.open-cluster-management.io/resource-cleanup";
/// ManifestWork, and the RoleBinding that lets the agent finish: the applied objects go first.
pub const MANIFEST_WORK: &str = "cluster.open-cluster-management.io/manifest-work-cleanup";
/// AppliedManifestWork: the objects it owns go first.
pub const APPLIED_MANIFEST_WORK: &str = "cluster.open-cluster-management.io/applied-manifest-work-cleanup";
/// ManifestWorkReplicaSet: its works go first.
pub const MANIFEST_WORK_REPLICA_SET: &str = "work.open-cluster-management.io/manifest-work-cleanup";
/// ManagedClusterAddOn: its pre-delete hooks run first.
pub const ADDON_PRE_DELETE: &str = "addon.open-cluster-management.io/addon-pre-delete";
/// ManagedClusterAddOn, hosted: its pre-delete hooks on the hosting cluster run first.
pub const ADDON_HOSTING_PRE_DELETE: &str = "addon.open-cluster-management.io/hosting-addon-pre-delete";
/// ManagedClusterAddOn, hosted: its manifests on the hosting cluster go first.
pub const ADDON_HOSTING_MANIFESTS: &str = "addon.open-cluster-management.io/hosting-manifests-cleanup";
/// Deprecated form of [`ADDON_PRE_DELETE`], only ever removed.
pub const DEPRECATED_ADDON_PRE_DELETE: &str = "cluster.open-cluster-management.io/addon-pre-delete";
/// Deprecated form of [`ADDON_HOSTING_PRE_DELETE`], only ever removed.
pub const DEPRECATED_ADDON_HOSTING_PRE_DELETE: &str =
    "cluster.open-cluster-management.io/hosting-addon-pre-delete";
/// Deprecated form of [`ADDON_HOSTING_MANIFESTS`], only ever removed.
pub const DEPRECATED_ADDON_HOSTING_MANIFESTS: &str =
    "cluster.open-cluster-management.io/hosting-manifests-cleanup";
