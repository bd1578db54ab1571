//! The Gateway API's own definitions, 295 CEL rules and all. They are large and not ours: `MUSTER_TEST_GATEWAY_CRDS` says
//! where the release's file is. What they use of CustomResourceDefinitions is in `script/crds.yaml` too.

use crate::Result;
use anyhow::Context as _;
use muster_tests::control_plane::Role;
use muster_tests::{ControlPlane, objects};
use serde_json::{Value, json};

/// The file of definitions, as a release of the Gateway API has it.
const FILE: &str = "MUSTER_TEST_GATEWAY_CRDS";

#[tokio::test(flavor = "multi_thread")]
async fn gateway_api_is_served_and_its_rules_hold() -> Result {
    let Some(file) = std::env::var_os(FILE) else {
        eprintln!("skipped: {FILE} names no file");
        return Ok(());
    };
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let all: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let plane = ControlPlane::start("gateway", Role::Bare).await?;
    let kube = plane.kube();
    let mut names = Vec::new();
    for definition in all.iter().filter(|d| d["kind"] == "CustomResourceDefinition") {
        let name = definition["metadata"]["name"].as_str().context("a name")?;
        kube.apply(&format!("{}/{name}", objects::CRDS), "test", true, definition)
            .await?;
        names.push(name);
    }
    anyhow::ensure!(names.len() >= 10, "only {} definitions in the file", names.len());
    for name in &names {
        plane.until_served(name).await?;
    }
    let folder = |plural: &str| format!("/apis/gateway.networking.k8s.io/v1/namespaces/default/{plural}");
    let object = |kind: &str, spec: Value| json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"generateName": "g-"}, "spec": spec});
    let listener = |fields: Value| {
        let mut listener = json!({"name": "a", "protocol": "HTTP", "port": 80});
        for (key, value) in fields.as_object().into_iter().flatten() {
            listener[key] = value.clone();
        }
        object(
            "Gateway",
            json!({"gatewayClassName": "c", "listeners": [listener]}),
        )
    };
    let rule = |rule: Value| object("HTTPRoute", json!({"rules": [rule]}));
    let path = |value: &str| rule(json!({"matches": [{"path": {"type": "PathPrefix", "value": value}}]}));
    kube.create(&folder("gateways"), &listener(json!({"hostname": "a.io"})))
        .await?;
    kube.create(&folder("httproutes"), &path("/x")).await?;
    for (plural, refused, why) in [
        (
            "gateways",
            listener(json!({"protocol": "TCP", "hostname": "a.io"})),
            "hostname must not be specified",
        ),
        (
            "gateways",
            listener(json!({"tls": {"mode": "Passthrough"}})),
            "tls must not be specified",
        ),
        ("httproutes", path("x"), "value must be an absolute path"),
        ("httproutes", path("/a//b"), "must not contain '//'"),
        (
            "httproutes",
            rule(json!({"filters": [{"type": "RequestMirror"}]})),
            "filter.requestMirror must be specified",
        ),
        (
            "httproutes",
            rule(json!({"timeouts": {"request": "1s", "backendRequest": "2s"}})),
            "backendRequest timeout cannot be longer",
        ),
        (
            "httproutes",
            rule(json!({"backendRefs": [{"name": "s"}]})),
            "Must have port for Service reference",
        ),
        (
            "httproutes",
            object("HTTPRoute", json!({"parentRefs": [{"name": "g"}, {"name": "g"}]})),
            "sectionName must be unique",
        ),
    ] {
        let answer = kube.create(&folder(plural), &refused).await;
        let says = answer
            .as_ref()
            .err()
            .map(|refused| refused.message.clone())
            .unwrap_or_default();
        anyhow::ensure!(says.contains(why), "{refused}: no {why:?} in {answer:?}");
    }
    for name in names {
        kube.delete(&format!("{}/{name}", objects::CRDS)).await?;
    }
    Ok(())
}
