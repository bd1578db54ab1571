//! Reasons of conditions, by the kind that carries them.

// ManagedCluster

/// HubAccepted True: an administrator accepted the cluster.
pub const HUB_ACCEPTED: &str = "HubClusterAdminAccepted";
/// HubAccepted False: an administrator denied the cluster.
pub const HUB_DENIED: &str = "HubClusterAdminDenied";
/// HubAccepted False: what accepting needs could not be written.
pub const ERROR: &str = "Error";
/// Joined True.
pub const JOINED: &str = "ManagedClusterJoined";
/// Available True: its API server answers.
pub const CLUSTER_AVAILABLE: &str = "ManagedClusterAvailable";
/// Available False: its API server does not answer.
pub const KUBE_API_SERVER_UNAVAILABLE: &str = "ManagedClusterKubeAPIServerUnavailable";
/// Available Unknown: the agent stopped renewing its lease.
pub const LEASE_UPDATE_STOPPED: &str = "ManagedClusterLeaseUpdateStopped";
/// ClockSynced True.
pub const CLOCK_SYNCED: &str = "ManagedClusterClockSynced";
/// ClockSynced False.
pub const CLOCK_OUT_OF_SYNC: &str = "ManagedClusterClockOutOfSync";
/// ClusterCertificateRotated True.
pub const CLIENT_CERTIFICATE_UPDATED: &str = "ClientCertificateUpdated";
/// ClusterCertificateRotated False.
pub const CLIENT_CERTIFICATE_UPDATE_FAILED: &str = "ClientCertificateUpdateFailed";
/// Deleting False: something of the cluster is left.
pub const RESOURCE_REMAINING: &str = "ResourceRemaining";
/// Deleting False: something could not be deleted.
pub const DELETING_ERROR: &str = "DeletingError";
/// Deleting True: nothing of the cluster is left.
pub const NO_RESOURCE: &str = "NoResource";
/// ManagedClusterImportSucceeded True.
pub const IMPORT_SUCCEED: &str = "ImportSucceed";
/// ManagedClusterImportSucceeded False: the kubeconfig could not be read.
pub const KUBECONFIG_GET_FAILED: &str = "KubeConfigGetFailed";
/// ManagedClusterImportSucceeded False: there is no kubeconfig.
pub const KUBECONFIG_NOT_FOUND: &str = "KubeConfigNotFound";
/// ManagedClusterImportSucceeded False: the agent's manifests could not be made.
pub const CONFIG_RENDERER_FAILED: &str = "ConfigRendererFailed";
/// ManagedClusterImportSucceeded False: the agent's manifests could not be applied.
pub const IMPORT_FAILED: &str = "ImportFailed";
/// NamespaceAvailable True.
pub const NAMESPACE_APPLIED: &str = "NamespaceApplied";
/// NamespaceAvailable False.
pub const NAMESPACE_APPLY_FAILED: &str = "NamespaceApplyFailed";

// CertificateSigningRequest

/// Approved: the hub's controller approved.
pub const CSR_AUTO_APPROVED: &str = "AutoApprovedByHubCSRApprovingController";
/// Denied, and JoinRefused, Muster's own: the join token does not allow it.
pub const CSR_TOKEN_REFUSED: &str = "JoinTokenRefused";
/// JoinRefused, Muster's own: it got a certificate meanwhile.
pub const CERTIFICATE_ISSUED: &str = "CertificateIssued";
/// Denied, and JoinRefused, Muster's own: no cluster can have that name.
pub const CSR_CLUSTER_NAME_RESERVED: &str = "ClusterNameReserved";
/// Denied, Muster's own: another agent of that cluster is alive.
pub const CSR_CLUSTER_NAME_TAKEN: &str = "ClusterNameTaken";
/// Denied, Muster's own: the hub's administrator keeps the cluster out.
pub const CSR_CLUSTER_DENIED: &str = "ClusterDenied";

// ManagedClusterSet and ManagedClusterSetBinding

/// ClusterSetEmpty True.
pub const NO_CLUSTER_MATCHED: &str = "NoClusterMatched";
/// ClusterSetEmpty False.
pub const CLUSTERS_SELECTED: &str = "ClustersSelected";
/// Bound True.
pub const CLUSTER_SET_BOUND: &str = "ClusterSetBound";
/// Bound False.
pub const CLUSTER_SET_NOT_FOUND: &str = "ClusterSetNotFound";

// Placement

/// PlacementSatisfied True.
pub const ALL_DECISIONS_SCHEDULED: &str = "AllDecisionsScheduled";
/// PlacementSatisfied False: no set is bound to the namespace.
pub const NO_MANAGED_CLUSTER_SET_BINDINGS: &str = "NoManagedClusterSetBindings";
/// PlacementSatisfied False: none of the named sets is bound to the namespace.
pub const NO_INTERSECTION: &str = "NoIntersection";
/// PlacementSatisfied False: the sets have no cluster.
pub const ALL_MANAGED_CLUSTER_SETS_EMPTY: &str = "AllManagedClusterSetsEmpty";
/// PlacementSatisfied False: no cluster matches the predicates.
pub const NO_MANAGED_CLUSTER_MATCHED: &str = "NoManagedClusterMatched";
/// PlacementSatisfied False: fewer clusters than wanted.
pub const NOT_ALL_DECISIONS_SCHEDULED: &str = "NotAllDecisionsScheduled";
/// PlacementMisconfigured True.
pub const MISCONFIGURED: &str = "Misconfigured";
/// PlacementMisconfigured False (spelled so on the wire).
pub const SUCCEED_CONFIGURED: &str = "Succeedconfigured";

// ManifestWork

/// Applied True, of the work.
pub const APPLIED_MANIFEST_WORK_COMPLETE: &str = "AppliedManifestWorkComplete";
/// Applied False, of the work.
pub const APPLIED_MANIFEST_WORK_FAILED: &str = "AppliedManifestWorkFailed";
/// Available True, of the work.
pub const RESOURCES_AVAILABLE: &str = "ResourcesAvailable";
/// Available False, of the work.
pub const RESOURCES_NOT_AVAILABLE: &str = "ResourcesNotAvailable";
/// Available Unknown, of the work.
pub const RESOURCES_STATUS_UNKNOWN: &str = "ResourcesStatusUnknown";
/// A condition summed up from the manifests' rules.
pub const CONDITION_RULES_AGGREGATED: &str = "ConditionRulesAggregated";
/// Deleting True.
pub const WORK_DELETING: &str = "WorkDeleting";
/// Deleted True.
pub const MANIFESTS_DELETED: &str = "ManifestsDeleted";
/// Applied True, of a manifest.
pub const APPLIED_MANIFEST_COMPLETE: &str = "AppliedManifestComplete";
/// Applied False, of a manifest.
pub const APPLIED_MANIFEST_FAILED: &str = "AppliedManifestFailed";
/// Applied False: the fields to ignore could not be removed.
pub const APPLIED_MANIFEST_SSA_IGNORE_FIELD_ERROR: &str = "AppliedManifestSSAIgnoreFieldError";
/// Available True, of a manifest.
pub const RESOURCE_AVAILABLE: &str = "ResourceAvailable";
/// Available False, of a manifest.
pub const RESOURCE_NOT_AVAILABLE: &str = "ResourceNotAvailable";
/// Available Unknown: the object could not be read.
pub const FETCHING_RESOURCE_FAILED: &str = "FetchingResourceFailed";
/// Available Unknown: the object is not fully named.
pub const INCOMPLETE_RESOURCE_META: &str = "IncompleteResourceMeta";
/// StatusFeedbackSynced True: no value is asked for.
pub const NO_STATUS_FEEDBACK_SYNCED: &str = "NoStatusFeedbackSynced";
/// StatusFeedbackSynced True.
pub const STATUS_FEEDBACK_SYNCED: &str = "StatusFeedbackSynced";
/// StatusFeedbackSynced False.
pub const STATUS_FEEDBACK_SYNC_FAILED: &str = "StatusFeedbackSyncFailed";
/// A rule gave the condition.
pub const CONDITION_RULE_EVALUATED: &str = "ConditionRuleEvaluated";
/// A rule's type is not known.
pub const CONDITION_RULE_INVALID: &str = "ConditionRuleInvalid";
/// A rule's expression is wrong or failed.
pub const CONDITION_RULE_EXPRESSION_ERROR: &str = "ConditionRuleExpressionError";
/// A rule could not be run.
pub const CONDITION_RULE_INTERNAL_ERROR: &str = "ConditionRuleInternalError";
/// Muster's own. Progressing True, of a manifest: its object is not yet what it should be.
pub const WORKLOAD_PROGRESSING: &str = "WorkloadProgressing";
/// Muster's own. Progressing or Degraded False, of a manifest: its object is what it should be.
pub const WORKLOAD_CURRENT: &str = "WorkloadCurrent";
/// Muster's own. Degraded True, of a manifest: its object says that something is wrong.
pub const WORKLOAD_DEGRADED: &str = "WorkloadDegraded";
/// Muster's own. Degraded True: another field manager keeps changing what the work says.
pub const CONTENDED: &str = "Contended";
/// Muster's own. Degraded True, of the work: something that the work does not have any more can not be removed.
pub const REMOVAL_FAILED: &str = "RemovalFailed";
/// Muster's own. Progressing True, of the work: not all manifests are applied.
pub const MANIFESTS_NOT_APPLIED: &str = "ManifestsNotApplied";
/// Muster's own. Progressing True, of the work.
pub const MANIFESTS_PROGRESSING: &str = "ManifestsProgressing";
/// Muster's own. Progressing or Degraded False, of the work.
pub const MANIFESTS_CURRENT: &str = "ManifestsCurrent";
/// Muster's own. Degraded True, of the work.
pub const MANIFESTS_DEGRADED: &str = "ManifestsDegraded";
/// Muster's own. Drifted True: the object differs from its manifest, and the work says only to report it.
pub const DRIFTED: &str = "Drifted";
/// Muster's own. Drifted False.
pub const IN_SYNC: &str = "InSync";
/// Muster's own. Applied False, of a manifest: the object is there, is not ours, and is not to be taken over.
pub const NOT_TAKEN_OVER: &str = "NotTakenOver";
/// Muster's own. Applied False, of a manifest: the object is being deleted, and is made again once it is gone.
pub const TERMINATING: &str = "Terminating";

/// Muster's own. WorksKept, RemovalHeld True: works were gone from the hub without having been deleted.
pub const WORKS_GONE: &str = "WorksGone";
/// Muster's own. WorksKept, RemovalHeld True: the hub was restored from an older backup.
pub const HUB_RESTORED: &str = "HubRestored";
/// Muster's own. WorksKept, RemovalHeld True: it is another hub, or has another work of the same name.
pub const HUB_REPLACED: &str = "HubReplaced";
/// Muster's own. DryRun True: the answer is in the message.
pub const DRY_RUN_DONE: &str = "DryRunDone";
/// Muster's own. DryRun False: there is no answer, the message says why.
pub const DRY_RUN_FAILED: &str = "DryRunFailed";

// ManifestWorkReplicaSet

/// PlacementVerified, ManifestworkApplied True.
pub const AS_EXPECTED: &str = "AsExpected";
/// PlacementVerified, ManifestworkApplied False.
pub const NOT_AS_EXPECTED: &str = "NotAsExpected";
/// PlacementVerified False: no decision.
pub const PLACEMENT_DECISION_NOT_FOUND: &str = "PlacementDecisionNotFound";
/// PlacementVerified, ManifestworkApplied False: no cluster decided.
pub const PLACEMENT_DECISION_EMPTY: &str = "PlacementDecisionEmpty";
/// ManifestworkApplied False: under way.
pub const PROCESSING: &str = "Processing";
/// PlacementRolledOut True.
pub const COMPLETE: &str = "Complete";
/// PlacementRolledOut False; Progressing True of an add-on.
pub const PROGRESSING: &str = "Progressing";
/// ManifestworkApplied False: namespace and name are too long for a label.
pub const INVALID_MANIFEST_WORK_NAME: &str = "InvalidManifestWorkName";

// ManagedClusterAddOn

/// Available True, by lease.
pub const ADDON_LEASE_UPDATED: &str = "ManagedClusterAddOnLeaseUpdated";
/// Available False, by lease.
pub const ADDON_LEASE_UPDATE_STOPPED: &str = "ManagedClusterAddOnLeaseUpdateStopped";
/// Available Unknown, by lease.
pub const ADDON_LEASE_NOT_FOUND: &str = "ManagedClusterAddOnLeaseNotFound";
/// Available Unknown: there is no work.
pub const WORK_NOT_FOUND: &str = "WorkNotFound";
/// Available False: a work failed.
pub const WORK_APPLY_FAILED: &str = "WorkApplyFailed";
/// Available Unknown: a work is not applied yet.
pub const WORK_NOT_APPLIED: &str = "WorkNotApplied";
/// Available True, by its works.
pub const WORK_APPLIED: &str = "WorkApplied";
/// Available Unknown: no feedback yet.
pub const NO_PROBE_RESULT: &str = "NoProbeResult";
/// Available False, by probe.
pub const PROBE_UNAVAILABLE: &str = "ProbeUnavailable";
/// Available True, by probe.
pub const PROBE_AVAILABLE: &str = "ProbeAvailable";
/// ManifestApplied True.
pub const ADDON_MANIFEST_APPLIED: &str = "AddonManifestApplied";
/// ManifestApplied False: applying failed on the cluster.
pub const ADDON_MANIFEST_APPLIED_FAILED: &str = "AddonManifestAppliedFailed";
/// ManifestApplied False: the work could not be written.
pub const MANIFEST_WORK_APPLY_FAILED: &str = "ManifestWorkApplyFailed";
/// HostingClusterValidity True.
pub const HOSTING_CLUSTER_VALID: &str = "HostingClusterValid";
/// HostingClusterValidity False.
pub const HOSTING_CLUSTER_INVALID: &str = "HostingClusterInvalid";
/// HookManifestCompleted True.
pub const HOOK_MANIFEST_IS_COMPLETED: &str = "HookManifestIsCompleted";
/// HookManifestCompleted False.
pub const HOOK_MANIFEST_IS_NOT_COMPLETED: &str = "HookManifestIsNotCompleted";
/// Configured True.
pub const CONFIGURATIONS_CONFIGURED: &str = "ConfigurationsConfigured";
/// Configured False.
pub const CONFIGURATIONS_NOT_CONFIGURED: &str = "ConfigurationsNotConfigured";
/// Progressing True: its work is not applied yet.
pub const WAITING_FOR_MANIFEST_APPLIED: &str = "WaitingForManifestApplied";
/// Progressing True: its hosted work is not applied yet.
pub const WAITING_FOR_HOSTING_MANIFEST_APPLIED: &str = "WaitingForHostingManifestApplied";
/// Progressing True: earlier clusters come first.
pub const WAITING_FOR_CANARY: &str = "WaitingForCanary";
/// Progressing False: done.
pub const COMPLETED: &str = "Completed";
/// Progressing False: failed.
pub const FAILED: &str = "Failed";
/// Progressing False: a configuration of an unsupported type.
pub const CONFIGURATION_UNSUPPORTED: &str = "ConfigurationUnsupported";
/// RegistrationApplied True.
pub const SET_PERMISSION_APPLIED: &str = "SetPermissionApplied";
/// RegistrationApplied True: it does not register.
pub const NIL_REGISTRATION: &str = "NilRegistration";
/// RegistrationApplied False.
pub const SET_PERMISSION_FAILED: &str = "SetPermissionFailed";
/// RegistrationApplied False: not yet.
pub const PERMISSION_CONFIG_PENDING: &str = "PermissionConfigPending";
