use super::*;
use crate::registry::Registry;
use crate::registry::tests::with_gadgets;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cells(group: &str, version: &str, plural: &str, mut object: Value) -> Vec<Value> {
    let registry = Registry::new();
    let resource = registry.find(group, version, plural).unwrap();
    object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    let table = table_at(
        &resource,
        &[object],
        IncludeObject::None,
        at("2026-01-01T00:05:07Z"),
    );
    let columns = table["columnDefinitions"].as_array().unwrap().len();
    let cells = table["rows"][0]["cells"].as_array().unwrap().clone();
    assert_eq!(cells.len(), columns);
    assert!(table["rows"][0]["object"].is_null());
    cells
}

#[test]
fn durations() {
    for (seconds, text) in [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (307, "5m7s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (51 * 3600, "2d3h"),
        (8 * 86400, "8d"),
        (800 * 86400, "2y70d"),
        (730 * 86400, "2y"),
        (9 * 365 * 86400, "9y"),
    ] {
        assert_eq!(human_duration(seconds), text, "{seconds}");
    }
}

#[test]
fn json_paths() {
    let object = json!({
        "spec": {"size": 4, "a.b": {"c": 1}},
        "status": {"conditions": [
            {"type": "Joined", "status": "False", "n": 1}, {"type": "Ready", "status": "True", "n": 2}]},
    });
    for (path, want) in [
        (".spec.size", json!([4])),
        ("{.spec.size}", json!([4])),
        ("$.spec.size", json!([4])),
        (".spec.a\\.b.c", json!([1])),
        (".spec['a\\.b'].c", json!([1])),
        (".spec['a.b'].c", json!([])),
        ("['spec.size']", json!([4])),
        (".spec['size','none']", json!([4])),
        (".status.conditions['*'].type", json!(["Joined", "Ready"])),
        (".status.conditions[0,1].type", json!(["Joined", "Ready"])),
        (".status.conditions[0:2:2].type", json!(["Joined"])),
        (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
        (".status.conditions[?(@.type=='Ready')].status", json!(["True"])),
        (".status.conditions[?(@.n>1)].type", json!(["Ready"])),
        (".status.conditions[?(@.n!=1)].type", json!(["Ready"])),
        (".status.conditions[0].type", json!(["Joined"])),
        (".status.conditions[-1:].type", json!(["Ready"])),
        (".status.conditions[-1].type", json!(["Ready"])),
        (".status.conditions[*].type", json!(["Joined", "Ready"])),
        ("..type", json!(["Joined", "Ready"])),
        (".spec.none", json!([])),
    ] {
        let found = JsonPath::parse(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(json!(found.find(&object)), want, "{path}");
    }
    for path in [
        "spec.size",
        ".spec[",
        ".a..",
        ".spec[x]",
        ".spec[\"size\"]",
        ".spec[0:1:0]",
        ".spec[?(size)]",
        "{range .a}{end}",
        &format!(".a{}", "[?(@.a".repeat(17) + &")]".repeat(17)),
        &".a".repeat(2049),
    ] {
        let parsed = JsonPath::parse(path);
        assert!(parsed.is_err() || path == ".a..", "{path}: {parsed:?}");
    }
}

#[test]
fn a_path_that_leads_on_and_on_ends() {
    let deep = (0..60).fold(json!({"a": 1}), |inner, _| json!({"b": inner, "a": 2}));
    for (path, found) in [("..a", true), ("...a", true), ("........a", false)] {
        let parsed = JsonPath::parse(path).unwrap();
        assert_eq!(!parsed.find(&deep).is_empty(), found, "{path}");
    }
    let wide = json!({"l": (0..1000).collect::<Vec<_>>()});
    let unions = format!(".l{}", "[*,*]".repeat(20));
    assert!(JsonPath::parse(&unions).unwrap().find(&wide).is_empty());
    assert_eq!(JsonPath::parse(".l[*]").unwrap().find(&wide).len(), 1000);
}

#[test]
fn rows_of_built_in_kinds() {
    let deployment = json!({
        "metadata": {"name": "d"},
        "spec": {"replicas": 4, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [
            {"name": "z", "image": "z"}, {"name": "c", "image": "nginx:2"}]}}},
        "status": {"replicas": 4, "readyReplicas": 2},
    });
    let want = json!(["d", "2/4", 0, 0, "5m7s", "z,c", "z,nginx:2", "a=b"]);
    assert_eq!(json!(cells("apps", "v1", "deployments", deployment)), want);

    let config = json!({"metadata": {"name": "c"}, "data": {"a": "1"}, "binaryData": {"b": "AQ=="}});
    assert_eq!(
        json!(cells("", "v1", "configmaps", config)),
        json!(["c", 2, "5m7s"])
    );

    let service = json!({
        "metadata": {"name": "s"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30001, "protocol": "TCP"}]},
    });
    let want = json!([
        "s",
        "NodePort",
        "10.96.0.9",
        "<none>",
        "80:30001/TCP",
        "5m7s",
        "<none>"
    ]);
    assert_eq!(json!(cells("", "v1", "services", service)), want);

    let node = json!({
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": ""}},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.0"},
                   "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
    });
    let row = cells("", "v1", "nodes", node);
    let want = json!([
        "n",
        "Ready,SchedulingDisabled",
        "worker",
        "5m7s",
        "v1.36.0",
        "10.0.0.1",
        "<none>"
    ]);
    assert_eq!(json!(row[..7]), want);

    let csr = json!({
        "metadata": {"name": "c"},
        "spec": {"signerName": "kubernetes.io/kube-apiserver-client", "username": "u", "expirationSeconds": 3600},
        "status": {"conditions": [{"type": "Approved", "status": "True"}], "certificate": "eA=="},
    });
    let want = json!([
        "c",
        "5m7s",
        "kubernetes.io/kube-apiserver-client",
        "u",
        "60m",
        "Approved,Issued"
    ]);
    assert_eq!(
        json!(cells(
            "certificates.k8s.io",
            "v1",
            "certificatesigningrequests",
            csr
        )),
        want
    );

    let role = json!({"metadata": {"name": "r"}});
    let want = json!(["r", "2026-01-01T00:00:00Z"]);
    assert_eq!(
        json!(cells("rbac.authorization.k8s.io", "v1", "roles", role)),
        want
    );
}

#[test]
fn what_a_pod_is_doing() {
    let base = json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}], "nodeName": "n1"},
        "status": {"phase": "Running", "containerStatuses": [
            {"name": "c", "ready": true, "restartCount": 2, "state": {"running": {}},
             "lastState": {"terminated": {"finishedAt": "2026-01-01T00:04:07Z"}}}]},
    });
    let row = |pod: Value| cells("", "v1", "pods", pod);
    let shown = row(base.clone());
    assert_eq!(
        json!(shown[..7]),
        json!(["p", "1/1", "Running", "2 (60s ago)", "5m7s", "<none>", "n1"])
    );

    let mut pod = base.clone();
    pod["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    assert_eq!(row(pod)[2], "CrashLoopBackOff");

    let mut pod = base.clone();
    pod["status"]["phase"] = "Pending".into();
    pod["status"]["initContainerStatuses"] = json!([{"name": "i", "state": {"running": {}}}]);
    assert_eq!(row(pod)[2], "Init:0/1");

    let mut pod = base;
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:05:00Z".into();
    assert_eq!(row(pod)[2], "Terminating");
}

#[test]
fn every_listable_kind_fills_every_column() {
    for resource in Registry::new().all() {
        if resource.has_verb("list") {
            let object = json!({"metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}});
            let table = table(&resource, &[object], IncludeObject::Metadata);
            let columns = table["columnDefinitions"].as_array().unwrap().len();
            let cells = table["rows"][0]["cells"].as_array().unwrap();
            assert_eq!(cells.len(), columns, "{}", resource.qualified());
            assert!(
                cells[0] == "x" || resource.plural == "events",
                "{}",
                resource.qualified()
            );
        }
    }
}

#[test]
fn custom_columns() {
    let resource = with_gadgets().find("x.io", "v1", "gadgets").unwrap();
    let object = json!({
        "metadata": {"name": "g"}, "spec": {"size": 6, "mode": "A", "when": "2026-01-01T00:00:00Z"},
    });
    let table = table_at(
        &resource,
        std::slice::from_ref(&object),
        IncludeObject::Object,
        at("2026-01-01T00:02:00Z"),
    );
    assert_eq!(table["rows"][0]["cells"], json!(["g", 6, "A", "2m"]));
    assert_eq!(table["rows"][0]["object"], object);
    assert_eq!(table["columnDefinitions"][2]["priority"], 1);
    let beta = with_gadgets().find("x.io", "v1beta1", "gadgets").unwrap();
    let table = table_at(
        &beta,
        &[object],
        IncludeObject::Metadata,
        at("2026-01-01T00:02:00Z"),
    );
    assert_eq!(table["columnDefinitions"][1]["name"], "Age");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}
