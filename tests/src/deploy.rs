//! What `deploy/` holds, as a person applies it: objects in order, and the accounts that programs run as.

use crate::control_plane::ControlPlane;
use crate::kube::Kube;
use crate::wait::{SOON, eventually};
use anyhow::Context as _;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Who applies.
const MANAGER: &str = "kubectl";

/// The objects of all YAML files of a folder of `deploy/`, namespaces first.
pub fn objects(folder: &str) -> anyhow::Result<Vec<Value>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        for document in text.split("\n---\n") {
            let object: Value =
                serde_saphyr::from_str(document).with_context(|| format!("reading {}", file.display()))?;
            objects.push(object);
        }
    }
    objects.sort_by_key(|object| object["kind"] != "Namespace");
    Ok(objects)
}

/// The same for another namespace.
pub fn in_namespace(objects: Vec<Value>, from: &str, to: &str) -> anyhow::Result<Vec<Value>> {
    let quoted = |name: &str| format!("\"{name}\"");
    let text = Value::Array(objects)
        .to_string()
        .replace(&quoted(from), &quoted(to));
    Ok(serde_json::from_str(&text)?)
}

/// The URL path of an object.
pub fn path(object: &Value) -> anyhow::Result<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let version = text(&object["apiVersion"]).context("it has no apiVersion")?;
    let kind = text(&object["kind"]).context("it has no kind")?;
    let root = if version.contains('/') { "apis" } else { "api" };
    let namespace =
        text(&object["metadata"]["namespace"]).map_or(String::new(), |name| format!("/namespaces/{name}"));
    let name = text(&object["metadata"]["name"]).context("it has no name")?;
    // All kinds here are regular.
    Ok(format!(
        "/{root}/{version}{namespace}/{}s/{name}",
        kind.to_lowercase()
    ))
}

/// Applies the objects, server-side.
pub async fn apply(kube: &Kube, objects: &[Value]) -> anyhow::Result<()> {
    for object in objects {
        let path = path(object)?;
        kube.apply(&path, MANAGER, true, object)
            .await
            .with_context(|| format!("applying {path}"))?;
    }
    Ok(())
}

/// A kubeconfig of a service account, with a token of its own, once it has the rights to create these (group, resource):
/// rights follow their roles and bindings a moment later.
pub async fn account(
    plane: &ControlPlane,
    namespace: &str,
    name: &str,
    creates: &[(&str, &str)],
) -> anyhow::Result<PathBuf> {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600}});
    let answer = plane.kube().create(&path, &request).await?;
    let token = answer["status"]["token"]
        .as_str()
        .context("the answer has a token")?;
    let file = plane.account_kubeconfig(&format!("{namespace}-{name}"), token)?;
    let kube = Kube::from_file(name, &file).await?;
    for (group, resource) in creates {
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": "create", "group": group, "resource": resource}}});
        let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        eventually(SOON, &format!("{name} may create {resource}"), || async {
            match kube.create(reviews, &review).await {
                Ok(answer) if answer["status"]["allowed"] == true => Ok(()),
                Ok(answer) => Err(answer["status"].to_string()),
                Err(refused) => Err(refused.to_string()),
            }
        })
        .await?;
    }
    Ok(file)
}
