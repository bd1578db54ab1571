#![allow(clippy::needless_pass_by_value)] // short calls with json!

use super::{deployment, gadget};
use crate::patch::{json_patch, steps};
use crate::patch::{merge_patch, strategic_merge};
use serde_json::{Value, json};

#[test]
fn a_json_patch_makes_nothing_too_deep_for_the_stack() {
    let chain = (0..100).fold(json!({}), |inner, _| json!({"a": inner}));
    let end = "/a".repeat(100);
    let mut operations = vec![json!({"op": "add", "path": "/m", "value": {}})];
    for _ in 0..300 {
        operations.push(json!({"op": "add", "path": "/c", "value": chain}));
        operations.push(json!({"op": "move", "from": "/m", "path": format!("/c{end}/a")}));
        operations.push(json!({"op": "move", "from": "/c", "path": "/m"}));
    }
    let refused = json_patch(&json!({}), Value::from(operations.clone()).to_string().as_bytes()).unwrap_err();
    assert!(refused.to_string().contains("error in our request"), "{refused}");
    assert!(steps(&json!({}), operations[..30].to_vec()).is_err());
    assert!(steps(&json!({}), operations[..4].to_vec()).unwrap().is_some());
}

#[test]
fn json_patch_answers_like_kube_apiserver() {
    let object = json!({"data": {"j": "1"}});
    let patched = json_patch(
        &object,
        br#"[{"op":"add","path":"/data/k","value":"2"},{"op":"test","path":"/data/j","value":"1"}]"#,
    );
    assert_eq!(patched.unwrap(), json!({"data": {"j": "1", "k": "2"}}));
    let generic = "the server rejected our request due to an error in our request";
    let cases: [(&str, u16, &str); 7] = [
        (r#"[{"op":"test","path":"/data/j","value":"2"}]"#, 422, generic),
        (r#"[{"op":"remove","path":"/data/none"}]"#, 422, generic),
        (r#"[{"op":"frob","path":"/data/j"}]"#, 422, generic),
        (r#"[{"op":"add"}]"#, 422, generic),
        (
            r#"{"op":"add"}"#,
            400,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        (
            "[1]",
            400,
            "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
        ),
        ("[", 400, "error decoding patch: unexpected end of JSON input"),
    ];
    for (patch, code, message) in cases {
        let refused = json_patch(&object, patch.as_bytes()).unwrap_err();
        assert_eq!(
            (refused.code(), refused.to_string().as_str()),
            (code, message),
            "{patch}"
        );
    }
    let status = json_patch(&object, br#"[{"op":"remove","path":"/x"}]"#)
        .unwrap_err()
        .status();
    assert_eq!(
        (&status["reason"], &status["details"]),
        (&json!("Invalid"), &json!({}))
    );
    let long = Value::Array(vec![
        json!({"op": "test", "path": "/data/j", "value": "1"});
        10_001
    ]);
    assert_eq!(
        json_patch(&object, long.to_string().as_bytes())
            .unwrap_err()
            .code(),
        413
    );
}

#[test]
fn merge_patch_follows_rfc_7386() {
    let cases = [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (
            json!({"a": {"b": "c"}}),
            json!({"a": {"b": "d", "c": null}}),
            json!({"a": {"b": "d"}}),
        ),
        (json!(["a"]), json!({"x": {"y": null}}), json!({"x": {}})),
        (json!({"a": 1}), json!(["c"]), json!(["c"])),
    ];
    for (object, patch, expected) in cases {
        assert_eq!(merge_patch(&object, &patch), expected, "{patch}");
    }
}

fn pod(spec: Value) -> Value {
    json!({"spec": {"template": {"spec": spec}}})
}

#[test]
fn strategic_merge_follows_the_directives() {
    let c = json!({"name": "c", "image": "nginx:1", "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "env": [{"name": "E", "value": "1"}]});
    let cases = [
        // New items come before what is there.
        (
            pod(json!({"containers": [c]})),
            pod(json!({"containers": [{"name": "side", "image": "busybox"}]})),
            pod(json!({"containers": [{"name": "side", "image": "busybox"}, c]})),
        ),
        (
            pod(json!({"containers": [{"name": "s"}, c]})),
            pod(
                json!({"containers": [{"name": "c", "ports": [{"containerPort": 81}], "env": [{"name": "F"}]}]}),
            ),
            pod(
                json!({"containers": [{"name": "s"}, {"name": "c", "image": "nginx:1",
                "ports": [{"containerPort": 81}, {"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "F"}, {"name": "E", "value": "1"}]}]}),
            ),
        ),
        (
            pod(json!({"containers": [{"name": "s"}, {"name": "c"}]})),
            pod(json!({"containers": [{"name": "s", "$patch": "delete"}]})),
            pod(json!({"containers": [{"name": "c"}]})),
        ),
        (
            pod(json!({"containers": [{"name": "c", "image": "1", "env": [{"name": "E"}]}]})),
            pod(
                json!({"containers": [{"name": "c", "image": "2", "env": [{"$patch": "replace"}, {"name": "G"}]}]}),
            ),
            pod(json!({"containers": [{"name": "c", "image": "2", "env": [{"name": "G"}]}]})),
        ),
        (
            pod(json!({"containers": [{"name": "c"}, {"name": "own"}]})),
            pod(
                json!({"$setElementOrder/containers": [{"name": "z"}, {"name": "c"}],
                "containers": [{"name": "z", "image": "z"}]}),
            ),
            pod(json!({"containers": [{"name": "z", "image": "z"}, {"name": "c"}, {"name": "own"}]})),
        ),
        (
            pod(json!({"volumes": [{"name": "v", "emptyDir": {}}]})),
            pod(
                json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}),
            ),
            pod(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]})),
        ),
        (
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        ),
        (
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}),
            json!({"metadata": {"finalizers": ["c", "b"]}}),
        ),
        (
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}, "annotations": {"x": null}}}),
            json!({"metadata": {"labels": {"c": "3"}, "annotations": {}}}),
        ),
        (
            json!({"spec": {"paused": true}}),
            json!({"spec": {"paused": null}}),
            json!({"spec": {}}),
        ),
        (
            json!({"spec": {"x": {"y": 1}}}),
            json!({"spec": {"x": {"$patch": "delete"}}}),
            json!({"spec": {"x": {}}}),
        ),
        // An atomic list is replaced.
        (
            pod(json!({"containers": [{"name": "c", "args": ["a", "b"]}]})),
            pod(json!({"containers": [{"name": "c", "args": ["z"]}]})),
            pod(json!({"containers": [{"name": "c", "args": ["z"]}]})),
        ),
    ];
    for (object, patch, expected) in cases {
        assert_eq!(
            strategic_merge(deployment(), &object, &patch).unwrap(),
            expected,
            "{patch}"
        );
    }
}

#[test]
fn strategic_merge_refuses() {
    let object = pod(json!({"containers": [{"name": "c"}]}));
    let cases = [
        (
            json!({"spec": {"$retainKeys": ["a"], "b": 1}}),
            400,
            "invalid patch format of retainKeys",
        ),
        (
            json!({"spec": {"$setElementOrder": []}}),
            400,
            "invalid patch format of setElementOrder list",
        ),
        (
            json!({"spec": {"$deleteFromPrimitiveList": []}}),
            400,
            "invalid patch format of primitive list",
        ),
        (
            json!({"spec": {"$patch": "frob"}}),
            500,
            "unknown patch type: frob in map: map[$patch:frob]",
        ),
        (
            pod(json!({"containers": [{"image": "x"}]})),
            500,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (json!([]), 400, "invalid JSON document"),
    ];
    for (patch, code, message) in cases {
        let refused = strategic_merge(deployment(), &object, &patch).unwrap_err();
        assert_eq!(
            (refused.code(), refused.to_string().as_str()),
            (code, message),
            "{patch}"
        );
    }
}

#[test]
fn merged_lists_keep_both_orders() {
    use crate::patch::{merge::merge, typed::Ty};
    let schema = gadget();
    let tags = |items: &[&str]| json!({"spec": {"tags": items}});
    let cases: [(&[&str], &[&str], &[&str]); 6] = [
        (&["a", "b", "c"], &["b", "x"], &["a", "b", "c", "x"]),
        (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
        (&["a", "b"], &["x", "b"], &["a", "x", "b"]),
        (&[], &["x"], &["x"]),
        (&["a"], &[], &["a"]),
        (
            &["a", "1", "b", "2", "c"],
            &["c", "b", "a"],
            &["1", "2", "c", "b", "a"],
        ),
    ];
    for (live, config, expected) in cases {
        let merged = merge(Ty::object(&schema), &tags(live), &tags(config));
        assert_eq!(merged, tags(expected), "{live:?} {config:?}");
    }
}
