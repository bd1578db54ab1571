use serde_json::{Value, json};

use super::*;

/// Rules over an API that knows one right and one namespace that goes.
fn rules(allowed: bool, phase: &'static str) -> Rules {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| async move {
        let answer = if request.uri().path().ends_with("subjectaccessreviews") {
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {},
                "status": {"allowed": allowed}})
        } else {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "c1"}, "status": {"phase": phase}})
        };
        Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::from(
            answer.to_string().into_bytes(),
        )))
    });
    let options = HubOptions {
        feature_gates: vec!["ManifestWorkReplicaSet=true".parse().unwrap()],
        ..HubOptions::default()
    };
    Rules::new(Client::new(service, "default"), &options, &options.gates())
}

fn review(object: &Value, old: &Value) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "u", "operation": "CREATE", "name": "c1", "namespace": "c1",
            "userInfo": {"username": "jane"}, "object": object, "oldObject": old},
    })
    .to_string()
}

async fn response(rules: &Rules, path: &str, object: &Value) -> Value {
    match rules.answer(path, review(object, &Value::Null).as_bytes()).await {
        Reply::Answer(text) => serde_json::from_str::<Value>(&text).unwrap()["response"].take(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_path_has_its_rule() {
    let cluster = json!({"metadata": {"name": "c1"}, "spec": {"hubAcceptsClient": true}});
    let binding = json!({"metadata": {"name": "s"}, "spec": {"clusterSet": "s"}});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let account =
        json!({"subject": {"type": "ServiceAccount", "serviceAccount": {"namespace": "n", "name": "s"}}});
    let work = json!({"spec": {"workload": {"manifests": [map]}, "executor": account}});
    let set = json!({"spec": {"manifestWorkTemplate": work["spec"]}});
    for (path, object, message) in [
        (
            admission::VALIDATE_CLUSTER,
            &cluster,
            "user \"jane\" cannot update the HubAcceptsClient field",
        ),
        (
            admission::VALIDATE_BINDING,
            &binding,
            "user \"jane\" is not allowed to bind cluster set \"s\"",
        ),
        (
            admission::VALIDATE_WORK,
            &work,
            "user jane cannot manipulate the Manifestwork with executor n/s",
        ),
        (
            admission::VALIDATE_REPLICA_SET,
            &set,
            "user jane cannot manipulate the ManifestWorkReplicaSet with executor n/s",
        ),
    ] {
        let yes = response(&rules(true, "Active"), path, object).await;
        assert_eq!(yes, json!({"uid": "u", "allowed": true}), "{path}");
        let no = response(&rules(false, "Active"), path, object).await;
        assert_eq!(no["allowed"], false, "{path}");
        assert!(
            no["status"]["message"].as_str().unwrap().contains(message),
            "{no}"
        );
    }
    let off = Rules {
        replica_sets: false,
        ..rules(true, "Active")
    };
    let no = response(&off, admission::VALIDATE_REPLICA_SET, &set).await;
    assert_eq!(
        no["status"]["message"],
        "ManifestWorkReplicaSet feature is disabled"
    );
    let going = response(&rules(true, "Terminating"), admission::VALIDATE_CLUSTER, &cluster).await;
    let message = going["status"]["message"].as_str().unwrap();
    assert!(
        message.ends_with("cluster namespace \"c1\" is terminating"),
        "{message}"
    );
    let completed = response(&rules(false, "Active"), admission::MUTATE_CLUSTER, &cluster).await;
    assert_eq!(completed["patchType"], "JSONPatch");
}

#[tokio::test]
async fn what_makes_no_sense_is_told_so() {
    let rules = rules(true, "Active");
    assert_eq!(rules.answer("/elsewhere", b"{}").await, Reply::NoSuchPath);
    for body in [&b"\xff"[..], b"{}", b"[", b""] {
        let reply = rules.answer(admission::VALIDATE_WORK, body).await;
        assert!(matches!(reply, Reply::NoReview(_)), "{body:?}: {reply:?}");
    }
    let no = response(
        &rules,
        admission::VALIDATE_WORK,
        &json!({"spec": {"workload": {"manifests": 1}}}),
    )
    .await;
    assert_eq!(
        (&no["allowed"], &no["status"]["code"]),
        (&json!(false), &json!(400))
    );
    // An API that cannot be asked is a no, with the reason.
    let down = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("it is down"))
    });
    let options = HubOptions::default();
    let rules = Rules::new(Client::new(down, "default"), &options, &options.gates());
    let binding = json!({"metadata": {"name": "s"}, "spec": {"clusterSet": "s"}});
    let no = response(&rules, admission::VALIDATE_BINDING, &binding).await;
    assert!(
        no["status"]["message"]
            .as_str()
            .unwrap()
            .ends_with("is forbidden: it is down"),
        "{no}"
    );
}
