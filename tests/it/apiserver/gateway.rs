//! The Gateway API's own definitions, 295 CEL rules and all. They are large and not ours: `MUSTER_TEST_GATEWAY_CRDS` says
//! where the release's file is. What they use of CustomResourceDefinitions is in `script/crds.yaml` too.
//! Without the variable a file beside the checkout is taken, if there is one.

use crate::Result;
use anyhow::Context as _;
use muster_tests::control_plane::Role;
use muster_tests::{ControlPlane, objects};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The file of definitions, as a release of the Gateway API has it.
const FILE: &str = "MUSTER_TEST_GATEWAY_CRDS";

/// Where it is looked for otherwise.
const BESIDE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../shared/manifests/gateway-api-crds.yaml"
);

fn definitions() -> Option<PathBuf> {
    let named = std::env::var_os(FILE).map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(BESIDE)).filter(|beside| beside.is_file()))
}

/// What each other kind's rules refuse (plural, kind, spec, the rule's message); without a message it is accepted.
fn others() -> Vec<(&'static str, &'static str, Value, Option<&'static str>)> {
    let twice = json!({"parentRefs": [{"name": "g"}, {"name": "g"}], "rules": [{"backendRefs": [{"name": "s", "port": 80}]}]});
    let backend = |fields: Value| json!({"rules": [{"backendRefs": [fields]}]});
    let good = backend(json!({"name": "s", "port": 80}));
    let no_port = backend(json!({"name": "s"}));
    let tls = |host: &str| {
        let mut spec = backend(json!({"name": "s", "port": 80}));
        spec["hostnames"] = json!([host]);
        spec
    };
    let method = |method: Value| json!({"rules": [{"matches": [{"method": method}]}]});
    let filters = |filters: Value| json!({"rules": [{"filters": filters}]});
    let mirror = |fraction: Value| {
        filters(
            json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "s", "port": 80}, "fraction": fraction}}]),
        )
    };
    let header = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x"]}});
    let policy = |validation: Value| json!({"targetRefs": [{"group": "", "kind": "Service", "name": "s"}], "validation": validation});
    let names = |name: Value| {
        policy(json!({"hostname": "a.io", "wellKnownCACertificates": "System", "subjectAltNames": [name]}))
    };
    let set = |listeners: Value| json!({"parentRef": {"name": "g"}, "listeners": listeners});
    let port = Some("Must have port for Service reference");
    let unique =
        Some("sectionName must be unique when parentRefs includes 2 or more references to the same parent");
    vec![
        (
            "grpcroutes",
            "GRPCRoute",
            method(json!({"service": "a.B", "method": "C"})),
            None,
        ),
        (
            "grpcroutes",
            "GRPCRoute",
            method(json!({"type": "Exact"})),
            Some("One or both of 'service' or 'method' must be specified"),
        ),
        (
            "grpcroutes",
            "GRPCRoute",
            method(json!({"service": "a b"})),
            Some("service must only contain valid characters"),
        ),
        (
            "grpcroutes",
            "GRPCRoute",
            method(json!({"method": "1"})),
            Some("method must only contain valid characters"),
        ),
        (
            "grpcroutes",
            "GRPCRoute",
            filters(json!([header, header])),
            Some("RequestHeaderModifier filter cannot be repeated"),
        ),
        (
            "grpcroutes",
            "GRPCRoute",
            filters(json!([{"type": "ExtensionRef"}])),
            Some("filter.extensionRef must be specified for ExtensionRef filter.type"),
        ),
        (
            "grpcroutes",
            "GRPCRoute",
            mirror(json!({"numerator": 1, "denominator": 2})),
            None,
        ),
        (
            "grpcroutes",
            "GRPCRoute",
            mirror(json!({"numerator": 3, "denominator": 2})),
            Some("numerator must be less than or equal to denominator"),
        ),
        ("grpcroutes", "GRPCRoute", no_port.clone(), port),
        ("grpcroutes", "GRPCRoute", twice.clone(), unique),
        ("tcproutes", "TCPRoute", good.clone(), None),
        ("tcproutes", "TCPRoute", no_port.clone(), port),
        ("tcproutes", "TCPRoute", twice.clone(), unique),
        ("udproutes", "UDPRoute", good, None),
        ("udproutes", "UDPRoute", no_port, port),
        ("udproutes", "UDPRoute", twice, unique),
        ("tlsroutes", "TLSRoute", tls("*.a.io"), None),
        (
            "tlsroutes",
            "TLSRoute",
            tls("1.2.3.4"),
            Some("Hostnames cannot contain an IP"),
        ),
        (
            "backendtlspolicies",
            "BackendTLSPolicy",
            names(json!({"type": "Hostname", "hostname": "a.io"})),
            None,
        ),
        (
            "backendtlspolicies",
            "BackendTLSPolicy",
            policy(json!({"hostname": "a.io"})),
            Some("must specify either CACertificateRefs or WellKnownCACertificates"),
        ),
        (
            "backendtlspolicies",
            "BackendTLSPolicy",
            policy(
                json!({"hostname": "a.io", "wellKnownCACertificates": "System", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "c"}]}),
            ),
            Some("must not contain both CACertificateRefs and WellKnownCACertificates"),
        ),
        (
            "backendtlspolicies",
            "BackendTLSPolicy",
            names(json!({"type": "Hostname"})),
            Some("SubjectAltName element must contain Hostname, if Type is set to Hostname"),
        ),
        (
            "backendtlspolicies",
            "BackendTLSPolicy",
            names(json!({"type": "Hostname", "hostname": "a.io", "uri": "spiffe://a/b"})),
            Some("SubjectAltName element must not contain URI, if Type is not set to URI"),
        ),
        (
            "listenersets",
            "ListenerSet",
            set(json!([{"name": "a", "protocol": "HTTP", "port": 80}])),
            None,
        ),
        (
            "listenersets",
            "ListenerSet",
            set(json!([{"name": "a", "protocol": "TCP", "port": 80, "hostname": "a.io"}])),
            Some("hostname must not be specified for protocols ['TCP', 'UDP']"),
        ),
        (
            "listenersets",
            "ListenerSet",
            set(json!([{"name": "a", "protocol": "TLS", "port": 80}])),
            Some("tls mode must be set for protocol TLS"),
        ),
        (
            "listenersets",
            "ListenerSet",
            set(
                json!([{"name": "a", "protocol": "HTTP", "port": 80}, {"name": "b", "protocol": "HTTP", "port": 80}]),
            ),
            Some("Combination of port, protocol and hostname must be unique for each listener"),
        ),
        (
            "referencegrants",
            "ReferenceGrant",
            json!({"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "a"}], "to": [{"group": "", "kind": "Service"}]}),
            None,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_api_is_served_and_its_rules_hold() -> Result {
    let Some(file) = definitions() else {
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
    for (plural, kind, spec, why) in others() {
        let sent = object(kind, spec);
        match (kube.create(&folder(plural), &sent).await, why) {
            (Ok(_), None) => {}
            (Err(refused), Some(why)) if refused.message.contains(why) => {}
            (answer, _) => anyhow::bail!("{sent}: {answer:?} is not {why:?}"),
        }
    }
    // A rule of what was there before.
    let classes = "/apis/gateway.networking.k8s.io/v1/gatewayclasses";
    let mut class = kube
        .create(
            classes,
            &object("GatewayClass", json!({"controllerName": "a.io/b"})),
        )
        .await?;
    let path = format!(
        "{classes}/{}",
        class["metadata"]["name"].as_str().context("a name")?
    );
    class["spec"]["description"] = "changed".into();
    let mut class = kube.replace(&path, &class).await?;
    class["spec"]["controllerName"] = "a.io/c".into();
    let answer = kube.replace(&path, &class).await;
    let says = answer.as_ref().err().map(|refused| refused.message.as_str());
    anyhow::ensure!(
        says.is_some_and(|says| says.contains("field is immutable")),
        "{answer:?}"
    );
    for name in names {
        kube.delete(&format!("{}/{name}", objects::CRDS)).await?;
    }
    Ok(())
}
