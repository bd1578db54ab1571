//! Names and paths of admission webhooks. The policies that say the same have the same names.

/// Refuses ManagedClusters: policy, webhook and configuration.
pub const CLUSTER_VALIDATORS: &str = "managedclustervalidators.admission.cluster.open-cluster-management.io";
/// Completes ManagedClusters: webhook and configuration.
pub const CLUSTER_MUTATORS: &str = "managedclustermutators.admission.cluster.open-cluster-management.io";
/// Refuses ManagedClusterSetBindings: policy, webhook and configuration.
pub const BINDING_VALIDATORS: &str =
    "managedclustersetbindingvalidators.admission.cluster.open-cluster-management.io";
/// Muster's own: refuses certificate requests in the name of another cluster; a policy alone.
pub const REQUEST_VALIDATORS: &str =
    "certificaterequestvalidators.admission.muster.open-cluster-management.io";
/// Refuses ManifestWorks: policy, webhook and configuration.
pub const WORK_VALIDATORS: &str = "manifestworkvalidators.admission.work.open-cluster-management.io";
/// Refuses ManifestWorkReplicaSets: policy, webhook and configuration. OCM has the webhook, and configures it nowhere.
pub const REPLICA_SET_VALIDATORS: &str =
    "manifestworkreplicasetvalidators.admission.work.open-cluster-management.io";

/// Path of the webhook that refuses ManagedClusters.
pub const VALIDATE_CLUSTER: &str = "/validate-cluster-open-cluster-management-io-v1-managedcluster";
/// Path of the webhook that completes ManagedClusters.
pub const MUTATE_CLUSTER: &str = "/mutate-cluster-open-cluster-management-io-v1-managedcluster";
/// Path of the webhook that refuses ManagedClusterSetBindings.
pub const VALIDATE_BINDING: &str =
    "/validate-cluster-open-cluster-management-io-v1beta2-managedclustersetbinding";
/// Path of the webhook that refuses ManifestWorks.
pub const VALIDATE_WORK: &str = "/validate-work-open-cluster-management-io-v1-manifestwork";
/// Path of the webhook that refuses ManifestWorkReplicaSets.
pub const VALIDATE_REPLICA_SET: &str =
    "/validate-work-open-cluster-management-io-v1alpha1-manifestworkreplicaset";

/// The verb one must have on a service account's user name to have a work applied on its behalf.
pub const EXECUTE_AS: &str = "execute-as";
/// The service account that stands for the agent's own when a work names none.
pub const DEFAULT_EXECUTOR: &str = "klusterlet-work-sa";

/// Muster's own: Secret with the webhook's certificates, in the hub's namespace.
pub const WEBHOOK_SECRET: &str = "muster-webhook";
