//! What an agent may do before the hub knows it (ocm-wire §2.5): ask to be a cluster, ask for a certificate.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;
use muster_crds::constants::names;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    error::Error,
    writer::{Writer, what},
};

fn role() -> Value {
    let clusters = muster_crds::cluster::GROUP;
    json!({
        "metadata": {"name": names::BOOTSTRAP_CLUSTER_ROLE},
        "rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
            {
                "apiGroups": ["certificates.k8s.io"],
                "resources": ["certificatesigningrequests"],
                "verbs": ["create", "get", "list", "watch"],
            },
            {"apiGroups": [clusters], "resources": ["managedclusters"], "verbs": ["get", "create", "list", "watch"]},
            {"apiGroups": [clusters], "resources": ["managedclustersets/join"], "verbs": ["create"]},
        ],
    })
}

fn binding() -> Value {
    json!({
        "metadata": {"name": names::BOOTSTRAP_CLUSTER_ROLE},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": names::BOOTSTRAP_CLUSTER_ROLE,
        },
        "subjects": [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": names::BOOTSTRAP_GROUP},
            {
                "kind": "ServiceAccount",
                "namespace": names::OPERATOR_NAMESPACE,
                "name": names::BOOTSTRAP_SERVICE_ACCOUNT,
            },
        ],
    })
}

/// Makes the role and its binding, or brings them back to what they should be.
pub async fn install(writer: &Writer) -> Result<(), Error> {
    keep::<ClusterRole>(writer, role(), &["rules"]).await?;
    keep::<ClusterRoleBinding>(writer, binding(), &["subjects"]).await
}

async fn keep<K>(writer: &Writer, wanted: Value, fields: &[&str]) -> Result<(), Error>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let name = names::BOOTSTRAP_CLUSTER_ROLE;
    let api = Api::<K>::all(writer.client());
    let subject = what::<K>(name);
    let json = |error| Error::request(format!("make {}", what::<K>(name)))(kube::Error::SerdeError(error));
    let Some(there) = writer
        .bounded(format!("read {subject}"), api.get_opt(name))
        .await?
    else {
        let object: K = serde_json::from_value(wanted).map_err(json)?;
        return writer.create(&api, &object, &subject).await.map(|_| ());
    };
    let there = serde_json::to_value(&there).map_err(json)?;
    let mut patch = serde_json::Map::new();
    for field in fields {
        if there.get(*field) != wanted.get(*field) {
            patch.insert((*field).to_owned(), wanted[*field].clone());
        }
    }
    if patch.is_empty() {
        return Ok(());
    }
    writer
        .patch(&api, name, None, &Value::Object(patch), &subject)
        .await
        .map(|_| ())
}
