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
        told(errors)?;
        Ok(object)
    }

    fn update(&self, subresource: &str, old: &Value, mut new: Value) -> Result<Value, Vec<String>> {
        let resource = self.resource(old);
        prepare_update(&resource, subresource, &self.context(), &mut new, old);
        told(validate_update(&resource, subresource, &new, old))?;
        Ok(new)
    }

    /// Changes `old` by a function.
    fn change(&self, sub: &str, old: &Value, f: impl Fn(&mut Value)) -> Result<Value, Vec<String>> {
        let mut new = old.clone();
        f(&mut new);
        self.update(sub, old, new)
    }
}

fn told(errors: Vec<FieldError>) -> Result<(), Vec<String>> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(errors
        .iter()
        .map(|e| format!("{}: {}", e.field, e.message))
        .collect())
}

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

fn service(name: &str, spec: Value) -> Value {
    object("v1", "Service", name, json!({ "spec": spec }))
}

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
                "replicas": 1, "selector": selector, "template": template, "podManagementPolicy": "OrderedReady",
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
    assert_eq!(sent_again.unwrap()["spec"], job["spec"]);
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
            p["spec"]["containers"][0]["image"] = "nginx:2".into()
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

/// What kube-apiserver says, as `field: message`.
#[test]
fn bad_objects_are_refused_in_kubernetes_words() {
    let world = World::new();
    let two = json!({"ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u1", "controller": true},
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "y", "uid": "u2", "controller": true}]});
    let mut no_selector = deployment("d");
    no_selector["spec"].as_object_mut().unwrap().remove("selector");
    let mut mismatch = deployment("d");
    mismatch["spec"]["selector"]["matchLabels"]["a"] = "z".into();
    let mut empty = deployment("d");
    empty["spec"]["template"]["spec"]["containers"] = json!([]);
    let pod = |containers: Value| object("v1", "Pod", "p", json!({"spec": {"containers": containers}}));
    for (given, want) in [
        (
            config_map("l", json!({"metadata": {"labels": {"a": "x y"}}})),
            vec![
                "metadata.labels: Invalid value: \"x y\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ],
        ),
        (
            config_map("f", json!({"metadata": {"finalizers": ["nodomain"]}})),
            vec![
                "metadata.finalizers[0]: Invalid value: \"nodomain\": name is neither a standard finalizer name nor is it fully qualified",
            ],
        ),
        (
            config_map(
                "o",
                json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}]}}),
            ),
            vec!["metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"],
        ),
        (
            config_map("o", json!({ "metadata": two })),
            vec![
                "metadata.ownerReferences: Invalid value: [{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"name\":\"x\",\"uid\":\"u1\",\"controller\":true},{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"name\":\"y\",\"uid\":\"u2\",\"controller\":true}]: Only one reference can have Controller set to true. Found \"true\" in references for ConfigMap/x and ConfigMap/y",
            ],
        ),
        (
            config_map("", json!({})),
            vec!["metadata.name: Required value: name or generateName is required"],
        ),
        (
            config_map("b", json!({"data": {"a": "1"}, "binaryData": {"a": "AQ=="}})),
            vec!["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"],
        ),
        (
            mismatch,
            vec![
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ],
        ),
        (
            no_selector,
            vec![
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ],
        ),
        (empty, vec!["spec.template.spec.containers: Required value"]),
        (
            pod(json!([{"name": "c", "image": "a"}, {"name": "c", "image": "b"}])),
            vec!["spec.containers[1].name: Duplicate value: \"c\""],
        ),
        (
            pod(json!([{"name": "c"}])),
            vec!["spec.containers[0].image: Required value"],
        ),
        (
            service("s", json!({"ports": [{"port": 80}, {"port": 81}]})),
            vec![
                "spec.ports[0].name: Required value",
                "spec.ports[1].name: Required value",
            ],
        ),
        (
            service("s", json!({"ports": [{"port": 99999}]})),
            vec![
                "spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 99999: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            service("s", json!({"type": "X", "ports": [{"port": 80}]})),
            vec![
                "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ],
        ),
        (
            service("1s.x", json!({"ports": [{"port": 80}]})),
            vec!["metadata.name: Invalid value: \"1s.x\": must not contain dots"],
        ),
        (
            service("s", json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]})),
            vec![
                "spec.clusterIPs[0]: Invalid value: [\"10.0.0.1\"]: failed to allocate IP 10.0.0.1: the provided IP (10.0.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16",
            ],
        ),
        (
            object("v1", "Secret", "x", json!({"type": "kubernetes.io/tls"})),
            vec!["data[tls.crt]: Required value", "data[tls.key]: Required value"],
        ),
        (
            object(
                "batch/v1",
                "Job",
                "j",
                json!({"spec": {"template": {"spec": pod_spec()}}}),
            ),
            vec!["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
        ),
        (
            object(
                "coordination.k8s.io/v1",
                "Lease",
                "l",
                json!({"spec": {"leaseDurationSeconds": -1}}),
            ),
            vec!["spec.leaseDurationSeconds: Invalid value: -1: must be greater than 0"],
        ),
        (
            object(
                "rbac.authorization.k8s.io/v1",
                "RoleBinding",
                "r",
                json!({"roleRef": {"kind": "Frob", "name": "r"}}),
            ),
            vec!["roleRef.kind: Unsupported value: \"Frob\": supported values: \"Role\", \"ClusterRole\""],
        ),
        (
            object("events.k8s.io/v1", "Event", "e", json!({"reason": "R"})),
            vec![
                "involvedObject.namespace: Invalid value: \"\": does not match event.namespace",
                "eventTime: Required value",
                "type: Invalid value: \"\": has invalid value: ",
            ],
        ),
        (
            object(
                "certificates.k8s.io/v1",
                "CertificateSigningRequest",
                "c",
                json!({"spec": {"request": "eA==",
            "signerName": "nope", "usages": ["client auth"], "expirationSeconds": 10}}),
            ),
            vec![
                "spec.request: Invalid value: \"eA==\": PEM block type must be CERTIFICATE REQUEST",
                "spec.signerName: Invalid value: \"nope\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
                "spec.expirationSeconds: Invalid value: 10: may not specify a duration less than 600 seconds (10 minutes)",
            ],
        ),
        (
            gadget(json!({"size": 11})),
            vec!["spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10"],
        ),
        (
            gadget(json!({"mode": "C"})),
            vec![
                "spec.mode: Unsupported value: \"C\": supported values: \"A\", \"B\"",
                "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
            ],
        ),
        (
            gadget(json!({"size": "three"})),
            vec![
                "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
                ".spec.size: Invalid value: 0: .spec.size accessor error: three is of the type string, expected int64",
                "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
            ],
        ),
    ] {
        assert_eq!(world.create(given.clone()).unwrap_err(), want, "{given}");
    }
}

#[test]
fn what_may_not_change() {
    let world = World::new();
    let made = |o: Value| world.create(o).unwrap();
    let pinned = service("s", json!({"clusterIP": "10.96.3.3", "ports": [{"port": 80}]}));
    let frozen = config_map("c", json!({"immutable": true, "data": {"a": "1"}}));
    let binding = object(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        "r",
        json!({"roleRef": {"kind": "Role", "name": "r"}}),
    );
    let set =
        |path: &'static str, value: Value| move |o: &mut Value| *o.pointer_mut(path).unwrap() = value.clone();
    type Change = Box<dyn Fn(&mut Value)>;
    let table: Vec<(Value, Change, &str)> = vec![
        (
            made(deployment("d")),
            Box::new(set("/spec/selector/matchLabels", json!({"a": "b", "c": "d"}))),
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"c\":\"d\"}}: field is immutable",
        ),
        (
            made(deployment("d")),
            Box::new(set("/spec/replicas", json!(-1))),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            made(pinned),
            Box::new(|s: &mut Value| {
                s["spec"]["clusterIP"] = "10.0.99.99".into();
                s["spec"]["clusterIPs"] = json!(["10.0.99.99"]);
            }),
            "spec.clusterIPs[0]: Invalid value: [\"10.0.99.99\"]: may not change once set",
        ),
        (
            made(object("v1", "Secret", "x", json!({}))),
            Box::new(set("/type", json!("other"))),
            "type: Invalid value: \"other\": field is immutable",
        ),
        (
            made(frozen),
            Box::new(set("/data/a", json!("2"))),
            "data: Forbidden: field is immutable when `immutable` is set",
        ),
        (
            made(binding),
            Box::new(set("/roleRef/name", json!("other"))),
            "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"other\"}: cannot change roleRef",
        ),
        (
            made(gadget(json!({"mode": "A"}))),
            Box::new(set("/spec/mode", json!("B"))),
            "spec: Invalid value: mode is immutable",
        ),
    ];
    for (old, change, want) in table {
        let errors = world.change("", &old, change).unwrap_err();
        assert!(errors.contains(&want.to_owned()), "want {want}, got {errors:?}");
    }
    let mut dying = made(config_map("f", json!({"metadata": {"finalizers": ["x.io/f"]}})));
    dying["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let errors = world
        .change("", &dying, |o| {
            o["metadata"]["finalizers"] = json!(["x.io/f", "x.io/g"])
        })
        .unwrap_err();
    assert_eq!(
        errors,
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x.io/g\"}"
        ]
    );
    assert!(
        world
            .change("", &dying, |o| o["metadata"]["finalizers"] = json!([]))
            .is_ok()
    );
}

#[test]
fn generations_count_wanted_states_only() {
    let world = World::new();
    for old in [
        world.create(deployment("d")).unwrap(),
        world.create(gadget(json!({}))).unwrap(),
    ] {
        let labelled = world
            .change("", &old, |o| o["metadata"]["labels"] = json!({"x": "y"}))
            .unwrap();
        assert_eq!(labelled["metadata"]["generation"], 1);
        let status = world.change("status", &old, |o| {
            o["status"] = json!({"replicas": 4});
            o["spec"] = json!({});
        });
        let status = status.unwrap();
        assert_eq!(status["status"]["replicas"], 4);
        assert_eq!(status["spec"], old["spec"], "a status write changed the spec");
        assert_eq!(status["metadata"]["generation"], 1);
        let main = world
            .change("", &status, |o| o["status"] = json!({"replicas": 9}))
            .unwrap();
        assert_eq!(main["status"]["replicas"], 4, "a main write changed the status");
        assert_eq!(main["metadata"]["generation"], 1);
    }
    let old = world.create(deployment("d")).unwrap();
    let scaled = world
        .change("", &old, |o| o["spec"]["replicas"] = 2.into())
        .unwrap();
    assert_eq!(scaled["metadata"]["generation"], 2);
    let old = world.create(gadget(json!({}))).unwrap();
    assert!(old.get("status").is_none());
    let grown = world.change("", &old, |o| o["spec"]["size"] = 5.into()).unwrap();
    assert_eq!(grown["metadata"]["generation"], 2);
    // A ConfigMap's generation is what its writer says.
    let plain = world
        .create(config_map("c", json!({"metadata": {"generation": 7}})))
        .unwrap();
    assert_eq!(plain["metadata"]["generation"], 7);
}

#[test]
fn metadata_left_out_is_kept() {
    let world = World::new();
    let mut old = world.create(config_map("c", json!({}))).unwrap();
    old["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    let new = world
        .update("", &old, config_map("c", json!({"data": {"a": "b"}})))
        .unwrap();
    assert_eq!(new["metadata"]["uid"], "u-1");
    assert_eq!(
        new["metadata"]["creationTimestamp"],
        old["metadata"]["creationTimestamp"]
    );
}

#[test]
fn who_asks_for_a_certificate_is_the_servers_word() {
    let world = World::new();
    let resource = world
        .registry
        .find("certificates.k8s.io", "v1", "certificatesigningrequests")
        .unwrap();
    let mut csr = object(
        "certificates.k8s.io/v1",
        "CertificateSigningRequest",
        "c",
        json!({
        "spec": {"username": "evil", "groups": ["system:masters"], "usages": ["client auth"]},
        "status": {"conditions": [{"type": "Approved", "status": "True"}]}}),
    );
    prepare_create(&resource, &world.context(), &mut csr);
    assert_eq!(csr["spec"]["username"], "admin");
    assert_eq!(
        csr["spec"]["groups"],
        json!(["system:masters", "system:authenticated"])
    );
    assert_eq!(csr["status"], json!({}));
    let approve = |sub: &str, kind: &str, status: &str| {
        world.change(sub, &csr, |c| {
            c["spec"]["usages"] = json!(["server auth"]);
            c["status"] = json!({"conditions": [{"type": kind, "status": status, "reason": "R"}]});
        })
    };
    let approved = approve("approval", "Approved", "True").unwrap();
    assert_eq!(approved["spec"], csr["spec"]);
    assert_eq!(
        approved["status"]["conditions"][0]["lastUpdateTime"],
        "2026-01-01T00:00:00Z"
    );
    assert_eq!(approve("", "Approved", "True").unwrap()["status"], json!({}));
    assert!(
        approve("status", "Approved", "True").is_err(),
        "status may not approve"
    );
    let errors = approve("approval", "Approved", "False").unwrap_err();
    assert_eq!(
        errors,
        ["status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\""]
    );
    let both = world.change("approval", &approved, |c| {
        c["status"]["conditions"] =
            json!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]);
    });
    assert_eq!(
        both.unwrap_err(),
        [
            "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"
        ]
    );
    let bad = world
        .change("status", &csr, |c| c["status"]["certificate"] = "eA==".into())
        .unwrap_err();
    assert_eq!(
        bad,
        [
            "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block"
        ]
    );
}

#[tokio::test]
async fn services_never_share_addresses_or_ports() {
    let world = World::new();
    let resource = world.registry.find("", "v1", "services").unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for i in 0..40 {
        let mut object = service(
            &format!("s{i}"),
            json!({"type": "NodePort", "ports": [{"port": 80}]}),
        );
        // The same beginning for all: the worst case of the search.
        object::set_meta(&mut object, "uid", Some("same".into()));
        object::set_meta(&mut object, "namespace", Some("t".into()));
        prepare_create(&resource, &world.context(), &mut object);
        let address = object["spec"]["clusterIP"].as_str().unwrap().to_owned();
        assert!(
            address.starts_with("10.96.") && address != "10.96.0.1",
            "{address}"
        );
        let port = object["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
        assert!((30000..=32767).contains(&port));
        assert!(seen.insert(address) && seen.insert(port.to_string()));
        let key = Key {
            resource: "/services".into(),
            namespace: "t".into(),
            name: format!("s{i}").into(),
        };
        world.store.put(key, object, Expect::Absent).await.unwrap();
    }
    let taken = seen.iter().find(|s| s.starts_with("10.")).unwrap();
    let errors = world
        .create(service(
            "late",
            json!({"clusterIP": taken, "ports": [{"port": 80}]}),
        ))
        .unwrap_err();
    assert!(
        errors[0].ends_with("provided IP is already allocated"),
        "{errors:?}"
    );
}

#[test]
fn a_changed_service_keeps_what_it_was_given() {
    let world = World::new();
    let old = world
        .create(service("s", json!({"type": "NodePort", "ports": [{"port": 80}]})))
        .unwrap();
    let sent = service(
        "s",
        json!({"type": "NodePort", "ports": [{"port": 80}], "selector": {"a": "b"}}),
    );
    let new = world.update("", &old, sent).unwrap();
    assert_eq!(new["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    assert_eq!(new["spec"]["ports"], old["spec"]["ports"]);
    let plain = world
        .update(
            "",
            &new,
            service("s", json!({"type": "ClusterIP", "ports": [{"port": 80}]})),
        )
        .unwrap();
    assert!(plain["spec"]["ports"][0].get("nodePort").is_none());
    let outside = service("s", json!({"type": "ExternalName", "externalName": "a.b"}));
    assert!(
        world.update("", &old, outside).unwrap()["spec"]
            .get("clusterIP")
            .is_none()
    );
}

#[test]
fn definitions_are_defaulted_and_refused() {
    let world = World::new();
    let crd = |edit: fn(&mut Value)| {
        let mut crd = object(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "qs.x.io",
            json!({"spec": {
                "group": "x.io", "scope": "Namespaced", "names": {"plural": "qs", "kind": "Q"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
            }}),
        );
        edit(&mut crd);
        world.create(crd)
    };
    let made = crd(|_| {}).unwrap();
    assert_eq!(
        made["spec"]["names"],
        json!({"plural": "qs", "singular": "q", "kind": "Q", "listKind": "QList"})
    );
    assert_eq!(made["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(
        made["status"],
        json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": ["v1"]})
    );
    type Edit = fn(&mut Value);
    let table: [(Edit, &[&str]); 6] = [
        (
            |c| c["metadata"]["name"] = "wrong.x.io".into(),
            &["metadata.name: Invalid value: \"wrong.x.io\": must be spec.names.plural+\".\"+spec.group"],
        ),
        (
            |c| {
                c["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] =
                    json!({"spec": {"properties": {"a": {"type": "string"}}}})
            },
            &[
                "spec.validation.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
            ],
        ),
        (
            |c| {
                c["spec"]["versions"] = json!([
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v2", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}])
            },
            &[
                "spec.versions: Invalid value: [{\"Name\":\"v1\",\"Served\":true,\"Storage\":true,\"Deprecated\":false,\"DeprecationWarning\":null,\"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null},{\"Name\":\"v2\",\"Served\":true,\"Storage\":true,\"Deprecated\":false,\"DeprecationWarning\":null,\"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}]: must have exactly one version marked as storage version",
                "status.storedVersions: Invalid value: [\"v1\"]: must have the storage version v2",
            ],
        ),
        (
            |c| {
                c["spec"]["versions"][0].as_object_mut().unwrap().remove("schema");
            },
            &["spec.versions[0].schema.openAPIV3Schema: Required value"],
        ),
        (
            |c| c["spec"]["scope"] = "Frob".into(),
            &["spec.scope: Unsupported value: \"Frob\": supported values: \"Cluster\", \"Namespaced\""],
        ),
        (
            |c| c["spec"]["conversion"] = json!({"strategy": "Webhook"}),
            &[
                "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
                "spec.conversion.conversionReviewVersions: Required value",
            ],
        ),
    ];
    for (edit, want) in table {
        assert_eq!(crd(edit).unwrap_err(), want);
    }
}
