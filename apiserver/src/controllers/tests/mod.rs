//! Controllers against a whole API in memory; [`decisions`] has the tables.

mod decisions;
pub(crate) mod harness;

use super::*;
use crate::object;
use crate::rest::params::Propagation;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::Cluster;
use jiff::Timestamp;
use serde_json::json;

fn config_map(namespace: &str, name: &str, owners: &[&Value], finalizers: &[&str]) -> Value {
    let references: Vec<Value> = owners
        .iter()
        .map(|o| {
            json!({
                "apiVersion": o["apiVersion"], "kind": o["kind"], "name": o["metadata"]["name"],
                "uid": o["metadata"]["uid"], "blockOwnerDeletion": true,
            })
        })
        .collect();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": name, "namespace": namespace, "ownerReferences": references, "finalizers": finalizers,
        },
    })
}

const MAPS: &str = kinds::CONFIG_MAPS;

#[tokio::test]
async fn every_namespace_has_its_account_and_the_ca_and_gets_them_back() {
    let cluster = Cluster::start().await;
    cluster
        .create(kinds::NAMESPACES, json!({"metadata": {"name": "a"}}))
        .await;
    cluster
        .wait("the default account", || {
            cluster.get(kinds::SERVICE_ACCOUNTS, "a", "default")
        })
        .await;
    let map = cluster
        .wait("the CA", || cluster.get(MAPS, "a", namespace::ROOT_CA))
        .await;
    assert_eq!(map["data"]["ca.crt"], cluster.ca.pem());
    cluster
        .delete(kinds::SERVICE_ACCOUNTS, "a", "default", None)
        .await;
    cluster
        .wait("another default account", || {
            cluster.get(kinds::SERVICE_ACCOUNTS, "a", "default")
        })
        .await;
    let mut broken = map.clone();
    broken["data"]["ca.crt"] = "another".into();
    broken["metadata"]["resourceVersion"].take();
    cluster.update(MAPS, "", broken).await;
    let is_back = || {
        cluster
            .get(MAPS, "a", namespace::ROOT_CA)
            .filter(|m| m["data"] == map["data"])
    };
    cluster.wait("the CA as it was", is_back).await;
    // Nothing is written again once all is there.
    cluster.settle().await;
    let revision = cluster.api.store.revision();
    cluster.settle().await;
    assert_eq!(cluster.api.store.revision(), revision);
}

#[tokio::test]
async fn a_namespace_goes_with_all_in_it_once_nothing_holds_it() {
    let cluster = Cluster::start().await;
    cluster
        .create(kinds::NAMESPACES, json!({"metadata": {"name": "a"}}))
        .await;
    cluster
        .wait("the default account", || {
            cluster.get(kinds::SERVICE_ACCOUNTS, "a", "default")
        })
        .await;
    cluster.create(MAPS, config_map("a", "plain", &[], &[])).await;
    cluster
        .create(MAPS, config_map("a", "held", &[], &["x.io/hold"]))
        .await;
    cluster
        .create(MAPS, config_map("default", "elsewhere", &[], &[]))
        .await;
    cluster.delete(kinds::NAMESPACES, "", "a", None).await;
    let waiting = || {
        let namespace = cluster.get(kinds::NAMESPACES, "", "a")?;
        plan::is_true(&namespace, "NamespaceFinalizersRemaining").then_some(namespace)
    };
    let namespace = cluster.wait("the namespace to say what holds it", waiting).await;
    assert_eq!(namespace["status"]["phase"], "Terminating");
    let message = plan::condition(&namespace, "NamespaceContentRemaining").unwrap()["message"].clone();
    assert_eq!(
        message,
        "Some resources are remaining: configmaps. has 1 resource instances"
    );
    let message = plan::condition(&namespace, "NamespaceFinalizersRemaining").unwrap()["message"].clone();
    let want = "Some content in the namespace has finalizers remaining: x.io/hold in 1 resource instances";
    assert_eq!(message, want);
    assert!(cluster.get(MAPS, "a", "plain").is_none());
    let mut held = cluster.get(MAPS, "a", "held").unwrap();
    plan::remove_finalizer(&mut held, "x.io/hold");
    cluster.update(MAPS, "", held).await;
    cluster.gone(kinds::NAMESPACES, "", "a").await;
    cluster.settle().await;
    assert_eq!(cluster.names(MAPS, "a"), Vec::<String>::new());
    assert!(cluster.get(kinds::SERVICE_ACCOUNTS, "a", "default").is_none());
    assert!(cluster.get(MAPS, "default", "elsewhere").is_some());
}

#[tokio::test]
async fn dependents_go_with_their_last_owner_and_no_earlier() {
    let cluster = Cluster::start().await;
    let one = cluster.create(MAPS, config_map("default", "one", &[], &[])).await;
    let two = cluster.create(MAPS, config_map("default", "two", &[], &[])).await;
    let child = cluster
        .create(MAPS, config_map("default", "child", &[&one, &two], &[]))
        .await;
    cluster
        .create(MAPS, config_map("default", "grandchild", &[&child], &[]))
        .await;
    // A namespaced object of that name in another namespace is not the owner; an unknown kind decides nothing.
    let mut stranger = config_map("default", "stranger", &[], &[]);
    stranger["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "x.io/v1", "kind": "Frob", "name": "f", "uid": "u"}]);
    cluster.create(MAPS, stranger).await;
    cluster
        .create(kinds::NAMESPACES, json!({"metadata": {"name": "b"}}))
        .await;
    cluster
        .create(MAPS, config_map("b", "elsewhere", &[&two], &[]))
        .await;
    cluster.gone(MAPS, "b", "elsewhere").await;
    cluster.delete(MAPS, "default", "one", None).await;
    let with_one = || {
        let child = cluster.get(MAPS, "default", "child")?;
        (child["metadata"]["ownerReferences"].as_array()?.len() == 1).then_some(child)
    };
    cluster.wait("the child to forget its dead owner", with_one).await;
    cluster.delete(MAPS, "default", "two", None).await;
    cluster.gone(MAPS, "default", "child").await;
    cluster.gone(MAPS, "default", "grandchild").await;
    assert!(cluster.get(MAPS, "default", "stranger").is_some());
    // An object that is made with an owner already gone.
    cluster
        .create(MAPS, config_map("default", "late", &[&one], &[]))
        .await;
    cluster.gone(MAPS, "default", "late").await;
}

#[tokio::test]
async fn foreground_deletion_waits_for_dependents_and_orphaning_lets_them_be() {
    let cluster = Cluster::start().await;
    let owner = cluster
        .create(MAPS, config_map("default", "owner", &[], &[]))
        .await;
    let middle = cluster
        .create(MAPS, config_map("default", "middle", &[&owner], &[]))
        .await;
    cluster
        .create(MAPS, config_map("default", "leaf", &[&middle], &["x.io/hold"]))
        .await;
    cluster
        .delete(MAPS, "default", "owner", Some(Propagation::Foreground))
        .await;
    let leaf_goes = || {
        cluster
            .get(MAPS, "default", "leaf")
            .filter(crate::object::is_deleting)
    };
    let mut leaf = cluster.wait("the leaf to be deleted", leaf_goes).await;
    cluster.settle().await;
    assert!(
        cluster
            .get(MAPS, "default", "owner")
            .is_some_and(|o| crate::object::is_deleting(&o))
    );
    assert!(
        cluster
            .get(MAPS, "default", "middle")
            .is_some_and(|o| crate::object::is_deleting(&o))
    );
    plan::remove_finalizer(&mut leaf, "x.io/hold");
    cluster.update(MAPS, "", leaf).await;
    for name in ["leaf", "middle", "owner"] {
        cluster.gone(MAPS, "default", name).await;
    }
    let owner = cluster
        .create(MAPS, config_map("default", "owner", &[], &[]))
        .await;
    cluster
        .create(MAPS, config_map("default", "kept", &[&owner], &[]))
        .await;
    cluster
        .delete(MAPS, "default", "owner", Some(Propagation::Orphan))
        .await;
    cluster.gone(MAPS, "default", "owner").await;
    cluster.settle().await;
    let kept = cluster.get(MAPS, "default", "kept").unwrap();
    assert!(kept["metadata"]["ownerReferences"].is_null());
}

#[tokio::test]
async fn an_approved_request_is_signed_with_every_group() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let cluster = Cluster::start().await;
    let key = crate::pki::new_key().unwrap();
    let pem = crate::pki::request::write("agent", &["g1", "g2"], &key).unwrap();
    let csr = |name: &str, signer: &str| {
        json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {
                "request": STANDARD.encode(&pem), "signerName": signer, "expirationSeconds": 3600,
                "usages": ["client auth", "digital signature"],
            },
        })
    };
    for (name, signer) in [
        ("client", "kubernetes.io/kube-apiserver-client"),
        ("kubelet", "kubernetes.io/kube-apiserver-client-kubelet"),
        ("other", "x.io/signer"),
    ] {
        let mut made = cluster.create(kinds::CSRS, csr(name, signer)).await;
        made["status"] =
            json!({"conditions": [{"type": "Approved", "status": "True", "reason": "R", "message": "m"}]});
        cluster.update(kinds::CSRS, "approval", made).await;
    }
    let signed = || {
        let csr = cluster.get(kinds::CSRS, "", "client")?;
        csr["status"]["certificate"].as_str().map(str::to_owned)
    };
    let chain = STANDARD
        .decode(cluster.wait("the certificate", signed).await)
        .unwrap();
    let cert = crate::pki::ClientCert::from_der(pem::parse(&chain).unwrap().contents()).unwrap();
    assert_eq!(
        (cert.common_name.as_str(), cert.organizations),
        ("agent", vec!["g1".to_owned(), "g2".to_owned()])
    );
    let left = cert.not_after - cluster.api.clock.now().as_second();
    assert!((3500..=3600).contains(&left), "{left}");
    let failed = || {
        cluster
            .get(kinds::CSRS, "", "kubelet")
            .filter(|c| plan::is_true(c, "Failed"))
    };
    cluster.wait("the kubelet's request to fail", failed).await;
    cluster.settle().await;
    assert!(cluster.get(kinds::CSRS, "", "other").unwrap()["status"]["certificate"].is_null());
}

fn definition(plural: &str, kind: &str, short: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.x.io")},
        "spec": {
            "group": "x.io", "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "shortNames": [short]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

#[tokio::test]
async fn definitions_are_established_and_take_their_objects_with_them() {
    let cluster = Cluster::start().await;
    let established = |name: &'static str| {
        let cluster = &cluster;
        move || {
            cluster
                .get(kinds::CRDS, "", name)
                .filter(|c| plan::is_true(c, "Established"))
        }
    };
    cluster
        .create(kinds::CRDS, definition("gadgets", "Gadget", "gg"))
        .await;
    let crd = cluster
        .wait("gadgets to be served", established("gadgets.x.io"))
        .await;
    assert_eq!(crd["status"]["acceptedNames"]["listKind"], "GadgetList");
    assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
    // The same kind under another plural waits until the name is free.
    cluster
        .create(kinds::CRDS, definition("gizmos", "Gadget", "gz"))
        .await;
    let refused = || {
        let crd = cluster.get(kinds::CRDS, "", "gizmos.x.io")?;
        plan::condition(&crd, "NamesAccepted")
            .filter(|c| c["status"] == "False")
            .cloned()
    };
    let condition = cluster.wait("gizmos to be refused", refused).await;
    assert_eq!(condition["reason"], "ListKindConflict");
    assert_eq!(condition["message"], "\"GadgetList\" is already in use");
    let gadget = |name: &str, finalizers: &[&str]| {
        json!({
            "apiVersion": "x.io/v1", "kind": "Gadget",
            "metadata": {"name": name, "namespace": "default", "finalizers": finalizers},
        })
    };
    cluster.create("x.io/gadgets", gadget("plain", &[])).await;
    cluster
        .create("x.io/gadgets", gadget("held", &["x.io/hold"]))
        .await;
    cluster.delete(kinds::CRDS, "", "gadgets.x.io", None).await;
    cluster.gone("x.io/gadgets", "default", "plain").await;
    let going = || {
        cluster
            .get("x.io/gadgets", "default", "held")
            .filter(crate::object::is_deleting)
    };
    let mut held = cluster.wait("the held gadget to be deleted", going).await;
    let crd = cluster
        .get(kinds::CRDS, "", "gadgets.x.io")
        .expect("the definition waits for its objects");
    assert!(plan::is_true(&crd, "Terminating"));
    plan::remove_finalizer(&mut held, "x.io/hold");
    cluster.update("x.io/gadgets", "", held).await;
    cluster.gone(kinds::CRDS, "", "gadgets.x.io").await;
    cluster
        .wait("gizmos to be served", established("gizmos.x.io"))
        .await;
}

#[tokio::test]
async fn a_secret_gets_a_token_that_is_good_as_long_as_it_is_there() {
    let cluster = Cluster::start().await;
    cluster
        .create(
            kinds::SECRETS,
            json!({"type": account::TOKEN_TYPE, "metadata": {"name": "t", "namespace": "default",
                "annotations": {"kubernetes.io/service-account.name": "default"}}}),
        )
        .await;
    let token = cluster
        .wait("a token", || {
            let secret = cluster.get(kinds::SECRETS, "default", "t")?;
            secret["data"]["token"].as_str().map(str::to_owned)
        })
        .await;
    let token = STANDARD.decode(token).unwrap();
    let token = std::str::from_utf8(&token).unwrap();
    let who = || {
        cluster
            .api
            .authenticator
            .authenticate_token(token, &[], Timestamp::now())
    };
    assert_eq!(who().unwrap().user.name, "system:serviceaccount:default:default");
    let other = ["other".to_owned()];
    let foreign = cluster
        .api
        .authenticator
        .authenticate_token(token, &other, Timestamp::now());
    assert!(foreign.is_err());
    cluster.delete(kinds::SECRETS, "default", "t", None).await;
    assert!(who().is_err());
}

#[tokio::test]
async fn definitions_and_services_have_their_entries() {
    let cluster = Cluster::start().await;
    let available = |name: &str| {
        let service = cluster.get(served::API_SERVICES, "", name)?;
        plan::is_true(&service, "Available").then_some(())
    };
    cluster.wait("v1.apps", || available("v1.apps")).await;
    let crd = crate::registry::tests::gadgets();
    cluster.create(kinds::CRDS, crd.clone()).await;
    cluster.wait("v1.x.io", || available("v1.x.io")).await;
    cluster.delete(kinds::CRDS, "", object::name(&crd), None).await;
    cluster.gone(served::API_SERVICES, "", "v1.x.io").await;
    let service = json!({"metadata": {"name": "s", "namespace": "default"},
        "spec": {"clusterIP": "10.96.5.5", "ports": [{"port": 80}]}});
    cluster.create(address::SERVICES, service).await;
    cluster
        .wait("its address", || cluster.get(address::ADDRESSES, "", "10.96.5.5"))
        .await;
    cluster.delete(address::SERVICES, "default", "s", None).await;
    cluster.gone(address::ADDRESSES, "", "10.96.5.5").await;
}
