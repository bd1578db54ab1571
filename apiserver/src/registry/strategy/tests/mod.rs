mod changes;
mod refused;

use super::*;
use crate::registry::Registry;
use crate::registry::tests::with_gadgets;
use crate::store::{Expect, Key, StoreOptions};
use std::sync::Arc;

struct World {
    registry: Registry,
    store: Store,
    user: UserInfo,
}

impl World {
    fn new() -> Self {
        let store = Store::open(StoreOptions {
            path: None,
            keep_revisions: 100,
        })
        .unwrap();
        let user = UserInfo {
            name: "admin".into(),
            groups: vec!["system:masters".into(), "system:authenticated".into()],
            ..UserInfo::default()
        };
        Self {
            registry: with_gadgets(),
            store,
            user,
        }
    }

    fn context(&self) -> Context<'_> {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        Context {
            store: &self.store,
            user: &self.user,
            now,
        }
    }

    fn resource(&self, object: &Value) -> Arc<Resource> {
        let (group, version) = crate::registry::split_api_version(object["apiVersion"].as_str().unwrap());
        self.registry
            .by_kind(group, version, object["kind"].as_str().unwrap())
            .unwrap()
    }

    /// As a create does: what comes out, or what is wrong.
    fn create(&self, mut object: Value) -> Result<Value, Vec<String>> {
        let resource = self.resource(&object);
        object::set_meta(&mut object, "uid", Some("u-1".into()));
        if resource.namespaced {
            object::set_meta(&mut object, "namespace", Some("t".into()));
        }
        default(&resource, &mut object);
        let ctx = self.context();
        prepare_create(&resource, &ctx, &mut object);
        let mut errors = validate_create(&resource, &object);
        errors.extend(validate_allocation(&resource, &ctx, &object));
        told(&errors)?;
        Ok(object)
    }

    fn update(&self, subresource: &str, old: &Value, mut new: Value) -> Result<Value, Vec<String>> {
        let resource = self.resource(old);
        prepare_update(&resource, subresource, &self.context(), &mut new, old);
        told(&validate_update(&resource, subresource, &new, old))?;
        Ok(new)
    }

    /// Changes `old` by a function.
    fn change(&self, sub: &str, old: &Value, f: impl Fn(&mut Value)) -> Result<Value, Vec<String>> {
        let mut new = old.clone();
        f(&mut new);
        self.update(sub, old, new)
    }
}

fn told(errors: &[FieldError]) -> Result<(), Vec<String>> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(errors
        .iter()
        .map(|e| format!("{}: {}", e.field, e.message))
        .collect())
}

// Test objects are written in place, so taking them whole reads best.
#[allow(clippy::needless_pass_by_value)]
fn object(api_version: &str, kind: &str, name: &str, rest: Value) -> Value {
    let mut object = rest;
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    object["metadata"]["name"] = name.into();
    object
}

fn config_map(name: &str, rest: Value) -> Value {
    object("v1", "ConfigMap", name, rest)
}

fn pod_spec() -> Value {
    json!({"containers": [{"name": "c", "image": "nginx:1"}]})
}

fn deployment(name: &str) -> Value {
    object(
        "apps/v1",
        "Deployment",
        name,
        json!({"spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod_spec()},
        }}),
    )
}

#[allow(clippy::needless_pass_by_value)]
fn service(name: &str, spec: Value) -> Value {
    object("v1", "Service", name, json!({ "spec": spec }))
}

#[allow(clippy::needless_pass_by_value)]
fn gadget(spec: Value) -> Value {
    object("x.io/v1", "Gadget", "g", json!({ "spec": spec }))
}

/// The pod template kube-apiserver makes of `pod_spec`.
fn defaulted_pod(policy: &str) -> Value {
    json!({
        "containers": [{"name": "c", "image": "nginx:1", "resources": {}, "imagePullPolicy": "IfNotPresent",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
        "restartPolicy": policy, "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
        "securityContext": {}, "schedulerName": "default-scheduler",
    })
}

#[test]
fn new_objects_look_as_kube_apiserver_makes_them() {
    let world = World::new();
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": defaulted_pod("Always")});
    let selector = json!({"matchLabels": {"a": "b"}});
    let workload = json!({"spec": {"selector": selector, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod_spec()}}});
    for (given, path, want) in [
        (
            deployment("d"),
            "/spec",
            json!({
                "replicas": 1, "selector": selector, "template": template, "revisionHistoryLimit": 10,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
                "progressDeadlineSeconds": 600,
            }),
        ),
        (deployment("d"), "/status", json!({})),
        (deployment("d"), "/metadata/generation", json!(1)),
        (
            object("apps/v1", "StatefulSet", "s", workload.clone()),
            "/spec",
            json!({
                "replicas": 1, "selector": selector, "template": template, "serviceName": "", "podManagementPolicy": "OrderedReady",
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}, "revisionHistoryLimit": 10,
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            }),
        ),
        (
            object("apps/v1", "StatefulSet", "s", workload.clone()),
            "/status",
            json!({"replicas": 0, "availableReplicas": 0}),
        ),
        (
            object("apps/v1", "DaemonSet", "s", workload.clone()),
            "/metadata/annotations",
            json!({"deprecated.daemonset.template.generation": "1"}),
        ),
        (
            service(
                "s",
                json!({"selector": {"a": "b"}, "ports": [{"port": 80}], "clusterIP": "10.96.3.3"}),
            ),
            "/spec",
            json!({
                "ports": [{"protocol": "TCP", "port": 80, "targetPort": 80}], "selector": {"a": "b"}, "type": "ClusterIP",
                "clusterIP": "10.96.3.3", "clusterIPs": ["10.96.3.3"], "sessionAffinity": "None", "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
            }),
        ),
        (
            service(
                "h",
                json!({"clusterIP": "None", "ports": [{"port": 80, "targetPort": "http"}]}),
            ),
            "/spec",
            json!({
                "ports": [{"protocol": "TCP", "port": 80, "targetPort": "http"}], "clusterIP": "None", "clusterIPs": ["None"],
                "type": "ClusterIP", "sessionAffinity": "None", "ipFamilies": ["IPv4", "IPv6"],
                "ipFamilyPolicy": "RequireDualStack", "internalTrafficPolicy": "Cluster",
            }),
        ),
        (
            object("v1", "Secret", "x", json!({"stringData": {"p": "q"}})),
            "/data",
            json!({"p": "cQ=="}),
        ),
        (
            object("v1", "Secret", "x", json!({"stringData": {"p": "q"}})),
            "/type",
            json!("Opaque"),
        ),
        (
            object("v1", "Namespace", "n", json!({})),
            "",
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": "n", "uid": "u-1", "labels": {"kubernetes.io/metadata.name": "n"}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
            }),
        ),
        (
            object(
                "v1",
                "PersistentVolumeClaim",
                "v",
                json!({"spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}),
            ),
            "/metadata/finalizers",
            json!(["kubernetes.io/pvc-protection"]),
        ),
        (
            object(
                "policy/v1",
                "PodDisruptionBudget",
                "b",
                json!({"spec": {"minAvailable": "50%"}}),
            ),
            "/status",
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}),
        ),
        (
            object(
                "networking.k8s.io/v1",
                "NetworkPolicy",
                "n",
                json!({"spec": {"podSelector": {}}}),
            ),
            "/spec",
            json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        ),
        (
            object("scheduling.k8s.io/v1", "PriorityClass", "p", json!({"value": 10})),
            "/preemptionPolicy",
            json!("PreemptLowerPriority"),
        ),
        (
            object(
                "rbac.authorization.k8s.io/v1",
                "RoleBinding",
                "r",
                json!({"roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "a"}]}),
            ),
            "/subjects/0/apiGroup",
            json!("rbac.authorization.k8s.io"),
        ),
        (
            config_map("c", json!({"data": {}, "immutable": null})),
            "",
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "t", "uid": "u-1"},
            }),
        ),
        (gadget(json!({})), "/spec", json!({"size": 3, "mode": "A"})),
    ] {
        let made = world
            .create(given.clone())
            .unwrap_or_else(|e| panic!("{given}: {e:?}"));
        assert_eq!(
            made.pointer(path).unwrap_or(&Value::Null),
            &want,
            "{given} {path}"
        );
        let mut again = made.clone();
        default(&world.resource(&made), &mut again);
        assert_eq!(again, made, "defaulting twice changed something");
    }
}

#[test]
fn a_job_labels_and_selects_its_pods() {
    let world = World::new();
    let mut spec = pod_spec();
    spec["restartPolicy"] = "Never".into();
    let job = world
        .create(object(
            "batch/v1",
            "Job",
            "j",
            json!({"spec": {"template": {"spec": spec}}}),
        ))
        .unwrap();
    let labels = json!({"batch.kubernetes.io/controller-uid": "u-1", "batch.kubernetes.io/job-name": "j",
        "controller-uid": "u-1", "job-name": "j"});
    assert_eq!(job["spec"]["template"]["metadata"]["labels"], labels);
    assert_eq!(job["metadata"]["labels"], labels);
    assert_eq!(
        job["spec"]["selector"],
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}})
    );
    assert_eq!(job["spec"]["completions"], 1);
    assert_eq!(job["spec"]["podReplacementPolicy"], "TerminatingOrFailed");
    let sent_again = world.change("", &job, |j| {
        j["spec"].as_object_mut().unwrap().remove("selector");
        j["spec"]["template"].as_object_mut().unwrap().remove("metadata");
    });
    let refused = sent_again.unwrap_err();
    assert_eq!(refused[0], "spec.selector: Required value", "{refused:?}");
}

#[test]
fn a_pod_gets_status_and_tolerations() {
    let world = World::new();
    let pod = world
        .create(object(
            "v1",
            "Pod",
            "p",
            json!({"spec": pod_spec(), "status": {"phase": "Running"}}),
        ))
        .unwrap();
    assert_eq!(
        pod["status"],
        json!({"phase": "Pending", "qosClass": "BestEffort"})
    );
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(pod["spec"]["priority"], 0);
    let newer = world
        .change("", &pod, |p| {
            p["spec"]["containers"][0]["image"] = "nginx:2".into();
        })
        .unwrap();
    assert_eq!(newer["metadata"]["generation"], 2);
    let refused = world
        .change("", &pod, |p| p["spec"]["hostNetwork"] = true.into())
        .unwrap_err();
    assert!(
        refused[0].starts_with("spec: Forbidden: pod updates may not change fields other than"),
        "{refused:?}"
    );
}
