//! What changes keep, count and allocate.

use super::*;

type Edit = fn(&mut Value);

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
    let table: [(Edit, &[&str]); 6] = [
        (
            |c| c["metadata"]["name"] = "wrong.x.io".into(),
            &["metadata.name: Invalid value: \"wrong.x.io\": must be spec.names.plural+\".\"+spec.group"],
        ),
        (
            |c| {
                c["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] =
                    json!({"spec": {"properties": {"a": {"type": "string"}}}});
            },
            &[
                "spec.validation.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
            ],
        ),
        (
            |c| {
                c["spec"]["versions"] = json!([
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v2", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]);
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
