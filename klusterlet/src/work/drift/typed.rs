//! What kinds of Kubernetes need beyond the general rule (wire §3.3): fields that only the server can know, and fields that
//! somebody else writes by design, with whom a fight would never end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeMap;

/// Asks OpenShift's network operator to write its CA bundle into a ConfigMap.
const INJECT_CA_LABEL: &str = "config.openshift.io/inject-trusted-cabundle";
const INJECTED_CA_KEY: &str = "ca-bundle.crt";
const SERVICE_ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";

/// Keeps in `target` what others write by design, whether or not the manifest changed.
pub fn keep(required: &Value, live: &Value, target: &mut Value) {
    let api_version = required["apiVersion"].as_str().unwrap_or_default();
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match (group, required["kind"].as_str().unwrap_or_default()) {
        ("", "ConfigMap") if required["metadata"]["labels"][INJECT_CA_LABEL] == "true" => {
            keep_unless_given(target, required, live, &["data", INJECTED_CA_KEY]);
        }
        ("", "Secret") if required["type"] == SERVICE_ACCOUNT_TOKEN => {
            // The token controller writes the token, its namespace and the CA.
            for key in live["data"].as_object().into_iter().flatten().map(|(key, _)| key) {
                keep_unless_given(target, required, live, &["data", key]);
            }
        }
        (
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration",
        ) => keep_webhook_bundles(required, live, target),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            let path = ["spec", "conversion", "webhook", "clientConfig", "caBundle"];
            keep_unless_given(target, required, live, &path);
        }
        ("apiregistration.k8s.io", "APIService") => {
            keep_unless_given(target, required, live, &["spec", "caBundle"]);
        }
        ("rbac.authorization.k8s.io", "ClusterRole") if !required["aggregationRule"].is_null() => {
            if let Some(rules) = live.get("rules") {
                target["rules"] = rules.clone();
            }
        }
        _ => {}
    }
}

fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |v, key| v.get(key))
}

/// Absent, null or empty text: nobody means it.
fn not_given(value: Option<&Value>) -> bool {
    value.is_none_or(|v| v.is_null() || v == "")
}

/// The live value where the manifest gives none, if its parent is there.
fn keep_unless_given(target: &mut Value, required: &Value, live: &Value, path: &[&str]) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    if !not_given(at(required, path)) {
        return;
    }
    let Some(value) = at(live, path) else { return };
    if path.len() == 2 && target[parents[0]].is_null() {
        target[parents[0]] = Value::Object(serde_json::Map::new());
    }
    let parent = parents.iter().try_fold(target, |v, key| v.get_mut(*key));
    if let Some(Value::Object(parent)) = parent {
        parent.insert((*last).to_owned(), value.clone());
    }
}

fn keep_webhook_bundles(required: &Value, live: &Value, target: &mut Value) {
    let list = |v: &Value| v["webhooks"].as_array().cloned().unwrap_or_default();
    let (required, live) = (list(required), list(live));
    for webhook in target["webhooks"].as_array_mut().into_iter().flatten() {
        let named = |list: &[Value]| list.iter().find(|w| w["name"] == webhook["name"]).cloned();
        if let (Some(required), Some(live)) = (named(&required), named(&live)) {
            keep_unless_given(webhook, &required, &live, &["clientConfig", "caBundle"]);
        }
    }
}

/// The manifest changed: its fields replace the live ones, save those that only the server can know.
pub fn replaced(required: &Value, live: &Value) -> Value {
    let mut target = required.clone();
    let kind = required["kind"].as_str().unwrap_or_default();
    let kept: &[&[&str]] = match kind {
        "Service" => &[
            &["spec", "clusterIP"],
            &["spec", "clusterIPs"],
            &["spec", "ipFamilies"],
            &["spec", "ipFamilyPolicy"],
            &["spec", "healthCheckNodePort"],
        ],
        "PersistentVolumeClaim" => &[
            &["spec", "volumeName"],
            &["spec", "storageClassName"],
            &["spec", "volumeMode"],
        ],
        "PersistentVolume" => &[&["spec", "claimRef"]],
        "Job" => &[&["spec", "selector"], &["spec", "template", "metadata", "labels"]],
        _ => &[],
    };
    for path in kept {
        let value = path.iter().try_fold(live, |v, key| v.get(key));
        if let Some(value) = value {
            fill(&mut target, path, value);
        }
    }
    if kind == "Service" {
        keep_node_ports(&mut target, live);
    }
    target
}

fn fill(target: &mut Value, path: &[&str], value: &Value) {
    match path {
        [] => {}
        [last] => {
            let Value::Object(map) = target else { return };
            match map.get_mut(*last) {
                None => {
                    map.insert((*last).to_owned(), value.clone());
                }
                // Labels of a Job's template: ours plus those the server added.
                Some(Value::Object(mine)) => {
                    if let Value::Object(theirs) = value {
                        for (k, v) in theirs {
                            mine.entry(k.clone()).or_insert_with(|| v.clone());
                        }
                    }
                }
                Some(_) => {}
            }
        }
        [first, rest @ ..] => {
            if let Some(next) = target.get_mut(*first) {
                fill(next, rest, value);
            }
        }
    }
}

fn keep_node_ports(target: &mut Value, live: &Value) {
    let Some(ports) = target.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else {
        return;
    };
    for port in ports.iter_mut().filter(|p| p["nodePort"].is_null()) {
        let same_port = |l: &&Value| {
            l["port"] == port["port"]
                && l["protocol"].as_str().unwrap_or("TCP") == port["protocol"].as_str().unwrap_or("TCP")
        };
        let found = live["spec"]["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .find(same_port);
        if let Some(node_port) = found.map(|l| l["nodePort"].clone()).filter(|n| !n.is_null()) {
            port["nodePort"] = node_port;
        }
    }
}

pub fn must_recreate_secret(required: &Value, live: &Value) -> bool {
    let kind = |s: &Value| s["type"].as_str().unwrap_or("Opaque").to_owned();
    let immutable = |s: &Value| s["immutable"].as_bool().unwrap_or_default();
    // One that may not change becomes another only by being made anew.
    kind(required) != kind(live)
        || (immutable(live) && (!immutable(required) || !has_data_of(required, live)))
}

/// Whether a live Secret's data are the manifest's, however it writes its base64. The cluster fills in those of a token.
fn has_data_of(required: &Value, live: &Value) -> bool {
    let data = |secret: &Value| -> BTreeMap<String, Option<Vec<u8>>> {
        let fields = secret["data"].as_object().into_iter().flatten();
        let bytes = |value: &Value| {
            let text: String = value
                .as_str()
                .unwrap_or_default()
                .split_ascii_whitespace()
                .collect();
            STANDARD.decode(text).ok()
        };
        fields.map(|(key, value)| (key.clone(), bytes(value))).collect()
    };
    let (wanted, found) = (data(required), data(live));
    if required["type"] == SERVICE_ACCOUNT_TOKEN {
        return wanted.iter().all(|(key, value)| found.get(key) == Some(value));
    }
    wanted == found
}

#[cfg(test)]
mod tests {
    use super::super::{Decision, Marks, created, decide};
    use super::*;
    use muster_crds::constants::labels;
    use serde_json::json;

    /// What an object made of `required` becomes after others edited it; `changed` says that the manifest is another now.
    fn decided(required: &Value, edit: &dyn Fn(&mut Value), changed: bool) -> Option<Value> {
        let mut live = created(required, &Marks::default());
        if changed {
            live["metadata"]["labels"][labels::OBJECT_HASH] = "another".into();
        }
        live["metadata"]["uid"] = "u".into();
        edit(&mut live);
        match decide(required, &live, &Marks::default()) {
            Decision::Keep => None,
            Decision::Replace(target) | Decision::ReplaceIfOther(target, _) => Some(target),
            Decision::Recreate => panic!("recreated"),
        }
    }

    fn foreign(live: &mut Value, fields: &Value) {
        live["metadata"]["managedFields"] =
            json!([{"manager": "injector", "operation": "Update", "fieldsV1": fields}]);
    }

    #[test]
    fn what_others_write_by_design_stays() {
        type Edit = fn(&mut Value);
        let cases: [(Value, Edit, &str, Value); 7] = [
            (
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {(INJECT_CA_LABEL): "true"}}}),
                |l| {
                    l["data"] = json!({"ca-bundle.crt": "PEM"});
                    foreign(l, &json!({"f:data": {"f:ca-bundle.crt": {}}}));
                },
                "/data/ca-bundle.crt",
                json!("PEM"),
            ),
            (
                json!({"apiVersion": "v1", "kind": "Secret", "type": SERVICE_ACCOUNT_TOKEN, "metadata": {"name": "a"}, "data": {"extra": "eA=="}}),
                |l| {
                    l["data"]["token"] = "dA==".into();
                    foreign(l, &json!({"f:data": {"f:token": {}}}));
                },
                "/data/token",
                json!("dA=="),
            ),
            (
                json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "a"},
                    "webhooks": [{"name": "w", "clientConfig": {"caBundle": "", "url": "u"}}]}),
                |l| l["webhooks"][0]["clientConfig"]["caBundle"] = "Q0E=".into(),
                "/webhooks/0/clientConfig/caBundle",
                json!("Q0E="),
            ),
            (
                json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "a"},
                    "webhooks": [{"name": "w", "clientConfig": {"url": "u"}}]}),
                |l| {
                    l["webhooks"][0]["clientConfig"]["caBundle"] = "Q0E=".into();
                    foreign(
                        l,
                        &json!({"f:webhooks": {"k:{\"name\":\"w\"}": {"f:clientConfig": {"f:caBundle": {}}}}}),
                    );
                },
                "/webhooks/0/clientConfig/caBundle",
                json!("Q0E="),
            ),
            (
                json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "a"},
                    "spec": {"conversion": {"webhook": {"clientConfig": {"url": "u"}}}}}),
                |l| {
                    l["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"] = "Q0E=".into();
                    foreign(
                        l,
                        &json!({"f:spec": {"f:conversion": {"f:webhook": {"f:clientConfig": {"f:caBundle": {}}}}}}),
                    );
                },
                "/spec/conversion/webhook/clientConfig/caBundle",
                json!("Q0E="),
            ),
            (
                json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "a"}, "spec": {"group": "g"}}),
                |l| {
                    l["spec"]["caBundle"] = "Q0E=".into();
                    foreign(l, &json!({"f:spec": {"f:caBundle": {}}}));
                },
                "/spec/caBundle",
                json!("Q0E="),
            ),
            (
                json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "a"},
                    "aggregationRule": {"clusterRoleSelectors": []}, "rules": []}),
                |l| {
                    l["rules"] = json!([{"verbs": ["get"]}]);
                    foreign(l, &json!({"f:rules": {}}));
                },
                "/rules/0/verbs/0",
                json!("get"),
            ),
        ];
        for (required, edit, path, kept) in cases {
            assert_eq!(decided(&required, &edit, false), None, "{required}");
            let target = decided(&required, &edit, true).unwrap();
            assert_eq!(target.pointer(path), Some(&kept), "{required}");
        }
    }

    #[test]
    fn what_the_manifest_gives_wins() {
        let required = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "a"},
            "webhooks": [{"name": "w", "clientConfig": {"caBundle": "bWluZQ==", "url": "u"}}]});
        let target = decided(
            &required,
            &|l| l["webhooks"][0]["clientConfig"]["caBundle"] = "Q0E=".into(),
            false,
        );
        assert_eq!(
            target.unwrap()["webhooks"][0]["clientConfig"]["caBundle"],
            "bWluZQ=="
        );
        let plain =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        let edit = |l: &mut Value| {
            l["data"]["ca-bundle.crt"] = "PEM".into();
            foreign(l, &json!({"f:data": {"f:ca-bundle.crt": {}}}));
        };
        let target = decided(&plain, &edit, false).unwrap();
        assert_eq!(target["data"], json!({"k": "v"}), "no label, no exception");
    }

    #[test]
    fn only_the_metadata_of_pods_and_service_accounts_is_brought_about() {
        for kind in ["Pod", "ServiceAccount"] {
            let required = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"a": 1}, "secrets": []});
            assert_eq!(
                decided(&required, &|l| l["spec"]["a"] = 2.into(), true).unwrap()["spec"]["a"],
                2
            );
            assert_eq!(decided(&required, &|l| l["spec"]["a"] = 2.into(), false), None);
            let target = decided(&required, &|l| l["metadata"]["labels"]["x"] = "z".into(), false).unwrap();
            assert_eq!(target["metadata"]["labels"]["x"], "y");
        }
    }
}
