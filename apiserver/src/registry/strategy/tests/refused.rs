//! What kube-apiserver refuses, and how it says so.

use super::*;

type Change = Box<dyn Fn(&mut Value)>;

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
                "spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: failed to allocate IP 10.0.0.1: the provided network does not match the current range",
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
    let old = made(deployment("d"));
    let errors = world
        .change("status", &old, |o| o["status"] = json!({"readyReplicas": 1}))
        .unwrap_err();
    assert_eq!(
        errors,
        ["status.readyReplicas: Invalid value: 1: cannot be greater than status.replicas"]
    );
    let mut dying = made(config_map("f", json!({"metadata": {"finalizers": ["x.io/f"]}})));
    dying["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let errors = world
        .change("", &dying, |o| {
            o["metadata"]["finalizers"] = json!(["x.io/f", "x.io/g"]);
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

/// A StatefulSet's pods mount what is claimed for them, by the name of the claim's template.
#[test]
fn claims_of_a_stateful_set_are_volumes_of_its_pods() {
    let world = World::new();
    let set = |mounted: &str| {
        let spec = json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [
            {"name": "own", "mountPath": "/o"}, {"name": mounted, "mountPath": "/d"}]}],
            "volumes": [{"name": "own", "emptyDir": {}}]});
        object(
            "apps/v1",
            "StatefulSet",
            "s",
            json!({"spec": {
                "serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                    "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
            }}),
        )
    };
    assert!(world.create(set("data")).is_ok());
    assert_eq!(
        world.create(set("other")).unwrap_err(),
        ["spec.template.spec.containers[0].volumeMounts[1].name: Not found: \"other\""]
    );
}
