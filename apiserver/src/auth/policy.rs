//! The roles and bindings a new cluster starts with, as far as clients and administrators rely on them.
//!
//! kube-apiserver makes more, for components that do not exist here (kubelet, scheduler, controller manager).

use super::rbac::GROUP;
use super::rules::Rule;
use super::types::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, SYSTEM_MASTERS};
use serde_json::{Value, json};

/// Verbs, groups (`core` for the core group) and resources of a rule, each separated by blanks.
type Grant = (&'static str, &'static str, &'static str);

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const ALL: &str = "create delete deletecollection get list patch update watch";

/// Paths that clients read to learn what a server is.
const PUBLIC: &str = "/healthz /livez /readyz /version /version/";
const DISCOVERY: &str =
    "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/";
const MONITORED: &str =
    "/flagz /healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/* /statusz";
const ISSUER: &str =
    "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/";

/// A group of this name in [`Grant`] makes its resources paths.
const PATHS: &str = "(paths)";

/// What a namespace's administrator can do beyond editing it.
const ADMIN: &[Grant] = &[
    ("create", "authorization.k8s.io", "localsubjectaccessreviews"),
    (ALL, GROUP, "rolebindings roles"),
];

const EDIT: &[Grant] = &[
    (
        READ,
        "core",
        "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy",
    ),
    ("impersonate", "core", "serviceaccounts"),
    (
        WRITE,
        "core",
        "pods pods/attach pods/exec pods/portforward pods/proxy",
    ),
    ("create", "core", "pods/eviction"),
    (
        WRITE,
        "core",
        "configmaps persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts \
         services services/proxy",
    ),
    ("create", "core", "serviceaccounts/token"),
    (WRITE, "core events.k8s.io", "events"),
    (
        WRITE,
        "apps",
        "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets \
         statefulsets/scale",
    ),
    (WRITE, "autoscaling", "horizontalpodautoscalers"),
    (WRITE, "batch", "cronjobs jobs"),
    // A group that is served no more, for who still asks about it.
    (
        WRITE,
        "extensions",
        "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets \
         replicasets/scale replicationcontrollers/scale",
    ),
    (WRITE, "policy", "poddisruptionbudgets"),
    (WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    (ALL, "coordination.k8s.io", "leases"),
    (WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
];

const VIEW: &[Grant] = &[
    (
        READ,
        "core",
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers \
         replicationcontrollers/scale serviceaccounts services services/status",
    ),
    (
        READ,
        "core",
        "bindings limitranges namespaces/status pods/log pods/status replicationcontrollers/status \
         resourcequotas resourcequotas/status",
    ),
    (READ, "core", "namespaces"),
    (READ, "core events.k8s.io", "events"),
    (READ, "discovery.k8s.io", "endpointslices"),
    (
        READ,
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets \
         replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
    ),
    (
        READ,
        "autoscaling",
        "horizontalpodautoscalers horizontalpodautoscalers/status",
    ),
    (READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    (
        READ,
        "extensions",
        "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status \
         networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale",
    ),
    (READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    (
        READ,
        "networking.k8s.io",
        "ingresses ingresses/status networkpolicies",
    ),
    (
        READ,
        "resource.k8s.io",
        "resourceclaims resourceclaims/status resourceclaimtemplates",
    ),
];

/// Roles by name. `admin`, `edit` and `view` are not here: they gather the rules of others.
const ROLES: &[(&str, &[Grant])] = &[
    ("cluster-admin", &[("*", "*", "*"), ("*", PATHS, "*")]),
    ("system:aggregate-to-admin", ADMIN),
    ("system:aggregate-to-edit", EDIT),
    ("system:aggregate-to-view", VIEW),
    (
        "system:auth-delegator",
        &[
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    (
        "system:basic-user",
        &[
            (
                "create",
                "authorization.k8s.io",
                "selfsubjectaccessreviews selfsubjectrulesreviews",
            ),
            ("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    ("system:discovery", &[("get", PATHS, DISCOVERY)]),
    ("system:public-info-viewer", &[("get", PATHS, PUBLIC)]),
    (
        "system:service-account-issuer-discovery",
        &[("get", PATHS, ISSUER)],
    ),
    ("system:kube-aggregator", &[(READ, "core", "endpoints services")]),
    (
        "system:monitoring",
        &[("get", PATHS, MONITORED), ("get", "core", "nodes/metrics")],
    ),
    (
        "system:persistent-volume-provisioner",
        &[
            ("create delete get list watch", "core", "persistentvolumes"),
            ("get list update watch", "core", "persistentvolumeclaims"),
            (READ, "storage.k8s.io", "storageclasses"),
            ("watch", "core", "events"),
            ("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    (
        "system:node-bootstrapper",
        &[(
            "create get list watch",
            "certificates.k8s.io",
            "certificatesigningrequests",
        )],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[(
            "create",
            "certificates.k8s.io",
            "certificatesigningrequests/nodeclient",
        )],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[(
            "create",
            "certificates.k8s.io",
            "certificatesigningrequests/selfnodeclient",
        )],
    ),
];

/// Signers of Kubernetes' own, each with a role that may approve for it.
const SIGNERS: &[&str] = &[
    "kube-apiserver-client",
    "kube-apiserver-client-kubelet",
    "kubelet-serving",
    "legacy-unknown",
];

/// ClusterRoleBindings: role (and name) and groups.
const BINDINGS: &[(&str, &[&str])] = &[
    ("cluster-admin", &[SYSTEM_MASTERS]),
    ("system:basic-user", &[ALL_AUTHENTICATED]),
    ("system:discovery", &[ALL_AUTHENTICATED]),
    ("system:monitoring", &["system:monitoring"]),
    (
        "system:public-info-viewer",
        &[ALL_AUTHENTICATED, ALL_UNAUTHENTICATED],
    ),
    (
        "system:service-account-issuer-discovery",
        &["system:serviceaccounts"],
    ),
];

/// Roles that gather: name, and the one that gathers it in turn.
const GATHERING: &[(&str, Option<&str>)] =
    &[("admin", None), ("edit", Some("admin")), ("view", Some("edit"))];

/// The roles and ClusterRoleBindings of a new cluster, without server-set metadata. The rules of `admin`, `edit` and
/// `view` are for the aggregation controller to fill in.
pub fn bootstrap_policy() -> Vec<Value> {
    let mut all = Vec::new();
    for (name, grants) in ROLES {
        let mut role = object("ClusterRole", name);
        role["rules"] = grants.iter().map(rule).collect();
        if let Some(into) = name.strip_prefix("system:aggregate-to-") {
            role["metadata"]["labels"][aggregate_label(into)] = "true".into();
        }
        all.push(role);
    }
    for (name, into) in GATHERING {
        let mut role = object("ClusterRole", name);
        role["aggregationRule"] =
            json!({ "clusterRoleSelectors": [{ "matchLabels": { aggregate_label(name): "true" } }] });
        role["rules"] = Value::Null;
        if let Some(into) = into {
            role["metadata"]["labels"][aggregate_label(into)] = "true".into();
        }
        all.push(role);
    }
    for signer in SIGNERS {
        let mut role = object(
            "ClusterRole",
            &format!("system:certificates.k8s.io:{signer}-approver"),
        );
        let approve = Rule {
            resource_names: vec![format!("kubernetes.io/{signer}")],
            ..Rule::resources(&["approve"], &["certificates.k8s.io"], &["signers"])
        };
        role["rules"] = json!([approve.to_value()]);
        all.push(role);
    }
    for (name, groups) in BINDINGS {
        let mut binding = object("ClusterRoleBinding", name);
        binding["roleRef"] = json!({ "apiGroup": GROUP, "kind": "ClusterRole", "name": name });
        binding["subjects"] = groups
            .iter()
            .map(|g| json!({ "apiGroup": GROUP, "kind": "Group", "name": g }))
            .collect();
        all.push(binding);
    }
    // Who extends the API reads the CA of clients' certificates.
    let mut reader = object("Role", "extension-apiserver-authentication-reader");
    reader["metadata"]["namespace"] = "kube-system".into();
    let read = Rule {
        resource_names: vec!["extension-apiserver-authentication".into()],
        ..Rule::resources(&["get", "list", "watch"], &[""], &["configmaps"])
    };
    reader["rules"] = json!([read.to_value()]);
    all.push(reader);
    all
}

fn aggregate_label(into: &str) -> String {
    format!("{GROUP}/aggregate-to-{into}")
}

fn object(kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
            "annotations": { "rbac.authorization.kubernetes.io/autoupdate": "true" },
        },
    })
}

fn rule((verbs, groups, what): &Grant) -> Value {
    let words = |s: &'static str| s.split_whitespace().collect::<Vec<_>>();
    if *groups == PATHS {
        return Rule::urls(&words(verbs), &words(what)).to_value();
    }
    let groups: Vec<&str> = words(groups)
        .into_iter()
        .map(|g| if g == "core" { "" } else { g })
        .collect();
    Rule::resources(&words(verbs), &groups, &words(what)).to_value()
}
