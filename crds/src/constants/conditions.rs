//! Condition types.

/// ManagedCluster: the hub lets it in.
pub const HUB_ACCEPTED: &str = "HubAcceptedManagedCluster";
/// ManagedCluster: the hub keeps it out. Part of the API, never set.
pub const HUB_DENIED: &str = "HubDeniedManagedCluster";
/// ManagedCluster: its agent came with its own credentials.
pub const JOINED: &str = "ManagedClusterJoined";
/// ManagedCluster: its API server answers.
pub const CLUSTER_AVAILABLE: &str = "ManagedClusterConditionAvailable";
/// ManagedCluster: its clock agrees with the hub's.
pub const CLOCK_SYNCED: &str = "ManagedClusterConditionClockSynced";
/// ManagedCluster, ManagedClusterAddOn: the last certificate rotation worked.
pub const CERTIFICATE_ROTATED: &str = "ClusterCertificateRotated";
/// ManagedCluster, ManifestWork: it is being deleted.
pub const DELETING: &str = "Deleting";
/// ManifestWork, only over CloudEvents: its objects are gone.
pub const DELETED: &str = "Deleted";
/// ManagedCluster: the importer installed the agent.
pub const IMPORT_SUCCEEDED: &str = "ManagedClusterImportSucceeded";
/// A managed namespace of a cluster exists.
pub const NAMESPACE_AVAILABLE: &str = "NamespaceAvailable";

/// ManagedClusterSet: it has no cluster.
pub const CLUSTER_SET_EMPTY: &str = "ClusterSetEmpty";
/// ManagedClusterSetBinding: its set exists.
pub const BOUND: &str = "Bound";
/// Placement: as many clusters as wanted.
pub const PLACEMENT_SATISFIED: &str = "PlacementSatisfied";
/// Placement: something in it makes no sense.
pub const PLACEMENT_MISCONFIGURED: &str = "PlacementMisconfigured";

/// ManifestWork and each of its manifests: applied.
pub const APPLIED: &str = "Applied";
/// ManifestWork, its manifests, ManagedClusterAddOn: there (and, for an add-on, healthy).
pub const AVAILABLE: &str = "Available";
/// ManifestWork: finished, from condition rules.
pub const COMPLETE: &str = "Complete";
/// ManifestWork (from condition rules), ManagedClusterAddOn: on its way.
pub const PROGRESSING: &str = "Progressing";
/// ManifestWork (from condition rules), ManagedClusterAddOn: not as good as it should be.
pub const DEGRADED: &str = "Degraded";
/// Muster's own. ManifestWork and its manifests, under the drift annotation's `Report`: the object differs.
pub const DRIFTED: &str = "Drifted";
/// Muster's own. ManifestWork: nothing that it applied before is removed for now, because the hub is not what it was.
pub const REMOVAL_HELD: &str = "RemovalHeld";
/// Muster's own. ManifestWork that asks what applying it would change: the answer, as JSON in the message.
pub const DRY_RUN: &str = "DryRun";
/// Muster's own. ManagedCluster: a request for its first certificate was denied, and why.
pub const JOIN_REFUSED: &str = "JoinRefused";
/// Muster's own. ManagedCluster: works that are applied on it are not at the hub, and what they applied stays for now.
pub const WORKS_KEPT: &str = "WorksKept";
/// A manifest: its feedback values are current.
pub const STATUS_FEEDBACK_SYNCED: &str = "StatusFeedbackSynced";

/// ManifestWorkReplicaSet: its placements have decisions.
pub const PLACEMENT_VERIFIED: &str = "PlacementVerified";
/// ManifestWorkReplicaSet: the rollout is through.
pub const PLACEMENT_ROLLED_OUT: &str = "PlacementRolledOut";
/// ManifestWorkReplicaSet: its works are applied.
pub const MANIFESTWORK_APPLIED: &str = "ManifestworkApplied";

/// ManagedClusterAddOn: its configuration is chosen.
pub const CONFIGURED: &str = "Configured";
/// ManagedClusterAddOn: its manifests are applied.
pub const MANIFEST_APPLIED: &str = "ManifestApplied";
/// ManagedClusterAddOn: its pre-delete hooks ran.
pub const HOOK_MANIFEST_COMPLETED: &str = "HookManifestCompleted";
/// ManagedClusterAddOn: its manifests on the hosting cluster are applied.
pub const HOSTING_MANIFEST_APPLIED: &str = "HostingManifestApplied";
/// ManagedClusterAddOn: its hosting cluster is one.
pub const HOSTING_CLUSTER_VALIDITY: &str = "HostingClusterValidity";
/// ManagedClusterAddOn: what its agent may do at the hub is set.
pub const REGISTRATION_APPLIED: &str = "RegistrationApplied";
/// ManagedClusterAddOn: its hub token is fresh.
pub const TOKEN_REFRESHED: &str = "TokenRefreshed";
/// ManagedClusterAddOn: the service account its token comes from is there.
pub const TOKEN_INFRASTRUCTURE_READY: &str = "TokenInfrastructureReady";

/// ClusterProfile: mirrors the cluster's availability.
pub const CONTROL_PLANE_HEALTHY: &str = "ControlPlaneHealthy";
/// ClusterProfile: mirrors that the cluster joined.
pub const PROFILE_JOINED: &str = "Joined";

/// CertificateSigningRequest: approved.
pub const CSR_APPROVED: &str = "Approved";
/// CertificateSigningRequest: somebody refused it.
pub const CSR_DENIED: &str = "Denied";
