//! MutatingAdmissionPolicies.

use super::{create, map, registration, rules};
use crate::registry::Registry;
use crate::rest::Api;
use serde_json::{Value, json};

/// A bound policy over new ConfigMaps and pods.
async fn policy(api: &Api, name: &str, spec: Value) {
    let resources = json!([
        rules("configmaps", &["CREATE", "UPDATE"])[0],
        rules("pods", &["CREATE"])[0]
    ]);
    let mut whole = json!({"matchConstraints": {"resourceRules": resources}, "reinvocationPolicy": "Never"});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let policy = registration("MutatingAdmissionPolicy", name, json!({"spec": whole}));
    create(api, policy).await.unwrap();
    let bound = json!({"spec": {"policyName": name}});
    create(api, registration("MutatingAdmissionPolicyBinding", name, bound))
        .await
        .unwrap();
}

fn configuration(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

#[tokio::test]
async fn a_policy_changes_what_is_written() {
    let one = |mutation: Value| json!({"mutations": [mutation]});
    let with = |mutation: Value, key: &str, value: Value| json!({"mutations": [mutation], key: value});
    let denied = |why: &str| Err(format!("policy 'p' with binding 'p' denied request: {why}"));
    for (spec, want) in [
        (
            one(configuration(
                "Object{data: {'l': object.data.k + request.operation}}",
            )),
            Ok(json!({"k": "v", "l": "vCREATE"})),
        ),
        (one(configuration("Object{}")), Ok(json!({"k": "v"}))),
        (
            with(
                configuration("Object{data: {?'a': optional.of(variables.w), ?'b': object.data.?b}}"),
                "variables",
                json!([{"name": "w", "expression": "object.data.k + namespaceObject.metadata.name"}]),
            ),
            Ok(json!({"k": "v", "a": "vdefault"})),
        ),
        (
            json!({"mutations": [configuration("Object{data: {'a': '1'}}"), patch(
                "[JSONPatch{op: 'add', path: '/data/b', value: object.data.a}, JSONPatch{op: 'remove', path: '/data/k'}]"
            )]}),
            Ok(json!({"a": "1", "b": "1"})),
        ),
        (
            one(patch(
                "object.data.map(k, JSONPatch{op: 'remove', path: '/data/' + jsonpatch.escapeKey(k)})",
            )),
            Ok(Value::Null),
        ),
        (
            one(patch(
                "[JSONPatch{op: 'test', path: '/data/k', value: 'x'}, JSONPatch{op: 'remove', path: '/data/k'}]",
            )),
            Ok(json!({"k": "v"})),
        ),
        (
            with(
                configuration("Object{data: {'l': 'w'}}"),
                "matchConditions",
                json!([{"name": "no", "expression": "object.data.k == 'other'"}]),
            ),
            Ok(json!({"k": "v"})),
        ),
        (
            one(configuration("Object{data: Object.dada{l: 'w'}}")),
            denied(
                "type mismatch: unexpected type name \"Object.dada\", expected \"Object.data\", which matches field name path from root Object type",
            ),
        ),
        (
            one(configuration("Object{frob: 1}")),
            denied(
                "error applying patch: failed to convert patch object to typed object: .frob: field not declared in schema",
            ),
        ),
        (
            one(configuration(
                "Object{metadata: Object.metadata{ownerReferences: [Object.metadata.ownerReferences{uid: 'u'}]}}",
            )),
            denied(
                "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .metadata.ownerReferences[0]",
            ),
        ),
        (
            one(configuration("Object{data: {'l': object.nope}}")),
            denied("expression 'Object{data: {'l': object.nope}}' resulted in error: no such key: nope"),
        ),
        (
            json!({
                "mutations": [configuration("Object{data: {'l': object.nope}}"), configuration("Object{data: {'m': '1'}}")],
                "failurePolicy": "Ignore",
            }),
            Ok(json!({"k": "v", "m": "1"})),
        ),
        (
            one(patch("[JSONPatch{op: 'remove', path: '/data/nope'}]")),
            denied(
                "JSON Patch: error in remove for path: '/data/nope': Unable to remove nonexistent key: nope: missing value",
            ),
        ),
        (
            one(patch("[JSONPatch{op: 'add', path: '/frob', value: 1}]")),
            Err("Internal error occurred: strict decoding error: unknown field \"frob\"".to_owned()),
        ),
    ] {
        let api = super::api().await;
        policy(&api, "p", spec.clone()).await;
        let made = create(&api, map("m", json!({"k": "v"}))).await;
        let made = made
            .map(|object| object["data"].clone())
            .map_err(|e| e.status()["message"].as_str().unwrap().to_owned());
        assert_eq!(made, want, "{spec}");
    }
}

#[tokio::test]
async fn policies_that_ask_for_it_see_what_others_did() {
    let append = |letter: &str, again: &str| {
        let before = "object.data.?n.orValue('')";
        json!({"mutations": [configuration(&format!("Object{{data: {{'n': string({before}) + '{letter}'}}}}"))], "reinvocationPolicy": again})
    };
    for (policies, want) in [
        (vec![append("a", "Never")], "-a"),
        (vec![append("a", "IfNeeded")], "-aa"),
        (vec![append("a", "IfNeeded"), append("b", "Never")], "-aba"),
        (vec![append("a", "Never"), append("b", "IfNeeded")], "-abb"),
    ] {
        let api = super::api().await;
        for (i, spec) in policies.into_iter().enumerate() {
            policy(&api, &format!("p{i}"), spec).await;
        }
        let made = create(&api, map("m", json!({"n": "-"}))).await.unwrap();
        assert_eq!(made["data"]["n"], want);
    }
}

#[tokio::test]
async fn what_the_server_fills_in_is_held_against_a_changed_pod() {
    let api = super::api().await;
    let spec = "Object{spec: Object.spec{priorityClassName: 'system-node-critical'}}";
    policy(&api, "p", json!({"mutations": [configuration(spec)]})).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let refused = create(&api, pod).await.unwrap_err();
    let message = refused.status()["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("the integer value of priority (0) must not be provided"),
        "{message}"
    );
}

#[tokio::test]
async fn nobody_owns_what_a_policy_sets() {
    let api = super::api().await;
    let label = configuration("Object{metadata: Object.metadata{labels: {'by': 'policy'}}}");
    policy(&api, "p", json!({"mutations": [label]})).await;
    let made = create(&api, map("m", json!({"k": "v"}))).await.unwrap();
    assert_eq!(made["metadata"]["labels"], json!({"by": "policy"}));
    let owned = made["metadata"]["managedFields"][0]["fieldsV1"].to_string();
    assert!(owned.contains("f:k") && !owned.contains("f:by"), "{owned}");
}

#[tokio::test]
async fn parameters_are_looked_up() {
    for (name, action, want) in [
        ("params", "Deny", Ok(json!({"k": "v", "from": "here"}))),
        ("others", "Allow", Ok(json!({"k": "v"}))),
        (
            "others",
            "Deny",
            Err((
                "policy 'p' with binding 'b' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction",
                "Forbidden",
            )),
        ),
    ] {
        let api = super::api().await;
        create(&api, map("params", json!({"x": "here"}))).await.unwrap();
        let spec = json!({
            "matchConstraints": {"resourceRules": rules("configmaps", &["CREATE"])}, "reinvocationPolicy": "Never",
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "mutations": [configuration("Object{data: {'from': string(params.data.x)}}")],
        });
        create(
            &api,
            registration("MutatingAdmissionPolicy", "p", json!({"spec": spec})),
        )
        .await
        .unwrap();
        let bound = json!({"policyName": "p", "paramRef": {"name": name, "parameterNotFoundAction": action}});
        let binding = registration("MutatingAdmissionPolicyBinding", "b", json!({"spec": bound}));
        create(&api, binding).await.unwrap();
        let made = create(&api, map("m", json!({"k": "v"}))).await;
        let made = made.map(|object| object["data"].clone()).map_err(|e| {
            let status = e.status();
            let text = |key: &str| status[key].as_str().unwrap().to_owned();
            (text("message"), text("reason"))
        });
        let want = want.map_err(|(message, reason)| (message.to_owned(), reason.to_owned()));
        assert_eq!(made, want, "{name} {action}");
    }
}

#[test]
fn policies_are_checked_when_they_are_written() {
    let registry = Registry::new();
    let r = registry
        .find("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies")
        .unwrap();
    let refused = |change: &dyn Fn(&mut Value)| {
        let spec = json!({
            "failurePolicy": "Fail", "reinvocationPolicy": "Never", "mutations": [configuration("Object{}")],
            "matchConstraints": {"resourceRules": rules("configmaps", &["CREATE"])},
        });
        let mut policy = registration("MutatingAdmissionPolicy", "p", json!({"spec": spec}));
        change(&mut policy["spec"]);
        crate::registry::strategy::default(&r, &mut policy);
        let errors = crate::registry::strategy::validate_create(&r, &policy);
        let lines: Vec<String> = errors
            .into_iter()
            .map(|e| format!("{}: {}", e.field, e.message))
            .collect();
        lines.join(" | ")
    };
    let set = |pointer: &'static str, value: Value| {
        refused(&|spec: &mut Value| *spec.pointer_mut(pointer).unwrap() = value.clone())
    };
    let mutation = |value: Value| set("/mutations/0", value);
    let at = "spec.mutations[0]";
    let dots = |n: usize| ".".repeat(n);
    for (found, want) in [
        (set("/reinvocationPolicy", json!("Never")), String::new()),
        (set("/reinvocationPolicy", json!("")), "spec.reinvocationPolicy: Required value".into()),
        (
            set("/reinvocationPolicy", json!("Frob")),
            "spec.reinvocationPolicy: Unsupported value: \"Frob\": supported values: \"IfNeeded\", \"Never\"".into(),
        ),
        (
            set("/mutations", json!([])),
            "spec.mutations: Required value: mutations must contain at least one item".into(),
        ),
        (
            set("/matchConstraints/resourceRules/0/operations/0", json!("DELETE")),
            "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"".into(),
        ),
        (mutation(json!({})), format!("{at}.patchType: Required value")),
        (
            mutation(json!({"patchType": "Frob"})),
            format!("{at}.patchType: Unsupported value: \"Frob\": supported values: \"ApplyConfiguration\", \"JSONPatch\""),
        ),
        (
            mutation(json!({"patchType": "JSONPatch", "applyConfiguration": {"expression": "Object{}"}})),
            format!("{at}.jsonPatch: Required value: must be specified when patchType is JSONPatch | {at}.applyConfiguration: Invalid value: \"{{applyConfiguration}}\": must not be specified when patchType is JSONPatch"),
        ),
        (mutation(configuration(" ")), format!("{at}.applyConfiguration.expression: Required value")),
        (
            mutation(configuration("object")),
            format!("{at}.applyConfiguration.expression: Invalid value: \"object\": must evaluate to Object but got dyn"),
        ),
        (
            mutation(configuration("Foo{}")),
            format!("{at}.applyConfiguration.expression: Invalid value: \"Foo{{}}\": compilation failed: ERROR: <input>:1:4: undeclared reference to 'Foo' (in container '')\n | Foo{{}}\n | {}^", dots(3)),
        ),
        (
            mutation(configuration("Object.spec{}")),
            format!("{at}.applyConfiguration.expression: Invalid value: \"Object.spec{{}}\": must evaluate to Object but got Object.spec"),
        ),
        (
            mutation(patch("[]")),
            format!("{at}.jsonPatch.expression: Invalid value: \"[]\": must evaluate to list(JSONPatch) but got list(dyn)"),
        ),
        (
            mutation(patch("[JSONPatch{op: 1}]")),
            format!("{at}.jsonPatch.expression: Invalid value: \"[JSONPatch{{op: 1}}]\": compilation failed: ERROR: <input>:1:14: expected type of field 'op' is 'string' but provided type is 'int'\n | [JSONPatch{{op: 1}}]\n | {}^", dots(13)),
        ),
    ] {
        assert_eq!(found, want);
    }
}
