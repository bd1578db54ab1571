//! Objects that tests make, and how to read what becomes of them.

use serde_json::{Value, json};

/// Collection of all ManagedClusters.
pub const CLUSTERS: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters";
/// Collection of all CertificateSigningRequests.
pub const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// Collection of all AppliedManifestWorks.
pub const APPLIED_WORKS: &str = "/apis/work.open-cluster-management.io/v1/appliedmanifestworks";
/// Collection of all CustomResourceDefinitions.
pub const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// What a hub tells its API server about its admission webhook.
pub const WEBHOOKS: [&str; 6] = [
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/managedclustervalidators.admission.cluster.open-cluster-management.io",
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/manifestworkvalidators.admission.work.open-cluster-management.io",
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/managedclustermutators.admission.cluster.open-cluster-management.io",
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/managedclustervalidators.admission.cluster.open-cluster-management.io",
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/managedclustersetbindingvalidators.admission.cluster.open-cluster-management.io",
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/manifestworkvalidators.admission.work.open-cluster-management.io",
];

/// What it tells beside that with the gate ManifestWorkReplicaSet.
pub const REPLICA_SET_WEBHOOKS: [&str; 2] = [
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/manifestworkreplicasetvalidators.admission.work.open-cluster-management.io",
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/manifestworkreplicasetvalidators.admission.work.open-cluster-management.io",
];

/// Path of a ManagedCluster.
pub fn cluster_path(name: &str) -> String {
    format!("{CLUSTERS}/{name}")
}

/// Collection of a cluster's works.
pub fn works_path(cluster: &str) -> String {
    format!("/apis/work.open-cluster-management.io/v1/namespaces/{cluster}/manifestworks")
}

/// Path of a work.
pub fn work_path(cluster: &str, name: &str) -> String {
    format!("{}/{name}", works_path(cluster))
}

/// Path of a ConfigMap.
pub fn configmap_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{name}")
}

/// Path of a Deployment.
pub fn deployment_path(namespace: &str, name: &str) -> String {
    format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
}

/// A ManifestWork.
pub fn work(cluster: &str, name: &str, manifests: &[Value]) -> Value {
    json!({
        "apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
        "metadata": {"name": name, "namespace": cluster},
        "spec": {"workload": {"manifests": manifests}},
    })
}

/// A ManifestWork with more in its spec: `deleteOption`, `manifestConfigs` and the like.
pub fn work_with(cluster: &str, name: &str, manifests: &[Value], spec: &Value) -> Value {
    let mut work = work(cluster, name, manifests);
    for (field, value) in spec.as_object().into_iter().flatten() {
        work["spec"][field] = value.clone();
    }
    work
}

/// A ConfigMap with one key, `value`.
pub fn configmap(namespace: &str, name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": {"value": value}})
}

/// A Namespace.
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A Deployment with one container.
pub fn deployment(namespace: &str, name: &str, replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "registry.example/app:1"}]}}}})
}

/// `manifestConfigs` that give one object an update strategy.
pub fn strategy(group: &str, resource: &str, namespace: &str, name: &str, strategy: &Value) -> Value {
    json!({"resourceIdentifier": {"group": group, "resource": resource, "namespace": namespace, "name": name},
        "updateStrategy": strategy})
}

/// Status and message of a condition; `None` when the object does not have it.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str)> {
    condition_in(&object["status"]["conditions"], kind)
}

/// The same in a list of conditions.
pub fn condition_in<'a>(conditions: &'a Value, kind: &str) -> Option<(&'a str, &'a str)> {
    let found = conditions.as_array()?.iter().find(|c| c["type"] == kind)?;
    Some((
        found["status"].as_str()?,
        found["message"].as_str().unwrap_or_default(),
    ))
}

/// That an object has a condition with this status, seen at its present generation where the condition says which.
pub fn has_condition(object: Option<&Value>, kind: &str, status: &str) -> Result<(), String> {
    let object = object.ok_or("it is not there")?;
    let conditions = &object["status"]["conditions"];
    let found = conditions
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["type"] == kind);
    match found {
        Some(c) if c["status"] == status => match c["observedGeneration"].as_i64() {
            Some(seen) if Some(seen) != object["metadata"]["generation"].as_i64() => Err(format!(
                "{kind} is {status}, but of generation {seen}, not {}",
                object["metadata"]["generation"]
            )),
            _ => Ok(()),
        },
        _ => Err(format!("{kind} is not {status}; status: {}", object["status"])),
    }
}

/// That a work is applied and all its objects are there.
pub fn is_applied(work: Option<&Value>) -> Result<(), String> {
    has_condition(work, "Applied", "True")?;
    has_condition(work, "Available", "True")
}

/// The status of the manifest that names `name` in a work; `""` is one without a name.
pub fn manifest_status<'a>(work: &'a Value, name: &str) -> Option<&'a Value> {
    let manifests = work["status"]["resourceStatus"]["manifests"].as_array()?;
    manifests
        .iter()
        .find(|m| m["resourceMeta"]["name"].as_str().unwrap_or_default() == name)
}

/// A feedback value of the manifest that names `name`.
pub fn feedback(work: &Value, name: &str, value: &str) -> Option<Value> {
    let values = manifest_status(work, name)?["statusFeedback"]["values"].as_array()?;
    let field = &values.iter().find(|v| v["name"] == value)?["fieldValue"];
    ["integer", "string", "boolean", "jsonRaw"]
        .iter()
        .find_map(|k| field.get(*k))
        .cloned()
}
