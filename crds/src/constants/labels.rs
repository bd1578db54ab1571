//! Label keys and values.

/// The cluster an object at the hub belongs to; empty on what all clusters share.
pub const CLUSTER_NAME: &str = "open-cluster-management.io/cluster-name";
/// The one exclusive set a cluster is in.
pub const CLUSTER_SET: &str = "cluster.open-cluster-management.io/clusterset";
/// The add-on a CSR or a work belongs to.
pub const ADDON_NAME: &str = "open-cluster-management.io/addon-name";
/// The namespace of the add-on a hosted work belongs to.
pub const ADDON_NAMESPACE: &str = "open-cluster-management.io/addon-namespace";
/// Prefix of the labels on a ManagedCluster that tell an add-on's health; the add-on's name follows.
pub const ADDON_FEATURE_PREFIX: &str = "feature.open-cluster-management.io/addon-";
/// Value of a feature label: the add-on works.
pub const ADDON_FEATURE_AVAILABLE: &str = "available";
/// Value of a feature label: the add-on does not work.
pub const ADDON_FEATURE_UNHEALTHY: &str = "unhealthy";
/// Value of a feature label: nobody knows.
pub const ADDON_FEATURE_UNREACHABLE: &str = "unreachable";
/// On a ClusterClaim or ClusterProperty, any value: not reported to the hub.
pub const SPOKE_ONLY: &str = "open-cluster-management.io/spoke-only";
/// Prefix of the label on namespaces kept for a cluster set; the first 63 characters of the hub's hash follow.
pub const CLUSTER_SET_NAMESPACE_PREFIX: &str = "clusterset.open-cluster-management.io/";
/// The placement a PlacementDecision belongs to.
pub const PLACEMENT: &str = "cluster.open-cluster-management.io/placement";
/// Index of a PlacementDecision's group.
pub const DECISION_GROUP_INDEX: &str = "cluster.open-cluster-management.io/decision-group-index";
/// Name of a PlacementDecision's group.
pub const DECISION_GROUP_NAME: &str = "cluster.open-cluster-management.io/decision-group-name";
/// The ManifestWorkReplicaSet a work belongs to, as `<namespace>.<name>`.
pub const REPLICA_SET: &str = "work.open-cluster-management.io/manifestworkreplicaset";
/// The placement a replica set's work was made for.
pub const REPLICA_SET_PLACEMENT: &str = "work.open-cluster-management.io/placementname";
/// On ClusterRoles whose rules the work agent gets, value `true`.
pub const AGGREGATE_TO_WORK: &str = "open-cluster-management.io/aggregate-to-work";
/// The add-on a token infrastructure object belongs to.
pub const ADDON_TOKEN_NAME: &str = "addon.open-cluster-management.io/name";
/// On objects an add-on gets its hub token by, value `true`.
pub const ADDON_TOKEN_INFRASTRUCTURE: &str = "addon.open-cluster-management.io/token-infrastructure";
/// Deprecated form of `annotations::ADDON_PRE_DELETE`.
pub const ADDON_PRE_DELETE: &str = "open-cluster-management.io/addon-pre-delete";
/// Deprecated form of `annotations::HOSTED_MANIFEST_LOCATION`.
pub const HOSTED_MANIFEST_LOCATION: &str = "addon.open-cluster-management.io/hosted-manifest-location";
/// Who manages a ClusterProfile.
pub const CLUSTER_MANAGER: &str = "x-k8s.io/cluster-manager";
/// Value of [`CLUSTER_MANAGER`] and name of a ClusterProfile's manager.
pub const CLUSTER_MANAGER_NAME: &str = "open-cluster-management";
/// Muster's own: on every object the klusterlet applied and owns, so that one selected watch a kind sees them all.
pub const APPLIED: &str = "muster.open-cluster-management.io/applied";
/// Muster's own: hash of the manifest that an object was last written from. A label, since a change of annotations moves the
/// generation of a Deployment, and is copied to its ReplicaSets.
pub const OBJECT_HASH: &str = "muster.open-cluster-management.io/object-hash";
/// Kubernetes' own: who keeps an object as it is.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`] on what the hub keeps.
pub const MANAGED_BY_HUB: &str = "muster-hub";
/// Muster's own: on the works that are one bundle because one would be too large; its name, which the first work has too.
pub const BUNDLE: &str = "work.muster.open-cluster-management.io/bundle";
/// Muster's own: which work of its bundle it is, from 1.
pub const BUNDLE_PART: &str = "work.muster.open-cluster-management.io/part";
/// Muster's own: on the Secrets of join tokens, value `true`.
pub const JOIN_TOKEN: &str = "muster.open-cluster-management.io/join-token";
