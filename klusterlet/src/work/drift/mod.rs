//! The `Update` strategy: what, if anything, must be written so that a live object is what its manifest says (wire §3.3).
//!
//! A full replacement would fight the server's own defaults for ever, a plain merge would never take back a field that
//! somebody added. So the decision uses three things the object itself carries: the hash of the manifest it was last
//! written from (was the manifest changed?), and `managedFields` (who else wrote what?). Nothing else is remembered, so a
//! restart decides the same.

mod overlay;
mod typed;

use super::manifest;
use muster_crds::constants::labels;
use overlay::{exactly, take_back};
use serde_json::{Map, Value};

pub use overlay::{covers, covers_but_empties, identical, is_foreign, keeps_empties, overlaid, same};

/// Whether an entry of managedFields is of what a work said before this agent wrote its hash: this agent's own under
/// `ServerSideApply`, or OCM's under `Update`. What the manifest does not say of it has left the manifest since. OCM's
/// entries also have the server's defaults, which must not be written: only of kinds that have none (`plain`) they count.
fn is_former(entry: &Value, plain: bool) -> bool {
    let manager = entry["manager"].as_str().unwrap_or_default();
    let applied = manager == FIELD_MANAGER && entry["operation"] == "Apply";
    entry["subresource"].is_null() && (applied || (plain && manager == OCM_MANAGER))
}

/// Field manager of OCM's agent under `Update`.
const OCM_MANAGER: &str = "work";
/// Field manager of the `Update` strategy.
pub const FIELD_MANAGER: &str = "work-agent";

/// What to do with an object that exists.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It is as it should be.
    Keep,
    /// Write this (it carries the live resourceVersion).
    Replace(Value),
    /// Write this if the server says that it changes anything: what is beyond the manifest may be the server's default.
    ReplaceIfOther(Value, Doubt),
    /// It can only become so by being made anew.
    Recreate,
}

/// Where what is beyond the manifest is. Who made an object has the server's defaults in its name, as if they were its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// In a list or map that is one value to the server, or empty.
    Within,
    /// In fields of their own.
    Beside,
}

/// How a manifest's object is to be marked and owned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Marks {
    /// Our owner reference, to be there.
    pub owner: Option<Value>,
    /// UID of an owner reference to be gone.
    pub disowned_uid: Option<String>,
}

impl Marks {
    /// UID of the work's record, whether it is to own the object or not.
    pub fn record(&self) -> Option<&str> {
        let owner = self.owner.as_ref().and_then(|o| o["uid"].as_str());
        owner.or(self.disowned_uid.as_deref())
    }
}

/// The object to create for a manifest.
pub fn created(required: &Value, marks: &Marks) -> Value {
    let mut object = required.clone();
    let hash = manifest::hash(required);
    let metadata = map_at(&mut object, "metadata");
    clean_suffixed(metadata, "labels");
    clean_suffixed(metadata, "annotations");
    for reference in list_of(metadata.remove("ownerReferences")) {
        set_owner(metadata, &reference);
    }
    if let Some(owner) = &marks.owner {
        set_owner(metadata, owner);
    }
    mark(metadata, Some(&hash));
    object
}

/// Decides for an existing object.
pub fn decide(required: &Value, live: &Value, marks: &Marks) -> Decision {
    let kind = required["kind"].as_str().unwrap_or_default();
    let core = required["apiVersion"].as_str() == Some("v1");
    let hash = manifest::hash(required);
    let known = live["metadata"]["labels"][labels::OBJECT_HASH].as_str();
    if core && kind == "Secret" && typed::must_recreate_secret(required, live) {
        return Decision::Recreate;
    }
    let plain = core && matches!(kind, "ConfigMap" | "Secret");
    let metadata_only = core && matches!(kind, "Pod" | "ServiceAccount");
    let (mut doubt, mut covered) = (false, false);
    let mut target = if metadata_only {
        live.clone()
    } else if known.is_some_and(|k| k != hash) {
        typed::replaced(required, live)
    } else {
        let mut target = overlaid(live, required);
        covered = same(&target, live);
        for entry in live["metadata"]["managedFields"].as_array().into_iter().flatten() {
            if is_foreign(entry) || (known.is_none() && is_former(entry, plain)) {
                doubt |= take_back(&mut target, Some(required), &entry["fieldsV1"], true) && covered;
            }
        }
        target
    };
    if !metadata_only {
        typed::keep(required, live, &mut target);
    }
    target["metadata"] = merged_metadata(required, live, marks, &hash);
    if let Some(status) = live.get("status") {
        target["status"] = status.clone();
    } else if let Some(object) = target.as_object_mut() {
        object.remove("status");
    }
    if doubt && same(&target["metadata"], &live["metadata"]) {
        Decision::ReplaceIfOther(target, Doubt::Within)
    } else if same(&target, live) && keeps_empties(required) && !exactly(&target, live) {
        // Kinds that are served by others than Kubernetes may drop what is empty, too.
        Decision::ReplaceIfOther(target, Doubt::Within)
    } else if same(&target, live) {
        Decision::Keep
    } else if covered && !plain && same(&target["metadata"], &live["metadata"]) {
        Decision::ReplaceIfOther(target, Doubt::Beside)
    } else {
        Decision::Replace(target)
    }
}

/// Only labels, annotations and owner references: for strategies that leave the rest to others.
pub fn decide_marks(live: &Value, marks: &Marks) -> Option<Value> {
    let mut target = live.clone();
    let metadata = map_at(&mut target, "metadata");
    apply_owner(metadata, marks);
    mark(metadata, None);
    (!same(&target, live)).then_some(target)
}

fn merged_metadata(required: &Value, live: &Value, marks: &Marks, hash: &str) -> Value {
    let mut metadata = live["metadata"].as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        for (key, value) in required["metadata"][field].as_object().into_iter().flatten() {
            let map = child(&mut metadata, field);
            match key.strip_suffix('-') {
                Some(removed) => {
                    map.remove(removed);
                }
                None => {
                    map.insert(key.clone(), value.clone());
                }
            }
        }
    }
    for reference in required["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
    {
        set_owner(&mut metadata, reference);
    }
    // Finalizers of an object that exists belong to the controllers that put them on and take them off.
    apply_owner(&mut metadata, marks);
    mark(&mut metadata, Some(hash));
    Value::Object(metadata)
}

fn apply_owner(metadata: &mut Map<String, Value>, marks: &Marks) {
    if let Some(owner) = &marks.owner {
        set_owner(metadata, owner);
    }
    if let (Some(uid), Some(Value::Array(owners))) =
        (&marks.disowned_uid, metadata.get_mut("ownerReferences"))
    {
        owners.retain(|o| o["uid"].as_str() != Some(uid));
        if owners.is_empty() {
            metadata.remove("ownerReferences");
        }
    }
}

fn set_owner(metadata: &mut Map<String, Value>, owner: &Value) {
    let mut owners = list_of(metadata.remove("ownerReferences"));
    if let Some(removed) = removed_owner(owner) {
        owners.retain(|o| o["uid"].as_str() != Some(removed));
    } else if !owners.iter().any(|o| o["uid"] == owner["uid"]) {
        owners.push(owner.clone());
    }
    if !owners.is_empty() {
        metadata.insert("ownerReferences".to_owned(), owners.into());
    }
}

/// The UID of the owner that an owner reference of a manifest takes off: it ends in `-`, as keys of labels do.
pub fn removed_owner(reference: &Value) -> Option<&str> {
    reference["uid"].as_str()?.strip_suffix('-')
}

fn list_of(list: Option<Value>) -> Vec<Value> {
    match list {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn mark(metadata: &mut Map<String, Value>, hash: Option<&str>) {
    let marks = child(metadata, "labels");
    marks.insert(labels::APPLIED.to_owned(), "true".into());
    if let Some(hash) = hash {
        marks.insert(labels::OBJECT_HASH.to_owned(), hash.into());
    }
}

fn clean_suffixed(metadata: &mut Map<String, Value>, field: &str) {
    if let Some(Value::Object(map)) = metadata.get_mut(field) {
        map.retain(|key, _| !key.ends_with('-'));
    }
}

fn child<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let slot = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("made an object just above"),
    }
}

fn map_at<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    match object {
        Value::Object(map) => child(map, key),
        _ => unreachable!("made an object just above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn live_of(required: &Value) -> Value {
        let mut live = created(required, &Marks::default());
        live["metadata"]["uid"] = "u1".into();
        live["metadata"]["resourceVersion"] = "5".into();
        live
    }

    fn edited(live: &Value, path: &str, value: Value) -> Value {
        let mut out = live.clone();
        let (parent, last) = path.rsplit_once('/').unwrap();
        out.pointer_mut(parent).unwrap()[last] = value;
        out
    }

    fn by(manager: &str, fields: &Value) -> Value {
        json!([{"manager": manager, "operation": "Update", "fieldsV1": fields}])
    }

    #[test]
    fn what_left_the_manifest_before_its_hash_was_written_goes_and_defaults_stay() {
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}});
        let mut live = map.clone();
        live["data"]["former"] = json!("x");
        live["metadata"]["managedFields"] = by("work", &json!({"f:data": {"f:k": {}, "f:former": {}}}));
        let Decision::Replace(new) = decide(&map, &live, &Marks::default()) else {
            panic!("it stays as it is");
        };
        assert_eq!(new["data"], json!({"k": "1"}));

        let thing =
            json!({"apiVersion": "g/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"size": 1}});
        let mut live = thing.clone();
        live["spec"]["colour"] = json!("grey");
        let fields = json!({"f:spec": {"f:size": {}, "f:colour": {}}});
        live["metadata"]["managedFields"] = by("work", &fields);
        let spec = |live: &Value| match decide(&thing, live, &Marks::default()) {
            Decision::Replace(new) => new["spec"].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(spec(&live), live["spec"], "it may be a default");
        live["metadata"]["managedFields"] = by(FIELD_MANAGER, &fields);
        live["metadata"]["managedFields"][0]["operation"] = json!("Apply");
        assert_eq!(spec(&live), thing["spec"]);
    }

    #[test]
    fn what_was_created_is_kept() {
        let required =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        assert_eq!(
            decide(&required, &live_of(&required), &Marks::default()),
            Decision::Keep
        );
    }

    #[test]
    fn the_servers_defaults_are_kept() {
        let required = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
            "spec": {"replicas": 1, "template": {"spec": {"containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}}}]}}}});
        let mut live = live_of(&required);
        live["spec"]["strategy"] = json!({"type": "RollingUpdate"});
        live["spec"]["template"]["spec"]["containers"][0] = json!({"name": "c", "imagePullPolicy": "Always",
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}});
        live["status"] = json!({"replicas": 1});
        assert_eq!(decide(&required, &live, &Marks::default()), Decision::Keep);
    }

    #[test]
    fn what_is_empty_means_something_in_custom_resources() {
        let required = json!({"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "a"},
            "spec": {"selfSigned": {}, "deep": {"x": {"y": {}}}, "el": [], "nothing": null}});
        let mut live = live_of(&required);
        live["spec"].as_object_mut().unwrap().remove("nothing");
        assert_eq!(decide(&required, &live, &Marks::default()), Decision::Keep);
        let without = |path: &str| {
            let mut live = live.clone();
            let (parent, last) = path.rsplit_once('/').unwrap();
            live.pointer_mut(parent)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove(last);
            live
        };
        let mut added = edited(&live, "/spec/extra", json!({}));
        added["metadata"]["managedFields"] = by("kubectl", &json!({"f:spec": {"f:extra": {}}}));
        for changed in [
            without("/spec/selfSigned"),
            without("/spec/deep/x/y"),
            without("/spec/el"),
            added,
        ] {
            let (Decision::ReplaceIfOther(target, _) | Decision::Replace(target)) =
                decide(&required, &changed, &Marks::default())
            else {
                panic!("kept {changed}")
            };
            assert_eq!(target["spec"], live["spec"], "{changed}");
            assert!(!covers(&changed, &required) || changed["spec"]["extra"].is_object());
        }
        // Kubernetes' own types drop them.
        let required = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
            "spec": {"template": {"spec": {"securityContext": {}, "volumes": []}}}});
        let mut live = live_of(&required);
        live["spec"]["template"]["spec"] = json!({});
        assert_eq!(decide(&required, &live, &Marks::default()), Decision::Keep);
    }

    #[test]
    fn finalizers_of_an_object_that_exists_stay_as_they_are() {
        let required = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "a", "finalizers": ["x/given"]}, "data": {"k": "v"}});
        assert_eq!(
            created(&required, &Marks::default())["metadata"]["finalizers"],
            json!(["x/given"])
        );
        let mut live = live_of(&required);
        for finalizers in [json!([]), json!(["x/theirs"])] {
            live["metadata"]["finalizers"] = finalizers.clone();
            assert_eq!(decide(&required, &live, &Marks::default()), Decision::Keep);
            let edited = edited(&live, "/data/k", json!("w"));
            let Decision::Replace(target) = decide(&required, &edited, &Marks::default()) else {
                panic!("kept")
            };
            assert_eq!(target["metadata"]["finalizers"], finalizers);
        }
    }

    #[test]
    fn edits_are_taken_back() {
        let required = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        let live = live_of(&required);
        let cases = [
            edited(&live, "/spec/replicas", json!(3)),
            edited(&live, "/spec/template/spec/containers/0/image", json!("i:2")),
            edited(&live, "/metadata/labels/x", json!("z")),
            edited(&live, "/spec/template/spec/containers", json!([])),
        ];
        for changed in cases {
            let Decision::Replace(target) = decide(&required, &changed, &Marks::default()) else {
                panic!("kept {changed}")
            };
            assert!(same(&target, &live), "{target}");
        }
    }

    #[test]
    fn fields_others_added_are_taken_back_but_not_the_control_planes() {
        let required = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
            "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        let live = live_of(&required);
        let mut changed = live.clone();
        changed["spec"]["paused"] = true.into();
        changed["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "1"}]);
        let fields = json!({"f:spec": {"f:paused": {}, "f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"c\"}": {"f:env": {".": {}, "k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}}}}}}}});
        changed["metadata"]["managedFields"] = by("kubectl-edit", &fields);
        // Who made an object has the server's defaults in its name: whether it is one only the server knows.
        let Decision::ReplaceIfOther(target, Doubt::Beside) = decide(&required, &changed, &Marks::default())
        else {
            panic!("kept, or not asked")
        };
        assert!(same(&target, &live), "{target}");
        // What is other anyway is not asked about.
        let other = edited(&changed, "/spec/template/spec/containers/0/image", json!("i:2"));
        let decision = decide(&required, &other, &Marks::default());
        assert!(matches!(decision, Decision::Replace(_)), "{decision:?}");
        changed["metadata"]["managedFields"] = by("kube-controller-manager", &fields);
        assert_eq!(decide(&required, &changed, &Marks::default()), Decision::Keep);
    }

    #[test]
    fn what_others_put_into_an_atomic_list_is_asked_about() {
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "a"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
        let mut live = live_of(&role);
        live["rules"][0]["resourceNames"] = json!(["one"]);
        let owned = |manager: &str| {
            let mut live = live.clone();
            live["metadata"]["managedFields"] = by(manager, &json!({"f:rules": {}}));
            live
        };
        let Decision::ReplaceIfOther(target, _) = decide(&role, &owned("somebody"), &Marks::default()) else {
            panic!("not asked")
        };
        assert_eq!(target["rules"], role["rules"]);
        for manager in [FIELD_MANAGER, "kube-controller-manager"] {
            assert_eq!(
                decide(&role, &owned(manager), &Marks::default()),
                Decision::Keep,
                "{manager}"
            );
        }
        // An empty selector is another one than none.
        let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "a"},
            "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"a": "b"}}}]}]}});
        let mut wide = live_of(&policy);
        wide["spec"]["ingress"][0]["from"][0]["namespaceSelector"] = json!({});
        wide["metadata"]["managedFields"] = by("somebody", &json!({"f:spec": {"f:ingress": {}}}));
        assert!(matches!(
            decide(&policy, &wide, &Marks::default()),
            Decision::ReplaceIfOther(..)
        ));
        // What is other for sure is not asked about.
        let mut more = owned("somebody");
        more["rules"][0]["verbs"] = json!(["get", "list"]);
        assert!(matches!(
            decide(&role, &more, &Marks::default()),
            Decision::Replace(_)
        ));
        // Nor is what somebody owns and left as it is.
        let mut same = live_of(&role);
        same["metadata"]["managedFields"] = by("somebody", &json!({"f:rules": {}}));
        assert_eq!(decide(&role, &same, &Marks::default()), Decision::Keep);
    }

    #[test]
    fn a_changed_manifest_replaces_and_drops_what_it_no_longer_has() {
        let old = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v", "l": "w"}});
        let new =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        let Decision::Replace(target) = decide(&new, &live_of(&old), &Marks::default()) else {
            panic!("kept")
        };
        assert_eq!(target["data"], json!({"k": "v"}));
        assert_eq!(target["metadata"]["resourceVersion"], "5");
    }

    #[test]
    fn a_changed_service_keeps_its_address_and_node_ports() {
        let manifest = |port: u16| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
                "spec": {"type": "NodePort", "ports": [{"port": port}], "selector": {"a": "b"}}})
        };
        let mut live = live_of(&manifest(80));
        live["spec"]["clusterIP"] = "10.0.0.1".into();
        live["spec"]["ports"][0] = json!({"port": 80, "protocol": "TCP", "nodePort": 30001});
        let mut new = manifest(80);
        new["spec"]["selector"] = json!({"a": "c"});
        let Decision::Replace(target) = decide(&new, &live, &Marks::default()) else {
            panic!("kept")
        };
        assert_eq!(target["spec"]["clusterIP"], "10.0.0.1");
        assert_eq!(target["spec"]["ports"][0]["nodePort"], 30001);
        assert_eq!(target["spec"]["selector"], json!({"a": "c"}));
    }

    #[test]
    fn what_is_added_to_plain_data_is_no_default() {
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}});
        let mut live = live_of(&map);
        live["data"]["added"] = json!("x");
        live["metadata"]["managedFields"] = by("somebody", &json!({"f:data": {"f:added": {}}}));
        let decision = decide(&map, &live, &Marks::default());
        assert!(matches!(decision, Decision::Replace(_)), "{decision:?}");
    }

    #[test]
    fn an_owner_with_a_minus_is_made_without_and_taken_off() {
        let mut required = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        let mut live = live_of(&required);
        live["metadata"]["ownerReferences"] = json!([{"kind": "Thing", "uid": "u"}]);
        required["metadata"]["ownerReferences"] = json!([{"kind": "Thing", "uid": "u-"}]);
        let object = created(&required, &Marks::default());
        assert!(object["metadata"].get("ownerReferences").is_none(), "{object}");
        let Decision::Replace(target) = decide(&required, &live, &Marks::default()) else {
            panic!("kept")
        };
        assert!(target["metadata"].get("ownerReferences").is_none(), "{target}");
    }

    #[test]
    fn owners_come_and_go() {
        let required = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        let owner = json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "AppliedManifestWork", "name": "w", "uid": "o1"});
        let marks = Marks {
            owner: Some(owner.clone()),
            disowned_uid: None,
        };
        let Decision::Replace(owned) = decide(&required, &live_of(&required), &marks) else {
            panic!("kept")
        };
        assert_eq!(owned["metadata"]["ownerReferences"], json!([owner]));
        assert_eq!(decide(&required, &owned, &marks), Decision::Keep);
        let marks = Marks {
            owner: None,
            disowned_uid: Some("o1".into()),
        };
        let Decision::Replace(free) = decide(&required, &owned, &marks) else {
            panic!("kept")
        };
        assert!(free["metadata"].get("ownerReferences").is_none());
    }

    #[test]
    fn labels_with_a_trailing_dash_are_removed() {
        let required = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"gone-": ""}}});
        let mut live = live_of(&required);
        live["metadata"]["labels"]["gone"] = "x".into();
        let Decision::Replace(target) = decide(&required, &live, &Marks::default()) else {
            panic!("kept")
        };
        assert!(target["metadata"]["labels"].get("gone").is_none());
    }

    #[test]
    fn a_secret_of_another_type_is_made_anew() {
        let secret =
            |t: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "type": t});
        assert_eq!(
            decide(&secret("b"), &live_of(&secret("a")), &Marks::default()),
            Decision::Recreate
        );
        assert_eq!(
            decide(&secret("a"), &live_of(&secret("a")), &Marks::default()),
            Decision::Keep
        );
        let fixed = |value: &str| {
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "immutable": true,
                "data": {"k": value}})
        };
        assert_eq!(
            decide(&fixed("Yg=="), &live_of(&fixed("YQ==")), &Marks::default()),
            Decision::Recreate
        );
        // The same bytes in other lines.
        let mut live = live_of(&fixed("Y\nQ=="));
        live["data"]["k"] = json!("YQ==");
        assert_ne!(
            decide(&fixed("Y\nQ=="), &live, &Marks::default()),
            Decision::Recreate
        );
        let mut token = fixed("YQ==");
        token["type"] = json!("kubernetes.io/service-account-token");
        let mut live = live_of(&token);
        live["data"]["token"] = json!("dA==");
        assert_eq!(decide(&token, &live, &Marks::default()), Decision::Keep);
    }
}
