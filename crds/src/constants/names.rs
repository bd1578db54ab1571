//! Names of users, groups, roles, secrets, leases and namespaces.

use std::time::Duration;

/// What every agent's user and group begins with.
pub const USER_PREFIX: &str = "system:open-cluster-management:";
/// What a cluster's other group begins with, for providers that reserve `system:`.
pub const GROUP_PREFIX_EXTRA: &str = "open-cluster-management:";
/// The group of all agents.
pub const MANAGED_CLUSTERS_GROUP: &str = "system:open-cluster-management:managed-clusters";
/// The group of bootstrap tokens.
pub const BOOTSTRAP_GROUP: &str = "system:bootstrappers:managedcluster";
/// The service account an agent may bootstrap with.
pub const BOOTSTRAP_SERVICE_ACCOUNT: &str = "agent-registration-bootstrap";
/// The id of the bootstrap token an installation makes.
pub const BOOTSTRAP_TOKEN_ID: &str = "ocmhub";
/// Namespace of bootstrap tokens' Secrets (Kubernetes' own).
pub const BOOTSTRAP_TOKEN_NAMESPACE: &str = "kube-system";
/// What the name of a bootstrap token's Secret begins with; its id follows.
pub const BOOTSTRAP_TOKEN_PREFIX: &str = "bootstrap-token-";
/// What the user name of a bootstrap token begins with; its id follows.
pub const BOOTSTRAP_USER_PREFIX: &str = "system:bootstrap:";
/// What an agent may do before it is accepted.
pub const BOOTSTRAP_CLUSTER_ROLE: &str = "open-cluster-management:bootstrap";
/// What a cluster's own ClusterRole, and its RoleBindings, begin with; its name follows.
pub const MANAGED_CLUSTER_ROLE_PREFIX: &str = "open-cluster-management:managedcluster:";
/// What an accepted agent may do in its namespace to register.
pub const REGISTRATION_CLUSTER_ROLE: &str = "open-cluster-management:managedcluster:registration";
/// What an accepted agent may do in its namespace to work.
pub const WORK_CLUSTER_ROLE: &str = "open-cluster-management:managedcluster:work";
/// Reporting controller of the Events that Muster's klusterlet writes about works.
pub const EVENT_REPORTER: &str = "muster-klusterlet";
/// Group of the virtual resources that accepting, renewing and joining are authorised by.
pub const REGISTER_GROUP: &str = "register.open-cluster-management.io";

/// Signer of agents' certificates.
pub const KUBE_API_SERVER_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// Signer of agents' certificates for the gRPC driver.
pub const GRPC_SIGNER: &str = "open-cluster-management.io/grpc";

/// A cluster's lease, in its namespace at the hub; also the lease's holder.
pub const CLUSTER_LEASE: &str = "managed-cluster-lease";
/// How often an agent renews when the cluster does not say.
pub const DEFAULT_LEASE_DURATION: Duration = Duration::from_secs(60);
/// After how many lease durations without renewal a cluster is Unknown.
pub const LEASE_GRACE_FACTOR: u32 = 5;

/// Secret with the bootstrap kubeconfig.
pub const BOOTSTRAP_SECRET: &str = "bootstrap-hub-kubeconfig";
/// Secret with the agent's own hub credentials.
pub const HUB_KUBECONFIG_SECRET: &str = "hub-kubeconfig-secret";
/// Key of those secrets: the kubeconfig.
pub const SECRET_KUBECONFIG: &str = "kubeconfig";
/// Key of the hub secret: the client certificate (PEM).
pub const SECRET_TLS_CRT: &str = "tls.crt";
/// Key of the hub secret: the client key (PEM).
pub const SECRET_TLS_KEY: &str = "tls.key";
/// Key of the hub secret: the cluster's name.
pub const SECRET_CLUSTER_NAME: &str = "cluster-name";
/// Key of the hub secret: the agent's id.
pub const SECRET_AGENT_NAME: &str = "agent-name";
/// Key of an add-on's hub secret: its token.
pub const SECRET_TOKEN: &str = "token";

/// Namespace of the klusterlet.
pub const AGENT_NAMESPACE: &str = "open-cluster-management-agent";
/// Namespace of add-ons' agents when they name none.
pub const ADDON_NAMESPACE: &str = "open-cluster-management-agent-addon";
/// Namespace of the operators.
pub const OPERATOR_NAMESPACE: &str = "open-cluster-management";
/// Namespace of the hub's controllers.
pub const HUB_NAMESPACE: &str = "open-cluster-management-hub";

/// The set every cluster is in that is in no other.
pub const DEFAULT_CLUSTER_SET: &str = "default";
/// The set of all clusters.
pub const GLOBAL_CLUSTER_SET: &str = "global";

/// Claim names that are always reported.
pub const RESERVED_CLAIMS: [&str; 4] = [
    "id.k8s.io",
    "kubeversion.open-cluster-management.io",
    "platform.open-cluster-management.io",
    "product.open-cluster-management.io",
];

/// Name of an add-on's default configuration in v1beta1 that stands for "none" in v1alpha1.
pub const RESERVED_NO_DEFAULT_CONFIG: &str = "__reserved_no_default__";
